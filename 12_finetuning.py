"""Lesson 12. How is a trained model adapted and shrunk?

Training all weights of a model again needs as much memory as the first time. This lesson keeps the
trained weights W of a linear map as they are, and trains two narrow matrices next to them (LoRA, low-rank
adaptation). Then it stores the weights in 8 to 2 bits per number instead of 32 (quantisation):

    x·Wᵀ + b + α/r · (x·Aᵀ)·Bᵀ
    W ≈ scale · codes

A is (r, in), B is (out, r); r is the rank, α fixed. Codes are small integers; each group of them has a scale.

You need lesson 5's model, which reverses digits; without a checkpoint, this lesson trains it. You will build
adapters and quantisation. The lesson runs in about a minute and takes an hour and a half to read.
"""

import argparse
import course.console.startup  # noqa: F401 (before torch: it reports what fails in the imports below)
import math
import operator
import sys
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import cached_property, partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

from checks.adapters import add_adapters_checks, lora_checks, merge_adapters_checks
from checks.quantising import dequantize_checks, normal_levels_checks, quantize_checks
from common import (
    Picture,
    check,
    check_mistakes,
    check_part,
    lesson,
    lesson_parser,
    narrate,
    parameters,
    shows,
    table,
)
from course.grading.checking import largest_difference
from course.training.adapters import bytes_of, packed_weights, unpacked_into
from course.training.base import Base
from course.training.channels import with_changed_inputs, with_outlier
from course.training.command_line import add_device
from course.training.engine import finish
from course.training.side_by_side import side_by_side
from figures import finetuning as drawing

(
    Batch, DigitExperiment, TrainingConfig, Transformer, TransformerConfig, draw_batch, evaluate, make_run,
) = lesson(
    "05_mini_transformer", "Batch", "DigitExperiment", "TrainingConfig", "Transformer", "TransformerConfig",
    "draw_batch", "evaluate", "make_run")
TranslationExperiment, TranslationModel, TranslationTraining, corpus_bleu, translate = lesson(
    "08_translation", "TranslationExperiment", "TranslationModel", "TranslationTraining", "corpus_bleu",
    "translate")

__all__ = ["LoRALinear", "Rounded", "add_adapters", "dequantize", "linear_maps",
           "merge_adapters", "normal_levels", "quantize", "quantize_to_levels", "rounded"]


# ------------------------------------------------------------------ adapters


class LoRALinear(nn.Module):
    """A frozen linear map, and next to it a low-rank update that learns (Hu et al. 2021, section 4.1).

    x (…, I) → x·Wᵀ + b + α/r · (x·Aᵀ)·Bᵀ, of shape (…, O). A is `down` (r, I), drawn at random; B is `up`
    (O, r) and starts at 0. W and b are those of `linear`, which are frozen. ValueError, with the values, for
    a rank below 1 or above the smaller of I and O.
    """

    def __init__(self, linear: nn.Linear, rank: int, alpha: float):
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        most = min(self.in_features, self.out_features)
        if not 1 <= rank <= most:
            raise ValueError(f"rank {rank} must be from 1 to {most}, the smaller side of a matrix of "
                             f"{self.out_features} × {self.in_features}")
        self.weight, self.bias = linear.weight.requires_grad_(False), linear.bias
        if self.bias is not None:
            self.bias.requires_grad_(False)
        self.scale = alpha / rank
        self.down = nn.Parameter(self.weight.new_empty(rank, self.in_features))  # A
        self.up = nn.Parameter(self.weight.new_zeros(self.out_features, rank))  # B
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))  # as nn.Linear draws its weights

    def forward(self, x: Tensor) -> Tensor:
        """x (…, I) → (…, O)."""
        narrow = F.linear(x, self.down)  # (…, r)
        return F.linear(x, self.weight, self.bias) + F.linear(self.scale * narrow, self.up)

    def update(self) -> Tensor:
        """(O, I): what the adapter adds to the weights."""
        return self.scale * self.up @ self.down

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """A plain linear map that gives the same output."""
        linear = nn.Linear(self.in_features, self.out_features, self.bias is not None).to(self.weight)
        linear.weight.copy_(self.weight + self.update())
        if self.bias is not None:
            linear.bias.copy_(self.bias)
        return linear


def linear_maps(model: nn.Module, matrices: Sequence[str] = ()) -> dict[str, nn.Linear]:
    """The model's linear maps by name: all, or those that have one of these names in their path.

    ValueError, with the existing names, for a name that is in no path.
    """
    found = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    names = {part for name in found for part in name.split(".") if not part.isdecimal()}
    if unknown := [name for name in matrices if name not in names]:
        raise ValueError(f"no matrix is called {', '.join(unknown)}; there are {', '.join(sorted(names))}")
    return {name: module for name, module in found.items()
            if not matrices or {*matrices} & {*name.split(".")}}


def replace(model: nn.Module, name: str, module: nn.Module) -> None:
    """Replace the model's module of this name."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


def add_adapters(model: nn.Module, rank: int, alpha: float, matrices: Sequence[str] = ()) -> nn.Module:
    """The model, in place: all weights frozen, and an adapter at each linear map.

    `matrices` chooses maps by name (project_query, decoder), as linear_maps() does.
    """
    chosen = linear_maps(model, matrices)
    model.requires_grad_(False)
    for name, linear in chosen.items():
        replace(model, name, LoRALinear(linear, rank, alpha))
    return model


def merge_adapters(model: nn.Module) -> nn.Module:
    """The model, in place, with a plain linear map for each adapter: W + α/r · B·A."""
    for name, module in [*model.named_modules()]:
        if hasattr(module, "merged"):
            replace(model, name, module.merged())
    return model


# ------------------------------------------------------------------ quantisation


def in_groups(weight: Tensor, group: int) -> Tensor:
    """weight (O, I) → (O, G, g): g numbers share a scale; for group 0 all numbers do, (1, 1, O·I).

    A group is never longer than a row. The last group of a row may be shorter; it is padded with 0.
    """
    if group == 0:
        return weight.reshape(1, 1, -1)
    group = min(group, weight.shape[1])
    return F.pad(weight, (0, -weight.shape[1] % group)).unflatten(1, (-1, group))


def out_of_groups(groups: Tensor, like: Tensor) -> Tensor:
    """The inverse of in_groups(): a matrix (O, I), as `like`."""
    return groups.reshape(len(like), -1)[:, : like.shape[1]]


def largest_of(groups: Tensor) -> Tensor:
    """(O, G, g) → (O, G, 1): the largest absolute value of each group, 1 where all are 0."""
    largest = groups.abs().amax(-1, keepdim=True)
    return largest.masked_fill(largest == 0, 1.0)


def quantize(weight: Tensor, bits: int, group: int = 0) -> tuple[Tensor, Tensor]:
    """weight (O, I) → codes (O, I), integers from −top to top = 2^(bits − 1) − 1, and scales (O, G).

    Every `group` neighbours in a row share one scale, which gives the largest of them the code ±top. The last
    group of a row may be shorter; group 0 is the whole matrix, with scales (1, 1). ValueError for fewer than
    2 or more than 8 bits, or a negative group.
    """
    if not 2 <= bits <= 8 or group < 0:
        raise ValueError(f"bits is {bits}, group {group}: bits must be from 2 to 8, group at least 0")
    groups, top = in_groups(weight, group), 2 ** (bits - 1) - 1
    scale = largest_of(groups) / top
    codes = (groups / scale).round()
    return out_of_groups(codes, weight).to(torch.int8), scale[..., 0]


def dequantize(codes: Tensor, scale: Tensor, group: int = 0) -> Tensor:
    """codes (O, I) and the scales of quantize() → weights (O, I): each code times the scale of its group."""
    groups = in_groups(codes.to(scale.dtype), group) * scale[..., None]
    return out_of_groups(groups, codes)


def normal_levels(bits: int = 4) -> Tensor:
    """(2^bits,): NormalFloat's numbers from −1 to 1, ascending (Dettmers et al. 2023, section 3).

    They are quantiles of the normal distribution. One is exactly 0, and there is one more above 0 than below.
    The outermost probability, for n levels, is 1 − (1/(n − 1) + 1/n)/4.
    """
    count = 2**bits
    outermost = 1 - (1 / (count - 1) + 1 / count) / 4
    above, below = (torch.linspace(outermost, 0.5, count // 2 + more, dtype=torch.double)[:-1]
                    for more in (1, 0))
    levels = torch.cat([-torch.special.ndtri(below), torch.zeros(1), torch.special.ndtri(above).flip(0)])
    return (levels / levels.max()).float()


def quantize_to_levels(weight: Tensor, levels: Tensor, group: int = 0) -> tuple[Tensor, Tensor]:
    """weight (O, I) → the indices of the nearest levels (O, I), and scales: each group's largest value."""
    groups = in_groups(weight, group)
    scale = largest_of(groups)
    codes = torch.bucketize(groups / scale, (levels[1:] + levels[:-1]) / 2)
    return out_of_groups(codes, weight), scale[..., 0]


def rounded(weight: Tensor, bits: int, group: int = 0, levels: Tensor | None = None) -> Tensor:
    """Weights (O, I), quantised and dequantised; scales are kept in 16 bits."""
    if levels is None:
        codes, scale = quantize(weight, bits, group)
        return dequantize(codes, scale.half().to(weight), group)
    codes, scale = quantize_to_levels(weight, levels, group)
    return dequantize(levels[codes], scale.half().to(weight), group)


class Rounded(nn.Module):
    """Weights (O, I) → their rounded values; the gradient passes as if nothing were rounded.

    This is the straight-through estimator (Bengio et al. 2013).
    """

    def __init__(self, bits: int, group: int = 0):
        super().__init__()
        self.bits, self.group = bits, group

    def forward(self, weight: Tensor) -> Tensor:
        """weight (O, I) → (O, I)."""
        return weight + (rounded(weight, self.bits, self.group) - weight).detach()


GRADED = {
    "LoRALinear": lora_checks,
    "add_adapters": add_adapters_checks,
    "merge_adapters": merge_adapters_checks,
    "quantize": quantize_checks,
    "dequantize": dequantize_checks,
    "normal_levels": normal_levels_checks,
}
OURS = sys.modules[__name__]  # the checks make the classic mistakes from its parts


# ------------------------------------------------------------------ training


CPU = torch.device("cpu")
STEPS, SEEDS, TESTS = 150, 3, 100
RATE, ADAPTERS_RATE = 3e-3, 1e-2  # the peak learning rate for all weights, and for adapters
ATTENTION = "self_attention", "cross_attention"


class Tuned(NamedTuple):
    """What one method gave and cost."""

    new: float  # exact match on the new task
    trained: int  # how many parameters were trained
    optimizer: int  # bytes that Adam kept for them
    weights: dict[str, Tensor]  # those parameters


METHODS: dict[str, tuple[Callable[[nn.Module], nn.Module] | None, float]] = {
    "all weights": (None, RATE),
    "rank 2": (partial(add_adapters, rank=2, alpha=4.0), ADAPTERS_RATE),
    "rank 4": (partial(add_adapters, rank=4, alpha=8.0), ADAPTERS_RATE),
    "rank 2, attention only": (partial(add_adapters, rank=2, alpha=4.0, matrices=ATTENTION), ADAPTERS_RATE),
}


def tuned(base: Base, task: str, method: str, seed: int) -> Tuned:
    """The base, trained on a task with one of the METHODS."""
    prepare, rate = METHODS[method]
    training = TrainingConfig(task=task, steps=STEPS, lr=rate, warmup=20, weight_decay=0.0, seed=seed,
                              validate_every=STEPS)
    run = finish(make_run(TransformerConfig(), training, CPU, prepare=prepare, base=base,
                          held_out=unread(task)))
    kept = sum(value.nbytes for state in run.optimizer.state.values() for value in state.values()
               if value.ndim)
    learned = {name: p.detach() for name, p in run.model.named_parameters() if p.requires_grad}
    return Tuned(right(run.model, task), sum(p.numel() for p in run.trained), kept, learned)


def unread(task: str) -> Batch:
    """One sequence for the engine's validation, which this lesson doesn't read."""
    return draw_batch(task, 1, "validation", (0,))


def right(model: nn.Module, task: str, count: int = TESTS) -> float:
    """Exact match on test sequences of the task, from one pass with teacher forcing.

    A greedy answer is right exactly when each next token is right after the right ones before it (lesson 5).
    """
    batch = draw_batch(task, count, "test", (0,))
    scores = evaluate(model, batch, decode=lambda *_: batch.tgt_out)
    return scores.forced.float().mean().item()


class TuningExperiment(DigitExperiment):
    """Lesson 5's default run, trained now if necessary, and the runs that start from it."""

    def __init__(self, options: argparse.Namespace):
        super().__init__(TransformerConfig(), TrainingConfig(seed=options.seed), options)
        self.found: dict[tuple[str, str], list[Tuned]] = {}

    @cached_property
    def start(self) -> Base:
        """The weights from which every run starts."""
        weights = self.run.model.state_dict()
        return Base(self.checkpoint, self.run.about, {name: w.cpu() for name, w in weights.items()})

    def model(self) -> Transformer:
        """A copy of the base that a step may change."""
        return self.start.into(Transformer(TransformerConfig())).eval()

    def tuned(self, task: str, *methods: str) -> dict[str, list[Tuned]]:
        """For each method the results of three seeds; each is trained only once."""
        wanted = [(task, method) for method in methods if (task, method) not in self.found]
        seeds = range(self.options.seed, self.options.seed + SEEDS)
        results = iter(side_by_side([partial(tuned, self.start, *pair, seed)
                                     for pair in wanted for seed in seeds]))
        for pair in wanted:
            self.found[pair] = [next(results) for _ in seeds]
        return {method: self.found[task, method] for method in methods}

    def adapted(self) -> nn.Module:
        """The base with the adapters of rank 2 that learned mirror with the first seed."""
        (first, *_), = self.tuned("mirror", "rank 2").values()
        model = add_adapters(self.model(), rank=2, alpha=4.0)
        model.load_state_dict(first.weights, strict=False)
        return model.eval()


# ------------------------------------------------------------------ the quantised model


WIDEST = 256  # numbers in the longest row: groups of this size are rows
SCALES = {"matrix": 0, "row": WIDEST, "group of 32": 32}


@torch.no_grad()
def quantise(model: nn.Module, bits: int, group: int, levels: Tensor | None = None) -> nn.Module:
    """The model, in place, with rounded weights in all its linear maps."""
    for linear in linear_maps(model).values():
        linear.weight.copy_(rounded(linear.weight, bits, group, levels))
    return model


def through_rounding(model: nn.Module, bits: int, group: int) -> nn.Module:
    """The model, in place: its linear maps use rounded weights, and the exact weights are trained."""
    for linear in linear_maps(model).values():
        register_parametrization(linear, "weight", Rounded(bits, group))
    return model


def learned_through(base: Base, bits: int, group: int, seed: int) -> tuple[float, float]:
    """Exact match of the rounded base, before and after training through rounding."""
    training = TrainingConfig(steps=60, lr=1e-3, warmup=10, weight_decay=0.0, seed=seed, validate_every=60)
    run = make_run(TransformerConfig(), training, CPU, base=base, held_out=unread("reverse"),
                   prepare=partial(through_rounding, bits=bits, group=group))
    return right(run.model, "reverse"), right(finish(run).model, "reverse")


def quantised_then_adapted(model: nn.Module) -> nn.Module:
    """The model, in place: 4-bit NormalFloat weights, and adapters of rank 2 next to them (QLoRA)."""
    return add_adapters(quantise(model, 4, 32, normal_levels(4)), rank=2, alpha=4.0)


METHODS["rank 2, 4-bit base"] = quantised_then_adapted, ADAPTERS_RATE

# ------------------------------------------------------------------ the steps


def seeds_shown(found: Sequence[float]) -> str:
    """Percentages, side by side."""
    return " ".join(f"{share:.1%}" for share in found)


def costs(trained: dict[str, list[Tuned]]) -> list[tuple]:
    """A row for each method."""
    whole = parameters(Transformer(TransformerConfig()))
    return [(name, runs[0].trained, f"{runs[0].trained / whole:.1%}", runs[0].optimizer,
             seeds_shown([run.new for run in runs])) for name, runs in trained.items()]


COSTS = "what is trained", "parameters", "of all", "Adam's bytes", "exact match"


@shows(LoRALinear.forward, LoRALinear.update)
def step_narrow_path(experiment: TuningExperiment):
    """A narrow path next to a frozen matrix

    A linear map has a matrix W with O rows and I columns. An adapter (LoRA) leaves W as it is and adds a
    second path from input to output: A turns the I inputs into r numbers, and B turns these into O outputs.
    The product B·A has as many entries as W, but its rank is at most r, and only r · (I + O) numbers are
    trained. α/r · B·A is the update of W; the constant α is 2 · r here.

    A starts at random and B at 0. So a fresh adapter adds exactly 0, and the model gives the same answers as
    without adapters, bit for bit. The gradient of B is not 0, because A is not 0. So B moves first, then A.
    """
    check_part(LoRALinear, lora_checks, OURS)
    check_part(add_adapters, add_adapters_checks, OURS)
    batch, model = draw_batch("reverse", 50, "test", (1,)), experiment.model()
    with torch.no_grad():
        before = model(batch.src, batch.tgt_in)
        same = torch.equal(add_adapters(model, 4, 8.0)(batch.src, batch.tgt_in), before)
    check("fresh adapters at all linear maps leave the model's logits unchanged, bit for bit", same)
    rows = [(f"{linear.out_features} × {linear.in_features}", linear.weight.numel(),
             *(rank * (linear.in_features + linear.out_features) for rank in (1, 2, 4)))
            for linear in (nn.Linear(64, 64), nn.Linear(64, 256))]
    return table("matrix", "parameters", "adapter, rank 1", "rank 2", "rank 4", rows=rows)


@shows(add_adapters)
def step_new_task(experiment: TuningExperiment):
    """A new task with 5 % of the parameters

    Our trained model (the base) reverses digits. The new task, mirror, asks for the reversed digits, but with
    9 − d in place of each digit d: 3 1 4 becomes 5 8 6. Each method trains for 150 steps of 32 sequences,
    with three seeds for the data and A. The learning rate is 0.003 for all weights and 0.01 for adapters.

    Training adapters of rank 2 at all linear maps works as well as training all weights. Adam keeps two
    numbers for each trained parameter, so its memory shrinks in the same proportion. Adapters save memory,
    not computation: a step still runs the whole model forward and backward.
    """
    trained = experiment.tuned("mirror", "all weights", "rank 2")
    check("adapters of rank 2, with less than 5 % of the parameters, get more than 90 % of mirror right with "
          "each seed", min(run.new for run in trained["rank 2"]) > 0.9
          and trained["rank 2"][0].trained < 0.05 * trained["all weights"][0].trained)
    few, whole = (min(run.new for run in trained[name]) for name in ("rank 2", "all weights"))
    check("mirror, worst seeds: adapters of rank 2 are at most 5 percentage points behind training all "
          "weights", few > whole - 0.05, f"{few:.1%}, {whole:.1%}")
    check("Adam's memory is 8 bytes for each trained parameter",
          all(run.optimizer == 8 * run.trained for runs in trained.values() for run in runs))
    return table(*COSTS, rows=costs(trained))


@shows(linear_maps)
def step_which_matrices(experiment: TuningExperiment):
    """Which matrices need adapters?

    Hu et al. (2021) adapt only the attention's projections. With adapters of rank 2 there and none in
    the feed-forward networks, fewer answers to mirror are right than with adapters at all maps. How many
    fewer depends on the base model and the seed, so you have to try it.
    """
    trained = experiment.tuned("mirror", "rank 2", "rank 2, attention only")
    everywhere, attention = (sum(run.new for run in trained[name]) / SEEDS
                             for name in ("rank 2", "rank 2, attention only"))
    check("with adapters of rank 2 at the attention's projections only, fewer answers are right than with "
          "adapters at all maps", attention < everywhere, f"{attention:.1%}, {everywhere:.1%}")
    return table(*COSTS, rows=costs(trained))


def step_limit(experiment: TuningExperiment):
    """A task on which adapters fall behind

    The task copy asks for the digits in the same order. Now every position of the answer has to look
    somewhere else in the source. In 150 steps, training all weights gets most answers right with each seed.
    Adapters of rank 4 do worse: with at least one seed far fewer answers are right.
    """
    trained = experiment.tuned("copy", "all weights", "rank 4")
    least = {name: min(run.new for run in runs) for name, runs in trained.items()}
    check("copy, worst seeds: training all weights gets more than 60 % right, and adapters of rank 4 are at "
          "least 30 percentage points behind", least["all weights"] > max(0.6, least["rank 4"] + 0.3),
          f"{least['all weights']:.1%}, {least['rank 4']:.1%}")
    return table(*COSTS, rows=costs(trained))


RANKS = 1, 2, 4, 8, 16


@torch.no_grad()
def cut(experiment: TuningExperiment, task: str, run: Tuned) -> dict[int, float]:
    """Rank → exact match if each update is replaced by the nearest matrix of this rank (by SVD)."""
    model, found = experiment.model(), {}
    maps = linear_maps(model)
    before = {name: linear.weight.clone() for name, linear in maps.items()}
    model.load_state_dict(run.weights)
    parts = {name: torch.linalg.svd(linear.weight - before[name], full_matrices=False)
             for name, linear in maps.items()}
    for rank in RANKS:
        for name, (u, s, v) in parts.items():
            maps[name].weight.copy_(before[name] + (u[:, :rank] * s[:rank]) @ v[:rank])
        found[rank] = right(model, task)
    return found


@shows(cut)
def step_low_rank(experiment: TuningExperiment):
    """Does the update have low rank?

    Hu et al. suppose that training all weights gives updates of low rank. After this training, each
    linear map's update (new minus old weights) is replaced by the nearest matrix of rank r, which the
    singular value decomposition gives. Everything else stays as trained.

    With the updates cut to rank 2, most answers to mirror are wrong. But adapters *trained* with rank 2 solve
    the task: another update of rank 2 works, and training with this rank finds it.
    """
    whole = {task: experiment.tuned(task, "all weights")["all weights"] for task in ("mirror", "copy")}
    jobs = [(task, run) for task, runs in whole.items() for run in runs]
    found = side_by_side([partial(cut, experiment, *job) for job in jobs], optimisers=False)
    by_rank = {task: {rank: [shares[rank] for (name, _), shares in zip(jobs, found) if name == task]
                      for rank in RANKS} for task in whole}
    trained = {task: {rank: [run.new for run in experiment.tuned(task, f"rank {rank}")[f"rank {rank}"]]
                      for rank in ranks} for task, ranks in (("mirror", (2,)), ("copy", (4,)))}
    worst, best = min(trained["mirror"][2]), max(by_rank["mirror"][2])
    check("mirror: adapters trained with rank 2 get more than 90 % right, and updates cut to rank 2 get less "
          "than half right, with each seed", worst > 0.9 and best < 0.5, f"{worst:.1%}, {best:.1%}")
    figure = drawing.draw_low_rank(by_rank, trained)
    rows = [(f"cut to rank {rank}", *(seeds_shown(by_rank[task][rank]) for task in whole)) for rank in RANKS]
    rows += [(f"trained with rank {rank}", *(seeds_shown(trained[task].get(rank, [])) for task in whole))
             for rank in (2, 4)]
    return table("", "mirror", "copy", rows=rows, title="exact match, three seeds"), Picture(
        experiment.file("finetuning_low_rank"), figure,
        "mirror: updates cut to rank 2 afterwards fail; adapters trained with rank 2 are enough")


@shows(LoRALinear.merged, merge_adapters)
def step_merge(experiment: TuningExperiment):
    """Adapters: merged or removed

    A trained adapter can be merged into its matrix: W + α/r · B·A. Then it costs no extra computation. Or
    the adapters can be removed: W never changed, so the old model is back, bit for bit. While adapters are
    on, the old task is lost: for the same digits the model now gives the answer to mirror.

    A checkpoint of adapters holds only A, B and a hash of the base's weights. It is useless without the base.
    """
    check_part(merge_adapters, merge_adapters_checks, OURS)
    model, batch = experiment.adapted(), draw_batch("mirror", 50, "test", (1,))
    base, merged = experiment.model(), merge_adapters(deepcopy(model))
    gap = largest_difference(merged(batch.src, batch.tgt_in), model(batch.src, batch.tgt_in))
    check("the logits of the merged model and of the model with adapters differ by less than 10⁻⁴",
          gap < 1e-4, f"{gap:.0e}")
    rows = [(name, *(f"{right(one, task):.1%}" for task in ("mirror", "reverse")))
            for name, one in (("base", base), ("adapters on", model), ("merged", merged))]
    for module in model.modules():
        if hasattr(module, "up"):
            module.up.data.zero_()
    with torch.no_grad():
        back = torch.equal(model(batch.src, batch.tgt_in), base(batch.src, batch.tgt_in))
    check("with the adapters removed, the model gives the logits of the base, bit for bit", back)
    check("with the adapters on, fewer than 5 % of the answers to reverse are right",
          float(rows[1][2][:-1]) < 5)
    return table("", "mirror", "reverse", rows=rows, title="exact match")


@shows(quantize, dequantize)
def step_eight_bits(experiment: TuningExperiment):
    """Eight bits are enough

    A float32 number has 32 bits. Quantised to 8 bits, a weight is an integer from −127 to 127 (its code),
    and all weights of a matrix share one scale: the largest absolute value divided by 127. Embedding, norms
    and biases stay as they are.

    With one scale per matrix, 8 bits and even 6 bits get as many answers right as 32 bits.
    """
    check_part(quantize, quantize_checks, OURS)
    check_part(dequantize, dequantize_checks, OURS)
    model = experiment.model()
    shares = {32: right(model, "reverse")}
    rows = [(32, f"{shares[32]:.1%}", sum(linear.weight.nbytes for linear in linear_maps(model).values()))]
    for bits in (8, 6):
        state = packed_weights(model, bits, 0)
        shares[bits] = right(unpacked_into(experiment.model(), state), "reverse")
        rows.append((bits, f"{shares[bits]:.1%}", state["codes"].nbytes + state["scales"].nbytes))
    check("8 and 6 bits get at most 1 percentage point fewer answers right than 32 bits",
          min(shares.values()) > shares[32] - 0.01)
    return table("bits", "exact match", "bytes of the linear maps", rows=rows)


@shows(in_groups)
def step_finer_scales(experiment: TuningExperiment):
    """Fewer bits need finer scales

    With 3 bits there are only seven codes, from −3 to 3. If one weight of a matrix is large, the scale is
    large, and many other weights become 0. So each row gets its own scale, or each group of 32 neighbours in
    a row. A scale is kept in 16 bits: in groups of 32 it costs half a bit per weight.

    With 3 bits, one scale per row gets more answers right than one per matrix, and groups of 32 get nearly
    all right. With 2 bits (−1, 0 and 1) most answers are wrong with each kind of scale.
    """
    found = {name: {bits: right(quantise(experiment.model(), bits, group), "reverse", 200)
                    for bits in (8, 6, 4, 3, 2)} for name, group in SCALES.items()}
    matrix, row, group = (by_bits[3] for by_bits in found.values())
    check("3 bits: a scale per row gets at least 5 percentage points more right than one per matrix, and "
          "groups of 32 get more than 95 % right", matrix < row - 0.05 and group > 0.95,
          f"{matrix:.1%}, {row:.1%}, {group:.1%}")
    check("4 bits in groups of 32 get more than 98 % right; 2 bits get under half right with any scale",
          found["group of 32"][4] > 0.98 and max(by_bits[2] for by_bits in found.values()) < 0.5)
    model = experiment.model()
    rows = [(bits, *(f"{by_bits[bits]:.1%}" for by_bits in found.values()), bytes_of(model, bits, 32))
            for bits in (8, 6, 4, 3, 2)]
    return table("bits", *(f"one scale per {name}" for name in SCALES), "bytes (groups of 32)", rows=rows,
                 title="exact match"), Picture(experiment.file("finetuning_bits"), drawing.draw_bits(found),
                                     "With 3 bits, finer scales than one per matrix get more answers right")


OUTLIER = 130.0


@shows(with_outlier)
def step_one_channel(experiment: TuningExperiment):
    """One channel spoils a matrix

    A channel is one entry of every token's vector. In large models a few channels have far larger activations
    than all others (Dettmers et al. 2022). This step puts a large channel into our weights, without changing
    what the model computes: it divides channel 0 of every norm by 130, and multiplies the weights that read
    this channel by 130.

    Now one column sets the scale of the whole matrix. With 8 bits and one scale per matrix nearly all other
    weights get the codes −1, 0 and 1, and most answers are wrong. One scale per row is enough here.
    """
    shares = {"32 bits": right(with_outlier(experiment.model(), OUTLIER), "reverse")}
    for name, group in SCALES.items():
        shares[name] = right(quantise(with_outlier(experiment.model(), OUTLIER), 8, group), "reverse")
    check("in 32 bits the model with the large channel gets more than 99 % right", shares["32 bits"] > 0.99)
    check("8 bits: one scale per matrix gets less than half right, one per row gets more than 90 % right",
          shares["matrix"] < 0.5 and shares["row"] > 0.9, f"{shares['matrix']:.1%}, {shares['row']:.1%}")
    weight = with_outlier(experiment.model(), OUTLIER).encoder.blocks[0].feed_forward.expand.weight.detach()
    codes = {f"one scale per {name}": quantize(weight, 8, group)[0][:, 1:].flatten().tolist()
             for name, group in SCALES.items()}
    small = [sum(abs(code) <= 1 for code in found) / len(found) for found in codes.values()]
    check("with one scale per matrix, over 95 % of the weights outside the channel get codes −1, 0 and 1; "
          "with groups of 32, under half do", small[0] > 0.95 and small[2] < 0.5,
          f"{small[0]:.1%}, {small[2]:.1%}")
    figure = drawing.draw_outlier(weight, codes, {f"one scale per {name}": shares[name] for name in SCALES})
    return table("32 bits, or 8 bits and one scale per", "exact match", rows=[
        (name, f"{share:.1%}") for name, share in shares.items()]), Picture(
        experiment.file("finetuning_outlier"), figure,
        "With one scale per matrix, one large channel leaves the other weights hardly any codes")


def whole_number_product(x: Tensor, weight: Tensor) -> Tensor:
    """x (N, I) times weight (O, I) transposed, both in 8 bits: the sums are integers."""
    rows, row_scale = quantize(x, 8, x.shape[1])  # one scale per token
    columns, column_scale = quantize(weight, 8, weight.shape[1])
    return rows.int() @ columns.int().T * row_scale * column_scale.T


@shows(whole_number_product)
def step_whole_numbers(experiment: TuningExperiment):
    """Products of integers only

    If the inputs of a linear map are quantised as well, its product needs only integers: products of codes
    are added up, and the sum is multiplied by both scales. All products in one sum must have the same
    scales; so inputs have one scale per token, and weights have one per row.

    One scale for all tokens is worse than one per token if a channel of the inputs is large: for the table's
    second row, channel 0 of every norm is multiplied by 100, and the weights that read it are divided by 100.
    """
    pair = torch.randn(16, 256), torch.randn(64, 256)
    x, weight = (dequantize(*quantize(one, 8, 256), 256) for one in pair)
    gap = largest_difference(whole_number_product(*pair), x @ weight.T)
    check("the integer product differs from the product of the dequantised matrices by less than 10⁻³",
          gap < 1e-3, f"{gap:.0e}")
    rows, shares = [], {}
    for name, factor in (("as it is", 1.0), ("channel 0 of the inputs × 100", 0.01)):
        for scale, group in (("all tokens", 0), ("each token", WIDEST)):
            model = quantise(with_outlier(experiment.model(), factor), 8, WIDEST)
            with_changed_inputs(linear_maps(model).values(), partial(rounded, bits=8, group=group))
            shares[name, scale] = right(model, "reverse")
        rows.append((name, *(f"{shares[name, scale]:.1%}" for scale in ("all tokens", "each token"))))
    check("8-bit inputs and weights get more than 98 % right with either kind of scale",
          min(shares["as it is", scale] for scale in ("all tokens", "each token")) > 0.98)
    large = [shares[rows[1][0], scale] for scale in ("all tokens", "each token")]
    check("with a large channel in the inputs one scale per token gets at least 20 percentage points more "
          "right than one for all tokens", large[1] > large[0] + 0.2, f"{large[0]:.1%}, {large[1]:.1%}")
    return table("8-bit weights and inputs", "one scale for all tokens", "one scale per token", rows=rows)


def error(weight: Tensor, bits: int, group: int, levels: Tensor | None = None) -> float:
    """The error of rounded weights (RMS), relative to the weights."""
    return ((rounded(weight, bits, group, levels) - weight).norm() / weight.norm()).item()


@shows(normal_levels)
def step_normal_levels(experiment: TuningExperiment):
    """More levels near 0

    Integers are evenly spaced, but most weights are near 0. NormalFloat (NF4) rounds to 16 numbers (levels)
    that are closer together near 0. They are quantiles of the normal distribution: normally distributed
    weights round to each of them about equally often.

    For normally distributed weights NF4 has a smaller error than 4-bit integers; for uniformly distributed
    weights it has a larger one.
    """
    check_part(normal_levels, normal_levels_checks, OURS)
    levels, rows, better = normal_levels(4), [], {}
    for name, draw in (("normal", torch.randn), ("uniformly distributed from −1 to 1",
                                                 lambda *shape: 2 * torch.rand(*shape) - 1)):
        pairs = [(error(weight, 4, 32), error(weight, 4, 32, levels))
                 for weight in (draw(256, 256) for _ in range(SEEDS))]
        better[name] = [normal < whole for whole, normal in pairs]
        rows.append((name, *(sum(errors) / SEEDS for errors in zip(*pairs))))
    check("for normal weights NF4 has a smaller error than integers in all 3 draws", all(better["normal"]))
    check("for uniformly distributed weights integers have a smaller error than NF4 in all 3 draws",
          not any(better[rows[1][0]]))
    return table("weights, groups of 32", "error of 4-bit integers", "error of NF4", rows=rows)


@shows(Rounded.forward)
def step_through_rounding(experiment: TuningExperiment):
    """Training through rounding

    Rounding has a derivative of 0 almost everywhere, so no gradient would pass through it. The
    straight-through estimator rounds in the forward pass, and in the backward pass acts as if it had not: the
    gradient of the rounded weight goes to the exact weight, which the optimiser changes.

    After 60 steps of 32 sequences, 3 bits with one scale per matrix get nearly all answers right. With one
    scale per row, 2 bits get most right.
    """
    kinds = {"3 bits, one scale per matrix": (3, 0), "2 bits, one scale per row": (2, WIDEST)}
    seeds = range(experiment.options.seed, experiment.options.seed + SEEDS)
    found = iter(side_by_side([partial(learned_through, experiment.start, *kind, seed)
                               for kind in kinds.values() for seed in seeds]))
    rows, afters = [], []
    for name in kinds:
        pairs = [next(found) for _ in seeds]
        afters.append([after for _, after in pairs])
        rows.append((name, f"{pairs[0][0]:.1%}", seeds_shown(afters[-1])))
    check("after 60 training steps through rounding, 2 bits get more than 90 % right with each seed",
          min(afters[1]) > 0.9)
    check("after 60 training steps through rounding, 3 bits get more than 95 % right with each seed",
          min(afters[0]) > 0.95)
    return table("", "before training", "after 60 steps, three seeds", rows=rows, title="exact match")


@shows(quantised_then_adapted)
def step_quantised_base(experiment: TuningExperiment):
    """Adapters on a 4-bit base

    QLoRA (Dettmers et al. 2023) quantises the frozen base to NF4, and trains adapters (here in 32 bits)
    next to it. The codes need an eighth of the base's bytes, and the scales are extra.

    On this base, adapters of rank 2 learn mirror as well as on the exact base. Merged weights are no longer
    NF4's levels; for the last row they are quantised once more.
    """
    trained = experiment.tuned("mirror", "rank 2", "rank 2, 4-bit base")
    check("on the 4-bit base, adapters of rank 2 get more than 95 % of mirror right, with each seed",
          min(run.new for run in trained["rank 2, 4-bit base"]) > 0.95)
    model = quantised_then_adapted(experiment.model())
    model.load_state_dict(trained["rank 2, 4-bit base"][0].weights, strict=False)
    merged = merge_adapters(model.eval())
    again = right(quantise(deepcopy(merged), 4, 32, normal_levels(4)), "mirror")
    rows = [*((name, seeds_shown([run.new for run in runs])) for name, runs in trained.items()),
            ("on the 4-bit base, first seed, merged", f"{right(merged, 'mirror'):.1%}"),
            ("merged and quantised again", f"{again:.1%}")]
    exact = sum(linear.weight.nbytes for linear in linear_maps(experiment.model()).values())
    return table("", "exact match", rows=rows), (
        f"The base's linear maps take {bytes_of(experiment.model(), 4, 32):,} instead of {exact:,} bytes.")


def step_translator(experiment: TuningExperiment):
    """The translator in few bits

    If lesson 8's checkpoint is in the output folder, its model, quantised in groups of 32, translates 100
    test sentences here. Two bits cost this larger model fewer answers than the digit model.
    """
    translator = TranslationExperiment(TranslationModel(), TranslationTraining(), argparse.Namespace(
        **vars(experiment.options), input="answers only"))
    if not translator.checkpoint.exists():
        return f"There is no {translator.checkpoint.name}: lesson 8 makes it."
    pairs, shares, rows = translator.pairs(100), {}, []
    sources, targets = ([pair[side] for pair in pairs] for side in (0, 1))
    for bits in (32, 8, 4, 3, 2):
        model = deepcopy(translator.model)
        model = model if bits == 32 else quantise(model, bits, 32)
        answers = translate(model, translator.encoding, sources)
        shares[bits] = sum(map(operator.eq, answers, targets)) / len(pairs)
        rows.append((bits, corpus_bleu(answers, targets).score, f"{shares[bits]:.0%}"))
    check("the translator loses at most 5 of 100 answers with 8 or 4 bits",
          min(shares[8], shares[4]) >= shares[32] - 0.05)
    check("with 2 bits the translator still gets over 30 % right", shares[2] > 0.3)
    return table("bits", "BLEU", "exact match", rows=rows)


def step_broken_on_purpose(experiment: TuningExperiment):
    """Broken on purpose

    In the first table's second row the embedding, which is also the output matrix, is quantised instead of
    the linear maps. It has only 832 numbers, and yet 4 bits there cost more answers than 4 bits in all linear
    maps together. So the steps above leave it as it is.

    In the second table every mistake fails a check. If α equals r, a merge without α/r happens to be right;
    so the checks use α = 3 · r. If A and B are both 0, neither ever changes.
    """
    def with_rounded_embedding(model: nn.Module) -> nn.Module:
        with torch.no_grad():
            model.embedding.weight.copy_(rounded(model.embedding.weight, 4, 0))
        return model

    maps = right(quantise(experiment.model(), 4, 0), "reverse")
    embedding = right(with_rounded_embedding(experiment.model()), "reverse")
    check("with 4 bits, quantising the embedding costs more answers than quantising all linear maps",
          embedding < maps - 0.1, f"{embedding:.1%} right, {maps:.1%} with quantised maps")
    rows = [("all linear maps", f"{maps:.1%}"), ("only the embedding", f"{embedding:.1%}")]
    return table("in 4 bits, one scale per matrix", "exact match", rows=rows), check_mistakes(
        OURS, *GRADED.values())


def step_what_next(experiment: TuningExperiment):
    """What now?

    Read: LoRALinear, then quantize and dequantize.

    Change: (1) STEPS = 75: which methods still learn mirror? (2) In METHODS, rank 4 for attention only: is it
    enough? (3) In SCALES, "group of 8": 8: how much do 3 bits gain, and what do they cost?

    Other lessons use adapters and quantised weights:

        python 05_mini_transformer.py --task mirror --from outputs/checkpoint_reverse.pt --rank 4 --lr 0.01
        python 06_decoding.py --input "3 1 4 1 5" --bits 4 --group 32

    Write it yourself: --template my_finetuning.py, then --grade my_finetuning.py.
    """


def main():
    parser = lesson_parser(__doc__, GRADED)
    add_device(parser)
    options = parser.parse_args()
    try:
        experiment = TuningExperiment(options)
    except ValueError as error:
        parser.error(str(error))
    steps = [
        step_narrow_path, step_new_task, step_which_matrices, step_limit, step_low_rank, step_merge,
        step_eight_bits, step_finer_scales, step_one_channel, step_whole_numbers, step_normal_levels,
        step_through_rounding, step_quantised_base, step_translator, step_broken_on_purpose, step_what_next]
    narrate(options, __doc__, steps, experiment)


if __name__ == "__main__":
    main()

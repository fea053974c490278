"""Lesson 12. How is a trained model adapted and shrunk?

Training all weights of a model again costs as much memory as its first training. This lesson keeps the
trained weights W of a linear map as they are, and trains two narrow matrices next to them (LoRA, low-rank
adaptation). Then it stores the weights in 8, 4, 3 and 2 bits per number instead of 32 (quantisation):

    x·Wᵀ + b + α/r · (x·Aᵀ)·Bᵀ                  A (r, in), B (out, r): rank r, scale α/r
    W ≈ scale · codes                           codes: small whole numbers, one scale for each group

The model is the one that lesson 5 trained to reverse digits; without its checkpoint it is trained now, which
takes half a minute.
"""

import course.console.startup  # noqa: F401 (before torch: it hears what fails in the imports below)
import argparse
import math
import sys
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import cached_property, partial
from typing import Any, NamedTuple

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
from course.training.base import Base
from course.training.command_line import add_device
from course.training.engine import finish
from course.training.side_by_side import side_by_side
from figures import finetuning as drawing

(
    DigitExperiment, TrainingConfig, Transformer, TransformerConfig, draw_batch, evaluate, make_run,
) = lesson(
    "05_mini_transformer", "DigitExperiment", "TrainingConfig", "Transformer", "TransformerConfig",
    "draw_batch", "evaluate", "make_run")

__all__ = ["LoRALinear", "Rounded", "add_adapters", "dequantize", "from_levels", "linear_maps",
           "merge_adapters", "normal_levels", "quantize", "quantize_to_levels", "rounded"]


# ------------------------------------------------------------------ adapters


class LoRALinear(nn.Module):
    """A frozen linear map, and next to it a low-rank update that learns (Hu et al. 2021, section 4.1).

    x (…, I) → x·Wᵀ + b + α/r · (x·Aᵀ)·Bᵀ, of shape (…, O). A is `down` (r, I), drawn at random; B is `up`
    (O, r) and starts at 0. W and b are those of `linear`, which are frozen. ValueError, with the values, for
    a rank that is not from 1 to the smaller of I and O.
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
        return F.linear(x, self.weight, self.bias) + self.scale * F.linear(narrow, self.up)

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
    """Name → linear map, for all in the model, or for those that have one of these names in their path.

    ValueError, with the names that there are, for a name in no path.
    """
    found = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    names = {part for name in found for part in name.split(".") if not part.isdecimal()}
    if unknown := [name for name in matrices if name not in names]:
        raise ValueError(f"no matrix is called {', '.join(unknown)}; there are {', '.join(sorted(names))}")
    return {name: module for name, module in found.items()
            if not matrices or {*matrices} & {*name.split(".")}}


def replace(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put a module in place of the one of this name in the model."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


def add_adapters(model: nn.Module, rank: int, alpha: float, matrices: Sequence[str] = ()) -> nn.Module:
    """The model, in place: all of its weights frozen, and an adapter at each linear map.

    With `matrices`, only at those with one of these names in their path, such as project_query or decoder.
    ValueError, with the names that there are, for a name in no path.
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
    """weight (O, I) → (O, G, g): the numbers that share a scale; for group 0 all of them, (1, 1, O·I).

    A group is never longer than a row. The rest of a row is a shorter group, filled up with 0.
    """
    if group == 0:
        return weight.reshape(1, 1, -1)
    group = min(group, weight.shape[1])
    return F.pad(weight, (0, -weight.shape[1] % group)).unflatten(1, (-1, group))


def out_of_groups(groups: Tensor, like: Tensor) -> Tensor:
    """The reverse of in_groups(), as a matrix (O, I) like the other."""
    return groups.reshape(len(like), -1)[:, : like.shape[1]]


def largest_of(groups: Tensor) -> Tensor:
    """(O, G, g) → (O, G, 1): the largest absolute value of each group, 1 where all are 0."""
    largest = groups.abs().amax(-1, keepdim=True)
    return largest.masked_fill(largest == 0, 1.0)


def quantize(weight: Tensor, bits: int, group: int = 0) -> tuple[Tensor, Tensor]:
    """weight (O, I) → codes (O, I), whole numbers from −top to top = 2^(bits − 1) − 1, and scales (O, G).

    Each `group` of neighbours in a row shares one scale, which gives its largest value the code ±top. The
    rest of a row is a shorter group; a group as long as a row is the row; group 0 is the whole matrix, with
    scales (1, 1). ValueError for bits that are not from 2 to 8, or a negative group.
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

    They are quantiles of the normal distribution, so that about equally many normal weights are next to each.
    Half of them are below 0, one is exactly 0; the outermost quantile is the mean of two near choices.
    """
    count = 2**bits
    outermost = 1 - (1 / (count - 1) + 1 / count) / 4
    above, below = (torch.linspace(outermost, 0.5, count // 2 + more, dtype=torch.double)[:-1]
                    for more in (1, 0))
    levels = torch.cat([-torch.special.ndtri(below), torch.zeros(1), torch.special.ndtri(above).flip(0)])
    return (levels / levels.max()).float()


def quantize_to_levels(weight: Tensor, levels: Tensor, group: int = 0) -> tuple[Tensor, Tensor]:
    """weight (O, I) → the numbers of the nearest levels (O, I), and scales: each group's largest value."""
    groups = in_groups(weight, group)
    scale = largest_of(groups)
    codes = torch.bucketize(groups / scale, (levels[1:] + levels[:-1]) / 2)
    return out_of_groups(codes, weight), scale[..., 0]


def from_levels(codes: Tensor, scale: Tensor, levels: Tensor, group: int = 0) -> Tensor:
    """The reverse: each code's level times the scale of its group."""
    return dequantize(levels[codes], scale, group)


def rounded(weight: Tensor, bits: int, group: int = 0, levels: Tensor | None = None) -> Tensor:
    """The weights (O, I) that are left after quantising; a scale is kept in 16 bits."""
    if levels is None:
        codes, scale = quantize(weight, bits, group)
        return dequantize(codes, scale.half().to(weight), group)
    codes, scale = quantize_to_levels(weight, levels, group)
    return from_levels(codes, scale.half().to(weight), levels, group)


class Rounded(nn.Module):
    """Weights (O, I) → their rounded values; the gradient passes as if nothing was rounded.

    This is the straight-through estimator (Bengio et al. 2013). nn.utils.parametrize puts it into a layer.
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
OURS = sys.modules[__name__]  # of whose parts the checks make the classic mistakes


# ------------------------------------------------------------------ the trainings


CPU = torch.device("cpu")
STEPS, SEEDS, TESTS = 150, 3, 200
RATE, ADAPTERS_RATE = 3e-3, 1e-2  # the highest learning rate of all weights, and of adapters
ATTENTION = "self_attention", "cross_attention"


class Tuned(NamedTuple):
    """What a training made of the base: the fraction of both tasks' answers right, and what it cost."""

    new: float
    old: float
    trained: int  # numbers that learned
    optimizer: int  # bytes that Adam kept for them
    weights: dict[str, Tensor]  # those that learned


def only(names: Sequence[str], model: nn.Module) -> nn.Module:
    """The model, in place, of which only the parameters learn that have one of these names in their path."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(part in name for part in names))
    return model


METHODS: dict[str, tuple[Callable[[nn.Module], nn.Module] | None, float]] = {
    "all weights": (None, RATE),
    "rank 1": (partial(add_adapters, rank=1, alpha=2.0), ADAPTERS_RATE),
    "rank 4": (partial(add_adapters, rank=4, alpha=8.0), ADAPTERS_RATE),
    "rank 1, attention only": (partial(add_adapters, rank=1, alpha=2.0, matrices=ATTENTION), ADAPTERS_RATE),
    "biases and gains": (partial(only, ("bias", "gain")), ADAPTERS_RATE),
    "embedding, last norm": (partial(only, ("embedding", "decoder.norm")), ADAPTERS_RATE),
}


def tuned(base: Base, task: str, method: str, seed: int) -> Tuned:
    """The base, trained on a task for 150 steps of 32 sequences with one of the METHODS."""
    prepare, rate = METHODS[method]
    training = TrainingConfig(task=task, steps=STEPS, lr=rate, warmup=20, weight_decay=0.0, seed=seed)
    run = finish(make_run(TransformerConfig(), training, CPU, prepare=prepare, base=base))
    kept = sum(value.nbytes for state in run.optimizer.state.values() for value in state.values()
               if value.ndim)
    learned = {name: p.detach() for name, p in run.model.named_parameters() if p.requires_grad}
    return Tuned(right(run.model, task), right(run.model, "reverse"), sum(p.numel() for p in run.trained),
                 kept, learned)


def right(model: nn.Module, task: str, count: int = TESTS) -> float:
    """Exact match on test sequences of the task."""
    return evaluate(model, draw_batch(task, count, "test", (0,))).exact_match


class TuningExperiment(DigitExperiment):
    """Lesson 5's default run, trained now if necessary, and what becomes of it."""

    def __init__(self, options: argparse.Namespace):
        super().__init__(TransformerConfig(), TrainingConfig(seed=options.seed), options)
        self.found: dict[tuple[str, str], list[Tuned]] = {}

    @cached_property
    def start(self) -> Base:
        """The weights from which every training of this lesson begins."""
        weights = self.run.model.state_dict()
        return Base(self.checkpoint, self.run.about, {name: w.cpu() for name, w in weights.items()})

    def model(self) -> Transformer:
        """A copy of the base that a step may change."""
        return self.start.into(Transformer(TransformerConfig())).eval()

    def tuned(self, task: str, *methods: str) -> dict[str, list[Tuned]]:
        """For each method what three trainings with different seeds give; each is trained only once."""
        wanted = [(task, method) for method in methods if (task, method) not in self.found]
        seeds = range(self.options.seed, self.options.seed + SEEDS)
        results = iter(side_by_side([partial(tuned, self.start, *pair, seed)
                                     for pair in wanted for seed in seeds]))
        for pair in wanted:
            self.found[pair] = [next(results) for _ in seeds]
        return {method: self.found[task, method] for method in methods}

    def adapted(self) -> nn.Module:
        """The base with the adapters of rank 4 that learned mirror first."""
        (first, *_), = self.tuned("mirror", "rank 4").values()
        model = add_adapters(self.model(), rank=4, alpha=8.0)
        model.load_state_dict(first.weights, strict=False)
        return model.eval()

# ------------------------------------------------------------------ the quantised model


WIDEST = 256  # numbers in the longest row: groups of as many are rows
SCALES = {"matrix": 0, "row": WIDEST, "group of 32": 32}


@torch.no_grad()
def quantise(model: nn.Module, bits: int, group: int, levels: Tensor | None = None) -> nn.Module:
    """The model, in place, with the rounded weights of all its linear maps; everything else as it was."""
    for linear in linear_maps(model).values():
        linear.weight.copy_(rounded(linear.weight, bits, group, levels))
    return model


def bytes_of(model: nn.Module, bits: int, group: int) -> int:
    """Bytes of the weights of all linear maps: their codes, and 2 for each scale."""
    weights = [linear.weight for linear in linear_maps(model).values()]
    return sum(math.ceil(weight.numel() * bits / 8) + 2 * in_groups(weight, group).shape[:2].numel()
               for weight in weights)


@torch.no_grad()
def with_outlier(model: Transformer, factor: float) -> Transformer:
    """The same function with other weights, in place: channel 0 of every norm before a self-attention or a
    feed-forward network is divided by the factor, and the weights that read this channel are multiplied.
    """
    for block in [*model.encoder.blocks, *model.decoder.blocks]:
        attention = block.self_attention
        around = block.around_attention if hasattr(block, "around_attention") else block.around_self
        readers = {around: [attention.project_query, attention.project_key, attention.project_value],
                   block.around_feed_forward: [block.feed_forward.expand]}
        for path, linears in readers.items():
            path.norm.gain[0] /= factor
            path.norm.bias[0] /= factor
            for linear in linears:
                linear.weight[:, 0] *= factor
    return model


def rounded_inputs(model: nn.Module, group: int) -> nn.Module:
    """The model, in place, whose linear maps read inputs rounded to 8 bits; group 0: one scale for all."""

    def rounding(module: nn.Module, inputs: tuple[Tensor]) -> Tensor:
        (x,) = inputs
        return rounded(x.flatten(0, -2), 8, group).view_as(x)

    for linear in linear_maps(model).values():
        linear.register_forward_pre_hook(rounding)
    return model


def through_rounding(model: nn.Module, bits: int, group: int) -> nn.Module:
    """The model, in place: its linear maps compute with rounded weights, and the weights behind them learn."""
    for linear in linear_maps(model).values():
        register_parametrization(linear, "weight", Rounded(bits, group))
    return model


def learned_through(base: Base, bits: int, group: int, seed: int) -> tuple[float, float]:
    """Exact match of the rounded base, and after 60 steps of training through the rounding."""
    training = TrainingConfig(steps=60, lr=1e-3, warmup=10, weight_decay=0.0, seed=seed)
    run = make_run(TransformerConfig(), training, CPU, base=base,
                   prepare=partial(through_rounding, bits=bits, group=group))
    return right(run.model, "reverse"), right(finish(run).model, "reverse")


def quantised_then_adapted(model: nn.Module) -> nn.Module:
    """The model, in place: 4-bit NormalFloat weights, and adapters of rank 4 next to them (QLoRA)."""
    return add_adapters(quantise(model, 4, 32, normal_levels(4)), rank=4, alpha=8.0)


METHODS["rank 4, 4-bit base"] = quantised_then_adapted, ADAPTERS_RATE


def main():
    narrate(lesson_parser(__doc__, GRADED).parse_args(), __doc__, [])


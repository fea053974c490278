"""Lesson 9. What has it learned, and where?

A trained model answers, but its weights don't say how. Five instruments examine its parts: attentions,
feed-forward networks and blocks. They record what a part passes on; ablate a part, which removes its content;
patch a part from another run; read logits off every block; and fit a linear probe.

    trained model → one part replaced → how many answers are still right

Attention weights say where a head looked, ablations say what it did, and patches say where information is.

You need lesson 5's model; if outputs/ has none, it is trained first. You will build the five instruments. The
lesson runs in about a minute, and takes an hour to read.
"""

import course.console.startup  # noqa: F401 (before torch: it reports what fails in the imports below)
import statistics
import sys
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cached_property, partial
from itertools import chain
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import checks.interpretability as checks
from checks.stack import transformer_checks
from common import Picture, check, check_mistakes, check_part, lesson, lesson_parser, narrate, shows, table
from course.training.broken import sick_runs, without_paths
from course.training.clinic import Patient, treated
from course.training.comparing import changed
from course.training.engine import Run, finish
from course.training.examining import (
    carries_the_digit,
    carries_the_place,
    digits_right,
    in_any_order,
    layers_of,
    most_broken,
    other_digit,
    probe_labels,
    real_tokens,
    repeats,
    right,
    right_each,
    share,
    short,
    without_classes,
)
from course.training.noting import last_move, note_learning, parts_of, with_first_weights
from course.training.processes import all_processes
from course.training.side_by_side import side_by_side
from figures import interpretability as drawing
from grammar.sentences import corpus

MultiHeadAttention, record_attention = lesson(
    "02_multi_head_attention", "MultiHeadAttention", "record_attention")
EOS, PAD = lesson("03_positional_encoding", "EOS", "PAD")
(
    COMMAND_LINE, Batch, DigitExperiment, TrainingConfig, Transformer, TransformerConfig, draw_batch,
    draw_sequences, evaluate, make_batch, make_run, pad, teacher_forcing, train_plainly,
    training_batch,
) = lesson(
    "05_mini_transformer", "COMMAND_LINE", "Batch", "DigitExperiment", "TrainingConfig", "Transformer",
    "TransformerConfig", "draw_batch", "draw_sequences", "evaluate", "make_batch",
    "make_run", "pad", "teacher_forcing", "train_plainly", "training_batch")
TranslationExperiment, TranslationModel, TranslationTraining = lesson(
    "08_translation", "TranslationExperiment", "TranslationModel", "TranslationTraining")

__all__ = ["Probe", "ablated", "diagnosis", "logit_lens", "patch", "probe_and_controls", "record",
           "replace_head", "replace_part"]


# ------------------------------------------------------------------ the instruments


@contextmanager
def record(model: nn.Module, names: Iterable[str]) -> Iterator[dict[str, Tensor]]:
    """Inside `with`, collect what parts of the model pass on: name → output.

    The names are those of model.named_modules(). If a part is called several times, the last call counts.
    """
    recorded: dict[str, Tensor] = {}

    def note(name: str, module: nn.Module, inputs: tuple, output: Tensor) -> None:
        recorded[name] = output.detach()

    hooks = [model.get_submodule(name).register_forward_hook(partial(note, name)) for name in names]
    try:
        yield recorded
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def replace_part(model: nn.Module, name: str, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Inside `with`, the part of this name passes on change(output) instead of its output."""
    hook = model.get_submodule(name).register_forward_hook(lambda module, inputs, output: change(output))
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def replace_head(attention: MultiHeadAttention, head: int, change: Callable[[Tensor], Tensor]
                 ) -> Iterator[None]:
    """Inside `with`, one head (B, T, K) of the attention is changed before project_output reads it."""
    own = slice(head * attention.d_k, (head + 1) * attention.d_k)

    def exchange(module: nn.Module, inputs: tuple[Tensor]) -> Tensor:
        heads = inputs[0].clone()
        heads[..., own] = change(heads[..., own])
        return heads

    hook = attention.project_output.register_forward_pre_hook(exchange)
    try:
        yield
    finally:
        hook.remove()


def ablated(output: Tensor, how: str, real: Tensor | None = None) -> Tensor:
    """A part's output (B, L, D) without its content, in the same shape.

    zero: 0. mean: one mean over all tokens. place: each place's mean over all sequences. other: the output
    for the previous sequence. `real` (B, L) is False for tokens that no mean includes.
    """
    if how == "zero":
        return torch.zeros_like(output)
    if how == "other":
        return output.roll(1, 0)
    counted = torch.ones_like(output[..., :1]) if real is None else real[..., None].to(output)
    axes = (0, 1) if how == "mean" else (0,)
    total = (output * counted).sum(axes, keepdim=True)
    return (total / counted.sum(axes, keepdim=True).clamp(min=1)).expand_as(output)


@torch.no_grad()
def patch(model: nn.Module, name: str, inputs: Sequence[Tensor], donors: Sequence[Tensor], places: Tensor,
          sources: Tensor | None = None) -> Tensor:
    """model(*inputs), but at one place of each row the part passes on its output for the donors.

    places (B,): the place that is patched in each row; `sources` (B,): the donors' place, by default the
    same.
    """
    with record(model, [name]) as recorded:
        model(*donors)

    def change(output: Tensor) -> Tensor:
        output, rows = output.clone(), torch.arange(len(output))
        output[rows, places] = recorded[name][rows, places if sources is None else sources]
        return output

    with replace_part(model, name, change):
        return model(*inputs)


@torch.no_grad()
def logit_lens(model: nn.Module, stack: str, *inputs: Tensor) -> Tensor:
    """(N, B, T, V): the logits after each of the stack's N blocks, as if the model ended there.

    The stack's last norm and the embedding read what the block passes on.
    """
    blocks = [f"{stack}.blocks.{number}" for number in range(len(model.get_submodule(stack).blocks))]
    with record(model, blocks) as recorded:
        model(*inputs)
    norm = model.get_submodule(stack).norm
    return torch.stack([model.embedding.logits(norm(recorded[block])) for block in blocks])


class Probe:
    """A linear map from vectors to classes, fitted by ridge regression on one-hot labels.

    x (N, D) and labels (N,), counted from 0. The squared weights, times `ridge` · N, are added to the squared
    errors.
    """

    def __init__(self, x: Tensor, labels: Tensor, ridge: float = 1e-3):
        wanted = F.one_hot(labels).to(x)
        self.centre, self.usual = x.mean(0), wanted.mean(0)
        x, wanted = x - self.centre, wanted - self.usual
        square = x.T @ x + ridge * len(x) * torch.eye(x.shape[1]).to(x)
        self.weight = torch.linalg.solve(square, x.T @ wanted)  # (D, C)

    def __call__(self, x: Tensor) -> Tensor:
        """(N, D) → a score for every class, (N, C)."""
        return (x - self.centre) @ self.weight + self.usual

    def accuracy(self, x: Tensor, labels: Tensor) -> float:
        """The fraction of the vectors whose highest score is their label's."""
        return share(self(x).argmax(-1) == labels)


def probe_and_controls(x: Tensor, untrained: Tensor, labels: Tensor) -> tuple[float, float, float]:
    """Accuracies of three probes: for the labels, for shuffled labels, and for an untrained model's vectors.

    x and untrained (N, D): each probe is fitted on the first half and tested on the second.
    """
    half = len(x) // 2
    shuffled = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    cases = (x, labels), (x, shuffled), (untrained, labels)
    return tuple(Probe(vectors[:half], named[:half]).accuracy(vectors[half:], named[half:])
                 for vectors, named in cases)


GRADED = {
    "record": checks.record_checks,
    "ablated": checks.ablated_checks,
    "patch": checks.patch_checks,
    "logit_lens": checks.logit_lens_checks,
    "Probe": checks.probe_checks,
    "probe_and_controls": checks.probe_and_controls_checks,
}
OURS = sys.modules[__name__]  # the checks make the classic mistakes from its parts


# ------------------------------------------------------------------ the models


CPU = torch.device("cpu")
STEPS_SHOWN = 20
SEEDS, SHORTER = (1, 2), 350  # seeds and training steps of the other two models


def learned(seed: int) -> dict[str, Tensor]:
    """The weights of lesson 5's default model, trained with another seed and half as long."""
    run = make_run(TransformerConfig(), TrainingConfig(seed=seed, steps=SHORTER), CPU)
    return finish(run).model.state_dict()


class Examined(DigitExperiment):
    """Lesson 5's run; the default run also has other seeds."""

    @cached_property
    def models(self) -> dict[str, nn.Module]:
        """Seed → model; the first is lesson 5's."""
        found = {str(self.training.seed): self.run.model.eval()}
        if self.name == self.default:
            for seed, weights in zip(SEEDS, side_by_side([partial(learned, seed) for seed in SEEDS])):
                found[str(seed)] = Transformer(TransformerConfig()).to(self.run.device).eval()
                found[str(seed)].load_state_dict(weights)
        return found

    @property
    def several(self) -> bool:
        """Whether there are three seeds."""
        return len(self.models) > 1

    def batch(self, count: int, *lengths: int, seed: int = 3) -> Batch:
        """`count` test sequences of each length."""
        drawn = [draw_sequences(count, "test", (seed, length), (length, length)) for length in lengths]
        return make_batch(self.training.task, [*chain(*drawn)]).to(self.run.device)


def right_without(model: nn.Module, name: str, batch: Batch, how: str) -> float:
    """right(), with the part of this name ablated."""
    with replace_part(model, name, lambda output: ablated(output, how, real_tokens(name, batch))):
        return right(model, batch)


# ------------------------------------------------------------------ the steps


@shows(repeats)
def step_last_gain(experiment: Examined):
    """Why the last gain starts small

    Lesson 5's model starts its last LayerNorm with a gain of d_model^−½, where the paper has 1. The residual
    paths carry a token's embedding to the end, where the embedding matrix compares the result with every
    token's vector. The token itself fits best. So with a gain of 1 an untrained model is almost sure that
    each token repeats; without residual paths it isn't. The model soon unlearns this: after 20 steps the loss
    is about the same with both gains.
    """
    task = experiment.training.task
    batch, training = draw_batch(task, 200, "validation", (1,)), TrainingConfig(task=task)

    def begun_with(gain: float, prepare: Callable = nn.Module.train) -> tuple[float, float, float]:
        model = prepare(Transformer(TransformerConfig()))
        nn.init.constant_(model.decoder.norm.gain, gain)
        before = repeats(model, batch)
        optimizer = torch.optim.AdamW(model.parameters(), weight_decay=training.weight_decay, fused=True)
        batches = (training_batch(training, step) for step in range(STEPS_SHOWN))
        train_plainly(model, optimizer, batches, training)
        return *before, repeats(model, batch)[0]

    starts = {"d_model^−½": (TransformerConfig().d_model ** -0.5,), "1": (1.0,),
              "1, no residual paths": (1.0, without_paths)}
    found = side_by_side([partial(begun_with, *start) for start in starts.values()])
    if task == "reverse":
        (_, _, ours_later), (_, repeated, later), (_, cut, _) = found
        check("with a gain of 1 the untrained model's P(repeats) is over 0.8; without residual paths it is "
              "under 0.2", repeated > 0.8 and cut < 0.2, f"{repeated:.2f} and {cut:.2f}")
        check(f"after {STEPS_SHOWN} steps the losses with the two gains differ by less than 0.1",
              abs(later - ours_later) < 0.1, f"{later:.2f} and {ours_later:.2f}")
    return table("initial gain", "loss", "P(repeats)", f"loss after {STEPS_SHOWN} steps", rows=[
        (name, loss, f"{again:.0%}", after) for name, (loss, again, after) in zip(starts, found)])


@shows(last_move)
def step_what_learns(experiment: Examined):
    """Does every block learn?

    The left panels show each block's gradient, before clipping, in a training run of 150 steps. Adam divides
    the gradient by its usual size, so the right panels show all blocks moving about equally far: by about one
    learning rate per step at first, and by less than half of it at the end.

    The lower panels show a model whose layers have no residual path around them. At first the gradient that
    reaches the decoder's first block is as small as Adam's ε, 10⁻⁸, so even Adam hardly moves this block.
    """
    training = TrainingConfig(task=experiment.training.task, steps=150)

    def trained(prepare: Callable | None) -> list[dict[str, float]]:
        run = make_run(TransformerConfig(), training, CPU, prepare=prepare)
        while not run.finished:
            run.update()
            if len(run.history) % 10 == 1:
                note_learning(run)
        return run.history

    histories = side_by_side([partial(trained, None), partial(trained, without_paths)])
    noted, apart = ([record for record in history if "move of embedding" in record] for history in histories)
    names = [*parts_of(Transformer(TransformerConfig()))]
    moves = [[record[f"move of {name}"] for name in names[1:]] for record in noted]  # without the embedding
    if training.task == "reverse":
        ratio = max(max(record) / min(record) for record in moves)
        check("at every recorded step the block that moves most moves less than 3 times as much as the "
              "block that moves least", ratio < 3, f"{ratio:.1f}")
        first, last = (statistics.mean(moves[step]) for step in (0, -1))
        check("the blocks' mean move falls from about one learning rate to less than half of that",
              abs(first - 1) < 0.1 and last < first / 2, f"{first:.2f} and {last:.2f}")
        cut = apart[0]["gradient in decoder 0"]
        check("without residual paths the decoder's first block starts with a gradient below 10⁻⁶ and a move "
              "below 0.1 learning rates", cut < 1e-6 and apart[0]["move of decoder 0"] < 0.1, f"{cut:.0e}")
    figure = drawing.draw_learning({"with residual paths": noted, "without residual paths": apart}, names)
    return Picture(experiment.file("interpretability_gradient_flow"), figure,
                   "Adam moves all blocks about equally, except one that hardly any gradient reaches")


@shows(with_first_weights)
def step_first_weights(experiment: Examined):
    """What if one part forgets?

    If one part gets its initial weights back and the others stay trained, hardly any answer is right. But a
    part with random weights also passes on vectors that the others never saw.
    """
    run = experiment.run
    batch = draw_batch(experiment.training.task, 200, "test", (4,)).to(run.device)
    found = with_first_weights(run.model, experiment.make().model, partial(right, batch=batch))
    if experiment.name in ("reverse", "copy"):
        check("with initial weights in any one part, under a tenth of the answers are right",
              max(found.values()) < 0.1)
    return table("initial weights in", "right", rows=[
        (name, f"{kept:.0%}") for name, kept in found.items()]), experiment.differs


WAYS = {"0": "zero", "one mean": "mean", "mean per place": "place", "other input": "other"}


@shows(ablated, replace_part)
def step_what_is_needed(experiment: Examined):
    """Which attention does an answer need?

    An ablation removes the content of a part's output. A hook does this: a function that PyTorch calls with
    the part's output, and whose result replaces the output. The result may be 0, one mean of all tokens, each
    place's mean, or the output for another sequence. An answer that survives a mean per place needed only the
    place. An output is usually not 0, so 0 may break an answer that needs only a constant: with 0 the
    encoder's first attention seems needed, but one mean is enough.

    With 10 digits and a mean per place for the last cross-attention, hardly any answer is right: this is
    where the digits come in. In the last column the mean per place mixes sequences of 8 and 12 digits. The
    place of the last digit depends on the length. For the first cross-attention this mean hides the length,
    and hardly any answer is right.

    The table shows lesson 5's model. How much the other attentions matter differs between seeds.
    """
    check_part(record, checks.record_checks, OURS)
    check_part(ablated, checks.ablated_checks, OURS)
    ten, mixed = experiment.batch(100, 10), experiment.batch(50, 8, 12)
    found = [{name: [*(right_without(model, name, ten, how) for how in WAYS.values()),
                     right_without(model, name, mixed, "place")]
              for name, module in model.named_modules() if hasattr(module, "project_query")}
             for model in experiment.models.values()]
    if experiment.several:
        first, last = (f"decoder.blocks.{number}.cross_attention" for number in (0, 1))
        check("three seeds: with a mean per place for the last cross-attention under 10 % of the answers are "
              "right", all(one[last][2] < 0.1 for one in found))
        check("three seeds: with a mean per place for the first cross-attention over half of the answers are "
              "right for 10 digits, but under a fifth for 8 and 12 digits",
              all(one[first][2] > 0.5 and one[first][4] < 0.2 for one in found))
        zero, mean, *_ = zip(*(one["encoder.blocks.0.self_attention"] for one in found))
        check("three seeds: one mean for the encoder's first attention leaves over 90 % of answers right; 0 "
              "leaves under half", min(mean) > 0.9 and max(zero) < 0.5)
        places = [one["decoder.blocks.0.self_attention"][2] for one in found]
        check("with a mean per place for the decoder's first attention, right answers differ by over 10 "
              "percentage points between seeds",
              max(places) > min(places) + 0.1, " ".join(f"{one:.0%}" for one in places))
    rows = [(short(name), *(f"{one:.0%}" for one in row)) for name, row in found[0].items()]
    return table("right without", *WAYS, "8, 12 digits", rows=rows), experiment.differs


def without_heads(model: nn.Module, heads: Iterable[tuple[str, int]], batch: Batch) -> Tensor:
    """right_each(), with each of these heads replaced by its mean."""
    with ExitStack() as stack:
        for name, head in heads:
            stack.enter_context(replace_head(model.get_submodule(name), head, partial(
                ablated, how="mean", real=real_tokens(name, batch))))
        return right_each(model, batch)


def heads_of(model: nn.Module, batch: Batch) -> dict[tuple[str, int], tuple[float, float]]:
    """For each head, its mean largest weight and the fraction of answers right without it."""
    with torch.no_grad(), record_attention(model) as weights:
        model(batch.src, batch.tgt_in)
    found = {}
    for name, weight in weights.items():
        asks = real_tokens(name, batch).clone()
        asks[:, 0] = False  # the first token of an answer sees only itself
        for head, largest in enumerate(weight.amax(-1).transpose(1, 2)[asks].mean(0).tolist()):
            found[name, head] = largest, share(without_heads(model, [(name, head)], batch))
    return found


@shows(replace_head)
def step_which_head_can_go(experiment: Examined):
    """Which head can go?

    One head at a time is replaced by its mean, on sequences of 8 and 12 digits. The picture plots the
    answers that stay right against the head's largest weight, averaged over the queries. Of the
    heads whose largest weight is below a quarter, some are needed and some can go.

    In each model many heads can go, one at a time. If all go at once, few answers are still right. So a head
    that can go may still be useful.
    """
    batch = experiment.batch(50, 8, 12)
    found = {seed: heads_of(model, batch) for seed, model in experiment.models.items()}
    rows, together = [], []
    for seed, heads in found.items():
        needless = [head for head, (_, right) in heads.items() if right >= 0.95]
        together.append(share(without_heads(experiment.models[seed], needless, batch)))
        name, head = min(heads, key=lambda one: heads[one][1])
        rows.append((seed, len(needless), f"{together[-1]:.0%}", f"{short(name)}, {head}"))
    if experiment.several:
        check("three seeds: at least 5 heads can go, one at a time, and 95 % of the answers stay right",
              all(count >= 5 for _, count, *_ in rows))
        check("three seeds: without all removable heads at once under half of the answers are right",
              max(together) < 0.5)
        even = [[right for weight, right in heads.values() if weight < 0.25] for heads in found.values()]
        check("three seeds: of the heads with a largest weight below 0.25 some can go, but without others "
              "under half of the answers are right", all(min(one) < 0.5 and max(one) >= 0.95 for one in even))
    return table("seed", "heads that can go", "right without them", "most needed head", rows=rows), Picture(
        experiment.file("interpretability_heads"),
        drawing.draw_weights_and_effects({seed: [*heads.values()] for seed, heads in found.items()}),
        "Weights don't say which head is needed" if experiment.several else "Weights and effects of heads"
        ), experiment.differs


@shows(logit_lens)
def step_where_decided(experiment: Examined):
    """At which block is the answer decided?

    The residual path carries a vector from block to block, and each layer adds to it. So the last norm and
    the embedding can read logits off the path after any block, as if the model ended there: the logit lens.

    After the decoder's first block the lens reads few digits. It reads EOS at the end, but also at some
    places before the end. The digits come with the second block, in all three models. The lens reads only
    what a block writes in the form that the last block uses; a probe may find more (step 8).
    """
    check_part(logit_lens, checks.logit_lens_checks, OURS)
    batch, found, rows, early = experiment.batch(100, 10), {}, [], []
    for seed, model in experiment.models.items():
        said, digits = logit_lens(model, "decoder", batch.src, batch.tgt_in).argmax(-1), batch.tgt_out > EOS
        found[seed] = (said == batch.tgt_out).float().mean(1).cpu()  # (N, T)
        early.append(share(said[0, digits] == EOS))
        rows.append((seed, *(said == batch.tgt_out)[:, digits].float().mean(1).tolist()))
    if experiment.several:
        check("three seeds: after the first block the lens reads under 30 % of the digits, after the second "
              "over 99 %", all(first < 0.3 and last > 0.99 for _, first, last in rows))
        check("three seeds: after the first block the lens reads EOS at over 90 % of the ends, and for over "
              "10 % of the digits", min(early) > 0.1 and all(one[0, -1] > 0.9 for one in found.values()),
              " ".join(f"{one:.0%}" for one in early))
    blocks = (f"after block {number}" for number in range(experiment.config.n_layers))
    return table("digits read, by seed", *blocks, rows=[
        (seed, *(f"{one:.0%}" for one in row)) for seed, *row in rows]), Picture(
        experiment.file("interpretability_lens"), drawing.draw_lens(found),
        "The lens reads the digits only after the last block" if experiment.several
        else "What the lens reads off each block")


CHANGED = 3  # the place where the donors' source has a different digit


def one_digit_apart(experiment: Examined) -> tuple[Batch, Batch]:
    """Sequences of 10 digits, and the same with a different digit at one place."""
    drawn = draw_sequences(12, "test", (4,), (10, 10))
    both = make_batch(experiment.training.task, drawn + [other_digit(one, CHANGED) for one in drawn])
    both = both.to(experiment.run.device)
    return tuple(Batch(*(tensor[rows] for tensor in both)) for rows in (slice(12), slice(12, None)))


def right_with_length(model: nn.Module, name: str, batch: Batch, donors: Tensor) -> float:
    """right(), with a part's outputs for other sources, which may be longer."""
    with torch.no_grad(), record(model, [name]) as recorded:
        model(donors, batch.tgt_in)
    with replace_part(model, name, lambda output: recorded[name][:, : output.shape[1]]):
        return right(model, batch)


@shows(patch)
def step_where_it_is(experiment: Examined):
    """Which parts carry the digit, the place and the length?

    A patch shows where information is: at one place, one part passes on what it passed on in another run. If
    the answer becomes that of the other run, the information was there.

    The digit: the other source differs in one digit, at place 3. The answer follows the other source if the
    encoder's path is patched there, or the last cross-attention where the digit is written. No single layer
    of the encoder moves the answer: the digit is in the residual path, where the embedding put it.

    The place: each part of the decoder is patched with what it passed on one place later. If the path after
    the first block is patched, the model says the token of the later place. If only one layer of that block
    is patched, it rarely does.

    The length: a part is patched at all places from another source of 8 or 12 digits, while the answer has 8.
    Each cell has one number per seed. Three attentions carry the length: the encoder's last, the decoder's
    first cross-attention and its second self-attention. The last cross-attention carries the digits, so with
    any other source the answers are wrong.
    """
    check_part(patch, checks.patch_checks, OURS)
    batch, donors = one_digit_apart(experiment)
    eight = experiment.batch(40, 8)
    sources = [experiment.batch(40, count, seed=5).src for count in (8, 12)]
    digit, place, length = [], [], []
    for model in experiment.models.values():
        names = layers_of(model)
        digit.append({name: carries_the_digit(patch, model, name, batch, donors) for name in names})
        place.append({name: carries_the_place(patch, model, name, batch)
                      for name in names if "decoder" in name})
        length.append({name: [right_with_length(model, name, eight, source) for source in sources]
                       for name in names if name.endswith("attention")})
    if experiment.several:
        check_where_it_is(digit, place, length)
    pictures = {f"different digit at place {CHANGED}: answers that follow": digit[0],
                "from one place later: tokens that follow": place[0]}
    figure = drawing.draw_patches({question: {short(name): row for name, row in rows.items()}
                                   for question, rows in pictures.items()})
    finding = "The digit is in the encoder's path, then in the last cross-attention"
    rows = [(short(name), *(" ".join(f"{one[name][which]:.0%}" for one in length) for which in (0, 1)))
            for name in length[0]]
    return Picture(experiment.file("interpretability_patching"), figure,
                   finding if experiment.several else "What follows a patch"), table(
        "right, all places patched", "from 8 digits", "from 12 digits", rows=rows), experiment.differs


def check_where_it_is(digit: list[dict], place: list[dict], length: list[dict]) -> None:
    """What step_where_it_is says about three seeds."""
    encoder = [(name[-1].isdigit(), row) for rows in digit for name, row in rows.items() if "encoder" in name]
    check("digit, three seeds: over 90 % of the answers follow a patch of the encoder's path at place 3, and "
          "under 10 % follow a patch elsewhere or of a single layer", all(
              (found > 0.9 if is_path and at == CHANGED else found < 0.1)
              for is_path, row in encoder for at, found in enumerate(row)))
    check("digit, three seeds: over 90 % of the answers follow a patch of the last cross-attention where the "
          "digit is written", all(
        rows["decoder.blocks.1.cross_attention"][9 - CHANGED] > 0.9 for rows in digit))
    check("place, three seeds: over 90 % of the tokens follow a patch of the path after the decoder's first "
          "block, but under half follow a patch of a single layer", all(
              (statistics.mean(row) > 0.9 if name[-1].isdigit() else statistics.mean(row) < 0.5)
              for rows in place for name, row in rows.items() if "blocks.0" in name))
    check("length, three seeds: with any of three attentions patched, over 30 % of answers are right if the "
          "source is equally long, under 10 % if it is longer", all(
              rows[name][0] > 0.3 and rows[name][1] < 0.1 for rows in length
              for name in ("encoder.blocks.1.self_attention", "decoder.blocks.0.cross_attention",
                           "decoder.blocks.1.self_attention")))


def probed(model: nn.Module, fresh: nn.Module, batch: Batch) -> dict[str, list[float]]:
    """For each question: accuracies of the probe and two controls, and digits right without the label."""
    found = {}
    for question, (name, labels) in probe_labels(batch, len(model.encoder.blocks)).items():
        vectors = []
        for one in (model, fresh):
            with torch.no_grad(), record(one, [name]) as recorded:
                one(batch.src, batch.tgt_in)
            vectors.append(recorded[name][labels >= 0])
        with replace_part(model, name, partial(without_classes, labels=labels)):
            found[question] = [*probe_and_controls(*vectors, labels[labels >= 0]), digits_right(model, batch)]
    return found


@shows(Probe.__init__, without_classes)
def step_what_is_written(experiment: Examined):
    """What can a probe read, and is it used?

    A probe is a linear map, fitted to read something off a part's output, and tested on other sequences. It
    needs two controls. With shuffled labels it should be at chance. On an untrained model it shows what is
    there without training: the residual path carries the embedding, so the probe finds the digit.

    A probe says what can be read, not what the model reads. For the last column we shift each label's
    vectors to a common mean, so that no linear probe finds the label. Then we count the digits still right.

    In all three models the probe finds the encoder's digit, and the model needs it. The model also needs the
    distance to the end. The probe also finds the digit that the decoder has just read, but without it most
    digits stay right. Training makes the digit to write easier to find, but without it nearly all digits stay
    right. Whether the digits' sum is odd, the probe can only guess.
    """
    check_part(Probe, checks.probe_checks, OURS)
    check_part(probe_and_controls, checks.probe_and_controls_checks, OURS)
    batch = in_any_order(experiment.batch(60, 8, 9, 10, 11, 12))
    fresh = experiment.make().model.eval()
    found = [probed(model, fresh, batch) for model in experiment.models.values()]
    if experiment.several:
        own, ends, odd, write, read = ([one[question] for one in found] for question in found[0])
        check("three seeds: the probe finds over 95 % of the encoder's digits and the digits just read, even "
              "on an untrained model, and under 20 % of shuffled labels", all(
                  min(trained, untrained) > 0.95 and shuffled < 0.2
                  for trained, shuffled, untrained, _ in own + read))
        check("three seeds: without the digit just read over 70 % of the digits are right; without the "
              "encoder's digit under 30 %", all(one[3] < 0.3 for one in own) and all(
                  one[3] > 0.7 for one in read))
        check("three seeds: training raises the probe's accuracy for the distance to the end and the digit "
              "to write by over 0.05", all(
                  trained > untrained + 0.05 for trained, _, untrained, _ in ends + write))
        check("three seeds: without the distance to the end under 40 % of digits stay right; without the "
              "digit to write over 95 % do",
              all(one[3] < 0.4 for one in ends) and all(one[3] > 0.95 for one in write))
        check("three seeds: the probe tells with 40 to 60 % accuracy whether the digits' sum is odd",
              all(abs(trained - 0.5) < 0.1 for trained, *_ in odd))
    rows = [(question, *(" ".join(f"{100 * one[question][column]:.0f}" for one in found)
                         for column in range(4))) for question in found[0]]
    return table("accuracy, %, by seed", "trained", "shuffled labels", "untrained",
                 "digits right without it", rows=rows), experiment.differs


RULES = {"agreement": ("adjective after is", "passé composé with être", "participle after its object"),
         "order": ("adjective behind", "object pronoun", "lui, leur"), "elision": ("elision",)}


def step_rules_of_french(experiment: Examined):
    """Which head does a rule need?

    If lesson 8's checkpoint is in the output folder, each head of its translator in turn is replaced by its
    mean. For each group of rules the table names the head whose removal breaks sentences with these rules
    most often, relative to other sentences. A head whose removal breaks both kinds equally isn't this rule's
    head. Other models may divide the work differently.
    """
    translator = TranslationExperiment(TranslationModel(), TranslationTraining(), Namespace(
        **vars(experiment.options), input="answers only"))
    if not translator.checkpoint.exists():
        return (f"There is no {translator.checkpoint.name} in the output folder. "
                "To create it in minutes, run:\npython 08_translation.py --step training")
    pairs, encode, model = corpus({"test": 160}, 1)["test"], translator.encoding.encode, translator.model
    batch = Batch(pad([encode(pair.source) for pair in pairs]), *teacher_forcing(
        [encode(pair.target) for pair in pairs])).to(translator.run.device)
    whole = right_each(model, batch).cpu()
    broken = {(name, head): (whole & ~without_heads(model, [(name, head)], batch).cpu()).float()
              for name, module in model.named_modules() if hasattr(module, "project_query")
              for head in range(module.n_heads)}
    found = most_broken(RULES, [pair.phenomena for pair in pairs], whole, broken)
    check("no head's removal breaks over half of a rule's sentences but under a tenth of the others",
          not any(mine > 0.5 and others < 0.1 for *_, mine, others in found))
    return table("rule", "sentences", "most needed head", "broken with the rule", "broken without it",
                 rows=[(rule, count, f"{short(name)}, {head}", f"{mine:.0%}", f"{others:.0%}")
                       for rule, count, (name, head), mine, others in found])


SCARCE = {"no remedy": {}, "weight decay 1": {"weight_decay": 1.0},
          "label smoothing 0.1": {"label_smoothing": 0.1}, "dropout 0.1": {"dropout": 0.1}}


def step_scarce_data(experiment: Examined):
    """When data is scarce

    Lesson 5 drew new sequences in every step. Now 150 batches of 16 come from the same 200 sequences of 4 to
    8 digits. The model answers more of the known sequences right than of the new ones: it overfits.

    Of three remedies, strong weight decay (AdamW) gets the most new sequences right here. In a run this
    short it also gets more of the known ones right. Label smoothing changes little, and dropout harms.
    """
    task = experiment.training.task
    known = draw_sequences(200, "train", (7,), (4, 8))
    batches = make_batch(task, known), make_batch(task, draw_sequences(300, "validation", (1,), (4, 8)))

    def trained(changes: dict[str, Any]) -> list[float]:
        config = TransformerConfig()
        training = TrainingConfig(task=task, steps=150, weight_decay=0.0, seed=experiment.options.seed)
        for field, value in changes.items():
            config, training = changed((config, training), field, value)
        run = make_run(config, training, CPU)
        order = torch.randint(200, (training.steps, 16))
        run.job = replace(run.job, batch=lambda step: make_batch(
            task, [known[number] for number in order[step].tolist()]))
        finish(run)
        return [evaluate(run.model, batch).exact_match for batch in batches]

    found = side_by_side([partial(trained, changes) for changes in SCARCE.values()])
    if task == "reverse":
        (seen, new), (kept, decayed), (_, smoothed), (_, dropped) = found
        check("without a remedy more of the known sequences than of the new ones are answered right",
              seen > new + 0.1)
        check("weight decay gets more known sequences right than no remedy, and the most new sequences",
              kept > seen and decayed > max(new, smoothed, dropped) + 0.05, f"{new:.0%} to {decayed:.0%}")
        check("label smoothing changes the fraction of new sequences right by under 0.1; dropout halves it",
              abs(smoothed - new) < 0.1 and dropped < new / 2)
    return table("", "known sequences", "new sequences", rows=[
        (name, *(f"{right:.0%}" for right in pair)) for name, pair in zip(SCARCE, found)])


SIGNS: dict[str, tuple[str, Callable[[float], bool]]] = {  # diagnosis → the reading, and when it is a sign
    "no causal mask": ("leak", lambda value: value > 0.01),
    "no shift": ("repeats", lambda value: value > 0.5),
    "loss on PAD": ("P(PAD)", lambda value: value > 0.8),
    "frozen part": ("least move", lambda value: value == 0),
    "dead part": ("least spread", lambda value: value < 1e-5),
    "rate too high": ("stride", lambda value: value > 0.03),
    "labels shuffled": ("source", lambda value: value < 0.1),
}


def diagnosis(readings: dict[str, float]) -> str:
    """The first sickness whose sign is there; “right” if there is none."""
    return next((name for name, (reading, is_sign) in SIGNS.items() if is_sign(readings[reading])), "right")


def patients(seed: int) -> dict[str, Callable[[], Patient]]:
    """The clinic's training runs."""

    def batch(step: int, split: str = "train", count: int = 32, lengths: tuple[int, int] = (4, 8)) -> Batch:
        return make_batch("reverse", draw_sequences(count, split, (seed, step), lengths))

    def make(lr: float = 0.01, **options) -> Run:
        training = TrainingConfig(steps=200, seed=seed, lr=lr, warmup=20)
        config = TransformerConfig(d_model=32, n_heads=2, n_layers=1)
        return make_run(config, training, CPU, held_out=batch(0, "test", 100), **options)

    mistakes = transformer_checks.mistakes(SimpleNamespace(Transformer=Transformer))
    return {name: partial(treated, run, batch(0, "test", 100, (6, 6)), record)
            for name, run in sick_runs(make, batch, mistakes).items()}


@shows(diagnosis)
def step_clinic(experiment: Examined):
    """A clinic

    Seven training runs of a small model are sick and one is healthy; all are trained to reverse 4 to 8
    digits. The loss says little: two sick models reach a lower loss than the healthy one, and get hardly any
    answer right. So instruments examine each model:

    leak: how far a different last token moves earlier logits. repeats: the probability of the token just
    read. P(PAD): the probability of PAD after EOS. source: how far a different source moves the logits. least
    spread: the smallest spread of any layer's output over all tokens. least move: the smallest move of any
    layer's weights. stride: the largest step, relative to the weights, halfway through.

    Some sicknesses show several signs, so `diagnosis` tests the signs in a fixed order. For example, without
    the shift the model also ignores the source.
    """
    trainings = patients(experiment.options.seed)
    found = dict(zip(trainings, side_by_side([*trainings.values()])))
    said = {name: diagnosis(patient.readings) for name, patient in found.items()}
    wrong = ", ".join(f"{name}: {found}" for name, found in said.items() if name != found)
    check("the instruments name each of the seven sicknesses, and find nothing wrong with the healthy "
          "model", not wrong, wrong or f"{len(said)} of {len(said)}")
    ends = {name: statistics.mean(patient.losses[-20:]) for name, patient in found.items()}
    check("without the causal mask or the shift the loss is lower than the healthy model's, and under 5 % of "
          "the answers are right", all(ends[name] < ends["right"] and found[name].exact_match < 0.05
                                   for name in ("no causal mask", "no shift")))
    figure = drawing.draw_clinic({name: patient.losses for name, patient in found.items()}, {
        name: patient.readings for name, patient in found.items()}, dict(SIGNS.values()))
    return table("run", "last loss", "exact match", "diagnosis", rows=[
        (name, ends[name], f"{patient.exact_match:.0%}", said[name]) for name, patient in found.items()]
    ), Picture(experiment.file("interpretability_clinic"), figure,
               "The instruments name the sickness that the loss doesn't show")


def step_broken_on_purpose(experiment: Examined):
    """Broken on purpose

    A probe that is tested on what it was fitted on finds even random labels, if it has fewer examples
    than dimensions. A patch at the wrong place moves no answer, although the part carries the digit.
    """
    x, labels = torch.randn(60, 64), torch.randint(10, (60,))
    fitted = Probe(x[:30], labels[:30])
    same, new = (fitted.accuracy(x[part], labels[part]) for part in (slice(30), slice(30, None)))
    check("30 random labels in 64 dimensions: the probe finds over 90 % of those it was fitted on, and "
          "under 40 % of other labels", same > 0.9 and new < 0.4)
    name = f"decoder.blocks.{experiment.config.n_layers - 1}.cross_attention"
    moved = carries_the_digit(patch, experiment.run.model.eval(), name, *one_digit_apart(experiment))
    rows = [("fitted random labels found", f"{same:.0%}"), ("new random labels found", f"{new:.0%}")]
    rows += [(f"{short(name)}, patched at place {place}: answers moved", f"{moved[place]:.0%}")
             for place in range(len(moved))[5:7]]
    if experiment.name == "reverse":
        check("a patch where the digit is written moves over 90 % of the answers; a patch one place earlier "
              "moves none", moved[9 - CHANGED] > 0.9 and moved[8 - CHANGED] == 0)
    return table("", "", rows=rows), check_mistakes(OURS, *GRADED.values())


def step_what_next(experiment: Examined):
    """What now?

    Change: (1) --layers 1: which attentions are needed if there is only one block? (2) In step 7,
    let the first digit differ: CHANGED = 0.

    Write it yourself: --template my_interpretability.py, then --grade my_interpretability.py.
    """


# ------------------------------------------------------------------ the command line


EXAMINING = replace(COMMAND_LINE, experiment=Examined)


def main():
    parser = lesson_parser(__doc__, GRADED)
    EXAMINING.add_options(parser, trains=False)
    experiment = EXAMINING.parsed(parser)
    steps = [
        step_last_gain, step_what_learns, step_first_weights, step_what_is_needed, step_which_head_can_go,
        step_where_decided, step_where_it_is, step_what_is_written, step_rules_of_french, step_scarce_data,
        step_clinic, step_broken_on_purpose, step_what_next]
    with all_processes():
        narrate(experiment.options, __doc__, steps, experiment)


if __name__ == "__main__":
    main()

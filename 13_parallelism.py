"""Lesson 13. What if one machine is not enough?

A large model needs shorter numbers and several devices. This lesson trains in 16 bits, then spreads one
training run over P ranks. Each rank is a device with its own memory. What does a rank keep, and what do the
ranks send?

    data      all weights, some rows of the batch → gradients, added up
    tensor    some columns or rows of each matrix → products, added up
    states    some of the optimiser's states      → gradients and weights
    pipeline  some of the blocks                  → activations, passed on

You need lessons 4 and 5, and no GPU: here ranks are threads of one process, and all bytes that they send
are counted. Each result is compared with that of one rank. Later steps run the same programs, and PyTorch's
own engines, in two processes. Set aside an evening.
"""

import course.console.startup  # noqa: F401 (before torch: it reports what fails in the imports below)
import math
import sys
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, parameters_to_vector, vector_to_parameters

from checks.cut_layers import column_checks, from_all_checks, row_checks, to_all_checks
from checks.pipeline import one_f_one_b_checks, timeline_checks
from checks.ring import ring_checks
from checks.scaling import scaler_checks
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
from course.training.formats import compute_in, scaled_steps, still_standing, vanished
from course.training.pieces import (
    Held,
    after_backward,
    bytes_in,
    fresh,
    gap_of_gradients,
    gradient_of,
    held_after,
    held_by,
    rows_of,
    variance_of_gradient,
)
from course.training.processes import PROCESSES, all_processes
from course.training.ranks import Group, in_threads, or_why_not
from course.training.side_by_side import side_by_side
from course.training.stages import pipelined, run_stage, with_gradients
from course.training.torch_engines import data_engine, fsdp_engine, run_engines, tensor_engine
from figures import parallelism as drawing

EncoderBlock, FeedForward = lesson("04_transformer_block", "EncoderBlock", "FeedForward")
PAD = lesson("03_positional_encoding").PAD
Batch, TrainingConfig, Transformer, TransformerConfig, draw_batch, fused_sequence_loss, make_run = lesson(
    "05_mini_transformer", "Batch", "TrainingConfig", "Transformer", "TransformerConfig", "draw_batch",
    "fused_sequence_loss", "make_run")

__all__ = ["ColumnLinear", "FromAll", "LossScaler", "RowLinear", "ToAll", "all_gather", "gpipe",
           "one_f_one_b", "reduce_scatter", "ring_all_reduce", "split_over", "timeline"]


# ------------------------------------------------------------------ loss scaling


class LossScaler:
    """Keeps small gradients from vanishing in float16 (Micikevicius et al. 2018, section 3.2).

    backward() starts from scaled(loss), the loss times the scale. unscale(parameters) divides the gradients
    by the scale. If one isn't finite, the step has to be skipped. update(finite) then makes the scale
    smaller by the factor `backoff`; after `interval` finite steps in a row it grows by the factor `growth`.
    """

    def __init__(self, scale: float = 2.0**16, growth: float = 2.0, backoff: float = 0.5,
                 interval: int = 2000):
        self.scale, self.growth, self.backoff, self.interval = scale, growth, backoff, interval
        self.good = 0  # finite steps in a row

    def scaled(self, loss: Tensor) -> Tensor:
        """The loss times the scale."""
        return loss * self.scale

    def unscale(self, parameters: Sequence[nn.Parameter]) -> bool:
        """Divide every gradient by the scale, in place → whether all numbers are finite."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        for gradient in gradients:
            gradient.mul_(1 / self.scale)
        return all(bool(gradient.isfinite().all()) for gradient in gradients)

    def update(self, finite: bool) -> None:
        """Set the next scale."""
        self.good = self.good + 1 if finite else 0
        if not finite:
            self.scale *= self.backoff
        elif self.good == self.interval:
            self.scale *= self.growth
            self.good = 0


# ------------------------------------------------------------------ the ring


def pieces_of(x: Tensor, count: int) -> list[Tensor]:
    """x → copies of its `count` flat pieces, equally long; the last is padded with zeros."""
    flat = F.pad(x.detach().flatten(), (0, -x.numel() % count))
    return [piece.clone() for piece in flat.view(count, -1)]


def reduce_scatter(x: Tensor, group: Group) -> Tensor:
    """x, of the same size on all P ranks → the sum over all ranks of piece number group.rank, flat."""
    size, rank, pieces = group.size, group.rank, pieces_of(x, group.size)
    for step in range(size - 1):
        send, add = (rank - step - 1) % size, (rank - step - 2) % size
        pieces[add] += group.exchange(pieces[send], to=(rank + 1) % size, source=(rank - 1) % size)
    return pieces[rank]


def all_gather(piece: Tensor, group: Group) -> Tensor:
    """A flat piece from each rank → all pieces, one after the other, on every rank."""
    size, rank, pieces = group.size, group.rank, [piece] * group.size
    for step in range(size - 1):
        send, place = (rank - step) % size, (rank - step - 1) % size
        pieces[place] = group.exchange(pieces[send], to=(rank + 1) % size, source=(rank - 1) % size)
    return torch.cat(pieces)


def ring_all_reduce(x: Tensor, group: Group) -> Tensor:
    """x, of the same shape on all ranks → the sum over all ranks, the same bits on every rank.

    Each rank sends only to its right neighbour: 2 · (P − 1) pieces of ⌈n / P⌉ numbers. x stays as it is.
    """
    whole = all_gather(reduce_scatter(x, group), group)
    return whole[: x.numel()].view(x.shape)


# ------------------------------------------------------------------ tensor parallelism


class ToAll(torch.autograd.Function):
    """The entrance of a cut layer: forward returns x unchanged; backward sums the gradients of all ranks."""

    @staticmethod
    def forward(ctx, x: Tensor, group: Group) -> Tensor:
        """x, the same on all ranks."""
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        """The gradient for x, and none for the group."""
        return ring_all_reduce(gradient, ctx.group), None


class FromAll(torch.autograd.Function):
    """The exit of a cut layer: forward sums x over all ranks; backward returns the gradient unchanged."""

    @staticmethod
    def forward(ctx, x: Tensor, group: Group) -> Tensor:
        """x, a different one on each rank."""
        return ring_all_reduce(x, group)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        """The gradient for x, and none for the group."""
        return gradient, None


def piece_of(tensor: Tensor, dim: int, group: Group) -> nn.Parameter:
    """This rank's piece of the tensor, cut along `dim`. ValueError if it doesn't split evenly."""
    if tensor.shape[dim] % group.size:
        raise ValueError(f"a side of {tensor.shape[dim]} does not split over {group.size} ranks")
    return nn.Parameter(tensor.detach().chunk(group.size, dim)[group.rank].clone())


class ColumnLinear(nn.Linear):
    """A rank's piece of the outputs of a linear map (Shoeybi et al. 2019, section 3).

    Transposed as in x·Wᵀ, the pieces of W are columns. The input is whole, the output is piece number
    group.rank. ValueError, with both numbers, if the outputs don't split evenly.
    """

    def __init__(self, whole: nn.Linear, group: Group):
        nn.Module.__init__(self)
        self.weight = piece_of(whole.weight, 0, group)  # (O / P, I)
        self.bias = None if whole.bias is None else piece_of(whole.bias, 0, group)
        self.group = group
        self.out_features, self.in_features = self.weight.shape

    def forward(self, x: Tensor) -> Tensor:
        """x (…, I) → (…, O / P)."""
        return F.linear(ToAll.apply(x, self.group), self.weight, self.bias)


class RowLinear(nn.Linear):
    """A rank's piece of the inputs of a linear map: the input is a piece, the output is whole.

    The bias is added once, after the sum. ValueError, with both numbers, if the inputs don't split evenly.
    """

    def __init__(self, whole: nn.Linear, group: Group):
        nn.Module.__init__(self)
        self.weight = piece_of(whole.weight, 1, group)  # (O, I / P)
        self.bias = None if whole.bias is None else nn.Parameter(whole.bias.detach().clone())
        self.group = group
        self.out_features, self.in_features = self.weight.shape

    def forward(self, x: Tensor) -> Tensor:
        """x (…, I / P) → (…, O)."""
        product = FromAll.apply(F.linear(x, self.weight), self.group)
        return product if self.bias is None else product + self.bias


ATTENTION = "project_query", "project_key", "project_value", "project_output"
LAYERS = ATTENTION, ("expand", "contract")  # the last of each is a RowLinear


def split_over(model: nn.Module, group: Group) -> nn.Module:
    """The model, in place: each rank gets some heads of each attention, and some of each inner width.

    ValueError, with both numbers, if heads or widths don't split evenly.
    """
    for module in [*model.modules()]:
        if hasattr(module, "n_heads") and module.n_heads % group.size:
            raise ValueError(f"{module.n_heads} heads do not split over {group.size} ranks")
        for *columns, row in (names for names in LAYERS if hasattr(module, names[0])):
            for name in columns:
                setattr(module, name, ColumnLinear(getattr(module, name), group))
            setattr(module, row, RowLinear(getattr(module, row), group))
    return model


# ------------------------------------------------------------------ the pipeline


Work = tuple[str, int]  # ("F", 3) is the forward pass of micro-batch 3, ("B", 3) its backward pass


def gpipe(stage: int, stages: int, micro: int) -> list[Work]:
    """A stage's work in order (Huang et al. 2019): all `micro` forward passes, then all backward passes."""
    return [(kind, number) for kind in "FB" for number in range(micro)]


def one_f_one_b(stage: int, stages: int, micro: int) -> list[Work]:
    """A stage's work in order (Narayanan et al. 2019): P − 1 − s forward passes, then F and B in turn.

    `stage` is s, from 0; `stages` is P. So a stage keeps the activations of at most P − s micro-batches.
    """
    ahead = min(stages - 1 - stage, micro)
    order = [("F", number) for number in range(ahead)]
    for number in range(micro):
        if ahead + number < micro:
            order.append(("F", ahead + number))
        order.append(("B", number))
    return order


def timeline(schedule: Callable[[int, int, int], list[Work]], stages: int, micro: int, forward: int = 1,
             backward: int = 2) -> list[list[Work | None]]:
    """For each stage a list of slots, all equally long: the work done in each, or None where it waits.

    schedule(stage, stages, micro) is the order of a stage's work. A forward pass takes `forward` slots and
    needs that of the stage before; a backward pass takes `backward` slots and needs that of the stage after.
    """
    left = [schedule(stage, stages, micro) for stage in range(stages)]
    rows: list[list[Work | None]] = [[] for _ in range(stages)]
    done: dict[tuple[int, str, int], int] = {}  # stage and work → the slot after its last
    while any(left):
        for stage, (row, order) in enumerate(zip(rows, left)):
            while order:
                kind, number = order[0]
                before = stage - 1 if kind == "F" else stage + 1
                if 0 <= before < stages and (before, kind, number) not in done:
                    break
                wait = done.get((before, kind, number), 0) - len(row)
                row += [None] * wait + [order.pop(0)] * (forward if kind == "F" else backward)
                done[stage, kind, number] = len(row)
    slots = max(map(len, rows))
    return [row + [None] * (slots - len(row)) for row in rows]


GRADED = {
    "LossScaler": scaler_checks,
    "ring_all_reduce": ring_checks,
    "ToAll": to_all_checks,
    "FromAll": from_all_checks,
    "ColumnLinear": column_checks,
    "RowLinear": row_checks,
    "one_f_one_b": one_f_one_b_checks,
    "timeline": timeline_checks,
}
OURS = sys.modules[__name__]  # the checks make the classic mistakes from its parts


# ------------------------------------------------------------------ formats


CPU = torch.device("cpu")
SEEDS = 3
FORMATS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def added_up(dtype: torch.dtype, times: int = 20_000) -> float:
    """The sum of `times` numbers 0.001, added one by one in this format."""
    total, small = torch.zeros((), dtype=dtype), torch.tensor(0.001, dtype=dtype)
    for _ in range(times):
        total = total + small
    return total.item()


@shows(added_up)
def step_formats(seed: int):
    """What a format can hold

    A number in 16 bits needs half the memory of one in 32 bits, and recent GPUs multiply it faster. But
    float16 has a narrow range: 70,000 becomes infinite, and 10⁻⁸ becomes 0. bfloat16 has the range of
    float32, but only 8 significant bits: the next number after 1 is 1.0078.

    So in bfloat16, 1 + 0.001 is 1. If 0.001 is added again and again, the sum stops growing as soon as 0.001
    is less than half the distance to the next number.
    """
    rows, sums = [], {}
    for name, dtype in FORMATS.items():
        about, sums[name] = torch.finfo(dtype), added_up(dtype)
        rows.append((name, about.bits, f"{about.max:.4g}", f"{about.tiny * about.eps:.1g}",
                     f"{about.eps:.1g}", sums[name]))
    one, far = torch.tensor(1.0, dtype=torch.bfloat16), torch.tensor([7e4, 1e-8])
    check("in bfloat16, 1 + 0.001 is 1", (one + 0.001).item() == 1)
    check("in float16, 70,000 is infinite and 10⁻⁸ is 0; bfloat16 can hold both",
          far.half().tolist() == [math.inf, 0.0] and far.bfloat16().isfinite().all() and far.bfloat16().all())
    check("20,000 additions of 0.001 give 20 within 1 % in float32, but stop at 0.5 in bfloat16 and at 4 "
          "in float16", abs(sums["float32"] - 20) < 0.2 and (sums["bfloat16"], sums["float16"]) == (0.5, 4.0))
    return table("format", "bits", "largest", "smallest above 0", "gap after 1", "20,000 × 0.001", rows=rows)


def gradients_lost(seed: int) -> dict[int, list[float]]:
    """Step → fraction of gradients that float16 rounds to 0, as they are and times 2¹⁶."""
    return vanished(make_run(TransformerConfig(), TrainingConfig(seed=seed), CPU), (0, 20), (1.0, 2.0**16))


@shows(vanished)
def step_vanishing(seed: int):
    """Gradients that vanish

    Lesson 5's model trains here in float32. In two of its steps we look at the gradients of the outputs of
    all linear maps, and count how many would be 0 in float16.

    Most of the vanished gradients survive if the loss is multiplied by 2¹⁶ before backward(). By the chain
    rule every gradient is then 2¹⁶ times as large.
    """
    seeds = range(seed, seed + SEEDS)
    found = side_by_side([partial(gradients_lost, one) for one in seeds])
    later = [one[20] for one in found]
    check("after 20 steps more than 2 % of the gradients vanish in float16, with each of three seeds",
          min(plain for plain, _ in later) > 0.02, ", ".join(f"{plain:.1%}" for plain, _ in later))
    check("with the loss times 2¹⁶, less than a fifth as many gradients vanish, with each of three seeds",
          all(scaled < plain / 5 for plain, scaled in later))
    return table("seed", "step", "vanish in float16", "vanish, times 2¹⁶", rows=[
        (one, step, f"{plain:.2%}", f"{scaled:.2%}")
        for one, by_step in zip(seeds, found) for step, (plain, scaled) in by_step.items()])


SCALED_STEPS = 16


def trained_in_float16(seed: int, scaler: LossScaler) -> list[tuple[float, float, bool]]:
    """Scale, loss, and whether the step was taken, for steps with linear maps in float16."""
    model = compute_in(Transformer(TransformerConfig()), torch.float16)

    def loss(step: int) -> Tensor:
        batch = draw_batch("reverse", 16, "train", (seed, step))
        return share_of_loss(model, batch, tokens_in(batch))

    return scaled_steps(model, loss, scaler, SCALED_STEPS)


@shows(LossScaler, scaled_steps)
def step_loss_scaling(seed: int):
    """Loss scaling

    If the factor (the scale) is too large, gradients become infinite. The scaler tries out scales: a step
    with an infinite gradient is skipped, and the scale is halved. After `interval` good steps the scale is
    doubled. PyTorch's GradScaler does the same.

    Here the scale starts far too large, at 2³⁰, and doubles after 4 good steps. Clip after unscale(). If a
    gradient is clipped first, it has length 1, and then unscale() divides it by the scale.
    """
    check_part(LossScaler, scaler_checks, OURS)
    steps = trained_in_float16(seed, LossScaler(2.0**30, interval=4))
    scales = [scale for scale, _, _ in steps]
    check("with an initial scale of 2³⁰ at least 3 steps are skipped, and the scale grows again",
          [finite for _, _, finite in steps].count(False) >= 3
          and any(later > before for before, later in pairwise(scales)))
    gradient = nn.Parameter(torch.zeros(100))
    lengths = []
    for clip_first in (False, True):
        gradient.grad, scaler = 2.0**16 * torch.ones(100), LossScaler()
        calls = [partial(scaler.unscale, [gradient]), partial(clip_grad_norm_, [gradient], 1.0)]
        for call in calls[::-1] if clip_first else calls:
            call()
        lengths.append(gradient.grad.norm().item())
    check("a gradient of length 10 has length 1 if it is unscaled, then clipped, and less than 0.0001 if it "
          "is clipped first", abs(lengths[0] - 1) < 1e-4 and lengths[1] < 1e-4,
          f"{lengths[0]:.4f}, {lengths[1]:.1e}")
    return table("step", "scale", "loss", "", rows=[
        (number, f"2^{math.log2(scale):.0f}", loss, "" if finite else "skipped")
        for number, (scale, loss, finite) in enumerate(steps, 1)])


STALL_STEPS = 120


def stalled(seed: int, dtype: torch.dtype, falls: bool) -> list[float]:
    """For each step the fraction of weights left unchanged; the rate `falls` to 0, or hardly falls."""
    training = TrainingConfig(seed=seed, steps=STALL_STEPS if falls else 100 * STALL_STEPS, batch_size=16)
    return still_standing(make_run(TransformerConfig(), training, CPU), dtype, STALL_STEPS)


@shows(still_standing)
def step_stalled_weights(seed: int):
    """Weights that stall

    bfloat16 has the range of float32, so it needs no loss scaling. Its problem is the update. A step of Adam
    changes a weight by about the learning rate. A change of less than half the distance to the next
    number is rounded away. At the end the rate falls to 0, and most weights stand still. If the rate stays
    high, most move.

    The remedy is to keep the weights in float32 (master weights), and to round a copy for the products.
    """
    kinds = {"in bfloat16": (torch.bfloat16, True), "in bfloat16, high rate": (torch.bfloat16, False),
             "in float32 (master weights)": (torch.float32, True)}
    found = dict(zip(kinds, side_by_side([partial(stalled, seed, *kind) for kind in kinds.values()])))
    late = {name: sum(fractions[-10:]) / 10 for name, fractions in found.items()}
    short, high, master = late.values()
    check("in the last 10 steps more than half of the bfloat16 weights stand still, and less than 1 % of the "
          "master weights do", short > 0.5 and master < 0.01, f"{short:.1%}, {master:.1%}")
    check("in the last 10 steps less than 30 % of the bfloat16 weights stand still if the rate stays high",
          high < 0.3, f"{high:.1%}")
    return table("weights kept", "stand still, last 10 steps", rows=[
        (name, f"{part:.1%}") for name, part in late.items()]), Picture(
        "parallelism_stalled.png", drawing.draw_stalled(found),
        "Most bfloat16 weights stand still when the learning rate is low")


# ------------------------------------------------------------------ what the ranks compute


def tokens_in(batch: Batch) -> Tensor:
    """How many tokens of the batch count in its loss."""
    return (batch.tgt_out != PAD).sum()


def share_of_loss(model: nn.Module, part: Batch, tokens: Tensor) -> Tensor:
    """What these rows add to the mean loss over `tokens` tokens."""
    return fused_sequence_loss(model(part.src, part.tgt_in), part.tgt_out) / tokens


def reference(seed: int) -> tuple[Transformer, Batch]:
    """A model with one rank's gradients of a batch, and the batch."""
    model, batch = Transformer(TransformerConfig()), draw_batch("reverse", 32, "train", (seed, 0))
    share_of_loss(model, batch, tokens_in(batch)).backward()
    return model, batch


def ring_bytes(numbers: int, size: int) -> int:
    """The bytes that each of `size` ranks sends to add up `numbers` numbers of 4 bytes."""
    return 2 * (size - 1) * math.ceil(numbers / size) * 4


@shows(reduce_scatter, all_gather)
def step_ring(seed: int):
    """All-reduce in a ring

    P ranks have a tensor of n numbers each, and all need their sum (all-reduce). If each rank
    sends its tensor to all others, it sends (P − 1) · n numbers. In a ring each rank sends only to its
    right neighbour, one piece of n / P numbers at a time.

    In the first P − 1 steps (reduce-scatter) the pieces are added up on their way, until each rank has one
    finished piece. In P − 1 more steps (all-gather) the finished pieces go round. A rank sends 2 · (P − 1) /
    P · n numbers, less than 2 · n for any P.
    """
    check_part(ring_all_reduce, ring_checks, OURS)
    rows = []
    for size in (2, 4, 8):
        def program(group: Group) -> int:
            ring_all_reduce(torch.ones(1000), group)
            return group.sent
        rows.append((size, 4000 * (size - 1), in_threads(program, size)[0]))
    check("with 8 ranks a rank sends less than two copies of the tensor through the ring",
          rows[-1][2] < 2 * 4000, f"{rows[-1][2]:,} bytes")
    return table("ranks", "to all others, bytes per rank", "ring, bytes per rank", rows=rows,
                 title="1,000 numbers of 4 bytes")


class DataFound(NamedTuple):
    """One rank's results."""

    gradient: Tensor
    of_means: Tensor  # the mean of the gradients of each rank's own mean
    sent: int  # bytes, for `gradient`


def data_parallel(whole: nn.Module, batch: Batch, group: Group) -> DataFound:
    """Each rank computes its rows' shares of the mean over all tokens; the gradients are added up."""
    model, part = fresh(whole), rows_of(batch, group)
    share_of_loss(model, part, tokens_in(batch)).backward()
    gradient = ring_all_reduce(gradient_of(model), group)
    sent = group.sent
    model.zero_grad()
    share_of_loss(model, part, tokens_in(part)).backward()
    return DataFound(gradient, ring_all_reduce(gradient_of(model), group) / group.size, sent)


@shows(share_of_loss, rows_of)
def step_one_mean(seed: int):
    """Data parallelism: parts of one mean

    Each rank has the whole model and some rows of the batch. The loss is a mean over all tokens of the batch.
    So a rank divides the summed loss of its tokens by the number of tokens on all ranks. Then the gradients
    of the ranks add up to the gradient of the whole batch.

    Two mistakes give no error message. If each rank takes the mean over its own tokens, and these means are
    averaged, a token counts more on a rank with few tokens. If all ranks draw the same dropout mask, the
    gradient is noisier than if each rank draws its own.
    """
    model, batch = reference(seed)
    wanted, rows = gradient_of(model), []
    for size in (2, 4):
        found = in_threads(partial(data_parallel, model, batch), size)[0]
        gap = largest_difference(found.gradient, wanted)
        off = ((found.of_means - wanted).norm() / wanted.norm()).item()
        formula = ring_bytes(len(wanted), size)
        check(f"{size} ranks: the gradients add up to the whole batch's within 10⁻⁶, and each rank sends "
              "as many bytes as the ring's formula says", gap < 1e-6 and found.sent == formula, f"{gap:.0e}")
        ranks = [Group(rank, size) for rank in range(size)]
        rows.append((size, ", ".join(str(int(tokens_in(rows_of(batch, group)))) for group in ranks),
                     f"{gap:.0e}", f"{off:.2%}", found.sent))
    layer, x = FeedForward(16, 64, dropout=0.5), torch.rand(32, 16)
    check("4 ranks: averaging the ranks' own means gives a gradient over 0.5 % off",
          off > 0.005, f"{off:.2%}")
    same, own = (variance_of_gradient(layer, x, 4, kind) for kind in (True, False))
    check("4 ranks, similar rows: with the same dropout mask on all ranks the gradient's variance is over "
          "1.5 times as large as with separate masks", same > 1.5 * own, f"{same / own:.1f} times")
    return table("ranks", "tokens per rank", "gap of the sum", "mean of means off by", "bytes sent",
                 rows=rows)


class TensorFound(NamedTuple):
    """One rank's results."""

    logits: float  # the largest gap
    gradients: float
    sent: int  # bytes in the forward pass
    sent_back: int
    kept: int  # bytes of weights on this rank


def tensor_parallel(whole: nn.Module, batch: Batch, group: Group) -> TensorFound:
    """All ranks read the same rows; each has some heads, and some of the inner width."""
    model = split_over(fresh(whole), group)
    logits = model(batch.src, batch.tgt_in)
    sent = group.sent
    (fused_sequence_loss(logits, batch.tgt_out) / tokens_in(batch)).backward()
    return TensorFound(largest_difference(logits, whole(batch.src, batch.tgt_in)),
                       gap_of_gradients(model, whole, group), sent, group.sent - sent,
                       bytes_in([*model.parameters()]))


@shows(ColumnLinear.forward, RowLinear.forward, ToAll.backward)
def step_columns_then_rows(seed: int):
    """Tensor parallelism: columns, then rows

    The first matrix of a feed-forward network is cut by its outputs: each rank computes some of the inner
    numbers, and GELU needs no others. The second matrix is cut by its inputs: each rank multiplies what it
    has, and the products are added up. In attention each rank gets some of the heads.

    So each feed-forward network and each attention needs one sum in the forward pass (FromAll). In the
    backward pass each map that is cut by its outputs needs one sum for its input's gradient (ToAll): each
    rank has only part of it. Attention has three such maps.
    """
    for part in (ToAll, FromAll, ColumnLinear, RowLinear):
        check_part(part, GRADED[part.__name__], OURS)
    model, batch = reference(seed)
    width, rows = model.config.d_model, []
    for size in (2, 4):
        found = in_threads(partial(tensor_parallel, model, batch), size)[0]
        source, target = (model.config.n_layers * ring_bytes(tokens.numel() * width, size)
                          for tokens in (batch.src, batch.tgt_in))  # for a sum in each block
        check(f"{size} ranks: the logits are within 10⁻⁵ of the whole model's, and the gradients within 10⁻⁶",
              found.logits < 1e-5 and found.gradients < 1e-6, f"{found.logits:.0e}, {found.gradients:.0e}")
        check(f"{size} ranks: an encoder and a decoder block together send the bytes of 5 sums "
              "forward and 11 backward",
              (found.sent, found.sent_back) == (2 * source + 3 * target, 6 * source + 5 * target))
        rows.append((size, f"{found.logits:.0e}", f"{found.gradients:.0e}", found.sent, found.sent_back,
                     found.kept))
    return table("ranks", "gap, logits", "gap, gradients", "bytes forward", "bytes backward",
                 "bytes of weights", rows=rows)


def sharded_update(weights: list[nn.Parameter], piece: nn.Parameter, optimizer: torch.optim.Optimizer,
                   group: Group) -> None:
    """After backward(): each rank updates its piece of the weights, and all ranks collect the pieces.

    `piece` is what `optimizer` trains: this rank's piece of the weights, joined into one vector.
    """
    piece.grad = reduce_scatter(parameters_to_vector([weight.grad for weight in weights]), group)
    optimizer.step()
    vector_to_parameters(all_gather(piece.detach(), group), weights)


SHARD_STEPS = 5


def sharded_states(start: nn.Module, seed: int, group: Group) -> tuple[Tensor, Held, int]:
    """Steps with the optimiser's states in pieces → weights, bytes held and sent."""
    model = fresh(start)
    weights = [*model.parameters()]
    piece = nn.Parameter(pieces_of(parameters_to_vector(weights), group.size)[group.rank])
    optimizer = torch.optim.AdamW([piece], 1e-3)
    for step in range(SHARD_STEPS):
        batch = draw_batch("reverse", 16, "train", (seed, step))
        model.zero_grad()
        share_of_loss(model, rows_of(batch, group), tokens_in(batch)).backward()
        sharded_update(weights, piece, optimizer, group)
    return parameters_to_vector(weights).detach(), held_by(weights, optimizer), group.sent


@shows(sharded_update)
def step_sharded_states(seed: int):
    """Sharding the optimiser's states

    In data parallelism every rank keeps the same states of Adam: twice as many numbers as weights. With ZeRO
    (Rajbhandari et al. 2020) each rank keeps only the states of one piece of the weights.

    After the first half of the ring each rank has the summed gradient of one piece. The rank updates this
    piece, and the second half passes the new weights round. So no more bytes are sent than in plain data
    parallelism. This is ZeRO-1. ZeRO-2 also shards the gradients; ZeRO-3 also shards the weights. FSDP is
    PyTorch's ZeRO-3.
    """
    start = Transformer(TransformerConfig())
    alone, held, _ = in_threads(partial(sharded_states, start, seed), 1)[0]
    rows = [(1, held.optimizer, 0, "")]
    for size in (2, 4):
        found, part, sent = in_threads(partial(sharded_states, start, seed), size)[0]
        gap = largest_difference(found, alone)
        check(f"{size} ranks: after {SHARD_STEPS} steps the weights are within 10⁻⁴ of those of one rank, "
              f"and a rank keeps 1/{size} of the states",
              gap < 1e-4 and abs(part.optimizer - held.optimizer / size) <= 2 * 4, f"{gap:.0e}")
        check(f"{size} ranks: a step sends as many bytes as plain data parallelism",
              sent == SHARD_STEPS * ring_bytes(parameters(start), size), f"{sent // SHARD_STEPS:,}")
        rows.append((size, part.optimizer, sent // SHARD_STEPS, f"{gap:.0e}"))
    return table("ranks", "bytes of Adam's states per rank", "bytes sent per step and rank", "gap, weights",
                 rows=rows)


STAGES, MICRO = 4, 8
SCHEDULES = {"GPipe": gpipe, "1F1B": one_f_one_b}


def blocks_with_gradients() -> tuple[nn.Sequential, Tensor, Tensor]:
    """Encoder blocks with gradients, their batch, and its targets."""
    return with_gradients([EncoderBlock(32, 2, 64) for _ in range(STAGES)], *torch.randn(2, MICRO, 6, 32))


def waiting(rows: list[list[Work | None]]) -> float:
    """The fraction of all slots in which a stage waits: the bubble."""
    return sum(row.count(None) for row in rows) / sum(map(len, rows))


@shows(run_stage, one_f_one_b)
def step_pipeline(seed: int):
    """Pipeline parallelism

    Each rank, called a stage, has some of the blocks, and passes on activations. If only one batch were on
    its way, all stages but one would wait. So the batch is cut into M micro-batches. We count time in slots:
    one for a forward pass, two for a backward pass. Some waiting is left at both ends: the bubble, (P − 1) /
    (M + P − 1) of all slots.

    GPipe sends all micro-batches forward, then all backward, so each stage keeps the activations of all M.
    1F1B (one forward, one backward) goes backward as soon as it can. Its bubble is as large as GPipe's, but
    stage s keeps the activations of at most P − s micro-batches.
    """
    for part in (one_f_one_b, timeline):
        check_part(part, GRADED[part.__name__], OURS)
    blocks, x, targets = blocks_with_gradients()
    rows, slots, keeps = [], {}, {}
    for name, schedule in SCHEDULES.items():
        found = in_threads(partial(pipelined, blocks, schedule, x.chunk(MICRO), targets.chunk(MICRO)), STAGES)
        gap = max(one for one, _ in found)
        keeps[name], slots[name] = [most for _, most in found], timeline(schedule, STAGES, MICRO)
        check(f"{name}: {STAGES} stages and {MICRO} micro-batches give the gradients of the whole batch "
              "within 10⁻⁶", gap < 1e-6, f"{gap:.0e}")
        rows.append((name, f"{waiting(slots[name]):.1%}", *keeps[name]))
    sizes = [(stages, micro) for stages in (2, 4, 8) for micro in (1, 2, 4, 8, 16)]
    check("for 15 pairs of P and M, both orders wait in (P − 1) / (M + P − 1) of the slots", all(
        abs(waiting(timeline(schedule, *pair)) - (pair[0] - 1) / (sum(pair) - 1)) < 1e-9
        for pair in sizes for schedule in SCHEDULES.values()))
    check("in this run each stage kept the activations of M micro-batches with GPipe; with 1F1B stage s kept "
          "those of P − s", keeps == {
        "GPipe": [MICRO] * STAGES, "1F1B": [STAGES - stage for stage in range(STAGES)]})
    return table("order", "bubble", *(f"stage {stage} keeps" for stage in range(STAGES)), rows=rows), Picture(
        "parallelism_pipeline.png", drawing.draw_slots(slots, keeps),
        "1F1B waits as long as GPipe and keeps fewer activations")


def bytes_per_rank(numbers: float, ranks: int, weight: int, gradient: int, optimizer: int
                   ) -> dict[str, tuple[float, float, float]]:
    """Way of spreading → bytes of weights, gradients and optimiser on each rank, given those per number."""
    whole = weight * numbers, gradient * numbers, optimizer * numbers
    cut = [part / ranks for part in whole]
    return {"data": whole, "ZeRO-1": (*whole[:2], cut[2]), "ZeRO-2": (whole[0], *cut[1:]),
            "ZeRO-3, FSDP": tuple(cut)}


BILLIONS, MANY = 7e9, 8


@shows(bytes_per_rank)
def step_memory(seed: int):
    """Memory for this model and 7 billion parameters

    What a rank keeps can be computed before anything runs. Lesson 5's model needs 4 bytes per weight, 4 per
    gradient and 8 for Adam. A large model is usually trained with weights and gradients in bfloat16, 2 bytes
    each, and 12 bytes for master weights and Adam.

    The last column is for 7 billion parameters on 8 ranks. An 80 GB GPU can't hold what the first row
    needs. Activations need memory as well; recomputing them (lesson 11) reduces it.
    """
    model, batch = reference(seed)
    formula = bytes_per_rank(parameters(model), 2, 4, 4, 8)
    counted = {"data": held_after(model, share_of_loss(model, batch, tokens_in(batch))),
               "ZeRO-1": in_threads(partial(sharded_states, model, seed), 2)[0][1]}
    large = bytes_per_rank(BILLIONS, MANY, 2, 2, 12)
    check("the bytes counted with 2 ranks are those of the formula, for data parallelism and ZeRO-1",
          all(max(abs(a - b) for a, b in zip(counted[way], formula[way])) <= 8 for way in counted))
    rows = [(way, f"{sum(formula[way]):,.0f}", f"{sum(counted[way]):,}" if way in counted else "",
             f"{sum(large[way]) / 1e9:.1f} GB") for way in formula]
    figure = drawing.draw_bytes({
        "this model on 2 ranks, MB": {way: [part / 1e6 for part in parts] for way, parts in formula.items()},
        "7 billion on 8 ranks, GB": {way: [part / 1e9 for part in parts] for way, parts in large.items()}})
    return table("way", "this model, 2 ranks: formula", "counted", "7 billion, 8 ranks", rows=rows), Picture(
        "parallelism_bytes.png", figure, "Only what is split across ranks needs less memory per rank")


# ------------------------------------------------------------------ in processes


TOGETHER = 2  # processes that the lesson starts


def by_hand(whole: nn.Module, batch: Batch, group: Group) -> dict[str, tuple[float, int]]:
    """Way → this rank's largest gap to the result of one rank, and the bytes that it sent."""
    whole = after_backward(whole, partial(share_of_loss, part=batch, tokens=tokens_in(batch)))
    data = data_parallel(whole, batch, group)
    found = {"data": (largest_difference(data.gradient, gradient_of(whole)), data.sent)}
    before = group.sent
    tensor = tensor_parallel(whole, batch, group)
    found["tensor"] = max(tensor.logits, tensor.gradients), group.sent - before
    return found


@shows(by_hand)
def step_same_program(seed: int):
    """The same program in processes

    The programs above communicate only through their group, so they run unchanged if ranks are processes.
    This step starts two on this machine, joined by gloo, PyTorch's backend for CPUs; GPUs use nccl. Usually
    PyTorch's launcher torchrun starts the processes. Then only this step and the next one run:

        torchrun --nproc-per-node 2 13_parallelism.py
    """
    model, batch = reference(seed)
    found = or_why_not(partial(by_hand, model, batch), TOGETHER)
    if isinstance(found, str):
        return found
    threads = in_threads(partial(by_hand, model, batch), len(found))
    gap = max(gap for one in found for gap, _ in one.values())
    check(f"{len(found)} processes give one process's gradients and logits within 10⁻⁵",
          gap < 1e-5, f"{gap:.0e}")
    sent = [[[sent for _, sent in one.values()] for one in kind] for kind in (found, threads)]
    check("each process sends exactly as many bytes as a thread", sent[0] == sent[1])
    return table("way", "largest gap to one process", "bytes sent per rank", rows=[
        (way, f"{max(one[way][0] for one in found):.0e}", sent) for way, (_, sent) in found[0].items()])


@shows(data_engine, fsdp_engine, tensor_engine)
def step_engines(seed: int):
    """PyTorch's own engines

    DistributedDataParallel sends gradients while backward() still runs. FSDP2 also cuts the weights. Both
    average the gradients of the ranks, whereas our program adds them up, so their loss is multiplied by P.
    parallelize_module cuts matrices according to a plan, and torch.distributed.pipelining runs stages.

    Each engine has to give the gradients of one process. Lessons 5, 8 and 10 train with them: --parallel
    data, fsdp or tensor, under torchrun.
    """
    model, batch = reference(seed)
    loss = partial(share_of_loss, tokens=tokens_in(batch))
    found = or_why_not(partial(run_engines, model, batch, loss, LAYERS, blocks_with_gradients()), TOGETHER)
    if isinstance(found, str):
        return found
    ran = {name: [rank[name] for rank in found] for name, first in found[0].items() if not first.reason}
    gap = max(one.gap for ranks in ran.values() for one in ranks)
    check(f"the engines give the gradients of one process within 10⁻⁶, in {len(found)} processes",
          gap < 1e-6, f"{len(ran)} engines, {gap:.0e}")
    if sharded := ran.get("FSDP2 (fully_shard)"):
        whole = bytes_in([*model.parameters()])
        check("with FSDP2 no rank keeps more than 1/P of the weights plus 1 % of them",
              max(one.kept for one in sharded) < whole / len(found) + 0.01 * whole)
    return table("engine", "largest gap to one process", "bytes of weights on rank 0", rows=[
        (name, f"{max(one.gap for one in ran[name]):.0e}", f"{first.kept:,}") if name in ran
        else (name, first.reason, "") for name, first in found[0].items()])


def step_what_to_run(seed: int):
    """8 GPUs, or two machines

    With 8 GPUs in one machine begin with data parallelism. Use fsdp if weights, gradients and states don't
    fit into one GPU. Tensor parallelism sends data in every layer, and all ranks have to wait. Use it only
    inside one machine. The number of ranks has to divide the number of heads.

    On two machines run the same command, with the name of one of them as HOST and a free PORT. The last row
    tries this on one machine: type it in two terminals. Still larger models need these ways combined.
    """
    many, two = "torchrun --nproc-per-node gpu", "--rdzv-backend c10d --rdzv-endpoint"
    five = "05_mini_transformer.py --parallel"
    return table("when", "command", rows=[
        ("the model fits", f"{many} {five} data"),
        ("the states don't fit", f"{many} {five} fsdp"),
        ("a layer doesn't fit", f"{many} {five} tensor"),
        ("two machines", f"{many} --nnodes 2 {two} HOST:PORT {five} fsdp"),
        ("no GPU, to try it",
         f"torchrun --nproc-per-node 1 --nnodes 2 {two} localhost:29400 13_parallelism.py")])


def step_broken_on_purpose(seed: int):
    """Broken on purpose

    Without ToAll a cut layer's outputs are right, but the gradient of its input is wrong.
    """
    wrong = column_checks.mistakes(OURS)["input read without ToAll"].implementation
    outputs, gradient, *_ = column_checks(wrong, OURS)
    check("without ToAll the outputs are right and the input's gradient is wrong",
          outputs.holds() and not gradient.holds())
    return check_mistakes(OURS, *GRADED.values())


def step_what_next(seed: int):
    """What now?

    Read: reduce_scatter and all_gather, then ColumnLinear and RowLinear, then run_stage.

    Change: (1) STALL_STEPS = 300: do more weights stall? (2) MICRO = 16: how small does the bubble get, and
    what does GPipe keep? (3) MANY = 64: which ways of spreading still save memory?

    Write it yourself: --template my_parallelism.py, then --grade my_parallelism.py.
    """


def main():
    options = lesson_parser(__doc__, GRADED).parse_args()
    steps = [
        step_formats, step_vanishing, step_loss_scaling, step_stalled_weights, step_ring, step_one_mean,
        step_columns_then_rows, step_sharded_states, step_pipeline, step_memory, step_same_program,
        step_engines, step_what_to_run, step_broken_on_purpose, step_what_next]
    if PROCESSES > 1:  # torchrun's
        steps = [step_same_program, step_engines]
    with all_processes():
        narrate(options, __doc__, steps, options.seed)


if __name__ == "__main__":
    main()

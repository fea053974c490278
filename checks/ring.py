"""What must hold for lesson 13's ring, which adds up tensors of all ranks."""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from course.grading.checking import Mistake, Part, agree, at, random_tensors, together
from course.training.ranks import in_threads

SHAPES = (12,), (3, 4), (7,), (2, 5), ()  # of what is added up; most don't split evenly over the ranks


def inputs_of(ranks: int, shape: tuple[int, ...]) -> Tensor:
    """(P, …): the tensor of each rank."""
    (found,) = random_tensors((ranks, *shape), seed=ranks)
    return found


def on_each(implementation: Callable, xs: Sequence[Tensor]) -> tuple[Tensor, list[int], list[Tensor]]:
    """What ring_all_reduce gives on each rank, the bytes that each sent, and the inputs afterwards."""

    def program(group):
        x = xs[group.rank].clone()
        return implementation(x, group), group.sent, x

    found, sent, left = zip(*in_threads(program, len(xs)))
    return torch.stack(found), [*sent], [*left]


# ------------------------------------------------------------------ ring_all_reduce(x, group)


def sums(implementation, ours):
    """Every rank gets the sum over all ranks, in the shape of its tensor, for one to five ranks."""
    findings = []
    for ranks in (1, 2, 3, 4, 5):
        for shape in SHAPES:
            xs = inputs_of(ranks, shape)
            found, _, _ = on_each(implementation, xs)
            findings.append(at(f"{ranks} ranks, shape {shape}",
                               agree(found, xs.sum(0).expand(ranks, *shape), 1e-9)))
    return together(*findings)


def same_bits(implementation, ours):
    """All ranks get the same bits, although a sum depends on its order."""
    found, _, _ = on_each(implementation, inputs_of(4, (1001,)).float())
    return agree(found, found[:1].expand(4, -1), tolerance=0.0, axes="rank, number")


def sends_little(implementation, ours):
    """Each rank sends 2 · (P − 1) pieces of ⌈n / P⌉ numbers, whatever the number of ranks P."""
    findings = []
    for ranks, numbers in ((1, 12), (2, 12), (3, 12), (4, 12), (4, 10), (5, 12)):
        _, sent, _ = on_each(implementation, inputs_of(ranks, (numbers,)))
        expected = 2 * (ranks - 1) * math.ceil(numbers / ranks) * 8
        findings.append(at(f"{ranks} ranks, {numbers} numbers, bytes", agree(
            torch.tensor(sent), torch.tensor([expected] * ranks), axes="rank")))
    return together(*findings)


def leaves_the_inputs(implementation, ours):
    """The ring leaves its input tensors unchanged."""
    xs = inputs_of(4, (8,))
    _, _, left = on_each(implementation, xs)
    return agree(torch.stack(left), xs, tolerance=0.0, axes="rank, number")


def ring_by(gather: bool = True, add_again: bool = False, views: bool = False, cut: bool = False) -> Callable:
    """A ring with one thing changed."""

    def ring(x: Tensor, group) -> Tensor:
        ranks, rank, flat = group.size, group.rank, x.view(-1)
        padded = flat if cut or not len(flat) % ranks else F.pad(flat, (0, -len(flat) % ranks))
        width = len(padded) // ranks
        parts = [padded[n * width : (n + 1) * width] for n in range(ranks)]
        parts = parts if views else [part.clone() for part in parts]
        right, left = (rank + 1) % ranks, (rank - 1) % ranks
        for step in range(ranks - 1):
            came = group.exchange(parts[(rank - step - 1) % ranks], right, left)
            parts[(rank - step - 2) % ranks] += came
        for step in range(ranks - 1 if gather else 0):
            came, place = group.exchange(parts[(rank - step) % ranks], right, left), (rank - step - 1) % ranks
            parts[place] = parts[place] + came if add_again else came
        whole = torch.cat(parts)
        return F.pad(whole, (0, max(0, x.numel() - len(whole))))[: x.numel()].view_as(x)

    return ring


def everything_to_everyone(x: Tensor, group) -> Tensor:
    """Each rank sends its whole tensor to each of the others."""
    total = x.clone()
    for step in range(1, group.size):
        total = total + group.exchange(x, (group.rank + step) % group.size, (group.rank - step) % group.size)
    return total


def ring_mistakes(ours):
    """The classic mistakes."""
    return {
        "everything to everyone": Mistake(
            "each rank sends its whole tensor to each of the others: with P ranks that is P / 2 times as "
            "much as in a ring of pieces", everything_to_everyone, "Each rank sends"),
        "no second round": Mistake("after P − 1 steps each rank has the sum of one piece only; P − 1 more "
                                   "steps pass the finished pieces on", ring_by(gather=False),
                                   "Every rank gets"),
        "adds in the second round": Mistake("in the second round a piece is finished: it replaces the old "
                                            "one, nothing is added", ring_by(add_again=True),
                                            "Every rank gets"),
        "writes into views": Mistake("chunk() and slices are views: += writes into the given tensor; clone "
                                     "the pieces", ring_by(views=True), "The ring leaves"),
    }


def more_ring_mistakes(ours):
    """Others that the lesson doesn't show."""
    return {
        "rest forgotten": Mistake("where P doesn't divide the number of numbers, the remainder is lost: pad "
                                  "with zeros, and cut them off at the end", ring_by(cut=True),
                                  "Every rank gets"),
        "each adds in its own order": Mistake(
            "each rank adds up in its own order, so the results differ by rounding, and the weights of the "
            "ranks drift apart", everything_to_everyone, "All ranks get the same bits"),
    }


ring_checks = Part(
    [sums, same_bits, sends_little, leaves_the_inputs],
    ring_mistakes,
    more=more_ring_mistakes,
    needs="group has rank, size and exchange(tensor, to, source), which sends a tensor and returns another.",
)

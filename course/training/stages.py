"""Stages of a pipeline: each rank has some of the blocks, and passes on activations and gradients."""

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from course.training.pieces import fresh, gap_of_gradients, piece_of_blocks
from course.training.ranks import Group

Schedule = Callable[[int, int, int], list[tuple[str, int]]]  # stage, stages, micro-batches → work in order


def run_stage(stage: nn.Module, schedule: Schedule, micro: Sequence[Tensor], targets: Sequence[Tensor],
              group: Group) -> int:
    """Run a training step of one pipeline stage, computing its gradients → the most inputs kept at once.

    The first stage reads the micro-batches, the last one compares with the targets (mean square).
    """
    first, last, most = group.rank == 0, group.rank == group.size - 1, 0
    kept: dict[int, tuple[Tensor, Tensor]] = {}
    for kind, number in schedule(group.rank, group.size, len(micro)):
        if kind == "F":
            x = micro[number] if first else group.receive(group.rank - 1, like=micro[number])
            x = x.detach().requires_grad_()
            y = stage(x)
            kept[number], most = (x, y), max(most, len(kept) + 1)
            if not last:
                group.send(y, group.rank + 1)
            continue
        x, y = kept.pop(number)
        if last:
            (F.mse_loss(y, targets[number]) / len(micro)).backward()
        else:
            y.backward(group.receive(group.rank + 1, like=y))
        if not first and x.grad is not None:
            group.send(x.grad, group.rank - 1)
    return most


def pipelined(blocks: nn.Sequential, schedule: Schedule, micro: Sequence[Tensor], targets: Sequence[Tensor],
              group: Group) -> tuple[float, int]:
    """Run some of the blocks on each rank → the largest gap of its gradients, and the most inputs kept."""
    part = piece_of_blocks(blocks, group)
    stage = fresh(part)
    most = run_stage(stage, schedule, micro, targets, group)
    return gap_of_gradients(stage, part), most


def with_gradients(blocks: Sequence[nn.Module], x: Tensor, target: Tensor
                   ) -> tuple[nn.Sequential, Tensor, Tensor]:
    """The blocks as a model with the gradients of a batch, the batch, and its targets."""
    model = nn.Sequential(*blocks)
    F.mse_loss(model(x), target).backward()
    return model, x, target

"""Models split over several ranks: a rank's rows, gradients and bytes, compared with the whole model's."""

from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector
from torch.optim import Optimizer

from course.grading.checking import largest_difference
from course.training.parallel import joined
from course.training.ranks import Group


def fresh(model: nn.Module) -> nn.Module:
    """A copy of the model without gradients."""
    copy = deepcopy(model)
    copy.zero_grad()
    return copy


def after_backward(model: nn.Module, loss: Callable[[nn.Module], Tensor]) -> nn.Module:
    """A copy of the model with the gradients of this loss. (Sending it to a process drops gradients.)"""
    copy = fresh(model)
    loss(copy).backward()
    return copy


def rows_of(batch: Any, group: Group) -> Any:
    """This rank's rows of a named tuple of tensors: every P-th."""
    return batch._make(tensor[group.rank :: group.size] for tensor in batch)


def gradients_in(parameters: Iterable[nn.Parameter]) -> list[Tensor]:
    """The gradients that exist."""
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


def gradient_of(model: nn.Module) -> Tensor:
    """The gradients of all parameters, one after the other."""
    return parameters_to_vector(gradients_in(model.parameters()))


def gap_of_gradients(model: nn.Module, whole: nn.Module, group: Group | None = None) -> float:
    """The largest difference between a gradient and the whole model's gradient of the same name.

    A parameter may be this rank's piece of the whole parameter, split by PyTorch or by our own code.
    """
    wanted, gaps = dict(whole.named_parameters()), []
    for name, parameter in model.named_parameters():
        found, expected = gradients_in([parameter, wanted[name]])
        found = joined(found)
        cut = [dim for dim, (a, b) in enumerate(zip(expected.shape, found.shape)) if a != b]
        if cut and group:
            expected = expected.chunk(group.size, cut[0])[group.rank]
        gaps.append(largest_difference(found, expected))
    return max(gaps)


def piece_of_blocks(blocks: nn.Module, group: Group) -> nn.Sequential:
    """The blocks of this rank, if all ranks have equally many."""
    every = [*blocks.children()]
    count = len(every) // group.size
    return nn.Sequential(*every[group.rank * count : (group.rank + 1) * count])


class Held(NamedTuple):
    """Bytes on a rank."""

    weights: int
    gradients: int
    optimizer: int


def held_by(weights: Sequence[nn.Parameter], optimizer: Optimizer) -> Held:
    """The bytes of the weights, their gradients, and all that the optimiser keeps for them."""
    kept = [value for state in optimizer.state.values() for value in state.values() if value.ndim]
    return Held(bytes_in(weights), bytes_in(gradients_in(weights)), bytes_in(kept))


def held_after(model: nn.Module, loss: Tensor) -> Held:
    """The bytes held after a step of AdamW on this loss."""
    optimizer, weights = torch.optim.AdamW(model.parameters(), 1e-3), [*model.parameters()]
    model.zero_grad()
    loss.backward()
    optimizer.step()
    return held_by(weights, optimizer)


def bytes_in(tensors: Sequence[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def variance_of_gradient(layer: nn.Module, x: Tensor, ranks: int, same: bool) -> float:
    """How much dropout makes the mean gradient of several ranks vary; each rank has its own rows of x.

    If `same`, all ranks draw the same dropout, otherwise each draws its own.
    """
    found = []
    with torch.random.fork_rng(devices=[]):
        for draw in range(40):
            layer.zero_grad()
            for rank in range(ranks):
                torch.default_generator.manual_seed(1000 * draw + (0 if same else rank))
                (layer(x[rank::ranks]).square().mean() / ranks).backward()
            found.append(gradient_of(layer))
    return torch.stack(found).var(0).mean().item()

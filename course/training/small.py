"""The training loop of the small models that a lesson trains in a second."""

from collections.abc import Callable

from torch import Tensor
from torch.optim import Optimizer


def minimise(loss_of: Callable[[], Tensor], optimizer: Optimizer, steps: int, decay: bool = False) -> float:
    """Update after each loss_of(), which draws its own batch → the last loss.

    With `decay` the rate of the first group of parameters falls linearly, to 1 / steps in the last step.
    """
    group, loss = optimizer.param_groups[0], None
    rate = group["lr"]
    for step in range(steps):
        loss = loss_of()
        optimizer.zero_grad()
        loss.backward()
        if decay:
            group["lr"] = rate * (1 - step / steps)
        optimizer.step()
    return loss.item()

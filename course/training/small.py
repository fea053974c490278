"""Training small models in about a second: the training loop, and several models at once."""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from course.training.side_by_side import side_by_side


def minimise(loss_of: Callable[[], Tensor], optimizer: Optimizer, steps: int, decay: bool = False) -> float:
    """Update after each loss_of(), which draws its own batch → the last loss.

    With `decay` the rate of the first group of parameters falls linearly, to 1 / steps in the last step.
    """
    group = optimizer.param_groups[0]
    rate, loss = group["lr"], torch.tensor(math.nan)
    for step in range(steps):
        loss = loss_of()
        optimizer.zero_grad()
        loss.backward()
        if decay:
            group["lr"] = rate * (1 - step / steps)
        optimizer.step()
    return loss.item()


Maker = Callable[[], nn.Module]


def trained_side_by_side(*kinds: tuple[Maker, Maker]) -> list[nn.Module]:
    """Pairs (make, train) → models from make() with the weights of those from train(), in eval mode."""
    weights = side_by_side([partial(weights_of, train) for _, train in kinds])
    models = [make() for make, _ in kinds]
    for model, own in zip(models, weights):
        model.load_state_dict(own)
    return [model.eval() for model in models]


def weights_of(train: Callable[[], nn.Module]) -> dict[str, Tensor]:
    return train().state_dict()

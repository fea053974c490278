"""Many small models of one shape, trained side by side: their weights stand along an axis in front."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap


def train_stacked(models: Sequence[nn.Module], batch: Callable[[], tuple[Tensor, Tensor]], steps: int,
                  rate: float, clip: float = 1.0) -> Callable[[Tensor], Tensor]:
    """Adam on the cross-entropy of each of M models; batch() → inputs (M, B, …) and classes (M, B).

    The rate falls to 0. What comes back runs the trained models: inputs (M, B, …) → logits (M, B, classes).
    """
    weights, _ = stack_module_state(models)  # (M, …) each
    run = vmap(lambda weights, x: functional_call(models[0], weights, x))
    optimizer = torch.optim.Adam(weights.values(), lr=rate, fused=True)
    for step in range(steps):
        x, wanted = batch()
        loss = F.cross_entropy(run(weights, x).flatten(0, 1), wanted.flatten()) * len(models)
        optimizer.zero_grad()
        loss.backward()
        clip_each(list(weights.values()), clip)
        optimizer.param_groups[0]["lr"] = rate * (1 - step / steps)
        optimizer.step()
    trained = {name: weight.detach() for name, weight in weights.items()}
    return lambda x: run(trained, x)


def clip_each(parameters: list[Tensor], length: float) -> None:
    """Cut the gradient of each of M models to a length; every parameter is (M, …)."""
    norms = sum(p.grad.flatten(1).square().sum(1) for p in parameters).sqrt()  # type: ignore
    for p in parameters:
        p.grad /= (norms / length).clamp(min=1.0).view(-1, *[1] * (p.ndim - 1))

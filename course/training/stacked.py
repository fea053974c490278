"""Training many small models of one shape at once, with their weights stacked along a first axis."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap


def train_stacked(models: Sequence[nn.Module], batch: Callable[[], tuple[Tensor, Tensor]], steps: int,
                  rate: float) -> Callable[[Tensor], Tensor]:
    """Adam on the cross-entropy of each of M models; batch() → inputs (M, B, …) and classes (M, B).

    The rate falls to 0. Returns a function that runs the models: inputs (M, B, …) → logits (M, B, classes).
    """
    weights, _ = stack_module_state(models)  # (M, …) each
    run = vmap(lambda weights, x: functional_call(models[0], weights, x))
    learned = list(weights.values())
    means, squares = ([torch.zeros_like(weight) for weight in learned] for _ in range(2))
    for step in range(steps):
        x, wanted = batch()
        loss = F.cross_entropy(run(weights, x).flatten(0, 1), wanted.flatten()) * len(models)
        for weight in learned:
            weight.grad = None
        loss.backward()
        clip_each(learned, 1.0)
        adam(learned, means, squares, rate * (1 - step / steps), step + 1)
    trained = {name: weight.detach() for name, weight in weights.items()}
    return lambda x: run(trained, x)


@torch.no_grad()
def adam(weights: list[Tensor], means: list[Tensor], squares: list[Tensor], rate: float, step: int) -> None:
    """One step of Adam. torch.optim.Adam imports PyTorch's compiler, which takes longer than a small run."""
    for weight, mean, square in zip(weights, means, squares):
        mean.lerp_(weight.grad, 0.1)  # type: ignore[arg-type]
        square.lerp_(weight.grad.square(), 0.001)
        size = (square / (1 - 0.999**step)).sqrt() + 1e-8
        weight -= rate / (1 - 0.9**step) * mean / size


def clip_each(parameters: list[Tensor], length: float) -> None:
    """Clip the norm of the gradient of each of M models; every parameter is (M, …)."""
    norms = sum(p.grad.flatten(1).square().sum(1) for p in parameters).sqrt()  # type: ignore
    for p in parameters:
        p.grad /= (norms / length).clamp(min=1.0).view(-1, *[1] * (p.ndim - 1))

"""Simulating a shorter number format by rounding, with the same results on every machine.

Few CPUs can multiply in bfloat16 or float16. So everything that a linear map reads and writes is rounded to
the format, forward and backward, and the sums within a product stay in float32, as on a GPU.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.utils import clip_grad_norm_, parameters_to_vector, vector_to_parameters

from course.training.engine import Run


def in_format(x: Tensor, dtype: torch.dtype) -> Tensor:
    """The numbers, rounded to the nearest ones in the format."""
    return x.to(dtype).to(x.dtype)


class BothWays(torch.autograd.Function):
    """Rounds numbers in the forward pass and gradients in the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dtype: torch.dtype) -> Tensor:
        ctx.dtype = dtype
        return in_format(x, dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return in_format(gradient, ctx.dtype), None


def rounded_map(linear: nn.Linear, dtype: torch.dtype, x: Tensor) -> Tensor:
    """The linear map's output if operands, results and their gradients are rounded to the format."""
    bias = None if linear.bias is None else BothWays.apply(linear.bias, dtype)
    product = F.linear(BothWays.apply(x, dtype), BothWays.apply(linear.weight, dtype), bias)
    return BothWays.apply(product, dtype)


def compute_in(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Make all linear maps of the model compute in the format, in place. Its weights are not changed."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.forward = partial(rounded_map, module, dtype)  # type: ignore[method-assign]
    return model


@contextmanager
def output_gradients(model: nn.Module) -> Iterator[list[Tensor]]:
    """Inside `with`, the gradients of the outputs of all linear maps, flat, in backward()'s order."""
    seen: list[Tensor] = []

    def note(module: nn.Module, read: Any, written: tuple[Tensor, ...]) -> None:
        seen.append(written[0].detach().flatten())

    hooks = [module.register_full_backward_hook(note) for module in model.modules()
             if isinstance(module, nn.Linear)]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def vanished(run: Run, steps: Sequence[int], scales: Sequence[float]) -> dict[int, list[float]]:
    """Step → for each scale the fraction of non-zero output gradients that float16 rounds to 0 after scaling.

    The run is trained up to the last of these steps, in float32.
    """
    found = {}
    while len(run.history) <= max(steps):
        step = len(run.history)
        if step in steps:
            with output_gradients(run.model) as seen:
                run.backward(step)
            gradients = torch.cat(seen)
            gradients = gradients[gradients != 0]
            found[step] = [(scale * gradients).half().eq(0).float().mean().item() for scale in scales]
        run.update()
    return found


def scaled_steps(model: nn.Module, loss_of: Callable[[int], Tensor], scaler: Any, steps: int
                 ) -> list[tuple[float, float, bool]]:
    """Train with a loss scaler → for each step its scale, its loss, and whether it was taken."""
    optimizer, found = torch.optim.AdamW(model.parameters(), 1e-3), []
    for step in range(steps):
        optimizer.zero_grad()
        loss, scale = loss_of(step), scaler.scale
        scaler.scaled(loss).backward()
        finite = scaler.unscale([*model.parameters()])
        clip_grad_norm_(model.parameters(), 1.0)
        if finite:
            optimizer.step()
        scaler.update(finite)
        found.append((scale, loss.item(), finite))
    return found


def still_standing(run: Run, dtype: torch.dtype, steps: int) -> list[float]:
    """Train with all products in bfloat16 → for each step the fraction of weights that it leaves unchanged.

    The weights are kept in `dtype`: float32 for master weights.
    """
    compute_in(run.model, torch.bfloat16)
    found = []
    for step in range(steps + 1):  # number 0 only rounds the initial weights
        before = parameters_to_vector(run.trained)
        if step:
            run.update()
        after = in_format(parameters_to_vector(run.trained), dtype)
        vector_to_parameters(after, run.trained)
        found.append((after == before).float().mean().item())
    return found[1:]

"""Tests of quantisation: one large channel in a model, and linear maps that read changed inputs."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn


@torch.no_grad()
def with_outlier(model: Any, factor: float) -> Any:
    """Change the weights in place, so that the model still computes the same function.

    Channel 0 of every norm before a self-attention or a feed-forward network is divided by the factor, and
    the weights that read this channel are multiplied by it.
    """
    for block in [*model.encoder.blocks, *model.decoder.blocks]:
        attention = block.self_attention
        around = block.around_attention if hasattr(block, "around_attention") else block.around_self
        readers = {around: [attention.project_query, attention.project_key, attention.project_value],
                   block.around_feed_forward: [block.feed_forward.expand]}
        for path, linears in readers.items():
            path.norm.gain[0] /= factor
            path.norm.bias[0] /= factor
            for linear in linears:
                linear.weight[:, 0] *= factor
    return model


def with_changed_inputs(maps: Iterable[nn.Module], change: Callable[[Tensor], Tensor]) -> None:
    """Make every linear map read change(x) of its inputs x, flattened to (N, I)."""

    def read(module: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
        (x,) = inputs
        return change(x.flatten(0, -2)).view_as(x)

    for linear in maps:
        linear.register_forward_pre_hook(read)

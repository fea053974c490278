"""Layers with another attention inside: how a function, or groups, become a model's self-attention."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def layer_of(base: type, function: Callable[..., Tensor]) -> type:
    """Self-attention whose heads run function(queries, keys, values, mask).

    `base` is lesson 3's RotaryAttention. The class is made like lesson 4's attention_to_itself, whose rotary
    positions may be None.
    """

    class Layer(base):
        """Self-attention by another function."""

        def attend(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
            rotated = (queries, keys) if self.rotary is None else self.rotated(queries, keys)
            return function(*rotated, values, mask)

        def weights(self, query: Tensor, key: Tensor, mask: Tensor | None = None) -> Tensor:
            """(B, H, T, S), brought out by one-hot values."""
            queries, keys = self.split(self.project_query(query)), self.split(self.project_key(key))
            one_hot = torch.eye(key.shape[1], dtype=keys.dtype, device=keys.device)
            return self.attend(queries, keys, one_hot.expand(*keys.shape[:2], -1, -1), mask)

    return Layer


def groups_of(base: type, groups: int) -> type:
    """Self-attention with so many groups; `base` is lesson 10's GroupedQueryAttention."""

    class Grouped(base):
        """Grouped queries, made like lesson 4's attention_to_itself."""

        def __init__(self, d_model: int, n_heads: int, dropout: float, rotary: nn.Module | None):
            super().__init__(d_model, n_heads, groups, dropout, rotary, bias=True)

    return Grouped


def replaced_by(own: Callable[[Callable], type], grouped: type, tiled: Callable, near: Callable,
                linear: Callable) -> dict[str, Callable[[Any], dict[str, Any]]]:
    """--attention → for the sizes of a model the parts that are put into it."""
    return {
        "tiled": lambda sizes: {"scaled_dot_product_attention": tiled},
        "window": lambda sizes: {"attention_to_itself": own(near(sizes.window))},
        "linear": lambda sizes: {"attention_to_itself": own(linear)},
        "grouped": lambda sizes: {"attention_to_itself": groups_of(grouped, sizes.groups)},
    }

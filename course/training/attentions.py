"""--attention: putting lesson 11's attention variants into a model."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from course.study.lessons import later_lesson

OWNER = 11  # the lesson with ATTENTIONS


def attention_parts(sizes: Any) -> dict[str, Any]:
    """The parts that sizes.attention puts into a model; none for the kernel."""
    name = sizes.attention
    return {} if name == "kernel" else later_lesson(OWNER).ATTENTIONS[name](sizes)


def refuse_two_attentions(sizes: Any, settings: Any, own: Mapping[str, Any]) -> None:
    """ValueError if --attention would replace what --by-hand or the learner's own parts replace."""
    name = sizes.attention
    if name == "kernel":
        return
    if settings.by_hand and name != "grouped":
        raise ValueError(f"--by-hand and --attention {name} both replace the attention; use one of them")
    if both := sorted({"scaled_dot_product_attention", "MultiHeadAttention"} & own.keys()):
        raise ValueError(f"--attention {name} and your {' and '.join(both)} both replace the attention; use "
                         "one of them")


def layer_of(base: type, function: Callable[..., Tensor]) -> type:
    """Self-attention whose heads run function(queries, keys, values, mask).

    `base` is lesson 3's RotaryAttention. The class is constructed like lesson 4's attention_to_itself,
    whose rotary positions may be None.
    """

    class Layer(base):
        """Self-attention that runs `function`."""

        def attend(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
            rotated = (queries, keys) if self.rotary is None else self.rotated(queries, keys)
            return function(*rotated, values, mask)

        def weights(self, query: Tensor, key: Tensor, mask: Tensor | None = None) -> Tensor:
            """The weights (B, H, T, S), found with one-hot values."""
            queries, keys = self.split(self.project_query(query)), self.split(self.project_key(key))
            one_hot = torch.eye(key.shape[1], dtype=keys.dtype, device=keys.device)
            return self.attend(queries, keys, one_hot.expand(*keys.shape[:2], -1, -1), mask)

    return Layer


def near_attention(attention: Callable[..., Tensor], width: int) -> Callable[..., Tensor]:
    """Attention to the width − 1 tokens on each side that the mask allows; T < S queries are the last."""

    def near(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, dropout: float = 0.0
             ) -> Tensor:
        T, S = query.shape[-2], key.shape[-2]
        i = torch.arange(S - T, S, device=query.device)[:, None]
        band = (i - torch.arange(S, device=query.device)).abs() < width
        return attention(query, key, value, band if mask is None else band & mask, dropout)

    return near


def groups_of(base: type, groups: int) -> type:
    """Self-attention with `groups` groups; `base` is lesson 10's GroupedQueryAttention."""

    class Grouped(base):
        """Grouped queries, constructed like lesson 4's attention_to_itself."""

        def __init__(self, d_model: int, n_heads: int, dropout: float, rotary: nn.Module | None):
            super().__init__(d_model, n_heads, groups, dropout, rotary, bias=True)

    return Grouped


def replaced_by(own: Callable[[Callable], type], grouped: type, tiled: Callable, near: Callable,
                linear: Callable) -> dict[str, Callable[[Any], dict[str, Any]]]:
    """The value of --attention → a function from a model's sizes to the parts put into it."""
    return {
        "tiled": lambda sizes: {"scaled_dot_product_attention": tiled},
        "window": lambda sizes: {"attention_to_itself": own(near(sizes.reach))},
        "linear": lambda sizes: {"attention_to_itself": own(linear)},
        "grouped": lambda sizes: {"attention_to_itself": groups_of(grouped, sizes.groups)},
    }

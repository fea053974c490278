"""What the questions about a trained encoder-decoder model need besides the instruments that answer them."""

from typing import Any

import torch
from torch import Tensor

PAD, SYMBOLS = 0, 3  # the first ids: PAD, BOS, EOS; then the digits


def layers_of(model: Any) -> list[str]:
    """The names of all attentions and feed-forward networks, and of every block after its layers."""
    names = []
    for stack in ("encoder", "decoder"):
        for number, block in enumerate(model.get_submodule(stack).blocks):
            layers = [name for name, _ in block.named_children() if "around" not in name]
            names += [f"{stack}.blocks.{number}.{layer}" for layer in layers] + [f"{stack}.blocks.{number}"]
    return names


def short(name: str) -> str:
    """decoder.blocks.0.cross_attention → decoder 0 cross-attention."""
    return name.replace(".blocks.", " ").replace(".", " ").replace("_", "-")


def real_tokens(name: str, batch: Any) -> Tensor:
    """(B, L), False at padding, for what a part of this name passes on."""
    return (batch.src if name.startswith("encoder") else batch.tgt_in) != PAD


def repeated(batch: Any, count: int) -> Any:
    """Every row `count` times, one after the other."""
    return batch._make(tensor.repeat_interleave(count, 0) for tensor in batch)


def other_digit(digits: list[int], place: int) -> list[int]:
    """The digits, with another one at this place; which one depends on all of them."""
    return [*digits[:place], (digits[place] + 1 + sum(digits) % 9) % 10, *digits[place + 1 :]]


def in_any_order(batch: Any) -> Any:
    """The rows in a random order, always the same."""
    order = torch.randperm(len(batch[0]), generator=torch.Generator().manual_seed(0))
    return batch._make(tensor[order.to(tensor.device)] for tensor in batch)


def without_classes(output: Tensor, labels: Tensor) -> Tensor:
    """Vectors (B, L, D), where each label's mean is moved to the mean of all, so no linear probe can find it.

    labels (B, L) are whole numbers; a token with −1 has none, and stays as it is.
    """
    moved, centre = output.clone(), output[labels >= 0].mean(0)
    for label in labels[labels >= 0].unique():
        moved[labels == label] += centre - output[labels == label].mean(0)
    return moved


def probe_labels(batch: Any) -> dict[str, tuple[str, Tensor]]:
    """Question → the part that is probed, and labels (B, L): −1 at tokens that aren't asked."""
    src, read, write = (tensor - SYMBOLS for tensor in batch)  # PAD, BOS and EOS become negative
    ends = (src >= 0).sum(1, keepdim=True)
    places = torch.arange(src.shape[1], device=src.device).expand_as(src)
    odd = src.clamp(min=0).sum(1, keepdim=True) % 2
    return {
        "encoder: its digit": ("encoder.blocks.0", src.clamp(min=-1)),
        "encoder: places to the end": ("encoder.blocks.1", torch.where(src >= 0, ends - places, -1)),
        "encoder: sum odd?": ("encoder.blocks.1", torch.where(src >= 0, odd, -1)),
        "decoder: digit to write": ("decoder.blocks.0", torch.where(read >= 0, write, -1).clamp(min=-1)),
        "decoder: digit just read": ("decoder.blocks.0", torch.where(write >= 0, read, -1).clamp(min=-1)),
    }

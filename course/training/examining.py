"""Helpers for examining a trained encoder-decoder model, besides the instruments themselves."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PAD, SYMBOLS = 0, 3  # the first ids: PAD, BOS, EOS; then the digits


def share(found: Tensor) -> float:
    """The fraction that is True."""
    return found.float().mean().item()


@torch.no_grad()
def right_each(model: nn.Module, batch: Any) -> Tensor:
    """(B,): whether every token of an answer is right with teacher forcing.

    A model that isn't ablated gives the same answers when it decodes by itself (lesson 5).
    """
    found = model(batch.src, batch.tgt_in).argmax(-1) == batch.tgt_out
    return (found | (batch.tgt_out == PAD)).all(1)


def right(model: nn.Module, batch: Any) -> float:
    """The fraction of the answers that are right with teacher forcing."""
    return share(right_each(model, batch))


@torch.no_grad()
def digits_right(model: nn.Module, batch: Any) -> float:
    """The fraction of the digits that are right with teacher forcing."""
    return share((model(batch.src, batch.tgt_in).argmax(-1) == batch.tgt_out)[batch.tgt_out >= SYMBOLS])


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
    """(B, L), False at padding, for the output of the part with this name."""
    return (batch.src if name.startswith("encoder") else batch.tgt_in) != PAD


def repeated(batch: Any, count: int) -> Any:
    """Every row `count` times, one after the other."""
    return batch._make(tensor.repeat_interleave(count, 0) for tensor in batch)


@torch.no_grad()
def repeats(model: nn.Module, batch: Any) -> tuple[float, float]:
    """The loss, and the mean probability that the model gives to the token just read."""
    logits, real = model(batch.src, batch.tgt_in), batch.tgt_in != PAD
    loss = F.cross_entropy(logits.flatten(0, 1), batch.tgt_out.flatten(), ignore_index=PAD)
    again = logits.softmax(-1).gather(-1, batch.tgt_in[..., None])[..., 0]
    return loss.item(), again[real].mean().item()


def carries_the_digit(patch: Callable, model: nn.Module, name: str, batch: Any, donors: Any) -> list[float]:
    """For each place of a part, how often patching this place leads to the donors' answer."""
    count = (batch.src if name.startswith("encoder") else batch.tgt_in).shape[1]
    rows, others = repeated(batch, count), repeated(donors, count)
    places = torch.arange(count, device=batch.src.device).repeat(len(batch.src))
    said = patch(model, name, (rows.src, rows.tgt_in), (others.src, rows.tgt_in), places).argmax(-1)
    theirs = ((said == others.tgt_out) | (others.tgt_out == rows.tgt_out)).all(1)  # where answers differ
    return theirs.float().unflatten(0, (-1, count)).mean(0).tolist()


def carries_the_place(patch: Callable, model: nn.Module, name: str, batch: Any) -> list[float]:
    """For each place of a decoder's part, how often patching in the next place gives the next token."""
    count = batch.tgt_in.shape[1] - 1
    rows, inputs = repeated(batch, count), repeated(batch, count)[:2]
    places = torch.arange(count, device=batch.src.device).repeat(len(batch.src))
    said = patch(model, name, inputs, inputs, places, places + 1).argmax(-1)
    right = said.gather(1, places[:, None]) == rows.tgt_out.gather(1, places[:, None] + 1)
    return right.float().unflatten(0, (-1, count)).mean(0)[:, 0].tolist()


def other_digit(digits: list[int], place: int) -> list[int]:
    """The digits, with another one at this place; which one depends on all of them."""
    return [*digits[:place], (digits[place] + 1 + sum(digits) % 9) % 10, *digits[place + 1 :]]


def in_any_order(batch: Any) -> Any:
    """The rows in a random order, always the same."""
    order = torch.randperm(len(batch[0]), generator=torch.Generator().manual_seed(0))
    return batch._make(tensor[order.to(tensor.device)] for tensor in batch)


def without_classes(output: Tensor, labels: Tensor) -> Tensor:
    """Vectors (B, L, D), with each label's mean moved to the overall mean: no linear probe finds the label.

    labels (B, L) are whole numbers; a token with −1 has none, and is left unchanged.
    """
    moved, centre = output.clone(), output[labels >= 0].mean(0)
    for label in labels[labels >= 0].unique():
        moved[labels == label] += centre - output[labels == label].mean(0)
    return moved


def probe_labels(batch: Any, blocks: int) -> dict[str, tuple[str, Tensor]]:
    """Question → the part to probe in a model of `blocks` blocks, and labels (B, L), with −1 for none."""
    last = f"encoder.blocks.{blocks - 1}"
    src, read, write = (tensor - SYMBOLS for tensor in batch)  # PAD, BOS and EOS become negative
    ends = (src >= 0).sum(1, keepdim=True)
    places = torch.arange(src.shape[1], device=src.device).expand_as(src)
    odd = src.clamp(min=0).sum(1, keepdim=True) % 2
    return {
        "encoder: its digit": ("encoder.blocks.0", src.clamp(min=-1)),
        "encoder: places to the end": (last, torch.where(src >= 0, ends - places, -1)),
        "encoder: sum odd?": (last, torch.where(src >= 0, odd, -1)),
        "decoder: digit to write": ("decoder.blocks.0", torch.where(read >= 0, write, -1).clamp(min=-1)),
        "decoder: digit just read": ("decoder.blocks.0", torch.where(write >= 0, read, -1).clamp(min=-1)),
    }


def most_broken(rules: dict[str, tuple[str, ...]], phenomena: list, whole: Tensor, broken: dict[Any, Tensor]
                ) -> list[tuple[str, int, Any, float, float]]:
    """(rule, number of its sentences, head that it needs most, fractions broken with and without the rule).

    Of the sentences right with all heads (`whole`), removing a head breaks some (`broken`). The head chosen
    has the largest difference between the sentences that show the rule and those that don't.
    """
    rows = []
    for rule, names in rules.items():
        told = torch.tensor([bool({*names} & shown) for shown in phenomena])
        lost = {head: [found[part & whole].mean().item() for part in (told, ~told)]
                for head, found in broken.items()}
        head = max(lost, key=lambda one: lost[one][0] - lost[one][1])
        rows.append((rule, int(told.sum()), head, *lost[head]))
    return rows

"""--rank: training adapters for a trained model; --bits: answering with quantised weights.

Both need parts of lesson 12, which earlier lessons can't bind. So this module imports them when a command
line needs them.
"""

import argparse
import math
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from course.console.files import load_checkpoint, save_checkpoint, short_path
from course.study.lessons import later_lesson


def finetuning() -> ModuleType:
    """Lesson 12 as a module."""
    return later_lesson(12)


# ------------------------------------------------------------------ adapters


@dataclass(frozen=True)
class Adapters:
    """The values of --rank, --alpha and --matrices; `matrices`: names separated by commas, or "" for all."""

    rank: int
    alpha: float
    matrices: str = ""

    def into(self, model: nn.Module) -> nn.Module:
        """The model, in place, with adapters. ValueError for a rank or a name that doesn't fit it."""
        names = [name.strip() for name in self.matrices.split(",") if name.strip()]
        return finetuning().add_adapters(model, self.rank, self.alpha, names)

    @property
    def name(self) -> str:
        """What these adapters add to file names."""
        alpha = [f"alpha={self.alpha:g}"] if self.alpha != 2 * self.rank else []
        matrices = [f"matrices={self.matrices.replace(',', '+')}"] if self.matrices else []
        return "-".join([f"rank={self.rank}", *alpha, *matrices])

    @property
    def told(self) -> dict[str, Any]:
        """What a checkpoint stores about them: plain values."""
        return asdict(self)


def merged_copy(model: nn.Module) -> nn.Module:
    """A copy with adapters merged into its matrices; a model without adapters is returned unchanged."""
    if not any(hasattr(module, "merged") for module in model.modules()):
        return model
    return finetuning().merge_adapters(deepcopy(model))


def add_adapter_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rank", type=int, metavar="R",
                        help="with --from: train adapters of this rank, and leave the weights as they are")
    parser.add_argument("--alpha", type=float, metavar="A",
                        help="with --rank: the update is multiplied by A / R (default: 2 · R)")
    parser.add_argument("--matrices", default="", metavar="NAME,…",
                        help="with --rank: adapt only the linear maps with one of these names in their path")


def refuse_without_base(options: argparse.Namespace) -> None:
    """ValueError for adapters without a trained model."""
    for name in ("rank", "alpha", "matrices"):
        if (value := getattr(options, name, None)) not in (None, "") and not options.base:
            raise ValueError(f"--{name} {value} goes with --from CHECKPOINT: adapters need a trained model")


def adapters_of(options: argparse.Namespace) -> Adapters | None:
    """The adapters that the options ask for. ValueError for options that have no effect without another."""
    rank, alpha, matrices = options.rank, options.alpha, options.matrices
    if rank is None:
        for name, value in (("alpha", alpha), ("matrices", matrices)):
            if value:
                raise ValueError(f"--{name} {value} goes with --rank")
        return None
    if alpha is not None and not 0 < alpha < math.inf:
        raise ValueError(f"--alpha is {alpha}; it must be above 0 and finite")
    return Adapters(rank, 2.0 * rank if alpha is None else alpha, matrices)


# ------------------------------------------------------------------ quantised weights


def bits(text: str) -> int:
    """A number of bits, from 2 to 8."""
    if not text.isdecimal() or not 2 <= int(text) <= 8:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of bits from 2 to 8")
    return int(text)


def group(text: str) -> int:
    """How many weights share a scale; 0 for all of a matrix."""
    if not text.isdecimal() or int(text) >= 2**31:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of weights: 0, 32, 64, …")
    return int(text)


def add_bits(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bits", type=bits, metavar="N",
                        help="answer with weights of 2 to 8 bits, which are kept in a small file")
    parser.add_argument("--group", type=group, default=32, metavar="N",
                        help="with --bits: N neighbours in a row share a scale; the last group of a row may "
                             "be shorter; 0: one scale per matrix (default: 32)")


def pack(codes: Tensor, bits: int) -> Tensor:
    """Whole numbers from 0 to 2^bits − 1 → bytes without gaps."""
    each = np.unpackbits(codes.to(torch.uint8).numpy().reshape(-1, 1), axis=1)[:, 8 - bits :]
    return torch.from_numpy(np.packbits(each))


def unpack(packed: Tensor, bits: int, count: int) -> Tensor:
    """The reverse of pack(): `count` numbers."""
    each = np.unpackbits(packed.numpy(), count=count * bits).reshape(count, bits)
    return torch.from_numpy(np.packbits(np.pad(each, ((0, 0), (8 - bits, 0))), axis=1)[:, 0])


def bytes_of(model: nn.Module, bits: int, group: int) -> int:
    """Bytes of the quantised weights of all linear maps: their codes, and 2 for each scale."""
    lesson = finetuning()
    weights = [linear.weight for linear in lesson.linear_maps(model).values()]
    scales = sum(lesson.in_groups(weight, group).shape[:2].numel() for weight in weights)
    return math.ceil(sum(weight.numel() for weight in weights) * bits / 8) + 2 * scales


@torch.no_grad()
def packed_weights(model: nn.Module, bits: int, group: int) -> dict[str, Any]:
    """Plain values and tensors from which unpacked_into() restores the model with quantised linear maps.

    `codes` holds the codes of all linear maps, one after the other, `scales` their scales in 16 bits, and
    `rest` all other weights unchanged.
    """
    lesson = finetuning()
    maps = lesson.linear_maps(model)
    found = [lesson.quantize(linear.weight.detach().cpu(), bits, group) for linear in maps.values()]
    taken = {f"{name}.weight" for name in maps}
    return {"bits": bits, "group": group,
            "codes": pack(torch.cat([codes.flatten() for codes, _ in found]) + (2 ** (bits - 1) - 1), bits),
            "scales": torch.cat([scale.flatten() for _, scale in found]).half(),
            "rest": {name: weight.cpu() for name, weight in model.state_dict().items() if name not in taken}}


@torch.no_grad()
def unpacked_into(model: nn.Module, state: Mapping[str, Any]) -> nn.Module:
    """The model, in place, with the weights that packed_weights() stored."""
    lesson, bits, group = finetuning(), state["bits"], state["group"]
    maps = [linear.weight for linear in lesson.linear_maps(model).values()]
    codes = unpack(state["codes"], bits, sum(weight.numel() for weight in maps)).to(torch.int16)
    codes = (codes - (2 ** (bits - 1) - 1)).split([weight.numel() for weight in maps])
    counts = [lesson.in_groups(weight, group).shape[:2] for weight in maps]
    scales = state["scales"].split([count.numel() for count in counts])
    for weight, code, scale, count in zip(maps, codes, scales, counts, strict=True):
        weight.copy_(lesson.dequantize(code.view_as(weight), scale.view(count).float(), group))
    model.load_state_dict(state["rest"], strict=False)
    return model


def answer_with_bits(model: nn.Module, bits: int, group: int, path: Path, say: Callable[[str], None]
                     ) -> None:
    """Save the model's weights in `bits` bits at `path`, and load what that file holds into the model.

    Adapters are merged first.
    """
    maps = finetuning().linear_maps(finetuning().merge_adapters(model))
    save_checkpoint(packed_weights(model, bits, group), path)
    state = load_checkpoint(path, dict)
    unpacked_into(model, state)
    before = sum(linear.weight.numel() * 4 for linear in maps.values())
    small = state["codes"].nbytes + state["scales"].nbytes
    rest = sum(weight.nbytes for weight in state["rest"].values())
    rows = {linear.weight.shape[1] for linear in maps.values() if group and linear.weight.shape[1] > group}
    uneven = sorted(row for row in rows if row % group)
    ends = f" A row of {uneven[0]} ends in a group of {uneven[0] % group}." if uneven else ""
    say(f"The {len(maps)} linear maps are kept in {bits} bits, with one scale "
        f"{f'for {group} weights of a row' if group else 'per matrix'}: {small:,} bytes instead of "
        f"{before:,}.{ends} With {rest:,} bytes of other weights, {short_path(path)} has "
        f"{path.stat().st_size:,} bytes. The answers come from this file.")

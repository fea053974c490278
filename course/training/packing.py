"""Packing several sequences into a row: grouping them, laying them out, and checks of positions and masks."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from course.console.options import check_range


def first_fit(lengths: Sequence[int], width: int) -> list[list[int]]:
    """The indices of the sequences in each row, placed longest first, each in the first row with room.

    ValueError if a row is shorter than the longest sequence.
    """
    if (longest := max(lengths, default=0)) > width:
        raise ValueError(f"a row of {width} tokens is shorter than the longest sequence, {longest}")
    rows: list[list[int]] = []
    room: list[int] = []
    for number in sorted(range(len(lengths)), key=lambda number: -lengths[number]):
        row = next((row for row, free in enumerate(room) if lengths[number] <= free), len(rows))
        if row == len(rows):
            rows.append([])
            room.append(width)
        rows[row].append(number)
        room[row] -= lengths[number]
    return rows


def lay(rows: Sequence[Sequence[int]], sequences: Sequence[Sequence[int]], width: int) -> Tensor:
    """(3, R, width): the tokens of the sequences in each row, one after the other; that sequence's number,
    1, 2, …; the position in that sequence. Where a row ends early, all three are 0.
    """
    packed = torch.zeros(3, len(rows), width, dtype=torch.long)
    for row, numbers in enumerate(rows):
        start = 0
        for place, number in enumerate(numbers, 1):
            end = start + len(sequences[number])
            packed[0, row, start:end] = torch.tensor(sequences[number], dtype=torch.long)
            packed[1, row, start:end] = place
            packed[2, row, start:end] = torch.arange(end - start)
            start = end
    return packed


class PackedBatch(NamedTuple):
    """Pairs in packed rows (R, width): a pair has the same row and the same id on both sides."""

    src: Tensor
    src_ids: Tensor
    src_positions: Tensor
    tgt_in: Tensor
    tgt_ids: Tensor
    tgt_positions: Tensor
    tgt_out: Tensor


def pack_batch(batch: Any, width: int) -> PackedBatch:
    """The pairs of a padded batch (src, tgt_in, tgt_out), PAD = 0, packed. ValueError as in first_fit()."""
    source, inputs, outputs = ([[token for token in row if token] for row in part.tolist()] for part in batch)
    rows = first_fit([max(map(len, pair)) for pair in zip(source, inputs)], width)
    src, tgt, out = (lay(rows, part, width) for part in (source, inputs, outputs))
    return PackedBatch(src[0], src[1], src[2], tgt[0], tgt[1], tgt[2], out[0])


def without_separation(packed: PackedBatch) -> dict[str, PackedBatch]:
    """The packed batch unchanged; with positions that continue; with one id for all sequences of a row."""
    on = torch.arange(packed.src.shape[1]).expand_as(packed.src)
    real = {name: (getattr(packed, name) > 0).long() for name in ("src_ids", "tgt_ids")}
    return {"packed": packed, "positions go on": packed._replace(src_positions=on, tgt_positions=on),
            "see each other": packed._replace(**real)}


def padding(lengths: Sequence[int], rows: int) -> float:
    """The fraction of padding in batches of `rows` sequences, each batch as wide as its longest sequence."""
    batches = [lengths[start : start + rows] for start in range(0, len(lengths), rows)]
    return 1 - sum(lengths) / sum(len(batch) * max(batch) for batch in batches)


def refuse_outside(length: int, *positions: Tensor) -> None:
    """ValueError if one of the positions, which are in order, isn't among 0 … length − 1."""
    for some in positions:
        for position in some.flatten()[[0, -1]].tolist() if some.numel() else ():
            check_range("position", position, 0, length - 1)


def fitted(mask: Tensor, shape: Sequence[int]) -> Tensor:
    """The mask, expanded to this shape of the scores; ValueError if it doesn't fit."""
    try:
        return mask.expand(*shape)
    except RuntimeError:
        raise ValueError(f"a mask {tuple(mask.shape)} doesn't fit scores {tuple(shape)}") from None

"""Random digit sequences in disjoint splits: training, validation, test."""

import zlib

import numpy as np

DIGITS = "0123456789"


def split_of(digits: list[int]) -> str:
    """train, validation or test: a checksum of the digits decides, so no run can mix them up."""
    checksum = zlib.crc32(bytes(digits))
    return {0: "test", 1: "validation"}.get(checksum % 10, "train")


def draw_sequences(
    count: int, split: str, seed: tuple[int, ...], lengths: tuple[int, int] = (4, 16)
) -> list[list[int]]:
    """`count` random digit sequences of one split, with uniform lengths; the same for the same seed.

    ValueError for a split that split_of() never returns.
    """
    if split not in ("train", "validation", "test"):
        raise ValueError(f"split is {split!r}; it must be train, validation or test")
    random = np.random.default_rng(seed)
    drawn: list[list[int]] = []
    while len(drawn) < count:
        sizes = random.integers(lengths[0], lengths[1] + 1, size=count).tolist()
        digits = random.integers(0, len(DIGITS), size=(count, lengths[1])).tolist()
        rows = (row[:size] for row, size in zip(digits, sizes, strict=True))
        drawn += [row for row in rows if split_of(row) == split]
    return drawn[:count]

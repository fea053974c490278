"""Batches of sentences of similar length."""

from collections.abc import Iterator, Sequence
from itertools import groupby


def tens(ids: Sequence[int]) -> int:
    """The length in tens, rounded up."""
    return -(-len(ids) // 10)


def similar_length(sources: Sequence[list[int]], size: int) -> Iterator[list[int]]:
    """Batches of at most `size` indices of non-empty sources that have the same length in tens."""
    order = sorted((row for row, source in enumerate(sources) if source), key=lambda row: len(sources[row]))
    for _, group in groupby(order, key=lambda row: tens(sources[row])):
        rows = list(group)
        yield from (rows[start : start + size] for start in range(0, len(rows), size))

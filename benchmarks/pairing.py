"""Two things timed in turns, so that a busy machine slows both alike."""

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple


class Paired(NamedTuple):
    """Median seconds of both, and the median of second / first, pair by pair."""

    first: float
    second: float
    ratio: float


def paired(first: Callable[[], float | None], second: Callable[[], float | None], turns: int = 5) -> Paired:
    """Run both in turns, after one turn to warm up. What a run returns, if anything, are its seconds."""
    pairs = []
    for turn in range(turns + 1):
        pair = []
        for run in (first, second) if turn % 2 else (second, first):
            started = time.perf_counter()
            told = run()
            pair.append(time.perf_counter() - started if told is None else told)
        if turn:
            pairs.append(pair if turn % 2 else pair[::-1])
    times = [statistics.median(column) for column in zip(*pairs)]
    return Paired(*times, statistics.median(second / first for first, second in pairs))

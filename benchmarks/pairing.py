"""Two things timed in turns, so that a busy machine slows both alike."""

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple


class Paired(NamedTuple):
    """Median seconds of both, and the median of second / first, pair by pair."""

    first: float
    second: float
    ratio: float


def paired(first: Callable[[], Any], second: Callable[[], Any], turns: int = 5) -> Paired:
    """Run both in turns, after one turn to warm up. A number that a run returns are its seconds."""
    pairs = []
    for turn in range(turns + 1):
        pair = []
        for run in (first, second) if turn % 2 else (second, first):
            started = time.perf_counter()
            told = run()
            pair.append(told if isinstance(told, float) else time.perf_counter() - started)
        if turn:
            pairs.append(pair if turn % 2 else pair[::-1])
    times = [statistics.median(column) for column in zip(*pairs)]
    return Paired(*times, statistics.median(second / first for first, second in pairs))

"""Shared by the benchmarks: timing two functions in turns, so that a busy machine slows both equally."""

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from course.console.narrator import make_console
from course.console.options import OneLineParser
from course.training.processes import pick_device


class Paired(NamedTuple):
    """Median seconds of both, and the median of second / first, pair by pair."""

    first: float
    second: float
    ratio: float


def paired(first: Callable[[], Any], second: Callable[[], Any], turns: int = 5) -> Paired:
    """Run both in turns, after one run of each to warm up; every other turn begins with the second."""
    first(), second()
    pairs = []
    for turn in range(turns):
        if turn % 2:
            pairs.append((seconds_of(second), seconds_of(first))[::-1])
        else:
            pairs.append((seconds_of(first), seconds_of(second)))
    times = [statistics.median(column) for column in zip(*pairs)]
    return Paired(*times, statistics.median(second / first for first, second in pairs))


def seconds_of(run: Callable[[], Any]) -> float:
    """How long the call takes; if it returns a float, that is its seconds."""
    started = time.perf_counter()
    told = run()
    return told if isinstance(told, float) else time.perf_counter() - started


def benchmark_parser(doc: str) -> OneLineParser:
    """The options of every benchmark; a usage error is one line and exit code 2."""
    parser = OneLineParser(description=doc.partition("\n")[0], allow_abbrev=False)
    parser.add_argument("--quick", action="store_true", help="fewer turns and seeds: fast, rough figures")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (default: auto)")
    return parser


def measure_all(parser: OneLineParser, *measures: Callable) -> None:
    """Call each measure with the device and options from the command line, and show what it returns."""
    options, console = parser.parse_args(), make_console()
    try:
        device = pick_device(options.device)
    except ValueError as error:
        parser.error(str(error))
    for measure in measures:
        console.print(f"\n{measure.__doc__.splitlines()[0]}")
        console.print(measure(device, options))

"""A walkthrough of a lesson's cheap steps: `python cheap_steps.py LESSON SECONDS OPTION …`.

A step that takes more seconds of the processor is ended there and shows and checks nothing; all others, the
console and the page are those of the whole walkthrough.
"""

import runpy
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

COURSE = Path(__file__).parents[1]
ENDED = "left out: it takes too long for this walkthrough"


class OverBudget(KeyboardInterrupt):
    """Passes through whatever lets Ctrl-C pass."""


def end(number: int, frame) -> None:
    """End the step; but a module that is just being imported would be broken, and comes first."""
    while frame:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            signal.setitimer(signal.ITIMER_PROF, 0.1)
            return
        frame = frame.f_back
    raise OverBudget


def cheaply(run_step: Callable, seconds: float, step: Callable, *arguments, **options):
    """run_step(), ended after so many seconds of the processor."""
    try:
        signal.setitimer(signal.ITIMER_PROF, seconds)
        return run_step(step, *arguments, **options)
    except OverBudget:
        torch.set_grad_enabled(True)  # the signal may have come while no_grad() was being left
        return options["begun"]._replace(shown=ENDED)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def main(lesson: str, seconds: str, *options: str) -> None:
    sys.path.insert(0, str(COURSE))
    from course.pages import walkthrough
    from course.training import side_by_side

    signal.signal(signal.SIGPROF, end)
    walkthrough.run_step = partial(cheaply, walkthrough.run_step, float(seconds))
    side_by_side.idle_cores = lambda: 1  # the seconds of other processes would not be counted
    script = COURSE / f"{lesson}.py"
    sys.argv[:] = [str(script), *options]
    runpy.run_path(str(script), run_name="__main__")


if __name__ == "__main__":
    main(*sys.argv[1:])

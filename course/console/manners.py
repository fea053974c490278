"""Process-wide settings of a running lesson, restored at its end: threads, hooks, the style of figures.

A lesson that is only imported changes none of them.
"""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from course.console.startup import in_one_line

import torch

from course.console.source import shown_as_loaded

_running: list[ExitStack] = []  # settings to restore when the lesson ends


@contextmanager
def running(threads: int) -> Iterator[None]:
    """Inside `with`, a lesson's settings apply, with this number of threads."""
    with ExitStack() as stack:
        if sys.excepthook is in_one_line:
            stack.callback(setattr, sys, "excepthook", sys.__excepthook__)
        stack.callback(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(threads)
        logger = logging.getLogger("matplotlib")
        stack.callback(logger.setLevel, logger.level)
        logger.setLevel(logging.ERROR)  # no messages about its font cache
        stack.enter_context(without_display())
        stack.enter_context(shown_as_loaded())
        _running.append(stack)
        stack.callback(_running.remove, stack)
        yield


@contextmanager
def without_display() -> Iterator[None]:
    """Inside `with`, matplotlib needs no display; in a notebook the notebook's backend is kept."""
    before = os.environ.get("MPLBACKEND")
    if "IPython" in sys.modules:
        yield
        return
    os.environ["MPLBACKEND"] = "Agg"  # matplotlib checks it on import, even if nothing uses it
    try:
        yield
    finally:
        del os.environ["MPLBACKEND"]
        os.environ |= {"MPLBACKEND": before} if before is not None else {}


@contextmanager
def until_the_lesson_ends(setting: AbstractContextManager) -> Iterator[None]:
    """Apply `setting` inside `with` or, in a running lesson, until the lesson ends."""
    if _running:
        _running[-1].enter_context(setting)
        yield
    else:
        with setting:
            yield

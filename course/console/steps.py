"""Running a step and recording what it shows."""

import inspect
from collections.abc import Callable
from typing import Any

import torch

from course.console.records import Record, Tested, slug
from course.console.source import codes_of

tested: list[Tested] = []  # by the running step; check() and similar functions in common.py append


def begin_step(step: Callable, number: int = 1) -> Record:
    """The record of a step before it runs; title and prose come from its docstring."""
    title, _, text = (inspect.getdoc(step) or "").partition("\n")
    return Record(number, slug(step.__name__), title, text.strip("\n"), codes_of(getattr(step, "shows", ())))


def run_step(step: Callable, *arguments: Any, seed: int = 0, begun: Record | None = None) -> Record:
    """Seed PyTorch, run the step, and return its record; `begun` is what begin_step() returned."""
    tested.clear()
    torch.manual_seed(seed)
    shown = step(*arguments)
    return (begun or begin_step(step))._replace(shown=shown, tested=list(tested))

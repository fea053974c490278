"""A step runs, and leaves a record."""

import inspect
from collections.abc import Callable
from typing import Any

import torch

from course.console.records import Record, Tested, slug
from course.console.source import codes_of

tested: list[Tested] = []  # since the running step began: check() and its like in common.py add to it


def begin_step(step: Callable, number: int = 1) -> Record:
    """What can be said of a step before it runs: its docstring is title and prose."""
    title, _, text = (inspect.getdoc(step) or "").partition("\n")
    return Record(number, slug(step.__name__), title, text.strip("\n"), codes_of(getattr(step, "shows", ())))


def run_step(step: Callable, *arguments: Any, seed: int = 0, begun: Record | None = None) -> Record:
    """The record of a step that ran just now, after seeding PyTorch; `begun` is what was said before."""
    tested.clear()
    torch.manual_seed(seed)
    shown = step(*arguments)
    return (begun or begin_step(step))._replace(shown=shown, tested=list(tested))

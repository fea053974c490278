"""The process that grades a learner's file: python course/grading/child.py LESSON FILE [RESULTS].

It runs the file, which is code, and tests what the file defines against the checks of the lesson. A file
that replaces something of PyTorch or of the course fails, because the checks compare with both. This guards
against accidents, not against cheating.
"""

import importlib
import json
import math
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

if __name__ == "__main__":  # find our course before a course/ or common.py in the working directory
    sys.path[:1] = [str(Path(__file__).parents[2]), os.getcwd()]

import torch
from torch import nn

from course.console.records import Finding
from course.console.source import COURSE
from course.grading.attempt import Attempt
from course.grading.checking import UNWRITTEN, Check

SECONDS = 10.0  # for one check; a call that never returns to Python gets three seconds more
RUNNING = f"still running after {SECONDS:.0f} s"
BEGIN, END = {"begin": True}, {"end": True}


def main(lesson: str, file: str, results: str = "") -> None:
    """Grade the file by the parts of the lesson; one line per check goes to the results file.

    Without `results`, import the lesson, then read the path of that file from standard input (--watch).
    """
    module = importlib.import_module(lesson)
    if results := results or sys.stdin.readline().rstrip("\n"):
        write_results(module, Path(file), results)


def write_results(module: ModuleType, file: Path, results: str) -> NoReturn:
    """Write a line for every check of every graded part that the file defines, between BEGIN and END."""
    with open(results, "a", encoding="utf-8") as out:

        def write(line: dict) -> None:
            with suppress(AttributeError, OSError, ValueError):  # the file may have closed it
                sys.stdout.flush()  # what the file has printed meanwhile
            out.write(json.dumps(line) + "\n")
            out.flush()

        learned = Attempt(file)
        write(BEGIN)
        before = watched()
        loaded = within(SECONDS, learned.run)
        write({"name": learned.file.name, "statement": "The file runs", "finding": loaded, "left": 0})
        for name, part in module.GRADED.items() if loaded.holds else ():
            if hasattr(learned.module, name):
                for line in graded_lines(name, part(getattr(learned.module, name), module)):
                    write(line)
        if replaced := [name for name, value in watched().items()
                        if before.get(name, value) is not value and not from_pytorch(value)]:
            figure = f"replaced: {', '.join(replaced[:3])}"
            finding = Finding(False, figure, "the checks above compare with them", known=True)
            write({"name": learned.file.name, "statement": UNTOUCHED, "finding": finding, "left": 0})
        write(END)
    os._exit(0)  # not sys.exit: a thread that never ends may be left


def graded_lines(name: str, checks: list[Check], limited: bool = True) -> Iterator[dict]:
    """A line for each check, until one takes too long or the first says that nothing is written yet.

    `left` is how many checks were then not run. Checks have a time limit only if `limited`.
    """
    for number, check in enumerate(checks):
        find = partial(getattr, check, "finding")
        finding = within(SECONDS, find) if limited else find()
        last = finding.figure == RUNNING or (finding.figure == UNWRITTEN and not number)
        left = len(checks) - number - 1 if last else 0
        yield {"name": name, "statement": check.statement, "finding": finding, "left": left}
        if last:
            return


UNTOUCHED = "The file leaves PyTorch and the course as they are"


def from_pytorch(value: Any) -> bool:
    """Whether PyTorch made the value: it wraps its own functions, and an optimiser's step(), on first use."""
    code = getattr(value, "__code__", None)
    made = Path(code.co_filename) if code else Path()
    return Path(torch.__file__).parent in made.parents or str(
        getattr(value, "__module__", "")).startswith("torch.")


def watched() -> dict[str, Any]:
    """What the checks rely on: functions, classes and methods of PyTorch and of the course."""
    rooms = COURSE, COURSE / "checks", *(COURSE / "course").iterdir()  # not packages installed below them
    modules = [torch, nn, nn.functional, math, *(module for module in list(sys.modules.values())
               if Path(getattr(module, "__file__", None) or "/").parent in rooms)]
    found = {"torch.get_default_dtype()": torch.get_default_dtype()}
    for module in modules:
        for name, value in list(vars(module).items()):
            if callable(value):
                found[f"{module.__name__}.{name}"] = value
            if isinstance(value, type) and value.__module__ == module.__name__:
                found |= {f"{name}.{key}": method for key, method in vars(value).items() if callable(method)}
    return found


def within(seconds: float, find: Callable[[], Finding]) -> Finding:
    """What find() returns, unless it takes longer than `seconds`."""
    found: list[Finding] = []

    def answer() -> None:
        try:
            found.append(find())
        except BaseException as error:  # also a KeyboardInterrupt, which only the file can raise here
            found.append(Finding(False, type(error).__name__, "raised by the file itself?"))

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        return Finding(False, RUNNING, "a loop that never ends?")
    return found[0] if found else Finding(False, "it ended without an answer")


if __name__ == "__main__":
    main(*sys.argv[1:])

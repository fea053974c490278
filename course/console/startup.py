"""Imported before everything else, so that errors during a lesson's imports also end in one line.

Later errors are handled by narrate() (course/pages/walkthrough.py). This applies only to a lesson run as a
script: code that imports a lesson, or runs it in a notebook, keeps its own hooks. This module imports only
the standard library, because importing anything else could fail before its hook is set.
"""

import errno
import os
import re
import sys
from pathlib import Path
from types import TracebackType

from course.console.source import COURSE, keep

REQUIREMENTS = ("matplotlib", "numpy", "pygments", "rich", "seaborn", "torch")


def in_one_line(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """The hook for uncaught exceptions: one line for Ctrl-C and for packages that can't be loaded."""
    if kind is KeyboardInterrupt:
        said, code = "interrupted", 130
    elif isinstance(error, ModuleNotFoundError) and error.name in REQUIREMENTS:
        said, code = (f"{error.name} is not installed for {sys.executable}: "
                      "run it as the README says, with .venv/bin/python", 1)
    elif isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        said, code = "out of memory", 1
    elif isinstance(error, ImportError) and "torch" not in sys.modules:
        said, code = f"PyTorch can't be loaded ({error})", 1
    else:
        return sys.__excepthook__(kind, error, trace)
    print(f"{Path(sys.argv[0]).name}: {said}", file=sys.stderr, flush=True)
    os._exit(code)  # a half-imported PyTorch doesn't shut down cleanly


def lesson_that_runs() -> str:
    """The file of the lesson that is run as a script; "" if lessons are only imported."""
    file = getattr(sys.modules["__main__"], "__file__", None) or ""
    is_lesson = re.match(r"\d\d_", Path(file).name) and Path(file).resolve().parent == COURSE.resolve()
    return file if is_lesson else ""


if script := lesson_that_runs():
    keep(script)
    if "IPython" not in sys.modules:  # %run: the hooks are IPython's
        sys.excepthook = in_one_line

"""Imported before all else: what goes wrong while a lesson is still importing ends in one line, too.

From then on narrate() (common.py) sees to it. Standard library only, or it would come too late itself.
"""

import errno
import os
import sys
from pathlib import Path
from types import TracebackType

REQUIREMENTS = ("matplotlib", "numpy", "pygments", "rich", "seaborn", "torch")


def in_one_line(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """The hook for what nobody has caught: a line for Ctrl-C and for packages that can't be loaded."""
    if kind is KeyboardInterrupt:
        said, code = "interrupted", 130
    elif isinstance(error, ModuleNotFoundError) and error.name in REQUIREMENTS:
        said, code = (f"{error.name} is not installed for {sys.executable}: "
                      "run it as the README says, with .venv/bin/python", 1)
    elif isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        said, code = "the memory doesn't suffice", 1
    elif isinstance(error, ImportError) and "torch" not in sys.modules:
        said, code = f"PyTorch can't be loaded ({error})", 1
    else:
        return sys.__excepthook__(kind, error, trace)
    print(f"{Path(sys.argv[0]).name}: {said}", file=sys.stderr, flush=True)
    os._exit(code)  # a half-imported PyTorch is not taken down in order


sys.excepthook = in_one_line

"""Ending the script with one line on standard error."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from course.console.spelling import legible


def stop(message: str, code: int = 1, everywhere: bool = False) -> NoReturn:
    """End the script with one line on standard error; `code` is 2 for wrong usage, otherwise 1.

    If there are several processes, only the first one writes its line, unless `everywhere` is set.
    """
    rank = os.environ.get("RANK", "0")
    heard, process = (sys.__stderr__, f"process {rank}: ") if everywhere and rank != "0" else (sys.stderr, "")
    if heard is not None:  # None if it was closed
        heard.write(f"{Path(sys.argv[0]).name}: {process}{legible(message, heard)}\n")
    sys.exit(code)


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or the kind of the error if it has no message."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def output_lost(error: OSError) -> NoReturn:
    """End the script because it can't write its output; silently if the pipe was closed, as head does."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for anything still written at exit
    if isinstance(error, BrokenPipeError):
        sys.exit(128 + signal.SIGPIPE if hasattr(signal, "SIGPIPE") else 1)
    stop(f"{error.strerror or error}: the output")


@contextmanager
def ended_in_one_line() -> Iterator[None]:
    """Inside `with`, Ctrl-C or a failure to write a file or the output ends the script in one line."""
    try:
        yield
    except KeyboardInterrupt:
        stop("interrupted", code=130)
    except OSError as error:
        if error.filename is None:  # no file of ours, so it is the output
            output_lost(error)
        stop(f"{error.strerror or error}: {error.filename}")

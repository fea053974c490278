"""An interactive prompt: reads lines and prints the answer to each until the input ends."""

import sys
from collections.abc import Callable
from pathlib import Path

from course.console.ending import ended_in_one_line, stop
from course.console.files import prepare_folder
from course.console.spelling import legible


def converse(answer: Callable[[str], str], folder: Path) -> None:
    """Read lines and print the answer to each; an empty line, the end of the input or Ctrl-C ends it.

    A ValueError raised by `answer` is printed as the answer. `answer` writes its files to `folder`. Any other
    failure ends the script with a one-line message.
    """
    with ended_in_one_line():
        try:
            prepare_folder(folder)
            while line := read():
                try:
                    said = answer(line)
                except ValueError as error:
                    said = str(error)
                print(legible(said), flush=True)
        except UnicodeDecodeError as error:
            stop(f"the input is not {error.encoding}: {error.reason}")


def read() -> str:
    """The next line, stripped; "" at the end of the input, without an input, or on Ctrl-C."""
    try:
        return input("> " if sys.stdin and sys.stdin.isatty() else "").strip()
    except (EOFError, RuntimeError, KeyboardInterrupt):
        return ""

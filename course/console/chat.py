"""A conversation: a line in, the answer out, until the input ends."""

import sys
from collections.abc import Callable
from pathlib import Path

from course.console.ending import ended_in_one_line, stop
from course.console.files import prepare_folder
from course.console.spelling import legible


def converse(answer: Callable[[str], str], folder: Path, prompt: str = "> ") -> None:
    """Read lines and print the answer to each; an empty line, the end of the input or Ctrl-C ends it.

    A ValueError of `answer` is printed as the answer. What it writes goes to the folder; anything else that
    fails ends the script in one line.
    """
    with ended_in_one_line():
        try:
            prepare_folder(folder)
            while line := read(prompt):
                try:
                    said = answer(line)
                except ValueError as error:
                    said = str(error)
                print(legible(said), flush=True)
        except UnicodeDecodeError as error:
            stop(f"the input is not {error.encoding}: {error.reason}")


def read(prompt: str) -> str:
    """The next line without the space around it; "" if there is none, or on Ctrl-C."""
    try:
        return input(prompt if sys.stdin.isatty() else "").strip()
    except (EOFError, KeyboardInterrupt):
        return ""

"""One line in, one line out, until the input ends."""

import sys
from collections.abc import Callable


def converse(answer: Callable[[str], str], prompt: str = "> ") -> None:
    """Read lines and print the answer to each; an empty line, the end of the input or Ctrl-C ends it.

    A ValueError of `answer` is printed as the answer.
    """
    while True:
        try:
            line = input(prompt if sys.stdin.isatty() else "").strip()
        except (EOFError, KeyboardInterrupt):
            return
        if not line:
            return
        try:
            print(answer(line))
        except ValueError as error:
            print(error)

"""Converts a dataclass to command-line options and back. The fields declare limits, which are checked."""

import argparse
import math
import sys
from collections.abc import Iterable
from dataclasses import field, fields
from typing import Any, NoReturn

from course.console.ending import output_lost, stop


def option(default: Any, text: str = "", *, least: float | None = None, above: float | None = None,
           below: float | None = None, among: Iterable[str] = (), names: Iterable[str] = ()) -> Any:
    """A field with its default, its limits, and the help text of its command-line option.

    Without a text the field has no option. `names` are further names of the option.
    """
    limits = {"least": least, "above": above, "below": below, "among": tuple(among)}
    return field(default=default, metadata={"help": text, "names": tuple(names), **limits})


def check_limits(config: Any) -> None:
    """Raise a ValueError that names the first field of a dataclass outside its limits, and its value."""
    for setting in fields(config):
        limits, value = setting.metadata, getattr(config, setting.name)
        if limits.get("among") and value not in limits["among"]:
            raise ValueError(f"{setting.name} is {value!r}; it must be one of {', '.join(limits['among'])}")
        wanted = [words for words, fine in (
            (f"at least {limits.get('least')}", limits.get("least") is None or value >= limits["least"]),
            (f"above {limits.get('above')}", limits.get("above") is None or value > limits["above"]),
            (f"below {limits.get('below')}", limits.get("below") is None or value < limits["below"]),
            ("finite", not isinstance(value, float) or math.isfinite(value)),
        ) if not fine]
        if wanted:
            raise ValueError(f"{setting.name} is {value}; it must be {' and '.join(wanted)}")


def add_options(parser: argparse.ArgumentParser, config: type) -> None:
    """Add an option for every field that has a help text."""
    for setting in fields(config):
        text = setting.metadata.get("help")
        names = ["--" + setting.name.replace("_", "-"), *setting.metadata.get("names", ())]
        if text and isinstance(setting.default, bool):
            parser.add_argument(*names, dest=setting.name, action="store_true", help=text)
        elif text:
            parser.add_argument(*names, dest=setting.name, type=type(setting.default),
                                default=setting.default, help=f"{text} (default: {setting.default})")


def chosen(config: type, options: argparse.Namespace) -> Any:
    """The dataclass with the values from the command line."""
    names = [setting.name for setting in fields(config) if hasattr(options, setting.name)]
    return config(**{name: getattr(options, name) for name in names})


def changed_options(config: Any, default: Any) -> list[str]:
    """name=value for every field in which the two differ."""
    return [f"{setting.name}={getattr(config, setting.name)}" for setting in fields(config)
            if getattr(config, setting.name) != getattr(default, setting.name)]


def comparison(text: str, configs: Iterable[type], comparable: Iterable[str]) -> tuple[str, list[Any]]:
    """“n_heads=1,2,4” → ("n_heads", [1, 2, 4]), for the comparable fields of these dataclasses."""
    name, _, values = text.partition("=")
    if name not in comparable or not values:
        raise argparse.ArgumentTypeError(
            f"{text!r}: give NAME=VALUE,VALUE,… with one of {', '.join(comparable)}")
    kinds: dict[str, type] = {setting.name: type(setting.default) for config in configs
                              for setting in fields(config)}
    try:
        return name, [kinds[name](value) for value in values.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from error


def count(text: str) -> int:
    """A whole number above 0."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def threads(text: str) -> int:
    """A number of threads, at most 1,024: a million would crash Python without a message."""
    if count(text) > 1024:
        raise argparse.ArgumentTypeError(f"{text} are more than 1,024 threads")
    return int(text)


def seed(text: str) -> int:
    """The value of --seed, which both PyTorch and NumPy must accept."""
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to 2**32 - 1")
    return int(text)


class OneLineParser(argparse.ArgumentParser):
    """A parser that ends with one line and code 2 for usage errors, and notices if its help gets lost."""

    def print_help(self, file: Any = None) -> None:
        try:
            super().print_help(file)
            if sys.stdout is not None:
                sys.stdout.flush()
        except OSError as error:
            output_lost(error)

    def _print_message(self, message: str, file: Any = None) -> None:
        """Write the message; argparse's own method hides errors."""
        file = file or sys.stderr
        if message and file is not None:
            file.write(message)

    def error(self, message: str) -> NoReturn:
        stop(message, code=2)


def check_range(name: str, value: float, least: float, most: float = math.inf) -> None:
    """Raise a ValueError with name and value if a number is out of range or not finite."""
    if not least <= value <= most or value == math.inf:
        limit = "finite" if most == math.inf else f"at most {most}"
        raise ValueError(f"{name} is {value}; it must be at least {least} and {limit}")


def digits(text: str) -> list[int]:
    """“3 1 4 1” or “3141” → [3, 1, 4, 1]; 4 to 16 digits."""
    given = text.replace(" ", "")
    wrong = [character for character in given if character not in "0123456789"]
    if wrong:
        raise argparse.ArgumentTypeError(f"{wrong[0]!r} in {text!r} is not a digit from 0 to 9")
    if not 4 <= len(given) <= 16:
        raise argparse.ArgumentTypeError(f"{text!r} has {len(given)} digits; the model takes 4 to 16")
    return [int(digit) for digit in given]


def sentence(text: str) -> str:
    """The text without surrounding spaces; it must not be empty."""
    if not text.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is empty: give a sentence")
    return text.strip()

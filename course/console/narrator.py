"""Console output: the narrator prints the record of each step."""

import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, NoReturn

from rich.box import SIMPLE_HEAD, Box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from course.console.ending import stop
from course.console.files import save_figure, short_path
from course.console.records import EndHere, Finding, Leads, Picture, Record, Tested
from course.console.source import broken
from course.console.spelling import legible

WIDTH = 80  # columns of the console text, even in a wider window
LEAST = 20  # columns, whatever COLUMNS says
PLAIN_HEAD = Box("    \n    \n -- \n    \n    \n    \n    \n    \n", ascii=True)


class Printer(Console):
    """rich's console, but a broken pipe raises its error here instead of ending the script."""

    def on_broken_pipe(self) -> NoReturn:
        raise


def make_console() -> Console:
    """The console that all output goes through; rich detects what the terminal can show."""
    console = Printer(markup=False, highlight=False, emoji=False, legacy_windows=False, force_jupyter=False)
    console.width = min(max(console.width, LEAST), WIDTH)
    return console


_listeners: list[Callable[[str], None]] = []  # the last one receives progress in place of the console


@contextmanager
def reporting_to(listener: Callable[[str], None]) -> Iterator[None]:
    """Inside `with`, progress is reported to `listener`; the console shows no bar."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


@contextmanager
def progress_bar(label: str, total: int) -> Iterator[Callable[[int, str], None]]:
    """Inside `with`, report(done, text) moves a bar; without a terminal it prints every tenth of `total`."""
    console, tenth = make_console(), max(1, total // 10)
    if _listeners:

        def tell(done: int, text: str) -> None:
            if done % tenth == 0 or done == total:
                _listeners[-1](f"{label}: {text}")

        yield tell
    elif console.is_terminal:
        text = TextColumn("{task.description}", markup=False)
        columns = BarColumn(12), text, TimeRemainingColumn()
        with Progress(*columns, console=console, refresh_per_second=4) as live:
            task = live.add_task(label, total=total)
            yield lambda done, text: live.update(
                task, completed=done, description=legible(f"{label}: {text}")
            )
    else:

        def report(done: int, text: str) -> None:
            if done % tenth == 0 or done == total:
                console.print(Text(legible(f"{label}: {text}")), soft_wrap=True)

        yield report


class Narrator:
    """Prints records step by step: heading, prose, code, result and checks."""

    theme = "ansi_dark"  # colours of the code

    def __init__(self, outputs: Path, code: bool = True, checks: bool = False,
                 console: Console | None = None):
        self.outputs, self.with_code, self.unfolded = outputs, code, checks
        self.console = console = console or make_console()
        unicode = (console.encoding or "").startswith("utf")
        self.fancy = console.is_terminal and not console.no_color and unicode
        self.failed = self.held = 0
        self.graded: dict[str, list[int]] = {}  # learner's part → checks that hold, all its checks

    def say(self, text: str, style: str = "", indent: int = 0, wrap: bool = True) -> None:
        """Print text; `wrap` breaks long lines between words and keeps the indentation."""
        text = legible(text)
        lines = text.splitlines()
        if wrap:
            lines = textwrap.wrap(text, self.console.width - indent, break_on_hyphens=False)
        for line in lines:
            self.console.print(Text(" " * indent + line, style), soft_wrap=True)

    def heading(self, text: str) -> None:
        self.console.print()
        self.say(text, "bold cyan")
        self.say(("─" if self.fancy else "-") * min(len(legible(text)), self.console.width), "cyan")

    def prose(self, text: str) -> None:
        """Print a docstring: paragraphs are wrapped, indented blocks (formulas) stay as they are."""
        for paragraph in inspect.cleandoc(text).split("\n\n"):
            self.say(paragraph, wrap=not paragraph.startswith("  "))
            self.console.print()

    def code(self, code: str) -> None:
        code = legible("\n".join(broken(line, self.console.width - 2) for line in code.splitlines()))
        text = Syntax("", "python", theme=self.theme, background_color="default").highlight(code)
        for line in text.split(allow_blank=False) if code else ():
            self.console.print(Text("  ").append(line), soft_wrap=True)
        if code:
            self.console.print()

    def flush(self) -> None:
        """Flush everything printed so far."""
        if sys.stdout is not None:
            sys.stdout.flush()

    def hearing_progress(self) -> AbstractContextManager:
        """The context in which a step runs; a console needs nothing extra to show progress."""
        return nullcontext()

    def begin(self, record: Record) -> None:
        """Print what is known before the step runs: heading, prose and code."""
        self.heading(f"{record.number}. {record.title}")
        if record.prose:
            self.prose(record.prose)
        if self.with_code:
            self.code(record.code)

    def end(self, record: Record) -> None:
        """Print what the step showed and what was tested in it."""
        self.show(record.shown)
        for tested in record.tested:
            self.tested(tested)

    def show(self, shown: Any) -> None:
        """Print or save what a step returned: text, a table, a picture, or several of them."""
        if isinstance(shown, Picture):
            shown.figure.suptitle(titled(shown.finding, shown.figure), fontsize=11)
            path = self.outputs / shown.file
            save_figure(shown.figure, path)
            self.say(f"saved {short_path(path)}: {shown.finding}", "magenta")
        elif isinstance(shown, Table):
            shown.box = SIMPLE_HEAD if self.fancy else PLAIN_HEAD
            self.console.print(shown)
        elif isinstance(shown, Leads):
            self.say(f"saved {short_path(self.outputs / shown.file)}: {shown.good_for}", wrap=False)
        elif isinstance(shown, EndHere):
            stop(shown.message, shown.code)
        elif isinstance(shown, str):
            self.say(shown, wrap=False)
        else:
            for number, part in enumerate(shown or ()):
                if number and isinstance(part, Table):
                    self.console.print()
                self.show(part)

    def tested(self, tested: Tested) -> None:
        """Print a claim, or the checks of a part: on one line if all hold, otherwise one by one."""
        holding = sum(finding.holds for _, finding in tested.results)
        self.held, self.failed = self.held + holding, self.failed + len(tested.results) - holding
        count = len(tested.results)
        if tested.part and holding == count and not self.unfolded:
            gaps = [finding.gap for _, finding in tested.results if finding.gap is not None]
            largest = f"largest difference {max(gaps):.0e}" if any(gaps) else "identical"
            self.say(f"✓ {tested.part}: {count} {'check holds' if count == 1 else 'checks hold'}"
                     + (f" ({largest})" if gaps else ""),
                     "green")
            return
        if tested.part:
            self.say(f"{tested.part}:")
        for statement, finding in tested.results:
            self.finding(statement, finding)

    def finding(self, statement: str, finding: Finding) -> None:
        """Print one statement and its result."""
        text = statement.rstrip(".") + (f" ({finding.figure})" if finding.figure else "")
        mark = "✓ " if finding.holds else "✗ FAILED: " if legible("✗") == "✗" else "✗: "
        self.say(mark + text, "green" if finding.holds else "bold red")
        for line in finding.diagnosis.splitlines():
            self.say(line, "red", indent=4)


def titled(finding: str, figure: Any) -> str:
    """The finding broken into the fewest lines that fit the figure's width, all about equally long."""

    def lines(width: int) -> list[str]:
        return textwrap.wrap(finding, width, break_on_hyphens=False)

    widest = int(11 * figure.get_figwidth())
    longest_word = max(map(len, finding.split()), default=1)
    return "\n".join(next((lines(width) for width in range(longest_word, widest)
                           if len(lines(width)) == len(lines(widest))), lines(widest)))

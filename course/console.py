"""The console: what a step leaves is a record, and the narrator prints it."""

import ast
import codecs
import inspect
import os
import re
import signal
import sys
import textwrap
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from rich.box import SIMPLE_HEAD, Box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from course.checking import Finding
from course.keeping import save_figure, short_path

WIDTH = 80  # columns of the console text, also in a wider window
LEAST = 20  # columns, whatever COLUMNS says
PLAIN_HEAD = Box("    \n    \n -- \n    \n    \n    \n    \n    \n", ascii=True)


class Picture(NamedTuple):
    """A figure, the name of its file in the output folder, and the finding that it shows.

    The finding is the figure's title; below a step it stands as its caption.
    """

    file: str
    figure: Any
    finding: str


class Map(NamedTuple):
    """A heatmap's numbers, for a page on which it can be touched; NaN leaves a cell blank."""

    title: str
    rows: Sequence[str]  # what asks
    columns: Sequence[str]  # what answers
    weights: Any  # (T, S)
    top: float  # where the colour scale ends
    asks: str = ""  # what the rows are; else the axis says it
    answers: str = ""


class Slider(NamedTuple):
    """Scores (T, S) of vectors of width d_k, for a page on which their divisor can be moved."""

    scores: Any
    d_k: int


class Grid(Table):
    """A table of texts, on the console in characters that it has; `numeric` columns stand right."""

    def __init__(self, title: str, header: Sequence[str], texts: Sequence[Sequence[str]],
                 numeric: Sequence[bool]):
        super().__init__(title=Text(legible(title)) if title else None, title_justify="left",
                         show_edge=False, pad_edge=False, title_style="italic")
        self.named, self.header, self.texts, self.numeric = title, header, texts, numeric
        for name, right in zip(header, numeric, strict=True):
            self.add_column(Text(legible(name)), justify="right" if right else "left")
        for row in texts:
            self.add_row(*(Text(legible(text)) for text in row))


class Leads(NamedTuple):
    """A file that was written into the folder of the figures, and what it is good for."""

    file: str
    good_for: str


class EndHere(NamedTuple):
    """What a step returns to end the walkthrough after it, with a message and an exit code."""

    message: str
    code: int


class Tested(NamedTuple):
    """What was tested in a step: a claim of its prose, or all the checks of one part."""

    part: str  # empty for a claim of the prose
    results: list[tuple[str, Finding]]  # statement and finding


class Record(NamedTuple):
    """All that a step leaves. What it `shown`, and `tested`, are there once it has run."""

    number: int
    name: str
    title: str
    prose: str
    code: str
    shown: Any = None
    tested: Sequence[Tested] = ()


def stop(message: str, code: int = 1) -> NoReturn:
    """End the script with one line on standard error: code 2 for wrong usage, else 1."""
    if sys.stderr is not None:  # closed
        sys.stderr.write(f"{Path(sys.argv[0]).name}: {legible(message, sys.stderr)}\n")
    sys.exit(code)


def output_lost(error: OSError) -> NoReturn:
    """End the script because what it says can't be written; quietly if its reader left, as head does."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is said at the end
    if isinstance(error, BrokenPipeError):
        sys.exit(128 + signal.SIGPIPE if hasattr(signal, "SIGPIPE") else 1)
    stop(f"{error.strerror or error}: the output")


# ------------------------------------------------------------------ characters that a console may lack


SPELLED = {"√": "sqrt", "·": "*", "×": "x", "→": "->", "←": "<-", "↦": "->", "−": "-", "–": "-"}
SPELLED |= {"—": "--", "≤": "<=", "≥": ">=", "≠": "!=", "≈": "~", "∞": "inf", "∂": "d", "Σ": "sum"}
SPELLED |= {"“": '"', "”": '"', "’": "'", "…": "...", "✓": "ok", "✗": "FAILED", "─": "-", "∈": "in"}
SPELLED |= {"░": ".", "█": "#", "│": "|", "└": "`", "├": "|", "⊤": "^T", "±": "+-", "′": "'"}
SPELLED |= {"‖": "||", "∘": "o", "÷": "/", "°": " degrees", "⁻": "-", "œ": "oe", "Œ": "OE",
            "⌈": "ceil(", "⌉": ")"}


def spell(error: UnicodeError) -> tuple[str, int]:
    """Codec error handler: write a character that the console lacks in ASCII."""
    text = error.object[error.start : error.end]
    return "".join(spell_character(character) for character in text), error.end


def spell_character(character: str) -> str:
    if character in SPELLED:
        return SPELLED[character]
    name = unicodedata.name(character, "")
    if name.startswith("GREEK"):
        return name.split()[-1].lower()
    plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return plain or character.encode("ascii", "backslashreplace").decode()


codecs.register_error("spell", spell)


def legible(text: str, stream=None) -> str:
    """`text` with every character that the console's encoding lacks spelt out: √ becomes sqrt."""
    encoding = getattr(stream or sys.stdout, "encoding", None) or "ascii"
    return text.encode(encoding, "spell").decode(encoding)


# ------------------------------------------------------------------ code


def codes_of(components: Sequence[Any]) -> str:
    """The code of each; methods of the same name have their class above them."""
    names = [component.__name__ for component in components]
    return "\n\n".join(f"# {component.__qualname__}\n" * (names.count(name) > 1) + code_of(component)
                       for name, component in zip(names, components))


def code_of(thing: Callable) -> str:
    """Source code without the docstring and decorators."""
    lines = textwrap.dedent(inspect.getsource(thing)).splitlines()
    node = ast.parse("\n".join(lines)).body[0]
    has_docstring = ast.get_docstring(node) is not None
    head = lines[node.lineno - 1 : node.body[0].lineno - 1]
    body = lines[node.body[0].end_lineno if has_docstring else node.body[0].lineno - 1 :]
    return textwrap.dedent("\n".join(head + body)).strip("\n")


def broken(line: str, width: int) -> str:
    """A line of code, broken between words if it is longer than `width`."""
    indent = " " * (len(line) - len(line.lstrip()) + 8)
    return "\n".join(textwrap.wrap(line, width, subsequent_indent=indent, break_long_words=False)) or line


# ------------------------------------------------------------------ printing


class Printer(Console):
    """rich's console, which leaves it to us what happens when nobody reads on."""

    def on_broken_pipe(self) -> NoReturn:
        raise


def make_console() -> Console:
    """The console that all output goes through; rich finds out what it can show."""
    console = Printer(markup=False, highlight=False, emoji=False, legacy_windows=False)
    console.width = min(max(console.width, LEAST), WIDTH)
    return console


@contextmanager
def progress(label: str, total: int) -> Iterator[Callable[[int, str], None]]:
    """Inside `with`, report(done, text) moves a bar; without a terminal it prints every tenth."""
    console = make_console()
    if console.is_terminal:
        text = TextColumn("{task.description}", markup=False)
        columns = BarColumn(12), text, TimeRemainingColumn()
        with Progress(*columns, console=console, refresh_per_second=4) as live:
            task = live.add_task(label, total=total)
            yield lambda done, text: live.update(
                task, completed=done, description=legible(f"{label}: {text}")
            )
    else:
        tenth = max(1, total // 10)

        def report(done: int, text: str) -> None:
            if done % tenth == 0 or done == total:
                console.print(Text(legible(f"{label}: {text}")), soft_wrap=True)

        yield report


class Narrator:
    """Prints records: heading, prose, code, result and checks of one step after the other."""

    def __init__(self, outputs: Path, code: bool = True, checks: bool = False):
        self.outputs, self.with_code, self.unfolded = outputs, code, checks
        self.console = console = make_console()
        unicode = (console.encoding or "").startswith("utf")
        self.fancy = console.is_terminal and not console.no_color and unicode
        self.failed = self.held = 0
        self.graded: dict[str, list[int]] = {}  # part of the learner's → checks that hold, all its checks

    def say(self, text: str, style: str = "", indent: int = 0, wrap: bool = True) -> None:
        """Print text; `wrap` breaks long lines between words, under the same indentation."""
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
        text = Syntax("", "python", theme="ansi_dark", background_color="default").highlight(code)
        for line in text.split(allow_blank=False) if code else ():
            self.console.print(Text("  ").append(line), soft_wrap=True)
        if code:
            self.console.print()

    def begin(self, record: Record) -> None:
        """Print what can be said before the step runs."""
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
        """Print a claim, or the checks of a part: in one line while all hold, else one by one."""
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
        """Print one statement and what came of it."""
        text = statement.rstrip(".") + (f" ({finding.figure})" if finding.figure else "")
        mark = "✓ " if finding.holds else "✗ FAILED: " if self.fancy else "✗: "
        self.say(mark + text, "green" if finding.holds else "bold red")
        for line in finding.diagnosis.splitlines():
            self.say(line, "red", indent=4)


def titled(finding: str, figure: Any) -> str:
    """The finding broken into as few lines as fit the figure's width, about as long as each other."""

    def lines(width: int) -> list[str]:
        return textwrap.wrap(finding, width, break_on_hyphens=False)

    widest = int(11 * figure.get_figwidth())
    longest_word = max(map(len, finding.split()), default=1)
    return "\n".join(next((lines(width) for width in range(longest_word, widest)
                           if len(lines(width)) == len(lines(widest))), lines(widest)))


def slug(name: str) -> str:
    """A step's name as it is typed: why-the-root."""
    return re.sub(r"^step_", "", name).replace("_", "-")

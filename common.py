"""The plumbing that the lessons share. Nothing in this file is about Transformers.

    lesson                                   another lesson, as a module
    check, prove, agree, check_all, check_caught       statements put to the test
    table, canvas, heatmap, Picture          what a step returns
    lesson_parser, narrate                   the command line, the walkthrough, the exit code
    pick_device, write_atomically, stop      the machine
"""

import argparse
import ast
import codecs
import importlib
import importlib.util
import inspect
import logging
import multiprocessing
import os
import re
import signal
import sys
import tempfile
import textwrap
import threading
import time
import traceback
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO, NamedTuple, NoReturn

import numpy as np
import torch
from rich.box import SIMPLE_HEAD, Box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text
from torch import Tensor, nn

OUTPUTS = Path(__file__).parent / "outputs"
SECONDS_PER_STATEMENT = 10.0  # when a learner's file is graded
WIDTH = 80  # columns of the console text, also in a wider window
PLAIN_HEAD = Box("    \n    \n -- \n    \n    \n    \n    \n    \n", ascii=True)


def lesson(name: str) -> ModuleType:
    """The lesson in the file `name`.py, as a module: its parts are attributes."""
    return importlib.import_module(name)


def stop(message: str, code: int = 1) -> NoReturn:
    """End the script with one line on standard error: code 2 for wrong usage, else 1."""
    sys.stderr.write(f"{Path(sys.argv[0]).name}: {legible(message, sys.stderr)}\n")
    sys.exit(code)


# ------------------------------------------------------------------ statements put to the test


class Finding(NamedTuple):
    """What came of testing a statement; `diagnosis` says what to look at when it fails."""

    holds: bool
    figure: str = ""
    diagnosis: str = ""


class Proof:
    """A statement and the test behind it. The test runs when its finding is first asked for."""

    def __init__(self, statement: str, test: Callable[[], Finding]):
        self.statement, self.test = statement, test
        self.found: Finding | None = None

    @property
    def finding(self) -> Finding:
        if self.found is None:
            self.found = self.run()
        return self.found

    def run(self) -> Finding:
        """Test the statement; an exception is a finding, too."""
        try:
            holds, figure, diagnosis = self.test()
            return Finding(holds, figure, "" if holds else diagnosis)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a learner's code may raise anything, even SystemExit
            frames = traceback.extract_tb(error.__traceback__)
            ours = [frame for frame in frames if "site-packages" not in frame.filename]
            place = (ours or frames)[-1]
            where = f"it happened in line {place.lineno} of {Path(place.filename).name}"
            return Finding(False, f"{type(error).__name__}: {error}", where)


def prove(*claims: Callable[[], Finding]) -> list[Proof]:
    """One proof a claim: the claim's docstring is the statement, what it returns the finding."""
    return [Proof(" ".join(inspect.getdoc(claim).split()), claim) for claim in claims]


def agree(
    actual: Any, expected: Tensor, tolerance: float = 1e-10, mistakes: dict[str, Any] | None = None
) -> Finding:
    """Finding: `actual` differs from `expected` nowhere by more than `tolerance`.

    `mistakes` maps diagnoses to the values that the mistakes in question would have given: the
    first one that `actual` agrees with explains the difference.
    """
    if not isinstance(actual, Tensor):
        return Finding(False, f"a {type(actual).__name__} came back, not a tensor")
    if actual.shape != expected.shape:
        shapes = f"shape {tuple(actual.shape)}, expected {tuple(expected.shape)}"
        return Finding(False, shapes, diagnose(actual, mistakes, tolerance))
    gap = largest_difference(actual, expected)
    holds = gap <= tolerance  # False for NaN
    figure = f"largest difference {gap:.0e}" if gap else "identical"
    return Finding(holds, figure, "" if holds else diagnose(actual, mistakes, tolerance))


def refused(attempt: Callable, *values: object) -> Finding:
    """Finding: a ValueError came, and its message names the values."""
    try:
        attempt()
    except ValueError as error:
        named = all(str(value) in str(error) for value in values)
        return Finding(named, str(error), f"name {' and '.join(map(str, values))} in the message")
    return Finding(False, "nothing was raised", "raise a ValueError")


def diagnose(actual: Tensor, mistakes: dict[str, Any] | None, tolerance: float) -> str:
    """The first diagnosis whose mistaken value `actual` agrees with."""
    for diagnosis, mistaken in (mistakes or {}).items():
        if mistaken.shape == actual.shape and torch.allclose(
            actual.double(), mistaken.double(), rtol=0, atol=tolerance, equal_nan=True
        ):
            return diagnosis
    return ""


def largest_difference(actual: Tensor, expected: Tensor) -> float:
    """max |actual − expected|, computed in float64; 0 for empty tensors."""
    gaps = (actual.detach().double() - expected.detach().double()).abs()
    return gaps.max().item() if gaps.numel() else 0.0


def random_tensors(*shapes: tuple[int, ...], seed: int = 0) -> list[Tensor]:
    """Independent standard normal tensors in float64, always the same."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def gradients(loss: Tensor, inputs: Iterable[Tensor]) -> Tensor:
    """The gradients of `loss` with respect to all inputs, in one flat tensor."""
    return torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(inputs))])


def gradients_agree(ours: nn.Module, theirs: nn.Module, copy: Callable) -> Finding:
    """Finding: after backward() on both, our parameters have the gradients of theirs.

    copy(ours, theirs) copies parameters; here it is given the gradients to copy. `theirs` is used up.
    """
    unused = [name for name, parameter in ours.named_parameters() if parameter.grad is None]
    if unused:
        return Finding(False, f"no gradient for {', '.join(unused)}", "does forward() use it?")
    for parameter in theirs.parameters():
        parameter.data = parameter.grad
    found = [parameter.grad.flatten() for parameter in ours.parameters()]
    expected = [parameter.flatten() for parameter in copy(deepcopy(ours), theirs).parameters()]
    return agree(torch.cat(found), torch.cat(expected))


_recorded: list[Proof] = []  # since the running step began; run_step() empties it


def check(statement: str, holds: bool, figure: object = "") -> None:
    """Record a statement that was tested just now; the console shows it under the step."""
    finding = Finding(bool(holds), str(figure))
    _recorded.append(Proof(statement, lambda: finding))


def check_all(proofs: Iterable[Proof]) -> None:
    """Record all proofs of a component."""
    _recorded.extend(proofs)


def check_caught(mistake: str, proofs: Iterable[Proof], statement: str) -> None:
    """Record that a component broken on purpose fails the proof that begins with `statement`."""
    proof = next(proof for proof in proofs if proof.statement.startswith(statement))
    holds, figure, _ = proof.finding
    check(f"{mistake} is caught: it fails “{proof.statement.rstrip('.')}”", not holds, figure)


def run_step(step: Callable, *arguments: Any, seed: int = 0) -> tuple[Any, list[Proof]]:
    """What the step returned and the proofs that it recorded, after seeding PyTorch."""
    _recorded.clear()
    torch.manual_seed(seed)
    shown = step(*arguments)
    return shown, list(_recorded)


# ------------------------------------------------------------------ what a step returns


class Picture(NamedTuple):
    """A figure and the name of its file in the output folder."""

    file: str
    figure: Any


def table(*header: str, rows: Iterable[Sequence[Any]], title: str = "") -> Table:
    """A console table. Numbers stand right, floats get four digits; text may hold brackets."""
    rows = [tuple(row) for row in rows]
    grid = Table(title=Text(legible(title)) if title else None, title_justify="left")
    grid.show_edge, grid.pad_edge, grid.title_style = False, False, "italic"
    for column, name in enumerate(header):
        numeric = all(isinstance(row[column], int | float) for row in rows)
        grid.add_column(Text(legible(name)), justify="right" if numeric else "left")
    for row in rows:
        grid.add_row(*(Text(legible(cell_text(cell))) for cell in row))
    return grid


def cell_text(value: Any) -> str:
    """A table cell: floats with four significant digits, thousands separated."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def parameters(module: nn.Module) -> int:
    """The number of numbers that the module learns."""
    return sum(parameter.numel() for parameter in module.parameters())


def fitted_exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """p of the best fit values ≈ c · sizesᵖ: the slope in a log-log plot."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def mask_rows(mask: Tensor) -> list[str]:
    """A mask (T, S) as lines of text: 1 where the query may attend to the key."""
    return ["".join(" 1" if seen else " ·" for seen in row) for row in mask]


def shape(tensor: Tensor) -> str:
    """The shape as text: 2 × 3 × 4."""
    return " × ".join(map(str, tensor.shape))


def numbers(values: Iterable[float], digits: int = 2) -> str:
    """The values as text, side by side."""
    return "  ".join(f"{value:.{digits}f}" for value in values)


def canvas(rows: int = 1, columns: int = 1, width: float = 8.0, height: float = 4.0, **options):
    """(figure, axes) of matplotlib, in the course's style. Needs no display."""
    os.environ["MPLBACKEND"] = "Agg"  # matplotlib checks it on import, even if nothing uses it
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # no words about its font cache
    import seaborn
    from matplotlib.figure import Figure

    seaborn.set_theme(style="whitegrid", palette="colorblind", font_scale=0.9)
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, **options)


def heatmap(axes, weights, rows=(), columns=(), title: str = "", numbers: bool = False) -> None:
    """Draw attention weights (T, S) on a colour scale fixed to 0–1, with a token at every tick.

    Queries are the rows, from top to bottom; keys are the columns. NaN leaves a cell blank.
    """
    weights = torch.as_tensor(weights).detach().cpu().float().numpy()
    height, width = weights.shape
    axes.imshow(weights, vmin=0, vmax=1, cmap="Blues")
    axes.set_xticks(range(len(columns)), columns, rotation=0 if max_length(columns) < 4 else 45)
    axes.set_yticks(range(len(rows)), rows)
    axes.set_xticks([x + 0.5 for x in range(width - 1)], minor=True)
    axes.set_yticks([y + 0.5 for y in range(height - 1)], minor=True)
    axes.grid(False)
    axes.grid(which="minor", color="white", linewidth=0.5)
    axes.spines[:].set_visible(False)
    axes.set_title(title)
    for row, column in np.argwhere(~np.isnan(weights)) if numbers else ():
        weight = weights[row, column]
        colour = "white" if weight > 0.5 else "#262626"
        axes.text(column, row, f"{weight:.2f}", ha="center", va="center", color=colour)


def max_length(labels: Iterable[Any]) -> int:
    return max((len(str(label)) for label in labels), default=0)


# ------------------------------------------------------------------ the console


SPELLED = {"√": "sqrt", "·": "*", "×": "x", "→": "->", "←": "<-", "↦": "->", "−": "-", "–": "-"}
SPELLED |= {"—": "--", "≤": "<=", "≥": ">=", "≠": "!=", "≈": "~", "∞": "inf", "∂": "d", "Σ": "sum"}
SPELLED |= {"“": '"', "”": '"', "’": "'", "…": "...", "✓": "ok", "✗": "FAILED", "─": "-", "∈": "in"}
SPELLED |= {"░": ".", "█": "#", "│": "|", "└": "`", "├": "|", "⊤": "^T", "±": "+-", "′": "'"}
SPELLED |= {"‖": "||", "∘": "o", "÷": "/"}


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
    return unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode() or "?"


codecs.register_error("spell", spell)


def legible(text: str, stream=None) -> str:
    """`text` with every character that the console's encoding lacks spelt out: √ becomes sqrt."""
    encoding = getattr(stream or sys.stdout, "encoding", None) or "ascii"
    return text.encode(encoding, "spell").decode(encoding)


def code_of(thing: Callable, signature: bool = True) -> str:
    """Source code without the docstring and decorators; without `signature` only the body."""
    lines = textwrap.dedent(inspect.getsource(thing)).splitlines()
    node = ast.parse("\n".join(lines)).body[0]
    has_docstring = ast.get_docstring(node) is not None
    head = lines[node.lineno - 1 : node.body[0].lineno - 1]
    body = lines[node.body[0].end_lineno if has_docstring else node.body[0].lineno - 1 :]
    kept = head + body if signature else body
    return textwrap.dedent("\n".join(kept)).strip("\n")


def broken(line: str, width: int) -> str:
    """A line of code, broken between words if it is longer than `width`."""
    indent = " " * (len(line) - len(line.lstrip()) + 8)
    return "\n".join(textwrap.wrap(line, width, subsequent_indent=indent, break_long_words=False)) or line


def shows(*components: Callable):
    """Decorate a step: the console shows the code of these components instead of the step's own."""

    def mark(step: Callable) -> Callable:
        step.shows = components
        return step

    return mark


def make_console() -> Console:
    """The console that all output goes through; rich finds out what it can show."""
    console = Console(markup=False, highlight=False, emoji=False, legacy_windows=False)
    console.width = min(console.width, WIDTH)
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


class EndHere(NamedTuple):
    """What a step returns to end the walkthrough after it, with a message and an exit code."""

    message: str
    code: int


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Inside `with`, Ctrl-C or SIGTERM makes interrupted() True; the second time it ends at once."""
    caught: list[int] = []
    before = {}

    def note(number: int, frame: Any) -> None:
        caught.append(number)
        signal.signal(number, signal.SIG_DFL if number != signal.SIGINT else signal.default_int_handler)

    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(caught)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Narrator:
    """Prints a walkthrough: heading, prose, code, result and proofs of one step after the other."""

    def __init__(self, options: argparse.Namespace):
        self.options = options
        self.console = console = make_console()
        unicode = (console.encoding or "").startswith("utf")
        self.fancy = console.is_terminal and not console.no_color and unicode
        self.failed = self.proved = 0

    def say(self, text: str, style: str = "", indent: int = 0, wrap: bool = True) -> None:
        """Print text; `wrap` breaks long lines between words, under the same indentation."""
        text = legible(text)
        width = self.console.width - indent
        for line in textwrap.wrap(text, width) if wrap else text.splitlines():
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

    def code(self, step: Callable) -> None:
        components = getattr(step, "shows", None)
        own = [code_of(step, signature=False)] if components is None else []
        code = "\n\n".join(own or map(code_of, components))
        code = legible("\n".join(broken(line, self.console.width - 2) for line in code.splitlines()))
        text = Syntax("", "python", theme="ansi_dark", background_color="default").highlight(code)
        for line in text.split(allow_blank=False) if code else ():
            self.console.print(Text("  ").append(line), soft_wrap=True)
        if code:
            self.console.print()

    def show(self, shown: Any) -> None:
        """Print or save what a step returned: text, a table, a picture, or several of them."""
        if isinstance(shown, Picture):
            path = self.options.outputs / shown.file
            save_figure(shown.figure, path)
            self.say(f"saved {short_path(path)}", "magenta")
        elif isinstance(shown, Table):
            shown.box = SIMPLE_HEAD if self.fancy else PLAIN_HEAD
            self.console.print(shown)
        elif isinstance(shown, EndHere):
            stop(shown.message, shown.code)
        elif isinstance(shown, str):
            self.say(shown, wrap=False)
        else:
            for number, part in enumerate(shown or ()):
                if number and isinstance(part, Table):
                    self.console.print()
                self.show(part)

    def proof(self, proof: Proof) -> None:
        """Print one proof and count it."""
        holds, figure, diagnosis = proof.finding
        self.proved, self.failed = self.proved + holds, self.failed + (not holds)
        statement = proof.statement.rstrip(".") + (f" ({figure})" if figure else "")
        mark = "✓ " if holds else "✗ FAILED: " if self.fancy else "✗: "
        self.say(mark + statement, "green" if holds else "bold red")
        if diagnosis:
            self.say(diagnosis, "red", indent=4)

    def step(self, number: str, step: Callable, arguments: Sequence[Any]) -> None:
        title, _, text = inspect.getdoc(step).partition("\n")
        self.heading(f"{number}{title}")
        self.prose(text.strip("\n"))
        if self.options.code:
            self.code(step)
        shown, proofs = run_step(step, *arguments, seed=self.options.seed)
        self.show(shown)
        for proof in proofs:
            self.proof(proof)

    def pause(self) -> None:
        """Wait for Enter; go on at once where nobody can press it."""
        try:
            input("\nEnter: next step ")
        except EOFError:
            self.options.pause = False


def step_name(step: Callable) -> str:
    return step.__name__.removeprefix("step_")


def lesson_parser(doc: str, graded: dict[str, Callable] | None = None) -> argparse.ArgumentParser:
    """The options that every lesson accepts; a usage error is one line and exit code 2."""
    parser = OneLineParser(description=doc.strip().splitlines()[0], allow_abbrev=False)
    parser.add_argument("--list", action="store_true", help="list the steps and end")
    parser.add_argument("--step", metavar="NAME", help="run only this step (name or number)")
    parser.add_argument("--pause", action="store_true", help="wait for Enter between steps")
    parser.add_argument("--no-code", dest="code", action="store_false", help="show no source code")
    parser.add_argument("--outputs", type=Path, default=OUTPUTS, metavar="DIR",
                        help="folder for the figures (default: outputs)")
    parser.add_argument("--seed", type=seed, default=0, help="seed of every step (default: 0)")
    if graded:
        names = ", ".join(graded)
        parser.add_argument("--grade", type=Path, metavar="FILE",
                            help=f"run FILE, your own code, and grade what it defines of: {names}")
        parser.add_argument("--template", type=Path, metavar="FILE",
                            help="write the signatures to fill in for --grade, and end")
    parser.set_defaults(graded=graded or {})
    return parser


def seed(text: str) -> int:
    """The number that --seed gives: what both PyTorch and NumPy accept."""
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to 2**32 - 1")
    return int(text)


class OneLineParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        stop(message, code=2)


def narrate(options: argparse.Namespace, doc: str, steps: Sequence[Callable], *arguments: Any):
    """Run a lesson as its options say, and end the script: exit code 1 if a check failed.

    Every step is called with `arguments`. Each starts from the same seed, so that a step run
    alone with --step shows what it shows in the whole walkthrough.
    """
    try:
        if getattr(options, "template", None):
            sys.exit(write_template(options.template, options.graded))
        if getattr(options, "grade", None):
            sys.exit(grade(options))
        narrator = Narrator(options)
        if options.list:
            titles = (inspect.getdoc(step).splitlines()[0] for step in steps)
            rows = zip(range(1, len(steps) + 1), map(step_name, steps), titles)
            narrator.show(table("", "step", "", rows=rows))
            sys.exit()
        chosen = choose_steps(options.step, steps)
        prepare_folder(options.outputs)
        started = time.perf_counter()
        if not options.step:
            narrator.prose(doc)
        for position, step in chosen.items():
            if options.pause and step is not next(iter(chosen.values())):
                narrator.pause()
            narrator.step(f"{position}. ", step, arguments)
        narrator.console.print()
        total = narrator.proved + narrator.failed
        seconds = time.perf_counter() - started
        if total:
            narrator.say(f"{narrator.proved} of {total} checks hold, {seconds:.1f} s", "bold")
        sys.exit(1 if narrator.failed else 0)
    except KeyboardInterrupt:
        stop("interrupted", code=130)
    except BrokenPipeError:  # somebody closed the output, as head does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE if hasattr(signal, "SIGPIPE") else 1)
    except OSError as error:
        stop(f"{error.strerror or error}: {error.filename}")


def choose_steps(name: str | None, steps: Sequence[Callable]) -> dict[int, Callable]:
    """Position and step: all of them, or the one called `name` (or with this number)."""
    numbered = dict(enumerate(steps, 1))
    if name is None:
        return numbered
    wanted = name.replace("-", "_").removeprefix("step_")
    for position, step in numbered.items():
        if wanted in (step_name(step), str(position)):
            return {position: step}
    stop(f"no step {name}; the steps are {', '.join(map(step_name, steps))}", code=2)


# ------------------------------------------------------------------ the machine


def pick_device(name: str = "auto") -> torch.device:
    """The device called `name` (auto, cpu, cuda, mps); ValueError if it isn't there."""
    there = ["cpu"]
    if torch.backends.mps.is_available():
        there.insert(0, "mps")
    if torch.cuda.is_available():
        there.insert(0, "cuda")
    kind = there[0] if name == "auto" else name.partition(":")[0]
    if kind not in there:
        raise ValueError(f"device {name} isn't here; this machine has {', '.join(there)}")
    try:
        return torch.device(there[0] if name == "auto" else name)
    except RuntimeError as error:
        raise ValueError(f"device {name} isn't one that PyTorch knows") from error


def prepare_folder(folder: Path) -> None:
    """Make the folder, and fail now rather than after the work if nothing can be written there."""
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(None, "the output folder is a file", str(folder))
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass


def write_atomically(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Let `write` fill a file beside `path`, then put it in its place: never half a file there."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException as error:
        os.unlink(name)
        if isinstance(error, OSError) and error.filename is None:  # such as “no space left”
            error.filename = str(path)
        raise


def save_figure(figure, path: Path) -> None:
    """Write the figure as PNG; equal figures give equal bytes."""
    write_atomically(
        path, lambda file: figure.savefig(file, format="png", dpi=120, metadata={"Software": None})
    )


def short_path(path: Path) -> str:
    """The path as seen from the working directory, where it lies below it."""
    path, here = path.resolve(), Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


# ------------------------------------------------------------------ the learner's own code


TEMPLATE = '''"""Your own code: replace every NotImplementedError, then grade the file."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn'''


def write_template(file: Path, graded: dict[str, Callable]) -> None:
    """Write the signatures and docstrings of the graded parts; an existing file stays as it is.

    Before them stands what they need: parts of earlier lessons, and classes that the signatures name.
    """
    lines = inspect.getsource(sys.modules["__main__"]).splitlines()
    nodes = ast.parse("\n".join(lines)).body
    wanted = [node for node in nodes if getattr(node, "name", "") in graded]
    parts = [emptied(node, lines) for node in wanted]
    named = words("\n".join(parts)) - {*graded}
    used = words("\n".join("\n".join(lines[node.lineno : node.end_lineno]) for node in wanted))
    bound = [line for line in lines if " = lesson(" in line and line.partition(" ")[0] in used]
    bound += [f'{node.name} = lesson("{Path(sys.argv[0]).stem}").{node.name}'
              for node in nodes if isinstance(node, ast.ClassDef) and node.name in named]
    if "PAD" in used and not any(line.startswith("PAD") for line in bound):
        bound.append("PAD, BOS, EOS = 0, 1, 2")
    if any("lesson(" in line for line in bound):
        bound = ["from common import lesson", "", *bound]
    head = "\n".join([TEMPLATE, "", *bound]).rstrip()
    try:
        with file.open("x", encoding="utf-8") as out:
            out.write("\n\n\n".join([head, *parts]) + "\n")
    except FileExistsError:
        stop(f"{file} exists already and was left as it is", code=2)


def words(code: str) -> set[str]:
    return set(re.findall(r"\w+", code))


def emptied(node: ast.FunctionDef | ast.ClassDef, lines: list[str]) -> str:
    """The definition without its code: signature and docstring, of a class also its methods'."""
    documented = ast.get_docstring(node) is not None
    end = node.body[0].end_lineno if documented else node.body[0].lineno - 1
    kept = lines[node.lineno - 1 : end]
    if isinstance(node, ast.ClassDef):
        methods = [part for part in node.body if isinstance(part, ast.FunctionDef)]
        wanted = [m for m in methods if m.name == "__init__" or ast.get_docstring(m) is not None]
        return "\n\n".join(["\n".join(kept), *(emptied(method, lines) for method in wanted)])
    indent = " " * (node.col_offset + 4)
    return "\n".join([*kept, f'{indent}raise NotImplementedError("{node.name}")'])


def grade(options: argparse.Namespace) -> int:
    """Prove what the learner's file defines under the lesson's names; 0 if all of it holds, else 1.

    The file is code, and grading runs it: in a process of its own, with a time limit a statement.
    """
    if not options.grade.is_file():
        stop(f"no file {options.grade} to grade", code=2)
    narrator = Narrator(options)
    narrator.say(f"Running {options.grade}: it is code, so grade only what you trust.")
    spawn = multiprocessing.get_context("spawn")
    results, sender = spawn.Pipe(duplex=False)
    names = Path(sys.argv[0]).stem, options.grade
    child = spawn.Process(target=grade_in_child, args=(*names, sender), daemon=True)
    sys.stdout.flush()
    child.start()
    sender.close()
    seen = set()
    try:
        while True:
            name, statement, finding = results.recv()
            if name not in seen:
                narrator.heading(name)
            seen.add(name)
            narrator.proof(Proof(statement, lambda finding=finding: finding))
    except EOFError:
        child.join()
    if child.exitcode:
        narrator.say(f"✗ the process ended with code {child.exitcode} before the end", "bold red")
    narrator.console.print()
    missing = [name for name in options.graded if name not in seen]
    if missing:
        narrator.say(f"not in the file: {', '.join(missing)}")
    narrator.say(f"{narrator.proved} of {narrator.proved + narrator.failed} statements hold", "bold")
    return int(bool(narrator.failed or child.exitcode or len(seen) < 2))


def grade_in_child(lesson_name: str, file: Path, results) -> None:
    """Send (name, statement, finding) for every proof of every graded part that the file defines."""
    graded = lesson(lesson_name).GRADED
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)

    def loads() -> Finding:
        """The file runs."""
        spec.loader.exec_module(module)
        return Finding(True)

    def proofs() -> Iterator[tuple[str, Proof]]:
        yield from ((file.name, proof) for proof in prove(loads))
        for name, prove_part in graded.items():
            if hasattr(module, name):
                yield from ((name, proof) for proof in prove_part(getattr(module, name)))

    for name, proof in proofs():
        finding = finding_within(SECONDS_PER_STATEMENT, proof)
        sys.stdout.flush()  # what the file printed meanwhile
        results.send((name, proof.statement, finding))
    os._exit(0)  # not sys.exit: a thread that never ends may be left


def finding_within(seconds: float, proof: Proof) -> Finding:
    """The proof's finding, unless its test takes longer than `seconds`."""
    thread = threading.Thread(target=lambda: proof.finding, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        return Finding(False, f"still running after {seconds:.0f} s", "a loop that never ends?")
    return proof.finding

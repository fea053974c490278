"""What the lessons share: the words in which a step is written. Nothing here is about Transformers.

    lesson                                   another lesson, as a module
    check, check_part, check_mistakes        statements put to the test
    table, Picture, canvas, heatmap          what a step returns
    lesson_parser, narrate                   the command line, the walkthrough, the exit code

The machinery behind it is in course/, what has to hold of each part in checks/, the drawings in figures/.
"""

import argparse
import importlib
import inspect
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table
from torch import Tensor, nn

from course.console.ending import output_lost, stop
from course.console.files import prepare_folder
from course.console.narrator import Narrator
from course.console.options import OneLineParser, seed, threads
from course.console.records import Finding, Grid, Map, Picture, Record, Tested, slug
from course.console.source import codes_of
from course.grading.checking import Part, claims_of
from course.grading.process import grade
from course.grading.template import write_template
from course.grading.watching import watch
from course.pages.lesson_page import Walk, leave
from course.study import progress
from course.study.quiz import Quiz
from course.training.memory import out_of_memory

__all__ = [
    "Picture",
    "canvas",
    "check",
    "check_mistakes",
    "check_part",
    "fitted_exponent",
    "heatmap",
    "lesson",
    "lesson_parser",
    "mask_rows",
    "narrate",
    "numbers",
    "parameters",
    "readable",
    "run_step",
    "shape",
    "shows",
    "table",
]

OUTPUTS = Path(__file__).parent / "outputs"


def lesson(name: str, *parts: str) -> Any:
    """The lesson in the file `name`.py, as a module; with names of parts, a tuple of these parts.

    ImportError if the running script asks for itself: it would silently run twice.
    """
    if Path(sys.argv[0]).stem == name and hasattr(sys.modules["__main__"], "__file__"):
        raise ImportError(f"lesson {name} asks for itself")
    module = importlib.import_module(name)
    return tuple(getattr(module, part) for part in parts) if parts else module


# ------------------------------------------------------------------ statements put to the test


_tested: list[Tested] = []  # since the running step began; run_step() empties it


def check(statement: str, holds: bool, figure: object = "") -> None:
    """Record a claim of the prose that was tested just now; the console shows it under the step."""
    _tested.append(Tested("", [(statement, Finding(bool(holds), str(figure)))]))


def check_part(implementation: Any, part: Part, ours: Any, name: str = "") -> None:
    """Record all checks of a part of the lesson: one line on the console while they hold.

    `ours` is the lesson's module, from whose parts the mistakes are made that explain a failure.
    """
    results = [(check.statement, check.finding) for check in part(implementation, ours)]
    _tested.append(Tested(name or implementation.__name__, results))


def check_mistakes(ours: Any, *parts: Part) -> Table:
    """Record that every mistake of the parts fails the statement that should catch it; a table says which."""
    rows, missed = [], []
    for part in parts:
        for name, _, caught in claims_of(part, ours):
            rows.append((name, caught.statement))
            missed += [name] if caught.holds() else []
    check("each mistake fails the check named", not missed, ", ".join(missed) or f"{len(rows)} mistakes")
    return table("mistake", "the check that it fails", rows=rows)


def shows(*components: Callable):
    """Decorate a step: the console shows the code of these functions, methods or classes."""

    def mark(step: Callable) -> Callable:
        step.shows = components
        return step

    return mark


def begin_step(step: Callable, number: int = 1) -> Record:
    """What can be said of a step before it runs: its docstring is title and prose."""
    title, _, text = inspect.getdoc(step).partition("\n")
    return Record(number, slug(step.__name__), title, text.strip("\n"), codes_of(getattr(step, "shows", ())))


def run_step(step: Callable, *arguments: Any, seed: int = 0, begun: Record | None = None) -> Record:
    """The record of a step that ran just now, after seeding PyTorch; `begun` is what was said before."""
    _tested.clear()
    torch.manual_seed(seed)
    shown = step(*arguments)
    return (begun or begin_step(step))._replace(shown=shown, tested=list(_tested))


# ------------------------------------------------------------------ what a step returns


def table(*header: str, rows: Iterable[Sequence[Any]], title: str = "") -> Table:
    """A console table. Numbers stand right, floats get four digits; text may hold brackets."""
    rows = [tuple(row) for row in rows]
    numeric = [all(isinstance(row[column], int | float) for row in rows) for column in range(len(header))]
    return Grid(title, header, [[cell_text(cell) for cell in row] for row in rows], numeric)


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


def heatmap(axes, weights, rows=(), columns=(), title: str = "", numbers: bool = False, top: float = 1.0
            ) -> None:
    """Draw attention weights (T, S) on a colour scale from 0 to `top`, with a token at every tick.

    Queries are the rows, from top to bottom; keys are the columns. NaN leaves a cell blank.
    """
    weights = torch.as_tensor(weights).detach().cpu().float().numpy()
    height, width = weights.shape
    shown = axes.imshow(weights, vmin=0, vmax=top, cmap="Blues")
    axes.touchable = Map(title, [str(row) for row in rows], [str(column) for column in columns], weights, top)
    longest = max((len(str(label)) for label in columns), default=0)
    axes.set_xticks(range(len(columns)), columns, rotation=0 if longest < 4 else 45)
    axes.set_yticks(range(len(rows)), rows)
    axes.set_xticks([x + 0.5 for x in range(width - 1)], minor=True)
    axes.set_yticks([y + 0.5 for y in range(height - 1)], minor=True)
    axes.grid(False)
    axes.grid(which="minor", color="white", linewidth=0.5)
    axes.spines[:].set_visible(False)
    axes.set_title(title)
    for row, column in np.argwhere(~np.isnan(weights)) if numbers else ():
        weight = weights[row, column]
        axes.text(column, row, f"{weight:.2f}", ha="center", va="center", color=readable(shown, weight))


def readable(shown, value: float) -> str:
    """Black or white, whichever has more contrast with the colour that the image gives to the value.

    The better of the two has a contrast of at least 4.5 : 1 with every colour there is.
    """
    red, green, blue, _ = shown.to_rgba(value)
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
              for part in (red, green, blue)]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "black" if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else "white"


# ------------------------------------------------------------------ the command line and the walkthrough


def lesson_parser(doc: str, graded: dict[str, Part] | None = None) -> argparse.ArgumentParser:
    """The options that every lesson accepts; a usage error is one line and exit code 2."""
    if doc is None:
        stop("python -OO leaves out the texts that are the lesson: run it without -OO")
    parser = OneLineParser(description=doc.strip().splitlines()[0], allow_abbrev=False)
    parser.add_argument("--list", action="store_true", help="list the steps and end")
    parser.add_argument("--step", metavar="NAME", help="run only this step (name or number)")
    parser.add_argument("--pause", action="store_true",
                        help="wait for Enter between steps, and ask a question before some")
    parser.add_argument("--quiz", action="store_true", help="ask this lesson's questions and end")
    parser.add_argument("--no-code", dest="code", action="store_false", help="show no source code")
    parser.add_argument("--checks", action="store_true", help="show the checks of the parts one by one")
    parser.add_argument("--outputs", type=Path, default=OUTPUTS, metavar="DIR",
                        help="folder for the figures (default: outputs)")
    parser.add_argument("--no-page", dest="page", action="store_false", help="write no page to read")
    parser.add_argument("--seed", type=seed, default=0, help="seed of every step (default: 0)")
    parser.add_argument("--threads", type=threads, metavar="N",
                        help="threads of PyTorch (default: 1, for models of this size gain little from more "
                             "and lose much where something else runs; lesson 5: all for d_model ≥ 256)")
    if graded:
        names = ", ".join(graded)
        parser.add_argument("--grade", type=Path, metavar="FILE",
                            help=f"run FILE, your own code, and grade what it defines of: {names}")
        parser.add_argument("--template", type=Path, metavar="FILE",
                            help="write the signatures to fill in for --grade, and end")
        parser.add_argument("--hint", action="store_true",
                            help="with --grade: one more hint for the first statement that fails")
        parser.add_argument("--watch", action="store_true",
                            help="with --grade: grade again whenever FILE is saved")
        parser.add_argument("--guided", action="store_true",
                            help="with --template: the steps, too, as comments")
    parser.set_defaults(graded=graded or {})
    return parser


def narrate(options: argparse.Namespace, doc: str, steps: Sequence[Callable], *arguments: Any):
    """Run a lesson as its options say, and end the script: exit code 1 if a check failed.

    Every step is called with `arguments`. Each starts from the same seed, so that a step run
    alone with --step shows what it shows in the whole walkthrough.
    """
    torch.set_num_threads(options.threads or 1)
    for name, needed in (("hint", "grade"), ("watch", "grade"), ("guided", "template")):
        if getattr(options, name, False) and not getattr(options, needed):
            stop(f"--{name} goes with --{needed} FILE", code=2)
    try:
        narrator = Narrator(options.outputs, options.code, options.checks)
        if getattr(options, "template", None):
            sys.exit(write_template(options.template, options.graded, options.guided))
        if getattr(options, "grade", None):
            note = partial(note_graded, options)
            if options.watch:
                sys.exit(watch(options, narrator, note))
            code = grade(options.grade, options.graded, narrator, options.hint)
            note(narrator)
            sys.exit(code)
        if options.quiz:
            sys.exit(Quiz(Path(sys.argv[0]).stem, options.outputs, narrator).alone())
        if options.list:
            rows = [(record.number, record.name, record.title) for record in map(
                begin_step, steps, range(1, len(steps) + 1))]
            narrator.show(table("", "step", "", rows=rows))
            sys.exit()
        walk(options, narrator, doc, choose_steps(options.step, steps), arguments)
        sys.exit(1 if narrator.failed else 0)
    except KeyboardInterrupt:
        stop("interrupted", code=130)
    except OSError as error:
        if error.filename is None:  # no file of ours, so it is the output
            output_lost(error)
        stop(f"{error.strerror or error}: {error.filename}")
    except (MemoryError, RuntimeError, OverflowError) as error:
        if not out_of_memory(error):
            raise
        stop(f"the memory doesn't suffice ({str(error).strip().partition(chr(10))[0] or 'MemoryError'})")


def walk(options: argparse.Namespace, narrator: Narrator, doc: str, steps: dict[int, Callable],
         arguments: Sequence[Any]) -> None:
    """Run and print the steps, then how many checks hold."""
    prepare_folder(options.outputs)
    started, records, quiz = time.perf_counter(), [], Quiz(Path(sys.argv[0]).stem, options.outputs, narrator)
    if not options.step:
        narrator.prose(doc)
    for number, step in steps.items():
        if options.pause and records:
            pause(options)
        if options.pause:
            quiz.before(slug(step.__name__))
        begun = begin_step(step, number)
        narrator.begin(begun)
        records.append(run_step(step, *arguments, seed=options.seed, begun=begun))
        narrator.end(records[-1])
    narrator.console.print()
    total, seconds = narrator.held + narrator.failed, time.perf_counter() - started
    if total:
        narrator.say(f"{narrator.held} of {total} checks hold, {seconds:.1f} s", "bold")
    ours = sys.modules[next(iter(steps.values())).__module__]
    leave(Walk(ours, doc, records, options.graded, options.seed, seconds, *arguments[:1]), options, narrator)


def note_graded(options: argparse.Namespace, narrator: Narrator) -> None:
    """Note how many checks of each part hold."""
    if found := {name: pair for name, pair in narrator.graded.items() if name in options.graded}:
        progress.note_quietly(options.outputs, Path(sys.argv[0]).stem, narrator, graded=found)


def pause(options: argparse.Namespace) -> None:
    """Wait for Enter; go on at once where nobody can press it."""
    try:
        input("\nEnter: next step ")
    except (EOFError, RuntimeError):  # the end of the input, or none at all
        options.pause = False


def choose_steps(name: str | None, steps: Sequence[Callable]) -> dict[int, Callable]:
    """Number and step: all of them, or the one called `name` (or with this number)."""
    numbered = dict(enumerate(steps, 1))
    if name is None:
        return numbered
    wanted = slug(name).replace("_", "-")
    for number, step in numbered.items():
        if wanted in (slug(step.__name__), str(number)):
            return {number: step}
    stop(f"no step {name}; the steps are {', '.join(slug(step.__name__) for step in steps)}", code=2)


if __name__ == "__main__":
    progress.main()

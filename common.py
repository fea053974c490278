"""The helper functions that steps use. Nothing here is about Transformers.

    lesson                                   another lesson, as a module
    check, check_part, check_mistakes        testing statements
    table, Picture, canvas, heatmap          what a step returns
    lesson_parser, narrate                   the command line, the walkthrough, the exit code
    grade                                    grading your own parts where you write them

The machinery is in course/, the checks of each part are in checks/, and the figures in figures/.
"""

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table
from torch import Tensor

from course.console.manners import until_the_lesson_ends
from course.console.notebook import make_narrator
from course.console.records import Finding, Grid, Map, Picture, Tested
from course.console.source import keep
from course.console.steps import run_step, tested
from course.grading.checking import Part, claims_of
from course.grading.here import grade_here
from course.pages.walkthrough import OUTPUTS, lesson_parser, narrate
from course.study import progress
from course.training.sizing import parameters

__all__ = [
    "Picture",
    "canvas",
    "check",
    "check_mistakes",
    "check_part",
    "fitted_exponent",
    "grade",
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


def lesson(name: str, *parts: str) -> Any:
    """The lesson in the file `name`.py, as a module; with names of parts, a tuple of these parts.

    ImportError if the running script asks for itself, because it would silently run twice. A later lesson may
    ask for it, once the script is in sys.modules under its name.
    """
    running = Path(getattr(sys.modules["__main__"], "__file__", None) or "").stem
    if running == name and name not in sys.modules:
        raise ImportError(f"lesson {name} asks for itself")
    if name not in sys.modules and (found := importlib.util.find_spec(name)):
        keep(found.origin)
    module = importlib.import_module(name)
    return tuple(getattr(module, part) for part in parts) if parts else module


# ------------------------------------------------------------------ testing statements


def check(statement: str, holds: bool, figure: object = "") -> None:
    """Record a claim of the prose that has just been tested; the console shows it under the step."""
    tested.append(Tested("", [(statement, Finding(bool(holds), str(figure)))]))


def check_part(implementation: Any, part: Part, ours: Any) -> None:
    """Record all checks of a part of the lesson: one line on the console if they all hold.

    `ours` is the lesson's module; mistakes that can explain a failure are built from its parts.
    """
    results = [(check.statement, check.finding) for check in part(implementation, ours)]
    tested.append(Tested(implementation.__name__, results))


def check_mistakes(ours: Any, *parts: Part) -> Table:
    """Record that every mistake of the parts fails the statement that should catch it; a table says which."""
    rows, missed = [], []
    for part in parts:
        for name, _, caught in claims_of(part, ours):
            rows.append((name, caught.statement))
            missed += [name] if caught.holds() else []
    count = f"{len(rows)} mistake{'s' if len(rows) > 1 else ''}"
    check("each mistake fails the check named", not missed, ", ".join(missed) or count)
    return table("mistake", "the check that it fails", rows=rows)


def shows(*components: Callable):
    """Decorate a step: the console shows the code of these functions, methods or classes."""

    def mark(step: Callable) -> Callable:
        step.shows = components
        return step

    return mark


# ------------------------------------------------------------------ what a step returns


def table(*header: str, rows: Iterable[Sequence[Any]], title: str = "") -> Table:
    """A console table. Numbers are right-aligned, floats get four digits; text may contain brackets."""
    rows = [tuple(row) for row in rows]
    numeric = [all(isinstance(row[column], int | float) for row in rows) for column in range(len(header))]
    return Grid(title, header, [[cell_text(cell) for cell in row] for row in rows], numeric)


def cell_text(value: Any) -> str:
    """A table cell: floats with four significant digits, thousands separated."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


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
    import seaborn
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with until_the_lesson_ends(rc_context()):
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


# ------------------------------------------------------------------ parts of your own


def grade(name: str, *parts: Any, **named: Any) -> None:
    """Grade your own parts in a notebook or any session, as --grade grades a file.

    `name` is the lesson's name; a part with another name than the lesson's is passed by keyword:
    grade("02_multi_head_attention", MultiHeadAttention=Mine).
    """
    grade_here(name, {part.__name__: part for part in parts} | named, make_narrator(OUTPUTS))


if __name__ == "__main__":
    progress.main()

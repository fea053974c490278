"""The record of a step, and what it can hold besides text: tables, pictures, findings."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from rich.table import Table
from rich.text import Text

from course.console.spelling import legible


class Picture(NamedTuple):
    """A figure, the name of its file in the output folder, and the finding that it shows.

    The finding is the figure's title, and its caption below a step.
    """

    file: str
    figure: Any
    finding: str


class Map(NamedTuple):
    """The numbers of a heatmap that is interactive on a page; NaN leaves a cell blank."""

    title: str
    rows: Sequence[str]  # labels of the queries
    columns: Sequence[str]  # labels of the keys
    weights: Any  # (T, S)
    top: float  # where the colour scale ends
    asks: str = ""  # what the rows are; "" takes the axis label
    answers: str = ""


class Slider(NamedTuple):
    """Scores (T, S) of vectors of width d_k, for a page with a slider for their divisor."""

    scores: Any
    d_k: int


class Grid(Table):
    """A table of texts, printed in characters that the console has; `numeric` columns are right-aligned."""

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
    """A file that was written to the folder of the figures, and what it is for."""

    file: str
    good_for: str


class EndHere(NamedTuple):
    """What a step returns to end the walkthrough after it, with a message and an exit code."""

    message: str
    code: int


class Finding(NamedTuple):
    """The result of testing a statement; `diagnosis` says what to look at when it fails."""

    holds: bool
    figure: str = ""
    diagnosis: str = ""
    gap: float | None = None  # the largest difference, where numbers were compared
    known: bool = False  # whether the diagnosis is the hint of a mistake with exactly these results


class Tested(NamedTuple):
    """What was tested in a step: a claim of its prose, or all the checks of one part."""

    part: str  # empty for a claim of the prose
    results: list[tuple[str, Finding]]  # statement and finding


class Record(NamedTuple):
    """Everything known about a step. `shown` and `tested` are set once it has run."""

    number: int
    name: str
    title: str
    prose: str
    code: str
    shown: Any = None
    tested: Sequence[Tested] = ()


def slug(name: str) -> str:
    """A step's name as typed on the command line: why-the-root."""
    return re.sub(r"^step_", "", name).replace("_", "-")

"""A walkthrough for the tests of pages: something of everything, and markup wherever it could come in."""

import sys
from pathlib import Path

import torch

from common import Picture, canvas, heatmap, table
from course.console.narrator import Narrator
from course.console.records import Finding, Record, Slider, Tested
from course.grading.checking import Part
from course.pages.lesson_page import Walk, write_pages

EVIL = '<b onclick="x">&amp;</b></script><script>alert(1)</script>'


def softmax(scores):
    """A part."""
    return torch.softmax(scores, -1)  # <b>


def it_sums_to_1(softmax, ours):
    """The weights <b>sum</b> to 1."""
    return Finding(True)


def maps(**options):
    """A picture of three heatmaps, and nothing else."""
    figure, axes = canvas(columns=3, width=20, height=12)
    for panel, scale in zip(axes, (1.0, 0.5, 0.25)):
        weights = scale * torch.tensor([[0.0, 1.0, 0.5], [0.25, 0.75, float("nan")]])
        heatmap(panel, weights, ["it", EVIL], ["the", "cat", EVIL], f"panel {scale} {EVIL}", **options)
        panel.set(xlabel="key", ylabel="query")
    return Picture("maps.png", figure, f"Finding {EVIL}")


def slider():
    figure, axes = canvas(width=3, height=2)
    axes.touchable = Slider(10 * torch.randn(4, 5, generator=torch.Generator().manual_seed(0)), 64)
    return Picture("slider.png", figure, "Divided scores")


def evil_walk(*more: Picture) -> Walk:
    """A walkthrough of two steps, one of which fails."""
    prose = f"Prose with {EVIL}, see step 2.\n\n    {EVIL}\n\nThe token."
    first = Record(1, "first", f"A first step {EVIL}", prose,
                   "def f(x):\n    return softmax(x)  # " + EVIL,
                   [table("", EVIL, rows=[("a  b", EVIL), ("c", 1.5)], title=EVIL), EVIL, maps(), *more],
                   [Tested("", [(f"It holds {EVIL}", Finding(True, EVIL))])])
    second = Record(2, "second", "The second", "", "", None, [Tested(f"part {EVIL}", [
        ("It holds", Finding(True)), (f"It fails {EVIL}", Finding(False, EVIL, f"because of {EVIL}"))])])
    return Walk(sys.modules[__name__], f"Try it {EVIL}\n\nA beginning with {EVIL}.", [first, second],
                {"softmax": Part([it_sums_to_1])}, 0, 1.5)


def written(walk: Walk, folder: Path) -> Path:
    """The page of the walk, its pictures beside it."""
    narrator = Narrator(folder)
    for record in walk.records:
        narrator.show(record.shown)
    return write_pages(walk, folder, narrator)

"""Adding a lesson touches four places: the lesson, its checks, its figures, its file in course/study.

A made-up lesson is added to a copy of the course like this, and everything else finds it.
"""

import re
import shutil

import pytest
from conftest import LESSONS, PACKAGES, ROOT, run_script
from reading import assert_sound

NAME = "99_made_up"
FILES = {
    f"{NAME}.py": '''"""Lesson 99. What becomes of the parts?

Doubling is attention's smallest cousin: see lesson 1.
"""

import course.console.startup  # noqa: F401
import sys

import torch
from torch import Tensor

from checks.doubling import double_checks
from common import Picture, check, check_part, lesson, lesson_parser, narrate, shows, table
from figures.doubling import draw_doubled

softmax, causal_mask = lesson("01_attention_mechanism", "softmax", "causal_mask")

__all__ = ["GRADED", "OURS", "double"]


def double(x: Tensor) -> Tensor:
    """Twice x."""
    return 2 * x


@shows(double)
def step_doubling():
    """Doubling

    A number is doubled: the double of x is x + x. Lesson 98 would halve it; step 2 checks it.
    """
    check_part(double, double_checks, OURS)
    check("weights sum to 1 before they are doubled", softmax(torch.ones(3)).sum().item() == 1)
    figure = draw_doubled(double(torch.arange(4.0)))
    return table("x", "doubled", rows=[(1, 2)]), Picture("made_up.png", figure, "Twice as much")


def step_what_next():
    """What now?

    Write it yourself: python 99_made_up.py --template my_doubling.py.
    """


OURS = sys.modules[__name__]
GRADED = {"double": double_checks}


def main():
    narrate(lesson_parser(__doc__, GRADED).parse_args(), __doc__, [step_doubling, step_what_next])


if __name__ == "__main__":
    main()
''',
    "checks/doubling.py": '''"""What must hold for lesson 99's doubling."""

import torch

from course.grading.checking import Mistake, Part, agree


def doubles(double, ours):
    """It doubles every number."""
    return agree(double(torch.arange(3.0)), torch.tensor([0.0, 2.0, 4.0]))


double_checks = Part([doubles], lambda ours: {
    "squared": Mistake("double it, don't square it", lambda x: x**2, "It doubles every number")})
''',
    "figures/doubling.py": '''"""How lesson 99's curve is drawn."""

from common import canvas


def draw_doubled(values):
    figure, axes = canvas(width=4, height=3)
    axes.plot(values)
    axes.set(xlabel="x", ylabel="doubled")
    return figure
''',
    "course/study/lesson_99.py": '''"""What is said about lesson 99."""

from course.study.saying import Answer, Exercise, Question, Term

FILE = "my_doubling.py"
QUESTIONS = (
    Question("twice", "doubling", "What is the double of 3?", (
        Answer("6.", "3 + 3."), Answer("9.", "That is the square.")), 0,
        "weights sum to 1 before they are doubled"),
)
TERMS = (Term("doubling", "doubling", "the double of x is x + x"),)
EXERCISES = {"double": Exercise(1, 5, {"": ("add x to x",)}, {"doubles": ("think of x + x",)})}
''',
}
BEFORE = '''"""Lesson 98. What comes before?"""

import course.console.startup  # noqa: F401
from common import lesson_parser, narrate

__all__ = []


def step_before():
    """Before

    Lesson 99 doubles a number, lesson 3 doesn't.
    """


def step_what_next():
    """What now?"""


def main():
    narrate(lesson_parser(__doc__).parse_args(), __doc__, [step_before, step_what_next])


if __name__ == "__main__":
    main()
'''


@pytest.fixture(scope="module")
def added(tmp_path_factory):
    """A copy of the course with the new lesson, and before it one of a single file that points to it."""
    folder = tmp_path_factory.mktemp("added")
    for script in ROOT.glob("*.py"):
        shutil.copy(script, folder)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    for file, text in {**FILES, "98_before.py": BEFORE}.items():
        assert not (folder / file).exists()
        (folder / file).write_text(text, encoding="utf-8")
    return folder


def run(added, *options, script=NAME, code=0) -> str:
    process = run_script(added / f"{script}.py", *options, "--outputs", str(added / "out"), cwd=added)
    assert (process.returncode, process.stderr) == (code, ""), process.stdout + process.stderr
    return process.stdout


def test_it_runs_and_is_found_by_the_pages_and_by_the_progress(added):
    assert re.search(r"1 +doubling +Doubling", run(added, "--list"))
    assert "2 of 2 checks hold" in run(added)
    run(added, script="98_before")
    outputs = added / "out"
    pages = {path.name: assert_sound(path) for path in outputs.glob("*.html")}
    assert pages.keys() == {f"{NAME}.html", "98_before.html", "index.html", "glossary.html"}
    linked = {name: {link["href"] for link in page.all("a")} for name, page in pages.items()}
    assert f"{NAME}.html" in linked["index.html"]
    assert "99. What becomes of the parts?" in pages["index.html"].text
    assert f"{NAME}.html#doubling" in linked["glossary.html"]
    assert f"{NAME}.html" in linked["98_before.html"]
    assert "index.html#lesson-98" in linked[f"{NAME}.html"]  # its page was not there yet
    assert pages["index.html"].all("li", id="lesson-99")
    assert (outputs / "made_up.png").is_file()
    shown = run(added, script="common")
    assert "99" in shown
    assert "2 of 2" in shown


def test_it_asks_and_grades(added, tmp_path):
    asked = run(added, "--quiz")
    assert "What is the double of 3?" in asked
    file = tmp_path / "my_doubling.py"
    run(added, "--template", str(file), "--guided")
    assert "# 1. add x to x" in file.read_text(encoding="utf-8")
    assert "double: not written yet" in run(added, "--grade", str(file), "--hint", code=1)
    file.write_text("def double(x):\n    return x * x\n", encoding="utf-8")
    said = run(added, "--grade", str(file), "--hint", code=1)
    assert "double it, don't square it" in said
    assert "think of x + x" in said
    file.write_text("def double(x):\n    return x + x\n", encoding="utf-8")
    assert "2 of 2 checks hold" in run(added, "--grade", str(file))
    assert "1 of 1" in run(added, script="common")


def test_the_readme_has_a_row_for_every_lesson():
    """With its number, file and question; a lesson that is added needs one more."""
    rows = re.findall(r"^\| \[(\d\d)\]\((\w+)\.py\)", (ROOT / "README.md").read_text(encoding="utf-8"), re.M)
    assert [stem for _, stem in rows] == LESSONS
    assert all(stem.startswith(f"{number}_") for number, stem in rows)


def test_the_quickstart_has_a_row_for_every_lesson():
    rows = re.findall(r"^\| [\w ]+ \| (\d\d) ", (ROOT / "QUICKSTART.md").read_text(encoding="utf-8"), re.M)
    assert rows == [name[:2] for name in LESSONS]

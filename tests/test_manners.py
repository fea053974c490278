"""What lessons leave alone in a session that imports them, and how they behave in a notebook."""

import os
import re
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT, one_line_error, run_lesson

ATTENTION = "01_attention_mechanism"
posix = pytest.mark.skipif(os.name == "nt", reason="POSIX signals")


def run(*command, **options):
    """The finished process of Python with our folder on its path."""
    return subprocess.run([sys.executable, *command], capture_output=True, encoding="utf-8", timeout=300,
                          env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}, **options)


# one's own script, and an interactive session


OWN = """
import atexit, os, signal, sys
import matplotlib, torch
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run in the background

def surroundings():
    return (sys.excepthook, dict(os.environ), torch.get_num_threads(), dict(matplotlib.rcParams),
            [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)])

before = surroundings()
from common import lesson, run_step
attention = lesson("01_attention_mechanism")
run_step(attention.step_who_asks_whom)  # draws a figure
print(surroundings() == before)
file = open("lines.txt", "w")
file.writelines(f"{number}\\n" for number in range(60))
atexit.register(print, "at exit")
os.kill(os.getpid(), signal.SIGINT)
"""


@posix
def test_an_imported_lesson_changes_nothing_and_ctrl_c_ends_as_ever(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    process = run("own.py", cwd=tmp_path)
    assert process.stdout.splitlines() == ["True", "at exit"]
    assert process.stderr.splitlines()[-1] == "KeyboardInterrupt"
    assert len((tmp_path / "lines.txt").read_text().splitlines()) == 60


@posix
def test_a_session_goes_on_after_ctrl_c_and_too_little_memory():
    typed = ("import os, signal; _ = signal.signal(signal.SIGINT, signal.default_int_handler)\n"
             f"from common import lesson; _ = lesson('{ATTENTION}')\n"
             "os.kill(os.getpid(), signal.SIGINT)\nraise MemoryError\nprint('still', 'here')\n")
    process = run("-i", "-q", input=typed)
    assert "still here" in process.stdout
    assert "KeyboardInterrupt" in process.stderr
    assert "MemoryError" in process.stderr


# a file that is saved while it runs


SAVED = '''"""Lesson 98. A try."""

import course.console.startup
import sys
from pathlib import Path

before = Path(__file__).read_text(encoding="utf-8")
Path(__file__).write_text("# saved\\n" + before, encoding="utf-8")
from common import *

def double(x):
    """Twice."""
    return 2 * x  # shown

class Halves:
    """All."""
    def half(self, x):
        return x / 2  # shown as well

@shows(double)
def step_one():
    """One"""
    Path(__file__).write_text("x = 1\\n" * 20 + "class Halves: pass\\n" * 40, encoding="utf-8")

@shows(double, Halves)
def step_two():
    """Two"""

narrate(lesson_parser(__doc__).parse_args(), __doc__, [step_one, step_two])
'''


def test_a_lesson_shows_the_code_that_was_loaded(course, tmp_path):
    """It is saved again between its first import and its end."""
    folder = tmp_path / "course"
    shutil.copytree(course, folder)
    (folder / "98_try.py").write_text(SAVED, encoding="utf-8")
    process = subprocess.run([sys.executable, "98_try.py", "--no-page"], cwd=folder, capture_output=True,
                             encoding="utf-8", env=os.environ | {"PYTHONIOENCODING": "utf-8"})
    assert process.stderr == ""
    assert process.stdout.count("def double(x):\n      return 2 * x  # shown\n") == 2
    assert "def half(self, x):\n          return x / 2  # shown as well\n" in process.stdout


# notebooks


@pytest.fixture
def notebook(tmp_path):
    """notebook(cells) runs them in a real kernel, in tmp_path; the outputs of each."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel", reason="there is no Jupyter kernel")

    def outputs_of(*cells):
        book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in (
            f"import sys; sys.path.insert(0, {str(ROOT)!r})", *cells)])
        nbclient.NotebookClient(book, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
        return [cell.outputs for cell in book.cells[1:]]

    return outputs_of


SCRIPT = '''"""Lesson 97. A try."""
import torch
from common import *
from course.console.narrator import progress_bar

def step_one():
    """One"""
    figure, axes = canvas()
    axes.plot([1, 2], [3, 1])
    check("two is two", True)
    return "before", Picture("a.png", figure, "It falls <steeply>"), "after"

def step_two():
    """Two"""
    with progress_bar("training", 100) as report:
        for done in range(100):
            report(done, "on the way")
    check("threads", torch.get_num_threads() == 1)

narrate(lesson_parser(__doc__).parse_args(), __doc__, [step_one, step_two])
'''
SURROUNDINGS = """
import os, torch, matplotlib
torch.set_num_threads(2)
now = lambda: (sys.excepthook, dict(os.environ), torch.get_num_threads(), dict(matplotlib.rcParams))
before = now()
"""


def test_a_lesson_in_a_notebook_is_one_output_a_step_with_its_figures(notebook, tmp_path):
    (tmp_path / "try_it.py").write_text(SCRIPT, encoding="utf-8")
    _, steps, same, again, _ = notebook(
        SURROUNDINGS, "%run try_it.py --outputs out", "print(now() == before)",
        "%run try_it.py --outputs out --no-page", "")
    assert [output.output_type for output in steps] == ["display_data"] * 4  # before, two steps, the end
    assert [output.data["text/plain"].split()[:2] for output in steps] == [
        ["Lesson", "97."], ["1.", "One"], ["2.", "Two"], ["2", "of"]]
    html = steps[1].data["text/html"]
    assert html.index("before") < html.index('<img src="data:image/png;base64,iVBOR') < html.index("after")
    assert 'alt="It falls &lt;steeply&gt;"' in html
    assert same[0].text == "True\n"
    assert len(again) == 4


MINE = """
import torch

def softmax(scores, dim=-1):
    return scores.exp() / scores.exp().sum(dim, keepdim=True)

def causal_mask(length, device=None):
    raise KeyError("what length")
"""


@pytest.mark.exhaustive
def test_a_part_in_a_cell_is_graded_in_the_words_of_a_file(notebook, tmp_path):
    (tmp_path / "mine.py").write_text(MINE, encoding="utf-8")
    said = run_lesson(ATTENTION, "--grade", str(tmp_path / "mine.py"), "--outputs", str(tmp_path)).stdout
    (output,) = notebook(MINE.lstrip("\n") + "\nfrom common import grade\n"
                         f"grade({ATTENTION!r}, softmax, causal_mask=causal_mask)")[0]
    words, wanted = (" ".join(re.sub("[-─]{4,}", "", text).split())
                     for text in (output.data["text/plain"], said))
    assert "subtract the largest score before exp()" in words
    assert "it happened in line 7 of the cell" in words
    shared = words.replace("line 7 of the cell", "line 8 of mine.py").partition(" 3 of 6 checks hold")[0]
    assert shared in wanted


def test_grading_here_needs_a_name_of_the_lesson():
    process = run("-c", f"from common import grade; grade({ATTENTION!r}, print)")
    assert re.search("ValueError: print is not a part .* these are: softmax, ", process.stderr)


def test_a_notebook_is_told_how_it_is_graded(tmp_path):
    (tmp_path / "mine.ipynb").write_text("{}")
    said = one_line_error(run_lesson(ATTENTION, "--grade", str(tmp_path / "mine.ipynb")), 2)
    assert f'from common import grade; grade("{ATTENTION}", softmax)' in said

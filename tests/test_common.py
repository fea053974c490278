import io
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import LESSONS, PACKAGES, ROOT, one_line_error, pictures_in, run_lesson

import common
from course.console.narrator import Narrator, make_console, titled
from course.console.records import Finding, Picture
from course.console.spelling import legible, spell_character
from course.console.steps import begin_step
from course.grading.checking import Mistake, Part, agree
from course.pages.walkthrough import walk

ATTENTION = "01_attention_mechanism"
every_lesson = pytest.mark.parametrize("name", LESSONS)


# statements put to the test


SCRIPT = '''"""Lesson 0. A try."""
import torch
from common import check, check_part, lesson_parser, narrate
from course.console.records import Finding
from course.grading.checking import Part, agree
import sys

def same(part, ours):
    """It is the same."""
    return agree(part(torch.ones(1)), torch.ones(1))
def close(part, ours):
    """The numbers are close."""
    return agree(part(torch.ones(1).double()), torch.ones(1).double() + 7e-16)
def known(part, ours):
    """The answer is known."""
    return Finding(part is identity, "", "ask again")
def identity(x):
    return x
def other(x):
    return x
def step_one():
    """One

    Prose.
    """
    check("two is three", 2 == 3, "2")
def step_two():
    """Two
    """
    return "text with [batch, heads]"
def step_good():
    """Good
    """
    check_part(identity, Part([same, close, known]), sys.modules[__name__])
    check_part(identity, Part([known]), sys.modules[__name__])
def step_bad():
    """Bad
    """
    check_part(other, Part([close, known]), sys.modules[__name__])
    check("the step goes on", True)
steps = [step_one, step_two, step_good, step_bad]
narrate(lesson_parser(__doc__).parse_args(), __doc__, steps)
'''


@pytest.fixture
def run_script(tmp_path):
    """Runs the script; the exit code, and what stands under the headings: a list of lines for each step."""
    script = tmp_path / "try_it.py"
    script.write_text(SCRIPT, encoding="utf-8")

    def run(*options):
        process = subprocess.run(
            [sys.executable, script, *options, "--no-page", "--outputs", tmp_path / "out"],
            capture_output=True, encoding="utf-8",
            env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"},
        )
        under = re.split(r"^\d\. .*\n-+\n", process.stdout, flags=re.MULTILINE)[1:]
        return process.returncode, [[line for line in text.splitlines() if line] for text in under]

    return run


def test_a_failed_check_makes_the_lesson_fail(run_script):
    """The checks of a part are one line while they hold, and all shown if one fails."""
    code, (one, two, good, bad) = run_script()
    assert code == 1
    assert one == ["Prose.", "✗ FAILED: two is three (2)"]
    assert two == ["text with [batch, heads]"]
    assert good == ["✓ identity: 3 checks hold (largest difference 7e-16)", "✓ identity: 1 check holds"]
    assert bad[:-1] == ["other:", "✓ The numbers are close (largest difference 7e-16)",
                        "✗ FAILED: The answer is known", "    ask again", "✓ the step goes on"]
    assert bad[-1].startswith("6 of 8 checks hold, ")


@pytest.mark.exhaustive
def test_all_checks_of_a_part_are_shown_if_asked_for(run_script):
    code, ((*lines, total),) = run_script("--step", "good", "--checks")
    assert code == 0
    assert total.startswith("4 of 4 checks hold, ")
    assert lines == ["identity:", "✓ It is the same (identical)",
                     "✓ The numbers are close (largest difference 7e-16)",
                     "✓ The answer is known", "identity:", "✓ The answer is known"]


def test_a_step_without_checks_counts_none(run_script):
    assert run_script("--step", "two") == (0, [["text with [batch, heads]"]])


@pytest.mark.exhaustive
def test_lesson_1_folds_its_checks_and_unfolds_them():
    folded, unfolded = (run_lesson(ATTENTION, "--step", "finished", "--no-page", *more)
                        for more in ([], ["--checks"]))
    parts = common.lesson(ATTENTION).GRADED
    for name in ("attention_weights", "scaled_dot_product_attention"):
        count = len(parts[name].claims)
        assert re.search(rf"^✓ {name}: {count} checks hold \(largest difference \de-\d\d\)$",
                         folded.stdout, re.MULTILINE)
    assert len(re.findall("^✓", folded.stdout, re.MULTILINE)) == 2
    assert len(re.findall("^✓", unfolded.stdout, re.MULTILINE)) == sum(
        len(parts[name].claims) for name in ("attention_weights", "scaled_dot_product_attention"))
    assert folded.stdout.splitlines()[-1].split(",")[0] == unfolded.stdout.splitlines()[-1].split(",")[0]


def doubles(double, ours):
    """It doubles."""
    return agree(double(torch.ones(2)), torch.full((2,), 2.0))


def multiplied(name, factor):
    """A part with one mistake."""
    return Part([doubles], lambda ours: {name: Mistake("", lambda x: factor * x, "It doubles")})


@pytest.mark.parametrize(("factor", "found"), [
    (3, Finding(True, "2 mistakes")), (2, Finding(False, "harmless")),
])
def test_mistakes_are_recorded_as_caught_or_named(factor, found):
    parts = multiplied("tripled", 3), multiplied("harmless", factor)

    def step_mistakes():
        """Mistakes."""
        return common.check_mistakes(None, *parts)

    record = common.run_step(step_mistakes)
    assert record.tested == [("", [("each mistake fails the check named", found)])]
    assert record.shown.row_count == 2


def test_one_mistake_is_counted_as_one():
    def step_mistakes():
        """Mistakes."""
        return common.check_mistakes(None, multiplied("tripled", 3))

    [[_, [(_, found)]]] = common.run_step(step_mistakes).tested
    assert found == Finding(True, "1 mistake")


# steps


def computes(x):
    """Not shown."""
    return x + 1  # shown


@common.shows(computes)
def step_that_shows():
    """A title

    Its prose.

    More.
    """
    common.check("something", True, 3)
    return torch.rand(1).item()


def test_a_step_leaves_a_record_and_starts_from_its_seed():
    begun = begin_step(step_that_shows, 4)
    first, same, other = (common.run_step(step_that_shows, seed=seed, begun=begun) for seed in (1, 1, 2))
    assert first[:5] == (4, "that-shows", "A title", "Its prose.\n\nMore.",
                         "def computes(x):\n    return x + 1  # shown")
    assert first.tested == [("", [("something", Finding(True, "3"))])]
    assert first.shown == same.shown != other.shown


def test_a_walkthrough_reads_the_source_of_a_step_once(monkeypatch, tmp_path):
    read = []
    monkeypatch.setattr("course.console.source.code_of", lambda part: read.append(part) or "")
    options = common.lesson_parser("A try.").parse_args(["--outputs", str(tmp_path)])

    @common.shows(computes)
    def step():
        """A title"""

    walk(options, Narrator(tmp_path), "", {1: step}, ())
    assert read == [computes]


@pytest.mark.parametrize(("options", "said"), [([], 1), (["--pause"], 0), (["--step", "1"], 0)])
def test_questions_are_announced_once(options, said, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("sys.argv", [f"{ATTENTION}.py"])
    monkeypatch.setattr("sys.stdin", io.StringIO())

    def step_masks_hide():
        """A step"""

    def step_what_next():
        """The last"""

    parsed = common.lesson_parser("A try.").parse_args([*options, "--no-page", "--outputs", str(tmp_path)])
    walk(parsed, Narrator(tmp_path), "A try.", {1: step_masks_hide, 2: step_what_next}, ())
    assert capsys.readouterr().out.count("--quiz") == said


def test_a_step_that_names_no_function_shows_no_code():
    def step_silent():
        """Silent."""

    assert common.run_step(step_silent)[2:] == ("Silent.", "", "", None, [])


def test_a_finding_is_title_and_caption_of_its_figure(tmp_path, capsys):
    figure, axes = common.canvas(width=4)
    axes.plot([1, 2], [3, 1])
    finding = "What falls here is more than sixty characters long, so its title is broken"
    Narrator(tmp_path).show((Picture("a.png", figure, finding), "text"))
    (title,) = figure.texts
    assert title.get_text().split() == finding.split()
    assert title.get_window_extent().width <= figure.bbox.width
    assert "\n" in title.get_text()
    said = " ".join(capsys.readouterr().out.split())
    assert f"a.png: {finding} text" in said
    assert pictures_in(tmp_path) == {"a.png": True}


@pytest.mark.parametrize(("finding", "lines"), [
    ("It is short", ["It is short"]),
    ("Post-norm pushes the last blocks harder, and fails at full speed",
     ["Post-norm pushes the last blocks", "harder, and fails at full speed"]),
    ("One word would stand alone on the second line, wouldn't",
     ["One word would stand alone", "on the second line, wouldn't"]),
    (f"A word like {'very' * 9} long",  ["A word like", "very" * 9 + " long"]),
    (" ".join(["three"] * 20), [" ".join(["three"] * count) for count in (7, 7, 6)]),
])
def test_the_lines_of_a_title_are_about_as_long_as_each_other(finding, lines):
    assert titled(finding, SimpleNamespace(get_figwidth=lambda: 4.0)).splitlines() == lines


# the console and the command line


def test_tables_keep_brackets_and_numbers(capsys):
    console = make_console()
    console.print(common.table("[a]", "n", rows=[("[batch, heads]", 12345), ("b", 0.123456)]))
    said = capsys.readouterr().out
    assert "[a]" in said
    assert "[batch, heads]" in said
    assert "12,345" in said
    assert "0.1235" in said


@pytest.mark.parametrize("width", [40, 80])
def test_check_lines_never_break_a_number(width, tmp_path, capsys):
    """At every column that a number can reach: 7e-16 stays 7e-16."""
    narrator = Narrator(tmp_path)
    narrator.console.width = width
    figures = "largest difference 7e-16", "n^-1.52, 3.1e+05", "-12,345.6"
    for length in range(width - 14):
        for figure in figures:
            narrator.finding("x" * length, Finding(False, figure, f"{'y' * length} {figure}"))
            words = capsys.readouterr().out.split()
            wanted = f"✗ FAILED: {'x' * length} ({figure}) {'y' * length} {figure}".split()
            assert [word for word in words if "✗" not in word] == wanted[1:]


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
@pytest.mark.parametrize("folder", [".", *PACKAGES])
def test_any_encoding_can_say_what_a_lesson_says(folder, encoding):
    """All prose, statements and code, where the encoding may lack √, ✓ and α."""
    text = "".join(path.read_text(encoding="utf-8") for path in (ROOT / folder).glob("*.py"))
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    legible(text, stream).encode(encoding)
    if encoding == "ascii":
        lost = {c for c in text if not c.isascii() and spell_character(c) == "?"}
        assert not lost, f"characters that come out as ?: {lost}"


def test_nothing_but_text_when_piped():
    process = run_lesson(ATTENTION, "--step", "by-hand")
    assert process.returncode == 0
    assert "\x1b" not in process.stdout
    assert max(map(len, process.stdout.splitlines())) <= 80


@pytest.mark.exhaustive
@pytest.mark.parametrize("environment", [
    {"NO_COLOR": "1", "COLUMNS": "40"}, {"TERM": "dumb", "PYTHONIOENCODING": "ascii"},
    {"MPLBACKEND": "bogus", "PYTHONIOENCODING": "cp1252"}, {"LC_ALL": "C", "PYTHONUTF8": "0"},
    {"HOME": "/dev/null", "DISPLAY": ""},
])
def test_odd_environments_are_survived(environment, tmp_path):
    process = run_lesson(ATTENTION, "--step", "who-asks-whom", "--outputs", str(tmp_path), **environment)
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    assert pictures_in(tmp_path) == {"attention_weights.png": True}
    assert "\x1b" not in process.stdout


@pytest.mark.exhaustive
@pytest.mark.parametrize("options", ["--list", "--step by-hand", ""])
def test_a_closed_pipe_ends_quietly(options, tmp_path):
    script = f"{sys.executable} {ROOT / ATTENTION}.py {options} --outputs {tmp_path} | head -1"
    process = subprocess.run(script, shell=True, capture_output=True, encoding="utf-8")
    assert process.stderr == ""
    assert len(process.stdout.splitlines()) == 1


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", [ATTENTION, "06_decoding"])  # a figure and a checkpoint
def test_files_that_may_not_grow_end_in_one_line(name, tmp_path):
    """What a full disk or a quota does, in the real script: the first file it can't write ends it."""
    resource = pytest.importorskip("resource")
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (10_000, 10_000))
    process = run_lesson(name, "--outputs", str(tmp_path), preexec_fn=limit)
    assert str(tmp_path) in one_line_error(process, 1)
    assert not list(tmp_path.iterdir())


def test_a_read_only_folder_is_one_line(tmp_path):
    tmp_path.chmod(0o555)
    folder = tmp_path if os.geteuid() else Path("/sys/kernel")  # root may write anywhere but there
    process = run_lesson(ATTENTION, "--outputs", str(folder / "out"))
    assert str(folder / "out") in one_line_error(process, 1)
    assert process.stdout == ""


@every_lesson
def test_list_names_every_step(name):
    process = run_lesson(name, "--list")
    assert process.returncode == 0
    source = (ROOT / f"{name}.py").read_text(encoding="utf-8")
    steps = re.findall(r"^def step_(\w+)\(", source, re.MULTILINE)
    listed = re.findall(r"^ *\d+ +([\w-]+)", process.stdout, re.MULTILINE)
    named = [step.replace("_", "-") for step in steps]
    assert listed
    assert listed == [step for step in named if step in listed]  # defined in the order of the console
    assert all(source.count(f"step_{step}") > 1 for step in steps)


@pytest.mark.parametrize(("options", "said"), [
    (["--step", "nonsense"], "no step nonsense"),
    (["--what"], "--what"),
    (["--seed", "many"], "many"),
    (["--grade", "missing.py"], "missing.py"),
])
def test_wrong_usage_is_one_line(options, said):
    assert said in one_line_error(run_lesson(ATTENTION, *options), 2)


def test_an_output_folder_that_is_a_file_is_one_line(tmp_path):
    file = tmp_path / "out"
    file.write_text("kept")
    process = run_lesson(ATTENTION, "--step", "1", "--outputs", str(file))
    assert str(file) in one_line_error(process, 1)
    assert file.read_text() == "kept"


def test_from_another_folder_the_outputs_go_where_they_are_told(tmp_path):
    process = run_lesson(ATTENTION, "--step", "who-asks-whom", "--outputs", "here", cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    assert pictures_in(tmp_path / "here")


def test_a_heatmap_is_fixed_from_0_to_1_and_labelled():
    _, axes = common.canvas()
    common.heatmap(axes, torch.tensor([[0.2, 0.3]]), ["q"], ["k0", "k1"], "title")
    assert axes.images[0].get_clim() == (0, 1)
    assert [t.get_text() for t in axes.get_xticklabels()] == ["k0", "k1"]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["q"]

"""Templates and grading, through the real scripts."""

import inspect
import json
import os
import re
import signal
import subprocess
import sys
import time
import typing
from contextlib import suppress

import pytest
from conftest import LESSONS, ROOT, one_line_error, run_lesson

import common
from course.console.narrator import Narrator
from course.grading.report import Report, hints_for
from course.study.lessons import number_of, study_of
from course.study.saying import NO_EXERCISE

ATTENTION = "01_attention_mechanism"
posix = pytest.mark.skipif(os.name == "nt", reason="process groups and signals")
GRADED = [name for name in LESSONS if common.lesson(name).GRADED]


def grade(file, text, name=ATTENTION, *more, **options):
    """The finished grading of a file with this text, with `more` options."""
    file.write_text(text, encoding="utf-8")
    return run_lesson(name, "--grade", str(file), *more, **options)


def text_of_class(file, name):
    """The text of a class in a file."""
    text = file.read_text(encoding="utf-8")
    return re.search(rf"^class {name}\b.*?(?=\n\n\n)", text, re.DOTALL | re.MULTILINE)[0]


def words_of(process):
    return " ".join(process.stdout.split())


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", GRADED)
def test_templates_run_and_are_unsolved(name, tmp_path):
    file, parts = tmp_path / "mine.py", common.lesson(name).GRADED
    assert run_lesson(name, "--template", str(file), "--guided").returncode == 0
    text = file.read_text(encoding="utf-8")
    for part, checks in parts.items():
        assert re.search(rf"^(def|class) {part}\b", text, re.MULTILINE), part
        assert checks.needs in text.replace("\n# ", " ")
        for steps in study_of(number_of(name)).exercises[part].guide.values():
            assert "".join(f"# {number}. {step}\n" for number, step in enumerate(steps, 1)) in re.sub(
                "^ +", "", text, flags=re.MULTILINE).replace("\n#    ", " ")
    graded = run_lesson(name, "--grade", str(file))
    assert graded.returncode == 1
    assert "✓ The file runs" in graded.stdout
    assert [line.partition(" (")[0] for line in graded.stdout.splitlines() if "not written yet" in line] == [
        f"{part}: not written yet" for part in parts]
    total = 1 + sum(len(part.claims) for part in parts.values())
    assert f"1 of {total} checks hold" in graded.stdout  # and nothing else is said
    assert "✗" not in graded.stdout
    assert "Traceback" not in graded.stdout + graded.stderr


@pytest.mark.parametrize("name", GRADED)
def test_a_template_is_narrow_and_knows_every_name_of_its_signatures(name, tmp_path):
    """Also what its annotations name, which Python doesn't ask for here."""
    file = tmp_path / "mine.py"
    process = run_lesson(name, "--template", str(file), "--guided")
    text = file.read_text(encoding="utf-8")
    assert max(map(len, text.splitlines())) <= 100
    module = {}
    exec(compile(text, str(file), "exec"), module)
    parts = [module[part] for part in common.lesson(name).GRADED]
    methods = [method for part in parts if isinstance(part, type) for method in vars(part).values()
               if inspect.isfunction(method) and method.__module__ == module.get("__name__")]
    for function in [part for part in parts if inspect.isfunction(part)] + methods:
        typing.get_type_hints(function, module)
    assert f"Wrote {file}. Fill in a part, then: python {name}.py --grade {file}" in words_of(process)
    guides = {part: said.guide for part, said in study_of(number_of(name)).exercises.items()}
    without = ", ".join(part for part in common.lesson(name).GRADED if not guides[part])
    assert ("There are no guided steps for" in process.stdout) == bool(without)
    assert without.split(", ")[0] in words_of(process).partition("no guided steps")[2]


def test_a_template_has_what_is_needed_and_steps_only_if_asked(tmp_path):
    file, name = tmp_path / "mine.py", "02_multi_head_attention"
    assert run_lesson(name, "--template", str(file)).returncode == 0
    text = file.read_text(encoding="utf-8")
    assert re.findall(r"def (\w+)", text) == ["__init__", "forward", "weights"]  # not split(), not merge()
    assert "# 1. " not in text
    assert study_of(number_of(name)).exercises["MultiHeadAttention"].guide["forward"]


def test_a_template_says_where_to_begin_and_that_there_are_steps(tmp_path):
    said = [words_of(run_lesson("04_transformer_block", "--template", str(tmp_path / name), *guided))
            for name, guided in (("plain.py", []), ("guided.py", ["--guided"]))]
    minutes = {part: exercise.minutes for part, exercise in study_of(4).exercises.items()}
    first = min(minutes, key=minutes.get)
    for text in said:
        assert f"The shortest of the {len(minutes)} parts is {first}: about {minutes[first]} minutes." in text
    assert ["With --guided the template has the steps" in text for text in said] == [True, False]


def test_a_template_writes_out_the_methods_that_are_given(tmp_path):
    """With the six that it asks for, the rest of Value is right."""
    file, ours = tmp_path / "mine.py", common.lesson("00_foundations")
    assert run_lesson("00_foundations", "--template", str(file)).returncode == 0
    module = {}
    exec(compile(file.read_text(encoding="utf-8"), str(file), "exec"), module)
    mine, asked = module["Value"], ["__init__", "__add__", "__mul__", "__matmul__", "tanh", "backward"]
    assert re.findall(r'NotImplementedError\("(\w+)"\)', text_of_class(file, "Value")) == asked
    for name in [*asked, "history", "receive"]:
        setattr(mine, name, vars(ours.Value)[name])
    assert [check.statement for check in ours.GRADED["Value"](mine, ours) if not check.finding.holds] == []


@pytest.mark.parametrize(("option", "needed"), [("--hint", "--grade FILE"), ("--guided", "--template FILE")])
def test_options_that_go_with_another_say_so(option, needed):
    assert f"{option} goes with {needed}" in one_line_error(run_lesson(ATTENTION, option), 2)


def test_a_template_never_overwrites(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("kept")
    assert "already exists" in one_line_error(run_lesson(ATTENTION, "--template", str(file)), 2)
    assert file.read_text() == "kept"


QUICK = ATTENTION, "05_mini_transformer", "10_architectures"  # the others with --all


@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.exhaustive)
                                  for name in GRADED])
def test_our_own_components_get_full_marks(name, tmp_path):
    """From a working directory whose files have the names of ours, too."""
    (tmp_path / "course").mkdir()
    for shadow in ("common.py", "course/__init__.py"):
        (tmp_path / shadow).write_text("raise ImportError('not this one')")
    lines = [f"{part} = lesson({name!r}).{part}" for part in common.lesson(name).GRADED]
    text = "\n".join(["from common import lesson", *lines])
    process = grade(tmp_path / "mine.py", text, name, cwd=tmp_path)
    assert process.returncode == 0, process.stdout + process.stderr
    held, total = re.search(r"(\d+) of (\d+) checks hold", process.stdout).groups()
    assert held == total
    assert int(total) == 1 + sum(len(part.claims) for part in common.lesson(name).GRADED.values())
    assert "not in the file" not in process.stdout


WRONG = """
import math, os, time, torch
print("printed on the way")

def softmax(scores, dim=-1):
    return scores.exp() / scores.exp().sum(dim, keepdim=True)

def attention_weights(query, key, mask=None):
    if mask is not None:
        raise KeyError("what mask")
    return torch.softmax(query @ key.transpose(-2, -1), -1)

def scaled_dot_product_attention(query, key, value):
    return attention_weights(query, key) @ value

def causal_mask(length):
    raise NotImplementedError("causal_mask")

def padding_mask(tokens, pad_id=0):
    while tokens is None:
        pass
"""
TOTAL = 1 + sum(len(part.claims) for part in common.lesson(ATTENTION).GRADED.values())


def test_wrong_attempts_get_a_diagnosis_a_hint_and_what_follows_is_folded(tmp_path):
    file = tmp_path / "mine.py"
    process = grade(file, WRONG, ATTENTION, "--hint")
    assert process.returncode == 1
    said = words_of(process)
    first, second, third = [*study_of(1).exercises["softmax"].hints.values()][2]
    for text in (
        "printed on the way",
        "✓ It equals torch.softmax",
        f"subtract the largest score before exp() hint 1 of 3: {first} ✗ FAILED: A row",  # the first alone
        "0/0 in a hidden row: make its weights 0",  # has an explanation of its own
        "✓ Scores in the thousands don't overflow in float32 (identical) ✗ and 3 more, which probably",
        "causal_mask: not written yet",
    ):
        assert text in said, process.stdout
    assert said.count("hint ") == said.count("not written yet") == 1
    assert said.count("not divided") == 2  # once for each part
    assert "✗ and 8 more, which probably follow" in said
    assert "KeyError" not in said  # folded
    assert "before the end" not in said
    assert f" of {TOTAL} checks hold" in said

    process = grade(file, WRONG, ATTENTION, "--hint", "--checks")
    said = words_of(process)
    assert f"hint 1 of 3: {first} hint 2 of 3: {second}" in said
    assert "hint 3 of 3" not in said
    assert "which probably follow" not in said
    assert "KeyError: 'what mask') it happened in line 10 of mine.py: raise KeyError(\"what mask\")" in said
    assert f" of {TOTAL} checks hold" in said
    for _ in range(2):
        process = run_lesson(ATTENTION, "--grade", str(file), "--hint")
        assert f"hint 2 of 3: {second} hint 3 of 3: {third}" in words_of(process)
        assert process.stderr == ""
    assert json.loads((tmp_path / "mine.py.hints").read_text()) == {
        "softmax: Rows around 1,000, 0 and −1,000 (float32), and 100 and −100 (float16), neither "
        "overflow nor vanish": 3}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.py", "mine.py.hints"]


@pytest.mark.exhaustive
def test_a_loop_that_never_ends_is_ended_and_the_other_parts_are_graded(tmp_path):
    process = grade(tmp_path / "mine.py", WRONG.replace("while tokens is None", "while tokens is not None"))
    assert process.returncode == 1
    said = words_of(process)
    assert "still running after 10 s) a loop that never ends? the other check of this part was not" in said
    assert said.count("still running") == 1
    assert "✓ It equals torch.softmax" in said
    assert f" of {TOTAL} checks hold" in said


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff", b'{"softmax: It sums": -1}', b'{"a": true}'])
def test_only_counts_are_read(content, tmp_path, capsys):
    report = Report(Narrator(tmp_path), {}, tmp_path / "mine.py")
    assert report.revealed() == {}
    assert capsys.readouterr().out == ""
    report.remember({"softmax: √": 2})
    assert report.revealed() == {"softmax: √": 2}
    (tmp_path / "mine.py.hints").write_bytes(content)
    assert report.revealed() == {}
    assert "it holds something else" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("content", [None, "{"])
def test_hints_that_cannot_be_read_or_kept_are_a_line(content, tmp_path):
    """None: a folder stands there."""
    record = tmp_path / "mine.py.hints"
    record.mkdir() if content is None else record.write_text(content)
    text = "def softmax(scores, dim=-1):\n    raise NotImplementedError\n"
    process = grade(tmp_path / "mine.py", text, ATTENTION, "--hint")
    assert process.returncode == 1
    said = words_of(process)
    assert "can't be read" in said
    assert ("can't be written" in said) == (content is None)
    assert "softmax: not written yet begin with: The weights sum to 1 along the chosen dimension" in said
    assert f"hint 1 of 3: {study_of(1).exercises['softmax'].hints['sums_to_one'][0]}" in said
    assert "Traceback" not in process.stdout + process.stderr


def test_hints_where_a_claim_has_none_and_where_no_part_fails(tmp_path):
    """The part's purpose, and how it is called; a file that doesn't run needs none."""
    four = common.lesson("04_transformer_block")
    first, *_, last = hints_for(four.GRADED["gelu"].claims[0], "gelu", NO_EXERCISE, four.gelu)
    assert first == " ".join(four.gelu.__doc__.split("\n\n")[0].split())
    assert last == "it is called as gelu(x)"
    said = words_of(grade(tmp_path / "mine.py", "gelu = ", "04_transformer_block", "--hint"))
    assert "no hint for a file that does not run" in said


def test_names_that_the_checks_use_are_told_once(tmp_path):
    text = """
from torch import nn

class MultiHeadAttention(nn.Module):
    def __init__(self, d_model, n_heads, dropout=0.0):
        super().__init__()
    def forward(self, query, key, value, mask=None, cache=None):
        return query
"""
    process = grade(tmp_path / "mine.py", text, "02_multi_head_attention", "--checks")
    assert process.returncode == 1
    needs = common.lesson("02_multi_head_attention").GRADED["MultiHeadAttention"].needs
    assert "project_query" in needs
    assert words_of(process).count(needs) == 1
    assert "it happened in line" not in process.stdout


@pytest.mark.parametrize(("text", "said"), [
    ("import nothing_like_this", "ModuleNotFoundError"),
    ("\ndef softmax(:",
     "SyntaxError: invalid syntax (mine.py, line 2))\n    def softmax(:\n                ^\n"),
    ("import os; os.abort()", "✗ the process ended with code"),
    *(pytest.param(*case, marks=pytest.mark.exhaustive) for case in (
        ("import math\nmath.nothing", "line 2 of mine.py: math.nothing"),
        ("import sys; sys.exit(0)", "✗ FAILED: The file runs (SystemExit: 0)"),
        ("print('hello')", "hello"))),
])
def test_files_that_do_not_even_run(tmp_path, text, said):
    process = grade(tmp_path / "mine.py", text)
    assert process.returncode == 1
    assert said in process.stdout
    assert re.search("not (graded|in the file): softmax", process.stdout)
    assert "Traceback" not in process.stderr


def test_a_graded_file_is_a_module_and_a_command_of_its_own(tmp_path):
    """It has the name of a module that is there already, and finds itself under another."""
    file = tmp_path / "numbers.py"
    process = grade(file, f"""
from __future__ import annotations
import argparse, sys, typing
from dataclasses import dataclass
from common import lesson

@dataclass
class Inner:
    x: int

@dataclass
class Outer:
    inner: Inner

assert typing.get_type_hints(Outer) == {{"inner": Inner}}
assert sys.argv == [__file__] == [{str(file)!r}]
argparse.ArgumentParser().parse_args()
softmax = lesson({ATTENTION!r}).softmax
""")
    assert process.returncode == 0, process.stdout


@pytest.mark.exhaustive
def test_a_process_that_ends_in_the_middle_is_no_pass(tmp_path):
    """Everything before holds, and its exit code is 0."""
    process = grade(tmp_path / "mine.py", f"""
import os
from common import lesson
softmax = lesson({ATTENTION!r}).softmax
def causal_mask(length):
    os._exit(0)
""")
    assert process.returncode == 1
    assert "✗ the process ended with code 0 before the end" in process.stdout
    assert "6 of 6 checks hold" in process.stdout
    assert "not graded: attention_weights, scaled_dot_product_attention, causal_mask" in process.stdout


# whatever happens, nothing is left running


def alive(process_id):
    """Whether the process runs; one that has ended and was not yet collected doesn't."""
    state = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(process_id)], capture_output=True, encoding="utf-8").stdout.strip()
    return bool(state) and not state.startswith("Z")


@pytest.fixture
def noted(tmp_path):
    """A folder with a file for each process that was started, called by its id; none is left afterwards."""
    folder = tmp_path / "ids"
    folder.mkdir()
    yield folder
    for path in folder.iterdir():
        with suppress(ProcessLookupError):
            os.kill(int(path.name), signal.SIGKILL)


def all_gone(folder):
    """Whether the processes that noted their ids in the folder have ended; they get a few seconds for it."""
    ids = [int(path.name) for path in folder.iterdir()]
    assert len(ids) == 2, "the file has not started"
    for _ in range(50):
        if not any(map(alive, ids)):
            return True
        time.sleep(0.1)
    return False


LINGERING = """
import os, pathlib, subprocess, sys, time
nowhere = subprocess.DEVNULL
code = "import time; time.sleep(300)"
helper = subprocess.Popen([sys.executable, "-c", code], stdout=nowhere, stderr=nowhere)
for number in (os.getpid(), helper.pid):
    (pathlib.Path({folder!r}) / str(number)).touch()
{then}
"""


@pytest.mark.exhaustive
@posix
@pytest.mark.parametrize(("then", "said"), [
    ("time.sleep(1000)", "still running after 10 s"),
    ("sum(range(10**15))", "✗ the process gave no answer in time and was ended"),  # gives no thread a turn
    ("x = 1", "1 of 1 checks hold"),
])
def test_what_hangs_is_ended_in_time_with_all_that_it_started(then, said, noted, tmp_path):
    started = time.monotonic()
    process = grade(tmp_path / "mine.py", LINGERING.format(folder=str(noted), then=then))
    assert process.returncode == 1
    assert said in process.stdout
    assert time.monotonic() - started < 60  # 13, and starting Python twice
    assert all_gone(noted)
    assert "Traceback" not in process.stderr


@pytest.mark.exhaustive
@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ending_the_parent_leaves_no_child(number, noted, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(LINGERING.format(folder=str(noted), then="time.sleep(1000)"))
    parent = subprocess.Popen(
        [sys.executable, str(ROOT / f"{ATTENTION}.py"), "--grade", str(file)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8", start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored in background jobs
    )
    for _ in range(600):
        if len(list(noted.iterdir())) == 2:
            break
        time.sleep(0.1)
    os.kill(parent.pid, number)
    _, error = parent.communicate(timeout=30)
    assert parent.returncode == 128 + number
    assert all_gone(noted)
    assert "Traceback" not in error

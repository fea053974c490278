"""Templates and grading, through the real scripts."""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest
from conftest import LESSONS, ROOT, one_line_error, run_lesson

import common

ATTENTION = "01_attention_mechanism"
posix = pytest.mark.skipif(os.name == "nt", reason="process groups and signals")


def grade(file, text, name=ATTENTION, **options):
    """The finished grading of a file with this text."""
    file.write_text(text, encoding="utf-8")
    return run_lesson(name, "--grade", str(file), **options)


@pytest.mark.parametrize("name", LESSONS)
def test_templates_run_and_are_unsolved(name, tmp_path):
    file = tmp_path / "mine.py"
    assert run_lesson(name, "--template", str(file)).returncode == 0
    text = file.read_text(encoding="utf-8")
    for part, checks in common.lesson(name).GRADED.items():
        assert re.search(rf"^(def|class) {part}\b", text, re.MULTILINE), part
        assert checks.needs in text.replace("\n# ", " ")
    graded = run_lesson(name, "--grade", str(file))
    assert graded.returncode == 1
    assert "✓ The file runs" in graded.stdout
    assert "NotImplementedError" in graded.stdout
    assert "before the end" not in graded.stdout
    assert "Traceback" not in graded.stdout + graded.stderr


def test_a_template_never_overwrites(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("kept")
    assert "exists already" in one_line_error(run_lesson(ATTENTION, "--template", str(file)), 2)
    assert file.read_text() == "kept"


@pytest.mark.parametrize("name", LESSONS)
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
    return softmax(query @ key.transpose(-2, -1))

def scaled_dot_product_attention(query, key, value, mask=None, dropout=0.0):
    return attention_weights(query, key, mask) @ value

def causal_mask(length):
    while True:
        pass

def padding_mask(tokens, pad_id=0):
    return (tokens == pad_id)[:, None, None, :]
"""


def test_wrong_attempts_get_the_diagnosis_and_the_rest_is_still_graded(tmp_path):
    process = grade(tmp_path / "mine.py", WRONG)
    assert process.returncode == 1
    said = " ".join(process.stdout.split())
    for words in (
        "printed on the way",
        "subtract the largest score before exp()",
        "not divided by √d_k",
        "KeyError: 'what mask'",
        "it happened in line 10 of mine.py",
        "still running after 10 s",
        "it is reversed: True means may attend",
    ):
        assert words in said, process.stdout
    assert "before the end" not in said


def test_names_that_the_checks_use_are_told(tmp_path):
    text = """
from torch import nn

class MultiHeadAttention(nn.Module):
    def __init__(self, d_model, n_heads, dropout=0.0):
        super().__init__()
    def forward(self, query, key, value, mask=None, cache=None):
        return query
"""
    process = grade(tmp_path / "mine.py", text, "02_multi_head_attention")
    assert process.returncode == 1
    needs = common.lesson("02_multi_head_attention").GRADED["MultiHeadAttention"].needs
    assert "project_query" in needs
    assert needs in " ".join(process.stdout.split())
    assert "it happened in line" not in process.stdout


@pytest.mark.parametrize(("text", "said"), [
    ("import nothing_like_this", "ModuleNotFoundError"),
    ("def softmax(:", "SyntaxError: invalid syntax (mine.py, line 1)"),
    ("import os; os.abort()", "✗ the process ended with code"),
    ("import sys; sys.exit(0)", "✗: The file runs (SystemExit: 0)"),
    ("print('hello')", "hello"),
])
def test_files_that_do_not_even_run(tmp_path, text, said):
    process = grade(tmp_path / "mine.py", text)
    assert process.returncode == 1
    assert said in process.stdout
    assert "not in the file: softmax" in process.stdout
    assert "Traceback" not in process.stderr


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
    assert "5 of 5 checks hold" in process.stdout
    assert "not in the file: attention_weights, scaled_dot_product_attention, causal_mask" in process.stdout


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


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ending_the_parent_leaves_no_child(number, noted, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(LINGERING.format(folder=str(noted), then="time.sleep(1000)"))
    parent = subprocess.Popen(
        [sys.executable, str(ROOT / f"{ATTENTION}.py"), "--grade", str(file)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8", start_new_session=True,
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

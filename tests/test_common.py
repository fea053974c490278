import ast
import io
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from conftest import LESSONS, ROOT, one_line_error, pictures_in, run_lesson

import common

ATTENTION = "01_attention_mechanism"


# the shape of the repository


def tree_of(name):
    return ast.parse((ROOT / f"{name}.py").read_text(encoding="utf-8"))


def bound_names(name):
    """(own name, lesson, its name) for every NAME = lesson("…").NAME at the top of a lesson."""
    for node in tree_of(name).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Attribute):
            call = node.value.value
            if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "lesson":
                yield node.targets[0].id, call.args[0].value, node.value.attr


@pytest.mark.parametrize("name", LESSONS)
def test_lessons_bind_only_lower_lessons_and_only_what_those_offer(name):
    for own, other, attribute in bound_names(name):
        assert own == attribute
        assert other < name
        assert attribute in common.lesson(other).__all__


@pytest.mark.parametrize("name", LESSONS)
def test_every_lesson_has_the_same_shape(name):
    module = common.lesson(name)
    assert module.__doc__.startswith(f"Lesson {int(name[:2])}. ")
    assert all(hasattr(module, exported) for exported in module.__all__)
    assert list(module.__all__) == sorted(module.__all__, key=lambda n: (not n.isupper(), n[0].islower(), n))
    assert callable(module.main)
    calls = [n for n in ast.walk(tree_of(name)) if isinstance(n, ast.Call)]
    assert not [c for c in calls if getattr(c.func, "id", "") == "print"]


def test_importing_every_lesson_is_silent_and_leaves_nothing(tmp_path):
    names = ", ".join(f"lesson({name!r})" for name in LESSONS)
    code = f"import torch; s = torch.get_rng_state(); from common import lesson; {names}; " \
           "assert torch.equal(s, torch.get_rng_state())"
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, encoding="utf-8",
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert (process.returncode, process.stdout, process.stderr) == (0, "", "")
    assert not list(tmp_path.iterdir())


# statements put to the test


def test_agree_notices_differences_shapes_types_and_nan():
    zeros = torch.zeros(2, 3)
    assert common.agree(zeros, zeros).holds
    assert not common.agree(zeros + 1e-6, zeros).holds
    assert common.agree(zeros + 1e-6, zeros, 1e-5).holds
    assert not common.agree(zeros * float("nan"), zeros).holds
    assert "(3, 2)" in common.agree(zeros.T, zeros).figure
    assert "NoneType" in common.agree(None, zeros).figure
    finding = common.agree(zeros + 2, zeros, mistakes={"off by one": zeros + 1, "off by two": zeros + 2})
    assert finding.diagnosis == "off by two"


def test_refused_wants_a_value_error_with_the_values():
    def refuse(message):
        raise ValueError(message)

    assert common.refused(lambda: refuse("30 and 4"), 30, 4).holds
    assert not common.refused(lambda: refuse("no"), 30).holds
    assert not common.refused(lambda: None).holds


def test_a_proof_that_raises_says_what_and_where():
    def crashes():
        """It crashes."""
        raise SystemExit("bye")

    (proof,) = common.prove(crashes)
    assert not proof.finding.holds
    assert "SystemExit: bye" in proof.finding.figure
    assert "test_common.py" in proof.finding.diagnosis


def test_a_failed_check_makes_the_lesson_fail(tmp_path):
    script = tmp_path / "try_it.py"
    script.write_text(
        '"""Lesson 0. A try."""\n'
        "from common import check, lesson_parser, narrate\n"
        "def step_one():\n    '''One\n\n    Prose.\n    '''\n    check('two is three', 2 == 3, '2')\n"
        "def step_two():\n    '''Two\n    '''\n    return 'text with [batch, heads]'\n"
        "narrate(lesson_parser(__doc__).parse_args(), __doc__, [step_one, step_two])\n"
    )

    def run(*options):
        return subprocess.run(
            [sys.executable, script, *options, "--outputs", tmp_path / "out"], capture_output=True,
            encoding="utf-8", env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"},
        )

    process = run()
    assert process.returncode == 1
    assert "✗: two is three (2)" in process.stdout
    assert "0 of 1 checks hold" in process.stdout
    assert "[batch, heads]" in process.stdout
    assert run("--step", "two").returncode == 0


# the console and the command line


def test_tables_keep_brackets_and_numbers(capsys):
    console = common.make_console()
    console.print(common.table("[a]", "n", rows=[("[batch, heads]", 12345), ("b", 0.123456)]))
    said = capsys.readouterr().out
    assert "[a]" in said
    assert "[batch, heads]" in said
    assert "12,345" in said
    assert "0.1235" in said


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
@pytest.mark.parametrize("name", LESSONS)
def test_any_encoding_can_say_what_a_lesson_says(name, encoding):
    """All its prose and code, where the encoding may lack √, ✓ and α."""
    text = (ROOT / f"{name}.py").read_text(encoding="utf-8")
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    common.legible(text, stream).encode(encoding)
    if encoding == "ascii":
        lost = {c for c in text if not c.isascii() and common.spell_character(c) == "?"}
        assert not lost, f"characters that come out as ?: {lost}"


def test_nothing_but_text_when_piped():
    process = run_lesson(ATTENTION, "--step", "by-hand")
    assert process.returncode == 0
    assert "\x1b" not in process.stdout
    assert max(map(len, process.stdout.splitlines())) <= 80


@pytest.mark.parametrize("environment", [
    {"NO_COLOR": "1", "COLUMNS": "40"}, {"TERM": "dumb", "PYTHONIOENCODING": "ascii"},
    {"MPLBACKEND": "bogus", "PYTHONIOENCODING": "cp1252"}, {"LC_ALL": "C", "PYTHONUTF8": "0"},
    {"HOME": "/dev/null", "DISPLAY": ""},
])
def test_odd_environments_are_survived(environment, tmp_path):
    process = run_lesson(ATTENTION, "--step", "other_scores", "--outputs", str(tmp_path), **environment)
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    assert pictures_in(tmp_path) == {"attention_scores.png": True}
    assert "\x1b" not in process.stdout


@pytest.mark.parametrize("options", ["--list", "--step by-hand", ""])
def test_a_closed_pipe_ends_quietly(options, tmp_path):
    script = f"{sys.executable} {ROOT / ATTENTION}.py {options} --outputs {tmp_path} | head -1"
    process = subprocess.run(script, shell=True, capture_output=True, encoding="utf-8")
    assert process.stderr == ""
    assert len(process.stdout.splitlines()) == 1


def test_a_full_disk_is_one_line_and_leaves_no_half_file(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    path = tmp_path / "file"
    with pytest.raises(OSError, match="No space") as caught:
        common.write_atomically(path, full)
    assert caught.value.filename == str(path)
    assert not list(tmp_path.iterdir())


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


@pytest.mark.parametrize("name", LESSONS)
def test_list_names_every_step(name):
    process = run_lesson(name, "--list")
    assert process.returncode == 0
    source = (ROOT / f"{name}.py").read_text(encoding="utf-8")
    steps = re.findall(r"^        step_(\w+),", source, re.MULTILINE)
    assert steps
    assert all(step in process.stdout for step in steps)


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
    process = run_lesson(ATTENTION, "--step", "other_scores", "--outputs", "here", cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    assert pictures_in(tmp_path / "here")


# files


def test_writing_is_all_or_nothing(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def fail(file):
        file.write(b"half")
        raise OSError(28, "disk full")

    with pytest.raises(OSError, match="disk full"):
        common.write_atomically(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    common.write_atomically(path, lambda file: file.write(b"new"))
    assert path.read_text() == "new"


def test_equal_figures_give_equal_bytes(tmp_path):
    for name in ("a.png", "b.png"):
        figure, axes = common.canvas()
        common.heatmap(axes, torch.eye(2), "ab", "cd", "title")
        common.save_figure(figure, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_heatmap_is_fixed_from_0_to_1_and_labelled():
    _, axes = common.canvas()
    common.heatmap(axes, torch.tensor([[0.2, 0.3]]), ["q"], ["k0", "k1"], "title")
    assert axes.images[0].get_clim() == (0, 1)
    assert [t.get_text() for t in axes.get_xticklabels()] == ["k0", "k1"]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["q"]


def test_devices():
    assert common.pick_device("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match=r"tpu.*cpu"):
        common.pick_device("tpu")
    with pytest.raises(ValueError, match="cpu:x"):
        common.pick_device("cpu:x")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="cuda"):
            common.pick_device("cuda")


# grading


@pytest.mark.parametrize("name", LESSONS)
def test_templates_run_and_are_unsolved(name, tmp_path):
    file = tmp_path / "mine.py"
    assert run_lesson(name, "--template", str(file)).returncode == 0
    text = file.read_text(encoding="utf-8")
    for part in common.lesson(name).GRADED:
        assert re.search(rf"^(def|class) {part}\b", text, re.MULTILINE), part
    graded = run_lesson(name, "--grade", str(file))
    assert graded.returncode == 1
    assert "✓ The file runs" in graded.stdout
    assert "NotImplementedError" in graded.stdout
    assert "Traceback" not in graded.stdout + graded.stderr


def test_a_template_never_overwrites(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("kept")
    assert "exists already" in one_line_error(run_lesson(ATTENTION, "--template", str(file)), 2)
    assert file.read_text() == "kept"


@pytest.mark.parametrize("name", LESSONS)
def test_our_own_components_get_full_marks(name, tmp_path):
    file = tmp_path / "mine.py"
    parts = common.lesson(name).GRADED
    lines = [f"{part} = lesson({name!r}).{part}" for part in parts]
    head = f"import sys\nsys.path.insert(0, {str(ROOT)!r})\nfrom common import lesson\n"
    file.write_text(head + "\n".join(lines))
    process = run_lesson(name, "--grade", str(file))
    assert process.returncode == 0, process.stdout + process.stderr


WRONG = """
import math, os, time, torch

def softmax(scores, dim=-1):
    return scores.exp() / scores.exp().sum(dim, keepdim=True)

def scaled_dot_product_attention(query, key, value, mask=None, dropout=0.0):
    if mask is not None:
        raise KeyError("what mask")
    weights = torch.softmax(query @ key.transpose(-2, -1), -1)
    return weights @ value, weights

def causal_mask(length):
    while True:
        pass

def padding_mask(tokens, pad_id=0):
    return (tokens == pad_id)[:, None, None, :]
"""


def test_wrong_attempts_get_the_diagnosis_and_the_rest_is_still_graded(tmp_path, monkeypatch):
    file = tmp_path / "mine.py"
    file.write_text(WRONG)
    process = run_lesson(ATTENTION, "--grade", str(file))
    assert process.returncode == 1
    said = " ".join(process.stdout.split())
    for hint in (
        "subtract the largest score before exp()",
        "not divided by √d_k",
        "KeyError: 'what mask'",
        "still running after 10 s",
        "it is reversed: True means may attend",
    ):
        assert hint in said, process.stdout


@pytest.mark.parametrize(("text", "said"), [
    ("import nothing_like_this", "ModuleNotFoundError"),
    ("def softmax(:", "SyntaxError"),
    ("import os; os._exit(3)", "the process ended with code 3"),
    ("x = 1", "not in the file: softmax"),
    ("print('hello')", "hello"),
])
def test_files_that_do_not_even_run(tmp_path, text, said):
    file = tmp_path / "mine.py"
    file.write_text(text)
    process = run_lesson(ATTENTION, "--grade", str(file))
    assert process.returncode == 1
    assert said in process.stdout
    assert "Traceback" not in process.stderr

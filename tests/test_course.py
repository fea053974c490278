import math
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from benchmarks.pairing import paired
from common import canvas, heatmap, lesson
from course.console import files
from course.console.options import OneLineParser, add_options, check_limits, chosen, count, option, seed
from course.training.beams import largest_first
from course.training.parts import build
from course.training.processes import any_process, pick_device, said_by_the_first

# options and their limits


@dataclass(frozen=True)
class Sizes:
    width: int = option(8, "columns", least=1, names=("--columns",))
    share: float = option(0.5, "share of them", least=0.0, below=1.0)
    clip: float = option(1.0, "longest", above=0)
    kind: str = option("round", "shape", among=("round", "square"))
    loud_voice: bool = option(False, "say it loudly")
    seed: int = option(0, least=0)

    def __post_init__(self):
        check_limits(self)


@pytest.mark.parametrize(("changes", "message"), [
    ({"width": 0}, "width is 0; it must be at least 1"),
    ({"share": -0.1}, "share is -0.1; it must be at least 0.0"),
    ({"share": 1.0}, "share is 1.0; it must be below 1.0"),
    ({"share": math.nan}, "share is nan; it must be at least 0.0 and below 1.0 and finite"),
    ({"clip": 0.0}, "clip is 0.0; it must be above 0"),
    ({"clip": math.inf}, "clip is inf; it must be finite"),
    ({"kind": "oval"}, "kind is 'oval'; it must be one of round, square"),
    ({"seed": -1}, "seed is -1; it must be at least 0"),
])
def test_limits_are_checked_by_name_and_value(changes, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        Sizes(**changes)
    assert str(caught.value) == message


def test_limits_themselves_are_fine():
    Sizes(width=1, share=0.0, clip=1e-9, kind="square", seed=0)


def test_fields_become_options_and_options_fields():
    parser = OneLineParser()
    add_options(parser, Sizes)
    assert chosen(Sizes, parser.parse_args([])) == Sizes()
    given = parser.parse_args(["--columns", "3", "--share", "0.25", "--kind", "square", "--loud-voice"])
    assert chosen(Sizes, given) == Sizes(3, 0.25, 1.0, "square", True)
    assert "longest (default: 1.0)" in " ".join(parser.format_help().split())


@pytest.mark.parametrize("options", [["--seed", "1"], ["--width", "1.5"], ["--share", "half"]])
def test_what_is_no_option_ends_in_one_line_and_code_2(options, capsys):
    parser = OneLineParser()
    add_options(parser, Sizes)
    with pytest.raises(SystemExit) as caught:
        parser.parse_args(options)
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert options[0] in line or options[1] in line


@pytest.mark.parametrize(("kind", "fine", "wrong"), [
    (count, {"1": 1, "20": 20}, ["0", "-1", "1.5", "", "x"]),
    (seed, {"0": 0, str(2**32 - 1): 2**32 - 1}, ["-1", str(2**32), "1e3", "", "x"]),
])
def test_numbers_on_the_command_line(kind, fine, wrong):
    assert {text: kind(text) for text in fine} == fine
    for text in wrong:
        parser = OneLineParser()
        parser.add_argument("number", type=kind)
        with pytest.raises(SystemExit):
            parser.parse_args(["--", text])


# parts put into a model


class Plain(nn.Module):
    """Has a slot for a function `bend`."""

    bend = staticmethod(torch.relu)

    def forward(self, x):
        return self.bend(x)


class Doubling(Plain):
    def forward(self, x):
        return 2 * self.bend(x)


@pytest.fixture
def lessons(monkeypatch):
    """Two lessons that know Plain, and one file that is no lesson and knows it, too."""
    modules = {name: ModuleType(name) for name in ("98_owns", "99_binds", "no_lesson")}
    for name, module in modules.items():
        module.Plain = Plain
        monkeypatch.setitem(sys.modules, name, module)
    return SimpleNamespace(**{name.lstrip("_0123456789"): module for name, module in modules.items()})


def test_classes_are_exchanged_while_the_model_is_built_only(lessons):
    def make():
        assert lessons.no_lesson.Plain is Plain
        return nn.Sequential(lessons.owns.Plain(), lessons.binds.Plain())

    model = build(make, {"Plain": Doubling})
    assert [type(part) for part in model] == [Doubling, Doubling]
    assert lessons.owns.Plain is lessons.binds.Plain is Plain
    assert not hasattr(lessons.owns, "Unknown")
    assert [type(part) for part in build(make, {})] == [Plain, Plain]


def test_classes_are_put_back_if_the_model_cannot_be_built(lessons):
    def make():
        assert lessons.owns.Plain is Doubling
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        build(make, {"Plain": Doubling})
    assert lessons.owns.Plain is Plain


def test_functions_fill_the_slots_of_that_model_alone(lessons):
    def make():
        return nn.Sequential(lessons.owns.Plain(), nn.Identity(), nn.Sequential(Plain()))

    before, x = make(), torch.tensor([-1.0, 2.0])
    model = build(make, {"bend": torch.sin})
    assert torch.equal(model(x), x.sin().sin())
    for other in (before, make()):
        assert torch.equal(other(x), x.relu())
    assert not hasattr(model[1], "bend")
    both = build(make, {"Plain": Doubling, "bend": torch.sin})
    assert torch.equal(both(x), (2 * x.sin()).sin())


def test_attention_has_a_slot():
    heads = lesson("02_multi_head_attention")
    calls, x = [], torch.randn(1, 3, 8)

    def mine(query, key, value, mask=None, dropout=0.0):
        calls.append(query.shape)
        return lesson("01_attention_mechanism").scaled_dot_product_attention(query, key, value, mask, dropout)

    torch.manual_seed(0)
    plain = heads.MultiHeadAttention(8, 2).eval()
    torch.manual_seed(0)
    model = build(lambda: heads.MultiHeadAttention(8, 2).eval(), {"scaled_dot_product_attention": mine})
    assert torch.allclose(model(x, x, x), plain(x, x, x), atol=1e-6)
    assert calls == [(1, 2, 3, 4)]


# files


def test_writing_is_all_or_nothing(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def fail(file):
        file.write(b"half")
        raise OSError(28, "disk full")

    with pytest.raises(OSError, match="disk full") as caught:
        files.write_atomically(path, fail)
    assert caught.value.filename == str(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    files.write_atomically(path, lambda file: file.write(b"new"))
    assert path.read_text() == "new"


def test_a_folder_is_prepared_or_refused_at_once(tmp_path):
    files.prepare_folder(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []
    (tmp_path / "file").write_text("kept")
    with pytest.raises(NotADirectoryError, match="file"):
        files.prepare_folder(tmp_path / "file")


def test_equal_figures_give_equal_bytes(tmp_path):
    for name in ("a.png", "b.png"):
        figure, axes = canvas()
        heatmap(axes, torch.eye(2), "ab", "cd", "title")
        files.save_figure(figure, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_history_has_a_line_a_step_and_gaps_where_nothing_was_scored(tmp_path):
    history = [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25, "score": 1.0}]
    files.write_history(history, tmp_path / "h.csv")
    assert (tmp_path / "h.csv").read_bytes() == b"step,loss,score\n1,0.5,\n2,0.25,1.0\n"


def test_paths_are_short_below_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert files.short_path(tmp_path / "out" / "a.png") == os.path.join("out", "a.png")
    assert files.short_path(Path("out/../b.png")) == "b.png"
    assert files.short_path(tmp_path.parent / "c.png") == str(tmp_path.parent.resolve() / "c.png")
    assert files.unfinished(Path("a/run.pt")) == Path("a/run.pt.unfinished")


class Harmful:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("content", ["text", "empty", "truncated", "other values", "harmful"])
def test_foreign_checkpoints_are_one_clear_error_and_run_no_code(tmp_path, content):
    path, harm = tmp_path / "run.pt", tmp_path / "harm"
    files.save_checkpoint({"weights": torch.arange(1000.0), "step": 3}, path)
    assert files.load_checkpoint(path, lambda state: state["weights"][state["step"]]) == 3
    if content in ("text", "empty"):
        path.write_text("hello" if content == "text" else "")
    elif content == "truncated":
        path.write_bytes(path.read_bytes()[:2000])
    else:
        torch.save({"model": {}} if content == "other values" else Harmful(harm), path)
    with pytest.raises(ValueError, match="is not a checkpoint of this lesson") as caught:
        files.load_checkpoint(path, lambda state: state["weights"])
    assert "\n" not in str(caught.value)
    assert not harm.exists()
    with pytest.raises(FileNotFoundError):
        files.load_checkpoint(tmp_path / "missing", dict)


# timing


def test_pairs_are_timed_in_turns_after_a_warm_up():
    called = []

    def run(name, seconds):
        return lambda: called.append(name) or next(seconds)

    found = paired(run("a", iter([9.0, 1.0, 2.0, 4.0])), run("b", iter([9.0, 3.0, 4.0, 4.0])), turns=3)
    assert "".join(called) == "ab" "ab" "ba" "ab"
    assert found == (2.0, 4.0, 2.0)  # the ratios are 3, 2 and 1


# one process or several


def test_devices():
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device().type in ("cpu", "cuda", "mps")
    with pytest.raises(ValueError, match=r"tpu.*cpu"):
        pick_device("tpu")
    with pytest.raises(ValueError, match="cpu:x"):
        pick_device("cpu:x")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="cuda"):
            pick_device("cuda")


def test_one_process_has_nobody_to_ask():
    cpu = torch.device("cpu")
    assert [any_process(flag, cpu) for flag in (True, False)] == [True, False]
    assert said_by_the_first(lambda: "words") == "words"


SIGNALS = """
import signal
from course.training.processes import interruptible
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
for number in signal.SIGINT, signal.SIGTERM:
    try:
        with interruptible() as interrupted:
            before = interrupted()
            signal.raise_signal(number)
            print(before, interrupted(), flush=True)
            signal.raise_signal(number)
            print("still here")
    except KeyboardInterrupt:
        print("Ctrl-C", signal.getsignal(number) is signal.default_int_handler, flush=True)
"""


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_the_first_signal_is_noted_and_the_second_ends():
    process = subprocess.run([sys.executable, "-c", SIGNALS], cwd=ROOT, capture_output=True, encoding="utf-8")
    assert process.stdout.splitlines() == ["False True", "Ctrl-C True", "False True"]
    assert process.returncode == -signal.SIGTERM


@pytest.mark.parametrize("parts", [{"Unknwon": nn.Linear}, {"no_slot": len}])
def test_a_part_that_hits_nothing_is_named(parts):
    (name,) = parts
    with pytest.raises(ValueError, match=name):
        build(lambda: nn.Linear(1, 1), parts)


@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 30), st.integers(1, 12), st.booleans())
def test_the_largest_come_as_a_stable_sort_would_have_them(seed, rows, columns, count, ties):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(rows, columns, generator=generator)
    if ties:
        values = values.round()
    values = values.masked_fill(torch.rand(rows, columns, generator=generator) < 0.2, -torch.inf)
    found, places = largest_first(values, count)
    sorted_values, order = values.sort(dim=1, descending=True, stable=True)
    assert torch.equal(found, sorted_values[:, :count])
    assert torch.equal(places, order[:, :count])

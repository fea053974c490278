"""What goes wrong around the lessons: each fault ends in one line, and nothing saved is lost."""

import argparse
import math
import os
import pickle
import re
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT, one_line_error, run_lesson

import common
from course.console import chat
from course.console.files import load_checkpoint, set_aside, unfinished
from course.console.measuring import bytes_kept
from course.console.narrator import LEAST, Narrator, make_console
from course.console.options import threads
from course.grading.watching import typed
from course.pages.walkthrough import pause
from course.study.quiz import Quiz
from course.training import memory
from course.training.engine import save_run, train
from course.training.parts import build

one, five, six = map(common.lesson, ("01_attention_mechanism", "05_mini_transformer", "06_decoding"))
CPU = torch.device("cpu")
SMALL = five.TransformerConfig(d_model=16, n_heads=2, n_layers=1)
SHORT = five.TrainingConfig(steps=6, batch_size=8, validate_every=2)
TINY = ["--d-model", "16", "--heads", "2", "--layers", "1", "--batch-size", "8", "--steps", "6",
        "--validate-every", "2"]
posix = pytest.mark.skipif(os.name == "nt", reason="POSIX")


def experiment(folder, resume=False):
    """The run of TINY, in this process."""
    return five.DigitExperiment(SMALL, SHORT, SimpleNamespace(device="cpu", outputs=folder, resume=resume))


def shell(command: str):
    """The finished process of a command line in which PYTHON and the lessons' folder are filled in."""
    text = command.format(python=sys.executable, root=ROOT)
    return subprocess.run(["bash", "-c", text], capture_output=True, encoding="utf-8", timeout=120,
                          env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"})


# Ctrl-C


@pytest.mark.exhaustive
@posix
@pytest.mark.parametrize(("fault", "code", "said"), [
    ("import os, signal; signal.signal(signal.SIGINT, signal.default_int_handler)  # else a job ignores it\n"
     "os.kill(os.getpid(), signal.SIGINT)", 130, "interrupted"),
    ("raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')", 1,
     f"torch is not installed for {sys.executable}: run it as the README says, with .venv/bin/python"),
    ("raise ImportError('failed to map segment')", 1, "PyTorch can't be loaded (failed to map segment)"),
    ("raise MemoryError", 1, "out of memory"),
    ("import errno; raise OSError(errno.ENOMEM, 'Cannot allocate memory')", 1, "out of memory"),
], ids=["Ctrl-C", "no PyTorch", "a library", "memory", "address space"])
@pytest.mark.parametrize("name", sorted(path.stem for path in ROOT.glob("0*.py")))
def test_what_fails_while_pytorch_is_imported_is_one_line(name, fault, code, said, tmp_path):
    """A module of that name, found first, stands in for PyTorch."""
    (tmp_path / "torch.py").write_text(fault)
    (tmp_path / "numpy.py").write_text("")  # the real one knows whether PyTorch is there
    process = shell(f"PYTHONPATH={tmp_path} {{python}} {{root}}/{name}.py --list")
    assert (process.returncode, process.stdout, process.stderr) == (code, "", f"{name}.py: {said}\n")


def test_a_mistake_in_the_code_is_still_a_traceback(tmp_path):
    (tmp_path / "torch.py").write_text("")
    process = shell(f"PYTHONPATH={tmp_path} {{python}} {{root}}/02_multi_head_attention.py --list")
    assert process.returncode == 1
    assert "Traceback" in process.stderr
    assert "No module named 'torch.nn'" in process.stderr


@pytest.mark.exhaustive
@posix
def test_ctrl_c_while_lesson_6_trains_its_model_ends_it(tmp_path):
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "06_decoding.py"), "--step", "greedy",
         "--outputs", tmp_path], env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8",
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
    next(line for line in process.stdout if "70/700" in line)
    process.send_signal(signal.SIGINT)
    said, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (130, "06_decoding.py: interrupted\n")
    assert "answer" not in said
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint_reverse.pt.unfinished"]


# the grader


ODD = """
import os, sys, torch
from common import lesson
softmax = lesson("01_attention_mechanism").softmax

class Mute(Exception):
    def __str__(self):
        raise RuntimeError

def attention_weights(*inputs):
    raise KeyboardInterrupt

def scaled_dot_product_attention(*inputs):
    raise Mute

def causal_mask(length):
    torch.nn.functional.softmax = softmax
    sys.stdout = None
    os.close(1)
    os.close(2)
    raise Exception
"""


@posix
def test_a_graded_file_may_raise_close_and_replace_what_it_likes(tmp_path):
    """Whatever it does, every statement gets its line, and what it replaced is named."""
    (tmp_path / "mine.txt").write_text(ODD)
    process = run_lesson("01_attention_mechanism", "--grade", str(tmp_path / "mine.txt"))
    assert (process.returncode, process.stderr) == (1, "")
    said = " ".join(process.stdout.split())
    assert "(KeyboardInterrupt)" in said
    assert "(RuntimeError)" in said
    assert "(Exception) it happened in line 21 of mine.txt: raise Exception" in said
    assert ("✗ FAILED: The file leaves PyTorch and the course as they are (replaced: "
            "torch.nn.functional.softmax)" in said)
    assert "before the end" not in said
    graded = [one.GRADED[name] for name in (
        "softmax", "attention_weights", "scaled_dot_product_attention", "causal_mask")]
    total = sum(len(part.claims) for part in graded) + 2  # that the file runs, and what it replaced
    assert f"{len(one.GRADED['softmax'].claims) + 1} of {total} checks hold" in said


# memory


@pytest.mark.parametrize(("options", "named"), [
    (["--layers", "100000000"], "n_layers 100,000,000"),
    (["--compare", "batch_size=16,1000000000"], "batch_size 1,000,000,000"),
])
def test_sizes_beyond_the_memory_are_one_line_before_anything_is_built(options, named, tmp_path):
    said = one_line_error(run_lesson("05_mini_transformer", *options, "--outputs", str(tmp_path)), 2)
    assert named in said
    assert re.search(r"needs at least [\d,]+ GB of memory, but the limit is [\d.,]+ GB", said)


def test_sizes_without_end_are_refused_too():
    config = five.TransformerConfig(d_model=10**30, n_heads=1)
    with pytest.raises(ValueError, match="d_model 1,000,000"):
        memory.refuse_beyond_memory(config, five.TrainingConfig(), CPU)
    with pytest.raises(ValueError, match="steps is 1000000000; it must be below"):
        five.TrainingConfig(steps=10**9)


@pytest.mark.parametrize("sizes", [{}, {"d_model": 256, "n_layers": 3}, {"d_model": 32, "d_ff": 512}])
def test_the_memory_asked_for_is_never_more_than_what_is_needed(sizes):
    """A bound that refuses what would fit is a fault of its own; and it isn't far below."""
    config, training = five.TransformerConfig(**sizes), five.TrainingConfig(batch_size=64)
    run = five.make_run(config, training, CPU)
    batch = run.job.batch(0)
    kept = bytes_kept(lambda: run.job.loss(run.model, batch, batch))
    weights = common.parameters(run.model)
    estimate = memory.needed_for(config, training)
    assert 0.3 * (kept + 12 * weights) < estimate < kept + 12 * weights  # `kept` holds the weights themselves
    assert memory.needed_for(config, replace(training, recompute=True)) < estimate
    assert memory.needed_for(config, replace(training, accumulate=4)) < estimate


@pytest.mark.exhaustive
@posix
def test_too_little_memory_in_a_step_is_one_line_that_names_the_sizes(tmp_path):
    resource = pytest.importorskip("resource")
    limit = partial(resource.setrlimit, resource.RLIMIT_AS, (3 * 10**9, 3 * 10**9))
    process = run_lesson("05_mini_transformer", *TINY, "--d-ff", "2048", "--batch-size", "4000", "--step",
                         "training", "--outputs", str(tmp_path), preexec_fn=limit)
    said = one_line_error(process, 1)
    assert "step 1: out of memory" in said
    assert "d_model 16, d_ff 2,048, n_layers 1, batch_size 4,000" in said


def test_what_was_saved_before_the_memory_ran_out_is_kept(tmp_path, capsys):
    trained = experiment(tmp_path)
    run, draw = trained.make(), None
    draw = run.job.batch

    def batch(step):
        if step == 5:
            torch.empty(2**60)
        return draw(step)

    run.job = replace(run.job, batch=batch)
    with pytest.raises(SystemExit):
        trained.trained(run)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "step 6" in said
    assert "unfinished" in said
    assert len(experiment(tmp_path, resume=True).go_on().history) == 4


# checkpoints


def crafted(state, place, value):
    """The state with one value in place of another: “optimizer.state.0.step”."""
    *path, last = (int(name) if name.isdecimal() else name for name in place.split("."))
    inner = state
    for name in path:
        inner = inner[name]
    inner[last] = value
    return state


@pytest.fixture(scope="module")
def finished():
    """The state of a finished run of TINY."""
    return train(five.make_run(SMALL, SHORT, CPU)).state()


def strings(state):
    return [dict.fromkeys(record, "x") for record in state["history"]]


@pytest.mark.parametrize(("place", "value", "said"), [
    ("history", [{}] * 6, "record 1 of its history lacks step, loss"),
    ("history", strings, "record 1 of its history doesn't map names to numbers"),
    ("history.3", {"step": 4.0}, "record 4 of its history lacks loss"),
    ("history.3.step", 5, "record 4 of its history lacks its number"),
    ("history.3.loss", True, "record 4 of its history doesn't map names to numbers"),
    ("history", lambda state: 2 * state["history"], "at most 6 steps"),
    ("history", lambda state: state["history"][:2], "holds 2 of 6 steps: rename it to"),
    ("history", None, "its history isn't"),
    ("model", {}, "its weights aren't those of this model"),
    ("model", lambda state: state["model"] | {"embedding.weight": 5}, "its embedding.weight isn't"),
    ("about.training.task", "copy", "another run: task is 'copy'"),
    ("about.config.n_heads", 4, "another run: n_heads is 4"),
    ("about.config.d_model", 10**9, "another run: d_model is 1000000000"),
    ("about.training.steps", "6", "another run: steps is '6'"),
    ("about", 5, "another run: about is 5"),
    ("optimizer", [], "its optimiser isn't the one"),
    ("optimizer.param_groups.0.betas", ("a", "b"), "its optimiser differs in betas"),
    ("optimizer.param_groups.0.weight_decay", 9.0, "its optimiser differs in weight_decay"),
    ("optimizer.param_groups.0.lr", "x", "its optimiser differs in learning rate"),
    ("optimizer.state.0.exp_avg", torch.zeros(1), "its optimiser's exp_avg of parameter 0"),
    ("optimizer.state.0.exp_avg", "x", "its optimiser's exp_avg of parameter 0"),
    ("optimizer.state.0.step", torch.tensor(math.nan), "its optimiser's step of parameter 0"),
    ("optimizer.state.999", {}, "its optimiser has states for other parameters"),
])
def test_a_checkpoint_is_checked_before_anything_is_done_with_it(place, value, said, finished, tmp_path,
                                                                 capsys):
    trained = experiment(tmp_path)
    torch.save(finished, trained.checkpoint)
    assert trained.load(trained.checkpoint, finished=True).finished
    state = torch.load(trained.checkpoint, weights_only=True)
    torch.save(crafted(state, place, value(state) if callable(value) else value), trained.checkpoint)
    with pytest.raises(SystemExit):
        _ = experiment(tmp_path).run
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert said in lines[0]


@pytest.mark.parametrize("kind", ["type", "number", "shape"])
def test_weights_of_another_type_shape_or_without_value_are_refused(kind, finished, tmp_path):
    weights = dict(finished["model"])
    first, tensor = next(iter(weights.items()))
    weights[first] = {"type": tensor.to(torch.int8), "number": tensor * math.nan, "shape": tensor[:-1]}[kind]
    with pytest.raises(ValueError, match=rf"its {re.escape(first)} isn't"):
        five.make_run(SMALL, SHORT, CPU).load(finished | {"model": weights})


@posix
def test_what_pytorch_did_not_save_is_one_line_and_a_pipe_is_not_waited_for(tmp_path):
    path = experiment(tmp_path).checkpoint
    path.write_bytes(pickle.dumps({"a": 1}))  # PyTorch would warn about its protocol
    script = run_lesson("05_mini_transformer", *TINY, "--step", "two-accuracies", "--outputs", str(tmp_path))
    assert "is not a checkpoint of this lesson (UnpicklingError" in one_line_error(script, 1)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ValueError, match="it is not a regular file"):
        load_checkpoint(path, dict)
    path.unlink()
    torch.save(torch.ones(2), path)
    with pytest.raises(ValueError, match="it holds something else"):
        load_checkpoint(path, dict)


def test_every_run_has_files_of_its_own(tmp_path):
    options = SimpleNamespace(device="cpu", outputs=tmp_path, resume=False)
    runs = [five.DigitExperiment(replace(SMALL, **model), replace(SHORT, **training), options)
            for model, training in (({}, {}), ({"n_layers": 2}, {}), ({}, {"steps": 7}), ({}, {"seed": 1}))]
    for files in ([run.checkpoint for run in runs], [run.file("training") for run in runs]):
        assert len({*files}) == len(runs)
    assert runs[0].checkpoint.name == f"checkpoint_{runs[0].name}.pt"
    assert runs[0].file("training", "csv") == f"training-{runs[0].name}.csv"


def test_a_fresh_run_keeps_the_unfinished_one_aside_and_says_so(tmp_path, capsys):
    def interrupted(steps):
        run = experiment(tmp_path).make()
        for _ in range(steps):
            run.update()
        save_run(run, experiment(tmp_path).checkpoint)

    left = unfinished(experiment(tmp_path).checkpoint)
    for number in 1, 2:
        interrupted(number)
        before = left.read_bytes()
        experiment(tmp_path).train()
        assert left.with_name(f"{left.name}.{number}").read_bytes() == before
        said = "".join(capsys.readouterr().out.split())
        assert f"{left.name}.{number}" in said
        assert "--resume" in said
    assert not left.exists()
    assert set_aside(left) is None
    experiment(tmp_path).train()
    assert "--resume" not in capsys.readouterr().out


def test_a_run_that_can_not_be_resumed_is_refused_before_the_first_step(tmp_path):
    unfinished(experiment(tmp_path).checkpoint).write_text("junk")
    process = run_lesson("05_mini_transformer", *TINY, "--resume", "--outputs", str(tmp_path))
    assert "is not a checkpoint of this lesson" in one_line_error(process, 1)
    assert process.stdout == ""


# surroundings


@pytest.mark.parametrize("stdin", [None, open(os.devnull)])  # noqa: SIM115
def test_a_pause_without_a_keyboard_goes_on(stdin, monkeypatch):
    monkeypatch.setattr(sys, "stdin", stdin)
    options = SimpleNamespace(pause=True)
    pause(options)
    assert not options.pause


@pytest.mark.parametrize("stdin", [None, open(os.devnull)])  # noqa: SIM115
def test_without_a_keyboard_nothing_is_answered_or_typed(stdin, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", stdin)
    asked = Quiz("01_attention_mechanism", tmp_path, Narrator(tmp_path))
    assert asked.choose(3) is None
    assert not asked.open
    assert chat.read() == ""
    monkeypatch.setattr("threading.Thread", lambda target, daemon: SimpleNamespace(start=target))
    assert typed().empty()


@pytest.mark.parametrize("columns", ["0", "1", str(LEAST - 1), "many"])
def test_a_console_is_never_too_narrow_for_a_word(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    assert LEAST <= make_console().width <= 80


@pytest.mark.exhaustive
def test_no_columns_and_warnings_as_errors_are_survived(tmp_path):
    process = run_lesson("01_attention_mechanism", "--step", "by-hand", "--outputs", str(tmp_path),
                         COLUMNS="0", PYTHONWARNINGS="error")
    assert (process.returncode, process.stderr) == (0, "")


@pytest.mark.exhaustive
def test_without_docstrings_there_is_no_lesson():
    process = shell("{python} -OO {root}/05_mini_transformer.py --list")
    assert "without -OO" in one_line_error(process, 1)


@pytest.mark.exhaustive
@posix
@pytest.mark.parametrize("option", ["--help", "--list"])
def test_an_output_that_is_full_is_an_error(option):
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full")
    said = one_line_error(shell("{python} {root}/01_attention_mechanism.py " + option + " > /dev/full"), 1)
    assert "No space left on device" in said
    assert "None" not in said


@pytest.mark.exhaustive
@posix
def test_a_reader_that_leaves_is_no_error_of_the_lesson():
    """128 + SIGPIPE, as a shell reports any other command that head has cut short."""
    process = shell("{python} {root}/01_attention_mechanism.py --step by-hand | head -1; "
                    "echo ${{PIPESTATUS[0]}}")
    assert process.stderr == ""
    assert process.stdout.splitlines()[-1] == "141"


@pytest.mark.exhaustive
@posix
def test_usage_errors_have_their_code_where_nobody_hears_them():
    assert shell("{python} {root}/01_attention_mechanism.py --step nonsense 2>&-").returncode == 2


def test_a_million_threads_are_refused():
    assert "1000000" in one_line_error(run_lesson("01_attention_mechanism", "--threads", "1000000"), 2)


def test_as_many_threads_as_the_refusal_names_are_accepted():
    with pytest.raises(argparse.ArgumentTypeError) as refused:
        threads("1000000")
    most = int(re.search(r"more than ([\d,]+)", str(refused.value))[1].replace(",", ""))
    assert threads(str(most)) == most
    with pytest.raises(argparse.ArgumentTypeError):
        threads(str(most + 1))


@pytest.mark.exhaustive
def test_an_environment_of_torchrun_without_torchrun_is_one_line():
    process = run_lesson("05_mini_transformer", "--list", WORLD_SIZE="2")
    assert "WORLD_SIZE is 2, but torchrun has not started this script" in one_line_error(process, 1)


# numbers


def test_a_token_that_cannot_be_costs_nothing_without_smoothing():
    logits = torch.tensor([[[0.0, 1.0, -torch.inf, 2.0]]], requires_grad=True)
    target = torch.tensor([[1]])
    loss = five.sequence_loss(logits, target)
    loss.backward()
    theirs = logits.detach().clone().requires_grad_()
    five.fused_sequence_loss(theirs, target).backward()
    assert torch.allclose(loss, five.fused_sequence_loss(logits, target))
    assert torch.allclose(logits.grad, theirs.grad)


def test_a_log_probability_is_the_beams_in_half_precision_too():
    torch.manual_seed(0)
    model, src = five.Transformer(SMALL).bfloat16().eval(), torch.randint(3, 13, (8, 6))
    found = six.beam_search(six.CachedDecoding(model, src), 3, 8, 0.0)
    given = six.log_probability(six.CachedDecoding(model, src), six.best_answers(found))
    best = torch.tensor([hypotheses[0].log_prob for hypotheses in found])
    assert given.dtype == torch.float32
    assert torch.allclose(given, best, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_many_even_scores_have_weights_that_sum_to_one(dtype):
    weights = one.softmax(torch.zeros(70_000, dtype=dtype))
    assert weights.dtype == dtype
    assert torch.equal(weights, torch.softmax(torch.zeros(70_000, dtype=dtype), -1))


@pytest.mark.parametrize("lengths", [(0, 3), (3, 0), (0, 0)])
def test_a_source_without_tokens_is_nothing_to_attend_to_by_hand_as_in_the_kernel(lengths):
    tokens = [torch.full((2, length), 5) for length in lengths]
    found = []
    for parts in ({}, five.BY_HAND):
        torch.manual_seed(0)
        found.append(build(lambda: five.Transformer(SMALL), parts).eval()(*tokens))
    assert found[0].shape == (2, lengths[1], 13)
    assert torch.allclose(*found, rtol=0, atol=1e-6)


def test_adam_leaves_parameters_without_a_gradient_alone():
    still, moving = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    adam = five.Adam([still, moving], lr=0.1, weight_decay=0.5)
    moving.sum().backward()
    adam.step()
    assert torch.equal(still, torch.ones(2))
    assert (moving < 1).all()


@pytest.mark.parametrize(("changes", "named"), [
    ({"vocab_size": 3}, "vocab_size is 3; it must be at least 4"),
    ({"d_model": 33, "n_heads": 3}, "d_model 33 is odd"),
    ({"d_model": 12, "n_heads": 4, "positions": "rotary"}, "d_model 12 over 4 heads is 3, which is odd"),
])
def test_sizes_that_no_model_can_have_are_refused_by_the_config(changes, named):
    with pytest.raises(ValueError, match=re.escape(named)):
        five.TransformerConfig(**changes)


def test_odd_sizes_are_fine_where_nothing_is_paired():
    five.Transformer(five.TransformerConfig(d_model=33, n_heads=3, positions="learned"))
    five.Transformer(five.TransformerConfig(d_model=12, n_heads=4))

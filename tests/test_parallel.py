"""Several processes share a training, by each of PyTorch's engines; and what they refuse or survive."""

import json
import os
import re
import signal
import socket
import threading
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import sharing
import torch
from calling import called
from conftest import ROOT, SETTINGS
from starting import SERVER, run_forked

from common import lesson
from course.console.files import Unusable, load_checkpoint, unfinished
from course.training import memory, parallel, processes
from course.training.engine import finish, save_run

five = lesson("05_mini_transformer")


def environments(count: int) -> list[dict[str, str]]:
    """What torchrun tells each process."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
              "PYTHONPATH": str(ROOT), "COURSE_PROGRESS": "off"}
    return [os.environ | SETTINGS | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            for rank in range(count)]


def in_processes(script, *options, count: int = 2, seconds: float = 300) -> list:
    """The finished processes of a script that torchrun would start."""
    found = [None] * count

    def run(rank: int, environment: dict[str, str]) -> None:
        found[rank] = run_forked(script, options, ROOT, environment, seconds)

    threads = [threading.Thread(target=run, args=each) for each in enumerate(environments(count))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The trainings in one process: name → run. With dropout, two processes draw as one with two parts."""
    runs = {name: finish(sharing.run_of(name)) for name in sharing.VARIANTS if name != "dropped"}
    runs["dropped"] = finish(sharing.run_of("dropped", accumulate=2))
    runs["grouped"] = finish(sharing.grouped_run())
    return runs


# what is refused, before any process trains


TINY = ["--d-model", "16", "--heads", "2", "--layers", "1", "--steps", "4", "--batch-size", "4"]


@pytest.mark.parametrize("how", parallel.ENGINES)
def test_one_process_is_told_the_command_for_several(how, monkeypatch, capsys):
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(SystemExit) as ended:
        called(five, *TINY, "--parallel", how)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"torchrun --nproc-per-node 2 script {' '.join(TINY)} --parallel {how}" in said


@pytest.mark.parametrize(("how", "options", "said"), [
    ("data", ["--batch-size", "2"], "batch_size 2 can't be cut into 3 parts: 3 processes with "),
    ("fsdp", ["--accumulate", "2"], "can't be cut into 6 parts: 3 processes with --accumulate 2"),
    ("fsdp", ["--compile"], "--compile goes with --parallel data, and not with fsdp"),
    ("tensor", ["--broken"], "--broken goes with --parallel data, and not with tensor"),
    ("fsdp", ["--compare", "lr=0.1,0.2"], "--compare goes with --parallel data, and not with fsdp"),
    ("tensor", [], "--parallel tensor: n_heads 2 does not split into 3 processes"),
    ("tensor", ["--heads", "3", "--d-model", "12", "--d-ff", "16"],
     "--parallel tensor: d_ff 16 does not split into 3 processes"),
    ("tensor", ["--heads", "3", "--d-model", "12", "--attention", "grouped"],
     "--parallel tensor: groups 1 does not split into 3 processes"),
    ("tensor", ["--precision", "fp16"], "--precision fp16 goes with --parallel data or fsdp, and not"),
])
def test_what_processes_cannot_share_is_refused_in_one_line(how, options, said, monkeypatch, capsys):
    monkeypatch.setattr(parallel, "PROCESSES", 3)
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(SystemExit) as ended:
        called(five, *TINY, *options, "--parallel", how)
    assert ended.value.code == 2
    found = capsys.readouterr().err
    assert said in found
    assert found.count("\n") == 1


def test_what_processes_can_share_is_accepted(monkeypatch):
    monkeypatch.setattr(parallel, "PROCESSES", 2)
    monkeypatch.setenv("RANK", "0")
    for how, options in (("data", ["--compile"]), ("data", ["--broken"]), ("fsdp", ["--precision", "fp16"]),
                         ("tensor", ["--batch-size", "1"]), ("tensor", ["--precision", "bf16", "--by-hand"]),
                         ("tensor", ["--attention", "grouped", "--groups", "2"])):
        assert called(five, *TINY, *options, "--parallel", how).experiment.parallel == how


def test_adapters_and_classes_of_your_own_are_not_cut(monkeypatch):
    monkeypatch.setattr(parallel, "PROCESSES", 2)
    monkeypatch.setenv("RANK", "0")
    sizes, training = five.TransformerConfig(), five.TrainingConfig()
    for rank, parts, named in ((2, {}, "--rank"), (None, {"MultiHeadAttention": torch.nn.Linear}, "--with")):
        for how in parallel.ENGINES:
            options = SimpleNamespace(parallel=how, rank=rank)
            with pytest.raises(ValueError, match=named) if how == "tensor" else nullcontext():
                parallel.refuse_parallel(options, sizes, training, parts)
    parallel.refuse_parallel(SimpleNamespace(parallel="tensor"), sizes, training, {"gelu": abs})


def test_a_process_needs_less_memory_where_more_is_cut(monkeypatch):
    sizes, training = five.TransformerConfig(d_model=512, n_layers=6), five.TrainingConfig(batch_size=8)
    alone = memory.needed_for(sizes, training)
    monkeypatch.setattr(memory, "PROCESSES", 4)
    found = {how: memory.needed_for(sizes, training, how) for how in parallel.ENGINES}
    assert found["fsdp"] < found["tensor"] < found["data"] < alone
    assert alone < 4.1 * found["fsdp"]
    monkeypatch.setattr(memory, "PROCESSES", 100)  # at first the weights are whole
    assert memory.needed_for(sizes, training, "fsdp") > 4 * 40e6


def test_an_engine_that_gives_wrong_gradients_is_refused(monkeypatch):
    """As in a PyTorch in which the average over processes is a sum."""
    parallel.refuse_broken_engine("fsdp", torch.device("cpu"))
    monkeypatch.setattr(parallel.Alone, "factor", 2)
    with pytest.raises(ValueError, match=r"its gradients are wrong.*use a newer PyTorch, or --parallel data"):
        parallel.refuse_broken_engine("fsdp", torch.device("cpu"))
    monkeypatch.setattr(parallel, "engine_for", lambda run: run.stream)
    with pytest.raises(ValueError, match=r"--parallel data doesn't work here .*no attribute 'stream'"):
        parallel.refuse_broken_engine("data", torch.device("cpu"))


def test_an_engine_that_fails_without_a_message_is_refused(monkeypatch):
    def fails(run):
        raise NotImplementedError

    monkeypatch.setattr(parallel, "engine_for", fails)
    with pytest.raises(ValueError, match=r"--parallel data doesn't work here .*\(NotImplementedError\)"):
        parallel.refuse_broken_engine("data", torch.device("cpu"))


# 16 bits and one scale


def test_float16_skips_what_overflows_and_resumes_bit_for_bit(tmp_path):
    """A scale so large that the first steps overflow: they move nothing, and halve the scale."""
    def run():
        made = sharing.run_of("fp16")
        made.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**24)
        return made

    whole, half = run(), run()
    before = [parameter.clone() for parameter in whole.trained]
    whole.update()
    assert all(map(torch.equal, before, whole.trained))
    assert whole.history[0]["gradient_norm"] == whole.history[0]["learning_rate"] == 0
    finish(whole)
    scales = whole.noted("loss_scale")
    skipped = [norm == 0 for norm in whole.noted("gradient_norm")]
    assert scales == [2.0**24 / 2 ** sum(skipped[:step]) for step in range(20)]
    assert 0 < sum(skipped) < 20
    while len(half.history) < 7:
        half.update()
    save_run(half, tmp_path / "half.pt")
    resumed = sharing.run_of("fp16")
    load_checkpoint(unfinished(tmp_path / "half.pt"), resumed.load)
    assert finish(resumed).noted("loss") == whole.noted("loss")


@pytest.mark.parametrize("scaler", [None, {}, {"scale": 0.0}, {"scale": float("inf")}, {"scale": 1}])
def test_a_checkpoint_without_a_scale_is_no_run_in_float16(scaler):
    run = sharing.run_of("fp16")
    state = run.state()
    state["scaler"] = state["scaler"] | scaler if scaler else scaler
    with pytest.raises(Unusable, match="scale of the losses"):
        run.load(state)


def test_a_gradient_that_no_scale_mends_is_an_error():
    run = sharing.run_of("fp16")
    run.scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
    run.trained[0].register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(FloatingPointError, match="step 1"):
        run.update()


def test_float16_is_refused_where_pytorch_cannot_scale_its_losses(monkeypatch):
    def broken(*arguments, **named):
        raise RuntimeError("not implemented for 'Half'\nmore")

    processes.refuse_precision("fp16", torch.device("cpu"))
    monkeypatch.setattr(torch.amp, "GradScaler", lambda *arguments: SimpleNamespace(scale=broken))
    processes.refuse_precision("bf16", torch.device("cpu"))
    with pytest.raises(ValueError, match=r"--precision fp16 doesn't work on cpu .*'Half'.*; use bf16"):
        processes.refuse_precision("fp16", torch.device("cpu"))


# two processes


@pytest.mark.exhaustive
@pytest.mark.skipif(not SERVER, reason="processes are forked on Linux only")
@pytest.mark.parametrize(("options", "said"), [
    (["--heads", "1", "--parallel", "tensor"], "n_heads 1 does not split into 2 processes"),
    (["--resume"], "nothing to resume: there is no"),
])
def test_bad_input_is_one_line_of_the_first_process_and_one_code(options, said, tmp_path):
    first, other = in_processes(ROOT / "05_mini_transformer.py", *TINY, *options, "--outputs", str(tmp_path))
    assert first.stderr.count("\n") == 1
    assert said in first.stderr
    assert (first.stdout, other.stdout, other.stderr) == ("", "", "")
    assert first.returncode == other.returncode == (1 if "--resume" in options else 2)


GAPS = {"bf16": 2e-3, "fp16": 3e-4}  # rounding of 16 bits; otherwise of 32


@pytest.mark.exhaustive
@pytest.mark.skipif(not SERVER, reason="processes are forked on Linux only")
@pytest.mark.parametrize("engine", ["data", "fsdp", "tensor"])
def test_two_processes_train_as_one_and_survive_what_one_survives(engine, alone, tmp_path):
    """All properties of an engine in one start of two processes: what one process costs is the start."""
    one = sharing.run_of("uneven")
    while len(one.history) < sharing.HALF:
        one.update()
    save_run(one, tmp_path / "one.pt")
    unfinished(tmp_path / "one.pt").rename(tmp_path / "one.pt")
    first, other = in_processes(ROOT / "tests" / "sharing.py", engine, str(tmp_path))
    assert (first.returncode, other.returncode) == (0, -signal.SIGKILL), first.stderr + other.stderr
    found = json.loads((tmp_path / "histories.json").read_text())
    losses = found["losses"]
    # the losses of one process, and the same in both
    assert found["agree"]
    assert losses.keys() == {*alone, "resumed", "from one"} - ({"fp16"} if engine == "tensor" else {""})
    for name in losses.keys() & alone.keys():
        gap = max(abs(a - b) for a, b in zip(losses[name], alone[name].noted("loss"), strict=True))
        if (engine, name) == ("tensor", "dropped"):
            assert 1e-6 < gap < 0.1  # the heads of a process draw their own dropout
        else:
            assert gap < GAPS.get(name, 1e-6), name
    # resumed as if never interrupted; a checkpoint of one process goes on in two, one of two in one
    assert losses["resumed"] == losses["dropped"]
    resumed, dropped = (load_checkpoint(tmp_path / f"{name}.pt", lambda state: state["model"])
                        for name in ("resumed", "dropped"))
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in dropped.items())
    assert losses["from one"] == pytest.approx(alone["uneven"].noted("loss"), abs=1e-6, rel=0)
    again = sharing.run_of("uneven")
    load_checkpoint(tmp_path / "uneven.pt", again.load)
    assert again.finished
    # a part of the weights, gradients and Adam's means each
    (here, size), (there, _) = found["held"]
    count = sum(parameter.numel() for parameter in again.model.parameters())
    cut = sum(p.numel() for name, p in again.model.named_parameters() if re.search(
        r"(project_(query|key|value)|expand)\.|(project_output|contract)\.weight", name))
    wanted = {"data": (count, count), "tensor": (count - cut // 2,) * 2, "fsdp": (here, count - here)}[engine]
    assert (here, there) == wanted
    assert size == 16 * here
    assert engine != "fsdp" or abs(here - there) < 0.01 * count
    # Ctrl-C in one process ends both and keeps the run; so does a disk that is full, and a lost process
    left = {name: load_checkpoint(unfinished(tmp_path / f"{name}.pt"), lambda state: len(state["history"]))
            for name in ("interrupted", "full", "lost")}
    assert left == {"interrupted": sharing.HALF, "full": 4, "lost": 4}
    assert "OSError" in (tmp_path / "full-0.txt").read_text()
    assert (tmp_path / "full-1.txt").read_text() == "SystemExit 1"
    assert (tmp_path / "lost.txt").read_text() == "another process has ended"

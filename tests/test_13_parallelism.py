"""Lesson 13: its parts, ranks as threads and as processes, and PyTorch's engines in two processes."""

import os
import re
import socket
import subprocess
import sys
import time
from copy import deepcopy
from functools import partial
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT, SETTINGS, failures, run_as_documented
from torch import nn

from common import lesson
from course.training import formats, pieces, ranks, stages, torch_engines
from course.training.ranks import Stuck, in_processes, in_threads, or_why_not

m = lesson("13_parallelism")
WAYS = pytest.mark.parametrize("together", [in_threads, in_processes])
PROCESSES_JOIN = pytest.mark.skipif(bool(ranks.why_not()), reason="this PyTorch has no gloo")


# ------------------------------------------------------------------ the parts


@pytest.mark.parametrize("part", m.GRADED)
def test_all_checks_of_a_part_hold(part):
    found = {check.statement: check.finding for check in m.GRADED[part](getattr(m, part), m)}
    assert found
    assert not [(statement, finding) for statement, finding in found.items() if not finding.holds]


def test_the_halves_of_the_ring_cut_and_join():
    xs = torch.randn(4, 3, 5)

    def program(group):
        piece = m.reduce_scatter(xs[group.rank], group)
        return piece, m.all_gather(piece, group)

    found = in_threads(program, 4)
    assert [piece.shape for piece, _ in found] == [(4,)] * 4  # 15 numbers in 4 pieces
    for rank, (piece, whole) in enumerate(found):
        assert torch.allclose(piece, F.pad(xs.sum(0).flatten(), (0, 1))[4 * rank : 4 * rank + 4], atol=1e-6)
        assert torch.equal(whole, found[0][1])


def test_heads_that_do_not_split_are_refused():
    model, _ = m.reference(0)
    with pytest.raises(ValueError, match="4 heads do not split over 3 ranks"):
        in_threads(partial(m.split_over, deepcopy(model)), 3)
    with pytest.raises(ValueError, match="a side of 10 does not split over 4 ranks"):
        in_threads(lambda group: m.split_over(lesson("04_transformer_block").FeedForward(8, 10), group), 4)


@pytest.mark.parametrize("size", [2, 4])
def test_a_split_model_gives_the_same_logits_on_all_ranks(size):
    five = lesson("05_mini_transformer")
    model = five.Transformer(five.TransformerConfig(d_model=16, n_heads=4, n_layers=1))
    batch = five.draw_batch("reverse", 4, "train", (0,))
    found = in_threads(lambda group: m.split_over(deepcopy(model), group)(batch.src, batch.tgt_in), size)
    assert torch.allclose(found[0], model(batch.src, batch.tgt_in), atol=1e-5)
    assert all(torch.equal(one, found[0]) for one in found)


@pytest.mark.parametrize("schedule", [m.gpipe, m.one_f_one_b])
@pytest.mark.parametrize(("size", "micro"), [(1, 3), (2, 1), (2, 6), (4, 3), (4, 6)])
def test_a_pipeline_gives_the_gradients_of_the_whole_batch(schedule, size, micro):
    blocks = [nn.Sequential(nn.Linear(5, 5), nn.Tanh()) for _ in range(4)]
    model, x, target = stages.with_gradients(blocks, torch.randn(6, 5), torch.randn(6, 5))
    found = in_threads(partial(stages.pipelined, model, schedule, x.chunk(micro), target.chunk(micro)), size)
    assert max(gap for gap, _ in found) < 1e-6
    kept = [micro] * size if schedule is m.gpipe else [min(size - rank, micro) for rank in range(size)]
    assert [most for _, most in found] == kept


def test_a_sharded_optimiser_moves_all_weights_alike():
    start = torch.nn.Linear(3, 5)

    def program(group):
        model = deepcopy(start)
        weights = [*model.parameters()]
        piece = nn.Parameter(m.pieces_of(torch.cat([w.flatten() for w in weights]), group.size)[group.rank])
        optimizer = torch.optim.SGD([piece], 0.1)
        (model(torch.ones(1, 3)).sum() * (group.rank + 1)).backward()
        m.sharded_update(weights, piece, optimizer, group)
        return [w.detach() for w in weights]

    for weight, bias in in_threads(program, 3):
        assert torch.allclose(weight, start.weight - 0.1 * (1 + 2 + 3), atol=1e-6)
        assert torch.allclose(bias, start.bias - 0.1 * (1 + 2 + 3), atol=1e-6)


def test_bytes_by_formula():
    found = m.bytes_per_rank(7e9, 8, 2, 2, 12)
    assert {way: round(sum(parts) / 1e9, 2) for way, parts in found.items()} == {
        "data": 112, "ZeRO-1": 38.5, "ZeRO-2": 26.25, "ZeRO-3, FSDP": 14}


# ------------------------------------------------------------------ formats


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_map_in_a_format_rounds_all_that_it_reads_and_writes(dtype):
    linear, x = nn.Linear(6, 4), torch.randn(3, 6, requires_grad=True)
    rounded = formats.compute_in(deepcopy(linear), dtype)
    y = rounded(x)
    y.backward(factor := torch.randn(3, 4))
    cut = partial(formats.in_format, dtype=dtype)
    weight, bias = (cut(p.detach()) for p in linear.parameters())
    assert torch.equal(y, cut(F.linear(cut(x.detach()), weight, bias)))
    assert torch.equal(x.grad, cut(cut(factor) @ weight))
    assert torch.equal(rounded.weight.grad, cut(cut(factor).T @ cut(x.detach())))
    assert not torch.equal(y, linear(x))
    assert torch.equal(rounded.weight, linear.weight)


def test_the_gradients_that_vanish_are_counted():
    model = nn.Linear(2, 2)
    with formats.output_gradients(model) as seen:
        x = torch.ones(1, 2, requires_grad=True)
        model(x).backward(torch.tensor([[1e-9, 1.0]]))
    assert torch.equal(torch.cat(seen), torch.tensor([1e-9, 1.0]))
    model(torch.ones(1, 2)).sum().backward()
    assert len(seen) == 1  # the hooks are gone


# ------------------------------------------------------------------ ranks


def around(group):
    """What comes from the left neighbour, in two steps; the second tensor isn't contiguous."""
    size, rank = group.size, group.rank
    x = group.exchange(torch.full((2, 3), float(rank)), (rank + 1) % size, (rank - 1) % size)
    x = group.exchange(x.T, (rank + 1) % size, (rank - 1) % size)
    return x, group.sent


@WAYS
def test_ranks_send_and_count(together):
    found = together(around, 2)
    assert [x.tolist() for x, _ in found] == [[[float(rank)] * 2] * 3 for rank in (0, 1)]
    assert [sent for _, sent in found] == [2 * 6 * 4] * 2


def failing(group):
    if group.rank == 1:
        raise ValueError("rank 1 has a mistake")
    group.receive(1, torch.ones(1))


@WAYS
def test_the_mistake_of_one_rank_ends_all(together):
    with pytest.raises(ValueError, match="rank 1 has a mistake"):
        together(failing, 2)


def test_ranks_that_wait_for_ever_are_told_so():
    with pytest.raises(Stuck, match=r"rank . waits for a message from rank . that never comes"):
        in_threads(lambda group: group.receive((group.rank + 1) % 3, torch.ones(1)), 3)
    with pytest.raises(Stuck, match="rank 1 waits for a message from rank 0"):
        in_threads(lambda group: group.rank and group.receive(0, torch.ones(1)), 2)


def test_what_is_sent_is_a_copy():
    def program(group):
        x = torch.full((2,), float(group.rank))
        group.send(x, 1 - group.rank)
        x.fill_(-1)
        return group.receive(1 - group.rank, x).tolist()

    assert in_threads(program, 2) == [[1.0, 1.0], [0.0, 0.0]]


def killed(group):
    if group.rank == 1:
        os._exit(9)
    group.receive(1, torch.ones(1))


def mistaken(group):
    raise RuntimeError("sizes differ")


def test_a_lost_process_ends_the_others():
    with pytest.raises(RuntimeError, match="the process of rank 1 was ended"):
        in_processes(killed, 2)


def endless(group):
    while True:
        time.sleep(1)


def test_processes_without_an_answer_are_ended_in_time():
    started = time.monotonic()
    with pytest.raises(TimeoutError, match="have not answered within 2 seconds"):
        in_processes(endless, 2, seconds=2)
    assert time.monotonic() - started < 100


@PROCESSES_JOIN
@pytest.mark.parametrize(("program", "error"), [(killed, "the process of rank 1 was ended"),
                                                (mistaken, "sizes differ")])
def test_a_program_that_fails_is_no_machine_without_processes(program, error):
    with pytest.raises(RuntimeError, match=error):
        or_why_not(program, 2)


@PROCESSES_JOIN
def test_why_no_processes_work_together_is_a_sentence(monkeypatch):
    def no_network(*_, **__):
        raise RuntimeError("unable to resolve the host\nat line 5")

    def no_memory(process):
        raise BlockingIOError("no more processes")

    with monkeypatch.context() as patched:
        if not ranks.processes_are_dear():  # forks inherit what is replaced here
            patched.setattr(ranks.distributed, "init_process_group", no_network)
            assert or_why_not(around, 2) == ("No processes can work together on this machine: unable to "
                                             "resolve the host.")
        patched.setattr(ranks.multiprocessing.process.BaseProcess, "start", no_memory)
        assert or_why_not(around, 2) == "No processes can work together on this machine: no more processes."
    monkeypatch.setattr(ranks.distributed, "is_gloo_available", lambda: False)
    assert or_why_not(around, 2) == ("No processes were started: this PyTorch has no gloo, its backend for "
                                     "CPUs.")
    monkeypatch.setattr(ranks.distributed, "is_available", lambda: False)
    assert "was built without torch.distributed" in or_why_not(around, 2)


@PROCESSES_JOIN
def test_a_machine_without_processes_passes_the_lesson(monkeypatch):
    monkeypatch.setattr(m, "or_why_not", lambda program, size: "No processes were started: no gloo.")
    for step in (m.step_same_program, m.step_engines):
        assert failures(step, 0) == []
        assert step(0) == "No processes were started: no gloo."


# ------------------------------------------------------------------ PyTorch's engines


@pytest.mark.exhaustive
@PROCESSES_JOIN
def test_the_engines_equal_one_process():
    """All that this PyTorch has; the newest one has all."""
    model, batch = m.reference(0)
    loss = partial(m.share_of_loss, tokens=m.tokens_in(batch))
    found = in_processes(partial(torch_engines.run_engines, model, batch, loss, m.LAYERS,
                                 m.blocks_with_gradients()), 2)
    old = tuple(map(int, torch.__version__.split(".")[:2])) < (2, 11)
    assert len(found[0]) == 5
    for one in found:
        for name, engine in one.items():
            assert old or not engine.reason, f"{name}: {engine.reason}"
            assert engine.reason or engine.gap < 1e-6, f"{name}: {engine.gap}"
            assert engine.reason or engine.kept > 0


def test_gradients_that_are_too_small_are_noticed():
    """As those of an engine that averages are, without the factor P."""
    whole = nn.Linear(3, 2)
    whole(torch.randn(4, 3)).square().sum().backward()
    assert pieces.gap_of_gradients(whole, whole) == 0
    half = deepcopy(whole)
    for parameter, own in zip(half.parameters(), whole.parameters()):
        parameter.grad = own.grad / 2
    assert pieces.gap_of_gradients(half, whole) > 0.01


def test_what_this_pytorch_cannot_do_is_said(monkeypatch):
    """Averages refused: FSDP2 isn't tried. No module: its name is said."""
    engine = torch_engines.Engine(1e-9, 5)
    for name in ("data_engine", "fsdp_engine", "tensor_engine", "pipeline_engine"):
        monkeypatch.setattr(torch_engines, name, lambda *_: engine)
    monkeypatch.setattr(torch_engines, "averages", lambda group: False)

    def missing(*_):
        raise ImportError("no module called torch.distributed.tensor")

    def unable(*_):
        raise NotImplementedError  # without a message

    monkeypatch.setattr(torch_engines, "tensor_engine", missing)
    monkeypatch.setattr(torch_engines, "pipeline_engine", unable)
    x, linear = torch.ones(2, 1), nn.Linear(1, 1)
    loss = lambda model, rows: model(rows).sum()  # noqa: E731
    found = torch_engines.run_engines(linear, x, loss, (), (linear, x, x), None)
    said = found["FSDP2 (fully_shard)"].reason
    assert re.fullmatch(r"PyTorch .* can't average on CPUs; a newer one can", said)
    assert found["parallelize_module"].reason.endswith("no module called torch.distributed.tensor")
    assert found["pipelining, GPipe"].reason.endswith("NotImplementedError")
    assert found["DistributedDataParallel"] == engine


@pytest.mark.parametrize(("given", "averaged"), [(1.5, True), (3.0, False), (0.0, False)])
def test_a_backend_that_only_adds_up_is_noticed(given, averaged, monkeypatch):
    monkeypatch.setattr(torch_engines.distributed, "reduce_scatter_tensor",
                        lambda piece, x, op: piece.fill_(given))
    group = ranks.Group(0, 2)
    assert torch_engines.averages(group) is averaged

    def refuses(piece, x, op):
        raise RuntimeError("Cannot use ReduceOp.AVG with Gloo")

    monkeypatch.setattr(torch_engines.distributed, "reduce_scatter_tensor", refuses)
    assert not torch_engines.averages(group)


def test_pipelines_that_only_add_up_are_not_tried(monkeypatch):
    """The schedules of some older versions don't divide by the micro-batches, and hang on CPUs."""
    class Old:
        def __init__(self, stage, n_microbatches, loss_fn=None):
            raise AssertionError("it was tried")

    monkeypatch.setattr(torch_engines.importlib, "import_module",
                        lambda name: SimpleNamespace(Schedule1F1B=Old))
    blocks = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    assert "can't average over micro-batches" in torch_engines.pipeline_engine(
        "Schedule1F1B", blocks, None, None, ranks.Group(0, 2)).reason
    assert torch_engines.pipeline_engine("Schedule1F1B", blocks, None, None, ranks.Group(0, 3)).reason == (
        "2 blocks don't split over 3 ranks")


@pytest.mark.exhaustive
@PROCESSES_JOIN
def test_two_machines_are_tried_on_one(tmp_path):
    """Two agents of torchrun with a process each, joined over the loopback, as on two machines."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1",
               "--rdzv-backend", "c10d", "--rdzv-endpoint", f"localhost:{port}", "13_parallelism.py",
               "--no-page", "--no-code", "--outputs", str(tmp_path)]
    machines = [subprocess.Popen(command, cwd=ROOT, env=os.environ | SETTINGS, encoding="utf-8",
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    try:
        said = [machine.communicate(timeout=600) for machine in machines]
    finally:
        for machine in machines:
            machine.kill()
    assert [machine.returncode for machine in machines] == [0, 0], said
    speaking, silent = sorted((out for out, _ in said), key=len, reverse=True)
    assert "PyTorch's own engines" in speaking
    assert "What a format can hold" not in speaking
    held, total = re.search(r"(\d+) of (\d+) checks hold", speaking).groups()
    assert held == total
    assert not silent.strip()


# ------------------------------------------------------------------ the lesson


@pytest.mark.parametrize("step", [m.step_one_mean, m.step_columns_then_rows])
def test_the_steps_hold_with_another_seed(step, monkeypatch):
    monkeypatch.setattr(m, "check_part", lambda *_: None)  # has a test of its own
    torch.manual_seed(3)
    assert failures(step, 3) == []


def test_walkthrough_agrees_with_the_quickstart(course):
    run_as_documented("13_parallelism", course)

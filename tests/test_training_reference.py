"""Lesson 5's training, step by step, against the same written out here, in numbers that scale can't hide."""

import itertools
import math
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from conftest import torch_dropouts

from common import lesson
from course.console.files import unfinished
from course.training import engine, processes
from course.training.engine import Run, rows_here, save_run, seed_random, train
from course.training.parallel import Alone

m = lesson("05_mini_transformer")
CPU = torch.device("cpu")
SMALL = m.TransformerConfig(d_model=16, n_heads=2, n_layers=1)
# the gradient is far longer than the clip, the decay is strong, and the rate rises, then falls
SHORT = m.TrainingConfig(steps=9, batch_size=8, warmup=4, lr=0.01, clip=0.05, weight_decay=0.7, seed=5)


def run_of(config=SMALL, **changes) -> Run:
    return m.make_run(config, replace(SHORT, **changes), CPU)


def parameters_of(run: Run) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in run.model.parameters()]


# one update, written out


def expected_rate(step: int, training, width: int) -> float:
    if training.schedule == "inverse_sqrt":
        return width**-0.5 * min((step + 1) ** -0.5, (step + 1) * training.warmup**-1.5)
    if step < training.warmup:
        return training.lr * (step + 1) / training.warmup
    return training.lr * (training.steps - step) / (training.steps - training.warmup)


def expected_loss(logits, targets, smoothing: float):
    """The mean over real tokens of −Σ q · log p, where q is 1 − ε on the right one, plus ε/V on every one."""
    losses = []
    for row, answer in zip(logits.float(), targets.tolist()):
        for scores, token in zip(row, answer):
            if token != 0:
                log_p = scores - torch.logsumexp(scores, 0)
                losses.append(-(1 - smoothing) * log_p[token] - smoothing * log_p.sum() / len(log_p))
    return torch.stack(losses).mean()


class Reference:
    """A model of its own that takes the steps as the formulas say them; batch and rate come from the step."""

    def __init__(self, run: Run, bf16: bool = False):
        self.model = m.Transformer(run.model.config)
        self.model.load_state_dict(run.model.state_dict())
        self.training, self.bf16 = run.settings, bf16
        self.means = [torch.zeros_like(p) for p in self.model.parameters()]
        self.squares = [torch.zeros_like(p) for p in self.model.parameters()]

    def gradients(self, step: int):
        """(loss, norm before clipping, clipped gradients) of this step's batch."""
        digits = m.draw_sequences(self.training.batch_size, "train", (self.training.seed, step))
        batch = m.make_batch(self.training.task, digits)
        with torch.autocast("cpu", torch.bfloat16) if self.bf16 else nullcontext():
            logits = self.model(batch.src, batch.tgt_in)
        loss = expected_loss(logits, batch.tgt_out, self.training.label_smoothing)
        found = torch.autograd.grad(loss, [*self.model.parameters()])
        norm = math.sqrt(sum(gradient.double().square().sum().item() for gradient in found))
        return loss.item(), norm, [gradient * min(1.0, self.training.clip / norm) for gradient in found]

    def step(self, step: int):
        """One step → loss, norm, clipped gradients, rate."""
        found = self.gradients(step)
        return *found, self.move(step, found[-1])

    @torch.no_grad()
    def move(self, step: int, gradients: list[torch.Tensor]) -> float:
        """AdamW, algorithm 2 of Loshchilov and Hutter → the rate."""
        rate = expected_rate(step, self.training, self.model.config.d_model)
        for parameter, gradient, mean, square in zip(
                self.model.parameters(), gradients, self.means, self.squares, strict=True):
            mean.copy_(0.9 * mean + 0.1 * gradient)
            square.copy_(0.999 * square + 0.001 * gradient**2)
            step_size = mean / (1 - 0.9 ** (step + 1))
            spread = (square / (1 - 0.999 ** (step + 1))).sqrt()
            parameter.copy_(parameter - rate * self.training.weight_decay * parameter
                            - rate * step_size / (spread + 1e-8))
        return rate


WAYS = {"plain": {}, "accumulated": {"accumulate": 3}, "one row a part": {"accumulate": 8},
        "recomputed": {"recompute": True}, "by hand": {"by_hand": True}, "bf16": {"precision": "bf16"},
        "the paper's schedule": {"schedule": "inverse_sqrt"}, "smoothed": {"label_smoothing": 0.2},
        "another task": {"task": "sort"}, "hardly clipped": {"clip": 100.0},
        "smoothed and accumulated": {"label_smoothing": 0.2, "accumulate": 3}}


@pytest.mark.parametrize("way", WAYS)
def test_an_update_is_the_step_written_out(way):
    """Loss, noted norm, what clipping leaves in .grad, rate, and every weight after it."""
    run = run_of(**WAYS[way])
    reference = Reference(run, bf16=way == "bf16")
    near = 0.02 if way == "bf16" else 1e-4
    for step in range(3):
        run.update()
        loss, norm, gradients, rate = reference.step(step)
        assert norm > 2 * SHORT.clip
        record = run.history[-1]
        assert (record["step"], record["loss"]) == (step + 1, pytest.approx(loss, rel=near))
        assert record["gradient_norm"] == pytest.approx(norm, rel=near)
        assert record["learning_rate"] == pytest.approx(rate, rel=1e-12)
        found = torch.cat([parameter.grad.flatten() for parameter in run.model.parameters()])
        wanted = torch.cat([gradient.flatten() for gradient in gradients])
        assert (found - wanted).norm() < near * wanted.norm()
        if way != "bf16":  # Adam turns rounding in tiny gradients into whole steps: those are left out
            for parameter, own, gradient in zip(
                    parameters_of(run), reference.model.parameters(), gradients, strict=True):
                apart = (parameter - own).abs()[gradient.abs() > 1e-5 * norm] / rate
                assert (apart > 0.01).float().sum() <= 0.02 * apart.numel()
        run.model.load_state_dict(reference.model.state_dict())


@pytest.mark.parametrize("schedule", ["linear", "inverse_sqrt"])
@pytest.mark.parametrize(("steps", "warmup"), [(9, 4), (20, 1), (50, 49), (30, 10)])
def test_the_whole_schedule_is_its_formula_and_is_what_a_job_asks(schedule, steps, warmup):
    training = replace(SHORT, steps=steps, warmup=warmup, schedule=schedule)
    run = m.make_run(SMALL, training, CPU)
    wanted = [expected_rate(step, training, 16) for step in range(steps)]
    assert [run.job.rate(step) for step in range(steps)] == pytest.approx(wanted, rel=1e-12)
    assert min(wanted) > 0


def test_without_a_warm_up_the_first_rate_is_the_highest_and_a_short_run_ends_on_the_way_up():
    rates = [m.learning_rate(step, replace(SHORT, steps=4, warmup=0), 16) for step in range(4)]
    assert rates == pytest.approx([0.01, 0.0075, 0.005, 0.0025])
    rates = [m.learning_rate(step, replace(SHORT, steps=3, warmup=10), 16) for step in range(3)]
    assert rates == pytest.approx([0.001, 0.002, 0.003])


def test_bf16_is_only_in_the_forward_and_only_if_asked():
    kinds = []
    for precision in "bf16", "fp32":
        run = run_of(precision=precision)
        loss_of = run.job.loss
        run.job = replace(run.job, loss=lambda forward, part, whole, loss_of=loss_of: (
            kinds.append(torch.is_autocast_enabled("cpu")) or loss_of(
                lambda *inputs: kinds.append(forward(*inputs).dtype) or forward(*inputs), part, whole)))
        run.update()
        assert {p.grad.dtype for p in run.model.parameters()} == {torch.float32}
    assert kinds == [False, torch.bfloat16, False, torch.float32]


def test_recomputing_runs_each_block_twice_and_only_the_blocks():
    counts = {}
    for recompute in (False, True):
        run, called = run_of(recompute=recompute), []
        for name in ("encoder.blocks.0", "decoder.blocks.0", "decoder.norm"):
            run.model.get_submodule(name).register_forward_pre_hook(
                lambda module, inputs, name=name, called=called: called.append(name))
        for module in (run.model.encoder.blocks[0], run.model.decoder.blocks[0]):
            attention = module.self_attention
            attention.register_forward_hook(lambda *_, called=called: called.append("inside"))
        run.update()
        counts[recompute] = called.count("inside"), called.count("decoder.norm")
    assert counts == {False: (2, 1), True: (4, 1)}


def test_parts_of_a_batch_are_as_many_as_asked():
    for accumulate in (1, 2, 4):
        run, sizes = run_of(accumulate=accumulate), []
        run.model.register_forward_pre_hook(lambda model, inputs, sizes=sizes: sizes.append(len(inputs[0])))
        run.update()
        assert sizes == [8 // accumulate] * accumulate


# dropout


def test_dropout_stands_where_the_paper_has_it_and_nowhere_else(monkeypatch):
    """Sums of embedding and position, weights, the inside of feed-forwards, and what joins a path."""
    config = replace(SMALL, n_layers=2, dropout=0.125)
    batch = m.draw_batch("copy", 3, "train", (0,))
    width, inner, source, target = 16, 64, batch.src.shape[1], batch.tgt_in.shape[1]

    def layer(queries: int, keys: int) -> list[tuple]:
        return [("weights", queries, keys), ("sum", queries, width)]

    def feed_forward(places: int) -> list[tuple]:
        return [("sum", places, inner), ("sum", places, width)]

    wanted = [("sum", source, width), *2 * (layer(source, source) + feed_forward(source)),
              ("sum", target, width),
              *2 * (layer(target, target) + layer(target, source) + feed_forward(target))]
    for norm, positions in itertools.product(("pre", "post"), ("sinusoidal", "learned", "rotary", "none")):
        model = m.Transformer(replace(config, norm=norm, positions=positions))
        with torch_dropouts(monkeypatch) as seen:
            model(batch.src, batch.tgt_in)
        assert {share for _, share in seen} == {0.125}
        assert [place for place, _ in seen] == wanted
        with torch_dropouts(monkeypatch) as seen:
            model.eval()(batch.src, batch.tgt_in)
            m.Transformer(replace(config, norm=norm, dropout=0.0))(batch.src, batch.tgt_in)
        assert seen == []


def test_every_part_of_every_step_drops_its_own_share(monkeypatch):
    """Random numbers begin anew with seed, step and part, each time others."""
    origins = []
    monkeypatch.setattr(engine, "seed_random", lambda device, *origin: origins.append(origin))
    for rank in (0, 1):
        run = played(monkeypatch, run_of(accumulate=2, seed=3), rank, 2)
        for _ in range(2):
            run.update()
    assert origins == [(3, step, 0, 2 * rank + part) for rank in (0, 1) for step in (0, 1) for part in (0, 1)]


def test_random_numbers_follow_every_number_of_their_origin():
    drawn = set()
    for origin in (0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1), (0, 0, 0):
        seed_random(CPU, *origin)
        drawn.add(torch.rand(()).item())
        seed_random(CPU, *origin)
        assert torch.rand(()).item() in drawn
    assert len(drawn) == 6 - 1  # SeedSequence fills up with zeros: the last is the first
    for kind, other in ("cuda", torch.cuda), ("mps", torch.mps):
        seeds = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(other, "manual_seed", seeds.append)
            seed_random(torch.device(kind), 1, 2)
        seed_random(CPU, 1, 2)
        assert seeds == [torch.default_generator.initial_seed()]


# several processes, played one after the other


def as_process(monkeypatch, rank: int, count: int) -> None:
    monkeypatch.setattr(processes, "RANK", rank)
    monkeypatch.setattr(processes, "PROCESSES", count)


def played(monkeypatch, run: Run, rank: int, count: int) -> Run:
    """The run as one of several processes would train it that never hear of each other."""
    monkeypatch.setattr(engine, "sum_over_processes", lambda total: total)
    sharing = Alone(run)
    sharing.rank, sharing.processes = rank, count
    vars(run)["sharing"] = sharing
    return run


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_processes_share_out_the_rows_and_their_shares_add_up(monkeypatch, count, accumulate):
    reference = Reference(run_of(label_smoothing=0.1))
    loss, _, wanted = reference.gradients(0)
    scale = torch.cat([gradient.flatten() for gradient in wanted]).norm()
    losses, sums, rows = [], [torch.zeros_like(gradient) for gradient in wanted], []
    for rank in range(count):
        run = played(monkeypatch, run_of(label_smoothing=0.1, accumulate=accumulate), rank, count)
        batch = run.job.batch(0)
        rows += [row for _, part, counts in rows_here(batch, accumulate, rank, count) if counts
                 for row in part.src.tolist()]
        run.optimizer.zero_grad()
        losses.append(run.backward(0))
        for total, parameter in zip(sums, run.model.parameters(), strict=True):
            total += parameter.grad / count  # the engines average
    assert sorted(rows) == sorted(batch.src.tolist())
    assert sum(losses) == pytest.approx(loss, rel=1e-5)
    found = torch.cat([total.flatten() for total in sums])
    clipped = torch.cat([gradient.flatten() for gradient in wanted])
    assert torch.allclose(found / found.norm() * scale, clipped, atol=1e-5 * scale.item())


@pytest.mark.parametrize("mine", [False, True])
@pytest.mark.parametrize("theirs", [False, True])
def test_processes_end_together(monkeypatch, mine, theirs):
    as_process(monkeypatch, 1, 2)
    monkeypatch.setattr(processes.distributed, "all_reduce", lambda total: total.add_(float(theirs)))
    assert processes.any_process(mine, CPU) is (mine or theirs)


def test_only_the_first_process_speaks(monkeypatch):
    told = []
    monkeypatch.setattr(processes.distributed, "broadcast_object_list",
                        lambda message: told.append(message[0]) or message.__setitem__(0, "scores"))
    for rank, said in ((0, 1), (1, None)):
        as_process(monkeypatch, rank, 2)
        called = []
        assert processes.said_by_the_first(lambda called=called: called.append(1) or 1) == "scores"
        assert (told.pop(), len(called)) == (said, 1 - rank)


def test_only_the_first_process_writes(monkeypatch, tmp_path):
    run = run_of()
    monkeypatch.setattr(processes.distributed, "broadcast_object_list", lambda message: None)
    played(monkeypatch, run, 1, 2)
    as_process(monkeypatch, 1, 2)
    save_run(run, tmp_path / "run.pt")
    assert not list(tmp_path.iterdir())
    as_process(monkeypatch, 0, 2)
    save_run(run, tmp_path / "run.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["run.pt.unfinished"]


def test_what_the_first_process_cannot_write_ends_all(monkeypatch):
    """The first raises the error, in words; the others end silently with the same code."""

    def write():
        raise OSError(28, "No space left on device", "run.pt")

    monkeypatch.setattr(processes.distributed, "broadcast_object_list",
                        lambda message: message.__setitem__(0, True))
    as_process(monkeypatch, 0, 2)
    with pytest.raises(OSError, match="No space left"):
        processes.done_by_the_first(write)
    as_process(monkeypatch, 1, 2)
    with pytest.raises(SystemExit) as ended:
        processes.done_by_the_first(write)
    assert ended.value.code == 1


# the run around the updates


def test_validations_come_after_every_so_many_steps_and_after_the_last(tmp_path):
    run = run_of(validate_every=4)
    saved = []
    train(run, tmp_path / "run.pt", lambda run: saved.append(len([*tmp_path.iterdir()])))
    assert [record["step"] for record in run.history if "exact_match" in record] == [4, 8, 9]
    assert saved == [0, 0, 0, 0, 1, 1, 1, 1, 1]  # a file from the first validation on
    assert [path.name for path in tmp_path.iterdir()] == ["run.pt"]


def test_an_interrupt_in_any_process_ends_the_run_and_keeps_it(monkeypatch, tmp_path):
    run = run_of()
    monkeypatch.setattr(engine, "any_process", lambda flag, device: len(run.history) >= 3)
    train(run, tmp_path / "run.pt")
    assert (len(run.history), run.finished) == (3, False)
    assert unfinished(tmp_path / "run.pt").exists()


def test_a_run_validates_on_sequences_of_its_own_seed(monkeypatch):
    seen = []
    monkeypatch.setattr(m, "evaluate", lambda model, batch: seen.append(batch) or m.Scores(
        1.0, 2.0, 3.0, torch.tensor([True, False, False, False]), torch.zeros(4)))
    run = run_of(task="sort", batch_size=8)
    run.update()
    run.validate()
    scores = {"validation_loss": 1.0, "token_accuracy": 2.0, "forced_match": 0.25, "exact_match": 3.0}
    assert run.scores == scores
    assert scores.items() <= run.history[-1].items()
    (found,) = seen
    wanted = m.make_batch("sort", m.draw_sequences(100, "validation", (5,)))
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_the_seed_decides_about_first_weights_and_data():
    first, second, other = run_of(seed=1), run_of(seed=1), run_of(seed=2)
    assert all(map(torch.equal, parameters_of(first), parameters_of(second)))
    assert not torch.equal(parameters_of(first)[0], parameters_of(other)[0])
    assert torch.equal(first.job.batch(0).src, second.job.batch(0).src)
    batches = [run.job.batch(step).src for run in (first, other) for step in (0, 1)]
    assert len({str(batch.tolist()) for batch in batches}) == 4

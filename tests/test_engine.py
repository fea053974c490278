"""The engine, on models that know nothing of digits."""

import math
import os
import subprocess
import sys
from dataclasses import replace
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from course.console.files import load_checkpoint, unfinished
from course.training.engine import Job, Run, Settings, finish, rows_here, save_run, summary, train
from course.training.processes import sum_over_processes

CPU = torch.device("cpu")
SETTINGS = Settings(steps=12, validate_every=4)


class Rows(NamedTuple):
    x: Tensor
    y: Tensor
    weight: Tensor


def batch(step: int, rows: int = 7) -> Rows:
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(rows, 3, generator=generator)
    return Rows(x, (x.sum(1) > 0).long(), torch.rand(rows, generator=generator))


def loss(forward, part: Rows, whole: Rows) -> Tensor:
    """A mean over the batch with two normalisers: weights, and the number of rows."""
    logits = forward(part.x)
    plain = F.cross_entropy(logits.float(), part.y, reduction="none")
    return (plain * part.weight).sum() / whole.weight.sum() + 0.1 * logits.square().sum() / len(whole.x)


def validate(model: nn.Module) -> dict[str, float]:
    assert not model.training
    rows = batch(10**6)
    return {"validation_loss": loss(model, rows, rows).item()}


def classifier(dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.Dropout(dropout), nn.Tanh(), nn.Linear(8, 2))


def adamw(parameters):
    return torch.optim.AdamW(parameters, lr=0.0, weight_decay=0.1)


def rate(step: int) -> float:
    return 0.1 / (step + 1)


JOB = Job(batch, loss, rate, adamw, validate)


def run_of(settings=SETTINGS, job=JOB, dropout=0.0) -> Run:
    return Run(classifier(dropout), job, settings, CPU, {"name": "rows"})


def weights(run: Run) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in run.model.state_dict().values()])


# one update, against the step written out


def reference_step(model, optimizer, step: int, clip: float) -> tuple[float, float, Tensor]:
    """Loss, norm before clipping and gradient after it, of a plain step."""
    rows = batch(step)
    optimizer.zero_grad()
    value = loss(model, rows, rows)
    value.backward()
    norm = clip_grad_norm_(model.parameters(), clip).item()
    gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
    for group in optimizer.param_groups:
        group["lr"] = rate(step)
    optimizer.step()
    return value.item(), norm, gradient


def test_updates_are_the_plain_step_bit_for_bit():
    run, model = run_of(replace(SETTINGS, clip=0.2)), classifier()
    optimizer = adamw(model.parameters())
    for step in range(12):
        value, norm, gradient = reference_step(model, optimizer, step, 0.2)
        run.update()
        record = run.history[-1]
        assert (record["step"], record["loss"], record["gradient_norm"]) == (step + 1, value, norm)
        assert record["learning_rate"] == rate(step)
        assert torch.equal(torch.cat([p.grad.flatten() for p in run.model.parameters()]), gradient)
        assert torch.equal(weights(run), torch.cat([t.flatten() for t in model.state_dict().values()]))


@pytest.mark.parametrize("accumulate", [2, 3, 7, 20])
def test_parts_of_a_batch_add_up_even_where_some_are_empty(accumulate):
    whole, parts = run_of(), run_of(replace(SETTINGS, accumulate=accumulate))
    for _ in range(3):
        whole.update()
        parts.update()
    assert torch.allclose(weights(whole), weights(parts), rtol=0, atol=1e-6)
    assert whole.noted("loss") == pytest.approx(parts.noted("loss"), abs=1e-6)


def test_rows_here_share_out_all_rows_once():
    rows = batch(0)
    parts = [part for number, part, counts in rows_here(rows, 3)]
    assert torch.equal(torch.cat([part.x for part in parts]).sort(0).values, rows.x.sort(0).values)
    assert [len(part.x) for part in parts] == [3, 2, 2]


def test_processes_run_as_many_parts_each_and_share_out_all_rows_once():
    """The parts are those of one process that cuts the batch into as many; one without rows counts 0."""
    rows, found = batch(0), [list(rows_here(batch(0), 4, rank, 2)) for rank in (0, 1)]
    assert [[number for number, _, _ in parts] for parts in found] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert [[counts for _, _, counts in parts] for parts in found] == [[1, 1, 1, 1], [1, 1, 1, 0]]
    together = [part for parts in found for _, part, counts in parts if counts]
    alone = [part for _, part, _ in rows_here(rows, 8)]
    assert len(alone) == len(together) == 7
    assert all(torch.equal(one.x, other.x) for one, other in zip(alone, together))


def test_recomputing_changes_nothing_and_leaves_the_blocks_as_they_were():
    model = classifier(dropout=0.3)
    job = replace(JOB, blocks=[model[0], model[1]])
    run, plain = Run(model, job, replace(SETTINGS, recompute=True), CPU), run_of(dropout=0.3)
    for _ in range(4):
        run.update()
        plain.update()
    assert torch.equal(weights(run), weights(plain))
    assert "forward" not in vars(model[0])


def test_bf16_is_near_and_not_the_same():
    run, plain = run_of(replace(SETTINGS, precision="bf16")), run_of()
    run.update()
    plain.update()
    assert run.history[0]["loss"] == pytest.approx(plain.history[0]["loss"], abs=0.02)
    assert run.history[0]["loss"] != plain.history[0]["loss"]
    assert all(p.dtype == torch.float32 for p in run.model.parameters())


def test_frozen_parameters_stay_and_scaled_groups_move_more_slowly():
    model = classifier()
    model[0].requires_grad_(False)
    before = model[0].weight.clone()

    def groups(trained):
        assert len(trained) == 2
        return torch.optim.SGD([{"params": trained[:1], "scale": 0.0}, {"params": trained[1:]}], lr=1.0)

    run = Run(model, replace(JOB, optimizer=groups), SETTINGS, CPU)
    last, bias = model[3].weight.clone(), model[3].bias.clone()
    finish(run)
    assert torch.equal(model[0].weight, before)
    assert torch.equal(model[3].weight, last)  # its rate is multiplied by 0
    assert not torch.equal(model[3].bias, bias)


def test_validation_sees_the_model_without_dropout_and_leaves_it_training():
    run = run_of(dropout=0.5)
    train(run)
    assert run.model.training
    assert [r["step"] for r in run.history if "validation_loss" in r] == [4, 8, 12]


def test_the_hook_runs_after_each_update_with_gradients_in_place():
    seen = []
    train(run_of(), after=lambda run: seen.append((len(run.history), run.trained[0].grad is not None)))
    assert seen == [(step, True) for step in range(1, 13)]


# ends


def test_patience_stops_a_run_that_gets_no_better():
    run = run_of(replace(SETTINGS, patience=2))
    run.history = [{"validation_loss": loss} for loss in (3.0, 1.0, 2.0)]
    assert not run.finished
    run.history.append({"validation_loss": 0.9})
    assert not run.finished
    for losses in (3.0, 1.0, 2.0, 1.5), (3.0, 1.0, 1.0, 1.0), (3.0, 1.0, math.nan, math.nan):
        run.history = [{"validation_loss": loss} for loss in losses]
        assert run.finished


def test_a_number_that_is_not_finite_stops_the_run_before_the_step(tmp_path):
    run = run_of()
    for _ in range(3):
        run.update()
    before = weights(run).clone()
    run.job = replace(JOB, loss=lambda *arguments: loss(*arguments) * float("nan"))
    with pytest.raises(FloatingPointError, match="step 4"):
        train(run, tmp_path / "run.pt")
    other = run_of()
    load_checkpoint(unfinished(tmp_path / "run.pt"), other.load)
    assert torch.equal(weights(other), before)
    assert len(other.history) == 3


# keeping and going on


@pytest.mark.parametrize("stop", [1, 5, 11])
def test_a_resumed_run_goes_on_bit_for_bit_with_dropout(tmp_path, stop):
    whole, half = finish(run_of(dropout=0.4)), run_of(dropout=0.4)
    for _ in range(stop):
        half.update()
    save_run(half, tmp_path / "run.pt")
    resumed = run_of(dropout=0.4)
    torch.manual_seed(99)
    torch.randn(17)
    load_checkpoint(unfinished(tmp_path / "run.pt"), resumed.load)
    finish(resumed)
    assert torch.equal(weights(resumed), weights(whole))
    assert resumed.noted("loss") == whole.noted("loss")


def test_dropout_depends_on_the_seed_and_differs_from_step_to_step():
    def losses(seed):
        job = replace(JOB, batch=lambda step: batch(0), rate=lambda step: 0.0)
        return finish(run_of(replace(SETTINGS, seed=seed), job, dropout=0.5)).noted("loss")

    assert losses(0) == losses(0)
    assert losses(0) != losses(1)
    assert len(set(losses(0))) > 8


def test_an_unfinished_run_leaves_the_finished_one_alone(tmp_path):
    path = tmp_path / "run.pt"
    save_run(finish(run_of()), path)
    before = path.read_bytes()
    short = run_of()
    short.update()
    save_run(short, path)
    assert path.read_bytes() == before
    assert unfinished(path).exists()
    save_run(finish(run_of()), path)
    assert not unfinished(path).exists()


@pytest.mark.parametrize("changes", [{"steps": -1}, {"clip": 0.0}, {"clip": float("nan")}, {"accumulate": 0},
                                     {"precision": "fp8"}, {"validate_every": 0}, {"patience": -1}])
def test_settings_that_make_no_sense_are_named(changes):
    (name,) = changes
    with pytest.raises(ValueError, match=name):
        Settings(**changes)


# several processes


def test_alone_nothing_is_added():
    assert sum_over_processes(torch.tensor(2.0)) == 2


TWO = """
import sys
import torch
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_engine import SETTINGS, replace, run_of, CPU
from course.training.engine import train
from course.console.files import load_checkpoint, unfinished
from course.training.processes import all_processes

torch.set_num_threads(1)
folder = Path(sys.argv[1])
with all_processes():
    whole = train(run_of(dropout=0.4), folder / "whole.pt")
    half = run_of(dropout=0.4)
    while len(half.history) < 5:
        half.update()
    from course.training.engine import save_run
    from torch import distributed
    save_run(half, folder / "half.pt")
    distributed.barrier()
    resumed = run_of(dropout=0.4)
    load_checkpoint(unfinished(folder / "half.pt"), resumed.load)
    train(resumed, folder / "resumed.pt")
    plain = train(run_of(), folder / "plain.pt")
    rare = run_of(replace(SETTINGS, accumulate=5))  # more parts than rows: some ranks have none
    train(rare, folder / "rare.pt")
"""


@pytest.mark.exhaustive
def test_two_processes_resume_bit_for_bit_and_train_like_one(tmp_path):
    script = tmp_path / "two.py"
    script.write_text(TWO.format(tests=str(ROOT / "tests")))
    process = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script),
         str(tmp_path)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"},
        capture_output=True, encoding="utf-8", timeout=180,
    )
    assert process.returncode == 0, process.stderr[-2000:]
    found = {name: load_checkpoint(tmp_path / f"{name}.pt", lambda state: state)
             for name in ("whole", "resumed", "plain", "rare")}
    for name, tensor in found["whole"]["model"].items():
        assert torch.equal(tensor, found["resumed"]["model"][name]), name
    one = finish(run_of())
    for name, tensor in one.model.state_dict().items():
        assert torch.allclose(tensor, found["plain"]["model"][name], rtol=0, atol=1e-5), name
        assert torch.allclose(tensor, found["rare"]["model"][name], rtol=0, atol=1e-5), name
    dropped = finish(run_of(dropout=0.4)).model.state_dict()
    assert not all(torch.equal(dropped[name], t) for name, t in found["whole"]["model"].items())


def test_the_progress_says_after_which_step_the_scores_were_found():
    """Else the loss of one step would stand beside the validation loss of another."""
    run = Run(classifier(), JOB, SETTINGS, CPU)
    run.update()
    assert "validation" not in summary(run)
    run.validate()
    assert "validation loss" in summary(run)
    assert "after" not in summary(run)
    run.update()
    assert "(after 1)" in summary(run)


@pytest.mark.parametrize("seconds", [0.001, 0.04, 1.0, 2.5, 40.0])
def test_the_speed_is_that_of_the_latest_steps_in_steps_or_in_seconds(seconds):
    run = Run(classifier(), JOB, SETTINGS, CPU)
    run.history = [{"step": step + 1, "loss": 1.0, "seconds": 900.0 if step < 5 else seconds}
                   for step in range(25)]
    *_, said = summary(run).split(", ")
    number, unit = said.split(" ", 1)
    assert unit == ("steps/s" if seconds <= 1 else "s per step")
    assert float(number.replace(",", "")) == pytest.approx(1 / seconds if seconds <= 1 else seconds)


@pytest.mark.parametrize("steps", [0, 1, 4, 5])
def test_a_trained_run_is_in_its_file_however_many_steps_there_were(steps, tmp_path):
    """None at all, fewer than to the first validation, or some after the last."""
    path, settings = tmp_path / "run.pt", replace(SETTINGS, steps=steps)
    run = train(run_of(settings), path)
    again = run_of(settings)
    load_checkpoint(path, again.load)
    assert again.finished
    assert len(again.history) == steps
    assert again.history == run.history
    assert torch.equal(weights(again), weights(run))
    assert [*tmp_path.iterdir()] == [path]

"""The training engine, for any model. Nothing in it depends on digits, words, encoders or decoders.

A Job defines what is trained on what: the batch of each step, a loss over parts of a batch, learning rates,
an optimiser, a validation. Settings say how long and how carefully to train. A Run is a training run in
progress, with everything that a checkpoint holds; train() completes it.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.checkpoint import checkpoint

from course.console.files import Unusable, load_checkpoint, save_checkpoint, set_aside, unfinished
from course.console.narrator import progress_bar
from course.console.options import check_limits, option
from course.training.memory import out_of_memory
from course.training.parallel import Alone, clip_gradients, engine_for, one_kind_each, whole
from course.training.processes import (
    any_process,
    done_by_the_first,
    interruptible,
    noticing_lost_processes,
    said_by_the_first,
    sum_over_processes,
)

Measures = dict[str, float]


@dataclass(frozen=True)
class Settings:
    """How a run is trained. ValueError, with the value, for a setting that makes no sense."""

    steps: int = option(500, "training steps", least=0, below=10**7)
    clip: float = option(1.0, "largest norm of the gradient of all parameters", above=0)
    accumulate: int = option(1, "parts into which a batch is split to save memory", least=1)
    precision: str = option("fp32", "fp32, or bf16 or fp16 for matrix products in 16 bits",
                            among=("fp32", "bf16", "fp16"))
    recompute: bool = option(False, "recompute activations in the backward pass, to save memory")
    compile: bool = option(False, "compile the model with torch.compile (needs a C++ compiler)")
    validate_every: int = option(50, "steps from one validation to the next", least=1)
    patience: int = option(0, "stop after this many validations without a lower loss (0: never)", least=0)
    seed: int = option(0, least=0)

    def __post_init__(self):
        check_limits(self)


@dataclass(frozen=True)
class Job:
    """What is trained on what.

    batch(step) returns a named tuple of tensors, rows first, and depends only on the step. loss(forward,
    part, whole) is the part's contribution to the mean over the whole batch; forward(…) calls the model.
    rate(step) is the learning rate; a parameter group may multiply it by its "scale". validate(model) returns
    scores: patience depends on "validation_loss", and the progress bar shows the first and the last score.
    `blocks` are the modules that --recompute runs again.
    """

    batch: Callable[[int], Any]
    loss: Callable[[Callable, Any, Any], Tensor]
    rate: Callable[[int], float]
    optimizer: Callable[[list[nn.Parameter]], Optimizer]
    validate: Callable[[nn.Module], Measures]
    blocks: Sequence[nn.Module] = ()


class Run:
    """A training run in progress. `about` is what a checkpoint says about it: plain values.

    `left_out` names the weights that no checkpoint holds, because the model starts from them. `parallel` is
    the name of the engine with which several processes share the training, from the first update on.
    """

    parallel = "data"

    def __init__(self, model: nn.Module, job: Job, settings: Settings, device: torch.device,
                 about: dict[str, Any] | None = None, left_out: frozenset[str] = frozenset()):
        self.model, self.job, self.settings, self.device = model.to(device), job, settings, device
        self.about, self.left_out = about or {}, left_out
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = job.optimizer(self.trained)
        self.scaler = torch.amp.GradScaler(device.type, enabled=settings.precision == "fp16")
        self.history: list[Measures] = []  # one record per step
        self.scores: Measures = {}  # of the latest validation
        self.scored_at = 0  # the steps done by then
        if settings.compile:
            self.model.compile(dynamic=True)

    @cached_property
    def sharing(self) -> Alone:
        """The engine with which the processes share the training."""
        return engine_for(self)

    @property
    def finished(self) -> bool:
        """Whether all steps are done, or `patience` validations have brought no lower loss."""
        patience, losses = self.settings.patience, self.noted("validation_loss")
        if len(self.history) >= self.settings.steps or not patience:
            return len(self.history) >= self.settings.steps
        return len(losses) > patience and not min(losses[-patience:]) < min(losses[:-patience])

    def noted(self, name: str) -> list[float]:
        """Every value of this name in the history, in the order of the steps."""
        return [record[name] for record in self.history if name in record]

    def update(self) -> None:
        """Run one step and record it in the history; the parameters keep their gradients.

        FloatingPointError, before any parameter has changed, if the loss or the gradient isn't finite. In
        float16 a gradient that isn't finite halves the loss scale of the next steps, and this step updates
        no parameter: its norm and rate are recorded as 0.
        """
        started, step, sharing = time.perf_counter(), len(self.history), self.sharing
        if not sharing.rehearsed:
            self.backward(step)
            sharing.rehearsed = True
        self.optimizer.zero_grad()
        loss, scale = self.backward(step), self.scaler.get_scale()
        self.scaler.unscale_(self.optimizer)
        norm = clip_gradients(self.trained, self.settings.clip)
        overflow = not math.isfinite(norm) and scale > 1  # of the scaled gradients
        if not math.isfinite(loss) or (not math.isfinite(norm) and not overflow):
            raise FloatingPointError(f"step {step + 1}: the loss is {loss}, the gradient's norm {norm}")
        norm, rate = (0.0, 0.0) if overflow else (norm, self.job.rate(step))
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("scale", 1.0)
        with one_kind_each(self.optimizer) if sharing.cut else nullcontext():
            if not overflow:
                self.optimizer.step()
        self.scaler.update()
        scaled = {"loss_scale": scale} if self.scaler.is_enabled() else {}
        self.history.append({"step": step + 1, "loss": loss, "gradient_norm": norm, "learning_rate": rate,
                             "seconds": time.perf_counter() - started} | scaled)

    def backward(self, step: int) -> float:
        """Compute the gradient of the batch's loss with respect to the parameters, and return that loss.

        The batch may be split into parts, also over several processes; their contributions are summed.
        """
        batch, sharing, parts = self.job.batch(step), self.sharing, self.settings.accumulate
        whole = batch._make(tensor.to(self.device) for tensor in batch)
        total = torch.zeros((), device=self.device)
        with recomputed(self.job.blocks if self.settings.recompute else ()):
            for number, part, counts in rows_here(whole, parts, sharing.rank, sharing.processes):
                seed_random(self.device, self.settings.seed, step, 0, number)
                with sharing.part(last=number % parts == parts - 1):
                    loss = self.job.loss(self.forward, part, whole) * counts
                    self.scaler.scale(loss * sharing.factor).backward()
                total += loss.detach()
        return (sum_over_processes(total) if sharing.processes > 1 else total).item()

    def forward(self, *inputs: Any) -> Any:
        """The model's output; matrix products run in 16 bits if the settings ask for it."""
        kind = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.settings.precision)
        with torch.autocast(self.device.type, kind) if kind else nullcontext():
            return self.sharing.forward(*inputs)

    @property
    def validation_due(self) -> bool:
        """True after every `validate_every` steps, and after the last one."""
        done = len(self.history)
        return done % self.settings.validate_every == 0 or done == self.settings.steps

    def validate(self) -> None:
        """Record the validation scores of the model, without dropout.

        The first process computes them; with fsdp all do, because each has only part of the weights.
        """
        model = self.sharing.validated()

        def scores() -> Measures:
            was_training = model.training
            model.eval()
            try:
                with torch.no_grad():
                    return self.job.validate(model)
            finally:
                model.train(was_training)

        found = scores() if self.sharing.together else None
        self.scores = said_by_the_first(lambda: found or scores())
        self.scored_at = len(self.history)
        self.history[-1] |= self.scores

    def state(self) -> dict[str, Any]:
        """Plain values and tensors from which load() continues as if never interrupted.

        They are the same for any number of processes. If weights are sharded, all processes take part, and
        only the first one has the tensors.
        """
        state = {"about": self.about, "model": self.weights(),
                 "optimizer": self.optimizer.state_dict(), "history": self.history}
        state |= {"scaler": self.scaler.state_dict()} if self.scaler.is_enabled() else {}
        return whole(state) if self.sharing.cut else state

    def weights(self) -> dict[str, Tensor]:
        """The weights that a checkpoint holds."""
        return {name: weight for name, weight in self.model.state_dict().items() if name not in self.left_out}

    def load(self, state: dict[str, Any]) -> None:
        """Continue from a state. Raises Unusable, with the reason, if no run of this kind has saved it."""
        check_history(state["history"], self.settings.steps)
        check_weights(state["model"], self.weights())
        check_optimizer(state["optimizer"], self.optimizer.state_dict(), self.trained)
        self.model.load_state_dict(state["model"], strict=not self.left_out)
        self.optimizer.load_state_dict(state["optimizer"])
        self.history = [dict(record) for record in state["history"]]
        if self.scaler.is_enabled():
            check_scaler(state.get("scaler"), self.scaler.state_dict())
            self.scaler.load_state_dict(state["scaler"])


NOTED = "step", "loss", "gradient_norm", "learning_rate", "seconds"  # in the record of every step


def check_history(history: Any, steps: int) -> None:
    """Raise Unusable unless it is a list of records, one per step from 1 on, of names and numbers."""
    if not isinstance(history, list) or len(history) > steps:
        raise Unusable(f"its history isn't one of at most {steps} steps")
    for number, record in enumerate(history, 1):
        if not isinstance(record, dict) or not all(
                isinstance(name, str) and type(value) in (int, float) for name, value in record.items()):
            raise Unusable(f"record {number} of its history doesn't map names to numbers")
        missing = [name for name in NOTED if not math.isfinite(record.get(name, math.nan))]
        if missing or record["step"] != number:
            raise Unusable(f"record {number} of its history lacks {', '.join(missing) or 'its number'}")


def check_weights(saved: Any, ours: dict[str, Tensor]) -> None:
    """Raise Unusable unless each of ours has a tensor of its shape and dtype, without NaN or ∞."""
    if not isinstance(saved, dict) or saved.keys() != ours.keys():
        raise Unusable("its weights aren't those of this model")
    for name, tensor in ours.items():
        if not fits(saved[name], tensor):
            raise Unusable(f"its {name} isn't {tuple(tensor.shape)} finite numbers of {tensor.dtype}")


def check_optimizer(saved: Any, ours: dict[str, Any], trained: list[nn.Parameter]) -> None:
    """Raise Unusable unless its options are ours, and each state is a number or has its parameter's shape."""
    groups = saved.get("param_groups") if isinstance(saved, dict) else None
    if not isinstance(groups, list) or len(groups) != len(ours["param_groups"]):
        raise Unusable("its optimiser isn't the one of this run")
    for group, own in zip(groups, ours["param_groups"]):
        differing = [name for name, value in own.items() if name in group and name not in ("lr", "initial_lr")
                     and (type(group[name]), group[name]) != (type(value), value)]
        if differing or group.keys() < {"lr", "params"} or not isinstance(group["lr"], float):
            raise Unusable(f"its optimiser differs in {', '.join(differing) or 'learning rate'}")
    states = saved.get("state")
    if not isinstance(states, dict) or not states.keys() <= {*range(len(trained))}:
        raise Unusable("its optimiser has states for other parameters")
    for number, state in states.items():
        for name, value in state.items() if isinstance(state, dict) else [("state", state)]:
            like = trained[number] if getattr(value, "ndim", 0) else torch.zeros(())
            if value is not None and type(value) is not int and not fits(value, like):
                raise Unusable(f"its optimiser's {name} of parameter {number} doesn't fit")


def check_scaler(saved: Any, ours: dict[str, Any]) -> None:
    """Raise Unusable unless it has the loss scale, and its growth settings, as ours does."""
    if (not isinstance(saved, dict) or saved.keys() != ours.keys()
            or any(type(saved[name]) is not type(value) or not 0 <= saved[name] < math.inf
                   for name, value in ours.items()) or not saved["scale"]):
        raise Unusable("it lacks the scale of the losses")


def fits(value: Any, ours: Tensor) -> bool:
    """Whether it is a tensor of the same shape and type with only finite numbers."""
    return (isinstance(value, Tensor) and value.shape == ours.shape and value.dtype == ours.dtype
            and bool(value.isfinite().all()))


def train(run: Run, path: Path | None = None, after: Callable[[Run], None] | None = None) -> Run:
    """Train until the run is finished, or until Ctrl-C or SIGTERM; then run.finished is False.

    With a path the run is saved after each validation, under another name until it is finished. after(run) is
    called after each update. FloatingPointError, with the run saved as it was before that step, if the loss
    or the gradient isn't finite. MemoryError if memory runs out, ProcessLost if another process has ended;
    what was saved before is kept.
    """
    label = str(run.about.get("name", "training"))
    with (progress_bar(label, run.settings.steps) as report, interruptible() as interrupted,
          noticing_lost_processes()):
        while not run.finished and not any_process(interrupted(), run.device):
            try:
                run.update()
            except FloatingPointError:
                save_run(run, path)
                raise
            except (MemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
                raise MemoryError(f"step {len(run.history) + 1}: out of memory") from error
            if after:
                after(run)
            if run.validation_due:
                run.validate()
                save_run(run, path)
            report(len(run.history), summary(run))
        if not run.history or not run.validation_due:
            save_run(run, path)
    return run


def finish(run: Run) -> Run:
    """Train until the run is finished, without validations, output or files."""
    while not run.finished:
        run.update()
    return run


def summary(run: Run) -> str:
    """The progress of the run: step, loss, the latest scores, steps per second."""
    recent = run.history[-20:]
    named = [f"{name.replace('_', ' ')} {value:.3g}" for name, value in run.scores.items()]
    scores = list(dict.fromkeys(named[:1] + named[-1:]))
    if scores and run.scored_at != len(run.history):
        scores[-1] += f" (after {run.scored_at})"
    speed = len(recent) / sum(record["seconds"] for record in recent)
    parts = [f"{len(run.history)}/{run.settings.steps}", f"loss {recent[-1]['loss']:.3f}", *scores,
             f"{speed:,.0f} steps/s" if speed >= 1 else f"{1 / speed:,.1f} s per step"]
    return ", ".join(parts)


def save_run(run: Run, path: Path | None) -> None:
    """Save the run to `path`, atomically; if there are several processes, only the first one writes.

    An unfinished run goes to the file …unfinished next to `path`, and a finished run at `path` is kept. A
    finished run replaces that one; if its weights differ, the old one is kept under another name.
    """
    if path is None:
        return
    state = run.state()

    def write() -> None:
        if run.finished and path.exists() and not holds_weights(path, state["model"]):
            set_aside(path)
        save_checkpoint(state, path if run.finished else unfinished(path))
        if run.finished:
            unfinished(path).unlink(missing_ok=True)

    done_by_the_first(write)


def holds_weights(path: Path, ours: dict[str, Tensor]) -> bool:
    """Whether the checkpoint at `path` has exactly these weights."""

    def same(state: dict[str, Any]) -> bool:
        saved = state["model"]
        return saved.keys() == ours.keys() and all(
            torch.equal(saved[name], tensor.cpu()) for name, tensor in ours.items())

    try:
        return load_checkpoint(path, same)
    except ValueError:  # not a checkpoint of this lesson
        return False


def rows_here(batch: Any, accumulate: int, rank: int = 0, processes: int = 1
              ) -> Iterator[tuple[int, Any, float]]:
    """This process's rows of the batch, split into `accumulate` parts: (number, part, 1).

    Parts are numbered over all processes. A single process skips parts without rows. Several processes must
    run equally many parts, so there an empty part is replaced by one row that counts 0.
    """
    for number in range(rank * accumulate, (rank + 1) * accumulate):
        part = batch._make(tensor[number :: processes * accumulate] for tensor in batch)
        if len(part[0]):
            yield number, part, 1.0
        elif processes > 1:
            yield number, batch._make(tensor[:1] for tensor in batch), 0.0


def seed_random(device: torch.device, *origin: int) -> None:
    """Restart the random numbers from seed, step and part, so no random state has to be saved."""
    number = int(np.random.SeedSequence(origin).generate_state(1, np.uint64)[0] >> 1)
    torch.default_generator.manual_seed(number)  # torch.manual_seed() takes a hundred times as long
    if device.type == "cuda":
        torch.cuda.manual_seed(number)
    elif device.type == "mps":
        torch.mps.manual_seed(number)


@contextmanager
def recomputed(blocks: Sequence[nn.Module]) -> Iterator[None]:
    """Inside `with`, keep only the input of each block; the rest is recomputed (Chen et al. 2016)."""
    blocks = list(dict.fromkeys(blocks))  # a block used in several places is wrapped once
    for block in blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward

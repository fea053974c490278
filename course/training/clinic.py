"""Sick training runs of a small model, and instrument readings from the resulting models."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course.training.engine import Run
from course.training.examining import PAD, layers_of
from course.training.noting import last_move, parts_of

Record = Callable[[nn.Module, Iterable[str]], AbstractContextManager[dict[str, Tensor]]]


class Patient(NamedTuple):
    """A training run in the clinic."""

    losses: list[float]
    exact_match: float
    readings: dict[str, float]  # what the instruments read


def size(tensors: Iterable[Tensor]) -> float:
    """The root mean square of all numbers."""
    return torch.cat([tensor.flatten() for tensor in tensors]).square().mean().sqrt().item()


def stride(run: Run) -> float:
    """How far the latest step moved the part that it moved most, relative to the size of its weights."""
    return run.history[-1]["learning_rate"] * max(
        last_move(run.optimizer, part) / size(part.parameters()) for part in parts_of(run.model).values()
        if all(parameter in run.optimizer.state for parameter in part.parameters()))


@torch.no_grad()
def examined(model: nn.Module, first: dict[str, Tensor], batch: Any, record: Record) -> dict[str, float]:
    """Instrument readings from a model that started from the weights `first`; all sources have one length."""
    logits = model(batch.src, batch.tgt_in)
    later = torch.cat([batch.tgt_in[:, :-1], batch.tgt_in[:, -1:].roll(1, 0)], 1)  # other last tokens
    other = model(batch.src.roll(1, 0), batch.tgt_in)
    beyond = model(batch.src, F.pad(batch.tgt_in, (0, 1)))[:, -1]
    names = [name for name in layers_of(model) if not name[-1].isdigit()]  # not the blocks
    with record(model, names) as recorded:
        model(batch.src, batch.tgt_in)
    moves = [size(weight - first[f"{name}.{key}"]
                  for key, weight in model.get_submodule(name).state_dict().items()) for name in names]
    again = logits.softmax(-1).gather(-1, batch.tgt_in[..., None])
    return {"leak": (model(batch.src, later) - logits)[:, :-1].abs().max().item(),
            "repeats": again.mean().item(),
            "P(PAD)": beyond.softmax(-1)[:, PAD].mean().item(),
            "source": ((other - logits).square().mean().sqrt() / logits.std()).item(),
            "least spread": min(output.std((0, 1)).mean().item() for output in recorded.values()),
            "least move": min(moves)}


def treated(make: Callable[[], Run], batch: Any, record: Record) -> Patient:
    """Run a training from start to finish, and examine the model on the batch."""
    run, middle = make(), 0.0
    first = {key: weight.clone() for key, weight in run.model.state_dict().items()}
    while not run.finished:
        run.update()
        if len(run.history) == run.settings.steps // 2:
            middle = stride(run)
    run.validate()
    readings = examined(run.model.eval(), first, batch, record) | {"stride": middle}
    return Patient(run.noted("loss"), run.scores["exact_match"], readings)

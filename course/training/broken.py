"""Training runs broken on purpose, in their batches, losses, models or learning rates."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import nn

from course.training.comparing import changed
from course.training.engine import Run


def without_shift(batch):
    """The decoder reads the very tokens that it should predict."""
    return batch._replace(tgt_in=batch.tgt_out)


def unshifted(run: Run) -> None:
    """The run's batches are not shifted."""
    run.job = replace(run.job, batch=lambda step, good=run.job.batch: without_shift(good(step)))


def padding_counted(run: Run) -> None:
    """PAD counts like any token."""

    def loss(forward, part, whole):
        logits = forward(part.src, part.tgt_in).float()
        total = F.cross_entropy(logits.flatten(0, 1), part.tgt_out.flatten(), reduction="sum")
        return total / whole.tgt_out.numel()

    run.job = replace(run.job, loss=loss)


def without_scaling(model: nn.Module) -> nn.Module:
    """Scores are not divided by √d_k."""
    for attention in model.modules():
        if hasattr(attention, "scaled_dot_product_attention"):
            attend = attention.scaled_dot_product_attention
            attention.scaled_dot_product_attention = lambda query, *others, attend=attend: attend(
                query * math.sqrt(query.shape[-1]), *others)
    return model


def without_paths(model: nn.Module) -> nn.Module:
    """Each layer passes on only its output, without its input added."""
    for module in model.modules():
        if hasattr(module, "before") and hasattr(module, "after"):
            module.after = lambda x, y: y
    return model


def dead_part(model: nn.Module) -> nn.Module:
    """The last decoder block's feed-forward network is dead: all its hidden numbers are 0."""
    nn.init.constant_(model.decoder.blocks[-1].feed_forward.expand.bias, -100.0)
    return model


def frozen_part(model: nn.Module) -> nn.Module:
    """The first encoder block is never updated."""
    model.encoder.blocks[0].requires_grad_(False)
    return model


def labels_shuffled(run: Run) -> None:
    """Each source gets the answer of another."""

    def shuffled(batch):
        return batch._replace(tgt_in=batch.tgt_in.roll(1, 0), tgt_out=batch.tgt_out.roll(1, 0))

    run.job = replace(run.job, batch=lambda step, good=run.job.batch: shuffled(good(step)))


def sick_runs(make: Callable[..., Run], batch: Callable[[int], Any], mistakes: Mapping[str, Any]
              ) -> dict[str, Callable[[], Run]]:
    """Name → a function that makes the run; “right” is the healthy one.

    make(**options) returns a run like lesson 5's, which is then given the batches of batch(step).
    """

    def run(spoil: Callable[[Run], None] | None = None, **options) -> Run:
        made = make(**options)
        made.job = replace(made.job, batch=batch)
        if spoil:
            spoil(made)
        return made

    return {
        "right": run,
        "no causal mask": partial(run, transformer=mistakes["no causal mask"].implementation),
        "no shift": partial(run, unshifted),
        "loss on PAD": partial(run, padding_counted),
        "rate too high": partial(run, lr=0.3),
        "dead part": partial(run, prepare=dead_part),
        "frozen part": partial(run, prepare=frozen_part),
        "labels shuffled": partial(run, labels_shuffled),
    }


def broken_runs(make_run: Callable[..., Run], config, training, mistakes: Mapping[str, Any], held_out
                ) -> dict[str, Callable[[int], Run]]:
    """Name → a function from a seed to the run; “right” is the run as it should be.

    make_run is lesson 5's, on some device; `mistakes` are mistakes in its model; `held_out` is the batch on
    which a run is validated.
    """

    def run(spoil: Callable[[Run], None] | None = None, transformer=None, held_out=held_out, prepare=None,
            **changes):
        def make(seed: int) -> Run:
            configs = config, training
            for name, value in ({"seed": seed} | changes).items():
                configs = changed(configs, name, value)
            made = make_run(*configs, transformer=transformer, held_out=held_out, prepare=prepare)
            if spoil:
                spoil(made)
            return made

        return make

    return {
        "right": run(),
        "no shift": run(unshifted, held_out=without_shift(held_out)),
        "no causal mask": run(transformer=mistakes["no causal mask"].implementation),
        "no positions": run(positions="none"),
        "no residual paths": run(prepare=without_paths),
        "no scaling": run(prepare=without_scaling),
        "padding mask inverted": run(transformer=mistakes["padding mask inverted"].implementation),
        "loss on PAD": run(padding_counted),
        "post-norm, warm-up 100": run(norm="post", lr=0.01, warmup=100),
        "post-norm, no warm-up": run(norm="post", lr=0.01, warmup=0),
    }


ACCURACIES = "", "test loss", "tokens, forced", "answers, forced", "exact match"


def accuracies(scores: Mapping[str, Mapping[str, float]]) -> list[tuple[Any, ...]]:
    """A row of ACCURACIES for each variant."""
    return [(name, score["validation_loss"], *(f"{score[measure]:.1%}" for measure in (
        "token_accuracy", "forced_match", "exact_match"))) for name, score in scores.items()]


def signatures(scores: dict[str, dict[str, float]]) -> list[tuple[str, bool]]:
    """Each mistake's effect on both accuracies after 400 steps of reverse or copy, and if it occurred."""
    forced = {name: score["token_accuracy"] for name, score in scores.items()}
    alone = {name: score["exact_match"] for name, score in scores.items()}
    perfect = [(f"{name}: the model is perfect with teacher forcing, but hardly any of its own answers are "
                "right", forced[name] > 0.99 and alone[name] < 0.01)
               for name in ("no shift", "no causal mask")]
    useless = [(f"{name}: hardly any answer is right", alone[name] < 0.1)
               for name in ("no residual paths", "no positions", "padding mask inverted",
                            "post-norm, no warm-up")]
    unseen = [(f"{name}: nearly all answers are right", alone[name] > 0.95)
              for name in ("right", "no scaling", "loss on PAD", "post-norm, warm-up 100")]
    return perfect + useless + unseen

"""How lesson 5's pictures are drawn."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from common import canvas, heatmap

History = list[dict[str, float]]


def column(history: History, name: str) -> tuple[list[float], list[float]]:
    """(steps, values) of the records that have `name`."""
    records = [record for record in history if name in record]
    return [record["step"] for record in records], [record[name] for record in records]


def draw_schedule(rates: dict[str, list[float]], steps: Sequence[int], papers: Sequence[float]):
    """The learning rate of every step, one curve per schedule; next to it the paper's, at the given steps."""
    figure, axes = canvas(columns=2, width=9, height=3.2)
    for schedule, values in rates.items():
        axes[0].plot(range(1, len(values) + 1), values, label=schedule)
    axes[0].set(title="here", xlabel="step", ylabel="learning rate")
    axes[0].legend()
    axes[1].plot([step + 1 for step in steps], papers, color="C1")
    axes[1].set(title="the paper: d_model 512, warm-up 4,000", xlabel="step")
    return figure


def draw_training(history: History, clip: float):
    """Loss, both accuracies, learning rate and gradient norm of a run."""
    figure, axes = canvas(rows=2, columns=2, width=9, height=5.8)
    (loss, accuracy), (rate, norm) = axes
    loss.semilogy(*column(history, "loss"), label="training", alpha=0.7)
    loss.semilogy(*column(history, "validation_loss"), marker="o", markersize=4, label="validation")
    loss.set(title="loss per token")
    loss.legend()
    accuracy.plot(*column(history, "token_accuracy"), marker="s", markersize=4,
                  label="tokens, teacher forcing")
    accuracy.plot(*column(history, "exact_match"), marker="o", markersize=4,
                  label="exact match, free-running")
    accuracy.set(ylim=(0, 1.03), title="both accuracies, on validation sequences")
    accuracy.legend()
    rate.plot(*column(history, "learning_rate"))
    rate.set_title("learning rate")
    norm.semilogy(*column(history, "gradient_norm"), alpha=0.7)
    norm.axhline(clip, linestyle="--", color="gray", label="clipped above")
    norm.set_title("norm of the gradient")
    norm.legend(loc="lower left")
    for panel in axes.flat:
        panel.set_xlabel("step")
    return figure


def draw_patterns(weights: dict[str, Tensor], source: Sequence[str], reads: Sequence[str],
                  writes: Sequence[str]):
    """A column for each attention of the model, a row for each head; the first sequence of the batch.

    `weights` are recorded ones: encoder.blocks.0.self_attention and so on, (B, H, T, S) each. Every panel has
    its own scale, from 0 to the weight above it.
    """
    turns = [f"{read} → {write}" for read, write in zip(reads, writes, strict=True)]
    kinds = (("encoder", "encoder", "self_attention", source, source),
             ("decoder", "decoder", "self_attention", turns, reads),
             ("cross", "decoder", "cross_attention", turns, source))
    columns = [(title, name.split(".")[2], weights[name][0], queries, keys)
               for title, stack, kind, queries, keys in kinds
               for name in weights if name.startswith(stack) and name.endswith(kind)]
    heads = len(columns[0][2])
    figure, axes = canvas(rows=heads, columns=len(columns), width=2.5 * len(columns),
                          height=2.5 * heads, squeeze=False)
    for number, (title, block, maps, queries, keys) in enumerate(columns):
        for head in range(heads):
            counted = maps[head][1:] if title == "decoder" else maps[head]  # its first row sees only BOS
            panel, largest = axes[head, number], counted.max().item()
            shown = f"{title}, block {block}\n{largest:.2f}" if head == 0 else f"{largest:.2f}"
            heatmap(panel, maps[head], queries, keys, shown, top=largest)
            panel.touchable = panel.touchable._replace(
                title=f"{title}, block {block}, head {head}", asks="row", answers="column")
            panel.tick_params(labelsize=7, rotation=0, pad=-2)
            if number == 0:
                panel.set_ylabel(f"head {head}")
    return figure


def draw_broken(scores: dict[str, dict[str, float]]):
    """Both accuracies of every variant as bars."""
    figure, axes = canvas(width=8, height=4.2)
    places = np.arange(len(scores))
    for offset, name, label in ((-0.2, "token_accuracy", "tokens, teacher forcing"),
                                (0.2, "exact_match", "exact match, free-running")):
        axes.barh(places + offset, [score[name] for score in scores.values()], 0.4, label=label)
    axes.set_yticks(places, list(scores))
    axes.invert_yaxis()
    axes.set(xlim=(0, 1), xlabel="fraction that is right")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2)
    return figure


def draw_comparison(name: str, curves: dict[Any, list[History]], score: str = "exact_match",
                    title: str = "exact match on validation sequences"):
    """Validation loss and a score over the steps: one colour per value, one line per seed."""
    figure, axes = canvas(columns=2, width=9, height=3.8)
    for number, (value, histories) in enumerate(curves.items()):
        for panel, measure in zip(axes, ("validation_loss", score), strict=True):
            for run, history in enumerate(histories):
                panel.plot(*column(history, measure), marker="o", markersize=3, color=f"C{number}",
                           alpha=0.8, label=f"{name} = {value}" if run == 0 else None)
            panel.set_xlabel("step")
    axes[0].set_yscale("log")
    axes[0].set_title("validation loss")
    axes[1].set_title(title)
    axes[1].legend()
    return figure


def draw_own(histories: dict[str, History], maps: dict[str, Tensor], queries: Sequence[str],
             keys: Sequence[str]):
    """The loss of both runs over the steps, and attention weights (T, S) of each."""
    figure, axes = canvas(columns=3, width=12, height=3.9)
    for name, history in histories.items():
        axes[0].semilogy(*column(history, "loss"), label=name, alpha=0.8)
    axes[0].set(xlabel="step", title="loss per token")
    axes[0].legend()
    for panel, (name, weights) in zip(axes[1:], maps.items(), strict=True):
        heatmap(panel, weights, queries, keys, name)
        panel.set(xlabel="source", ylabel="writes")
    return figure

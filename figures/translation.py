"""How lesson 8's pictures are drawn."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from common import canvas, heatmap
from figures.training import column

History = list[dict[str, float]]


def draw_progress(history: History):
    """Loss of training and validation; BLEU and exact match of the validation sentences."""
    figure, (loss, scores) = canvas(columns=2, width=9, height=3.6)
    loss.semilogy(*column(history, "loss"), label="training", alpha=0.6)
    loss.semilogy(*column(history, "validation_loss"), marker="o", markersize=4, label="validation")
    loss.set(xlabel="step", title="loss per piece")
    loss.legend()
    scores.plot(*column(history, "bleu"), marker="s", markersize=4, label="BLEU")
    steps, exact = column(history, "exact_match")
    scores.plot(steps, [100 * share for share in exact], marker="o", markersize=4, label="exact match, %")
    scores.set(xlabel="step", ylim=(0, 103), title="greedy answers to validation sentences")
    scores.legend()
    return figure


def draw_phenomena(steps: Sequence[int], shares: dict[str, Sequence[float]]):
    """A row for each phenomenon, a column for each validation: the fraction of its sentences right."""
    figure, axes = canvas(width=8.5, height=1.6 + 0.26 * len(shares))
    grid = np.array([*shares.values()])
    heatmap(axes, grid, [*shares], [str(step) for step in steps], numbers=grid.shape[1] <= 12)
    axes.set_aspect("auto")
    axes.tick_params(labelsize=8)
    for text in axes.texts:
        text.set_fontsize(7)
    axes.set(xlabel="step")
    return figure


def draw_alignment(weights: Tensor, source: Sequence[str], target: Sequence[str], partners: Tensor,
                   names: Sequence[str], shares: Tensor):
    """One sentence's weights (T, S), the grammar's partners (T, S) marked; next to it each head's fraction.

    `names` are the names of the rows of `shares` (blocks, heads).
    """
    figure, (picture, bars) = canvas(columns=2, width=10.5, height=4.6, width_ratios=[1.5, 1])
    heatmap(picture, weights, target, source)
    for row, place in zip(*np.nonzero(np.asarray(partners)), strict=True):
        picture.plot(place, row, marker="s", markersize=15, markerfacecolor="none", markeredgecolor="C1",
                     markeredgewidth=1.6)
    picture.set(xlabel="reads", ylabel="writes", title="squares: the grammar's partners")
    heads = shares.shape[1]
    places = np.arange(heads)
    for block, (name, row) in enumerate(zip(names, shares.tolist(), strict=True)):
        bars.bar(places + 0.8 * (block + 0.5) / len(names) - 0.4, row, 0.8 / len(names), label=name)
    bars.set_xticks(places, range(heads))
    bars.set(ylim=(0, 1), xlabel="head", ylabel="fraction of words", title="largest weight is on a partner")
    bars.legend()
    return figure


def draw_own_sentence(weights: Tensor, source: Sequence[str], target: Sequence[str]):
    """The cross-attention of one sentence (T, S), the mean over all heads of a block."""
    figure, axes = canvas(width=2.5 + 0.42 * len(source), height=1.6 + 0.32 * len(target))
    heatmap(axes, weights, target, source, top=max(0.1, float(weights.max())))
    axes.set(xlabel="reads", ylabel="writes")
    return figure

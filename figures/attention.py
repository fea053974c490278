"""How lesson 1's pictures are drawn."""

import math
from collections.abc import Sequence

from torch import Tensor

from common import canvas, heatmap


def draw_reach(distances: Sequence[int], reach: dict[str, list[float]]):
    """The gradient norm against the distance, a curve a layer."""
    figure, axes = canvas(width=7, height=4)
    for marker, (name, norms) in zip("osD^", reach.items()):
        axes.loglog(distances, norms, marker=marker, label=name, base=2)
    axes.set_yscale("log")
    axes.set_xticks(distances, distances)
    axes.set_ylim(1e-16, 10)  # below, nothing is left that float64 could add to a 1
    axes.set(xlabel="n, steps back", ylabel="gradient norm (mean of 8 seeds)")
    axes.legend()
    return figure


def draw_scaling(rows: Sequence[Sequence[float]]):
    """Per width: the variance of q·k, then entropy and gradient without the division and with it."""
    widths, variances, *facts = zip(*rows)
    figure, axes = canvas(columns=3, width=10, height=3.6)
    axes[0].loglog(widths, variances, marker="o", label="measured")
    axes[0].loglog(widths, widths, linestyle="--", color="gray", label="d_k")
    axes[0].set_title("variance of q·k")
    for panel, name, index in (axes[1], "entropy / ln 64", 0), (axes[2], "‖Jacobian‖", 1):
        panel.semilogx(widths, facts[index], marker="s", label="q·k")
        panel.semilogx(widths, facts[index + 2], marker="o", label="q·k / √d_k")
        panel.set(ylabel=name, ylim=0)
    axes[1].set_title("entropy of the weights")
    axes[2].set_title("size of the softmax's Jacobian")
    for panel in axes:
        panel.set_xticks(widths, widths)
        panel.minorticks_off()
        panel.set_xlabel("d_k")
        panel.legend()
    return figure


def draw_attention(english: Sequence[str], french: Sequence[str], itself: Tensor, cross: Tensor,
                   masked: Tensor, mask: Tensor):
    """Self-attention, cross-attention and causal self-attention side by side."""
    figure, axes = canvas(columns=3, width=12, height=4.4)
    heatmap(axes[0], itself, english, english, "self: both “the” ask and answer alike", True)
    heatmap(axes[1], cross, french, english, "cross: French asks, English answers", True)
    hidden = masked.masked_fill(~mask, math.nan)
    heatmap(axes[2], hidden, english, english, "causal: nothing above the diagonal", True)
    for panel in axes:
        panel.set(xlabel="key", ylabel="query")
    return figure


def draw_scores(found: dict[str, Tensor], order: Tensor):
    """The weights of each score for the first problem of the batch; a mark where the true key is."""
    figure, axes = canvas(columns=3, width=10, height=4.1)
    for panel, (name, weights) in zip(axes, found.items()):
        heatmap(panel, weights[0], range(6), range(6), name, numbers=True)
        panel.scatter(order[0], [query - 0.35 for query in range(6)], marker="v", color="C1", s=20)
        panel.set(xlabel="key", ylabel="query")
    return figure


def draw_cost(lengths: Sequence[int], times: Sequence[float], memory: Sequence[float]):
    """Seconds and bytes against the length, with n² through the last point."""
    figure, axes = canvas(columns=2, width=8, height=3.6)
    for panel, values, unit in (axes[0], times, "seconds"), (axes[1], memory, "bytes kept for backward"):
        panel.loglog(lengths, values, marker="o", label="measured")
        square = [values[-1] * (n / lengths[-1]) ** 2 for n in lengths]
        panel.loglog(lengths, square, linestyle="--", color="gray", label="n²")
        panel.set_xticks(lengths, lengths)
        panel.minorticks_off()
        panel.set(xlabel="n, tokens", ylabel=unit)
        panel.legend()
    return figure

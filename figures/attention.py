"""How lesson 1's pictures are drawn."""

import math
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from common import canvas, heatmap, readable
from course.console.records import Slider


def draw_lookup(sharpness: Sequence[float], weights: np.ndarray, answers: Sequence[float]):
    """The weights (N, 3) of the three keys, and the answer, against what the query is multiplied by."""
    figure, axes = canvas(columns=2, width=9, height=3.4)
    for key, (curve, style) in enumerate(zip(weights.T, ("-", "--", ":"))):
        axes[0].plot(sharpness, curve, linestyle=style, label=f"key {key}, value {100 * (key + 1)}")
    axes[0].set(ylabel="weight", ylim=(0, 1.03))
    axes[0].legend()
    axes[1].plot(sharpness, answers)
    axes[1].set(ylabel="answer", ylim=(95, 205))
    for panel in axes:
        panel.set_xlabel("query for key 0, multiplied by")
    return figure


def draw_flow(words: Sequence[str], query: np.ndarray, key: np.ndarray, value: np.ndarray,
              stages: dict[str, np.ndarray], row: int):
    """From queries and keys to scores, weights and output, every number in its cell; one row framed."""
    figure, axes = canvas(columns=6, width=14, height=4.1, width_ratios=[2, 2, 6, 6, 2, 2])
    panels = [("queries", query, True), ("· keys =", key, False), ("scores ÷ √d_k", stages["scaled"], True),
              ("softmax → weights", stages["weights"], True), ("· values =", value, False),
              ("outputs", stages["output"], True)]
    for panel, (title, numbers, framed) in zip(axes, panels):
        drawn = panel.imshow(numbers, cmap="Blues", vmin=0, vmax=1.4 * numbers.max(), aspect="auto")
        for i, j in np.ndindex(numbers.shape):
            panel.text(j, i, f"{numbers[i, j]:.2g}", ha="center", va="center", fontsize=8,
                       color=readable(drawn, numbers[i, j]))
        panel.set_title(title)
        panel.set_xticks(range(7), words, rotation=45) if numbers.shape[1] == 7 else panel.set_xticks([])
        panel.set_yticks(range(7), words if panel is axes[0] or numbers is key or numbers is value else [])
        panel.grid(False)
        panel.spines[:].set_visible(False)
        if framed:
            panel.axhspan(row - 0.47, row + 0.47, fill=False, edgecolor="C1", linewidth=2)
    return figure


def draw_reach(distances: Sequence[int], reach: dict[str, list[float]]):
    """The gradient norm against the distance, one curve per layer."""
    figure, axes = canvas(width=7, height=4)
    for marker, (name, norms) in zip("osD^v", reach.items()):
        axes.loglog(distances, norms, marker=marker, label=name, base=2)
    axes.set_yscale("log")
    axes.set_xticks(distances, distances)
    axes.set_ylim(1e-16, 30)  # smaller numbers vanish when float64 adds them to 1
    axes.set(xlabel="n, steps back", ylabel="gradient norm (mean of 5 layers)")
    axes.legend()
    return figure


def draw_scaling(rows: Sequence[Sequence], starved: dict[int, list[tuple[float, float]]], query: Tensor,
                 key: Tensor):
    """Against d_k: the variance of q·k, the evenness, and the fraction starved for 16, 64 and 512 keys.

    `rows` begin with d_k, variance, evenness without and with the division; `starved` has, for each number of
    keys, the fractions without and with the division, one pair per width. query and key (6, d_k) are for the
    page, which has a slider for the divisor of their scores.
    """
    widths, variances, uneven, even = list(zip(*rows))[:4]
    figure, axes = canvas(columns=3, width=10, height=3.6)
    axes[1].touchable = Slider(query @ key.T, query.shape[1])
    axes[0].loglog(widths, variances, marker="o", label="measured")
    axes[0].loglog(widths, widths, linestyle="--", color="gray", label="d_k")
    axes[0].set_title("variance of q·k")
    axes[1].semilogx(widths, uneven, marker="s", label="q·k")
    axes[1].semilogx(widths, even, marker="o", label="q·k / √d_k")
    axes[1].set(title="evenness of 64 weights", ylim=(0, 1.03))
    for marker, (keys, shares) in zip("svD", starved.items()):
        axes[2].semilogx(widths, [plain for plain, _ in shares], marker=marker, label=f"q·k, {keys} keys")
    highest = [max(shares[i][1] for shares in starved.values()) for i in range(len(widths))]
    axes[2].semilogx(widths, highest, marker="o", color="gray", label="q·k / √d_k, highest")
    axes[2].set(title="fraction of starved queries", ylim=(-0.02, 1.03))
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
    heatmap(axes[0], itself, english, english, "self: English asks English")
    heatmap(axes[1], cross, french, english, "cross: French asks English")
    hidden = masked.masked_fill(~mask, math.nan)
    heatmap(axes[2], hidden, english, english, "causal: what comes later is hidden")
    for panel in axes:
        panel.set(xlabel="key", ylabel="query")
    return figure


def draw_scores(found: dict[str, Tensor], order: Tensor):
    """The weights (6, 6) of each score for one problem; a mark shows the true key (6) of each query."""
    figure, axes = canvas(columns=4, width=12, height=3.8)
    for panel, (name, weights) in zip(axes, found.items()):
        heatmap(panel, weights, range(6), range(6), name, numbers=True)
        panel.scatter(order, [query - 0.35 for query in range(6)], marker="v", color="C1", s=20)
        panel.set(xlabel="key", ylabel="query")
    return figure


def draw_cost(lengths: Sequence[int], work: Sequence[int], memory: Sequence[int], masked: Sequence[int],
              fused: Sequence[int]):
    """Multiplications, and bytes kept by our code and by the kernel with and without a mask, by length."""
    figure, axes = canvas(columns=2, width=9, height=3.6)
    axes[0].loglog(lengths, work, marker="o")
    axes[0].set(ylabel="multiplications")
    axes[1].loglog(lengths, memory, marker="o", label="our code")
    axes[1].loglog(lengths, masked, marker="D", label="fused kernel, causal mask")
    axes[1].loglog(lengths, fused, marker="s", label="fused kernel, no mask")
    axes[1].set(ylabel="bytes kept for backward")
    axes[1].legend()
    for panel in axes:
        panel.set_xticks(lengths, lengths)
        panel.minorticks_off()
        panel.set_xlabel("n, tokens")
    return figure

"""How lesson 6's pictures are drawn."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from common import canvas, heatmap


def draw_cache(lengths: Sequence[int], times: dict[str, list[float]]):
    """Seconds and tokens a second against the length, with the cache and without; 4 answers at once."""
    figure, axes = canvas(columns=2, width=9, height=3.6)
    for name, label, marker in (("CachedDecoding", "with the cache", "o"),
                                ("UncachedDecoding", "without", "s")):
        seconds = times[name]
        axes[0].semilogx(lengths, seconds, marker=marker, label=label)
        axes[1].semilogx(lengths, [4 * n / t for n, t in zip(lengths, seconds, strict=True)],
                         marker=marker, label=label)
    for panel in axes:
        panel.set_xticks(lengths, lengths)
        panel.minorticks_off()
        panel.set_xlabel("length of the answers")
        panel.legend()
    axes[0].set(ylabel="seconds in all", ylim=0)
    axes[1].set(ylabel="tokens per second", ylim=0)
    return figure


def tree_order(trace: Sequence[tuple[Any, str]], tokens: tuple[int, ...]) -> list[float]:
    """Sorts a tree's nodes: each below the one it continues, the likelier first."""
    log_probs = {candidate.tokens: candidate.log_prob for candidate, _ in trace}
    return [-log_probs[tokens[: n + 1]] for n in range(len(tokens))]


def draw_tree(trace: Sequence[tuple[Any, str]], word_of: Callable[[int], str]):
    """Every candidate of the beam search: x the step, y its place in the tree."""
    nodes = {candidate.tokens: candidate for candidate, _ in trace}
    fates = {candidate.tokens: fate for candidate, fate in trace}
    leaves = [tokens for tokens in nodes if not any(other[:-1] == tokens for other in nodes)]
    leaves.sort(key=lambda tokens: tree_order(trace, tokens))
    height = {tokens: -place for place, tokens in enumerate(leaves)}

    def place(tokens: tuple[int, ...]) -> float:
        below = [other for other in nodes if other[:-1] == tokens]
        return height[tokens] if tokens in height else sum(map(place, below)) / len(below)

    figure, axes = canvas(width=8.5, height=0.34 * len(leaves) + 1.2)
    styles = {"kept": ("C0", 1.0), "finished": ("C2", 1.0), "pruned": ("gray", 0.45)}
    roots = [tokens for tokens in nodes if len(tokens) == 1]
    start = sum(map(place, roots)) / len(roots)
    axes.annotate("BOS", (0, start), ha="right", va="center")
    for tokens, candidate in nodes.items():
        colour, alpha = styles[fates[tokens]]
        x, y = len(tokens), place(tokens)
        before = (x - 1, place(tokens[:-1])) if x > 1 else (0, start)
        begin = before[0] + (0.42 if x > 1 else 0.02)
        axes.plot([begin, x - 0.02], [before[1], y], color=colour, alpha=alpha, linewidth=1.5)
        word = word_of(tokens[-1]) + (" (finished)" if fates[tokens] == "finished" else "")
        axes.text(x, y, f"{word}  {math.exp(candidate.log_prob):.3f}", color=colour, alpha=max(alpha, 0.7),
                  va="center", fontsize=9, weight="bold" if fates[tokens] != "pruned" else "normal")
    for label, (colour, alpha) in styles.items():
        axes.plot([], [], color=colour, alpha=alpha, label=label)
    axes.set(xlim=(-0.3, max(map(len, nodes)) + 0.8), ylim=(min(height.values()) - 0.7, 0.7))
    axes.axis("off")
    axes.legend(loc="lower left")
    return figure


def draw_distributions(adjusted: dict[str, Tensor]):
    """A panel for each setting: its probabilities over those “as it is” (grey)."""
    figure, axes = canvas(columns=len(adjusted), width=12, height=3.1, sharey=True)
    for panel, (name, probabilities) in zip(axes, adjusted.items(), strict=True):
        panel.bar(list("ABCDEFGH"), adjusted["as it is"].tolist(), color="lightgray")
        panel.bar(list("ABCDEFGH"), probabilities.tolist(), color="C0", width=0.5)
        panel.set(title=name, xlabel="token")
    axes[0].set_ylabel("probability")
    return figure


def draw_strategies(rows: Sequence[tuple]):
    """Rows of (strategy, exact match, mean log P, distinct answers, tokens a second) as bars."""
    figure, axes = canvas(columns=4, width=13, height=3.7, sharey=True)
    names = [row[0] for row in rows]
    titles = ("exact match", 1), ("mean log P", 2), ("distinct answers of 5", 3), ("tokens per second", 4)
    for number, (panel, (title, part)) in enumerate(zip(axes, titles, strict=True)):
        bars = panel.barh(names, [row[part] for row in rows], color=f"C{number}")
        form = {1: "{:.1%}", 2: "{:.2f}", 3: "{:.2f}", 4: "{:,.0f}"}[part]
        panel.bar_label(bars, [form.format(row[part]) for row in rows], padding=3, fontsize=8)
        reach = 1.35 * max((row[part] for row in rows), key=abs)
        panel.set_xlim(*sorted((0, reach)))
        panel.grid(False)  # its lines would strike through the labels
        panel.locator_params(axis="x", nbins=3)  # else the numbers touch
        panel.set_xlabel(title)
    axes[0].invert_yaxis()
    return figure


def draw_cross_attention(weights: Tensor, source: Sequence[str], answer: Sequence[str]):
    """weights (H, T, S): a panel a head."""
    figure, axes = canvas(columns=len(weights), width=3 * len(weights), height=3.7, squeeze=False)
    for head, panel in enumerate(axes[0]):
        heatmap(panel, weights[head, : len(answer)], answer, source, f"head {head}")
        panel.set_xlabel("source")
    axes[0, 0].set_ylabel("token written")
    return figure

"""How lesson 6's pictures are drawn."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from common import canvas, heatmap


def draw_cache(lengths: Sequence[int], now: Sequence[Sequence[float]], times: Sequence[Sequence[float]]):
    """Milliseconds per step at some lengths, and seconds until each, with and without cache; 4 answers."""
    figure, axes = canvas(columns=2, width=9, height=3.6)
    for label, marker, steps, seconds in zip(("with cache", "without cache"), "os", now, times, strict=True):
        axes[0].plot(lengths, steps, marker=marker, label=label)
        axes[1].plot(lengths, [sum(seconds[:n]) for n in lengths], marker=marker, label=label)
    for panel in axes:
        panel.set_xticks(lengths, lengths)
        panel.set_xlabel("length of the answers")
        panel.legend()
    axes[0].set(ylabel="milliseconds for one step", ylim=0)
    axes[1].set(ylabel="seconds for all steps so far", ylim=0)
    return figure


def tree_order(trace: Sequence[tuple[Any, str]], tokens: tuple[int, ...]) -> list[float]:
    """The key to sort a tree's nodes: each below the one it continues, likelier ones first."""
    log_probs = {candidate.tokens: candidate.log_prob for candidate, _ in trace}
    return [-log_probs[tokens[: n + 1]] for n in range(len(tokens))]


def tree_rows(trace: Sequence[tuple[Any, str]], word_of: Callable[[int], str]) -> list[tuple[str, str, str]]:
    """The tree as rows: the newest word, indented by its depth, the probability so far, the fate."""
    ordered = sorted(trace, key=lambda part: tree_order(trace, part[0].tokens))
    return [("    " * (len(candidate.tokens) - 1) + word_of(candidate.tokens[-1]),
             f"{math.exp(candidate.log_prob):.3f}", fate) for candidate, fate in ordered]


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


def draw_lengths(lengths: dict[str, list[int]]):
    """A panel for each search: how many answers there are of each length."""
    figure, axes = canvas(columns=len(lengths), width=10, height=3.1, sharey=True)
    for panel, (name, found) in zip(axes, lengths.items(), strict=True):
        panel.bar(range(1, 19), [found.count(length) for length in range(1, 19)], color="C0")
        panel.set(title=name, xlabel="tokens, with EOS")
        panel.set_xticks([1, 4, 8, 12, 16])
        panel.grid(axis="x", visible=False)
    axes[0].set_ylabel("answers (of 100)")
    return figure


def draw_distributions(adjusted: dict[tuple[str, str], Tensor]):
    """A row for each distribution, a panel for each setting: its probabilities over those “as it is”."""
    kinds = list(dict.fromkeys(kind for kind, _ in adjusted))
    names = list(dict.fromkeys(name for _, name in adjusted if name != "as it is"))
    figure, axes = canvas(len(kinds), len(names), width=11, height=4.6, sharex=True, sharey="row")
    for row, kind in zip(axes, kinds, strict=True):
        for panel, name in zip(row, names, strict=True):
            panel.bar(list("ABCDEFGH"), adjusted[kind, "as it is"].tolist(), color="lightgray")
            panel.bar(list("ABCDEFGH"), adjusted[kind, name].tolist(), color="C0", width=0.5)
            panel.set_title(f"{kind}, {name}")
        row[0].set_ylabel("probability")
    for panel in axes[-1]:
        panel.set_xlabel("token")
    return figure


def draw_strategies(rows: Sequence[tuple]):
    """Rows of (strategy, exact match, mean log P, distinct answers, tokens run, …) as bars."""
    figure, axes = canvas(columns=4, width=13, height=3.7, sharey=True)
    names = [row[0] for row in rows]
    titles = ("exact match", 1), ("mean log P", 2), ("distinct answers of 3", 3), ("tokens run per answer", 4)
    for number, (panel, (title, part)) in enumerate(zip(axes, titles, strict=True)):
        bars = panel.barh(names, [row[part] for row in rows], color=f"C{number}")
        form = {1: "{:.1%}", 2: "{:.2f}", 3: "{:.2f}", 4: "{:.0f}"}[part]
        panel.bar_label(bars, [form.format(row[part]) for row in rows], padding=3, fontsize=8)
        reach = 1.35 * max((row[part] for row in rows), key=abs)
        panel.set_xlim(*sorted((0, reach)))
        panel.grid(False)  # its lines would strike through the labels
        panel.locator_params(axis="x", nbins=3)  # otherwise the numbers touch
        panel.set_xlabel(title)
    axes[0].invert_yaxis()
    return figure


def draw_cross_attention(weights: Tensor, source: Sequence[str], answer: Sequence[str]):
    """weights (H, T, S): one panel per head."""
    figure, axes = canvas(columns=len(weights), width=3 * len(weights), height=3.7, squeeze=False)
    for head, panel in enumerate(axes[0]):
        heatmap(panel, weights[head, : len(answer)], answer, source, f"head {head}")
        panel.set_xlabel("source")
    axes[0, 0].set_ylabel("token written")
    return figure

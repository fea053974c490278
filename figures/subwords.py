"""How lesson 7's pictures are drawn."""

from collections.abc import Mapping, Sequence

import numpy as np

from common import canvas


def draw_vocabulary(sizes: Sequence[int], lengths: Sequence[float], costs: Sequence[Mapping[str, int]]):
    """Pieces per character, and the multiplications of one pass by kind, for each size of the vocabulary."""
    figure, (curve, parts) = canvas(columns=2, width=9, height=3.6)
    curve.semilogx(sizes, lengths, marker="o", markersize=4)
    curve.set(ylim=(0, 1.05), title="the same text has fewer pieces", ylabel="pieces per character")
    for name in costs[0]:
        parts.semilogx(sizes, [cost[name] / 1e6 for cost in costs], marker="o", markersize=3, label=name)
    parts.semilogx(sizes, [sum(cost.values()) / 1e6 for cost in costs], color="black", label="total")
    parts.set(ylim=0, title="one pass over the same text", ylabel="million multiplications")
    parts.legend()
    for panel in (curve, parts):
        panel.set(xlabel="pieces in the list")
        panel.set_xticks([400, 600, 1000, 2000, 3000], ["400", "600", "1000", "2000", "3000"])
        panel.minorticks_off()
    return figure


def draw_languages(pieces: Mapping[str, int], characters: Mapping[str, int]):
    """For each language two bars: how many characters the text has, and how many pieces."""
    figure, axes = canvas(width=8, height=3.4)
    places = np.arange(len(pieces))
    for shift, name, counts in ((-0.2, "characters", characters), (0.2, "pieces", pieces)):
        bars = axes.bar(places + shift, [counts[language] for language in pieces], 0.4, label=name)
        axes.bar_label(bars)
    axes.margins(y=0.1)
    axes.set_xticks(places, [*pieces])
    axes.legend()
    return figure

"""How lesson 11's pictures are drawn."""

from collections.abc import Mapping, Sequence
from typing import Any

from common import canvas

MARKS = "o", "s", "^", "D"


def draw_traffic(moved: Mapping[int, float], predicted: Mapping[int, float], lines: float):
    """MiB moved for each size of tile, and the formula; `lines` is what lesson 1's code moves."""
    figure, axes = canvas(width=6.5, height=3.6)
    axes.plot([*moved], [*moved.values()], marker="o", label="moved, simulated")
    axes.plot([*predicted], [*predicted.values()], marker="s", linestyle="--", label="formula")
    axes.axhline(lines, color="gray", linestyle=":", label="lesson 1's code")
    axes.set_xscale("log", base=2)
    axes.set_xticks([*moved], map(str, moved))
    axes.set(xlabel="tokens in a tile", ylabel="MiB moved", ylim=(0, None))
    axes.legend()
    return figure


def draw_memory(sizes: Sequence[int], peaks: Mapping[str, Sequence[float]]):
    """MiB at the peak against the length, for each way."""
    figure, axes = canvas(width=6.5, height=3.8)
    for (name, values), mark in zip(peaks.items(), MARKS):
        axes.plot(sizes, values, marker=mark, label=name)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=10)
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.set(xlabel="tokens", ylabel="MiB at the peak")
    axes.legend()
    return figure


def draw_heads(spreads: Mapping[str, float], right: Mapping[str, Sequence[float]], ways: Sequence[str]):
    """A group of bars for each kind of heads: the answers that are right with each replacement."""
    figure, axes = canvas(width=7.5, height=3.6)
    for number, way in enumerate(ways):
        places = [group + (number - 1.5) * 0.21 for group in range(len(right))]
        heights = [100 * shares[number] for shares in right.values()]
        axes.bar_label(axes.bar(places, heights, 0.19, label=way), [f"{height:.0f}" for height in heights],
                       fontsize=8)
    labels = [f"{name}\nspread of the scores {spreads[name]:.1f}" for name in right]
    axes.set_xticks(range(len(right)), labels)
    axes.set(ylabel="answers right, %", ylim=(0, 112))
    axes.grid(axis="x", visible=False)
    axes.legend(loc="upper right")
    return figure


def draw_recall(found: Mapping[str, Sequence[float]], chance: float):
    """A bar for each attention, the mean of the seeds, with a point for each seed."""
    figure, axes = canvas(width=7.5, height=3.6)
    names = [*found][::-1]
    for place, name in enumerate(names):
        some = [100 * value for value in found[name]]
        axes.barh(place, sum(some) / len(some), 0.6, color="C0", alpha=0.5)
        axes.plot(some, [place] * len(some), "o", color="C3", markersize=4)
    axes.axvline(100 * chance, color="gray", linestyle=":", label="chance")
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="values recalled, %; a point for each seed", xlim=(0, 104))
    axes.grid(axis="y", visible=False)
    axes.legend(loc="lower right", bbox_to_anchor=(1, 0.18))
    return figure


def draw_recompute(runs: Mapping[int, Any], predicted: Mapping[int, float]):
    """The peak for each number of blocks per segment, the formula, and the peak of keeping all."""
    figure, axes = canvas(width=6.5, height=3.6)
    axes.plot([*predicted], [runs[size].peak for size in predicted], "o", label="measured")
    axes.plot([*predicted], [*predicted.values()], "--", label="N/s + c·s + 4")
    axes.axhline(runs[0].peak, color="gray", linestyle=":", label="everything kept")
    axes.set_xscale("log", base=2)
    axes.set_xticks([*predicted], map(str, predicted))
    axes.set(xlabel="blocks per segment, s", ylabel="peak, in inputs of a block", ylim=(0, None))
    axes.legend()
    return figure


def draw_caches(sinks: Mapping[tuple[int, int], tuple[float, float]]):
    """A bar for each cache of (first, latest) keys: the answers that are right."""
    figure, axes = canvas(width=6.5, height=3.4)
    names = [f"first {first}\nlatest {latest}" for first, latest in sinks]
    heights = [100 * right for right, _ in sinks.values()]
    colours = ["C0" if first else "C1" for first, _ in sinks]
    axes.bar_label(axes.bar(names, heights, 0.6, color=colours), [f"{height:.0f}" for height in heights])
    axes.set(ylabel="answers right, %", ylim=(0, 105), xlabel="keys and values that the self-attention keeps")
    axes.grid(axis="x", visible=False)
    return figure

"""How lesson 9's pictures are drawn."""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from common import canvas, heatmap
from figures.training import History, column


def draw_learning(runs: dict[str, History], parts: Sequence[str]):
    """The norm of the gradient in every part, and how far Adam moves it: one row per run."""
    figure, axes = canvas(rows=len(runs), columns=2, width=10, height=3.1 * len(runs), sharex="row")
    styles = {"embedding": ":", "encoder": "-", "decoder": "--"}
    for line, (name, noted) in zip(axes, runs.items(), strict=True):
        for part in parts:
            for panel, measure in zip(line, ("gradient in", "move of"), strict=True):
                style = styles[part.split()[0]]
                panel.semilogy(*column(noted, f"{measure} {part}"), linestyle=style, label=part)
        line[0].set(title=f"{name}: gradient", ylabel="norm")
        line[1].set(title=f"{name}: move per step", ylabel="RMS, in learning rates")
    for panel in axes[-1]:
        panel.set_xlabel("step")
    axes[0, 1].legend(ncols=2, fontsize=8)
    return figure


def draw_lens(found: dict[str, Tensor]):
    """For each model the fraction right (blocks, places) that the logit lens reads."""
    figure, axes = canvas(columns=len(found), width=3.6 * len(found) + 1, height=1.9, squeeze=False)
    for panel, (name, right) in zip(axes[0], found.items()):
        heatmap(panel, right, [f"block {number}" for number in range(len(right))], range(right.shape[1]),
                f"seed {name}", numbers=right.shape[1] < 6)
        panel.set_xlabel("place in the answer (dark: right)")
    return figure


def draw_patches(found: dict[str, dict[str, Sequence[float]]]):
    """For each question, the fraction that follows the donors (parts, places); a part may lack places."""
    figure, axes = canvas(columns=len(found), width=6.2 * len(found), height=4.6, squeeze=False)
    for panel, (question, rows) in zip(axes[0], found.items()):
        places = max(map(len, rows.values()))
        cells = torch.tensor([[*row, *[math.nan] * (places - len(row))] for row in rows.values()])
        heatmap(panel, cells, list(rows), range(places), question)
        panel.set_aspect("auto")
        panel.set_xlabel("patched place (dark: all follow)")
    return figure


def draw_weights_and_effects(found: dict[str, Sequence[tuple[float, float]]]):
    """For each model a point per head: its mean largest weight, and the answers right without the head."""
    figure, axes = canvas(width=6.4, height=4.2)
    for marker, (name, points) in zip("os^Dv", found.items()):
        axes.plot(*zip(*points), marker=marker, linestyle="none", alpha=0.75, label=f"seed {name}")
    axes.set(xlim=(0, 1), ylim=(-0.03, 1.05), xlabel="largest weight, mean over the queries",
             ylabel="answers right without the head")
    axes.legend(fontsize=8)
    return figure


def draw_clinic(losses: dict[str, Sequence[float]], readings: dict[str, dict[str, float]],
                signs: Mapping[str, Callable[[float], bool]]):
    """The losses of the training runs, and what each instrument reads; readings that are a sign are dark."""
    figure, axes = canvas(columns=2, width=13, height=4.6, gridspec_kw={"width_ratios": [1, 1.35]})
    styles = ("-", "--", ":", "-.")
    for number, (name, values) in enumerate(losses.items()):
        smooth = [sum(part) / len(part) for part in (values[max(0, end - 10) : end]
                                                     for end in range(1, len(values) + 1))]
        axes[0].semilogy(range(1, len(values) + 1), smooth, linestyle=styles[number // 4], label=name)
    axes[0].set(xlabel="step", ylabel="training loss, mean of 10 steps")
    axes[0].legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=4)
    cells = torch.tensor([[float(is_sign(row[name])) for name, is_sign in signs.items()]
                          for row in readings.values()])
    heatmap(axes[1], 0.6 * cells, list(readings), list(signs), "what the instruments read")
    axes[1].set_aspect("auto")
    for line, row in enumerate(readings.values()):
        for place, name in enumerate(signs):
            colour = "white" if cells[line, place] else "black"
            axes[1].text(place, line, f"{row[name]:.2g}", ha="center", va="center", fontsize=8, color=colour)
    return figure

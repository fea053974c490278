"""How lesson 9's pictures are drawn."""

from collections.abc import Sequence

from common import canvas
from figures.training import History, column


def draw_learning(runs: dict[str, History], parts: Sequence[str]):
    """The norm of the gradient in every part, and Adam's move of it, in the same steps: a row a run."""
    figure, axes = canvas(rows=len(runs), columns=2, width=10, height=3.1 * len(runs), sharex="row")
    styles = {"embedding": ":", "encoder": "-", "decoder": "--"}
    for line, (name, noted) in zip(axes, runs.items(), strict=True):
        for part in parts:
            for panel, measure in zip(line, ("gradient in", "move of"), strict=True):
                style = styles[part.split()[0]]
                panel.semilogy(*column(noted, f"{measure} {part}"), linestyle=style, label=part)
        line[0].set(title=f"{name}: gradient", ylabel="norm")
        line[1].set(title=f"{name}: move in a step", ylabel="RMS, in learning rates")
    for panel in axes[-1]:
        panel.set_xlabel("step")
    axes[0, 1].legend(ncols=2, fontsize=8)
    return figure

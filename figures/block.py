"""How lesson 4's curves are drawn; its drawing of the model is in drawing.py."""

import math
from collections.abc import Sequence

import numpy as np

from common import canvas


def draw_through_the_layers(curves: dict[str, tuple[Sequence[float], Sequence[float]]]):
    """Per stack, block by block: the gradient at its input, and how far apart the tokens are there."""
    figure, axes = canvas(columns=2, width=10, height=4.1)
    for marker, (name, (grads, apart)) in zip("xsD^", curves.items(), strict=True):
        blocks = range(1, len(grads) + 1)
        axes[0].semilogy(blocks, grads, marker=marker, label=name)
        axes[1].semilogy(blocks, apart, marker=marker, label=name)
    axes[0].set(title="the gradient", ylabel="gradient norm at the block's input")
    axes[1].set(title="the tokens", ylabel="share that differs between tokens")
    for panel in axes:
        panel.set_xlabel("block")
    axes[1].legend(loc="center right")
    return figure


def draw_warmup(runs: dict[tuple[str, int], Sequence[float]], starts: dict[str, Sequence[float]],
                symbols: int):
    """The gradient in each block of fresh models, and the losses of trainings, pre- and post-norm.

    Guessing among `symbols` gives the loss ln(symbols).
    """
    figure, axes = canvas(columns=2, width=10, height=4.1, width_ratios=(2, 3))
    for (norm, values), style in zip(starts.items(), ("-", "--")):
        blocks = range(1, len(values) + 1)
        axes[0].plot(blocks, values, style, marker="o", markersize=4, label=f"{norm}-norm")
    axes[0].set(ylim=0, title="before training", xlabel="block", ylabel="gradient norm of its parameters")
    for (norm, warmup), losses in runs.items():
        smooth = np.convolve(losses, np.ones(10) / 10, mode="valid")
        style = "-" if norm == "pre" else "--"
        label = f"{norm}-norm, {f'warm-up {warmup}' if warmup else 'no warm-up'}"
        axes[1].plot(range(10, len(losses) + 1), smooth, style, label=label)
    axes[1].axhline(math.log(symbols), color="gray", linewidth=1, label=f"guessing, ln {symbols}")
    axes[1].set(title="training", xlabel="step", ylabel="loss (mean of 10 steps)", ylim=(-0.15, 5.2))
    axes[0].legend()
    axes[1].legend(loc="upper right", ncols=2)
    return figure

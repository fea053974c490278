"""How lesson 4's curves are drawn; its drawing of the model is in drawing.py."""

import math
from collections.abc import Mapping, Sequence

from torch import Tensor

from common import canvas


def draw_through_the_blocks(found: Mapping[tuple[str, float], Sequence[Sequence[Tensor]]],
                            names: Sequence[str], sizes: Sequence[float]):
    """A column per size of the initial weights: the gradient by block, below it how far apart the tokens are.

    `found` has for each stack and size one pair of curves per seed; all are drawn.
    """
    figure, axes = canvas(rows=2, columns=3, width=10, height=6.2, sharex=True, sharey="row")
    for column, size in enumerate(sizes):
        for marker, colour, name in zip("xsD^", ("C0", "C1", "C2", "C3"), names, strict=True):
            for seed, (grads, shares) in enumerate(found[name, size]):
                look = {"marker": marker, "markersize": 4, "linewidth": 1, "color": colour,
                        "label": "" if seed else name}
                axes[0, column].semilogy(grads / grads[-1], **look)
                axes[1, column].semilogy(shares, **look)
        axes[0, column].set_title(f"initial weights × {size:g}")
        axes[1, column].set(xlabel="at the input of block", ylim=(1e-18, 30))
    axes[0, 0].set_ylabel("gradient / gradient at the output")
    axes[1, 0].set_ylabel("apart")
    axes[0, 2].legend(loc="lower center")
    return figure


def draw_warmup(ends: Mapping[tuple[str, float, int], Tensor], shares: Mapping[tuple[str, int], Tensor],
                symbols: int):
    """The loss at the end against the rate, and how far apart the tokens are in training, step by step.

    On the left every start is a mark, on the right a band spans them; lines are the means. Guessing among
    `symbols` gives the loss ln(symbols).
    """
    figure, axes = canvas(columns=2, width=10, height=4.1)
    rates = sorted({rate for _, rate, _ in ends})
    looks = {(norm, warmup > 0): {"color": colour, "linestyle": "--" if warmup else "-",
                                  "label": f"{norm}-norm, {f'warm-up {warmup}' if warmup else 'no warm-up'}"}
             for norm, colour in (("pre", "C3"), ("post", "C2")) for warmup in sorted({w for *_, w in ends})}
    for (norm, warmed), look in looks.items():
        mine = {rate: losses for (n, rate, w), losses in ends.items() if (n, w > 0) == (norm, warmed)}
        axes[0].semilogx(list(mine), [losses.mean().item() for losses in mine.values()], **look)
        for rate, losses in mine.items():
            axes[0].plot([rate] * len(losses), losses, "o" if warmed else "x", color=look["color"],
                         markersize=5, fillstyle="none")
    for (norm, warmup), curves in shares.items():
        look = looks[norm, warmup > 0]
        axes[1].semilogy(curves.mean(1), **look)
        axes[1].fill_between(range(len(curves)), curves.amin(1), curves.amax(1), color=look["color"],
                             alpha=0.15)
    axes[0].axhline(math.log(symbols), color="gray", linewidth=1)
    axes[0].annotate(f"guessing, ln {symbols}", (min(rates), math.log(symbols)), xytext=(0, 3),
                     textcoords="offset points")
    axes[0].set_xticks(rates, [f"{rate:g}" for rate in rates], minor=False)
    axes[0].minorticks_off()
    axes[0].set(title="after training", xlabel="learning rate", ylabel="loss of the last 20 steps")
    axes[1].set(title="in training, rate 0.02", xlabel="step", ylabel="how far apart the output vectors are")
    axes[0].legend(loc="upper left", bbox_to_anchor=(0, 0.94))
    return figure

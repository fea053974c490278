"""How lesson 10's pictures are drawn."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from common import canvas, heatmap
from figures.training import History, column


def draw_reading(history: History, yardsticks: Mapping[str, float]):
    """Bits per character of held-out text during training, with the yardsticks as lines."""
    figure, axes = canvas(width=8, height=3.8)
    axes.plot(*column(history, "bits"), marker="o", markersize=4, color="C0", label="the model")
    for number, (name, bits) in enumerate(yardsticks.items(), start=1):
        axes.axhline(bits, color=f"C{number}", linestyle="--", label=name)
    axes.set(xlabel="step", ylabel="bits per character, held-out text")
    axes.legend(fontsize=8, ncols=2)
    return figure


def draw_prompt(weights: Tensor, digits: Sequence[str]):
    """One head's weights (T, T) over BOS, digits, separator and answer, while it writes the answer."""
    text, first = ["BOS", *digits, "→", *digits[::-1]], 1 + len(digits)
    figure, axes = canvas(width=7, height=4.2)
    heatmap(axes, weights[first:-1], text[first:-1], text, "one head")
    axes.set(xlabel="what it looks at", ylabel="what has just been read")
    return figure


def draw_pictures(pixels: Tensor, said: Mapping[str, Sequence[int]], digits: Sequence[int], size: int):
    """Pictures (N, 2, 8, 8), each as it is and with its patches shuffled, and the answers below them."""
    figure, axes = canvas(rows=2, columns=len(pixels), width=10, height=3.6)
    for line, pictures, (kind, answers) in zip(axes, pixels.unbind(1), said.items(), strict=True):
        for panel, picture, answer, digit in zip(line, pictures, answers, digits, strict=True):
            panel.imshow(picture.numpy(), cmap="Greys", vmin=0, vmax=1)
            panel.set(xticks=[edge - 0.5 for edge in range(0, 9, size)],
                      yticks=[edge - 0.5 for edge in range(0, 9, size)], xticklabels=[], yticklabels=[])
            panel.tick_params(length=0)
            panel.grid(color="C0", linewidth=0.8)
            right = answer == digit
            panel.set_xlabel(f"says {answer}" + ("" if right else f", is {digit}"), fontsize=8,
                             fontweight="normal" if right else "bold")
        line[0].set_ylabel(kind, fontsize=8)
    return figure


def draw_changes(losses: Mapping[str, Sequence[float]]):
    """Bits per character of every model, a dot for each seed."""
    figure, axes = canvas(width=7.5, height=3.2)
    seeds = range(len(next(iter(losses.values()))))
    for seed in seeds:
        axes.plot([values[seed] for values in losses.values()], range(len(losses)), "o", alpha=0.8,
                  label=f"seed {seed}")
    axes.set_yticks(range(len(losses)), losses)
    axes.invert_yaxis()
    axes.set(xlabel="bits per character, held-out text")
    figure.legend(loc="outside right upper", fontsize=8)
    return figure

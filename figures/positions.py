"""How lesson 3's pictures are drawn."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from common import canvas


def draw_waves(waves: Tensor):
    """The encodings (L, D) as colours."""
    figure, axes = canvas(width=9, height=4.6)
    image = axes.imshow(waves, cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto", interpolation="none")
    axes.set(xlabel="dimension (sine and cosine in pairs)", ylabel="position")
    axes.grid(False)
    figure.colorbar(image, ticks=[-1, 0, 1])
    return figure


def draw_wavelengths(wavelengths: Tensor):
    """The wavelength of each pair, and the sines of four pairs with a dot at every position."""
    figure, axes = canvas(columns=2, width=10, height=3.9)
    axes[0].semilogy(wavelengths, marker="o", markersize=3)
    for value, name in (2 * math.pi, "2π"), (10000 * 2 * math.pi, "10000 · 2π"):
        axes[0].axhline(value, linestyle="--", color="gray")
        axes[0].annotate(name, (24, value), xytext=(0, 4), textcoords="offset points")
    axes[0].set(ylim=(3, 200_000), title="all pairs", xlabel="pair i", ylabel="wavelength, in positions")
    positions, between = torch.arange(41), torch.linspace(0, 40, 801)
    for pair in (0, 4, 8, 12):
        frequency = 2 * math.pi / wavelengths[pair]
        (line,) = axes[1].plot(between, torch.sin(between * frequency), linewidth=0.8,
                               label=f"pair {pair}: {wavelengths[pair]:.0f} positions")
        axes[1].plot(positions, torch.sin(positions * frequency), "o", markersize=3, color=line.get_color())
    axes[1].set(title="the sines of four pairs", xlabel="position", ylabel="sine", ylim=(-1.05, 1.75))
    axes[1].legend(loc="upper center", ncols=2)
    return figure


def draw_distance(products: Tensor):
    """Dot products of one position's vector with those of k = −100 … 99."""
    figure, axes = canvas(width=8, height=3.6)
    axes.plot(range(-100, 100), products)
    axes.set(xlabel="k", ylabel="PE(p) · PE(p + k)")
    return figure


def draw_longer(curves: dict[str, Sequence[Sequence[float]]], trained_length: int):
    """The accuracy at each position from 3 on: a scheme's mean over its training runs, and their band."""
    figure, axes = canvas(width=8, height=4)
    for scheme, trainings in curves.items():
        values = torch.tensor(trainings)[:, 2:]
        places = range(3, 3 + values.shape[1])
        (line,) = axes.plot(places, values.mean(0), label=scheme)
        axes.fill_between(places, values.amin(0), values.amax(0), color=line.get_color(), alpha=0.2)
    axes.axvspan(3, trained_length, color="gray", alpha=0.15)
    axes.annotate("trained", (4, 0.02))
    axes.set(ylim=(0, 1.03), xlabel="position", ylabel="accuracy")
    axes.legend()
    return figure

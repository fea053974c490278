"""How lesson 3's pictures are drawn."""

import math
from collections.abc import Sequence

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


def draw_wavelengths(wavelengths: Tensor, waves: Tensor):
    """The wavelength of each pair, and the sines of four pairs from waves (L, D)."""
    figure, axes = canvas(columns=2, width=10, height=3.9)
    axes[0].semilogy(wavelengths, marker="o", markersize=3)
    for value, name in (2 * math.pi, "2π"), (10000 * 2 * math.pi, "10000 · 2π"):
        axes[0].axhline(value, linestyle="--", color="gray")
        axes[0].annotate(name, (24, value), xytext=(0, 4), textcoords="offset points")
    axes[0].set(ylim=(3, 200_000), title="all pairs", xlabel="pair i", ylabel="wavelength, in positions")
    for pair in (0, 4, 8, 12):
        axes[1].plot(waves[:, 2 * pair], label=f"pair {pair}: {wavelengths[pair]:.0f} positions")
    axes[1].set(title="the sines of four pairs", xlabel="position", ylabel="sine", ylim=(-1.05, 1.75))
    axes[1].legend(loc="upper center", ncols=2)
    return figure


def draw_distance(products: Tensor):
    """Dot products of one position's vector with those of k = −100 … 99."""
    figure, axes = canvas(width=8, height=3.6)
    axes.plot(range(-100, 100), products)
    axes.set(xlabel="k", ylabel="PE(p) · PE(p + k)")
    return figure


def draw_longer(curves: dict[str, Sequence[float]], trained_length: int):
    """The accuracy at each position from 3 on, a curve a scheme."""
    figure, axes = canvas(width=8, height=4)
    for scheme, curve in curves.items():
        axes.plot(range(3, len(curve) + 1), curve[2:], label=scheme)
    axes.axvspan(3, trained_length, color="gray", alpha=0.15)
    axes.annotate("trained", (4, 0.02))
    axes.set(ylim=(0, 1.03), xlabel="position", ylabel="accuracy")
    axes.legend()
    return figure

"""How lesson 0's pictures are drawn."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from torch import Tensor

from common import canvas

PLACES = {"w": (0, 3), "x": (0, 2), "b": (1.6, 1), "y": (4.8, 1), "w·x": (1.6, 2.5), "w·x + b": (3.2, 2.2),
          "tanh": (4.8, 2.2), "error": (6.4, 2), "loss": (8.2, 2)}
ARROWS = [("w", "w·x"), ("x", "w·x"), ("w·x", "w·x + b"), ("b", "w·x + b"), ("w·x + b", "tanh"),
          ("tanh", "error"), ("y", "error"), ("error", "loss"), ("error", "loss")]


def small_graph(kind: type, w=0.5, x=2.0, b=-0.4, y=1.0) -> dict:
    """loss = (tanh(w·x + b) − y)² computed with values of this type; returns every value by name."""
    w, x, b, y = map(kind, (w, x, b, y))
    product = w * x
    total = product + b
    answer = total.tanh()
    error = answer - y
    return {"w": w, "x": x, "b": b, "y": y, "w·x": product, "w·x + b": total, "tanh": answer,
            "error": error, "loss": error * error}


def draw_graph(values: Mapping[str, tuple[float, float]]):
    """The graph of (tanh(w·x + b) − y)²: each value in black, its gradient in orange."""
    figure, axes = canvas(width=10, height=3.8)
    twice = ARROWS.count(("error", "loss")) == 2
    for number, (start, end) in enumerate(ARROWS):
        bend = (0.25 if number % 2 else -0.25) if twice and start == "error" else 0.0
        axes.annotate("", PLACES[end], PLACES[start], arrowprops={
            "arrowstyle": "-|>", "color": "gray", "shrinkA": 30, "shrinkB": 32,
            "connectionstyle": f"arc3,rad={bend}"})
    for name, (value, gradient) in values.items():
        x, y = PLACES[name]
        axes.text(x, y + 0.27, name, ha="center", va="center", fontsize=10, weight="bold")
        axes.text(x, y, f"{value:.3f}", ha="center", va="center", fontsize=10)
        axes.text(x, y - 0.27, f"{gradient:.3f}", ha="center", va="center", fontsize=10, color="#b84e00")
        axes.add_patch(box(x, y))
    axes.set(xlim=(-0.8, 9), ylim=(0.4, 3.7))
    axes.axis("off")
    axes.text(8.2, 3.3, "value", ha="center", fontsize=10)
    axes.text(8.2, 3.0, "gradient of the loss", ha="center", fontsize=10, color="#b84e00")
    return figure


def box(x: float, y: float):
    from matplotlib.patches import FancyBboxPatch

    return FancyBboxPatch((x - 0.5, y - 0.42), 1.0, 0.84, boxstyle="round,pad=0,rounding_size=0.1",
                          facecolor="#eef3f8", edgecolor="gray", zorder=0)


def draw_spirals(losses: Mapping[str, Sequence[float]], network: Callable[[np.ndarray], np.ndarray],
                 points: np.ndarray, labels: np.ndarray):
    """The losses by rate, and the probability of class 1 over the plane with the points it learned from.

    `network` takes points (N, 2) to logits (N, 2).
    """
    along = np.linspace(-2.4, 2.4, 160)
    logits = network(np.stack(np.meshgrid(along, along), axis=-1).reshape(-1, 2))
    share = (1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))).reshape(160, 160)
    figure, axes = canvas(columns=2, width=10, height=4.2, width_ratios=[3, 2.4])
    for style, (name, curve) in zip(("--", "-", ":"), losses.items()):
        axes[0].semilogy(curve, linestyle=style, label=name)
    axes[0].set(xlabel="step", ylabel="loss")
    axes[0].legend()
    plane = -2.4, 2.4, -2.4, 2.4
    drawn = axes[1].imshow(share, origin="lower", extent=plane, cmap="RdBu_r", vmin=0, vmax=1, alpha=0.6)
    axes[1].contour(share, levels=[0.5], extent=plane, colors="black", linewidths=1)
    for label, marker in enumerate("os"):
        axes[1].scatter(*points[labels == label].T, marker=marker, s=12, color=("#0b4a8f", "#8c1a11")[label],
                        label=f"class {label}")
    axes[1].grid(False)
    axes[1].set(xlabel="x", ylabel="y")
    axes[1].legend(loc="upper right", fontsize=8)
    figure.colorbar(drawn, ax=axes[1], label="probability of class 1")
    return figure


def draw_words(panels: Mapping[str, Tensor], classes: Mapping[str, Sequence[str]]):
    """The cosine of the angle between the vectors of any two words, in the order of the classes."""
    figure, axes = canvas(columns=len(panels), width=11, height=5.6, sharey=True)
    words = [word for members in classes.values() for word in members]
    ends = np.cumsum([len(members) for members in classes.values()])
    middles = [end - len(members) / 2 - 0.5 for end, members in zip(ends, classes.values())]
    for panel, (title, vectors) in zip(axes, panels.items()):
        directions = vectors / vectors.norm(dim=-1, keepdim=True)
        drawn = panel.imshow((directions @ directions.T).numpy(), cmap="RdBu_r", vmin=-1, vmax=1)
        panel.set_title(title)
        panel.set_xticks(middles, classes, rotation=45)
        panel.set_yticks(range(len(words)), words, fontsize=6.5)
        panel.grid(False)
        for end in ends[:-1]:
            panel.axhline(end - 0.5, color="black", linewidth=0.6)
            panel.axvline(end - 0.5, color="black", linewidth=0.6)
    axes[0].set(xlabel="class of the other word", ylabel="word")
    figure.colorbar(drawn, ax=list(axes), label="cosine: 1 where two vectors point the same way")
    return figure


def draw_memory(distances: Sequence[int], right: Mapping[str, Tensor]):
    """The accuracy of each kind (distance, model) against the distance: the mean and each model."""
    figure, axes = canvas(width=9, height=4.2)
    for number, (name, shares) in enumerate(right.items()):
        beside = np.array(distances) + 0.4 * (number - (len(right) - 1) / 2)  # so that none hides another
        marker, line, color = "osD^vP"[number], ("-", "-", "--", "-.", ":", ":")[number], f"C{number}"
        axes.plot(beside, shares.mean(1), marker=marker, linestyle=line, color=color, label=name)
        axes.scatter(np.repeat(beside, shares.shape[1]), shares, s=8, color=color, alpha=0.6)
    axes.axhline(0.25, color="gray", linewidth=1, linestyle="--")
    axes.text(distances[0] - 0.9, 0.27, "guessing", fontsize=8, color="gray")
    axes.set_xticks(distances, distances)
    axes.set(xlabel="n, steps back", ylabel="accuracy", ylim=(0.15, 1.03),
             title="five networks of each kind (dots) and their mean")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center")
    return figure

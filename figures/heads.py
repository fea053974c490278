"""How lesson 2's pictures are drawn."""

from collections.abc import Sequence

from torch import Tensor

from common import canvas, heatmap


def draw_fetching(one: Sequence[Tensor], two: Sequence[Tensor]):
    """The weights (wanted, item) of each head, with one head and with two; row i wants i and i + 1."""
    items = len(one[0])
    names = [f"{i} and {(i + 1) % items}" for i in range(items)]
    titles = "one head", "two heads, the first", "two heads, the second"
    figure, axes = canvas(columns=3, width=11, height=4.2)
    for panel, weights, title in zip(axes, [*one, *two], titles, strict=True):
        heatmap(panel, weights, names, range(items), title, numbers=True)
        panel.set_xlabel("item looked at")
    axes[0].set_ylabel("items wanted")
    return figure


def draw_split(tokens: Tensor, right: Tensor, wrong: Tensor):
    """Every number as a cell in the colour of its token, labelled with token and head.

    tokens (L, D), right and wrong (H, L, K) hold the places of the numbers in x: 3 tokens, 2 heads of 2.
    """
    import seaborn

    figure, axes = canvas(columns=3, width=10, height=3.6)
    layouts = tokens, right.flatten(0, 1), wrong.flatten(0, 1)
    titles = "x: one row per token", "view, transpose: each head sees all", "view alone: tokens mixed"
    for panel, places, title in zip(axes, layouts, titles, strict=True):
        token, head = places // 4, places % 4 // 2
        text = [[f"t{t}h{h}" for t, h in zip(*row)] for row in zip(token.tolist(), head.tolist())]
        seaborn.heatmap(token, annot=text, fmt="", cmap=seaborn.color_palette("colorblind", 3),
                        cbar=False, ax=panel, linewidths=1, xticklabels=False)
        labels = [f"head {row // 3}" for row in range(6)] if len(places) == 6 else range(3)
        panel.set_yticks([row + 0.5 for row in range(len(places))], labels, rotation=0)
        panel.set_title(title)
    axes[0].set_ylabel("token")
    return figure


def draw_flow(stages: dict[str, Tensor], weights: Tensor):
    """One layer with two heads: stages (L, D) from x to the output, and each head's weights (2, L, L)."""
    figure, axes = canvas(rows=3, columns=4, width=12, height=7)
    figure.get_layout_engine().set(wspace=0.15, hspace=0.12)  # room for the arrows
    for panel in axes.flat:
        panel.set_visible(False)
    places = {"x": (1, 0), "queries": (0, 1), "keys": (1, 1), "values": (2, 1), "heads, joined": (2, 2),
              "output": (2, 3)}
    for name, place in places.items():
        panel, numbers = axes[place], stages[name].numpy()
        panel.set_visible(True)
        largest = abs(numbers).max()
        panel.imshow(numbers, cmap="RdBu_r", vmin=-largest, vmax=largest, aspect="auto")
        panel.set(title=name, xticks=[], yticks=[])
        panel.grid(False)
        if name not in ("x", "output"):
            panel.axvline(numbers.shape[1] / 2 - 0.5, color="black", linewidth=2)
            panel.set_xticks([1.5, 5.5], ["head 0", "head 1"])
    for head, place in enumerate([(0, 2), (1, 2)]):
        axes[place].set_visible(True)
        tokens = range(len(weights[head]))
        heatmap(axes[place], weights[head], tokens, tokens, f"weights of head {head}", numbers=True)
    arrows = [((1, 0), (0, 1)), ((1, 0), (1, 1)), ((1, 0), (2, 1)), ((0, 1), (0, 2)), ((1, 1), (0, 2)),
              ((0, 1), (1, 2)), ((1, 1), (1, 2)), ((2, 1), (2, 2)), ((2, 2), (2, 3))]
    grey = {"arrowstyle": "->", "color": "gray"}
    for start, end in arrows:
        left = -0.22 if end in ((0, 2), (1, 2)) else -0.04  # left of the tick labels
        axes[end].annotate("", (left, 0.5), (1.02, 0.5), axes[end].transAxes, axes[start].transAxes, grey)
    axes[2, 2].annotate("", (0.5, 1.2), (0.5, -0.2), axes[2, 2].transAxes, axes[1, 2].transAxes, grey)
    return figure


def draw_heads(trainings: Sequence[tuple[int, Tensor, Tensor]], relations: Sequence[str]):
    """One row of heads per run: its seed, weights (H, T, S), and the weight on each relation (H, 4)."""
    figure, axes = canvas(rows=2, columns=4, width=12, height=7.2)
    for line, (seed, weights, mass) in zip(axes, trainings, strict=True):
        for head, panel in enumerate(line):
            share, relation = mass[head].max(0)
            title = f"seed {seed}, head {head}: {share:.0%} {relations[relation]}"
            heatmap(panel, weights[head], range(6), range(6), title)
        line[0].set_ylabel("word that looks")
    for panel in axes[-1]:
        panel.set_xlabel("word looked at")
    return figure

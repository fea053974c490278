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
    titles = "x: one row a token", "view, transpose: each head sees all", "view alone: tokens mixed"
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


def draw_heads(trainings: Sequence[tuple[Tensor, Tensor]], words: Sequence[str], relations: Sequence[str]):
    """A line of heads for each training: weights (H, T, S), and the mass (H, relations) on each relation."""
    figure, axes = canvas(rows=2, columns=4, width=12, height=6.8)
    for seed, (line, (weights, mass)) in enumerate(zip(axes, trainings, strict=True)):
        for head, panel in enumerate(line):
            share, relation = mass[head].max(0)
            title = f"seed {seed}, head {head}: {share:.0%} {relations[relation]}"
            heatmap(panel, weights[head], words, words, title)
            panel.set_xlabel("key")
        line[0].set_ylabel("query")
    return figure

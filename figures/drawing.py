"""The drawing of blocks and model in lesson 4: names, sizes and counts are read off the modules."""

from itertools import pairwise

from torch import nn

from common import canvas, parameters

COLOURS = {"MultiHeadAttention": "#cfe3f5", "FeedForward": "#fbe3c0", "LayerNorm": "#e8e8e8",
           "TokenEmbedding": "#d5ecd4", "SinusoidalPositionalEncoding": "#f3d9e6",
           "EncoderBlock": "#f5f5f5", "DecoderBlock": "#f5f5f5"}


def described(module: nn.Module, copies: int = 1, again: bool = False) -> str:
    """Class, size and parameters read off a module; there may be `copies`, or it may be used `again`."""
    kind = type(module).__name__
    sizes = {
        "MultiHeadAttention": lambda m: (
            f"{m.n_heads} heads of {m.project_query.out_features // m.n_heads}"),
        "FeedForward": lambda m: (
            f"{m.expand.in_features} → {m.expand.out_features} → {m.contract.out_features}"),
        "LayerNorm": lambda m: f"width {len(m.gain)}",
        "TokenEmbedding": lambda m: f"{m.weight.shape[0]} × {m.weight.shape[1]}",
        "SinusoidalPositionalEncoding": lambda m: f"width {m.table.shape[1]}",
        "EncoderBlock": lambda m: "",
        "DecoderBlock": lambda m: "",
    }
    size, count = sizes[kind](module), f"{parameters(module):,} parameters"
    name = kind.replace("PositionalEncoding", "Positional-\nEncoding")
    count += " each" if copies > 1 else ""
    if again:
        return f"{name}\nthe same {size}, counted once"
    return f"{name}\n" + (f"{size}, {count}" if size else count)


def draw_box(axes, x: float, y: float, module: nn.Module, width: float = 4.4, height: float = 0.9,
             label: str = "", **drawn) -> None:
    """A labelled box with its centre at (x, y); `drawn` is for described()."""
    from matplotlib.patches import FancyBboxPatch

    corner = x - width / 2, y - height / 2
    colour = COLOURS[type(module).__name__]
    axes.add_patch(FancyBboxPatch(corner, width, height, boxstyle="round,pad=0,rounding_size=0.12",
                                  facecolor=colour, edgecolor="#444444", linewidth=1))
    axes.text(x, y, (label + "\n" if label else "") + described(module, **drawn),
              ha="center", va="center", fontsize=7.5)


def draw_arrow(axes, *points: tuple[float, float], colour: str = "#444444") -> None:
    """A line through the points, with a head at the last."""
    for start, end in pairwise(points[:-1]):
        axes.plot(*zip(start, end), color=colour, linewidth=1.2)
    axes.annotate("", points[-1], points[-2],
                  arrowprops={"arrowstyle": "-|>", "color": colour, "linewidth": 1.2,
                              "shrinkA": 0, "shrinkB": 0})


def draw_block(axes, block: nn.Module, title: str) -> None:
    """The residual path as a straight line, with the layers that add to it at its side."""
    stages = [("self_attention", "around_attention"), ("feed_forward", "around_feed_forward")]
    if hasattr(block, "cross_attention"):
        stages = [("self_attention", "around_self"), ("cross_attention", "around_cross"), stages[1]]
    trunk, side, y = 1.0, 4.6, 0.6
    axes.text(trunk, 0.0, "x", ha="center", va="center", fontsize=10)
    draw_arrow(axes, (trunk, 0.2), (trunk, y + 2.75 * len(stages) + 0.5), colour="#b5651d")
    for layer, path in stages:
        norm = getattr(block, path).norm
        draw_arrow(axes, (trunk, y), (side, y), (side, y + 0.25))
        draw_box(axes, side, y + 0.6, norm, height=0.7)
        draw_arrow(axes, (side, y + 0.95), (side, y + 1.25))
        draw_box(axes, side, y + 1.8, getattr(block, layer), height=1.1, label=layer)
        draw_arrow(axes, (side, y + 2.35), (side, y + 2.6), (trunk + 0.22, y + 2.6))
        axes.text(trunk, y + 2.6, "+", ha="center", va="center", fontsize=10,
                  bbox={"boxstyle": "circle,pad=0.15", "facecolor": "white", "edgecolor": "#444444"})
        if layer == "cross_attention":
            draw_arrow(axes, (8.6, y + 1.8), (side + 2.2, y + 1.8), colour="#2a6f3c")
            axes.text(7.0, y + 2.0, "memory:\nkeys, values", ha="left", va="bottom", fontsize=7.5)
        if layer == "self_attention" and hasattr(block, "cross_attention"):
            axes.text(side + 2.3, y + 1.8, "causal\nmask", va="center", fontsize=7.5)
        y += 2.75
    axes.set_title(f"{title}\n{parameters(block):,} parameters", fontsize=10)


def draw_towers(axes, embedding, positions, encoder, decoder) -> None:
    """The whole model: source tower on the left, target tower on the right."""
    left, right, width = 2.2, 7.2, 4.0
    for x, text, stack in (left, "source ids", encoder), (right, "target ids, from BOS on", decoder):
        axes.text(x, 0.0, text, ha="center", va="center", fontsize=8)
        draw_arrow(axes, (x, 0.2), (x, 0.55))
        draw_box(axes, x, 1.0, embedding, width, again=x == right)
        draw_arrow(axes, (x, 1.45), (x, 1.8))
        draw_box(axes, x, 2.35, positions, width, 1.1)
        draw_arrow(axes, (x, 2.9), (x, 3.25))
        draw_box(axes, x, 4.0, stack.blocks[0], width, 1.5, f"{len(stack.blocks)} ×",
                 copies=len(stack.blocks))
        draw_arrow(axes, (x, 4.75), (x, 5.1))
        draw_box(axes, x, 5.45, stack.norm, width, 0.7)
    draw_arrow(axes, (left, 5.8), (left, 6.2), (4.7, 6.2), (4.7, 4.0), (right - width / 2, 4.0),
               colour="#2a6f3c")
    axes.text(4.6, 6.3, "memory", ha="right", va="bottom", fontsize=8)
    draw_arrow(axes, (right, 5.8), (right, 6.15))
    draw_box(axes, right, 6.6, embedding, width, label="logits", again=True)
    draw_arrow(axes, (right, 7.05), (right, 7.4))
    axes.text(right, 7.6, "softmax: the next token", ha="center", va="center", fontsize=8)
    total = sum(map(parameters, (embedding, positions, encoder, decoder)))
    axes.set_title(f"The whole model\n{total:,} parameters", fontsize=10)


def draw_transformer(embedding, positions, encoder, decoder):
    figure, axes = canvas(columns=3, width=14, height=7.6)
    draw_block(axes[0], encoder.blocks[0], "Encoder block (pre-norm)")
    draw_block(axes[1], decoder.blocks[0], "Decoder block (pre-norm)")
    draw_towers(axes[2], embedding, positions, encoder, decoder)
    for panel in axes:
        panel.set(xlim=(0, 9.4), ylim=(-0.3, 9.6))
        panel.axis("off")
    return figure

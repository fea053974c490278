"""Figures are data: what each one draws is read back from its axes."""

import ast
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ROOT
from matplotlib.colors import same_color, to_hex
from matplotlib.patches import FancyBboxPatch

from common import canvas, heatmap, lesson
from course.console.manners import running
from figures import (
    architectures,
    attention,
    block,
    decoding,
    drawing,
    efficient_attention,
    finetuning,
    foundations,
    heads,
    interpretability,
    parallelism,
    positions,
    subwords,
    training,
    translation,
)

four = lesson("04_transformer_block")


@pytest.fixture(autouse=True)
def style():
    """The course's, as while a lesson runs: a colour such as C1 is looked up when it is asked for."""
    with running(1):
        yield


def ticks(axes) -> tuple[list[str], list[str]]:
    """The labels of rows and columns, from the first on."""
    return tuple([label.get_text() for label in labels]
                 for labels in (axes.get_yticklabels(), axes.get_xticklabels()))


def names(axes) -> tuple[str, str, str]:
    return axes.get_title(), axes.get_xlabel(), axes.get_ylabel()


def lines(axes) -> dict[str, tuple[list[float], list[float]]]:
    """Label → x and y of every labelled line."""
    return {line.get_label(): (floats(line.get_xdata()), floats(line.get_ydata()))
            for line in axes.get_lines() if not line.get_label().startswith("_")}


def floats(values) -> list[float]:
    return [float(value) for value in values]


def near(values) -> object:
    return pytest.approx(floats(values), rel=1e-6)


def legend(axes) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


def colours(axes) -> dict[str, object]:
    return {line.get_label(): line.get_color() for line in axes.get_lines()}


def cells(axes) -> np.ndarray:
    """The numbers of the image: rows from top to bottom, if the axis points down as it should."""
    (image,) = axes.get_images()
    bottom, top = axes.get_ylim()
    assert bottom > top, "row 0 is on top"
    left, right = axes.get_xlim()
    assert left < right
    height, width = image.get_array().shape
    assert image.get_extent() == [-0.5, width - 0.5, height - 0.5, -0.5]
    return np.ma.filled(image.get_array().astype(float), np.nan)


def same(found: np.ndarray, wanted) -> bool:
    return np.allclose(found, np.asarray(wanted, dtype=float), atol=1e-6, equal_nan=True)


def texts(axes) -> dict[tuple[float, float], str]:
    return {tuple(np.round(text.get_position(), 3)): text.get_text() for text in axes.texts}


def bars(axes, number: int = 0) -> list[float]:
    """The lengths of a group of bars, upright or lying."""
    group = [bar for bar in axes.containers if hasattr(bar, "patches")][number]
    upright = group.orientation == "vertical"
    return [bar.get_height() if upright else bar.get_width() for bar in group.patches]


def random_weights(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).softmax(-1)


def assert_heatmap(axes, weights, rows, columns, title: str, top: float = 1.0) -> None:
    assert same(cells(axes), weights)
    assert ticks(axes) == ([str(row) for row in rows], [str(column) for column in columns])
    assert axes.get_title() == title
    assert axes.get_images()[0].get_clim() == (0, pytest.approx(top))
    low, high = (axes.get_images()[0].cmap(value)[:3] for value in (0.0, 1.0))
    assert sum(low) > sum(high), "more weight is darker"


# what holds of every drawing


DRAWINGS = [(module, name) for module in (attention, block, decoding, foundations, heads, positions, training,
                                          translation) for name in vars(module) if name.startswith("draw_")]


def assert_readable(figure) -> None:
    """Every panel with axes says what it is, every labelled line stands in a legend, row 0 is on top."""
    panels = [axes for axes in figure.axes if axes.get_visible() and axes.axison]
    boxes = [*figure.legends, *filter(None, (axes.get_legend() for axes in panels))]
    named = {text.get_text() for box in boxes for text in box.get_texts()}
    for axes in panels:
        assert any(names(axes)) or axes.get_label() == "<colorbar>", "a panel without any name"
        assert not boxes or {*axes.get_legend_handles_labels()[1]} <= named
        for image in axes.get_images():
            assert image.origin == "lower" or axes.get_ylim()[0] > axes.get_ylim()[1], "row 0 is on top"


def readable(draw):
    """The function, whose figures are looked at."""

    def drawn(*inputs, **options):
        figure = draw(*inputs, **options)
        assert_readable(figure)
        return figure

    return drawn


@pytest.fixture(autouse=True)
def every_drawing_is_readable(monkeypatch):
    """Whatever a test of this file draws is looked at like this."""
    for module, name in DRAWINGS:
        monkeypatch.setattr(module, name, readable(getattr(module, name)))


# what all of them use


def test_a_heatmap_has_its_queries_in_rows_and_writes_its_numbers():
    figure, axes = canvas()
    weights = torch.tensor([[0.9, 0.1, 0.0], [0.25, 0.5, float("nan")]])
    heatmap(axes, weights, ["q", "r"], "abc", "a title", numbers=True)
    assert_heatmap(axes, weights, "qr", "abc", "a title")
    assert texts(axes) == {(0, 0): "0.90", (1, 0): "0.10", (2, 0): "0.00", (0, 1): "0.25", (1, 1): "0.50"}
    written = {tuple(text.get_position()): to_hex(text.get_color()) for text in axes.texts}
    assert (written[0, 0], written[1, 0]) == ("#ffffff", "#000000")  # white on dark, black on light
    assert figure.get_size_inches().tolist() == [8, 4]


def test_a_canvas_has_the_panels_and_the_size_that_were_asked_for():
    figure, axes = canvas(rows=2, columns=3, width=6.5, height=2.5, sharey="row")
    assert axes.shape == (2, 3)
    assert figure.get_size_inches().tolist() == [6.5, 2.5]
    assert axes[0, 0].get_shared_y_axes().joined(axes[0, 0], axes[0, 2])
    palette = {"#0173b2", "#de8f05", "#029e73"}  # the first colours of the colour-blind palette
    drawn = [axes[0, 0].plot([0, 1])[0].get_color() for _ in range(3)]
    assert {to_hex(colour) for colour in drawn} == palette


def test_column_takes_the_records_that_have_it():
    history = [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.0, "exact": 0.5}, {"step": 3, "exact": 0.75}]
    assert training.column(history, "exact") == ([2, 3], [0.5, 0.75])
    assert training.column(history, "loss") == ([1, 2], [3.0, 2.0])


# lesson 1


def test_draw_lookup():
    weights = np.array([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]])
    left, right = attention.draw_lookup([1, 4], weights, [120.0, 110.0]).axes
    assert lines(left) == {f"key {key}, value {100 * (key + 1)}": ([1, 4], near(weights[:, key]))
                           for key in range(3)}
    assert legend(left) == [*lines(left)]
    assert len({line.get_linestyle() for line in left.get_lines()}) == 3
    (curve,) = right.get_lines()
    assert (floats(curve.get_xdata()), floats(curve.get_ydata())) == ([1, 4], [120, 110])
    assert left.get_ylim()[0] == 0
    assert left.get_ylim()[1] >= 1


def test_draw_flow_of_lesson_1():
    def numbers(rows, columns, start):
        return np.arange(start, start + rows * columns, dtype=float).reshape(rows, columns) / 10

    query, key, value = numbers(7, 2, 1), numbers(7, 2, 2), numbers(7, 2, 3)
    stages = {"scaled": numbers(7, 7, 4), "weights": numbers(7, 7, 5), "output": numbers(7, 2, 6)}
    words = [f"w{number}" for number in range(7)]
    figure = attention.draw_flow(words, query, key, value, stages, 2)
    drawn = [query, key, stages["scaled"], stages["weights"], value, stages["output"]]
    titles = ["queries", "· keys =", "scores ÷ √d_k", "softmax → weights", "· values =", "outputs"]
    for panel, title, matrix in zip(figure.axes, titles, drawn, strict=True):
        assert panel.get_title() == title
        assert same(cells(panel), matrix)
        assert texts(panel)[0, 6] == f"{matrix[6, 0]:.2g}"
        assert len(panel.texts) == matrix.size
        assert panel.get_images()[0].get_clim() == (0, pytest.approx(1.4 * matrix.max()))
    assert ticks(figure.axes[0])[0] == ticks(figure.axes[1])[0] == ticks(figure.axes[4])[0] == words
    assert ticks(figure.axes[2])[1] == ticks(figure.axes[3])[1] == words
    framed = [[patch.get_y() + patch.get_height() / 2 for patch in panel.patches] for panel in figure.axes]
    assert framed == [near([2.0]), [], near([2.0]), near([2.0]), [], near([2.0])]


def test_draw_reach():
    reach = {"attention": [1.0, 0.5, 0.25], "recurrent": [1.0, 1e-3, 1e-6]}
    (axes,) = attention.draw_reach([1, 10, 100], reach).axes
    assert lines(axes) == {name: ([1, 10, 100], norms) for name, norms in reach.items()}
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert ticks(axes)[1] == ["1", "10", "100"]


def test_draw_scaling():
    rows = [(4, 4.5, 0.9, 0.95, "more"), (64, 60.0, 0.5, 0.96, "more"), (1024, 1030.0, 0.1, 0.97, "more")]
    starved = {16: [(0.1, 0.0), (0.2, 0.01), (0.3, 0.02)], 64: [(0.4, 0.03), (0.5, 0.0), (0.6, 0.0)],
               512: [(0.7, 0.0), (0.8, 0.0), (0.9, 0.05)]}
    query, key = random_weights(6, 64), random_weights(6, 64, seed=1)
    variance, evenness, share = attention.draw_scaling(rows, starved, query, key).axes
    slider = evenness.touchable  # what the page divides by more and less
    assert same(slider.scores, query @ key.T)
    assert slider.d_k == 64
    widths = [4, 64, 1024]
    assert lines(variance) == {"measured": (widths, [4.5, 60, 1030]), "d_k": (widths, widths)}
    assert lines(evenness) == {"q·k": (widths, [0.9, 0.5, 0.1]), "q·k / √d_k": (widths, [0.95, 0.96, 0.97])}
    assert lines(share) == {
        "q·k, 16 keys": (widths, [0.1, 0.2, 0.3]), "q·k, 64 keys": (widths, [0.4, 0.5, 0.6]),
        "q·k, 512 keys": (widths, [0.7, 0.8, 0.9]), "q·k / √d_k, highest": (widths, [0.03, 0.01, 0.05])}
    for panel in (variance, evenness, share):
        assert ticks(panel)[1] == ["4", "64", "1024"]
        assert (panel.get_xlabel(), panel.get_xscale()) == ("d_k", "log")
    assert [panel.get_title() for panel in (variance, evenness, share)] == [
        "variance of q·k", "evenness of 64 weights", "fraction of starved queries"]


def test_draw_attention():
    english, french = ["a", "b", "c"], ["x", "y"]
    itself, cross, masked = random_weights(3, 3), random_weights(2, 3, seed=1), random_weights(3, 3, seed=2)
    mask = torch.ones(3, 3, dtype=torch.bool).tril()
    panels = attention.draw_attention(english, french, itself, cross, masked, mask).axes
    hidden = [[v if seen else math.nan for v, seen in zip(*rows)]
              for rows in zip(masked.tolist(), mask.tolist())]
    for panel, weights, rows, title in zip(panels, (itself, cross, hidden), (english, french, english), (
            "self: English asks English", "cross: French asks English",
            "causal: what comes later is hidden"), strict=True):
        assert_heatmap(panel, weights, rows, english, title)


def test_draw_scores():
    found = {name: random_weights(6, 6, seed=seed) for seed,
             name in enumerate(("dot", "scaled", "sum", "mlp"))}
    order = torch.tensor([2, 0, 1, 5, 4, 3])
    panels = attention.draw_scores(found, order).axes
    for panel, (name, weights) in zip(panels, found.items(), strict=True):
        assert_heatmap(panel, weights, range(6), range(6), name)
        marks = panel.collections[0].get_offsets()
        assert [(round(x), round(y + 0.35, 6)) for x, y in marks] == [
            (key, query) for query, key in enumerate(order.tolist())]
        assert texts(panel)[3, 2] == f"{weights[2, 3]:.2f}"


def test_draw_cost():
    work, kept = attention.draw_cost([8, 16], [100, 400], [50, 200], [30, 130], [10, 20]).axes
    (curve,) = work.get_lines()
    assert (floats(curve.get_xdata()), floats(curve.get_ydata())) == ([8, 16], [100, 400])
    assert lines(kept) == {"our code": ([8, 16], [50, 200]),
                           "fused kernel, causal mask": ([8, 16], [30, 130]),
                           "fused kernel, no mask": ([8, 16], [10, 20])}
    assert ticks(kept)[1] == ["8", "16"]
    assert {panel.get_xscale() + panel.get_yscale() for panel in (work, kept)} == {"loglog"}


# lesson 2


def test_draw_fetching():
    one, two = [random_weights(3, 3)], [random_weights(3, 3, seed=seed) for seed in (1, 2)]
    panels = heads.draw_fetching(one, two).axes
    wanted = ["0 and 1", "1 and 2", "2 and 0"]
    for panel, weights, title in zip(panels, [*one, *two], (
            "one head", "two heads, the first", "two heads, the second"), strict=True):
        assert_heatmap(panel, weights, wanted, range(3), title)
        assert texts(panel)[1, 0] == f"{weights[0, 1]:.2f}"


def test_draw_split():
    tokens = torch.arange(12).view(3, 4)
    right = tokens.view(3, 2, 2).transpose(0, 1)
    wrong = tokens.view(2, 3, 2)
    panels = heads.draw_split(tokens, right, wrong).axes
    titles = ["x: one row per token", "view, transpose: each head sees all", "view alone: tokens mixed"]
    for panel, places, title in zip(panels, (tokens, right.reshape(6, 2), wrong.reshape(6, 2)), titles,
                                    strict=True):
        assert panel.get_title() == title
        assert panel.get_ylim()[0] > panel.get_ylim()[1]
        said = {(int(x), int(y)): text for (x, y), text in texts(panel).items()}
        assert said == {(j, i): f"t{place // 4}h{place % 4 // 2}" for i, row in enumerate(places.tolist())
                        for j, place in enumerate(row)}
        shown = np.asarray(panel.collections[0].get_array()).reshape(places.shape)
        assert same(shown, places // 4)  # its colour is the token's
    assert ticks(panels[0])[0] == ["0", "1", "2"]
    assert ticks(panels[1])[0] == ticks(panels[2])[0] == ["head 0"] * 3 + ["head 1"] * 3


def test_draw_flow_of_lesson_2():
    generator = torch.Generator().manual_seed(0)
    stages = {name: torch.randn(3, 8, generator=generator)
              for name in ("x", "queries", "keys", "values", "heads, joined", "output")}
    weights = random_weights(2, 3, 3)
    panels = {panel.get_title(): panel for panel in heads.draw_flow(stages, weights).axes
              if panel.get_visible()}
    assert panels.keys() == {*stages, "weights of head 0", "weights of head 1"}
    for name, numbers in stages.items():
        panel = panels[name]
        assert same(cells(panel), numbers)
        low, high = panel.get_images()[0].get_clim()
        assert -low == high == pytest.approx(numbers.abs().max().item())
        halves = [line.get_xdata()[0] for line in panel.get_lines()]
        assert halves == ([] if name in ("x", "output") else [3.5])
    for head in (0, 1):
        assert_heatmap(panels[f"weights of head {head}"], weights[head], range(3), range(3),
                       f"weights of head {head}")
    place = {name: panel.get_subplotspec() for name, panel in panels.items()}
    order = ["x", "queries", "weights of head 0", "heads, joined", "output"]
    columns = [place[name].colspan.start for name in order]
    assert columns == sorted(columns)
    assert [place[name].rowspan.start for name in ("queries", "keys", "values")] == [0, 1, 2]


def test_draw_heads():
    weights = [random_weights(4, 6, 6, seed=seed) for seed in (3, 4)]
    mass = torch.tensor([[0.1, 0.7, 0.1, 0.1], [0.6, 0.2, 0.1, 0.1], [0.1, 0.1, 0.1, 0.5],
                         [0.0, 0.1, 0.9, 0.0]])
    relations = ["itself", "before", "after", "verb"]
    panels = heads.draw_heads([(11, weights[0], mass), (12, weights[1], mass.flip(0))], relations).axes
    said = ["70% before", "60% itself", "50% verb", "90% after"]
    for line, (seed, words) in enumerate(((11, said), (12, said[::-1]))):
        for head in range(4):
            assert_heatmap(panels[4 * line + head], weights[line][head], range(6), range(6),
                           f"seed {seed}, head {head}: {words[head]}")


# lesson 3


def test_draw_waves():
    waves = torch.linspace(-1, 1, 15).view(5, 3)
    figure = positions.draw_waves(waves)
    axes, bar = figure.axes
    assert same(cells(axes), waves)
    assert axes.get_images()[0].get_clim() == (-1, 1)
    assert ticks(bar)[0] == ["−1", "0", "1"]


def test_draw_wavelengths():
    wavelengths = 2 * math.pi * 10000 ** (torch.arange(16) / 16)
    left, right = positions.draw_wavelengths(wavelengths).axes
    curve = left.get_lines()[0]
    assert floats(curve.get_xdata()) == [*range(16)]
    assert floats(curve.get_ydata()) == near(wavelengths)
    assert left.get_yscale() == "log"
    marked = {text.get_text(): text.xy[1] for text in left.texts}
    assert marked == {"2π": pytest.approx(2 * math.pi), "10000 · 2π": pytest.approx(20000 * math.pi)}
    assert [line.get_ydata()[0] for line in left.get_lines()[1:]] == near(marked.values())
    assert legend(right) == [f"pair {pair}: {wavelengths[pair]:.0f} positions" for pair in (0, 4, 8, 12)]
    for pair, (curve, dots) in zip((0, 4, 8, 12), zip(right.get_lines()[::2], right.get_lines()[1::2])):
        for line in curve, dots:
            wanted = [math.sin(x * 2 * math.pi / wavelengths[pair].item()) for x in line.get_xdata()]
            assert floats(line.get_ydata()) == pytest.approx(wanted, abs=1e-4)
        assert floats(dots.get_xdata()) == [*range(41)]
        assert curve.get_color() == dots.get_color()


def test_draw_distance():
    products = torch.arange(200.0)
    (axes,) = positions.draw_distance(products).axes
    (curve,) = axes.get_lines()
    assert floats(curve.get_xdata()) == [*range(-100, 100)]
    assert floats(curve.get_ydata()) == floats(products)


def test_draw_longer():
    curves = {"waves": [[0, 0, 0.5, 0.25], [0, 0, 1.0, 0.75]],
              "learned": [[0, 0, 0.125, 0.5], [0, 0, 0.375, 0.5]]}
    (axes,) = positions.draw_longer(curves, 40).axes
    assert lines(axes) == {"waves": ([3, 4], near([0.75, 0.5])), "learned": ([3, 4], near([0.25, 0.5]))}
    bands = [collection.get_paths()[0].vertices for collection in axes.collections[:2]]
    for band, low, high in zip(bands, ([0.5, 0.25], [0.125, 0.5]), ([1.0, 0.75], [0.375, 0.5])):
        heights = {place: sorted({round(y, 6) for x, y in band if x == place}) for place in (3, 4)}
        assert heights == {3: sorted({low[0], high[0]}), 4: sorted({low[1], high[1]})}
    (span,) = axes.patches
    assert (span.get_x(), span.get_x() + span.get_width()) == (3, 40)
    assert [text.get_text() for text in axes.texts] == ["trained"]


# lesson 4


def test_draw_through_the_blocks():
    stacks, sizes = ["plain", "pre", "post", "none"], [0.5, 1, 2]
    found = {(name, size): [(np.array([8.0, 4.0, 2.0]) * (number + 1) ** seed * (1 + seed),
                             np.array([1, 0.5, 0.25]) / size)
                            for seed in (0, 1)] for number, name in enumerate(stacks) for size in sizes}
    panels = block.draw_through_the_blocks(found, stacks, sizes).axes
    for column, size in enumerate(sizes):
        gradient, apart = panels[column], panels[3 + column]
        assert gradient.get_title() == f"initial weights × {size:g}"
        assert len(gradient.get_lines()) == len(apart.get_lines()) == 8  # each seed of each
        assert [line.get_label() for line in gradient.get_lines()][::2] == stacks
        assert all(floats(line.get_ydata()) == [4, 2, 1] for line in gradient.get_lines())
        assert all(floats(line.get_ydata()) == near(found["pre", size][0][1]) for line in apart.get_lines())
        assert {gradient.get_yscale(), apart.get_yscale()} == {"log"}
        assert [line.get_color() for line in gradient.get_lines()] == [
            line.get_color() for line in apart.get_lines()]


def test_draw_warmup():
    ends = {(norm, rate, warmup): torch.tensor([1.0, 2.0]) * rate * (1 if norm == "pre" else 2) + warmup
            for norm in ("pre", "post") for warmup in (0, 50) for rate in (0.01, 0.1)}
    shares = {(norm, warmup): torch.tensor([[1.0, 3.0], [2.0, 4.0]]) * (norm == "pre" or 10)
              for norm in ("pre", "post") for warmup in (0, 50)}
    loss, apart = block.draw_warmup(ends, shares, 7).axes
    labels = {"pre-norm, no warm-up": ("pre", 0), "pre-norm, warm-up 50": ("pre", 50),
              "post-norm, no warm-up": ("post", 0), "post-norm, warm-up 50": ("post", 50)}
    for label, (norm, warmup) in labels.items():
        assert lines(loss)[label] == ([0.01, 0.1], near(
            ends[norm, rate, warmup].mean() for rate in (0.01, 0.1)))
        assert lines(apart)[label] == ([0, 1], near(shares[norm, warmup].mean(1)))
        (line,) = [line for line in loss.get_lines() if line.get_label() == label]
        assert line.get_linestyle() == ("--" if warmup else "-")
        assert colours(apart)[label] == line.get_color()
    assert len({colours(loss)[label] for label in labels}) == 2  # one a norm
    marks = [(line.get_marker(), floats(line.get_xdata()), floats(line.get_ydata()))
             for line in loss.get_lines()
             if line.get_label().startswith("_") and line.get_marker() in ("o", "x")]
    wanted = sorted(("o" if warmup else "x", [rate] * 2, floats(losses))
                    for (_, rate, warmup), losses in ends.items())
    assert sorted(marks) == wanted
    bands = [collection.get_paths()[0].vertices[:, 1] for collection in apart.collections]
    assert [(low, high) for low, high in ((min(band), max(band)) for band in bands)] == [
        (curves.min().item(), curves.max().item()) for curves in shares.values()]
    assert [(text.get_text(), text.xy[1]) for text in loss.texts] == [("guessing, ln 7", math.log(7))]
    assert any(set(floats(line.get_ydata())) == {math.log(7)} for line in loss.get_lines())
    assert ticks(loss)[1] == ["0.01", "0.1"]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    three = lesson("03_positional_encoding")
    return SimpleNamespace(embedding=three.TokenEmbedding(13, 16),
                           positions=three.SinusoidalPositionalEncoding(16, 32),
                           encoder=four.Encoder(2, 16, 4, 64), decoder=four.Decoder(3, 16, 4, 64))


def count(module) -> str:
    return f"{sum(parameter.numel() for parameter in module.parameters()):,} parameters"


def test_drawn_modules_say_what_they_are(model):
    first = model.decoder.blocks[0]
    said = {module: drawing.described(module).split("\n")[1] for module in (
        first.cross_attention, first.feed_forward, first.around_self.norm, model.embedding, model.positions)}
    assert [words.partition(",")[0] for words in said.values()] == [
        "4 heads of 4", "16 → 64 → 16", "width 16", "13 × 16", "Encoding"]
    assert all(count(module) in drawing.described(module) for module in said)
    assert drawing.described(first, copies=3) == f"DecoderBlock\n{count(first)} each"
    assert drawing.described(first) == f"DecoderBlock\n{count(first)}"
    assert drawing.described(model.embedding, again=True) == "TokenEmbedding\nthe same 13 × 16, counted once"


def test_draw_box(model):
    _, axes = canvas()
    drawing.draw_box(axes, 3.0, 2.0, model.embedding, width=4.0, height=1.0, label="first", again=True)
    (box,) = axes.patches
    assert (box.get_x(), box.get_y(), box.get_width(), box.get_height()) == (1.0, 1.5, 4.0, 1.0)
    assert same_color(box.get_facecolor(), drawing.COLOURS["TokenEmbedding"])
    assert texts(axes) == {(3, 2): "first\nTokenEmbedding\nthe same 13 × 16, counted once"}


def test_draw_arrow():
    _, axes = canvas()
    drawing.draw_arrow(axes, (0, 0), (1, 0), (1, 2), colour="#123456")
    (line,) = axes.get_lines()
    assert (floats(line.get_xdata()), floats(line.get_ydata())) == ([0, 1], [0, 0])
    (arrow,) = axes.texts
    assert (arrow.xy, arrow.get_position()) == ((1, 2), (1, 0))  # its head is at the last point
    assert same_color(arrow.arrow_patch.get_edgecolor(), "#123456")


def heights(axes) -> dict[str, float]:
    """First word that a box says → its height."""
    return {text.get_text(): text.get_position()[1] for text in axes.texts if text.get_text()}


def test_draw_block(model):
    for stack, layers in ((model.encoder, ["self_attention", "feed_forward"]),
                          (model.decoder, ["self_attention", "cross_attention", "feed_forward"])):
        _, axes = canvas()
        drawing.draw_block(axes, stack.blocks[0], "a block")
        assert axes.get_title() == f"a block\n{count(stack.blocks[0])}"
        found = {text.partition("\n")[0]: height for text, height in heights(axes).items()}
        order = sorted((name for name in found if name in layers), key=found.get)
        assert order == layers  # from bottom to top
        assert ("memory:" in found) == ("causal" in found) == (stack is model.decoder)
        said = [text.get_text() for text in axes.texts]
        assert said.count("+") == len(layers)
        assert sum(text.startswith("LayerNorm") for text in said) == len(layers)
        norm, layer = (min(text.get_position()[1] for text in axes.texts if text.get_text().startswith(name))
                       for name in ("LayerNorm", "self_attention"))
        assert norm < layer, "pre-norm: the norm comes first"
        if stack is model.decoder:
            assert found["memory:"] == pytest.approx(found["cross_attention"], abs=0.3)
            assert found["causal"] == pytest.approx(found["self_attention"], abs=0.3)


def test_draw_towers(model):
    _, axes = canvas()
    drawing.draw_towers(axes, model.embedding, model.positions, model.encoder, model.decoder)
    total = sum(sum(p.numel() for p in part.parameters())
                for part in (model.embedding, model.positions, model.encoder, model.decoder))
    assert axes.get_title() == f"The whole model\n{total:,} parameters"
    left = {text.get_text(): text.get_position()[1] for text in axes.texts if text.get_position()[0] < 4}
    right = {text.get_text(): text.get_position()[1] for text in axes.texts if text.get_position()[0] > 6}
    first_words = [[text.split("\n")[0] for text in sorted(tower, key=tower.get) if text]
                   for tower in (left, right)]
    assert first_words == [
        ["source ids", "TokenEmbedding", "SinusoidalPositional-", "2 ×", "LayerNorm"],
        ["target ids, from BOS on", "TokenEmbedding", "SinusoidalPositional-", "3 ×", "LayerNorm", "logits",
         "softmax: the next token"]]
    blocks = [text for text in (*left, *right) if "Block" in text]
    assert blocks == [f"2 ×\nEncoderBlock\n{count(model.encoder.blocks[0])} each",
                      f"3 ×\nDecoderBlock\n{count(model.decoder.blocks[0])} each"]
    assert sum("counted once" in text for text in right) == 2
    assert not any("counted once" in text for text in left)


def test_draw_transformer(model):
    figure = drawing.draw_transformer(model.embedding, model.positions, model.encoder, model.decoder)
    assert [panel.get_title().partition("\n")[0] for panel in figure.axes] == [
        "Encoder block (pre-norm)", "Decoder block (pre-norm)", "The whole model"]
    assert [panel.get_title().partition("\n")[2] for panel in figure.axes[:2]] == [
        count(model.encoder.blocks[0]), count(model.decoder.blocks[0])]
    for panel in figure.axes:  # nothing sticks out
        (left, right), (low, high) = panel.get_xlim(), panel.get_ylim()
        for box in (patch for patch in panel.patches if isinstance(patch, FancyBboxPatch)):
            assert left <= box.get_x() < box.get_x() + box.get_width() <= right
            assert low <= box.get_y() < box.get_y() + box.get_height() <= high


# lesson 5


def test_draw_schedule():
    here, paper = training.draw_schedule({"linear": [1, 2, 1], "inverse_sqrt": [3, 4, 2]}, [99, 199],
                                         [5, 6]).axes
    assert lines(here) == {"linear": ([1, 2, 3], [1, 2, 1]), "inverse_sqrt": ([1, 2, 3], [3, 4, 2])}
    (curve,) = paper.get_lines()
    assert (floats(curve.get_xdata()), floats(curve.get_ydata())) == ([100, 200], [5, 6])
    assert same_color(curve.get_color(), here.get_lines()[1].get_color())  # the paper's in both


HISTORY = [{"step": step, "loss": 3.0 / step, "learning_rate": 0.1 * step, "gradient_norm": 2.0 * step,
            **({"validation_loss": 4.0 / step, "token_accuracy": 0.1 * step, "exact_match": 0.05 * step}
               if step % 2 == 0 else {})} for step in range(1, 7)]


def test_draw_training():
    loss, accuracy, rate, norm = training.draw_training(HISTORY, 1.5).axes
    every, some = [*range(1, 7)], [2, 4, 6]
    assert lines(loss) == {"training": (every, near(3 / step for step in every)),
                           "validation": (some, near(4 / step for step in some))}
    assert lines(accuracy) == {"tokens, teacher forcing": (some, near([0.2, 0.4, 0.6])),
                               "exact match, free-running": (some, near([0.1, 0.2, 0.3]))}
    (curve,) = rate.get_lines()
    assert floats(curve.get_ydata()) == near(0.1 * step for step in every)
    curve, clip = norm.get_lines()
    assert floats(curve.get_ydata()) == near(2 * step for step in every)
    assert {*clip.get_ydata()} == {1.5}
    assert clip.get_label() == "clipped above"
    assert [panel.get_title() for panel in (loss, accuracy, rate, norm)] == [
        "loss per token", "both accuracies, on validation sequences", "learning rate", "norm of the gradient"]
    assert (loss.get_yscale(), norm.get_yscale(), accuracy.get_yscale()) == ("log", "log", "linear")


def test_draw_patterns():
    source, reads, writes = list("abc"), ["BOS", "c"], ["c", "b"]
    shapes = {"encoder.blocks.0.self_attention": (3, 3), "decoder.blocks.0.self_attention": (2, 2),
              "decoder.blocks.0.cross_attention": (2, 3)}
    weights = {name: random_weights(2, 2, *shape, seed=seed) for seed,
               (name, shape) in enumerate(shapes.items())}
    weights["decoder.blocks.0.self_attention"][:, :, 0] = torch.tensor([1.0, 0.0])  # sees BOS alone
    panels = training.draw_patterns(weights, source, reads, writes).axes
    turns = ["BOS → c", "c → b"]
    for column, (name, rows, columns, title) in enumerate((
            ("encoder.blocks.0.self_attention", source, source, "encoder, block 0"),
            ("decoder.blocks.0.self_attention", turns, reads, "decoder, block 0"),
            ("decoder.blocks.0.cross_attention", turns, source, "cross, block 0"))):
        for head in (0, 1):
            shown = weights[name][0, head]
            top = shown[1:].max().item() if title[:7] == "decoder" else shown.max().item()
            assert_heatmap(panels[3 * head + column], shown, rows, columns,
                           f"{title}\n{top:.2f}" if head == 0 else f"{top:.2f}", top)


def test_draw_learning():
    parts = ["embedding", "encoder 0", "decoder 0"]
    runs = {}
    for name, scale in ("the model", 1), ("no residual paths", 100):
        runs[name] = [{"step": step} for step in (1, 11)]
        for record in runs[name]:
            for number, part in enumerate(parts, 1):
                record[f"gradient in {part}"] = 7.0 * scale * record["step"] * number
                record[f"move of {part}"] = 1.0 * scale * record["step"] * number
    panels = interpretability.draw_learning(runs, parts).axes
    for line, (name, noted) in enumerate(runs.items()):
        for column, (measure, title, label) in enumerate((
                ("gradient in", "gradient", "norm"), ("move of", "move per step",
                                                      "RMS, in learning rates"))):
            panel = panels[2 * line + column]
            assert lines(panel) == {part: ([1, 11], near(record[f"{measure} {part}"] for record in noted))
                                    for part in parts}
            assert (panel.get_title(), panel.get_ylabel()) == (f"{name}: {title}", label)
            assert panel.get_yscale() == "log"
            assert len({line.get_linestyle() for line in panel.get_lines()}) == 3


def test_draw_lens():
    found = {"0": torch.tensor([[0.1, 0.2], [0.9, 1.0]]), "1": torch.tensor([[0.3, 0.4], [0.5, 0.6]])}
    panels = interpretability.draw_lens(found).axes
    assert [panel.get_title() for panel in panels] == ["seed 0", "seed 1"]
    for panel, right in zip(panels, found.values()):
        assert np.allclose(panel.images[0].get_array(), right)
        assert [label.get_text() for label in panel.get_yticklabels()] == ["block 0", "block 1"]


def test_draw_patches():
    found = {"the digit": {"encoder 0": [0.0, 1.0], "decoder 0": [0.25, 0.5, 0.75]},
             "the place": {"decoder 0": [1.0]}}
    digit, place = interpretability.draw_patches(found).axes
    cells = np.array(digit.images[0].get_array().filled(np.nan))
    assert np.allclose(cells, [[0, 1, np.nan], [0.25, 0.5, 0.75]], equal_nan=True)
    assert (digit.get_title(), place.get_title()) == ("the digit", "the place")
    assert [label.get_text() for label in digit.get_yticklabels()] == ["encoder 0", "decoder 0"]


def test_draw_weights_and_effects():
    found = {"0": [(0.2, 1.0), (0.6, 0.1)], "1": [(0.5, 0.5)]}
    (panel,) = interpretability.draw_weights_and_effects(found).axes
    assert lines(panel) == {"seed 0": (near([0.2, 0.6]), near([1.0, 0.1])),
                            "seed 1": (near([0.5]), near([0.5]))}
    assert "weight" in panel.get_xlabel()


def test_draw_clinic():
    losses = {"right": [2.0, 1.0], "sick": [2.0, 4.0]}
    readings = {"right": {"leak": 0.0, "source": 1.0}, "sick": {"leak": 8.25, "source": 0.5}}
    signs = {"leak": lambda value: value > 1, "source": lambda value: value < 0.1}
    curves, cells = interpretability.draw_clinic(losses, readings, signs).axes
    assert lines(curves) == {"right": ([1, 2], near([2.0, 1.5])), "sick": ([1, 2], near([2.0, 3.0]))}
    assert np.array_equal(cells.images[0].get_array() > 0, [[False, False], [True, False]])
    assert [text.get_text() for text in cells.texts] == ["0", "1", "8.2", "0.5"]


def test_draw_reading():
    history = [{"step": 1, "loss": 2.0}, {"step": 2, "bits": 3.5}, {"step": 4, "bits": 2.5}]
    (panel,) = architectures.draw_reading(history, {"counts": 3.0, "lzma": 2.0}).axes
    found = lines(panel)
    assert found["the model"] == ([2, 4], near([3.5, 2.5]))
    assert [found[name][1] for name in ("counts", "lzma")] == [near([3.0, 3.0]), near([2.0, 2.0])]
    assert "bits per character" in panel.get_ylabel()


def test_draw_prompt():
    weights = torch.rand(8, 8, generator=torch.Generator().manual_seed(0))
    panel = architectures.draw_prompt(weights, ["3", "1", "4"]).axes[0]
    rows = ["→", "4", "1"]
    assert_heatmap(panel, weights[4:-1], rows, ["BOS", "3", "1", "4", *rows, "3"], "one head")


def test_draw_pictures():
    pixels = torch.arange(3 * 2 * 64.0).view(3, 2, 8, 8) / 400
    said = {"as it is": [1, 2, 3], "shuffled": [1, 0, 0]}
    panels = architectures.draw_pictures(pixels, said, [1, 2, 4], 2).axes
    assert len(panels) == 6
    for number, panel in enumerate(panels):
        row, column = divmod(number, 3)
        assert (panel.get_images()[0].get_array() == pixels[column, row].numpy()).all()
        assert len(panel.get_xticks()) == 5  # the edges of four patches
    assert [panel.get_xlabel() for panel in panels] == [
        "says 1", "says 2", "says 3, is 4", "says 1", "says 0, is 2", "says 0, is 4"]
    assert [panels[number].get_ylabel() for number in (0, 3)] == ["as it is", "shuffled"]


def test_draw_changes():
    losses = {"first": [3.0, 3.5], "second": [2.0, 2.5]}
    (panel,) = architectures.draw_changes(losses).axes
    assert lines(panel) == {"seed 0": (near([3.0, 2.0]), [0, 1]), "seed 1": (near([3.5, 2.5]), [0, 1])}
    assert [label.get_text() for label in panel.get_yticklabels()] == ["first", "second"]
    assert panel.yaxis_inverted()


def test_draw_broken():
    scores = {"right": {"token_accuracy": 0.9, "exact_match": 0.8},
              "no shift": {"token_accuracy": 1.0, "exact_match": 0.0}}
    (axes,) = training.draw_broken(scores).axes
    assert ticks(axes)[0] == ["right", "no shift"]
    assert (bars(axes, 0), bars(axes, 1)) == ([0.9, 1.0], [0.8, 0.0])
    assert [container.get_label() for container in axes.containers] == legend(axes)
    for container, side in zip(axes.containers, (-0.2, 0.2)):
        assert [bar.get_y() + bar.get_height() / 2 for bar in container] == near([side, 1 + side])
    assert axes.get_ylim()[0] > axes.get_ylim()[1]
    assert (axes.get_xlim(), axes.get_xlabel()) == ((0, 1), "fraction that is right")


def test_draw_comparison():
    def histories(*losses):
        return [[{"step": 50, "validation_loss": loss, "exact_match": loss / 10}, {"step": 51, "loss": 9.0}]
                for loss in losses]

    curves = {1: histories(1.0, 2.0), 4: histories(3.0, 4.0)}
    loss, exact = training.draw_comparison("n_heads", curves).axes
    for panel, scale in (loss, 1), (exact, 0.1):
        assert [(floats(line.get_xdata()), floats(line.get_ydata())) for line in panel.get_lines()] == [
            ([50], near([scale * value])) for value in (1.0, 2.0, 3.0, 4.0)]
        first, second, third, fourth = [line.get_color() for line in panel.get_lines()]
        assert first == second != third == fourth
    assert (loss.get_yscale(), exact.get_yscale()) == ("log", "linear")


def test_draw_own():
    other = [record | {"loss": 7.0} for record in HISTORY]
    maps = {"the course's": random_weights(2, 3), "yours": random_weights(2, 3, seed=1)}
    loss, *heat = training.draw_own({"the course's": HISTORY, "yours": other}, maps, ["q", "r"],
                                    list("abc")).axes
    assert lines(loss) == {"the course's": ([*range(1, 7)], near(3 / step for step in range(1, 7))),
                           "yours": ([*range(1, 7)], [7.0] * 6)}
    for panel, (name, weights) in zip(heat, maps.items(), strict=True):
        assert_heatmap(panel, weights, "qr", "abc", name)


# lesson 6


def test_draw_cache():
    now, times = [[1.0, 1.5], [2.0, 6.0]], [[0.1, 0.2, 0.3], [1.0, 2.0, 3.0]]
    step, whole = decoding.draw_cache([1, 3], now, times).axes
    assert lines(step) == {"with cache": ([1, 3], [1, 1.5]), "without cache": ([1, 3], [2, 6])}
    assert lines(whole) == {"with cache": ([1, 3], near([0.1, 0.6])), "without cache": ([1, 3], near([1, 6]))}
    assert step.get_ylim()[0] == whole.get_ylim()[0] == 0


def test_draw_tree():
    def node(*tokens, p):
        return SimpleNamespace(tokens=tokens, log_prob=math.log(p))

    trace = [(node(3, p=0.6), "kept"), (node(4, p=0.3), "kept"), (node(5, p=0.1), "pruned"),
             (node(3, 5, p=0.2), "pruned"), (node(3, 2, p=0.4), "finished"), (node(4, 4, p=0.25), "kept")]
    (axes,) = decoding.draw_tree(trace, lambda token: f"w{token}").axes
    said = {text.get_text(): text for text in axes.texts}
    assert said.keys() == {"BOS", "w3  0.600", "w4  0.300", "w5  0.100", "w5  0.200", "w2 (finished)  0.400",
                           "w4  0.250"}
    place = {words: text.get_position() for words, text in said.items()}
    order = ["w2 (finished)  0.400", "w5  0.200", "w4  0.250", "w5  0.100"]
    assert [place[leaf][1] for leaf in order] == sorted((place[leaf][1] for leaf in order), reverse=True)
    assert [place[words][0] for words in ("w3  0.600", "w4  0.250")] == [1, 2]
    assert place["w3  0.600"][1] == (place[order[0]][1] + place[order[1]][1]) / 2  # between its continuations
    edges = {(line.get_xdata()[1], line.get_ydata()[1]): line for line in axes.get_lines()
             if len(line.get_xdata())}
    assert len(edges) == len(trace)
    for words, before in (("w2 (finished)  0.400", "w3  0.600"), ("w4  0.250", "w4  0.300")):
        x, y = place[words]
        assert edges[x - 0.02, y].get_ydata()[0] == place[before][1]
        assert edges[x - 0.02, y].get_color() == said[words].get_color()
    assert {words: said[words].get_color() for words in ("w3  0.600", "w5  0.100",
                                                         "w2 (finished)  0.400")} == {
        "w3  0.600": "C0", "w5  0.100": "gray", "w2 (finished)  0.400": "C2"}
    assert [colours(axes)[fate] for fate in legend(axes)] == ["C0", "C2", "gray"]


def test_draw_lengths():
    panels = decoding.draw_lengths({"greedy": [1, 3, 3], "beam": [18]}).axes
    assert [panel.get_title() for panel in panels] == ["greedy", "beam"]
    assert bars(panels[0]) == [1, 0, 2, *[0] * 15]
    assert bars(panels[1]) == [*[0] * 17, 1]
    assert [round(bar.get_x() + bar.get_width() / 2) for bar in panels[0].patches] == [*range(1, 19)]


def test_draw_distributions():
    adjusted = {(kind, name): random_weights(8, seed=seed) for seed, (kind, name) in enumerate(
        (kind, name) for kind in ("sure", "unsure") for name in ("as it is", "hot", "top-k 3"))}
    panels = decoding.draw_distributions(adjusted).axes
    for panel, (kind, name) in zip(panels, [(kind, name) for kind in ("sure", "unsure")
                                            for name in ("hot", "top-k 3")], strict=True):
        assert panel.get_title() == f"{kind}, {name}"
        assert bars(panel, 0) == near(adjusted[kind, "as it is"])
        assert bars(panel, 1) == near(adjusted[kind, name])
        behind, front = (container.patches[0].get_facecolor() for container in panel.containers)
        assert same_color(behind, "lightgray")
        assert not same_color(front, "lightgray")
    assert ticks(panels[-1])[1] == list("ABCDEFGH")


def test_draw_strategies():
    rows = [("greedy", 0.5, -1.25, 1.0, 12.0, "more"), ("beam", 0.75, -1.0, 2.5, 40.0, "more")]
    panels = decoding.draw_strategies(rows).axes
    titles = "exact match", "mean log P", "distinct answers of 3", "tokens run per answer"
    written = ["50.0%", "75.0%"], ["-1.25", "-1.00"], ["1.00", "2.50"], ["12", "40"]
    for part, (panel, title, labels) in enumerate(zip(panels, titles, written, strict=True), 1):
        assert panel.get_xlabel() == title
        assert bars(panel) == [row[part] for row in rows]
        assert [text.get_text() for text in panel.texts] == labels
    assert ticks(panels[0])[0] == ["greedy", "beam"]
    assert panels[0].get_ylim()[0] > panels[0].get_ylim()[1]
    assert [min(panel.get_xlim()) < 0 for panel in panels] == [False, True, False, False]


def test_draw_cross_attention():
    weights = random_weights(2, 4, 3)
    panels = decoding.draw_cross_attention(weights, list("abc"), ["x", "y"]).axes
    for head, panel in enumerate(panels):
        assert_heatmap(panel, weights[head, :2], "xy", "abc", f"head {head}")


# lesson 0


def test_draw_graph():
    values = {"w": (2.0, -0.25), "x": (3.0, 0.5), "w·x": (6.0, -0.125), "b": (-1.0, 0.75),
              "w·x + b": (5.0, 1.5), "tanh": (0.96, 2.5), "y": (0.4, -2.5),
              "error": (0.56, 1.12), "loss": (0.3136, 1.0)}
    (axes,) = foundations.draw_graph(values).axes
    written = {}
    for text in axes.texts:
        x, y = text.get_position()
        name = next((name for name, place in foundations.PLACES.items()
                     if abs(place[0] - x) < 0.01 and abs(place[1] - y) < 0.3), "")
        if text.get_text():
            written.setdefault(name, {})[round(y, 2)] = text
    for name, (value, gradient) in values.items():
        _, middle, low = (written[name][y] for y in sorted(written[name], reverse=True))
        assert [written[name][max(written[name])].get_text(), middle.get_text(), low.get_text()] == [
            name, f"{value:.3f}", f"{gradient:.3f}"]
        assert same_color(middle.get_color(), "black") or middle.get_color() == ".15"
        assert same_color(low.get_color(), "#b84e00")
    said = {text.get_text(): text.get_color() for text in written[""].values()}
    assert {*said} == {"value", "gradient of the loss"}
    assert same_color(said["gradient of the loss"], "#b84e00")
    assert len(arrows(axes)) == len(foundations.ARROWS)
    at = {place: name for name, place in foundations.PLACES.items()}
    assert sorted((at[start], at[end]) for start, end in arrows(axes)) == sorted(foundations.ARROWS)


def arrows(axes) -> list[tuple]:
    """Where each arrow begins and ends."""
    return [(text.xyann, text.xy) for text in axes.texts if getattr(text, "arrow_patch", None)]


def test_draw_spirals():
    def network(at):
        return np.stack([at[:, 0], -at[:, 1]], axis=1)

    points, labels = np.array([[0.0, 1.0], [2.0, -1.0], [-2.0, 0.5]]), np.array([1, 0, 1])
    losses = {"0.1": [3.0, 2.0, 1.0], "1": [3.0, 0.5, 0.25]}
    left, right, _ = foundations.draw_spirals(losses, network, points, labels).axes
    assert lines(left) == {name: ([0, 1, 2], curve) for name, curve in losses.items()}
    assert (names(left)[1:], left.get_yscale()) == (("step", "loss"), "log")
    (image,) = right.get_images()
    assert image.origin == "lower"
    drawn = np.array(image.get_array())
    assert drawn[0, 0] == pytest.approx(1 / (1 + np.exp(-4.8))), "there class 1 has the larger logit"
    assert drawn[-1, -1] == pytest.approx(1 / (1 + np.exp(4.8)))
    assert drawn[0, -1] == pytest.approx(0.5)
    assert image.get_extent() == [-2.4, 2.4, -2.4, 2.4]
    assert image.get_clim() == (0, 1)
    drawn = {found.get_label(): (found.get_offsets().tolist(), found.get_facecolor()[0])
             for found in right.collections if found.get_label().startswith("class")}
    assert drawn["class 0"][0] == [[2, -1]]
    assert drawn["class 1"][0] == [[0, 1], [-2, 0.5]]
    for name, (colour, share_of_1) in {"class 0": ("#0b4a8f", 0.0), "class 1": ("#8c1a11", 1.0)}.items():
        assert same_color(drawn[name][1], colour)
        near_red = image.cmap(share_of_1)[0] > image.cmap(share_of_1)[2]
        assert near_red == (name == "class 1"), "points have the colour of their side"


def test_draw_words():
    before, after = random_weights(4, 3) - 0.3, random_weights(4, 3, seed=1) - 0.3
    classes = {"animal": ["cat", "dog", "cow"], "food": ["rice"]}
    *panels, _ = foundations.draw_words({"before": before, "after": after}, classes).axes
    for panel, vectors, title in zip(panels, (before, after), ("before", "after"), strict=True):
        cosines = torch.nn.functional.cosine_similarity(vectors[:, None], vectors[None], dim=-1)
        assert same(cells(panel), cosines)
        assert panel.get_title() == title
        assert panel.get_images()[0].get_clim() == (-1, 1)
        assert panel.get_xticks().tolist() == [1, 3]
        assert ticks(panel)[1] == ["animal", "food"]
        between = [floats(line.get_ydata()) for line in panel.get_lines()]
        assert [2.5, 2.5] in between
    assert ticks(panels[0])[0] == ["cat", "dog", "cow", "rice"]


def test_draw_memory():
    right = {"tanh": torch.tensor([[0.9, 1.0], [0.2, 0.3]]), "LSTM": torch.tensor([[1.0, 1.0], [0.5, 0.9]]),
             "GRU": torch.tensor([[1.0, 0.8], [0.4, 0.6]])}
    (panel,) = foundations.draw_memory([2, 8], right).axes
    means = {line.get_label(): line for line in panel.get_lines() if not line.get_label().startswith("_")}
    for (name, shares), found in zip(right.items(), panel.collections, strict=True):
        assert floats(means[name].get_ydata()) == near(shares.mean(1))
        at = np.array(means[name].get_xdata())
        assert abs(at - [2, 8]).max() < 1
        assert same(found.get_offsets(), np.stack([at.repeat(2), shares.flatten()], 1))
        assert same_color(found.get_facecolor()[0][:3], means[name].get_color())
    assert [floats(line.get_ydata()) for line in panel.get_lines() if line.get_label().startswith("_")] == [
        [0.25, 0.25]]
    assert [text.get_text() for text in panel.texts] == ["guessing"]
    assert ticks(panel)[1] == ["2", "8"]
    (named,) = panel.figure.legends
    assert [text.get_text() for text in named.get_texts()] == [*right]


# lesson 7


def test_draw_vocabulary():
    costs = [{"a": 3e6, "b": 1e6}, {"a": 1e6, "b": 2e6}]
    curve, parts = subwords.draw_vocabulary([400, 1000], [1.0, 0.4], costs).axes
    (line,) = curve.get_lines()
    assert (floats(line.get_xdata()), floats(line.get_ydata())) == ([400, 1000], [1.0, 0.4])
    assert {name: ys for name, (_, ys) in lines(parts).items()} == {"a": [3, 1], "b": [1, 2], "total": [4, 3]}
    assert legend(parts) == ["a", "b", "total"]
    assert (names(curve)[1:], names(parts)[1:]) == (
        ("pieces in the list", "pieces per character"), ("pieces in the list", "million multiplications"))
    assert parts.get_ylim()[0] == 0


def test_draw_languages():
    (axes,) = subwords.draw_languages({"A": 5, "B": 9}, {"A": 7, "B": 2}).axes
    assert (bars(axes, 0), bars(axes, 1)) == ([7, 2], [5, 9])
    assert ticks(axes)[1] == ["A", "B"]
    assert legend(axes) == ["characters", "pieces"]


# lesson 8


PROGRESS = [{"step": 1, "loss": 5.0},
            {"step": 2, "loss": 4.0, "validation_loss": 3.5, "bleu": 10.0, "exact_match": 0.25},
            {"step": 3, "loss": 3.0},
            {"step": 4, "loss": 2.0, "validation_loss": 1.5, "bleu": 60.0, "exact_match": 0.5}]


def test_draw_progress():
    loss, scores = translation.draw_progress(PROGRESS).axes
    assert lines(loss) == {"training": ([1, 2, 3, 4], [5, 4, 3, 2]), "validation": ([2, 4], [3.5, 1.5])}
    assert lines(scores) == {"BLEU": ([2, 4], [10, 60]), "exact match, %": ([2, 4], [25, 50])}
    assert loss.get_yscale() == "log"
    assert scores.get_ylim() == (0, 103)


def test_draw_phenomena():
    shares = {"elision": [0.0, 0.5, 1.0], "negation": [0.25, 0.75, 0.875]}
    (axes,) = translation.draw_phenomena([100, 200, 300], shares).axes
    assert_heatmap(axes, [*shares.values()], shares, [100, 200, 300], "")
    assert texts(axes)[1, 0] == "0.50"
    assert texts(axes)[0, 1] == "0.25"


def test_draw_alignment():
    weights, shares = random_weights(2, 3), torch.tensor([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]])
    partners = torch.tensor([[False, True, False], [False, False, True]])
    picture, side = translation.draw_alignment(weights, list("abc"), list("xy"), partners, ["1", "2", "3"],
                                               shares).axes
    assert same(cells(picture), weights)
    assert ticks(picture) == (["x", "y"], ["a", "b", "c"])
    assert [(floats(line.get_xdata()), floats(line.get_ydata())) for line in picture.get_lines()] == [
        ([1], [0]), ([2], [1])]
    for number, row in enumerate(shares):
        assert bars(side, number) == near(row)
    assert side.get_ylim() == (0, 1)
    lefts = [[bar.get_x() for bar in group.patches] for group in side.containers]
    assert [row[0] for row in lefts] == sorted(row[0] for row in lefts)
    assert all(head - 0.5 < left[head] < head + 0.5 for left in lefts for head in (0, 1))


def test_draw_comparison_of_another_score():
    curves = {64: [PROGRESS, PROGRESS[:2]], 128: [PROGRESS[2:]]}
    loss, bleu = training.draw_comparison(
        "d_model", curves, "bleu", "BLEU on validation sentences").axes
    for panel, measure in ((loss, "validation_loss"), (bleu, "bleu")):
        drawn = [(floats(line.get_xdata()), floats(line.get_ydata())) for line in panel.get_lines()]
        assert drawn == [training.column(history, measure) for histories in curves.values()
                         for history in histories]
        first, second, third = (line.get_color() for line in panel.get_lines())
        assert first == second != third
    assert (loss.get_yscale(), bleu.get_yscale()) == ("log", "linear")
    assert (loss.get_title(), bleu.get_title()) == ("validation loss", "BLEU on validation sentences")


def test_draw_own_sentence():
    weights = random_weights(2, 3) / 2
    (axes,) = translation.draw_own_sentence(weights, list("abc"), list("xy")).axes
    assert_heatmap(axes, weights, "xy", "abc", "", top=float(weights.max()))
    (faint,) = translation.draw_own_sentence(weights / 100, list("abc"), list("xy")).axes
    assert faint.get_images()[0].get_clim() == (0, pytest.approx(0.1))


# lesson 12


def assert_against_powers_of_2(axes, places, labels):
    assert axes.get_xscale() == "log"
    assert floats(axes.get_xticks()) == places
    assert ticks(axes)[1] == labels


def test_draw_traffic():
    (axes,) = efficient_attention.draw_traffic({16: 8.0, 64: 2.0}, {16: 7.5, 64: 1.5}, 12.5).axes
    found = lines(axes)
    assert found["moved, simulated"] == ([16, 64], near([8.0, 2.0]))
    assert found["formula"] == ([16, 64], near([7.5, 1.5]))
    assert found["lesson 1's code"][1] == near([12.5, 12.5])
    assert_against_powers_of_2(axes, [16, 64], ["16", "64"])
    assert "MiB" in axes.get_ylabel()


def test_draw_memory_of_lesson_11():
    (axes,) = efficient_attention.draw_memory([256, 1024], {"lines": [1.5, 24.0], "tiles": [0.6, 1.4]}).axes
    assert lines(axes) == {"lines": ([256, 1024], near([1.5, 24.0])),
                           "tiles": ([256, 1024], near([0.6, 1.4]))}
    assert_against_powers_of_2(axes, [256, 1024], ["256", "1,024"])
    assert axes.get_yscale() == "log"


def test_draw_heads_of_lesson_11():
    right = {"encoder": [1.0, 0.9, 0.3], "cross": [0.0, 0.1, 0.2]}
    ways = ["elu", "features", "window"]
    (axes,) = efficient_attention.draw_heads({"encoder": 0.2, "cross": 11.0}, right, ways).axes
    assert [container.get_label() for container in axes.containers] == ways == legend(axes)
    assert [[bar.get_height() for bar in group] for group in axes.containers] == [
        near([100, 0]), near([90, 10]), near([30, 20])]
    assert ticks(axes)[1] == ["encoder\nspread of the scores 0.2", "cross\nspread of the scores 11.0"]


def test_draw_recall():
    (axes,) = efficient_attention.draw_recall({"softmax": [1.0, 1.0], "window": [0.0, 0.5]}, 0.06).axes
    assert [bar.get_width() for group in axes.containers for bar in group] == near([25, 100])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["window", "softmax"]
    points = [floats(line.get_xdata()) for line in axes.get_lines() if line.get_marker() == "o"]
    assert points == [near([0, 50]), near([100, 100])]
    assert lines(axes)["chance"][0] == near([6, 6])


def test_draw_recompute():
    runs = {size: SimpleNamespace(peak=peak) for size, peak in ((0, 550.0), (1, 54.0), (4, 144.0))}
    (axes,) = efficient_attention.draw_recompute(runs, {1: 53.0, 4: 143.0}).axes
    found = lines(axes)
    assert found["measured"] == ([1, 4], near([54.0, 144.0]))
    assert found["N/s + c·s + 4"] == ([1, 4], near([53.0, 143.0]))
    assert found["everything kept"][1] == near([550.0, 550.0])
    assert_against_powers_of_2(axes, [1, 4], ["1", "4"])


def test_draw_caches():
    (axes,) = efficient_attention.draw_caches({(0, 8): (0.4, 0.9), (4, 4): (0.8, 0.95)}).axes
    (group,) = axes.containers
    assert [bar.get_height() for bar in group] == near([40, 80])
    assert ticks(axes)[1] == ["first 0\nlatest 8", "first 4\nlatest 4"]
    assert group[0].get_facecolor() != group[1].get_facecolor()  # with and without sinks


def test_draw_low_rank():
    cut = {"mirror": {1: [0.0, 0.2], 4: [0.5, 0.7]}, "copy": {1: [0.1, 0.1], 4: [0.3, 0.5]}}
    trained = {"mirror": {1: [0.8, 1.0], 4: [1.0, 1.0]}, "copy": {4: [0.0, 0.6]}}
    panels = finetuning.draw_low_rank(cut, trained).axes
    for panel, task, ranks in zip(panels, cut, ([1, 4], [4]), strict=True):
        assert names(panel)[:2] == (task, "rank of the update")
        assert lines(panel) == {
            "all weights trained, update cut": ([1, 4], near([sum(v) / 2 for v in cut[task].values()])),
            "adapters of this rank trained": (ranks, near([sum(v) / 2 for v in trained[task].values()]))}
        points = [value for line in panel.get_lines() if line.get_label().startswith("_")
                  for value in floats(line.get_ydata())]
        assert points == [value for found in (cut, trained) for seeds in found[task].values()
                          for value in seeds]
    assert panels[0].get_ylabel() == "exact match, new task"


def test_draw_bits():
    found = {"matrix": {8: 1.0, 3: 0.5}, "row": {8: 0.9, 3: 0.7}}
    (axes,) = finetuning.draw_bits(found).axes
    assert lines(axes) == {f"one scale per {name}": ([8, 3], near(by_bits.values()))
                           for name, by_bits in found.items()}
    left, right = axes.get_xlim()
    assert left > right  # fewer bits to the right
    assert names(axes) == ("", "bits per weight", "exact match")


def test_draw_outlier():
    weight = torch.tensor([[100.0, 1.0], [-10.0, 0.0]])
    picture, one, two = finetuning.draw_outlier(
        weight, {"matrix": [0, 0, 1], "row": [-50, 50]}, {"matrix": 0.25, "row": 1.0}).axes
    assert cells(picture).tolist() == [[2, 0], [1, -3]]
    for panel, name, share, count in ((one, "matrix", "25.0%", 3), (two, "row", "100.0%", 2)):
        assert panel.get_title() == f"{name}:\n{share} right"
        assert sum(bar.get_height() for bar in panel.patches) == count
        assert panel.get_yscale() == "log"


def test_draw_stalled():
    found = {"in bfloat16": [0.0, 0.5, 0.9], "in float32": [0.0, 0.0, 0.1]}
    (axes,) = parallelism.draw_stalled(found).axes
    assert lines(axes) == {f"kept {name}": ([1, 2, 3], near(values)) for name, values in found.items()}
    assert names(axes) == ("", "step", "weights that stand still")
    assert legend(axes) == ["kept in bfloat16", "kept in float32"]


def test_draw_slots():
    """Forward one slot, backward two; the same work in a row is one bar, other work another."""
    rows = [[("F", 0), ("F", 1), None, ("B", 0), ("B", 0)], [None, ("F", 0), ("B", 0), ("B", 0), None]]
    one, two = parallelism.draw_slots({"GPipe": rows, "1F1B": rows[::-1]},
                                      {"GPipe": [2, 1], "1F1B": [1, 2]}).axes
    bars = [(bar.get_x(), bar.get_width(), round(bar.get_y() + bar.get_height() / 2)) for bar in one.patches]
    assert bars == [(0, 1, 0), (1, 1, 0), (3, 2, 0), (1, 1, 1), (2, 2, 1)]
    forward, backward = (bar.get_facecolor() for bar in (one.patches[0], one.patches[2]))
    assert forward != backward
    assert one.patches[3].get_facecolor() == forward
    assert [text.get_text() for text in one.texts] == ["0", "1", "0", "keeps 2", "0", "0", "keeps 1"]
    assert [text.get_text() for text in two.texts] == ["0", "0", "keeps 1", "0", "1", "0", "keeps 2"]
    assert [panel.get_title() for panel in (one, two)] == ["GPipe", "1F1B"]
    assert legend(one) == ["forward", "backward"]
    top, bottom = one.get_ylim()
    assert top > bottom  # stage 0 is on top
    assert two.get_xlabel() == "slot (the number is the micro-batch)"


def test_draw_bytes():
    models = {"small": {"data": [1, 2, 3], "cut": [1, 1, 1.5]},
              "large": {"data": [10, 20, 30], "cut": [5, 5, 5]}}
    panels = parallelism.draw_bytes(models).axes
    for panel, (name, ways) in zip(panels, models.items(), strict=True):
        assert panel.get_title() == name
        assert ticks(panel)[1] == [*ways]
        for part, bars in enumerate(panel.containers):
            assert [bar.get_height() for bar in bars] == [sizes[part] for sizes in ways.values()]
            assert [bar.get_y() for bar in bars] == [sum(sizes[:part]) for sizes in ways.values()]
        assert [text.get_text() for text in panel.texts] == [f"{sum(sizes):.3g}" for sizes in ways.values()]
    assert legend(panels[0]) == ["weights", "gradients", "optimiser"]


# every one of them


def test_every_drawing_has_a_test():
    drawn = {}
    for path in (ROOT / "figures").glob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("draw_"):
                drawn[node.name] = drawn.get(node.name, 0) + 1
    tests = [name.removeprefix("test_") for name in globals() if name.startswith("test_draw_")]
    for name, times in drawn.items():
        assert sum(test.split("_of_lesson")[0] == name for test in tests) == times, name

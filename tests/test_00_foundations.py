import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import assert_diagnosed, failures, holds, run_as_documented
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from checks.recurrence import copy_cell, steps_in_a_row
from common import lesson
from course.data.toys import (
    CLASS_OF,
    NAMED,
    VOCABULARY,
    first_weights,
    made_up_text,
    neighbour_counts,
    neighbours,
    same_class,
    spirals,
)
from course.training import delayed_answer
from course.training.stacked import adam, clip_each, train_stacked

m = lesson("00_foundations")
Value = m.Value


# Value


def leaves_of(arrays):
    return [Value(x) for x in arrays], [torch.tensor(x, requires_grad=True) for x in arrays]


UNARY = {"tanh": lambda x: x.tanh(), "exp": lambda x: x.tanh().exp(), "log": lambda x: (x * x + 1.0).log(),
         "relu": lambda x: x.relu(), "square": lambda x: x**2, "root": lambda x: (x * x + 1.0) ** 0.5,
         "negative": lambda x: -x, "sum": lambda x: x.sum(),
         "last": lambda x: x[..., -1:] if shape_of(x) and shape_of(x)[-1] else x,
         "along": lambda x: x.sum(axis=0, keepdims=True) if shape_of(x) else x}
BINARY = {"+": lambda a, b: a + b, "−": lambda a, b: a - b, "·": lambda a, b: a * b,
          "/": lambda a, b: a / (b * b + 1.0), "@": None}


def shape_of(x):
    return x.shape if isinstance(x, torch.Tensor) else x.data.shape


def applied(name, a, b):
    """The operation on two, where their shapes fit; else on the first alone."""
    if name == "@":
        fits = len(shape_of(a)) == len(shape_of(b)) == 2 and shape_of(a)[1] == shape_of(b)[0]
        return (a @ b).tanh() if fits else a
    try:
        np.broadcast_shapes(shape_of(a), shape_of(b))
    except ValueError:
        return a
    return BINARY[name](a, b).tanh()


@st.composite
def graphs(draw):
    """Arrays of shapes that partly broadcast, scalars and empty ones among them, and what to do with them."""
    sizes = st.sampled_from([0, 1, 1, 2, 3])
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    shapes = draw(st.lists(st.lists(sizes, max_size=3).map(tuple), min_size=2, max_size=4))
    pick = st.integers(0, 10**6)
    steps = draw(st.lists(st.tuples(st.sampled_from([*UNARY, *BINARY, *BINARY]), pick, pick), max_size=12))
    return [rng.normal(size=shape) for shape in shapes], steps


def computed(values, steps):
    """One number from the values: every step takes any two that are there, so that many are shared."""
    values = list(values)
    for name, first, second in steps:
        a, b = values[first % len(values)], values[second % len(values)]
        if name in UNARY:
            values.append(UNARY[name](a))
        else:
            values.append(applied(name, a, b))
    total = values[0].sum()
    for value in values[1:]:
        total = total + value.sum()
    return total


@given(graphs())
@settings(max_examples=150)
def test_random_graphs_equal_pytorch(graph):
    """Shared nodes, broadcast axes, scalars, empty axes: values and gradients."""
    arrays, steps = graph
    values, leaves = leaves_of(arrays)
    ours, theirs = computed(values, steps), computed(leaves, steps)
    np.testing.assert_allclose(ours.data, theirs.detach().numpy(), rtol=1e-9, atol=1e-9)
    ours.backward()
    theirs.backward()
    for value, leaf in zip(values, leaves):
        assert value.grad.shape == value.data.shape
        np.testing.assert_allclose(value.grad, leaf.grad.numpy(), rtol=1e-8, atol=1e-8)


@given(st.integers(0, 10**6), st.lists(st.integers(1, 3), max_size=2), st.booleans())
@settings(max_examples=40)
def test_matrix_products_of_any_batch_equal_pytorch(seed, more, stretch):
    rng = np.random.default_rng(seed)
    front = [1 if stretch else size for size in more]
    a, b = rng.normal(size=(*front, 2, 3)), rng.normal(size=(*(more if stretch else more[1:]), 3, 4))
    values, leaves = leaves_of([a, b])
    (values[0] @ values[1]).tanh().sum().backward()
    (leaves[0] @ leaves[1]).tanh().sum().backward()
    for value, leaf in zip(values, leaves):
        np.testing.assert_allclose(value.grad, leaf.grad.numpy(), atol=1e-12)


@pytest.mark.parametrize("index", [0, -1, slice(1, None), [0, 0, 2], (slice(None), [1, 1]),
                                   (np.array([0, 0]), np.array([3, 3]))])
def test_entries_taken_twice_get_both_gradients(index):
    (value,), (leaf,) = leaves_of([np.arange(12.0).reshape(3, 4)])
    (value[index] * value[index]).sum().backward()
    (leaf[index] * leaf[index]).sum().backward()
    np.testing.assert_array_equal(value.grad, leaf.grad.numpy())


@pytest.mark.parametrize(("axis", "keepdims"),
                         [(None, False), (None, True), (0, False), (-1, True), ((0, 2), False)])
def test_sums_along_axes_equal_pytorch(axis, keepdims):
    array = np.random.default_rng(0).normal(size=(2, 3, 4))
    (value,), (leaf,) = leaves_of([array])
    value.sum(axis=axis, keepdims=keepdims).tanh().sum().backward()
    leaf.sum(dim=axis, keepdim=keepdims).tanh().sum().backward()
    np.testing.assert_allclose(value.grad, leaf.grad.numpy(), atol=1e-14)


def test_numbers_and_arrays_stand_on_either_side():
    x, array = Value([1.0, 2.0]), np.array([3.0, 4.0])
    total = (2.0 * x + array * x + (array + x) - 1 + (x - array) / 2).sum()
    total.backward()
    assert total.data == 6 + 11 + 10 - 2 - 2
    assert x.grad.tolist() == [6.5, 7.5]


def test_a_long_chain_needs_no_deep_recursion():
    start = value = Value(1.0)
    for _ in range(20_000):
        value = value + 1.0
    value.backward()
    assert start.grad == 1


def test_a_second_backward_adds_and_a_shared_inner_value_starts_anew():
    x = Value(3.0)
    square = x * x
    (square * 2.0).backward()
    (square * 5.0).backward()
    assert x.grad == 2 * 6 + 5 * 6
    x.backward()  # an input itself
    assert x.grad == 43


def test_errors_name_shapes():
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(2, 3\)"):
        Value(np.ones((2, 3))) @ Value(np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"\(3,\) and \(3, 1\)"):
        Value(np.ones(3)) @ Value(np.ones((3, 1)))
    with pytest.raises(ValueError, match=r"\(2,3\).*\(4,\)"):
        Value(np.ones((2, 3))) + Value(np.ones(4))
    with pytest.raises(ValueError, match=r"one number, not an array of shape \(2,\)"):
        Value([1.0, 2.0]).backward()


# broadcasting, two layers


shapes = st.lists(st.lists(st.integers(0, 3), max_size=4).map(tuple), max_size=4)


@given(shapes)
@settings(max_examples=200)
def test_broadcast_shapes_says_what_numpy_says(given_shapes):
    try:
        expected = np.broadcast_shapes(*given_shapes)
    except ValueError:
        with pytest.raises(ValueError, match="do not fit together") as error:
            m.broadcast_shapes(*given_shapes)
        assert all(str(shape) in str(error.value) for shape in given_shapes)
    else:
        assert m.broadcast_shapes(*given_shapes) == expected


@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 4), st.integers(1, 5), st.integers(1, 4))
@settings(max_examples=40)
def test_two_layers_equal_value_and_pytorch(seed, rows, inputs, hidden, classes):
    rng = np.random.default_rng(seed)
    x, labels = rng.normal(size=(rows, inputs)), rng.integers(classes, size=rows)
    sizes = (inputs, hidden), (hidden,), (hidden, classes), (classes,)
    weights = [rng.normal(size=size) for size in sizes]
    found = [way(x, labels, *weights) for way in (m.two_layer_backward, m.by_value, m.by_pytorch)]
    for loss, gradients in found[1:]:
        assert loss == pytest.approx(found[0][0], abs=1e-12)
        for ours, theirs in zip(found[0][1], gradients, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_two_layer_backward_leaves_what_it_is_given():
    rng = np.random.default_rng(0)
    given_arrays = [*spirals(rng), *first_weights(rng, 32)]
    before = copy.deepcopy(given_arrays)
    m.two_layer_backward(*given_arrays)
    assert all(np.array_equal(a, b) for a, b in zip(given_arrays, before))


# cells


PAIRS = [(m.RNNCell, nn.RNN), (m.LSTMCell, nn.LSTM), (m.GRUCell, nn.GRU)]


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
@given(seed=st.integers(0, 10**6), batch=st.integers(1, 3), length=st.integers(1, 7),
       inputs=st.integers(1, 4), hidden=st.integers(1, 5))
@settings(max_examples=15)
def test_cells_equal_pytorch_for_any_size(ours, theirs, seed, batch, length, inputs, hidden):
    torch.manual_seed(seed)
    network = theirs(inputs, hidden, batch_first=True).double()
    cell = ours(inputs, hidden).double()
    cell.load_state_dict({name.removesuffix("_l0"): w for name, w in network.state_dict().items()})
    x = torch.randn(batch, length, inputs, dtype=torch.float64, requires_grad=True)
    found, expected = m.unroll(cell, x), network(x)[0]
    assert torch.allclose(found, expected, rtol=0, atol=1e-12)
    slopes = torch.autograd.grad(found.sin().sum(), [x, *cell.parameters()])
    wanted = torch.autograd.grad(expected.sin().sum(), [x, *network.parameters()])
    assert all(torch.allclose(a, b, rtol=0, atol=1e-12) for a, b in zip(slopes, wanted, strict=True))


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_cells_begin_as_pytorchs(ours, theirs):
    torch.manual_seed(0)
    cell, network = ours(16, 64), theirs(16, 64)
    for (name, mine), other in zip(cell.named_parameters(), network.parameters(), strict=True):
        assert mine.shape == other.shape, name
        assert mine.abs().max() <= 1 / 8
        assert mine.std().item() == pytest.approx(other.std().item(), rel=0.2)


# the checks


@pytest.mark.parametrize("name", m.GRADED)
def test_all_checks_of_our_own_parts_hold(name):
    for check in m.GRADED[name](getattr(m, name), m):
        holds(check)


class Scratch(nn.Module):
    """Somebody's own LSTM cell with PyTorch's four names, and no other name of ours."""

    order = 0, 1, 2, 3

    def __init__(self, inputs, hidden):
        super().__init__()
        theirs = nn.LSTMCell(inputs, hidden)
        for name, parameter in theirs.named_parameters():
            self.register_parameter(name, nn.Parameter(parameter.detach().clone()))

    def forward(self, x, state=None):
        width = self.weight_hh.shape[1]
        h, c = state if state else (torch.zeros(len(x), width, dtype=x.dtype),) * 2
        rows = F.linear(x, self.weight_ih, self.bias_ih) + F.linear(h, self.weight_hh, self.bias_hh)
        gates = rows.unflatten(-1, (4, width)).unbind(-2)
        i, f, g, o = (gates[place] for place in self.order)
        c = c * f.sigmoid() + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c


class ScratchSwapped(Scratch):
    order = 1, 0, 2, 3


def test_somebody_elses_cell_passes_and_its_mistake_is_diagnosed():
    for check in m.lstm_checks(Scratch, m):
        holds(check)
    assert_diagnosed(m.lstm_checks(ScratchSwapped, m), "input and forget gates are swapped")


def test_missing_weights_are_said():
    class Renamed(Scratch):
        def __init__(self, *sizes):
            super().__init__(*sizes)
            del self.bias_hh

    assert_diagnosed(m.lstm_checks(Renamed, m), "nn.Parameter of shape (16,)")


class Tiny:
    """Somebody's own Value, written as recursion with a closure for each node."""

    __array_ufunc__ = None

    def __init__(self, data, children=()):
        self.data, self.children = np.array(data, dtype=float), children
        self.grad, self.step = np.zeros_like(self.data), lambda: None

    def made(self, data, *pairs):
        out = Tiny(data, [child for child, _ in pairs])

        def step():
            for child, slope in pairs:
                gradient = slope(out.grad)
                while gradient.ndim > child.data.ndim:
                    gradient = gradient.sum(0)
                for axis, size in enumerate(child.data.shape):
                    if size == 1:
                        gradient = gradient.sum(axis, keepdims=True)
                child.grad = child.grad + gradient

        out.step = step
        return out

    def of(self, other):
        return other if isinstance(other, Tiny) else Tiny(other)

    def __add__(self, other):
        other = self.of(other)
        return self.made(self.data + other.data, (self, lambda g: g), (other, lambda g: g))

    def __mul__(self, other):
        other = self.of(other)
        return self.made(self.data * other.data, (self, lambda g: g * other.data),
                         (other, lambda g: g * self.data))

    def __matmul__(self, other):
        if self.data.shape[-1] != other.data.shape[-2]:
            raise ValueError(f"{self.data.shape} and {other.data.shape}")
        return self.made(self.data @ other.data, (self, lambda g: g @ np.swapaxes(other.data, -1, -2)),
                         (other, lambda g: np.swapaxes(self.data, -1, -2) @ g))

    def __pow__(self, n):
        return self.made(self.data**n, (self, lambda g: g * n * self.data ** (n - 1)))

    def exp(self):
        return self.made(np.exp(self.data), (self, lambda g: g * np.exp(self.data)))

    def log(self):
        return self.made(np.log(self.data), (self, lambda g: g / self.data))

    def tanh(self):
        return self.made(np.tanh(self.data), (self, lambda g: g / np.cosh(self.data) ** 2))

    def relu(self):
        return self.made(self.data * (self.data > 0), (self, lambda g: g * (self.data > 0)))

    def sum(self, axis=None, keepdims=False):
        kept = self.data.sum(axis=axis, keepdims=True)
        return self.made(self.data.sum(axis=axis, keepdims=keepdims),
                         (self, lambda g: g.reshape(kept.shape) * np.ones_like(self.data)))

    def __getitem__(self, index):
        def slope(g):
            whole = np.zeros_like(self.data)
            np.add.at(whole, index, g)
            return whole

        return self.made(self.data[index], (self, slope))

    __radd__, __rmul__ = __add__, __mul__

    def __neg__(self):
        return self * -1

    def __sub__(self, other):
        return self + self.of(other) * -1

    def __truediv__(self, other):
        return self * self.of(other) ** -1

    def backward(self):
        if self.data.size > 1:
            raise ValueError(f"shape {self.data.shape}")
        order = []

        def visit(node):
            if node not in order:
                for child in node.children:
                    visit(child)
                order.append(node)

        visit(self)
        for node in order:
            if node.children:
                node.grad = np.zeros_like(node.data)
        self.grad = np.ones_like(self.data)
        for node in reversed(order):
            node.step()


def test_somebody_elses_value_passes():
    for check in m.value_checks(Tiny, m):
        holds(check)


# what the steps rest on


def test_one_loss_curve_in_three_ways():
    curves = [m.descend(way, 3, 1.0, 50)[0] for way in (m.two_layer_backward, m.by_value, m.by_pytorch)]
    assert curves[0][-1] < curves[0][0] / 4
    assert max(abs(a - b) for other in curves[1:] for a, b in zip(curves[0], other)) < 1e-12


@pytest.mark.parametrize("seed", [10, 11])
def test_spirals_are_learned_from_other_seeds_too(seed):
    assert m.right_share(m.descend(m.two_layer_backward, seed, 1.0)[1], seed) >= 0.99


def test_neighbours_count_both_sides_within_the_window():
    counts = neighbours([["the", "cat", "runs", "to", "the", "house"]])
    number = VOCABULARY.index
    assert counts[number("the"), number("cat")] == 1
    assert counts[number("the"), number("runs")] == 2  # from the left, from the right
    assert counts[number("cat"), number("house")] == 0
    assert torch.equal(counts, counts.T)


def test_shuffling_keeps_words_and_lengths_but_not_who_is_near_whom():
    rng, same = np.random.default_rng(0), np.random.default_rng(0)
    plain, within, everywhere = neighbour_counts(rng)
    assert torch.equal(plain, neighbours(made_up_text(same)))
    assert plain.sum() == within.sum() == everywhere.sum()  # sentences of the same lengths
    assert not torch.equal(plain, within)
    own, words = torch.tensor(CLASS_OF[:, None] == CLASS_OF), len(NAMED)
    near = [counts[:words, :words][own].sum().item() for counts in (plain, within, everywhere)]
    assert max(near[:2]) < near[2] / 1.5  # in a sentence classes alternate


def test_the_share_of_one_class_is_counted_right():
    perfect = F.one_hot(torch.tensor(CLASS_OF)).float()
    assert same_class(perfect) == 1
    scattered = perfect[torch.arange(len(NAMED)).roll(3)]
    assert same_class(scattered) < 0.6


def test_the_text_holds_every_class_and_no_pattern_name():
    words = {word for sentence in made_up_text(np.random.default_rng(0)) for word in sentence}
    assert words == set(VOCABULARY)


def test_the_asked_symbol_stands_n_steps_back_and_nowhere_else():
    distances = torch.tensor([2, 4, 16])
    x, wanted = delayed_answer.delayed_task(distances, 5)
    symbols = x[..., : delayed_answer.SYMBOLS]
    places = symbols.sum(-1)  # (M, B, L), 1 where there is a symbol
    assert torch.equal(places.argmax(-1), (delayed_answer.LENGTH - 1 - distances)[:, None].expand(3, 5))
    assert (places.sum(-1) == 1).all()
    assert torch.equal(symbols.sum(2).argmax(-1), wanted)


def test_kinds_of_one_shape_are_trained_as_one_stack(monkeypatch):
    seen = []

    def untrained(models, batch, steps, rate):
        seen.append((len(models), [*map(type, models)]))
        return lambda x: torch.zeros(*x.shape[:2], delayed_answer.SYMBOLS)

    monkeypatch.setattr(delayed_answer, "train_stacked", untrained)
    monkeypatch.setattr(delayed_answer, "side_by_side", lambda jobs, **_: [job() for job in jobs])
    found = delayed_answer.accuracies(m.CELLS, m.unroll, m.WIDTH, (2, 9))
    assert list(found) == [*m.CELLS, "attention"]
    assert all(right.shape == (2, 5) for right in found.values())
    assert sorted(models for models, _ in seen) == [10, 10, 10, 20]  # both LSTMs have one shape
    assert all(len({*kinds}) == 1 for _, kinds in seen)


def test_adam_is_pytorchs(monkeypatch):
    """Weights after steps on the same gradients, the rate falling to 0 as in train_stacked."""
    torch.manual_seed(0)
    ours, theirs = torch.randn(3, 4), nn.Parameter(torch.empty(3, 4))
    theirs.data = ours.clone()
    optimizer, mean, square = torch.optim.Adam([theirs], lr=0.03), torch.zeros(3, 4), torch.zeros(3, 4)
    for step in range(20):
        ours.grad = theirs.grad = torch.randn(3, 4) * 10.0**-step
        optimizer.param_groups[0]["lr"] = 0.03 * (1 - step / 20)
        optimizer.step()
        adam([ours], [mean], [square], 0.03 * (1 - step / 20), step + 1)
        assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_each_model_is_clipped_alone_as_pytorch_clips():
    torch.manual_seed(0)
    stacked = [nn.Parameter(torch.zeros(3, 2, 4)), nn.Parameter(torch.zeros(3, 5))]
    sizes = torch.tensor([0.01, 1.0, 9.0])
    for parameter in stacked:
        parameter.grad = torch.randn_like(parameter) * sizes.view(-1, *[1] * (parameter.ndim - 1))
    alone = []
    for model in range(3):
        own = [nn.Parameter(torch.zeros_like(parameter[model])) for parameter in stacked]
        for parameter, whole in zip(own, stacked):
            parameter.grad = whole.grad[model].clone()
        nn.utils.clip_grad_norm_(own, 1.0)
        alone.append([parameter.grad for parameter in own])
    clip_each(stacked, 1.0)
    for model, own in enumerate(alone):
        for parameter, gradient in zip(stacked, own):
            assert torch.allclose(parameter.grad[model], gradient, atol=1e-5)


def test_side_by_side_is_what_each_learns_alone():
    torch.manual_seed(0)
    models = [nn.Linear(3, 2) for _ in range(4)]
    x, wanted = torch.randn(4, 8, 3), torch.randint(2, (4, 8))
    together = train_stacked(models, lambda: (x, wanted), 5, 0.1)(x)
    for i, model in enumerate(models):
        alone = train_stacked([model], lambda i=i: (x[i : i + 1], wanted[i : i + 1]), 5, 0.1)(x[i : i + 1])
        assert torch.allclose(together[i], alone[0], atol=1e-5)
        assert not torch.allclose(together[i], model(x[i]), atol=1e-2)


def test_the_open_gate_is_a_forget_gate():
    cell = m.CELLS["LSTM, open"]()
    memory = torch.ones(1, m.WIDTH)
    kept = cell(torch.zeros(1, 8), (torch.zeros(1, m.WIDTH), memory))[1]
    assert kept.mean().item() == pytest.approx(0.95, abs=0.1)


def test_layers_until_seen():
    assert [m.layers_until_seen(n, lambda layer: 1) for n in (1, 2, 3, 4, 5, 6)] == [0, 1, 1, 2, 2, 3]
    assert m.layers_until_seen(8, lambda layer: 2**layer) == 3


def test_steps_in_a_row_are_unroll():
    cell, x = m.GRUCell(3, 4), torch.randn(2, 5, 3)
    assert torch.equal(steps_in_a_row(cell, x), m.unroll(cell, x))
    theirs = copy_cell(cell, nn.GRU(3, 4))
    assert theirs is cell


# what step_what_next says of changes


def test_relu_that_passes_everything_fails_step_6(changed):
    new = changed("00_foundations", "grad * (self.data > 0)", "grad * 1.0")
    (failed,) = failures(new.step_value)
    assert failed.startswith("@, **, exp, log, tanh, relu")


def test_two_hidden_numbers_do_not_part_the_spirals(changed):
    new = changed("00_foundations", "HIDDEN, STEPS = 32", "HIDDEN, STEPS = 2")
    assert failures(new.step_two_layers) == []
    assert {"for three seeds at least 99 % of 200 new points get the right class",
            "loss curves by hand, by Value and by PyTorch are equal"} <= {*failures(new.step_spirals)}


def test_a_gate_that_is_half_open_fades_as_the_others(changed):
    new = changed("00_foundations", "OPEN = 3.0", "OPEN = 0.0")
    assert [text for text in failures(new.step_way_back) if text.startswith("open LSTM")]


def test_walkthrough(course):
    run_as_documented("00_foundations", course)


# ------------------------------------------------------------------ what the steps measure


def test_new_points_are_none_of_those_learned_from(monkeypatch):
    drawn = []

    def noting(rng):
        drawn.append(spirals(rng))
        return drawn[-1]

    monkeypatch.setattr(m, "spirals", noting)
    _, weights = m.descend(m.two_layer_backward, 0, 0.1, 2)
    share = m.right_share(weights, 0)
    (learned, _), (new, labels) = drawn
    assert not {*map(tuple, learned.tolist())} & {*map(tuple, new.tolist())}
    assert share == (m.two_layer(new, *weights).argmax(axis=1) == labels).mean()


@pytest.mark.parametrize("distance", [0, 1, 5])
def test_the_way_back_is_as_long_as_it_says(distance, monkeypatch):
    lengths, unroll = [], m.unroll
    monkeypatch.setattr(m, "unroll", lambda cell, x: lengths.append(x.shape[1]) or unroll(cell, x))
    m.gradient_back(m.RNNCell(8, m.WIDTH), distance)
    assert lengths == [distance + 1]

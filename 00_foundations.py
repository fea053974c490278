"""Lesson 0. What is underneath?

Everything in this course is built of four things: products of matrices, a function that bends their result,
a number that says how wrong the answer was (the loss), and the gradient: for each weight, by how much the
loss moves when the weight does. Training is one line, repeated:

    weight ← weight − rate · gradient

This lesson builds what computes the gradients, trains a small network with it, learns vectors for words,
and builds the networks that read sequences before the Transformer did. It is for those who know Python and a
little algebra. At its end stands the question with which lesson 1 begins.
"""

import course.console.startup  # noqa: F401 (before torch: it hears what fails in the imports below)
import math
import sys
from collections.abc import Callable, Sequence
from functools import cache, partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from checks.differentiation import broadcast_checks, two_layer_checks, value_checks
from checks.recurrence import gru_checks, lstm_checks, rnn_checks
from common import Picture, check, check_mistakes, check_part, lesson_parser, narrate, shows, table
from course.console.measuring import multiplications_of, seconds_of
from course.data.toys import CLASS_OF, CLASSES, NAMED, VOCABULARY, made_up_text, same_class, spirals
from course.grading.checking import largest_difference, random_tensors
from course.training.stacked import train_stacked
from figures.foundations import draw_graph, draw_memory, draw_spirals, draw_words

__all__ = ["GRUCell", "LSTMCell", "RNNCell", "Value", "broadcast_shapes", "two_layer_backward", "unroll"]


# ------------------------------------------------------------------ the parts


def broadcast_shapes(*shapes: Sequence[int]) -> tuple[int, ...]:
    """The shape that arrays of these shapes have together, as in a + b: (3, 1) and (4,) → (3, 4).

    Shapes are written one below the other, aligned right; where one is shorter, it counts as 1. In each
    column all sizes but 1 must be the same. Raises ValueError, with all shapes, if they aren't.
    """
    rank = max(map(len, shapes), default=0)
    padded = [(1,) * (rank - len(shape)) + tuple(shape) for shape in shapes]
    together = []
    for column in zip(*padded):
        sizes = set(column) - {1}
        if len(sizes) > 1:
            found = " and ".join(map(str, shapes))
            raise ValueError(f"shapes {found} do not fit together")
        together.append(sizes.pop() if sizes else 1)
    return tuple(together)


def summed_to(shape: tuple[int, ...], gradient: np.ndarray) -> np.ndarray:
    """The gradient summed over the axes that the shape lacks, in front, and those where its size is 1."""
    gradient = gradient.sum(axis=tuple(range(gradient.ndim - len(shape))))
    stretched = tuple(axis for axis, size in enumerate(shape) if size == 1)
    return gradient.sum(axis=stretched, keepdims=True)


class Value:
    """A NumPy array that remembers what it was computed from, so that gradients can flow back.

    `data` is the array, `grad` of the same shape the gradient that has arrived, at first 0.
    """

    __array_ufunc__ = None  # array + Value is ours to compute, not NumPy's

    def __init__(self, data, parents: Sequence["Value"] = (), pass_back: Callable | None = None):
        """`pass_back` takes the gradient of this value and gives one for each of its `parents`."""
        self.data = np.asarray(data, dtype=np.float64)
        self.grad = np.zeros_like(self.data)
        self.parents, self.pass_back = parents, pass_back

    def lift(self, other) -> "Value":
        return other if isinstance(other, Value) else type(self)(other)

    def __add__(self, other) -> "Value":
        """self + other, broadcast."""
        other = self.lift(other)
        return type(self)(self.data + other.data, (self, other), lambda grad: (grad, grad))

    def __mul__(self, other) -> "Value":
        """self · other, number by number, broadcast."""
        other = self.lift(other)
        return type(self)(self.data * other.data, (self, other),
                          lambda grad: (grad * other.data, grad * self.data))

    def __matmul__(self, other) -> "Value":
        """The matrix product of (…, n, k) and (…, k, m); ValueError, with both shapes, if they don't fit."""
        other = self.lift(other)
        a, b = self.data, other.data
        if min(a.ndim, b.ndim) < 2 or a.shape[-1] != b.shape[-2]:
            raise ValueError(f"no matrix product of {a.shape} and {b.shape}")
        return type(self)(a @ b, (self, other), lambda grad: (
            grad @ b.swapaxes(-1, -2), a.swapaxes(-1, -2) @ grad))

    def __pow__(self, power: float) -> "Value":
        """self to a power that is a number."""
        return type(self)(self.data**power, (self,), lambda grad: (grad * power * self.data ** (power - 1),))

    def exp(self) -> "Value":
        """e to each number."""
        result = np.exp(self.data)
        return type(self)(result, (self,), lambda grad: (grad * result,))

    def log(self) -> "Value":
        """The natural logarithm of each number."""
        return type(self)(np.log(self.data), (self,), lambda grad: (grad / self.data,))

    def tanh(self) -> "Value":
        """tanh of each number."""
        result = np.tanh(self.data)
        return type(self)(result, (self,), lambda grad: (grad * (1 - result**2),))

    def relu(self) -> "Value":
        """Each number that is positive, else 0."""
        return type(self)(np.maximum(self.data, 0), (self,), lambda grad: (grad * (self.data > 0),))

    def sum(self, axis=None, keepdims: bool = False) -> "Value":
        """The sum along one axis or several, or of all numbers."""

        def pass_back(grad):
            kept = grad if axis is None or keepdims else np.expand_dims(grad, axis)
            return (np.broadcast_to(kept, self.data.shape),)

        return type(self)(self.data.sum(axis=axis, keepdims=keepdims), (self,), pass_back)

    def __getitem__(self, index) -> "Value":
        """The entries that NumPy's indexing gives; one may be taken several times."""

        def pass_back(grad):
            whole = np.zeros_like(self.data)
            np.add.at(whole, index, grad)
            return (whole,)

        return type(self)(self.data[index], (self,), pass_back)

    def __neg__(self) -> "Value":
        """−self."""
        return self * -1.0

    def __sub__(self, other) -> "Value":
        """self − other."""
        return self + -self.lift(other)

    def __truediv__(self, other) -> "Value":
        """self / other."""
        return self * self.lift(other) ** -1.0

    def __radd__(self, other) -> "Value":
        """other + self, where other is a number or an array."""
        return self + other

    def __rmul__(self, other) -> "Value":
        """other · self, where other is a number or an array."""
        return self * other

    def history(self) -> list["Value"]:
        """Everything that this was computed from, each value once and after its parents; itself last."""
        order, seen, waiting = [], set(), [(self, False)]
        while waiting:
            value, parents_done = waiting.pop()
            if parents_done:
                order.append(value)
            elif value not in seen:
                seen.add(value)
                waiting += [(value, True), *((parent, False) for parent in value.parents)]
        return order

    def receive(self, gradient: np.ndarray) -> None:
        self.grad = self.grad + summed_to(self.data.shape, gradient)

    def backward(self) -> None:
        """Add the gradient of this number to `grad` of all that it was computed from.

        What isn't an input starts from 0 again. Raises ValueError, with the shape, for more than one number.
        """
        if self.data.size != 1:
            raise ValueError(f"backward() of one number, not of shape {self.data.shape}")
        history = self.history()
        for value in history:
            if value.parents:
                value.grad = np.zeros_like(value.data)
        self.receive(np.ones_like(self.data))
        for value in reversed(history):
            passed = value.pass_back(value.grad) if value.parents else ()
            for parent, gradient in zip(value.parents, passed):
                parent.receive(gradient)


def two_layer(x, w1, b1, w2, b2):
    """x (B, inputs) → logits (B, classes): tanh(x·W₁ + b₁)·W₂ + b₂, of arrays or Values."""
    hidden = x @ w1 + b1
    hidden = np.tanh(hidden) if isinstance(hidden, np.ndarray) else hidden.tanh()  # (B, hidden)
    return hidden @ w2 + b2


def two_layer_backward(
        x: np.ndarray, labels: np.ndarray, w1: np.ndarray, b1: np.ndarray,
        w2: np.ndarray, b2: np.ndarray) -> tuple[float, tuple[np.ndarray, ...]]:
    """The loss of tanh(x·W₁ + b₁)·W₂ + b₂, and its gradients with respect to w1, b1, w2 and b2.

    x (B, inputs), labels (B,) the number of each row's class, w1 (inputs, hidden), w2 (hidden, classes).
    The loss is the mean over the batch of −log softmax(logits)[label].
    """
    hidden = np.tanh(x @ w1 + b1)  # (B, hidden)
    logits = hidden @ w2 + b2  # (B, classes)
    scores = logits - logits.max(axis=1, keepdims=True)  # against overflow
    sums = np.exp(scores).sum(axis=1, keepdims=True)
    rows = np.arange(len(x))
    loss = (np.log(sums)[:, 0] - scores[rows, labels]).mean()
    d_logits = np.exp(scores) / sums  # softmax
    d_logits[rows, labels] -= 1
    d_logits /= len(x)  # the loss is a mean
    d_hidden = d_logits @ w2.T
    d_sums = d_hidden * (1 - hidden**2)  # through tanh
    return loss, (x.T @ d_sums, d_sums.sum(axis=0), hidden.T @ d_logits, d_logits.sum(axis=0))


class Cell(nn.Module):
    """The weights of a cell, named, shaped and begun as PyTorch's: a block of rows for each gate."""

    def __init__(self, n_inputs: int, n_hidden: int, blocks: int):
        super().__init__()
        rows, bound = blocks * n_hidden, 1 / math.sqrt(n_hidden)
        self.weight_ih = nn.Parameter(torch.empty(rows, n_inputs))
        self.weight_hh = nn.Parameter(torch.empty(rows, n_hidden))
        self.bias_ih = nn.Parameter(torch.empty(rows))
        self.bias_hh = nn.Parameter(torch.empty(rows))
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def zeros(self, x: Tensor) -> Tensor:
        """The hidden state before the first step."""
        return x.new_zeros(*x.shape[:-1], self.weight_hh.shape[-1])

    def from_input(self, x: Tensor) -> Tensor:
        """W_ih·x + b_ih, all blocks side by side."""
        return x @ self.weight_ih.mT + self.bias_ih

    def from_hidden(self, hidden: Tensor) -> Tensor:
        """W_hh·h + b_hh, all blocks side by side."""
        return hidden @ self.weight_hh.mT + self.bias_hh


class RNNCell(Cell):
    """One step of a recurrent network (Elman 1990): h' = tanh(W_ih·x + b_ih + W_hh·h + b_hh)."""

    def __init__(self, n_inputs: int, n_hidden: int):
        super().__init__(n_inputs, n_hidden, blocks=1)

    def forward(self, x: Tensor, hidden: Tensor | None = None) -> Tensor:
        """x (B, inputs), hidden (B, hidden), zeros at the beginning → the next hidden (B, hidden)."""
        hidden = self.zeros(x) if hidden is None else hidden
        return torch.tanh(self.from_input(x) + self.from_hidden(hidden))


class LSTMCell(Cell):
    """One step with a memory that gates multiply (Hochreiter and Schmidhuber 1997; Gers et al. 2000).

    The rows of the weights are four blocks: input gate, forget gate, content, output gate.
    """

    def __init__(self, n_inputs: int, n_hidden: int):
        super().__init__(n_inputs, n_hidden, blocks=4)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor] | None = None
                ) -> tuple[Tensor, Tensor]:
        """x (B, inputs), state (hidden, memory), each (B, hidden), zeros at the beginning → the next two."""
        hidden, memory = state or (self.zeros(x), self.zeros(x))
        rows = self.from_input(x) + self.from_hidden(hidden)
        let_in, keep, content, show = rows.chunk(4, dim=-1)
        memory = keep.sigmoid() * memory + let_in.sigmoid() * content.tanh()
        return show.sigmoid() * memory.tanh(), memory


class GRUCell(Cell):
    """One step with two gates and no separate memory (Cho et al. 2014), as PyTorch has it.

    The rows of the weights are three blocks: reset gate, update gate, content.
    """

    def __init__(self, n_inputs: int, n_hidden: int):
        super().__init__(n_inputs, n_hidden, blocks=3)

    def forward(self, x: Tensor, hidden: Tensor | None = None) -> Tensor:
        """x (B, inputs), hidden (B, hidden), zeros at the beginning → the next hidden (B, hidden)."""
        hidden = self.zeros(x) if hidden is None else hidden
        reset_x, update_x, content_x = self.from_input(x).chunk(3, dim=-1)
        reset_h, update_h, content_h = self.from_hidden(hidden).chunk(3, dim=-1)
        reset, update = (reset_x + reset_h).sigmoid(), (update_x + update_h).sigmoid()
        content = torch.tanh(content_x + reset * content_h)
        return update * hidden + (1 - update) * content


def unroll(cell: nn.Module, x: Tensor) -> Tensor:
    """x (B, L, inputs) → the hidden states (B, L, hidden), one step after the other."""
    state, states = None, []
    for step in x.unbind(-2):
        state = cell(step, state)
        states.append(state[0] if isinstance(state, tuple) else state)
    return torch.stack(states, dim=-2)


GRADED = {
    "broadcast_shapes": broadcast_checks,
    "Value": value_checks,
    "two_layer_backward": two_layer_checks,
    "RNNCell": rnn_checks,
    "LSTMCell": lstm_checks,
    "GRUCell": gru_checks,
}
OURS = sys.modules[__name__]  # of whose parts the checks make the classic mistakes


# ------------------------------------------------------------------ the steps


def product_by_loops(a, b) -> tuple[list, int]:
    """a (n, k) times b (k, m), number by number, and how many multiplications that took."""
    n, k, m = len(a), len(b), len(b[0])
    product, count = [[0.0] * m for _ in range(n)], 0
    for i in range(n):
        for j in range(m):
            for step in range(k):
                product[i][j] += a[i][step] * b[step][j]
                count += 1
    return product, count


@shows(product_by_loops)
def step_matrix_product():
    """A matrix product, three ways

    Nearly all that a Transformer computes are matrix products. Each number of the result is a row of the
    first matrix times a column of the second, number by number, added up. With n rows, k numbers in each
    and m columns that makes n·k·m multiplications. NumPy and PyTorch write it a @ b, and do it in compiled
    code; the last two columns say how many times sooner, on this machine, just now.

    With more axes in front, @ multiplies matrix by matrix: a batch of products in one call.
    """
    rows, counts, gaps = [], [], []
    for size in (8, 16, 32, 64):
        a, b = random_tensors((size, 2 * size), (2 * size, size))
        product, count = product_by_loops(a.tolist(), b.tolist())
        gaps += [abs(np.array(product) - theirs).max() for theirs in (a.numpy() @ b.numpy(), (a @ b).numpy())]
        counts.append((count, multiplications_of(torch.matmul, a, b), 2 * size**3))
        slow = seconds_of(product_by_loops, a.tolist(), b.tolist(), repeats=1)
        fast = [seconds_of(lambda x, y: x @ y, *pair, repeats=20)
                for pair in ((a.numpy(), b.numpy()), (a, b))]
        rows.append((f"{size} × {2 * size} × {size}", count, *(f"{slow / x:,.0f} ×" for x in fast)))
    check("loops, NumPy and PyTorch give the same product", max(gaps) < 1e-12, f"difference {max(gaps):.0e}")
    check("the loops multiply n·k·m times, and so does PyTorch, by its own count",
          all(len(set(three)) == 1 for three in counts), f"{counts[-1][0]:,}")
    many, one = random_tensors((5, 3, 4), (4, 2))
    gap = largest_difference(many @ one, torch.stack([matrix @ one for matrix in many]))
    check("a batch of five products: the same as one after the other", gap < 1e-12, f"{gap:.0e}")
    return table("n × k × m", "multiplications", "NumPy sooner", "PyTorch sooner", rows=rows)


def slope_found(predicted: Callable, x: np.ndarray, y: np.ndarray, steps: int = 200) -> float:
    """w of the fit y ≈ w·x, by gradient steps on mean((w·x − predicted(y))²)."""
    w = 0.0
    for _ in range(steps):
        error = w * x - predicted(y)
        w -= 0.1 * 2 * (error * x).mean()
    return w


@shows(broadcast_shapes)
def step_broadcasting():
    """Broadcasting, and its classic bug

    a + b needs no equal shapes. Write the shapes one below the other, aligned right; where one is shorter,
    it counts as 1; a size of 1 is stretched to the other. So a row (4,) is added to each row of (3, 4), and
    a column (3, 1) to each column. Other sizes must be the same, or it is an error.

    The bug: predictions of shape (N,) minus wanted values of shape (N, 1) are no N errors. They are N × N:
    every prediction against every value. No error is raised, and the loss is a number. Below, a line y = 3·x
    with some noise is fitted by gradient steps, right and with the bug. With the bug each prediction is
    compared with all values alike, so it learns nothing of its own: here, where the x lie around 0, the
    slope comes out as 0.
    """
    check_part(broadcast_shapes, broadcast_checks, OURS)
    rng = np.random.default_rng(torch.initial_seed())
    x = rng.normal(size=100)
    x -= x.mean()
    y = 3 * x + 0.1 * rng.normal(size=100)
    right, wrong = slope_found(lambda y: y, x, y), slope_found(lambda y: y[:, None], x, y)
    errors = (3 * x - y), (3 * x - y[:, None])
    check("with equal shapes the slope is found", abs(right - 3) < 0.1, f"{right:.2f}")
    check("with (N,) − (N, 1) it isn't, and nothing is raised", abs(wrong) < 1e-9, f"{wrong:.0e}")
    rows = [(name, str(found.shape), f"{(found**2).mean():.2f}", f"{slope + 0:.2f}") for name, found, slope in
            zip(("(N,) − (N,)", "(N,) − (N, 1)"), errors, (right, abs(wrong)))]
    return table("", "shape of the errors", "loss at slope 3", "slope learned", rows=rows)


def linear_network(width: int, depth: int) -> nn.Sequential:
    """`depth` layers of `width`: each x·W + b."""
    return nn.Sequential(*(nn.Linear(width, width) for _ in range(depth)))


@shows(linear_network)
def step_linear_layer():
    """A linear layer, and what it costs

    A layer takes a row of numbers x to x·W + b: one matrix, one row b (the bias), broadcast over the batch.
    From n numbers to m it has n·m + m parameters, and multiplies n·m times for each row of the batch. Twice
    as deep costs twice as much. Twice as wide costs four times as much (four times the parameters but for
    the biases).
    """
    x, layer = torch.randn(5, 3).double(), nn.Linear(3, 4).double()
    gap = largest_difference(layer(x), x @ layer.weight.T + layer.bias)
    check("nn.Linear is x·Wᵀ + b: PyTorch stores W turned over", gap < 1e-12, f"{gap:.0e}")
    rows, agreed = [], []
    for width, depth in ((64, 2), (64, 4), (128, 2), (256, 2), (512, 2)):
        network, x = linear_network(width, depth), torch.randn(8, width)
        counted, work = sum(p.numel() for p in network.parameters()), multiplications_of(network, x) // 8
        agreed.append(counted == depth * (width**2 + width) and work == depth * width**2)
        rows.append((width, depth, counted, work))
    check("depth · (width² + width) parameters, depth · width² multiplications a row", all(agreed))
    return table("width", "depth", "parameters", "multiplications a row", rows=rows)


def slope_by_definition(f: Callable, x: float, h: float) -> float:
    return (f(x + h) - f(x - h)) / (2 * h)


@shows(slope_by_definition)
def step_derivatives():
    """A derivative by definition, by rule, by machine

    The derivative of f at x says by how much f moves when x moves a little: (f(x + h) − f(x − h)) / 2h for
    a small h. How small? With a large h the curve bends in between; with a tiny one the two values agree in
    nearly all their digits, and what is left is rounding. The table shows the error for f(x) = tanh(x)³. A
    rule has no h. The chain rule: for one function inside another, their derivatives multiply. f is the cube
    of tanh, so f' = 3·tanh² · (1 − tanh²). PyTorch applies the rules by machine, and so will we.

    And a network has not one weight, but many: by definition each would cost two runs of the whole network.
    """
    f, x = (lambda x: np.tanh(x) ** 3), 0.7
    rule = 3 * np.tanh(x) ** 2 * (1 - np.tanh(x) ** 2)
    leaf = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    (torch.tanh(leaf) ** 3).backward()
    errors = {h: abs(slope_by_definition(f, x, h) - rule)
              for h in (1e-1, 1e-3, 1e-5, 1e-7, 1e-9, 1e-11, 1e-13)}
    gap = abs(leaf.grad.item() - rule)
    check("rule and machine agree", gap < 1e-15, f"{gap:.0e}")
    best = min(errors, key=errors.get)
    check("by definition the error falls with h, and then grows again",
          errors[1e-1] > 1e4 * errors[best] and errors[1e-13] > 1e4 * errors[best], f"best at h = {best:.0e}")
    return table("h", "error of the definition", rows=[(f"{h:.0e}", f"{e:.0e}") for h, e in errors.items()])


def small_graph(w=0.5, x=2.0, b=-0.4, y=1.0) -> dict[str, Value]:
    """loss = (tanh(w·x + b) − y)², every value of it by name."""
    w, x, b, y = map(Value, (w, x, b, y))
    product = w * x
    total = product + b
    answer = total.tanh()
    error = answer - y
    return {"w": w, "x": x, "b": b, "y": y, "w·x": product, "w·x + b": total, "tanh": answer,
            "error": error, "loss": error * error}


@shows(Value.__mul__, Value.backward)
def step_chain_rule():
    """The chain rule on a graph: automatic differentiation

    A graph says what was computed from what. The picture shows that of loss = (tanh(w·x + b) − y)². From left
    to right it has the values (black), from right to left the gradients (orange): by how much the loss moves
    for each unit that this value moves.

    Each operation makes a new Value that remembers what it was computed from, and how to pass a gradient
    back. backward() lists the graph, so that each value comes after all that it was computed from, and walks
    it from the loss back. Each value hands its gradient on, times the derivative of its own operation alone.
    A value that is used twice gets two gradients, and adds them: error is used twice, in error · error.
    """
    graph = small_graph()
    graph["loss"].backward()
    rows, gaps = [], []
    for name in ("w", "x", "b", "y"):
        found, value = float(graph[name].grad), float(graph[name].data)
        by_definition = slope_by_definition(
            lambda moved, name=name: float(small_graph(**{name: moved})["loss"].data), value, 1e-6)
        gaps.append(abs(found - by_definition))
        rows.append((name, value, f"{found:.6f}", f"{by_definition:.6f}"))
    check("the gradients are those by definition", max(gaps) < 1e-8, f"{max(gaps):.0e}")
    check("… and of error it is 2 · error: both ways added",
          abs(graph["error"].grad - 2 * graph["error"].data) < 1e-15)
    figure = Picture("foundations_graph.png", draw_graph(
        {name: (float(value.data), float(value.grad)) for name, value in graph.items()}),
        "Values flow right, gradients flow left: each operation multiplies by its own derivative")
    return table("", "value", "gradient", "by definition", rows=rows), figure


@shows(summed_to, Value.receive, Value.__matmul__)
def step_value():
    """… over arrays

    A number for each weight would be slow; a Value holds a whole array. Two things come with it. Where
    broadcasting stretched a shape, one number was used many times, and its gradients are summed. And of a
    matrix product C = A·B the gradients are products again. With dA for the gradient of A: dA = dC·Bᵀ and
    dB = Aᵀ·dC.

    PyTorch's autograd is made in this way, with more operations, on more devices. The checks are those that
    --grade runs on a Value of your own.
    """
    check_part(Value, value_checks, OURS)


RATES = {"small": 0.03, "middle": 1.0, "large": 30.0}
HIDDEN, SPIRAL_STEPS = 32, 600


def first_weights(rng: np.random.Generator) -> list[np.ndarray]:
    return [2 * rng.normal(size=(2, HIDDEN)), rng.normal(size=HIDDEN),
            rng.normal(size=(HIDDEN, 2)) / math.sqrt(HIDDEN), np.zeros(2)]


def by_value(x, labels, *weights, kind: type[Value] = Value):
    """The same by Value: only the way forward is written."""
    leaves = [kind(weight) for weight in weights]
    logits = two_layer(kind(x), *leaves)
    largest = logits.data.max(axis=1, keepdims=True)
    scores = logits - largest
    of_labels = scores[np.arange(len(x)), labels]
    loss = (scores.exp().sum(axis=1).log() - of_labels).sum() / len(x)
    loss.backward()
    return float(loss.data), tuple(leaf.grad for leaf in leaves)


def by_pytorch(x, labels, *weights):
    leaves = [torch.tensor(weight, requires_grad=True) for weight in weights]
    w1, b1, w2, b2 = leaves
    loss = F.cross_entropy(torch.tanh(torch.from_numpy(x) @ w1 + b1) @ w2 + b2, torch.from_numpy(labels))
    loss.backward()
    return loss.item(), tuple(leaf.grad.numpy() for leaf in leaves)


def descend(gradients: Callable, seed: int, rate: float, steps=SPIRAL_STEPS):
    """The loss of every step, and the trained weights."""
    rng = np.random.default_rng(seed)
    x, labels = spirals(rng)
    weights, losses = first_weights(rng), []
    for _ in range(steps):
        loss, found = gradients(x, labels, *weights)
        weights = [w - rate * gradient for w, gradient in zip(weights, found)]
        losses.append(loss)
    return losses, weights


def right_share(weights: Sequence[np.ndarray], seed: int) -> float:
    """How many of 200 new points on the spirals get the right class."""
    x, labels = spirals(np.random.default_rng(seed + 10**6))
    return float((two_layer(x, *weights).argmax(axis=1) == labels).mean())


@shows(two_layer_backward)
def step_two_layers():
    """A network of two layers, backward by hand

    Two linear layers with a tanh between them. (Without it they would be one: two products with matrices
    are a product with one matrix.) The network gives two numbers for each point, the logits. Softmax makes
    shares of them: e to each, divided by the sum, so that they add up to 1. The loss is −log of the share
    that the right class got, the mean over the batch. Backward goes line by line in reverse order. Worth
    knowing by heart: the gradient of the logits is their softmax, less 1 at the right class.
    """
    check_part(two_layer_backward, two_layer_checks, OURS)
    rng = np.random.default_rng(torch.initial_seed())
    x, labels = spirals(rng)
    weights = first_weights(rng)
    found = [way(x, labels, *weights)[1] for way in (two_layer_backward, by_value, by_pytorch)]
    gap = max(abs(a - b).max() for other in found[1:] for a, b in zip(found[0], other))
    check("by hand, by Value and by PyTorch: the same gradients on the spirals of the next step",
          gap < 1e-12, f"{gap:.0e}")
    w1, w2 = random_tensors((4, 5), (5, 3))
    (x,) = random_tensors((6, 4))
    gap = largest_difference(x @ w1 @ w2, x @ (w1 @ w2))
    check("without tanh two layers are one", gap < 1e-12, f"{gap:.0e}")


@shows(by_value, descend)
def step_spirals():
    """Learning two spirals

    Two spirals, and no straight line parts them. A network of two layers with 32 hidden numbers learns them
    from 200 points, by plain gradient steps: by hand, by Value and by PyTorch, from the same first weights.
    The three loss curves are one.

    How large a step? The left of the picture has three rates. With the small one, 600 steps leave more than
    ten times the loss of the middle one. With the large one the loss first jumps far above that of guessing,
    which is log 2 = 0.69. Here it comes down again, and lower than the others; but the middle one gets all
    new points right already. On the right is what the network says of every point of the plane: the colour
    is the share of class 1, on the line both have half.
    """
    base = torch.initial_seed()
    curves = {name: descend(way, base, RATES["middle"]) for name, way in
              (("by hand", two_layer_backward), ("Value", by_value), ("PyTorch", by_pytorch))}
    gap = max(abs(a - b) for name in ("Value", "PyTorch")
              for a, b in zip(curves["by hand"][0], curves[name][0]))
    check("three ways, one loss curve", gap < 1e-9, f"largest difference of {SPIRAL_STEPS} losses {gap:.0e}")
    trained = {seed: curves["by hand"] if seed == base else descend(two_layer_backward, seed, RATES["middle"])
               for seed in range(base, base + 5)}
    shares = [right_share(weights, seed) for seed, (_, weights) in trained.items()]
    check("five seeds: at least 99 % of 200 new points are right", min(shares) >= 0.99,
          f"{min(shares):.1%} and more")
    by_rate = {name: descend(two_layer_backward, base, rate) if name != "middle" else curves["by hand"]
               for name, rate in RATES.items()}
    rows = [(name, RATES[name], max(losses), losses[-1], right_share(weights, base))
            for name, (losses, weights) in by_rate.items()]
    small, middle, large = rows
    check("the small rate is left with more than ten times the loss of the middle one",
          small[3] > 10 * middle[3])
    check("the large rate throws the loss above 10, and ends below the middle one",
          large[2] > 10 and large[3] < middle[3])
    check("the middle one gets all new points right", middle[4] == 1)
    figure = Picture("foundations_spirals.png", draw_spirals(
        {f"rate {RATES[name]:g}": losses for name, (losses, _) in by_rate.items()},
        lambda points: two_layer(points, *curves["by hand"][1]), *spirals(np.random.default_rng(base))),
        "Two layers part two spirals: small steps take long, large ones first throw the loss up")
    return table("", "rate", "highest loss", "last loss", "new points right", rows=rows), figure


def neighbours(text: list[list[str]], window: int = 2) -> Tensor:
    """(V, V): how often the second word stands within two places of the first."""
    number, counts = {word: i for i, word in enumerate(VOCABULARY)}, torch.zeros(2 * [len(VOCABULARY)])
    for words in text:
        for place, word in enumerate(words):
            for other in words[max(0, place - window) : place] + words[place + 1 : place + 1 + window]:
                counts[number[word], number[other]] += 1
    return counts


def learn_vectors(counts: Tensor, width: int = 8, steps: int = 200) -> Tensor:
    """(V, width): vectors from which the neighbours can be guessed."""
    vectors = (torch.randn(len(counts), width) / 10).requires_grad_()
    guess = (torch.randn(width, len(counts)) / 10).requires_grad_()
    optimizer = torch.optim.Adam([vectors, guess], lr=0.05)
    for _ in range(steps):
        log_shares = F.log_softmax(vectors @ guess, dim=-1)
        loss = -(counts * log_shares).sum() / counts.sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return vectors.detach()


@shows(learn_vectors)
def step_embeddings():
    """From one-hot to embeddings

    A word is a number in a list, and a number says nothing: word 7 isn't more than word 6. One-hot, a row
    of zeros with a 1 in the word's place, says no more: all words are equally far from each other. Times a
    matrix, it is a lookup: it picks the matrix's row. These rows, a vector for each word, can be learned.

    From what? Below, 300 made-up sentences (“the big horse runs to the garden”), and one task: guess the
    neighbours of a word from its vector. The classes of the words are never told. Words that are used alike
    have like neighbours, so like vectors serve them. The table says how many of a word's three nearest words
    are of its class: before and after learning, and after learning from the same words in random order. That
    takes the neighbours away, and with them the classes.

    The picture compares every word with every other: red where two vectors point the same way.
    """
    ids = torch.randint(len(VOCABULARY), (10,))
    matrix = torch.randn(len(VOCABULARY), 8)
    check("a one-hot row times a matrix is the matrix's row, bit for bit",
          torch.equal(F.one_hot(ids, len(VOCABULARY)).float() @ matrix, matrix[ids]))
    chance = float(np.mean([(kind == CLASS_OF).sum() - 1 for kind in CLASS_OF]) / (len(NAMED) - 1))
    rows, base = [], torch.initial_seed()
    for seed in range(base, base + 3):
        rng = np.random.default_rng(seed)
        text = made_up_text(rng)
        words = iter(rng.permutation([word for sentence in text for word in sentence]).tolist())
        shuffled = [[next(words) for _ in sentence] for sentence in text]
        vectors = {"learned": learn_vectors(neighbours(text)),
                   "from shuffled words": learn_vectors(neighbours(shuffled))}
        rows.append((seed, same_class(torch.randn(len(NAMED), 8)), *map(same_class, vectors.values())))
    check("three seeds: more than 90 % are of the same class", min(row[2] for row in rows) > 0.9)
    check("from shuffled words less than 35 %", max(row[3] for row in rows) < 0.35, f"chance: {chance:.0%}")
    drawn = {name: of[: len(NAMED)] for name, of in vectors.items()}
    figure = Picture("foundations_embeddings.png", draw_words(drawn, CLASSES),
                     "Words that are used alike get like vectors: the classes appear, and nobody named them")
    shown = [(seed, *(f"{share:.0%}" for share in shares)) for seed, *shares in rows]
    return table("seed", "not learned", "learned", "from shuffled words", rows=shown), figure


@shows(RNNCell.forward, LSTMCell.forward, GRUCell.forward)
def step_cells():
    """Reading a sequence: three cells

    A recurrent network reads one token after the other, and carries all that it knows in one vector, the
    hidden state. The same cell, with the same weights, runs at every step.

        RNN   the new state is a tanh of input and old state: made anew
        LSTM  beside it a memory and three gates: let in, keep, show
        GRU   two gates, no memory beside: keep, and reset for the content

    A gate is a factor from 0 to 1 for each number of the memory, the σ of a sum: σ(x) = 1 / (1 + e⁻ˣ). Near
    1 it lets all pass, near 0 nothing. Each gate has weights of its own, and so has the content: these are
    the blocks in the code. With copied weights all three equal PyTorch's networks: outputs and gradients.
    """
    check_part(RNNCell, rnn_checks, OURS)
    check_part(LSTMCell, lstm_checks, OURS)
    check_part(GRUCell, gru_checks, OURS)
    rows = []
    for kind, blocks in ((RNNCell, 1), (LSTMCell, 4), (GRUCell, 3)):
        count = sum(p.numel() for p in kind(32, 32).parameters())
        rows.append((kind.__name__, blocks, count, blocks * (2 * 32**2 + 2 * 32)))
    check("blocks · (2·width² + 2·width) parameters", all(row[2] == row[3] for row in rows))
    return table("cell of width 32", "blocks", "parameters", "formula", rows=rows)


def layers_until_seen(length: int, spacing: Callable[[int], int]) -> int:
    """How many convolutions of 3 places until the first token reaches the last output."""
    x = torch.zeros(1, 1, length)
    x[..., 0] = 1
    layers = 0
    while not x[..., -1].any():
        apart = spacing(layers)
        seen = F.conv1d(F.pad(x, (2 * apart, 0)), torch.ones(1, 1, 3), dilation=apart)
        x, layers = (seen > 0).float(), layers + 1
    return layers


@shows(layers_until_seen)
def step_convolution():
    """Beside them: a convolution

    A convolution looks at a few neighbours at once, here a token and the two before it, everywhere with the
    same weights. All places are computed at once, but one layer sees three tokens; each layer more sees two
    more. If the places it looks at lie 1, 2, 4, 8 … apart (dilated), what it sees about doubles with each
    layer. A recurrent layer reaches everything, in as many steps as there are tokens, one after the other.
    """
    rows = [(n, layers_until_seen(n, lambda layer: 1), layers_until_seen(n, lambda layer: 2**layer), n)
            for n in (8, 32, 128, 512)]
    check("(n − 1) / 2 layers, rounded up", all(row[1] == math.ceil((row[0] - 1) / 2) for row in rows))
    check("dilated: log₂((n + 1) / 2) layers, rounded up",
          all(row[2] == math.ceil(math.log2((row[0] + 1) / 2)) for row in rows))
    return table("tokens", "layers", "layers, dilated", "steps of a recurrent layer", rows=rows)


WIDTH, DISTANCES = 16, (4, 8, 12, 16)


def opened(cell: LSTMCell, bias: float = 3.0) -> LSTMCell:
    """The cell with its forget gate at σ(3) = 0.95 to begin with, instead of about a half."""
    with torch.no_grad():
        cell.bias_ih[WIDTH : 2 * WIDTH], cell.bias_hh[WIDTH : 2 * WIDTH] = bias, 0.0
    return cell


def gradient_back(cell: nn.Module, distance: int) -> float:
    """How long the slopes of the last state by the input `distance` steps back are, taken together."""
    x = torch.randn(1, distance + 1, 8).double().requires_grad_()
    last = unroll(cell.double(), x)[0, -1]
    each_number = torch.eye(WIDTH).double()
    (slopes,) = torch.autograd.grad(last, x, each_number, is_grads_batched=True)
    return slopes[:, 0, 0].norm().item()  # of (WIDTH, 8) numbers


CELLS = {"RNN": lambda n: RNNCell(n, WIDTH), "LSTM": lambda n: LSTMCell(n, WIDTH),
         "LSTM, open": lambda n: opened(LSTMCell(n, WIDTH)), "GRU": lambda n: GRUCell(n, WIDTH)}
BACK = (1, 4, 16, 64)


@cache
def way_back(seed: int) -> dict[str, list[float]]:
    """The gradient of each new cell at every distance: the mean of 5."""
    torch.manual_seed(seed)
    return {name: [sum(gradient_back(make(8), n) for _ in range(5)) / 5 for n in BACK]
            for name, make in CELLS.items()}


def scaled_rnn(factor: float) -> RNNCell:
    """An RNN whose state is turned and multiplied by `factor` at every step."""
    cell = RNNCell(8, WIDTH)
    with torch.no_grad():
        nn.init.orthogonal_(cell.weight_hh).mul_(factor)
        cell.weight_ih.mul_(1e-6)
        cell.bias_ih.zero_()
        cell.bias_hh.zero_()
    return cell


@shows(gradient_back)
def step_way_back():
    """The long way back

    What stood n steps back is learned from the gradient that arrives there. On its way it passes n steps, and
    each multiplies it. The first table shows how long it is when it arrives, in new, untrained cells. The
    LSTM begins with its forget gate (keep) half open: of its memory about a half is left after each step. In
    “LSTM, open” that gate begins at 0.95, nothing else is changed, and far more arrives.

    The other end: factors above 1. The second table has RNNs whose state is turned (which keeps its length)
    and multiplied, at every step, by one factor, with inputs so small that tanh hardly bends. The gradient
    goes like factorⁿ: it vanishes below 1, and explodes above. A remedy against exploding is clipping: a
    gradient longer than some length is cut to that length, and keeps its direction. Against vanishing it
    does nothing.
    """
    reach = way_back(torch.initial_seed())
    check("RNN, LSTM and GRU: after 64 steps less than a millionth of what arrives from 1",
          max(reach[name][3] / reach[name][0] for name in ("RNN", "LSTM", "GRU")) < 1e-6)
    check("the open LSTM: more than a million times what the others have after 64",
          reach["LSTM, open"][3] > 1e6 * max(reach[name][3] for name in ("RNN", "LSTM", "GRU")))
    first = table("gradient from", *(f"{n} back" for n in BACK),
                  rows=[(name, *(f"{norm:.0e}" for norm in norms)) for name, norms in reach.items()])
    rows = []
    for factor in (0.8, 1.0, 1.1):
        cell = scaled_rnn(factor)
        norms = [gradient_back(cell, n) for n in (1, 16, 64)]
        kept = (norms[2] / norms[1]) ** (1 / 48)
        rows.append((factor, *(f"{norm / norms[0]:.1e}" for norm in norms[1:]), f"{kept:.3f}"))
    check("what one step leaves of the gradient is the factor, within 1 %",
          all(abs(float(row[-1]) / row[0] - 1) < 0.01 for row in rows))
    weight = nn.Parameter(torch.zeros(50))
    weight.grad = 30 * torch.randn(50)
    before = weight.grad.clone()
    nn.utils.clip_grad_norm_([weight], 1.0)
    check("clipping: length 1, the same direction",
          abs(weight.grad.norm() - 1) < 1e-4 and F.cosine_similarity(before, weight.grad, dim=0) > 0.9999)
    return first, table("factor", "16 back against 1", "64 back", "kept a step", rows=rows)


SYMBOLS, LENGTH, MODELS = 4, 18, 5


class Reader(nn.Module):
    """Reads one-hot tokens (B, L, 8) with a cell, and answers from the last hidden state."""

    def __init__(self, cell: nn.Module):
        super().__init__()
        self.cell = cell
        self.answer = nn.Parameter(torch.randn(WIDTH, SYMBOLS) / math.sqrt(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return unroll(self.cell, x)[..., -1, :] @ self.answer


class OneAttention(nn.Module):
    """The last token looks at all tokens, and answers from what it gets: lesson 1 builds what runs here."""

    def __init__(self, places: bool = True):
        super().__init__()
        self.tokens = nn.Parameter(torch.randn(2 * SYMBOLS, WIDTH))
        self.places = nn.Parameter(torch.randn(LENGTH, WIDTH)) if places else 0.0  # a vector for each place
        for name in ("query", "key", "value"):
            setattr(self, name, nn.Parameter(torch.randn(WIDTH, WIDTH) / math.sqrt(WIDTH)))
        self.answer = nn.Parameter(torch.randn(WIDTH, SYMBOLS) / math.sqrt(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        x = x @ self.tokens + self.places
        query, keys, values = x[..., -1:, :] @ self.query, x @ self.key, x @ self.value
        found = F.scaled_dot_product_attention(query, keys, values)
        return found[..., 0, :] @ self.answer


READERS = {**{name: lambda make=make: Reader(make(2 * SYMBOLS)) for name, make in CELLS.items()},
           "attention": OneAttention, "attention, no places": lambda: OneAttention(places=False)}
TOGETHER = ("RNN",), ("LSTM", "LSTM, open"), ("GRU",), ("attention",)  # of one shape


def delayed_task(distances: Tensor, batch: int) -> tuple[Tensor, Tensor]:
    """One-hot sequences (M, B, 18, 8), and the answers (M, B): the symbol that stands n steps back.

    Row m has its own distance n. All other tokens are noise, of four symbols that are never asked for.
    """
    models = len(distances)
    tokens = torch.randint(SYMBOLS, 2 * SYMBOLS, (models, batch, LENGTH))
    wanted = torch.randint(SYMBOLS, (models, batch))
    tokens[torch.arange(models), :, LENGTH - 1 - distances] = wanted
    return F.one_hot(tokens, 2 * SYMBOLS).float(), wanted


@cache
def train_readers(names: Sequence[str], seed: int, trained_at: Sequence[int] = DISTANCES,
                  steps: int = 150) -> dict[str, Tensor]:
    """Accuracy (trained at, model, asked at): for each name and distance five models, side by side."""
    torch.manual_seed(seed)
    distances = torch.tensor(trained_at).repeat_interleave(MODELS).repeat(len(names))
    models = [READERS[name]() for name in names for _ in range(len(trained_at) * MODELS)]
    trained = train_stacked(models, lambda: delayed_task(distances, 16), steps, rate=0.03)
    right = []
    for distance in DISTANCES:
        x, wanted = delayed_task(torch.full_like(distances, distance), 250)
        right.append((trained(x).argmax(-1) == wanted).float().mean(1))
    shape = len(names), len(trained_at), MODELS
    return dict(zip(names, torch.stack(right, -1).unflatten(0, shape)))


@shows(delayed_task, Reader.forward, OneAttention.forward)
def step_delayed_answer():
    """Who remembers?

    One of four symbols stands n steps back. All other tokens are noise, of four symbols that are never asked
    for. After the last token the network has to say which symbol it was; guessing is right in 25 %. For each
    n five networks of each kind are trained, from other first weights, all equally long (150 batches of 16).
    Four kinds read with a cell. The fifth is one attention, which lesson 1 builds: the last token looks at
    all at once, and each has a learned vector added for the place where it stands.

    The LSTM, as PyTorch begins it, guesses where n is 12 or more. In the open one only the first forget gate
    is another, and it learns: a gate that keeps was missing. But a faded gradient doesn't explain all. To the
    RNN and the GRU it comes as faded, and they learn more than that LSTM. Attention learns what stands far
    away, too: from any place it is one step to the answer. (Some of its trainings get stuck.)

    The second table asks those that were trained at n = 4 farther back. Here gates win: the GRU and the open
    LSTM have learned to keep a symbol until the end. Attention has learned to look at a place, and is much
    worse elsewhere. That comes from the vectors of the places: without them it can only look for the symbol,
    and finds it anywhere. Where order matters they are needed, though: see lesson 3.
    """
    seed, found = torch.initial_seed(), {}
    for names in TOGETHER:
        found |= train_readers(names, seed)
    own = {name: right.diagonal(dim1=0, dim2=2).T for name, right in found.items()}  # (distance, model)
    mean = {name: right.mean(1) for name, right in own.items()}
    found |= train_readers(("attention, no places",), seed, DISTANCES[:1])
    check("at n = 4 all that read with a cell are right", min(own[name][0].min() for name in CELLS) > 0.95)
    check("at n = 12 and 16 the LSTM guesses, the open one is right in more than 60 %",
          mean["LSTM"][2:].max() < 0.35 and mean["LSTM, open"][2:].min() > 0.6)
    for name in ("RNN", "GRU", "attention"):
        ahead = (mean[name] - mean["LSTM"])[2:].min().item()
        check(f"… and {name} is ahead of that LSTM by more than 20 %", ahead > 0.2, f"at least {ahead:.0%}")
    at_four = {name: right[0].mean(0) for name, right in found.items()}  # asked at
    check("trained at 4, asked at 8: GRU and open LSTM are ahead of attention by more than 20 %",
          min(at_four[name][1] for name in ("GRU", "LSTM, open")) > at_four["attention"][1] + 0.2)
    check("… without places it is right in more than 80 %", at_four["attention, no places"].min() > 0.8)
    figure = Picture("foundations_memory.png", draw_memory(
        BACK, way_back(seed), DISTANCES, {name: right.numpy() for name, right in own.items()}),
        "With its forget gate open an LSTM passes gradients on, and learns what stands far back")
    tables = [table(title, *(f"{n}" for n in DISTANCES), rows=[
        (name, *(f"{share:.0%}" for share in shares)) for name, shares in of.items()])
        for title, of in (("trained and asked at n =", mean), ("trained at 4, asked at n =", at_four))]
    return *tables, figure


def not_reset() -> Callable:
    """by_value(), but `grad` is not set to 0 between two steps: all earlier gradients stay in it."""
    arrived: list = [0.0, 0.0, 0.0, 0.0]

    def gradients(x, labels, *weights):
        loss, found = by_value(x, labels, *weights)
        arrived[:] = [old + new for old, new in zip(arrived, found)]
        return loss, tuple(arrived)

    return gradients


@shows(not_reset)
def step_broken_on_purpose():
    """Broken on purpose

    Mistakes that run without an error. The first table trains the spirals of step 8 for 100 steps with four
    of them, and three of the four learn the spirals all the same. Gradients that are never reset keep
    pushing in the old direction, which here does no harm. A gradient that isn't summed over the batch makes
    of the 32 numbers of b₁ a table of 200 × 32, a bias for each point. The graph walked in the wrong order,
    nearest first, is right by luck: two ways lead back to the scores, and of the loss as it is written the
    longer one is listed first. With each a − b as −b + a, the same sum, the luck is gone.

    So a loss that falls is no test of a gradient. Compare with numbers that are right: the second table
    says which check each mistake fails, and so what to test first in your own code. (The mistakes of the
    cells are tried, too.)
    """
    base, rows, mistakes = torch.initial_seed(), [], value_checks.mistakes(OURS)
    names = "not summed over a broadcast axis", "walked in the wrong order", "overwritten"
    kinds = {name: mistakes[name].implementation for name in names}

    class TurnedRound(kinds[names[1]]):
        def __sub__(self, other):
            return -self.lift(other) + self

    kinds["wrong order, a − b as −b + a"] = TurnedRound
    ways = {name: partial(by_value, kind=kind) for name, kind in kinds.items()}
    for name, way in {"right": by_value, "never reset": not_reset(), **ways}.items():
        losses, weights = descend(way, base, RATES["middle"], 100)
        rows.append((name, losses[-1], right_share(weights, base), weights[1].size))
    shares = [row[2] for row in rows]
    check("three of four mistakes still get 95 % of new points right", min(shares[:4]) >= 0.95 > shares[4])
    check("… the wrong order no longer with −b + a", shares[5] < 0.95)
    check("… and one of the three has made b₁ 200 times as large", rows[2][3] == 200 * rows[0][3])
    trained = table("mistake", "last loss", "new points right", "numbers in b₁",
                    rows=[(name, loss, f"{share:.1%}", size) for name, loss, share, size in rows])
    check_mistakes(OURS, rnn_checks, lstm_checks, gru_checks)
    return trained, check_mistakes(OURS, broadcast_checks, value_checks, two_layer_checks)


def step_what_next():
    """What now?

    Lesson 1's question: n steps lead from a word to the answer, and each can lose it. Could the last step
    look at the first directly?

    Read: Value from top to bottom, then checks/differentiation.py, which says what has to hold of it.

    Change: (1) in Value.relu, (self.data > 0) to 1.0: one check of step 6 fails and says which operation.
    (2) HIDDEN to 2: two hidden numbers don't part the spirals, and step 8 fails. (3) In opened(), bias to
    0.0: the gate is half open again, and checks of steps 12 and 13 fail.

    Write it yourself: python 00_foundations.py --template my_foundations.py, fill in the file, then the
    same with --grade. Next: python 01_attention_mechanism.py.
    """


def main():
    steps = [
        step_matrix_product,
        step_broadcasting,
        step_linear_layer,
        step_derivatives,
        step_chain_rule,
        step_value,
        step_two_layers,
        step_spirals,
        step_embeddings,
        step_cells,
        step_convolution,
        step_way_back,
        step_delayed_answer,
        step_broken_on_purpose,
        step_what_next,
    ]
    narrate(lesson_parser(__doc__, GRADED).parse_args(), __doc__, steps)


if __name__ == "__main__":
    main()

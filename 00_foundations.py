"""Lesson 0. What is underneath?

Everything in this course is built from four things: products of matrices, a function that bends their result,
a number that says how wrong the answer was (the loss), and the gradient: for each weight, by how much the
loss moves when the weight does. Training is one line, repeated (gradient descent):

    weight ← weight − rate · gradient

The weights are learned; the rate sets the length of a step.

You need Python and a little algebra. You will write code that computes gradients, train a small network with
it, and learn vectors for words. Then you will build the networks that read sequences before Transformers
did. The lesson runs in seconds and takes an hour to read.
"""

import course.console.startup  # noqa: F401 (before torch: it reports what fails in the imports below)
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from checks.differentiation import broadcast_checks, by_pytorch, never_reset, two_layer_checks, value_checks
from checks.recurrence import gru_checks, lstm_checks, rnn_checks
from common import (
    Picture,
    check,
    check_mistakes,
    check_part,
    lesson_parser,
    narrate,
    parameters,
    shows,
    table,
)
from course.console.measuring import seconds_of
from course.data.toys import CLASSES, NAMED, VOCABULARY, first_weights, neighbour_counts, same_class, spirals
from course.grading.checking import largest_difference, random_tensors, refused
from course.training.delayed_answer import INPUTS, accuracies
from course.training.side_by_side import side_by_side
from figures.foundations import draw_graph, draw_memory, draw_spirals, draw_words, small_graph

__all__ = ["CELLS", "INPUTS", "WIDTH", "GRUCell", "LSTMCell", "RNNCell", "Value", "broadcast_shapes",
           "two_layer_backward", "unroll", "way_back"]


# ------------------------------------------------------------------ the parts


def broadcast_shapes(*shapes: Sequence[int]) -> tuple[int, ...]:
    """The shape that arrays of these shapes broadcast to, as in a + b: (3, 1) and (4,) → (3, 4).

    Shapes are aligned right, and missing sizes count as 1. In each column, sizes other than 1 must be equal.
    Raises ValueError, with all shapes, if they aren't.
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
    """The gradient summed over the leading axes that the shape lacks, and over those where its size is 1."""
    gradient = gradient.sum(axis=tuple(range(gradient.ndim - len(shape))))
    stretched = tuple(axis for axis, size in enumerate(shape) if size == 1)
    return gradient.sum(axis=stretched, keepdims=True)


class Value:
    """A NumPy array that remembers what it was computed from, so that gradients can flow back.

    `data` is the array as float64. `grad` has its shape and is the gradient received so far, at first 0.
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
        result = np.exp(self.data)
        return type(self)(result, (self,), lambda grad: (grad * result,))

    def log(self) -> "Value":
        return type(self)(np.log(self.data), (self,), lambda grad: (grad / self.data,))

    def tanh(self) -> "Value":
        """tanh of each number."""
        result = np.tanh(self.data)
        return type(self)(result, (self,), lambda grad: (grad * (1 - result**2),))

    def relu(self) -> "Value":
        """Each number if it is positive, otherwise 0."""
        return type(self)(np.maximum(self.data, 0), (self,), lambda grad: (grad * (self.data > 0),))

    def sum(self, axis=None, keepdims: bool = False) -> "Value":
        """The sum along one or more axes, or of all numbers."""

        def pass_back(grad):
            kept = grad if axis is None or keepdims else np.expand_dims(grad, axis)
            return (np.broadcast_to(kept, self.data.shape),)

        return type(self)(self.data.sum(axis=axis, keepdims=keepdims), (self,), pass_back)

    def __getitem__(self, index) -> "Value":
        """The entries that NumPy's indexing returns; an entry may be taken twice."""

        def pass_back(grad):
            whole = np.zeros_like(self.data)
            np.add.at(whole, index, grad)
            return (whole,)

        return type(self)(self.data[index], (self,), pass_back)

    def __neg__(self) -> "Value":
        return self * -1.0

    def __sub__(self, other) -> "Value":
        return self + -self.lift(other)

    def __truediv__(self, other) -> "Value":
        return self * self.lift(other) ** -1.0

    def __radd__(self, other) -> "Value":
        return self + other

    def __rmul__(self, other) -> "Value":
        return self * other

    def history(self) -> list["Value"]:
        """All values that this one was computed from, each once and after its parents; this one last."""
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
        """Add the gradient of this number to `grad` of all values that it was computed from.

        All except the inputs start from 0 again. Raises ValueError, with the shape, for more than one number.
        """
        if self.data.size != 1:
            raise ValueError(f"backward() needs one number, not an array of shape {self.data.shape}")
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

    x: a batch (B, inputs); labels (B,): each row's class number; w1 (inputs, hidden), w2 (hidden, classes).
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
    """The weights of a cell, named, shaped and initialised as in PyTorch: one block of rows per gate."""

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
        """W_hh·h + b_hh, likewise."""
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
    """One step with a memory controlled by gates (Hochreiter and Schmidhuber 1997; Gers et al. 2000).

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
    """One step with two gates and no separate memory (Cho et al. 2014), as in PyTorch.

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
    """x (B, L, inputs) → the hidden states (B, L, hidden), step by step."""
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
OURS = sys.modules[__name__]  # the checks make the classic mistakes from its parts


# ------------------------------------------------------------------ the steps


def product_by_loops(a, b) -> tuple[list, int]:
    """a (n, k) times b (k, m), and how many multiplications that took."""
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

    Nearly everything a Transformer computes is a matrix product. Each number of the result comes from a row
    of the first matrix and a column of the second, multiplied number by number and added up. NumPy and
    PyTorch write it a @ b; the last columns say how many times faster they were than the loops. With more
    axes in front, @ multiplies many matrices in one call.
    """
    rows, gaps = [], []
    for size in (8, 16, 32):
        a, b = random_tensors((size, 2 * size), (2 * size, size))
        lists, arrays = (a.tolist(), b.tolist()), (a.numpy(), b.numpy())
        product, count = product_by_loops(*lists)
        gaps += [abs(np.array(product) - theirs).max() for theirs in (np.matmul(*arrays), (a @ b).numpy())]
        slow = seconds_of(product_by_loops, *lists)
        fast = [seconds_of(np.matmul, *arrays, repeats=20), seconds_of(torch.matmul, a, b, repeats=20)]
        rows.append((f"{size} × {2 * size} × {size}", count, *(f"{slow / x:,.0f} ×" for x in fast)))
    check("loops, NumPy and PyTorch give the same product", max(gaps) < 1e-12, f"difference {max(gaps):.0e}")
    many, one = random_tensors((5, 3, 4), (4, 2))
    gap = largest_difference(many @ one, torch.stack([matrix @ one for matrix in many]))
    check("five products in one call equal five single products", gap < 1e-12)
    return table("n × k × m", "multiplications: n·k·m", "NumPy speed-up", "PyTorch speed-up", rows=rows)


def slope_found(wanted: np.ndarray, x: np.ndarray) -> float:
    """The slope w of wanted ≈ w·x, by gradient descent."""
    w = 0.0
    for _ in range(200):
        w -= 0.1 * 2 * ((w * x - wanted) * x).mean()
    return w


@shows(broadcast_shapes, slope_found)
def step_broadcasting():
    """Broadcasting, and its classic bug

    Broadcasting combines arrays of different shapes. Write the shapes one below the other, aligned right.
    Where a shape is shorter, a missing size counts as 1, and a size of 1 is stretched to the other. All other
    sizes must be equal. A row (4,) is added to each row of (3, 4), a column (3, 1) to each column.

    The bug: predictions of shape (N,) minus targets of shape (N, 1) do not give N errors. They give N × N:
    every prediction against every target. The table shows lines fitted to y = 3·x plus noise (x has mean 0).
    """
    check_part(broadcast_shapes, broadcast_checks, OURS)
    rng = np.random.default_rng(torch.initial_seed())
    x = rng.normal(size=100)
    x -= x.mean()
    y = 3 * x + 0.1 * rng.normal(size=100)
    rows = []
    for name, wanted in (("(N,) − (N,)", y), ("(N,) − (N, 1)", y[:, None])):
        errors = 3 * x - wanted
        rows.append((name, str(errors.shape), (errors**2).mean(), round(slope_found(wanted, x), 9) + 0.0))
    check("with equal shapes the fit finds slope 3", abs(rows[0][3] - 3) < 0.1)
    check("with (N,) − (N, 1) the slope is 0, and no error is raised", abs(rows[1][3]) < 1e-9)
    return table("", "shape of the errors", "loss at slope 3", "slope learned", rows=rows)


def linear_network(width: int, depth: int) -> nn.Sequential:
    """`depth` layers of `width`: each x·W + b."""
    return nn.Sequential(*(nn.Linear(width, width) for _ in range(depth)))


@shows(linear_network)
def step_linear_layer():
    """A linear layer, and what it costs

    A layer turns a row of numbers x into x·W + b: one matrix, one row b (the bias), broadcast over a batch of
    rows. A layer from n numbers to m has n·m + m parameters and does n·m multiplications per row. Doubling
    the depth doubles the cost; doubling the width quadruples it, apart from the biases.
    """
    x, layer = torch.randn(5, 3).double(), nn.Linear(3, 4).double()
    gap = largest_difference(layer(x), x @ layer.weight.T + layer.bias)
    check("nn.Linear is x·Wᵀ + b: PyTorch stores W transposed", gap < 1e-12)
    rows = []
    for width, depth in ((64, 2), (64, 4), (128, 2), (256, 2)):
        network = linear_network(width, depth)
        work = sum(product_by_loops([[1.0] * width], layer.weight.T.tolist())[1] for layer in network)
        rows.append((width, depth, parameters(network), work))
    check("there are depth · (width² + width) parameters, depth · width² multiplications per row",
          all(row[2:] == (row[1] * (row[0] ** 2 + row[0]), row[1] * row[0] ** 2) for row in rows))
    return table("width", "depth", "parameters", "multiplications per row", rows=rows)


def slope_by_definition(f: Callable, x: float, h: float) -> float:
    return (f(x + h) - f(x - h)) / (2 * h)


@shows(slope_by_definition)
def step_derivatives():
    """A derivative by definition, by rule, automatically

    The derivative of f at x says how fast f changes with x: (f(x + h) − f(x − h)) / 2h for a small h. If h is
    large, the curve bends between the two points. If h is tiny, the two values agree in nearly all digits,
    and what is left is mostly rounding error. The table shows the error for f(x) = tanh(x)³.

    A differentiation rule needs no h. The chain rule: if one function is inside another, their derivatives
    multiply. f is the cube of tanh, so f' = 3·tanh² · (1 − tanh²). PyTorch applies the rules automatically;
    so will we. The definition would need two runs of the network per weight.
    """
    f, x = (lambda x: np.tanh(x) ** 3), 0.7
    rule = 3 * np.tanh(x) ** 2 * (1 - np.tanh(x) ** 2)
    leaf = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    (torch.tanh(leaf) ** 3).backward()
    check("the rule and PyTorch give the same derivative", abs(leaf.grad.item() - rule) < 1e-15)
    steps = 1e-1, 1e-3, 1e-5, 1e-7, 1e-10, 1e-13
    errors = [abs(slope_by_definition(f, x, h) - rule) for h in steps]
    check("as h shrinks, the error of the definition falls, then grows again",
          min(errors[0], errors[-1]) > 1e4 * min(errors))
    return table("h", "error of the definition", rows=[
        (f"{h:.0e}", f"{error:.0e}") for h, error in zip(steps, errors)])


@shows(Value.__mul__, Value.backward)
def step_chain_rule():
    """The chain rule on a graph: automatic differentiation

    A graph says what was computed from what. The picture shows the graph of loss = (tanh(w·x + b) − y)².
    Values are black. Gradients, in orange, say how much the loss moves for each unit that a value moves.

    Each operation makes a Value that remembers what it was computed from, and how to pass a gradient back.
    backward() lists all values of the graph, each after those it was computed from, and walks the list
    backwards. Each value multiplies its gradient by the derivative of its own operation and passes it on. A
    value that is used twice gets two gradients and adds them, as error does in error · error.
    """
    graph = small_graph(Value)
    graph["loss"].backward()
    rows = []
    for name in ("w", "x", "b", "y"):
        loss = lambda moved, name=name: small_graph(Value, **{name: moved})["loss"].data  # noqa: E731
        value = float(graph[name].data)
        rows.append((name, value, float(graph[name].grad), float(slope_by_definition(loss, value, 1e-6))))
    check("the gradients equal the slopes by definition", all(abs(row[2] - row[3]) < 1e-8 for row in rows))
    check("the gradient of error is 2 · error, the sum over both uses",
          abs(graph["error"].grad - 2 * graph["error"].data) < 1e-15)
    figure = Picture("foundations_graph.png", draw_graph(
        {name: (float(value.data), float(value.grad)) for name, value in graph.items()}),
        "Values flow right, gradients flow left: each operation multiplies by its own derivative")
    return table("", "value", "gradient", "by definition", rows=rows), figure


@shows(summed_to, Value.receive, Value.__matmul__)
def step_value():
    """Values that hold arrays

    One Value per weight would be slow, so a Value holds a whole array. Where broadcasting stretched a shape,
    one number was used many times, and its gradients are summed. The gradients of a matrix product C = A·B
    are also matrix products. If dA is the gradient of A, then dA = dC·Bᵀ and dB = Aᵀ·dC.
    """
    check_part(Value, value_checks, OURS)


RATES = 0.03, 1.0, 30.0
HIDDEN, STEPS = 32, 600


def by_value(x, labels, *weights, kind: type[Value] = Value):
    """two_layer_backward() with Values: only the forward pass is written."""
    leaves = [kind(weight) for weight in weights]
    logits = two_layer(kind(x), *leaves)
    largest = logits.data.max(axis=1, keepdims=True)
    scores = logits - largest
    of_labels = scores[np.arange(len(x)), labels]
    loss = (scores.exp().sum(axis=1).log() - of_labels).sum() / len(x)
    loss.backward()
    return float(loss.data), tuple(leaf.grad for leaf in leaves)


def descend(gradients: Callable, seed: int, rate: float, steps=STEPS):
    """The loss of every step, and the trained weights."""
    rng = np.random.default_rng(seed)
    x, labels = spirals(rng)
    weights, losses = first_weights(rng, HIDDEN), []
    for _ in range(steps):
        loss, found = gradients(x, labels, *weights)
        weights = [w - rate * gradient for w, gradient in zip(weights, found)]
        losses.append(loss)
    return losses, weights


def right_share(weights: Sequence[np.ndarray], seed: int) -> float:
    """The fraction of 200 new points that get the right class."""
    x, labels = spirals(np.random.default_rng(seed + 10**6))
    return float((two_layer(x, *weights).argmax(axis=1) == labels).mean())


@shows(two_layer_backward)
def step_two_layers():
    """A network of two layers, backward by hand

    The network has two linear layers with a tanh between them; without tanh they equal one. For each input it
    returns two numbers, the logits. Softmax turns these into probabilities: raise e to each and divide by the
    sum. The loss is −log of the probability of the right class, averaged over the batch. The backward pass
    computes the gradients, line by line in reverse order. Worth memorising: the gradient of one input's loss
    with respect to its logits is their softmax, minus 1 at the right class.
    """
    check_part(two_layer_backward, two_layer_checks, OURS)
    rng = np.random.default_rng(torch.initial_seed())
    inputs = *spirals(rng), *first_weights(rng, HIDDEN)
    by_hand, *others = (way(*inputs)[1] for way in (two_layer_backward, by_value, by_pytorch))
    check("on step 8's spirals, gradients by hand, by Value and by PyTorch are equal",
          max(abs(a - b).max() for other in others for a, b in zip(by_hand, other)) < 1e-12)
    x, w1, w2 = random_tensors((6, 4), (4, 5), (5, 3))
    check("without tanh two layers equal one", largest_difference(x @ w1 @ w2, x @ (w1 @ w2)) < 1e-12)


@shows(by_value, descend)
def step_spirals():
    """Learning two spirals

    No straight line separates the two spirals. A network of two layers with 32 hidden units, the numbers
    between its layers, learns them from 200 points. Gradients by hand, by Value and by PyTorch, from the same
    initial weights, give equal loss curves, up to rounding.

    In the left panel the small rate ends with more than ten times the loss of rate 1. The large rate first
    raises the loss far above log 2 = 0.69, the loss of guessing. On the line in the right panel both classes
    are equally likely.
    """
    base = torch.initial_seed()
    by_rate = {f"rate {rate:g}": descend(two_layer_backward, base, rate) for rate in RATES}
    (small, _), (middle, weights), (large, _) = by_rate.values()
    others = [descend(way, base, RATES[1])[0] for way in (by_value, by_pytorch)]
    gap = max(abs(a - b) for other in others for a, b in zip(middle, other))
    check("loss curves by hand, by Value and by PyTorch are equal", gap < 1e-9, f"difference {gap:.0e}")
    shares = [right_share(descend(two_layer_backward, base + more, RATES[1])[1], base + more)
              for more in range(3)]
    check("for three seeds at least 99 % of 200 new points get the right class",
          min(shares) >= 0.99)
    check("the small rate ends with more than ten times the loss of rate 1", small[-1] > 10 * middle[-1])
    check("the large rate first raises the loss above 10", max(large) > 10)
    figure = Picture("foundations_spirals.png", draw_spirals(
        {name: losses for name, (losses, _) in by_rate.items()},
        lambda points: two_layer(points, *weights), *spirals(np.random.default_rng(base))),
        "Two layers separate two spirals: a small rate is slow, a large rate first raises the loss")
    return table("", "highest loss", "last loss", "new points right", rows=[
        (name, max(losses), losses[-1], right_share(learned, base))
        for name, (losses, learned) in by_rate.items()]), figure


def learn_vectors(counts: Tensor, width: int = 8, steps: int = 300, rate: float = 3.0) -> Tensor:
    """(V, width): vectors from which the neighbours can be guessed."""
    vectors = (torch.randn(len(counts), width) / 10).requires_grad_()
    guess = (torch.randn(width, len(counts)) / 10).requires_grad_()
    for _ in range(steps):
        loss = -(counts * F.log_softmax(vectors @ guess, dim=-1)).sum() / counts.sum()
        for weight, gradient in zip((vectors, guess), torch.autograd.grad(loss, (vectors, guess))):
            weight.data -= rate * gradient
    return vectors.detach()


@shows(learn_vectors)
def step_embeddings():
    """From one-hot to embeddings

    Words are numbered, but a number says nothing: word 7 isn't more than word 6. A one-hot vector is zeros
    with a 1 at the word's place: all words are equally far apart. A one-hot row times a matrix picks a row of
    the matrix: the word's vector (embedding). The vectors are learned from 300 made-up sentences (“the big
    horse runs to the garden”): a word's vector has to predict its neighbours. Words that are used in the same
    way have similar neighbours, so they get similar vectors.

    The table says how many of a word's three nearest words share its class (animals, for example). The 48
    neighbour counts per word already show the classes; learning compresses them into 8 numbers. Shuffling
    words within sentences mostly keeps the classes. Shuffling all words removes the neighbours, and the
    classes with them.
    """
    ids, matrix = torch.randint(len(VOCABULARY), (10,)), torch.randn(len(VOCABULARY), 8)
    check("a one-hot row times a matrix equals the matrix's row, bit for bit",
          torch.equal(F.one_hot(ids, len(VOCABULARY)).float() @ matrix, matrix[ids]))
    base, rows = torch.initial_seed(), []
    for seed in range(base, base + 3):
        counts = neighbour_counts(np.random.default_rng(seed))
        vectors = [torch.randn(48, 8), counts[0], *map(learn_vectors, counts)]
        rows.append((seed, *map(same_class, vectors)))
    check("counts and learned vectors: over 90 % of nearest words share the class",
          min(min(row[2:4]) for row in rows) > 0.9)
    check("words shuffled within sentences: over 80 % of nearest words share the class",
          min(row[4] for row in rows) > 0.8)
    check("shuffled words: less than 35 % of nearest words share a class", max(row[5] for row in rows) < 0.35)
    figure = Picture("foundations_embeddings.png", draw_words(
        {"learned": vectors[2][: len(NAMED)], "from shuffled words": vectors[4][: len(NAMED)]}, CLASSES),
        "Words that are used in the same way get similar vectors: classes appear that nobody named")
    return table("seed", "random", "counts", "learned", "shuffled within", "shuffled", rows=[
        (seed, *(f"{share:.0%}" for share in shares)) for seed, *shares in rows]), figure


@shows(RNNCell.forward, LSTMCell.forward, GRUCell.forward)
def step_cells():
    """Reading a sequence: three cells

    A recurrent network reads one token, such as a word, after another, and carries all that it knows in one
    vector, the hidden state. The same cell, with the same weights, runs at every step.

        RNN   its new state is a tanh of input and old state
        LSTM  adds a memory and three gates: input (let in), forget (keep), output (show)
        GRU   has two gates and no separate memory: update (keep) and reset (for the content)

    A gate is a factor from 0 to 1 for each number of the memory, the σ of a sum: σ(x) = 1 / (1 + e⁻ˣ). Each
    gate has its own weights, and so does the content, the new numbers to store. With PyTorch's weights, all
    three match PyTorch.
    """
    check_part(RNNCell, rnn_checks, OURS)
    check_part(LSTMCell, lstm_checks, OURS)
    check_part(GRUCell, gru_checks, OURS)


def layers_until_seen(length: int, spacing: Callable[[int], int]) -> int:
    """How many convolutions of 3 places take the first token to the last output."""
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
    """For comparison: a convolution

    A convolution looks at a few neighbours at once, here a token and the two before it, with the same weights
    everywhere. One layer sees three tokens, and each further layer two more. Dilated layers
    look at tokens 1, 2, 4, 8 … places apart, from layer to layer. The reach roughly doubles each time. A
    recurrent layer reaches every token, in as many steps as there are tokens.
    """
    rows = [(n, layers_until_seen(n, lambda layer: 1), layers_until_seen(n, lambda layer: 2**layer), n)
            for n in (8, 32, 128, 512)]
    check("n tokens need (n − 1) / 2 layers, or log₂((n + 1) / 2) dilated ones, rounded up", all(
        (plain, dilated) == (math.ceil((n - 1) / 2), math.ceil(math.log2((n + 1) / 2)))
        for n, plain, dilated, _ in rows))
    return table("tokens", "layers", "layers, dilated", "steps of a recurrent layer", rows=rows)


WIDTH, BACK, DISTANCES = 16, (1, 4, 16, 64), (4, 8, 16)
OPEN = 3.0  # a bias that opens a gate: σ(3) = 0.95


def changed(cell: nn.Module, forget: float | None = None, recurrent: float = 1.0) -> nn.Module:
    """The cell with the bias of its forget gate set, and its recurrent weights times a factor."""
    with torch.no_grad():
        cell.weight_hh *= recurrent
        if forget is not None:
            cell.bias_ih[WIDTH : 2 * WIDTH], cell.bias_hh[WIDTH : 2 * WIDTH] = forget, 0.0
    return cell


CELLS = {"RNN": partial(RNNCell, INPUTS, WIDTH), "LSTM": partial(LSTMCell, INPUTS, WIDTH),
         "LSTM, open": lambda: changed(LSTMCell(INPUTS, WIDTH), forget=OPEN),
         "GRU": partial(GRUCell, INPUTS, WIDTH)}
OTHERS = {"LSTM, gate only": lambda: changed(LSTMCell(INPUTS, WIDTH), forget=OPEN, recurrent=0.0),
          "RNN, 8 · W_hh": lambda: changed(RNNCell(INPUTS, WIDTH), recurrent=8.0)}


def gradient_back(layer: nn.Module, distance: int) -> float:
    """Size of d(last output) / d(input `distance` steps back); the layer is a cell, or x → outputs."""
    x = torch.randn(1, distance + 1, INPUTS).double().requires_grad_()
    outputs = unroll(layer.double(), x) if isinstance(layer, Cell) else layer.double()(x)
    each_number = torch.eye(outputs.shape[-1]).double()
    (slopes,) = torch.autograd.grad(outputs[0, -1], x, each_number, is_grads_batched=True)
    return slopes[:, 0, 0].norm().item()


def way_back(layers: Mapping[str, Callable], distances: Sequence[int]) -> dict[str, list[float]]:
    """gradient_back() at each distance, the mean of 5 new layers; layers: name → factory."""
    def reach(make):
        return [sum(gradient_back(make(), n) for _ in range(5)) / 5 for n in distances]

    return dict(zip(layers, side_by_side([partial(reach, make) for make in layers.values()],
                                         optimisers=False)))


@shows(gradient_back)
def step_way_back():
    """The gradient's long way back

    A recurrent network learns from a token n steps back only through the gradient that reaches that token.
    This gradient passes through n steps, and each scales it. The table shows what arrives in untrained
    cells.

    The LSTM starts with its forget gate half open: each step keeps about half of its memory. In “LSTM, open”
    only that gate's bias differs: the gate starts at σ(3) = 0.95. Far more gradient arrives, and it fades
    more slowly than 0.95ⁿ. The excess comes through the hidden state: with recurrent weights of 0 (“gate
    only”) less arrives.

    The last row is the opposite: with recurrent weights 8 times as large the gradient explodes. Clipping
    helps: a gradient that is too long is shortened but keeps its direction. If the gradient vanishes,
    clipping does nothing.
    """
    reach = way_back(CELLS | OTHERS, BACK)
    rnn, lstm, opened, gru, gate, large = reach.values()
    check("RNN, LSTM, GRU: the gradient from 64 steps back is under a millionth of that from 1",
          all(norms[3] < 1e-6 * norms[0] for norms in (rnn, lstm, gru)))
    check("open LSTM: 64 steps back the gradient is over a million times that of RNN, LSTM and GRU",
          opened[3] > 1e6 * max(rnn[3], lstm[3], gru[3]))
    kept = (gate[3] / gate[2]) ** (1 / 48)
    check("gate only: one step keeps 0.93 to 0.97 of the gradient", 0.93 < kept < 0.97, f"{kept:.3f}")
    check("open LSTM: 64 steps back the gradient is over 3 times that of gate only", opened[3] > 3 * gate[3])
    check("weights 8 times as large: the gradient from 64 steps back is over 10 times that from 1",
          large[3] > 10 * large[0])
    return table("gradient from", *(f"{n} back" for n in BACK),
                 rows=[(name, *(f"{norm:.0e}" for norm in norms)) for name, norms in reach.items()])


def step_delayed_answer():
    """Which networks remember?

    One of four symbols comes n steps before the end, among noise of four other symbols. Which one was it?
    Guessing is right 25 % of the time. For each n, five networks of each kind train on 150 batches of 16 at
    rate 0.03. Four kinds read with a cell. The fifth is one attention (lesson 1): the last token looks at all
    tokens at once, each with a learned vector for its place.

    At n = 16 the LSTM hardly does better than guessing. The open LSTM differs only in how its forget gate
    starts, and it learns. So the first LSTM lacked a gate that keeps. But a weak gradient doesn't explain
    everything: in the RNN and the GRU it is just as weak, yet they learn more. Attention reaches every place
    in one step, and also learns what is far back. Some runs get stuck.
    """
    right = accuracies(CELLS, unroll, WIDTH, DISTANCES)  # (distance, model) for each kind
    check("at n = 4 all networks with a cell are over 95 % accurate",
          min(right[name][0].min() for name in CELLS) > 0.95)
    rnn, lstm, opened, gru, attention = (found[2].mean() for found in right.values())
    check("at n = 16 the LSTM's accuracy is below 45 %, the open LSTM's is above 60 %",
          lstm < 0.45 and opened > 0.6)
    check("at n = 16 RNN, GRU and attention are ahead of the LSTM by more than 20 points",
          min(rnn, gru, attention) > lstm + 0.2)
    figure = Picture("foundations_memory.png", draw_memory(DISTANCES, right),
                     "With its forget gate open an LSTM learns what is far back")
    return table("right at n =", *map(str, DISTANCES), rows=[
        (name, *(f"{share:.0%}" for share in found.mean(1))) for name, found in right.items()]), figure


@shows(never_reset)
def step_broken_on_purpose():
    """Broken on purpose

    The first table shows 100 training steps on the spirals of step 8, with each of four mistakes. Three of
    the four networks still learn the spirals. Gradients that are never reset keep pushing in the old
    direction, which does no harm here. A gradient that isn't summed over the batch turns the 32 numbers of b₁
    into a table of 200 × 32; the first batch of another size then raises an error. Walking the graph in the
    wrong order happens to be harmless here.

    So a falling loss is no test of a gradient. Compare with numbers that are known to be right: the second
    table says which check each mistake fails (left out: 12 mistakes in recurrent cells).
    """
    base, mistakes = torch.initial_seed(), value_checks.mistakes(OURS)
    names = "not summed over a broadcast axis", "walked in the wrong order", "overwritten"
    ways = {"right": by_value, "never reset": never_reset(by_value)}
    ways |= {name: partial(by_value, kind=mistakes[name].implementation) for name in names}
    learned = {name: descend(way, base, RATES[1], 100) for name, way in ways.items()}
    shares = [right_share(weights, base) for _, weights in learned.values()]
    check("with three of the mistakes 95 % of new points still get the right class",
          min(shares[:4]) >= 0.95 > shares[4])
    loud = refused(lambda: two_layer(np.zeros((50, 2)), *learned[names[0]][1]), "(50,32)", "(200,32)")
    check("unsummed gradient: b₁ becomes a table of 200 × 32, and a batch of 50 raises an error", loud.holds)
    check_mistakes(OURS, rnn_checks, lstm_checks, gru_checks)
    return (table("mistake", "last loss", "new points right", "numbers in b₁", rows=[
        (name, losses[-1], f"{share:.1%}", weights[1].size)
        for (name, (losses, weights)), share in zip(learned.items(), shares)]),
        check_mistakes(OURS, broadcast_checks, value_checks, two_layer_checks))


def step_what_next():
    """What now?

    Lesson 1's question: between a word and the answer there are n steps, and each can lose the word. Could
    the last step look at the first directly?

    Read: Value, then checks/differentiation.py.

    Change: (1) in Value.relu, (self.data > 0) to 1.0: one check of step 6 fails and names the operation. (2)
    HIDDEN to 2: two hidden units don't separate the spirals. Checks of step 8 fail, even the one on the
    curves, because rounding errors grow. (3) OPEN to 0.0: the gate is half open, and checks of steps 12 and
    13 fail.

    Write it yourself: python 00_foundations.py --template my_foundations.py, fill in the file, then the same
    command with --grade. Next: python 01_attention_mechanism.py.
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

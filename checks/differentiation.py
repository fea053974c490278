"""What must hold for lesson 0's broadcast_shapes, Value and two_layer_backward."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from course.console.records import Finding
from course.grading.checking import Mistake, Part, agree, at, random_tensors, refused, together

# ------------------------------------------------------------------ broadcast_shapes(*shapes)


PAIRS = [((2, 3), (2, 3)), ((3, 1), (4,)), ((4, 1, 3), (2, 1)), ((5,), ()), ((1,), (7, 1, 1)), ((2, 2), (2,))]


def agree_with_numpy(implementation, shapes) -> Finding:
    """Finding: the shape is the one that NumPy gives. A refusal also counts as a shape: a wrong one."""
    try:
        found = implementation(*shapes)
    except ValueError:
        found = (-1,)
    if not isinstance(found, tuple):
        return Finding(False, f"a {type(found).__name__} came back, not a tuple")
    expected = np.broadcast_shapes(*shapes)
    finding = agree(torch.tensor(found, dtype=torch.float64), torch.tensor(expected, dtype=torch.float64), 0)
    figure = "" if finding.holds else f"{' and '.join(map(str, shapes))}: " + (
        "refused" if found == (-1,) else str(found)) + f", NumPy says {expected}"
    return finding._replace(figure=figure, gap=None)


def pairs_like_numpy(implementation, ours):
    """Two shapes that fit, aligned right, give NumPy's answer."""
    return together(*(agree_with_numpy(implementation, pair) for pair in PAIRS))


def sizes_of_zero(implementation, ours):
    """A size of 0 is treated like other sizes: 1 is stretched to 0."""
    return together(*(agree_with_numpy(implementation, pair) for pair in [((0,), (1,)), ((3, 1), (1, 0))]))


def any_number_of_shapes(implementation, ours):
    """Three shapes, one shape and no shape give NumPy's answer."""
    several = [((2, 1, 1), (3, 1), (4,)), ((2, 3),), ()]
    return together(*(agree_with_numpy(implementation, shapes) for shapes in several))


def refuses_shapes(implementation, ours):
    """Shapes that don't fit are refused with a ValueError that names them all."""
    wrong = [((2, 3), (3, 2)), ((3,), (4,)), ((2, 1), (1, 3), (2, 2)), ((0,), (2,))]
    return together(*(at(" and ".join(map(str, shapes)),
                         refused(lambda shapes=shapes: implementation(*shapes), *shapes))
                      for shapes in wrong))


def broadcast_mistakes(ours):
    def aligned_left(*shapes):
        rank = max(map(len, shapes), default=0)
        return ours.broadcast_shapes(*(tuple(shape) + (1,) * (rank - len(shape)) for shape in shapes))

    def largest(*shapes):
        rank = max(map(len, shapes), default=0)
        padded = [(1,) * (rank - len(shape)) + tuple(shape) for shape in shapes]
        return tuple(map(max, zip(*padded)))

    def two_alone(*shapes):
        return ours.broadcast_shapes(*shapes[:2])

    return {
        "aligned left": Mistake("the shapes are aligned left: put the 1s in front of the shorter one",
                                aligned_left, "Two shapes"),
        "the largest size": Mistake("the largest size is taken: sizes other than 1 must be equal, and 0 is "
                                    "such a size", largest, "A size of 0"),
        "only two shapes": Mistake("only two of the shapes are used", two_alone, "Three shapes"),
    }


broadcast_checks = Part(
    [pairs_like_numpy, sizes_of_zero, any_number_of_shapes, refuses_shapes], broadcast_mistakes,
)


# ------------------------------------------------------------------ Value(data)


A, B, ROW, COLUMN, WEIGHTS = random_tensors((3, 4), (3, 4), (4,), (3, 1), (3, 4))


def tensor(array) -> Tensor:
    """A NumPy array, or a number, as a tensor."""
    return torch.as_tensor(np.asarray(array, dtype=np.float64))


def compare(implementation, expression: Callable, *inputs: Tensor, backwards: int = 1) -> Finding:
    """Finding: an expression of Values has PyTorch's value and, after backward(), PyTorch's gradients."""
    values = [implementation(x.numpy().copy()) for x in inputs]
    leaves = [x.clone().requires_grad_() for x in inputs]
    result, expected = expression(*values), expression(*leaves)
    findings = [agree(tensor(result.data), expected.detach(), 1e-12)]
    for _ in range(backwards):
        result.backward()
        expected.backward(retain_graph=True)
    findings += [at(f"gradient {number}", agree(tensor(value.grad), leaf.grad))
                 for number, (value, leaf) in enumerate(zip(values, leaves))]
    return together(*findings)


def each(implementation, expressions: dict[str, Callable], *inputs: Tensor) -> Finding:
    """Finding: every expression agrees."""
    return together(*(at(name, compare(implementation, expression, *inputs))
                      for name, expression in expressions.items()))


def sums_and_products(implementation, ours):
    """Sums and products of equal shapes have PyTorch's values and gradients."""
    return each(implementation, {"(a + b).sum()": lambda a, b: (a + b).sum(),
                                 "(a * b).sum()": lambda a, b: (a * b).sum()}, A, B)


def stretched_shapes(implementation, ours):
    """Where broadcasting stretched a shape, the gradient is summed back to that shape."""
    row = compare(implementation, lambda a, row: ((a + row) * row).sum(), A, ROW)
    column = compare(implementation, lambda a, column: (column * a + column).sum(), A, COLUMN)
    one = compare(implementation, lambda a, one: (a * one).sum(), A, torch.tensor(2.0).double())
    return together(at("a row", row), at("a column", column), at("a number", one))


def used_several_times(implementation, ours):
    """A value that is used several times gets the sum of the gradients of all uses."""
    return each(implementation, {"(a * a).sum()": lambda a, b: (a * a + 0.0 * b).sum(),
                                 "(a + a * b).sum()": lambda a, b: (a + a * b).sum()}, A, B)


def long_and_short_way(implementation, ours):
    """An inner value with a short and a long path to the loss waits for both gradients."""

    def expression(a, b):
        inner = a * b
        return (inner + (inner * b + a) * inner * b).sum()

    return compare(implementation, expression, A, B)


def every_operation(implementation, ours):
    """@, **, exp, log, tanh, relu, sums along axes, and indexing have PyTorch's values and gradients."""
    return each(implementation, {
        "@": lambda a, b: (a[:, :3] @ b).sum(),
        "**": lambda a, b: (a**3 + (b * b + 1.0) ** -0.5).sum(),
        "exp": lambda a, b: (a.exp() * b).sum(),
        "log": lambda a, b: ((a * a + 1.0).log() * b).sum(),
        "tanh": lambda a, b: (a.tanh() * b).sum(),
        "relu": lambda a, b: (a.relu() * b).sum(),
        "sum": lambda a, b: (a.sum(axis=0) * b + a.sum(axis=1, keepdims=True) * b).sum(),
        "[]": lambda a, b: (a[1] * b + a[[0, 1, 2]] * b + a[0, 3]).sum(),
        "- and /": lambda a, b: ((a - b) / (b * b + 1.0) - 2.0 * -a).sum(),
    }, A, B)


def entries_taken_twice(implementation, ours):
    """An entry that is taken several times gets the sum of its gradients."""
    return each(implementation, {"a[[0, 0, 2]]": lambda a, b: (a[[0, 0, 2]] * b).sum(),
                                 "a[[1, 1], [3, 3]]": lambda a, b: (a[[1, 1], [3, 3]] * b[0, 1:3]).sum()},
                A, B)


def computes_in_float64(implementation, ours):
    """Whole numbers and float32 are converted to float64."""
    findings = []
    for name, kind in (("whole numbers", np.int64), ("float32", np.float32)):
        value = implementation(np.array([1, 2, 3], dtype=kind))
        result = (value**-1 * 0.1).sum()
        result.backward()
        x = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
        findings.append(at(name, together(agree(tensor(result.data), (0.1 / x).sum(), 1e-14),
                                          agree(tensor(value.grad), -0.1 / x**2, 1e-14))))
    return together(*findings)


def many_products(implementation, ours):
    """If a batch is multiplied by one matrix, the matrix gets the sum of the gradients."""
    batch, matrix = random_tensors((2, 5, 3), (3, 4), seed=1)
    return compare(implementation, lambda x, w: (x @ w).tanh().sum(), batch, matrix)


def second_backward(implementation, ours):
    """A second backward() adds to the gradients of the inputs, and restarts the inner ones at 0."""
    return compare(implementation, lambda a, b: ((a * b).tanh() * a).sum(), A, B, backwards=2)


def refuses_misfits(implementation, ours):
    """A product that doesn't fit, and backward() from many numbers, raise a ValueError with the shapes."""
    a, column = implementation(A.numpy()), implementation(COLUMN.numpy())
    return together(refused(lambda: a @ column, "(3, 4)", "(3, 1)"), refused((a + a).backward, "(3, 4)"))


def value_mistakes(ours):
    class NotSummed(ours.Value):
        def receive(self, gradient):
            self.grad = self.grad + gradient

    class Overwritten(ours.Value):
        def receive(self, gradient):
            self.grad = ours.summed_to(self.data.shape, gradient)

    class NearestFirst(ours.Value):
        def history(self):
            order, waiting = [], [self]
            while waiting:  # breadth first from the result
                value = waiting.pop(0)
                if value not in order:
                    order.append(value)
                    waiting += value.parents
            return order[::-1]

    class InnerKept(ours.Value):
        def backward(self):
            self.receive(np.ones_like(self.data))
            for value in reversed(self.history()):
                passed = value.pass_back(value.grad) if value.parents else ()
                for parent, gradient in zip(value.parents, passed):
                    parent.receive(gradient)

    class InputsReset(ours.Value):
        def backward(self):
            for value in self.history():
                value.grad = np.zeros_like(value.data)
            super().backward()

    class LastEntry(ours.Value):
        def __getitem__(self, index):
            def pass_back(grad):
                whole = np.zeros_like(self.data)
                whole[index] = grad
                return (whole,)

            return type(self)(self.data[index], (self,), pass_back)

    class KeepsType(ours.Value):
        def __init__(self, data, parents=(), pass_back=None):
            super().__init__(data, parents, pass_back)
            self.data = np.asarray(data)
            self.data = self.data if self.data.dtype.kind == "f" else self.data.astype(np.float32)

    class OwnFactor(ours.Value):
        def __mul__(self, other):
            other = self.lift(other)
            return type(self)(self.data * other.data, (self, other),
                              lambda grad: (grad * self.data, grad * other.data))

    return {
        "not summed over a broadcast axis": Mistake(
            "the gradient isn't summed over the axes that broadcasting stretched", NotSummed,
            "Where broadcasting"),
        "overwritten": Mistake("a gradient is overwritten by the next: add them up", Overwritten,
                               "A value that"),
        "walked in the wrong order": Mistake(
            "a value passes its gradient on before all of it has arrived: walk back so that each value "
            "comes after all values that use it", NearestFirst, "An inner value"),
        "inner gradients kept": Mistake("the inner gradients still hold those of the first backward(): "
                                        "start them from 0", InnerKept, "A second backward()"),
        "inputs reset": Mistake("backward() resets the inputs' gradients: it should add to them", InputsReset,
                                "A second backward()"),
        "whole[index] = grad": Mistake(
            "if an entry is taken twice, whole[index] = grad keeps only the last gradient: np.add.at "
            "adds them up", LastEntry, "An entry that"),
        "a type other than float64": Mistake(
            "the array isn't made float64: np.asarray(data, dtype=np.float64)", KeepsType, "Whole numbers"),
        "the wrong factor": Mistake("in a product the gradient of each factor is multiplied by the other",
                                    OwnFactor, "Sums and"),
    }


value_checks = Part(
    [sums_and_products, stretched_shapes, used_several_times, long_and_short_way, every_operation,
     entries_taken_twice, many_products, second_backward, computes_in_float64, refuses_misfits],
    value_mistakes,
    needs="The checks use data, grad and backward(), and compute with Values and numbers.",
    helpers=("history",),
    given=("lift", "__pow__", "exp", "log", "relu", "sum", "__getitem__", "__neg__", "__sub__", "__truediv__",
           "__radd__", "__rmul__"),
)


# ------------------------------------------------------------------ two_layer_backward(x, labels, …)


X, W1, B1, W2, B2 = random_tensors((6, 2), (2, 5), (5,), (5, 3), (3,))
LABELS = torch.tensor([0, 2, 1, 1, 0, 2])
NAMES = "w1", "b1", "w2", "b2"


def by_pytorch(x, labels, *weights):
    """The loss and the gradients of two layers by PyTorch, from arrays and as arrays."""
    leaves = [torch.tensor(weight, requires_grad=True) for weight in weights]
    w1, b1, w2, b2 = leaves
    logits = torch.tanh(torch.from_numpy(x) @ w1 + b1) @ w2 + b2
    loss = F.cross_entropy(logits, torch.from_numpy(labels))
    return loss.item(), tuple(gradient.numpy() for gradient in torch.autograd.grad(loss, leaves))


def both(implementation) -> tuple:
    """The implementation's loss and gradients, and PyTorch's."""
    arrays = [x.numpy() for x in (X, LABELS, W1, B1, W2, B2)]
    return implementation(*(array.copy() for array in arrays)), by_pytorch(*arrays)


def loss_of_two_layers(implementation, ours):
    """The loss equals PyTorch's cross-entropy."""
    found, (loss, _) = both(implementation)
    return agree(tensor(found[0]), tensor(loss), 1e-12)


def gradients_of(*places: int) -> Callable:
    def claim(implementation, ours):
        (_, found), (_, expected) = both(implementation)
        return together(*(at(NAMES[place], agree(tensor(found[place]), tensor(expected[place])))
                          for place in places))

    return claim


last_layer, first_layer = gradients_of(2, 3), gradients_of(0, 1)
last_layer.__doc__ = "The gradients of the last layer, w2 and b2, equal PyTorch's."
first_layer.__doc__ = "The gradients of the first layer, w1 and b1, equal PyTorch's."


def large_logits(implementation, ours):
    """Logits in the thousands do not overflow."""
    found = implementation(X.numpy(), LABELS.numpy(), W1.numpy(), B1.numpy(), 1e4 * W2.numpy(), B2.numpy())
    logits = torch.tanh(X @ W1 + B1) @ (1e4 * W2) + B2
    shares = torch.softmax(logits, -1) - F.one_hot(LABELS, 3)
    return agree(tensor(found[1][3]), shares.sum(0) / len(X), 1e-9)


def never_reset(gradients: Callable) -> Callable:
    """Like `gradients`, but every call returns the sum of its own and all earlier gradients."""
    arrived: list = []

    def added_up(*inputs):
        loss, found = gradients(*inputs)
        arrived[:] = [old + new for old, new in zip(arrived, found)] if arrived else found
        return loss, tuple(arrived)

    return added_up


def two_layer_mistakes(ours):
    def scaled(x, labels, *weights):
        loss, gradients = ours.two_layer_backward(x, labels, *weights)
        return loss, tuple(len(x) * gradient for gradient in gradients)

    def through(derivative):
        def backward(x, labels, w1, b1, w2, b2):
            loss, (_, _, d_w2, d_b2) = ours.two_layer_backward(x, labels, w1, b1, w2, b2)
            hidden = np.tanh(x @ w1 + b1)
            d_logits = softmax(hidden @ w2 + b2)
            d_logits[np.arange(len(x)), labels] -= 1
            d_sums = d_logits / len(x) @ w2.T * derivative(hidden)
            return loss, (x.T @ d_sums, d_sums.sum(0), d_w2, d_b2)

        return backward

    def softmax(logits):
        exponentials = np.exp(logits - logits.max(1, keepdims=True))
        return exponentials / exponentials.sum(1, keepdims=True)

    def labels_left_out(x, labels, w1, b1, w2, b2):
        loss, gradients = ours.two_layer_backward(x, labels, w1, b1, w2, b2)
        hidden = np.tanh(x @ w1 + b1)
        d_logits = softmax(hidden @ w2 + b2) / len(x)
        return loss, (*gradients[:2], hidden.T @ d_logits, d_logits.sum(0))

    def bias_mean(x, labels, *weights):
        loss, (d_w1, d_b1, d_w2, d_b2) = ours.two_layer_backward(x, labels, *weights)
        return loss, (d_w1, d_b1 / len(x), d_w2, d_b2 / len(x))

    last = "The gradients of the last"
    return {
        "not divided by the batch": Mistake("the gradients are not divided by the number of rows: the loss "
                                            "is a mean", scaled, last),
        "labels left out": Mistake("the gradient of the logits is softmax − 1 at the label: the 1 is missing",
                                   labels_left_out, last),
        "tanh passed as if it weren't there": Mistake("going back through tanh multiplies by 1 − tanh²",
                                                      through(np.ones_like), "The gradients of the first"),
        "tanh taken twice": Mistake("`hidden` is already a tanh: 1 − hidden², not 1 − tanh(hidden)²",
                                    through(lambda hidden: 1 - np.tanh(hidden) ** 2),
                                    "The gradients of the first"),
        "bias averaged": Mistake("a bias is added to every row: its gradient is the sum over the rows",
                                 bias_mean, last),
    }


two_layer_checks = Part(
    [loss_of_two_layers, last_layer, first_layer, large_logits], two_layer_mistakes,
)

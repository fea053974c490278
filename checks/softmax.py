"""What must hold for lesson 1's softmax(scores, dim=-1)."""

import math

import torch
from torch import Tensor

from course.console.records import Finding
from course.grading.checking import Mistake, Part, agree, at, gradients, random_tensors, together

(SCORES,) = random_tensors((2, 3, 5))


def unchanged(call, tensors: list[Tensor]) -> Finding:
    """Finding: after the call the tensors are what they were."""
    before = [tensor.clone() for tensor in tensors]
    call(*tensors)
    places = [number for number, (now, then) in enumerate(zip(tensors, before)) if not torch.equal(now, then)]
    return Finding(not places, "", "an operation that ends in _ (or +=, /=) writes into what was given")


def sums_to_one(softmax, ours):
    """The weights sum to 1 along the chosen dimension."""
    return together(*(agree(softmax(SCORES.clone(), dim=dim).sum(dim),
                            torch.ones(2, 3, 5).sum(dim) / SCORES.shape[dim], 1e-12) for dim in (1, 0, -1)))


def softmax_equals_pytorch(softmax, ours):
    """It equals torch.softmax, along every dimension, and doesn't change the scores."""
    found = [agree(softmax(SCORES.clone()), torch.softmax(SCORES, -1), 1e-12, axes="batch, row, column")]
    found += [at(f"dim={dim}", agree(softmax(SCORES.clone(), dim=dim), torch.softmax(SCORES, dim), 1e-12,
                                     axes="batch, row, column")) for dim in (0, 1, -2)]
    return together(*found, unchanged(softmax, [SCORES.clone()]))


def survives_large_scores(softmax, ours):
    """Rows around 1,000, 0 and −1,000 (float32), and 100 and −100 (float16), neither overflow nor vanish."""
    rows = torch.tensor([[1.0, 0.0, -99.0]]).expand(3, 3)
    level = torch.tensor([[1.0], [0.0], [-1.0]])
    large = rows + 1000 * level, (rows + 100 * level).half()
    found = torch.stack([softmax(scores).double() for scores in large])
    expected = torch.softmax(rows.double(), -1).expand(2, 3, 3)
    return agree(found, expected, 1e-3, axes="type, row, column")._replace(gap=None)  # float16: three digits


def survives_hidden_rows(softmax, ours):
    """A row that is all −∞ gets weights 0; the other rows don't change."""
    hidden = SCORES.masked_fill(torch.arange(3)[:, None] == 1, -math.inf)
    hidden[:, 0, :2] = -math.inf  # in part
    expected = torch.softmax(hidden, -1).nan_to_num(0.0)
    whole = SCORES.index_fill(0, torch.tensor(0), -math.inf).index_fill(2, torch.tensor(3), -math.inf)
    rows = agree(softmax(hidden.clone()), expected, 1e-12, axes="batch, row, column")
    exact = agree(softmax(hidden.clone())[:, 1], torch.zeros(2, 5), 0, axes="batch, column")
    along = agree(softmax(whole, dim=1), torch.softmax(whole, 1).nan_to_num(0.0), 1e-12,
                  axes="batch, row, column")
    return together(exact, rows, along)


def softmax_passes_gradients(softmax, ours):
    """The gradient equals that of torch.softmax."""
    leaf = SCORES.clone().requires_grad_()
    found = softmax(leaf).sin().sum()
    return agree(gradients(found, [leaf]), gradients(torch.softmax(leaf, -1).sin().sum(), [leaf]))


def softmax_mistakes(ours):
    def naive(scores, dim=-1):
        return scores.exp() / scores.exp().sum(dim, keepdim=True)

    def dim_ignored(scores, dim=-1):
        return ours.softmax(scores)

    def undefined_where_hidden(scores, dim=-1):
        return torch.softmax(scores, dim)

    def another_maximum(scores, dim=-1):
        exponentials = torch.exp(scores - scores.amax(-1, keepdim=True))
        return exponentials / exponentials.sum(dim, keepdim=True)

    def one_maximum(scores, dim=-1):
        exponentials = torch.exp(scores - scores.max())
        return exponentials / exponentials.sum(dim, keepdim=True)

    return {
        "naive": Mistake("subtract the largest score before exp()", naive, "Rows around 1,000"),
        "one maximum": Mistake("each row needs its own maximum: amax(dim, keepdim=True), not max()",
                               one_maximum, "Rows around 1,000"),
        "dim ignored": Mistake("dim is ignored: use it for the maximum and the sum", dim_ignored,
                               "The weights sum to 1"),
        "dim half ignored": Mistake("the maximum must run along dim, like the sum", another_maximum,
                                    "It equals torch.softmax"),
        "0/0": Mistake("0/0 in a hidden row: make its weights 0", undefined_where_hidden,
                       "A row that is all −∞"),
    }


softmax_checks = Part(
    [sums_to_one, softmax_equals_pytorch, survives_large_scores, survives_hidden_rows,
     softmax_passes_gradients],
    softmax_mistakes,
)

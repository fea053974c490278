"""What must hold for lesson 1's two masks."""

import torch

from course.console.records import Finding
from course.grading.checking import Mistake, Part, agree, together
from course.grading.differing import where

TOKENS = torch.tensor([[5, 6, 7, 0], [5, 0, 0, 0]])
FILLED_BEFORE = torch.tensor([[7, 7, 4], [7, 2, 7], [3, 7, 5]])  # 7 fills; lengths alone tell nothing here
SQUARE, FOR_HEADS = "query, key", "batch, head, query, key"


def boolean(mask, expected, axes):
    """Finding: the mask is boolean and equals the expected one."""
    if not isinstance(mask, torch.Tensor):
        return agree(mask, expected)
    if mask.dtype != torch.bool:
        return Finding(False, f"dtype {mask.dtype}", "make it boolean")
    said = []
    for value in (True, False) if mask.shape == expected.shape else ():
        wrong = (mask == value) & (expected != value)
        said += [f"{value} instead of {not value} {where(wrong, axes)}"] if wrong.any() else []
    return agree(mask.int(), expected.int(), 0, "; ".join(said), axes)


# ------------------------------------------------------------------ causal_mask(length)


def looks_back_only(causal_mask, ours):
    """The mask is boolean, and position i may attend to j exactly where j ≤ i, for every length."""
    squares = {n: torch.tensor([[j <= i for j in range(n)] for i in range(n)]) for n in (5, 1, 8)}
    return together(*(boolean(causal_mask(n), expected, SQUARE) for n, expected in squares.items()))


def causal_mistakes(ours):
    back = "The mask is boolean, and position i may attend"
    return {
        "reversed": Mistake("it is reversed: True means may attend", lambda n: ~ours.causal_mask(n), back),
        "diagonal missing": Mistake("the diagonal is missing: a position may see itself",
                                    lambda n: ours.causal_mask(n).tril(-1), back),
        "one too many": Mistake("each position sees one too many: the diagonal is the last it may see",
                                lambda n: torch.ones(n, n, dtype=torch.bool).tril(1), back),
        "transposed": Mistake("it is transposed: rows are queries, columns are keys",
                              lambda n: ours.causal_mask(n).T, back),
    }


causal_mask_checks = Part(
    [looks_back_only], causal_mistakes,
)


# ------------------------------------------------------------------ padding_mask(tokens, pad_id=0)


def hides_padding(padding_mask, ours):
    """The mask is boolean (B, 1, 1, S): True for real tokens, False for padding, by default id 0."""
    expected = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]])[:, None, None]
    return together(boolean(padding_mask(TOKENS.clone(), 0), expected, FOR_HEADS),
                    boolean(padding_mask(TOKENS.clone()), expected, FOR_HEADS))


def honours_pad_id(padding_mask, ours):
    """Another pad_id is also hidden, wherever it occurs."""
    return together(*(boolean(padding_mask(tokens.clone(), 7), (tokens != 7)[:, None, None], FOR_HEADS)
                      for tokens in (TOKENS, FILLED_BEFORE)))


def padding_mistakes(ours):
    mask, shape = ours.padding_mask, "The mask is boolean (B, 1, 1, S)"

    def by_length(tokens, pad_id=0):
        lengths = (tokens != pad_id).sum(1, keepdim=True)
        return (torch.arange(tokens.shape[1]) < lengths)[:, None, None]

    return {
        "reversed": Mistake("it is reversed: True means may attend",
                            lambda tokens, pad_id=0: ~mask(tokens, pad_id), shape),
        "two dimensions": Mistake("add two dimensions, for heads and queries",
                                  lambda tokens, pad_id=0: mask(tokens, pad_id)[:, 0, 0], shape),
        "three dimensions": Mistake("(B, 1, S) has one dimension too few: add one each for heads and queries",
                                    lambda tokens, pad_id=0: mask(tokens, pad_id)[:, 0], shape),
        "queries hidden": Mistake("hide the padding as a key (last axis), not as a query",
                                  lambda tokens, pad_id=0: mask(tokens, pad_id).mT, shape),
        "pad_id ignored": Mistake("pad_id is ignored", lambda tokens, pad_id=0: mask(tokens, 0),
                                  "Another pad_id"),
        "behind the last": Mistake("padding may occur anywhere: look at each token, not at lengths",
                                   by_length, "Another pad_id"),
    }


padding_mask_checks = Part(
    [hides_padding, honours_pad_id], padding_mistakes,
)

"""Lesson 0's test of memory: which symbol came n steps back? Trains many small networks at once."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course.training.side_by_side import side_by_side
from course.training.stacked import train_stacked

SYMBOLS, LENGTH = 4, 18
INPUTS = 2 * SYMBOLS  # the symbols, and equally many noise symbols
MODELS = 5  # networks of each kind and distance


class Reader(nn.Module):
    """Reads tokens with a cell, which `unroll` runs, and answers from the last hidden state."""

    def __init__(self, make_cell: Callable[[], nn.Module], unroll: Callable):
        super().__init__()
        self.cell, self.unroll = make_cell(), unroll
        width = self.cell.weight_hh.shape[-1]
        self.answer = nn.Parameter(torch.randn(width, SYMBOLS) / math.sqrt(width))

    def forward(self, x: Tensor) -> Tensor:
        """One-hot tokens (B, L, 8) → logits (B, 4)."""
        return self.unroll(self.cell, x)[..., -1, :] @ self.answer


class OneAttention(nn.Module):
    """The last token attends to all tokens, and the answer is read from the weighted mean (lesson 1)."""

    def __init__(self, width: int):
        super().__init__()
        self.tokens = nn.Parameter(torch.randn(INPUTS, width))
        self.places = nn.Parameter(torch.randn(LENGTH, width))
        for name in ("query", "key", "value"):
            setattr(self, name, nn.Parameter(torch.randn(width, width) / math.sqrt(width)))
        self.answer = nn.Parameter(torch.randn(width, SYMBOLS) / math.sqrt(width))

    def forward(self, x: Tensor) -> Tensor:
        """One-hot tokens (B, L, 8) → logits (B, 4)."""
        x = x @ self.tokens + self.places
        query, keys, values = x[..., -1:, :] @ self.query, x @ self.key, x @ self.value
        found = F.scaled_dot_product_attention(query, keys, values)
        return found[..., 0, :] @ self.answer


def delayed_task(distances: Tensor, batch: int) -> tuple[Tensor, Tensor]:
    """One-hot sequences (M, B, 18, 8), and the answers (M, B): the symbol that comes n steps before the end.

    Row m has its own distance n. All other tokens are noise, of four symbols that are never asked for.
    """
    models = len(distances)
    tokens = torch.randint(SYMBOLS, INPUTS, (models, batch, LENGTH))
    wanted = torch.randint(SYMBOLS, (models, batch))
    tokens[torch.arange(models), :, LENGTH - 1 - distances] = wanted
    return F.one_hot(tokens, INPUTS).float(), wanted


def accuracy(makers: Sequence[Callable[[], nn.Module]], distances: Sequence[int]) -> Tensor:
    """(kind, distance, model): how often networks are right at the distance they were trained for.

    Each kind and distance has MODELS networks, which differ in their initial weights and their batches.
    """
    rows = torch.tensor(distances).repeat_interleave(MODELS).repeat(len(makers))
    networks = [make() for make in makers for _ in range(len(distances) * MODELS)]
    trained = train_stacked(networks, lambda: delayed_task(rows, 16), steps=150, rate=0.03)
    x, wanted = delayed_task(rows, 250)
    right = (trained(x).argmax(-1) == wanted).float().mean(1)
    return right.unflatten(0, (len(makers), len(distances), MODELS))


def accuracies(cells: Mapping[str, Callable[[], nn.Module]], unroll: Callable, width: int,
               distances: Sequence[int]) -> dict[str, Tensor]:
    """accuracy() (distance, model) for each cell, which `unroll` runs, and for one attention.

    Networks of one shape are trained as one stack, and the stacks side by side.
    """
    makers = {name: partial(Reader, make, unroll) for name, make in cells.items()}
    makers["attention"] = partial(OneAttention, width)
    stacks: dict[tuple, list[str]] = {}
    for name, make in makers.items():
        stacks.setdefault(tuple(parameter.shape for parameter in make().parameters()), []).append(name)
    largest_first = sorted(stacks.values(), key=len, reverse=True)
    jobs = [partial(accuracy, [makers[name] for name in names], distances) for names in largest_first]
    found = {name: right for names, kinds in zip(largest_first, side_by_side(jobs, optimisers=False))
             for name, right in zip(names, kinds)}
    return {name: found[name] for name in makers}

"""A table that stands in for a model, all its answers one by one, and a test of draws from it."""

import torch
from torch import Tensor

from common import lesson
from course.checking import random_tensors

EOS = lesson("03_positional_encoding").EOS

DRAWS = 20_000  # for every chi-square test


class TreeDecoding:
    """Stands in for a Transformer: the logits after every possible beginning are in a table.

    levels[t] is (B, Vᵗ, V): for each source the logits after t tokens, the tokens read as digits of a
    number with base V.
    """

    def __init__(self, levels: list[Tensor]):
        self.levels, self.position = levels, 0
        self.rows, self.device = len(levels[0]), levels[0].device
        self.sources = torch.arange(self.rows)
        self.places = torch.zeros(self.rows, dtype=torch.long)

    def step(self, tokens: Tensor) -> Tensor:
        level = self.levels[self.position]
        if self.position:
            self.places = self.places * level.shape[-1] + tokens
        self.position += 1
        return level[self.sources, self.places]

    def reorder(self, rows: Tensor) -> None:
        self.rows, self.sources, self.places = len(rows), self.sources[rows], self.places[rows]


def random_tree(sources: int, depth: int, vocabulary: int = 5, seed: int = 0) -> list[Tensor]:
    """Random logits after every beginning shorter than `depth`."""
    sizes = [(sources, vocabulary**length, vocabulary) for length in range(depth)]
    return [1.5 * level for level in random_tensors(*sizes, seed=seed)]


def enumerated(levels: list[Tensor], source: int, max_length: int) -> dict[tuple[int, ...], float]:
    """Every answer up to max_length and its log-probability, one by one."""
    found, vocabulary = {}, levels[0].shape[-1]
    beginnings = [((), 0, 0.0)]
    for length in range(max_length):
        log_probs = levels[length][source].log_softmax(-1).tolist()
        grown = []
        for tokens, place, total in beginnings:
            for token, log_prob in enumerate(log_probs[place]):
                answer = (*tokens, token), place * vocabulary + token, total + log_prob
                if token == EOS or length + 1 == max_length:
                    found[answer[0]] = answer[2]
                else:
                    grown.append(answer)
        beginnings = grown
    return found


def chi_square(counts: list[int], probabilities: list[float]) -> float:
    """Pearson's test of DRAWS draws, all not counted in one more class → the p-value."""
    counts, probabilities = [*counts, DRAWS - sum(counts)], [*probabilities, 1 - sum(probabilities)]
    expected = [max(DRAWS * p, 1e-9) for p in probabilities]
    if expected[-1] < 5:  # too few for the test: join the last two
        last = expected.pop()
        expected[-1] += last
        counts = [*counts[:-2], counts[-2] + counts[-1]]
    statistic = sum((n - e) ** 2 / e for n, e in zip(counts, expected, strict=True))
    halves = torch.tensor([len(expected) - 1, statistic], dtype=torch.float64) / 2
    return torch.special.gammaincc(*halves).item()

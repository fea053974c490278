"""Tables that stand in for a model: decodings with given probabilities, and a language of 17 words."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

DRAWS = 20_000  # for every chi-square test


class TreeDecoding:
    """Stands in for a Transformer: the logits after every possible beginning are in a table.

    levels[t] is (B, Vᵗ, V): for each source, the logits after t tokens, indexed by reading the tokens as
    the digits of a number in base V.
    """

    def __init__(self, levels: list[Tensor]):
        self.levels, self.length = levels, 0
        self.rows, self.device = len(levels[0]), levels[0].device
        self.sources = torch.arange(self.rows)
        self.places = torch.zeros(self.rows, dtype=torch.long)

    def step(self, tokens: Tensor) -> Tensor:
        level = self.levels[self.length]
        if self.length:
            self.places = self.places * level.shape[-1] + tokens
        self.length += 1
        return level[self.sources, self.places]

    def reorder(self, rows: Tensor) -> None:
        self.rows, self.sources, self.places = len(rows), self.sources[rows], self.places[rows]


class ChainDecoding:
    """Stands in for a Transformer: the logits (V, V) of the next token depend only on the newest one."""

    def __init__(self, logits: Tensor, rows: int = 1):
        self.logits, self.rows, self.length, self.device = logits, rows, 0, logits.device

    def step(self, tokens: Tensor) -> Tensor:
        self.length += 1
        return self.logits[tokens]

    def reorder(self, rows: Tensor) -> None:
        self.rows = len(rows)


def random_tree(sources: int, depth: int, vocabulary: int = 5, seed: int = 0) -> list[Tensor]:
    """Random logits after every beginning shorter than `depth`, the levels of a TreeDecoding."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [(sources, vocabulary**length, vocabulary) for length in range(depth)]
    return [1.5 * torch.randn(size, generator=generator, dtype=torch.float64) for size in sizes]


FOLLOWS = {  # a language: the followers of each word, with probabilities 0.4, 0.3, 0.2 and 0.1
    "the": "cat dog boy bird", "a": "mouse dog bone cat", "cat": "sees and hears sleeps",
    "dog": "hears sees and sleeps", "boy": "sees hears and sleeps", "bird": "sleeps sees and hears",
    "mouse": "and sleeps hears sees", "bone": "and while but then", "sees": "the a one every",
    "hears": "a the every one", "sleeps": "and while but then", "one": "boy mouse bird dog",
    "every": "dog cat bird boy", "and": "the a every one", "while": "the one a every",
    "but": "a every the one", "then": "the a one every",
}


def true_logits(id_of: Mapping[str, int], start: int) -> Tensor:
    """The logits (V, V) of what follows each word of FOLLOWS; the token `start` has the same as “and”."""
    size = max(id_of.values()) + 1
    logits = torch.full((size, size), -math.inf)
    for word, followers in FOLLOWS.items():
        ids = [id_of[follower] for follower in followers.split()]
        logits[id_of[word], ids] = torch.tensor([0.4, 0.3, 0.2, 0.1]).log()
    logits[start] = logits[id_of["and"]]
    return logits


def repeated(tokens: Sequence[int], n: int = 4) -> float:
    """The fraction of runs of n tokens that occurred before."""
    runs = [tuple(tokens[start : start + n]) for start in range(len(tokens) - n + 1)]
    return 1 - len(set(runs)) / len(runs)


def distance(said: Sequence[str], truth: Mapping[str, float]) -> float:
    """½ Σ |frequency − true probability| over all sentences: the total variation distance."""
    counts = Counter(said)
    return sum(abs(counts[text] / len(said) - truth.get(text, 0.0)) for text in {*counts, *truth}) / 2


def chi_square(counts: list[int], probabilities: list[float]) -> float:
    """The p-value of Pearson's test of DRAWS draws; those not counted form one more class."""
    counts, probabilities = [*counts, DRAWS - sum(counts)], [*probabilities, 1 - sum(probabilities)]
    expected = [max(DRAWS * p, 1e-9) for p in probabilities]
    if expected[-1] < 5:  # too few for the test: join the last two
        last = expected.pop()
        expected[-1] += last
        counts = [*counts[:-2], counts[-2] + counts[-1]]
    statistic = sum((n - e) ** 2 / e for n, e in zip(counts, expected, strict=True))
    halves = torch.tensor([len(expected) - 1, statistic], dtype=torch.float64) / 2
    return torch.special.gammaincc(*halves).item()


def fit(draws: Tensor, probabilities: Tensor) -> float:
    """The p-value of Pearson's test of draws (DRAWS,); 0 if something impossible was drawn."""
    counts, possible = draws.bincount(minlength=len(probabilities)), probabilities > 0
    if counts[~possible].any():
        return 0.0
    if possible.sum() == 1:
        return 1.0
    return chi_square(counts[possible].tolist(), probabilities[possible].tolist())

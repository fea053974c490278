"""Word by word: weights of cross-attention and the true partners, an answer and its reference."""

from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher

import numpy as np
import torch
from torch import Tensor

from grammar.sentences import Pair, words_of


def places(text: str, words: Sequence[str], pieces: Sequence[str]) -> list[int]:
    """For each piece of the text the number of the word in which it ends."""
    ends, at = [], 0
    for word in words:
        at = text.index(word, at) + len(word)
        ends.append(at)
    return [int(place) for place in np.searchsorted(ends, np.cumsum([len(piece) for piece in pieces]))]


def belonging(text: str, pieces: Sequence[str]) -> Tensor:
    """(words, pieces): 1 where the piece belongs to the word."""
    words = words_of(text)
    of = torch.tensor(places(text, words, pieces))
    return (torch.arange(len(words))[:, None] == of).float()


def word_weights(weights: Tensor, pair: Pair, source: Sequence[str], target: Sequence[str]) -> Tensor:
    """Weights (…, T, S) between pieces of a pair, from its first piece on → (…, target words, source words).

    A target word has the mean of its pieces' rows; a source word the sum of its pieces' columns.
    """
    rows, columns = belonging(pair.target, target), belonging(pair.source, source)
    weights = weights[..., : len(target), : len(source)]
    return rows / rows.sum(1, keepdim=True) @ weights @ columns.mT


def partners(pair: Pair) -> Tensor:
    """(target words, source words): True for those that the grammar made of one another."""
    grid = torch.zeros(len(words_of(pair.target)), len(words_of(pair.source)), dtype=torch.bool)
    for source, target in pair.alignment:
        grid[target, source] = True
    return grid


def partners_found(weights: Tensor, pair: Pair) -> Tensor:
    """Word weights (…, target words, source words) → (…): target words whose largest weight is on a partner.

    Words without a partner don't count.
    """
    true = partners(pair)
    rows = true.any(1)
    chosen = weights[..., rows, :].argmax(-1, keepdim=True)
    return true[rows].expand_as(weights[..., rows, :]).gather(-1, chosen).float().sum((-2, -1))


def found_by_rules(pairs: Iterable[Pair]) -> tuple[int, int, int]:
    """Target words whose partner is the source word at the same place; the first one; all with a partner."""
    same = first = counted = 0
    for true in map(partners, pairs):
        place = torch.arange(len(true)) * true.shape[1] // len(true)
        same += int(true.gather(1, place[:, None]).sum())
        first += int(true[:, 0].sum())
        counted += int(true.any(1).sum())
    return same, first, counted


def slips_in(answer: str, reference: str) -> str:
    """Where the answer has other words than the reference: “wrong → right”."""
    said, wanted = words_of(answer), words_of(reference)
    changes = SequenceMatcher(None, said, wanted, autojunk=False).get_opcodes()
    return ", ".join(f"{' '.join(said[a:b]) or '–'} → {' '.join(wanted[c:d]) or '–'}"
                     for kind, a, b, c, d in changes if kind != "equal")

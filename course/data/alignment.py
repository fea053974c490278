"""Comparing word by word: cross-attention weights with the true alignment, answers with references."""

from collections.abc import Callable, Iterable, Sequence
from difflib import SequenceMatcher
from functools import lru_cache
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from grammar import french
from grammar.sentences import WORDS, Pair, words_of

Kind = Callable[[str], bool]  # a kind of French words


def places(text: str, words: Sequence[str], pieces: Sequence[str]) -> list[int]:
    """For each piece of the text, the index of the word in which it ends."""
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
    """Weights (…, T, S) between pieces of a pair, starting at its first → (…, target words, source words).

    A target word's row is the mean of its pieces' rows; a source word's column is the sum of its pieces'
    columns.
    """
    rows, columns = belonging(pair.target, target), belonging(pair.source, source)
    weights = weights[..., : len(target), : len(source)]
    return rows / rows.sum(1, keepdim=True) @ weights @ columns.mT


def partners(pair: Pair) -> Tensor:
    """(target words, source words): True where the grammar aligns the two words."""
    grid = torch.zeros(len(words_of(pair.target)), len(words_of(pair.source)), dtype=torch.bool)
    for source, target in pair.alignment:
        grid[target, source] = True
    return grid


@lru_cache(None)
def content_words() -> frozenset[str]:
    """All forms of the grammar's French nouns, adjectives and verbs, and the names.

    Forms of être and avoir are left out, because they also form the tenses of other verbs.
    """
    forms = {form for noun in WORDS.nouns for form in noun.french}
    forms |= {form for one in WORDS.adjectives for form in (*one.french, one.before_vowel, *one.after_is)}
    forms |= {name.french for name in WORDS.names.items}
    for verb in [*WORDS.verbs, *WORDS.helpers]:
        forms |= {french.agree(verb.participle, *how) for how in product((False, True), repeat=2)}
        forms |= {verb.infinitive, *verb.rest}
        if verb.infinitive != "avoir":
            forms |= {*verb.present, *verb.imperfect, *verb.future}
    return frozenset(map(str.lower, forms))


def is_content(word: str) -> bool:
    return word.lower() in content_words()


def is_function(word: str) -> bool:
    """True for an article, a pronoun, a preposition, ne, …; False for punctuation."""
    return word[0].isalpha() and not is_content(word)


def counted(true: Tensor, pair: Pair, kind: Kind) -> Tensor:
    """(target words): True for words of the kind that have a partner."""
    return true.any(1) & torch.tensor([kind(word) for word in words_of(pair.target)])


def partners_found(weights: Tensor, pair: Pair, kind: Kind = bool) -> Tensor:
    """Word weights (…, target words, source words) → (…): how many target words look most at a partner.

    Words of another kind, and those without a partner, don't count.
    """
    true = partners(pair)
    rows = counted(true, pair, kind)
    chosen = weights[..., rows, :].argmax(-1, keepdim=True)
    return true[rows].expand_as(weights[..., rows, :]).gather(-1, chosen).float().sum((-2, -1))


def found_by_rules(pairs: Iterable[Pair], kind: Kind) -> tuple[int, int, int]:
    """How many target words of the kind have as a partner the source word at the same relative place; the
    first source word; any source word.
    """
    same = first = every = 0
    for pair in pairs:
        true = partners(pair)
        rows = counted(true, pair, kind)
        place = torch.arange(len(true)) * true.shape[1] // len(true)
        same += int(true.gather(1, place[:, None])[rows].sum())
        first += int(true[rows, 0].sum())
        every += int(rows.sum())
    return same, first, every


KINDS: dict[str, Kind] = {"all, with marks": bool, "content words": is_content,
                          "function words": is_function,
                          "of these, ne": lambda word: word.lower() in ("ne", "n'")}


class Found(NamedTuple):
    """For one kind of French words: how many have a partner, and what fractions of them are found."""

    words: int
    heads: Tensor  # (blocks, heads)
    same: float  # by the rule of the same place
    first: float  # by the rule of the first word


def found_by_kind(weights: Sequence[Tensor], pairs: Sequence[Pair]) -> dict[str, Found]:
    """Word weights (blocks, heads, target words, source words) of each pair → the results for each kind."""
    found = {}
    for name, kind in KINDS.items():
        same, first, words = found_by_rules(pairs, kind)
        hits = torch.stack([partners_found(one, pair, kind) for one, pair in zip(weights, pairs)]).sum(0)
        some = max(1, words)
        found[name] = Found(words, hits / some, same / some, first / some)
    return found


def slips_in(answer: str, reference: str) -> str:
    """Where the answer's words differ from the reference's: “wrong → right”."""
    said, wanted = words_of(answer), words_of(reference)
    changes = SequenceMatcher(None, said, wanted, autojunk=False).get_opcodes()
    return ", ".join(f"{' '.join(said[a:b]) or '–'} → {' '.join(wanted[c:d]) or '–'}"
                     for kind, a, b, c, d in changes if kind != "equal")

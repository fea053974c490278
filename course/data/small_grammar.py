"""A small grammar of English whose probabilities are known: every sentence can be parsed in only one way.

A rule is drawn with its probability, and the probability of a sentence is the product over its rules. No draw
is ever rejected, so these are the true probabilities. (Lesson 8's grammar redraws what doesn't fit, so its
probabilities can't be written down.)
"""

import math
from collections.abc import Iterable, Sequence
from functools import cache
from random import Random
from typing import NamedTuple

import torch
from torch import Tensor

from course.data.baselines import Counts

RULES = {  # symbol → (probability, what it becomes); what has no rule is a word
    "SENTENCE": [(0.5, "ONE IS ."), (0.5, "MANY ARE .")],
    "ONE": [(0.5, "the NOUN"), (0.3, "the KIND NOUN"), (0.2, "the NOUN that IS")],
    "MANY": [(0.5, "the NOUNS"), (0.3, "the KIND NOUNS"), (0.2, "the NOUNS that ARE")],
    "IS": [(0.4, "SLEEPS"), (0.6, "SEES OBJECT")],
    "ARE": [(0.4, "SLEEP"), (0.6, "SEE OBJECT")],
    "OBJECT": [(0.5, "ONE"), (0.5, "MANY")],
    "KIND": [(0.5, "old"), (0.3, "small"), (0.2, "quiet")],
}
WORDS = {  # each word half as likely as the one before it, the last two equally likely
    "NOUN": "cat dog girl bird", "NOUNS": "cats dogs girls birds",
    "SLEEPS": "sleeps waits sings", "SLEEP": "sleep wait sing",
    "SEES": "sees hears follows", "SEE": "see hear follow",
}
for symbol, words in WORDS.items():
    *first, last = words.split()
    RULES[symbol] = [*((0.5 ** (n + 1), word) for n, word in enumerate(first)), (0.5 ** len(first), last)]
VOCABULARY = sorted({word for rules in RULES.values() for _, text in rules for word in text.split()
                     if word not in RULES})
ID_OF = {word: id for id, word in enumerate(VOCABULARY, start=3)}  # after PAD, BOS and EOS
SINGULAR, PLURAL = ([ID_OF[word] for word in WORDS[symbol].split()] for symbol in ("NOUN", "NOUNS"))


class Sentence(NamedTuple):
    """The words of a sentence, and the natural logarithm of its probability."""

    words: tuple[str, ...]
    log_probability: float


def draw_sentence(random: Random, symbol: str = "SENTENCE") -> Sentence:
    """A random sentence."""
    if symbol not in RULES:
        return Sentence((symbol,), 0.0)
    chance, text = random.choices(RULES[symbol], [chance for chance, _ in RULES[symbol]])[0]
    parts = [draw_sentence(random, part) for part in text.split()]
    words = tuple(word for part in parts for word in part.words)
    return Sentence(words, math.log(chance) + sum(part.log_probability for part in parts))


def sentences(count: int, *seed: int) -> list[Sentence]:
    """`count` random sentences, the same for the same seed."""
    random = Random(str(seed))
    return [draw_sentence(random) for _ in range(count)]


def loss_of_counts(steps: int, seed: int, asked: Iterable[Sentence]) -> float:
    """The loss per word, on the sentences `asked`, of counts of three words in 32 sentences per step."""
    read = [one for step in range(steps) for one in sentences(32, seed, step)]
    known, words = (tuple(word for one in some for word in one.words) for some in (read, asked))
    return Counts(known, 3).bits(words, known) * math.log(2)


def ids_of(drawn: Iterable[Sentence]) -> list[list[int]]:
    """The words of each sentence as ids."""
    return [[ID_OF[word] for word in one.words] for one in drawn]


def first_nouns(rows: Sequence[list[int]]) -> Tensor:
    """(B,): the place of each sentence's first noun."""
    nouns = {*SINGULAR, *PLURAL}
    return torch.tensor([next(place for place, id in enumerate(row) if id in nouns) for row in rows])


def right_number(logits: Tensor, wanted: Tensor) -> float:
    """How often the likeliest noun, by logits (B, V), agrees in number with the wanted one (B,)."""
    likeliest = torch.tensor(SINGULAR + PLURAL)[logits[:, SINGULAR + PLURAL].argmax(-1)]
    plural = torch.tensor(PLURAL)
    return (torch.isin(likeliest, plural) == torch.isin(wanted, plural)).float().mean().item()


@cache
def expected(rounds: int = 200) -> tuple[float, float]:
    """(the entropy of a sentence in nats, its mean number of words), exact up to rounding.

    Both follow from those of the parts: H(symbol) = Σ p · (−ln p + Σ H(part)).
    """
    entropy, length = dict.fromkeys(RULES, 0.0), dict.fromkeys(RULES, 0.0)
    for _ in range(rounds):  # every round adds a level of nested clauses
        entropy = {symbol: sum(chance * (sum(entropy.get(part, 0.0) for part in text.split())
                                         - math.log(chance)) for chance, text in rules)
                   for symbol, rules in RULES.items()}
        length = {symbol: sum(chance * sum(length.get(part, 1.0) for part in text.split())
                              for chance, text in rules) for symbol, rules in RULES.items()}
    return entropy["SENTENCE"], length["SENTENCE"]

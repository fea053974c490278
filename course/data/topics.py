"""Short sentences about four topics, written for this course: a few train a classifier, others test it."""

import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from random import Random
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

FILE = Path(__file__).with_suffix(".tsv")
TOPICS = "weather", "food", "money", "music"
MOST = 16  # most labels per topic


class Labelled(NamedTuple):
    """A sentence, and the number of its topic."""

    sentence: str
    topic: int


@cache
def labelled() -> dict[str, list[Labelled]]:
    """train and test: equally many sentences of each topic, one topic after the other."""
    lines = [line.split("\t") for line in FILE.read_text("utf-8").splitlines() if not line.startswith("#")]
    return {use: [Labelled(sentence, TOPICS.index(topic)) for topic, kind, sentence in lines if kind == use]
            for use in ("train", "test")}


class Drawn(NamedTuple):
    """Sentences with labels, and two test sets."""

    known: list[Labelled]
    alike: list[Labelled]  # the rest of the training sentences: they share words with the known ones
    new: list[Labelled]  # the test sentences: they share only function words


def draw_labels(count: int, seed: int) -> Drawn:
    """`count` random known sentences of each topic; the tests are the same for every count."""
    random, known, alike = Random(seed), [], []
    for topic in range(len(TOPICS)):
        some = [one for one in labelled()["train"] if one.topic == topic]
        random.shuffle(some)
        known += some[:count]
        alike += some[MOST:]
    return Drawn(known, alike, labelled()["test"])


def words_in(sentence: str) -> list[str]:
    """The words, in lower case, without punctuation."""
    return re.findall(r"[\w'-]+", sentence.lower())


def vocabulary(known: Sequence[Labelled]) -> dict[str, int]:
    """Word → its number, for all words of the known sentences."""
    words = sorted({word for one in known for word in words_in(one.sentence)})
    return {word: number for number, word in enumerate(words)}


def topics_of(some: Sequence[Labelled]) -> Tensor:
    """The topics as a tensor (N,)."""
    return torch.tensor([one.topic for one in some])


def bag_of_words(known: Sequence[Labelled]) -> Callable[[Sequence[str]], Tensor]:
    """Sentences → how often each known word occurs in them, scaled to length 1."""
    numbers = vocabulary(known)

    def vectors(sentences: Sequence[str]) -> Tensor:
        counts = torch.zeros(len(sentences), len(numbers))
        for row, sentence in enumerate(sentences):
            for word in words_in(sentence):
                if word in numbers:
                    counts[row, numbers[word]] += 1
        return F.normalize(counts, dim=-1)

    return vectors

"""Toy data: points on two spirals, sentences built from patterns."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def spirals(rng: np.random.Generator, each: int = 100) -> tuple[np.ndarray, np.ndarray]:
    """2 · each points (x, y) on two spirals that wind once around each other, with the spiral of each."""
    along = np.sqrt(np.linspace(0.04, 1, each))
    angle = 2 * np.pi * along + np.pi * np.arange(2)[:, None]
    points = np.stack([along * np.cos(angle), along * np.sin(angle)], axis=-1).reshape(-1, 2)
    points = 2 * (points + 0.02 * rng.normal(size=points.shape))
    order = rng.permutation(2 * each)
    return points[order], np.repeat([0, 1], each)[order]


def first_weights(rng: np.random.Generator, hidden: int) -> list[np.ndarray]:
    """The initial w1, b1, w2 and b2 of a two-layer network from points (x, y) to two classes."""
    return [2 * rng.normal(size=(2, hidden)), rng.normal(size=hidden),
            rng.normal(size=(hidden, 2)) / np.sqrt(hidden), np.zeros(2)]


CLASSES = {name: words.split() for name, words in {
    "animal": "cat dog horse cow bird mouse", "food": "bread cheese soup rice cake fruit",
    "place": "house garden kitchen street school shop", "person": "anna peter maria paul lucy tom",
    "moving": "runs walks goes comes jumps", "wanting": "eats likes wants buys smells",
    "looks": "red big small old nice white",
}.items()}
PATTERNS = ["the looks animal moving to the place", "person wanting some food",
            "the animal wanting the looks food", "person moving to the looks place",
            "person and person are in the place"]
NAMED = [word for words in CLASSES.values() for word in words]
VOCABULARY = [*NAMED, "the", "to", "some", "and", "are", "in"]
CLASS_OF = np.repeat(range(len(CLASSES)), [len(words) for words in CLASSES.values()])


def made_up_text(rng: np.random.Generator, sentences: int = 300) -> list[list[str]]:
    """Sentences built from the patterns, with a word of the class in place of its name."""
    chosen = [str(rng.choice(PATTERNS)).split() for _ in range(sentences)]
    return [[str(rng.choice(CLASSES[word])) if word in CLASSES else word for word in words]
            for words in chosen]


def neighbours(text: list[list[str]]) -> Tensor:
    """(V, V): how often the second word comes within two places of the first."""
    number, counts = {word: i for i, word in enumerate(VOCABULARY)}, torch.zeros(2 * [len(VOCABULARY)])
    for words in text:
        for place, word in enumerate(words):
            for other in words[max(0, place - 2) : place] + words[place + 1 : place + 3]:
                counts[number[word], number[other]] += 1
    return counts


def neighbour_counts(rng: np.random.Generator) -> list[Tensor]:
    """neighbours() of a made-up text, of its words shuffled within sentences, and over the whole text."""
    text = made_up_text(rng)
    within = [rng.permutation(words).tolist() for words in text]
    words = iter(rng.permutation([word for sentence in text for word in sentence]).tolist())
    everywhere = [[next(words) for _ in sentence] for sentence in text]
    return [*map(neighbours, (text, within, everywhere))]


def same_class(vectors: Tensor) -> float:
    """What fraction of the three nearest words (by angle) have the word's own class."""
    directions = F.normalize(vectors[: len(NAMED)], dim=-1)
    nearest = (directions @ directions.T).fill_diagonal_(-2).topk(3).indices.numpy()
    return float((CLASS_OF[nearest] == CLASS_OF[:, None]).mean())

"""Lesson 10's sentence classifiers with few labels. `ours` is the lesson's module, which has the parts."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from statistics import mean
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course.training.architectures import trained
from course.training.configs import SequenceTraining, StackConfig
from course.training.side_by_side import side_by_side
from course.training.small import minimise

COUNTS = 4, 8, 16  # labels per topic
DRAWS = range(4)  # of the labelled sentences
ANSWERS = 3  # the first topic's symbol, after PAD, BOS and EOS
FROM_NOTHING = SequenceTraining(steps=40, warmup=5, lr=3e-3)
Vectors = Callable[[Sequence[str]], Tensor]  # sentences → (N, D)


NAMES = {"alike": "words in common", "new": "new words"}  # of the tests


class Right(NamedTuple):
    """The fraction of right answers in each test."""

    alike: float
    new: float


def tested(ours: Any, drawn: Any, logits_of: Callable[[list[str]], Tensor]) -> Right:
    """How often the right topic has the largest of a sentence's logits (N, topics)."""
    rights = [logits_of([one.sentence for one in test]).argmax(-1) == ours.topics.topics_of(test)
              for test in (drawn.alike, drawn.new)]
    return Right(*(right.float().mean().item() for right in rights))


def linear_map(ours: Any, vectors: Callable[[Any], Vectors], count: int, draw: int) -> Right:
    """Logistic regression on sentence vectors; vectors(known) returns the function that makes them."""
    drawn = ours.topics.draw_labels(count, draw)
    topics = ours.topics.topics_of(drawn.known)
    vectors_of = vectors(drawn.known)
    known = vectors_of([one.sentence for one in drawn.known])
    read = nn.Linear(known.shape[1], len(ours.topics.TOPICS))
    nn.init.zeros_(read.weight)
    nn.init.zeros_(read.bias)
    optimizer = torch.optim.AdamW(read.parameters(), lr=0.1, weight_decay=0.01)
    minimise(lambda: F.cross_entropy(read(known), topics), optimizer, 100, decay=True)
    with torch.no_grad():
        return tested(ours, drawn, lambda sentences: read(vectors_of(sentences)))


class MeanReader(nn.Module):
    """A stack without a mask, and a linear map of the mean of its outputs."""

    def __init__(self, stack: Any, answers: int):
        super().__init__()
        self.config, self.stack, self.answer = stack.config, stack, nn.Linear(stack.config.d_model, answers)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens (B, L) → logits (B, answers)."""
        real = (tokens != 0)[..., None]
        return self.answer((self.stack.hidden(tokens) * real).sum(1) / real.sum(1))


def from_nothing(ours: Any, count: int, draw: int) -> Right:
    """A stack trained only on the labelled sentences. Words that occur in no known sentence are left out."""
    drawn, words_in = ours.topics.draw_labels(count, draw), ours.topics.words_in
    numbers = ours.topics.vocabulary(drawn.known)
    config = StackConfig(d_model=64, n_heads=4, causal=False, max_len=32, vocab_size=ANSWERS + len(numbers))

    def rows(sentences: Sequence[str]) -> Tensor:
        ids = [[ANSWERS + numbers[word] for word in words_in(one) if word in numbers] for one in sentences]
        return ours.pad([[ours.BOS, *row] for row in ids])

    wanted = ANSWERS + ours.topics.topics_of(drawn.known)
    batch = ours.Guesses(rows([one.sentence for one in drawn.known]), wanted)
    model = trained(ours, lambda: MeanReader(ours.OneStack(config), ANSWERS + len(ours.topics.TOPICS)),
                    lambda step: batch, replace(FROM_NOTHING, seed=draw))
    with torch.no_grad():
        return tested(ours, drawn, lambda sentences: model(rows(sentences))[:, ANSWERS:])


def fractions_right(ours: Any, encode: Vectors | None) -> dict[str, dict[int, list[Right]]]:
    """Reader → labels per topic → the results of each draw. `encode` is the published encoder."""
    readers: dict[str, Callable[[int, int], Right]] = {
        "stack": partial(from_nothing, ours),
        "bag of words": partial(linear_map, ours, ours.topics.bag_of_words)}
    if encode:
        every = [one.sentence for some in ours.topics.labelled().values() for one in some]
        at = dict(zip(every, encode(every)))
        readers["published encoder"] = partial(
            linear_map, ours, lambda known: lambda sentences: torch.stack([at[one] for one in sentences]))
    places = [(name, count, draw) for name in readers for count in COUNTS for draw in DRAWS]
    jobs = [partial(readers[name], count, draw) for name, count, draw in places]
    found = dict(zip(places, side_by_side(jobs)))
    return {name: {count: [found[name, count, draw] for draw in DRAWS] for count in COUNTS}
            for name in readers}


def shown(ours: Any, encode: Vectors | None) -> tuple[list[tuple[str, bool]], list[str], list[tuple]]:
    """The step's claims and whether they hold, the header of its table, and the rows."""
    found = fractions_right(ours, encode)
    rows, findings = [], []
    for test in Right._fields:
        for reader, by_count in found.items():
            rights = [[getattr(one, test) for one in ones] for ones in by_count.values()]
            shares = (f"{mean(some):.0%} ({min(some):.0%} to {max(some):.0%})" for some in rights)
            rows.append((f"{NAMES[test]}: {reader}", *shares))
    *others, published = [*found] if encode else [*found, ""]
    findings.append(("with new words the stack and the bag of words get fewer than 45 % right in each draw",
                     max(one.new for name in others for ones in found[name].values() for one in ones) < 0.45))
    for name in others:
        gained = mean(one.alike - one.new for one in found[name][COUNTS[-1]])
        findings.append((f"with 16 labels the {name} gets at least 8 percentage points more right with words "
                         "in common than with new words", gained > 0.08))
    if published:
        worst = min(min(one) for ones in found[published].values() for one in ones)
        findings.append(("with the encoder's vectors over 80 % are right in each draw, with words in common "
                         "and with new words", worst > 0.8))
    return findings, ["", *(f"{count} labels" for count in COUNTS)], rows

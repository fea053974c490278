"""What must hold for lesson 8's batches by length."""

import random

import torch
from torch import Tensor

from common import lesson
from course.console.records import Finding
from course.grading.checking import Mistake, Part, agree, at, together

BOS, EOS, PAD = lesson("03_positional_encoding", "BOS", "EOS", "PAD")

SIZE = 16


def some_pairs(count: int) -> tuple[list[list[int]], list[list[int]]]:
    """Sources of 3 to 20 ids, targets about as long; both begin with 3 + the pair's number."""
    draw = random.Random(0)
    sources = [[3 + row, *draws(draw, draw.randint(2, 19))] for row in range(count)]
    targets = [[3 + row, *draws(draw, max(1, len(source) + draw.randint(-3, 3)))]
               for row, source in enumerate(sources)]
    return sources, targets


def draws(draw: random.Random, count: int) -> list[int]:
    return [draw.randint(3, 99) for _ in range(count)]


SOURCES, TARGETS = some_pairs(203)  # 13 batches, of which one has 11 pairs
MANY = some_pairs(600)


def built(implementation, seed: int = 0):
    return implementation(SOURCES, TARGETS, SIZE, seed)


def epoch_of(batches, epoch: int = 0) -> list:
    """The batches of an epoch."""
    return [batches(epoch * len(batches) + number) for number in range(len(batches))]


def rows_of(batches: list) -> Tensor:
    """The numbers of the pairs, in the order in which they come."""
    return torch.cat([batch.src[:, 0] for batch in batches]) - 3


def without_padding(rows: Tensor) -> list[list[int]]:
    return [[id for id in row if id != PAD] for row in rows.tolist()]


def is_so(wrong: bool, figure: str, hint: str) -> Finding:
    """Finding: nothing is wrong. What is compared is noted, so that the same mistake is recognised."""
    finding = agree(torch.tensor(float(wrong)), torch.tensor(0.0), 0.0, hint)
    return finding._replace(figure=figure)


# ------------------------------------------------------------------ BatchesByLength()


def has_every_pair_once(implementation, ours):
    """Each epoch has every pair exactly once."""
    batches = built(implementation)
    findings = []
    for epoch in (0, 1, 2):
        rows = rows_of(epoch_of(batches, epoch))
        finding = agree(rows.sort().values, torch.arange(len(SOURCES)), 0.0,
                        "leave none out, take none twice")
        figure = f"{len(rows)} rows, {len(rows.unique())} of {len(SOURCES)} pairs"
        findings.append(at(f"epoch {epoch}", finding._replace(figure=figure)))
    return together(*findings)


def keeps_the_last_batch(implementation, ours):
    """The last, smaller batch is kept: there are ⌈n / size⌉ batches, all but one of full size."""
    batches = built(implementation)
    sizes = sorted((len(batch.src) for batch in epoch_of(batches)), reverse=True)
    expected = [SIZE] * 12 + [11]
    finding = agree(torch.tensor([len(batches), *sizes]), torch.tensor([13, *expected]), 0.0,
                    "cut what is left over into a smaller batch")
    return finding._replace(figure=f"{len(batches)} batches, the smallest of {sizes[-1]}")


def keeps_pairs_together(implementation, ours):
    """Each source has its own target, as decoder input after BOS and as expected output before EOS."""
    for batch in epoch_of(built(implementation)):
        rows = rows_of([batch])
        wrong = agree(batch.tgt_in[:, 1] - 3, rows, 0.0, "sort sources and targets in the same order")
        if not wrong.holds:
            return wrong._replace(figure="a source has another's target")
        for name, found, expected in (
            ("src", batch.src, [SOURCES[row] for row in rows]),
            ("tgt_in", batch.tgt_in, [[BOS, *TARGETS[row]] for row in rows]),
            ("tgt_out", batch.tgt_out, [[*TARGETS[row], EOS] for row in rows]),
        ):
            if without_padding(found) != expected:
                return Finding(False, f"{name} of a batch doesn't match its pairs",
                               "src as it is; BOS before the target, and EOS after it; padded with PAD")
    return Finding(True, f"{len(SOURCES)} pairs")


def depends_on_step_and_seed_alone(implementation, ours):
    """A batch depends only on step and seed, whatever was asked for before."""
    steps = [0, 30, 5, 17, 5, 29, 12, 13, 0]
    asked = built(implementation)
    found = [asked(step) for step in steps]
    expected = [built(implementation)(step) for step in steps]
    pairs = [(a.src, b.src) for a, b in zip(found, expected)]
    wrong = [step for step, (a, b) in zip(steps, pairs) if not torch.equal(a, b)]
    return is_so(bool(wrong), f"steps {sorted(set(steps))}" if not wrong else f"step {wrong[0]} differs",
                 "draw from seed and epoch, not from a generator that goes on")


def pads_little(implementation, ours):
    """Less than a tenth of all ids is padding, sources and targets together."""
    batches = implementation(*MANY, SIZE, 0)
    ids = [rows for batch in epoch_of(batches) for rows in (batch.src, batch.tgt_out)]
    share = sum(int((rows == PAD).sum()) for rows in ids) / sum(rows.numel() for rows in ids)
    return is_so(share >= 0.1, f"{share:.1%} of the ids",
                 "rows of a batch should be of about the same length: sort all pairs by length, then cut")


def differs_by_epoch_and_seed(implementation, ours):
    """Another epoch has a different order, and so does another seed."""
    batches = built(implementation)
    first, second = rows_of(epoch_of(batches)), rows_of(epoch_of(batches, 1))
    other = rows_of(epoch_of(built(implementation, 1)))
    same = [torch.equal(first, second), torch.equal(first, other), torch.equal(second, other)]
    finding = agree(torch.tensor(same).float(), torch.zeros(3), 0.0, "draw the order from seed and epoch")
    names = [name for name, equal in zip(("epochs", "seeds", "pairs of seed and epoch"), same) if equal]
    return finding._replace(figure=f"two {' and two '.join(names)} have the same order" if names else "")


def mixes_the_lengths(implementation, ours):
    """The batches don't come in the order of their lengths."""
    batches = implementation(*MANY, SIZE, 0)
    lengths = torch.tensor([float(batch.src.shape[1]) for batch in epoch_of(batches)])
    steps = torch.arange(len(lengths)).float()
    found = torch.corrcoef(torch.stack([lengths, steps]))[0, 1].item()
    return is_so(abs(found) > 0.5, f"correlation of length and step {found:.2f}",
                 "shuffle the batches after they are cut")


def mixes_the_pairs(implementation, ours):
    """Pairs meet different pairs in each epoch: batches are cut again, not only reordered."""
    sources, targets = [[3 + row, 3, 3] for row in range(96)], [[3 + row] for row in range(96)]
    batches = implementation(sources, targets, SIZE, 0)
    first, second = ({frozenset(rows_of([batch]).tolist()) for batch in epoch_of(batches, epoch)}
                     for epoch in (0, 1))
    return is_so(bool(first & second), f"{len(first & second)} of 6 batches come again unchanged",
                 "shuffle the pairs before you sort them by length")


def batches_mistakes(ours):
    """The classic mistakes, made from the course's own batches."""
    batches = ours.BatchesByLength

    class InOrderOfLength(batches):
        """The batches are not shuffled."""

        def order_of(self, epoch):
            rows = super().order_of(epoch)
            return sorted(rows, key=lambda some: max(len(self.sources[row]) for row in some))

    class CutAnyhow(batches):
        """Shuffled and cut, not sorted."""

        def order_of(self, epoch):
            rows = torch.randperm(len(self.sources),
                                  generator=torch.Generator().manual_seed(1000 * self.seed + epoch)).numpy()
            return [rows[start : start + self.size] for start in range(0, len(rows), self.size)]

    class LastDropped(batches):
        def __len__(self):
            return len(self.sources) // self.size

        def order_of(self, epoch):
            return [rows for rows in super().order_of(epoch) if len(rows) == self.size]

    class SameEachEpoch(batches):
        def order_of(self, epoch):
            return super().order_of(0)

    class TargetsApart(batches):
        """Sources and targets are sorted each by its own length."""

        def batch(self, rows):
            places = sorted(range(len(self.targets)), key=lambda row: len(self.targets[row]))
            return ours.make_batch([self.sources[row] for row in rows],
                                   [self.targets[places[row]] for row in rows])

    return {
        "in order of length": Mistake("the batches come in the order of their lengths: shuffle them",
                                      InOrderOfLength, "The batches don't"),
        "cut anyhow": Mistake("long and short rows share a batch: sort all pairs by length, then cut",
                              CutAnyhow, "Less than a tenth"),
        "last dropped": Mistake("the last, smaller batch is dropped, and its pairs with it", LastDropped,
                                "The last, smaller"),
        "same in each epoch": Mistake("every epoch has the same order: draw it from seed and epoch",
                                      SameEachEpoch, "Another epoch"),
        "targets apart": Mistake("sources and targets are ordered separately: a source gets another's target",
                                 TargetsApart, "Each source"),
    }


def more_batches_mistakes(ours):
    """Others that the lesson doesn't show."""
    batches = ours.BatchesByLength

    class SeedIgnored(batches):
        def order_of(self, epoch):
            seed, self.seed = self.seed, 0
            try:
                return super().order_of(epoch)
            finally:
                self.seed = seed

    class GoesOn(batches):
        """The order is drawn from a generator that goes on."""

        drawn = 0

        def order_of(self, epoch):
            self.drawn += 1
            return super().order_of(self.drawn)

    class OnlyBatchesShuffled(batches):
        """Cut once, then put in another order each epoch."""

        def order_of(self, epoch):
            first = sorted(super().order_of(0), key=lambda rows: rows[0])
            places = torch.randperm(len(first), generator=torch.Generator().manual_seed(
                1000 * self.seed + epoch))
            return [first[place] for place in places.tolist()]

    return {
        "seed ignored": Mistake("every seed has the same order: draw it from seed and epoch", SeedIgnored,
                                "Another epoch"),
        "goes on": Mistake("one generator is used for all epochs: a resumed run gets another order",
                           GoesOn, "A batch depends"),
        "only batches shuffled": Mistake(
            "the same pairs share a batch in every epoch: shuffle before sorting", OnlyBatchesShuffled,
            "Pairs meet"),
    }


batches_by_length_checks = Part(
    [has_every_pair_once, keeps_the_last_batch, keeps_pairs_together, depends_on_step_and_seed_alone,
     pads_little, differs_by_epoch_and_seed, mixes_the_lengths, mixes_the_pairs],
    batches_mistakes,
    more=more_batches_mistakes,
    needs="The checks call BatchesByLength(sources, targets, size, seed), len(batches) and batches(step), "
          "which returns a Batch: make_batch(sources, targets) makes one from lists of ids.",
    helpers=("order_of", "batch"),
)

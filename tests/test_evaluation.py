"""Lesson 5's evaluation and data, against values counted by hand."""

import math
import zlib
from collections import Counter
from itertools import product

import pytest
import torch
from torch import nn

from common import lesson
from course.data.digits import draw_sequences, split_of

m = lesson("05_mini_transformer")
PAD, BOS, EOS, ZERO = m.PAD, m.BOS, m.EOS, m.ZERO
ONE, TWO, THREE = ZERO + 1, ZERO + 2, ZERO + 3
# answers of three lengths: 1 2, then 3, then 2 3 1
BATCH = m.Batch(torch.tensor([[ONE], [TWO], [THREE]]), *m.teacher_forcing([[ONE, TWO], [THREE],
                                                                           [TWO, THREE, ONE]]))
VOCABULARY = m.TransformerConfig().vocab_size


class Says(nn.Module):
    """Guesses token by token (B, T), with the weights given: logit `sure` for the guess, 0 for all others.

    Free-running it says the tokens of `answers` (B, any), one after the other, whatever it reads.
    """

    def __init__(self, guesses, sure=1.0, answers=None):
        super().__init__()
        self.guesses, self.answers = torch.tensor(guesses), answers
        self.sure, self.modes, self.read = sure, [], []

    def logits(self, tokens):
        return self.sure * nn.functional.one_hot(tokens, VOCABULARY).float()

    def forward(self, src, tgt_in):
        self.modes.append(self.training)
        return self.logits(self.guesses)

    def encode(self, src):
        self.modes.append(self.training)
        return src

    def src_mask(self, src):
        return src != PAD

    def decode(self, tgt, memory, src_mask):
        self.modes.append(self.training)
        self.read.append(tgt.tolist())
        return self.logits(torch.tensor(self.answers)[:, : tgt.shape[1]])


def test_loss_and_accuracies_are_those_counted_by_hand():
    """9 real tokens, 3 of padding: what is guessed there counts nothing, right or wrong."""
    guesses = [[ONE, TWO, EOS, TWO],      # 3 of 3; a digit where padding is
               [THREE, ONE, ONE, PAD],    # 1 of 2
               [TWO, THREE, THREE, EOS]]  # 3 of 4
    answers = [[ONE, TWO, EOS, PAD], [THREE, ONE, EOS, PAD], [TWO, THREE, ONE, EOS]]
    model = Says(guesses, sure=2.0)
    scores = m.evaluate(model, BATCH, lambda model, src, length: torch.tensor(answers))
    total = math.exp(2) + VOCABULARY - 1
    right, wrong = -math.log(math.exp(2) / total), -math.log(1 / total)
    assert scores.loss == pytest.approx((7 * right + 2 * wrong) / 9, rel=1e-6)
    assert scores.token_accuracy == pytest.approx(7 / 9)
    assert scores.forced.tolist() == [True, False, False]
    assert scores.exact.tolist() == [True, False, True]
    assert scores.exact_match == pytest.approx(2 / 3)


@pytest.mark.parametrize("training", [True, False])
def test_an_evaluation_drops_nothing_and_leaves_the_mode_as_it_was(training):
    model = Says([[ONE] * 4] * 3, answers=[[EOS] * 9] * 3).train(training)
    m.evaluate(model, BATCH)
    assert set(model.modes) == {False}
    assert model.training is training


def test_an_evaluation_answers_as_long_as_the_longest_wanted_answer_and_keeps_no_graph():
    lengths = []
    model = m.Transformer(m.TransformerConfig(d_model=8, n_heads=2, n_layers=1))

    def decode(model, src, length):
        lengths.append((length, torch.equal(src, BATCH.src), torch.is_grad_enabled()))
        return BATCH.tgt_out[:, :1]

    m.evaluate(model, BATCH, decode)
    assert lengths == [(4, True, False)]


@pytest.mark.parametrize(("answers", "right"), [
    ([[ONE, TWO, EOS, PAD]], True),
    ([[ONE, TWO, EOS]], True),           # shorter: the rest is padding
    ([[ONE, TWO, EOS, ONE]], False),     # goes on after the end
    ([[ONE, TWO]], False),               # no end
    ([[ONE, TWO, TWO]], False),
    ([[ONE, EOS, PAD, PAD]], False),
    ([[TWO, ONE, EOS]], False),          # the same tokens in another order
])
def test_an_answer_is_right_if_all_of_it_is(answers, right):
    wanted = torch.tensor([[ONE, TWO, EOS, PAD]])
    assert m.exactly_right(torch.tensor(answers), wanted).tolist() == [right]


def test_free_running_feeds_back_what_it_said_and_pads_after_the_end():
    answers = [[ONE, EOS, TWO, TWO, TWO], [TWO, THREE, EOS, ONE, ONE], [EOS, BOS, THREE, EOS, ONE]]
    model = Says([], answers=answers)
    found = m.free_running(model, BATCH.src, 5)
    assert found.tolist() == [[ONE, EOS, PAD], [TWO, THREE, EOS], [EOS, PAD, PAD]]  # all have ended: no more
    assert model.read == [[[BOS]] * 3, [[BOS, ONE], [BOS, TWO], [BOS, EOS]],
                          [[BOS, ONE, EOS], [BOS, TWO, THREE], [BOS, EOS, PAD]]]
    endless = Says([], answers=[[ONE] * 9] * 3)
    assert m.free_running(endless, BATCH.src, 4).tolist() == [[ONE] * 4] * 3
    assert len(endless.read) == 4


def test_the_kinds_of_a_training_are_scored_alike():
    """What validate() notes: the first is what patience looks at, forced_match is the share of answers."""
    training = m.TrainingConfig(steps=1, batch_size=2)
    model = m.Transformer(m.TransformerConfig(d_model=8, n_heads=2, n_layers=1))
    held_out = m.draw_batch("copy", 9, "test", (0,))
    scores = m.evaluate(model, held_out)
    noted = m.make_run(model.config, training, torch.device("cpu"), held_out=held_out).job.validate(model)
    assert noted == {"validation_loss": scores.loss, "token_accuracy": scores.token_accuracy,
                     "forced_match": scores.forced.float().mean().item(), "exact_match": scores.exact_match}


# the data


def test_a_split_is_the_checksum_of_the_digits():
    for digits in product(range(4), repeat=5):
        rest = zlib.crc32(bytes(digits)) % 10
        assert split_of(list(digits)) == ("test" if rest == 0 else "validation" if rest == 1 else "train")


def test_a_tenth_of_all_sequences_is_for_each_of_the_tests():
    counts = Counter(split_of(list(digits)) for digits in product(range(10), repeat=4))
    assert counts["test"] == pytest.approx(1000, abs=100)
    assert counts["validation"] == pytest.approx(1000, abs=100)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_drawn_sequences_have_every_length_and_digit_alike(split):
    drawn = draw_sequences(6500, split, (1, 2))
    assert len(drawn) == 6500
    assert {split_of(digits) for digits in drawn} == {split}
    lengths = Counter(map(len, drawn))
    assert sorted(lengths) == [*range(4, 17)]
    assert all(count == pytest.approx(500, abs=110) for count in lengths.values())  # 5 deviations
    digits = Counter(digit for digits in drawn for digit in digits)
    assert sorted(digits) == [*range(10)]
    assert all(count == pytest.approx(6500, abs=400) for count in digits.values())
    places = Counter(digits[0] for digits in drawn)
    assert all(count == pytest.approx(650, abs=125) for count in places.values())


def test_lengths_are_those_asked_for_both_ends_included():
    assert {len(digits) for digits in draw_sequences(200, "train", (0,), (3, 5))} == {3, 4, 5}
    assert {len(digits) for digits in draw_sequences(50, "test", (0,), (17, 17))} == {17}


def test_every_number_of_the_seed_makes_other_sequences():
    drawn = [str(draw_sequences(20, "train", seed)) for seed in ((0, 0), (0, 1), (1, 0), (7,))]
    assert len(set(drawn)) == 4
    assert str(draw_sequences(20, "train", (0, 1))) == drawn[1]


def test_splits_are_drawn_from_one_stream_and_kept_apart():
    with pytest.raises(ValueError, match="split is 'exam'; it must be train, validation or test"):
        draw_sequences(1, "exam", (0,))


@pytest.mark.parametrize("task", m.TASKS)
def test_a_training_batch_is_new_in_every_step_and_of_its_task(task):
    training = m.TrainingConfig(task=task, batch_size=7, seed=3)
    batch = m.training_batch(training, 11)
    digits = draw_sequences(7, "train", (3, 11))
    wanted = {"reverse": lambda d: d[::-1], "copy": list, "sort": sorted,
              "sum": lambda d: [int(digit) for digit in str(sum(d))],
              "mirror": lambda d: [9 - digit for digit in reversed(d)]}[task]
    assert len(batch.src) == 7
    for row, source in enumerate(digits):
        assert [token - ZERO for token in batch.src[row].tolist() if token != PAD] == source
        answer = [token for token in batch.tgt_out[row].tolist() if token != PAD]
        assert answer == [ZERO + digit for digit in wanted(source)] + [EOS]
        assert batch.tgt_in[row].tolist()[: len(answer)] == [BOS, *answer[:-1]]


def test_tasks_that_are_harder_get_more_steps_and_larger_batches_unless_told():
    recipes = {task: (m.TrainingConfig(task=task).steps, m.TrainingConfig(task=task).batch_size)
               for task in m.TASKS}
    assert recipes == {"reverse": (700, 32), "copy": (700, 32), "sort": (2000, 64), "sum": (2000, 128),
                       "mirror": (700, 32)}
    told = m.TrainingConfig(task="sort", steps=3, batch_size=4)
    assert (told.steps, told.batch_size) == (3, 4)


# what the steps measure of a model


def test_the_mass_on_the_partner_is_read_where_the_digit_stands():
    weights = torch.zeros(2, 2, 5, 4)  # five rows read; the answer has four digits, and EOS
    for t in range(4):
        weights[0, 0, t, 3 - t] = 1.0
        weights[1, 0, t, 3 - t] = 0.5
        weights[:, 1, t, t] = 0.25
    weights[:, :, 4] = 1.0  # of EOS: has no partner
    assert m.mass_on_partner(weights, "reverse").tolist() == [0.75, 0.0]
    assert m.mass_on_partner(weights, "copy").tolist() == [0.0, 0.25]

"""What the checks themselves are worth: every claim can fail, every mistake has its name, oracles add up."""

import functools
import inspect
import math
import re
import sys
from contextlib import suppress

import pytest
import torch
from conftest import LESSONS, catalogue
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from checks.attention import expected_weights
from checks.trees import enumerated, greedy_by_hand
from common import lesson
from course.data.tables import DRAWS, chi_square, random_tree
from course.grading.checking import refused
from course.training.broken import signatures

PARTS = [(name, part) for name in LESSONS for part in lesson(name).GRADED]


@pytest.fixture(autouse=True)
def inputs_as_they_were():
    """What an implementation writes into the inputs of the checks is put right after the test."""
    named = [vars(module) for name, module in sys.modules.items() if name.startswith("checks.")]
    tensors = [leaf for names in named for leaf in tree_leaves([*names.values()]) if isinstance(leaf, Tensor)]
    before = [tensor.detach().clone() for tensor in tensors]
    yield
    for tensor, kept in zip(tensors, before):
        tensor.detach().copy_(kept)


# wrong implementations, of anything


def spoiled(result):
    """Other numbers of the same shape."""
    if isinstance(result, Tensor):
        return result.clone() if result.dtype == torch.bool else result * 3 + 1
    if isinstance(result, int | float):
        return result * 3 + 1
    if isinstance(result, tuple) and hasattr(result, "_make"):
        return result._make(map(spoiled, result))
    if isinstance(result, tuple | list) and type(result) in (tuple, list):
        return type(result)(map(spoiled, result))
    return result


def detached(result):
    return result.detach() if isinstance(result, Tensor) else result


def wrong_functions(part) -> list:
    """Gives other numbers; cuts the gradient; writes into its inputs; refuses nothing."""

    @functools.wraps(part)
    def writing(*inputs, **options):
        result = part(*inputs, **options)
        for tensor in inputs:
            if isinstance(tensor, Tensor) and not tensor.requires_grad:
                tensor.copy_(torch.zeros_like(tensor))
        return result

    @functools.wraps(part)
    def accepting(*inputs, **options):
        with suppress(ValueError, TypeError):
            return part(*inputs, **options)

    return [functools.wraps(part)(lambda *inputs, **options: spoiled(part(*inputs, **options))),
            functools.wraps(part)(lambda *inputs, **options: detached(part(*inputs, **options))),
            writing, accepting]


def wrong_classes(part: type) -> list:
    """The same for modules, and one that learns one number more, and one that begins with zeros."""

    class Spoiled(part):
        def forward(self, *inputs, **options):
            return spoiled(super().forward(*inputs, **options))

    class Mixing(part):
        def forward(self, *inputs, **options):
            result = super().forward(*inputs, **options)
            return result + 1e-6 * result.sum()

    class Learning(part):
        def __init__(self, *inputs, **options):
            super().__init__(*inputs, **options)
            self.more = nn.Parameter(torch.ones(1))

    class Zeros(part):
        def __init__(self, *inputs, **options):
            super().__init__(*inputs, **options)
            for parameter in self.parameters():
                nn.init.constant_(parameter, 1.0)

    class Writing(part):
        def forward(self, x, *inputs, **options):
            result = super().forward(x, *inputs, **options)
            x.data.zero_()
            return result

    def accepting(*inputs, **options):
        with suppress(ValueError):
            return part(*inputs, **options)

    return [Spoiled, Mixing, Learning, Zeros, Writing, accepting]


def wrong_tokenizers(part: type) -> list:
    class Other(part):
        def encode(self, text):
            return [number + 1 for number in super().encode(text)][::-1]

        def decode(self, ids):
            return super().decode(ids).replace(" ", "")

    class Known(part):
        def encode(self, text):
            with suppress(ValueError):
                return super().encode(text)

    return [Other, Known]


def wrong_decoders(ours) -> dict[str, list]:
    """By hand, for the parts of lesson 6 whose results have their own shape."""
    def fixed(decoding, max_length, *others, **options):
        return torch.full((decoding.rows, max_length + 1), 4)

    def greedy(decoding, max_length, *others, **options):
        return ours.greedy_decode(decoding, max_length)

    def reversed_batch(decoding, *options):
        return ours.beam_search(decoding, *options)[::-1]

    def after_the_end(decoding, max_length, *others, **options):
        answers = fixed(decoding, max_length)
        answers[:, 0] = ours.EOS
        return answers

    def unadjusted(logits, *others, **options):
        return logits

    class Turned(ours.CachedDecoding):
        def step(self, tokens):
            return super().step(tokens).flip(-1)

    return {"sample": [fixed, greedy, after_the_end], "adjust_logits": [unadjusted],
            "greedy_decode": [fixed], "beam_search": [reversed_batch],
            "CachedDecoding": [Turned]}


def wrong_ones(ours, name: str) -> list:
    """The mistakes of the part, then others, of any part."""
    own = getattr(ours, name)
    known = [mistake.implementation for mistake in catalogue(ours, name).values()]
    known += wrong_decoders(ours).get(name, []) if hasattr(ours, "CachedDecoding") else []
    if name in ("sample", "greedy_decode", "beam_search", "CachedDecoding"):
        return known
    if name == "Tokenizer":
        return known + wrong_tokenizers(own)
    if name == "Adam":
        return known
    return known + (wrong_classes(own) if inspect.isclass(own) else wrong_functions(own))


@pytest.mark.parametrize(("name", "part"), PARTS)
def test_every_claim_fails_for_something_wrong(name, part):
    ours = lesson(name)
    wrong = wrong_ones(ours, part)
    for number, claim in enumerate(ours.GRADED[part].claims):
        assert any(not ours.GRADED[part](one, ours)[number].holds() for one in wrong), claim.__name__


# what decides whether a claim holds


def test_chi_square_is_the_probability_of_a_difference_as_large():
    """Two classes: with one degree of freedom p = erfc(√(x / 2)); 10,100 of 20,000 give x = 2."""
    assert DRAWS == 20_000
    assert chi_square([10_100, 9_900], [0.5, 0.5]) == pytest.approx(math.erfc(1), rel=1e-6)
    assert chi_square([10_000, 5_100, 4_900], [0.5, 0.25, 0.25]) == pytest.approx(math.exp(-2), rel=1e-6)
    assert chi_square([5_000, 5_000], [0.25, 0.25]) == pytest.approx(1)  # half in no class
    assert chi_square([10_000, 9_000], [0.5, 0.25]) < 1e-100
    assert chi_square([9_000, 11_000], [0.5, 0.5]) < 1e-40
    assert chi_square([20_000, 0], [0.999, 0.001]) < 1e-4


def test_enumerated_answers_are_all_there_are():
    levels = random_tree(2, 3, 4, seed=1)
    for source in (0, 1):
        answers = enumerated(levels, source, 3)
        assert sum(map(math.exp, answers.values())) == pytest.approx(1, abs=1e-12)
        assert len(answers) == 1 + 3 + 3 * 3 * 4  # ended after 1, ended after 2, cut off at 3 or ended there
        best = greedy_by_hand(levels)[source].tolist()
        place, total = 0, 0.0
        for level, token in zip(levels, best):
            if token == 0 and place:
                break
            total += level[source, place].log_softmax(-1)[token].item()
            assert level[source, place][token] == level[source, place].max()
            place = place * 4 + token
            if token == 2:
                break
        ends = best.index(2) + 1 if 2 in best else 3
        assert answers[tuple(best[:ends])] == pytest.approx(total, abs=1e-12)


def test_numpys_weights_are_softmax_of_scaled_products():
    query, key = torch.randn(2, 3, 8, dtype=torch.float64), torch.randn(2, 5, 8, dtype=torch.float64)
    mask = torch.tensor([True, True, False, True, False])
    scores = (query @ key.mT / math.sqrt(8)).masked_fill(~mask, -math.inf)
    assert torch.allclose(expected_weights(query, key, mask), scores.softmax(-1), atol=1e-12)


@pytest.mark.parametrize("spoil", [None, "no shift", "no causal mask", "no residual paths", "no positions",
                                   "padding mask inverted", "post-norm, no warm-up", "right", "no scaling",
                                   "loss on PAD", "post-norm, warm-up 100"])
def test_a_signature_fails_where_a_variant_does_otherwise(spoil):
    good, cheat, useless = ({"token_accuracy": forced, "exact_match": alone}
                            for forced, alone in ((1.0, 1.0), (1.0, 0.0), (0.4, 0.0)))
    scores = {"no shift": cheat, "no causal mask": cheat, "no residual paths": useless,
              "no positions": useless,
              "padding mask inverted": useless, "post-norm, no warm-up": useless, "right": good,
              "no scaling": good, "loss on PAD": good, "post-norm, warm-up 100": good}
    if spoil:
        scores[spoil] = useless if scores[spoil] is good else good
    said = {re.split(":", statement)[0]: holds for statement, holds in signatures(scores)}
    assert said == {name: name != spoil for name in scores}


def test_a_refusal_is_a_value_error_that_names_all_values():
    def raising(error):
        def attempt():
            raise error
        return attempt

    assert refused(raising(ValueError("7 and 30")), 7, 30).holds
    assert not refused(raising(ValueError("7 alone")), 7, 30).holds
    assert not refused(raising(ValueError("")), 7).holds
    assert not refused(lambda: None).holds


@pytest.mark.parametrize("part", ["causal_mask", "padding_mask"])
def test_masks_of_numbers_are_told_to_be_boolean(part):
    ours = lesson("01_attention_mechanism")
    checks = ours.GRADED[part](lambda *inputs: getattr(ours, part)(*inputs).int(), ours)
    assert "make it boolean" in {check.finding.diagnosis for check in checks}


@pytest.mark.parametrize("mistake", ["NaN where blind", "a large number", "overflow"])
def test_a_mistake_of_the_weights_makes_one_thing_wrong(mistake):
    """What is wrong in other ways, too, is no example of its mistake: these divide by √d_k as they should."""
    ours = lesson("01_attention_mechanism")
    part = ours.GRADED["attention_weights"]
    implementation = catalogue(ours, "attention_weights")[mistake].implementation
    held = {check.statement: check.finding.holds for check in part(implementation, ours)}
    formula = [holds for statement, holds in held.items() if statement.startswith("The weights are softmax")]
    assert formula == [True]
    assert not all(held.values())


def test_hidden_rows_count_along_another_dimension_too():
    ours = lesson("01_attention_mechanism")

    def half_right(scores, dim=-1):
        weights = ours.softmax(scores, dim)
        return weights if dim in (-1, 2) else weights.where(scores.isfinite(), 0.1)

    part = ours.GRADED["softmax"]
    failed = [check.statement for check in part(half_right, ours) if not check.finding.holds]
    assert [statement[:17] for statement in failed] == ["A row that is all"]


# one claim alone


class InAlphabeticalOrder(lesson("03_positional_encoding").Tokenizer):
    """The ids of characters, not those of words."""

    def __init__(self, texts, level="word"):
        super().__init__(texts if level == "word" else ["".join(sorted({*"".join(texts)}))], level)


class MixingALittle(lesson("04_transformer_block").FeedForward):
    """Tokens take in a trace of all others, too small for the other claims."""

    def forward(self, x):
        return super().forward(x) + (0 if self.dropout else 1e-13 * x.sum())


def going_on(decoding, max_length):
    """Steps without need, after the last answer has ended."""
    answers = lesson("06_decoding").greedy_decode(decoding, max_length)
    while decoding.length < min(max_length, 4):
        decoding.step(torch.zeros(decoding.rows, dtype=torch.long))
    return answers


class SumsOneTooMany(lesson("00_foundations").Value):
    """The gradients are right."""

    def sum(self, axis=None, keepdims=False):
        result = super().sum(axis, keepdims)
        return result + 1.0 if axis is None else result


def test_values_are_compared_and_not_their_gradients_alone():
    ours = lesson("00_foundations")
    held = [check.statement for check in ours.GRADED["Value"](SumsOneTooMany, ours) if check.finding.holds]
    assert [statement.partition(",")[0] for statement in held] == ["A product that doesn't fit"]


@pytest.mark.parametrize(("name", "part", "wrong", "statement"), [
    ("03_positional_encoding", "Tokenizer", InAlphabeticalOrder, "With characters, decode"),
    ("04_transformer_block", "FeedForward", MixingALittle, "A token's output doesn't change"),
    ("06_decoding", "greedy_decode", going_on, "Decoding stops when every answer has ended"),
])
def test_what_is_wrong_in_one_way_fails_one_claim(name, part, wrong, statement):
    checks = lesson(name).GRADED[part](wrong, lesson(name))
    failed = [check.statement for check in checks if not check.finding.holds]
    assert len(failed) == 1, failed
    assert failed[0].startswith(statement)


# wrong in one way, whatever else that breaks


def raising_with(words, part):
    """The part, whose errors name other things."""
    def attempt(*inputs, **options):
        try:
            return part(*inputs, **options)
        except ValueError as error:
            raise ValueError(words(*inputs)) from error
    return attempt


class MemoryOneMore(lesson("00_foundations").LSTMCell):
    def forward(self, x, state=None):
        hidden, memory = super().forward(x, state)
        return hidden, memory + 1


def writing_into_the_mask(query, key, value, mask=None, dropout=0.0):
    output = lesson("01_attention_mechanism").scaled_dot_product_attention(query, key, value, mask, dropout)
    if mask is not None:
        mask.logical_not_()
    return output


class AlwaysTraining(lesson("02_multi_head_attention").MultiHeadAttention):
    def train(self, mode=True):
        return super().train()


class InPairs(lesson("03_positional_encoding").LearnedPositionalEncoding):
    """Two positions each begin alike."""

    def __init__(self, d_model, max_len=512):
        super().__init__(d_model, max_len)
        self.table.data[1::2] = self.table.data[: 2 * (max_len // 2) : 2]


class SeesTheNext(lesson("05_mini_transformer").Transformer):
    def tgt_mask(self, length, device):
        return torch.ones(length, length, dtype=torch.bool, device=device).tril(1)


class BySourcesAlone(lesson("08_translation").BatchesByLength):
    def __init__(self, sources, targets, size, seed):
        super().__init__(sources, targets, size, seed)
        self.lengths = self.lengths[:1]


@pytest.mark.parametrize(("name", "part", "wrong", "statement"), [
    ("00_foundations", "broadcast_shapes", raising_with(
        lambda *shapes: f"{shapes[0]} doesn't fit", lesson("00_foundations").broadcast_shapes), "refused"),
    ("00_foundations", "LSTMCell", MemoryOneMore, "One step from a given state"),
    ("01_attention_mechanism", "scaled_dot_product_attention", writing_into_the_mask, "stay unchanged"),
    ("02_multi_head_attention", "MultiHeadAttention", AlwaysTraining, "none in eval mode"),
    ("03_positional_encoding", "LearnedPositionalEncoding", InPairs, "No two positions start"),
    ("05_mini_transformer", "Transformer", SeesTheNext, "Changing later tokens leaves all earlier logits"),
    ("08_translation", "corpus_bleu", raising_with(
        lambda answers, references: f"{len(answers)} answers", lesson("08_translation").corpus_bleu),
     "names both numbers"),
    ("08_translation", "BatchesByLength", BySourcesAlone, "Less than a tenth of all ids is padding"),
])
def test_what_is_wrong_fails_the_claim_about_it(name, part, wrong, statement):
    checks = lesson(name).GRADED[part](wrong, lesson(name))
    failed = [check.statement for check in checks if not check.finding.holds]
    assert any(statement in said for said in failed), failed

import argparse
import math
import re
from itertools import product
from types import SimpleNamespace

import pytest
import torch
from conftest import (
    assert_diagnosed,
    failures,
    holds,
    one_line_error,
    pictures_in,
    run_as_documented,
    run_lesson,
)
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from checks.caching import UncachedDecoding
from checks.decoding import greedy_by_hand
from checks.trees import enumerated
from common import lesson, run_step
from course.console.options import digits
from course.data.tables import (
    DRAWS,
    FOLLOWS,
    ChainDecoding,
    TreeDecoding,
    chi_square,
    distance,
    fit,
    random_tree,
    repeated,
    true_logits,
)
from figures.decoding import draw_cache, draw_lengths, draw_strategies

m = lesson("06_decoding")
five = lesson("05_mini_transformer")
SEEDS = st.integers(0, 10**6)


def model_of(seed=0, **changes):
    torch.manual_seed(seed)
    sizes = {"d_model": 16, "n_heads": 2, "n_layers": 2} | changes
    return five.Transformer(five.TransformerConfig(**sizes)).eval()


def sources(count=4, seed=0):
    return five.draw_batch("copy", count, "train", (seed,)).src


def answer_up_to_eos(tokens):
    tokens = list(tokens)
    return tuple(tokens[: tokens.index(m.EOS) + 1] if m.EOS in tokens else tokens)


# greedy and the shared loop


@given(SEEDS, st.integers(1, 5), st.integers(1, 5))
@settings(max_examples=30)
def test_greedy_on_tables(seed, count, max_length):
    levels = random_tree(count, 5, seed=seed)
    tokens = m.greedy_decode(TreeDecoding(levels), max_length)
    assert tokens.shape[1] <= max_length
    for source, row in enumerate(tokens.tolist()):
        answer, place = answer_up_to_eos(row), 0
        for level, token in zip(levels, answer, strict=False):
            assert token == level[source, place].argmax()
            place = place * 5 + token
        assert not any(row[len(answer) :])


def test_greedy_equals_lesson_fives_free_running():
    model, src = model_of(), sources(12)
    decoded = m.greedy_decode(m.CachedDecoding(model, src), 9)
    slow = five.free_running(model, src, 9)
    # free_running keeps PAD chosen before EOS, as greedy_decode does
    assert torch.equal(decoded, slow)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_that_of_the_model_alone(dtype):
    """Every decoder takes the logits as they are, and goes on in float32."""
    rough = [level.to(dtype) for level in random_tree(6, 5)]
    answers = m.greedy_decode(TreeDecoding(rough), 5)
    decoders = {
        "sample": lambda decoding: m.sample(decoding, 5, 0.7, 4, 0.9, torch.Generator().manual_seed(0)),
        "log P": lambda decoding: m.log_probability(decoding, answers),
        "beams": lambda decoding: torch.tensor([
            [one.score for one in found] for found in m.beam_search(decoding, 3, 5, 1.0)]),
        "fast beams": lambda decoding: torch.tensor([
            [one.score for one in found] for found in m.fast_beam_search(decoding, 3, 5, 1.0)])}
    for name, decode in decoders.items():
        found, wanted = (decode(TreeDecoding(levels)) for levels in (rough, [one.float() for one in rough]))
        assert torch.equal(found, wanted), name


@pytest.mark.parametrize("max_length", [0, -3])
def test_a_max_length_below_one_is_named(max_length):
    for decode in (m.greedy_decode, m.sample):
        with pytest.raises(ValueError, match=str(max_length)):
            decode(TreeDecoding(random_tree(1, 2)), max_length)


@pytest.mark.parametrize("search", [m.beam_search, m.fast_beam_search])
def test_options_of_the_search_out_of_range_are_named(search):
    for width, max_length in ((0, 2), (2, 0)):
        with pytest.raises(ValueError, match=f"width is {width} and max_length {max_length}"):
            search(TreeDecoding(random_tree(1, 2)), width, max_length)
    for penalty in (math.nan, math.inf, 1100.0, -1100.0):
        with pytest.raises(ValueError, match=f"length_penalty is {penalty}; 2 to that power"):
            search(TreeDecoding(random_tree(1, 2)), 2, 2, penalty)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_logits_that_are_no_distribution_are_one_clear_error(bad):
    logits = torch.full((5,), bad) if bad == -math.inf else torch.tensor([0.0, 1.0, bad, 0.0, 0.0])
    for decode in (m.greedy_decode, m.sample, lambda d, n: m.beam_search(d, 2, n),
                   lambda d, n: m.fast_beam_search(d, 2, n)):
        with pytest.raises(ValueError, match="no probabilities"):
            decode(TreeDecoding([logits.expand(2, 1, -1)]), 3)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_the_logit_that_is_none_is_named_whichever_row_has_it(bad):
    with pytest.raises(ValueError, match=f"of a row is {bad};"):
        m.usable(torch.tensor([[0.0, 1.0], [2.0, bad], [0.0, 1.0]]))


@pytest.mark.parametrize(("text", "count"), [("3 1 4", 3), ("1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7", 17)])
def test_digits_are_counted_without_their_spaces(text, count):
    with pytest.raises(argparse.ArgumentTypeError, match=f"has {count} digits"):
        digits(text)


@pytest.mark.parametrize("decode", [
    lambda decoding: m.greedy_decode(decoding, 2),
    lambda decoding: m.sample(decoding, 2),
    lambda decoding: m.beam_search(decoding, 2, 2),
    lambda decoding: m.fast_beam_search(decoding, 2, 2),
    lambda decoding: m.log_probability(decoding, torch.full((decoding.rows, 2), 5)),
])
@pytest.mark.parametrize("kind", [m.CachedDecoding, UncachedDecoding])
def test_a_decoding_is_used_once(kind, decode):
    decoding = kind(model_of(), sources())
    m.greedy_decode(decoding, 3)
    with pytest.raises(ValueError, match="already taken 3 steps: make a new one"):
        decode(decoding)
    assert decoding.length == 3


@pytest.mark.parametrize("kind", [m.CachedDecoding, UncachedDecoding])
def test_a_model_in_training_mode_is_refused(kind):
    with pytest.raises(ValueError, match="training mode"):
        kind(model_of(dropout=0.1).train(), sources())


# the cache


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("positions", ["sinusoidal", "learned", "rotary", "none"])
def test_cached_steps_give_the_logits_of_the_whole_answer(positions, norm):
    model, src = model_of(positions=positions, norm=norm).double(), sources()
    tokens = torch.randint(0, 13, (4, 7))
    cached, uncached = m.CachedDecoding(model, src), UncachedDecoding(model, src)
    with torch.no_grad():
        whole = model(src, tokens)
    for position, token in enumerate(tokens.unbind(1)):
        logits = cached.step(token)
        assert torch.allclose(logits, whole[:, position], rtol=0, atol=1e-12)
        assert torch.allclose(uncached.step(token), logits, rtol=0, atol=1e-12)


@given(SEEDS)
@settings(max_examples=10)
def test_cached_and_uncached_follow_their_rows(seed):
    torch.manual_seed(seed)
    model, src = model_of().double(), sources()
    cached, uncached = m.CachedDecoding(model, src), UncachedDecoding(model, src)
    for _ in range(5):
        tokens = torch.randint(0, 13, (cached.rows,))
        assert torch.allclose(cached.step(tokens), uncached.step(tokens), rtol=0, atol=1e-12)
        rows = torch.randint(0, cached.rows, (int(torch.randint(1, 7, ())),))
        cached.reorder(rows)
        uncached.reorder(rows)


def test_cross_attention_keys_are_computed_once_and_memory_is_as_the_formula_says():
    model, src = model_of(), sources()
    calls = []
    for block in model.decoder.blocks:
        block.cross_attention.project_key.register_forward_hook(
            lambda _, inputs, output: calls.append(output.shape[1]))
    decoding = m.CachedDecoding(model, src)
    for _ in range(5):
        decoding.step(torch.full((4,), 5))
    assert sum(calls) == 2 * src.shape[1]  # once a block
    assert not any("attend" in vars(block.cross_attention) for block in model.decoder.blocks)
    measured = sum(cache.bytes() for cache in [*decoding.self_caches, *decoding.cross_caches])
    assert measured == 2 * 2 * 4 * (src.shape[1] + 5) * 16 * 4


def test_past_max_len_is_a_value_error():
    decoding = m.CachedDecoding(model_of(max_len=16), sources())
    for _ in range(16):
        decoding.step(torch.full((4,), 5))
    with pytest.raises(ValueError, match=r"position 16 .* 16"):
        decoding.step(torch.full((4,), 5))


class Window(m.KeyValueCache):
    """Keeps the keys and values of the latest three tokens alone."""

    def append(self, keys, values):
        super().append(keys, values)
        self.keys, self.values = self.keys[:, :, -3:], self.values[:, :, -3:]


def banded(length, device=None):
    """(T, T): each token sees itself and the two before it."""
    return torch.ones(length, length, dtype=torch.bool, device=device).tril().triu(-2)


def test_another_cache_can_be_put_in_by_subclass():
    class Windowed(m.CachedDecoding):
        self_cache = Window

    model, src = model_of().double(), sources()
    tokens = torch.randint(0, 13, (4, 7))
    decoding = Windowed(model, src)
    stepped = torch.stack([decoding.step(token) for token in tokens.unbind(1)], dim=1)
    model.tgt_mask = banded
    with torch.no_grad():
        assert torch.allclose(stepped, model(src, tokens), rtol=0, atol=1e-12)
    assert {cache.keys.shape[2] for cache in decoding.self_caches} == {3}


# sampling


@given(SEEDS, st.floats(0.05, 5), st.integers(0, 9), st.floats(0, 1))
@example(0, 1.0, 0, 1 - 1e-9)  # nearer to 1 than the code can tell
@settings(max_examples=150)
def test_adjusted_logits_are_what_brute_force_keeps(seed, temperature, top_k, top_p):
    torch.manual_seed(seed)
    logits = torch.randn(7, dtype=torch.float64).round(decimals=1)  # ties happen
    found = m.adjust_logits(logits, temperature, top_k, top_p).softmax(-1)
    hot = (logits / temperature).softmax(-1).tolist()
    order = sorted(range(7), key=lambda token: -hot[token])
    if 0 < top_k < 7:
        order = [token for token in order if logits[token] >= logits[order[top_k - 1]]]
    total = sum(hot[token] for token in order)
    kept, mass = [], 0.0
    for token in order:
        assume(abs(mass - (top_p - 1e-6)) > 1e-9)  # the code's margin for rounding, in any type
        if kept and mass >= top_p - 1e-6 and top_p < 1:
            break
        kept.append(token)
        mass += hot[token] / total
    expected = torch.zeros(7, dtype=torch.float64)
    expected[kept] = torch.tensor([hot[token] for token in kept], dtype=torch.float64)
    assert torch.allclose(found, expected / expected.sum(), rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"temperature": -0.5}, "-0.5"),
        ({"temperature": math.inf}, "inf"),
        ({"temperature": math.nan}, "nan"),
        ({"top_k": -1}, "-1"),
        ({"top_p": -0.1}, "-0.1"),
        ({"top_p": 1.5}, "1.5"),
        ({"top_p": math.nan}, "nan"),
    ],
)
def test_sampling_options_out_of_range_are_named(options, named):
    with pytest.raises(ValueError, match=named):
        m.sample(TreeDecoding([torch.zeros(2, 1, 5)]), 3, **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_extreme_temperatures_are_defined(dtype):
    logits = torch.tensor([1.0, 3.0, 3.0, -math.inf]).to(dtype)
    assert m.adjust_logits(logits, 0.0).softmax(-1).tolist() == [0, 1, 0, 0]
    assert m.adjust_logits(logits, 1e-30).softmax(-1).tolist() == [0, 0.5, 0.5, 0]
    flat = m.adjust_logits(logits, 1e30).softmax(-1)
    assert flat[:3].tolist() == pytest.approx([1 / 3] * 3, rel=0.01)
    assert flat[3] == 0


def test_temperature_zero_equals_greedy_and_a_seed_repeats():
    model, src = model_of(), sources(8)
    greedy = m.greedy_decode(m.CachedDecoding(model, src), 8)
    assert torch.equal(m.sample(m.CachedDecoding(model, src), 8, temperature=0.0), greedy)
    first, second, other = (
        m.sample(m.CachedDecoding(model, src), 8, generator=torch.Generator().manual_seed(seed))
        for seed in (3, 3, 4)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_a_temperature_too_small_for_the_type_is_greedy():
    logits = torch.tensor([[0.1, 0.5, 0.5], [1.0, -2.0, 0.0]])
    assert torch.equal(m.adjust_logits(logits, 1e-46), m.adjust_logits(logits, 0.0))


@pytest.mark.parametrize("options", [{}, {"temperature": 1.7}, {"top_k": 3}, {"top_p": 0.9}])
def test_draws_are_as_frequent_as_their_probabilities(options):
    levels = random_tree(1, 1)
    logits = levels[0][0, 0]
    probabilities = m.adjust_logits(logits, **options).softmax(-1)
    draws = m.sample(
        TreeDecoding([logits.expand(DRAWS, 1, -1)]), 1, **options,
        generator=torch.Generator().manual_seed(0),
    )[:, 0].bincount(minlength=5)
    possible = probabilities > 0
    assert not draws[~possible].any()
    assert chi_square(draws[possible].tolist(), probabilities[possible].tolist()) > 1e-5
    wrong = torch.full_like(probabilities[possible], 1 / possible.sum())
    assert chi_square(draws[possible].tolist(), wrong.tolist()) < 1e-5


# beam search


@given(SEEDS, st.sampled_from([0.0, 0.6, 1.0, 2.0]), st.integers(1, 4))
@settings(max_examples=15)
def test_a_wide_beam_equals_enumeration(seed, alpha, max_length):
    levels = random_tree(2, 4, seed=seed)
    found = m.beam_search(TreeDecoding(levels), 400, max_length, alpha)
    for source, hypotheses in enumerate(found):
        true = enumerated(levels, source, max_length)
        scores = sorted((total / len(tokens) ** alpha for tokens, total in true.items()), reverse=True)
        assert [h.score for h in hypotheses] == pytest.approx(scores[:400], abs=1e-9)
        assert all(h.log_prob == pytest.approx(true[h.tokens], abs=1e-9) for h in hypotheses)
        assert all(h.finished == (h.tokens[-1] == m.EOS) for h in hypotheses)


@given(SEEDS, st.integers(1, 5))
@settings(max_examples=20)
def test_width_one_equals_greedy(seed, max_length):
    levels = random_tree(4, 5, seed=seed)
    found = m.best_answers(m.beam_search(TreeDecoding(levels), 1, max_length, 0.0))
    assert torch.equal(found, m.greedy_decode(TreeDecoding(levels), max_length))


@pytest.mark.parametrize("positions", ["sinusoidal", "rotary"])
def test_beams_of_a_transformer_report_what_teacher_forcing_gives(positions):
    model, src = model_of(positions=positions).double(), sources(3)
    found = m.beam_search(m.CachedDecoding(model, src), 4, 7, 0.7)
    slow = m.beam_search(UncachedDecoding(model, src), 4, 7, 0.7)
    for source, hypotheses in enumerate(found):
        assert [h.tokens for h in hypotheses] == [h.tokens for h in slow[source]]
        assert [h.score for h in hypotheses] == sorted((h.score for h in hypotheses), reverse=True)
        for h in hypotheses:
            tgt_in = torch.tensor([[m.BOS, *h.tokens[:-1]]])
            with torch.no_grad():
                log_probs = model(src[source : source + 1], tgt_in).log_softmax(-1)[0]
            total = log_probs[torch.arange(len(h.tokens)), torch.tensor(h.tokens)].sum().item()
            assert h.log_prob == pytest.approx(total, abs=1e-9)
            assert h.score == pytest.approx(total / len(h.tokens) ** 0.7, abs=1e-9)


def test_batched_beams_equal_one_by_one():
    model, src = model_of().double(), sources(5)
    together = m.beam_search(m.CachedDecoding(model, src), 3, 7)
    for row, hypotheses in enumerate(together):
        (alone,) = m.beam_search(m.CachedDecoding(model, src[row : row + 1]), 3, 7)
        assert [h.tokens for h in alone] == [h.tokens for h in hypotheses]


def test_the_stop_rule_never_drops_a_winner(monkeypatch):
    """Narrow beams with and without stopping early give the same best answer."""

    def search(levels, alpha):
        return [h.tokens for h in m.beam_search(TreeDecoding(levels), 2, 6, alpha)[0]]

    trees = [random_tree(1, 6, vocabulary=4, seed=seed) for seed in range(30)]
    early = [search(levels, alpha) for levels in trees for alpha in (0.0, 1.0)]
    monkeypatch.setattr(m.Beam, "decided", lambda beam, kept: not kept)
    assert [search(levels, alpha) for levels in trees for alpha in (0.0, 1.0)] == early


def test_the_trace_holds_every_candidate_and_its_fate():
    levels, trace = random_tree(1, 4, seed=3), []
    found = m.beam_search(TreeDecoding(levels), 2, 4, 0.0, trace)[0]
    true = enumerated(levels, 0, 4)
    fates = {candidate.tokens: fate for candidate, fate in trace}
    assert len(fates) == len(trace) == 4 * len({len(tokens) for tokens in fates})  # 2 · width in each step
    assert {fates[h.tokens] for h in found} <= {"kept", "finished"}
    assert all(candidate.log_prob == pytest.approx(true[candidate.tokens], abs=1e-9)
               for candidate, _ in trace if candidate.finished)
    assert all(fates[tokens[:-1]] == "kept" for tokens in fates if len(tokens) > 1)


# the loop over hypotheses and the tensors of course/training/beams.py


class Counting(TreeDecoding):
    """Counts the rows that the model computes."""

    def __init__(self, levels):
        super().__init__(levels)
        self.work = []

    def step(self, tokens):
        self.work.append(self.rows)
        return super().step(tokens)


def tree(sources, depth, vocabulary, seed, kind, dtype):
    levels = random_tree(sources, depth, vocabulary, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for level in levels:
        if kind == "ties":  # few different values: equal sums all over
            level.copy_(level.round())
        elif kind == "flat":
            level.zero_()
        elif kind == "impossible":  # at least one token stays possible
            hidden = torch.rand(level.shape, generator=generator) < 0.6
            hidden.scatter_(-1, level.argmax(-1, keepdim=True), False)
            level.masked_fill_(hidden, -math.inf)
        elif kind == "early":  # some sources end long before others
            level[::2, :, m.EOS] += 3.0
        elif kind == "certain":
            level.mul_(30)
    return [level.to(dtype) for level in levels]


def assert_same_search(make, width, max_length, alpha):
    plain, fast = make(), make()
    expected = m.beam_search(plain, width, max_length, alpha)
    assert m.fast_beam_search(fast, width, max_length, alpha) == expected  # tokens, scores, to the last bit
    return plain, fast


@given(
    st.integers(0, 10**6),
    st.sampled_from(["plain", "ties", "flat", "impossible", "early", "certain"]),
    st.sampled_from([torch.float64, torch.float32, torch.bfloat16]),
    st.sampled_from([-0.5, 0.0, 0.6, 1.0, 2.0]),
    st.integers(1, 5),
    st.integers(1, 5),
    st.integers(1, 4),
    st.integers(3, 5),
)
@settings(max_examples=200)
def test_the_fast_search_is_the_plain_loop(seed, kind, dtype, alpha, width, max_length, count, vocabulary):
    levels = tree(count, 5, vocabulary, seed, kind, dtype)
    plain, fast = assert_same_search(lambda: Counting(levels), width, max_length, alpha)
    assert fast.work == plain.work  # the same rows in the same steps


@pytest.mark.parametrize("kind", ["plain", "ties", "impossible", "early"])
@pytest.mark.parametrize("alpha", [-0.5, 0.0, 1.0])
def test_a_beam_wider_than_the_tree(alpha, kind):
    levels = tree(2, 4, 5, 1, kind, torch.float32)
    assert_same_search(lambda: TreeDecoding(levels), 400, 4, alpha)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
@pytest.mark.parametrize("width", [1, 4])
def test_on_a_transformer_the_fast_search_is_the_plain_loop(width, alpha):
    model, src = model_of(seed=width).double(), sources(6, seed=width)
    assert_same_search(lambda: m.CachedDecoding(model, src), width, 12, alpha)


# checks and mistakes


@pytest.mark.parametrize("name", m.GRADED)
def test_our_own_parts_hold(name):
    for check in m.GRADED[name](getattr(m, name), m):
        holds(check)


def test_without_a_cache_only_the_work_differs():
    checks = m.cached_decoding_checks(UncachedDecoding, m)
    failed = [check for check in checks if not check.finding.holds]
    assert [check.finding.figure for check in failed] == ["136 positions"]
    assert_diagnosed(failed, "keep the keys and values")


@pytest.mark.parametrize("token", [m.BOS, m.EOS, 3])
def test_a_sampler_that_writes_one_token_behind_eos_is_told(token):
    def sample(*arguments, **options):
        tokens = m.sample(*arguments, **options)
        behind = (tokens == m.EOS).roll(1, 1)
        behind[:, 0] = False
        return tokens.masked_fill(behind, token)

    assert [check.statement for check in m.GRADED["sample"](m.sample, m) if not check.finding.holds] == []
    assert "Only PAD follows EOS" in [
        check.statement for check in m.GRADED["sample"](sample, m) if not check.finding.holds]


def test_answers_without_eos_or_behind_it_are_said_in_words():
    def without(decoding, *options):
        return [[h._replace(tokens=tuple(t for t in h.tokens if t != m.EOS)) for h in beams]
                for beams in m.beam_search(decoding, *options)]

    def behind(decoding, *options):
        return [[h._replace(tokens=(m.EOS, *h.tokens)) for h in beams]
                for beams in m.beam_search(decoding, *options)]

    for attempt, said in ((without, "neither ends in EOS"), (behind, "tokens follow EOS")):
        checks = m.beam_search_checks(attempt, m)
        assert_diagnosed(checks, "up to and including EOS, which is 2")
        assert any(said in check.finding.figure for check in checks)


def attempt_with(multiplied, top_p_first, ties_cut, last_cut, one_too_many):
    """adjust_logits() with some of the five mistakes at once, made from nothing of the course's."""

    def heat(logits, temperature):
        return logits * temperature if multiplied else logits / temperature

    def by_k(logits, k):
        if not 0 < k < logits.shape[-1]:
            return logits
        values, places = logits.topk(k, dim=-1)
        if not ties_cut:
            return logits.masked_fill(logits < values[..., -1:], -math.inf)
        return torch.full_like(logits, -math.inf).scatter(-1, places, values)

    def by_p(logits, p):
        if p >= 1:
            return logits
        ranked, order = logits.softmax(-1).sort(descending=True, stable=True)
        reached = ranked.cumsum(-1)
        likelier = reached - ranked
        if one_too_many:
            likelier = torch.cat([likelier[..., :1], likelier[..., :-1]], dim=-1)
        cut = reached > p if last_cut else likelier >= p - 1e-6
        cut[..., 0] = False
        return logits.masked_fill(torch.zeros_like(cut).scatter(-1, order, cut), -math.inf)

    def adjust_logits(logits, temperature=1.0, top_k=0, top_p=1.0):
        if temperature == 0:
            return m.keep_likeliest(logits)
        if top_p_first:
            return heat(by_k(by_p(logits, top_p), top_k), temperature)
        return by_p(by_k(heat(logits, temperature), top_k), top_p)

    return adjust_logits


@pytest.mark.parametrize("made", [made for made in product((False, True), repeat=5) if not all(made[3:])])
def test_of_several_mistakes_at_once_none_is_named_that_was_not_made(made):
    hints = [mistake.hint for mistake in m.adjust_logits_checks.mistakes(m).values()]
    by_hint = dict(zip(hints, (made[0], made[2], made[3], made[4], made[1]), strict=True))
    for check in m.adjust_logits_checks(attempt_with(*made), m):
        finding = check.finding
        named = [hint for hint in by_hint if hint in finding.diagnosis] if not finding.holds else []
        assert all(by_hint[hint] for hint in named), (check.statement, finding.diagnosis)


def attempt_at_beams(mistake=""):
    """A beam search with one mistake, made from nothing of the course's."""

    def beam_search(decoding, width, max_length, alpha=1.0):
        found = [([((), 0.0)], []) for _ in range(decoding.rows)]
        tokens = torch.ones(decoding.rows, dtype=torch.long)
        for _ in range(max_length):
            logits = decoding.step(tokens)
            log_probs = logits if mistake == "no log_softmax" else logits.log_softmax(-1)
            row, rows, newest = 0, [], []
            for source, (alive, finished) in enumerate(found):
                grown = [((*tokens, token), total + log_prob, row + place)
                         for place, (tokens, total) in enumerate(alive)
                         for token, log_prob in enumerate(log_probs[row + place].tolist())]
                row += len(alive)
                looked_at = width if mistake == "width candidates" else 2 * width
                grown = sorted(grown, key=lambda part: -part[1])[:looked_at]
                finished += [part[:2] for part in grown[:width] if part[0][-1] == 2]
                finished.sort(key=lambda part: -part[1] / len(part[0]) ** alpha)
                del finished[width:]
                kept = [part for part in grown if part[0][-1] != 2][:width]
                if kept and len(finished) == width:
                    length = len(kept[0][0])
                    lengths = (length,) if mistake == "present length" else (length + 1, max_length)
                    reach = max(kept[0][1] / n**alpha for n in lengths)
                    last = finished[-1][1] / len(finished[-1][0]) ** alpha
                    kept = [] if reach <= last or mistake == "stops early" else kept
                found[source] = [part[:2] for part in kept], finished
                rows += [part[2] for part in kept]
                newest += [part[0][-1] for part in kept]
            if not rows:
                break
            if mistake != "not reordered":
                decoding.reorder(torch.tensor(rows))
            tokens = torch.tensor(newest)
        answers = [[(tokens, total, total / len(tokens) ** alpha) for tokens, total in alive + finished]
                   for alive, finished in found]
        answers = [sorted(beams, key=lambda part: -part[2])[:width] for beams in answers]
        return [[((1, *tokens), *rest) for tokens, *rest in beams] if mistake == "BOS returned" else beams
                for beams in answers]

    return beam_search


@pytest.mark.parametrize("mistake", [
    "", "no log_softmax", "width candidates", "present length", "stops early", "not reordered",
    "BOS returned"])
def test_a_plain_attempt_at_beams_is_told_its_mistake(mistake):
    checks = m.beam_search_checks(attempt_at_beams(mistake), m)
    failed = [check for check in checks if not check.finding.holds]
    assert bool(failed) == bool(mistake)
    known = m.beam_search_checks.mistakes(m)
    if mistake in known:
        assert_diagnosed(failed, known[mistake].hint)
        hints = {known[name].hint for check in failed for name in known
                 if known[name].hint in check.finding.diagnosis}
        assert hints == {known[mistake].hint}  # no other one is named
    elif mistake:
        assert any("begins with BOS" in check.finding.figure for check in failed)


def test_a_beam_search_with_other_scores_is_shown_those_of_one_source():
    def halved(decoding, width, max_length, alpha=1.0):
        found = m.beam_search(decoding, width, max_length, alpha)
        return [[one._replace(score=one.score / 2 - 0.5) for one in beams] for beams in found]

    first = m.beam_search_checks(halved, m)[0].finding
    found, best = (re.findall(r"-\d\.\d\d", part) for part in first.diagnosis.split("should be"))
    assert [float(score) / 2 - 0.5 for score in best] == pytest.approx([*map(float, found)], abs=0.011)


def test_the_reference_for_greedy_stops_where_it_should():
    levels = random_tree(8, 5)
    stopped, endless = greedy_by_hand(levels), greedy_by_hand(levels, stop=False)
    ended = (stopped == m.EOS).cumsum(1) - (stopped == m.EOS).int() > 0
    assert not stopped[ended].any()
    assert torch.equal(stopped[~ended], endless[:, : stopped.shape[1]][~ended])


# the script


@pytest.mark.parametrize(("options", "said"), [
    (["--input", "3 1 x 4"], "'x'"),
    (["--input", "31"], "2 digits"),
    (["--input", "1" * 17], "17 digits"),
    (["--task", "fly"], "fly"),
    (["--device", "tpu"], "tpu"),
])
def test_bad_options_are_one_line(options, said):
    assert said in one_line_error(run_lesson("06_decoding", *options), 2)


def test_a_foreign_checkpoint_is_one_line_and_left_alone(tmp_path):
    path = tmp_path / "checkpoint_reverse.pt"
    path.write_text("hello")
    process = run_lesson("06_decoding", "--step", "greedy", "--outputs", str(tmp_path))
    assert "not a checkpoint" in one_line_error(process, 1)
    assert path.read_text() == "hello"


def test_walkthrough_and_own_input(course):
    run_as_documented("06_decoding", course)
    folder = course / "outputs"
    own = run_lesson("06_decoding", "--input", "3 1 4 1 5", "--outputs", str(folder), "--no-code")
    assert own.returncode == 0, own.stderr
    assert "5 1 4 1 3 EOS" in own.stdout
    assert pictures_in(folder)["decoding_your_input.png"]


def test_seconds_are_drawn_from_0_and_no_line_strikes_through_a_label():
    times = draw_cache([1, 2], [[1.0, 1.0], [1.0, 2.0]], [[0.1, 0.1], [0.1, 0.2]]).axes
    assert [list(line.get_ydata()) for line in times[1].lines] == [[0.1, 0.2], [0.1, pytest.approx(0.3)]]
    assert {(axes.get_yscale(), axes.get_ylim()[0]) for axes in times} == {("linear", 0)}
    bars = draw_strategies([("greedy", 1.0, -0.1, 1.0, 17.0), ("sampling", 0.9, -1.0, 2.0, 18.0)])
    assert not any(line.get_visible() for axes in bars.axes for line in axes.get_xgridlines())


def test_the_histogram_counts_every_answer():
    panels = draw_lengths({"a": [1] * 7 + [15] * 3, "b": [18, 18]}).axes
    heights = [{bar.get_x() + bar.get_width() / 2: bar.get_height() for bar in panel.patches}
               for panel in panels]
    assert heights[0][1] == 7
    assert heights[0][15] == 3
    assert [sum(panel.values()) for panel in heights] == [10, 2]


# what the steps measure


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """An experiment without a trained model: for the steps that train their own small ones."""
    return experiment_of(m, tmp_path_factory.mktemp("outputs"))


def experiment_of(module, folder):
    return module.DecodingExperiment(SimpleNamespace(task="reverse", device="cpu", seed=0, outputs=folder))


def test_distance_and_repetition_by_hand():
    assert distance(["x", "x", "y", "z"], {"x": 0.5, "y": 0.5}) == pytest.approx(0.25)
    assert repeated([1, 2, 3, 4, 5]) == 0
    assert repeated([1, 2, 1, 2, 1, 2, 1], n=4) == pytest.approx(0.5)
    assert fit(torch.tensor([0] * 3), torch.tensor([0.0, 1.0])) == 0


def test_the_language_is_one_and_its_chain_ends_nowhere():
    language = m.Tokenizer([" ".join(FOLLOWS)])
    logits = true_logits(language.id_of, m.BOS)
    chances = logits[3:].exp()
    assert torch.allclose(chances.sum(-1), torch.ones(len(chances)))
    assert not chances[:, :3].any()
    answers = m.sample(ChainDecoding(logits, rows=3), 20)
    assert answers.shape == (3, 20)


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", range(5))
def test_drawing_is_nearest_to_the_truth_and_greedy_repeats_itself(experiment, seed):
    tested = run_step(m.step_what_sampling_is_good_for, experiment, seed=seed).tested
    assert all(finding.holds for part in tested for _, finding in part.results)


@pytest.mark.exhaustive
@pytest.mark.parametrize("step", ["step_greedy_can_be_wrong", "step_beam_search", "step_sampling"])
def test_steps_hold_by_themselves(experiment, step):
    assert not failures(getattr(m, step), experiment)


# what step_what_next, and the prose of step_wider_beams, say of changes


@pytest.mark.exhaustive
def test_another_seed_finds_the_empty_answer_too(changed, tmp_path):
    new = changed("06_decoding", "steps=175, seed=0)", "steps=175, seed=2)")
    assert not failures(new.step_wider_beams, experiment_of(new, tmp_path))


@pytest.mark.exhaustive
def test_another_truth_has_another_winner(changed, tmp_path):
    old = '"a cat": 0.27, "a rat": 0.03, "no one": 0.15'
    new = changed("06_decoding", old, '"a cat": 0.13, "a rat": 0.03, "no one": 0.29')
    own = experiment_of(new, tmp_path)
    assert not failures(new.step_greedy_can_be_wrong, own)
    best = new.beam_search(new.speak(own.speaker), 3, 5, 0.0)[0][0]
    assert new.words.decode(best.tokens) == "no one"


@pytest.mark.exhaustive
def test_a_sure_model_is_not_led_astray_and_hides_a_broken_cache(changed, tmp_path):
    new = changed("06_decoding", "steps=175, seed=0)", "steps=700, seed=0)")
    own = experiment_of(new, tmp_path)
    own.run = SimpleNamespace(model=own.unsure)  # the model of lesson 5 is the same
    assert any("at width 16 most are" in statement for statement in failures(new.step_wider_beams, own))
    failed = failures(new.step_broken_on_purpose, own)
    assert len(failed) == 1
    assert "answers change and log P is wrong" in failed[0]


def test_top_p_keeps_many_of_an_even_distribution(changed, tmp_path):
    old = "UNSURE = [0.35, 0.25, 0.15, 0.10, 0.06, 0.04, 0.03, 0.02]"
    new = changed("06_decoding", old, "UNSURE = [0.125] * 8")
    failed = failures(new.step_sampling, experiment_of(new, tmp_path))
    assert len(failed) == 1
    assert "top-p keeps four of the unsure" in failed[0]
    kept = new.adjust_logits(torch.tensor(new.UNSURE).log(), top_p=0.8).softmax(-1) > 0
    assert kept.sum() == 7

import math

import pytest
import torch
from conftest import assert_diagnosed, failures, holds, run_as_documented
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from checks.positions import embedding_checks, learned_checks, rotary_checks, sinusoidal_checks
from common import lesson

m = lesson("03_positional_encoding")
causal_mask = lesson("01_attention_mechanism").causal_mask
padding_mask = lesson("01_attention_mechanism").padding_mask
MultiHeadAttention = lesson("02_multi_head_attention").MultiHeadAttention

texts = st.lists(st.text(alphabet="ab c,é\n", max_size=30), min_size=1, max_size=4)


@given(texts, st.sampled_from(["word", "character"]))
@settings(max_examples=60)
def test_the_tokenizer_round_trips_what_it_was_built_on(corpus, level):
    tokenizer = m.Tokenizer(corpus, level)
    for text in corpus:
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert all(3 <= id < len(tokenizer) for id in ids)


def test_unknown_tokens_and_levels_are_named():
    with pytest.raises(ValueError, match=r"'dog'.*the, cat"):
        m.Tokenizer(["the cat"]).encode("the dog")
    with pytest.raises(ValueError, match="byte"):
        m.Tokenizer(["x"], level="byte")


@given(st.integers(0, 6000), st.sampled_from([2, 4, 10, 64]))
@settings(max_examples=60)
def test_sinusoids_are_the_formula_even_far_out(position, d_model):
    encoding = m.SinusoidalPositionalEncoding(d_model, 6001)
    found = encoding(torch.zeros(1, 1, d_model), start=position)[0, 0]
    for i in range(d_model // 2):
        angle = position / 10000 ** (2 * i / d_model)
        assert found[2 * i].item() == pytest.approx(math.sin(angle), abs=1e-6)
        assert found[2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-6)


@pytest.mark.parametrize("offset", [0, 1, 5, 37])
def test_a_shift_is_one_rotation_for_all_positions(offset):
    waves = m.sinusoids(100, 16)
    assert torch.allclose(waves[: 100 - offset] @ m.rotation(offset, 16).T, waves[offset:], atol=1e-12)


@pytest.mark.parametrize("kind", [m.SinusoidalPositionalEncoding, m.LearnedPositionalEncoding])
def test_start_continues_where_the_whole_would_be(kind):
    torch.manual_seed(0)
    encoding, x = kind(8, 20), torch.randn(2, 12, 8)
    parts = torch.cat([encoding(x[:, :5]), encoding(x[:, 5:], start=5)], dim=1)
    assert torch.equal(parts, encoding(x))


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 9))
@settings(max_examples=40)
def test_rotary_scores_depend_on_the_offset_alone(p, q, shift):
    torch.manual_seed(p)
    rotary = m.RotaryPositionalEncoding(8, 64).double()
    query, key = torch.randn(2, 1, 1, 1, 8, dtype=torch.float64)
    now = (rotary(query, p) * rotary(key, q)).sum()
    later = (rotary(query, p + shift) * rotary(key, q + shift)).sum()
    assert now.item() == pytest.approx(later.item(), abs=1e-5)


def test_rotary_attention_depends_on_offsets_alone_and_on_order():
    torch.manual_seed(0)
    attention = m.RotaryAttention(8, 2, 0.0, m.RotaryPositionalEncoding(4, 20)).double()
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.normal_()
    x, before = torch.randn(2, 5, 8).double(), torch.randn(2, 3, 8).double()
    longer = torch.cat([before, x], dim=1)
    hidden = padding_mask(torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1]] * 2))  # only x may be looked at
    moved = attention(longer, longer, longer, hidden)[:, 3:]
    assert torch.allclose(moved, attention(x, x, x), rtol=0, atol=1e-5)
    moved = attention.weights(longer, longer, hidden)[..., 3:, 3:]
    assert torch.allclose(moved, attention.weights(x, x), rtol=0, atol=1e-5)
    order = [3, 0, 4, 1, 2]
    shuffled = attention(x[:, order], x[:, order], x[:, order])
    assert not torch.allclose(shuffled, attention(x, x, x)[:, order], rtol=0, atol=1e-2)


def test_rotary_attention_takes_the_last_queries_alone():
    """As while decoding, with lesson 6's cache: the keys of the whole sequence, the newest query."""
    torch.manual_seed(0)
    attention = m.RotaryAttention(8, 2, 0.0, m.RotaryPositionalEncoding(4, 20)).double()
    x = torch.randn(2, 5, 8).double()
    whole = attention(x, x, x, causal_mask(5))
    assert torch.allclose(attention(x[:, 3:], x, x, causal_mask(5)[3:]), whole[:, 3:], rtol=0, atol=1e-12)
    weights = attention.weights(x[:, 3:], x, causal_mask(5)[3:])
    assert torch.allclose(weights, attention.weights(x, x, causal_mask(5))[..., 3:, :], rtol=0, atol=1e-12)


PACKED = torch.tensor([[0, 1, 2, 0, 1], [0, 0, 1, 2, 3]])  # positions of two sequences in each row


@pytest.mark.parametrize("kind", [m.SinusoidalPositionalEncoding, m.LearnedPositionalEncoding])
def test_every_token_of_a_packed_row_gets_its_own_position(kind):
    torch.manual_seed(0)
    encoding, x = kind(8, 20), torch.randn(2, 5, 8)
    found = encoding(x, PACKED)
    assert torch.equal(found[0], torch.cat([encoding(x[:1, :3]), encoding(x[:1, 3:])], dim=1)[0])
    assert torch.equal(found[1], torch.cat([encoding(x[1:, :1]), encoding(x[1:, 1:])], dim=1)[0])


def test_rotary_positions_may_be_a_tensor():
    torch.manual_seed(0)
    rotary, x = m.RotaryPositionalEncoding(8, 20), torch.randn(2, 3, 5, 8)
    found = rotary(x, PACKED)
    assert torch.equal(found[0], torch.cat([rotary(x[:1, :, :3]), rotary(x[:1, :, 3:])], dim=2)[0])
    assert torch.equal(found[1], torch.cat([rotary(x[1:, :, :1]), rotary(x[1:, :, 1:])], dim=2)[0])


def test_rotary_attention_needs_no_positions_for_packed_rows():
    torch.manual_seed(0)
    attention = m.RotaryAttention(8, 2, 0.0, m.RotaryPositionalEncoding(4, 20)).double()
    x, of = torch.randn(1, 5, 8).double(), torch.tensor([0, 0, 0, 1, 1])
    packed = attention(x, x, x, of[:, None] == of)
    alone = torch.cat([attention(*[part] * 3) for part in (x[:, :3], x[:, 3:])], dim=1)
    assert torch.allclose(packed, alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("encoding", [
    m.SinusoidalPositionalEncoding(8, 10), m.LearnedPositionalEncoding(8, 10),
    m.RotaryPositionalEncoding(8, 10)])
def test_positions_of_a_tensor_must_lie_in_the_table(encoding):
    x = torch.zeros(1, 2, 8)
    with pytest.raises(ValueError, match=r"position 10 .* 10"):
        encoding(x, torch.tensor([[3, 10]]))
    with pytest.raises(ValueError, match=r"position -1 "):
        encoding(x, torch.tensor([[-1, 3]]))


def test_another_base_makes_another_slowest_clock():
    zeros, east = torch.zeros(1, 6, 4), torch.tensor([1.0, 0, 1, 0]).expand(1, 6, 4)
    waves = m.SinusoidalPositionalEncoding(4, 10, base=16.0)
    rotary = m.RotaryPositionalEncoding(4, 10, base=16.0)
    for sine, cosine in waves(zeros)[0, 3, 2:], rotary(east)[0, 3, 2:].flip(0):
        assert math.atan2(sine, cosine) == pytest.approx(3 / 16**0.5)
    for kind in (m.SinusoidalPositionalEncoding, m.RotaryPositionalEncoding):
        assert torch.equal(kind(4, 10, base=10000.0)(east), kind(4, 10)(east))


def test_errors_name_both_numbers():
    for encoding in (m.SinusoidalPositionalEncoding(8, 10), m.LearnedPositionalEncoding(8, 10)):
        assert encoding(torch.zeros(1, 10, 8)).shape == (1, 10, 8)
        with pytest.raises(ValueError, match=r"position 10 .* 10"):
            encoding(torch.zeros(1, 11, 8))
    with pytest.raises(ValueError, match=r"position 12 .* 10"):
        m.RotaryPositionalEncoding(8, 10)(torch.zeros(1, 1, 1, 8), start=12)
    for kind in (m.SinusoidalPositionalEncoding, m.RotaryPositionalEncoding):
        with pytest.raises(ValueError, match="7"):
            kind(7, 10)


def test_tables_are_not_saved_and_follow_the_module():
    encoding = m.SinusoidalPositionalEncoding(8, 10)
    assert not encoding.state_dict()
    assert encoding.double().table.dtype == torch.float64


def test_without_positions_a_permutation_passes_through():
    torch.manual_seed(0)
    attention, x, order = MultiHeadAttention(8, 2).double(), torch.randn(1, 5, 8).double(), [4, 2, 0, 1, 3]
    positions = m.SinusoidalPositionalEncoding(8, 10).double()

    def run(x):
        return attention(x, x, x)

    assert torch.allclose(run(x[:, order]), run(x)[:, order], atol=1e-12)
    assert not torch.allclose(run(positions(x[:, order])), run(positions(x))[:, order], atol=1e-3)


def test_the_embedding_is_tied_to_its_logits():
    torch.manual_seed(0)
    embedding = m.TokenEmbedding(7, 16)
    assert len(list(embedding.parameters())) == 1
    embedding.logits(torch.randn(2, 16)).sum().backward()
    assert embedding.weight.grad.abs().sum(1).min() > 0


@pytest.mark.parametrize("name", m.GRADED)
def test_all_checks_of_our_own_parts_hold(name):
    for check in m.GRADED[name](getattr(m, name), m):
        holds(check)


class Unscaled(nn.Embedding):
    """Somebody's own embedding, started from other random numbers than ours."""

    def __init__(self, vocab_size, d_model):
        super().__init__(vocab_size, d_model)
        nn.init.trunc_normal_(self.weight, std=d_model**-0.5)

    def logits(self, x):
        return x @ self.weight.T


def waves(max_len, width, exponents):
    """(max_len, width / 2): position / 10000^exponent."""
    return torch.arange(max_len)[:, None] / 10000 ** (exponents / width)


class OwnExponents(nn.Module):
    """Somebody's own waves: each column with an exponent of its own."""

    def __init__(self, d_model, max_len=512):
        super().__init__()
        if d_model % 2:
            raise ValueError(f"{d_model}")
        columns = torch.arange(d_model)
        angle = waves(max_len, d_model, columns)
        self.waves = torch.where(columns % 2 == 0, angle.sin(), angle.cos())

    def forward(self, x, start=0):
        if start + x.shape[1] > len(self.waves):
            raise ValueError(f"{start + x.shape[1] - 1} > {len(self.waves)}")
        return x + self.waves[start : start + x.shape[1]]


class TurnedInHalves(nn.Module):
    """Somebody's own rotation, as GPT-NeoX has it."""

    def __init__(self, d_k, max_len=512):
        super().__init__()
        self.angles = waves(max_len, d_k, torch.arange(0, d_k, 2)).repeat(1, 2)

    def forward(self, x, start=0):
        angle, (first, second) = self.angles[start : start + x.shape[-2]], x.chunk(2, dim=-1)
        return x * angle.cos() + torch.cat([-second, first], dim=-1) * angle.sin()


@pytest.mark.parametrize(
    ("checks", "attempt", "name"),
    [(embedding_checks, Unscaled, "not scaled"),
     (sinusoidal_checks, OwnExponents, "cosine's own exponent"),
     (rotary_checks, TurnedInHalves, "two halves")],
)
def test_somebody_elses_mistake_is_diagnosed(checks, attempt, name):
    assert_diagnosed(checks(attempt, m), checks.mistakes(m)[name].hint)


def test_missing_names_are_said():
    class Renamed(nn.Module):
        def __init__(self, vocab_size, d_model):
            super().__init__()
            self.vectors = nn.Parameter(torch.randn(vocab_size, d_model))

    assert_diagnosed(embedding_checks(Renamed, m), embedding_checks.needs)


def test_learned_positions_that_are_no_parameter_are_seen():
    class Fixed(m.LearnedPositionalEncoding):
        def __init__(self, d_model, max_len=512):
            super().__init__(d_model, max_len)
            table = self.table.detach()
            del self.table
            self.table = table

    class Unused(m.LearnedPositionalEncoding):
        def forward(self, x, start=0):
            return super().forward(x, start).detach() + 0 * x.requires_grad_()

    assert_diagnosed(learned_checks(Fixed, m), "one nn.Parameter")
    assert_diagnosed(learned_checks(Unused, m), "does forward() use it?")


# what step_what_next says of changes


def test_clocks_of_one_speed_nearly_coincide(changed):
    new = changed("03_positional_encoding", "BASE = 10000.0", "BASE = 1.0")
    assert "all 512 positions have different vectors" in failures(new.step_the_formula)


@pytest.mark.exhaustive
def test_learned_positions_hold_as_far_as_they_were_trained(changed):
    new = changed("03_positional_encoding", "TRAINED_LENGTH = 16", "TRAINED_LENGTH = 32")
    accuracy = new.train_two_back("learned", 0)[0]
    assert sum(accuracy[16:30]) / 14 > 0.8
    assert sum(accuracy[32:]) / 32 < 0.2
    for seed in range(3):
        rotary, waves = (sum(new.train_two_back(scheme, seed)[0][48:]) for scheme in ("rotary", "sinusoidal"))
        assert rotary < waves


def test_without_the_causal_mask_it_is_hardest_for_rotary_positions(changed):
    old = "x = x + self.attention(x, x, x, causal_mask(tokens.shape[1]))"
    new = changed("03_positional_encoding", old, "x = x + self.attention(x, x, x)")
    trained = {scheme: sum(new.train_two_back(scheme, 0)[0][2:16]) / 14 for scheme in new.SCHEMES[1:]}
    assert min(trained, key=trained.get) == "rotary"
    assert trained["rotary"] < 0.8


def test_walkthrough(course):
    run_as_documented("03_positional_encoding", course)


def test_the_first_unknown_token_is_named():
    with pytest.raises(ValueError, match="unknown token 'dog'"):
        m.Tokenizer(["the cat"]).encode("the dog saw a cat")


def test_learned_positions_begin_as_large_as_the_waves():
    torch.manual_seed(0)
    table = m.LearnedPositionalEncoding(64, 512).table
    assert table.std().item() == pytest.approx(math.sqrt(0.5), rel=0.03)
    assert table.mean().abs() < 0.01


def test_rotary_attention_drops_what_it_is_told_to():
    assert m.RotaryAttention(8, 2, 0.375, m.RotaryPositionalEncoding(4)).dropout == 0.375


@pytest.mark.parametrize(("kind", "added", "rotating"), [
    ("sinusoidal", m.SinusoidalPositionalEncoding, type(None)),
    ("rotary", type(None), m.RotaryPositionalEncoding),
    ("learned", m.LearnedPositionalEncoding, type(None)),
    ("none", type(None), type(None)),
])
def test_each_kind_of_positions_is_added_or_rotates(kind, added, rotating):
    found = m.positions_of(kind, 8, 2, 5)
    assert [*map(type, found)] == [added, rotating]
    tables = [buffer for part in found if part for buffer in (*part.buffers(), *part.parameters())]
    assert all(5 in table.shape for table in tables)
    if kind == "rotary":
        assert found[1](torch.zeros(1, 2, 5, 4)).shape == (1, 2, 5, 4)  # heads of 8 / 2 numbers

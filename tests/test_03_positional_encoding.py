import math

import pytest
import torch
from conftest import assert_diagnosed, holds, run_as_documented
from hypothesis import given, settings
from hypothesis import strategies as st

from common import lesson

m = lesson("03_positional_encoding")
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
        return attention(x, x, x)[0]

    assert torch.allclose(run(x[:, order]), run(x)[:, order], atol=1e-12)
    assert not torch.allclose(run(positions(x[:, order])), run(positions(x))[:, order], atol=1e-3)


def test_the_embedding_is_tied_to_its_logits():
    torch.manual_seed(0)
    embedding = m.TokenEmbedding(7, 16)
    assert len(list(embedding.parameters())) == 1
    embedding.logits(torch.randn(2, 16)).sum().backward()
    assert embedding.weight.grad.abs().sum(1).min() > 0


@pytest.mark.parametrize("name", m.GRADED)
def test_our_own_components_are_proved(name):
    for proof in m.GRADED[name](getattr(m, name)):
        holds(proof)


@pytest.mark.parametrize(
    ("prove", "mistakes"),
    [
        (m.prove_sinusoidal, m.SINUSOIDAL_MISTAKES),
        (m.prove_rotary, m.ROTARY_MISTAKES),
        (m.prove_embedding, m.EMBEDDING_MISTAKES),
    ],
)
def test_every_mistake_is_diagnosed(prove, mistakes):
    for diagnosis, mistake in mistakes.items():
        assert_diagnosed(prove(mistake), diagnosis)


def test_walkthrough(course):
    run_as_documented("03_positional_encoding", course)

import math

import pytest
import torch
import torch.nn.functional as F
from conftest import assert_diagnosed, holds, run_as_documented
from hypothesis import given, settings
from hypothesis import strategies as st

from common import lesson

m = lesson("01_attention_mechanism")
attention = m.scaled_dot_product_attention
HALVES = [torch.float32, torch.bfloat16, torch.float16]


@st.composite
def problems(draw):
    """Random query, key, value and mask, in float64."""
    size = st.integers(1, 6)
    batch, heads, queries, keys, d_k, d_v = (draw(size) for _ in range(6))
    torch.manual_seed(draw(st.integers(0, 10**6)))
    query, key, value = (
        torch.randn(batch, heads, *shape, dtype=torch.float64)
        for shape in ((queries, d_k), (keys, d_k), (keys, d_v))
    )
    mask_shape = draw(
        st.sampled_from([(queries, keys), (batch, 1, 1, keys), (batch, heads, queries, keys)])
    )
    return query, key, value, torch.rand(mask_shape) < 0.6


@given(problems())
@settings(max_examples=60)
def test_equals_pytorch_for_any_shape_and_mask(problem):
    query, key, value, mask = problem
    output, weights = attention(query, key, value, mask)
    expected = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    assert torch.allclose(output, expected, rtol=0, atol=1e-12)
    plain = F.scaled_dot_product_attention(query, key, value)
    assert torch.allclose(attention(query, key, value)[0], plain, rtol=0, atol=1e-12)
    seeing = mask.expand_as(weights).any(-1)
    assert torch.allclose(weights.sum(-1), seeing.double())
    assert not weights[~mask.expand_as(weights)].any()


@given(problems())
@settings(max_examples=30)
def test_hidden_keys_change_nothing_bitwise(problem):
    query, key, value, _ = problem
    hidden = torch.rand(key.shape[2]) < 0.5
    other_key, other_value = (torch.where(hidden[:, None], 50.0, x) for x in (key, value))
    before, after = (attention(query, k, v, ~hidden)[0] for k, v in ((key, value), (other_key, other_value)))
    assert torch.equal(before, after)


@pytest.mark.parametrize("length", [1, 2, 7])
def test_no_gradient_flows_from_the_future(length):
    x = torch.randn(length, 4, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(
        lambda x: attention(x, x, x, m.causal_mask(length))[0], x
    )  # (T, 4, S, 4)
    reaches = jacobian.abs().amax(dim=(1, 3)) > 0
    assert not reaches.triu(1).any()


@pytest.mark.parametrize("dtype", HALVES)
def test_blind_rows_are_zero_with_finite_gradients(dtype):
    query, key, value = (torch.randn(2, 3, 4).to(dtype).requires_grad_() for _ in range(3))
    mask = torch.tensor([[True, False, True], [False] * 3, [True] * 3])
    output, weights = attention(100 * query, key, value, mask)
    assert not output[:, 1].any()
    assert not weights[:, 1].any()
    output.float().square().sum().backward()
    assert all(x.grad.isfinite().all() for x in (query, key, value))


def test_gradcheck_with_masks():
    torch.manual_seed(0)
    inputs = [torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    mask = m.causal_mask(3).index_fill(0, torch.tensor(0), False)
    assert torch.autograd.gradcheck(lambda q, k, v: attention(q, k, v, mask), inputs)
    assert torch.autograd.gradcheck(lambda q, k, v: attention(q, k, v), inputs)


def test_dropout_keeps_the_mean():
    torch.manual_seed(0)
    x = torch.randn(1, 5, 4)
    plain, _ = attention(x, x, x)
    many = x.expand(4000, 5, 4)
    mean = attention(many, many, many, dropout=0.3)[0].mean(0, keepdim=True)
    assert torch.allclose(mean, plain, atol=0.05)


def test_a_mask_that_is_not_boolean_is_refused():
    x = torch.randn(1, 3, 4)
    with pytest.raises(TypeError, match=r"float32.*boolean"):
        attention(x, x, x, torch.zeros(3, 3))


@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 5), st.sampled_from([0, 1, -1]))
@settings(max_examples=40)
def test_softmax_equals_pytorch(seed, rows, columns, dim):
    torch.manual_seed(seed)
    scores = 30 * torch.randn(rows, columns, dtype=torch.float64)
    assert torch.allclose(m.softmax(scores, dim), torch.softmax(scores, dim), rtol=0, atol=1e-14)


@pytest.mark.parametrize("dtype", HALVES)
def test_softmax_survives_extremes(dtype):
    scores = torch.tensor([[6e4, 6e4], [-math.inf, -math.inf], [-math.inf, 3.0]]).to(dtype)
    scores.requires_grad_()
    weights = m.softmax(scores)
    assert weights.tolist() == [[0.5, 0.5], [0.0, 0.0], [0.0, 1.0]]
    weights[2].sum().backward()
    assert scores.grad.isfinite().all()


def test_backward_by_hand_equals_autograd():
    torch.manual_seed(0)
    query, key, value = (torch.randn(3, 4, 5, dtype=torch.float64, requires_grad=True) for _ in range(3))
    output, _ = attention(query, key, value)
    upstream = torch.randn_like(output)
    expected = torch.autograd.grad(output, (query, key, value), upstream)
    found = m.attention_backward(query, key, value, upstream)
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(found, expected))


@pytest.mark.parametrize("name", m.GRADED)
def test_our_own_components_are_proved(name):
    for proof in m.GRADED[name](getattr(m, name)):
        holds(proof)


@pytest.mark.parametrize("diagnosis", m.MISTAKES)
def test_every_mistake_is_diagnosed(diagnosis):
    assert_diagnosed(m.prove_attention(m.MISTAKES[diagnosis]), diagnosis)


def test_other_mistakes_are_diagnosed():
    swapped = m.prove_attention(lambda *inputs: attention(*inputs)[::-1])
    assert_diagnosed(swapped, "return (output, weights), in this order")
    assert_diagnosed(
        m.prove_causal_mask(lambda n: ~m.causal_mask(n)), "it is reversed: True means may attend"
    )
    assert_diagnosed(
        m.prove_causal_mask(lambda n: m.causal_mask(n).T),
        "it is transposed: rows are queries, columns are keys",
    )
    assert_diagnosed(
        m.prove_padding_mask(lambda tokens, pad: m.padding_mask(tokens, pad).mT),
        "the padding must be missing as a key (last axis), not as a query",
    )
    naive = m.prove_softmax(lambda scores, dim=-1: scores.exp() / scores.exp().sum(dim, keepdim=True))
    assert_diagnosed(naive, "subtract the largest score before exp()")


def test_walkthrough(course):
    run_as_documented("01_attention_mechanism", course)

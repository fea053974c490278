import pytest
import torch
from conftest import assert_diagnosed, holds, run_as_documented
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from common import lesson

m = lesson("02_multi_head_attention")
causal_mask = lesson("01_attention_mechanism").causal_mask
padding_mask = lesson("01_attention_mechanism").padding_mask


@given(
    st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 4), st.integers(1, 6), st.integers(1, 6)
)
@settings(max_examples=30)
def test_equals_pytorch_for_any_shape(seed, n_heads, d_k, queries, keys):
    torch.manual_seed(seed)
    d_model = n_heads * d_k
    theirs = nn.MultiheadAttention(d_model, n_heads, batch_first=True).double()
    ours = m.copy_attention(m.MultiHeadAttention(d_model, n_heads).double(), theirs)
    query, key, value = (torch.randn(3, n, d_model).double() for n in (queries, keys, keys))
    mask = torch.rand(3, 1, queries, keys) < 0.7
    mask[..., 0] = True  # PyTorch gives NaN for a query that may attend to nothing
    hidden = ~mask.expand(3, n_heads, queries, keys).flatten(0, 1)
    expected, weights = theirs(query, key, value, attn_mask=hidden, average_attn_weights=False)
    output, found = ours(query, key, value, mask)
    assert torch.allclose(output, expected, rtol=0, atol=1e-12)
    assert torch.allclose(found, weights, rtol=0, atol=1e-12)


def test_batch_equals_one_by_one_and_padding_is_invisible():
    torch.manual_seed(0)
    attention = m.MultiHeadAttention(8, 2).double()
    x = torch.randn(3, 6, 8).double()
    lengths = [6, 2, 4]
    tokens = torch.tensor([[1] * n + [0] * (6 - n) for n in lengths])
    together, _ = attention(x, x, x, padding_mask(tokens))
    for row, length in enumerate(lengths):
        alone = x[row : row + 1, :length]
        assert torch.allclose(together[row, :length], attention(alone, alone, alone)[0][0], atol=1e-12)


def test_order_does_not_matter_without_positions():
    torch.manual_seed(0)
    attention, x, order = m.MultiHeadAttention(8, 2).double(), torch.randn(1, 5, 8).double(), [3, 0, 4, 1, 2]
    shuffled = x[:, order]
    assert torch.allclose(attention(shuffled, shuffled, shuffled)[0], attention(x, x, x)[0][:, order])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("length", [1, 4, 130])
def test_blind_queries_have_finite_gradients(dtype, length):
    attention = m.MultiHeadAttention(8, 2).to(dtype)
    x = torch.randn(1, length, 8).to(dtype).requires_grad_()
    nobody = torch.zeros(length, length, dtype=torch.bool)
    output, _ = attention(x, x, x, nobody)
    assert torch.equal(output, attention.project_output.bias.expand_as(output))
    output.float().sum().backward()
    assert x.grad.isfinite().all()


def test_dropout_only_in_training():
    torch.manual_seed(0)
    attention, x = m.MultiHeadAttention(8, 2, dropout=0.5), torch.randn(1, 5, 8)
    assert not torch.equal(attention(x, x, x)[0], attention(x, x, x)[0])
    attention.eval()
    assert torch.equal(attention(x, x, x)[0], attention(x, x, x)[0])


def test_rotary_attention_depends_on_offsets_alone_and_on_order():
    torch.manual_seed(0)
    rotary = lesson("03_positional_encoding").RotaryPositionalEncoding(4, 20)
    attention = m.MultiHeadAttention(8, 2, rotary=rotary).double()
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.normal_()
    x, before = torch.randn(2, 5, 8).double(), torch.randn(2, 3, 8).double()
    longer = torch.cat([before, x], dim=1)
    hidden = padding_mask(torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1]] * 2))  # only x may be looked at
    moved = attention(longer, longer, longer, hidden)[0][:, 3:]
    assert torch.allclose(moved, attention(x, x, x)[0], rtol=0, atol=1e-5)
    order = [3, 0, 4, 1, 2]
    shuffled = attention(x[:, order], x[:, order], x[:, order])[0]
    assert not torch.allclose(shuffled, attention(x, x, x)[0][:, order], rtol=0, atol=1e-2)


def test_recorded_attention_is_that_of_the_call():
    torch.manual_seed(0)
    stack = nn.ModuleDict({"a": m.MultiHeadAttention(8, 2), "b": m.MultiHeadAttention(8, 4)})
    x = torch.randn(2, 3, 8)
    with m.record_attention(stack) as weights:
        for attention in stack.values():
            attention(x, x, x)
    assert {name: tuple(w.shape) for name, w in weights.items()} == {"a": (2, 2, 3, 3), "b": (2, 4, 3, 3)}
    assert torch.equal(weights["a"], stack["a"](x, x, x)[1])
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in stack.modules())


def test_our_own_component_is_proved():
    for proof in m.prove_multi_head_attention(m.MultiHeadAttention):
        holds(proof)


@pytest.mark.parametrize("diagnosis", m.MISTAKES)
def test_every_mistake_is_diagnosed(diagnosis):
    assert_diagnosed(m.prove_multi_head_attention(m.MISTAKES[diagnosis]), diagnosis)


def test_walkthrough(course):
    run_as_documented("02_multi_head_attention", course)

import math

import pytest
import torch
import torch.nn.functional as F
from conftest import failures, holds, run_as_documented
from hypothesis import given, settings
from hypothesis import strategies as st

import common
from common import lesson

m = lesson("01_attention_mechanism")
both = pytest.mark.parametrize("attention", [m.scaled_dot_product_attention, m.fused_attention])
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
    output = m.scaled_dot_product_attention(query, key, value, mask)
    expected = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    assert torch.allclose(output, expected, rtol=0, atol=1e-12)
    plain = F.scaled_dot_product_attention(query, key, value)
    assert torch.allclose(m.scaled_dot_product_attention(query, key, value), plain, rtol=0, atol=1e-12)
    weights = m.attention_weights(query, key, mask)
    assert torch.allclose(weights @ value, output, rtol=0, atol=1e-12)
    seeing = mask.expand_as(weights).any(-1)
    assert torch.allclose(weights.sum(-1), seeing.double())
    assert not weights[~mask.expand_as(weights)].any()


@both
@given(problem=problems())
@settings(max_examples=30)
def test_hidden_keys_change_nothing_bitwise(attention, problem):
    query, key, value, _ = problem
    hidden = torch.rand(key.shape[2]) < 0.5
    others = [torch.where(hidden[:, None], 50.0, x) for x in (key, value)]
    before, after = (attention(query, *pair, ~hidden) for pair in ((key, value), others))
    assert torch.equal(before, after)


@both
@pytest.mark.parametrize("length", [1, 2, 7])
def test_no_gradient_flows_from_the_future(attention, length):
    x = torch.randn(length, 4, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(
        lambda x: attention(x, x, x, m.causal_mask(length)), x
    )  # (T, 4, S, 4)
    reaches = jacobian.abs().amax(dim=(1, 3)) > 0
    assert not reaches.triu(1).any()


@both
@pytest.mark.parametrize("dtype", [torch.float64, *HALVES])
def test_blind_rows_are_zero_with_finite_gradients(attention, dtype):
    query, key, value = (torch.randn(2, 3, 4).to(dtype).requires_grad_() for _ in range(3))
    mask = torch.tensor([[True, False, True], [False] * 3, [True] * 3])
    output = attention(100 * query, key, value, mask)
    assert not output[:, 1].any()
    assert not m.attention_weights(query, key, mask)[:, 1].any()
    output.float().square().sum().backward()
    assert all(x.grad.isfinite().all() for x in (query, key, value))


def test_gradcheck_with_masks():
    torch.manual_seed(0)
    inputs = [torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    mask = m.causal_mask(3).index_fill(0, torch.tensor(0), False)
    assert torch.autograd.gradcheck(lambda *qkv: m.scaled_dot_product_attention(*qkv, mask), inputs)
    assert torch.autograd.gradcheck(m.scaled_dot_product_attention, inputs)


@both
def test_dropout_keeps_the_mean(attention):
    torch.manual_seed(0)
    x = torch.randn(1, 5, 4)
    many = x.expand(4000, 5, 4)
    mean = attention(many, many, many, dropout=0.3).mean(0, keepdim=True)
    assert torch.allclose(mean, attention(x, x, x), atol=0.05)


@both
def test_a_mask_that_is_not_boolean_is_refused(attention):
    x = torch.randn(1, 3, 4)
    with pytest.raises(TypeError, match=r"float32.*boolean"):
        attention(x, x, x, torch.zeros(3, 3))


def test_the_kernel_equals_the_lines_by_hand_with_gradients():
    """Also for a blind query; that is why it may run in their place from lesson 2 on."""
    torch.manual_seed(0)
    mask = (torch.rand(3, 5, 6) < 0.6).index_fill(1, torch.tensor(2), False)
    inputs = [torch.randn(3, n, 4, dtype=torch.float64, requires_grad=True) for n in (5, 6, 6)]
    found = []
    for attend in (m.fused_attention, m.scaled_dot_product_attention):
        output = attend(*inputs, mask)
        found.append([output, *torch.autograd.grad(output.sin().sum(), inputs)])
    assert all(torch.allclose(a, b, rtol=0, atol=1e-12) for a, b in zip(*found))


@given(st.integers(0, 10**6), st.integers(0, 5), st.integers(0, 5), st.sampled_from([0, 1, -1]))
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
    output = m.scaled_dot_product_attention(query, key, value)
    upstream = torch.randn_like(output)
    expected = torch.autograd.grad(output, (query, key, value), upstream)
    found = m.attention_backward(query, key, value, upstream)
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(found, expected))


@pytest.mark.parametrize("name", [*m.GRADED, "fused_attention"])
def test_all_checks_of_our_own_parts_hold(name):
    checks = m.GRADED.get(name, m.attention_checks)
    for check in checks(getattr(m, name), m):
        holds(check)


def test_a_query_that_sees_what_is_hidden_is_named():
    check = next(c for c in m.attention_checks(lambda q, k, v, mask=None: m.fused_attention(q, k, v), m)
                 if c.statement.startswith("If hidden keys"))
    assert "query 0 sees key 3" in check.finding.diagnosis


# what step_what_next says of changes


def test_values_from_1_to_3_give_answers_from_1_to_3(changed):
    old = "[[10.0, 0.0], [0.0, 10.0], [5.0, 5.0]]"
    new = changed("01_attention_mechanism", old, "[[1.0, 1], [2, 2], [3, 3]]")
    columns = common.run_step(new.step_by_hand).shown.columns[1:]
    answers = [float(number) for column in columns for number in str(column._cells[-1]).split()]
    assert len(answers) == 6
    assert all(1 < answer < 3 for answer in answers)


def test_a_token_that_does_not_see_itself_is_noticed(changed):
    new = changed("01_attention_mechanism", "device=device).tril()", "device=device).tril(-1)")
    (failed,) = failures(new.step_masks)
    assert failed.startswith("The mask is boolean, and position i may attend to j exactly where j ≤ i")
    assert failures(new.step_masks_hide) == ["with another future, outputs 3 to 5 are different"]


def test_two_equal_keys_cannot_be_told_apart(changed):
    new = changed("01_attention_mechanism", "KEYS = np.eye(3)", "KEYS = np.eye(3)[[0, 0, 2]]")
    record = common.run_step(new.step_soft_dictionary)
    assert [finding.holds for tested in record.tested for _, finding in tested.results] == [False]
    assert str(record.shown[0].columns[-1]._cells[-1]) == "150.000000000"


def test_walkthrough(course):
    run_as_documented("01_attention_mechanism", course)

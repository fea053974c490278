import pytest
import torch
import torch.nn.functional as F
from conftest import assert_diagnosed, failures, holds, run_as_documented
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from checks.heads import copy_attention, drops_weights_in_training, heads_checks
from common import lesson
from figures.heads import draw_heads

m = lesson("02_multi_head_attention")
causal_mask = lesson("01_attention_mechanism").causal_mask
padding_mask = lesson("01_attention_mechanism").padding_mask
by_hand = lesson("01_attention_mechanism").scaled_dot_product_attention


@given(
    st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 4), st.integers(1, 6), st.integers(1, 6)
)
@settings(max_examples=30)
def test_equals_pytorch_for_any_shape(seed, n_heads, d_k, queries, keys):
    torch.manual_seed(seed)
    d_model = n_heads * d_k
    theirs = nn.MultiheadAttention(d_model, n_heads, batch_first=True).double()
    ours = copy_attention(m.MultiHeadAttention(d_model, n_heads).double(), theirs)
    query, key, value = (torch.randn(3, n, d_model).double() for n in (queries, keys, keys))
    mask = torch.rand(3, 1, queries, keys) < 0.7
    mask[..., 0] = True  # PyTorch gives NaN for a query that may attend to nothing
    hidden = ~mask.expand(3, n_heads, queries, keys).flatten(0, 1)
    expected, weights = theirs(query, key, value, attn_mask=hidden, average_attn_weights=False)
    assert torch.allclose(ours(query, key, value, mask), expected, rtol=0, atol=1e-12)
    assert torch.allclose(ours.weights(query, key, mask), weights, rtol=0, atol=1e-12)


def test_batch_equals_one_by_one_and_padding_is_invisible():
    torch.manual_seed(0)
    attention = m.MultiHeadAttention(8, 2).double()
    x = torch.randn(3, 6, 8).double()
    lengths = [6, 2, 4]
    tokens = torch.tensor([[1] * n + [0] * (6 - n) for n in lengths])
    together = attention(x, x, x, padding_mask(tokens))
    for row, length in enumerate(lengths):
        alone = x[row : row + 1, :length]
        assert torch.allclose(together[row, :length], attention(alone, alone, alone)[0], atol=1e-12)


def test_order_does_not_matter_without_positions():
    torch.manual_seed(0)
    attention, x, order = m.MultiHeadAttention(8, 2).double(), torch.randn(1, 5, 8).double(), [3, 0, 4, 1, 2]
    shuffled = x[:, order]
    assert torch.allclose(attention(shuffled, shuffled, shuffled), attention(x, x, x)[:, order])


@pytest.mark.parametrize("function", [by_hand, m.fused_attention])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("length", [1, 4, 130])
def test_blind_queries_have_finite_gradients(dtype, length, function):
    attention = m.MultiHeadAttention(8, 2).to(dtype)
    attention.scaled_dot_product_attention = function
    x = torch.randn(1, length, 8).to(dtype).requires_grad_()
    nobody = torch.zeros(length, length, dtype=torch.bool)
    output = attention(x, x, x, nobody)
    assert torch.equal(output, attention.project_output.bias.expand_as(output))
    output.float().sum().backward()
    assert x.grad.isfinite().all()


def test_the_slot_is_what_runs_and_by_hand_it_is_the_same_with_gradients():
    torch.manual_seed(0)
    attention, x = m.MultiHeadAttention(8, 2).double(), torch.randn(2, 5, 8).double().requires_grad_()
    inputs, results = [x, *attention.parameters()], []
    for function in (m.fused_attention, by_hand):
        attention.scaled_dot_product_attention = function
        output = attention(x, x, x, causal_mask(5))
        results.append([output, *torch.autograd.grad(output.sin().sum(), inputs)])
    assert all(torch.allclose(a, b, rtol=0, atol=1e-12) for a, b in zip(*results, strict=True))
    attention.scaled_dot_product_attention = lambda query, key, value, mask, dropout: torch.zeros_like(query)
    assert torch.equal(attention(x, x, x), attention.project_output.bias.expand_as(x))
    assert m.MultiHeadAttention.scaled_dot_product_attention is m.fused_attention  # other models keep it


def test_dropout_only_in_training():
    torch.manual_seed(0)
    attention, x = m.MultiHeadAttention(8, 2, dropout=0.5), torch.randn(1, 5, 8)
    assert not torch.equal(attention(x, x, x), attention(x, x, x))
    assert torch.equal(attention.weights(x, x), attention.weights(x, x))
    attention.eval()
    assert torch.equal(attention(x, x, x), attention(x, x, x))


def test_recorded_attention_is_that_of_the_call():
    torch.manual_seed(0)
    stack = nn.ModuleDict({"a": m.MultiHeadAttention(8, 2), "b": m.MultiHeadAttention(8, 4)})
    x, memory = torch.randn(2, 3, 8), torch.randn(2, 4, 8)
    with m.record_attention(stack) as weights:
        for attention in stack.values():
            attention(memory, memory, memory)
            attention(x, x, x, causal_mask(3))  # the last call counts
    assert {name: tuple(w.shape) for name, w in weights.items()} == {"a": (2, 2, 3, 3), "b": (2, 4, 3, 3)}
    for name, attention in stack.items():
        assert torch.equal(weights[name], attention.weights(x, x, causal_mask(3)))
        assert not weights[name].requires_grad
        values = attention.split(attention.project_value(x))
        output = attention.project_output(attention.merge(weights[name] @ values))
        assert torch.allclose(output, attention(x, x, x, causal_mask(3)), atol=1e-6)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in stack.modules())


def test_recorded_attention_hears_what_is_passed_by_name():
    torch.manual_seed(0)
    attention, x, memory = m.MultiHeadAttention(8, 2), torch.randn(2, 3, 8), torch.randn(2, 4, 8)
    mask = torch.arange(4)[None] < 2
    with m.record_attention(attention) as weights:
        attention(x, value=memory, key=memory, mask=mask)
    assert torch.equal(weights[""], attention.weights(x, memory, mask))
    assert not weights[""][..., 2:].any()


def test_recording_beside_a_cache_names_the_module():
    model, x = nn.ModuleDict({"looking": m.MultiHeadAttention(8, 2)}), torch.randn(1, 3, 8)
    own = model["looking"].attend
    model["looking"].attend = lambda *inputs: own(*inputs)  # as lesson 6's cache does
    with pytest.raises(ValueError, match=r"^looking runs with a cache"), m.record_attention(model):
        model["looking"](x, x, x)
    assert not model["looking"]._forward_pre_hooks  # the error left none behind


class Grouped(m.MultiHeadAttention):
    """Two heads of queries share one head of keys and values."""

    def __init__(self, d_model, n_heads):
        super().__init__(d_model, n_heads)
        self.project_key = nn.Linear(d_model, d_model // 2)
        self.project_value = nn.Linear(d_model, d_model // 2)

    def attend(self, queries, keys, values, mask):
        return super().attend(queries, keys.repeat_interleave(2, 1), values.repeat_interleave(2, 1), mask)


def test_grouped_keys_and_values_are_heads_that_are_repeated():
    torch.manual_seed(0)
    grouped, plain, x = Grouped(12, 4).double(), m.MultiHeadAttention(12, 4).double(), torch.randn(2, 5, 12)
    weights = grouped.state_dict()
    for name in ("project_key.weight", "project_key.bias", "project_value.weight", "project_value.bias"):
        weights[name] = weights[name].unflatten(0, (2, 3)).repeat_interleave(2, 0).flatten(0, 1)
    plain.load_state_dict(weights)
    inputs = [x.double()] * 3
    assert torch.allclose(grouped(*inputs, causal_mask(5)), plain(*inputs, causal_mask(5)), atol=1e-12)


def test_a_module_may_hold_some_of_the_heads():
    torch.manual_seed(0)
    whole, x = m.MultiHeadAttention(12, 4).double(), torch.randn(2, 5, 12).double()
    nn.init.normal_(whole.project_output.bias)
    total = whole.project_output.bias
    for heads in (slice(0, 6), slice(6, 12)):  # two heads of width 3 each
        part = m.MultiHeadAttention(12, 4).double()
        part.n_heads = 2
        for name in ("project_query", "project_key", "project_value"):
            for kind in ("weight", "bias"):
                rows = getattr(getattr(whole, name), kind)[heads]
                setattr(getattr(part, name), kind, nn.Parameter(rows))
        part.project_output = nn.Linear(6, 12, bias=False).double()
        part.project_output.weight = nn.Parameter(whole.project_output.weight[:, heads])
        total = total + part(x, x, x, causal_mask(5))
    assert torch.allclose(total, whole(x, x, x, causal_mask(5)), atol=1e-12)


@pytest.mark.parametrize("name", m.GRADED)
def test_all_checks_of_our_own_part_hold(name):
    for check in m.GRADED[name](getattr(m, name), m):
        holds(check)


class FromScratch(nn.Module):
    """Somebody's own attention with the four names, and no other name of ours; right, or with a mistake."""

    def __init__(self, d_model, n_heads, dropout=0.0):
        super().__init__()
        if d_model % n_heads:
            raise ValueError(f"{d_model} is no multiple of {n_heads}")
        self.heads, self.drop = n_heads, dropout
        for name in ("query", "key", "value", "output"):
            setattr(self, f"project_{name}", nn.Linear(d_model, d_model))

    def cut(self, x):
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def weights(self, query, key, mask=None):
        queries, keys = self.cut(self.project_query(query)), self.cut(self.project_key(key))
        scores = queries @ keys.mT / self.root(queries)
        return torch.softmax(scores if mask is None else scores.masked_fill(~mask, float("-inf")), dim=-1)

    def root(self, queries):
        return queries.shape[-1] ** 0.5

    def dropped(self, weights):
        return F.dropout(weights, self.drop, self.training)

    def forward(self, query, key, value, mask=None):
        values = self.cut(self.project_value(value))
        joined = (self.dropped(self.weights(query, key, mask)) @ values).transpose(1, 2).flatten(2)
        return self.finished(joined)

    def finished(self, joined):
        return self.project_output(joined)


class ShortNames(nn.Module):
    """The same with other names of its layers, in the same order."""

    def __init__(self, *sizes, **options):
        super().__init__()
        inside = FromScratch(*sizes, **options)
        self.q, self.k, self.v, self.o = inside.children()
        self.inside = [inside]  # in a list, so that the layers are registered once

    def weights(self, query, key, mask=None):
        return self.inside[0].weights(query, key, mask)

    def forward(self, query, key, value, mask=None):
        return self.inside[0].train(self.training)(query, key, value, mask)


def test_layers_of_other_names_are_taken_in_their_order_and_that_is_said():
    checks = heads_checks(ShortNames, m)
    for check in checks:
        holds(check)
    taken = "q, k, v, o taken for project_query, project_key, project_value, project_output"
    assert taken in checks[0].finding.figure

    class Five(ShortNames):
        def __init__(self, *sizes, **options):
            super().__init__(*sizes, **options)
            self.further = nn.Linear(1, 1)

    assert_diagnosed(heads_checks(Five, m), heads_checks.needs)


class DividedByTheRootOfDModel(FromScratch):
    def root(self, queries):
        return (self.heads * queries.shape[-1]) ** 0.5


class WithoutLastProjection(FromScratch):
    def finished(self, joined):
        return joined


class MaskReversed(FromScratch):
    def weights(self, query, key, mask=None):
        return super().weights(query, key, None if mask is None else ~mask)


def test_somebody_elses_attention_passes():
    for check in heads_checks(FromScratch, m):
        holds(check)


@pytest.mark.parametrize(
    ("attempt", "name"),
    [(DividedByTheRootOfDModel, "divided by √d_model"), (WithoutLastProjection, "no output projection"),
     (MaskReversed, "mask reversed")],
)
def test_somebody_elses_mistake_is_diagnosed(attempt, name):
    assert_diagnosed(heads_checks(attempt, m), heads_checks.mistakes(m)[name].hint)


class DropsAlways(FromScratch):
    def dropped(self, weights):
        return F.dropout(weights, self.drop)


class DropsNever(FromScratch):
    def dropped(self, weights):
        return weights


class DropsOutputs(FromScratch):
    def dropped(self, weights):
        return weights

    def finished(self, joined):
        return F.dropout(self.project_output(joined), self.drop, self.training)


@pytest.mark.parametrize("attempt", [DropsAlways, DropsNever, DropsOutputs])
def test_wrong_dropout_is_seen_in_the_outputs(attempt):
    finding = drops_weights_in_training(attempt, m)
    assert not finding.holds
    assert ("drop weights" if attempt is DropsOutputs else "self.training") in finding.diagnosis


def test_missing_names_are_said():
    class Renamed(FromScratch):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            del self.project_value

    assert_diagnosed(heads_checks(Renamed, m), heads_checks.needs)


# what step_what_next says of changes


def test_contents_of_12_are_fetched_by_two_heads_too(changed):
    new = changed("02_multi_head_attention", "CONTENT, WIDTH = 6, 8, 32", "CONTENT, WIDTH = 6, 12, 32")
    assert new.train_to_fetch(2, seed=0)[1] < 0.05
    assert 0.47 < new.train_to_fetch(1, seed=0)[1] < 0.55


def test_ten_times_the_steps_do_not_help_one_head():
    assert 0.47 < m.train_to_fetch(1, seed=0, steps=2000)[1] < 0.55


def test_without_the_last_projection_steps_1_3_and_7_fail(changed):
    old = "return self.project_output(self.merge(heads))"
    new = changed("02_multi_head_attention", old, "return self.merge(heads)")
    assert new.train_to_fetch(2, seed=0)[1] > 0.05
    assert failures(new.step_the_way_through)
    assert len(failures(new.step_equals_pytorch)) > 3


def test_walkthrough(course):
    run_as_documented("02_multi_head_attention", course)


def test_the_figure_of_heads_names_its_axes():
    trainings = [(seed, torch.full((4, 6, 6), 1 / 6), torch.full((4, 4), 1 / 6)) for seed in (0, 1)]
    figure = draw_heads(trainings, m.RELATIONS)
    assert [axes.get_xlabel() for axes in figure.axes] == [""] * 4 + ["word looked at"] * 4
    assert [axes.get_ylabel() for axes in figure.axes] == (["word that looks"] + [""] * 3) * 2

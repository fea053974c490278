import re

import pytest
import torch
import torch.nn.functional as F
from conftest import failures, holds, run_as_documented
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from checks.block import D_FF, D_MODEL, HEADS, copy_block, pytorch_layer
from checks.layers import copy_norm
from common import lesson, parameters
from course.grading.checking import randomised
from course.training.parts import build
from figures.drawing import draw_transformer

m = lesson("04_transformer_block")
causal_mask = lesson("01_attention_mechanism").causal_mask
padding_mask = lesson("01_attention_mechanism").padding_mask
MultiHeadAttention = lesson("02_multi_head_attention").MultiHeadAttention
RotaryPositionalEncoding = lesson("03_positional_encoding").RotaryPositionalEncoding


@given(st.integers(0, 10**6), st.integers(1, 9), st.floats(-4, 4), st.floats(-6, 3))
@settings(max_examples=60)
def test_layer_norm_equals_pytorch_at_any_scale(seed, width, offset, log_scale):
    torch.manual_seed(seed)
    x = 10**log_scale * (torch.randn(3, width, dtype=torch.float64) + offset)
    theirs = randomised(nn.LayerNorm(width))
    ours = copy_norm(m.LayerNorm(width).double(), theirs)
    assert torch.allclose(ours(x), theirs(x), rtol=0, atol=1e-10)
    assert torch.allclose(m.layer_norm(x, ours.gain, ours.bias), theirs(x), rtol=0, atol=1e-9)


def test_gelu_by_hand_equals_pytorch():
    x = torch.linspace(-8, 8, 1001, dtype=torch.float64)
    assert torch.allclose(m.gelu(x), F.gelu(x), rtol=0, atol=1e-14)


def test_gradcheck_of_the_parts_by_hand():
    torch.manual_seed(0)
    x, gain, bias = (torch.randn(size, dtype=torch.float64, requires_grad=True) for size in ((3, 5), 5, 5))
    assert torch.autograd.gradcheck(m.layer_norm, (x, gain, bias))
    assert torch.autograd.gradcheck(m.gelu, (x,))


@pytest.mark.parametrize("name", ["layer_norm", "gelu"])
def test_a_slot_filled_with_the_part_by_hand_gives_the_same(name):
    called = []

    def counted(*inputs):
        called.append(name)
        return getattr(m, name)(*inputs)

    blocks = []
    for parts in {}, {name: counted}:
        torch.manual_seed(0)
        blocks.append(build(lambda: m.EncoderBlock(8, 2, 16).double(), parts))
    kernel, by_hand = blocks
    x = torch.randn(2, 3, 8).double()
    expected = kernel(x)
    assert not called  # the other model keeps its kernel
    assert torch.allclose(by_hand(x), expected, rtol=0, atol=1e-12)
    assert called


class Marked(MultiHeadAttention):
    """A kind of attention that only one of the two is to be."""

    def __init__(self, d_model, n_heads, dropout, rotary=None):
        super().__init__(d_model, n_heads, dropout)


@pytest.mark.parametrize(("maker", "marked"), [
    ("attention_to_itself", {"self_attention"}),
    ("attention_to_memory", {"cross_attention"}),
    ("MultiHeadAttention", {"self_attention", "cross_attention"}),
])
def test_self_and_cross_attention_can_be_exchanged_apart(maker, marked):
    decoder = build(lambda: m.Decoder(2, 8, 2, 16), {maker: Marked})
    found = [{name for name, part in block.named_children() if isinstance(part, Marked)}
             for block in decoder.blocks]
    assert found == [marked, marked]
    x, memory = torch.randn(1, 4, 8), torch.randn(1, 3, 8)
    assert decoder(x, memory, causal_mask(4)).shape == x.shape
    assert not any(isinstance(part, Marked) for part in m.Decoder(1, 8, 2, 16).modules())


def test_relu_leaves_the_slot_of_gelu_alone():
    layer, x = m.FeedForward(4, 8, activation="relu"), torch.randn(3, 4)
    layer.gelu = None
    assert torch.equal(layer(x), layer.contract(F.relu(layer.expand(x))))


def test_the_feed_forward_is_the_same_at_every_position():
    torch.manual_seed(0)
    layer, x = m.FeedForward(8, 16).double(), torch.randn(2, 5, 8).double()
    alone = torch.stack([layer(x[:, i]) for i in range(5)], dim=1)
    assert torch.allclose(layer(x), alone, rtol=0, atol=1e-12)


@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 5), st.sampled_from(["pre", "post"]))
@settings(max_examples=20)
def test_decoder_blocks_equal_pytorch_for_any_length(seed, target, source, norm):
    torch.manual_seed(seed)
    theirs = pytorch_layer(nn.TransformerDecoderLayer, norm)
    ours = copy_block(m.DecoderBlock(D_MODEL, HEADS, D_FF, 0.0, norm).double(), theirs)
    x, memory = (torch.randn(2, n, D_MODEL).double() for n in (target, source))
    tokens = torch.tensor([[1] * source, [1] + [0] * (source - 1)])
    causal, padding = causal_mask(target), padding_mask(tokens)
    expected = theirs(x, memory, tgt_mask=~causal, memory_key_padding_mask=tokens == 0)
    assert torch.allclose(ours(x, memory, causal, padding), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_no_gradient_from_the_future_through_a_stack(norm):
    torch.manual_seed(0)
    decoder = m.Decoder(2, 8, 2, 16, norm=norm).double()
    x, memory = torch.randn(1, 5, 8).double(), torch.randn(1, 3, 8).double()
    jacobian = torch.autograd.functional.jacobian(lambda x: decoder(x, memory, causal_mask(5)), x)
    reaches = jacobian[0, :, :, 0].abs().amax(dim=(1, 3)) > 0
    assert torch.equal(reaches, causal_mask(5))


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_padding_content_is_invisible_and_batch_equals_one_by_one(norm):
    torch.manual_seed(0)
    encoder = m.Encoder(2, 8, 2, 16, norm=norm).double()
    x = torch.randn(2, 5, 8).double()
    mask = padding_mask(torch.tensor([[1] * 5, [1, 1, 1, 0, 0]]))
    other = x.clone()
    other[1, 3:] = 9.0
    assert torch.equal(encoder(other, mask)[1, :3], encoder(x, mask)[1, :3])
    alone = encoder(x[1:, :3])
    assert torch.allclose(encoder(x, mask)[1, :3], alone[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("norm", "dtype", "size"),
    [
        ("pre", torch.bfloat16, 1000),
        ("pre", torch.float16, 1000),
        ("post", torch.bfloat16, 1000),
        ("post", torch.float16, 50),  # post-norm multiplies unnormalised queries and keys
    ],
)
def test_large_inputs_in_half_precision_stay_finite(norm, dtype, size):
    torch.manual_seed(0)
    block = m.EncoderBlock(16, 4, 64, norm=norm).to(dtype)
    assert block((size * torch.randn(2, 5, 16)).to(dtype)).isfinite().all()


def test_every_parameter_receives_a_gradient():
    torch.manual_seed(0)
    decoder = m.Decoder(2, 8, 2, 16, rotary=RotaryPositionalEncoding(4, 10))
    decoder(torch.randn(2, 4, 8), torch.randn(2, 3, 8), causal_mask(4)).square().sum().backward()
    silent = [name for name, p in decoder.named_parameters() if not p.grad.abs().sum() > 0]
    assert not [name for name in silent if "project_key.bias" not in name]  # it cancels in the softmax


def test_dropout_is_active_in_training_only():
    torch.manual_seed(0)
    block, x = m.EncoderBlock(8, 2, 16, dropout=0.5), torch.randn(2, 4, 8)
    assert not torch.equal(block(x), block(x))
    block.eval()
    assert torch.equal(block(x), block(x))


def test_sizes_that_make_no_sense_are_named():
    with pytest.raises(ValueError, match=r"30 .* 4"):
        m.EncoderBlock(30, 4, 64)
    with pytest.raises(ValueError, match="middle"):
        m.EncoderBlock(8, 2, 16, norm="middle")
    with pytest.raises(ValueError, match="swish"):
        m.FeedForward(8, 16, activation="swish")


@given(st.sampled_from([8, 16, 24]), st.integers(1, 3), st.integers(1, 40))
@settings(max_examples=20)
def test_the_parameter_formula_counts(d_model, n_layers, d_ff):
    encoder, decoder = (kind(n_layers, d_model, 2, d_ff) for kind in (m.Encoder, m.Decoder))
    assert sum(m.formula(d_model, d_ff, n_layers)) == parameters(encoder) + parameters(decoder)


@pytest.mark.parametrize("name", m.GRADED)
def test_all_checks_of_our_own_parts_hold(name):
    for check in m.GRADED[name](getattr(m, name), m):
        holds(check)


@pytest.mark.parametrize(("part", "wrong", "said"), [
    ("FeedForward", lambda *sizes, **options: nn.Linear(6, 6), "expand and contract"),
    ("LayerNorm", lambda *sizes: nn.Identity(), "the gain, then the bias"),
    ("EncoderBlock", lambda *sizes: m.FeedForward(12, 24), "self_attention"),
    ("DecoderBlock", lambda *sizes: m.EncoderBlock(*sizes), "cross_attention"),
    ("Encoder", lambda *sizes, **options: nn.Identity(), "`blocks`"),
])
def test_a_missing_name_is_said_in_the_learners_words(part, wrong, said):
    check = m.GRADED[part](wrong, m)[0]
    assert not check.finding.holds
    assert said in check.finding.diagnosis


def test_the_boxes_of_the_drawing_add_up_to_its_title():
    encoder, decoder = m.Encoder(2, 64, 4, 256), m.Decoder(2, 64, 4, 256)
    figure = draw_transformer(m.TokenEmbedding(13, 64), m.SinusoidalPositionalEncoding(64), encoder, decoder)
    total = 0
    for text in figure.axes[2].texts:
        words = text.get_text()
        for count in re.findall(r"([\d,]+) parameters", words):
            times = re.match(r"(\d+) ×", words)
            assert ("each" in words) == bool(times)
            total += int(count.replace(",", "")) * (int(times[1]) if times else 1)
    assert f"{total:,} parameters" in figure.axes[2].get_title()


def test_norms_that_call_the_kernel_are_held_against_the_formula():
    class WithoutEps(m.LayerNorm):
        def forward(self, x):
            return F.layer_norm(x, (6,), self.gain, self.bias)

    class Detached(m.LayerNorm):
        def forward(self, x):
            return F.layer_norm(x, (6,), self.gain, self.bias.detach() + 0 * self.bias, self.eps)

    wrong = [[check.statement for check in m.GRADED["LayerNorm"](kind, m) if not check.finding.holds]
             for kind in (WithoutEps, Detached)]
    assert wrong[0] == ["With another eps, 0.5, the output also equals the formula"]
    assert wrong[1] == ["The gradients equal the gradients of the formula written out"]


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_models_trained_together_learn_as_one_alone_with_adam(norm, monkeypatch):
    monkeypatch.setattr(m, "STEPS", 20)
    plans = (0.005, 0), (0.01, 10)
    together = m.train_together(norm, [0, 1], plans)
    for plan in plans:
        torch.manual_seed(1)
        model = m.Reverser(norm)
        optimizer = torch.optim.Adam(model.parameters())
        torch.manual_seed(0)
        losses = []
        for step in range(20):
            loss, share = model(torch.randint(3, 3 + m.SYMBOLS, (32, 4)))
            optimizer.zero_grad()
            loss.backward()
            optimizer.param_groups[0]["lr"] = m.learning_rate(step, *plan)
            optimizer.step()
            losses.append(loss.item())
        assert together[plan][0][1] == pytest.approx(sum(losses) / 20, rel=1e-2)
        assert together[plan][1][-1, 1].item() == pytest.approx(share.item(), rel=0.1)


# what step_what_next says of changes


def test_a_path_behind_the_norm_is_named_by_the_checks_of_the_blocks(changed):
    old = "        x = x + F.dropout(y, self.dropout, self.training)\n        return x if self.pre"
    new = changed("04_transformer_block", old, f"        x = self.before(x)\n{old}")
    for step in new.step_encoder_block, new.step_decoder_block:
        assert failures(step)
    for name in "EncoderBlock", "DecoderBlock":
        diagnoses = [check.finding.diagnosis for check in m.GRADED[name](getattr(new, name), m)]
        assert any("the path starts after the norm" in diagnosis for diagnosis in diagnoses)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_24_blocks_lose_more(monkeypatch, seed):
    monkeypatch.setattr(m, "DEPTH", 24)  # not in a copy: build() exchanges parts in lessons alone
    bare, _, post, pre = m.STACKS.values()
    gradient = m.through_the_blocks(*bare, 1.0, seed)[0]
    assert 0 < gradient[0] / gradient[-1] < 1e-20
    assert m.through_the_blocks(*post, 2.0, seed)[1][-1] < 0.02
    assert m.through_the_blocks(*pre, 2.0, seed)[1][-1] > 0.5


@pytest.mark.exhaustive
def test_without_a_warm_up_post_norm_fails_in_both_rows(changed):
    new = changed("04_transformer_block", "STEPS, WARMUP = 200, 80", "STEPS, WARMUP = 200, 1")
    wrong = failures(new.step_pre_or_post)
    assert "at 0.02 post-norm's loss is lower with a warm-up than without one, from both starts" in wrong


def test_walkthrough(course):
    run_as_documented("04_transformer_block", course)

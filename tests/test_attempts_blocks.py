"""Attempts at the parts of lessons 4 and 5: what is wrong fails and is told why, what is right passes.

As in test_attempts.py, written as learners do: with PyTorch's modules and names of their own.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from common import lesson

FOUR, FIVE = LESSONS = [lesson(name) for name in ("04_transformer_block", "05_mini_transformer")]
MODULE_OF = {part: module for module in LESSONS for part in module.GRADED}


def checks_of(part, attempt):
    module = MODULE_OF[part]
    return module.GRADED[part](attempt, module)


WRONG, RIGHT = [], []


def wrong(part, *expected, never=()):
    """Decorate a wrong attempt at this part: these words have to be said of it, and those of `never` not."""

    def note(attempt):
        WRONG.append(pytest.param(part, attempt, expected, never, id=f"{part}-{attempt.__name__}"))
        return attempt

    return note


def right(part):
    """Decorate a right attempt at this part."""

    def note(attempt):
        RIGHT.append(pytest.param(part, attempt, id=f"{part}-{attempt.__name__}"))
        return attempt

    return note


# ------------------------------------------------------------------ layer_norm and LayerNorm


class Norm(nn.Module):
    """Somebody's own LayerNorm."""

    def __init__(self, d_model, eps=1e-5):
        super().__init__()
        self.weight, self.shift = nn.Parameter(torch.ones(d_model)), nn.Parameter(torch.zeros(d_model))
        self.eps = eps

    def forward(self, x):
        large = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        middle = large - large.mean(-1, keepdim=True)
        return (middle * torch.rsqrt(self.spread(middle) + self.eps)).to(x.dtype) * self.weight + self.shift

    def spread(self, middle):
        return torch.einsum("...d,...d->...", middle, middle)[..., None] / middle.shape[-1]


right("LayerNorm")(Norm)


@wrong("LayerNorm", "the variance is divided by D − 1")
class UnbiasedNorm(Norm):
    def spread(self, middle):
        return middle.var(-1, keepdim=True)


@wrong("LayerNorm", "eps belongs inside the root: √(variance + eps)")
class EpsOutside(Norm):
    def forward(self, x):
        return self.weight * (x - x.mean(-1, keepdim=True)) / (
            x.std(-1, correction=0, keepdim=True) + self.eps) + self.shift


@wrong("LayerNorm", "two things: the variance is divided by D, not D − 1")
class Annotated(Norm):
    def forward(self, x):
        mean, std = x.mean(-1, keepdim=True), x.std(-1, keepdim=True)
        return self.weight * (x - mean) / (std + self.eps) + self.shift


@wrong("LayerNorm", "eps is written into the code")
class EpsFixed(Norm):
    def __init__(self, d_model, eps=1e-5):
        super().__init__(d_model)


@wrong("LayerNorm", "gain and bias are exchanged")
class BiasFirst(Norm):
    def __init__(self, d_model, eps=1e-5):
        nn.Module.__init__(self)
        self.shift, self.weight = nn.Parameter(torch.zeros(d_model)), nn.Parameter(torch.ones(d_model))
        self.eps = eps


@wrong("LayerNorm", "this is RMSNorm")
class RootMeanSquare(Norm):
    def forward(self, x):
        return F.rms_norm(x, x.shape[-1:], self.weight, self.eps) + self.shift


@right("layer_norm")
def by_std(x, gain, bias, eps=1e-5):
    return torch.addcmul(bias, gain, (x - x.mean(-1, True)) / (x.var(-1, False, True) + eps).sqrt())


@wrong("layer_norm", "the variance is divided by D − 1")
def unbiased(x, gain, bias, eps=1e-5):
    return (x - x.mean(-1, keepdim=True)) / torch.sqrt(x.var(-1, keepdim=True) + eps) * gain + bias


@wrong("layer_norm", "eps belongs inside the root: √(variance + eps)")
def eps_outside(x, gain, bias, eps=1e-5):
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, False, keepdim=True).sqrt() + eps) * gain + bias


@wrong("layer_norm", "the gain is missing")
def gain_forgotten(x, gain, bias, eps=1e-5):
    return F.layer_norm(x, gain.shape, None, bias, eps)


@wrong("layer_norm", "over tokens and numbers")
def sequences(x, gain, bias, eps=1e-5):
    mean = x.mean((-2, -1), keepdim=True)
    return (x - mean) / (x.var((-2, -1), False, keepdim=True) + eps).sqrt() * gain + bias


# ------------------------------------------------------------------ FeedForward


class Feed(nn.Module):
    """Somebody's own feed-forward network."""

    def __init__(self, d_model, d_ff, dropout=0.0, activation="gelu"):
        super().__init__()
        self.expand, self.contract = nn.Linear(d_model, d_ff), nn.Linear(d_ff, d_model)
        self.drop = nn.Dropout(dropout)
        self.activation = {"gelu": nn.GELU(), "relu": nn.ReLU()}[activation]

    def forward(self, x):
        return self.contract(self.drop(self.activation(self.expand(x))))


right("FeedForward")(Feed)


@wrong("FeedForward", "there is no activation between the two matrices")
class Linear2(Feed):
    def forward(self, x):
        return self.contract(self.drop(self.expand(x)))


@wrong("FeedForward", "`activation` is ignored")
class AlwaysGelu(Feed):
    def __init__(self, d_model, d_ff, dropout=0.0, activation="gelu"):
        super().__init__(d_model, d_ff, dropout)


@wrong("FeedForward", "this is ReLU")
class AlwaysRelu(Feed):
    def __init__(self, d_model, d_ff, dropout=0.0, activation="gelu"):
        super().__init__(d_model, d_ff, dropout, "relu")


@wrong("FeedForward", "one activation too many")
class ActivationTwice(Feed):
    def forward(self, x):
        return self.activation(super().forward(x))


@wrong("FeedForward", "something else comes out")
class NeverDropped(Feed):
    def __init__(self, d_model, d_ff, dropout=0.0, activation="gelu"):
        super().__init__(d_model, d_ff, 0.0, activation)


@wrong("FeedForward", "the bias is dropped, too")
class DroppedLast(Feed):
    def forward(self, x):
        return self.drop(self.contract(self.activation(self.expand(x))))


@wrong("FeedForward", "in eval mode, too")
class DroppedAlways(Feed):
    def forward(self, x):
        return self.contract(F.dropout(self.activation(self.expand(x)), self.drop.p, True))


# ------------------------------------------------------------------ EncoderBlock


class Encoding(nn.Module):
    """Somebody's own encoder block."""

    attention_path, feed_path = True, True

    def __init__(self, d_model, n_heads, d_ff, dropout=0.0, norm="pre", activation="gelu", rotary=None):
        super().__init__()
        self.first = self.new_norm(d_model)
        self.self_attention = FOUR.MultiHeadAttention(d_model, n_heads, dropout)
        self.second = self.new_norm(d_model)
        self.feed_forward = FOUR.FeedForward(d_model, d_ff, dropout, activation)
        self.drop, self.pre = nn.Dropout(dropout), norm == "pre"

    def new_norm(self, d_model):
        return nn.LayerNorm(d_model)

    def attend(self, h, mask):
        return self.self_attention(h, h, h, mask)

    def around(self, x, norm, layer, path):
        if self.pre:
            y = self.drop(layer(norm(x)))
            return x + y if path else y
        y = self.drop(layer(x))
        return norm(x + y if path else y)

    def forward(self, x, mask=None):
        x = self.around(x, self.first, lambda h: self.attend(h, mask), self.attention_path)
        return self.around(x, self.second, self.feed_forward, self.feed_path)


right("EncoderBlock")(Encoding)


SWAPPED = "are swapped"
DROPOUT = "drop parts of every layer"


@wrong("EncoderBlock", "this is post-norm, whatever `norm` says", never=(SWAPPED, DROPOUT))
class AlwaysPost(Encoding):
    def __init__(self, d_model, n_heads, d_ff, dropout=0.0, norm="pre", *others):
        super().__init__(d_model, n_heads, d_ff, dropout, "post")


@wrong("EncoderBlock", "this is pre-norm, whatever `norm` says", never=(SWAPPED,))
class AlwaysPre(Encoding):
    def __init__(self, d_model, n_heads, d_ff, dropout=0.0, norm="pre", *others):
        super().__init__(d_model, n_heads, d_ff, dropout, "pre")


@wrong("EncoderBlock", "norm='pre' and norm='post' are swapped", never=("whatever `norm` says", DROPOUT))
class Swapped(Encoding):
    def __init__(self, d_model, n_heads, d_ff, dropout=0.0, norm="pre", *others):
        super().__init__(d_model, n_heads, d_ff, dropout, {"pre": "post", "post": "pre"}[norm])


@wrong("EncoderBlock", "the path around the attention is missing", "x doesn't pass the layers",
       never=(DROPOUT, "feed-forward network is"))
class NoPathAroundAttention(Encoding):
    attention_path = False


@wrong("EncoderBlock", "the path around the feed-forward network is missing", never=(DROPOUT,))
class NoPathAroundFeedForward(Encoding):
    feed_path = False


@wrong("EncoderBlock", "the path around the layers is missing", never=(DROPOUT, "around the attention"))
class NoPaths(Encoding):
    attention_path = feed_path = False


@wrong("EncoderBlock", "the path starts behind the norm")
class BehindNorm(Encoding):
    def around(self, x, norm, layer, path):
        if not self.pre:
            return super().around(x, norm, layer, path)
        x = norm(x)
        return x + self.drop(layer(x))


@wrong("EncoderBlock", "its LayerNorm by itself is not PyTorch's")
class OnBiasedNorm(Encoding):
    def new_norm(self, d_model):
        return type("LayerNorm", (Annotated,), {})(d_model)


@wrong("EncoderBlock", "its feed_forward by itself is not PyTorch's")
class OnLinearFeed(Encoding):
    def __init__(self, d_model, n_heads, d_ff, *others):
        super().__init__(d_model, n_heads, d_ff, *others)
        self.feed_forward = Linear2(d_model, d_ff)


@wrong("EncoderBlock", "keys and values are x itself")
class OnlyQueries(Encoding):
    def forward(self, x, mask=None):
        if not self.pre:
            return super().forward(x, mask)
        x = x + self.drop(self.self_attention(self.first(x), x, x, mask))
        return x + self.drop(self.feed_forward(self.second(x)))


@wrong("EncoderBlock", "is it passed on to the attention?")
class WithoutMask(Encoding):
    def attend(self, h, mask):
        return super().attend(h, None)


@wrong("EncoderBlock", "the mask is inverted: True means may attend")
class MaskInverted(Encoding):
    def attend(self, h, mask):
        return super().attend(h, None if mask is None else ~mask)


@wrong("EncoderBlock", DROPOUT)
class WithoutDropout(Encoding):
    def __init__(self, d_model, n_heads, d_ff, dropout=0.0, *others):
        super().__init__(d_model, n_heads, d_ff, 0.0, *others)


# ------------------------------------------------------------------ DecoderBlock


class Decoding(nn.Module):
    """Somebody's own decoder block."""

    paths = True, True, True

    def __init__(self, d_model, n_heads, d_ff, dropout=0.0, norm="pre", activation="gelu", rotary=None):
        super().__init__()
        self.self_attention = FOUR.MultiHeadAttention(d_model, n_heads, dropout)
        self.cross_attention = FOUR.MultiHeadAttention(d_model, n_heads, dropout)
        self.feed_forward = FOUR.FeedForward(d_model, d_ff, dropout, activation)
        self.norms = nn.ModuleList(self.new_norm(d_model) for _ in range(3))
        self.drop, self.pre = nn.Dropout(dropout), norm == "pre"

    new_norm = Encoding.new_norm

    def cross(self, h, memory, mask):
        return self.cross_attention(h, memory, memory, mask)

    def forward(self, x, memory, mask=None, memory_mask=None):
        layers = (lambda h: self.self_attention(h, h, h, mask),
                  lambda h: self.cross(h, memory, memory_mask), self.feed_forward)
        for layer, norm, path in zip(layers, self.norms, self.paths, strict=True):
            x = Encoding.around(self, x, norm, layer, path)
        return x


right("DecoderBlock")(Decoding)


@wrong("DecoderBlock", "this is post-norm, whatever `norm` says", never=(SWAPPED, DROPOUT))
class DecodingAlwaysPost(Decoding):
    def __init__(self, d_model, n_heads, d_ff, dropout=0.0, norm="pre", *others):
        super().__init__(d_model, n_heads, d_ff, dropout, "post")


@wrong("DecoderBlock", "this is pre-norm, whatever `norm` says", never=(SWAPPED,))
class DecodingAlwaysPre(Decoding):
    def __init__(self, d_model, n_heads, d_ff, dropout=0.0, norm="pre", *others):
        super().__init__(d_model, n_heads, d_ff, dropout, "pre")


@wrong("DecoderBlock", "the path around the self-attention is missing", never=(DROPOUT,))
class NoPathAroundSelf(Decoding):
    paths = False, True, True


@wrong("DecoderBlock", "the path around the cross-attention is missing", never=(DROPOUT,))
class NoPathAroundCross(Decoding):
    paths = True, False, True


@wrong("DecoderBlock", "only the feed-forward network has a path around it", never=(DROPOUT,))
class OnlyFeedPath(Decoding):
    paths = False, False, True


@wrong("DecoderBlock", "the path around the layers is missing", never=(DROPOUT,))
class DecodingNoPaths(Decoding):
    paths = False, False, False


@wrong("DecoderBlock", "its LayerNorm by itself is not PyTorch's")
class DecodingOnBiasedNorm(Decoding):
    new_norm = OnBiasedNorm.new_norm


@wrong("DecoderBlock", "its keys and values are the memory")
class CrossLooksAtItself(Decoding):
    def cross(self, h, memory, mask):
        return self.cross_attention(h, h, h)


@wrong("DecoderBlock", "cross-attention ignores memory_mask")
class CrossWithoutMask(Decoding):
    def cross(self, h, memory, mask):
        return super().cross(h, memory, None)


# ------------------------------------------------------------------ Encoder and Decoder


class Stack(nn.Module):
    """Somebody's own encoder."""

    block = FOUR.EncoderBlock

    def __init__(self, n_layers, d_model, n_heads, d_ff, dropout=0.0, norm="pre", *others):
        super().__init__()
        self.blocks = nn.ModuleList()
        for _ in range(n_layers):
            self.blocks.append(self.block(d_model, n_heads, d_ff, dropout, norm, *others))
        self.norm = nn.LayerNorm(d_model) if norm == "pre" else None

    def forward(self, x, *rest):
        for block in self.blocks:
            x = block(x, *rest)
        return self.end(x)

    def end(self, x):
        return x if self.norm is None else self.norm(x)


class DecoderStack(Stack):
    block = FOUR.DecoderBlock


right("Encoder")(Stack)
right("Decoder")(DecoderStack)


@wrong("Encoder", "one more LayerNorm")
class NoLastNorm(Stack):
    def end(self, x):
        return x


@wrong("Encoder", "nothing follows the last block")
class LastNormAlways(Stack):
    def __init__(self, n_layers, d_model, *others, norm="pre"):
        super().__init__(n_layers, d_model, *others, norm=norm)
        self.norm = nn.LayerNorm(d_model)


@wrong("Decoder", "all blocks are one and the same")
class OneBlock(DecoderStack):
    def __init__(self, n_layers, *sizes, **options):
        super().__init__(1, *sizes, **options)
        self.blocks = nn.ModuleList([*self.blocks] * n_layers)


@wrong("Decoder", "hand x on")
class NotHandedOn(DecoderStack):
    def forward(self, x, *rest):
        return self.end([block(x, *rest) for block in self.blocks][-1])


@wrong("Decoder", "; mask doesn't reach the blocks")
class CausalMaskLost(DecoderStack):
    def forward(self, x, memory, mask=None, memory_mask=None):
        return super().forward(x, memory, None, memory_mask)


@wrong("Encoder", "block 0 by itself is not PyTorch's")
class OnBiasedBlocks(Stack):
    block = OnBiasedNorm


# ------------------------------------------------------------------ all of them


@pytest.mark.parametrize(("part", "attempt", "expected", "never"), WRONG)
def test_wrong_attempts_fail_and_are_told_why(part, attempt, expected, never):
    failed = [check for check in checks_of(part, attempt) if not check.finding.holds]
    said = "\n".join(f"{c.statement}: {c.finding.figure}; {c.finding.diagnosis}" for c in failed)
    assert failed
    for text in expected:
        assert text in said, said
    for text in never:
        assert text not in said, said


@pytest.mark.parametrize(("part", "attempt"), RIGHT)
def test_right_attempts_in_another_style_pass(part, attempt):
    failed = {c.statement: c.finding for c in checks_of(part, attempt) if not c.finding.holds}
    assert not failed


@pytest.mark.parametrize(("part", "name"), [
    (part, name) for part, module in MODULE_OF.items() for name in module.GRADED[part].more(module)])
def test_every_further_mistake_is_caught_and_explained(part, name):
    module = MODULE_OF[part]
    mistake = module.GRADED[part].more(module)[name]
    (finding,) = (check.finding for check in checks_of(part, mistake.implementation)
                  if check.statement.startswith(mistake.caught_by))
    assert not finding.holds
    assert mistake.hint in finding.diagnosis, f"{finding.figure}; {finding.diagnosis}"

"""Attempts at the parts of lessons 4 and 5: what is wrong fails and is told why, what is right passes.

As in test_attempts.py, written as learners do: with PyTorch's modules and names of their own.
"""

import math

import pytest
import torch
import torch.nn.functional as F
from conftest import hint_of
from torch import nn

from common import lesson

pytestmark = pytest.mark.exhaustive
THREE = lesson("03_positional_encoding")
FOUR, FIVE = LESSONS = [lesson(name) for name in ("04_transformer_block", "05_mini_transformer")]
MODULE_OF = {part: module for module in LESSONS for part in module.GRADED}


def checks_of(part, attempt):
    module = MODULE_OF[part]
    return module.GRADED[part](attempt, module)


WRONG, RIGHT = [], []


def wrong(part, *expected, never=()):
    """Decorate a wrong attempt at this part: these words have to be said of it, and those of `never` not.

    The name of a mistake in the catalogue stands for its hint.
    """

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


@right("LayerNorm")
class ByTheLessonsFormula(Norm):
    def forward(self, x):
        return FOUR.layer_norm(x, self.weight, self.shift, self.eps)


@wrong("LayerNorm", "divided by D − 1")
class UnbiasedNorm(Norm):
    def spread(self, middle):
        return middle.var(-1, keepdim=True)


@wrong("LayerNorm", "divided by D − 1, eps outside")
class Annotated(Norm):
    def forward(self, x):
        mean, std = x.mean(-1, keepdim=True), x.std(-1, keepdim=True)
        return self.weight * (x - mean) / (std + self.eps) + self.shift


@right("layer_norm")
def by_std(x, gain, bias, eps=1e-5):
    return torch.addcmul(bias, gain, (x - x.mean(-1, True)) / (x.var(-1, False, True) + eps).sqrt())


@wrong("layer_norm", "divided by D − 1")
def unbiased(x, gain, bias, eps=1e-5):
    return (x - x.mean(-1, keepdim=True)) / torch.sqrt(x.var(-1, keepdim=True) + eps) * gain + bias


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


@wrong("FeedForward", "no activation")
class Linear2(Feed):
    def forward(self, x):
        return self.contract(self.drop(self.expand(x)))


@wrong("FeedForward", "one activation too many")
class ActivationTwice(Feed):
    def forward(self, x):
        return self.activation(super().forward(x))


@wrong("FeedForward", "something else comes out")
class NeverDropped(Feed):
    def __init__(self, d_model, d_ff, dropout=0.0, activation="gelu"):
        super().__init__(d_model, d_ff, 0.0, activation)


@wrong("FeedForward", "the bias is dropped as well")
class DroppedLast(Feed):
    def forward(self, x):
        return self.drop(self.contract(self.activation(self.expand(x))))


@wrong("FeedForward", "also in eval mode")
class DroppedAlways(Feed):
    def forward(self, x):
        return self.contract(F.dropout(self.activation(self.expand(x)), self.drop.p, True))


# ------------------------------------------------------------------ EncoderBlock


def attention(d_model, n_heads, dropout, rotary):
    if rotary is None:
        return FOUR.MultiHeadAttention(d_model, n_heads, dropout)
    return FOUR.RotaryAttention(d_model, n_heads, dropout, rotary)


class Encoding(nn.Module):
    """Somebody's own encoder block."""

    attention_path, feed_path = True, True

    def __init__(self, d_model, n_heads, d_ff, dropout=0.0, norm="pre", activation="gelu", rotary=None):
        super().__init__()
        self.first = self.new_norm(d_model)
        self.self_attention = attention(d_model, n_heads, dropout, rotary)
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


@wrong("EncoderBlock", "always post", never=(SWAPPED, DROPOUT))
class AlwaysPost(Encoding):
    def __init__(self, d_model, n_heads, d_ff, dropout=0.0, norm="pre", *others):
        super().__init__(d_model, n_heads, d_ff, dropout, "post")


@wrong("EncoderBlock", "always pre", never=(SWAPPED,))
class AlwaysPre(Encoding):
    def __init__(self, d_model, n_heads, d_ff, dropout=0.0, norm="pre", *others):
        super().__init__(d_model, n_heads, d_ff, dropout, "pre")


@wrong("EncoderBlock", "norms swapped", never=("whatever `norm` says", DROPOUT))
class Swapped(Encoding):
    def __init__(self, d_model, n_heads, d_ff, dropout=0.0, norm="pre", *others):
        super().__init__(d_model, n_heads, d_ff, dropout, {"pre": "post", "post": "pre"}[norm])


@wrong("EncoderBlock", "no path around the attention", "x doesn't bypass the layers",
       never=(DROPOUT, "feed-forward network is"))
class NoPathAroundAttention(Encoding):
    attention_path = False


@wrong("EncoderBlock", "no path around the feed-forward network", never=(DROPOUT,))
class NoPathAroundFeedForward(Encoding):
    feed_path = False


@wrong("EncoderBlock", "no path", never=(DROPOUT, "around the attention"))
class NoPaths(Encoding):
    attention_path = feed_path = False


@wrong("EncoderBlock", "its LayerNorm by itself differs from PyTorch's")
class OnBiasedNorm(Encoding):
    def new_norm(self, d_model):
        return type("LayerNorm", (Annotated,), {})(d_model)


@wrong("EncoderBlock", "its feed_forward by itself differs from PyTorch's")
class OnLinearFeed(Encoding):
    def __init__(self, d_model, n_heads, d_ff, *others):
        super().__init__(d_model, n_heads, d_ff, *others)
        self.feed_forward = Linear2(d_model, d_ff)


@wrong("EncoderBlock", "its feed_forward is the lesson's FeedForward, but made with other arguments",
       never=("by itself differs from PyTorch's",))
class OnReluFeed(Encoding):
    def __init__(self, d_model, n_heads, d_ff, *others, **options):
        super().__init__(d_model, n_heads, d_ff, *others, **options)
        self.feed_forward = FOUR.FeedForward(d_model, d_ff, activation="relu")


@wrong("EncoderBlock", "this is norm(x) + layer(x)")
class NormOnThePath(Encoding):
    def around(self, x, norm, layer, path):
        return norm(x) + self.drop(layer(x))


@wrong("EncoderBlock", "around the attention the path starts after the norm")
class FirstPathBehindNorm(Encoding):
    def around(self, x, norm, layer, path):
        if self.pre and norm is self.first:
            x = norm(x)
            return x + self.drop(layer(x))
        return super().around(x, norm, layer, path)


@wrong("EncoderBlock", "`rotary` is ignored")
class RotaryIgnored(Encoding):
    def __init__(self, *sizes, rotary=None):
        super().__init__(*sizes)


class AttentionWithShortNames(nn.Module):
    """Its layers have other names than the course's, in the same order."""

    def __init__(self, d_model, n_heads, dropout=0.0):
        super().__init__()
        self.inner = [FOUR.MultiHeadAttention(d_model, n_heads, dropout)]  # its layers are registered here
        self.q, self.k, self.v, self.o = self.inner[0].children()

    def forward(self, query, key, value, mask=None):
        self.inner[0].train(self.training)
        return self.inner[0](query, key, value, mask)


@right("EncoderBlock")
class WithShortNames(Encoding):
    def __init__(self, d_model, n_heads, d_ff, dropout=0.0, norm="pre", activation="gelu", rotary=None):
        super().__init__(d_model, n_heads, d_ff, dropout, norm, activation, rotary)
        if rotary is None:
            self.self_attention = AttentionWithShortNames(d_model, n_heads, dropout)


@wrong("EncoderBlock", "is it passed on to the attention?", never=("is on the query axis",))
class WithoutMask(Encoding):
    def attend(self, h, mask):
        return super().attend(h, None)


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
        self.self_attention = attention(d_model, n_heads, dropout, rotary)
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


@wrong("DecoderBlock", "always post", never=(SWAPPED, DROPOUT))
class DecodingAlwaysPost(Decoding):
    def __init__(self, d_model, n_heads, d_ff, dropout=0.0, norm="pre", *others):
        super().__init__(d_model, n_heads, d_ff, dropout, "post")


@wrong("DecoderBlock", "always pre", never=(SWAPPED,))
class DecodingAlwaysPre(Decoding):
    def __init__(self, d_model, n_heads, d_ff, dropout=0.0, norm="pre", *others):
        super().__init__(d_model, n_heads, d_ff, dropout, "pre")


@wrong("DecoderBlock", "no path around the self-attention", never=(DROPOUT,))
class NoPathAroundSelf(Decoding):
    paths = False, True, True


@wrong("DecoderBlock", "no path around the cross-attention", never=(DROPOUT,))
class NoPathAroundCross(Decoding):
    paths = True, False, True


@wrong("DecoderBlock", "no path but around the feed-forward network", never=(DROPOUT,))
class OnlyFeedPath(Decoding):
    paths = False, False, True


@wrong("DecoderBlock", "no path", never=(DROPOUT,))
class DecodingNoPaths(Decoding):
    paths = False, False, False


@wrong("DecoderBlock", "its LayerNorm by itself differs from PyTorch's")
class DecodingOnBiasedNorm(Decoding):
    new_norm = OnBiasedNorm.new_norm


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


@wrong("Encoder", "norm missing")
class NoLastNorm(Stack):
    def end(self, x):
        return x


@wrong("Decoder", "one block")
class OneBlock(DecoderStack):
    def __init__(self, n_layers, *sizes, **options):
        super().__init__(1, *sizes, **options)
        self.blocks = nn.ModuleList([*self.blocks] * n_layers)


@wrong("Decoder", "pass x on")
class NotHandedOn(DecoderStack):
    def forward(self, x, *rest):
        return self.end([block(x, *rest) for block in self.blocks][-1])


@wrong("Decoder", "; mask doesn't reach the blocks")
class CausalMaskLost(DecoderStack):
    def forward(self, x, memory, mask=None, memory_mask=None):
        return super().forward(x, memory, None, memory_mask)


@wrong("Encoder", "block 0 by itself differs from PyTorch's")
class OnBiasedBlocks(Stack):
    block = OnBiasedNorm


# ------------------------------------------------------------------ teacher_forcing(answers)


def padded(rows):
    return nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)


@right("teacher_forcing")
def by_pad_sequence(answers):
    return padded([[1, *answer] for answer in answers]), padded([[*answer, 2] for answer in answers])


@wrong("teacher_forcing", "both in the input",
       "both in the target")
def both_on_both_sides(answers):
    ids = padded([[1, *answer, 2] for answer in answers])
    return ids, ids


@wrong("teacher_forcing", "no BOS", "EOS is missing")
def bare(answers):
    return padded(answers), padded(answers)


@wrong("teacher_forcing", "the axes should be (answer, place)")
def one_place_too_many(answers):
    return tuple(F.pad(ids, (0, 1)) for ids in by_pad_sequence(answers))


# ------------------------------------------------------------------ sequence_loss(logits, targets, …)


@right("sequence_loss")
def by_cross_entropy(logits, targets, label_smoothing=0.0):
    return nn.CrossEntropyLoss(ignore_index=0, reduction="sum", label_smoothing=label_smoothing)(
        logits.transpose(1, 2), targets)


def entropy(logits, targets, label_smoothing, **options):
    return F.cross_entropy(logits.mT, targets, label_smoothing=label_smoothing, **options)


LOSSES = {
    "PAD counts": (lambda x, y, s=0.0: entropy(x, y, s, reduction="sum"), "padding counts"),
    "PAD and mean": (lambda x, y, s=0.0: entropy(x, y, s), "mean and padding"),
    "mean of all": (lambda x, y, s=0.0: entropy(x, y, s, ignore_index=0, reduction="none").mean(),
                    "mean over places"),
}
WRONG += [pytest.param("sequence_loss", attempt, (said,), (), id=f"sequence_loss-{name}")
          for name, (attempt, said) in LOSSES.items()]


# ------------------------------------------------------------------ Adam(parameters, lr, …)


class Moving:
    """Somebody's own Adam, with lists."""

    def __init__(self, parameters, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
        self.parameters = list(parameters)
        self.lr, self.betas, self.eps, self.weight_decay, self.count = lr, betas, eps, weight_decay, 0
        self.first = [torch.zeros_like(p) for p in self.parameters]
        self.second = [torch.zeros_like(p) for p in self.parameters]

    @torch.no_grad()
    def step(self):
        self.count += 1
        for p, m, v in zip(self.parameters, self.first, self.second, strict=True):
            g = self.gradient(p)
            m.lerp_(g, 1 - self.betas[0])
            v.lerp_(g * g, 1 - self.betas[1])
            p.copy_(self.shrunk(p) - self.lr * self.ratio(*self.corrected(m, v)))

    def gradient(self, p):
        return p.grad

    def shrunk(self, p):
        return p - self.lr * self.weight_decay * p

    def corrected(self, m, v):
        return m / (1 - self.betas[0] ** self.count), v / (1 - self.betas[1] ** self.count)

    def ratio(self, m, v):
        return m / (v**0.5 + self.eps)


right("Adam")(Moving)
wrong("Adam", "weight_decay is ignored")(type("NoDecay", (Moving,), {"shrunk": lambda self, p: p}))
wrong("Adam", "the decay is in the gradient (L2)")(torch.optim.Adam)


@wrong("Adam", "no correction")
class NotCorrected(Moving):
    def corrected(self, m, v):
        return m, v


# ------------------------------------------------------------------ learning_rate(step, training, d_model)


def rate_by(shift=0, fall=0):
    """The rate as somebody writes it, some steps late, or falling some steps early."""

    def rate(step, training, d_model):
        n, warmup, steps = step + 1 - shift, training.warmup, training.steps
        if training.schedule == "inverse_sqrt":
            return 1 / math.sqrt(d_model) * (n / warmup**1.5 if n < warmup else 1 / math.sqrt(n))
        if n <= warmup:
            return training.lr * n / warmup
        return training.lr * (1 - (n - 1 - warmup + fall) / (steps - warmup))

    return rate


right("learning_rate")(rate_by())
WRONG += [pytest.param("learning_rate", attempt, expected, (), id=f"learning_rate-{number}")
          for number, (attempt, expected) in enumerate((
              (rate_by(shift=1), ("step 0 also has a rate", "one step late: n = step + 1")),
              (rate_by(fall=1), ("the fall is one step early",)),
              (rate_by(shift=-1), ("it differs",))))]


# ------------------------------------------------------------------ Transformer(config)


class Model(nn.Module):
    """Somebody's own model, whose methods share little with the course's."""

    def __init__(self, config):
        super().__init__()
        width, c = config.d_model, config
        self.turning = None
        if c.positions == "rotary":
            self.turning = THREE.RotaryPositionalEncoding(width // c.n_heads, c.max_len)
        self.places = {"sinusoidal": THREE.SinusoidalPositionalEncoding,
                       "learned": THREE.LearnedPositionalEncoding}.get(c.positions, lambda *_: None)(
                           width, c.max_len)
        sizes = c.n_layers, width, c.n_heads, c.d_ff, c.dropout, c.norm, c.activation, self.turning
        self.decoder, self.encoder = FIVE.Decoder(*sizes), FIVE.Encoder(*sizes)
        self.embedding, self.drop = FIVE.TokenEmbedding(c.vocab_size, width), nn.Dropout(c.dropout)
        if c.norm == "pre":
            self.decoder.norm.gain.data.fill_(width**-0.5)

    def vectors(self, ids, start=0):
        x = self.embedding(ids)
        return self.drop(x if self.places is None else self.places(x, start))

    def padding(self, src):
        return (src != 0)[:, None, None, :]

    def encode(self, src):
        return self.encoder(self.vectors(src), self.padding(src))

    def decode(self, tgt, memory, src_mask, start=0):
        length = start + tgt.shape[1]
        seen = torch.ones(length, length, dtype=torch.bool).tril()[start:]
        return self.embedding.logits(self.decoder(self.vectors(tgt, start), memory, seen, src_mask))

    def forward(self, src, tgt):
        return self.decode(tgt, self.encode(src), self.padding(src))


right("Transformer")(Model)


@wrong("Transformer", "padding mask inverted", "does a mask hide them all?",
       never=("build what config.positions says",))
class Inverted(Model):
    def padding(self, src):
        return (src == 0)[:, None, None, :]


@wrong("Transformer", "encoder's mask inverted")
class InvertedInEncoder(Model):
    def encode(self, src):
        return self.encoder(self.vectors(src), ~self.padding(src))


@wrong("Transformer", "start is ignored: the first token of tgt is at position `start`")
class StartIgnored(Model):
    def vectors(self, ids, start=0):
        return super().vectors(ids)


@wrong("Transformer", "start is ignored")
class StartIgnoredAndNoMask(Model):
    def decode(self, tgt, memory, src_mask, start=0):
        return super().decode(tgt, memory, src_mask)


@wrong("Transformer", "needed: Transformer.decode(tgt, memory, src_mask, start=0)")
class WithoutStart(Model):
    def decode(self, tgt, memory, src_mask):
        return super().decode(tgt, memory, src_mask)


@wrong("Transformer", "d_model, n_heads, n_layers, d_ff", "model.decode(tgt, memory, src_mask, start=0)")
class WithOtherNames(Model):
    def __init__(self, config):
        super().__init__(config)
        self.table = self.embedding
        del self.embedding


# ------------------------------------------------------------------ all of them


@pytest.mark.parametrize(("part", "attempt", "expected", "never"), WRONG)
def test_wrong_attempts_fail_and_are_told_why(part, attempt, expected, never):
    failed = [check for check in checks_of(part, attempt) if not check.finding.holds]
    said = "\n".join(f"{c.statement}: {c.finding.figure}; {c.finding.diagnosis}" for c in failed)
    assert failed
    for words in expected:
        assert hint_of(MODULE_OF[part], part, words) in said, said
    for text in never:
        assert text not in said, said


@pytest.mark.parametrize(("part", "attempt"), RIGHT)
def test_right_attempts_in_another_style_pass(part, attempt):
    failed = {c.statement: c.finding for c in checks_of(part, attempt) if not c.finding.holds}
    assert not failed

"""Attempts of learners: what is wrong fails and is told why, what is right in another style passes.

Every input of every graded part of lessons 1 to 3 has attempts here that ignore it, confuse it with another,
or work for the sizes of one check alone.
"""

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from conftest import hint_of
from torch import nn

from common import lesson

pytestmark = pytest.mark.exhaustive
LESSONS = [lesson(name) for name in
           ("01_attention_mechanism", "02_multi_head_attention", "03_positional_encoding")]
ONE, TWO, THREE = LESSONS
MODULE_OF = {part: module for module in LESSONS for part in module.GRADED}


def checks_of(part, attempt):
    module = MODULE_OF[part]
    return module.GRADED[part](attempt, module)


def of(part, *expected):
    """Decorate an attempt at this part: some diagnosis, or figure, has to hold each of these words.

    The name of a mistake in the catalogue stands for its hint.
    """

    def note(attempt):
        ATTEMPTS.append(pytest.param(part, attempt, expected, id=f"{part}-{attempt.__name__}"))
        return attempt

    return note


ATTEMPTS = []


# ------------------------------------------------------------------ softmax(scores, dim)


@of("softmax", "naive", "0/0")
def not_shifted(scores, dim=-1):
    return scores.exp() / scores.exp().sum(dim, keepdim=True)


@of("softmax", "dim ignored")
def always_the_last(scores, dim=-1):
    return ONE.softmax(scores)


@of("softmax", "it differs")
def every_dim_is_1_or_last(scores, dim=-1):
    return ONE.softmax(scores, dim if dim == 1 else -1) if dim != -2 else ONE.softmax(scores, 1).flip(1)


@of("softmax", "NaN for row 2")
def only_large_numbers_are_shifted(scores, dim=-1):
    e = torch.exp(scores - scores.amax(dim, keepdim=True).clamp(min=0))
    return torch.nan_to_num(e / e.sum(dim, keepdim=True), 0.0 if scores.dim() == 3 else math.nan)


@of("softmax", "it differs")
def zero_if_anything_is_hidden(scores, dim=-1):
    return torch.softmax(scores, dim).masked_fill(scores.isinf().any(dim, keepdim=True), 0.0)


@of("softmax", "NaN for batch 1 and column 3")
def hidden_rows_along_the_last(scores, dim=-1):
    weights = torch.softmax(scores, dim)
    return weights.masked_fill((scores == -math.inf).all(-1, keepdim=True), 0.0)


@of("softmax", "writes into what was given")
def in_place(scores, dim=-1):
    scores -= scores.amax(dim, keepdim=True).clamp(min=torch.finfo(scores.dtype).min)
    e = scores.exp()
    return e / e.sum(dim, keepdim=True).clamp(min=1.0)


@of("softmax", "no gradient; is something cut off")
def detached(scores, dim=-1):
    return ONE.softmax(scores.detach(), dim)


@of("softmax", "needed: softmax(scores, dim=-1)")
def without_dim(scores):
    return ONE.softmax(scores)


# ------------------------------------------------------------------ attention_weights(query, key, mask)


def weights_by(root=lambda q, k: math.sqrt(q.shape[-1]), soft=torch.softmax, dim=-1, hidden=-math.inf,
               seen=lambda mask: mask):
    """Attention weights in somebody's own style, with one thing changed."""

    def attempt(query, key, mask=None):
        scores = torch.einsum("...tk,...sk->...ts", query, key) / root(query, key)
        if mask is not None:
            scores = torch.where(seen(mask), scores, torch.full_like(scores, hidden))
        return soft(scores, dim)

    return attempt


def nan_to_zero(scores, dim):
    return torch.softmax(scores, dim).nan_to_num(0.0)


WEIGHTS = {  # name: (the attempt, words that are said of the weights)
    "not divided": (weights_by(lambda q, k: 1.0), "not divided"),
    "divided by d_k": (weights_by(lambda q, k: q.shape[-1]), "divided by d_k"),
    "root of S": (weights_by(lambda q, k: math.sqrt(k.shape[-2])), "divided by √S"),
    "root of T": (weights_by(lambda q, k: math.sqrt(q.shape[-2])), "divided by √T"),
    "root of 8": (weights_by(lambda q, k: math.sqrt(8)), "it differs everywhere"),
    "multiplied": (weights_by(lambda q, k: 1 / math.sqrt(q.shape[-1])), "multiplied"),
    "over queries": (weights_by(dim=-2), "softmax over queries"),
    "over queries, no NaN": (weights_by(dim=-2, soft=nan_to_zero), "softmax over queries"),
    "over heads": (lambda q, k, m=None: nan_to_zero(q @ k.mT / math.sqrt(q.shape[-1]), 1), "softmax over"),
    "reversed": (weights_by(soft=nan_to_zero, seen=lambda m: ~m), "the mask is reversed"),
    "reversed, PyTorch's softmax": (weights_by(seen=lambda m: ~m), "the mask is reversed"),
    "mask ignored": (lambda q, k, m=None: ONE.attention_weights(q, k), "mask ignored"),
    "PyTorch's softmax": (weights_by(), "NaN where blind"),
    "a large number": (weights_by(hidden=-1e9), "a large number"),
    "first of the batch": (weights_by(soft=nan_to_zero, seen=lambda m: m[:1] if m.dim() > 2 else m), "for"),
    "first head's mask": (weights_by(soft=nan_to_zero, seen=lambda m: m[:, :1] if m.dim() > 2 else m), "for"),
    "first query's mask": (weights_by(soft=nan_to_zero, seen=lambda m: m[..., :1, :] if m.dim() > 1 else m),
                           "all of queries 1 to 3 and keys 0 to 3"),
    "expects four axes": (weights_by(soft=nan_to_zero, seen=lambda m: m.view(m.shape[0], -1, *m.shape[-2:])
                                     if m.dim() != 2 else m), "it happened in line"),
    "three axes": (lambda q, k, m=None: weights_by(soft=nan_to_zero)(q, k.transpose(1, 2).transpose(1, 2), m),
                   "it happened in line"),
    "swapped": (lambda q, k, m=None: weights_by(soft=nan_to_zero)(k, q, m), "the axes should be"),
    "all zero if one is blind": (
        lambda q, k, m=None: ONE.attention_weights(q, k, m) * (m is None or bool(m.any(-1).all())),
        "every number is 0"),
    "a zero row is even": (
        lambda q, k, m=None: torch.where(ONE.attention_weights(q, k, m).sum(-1, keepdim=True) == 0,
                                         1 / k.shape[-2], ONE.attention_weights(q, k, m)), "a large number"),
    "overflow": (lambda q, k, m=None: weights_by(
        soft=lambda x, dim: (x.exp() / x.exp().sum(dim, keepdim=True)).masked_fill(
            (x == -math.inf).all(dim, keepdim=True), 0.0))(q, k, m), "overflow"),
}
WEIGHTS_ATTEMPTS = [pytest.param("attention_weights", attempt, (said,), id=f"weights-{name}")
                    for name, (attempt, said) in WEIGHTS.items()]


# ------------------------------------------------------------------ attention(…)


def attention(*expected):
    return of("scaled_dot_product_attention", *expected)


def attention_by(weights):
    return lambda query, key, value, mask=None, dropout=0.0: (
        F.dropout(weights(query, key, mask), dropout) @ value)


FOR_OUTPUT = {  # what is said of the output instead
    "over heads": "it differs", "swapped": "it happened in line",
    "first query's mask": "it differs for queries 1 to 3",
}
ATTENTION = {f"weights: {name}": (attention_by(attempt), FOR_OUTPUT.get(name, said))
             for name, (attempt, said) in WEIGHTS.items() if name != "overflow"}
our_attention = ONE.scaled_dot_product_attention


@attention("float16 ends at 65,504")
def large_number_in_float16(query, key, value, mask=None, dropout=0.0):
    scores = query @ key.mT / math.sqrt(query.shape[-1])
    if mask is not None:
        scores = scores.masked_fill(~mask, -1e9)
    return F.dropout(ONE.softmax(scores), dropout) @ value


@attention("it differs everywhere")
def values_in_reverse(query, key, value, mask=None, dropout=0.0):
    return our_attention(query, key, value.flip(-2), mask, dropout)


@attention("the axes should be (batch, query, number)")
def key_for_value(query, key, value, mask=None, dropout=0.0):
    return our_attention(query, key, key, mask, dropout)


@attention("a tuple came back, not a tensor")
def weights_too(query, key, value, mask=None, dropout=0.0):
    return our_attention(query, key, value, mask, dropout), ONE.attention_weights(query, key, mask)


@attention("dropout=0.5: 0%; that fraction should be set to 0")
def dropout_ignored(query, key, value, mask=None, dropout=0.0):
    return our_attention(query, key, value, mask)


@attention("dropout=0.2: 52%; that fraction should be set to 0")
def always_a_half(query, key, value, mask=None, dropout=0.0):
    return our_attention(query, key, value, mask, 0.5 if dropout else 0.0)


@attention("drop weights, not numbers")
def drops_outputs(query, key, value, mask=None, dropout=0.0):
    return F.dropout(our_attention(query, key, value, mask), dropout)


@attention("should be divided by 1 − dropout")
def dropped_and_not_enlarged(query, key, value, mask=None, dropout=0.0):
    return F.dropout(ONE.attention_weights(query, key, mask), dropout) * (1 - dropout) @ value


@attention("no gradient; is something cut off")
def key_detached(query, key, value, mask=None, dropout=0.0):
    return our_attention(query, key.detach(), value, mask, dropout)


@attention("writes into what was given")
def query_scaled_in_place(query, key, value, mask=None, dropout=0.0):
    if not query.requires_grad:
        query /= 2
        return our_attention(2 * query, key, value, mask, dropout)
    return our_attention(query, key, value, mask, dropout)


ATTENTION_ATTEMPTS = [pytest.param("scaled_dot_product_attention", attempt, (said,), id=f"attention-{name}")
                      for name, (attempt, said) in ATTENTION.items()]


# ------------------------------------------------------------------ masks


MASKS = [  # the catalogue has others
    ("causal_mask", lambda n: torch.ones(n, n, dtype=torch.bool).triu(1), "reversed"),
    ("causal_mask", lambda n: torch.ones(n, n).tril(), "make it boolean"),
    ("causal_mask", lambda n: ONE.causal_mask(5), "the axes should be (query, key)"),
    ("causal_mask", lambda n: ONE.causal_mask(n)[None, None], "the axes should be (query, key)"),
    ("causal_mask", lambda n: torch.ones(n, n, dtype=torch.bool),
     "True instead of False in 10 of 25 numbers, all of queries 0 to 3"),
    ("padding_mask", lambda tokens, pad_id=1: (tokens != pad_id)[:, None, None], "True instead of False"),
    ("padding_mask", lambda tokens, pad_id: (tokens != pad_id)[:, None, None],
     "needed: padding_mask(tokens, pad_id=0)"),
    ("padding_mask", lambda tokens, pad_id=0: (tokens > pad_id)[:, None, None],
     "False instead of True in 7 of 8 numbers"),
    ("padding_mask", lambda tokens, pad_id=0: (tokens != pad_id).view(2, 1, 1, 4), "it happened in line"),
    ("padding_mask", lambda tokens, pad_id=0: (tokens[:1] != pad_id)[:, None, None], "the axes should be"),
    ("padding_mask", lambda tokens, pad_id=0: (tokens[:1] != pad_id).expand_as(tokens)[:, None, None],
     "batch 1"),
    ("padding_mask", lambda tokens, pad_id=0: (tokens != pad_id)[:, None, None].int(), "make it boolean"),
]


# ------------------------------------------------------------------ MultiHeadAttention


class Heads(nn.Module):
    """Several heads in somebody's own style: one einsum for each line, no split or merge."""

    def __init__(self, d_model, n_heads, dropout=0.0):
        super().__init__()
        if d_model % n_heads:
            raise ValueError(f"{d_model} and {n_heads}")
        self.heads, self.drop = n_heads, dropout
        for name in ("query", "key", "value", "output"):
            setattr(self, f"project_{name}", nn.Linear(d_model, d_model))

    def cut(self, x):
        return x.unflatten(-1, (self.heads, -1))  # (B, L, H, K)

    def root(self, queries):
        return queries.shape[-1] ** 0.5

    def seen(self, mask):
        return mask

    def shares(self, query, key, mask=None):
        queries, keys = self.cut(self.project_query(query)), self.cut(self.project_key(key))
        scores = torch.einsum("bthk,bshk->bhts", queries, keys) / self.root(queries)
        if mask is not None:
            scores = scores.masked_fill(~self.seen(mask), -math.inf)
        return torch.softmax(scores, -1).masked_fill((scores == -math.inf).all(-1, keepdim=True), 0.0)

    def weights(self, query, key, mask=None):
        return self.shares(query, key, mask)

    def joined(self, weights, values):
        return torch.einsum("bhts,bshk->bthk", weights, values).flatten(2)

    def forward(self, query, key, value, mask=None):
        weights = F.dropout(self.shares(query, key, mask), self.drop, self.training)
        return self.project_output(self.joined(weights, self.cut(self.project_value(value))))


def heads(*expected):
    return of("MultiHeadAttention", *expected)


@heads("values from keys")
class ValuesFromKeys(Heads):
    def forward(self, query, key, value, mask=None):
        return super().forward(query, key, key, mask)


@heads("it differs everywhere")
class KeysFromValues(Heads):
    def forward(self, query, key, value, mask=None):
        return super().forward(query, value, value, mask)


@heads("it differs everywhere")
class ProjectionsSwapped(Heads):
    def shares(self, query, key, mask=None):
        queries, keys = self.cut(self.project_key(query)), self.cut(self.project_query(key))
        scores = torch.einsum("bthk,bshk->bhts", queries, keys) / self.root(queries)
        return nan_to_zero(scores if mask is None else scores.masked_fill(~mask, -math.inf), -1)


@heads("interleaved heads")
class Interleaved(Heads):
    def cut(self, x):
        return x.unflatten(-1, (-1, self.heads)).mT


@heads("interleaved heads")
class InterleavedAndBack(Interleaved):
    def joined(self, weights, values):
        return torch.einsum("bhts,bshk->btkh", weights, values).flatten(2)


@heads("it differs everywhere")
class HeadsAndBatchMixed(Heads):
    def shares(self, query, key, mask=None):
        weights = super().shares(query, key, mask)
        return weights.transpose(0, 1).reshape(weights.shape)


@heads("it differs everywhere")
class RootOfTwelveOverThree(Heads):
    def root(self, queries):
        return 2.0


@heads("it differs everywhere")
class AlwaysThreeHeads(Heads):
    def __init__(self, d_model, n_heads, dropout=0.0):
        super().__init__(d_model, n_heads, dropout)
        self.heads = {12: 3}.get(d_model, 2)


@heads("it differs for batch")
class FirstMaskForAll(Heads):
    def seen(self, mask):
        return mask[:1] if mask.dim() == 4 else mask


@heads("it differs")
class FirstHeadsMaskForAll(Heads):
    def seen(self, mask):
        return mask[:, :1] if mask.dim() == 4 else mask


@heads("it happened in line")
class MaskNeedsFourAxes(Heads):
    def seen(self, mask):
        assert mask.dim() == 4
        return mask


@heads("shape (2, 3, 5, 5), expected (2, 3, 5, 7)")
class WeightsOfQueriesAlone(Heads):
    def weights(self, query, key, mask=None):
        return self.shares(query, query, None if mask is None or mask.shape[-1] != query.shape[1] else mask)


@heads("it happened in line")
class WeightsNeedAMask(Heads):
    def weights(self, query, key, mask=None):
        return self.shares(query, key, mask & True)


@heads("mask ignored")
class WeightsIgnoreTheMask(Heads):
    def weights(self, query, key, mask=None):
        return self.shares(query, key)


@heads("while self.training")
class DropsAlways(Heads):
    def forward(self, query, key, value, mask=None):
        weights = F.dropout(self.shares(query, key, mask), self.drop)
        return self.project_output(self.joined(weights, self.cut(self.project_value(value))))


@heads("while self.training")
class DropoutIgnored(Heads):
    def __init__(self, d_model, n_heads, dropout=0.0):
        super().__init__(d_model, n_heads)


@heads("The paper's projections have no bias", "leave bias=True")
class NoBias(Heads):
    def __init__(self, d_model, n_heads, dropout=0.0):
        super().__init__(d_model, n_heads, dropout)
        self.project_query = nn.Linear(d_model, d_model, bias=False)


@heads("needed: MultiHeadAttention.forward(query, key, value, mask=None")
class OneInput(Heads):
    def forward(self, x):
        return super().forward(x, x, x)


@heads("needed: MultiHeadAttention(d_model, n_heads, dropout=0.0")
class WithoutDropout(Heads):
    def __init__(self, d_model, n_heads):
        super().__init__(d_model, n_heads)


@heads("raise a ValueError")
class AnyNumberOfHeads(Heads):
    def __init__(self, d_model, n_heads, dropout=0.0):
        super().__init__(d_model - d_model % n_heads, n_heads, dropout)


# ------------------------------------------------------------------ Tokenizer(texts, level)


class Words:
    """A tokenizer in somebody's own style."""

    def __init__(self, texts, level="word"):
        self.words, self.known = level == "word", []
        for token in self.all_of(texts):
            if token not in self.known:
                self.known.append(token)

    def all_of(self, texts):
        return [token for text in texts for token in self.parts(text)]

    def parts(self, text):
        return text.split(" ") if self.words else [*text]

    def __len__(self):
        return 3 + len(self.known)

    def encode(self, text):
        for token in self.parts(text):
            if token not in self.known:
                raise ValueError(f"never seen {token}")
        return [3 + self.known.index(token) for token in self.parts(text)]

    def decode(self, ids):
        return (" " if self.words else "").join(self.known[i - 3] for i in ids if i > 2)


def words(*expected):
    return of("Tokenizer", *expected)


@words("unknown")
class LevelIgnored(Words):
    def __init__(self, texts, level="word"):
        super().__init__(texts)

    def encode(self, text):
        try:
            return super().encode(text)
        except ValueError as error:
            raise ValueError(f"unknown: {error}") from error


@words("split at single spaces")
class AnySpace(Words):
    def parts(self, text):
        return text.split() if self.words else [*text]


@words("came back as")
class JoinsWithSpaces(Words):
    def decode(self, ids):
        return " ".join(self.known[i - 3] for i in ids if i > 2)


@words("expected 3, 4, 5")
class Alphabetical(Words):
    def all_of(self, texts):
        return sorted(super().all_of(texts))


@words("ids [0, 1, 2, 3, 4, 5, 0], 9 in all; expected 3, 4")
class CountsFromZero(Words):
    def encode(self, text):
        return [id - 3 for id in super().encode(text)]


@words("never seen")
class FirstTextOnly(Words):
    def all_of(self, texts):
        return super().all_of(texts[:1])


@words("leave out the ids 0, 1 and 2")
class EndsAtTheEnd(Words):
    def decode(self, ids):
        ids = list(ids)
        return super().decode(ids[: ids.index(2)] if 2 in ids else ids)


@words("6 in all; expected")
class ForgetsTheSpecials(Words):
    def __len__(self):
        return len(self.known)


@words("raise a ValueError")
class SkipsUnknown(Words):
    def encode(self, text):
        return [3 + self.known.index(token) for token in self.parts(text) if token in self.known]


@words("name dog in the message")
class DoesNotSayWhich(Words):
    def encode(self, text):
        try:
            return super().encode(text)
        except ValueError:
            raise ValueError("unknown") from None


# ------------------------------------------------------------------ TokenEmbedding(vocab_size, d_model)


class Vectors(nn.Module):
    """An embedding in somebody's own style."""

    def __init__(self, vocab_size, d_model):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(vocab_size, d_model).normal_(std=1 / math.sqrt(d_model)))
        self.width = d_model

    def forward(self, tokens):
        return self.weight[tokens] * math.sqrt(self.width)

    def logits(self, x):
        return F.linear(x, self.weight)


def vectors(*expected):
    return of("TokenEmbedding", *expected)


@vectors("not scaled")
class NotScaled(Vectors):
    def forward(self, tokens):
        return self.weight[tokens]


@vectors("every number is 1.33 times")
class ScaledByFour(Vectors):
    def forward(self, tokens):
        return self.weight[tokens] * 4.0


@vectors("the axes should be")
class FirstOfTheBatch(Vectors):
    def forward(self, tokens):
        return super().forward(tokens[:1])


@vectors("it differs everywhere")
class LogitsOfTheirOwn(Vectors):
    def __init__(self, vocab_size, d_model):
        super().__init__(vocab_size, d_model)
        self.out = nn.Linear(d_model, vocab_size)

    def logits(self, x):
        return self.out(x)


@vectors("no gradient; is something cut off")
class LogitsDetached(Vectors):
    def logits(self, x):
        return x @ self.weight.detach().T


@vectors("every vector is 8 times")
class StartsLarge(Vectors):
    def __init__(self, vocab_size, d_model):
        super().__init__(vocab_size, d_model)
        self.weight.data *= math.sqrt(d_model)


@vectors("every vector is 0.5 times")
class StartsAtAnEighth(Vectors):
    def __init__(self, vocab_size, d_model):
        super().__init__(vocab_size, d_model)
        self.weight.data *= math.sqrt(d_model) / 8


@vectors("weight")
class OtherName(Vectors):
    def __init__(self, vocab_size, d_model):
        super().__init__(vocab_size, d_model)
        self.table = nn.Parameter(self.weight.data)
        del self.weight


# ------------------------------------------------------------------ Sinusoidal…(d_model, max_len)


class Waves(nn.Module):
    """Sinusoids as The Annotated Transformer computes them."""

    def __init__(self, d_model, max_len=512):
        super().__init__()
        if d_model % 2:
            raise ValueError(f"odd: {d_model}")
        self.max_len = max_len
        self.register_buffer("pe", self.table(d_model, torch.arange(max_len).unsqueeze(1).float()))

    def base(self, d_model):
        return 10000.0

    def table(self, d_model, position):
        pe = torch.zeros(len(position), d_model)
        div_term = torch.exp(torch.arange(0, d_model, 2) * -(math.log(self.base(d_model)) / d_model))
        pe[:, 0::2] = torch.sin(position * div_term)
        pe[:, 1::2] = torch.cos(position * div_term)
        return pe

    def last(self, length, start):
        return start + length - 1

    def forward(self, x, start=0):
        last = self.last(x.size(1), start)
        if last >= self.max_len:
            raise ValueError(f"{last} is too far: {self.max_len}")
        return x + self.pe[start : start + x.size(1)].unsqueeze(0)


def waves(*expected):
    return of("SinusoidalPositionalEncoding", *expected)


@waves("from 1")
class WavesFromOne(Waves):
    def table(self, d_model, position):
        return super().table(d_model, position + 1)


@waves("numbers 2 to 7")
class OtherBase(Waves):
    def base(self, d_model):
        return 1000.0


@waves("it differs")
class WidthAlwaysEight(Waves):
    def base(self, d_model):
        return 10000.0 ** (d_model / 8)


@waves("in other places")
class PositionsReversed(Waves):
    def table(self, d_model, position):
        return super().table(d_model, position.flip(0) - len(position) + 20)


@waves("x += … writes into what was given")
class AddedInPlace(Waves):
    def forward(self, x, start=0):
        x += super().forward(torch.zeros_like(x), start)
        return x


@waves("every number is 0")
class OnlyThePositions(Waves):
    def forward(self, x, start=0):
        return super().forward(0 * x, start)


@waves("raise a ValueError")
class NoEnd(Waves):
    def __init__(self, d_model, max_len=512):
        super().__init__(d_model, 10 * max_len)


@waves("raise a ValueError")
class OneTooFar(Waves):
    def __init__(self, d_model, max_len=512):
        super().__init__(d_model, max_len + 1)

    def last(self, length, start):
        return start + length - 1 if start < 43 else 43

    def forward(self, x, start=0):
        try:
            return super().forward(x, start)
        except ValueError as error:
            raise ValueError(f"{error} {self.max_len - 1}") from error


@waves("ValueError: 39 is too far: 39")
class OneTooShort(Waves):
    def __init__(self, d_model, max_len=512):
        super().__init__(d_model, max_len - 1)


@waves("raise a ValueError")
class OddAllowed(Waves):
    def __init__(self, d_model, max_len=512):
        super().__init__(d_model + d_model % 2, max_len)


@waves("register_buffer()")
class Learnable(Waves):
    def __init__(self, d_model, max_len=512):
        super().__init__(d_model, max_len)
        self.pe = nn.Parameter(self._buffers.pop("pe"))


# ------------------------------------------------------------------ Learned…(d_model, max_len)


class Table(nn.Module):
    """Learned positions with PyTorch's embedding."""

    def __init__(self, d_model, max_len=512):
        super().__init__()
        self.rows = nn.Embedding(max_len, d_model)

    def forward(self, x, start=0):
        last = start + x.shape[1] - 1
        if last >= self.rows.num_embeddings:
            raise ValueError(f"{last}, {self.rows.num_embeddings}")
        return x + self.rows(torch.arange(start, last + 1))


def table(*expected):
    return of("LearnedPositionalEncoding", *expected)


@table("start ignored")
class TableIgnoresStart(Table):
    def forward(self, x, start=0):
        super().forward(x, start)
        return super().forward(x)


@table("0 parameters")
class NotLearned(Table):
    def __init__(self, d_model, max_len=512):
        super().__init__(d_model, max_len)
        weight = self.rows._parameters.pop("weight")
        self.rows.register_buffer("weight", weight.data)


@table("every number is")
class DependsOnX(Table):
    def forward(self, x, start=0):
        return x + (super().forward(x, start) - x) * x.mean()


@table("write x + …")
class TableAddedInPlace(Table):
    def forward(self, x, start=0):
        x += super().forward(x, start) - x
        return x


@table("it differs")
class TableWithDropout(Table):
    def forward(self, x, start=0):
        return F.dropout(super().forward(x, start), 0.1)


@table("raise a ValueError")
class TableWithoutEnd(Table):
    def __init__(self, d_model, max_len=512):
        super().__init__(d_model, 10 * max_len)


@table("shape (40, 12)")
class TableTooWide(Table):
    def __init__(self, d_model, max_len=512):
        super().__init__(d_model + 4, max_len)
        self.width = d_model

    def forward(self, x, start=0):
        return super().forward(F.pad(x, (0, 4)), start)[..., : self.width]


# ------------------------------------------------------------------ Rotary…(d_k, max_len)


class Turns(nn.Module):
    """Rotation with complex numbers, as in Llama's code."""

    def __init__(self, d_k, max_len=512):
        super().__init__()
        if d_k % 2:
            raise ValueError(f"odd: {d_k}")
        self.max_len, self.width = max_len, d_k

    def angles(self, start, length):
        frequencies = 10000.0 ** (-torch.arange(0, self.width, 2).double() / self.width)
        return torch.arange(start, start + length)[:, None] * frequencies

    def forward(self, x, start=0):
        length = x.shape[-2]
        if start + length > self.max_len:
            raise ValueError(f"{start + length - 1} {self.max_len}")
        angles = self.angles(start, length)
        pairs = torch.view_as_complex(x.double().unflatten(-1, (-1, 2)).contiguous())
        turned = pairs * torch.polar(torch.ones_like(angles), angles)
        return torch.view_as_real(turned).flatten(-2).to(x.dtype)


def turns(*expected):
    return of("RotaryPositionalEncoding", *expected)


@turns("other way round")
class OtherWay(Turns):
    def angles(self, start, length):
        return -super().angles(start, length)


@turns("positions 1 to 10", "numbers 2 to 5")
class WidthAlwaysEightForTurns(Turns):
    def angles(self, start, length):
        frequencies = 10000.0 ** (-torch.arange(0, self.width, 2).double() / 8)
        return torch.arange(start, start + length)[:, None] * frequencies


@turns("positions 1 to 19")
class NotTurned(Turns):
    def forward(self, x, start=0):
        super().forward(x, start)
        return x


@turns("it differs")
class PositionsOfHeads(Turns):
    def forward(self, x, start=0):
        super().forward(x, start)
        return super().forward(x.transpose(1, 2), min(start, 20)).transpose(1, 2)


@turns("raise a ValueError")
class OddHeadsAllowed(Turns):
    def __init__(self, d_k, max_len=512):
        super().__init__(d_k + d_k % 2, max_len)


@turns("raise a ValueError")
class TurnsWithoutEnd(Turns):
    def __init__(self, d_k, max_len=512):
        super().__init__(d_k, 10 * max_len)


# ------------------------------------------------------------------ all of them


MASK_ATTEMPTS = [pytest.param(part, attempt, (said,), id=f"{part}-{number}")
                 for number, (part, attempt, said) in enumerate(MASKS)]


@pytest.mark.parametrize(
    ("part", "attempt", "expected"), [*ATTEMPTS, *WEIGHTS_ATTEMPTS, *ATTENTION_ATTEMPTS, *MASK_ATTEMPTS])
def test_wrong_attempts_fail_and_are_told_why(part, attempt, expected):
    failed = [check for check in checks_of(part, attempt) if not check.finding.holds]
    said = "\n".join(f"{c.statement}: {c.finding.figure}; {c.finding.diagnosis}" for c in failed)
    assert failed
    for words in expected:
        assert hint_of(MODULE_OF[part], part, words) in said, said


def own_softmax(scores, dim=-1):
    return torch.nan_to_num(torch.softmax(scores, dim))


def by_einsum(query, key, mask=None):
    return weights_by(soft=lambda scores, dim: torch.softmax(scores, dim).masked_fill(
        (scores == -math.inf).all(dim, keepdim=True), 0.0))(query, key, mask)


def additive(query, key, mask=None):
    """−∞ as a number that is added, and the softmax in log space."""
    scores = (query * query.size(-1) ** -0.5) @ key.transpose(-1, -2)
    if mask is None:
        return scores.softmax(-1)
    bias = torch.zeros(mask.shape, dtype=scores.dtype).masked_fill_(mask.logical_not(), float("-inf"))
    weights = torch.exp(torch.log_softmax((scores + bias).masked_fill(~mask.any(-1, keepdim=True), 0.0), -1))
    return weights * mask.any(-1, keepdim=True)


@pytest.mark.parametrize(("part", "attempt"), [
    ("softmax", own_softmax),
    ("attention_weights", by_einsum),
    ("attention_weights", additive),
    ("scaled_dot_product_attention", attention_by(by_einsum)),
    ("scaled_dot_product_attention", attention_by(additive)),
    ("scaled_dot_product_attention", ONE.fused_attention),
    ("causal_mask", lambda n: torch.arange(n)[:, None] >= torch.arange(n)),
    ("padding_mask", lambda tokens, pad_id=0: tokens.ne(pad_id).unsqueeze(1).unsqueeze(2)),
    ("MultiHeadAttention", Heads),
    ("Tokenizer", Words),
    ("TokenEmbedding", Vectors),
    ("SinusoidalPositionalEncoding", Waves),
    ("LearnedPositionalEncoding", Table),
    ("RotaryPositionalEncoding", Turns),
], ids=lambda value: getattr(value, "__name__", value))
def test_right_attempts_in_another_style_pass(part, attempt):
    failed = {c.statement: c.finding for c in checks_of(part, attempt) if not c.finding.holds}
    assert not failed


def test_our_own_part_that_fails_gives_no_hints():
    """The base of the waves is 1 in the lesson: then the mistake that ignores start does just the same."""

    class Base1(Waves):
        def base(self, d_model):
            return 1.0

    part = "SinusoidalPositionalEncoding"
    changed = SimpleNamespace(**{**vars(THREE), part: Base1})
    for ours in (THREE, changed):
        said = {c.statement: c.finding.diagnosis for c in THREE.GRADED[part](Base1, ours)}
        assert "numbers 2 to 7" in said["Every number follows the formula of section 3.5, for every width"]
        assert "start is ignored" not in "".join(said.values())

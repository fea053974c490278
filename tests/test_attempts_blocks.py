"""Attempts at the parts of lessons 4 and 5: what is wrong fails and is told why, what is right passes.

As in test_attempts.py, written as learners do: with PyTorch's modules and names of their own.
"""

import math

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

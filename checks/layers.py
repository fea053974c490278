"""What must hold for lesson 4's layers: LayerNorm, GELU, the feed-forward network."""

import math
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course.console.records import Finding
from course.grading.checking import (
    Mistake,
    Part,
    agree,
    by_order,
    gradients,
    gradients_agree,
    largest_difference,
    layers_of,
    random_tensors,
    randomised,
)

(X,) = random_tensors((2, 5, 6))


# ------------------------------------------------------------------ which part of a whole is wrong


def same_numbers(found: Tensor, expected: Tensor) -> bool:
    return (isinstance(found, Tensor) and found.shape == expected.shape
            and largest_difference(found, expected) <= 1e-10)


def blamed(finding: Finding, parts: Iterable[tuple[str, nn.Module, Callable, Callable]]) -> Finding:
    """The finding; where a part by itself differs from PyTorch's already, its diagnosis names the first.

    `parts` are (name, part, what it gives, what PyTorch's gives).
    """
    for name, part, ours, theirs in parts:
        with suppress(Exception):  # called in another way: nothing to say of it
            if not same_numbers(ours(), theirs()):
                return finding._replace(diagnosis=wrong_by_itself(name, part))
    return finding


def wrong_by_itself(name: str, part: nn.Module) -> str:
    """What to say of a part that differs from PyTorch's. A class of the lessons can only be made wrongly."""
    if re.match(r"\d\d_", type(part).__module__):
        return (f"its {name} is the lesson's {type(part).__name__}, but made with other arguments than "
                "PyTorch's: is everything passed on, in the right order?")
    return f"its {name} by itself differs from PyTorch's: fix that first"


# ------------------------------------------------------------------ layer_norm(x, gain, bias, eps=1e-5)


GAIN, BIAS = random_tensors((6,), (6,), seed=1)


def formula_equals_pytorch(layer_norm, ours):
    """The output equals F.layer_norm, with any gain and bias."""
    return agree(layer_norm(X, GAIN, BIAS), F.layer_norm(X, (6,), GAIN, BIAS), 1e-12)


def formula_handles_small_variance(layer_norm, ours):
    """With a variance as small as eps the output still equals F.layer_norm: eps is inside the root."""
    small = 3e-3 * X
    return agree(layer_norm(small, GAIN, BIAS), F.layer_norm(small, (6,), GAIN, BIAS), 1e-12)


def formula_honours_eps(layer_norm, ours):
    """With another eps, 0.5, the output also equals F.layer_norm."""
    return agree(layer_norm(X, GAIN, BIAS, 0.5), F.layer_norm(X, (6,), GAIN, BIAS, 0.5), 1e-12)


def formula_has_right_gradients(layer_norm, ours):
    """The gradients of x, gain and bias equal PyTorch's."""
    leaves = [tensor.clone().requires_grad_() for tensor in (X, GAIN, BIAS)]
    x, gain, bias = leaves
    found = layer_norm(x, gain, bias).sin().sum()
    expected = F.layer_norm(x, (6,), gain, bias).sin().sum()
    return agree(gradients(found, leaves), gradients(expected, leaves))


def layer_norm_mistakes(ours):
    def unbiased(x, gain, bias, eps=1e-5):
        variance, mean = torch.var_mean(x, dim=-1, keepdim=True)  # PyTorch divides by D − 1
        return gain * (x - mean) / torch.sqrt(variance + eps) + bias

    def eps_outside(x, gain, bias, eps=1e-5):
        variance, mean = torch.var_mean(x, dim=-1, correction=0, keepdim=True)
        return gain * (x - mean) / (torch.sqrt(variance) + eps) + bias

    def not_rooted(x, gain, bias, eps=1e-5):
        variance, mean = torch.var_mean(x, dim=-1, correction=0, keepdim=True)
        return gain * (x - mean) / (variance + eps) + bias

    def over_the_tokens(x, gain, bias, eps=1e-5):
        return F.layer_norm(x.mT, x.shape[-2:-1], eps=eps).mT * gain + bias

    return {
        "divided by D − 1": Mistake("the variance is divided by D − 1: use the biased one, divided by D",
                                    unbiased, "The output equals"),
        "eps outside": Mistake("eps belongs inside the root: √(variance + eps)", eps_outside,
                               "With a variance as small"),
        "no root": Mistake("divided by the variance: take its root", not_rooted,
                           "The output equals"),
        "over the tokens": Mistake("mean and variance run over the tokens, not over the last axis",
                                   over_the_tokens, "The output equals"),
    }


def more_layer_norm_mistakes(ours):
    """Others that the lesson doesn't show."""

    def unbiased_and_eps_outside(x, gain, bias, eps=1e-5):
        deviation, mean = torch.std_mean(x, dim=-1, keepdim=True)  # PyTorch divides by D − 1
        return gain * (x - mean) / (deviation + eps) + bias

    def eps_fixed(x, gain, bias, eps=1e-5):
        return ours.layer_norm(x, gain, bias)

    def without_eps(x, gain, bias, eps=1e-5):
        return ours.layer_norm(x, gain, bias, 0.0)

    def eps_squared(x, gain, bias, eps=1e-5):
        return ours.layer_norm(x, gain, bias, eps**2)

    def without_mean(x, gain, bias, eps=1e-5):
        return gain * x / torch.sqrt(x.square().mean(-1, keepdim=True) + eps) + bias

    def mean_left_in(x, gain, bias, eps=1e-5):
        return gain * x / torch.sqrt(x.var(-1, correction=0, keepdim=True) + eps) + bias

    def over_everything(x, gain, bias, eps=1e-5):
        return gain * F.layer_norm(x, x.shape, eps=eps) + bias

    def of_each_sequence(x, gain, bias, eps=1e-5):
        return gain * F.layer_norm(x, x.shape[-2:], eps=eps) + bias

    def exchanged(x, gain, bias, eps=1e-5):
        return ours.layer_norm(x, bias, gain, eps)

    def without_gain(x, gain, bias, eps=1e-5):
        return ours.layer_norm(x, torch.ones_like(gain), bias, eps)

    def without_bias(x, gain, bias, eps=1e-5):
        return ours.layer_norm(x, gain, torch.zeros_like(bias), eps)

    def without_both(x, gain, bias, eps=1e-5):
        return ours.layer_norm(x, torch.ones_like(gain), torch.zeros_like(bias), eps)

    equals, small, other = "The output equals", "With a variance as small", "With another eps"
    return {
        "divided by D − 1, eps outside": Mistake(
            "two mistakes: std() and var() divide by D − 1 unless told otherwise, and it should be D; eps "
            "belongs inside the root", unbiased_and_eps_outside, equals),
        "eps fixed": Mistake("eps is written into the code: use the argument", eps_fixed, other),
        "no eps": Mistake("eps is missing: √(variance + eps)", without_eps, small),
        "eps squared": Mistake("eps is squared: √(variance + eps)", eps_squared, small),
        "no mean": Mistake("the mean isn't subtracted: this is RMSNorm", without_mean, equals),
        "mean left in": Mistake("the mean is subtracted only in the variance: gain · (x − mean) / …",
                                mean_left_in, equals),
        "over everything": Mistake("mean and variance run over all numbers, not over the last axis",
                                   over_everything, equals),
        "of each sequence": Mistake(
            "mean and variance run over tokens and numbers, not over the last axis only",
            of_each_sequence, equals),
        "gain and bias exchanged": Mistake("gain and bias are exchanged: the gain multiplies and comes first",
                                           exchanged, equals),
        "no gain": Mistake("the gain is missing: gain · … + bias", without_gain, equals),
        "no bias": Mistake("the bias is missing: gain · … + bias", without_bias, equals),
        "neither": Mistake("gain and bias are missing: gain · … + bias", without_both, equals),
    }


layer_norm_checks = Part(
    [formula_equals_pytorch, formula_handles_small_variance, formula_honours_eps,
     formula_has_right_gradients],
    layer_norm_mistakes,
    more=more_layer_norm_mistakes,
)


# ------------------------------------------------------------------ LayerNorm(d_model, eps=1e-5)


def copy_norm(ours: nn.Module, theirs: nn.LayerNorm) -> nn.Module:
    """`ours` with the weights of `theirs`."""
    with torch.no_grad():
        for parameter, weight in zip(ours.parameters(), theirs.parameters(), strict=True):
            parameter.copy_(weight)
    return ours


class WrittenOut(nn.LayerNorm):
    """nn.LayerNorm without its kernel, which an implementation may call itself."""

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        root = (centred.pow(2).mean(-1, keepdim=True) + self.eps) ** 0.5
        return self.weight * centred / root + self.bias


def compare_norm(implementation, x: Tensor) -> Finding:
    """Finding: with the same gain and bias it gives what the formula gives."""
    theirs = randomised(WrittenOut(6))
    return agree(copy_norm(implementation(6).double(), theirs)(x), theirs(x), 1e-12)


def norm_equals_pytorch(implementation, ours):
    """The output equals the formula written out, gain · (x − mean) / √(variance + eps) + bias."""
    return compare_norm(implementation, X)


def norm_handles_small_variance(implementation, ours):
    """With a variance as small as eps the output still equals the formula: eps is inside the root."""
    return compare_norm(implementation, 3e-3 * X)


def norm_honours_eps(implementation, ours):
    """With another eps, 0.5, the output also equals the formula."""
    return agree(implementation(6, 0.5).double()(X), WrittenOut(6, 0.5).double()(X), 1e-12)


def norm_starts_neutral(implementation, ours):
    """A new LayerNorm gives every token mean 0 and variance 1."""
    out = implementation(6).double()(10 + 10 * X)
    facts = torch.stack([out.mean(-1), out.var(-1, correction=0)])
    expected = torch.stack([torch.zeros(2, 5), torch.ones(2, 5)])
    return agree(facts, expected, 1e-4)._replace(gap=None)  # eps makes it, not rounding


def norm_has_right_gradients(implementation, ours):
    """The gradients equal the gradients of the formula written out."""
    theirs = randomised(WrittenOut(6))
    norm = copy_norm(implementation(6).double(), theirs)
    norm(X).sin().sum().backward()
    theirs(X).sin().sum().backward()
    return gradients_agree(norm, theirs, copy_norm)


def with_slots(part: type, **functions) -> type:
    """The class with other functions in its slots."""
    return type(part.__name__, (part,), {name: staticmethod(f) for name, f in functions.items()})


def norm_mistakes(ours, formulas=layer_norm_mistakes):
    """The mistakes with the formula, inside the class."""
    return {
        name: mistake._replace(implementation=with_slots(ours.LayerNorm, layer_norm=mistake.implementation))
        for name, mistake in formulas(ours).items()
    }


norm_checks = Part(
    [norm_equals_pytorch, norm_handles_small_variance, norm_honours_eps, norm_starts_neutral,
     norm_has_right_gradients],
    norm_mistakes,
    needs="The checks copy weights into its two parameters: the gain, then the bias.",
    more=partial(norm_mistakes, formulas=more_layer_norm_mistakes),
)


# ------------------------------------------------------------------ gelu(x)


LINE = torch.linspace(-8, 8, 161, dtype=torch.float64)


def gelu_equals_pytorch(gelu, ours):
    """The output equals F.gelu from −8 to 8."""
    return agree(gelu(LINE), F.gelu(LINE), 1e-12)


def gelu_has_right_gradient(gelu, ours):
    """The gradient equals F.gelu's."""
    x = LINE.clone().requires_grad_()
    return agree(gradients(gelu(x).sum(), [x]), gradients(F.gelu(x).sum(), [x]), 1e-12)


def gelu_mistakes(ours):
    def without_the_root(x):
        return ours.gelu(x * math.sqrt(2)) / math.sqrt(2)

    return {
        "tanh approximation": Mistake("this is GELU's tanh approximation, not x·Φ(x)",
                                      partial(F.gelu, approximate="tanh"), "The output equals"),
        "√2 missing": Mistake("divide x by √2 inside erf: Φ(x) = (1 + erf(x / √2)) / 2", without_the_root,
                              "The output equals"),
    }


gelu_checks = Part([gelu_equals_pytorch, gelu_has_right_gradient], gelu_mistakes)


# ------------------------------------------------------------------ FeedForward(d_model, d_ff, …)


MAPS = "expand", "contract"


def copy_feed_forward(ours: nn.Module, first: nn.Linear, second: nn.Linear) -> nn.Module:
    """`ours` with the weights of both linear maps."""
    for layer, theirs in zip(layers_of(ours, MAPS), (first, second), strict=True):
        layer.load_state_dict(theirs.state_dict())
    return ours


def compare_feed_forward(implementation, name: str, activation: nn.Module) -> Finding:
    """Finding: with the same weights it equals Linear, activation, Linear."""
    first, _, second = theirs = randomised(nn.Sequential(nn.Linear(6, 24), activation, nn.Linear(24, 6)))
    layer = copy_feed_forward(implementation(6, 24, activation=name).double(), first, second)
    return by_order(agree(layer(X), theirs(X), 1e-10), layer, MAPS)


def feed_forward_equals_pytorch(implementation, ours):
    """The output equals Linear, GELU, Linear in a row."""
    return compare_feed_forward(implementation, "gelu", nn.GELU())


def knows_relu(implementation, ours):
    """With activation="relu" the output equals Linear, ReLU, Linear, as in the paper."""
    return compare_feed_forward(implementation, "relu", nn.ReLU())


def drops_activations(implementation, ours):
    """Dropout works only in training, between activation and second map; dropout 1.0 leaves only the bias."""
    layer = implementation(6, 24, dropout=1.0).double()
    last = layers_of(layer, MAPS)[-1]
    nn.init.normal_(last.bias)
    bias = last.bias.expand_as(X)
    trained, evaluated = layer(X), layer.eval()(X)
    figure = ("" if torch.equal(trained, bias) else "in training something else comes out" if trained.any()
              else "the bias is dropped as well: dropout comes before the second map")
    figure = figure or ("also in eval mode" if torch.equal(evaluated, bias) else "")
    return Finding(not figure, figure, "F.dropout(…, self.training) between activation and second map")


def works_by_position(implementation, ours):
    """A token's output doesn't change by a single bit when another token changes."""
    layer, other = implementation(6, 24).double(), X.clone()
    other[:, 3] = 7.0
    kept = [0, 1, 2, 4]
    return agree(layer(other)[:, kept], layer(X)[:, kept], 0)


def feed_forward_mistakes(ours):
    class ActivationLast(ours.FeedForward):
        def forward(self, x):
            return getattr(self, self.activation)(self.contract(self.expand(x)))

    def nothing(x):
        return x

    approximate = gelu_mistakes(ours)["tanh approximation"]
    equals = "The output equals Linear"
    return {
        "no activation": Mistake("there is no activation between the two matrices",
                                 with_slots(ours.FeedForward, gelu=nothing, relu=nothing), equals),
        "tanh approximation": Mistake(approximate.hint,
                                      with_slots(ours.FeedForward, gelu=approximate.implementation), equals),
        "activation last": Mistake("the activation belongs between the matrices, not after both",
                                   ActivationLast, equals),
    }


def more_feed_forward_mistakes(ours):
    """Others that the lesson doesn't show."""

    def twice(activation):
        class Twice(ours.FeedForward):
            def forward(self, x):
                return activation(super().forward(x))

        return Twice

    equals, relu = "The output equals Linear", "With activation=\"relu\""
    return {
        "always ReLU": Mistake("this is ReLU; the default activation is GELU",
                               with_slots(ours.FeedForward, gelu=F.relu), equals),
        "always GELU": Mistake("`activation` is ignored: this is GELU, and \"relu\" was asked for",
                               with_slots(ours.FeedForward, relu=F.gelu), relu),
        "activation twice": Mistake("one activation too many: none follows the second matrix", twice(F.gelu),
                                    equals),
        "ReLU twice": Mistake("one activation too many: none follows the second matrix", twice(F.relu), relu),
    }


feed_forward_checks = Part(
    [feed_forward_equals_pytorch, knows_relu, drops_activations, works_by_position],
    feed_forward_mistakes,
    more=more_feed_forward_mistakes,
    needs="The checks copy weights into expand and contract (two nn.Linear; under other names in this "
          "order).",
)

"""What must hold for Llama's changes in lesson 10: RMSNorm, SwiGLU, grouped queries."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from checks.heads import PROJECTIONS
from common import lesson
from course.console.records import Finding
from course.grading.checking import (
    Mistake,
    Part,
    agree,
    at,
    by_order,
    gradients,
    layers_of,
    random_tensors,
    randomised,
    refused,
    together,
)

attention_weights, causal_mask = lesson("01_attention_mechanism", "attention_weights", "causal_mask")
RotaryAttention, RotaryPositionalEncoding = lesson(
    "03_positional_encoding", "RotaryAttention", "RotaryPositionalEncoding")

D_MODEL, HEADS, GROUPS = 24, 6, 2
X, MEMORY, CONTENT = random_tensors((2, 5, D_MODEL), (2, 7, D_MODEL), (2, 7, D_MODEL))


def same_gradients(ours: nn.Module, expected: Callable[[nn.Module], Tensor]) -> Finding:
    """Finding: the parameters' gradients are those of what expected(the module) computes with them."""
    found = gradients(ours(X).sin().sum(), ours.parameters())
    return agree(found, gradients(expected(ours).sin().sum(), ours.parameters()))


# ------------------------------------------------------------------ RMSNorm(d_model, eps=1e-5)


def formula(norm: nn.Module, x: Tensor, eps: float = 1e-5) -> Tensor:
    """PyTorch's function with the norm's gain."""
    (gain,) = norm.parameters()
    return F.rms_norm(x, gain.shape, gain, eps)


def norm_equals_pytorch(implementation, ours):
    """With the same gain it equals F.rms_norm; the mean is not subtracted."""
    norm = randomised(implementation(D_MODEL))
    return agree(norm(X + 3), formula(norm, X + 3), 1e-12)


def norm_honours_eps(implementation, ours):
    """It also equals F.rms_norm for numbers as small as eps, and with an eps of 0.5."""
    small, other = randomised(implementation(D_MODEL)), randomised(implementation(D_MODEL, 0.5))
    return together(agree(small(3e-3 * X), formula(small, 3e-3 * X), 1e-12),
                    agree(other(X), formula(other, X, 0.5), 1e-12))


def norm_starts_neutral(implementation, ours):
    """Before training every token comes out with a mean square of 1."""
    found = implementation(D_MODEL).double()(10 + 10 * X).square().mean(-1)
    return agree(found, torch.ones(2, 5), 1e-5)._replace(gap=None)  # eps makes it, not rounding


def norm_learns_like_pytorch(implementation, ours):
    """The gradient of its gain equals that of F.rms_norm."""
    return same_gradients(randomised(implementation(D_MODEL)), lambda norm: formula(norm, X))


def rms_mistakes(ours):
    class MeanSubtracted(ours.RMSNorm):
        def forward(self, x):
            return super().forward(x - x.mean(-1, keepdim=True))

    class EpsOutside(ours.RMSNorm):
        def forward(self, x):
            return self.gain * x / (x.square().mean(-1, keepdim=True).sqrt() + self.eps)

    class SumOfSquares(ours.RMSNorm):
        def forward(self, x):
            return self.gain * x * torch.rsqrt(x.square().sum(-1, keepdim=True) + self.eps)

    class NoRoot(ours.RMSNorm):
        def forward(self, x):
            return self.gain * x / (x.square().mean(-1, keepdim=True) + self.eps)

    equals = "With the same gain"
    return {
        "mean subtracted": Mistake("the mean is subtracted: that is LayerNorm; RMSNorm only divides",
                                  MeanSubtracted, equals),
        "eps outside": Mistake("eps belongs inside the root", EpsOutside, "It also equals F.rms_norm"),
        "sum of squares": Mistake("divide by the root of the mean of the squares, not of their sum",
                                  SumOfSquares, equals),
        "no root": Mistake("divided by the mean square: take its root", NoRoot, equals),
    }


rms_norm_checks = Part(
    [norm_equals_pytorch, norm_honours_eps, norm_starts_neutral, norm_learns_like_pytorch], rms_mistakes,
    needs="It has one parameter: the gain.")


# ------------------------------------------------------------------ SwiGLU(d_model, d_ff, dropout=0.0)


MAPS = "gate", "expand", "contract"


def gated(layer: nn.Module) -> Tensor:
    """The formula, written out with the layer's weights."""
    gate, expand, contract = (linear.weight for linear in layers_of(layer, MAPS))
    z = X @ gate.T
    return (z * torch.sigmoid(z) * (X @ expand.T)) @ contract.T


def swiglu_equals_the_formula(implementation, ours):
    """It equals W_2·(z · sigmoid(z) ∘ W_1·x), where z = W_g·x."""
    layer = randomised(implementation(D_MODEL, 40))
    return by_order(agree(layer(X), gated(layer)), layer, MAPS)


def swiglu_has_no_biases(implementation, ours):
    """It has three matrices, d_model × d_ff each, and no biases."""
    count = sum(parameter.numel() for parameter in implementation(D_MODEL, 40).parameters())
    finding = agree(torch.tensor(count), torch.tensor(3 * D_MODEL * 40), 0)
    return finding._replace(figure=f"{count:,} parameters", gap=None)


def swiglu_learns_like_the_formula(implementation, ours):
    """The gradients of its weights equal those of the formula."""
    return same_gradients(randomised(implementation(D_MODEL, 40)), gated)


def swiglu_drops_in_training(implementation, ours):
    """Dropout 1.0 gives 0 in training, and changes nothing in eval mode."""
    layer = randomised(implementation(D_MODEL, 40, 1.0))
    return together(agree(layer(X), torch.zeros_like(X), 0), agree(layer.eval()(X), gated(layer)))


def swiglu_mistakes(ours):
    class WrongBranch(ours.SwiGLU):
        def forward(self, x):
            return self.contract(self.gate(x) * F.silu(self.expand(x)))

    class Sigmoid(ours.SwiGLU):
        def forward(self, x):
            return self.contract(torch.sigmoid(self.gate(x)) * self.expand(x))

    class Added(ours.SwiGLU):
        def forward(self, x):
            return self.contract(F.silu(self.gate(x)) + self.expand(x))

    equals = "It equals"
    return {
        "SiLU on the wrong branch": Mistake("silu belongs to the gate; expand stays linear", WrongBranch,
                                            equals),
        "sigmoid alone": Mistake("this is a plain gate: silu(z) is z · sigmoid(z)", Sigmoid, equals),
        "added": Mistake("gate and expand are multiplied, not added", Added, equals),
    }


swiglu_checks = Part(
    [swiglu_equals_the_formula, swiglu_has_no_biases, swiglu_learns_like_the_formula,
     swiglu_drops_in_training],
    swiglu_mistakes,
    needs="The checks read gate, expand and contract (three nn.Linear; with other names, in this order).")


# ------------------------------------------------------------------ GroupedQueryAttention(d_model, …)


def by_pytorch(attention: nn.Module, groups: int, query: Tensor, key: Tensor, value: Tensor,
               mask: Tensor | None) -> Tensor:
    """What PyTorch's grouped attention gives with these projections."""
    maps = layers_of(attention, PROJECTIONS)
    heads = [linear(x).unflatten(-1, (-1, D_MODEL // HEADS)).transpose(1, 2)
             for linear, x in zip(maps, (query, key, value))]
    out = F.scaled_dot_product_attention(*heads, attn_mask=mask, enable_gqa=groups < HEADS)
    return maps[-1](out.transpose(1, 2).flatten(2))


def grouped(implementation, groups: int = GROUPS, **options) -> nn.Module:
    return randomised(implementation(D_MODEL, HEADS, groups, **options))


def groups_equal_pytorch(implementation, ours):
    """With the same weights it equals PyTorch's attention with enable_gqa, for 1, 2 and 3 groups."""
    findings = []
    for groups in (2, 1, 3):
        attention = grouped(implementation, groups)
        expected = by_pytorch(attention, groups, X, MEMORY, CONTENT, None)
        findings.append(at(f"{groups} groups", agree(attention(X, MEMORY, CONTENT), expected)))
    return together(*findings)


def groups_take_a_mask(implementation, ours):
    """With a causal mask and biases it equals PyTorch's attention with enable_gqa."""
    attention, mask = grouped(implementation, bias=True), causal_mask(5)
    return agree(attention(X, X, X, mask), by_pytorch(attention, GROUPS, X, X, X, mask))


def repeated(attention: nn.Module, like: nn.Module) -> nn.Module:
    """`like`, with one head of keys and values per query head, each group's weights repeated."""
    query, key, value, output = layers_of(attention, PROJECTIONS)
    with torch.no_grad():
        for theirs, ours in zip(layers_of(like, PROJECTIONS), (query, key, value, output)):
            nn.init.zeros_(theirs.bias)
            heads = ours.weight.unflatten(0, (-1, D_MODEL // HEADS))
            times = len(theirs.weight) // len(ours.weight)
            theirs.weight.copy_(torch.stack([head for head in heads for _ in range(times)]).flatten(0, 1))
    return like


def groups_are_repeated_weights(implementation, ours):
    """With rotary positions it equals lesson 3's attention with every group's weights repeated."""
    rotary, mask = RotaryPositionalEncoding(D_MODEL // HEADS).double(), causal_mask(5)
    attention = grouped(implementation, rotary=rotary)
    whole = repeated(attention, RotaryAttention(D_MODEL, HEADS, 0.0, rotary).double())
    return together(agree(attention(X, X, X, mask), whole(X, X, X, mask)),
                    agree(attention.weights(X, X, mask), whole.weights(X, X, mask)))


def keeps_groups_in_the_cache(implementation, ours):
    """A cache that replaces attend() gets keys and values of the groups only: 2 heads, not 6."""
    attention, kept = grouped(implementation), []

    def attend(queries, keys, values, mask):
        kept.extend([keys, values])
        return type(attention).attend(attention, queries, keys, values, mask)

    attention.attend = attend
    attention(X, X, X)
    found = torch.tensor([part.shape[1] for part in kept])
    return agree(found, torch.full((2,), GROUPS), 0, "repeat the groups inside attend(), after the cache")


def refuses_uneven_groups(implementation, ours):
    """Heads that do not split into the groups are refused with a ValueError."""
    return refused(lambda: implementation(D_MODEL, HEADS, 4), 6, 4)


def grouped_mistakes(ours):
    class Interleaved(ours.GroupedQueryAttention):
        def shared(self, x):
            return x.repeat(1, self.n_heads // self.n_groups, 1, 1)

    class RepeatedBeforeTheCache(ours.GroupedQueryAttention):
        def split(self, x):
            x = super().split(x)
            return x if x.shape[1] == self.n_heads else super().shared(x)

        def shared(self, x):
            return x

    class NotTurned(ours.GroupedQueryAttention):
        def turned(self, queries, keys):
            return queries, keys

    return {
        "repeat() for repeat_interleave()": Mistake(
            "repeat() gives 0 1 0 1 0 1: the heads that share a group are neighbours, 0 0 0 1 1 1",
            Interleaved, "With the same weights it equals PyTorch's"),
        "repeated before the cache": Mistake(
            "keys and values are repeated before attend(): the cache then keeps every copy",
            RepeatedBeforeTheCache, "A cache that replaces"),
        "not rotated": Mistake("`rotary` isn't used: turn queries and keys by their position", NotTurned,
                               "With rotary positions"),
    }


grouped_checks = Part(
    [groups_equal_pytorch, groups_take_a_mask, groups_are_repeated_weights, keeps_groups_in_the_cache,
     refuses_uneven_groups],
    grouped_mistakes,
    needs="The checks use project_query, project_key, project_value, project_output (four nn.Linear), "
          "weights(), and replace attend(queries, keys, values, mask), to which keys and values come as "
          "(B, G, S, K).",
    helpers=("shared", "turned"))

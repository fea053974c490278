"""Lesson 4. What goes around the attention?

Attention moves information between tokens. A block adds what makes it trainable in depth: a residual
path past every layer, a normalisation, and a small network that works on each token by itself:

    x = x + Attention(LayerNorm(x))          pre-norm, the default here
    x = x + FeedForward(LayerNorm(x))
    x = LayerNorm(x + Attention(x)), …       post-norm, the paper's text

(Section 3.1.) The authors' own code moved to pre-norm soon after the paper, because deep models then
learned more reliably; that it needs no warm-up, Xiong et al. showed in 2020. With pre-norm each stack of
blocks ends in one more LayerNorm. Lesson 2 built the attention; lesson 5 joins the stacks and trains.
"""

import math
from collections.abc import Callable
from copy import deepcopy
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common import (
    Finding,
    Picture,
    Proof,
    agree,
    canvas,
    check,
    check_all,
    check_caught,
    gradients_agree,
    largest_difference,
    lesson,
    lesson_parser,
    narrate,
    parameters,
    prove,
    random_tensors,
    shape,
    shows,
    table,
)

causal_mask = lesson("01_attention_mechanism").causal_mask
padding_mask = lesson("01_attention_mechanism").padding_mask
MultiHeadAttention = lesson("02_multi_head_attention").MultiHeadAttention
copy_attention = lesson("02_multi_head_attention").copy_attention
TokenEmbedding = lesson("03_positional_encoding").TokenEmbedding
SinusoidalPositionalEncoding = lesson("03_positional_encoding").SinusoidalPositionalEncoding

__all__ = [
    "Decoder",
    "DecoderBlock",
    "Encoder",
    "EncoderBlock",
    "FeedForward",
    "LayerNorm",
    "copy_stack",
]


# ------------------------------------------------------------------ the components


def layer_norm(
    x: Tensor, gain: Tensor, bias: Tensor, eps: float = 1e-5
) -> Tensor:
    """By hand: every token's numbers (…, D) get mean 0 and variance 1, then gain and bias.

    The variance is the biased one (divided by D), and eps stands inside the root.
    """
    mean = x.mean(dim=-1, keepdim=True)
    variance = (x - mean).square().mean(dim=-1, keepdim=True)
    return gain * (x - mean) / torch.sqrt(variance + eps) + bias


class LayerNorm(nn.Module):
    """layer_norm() with its two learned vectors, gain and bias (Ba, Kiros and Hinton 2016; section 3.1)."""

    def __init__(self, d_model: int, eps: float = 1e-5):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """x (…, D) → (…, D)."""  # PyTorch's kernel: the same numbers as layer_norm(), sooner
        return F.layer_norm(x, self.gain.shape, self.gain, self.bias, self.eps)


def gelu(x: Tensor) -> Tensor:
    """By hand: x times the probability that a standard normal number is smaller than x."""
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


ACTIVATIONS = {"gelu": F.gelu, "relu": F.relu}  # F.gelu is gelu() in one kernel


class FeedForward(nn.Module):
    """W_2·activation(W_1·x + b_1) + b_2 at every position (section 3.3: with ReLU).

    The linear maps are called expand and contract. Dropout between them isn't in the paper.
    """

    def __init__(self, d_model: int, d_ff: int, dropout: float = 0.0, activation: str = "gelu"):
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation {activation!r} is not one of {', '.join(ACTIVATIONS)}")
        self.activation = ACTIVATIONS[activation]
        self.expand = nn.Linear(d_model, d_ff)
        self.contract = nn.Linear(d_ff, d_model)
        self.dropout = dropout
        for linear in (self.expand, self.contract):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """x (…, D) → (…, D)."""
        x = self.activation(self.expand(x))
        return self.contract(F.dropout(x, self.dropout, self.training))


class Residual(nn.Module):
    """The path around a layer: x + layer(norm(x)) (pre) or norm(x + layer(x)) (post)."""

    def __init__(self, d_model: int, dropout: float = 0.0, norm: str = "pre"):
        super().__init__()
        if norm not in ("pre", "post"):
            raise ValueError(f"norm is {norm!r}; it must be 'pre' or 'post'")
        self.pre = norm == "pre"
        self.norm = LayerNorm(d_model)
        self.dropout = dropout

    def forward(self, x: Tensor, layer: Callable[[Tensor], Tensor]) -> Tensor:
        if self.pre:
            return x + self.drop(layer(self.norm(x)))
        return self.norm(x + self.drop(layer(x)))

    def drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)


class EncoderBlock(nn.Module):
    """Self-attention, then the feed-forward network, each with a path around it (section 3.1).

    Its parts are self_attention, feed_forward and two LayerNorms, made in the order of their use.
    """

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0,
                 norm: str = "pre", activation: str = "gelu", rotary: nn.Module | None = None):
        super().__init__()
        self.self_attention = MultiHeadAttention(d_model, n_heads, dropout, rotary)
        self.around_attention = Residual(d_model, dropout, norm)
        self.feed_forward = FeedForward(d_model, d_ff, dropout, activation)
        self.around_feed_forward = Residual(d_model, dropout, norm)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """x (B, S, D) → (B, S, D); mask broadcastable to (B, H, S, S)."""
        attention = self.self_attention
        x = self.around_attention(x, lambda x: attention(x, x, x, mask)[0])
        return self.around_feed_forward(x, self.feed_forward)


class DecoderBlock(nn.Module):
    """Causal self-attention, attention to the encoder's output, feed-forward (section 3.1).

    Its parts are self_attention, cross_attention, feed_forward and three LayerNorms, made in the order of
    their use. Rotary positions (lesson 3) turn queries and keys of the self-attention alone.
    """

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0,
                 norm: str = "pre", activation: str = "gelu", rotary: nn.Module | None = None):
        super().__init__()
        self.self_attention = MultiHeadAttention(d_model, n_heads, dropout, rotary)
        self.around_self = Residual(d_model, dropout, norm)
        self.cross_attention = MultiHeadAttention(d_model, n_heads, dropout)
        self.around_cross = Residual(d_model, dropout, norm)
        self.feed_forward = FeedForward(d_model, d_ff, dropout, activation)
        self.around_feed_forward = Residual(d_model, dropout, norm)

    def forward(
        self,
        x: Tensor,
        memory: Tensor,
        mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        cache=None,
    ) -> Tensor:
        """x (B, T, D) and the encoder's memory (B, S, D) → (B, T, D).

        mask is broadcastable to (B, H, T, T), memory_mask to (B, H, T, S). `cache` holds two caches,
        self_attention and cross_attention (lesson 6); x is then the tokens that are not in it yet.
        """
        self_cache = None if cache is None else cache.self_attention
        cross_cache = None if cache is None else cache.cross_attention

        def look_back(x: Tensor) -> Tensor:
            return self.self_attention(x, x, x, mask, self_cache)[0]

        def look_at_source(x: Tensor) -> Tensor:
            attention = self.cross_attention
            return attention(x, memory, memory, memory_mask, cross_cache)[0]

        x = self.around_self(x, look_back)
        x = self.around_cross(x, look_at_source)
        return self.around_feed_forward(x, self.feed_forward)


class Encoder(nn.Module):
    """n_layers encoder blocks, called blocks; with pre-norm one LayerNorm at the end, called norm."""

    def __init__(self, n_layers: int, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0,
                 norm: str = "pre", activation: str = "gelu", rotary: nn.Module | None = None):
        super().__init__()
        sizes = d_model, n_heads, d_ff, dropout, norm, activation, rotary
        self.blocks = nn.ModuleList(EncoderBlock(*sizes) for _ in range(n_layers))
        self.norm = LayerNorm(d_model) if norm == "pre" else nn.Identity()

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """x (B, S, D) → (B, S, D); mask broadcastable to (B, H, S, S)."""
        for block in self.blocks:
            x = block(x, mask)
        return self.norm(x)


class Decoder(nn.Module):
    """n_layers decoder blocks, called blocks; with pre-norm one LayerNorm at the end, called norm."""

    def __init__(self, n_layers: int, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0,
                 norm: str = "pre", activation: str = "gelu", rotary: nn.Module | None = None):
        super().__init__()
        sizes = d_model, n_heads, d_ff, dropout, norm, activation, rotary
        self.blocks = nn.ModuleList(DecoderBlock(*sizes) for _ in range(n_layers))
        self.norm = LayerNorm(d_model) if norm == "pre" else nn.Identity()

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor | None = None,
                memory_mask: Tensor | None = None, cache=None) -> Tensor:
        """x (B, T, D), memory (B, S, D) → (B, T, D); masks and cache as in the block, cache a list."""
        for number, block in enumerate(self.blocks):
            x = block(x, memory, mask, memory_mask, None if cache is None else cache[number])
        return self.norm(x)


# ------------------------------------------------------------------ broken on purpose


class UnbiasedLayerNorm(LayerNorm):
    """Broken on purpose: the variance is divided by D − 1 (the default of torch.var)."""

    def forward(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(x, dim=-1, keepdim=True)
        return self.gain * (x - mean) / torch.sqrt(variance + self.eps) + self.bias


class EpsOutsideLayerNorm(LayerNorm):
    """Broken on purpose: eps is added to the standard deviation, outside the root."""

    def forward(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(x, dim=-1, correction=0, keepdim=True)
        return self.gain * (x - mean) / (torch.sqrt(variance) + self.eps) + self.bias


class VarianceLayerNorm(LayerNorm):
    """Broken on purpose: divided by the variance instead of its root."""

    def forward(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(x, dim=-1, correction=0, keepdim=True)
        return self.gain * (x - mean) / (variance + self.eps) + self.bias


class LayerNormOverTokens(LayerNorm):
    """Broken on purpose: mean and variance of each number over the tokens."""

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x.mT, x.shape[-2:-1], eps=self.eps).mT * self.gain + self.bias


class LinearFeedForward(FeedForward):
    """Broken on purpose: nothing between the two matrices, so together they are one."""

    def forward(self, x: Tensor) -> Tensor:
        return self.contract(self.expand(x))


class ApproximateFeedForward(FeedForward):
    """Not the same: the tanh approximation of GELU (as in GPT-2)."""

    def forward(self, x: Tensor) -> Tensor:
        return self.contract(F.gelu(self.expand(x), approximate="tanh"))


class ActivationLast(FeedForward):
    """Broken on purpose: the activation comes after the second matrix."""

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.contract(self.expand(x)))


class ResidualAroundNorm(Residual):
    """Broken on purpose: the path starts behind the norm, norm(x) + layer(norm(x))."""

    def forward(self, x: Tensor, layer: Callable[[Tensor], Tensor]) -> Tensor:
        return self.norm(x) + self.drop(layer(self.norm(x))) if self.pre else super().forward(x, layer)


class NoResidual(Residual):
    """Broken on purpose: no path around the layer."""

    def forward(self, x: Tensor, layer: Callable[[Tensor], Tensor]) -> Tensor:
        return layer(self.norm(x)) if self.pre else self.norm(layer(x))


class OtherNorm(Residual):
    """Broken on purpose: post-norm where pre-norm was asked for, and the reverse."""

    def forward(self, x: Tensor, layer: Callable[[Tensor], Tensor]) -> Tensor:
        return self.norm(x + layer(x)) if self.pre else x + layer(self.norm(x))


def with_paths(block_class: type, path_class: type) -> type:
    """The block class with another kind of residual path."""

    class Broken(block_class):
        def __init__(self, d_model, n_heads, d_ff, dropout=0.0, norm="pre", *options):
            super().__init__(d_model, n_heads, d_ff, dropout, norm, *options)
            for name, child in list(self.named_children()):
                if isinstance(child, Residual):
                    setattr(self, name, path_class(d_model, dropout, norm))

    return Broken


class MaskOnQueries(EncoderBlock):
    """Broken on purpose: the padding mask lies on the query axis."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return super().forward(x, None if mask is None else mask.mT)


class CrossWithoutMask(DecoderBlock):
    """Broken on purpose: cross-attention looks at the source's padding."""

    def forward(self, x, memory, mask=None, memory_mask=None, cache=None):
        return super().forward(x, memory, mask, None, cache)


class SelfWithoutMask(DecoderBlock):
    """Broken on purpose: self-attention sees the future."""

    def forward(self, x, memory, mask=None, memory_mask=None, cache=None):
        return super().forward(x, memory, None, memory_mask, cache)


class EncoderWithoutNorm(Encoder):
    """Broken on purpose: no LayerNorm after the last pre-norm block."""

    def __init__(self, *sizes, **options):
        super().__init__(*sizes, **options)
        self.norm = nn.Identity()


class DecoderWithoutNorm(Decoder):
    """Broken on purpose: no LayerNorm after the last pre-norm block."""

    def __init__(self, *sizes, **options):
        super().__init__(*sizes, **options)
        self.norm = nn.Identity()


class DecoderWithoutMemoryMask(Decoder):
    """Broken on purpose: the source's padding mask gets lost on the way to the blocks."""

    def forward(self, x, memory, mask=None, memory_mask=None, cache=None):
        return super().forward(x, memory, mask, None, cache)


PATH_MISTAKES = {
    "the path starts behind the norm: x + layer(norm(x)), not norm(x) + …": ResidualAroundNorm,
    "the path around the layers is missing: x + layer(…)": NoResidual,
    "norm='pre' and norm='post' are swapped": OtherNorm,
}
MISTAKES = {
    "LayerNorm": {
        "the variance is divided by D − 1: use the biased one, divided by D": UnbiasedLayerNorm,
        "eps belongs inside the root: √(variance + eps)": EpsOutsideLayerNorm,
        "divided by the variance: take its root": VarianceLayerNorm,
        "mean and variance run over the tokens; they belong over the last axis": LayerNormOverTokens,
    },
    "FeedForward": {
        "there is no activation between the two matrices": LinearFeedForward,
        "this is GELU's tanh approximation, not x·Φ(x)": ApproximateFeedForward,
        "the activation belongs between the matrices, not after both": ActivationLast,
    },
    "EncoderBlock": {
        **{text: with_paths(EncoderBlock, path) for text, path in PATH_MISTAKES.items()},
        "the mask lies on the query axis; it hides keys, (B, 1, 1, S)": MaskOnQueries,
    },
    "DecoderBlock": {
        **{text: with_paths(DecoderBlock, path) for text, path in PATH_MISTAKES.items()},
        "cross-attention ignores memory_mask, the source's padding": CrossWithoutMask,
        "self-attention ignores the causal mask": SelfWithoutMask,
    },
    "Encoder": {"with pre-norm the stack ends in one more LayerNorm": EncoderWithoutNorm},
    "Decoder": {
        "with pre-norm the stack ends in one more LayerNorm": DecoderWithoutNorm,
        "memory_mask doesn't reach the blocks": DecoderWithoutMemoryMask,
    },
}


# ------------------------------------------------------------------ the steps


class Bare(Residual):
    """Neither path nor normalisation."""

    def forward(self, x: Tensor, layer: Callable[[Tensor], Tensor]) -> Tensor:
        return layer(x)


STACKS = {
    "no path, no norm": (Bare, "pre"),
    "no path, norm": (NoResidual, "pre"),
    "path, post-norm": (Residual, "post"),
    "path, pre-norm": (Residual, "pre"),
}
DEPTH = 12


def through_the_layers(path: type, norm: str) -> tuple[list[float], list[float]]:
    """For inputs of layer 1 … 12: the gradient's norm, and how far apart the tokens are.

    The second is the share of the activations that is not common to all tokens of a sequence.
    """
    blocks = [with_paths(EncoderBlock, path)(32, 4, 128, 0.0, norm) for _ in range(DEPTH)]
    x = torch.randn(16, 10, 32, requires_grad=True)
    inputs = [x]
    for block in blocks:
        inputs.append(block(inputs[-1]))
    grads = torch.autograd.grad((inputs[-1] * torch.randn_like(x)).sum(), inputs[:-1])
    apart = [((h - h.mean(1, keepdim=True)).norm() / h.norm()).item() for h in inputs[:-1]]
    return [grad.norm().item() for grad in grads], apart


@shows(Residual.forward)
def step_residual_paths():
    """Residual paths: a way round every layer

    A block has two layers, attention and a small network, and x + layer(x) has the derivative 1 + …: the
    gradient has a path round each of them. Without it, each of the 24 layers in 12 blocks shrinks it.

    A normalisation in each block keeps the gradient's size, and hides a worse damage: without the path,
    attention averages the tokens again and again, until all of them are the same vector (Dong,
    Cordonnier and Loukas 2021). The path keeps them apart. Untrained blocks of width 32, with the small
    first weights of lesson 2; gradient is that of a block's input, “apart” the share of the vectors that
    isn't common to all tokens of a sequence.
    """
    curves = {name: through_the_layers(*parts) for name, parts in STACKS.items()}
    rows = [(name, grads[0], grads[-1], apart[0], apart[-1])
            for name, (grads, apart) in curves.items()]
    facts = {row[0]: row[1:] for row in rows}
    first, last, _, _ = facts["no path, no norm"]
    check("without path and norm the first block's gradient is less than a millionth of "
          "the last one's", first / last < 1e-6, f"{first / last:.0e}")
    check("without path, norm alone, the tokens end up equal",
          facts["no path, norm"][3] < 1e-4, f"{facts['no path, norm'][3]:.0e}")
    for name in ("path, post-norm", "path, pre-norm"):
        first, last, _, apart = facts[name]
        check(f"{name}: gradients within a factor of 10, tokens apart",
              0.1 < first / last < 10 and apart > 0.5, f"{first / last:.1f}, {apart:.2f}")
    figure = Picture("transformer_block_residual.png", draw_through_the_layers(curves))
    header = "", "gradient: block 1", f"block {DEPTH}", "apart: block 1", f"block {DEPTH}"
    return table(*header, rows=rows), figure


@shows(layer_norm)
def step_layer_norm():
    """LayerNorm: every token for itself

    Each token's vector gets mean 0 and variance 1, then a learned gain and bias. It uses nothing but the
    token's own numbers. BatchNorm, while training, takes mean and variance of each number over all tokens
    of the batch, so a sentence's output depends on its neighbours and on how much padding there is.
    The class LayerNorm runs PyTorch's kernel, which gives the numbers of layer_norm() faster.
    """
    x = torch.randn(4, 6, 8)
    other_neighbour, other_padding = x.clone(), x.clone()
    other_neighbour[3] = torch.randn(6, 8) + 2
    other_padding[0, 4:] = 0.0  # the last two tokens of the first sentence
    layers = {"LayerNorm": LayerNorm(8), "BatchNorm": BatchNorm(8)}
    rows, moved = [], {}
    for name, norm in layers.items():
        before = norm(x)[0, :4]
        changes = [largest_difference(norm(other)[0, :4], before)
                   for other in (other_neighbour, other_padding)]
        rows.append((name, *changes))
        moved[name] = max(changes)
    check("LayerNorm: nothing of it changes a real token, bit for bit", moved["LayerNorm"] == 0)
    check("BatchNorm: both do", min(rows[1][1:]) > 0.01)
    norm = randomised(LayerNorm(8))
    gap = max(largest_difference(layer_norm(scale * x.double(), norm.gain, norm.bias),
                                 norm(scale * x.double())) for scale in (1, 3e-3))
    check("layer_norm() by hand equals the class, any gain and bias", gap < 1e-12, f"{gap:.0e}")
    check_all(prove_layer_norm(LayerNorm))
    return table("sentence 1 changes by", "another neighbour", "other padding", rows=rows)


class BatchNorm(nn.BatchNorm1d):
    """nn.BatchNorm1d for x (B, L, D), in training mode."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(0, 1)).view_as(x)


@shows()
def step_half_precision():
    """Half precision: where a norm overflows

    float16 ends at 65,504. A token whose numbers are around 1,000 is no problem, but the squares in its
    variance are. PyTorch's kernel averages in float32; the formula, taken literally in float16, divides
    by infinity. bfloat16 has float32's range, but only two to three digits. Error against float64:
    """
    x = 1000 * torch.randn(2, 6, 32)
    rows = []
    for kind in (torch.float32, torch.bfloat16, torch.float16):
        low = x.to(kind)
        exact = layer_norm(low.double(), torch.ones(32), torch.zeros(32))
        ours = LayerNorm(32).to(kind)(low)
        literal = layer_norm(low, torch.ones(32, dtype=kind), torch.zeros(32, dtype=kind))
        block = EncoderBlock(32, 4, 64).to(kind)(low)
        errors = largest_difference(literal, exact), largest_difference(ours, exact)
        rows.append((str(kind), *errors, "yes" if block.isfinite().all() else "no"))
    check("the kernel is right to 1 % in every type", max(row[2] for row in rows) < 0.01)
    check("the literal formula is wrong in float16", rows[2][1] > 0.5)
    check("a whole block stays finite in every type", all(row[3] == "yes" for row in rows))
    return table("type", "literal formula", "LayerNorm", "block finite", rows=rows)


@shows(FeedForward.forward)
def step_feed_forward():
    """The feed-forward network: thinking, token by token

    Attention mixes tokens, and except for its weights it is linear in them. The feed-forward network, two
    matrices with an activation between them and four times the width there, adds the non-linearity; it
    holds two thirds of an encoder block's parameters. It is the same function at every position. The paper
    uses ReLU; GELU, x·P(Z < x) with Z standard normal, is its smooth relative.
    """
    x = torch.linspace(-3, 3, 13, dtype=torch.float64)
    gap = largest_difference(gelu(x), F.gelu(x))
    check("GELU by hand equals F.gelu", gap < 1e-12, f"largest difference {gap:.0e}")
    layer, tokens = FeedForward(32, 128), torch.randn(2, 6, 32)
    alone = torch.stack([layer(tokens[:, [place]])[:, 0] for place in range(6)], dim=1)
    gap = largest_difference(layer(tokens), alone)
    check("all positions at once = one by one", gap < 1e-5, f"largest difference {gap:.0e}")
    block = EncoderBlock(64, 4, 256)
    share = parameters(block.feed_forward) / parameters(block)
    check("it holds about two thirds of an encoder block", 0.6 < share < 0.7, f"{share:.1%}")
    check_all(prove_feed_forward(FeedForward))


class Reverser(nn.Module):
    """Embedding, positions, an encoder, logits: learns to reverse six symbols."""

    def __init__(self, norm: str, n_layers: int = 4):
        super().__init__()
        self.embedding = TokenEmbedding(13, 32)
        self.positions = SinusoidalPositionalEncoding(32)
        self.encoder = Encoder(n_layers, 32, 4, 128, norm=norm)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.embedding.logits(self.encoder(self.positions(self.embedding(tokens))))


RATE = 0.01


def train_reverser(norm: str, warmup: int, steps: int = 250) -> list[float]:
    """The losses at a learning rate of RATE after the warm-up; always the same seed."""
    torch.manual_seed(0)
    model = Reverser(norm)
    optimizer = torch.optim.Adam(model.parameters())
    losses = []
    for step in range(steps):
        tokens = torch.randint(3, 13, (16, 6))
        loss = F.cross_entropy(
            model(tokens).flatten(0, 1), tokens.flip(1).flatten()
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.param_groups[0]["lr"] = RATE * min(
            1.0, (step + 1) / max(1, warmup)
        )
        optimizer.step()
        losses.append(loss.item())
    return losses


def gradients_at_start(norm: str, seeds: int = 5) -> list[float]:
    """The norm of the parameters' gradient in each of 12 fresh blocks, the mean over seeds."""
    norms = torch.zeros(DEPTH)
    for _ in range(seeds):
        model = Reverser(norm, DEPTH)
        tokens = torch.randint(3, 13, (64, 6))
        F.cross_entropy(model(tokens).flatten(0, 1), tokens.flip(1).flatten()).backward()
        for number, block in enumerate(model.encoder.blocks):
            norms[number] += torch.cat([p.grad.flatten() for p in block.parameters()]).norm() / seeds
    return norms.tolist()


@shows(train_reverser)
def step_pre_or_post():
    """Pre-norm or post-norm, and why a warm-up

    Post-norm, the paper's text, normalises after adding: the path itself passes through every LayerNorm.
    Pre-norm normalises what goes into a layer and leaves the path free. In a fresh stack of 12 blocks
    pre-norm's gradient gets smaller towards the output, post-norm's doesn't: its last blocks are pushed
    about twice as hard (the gradient of a block's parameters). Xiong et al. 2020 explain by it why
    post-norm needs a warm-up, small steps first (section 5.3), and pre-norm none.

    Four blocks learn to reverse six symbols, learning rate 0.01, 250 steps; guessing gives ln 10 = 2.30:
    """
    runs = {(norm, warmup): train_reverser(norm, warmup)
            for norm in ("pre", "post") for warmup in (0, 100)}
    ends = {run: sum(losses[-20:]) / 20 for run, losses in runs.items()}
    check("pre-norm learns without warm-up", ends["pre", 0] < 0.5, f"loss {ends['pre', 0]:.2f}")
    check("post-norm doesn't", ends["post", 0] > 1.5, f"loss {ends['post', 0]:.2f}")
    check("… and does with 100 steps of warm-up", ends["post", 100] < 1, f"{ends['post', 100]:.2f}")
    starts = {norm: gradients_at_start(norm) for norm in ("pre", "post")}
    ratio = starts["post"][-1] / starts["pre"][-1]
    check("the last block's gradient at the start: post-norm's is larger",
          ratio > 1.5, f"{ratio:.1f} times")
    figure = Picture("transformer_block_warmup.png", draw_warmup(runs, starts))
    rows = [(norm, warmup or "none", ends[norm, warmup]) for norm, warmup in runs]
    return table("norm", "warm-up steps", "loss at the end", rows=rows), figure


def shapes_through(module: nn.Module, *inputs: Tensor) -> list[tuple[str, str, str]]:
    """(part, its class, shape of its output) for every direct part, in the order of running."""
    rows, hooks = [], []
    for name, part in module.named_modules():
        if name and ("." not in name or name.endswith(".norm")):
            def note(part, _, output, name=name):
                output = output[0] if isinstance(output, tuple) else output
                rows.append((name, type(part).__name__, shape(output)))
            hooks.append(part.register_forward_hook(note))
    module(*inputs)
    for hook in hooks:
        hook.remove()
    return rows


@shows(EncoderBlock.forward)
def step_encoder_block():
    """The encoder block

    Two layers, each with its path: look at the others, then think. The shape (B, S, D) never changes, so
    blocks can be stacked. What runs, in order, for 2 sentences of 7 tokens:
    """
    rows = shapes_through(EncoderBlock(32, 4, 128), torch.randn(2, 7, 32))
    check("every part returns 2 × 7 × 32", {row[2] for row in rows} == {"2 × 7 × 32"})
    check_all(prove_encoder_block(EncoderBlock))
    return table("part", "class", "output", rows=rows)


@shows(DecoderBlock.forward)
def step_decoder_block():
    """The decoder block

    Three layers: look back at the own tokens (causal), look at the source (cross-attention: queries from
    here, keys and values from the encoder's memory), think. The length is the target's throughout.
    """
    inputs = torch.randn(2, 5, 32), torch.randn(2, 7, 32)
    rows = shapes_through(DecoderBlock(32, 4, 128), *inputs, causal_mask(5))
    check("every part returns 2 × 5 × 32", {row[2] for row in rows} == {"2 × 5 × 32"})
    check_all(prove_decoder_block(DecoderBlock))
    return table("part", "class", "output", rows=rows)


def formula(d: int, d_ff: int, n_layers: int) -> tuple[int, int, int]:
    """Parameters of n + n layers: attention, feed-forward, norms (with the two final ones)."""
    attention = 4 * (d * d + d)
    feed_forward = 2 * d * d_ff + d_ff + d
    return 3 * n_layers * attention, 2 * n_layers * feed_forward, (5 * n_layers + 2) * 2 * d


@shows(formula)
def step_stacking():
    """Stacking

    An encoder of N blocks is N times the same class. Per encoder block one attention, per decoder block
    two: 4·(D² + D) parameters each; feed-forward 2·D·d_ff + d_ff + D; a LayerNorm 2·D. Formula and count
    for N + N layers, d_ff = 4·D; the embedding is that of the paper, 37,000 tokens, counted once.
    """
    rows = []
    for d_model, n_layers in (64, 1), (64, 2), (256, 6), (512, 6), (1024, 6), (1024, 12):
        with torch.device("meta"):  # counts without allocating
            sizes = n_layers, d_model, 4, 4 * d_model
            counted = parameters(Encoder(*sizes)) + parameters(Decoder(*sizes))
        parts = formula(d_model, 4 * d_model, n_layers)
        whole = counted + 37_000 * d_model
        shares = [f"{part / whole:.0%}" for part in (*parts[:2], 37_000 * d_model)]
        rows.append((d_model, n_layers, sum(parts), counted, *shares))
    check("formula and count agree in every row", all(row[2] == row[3] for row in rows))
    x = torch.randn(2, 7, 64)
    check("12 blocks return the shape of x", Encoder(12, 64, 4, 256)(x).shape == x.shape)
    return table("D", "N", "formula", "counted", "attention", "feed-f.", "embedding", rows=rows)


def step_equals_pytorch():
    """The stacks equal PyTorch's

    The blocks were proved above. Three of them, with and without the last LayerNorm:
    """
    check_all(prove_encoder(Encoder))
    check_all(prove_decoder(Decoder))


def step_the_drawing():
    """The whole picture

    Class names, sizes and parameter counts in the drawing are read off real modules; the arrows are not.
    """
    encoder, decoder = Encoder(2, 64, 4, 256), Decoder(2, 64, 4, 256)
    embedding = TokenEmbedding(13, 64)
    figure = draw_transformer(
        embedding, SinusoidalPositionalEncoding(64), encoder, decoder
    )
    return Picture("transformer_block_drawing.png", figure)


@shows(MaskOnQueries, CrossWithoutMask)
def step_broken_on_purpose():
    """Broken on purpose

    A mask laid on the queries blinds the padding instead of hiding it from the others. Cross-attention
    without the source's mask reads padding, and its answers depend on the batch. Without the last
    LayerNorm a pre-norm stack hands on the sum of all its layers, which grows with the depth:
    """
    check_caught("MaskOnQueries", prove_encoder_block(MaskOnQueries), "Other content in the padding")
    check_caught("CrossWithoutMask", prove_decoder_block(CrossWithoutMask), "Other content in the source")
    check_caught("EncoderWithoutNorm", prove_encoder(EncoderWithoutNorm), "Three pre-norm layers")
    x, rows = torch.randn(2, 7, 32), []
    for depth in (1, 4, 16, 64):
        sizes = depth, 32, 4, 128
        without = EncoderWithoutNorm(*sizes)(x).std().item()
        rows.append((depth, without, Encoder(*sizes)(x).std().item()))
    check("without the norm the output grows with depth", rows[-1][1] > 2 * rows[0][1])
    check("with it, its size stays 1", all(abs(row[2] - 1) < 0.05 for row in rows))
    return table("layers", "size without the norm", "with it", rows=rows)


def step_what_next():
    """What now?

    Read: Residual.forward, EncoderBlock.forward, DecoderBlock.forward: thirty lines, and the whole idea.

    Change: (1) in Residual, return self.norm(x) + … for pre-norm: the proofs name the mistake. (2) DEPTH to
    24: without path and norm the gradient is then exactly 0, and nothing is left to be apart. (3) RATE to
    0.001: post-norm learns without a warm-up, too, but slowly (✗, for the step says it doesn't).

    Write it yourself: --template my_block.py, then --grade my_block.py.
    Next: python 05_mini_transformer.py.
    """


# ------------------------------------------------------------------ the proofs


def norms_of(module: nn.Module) -> list[nn.Module]:
    """The normalisations of a block or stack, in the order in which they were made."""
    return [part for part in module.modules() if type(part).__name__ == "LayerNorm"]


def copy_norm(ours: nn.Module, theirs: nn.LayerNorm) -> nn.Module:
    """`ours` with the weights of `theirs`."""
    with torch.no_grad():
        for parameter, weight in zip(ours.parameters(), theirs.parameters(), strict=True):
            parameter.copy_(weight)
    return ours


def copy_block(ours: nn.Module, theirs: nn.Module) -> nn.Module:
    """`ours`, an encoder or decoder block, with the weights of PyTorch's layer."""
    copy_attention(ours.self_attention, theirs.self_attn)
    if hasattr(theirs, "multihead_attn"):
        copy_attention(ours.cross_attention, theirs.multihead_attn)
    ours.feed_forward.expand.load_state_dict(theirs.linear1.state_dict())
    ours.feed_forward.contract.load_state_dict(theirs.linear2.state_dict())
    for norm, reference in zip(norms_of(ours), norms_of(theirs), strict=True):
        copy_norm(norm, reference)
    return ours


def copy_stack(ours: nn.Module, theirs: nn.Module) -> nn.Module:
    """`ours`, an Encoder or Decoder, with the weights of PyTorch's stack."""
    for block, layer in zip(ours.blocks, theirs.layers, strict=True):
        copy_block(block, layer)
    if theirs.norm is not None and norms_of(ours.norm):
        copy_norm(ours.norm, theirs.norm)
    return ours


def randomised(module: nn.Module) -> nn.Module:
    """The module in float64 with every parameter random, biases and gains too."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.double().parameters():
        nn.init.normal_(parameter, std=0.4, generator=generator)
    return module


def prove_layer_norm(implementation) -> list[Proof]:
    """What holds for every LayerNorm(d_model) with two parameters, gain and bias."""
    (x,) = random_tensors((2, 5, 6))
    theirs = randomised(nn.LayerNorm(6))

    def expect(x, tolerance):
        wrong = {text: copy_norm(kind(6).double(), theirs)(x)
                 for text, kind in MISTAKES["LayerNorm"].items()}
        ours = copy_norm(implementation(6).double(), theirs)
        return agree(ours(x), theirs(x), tolerance, wrong)

    def equals_pytorch():
        """It equals nn.LayerNorm."""
        return expect(x, 1e-12)

    def handles_small_variance():
        """… also where the variance is as small as eps: eps stands inside the root."""
        return expect(x * 3e-3, 1e-12)

    def honours_eps():
        """… and with another eps, 0.5."""
        return agree(implementation(6, 0.5).double()(x), F.layer_norm(x, (6,), eps=0.5), 1e-12)

    def starts_neutral():
        """Fresh, every token comes out with mean 0 and variance 1."""
        out = implementation(6).double()(10 + 10 * x)
        facts = torch.stack([out.mean(-1), out.var(-1, correction=0)])
        return agree(facts, torch.stack([torch.zeros(2, 5), torch.ones(2, 5)]), 1e-4)

    def has_right_gradients():
        """The gradients equal those of nn.LayerNorm."""
        ours, reference = copy_norm(implementation(6).double(), theirs), deepcopy(theirs)
        ours(x).sin().sum().backward()
        reference(x).sin().sum().backward()
        return gradients_agree(ours, reference, copy_norm)

    def survives_half_precision():
        """In bfloat16 and float16, numbers of 1,000 stay finite and come out right to 1 %."""
        large = 1000 * x
        found = torch.stack([implementation(6).to(kind)(large.to(kind)).double() for kind in HALVES])
        expected = torch.stack([F.layer_norm(large.to(kind).double(), (6,)) for kind in HALVES])
        if not found.isfinite().all() or not found.any(-1).all():
            return Finding(False, "overflow", "square and average in float32, not in float16")
        return agree(found, expected, 0.01)

    return prove(equals_pytorch, handles_small_variance, honours_eps, starts_neutral,
                 has_right_gradients, survives_half_precision)


HALVES = torch.bfloat16, torch.float16


def prove_feed_forward(implementation) -> list[Proof]:
    """What holds for every FeedForward(d_model, d_ff) with the linear maps expand and contract."""
    (x,) = random_tensors((2, 5, 6))

    def expect(activation, name):
        reference = randomised(nn.Sequential(nn.Linear(6, 24), activation, nn.Linear(24, 6)))

        def build(kind):
            ours = kind(6, 24, activation=name).double()
            ours.expand.load_state_dict(reference[0].state_dict())
            ours.contract.load_state_dict(reference[2].state_dict())
            return ours(x)

        wrong = {text: build(kind) for text, kind in MISTAKES["FeedForward"].items()}
        return agree(build(implementation), reference(x), 1e-10, wrong)

    def equals_pytorch():
        """It equals Linear, GELU, Linear."""
        return expect(nn.GELU(), "gelu")

    def knows_relu():
        """With activation="relu" it is the paper's."""
        return expect(nn.ReLU(), "relu")

    def drops_activations():
        """Dropout in training alone, between activation and second map: 1.0 leaves only its bias."""
        layer = implementation(6, 24, dropout=1.0).double()
        nn.init.normal_(layer.contract.bias)
        bias = layer.contract.bias.expand_as(x)
        holds = torch.equal(layer(x), bias) and not torch.equal(layer.eval()(x), bias)
        return Finding(holds, "", "F.dropout(…, self.training) between activation and second map")

    def works_by_position():
        """A token's output doesn't change, bit for bit, when another token does."""
        layer, other = implementation(6, 24).double(), x.clone()
        other[:, 3] = 7.0
        kept = [0, 1, 2, 4]
        return agree(layer(other)[:, kept], layer(x)[:, kept], 0)

    return prove(equals_pytorch, knows_relu, drops_activations, works_by_position)


D_MODEL, HEADS, D_FF = 12, 3, 24


def pytorch_layer(kind: type, norm: str) -> nn.Module:
    """nn.TransformerEncoderLayer or …DecoderLayer with random weights, in float64."""
    return randomised(kind(D_MODEL, HEADS, D_FF, 0.0, "gelu", batch_first=True,
                           norm_first=norm == "pre"))


def drops_half_of_each_layer(block: nn.Module, share: float, *inputs: Tensor) -> Finding:
    """Whether `share` of the numbers leave a block with dropout 0.5 as they came; none in eval mode."""
    shares = [(block.train(training)(*inputs) == inputs[0]).double().mean().item()
              for training in (True, False)]
    return Finding(abs(shares[0] - share) < 0.06 and shares[1] == 0,
                   f"{shares[0]:.0%}, in eval mode {shares[1]:.0%}",
                   "drop parts of every layer's output, in training alone")


def prove_encoder_block(implementation) -> list[Proof]:
    """What holds for every EncoderBlock(d_model, n_heads, d_ff, dropout, norm).

    Its parts are called self_attention (lesson 2's names inside) and feed_forward (expand, contract); its
    LayerNorms are made in the order in which they are used.
    """
    (x,) = random_tensors((2, 5, D_MODEL))
    padding = padding_mask(torch.tensor([[3, 4, 5, 6, 7], [3, 4, 5, 0, 0]]))

    def build(kind, theirs, norm):
        return copy_block(kind(D_MODEL, HEADS, D_FF, 0.0, norm).double(), theirs)

    def expect(norm, mask):
        theirs = pytorch_layer(nn.TransformerEncoderLayer, norm)
        expected = theirs(x, src_key_padding_mask=None if mask is None else ~mask[:, 0, 0])
        wrong = {text: build(kind, theirs, norm)(x, mask)
                 for text, kind in MISTAKES["EncoderBlock"].items()}
        return agree(build(implementation, theirs, norm)(x, mask), expected, 1e-10, wrong)

    def pre_norm():
        """Pre-norm: it equals nn.TransformerEncoderLayer with norm_first=True."""
        return expect("pre", None)

    def pre_norm_masked():
        """… with a padding mask, too."""
        return expect("pre", padding)

    def post_norm():
        """Post-norm: it equals nn.TransformerEncoderLayer with norm_first=False."""
        return expect("post", None)

    def post_norm_masked():
        """… with a padding mask as well."""
        return expect("post", padding)

    def has_right_gradients():
        """The gradients of all parameters equal PyTorch's, pre and post."""
        for norm in ("pre", "post"):
            theirs = pytorch_layer(nn.TransformerEncoderLayer, norm)
            ours = build(implementation, theirs, norm)
            ours(x, padding).sin().sum().backward()
            theirs(x, src_key_padding_mask=~padding[:, 0, 0]).sin().sum().backward()
            finding = gradients_agree(ours, theirs, copy_block)
            if not finding.holds:
                return finding
        return finding

    def hides_padding():
        """Other content in the padding changes no real token, bit for bit."""
        block, other = implementation(D_MODEL, HEADS, D_FF).double(), x.clone()
        other[1, 3:] = 7.0
        return agree(block(other, padding)[1, :3], block(x, padding)[1, :3], 0)

    def drops_layers():
        """dropout=0.5, in training: a quarter of the numbers pass both layers as they came."""
        (x,) = random_tensors((20, 5, D_MODEL))
        return drops_half_of_each_layer(implementation(D_MODEL, HEADS, D_FF, 0.5).double(), 1 / 4, x)

    return prove(pre_norm, pre_norm_masked, post_norm, post_norm_masked, has_right_gradients,
                 hides_padding, drops_layers)


def prove_decoder_block(implementation) -> list[Proof]:
    """What holds for every DecoderBlock(d_model, n_heads, d_ff, dropout, norm).

    As EncoderBlock, with cross_attention between the two; forward(x, memory, mask, memory_mask).
    """
    x, memory = random_tensors((2, 4, D_MODEL), (2, 5, D_MODEL))
    causal = causal_mask(4)
    padding = padding_mask(torch.tensor([[3, 4, 5, 6, 7], [3, 4, 5, 0, 0]]))

    def build(kind, theirs, norm):
        return copy_block(kind(D_MODEL, HEADS, D_FF, 0.0, norm).double(), theirs)

    def run_theirs(theirs):
        hidden = ~padding[:, 0, 0]
        return theirs(x, memory, tgt_mask=~causal, memory_key_padding_mask=hidden)

    def expect(norm):
        theirs = pytorch_layer(nn.TransformerDecoderLayer, norm)
        wrong = {text: build(kind, theirs, norm)(x, memory, causal, padding)
                 for text, kind in MISTAKES["DecoderBlock"].items()}
        found = build(implementation, theirs, norm)(x, memory, causal, padding)
        return agree(found, run_theirs(theirs), 1e-10, wrong)

    def pre_norm():
        """Pre-norm, both masks: it equals nn.TransformerDecoderLayer with norm_first=True."""
        return expect("pre")

    def post_norm():
        """Post-norm, both masks: it equals nn.TransformerDecoderLayer with norm_first=False."""
        return expect("post")

    def has_right_gradients():
        """The gradients of all parameters equal PyTorch's, pre and post."""
        for norm in ("pre", "post"):
            theirs = pytorch_layer(nn.TransformerDecoderLayer, norm)
            ours = build(implementation, theirs, norm)
            ours(x, memory, causal, padding).sin().sum().backward()
            run_theirs(theirs).sin().sum().backward()
            finding = gradients_agree(ours, theirs, copy_block)
            if not finding.holds:
                return finding
        return finding

    def hides_the_future():
        """Other tokens in the future change no earlier output, bit for bit."""
        block, other = implementation(D_MODEL, HEADS, D_FF).double(), x.clone()
        other[:, 2:] = 7.0
        outputs = (block(tokens, memory, causal, padding)[:, :2] for tokens in (other, x))
        return agree(*outputs, 0)

    def hides_source_padding():
        """Other content in the source's padding changes nothing, bit for bit."""
        block, other = implementation(D_MODEL, HEADS, D_FF).double(), memory.clone()
        other[1, 3:] = 7.0
        return agree(*(block(x, source, causal, padding) for source in (other, memory)), 0)

    def drops_layers():
        """dropout=0.5, in training: an eighth of the numbers pass all three layers as they came."""
        x, memory = random_tensors((20, 4, D_MODEL), (20, 5, D_MODEL))
        block = implementation(D_MODEL, HEADS, D_FF, 0.5).double()
        return drops_half_of_each_layer(block, 1 / 8, x, memory)

    return prove(pre_norm, post_norm, has_right_gradients, hides_the_future, hides_source_padding,
                 drops_layers)


def prove_encoder(implementation) -> list[Proof]:
    """What holds for every Encoder(n_layers, d_model, n_heads, d_ff, dropout, norm) with `blocks`."""
    (x,) = random_tensors((2, 5, D_MODEL))
    padding = padding_mask(torch.tensor([[3, 4, 5, 6, 7], [3, 4, 5, 0, 0]]))

    def expect(norm):
        final = nn.LayerNorm(D_MODEL) if norm == "pre" else None
        theirs = randomised(nn.TransformerEncoder(
            pytorch_layer(nn.TransformerEncoderLayer, norm), 3, final, enable_nested_tensor=False))
        expected = theirs(x, src_key_padding_mask=~padding[:, 0, 0])

        def build(kind):
            return copy_stack(kind(3, D_MODEL, HEADS, D_FF, norm=norm).double(), theirs)(x, padding)

        wrong = {text: build(kind) for text, kind in MISTAKES["Encoder"].items()}
        return agree(build(implementation), expected, 1e-10, wrong)

    def pre_norm():
        """Three pre-norm layers and a final norm: it equals nn.TransformerEncoder."""
        return expect("pre")

    def post_norm():
        """Three post-norm layers, no final norm: it equals nn.TransformerEncoder."""
        return expect("post")

    return prove(pre_norm, post_norm)


def prove_decoder(implementation) -> list[Proof]:
    """What holds for every Decoder(n_layers, d_model, n_heads, d_ff, dropout, norm) with `blocks`."""
    x, memory = random_tensors((2, 4, D_MODEL), (2, 5, D_MODEL))
    causal = causal_mask(4)
    padding = padding_mask(torch.tensor([[3, 4, 5, 6, 7], [3, 4, 5, 0, 0]]))

    def expect(norm):
        final = nn.LayerNorm(D_MODEL) if norm == "pre" else None
        layer = pytorch_layer(nn.TransformerDecoderLayer, norm)
        theirs = randomised(nn.TransformerDecoder(layer, 3, final))

        def build(kind):
            ours = kind(3, D_MODEL, HEADS, D_FF, norm=norm).double()
            return copy_stack(ours, theirs)(x, memory, causal, padding)

        wrong = {text: build(kind) for text, kind in MISTAKES["Decoder"].items()}
        hidden = ~padding[:, 0, 0]
        expected = theirs(x, memory, tgt_mask=~causal, memory_key_padding_mask=hidden)
        return agree(build(implementation), expected, 1e-10, wrong)

    def pre_norm():
        """Three pre-norm layers and a final norm: it equals nn.TransformerDecoder."""
        return expect("pre")

    def post_norm():
        """Three post-norm layers, no final norm: it equals nn.TransformerDecoder."""
        return expect("post")

    return prove(pre_norm, post_norm)


GRADED = {
    "LayerNorm": prove_layer_norm,
    "FeedForward": prove_feed_forward,
    "EncoderBlock": prove_encoder_block,
    "DecoderBlock": prove_decoder_block,
    "Encoder": prove_encoder,
    "Decoder": prove_decoder,
}


# ------------------------------------------------------------------ the figures


def draw_through_the_layers(curves):
    figure, axes = canvas(columns=2, width=10, height=3.8)
    blocks = range(1, DEPTH + 1)
    for marker, (name, (grads, apart)) in zip("xsD^", curves.items(), strict=True):
        axes[0].semilogy(blocks, grads, marker=marker, label=name)
        axes[1].semilogy(blocks, apart, marker=marker, label=name)
    axes[0].set(title="Without path and norm the gradient dies",
                ylabel="gradient norm at the block's input")
    axes[1].set(title="Without the path all tokens become one",
                ylabel="share that differs between tokens")
    for panel in axes:
        panel.set_xlabel("block")
    axes[1].legend(loc="center right")
    return figure


def draw_warmup(runs, starts):
    figure, axes = canvas(columns=2, width=10, height=3.8, width_ratios=(2, 3))
    blocks = range(1, DEPTH + 1)
    for (norm, values), style in zip(starts.items(), ("-", "--")):
        axes[0].plot(blocks, values, style, marker="o", markersize=4, label=f"{norm}-norm")
    axes[0].set(ylim=0, title="At the start: post-norm pushes\nthe last blocks harder", xlabel="block",
                ylabel="gradient norm of its parameters")
    for (norm, warmup), losses in runs.items():
        smooth = np.convolve(losses, np.ones(10) / 10, mode="valid")
        style = "-" if norm == "pre" else "--"
        label = f"{norm}-norm, {f'warm-up {warmup}' if warmup else 'no warm-up'}"
        axes[1].plot(range(10, len(losses) + 1), smooth, style, label=label)
    axes[1].axhline(math.log(10), color="gray", linewidth=1, label="guessing, ln 10")
    axes[1].set(title="At full speed from the start,\nonly post-norm fails", xlabel="step",
                ylabel="loss (mean of 10 steps)", ylim=(-0.15, 5.2))
    axes[0].legend()
    axes[1].legend(loc="upper right", ncols=2)
    return figure


def described(module: nn.Module) -> str:
    """Class, size and parameters of a module, as read off the module."""
    kind = type(module).__name__
    sizes = {
        "MultiHeadAttention": lambda m: (
            f"{m.n_heads} heads of {m.project_query.out_features // m.n_heads}"),
        "FeedForward": lambda m: (
            f"{m.expand.in_features} → {m.expand.out_features} → {m.contract.out_features}"),
        "LayerNorm": lambda m: f"width {len(m.gain)}",
        "TokenEmbedding": lambda m: f"{m.weight.shape[0]} × {m.weight.shape[1]}",
        "SinusoidalPositionalEncoding": lambda m: f"width {m.table.shape[1]}",
        "EncoderBlock": lambda m: "",
        "DecoderBlock": lambda m: "",
    }
    size, count = sizes[kind](module), f"{parameters(module):,} parameters"
    name = kind.replace("PositionalEncoding", "Positional-\nEncoding")
    return f"{name}\n" + (f"{size}, {count}" if size else count)


COLOURS = {"MultiHeadAttention": "#cfe3f5", "FeedForward": "#fbe3c0", "LayerNorm": "#e8e8e8",
           "TokenEmbedding": "#d5ecd4", "SinusoidalPositionalEncoding": "#f3d9e6",
           "EncoderBlock": "#f5f5f5", "DecoderBlock": "#f5f5f5"}


def draw_box(axes, x: float, y: float, module: nn.Module, width: float = 4.4, height: float = 0.9,
             label: str = "") -> None:
    """A labelled box with its centre at (x, y)."""
    from matplotlib.patches import FancyBboxPatch

    corner = x - width / 2, y - height / 2
    colour = COLOURS[type(module).__name__]
    axes.add_patch(FancyBboxPatch(corner, width, height, boxstyle="round,pad=0,rounding_size=0.12",
                                  facecolor=colour, edgecolor="#444444", linewidth=1))
    axes.text(x, y, (label + "\n" if label else "") + described(module),
              ha="center", va="center", fontsize=7.5)


def draw_arrow(axes, *points: tuple[float, float], colour: str = "#444444") -> None:
    """A line through the points, with a head at the last."""
    for start, end in pairwise(points[:-1]):
        axes.plot(*zip(start, end), color=colour, linewidth=1.2)
    axes.annotate("", points[-1], points[-2],
                  arrowprops={"arrowstyle": "-|>", "color": colour, "linewidth": 1.2,
                              "shrinkA": 0, "shrinkB": 0})


def draw_block(axes, block: nn.Module, title: str) -> None:
    """The residual path as a straight line, and beside it the layers that add to it."""
    stages = [("self_attention", "around_attention"), ("feed_forward", "around_feed_forward")]
    if hasattr(block, "cross_attention"):
        stages = [("self_attention", "around_self"), ("cross_attention", "around_cross"), stages[1]]
    trunk, side, y = 1.0, 4.6, 0.6
    axes.text(trunk, 0.0, "x", ha="center", va="center", fontsize=10)
    draw_arrow(axes, (trunk, 0.2), (trunk, y + 2.75 * len(stages) + 0.5), colour="#b5651d")
    for layer, path in stages:
        norm = getattr(block, path).norm
        draw_arrow(axes, (trunk, y), (side, y), (side, y + 0.25))
        draw_box(axes, side, y + 0.6, norm, height=0.7)
        draw_arrow(axes, (side, y + 0.95), (side, y + 1.25))
        draw_box(axes, side, y + 1.8, getattr(block, layer), height=1.1, label=layer)
        draw_arrow(axes, (side, y + 2.35), (side, y + 2.6), (trunk + 0.22, y + 2.6))
        axes.text(trunk, y + 2.6, "+", ha="center", va="center", fontsize=10,
                  bbox={"boxstyle": "circle,pad=0.15", "facecolor": "white", "edgecolor": "#444444"})
        if layer == "cross_attention":
            draw_arrow(axes, (8.6, y + 1.8), (side + 2.2, y + 1.8), colour="#2a6f3c")
            axes.text(7.0, y + 2.0, "memory:\nkeys, values", ha="left", va="bottom", fontsize=7.5)
        if layer == "self_attention" and hasattr(block, "cross_attention"):
            axes.text(side + 2.3, y + 1.8, "causal\nmask", va="center", fontsize=7.5)
        y += 2.75
    axes.set_title(f"{title}\n{parameters(block):,} parameters", fontsize=10)


def draw_towers(axes, embedding, positions, encoder, decoder) -> None:
    """The whole model: source tower on the left, target tower on the right."""
    left, right, width = 2.2, 7.2, 4.0
    for x, text, stack in (left, "source ids", encoder), (right, "target ids, from BOS on", decoder):
        axes.text(x, 0.0, text, ha="center", va="center", fontsize=8)
        draw_arrow(axes, (x, 0.2), (x, 0.55))
        draw_box(axes, x, 1.0, embedding, width)
        draw_arrow(axes, (x, 1.45), (x, 1.8))
        draw_box(axes, x, 2.35, positions, width, 1.1)
        draw_arrow(axes, (x, 2.9), (x, 3.25))
        draw_box(axes, x, 4.0, stack.blocks[0], width, 1.5, f"{len(stack.blocks)} ×")
        draw_arrow(axes, (x, 4.75), (x, 5.1))
        draw_box(axes, x, 5.45, stack.norm, width, 0.7)
    draw_arrow(axes, (left, 5.8), (left, 6.2), (4.7, 6.2), (4.7, 4.0), (right - width / 2, 4.0),
               colour="#2a6f3c")
    axes.text(4.6, 6.3, "memory", ha="right", va="bottom", fontsize=8)
    draw_arrow(axes, (right, 5.8), (right, 6.15))
    draw_box(axes, right, 6.6, embedding, width, label="logits: the same matrix")
    draw_arrow(axes, (right, 7.05), (right, 7.4))
    axes.text(right, 7.6, "softmax: the next token", ha="center", va="center", fontsize=8)
    total = sum(map(parameters, (embedding, positions, encoder, decoder)))
    axes.set_title(f"The whole model\n{total:,} parameters", fontsize=10)


def draw_transformer(embedding, positions, encoder, decoder):
    figure, axes = canvas(columns=3, width=14, height=7.6)
    draw_block(axes[0], encoder.blocks[0], "Encoder block (pre-norm)")
    draw_block(axes[1], decoder.blocks[0], "Decoder block (pre-norm)")
    draw_towers(axes[2], embedding, positions, encoder, decoder)
    for panel in axes:
        panel.set(xlim=(0, 9.4), ylim=(-0.3, 9.6))
        panel.axis("off")
    return figure


def main():
    steps = [
        step_residual_paths,
        step_layer_norm,
        step_half_precision,
        step_feed_forward,
        step_pre_or_post,
        step_encoder_block,
        step_decoder_block,
        step_stacking,
        step_equals_pytorch,
        step_the_drawing,
        step_broken_on_purpose,
        step_what_next,
    ]
    narrate(lesson_parser(__doc__, GRADED).parse_args(), __doc__, steps)


if __name__ == "__main__":
    main()

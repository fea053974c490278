"""Lesson 4. What goes around the attention?

Attention moves information between tokens. This lesson adds what makes a deep stack of it trainable. A layer
is attention, or a small network that works on each token by itself, with a path past it (residual) and a
normalisation. A block is two such layers, or three in the decoder; a stack is several blocks:

    x = x + Attention(LayerNorm(x))          pre-norm, the default here
    x = x + FeedForward(LayerNorm(x))
    x = LayerNorm(x + Attention(x)), …       post-norm, the paper's text

(Section 3.1.) The authors' code moved to pre-norm soon after the paper; steps 9 and 10, which compare the
two, can be skipped at first. With pre-norm each stack ends in one more LayerNorm.

You need the attention of lessons 1 and 2 and the positions of lesson 3. You will build LayerNorm, the
feed-forward network, both blocks and both stacks; lesson 5 joins and trains them. The lesson runs in seconds
and takes an hour to read.
"""

import course.console.startup  # noqa: F401, I001 (before torch: it reports what fails below; several names a line)
import math
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from checks.block import decoder_block_checks, encoder_block_checks
from checks.layers import feed_forward_checks, gelu_checks, layer_norm_checks, norm_checks
from checks.stack import decoder_checks, encoder_checks
from common import Picture, check, check_mistakes, check_part, lesson, lesson_parser, narrate, numbers
from common import parameters, shows, table
from course.grading.checking import largest_difference
from course.console.measuring import shapes_through
from course.training.parts import build
from course.training.side_by_side import side_by_side
from figures.block import draw_through_the_blocks, draw_warmup
from figures.drawing import draw_transformer

causal_mask, scaled_dot_product_attention = lesson(
    "01_attention_mechanism", "causal_mask", "scaled_dot_product_attention")
MultiHeadAttention = lesson("02_multi_head_attention").MultiHeadAttention
RotaryAttention, TokenEmbedding, SinusoidalPositionalEncoding = lesson(
    "03_positional_encoding", "RotaryAttention", "TokenEmbedding", "SinusoidalPositionalEncoding")

__all__ = ["Decoder", "DecoderBlock", "Encoder", "EncoderBlock", "FeedForward", "LayerNorm",
           "fused_layer_norm", "gelu", "layer_norm"]


# ------------------------------------------------------------------ the parts


def layer_norm(
    x: Tensor, gain: Tensor, bias: Tensor, eps: float = 1e-5
) -> Tensor:
    """By hand: every token's numbers (…, D) get mean 0 and variance 1, then gain and bias.

    The variance is the biased one (divided by D), and eps is inside the root.
    """
    mean = x.mean(dim=-1, keepdim=True)
    variance = (x - mean).square().mean(dim=-1, keepdim=True)
    return gain * (x - mean) / torch.sqrt(variance + eps) + bias


def fused_layer_norm(x: Tensor, gain: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    """layer_norm() as one kernel of PyTorch: equal up to rounding, and faster."""
    return F.layer_norm(x, gain.shape, gain, bias, eps)


class LayerNorm(nn.Module):
    """layer_norm() with its two learned vectors, gain and bias (Ba, Kiros and Hinton 2016; section 3.1)."""

    layer_norm = staticmethod(fused_layer_norm)  # a slot: --by-hand puts layer_norm() here

    def __init__(self, d_model: int, eps: float = 1e-5):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """x (…, D) → (…, D)."""
        return self.layer_norm(x, self.gain, self.bias, self.eps)


def gelu(x: Tensor) -> Tensor:
    """By hand: x times the probability that a standard normal number is smaller than x."""
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


class FeedForward(nn.Module):
    """W_2·activation(W_1·x + b_1) + b_2 at every position (section 3.3: with ReLU).

    The linear maps are called expand and contract. Dropout between them isn't in the paper.
    """

    gelu = staticmethod(F.gelu)  # slots, as in LayerNorm; F.gelu is gelu() in one kernel
    relu = staticmethod(F.relu)

    def __init__(self, d_model: int, d_ff: int, dropout: float = 0.0, activation: str = "gelu"):
        super().__init__()
        if activation not in ("gelu", "relu"):
            raise ValueError(f"activation is {activation!r}; it must be 'gelu' or 'relu'")
        self.activation = activation
        self.expand = nn.Linear(d_model, d_ff)
        self.contract = nn.Linear(d_ff, d_model)
        self.dropout = dropout
        for linear in (self.expand, self.contract):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """x (…, D) → (…, D)."""
        activation = getattr(self, self.activation)
        x = activation(self.expand(x))
        return self.contract(F.dropout(x, self.dropout, self.training))


class Residual(nn.Module):
    """The path around a layer: x + layer(norm(x)) (pre) or norm(x + layer(x)) (post).

    The layer gets h = before(x), and after(x, layer(h)) adds the layer's answer to the path.
    """

    def __init__(self, d_model: int, dropout: float = 0.0, norm: str = "pre"):
        super().__init__()
        if norm not in ("pre", "post"):
            raise ValueError(f"norm is {norm!r}; it must be 'pre' or 'post'")
        self.pre = norm == "pre"
        self.norm = LayerNorm(d_model)
        self.dropout = dropout

    def before(self, x: Tensor) -> Tensor:
        """What the layer gets to see of x (…, D)."""
        return self.norm(x) if self.pre else x

    def after(self, x: Tensor, y: Tensor) -> Tensor:
        """x and the layer's answer y, joined."""
        x = x + F.dropout(y, self.dropout, self.training)
        return x if self.pre else self.norm(x)


def attention_to_itself(d_model: int, n_heads: int, dropout: float, rotary: nn.Module | None) -> nn.Module:
    """Self-attention, with rotary positions (lesson 3) if there is a rotation."""
    if rotary is None:
        return MultiHeadAttention(d_model, n_heads, dropout)
    return RotaryAttention(d_model, n_heads, dropout, rotary)


def attention_to_memory(d_model: int, n_heads: int, dropout: float) -> nn.Module:
    """Cross-attention."""
    return MultiHeadAttention(d_model, n_heads, dropout)


class EncoderBlock(nn.Module):
    """Self-attention, then the feed-forward network, each with a path around it (section 3.1).

    Its parts are self_attention, feed_forward and two LayerNorms, made in the order of their use.
    """

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0,
                 norm: str = "pre", activation: str = "gelu", rotary: nn.Module | None = None):
        super().__init__()
        self.self_attention = attention_to_itself(d_model, n_heads, dropout, rotary)
        self.around_attention = Residual(d_model, dropout, norm)
        self.feed_forward = FeedForward(d_model, d_ff, dropout, activation)
        self.around_feed_forward = Residual(d_model, dropout, norm)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """x (B, S, D) → (B, S, D); mask broadcastable to (B, H, S, S)."""
        h = self.around_attention.before(x)
        y = self.self_attention(h, h, h, mask)
        x = self.around_attention.after(x, y)
        h = self.around_feed_forward.before(x)
        y = self.feed_forward(h)
        return self.around_feed_forward.after(x, y)


class DecoderBlock(nn.Module):
    """Causal self-attention, attention to the encoder's output, feed-forward (section 3.1).

    Its parts are self_attention, cross_attention, feed_forward and three LayerNorms, made in the order of
    their use. Rotary positions (lesson 3) rotate only the self-attention's queries and keys.
    """

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0,
                 norm: str = "pre", activation: str = "gelu", rotary: nn.Module | None = None):
        super().__init__()
        self.self_attention = attention_to_itself(d_model, n_heads, dropout, rotary)
        self.around_self = Residual(d_model, dropout, norm)
        self.cross_attention = attention_to_memory(d_model, n_heads, dropout)
        self.around_cross = Residual(d_model, dropout, norm)
        self.feed_forward = FeedForward(d_model, d_ff, dropout, activation)
        self.around_feed_forward = Residual(d_model, dropout, norm)

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor | None = None,
                memory_mask: Tensor | None = None) -> Tensor:
        """x (B, T, D) and the encoder's memory (B, S, D) → (B, T, D).

        mask is broadcastable to (B, H, T, T), memory_mask to (B, H, T, S).
        """
        h = self.around_self.before(x)
        y = self.self_attention(h, h, h, mask)
        x = self.around_self.after(x, y)
        h = self.around_cross.before(x)
        y = self.cross_attention(h, memory, memory, memory_mask)
        x = self.around_cross.after(x, y)
        h = self.around_feed_forward.before(x)
        y = self.feed_forward(h)
        return self.around_feed_forward.after(x, y)


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
                memory_mask: Tensor | None = None) -> Tensor:
        """x (B, T, D), memory (B, S, D) → (B, T, D); masks as in the block."""
        for block in self.blocks:
            x = block(x, memory, mask, memory_mask)
        return self.norm(x)


GRADED = {
    "layer_norm": layer_norm_checks,
    "LayerNorm": norm_checks,
    "gelu": gelu_checks,
    "FeedForward": feed_forward_checks,
    "EncoderBlock": encoder_block_checks,
    "DecoderBlock": decoder_block_checks,
    "Encoder": encoder_checks,
    "Decoder": decoder_checks,
}
OURS = sys.modules[__name__]  # the checks make the classic mistakes from its parts


# ------------------------------------------------------------------ the steps


class NoPath(Residual):
    """Pre-norm without the path: only the layer's answer goes on."""

    def after(self, x: Tensor, y: Tensor) -> Tensor:
        return y


class Bare(NoPath):
    """Neither path nor normalisation."""

    def before(self, x: Tensor) -> Tensor:
        return x


STACKS = {
    "no path, no norm": (Bare, "pre"),
    "no path, norm": (NoPath, "pre"),
    "path, post-norm": (Residual, "post"),
    "path, pre-norm": (Residual, "pre"),
}
DEPTH = 12
SIZES = 0.5, 1.0, 2.0  # what the initial weights are multiplied by


def two_starts() -> range:
    """The seeds of two sets of initial weights: the step's seed and the next."""
    return range(torch.initial_seed(), torch.initial_seed() + 2)


def apart(x: Tensor) -> Tensor:
    """How far apart the tokens of x (…, L, D) are: 0 if all are one vector, near 1 if unrelated."""
    middle = x.mean(dim=-2, keepdim=True)  # of each sequence's tokens
    return (x - middle).norm() / x.norm()


def through_the_blocks(path: type, norm: str, size: float, seed: int) -> list[Tensor]:
    """The gradient's norm, and apart(), at each block's input and at the output, with weights × size."""
    torch.manual_seed(seed)
    blocks = [build(lambda: EncoderBlock(32, 4, 64, 0.0, norm), {"Residual": path}) for _ in range(DEPTH)]
    x = torch.randn(4, 10, 32).double().requires_grad_()
    inputs = [x]
    for block in blocks:
        for weight in block.parameters():
            weight.data *= size if weight.dim() == 2 else 1
        inputs.append(block.double()(inputs[-1]))
    gradients = torch.autograd.grad((inputs[-1] * torch.randn_like(x)).sum(), inputs)
    return [torch.stack(part).detach() for part in ([g.norm() for g in gradients], [*map(apart, inputs)])]


@shows(Residual.before, Residual.after, apart)
def step_residual_paths():
    """Residual paths: a way round every layer

    The derivative of x + layer(x) is 1 + the derivative of layer(x): the 1 passes the gradient on unchanged.
    Untrained blocks are run with and without the path, and with and without a normalisation (step 2). The
    normalisation comes before the layer (pre-norm) or after it (post-norm). The initial weights are halved,
    left as they are, or doubled. Each table entry has two numbers, from two random starts.

    The first table shows the gradient's size at the input of block 0, divided by its size at the output. The
    second shows how different the tokens still are: subtract the mean of all tokens from each token's vector.
    “Apart” is the length that remains, as a fraction of the length before. At 0 all tokens have the same
    vector. Attention averages tokens, and without a path nothing brings back what averaging removes (Dong,
    Cordonnier and Loukas 2021, for attention without a feed-forward network).

    Read the upper row of the picture from right to left, as the gradient goes. Without path or norm (blue)
    it shrinks block after block, in all by a factor of over a million at the usual weights. If the weights
    are doubled, it explodes. With a norm (orange) it stays within a factor of 1000 at these sizes and depth.

    The lower row shows what a norm can't prevent: without a path all tokens become one vector. With a path
    they stay apart, at all three sizes if the norm comes before the layer (red). If it comes after the layer
    (green), doubled weights bring the tokens close together.
    """
    seeds = two_starts()
    found = {(name, size): [through_the_blocks(*parts, size, seed) for seed in seeds]
             for name, parts in STACKS.items() for size in SIZES}
    kept = {of: [(grads[0] / grads[-1]).item() for grads, _ in runs] for of, runs in found.items()}
    differ = {of: [shares[-1].item() for _, shares in runs] for of, runs in found.items()}
    bare, normed, post, pre = STACKS
    check("without path or norm the gradient vanishes with weights × ½ and × 1, and explodes with × 2",
          max(kept[bare, 0.5] + kept[bare, 1.0]) < 1e-6 and min(kept[bare, 2.0]) > 100)
    check("with a norm the gradient stays within a factor of 1000, with or without the path",
          all(1e-3 < ratio < 1e3 for name, size in kept if name != bare for ratio in kept[name, size]))
    check("without the path all tokens end up as one vector, at every size of the weights",
          max(share for size in SIZES for name in (bare, normed) for share in differ[name, size]) < 1e-6)
    check("with the path and pre-norm “apart” stays above 0.5 at every size of the weights",
          min(share for size in SIZES for share in differ[pre, size]) > 0.5)
    check("with the path and post-norm “apart” is above 0.5 with weights × ½ and × 1, below 0.25 with × 2",
          min(differ[post, 0.5] + differ[post, 1.0]) > 0.5 and max(differ[post, 2.0]) < 0.25)
    figure = Picture("transformer_block_residual.png", draw_through_the_blocks(found, tuple(STACKS), SIZES),
                     "Bare layers let gradients vanish or explode; without a path tokens become one vector")
    tables = [table("", *(f"weights × {size:g}" for size in SIZES), title=title, rows=[
        (name, *(", ".join(f"{value:.1g}" for value in values[name, size]) for size in SIZES))
        for name in STACKS])
        for title, values in ((f"gradient ratio, {DEPTH} blocks", kept), ("“apart” at the output", differ))]
    return (*tables, figure)


class BatchNorm(nn.BatchNorm1d):
    """nn.BatchNorm1d for x (B, L, D), in training mode."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(0, 1)).view_as(x)


@shows(layer_norm)
def step_layer_norm():
    """LayerNorm: each token by itself

    Each token's vector gets mean 0 and variance 1, then a learned gain and bias. LayerNorm uses only the
    token's own numbers. While training, BatchNorm takes each vector entry's mean and variance over all tokens
    of the batch. So a sentence's output depends on its neighbours and on the padding.

    Our layer_norm() is compared with PyTorch's kernel, gradients included. The class LayerNorm runs that
    faster kernel and is compared with the formula.
    """
    x = torch.randn(4, 6, 8)
    other_neighbour, other_padding = x.clone(), x.clone()
    other_neighbour[3] = torch.randn(6, 8) + 2
    other_padding[0, 4:] = 0.0  # the last two tokens of the first sentence
    layers = {"LayerNorm": LayerNorm(8), "BatchNorm": BatchNorm(8)}
    rows = [(name, *(largest_difference(norm(other)[0, :4], norm(x)[0, :4])
                     for other in (other_neighbour, other_padding))) for name, norm in layers.items()]
    check("LayerNorm: with another neighbour or other padding the real tokens stay the same, bit for bit",
          max(rows[0][1:]) == 0)
    check("BatchNorm: another neighbour and other padding both change the real tokens",
          min(rows[1][1:]) > 0.01)
    check_part(layer_norm, layer_norm_checks, OURS)
    check_part(LayerNorm, norm_checks, OURS)
    return table("sentence 1 changes by", "another neighbour", "other padding", rows=rows)


@shows(gelu, FeedForward.forward)
def step_feed_forward():
    """The feed-forward network: thinking, token by token

    Attention mixes tokens: once its weights are chosen, each output is a plain weighted sum. The feed-forward
    network computes with one token at a time: a matrix makes its vector four times as wide, a nonlinear
    activation changes each number, and a second matrix narrows the vector again. Without the activation the
    two matrices would be one matrix. The same function works at every position. At this width the network
    holds two thirds of an encoder block's parameters.

    The paper's activation is ReLU, which turns negative numbers into 0. GELU is a smooth relative of ReLU: x
    times the probability that a standard normal number is smaller than x. gelu() is compared with PyTorch's
    kernel, which runs from here on.
    """
    layer, tokens = FeedForward(32, 128), torch.randn(2, 6, 32)
    alone = torch.stack([layer(tokens[:, [place]])[:, 0] for place in range(6)], dim=1)
    gap = largest_difference(layer(tokens), alone)
    check("the network gives the same output for all positions at once as for each by itself",
          gap < 1e-5, f"largest difference {gap:.0e}")
    first, second = layer.expand, layer.contract
    one = tokens @ (second.weight @ first.weight).T + second(first.bias)
    check("without the activation a single matrix gives the same output as the two",
          largest_difference(second(first(tokens)), one) < 1e-5)
    block = EncoderBlock(64, 4, 256)
    share = parameters(block.feed_forward) / parameters(block)
    check("the network, four times as wide, holds about two thirds of an encoder block's parameters",
          0.6 < share < 0.7,
          f"{share:.1%}")
    check_part(gelu, gelu_checks, OURS)
    check_part(FeedForward, feed_forward_checks, OURS)


@shows(EncoderBlock.forward)
def step_encoder_block():
    """The encoder block

    The block has two layers, each with its path: self-attention, then the feed-forward network. The shape (B,
    S, D), sentences × tokens × width, never changes, so blocks can be stacked. The table lists what runs, in
    order, for 2 sentences of 7 tokens. F.dropout, in Residual.after, is lesson 2's dropout, here applied to a
    layer's answer; outside training it does nothing.
    """
    rows = shapes_through(EncoderBlock(32, 4, 128), torch.randn(2, 7, 32))
    check("every part returns 2 × 7 × 32", {row[2] for row in rows} == {"2 × 7 × 32"})
    check_part(EncoderBlock, encoder_block_checks, OURS)
    return table("part", "class", "output", rows=rows)


@shows(DecoderBlock.forward)
def step_decoder_block():
    """The decoder block

    The block has three layers: self-attention of the target (causal), cross-attention to the source, and the
    feed-forward network. In cross-attention the queries come from the target, keys and values from the
    encoder's output, the memory. The length is always the target's, here 5; the source has 7 tokens.
    """
    inputs = torch.randn(2, 5, 32), torch.randn(2, 7, 32)
    rows = shapes_through(DecoderBlock(32, 4, 128), *inputs, causal_mask(5))
    check("every part returns 2 × 5 × 32", {row[2] for row in rows} == {"2 × 5 × 32"})
    check_part(DecoderBlock, decoder_block_checks, OURS)
    return table("part", "class", "output", rows=rows)


def formula(d: int, d_ff: int, n_layers: int) -> tuple[int, int, int]:
    """Parameters of n + n blocks: attention, feed-forward, norms (with the two final ones)."""
    attention = 4 * (d * d + d)
    feed_forward = 2 * d * d_ff + d_ff + d
    norms = (5 * n_layers + 2) * 2 * d
    return 3 * n_layers * attention, 2 * n_layers * feed_forward, norms


@shows(formula)
def step_stacking():
    """Stacking

    An encoder has N blocks of the same class, each with its own weights. Three blocks and the last
    LayerNorm give the same output as PyTorch's. An encoder block has one attention and a decoder block has
    two, with 4·(D² + D) parameters each. A feed-forward network of width d_ff has 2·D·d_ff + d_ff + D
    parameters, and a LayerNorm has 2·D.

    The table compares these formulas with a count, for N encoder and N decoder blocks with d_ff = 4·D. Its
    percentages are of the total including one embedding of 37,000 tokens, as in the paper.
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
    check("the formula gives the counted parameters in every row", all(row[2] == row[3] for row in rows))
    check_part(Encoder, encoder_checks, OURS)
    check_part(Decoder, decoder_checks, OURS)
    return table("D", "N", "formula", "counted", "attention", "feed-f.", "embedding", rows=rows)


def step_the_drawing():
    """The whole picture

    On the left, follow x up the brown path: it bypasses the layers, and each layer adds its answer at a +.
    The decoder block (middle) has a third layer, which attends to the memory. On the right, two stacks make
    up the model. One matrix serves as embedding for source and target and also gives the logits (lesson 3),
    so it is counted only once.
    """
    encoder, decoder = Encoder(2, 64, 4, 256), Decoder(2, 64, 4, 256)
    embedding = TokenEmbedding(13, 64)
    counted = sum(map(parameters, (embedding, encoder, decoder)))
    check("the whole model has as many parameters as step 6's formula gives, plus the embedding's",
          counted == sum(formula(64, 256, 2)) + 13 * 64, counted)
    figure = draw_transformer(embedding, SinusoidalPositionalEncoding(64), encoder, decoder)
    return Picture("transformer_block_drawing.png", figure,
                   "Layers add to a path straight through each block; two stacks of blocks are the model")


def sizes_at_the_end(depth: int) -> tuple[float, float]:
    """The spread of an untrained encoder's output, without the last LayerNorm and with it."""
    x = torch.randn(2, 7, 32)
    encoder = Encoder(depth, 32, 4, 128)
    with_norm = encoder(x).std().item()
    encoder.norm = nn.Identity()
    return encoder(x).std().item(), with_norm


@shows(sizes_at_the_end)
def step_broken_on_purpose():
    """Broken on purpose

    The first three tables list typical mistakes, each with the check that finds it. A mask applied to the
    queries stops the padding from looking, instead of stopping the others from looking at it. Cross-attention
    without the source's mask reads padding, so its answers depend on the batch. Without the last LayerNorm a
    pre-norm stack passes on the sum of all its layers, which grows with the depth. The last table shows the
    standard deviation of the output.
    """
    caught = []
    for name in "EncoderBlock", "DecoderBlock", "Encoder":
        caught.append(check_mistakes(OURS, GRADED[name]))
        caught[-1].columns[0].header = f"in {name}"
    rows = [(depth, *sizes_at_the_end(depth)) for depth in (1, 4, 16, 64)]
    check("without the last norm 64 blocks give an output over twice as large as one block does",
          rows[-1][1] > 2 * rows[0][1])
    return *caught, table("blocks", "size without the norm", "size with the norm", rows=rows)


SYMBOLS = 10  # the tokens 3 to 12
RATES = SLOW, FAST, FASTEST = 0.005, 0.02, 0.04
STEPS, WARMUP = 200, 80
DEPTHS = 1, 2, 4, 8, 16
PLANS = tuple((rate, warmup) for warmup in (0, WARMUP) for rate in RATES)


class Reverser(nn.Module):
    """Embedding, positions, two encoder blocks, logits: learns to say four symbols backwards."""

    def __init__(self, norm: str):
        super().__init__()
        self.embedding = TokenEmbedding(3 + SYMBOLS, 32)
        self.positions = SinusoidalPositionalEncoding(32, 4)
        self.encoder = Encoder(2, 32, 4, 64, norm=norm)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """tokens (B, L) → the loss, and how far apart the encoder's output vectors are."""
        x = self.encoder(self.positions(self.embedding(tokens)))
        logits = self.embedding.logits(x).flatten(0, 1)
        return F.cross_entropy(logits, tokens.flip(1).flatten()), apart(x)


def learning_rate(step: int, rate: float, warmup: int) -> float:
    """The rate, after a warm-up in which it grows from step to step."""
    return rate * min(1.0, (step + 1) / max(1, warmup))


def train_together(norm: str, seeds: Sequence[int], plans: Sequence[tuple[float, int]] = PLANS,
                   path: type = Residual):
    """plan (rate, warm-up) → the mean loss of the last 20 steps, and apart at each step; one model per seed.

    All models run at once, as one more dimension of every tensor. (vmap has no kernel for attention: lesson
    1's formula runs.) Adam, lesson 5, says how each number moves at the rate 1; each model moves by its own
    rate times that.
    """
    parts = {"Residual": path, "scaled_dot_product_attention": scaled_dot_product_attention}
    models = []
    for seed in seeds:
        torch.manual_seed(seed)
        models.append(build(partial(Reverser, norm), parts))
    weights, buffers = stack_module_state(models * len(plans))
    forward = vmap(partial(functional_call, models[0]), in_dims=((0, 0), None))
    optimizer = torch.optim.Adam(weights.values(), lr=1.0, fused=True)
    torch.manual_seed(seeds[0])  # all runs get the same batches
    history = []
    for step in range(STEPS):
        losses, shares = forward((weights, buffers), torch.randint(3, 3 + SYMBOLS, (32, 4)))
        optimizer.zero_grad()
        losses.sum().backward()
        before = [weight.detach().clone() for weight in weights.values()]
        optimizer.step()
        rates = torch.tensor([learning_rate(step, *plan) for plan in plans for _ in seeds])
        for weight, old in zip(weights.values(), before, strict=True):
            weight.data = old + rates.view(-1, *[1] * (weight.dim() - 1)) * (weight.data - old)
        history.append(torch.stack([losses, shares]).detach())
    losses, shares = torch.stack(history, 1).unflatten(2, (len(plans), len(seeds)))
    return {plan: (losses[-20:, i].mean(0), shares[:, i]) for i, plan in enumerate(plans)}


def both_norms(*inputs: Any) -> dict[str, dict]:
    """train_together() with pre-norm and with post-norm."""
    norms = "pre", "post"
    return dict(zip(norms, side_by_side([partial(train_together, norm, *inputs) for norm in norms],
                                       optimisers=False)))


@shows(learning_rate)
def step_pre_or_post():
    """Pre-norm or post-norm, and the warm-up

    Post-norm, as in the paper's text, normalises after adding: x = LayerNorm(x + layer(x)). The path itself
    passes through every LayerNorm. Pre-norm normalises what goes into a layer, x = x + layer(LayerNorm(x)),
    and leaves the path free.

    How high may the learning rate be? Training moves the parameters step by step, at first by about the
    learning rate (Adam, lesson 5). With a warm-up the first steps, here 80, are smaller (section 5.3). Two
    blocks learn to say four symbols backwards in 200 steps, from two random starts. The loss at the end says
    how wrong they are; guessing gives ln 10 = 2.30.

    Left panel: each cross is a start without a warm-up, each circle a start with one; lines are their means.
    At the lowest rate all learn. At 0.02 pre-norm learns, and post-norm fails from one start or both. A
    warm-up lowers post-norm's loss, though not always enough. At 0.04 post-norm fails even with a warm-up,
    and pre-norm without a warm-up fails from some starts. Close to the highest rate that works, the random
    start decides: try --seed 1, 2, …

    Right panel, rate 0.02: early in training the tokens' output vectors come close together in all four
    models, as in step 1. They come closest with post-norm and no warm-up. With the same vector at every
    position no model can say four different symbols. In the models that learn, the vectors move apart again.
    The bands span both starts. The table's last column gives the lowest “apart” of the first 80 steps.
    """
    seeds = two_starts()
    trained = {(norm, *plan): training for norm, trainings in both_norms(seeds).items()
               for plan, training in trainings.items()}
    ends = {run: losses for run, (losses, _) in trained.items()}
    shares = {(norm, warmup): shares for (norm, rate, warmup), (_, shares) in trained.items() if rate == FAST}
    nearest = {run: curves[:80].amin(0) for run, curves in shares.items()}
    check("at the rate 0.005 all four models learn: losses below 0.7",
          max(ends[run].max() for run in ends if run[1] == SLOW) < 0.7)
    check("at 0.02 post-norm without a warm-up fails: mean loss above 1",
          ends["post", FAST, 0].mean() > 1)
    check("at 0.02 post-norm's loss is lower with a warm-up than without one, from both starts",
          (ends["post", FAST, WARMUP] < ends["post", FAST, 0]).all())
    check("at 0.02 pre-norm learns with and without a warm-up: losses below 0.9",
          max(ends["pre", FAST, w].max() for w in (0, WARMUP)) < 0.9)
    check("at 0.04 post-norm always fails (mean > 1.5), and pre-norm fails without a warm-up (a loss > 0.7)",
          min(ends["post", FASTEST, warmup].mean() for warmup in (0, WARMUP)) > 1.5
          and ends["pre", FASTEST, 0].max() > 0.7)
    check("at 0.02 the tokens come closest together with post-norm and no warm-up, from both starts",
          all((nearest["post", 0] < nearest[other]).all() for other in shares if other != ("post", 0)))
    rows = [(f"{norm}-norm, {'' if warmup else 'no '}warm-up",
             *(numbers(ends[norm, rate, warmup]) for rate in RATES), numbers(nearest[norm, warmup], 3))
            for norm, warmup in shares]
    header = "loss", *(f"rate {rate}" for rate in RATES), f"apart at {FAST}"
    figure = Picture("transformer_block_warmup.png", draw_warmup(ends, shares, SYMBOLS),
                     "At a rate of 0.02 pre-norm learns; without a warm-up post-norm hardly does")
    return table(*header, rows=rows), figure


class Doubled(Residual):
    def after(self, x: Tensor, y: Tensor) -> Tensor:  # each layer's answer counts for less
        return super().after(2 * x, y)


@torch.no_grad()
def moved(norm: str, depth: int, seed: int, path: type = Residual) -> float:
    """By what fraction of its length a new stack's output changes when every parameter moves by ±0.001."""
    torch.manual_seed(seed)
    encoder = build(lambda: Encoder(depth, 32, 4, 64, norm=norm), {"Residual": path})
    x = torch.randn(16, 6, 32)
    before = encoder(x)
    for parameter in encoder.parameters():
        parameter += 0.001 * torch.randn_like(parameter).sign()
    return ((encoder(x) - before).norm() / before.norm()).item()


def adam_steps(size: float) -> Tensor:
    """Where five steps of Adam at the rate 1 lead, with random gradients (100,) times `size`."""
    parameter = nn.Parameter(torch.zeros(100))
    optimizer, generator = torch.optim.Adam([parameter], lr=1.0), torch.Generator().manual_seed(0)
    for _ in range(5):
        parameter.grad = size * torch.randn(100, generator=generator)
        optimizer.step()
    return parameter.detach()


@shows(moved)
def step_two_explanations():
    """Two explanations put to the test

    Why does post-norm fail at a rate at which pre-norm learns? According to Xiong et al. (2020), the last
    blocks of a new post-norm stack get large gradients, so its first steps must be small. But Adam (lesson 5,
    step 6) divides each gradient by its own usual size. Gradients that are all a hundred times smaller give
    nearly the same steps, so gradient size by itself can't be the reason here.

    According to Liu et al. (2020), each layer's answer is a larger part of x with post-norm than with
    pre-norm. So the same small step of the parameters changes the output more (amplification). We move every
    parameter of a new stack by 0.001, up or down at random. The table shows by what fraction of its length
    the output changes. Post-norm's output changes more than pre-norm's, and the deeper the stack, the greater
    the difference. For step 9's two blocks the difference is small.

    To remove amplification, double the path, so that a layer's answer counts for half. Post-norm's output
    then changes less than pre-norm's, and yet post-norm learns from none of four starts. Pre-norm with a
    doubled path learns from some of them or from all, depending on starts and batches (--seed). So in this
    small model less amplification doesn't save post-norm. We don't know what would; deep stacks are not
    tested here.
    """
    seeds = two_starts()
    pre, post, doubled = (
        torch.tensor([[moved(norm, depth, seed, path) for seed in seeds] for depth in DEPTHS])
        for norm, path in (("pre", Residual), ("post", Residual), ("post", Doubled)))
    ratio = (post.mean(1) / pre.mean(1)).tolist()
    check("from 4 blocks on, post-norm's output changes more than pre-norm's, for each start",
          (post[2:] > pre[2:]).all())
    check("post-norm's change divided by pre-norm's grows with depth: below 1.25 at 2 blocks, over 1.5 at 16",
          ratio == sorted(ratio) and ratio[1] < 1.25 and ratio[-1] > 1.5, numbers(ratio))
    check("doubled path, two blocks: post-norm's output changes less than plain pre-norm's",
          (doubled < pre)[1].all())
    gap = largest_difference(adam_steps(0.01), adam_steps(1.0))
    check("with gradients 100 times smaller, five Adam steps end in the same place, within 1 % of a step",
          gap < 0.01, f"{gap:.0e}")
    plan = FAST, 0
    starts = range(seeds[0], seeds[0] + 4)
    ends = {norm: trained[plan][0] for norm, trained in both_norms(starts, (plan,), Doubled).items()}
    check("with a doubled path post-norm fails from all four starts: losses above 1", ends["post"].min() > 1)
    check("with a doubled path pre-norm learns from at least one of four starts: loss below 0.9",
          ends["pre"].min() < 0.9)
    rows = [(name, *(f"{change:.4f}" for change in values.mean(1))) for name, values in (
        ("pre-norm", pre), ("post-norm", post), ("post-norm, path × 2", doubled))]
    return (table("output changes by", *(f"{depth} block{'s' * (depth > 1)}" for depth in DEPTHS), rows=rows),
            table("path × 2, rate 0.02, no warm-up", "loss", rows=[
                (f"{norm}-norm", numbers(losses)) for norm, losses in ends.items()]))


def step_what_next():
    """What now?

    Read Residual, EncoderBlock.forward and DecoderBlock.forward: thirty lines hold the whole idea.

    Change: (1) Begin Residual.after with x = self.before(x): the checks of the blocks name the mistake. (2)
    Set DEPTH to 24: without path or norm, weights × 1, the gradient falls below 1e-20; with weights × 2
    “apart” falls below 0.02 for post-norm, but not for pre-norm. (3) Set WARMUP to 1, which means none: at
    0.02 post-norm now fails in both rows, and the check that its loss is lower with a warm-up fails (✗).

    Write it yourself: --template my_block.py --guided, then --grade my_block.py. Begin with layer_norm and
    gelu. Next: python 05_mini_transformer.py.
    """


def main():
    steps = [step_residual_paths, step_layer_norm, step_feed_forward, step_encoder_block, step_decoder_block,
             step_stacking, step_the_drawing, step_broken_on_purpose, step_pre_or_post, step_two_explanations,
             step_what_next]
    narrate(lesson_parser(__doc__, GRADED).parse_args(), __doc__, steps)


if __name__ == "__main__":
    main()

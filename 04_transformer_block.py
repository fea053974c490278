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
import sys

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from checks.block import decoder_block_checks, encoder_block_checks
from checks.layers import feed_forward_checks, gelu_checks, layer_norm_checks, norm_checks
from checks.stack import decoder_checks, encoder_checks
from common import (
    Picture,
    check,
    check_mistakes,
    check_part,
    lesson,
    lesson_parser,
    narrate,
    parameters,
    shows,
    table,
)
from course.checking import largest_difference
from course.measuring import shapes_through
from course.parts import build
from figures.block import draw_through_the_layers, draw_warmup
from figures.drawing import draw_transformer

causal_mask = lesson("01_attention_mechanism").causal_mask
MultiHeadAttention = lesson("02_multi_head_attention").MultiHeadAttention
RotaryAttention = lesson("03_positional_encoding").RotaryAttention
TokenEmbedding = lesson("03_positional_encoding").TokenEmbedding
SinusoidalPositionalEncoding = lesson("03_positional_encoding").SinusoidalPositionalEncoding

__all__ = [
    "Decoder",
    "DecoderBlock",
    "Encoder",
    "EncoderBlock",
    "FeedForward",
    "LayerNorm",
    "fused_layer_norm",
    "gelu",
    "layer_norm",
]


# ------------------------------------------------------------------ the parts


def layer_norm(
    x: Tensor, gain: Tensor, bias: Tensor, eps: float = 1e-5
) -> Tensor:
    """By hand: every token's numbers (…, D) get mean 0 and variance 1, then gain and bias.

    The variance is the biased one (divided by D), and eps stands inside the root.
    """
    mean = x.mean(dim=-1, keepdim=True)
    variance = (x - mean).square().mean(dim=-1, keepdim=True)
    return gain * (x - mean) / torch.sqrt(variance + eps) + bias


def fused_layer_norm(
    x: Tensor, gain: Tensor, bias: Tensor, eps: float = 1e-5
) -> Tensor:
    """layer_norm() in one kernel of PyTorch's: the same to rounding, and sooner."""
    return F.layer_norm(x, gain.shape, gain, bias, eps)


class LayerNorm(nn.Module):
    """layer_norm() with its two learned vectors, gain and bias (Ba, Kiros and Hinton 2016; section 3.1)."""

    layer_norm = staticmethod(fused_layer_norm)  # a slot: --by-hand fills it otherwise

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

    The layer gets h = before(x), and after(x, layer(h)) puts its answer on the path.
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


def attention_to_itself(d_model: int, n_heads: int, dropout: float, rotary: nn.Module | None):
    """Self-attention, with rotary positions (lesson 3) if there is a rotation."""
    if rotary is None:
        return MultiHeadAttention(d_model, n_heads, dropout)
    return RotaryAttention(d_model, n_heads, dropout, rotary)


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
    their use. Rotary positions (lesson 3) turn queries and keys of the self-attention alone.
    """

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0,
                 norm: str = "pre", activation: str = "gelu", rotary: nn.Module | None = None):
        super().__init__()
        self.self_attention = attention_to_itself(d_model, n_heads, dropout, rotary)
        self.around_self = Residual(d_model, dropout, norm)
        self.cross_attention = MultiHeadAttention(d_model, n_heads, dropout)
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
OURS = sys.modules[__name__]  # of whose parts the checks make the classic mistakes


# ------------------------------------------------------------------ the steps


class NoPath(Residual):
    """Pre-norm without the path: what the layer answers goes on alone."""

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


def through_the_layers(path: type, norm: str) -> tuple[list[float], list[float]]:
    """For inputs of layer 1 … 12: the gradient's norm, and how far apart the tokens are.

    The second is the share of the activations that is not common to all tokens of a sequence.
    """
    blocks = [build(lambda: EncoderBlock(32, 4, 128, 0.0, norm), {"Residual": path}) for _ in range(DEPTH)]
    x = torch.randn(16, 10, 32, requires_grad=True)
    inputs = [x]
    for block in blocks:
        inputs.append(block(inputs[-1]))
    grads = torch.autograd.grad((inputs[-1] * torch.randn_like(x)).sum(), inputs[:-1])
    apart = [((h - h.mean(1, keepdim=True)).norm() / h.norm()).item() for h in inputs[:-1]]
    return [grad.norm().item() for grad in grads], apart


@shows(Residual.before, Residual.after)
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
    figure = Picture("transformer_block_residual.png", draw_through_the_layers(curves),
                     "Without the path round the layers the gradient dies, or all tokens become one")
    header = "", "gradient: block 1", f"block {DEPTH}", "apart: block 1", f"block {DEPTH}"
    return table(*header, rows=rows), figure


class BatchNorm(nn.BatchNorm1d):
    """nn.BatchNorm1d for x (B, L, D), in training mode."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(0, 1)).view_as(x)


@shows(layer_norm, fused_layer_norm)
def step_layer_norm():
    """LayerNorm: every token for itself

    Each token's vector gets mean 0 and variance 1, then a learned gain and bias. It uses nothing but the
    token's own numbers. BatchNorm, while training, takes mean and variance of each number over all tokens
    of the batch, so a sentence's output depends on its neighbours and on how much padding there is.
    The class LayerNorm runs PyTorch's kernel. layer_norm() by hand is shown equal to it on random tokens, its
    gradients too; the kernel is faster.
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
    check_part(layer_norm, layer_norm_checks, OURS)
    check_part(LayerNorm, norm_checks, OURS)
    return table("sentence 1 changes by", "another neighbour", "other padding", rows=rows)


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


@shows(gelu, FeedForward.forward)
def step_feed_forward():
    """The feed-forward network: thinking, token by token

    Attention mixes tokens, and except for its weights it is linear in them. The feed-forward network, two
    matrices with an activation between them and four times the width there, adds the non-linearity; it
    holds two thirds of an encoder block's parameters. It is the same function at every position. The paper
    uses ReLU; GELU, x·P(Z < x) with Z standard normal, is its smooth relative. gelu() by hand is shown equal
    to PyTorch's kernel, with its gradient; from here on the kernel runs.
    """
    layer, tokens = FeedForward(32, 128), torch.randn(2, 6, 32)
    alone = torch.stack([layer(tokens[:, [place]])[:, 0] for place in range(6)], dim=1)
    gap = largest_difference(layer(tokens), alone)
    check("all positions at once = one by one", gap < 1e-5, f"largest difference {gap:.0e}")
    block = EncoderBlock(64, 4, 256)
    share = parameters(block.feed_forward) / parameters(block)
    check("it holds about two thirds of an encoder block", 0.6 < share < 0.7, f"{share:.1%}")
    check_part(gelu, gelu_checks, OURS)
    check_part(FeedForward, feed_forward_checks, OURS)


SYMBOLS = 10  # the tokens 3 to 12


class Reverser(nn.Module):
    """Embedding, positions, an encoder, logits: learns to reverse six symbols."""

    def __init__(self, norm: str, n_layers: int = 4):
        super().__init__()
        self.embedding = TokenEmbedding(3 + SYMBOLS, 32)
        self.positions = SinusoidalPositionalEncoding(32)
        self.encoder = Encoder(n_layers, 32, 4, 128, norm=norm)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.embedding.logits(self.encoder(self.positions(self.embedding(tokens))))


def reversal_loss(model: nn.Module, tokens: Tensor) -> Tensor:
    """How far the model is from saying the tokens (B, L) backwards."""
    return F.cross_entropy(model(tokens).flatten(0, 1), tokens.flip(1).flatten())


RATE = 0.01


def train_reverser(norm: str, warmup: int, steps: int = 250) -> list[float]:
    """The losses at a learning rate of RATE after the warm-up; always the same seed."""
    torch.manual_seed(0)
    model = Reverser(norm)
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    losses = []
    for step in range(steps):
        tokens = torch.randint(3, 3 + SYMBOLS, (16, 6))
        loss = reversal_loss(model, tokens)
        optimizer.zero_grad()
        loss.backward()
        share = min(1.0, (step + 1) / max(1, warmup))
        optimizer.param_groups[0]["lr"] = RATE * share
        optimizer.step()
        losses.append(loss.item())
    return losses


def gradients_at_start(norm: str, seeds: int = 5) -> list[float]:
    """The norm of the parameters' gradient in each of 12 fresh blocks, the mean over seeds."""
    norms = torch.zeros(DEPTH)
    for _ in range(seeds):
        model = Reverser(norm, DEPTH)
        tokens = torch.randint(3, 3 + SYMBOLS, (64, 6))
        reversal_loss(model, tokens).backward()
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
    ratios = [post / pre for post, pre in zip(starts["post"], starts["pre"], strict=True)]
    check("the gradient at the start: post-norm's is larger in every block, in the last by over half",
          min(ratios) > 1 and ratios[-1] > 1.5, f"{ratios[0]:.1f} to {ratios[-1]:.1f} times")
    figure = Picture("transformer_block_warmup.png", draw_warmup(runs, starts, SYMBOLS),
                     "A fresh post-norm stack has larger gradients, and at a rate of 0.01 it fails without "
                     "a warm-up")
    rows = [(norm, warmup or "none", ends[norm, warmup]) for norm, warmup in runs]
    return table("norm", "warm-up steps", "loss at the end", rows=rows), figure


@shows(EncoderBlock.forward)
def step_encoder_block():
    """The encoder block

    Two layers, each with its path: look at the others, then think. The shape (B, S, D) never changes, so
    blocks can be stacked. What runs, in order, for 2 sentences of 7 tokens:
    """
    rows = shapes_through(EncoderBlock(32, 4, 128), torch.randn(2, 7, 32))
    check("every part returns 2 × 7 × 32", {row[2] for row in rows} == {"2 × 7 × 32"})
    check_part(EncoderBlock, encoder_block_checks, OURS)
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

    An encoder of N blocks is N times the same class. Per encoder block one attention, per decoder block
    two: 4·(D² + D) parameters each; feed-forward 2·D·d_ff + d_ff + D; a LayerNorm 2·D. Formula and count
    for N + N blocks, d_ff = 4·D; the embedding is that of the paper, 37,000 tokens, counted once.
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

    The blocks were checked above. Three of them, with and without the last LayerNorm:
    """
    check_part(Encoder, encoder_checks, OURS)
    check_part(Decoder, decoder_checks, OURS)


def step_the_drawing():
    """The whole picture

    Class names, sizes and parameter counts in the drawing are read off real modules; the arrows are not.
    """
    encoder, decoder = Encoder(2, 64, 4, 256), Decoder(2, 64, 4, 256)
    embedding = TokenEmbedding(13, 64)
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

    A mask laid on the queries blinds the padding instead of hiding it from the others. Cross-attention
    without the source's mask reads padding, and its answers depend on the batch. Without the last
    LayerNorm a pre-norm stack hands on the sum of all its layers, which grows with the depth:
    """
    caught = check_mistakes(OURS, encoder_block_checks, decoder_block_checks, encoder_checks)
    rows = [(depth, *sizes_at_the_end(depth)) for depth in (1, 4, 16, 64)]
    check("without the norm the output grows with depth", rows[-1][1] > 2 * rows[0][1])
    check("with it, its size stays 1", all(abs(row[2] - 1) < 0.05 for row in rows))
    return caught, table("blocks", "size without the norm", "with it", rows=rows)


def step_what_next():
    """What now?

    Read: Residual, EncoderBlock.forward, DecoderBlock.forward: thirty lines, and the whole idea.

    Change: (1) in Residual.after, begin with x = self.before(x): the checks of the blocks name the mistake.
    (2) DEPTH to 24: without path and norm the gradient is then exactly 0, and nothing is left to be apart.
    (3) RATE to 0.001: post-norm learns without a warm-up, too, but slowly (✗, for the step says it doesn't).

    Write it yourself: --template my_block.py, then --grade my_block.py.
    Next: python 05_mini_transformer.py.
    """


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

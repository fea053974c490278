"""Lesson 11. What if the sequence is long?

Attention compares every token with every token: n × n scores for n tokens. There are two remedies:

    the same numbers, computed differently → tiles, rules, recomputing, packing
    other numbers that cost less           → windows, feature maps, low rank, smaller caches

The second loses accuracy; how much depends on the head. You need lessons 1 to 6; lesson 5's model is
trained here if necessary. You will build attention in tiles and in linear time, small caches and packed rows.
The lesson runs in a minute and takes two hours to read.
"""

import argparse
import course.console.startup  # noqa: F401 (before torch: it reports what fails in the imports below)
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from checks.linear import linear_attention_checks, positive_features_checks
from checks.packing import pack_checks, quantised_cache_checks
from checks.tiles import tiled_attention_checks, window_checks
from common import (
    Picture,
    check,
    check_mistakes,
    check_part,
    fitted_exponent,
    lesson,
    lesson_parser,
    narrate,
    shows,
    table,
)
from course.console.counting import peak_bytes, there_and_back, traffic
from course.console.measuring import bytes_kept, multiplications_of, seconds_of
from course.console.options import check_range
from course.grading.checking import largest_difference, random_tensors
from course.training import long_sequences as measuring
from course.training.attentions import layer_of, near_attention, replaced_by
from course.training.command_line import add_device
from course.training.long_sequences import one_head
from course.training.packing import (
    first_fit,
    fitted,
    lay,
    pack_batch,
    padding,
    refuse_outside,
    without_separation,
)
from course.training.recall import HEADS, WIDTH, latest_task, recall_task, recalls
from figures import efficient_attention as drawing

boolean, causal_mask, fused_attention, scaled_dot_product_attention = lesson(
    "01_attention_mechanism", "boolean", "causal_mask", "fused_attention", "scaled_dot_product_attention")
MultiHeadAttention = lesson("02_multi_head_attention").MultiHeadAttention
PAD, RotaryAttention, SinusoidalPositionalEncoding = lesson(
    "03_positional_encoding", "PAD", "RotaryAttention", "SinusoidalPositionalEncoding")
EncoderBlock = lesson("04_transformer_block").EncoderBlock
(
    DigitExperiment, TrainingConfig, Transformer, TransformerConfig, draw_batch, exactly_right,
    fused_sequence_loss, sequence_job,
) = lesson(
    "05_mini_transformer", "DigitExperiment", "TrainingConfig", "Transformer", "TransformerConfig",
    "draw_batch", "exactly_right", "fused_sequence_loss", "sequence_job")
CachedDecoding, KeyValueCache, greedy_decode = lesson(
    "06_decoding", "CachedDecoding", "KeyValueCache", "greedy_decode")
GroupedQueryAttention = lesson("10_architectures").GroupedQueryAttention

__all__ = ["ATTENTIONS", "QuantisedCache", "Rule", "elu_plus_one", "linear_attention", "pack",
           "positive_features", "tiled_attention", "window"]

# ------------------------------------------------------------------ rules


Rule = Callable[[Tensor, Tensor], Tensor]  # positions of queries (T, 1), of keys (1, S) → boolean (…, T, S)


def causal(i: Tensor, j: Tensor) -> Tensor:
    """Query i may attend to keys 0 … i."""
    return j <= i


def window(width: int) -> Rule:
    """The query's own key and the width − 1 before it. ValueError for a width below 1."""
    check_range("width", width, 1)
    return lambda i, j: (j <= i) & (i - j < width)


def first(count: int) -> Rule:
    """The first `count` keys, except those in the query's future."""
    return lambda i, j: (j <= i) & (j < count)


def same(ids: Tensor) -> Rule:
    """Keys with the query's id; ids (…, L). ValueError for positions outside."""

    def rule(i: Tensor, j: Tensor) -> Tensor:
        refuse_outside(ids.shape[-1], i, j)
        return ids[..., i] == ids[..., j]

    return rule


def blocks(table: Tensor, size: int) -> Rule:
    """Blocks of size × size that a boolean table allows. ValueError for positions outside."""
    check_range("size", size, 1)

    def rule(i: Tensor, j: Tensor) -> Tensor:
        refuse_outside(len(table) * size, i, j)
        return table[i // size, j // size]

    return rule


def either(*rules: Rule) -> Rule:
    """What any rule allows."""
    return lambda i, j: torch.stack(torch.broadcast_tensors(*(rule(i, j) for rule in rules))).any(0)


def both(*rules: Rule) -> Rule:
    """What all rules allow."""
    return lambda i, j: torch.stack(torch.broadcast_tensors(*(rule(i, j) for rule in rules))).all(0)


def table_of(rule: Rule, n_queries: int, n_keys: int) -> Tensor:
    """The rule as a mask (…, T, S); the queries are the last positions."""
    return rule(torch.arange(n_keys - n_queries, n_keys)[:, None], torch.arange(n_keys)[None])


# ------------------------------------------------------------------ tiles


class Running(NamedTuple):
    """A softmax after some of the keys."""

    largest: Tensor  # score, (…, T, 1)
    total: Tensor  # of e^(score − largest), (…, T, 1)
    mean: Tensor  # of the values, not yet divided by the total, (…, T, any)


def begin(query: Tensor, value: Tensor) -> Running:
    """No key seen yet."""
    zeros = query.new_zeros(*query.shape[:-1], 1)
    lowest = zeros + torch.finfo(query.dtype).min  # −∞ − (−∞) would be undefined
    return Running(lowest, zeros, query.new_zeros(*query.shape[:-1], value.shape[-1]))


def join(seen: Running, scores: Tensor, value: Tensor) -> Running:
    """Add keys with scores (…, T, S) and values (…, S, any)."""
    largest = torch.maximum(seen.largest, scores.amax(-1, keepdim=True))
    shrink = torch.exp(seen.largest - largest)
    exponentials = torch.exp(scores - largest)
    return Running(largest, seen.total * shrink + exponentials.sum(-1, keepdim=True),
                   seen.mean * shrink + exponentials @ value)


def tiles(length: int, size: int) -> Iterator[slice]:
    """0 … length − 1 in slices; the last may be shorter."""
    return (slice(start, min(start + size, length)) for start in range(0, length, size))


def tile_scores(query: Tensor, key: Tensor, sees: Callable, rows: slice, columns: slice) -> Tensor | None:
    """The scores of a tile, −∞ where hidden; None if all are hidden."""
    visible = sees(rows, columns)
    if visible is not None and not visible.any():
        return None
    scores = query[..., rows, :] @ key[..., columns, :].mT / math.sqrt(query.shape[-1])
    return scores if visible is None else scores.masked_fill(~visible, -math.inf)


class TiledAttention(torch.autograd.Function):
    """FlashAttention (Dao et al. 2022, algorithms 2 and 4)."""

    @staticmethod
    def forward(ctx, query, key, value, sees, tile):
        output = value.new_empty(*query.shape[:-1], value.shape[-1])
        log_sum = query.new_empty(*query.shape[:-1], 1)
        for rows in tiles(query.shape[-2], tile):
            seen = begin(query[..., rows, :], value)
            for columns in tiles(key.shape[-2], tile):
                scores = tile_scores(query, key, sees, rows, columns)
                if scores is not None:
                    seen = join(seen, scores, value[..., columns, :])
            total = seen.total.clamp(min=1.0)  # below 1 only where a query sees nothing
            torch.div(seen.mean, total, out=output[..., rows, :])
            log_sum[..., rows, :] = seen.largest + total.log()
        ctx.save_for_backward(query, key, value, output, log_sum)
        ctx.sees, ctx.tile = sees, tile
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx, slopes):
        query, key, value, output, log_sum = ctx.saved_tensors
        grads = grad_query, grad_key, grad_value = [torch.zeros_like(x) for x in (query, key, value)]
        mean = (output * slopes).sum(-1, keepdim=True)  # lesson 1's sum of weights · their gradients
        root = math.sqrt(query.shape[-1])
        for rows in tiles(query.shape[-2], ctx.tile):
            for columns in tiles(key.shape[-2], ctx.tile):
                scores = tile_scores(query, key, ctx.sees, rows, columns)
                if scores is None:
                    continue
                weights = torch.exp(scores - log_sum[..., rows, :])
                grad_weights = slopes[..., rows, :] @ value[..., columns, :].mT
                grad_scores = weights * (grad_weights - mean[..., rows, :]) / root
                grad_query[..., rows, :] += grad_scores @ key[..., columns, :]
                grad_key[..., columns, :] += grad_scores.mT @ query[..., rows, :]
                grad_value[..., columns, :] += weights.mT @ slopes[..., rows, :]
        return *grads, None, None


def tiled_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | Rule | None = None,
                    dropout: float = 0.0, tile: int = 256) -> Tensor:
    """scaled_dot_product_attention() that holds tile × tile scores at a time.

    query (…, T, K), key (…, S, K), value (…, S, any) → output (…, T, any). mask: lesson 1's, or a rule, for
    which the queries are the last positions; hidden tiles are skipped. Half precision runs in float32. With
    dropout, lesson 1's code runs. ValueError for a tile below 1 and a mask that doesn't fit.
    """
    check_range("tile", tile, 1)
    T, S, shape = query.shape[-2], key.shape[-2], torch.broadcast_shapes(query.shape[:-2], key.shape[:-2])
    i = torch.arange(S - T, S, device=query.device)[:, None]
    j = torch.arange(S, device=query.device)[None]
    if isinstance(mask, Tensor):
        mask = fitted(boolean(mask), (*shape, T, S))
    if dropout:
        mask = mask(i, j) if callable(mask) else mask
        return scaled_dot_product_attention(query, key, value, mask, dropout)

    def sees(rows: slice, columns: slice) -> Tensor | None:
        if callable(mask):
            return boolean(mask(i[rows], j[:, columns]))
        return None if mask is None else mask[..., rows, columns]

    kind = torch.promote_types(query.dtype, torch.float32)
    inputs = (x.to(kind).expand(*shape, *x.shape[-2:]) for x in (query, key, value))
    return TiledAttention.apply(*inputs, sees, tile).to(query.dtype)


# ------------------------------------------------------------------ linear attention


def elu_plus_one(x: Tensor) -> Tensor:
    """Positive features, one per number of x (Katharopoulos et al. 2020)."""
    return F.elu(x) + 1


def with_ones(value: Tensor) -> Tensor:
    """Append a 1 to each value (…, any), so that weighted sums include the sum of the weights."""
    return F.pad(value, (0, 1), value=1.0)


def divided(sums: Tensor) -> Tensor:
    """The mean from such sums (…, any + 1); 0 where a query sees nothing."""
    return sums[..., :-1] / sums[..., -1:].clamp(min=torch.finfo(torch.float32).tiny)


class LinearState:
    """Causal linear attention, token by token."""

    def __init__(self, feature: Callable[[Tensor], Tensor] = elu_plus_one):
        self.feature, self.state = feature, torch.zeros(())

    def step(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Query and key (…, 1, K), value (…, 1, any) → output (…, 1, any)."""
        self.state = self.state + self.feature(key).mT @ with_ones(value)  # (…, features, any + 1)
        return divided(self.feature(query) @ self.state)


def linear_attention(query: Tensor, key: Tensor, value: Tensor, causal: bool = True,
                     feature: Callable[[Tensor], Tensor] = elu_plus_one, chunk: int = 64) -> Tensor:
    """Σ (φ(q)·φ(k)) v / Σ φ(q)·φ(k), with positive features φ (Katharopoulos et al. 2020, section 3.2).

    query (…, T, K), key (…, S, K), value (…, S, any) → output (…, T, any). causal: the queries are the last
    positions; inside a chunk a table is used. A query without keys gets 0. Half precision runs in float32.
    ValueError for a chunk below 1.
    """
    check_range("chunk", chunk, 1)
    kind, early = torch.promote_types(query.dtype, torch.float32), key.shape[-2] - query.shape[-2]
    queries, keys, values = feature(query.to(kind)), feature(key.to(kind)), with_ones(value.to(kind))
    if not causal:
        return divided(queries @ (keys.mT @ values)).to(query.dtype)
    queries = F.pad(queries, (0, 0, early, 0))  # one query per key; a negative number cuts
    state, outputs = keys[..., :0, :].mT @ values[..., :0, :], []
    for rows in tiles(max(key.shape[-2], 1), chunk):
        q, k, v = (x[..., rows, :] for x in (queries, keys, values))
        outputs.append(divided(q @ state + (q @ k.mT).tril() @ v))
        state = state + k.mT @ v
    return F.pad(torch.cat(outputs, -2), (0, 0, -early, 0)).to(query.dtype)


def directions(count: int, width: int, orthogonal: bool = True, generator: torch.Generator | None = None
               ) -> Tensor:
    """(count, width) random normal directions, at right angles in each block of `width` rows."""
    check_range("count", count, 1)
    normal = torch.randn(count, width, generator=generator)
    if not orthogonal:
        return normal
    squares = torch.randn(-(-count // width), width, width, generator=generator)
    return torch.linalg.qr(squares)[0].flatten(0, 1)[:count] * normal.norm(dim=1, keepdim=True)


def positive_features(x: Tensor, w: Tensor) -> Tensor:
    """e^(w·x′ − |x′|²/2) / √m with x′ = x / d_k^¼ (Choromanski et al. 2021, lemma 1).

    x (…, L, K) and directions w (m, K) → (…, L, m). The mean of φ(q)·φ(k) over w is e^(q·k/√d_k). float16
    comes back as float32, whose range it needs.
    """
    x = x.to(torch.promote_types(x.dtype, torch.float32)) / x.shape[-1] ** 0.25
    return torch.exp(x @ w.to(x.dtype).mT - x.square().sum(-1, keepdim=True) / 2) / math.sqrt(len(w))


# ------------------------------------------------------------------ approximations


class LinformerAttention(MultiHeadAttention):
    """A learned map mixes up to `length` keys and values into `rank` (Wang et al. 2020)."""

    def __init__(self, d_model: int, n_heads: int, length: int, rank: int, dropout: float = 0.0):
        super().__init__(d_model, n_heads, dropout)
        self.mix_keys = nn.Parameter(torch.randn(rank, length) / math.sqrt(rank))
        self.mix_values = nn.Parameter(torch.randn(rank, length) / math.sqrt(rank))

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        check_range("the number of keys", length := keys.shape[-2], 0, self.mix_keys.shape[1])
        if mask is not None:
            raise ValueError(f"a mask {tuple(mask.shape)} can't hide keys that are mixed")
        keys, values = self.mix_keys[:, :length] @ keys, self.mix_values[:, :length] @ values
        return super().attend(queries, keys, values, None)


def masked_linear_attention(query, key, value, mask=None, dropout=0.0, feature=elu_plus_one) -> Tensor:
    """linear_attention() under lesson 5's masks: padding masks have one row, causal masks several."""
    queries, keys = feature(query), feature(key)
    causal = mask is not None and mask.shape[-2] > 1
    if mask is not None and not causal:
        keys = keys * mask.mT
    return linear_attention(queries, keys, value, causal, feature=lambda x: x)


own_attention = partial(layer_of, RotaryAttention)  # function → self-attention with it inside


# ------------------------------------------------------------------ caches


class WindowCache(KeyValueCache):
    """Keeps the first `sinks` keys and values, and the latest `width`."""

    def __init__(self, attention: nn.Module, width: int, sinks: int = 0):
        check_range("width", width, 1)
        check_range("sinks", sinks, 0)
        super().__init__(attention)
        self.width, self.sinks = width, sinks

    def append(self, keys: Tensor, values: Tensor) -> None:
        super().append(keys, values)
        if keys.shape[2] == 1:
            self.keys, self.values = self.kept(self.keys), self.kept(self.values)

    def kept(self, x: Tensor) -> Tensor:
        late = max(self.sinks, x.shape[2] - self.width)
        return torch.cat([x[:, :, : self.sinks], x[:, :, late:]], dim=2)


class QuantisedCache(KeyValueCache):
    """A KeyValueCache of integers, x / scale, with a scale per vector: largest number / largest integer.

    ValueError unless 2 ≤ bits ≤ 8.
    """

    def __init__(self, attention: nn.Module, bits: int = 8):
        check_range("bits", bits, 2, 8)
        super().__init__(attention)
        self.top = 2 ** (bits - 1) - 1
        self.parts: list[Tensor] = []  # integers and scales of keys, of values

    def append(self, keys: Tensor, values: Tensor) -> None:
        """Quantise both, and keep them."""
        new = [*self.quantised(keys), *self.quantised(values)]
        self.parts = [torch.cat(pair, dim=2) for pair in zip(self.parts, new)] or new

    def quantised(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (…, K) → integers (…, K) and scales (…, 1)."""
        scale = (x.float().abs().amax(-1, keepdim=True) / self.top).clamp(max=65504).half()
        whole = (x / scale.float().clamp(min=1e-8)).round().clamp(-self.top, self.top)
        return whole.to(torch.int8), scale

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """As in lesson 6."""
        self.append(keys, values)
        whole_keys, key_scales, whole_values, value_scales = self.parts
        keys, values = whole_keys * key_scales.to(queries), whole_values * value_scales.to(queries)
        return type(self.attention).attend(self.attention, queries, keys, values, mask)

    def reorder(self, rows: Tensor) -> None:
        """Keep these rows."""
        self.parts = [part.index_select(0, rows) for part in self.parts]

    def bytes(self) -> int:
        """The bytes kept."""
        return sum(part.nbytes for part in self.parts)


# ------------------------------------------------------------------ packing


class Packed(NamedTuple):
    """Several sequences per row, (R, width) each."""

    tokens: Tensor
    ids: Tensor  # which sequence of the row: 1, 2, …; 0 is padding
    positions: Tensor  # each sequence counts from 0


def pack(sequences: Sequence[Sequence[int]], width: int) -> Packed:
    """Put lists of ids, the longest first, each into the first row with room.

    ValueError if a row is shorter than the longest sequence.
    """
    return Packed(*lay(first_fit([*map(len, sequences)], width), sequences, width))


class PackedTransformer(Transformer):
    """Lesson 5's model; each sequence keeps its positions and sees only itself."""

    def forward(self, src, src_ids, src_positions, tgt, tgt_ids, tgt_positions) -> Tensor:
        """The fields of a PackedBatch except tgt_out → logits (R, width, V)."""

        def alike(queries: Tensor, keys: Tensor) -> Tensor:
            return queries[:, None, :, None] == keys[:, None, None, :]  # (R, 1, T, S)

        memory = self.encoder(self.embed(src, src_positions), alike(src_ids, src_ids))
        mask = alike(tgt_ids, tgt_ids) & self.tgt_mask(tgt.shape[1], tgt.device)
        x = self.decoder(self.embed(tgt, tgt_positions), memory, mask, alike(tgt_ids, src_ids))
        return self.embedding.logits(x)


near = partial(near_attention, fused_attention)
ATTENTIONS = replaced_by(  # --attention of lessons 5, 8 and 10
    own_attention, GroupedQueryAttention, tiled_attention, near, masked_linear_attention)
GRADED = {
    "tiled_attention": tiled_attention_checks,
    "window": window_checks,
    "linear_attention": linear_attention_checks,
    "positive_features": positive_features_checks,
    "QuantisedCache": quantised_cache_checks,
    "pack": pack_checks,
}
OURS = sys.modules[__name__]  # the checks make the classic mistakes from its parts


# ------------------------------------------------------------------ the steps


class LongExperiment(DigitExperiment):
    """Lesson 5's default run, trained now if necessary."""

    def __init__(self, options: argparse.Namespace):
        check_range("pairs", options.pairs, 4, 128)
        super().__init__(TransformerConfig(), TrainingConfig(), options)

    @property
    def model(self) -> Transformer:
        return self.run.model.eval()

    def batch(self, count: int):
        return draw_batch("reverse", count, "test", (11,))


MIB, SIZES = 2**20, (256, 512, 1024, 2048)
LINES, TILES, KERNEL = "lesson 1's code", "tiles of 128", "kernel"
WAYS = {LINES: scaled_dot_product_attention, TILES: partial(tiled_attention, tile=128),
        KERNEL: fused_attention}


def step_six_tables(experiment: LongExperiment):
    """Where the memory goes

    Lesson 1's attention code holds tables of n × n numbers: scores, their exponentials, weights, then
    gradients. For one head of width 64, forward and backward, six are held at the peak. Twice the
    length needs four times the memory.
    """
    peaks = [peak_bytes(there_and_back(scaled_dot_product_attention), *one_head(n)) for n in SIZES]
    rows = [(n, peak / MIB, peak / (4 * n * n)) for n, peak in zip(SIZES, peaks)]
    check("with 2,048 tokens six tables are held at the peak", 6 <= rows[-1][2] < 6.1)
    power = fitted_exponent(SIZES, peaks)
    check("the peak memory of lesson 1's code grows with n²", 1.9 < power < 2.05, f"n^{power:.2f}")
    return table("n", "MiB at the peak", "tables of n × n", rows=rows)


@shows(join)
def step_two_halves(experiment: LongExperiment):
    """Two halves of a row join exactly

    A softmax needs the largest score of its row and the sum of the exponentials. Both can be found piece by
    piece, without the whole row: if a later piece has a larger score, multiply the sums so far by e^(old
    largest − new largest) (Milakov and Gimelshein 2018). Below, scores 2, 1, 5 and 3 weight the values 10,
    20, 30 and 40.
    """
    scores, values = torch.tensor([[2.0, 1, 5, 3]]), torch.tensor([[10.0], [20], [30], [40]])
    half = join(begin(scores, values), scores[:, :2], values[:2])
    whole = join(half, scores[:, 2:], values[2:])
    gap = largest_difference(whole.mean / whole.total, scores.softmax(-1) @ values)
    check("two halves, joined, give the mean of the whole row", gap < 1e-4, f"{gap:.0e}")
    return table("", "largest", "total", "mean", "mean / total", rows=[
        (name, *(part.item() for part in seen), (seen.mean / seen.total).item())
        for name, seen in (("first half", half), ("both", whole))])


@shows(TiledAttention.forward)
def step_tiles(experiment: LongExperiment):
    """Tiles give the same numbers

    Cut queries and keys into tiles. For each tile of queries, join all tiles of keys: FlashAttention (Dao et
    al. 2022). The table shows errors for scores in the thousands, PyTorch's kernel (step 6) included.
    """
    check_part(tiled_attention, tiled_attention_checks, OURS)
    query, key, value = one_head(512)
    exact = scaled_dot_product_attention(*(x.double() for x in (1000 * query, key, value)))
    errors = {name: largest_difference(way(1000 * query, key, value), exact) for name, way in WAYS.items()}
    check("the errors of tiles and kernel are under twice the error of lesson 1's code",
          max(errors[TILES], errors[KERNEL]) < 2 * errors[LINES])
    return table("queries × 1000", "error", rows=errors.items())


@shows(TiledAttention.backward)
def step_one_number_per_row(experiment: LongExperiment):
    """One number per row is enough for the backward pass

    The backward pass needs the weights. Lesson 1's code keeps weights and exponentials. The tiles keep one
    number per query, the logarithm of the sum of e^score over its row (log-sum-exp), and compute each weight
    again as e^(score − log-sum-exp). That is seven matrix products per tile, forward and backward, not six.
    """
    inputs = one_head(512)
    lines, tiled = (multiplications_of(there_and_back(WAYS[name]), *inputs) for name in (LINES, TILES))
    check("tiles take exactly 7/6 of the products of lesson 1's code", 6 * tiled == 7 * lines)
    leaves = [x.requires_grad_() for x in inputs]
    kept = {name: bytes_kept(way, *leaves) / 4 / 512 for name, way in WAYS.items()}
    check("tiles keep 65 numbers per query: 64 of the output and the log-sum-exp", kept[TILES] == 65)
    return table("kept", "numbers per query", rows=kept.items())


def formula(n: int, d: int, tile: int) -> int:
    """Bytes: queries, output and sums once; keys and values once per tile of queries."""
    return 4 * (2 * n * d + n + 2 * n * d * n // tile)


@shows(formula)
def step_bytes_moved(experiment: LongExperiment):
    """Tiles move fewer bytes

    A large memory delivers numbers more slowly than a processor multiplies them. Tiles compute more, but move
    fewer bytes into a fast memory (simulated here: 256 KiB). Larger tiles move fewer bytes while they fit.
    Tiles of 128 don't: queries, keys, values and means take 32 KiB each, scores and exponentials 64 each.
    """
    inputs, sizes, cache = one_head(512), (16, 32, 64, 128), 256 * 1024
    moved = {tile: traffic(partial(tiled_attention, tile=tile), cache, *inputs) / MIB for tile in sizes}
    predicted = {tile: formula(512, 64, tile) / MIB for tile in sizes}
    lines = traffic(scaled_dot_product_attention, cache, *inputs) / MIB
    check("tiles that fit move the predicted bytes, within 10 %",
          all(predicted[tile] <= moved[tile] < 1.1 * predicted[tile] for tile in sizes[:3]))
    check("tiles of 128 move more than twice the predicted bytes, and more than tiles of 64",
          moved[128] > max(2 * predicted[128], moved[64]))
    larger = traffic(partial(tiled_attention, tile=128), 2 * cache, *inputs) / MIB
    check("with twice the memory, tiles of 128 also move the predicted bytes, within 10 %",
          predicted[128] <= larger < 1.1 * predicted[128])
    figure = Picture("efficient_attention_traffic.png", drawing.draw_traffic(moved, predicted, lines),
                     "Larger tiles move fewer bytes, until one no longer fits into the fast memory")
    return table("tile", "MiB moved", "formula", rows=[
        *((tile, moved[tile], predicted[tile]) for tile in sizes), (LINES, lines, "")]), figure


def step_the_kernel(experiment: LongExperiment):
    """PyTorch's kernel also uses tiles

    PyTorch's attention (the kernel) runs such tiles in one compiled function. What it allocates inside isn't
    counted. The rest grows with n, unless a causal mask is passed as a table. The last column compares
    forward times, for 1,024 tokens.
    """
    ways = WAYS | {"kernel, causal table": lambda *x: fused_attention(*x, causal_mask(x[0].shape[-2]))}
    peaks = {name: [peak_bytes(there_and_back(way), *one_head(n)) / MIB for n in SIZES]
             for name, way in ways.items()}
    lines, tiled, kernel, masked = (fitted_exponent(SIZES[1:], found[1:]) for found in peaks.values())
    check("the peak memory of tiles and kernel grows with n", max(tiled, kernel) < 1.1)
    check("the peak memory of lesson 1's code and of the kernel with a table grows with n²",
          min(lines, masked) > 1.8)
    inputs = one_head(1024)
    times = {name: seconds_of(way, *inputs) for name, way in ways.items()}
    return table("MiB at the peak", *map(str, SIZES), "time", rows=[
        (name, *found, f"{times[name] / times[LINES]:.2g} ×") for name, found in peaks.items()]), Picture(
        "efficient_attention_memory.png", drawing.draw_memory(SIZES, peaks),
        "Memory grows with n² for tables, with n for tiles")


RULES = {"causal": causal, "window 64": window(64), "window 64, first 4": either(window(64), first(4)),
         "diagonal blocks": both(causal, blocks(torch.eye(8, dtype=torch.bool), 64)),
         "4 packed sequences": both(causal, same(torch.arange(512) // 128))}


@shows(causal, window, either)
def step_rules(experiment: LongExperiment):
    """Rules skip tiles

    A mask needs no table: a rule says whether one position may attend to another. Hidden tiles are not
    computed; a partly hidden tile costs as much as a full one. The table is for 512 tokens in tiles of 64.
    """
    inputs, rows, gaps, exact = one_head(512), [], [], True
    for name, rule in RULES.items():
        mask = table_of(rule, 512, 512)
        way = partial(tiled_attention, mask=rule, tile=64)
        products = multiplications_of(way, *inputs) / (2 * 64 * 512**2)
        exact = exact and products == measuring.tiles_left(mask, 64)
        gaps.append(largest_difference(way(*inputs), fused_attention(*inputs, mask)))
        rows.append((name, f"{products:.0%}", f"{mask.double().mean():.0%}"))
    check("each rule gives the same output as its mask", max(gaps) < 1e-5, f"{max(gaps):.0e}")
    check("only tiles with a visible pair are computed", exact)
    check_part(window, window_checks, OURS)
    return table("rule", "products computed", "pairs visible", rows=rows)


@shows(LinformerAttention.attend)
def step_low_rank(experiment: LongExperiment):
    """Low-rank attention isn't causal

    Linformer mixes n keys and values into r with a learned map, so the table is n × r. Each mixed key holds a
    part of every token, even of future ones, and no mask can hide that. Scores with a small spread (standard
    deviation) give blunt weights on many keys; a large spread gives sharp weights on few. The table shows the
    error of the best rank-16 approximation, for 256 tokens, in three draws.
    """
    attention, (x,) = LinformerAttention(32, 2, length=16, rank=4).double(), random_tensors((1, 16, 32))
    other = torch.cat([x[:, :-1], x[:, -1:] + 1], 1)
    moved = largest_difference(*(attention(v, v, v)[:, 0] for v in (x, other)))
    check("Linformer: the last token changes the first output", moved > 1e-4, f"by {moved:.0e}")
    blunt, sharp = (measuring.rank_errors(size, 16) for size in (0.5, 4.0))
    check("with rank 16 sharp weights have over twice the error of blunt ones",
          min(sharp) > 2 * max(blunt))
    return table("error, spread 0.5 (blunt)", "error, spread 4 (sharp)", rows=zip(blunt, sharp))


@shows(with_ones, LinearState.step)
def step_linear_is_an_rnn(experiment: LongExperiment):
    """Linear attention is an RNN

    Replace e^(q·k) by φ(q)·φ(k), with positive features φ, here elu + 1 (e^x below 0, x + 1 above). Then the
    sum over keys, Σ φ(k)·vᵀ, needs no query; its size doesn't depend on the length. Updated token by
    token, it is the state of an RNN. Training uses chunks, each with a table.
    """
    query, key, value = random_tensors((130, 64), (130, 64), (130, 64))
    state = LinearState()
    stepped = torch.cat([state.step(*token) for token in zip(*(x.split(1) for x in (query, key, value)))])
    gap = largest_difference(stepped, linear_attention(query, key, value))
    check("linear attention gives the same output token by token as in chunks", gap < 1e-12, f"{gap:.0e}")
    check_part(linear_attention, linear_attention_checks, OURS)
    return table("tokens", "numbers in the state", "numbers in a cache", rows=[
        (n, state.state.numel(), 2 * 64 * n) for n in (128, 1024, 4096)])


@shows(positive_features)
def step_random_features(experiment: LongExperiment):
    """Random features

    Averaged over random directions, dot products of Performer's features (Choromanski et al. 2021) are
    e^(q·k/√d_k). With m independent directions the relative variance is (e^|x + y|² − 1) / m, where x and y
    are q and k divided by d_k^¼. It grows exponentially with |x + y|², so sharp heads need far more features.
    Directions at right angles give less variance than independent ones, here for short q and k.
    """
    kinds = [partial(directions, orthogonal=orthogonal) for orthogonal in (False, True)]
    ratios = {size: [measuring.variance_ratio(positive_features, kind, size) for kind in kinds]
              for size in (0.2, 0.4)}
    check("with independent directions the variance equals the formula's within 15 %",
          all(abs(independent - 1) < 0.15 for independent, _ in ratios.values()))
    check("directions at right angles give less variance than independent ones",
          all(right < other for other, right in ratios.values()))
    check_part(positive_features, positive_features_checks, OURS)
    return table("spread of q, k", "variance / formula", "at right angles", rows=[
        (size, *pair) for size, pair in ratios.items()])


@shows(masked_linear_attention)
def step_trained_heads(experiment: LongExperiment):
    """Blunt heads survive, sharp ones don't

    Replace the attention of lesson 5's heads without training, and count the right answers with teacher
    forcing. The encoder's scores are blunt: equal weights on all keys suffice, and so do feature maps, but a
    window doesn't. The cross-attention picks one digit: its scores are sharp, and nothing here replaces it.
    The spread is the largest over layers; random features show the worst of three draws.
    """
    model, batch = experiment.model, experiment.batch(100)
    draws = [directions(64, 16, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
    maps = torch.ones_like, elu_plus_one, *(partial(positive_features, w=w) for w in draws)
    even, elu, *random = (partial(masked_linear_attention, feature=feature) for feature in maps)
    ways = {"equal weights": [even], "elu + 1": [elu], "random features": random, "window ± 4": [near(5)]}
    right_with = partial(measuring.right_with, model, batch)
    right = {heads: [min(right_with(heads, one) for one in some) for some in ways.values()]
             for heads in ("encoder", "self_attention", "cross_attention")}
    spreads = {heads: measuring.score_spread(model, batch, heads) for heads in right}
    encoder, own, cross = right.values()
    check("encoder: over 95 % of answers are right with equal weights and feature maps, under 70 % with the "
          "window", min(encoder[:3]) > 0.95 > 0.7 > encoder[3])
    check("with all self-attention replaced, random features keep over 10 percentage points more answers "
          "than elu + 1", own[2] > own[1] + 0.1)
    check("cross-attention: under 30 % of answers are right with each replacement", max(cross) < 0.3)
    figure = Picture("efficient_attention_heads.png", drawing.draw_heads(spreads, right, [*ways]),
                     "Blunt heads survive equal weights and feature maps, sharp ones don't")
    rows = [(heads, spreads[heads], *(f"{share:.0%}" for share in some)) for heads, some in right.items()]
    return table("answers right", "spread", *ways, rows=rows), figure


def step_recall(experiment: LongExperiment):
    """What a state recalls

    The model reads key-value pairs, then gives the values of the keys in a different order (chance: 1 in 16).
    One block with 4 heads of width 16 is trained for 250 steps. Softmax recalls all 32 pairs. Linear
    attention with elu + 1 recalls 16 pairs, but 32 only after 500 steps. A window of 16 suffices if only the
    latest four pairs are asked for.
    """
    pairs, seeds = experiment.options.pairs, [torch.initial_seed() + more for more in range(3)]
    softmax, local, linear = map(own_attention, (fused_attention, near(16), masked_linear_attention))
    kinds = {"softmax": (softmax, recall_task, pairs, 250), "elu + 1": (linear, recall_task, pairs, 250),
             "elu + 1, half the pairs": (linear, recall_task, pairs // 2, 250),
             "elu + 1, 500 steps": (linear, recall_task, pairs, 500),
             "window 16": (local, recall_task, pairs, 250),
             "window 16, latest four": (local, latest_task, pairs, 250)}
    found = recalls(EncoderBlock, SinusoidalPositionalEncoding, kinds, seeds)
    full, elu, half, longer, far, latest = found.values()
    if pairs == 32:
        check("each seed: softmax recalls 32 pairs, elu + 1 recalls 16", min(full + half) > 0.98)
        check("each seed: elu + 1 recalls under 90 % of 32 pairs after 250 steps, over 95 % after 500",
              max(elu) < 0.9 and min(longer) > 0.95)
        check("each seed: a window recalls under 15 % of pairs, but over 98 % of the latest four",
              max(far) < 0.15 and min(latest) > 0.98)
    rows = [(name, *(f"{share:.0%}" for share in some)) for name, some in found.items()]
    return table("attention", *(f"seed {seed}" for seed in seeds), rows=rows), Picture(
        "efficient_attention_recall.png", drawing.draw_recall(found, 1 / 16),
        f"Linear attention learns to recall {pairs} pairs more slowly than softmax")


def step_recompute(experiment: LongExperiment):
    """Recomputing: one block per segment

    The backward pass needs every block's activations (intermediate results), c times the size of its input.
    Keep only what enters each segment of s blocks; compute each segment again in the backward pass (Chen et
    al. 2016; --recompute in lesson 5). At the peak, N blocks hold N/s + c·s + 4 inputs. If c were 1, segments
    of √N blocks would be best, but c is far larger. The price is another forward pass: 4/3 of the products.
    Dropout must repeat its choices: the random state is kept.
    """
    depth, x = 16, torch.randn(2, 64, WIDTH)
    blocks = nn.ModuleList(EncoderBlock(WIDTH, HEADS, 4 * WIDTH, 0.1) for _ in range(depth))
    c = measuring.activations_kept(blocks[0], x)
    runs = {size: measuring.in_segments(blocks, x, size) for size in (0, 1, 2, 4, 8, 16)}
    predicted = {size: depth / size + c * size + 4 for size in runs if size}
    check("memory peaks are within 2 % of the formula's",
          all(abs(runs[size].peak / inputs - 1) < 0.02 for size, inputs in predicted.items()), f"c = {c:.1f}")
    kept, once = runs[0], runs[1]
    check("one block per segment needs the least memory", once.peak == min(run.peak for run in runs.values()))
    check("recomputing takes one third more products", 3 * once.products == 4 * kept.products)
    check("recomputing gives the same gradients, bit for bit",
          all(torch.equal(run.gradients, kept.gradients) for run in runs.values()))
    other = measuring.in_segments(blocks, x, 1, keep_random_state=False).gradients - kept.gradients
    check("without the random state, recomputed gradients are off by over 5 %",
          other.norm() > 0.05 * kept.gradients.norm())
    return table("blocks per segment", "peak, in inputs", "formula", rows=[
        (size or "all kept", run.peak, predicted.get(size, "")) for size, run in runs.items()]), Picture(
        "efficient_attention_recompute.png", drawing.draw_recompute(runs, predicted),
        "One block per segment needs the least memory, not √N blocks")


@shows(WindowCache.kept, QuantisedCache.quantised)
def step_smaller_caches(experiment: LongExperiment):
    """Smaller caches

    Lesson 6's cache can hold 8-bit integers, with one scale per vector; integers with fewer bits also take a
    byte here. Another cache holds only the latest keys; adding the first ones, called sinks, helps (Xiao et
    al. 2024). In lesson 5's model 8 bits lose no answers, 2 bits lose most, and sinks help more than adding
    as many recent keys.
    """
    answers = partial(measuring.answers_with, CachedDecoding, greedy_decode, exactly_right, experiment.model,
                      experiment.batch(300))
    whole, size = answers(KeyValueCache, KeyValueCache)
    bits = {n: answers(*[partial(QuantisedCache, bits=n)] * 2) for n in (8, 4, 3, 2)}
    sinks = {(n, late): answers(partial(WindowCache, width=late, sinks=n), KeyValueCache)
             for n, late in ((0, 8), (1, 7), (4, 4), (0, 4), (1, 3))}
    check("8-bit caches lose no answers and take under 30 % of the bytes",
          bits[8][0] >= whole and bits[8][1] < 0.3 * size)
    check("2-bit caches lose over half of the answers", bits[2][0] < 0.5 * whole)
    none, one, four, no, some = (right for right, _ in sinks.values())
    check("with 8 or 4 keys, sinks save over 10 percentage points of answers",
          min(one, four) > none + 0.1 and some > no + 0.1)
    check_part(QuantisedCache, quantised_cache_checks, OURS)
    rows = [("all", (whole, size)), *((f"{n} bits", found) for n, found in bits.items()),
            *((f"self-attention: first {n}, latest {late}", found) for (n, late), found in sinks.items())]
    return (table("kept", "answers right", "KiB per answer", rows=[
        (name, f"{right:.1%}", kib) for name, (right, kib) in rows]),
            Picture("efficient_attention_cache.png", drawing.draw_caches(sinks),
                    "Of eight keys, four sinks help more than four recent ones"))


@shows(PackedTransformer.forward)
def step_packing(experiment: LongExperiment):
    """Packing sequences of different lengths

    A batch is as wide as its longest sequence. Batches by length (lesson 8) waste less than random ones;
    several sequences packed into one row waste least. Each sequence needs its own positions and must see only
    itself. Then lesson 5's model has the same loss and gradients on packed rows. If either condition is
    missing, no error appears, only a larger loss.
    """
    lengths = [min(120, 4 + int(x)) for x in torch.empty(256).exponential_(1 / 20)]
    waste = {"random batches": padding(lengths, 32), "batches by length": padding(sorted(lengths), 32),
             "rows of 128": 1 - sum(lengths) / 128 / len(first_fit(lengths, 128))}
    random, by_length, rows = waste.values()
    check("packed rows need the least padding, under 10 %; random batches need the most",
          0.1 > rows < by_length < random)
    sizes, padded = TransformerConfig(), experiment.batch(64)
    packed, weights = pack_batch(padded, 64), experiment.model.state_dict()
    loss, slopes = measuring.loss_of(Transformer(sizes), weights, fused_sequence_loss, padded)
    found = {name: measuring.loss_of(PackedTransformer(sizes), weights, fused_sequence_loss, some)
             for name, some in without_separation(packed).items()}
    right, *wrong = found.values()
    gap = largest_difference(right[1], slopes)
    check("packed rows have the same gradients as the padded batch", gap < 1e-10, f"{gap:.0e}")
    check("without separate positions or masks the loss is over 10 times as large",
          min(one for one, _ in wrong) > 10 * loss)
    steps = [measuring.first_losses(partial(kind, sizes), sequence_job, TrainingConfig(steps=10), batch)
             for kind, batch in ((Transformer, padded), (PackedTransformer, packed))]
    check("ten training steps have the same losses, padded or packed",
          max(abs(a - b) for a, b in zip(*steps)) < 1e-4)
    check_part(pack, pack_checks, OURS)
    losses = [("padded", loss), *((name, one) for name, (one, _) in found.items())]
    return (table("256 sequences", "padding", rows=[(name, f"{part:.1%}") for name, part in waste.items()]),
            table("model", "loss", rows=losses))


def step_which_when(experiment: LongExperiment):
    """Which method, and when?

    Use PyTorch's kernel. In addition:
    """
    return table("if", "then", rows=[
        ("the mask hides much", "rules"), ("memory runs out", "recomputing"),
        ("lengths differ", "batches by length, or packing"),
        ("answers are long", "8-bit caches, or grouped queries"),
        ("only neighbours matter", "a window, with sinks"), ("few pairs must be kept", "linear attention")])


def step_broken_on_purpose(experiment: LongExperiment):
    """Broken on purpose

    The table shows which check each mistake fails.
    """
    return check_mistakes(OURS, *GRADED.values())


def step_what_next(experiment: LongExperiment):
    """What now?

    Read: join and TiledAttention, then linear_attention.

    Change: (1) In tile_scores leave out the two lines that return None: products in step 7 grow (✗). (2) In
    QuantisedCache.quantised replace round() with trunc() (✗). (3) --pairs 48: which attention recalls them?

    Lessons 5, 8 and 10 train with --attention tiled, grouped, window or linear. Write it yourself:
    --template my_tiles.py, then --grade my_tiles.py.
    """


# ------------------------------------------------------------------ the command line


def main():
    parser = lesson_parser(__doc__, GRADED)
    parser.add_argument("--pairs", type=int, default=32, help="pairs to recall, 4 to 128 (default: 32)")
    add_device(parser)
    options = parser.parse_args()
    try:
        experiment = LongExperiment(options)
    except ValueError as error:
        parser.error(str(error))
    steps = [
        step_six_tables, step_two_halves, step_tiles, step_one_number_per_row, step_bytes_moved,
        step_the_kernel, step_rules, step_low_rank, step_linear_is_an_rnn, step_random_features,
        step_trained_heads, step_recall, step_recompute, step_smaller_caches, step_packing, step_which_when,
        step_broken_on_purpose, step_what_next]
    narrate(options, __doc__, steps, experiment)


if __name__ == "__main__":
    main()

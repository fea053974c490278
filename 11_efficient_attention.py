"""Lesson 11. What if the sequence is long?

Attention compares every token with every token: for n tokens a table of n × n scores. What can be saved, and
at what cost? There are two kinds of savings:

    the same numbers, computed in another way      tiles, rules, recomputing, packing
    other numbers that cost less                   windows, feature maps, low rank, smaller caches

The second kind loses accuracy, and how much depends on the head. So each approximation is tried on trained
heads: those of lesson 5's model (without its checkpoint it is trained now, in half a minute), and small ones
that have to remember. Products and bytes are counted; times are shown as ratios only.
"""

import argparse
import course.console.startup  # noqa: F401 (before torch: it hears what fails in the imports below)
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
from course.training.attentions import layer_of, replaced_by
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
from course.training.recall import HEADS, WIDTH, latest_task, recall_task, recalled
from course.training.side_by_side import side_by_side
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

__all__ = ["ATTENTIONS", "LinearState", "LinformerAttention", "PackedTransformer", "QuantisedCache", "Rule",
           "WindowCache", "blocks", "both", "causal", "directions", "either", "first", "linear_attention",
           "pack", "positive_features", "same", "tiled_attention", "window"]

# ------------------------------------------------------------------ rules: masks without a table


Rule = Callable[[Tensor, Tensor], Tensor]  # positions of queries (T, 1) and keys (1, S) → may attend (…, T, S)


def causal(i: Tensor, j: Tensor) -> Tensor:
    """The query at position i may attend to the keys at positions 0 … i."""
    return j <= i


def window(width: int) -> Rule:
    """The query's own key and the width − 1 before it. ValueError for a width below 1."""
    check_range("width", width, 1)
    return lambda i, j: (j <= i) & (i - j < width)


def first(count: int) -> Rule:
    """The first `count` keys, except those in the query's future."""
    return lambda i, j: (j <= i) & (j < count)


def same(ids: Tensor) -> Rule:
    """Keys with the query's id; ids (…, L). ValueError for a position without an id."""

    def rule(i: Tensor, j: Tensor) -> Tensor:
        refuse_outside(ids.shape[-1], i, j)
        return ids[..., i] == ids[..., j]

    return rule


def blocks(table: Tensor, size: int) -> Rule:
    """Blocks of size × size, as a boolean table (blocks, blocks) says. ValueError outside of it."""
    check_range("size", size, 1)

    def rule(i: Tensor, j: Tensor) -> Tensor:
        refuse_outside(len(table) * size, i, j)
        return table[i // size, j // size]

    return rule


def either(*rules: Rule) -> Rule:
    """What at least one of the rules allows."""
    return lambda i, j: torch.stack(torch.broadcast_tensors(*(rule(i, j) for rule in rules))).any(0)


def both(*rules: Rule) -> Rule:
    """What all of the rules allow."""
    return lambda i, j: torch.stack(torch.broadcast_tensors(*(rule(i, j) for rule in rules))).all(0)


def table_of(rule: Rule, n_queries: int, n_keys: int) -> Tensor:
    """The rule as a mask (…, T, S); fewer queries than keys are the last."""
    return rule(torch.arange(n_keys - n_queries, n_keys)[:, None], torch.arange(n_keys)[None])


# ------------------------------------------------------------------ exact attention, in tiles


class Running(NamedTuple):
    """What is known of each query's softmax after some of the keys."""

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
    """The scores of a tile, −∞ where hidden; None if all are."""
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
                weights = torch.exp(scores - log_sum[..., rows, :])  # the softmax, from one number per row
                grad_weights = slopes[..., rows, :] @ value[..., columns, :].mT
                grad_scores = weights * (grad_weights - mean[..., rows, :]) / root
                grad_query[..., rows, :] += grad_scores @ key[..., columns, :]
                grad_key[..., columns, :] += grad_scores.mT @ query[..., rows, :]
                grad_value[..., columns, :] += weights.mT @ slopes[..., rows, :]
        return *grads, None, None


def tiled_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | Rule | None = None,
                    dropout: float = 0.0, tile: int = 256) -> Tensor:
    """scaled_dot_product_attention() that holds tile × tile scores at a time.

    query (…, T, K), key (…, S, K), value (…, S, any) → output (…, T, any). mask: lesson 1's, or a rule, under
    which fewer queries than keys are the last. Hidden tiles are skipped. Halves are computed in float32; with
    dropout lesson 1's lines run. ValueError for a tile below 1 and a mask that doesn't fit, TypeError for one
    that isn't boolean.
    """
    check_range("tile", tile, 1)
    T, S, shape = query.shape[-2], key.shape[-2], torch.broadcast_shapes(query.shape[:-2], key.shape[:-2])
    i = torch.arange(S - T, S, device=query.device)[:, None]
    j = torch.arange(S, device=query.device)[None]
    if isinstance(mask, Tensor):
        mask = fitted(boolean(mask), (*shape, T, S))
    if dropout:
        return scaled_dot_product_attention(query, key, value, mask(i, j) if callable(mask) else mask, dropout)

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


def divided(weighted: Tensor, total: Tensor) -> Tensor:
    """weighted / total; 0 where a query sees nothing."""
    return weighted / total.clamp(min=torch.finfo(torch.float32).tiny)


class LinearState:
    """Causal linear attention, a token at a time."""

    def __init__(self, feature: Callable[[Tensor], Tensor] = elu_plus_one):
        self.feature = feature
        self.weighted: Tensor | float = 0.0  # Σ φ(k)·vᵀ, (…, features, any)
        self.total: Tensor | float = 0.0  # Σ φ(k), (…, features, 1)

    def add(self, key: Tensor, value: Tensor) -> None:
        """Keys (…, S, K) and values (…, S, any)."""
        features = self.feature(key).mT
        self.weighted = self.weighted + features @ value
        self.total = self.total + features.sum(-1, keepdim=True)

    def step(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Query and key (…, 1, K), value (…, 1, any) → output (…, 1, any)."""
        self.add(key, value)
        features = self.feature(query)
        return divided(features @ self.weighted, features @ self.total)

    def bytes(self) -> int:
        return self.weighted.nbytes + self.total.nbytes


def linear_attention(query: Tensor, key: Tensor, value: Tensor, causal: bool = True,
                     feature: Callable[[Tensor], Tensor] = elu_plus_one, chunk: int = 64) -> Tensor:
    """Σ (φ(q)·φ(k)) v / Σ φ(q)·φ(k), with positive features φ (Katharopoulos et al. 2020, section 3.2).

    query (…, T, K), key (…, S, K), value (…, S, any) → output (…, T, any). causal: fewer queries than keys are
    the last; inside a chunk a table is used. A query without keys gets 0. Halves are computed in float32.
    ValueError for a chunk below 1.
    """
    check_range("chunk", chunk, 1)
    kind, T, S = torch.promote_types(query.dtype, torch.float32), query.shape[-2], key.shape[-2]
    queries, keys = (feature(x.to(kind)) for x in (query, key))
    values = value.to(kind)
    if not causal:
        total = queries @ keys.sum(-2)[..., None]
        return divided(queries @ (keys.mT @ values), total).to(query.dtype)
    blind, early = max(0, T - S), max(0, S - T)  # queries before all keys; keys before all queries
    state = LinearState(feature=lambda x: x)
    state.add(keys[..., :early, :], values[..., :early, :])
    outputs = [torch.zeros_like(queries[..., :blind, :1] * values[..., :1, :].sum(-2, keepdim=True))]
    for rows in tiles(T - blind, chunk):
        q, k, v = (x[..., start:, :][..., rows, :]
                   for x, start in ((queries, blind), (keys, early), (values, early)))
        near = (q @ k.mT).tril()  # (…, chunk, chunk)
        outputs.append(divided(q @ state.weighted + near @ v, q @ state.total + near.sum(-1, keepdim=True)))
        state.add(k, v)
    return torch.cat(outputs, -2).to(query.dtype)


def directions(count: int, width: int, orthogonal: bool = True, generator: torch.Generator | None = None
               ) -> Tensor:
    """(count, width) random normal directions; in each block of `width` rows they are at right angles."""
    check_range("count", count, 1)
    normal = torch.randn(count, width, generator=generator)
    if not orthogonal:
        return normal
    parts = [torch.linalg.qr(torch.randn(width, width, generator=generator))[0] for _ in range(0, count, width)]
    return torch.cat(parts)[:count] * normal.norm(dim=1, keepdim=True)


def positive_features(x: Tensor, w: Tensor) -> Tensor:
    """e^(w·x′ − |x′|²/2) / √m with x′ = x / d_k^¼ (Choromanski et al. 2021, lemma 1).

    x (…, L, K) and directions w (m, K) → (…, L, m). The mean of φ(q)·φ(k) over w is e^(q·k/√d_k). Halves come
    back as float32, whose range they need.
    """
    x = x.to(torch.promote_types(x.dtype, torch.float32)) / x.shape[-1] ** 0.25
    return torch.exp(x @ w.to(x.dtype).mT - x.square().sum(-1, keepdim=True) / 2) / math.sqrt(len(w))


# ------------------------------------------------------------------ layers that approximate


class LinformerAttention(MultiHeadAttention):
    """A learned map mixes up to `length` keys and values into `rank` (Wang et al. 2020).

    ValueError for more keys, and for a mask: it can't hide what is mixed.
    """

    def __init__(self, d_model: int, n_heads: int, length: int, rank: int, dropout: float = 0.0):
        super().__init__(d_model, n_heads, dropout)
        self.mix_keys = nn.Parameter(torch.randn(rank, length) / math.sqrt(rank))
        self.mix_values = nn.Parameter(torch.randn(rank, length) / math.sqrt(rank))

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        (_, length), n_keys = self.mix_keys.shape, keys.shape[-2]
        if n_keys > length:
            raise ValueError(f"{n_keys} keys are more than the {length} that the map was made for")
        if mask is not None:
            raise ValueError(f"a mask {tuple(mask.shape)} can't hide keys that are mixed")
        keys, values = self.mix_keys[:, :n_keys] @ keys, self.mix_values[:, :n_keys] @ values
        return super().attend(queries, keys, values, None)


def near_attention(query, key, value, mask=None, dropout: float = 0.0, width: int = 8) -> Tensor:
    """Attention to the width − 1 tokens on each side, as far as the mask allows."""
    band = table_of(lambda i, j: (i - j).abs() < width, query.shape[-2], key.shape[-2]).to(query.device)
    return fused_attention(query, key, value, band if mask is None else band & mask, dropout)


def masked_linear_attention(query, key, value, mask=None, dropout: float = 0.0, feature=elu_plus_one) -> Tensor:
    """linear_attention() under lesson 5's masks: one row hides keys, several rows are causal."""
    queries, keys = feature(query), feature(key)
    causal = mask is not None and mask.shape[-2] > 1
    if mask is not None and not causal:
        keys = keys * mask.mT
    return linear_attention(queries, keys, value, causal, feature=lambda x: x)


own_attention = partial(layer_of, RotaryAttention)  # a function → a self-attention with it inside


# ------------------------------------------------------------------ caches that keep less


class WindowCache(KeyValueCache):
    """Keeps the first `sinks` keys and values, and the latest `width`."""

    def __init__(self, attention: nn.Module, width: int, sinks: int = 0):
        check_range("width", width, 1)
        check_range("sinks", sinks, 0)
        super().__init__(attention)
        self.width, self.sinks = width, sinks

    def append(self, keys: Tensor, values: Tensor) -> None:
        super().append(keys, values)
        self.keys, self.values = self.kept(self.keys), self.kept(self.values)

    def kept(self, x: Tensor) -> Tensor:
        late = max(self.sinks, x.shape[2] - self.width)
        return torch.cat([x[:, :, : self.sinks], x[:, :, late:]], dim=2)


class QuantisedCache(KeyValueCache):
    """Keeps round(x / scale) of keys and values in `bits` bits, with a scale per vector in half precision.

    scale = the vector's largest number / the largest integer. ValueError unless 2 ≤ bits ≤ 8.
    """

    def __init__(self, attention: nn.Module, bits: int = 8):
        check_range("bits", bits, 2, 8)
        super().__init__(attention)
        self.top = 2 ** (bits - 1) - 1
        self.parts: list[Tensor] = []  # integers and scales of keys, of values

    def append(self, keys: Tensor, values: Tensor) -> None:
        new = [*self.quantised(keys), *self.quantised(values)]
        self.parts = [torch.cat(pair, dim=2) for pair in zip(self.parts, new)] or new
        self.kind = keys.dtype

    def quantised(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (…, K) → integers (…, K) and scales (…, 1)."""
        scale = (x.float().abs().amax(-1, keepdim=True) / self.top).clamp(max=65504).half()
        whole = (x / scale.float().clamp(min=1e-8)).round().clamp(-self.top, self.top)
        return whole.to(torch.int8), scale

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        self.append(keys, values)
        whole_keys, key_scales, whole_values, value_scales = self.parts
        keys, values = whole_keys * key_scales.to(self.kind), whole_values * value_scales.to(self.kind)
        return type(self.attention).attend(self.attention, queries, keys, values, mask)

    def reorder(self, rows: Tensor) -> None:
        self.parts = [part.index_select(0, rows) for part in self.parts]

    def bytes(self) -> int:
        return sum(part.nbytes for part in self.parts)


# ------------------------------------------------------------------ several sequences in one row


class Packed(NamedTuple):
    """Several sequences per row, (R, width) each."""

    tokens: Tensor
    ids: Tensor  # which sequence of the row: 1, 2, …; 0 is padding
    positions: Tensor  # each sequence counts from 0


def pack(sequences: Sequence[Sequence[int]], width: int) -> Packed:
    """Lists of ids, the longest first, each into the first row with room.

    ValueError if a row is shorter than the longest sequence.
    """
    return Packed(*lay(first_fit([*map(len, sequences)], width), sequences, width))


class PackedTransformer(Transformer):
    """Lesson 5's model; each sequence keeps its positions and sees only itself."""

    def forward(self, src, src_ids, src_positions, tgt, tgt_ids, tgt_positions) -> Tensor:
        """The fields of a PackedBatch but tgt_out → logits (R, width, V)."""

        def alike(queries: Tensor, keys: Tensor) -> Tensor:
            return queries[:, None, :, None] == keys[:, None, None, :]  # (R, 1, T, S)

        memory = self.encoder(self.embed(src, src_positions), alike(src_ids, src_ids))
        mask = alike(tgt_ids, tgt_ids) & self.tgt_mask(tgt.shape[1], tgt.device)
        x = self.decoder(self.embed(tgt, tgt_positions), memory, mask, alike(tgt_ids, src_ids))
        return self.embedding.logits(x)


ATTENTIONS = replaced_by(own_attention, GroupedQueryAttention, tiled_attention,  # --attention of lessons 5 and 8
                         lambda width: partial(near_attention, width=width), masked_linear_attention)
GRADED = {
    "tiled_attention": tiled_attention_checks,
    "window": window_checks,
    "linear_attention": linear_attention_checks,
    "positive_features": positive_features_checks,
    "QuantisedCache": quantised_cache_checks,
    "pack": pack_checks,
}
OURS = sys.modules[__name__]  # of whose parts the checks make the classic mistakes


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
LINES, TILES, KERNEL = "lesson 1's lines", "tiles of 128", "kernel"
WAYS = {LINES: scaled_dot_product_attention, TILES: partial(tiled_attention, tile=128), KERNEL: fused_attention}


def step_six_tables(experiment: LongExperiment):
    """Where the memory goes

    Lesson 1's lines hold tables of n × n numbers: scores, weights, and on the way back their gradients. Here
    every tensor is counted when it is made and when it is freed. The peak is the most that was alive at once,
    forward and backward, for one head of width 64. At the peak six tables are alive. So twice the length
    needs four times the memory.
    """
    peaks = [peak_bytes(there_and_back(scaled_dot_product_attention), *one_head(n)) for n in SIZES]
    rows = [(n, peak / MIB, peak / (4 * n * n)) for n, peak in zip(SIZES, peaks)]
    check("with 2,048 tokens six tables of n × n are alive at the peak, and little else", 6 <= rows[-1][2] < 6.1)
    power = fitted_exponent(SIZES, peaks)
    check("the peak grows with n²", 1.9 < power < 2.05, f"n^{power:.2f}")
    return table("n", "MiB at the peak", "tables of n × n", rows=rows)


@shows(join)
def step_two_halves(experiment: LongExperiment):
    """Two halves of a row join exactly

    A softmax needs the largest score of its row and the sum of the exponentials. Both can be found piece by
    piece: if a later piece has a larger score, multiply what was added up by e^(old − new) (online softmax,
    Milakov and Gimelshein 2018). So no row of scores has to exist as a whole. The table shows scores 2 and 1,
    then 5 and 3, with the values 10, 20, 30 and 40.
    """
    scores, values = torch.tensor([[2.0, 1, 5, 3]]), torch.tensor([[10.0], [20], [30], [40]])
    half = join(begin(scores, values), scores[:, :2], values[:2])
    both_halves = join(half, scores[:, 2:], values[2:])
    wanted = scores.softmax(-1) @ values
    check("both halves give the mean of the whole row",
          largest_difference(both_halves.mean / both_halves.total, wanted) < 1e-4, f"{wanted.item():.3f}")
    return table("", "largest", "total", "mean", "mean / total", rows=[
        (name, *(part.item() for part in seen), (seen.mean / seen.total).item())
        for name, seen in (("first half", half), ("both", both_halves))])


@shows(TiledAttention.forward)
def step_tiles(experiment: LongExperiment):
    """Tiles give the same numbers

    Cut queries and keys into tiles. For each tile of queries, join all tiles of keys. This is FlashAttention
    (Dao et al. 2022). What lesson 1 checks of attention holds in tiles of every size. For scores in the
    thousands the error, against float64, is about that of the lines and of PyTorch's kernel.
    """
    check_part(tiled_attention, tiled_attention_checks, OURS)
    query, key, value = one_head(512)
    exact = scaled_dot_product_attention(*(x.double() for x in (1000 * query, key, value)))
    errors = {name: largest_difference(way(1000 * query, key, value), exact) for name, way in WAYS.items()}
    check("the error of tiles is less than twice that of the lines", errors[TILES] < 2 * errors[LINES])
    return table("scores × 1000", "largest error", rows=errors.items())


@shows(TiledAttention.backward)
def step_one_number_per_row(experiment: LongExperiment):
    """One number per row is enough to go back

    Backward needs the weights. The lines keep them. The tiles keep one number per query, the logarithm of the
    sum of e^score over its row (log-sum-exp), and compute each weight again as e^(score − log-sum-exp). That
    takes one product more: seven per tile, forward and backward, instead of six.
    """
    inputs = one_head(512)
    lines, tiled = (multiplications_of(there_and_back(WAYS[name]), *inputs) for name in (LINES, TILES))
    check("tiles take exactly 7/6 of the products of the lines", 6 * tiled == 7 * lines)
    leaves = [x.requires_grad_() for x in inputs]
    kept = {name: bytes_kept(way, *leaves) / 4 / 512 for name, way in WAYS.items()}
    check("tiles keep the output, 64 numbers per query, and one number more", kept[TILES] == 65)
    return table("kept for backward", "numbers per query", rows=kept.items())


def formula(n: int, d: int, tile: int) -> int:
    """Bytes: queries, output and sums once; keys and values once per tile of queries."""
    return 4 * (2 * n * d + n + 2 * n * d * n // tile)


@shows(formula)
def step_bytes_moved(experiment: LongExperiment):
    """What pays is bytes moved

    Tiles compute more, and yet kernels made of tiles are faster, because memory delivers numbers more slowly
    than a processor multiplies them. A simulated fast memory of 256 KiB, from which the least recently used
    leaves, counts the bytes between it and the large memory. Larger tiles move fewer bytes, until a tile no
    longer fits: 128 × 128 scores take 64 KiB, their exponentials another 64.
    """
    inputs, sizes, cache = one_head(512), (16, 32, 64, 128), 256 * 1024
    moved = {tile: traffic(partial(tiled_attention, tile=tile), cache, *inputs) / MIB for tile in sizes}
    predicted = {tile: formula(512, 64, tile) / MIB for tile in sizes}
    lines = traffic(scaled_dot_product_attention, cache, *inputs) / MIB
    check("tiles that fit move what the formula says, within 10 %",
          all(predicted[tile] <= moved[tile] < 1.1 * predicted[tile] for tile in sizes[:3]))
    check("tiles of 128 don't fit: they move more than twice what the formula says, and more than tiles of 64",
          moved[128] > max(2 * predicted[128], moved[64]))
    figure = Picture("efficient_attention_traffic.png", drawing.draw_traffic(moved, predicted, lines),
                     "Larger tiles move fewer bytes, until one no longer fits into the fast memory")
    return table("tile", "MiB moved", "formula", rows=[
        *((tile, moved[tile], predicted[tile]) for tile in sizes), (LINES, lines, "")]), figure


def step_the_kernel(experiment: LongExperiment):
    """The kernel is the same idea

    PyTorch's attention, which all lessons train with, runs such tiles in one compiled function, and its memory
    grows with n only. A causal mask as a table takes that away again. The second table shows the time forward
    in this run: Python calls make small tiles slow.
    """
    ways = WAYS | {"kernel, causal table": lambda *x: fused_attention(*x, causal_mask(x[0].shape[-2]))}
    peaks = {name: [peak_bytes(there_and_back(way), *one_head(n)) / MIB for n in SIZES] for name, way in ways.items()}
    lines, tiled, kernel, masked = (fitted_exponent(SIZES[1:], found[1:]) for found in peaks.values())
    check("the peaks of tiles and kernel grow with n", max(tiled, kernel) < 1.1)
    check("the peaks of the lines, and of the kernel with a causal table, grow with n²", min(lines, masked) > 1.8)
    inputs = one_head(1024)
    gap = largest_difference(fused_attention(*inputs), scaled_dot_product_attention(*inputs))
    check("kernel and lines give the same output", gap < 1e-5, f"{gap:.0e}")
    timed = WAYS | {f"tiles of {tile}": partial(tiled_attention, tile=tile) for tile in (32, 512)}
    times = {name: seconds_of(way, *inputs) for name, way in timed.items()}
    return (table("MiB at the peak", *map(str, SIZES), rows=[(name, *found) for name, found in peaks.items()]),
            table("n = 1,024", "time", rows=[(name, f"{time / times[LINES]:.2g} ×") for name, time in times.items()]),
            Picture("efficient_attention_memory.png", drawing.draw_memory(SIZES, peaks),
                    "The table grows with n², the tiles with n"))


RULES = {"causal": causal, "window 64": window(64), "window 64, first 4": either(window(64), first(4)),
         "blocks on the diagonal": both(causal, blocks(torch.eye(8, dtype=torch.bool), 64)),
         "4 packed sequences": both(causal, same(torch.arange(512) // 128))}


@shows(causal, window, either)
def step_rules(experiment: LongExperiment):
    """Rules skip tiles

    A mask needs no table. A rule says of two positions whether one may attend to the other. Tiles that the
    rule hides as a whole are not computed; a tile that is hidden in part costs as much as a full one. The
    table shows what remains of 512 tokens in tiles of 64. Written as a table, a window saves nothing.
    """
    inputs, rows, gaps, exact = one_head(512), [], [], True
    for name, rule in RULES.items():
        mask = table_of(rule, 512, 512)
        products = multiplications_of(partial(tiled_attention, mask=rule, tile=64), *inputs) / (2 * 64 * 512**2)
        exact = exact and products == measuring.tiles_left(mask, 64)
        gaps.append(largest_difference(tiled_attention(*inputs, rule, tile=64), fused_attention(*inputs, mask)))
        rows.append((name, f"{products:.0%}", f"{mask.double().mean():.0%}"))
    check("each rule gives what its table gives", max(gaps) < 1e-5, f"{max(gaps):.0e}")
    check("only tiles with something visible are computed", exact)
    check_part(window, window_checks, OURS)
    return table("rule", "products computed", "pairs visible", rows=rows)


@shows(LinformerAttention.attend)
def step_low_rank(experiment: LongExperiment):
    """Low rank isn't causal

    Linformer mixes n keys and values into r with a learned map, so the table is n × r. Each mixed key holds a
    part of every token, also of the future, and no mask can hide that. How good can rank 16 be for 256
    tokens? The table shows the error of the best weights of that rank, for three draws: sharp weights have no
    low rank.
    """
    attention, (x,) = LinformerAttention(32, 2, length=16, rank=4).double(), random_tensors((1, 16, 32))
    other = torch.cat([x[:, :-1], x[:, -1:] + 1], 1)
    moved = largest_difference(*(attention(v, v, v)[:, 0] for v in (x, other)))
    check("another last token changes the first output", moved > 1e-4, f"by {moved:.0e}")
    errors = {size: measuring.rank_errors(size, 16) for size in (0.5, 4.0)}
    check("the error is more than twice as large for sharp weights", min(errors[4.0]) > 2 * max(errors[0.5]))
    return table("queries ×", "error of the best rank 16", rows=[
        (size, ", ".join(f"{error:.2f}" for error in found)) for size, found in errors.items()])


@shows(LinearState.add, LinearState.step)
def step_linear_is_an_rnn(experiment: LongExperiment):
    """Linear attention is an RNN

    Replace e^(q·k) by φ(q)·φ(k), with features φ that are positive: here elu(x) + 1. Then the sum over the
    keys, Σ φ(k)·vᵀ, can be taken before the query comes, and its size doesn't depend on the length. Token by
    token it is the state of an RNN. Training takes chunks, with a small table inside each.
    """
    query, key, value = random_tensors((130, 64), (130, 64), (130, 64))
    state = LinearState()
    stepped = torch.cat([state.step(*token) for token in zip(*(x.split(1) for x in (query, key, value)))])
    gap = largest_difference(stepped, linear_attention(query, key, value))
    check("token by token it gives the same as in chunks", gap < 1e-12, f"{gap:.0e}")
    check_part(linear_attention, linear_attention_checks, OURS)
    return table("tokens", "bytes of the state", "bytes of a cache", rows=[
        (n, state.bytes(), 2 * value[:1].nbytes * n) for n in (128, 1024, 4096)])


@shows(positive_features)
def step_random_features(experiment: LongExperiment):
    """Random features

    Performer's features (Choromanski et al. 2021) have e^(q·k/√d_k) as the mean of their products over random
    directions. With m independent directions the relative variance is (e^|x + y|² − 1) / m, where x and y are
    q and k divided by d_k^¼. It grows exponentially with the length of x + y, so sharp heads need far more
    features. Directions at right angles do better.
    """
    ratios = {size: [measuring.variance_ratio(positive_features, partial(directions, orthogonal=orthogonal), size)
                     for orthogonal in (False, True)] for size in (0.3, 0.5)}
    check("independent directions: the variance is that of the formula, within 15 %",
          all(abs(independent - 1) < 0.15 for independent, _ in ratios.values()))
    check("directions at right angles have a smaller variance", all(right < 0.9 * a for a, right in ratios.values()))
    check_part(positive_features, positive_features_checks, OURS)
    return table("numbers ×", "variance / formula", "at right angles", rows=[(n, *pair) for n, pair in ratios.items()])


@shows(masked_linear_attention)
def step_trained_heads(experiment: LongExperiment):
    """Blunt heads survive, sharp ones don't

    Replace the attention of lesson 5's trained heads, train nothing, and count the answers that are still
    right, with teacher forcing. The spread is the largest standard deviation of their scores. The encoder's
    scores are blunt: feature maps do, but a window doesn't, because these heads look at all tokens. The
    cross-attention picks one digit; its scores are sharp, and nothing here can replace it. (Of random features
    the worst of three draws counts.)
    """
    model, batch, right = experiment.model, experiment.batch(100), {}
    draws = [directions(64, 16, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
    maps = elu_plus_one, *(partial(positive_features, w=w) for w in draws)
    elu, *random = (partial(masked_linear_attention, feature=feature) for feature in maps)
    ways = {"elu + 1": [elu], "64 random features": random, "window ± 4": [partial(near_attention, width=5)]}
    for heads in ("encoder", "self_attention", "cross_attention"):
        right[heads] = {way: min(measuring.right_with(model, batch, heads, one) for one in some)
                        for way, some in ways.items()}
    encoder, own, cross = ([*some.values()] for some in right.values())
    check("encoder: over 95 % with both feature maps, less than 70 % with the window",
          min(encoder[:2]) > 0.95 > 0.7 > encoder[2])
    check("all self-attention: 64 random features keep at least 10 % more than elu + 1", own[1] > own[0] + 0.1)
    check("cross-attention: less than 30 % with any of them", max(cross) < 0.3)
    spreads = {heads: measuring.score_spread(model, batch, heads) for heads in right}
    return table("answers right", "spread", *ways, rows=[
        (heads, spreads[heads], *(f"{share:.0%}" for share in some.values())) for heads, some in right.items()]), \
        Picture("efficient_attention_heads.png", drawing.draw_heads(spreads, right),
                "Blunt heads survive a feature map, sharp ones don't")


def step_recall(experiment: LongExperiment):
    """What a state can remember

    Read pairs of key and value, then give the value of each key, asked in another order (chance: 1 of 16).
    One block with 4 heads of width 16 is trained for 250 steps, with three seeds. Softmax recalls all 32
    pairs. elu + 1 has 16 features per head: its state holds 16 pairs, but not 32. 64 random features hold
    more. A window of 16 tokens can't look back far enough, but suffices if only the latest four pairs are
    asked for.
    """
    pairs, seeds = experiment.options.pairs, [torch.initial_seed() + more for more in range(3)]
    feature = partial(positive_features, w=directions(64, WIDTH // HEADS))
    softmax, near, linear, random = map(own_attention, (
        fused_attention, partial(near_attention, width=16), masked_linear_attention,
        partial(masked_linear_attention, feature=feature)))
    kinds = {"softmax": (softmax, recall_task, pairs), "64 random features": (random, recall_task, pairs),
             "elu + 1": (linear, recall_task, pairs), "elu + 1, half the pairs": (linear, recall_task, pairs // 2),
             "window 16": (near, recall_task, pairs), "window 16, latest four": (near, latest_task, pairs)}
    results = iter(side_by_side([partial(recalled, EncoderBlock, SinusoidalPositionalEncoding, *kind, seed)
                                 for kind in kinds.values() for seed in seeds]))
    found = {name: [next(results) for _ in seeds] for name in kinds}
    softmax, random, elu, half, far, latest = found.values()
    if pairs == 32:
        check("every seed: softmax recalls 32 pairs, elu + 1 recalls 16", min(softmax + half) > 0.98)
        check("every seed: of 32 pairs elu + 1 recalls less than 90 %, 64 random features more than elu + 1",
              max(elu) < 0.9 and all(a > b for a, b in zip(random, elu)))
        check("every seed: a window of 16 recalls less than 15 %, but of the latest four over 98 %",
              max(far) < 0.15 and min(latest) > 0.98)
    finding = "A state of 16 features holds 16 pairs, not 32" if pairs == 32 else f"Recall of {pairs} pairs"
    rows = [(name, *(f"{share:.0%}" for share in some)) for name, some in found.items()]
    return table("attention", *(f"seed {seed}" for seed in seeds), rows=rows), Picture(
        "efficient_attention_recall.png", drawing.draw_recall(found, 1 / 16), finding)


def step_recompute(experiment: LongExperiment):
    """Recomputing: one block per segment

    Backward needs every block's activations, c times its input. Keep only what enters each segment of s
    blocks, and compute a segment again when backward reaches it (Chen et al. 2016; --recompute in lesson 5).
    At the peak N/s + c·s + 4 inputs are alive. If c were 1, s = √N would be best. But a block keeps far more,
    so one block per segment is best here. The price is one more forward pass, 4/3 of the products. Dropout
    has to drop the same numbers again, so the random state is kept.
    """
    depth, x = 16, torch.randn(2, 64, WIDTH)
    blocks = nn.ModuleList(EncoderBlock(WIDTH, HEADS, 4 * WIDTH, 0.1) for _ in range(depth))
    c = measuring.activations_kept(blocks[0], x)
    runs = {size: measuring.in_segments(blocks, x, size) for size in (0, 1, 2, 4, 8, 16)}
    predicted = {size: depth / size + c * size + 4 for size in runs if size}
    check("each peak is the formula's, within 2 %",
          all(abs(runs[size].peak / inputs - 1) < 0.02 for size, inputs in predicted.items()), f"c = {c:.1f}")
    kept, once = runs[0], runs[1]
    check("recomputing takes exactly 4/3 of the products", 3 * once.products == 4 * kept.products)
    check("the gradients are the same, bit for bit",
          all(torch.equal(run.gradients, kept.gradients) for run in runs.values()))
    other = measuring.in_segments(blocks, x, 1, keep_random_state=False).gradients - kept.gradients
    off = (other.norm() / kept.gradients.norm()).item()
    check("without the random state the gradients are off by more than 5 %", off > 0.05, f"{off:.0%}")
    return table("blocks per segment", "peak, in inputs", "formula", rows=[
        (size or "all kept", run.peak, predicted.get(size, "")) for size, run in runs.items()]), Picture(
        "efficient_attention_recompute.png", drawing.draw_recompute(runs, predicted), "One block per segment, not √N")


@shows(WindowCache.kept, QuantisedCache.quantised)
def step_smaller_caches(experiment: LongExperiment):
    """Smaller caches

    Lesson 6's cache is most of the memory of long answers. It can hold integers of 8 bits, with one scale per
    vector. It can hold the latest keys only, better with the first ones, called sinks (Xiao et al. 2024). And
    groups of heads can share keys and values (lesson 10), which changes the model. Lesson 5's model answers:
    8 bits change nothing, 2 bits ruin it, and a few sinks are worth more than as many recent keys.
    """
    answers = partial(measuring.answers_with, CachedDecoding, greedy_decode, exactly_right, experiment.model,
                      experiment.batch(300))
    whole, whole_size = answers(KeyValueCache, KeyValueCache)
    bits = {n: answers(*[partial(QuantisedCache, bits=n)] * 2) for n in (8, 4, 3, 2)}
    sinks = {(n, late): answers(partial(WindowCache, width=late, sinks=n), KeyValueCache)
             for n, late in ((0, 8), (1, 7), (4, 4), (0, 4), (1, 3))}
    right = {kept: share for kept, (share, _) in sinks.items()}
    check("8 bits: no fewer answers right, in less than 30 % of the bytes",
          bits[8][0] >= whole and bits[8][1] < 0.3 * whole_size, f"{bits[8][1] / whole_size:.0%}")
    check("2 bits: less than half as many answers right", bits[2][0] < 0.5 * whole)
    check("8 and 4 keys: at least 10 % more answers right if the first keys are among them",
          min(right[1, 7], right[4, 4]) > right[0, 8] + 0.1 and right[1, 3] > right[0, 4] + 0.1)
    check_part(QuantisedCache, quantised_cache_checks, OURS)
    groups = measuring.through_the_cache(GroupedQueryAttention, KeyValueCache, WIDTH, HEADS)
    check("groups give the same through the cache as at once", max(gap for _, gap in groups.values()) < 1e-12)
    rows = [("all", whole, whole_size), *((f"{n} bits", *found) for n, found in bits.items()),
            *((f"first {n}, latest {late} of the answer", *found) for (n, late), found in sinks.items())]
    return (table("kept", "answers right", "KiB per answer", rows=rows),
            table("groups", "bytes per token", rows=[(count, size) for count, (size, _) in groups.items()]),
            Picture("efficient_attention_cache.png", drawing.draw_caches(sinks),
                    "Four sinks are worth more than four recent tokens"))


@shows(PackedTransformer.forward)
def step_packing(experiment: LongExperiment):
    """Packing sequences of uneven length

    A batch is as wide as its longest sequence. Batches by length (lesson 8) waste less, and packing several
    sequences into one row least. Each sequence needs its own positions, and must see only itself. Then lesson
    5's trained model has the same loss and gradients on packed rows as on padded ones, and the engine takes
    the same steps. If one of the two is missing the loss shows it, nothing else does.
    """
    lengths = [min(120, 4 + int(x)) for x in torch.empty(256).exponential_(1 / 20)]
    waste = {"random batches of 32": padding(lengths, 32), "batches by length": padding(sorted(lengths), 32),
             "rows of 128": 1 - sum(lengths) / 128 / len(first_fit(lengths, 128))}
    random, sorted_, rows = waste.values()
    check("batches by length waste less than random ones; rows of 128 least, below 10 %", 0.1 > rows < sorted_ < random)
    sizes, padded = TransformerConfig(), experiment.batch(64)
    packed = pack_batch(padded, 64)
    of_weights = partial(measuring.loss_and_gradients, weights=experiment.model.state_dict(), loss_of=fused_sequence_loss)
    loss, slopes = of_weights(Transformer(sizes), batch=padded)
    found = {name: of_weights(PackedTransformer(sizes), batch=rows) for name, rows in without_separation(packed).items()}
    gap = largest_difference(found["packed"][1], slopes)
    check("packed rows have the loss and the gradients of the padded batch", gap < 1e-10, f"{gap:.0e}")
    check("positions that go on, or sequences that see each other, make the loss over 10 times as large",
          min(wrong for wrong, _ in [*found.values()][1:]) > 10 * loss)
    steps = [measuring.first_losses(partial(kind, sizes), sequence_job, TrainingConfig(steps=10), batch)
             for kind, batch in ((Transformer, padded), (PackedTransformer, packed))]
    check("ten steps of the engine have the same losses", max(abs(a - b) for a, b in zip(*steps)) < 1e-4)
    check_part(pack, pack_checks, OURS)
    return (table("256 sequences of 4 to 120", "padding", rows=[(n, f"{part:.1%}") for n, part in waste.items()]),
            table("lesson 5's model", "loss", rows=[("padded", loss), *((n, x) for n, (x, _) in found.items())]))


def step_which_when(experiment: LongExperiment):
    """Which one, and when?

    First what changes no number: the kernel, rules, recomputing, packing. Then caches of 8 bits, and groups.
    Approximations last, trained from the beginning, on a task that tests their memory. The table compares
    one causal head with lesson 1's lines, forward.
    """
    inputs, mask = one_head(1024), causal_mask(1024)
    ways = {LINES: lambda *x: scaled_dot_product_attention(*x, mask), TILES: lambda *x: WAYS[TILES](*x, causal),
            "tiles, window 128": lambda *x: WAYS[TILES](*x, window(128)), "linear, elu + 1": linear_attention}
    exact = ways[LINES](*inputs)
    found = {name: (multiplications_of(way, *inputs), peak_bytes(way, *inputs), (way(*inputs) - exact).norm()
                    / exact.norm()) for name, way in ways.items()}
    products, peak, _ = found[LINES]
    check("tiles have no error, window and feature map one of over 5 %",
          found[TILES][2] < 1e-5 and min(error for _, _, error in [*found.values()][2:]) > 0.05)
    return table("n = 1,024", "products", "peak", "error", rows=[
        (name, f"{a / products:.0%}", f"{b / peak:.0%}", f"{error:.0%}") for name, (a, b, error) in found.items()])


def step_broken_on_purpose(experiment: LongExperiment):
    """Broken on purpose

    Each mistake runs without an error and gives the right shapes. The table shows which check it fails.
    """
    return check_mistakes(OURS, *GRADED.values())


def step_what_next(experiment: LongExperiment):
    """What now?

    Read: join and TiledAttention, then linear_attention.

    Change: (1) In tile_scores leave out the two lines that return None: the result stays, the products of
    step 7 grow (✗). (2) In QuantisedCache.quantised let amax run over all numbers: checks fail (✗). (3) --pairs
    48: who still remembers?

    Train with them: lessons 5 and 8 with --attention tiled, grouped, window or linear. Measure them: python -m
    benchmarks.attention. Write it yourself: --template my_attention.py, then --grade my_attention.py.
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
        step_six_tables, step_two_halves, step_tiles, step_one_number_per_row, step_bytes_moved, step_the_kernel,
        step_rules, step_low_rank, step_linear_is_an_rnn, step_random_features, step_trained_heads, step_recall,
        step_recompute, step_smaller_caches, step_packing, step_which_when, step_broken_on_purpose, step_what_next]
    narrate(options, __doc__, steps, experiment)


if __name__ == "__main__":
    main()

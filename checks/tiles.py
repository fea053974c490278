"""What must hold for lesson 11's attention in tiles and its window; checks/linear.py has linear attention."""

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from checks.attention import drops_weights
from course.console.measuring import bytes_kept, multiplications_of
from course.console.records import Finding
from course.grading.checking import (
    Mistake,
    Part,
    agree,
    at,
    gradients,
    random_tensors,
    refused,
    together,
)

OUTPUT = "batch, head, query, number"


def causal_rule(i: Tensor, j: Tensor) -> Tensor:
    return j <= i


def blind_rule(i: Tensor, j: Tensor) -> Tensor:
    """Causal, but the queries at positions 1, 6 and 11 see nothing."""
    return (j <= i) & (i % 5 != 1)


def near_rule(i: Tensor, j: Tensor) -> Tensor:
    """The last four keys, a rule that hides whole tiles."""
    return (j <= i) & (i - j < 4)


def mask_of(rule, n_queries: int, n_keys: int) -> Tensor:
    return rule(torch.arange(n_keys - n_queries, n_keys)[:, None], torch.arange(n_keys)[None])


def problem(n_queries: int = 12, n_keys: int = 12, seed: int = 0) -> list[Tensor]:
    """Query (2, 3, T, 8), key (2, 3, S, 8), value (2, 3, S, 5) in float64."""
    return random_tensors((2, 3, n_queries, 8), (2, 3, n_keys, 8), (2, 3, n_keys, 5), seed=seed)


def expected(inputs: list[Tensor], mask: Tensor | None = None) -> Tensor:
    return F.scaled_dot_product_attention(*inputs, attn_mask=mask)


# ------------------------------------------------------------------ tiled_attention(query, key, value, mask)


def equals_pytorch_in_tiles(tiled, ours):
    """In tiles of 1, 4 and 128 the output equals PyTorch's, with any leading dimensions."""
    problems = problem(), [x[0, 0] for x in problem()], [x[0] for x in problem(7, 12)]
    return together(*(at(f"query {tuple(given[0].shape)}, tile={tile}",
                         agree(tiled(*given, tile=tile), expected(given), 1e-12))
                      for given in problems for tile in (1, 4, 128)))


def last_tile_may_be_shorter(tiled, ours):
    """12 keys in tiles of 5 are all used: the last tile is shorter."""
    return agree(tiled(*problem(), tile=5), expected(problem()), 1e-12, axes=OUTPUT)


def takes_masks(tiled, ours):
    """A boolean mask of every shape hides what it hides in PyTorch."""
    generator = torch.Generator().manual_seed(0)
    shapes = (2, 3, 12, 12), (2, 1, 1, 12), (12, 12), (12,)
    masks = [(torch.rand(shape, generator=generator) < 0.5).index_fill(-1, torch.tensor(2), True)
             for shape in shapes]
    return together(*(at(f"mask {tuple(mask.shape)}",
                         agree(tiled(*problem(), mask, tile=5), expected(problem(), torch.atleast_2d(mask)),
                               1e-12, axes=OUTPUT)) for mask in masks))


def takes_rules(tiled, ours):
    """A rule gives the same output as its table."""
    rules = {"causal": causal_rule, "the last four": near_rule, "the future": lambda i, j: j >= i}
    return together(*(at(name, agree(tiled(*problem(), rule, tile=5),
                                     expected(problem(), mask_of(rule, 12, 12)), 1e-12, axes=OUTPUT))
                      for name, rule in rules.items()))


def fewer_queries_are_the_last(tiled, ours):
    """Under a rule, T queries with S keys are at the last T positions."""
    return agree(tiled(*problem(3), causal_rule, tile=4), expected(problem(3), mask_of(causal_rule, 3, 12)),
                 1e-12, axes=OUTPUT)


def blind_query_gets_zero(tiled, ours):
    """A query that sees nothing gets exactly 0, under a rule and under a mask."""
    findings = []
    for mask in (blind_rule, mask_of(blind_rule, 12, 12)):
        found = tiled(*problem(), mask, tile=4)
        findings += [agree(found[..., 1::5, :], torch.zeros(2, 3, 3, 5), 0),
                     agree(found, expected(problem(), mask_of(blind_rule, 12, 12)), 1e-12)]
    return together(*findings)


def survives_large_scores(tiled, ours):
    """Scores in the thousands don't overflow in float32."""
    query, key, value = problem(seed=4)
    exact = expected([2000 * query, key, value])
    return agree(tiled((2000 * query).float(), key.float(), value.float(), tile=4), exact, 1e-2)


def gradients_equal_pytorch(tiled, ours):
    """The gradients of query, key and value equal PyTorch's, even with a blind query and a short tile."""
    findings = []
    for rule, queries, tile in ((blind_rule, 12, 4), (near_rule, 12, 5), (causal_rule, 3, 5)):
        leaves = [x.requires_grad_() for x in problem(queries)]
        found = tiled(*leaves, rule, tile=tile).sin().sum()
        wanted = expected(leaves, mask_of(rule, queries, 12)).sin().sum()
        findings.append(agree(gradients(found, leaves), gradients(wanted, leaves)))
    return together(*findings)


def skips_hidden_tiles(tiled, ours):
    """Tiles that a rule hides as a whole are not computed."""
    inputs = random_tensors((64, 8), (64, 8), (64, 8))
    products = multiplications_of(lambda *x: tiled(*x, near_rule, tile=8), *inputs)
    wanted = 15 * 2 * 8 * 8 * 8  # of 64 tiles the 8 on the diagonal, and the 7 before them
    finding = agree(torch.tensor(products), torch.tensor(wanted), 0)
    hint = f"{wanted:,} are needed: look at a tile's mask before its scores are computed"
    return finding._replace(figure=f"{products:,} products", gap=None,
                            diagnosis=finding.diagnosis and hint)


def keeps_no_table(tiled, ours):
    """For the backward pass it keeps a few numbers per token, not n² scores."""
    inputs = [x.requires_grad_() for x in random_tensors((256, 8), (256, 8), (256, 8))]
    kept = bytes_kept(lambda *x: tiled(*x, tile=32), *inputs) / 8
    hint = "compute the scores of a tile again in backward: a torch.autograd.Function of your own"
    return Finding(kept <= 256 * (3 * 8 + 8 + 2), f"{kept:,.0f} numbers for 256 tokens", hint)


def halves_are_accumulated_in_float32(tiled, ours):
    """float16 and bfloat16 inputs give outputs of their type, accumulated in float32."""
    findings = []
    for kind, tolerance in ((torch.float16, 1e-3), (torch.bfloat16, 8e-3)):
        query, key, value = (x.to(kind) for x in random_tensors((4, 8), (512, 8), (512, 8)))
        found = tiled(query, key, value, tile=4)
        if found.dtype != kind:
            return Finding(False, f"{kind} came back as {found.dtype}", "convert the output back")
        exact = expected([x.double() for x in (query, key, value)])
        findings.append(at(str(kind), agree(found, exact, tolerance * exact.abs().max().item() / 2,
                                            "convert to float32 first: long 16-bit sums are rounded")))
    return together(*findings)._replace(gap=None)


def short_sequences(tiled, ours):
    """Sequences of length 0 and 1 work; without keys the output is 0."""
    findings = []
    for queries, keys in ((0, 0), (0, 3), (1, 0), (1, 1), (2, 1), (3, 0)):
        given = problem(queries, keys)
        for rule in (None, causal_rule):
            mask = None if rule is None else mask_of(rule, queries, keys)
            wanted = expected(given, mask) if keys else torch.zeros(2, 3, queries, 5)
            findings.append(at(f"{queries} queries, {keys} keys",
                               agree(tiled(*given, rule, tile=2), wanted, 1e-12)))
    return together(*findings)


def drops_weights_as_lesson_1(tiled, ours):
    """dropout=0.5 sets about half of the weights to 0 and doubles the others; dropout=0.2 sets a fifth."""
    return drops_weights(tiled, ours)


def refuses_empty_tiles(tiled, ours):
    """A tile below 1 and a mask that doesn't fit are refused with a ValueError that names the numbers."""
    return together(refused(lambda: tiled(*problem(), tile=0), 0),
                    refused(lambda: tiled(*problem(), torch.ones(5, 12, dtype=torch.bool)), 5, 12))


def in_a_loop(ours, joined=None, lowest=None, hidden=-math.inf, first_query=None, whole_tiles=False):
    """Attention over tiles of keys with one thing changed; autograd goes back through all of it."""

    def attention(query, key, value, mask=None, dropout=0.0, tile=256):
        T, S = query.shape[-2], key.shape[-2]
        start = S - T if first_query is None else first_query
        if callable(mask):
            mask = mask(torch.arange(start, start + T)[:, None], torch.arange(S)[None])
        scores = query @ key.mT / math.sqrt(query.shape[-1])
        scores = scores if mask is None else scores.masked_fill(~mask, hidden)
        least = torch.finfo(scores.dtype).min if lowest is None else lowest
        zeros = torch.zeros(*scores.shape[:-1], 1, dtype=scores.dtype)
        seen = ours.Running(zeros + least, zeros, zeros * value[..., :1, :].sum(-2, keepdim=True))
        for columns in ours.tiles(S - S % tile if whole_tiles else S, tile):
            seen = (joined or ours.join)(seen, scores[..., columns], value[..., columns, :])
        return seen.mean / (seen.total.clamp(min=1.0) if lowest is None else seen.total)

    return attention


def tile_maximum(seen, scores, value):
    """join() that forgets the largest score so far."""
    largest = scores.amax(-1, keepdim=True).clamp(min=torch.finfo(scores.dtype).min)
    shrink, exponentials = torch.exp(seen.largest - largest), torch.exp(scores - largest)
    return type(seen)(largest, seen.total * shrink + exponentials.sum(-1, keepdim=True),
                      seen.mean * shrink + exponentials @ value)


def not_shrunk(seen, scores, value):
    """join() that adds to what was relative to another maximum."""
    largest = torch.maximum(seen.largest, scores.amax(-1, keepdim=True))
    exponentials = torch.exp(scores - largest)
    total = seen.total + exponentials.sum(-1, keepdim=True)
    return type(seen)(largest, total, seen.mean + exponentials @ value)


class WithoutTheSum(torch.autograd.Function):
    """Right forward; backward takes e^(score − largest) for the weights, without the division."""

    @staticmethod
    def forward(ctx, query, key, value, mask):
        scores = query @ key.mT / math.sqrt(query.shape[-1])
        scores = scores if mask is None else scores.masked_fill(~mask, -math.inf)
        output = F.scaled_dot_product_attention(query, key, value, mask)
        ctx.save_for_backward(query, key, value, scores, output)
        return output

    @staticmethod
    def backward(ctx, slopes):
        query, key, value, scores, output = ctx.saved_tensors
        lowest = torch.finfo(scores.dtype).min
        weights = torch.exp(scores - scores.amax(-1, keepdim=True).clamp(min=lowest))
        inner = weights * (slopes @ value.mT - (output * slopes).sum(-1, keepdim=True))
        inner = inner / math.sqrt(query.shape[-1])
        return inner @ key, inner.mT @ query, weights.mT @ slopes, None


def tile_mistakes(ours):
    """The classic mistakes: loops over tiles with one thing changed."""

    def log_sum_forgotten(query, key, value, mask=None, dropout=0.0, tile=256):
        if callable(mask):
            mask = mask_of(mask, query.shape[-2], key.shape[-2])
        return WithoutTheSum.apply(query, key, value, mask)

    loop = partial(in_a_loop, ours)
    return {
        "maximum of the tile only": Mistake(
            "take the largest score of this tile and of all tiles before it", loop(joined=tile_maximum),
            "Scores in the thousands"),
        "maximum begins at −∞": Mistake(
            "begin the maximum at the lowest finite number: −∞ − (−∞) is undefined",
            loop(lowest=-math.inf), "A query that sees nothing"),
        "hidden scores are −1e9": Mistake(
            "hidden scores are −∞: −1e9 gives all keys equal weight where nothing is seen",
            loop(hidden=-1e9), "A query that sees nothing"),
        "queries counted from 0": Mistake(
            "with fewer queries than keys the first query is at position S − T",
            loop(first_query=0), "Under a rule, T queries"),
        "log of the sum forgotten": Mistake(
            "keep the largest score plus the logarithm of the sum: e^(score − that) is the weight",
            log_sum_forgotten, "The gradients of query"),
        "last tile left out": Mistake("the last tile may be shorter than the others", loop(whole_tiles=True),
                                      "12 keys in tiles of 5"),
    }


def more_tile_mistakes(ours):
    """Others that the lesson doesn't show."""

    def every_tile(query, key, value, mask=None, dropout=0.0, tile=256):
        if callable(mask):
            mask = mask_of(mask, query.shape[-2], key.shape[-2])
        return ours.scaled_dot_product_attention(query, key, value, mask, dropout)

    return {
        "every tile computed": Mistake("look at a tile's mask before its scores are computed", every_tile,
                                       "Tiles that a rule hides"),
        "not rescaled": Mistake("when the maximum grows, multiply what was added up by e^(old − new)",
                                in_a_loop(ours, joined=not_shrunk), "In tiles of 1, 4 and 128"),
        "mask ignored": Mistake(
            "the output is right without a mask: is the mask used?",
            lambda query, key, value, mask=None, dropout=0.0, tile=256: ours.tiled_attention(
                query, key, value, None, dropout, tile), "A rule gives the same"),
        "rule reversed": Mistake(
            "the rule is reversed: True means may attend",
            lambda query, key, value, mask=None, dropout=0.0, tile=256: ours.tiled_attention(
                query, key, value, (lambda i, j: ~mask(i, j)) if callable(mask) else mask, dropout, tile),
            "A rule gives the same"),
    }


tiled_attention_checks = Part(
    [equals_pytorch_in_tiles, last_tile_may_be_shorter, takes_masks, takes_rules,
     fewer_queries_are_the_last, blind_query_gets_zero, survives_large_scores, gradients_equal_pytorch,
     skips_hidden_tiles, keeps_no_table, halves_are_accumulated_in_float32, short_sequences,
     drops_weights_as_lesson_1, refuses_empty_tiles],
    tile_mistakes,
    "`mask` may be a rule: mask(i, j) with positions of queries (T, 1) and of keys (1, S) → boolean (T, S). "
    "Example: tiled_attention(query, key, value, lambda i, j: j <= i, tile=4).",
    more=more_tile_mistakes,
)


# ------------------------------------------------------------------ window(width)


POSITIONS = torch.arange(9)[:, None], torch.arange(9)[None]


def sees_the_latest(window, ours):
    """A window of w holds the query's own key and the w − 1 keys before it."""
    findings = []
    for width in (1, 3, 20):
        wanted = torch.tensor([[i - width < j <= i for j in range(9)] for i in range(9)])
        findings.append(at(f"width {width}", agree(window(width)(*POSITIONS).int(), wanted.int(), 0,
                                                   axes="query, key")))
    return together(*findings)


def knows_positions(window, ours):
    """It uses the positions that it is given, not their places in the table."""
    i, j = torch.tensor([[5], [7]]), torch.tensor([[3, 4, 5, 6, 7, 8]])
    wanted = torch.tensor([[0, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 0]])
    return agree(window(2)(i, j).int(), wanted, 0, axes="query, key")


def refuses_empty_windows(window, ours):
    """A width below 1 is refused with a ValueError that names the width."""
    return together(refused(lambda: window(0), 0), refused(lambda: window(-3), -3))


def window_mistakes(ours):
    def one_more(width):
        return ours.window(width + 1)

    def both_sides(width):
        return lambda i, j: (i - j).abs() < width

    return {"window + 1": Mistake("one key too many: w keys are at distances 0 to w − 1", one_more,
                                  "A window of w holds"),
            "the future is visible": Mistake("keys in the query's future are seen: j ≤ i", both_sides,
                                       "A window of w holds")}


def more_window_mistakes(ours):
    def without_itself(width):
        return lambda i, j: (j < i) & (i - j <= width)

    def by_place(width):
        return lambda i, j: ours.window(width)(torch.arange(len(i))[:, None], torch.arange(j.numel())[None])

    return {"own key hidden": Mistake("the query's own key belongs to the window", without_itself,
                                      "A window of w holds"),
            "by place": Mistake("use the positions i and j, not their places in the table", by_place,
                                "It uses the positions")}


window_checks = Part(
    [sees_the_latest, knows_positions, refuses_empty_windows], window_mistakes,
    "window(width) returns a rule: a function of the positions of queries (T, 1) and of keys (1, S), which "
    "says which query may attend to which key, boolean (T, S). Example: window(2)(torch.tensor([[5]]), "
    "torch.tensor([[4, 5]])).",
    more=more_window_mistakes,
)

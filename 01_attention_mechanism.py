"""Lesson 1. How does one token look at the others?

A token asks with its query, every token answers with its key; the better they match, the more of that
token's value flows into the answer:

    Attention(Q, K, V) = softmax(Q·Kᵀ / √d_k) · V

(“Attention Is All You Need”, Vaswani et al. 2017, section 3.2.1.) Queries, keys and values are three
learned linear maps of the tokens' vectors; lesson 2 adds them, until then they are given.

Sizes in shape comments, in every lesson: B batch, T target (query) length, S source (key) length,
L either, H heads, D d_model, K d_k = D / H, V vocabulary. Masks are boolean and True means “may
attend”; torch.nn.MultiheadAttention uses the reverse. Nothing comes before this lesson; lesson 2 puts
several attentions side by side.
"""

import math
import time

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
    fitted_exponent,
    gradients,
    heatmap,
    largest_difference,
    lesson_parser,
    mask_rows,
    narrate,
    numbers,
    prove,
    random_tensors,
    shape,
    shows,
    table,
)

__all__ = ["causal_mask", "padding_mask", "scaled_dot_product_attention", "softmax"]

SENTENCE = ["the", "cat", "sat", "on", "the", "mat"]
TRANSLATION = ["le", "chat", "était", "assis", "sur", "le", "tapis"]
PAD = 0


# ------------------------------------------------------------------ the components


def softmax(scores: Tensor, dim: int = -1) -> Tensor:
    """Scores → weights ≥ 0 that sum to 1 along `dim`; a row of −∞ throughout gets weights 0.

    Shifting by the largest score changes nothing in exact arithmetic and keeps exp() from
    overflowing. The largest exponential is then e⁰ = 1, so the sum is at least 1, except in a row
    that is −∞ throughout.
    """
    lowest = torch.finfo(scores.dtype).min  # for −∞ − (−∞) is undefined
    largest = scores.detach().amax(dim, keepdim=True).clamp(min=lowest)
    exponentials = torch.exp(scores - largest)
    return exponentials / exponentials.sum(dim, keepdim=True).clamp(min=1.0)


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    dropout: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """softmax(Q·Kᵀ / √d_k) · V (section 3.2.1): every query gets a weighted mean of the values.

    query (…, T, K), key (…, S, K), value (…, S, any) → output (…, T, any), weights (…, T, S).
    mask is boolean, broadcastable to (…, T, S), True where the query may attend to the key; a query
    that may attend to nothing gets weights and output exactly 0. dropout is the share of weights
    set to 0; pass 0 outside training. (Not in the paper, whose section 5.4 drops parts of a layer's
    output; PyTorch and most later code do it.) Raises TypeError for a mask that isn't boolean.
    """
    if mask is not None and mask.dtype != torch.bool:
        raise TypeError(f"the mask is {mask.dtype}, not boolean")
    d_k = query.shape[-1]
    scores = query @ key.transpose(-2, -1) / math.sqrt(d_k)  # (…, T, S)
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    weights = F.dropout(softmax(scores), dropout)
    return weights @ value, weights


def causal_mask(length: int, device: torch.device | None = None) -> Tensor:
    """(L, L), True on and below the diagonal: position i may attend to 0 … i (section 3.2.3)."""
    return torch.ones(length, length, dtype=torch.bool, device=device).tril()


def padding_mask(tokens: Tensor, pad_id: int = 0) -> Tensor:
    """tokens (B, S) → (B, 1, 1, S), True where a real token stands; fits every head and query."""
    return (tokens != pad_id)[:, None, None, :]


# ------------------------------------------------------------------ broken on purpose


def attention_without_scaling(query, key, value, mask=None):
    """Broken on purpose: the scores are not divided by √d_k."""
    return attention_from(query @ key.transpose(-2, -1), value, mask)


def attention_divided_by_d_k(query, key, value, mask=None):
    """Broken on purpose: the scores are divided by d_k, not by its square root."""
    return attention_from(query @ key.transpose(-2, -1) / query.shape[-1], value, mask)


def attention_over_queries(query, key, value, mask=None):
    """Broken on purpose: the softmax runs down the queries instead of along the keys."""
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
    return attention_from(scores, value, mask, dim=-2)


def attention_with_reversed_mask(query, key, value, mask=None):
    """Broken on purpose: True hides a key, as in nn.MultiheadAttention."""
    return scaled_dot_product_attention(query, key, value, None if mask is None else ~mask)


def attention_masked_after_softmax(query, key, value, mask=None):
    """Broken on purpose: masked weights are set to 0 after the softmax has counted them."""
    _, weights = scaled_dot_product_attention(query, key, value)
    weights = weights if mask is None else weights * mask
    return weights @ value, weights


def attention_with_nan(query, key, value, mask=None):
    """Broken on purpose: a query that may attend to nothing gets NaN."""
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
    scores = scores if mask is None else scores.masked_fill(~mask, -math.inf)
    weights = torch.softmax(scores, dim=-1)
    return weights @ value, weights


def attention_from(scores, value, mask=None, dim=-1):
    """What the broken variants share: mask and softmax the scores, average the values."""
    weights = softmax(scores if mask is None else scores.masked_fill(~mask, -math.inf), dim)
    return weights @ value, weights


MISTAKES = {
    "not divided by √d_k: the scores grow with it": attention_without_scaling,
    "divided by d_k: it should be its square root": attention_divided_by_d_k,
    "softmax over queries: it belongs over the keys, dim=-1": attention_over_queries,
    "the mask is reversed: True means may attend": attention_with_reversed_mask,
    "masked after softmax: set the scores to −∞ before it": attention_masked_after_softmax,
    "0/0 in a hidden row: a query that may attend to nothing gets 0": attention_with_nan,
}


# ------------------------------------------------------------------ the steps


class SelfAttention(nn.Module):
    """Queries, keys and values are three linear maps of the same tokens x (B, L, D)."""

    def __init__(self, d_model: int):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(d_model, d_model) for _ in range(3))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return scaled_dot_product_attention(self.query(x), self.key(x), self.value(x))


def open_lstm(size: int, **options) -> nn.LSTM:
    """An LSTM whose forget gates start around σ(3) = 0.95 instead of 0.5."""
    lstm = nn.LSTM(size, size, **options)
    with torch.no_grad():
        lstm.bias_ih_l0[size : 2 * size] = 3.0  # PyTorch's order: input, forget, cell, output
        lstm.bias_hh_l0[size : 2 * size] = 0.0
    return lstm


DISTANCES = (1, 2, 4, 8, 16, 32, 64, 128)
LAYERS = {
    "RNN": lambda: nn.RNN(32, 32, batch_first=True),
    "LSTM": lambda: nn.LSTM(32, 32, batch_first=True),
    "LSTM, open gate": lambda: open_lstm(32, batch_first=True),
    "attention": lambda: SelfAttention(32),
}


def gradient_from_the_past(layer: nn.Module, distance: int) -> float:
    """Norm of d(last output) / d(input `distance` steps back), along a random direction."""
    inputs = torch.randn(
        1, distance + 1, 32, dtype=torch.float64, requires_grad=True
    )
    last = layer.double()(inputs)[0][0, -1]
    (gradient,) = torch.autograd.grad(last @ torch.randn_like(last), inputs)
    return gradient[0, 0].norm().item()


def mean_gradients(make_layer, seeds: int = 8) -> list[float]:
    """The gradient norm at each of DISTANCES, the mean over freshly initialised layers."""
    return [
        sum(gradient_from_the_past(make_layer(), distance) for _ in range(seeds)) / seeds
        for distance in DISTANCES
    ]


@shows(gradient_from_the_past)
def step_why_attention():
    """Why attention? The path to the past

    A recurrent network (RNN) reads word by word: from the word n steps back to the last output lead n
    steps, one after the other. Attention gets there in one (section 4, table 1). So the gradient that
    should teach “this word mattered” passes n matrices in an RNN, and one layer here. Below: its size, in
    untrained layers of width 32.

    An LSTM, a recurrent network with a memory, does better than an RNN: on its way the memory is only
    multiplied by a gate. The gate starts near 0.5 in PyTorch, and 0.5ⁿ vanishes as well. Opened to 0.95,
    which training can do, it carries more gradient than attention from 16 steps to the 128 measured here;
    hundreds of steps back 0.95ⁿ is gone, too. Attention dilutes: n + 1 words share a weight of 1, so its
    gradient falls like 1/n. What it removes is the n steps in a row.
    """
    reach = {name: mean_gradients(make) for name, make in LAYERS.items()}
    shares = [(n + 1) * g for n, g in zip(DISTANCES, reach["attention"])]
    spread = max(shares) / min(shares)
    left = reach["RNN"][-1] / reach["RNN"][0]
    check("attention: (n + 1) · gradient stays within a factor of 2.5",
          spread < 2.5, f"factor {spread:.2f}")
    check("RNN: after 128 steps less than a billionth is left",
          left < 1e-9, f"{left:.0e}")
    more = [n for n, gate, ours in zip(DISTANCES, reach["LSTM, open gate"], reach["attention"])
            if gate > ours]
    check("the open gate carries more than attention from n = 16 to 128",
          all(n in more for n in DISTANCES if n >= 16))
    rows = [(name, 1 if name == "attention" else "n", *norms[::2]) for name, norms in reach.items()]
    figure = Picture("attention_gradient_path.png", draw_reach(reach))
    return table("", "steps", *(f"n = {n}" for n in DISTANCES[::2]), rows=rows), figure


def stage_table(**stages):
    """A table with one row a stage of the computation and one column a token."""
    rows = [
        (name.replace("_", " "), *("  ".join(f"{x:.3g}" for x in row) for row in stage))
        for name, stage in stages.items()
    ]
    return table("", "token 1", "token 2", "token 3", rows=rows)


def step_by_hand():
    """Three tokens by hand

    Take a pocket calculator. Three tokens, vectors of two numbers, keys equal to the queries:

        Q = K = (1, 0), (0, 1), (1, 1)        V = (10, 0), (0, 10), (5, 5)

    Multiply every query with every key, divide by √d_k = √2 = 1.414, raise e to the result, divide by
    the sum of the row, and average the values with these weights.
    """
    query = key = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    value = np.array([[10.0, 0.0], [0.0, 10.0], [5.0, 5.0]])
    scores = query @ key.T  # (T, S)
    scaled = scores / np.sqrt(2)
    exponentials = np.exp(scaled)
    weights = exponentials / exponentials.sum(axis=1, keepdims=True)
    output = weights @ value  # (T, 2)
    inputs = map(torch.from_numpy, (query, key, value))
    gap = abs(scaled_dot_product_attention(*inputs)[0].numpy() - output).max()
    check("the real function says the same", gap < 1e-12, f"difference {gap:.0e}")
    return stage_table(scores=scores, scaled=scaled, exponentials=exponentials,
                       weights=weights, output=output)


def step_soft_dictionary():
    """A soft dictionary

    A dictionary returns the value whose key equals the query. Attention returns a mean of all values,
    weighted by how well their keys match. Multiply the query by 4, 16, 64, and the scores sharpen until the
    mean is the entry itself. Three keys at right angles, values 100, 200 and 300, a query for the first:
    """
    key = torch.eye(3).double()
    value = torch.tensor([[100.0], [200.0], [300.0]]).double()
    rows = []
    for factor in (0, 1, 4, 16, 64):
        query = factor * key[:1]
        output, weights = scaled_dot_product_attention(query, key, value)
        shown = "  ".join(f"{weight:.4f}" for weight in weights[0])
        rows.append((factor, shown, f"{output.item():.9f}"))
    gap = abs(output.item() - 100)
    check("the sharpest answer is the entry", gap < 1e-9, f"off by {gap:.0e}")
    return table("query ×", "weights", "answer", rows=rows)


@shows(scaled_dot_product_attention)
def step_in_pytorch():
    """The same in PyTorch

    For any number of leading dimensions (batch, heads), with a mask (step 8) and with dropout (lesson 2).
    What is proved here is what `--grade FILE` proves of your own attempt.
    """
    check_all(prove_attention(scaled_dot_product_attention))


def softmax_facts(d_k: int, scaled: bool) -> tuple[float, float]:
    """Entropy of the weights over 64 keys, as a share of ln 64, and size of the softmax's gradient.

    Queries and keys have unit variance; the gradient is ‖diag(w) − w·wᵀ‖, zero for a one-hot w.
    """
    query, key = torch.randn(200, 1, d_k), torch.randn(200, 64, d_k)
    scores = (query @ key.transpose(1, 2))[:, 0]
    weights = softmax(scores / math.sqrt(d_k) if scaled else scores)
    entropy = torch.special.entr(weights).sum(-1).mean() / math.log(64)
    products = weights[:, :, None] * weights[:, None, :]
    jacobian = torch.diag_embed(weights) - products
    return entropy.item(), jacobian.norm(dim=(1, 2)).median().item()


@shows(softmax_facts)
def step_why_the_root():
    """Why divide by √d_k?

    A product of two independent numbers of mean 0 and variance 1 has variance 1, and q·k adds up d_k
    of them: its variance is d_k. Undivided, a wide head has scores so large that the softmax puts nearly
    all weight on one key (its entropy nears 0), and for most queries no gradient is left. Up to d_k = 64,
    the paper's, none is lost yet; from 256 on it is. This d_k is the width of one head, not d_model.

    Below: 64 keys; entropy as a share of ln 64; gradient is the size of the softmax's matrix of
    derivatives (step 12), the median of 200 queries.
    """
    widths = [4, 16, 64, 256, 1024]
    products = [torch.randn(2, 20_000, d_k).prod(0).sum(-1) for d_k in widths]
    variances = [product.var().item() for product in products]
    plain = [softmax_facts(d_k, scaled=False) for d_k in widths]
    scaled = [softmax_facts(d_k, scaled=True) for d_k in widths]
    errors = [abs(v / d_k - 1) for v, d_k in zip(variances, widths)]
    check("Var(q·k) = d_k within 5 %", max(errors) < 0.05, f"{max(errors):.1%} off")
    left = [p[1] / s[1] for p, s in zip(plain, scaled)]  # gradient without / with the division
    check("undivided, the median gradient isn't smaller up to d_k = 64, but from 256 on",
          min(left[:3]) > 0.9 and max(left[3:]) < 0.9, numbers(left))
    check("… and at 1024 less than a twentieth is left", left[-1] < 0.05, f"{left[-1]:.1%}")
    rows = [(d_k, v, *p, *s) for d_k, v, p, s in zip(widths, variances, plain, scaled)]
    figure = Picture("attention_scaling.png", draw_scaling(rows))
    header = "d_k", "Var(q·k)", "entropy", "gradient", "÷ √d_k: entropy", "gradient"
    return table(*header, rows=rows), figure


@shows(softmax)
def step_stable_softmax():
    """A softmax that survives

    exp(x) exceeds the largest float32 from x = 89 on, the largest float16 from x = 11.1. The naive
    formula then says ∞/∞. Subtracting the row's largest score divides both sides of the fraction by the
    same number: in exact arithmetic nothing changes, and now the largest exponential is 1.
    """
    rows, failed = [], []
    for dtype, top in (torch.float32, 50), (torch.float32, 100), (torch.float16, 20):
        scores = torch.tensor([top, top - 1, 0], dtype=dtype)
        naive = torch.exp(scores) / torch.exp(scores).sum()
        failed.append(naive.isnan().any().item())
        both = ["  ".join(f"{w:.4f}" for w in ws) for ws in (naive, softmax(scores))]
        rows.append((str(dtype), f"{top}, {top - 1}, 0", *both))
    check("the naive formula fails on the last two, and only there", failed == [False, True, True])
    check_all(prove_softmax(softmax))
    return table("type", "scores", "naive", "shifted", rows=rows)


def embed(words: list[str], d_model: int = 16) -> Tensor:
    """(L, D) random vectors, the same for the same word: stand-ins until lesson 3."""
    known = list(dict.fromkeys(words))
    return torch.randn(len(known), d_model)[[known.index(word) for word in words]]


@shows()
def step_who_asks_whom():
    """Self-attention and cross-attention

    In self-attention a sequence asks itself: T = S. In cross-attention one sequence asks another: the
    queries come from the target, keys and values from the source. The output always has the length of
    the queries. The vectors x below are random and Q = K = V = x, so the pictures show no understanding:
    as a rule a word matches itself best. But the same word asks the same question and gives the same
    answer wherever it stands (lesson 3 mends that).
    """
    english, french = embed(SENTENCE), embed(TRANSLATION)
    self_output, itself = scaled_dot_product_attention(english, english, english)
    cross_output, cross = scaled_dot_product_attention(french, english, english)
    masked = scaled_dot_product_attention(english, english, english, causal_mask(6))[1]
    check("both “the” get the same row of weights", torch.equal(itself[0], itself[4]))
    check("… and the same column", torch.allclose(itself[:, 0], itself[:, 4]))
    rows = [
        ("self", "English (T = 6)", "English (S = 6)", shape(itself), shape(self_output)),
        ("cross", "French (T = 7)", "English (S = 6)", shape(cross), shape(cross_output)),
    ]
    figure = Picture("attention_weights.png", draw_attention(itself, cross, masked))
    return table("", "queries", "keys", "weights", "output", rows=rows), figure


@shows(causal_mask, padding_mask)
def step_masks():
    """Masks: what may be looked at

    The causal mask hides the future from a decoder, the padding mask hides the filling that makes all
    sequences of a batch equally long. Both are boolean, True means “may attend”, and they are joined
    with &. Their shapes need only broadcast to (B, H, T, S).
    """
    tokens = torch.tensor([[5, 6, 7, 8], [5, 6, PAD, PAD]])
    mask = causal_mask(4) & padding_mask(tokens)  # (B, 1, T, S)
    drawn = map(mask_rows, (causal_mask(4), padding_mask(tokens)[1, 0].expand(4, 4), mask[1, 0]))
    check_all(prove_causal_mask(causal_mask) + prove_padding_mask(padding_mask))
    return table("causal", "padding, for 5 6 PAD PAD", "both", rows=zip(*drawn))


def step_masks_hide():
    """Causal means: the future changes nothing

    Not approximately, but bit for bit: other words after position 2, or other filling behind the end of
    a sentence, leave every allowed output as it was.
    """
    x = embed(SENTENCE)
    other = torch.cat([x[:3], torch.randn(3, 16)])
    mask = causal_mask(6)
    attend = scaled_dot_product_attention
    before, after = (attend(v, v, v, mask)[0] for v in (x, other))
    same = torch.equal(before[:3], after[:3])
    check("another future: outputs 0 to 2 are the same bits", same)
    check(
        "… and outputs 3 to 5 are not",
        (before[3:] != after[3:]).any(dim=-1).all(),
    )
    mask = padding_mask(torch.tensor([[5, 6, 7, PAD, PAD, PAD]]))[0, 0]
    before, after = (attend(x, v, v, mask)[0] for v in (x, other))
    same = torch.equal(before, after)
    check("other padding: all outputs are the same bits", same)


@shows()
def step_blind_row():
    """Nothing to look at

    An empty source, or padding in front of a sentence under a causal mask: a row of the mask without any
    True. Adding −10⁹ leaves weight on forbidden keys (in float32 the same on all, for −10⁹ + 0.3 is rounded
    to −10⁹), −∞ gives 0/0. In this course such a query, a blind one, gets 0, and finite gradients. What
    others do, on this machine, with this PyTorch:
    """
    x = torch.randn(1, 4, 8)
    nobody = torch.zeros(4, 4, dtype=torch.bool)
    scores = x @ x.transpose(1, 2)
    theirs = nn.MultiheadAttention(8, 1, batch_first=True)
    ours = scaled_dot_product_attention(x, x, x, nobody)
    rows = [
        ("softmax(scores − 10⁹)", softmax(scores - 1e9)[0, 0]),
        ("torch.softmax(scores − ∞)", torch.softmax(scores - math.inf, -1)[0, 0]),
        ("nn.MultiheadAttention", theirs(x, x, x, attn_mask=~nobody)[1][0, 0]),
        ("ours", ours[1][0, 0]),
    ]
    fused = F.scaled_dot_product_attention(x, x, x, attn_mask=nobody)
    rows.append(("F.scaled_dot_product_attention (output)", fused[0, 0, :4]))
    check("ours: weights and output are exactly 0", not ours[0].any() and not ours[1].any())
    return table("", "first row", rows=[(name, numbers(row)) for name, row in rows])


class AdditiveScore(nn.Module):
    """vᵀ·tanh(W_q·q + W_k·k): Bahdanau, Cho and Bengio 2015, appendix A.1.2."""

    def __init__(self, d_k: int, hidden: int = 16):
        super().__init__()
        self.query = nn.Linear(d_k, hidden)  # with a bias: else s(−q, −k) = −s(q, k), never a match
        self.key = nn.Linear(d_k, hidden, bias=False)
        self.v = nn.Linear(hidden, 1, bias=False)

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        query, key = self.query(query), self.key(key)
        mixed = query[:, :, None] + key[:, None]  # (B, T, S, hidden)
        return self.v(torch.tanh(mixed))[..., 0]  # (B, T, S)


class MultiplicativeScore(nn.Module):
    """qᵀ·W·k: the score that Luong, Pham and Manning 2015, section 3.1, call “general”."""

    def __init__(self, d_k: int):
        super().__init__()
        self.w = nn.Linear(d_k, d_k, bias=False)

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        return query @ self.w(key).transpose(1, 2)  # (B, T, S)


class ScaledDotScore(nn.Module):
    """q·k / √d_k: nothing to learn."""

    def __init__(self, d_k: int):
        super().__init__()
        self.scale = 1 / math.sqrt(d_k)

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        return self.scale * query @ key.transpose(1, 2)  # (B, T, S)


SCORES = {
    "additive": ("vᵀ·tanh(W_q·q + W_k·k + b)", AdditiveScore),
    "multiplicative": ("qᵀ·W·k", MultiplicativeScore),
    "scaled dot product": ("q·k / √d_k", ScaledDotScore),
}


def matching_task(batch: int, keys: int = 6, d_k: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    """Queries (B, S, K) that are noisy copies of the keys in another order, the keys, that order."""
    key = torch.randn(batch, keys, d_k)
    order = torch.rand(batch, keys).argsort(-1)
    query = key.gather(1, order[..., None].expand_as(key))
    return query + 0.3 * torch.randn_like(query), key, order


def train_score(score: nn.Module, steps: int = 300) -> nn.Module:
    """Teach the score to give each query the key that it was copied from."""
    optimizer = torch.optim.Adam(score.parameters(), lr=0.02)
    for _ in range(steps):
        query, key, order = matching_task(batch=32)
        loss = F.cross_entropy(score(query, key).transpose(1, 2), order)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return score


@shows(AdditiveScore.forward, MultiplicativeScore.forward, ScaledDotScore.forward)
def step_other_scores():
    """Other ways to score a match

    The first attention (Bahdanau) ran query and key through a small network; Luong put a matrix between
    them; the Transformer only multiplies. Here all three have to find, among 6 keys, the one that the
    query is a noisy copy of. The first two are trained for it; the third has nothing to train. In a
    Transformer learned projections stand in front of it, which turns it into the second: (W_q·q)·(W_k·k) =
    qᵀ·W·k with W = W_qᵀ·W_k. And all scores together are one matrix product.
    """
    query, key, order = matching_task(batch=500)
    rows, found = [], {}
    for name, (formula, make) in SCORES.items():
        score = make(d_k=8)
        size = sum(p.numel() for p in score.parameters())
        scores = (train_score(score) if size else score)(query, key)
        found[name] = softmax(scores).detach()
        hits = (scores.argmax(-1) == order).float().mean().item()
        rows.append((name, formula, size, f"{hits:.1%}"))
        check(f"{name}: finds most of the keys", hits > 0.5, f"{hits:.1%}")
    figure = Picture("attention_scores.png", draw_scores(found, order))
    return table("score", "formula", "parameters", "found", rows=rows), figure


def attention_backward(query, key, value, grad_output):
    """Gradients of query, key and value, given that of the output (no mask)."""
    scale = math.sqrt(query.shape[-1])
    weights = softmax(query @ key.mT / scale)
    grad_value = weights.mT @ grad_output
    grad_weights = grad_output @ value.mT
    mean = (weights * grad_weights).sum(-1, keepdim=True)
    grad_scores = weights * (grad_weights - mean)  # the softmax's Jacobian
    grad_query = grad_scores @ key / scale
    grad_key = grad_scores.mT @ query / scale
    return grad_query, grad_key, grad_value


@shows(attention_backward)
def step_backward_by_hand():
    """Backward by hand

    With A for the weights, O = A·V for the output and d in front of what is a gradient:

        dV = Aᵀ·dO          dA = dO·Vᵀ
        dS = A ∘ (dA − sum of A ∘ dA along the row)
        dQ = dS·K / √d_k    dK = dSᵀ·Q / √d_k

    ∘ multiplies number by number. The second line is the softmax: each weight a_i depends on all scores
    of its row, ∂a_i/∂s_j = a_i·([i = j] − a_j), where [i = j] is 1 if i is j, else 0. Autograd does this:
    """
    inputs = random_tensors((2, 4, 8), (2, 5, 8), (2, 5, 3))
    leaves = [tensor.requires_grad_() for tensor in inputs]
    output, _ = scaled_dot_product_attention(*leaves)
    grad_output = torch.cos(output).detach()
    autograd = torch.autograd.grad(output, leaves, grad_output)
    by_hand = attention_backward(*leaves, grad_output)
    for name, ours, theirs in zip("QKV", by_hand, autograd):
        gap = largest_difference(ours, theirs)
        check(f"d{name} by hand equals autograd's", gap < 1e-12, f"{gap:.0e}")


def bytes_kept(function, *inputs: Tensor) -> int:
    """Bytes that autograd keeps for the backward pass of `function`, beyond the inputs."""
    kept = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = function(*inputs)
    inputs_kept = {tensor.untyped_storage().data_ptr() for tensor in inputs}
    del result
    return sum(size for pointer, size in kept.items() if pointer not in inputs_kept)


def seconds_of(function, *inputs: Tensor, repeats: int = 3) -> float:
    """The fastest of a few runs, after one to warm up."""
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        function(*inputs)
        times.append(time.perf_counter() - started)
    return min(times[1:])


@shows()
def step_what_it_costs():
    """What it costs

    n tokens have n² pairs. The work grows with the square of the length, and so does the memory of our
    lines, which keep all weights for the backward pass. It is the price for reaching everything in one
    step, and why long texts are hard. PyTorch's fused kernel does the same work, but computes the weights
    block by block and again in backward (Dao et al. 2022): it keeps only O(n). One head of width 64:
    """
    lengths = [128, 256, 512, 1024, 2048]
    inputs = [torch.randn(3, 1, 1, n, 64, requires_grad=True).unbind() for n in lengths]
    memory = [bytes_kept(scaled_dot_product_attention, *qkv) for qkv in inputs]
    fused = [bytes_kept(F.scaled_dot_product_attention, *qkv) for qkv in inputs]
    times = [seconds_of(scaled_dot_product_attention, *qkv) for qkv in inputs]
    power = fitted_exponent(lengths, memory)
    check("the memory grows like n²", abs(power - 2) < 0.1, f"n^{power:.2f}")
    fused_power = fitted_exponent(lengths, fused)
    check("… of the fused kernel like n", abs(fused_power - 1) < 0.1, f"n^{fused_power:.2f}")
    figure = Picture("attention_cost.png", draw_cost(lengths, times, memory))
    rows = [(n, f"{1e3 * t:.2f}", f"{m / 2**20:.2f}", f"{f / 2**20:.2f}")
            for n, t, m, f in zip(lengths, times, memory, fused)]
    fit = f"time fitted over the last three: n^{fitted_exponent(lengths[2:], times[2:]):.2f}"
    return table("n", "milliseconds", "MiB kept for backward", "fused", rows=rows), fit, figure


@shows()
def step_broken_on_purpose():
    """Broken on purpose

    Six mistakes that run without an error and return the right shapes. The table shows what each does to
    the weights of three tokens under a causal mask in which token 1 may see nothing. Then each goes
    through the proofs of step 4: the statement that it fails is what to test first in your own code.
    """
    query, key, value = random_tensors((3, 16), (3, 16), (3, 16), seed=3)
    mask = causal_mask(3).index_fill(0, torch.tensor(1), False)
    variants = [("right", scaled_dot_product_attention), *MISTAKES.items()]
    rows = [(text.partition(":")[0], *map(numbers, variant(query, key, value, mask)[1]))
            for text, variant in variants]
    caught_by = {
        attention_without_scaling: "The weights are softmax",
        attention_divided_by_d_k: "The weights are softmax",
        attention_over_queries: "The weights are softmax",
        attention_with_reversed_mask: "With a causal mask",
        attention_masked_after_softmax: "Hidden keys get weight 0",
        attention_with_nan: "A query that may attend to nothing",
    }
    for mistake, statement in caught_by.items():
        check_caught(mistake.__name__, prove_attention(mistake), statement)
    return table("mistake", "token 0", "token 1 (blind)", "token 2", rows=rows)


def step_what_next():
    """What now?

    Read: softmax and scaled_dot_product_attention, then prove_attention; that is all of this lesson.

    Change: (1) in step_by_hand, V to (1, 1), (2, 2), (3, 3): every answer lies between 1 and 3, for a
    weighted mean cannot leave the range of its values. (2) In causal_mask, tril() to tril(-1): the first
    token becomes blind, and proofs of steps 8 and 9 fail. (3) In step_soft_dictionary, the second key to a
    copy of the first: no sharpness tells the two apart, the answer is 150, and the check fails.

    Write it yourself: python 01_attention_mechanism.py --template my_attention.py, fill in the file, then
    the same with --grade. Next: python 02_multi_head_attention.py.
    """


# ------------------------------------------------------------------ the proofs


def attention_in_numpy(query, key, value, mask=True):
    """The formula in NumPy: output (…, T, any) and weights (…, T, S)."""
    scores = query @ np.swapaxes(key, -2, -1) / np.sqrt(query.shape[-1])
    scores = np.where(mask, scores, -np.inf)
    exponentials = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return weights @ value, weights


def prove_softmax(implementation) -> list[Proof]:
    """What holds for every softmax(scores, dim=-1)."""
    (scores,) = random_tensors((2, 3, 5))

    def sums_to_one():
        """The weights sum to 1 along the chosen dimension."""
        wrong = {"dim is ignored: use it for the maximum and the sum": softmax(scores).sum(1)}
        return agree(implementation(scores, dim=1).sum(1), torch.ones(2, 5), 1e-12, wrong)

    def equals_pytorch():
        """It equals torch.softmax."""
        return agree(implementation(scores), torch.softmax(scores, -1), 1e-12)

    def survives_large_scores():
        """Scores of 1,000 (float32) and of 100 (float16) don't overflow."""
        large = torch.tensor([1000.0, 999.0, 0.0]), torch.tensor([100.0, 99.0, 0.0]).half()
        found = torch.stack([implementation(scores).double() for scores in large])
        expected = torch.softmax(torch.tensor([1.0, 0.0, -99.0]).double(), -1).expand(2, 3)
        hint = "subtract the largest score before exp()"
        return agree(found, expected, 1e-3)._replace(diagnosis=hint)

    def survives_hidden_rows():
        """A row that is −∞ throughout gets weights 0."""
        hidden = scores.masked_fill(torch.arange(3)[:, None] == 1, -math.inf)
        return agree(implementation(hidden)[:, 1], torch.zeros(2, 5), 0)

    return prove(sums_to_one, equals_pytorch, survives_large_scores, survives_hidden_rows)


def prove_attention(attention) -> list[Proof]:
    """What holds for every attention(query, key, value, mask=None) → (output, weights)."""
    query, key, value = inputs = random_tensors((2, 4, 8), (2, 5, 8), (2, 5, 3))
    arrays = [tensor.numpy() for tensor in inputs]
    mask = torch.ones(4, 5, dtype=torch.bool).tril()
    blind = mask.index_fill(0, torch.tensor(1), False)  # query 1 may attend to nothing

    def compare(part, mask, expected, rows=slice(None)):
        """The output (part 0) or weights (part 1) against `expected`, known mistakes diagnosed."""
        wrong = {text: broken(*inputs, mask)[part][:, rows] for text, broken in MISTAKES.items()}
        other = scaled_dot_product_attention(*inputs, mask)[1 - part][:, rows]
        wrong["return (output, weights), in this order"] = other
        return agree(attention(*inputs, mask)[part][:, rows], expected, 1e-12, wrong)

    def follows_the_formula():
        """The weights are softmax(Q·Kᵀ / √d_k), as NumPy computes it."""
        return compare(1, None, torch.from_numpy(attention_in_numpy(*arrays)[1]))

    def equals_pytorch():
        """The output equals that of PyTorch's function."""
        return compare(0, None, F.scaled_dot_product_attention(*inputs))

    def any_leading_dimensions():
        """… with any number of leading dimensions, as for heads: (B, H, T, K)."""
        query, key, value = random_tensors((2, 3, 4, 6), (2, 3, 5, 6), (2, 3, 5, 3), seed=1)
        expected = F.scaled_dot_product_attention(query, key, value)
        return agree(attention(query, key, value)[0], expected, 1e-12)

    def masks_like_pytorch():
        """With a causal mask it equals PyTorch's function, too."""
        return compare(0, mask, F.scaled_dot_product_attention(*inputs, attn_mask=mask))

    def hidden_keys_get_zero():
        """Hidden keys get weight 0, the weights of the others sum to 1."""
        expected = attention_in_numpy(*arrays, mask.numpy())[1]
        return compare(1, mask, torch.from_numpy(expected))

    def hidden_keys_do_not_matter():
        """Other finite keys and values behind the mask change nothing, bit for bit."""
        changed_key, changed_value = key.clone(), value.clone()
        changed_key[:, 3], changed_value[:, 3] = 9.0, -9.0  # hidden from queries 0, 1 and 2
        before = attention(query, key, value, mask)[0]
        after = attention(query, changed_key, changed_value, mask)[0]
        seeing = (before != after)[:, :3].any(-1).any(0).nonzero().flatten().tolist()
        figure = f"query {seeing[0]} sees key 3" if seeing else "queries 0 to 2 as before"
        return Finding(not seeing, figure, "set the hidden scores to −∞, then take the softmax")

    def blind_query_gets_zero():
        """A query that may attend to nothing gets weights and output exactly 0."""
        finding = compare(1, blind, torch.zeros(2, 5), rows=1)
        return compare(0, blind, torch.zeros(2, 3), rows=1) if finding.holds else finding

    def gradients_equal_pytorch():
        """The gradients of query, key and value equal PyTorch's, also with a blind query."""
        leaves = [tensor.clone().requires_grad_() for tensor in inputs]
        ours = attention(*leaves, blind)[0].sin().sum()
        theirs = F.scaled_dot_product_attention(*leaves, attn_mask=blind).sin().sum()
        return agree(gradients(ours, leaves), gradients(theirs, leaves))

    def survives_half_precision():
        """In float16 and bfloat16 a blind query gets 0, too, and all gradients are finite."""
        for kind in (torch.float16, torch.bfloat16):
            leaves = [tensor.to(kind).requires_grad_() for tensor in inputs]
            output, _ = attention(*leaves, blind)
            finite = gradients(output.float().sin().sum(), leaves).isfinite().all()
            if not finite or output[:, 1].any():
                return Finding(False, str(kind), "mask with −∞, not with a large number")
        return Finding(True)

    def drops_weights():
        """dropout=0.5 sets about half of the weights to 0 and doubles the others."""
        zeros = torch.zeros(1, 100, 8, dtype=torch.float64)
        weights = attention(zeros, zeros, zeros, dropout=0.5)[1]
        share = (weights == 0).double().mean().item()
        doubled = ((weights == 0) | ((weights - 0.02).abs() < 1e-12)).all().item()
        return Finding(0.4 < share < 0.6 and doubled, f"{share:.0%}", "nn.functional.dropout does both")

    return prove(
        follows_the_formula,
        equals_pytorch,
        any_leading_dimensions,
        masks_like_pytorch,
        hidden_keys_get_zero,
        hidden_keys_do_not_matter,
        blind_query_gets_zero,
        gradients_equal_pytorch,
        survives_half_precision,
        drops_weights,
    )


def prove_causal_mask(implementation) -> list[Proof]:
    """What holds for every causal_mask(length)."""

    def looks_back_only():
        """Position i may attend to j exactly where j ≤ i, as a boolean mask."""
        found = implementation(5)
        expected = torch.tensor([[j <= i for j in range(5)] for i in range(5)])
        mistakes = {
            "it is reversed: True means may attend": (~expected).int(),
            "the diagonal is missing: a position may see itself": expected.tril(-1).int(),
            "it is transposed: rows are queries, columns are keys": expected.T.int(),
        }
        if found.dtype != torch.bool:
            return Finding(False, f"dtype {found.dtype}", "make it boolean")
        return agree(found.int(), expected.int(), 0, mistakes)

    return prove(looks_back_only)


def prove_padding_mask(implementation) -> list[Proof]:
    """What holds for every padding_mask(tokens, pad_id)."""
    tokens = torch.tensor([[5, 6, 7, 0], [5, 0, 0, 0]])

    def hides_padding():
        """It is boolean (B, 1, 1, S): True for real tokens, False for padding."""
        found = implementation(tokens, 0)
        expected = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]])[:, None, None]
        mistakes = {
            "it is reversed: True means may attend": 1 - expected,
            "add two dimensions, for heads and queries": expected[:, 0, 0],
            "the padding must be missing as a key (last axis), not as a query": expected.mT,
        }
        if found.dtype != torch.bool:
            return Finding(False, f"dtype {found.dtype}", "make it boolean")
        return agree(found.int(), expected, 0, mistakes)

    def honours_pad_id():
        """Another pad_id is honoured."""
        found = implementation(tokens, 7)
        return agree(found.int(), (tokens != 7).int()[:, None, None], 0)

    return prove(hides_padding, honours_pad_id)


GRADED = {
    "softmax": prove_softmax,
    "scaled_dot_product_attention": prove_attention,
    "causal_mask": prove_causal_mask,
    "padding_mask": prove_padding_mask,
}


# ------------------------------------------------------------------ the figures


def draw_reach(reach: dict[str, list[float]]):
    figure, axes = canvas(width=7, height=4)
    for marker, (name, norms) in zip("osD^", reach.items()):
        axes.loglog(DISTANCES, norms, marker=marker, label=name, base=2)
    axes.set_yscale("log")
    axes.set_xticks(DISTANCES, DISTANCES)
    axes.set_ylim(1e-16, 10)  # below, nothing is left that float64 could add to a 1
    axes.set(xlabel="n, steps back", ylabel="gradient norm (mean of 8 seeds)",
             title="Recurrence loses the gradient, slowly if its gate is open; attention dilutes it")
    axes.legend()
    return figure


def draw_scaling(rows):
    widths, variances, *facts = zip(*rows)
    figure, axes = canvas(columns=3, width=10, height=3.4)
    axes[0].loglog(widths, variances, marker="o", label="measured")
    axes[0].loglog(widths, widths, linestyle="--", color="gray", label="d_k")
    axes[0].set_title("The variance of q·k is d_k")
    for panel, name, index in (axes[1], "entropy / ln 64", 0), (axes[2], "‖Jacobian‖", 1):
        panel.semilogx(widths, facts[index], marker="s", label="q·k")
        panel.semilogx(widths, facts[index + 2], marker="o", label="q·k / √d_k")
        panel.set(ylabel=name, ylim=0)
    axes[1].set_title("Unscaled, one key takes all")
    axes[2].set_title("… and wide heads their gradient")
    for panel in axes:
        panel.set_xticks(widths, widths)
        panel.minorticks_off()
        panel.set_xlabel("d_k")
        panel.legend()
    return figure


def draw_attention(itself, cross, masked):
    figure, axes = canvas(columns=3, width=12, height=4.2)
    heatmap(axes[0], itself, SENTENCE, SENTENCE, "Self: both “the” ask and answer alike", True)
    heatmap(axes[1], cross, TRANSLATION, SENTENCE, "Cross: French asks, English answers", True)
    hidden = masked.masked_fill(~causal_mask(6), math.nan)
    heatmap(axes[2], hidden, SENTENCE, SENTENCE, "Causal: nothing above the diagonal", True)
    for panel in axes:
        panel.set(xlabel="key", ylabel="query")
    return figure


def draw_scores(found: dict[str, Tensor], order: Tensor):
    figure, axes = canvas(columns=3, width=10, height=4.1)
    for panel, (name, weights) in zip(axes, found.items()):
        heatmap(panel, weights[0], range(6), range(6), name, numbers=True)
        panel.scatter(order[0], torch.arange(6) - 0.35, marker="v", color="C1", s=20)
        panel.set(xlabel="key", ylabel="query")
    figure.suptitle("Each query is a noisy copy of one key (marked): three scores, unequally certain")
    return figure


def draw_cost(lengths, times, memory):
    figure, axes = canvas(columns=2, width=8, height=3.4)
    for panel, values, unit in (axes[0], times, "seconds"), (axes[1], memory, "bytes"):
        panel.loglog(lengths, values, marker="o", label="measured")
        square = [values[-1] * (n / lengths[-1]) ** 2 for n in lengths]
        panel.loglog(lengths, square, linestyle="--", color="gray", label="n²")
        panel.set_xticks(lengths, lengths)
        panel.minorticks_off()
        panel.set(xlabel="n, tokens", ylabel=unit)
        panel.legend()
    axes[0].set_title(f"Time: n^{fitted_exponent(lengths[2:], times[2:]):.1f} over the last three")
    axes[1].set_title("Memory for the backward pass is n²")
    return figure


def main():
    steps = [
        step_why_attention,
        step_by_hand,
        step_soft_dictionary,
        step_in_pytorch,
        step_why_the_root,
        step_stable_softmax,
        step_who_asks_whom,
        step_masks,
        step_masks_hide,
        step_blind_row,
        step_other_scores,
        step_backward_by_hand,
        step_what_it_costs,
        step_broken_on_purpose,
        step_what_next,
    ]
    narrate(lesson_parser(__doc__, GRADED).parse_args(), __doc__, steps)


if __name__ == "__main__":
    main()

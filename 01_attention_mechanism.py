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
import sys

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from checks.attention import (
    attention_checks,
    causal_mask_checks,
    padding_mask_checks,
    softmax_checks,
    weights_checks,
)
from common import (
    Picture,
    check,
    check_mistakes,
    check_part,
    fitted_exponent,
    lesson_parser,
    mask_rows,
    narrate,
    numbers,
    shape,
    shows,
    table,
)
from course.checking import largest_difference, random_tensors
from course.measuring import bytes_kept, seconds_of
from figures.attention import draw_attention, draw_cost, draw_reach, draw_scaling, draw_scores

__all__ = [
    "attention_weights",
    "causal_mask",
    "fused_attention",
    "padding_mask",
    "scaled_dot_product_attention",
    "softmax",
]

SENTENCE = ["the", "cat", "sat", "on", "the", "mat"]
TRANSLATION = ["le", "chat", "était", "assis", "sur", "le", "tapis"]
PAD = 0


# ------------------------------------------------------------------ the parts


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


def attention_weights(query: Tensor, key: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(Q·Kᵀ / √d_k) (section 3.2.1): how much each query looks at each key.

    query (…, T, K), key (…, S, K) → weights (…, T, S). mask is boolean, broadcastable to (…, T, S), True
    where the query may attend to the key; a query that may attend to nothing gets weights of exactly 0.
    Raises TypeError for a mask that isn't boolean.
    """
    d_k = query.shape[-1]
    scores = query @ key.transpose(-2, -1) / math.sqrt(d_k)  # (…, T, S)
    if mask is not None:
        scores = scores.masked_fill(~boolean(mask), -math.inf)
    return softmax(scores)


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """softmax(Q·Kᵀ / √d_k) · V (section 3.2.1): every query gets a weighted mean of the values.

    query (…, T, K), key (…, S, K), value (…, S, any) → output (…, T, any); mask as in
    attention_weights(). dropout is the share of weights set to 0; pass 0 outside training. (Not in the
    paper, whose section 5.4 drops parts of a layer's output; PyTorch and most later code do it.)
    """
    weights = F.dropout(attention_weights(query, key, mask), dropout)
    return weights @ value


def fused_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """scaled_dot_product_attention() in one kernel of PyTorch's: the same to rounding, and sooner."""
    if mask is not None:
        mask = torch.atleast_2d(boolean(mask))  # the kernel would add numbers
    return F.scaled_dot_product_attention(query, key, value, mask, dropout)


def boolean(mask: Tensor) -> Tensor:
    """The mask as it is; TypeError if it isn't boolean."""
    if mask.dtype != torch.bool:
        raise TypeError(f"the mask is {mask.dtype}, not boolean")
    return mask


def causal_mask(length: int, device: torch.device | None = None) -> Tensor:
    """(L, L), True on and below the diagonal: position i may attend to 0 … i (section 3.2.3)."""
    return torch.ones(length, length, dtype=torch.bool, device=device).tril()


def padding_mask(tokens: Tensor, pad_id: int = 0) -> Tensor:
    """tokens (B, S) → (B, 1, 1, S), True where a real token stands; fits every head and query."""
    return (tokens != pad_id)[:, None, None, :]


GRADED = {  # the parts that --grade looks for, and what has to hold of each
    "softmax": softmax_checks,
    "attention_weights": weights_checks,
    "scaled_dot_product_attention": attention_checks,
    "causal_mask": causal_mask_checks,
    "padding_mask": padding_mask_checks,
}
OURS = sys.modules[__name__]  # of whose parts the checks make the classic mistakes


# ------------------------------------------------------------------ the steps


class SelfAttention(nn.Module):
    """Queries, keys and values are three linear maps of the same tokens x (B, L, D)."""

    def __init__(self, d_model: int):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(d_model, d_model) for _ in range(3))

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        """The output, and None where nn.RNN has its last state."""
        return scaled_dot_product_attention(self.query(x), self.key(x), self.value(x)), None


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
    figure = Picture("attention_gradient_path.png", draw_reach(DISTANCES, reach),
                     "Recurrence loses the gradient, slowly if its gate is open; attention dilutes it")
    return table("", "steps", *(f"n = {n}" for n in DISTANCES[::2]), rows=rows), figure


def by_hand(query, key, value):
    """Every stage of attention, in NumPy; query (T, 2), key and value (S, 2)."""
    scores = query @ key.T  # (T, S)
    scaled = scores / np.sqrt(2)
    exponentials = np.exp(scaled)
    weights = exponentials / exponentials.sum(axis=1, keepdims=True)
    output = weights @ value  # (T, 2)
    return scores, scaled, exponentials, weights, output


STAGES = "scores", "scaled", "exponentials", "weights", "output"


@shows(by_hand)
def step_by_hand():
    """Three tokens by hand

    Take a pocket calculator. Three tokens, vectors of two numbers, keys equal to the queries:

        Q = K = (1, 0), (0, 1), (1, 1)        V = (10, 0), (0, 10), (5, 5)

    Multiply every query with every key, divide by √d_k = √2 = 1.414, raise e to the result, divide by
    the sum of the row, and average the values with these weights.
    """
    query = key = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    value = np.array([[10.0, 0.0], [0.0, 10.0], [5.0, 5.0]])
    stages = by_hand(query, key, value)
    inputs = map(torch.from_numpy, (query, key, value))
    gap = abs(scaled_dot_product_attention(*inputs).numpy() - stages[-1]).max()
    check("the real function says the same", gap < 1e-12, f"difference {gap:.0e}")
    rows = [(name, *("  ".join(f"{x:.3g}" for x in row) for row in stage))
            for name, stage in zip(STAGES, stages)]
    return table("", "token 1", "token 2", "token 3", rows=rows)


KEYS = torch.eye(3).double()
ENTRIES = torch.tensor([[100.0], [200.0], [300.0]]).double()


def look_up(sharpness: float) -> tuple[Tensor, Tensor]:
    """Weights and answer of a query for the first of three keys, multiplied by `sharpness`."""
    query = sharpness * KEYS[:1]
    return attention_weights(query, KEYS), scaled_dot_product_attention(query, KEYS, ENTRIES)


@shows(look_up)
def step_soft_dictionary():
    """A soft dictionary

    A dictionary returns the value whose key equals the query. Attention returns a mean of all values,
    weighted by how well their keys match. Multiply the query by 4, 16, 64, and the scores sharpen until the
    mean is the entry itself. Three keys at right angles, values 100, 200 and 300, a query for the first:
    """
    rows = []
    for factor in (0, 1, 4, 16, 64):
        weights, output = look_up(factor)
        shown = "  ".join(f"{weight:.4f}" for weight in weights[0])
        rows.append((factor, shown, f"{output.item():.9f}"))
    gap = abs(output.item() - 100)
    check("the sharpest answer is the entry", gap < 1e-9, f"off by {gap:.0e}")
    return table("query ×", "weights", "answer", rows=rows)


@shows(attention_weights, scaled_dot_product_attention)
def step_in_pytorch():
    """The same in PyTorch

    For any number of leading dimensions (batch, heads), with a mask (step 8) and with dropout (lesson 2).
    What is checked here is what `--grade FILE` checks of your own attempt; `--checks` shows each by itself.
    """
    check_part(attention_weights, weights_checks, OURS)
    check_part(scaled_dot_product_attention, attention_checks, OURS)


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
    figure = Picture("attention_scaling.png", draw_scaling(rows),
                     "Undivided scores grow with √d_k: one key takes all, and no gradient is left")
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
    check_part(softmax, softmax_checks, OURS)
    return table("type", "scores", "naive", "shifted", rows=rows)


def embed(words: list[str], d_model: int = 16) -> Tensor:
    """(L, D) random vectors, the same for the same word: stand-ins until lesson 3."""
    known = list(dict.fromkeys(words))
    return torch.randn(len(known), d_model)[[known.index(word) for word in words]]


def step_who_asks_whom():
    """Self-attention and cross-attention

    In self-attention a sequence asks itself: T = S. In cross-attention one sequence asks another: the
    queries come from the target, keys and values from the source. The output always has the length of
    the queries. The vectors x below are random and Q = K = V = x, so the pictures show no understanding:
    as a rule a word matches itself best. But the same word asks the same question and gives the same
    answer wherever it stands (lesson 3 mends that).
    """
    english, french = embed(SENTENCE), embed(TRANSLATION)
    itself, cross = attention_weights(english, english), attention_weights(french, english)
    self_output = scaled_dot_product_attention(english, english, english)
    cross_output = scaled_dot_product_attention(french, english, english)
    masked = attention_weights(english, english, causal_mask(6))
    check("both “the” get the same row of weights", torch.equal(itself[0], itself[4]))
    check("… and the same column", torch.allclose(itself[:, 0], itself[:, 4]))
    rows = [
        ("self", "English (T = 6)", "English (S = 6)", shape(itself), shape(self_output)),
        ("cross", "French (T = 7)", "English (S = 6)", shape(cross), shape(cross_output)),
    ]
    drawing = draw_attention(SENTENCE, TRANSLATION, itself, cross, masked, causal_mask(6))
    figure = Picture("attention_weights.png", drawing,
                     "The same word asks and answers alike wherever it stands; a mask hides what comes later")
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
    check_part(causal_mask, causal_mask_checks, OURS)
    check_part(padding_mask, padding_mask_checks, OURS)
    return table("causal", "padding, for 5 6 PAD PAD", "both", rows=zip(*drawn))


def with_each(mask: Tensor, queries: Tensor, *contents: Tensor) -> list[Tensor]:
    """The outputs for the same queries over one content of keys and values, and over another."""
    return [scaled_dot_product_attention(queries, x, x, mask) for x in contents]


@shows(with_each)
def step_masks_hide():
    """Causal means: the future changes nothing

    Not approximately, but bit for bit: other words after position 2, or other filling behind the end of
    a sentence, leave every allowed output as it was.
    """
    x = embed(SENTENCE)
    other = torch.cat([x[:3], torch.randn(3, 16)])
    before, after = with_each(causal_mask(6), x, x, other)
    check("another future: outputs 0 to 2 are the same bits", torch.equal(before[:3], after[:3]))
    check("… and outputs 3 to 5 are not", (before[3:] != after[3:]).any(dim=-1).all())
    mask = padding_mask(torch.tensor([[5, 6, 7, PAD, PAD, PAD]]))[0, 0]
    before, after = with_each(mask, x, x, other)
    check("other padding: all outputs are the same bits", torch.equal(before, after))


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
    weights = attention_weights(x, x, nobody)
    rows = [
        ("softmax(scores − 10⁹)", softmax(scores - 1e9)[0, 0]),
        ("torch.softmax(scores − ∞)", torch.softmax(scores - math.inf, -1)[0, 0]),
        ("nn.MultiheadAttention", theirs(x, x, x, attn_mask=~nobody)[1][0, 0]),
        ("ours", weights[0, 0]),
    ]
    ours, fused = (attend(x, x, x, nobody) for attend in (scaled_dot_product_attention, fused_attention))
    rows.append(("F.scaled_dot_product_attention (output)", fused[0, 0, :4]))
    check("ours: weights and output are exactly 0", not ours.any() and not weights.any())
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
    optimizer = torch.optim.Adam(score.parameters(), lr=0.02, fused=True)
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
    figure = Picture("attention_scores.png", draw_scores(found, order),
                     "Each query is a noisy copy of one key (marked): three scores, unequally certain")
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
    output = scaled_dot_product_attention(*leaves)
    grad_output = torch.cos(output).detach()
    autograd = torch.autograd.grad(output, leaves, grad_output)
    by_hand = attention_backward(*leaves, grad_output)
    for name, ours, theirs in zip("QKV", by_hand, autograd):
        gap = largest_difference(ours, theirs)
        check(f"d{name} by hand equals autograd's", gap < 1e-12, f"{gap:.0e}")


def with_gradients(attention) -> list[Tensor]:
    """The output (B, H, T, K) for random inputs, and the gradients of query, key and value."""
    leaves = [tensor.requires_grad_() for tensor in random_tensors((2, 3, 4, 8), (2, 3, 5, 8), (2, 3, 5, 8))]
    mask = torch.ones(4, 5, dtype=torch.bool).tril().index_fill(0, torch.tensor(1), False)
    output = attention(*leaves, mask)
    return [output, *torch.autograd.grad(output.sin().sum(), leaves)]


@shows(fused_attention)
def step_what_it_costs():
    """What it costs

    n tokens have n² pairs. The work grows with the square of the length, and so does the memory of our
    lines, which keep all weights for the backward pass. It is the price for reaching everything in one
    step, and why long texts are hard. PyTorch's fused kernel does the same work, but computes the weights
    block by block and again in backward (Dao et al. 2022): it keeps only O(n). From lesson 2 on it is what
    runs; here it passes the checks of step 4. One head of width 64:
    """
    lengths = [128, 256, 512, 1024, 2048]
    inputs = [torch.randn(3, 1, 1, n, 64, requires_grad=True).unbind() for n in lengths]
    memory = [bytes_kept(scaled_dot_product_attention, *qkv) for qkv in inputs]
    fused = [bytes_kept(fused_attention, *qkv) for qkv in inputs]
    times = [seconds_of(scaled_dot_product_attention, *qkv) for qkv in inputs]
    power = fitted_exponent(lengths, memory)
    check("the memory grows like n²", abs(power - 2) < 0.1, f"n^{power:.2f}")
    fused_power = fitted_exponent(lengths, fused)
    check("… of the fused kernel like n", abs(fused_power - 1) < 0.1, f"n^{fused_power:.2f}")
    check_part(fused_attention, attention_checks, OURS)
    gap = max(largest_difference(ours, theirs) for ours, theirs in zip(*map(with_gradients, (
        scaled_dot_product_attention, fused_attention))))
    check("… and equals our lines in 2 × 3 heads, a blind query among them, gradients and all",
          gap < 1e-12, f"{gap:.0e}")
    figure = Picture("attention_cost.png", draw_cost(lengths, times, memory),
                     "The time and the memory of our lines grow with the square of the length")
    rows = [(n, f"{1e3 * t:.2f}", f"{m / 2**20:.2f}", f"{f / 2**20:.2f}")
            for n, t, m, f in zip(lengths, times, memory, fused)]
    fit = f"time fitted over the last three: n^{fitted_exponent(lengths[2:], times[2:]):.2f}"
    return table("n", "milliseconds", "MiB kept for backward", "fused", rows=rows), fit, figure


def step_broken_on_purpose():
    """Broken on purpose

    Six mistakes that run without an error and return the right shapes. The first table shows what each does
    to the weights of three tokens under a causal mask in which token 1 may see nothing, the second the check
    of step 4 that it fails: what to test first in your own code.
    """
    query, key = random_tensors((3, 16), (3, 16), seed=3)
    mask = causal_mask(3).index_fill(0, torch.tensor(1), False)
    mistakes = {name: mistake.implementation for name, mistake in weights_checks.mistakes(OURS).items()}
    rows = [(name, *map(numbers, weights(query, key, mask)))
            for name, weights in {"right": attention_weights, **mistakes}.items()]
    weights = table("mistake", "token 0", "token 1 (blind)", "token 2", rows=rows)
    return weights, check_mistakes(OURS, weights_checks)


def step_what_next():
    """What now?

    Read: softmax, attention_weights and scaled_dot_product_attention, then checks/attention.py, which says
    what has to hold of them.

    Change: (1) in step_by_hand, V to (1, 1), (2, 2), (3, 3): every answer lies between 1 and 3, for a
    weighted mean cannot leave the range of its values. (2) In causal_mask, tril() to tril(-1): the first
    token becomes blind, and checks of step 8 fail. (3) In step_soft_dictionary, the second key to a
    copy of the first: no sharpness tells the two apart, the answer is 150, and the check fails.

    Write it yourself: python 01_attention_mechanism.py --template my_attention.py, fill in the file, then
    the same with --grade. Next: python 02_multi_head_attention.py.
    """


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

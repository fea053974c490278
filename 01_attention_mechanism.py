"""Lesson 1. How does one token look at the others?

A Transformer turns one sequence (the source) into another (the target), for example a sentence into its
translation. The text is cut into tokens, here words, and each token becomes a vector, a list of numbers. Two
halves share the work:

    the cat loves the mat                  <begin> le chat aime
              │                                      │
          [encoder] ───────── memory ──────────→ [decoder] ───→ le

The encoder reads the source. Every token's vector takes in what it needs from the others (which cat? who
loves it?), and the result, one vector per token, is the memory. The decoder writes the target, one token
after another: it reads what it has written so far, looks into the memory, and names the next token.

“Takes in” and “looks into” both mean attention. A token asks with its query, and every token answers with its
key. The better they match, the more of that token's value is taken in:

    Attention(Q, K, V) = softmax(Q·Kᵀ / √d_k) · V

(“Attention Is All You Need”, Vaswani et al. 2017, section 3.2.1; below, “the paper”.)

You need lesson 0, mainly its matrix products, softmax and gradients. By the end of step 9 you will have built
every part of this formula. The lesson runs in seconds and takes an hour to read.
"""

import course.console.startup  # noqa: F401 (before torch: it reports what fails in the imports below)
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
    lesson,
    lesson_parser,
    mask_rows,
    narrate,
    numbers,
    parameters,
    shape,
    shows,
    table,
)
from course.console.measuring import bytes_kept, multiplications_of, seconds_of
from course.grading.checking import largest_difference, random_tensors
from course.training.matching import matching_task, train_score
from figures.attention import (
    draw_attention,
    draw_cost,
    draw_flow,
    draw_lookup,
    draw_reach,
    draw_scaling,
    draw_scores,
)

CELLS, INPUTS, WIDTH, way_back = lesson("00_foundations", "CELLS", "INPUTS", "WIDTH", "way_back")

# Sizes in shape comments, in every lesson: B batch, T target (query) length, S source (key) length,
# L either, H heads, D d_model, K d_k = D / H, V vocabulary.

__all__ = ["attention_weights", "boolean", "causal_mask", "fused_attention", "padding_mask",
           "scaled_dot_product_attention", "softmax"]

PAD = 0


# ------------------------------------------------------------------ the parts


def softmax(scores: Tensor, dim: int = -1) -> Tensor:
    """Scores → weights ≥ 0 that sum to 1 along `dim`; a row that is all −∞ gets weights 0.

    Subtracting the largest score keeps exp() from overflowing. The largest exponential is then e⁰ = 1, so the
    sum, in float32 or wider, is at least 1, except in a row of −∞.
    """
    if scores.numel() == 0:
        return scores  # no keys: no weights, and no largest score
    lowest = torch.finfo(scores.dtype).min  # because −∞ − (−∞) is undefined
    largest = scores.detach().amax(dim, keepdim=True).clamp(min=lowest)
    exponentials = torch.exp(scores - largest)
    total = exponentials.sum(dim, keepdim=True, dtype=torch.promote_types(scores.dtype, torch.float32))
    return (exponentials / total.clamp(min=1.0)).to(scores.dtype)


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
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, dropout: float = 0.0
) -> Tensor:
    """softmax(Q·Kᵀ / √d_k) · V (section 3.2.1): every query gets a weighted mean of the values.

    query (…, T, K), key (…, S, K), value (…, S, any) → output (…, T, any); mask as in
    attention_weights(). dropout is the fraction of weights set to 0; pass 0 outside training.
    """
    weights = F.dropout(attention_weights(query, key, mask), dropout)
    return weights @ value


def fused_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, dropout: float = 0.0
) -> Tensor:
    """scaled_dot_product_attention() as one PyTorch kernel: equal up to rounding, and faster."""
    if mask is not None:
        mask = torch.atleast_2d(boolean(mask))  # the kernel would add a mask of numbers
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
    """tokens (B, S) → (B, 1, 1, S), True where there is a real token; fits every head and query."""
    return (tokens != pad_id)[:, None, None, :]


GRADED = {  # the parts that --grade looks for, and the checks of each
    "softmax": softmax_checks,
    "attention_weights": weights_checks,
    "scaled_dot_product_attention": attention_checks,
    "causal_mask": causal_mask_checks,
    "padding_mask": padding_mask_checks,
}
OURS = sys.modules[__name__]  # the checks make the classic mistakes from its parts


# ------------------------------------------------------------------ the steps


KEYS = np.eye(3)  # three keys at right angles
ENTRIES = np.array([100.0, 200.0, 300.0])


def look_up(query, keys, values):
    """The weights of three keys, and the mean of their values with these weights."""
    scores = keys @ query  # large where key and query match
    weights = np.exp(scores) / np.exp(scores).sum()  # softmax
    return weights, weights @ values


@shows(look_up)
def step_soft_dictionary():
    """A soft dictionary

    A dictionary returns the value whose key equals the query. Attention compares the query with all keys at
    once. The dot product of query and key says how well they match (the score). Softmax turns the scores into
    weights that sum to 1. The answer is the mean of all values with these weights.

    Here are three keys, values 100, 200 and 300, and a query for the first key, multiplied by larger and
    larger numbers. In the picture the weights start even and end on one key, and the answer goes from the
    mean to 100.
    """
    rows = []
    for factor in (0, 1, 4, 16, 64):
        weights, answer = look_up(factor * KEYS[0], KEYS, ENTRIES)
        rows.append((factor, numbers(weights, 4), f"{answer:.9f}"))
    gap = abs(answer - 100)
    check("with the query × 64 the answer is the value of the first key", gap < 1e-9, f"off by {gap:.0g}")
    sharpness = np.linspace(0, 8, 81)
    curves = np.array([look_up(factor * KEYS[0], KEYS, ENTRIES)[0] for factor in sharpness])
    figure = Picture("attention_soft_dictionary.png", draw_lookup(sharpness, curves, curves @ ENTRIES),
                     "The larger the query, the more of the weight lies on the key that matches")
    return table("query ×", "weights", "answer", rows=rows), figure


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

    Take a pocket calculator. Three tokens ask, and the same three answer. Each is a row of two numbers; the
    keys equal the queries:

        Q = K = (1, 0), (0, 1), (1, 1)        V = (10, 0), (0, 10), (5, 5)

    Take the dot product of every query with every key. Divide by √d_k, where a key has d_k numbers: √2 =
    1.414 (step 10 says why). Raise e to the result, divide by the sum of the row, and average the values with
    these weights.
    """
    query = key = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    value = np.array([[10.0, 0.0], [0.0, 10.0], [5.0, 5.0]])
    stages = by_hand(query, key, value)
    theirs = F.scaled_dot_product_attention(*map(torch.from_numpy, (query, key, value)))
    gap = abs(theirs.numpy() - stages[-1]).max()
    check("PyTorch's own attention gives the same output", gap < 1e-12, f"difference {gap:.0g}")
    rows = [(name, *("  ".join(f"{x:.3g}" for x in row) for row in stage))
            for name, stage in zip(STAGES, stages)]
    return table("", "token 0", "token 1", "token 2", rows=rows)


WORDS = ["the", "cat", "loves", "the", "mat", "it", "found"]
KINDS = {"the": (0, 0, 0, 0), "cat": (1, 0, 0, 0), "mat": (0, 1, 0, 0), "it": (0, 0, 1, 0),
         "loves": (0, 0, 0, 1), "found": (0, 0, 0, 1)}  # living, thing, pronoun, verb
X = np.array([KINDS[word] for word in WORDS], dtype=float)  # (7, 4)
W_QUERY = np.array([[0, 0], [0, 0], [6, 0], [0, 6]])  # pronouns look for the living, verbs for things
W_KEY = np.array([[1, 0], [0, 1], [0, 0], [0, 0]])  # found as: living, thing
W_VALUE = np.array([[9, 1], [0, 9], [0, 0], [0, 0]])  # hands over: it purrs, it is flat


def three_maps(x):
    """What each word looks for, what it is found as, and what it hands over: three times (7, 2)."""
    return x @ W_QUERY, x @ W_KEY, x @ W_VALUE


@shows(three_maps)
def step_it_is_the_cat():
    """What does “it” refer to? Queries, keys and values

    “The cat loves the mat it found”: who found the mat? The vectors here are made by hand. A word's vector
    says what the word is (living, thing, pronoun, verb), and three matrices turn this vector into

        the query   what the word looks for: “it” looks for something living, a verb looks for a thing
        the key     what the word is found as: the cat as living, the mat as a thing
        the value   what the word hands over: the cat purrs, the mat is flat

    Then the code of step 2 runs. Follow the framed row of “it” through the picture: its query matches the key
    of “cat”; that key gets most of the weight, and what comes out is nearly the cat's value. A word that
    looks for nothing (query 0) looks at all words equally.

    Why three vectors and not one? Looking for something and being found are different roles: with one vector
    for both, the score would be the same both ways. And what a word is found by isn't what it hands over. In
    a real model all three matrices are learned.
    """
    query, key, value = three_maps(X)
    stages = dict(zip(STAGES, by_hand(query, key, value)))
    weights, it, cat, mat = stages["weights"], 5, 1, 4
    check("“it” looks at “cat”, not at “mat”", weights[it, cat] > 0.9 and weights[it, mat] < 0.02,
          numbers(weights[it, [cat, mat]]))
    check("“cat” doesn't look back: its weights are even", np.ptp(weights[cat]) < 1e-12)
    seeks, hidden, silent = query.copy(), key.copy(), value.copy()
    seeks[it], hidden[cat], silent[cat] = (0, 6), 0, 0
    found, others = by_hand(seeks, key, value)[3], np.arange(7) != it
    check("“it” with another query finds the mat, and no other row changes",
          found[it].argmax() == mat and (found[others] == weights[others]).all())
    lost = by_hand(query, hidden, value)[3][it]
    check("if the cat has no key, “it” looks at all words equally", np.ptp(lost) < 1e-12)
    *_, same, output = by_hand(query, key, silent)
    check("if the cat has another value, no weight changes, but the output of “it” does",
          (same == weights).all() and abs(output[it] - stages["output"][it]).max() > 8)
    figure = Picture("attention_data_flow.png", draw_flow(WORDS, query, key, value, stages, it),
                     "“it” asks, the key of “cat” matches, and the value of “cat” flows to “it”")
    rows = [(word, *(numbers(row, 0) for row in (q, k, v)), numbers(out, 1))
            for word, q, k, v, out in zip(WORDS, query, key, value, stages["output"])]
    return table("word", "query", "key", "value", "output", rows=rows), figure


def attention_in_five_lines(query, key, value):
    """query (B, T, K), key and value (B, S, K) → output (B, T, K)."""
    d_k = query.shape[-1]
    scores = query @ key.transpose(-2, -1) / math.sqrt(d_k)  # (B, T, S)
    exponentials = torch.exp(scores)
    weights = exponentials / exponentials.sum(dim=-1, keepdim=True)
    return weights @ value


@shows(attention_in_five_lines)
def step_in_pytorch():
    """Attention in five lines of PyTorch

    PyTorch runs many sequences at once, a batch. The comments on the right give shapes, with the same letters
    in all lessons: B sequences in the batch, T queries (target), S keys and values (source), K = d_k numbers
    in each. transpose(-2, -1) swaps the last two axes.
    """
    query, key, value = random_tensors((3, 4, 2), (3, 5, 2), (3, 5, 2))
    output = attention_in_five_lines(query, key, value)
    numpy = np.stack([by_hand(*inputs)[-1] for inputs in zip(query.numpy(), key.numpy(), value.numpy())])
    gap = abs(output.numpy() - numpy).max()
    check("for three random sequences in one batch the outputs equal NumPy's", gap < 1e-12, f"{gap:.0e}")
    many = random_tensors((2, 7, 16), (2, 9, 16), (2, 9, 16), seed=1)
    gap = largest_difference(attention_in_five_lines(*many), F.scaled_dot_product_attention(*many))
    check("the outputs equal those of PyTorch's own attention, also for d_k = 16", gap < 1e-12, f"{gap:.0e}")


FRENCH = ["le", "chat", "aime", "le", "tapis"]  # the beginning of a translation
MEANING = {"the": 0, "le": 0, "cat": 1, "chat": 1, "loves": 2, "aime": 2, "mat": 3, "tapis": 3, "it": 4,
           "found": 5}


def meaning(words: list[str]) -> Tensor:
    """(L, 6): a vector for what a word means, the same in both languages."""
    numbers = torch.tensor([MEANING[word] for word in words])
    return F.one_hot(numbers, 6).double()


@shows(meaning)
def step_who_asks_whom():
    """Self-attention and cross-attention

    In self-attention a sequence asks itself, as in step 3: T = S. The encoder does this. In cross-attention
    one sequence asks another: the decoder's tokens ask the memory. The output has a row for every query.

    The left panel shows step 3 again. In the middle panel the first French words ask the English ones. Their
    vectors, also made by hand, have a 1 at the place of the word's meaning, so words with the same meaning
    match. Both “le” look at both “the” equally: attention knows what a word is, not where it is. Lesson 3
    changes that. The right panel belongs to step 6.
    """
    query, key, value = map(torch.from_numpy, three_maps(X))
    itself, output = attention_weights(query, key), attention_in_five_lines(query, key, value)
    french, english = 10 * meaning(FRENCH), meaning(WORDS)
    cross = attention_weights(french, english)
    taken = attention_in_five_lines(french, english, value)
    check("every French word looks most at an English word with its meaning",
          all(MEANING[WORDS[i]] == MEANING[word] for word, i in zip(FRENCH, cross.argmax(-1))))
    same = torch.equal(cross[0], cross[3]) and torch.equal(cross[:, 0], cross[:, 3])
    check("both “le” have the same weights, equal for both “the”", same)
    rows = [("self", "English (T = 7)", "English (S = 7)", shape(itself), shape(output)),
            ("cross", "French (T = 5)", "English (S = 7)", shape(cross), shape(taken))]
    seen = causal_mask(7)
    drawing = draw_attention(WORDS, FRENCH, itself, cross, attention_weights(query, key, seen), seen)
    figure = Picture("attention_weights.png", drawing,
                     "Weights: a sentence asks itself, French asks English, and no word sees a later one")
    return table("", "queries", "keys", "weights", "output", rows=rows), figure


@shows(causal_mask, padding_mask, attention_weights)
def step_masks():
    """Masks: what may be looked at

    Two things must not be looked at. The decoder has to name the next token, so it must not see that token:
    the causal mask hides what comes later. And the sequences of a batch are padded with PAD to the same
    length: the padding mask hides this padding.

    A mask is boolean. True means “may attend” (torch.nn.MultiheadAttention means the reverse). Masks are
    combined with &. Where a mask is False the score becomes −∞ before the softmax, and e^−∞ = 0. The mask's
    shape only has to broadcast to the weights' shape.
    """
    tokens = torch.tensor([[5, 6, 7, 8], [5, 6, PAD, PAD]])
    mask = causal_mask(4) & padding_mask(tokens)  # (B, 1, T, S)
    drawn = map(mask_rows, (causal_mask(4), padding_mask(tokens)[1, 0].expand(4, 4), mask[1, 0]))
    check_part(causal_mask, causal_mask_checks, OURS)
    check_part(padding_mask, padding_mask_checks, OURS)
    return table("causal", "padding, for 5 6 PAD PAD", "both", rows=zip(*drawn))


def with_each(mask: Tensor, queries: Tensor, *contents: Tensor) -> list:
    """The outputs of the same queries for each of several contents of keys and values."""
    return [scaled_dot_product_attention(queries, content, content, mask) for content in contents]


@shows(with_each)
def step_masks_hide():
    """What is hidden changes nothing

    If the words after position 2 or the padding after a sentence change, every output that cannot see them
    stays the same, bit for bit.
    """
    x, other = torch.randn(2, 6, 16)
    other[:3] = x[:3]
    before, after = with_each(causal_mask(6), x, x, other)
    check("with another future, outputs 0 to 2 stay bitwise the same", torch.equal(before[:3], after[:3]))
    check("with another future, outputs 3 to 5 are different", (before[3:] != after[3:]).any(dim=-1).all())
    mask = padding_mask(torch.tensor([[5, 6, 7, PAD, PAD, PAD]]))[0, 0]
    before, after = with_each(mask, x, x, other)
    check("with other padding, all outputs stay bitwise the same", torch.equal(before, after))


@shows(softmax)
def step_stable_softmax():
    """A softmax that doesn't overflow

    exp(x) overflows float32 from x = 88.73 on and float16 from x = 11.09 on, and ∞/∞ is undefined.
    Subtracting the row's largest score first divides numerator and denominator by the same number: in exact
    arithmetic nothing changes, and now the largest exponential is 1.
    """
    rows, failed = [], []
    for dtype, top in (torch.float32, 50), (torch.float32, 100), (torch.float16, 20):
        scores = torch.tensor([top, top - 1, 0], dtype=dtype)
        naive = torch.exp(scores) / torch.exp(scores).sum()
        failed.append(naive.isnan().any().item())
        rows.append((str(dtype), f"{top}, {top - 1}, 0", numbers(naive, 4), numbers(softmax(scores), 4)))
    check("the naive formula fails only in the last two rows of the table", failed == [False, True, True])
    edges = torch.tensor([88.72, 88.73]), torch.tensor([11.085, 11.094]).half()
    check("exp() overflows from 88.73 on in float32, from 11.09 on in float16",
          all(torch.exp(edge).isinf().tolist() == [False, True] for edge in edges))
    check_part(softmax, softmax_checks, OURS)
    return table("type", "scores", "naive", "shifted", rows=rows)


@shows(scaled_dot_product_attention)
def step_finished():
    """The finished attention function

    Dropout sets random weights to 0 in training; lesson 2 explains it. Any leading dimensions will do: a
    batch, or lesson 2's heads, which are several attentions side by side. `--grade FILE` checks your own
    code; the last appendix lists the checks.
    """
    check_part(attention_weights, weights_checks, OURS)
    check_part(scaled_dot_product_attention, attention_checks, OURS)


def gradients_of(d_k: int, keys: int):
    """For 400 queries, undivided and divided: the gradients at the scores, at the query, and the evenness.

    Queries, keys and values have variance 1, the gradient of the output is random. Evenness is the entropy
    of the weights divided by ln(keys), the entropy of even weights.
    """
    query = torch.randn(4, 100, d_k, requires_grad=True)
    (key, value), upstream = torch.randn(2, 4, keys, d_k), torch.randn(4, 100, d_k)
    for divisor in (1, math.sqrt(d_k)):
        scores = query @ key.mT / divisor
        weights = softmax(scores)
        slopes = torch.autograd.grad(weights @ value, (scores, query), upstream)
        entropy = torch.special.entr(weights).sum(-1).mean() / math.log(keys)
        yield *(slope.norm(dim=-1).flatten() for slope in slopes), entropy.item()


@shows(gradients_of)
def step_why_the_root():
    """Why divide by √d_k?

    A product of two independent numbers of mean 0 and variance 1 has variance 1, and q·k adds up d_k such
    products. If these are also independent, its variance is d_k. Undivided, the scores of a wide head (large
    d_k) lie so far apart that the softmax puts nearly all weight on one key. The evenness is 1 for even
    weights and 0 if one key gets all weight.

    Such a softmax hardly reacts to its scores: little gradient gets back to them, and for most queries hardly
    any. “At the scores”: the mean gradient without the division, divided by the mean gradient with it.
    “Starved”: the queries whose gradient is below a tenth of the median with the division. A column “÷ √d_k”
    repeats the one before it, with the division.

    The query's gradient is the scores' gradient times the keys and, with division, times 1/√d_k. So the
    query's mean gradient is larger without the division (last column). Yet at d_k = 1024, without division,
    about half the queries get less than a tenth of the median gradient with division.
    """
    widths = [4, 16, 64, 256, 1024]
    variances = [torch.randn(2, 10_000, d_k).prod(0).sum(-1).var().item() for d_k in widths]
    rows, starved = [], {16: [], 64: [], 512: []}
    for d_k, variance in zip(widths, variances):
        for keys, fractions in starved.items():
            (plain, plain_query, uneven), (divided, query, even) = gradients_of(d_k, keys)
            little = divided.median() / 10
            fractions.append([(found < little).float().mean().item() for found in (plain, divided)])
            if keys == 64:
                rows.append((d_k, variance, uneven, even, (plain.mean() / divided.mean()).item(),
                             *(f"{fraction:.0%}" for fraction in fractions[-1]),
                             (plain_query.mean() / query.mean()).item()))
                little_there = (plain_query < query.median() / 10).float().mean()
    check("Var(q·k) = d_k within 5 %", all(abs(v / d_k - 1) < 0.05 for v, d_k in zip(variances, widths)))
    uneven, even = [row[2] for row in rows], [row[3] for row in rows]
    check("undivided, the evenness falls as d_k grows, to below 0.1; divided, it stays above 0.8",
          uneven == sorted(uneven, reverse=True) and uneven[-1] < 0.1 and min(even) > 0.8)
    check("at d_k = 1024 the division more than doubles the scores' mean gradient", rows[-1][4] < 0.5)
    check("undivided, more than half of the queries starve at d_k = 1024, for 16, 64 and 512 keys",
          all(fractions[-1][0] > 0.5 for fractions in starved.values()))
    check("for all d_k the division lowers the query's mean gradient", all(row[-1] > 1 for row in rows))
    check("undivided, measured at the query, over 40 % of queries starve at d_k = 1024", little_there > 0.4)
    check("divided, at every width fewer than one query in 20 starves",
          max(fraction for fractions in starved.values() for _, fraction in fractions) < 0.05)
    figure = Picture("attention_scaling.png", draw_scaling(rows, starved, *torch.randn(2, 6, 64)),
                     "Undivided scores grow with √d_k until one key gets all weight and most queries starve")
    header = "d_k", "Var(q·k)", "evenness", "÷ √d_k", "at the scores", "starved", "÷ √d_k", "at the query"
    return table(*header, rows=rows, title="64 keys, undivided and divided"), figure


class OneAttention(nn.Module):
    """Self-attention over x (B, L, INPUTS): untrained, or sharp, as if it had learned to match word 0."""

    def __init__(self, sharp: bool):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(INPUTS, WIDTH) for _ in range(3))
        self.sharp = sharp

    def forward(self, x: Tensor) -> Tensor:
        query, key = self.query(x), self.key(x)
        if self.sharp:
            query, key = 200 * F.normalize(x[:, :1].detach(), dim=-1), F.normalize(x, dim=-1)
        return scaled_dot_product_attention(query, key, self.value(x))


DISTANCES = (1, 4, 16, 64, 256)
LAYERS = {name: CELLS[name] for name in ("RNN", "LSTM", "LSTM, open")} | {
    "even attention": lambda: OneAttention(sharp=False), "sharp attention": lambda: OneAttention(sharp=True)}


@shows(OneAttention.forward)
def step_why_attention():
    """Why attention? One step to every word

    Before Transformers, recurrent networks (RNN) read sequences word by word. Between the word n steps back
    and the last output there are n steps, and each scales the gradient that has to say “this word
    mattered”. Attention needs one step (section 4, table 1), and it processes all words at once.

    Lesson 0's step 12 measures this gradient; here are its cells and two attentions, all untrained. RNN and
    LSTM lose the gradient. The LSTM with an open forget gate keeps far more. “Even attention” gives each of n
    words a weight of about 1/n, so its gradient falls like 1/n. “Sharp attention”, set by hand to match the
    word, gets the gradient undiminished from any distance.
    """
    reach = way_back(LAYERS, DISTANCES)
    rnn, lstm, opened, even, sharp = reach.values()
    spread = [max(norms) / min(norms) for norms in ([(n + 1) * g for n, g in zip(DISTANCES, even)], sharp)]
    check("even attention's gradient · (n + 1), and sharp attention's gradient, vary by a factor under 4",
          max(spread) < 4)
    check("RNN and LSTM: less than a billionth of the gradient is left after 64 steps",
          max(norms[3] / norms[0] for norms in (rnn, lstm)) < 1e-9)
    check("at n = 64 the open LSTM's gradient is over a million times the LSTM's", opened[3] > 1e6 * lstm[3])
    check("at n = 64 sharp attention's gradient is over 3 times the open LSTM's", sharp[3] > 3 * opened[3])
    rows = [(name, "1" if "attention" in name else "n", *(f"{norm:.0e}" for norm in norms))
            for name, norms in reach.items()]
    figure = Picture("attention_gradient_path.png", draw_reach(DISTANCES, reach),
                     "Recurrence multiplies the gradient n times; sharp attention passes it on undiminished")
    return table("", "steps", *(f"n = {n}" for n in DISTANCES), rows=rows), figure


class AdditiveScore(nn.Module):
    """vᵀ·tanh(W_q·q + W_k·k): Bahdanau, Cho and Bengio 2015, appendix A.1.2."""

    def __init__(self, d_k: int, hidden: int = 16):
        super().__init__()
        self.query = nn.Linear(d_k, hidden)  # without a bias s(−q, −k) = −s(q, k), never a match
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


def scaled_dot(query: Tensor, key: Tensor) -> Tensor:
    """q·k / √d_k (B, T, S): nothing to learn."""
    return query @ key.mT / math.sqrt(query.shape[-1])


def less_length(query: Tensor, key: Tensor) -> Tensor:
    """q·k − ‖k‖² / 2: large where the distance ‖q − k‖ is small: −‖q − k‖² / 2 = this − ‖q‖² / 2."""
    return query @ key.mT - key.square().sum(-1)[:, None] / 2


SCORES = {
    "additive": ("vᵀ·tanh(W_q·q + W_k·k + b)", AdditiveScore),
    "multiplicative": ("qᵀ·W·k", MultiplicativeScore),
    "scaled dot product": ("q·k / √d_k", lambda d_k: scaled_dot),
    "length-corrected": ("q·k − ‖k‖²/2", lambda d_k: less_length),
}


@shows(AdditiveScore.forward, MultiplicativeScore.forward, scaled_dot, less_length)
def step_other_scores():
    """Other ways to score a match

    The first attention (Bahdanau) ran query and key through a small network. Luong compared that with a
    matrix between the two, and with the plain product. The Transformer takes the scaled product: all scores
    are one matrix product. Here the query is a noisy copy of one of 6 keys; each score must find that key.
    The first two scores are trained for this.

    The network finds more keys than the product, and a matrix doesn't help: the product favours long keys.
    Subtract half the key's squared length from the undivided product, and it finds as many as the network. Or
    make all keys equally long (last column): all four find nearly all. So does the product at the paper's
    width, 64. The picture shows a case that the product gets wrong; the mark is on the true key.

    In a Transformer, learned matrices come before the product, which makes it a multiplicative score:
    (W_q·q)·(W_k·k) = qᵀ·W·k with W = W_qᵀ·W_k, of rank d_k at most.
    """
    query, key, order = matching_task(2000)
    equal = matching_task(2000, length=math.sqrt(8))
    rows, scored, hits = [], {}, {}
    for name, (formula, make) in SCORES.items():
        score = make(d_k=8)
        size = parameters(score) if isinstance(score, nn.Module) else 0
        score = train_score(score) if size else score
        scored[name] = score(query, key).detach()
        hits[name] = (scored[name].argmax(-1) == order).float().mean().item()
        same = (score(*equal[:2]).argmax(-1) == equal[2]).float().mean().item()
        rows.append((name, formula, size, f"{hits[name]:.1%}", f"{same:.1%}"))
        check(f"{name}: it finds more than 97 % of equally long keys", same > 0.97)
    wide_query, wide_key, wide_order = matching_task(500, width=64)
    wide = (scaled_dot(wide_query, wide_key).argmax(-1) == wide_order).float().mean().item()
    check("at width 64 the product finds over 99 % of the keys", wide > 0.99)
    check("network and length-corrected product find over 97 % of keys, matrix and scaled product under 95 %",
          min(hits["additive"], hits["length-corrected"]) > 0.97
          and max(hits["multiplicative"], hits["scaled dot product"]) < 0.95)
    case = (scored["scaled dot product"].argmax(-1) != order).any(-1).nonzero()[0, 0]
    shown = {name: softmax(scores[case]) for name, scores in scored.items()}
    figure = Picture("attention_scores.png", draw_scores(shown, order[case]),
                     "The product favours long keys; corrected for length, it finds what the network finds")
    return table("score", "formula", "parameters", "found", "same length", rows=rows), figure


@shows(fused_attention)
def step_what_it_costs():
    """What attention costs

    n tokens make n² pairs. So the work grows with the square of the length, and so does the memory: our code
    keeps two tables of n × n numbers for the backward pass, the exponentials and the weights.

    PyTorch has the whole function as one kernel, one program for the processor. The kernel goes through the
    table block by block, and computes it again in the backward pass (Dao et al. 2022): without a mask it
    keeps only O(n). Given a mask, which is a table of n × n, it keeps one more such table. From lesson 2 on,
    the lessons use this kernel. The table is for one head of width 64.
    """
    lengths = [128, 256, 512, 1024]
    inputs = [torch.randn(3, 1, 1, n, 64, requires_grad=True).unbind() for n in lengths]
    work = [multiplications_of(scaled_dot_product_attention, *qkv) for qkv in inputs]
    memory = [bytes_kept(scaled_dot_product_attention, *qkv) for qkv in inputs]
    fused = [bytes_kept(fused_attention, *qkv) for qkv in inputs]
    masked = [bytes_kept(fused_attention, *qkv, causal_mask(n)) for n, qkv in zip(lengths, inputs)]
    check("the scores take 64 · n² multiplications, and so do the weighted means",
          work == [2 * 64 * n * n for n in lengths])
    tables = [kept / (4 * n * n) for kept, n in zip(memory, lengths)]
    check("our code keeps two tables of n² numbers of 4 bytes, within 5 %",
          all(abs(number / 2 - 1) < 0.05 for number in tables), numbers(tables))
    power = fitted_exponent(lengths, fused)
    check("without a mask the fused kernel's bytes grow like n", abs(power - 1) < 0.1, f"n^{power:.2f}")
    tables = [(kept - less) / (4 * n * n) for kept, less, n in zip(masked, fused, lengths)]
    check("with a mask the kernel keeps one more table of n² numbers, within 5 %",
          all(abs(number - 1) < 0.05 for number in tables))
    check_part(fused_attention, attention_checks, OURS)
    figure = Picture("attention_cost.png", draw_cost(lengths, work, memory, masked, fused),
                     "Work and memory grow with the square of the length; unmasked, the kernel keeps O(n)")
    both = scaled_dot_product_attention, fused_attention
    rows = [(n, f"{w / 1e6:.0f}", *(f"{b / 2**20:.2f}" for b in kept),
             *(f"{1e3 * seconds_of(attend, *qkv):.1f}" for attend in both))
            for n, w, kept, qkv in zip(lengths, work, zip(memory, masked, fused), inputs)]
    header = "n", "10⁶ products", "MiB kept", "fused, masked", "fused", "ms", "ms, fused"
    return table(*header, rows=rows), figure


def step_broken_on_purpose():
    """Broken on purpose

    These mistakes raise no error and return the right shapes. The first table shows the weights of three
    tokens under a causal mask in which token 1 may see nothing. The second names the check that each fails.
    """
    query, key = random_tensors((3, 16), (3, 16), seed=3)
    mask = causal_mask(3).index_fill(0, torch.tensor(1), False)
    mistakes = {name: mistake.implementation for name, mistake in weights_checks.mistakes(OURS).items()}
    rows = [(name, *map(numbers, weights(query, key, mask)))
            for name, weights in {"right": attention_weights, **mistakes}.items()]
    weights = table("mistake", "token 0", "token 1 (blind)", "token 2", rows=rows)
    return weights, check_mistakes(OURS, weights_checks)


def step_blind_row():
    """Appendix: a query with nothing to look at

    A blind query has a mask row without any True: the source is empty, or padding comes before a sentence
    under a causal mask. Adding −10⁹ to the scores leaves weight on hidden keys; −∞ gives 0/0. In this course
    a blind query gets 0 and finite gradients.
    """
    x, nobody = torch.randn(1, 4, 8), torch.zeros(4, 4, dtype=torch.bool)
    scores = x @ x.transpose(1, 2)
    theirs = nn.MultiheadAttention(8, 1, batch_first=True)
    weights = attention_weights(x, x, nobody)
    asked, not_asked = (theirs(x, x, x, attn_mask=~nobody, need_weights=yes)[0] for yes in (True, False))
    ours, fused = (attend(x, x, x, nobody) for attend in (scaled_dot_product_attention, fused_attention))
    check("for blind queries our weights and output are exactly 0", not ours.any() and not weights.any())
    return table("", "first row", rows=[(name, numbers(found[0, 0, :4])) for name, found in (
        ("softmax(scores − 10⁹): weights", softmax(scores - 1e9)),
        ("torch.softmax(scores − ∞): weights", torch.softmax(scores - math.inf, -1)),
        ("nn.MultiheadAttention: output", asked),
        ("nn.MultiheadAttention, need_weights=False: output", not_asked),
        ("F.scaled_dot_product_attention: output", fused),
        ("ours: output", ours))])


def attention_backward(query, key, value, grad_output):
    """Gradients of query, key and value, given the output's gradient (no mask)."""
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
    """Appendix: the backward pass by hand

    With Z for the scores, A for the weights, O = A·V for the output and d for “gradient of”:

        dV = Aᵀ·dO          dA = dO·Vᵀ
        dZ = A ∘ (dA − sum of A ∘ dA along the row)
        dQ = dZ·K / √d_k    dK = dZᵀ·Q / √d_k

    ∘ multiplies number by number. The second line is the softmax: each weight a_i depends on all scores of
    its row. Its Jacobian is ∂a_i/∂z_j = a_i·([i = j] − a_j), where [i = j] is 1 if i is j, otherwise 0.
    """
    inputs = random_tensors((2, 4, 8), (2, 5, 8), (2, 5, 3))
    leaves = [tensor.requires_grad_() for tensor in inputs]
    output = scaled_dot_product_attention(*leaves)
    grad_output = torch.cos(output).detach()
    autograd = torch.autograd.grad(output, leaves, grad_output)
    by_hand = attention_backward(*leaves, grad_output)
    for name, ours, theirs in zip("QKV", by_hand, autograd):
        check(f"d{name} by hand equals autograd's", largest_difference(ours, theirs) < 1e-12)


def step_all_checks():
    """Appendix: what the checks require

    Every statement about the parts of this lesson, as --grade reports it.
    """
    return table("part", "what has to hold", rows=[
        (name, check.statement) for name, part in GRADED.items() for check in part(None, OURS)])


def step_what_next():
    """What now?

    Read: softmax, attention_weights and scaled_dot_product_attention, then checks/attention.py, which lists
    what must hold for them.

    Change: (1) in step_by_hand, V to (1, 1), (2, 2), (3, 3): every answer lies between 1 and 3, because a
    weighted mean cannot leave the range of its values. (2) In causal_mask, tril() to tril(-1): no token sees
    itself any more. A check of step 6 fails, and one of step 7: output 3 stays the same when token 3 changes.
    (3) The second row of KEYS to the first: the two keys are equal, and the answer of step 1 is 150.

    Write it yourself: --template my_attention.py, then --grade my_attention.py.
    Next: python 02_multi_head_attention.py.
    """


def main():
    steps = [
        step_soft_dictionary,
        step_by_hand,
        step_it_is_the_cat,
        step_in_pytorch,
        step_who_asks_whom,
        step_masks,
        step_masks_hide,
        step_stable_softmax,
        step_finished,
        step_why_the_root,
        step_why_attention,
        step_other_scores,
        step_what_it_costs,
        step_broken_on_purpose,
        step_blind_row,
        step_backward_by_hand,
        step_all_checks,
        step_what_next,
    ]
    narrate(lesson_parser(__doc__, GRADED).parse_args(), __doc__, steps)


if __name__ == "__main__":
    main()

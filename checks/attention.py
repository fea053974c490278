"""What has to hold of lesson 1's parts: softmax, attention weights, attention, the two masks."""

import math

import numpy as np
import torch
import torch.nn.functional as F

from course.checking import Finding, Mistake, Part, agree, gradients, random_tensors, together

QUERY, KEY, VALUE = INPUTS = random_tensors((2, 4, 8), (2, 5, 8), (2, 5, 3))
CAUSAL = torch.ones(4, 5, dtype=torch.bool).tril()
BLIND = CAUSAL.index_fill(0, torch.tensor(1), False)  # query 1 may attend to nothing
HALVES = torch.float16, torch.bfloat16


def attention_in_numpy(query, key, value, mask=True):
    """The formula in NumPy: output (…, T, any) and weights (…, T, S)."""
    scores = query @ np.swapaxes(key, -2, -1) / np.sqrt(query.shape[-1])
    scores = np.where(mask, scores, -np.inf)
    exponentials = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return weights @ value, weights


# ------------------------------------------------------------------ softmax(scores, dim=-1)


(SCORES,) = random_tensors((2, 3, 5))


def sums_to_one(softmax, ours):
    """The weights sum to 1 along the chosen dimension."""
    return agree(softmax(SCORES, dim=1).sum(1), torch.ones(2, 5), 1e-12)


def softmax_equals_pytorch(softmax, ours):
    """It equals torch.softmax."""
    return agree(softmax(SCORES), torch.softmax(SCORES, -1), 1e-12)


def survives_large_scores(softmax, ours):
    """Scores of 1,000 (float32) and of 100 (float16) don't overflow."""
    large = torch.tensor([1000.0, 999.0, 0.0]), torch.tensor([100.0, 99.0, 0.0]).half()
    found = torch.stack([softmax(scores).double() for scores in large])
    expected = torch.softmax(torch.tensor([1.0, 0.0, -99.0]).double(), -1).expand(2, 3)
    return agree(found, expected, 1e-3)._replace(gap=None)  # float16 has three digits


def survives_hidden_rows(softmax, ours):
    """A row that is −∞ throughout gets weights 0."""
    hidden = SCORES.masked_fill(torch.arange(3)[:, None] == 1, -math.inf)
    return agree(softmax(hidden)[:, 1], torch.zeros(2, 5), 0)


def softmax_mistakes(ours):
    def naive(scores, dim=-1):
        return scores.exp() / scores.exp().sum(dim, keepdim=True)

    def dim_ignored(scores, dim=-1):
        return ours.softmax(scores)

    def undefined_where_hidden(scores, dim=-1):
        return torch.softmax(scores, dim)

    return {
        "naive": Mistake("subtract the largest score before exp()", naive, "Scores of 1,000"),
        "dim ignored": Mistake("dim is ignored: use it for the maximum and the sum", dim_ignored,
                               "The weights sum to 1"),
        "0/0": Mistake("0/0 in a hidden row: its weights are 0", undefined_where_hidden,
                       "A row that is −∞"),
    }


softmax_checks = Part(
    [sums_to_one, softmax_equals_pytorch, survives_large_scores, survives_hidden_rows], softmax_mistakes
)


# ------------------------------------------------------------------ attention_weights(query, key, mask=None)


def weights_follow_the_formula(weights, ours):
    """The weights are softmax(Q·Kᵀ / √d_k), as NumPy computes it."""
    expected = attention_in_numpy(QUERY.numpy(), KEY.numpy(), VALUE.numpy())[1]
    return agree(weights(QUERY, KEY), torch.from_numpy(expected), 1e-12)


def hidden_keys_get_zero(weights, ours):
    """Hidden keys get weight 0, the weights of the others sum to 1."""
    expected = attention_in_numpy(QUERY.numpy(), KEY.numpy(), VALUE.numpy(), CAUSAL.numpy())[1]
    return agree(weights(QUERY, KEY, CAUSAL), torch.from_numpy(expected), 1e-12)


def blind_query_has_no_weights(weights, ours):
    """A query that may attend to nothing gets weights of exactly 0."""
    return agree(weights(QUERY, KEY, BLIND)[:, 1], torch.zeros(2, 5), 0)


def weight_mistakes(ours):
    """The classic mistakes, made from the course's own softmax."""

    def from_scores(scores, mask, dim=-1):
        return ours.softmax(scores if mask is None else scores.masked_fill(~mask, -math.inf), dim)

    def not_divided(query, key, mask=None):
        return from_scores(query @ key.mT, mask)

    def divided_by_d_k(query, key, mask=None):
        return from_scores(query @ key.mT / query.shape[-1], mask)

    def softmax_over_queries(query, key, mask=None):
        return from_scores(query @ key.mT / math.sqrt(query.shape[-1]), mask, dim=-2)

    def mask_reversed(query, key, mask=None):
        return ours.attention_weights(query, key, None if mask is None else ~mask)

    def masked_after_softmax(query, key, mask=None):
        weights = ours.attention_weights(query, key)
        return weights if mask is None else weights * mask

    def nan_where_blind(query, key, mask=None):
        scores = query @ key.mT / math.sqrt(query.shape[-1])
        return torch.softmax(scores if mask is None else scores.masked_fill(~mask, -math.inf), dim=-1)

    formula, hidden = "The weights are softmax", "Hidden keys get weight 0"
    return {
        "not divided": Mistake("not divided by √d_k: the scores grow with it", not_divided, formula),
        "divided by d_k": Mistake("divided by d_k: it should be its square root", divided_by_d_k, formula),
        "softmax over queries": Mistake("softmax over queries: it belongs over the keys, dim=-1",
                                        softmax_over_queries, formula),
        "mask reversed": Mistake("the mask is reversed: True means may attend", mask_reversed, hidden),
        "masked after softmax": Mistake("masked after softmax: set the scores to −∞ before it",
                                        masked_after_softmax, hidden),
        "NaN where blind": Mistake("0/0 in a hidden row: a query that may attend to nothing gets 0",
                                   nan_where_blind, "A query that may attend to nothing"),
    }


weights_checks = Part(
    [weights_follow_the_formula, hidden_keys_get_zero, blind_query_has_no_weights], weight_mistakes
)


# ------------------------------------------------------------------ attention(query, key, value, mask)


def equals_numpy(attention, ours):
    """The output is softmax(Q·Kᵀ / √d_k) · V, as NumPy computes it."""
    expected = attention_in_numpy(QUERY.numpy(), KEY.numpy(), VALUE.numpy())[0]
    return agree(attention(*INPUTS), torch.from_numpy(expected), 1e-12)


def any_leading_dimensions(attention, ours):
    """… and PyTorch's function, with any leading dimensions, as for heads: (B, H, T, K)."""
    many = random_tensors((2, 3, 4, 6), (2, 3, 5, 6), (2, 3, 5, 3), seed=1)
    return together(*(agree(attention(*inputs), F.scaled_dot_product_attention(*inputs), 1e-12)
                      for inputs in (INPUTS, many)))


def masks_like_pytorch(attention, ours):
    """With a causal mask it equals PyTorch's function, too, and with one row for all queries."""
    row = torch.tensor([True, False, True, True, False])
    return together(*(agree(attention(*INPUTS, mask),
                            F.scaled_dot_product_attention(*INPUTS, attn_mask=torch.atleast_2d(mask)), 1e-12)
                      for mask in (CAUSAL, row)))


def hidden_keys_do_not_matter(attention, ours):
    """Other finite keys and values behind the mask change nothing, bit for bit."""
    changed_key, changed_value = KEY.clone(), VALUE.clone()
    changed_key[:, 3], changed_value[:, 3] = 9.0, -9.0  # hidden from queries 0, 1 and 2
    before, after = attention(*INPUTS, CAUSAL), attention(QUERY, changed_key, changed_value, CAUSAL)
    seeing = (before != after)[:, :3].any(-1).any(0).nonzero().flatten().tolist()
    hint = f"query {seeing[0]} sees key 3: is the mask applied before the softmax?" if seeing else ""
    return agree(after[:, :3], before[:, :3], 0, hint)


def blind_query_gets_zero(attention, ours):
    """A query that may attend to nothing gets an output of exactly 0."""
    return agree(attention(*INPUTS, BLIND)[:, 1], torch.zeros(2, 3), 0)


def gradients_equal_pytorch(attention, ours):
    """The gradients of query, key and value equal PyTorch's, also with a blind query."""
    leaves = [tensor.clone().requires_grad_() for tensor in INPUTS]
    found = attention(*leaves, BLIND).sin().sum()
    expected = F.scaled_dot_product_attention(*leaves, attn_mask=BLIND).sin().sum()
    return agree(gradients(found, leaves), gradients(expected, leaves))


def survives_half_precision(attention, ours):
    """In float16 and bfloat16 a blind query gets 0, too, and all gradients are finite."""
    findings = []
    for kind in HALVES:
        leaves = [tensor.to(kind).requires_grad_() for tensor in INPUTS]
        output = attention(*leaves, BLIND)
        slopes = gradients(output.float().sin().sum(), leaves)
        hint = f"{kind}: a gradient isn't finite"
        findings += [agree(output[:, 1], torch.zeros(2, 3), 0),
                     agree(slopes.isfinite().double(), torch.ones(len(slopes)), 0, hint)]
    return together(*findings)


def drops_weights(attention, ours):
    """dropout=0.5 sets about half of the weights to 0 and doubles the others."""
    zeros, values = torch.zeros(1, 100, 8).double(), torch.eye(8).double()[None]
    weights = attention(zeros, zeros[:, :8], values, dropout=0.5)  # the values show the weights
    share = (weights == 0).double().mean().item()
    doubled = ((weights == 0) | ((weights - 0.25).abs() < 1e-12)).all().item()
    return Finding(0.4 < share < 0.6 and doubled, f"{share:.0%}", "nn.functional.dropout does both")


def attention_mistakes(ours):
    """The mistakes with the weights, and what they make of the output."""

    def averaged(weights):
        return lambda query, key, value, mask=None, dropout=0.0: (
            F.dropout(weights(query, key, mask), dropout) @ value)

    caught_by = {"mask reversed": "With a causal", "masked after softmax": "With a causal",
                 "NaN where blind": "A query that may attend to nothing"}
    mistakes = {
        name: Mistake(mistake.hint, averaged(mistake.implementation), caught_by.get(name, "The output is"))
        for name, mistake in weight_mistakes(ours).items()
    }
    both = Mistake("the weights came back, too: return the output alone",
                   lambda query, key, value, mask=None, dropout=0.0: ours.attention_weights(query, key, mask),
                   "The output is")
    return {**mistakes, "weights returned": both}


attention_checks = Part(
    [equals_numpy, any_leading_dimensions, masks_like_pytorch, hidden_keys_do_not_matter,
     blind_query_gets_zero, gradients_equal_pytorch, survives_half_precision, drops_weights],
    attention_mistakes,
)


# ------------------------------------------------------------------ causal_mask(length), padding_mask(tokens)


TOKENS = torch.tensor([[5, 6, 7, 0], [5, 0, 0, 0]])


def boolean(mask, expected):
    """Finding: the mask is boolean and equals the expected one."""
    if mask.dtype != torch.bool:
        return Finding(False, f"dtype {mask.dtype}", "make it boolean")
    return agree(mask.int(), expected.int(), 0)


def looks_back_only(causal_mask, ours):
    """Position i may attend to j exactly where j ≤ i, as a boolean mask."""
    return boolean(causal_mask(5), torch.tensor([[j <= i for j in range(5)] for i in range(5)]))


def causal_mistakes(ours):
    back = "Position i may attend"
    return {
        "reversed": Mistake("it is reversed: True means may attend", lambda n: ~ours.causal_mask(n), back),
        "diagonal missing": Mistake("the diagonal is missing: a position may see itself",
                                    lambda n: ours.causal_mask(n).tril(-1), back),
        "transposed": Mistake("it is transposed: rows are queries, columns are keys",
                              lambda n: ours.causal_mask(n).T, back),
    }


def hides_padding(padding_mask, ours):
    """It is boolean (B, 1, 1, S): True for real tokens, False for padding."""
    return boolean(padding_mask(TOKENS, 0), torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]])[:, None, None])


def honours_pad_id(padding_mask, ours):
    """Another pad_id is honoured."""
    return boolean(padding_mask(TOKENS, 7), (TOKENS != 7)[:, None, None])


def padding_mistakes(ours):
    mask, shape = ours.padding_mask, "It is boolean (B, 1, 1, S)"
    return {
        "reversed": Mistake("it is reversed: True means may attend",
                            lambda tokens, pad_id=0: ~mask(tokens, pad_id), shape),
        "two dimensions": Mistake("add two dimensions, for heads and queries",
                                  lambda tokens, pad_id=0: mask(tokens, pad_id)[:, 0, 0], shape),
        "queries hidden": Mistake("the padding must be missing as a key (last axis), not as a query",
                                  lambda tokens, pad_id=0: mask(tokens, pad_id).mT, shape),
        "pad_id ignored": Mistake("pad_id is ignored", lambda tokens, pad_id=0: mask(tokens, 0),
                                  "Another pad_id"),
    }


causal_mask_checks = Part([looks_back_only], causal_mistakes)
padding_mask_checks = Part([hides_padding, honours_pad_id], padding_mistakes)

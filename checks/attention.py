"""What must hold for lesson 1's attention; checks/softmax.py and checks/masks.py have its other parts."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from checks.masks import causal_mask_checks as causal_mask_checks  # the lesson takes all its checks from here
from checks.masks import padding_mask_checks as padding_mask_checks
from checks.softmax import softmax_checks as softmax_checks
from checks.softmax import unchanged
from course.console.records import Finding
from course.grading.checking import Mistake, Part, agree, at, gradients, random_tensors, together

QUERY, KEY, VALUE = random_tensors((2, 4, 8), (2, 5, 8), (2, 5, 3))
CAUSAL = torch.ones(4, 5, dtype=torch.bool).tril()
BLIND = CAUSAL.index_fill(0, torch.tensor(1), False)  # query 1 may attend to nothing
SEEING = torch.tensor([0, 2, 3])  # the others
HALVES = torch.float16, torch.bfloat16
WEIGHTS, HEADS = "batch, query, key", "batch, head, query, key"


def inputs() -> list[Tensor]:
    """Query (2, 4, 8), key (2, 5, 8), value (2, 5, 3): copies, because an attempt may write into them."""
    return [QUERY.clone(), KEY.clone(), VALUE.clone()]


def for_heads() -> list[Tensor]:
    """Query (2, 3, 4, 6), key (2, 3, 5, 6), value (2, 3, 5, 2): as heads have them."""
    return random_tensors((2, 3, 4, 6), (2, 3, 5, 6), (2, 3, 5, 2), seed=1)


def masks_for_heads() -> list[Tensor]:
    """Masks of every shape that fits (2, 3, 4, 5): per head, for all heads, for all queries, for keys."""
    generator = torch.Generator().manual_seed(0)
    shapes = (2, 3, 4, 5), (2, 1, 4, 5), (2, 1, 1, 5), (4, 5), (5,)
    return [(torch.rand(shape, generator=generator) < 0.6).index_fill(-1, torch.tensor(2), True)
            for shape in shapes]


def attention_in_numpy(query, key, value, mask=True):
    """The formula in NumPy: output (…, T, any) and weights (…, T, S)."""
    scores = query @ np.swapaxes(key, -2, -1) / np.sqrt(query.shape[-1])
    scores = np.where(mask, scores, -np.inf)
    exponentials = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return weights @ value, weights


def expected_weights(query: Tensor, key: Tensor, mask: Tensor | bool = True) -> Tensor:
    """The weights that NumPy computes."""
    found = attention_in_numpy(query.numpy(), key.numpy(), key.numpy(), np.asarray(mask))[1]
    return torch.from_numpy(found)


# ------------------------------------------------------------------ attention_weights(query, key, mask=None)


def weights_follow_the_formula(weights, ours):
    """The weights are softmax(Q·Kᵀ / √d_k), as NumPy computes it, for every width and with heads."""
    problems = (WEIGHTS, inputs()[:2]), (HEADS, for_heads()[:2]), ("query, key", [x[0] for x in inputs()[:2]])
    return together(*(at(f"query {tuple(query.shape)}",
                         agree(weights(query, key), expected_weights(query, key), 1e-12, axes=axes))
                      for axes, (query, key) in problems))


def hidden_keys_get_zero(weights, ours):
    """Hidden keys get weight 0, and the weights of the other keys sum to 1."""
    query, key, _ = inputs()
    return agree(weights(query, key, CAUSAL), expected_weights(query, key, CAUSAL), 1e-12, axes=WEIGHTS)


def masks_of_every_shape(weights, ours):
    """Masks work in every shape: per head, for all heads, for all queries, and for keys only."""
    query, key, _ = for_heads()
    return together(*(
        at(f"mask {tuple(mask.shape)}",
           agree(weights(query, key, mask), expected_weights(query, key, mask), 1e-12, axes=HEADS))
        for mask in masks_for_heads()))


def blind_query_has_no_weights(weights, ours):
    """A query that may attend to nothing gets weights of exactly 0; other queries don't change."""
    query, key, _ = inputs()
    found = weights(query, key, BLIND)
    expected = expected_weights(query, key, CAUSAL)
    if not isinstance(found, Tensor) or found.shape != expected.shape:
        return agree(found, expected, axes=WEIGHTS)
    return together(agree(found[:, 1], torch.zeros(2, 5), 0, axes="batch, key"),
                    agree(found[:, SEEING], expected[:, SEEING], 1e-12))


def weights_survive_large_scores(weights, ours):
    """Scores in the thousands don't overflow in float32."""
    query, key = (1000 * QUERY).float(), KEY.float()
    return agree(weights(query, key), torch.softmax(query @ key.mT / math.sqrt(8), -1), 1e-3, axes=WEIGHTS)


def from_scores(scores, mask, softmax, dim=-1, hidden=-math.inf):
    """Weights from scores; a mask first sets some of them to `hidden`."""
    return softmax(scores if mask is None else scores.masked_fill(~mask, hidden), dim)


def divided_by(number, softmax, **options):
    """Attention weights whose scores are divided by number(query, key)."""
    return lambda query, key, mask=None: from_scores(
        query @ key.mT / number(query, key), mask, softmax, **options)


def root_of_d_k(query, key):
    return math.sqrt(query.shape[-1])


FORMULA, HIDDEN = "The weights are softmax", "Hidden keys get weight 0"
NOTHING = "A query that may attend to nothing"
REVERSED = "the mask is reversed: True means may attend"


def weight_mistakes(ours):
    """The classic mistakes, made from the course's own softmax."""

    def mask_reversed(query, key, mask=None):
        return ours.attention_weights(query, key, None if mask is None else ~mask)

    def masked_after_softmax(query, key, mask=None):
        weights = ours.attention_weights(query, key)
        return weights if mask is None else weights * mask

    return {
        "not divided": Mistake("not divided by √d_k: the scores grow with d_k",
                               divided_by(lambda query, key: 1.0, ours.softmax), FORMULA),
        "divided by d_k": Mistake("divided by d_k: it should be its square root",
                                  divided_by(lambda query, key: query.shape[-1], ours.softmax), FORMULA),
        "softmax over queries": Mistake("softmax over queries: it belongs over the keys, dim=-1",
                                        divided_by(root_of_d_k, ours.softmax, dim=-2), FORMULA),
        "mask reversed": Mistake(REVERSED, mask_reversed, HIDDEN),
        "masked after softmax": Mistake("masked after softmax: set the scores to −∞ before it",
                                        masked_after_softmax, HIDDEN),
        "NaN where blind": Mistake("0/0 in a hidden row: a query that may attend to nothing gets 0",
                                   divided_by(root_of_d_k, torch.softmax), NOTHING),
    }


def more_weight_mistakes(ours):
    """Others that the lesson doesn't show."""

    def undefined_and_reversed(query, key, mask=None):
        return divided_by(root_of_d_k, torch.softmax)(query, key, None if mask is None else ~mask)

    def mask_ignored(query, key, mask=None):
        return ours.attention_weights(query, key)

    def mask_added(query, key, mask=None):
        scores = query @ key.mT / math.sqrt(query.shape[-1])
        return ours.softmax(scores if mask is None else scores + mask)

    def mask_multiplied(query, key, mask=None):
        scores = query @ key.mT / math.sqrt(query.shape[-1])
        return ours.softmax(scores if mask is None else scores * mask)

    def naive(scores, dim):
        return scores.exp() / scores.exp().sum(dim, keepdim=True)

    return {
        "divided by √S": Mistake("divided by the root of the number of keys: d_k is shape[-1]",
                                 divided_by(lambda query, key: math.sqrt(key.shape[-2]), ours.softmax),
                                 FORMULA),
        "divided by √T": Mistake("divided by the root of the number of queries: d_k is shape[-1]",
                                 divided_by(lambda query, key: math.sqrt(query.shape[-2]), ours.softmax),
                                 FORMULA),
        "multiplied": Mistake("multiplied by √d_k: divide by it",
                              divided_by(lambda query, key: query.shape[-1] ** -0.5, ours.softmax), FORMULA),
        "mask added": Mistake("the mask was added to the scores: they must be −∞ where it is False",
                              mask_added, HIDDEN),
        "mask multiplied": Mistake("the scores were multiplied by the mask: a score of 0 still gets weight; "
                                   "they must be −∞ where it is False", mask_multiplied, HIDDEN),
        "divided by √B": Mistake("divided by the root of the first size, the batch: d_k is shape[-1]",
                                 divided_by(lambda query, key: math.sqrt(query.shape[0]), ours.softmax),
                                 FORMULA),
        "mask reversed, NaN": Mistake(REVERSED, undefined_and_reversed, HIDDEN),
        "mask ignored": Mistake("the mask is ignored: hidden scores must be −∞ before the softmax",
                                mask_ignored, HIDDEN),
        "a large number": Mistake("hidden scores got a number, such as −1e9: if all keys are hidden, all "
                                  "weights become equal; use −∞, and the softmax of this lesson",
                                  divided_by(root_of_d_k, ours.softmax, hidden=-1e9), NOTHING),
        "overflow": Mistake("exp() overflows: subtract the largest score first, as softmax() does",
                            divided_by(root_of_d_k, naive), "Scores in the thousands"),
    }


weights_checks = Part(
    [weights_follow_the_formula, hidden_keys_get_zero, masks_of_every_shape, blind_query_has_no_weights,
     weights_survive_large_scores],
    weight_mistakes,
    more=more_weight_mistakes,
)


# ------------------------------------------------------------------ attention(query, key, value, mask)


OUTPUT, OUTPUTS = "batch, query, number", "batch, head, query, number"
EXPECTED = F.scaled_dot_product_attention(QUERY, KEY, VALUE, attn_mask=CAUSAL)


def equals_numpy(attention, ours):
    """The output is softmax(Q·Kᵀ / √d_k) · V, as NumPy computes it."""
    expected = attention_in_numpy(QUERY.numpy(), KEY.numpy(), VALUE.numpy())[0]
    return agree(attention(*inputs()), torch.from_numpy(expected), 1e-12, axes=OUTPUT)


def any_leading_dimensions(attention, ours):
    """It equals PyTorch's function, with any leading dimensions, for example heads: (B, H, T, K)."""
    problems = (OUTPUT, inputs()), (OUTPUTS, for_heads()), ("query, number", [x[0] for x in inputs()])
    return together(*(agree(attention(*given), F.scaled_dot_product_attention(*given), 1e-12, axes=axes)
                      for axes, given in problems))


def masks_like_pytorch(attention, ours):
    """With a causal mask, and with masks of every shape, it equals PyTorch's function."""
    problems = [(OUTPUT, inputs(), CAUSAL), *((OUTPUTS, for_heads(), mask) for mask in masks_for_heads())]
    return together(*(
        at(f"mask {tuple(mask.shape)}", agree(
            attention(*given, mask), F.scaled_dot_product_attention(*given, attn_mask=torch.atleast_2d(mask)),
            1e-12, axes=axes))
        for axes, given, mask in problems))


def hidden_keys_do_not_matter(attention, ours):
    """If hidden keys and values become other finite numbers, nothing changes, bit for bit."""
    changed_key, changed_value = KEY.clone(), VALUE.clone()
    changed_key[:, 3], changed_value[:, 3] = 9.0, -9.0  # hidden from queries 0, 1 and 2
    before, after = attention(*inputs(), CAUSAL), attention(QUERY.clone(), changed_key, changed_value, CAUSAL)
    seeing = (before != after)[:, :3].any(-1).any(0).nonzero().flatten().tolist()
    hint = f"query {seeing[0]} sees key 3: is the mask applied before the softmax?" if seeing else ""
    return agree(after[:, :3], before[:, :3], 0, hint)


def blind_query_gets_zero(attention, ours):
    """A query that may attend to nothing gets an output of exactly 0; other queries don't change."""
    found = attention(*inputs(), BLIND)
    return together(agree(found[:, 1], torch.zeros(2, 3), 0, axes="batch, number"),
                    agree(found[:, SEEING], EXPECTED[:, SEEING], 1e-12))


def gradients_equal_pytorch(attention, ours):
    """The gradients of query, key and value equal PyTorch's, also with a blind query."""
    leaves = [tensor.requires_grad_() for tensor in inputs()]
    found = attention(*leaves, BLIND).sin().sum()
    expected = F.scaled_dot_product_attention(*leaves, attn_mask=BLIND).sin().sum()
    return agree(gradients(found, leaves), gradients(expected, leaves))


def survives_half_precision(attention, ours):
    """In float16 and bfloat16 a blind query also gets 0, and all gradients are finite."""
    findings = []
    for kind in HALVES:
        leaves = [tensor.to(kind).requires_grad_() for tensor in inputs()]
        try:
            output = attention(*leaves, BLIND)
        except RuntimeError as error:
            if "overflow" not in str(error):
                raise
            return Finding(False, f"a number that does not fit into {kind}".replace("torch.", ""),
                           "float16 ends at 65,504: −1e9 is too large for it; −math.inf fits every type")
        slopes = gradients(output.float().sin().sum(), leaves)
        hint = f"{kind}: a gradient isn't finite"
        findings += [agree(output[:, 1], torch.zeros(2, 3), 0, axes="batch, number"),
                     agree(output[:, SEEING], EXPECTED[:, SEEING], 0.1)._replace(gap=None),
                     agree(slopes.isfinite().double(), torch.ones(len(slopes)), 0, hint)]
    return together(*findings)


def drops_weights(attention, ours):
    """dropout=0.5 sets about half of the weights to 0 and doubles the others; dropout=0.2 drops a fifth."""
    zeros, eye = torch.zeros(2, 100, 8).double(), torch.eye(8).double().expand(2, 8, 8)
    shares = []
    for dropout in (0.5, 0.2):
        output = attention(zeros, zeros[:, :8], torch.cat([eye, eye], -1), dropout=dropout)
        weights, again = output.chunk(2, -1)  # the values show the weights, twice
        if not torch.equal(weights, again):
            return Finding(False, "part of a value is 0", "drop weights, not numbers of the output")
        shares.append((weights == 0).double().mean().item())
        if abs(shares[-1] - dropout) > 0.1:
            return Finding(False, f"dropout={dropout}: {shares[-1]:.0%}", "that fraction should be set to 0")
        if (weights[weights != 0] - 1 / 8 / (1 - dropout)).abs().max() > 1e-12:
            return Finding(False, f"dropout={dropout}", "the kept weights should be divided by 1 − dropout: "
                                                        "nn.functional.dropout does both")
    return Finding(True, f"{shares[0]:.0%} and {shares[1]:.0%}")


def leaves_inputs_alone(attention, ours):
    """Query, key, value and mask stay unchanged."""
    return unchanged(attention, [*inputs(), CAUSAL.clone()])


def averaging(mistakes, left_out=()):
    """The mistakes with the weights, and what they make of the output."""

    def averaged(weights):
        return lambda query, key, value, mask=None, dropout=0.0: (
            F.dropout(weights(query, key, mask), dropout) @ value)

    caught_by = {FORMULA: "The output is", HIDDEN: "With a causal", NOTHING: NOTHING}
    return {name: Mistake(mistake.hint, averaged(mistake.implementation), caught_by[mistake.caught_by])
            for name, mistake in mistakes.items() if name not in left_out}


def attention_mistakes(ours):
    both = Mistake("the weights came back as well: return only the output",
                   lambda query, key, value, mask=None, dropout=0.0: ours.attention_weights(query, key, mask),
                   "The output is")
    return {**averaging(weight_mistakes(ours)), "weights returned": both}


attention_checks = Part(
    [equals_numpy, any_leading_dimensions, masks_like_pytorch, hidden_keys_do_not_matter,
     blind_query_gets_zero, gradients_equal_pytorch, survives_half_precision, drops_weights,
     leaves_inputs_alone],
    attention_mistakes,
    more=lambda ours: averaging(more_weight_mistakes(ours), left_out=["overflow"]),
)

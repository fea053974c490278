"""What must hold for lesson 11's linear attention and its random features."""

import math
from functools import partial

import torch
from torch import Tensor

from course.console.measuring import multiplications_of
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

CHUNKS = 1, 5, 64


def squares(x: Tensor) -> Tensor:
    """Features unlike the default ones: 1 + x² and its double, side by side."""
    return torch.cat([1 + x.square(), 2 + 2 * x.square()], -1)


def elu_plus_one(x: Tensor) -> Tensor:
    return torch.where(x > 0, x + 1, x.exp())


def by_table(query, key, value, causal=True, feature=elu_plus_one) -> Tensor:
    """The definition, with a table of n² weights."""
    products = feature(query) @ feature(key).mT  # (…, T, S)
    if causal:
        T, S = products.shape[-2:]
        products = products * torch.ones(T, S).tril(S - T)
    total = products.sum(-1, keepdim=True)
    return torch.where(total > 0, products @ value / total.clamp(min=1e-300), 0.0)


def problem(n_queries: int = 12, n_keys: int = 12) -> list[Tensor]:
    """Query (2, 3, T, 8), key (2, 3, S, 8), value (2, 3, S, 5) in float64."""
    return random_tensors((2, 3, n_queries, 8), (2, 3, n_keys, 8), (2, 3, n_keys, 5))


# ------------------------------------------------------------------ linear_attention(query, key, value, …)


def equals_the_table(linear, ours):
    """Without a causal order it is the mean with weights φ(q)·φ(k), for any leading dimensions."""
    given, flat = problem(7, 12), [x[0, 0] for x in problem()]
    return together(*(at(f"query {tuple(x[0].shape)}", agree(
        linear(*x, causal=False), by_table(*x, causal=False), 1e-12)) for x in (given, flat)))


def causal_equals_the_table(linear, ours):
    """In causal order each query sees itself and what came before, in chunks of any size."""
    return together(*(at(f"chunk={chunk}", agree(linear(*problem(), causal=True, chunk=chunk),
                                                 by_table(*problem()), 1e-12)) for chunk in CHUNKS))


def fewer_queries_are_the_last(linear, ours):
    """In causal order, T queries with S keys are at the last T positions."""
    return agree(linear(*problem(3), causal=True, chunk=2), by_table(*problem(3)), 1e-12)


def uses_the_features(linear, ours):
    """It uses the feature map that it is given, of any width, for queries and keys."""
    return together(*(agree(linear(*problem(), causal=causal, feature=squares),
                            by_table(*problem(), causal, squares), 1e-12) for causal in (True, False)))


def gradients_of_the_table(linear, ours):
    """Its gradients are those of the table."""
    findings = []
    for causal in (True, False):
        leaves = [x.requires_grad_() for x in problem()]
        found, wanted = linear(*leaves, causal=causal, chunk=5), by_table(*leaves, causal)
        findings.append(agree(gradients(found.sin().sum(), leaves), gradients(wanted.sin().sum(), leaves)))
    return together(*findings)


def grows_with_n(linear, ours):
    """Four times the length takes four times the products, not sixteen times."""
    ratios = []
    for causal in (True, False):
        few, many = (multiplications_of(partial(linear, causal=causal, chunk=16),
                                        *random_tensors((n, 8), (n, 8), (n, 8))) for n in (128, 512))
        ratios.append(many / max(few, 1))
    worst = max(ratios)
    hint = "multiply φ(K)ᵀ·V first: it doesn't grow with n"
    finding = agree(torch.tensor(worst), torch.tensor(4.0), 0.5, hint)
    return finding._replace(figure=f"{worst:.1f} times", gap=None)


def halves_are_computed_in_float32(linear, ours):
    """float16 and bfloat16 inputs give outputs of their type, computed in float32."""
    findings = []
    for kind, tolerance in ((torch.float16, 1e-3), (torch.bfloat16, 8e-3)):
        given = [x.to(kind) for x in random_tensors((600, 8), (600, 8), (600, 8))]
        for causal in (True, False):
            found = linear(*given, causal=causal)
            if found.dtype != kind:
                return Finding(False, f"{kind} came back as {found.dtype}", "convert the output back")
            exact = by_table(*(x.double() for x in given), causal)
            findings.append(at(str(kind), agree(found[300:], exact[300:], tolerance / 4,
                                                "convert to float32 first: long 16-bit sums are rounded")))
    return together(*findings)._replace(gap=None)


def short_sequences(linear, ours):
    """Sequences of length 0 and 1 work; a query without keys gets 0."""
    return together(*(at(f"{T} queries, {S} keys", agree(linear(*problem(T, S), causal=causal),
                                                         by_table(*problem(T, S), causal), 1e-12))
                      for T, S in ((0, 0), (0, 3), (1, 0), (1, 1), (4, 1)) for causal in (True, False)))


def refuses_empty_chunks(linear, ours):
    """A chunk below 1 is refused with a ValueError that names the number."""
    return refused(lambda: linear(*problem(), chunk=0), 0)


def linear_mistakes(ours):
    def with_one(change):
        """ours.linear_attention whose inputs or output were changed."""

        def linear(query, key, value, causal=True, feature=ours.elu_plus_one, chunk=64):
            return change(query, key, value, causal, feature, chunk)

        return linear

    def no_normaliser(query, key, value, causal, feature, chunk):
        products = feature(query) @ feature(key).mT
        return (products.tril(key.shape[-2] - query.shape[-2]) if causal else products) @ value

    def order_ignored(query, key, value, causal, feature, chunk):
        return ours.linear_attention(query, key, value, False, feature, chunk)

    def own_key_left_out(query, key, value, causal, feature, chunk):
        if not causal:
            return ours.linear_attention(query, key, value, causal, feature, chunk)
        products = (feature(query) @ feature(key).mT).tril(key.shape[-2] - query.shape[-2] - 1)
        return products @ value / products.sum(-1, keepdim=True).clamp(min=1e-30)

    return {
        "normaliser left out": Mistake("divide by the sum of the weights, Σ φ(q)·φ(k)",
                                       with_one(no_normaliser), "Without a causal order"),
        "order ignored": Mistake("causal: a query must not see the keys after it", with_one(order_ignored),
                                 "In causal order each query"),
        "own key left out": Mistake("the query's own key counts: add it before the query looks",
                                    with_one(own_key_left_out), "In causal order each query"),
    }


def more_linear_mistakes(ours):
    def chunks_forget(query, key, value, causal=True, feature=ours.elu_plus_one, chunk=64):
        if not causal:
            return ours.linear_attention(query, key, value, causal, feature, chunk)
        late = key.shape[-2] - query.shape[-2]
        return torch.cat([ours.linear_attention(query[..., rows, :], key[..., late:, :][..., rows, :],
                                                value[..., late:, :][..., rows, :], True, feature, chunk)
                          for rows in ours.tiles(query.shape[-2], chunk)], -2)

    def always_elu(query, key, value, causal=True, feature=None, chunk=64):
        return ours.linear_attention(query, key, value, causal, ours.elu_plus_one, chunk)

    def by_the_table(query, key, value, causal=True, feature=ours.elu_plus_one, chunk=64):
        return by_table(query, key, value, causal, feature)

    return {
        "chunks forget": Mistake("each chunk begins with the sums of all chunks before it", chunks_forget,
                                 "In causal order each query"),
        "feature ignored": Mistake("use the feature map that was passed", always_elu, "It uses the feature"),
        "a table": Mistake("multiply φ(K)ᵀ·V first: it doesn't grow with n", by_the_table, "Four times the"),
    }


linear_attention_checks = Part(
    [equals_the_table, causal_equals_the_table, fewer_queries_are_the_last, uses_the_features,
     gradients_of_the_table, grows_with_n, halves_are_computed_in_float32, short_sequences,
     refuses_empty_chunks],
    linear_mistakes,
    "`feature` maps (…, L, K) to (…, L, any); the default, elu_plus_one(x), is elu(x) + 1.",
    more=more_linear_mistakes,
)


# ------------------------------------------------------------------ positive_features(x, w)


def follow_the_formula(features, ours):
    """They are e^(w·x′ − |x′|²/2) / √m with x′ = x / d_k^¼, with any leading dimensions."""
    x, w = random_tensors((2, 3, 5, 8), (6, 8))
    small = x / 8**0.25
    wanted = torch.exp(small @ w.mT - (small**2).sum(-1, keepdim=True) / 2) / math.sqrt(6)
    return together(agree(features(x, w), wanted, 1e-12, axes="batch, head, token, feature"),
                    agree(features(x[0, 0], w), wanted[0, 0], 1e-12, axes="token, feature"))


def estimate_the_exponential(features, ours):
    """Over 20,000 directions φ(q)·φ(k) is e^(q·k/√d_k) within 5 %."""
    query, key, w = random_tensors((6, 16), (6, 16), (20_000, 16))
    query, key = query / 2, key / 2
    ratio = (features(query, w) * features(key, w)).sum(-1) / torch.exp((query * key).sum(-1) / 4)
    return agree(ratio, torch.ones(6), 0.05)


def are_positive(features, ours):
    """All features are positive, so that no weight is negative."""
    x, w = random_tensors((50, 16), (64, 16))
    found = features(x, w)
    finding = agree((found > 0).double(), torch.ones(50, 64), 0, "e to any power is positive")
    return finding._replace(figure=f"at least {found.min().item():.1e}", gap=None)


def do_not_depend_on_others(features, ours):
    """The features of a token don't depend on the other tokens, bit for bit."""
    x, w = random_tensors((2, 16), (4, 16))
    other = x.clone()
    other[1] = 9.0
    return agree(features(other, w)[0], features(x, w)[0], 0)


def have_range(features, ours):
    """Features of float16 tokens come back in float32: e^12 doesn't fit into float16."""
    x, w = (3 * y for y in random_tensors((20, 16), (20, 16), seed=2))
    found = features(x.half(), w.half())
    if found.dtype != torch.float32:
        return Finding(False, f"{found.dtype} came back", "convert to float32 first")
    exact = features(x.half().double(), w.half().double())
    return agree(found / exact, torch.ones(20, 20), 1e-3)


def feature_mistakes(ours):
    def changed(scale=0.25, norm=0.5, divide=True, own_maximum=False):
        def features(x, w):
            x = x.to(torch.promote_types(x.dtype, torch.float32)) / x.shape[-1] ** scale
            exponent = x @ w.to(x.dtype).mT - norm * x.square().sum(-1, keepdim=True)
            exponent = exponent - exponent.amax(-1, keepdim=True) if own_maximum else exponent
            return exponent.exp() / (math.sqrt(len(w)) if divide else 1.0)

        return features

    formula = "They are e^"
    return {
        "each key's own maximum": Mistake(
            "each vector's own maximum is subtracted, which changes its weight: subtract the same from all",
            changed(own_maximum=True), formula),
        "squared length left out": Mistake("subtract half of the squared length, |x′|²/2", changed(norm=0.0),
                                           formula),
        "squared length not halved": Mistake("subtract half of the squared length, not all of it",
                                             changed(norm=1.0), formula),
        "divided by √d_k": Mistake("divide x by d_k^¼: query and key together are then divided by √d_k",
                                   changed(scale=0.5), formula),
    }


def more_feature_mistakes(ours):
    def not_divided(x, w):
        return ours.positive_features(x, w) * x.shape[-1] ** 0.25

    def without_the_root(x, w):
        return ours.positive_features(x, w) * math.sqrt(len(w))

    def not_scaled(x, w):
        return ours.positive_features(x * x.shape[-1] ** 0.25, w)

    def waves(x, w):
        x = x.to(torch.promote_types(x.dtype, torch.float32)) / x.shape[-1] ** 0.25
        angles, half = x @ w.to(x.dtype).mT, len(w) // 2
        size = torch.exp(x.square().sum(-1, keepdim=True) / 2) / math.sqrt(half)
        return size * torch.cat([angles[..., :half].sin(), angles[..., half:].cos()], -1)

    return {
        "sines and cosines": Mistake("sines and cosines can be negative, and so can the weights", waves,
                                     "All features are positive"),
        "√m left out": Mistake("divide by √m, so that products are means", without_the_root, "They are e^"),
        "x not scaled": Mistake("divide x by d_k^¼ first", not_scaled, "They are e^"),
        "multiplied": Mistake("d_k^¼ divides x, not the features", not_divided, "They are e^"),
    }


positive_features_checks = Part(
    [follow_the_formula, estimate_the_exponential, are_positive, do_not_depend_on_others, have_range],
    feature_mistakes,
    "x (…, L, K) and directions w (m, K) → (…, L, m).",
    more=more_feature_mistakes,
)

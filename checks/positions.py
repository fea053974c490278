"""What has to hold of lesson 3's parts: the tokenizer, the embedding, three encodings of positions."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course.checking import (
    Finding,
    Mistake,
    Part,
    agree,
    gradients,
    largest_difference,
    random_tensors,
    refused,
)

# ------------------------------------------------------------------ Tokenizer(texts, level="word")


SENTENCE = "the cat sat on the mat"
TEXTS = [SENTENCE, "a  cat, twice", ""]


def round_trips_words(tokenizer, ours):
    """Words: decode(encode(text)) is the text, double spaces included."""
    built = tokenizer(TEXTS)
    wrong = [text for text in TEXTS if built.decode(built.encode(text)) != text]
    return Finding(not wrong, f"{len(TEXTS) - len(wrong)} of {len(TEXTS)} texts",
                   f"changed: {wrong}; split at single spaces")


def round_trips_characters(tokenizer, ours):
    """Characters: the same."""
    built = tokenizer(TEXTS, "character")
    wrong = [text for text in TEXTS if built.decode(built.encode(text)) != text]
    return Finding(not wrong, f"{len(TEXTS) - len(wrong)} of {len(TEXTS)} texts")


def ids_start_after_the_specials(tokenizer, ours):
    """Ids are 3, 4, … in the order of appearance; 0, 1, 2 stay free and decode to nothing."""
    built = tokenizer([SENTENCE])
    found = [*built.encode("the cat the"), len(built)]
    silent = built.decode([1, 3, 2, 0]) == "the"
    return Finding(found == [3, 4, 3, 8] and silent, f"ids {found[:3]}, {found[3]} in all")


def refuses_unknown_tokens(tokenizer, ours):
    """An unknown word is a ValueError that names it."""
    return refused(lambda: tokenizer([SENTENCE]).encode("the dog"), "dog")


tokenizer_checks = Part(
    [round_trips_words, round_trips_characters, ids_start_after_the_specials, refuses_unknown_tokens],
    needs="The checks call encode(text), decode(ids) and len().",
)


# ------------------------------------------------------------------ TokenEmbedding(vocab_size, d_model)


TOKENS = torch.tensor([[3, 1, 4], [1, 5, 3]])
(WEIGHT,) = random_tensors((7, 16))


def with_weight(embedding) -> nn.Module:
    """An embedding of 7 tokens whose vectors are WEIGHT."""
    built = embedding(7, 16).double()
    with torch.no_grad():
        built.weight.copy_(WEIGHT)
    return built


def is_a_scaled_lookup(embedding, ours):
    """It equals one-hot · weight · √d_model."""
    return agree(with_weight(embedding)(TOKENS), F.one_hot(TOKENS, 7).double() @ WEIGHT * 4, 1e-12)


def has_tied_logits(embedding, ours):
    """logits(x) is x · weightᵀ, from the same parameter."""
    (x,) = random_tensors((2, 3, 16), seed=1)
    return agree(with_weight(embedding).logits(x), x @ WEIGHT.T, 1e-12)


def starts_at_the_right_size(embedding, ours):
    """The weight starts with standard deviation d_model^−0.5."""
    std = embedding(4000, 64).weight.std().item()
    return Finding(abs(std * 8 - 1) < 0.02, f"{std:.4f}, expected 0.1250")


def embedding_learns(embedding, ours):
    """The gradient of the weight equals that of nn.functional.embedding."""
    built, weight = with_weight(embedding), WEIGHT.clone().requires_grad_()
    expected = gradients((F.embedding(TOKENS, weight) * 4).sin().sum(), [weight])
    return agree(gradients(built(TOKENS).sin().sum(), [built.weight]), expected)


def embedding_mistakes(ours):
    class NotScaled(ours.TokenEmbedding):
        def forward(self, tokens):
            return F.embedding(tokens, self.weight)

    hint = "the vectors aren't multiplied by √d_model"
    return {"not scaled": Mistake(hint, NotScaled, "It equals one-hot")}


embedding_checks = Part(
    [is_a_scaled_lookup, has_tied_logits, starts_at_the_right_size, embedding_learns],
    embedding_mistakes,
    needs="The checks set `weight`, an nn.Parameter (vocab_size, d_model), and call logits(x).",
)


# ------------------------------------------------------------------ SinusoidalPositionalEncoding


NOTHING = torch.zeros(1, 20, 8)
FIRST, SECOND = (x.float() for x in random_tensors((1, 20, 8), (1, 20, 8)))


def formula(position: int, column: int) -> float:
    """Section 3.5 for d_model = 8, one number at a time."""
    angle = position / 10000 ** ((column - column % 2) / 8)
    return math.cos(angle) if column % 2 else math.sin(angle)


def positions_from(start: int) -> Tensor:
    """(20, 8): what the formula says of 20 positions."""
    return torch.tensor([[formula(p, c) for c in range(8)] for p in range(start, start + 20)])


def follows_the_formula(encoding, ours):
    """Every number is that of section 3.5."""
    return agree(encoding(8, 40)(NOTHING)[0], positions_from(0), 1e-6)


def waves_honour_start(encoding, ours):
    """With start = 7 the first token is at position 7."""
    return agree(encoding(8, 40)(NOTHING, 7)[0], positions_from(7), 1e-6)


def is_added(encoding, ours):
    """It is added to what comes in."""
    built, (x,) = encoding(8, 40), random_tensors((2, 20, 8))
    return agree(built(x.float()) - built(NOTHING), x.float(), 1e-6)


def refuses_positions_past_the_end(encoding, ours):
    """Past max_len it is a ValueError that names both numbers."""
    return refused(lambda: encoding(8, 40)(torch.zeros(1, 1, 8), 43), 43, 40)


def refuses_odd_widths(encoding, ours):
    """An odd d_model is a ValueError that names it."""
    return refused(lambda: encoding(7, 40), 7)


def sinusoidal_mistakes(ours):
    class CosineExponentOffByOne(ours.SinusoidalPositionalEncoding):
        """The cosine's exponent is 2i + 1, its own column, not that of its sine."""

        def __init__(self, d_model, max_len=512):
            super().__init__(d_model, max_len)
            frequencies = 10000.0 ** (-torch.arange(1, d_model, 2) / d_model)
            angles = torch.arange(max_len)[:, None] * frequencies
            self.table[:, 1::2] = torch.cos(angles)

    class Halves(ours.SinusoidalPositionalEncoding):
        """Not the paper's text: all sines first, then all cosines (as its authors' code did)."""

        def __init__(self, d_model, max_len=512):
            super().__init__(d_model, max_len)
            self.table = torch.cat([self.table[:, 0::2], self.table[:, 1::2]], dim=1)

    class StartIgnored(ours.SinusoidalPositionalEncoding):
        """Every decoded token gets position 0."""

        def forward(self, x, start=0):
            return super().forward(x, 0)

    every = "Every number"
    return {
        "cosine's own exponent": Mistake(
            "the cosine must have the frequency of the sine beside it: the exponent is 2i/d_model in both",
            CosineExponentOffByOne, every),
        "two halves": Mistake("sines and cosines are in two halves; section 3.5 puts them side by side",
                              Halves, every),
        "start ignored": Mistake("start is ignored: while decoding, every token would get position 0",
                                 StartIgnored, "With start = 7"),
    }


sinusoidal_checks = Part(
    [follows_the_formula, waves_honour_start, is_added, refuses_positions_past_the_end, refuses_odd_widths],
    sinusoidal_mistakes,
)


# ------------------------------------------------------------------ LearnedPositionalEncoding


def adds_one_vector_a_position(encoding, ours):
    """What is added depends on the position alone, also from start on."""
    built = encoding(8, 40)
    whole = built(FIRST) - FIRST
    part = built(SECOND[:, :5], 7) - SECOND[:, :5]
    return agree(part, whole[:, 7:12], 1e-6)


def tells_positions_apart(encoding, ours):
    """No two positions start with the same vector."""
    vectors = encoding(8, 40)(torch.zeros(1, 40, 8))[0]
    distinct = len(vectors.unique(dim=0))
    return Finding(distinct == 40, f"{distinct} different vectors of 40", "start from random numbers")


def is_a_parameter(encoding, ours):
    """Every used position receives a gradient, and no other."""
    built = encoding(8, 40)
    tables = list(built.parameters())
    if len(tables) != 1:
        return Finding(False, f"{len(tables)} parameters", "one nn.Parameter of (max_len, d_model)")
    built(torch.zeros(1, 5, 8), 3).sum().backward()
    if tables[0].grad is None:
        return Finding(False, "no gradient for the parameter", "does forward() use it?")
    used = tables[0].grad.abs().sum(-1).nonzero().flatten().tolist()
    return Finding(used == [3, 4, 5, 6, 7], f"positions {used}")


learned_checks = Part(
    [adds_one_vector_a_position, tells_positions_apart, is_a_parameter, refuses_positions_past_the_end]
)


# ------------------------------------------------------------------ RotaryPositionalEncoding


QUERY, KEY = (x.float() for x in random_tensors((1, 1, 20, 8), (1, 1, 20, 8)))


def turns_pairs(encoding, ours):
    """Seen as complex numbers, pair j at position p is multiplied by e^(i·p·f_j)."""
    frequencies = 10000.0 ** (-torch.arange(0, 8, 2).double() / 8)
    angles = torch.arange(20)[:, None] * frequencies
    pairs = torch.view_as_complex(QUERY.double().unflatten(-1, (4, 2)))
    turned = torch.view_as_real(pairs * torch.exp(1j * angles)).flatten(-2)
    return agree(encoding(8, 40)(QUERY), turned, 1e-5)


def keeps_the_length(encoding, ours):
    """Rotation changes no vector's length."""
    return agree(encoding(8, 40)(QUERY).norm(dim=-1), QUERY.norm(dim=-1), 1e-5)


def sees_offsets_only(encoding, ours):
    """The scores depend on the offset alone: 9 positions later they are the same."""
    built = encoding(8, 40)
    now = built(QUERY) @ built(KEY).mT
    finding = agree(built(QUERY, 9) @ built(KEY, 9).mT, now, 1e-4)
    if finding.holds and largest_difference(now, QUERY @ KEY.mT) < 1e-4:
        return Finding(False, "the scores don't change with the offset either")
    return finding


def rotation_honours_start(encoding, ours):
    """With start = 7 the first token is at position 7."""
    built = encoding(8, 40)
    return agree(built(QUERY[:, :, 7:], 7), built(QUERY)[:, :, 7:], 1e-6)


def rotary_refuses_positions_past_the_end(encoding, ours):
    """Past max_len it is a ValueError that names both numbers."""
    return refused(lambda: encoding(8, 40)(QUERY[:, :, :1], 43), 43, 40)


def refuses_odd_heads(encoding, ours):
    """An odd d_k is a ValueError that names it."""
    return refused(lambda: encoding(7, 40), 7)


def rotary_mistakes(ours):
    class Halves(ours.RotaryPositionalEncoding):
        """Not the paper's text: number i is paired with number i + d_k / 2 (as in GPT-NeoX)."""

        def forward(self, x, start=0):
            half = x.shape[-1] // 2
            pairs = torch.stack([x[..., :half], x[..., half:]], dim=-1).flatten(-2)
            turned = super().forward(pairs, start)
            return torch.cat([turned[..., 0::2], turned[..., 1::2]], dim=-1)

    class StartIgnored(ours.RotaryPositionalEncoding):
        """Every decoded token is turned as if at position 0."""

        def forward(self, x, start=0):
            return super().forward(x, 0)

    return {
        "two halves": Mistake("number i is paired with i + d_k/2; pair neighbours, 2i with 2i + 1", Halves,
                              "Seen as complex numbers"),
        "start ignored": Mistake("start is ignored: while decoding, every token would be at position 0",
                                 StartIgnored, "With start = 7"),
    }


rotary_checks = Part(
    [turns_pairs, keeps_the_length, sees_offsets_only, rotation_honours_start,
     rotary_refuses_positions_past_the_end, refuses_odd_heads],
    rotary_mistakes,
)

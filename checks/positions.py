"""What must hold for lesson 3's three encodings of positions; checks/tokens.py has the rest."""

import math

import torch
from torch import Tensor

from checks.tokens import embedding_checks as embedding_checks  # the lesson takes all its checks from here
from checks.tokens import tokenizer_checks as tokenizer_checks
from course.console.records import Finding
from course.grading.checking import (
    Mistake,
    Part,
    agree,
    at,
    largest_difference,
    random_tensors,
    refused,
    together,
)

SIZES = (8, 40, 20), (6, 30, 11)  # d_model, max_len, length
START_IGNORED = "start is ignored: while decoding, every token would get position 0"
PLACES, ADDED = "position, number", "batch, position, number"


def zeros(length: int, width: int) -> Tensor:
    return torch.zeros(2, length, width)


# ------------------------------------------------------------------ SinusoidalPositionalEncoding


FIRST, SECOND = (x.float() for x in random_tensors((2, 20, 8), (2, 20, 8)))


def formula(position: int, column: int, d_model: int) -> float:
    """Section 3.5, one number at a time."""
    angle = position / 10000 ** ((column - column % 2) / d_model)
    return math.cos(angle) if column % 2 else math.sin(angle)


def positions_from(start: int, length: int, d_model: int) -> Tensor:
    """(length, d_model): what the formula says of the positions from start on."""
    return torch.tensor([[formula(p, c, d_model) for c in range(d_model)]
                         for p in range(start, start + length)])


def follows_the_formula(encoding, ours):
    """Every number follows the formula of section 3.5, for every width."""
    return together(*(at(f"d_model {d_model}", agree(encoding(d_model, max_len)(zeros(length, d_model))[0],
                                                    positions_from(0, length, d_model), 1e-5, axes=PLACES))
                      for d_model, max_len, length in SIZES))


def waves_honour_start(encoding, ours):
    """With start = 7 the first token is at position 7."""
    return together(*(agree(encoding(8, 40)(zeros(20, 8), start)[0], positions_from(start, 20, 8), 1e-5,
                            axes=PLACES) for start in (7, 20)))


def is_added(encoding, ours):
    """The positions are added to the input, and the input itself stays unchanged."""
    built, (x,) = encoding(8, 40), random_tensors((2, 20, 8))
    x = x.float()
    given, nothing = x.clone(), zeros(20, 8)
    found = built(given) - built(nothing)
    changed = Finding(not nothing.any() and torch.equal(given, x), "x was changed",
                      "x += … writes into what was given: write x + …")
    return together(changed, agree(found, x, 1e-5, axes=ADDED))


def refuses_positions_past_the_end(encoding, ours):
    """A position past max_len raises a ValueError that names both numbers; earlier positions work."""
    built = encoding(8, 40)
    last = built(zeros(1, 8), 39), built(zeros(40, 8))
    fits = Finding([tuple(x.shape) for x in last] == [(2, 1, 8), (2, 40, 8)])
    first = refused(lambda: built(zeros(1, 8), 43), 43, 40)
    past = (1, 40), (3, 38), (41, 0)  # length, start
    return together(fits, first, *(refused(lambda n=n, s=s: built(zeros(n, 8), s), 40) for n, s in past))


def refuses_odd_widths(encoding, ours):
    """An odd d_model raises a ValueError that names it."""
    return together(refused(lambda: encoding(7, 40), 7), refused(lambda: encoding(11, 40), 11))


def waves_are_not_learned(encoding, ours):
    """The encoding has no parameters."""
    names = [name for name, _ in encoding(8, 40).named_parameters()]
    return Finding(not names, ", ".join(names), "keep the table in a buffer: register_buffer()")


def from_one(encoding):
    """The encoding with positions counted from 1."""

    class FromOne(encoding):
        def __init__(self, width, max_len=512):
            super().__init__(width, max_len + 1)

        def forward(self, x, start=0):
            return super().forward(x, start + 1)

    return FromOne


def with_table(encoding, change):
    """The sinusoidal encoding with another table: change(sines, cosines, angles)."""

    class Changed(encoding):
        def __init__(self, d_model, max_len=512):
            super().__init__(d_model, max_len)
            self.table = change(self.table[:, 0::2], self.table[:, 1::2], d_model)

    return Changed


def side_by_side(even: Tensor, odd: Tensor) -> Tensor:
    return torch.stack([even, odd], dim=-1).flatten(1)


def sinusoidal_mistakes(ours):
    class CosineExponentOffByOne(ours.SinusoidalPositionalEncoding):
        """The cosine's exponent is its own column, 2i + 1, instead of its sine's, 2i."""

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
        "start ignored": Mistake(START_IGNORED, StartIgnored, "With start = 7"),
    }


def more_sinusoidal_mistakes(ours):
    """Others that the lesson doesn't show."""

    def i_for_two_i(sines, cosines, d_model):
        angles = torch.arange(len(sines))[:, None] * 10000.0 ** (-torch.arange(d_model // 2) / d_model)
        return side_by_side(angles.sin(), angles.cos())

    every, waves = "Every number", ours.SinusoidalPositionalEncoding
    return {
        "i for 2i": Mistake("the exponent should be 2i/d_model; here it is i/d_model",
                            with_table(waves, i_for_two_i), every),
        "cosine first": Mistake("sine and cosine are swapped: the sine comes first, at 2i",
                                with_table(waves, lambda s, c, _: side_by_side(c, s)), every),
        "angles negated": Mistake("the angles are negative: sin(p · f), not sin(−p · f)",
                                  with_table(waves, lambda s, c, _: side_by_side(-s, c)), every),
        "from 1": Mistake("positions are counted from 1; the first should be 0", from_one(waves), every),
    }


sinusoidal_checks = Part(
    [follows_the_formula, waves_honour_start, is_added, refuses_positions_past_the_end, refuses_odd_widths,
     waves_are_not_learned],
    sinusoidal_mistakes,
    more=more_sinusoidal_mistakes,
)


# ------------------------------------------------------------------ LearnedPositionalEncoding


def adds_one_vector_a_position(encoding, ours):
    """The added vector depends only on the position, for every width and every `start`."""
    findings = []
    for (d_model, max_len, _), x in zip(SIZES, (FIRST, FIRST[:, :, :6])):
        built, given = encoding(d_model, max_len), x.clone()
        whole = (built(given) - x)[:1]
        changed = Finding(torch.equal(given, x), "x was changed", "write x + …, not x += …")
        again = SECOND[:, :5, :d_model]
        part = built(again.clone(), 7) - again
        ignored = START_IGNORED if largest_difference(part, whole[:, :5].expand_as(part)) < 1e-5 else ""
        findings += [changed, agree(part, whole[:, 7:12].expand_as(part), 1e-5, ignored, ADDED)]
    return together(*findings)


def tells_positions_apart(encoding, ours):
    """No two positions start with the same vector."""
    vectors = encoding(8, 40)(torch.zeros(1, 40, 8))[0]
    distinct = len(vectors.unique(dim=0))
    return Finding(distinct == 40, f"{distinct} different vectors of 40", "start from random numbers")


def is_a_parameter(encoding, ours):
    """Every position in use receives a gradient, and no other position does."""
    built = encoding(8, 40)
    tables = list(built.parameters())
    if len(tables) != 1:
        return Finding(False, f"{len(tables)} parameters", "one nn.Parameter of (max_len, d_model)")
    if tables[0].numel() != 40 * 8:
        return Finding(False, f"shape {tuple(tables[0].shape)}", "one nn.Parameter of (max_len, d_model)")
    built(torch.zeros(1, 5, 8), 3).sum().backward()
    if tables[0].grad is None:
        return Finding(False, "no gradient for the parameter", "does forward() use it?")
    used = tables[0].grad.reshape(-1, 8).abs().sum(-1).nonzero().flatten().tolist()
    return Finding(used == [3, 4, 5, 6, 7], f"positions {used}", "tokens from start = 3 on use rows 3, 4, …")


def learned_mistakes(ours):
    class AllAlike(ours.LearnedPositionalEncoding):
        """Starts with zeros."""

        def __init__(self, d_model, max_len=512):
            super().__init__(d_model, max_len)
            self.table.data.zero_()

    class StartIgnored(ours.LearnedPositionalEncoding):
        """Every decoded token gets position 0."""

        def forward(self, x, start=0):
            return super().forward(x, 0)

    return {
        "start ignored": Mistake(START_IGNORED, StartIgnored, "The added vector depends"),
        "all alike": Mistake("start from random numbers", AllAlike, "No two positions"),
    }


learned_checks = Part(
    [adds_one_vector_a_position, tells_positions_apart, is_a_parameter, refuses_positions_past_the_end],
    learned_mistakes,
)


# ------------------------------------------------------------------ RotaryPositionalEncoding


QUERY, KEY = (x.float() for x in random_tensors((2, 3, 20, 8), (2, 3, 20, 8)))
TURNED = "batch, head, position, number"


def turns_pairs(encoding, ours):
    """Seen as complex numbers, pair j at position p is multiplied by e^(i·p·f_j)."""
    findings = []
    for d_k, max_len, length in SIZES:
        frequencies = 10000.0 ** (-torch.arange(0, d_k, 2).double() / d_k)
        angles = torch.arange(length)[:, None] * frequencies
        given = QUERY[:, :, :length, :d_k].clone()
        pairs = torch.view_as_complex(given.double().unflatten(-1, (d_k // 2, 2)).contiguous())
        turned = torch.view_as_real(pairs * torch.exp(1j * angles)).flatten(-2)
        findings.append(at(f"d_k {d_k}", agree(encoding(d_k, max_len)(given), turned, 1e-5, axes=TURNED)))
    return together(*findings)


def keeps_the_length(encoding, ours):
    """The rotation keeps the length of every vector."""
    return agree(encoding(8, 40)(QUERY.clone()).norm(dim=-1), QUERY.norm(dim=-1), 1e-5,
                 axes="batch, head, position")


def sees_offsets_only(encoding, ours):
    """The scores depend only on the offset: 9 positions later they are the same."""
    built = encoding(8, 40)
    now = built(QUERY.clone()) @ built(KEY.clone()).mT
    later = built(QUERY.clone(), 9) @ built(KEY.clone(), 9).mT
    finding = agree(later, now, 1e-4, axes="batch, head, query, key")
    if finding.holds and largest_difference(now, QUERY @ KEY.mT) < 1e-4:
        return Finding(False, "the scores don't change with the offset either")
    return finding


def rotation_honours_start(encoding, ours):
    """With start = 7 the first token is at position 7."""
    built = encoding(8, 40)
    return agree(built(QUERY[:, :, 7:].clone(), 7), built(QUERY.clone())[:, :, 7:], 1e-5, axes=TURNED)


def rotary_refuses_positions_past_the_end(encoding, ours):
    """A position past max_len raises a ValueError that names both numbers; earlier positions work."""
    built, one = encoding(8, 40), QUERY[:, :, :1]
    fits = Finding(built(one.clone(), 39).shape == one.shape)
    return together(fits, refused(lambda: built(one.clone(), 43), 43, 40),
                    refused(lambda: built(one.clone(), 40), 40),
                    refused(lambda: built(QUERY[:, :, :3].clone(), 38), 40))


def refuses_odd_heads(encoding, ours):
    """An odd d_k raises a ValueError that names it."""
    return together(refused(lambda: encoding(7, 40), 7), refused(lambda: encoding(11, 40), 11))


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


def more_rotary_mistakes(ours):
    """Others that the lesson doesn't show."""

    class OtherWay(ours.RotaryPositionalEncoding):
        """Turns by minus the angle: as if the numbers of each pair were swapped."""

        def forward(self, x, start=0):
            turned = super().forward(x.unflatten(-1, (-1, 2)).flip(-1).flatten(-2), start)
            return turned.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)

    class Added(ours.RotaryPositionalEncoding):
        """Adds the rotated vector."""

        def forward(self, x, start=0):
            return x + super().forward(x, start)

    complex_numbers, rotary = "Seen as complex numbers", ours.RotaryPositionalEncoding
    return {
        "other way round": Mistake(
            "it turns the other way: a pair should become even·cos − odd·sin, even·sin + odd·cos", OtherWay,
            complex_numbers),
        "from 1": Mistake("positions are counted from 1; the first should be 0, which isn't turned",
                          from_one(rotary), complex_numbers),
        "added": Mistake("x should only be turned; nothing is added to it", Added, complex_numbers),
    }


rotary_checks = Part(
    [turns_pairs, keeps_the_length, sees_offsets_only, rotation_honours_start,
     rotary_refuses_positions_past_the_end, refuses_odd_heads],
    rotary_mistakes,
    more=more_rotary_mistakes,
)

"""What must hold for lesson 12's quantisation: codes, scales, levels."""

from functools import partial

import torch
from torch import Tensor

from course.grading.checking import Mistake, Part, agree, at, random_tensors, refused, together

(WEIGHT,) = random_tensors((4, 10))
WEIGHT = WEIGHT * torch.tensor([1.0, 10.0, 0.1, 3.0], dtype=torch.double)[:, None]  # rows of different sizes
GROUPS = {0: "one scale", 10: "one scale per row", 5: "groups of 5", 4: "groups of 4, and 2 left over"}

# The 16 numbers of NF4 as bitsandbytes has them (Dettmers et al. 2023, appendix E).
NF4 = torch.tensor([
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023,
    1.0])


def pieces(weight: Tensor, group: int) -> list[list[Tensor]]:
    """The groups of every row, by a plain loop; for group 0 the whole matrix."""
    return [[weight]] if group == 0 else [[*row.split(group)] for row in weight]


def expected_codes(weight: Tensor, bits: int, group: int) -> tuple[Tensor, Tensor]:
    """Codes (O, I) and scales (O, G), group by group."""
    top = 2 ** (bits - 1) - 1
    rows = pieces(weight, group)
    scale = torch.stack([torch.stack([part.abs().max() / top for part in row]) for row in rows])
    codes = [torch.cat([(part / part.abs().max() * top).round() for part in row], -1) for row in rows]
    return (codes[0] if group == 0 else torch.stack(codes)), scale


# ------------------------------------------------------------------ quantize(weight, bits, group)


def codes_are_right(implementation, ours):
    """With one scale for the matrix the codes are round(W / scale), up to ±(2^(bits − 1) − 1)."""
    findings = []
    for bits in (8, 4, 3, 2):
        codes, scale = implementation(WEIGHT, bits, 0)
        expected, scales = expected_codes(WEIGHT, bits, 0)
        findings += [at(f"{bits} bits", agree(codes.double(), expected, axes="out, in")),
                     at(f"{bits} bits, scale", agree(scale, scales))]
    return together(*findings)


def groups_have_their_scales(implementation, ours):
    """Every row, or every group of neighbours in a row, has its own scale; so does a shorter last group."""
    findings = []
    for group, words in GROUPS.items():
        codes, scale = implementation(WEIGHT, 4, group)
        expected, scales = expected_codes(WEIGHT, 4, group)
        findings += [at(words, agree(scale, scales, axes="row, group")),
                     at(words, agree(codes.double(), expected, axes="out, in"))]
    return together(*findings)


def errs_by_half_a_step(implementation, ours):
    """No weight moves by more than half of its scale."""
    codes, scale = implementation(WEIGHT, 4, 10)
    off = (codes * scale - WEIGHT).abs() / scale
    return agree(off.clamp(min=0.5), torch.full_like(WEIGHT, 0.5), axes="out, in")


def zeros_stay(implementation, ours):
    """A row of zeros has only codes 0, and no scale is NaN."""
    codes, scale = implementation(torch.zeros(2, 4, dtype=torch.double), 4, 4)
    return together(agree(codes.double(), torch.zeros(2, 4)), agree(scale.isfinite().double(),
                                                                    torch.ones(2, 1)))


def refuses_bits(implementation, ours):
    """Fewer than 2 or more than 8 bits are refused with a ValueError that names the number."""
    return together(*(at(f"{bits} bits", refused(partial(implementation, WEIGHT, bits, 0), bits))
                      for bits in (1, 9)))


def quantize_mistakes(ours):
    """The classic mistakes, made from the course's own."""

    def one_scale(weight, bits, group=0):
        """The group is ignored: one scale for the tensor, repeated."""
        codes, scale = ours.quantize(weight, bits, 0)
        return codes, scale.expand_as(ours.quantize(weight, bits, group)[1])

    def cut_off(weight, bits, group=0):
        """Digits after the point are cut off instead of rounded."""
        _, scale = ours.quantize(weight, bits, group)
        groups = ours.in_groups(weight, group) / scale[..., None]
        return ours.out_of_groups(groups.trunc(), weight).to(torch.int8), scale

    def by_columns(weight, bits, group=0):
        """The scales are those of columns."""
        codes, scale = ours.quantize(weight.T, bits, group)
        return codes.T, scale

    return {
        "one scale for the tensor": Mistake(
            "one scale for the whole matrix: each group needs its own scale, its largest value / top",
            one_scale, "Every row, or every group"),
        "cut off, not rounded": Mistake("the codes are cut off: use round()", cut_off,
                                        "With one scale for the matrix"),
        "groups of a column": Mistake("the groups run along columns: neighbours in a row share a scale",
                                      by_columns, "Every row, or every group"),
    }


quantize_checks = Part(
    [codes_are_right, groups_have_their_scales, errs_by_half_a_step, zeros_stay, refuses_bits],
    quantize_mistakes,
    needs="quantize(weight, bits, group) returns codes (out, in) and scales (out, groups); (1, 1) for group "
          "0.",
)


# ------------------------------------------------------------------ dequantize(codes, scale, group)


def multiplies_back(implementation, ours):
    """Every code is multiplied by the scale of its group: matrix, row, group, or shorter last group."""
    findings = []
    for group, words in GROUPS.items():
        codes, scale = expected_codes(WEIGHT, 4, group)
        length = group or WEIGHT.shape[1]
        each = scale.repeat_interleave(length, 1)[:, : WEIGHT.shape[1]]
        findings.append(at(words, agree(implementation(codes.to(torch.int8), scale, group), codes * each,
                                        axes="out, in")))
    return together(*findings)


def comes_near(implementation, ours):
    """After quantize() and dequantize() in 8 bits no weight is off by more than half of its scale."""
    codes, scale = ours.quantize(WEIGHT, 8, 5)
    off = (implementation(codes, scale, 5) - WEIGHT).abs() / scale.repeat_interleave(5, 1)
    return agree(off.clamp(min=0.5), torch.full_like(WEIGHT, 0.5), axes="out, in")


def dequantize_mistakes(ours):
    """The classic mistakes."""

    def divided(codes, scale, group=0):
        """Divided by the scale."""
        return ours.dequantize(codes, 1 / scale, group)

    def first_scale(codes, scale, group=0):
        """The first scale of a row for all of the row."""
        return codes * scale[:, :1]

    return {
        "divided": Mistake("divided by the scale: quantize() divided already, multiply here", divided,
                           "Every code is multiplied"),
        "first scale of the row": Mistake("the first scale of a row is used for all of its groups",
                                          first_scale, "Every code is multiplied"),
    }


dequantize_checks = Part([multiplies_back, comes_near], dequantize_mistakes)


# ------------------------------------------------------------------ normal_levels(bits)


def equals_the_published(implementation, ours):
    """For 4 bits the levels are NF4's 16 published numbers, within 10⁻⁶."""
    return agree(implementation(4), NF4, tolerance=1e-6, axes="level")


def has_the_ends(implementation, ours):
    """For 2, 3 and 4 bits there are 2^bits levels, ascending, among them exactly −1, 0 and 1."""
    findings = []
    for bits in (2, 3, 4):
        levels = implementation(bits)
        facts = [len(levels), levels.min(), levels.max(), (levels == 0).sum(), (levels.diff() > 0).all()]
        findings.append(at(f"{bits} bits", agree(
            torch.tensor([float(fact) for fact in facts]), torch.tensor([2.0**bits, -1, 1, 1, 1]))))
    return together(*findings)


def levels_mistakes(ours):
    """The classic mistakes."""

    def without_zero(bits=4):
        """Evenly spaced quantiles from end to end: none of them is 0."""
        ends = 1 - 1 / 2 ** (bits + 1)
        levels = torch.special.ndtri(torch.linspace(1 - ends, ends, 2**bits, dtype=torch.double))
        return (levels / levels.max()).float()

    def evenly_spaced(bits=4):
        """As integers would be."""
        half = 2 ** (bits - 1)
        return torch.cat([torch.linspace(-1, 0, half), torch.linspace(0, 1, half + 1)[1:]])

    def not_divided(bits=4):
        """The quantiles themselves."""
        count = 2**bits
        return ours.normal_levels(bits) * torch.special.ndtri(
            torch.tensor(1 - (1 / (count - 1) + 1 / count) / 4))

    same = "For 4 bits the levels are"
    return {
        "without 0": Mistake("no level is 0: take the quantiles of each half separately, with 0 between them",
                             without_zero, same),
        "evenly spaced": Mistake("evenly spaced: take quantiles of the normal distribution", evenly_spaced,
                                 same),
        "not divided": Mistake("divide by the largest: the levels end at −1 and 1", not_divided, same),
    }


normal_levels_checks = Part([equals_the_published, has_the_ends], levels_mistakes)

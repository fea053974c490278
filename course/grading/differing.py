"""Describing in words how two tensors differ: computed facts, not guesses.

    where(wrong, "batch, query, key")    → "for queries 1 to 3 and keys 0 and 2 (all batches)"
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def difference(actual: Tensor, expected: Tensor, tolerance: float, axes: str = "") -> str:
    """How `actual` differs from `expected`, of the same shape: by a factor, or where."""
    actual, expected = actual.detach().double(), expected.detach().double()
    nan = actual.isnan() & ~expected.isnan()
    if nan.any():
        return f"NaN {where(nan, axes)}"
    wrong = ~((actual - expected).abs() <= tolerance)
    if actual.numel() < 2 or not wrong.any():
        return ""
    return throughout(actual, expected, tolerance) or differs(wrong, axes, moved(actual, expected, tolerance))


def differs(wrong: Tensor, axes: str, otherwise: str) -> str:
    """Where the tensors differ, and `otherwise`, if there is anything else to say."""
    return f"it differs {where(wrong, axes)}" + (f"; {otherwise}" if otherwise else "")


def throughout(actual: Tensor, expected: Tensor, tolerance: float) -> str:
    """What is wrong with all numbers in the same way: a factor or an offset; empty if there is neither."""
    close = max(tolerance, 1e-6)
    large = expected.abs() > 100 * close
    if large.sum() > 1:
        factor = (actual[large] / expected[large]).median()
        if (actual - factor * expected).abs().max() <= close and (factor - 1).abs() > 1e-3:
            return ("every number is 0" if factor.abs() < 1e-6 else "every number has the wrong sign"
                    if (factor + 1).abs() < 1e-6 else f"every number is {factor:.3g} times what it should be")
    gap = (actual - expected).flatten()
    if (gap - gap[0]).abs().max() <= close < gap[0].abs():
        return f"every number is {gap[0].abs():.3g} too {'large' if gap[0] > 0 else 'small'}"
    return ""


def moved(actual: Tensor, expected: Tensor, tolerance: float) -> str:
    """Whether the numbers are the right ones in other places."""
    found, wanted = actual.flatten().sort().values, expected.flatten().sort().values
    if wanted[0] == wanted[-1] or not torch.allclose(found, wanted, 0, max(tolerance, 1e-9)):
        return ""
    return "the numbers are the right ones, in other places"


def where(wrong: Tensor, axes: str = "") -> str:
    """Which indices are wrong along the named axes; without names, how many numbers."""
    if wrong.all():
        return "everywhere"
    count = f"in {int(wrong.sum())} of {wrong.numel()} numbers"
    if not axes:
        return count
    named = list(zip(axes.split(", "), touched(wrong), wrong.shape, strict=True))
    some = [f"{plural(name, len(found))} {ranges(found)}" for name, found, size in named if len(found) < size]
    whole = [name for name, found, size in named if len(found) == size > 1]
    if math.prod(len(found) for _, found, _ in named) == wrong.sum():
        every = listed([plural(name, 2) for name in whole])
        return f"for {listed(some)}" + (f" (all {every})" if every else "")
    return count + (f", all of {listed(some)}" if some else f", of every {listed(whole)}")


def touched(wrong: Tensor) -> list[list[int]]:
    """For each axis the indices at which anything is wrong."""
    places = wrong.nonzero()
    return [places[:, axis].unique().tolist() for axis in range(wrong.dim())]


def ranges(numbers: Sequence[int]) -> str:
    """[0, 2, 3, 4] → “0 and 2 to 4”."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    texts: list[str] = []
    for run in runs:
        texts += [f"{run[0]} to {run[-1]}"] if len(run) > 2 else map(str, run)
    return listed(texts)


def listed(texts: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(texts[:-1]), *texts[-1:]]))


def plural(name: str, count: int) -> str:
    if count == 1:
        return name
    if name.endswith("y") and name[-2] not in "aeiou":
        return name[:-1] + "ies"
    return name + ("es" if name.endswith("ch") else "s")

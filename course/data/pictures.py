"""Small real pictures: 1,797 handwritten digits of 8 × 8 pixels.

digits.csv.gz is the test part of "Optical Recognition of Handwritten Digits" by E. Alpaydin and C. Kaynak,
UCI Machine Learning Repository (1998), doi 10.24432/C50P49, licence CC BY 4.0; see digits.LICENCE.md.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

FILE = Path(__file__).with_name("digits.csv.gz")
PARTS = {"train": 1097, "validation": 200, "test": 500}
BRIGHTEST = 16


class Pictures(NamedTuple):
    """Pictures (N, 1, 8, 8) with values from 0 to 1, and the digits (N,) that they show."""

    pixels: Tensor
    digits: Tensor


def handwritten_digits() -> dict[str, Pictures]:
    """Train, validation and test, shuffled once and for all."""
    rows = torch.from_numpy(np.loadtxt(FILE, delimiter=",", dtype=np.int64))
    rows = rows[torch.from_numpy(np.random.default_rng(0).permutation(len(rows)))]
    pictures = Pictures((rows[:, :-1].float() / BRIGHTEST).view(-1, 1, 8, 8), rows[:, -1])
    parts = zip(*(tensor.split(list(PARTS.values())) for tensor in pictures))
    return {name: Pictures(*part) for name, part in zip(PARTS, parts, strict=True)}


def shuffled(pixels: Tensor, size: int) -> Tensor:
    """Pictures (B, 1, 8, 8) whose size × size patches are permuted, in all of them in the same way."""
    squares = F.unfold(pixels, size, stride=size)  # (B, size², patches)
    order = torch.randperm(squares.shape[2], generator=torch.Generator().manual_seed(0))
    return F.fold(squares[:, :, order], pixels.shape[2:], size, stride=size)

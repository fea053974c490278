"""The largest of many numbers, faster than sorting them all."""

import torch
from torch import Tensor


def largest_first(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """values (B, N) → the `count` largest of each row, and their places; of equal ones the first.

    As a stable sort, cut off, would have them: topk() alone takes any of those that are equal.
    """
    found, places = values.topk(min(count, values.shape[1]), dim=1)
    if torch.count_nonzero(values >= found[:, -1:]) > found.numel():  # some that are equal were left out
        found, places = values.sort(dim=1, descending=True, stable=True)
        return found[:, :count], places[:, :count]
    places = places.sort(dim=1).values
    found, order = values.gather(1, places).sort(dim=1, descending=True, stable=True)
    return found, places.gather(1, order)

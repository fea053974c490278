"""Lesson 1's comparison of scores: which of the keys is the query a noisy copy of?"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course.training.small import minimise


def matching_task(batch: int, length: float | None = None, width: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    """Queries (B, 6, K) that are noisy copies of 6 keys in another order; the keys; that order.

    With a length, all keys have that length.
    """
    key = torch.randn(batch, 6, width)
    if length is not None:
        key = length * F.normalize(key, dim=-1)
    order = torch.rand(batch, 6).argsort(-1)
    query = key.gather(1, order[..., None].expand_as(key))
    return query + 0.3 * torch.randn_like(query), key, order


def train_score(score: nn.Module) -> nn.Module:
    """Teach the score to give each query the key that it was copied from."""

    def loss() -> Tensor:
        query, key, order = matching_task(batch=32)
        return F.cross_entropy(score(query, key).transpose(1, 2), order)

    minimise(loss, torch.optim.Adam(score.parameters(), lr=0.02, fused=True), 300)
    return score

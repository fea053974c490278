"""Recalling pairs, a task that needs memory: a small model reads keys with values, then gives the values."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course.training.parts import build
from course.training.side_by_side import side_by_side
from course.training.small import minimise

VALUES, WIDTH, HEADS, BATCH = 16, 64, 4, 8
IGNORED = -100  # F.cross_entropy leaves these places out


def recall_task(pairs: int, rows: int) -> tuple[Tensor, Tensor, Tensor]:
    """Keys (B, 2N), values (B, 2N) and wanted (B, 2N): N pairs, then their keys in another order.

    Values are 1 … 16, or 0 where the model is asked for them; there, `wanted` is the value − 1.
    """
    keys = torch.rand(rows, pairs).argsort(-1)
    values = torch.randint(VALUES, (rows, pairs))
    order = torch.rand(rows, pairs).argsort(-1)
    nothing = torch.zeros_like(values)
    return (torch.cat([keys, keys.gather(1, order)], 1), torch.cat([values + 1, nothing], 1),
            torch.cat([nothing + IGNORED, values.gather(1, order)], 1))


def latest_task(pairs: int, rows: int) -> tuple[Tensor, Tensor, Tensor]:
    """The same, but after each pair the model is asked for one of the latest four."""
    keys = torch.rand(rows, pairs).argsort(-1)
    values = torch.randint(VALUES, (rows, pairs))
    back = (torch.arange(pairs) - torch.randint(4, (rows, pairs))).clamp(min=0)
    nothing = torch.zeros_like(values)
    wanted = values.gather(1, back)
    columns = (keys, keys.gather(1, back)), (values + 1, nothing), (nothing + IGNORED, wanted)
    return tuple(torch.stack(pair, -1).flatten(1) for pair in columns)  # type: ignore[return-value]


class Reader(nn.Module):
    """One block over the sum of the vectors of key, value and position → logits of the values."""

    def __init__(self, pairs: int, block: nn.Module, positions: nn.Module):
        super().__init__()
        self.keys, self.values = nn.Embedding(pairs, WIDTH), nn.Embedding(VALUES + 1, WIDTH)
        self.positions, self.block = positions, block
        self.norm, self.logits = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, VALUES)

    def forward(self, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """keys and values (B, L) → (B, L, 16)."""
        x = self.positions(self.keys(keys) + self.values(values))
        return self.logits(self.norm(self.block(x, mask)))


def recalled(block: Callable[..., nn.Module], positions: Callable[..., nn.Module], attention: type,
             task: Callable, pairs: int, steps: int, seed: int) -> float:
    """The fraction of values that a trained model recalls in 200 new sequences.

    block(64, 4, 256) gets this self-attention, positions(64, 2 · pairs) are added, the mask is causal.
    """
    torch.manual_seed(seed)
    parts = {"attention_to_itself": attention}
    model = Reader(pairs, build(lambda: block(WIDTH, HEADS, 4 * WIDTH), parts), positions(WIDTH, 2 * pairs))
    mask = torch.ones(2 * pairs, 2 * pairs, dtype=torch.bool).tril()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, fused=True)

    def loss() -> Tensor:
        keys, values, wanted = task(pairs, BATCH)
        logits = model(keys, values, mask)
        return F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=IGNORED)

    warm = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / 30, 1.2 * (steps - step) / steps, 1.0))
    for _ in range(steps):
        minimise(loss, optimizer, 1)
        warm.step()
    with torch.no_grad():
        keys, values, wanted = task(pairs, 200)
        right = model(keys, values, mask).argmax(-1) == wanted
        return right[wanted != IGNORED].float().mean().item()


def recalls(block: Callable, positions: Callable, kinds: Mapping[str, tuple[type, Callable, int, int]],
            seeds: Sequence[int]) -> dict[str, list[float]]:
    """recalled() for each kind, (attention, task, pairs, steps), and each seed, trained side by side."""
    results = iter(side_by_side([partial(recalled, block, positions, *kind, seed)
                                 for kind in kinds.values() for seed in seeds]))
    return {name: [next(results) for _ in seeds] for name in kinds}

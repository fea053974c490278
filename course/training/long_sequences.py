"""Measurements for the lesson on long sequences: low rank, features, heads, activations, caches, losses."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from course.console.counting import LiveBytes
from course.console.measuring import bytes_kept, multiplications_of
from course.training.engine import Run, finish
from course.training.examining import right


def one_head(n: int) -> list[Tensor]:
    """Query, key and value (1, 1, n, 64), standard normal."""
    return [*torch.randn(3, 1, 1, n, 64).unbind()]


def best_rank_error(weights: Tensor, value: Tensor, rank: int) -> float:
    """The relative error of weights @ value with the best weights of this rank (singular values)."""
    left, sizes, right = torch.linalg.svd(weights)
    near = left[:, :rank] * sizes[:rank] @ right[:rank]
    return ((near @ value - weights @ value).norm() / (weights @ value).norm()).item()


def rank_errors(size: float, rank: int) -> list[float]:
    """best_rank_error() of 256 random queries × size, for three draws of queries, keys and values."""
    found = []
    for seed in range(3):
        query, key, value = torch.randn(3, 256, 16, generator=torch.Generator().manual_seed(seed)).unbind()
        found.append(best_rank_error((size * query @ key.mT / 4).softmax(-1), value, rank))
    return found


def variance_ratio(features: Callable, directions: Callable, size: float, count: int = 16) -> float:
    """The relative variance of φ(x)·φ(y) over 2,000 draws of directions(count, 16), divided by the formula's.

    The mean for 64 pairs of vectors of 16 normal numbers × size; the formula is (e^|x + y|² − 1) / count, for
    x and y divided by 2, the fourth root of 16.
    """
    x, y = (size * torch.randn(2, 8, 16, generator=torch.Generator().manual_seed(0))).double().unbind()
    exact, total = torch.exp(x @ y.mT / 4), torch.zeros(8, 8, dtype=torch.float64)
    for _ in range(2000):
        w = directions(count, 16).double()
        total += (features(x, w) @ features(y, w).mT / exact - 1).square()
    predicted = (((x[:, None] + y).square().sum(-1) / 4).exp() - 1) / count
    return (total / 2000 / predicted).mean().item()


def tiles_left(mask: Tensor, tile: int) -> float:
    """The fraction of the tiles of a mask (n, n) in which something is visible."""
    blocks = mask.unflatten(0, (-1, tile)).unflatten(-1, (-1, tile))
    return blocks.any(1).any(-1).double().mean().item()


# ------------------------------------------------------------------ heads of a trained model


def attentions_in(model: nn.Module, name: str) -> list[nn.Module]:
    """The attentions of a model whose names contain `name`."""
    return [module for full, module in model.named_modules()
            if hasattr(module, "project_query") and name in full]


@contextmanager
def attending_with(model: nn.Module, name: str, function: Callable) -> Iterator[None]:
    """Inside `with`, attentions of this name use `function` as scaled_dot_product_attention()."""
    found = attentions_in(model, name)
    for module in found:
        module.scaled_dot_product_attention = function  # type: ignore[assignment]
    try:
        yield
    finally:
        for module in found:
            del module.scaled_dot_product_attention


def right_with(model: nn.Module, batch: Any, name: str, function: Callable) -> float:
    """The fraction of right answers, with teacher forcing, if attentions of this name use the function."""
    with attending_with(model, name, function):
        return right(model, batch)


@torch.no_grad()
def score_spread(model: nn.Module, batch: Any, name: str) -> float:
    """The largest standard deviation of the scores among the attentions of this name."""
    found = []

    def note(attention, inputs, named) -> None:
        query, key = (attention.split(project(x)) for project, x in zip(
            (attention.project_query, attention.project_key), inputs))
        found.append((query @ key.mT / query.shape[-1] ** 0.5).std().item())

    hooks = [module.register_forward_pre_hook(note, with_kwargs=True)
             for module in attentions_in(model, name)]
    model(batch.src, batch.tgt_in)
    for hook in hooks:
        hook.remove()
    return max(found)


# ------------------------------------------------------------------ activations


class Recomputed(NamedTuple):
    """A forward and backward pass through blocks: peak memory in inputs of a block, products, gradients."""

    peak: float
    products: int
    gradients: Tensor


def through(blocks: Iterable[nn.Module], x: Tensor) -> Tensor:
    for block in blocks:
        x = block(x)
    return x


def in_segments(blocks: nn.ModuleList, x: Tensor, size: int, keep_random_state: bool = True) -> Recomputed:
    """Keep only the input of each segment of `size` blocks, and recompute the rest; 0 keeps everything."""
    parameters = [*blocks.parameters()]

    def run() -> Tensor:
        torch.manual_seed(1)
        if not size:
            return through(blocks, x).sum()
        y = x
        for start, end in pairwise([*range(0, len(blocks), size), len(blocks)]):
            y = checkpoint(through, blocks[start:end], y, use_reentrant=False,
                           preserve_rng_state=keep_random_state)
        return y.sum()

    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    with LiveBytes(x, *parameters, *(parameter.grad for parameter in parameters)) as live:  # type: ignore
        run().backward()
    gradients = torch.cat([parameter.grad.flatten() for parameter in parameters])
    return Recomputed(live.peak / x.nbytes, multiplications_of(lambda: run().backward()), gradients)


def activations_kept(block: nn.Module, x: Tensor) -> float:
    """The memory that autograd keeps for a block besides its weights, in units of the input's size."""
    return bytes_kept(lambda *weights: block(x), *block.parameters()) / x.nbytes


# ------------------------------------------------------------------ caches


def one_by_one(attention: nn.Module, cache: Any, x: Tensor) -> Tensor:
    """The self-attention of x (B, L, D), one token at a time through the cache."""
    attention.attend = cache.attend
    try:
        return torch.cat([attention(token, token, token) for token in x.split(1, 1)], dim=1)
    finally:
        del attention.attend


def answers_with(decoding: type, decode: Callable, right: Callable, model: nn.Module, batch: Any,
                 own: Callable, cross: Callable) -> tuple[float, float]:
    """The fraction of right answers when decoding with these caches, and the KiB they take per answer."""
    kinds = {"self_cache": staticmethod(own), "cross_cache": staticmethod(cross)}
    answers_of = type("Decoding", (decoding,), kinds)(model, batch.src)
    answers = decode(answers_of, batch.tgt_out.shape[1])
    size = sum(cache.bytes() for cache in answers_of.self_caches + answers_of.cross_caches)
    return right(answers, batch.tgt_out).float().mean().item(), size / len(batch.src) / 1024


# ------------------------------------------------------------------ the same loss, the same steps


def loss_of(model: nn.Module, weights: dict[str, Tensor], total: Callable[..., Tensor],
            batch: Sequence[Tensor]) -> tuple[float, Tensor]:
    """For the model with these weights, in float64: total(logits, targets) per real target, and gradients."""
    model.double().load_state_dict(weights)
    loss = total(model(*batch[:-1]), batch[-1]) / (batch[-1] != 0).sum()
    gradients = torch.autograd.grad(loss, [*model.parameters()])
    return loss.item(), torch.cat([gradient.flatten() for gradient in gradients])


def first_losses(make: Callable[[], nn.Module], job_of: Callable, settings: Any, batch: Any) -> list[float]:
    """The losses of the engine's steps on one batch; job_of(model, settings, batch, validate) makes it."""
    torch.manual_seed(0)
    job = job_of(model := make(), settings, lambda step: batch, lambda model: {})
    return finish(Run(model, job, settings, torch.device("cpu"))).noted("loss")

"""Decoding with lesson 6's caches: attaching them during a call; decoding a model without an encoder."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def remembering(caches: Sequence[Any]) -> Iterator[None]:
    """Inside `with`, every attention also attends to what its cache has kept."""
    for cache in caches:
        cache.attention.attend = cache.attend
    try:
        yield
    finally:
        for cache in caches:
            del cache.attention.attend


def refuse_training_mode(model: nn.Module) -> None:
    if model.training:
        raise ValueError("the model is in training mode, where dropout makes answers random: model.eval()")


class StackDecoding:
    """What lesson 6's decoders need from a model without an encoder, except step(tokens).

    model(tokens (N, T), start) returns the logits (N, T, V); the first token is at position `start`, and each
    of model.stack.blocks has its causal self_attention. The `prompt` (N, P) is kept for the first step.
    ValueError for a model in training mode.
    """

    self_cache: Callable[[nn.Module], Any]  # made for each attention, such as lesson 6's KeyValueCache

    def __init__(self, model: nn.Module, prompt: Tensor):
        refuse_training_mode(model)
        self.model, self.prompt, self.rows, self.device = model, prompt, len(prompt), prompt.device
        self.self_caches = [self.self_cache(block.self_attention) for block in model.stack.blocks]
        self.length = self.position = 0

    @torch.inference_mode()
    def run(self, tokens: Tensor) -> Tensor:
        """The next tokens of every row (N, T) → logits of those after them (N, V)."""
        with remembering(self.self_caches):
            logits = self.model(tokens, self.position)
        self.position += tokens.shape[1]
        return logits[:, -1]

    def reorder(self, rows: Tensor) -> None:
        self.rows = len(rows)
        for cache in self.self_caches:
            cache.reorder(rows)

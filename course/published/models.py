"""Models built from the course's parts for published weights, and how they continue a text.

Lessons pass their parts in, as a namespace: OneStack, PictureStack, StackConfig, LayerNorm and
RotaryPositionalEncoding.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course.training.prompts import StackDecoding


class Untied(nn.Module):
    """An embedding with a separate output: tokens is lesson 3's embedding, output a linear map."""

    def __init__(self, tokens: nn.Module, vocab: int, width: int):
        super().__init__()
        self.tokens, self.output = tokens, nn.Linear(width, vocab, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.tokens(tokens)

    def logits(self, x: Tensor) -> Tensor:
        return self.output(x)


class NormalisedPlaces(nn.Module):
    """Positions followed by a LayerNorm, as before BERT's first block."""

    def __init__(self, places: nn.Module, norm: nn.Module):
        super().__init__()
        self.places, self.norm = places, norm

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        return self.norm(self.places(x, start))


def causal_stack(parts: Any, tied: bool, base: float | None, **config: Any) -> nn.Module:
    """A causal OneStack, with rotary base `base` if there is one, and a separate output unless `tied`."""
    model = parts.OneStack(parts.StackConfig(causal=True, **config))
    if base is not None:
        d_k = config["d_model"] // config["n_heads"]
        rotary = parts.RotaryPositionalEncoding(d_k, config["max_len"], base)
        for block in model.stack.blocks:
            block.self_attention.rotary = rotary
    if not tied:
        model.embedding = Untied(model.embedding, config["vocab_size"], config["d_model"])
    return model


def text_encoder(parts: Any, **config: Any) -> nn.Module:
    """A bidirectional post-norm OneStack with BERT's LayerNorm."""
    model = parts.OneStack(parts.StackConfig(causal=False, norm="post", positions="learned", **config))
    model.positions = NormalisedPlaces(model.positions, parts.LayerNorm(config["d_model"]))
    return model


def picture_encoder(parts: Any, patch: int, pixels: int, channels: int, **config: Any) -> nn.Module:
    """A PictureStack without its output layer, `answer`."""
    model = parts.PictureStack(parts.StackConfig(positions="learned", **config), patch, pixels, channels)
    model.answer = nn.Identity()
    return model


# ------------------------------------------------------------------ continuing a text

SYMBOLS = 3  # the course's ids 0, 1 and 2 are PAD, BOS and EOS


class PublishedDecoding(StackDecoding):
    """A published model's decoding after prompts (B, P) of its own ids, for lesson 6's decoders.

    `cache` is lesson 6's KeyValueCache. The decoders use the course's ids: the model's id i is 3 + i, and
    its id `end`, if there is one, is EOS. ValueError for an empty prompt.
    """

    def __init__(self, model: nn.Module, prompts: Tensor, cache: Callable[[nn.Module], Any],
                 end: int | None = None):
        if not prompts.shape[1]:
            raise ValueError("the prompt is empty")
        self.self_cache = cache
        super().__init__(model, prompts)
        self.end = end

    @torch.inference_mode()
    def step(self, tokens: Tensor) -> Tensor:
        """The newest token of every row (N,), at first BOS → logits of the next token (N, 3 + V)."""
        new = (tokens[:, None] - SYMBOLS).clamp(min=0) if self.length else self.prompt
        self.length += 1
        logits = F.pad(self.run(new), (SYMBOLS, 0), value=-math.inf)
        if self.end is not None:
            eos, own = SYMBOLS - 1, SYMBOLS + self.end
            logits[:, eos] = logits[:, own]
            logits[:, own] = -math.inf
        return logits


class UncachedDecoding(PublishedDecoding):
    """The same without a cache: each step runs the whole text so far."""

    def __init__(self, model: nn.Module, prompts: Tensor, end: int | None = None):
        super().__init__(model, prompts, lambda attention: None, end)
        self.tokens = prompts[:, :0]

    @torch.inference_mode()
    def run(self, tokens: Tensor) -> Tensor:
        self.tokens = torch.cat([self.tokens, tokens], dim=1)
        return self.model(self.tokens)[:, -1]

    def reorder(self, rows: Tensor) -> None:
        self.rows, self.tokens = len(rows), self.tokens[rows]


def own_ids(tokens: Iterable[int]) -> list[int]:
    """The output of a decoder of lesson 6 as the model's ids, without PAD, BOS and EOS."""
    return [token - SYMBOLS for token in tokens if token >= SYMBOLS]

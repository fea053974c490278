"""--weights FOLDER: a published model, the learner's parts in it, its pieces, and a text."""

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from course.grading.checking import largest_difference
from course.published.loading import Published, load
from course.published.models import SYMBOLS, PublishedDecoding, UncachedDecoding, own_ids
from course.published.plans import Move
from course.published.sentences import SAME, SentenceEncoder
from course.published.tensor_files import text_of
from course.published.texts import Pieces, prompt_of, read_pieces
from course.training.parts import found_in

MOST = 40  # most pieces written after a text


class Weights(NamedTuple):
    """A published model, the same model with the learner's parts if there are any, and a text for it."""

    published: Published
    yours: Published | None
    pieces: Pieces | None
    text: str
    names: list[str]  # of the learner's parts in it

    @property
    def inputs(self) -> Tensor:
        """The text's ids (1, L), random ids if there is no text, or a random picture (1, C, S, S)."""
        config, generator = self.published.config, torch.Generator().manual_seed(0)
        if self.published.kind == "vit":
            size = config["image_size"]
            return torch.randn(1, config["num_channels"], size, size, generator=generator)
        if self.text and self.pieces:
            longest = self.longest - self.published.continues  # leave room for at least one new piece
            return prompt_of(self.pieces, self.text, config["vocab_size"], longest)
        count = min(16, self.longest)
        return torch.randint(1, config["vocab_size"], (1, count), generator=generator)

    @property
    def longest(self) -> int:
        """How many positions the model has."""
        model: Any = self.published.model
        return model.config.max_len

    @property
    def room(self) -> int:
        """How many pieces may follow the text."""
        return min(MOST, self.longest - self.inputs.shape[1])

    @property
    def end(self) -> int | None:
        """The id that ends a text; the first if there are several."""
        end = self.published.config.get("eos_token_id")
        end = end[0] if isinstance(end, list) and end else end
        return end if isinstance(end, int) and 0 <= end < self.published.config["vocab_size"] else None

    def shown(self, cache: Callable[[nn.Module], Any], greedy: Callable, sample: Callable, beams: Callable
              ) -> tuple[list[tuple[str, bool, str]], list[tuple[Sequence[str], list]]]:
        """Statements that were tested, and tables (header, rows): the moves, and the answers to a text.

        `cache` is lesson 6's KeyValueCache, the others are its decoders.
        """
        tables: list[tuple[Sequence[str], list]] = [(MOVED, moves_shown(self.published.moves))]
        if rows := answers(self, cache, greedy, sample, beams):
            tables.append((("", "continuation" if self.published.continues else "similarity"), rows))
        return [(statement, gap < near, f"{gap:.0e}")
                for statement, gap, near in differences(self, cache)], tables


def weights_of(options: argparse.Namespace, own: Mapping[str, Any], parts: Any,
               byte_pair_encoding: Callable[..., Any]) -> Weights:
    """What --weights and --input ask for, with the learner's `own` parts, on the lesson's parts.

    A one-line ValueError for anything that doesn't fit.
    """
    for option in ("chat", "bits", "base"):
        if getattr(options, option, None):
            name = {"base": "from"}.get(option, option)
            raise ValueError(f"--{name} goes without --weights; --input TEXT goes with --weights")
    folder, text = options.weights, options.input or ""
    published, yours = load(folder, parts), load(folder, parts, own) if own else None
    names = found_in(yours.model, own) if yours else []
    if text and published.kind == "vit":
        raise ValueError(f"--input {text!r}: the model in {folder} reads pictures")
    reads = text or ((folder / "tokenizer.json").exists() and published.kind != "vit")
    pieces = read_pieces(folder, byte_pair_encoding) if reads else None
    weights = Weights(published, yours, pieces, text, names)
    _ = weights.inputs  # a text that doesn't fit raises its error now
    return weights


MOVED = "in the file", "its shape", "here", "changed"


def moves_shown(moves: Sequence[Move]) -> list[tuple[str, ...]]:
    """Rows of MOVED: where the weights of block 0 go, and those before and after the blocks."""
    rows: list[tuple[str, ...]] = []
    for move in moves:
        (name, shape), *_ = move.theirs.items()
        here = move.ours[0] + ", …" * (len(move.ours) > 1)
        if not re.search(r"\.[1-9]\d*\.|bias$", name):
            rows.append((re.sub(r"^encoder\.layer\.0\.|\.weight$", "", name), text_of(shape),
                         re.sub(r"^stack\.blocks\.0\.|\.weight", "", here), move.change.said))
    return rows


@torch.inference_mode()
def output_of(published: Published, inputs: Tensor) -> Tensor:
    """Logits (B, L, V) of a model that continues texts; otherwise the vectors (B, L, D)."""
    model: Any = published.model
    return model(inputs) if published.continues else model.hidden(inputs)


def differences(weights: Weights, cache: Callable[[nn.Module], Any]) -> list[tuple[str, float, float]]:
    """Statements on the output, each with its largest difference and what float32 rounding allows."""
    ours, ids = weights.published, weights.inputs
    output, found = output_of(ours, ids), []
    near = 1e-5 * max(1.0, output.abs().max().item())
    if weights.yours:
        gap = largest_difference(output_of(weights.yours, ids), output)
        found.append((f"with your {', '.join(weights.names)} the output is the same", gap, near))
    if ours.continues:
        gap = largest_difference(stepped(PublishedDecoding(ours.model, ids[:, :1], cache), ids), output)
        found.append(("token after token with the cache, the logits are the same", gap, near))
    return found


def stepped(decoding: PublishedDecoding, ids: Tensor) -> Tensor:
    """The logits (B, L, V) of ids (B, L), one token after the other; decoding begins with the first."""
    logits = [decoding.step(tokens + SYMBOLS) for tokens in ids.unbind(dim=1)]
    return torch.stack(logits, dim=1)[..., SYMBOLS:]


def answers(weights: Weights, cache: Callable[[nn.Module], Any], greedy: Callable, sample: Callable,
            beams: Callable) -> list[tuple[str, Any]]:
    """Continuations of the text by lesson 6's decoders, or how similar some sentences are to it.

    The learner's parts are used if there are any. A learner's attention without lesson 2's attend() has no
    place for the cache, so every step then runs the whole text.
    """
    model: Any = (weights.yours or weights.published).model
    pieces: Any = weights.pieces
    if not weights.text:
        return []
    if not weights.published.continues:
        return SentenceEncoder(model, pieces).ranked(weights.text, sum(SAME, ()))
    if all(hasattr(block.self_attention, "attend") for block in model.stack.blocks):
        start: Any = partial(PublishedDecoding, model, weights.inputs, cache, weights.end)
    else:
        start = partial(UncachedDecoding, model, weights.inputs, weights.end)
    found = {"greedy": greedy(start(), weights.room)[0].tolist(),
             "sampled": sample(start(), weights.room)[0].tolist(),
             "beam 4": beams(start(), 4, weights.room)[0][0].tokens}
    return [(name, pieces.decode(own_ids(tokens))) for name, tokens in found.items()]

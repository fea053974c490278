"""What --weights FOLDER asks for: the published model, the learner's parts in it, its pieces, a text."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from course.console.narrator import Narrator
from course.grading.own import own_parts
from course.published.loading import Published, load
from course.published.models import SYMBOLS, PublishedDecoding
from course.published.texts import Pieces, prompt_of, read_pieces
from course.training.command_line import PARTS_UP_TO
from course.training.parts import found_in

MOST = 40  # pieces written behind a text


class Weights(NamedTuple):
    """A published model, the same with the learner's parts if there are any, and a text for it."""

    published: Published
    yours: Published | None
    pieces: Pieces | None
    text: str
    names: list[str]  # of the learner's parts in it

    @property
    def inputs(self) -> Tensor:
        """The text's ids (1, L), some ids where there is no text, or a random picture (1, C, S, S)."""
        config, generator = self.published.config, torch.Generator().manual_seed(0)
        if self.published.kind == "vit":
            size = config["image_size"]
            return torch.randn(1, config["num_channels"], size, size, generator=generator)
        if self.text and self.pieces:
            longest = self.longest - self.published.continues  # one at least is to be written
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
        """The id that ends a text; of several the first."""
        end = self.published.config.get("eos_token_id")
        end = end[0] if isinstance(end, list) and end else end
        return end if isinstance(end, int) and 0 <= end < self.published.config["vocab_size"] else None


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--weights", type=Path, metavar="FOLDER",
                        help="load the published GPT-2, Llama, BERT or ViT in FOLDER, and end")
    parser.add_argument("--with", dest="own", type=Path, action="append", default=[], metavar="FILE",
                        help="with --weights: the parts of lessons 1 to 4 in FILE, your own, go into it")


def weights_of(options: argparse.Namespace, parts: Any, byte_pair_encoding: Callable[..., Any]) -> Weights:
    """What the options ask for; ValueError, in one line, for whatever doesn't fit."""
    folder, text = options.weights, options.input or ""
    published = load(folder, parts)
    yours, names = None, []
    if options.own:
        own = own_parts(options.own, PARTS_UP_TO, Narrator(options.outputs))
        yours = load(folder, parts, own.parts)
        names = found_in(yours.model, own.parts)
    if text and published.kind == "vit":
        raise ValueError(f"--input {text!r}: the model in {folder} reads pictures")
    reads = text or ((folder / "tokenizer.json").exists() and published.kind != "vit")
    pieces = read_pieces(folder, byte_pair_encoding) if reads else None
    weights = Weights(published, yours, pieces, text, names)
    _ = weights.inputs  # a text that doesn't fit is said now
    return weights


@torch.inference_mode()
def output_of(published: Published, inputs: Tensor) -> Tensor:
    """Logits (B, L, V) of a model that continues texts; otherwise the vectors (B, L, D)."""
    model: Any = published.model
    return model.hidden(inputs) if published.kind == "bert" else model(inputs)


def stepped(decoding: Callable[[nn.Module, Tensor], PublishedDecoding], model: nn.Module, ids: Tensor
            ) -> Tensor:
    """The logits (B, L, V) of ids (B, L), one token after the other."""
    steps = decoding(model, ids[:, :1])
    logits = [steps.step(tokens + SYMBOLS) for tokens in ids.unbind(dim=1)]
    return torch.stack(logits, dim=1)[..., SYMBOLS:]

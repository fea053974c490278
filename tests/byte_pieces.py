"""A published tokenizer for tests: every byte is a piece."""

import json
from pathlib import Path

from course.console.files import write_text
from course.published.texts import characters


def write_byte_pieces(folder: Path) -> None:
    """Write a tokenizer.json like GPT-2's without merges: a piece is a byte, its id the byte's value."""
    vocabulary = {character: byte for byte, character in enumerate(characters())}
    settings = {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False},
                "decoder": {"type": "ByteLevel"},
                "model": {"type": "BPE", "vocab": vocabulary, "merges": []}}
    write_text(folder / "tokenizer.json", json.dumps(settings))

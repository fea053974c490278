"""Exporting a trained translator to a folder that doesn't need the course: weights, pieces, and a script."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from course.console.files import prepare_folder, write_text
from course.published.tensor_files import WEIGHTS, write_tensors

SCRIPT = Path(__file__).parent / "load_translator.txt"
SUPPORTED = {"norm": ("pre",), "positions": ("rotary",), "attention": ("kernel",)}  # by that script, load.py
SPECIALS = "<pad>", "<bos>", "<eos>"  # in a text they stay text, because they aren't added tokens


def export(folder: Path, model: nn.Module, config: Mapping[str, Any], encoding: Any, word: re.Pattern[str]
           ) -> list[Path]:
    """Write model.safetensors, config.json, tokenizer.json and load.py → their paths.

    `config` has the model's sizes, `word` is the pattern that splits a text into words. A one-line ValueError
    for a model that load.py doesn't support, and for a folder with other files of these names.
    """
    for name, among in SUPPORTED.items():
        if config[name] not in among:
            raise ValueError(f"--export: load.py supports {name} {', '.join(among)}, not {config[name]}")
    files = [folder / name for name in (WEIGHTS, "config.json", "tokenizer.json", "load.py")]
    if not is_export(files[3]) and (others := [path for path in files if path.exists()]):
        raise ValueError(f"{others[0]} is not from an earlier export: choose another folder for --export")
    prepare_folder(folder)
    write_text(files[3], script())  # first, so that the next export may complete what this one leaves
    write_tensors(files[0], {name: weight.detach() for name, weight in model.state_dict().items()})
    write_text(files[1], json.dumps(config, indent=1))
    write_text(files[2], json.dumps(tokenizer(encoding, word.pattern), ensure_ascii=False))
    return files


def is_export(path: Path) -> bool:
    """Whether the file is the script that export() writes; then the files next to it are an export's."""
    return path.is_file() and path.read_bytes().replace(b"\r\n", b"\n") == script().encode()


def script() -> str:
    return SCRIPT.read_text(encoding="utf-8")


def tokenizer(encoding: Any, word: str) -> Mapping[str, Any]:
    """The pieces of lesson 7 in the format of the tokenizers library: the same ids, bytes for the unknown."""
    names = [*SPECIALS, *(f"<0x{byte:02X}>" for byte in range(256))]
    names += [piece.decode() for piece in encoding.pieces[len(names) :]]
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
        "pre_tokenizer": {"type": "Split", "pattern": {"Regex": word}, "behavior": "Isolated",
                          "invert": False},
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": True,
                  "ignore_merges": False, "vocab": {name: id for id, name in enumerate(names)},
                  "merges": [[names[left], names[right]] for left, right in encoding.merges]}}

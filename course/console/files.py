"""Atomic file writes: figures, checkpoints, histories."""

import csv
import io
import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch


def prepare_folder(folder: Path) -> None:
    """Make the folder, and fail now rather than after the work if nothing can be written there."""
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(None, "the output folder is a file", str(folder))
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass


def write_atomically(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Let `write` fill a temporary file, then rename it to `path`, which is never half-written."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException as error:
        os.unlink(name)
        if isinstance(error, OSError) and error.filename is None:  # such as “no space left”
            error.filename = str(path)
        raise


def write_text(path: Path, text: str) -> None:
    """Write the text as UTF-8, atomically."""
    write_atomically(path, lambda file: file.write(text.encode()))


def save_figure(figure, path: Path) -> None:
    """Write the figure as PNG; equal figures give equal bytes. A character missing from the font is a box."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        write_atomically(
            path, lambda file: figure.savefig(file, format="png", dpi=120, metadata={"Software": None})
        )


def write_history(history: list[dict[str, float]], path: Path) -> None:
    """Write the history as CSV, one line per step; the lines of validated steps also hold the scores."""
    columns = dict.fromkeys(name for record in history for name in record)
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    write_text(path, text.getvalue())


def short_path(path: Path) -> str:
    """The path relative to the working directory if it is inside it, otherwise the absolute path."""
    path, here = path.resolve(), Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


# ------------------------------------------------------------------ checkpoints


class Unusable(ValueError):  # noqa: N818 - says what is wrong, not that something went wrong
    """Says what is wrong with saved data, in words: “its history …”."""


def unfinished(path: Path) -> Path:
    """The path of the checkpoint of an unfinished run."""
    return path.with_name(path.name + ".unfinished")


def free_name(path: Path) -> Path:
    """The first of path.1, path.2, … that isn't taken."""
    number = 1
    while (free := path.with_name(f"{path.name}.{number}")).exists():
        number += 1
    return free


def set_aside(path: Path) -> Path | None:
    """Rename the file to its first free name → that name; None if there is no file."""
    try:
        return path.rename(free_name(path))
    except FileNotFoundError:
        return None


def save_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Write the state, plain values and tensors, to `path`."""
    content = io.BytesIO()
    torch.save(state, content)
    write_atomically(path, lambda file: file.write(content.getvalue()))


def load_checkpoint(path: Path, restore: Callable[[dict[str, Any]], Any]) -> Any:
    """Load the state saved at `path` and return restore(state); no code in the file is run.

    A one-line ValueError for anything that is not such a state.
    """
    try:
        if path.exists() and not path.is_file():  # reading a pipe would wait for ever
            raise Unusable("it is not a regular file")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch's warnings about what it then refuses
            state = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, dict):
            raise Unusable("it holds something else")
        return restore(state)
    except Exception as error:  # a foreign file can fail in any way
        if isinstance(error, OSError) and error.filename:  # the file can't be read at all
            raise
        reason = str(error).partition("\n")[0][:80]
        kind = "" if isinstance(error, Unusable) else f"{type(error).__name__}: "
        raise ValueError(f"{path} is not a checkpoint of this lesson ({kind}{reason})") from error

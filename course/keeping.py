"""Files that are whole or not there: figures, checkpoints, histories."""

import csv
import io
import os
import tempfile
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
    """Let `write` fill a file beside `path`, then put it in its place: never half a file there."""
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


def save_figure(figure, path: Path) -> None:
    """Write the figure as PNG; equal figures give equal bytes."""
    write_atomically(
        path, lambda file: figure.savefig(file, format="png", dpi=120, metadata={"Software": None})
    )


def write_history(history: list[dict[str, float]], path: Path) -> None:
    """The history as CSV, one line a step; scores stand in the lines of the validated steps."""
    columns = dict.fromkeys(name for record in history for name in record)
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    write_atomically(path, lambda file: file.write(text.getvalue().encode()))


def short_path(path: Path) -> str:
    """The path as seen from the working directory, where it lies below it."""
    path, here = path.resolve(), Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


# ------------------------------------------------------------------ checkpoints


def unfinished(path: Path) -> Path:
    """Where a run is kept that hasn't reached its end."""
    return path.with_name(path.name + ".unfinished")


def save_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Write the state, plain values and tensors, to `path`."""
    content = io.BytesIO()
    torch.save(state, content)
    write_atomically(path, lambda file: file.write(content.getvalue()))


def load_checkpoint(path: Path, restore: Callable[[dict[str, Any]], Any]) -> Any:
    """What `restore` makes of the state saved at `path`; no code in the file is run.

    ValueError, in one line, for anything that is not such a state.
    """
    content = io.BytesIO(path.read_bytes())
    try:
        return restore(torch.load(content, map_location="cpu", weights_only=True))
    except Exception as error:  # a foreign file can fail in any way
        reason = str(error).partition("\n")[0][:80]
        message = f"{path} is not a checkpoint of this lesson ({type(error).__name__}: {reason})"
        raise ValueError(message) from error

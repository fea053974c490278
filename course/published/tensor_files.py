"""Reading folders of published weights: tensors (safetensors), and the JSON files next to them.

A safetensors file has the length of its header (8 bytes, little-endian), the header as JSON, and the numbers.
The header gives each tensor's dtype, shape, and first and last byte after the header. Unlike a pickle
(pytorch_model.bin), such a file can't run code. Any error is a one-line ValueError that names the file, and
the key if there is one.
"""

import json
import math
import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from course.console.files import write_atomically

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
          "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8,
          "BOOL": torch.bool}
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"  # which tensor is in which of several files


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in the file."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path.parent} has no {path.name}") from None
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds a {type(found).__name__}, not an object")
    return found


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder by name, from one file, or from those that its index names."""
    if not (folder / INDEX).exists():
        return read_tensors(folder / WEIGHTS)
    places = read_json(folder / INDEX).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(file, str) for file in places.values()):
        raise ValueError(f"{folder / INDEX} has no weight_map of file names")
    tensors: dict[str, Tensor] = {}
    for file in sorted(set(places.values())):
        if Path(file).name != file:
            raise ValueError(f"{folder / INDEX} names {file}, which is not a file in this folder")
        tensors |= read_tensors(folder / file)
    if missing := sorted(places.keys() - tensors.keys()):
        raise ValueError(f"{folder / places[missing[0]]} has no {missing[0]}, which {INDEX} lists")
    return tensors


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of one safetensors file, memory-mapped: the system loads pages when they are read."""
    try:
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)  # tensors may be written to
    except FileNotFoundError:
        raise ValueError(f"{path.parent} has no {path.name}{instead_of(path)}") from None
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    except ValueError:
        raise ValueError(f"{path} is empty") from None
    begin = 8 + int.from_bytes(data[:8], "little")
    if len(data) < begin:
        raise ValueError(f"{path} is cut short: its header ends at byte {begin:,}, the file at {len(data):,}")
    try:
        header = json.loads(data[8:begin])
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise ValueError(f"{path} is not a safetensors file: its header is not a JSON object")
    header.pop("__metadata__", None)
    return {name: tensor_at(path, name, about, data, begin) for name, about in header.items()}


def instead_of(path: Path) -> str:
    """A note for the error message if the weights are there only in the older format."""
    pickled = (path.parent / "pytorch_model.bin").exists()
    return " (pytorch_model.bin is a pickle, which could run code; it is not read)" if pickled else ""


def tensor_at(path: Path, name: str, about: Any, data: mmap.mmap, begin: int) -> Tensor:
    """One tensor of the file, as described by its entry in the header."""
    try:
        kind, shape, (first, last) = about["dtype"], tuple(about["shape"]), about["data_offsets"]
        whole = all(type(number) is int and number >= 0 for number in (*shape, first, last))
    except (ValueError, TypeError, KeyError):
        whole = False
    if not whole:
        raise ValueError(f"{path}: the header's entry for {name} is not dtype, shape and data_offsets")
    if kind not in DTYPES:
        raise ValueError(f"{path}: {name} has dtype {kind}; supported: {', '.join(DTYPES)}")
    dtype, count = DTYPES[kind], math.prod(shape)
    if last - first != count * dtype.itemsize:
        raise ValueError(f"{path}: {name} is {text_of(shape)} {kind}, {count * dtype.itemsize:,} bytes, and "
                         f"its data_offsets are {last - first:,} bytes apart")
    if begin + last > len(data):
        raise ValueError(f"{path} is cut short: {name}, {text_of(shape)}, ends at byte {begin + last:,}, "
                         f"the file at {len(data):,}")
    if not count:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(data, dtype=dtype, count=count, offset=begin + first).view(shape)


def text_of(shape: tuple[int, ...]) -> str:
    """2 × 3; “one number” without axes."""
    return " × ".join(map(str, shape)) or "one number"


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write the tensors, by name, to a safetensors file."""
    names = {dtype: name for name, dtype in DTYPES.items()}
    header, place = {}, 0
    for name, tensor in tensors.items():
        header[name] = {"dtype": names[tensor.dtype], "shape": list(tensor.shape),
                        "data_offsets": [place, place + tensor.nbytes]}
        place += tensor.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the numbers begin at a multiple of 8 bytes

    def write(file: Any) -> None:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            file.write(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())

    write_atomically(path, write)

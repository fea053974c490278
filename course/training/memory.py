"""Memory: how much there is, how much training needs at least, and which errors mean that it ran out."""

import importlib
import os
from pathlib import Path
from typing import Any

import torch

from course.training.processes import PROCESSES

resource = importlib.import_module("resource") if os.name == "posix" else None  # Windows has none
WORDS = ("can't allocate memory", "out of memory", "not enough memory", "cannot allocate memory",
         "bad allocation", "std::bad_alloc", "invalid buffer size", "numel: integer multiplication overflow",
         "storage size calculation overflowed", "overflow when unpacking long", "int too big to convert")


def out_of_memory(error: BaseException) -> bool:
    """Whether an error of Python or PyTorch means that memory ran out."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError | OverflowError) and any(
            words in str(error).lower() for words in WORDS))


def memory_of(device: torch.device) -> int | None:
    """Bytes of memory on the device; for the CPU, what this process may use. None if unknown."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    found = []
    if hasattr(os, "sysconf") and {"SC_PAGE_SIZE", "SC_PHYS_PAGES"} <= os.sysconf_names.keys():
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for file in "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes":  # of a container
        try:
            found.append(int(Path(file).read_text()))
        except (OSError, ValueError):  # no such file, or “max”
            continue
    if resource and (limit := resource.getrlimit(resource.RLIMIT_AS)[0]) != resource.RLIM_INFINITY:
        found.append(limit)
    return min(filter(lambda size: size > 0, found), default=None)


def gigabytes(size: int) -> str:
    """The size in words: 0.3 GB, 12,000 GB."""
    return f"{size / 1e9:,.1f} GB" if size < 1e10 else f"{size // 10**9:,} GB"


def needed_for(config: Any, training: Any, parallel: str = "data") -> int:
    """Bytes that training an encoder-decoder on batches of short sequences needs at least, in each process.

    This counts four numbers of four bytes per weight (itself, its gradient, Adam's two means), the Python
    objects of the blocks, the batch, and for each token the outputs of linear maps, norms and activations
    that the backward pass reads. Processes divide the rows; with fsdp also all weights, which start out
    whole; with tensor the weights of the blocks, and what these keep, but the first one also has a copy.
    """
    width, inner, blocks = config.d_model, config.d_ff, config.n_layers
    embedding, inside = config.vocab_size * width, blocks * (12 * width**2 + 4 * width * inner)
    kept = 2 * width if training.recompute else 21 * width + 4 * inner  # in a block of each stack
    weights, rows = embedding + inside, training.batch_size // training.accumulate
    if parallel == "tensor":
        weights, kept = embedding + inside // PROCESSES + weights // 4, kept // PROCESSES
    else:
        rows //= PROCESSES
    if parallel == "fsdp":
        weights = max(weights // PROCESSES, weights // 4)
    size = 4 if training.precision == "fp32" else 2
    tokens = 10  # of source and of answer, at least, in nearly every batch
    return 16 * weights + 40_000 * blocks + 900 * training.batch_size + size * rows * tokens * blocks * kept


def sizes_of(config: Any, training: Any) -> str:
    """The sizes that determine the memory, in words."""
    return (f"d_model {config.d_model:,}, d_ff {config.d_ff:,}, n_layers {config.n_layers:,}, "
            f"batch_size {training.batch_size:,}")


def refuse_beyond_memory(config: Any, training: Any, device: torch.device, parallel: str = "data") -> None:
    """ValueError, naming the sizes, if training needs more memory than the device has."""
    needed, there = needed_for(config, training, parallel), memory_of(device)
    if there is not None and needed > there:
        raise ValueError(f"{sizes_of(config, training)}: training needs at least {gigabytes(needed)} of "
                         f"memory, but the limit is {gigabytes(there)}")

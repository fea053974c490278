"""Measuring a call: its multiplications, seconds, bytes and intermediate shapes."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


def bytes_kept(function: Callable, *inputs: Tensor) -> int:
    """Bytes that autograd keeps for the backward pass of `function`, beyond the inputs."""
    kept = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = function(*inputs)
    inputs_kept = {tensor.untyped_storage().data_ptr() for tensor in inputs}
    del result
    return sum(size for pointer, size in kept.items() if pointer not in inputs_kept)


def multiplications_of(function: Callable, *inputs: Tensor) -> int:
    """The number of multiplications in the matrix products of `function`."""
    with FlopCounterMode(display=False) as counter:
        function(*inputs)
    return counter.get_total_flops() // 2  # a multiplication and an addition count as two


def seconds_of(function: Callable, *inputs: Tensor, repeats: int = 3) -> float:
    """The median time of `repeats` runs, after one warm-up run."""
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        function(*inputs)
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def shapes_through(module: nn.Module, *inputs: Tensor) -> list[tuple[str, str, str]]:
    """(part, its class, shape of its output) for every layer and norm, in the order in which they run."""
    rows, hooks = [], []
    for name, part in module.named_modules():
        if name and ("." not in name or name.endswith(".norm")):
            def note(part, _, output, name=name):
                rows.append((name, type(part).__name__, " × ".join(map(str, output.shape))))
            hooks.append(part.register_forward_hook(note))
    module(*inputs)
    for hook in hooks:
        hook.remove()
    return rows


def watched(decoding: Any) -> list[tuple[int, float]]:
    """A list to which every step of lesson 6's decoding appends (rows, seconds) from now on."""
    noted, step = [], decoding.step

    def timed(tokens: Tensor) -> Tensor:
        started = time.perf_counter()
        logits = step(tokens)
        noted.append((len(tokens), time.perf_counter() - started))
        return logits

    decoding.step = timed
    return noted


def cost_of(begin: Callable[[], Any], decode: Callable[[Any], Tensor]) -> tuple[Tensor, float, float]:
    """decode(begin()), a decoding of lesson 6 → the answers, tokens run and milliseconds per answer."""
    started, decoding = time.perf_counter(), begin()
    steps = watched(decoding)
    answers = decode(decoding)
    milliseconds = 1000 * (time.perf_counter() - started)
    return answers, sum(rows for rows, _ in steps) / len(answers), milliseconds / len(answers)


def seconds_of_steps(begin: Callable[[], Any], first: Callable[[Any], Tensor], length: int) -> list[float]:
    """Seconds of each of `length` decoding steps that ignore the end mark, after twenty warm-up steps.

    begin() makes a decoding of lesson 6, first(decoding) returns its first tokens.
    """
    for steps in (20, length):
        decoding = begin()
        tokens, noted = first(decoding), watched(decoding)
        for _ in range(steps):
            tokens = decoding.step(tokens).argmax(dim=-1)
    return [seconds for _, seconds in noted]

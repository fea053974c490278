"""One process or several: ranks, sums over processes, one speaker, devices and interrupts."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from typing import Any

import torch
from torch import Tensor, distributed

from course.console.ending import stop

RANK, PROCESSES = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))  # torchrun's


def pick_device(name: str = "auto") -> torch.device:
    """The device called `name` (auto, cpu, cuda, mps); ValueError if it isn't there."""
    there = ["cpu"]
    if torch.backends.mps.is_available():
        there.insert(0, "mps")
    if torch.cuda.is_available():
        there.insert(0, "cuda")
    kind = there[0] if name == "auto" else name.partition(":")[0]
    if kind not in there:
        raise ValueError(f"device {name} isn't here; this machine has {', '.join(there)}")
    try:
        return torch.device(there[0] if name == "auto" else name)
    except RuntimeError as error:
        raise ValueError(f"device {name} isn't one that PyTorch knows") from error


def own_device(name: str) -> torch.device:
    """pick_device(), and under torchrun with CUDA a GPU for every process."""
    device = pick_device(name)
    if PROCESSES > 1 and device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    return device


@contextmanager
def all_processes(device: torch.device) -> Iterator[None]:
    """Inside `with`, the processes that torchrun started work together; only the first one speaks."""
    if PROCESSES == 1:
        yield
        return
    try:
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    except ValueError as error:
        stop(f"WORLD_SIZE is {PROCESSES}, but torchrun has not started this: {str(error).rpartition(':')[2]}")
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere) if RANK else nullcontext():
        try:
            yield
        finally:
            distributed.destroy_process_group()


def any_process(flag: bool, device: torch.device) -> bool:
    """True if the flag is set in any process: they have to end together."""
    if PROCESSES == 1:
        return flag
    total = torch.tensor(float(flag), device=device)
    distributed.all_reduce(total)
    return total.item() > 0


def said_by_the_first(say: Callable[[], Any]) -> Any:
    """What say() returns in the first process, told to all of them; the others don't call it."""
    if PROCESSES == 1:
        return say()
    message = [say() if RANK == 0 else None]
    distributed.broadcast_object_list(message)
    return message[0]


def add_over_processes(loss: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """The loss summed over all processes, and every gradient replaced by its sum.

    A process that has no gradient for a parameter adds 0; where none has one, none gets one.
    """
    if PROCESSES == 1:
        return loss
    has = torch.tensor([float(p.grad is not None) for p in parameters], device=loss.device)
    parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = torch.cat([loss[None], has, *(part.flatten() for part in parts)])
    distributed.all_reduce(flat)
    loss, has, flat = flat[0], flat[1 : 1 + len(parts)], flat[1 + len(parts) :]
    sums = flat.split([part.numel() for part in parts])
    for parameter, total, someone in zip(parameters, sums, has.tolist(), strict=True):
        parameter.grad = total.view_as(parameter).to(parameter.dtype) if someone else None
    return loss


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Inside `with`, Ctrl-C or SIGTERM makes interrupted() True; the second time it ends at once."""
    caught: list[int] = []
    before = {}

    def note(number: int, frame: Any) -> None:
        caught.append(number)
        signal.signal(number, signal.SIG_DFL if number != signal.SIGINT else signal.default_int_handler)

    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(caught)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""One process or several: ranks, sums over processes, output from one process, devices and interrupts."""

import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from typing import Any

import torch
from torch import Tensor, distributed

from course.console.ending import first_line, stop

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
    """pick_device(), but with CUDA under torchrun one GPU per process. ValueError if there is none."""
    device = pick_device(name)
    if PROCESSES == 1:
        return device
    if device.type == "mps":
        if name != "auto":
            raise ValueError("several processes can't share a training on mps: use --device cpu")
        return torch.device("cpu")
    if device.type == "cuda":
        number, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if number >= there:
            raise ValueError(f"process {RANK} has no GPU of its own: this machine has {there}")
        device = torch.device("cuda", number)
        torch.cuda.set_device(device)
    return device


def refuse_precision(precision: str, device: torch.device) -> None:
    """ValueError if PyTorch can't scale losses in float16 on this device."""
    if precision != "fp16":
        return
    linear, scaler = torch.nn.Linear(2, 2).to(device), torch.amp.GradScaler(device.type)
    try:
        with torch.autocast(device.type, torch.float16):
            loss = linear(torch.ones(1, 2, device=device)).float().sum()
        scaler.scale(loss).backward()
        scaler.unscale_(torch.optim.SGD(linear.parameters()))
        scaler.update()
    except (RuntimeError, TypeError, AssertionError) as error:
        raise ValueError(f"--precision fp16 doesn't work on {device} with PyTorch {torch.__version__} "
                         f"({first_line(error)[:80]}); use bf16") from error


# ------------------------------------------------------------------ the group of processes


class ProcessLost(RuntimeError):  # noqa: N818 - says what happened
    """Another process of the group has ended prematurely."""


LOST = "connection closed", "connection reset", "connection refused", "broken pipe", "timed out", "nccl"


@contextmanager
def noticing_lost_processes() -> Iterator[None]:
    """Inside `with`, an error of the network between processes is raised as ProcessLost."""
    try:
        yield
    except RuntimeError as error:
        if PROCESSES == 1 or not any(words in str(error).lower() for words in LOST):
            raise
        raise ProcessLost("another process has ended") from error


def start_group() -> None:
    """Connect the processes that torchrun started, once."""
    if PROCESSES == 1 or distributed.is_initialized():
        return
    try:
        distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    except ValueError as error:
        stop(f"WORLD_SIZE is {PROCESSES}, but torchrun has not started this script: "
             f"{str(error).rpartition(':')[2]}")


@contextmanager
def all_processes() -> Iterator[None]:
    """Inside `with`, the processes that torchrun started work together; only the first one prints."""
    if PROCESSES == 1:
        yield
        return
    start_group()
    with ExitStack() as stack:
        if RANK:
            nowhere = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(redirect_stdout(nowhere))
            stack.enter_context(redirect_stderr(nowhere))
        try:
            yield
        finally:
            distributed.destroy_process_group()


@contextmanager
def ending_together() -> Iterator[None]:
    """Inside `with`, if one process ends, all end with the same code; the first prints why, once."""
    if PROCESSES == 1:
        yield
        return
    start_group()
    code, said = None, io.StringIO()
    with redirect_stderr(said), redirect_stdout(io.StringIO() if RANK else sys.stdout):
        try:
            yield
        except SystemExit as ended:
            code = ended.code or 0
    found: list[Any] = [None] * PROCESSES
    distributed.all_gather_object(found, (code, said.getvalue()))
    ended_with = next((code for code, _ in found if code is not None), None)
    text = next((text for code, text in found if code is not None), found[0][1])
    if text and not RANK and sys.stderr is not None:
        sys.stderr.write(text)
        sys.stderr.flush()
    if ended_with is not None:
        distributed.destroy_process_group()
        sys.exit(ended_with)


def any_process(flag: bool, device: torch.device) -> bool:
    """True if the flag is set in any process: they have to end together."""
    return bool(sum_over_processes(torch.tensor(float(flag), device=device)).item())


def sum_over_processes(value: Tensor) -> Tensor:
    """The value, added up over all processes."""
    if PROCESSES > 1:
        distributed.all_reduce(value)
    return value


def said_by_the_first(say: Callable[[], Any]) -> Any:
    """What say() returns in the first process, broadcast to all; the others don't call it."""
    if PROCESSES == 1:
        return say()
    message = [say() if RANK == 0 else None]
    distributed.broadcast_object_list(message)
    return message[0]


def done_by_the_first(do: Callable[[], None]) -> None:
    """Call do() in the first process; if it can't write a file, all end, and the first raises its OSError."""
    failed: list[OSError] = []

    def attempt() -> bool:
        try:
            do()
        except OSError as error:
            failed.append(error)
        return bool(failed)

    if said_by_the_first(attempt):
        raise failed[0] if failed else SystemExit(1)


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Inside `with`, Ctrl-C or SIGTERM makes interrupted() True; a second one ends the process at once."""
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

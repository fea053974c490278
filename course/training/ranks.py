"""Ranks: the members of a group that compute one result together, each with its own part of the data.

    def program(group):
        return ring_all_reduce(torch.full((4,), float(group.rank)), group)

    in_threads(program, 4)    # ranks are threads of this process: cheap, and easy to inspect
    in_processes(program, 2)  # ranks are processes, as under torchrun

Both return what each rank returns, in the order of the ranks. A program only sees its group: `rank`, `size`,
and send(), receive() and exchange(). Nothing else moves data between ranks, so `sent` counts all bytes.
"""

import multiprocessing
import os
import pickle
import tempfile
import threading
import time
import warnings
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

from course.console.ending import first_line
from course.training.processes import PROCESSES
from course.training.side_by_side import end_with_parent, packed, processes_are_dear

Result = TypeVar("Result")
SECONDS = 120  # the time after which processes that have not answered are ended


class Group:
    """One rank's view of all ranks."""

    def __init__(self, rank: int, size: int):
        self.rank, self.size = rank, size
        self.sent = 0  # bytes that this rank has sent

    def send(self, tensor: Tensor, to: int) -> None:
        """Send the tensor to another rank, without waiting until it has arrived."""
        self.sent += tensor.nbytes
        self.put(tensor.detach().clone(memory_format=torch.contiguous_format), to)

    def receive(self, source: int, like: Tensor) -> Tensor:
        """The next tensor that `source` has sent to this rank, of the shape and type of `like`."""
        raise NotImplementedError

    def exchange(self, tensor: Tensor, to: int, source: int) -> Tensor:
        """Send the tensor to one rank, and receive one of the same shape from another."""
        self.send(tensor, to)
        return self.receive(source, tensor)

    def put(self, tensor: Tensor, to: int) -> None:
        raise NotImplementedError


# ------------------------------------------------------------------ threads


class Stuck(RuntimeError):  # noqa: N818 - what the ranks are
    """Every rank waits for a message that no rank will send."""


class Post:
    """The messages between ranks that are threads."""

    def __init__(self, ranks: int):
        self.boxes: defaultdict[tuple[int, int], deque[Tensor]] = defaultdict(deque)
        self.changed = threading.Condition()
        self.working = ranks
        self.waiting: dict[int, int] = {}  # rank → the rank from which it needs a message

    def put(self, tensor: Tensor, source: int, to: int) -> None:
        with self.changed:
            self.boxes[source, to].append(tensor)
            self.changed.notify_all()

    def take(self, source: int, to: int) -> Tensor:
        """Wait for a message. Raises Stuck if none can come any more."""
        with self.changed:
            self.waiting[to] = source
            try:
                while not self.boxes[source, to]:
                    if self.stuck():
                        raise Stuck(f"rank {to} waits for a message from rank {source} that never comes")
                    self.changed.wait()
                return self.boxes[source, to].popleft()
            finally:
                del self.waiting[to]

    def stuck(self) -> bool:
        return len(self.waiting) == self.working and not any(
            self.boxes[source, to] for to, source in self.waiting.items())

    def leave(self) -> None:
        """A rank has ended, and sends nothing more."""
        with self.changed:
            self.working -= 1
            self.changed.notify_all()


class Threads(Group):
    """A group of threads in this process."""

    def __init__(self, rank: int, size: int, post: Post):
        super().__init__(rank, size)
        self.post = post

    def put(self, tensor: Tensor, to: int) -> None:
        self.post.put(tensor, self.rank, to)

    def receive(self, source: int, like: Tensor) -> Tensor:
        return self.post.take(source, self.rank)


def in_threads(program: Callable[[Group], Result], size: int) -> list[Result]:
    """What program(group) returns on each of `size` ranks, which are threads; the first error is raised."""
    post, results, errors = Post(size), {}, []

    def work(rank: int) -> None:
        try:
            results[rank] = program(Threads(rank, size, post))
        except BaseException as error:
            errors.append(error)
        finally:
            post.leave()

    threads = [threading.Thread(target=work, args=(rank,), daemon=True) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for error in sorted(errors, key=lambda error: isinstance(error, Stuck)):  # the cause comes first
        raise error
    return [results[rank] for rank in range(size)]


# ------------------------------------------------------------------ processes


class Processes(Group):
    """The group of all processes, over torch.distributed."""

    def __init__(self) -> None:
        super().__init__(distributed.get_rank(), distributed.get_world_size())
        self.on_the_way: list[tuple[Any, Tensor]] = []

    def put(self, tensor: Tensor, to: int) -> None:
        self.on_the_way.append((distributed.isend(tensor, to), tensor))

    def receive(self, source: int, like: Tensor) -> Tensor:
        found = torch.empty_like(like, memory_format=torch.contiguous_format)
        distributed.recv(found, source)
        return found

    def arrived(self) -> None:
        """Wait until all that was sent has arrived."""
        for message, _ in self.on_the_way:
            message.wait()
        self.on_the_way.clear()


def why_not() -> str:
    """Why processes can't work together on the CPU here; "" if they can."""
    if not distributed.is_available():
        return "this PyTorch was built without torch.distributed"
    return "" if distributed.is_gloo_available() else "this PyTorch has no gloo, its backend for CPUs"


def run_here(program: Callable[[Group], Result]) -> Result:
    group = Processes()
    result = program(group)
    group.arrived()
    return result


def in_processes(program: Callable[[Group], Result], size: int, seconds: float = SECONDS) -> list[Result]:
    """What program(group) returns on each rank; ranks are processes on this machine, joined by gloo.

    Under torchrun its processes are used, however many there are. Otherwise `size` are started; results have
    to be plain values and tensors. The first error ends all, and so does a rank that is lost. Raises Apart if
    the processes can't connect, and TimeoutError after `seconds`.
    """
    if PROCESSES > 1:
        results: list[Any] = [None] * PROCESSES
        distributed.all_gather_object(results, run_here(program))
        return results
    context: Any = multiprocessing.get_context("spawn" if processes_are_dear() else "fork")
    until, pipes, processes = time.monotonic() + seconds, [], []
    with tempfile.TemporaryDirectory() as folder:
        meeting = (Path(folder) / "meeting").as_uri()
        try:
            for rank in range(size):
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(target=one_of, args=(program, rank, size, meeting, theirs, seconds),
                                          daemon=True)
                with meeting_or_apart():
                    process.start()
                theirs.close()
                pipes.append(ours)
                processes.append(process)
            return gathered(pipes, until, seconds)
        finally:
            for process in processes:
                process.kill()
                process.join()


def or_why_not(program: Callable[[Group], Result], size: int) -> list[Result] | str:
    """in_processes(), or a sentence that says why processes can't connect. Raises the program's errors."""
    if reason := why_not():
        return f"No processes were started: {reason}."
    try:
        return in_processes(program, size)
    except Apart as error:
        return f"No processes can work together on this machine: {error}."


class Apart(RuntimeError):  # noqa: N818 - what the ranks are
    """The processes could not be started or connected: too little memory, or no network between them."""


@contextmanager
def meeting_or_apart() -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise Apart(first_line(error)) from error


class Lost(RuntimeError):  # noqa: N818 - what a rank is
    """A process has ended without a result."""


def gathered(pipes: Sequence[Connection], until: float, seconds: float) -> list[Any]:
    """One message from each rank. Raises TimeoutError, a lost rank, or else the first error."""
    results: dict[int, Any] = {}
    errors: list[BaseException] = []
    while len(results) < len(pipes):
        missing = [pipe for rank, pipe in enumerate(pipes) if rank not in results]
        ready = wait(missing, 1.0 if errors else max(0.0, until - time.monotonic()))
        if errors and not ready:
            break
        if not ready:
            raise TimeoutError(f"processes have not answered within {seconds:g} seconds")
        for rank in [rank for rank, pipe in enumerate(pipes) if pipe in ready]:
            try:
                kind, results[rank] = pickle.loads(pipes[rank].recv_bytes())
            except EOFError:
                kind, results[rank] = "error", Lost(f"the process of rank {rank} was ended")
            if kind == "error":
                errors.append(results[rank])
    for error in sorted(errors, key=lambda error: not isinstance(error, Lost)):
        raise error
    return [results[rank] for rank in range(len(pipes))]


def one_of(program: Callable[[Group], Any], rank: int, size: int, meeting: str, out: Connection,
           seconds: float) -> None:
    """A process's main function: connect to the others, run the program, send its result or exception."""
    silence = os.open(os.devnull, os.O_WRONLY)  # gloo writes to the terminal
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    threading.Thread(target=end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with meeting_or_apart():
                distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=size,
                                               timeout=timedelta(seconds=seconds))
            message = pickle.dumps(("result", run_here(program)))
    except BaseException as error:
        message = packed(error)
    out.send_bytes(message)
    wait([multiprocessing.parent_process().sentinel])  # the others may still need this process

"""Small independent training runs side by side, one process for each idle core, with one thread each.

    jobs = [partial(train_with, rate) for rate in rates]
    losses = side_by_side(jobs)

The results are bit-identical to those of jobs that run one after the other.
"""

import importlib
import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, TypeVar

import torch

from course.console.narrator import progress_bar, reporting_to
from course.training.processes import PROCESSES

Result = TypeVar("Result")
MOST = 16  # most processes, however many cores there are


def side_by_side(jobs: Sequence[Callable[[], Result]], label: str = "", optimisers: bool = True
                 ) -> list[Result]:
    """What each job returns, in the order of the jobs.

    Every job starts from the random state that PyTorch has now, and computes with one thread. Its
    result has to be plain values and tensors, because it may come from another process. The first exception
    of a job ends the others and is raised here, like Ctrl-C. With a `label` a progress bar is shown. If jobs
    use PyTorch's `optimisers`, which import its compiler, that is imported once, before the forks.
    """
    with progress_bar(label, len(jobs)) if label else nullcontext(lambda done, text: None) as report:
        count = min(len(jobs), 1 if processes_are_dear() else idle_cores())
        if count > 1 and optimisers:
            importlib.import_module("torch._dynamo")
        return in_processes(jobs, count, report) if count > 1 else in_turns(jobs, report)


def processes_are_dear() -> bool:
    """Whether a new process would import PyTorch again, or can't use the device: then jobs take turns."""
    return (sys.platform == "darwin" or not hasattr(os, "fork") or PROCESSES > 1
            or torch.cuda.is_initialized() or multiprocessing.current_process().daemon)


def idle_cores() -> int:
    """The number of cores that this process may use, minus those that are busy with something else now."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError, IndexError):  # “0.20 0.18 0.12 1/80 11206”: one is running, this one
        cores -= int(Path("/proc/loadavg").read_text().split()[3].partition("/")[0]) - 1
    return min(max(cores, 1), MOST)


def in_turns(jobs: Sequence[Callable[[], Result]], report: Callable[[int, str], None]) -> list[Result]:
    """One job after the other, in this process."""
    results: list[Result] = []
    for job in jobs:
        listener = reporting_to(lambda text: report(len(results), told(len(results), len(jobs), text)))
        with one_thread(), torch.random.fork_rng(devices=[]), listener:
            results.append(job())
        report(len(results), told(len(results), len(jobs)))
    return results


def told(done: int, jobs: int, latest: str = "") -> str:
    return f"{done} of {jobs} done" + (f"; {latest}" if latest else "")


@contextmanager
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def in_processes(jobs: Sequence[Callable[[], Result]], count: int, report: Callable[[int, str], None]
                 ) -> list[Result]:
    """At most `count` jobs at once, each in a fork of this process."""
    fork, waiting, results = multiprocessing.get_context("fork"), [*enumerate(jobs)][::-1], {}
    running: dict[Connection, tuple[int, Any]] = {}  # its messages → the job's number and process
    try:
        while waiting or running:
            while waiting and len(running) < count:
                number, job = waiting.pop()
                ours, theirs = fork.Pipe(duplex=False)
                process = fork.Process(target=child, args=(job, theirs), daemon=True)
                process.start()
                theirs.close()
                running[ours] = number, process
            for ours in wait([*running]):  # type: ignore[assignment]
                number, process = running[ours]
                try:
                    kind, content = pickle.loads(ours.recv_bytes())
                except EOFError:
                    process.join()
                    kind, content = "error", RuntimeError(f"a process ended with code {process.exitcode}")
                if kind == "error":
                    raise content
                if kind == "result":
                    results[number] = content
                    process.join()
                    del running[ours]
                report(len(results), told(len(results), len(jobs), content if kind == "said" else ""))
    finally:
        for _, process in running.values():
            process.kill()
            process.join()
    return [results[number] for number in range(len(jobs))]


def child(job: Callable[[], Any], out: Connection) -> None:
    """Run the job; send its progress reports, and finally its result or its exception."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its children
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    try:
        with reporting_to(lambda text: out.send_bytes(pickle.dumps(("said", text)))):
            message = pickle.dumps(("result", job()))
    except BaseException as error:
        message = packed(error)
    out.send_bytes(message)


def packed(error: BaseException) -> bytes:
    """The exception or, if it can't be sent, a RuntimeError with its message."""
    try:
        pickle.loads(whole := pickle.dumps(("error", error)))
        return whole
    except Exception:
        return pickle.dumps(("error", RuntimeError(f"{type(error).__name__}: {error}")))


def end_with_parent() -> None:
    """End this process when the one that started it is gone."""
    wait([multiprocessing.parent_process().sentinel])
    os._exit(1)

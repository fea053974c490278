"""How many threads a training on the CPU takes: as many as make it faster, here and now."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from course.training.engine import Run
from course.training.processes import PROCESSES

MOST = torch.get_num_threads()  # of PyTorch's own choosing: the cores, or OMP_NUM_THREADS


@contextmanager
def threads_for(run: Run, wanted: int | None) -> Iterator[int]:
    """Inside `with`, the threads that were asked for, or else one or all, by a trial of some gradients.

    All are twice as fast where the other cores are idle, and many times slower where they are not.
    """
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(wanted or tried(run, MOST))
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def tried(run: Run, most: int, times: int = 4) -> int:
    """1 or `most`, whichever computes a few gradients in less time; the run stays as it is."""
    if most == 1 or PROCESSES > 1 or run.device.type != "cpu" or run.finished:
        return 1
    seconds = {}
    for threads in (1, most):
        torch.set_num_threads(threads)
        run.backward(0)  # the first one warms up
        started = time.perf_counter()
        for step in range(times):
            run.backward(step)
        seconds[threads] = time.perf_counter() - started
    run.optimizer.zero_grad()
    return most if seconds[most] < 0.9 * seconds[1] else 1

"""Choosing the number of threads for training on the CPU: several only if they are faster here and now."""

import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from course.training.engine import Run
from course.training.processes import PROCESSES

MOST = torch.get_num_threads()  # PyTorch's default: the cores, or OMP_NUM_THREADS
HOPELESS = 2.0  # the trial of several threads ends if it takes this many times as long as one


@contextmanager
def threads_for(run: Run, wanted: int | None) -> Iterator[int]:
    """Inside `with`, use the threads asked for, or else one or all, as a trial on some gradients decides.

    All threads are twice as fast as one if the other cores are idle, and many times slower if they are not.
    """
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(wanted or tried(run, MOST))
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def tried(run: Run, most: int) -> int:
    """1 or `most`, whichever computes a few gradients in less time; the run is not changed."""
    if most == 1 or PROCESSES > 1 or run.device.type != "cpu" or run.finished:
        return 1
    one: list[float] = []
    several: list[float] = []
    for threads, seconds in ((1, one), (most, several)):
        torch.set_num_threads(threads)
        for step in (0, *range(4)):  # the first one warms up
            started = time.perf_counter()
            run.backward(step)
            seconds.append(time.perf_counter() - started)
            if sum(several) > HOPELESS * sum(one):  # next to busy programs the other steps could take minutes
                break
    run.optimizer.zero_grad()
    return most if len(several) == len(one) and sum(several[1:]) < 0.9 * sum(one[1:]) else 1


class Watch:
    """Called after each update of a run: switches to one thread if several have become slow.

    Threads wait for each other, so a single busy core makes all of them wait: steps have become dozens of
    times slower that way. If the median of the last steps is SLOWER times that of the first ones, another
    trial decides. (The median, because a batch of long sentences also takes longer.) If it chooses one
    thread, that is reported to `tell`, once. The results of the run don't change.
    """

    FIRST, LAST, SLOWER = 20, 10, 4.0

    def __init__(self, tell: Callable[[str], None]):
        self.tell = tell
        self.usual = 0.0  # median seconds of the first steps
        self.seconds: deque[float] = deque(maxlen=self.FIRST)
        self.pause = self.LAST  # steps between two checks

    def __call__(self, run: Run) -> None:
        self.seconds.append(run.history[-1]["seconds"])
        threads = torch.get_num_threads()
        if threads == 1 or run.finished or len(self.seconds) < (self.seconds.maxlen or 0):
            return
        latest = statistics.median(self.seconds)
        if not self.usual:
            self.usual = latest
        elif latest > self.SLOWER * self.usual:
            if tried(run, threads) == 1:
                torch.set_num_threads(1)
                self.tell(f"The last steps took {latest / self.usual:.0f} times as long as the first: other "
                          "programs need the cores. Training continues with one thread.")
            else:
                torch.set_num_threads(threads)
                self.pause *= 2
        else:
            self.pause = self.LAST
        self.seconds = deque(maxlen=self.pause)

"""--grade FILE --watch: the file is graded again whenever it is saved.

Importing PyTorch takes longer than all checks, so the next child process imports it in advance and waits.
Each grading still has its own process, and no process that has run the learner's code is used again.
"""

import argparse
import subprocess
import sys
import threading
import time
from pathlib import Path
from queue import Empty, SimpleQueue

from course.console.narrator import Narrator
from course.grading import process
from course.study.progress import note_graded

PAUSE = 0.1  # seconds between two checks of the file


class WarmChild:
    """A process that has imported the lesson and waits to be told where its results go."""

    def __init__(self, lesson: str, file: Path):
        self.process = subprocess.Popen(
            [sys.executable, process.CHILD, lesson, file], stdin=subprocess.PIPE,
            encoding="utf-8", **process.own_group())

    def start(self, results: Path) -> subprocess.Popen:
        """Start grading; the process writes its results to this file."""
        try:
            self.process.stdin.write(f"{results}\n")
            self.process.stdin.close()
        except OSError:  # the process has ended, as its results will show
            pass
        return self.process


def watch(options: argparse.Namespace, narrator: Narrator) -> int:
    """Grade options.grade now, and again after each change, until Ctrl-C; `h` and Enter give a hint.

    The exit code is that of the last grading.
    """
    file, lesson, keys = options.grade, Path(sys.argv[0]).stem, typed()
    spare: WarmChild | None = WarmChild(lesson, file)
    hint, code = options.hint, 1
    try:
        while True:
            done = state_of(file)
            again = Narrator(narrator.outputs, narrator.with_code, narrator.unfolded)
            child, spare = spare, None
            code = process.grade(file, options.graded, again, hint, lesson, child.start)
            note_graded(options.outputs, lesson, again, options.graded)
            spare, hint = WarmChild(lesson, file), False
            again.say("Watching: save the file to grade it again, h and Enter for a hint, Ctrl-C to end.")
            again.flush()
            while state_of(file) in (done, None) and not hint:
                hint = wants_hint(keys)
                time.sleep(PAUSE)
    except KeyboardInterrupt:
        narrator.console.print()
        return code
    finally:
        if spare:
            process.end_with_all(spare.process)


def state_of(file: Path) -> tuple[int, int] | None:
    """The file's time and size, which change when it is saved; None while an editor has removed it."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def typed() -> SimpleQueue:
    """A queue of the lines typed at the keyboard."""
    lines: SimpleQueue = SimpleQueue()

    def read() -> None:
        for line in sys.stdin or ():  # None if it was closed
            lines.put(line.strip().lower())

    threading.Thread(target=read, daemon=True).start()
    return lines


def wants_hint(lines: SimpleQueue) -> bool:
    """Whether h was typed since the last call."""
    wanted = False
    while True:
        try:
            wanted |= lines.get_nowait() == "h"
        except Empty:
            return wanted

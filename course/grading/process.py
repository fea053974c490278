"""--grade FILE: run the process that grades a learner's file (child.py), and print its results.

The file is graded in a separate process, because it is code: it may loop for ever, exit, or replace parts of
PyTorch. The child writes one line per check to a results file. The parent reads the lines as they come, and
ends the child and all processes it started if no line comes in time.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from course.console.ending import stop
from course.console.narrator import Narrator
from course.console.records import Finding
from course.grading.checking import Part
from course.grading.child import END, SECONDS
from course.grading.report import Report

CHILD = Path(__file__).with_name("child.py")


def grade(file: Path, graded: dict[str, Part], narrator: Narrator, hint: bool = False,
          lesson: str = "", start: Callable[[Path], subprocess.Popen] | None = None) -> int:
    """Print which checks hold for the parts that the file defines; returns 0 if all do, otherwise 1.

    `hint` reveals one more hint for the first statement that fails. `lesson` names the lesson whose parts are
    graded (default: the running script). `start` starts the grading process, given the file of results.
    """
    lesson = lesson or Path(sys.argv[0]).stem
    if not file.is_file():
        stop(f"no file {file} to grade", code=2)
    if file.suffix == ".ipynb":
        stop(f"{file} is a notebook; in a cell of it: from common import grade; "
             f'grade("{lesson}", {next(iter(graded))})', code=2)
    narrator.say(f"Running {file}: it is code, so grade only what you trust.")
    narrator.flush()
    report, ended, complete = Report(narrator, graded, file if hint else None), None, False
    with ended_by_signals(), tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results"
        results.touch()
        child = start(results) if start else start_child(lesson, file, results)
        try:
            for line in follow(results, child):
                complete = line == END
                if "name" in line:
                    report.take(line["name"], line["statement"], Finding(*line["finding"]), line["left"])
            ended = child.poll()
        finally:
            end_with_all(child)
    report.end_part()
    if not complete:
        narrator.say("✗ the process gave no answer in time and was ended" if ended is None
                     else f"✗ the process ended with code {ended} before the end", "bold red")
    narrator.console.print()
    missing = [name for name in graded if name not in report.seen]
    if missing and not complete:
        narrator.say(f"not graded: {', '.join(missing)}")
    elif missing:
        narrator.say(f"not in the file: {', '.join(missing)}")
    narrator.say(f"{narrator.held} of {narrator.held + narrator.failed} checks hold", "bold")
    return int(bool(narrator.failed or not complete or len(report.seen) < 2))


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Inside `with`, SIGTERM and SIGHUP end this process by SystemExit, so that the child is ended first."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        for name in {"SIGTERM", "SIGHUP"} & set(dir(signal)):
            number = getattr(signal, name)
            before[number] = signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def start_child(lesson: str, file: Path, results: Path) -> subprocess.Popen:
    """Start the grading process as the leader of its own process group."""
    return subprocess.Popen([sys.executable, CHILD, lesson, file, results], **own_group())


def own_group() -> dict[str, Any]:
    """Options of Popen that make a new process the leader of its own process group."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def follow(results: Path, child: subprocess.Popen) -> Iterator[dict]:
    """The lines that the child writes, until it ends or writes none for too long."""
    last = time.monotonic() + 60  # time to import PyTorch on a busy machine
    with results.open(encoding="utf-8") as file:
        rest = ""
        while True:
            running = child.poll() is None
            rest += file.read()
            *lines, rest = rest.split("\n")
            yield from map(json.loads, lines)
            if lines:
                last = time.monotonic()
            if not lines and (not running or time.monotonic() - last > SECONDS + 3):
                return
            time.sleep(0.02)


def end_with_all(child: subprocess.Popen) -> None:
    """Kill the child and all processes it started."""
    if os.name == "nt":
        child.kill()
    else:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
    child.wait()

"""The learner's own code: a template to fill in, and its grading in a process of its own.

main() is that process: it runs the file, which is code, holds what it defines against the checks of the
lesson, and writes a line for each to a file of results. The parent reads along, and ends the process with
everything that it started if no line comes in time. A file that puts something of its own in the place of
PyTorch's or the course's parts is told so, for the checks compare with them. That guards against accidents:
who wants to cheat can, and cheats himself.
"""

import ast
import importlib
import importlib.util
import inspect
import json
import math
import os
import re
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from course.checking import COURSE, UNWRITTEN, Check, Finding, Part, what_happened
from course.console import Narrator, stop
from course.report import Report

SECONDS = 10.0  # for one check; a call that never gives Python a turn gets three seconds more
RUNNING = f"still running after {SECONDS:.0f} s"
BEGIN, END = {"begin": True}, {"end": True}
CHILD = '''import sys
sys.path.insert(0, sys.argv.pop(1))  # before a course/ or common.py in the working directory
from course.grading import main
main(*sys.argv[1:])'''

TEMPLATE = '''"""Your own code: replace every NotImplementedError, then grade the file."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn'''


# ------------------------------------------------------------------ the template


def write_template(file: Path, graded: dict[str, Part], guided: bool = False) -> int:
    """Write the signatures and docstrings of the graded parts; an existing file stays as it is.

    `guided` adds the steps that lead to the code, as comments, where a part has them.

    Before them stands what they need: parts of earlier lessons, classes that the signatures name, and
    functions that a part's `needs` names.
    """
    lines = inspect.getsource(sys.modules["__main__"]).splitlines()
    nodes = ast.parse("\n".join(lines)).body
    wanted = [node for node in nodes if getattr(node, "name", "") in graded]
    parts = [needed_names(graded[node.name]) + emptied(node, lines, graded[node.name], guided)
             for node in wanted]
    named = words("\n".join(parts)) - {*graded}
    used = words("\n".join("\n".join(lines[node.lineno : node.end_lineno]) for node in wanted))
    bound = [line for line in lines if " = lesson(" in line and line.partition(" ")[0] in used]
    needed = set(re.findall(r"(\w+)\(", " ".join(part.needs for part in graded.values()))) & named
    bound += [f'{node.name} = lesson("{Path(sys.argv[0]).stem}").{node.name}' for node in nodes
              if getattr(node, "name", "") in (named if isinstance(node, ast.ClassDef) else needed)]
    if "PAD" in used and not any(line.startswith("PAD") for line in bound):
        bound.append("PAD, BOS, EOS = 0, 1, 2")
    if any("lesson(" in line for line in bound):
        bound = ["from common import lesson", "", *bound]
    head = "\n".join([TEMPLATE, "", *bound]).rstrip()
    try:
        with file.open("x", encoding="utf-8") as out:
            out.write("\n\n\n".join([head, *parts]) + "\n")
    except FileExistsError:
        stop(f"{file} exists already and was left as it is", code=2)
    return 0


def needed_names(part: Part) -> str:
    """A comment above a part: which names its checks use."""
    return "".join(f"# {line}\n" for line in textwrap.wrap(part.needs, 100))


def words(code: str) -> set[str]:
    return set(re.findall(r"\w+", code))


def emptied(node: ast.FunctionDef | ast.ClassDef, lines: list[str], part: Part, guided: bool,
            inside: bool = False) -> str:
    """The definition without its code: signature and docstring, of a class also its methods'.

    Of the methods it leaves out those without a docstring, and the part's helpers.
    """
    documented = ast.get_docstring(node) is not None
    end = node.body[0].end_lineno if documented else node.body[0].lineno - 1
    first = min([node.lineno, *(mark.lineno for mark in node.decorator_list if isinstance(mark, ast.Name))])
    kept = lines[first - 1 : end]  # with @classmethod and the like
    if isinstance(node, ast.ClassDef):
        wanted = [method for method in node.body if isinstance(method, ast.FunctionDef)
                  and (method.name == "__init__" or ast.get_docstring(method) is not None)
                  and method.name not in part.helpers]
        return "\n\n".join(["\n".join(kept), *(emptied(m, lines, part, guided, True) for m in wanted)])
    indent = " " * (node.col_offset + 4)
    steps = part.guide.get(node.name if inside else "", ()) if guided else ()
    comments = [f"{indent}# {number}. {step}" for number, step in enumerate(steps, 1)]
    return "\n".join([*kept, *comments, f'{indent}raise NotImplementedError("{node.name}")'])


# ------------------------------------------------------------------ the parent


def grade(file: Path, graded: dict[str, Part], narrator: Narrator, hint: bool = False,
          lesson: str = "", start: Callable[[Path], subprocess.Popen] | None = None) -> int:
    """Print what holds of the parts that the file defines; 0 if all of it does, else 1.

    `hint` reveals one more hint for the first statement that fails. `lesson` is whose parts are graded, else
    those of the running script. `start` starts the process that grades, given where the results go.
    """
    if not file.is_file():
        stop(f"no file {file} to grade", code=2)
    narrator.say(f"Running {file}: it is code, so grade only what you trust.")
    sys.stdout.flush()
    for name in {"SIGTERM", "SIGHUP"} & set(dir(signal)):  # end, but not before the child
        signal.signal(getattr(signal, name), lambda number, _: sys.exit(128 + number))
    report, ended, complete = Report(narrator, graded, file if hint else None), None, False
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results"
        results.touch()
        child = start(results) if start else start_child(lesson or Path(sys.argv[0]).stem, file, results)
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


def start_child(lesson: str, file: Path, results: Path) -> subprocess.Popen:
    """The process that grades, at the head of a group of its own."""
    command = [sys.executable, "-c", CHILD, str(COURSE), lesson, str(file), str(results)]
    return subprocess.Popen(command, **own_group())


def own_group() -> dict[str, object]:
    """What makes a new process the head of a group of its own."""
    return ({"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP} if os.name == "nt"
            else {"start_new_session": True})


def follow(results: Path, child: subprocess.Popen) -> Iterator[dict]:
    """The lines that the child writes, until it ends or writes none for too long."""
    last = time.monotonic() + 60  # importing PyTorch on a busy machine
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
    """End the child and what it started."""
    if os.name == "nt":
        child.kill()
    else:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
    child.wait()


# ------------------------------------------------------------------ the child


def main(lesson: str, file: str, results: str) -> None:
    """Write a line for every check of every graded part that the file defines, one before, one at the end."""
    with open(results, "a", encoding="utf-8") as out:

        def write(line: dict) -> None:
            with suppress(AttributeError, OSError, ValueError):  # the file may have closed it
                sys.stdout.flush()  # what it printed meanwhile
            out.write(json.dumps(line) + "\n")
            out.flush()

        module = importlib.import_module(lesson)
        learned = Attempt(Path(file))
        write(BEGIN)
        before = watched()
        loaded = within(SECONDS, learned.run)
        write({"name": learned.file.name, "statement": "The file runs", "finding": loaded, "left": 0})
        for name, part in module.GRADED.items() if loaded.holds else ():
            if hasattr(learned.module, name):
                for line in graded_lines(name, part(getattr(learned.module, name), module)):
                    write(line)
        if replaced := [name for name, value in watched().items()
                        if before.get(name, value) is not value and not from_pytorch(value)]:
            figure = f"replaced: {', '.join(replaced[:3])}"
            finding = Finding(False, figure, "the checks above compare with them", known=True)
            write({"name": learned.file.name, "statement": UNTOUCHED, "finding": finding, "left": 0})
        write(END)
    os._exit(0)  # not sys.exit: a thread that never ends may be left


def graded_lines(name: str, checks: list[Check]) -> Iterator[dict]:
    """A line for each check, until one takes too long or the first says that nothing is written yet.

    `left` is how many checks then were not run.
    """
    for number, check in enumerate(checks):
        finding = within(SECONDS, lambda check=check: check.finding)
        last = finding.figure == RUNNING or (finding.figure == UNWRITTEN and not number)
        left = len(checks) - number - 1 if last else 0
        yield {"name": name, "statement": check.statement, "finding": finding, "left": left}
        if last:
            return


UNTOUCHED = "The file leaves PyTorch and the course as they are"


def from_pytorch(value: Any) -> bool:
    """Whether PyTorch made it: it wraps functions of its own, and an optimiser's step(), when first used."""
    code = getattr(value, "__code__", None)
    made = Path(code.co_filename) if code else Path()
    return Path(torch.__file__).parent in made.parents or str(
        getattr(value, "__module__", "")).startswith("torch.")


def watched() -> dict[str, Any]:
    """What the checks rely on: functions, classes and methods of PyTorch and of the course."""
    rooms = COURSE, COURSE / "course", COURSE / "checks"  # not what is installed below them
    modules = [torch, nn, nn.functional, math, *(module for module in list(sys.modules.values())
               if Path(getattr(module, "__file__", None) or "/").parent in rooms)]
    found = {"torch.get_default_dtype()": torch.get_default_dtype()}
    for module in modules:
        for name, value in list(vars(module).items()):
            if callable(value):
                found[f"{module.__name__}.{name}"] = value
            if isinstance(value, type) and value.__module__ == module.__name__:
                found |= {f"{name}.{key}": method for key, method in vars(value).items() if callable(method)}
    return found


class Attempt:
    """The learner's file as a module, which run() fills."""

    def __init__(self, file: Path):
        spec = importlib.util.spec_from_loader(file.stem, loader=None, origin=str(file))
        self.file, self.module = file, importlib.util.module_from_spec(spec)

    def run(self) -> Finding:
        self.module.__file__ = str(self.file)
        sys.modules.setdefault(self.file.stem, self.module)
        try:
            code = compile(self.file.read_bytes(), str(self.file), "exec")
            exec(code, self.module.__dict__)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            return what_happened(error)
        return Finding(True)


def within(seconds: float, find: Callable[[], Finding]) -> Finding:
    """What find() returns, unless it takes longer than `seconds`."""
    found: list[Finding] = []

    def answer() -> None:
        try:
            found.append(find())
        except BaseException as error:  # also a KeyboardInterrupt, which nobody but the file raises here
            found.append(Finding(False, type(error).__name__, "raised by the file itself?"))

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        return Finding(False, RUNNING, "a loop that never ends?")
    return found[0] if found else Finding(False, "it ended without an answer")


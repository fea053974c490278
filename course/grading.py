"""The learner's own code: a template to fill in, and its grading in a process of its own.

main() is that process: it runs the file, which is code, holds what it defines against the checks of the
lesson, and writes a line for each to a file of results. The parent reads along, and ends the process with
everything that it started if no line comes in time.
"""

import ast
import importlib
import importlib.util
import inspect
import json
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

from course.checking import COURSE, Finding, Part, what_happened
from course.console import Narrator, stop

SECONDS = 10.0  # for one check; a call that never gives Python a turn gets three seconds more
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


def write_template(file: Path, graded: dict[str, Part]) -> int:
    """Write the signatures and docstrings of the graded parts; an existing file stays as it is.

    Before them stands what they need: parts of earlier lessons, and classes that the signatures name.
    """
    lines = inspect.getsource(sys.modules["__main__"]).splitlines()
    nodes = ast.parse("\n".join(lines)).body
    wanted = [node for node in nodes if getattr(node, "name", "") in graded]
    parts = [needed_names(graded[node.name]) + emptied(node, lines) for node in wanted]
    named = words("\n".join(parts)) - {*graded}
    used = words("\n".join("\n".join(lines[node.lineno : node.end_lineno]) for node in wanted))
    bound = [line for line in lines if " = lesson(" in line and line.partition(" ")[0] in used]
    bound += [f'{node.name} = lesson("{Path(sys.argv[0]).stem}").{node.name}'
              for node in nodes if isinstance(node, ast.ClassDef) and node.name in named]
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


def emptied(node: ast.FunctionDef | ast.ClassDef, lines: list[str]) -> str:
    """The definition without its code: signature and docstring, of a class also its methods'."""
    documented = ast.get_docstring(node) is not None
    end = node.body[0].end_lineno if documented else node.body[0].lineno - 1
    kept = lines[node.lineno - 1 : end]
    if isinstance(node, ast.ClassDef):
        methods = [part for part in node.body if isinstance(part, ast.FunctionDef)]
        wanted = [m for m in methods if m.name == "__init__" or ast.get_docstring(m) is not None]
        return "\n\n".join(["\n".join(kept), *(emptied(method, lines) for method in wanted)])
    indent = " " * (node.col_offset + 4)
    return "\n".join([*kept, f'{indent}raise NotImplementedError("{node.name}")'])


# ------------------------------------------------------------------ the parent


def grade(file: Path, graded: list[str], narrator: Narrator) -> int:
    """Print what holds of the parts that the file defines; 0 if all of it does, else 1."""
    if not file.is_file():
        stop(f"no file {file} to grade", code=2)
    narrator.say(f"Running {file}: it is code, so grade only what you trust.")
    sys.stdout.flush()
    for name in {"SIGTERM", "SIGHUP"} & set(dir(signal)):  # end, but not before the child
        signal.signal(getattr(signal, name), lambda number, _: sys.exit(128 + number))
    seen, ended, complete = set(), None, False
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results"
        results.touch()
        child = start_child(Path(sys.argv[0]).stem, file, results)
        try:
            for line in follow(results, child):
                if "name" not in line:
                    complete = line == END
                    continue
                if line["name"] not in seen:
                    narrator.heading(line["name"])
                seen.add(line["name"])
                finding = Finding(*line["finding"])
                narrator.held, narrator.failed = (
                    narrator.held + finding.holds, narrator.failed + (not finding.holds))
                narrator.finding(line["statement"], finding)
            ended = child.poll()
        finally:
            end_with_all(child)
    if not complete:
        narrator.say("✗ the process gave no answer in time and was ended" if ended is None
                     else f"✗ the process ended with code {ended} before the end", "bold red")
    narrator.console.print()
    missing = [name for name in graded if name not in seen]
    if missing:
        narrator.say(f"not in the file: {', '.join(missing)}")
    narrator.say(f"{narrator.held} of {narrator.held + narrator.failed} checks hold", "bold")
    return int(bool(narrator.failed or not complete or len(seen) < 2))


def start_child(lesson: str, file: Path, results: Path) -> subprocess.Popen:
    """The process that grades, at the head of a group of its own."""
    command = [sys.executable, "-c", CHILD, str(COURSE), lesson, str(file), str(results)]
    own_group = ({"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP} if os.name == "nt"
                 else {"start_new_session": True})
    return subprocess.Popen(command, **own_group)


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
            sys.stdout.flush()  # what the file printed meanwhile
            out.write(json.dumps(line) + "\n")
            out.flush()

        module = importlib.import_module(lesson)
        learned = Attempt(Path(file))
        write(BEGIN)
        loaded = within(SECONDS, learned.run)
        write({"name": learned.file.name, "statement": "The file runs", "finding": loaded})
        for name, part in module.GRADED.items() if loaded.holds else ():
            if hasattr(learned.module, name):
                for check in part(getattr(learned.module, name), module):
                    finding = within(SECONDS, lambda check=check: check.finding)
                    write({"name": name, "statement": check.statement, "finding": finding})
        write(END)
    os._exit(0)  # not sys.exit: a thread that never ends may be left


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
    thread = threading.Thread(target=lambda: found.append(find()), daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        return Finding(False, f"still running after {seconds:.0f} s", "a loop that never ends?")
    return found[0] if found else Finding(False, "it ended without an answer")


"""Scripts started in a fork of a process that has imported PyTorch and what draws: seconds sooner.

It has imported nothing of the course. What an interpreter does before and after a script is not tried like
this: for that conftest.py's run_lesson() starts one, whenever something in its surroundings is asked for.
"""

import io
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

SERVER = multiprocessing.get_context("forkserver") if sys.platform == "linux" else None  # forks safely there
if SERVER:
    SERVER.set_forkserver_preload(["torch", "torch._dynamo", "matplotlib.pyplot", "seaborn", "rich.syntax"])


def run_forked(script: Path, options: list[str], cwd: Path, environment: dict[str, str], seconds: float):
    """What subprocess.run() returns for `python script options`, with the output as text."""
    with tempfile.TemporaryDirectory() as folder:
        streams = [os.devnull, f"{folder}/out", f"{folder}/error"]
        child = SERVER.Process(target=as_script, args=(str(script), options, str(cwd), environment, streams))
        child.start()
        child.join(seconds)
        if child.exitcode is None:
            child.kill()
            child.join()
            raise subprocess.TimeoutExpired([script, *options], seconds)
        out, error = (Path(name).read_text(encoding="utf-8", errors="replace") for name in streams[1:])
    return subprocess.CompletedProcess([str(script), *options], child.exitcode, out, error)


def as_script(script: str, options: list[str], cwd: str, environment: dict[str, str],
              streams: list[str]) -> None:
    """In the child: become the script, and end as it does."""
    for number, (name, mode) in enumerate(zip(streams, ("r", "w", "w"))):
        with open(name, mode) as stream:
            os.dup2(stream.fileno(), number)
    sys.stdin, sys.stdout, sys.stderr = (
        io.TextIOWrapper(io.FileIO(number, mode), encoding="utf-8", line_buffering=number == 2)
        for number, mode in enumerate("rww"))
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    here = str(Path(__file__).parent)
    sys.path[:] = [str(Path(script).parent), *(path for path in sys.path if path not in ("", here))]
    sys.argv[:] = [script, *options]
    runpy.run_path(script, run_name="__main__")

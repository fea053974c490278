"""A run with its files: what the command line asked for, where it is kept, how it is trained to its end."""

import argparse
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import torch

from course.console import EndHere, stop
from course.engine import Run, train
from course.keeping import load_checkpoint, short_path, unfinished, write_history


class Experiment:
    """The run called `name`, whose files lie in options.outputs; `default` is the name that needs none.

    make() gives the fresh run, remake(about) the run that a checkpoint tells of; after(run) is called after
    each update.
    """

    def __init__(self, name: str, default: str, make: Callable[[], Run], remake: Callable[[dict], Run],
                 options: argparse.Namespace, device: torch.device,
                 after: Callable[[Run], None] | None = None):
        self.name, self.default, self.make, self.remake = name, default, make, remake
        self.options, self.device, self.after = options, device, after
        self.checkpoint = options.outputs / f"checkpoint_{name}.pt"

    def file(self, stem: str, ending: str = "png") -> str:
        """The file name; of any run but the default one it says what was different."""
        return f"{stem}.{ending}" if self.name == self.default else f"{stem}-{self.name}.{ending}"

    @cached_property
    def run(self) -> Run:
        """The finished run: just trained, or from its checkpoint, or else trained now.

        Ctrl-C ends the script then: a half-trained model isn't measured as a finished one.
        """
        if self.checkpoint.exists():
            return self.load(self.checkpoint)
        run = train(self.make(), self.checkpoint, self.after)
        if not run.finished:
            raise KeyboardInterrupt
        return run

    def load(self, path: Path) -> Run:
        """The run saved there; ends the script in one line if it is none."""
        try:
            return load_run(path, self.remake)
        except ValueError as error:
            stop(f"{error}; delete it, or move it away")

    def fresh_or_resumed(self) -> Run:
        """A fresh run, or with --resume the one that was interrupted."""
        if not self.options.resume:
            return self.make()
        left = unfinished(self.checkpoint)
        if not left.exists():
            stop(f"nothing to resume: there is no {short_path(left)}")
        return self.load(left)

    def train(self) -> EndHere | None:
        """Train the run, keep it and its history; EndHere if it was interrupted.

        A run that bursts ends the script in one line; the state before is kept.
        """
        run = self.fresh_or_resumed()
        self.begun_at = len(run.history)
        try:
            train(run, self.checkpoint, self.after)
        except FloatingPointError as error:
            stop(f"{error}; try a smaller --lr or a longer --warmup. "
                 f"The state before is in {short_path(unfinished(self.checkpoint))}")
        self.run = run
        if run.history:
            write_history(run.history, self.options.outputs / self.file("history", "csv"))
        if run.finished:
            return None
        return EndHere(f"interrupted after step {len(run.history)} of {run.settings.steps}; "
                       "to go on: the same command with --resume", 130)


def load_run(path: Path, remake: Callable[[dict], Run]) -> Run:
    """The run saved at `path`. ValueError, in one line, for anything else; no code in it is run."""

    def restore(state: dict) -> Run:
        run = remake(state["about"])
        run.load(state)
        return run

    return load_checkpoint(path, restore)

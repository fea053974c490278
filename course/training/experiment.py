"""A run with its files: what the command line asked for, where it is kept, how it is trained to its end."""

import argparse
import shutil
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from course.console.ending import stop
from course.console.files import (
    Unusable,
    free_name,
    load_checkpoint,
    set_aside,
    short_path,
    unfinished,
    write_history,
)
from course.console.narrator import Narrator
from course.console.records import EndHere
from course.training.engine import Run, train
from course.training.processes import RANK


class Experiment:
    """The run called `name`, whose files lie in options.outputs; `default` is the name that needs none.

    make() gives the fresh run, remake(about) the run that a checkpoint tells of; after(run) is called after
    each update. `sizes` says in words what the memory depends on.
    """

    history = "history"  # the file of the noted numbers

    def __init__(self, name: str, default: str, make: Callable[[], Run], remake: Callable[[dict], Run],
                 options: argparse.Namespace, device: torch.device,
                 after: Callable[[Run], None] | None = None, sizes: str = ""):
        self.name, self.default, self.make, self.remake, self.sizes = name, default, make, remake, sizes
        self.options, self.device, self.after = options, device, after
        self.checkpoint = options.outputs / f"checkpoint_{name}.pt"
        self.resumed: Run | None = None

    def file(self, stem: str, ending: str = "png") -> str:
        """The file name; of any run but the default one it says what was different."""
        return f"{stem}.{ending}" if self.name == self.default else f"{stem}-{self.name}.{ending}"

    @cached_property
    def run(self) -> Run:
        """The finished run: just trained, or from its checkpoint, or else trained now.

        Ctrl-C ends the script then: a half-trained model isn't measured as a finished one. Where only answers
        are asked for, the model of an interrupted run gives them, and is said to be unfinished.
        """
        left = unfinished(self.checkpoint)
        if self.checkpoint.exists():
            return self.load(self.checkpoint, finished=True)
        if self.answers_only and left.is_file():
            run = self.load(left, finished=False)
            self.say(f"This model is unfinished: {len(run.history):,} of {run.settings.steps:,} steps are "
                     "done. Without --input or --chat, --resume goes on with its training.")
            return run
        run = self.trained(self.fresh())
        if not run.finished:
            raise KeyboardInterrupt
        return run

    def load(self, path: Path, finished: bool) -> Run:
        """The run of this experiment saved there; ends the script in one line if it is none."""

        def remake(about: Any) -> Run:
            others = differing(about, self.wanted(about if isinstance(about, dict) else {}))
            if others:  # said before a model of any size is built
                raise Unusable(f"it holds another run: {others[0]}")
            return self.remake(about)

        try:
            run = load_run(path, remake)
            if run.finished != finished:
                raise ValueError(f"{path} holds {len(run.history)} of {run.settings.steps} steps, a run that "
                                 f"is {'not ' if finished else ''}finished")
        except ValueError as error:
            stop(f"{error}; move it away, or choose another folder with --outputs")
        return run

    def say(self, text: str) -> None:
        Narrator(self.options.outputs).say(text)

    @property
    def answers_only(self) -> bool:
        """Whether a sentence is to be answered and nothing measured."""
        return bool(getattr(self.options, "input", None) or getattr(self.options, "chat", False))

    def wanted(self, about: dict[str, Any]) -> dict[str, Any]:
        """What a checkpoint of this experiment tells of; `about` is what one tells."""
        return self.make().about

    def fresh(self) -> Run:
        """A run from its beginning; one that was interrupted before it is kept under another name."""
        left = unfinished(self.checkpoint)
        if not RANK and left.is_file() and (aside := set_aside(left)):
            self.say(f"{short_path(left)} was left by an interrupted run; with --resume its training would "
                     f"have gone on. It is now {short_path(aside)}.")
        return self.make()

    def go_on(self) -> Run:
        """The run that was interrupted, read once; ends the script in one line if there is none."""
        left = unfinished(self.checkpoint)
        if self.resumed is None and not left.exists():
            stop(f"nothing to resume: there is no {short_path(left)}")
        self.resumed = self.resumed or self.load(left, finished=False)
        return self.resumed

    def trained(self, run: Run) -> Run:
        """The run, trained; a number that bursts or too little memory ends the script in one line."""
        left, before = unfinished(self.checkpoint), self.copy_aside()
        try:
            return train(run, self.checkpoint, self.after)
        except FloatingPointError as error:
            stop(f"{error}; try a smaller --lr or a longer --warmup. "
                 f"The state before is in {short_path(left)}")
        except MemoryError as error:
            kept = f". The last validated state is in {short_path(left)}" if left.exists() else ""
            stop(f"{error} for {self.sizes or self.name}; a smaller batch, or --accumulate, needs less{kept}")
        finally:
            self.drop_if_same(before, run)

    def copy_aside(self) -> Path | None:
        """A copy of the finished run that this training is going to replace, if there is one."""
        if RANK or not self.checkpoint.is_file():
            return None
        copy = free_name(self.checkpoint)
        shutil.copyfile(self.checkpoint, copy)
        return copy

    def drop_if_same(self, copy: Path | None, run: Run) -> None:
        """Keep the copy, and say so, only if the new run is finished and has other weights."""
        if not copy:
            return
        try:
            before = load_checkpoint(copy, lambda state: state["model"])
            now = run.model.state_dict()
            same = all(torch.equal(before[name], value.cpu()) for name, value in now.items())
        except (ValueError, KeyError, RuntimeError):  # what was there was no run of this model
            same = False
        if same or not run.finished:
            copy.unlink(missing_ok=True)
        else:
            self.say(f"{short_path(self.checkpoint)} held another run, which is now {short_path(copy)}.")

    def train(self) -> EndHere | None:
        """Train the run, keep it and its history; EndHere if it was interrupted."""
        run = self.go_on() if self.options.resume else self.fresh()
        self.begun_at = len(run.history)
        if self.begun_at:
            self.say(f"The training goes on after step {self.begun_at:,} of {run.settings.steps:,}.")
        self.run = self.trained(run)
        if run.history:
            write_history(run.history, self.options.outputs / self.file(self.history, "csv"))
        if run.finished:
            return None
        return EndHere(f"interrupted after step {len(run.history)} of {run.settings.steps}; "
                       "to go on: the same command with --resume", 130)


def differing(about: Any, wanted: Any, name: str = "about") -> list[str]:
    """Where plain values, or dictionaries of them, aren't as wanted; what is missing has its default."""
    if not isinstance(about, dict) or not isinstance(wanted, dict):
        same = type(about) is type(wanted) and about == wanted
        return [] if same else [f"{name} is {about!r}"]
    return [text for key, value in about.items() for text in differing(value, wanted.get(key), str(key))]


def load_run(path: Path, remake: Callable[[dict], Run]) -> Run:
    """The run saved at `path`. ValueError, in one line, for anything else; no code in it is run."""

    def restore(state: dict) -> Run:
        run = remake(state["about"])
        run.load(state)
        return run

    return load_checkpoint(path, restore)

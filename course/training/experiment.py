"""A run and its files: what the command line asks for, where the run is saved, how it is trained."""

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import cached_property, partial
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import nn

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
from course.grading.own import NOTHING, Own
from course.training.adapters import answer_with_bits
from course.training.attentions import attention_parts, refuse_two_attentions
from course.training.base import Base
from course.training.comparing import Compared, changed, compare
from course.training.engine import Job, Run, train
from course.training.memory import sizes_of
from course.training.parallel import memory_report
from course.training.parts import build, found_in, with_a_place
from course.training.processes import PROCESSES, RANK, ProcessLost, own_device
from course.training.sizing import parameters
from course.training.threads import Watch, threads_for

Prepare = Callable[[nn.Module], nn.Module]  # the untrained model → the model to train


class Experiment:
    """The run called `name`, whose files are in options.outputs; file names omit the name `default`.

    make() returns a fresh run, remake(about) the run that a checkpoint describes; after(run) is called after
    each update. `sizes` says in words what the memory depends on. A lesson's own experiment has its sizes and
    settings in `config` and `training`, and makes runs with other ones in variant().
    """

    history = "history"  # the name of the history file
    answers = False  # whether its lesson answers --input, so that --bits makes sense
    config: Any
    training: Any

    def __init__(self, name: str, default: str, make: Callable[[], Run], remake: Callable[[dict], Run],
                 options: argparse.Namespace, device: torch.device,
                 after: Callable[[Run], None] | None = None, sizes: str = ""):
        self.name, self.default, self.make, self.remake, self.sizes = name, default, make, remake, sizes
        self.options, self.device, self.after = options, device, after
        self.checkpoint = options.outputs / f"checkpoint_{name}.pt"
        self.resumed: Run | None = None
        self.begun_at = 0  # the steps done before this script
        self.parallel = getattr(options, "parallel", None) or "data"

    def check(self) -> None:
        """ValueError or OSError for errors that can be found before training."""

    def variant(self, config: Any, training: Any) -> Run:
        """A fresh run with these sizes and settings, otherwise like this one."""
        raise NotImplementedError

    def compared(self, measure: Callable[[Run], float]) -> dict[Any, Compared]:
        """Run --compare: a training run for each value and seed, and its measurement."""
        name, values = self.options.compare
        first = self.training.seed

        def run_with(value: Any, seed: int) -> Run:
            config, training = changed((self.config, self.training), name, value)
            return self.variant(config, replace(training, seed=seed))

        return compare({value: partial(run_with, value) for value in values},
                       range(first, first + self.options.seeds), train, measure, f"--compare {name}")

    def file(self, stem: str, ending: str = "png") -> str:
        """The file name; for any run but the default, it says how the run differs."""
        return f"{stem}.{ending}" if self.name == self.default else f"{stem}-{self.name}.{ending}"

    @property
    def differs(self) -> str:
        """The note printed below the figures of any run but the default."""
        return "" if self.name == self.default else (
            f"(The text describes the default run. This one is {self.name}: its figures may differ from "
            "the text, whose claims aren't checked for this run.)")

    @cached_property
    def run(self) -> Run:
        """What kept() returns."""
        return self.kept()

    def kept(self) -> Run:
        """The finished run: just trained, or from its checkpoint, or else trained now.

        An interrupted run is continued, which gives the same result. Ctrl-C then ends the script, because a
        half-trained model must not be measured as a finished one. If only answers are asked for, the
        unfinished model gives them, with a note that it is unfinished.
        """
        left = unfinished(self.checkpoint)
        if self.checkpoint.exists():
            return self.load(self.checkpoint, finished=True)
        if self.answers_only and left.is_file():
            run = self.load(left, finished=False)
            self.say(f"This model is unfinished: {len(run.history):,} of {run.settings.steps:,} steps are "
                     "done. Without --input, --chat or --export, --resume continues its training.")
            return run
        run = self.trained(self.go_on() if left.exists() else self.fresh())
        if not run.finished:
            raise KeyboardInterrupt
        return run

    @property
    def answers_only(self) -> bool:
        """Whether an input is to be answered, or the model exported, and nothing measured."""
        return any(getattr(self.options, name, None) for name in ("input", "chat", "export"))

    def load(self, path: Path, finished: bool) -> Run:
        """The run of this experiment saved at `path`; ends the script in one line if the file isn't one."""

        def remake(about: Any) -> Run:
            if base := getattr(self.options, "base", None):
                base.refuse_adapters_of_others(about)
            others = differing(about, self.wanted(about if isinstance(about, dict) else {}))
            if others:  # reported before a perhaps large model is built
                raise Unusable(f"it holds another run: {others[0]}")
            return self.remake(about)

        try:
            run = load_run(path, remake)
        except ValueError as error:
            stop(f"{error}; move it away, or choose another folder with --outputs")
        done = f"{short_path(path)} holds {len(run.history)} of {run.settings.steps} steps"
        if run.finished and not finished:
            stop(f"{done}, so there is nothing left to train: rename it to {self.checkpoint.name} to use it")
        if finished and not run.finished:
            stop(f"{done}: rename it to {unfinished(self.checkpoint).name}, and --resume continues it")
        return run

    def wanted(self, about: dict[str, Any]) -> dict[str, Any]:
        """What a checkpoint of this experiment should say about its run; `about` is what a given one says."""
        return self.make().about

    def fresh(self) -> Run:
        """A fresh run; an earlier interrupted run is kept under another name."""
        left = unfinished(self.checkpoint)
        if not RANK and left.is_file() and (aside := set_aside(left)):
            self.say(f"{short_path(left)} was left by an interrupted run; --resume would have continued "
                     f"its training. It is now {short_path(aside)}.")
        if self.checkpoint.is_file():
            self.say(f"{short_path(self.checkpoint)} is the result of an earlier training. If the new result "
                     "differs, the earlier one is kept under another name.")
        if base := getattr(self.options, "base", None):
            self.say(f"The training starts from the weights of {short_path(base.path)}.")
            if base.adapters:
                self.say("They are not changed: only adapters are trained, and the checkpoint holds only "
                         "the adapters.")
        return self.make()

    def say(self, text: str) -> None:
        """Tell the learner something about the files of this run."""
        if not RANK:
            Narrator(self.options.outputs).say(text)

    def go_on(self) -> Run:
        """The interrupted run, read only once; ends the script in one line if there is none."""
        left = unfinished(self.checkpoint)
        if self.resumed is None and not left.exists():
            stop(f"nothing to resume: there is no {short_path(left)}")
        self.resumed = self.resumed or self.load(left, finished=False)
        return self.resumed

    def trained(self, run: Run) -> Run:
        """Train and return the run; a loss that isn't finite or too little memory ends the script."""
        left, aside = unfinished(self.checkpoint), free_name(self.checkpoint)
        self.begun_at, run.parallel = len(run.history), self.parallel
        if self.begun_at:
            self.say(f"The interrupted training continues with step {self.begun_at + 1} of "
                     f"{run.settings.steps}.")
        try:
            with threads_for(run, self.threads):
                train(run, self.checkpoint, self.watched)
        except FloatingPointError as error:
            stop(f"{error}; try a smaller --lr or a longer --warmup. "
                 f"The state before is in {short_path(left)}")
        except MemoryError as error:
            kept = f". The last validated state is in {short_path(left)}" if left.exists() else ""
            stop(f"{error} for {self.sizes or self.name}; a smaller batch, or --accumulate, needs less{kept}",
                 everywhere=True)
        except ProcessLost as error:
            kept = f". The last validated state is in {short_path(left)}" if left.exists() else ""
            stop(f"{error}; this one ends after step {len(run.history)}{kept}", everywhere=True)
        if PROCESSES > 1:
            run = self.together(run)
        if aside.exists():
            self.say(f"The result differs from the earlier one, which is now {short_path(aside)}.")
        return run

    def together(self, run: Run) -> Run:
        """The run as a single process would have it; sharded weights are joined in the first process."""
        self.say(memory_report(run, parameters(run.model)))
        if not run.sharing.cut:
            return run
        state = run.state()
        if RANK:
            return run
        again = self.remake(run.about)
        again.load(state)
        return again

    @property
    def threads(self) -> int | None:
        """The number of threads for training; None lets a trial decide."""
        return torch.get_num_threads()

    @cached_property
    def watched(self) -> Callable[[Run], None] | None:
        """The function called after each update, if any."""
        calls: list[Callable[[Run], None]] = [self.after] if self.after else []
        calls += [] if self.threads else [Watch(self.say)]

        def after(run: Run) -> None:
            for call in calls:
                call(run)

        return after if calls else None

    @property
    def own_seconds(self) -> float:
        """Seconds spent in the steps that this script ran."""
        return sum(self.run.noted("seconds")[self.begun_at :])

    def facts(self) -> str:
        """Facts about the training in this script: steps, seconds, clipping, the first perfect validation."""
        run = self.run
        clipped = mean(norm > run.settings.clip for norm in run.noted("gradient_norm"))
        right = [record["step"] for record in run.history if record.get("exact_match") == 1]
        facts = [f"{len(run.history) - self.begun_at} steps on {self.device}: "
                 f"{self.own_seconds:.1f} s in the steps themselves",
                 f"the gradient was clipped in {clipped:.0%} of the steps"]
        facts += [f"first validation without an error: after step {right[0]}"] if right else []
        return "\n".join(facts)

    def train(self) -> EndHere | None:
        """Train the run, save it and its history; returns EndHere if it was interrupted.

        If there are several processes, only the first one returns.
        """
        run = self.run = self.trained(self.go_on() if self.options.resume else self.fresh())
        if RANK:
            sys.exit(0 if run.finished else 130)  # the first process draws and checks
        if run.history:
            write_history(run.history, self.options.outputs / self.file(self.history, "csv"))
        if run.finished:
            return None
        return EndHere(f"interrupted after step {len(run.history)} of {run.settings.steps}; "
                       "to continue: the same command with --resume", 130)


class ModelExperiment(Experiment):
    """The experiment of a lesson whose sizes and settings are dataclasses.

    A lesson defines the name of the default run, named(config, training) for the names of others, and
    variant(), which makes a fresh run.
    """

    default: str
    named: Callable[[Any, Any], str]

    def __init__(self, config: Any, training: Any, options: argparse.Namespace, own: Own = NOTHING):
        self.config, self.training, self.own = config, training, own
        self.base: Base | None = getattr(options, "base", None)
        name = self.named(config, training) + (f"-{own.name}" if own.parts else "")
        name += f"-{self.base.name}" if self.base else ""
        super().__init__(name, self.default, lambda: self.variant(config, training), self.remade, options,
                         own_device(options.device), sizes=sizes_of(config, training))
        self.bits = getattr(options, "bits", None)
        if self.bits and not self.answers_only:
            raise ValueError(f"--bits {self.bits} goes with --input or --chat: it is about answers")

    def kept(self) -> Run:
        """The finished run; with --bits, its model has quantised weights."""
        run = super().kept()
        if self.bits:
            group = self.options.group
            file = self.options.outputs / f"quantised_{self.name}-bits={self.bits}-group={group}.pt"
            answer_with_bits(run.model, self.bits, group, file, self.say)
        return run

    def check(self) -> None:
        """ValueError if the model can't start from the weights of the checkpoint that --from names."""
        if self.base and (self.base.adapters or not self.answers_only):
            self.make()

    @property
    def threads(self) -> int | None:
        """One for small models: more would gain little, and lose much if other programs are running."""
        return getattr(self.options, "threads", None) or (1 if self.config.d_model < 256 else None)

    def remade(self, about: dict[str, Any]) -> Run:
        """A fresh run as a checkpoint describes it. ValueError if that was trained with other parts."""
        self.refuse_other_parts(about)
        return self.variant(type(self.config)(**about["config"]), type(self.training)(**about["training"]))

    def refuse_other_parts(self, about: dict[str, Any]) -> None:
        """ValueError if a checkpoint was trained with other parts of the learner's than these."""
        if about.get("with", {}) != self.own.files:
            others = ", ".join(about.get("with", {}))
            raise ValueError(f"it was trained with {others or 'no parts of your own'}")

    def beside_the_courses(self) -> dict[str, Run]:
        """The run with the course's parts, and the one with the learner's."""
        course = type(self)(self.config, self.training, self.options)
        return {"the course's": course.run, "yours": self.run}

    def placed(self) -> tuple[str, str]:
        """A note about the learner's parts that are not in the model, and a text that names the others."""
        placed = found_in(self.run.model, self.own.parts)
        unused = sorted({*self.own.parts} - {*placed})
        note = f"(Graded, but no part of the model: {', '.join(unused)}.)" if unused else ""
        return note, f"Trained with your {', '.join(placed)}, and with the course's"


def fresh_run(make: Callable[[], nn.Module], job_of: Callable[[nn.Module], Job], config: Any, training: Any,
              device: torch.device, about: Mapping[str, Any], hand_made: Mapping[str, Any],
              own: Own = NOTHING, prepare: Prepare | None = None, base: Base | None = None) -> Run:
    """The run of the model that make() builds, with other parts if options ask for them: --by-hand for the
    hand-made ones, --with for the learner's, --attention for lesson 11's.

    The model gets the weights of `base`, and its adapters; prepare(model) then returns the model that is
    trained. A checkpoint of adapters leaves out the weights of the base. A checkpoint stores `about`, and the
    sizes, settings, the learner's files and the base.
    """
    refuse_two_attentions(config, training, own.parts)
    parts = {**(hand_made if training.by_hand else {}), **with_a_place(own.parts, make),
             **attention_parts(config)}
    torch.manual_seed(training.seed)
    model = build(make, parts)
    model = base.adapted(base.into(model)) if base else model
    model = prepare(model) if prepare else model
    told = {**about, "config": asdict(config), "training": asdict(training)}
    told |= {"with": dict(own.files)} if own.files else {}
    told |= base.told if base else {}
    left_out = frozenset(base.weights) if base and base.adapters else frozenset()
    return Run(model, job_of(model), training, device, told, left_out)


def differing(about: Any, wanted: Any, name: str = "about") -> list[str]:
    """Where plain values, or dictionaries of them, differ from `wanted`; missing ones have their default."""
    if not isinstance(about, dict) or not isinstance(wanted, dict):
        same = type(about) is type(wanted) and about == wanted
        return [] if same else [f"{name} is {about!r}"]
    return [text for key, value in about.items() for text in differing(value, wanted.get(key), str(key))]


def load_run(path: Path, remake: Callable[[dict], Run]) -> Run:
    """The run saved at `path`. A one-line ValueError for anything else; no code in it is run."""

    def restore(state: dict) -> Run:
        run = remake(state["about"])
        run.load(state)
        return run

    return load_checkpoint(path, restore)

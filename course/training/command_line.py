"""The command line of every lesson that trains: its options, and the checks made before any training."""

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from course.console.ending import first_line
from course.console.narrator import Narrator
from course.console.options import add_options, chosen, comparison, count
from course.grading.own import NOTHING, Own, own_parts
from course.training.adapters import adapters_of, add_adapter_options, add_bits, refuse_without_base
from course.training.attentions import refuse_two_attentions
from course.training.base import read_base
from course.training.comparing import changed
from course.training.experiment import Experiment
from course.training.memory import refuse_beyond_memory
from course.training.parallel import ENGINES, refuse_broken_engine, refuse_parallel
from course.training.parts import build, found_in, with_a_place
from course.training.processes import PROCESSES, ending_together, refuse_precision

PARTS_UP_TO = 5  # a model consists of parts from lessons before this one


def add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (default: auto)")


@contextmanager
def usage_errors(parser: argparse.ArgumentParser) -> Iterator[None]:
    """Inside `with`, an error in the options, or in a file that they name, ends the script."""
    try:
        yield
    except (ValueError, RuntimeError) as error:  # RuntimeError: more memory than there is
        parser.error(first_line(error))
    except OSError as error:
        parser.error(f"{error.strerror}: {error.filename}")


@dataclass(frozen=True)
class CommandLine:
    """What a lesson trains: dataclasses of sizes and settings, whose fields are options, and how to use them.

    model(sizes) is the untrained model; experiment(sizes, settings, options, own) is what the steps get.
    `comparable` are the fields that --compare may vary. other_defaults(options) returns the defaults that
    differ if an option asks for another kind of training.
    """

    sizes: type
    settings: type
    model: Callable[[Any], nn.Module]
    experiment: Callable[..., Experiment]
    comparable: Sequence[str] = ()
    other_defaults: Callable[[argparse.Namespace], Mapping[str, Any]] = lambda options: {}

    def add_options(self, parser: argparse.ArgumentParser, trains: bool = True) -> None:
        """Add options of both dataclasses and --device; if the lesson `trains`, also those of its runs."""
        add_options(parser, self.sizes)
        add_options(parser, self.settings)
        add_device(parser)
        if getattr(self.experiment, "answers", False):
            add_bits(parser)
        if not trains:
            return
        parser.add_argument("--resume", action="store_true", help="continue an interrupted training run")
        parser.add_argument("--from", dest="base", type=Path, metavar="CHECKPOINT",
                            help="start from the weights of a trained model: more steps, or other data")
        add_adapter_options(parser)
        parser.add_argument("--parallel", choices=ENGINES, help="under torchrun: how the processes share the "
                            "training, by rows (data, the default), weights (fsdp) or heads (tensor)")
        parser.add_argument("--with", dest="own", type=Path, action="append", default=[], metavar="FILE",
                            help="train with your own parts of lessons 1 to 4 in FILE, after grading them; "
                                 "may be repeated")
        comparing = partial(comparison, configs=(self.sizes, self.settings), comparable=self.comparable)
        parser.add_argument("--compare", type=comparing, metavar="NAME=VALUE,…",
                            help="train with each value, then exit: " + ", ".join(self.comparable))
        parser.add_argument("--seeds", type=count, default=1,
                            help="seeds for each value of --compare (default: 1)")

    def parsed(self, parser: argparse.ArgumentParser) -> Experiment:
        """The experiment that the command line asks for; any error in it is reported now."""
        with ending_together():
            experiment = self.asked_for(parser)
        with ending_together(), usage_errors(parser):
            if PROCESSES > 1 and hasattr(experiment.options, "parallel"):
                refuse_broken_engine(experiment.parallel, experiment.device)
        return experiment

    def asked_for(self, parser: argparse.ArgumentParser) -> Experiment:
        """The experiment, in this process."""
        options = parser.parse_args()
        with usage_errors(parser):
            base = read_base(options.base) if getattr(options, "base", None) else None
            refuse_without_base(options)
            if base and (adapters := adapters_of(options)):
                base = replace(base, adapters=adapters)
            if others := {**self.other_defaults(options), **(base.defaults if base else {})}:
                parser.set_defaults(**others)
                options = parser.parse_args()
            options.base = base
            return self.checked(options)

    def checked(self, options: argparse.Namespace) -> Experiment:
        """The experiment; ValueError if one of its variants can't be built and trained."""
        sizes, settings = chosen(self.sizes, options), chosen(self.settings, options)
        name, values = getattr(options, "compare", None) or ("", [])
        variants = [(sizes, settings), *(changed((sizes, settings), name, value) for value in values)]
        files = getattr(options, "own", [])
        own = own_parts(files, PARTS_UP_TO, Narrator(options.outputs)) if files else NOTHING
        experiment = self.experiment(sizes, settings, options, own)
        for variant_sizes, variant_settings in variants:
            if options.base:
                options.base.refuse_others(variant_sizes, variant_settings)
            refuse_two_attentions(variant_sizes, variant_settings, own.parts)
            refuse_parallel(options, variant_sizes, variant_settings, own.parts)
            refuse_precision(variant_settings.precision, experiment.device)
            refuse_beyond_memory(variant_sizes, variant_settings, experiment.device, experiment.parallel)
        if not getattr(options, "weights", None):  # --weights brings its own model
            self.refuse_without_place(sizes, own)
        experiment.check()
        if getattr(options, "resume", False):
            experiment.go_on()  # or the script ends here, before any step
        return experiment

    def refuse_without_place(self, sizes: Any, own: Own) -> None:
        """ValueError if no part of the learner's has a place in the model."""
        make = partial(self.model, sizes)
        if own.parts and not found_in(build(make, with_a_place(own.parts, make)), own.parts):
            raise ValueError(f"the model has no place for {', '.join(own.parts)}")


def steps_asked_for(options: argparse.Namespace, steps: Sequence[Callable],
                    further: Mapping[str, Sequence[Callable]], training: Callable) -> Sequence[Callable]:
    """The steps, or those of the first further run whose option is set; under torchrun only `training`."""
    asked = next((run for name, run in further.items() if getattr(options, name)), steps)
    return [training] if PROCESSES > 1 and training in asked else asked

"""Running a lesson: its command line, its steps one after the other, and its page at the end.

lesson.main() calls narrate(), which does what the options say. For a walkthrough it calls walk(). For each
step, walk() prints what begin_step() returns, runs the step with run_step(), and prints its record. Finally,
walk() passes all records to leave(), which writes the page.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from course.console.ending import ended_in_one_line, first_line, stop
from course.console.files import prepare_folder
from course.console.manners import running
from course.console.narrator import Narrator
from course.console.notebook import make_narrator
from course.console.options import OneLineParser, seed, threads
from course.console.records import Grid, Record, slug
from course.console.source import COURSE
from course.console.steps import begin_step, run_step
from course.grading.checking import Part
from course.grading.process import grade
from course.grading.template import write_template
from course.grading.watching import watch
from course.pages.lesson_page import Walk, leave
from course.study.progress import note_graded
from course.study.quiz import Quiz
from course.training.memory import out_of_memory

OUTPUTS = COURSE / "outputs"


def lesson_parser(doc: str, graded: dict[str, Part] | None = None) -> argparse.ArgumentParser:
    """The options that every lesson accepts; a usage error is one line and exit code 2."""
    if doc is None:
        stop("python -OO removes the docstrings, which are the lesson's text: run it without -OO")
    parser = OneLineParser(description=doc.strip().splitlines()[0], allow_abbrev=False)
    parser.add_argument("--list", action="store_true", help="list the steps, then exit")
    parser.add_argument("--step", metavar="NAME", help="run only this step (name or number)")
    parser.add_argument("--pause", action="store_true",
                        help="wait for Enter between steps, and ask a question before some of them")
    parser.add_argument("--quiz", action="store_true", help="ask this lesson's questions, then exit")
    parser.add_argument("--no-code", dest="code", action="store_false", help="show no source code")
    parser.add_argument("--checks", action="store_true", help="show the checks of the parts one by one")
    parser.add_argument("--outputs", type=Path, default=OUTPUTS, metavar="DIR",
                        help="folder for the figures (default: outputs)")
    parser.add_argument("--no-page", dest="page", action="store_false", help="write no HTML page")
    parser.add_argument("--seed", type=seed, default=0, help="seed of every step (default: 0)")
    parser.add_argument("--threads", type=threads, metavar="N",
                        help="threads of PyTorch (default: 1, because models of this size gain little from "
                             "more and lose much if something else is running; lesson 5: all for d_model "
                             "≥ 256)")
    if graded:
        names = ", ".join(graded)
        parser.add_argument("--grade", type=Path, metavar="FILE",
                            help="run FILE, your own code, and grade whichever of these parts it has: "
                                 f"{names}")
        parser.add_argument("--template", type=Path, metavar="FILE",
                            help="write the signatures to fill in for --grade, then exit")
        parser.add_argument("--hint", action="store_true",
                            help="with --grade: one more hint for the first statement that fails")
        parser.add_argument("--watch", action="store_true",
                            help="with --grade: grade again whenever FILE is saved")
        parser.add_argument("--guided", action="store_true",
                            help="with --template: also write the steps to follow, as comments")
    parser.set_defaults(graded=graded or {})
    return parser


def narrate(options: argparse.Namespace, doc: str, steps: Sequence[Callable], *arguments: Any):
    """Run a lesson as its options say, then end the script, with exit code 1 if a check failed.

    Every step is called with `arguments`. Each starts from the same seed, so that a step run by
    itself with --step shows the same as in the whole walkthrough.
    """
    for name, needed in (("hint", "grade"), ("watch", "grade"), ("guided", "template")):
        if getattr(options, name, False) and not getattr(options, needed):
            stop(f"--{name} goes with --{needed} FILE", code=2)
    with running(options.threads or 1), ended_in_one_line(), memory_suffices():
        narrator = make_narrator(options.outputs, options.code, options.checks)
        try:
            code = do(options, narrator, doc, steps, arguments)
        finally:
            narrator.flush()
        sys.exit(code)


@contextmanager
def memory_suffices() -> Iterator[None]:
    """Inside `with`, running out of memory ends the script with a one-line message."""
    try:
        yield
    except (MemoryError, RuntimeError, OverflowError) as error:
        if not out_of_memory(error):
            raise
        stop(f"out of memory ({first_line(error)})")


def do(options: argparse.Namespace, narrator: Narrator, doc: str, steps: Sequence[Callable],
       arguments: Sequence[Any]) -> int:
    """Do what the options ask for; returns the exit code."""
    stem = Path(sys.argv[0]).stem
    if getattr(options, "template", None):
        return write_template(options.template, options.graded, narrator, options.guided)
    if getattr(options, "grade", None) and options.watch:
        return watch(options, narrator)
    if getattr(options, "grade", None):
        code = grade(options.grade, options.graded, narrator, options.hint)
        note_graded(options.outputs, stem, narrator, options.graded)
        return code
    if options.quiz:
        return Quiz(stem, options.outputs, narrator).alone()
    if options.list:
        begun = map(begin_step, steps, range(1, len(steps) + 1))
        rows = [(str(record.number), record.name, record.title) for record in begun]
        narrator.show(Grid("", ("", "step", ""), rows, (True, False, False)))
        return 0
    walk(options, narrator, doc, choose_steps(options.step, steps), arguments)
    return 1 if narrator.failed else 0


def walk(options: argparse.Namespace, narrator: Narrator, doc: str, steps: dict[int, Callable],
         arguments: Sequence[Any]) -> None:
    """Run and print the steps, then how many checks hold; write the page."""
    prepare_folder(options.outputs)
    started, quiz = time.perf_counter(), Quiz(Path(sys.argv[0]).stem, options.outputs, narrator)
    records: list[Record] = []
    if not options.step:
        narrator.prose(doc)
    if not (options.step or options.pause):
        quiz.announce({slug(step.__name__) for step in steps.values()})
    for number, step in steps.items():
        if options.pause and records:
            pause(options)
        if options.pause:
            quiz.before(slug(step.__name__))
        begun = begin_step(step, number)
        narrator.begin(begun)
        with narrator.hearing_progress():
            records.append(run_step(step, *arguments, seed=options.seed, begun=begun))
        narrator.end(records[-1])
    narrator.console.print()
    total, seconds = narrator.held + narrator.failed, time.perf_counter() - started
    if total:
        narrator.say(f"{narrator.held} of {total} checks hold, {seconds:.1f} s", "bold")
    ours = sys.modules[next(iter(steps.values())).__module__]
    leave(Walk(ours, doc, records, options.graded, options.seed, seconds, *arguments[:1]), options, narrator)


def pause(options: argparse.Namespace) -> None:
    """Wait for Enter, unless the input has ended."""
    try:
        input("\nPress Enter for the next step ")
    except (EOFError, RuntimeError):  # the end of the input, or no input at all
        options.pause = False


def choose_steps(name: str | None, steps: Sequence[Callable]) -> dict[int, Callable]:
    """Number and step: all of them, or the one called `name` (or with this number)."""
    numbered = dict(enumerate(steps, 1))
    if name is None:
        return numbered
    wanted = slug(name)
    for number, step in numbered.items():
        if wanted in (slug(step.__name__), str(number)):
            return {number: step}
    stop(f"no step {name}; the steps are {', '.join(slug(step.__name__) for step in steps)}", code=2)

"""Lesson 8's --challenge: sentences written by hand, ten for each phenomenon, answered by trained models."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from course.console.records import EndHere, Grid
from course.training.engine import Run
from course.training.experiment import load_run


def step_challenge(experiment: Any):
    """A challenge set

    The 200 sentences of course/data/challenge.tsv were written by hand, ten for each phenomenon. An answer
    has the key if the words of the phenomenon are right, for example an adjective that agrees. The other
    words of the answer don't count. An answer is exact if it is one of the good translations in the file;
    case and full stops don't count.

    Sentences with a word that never occurs in training are counted separately. Sentences that occur in
    training are left out. Other trained translators in the same folder answer as well.
    """
    if getattr(experiment.training, "reverse", False):
        return EndHere("--challenge asks in English, but a model trained with --reverse reads French", 2)
    shown, keys = [], {}
    notes: list[str] = []
    for name, run in runs_of(experiment, notes):
        verdicts, note = verdicts_on(experiment, run)
        found = experiment.challenge.by_phenomenon(verdicts)
        shown.append(table_of(experiment.challenge.fraction, name, found))
        keys[name] = found
        notes += [f"{name}: {note}"] if note else []
    if len(keys) > 1:
        shown.append(side_by_side_of(experiment.challenge.fraction, keys))
    return *shown, "\n".join(notes)


def runs_of(experiment: Any, notes: list[str]) -> Iterator[tuple[str, Run]]:
    """(name, run) for the run asked for, and for the other finished runs in its folder that read English."""
    begin = f"checkpoint_{experiment.default}"
    yield named(experiment.checkpoint, begin), experiment.run
    for path in sorted(experiment.options.outputs.glob(f"{begin}*.pt")):
        if path.resolve() == experiment.checkpoint.resolve():
            continue
        try:
            run = load_run(path, experiment.another)
        except ValueError as error:
            notes.append(f"Left out: {error}")
            continue
        if run.finished and not run.about["training"].get("reverse"):
            yield named(path, begin), run


def named(path: Path, begin: str) -> str:
    return path.stem.removeprefix(begin).strip("-") or "grammar"


def verdicts_on(experiment: Any, run: Run) -> tuple[list[Any], str]:
    """A verdict on each sentence, or None if the run was trained on it; and a note."""
    challenge, texts_of = experiment.challenge, experiment.texts_of
    encoding = experiment.texts.pieces.restored(run.about["encoding"])
    answers = experiment.translate(run.model.eval(), encoding, [one.source for one in challenge.challenges()])
    met = run.about.get("met", {}).get("words", "").split()
    verdicts = challenge.judged(answers, met, experiment.texts.words_of)
    texts = texts_of(type(experiment.training)(**run.about["training"]))
    if lost := texts.gone_or_changed(run.about.get("files", {})):
        return verdicts, (f"{lost[0]} is gone or changed, so sentences that occur in training can't be left "
                          "out.")
    trained = challenge.in_training(pair.source for pair in texts.found["train"])
    note = f"{sum(trained)} left out that occur in training." if any(trained) else ""
    return [None if seen else verdict for verdict, seen in zip(verdicts, trained)], note


HEAD = "", "key", "exact", "new words: key", "exact"


def table_of(fraction: Callable[[list[bool]], str], name: str, found: dict[str, list[Any]]) -> Grid:
    """One run's table: phenomenon, and how many have the key and are exact, with and without new words."""
    rows = []
    for phenomenon, verdicts in found.items():
        cells = [fraction([getattr(one, kind) for one in verdicts if one.known is known])
                 for known in (True, False) for kind in ("key", "exact")]
        rows.append([phenomenon, *cells])
    return Grid(name, HEAD, rows, [False] * len(HEAD))


def side_by_side_of(fraction: Callable[[list[bool]], str], runs: dict[str, dict[str, list[Any]]]) -> Grid:
    """The table of several runs: how many of the sentences without new words have the key."""
    names = [*next(iter(runs.values()))]
    rows = [[name, *(fraction([one.key for one in found[name] if one.known]) for found in runs.values())]
            for name in names]
    return Grid("Sentences that have the key, without those with new words", ("", *runs), rows,
                [False] * (1 + len(runs)))

"""Training variants side by side, for --compare, --broken and the sweeps of the lessons."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from course.console.ending import stop
from course.training.engine import Measures, Run
from course.training.side_by_side import side_by_side


class Compared(NamedTuple):
    """The results of one variant: for each seed, a finished run and its measurement."""

    runs: list[Run]
    measured: list[Any]


def compare(variants: Mapping[Any, Callable[[int], Run]], seeds: Sequence[int],
            train: Callable[[Run], Run], measure: Callable[[Run], Any], label: str = ""
            ) -> dict[Any, Compared]:
    """Train every variant with every seed, side by side; a variant is a function from a seed to a run.

    A run is trained and measured on an idle core, and restored here from its state. With a label there is a
    progress bar. Ctrl-C ends all runs; so does a loss or gradient that isn't finite, with a one-line message.
    """
    wanted = [(name, seed) for name in variants for seed in seeds]
    jobs = [partial(trained_and_measured, variants[name], seed, train, measure,
                    f"{name}, seed {seed}" if len(seeds) > 1 else str(name)) for name, seed in wanted]
    try:
        results = side_by_side(jobs, label)
    except FloatingPointError as error:
        stop(f"{error}; try a smaller learning rate or a longer warm-up")
    found = {name: Compared([], []) for name in variants}
    for (name, seed), (state, measured) in zip(wanted, results, strict=True):
        run = variants[name](seed)
        run.load(state)
        found[name].runs.append(run)
        found[name].measured.append(measured)
    return found


def trained_and_measured(make: Callable[[int], Run], seed: int, train: Callable[[Run], Run],
                         measure: Callable[[Run], Any], name: str) -> tuple[dict[str, Any], Any]:
    """The state of a run after training, and its measurement: plain values and tensors."""
    run = make(seed)
    run.about = run.about | {"name": name}
    try:
        train(run)
    except FloatingPointError as error:
        raise FloatingPointError(f"{name}: {error}") from error
    if not run.finished:
        raise KeyboardInterrupt
    measured = measure(run)
    return run.state(), measured


def scores_of(variants: Mapping[str, Callable[[int], Run]], seed: int, train: Callable[[Run], Run],
              label: str = "") -> dict[str, Measures]:
    """The validation scores of each variant after training with one seed."""

    def measure(run: Run) -> Measures:
        run.validate()
        return run.history[-1]

    found = compare(variants, [seed], train, measure, label)
    return {name: compared.measured[0] for name, compared in found.items()}


def changed(configs: Sequence[Any], name: str, value: Any) -> list[Any]:
    """The dataclasses with a new value of one field; a new d_model also resets d_ff to its default."""
    follows = {"d_ff": 0} if name == "d_model" else {}
    return [replace(config, **follows, **{name: value}) if hasattr(config, name) else config
            for config in configs]


def summaries(compared: Mapping[Any, Compared]) -> dict[Any, tuple[str, str]]:
    """For each variant, the seconds in its steps, as a mean over seeds, and its lowest to highest result."""
    return {
        name: (f"{sum(sum(run.noted('seconds')) for run in runs) / len(runs):.1f}",
               " to ".join(dict.fromkeys(f"{edge(measured):.1%}" for edge in (min, max))))
        for name, (runs, measured) in compared.items()
    }


def histories(compared: Mapping[Any, Compared]) -> dict[Any, list[list[Measures]]]:
    """For each variant, the history of every seed's run."""
    return {name: [run.history for run in runs] for name, (runs, _) in compared.items()}


def best(compared: Mapping[Any, Compared]) -> Any:
    """The variant with the highest mean measurement."""
    return max(compared, key=lambda name: sum(compared[name].measured))

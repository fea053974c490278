"""Variants of a training side by side: what --compare and --broken both are."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from course.training.engine import Measures, Run


class Compared(NamedTuple):
    """What became of one variant: a finished run a seed, and what was measured of each."""

    runs: list[Run]
    measured: list[Any]


def compare(variants: Mapping[Any, Callable[[int], Run]], seeds: Sequence[int],
            train: Callable[[Run], Run], measure: Callable[[Run], Any]) -> dict[Any, Compared]:
    """Train every variant with every seed; variants make a run of a seed. Ctrl-C ends it all."""
    found = {}
    for name, make in variants.items():
        runs = []
        for seed in seeds:
            run = make(seed)
            run.about = run.about | {"name": f"{name}, seed {seed}" if len(seeds) > 1 else str(name)}
            runs.append(train(run))
            if not run.finished:
                raise KeyboardInterrupt
        found[name] = Compared(runs, [measure(run) for run in runs])
    return found


def scores_of(variants: Mapping[str, Callable[[int], Run]], seed: int, train: Callable[[Run], Run]
              ) -> dict[str, Measures]:
    """What each variant reaches, trained with one seed, on what it validates itself with."""

    def measure(run: Run) -> Measures:
        run.validate()
        return run.history[-1]

    found = compare(variants, [seed], train, measure)
    return {name: compared.measured[0] for name, compared in found.items()}


def changed(configs: Sequence[Any], name: str, value: Any) -> list[Any]:
    """The dataclasses with one field set anew; what followed from d_model follows again."""
    follows = {"d_ff": 0} if name == "d_model" else {}
    return [replace(config, **follows, **{name: value}) if hasattr(config, name) else config
            for config in configs]


def summaries(compared: Mapping[Any, Compared]) -> dict[Any, tuple[str, str]]:
    """For each variant its seconds in the steps, the mean over seeds, and its shares, lowest to highest."""
    return {
        name: (f"{sum(sum(run.noted('seconds')) for run in runs) / len(runs):.1f}",
               " to ".join(dict.fromkeys(f"{edge(measured):.1%}" for edge in (min, max))))
        for name, (runs, measured) in compared.items()
    }

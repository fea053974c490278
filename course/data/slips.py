"""Small changes to the grammar's sentences: a translator's slips, and what is left out in a hurry."""

import re
from collections.abc import Sequence

from grammar.sentences import Pair

NAMES = r"\b(Paul|Lucas|Hugo|Thomas|Marie|Claire)\b"  # without a vowel in front


def la_for_l(text: str, space: str = " ") -> str:
    """Every l' as la; without a space as la', which is one word with the next for BLEU."""
    return re.sub(r"\b([Ll])'", r"\1a" + (space or "'"), text)


def renamed(text: str, name: str) -> str:
    """The text about somebody else."""
    return re.sub(NAMES, name, text)


def uncapped(text: str) -> str:
    """Without the capital in front."""
    return text[:1].lower() + text[1:]


def unmarked(text: str) -> str:
    """Without the mark at the end."""
    return text.rstrip(" .?")


def harder(pairs: Sequence[Pair], with_names: Sequence[Pair]) -> dict[str, list[tuple[str, str]]]:
    """What a model of single, whole sentences can be asked: a name of the case → sources and targets."""
    plain = [(pair.source, pair.target) for pair in pairs]
    named = [(pair.source, pair.target) for pair in with_names if re.search(NAMES, pair.source)]
    cases = {"one sentence": plain,
             "two in a row": [(f"{one[0]} {two[0]}", f"{one[1]} {two[1]}")
                              for one, two in zip(plain[::2], plain[1::2])],
             "no mark": [(unmarked(source), target) for source, target in plain],
             "no capital": [(uncapped(source), target) for source, target in plain], "with a name": named}
    for name in ("Simon", "Xavier"):
        cases[f"with {name}"] = [(renamed(source, name), renamed(target, name)) for source, target in named]
    return cases

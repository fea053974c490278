"""Small changes to the grammar's sentences: a translator's slips, and what is left out in a hurry."""

import re
from collections.abc import Sequence

from grammar.sentences import Pair

NAMES = r"\b(Paul|Lucas|Hugo|Thomas|Marie|Claire)\b"  # that don't begin with a vowel


def la_for_l(text: str, space: str = " ") -> str:
    """Replace l' by la, or, if `space` is empty, by la', which BLEU joins with the next word."""
    return re.sub(r"\b([Ll])'", r"\1a" + (space or "'"), text)


def renamed(text: str, name: str) -> str:
    """The text with another name in place of those in NAMES."""
    return re.sub(NAMES, name, text)


def uncapped(text: str) -> str:
    """The text without its initial capital."""
    return text[:1].lower() + text[1:]


def unmarked(text: str) -> str:
    """The text without the mark at its end."""
    return text.rstrip(" .?")


def harder(pairs: Sequence[Pair], with_names: Sequence[Pair]) -> dict[str, list[tuple[str, str]]]:
    """Tests for a model trained on single, whole sentences: name of the case → sources and targets."""
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

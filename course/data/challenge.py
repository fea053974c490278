"""A challenge set for translators: 200 English sentences written by hand, ten for each of twenty phenomena.

Each has good French translations, a key and a typical mistake. The key covers only
the words of the phenomenon, so a different noun elsewhere doesn't make an adjective's agreement wrong:

    la * rouge      these words in a row; * is any one word
    petite … verte  the first, later the second
    lit !est        lit, and est nowhere
    dans | en       either of the two
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from grammar.sentences import words_of

FILE = Path(__file__).with_suffix(".tsv")


class Challenge(NamedTuple):
    """An English sentence that tests a phenomenon, its good translations, its keys and a typical mistake."""

    phenomenon: str
    source: str
    references: tuple[str, ...]
    keys: tuple[str, ...]
    mistake: str


class Verdict(NamedTuple):
    """Whether an answer is a reference, whether it has the key, whether training had the source's words."""

    exact: bool
    key: bool
    known: bool


@cache
def challenges() -> tuple[Challenge, ...]:
    """The whole set, in the order of the file."""
    lines = [line.split("\t") for line in FILE.read_text("utf-8").splitlines() if not line.startswith("#")]
    return tuple(Challenge(phenomenon, source, choices(french), choices(key), mistake)
                 for phenomenon, source, french, key, mistake in lines)


def choices(cell: str) -> tuple[str, ...]:
    return tuple(choice.strip() for choice in cell.split("|"))


def normal(text: str) -> list[str]:
    """The words in lower case, with plain apostrophes; the only punctuation kept is question marks."""
    text = unicodedata.normalize("NFC", text).replace("’", "'").casefold()
    return [word for word in words_of(text) if word == "?" or word[0].isalnum()]


@cache
def pattern(key: str) -> re.Pattern[str]:
    """A key as a regular expression over words with a space on both sides of each."""
    wanted, *unwanted = key.split("!")
    parts = {"*": r"\S+ ", "…": r"(?:\S+ )*?"}
    middle = "".join(parts.get(part) or re.escape(part) + " " for part in normal_key(wanted))
    nowhere = "".join(rf"(?!.* {re.escape(part.strip())} )" for part in unwanted)
    return re.compile(rf"^{nowhere}.* {middle}")


def normal_key(key: str) -> list[str]:
    """The words of a key, with its * and …; an elided word such as l' is left as it is."""
    return [word for part in key.split()
            for word in ([part] if part in ("*", "…") or part.endswith("'") else normal(part))]


def has_key(answer: str, keys: Iterable[str]) -> bool:
    """Whether the answer has one of the keys."""
    words = " " + "".join(f"{word} " for word in normal(answer))
    return any(pattern(key).match(words) for key in keys)


def judged(answers: Sequence[str], met: Iterable[str], words: Callable[[str], Iterable[str]]
           ) -> list[Verdict]:
    """A verdict on each answer to challenges(). `met` are the words of training, as words() splits them."""
    met = {word.strip().casefold() for word in met}

    def known(source: str) -> bool:
        return all(word.strip().casefold() in met for word in words(source) if word.strip()[:1].isalpha())

    return [Verdict(normal(answer) in map(normal, one.references), has_key(answer, one.keys),
                    known(one.source)) for one, answer in zip(challenges(), answers, strict=True)]


def in_training(sources: Iterable[str]) -> list[bool]:
    """For each sentence of the set, whether it is among the training sources, ignoring marks and case."""
    trained = {" ".join(normal(source)) for source in sources}
    return [" ".join(normal(one.source)) in trained for one in challenges()]


def by_phenomenon(verdicts: Sequence[Verdict | None]) -> dict[str, list[Verdict]]:
    """Phenomenon → the verdicts on its sentences, and “all” → all verdicts; None is left out."""
    found: dict[str, list[Verdict]] = {one.phenomenon: [] for one in challenges()}
    for one, verdict in zip(challenges(), verdicts, strict=True):
        if verdict:
            found[one.phenomenon].append(verdict)
    return found | {"all": [verdict for some in found.values() for verdict in some]}


def fraction(found: Sequence[bool]) -> str:
    return f"{sum(found)} of {len(found)}" if found else ""

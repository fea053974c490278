"""A conversation: a line in, the answers to its sentences out, until the input ends."""

import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from course.console.ending import ended_in_one_line, stop
from course.console.files import prepare_folder
from course.console.spelling import legible


def converse(answer: Callable[[str], str], folder: Path, prompt: str = "> ") -> None:
    """Read lines and print the answer to each; an empty line, the end of the input or Ctrl-C ends it.

    A ValueError of `answer` is printed as the answer. What it writes goes to the folder; anything else that
    fails ends the script in one line.
    """
    with ended_in_one_line():
        try:
            prepare_folder(folder)
            while line := read(prompt):
                try:
                    said = answer(line)
                except ValueError as error:
                    said = str(error)
                print(legible(said), flush=True)
        except UnicodeDecodeError as error:
            stop(f"the input is not {error.encoding}: {error.reason}")


SHORT = "Mr", "Mrs", "Ms", "Dr", "St", "M", "Mme", "Mlle"  # a full stop behind these ends no sentence


def sentences_in(line: str) -> list[str]:
    """The sentences of a line, cut behind a full stop, question mark or exclamation mark and a space."""
    found: list[str] = []
    for part in re.split(r"(?<=[.?!…])\s+(?=\S)", line.strip()):
        if found and (found[-1].endswith(tuple(f" {short}." for short in SHORT))
                      or found[-1].removesuffix(".") in SHORT):
            found[-1] += f" {part}"
        else:
            found.append(part)
    return found


UNSURE = 0.7  # mean probability per piece


class Replies(NamedTuple):
    """Answers, each with what makes it doubtful. `met` is what the training sources have in common."""

    answer: Callable[[str], str]
    certainty: Callable[[str, str], float]  # of a sentence and its answer, 0 to 1
    words_of: Callable[[str], list[str]]
    met: Mapping[str, Any]

    def to(self, line: str) -> str:
        """The answer to each sentence of a line."""
        said = []
        for sentence in sentences_in(line):
            answer = self.answer(sentence)
            said += [answer, *(f"  ({note})" for note in self.notes(sentence, answer))]
        return "\n".join(said)

    def notes(self, sentence: str, answer: str) -> list[str]:
        """Words that training never met, a missing capital or mark, a model that isn't sure."""
        known, notes = {*self.met.get("words", "").split()}, []
        words = [word.strip() for word in self.words_of(sentence) if any(map(str.isalnum, word))]
        if unknown := [word for word in words if known and word.casefold() not in known]:
            notes.append("never met in training: " + ", ".join(f"“{word}”" for word in unknown))
        if (other := self.repaired(sentence)) != sentence:
            notes.append(f"training has whole sentences; “{other}” becomes: {self.answer(other)}")
        sure = self.certainty(sentence, answer)
        return notes + ([f"unsure: {sure:.0%} per piece on average"] if sure < UNSURE else [])

    def repaired(self, sentence: str) -> str:
        """The sentence with the capital and the mark that nearly all training sources have."""
        if self.met.get("capital", 0) > 0.9:
            sentence = sentence[:1].upper() + sentence[1:]
        unfinished = self.met.get("mark", 0) > 0.9 and sentence[-1] not in self.met["ends"]
        return sentence + "." if unfinished else sentence


def read(prompt: str) -> str:
    """The next line without the space around it; "" if there is none, or on Ctrl-C."""
    try:
        return input(prompt if sys.stdin.isatty() else "").strip()
    except (EOFError, KeyboardInterrupt):
        return ""

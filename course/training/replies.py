"""How --input and --chat handle a line: split it into sentences, repair each, and say what is doubtful.

The rules are few, because the page repeats them in JavaScript. `met` has statistics of the training sources
(course/data/corpus.py), plain values from a checkpoint:

    words       every word, case-folded, separated by spaces; `rare`: those that occur up to three times
    untrained   the ids of the pieces that no source has
    capital     the fraction of the sources that begin with a capital; `mark`: that end with one of `ends`

1. A sentence ends after . ? ! or … and any closing quotes and brackets, if a space follows; after the
   full-width marks 。？！ also without a space. No sentence ends after an abbreviation in SHORT.
2. If more than USUAL of the sources have an initial capital or a final mark, a sentence without it gets it.
   Spaces around the sentence and repeated spaces are removed (no-break spaces inside stay), and letters and
   separate accents are joined, as in files of pairs. The repaired sentence is translated, and shown.
3. Each word of the repaired sentence gets at most one note: it has pieces that no source had; or it is made
   of known pieces, but is not a word of the sources; or it is rare in them.
4. The model's certainty of an answer is e to the mean logarithm of the probabilities that it gave the pieces
   of the answer, including the end. An answer is marked as unsure if this is below `limit`, the certainty
   below which a tenth of the answers to validation sentences were at the last validation.
"""

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

SHORT = "Mr", "Mrs", "Ms", "Dr", "St", "M", "Mme", "Mlle"  # a full stop after these doesn't end a sentence
ENDS = ".?!…。？！"
SENTENCE_END = re.compile(r"[.?!…]+[\"'”’»)\]]*\s+|[。？！]+[」』”’）]*\s*")
ABBREVIATED = re.compile(rf"(?:^|[\s\"“«(])(?:{'|'.join(SHORT)})\.$", re.IGNORECASE)
USUAL = 0.9  # of the sources
MARKED = 0.1  # of the answers to validation sentences


def sentences_in(line: str) -> list[str]:
    """The sentences of a line, by rule 1."""
    found, begin = [], 0
    for match in SENTENCE_END.finditer(line := line.strip()):
        before = line[begin : match.end()].rstrip()
        if not ABBREVIATED.search(before):
            found.append(before)
            begin = match.end()
    return [*found, line[begin:]] if line[begin:] else found


def repaired(sentence: str, met: Mapping[str, Any]) -> str:
    """The sentence, by rule 2."""
    sentence = re.sub(r"[ \t\r\n]+", " ", unicodedata.normalize("NFC", sentence.strip()))
    if met.get("capital", 0) > USUAL:
        sentence = sentence[:1].upper() + sentence[1:]
    bare = sentence.rstrip("\"'”’»)]」』）")
    unfinished = met.get("mark", 0) > USUAL and bare[-1:] not in [*met.get("ends", ENDS)]
    return sentence + "." if sentence and unfinished else sentence


class Reply(NamedTuple):
    """The reply to a sentence: the sentence as it was read, the answer to that, and notes."""

    read: str
    answer: str
    notes: list[str]


class Replies(NamedTuple):
    """Answers, each with what makes it doubtful; certainty(sentence, answer) follows rule 4."""

    answer: Callable[[str], str]
    certainty: Callable[[str, str], float]
    words_of: Callable[[str], list[str]]
    encode: Callable[[str], list[int]]
    met: Mapping[str, Any]
    limit: float

    def to(self, line: str) -> str:
        """The answer to each sentence of a line, with the notes below it."""
        replies = [self.of(sentence) for sentence in sentences_in(line)]
        return "\n".join("\n".join([reply.answer, *(f"  ({note})" for note in reply.notes)])
                         for reply in replies)

    def of(self, sentence: str) -> Reply:
        """The reply to one sentence."""
        read = repaired(sentence, self.met)
        answer = self.answer(read)
        notes = [f"read as “{read}”"] if read != sentence else []
        notes += self.about_words(read)
        if (sure := self.certainty(read, answer)) < self.limit:
            notes.append(f"unsure: {sure:.0%} per piece on average; nine in ten validation answers have more "
                         f"than {self.limit:.0%}")
        return Reply(read, answer, notes)

    def about_words(self, sentence: str) -> list[str]:
        """By rule 3, a note for each kind of doubtful word."""
        words = [word for word in self.words_of(sentence) if any(map(str.isalnum, word))]
        kinds: dict[str, list[str]] = {}
        known, rare, untrained = self.sets()
        for word in words if known else ():
            plain = word.strip().casefold()
            kind = ("with pieces that no training sentence has" if untrained & {*self.encode(word)} else
                    "never met in training" if plain not in known else
                    "rare in training" if plain in rare else "")
            if kind and word.strip() not in kinds.setdefault(kind, []):
                kinds[kind].append(word.strip())
        return [f"{kind}: " + ", ".join(f"“{word}”" for word in words) for kind, words in kinds.items()
                if words]

    def sets(self) -> tuple[set[str], set[str], set[int]]:
        """Known words, rare ones, untrained pieces."""
        return ({*self.met.get("words", "").split()}, {*self.met.get("rare", "").split()},
                {*self.met.get("untrained", ())})


def limit_of(certainties: Sequence[float]) -> float:
    """The certainty below which a fraction MARKED of these are."""
    return sorted(certainties)[int(MARKED * len(certainties))]

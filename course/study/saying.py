"""What can be said about a lesson: questions, glossary terms, exercises."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

DIFFICULTY = {1: "easy", 2: "some thought", 3: "hard"}


class Answer(NamedTuple):
    """An answer, and why it is right or wrong."""

    text: str
    reason: str


class Question(NamedTuple):
    """A question asked before the step that answers it.

    `right` is the index of the right answer. That answer is bound to a check of the step: `check` is a part
    of its statement.
    """

    name: str
    step: str
    asked: str
    answers: tuple[Answer, ...]
    right: int
    check: str


class Term(NamedTuple):
    """A term, the step that explains it ("" for the lesson's introduction), and the words that do.

    A test holds that the words occur in that step, so the glossary says what the lesson says.
    """

    name: str
    step: str
    explained: str
    also: tuple[str, ...] = ()  # other forms of the word
    only_there: bool = False  # whether other lessons use the word in other senses as well
    lesson: int = -1


class Exercise(NamedTuple):
    """A graded part to write oneself: difficulty from 1 to 3 and minutes, both a guess.

    `guide` holds the steps of each method for --template --guided, those of a function under "". `hints`
    holds, for a claim (by the name of its function), what --hint reveals: idea, formula, shape of the code.
    """

    difficulty: int
    minutes: int
    guide: Mapping[str, Sequence[str]] = {}
    hints: Mapping[str, tuple[str, ...]] = {}


class Study(NamedTuple):
    """All that is said about one lesson; `file` is the name that --template suggests."""

    file: str = "my_parts.py"
    questions: Sequence[Question] = ()
    terms: Sequence[Term] = ()
    exercises: Mapping[str, Exercise] = {}


NO_EXERCISE = Exercise(0, 0)

"""Questions about an idea, each asked before the step that answers it.

The right answer is bound to a check of that step: `check` is how its statement begins.
"""

from typing import NamedTuple


class Answer(NamedTuple):
    """An answer, and why it is right or wrong."""

    text: str
    reason: str


class Question(NamedTuple):
    """A question asked before the step; `right` is the place of the right answer, from 0 on."""

    name: str
    step: str
    asked: str
    answers: tuple[Answer, ...]
    right: int
    check: str


QUESTIONS: dict[int, tuple[Question, ...]] = {}

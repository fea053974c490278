"""Questions on the console: with --pause before the step that answers them, with --quiz alone."""

from collections.abc import Sequence
from pathlib import Path

from course.console.narrator import Narrator
from course.study.lessons import number_of, study_of
from course.study.progress import note_quietly
from course.study.saying import Question


class Quiz:
    """The questions of a lesson, the script `stem`; what is answered is noted in the folder."""

    def __init__(self, stem: str, folder: Path, narrator: Narrator):
        self.questions: Sequence[Question] = study_of(number_of(stem)).questions
        self.stem, self.folder, self.narrator = stem, folder, narrator
        self.open = True  # whether somebody is there to answer

    def announce(self, steps: set[str]) -> None:
        """Say how the questions before these steps can be had."""
        count = sum(question.step in steps for question in self.questions)
        if count:
            asks = "1 question" if count == 1 else f"{count} questions"
            self.narrator.say(f"({asks} to test yourself: --pause asks each before the step that answers it, "
                              "--quiz asks only the questions.)")

    def before(self, step: str) -> None:
        """Ask what is to be asked before this step."""
        for question in self.questions:
            if question.step == step and self.open:
                self.ask(question)

    def alone(self) -> int:
        """Ask all questions, and say how many answers were right; the exit code."""
        if not self.questions:
            self.narrator.say("This lesson has no questions.")
        right = [self.ask(question) for question in self.questions if self.open]
        answered = [answer for answer in right if answer is not None]
        if answered:
            self.narrator.console.print()
            self.narrator.say(f"{sum(answered)} of {len(answered)} answers are right", "bold")
        return 0

    def ask(self, question: Question) -> bool | None:
        """Ask one question; whether the answer was right, None without one."""
        say = self.narrator.say
        self.narrator.console.print()
        say(f"Before step {question.step}: {question.asked}", "bold")
        for number, answer in enumerate(question.answers, 1):
            say(f"{number}. {answer.text}", indent=2)
        chosen = self.choose(len(question.answers))
        if chosen is None:
            return None
        right = chosen == question.right
        say(("Yes. " if right else "No. ") + question.answers[chosen].reason,
            "green" if right else "red", indent=2)
        if not right:
            best = question.answers[question.right]
            say(f"Right is {question.right + 1}. {best.reason}", indent=2)
        say(f"What the step checks: {question.check} …", indent=2)
        note_quietly(self.folder, self.stem, self.narrator, answered={question.name: right})
        return right

    def choose(self, count: int) -> int | None:
        """The place of the chosen answer; None if it is skipped, or nobody is there."""
        while True:
            self.narrator.flush()
            try:
                text = input(f"1 to {count}, or Enter to go on: ").strip()
            except (EOFError, RuntimeError):  # the end of the input, or no input at all
                self.open = False
                return None
            if not text:
                return None
            if text.isdecimal() and 1 <= int(text) <= count:
                return int(text) - 1

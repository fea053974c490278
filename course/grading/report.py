"""The grading report: which checks hold, the first failure of each part, and a hint on request."""

import inspect
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from course.console.files import write_text
from course.console.narrator import Narrator
from course.console.records import Finding
from course.grading.checking import UNWRITTEN, Part, called, statement_of
from course.study.lessons import number_of, study_of
from course.study.saying import NO_EXERCISE, Exercise


class Report:
    """Prints findings as they come, part by part.

    After the first failure of a part, later failures are only counted, unless a known mistake explains
    them. `file` is the learner's file, if one more hint is wanted for the very first failure.
    """

    def __init__(self, narrator: Narrator, graded: dict[str, Part], file: Path | None = None):
        self.narrator, self.graded, self.file = narrator, graded, file
        self.seen: list[str] = []  # the file itself, then its parts
        self.failed = self.folded = 0  # failures in this part, and those only counted
        self.said: set[str] = set()  # diagnoses in this part

    def take(self, name: str, statement: str, finding: Finding, left: int = 0) -> None:
        """Print one finding; `left` checks of its part were not run after it."""
        unwritten = finding.figure == UNWRITTEN and name not in self.seen
        if name not in self.seen:
            self.begin_part(name, heading=not unwritten)
        narrator = self.narrator
        narrator.held, narrator.failed = (
            narrator.held + finding.holds, narrator.failed + (not finding.holds) + left)
        held, total = narrator.graded.get(name, (0, 0))
        narrator.graded[name] = [held + finding.holds, total + 1 + left]
        if unwritten:
            self.unwritten(name, finding)
        elif finding.holds or not self.failed or narrator.unfolded or self.is_news(finding):
            narrator.finding(statement, self.once(name, finding))
        else:
            self.folded += 1
        if left and not unwritten:
            checks = "other check of this part was" if left == 1 else f"other {left} checks of this part were"
            narrator.say(f"the {checks} not run", "red", indent=4)
        self.failed += not finding.holds
        if not finding.holds and self.file is not None:
            self.hint(name, statement, unwritten)
            self.file = None

    def begin_part(self, name: str, heading: bool) -> None:
        self.end_part()
        self.seen.append(name)
        self.failed, self.said = 0, set()
        if heading:
            self.narrator.heading(name)
        elif len(self.seen) > 1:
            self.narrator.console.print()

    def end_part(self) -> None:
        """Say how many failures were folded."""
        if self.folded:
            follow = "follows" if self.folded == 1 else "follow"
            self.narrator.say(f"✗ and {self.folded} more, which probably {follow}", "bold red")
        self.folded = 0

    def unwritten(self, name: str, finding: Finding) -> None:
        """Print that the part isn't written, or where it calls other code that isn't written."""
        function = finding.diagnosis.partition(",")[0]
        elsewhere = "" if function in (name, "__init__") else f" ({finding.diagnosis})"
        self.narrator.say(f"{name}: {UNWRITTEN}{elsewhere}", "bold red")

    def is_news(self, finding: Finding) -> bool:
        """Whether the finding has the hint of a mistake that was not yet given in this part."""
        return finding.known and finding.diagnosis not in self.said

    def once(self, name: str, finding: Finding) -> Finding:
        """The finding; what the part needs is stated only once per part."""
        needs = self.graded[name].needs if name in self.graded else ""
        diagnosis = finding.diagnosis
        if needs and needs in self.said:
            diagnosis = diagnosis.replace(needs, "").strip()
        self.said |= {finding.diagnosis} | ({needs} if needs and needs in finding.diagnosis else set())
        return finding._replace(diagnosis=diagnosis)

    # -------------------------------------------------------------- hints

    def hint(self, name: str, statement: str, unwritten: bool) -> None:
        """Print the hints that were revealed for this statement, and one more."""
        part = self.graded.get(name)
        if part is None:
            self.narrator.say("no hint for a file that does not run: begin with the line above", indent=4)
            return
        claim = next(claim for claim in part.claims if statement_of(claim) == statement)
        script = sys.modules["__main__"]
        exercise = study_of(number_of(Path(sys.argv[0]).stem)).exercises.get(name, NO_EXERCISE)
        texts = hints_for(claim, name, exercise, getattr(script, name))
        if unwritten:
            self.narrator.say(f"begin with: {statement}", indent=4)
        key, counts = f"{name}: {statement}", self.revealed()
        counts[key] = min(counts.get(key, 0) + 1, len(texts))
        for number in range(counts[key]):
            self.narrator.say(f"hint {number + 1} of {len(texts)}: {texts[number]}", "cyan", indent=4)
        self.remember(counts)

    @property
    def record(self) -> Path:
        """The file that records how many hints were revealed."""
        assert self.file is not None  # without a file no hints are given
        return self.file.with_name(self.file.name + ".hints")

    def revealed(self) -> dict[str, int]:
        """Statement → how many of its hints were revealed."""
        try:
            counts = json.loads(self.record.read_text(encoding="utf-8"))
            if isinstance(counts, dict) and all(type(n) is int and n >= 0 for n in counts.values()):
                return counts
            reason = "it holds something else"
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "it holds something else"
        self.narrator.say(f"{self.record} can't be read ({reason}): the hints begin again", indent=4)
        return {}

    def remember(self, counts: dict[str, int]) -> None:
        text = json.dumps(counts, indent=1, ensure_ascii=False) + "\n"
        try:
            write_text(self.record, text)
        except OSError as error:
            reason = error.strerror or error
            self.narrator.say(f"{self.record} can't be written ({reason}): the same hint next time", indent=4)


def hints_for(claim: Callable, name: str, exercise: Exercise, own: Any) -> Sequence[str]:
    """The hints of a claim; if it has none, the part's purpose, its steps and its signature.

    `own` is the course's part, called `name`.
    """
    if given := exercise.hints.get(claim.__name__):
        return given
    described, *more = (" ".join(text.split())
                        for text in (inspect.getdoc(own) or statement_of(claim)).split("\n\n"))
    steps = [f"{method + ': ' if method else ''}{'; '.join(steps)}"
             for method, steps in exercise.guide.items()]
    between = " / ".join(steps) or " ".join(more)
    return [described, *([between] if between else []), f"it is called as {called(name, own, '')}"]

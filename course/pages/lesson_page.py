"""The page of a lesson, made from the step records that the console printed."""

import argparse
import re
import shlex
import sys
from collections.abc import Sequence
from html import escape
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from course.console.files import short_path, write_text
from course.console.narrator import Narrator
from course.console.records import Finding, Picture, Record, slug
from course.console.source import code_of
from course.grading.checking import Part, statement_of
from course.grading.report import hints_for
from course.pages import contents
from course.pages.markup import Prose, address, checks, code_box, filled, shown
from course.study import progress
from course.study.lessons import lessons, number_of, study_of
from course.study.saying import DIFFICULTY, NO_EXERCISE, Question
from course.training.processes import RANK


class Walk(NamedTuple):
    """A finished walkthrough, from which the page is made."""

    ours: ModuleType  # the lesson
    doc: str
    records: Sequence[Record]
    graded: dict[str, Part]
    seed: int
    seconds: float
    experiment: Any = None  # its name distinguishes runs that differ from the default

    @property
    def stem(self) -> str:
        return Path(sys.argv[0]).stem

    @property
    def number(self) -> int | None:
        """The lesson's number; None for a script that is not a lesson."""
        return number_of(self.stem)

    @property
    def whole(self) -> bool:
        """Whether all of the lesson's own steps were run, and not those of --compare or similar options."""
        return self.number is None or self.records[-1].name == "what-next"

    @property
    def file(self) -> str:
        """The page's file name; like the figures' names, it says how the run differs from the default."""
        return self.named(self.stem if self.whole else f"{self.stem}-{self.records[-1].name}")

    @property
    def live(self) -> str:
        """The file name of the page on which this run's model answers."""
        return self.named(contents.live_name(self.number or 0))

    def named(self, name: str) -> str:
        file = self.experiment.file(name, "html") if hasattr(self.experiment, "file") else f"{name}.html"
        other = f"seed={self.seed}" if self.seed else ""
        return file if other in file else f"{file.removesuffix('.html')}-{other}.html"

    @property
    def is_default(self) -> bool:
        return self.file == f"{self.stem}.html"

    def findings(self) -> list[tuple[Record, str, Finding]]:
        return [(record, statement, finding) for record in self.records
                for part in record.tested for statement, finding in part.results]


def leave(walk: Walk, options: argparse.Namespace, narrator: Narrator) -> None:
    """Write the pages that the options ask for, and say where. Pages show whole runs, not single steps."""
    page = options.outputs / walk.file
    if RANK or not options.page:
        return
    if not options.step:
        narrator.say(write_pages(walk, options.outputs, narrator).as_uri(), wrap=False)
    elif page.exists():
        narrator.say(f"({short_path(page)} shows the last complete run and was not changed.)")


def write_pages(walk: Walk, folder: Path, narrator: Narrator) -> Path:
    """Write the page of the walk, note the run, and rewrite index and glossary; returns the page's path."""
    path, findings = folder / walk.file, walk.findings()
    write_text(path, lesson_page(walk, folder))
    if walk.is_default and walk.number is not None:
        run = {"when": progress.now(), "held": sum(finding.holds for *_, finding in findings),
               "checks": len(findings), "page": walk.file, "picture": thumbnail(walk.records)}
        noted = progress.note(folder, walk.stem, narrator.say, run=run)
    else:
        noted = progress.read(folder, narrator.say)
    contents.write_contents(folder, noted)
    return path.resolve()


def pictures(thing: Any) -> list[Picture]:
    """All pictures that a step returned."""
    if isinstance(thing, Picture):
        return [thing]
    several = thing if isinstance(thing, list | tuple) else ()
    return [found for part in several for found in pictures(part)]


def thumbnail(records: Sequence[Record]) -> list[str]:
    """File and finding of the first picture, which the index shows."""
    found = [picture for record in records for picture in pictures(record.shown)]
    return [found[0].file, found[0].finding] if found else []


# ------------------------------------------------------------------ where names are built


def built_in(ours: ModuleType) -> dict[str, str]:
    """Name of a part → name of the first step of its lesson that shows its code."""
    places: dict[str, str] = {}
    for name, step in vars(ours).items():
        for component in getattr(step, "shows", ()) if name.startswith("step_") else ():
            owner = component.__qualname__.partition(".")[0]
            places.setdefault(owner, slug(name))
    return places


def built_names(walk: Walk, folder: Path) -> dict[str, str]:
    """Name → the address where it is built: a step of this page, or of an earlier lesson's."""
    here = {record.name for record in walk.records}
    addresses = {name: f"#{step}" for name, step in built_in(walk.ours).items() if step in here}
    for name, thing in vars(walk.ours).items():
        home = sys.modules.get(getattr(thing, "__module__", None) or "")
        stem = getattr(home, "__name__", "")
        if home and home is not walk.ours and re.match(r"\d\d_", stem) and callable(thing):
            page = contents.page_of(folder, stem)
            step = built_in(home).get(name, "") if page == f"{stem}.html" else ""
            addresses.setdefault(name, address(page, step) if "#" not in page else page)
    return addresses


# ------------------------------------------------------------------ the page


def lesson_page(walk: Walk, folder: Path) -> str:
    """The whole page as HTML."""
    title, _, beginning = walk.doc.strip().partition("\n")
    pages = {lesson.number: contents.page_of(folder, lesson.stem) for lesson in lessons()
             if lesson.number != walk.number}
    prose = Prose({record.number: record.name for record in walk.records}, pages, walk.number)
    built = built_names(walk, folder)
    asked = study_of(walk.number).questions
    questions: dict[str, list[Question]] = {question.step: [] for question in asked}
    for question in asked:
        questions[question.step].append(question)
    main = [f"<h1>{escape(title)}</h1>", failures(walk),
            f'<div class="intro words">{prose.paragraphs(beginning)}</div>' if beginning.strip() else "",
            contents.legend() if walk.number is not None else ""]
    main += [step(record, questions.get(record.name, ()), prose, built, folder) for record in walk.records]
    main += [exercises(walk, built) if walk.graded and walk.whole else "", next_lesson(walk, pages)]
    links = "".join(f'<li value="{record.number}"><a href="#{record.name}">{escape(record.title)}</a></li>'
                    for record in walk.records)
    if main[-2]:
        links += '<li class="more"><a href="#write-it-yourself">Write it yourself</a></li>'
    nav = (f'<nav class="contents" aria-label="Steps"><details><summary>Steps</summary><ol>{links}</ol>'
           "</details></nav>")
    held = sum(finding.holds for *_, finding in walk.findings())
    called = shlex.join(["python", Path(sys.argv[0]).name, *sys.argv[1:]])
    footer = (f"<p>Made by <code>{escape(called)}</code> on {progress.now()} with seed {walk.seed}: "
              f"{held} of {len(walk.findings())} checks hold, {walk.seconds:.1f} s.</p>")
    live = f' <a href="{address(walk.live)}">Live: the model answers</a>' if has_live(walk, folder) else ""
    return filled(title, "\n".join(filter(None, main)), nav, footer, live)


def has_live(walk: Walk, folder: Path) -> bool:
    return walk.number in contents.LIVE and (folder / walk.live).is_file()


def failures(walk: Walk) -> str:
    """The failed checks, for the top of the page."""
    failed = [(record, statement) for record, statement, finding in walk.findings() if not finding.holds]
    items = "".join(f'<li><a href="#{record.name}">step {record.number}</a>: {escape(statement)}</li>'
                    for record, statement in failed)
    checks = "1 check fails" if len(failed) == 1 else f"{len(failed)} checks fail"
    return f'<div class="failures"><p>✗ {checks}</p><ul>{items}</ul></div>' if failed else ""


def step(record: Record, questions: Sequence[Question], prose: Prose, built: dict[str, str],
         folder: Path) -> str:
    """One step: questions, prose and code side by side, what it returned, its checks."""
    elsewhere = {name: place for name, place in built.items() if place != f"#{record.name}"}
    body = [question_box(question, record) for question in questions]
    words = f'<div class="words">{prose.paragraphs(record.prose)}</div>' if record.prose else ""
    code = code_box(record.code, f"code of step {record.number}", elsewhere) if record.code else ""
    body.append(f'<div class="two">{words}{code}</div>' if words and code else words + code)
    returned = shown(record.shown, folder, f"result of step {record.number}")
    body.append(f'<div class="shown">{returned}</div>' if returned else "")
    body.append(checks(record.tested))
    number = f'<a class="number" href="#{record.name}">{record.number}.</a>'
    return (f'<section class="step" id="{record.name}"><h2>{number}{escape(record.title)}</h2>\n'
            + "\n".join(filter(None, body)) + "</section>")


def question_box(question: Question, record: Record) -> str:
    """A question with answers that unfold to their reasons; the right one also shows its check."""
    statements = [(statement, finding) for part in record.tested for statement, finding in part.results]
    bound = next(((s, f) for s, f in statements if question.check in s), None)
    answers = []
    for place, answer in enumerate(question.answers):
        right = place == question.right
        more = ""
        if right and bound:
            mark = "✓" if bound[1].holds else "✗"
            figure = f" ({escape(bound[1].figure)})" if bound[1].figure else ""
            more = f' <span class="figure-of">This run\'s check: {mark} {escape(bound[0])}{figure}.</span>'
        answers.append(
            f'<details class="answer {"right" if right else "wrong"}" name="{question.name}">'
            f'<summary>{escape(answer.text)}</summary><p><span class="verdict">'
            f"{'Yes.' if right else 'No.'}</span> {escape(answer.reason)}{more}</p></details>")
    return ('<div class="question" role="group" aria-label="Question">'
            f'<p class="asked">{escape(question.asked)}</p>{"".join(answers)}</div>')


def exercises(walk: Walk, built: dict[str, str]) -> str:
    """A box for each graded part."""
    file = study_of(walk.number).file
    boxes = [exercise(name, part, walk, built) for name, part in walk.graded.items()]
    return ('<section class="step" id="write-it-yourself"><h2>Write it yourself</h2>'
            "<p>The first command writes the signatures of all parts below into a file. Fill them "
            "in one by one. The second command grades the file, and grades it again whenever you save.</p>"
            + command(f"python {walk.stem}.py --template {file}")
            + command(f"python {walk.stem}.py --grade {file} --watch")
            + "\n".join(boxes) + "</section>")


def command(text: str) -> str:
    return f'<p class="command"><code>{escape(text)}</code></p>'


def exercise(name: str, part: Part, walk: Walk, built: dict[str, str]) -> str:
    """Difficulty and minutes; folded, the statements with their hints and the course's own code."""
    said = study_of(walk.number).exercises.get(name, NO_EXERCISE)
    effort = f"{DIFFICULTY[said.difficulty]}, about {said.minutes} minutes" if said.difficulty else ""
    own, folds = getattr(walk.ours, name), []
    for claim in part.claims:
        statement = statement_of(claim)
        hints = hints_for(claim, name, said, own)
        items = "".join(f"<li>{escape(hint)}</li>" for hint in hints)
        folds.append(f"<details><summary>{escape(statement)}</summary><ol>{items}</ol></details>")
    code = code_box(code_of(own), f"the course's {name}", built)
    return (f'<div class="exercise"><h3>{escape(name)}</h3><p class="effort">{effort}</p>'
            f"<details><summary>What has to hold, with hints ({len(folds)})</summary>{''.join(folds)}"
            f"</details><details><summary>Solution: the course's own code</summary>{code}</details></div>")


def next_lesson(walk: Walk, pages: dict[int, str]) -> str:
    number = walk.number
    after = next((lesson for lesson in lessons() if number is not None
                  and lesson.number == number + 1), None)
    if after is None:
        return '<p class="next"><a href="index.html">All lessons</a></p>'
    return (f'<p class="next">Next lesson: <a href="{pages[after.number]}">{after.number}. '
            f"{escape(after.question)}</a></p>")

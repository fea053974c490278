"""What a learner has done so far, kept in progress.json beside the pages: lessons run, graded, answered."""

import argparse
import json
import os
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from course.console.files import short_path, write_text
from course.console.narrator import Narrator
from course.console.records import Grid
from course.console.source import COURSE
from course.study.lessons import lessons, study_of

FILE, KIND = "progress.json", "progress in the Transformer course"


def now() -> str:
    return datetime.now().strftime("%Y-%m-%d %H:%M")


# ------------------------------------------------------------------ the file


def is_entry(entry: Any) -> bool:
    """Whether this is what we note of a lesson."""

    def count(value: Any) -> bool:
        return type(value) is int and value >= 0

    def run(value: Any) -> bool:
        return (isinstance(value, dict) and {"when", "held", "checks", "page", "picture"} == {*value}
                and count(value["held"]) and count(value["checks"])
                and all(isinstance(value[name], str) for name in ("when", "page"))
                and isinstance(value["picture"], list) and all(isinstance(x, str) for x in value["picture"]))

    def graded(value: Any) -> bool:
        return isinstance(value, dict) and all(
            isinstance(pair, list) and len(pair) == 2 and all(map(count, pair)) for pair in value.values())

    def answered(value: Any) -> bool:
        return isinstance(value, dict) and all(isinstance(right, bool) for right in value.values())

    tests = {"run": run, "graded": graded, "answered": answered}
    return isinstance(entry, dict) and all(name in tests and tests[name](entry[name]) for name in entry)


def read(folder: Path, say: Callable[[str], Any]) -> dict[str, dict]:
    """Lesson → what was noted; empty, with a word, where that can't be read."""
    try:
        return noted_in(folder, say)
    except OSError as error:
        say(f"{short_path(folder / FILE)} can't be read ({error.strerror}): going on without it")
        return {}


def noted_in(folder: Path, say: Callable[[str], Any]) -> dict[str, dict]:
    """Lesson → what was noted; empty without a file. One that isn't ours is set aside, with a word.

    OSError if it can be neither read nor set aside: then nothing may be written in its place.
    """
    path = folder / FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict) and content.get("kind") == KIND:
            noted = content.get("lessons")
            if isinstance(noted, dict) and all(map(is_entry, noted.values())):
                return noted
        reason = "it holds something else"
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError):
        reason = "it is broken"
    aside = next(place for number in range(1, 1000)
                 if not (place := path.with_name(f"{FILE}.aside-{number}")).exists())
    os.replace(path, aside)
    say(f"{short_path(path)} isn't the course's progress ({reason}); it is now {aside.name}")
    return {}


def note(folder: Path, stem: str, say: Callable[[str], Any], **news: Any) -> dict[str, dict]:
    """Write down news of a lesson, and return all that is noted; entries of `graded`, `answered` add up."""
    noted = noted_in(folder, say)
    entry = noted.setdefault(stem, {})
    for name, value in news.items():
        entry[name] = {**entry.get(name, {}), **value} if name in ("graded", "answered") else value
    text = json.dumps({"kind": KIND, "lessons": dict(sorted(noted.items()))}, indent=1, ensure_ascii=False)
    write_text(folder / FILE, text + "\n")
    return noted


def note_quietly(folder: Path, stem: str, narrator: Narrator, **news: Any) -> None:
    """note(), where a folder that can't be written is no reason to end.

    With COURSE_PROGRESS=off, as the tests set it, nothing is noted in the course's own outputs/.
    """
    if os.environ.get("COURSE_PROGRESS") == "off" and folder.resolve() == COURSE / "outputs":
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        note(folder, stem, narrator.say, **news)
    except OSError as error:
        narrator.say(f"(The progress wasn't noted: {error.strerror or error}.)")


def note_graded(folder: Path, stem: str, narrator: Narrator, parts: Iterable[str]) -> None:
    """Note how many checks hold of each of these parts that the narrator told of."""
    if found := {name: narrator.graded[name] for name in parts if name in narrator.graded}:
        note_quietly(folder, stem, narrator, graded=found)


# ------------------------------------------------------------------ in words


def parts_done(number: int, entry: dict) -> tuple[int, int]:
    """How many graded parts of a lesson are written, and how many there are."""
    parts, graded = study_of(number).exercises, entry.get("graded", {})
    return sum(name in graded and graded[name][0] == graded[name][1] > 0 for name in parts), len(parts)


def answers_right(number: int, entry: dict) -> tuple[int, int, int]:
    """How many questions of a lesson were answered rightly, how many at all, and how many there are."""
    names, answered = [question.name for question in study_of(number).questions], entry.get("answered", {})
    return sum(answered.get(name, False) for name in names), sum(n in answered for n in names), len(names)


def next_step(noted: Mapping[str, dict]) -> str:
    """What to do next: run the first lesson that wasn't run, else write the first part that isn't."""
    for lesson in lessons():
        if "run" not in noted.get(lesson.stem, {}):
            return f"Next: python {lesson.stem}.py"
    for lesson in lessons():
        done, parts = parts_done(lesson.number, noted.get(lesson.stem, {}))
        if done < parts:
            return f"Next: python {lesson.stem}.py --template {study_of(lesson.number).file}"
    return "All lessons are run, and all parts are written."


def main() -> None:
    """Print what is done: python -m course, or python common.py."""
    parser = argparse.ArgumentParser(prog="python -m course",
                                     description="What you have done of the course so far.")
    parser.add_argument("--outputs", type=Path, default=COURSE / "outputs", metavar="DIR",
                        help="folder of the progress (default: outputs)")
    folder = parser.parse_args().outputs
    narrator = Narrator(folder)
    noted, rows = read(folder, narrator.say), []
    for lesson in lessons():
        entry = noted.get(lesson.stem, {})
        run = entry.get("run")
        written, parts = parts_done(lesson.number, entry)
        right, _, asked = answers_right(lesson.number, entry)
        rows.append((str(lesson.number), lesson.question, run["when"] if run else "-",
                     f"{run['held']} of {run['checks']}" if run else "-", f"{written} of {parts}",
                     f"{right} of {asked}"))
    narrator.show(Grid("", ("", "lesson", "run", "checks", "parts", "quiz"), rows, (True, *(False,) * 5)))
    narrator.console.print()
    narrator.say(next_step(noted))

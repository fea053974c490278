"""The lessons of the course, as their files say, and what is said about each in lesson_NN.py of this folder.

A new lesson is found by its file's name: nothing has to be registered.
"""

import importlib
import re
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from course.console.source import COURSE
from course.study.saying import Study, Term

HERE = Path(__file__).parent


class Lesson(NamedTuple):
    """A lesson of the course, as its file's name and first line say."""

    number: int
    stem: str
    question: str


def lessons() -> list[Lesson]:
    """The lessons in order."""
    found = []
    for path in sorted(COURSE.glob("[0-9][0-9]_*.py")):
        with path.open(encoding="utf-8") as file:
            said = re.match(r'"""Lesson (\d+)\. (.*)', file.readline())
        if said:
            found.append(Lesson(int(said[1]), path.stem, said[2].strip()))
    return found


def number_of(stem: str) -> int | None:
    """The number of the lesson in the file `stem`.py; None for a script that is no lesson."""
    found = re.match(r"(\d\d)_", stem)
    return int(found[1]) if found else None


def stem_of(number: int) -> str:
    """The name of the file of the lesson with this number, without .py."""
    return next(lesson.stem for lesson in lessons() if lesson.number == number)


def later_lesson(number: int) -> ModuleType:
    """The lesson with this number. It may bind the running script, which isn't imported a second time."""
    running = sys.modules["__main__"]
    stem = Path(getattr(running, "__file__", None) or "").stem
    if any(lesson.stem == stem for lesson in lessons()):
        sys.modules.setdefault(stem, running)
    return importlib.import_module(stem_of(number))


@cache
def study_of(number: int | None) -> Study:
    """What is said about the lesson of this number; nothing for any other."""
    if number is None or not (HERE / f"lesson_{number:02}.py").exists():
        return Study()
    said = importlib.import_module(f"course.study.lesson_{number:02}")
    return Study(said.FILE, said.QUESTIONS, [term._replace(lesson=number) for term in said.TERMS],
                 said.EXERCISES)


def all_terms() -> list[Term]:
    """The terms of all lessons, in their order."""
    return [term for lesson in lessons() for term in study_of(lesson.number).terms]

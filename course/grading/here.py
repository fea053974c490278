"""Grading parts in the running process, as in a notebook: without a file or a separate process."""

import importlib
from collections.abc import Mapping
from typing import Any

from course.console.narrator import Narrator
from course.console.records import Finding
from course.grading.child import graded_lines
from course.grading.report import Report
from course.study.progress import note_graded


def grade_here(lesson: str, parts: Mapping[str, Any], narrator: Narrator) -> None:
    """Print which checks of these parts of a lesson hold, as --grade does, and record the progress.

    ValueError for a name that the lesson doesn't grade. Checks have no time limit, because the user can
    interrupt them.
    """
    ours = importlib.import_module(lesson)
    for name in parts:
        if name not in ours.GRADED:
            raise ValueError(f"{name} is not a part that lesson {lesson} grades; "
                             f"these are: {', '.join(ours.GRADED)}")
    report = Report(narrator, ours.GRADED)
    try:
        for name, implementation in parts.items():
            for line in graded_lines(name, ours.GRADED[name](implementation, ours), limited=False):
                report.take(line["name"], line["statement"], Finding(*line["finding"]), line["left"])
        report.end_part()
        narrator.console.print()
        narrator.say(f"{narrator.held} of {narrator.held + narrator.failed} checks hold", "bold")
        note_graded(narrator.outputs, lesson, narrator, ours.GRADED)
    finally:
        narrator.flush()

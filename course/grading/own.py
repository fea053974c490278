"""The learner's own parts for a training run: graded by the lessons they belong to, then loaded."""

import ast
import hashlib
import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from course.console.ending import stop
from course.console.files import short_path
from course.console.narrator import Narrator
from course.grading.attempt import Attempt
from course.grading.checking import Part
from course.grading.process import grade
from course.study.lessons import lessons


class Own(NamedTuple):
    """The parts by name, and the SHA-256 hash of each file they come from."""

    parts: Mapping[str, Any]
    files: Mapping[str, str]

    @property
    def name(self) -> str:
        """What these parts add to file names: the learner's file names, and the beginning of a hash."""
        whole = hashlib.sha256("".join(self.files.values()).encode()).hexdigest()
        return "-".join(["with", "+".join(Path(file).stem for file in self.files)[:40], whole[:8]])


NOTHING = Own({}, {})


def own_parts(files: Sequence[Path], before: int, narrator: Narrator) -> Own:
    """The graded parts of lessons before this number that the files define.

    Ends the script if a check fails.
    """
    earlier = [lesson.stem for lesson in lessons() if lesson.number < before]
    parts: dict[str, Any] = {}
    hashes: dict[str, str] = {}
    for file in files:
        defined = names_in(file)
        found: dict[str, Part] = {}
        for lesson in earlier:
            graded = importlib.import_module(lesson).GRADED
            wanted = {name: part for name, part in graded.items() if name in defined}
            if wanted and grade(file, wanted, narrator, lesson=lesson):
                stop(f"{short_path(file)} must pass all its checks before a model can be trained with it: "
                     f"python {lesson}.py --grade {short_path(file)} shows which fail")
            found |= wanted
        if not found:
            stop(f"{short_path(file)} defines no graded part of a lesson")
        attempt = Attempt(file)
        attempt.run()
        parts |= {name: getattr(attempt.module, name) for name in found}
        hashes[file.name] = hashlib.sha256(file.read_bytes()).hexdigest()
    return Own(parts, hashes)


def names_in(file: Path) -> set[str]:
    """What the file defines at its top level; ends the script if it can't be read as Python."""
    try:
        nodes = ast.parse(file.read_bytes()).body
    except (OSError, SyntaxError, ValueError) as error:
        stop(f"{file}: {error}", code=2)
    names = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    targets = [target for node in nodes if isinstance(node, ast.Assign) for target in node.targets]
    return names | {target.id for target in targets if isinstance(target, ast.Name)}

"""The shape of the house: what may import what, how long files are, which words they use."""

import ast
import os
import re
import subprocess
import sys

import pytest
from conftest import LESSONS, PACKAGES, ROOT

import common

# One direction: course ← common ← figures, checks ← lessons ← benchmarks, tests; and between course's rooms
# data, console ← study ← grading ← training ← published ← pages.
ROOMS = ("course.data", "course.console", "course.study", "course.grading", "course.training",
         "course.published", "course.pages")
BELOW_LESSONS = {*ROOMS, "common", "checks", "figures", "grammar"}
MAY_IMPORT = {
    "course.data": {"course.data", "grammar"},
    **{room: {*ROOMS[: ROOMS.index(room) + 1]} - {"course.data"} for room in ROOMS if room != "course.data"},
    "course": {*ROOMS},  # python -m course
    "common": {*ROOMS},
    "figures": {*ROOMS, "common", "figures"},
    "checks": {*ROOMS, "common", "checks", "grammar"},
    "lessons": BELOW_LESSONS,
    "benchmarks": {*BELOW_LESSONS, "benchmarks"},
    "tests": {*BELOW_LESSONS, "benchmarks", "tests"},
    "grammar": {"grammar"},  # words and rules, standard library only
}
# One sitting: lines of a lesson, of the first lessons and the one on subwords, of common, of any other file.
LINES = {"lesson": 900, "short": 800, "common": 360, "other": 450}
SHORT = re.compile("0[12347]_")


def place_of(path):
    """course.grading or another room, common, figures, checks, lessons, benchmarks or tests."""
    if path.parent == ROOT:
        return "common" if path.stem == "common" else "lessons"
    return ".".join(path.parent.relative_to(ROOT).parts)


FILES = [path for pattern in ("*.py", *(f"{folder}/**/*.py" for folder in (*PACKAGES, "benchmarks", "tests")))
         for path in sorted(ROOT.glob(pattern))]
FILES = {str(path.relative_to(ROOT).as_posix()): path for path in FILES}
SHOWN = [file for file, path in FILES.items() if place_of(path) not in ("benchmarks", "tests")]
every_file = pytest.mark.parametrize("file", FILES)
every_shown_file = pytest.mark.parametrize("file", SHOWN)
every_lesson = pytest.mark.parametrize("name", LESSONS)


def tree_of(file):
    return ast.parse(FILES[file].read_text(encoding="utf-8"))


def imports_in(node):
    """(module, the statement) for every import below the node; a relative one begins with a dot."""
    for part in ast.walk(node):
        if isinstance(part, ast.Import):
            yield from ((alias.name, part) for alias in part.names)
        elif isinstance(part, ast.ImportFrom):
            yield "." * part.level + (part.module or ""), part


def house_imports(file):
    """(place, module) for every import of something of ours."""
    for module, _ in imports_in(tree_of(file)):
        first = module.split(".")[0]
        ours = [path for path in FILES.values() if first in (path.stem, path.parent.name)]
        if module.startswith("."):
            yield "relative", module
        elif first == "course":
            yield ".".join(module.split(".")[:2]), module
        elif first in MAY_IMPORT:
            yield first, module
        elif ours:
            yield place_of(ours[0]), module


def bindings(file):
    """(own name, lesson, its name) for every NAME, … = lesson("…", "NAME", …) at the top of a file."""
    for node in tree_of(file).body:
        value = node.value if isinstance(node, ast.Assign) else None
        call = value.value if isinstance(value, ast.Attribute) else value
        if not isinstance(call, ast.Call) or getattr(call.func, "id", "") != "lesson":
            continue
        targets = getattr(node.targets[0], "elts", node.targets)
        names = [value.attr] if value is not call else [argument.value for argument in call.args[1:]]
        for target, name in zip(targets, names, strict=True):
            yield target.id, call.args[0].value, name


def exported(name):
    """__all__ of a lesson, as it stands in the file."""
    return next(ast.literal_eval(node.value) for node in tree_of(f"{name}.py").body
                if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__")


def own_lesson(file):
    """The number of the lesson that the file is, or whose parts it tests, as its first line says."""
    path = FILES[file]
    if place_of(path) == "lessons":
        return int(path.stem[:2])
    return int(re.search(r"[Ll]esson (\d+)", ast.get_docstring(tree_of(file)).splitlines()[0])[1])


@every_file
def test_imports_point_one_way(file):
    allowed = MAY_IMPORT[place_of(FILES[file])]
    wrong = {module for place, module in house_imports(file) if place not in allowed}
    assert not wrong


@every_shown_file
def test_nothing_is_imported_late(file):
    """Only seaborn and matplotlib are, in common.canvas() and in drawings: they take seconds."""
    tree = tree_of(file)
    early = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    late = {module.split(".")[0] for module, node in imports_in(tree) if node not in early}
    where = {node.name for node in tree.body for module, part in imports_in(node) if part not in early}
    draws = file.startswith("figures/") or (file == "common.py" and where <= {"canvas"})
    assert late <= ({"seaborn", "matplotlib"} if draws else set())


@every_shown_file
def test_earlier_lessons_are_bound_name_by_name(file):
    """A lesson binds earlier lessons, a check those before the one that it tests, nothing else binds any."""
    place, tree, bound = place_of(FILES[file]), tree_of(file), list(bindings(file))
    named = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and node.value in LESSONS]
    calls = [node for node in ast.walk(tree)
             if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "lesson"]
    assert len(named) == len(calls) == len({other for _, other, _ in bound})  # one statement for each lesson
    assert not bound or place in ("lessons", "checks")
    for own, other, attribute in bound:
        assert own == attribute
        assert int(other[:2]) < own_lesson(file)
        assert attribute in exported(other)


@pytest.mark.parametrize("file", [file for file in FILES if file.startswith(("checks/", "0"))])
def test_checks_of_later_lessons_are_not_imported(file):
    if file != "checks/__init__.py":
        for place, module in house_imports(file):
            if place == "checks":
                assert own_lesson(f"checks/{module.split('.')[1]}.py") <= own_lesson(file)


def test_a_script_that_asks_for_itself_is_an_import_error(tmp_path):
    script = tmp_path / "07_mine.py"
    script.write_text("from common import lesson\nlesson('07_mine')\n")
    process = subprocess.run(
        [sys.executable, script], capture_output=True, encoding="utf-8",
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert process.stderr.splitlines()[-1] == "ImportError: lesson 07_mine asks for itself"


@every_lesson
def test_every_lesson_has_the_same_shape(name):
    module, tree = common.lesson(name), tree_of(f"{name}.py")
    assert module.__doc__.startswith(f"Lesson {int(name[:2])}. ")
    assert all(hasattr(module, exported) for exported in module.__all__)
    assert list(module.__all__) == sorted(module.__all__, key=lambda n: (not n.isupper(), n[0].islower(), n))
    assert callable(module.main)
    assert module.OURS is module
    assert all(hasattr(module, part) for part in module.GRADED)
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert not [call for call in calls if getattr(call.func, "id", "") == "print"]
    assert not {"canvas", "heatmap"} & set(vars(module))  # drawings are in figures/


PROMISES = re.compile("(?<![a-z])pro" + r"(ofs?|v(e|es|ed|en|ing))(?![a-z])", re.IGNORECASE)


@pytest.mark.parametrize("file", [*FILES, "README.md", "QUICKSTART.md"])
def test_nothing_promises_more_than_a_check_gives(file):
    """A few random inputs check or test a statement, in code and prose."""
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    assert not [f"{number}: {line}" for number, line in enumerate(lines, 1) if PROMISES.search(line)]


@every_shown_file
def test_files_are_short_enough_to_read(file):
    kind = FILES[file].stem if FILES[file].stem == "common" else "other"
    if place_of(FILES[file]) == "lessons":
        kind = "short" if SHORT.match(file) else "lesson"
    text = FILES[file].read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LINES[kind]
    assert place_of(FILES[file]) != "lessons" or len(text.split()) <= 5500


def test_importing_every_lesson_is_silent_and_leaves_nothing(tmp_path):
    names = ", ".join(f"lesson({name!r})" for name in LESSONS)
    code = f"import torch; s = torch.get_rng_state(); from common import lesson; {names}; " \
           "assert torch.equal(s, torch.get_rng_state())"
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, encoding="utf-8",
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert (process.returncode, process.stdout, process.stderr) == (0, "", "")
    assert not list(tmp_path.iterdir())

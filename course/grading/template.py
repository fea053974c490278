"""--template FILE: the signatures and docstrings of a lesson's parts, for the learner to fill in."""

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from course.console.ending import stop
from course.grading.checking import Part
from course.study.lessons import number_of, study_of

Guide = Mapping[str, Sequence[str]]  # method → its steps, those of a function under ""

TEMPLATE = '''"""Your own code: replace every NotImplementedError, then grade the file."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn'''


def write_template(file: Path, graded: dict[str, Part], guided: bool = False) -> int:
    """Write the signatures and docstrings of the graded parts; an existing file stays as it is.

    `guided` adds the steps that lead to the code, as comments, where a part has them.

    Before them stands what they need: parts of earlier lessons, classes that the signatures name, and
    functions that a part's `needs` names.
    """
    exercises = study_of(number_of(Path(sys.argv[0]).stem)).exercises if guided else {}
    guides = {name: exercise.guide for name, exercise in exercises.items()}
    lines = inspect.getsource(sys.modules["__main__"]).splitlines()
    nodes = ast.parse("\n".join(lines)).body
    definitions = [node for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    wanted = [node for node in definitions if node.name in graded]
    parts = [needed_names(graded[node.name]) + emptied(node, lines, graded[node.name],
                                                           guides.get(node.name, {}))
             for node in wanted]
    named = words("\n".join(parts)) - {*graded}
    used = words("\n".join("\n".join(lines[node.lineno : node.end_lineno]) for node in wanted))
    bound = [line for name, line in bindings(nodes) if name in used]
    needed = set(re.findall(r"(\w+)\(", " ".join(part.needs for part in graded.values()))) & named
    bound += [f'{node.name} = lesson("{Path(sys.argv[0]).stem}").{node.name}' for node in definitions
              if node.name in (named if isinstance(node, ast.ClassDef) else needed)]
    if "PAD" in used and not any(line.startswith("PAD") for line in bound):
        bound.append("PAD, BOS, EOS = 0, 1, 2")
    if any("lesson(" in line for line in bound):
        bound = ["from common import lesson", "", *bound]
    head = "\n".join([TEMPLATE, "", *bound]).rstrip()
    try:
        with file.open("x", encoding="utf-8") as out:
            out.write("\n\n\n".join([head, *parts]) + "\n")
    except FileExistsError:
        stop(f"{file} exists already and was left as it is", code=2)
    return 0


def bindings(nodes: Sequence[ast.stmt]) -> Iterator[tuple[str, str]]:
    """(name, the line that binds it) for each part of an earlier lesson: NAME, … = lesson("…", "NAME", …)."""
    for node in nodes:
        call = getattr(node, "value", None)
        call = call.value if isinstance(call, ast.Attribute) else call
        if isinstance(node, ast.Assign) and isinstance(call, ast.Call) and ast.unparse(call.func) == "lesson":
            for target in getattr(node.targets[0], "elts", node.targets):
                yield target.id, f'{target.id} = lesson("{ast.literal_eval(call.args[0])}").{target.id}'


def needed_names(part: Part) -> str:
    """A comment above a part: which names its checks use."""
    return "".join(f"# {line}\n" for line in textwrap.wrap(part.needs, 100))


def words(code: str) -> set[str]:
    return set(re.findall(r"\w+", code))


def emptied(node: ast.FunctionDef | ast.ClassDef, lines: list[str], part: Part, guide: Guide,
            inside: bool = False) -> str:
    """The definition without its code: signature and docstring, of a class also its methods'.

    Of the methods it leaves out those without a docstring, and the part's helpers.
    """
    documented = ast.get_docstring(node) is not None
    end = node.body[0].end_lineno if documented else node.body[0].lineno - 1
    first = min([node.lineno, *(mark.lineno for mark in node.decorator_list if isinstance(mark, ast.Name))])
    kept = lines[first - 1 : end]  # with @classmethod and the like
    if isinstance(node, ast.ClassDef):
        wanted = [method for method in node.body if isinstance(method, ast.FunctionDef)
                  and (method.name == "__init__" or ast.get_docstring(method) is not None)
                  and method.name not in part.helpers]
        return "\n\n".join(["\n".join(kept), *(emptied(m, lines, part, guide, True) for m in wanted)])
    indent = " " * (node.col_offset + 4)
    steps = guide.get(node.name if inside else "", ())
    comments = [f"{indent}# {number}. {step}" for number, step in enumerate(steps, 1)]
    return "\n".join([*kept, *comments, f'{indent}raise NotImplementedError("{node.name}")'])

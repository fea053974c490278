"""--template FILE: the signatures and docstrings of a lesson's parts, for the learner to fill in."""

import ast
import inspect
import re
import shlex
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path

from course.console.ending import stop
from course.console.files import short_path
from course.console.narrator import Narrator
from course.grading.checking import Part
from course.study.lessons import number_of, study_of

WIDTH = 100  # columns of a template
Guide = Mapping[str, Sequence[str]]  # method → its steps; a function's steps are under ""

TEMPLATE = '''"""Your own code: replace every NotImplementedError, then grade the file."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn'''


def write_template(file: Path, graded: dict[str, Part], narrator: Narrator, guided: bool = False) -> int:
    """Write the signatures and docstrings of the graded parts; an existing file is not changed.

    `guided` adds the steps that lead to the code, as comments, where a part has them.

    Before them comes what they need: parts of earlier lessons, classes and types that the signatures name,
    and functions that a part's `needs` names.
    """
    stem = Path(sys.argv[0]).stem
    exercises = study_of(number_of(stem)).exercises
    guides = {name: exercise.guide for name, exercise in exercises.items()} if guided else {}
    lines = inspect.getsource(sys.modules["__main__"]).splitlines()
    nodes = ast.parse("\n".join(lines)).body
    definitions = [node for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    wanted = [node for node in definitions if node.name in graded]
    parts = [needed_names(graded[node.name]) + emptied(node, lines, graded[node.name],
                                                           guides.get(node.name, {}))
             for node in wanted]
    named = words("\n".join(parts)) - {*graded}
    used = words("\n".join("\n".join(lines[node.lineno - 1 : node.end_lineno]) for node in wanted))
    bound = [line for name, line in bindings(nodes) if name in used] + constants(nodes, named)
    needed = set(re.findall(r"(\w+)\(", " ".join(part.needs for part in graded.values()))) & named
    bound += [f'{node.name} = lesson("{stem}").{node.name}' for node in definitions
              if node.name in (named if isinstance(node, ast.ClassDef) else needed)]
    bound += [f'{name} = lesson("{stem}").{name}' for name in aliases(nodes) if name in named]
    if "PAD" in used and not any(line.startswith("PAD") for line in bound):
        bound.append("PAD, BOS, EOS = 0, 1, 2")
    if any("lesson(" in line for line in bound):
        bound = ["from common import lesson", "", *bound]
    head = "\n".join([with_imports(TEMPLATE, nodes, parts), "", *bound]).rstrip()
    try:
        with file.open("x", encoding="utf-8") as out:
            out.write("\n\n\n".join([head, *parts]) + "\n")
    except FileExistsError:
        stop(f"{file} already exists and was not changed", code=2)
    narrator.say(f"Wrote {short_path(file)}. Fill in a part, then:", wrap=False)  # a long path stays whole
    narrator.say(f"python {stem}.py --grade {shlex.quote(short_path(file))}", wrap=False, indent=4)
    if unguided := [node.name for node in wanted if not guides.get(node.name)] if guided else []:
        narrator.say(f"There are no guided steps for {', '.join(unguided)}.")
    minutes = {name: exercises[name].minutes for name in graded if name in exercises}
    if len(minutes) > 1:
        first = min(minutes, key=minutes.__getitem__)
        narrator.say(f"The shortest of the {len(graded)} parts is {first}: about {minutes[first]} minutes.")
    if not guided and any(exercise.guide for exercise in exercises.values()):
        narrator.say("With --guided the template has the steps of each part as comments.")
    return 0


def with_imports(head: str, nodes: Sequence[ast.stmt], parts: Sequence[str]) -> str:
    """The head of a template, with the lesson's imports that the parts use.

    Only imports from Python itself and from the course's machinery: the rest is bound, or in the head.
    """
    used = {name.id for part in parts for name in ast.walk(ast.parse(part)) if isinstance(name, ast.Name)}
    lines: list[str] = []
    ours: list[str] = []
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module:
            root, names = node.module.partition(".")[0], [alias.name for alias in node.names]
            names = [name for name in names if name in used]
            if names and root in {"course", *sys.stdlib_module_names}:
                (ours if root == "course" else lines).append(f"from {node.module} import {', '.join(names)}")
    head = head.replace("\nimport math\n", "\n".join(["", "import math", *lines, ""]))
    return "\n".join([head, "", *ours] if ours else [head])


def bindings(nodes: Sequence[ast.stmt]) -> Iterator[tuple[str, str]]:
    """(name, the line that binds it) for each part of an earlier lesson: NAME, … = lesson("…", "NAME", …)."""
    for node in nodes:
        call = getattr(node, "value", None)
        call = call.value if isinstance(call, ast.Attribute) else call
        if isinstance(node, ast.Assign) and isinstance(call, ast.Call) and ast.unparse(call.func) == "lesson":
            for target in getattr(node.targets[0], "elts", node.targets):
                yield target.id, f'{target.id} = lesson("{ast.literal_eval(call.args[0])}").{target.id}'


def constants(nodes: Sequence[ast.stmt], named: set[str]) -> list[str]:
    """The lesson's constants whose names are in `named`: NAME = a number or text."""
    found = [node for node in nodes if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)]
    return [ast.unparse(node) for node in found if ast.unparse(node.targets[0]) in named]


def aliases(nodes: Sequence[ast.stmt]) -> list[str]:
    """The lesson's names for types: NAME = Callable[…]."""
    return [ast.unparse(node.targets[0]) for node in nodes
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Subscript)]


def needed_names(part: Part) -> str:
    """The comment above a part, which says which names its checks use."""
    return "".join(f"# {line}\n" for line in textwrap.wrap(part.needs, WIDTH - 2))


def words(code: str) -> set[str]:
    return set(re.findall(r"\w+", code))


def emptied(node: ast.FunctionDef | ast.ClassDef, lines: list[str], part: Part, guide: Guide,
            inside: bool = False) -> str:
    """The definition without its code: signature and docstring, and for a class also those of its methods.

    Methods without a docstring are left out, and so are the part's helpers. The methods that are given come
    last, with their code.
    """
    documented = ast.get_docstring(node) is not None
    end = node.body[0].end_lineno if documented else node.body[0].lineno - 1
    first = min([node.lineno, *(mark.lineno for mark in node.decorator_list if isinstance(mark, ast.Name))])
    kept = narrowed(lines[first - 1 : node.body[0].lineno - 1])  # with @classmethod and the like
    kept += narrowed(lines[node.body[0].lineno - 1 : end], prose=True)
    if isinstance(node, ast.ClassDef):
        methods = [method for method in node.body if isinstance(method, ast.FunctionDef)]
        wanted = [method for method in methods
                  if (method.name == "__init__" or ast.get_docstring(method) is not None)
                  and method.name not in (*part.helpers, *part.given)]
        given = ["\n".join(narrowed(lines[method.lineno - 1 : method.end_lineno]))
                 for method in methods if method.name in part.given]
        return "\n\n".join(["\n".join(kept), *(emptied(m, lines, part, guide, True) for m in wanted),
                            *(["    # The methods from here on are given.", *given] if given else [])])
    indent = " " * (node.col_offset + 4)
    steps = guide.get(node.name if inside else "", ())
    comments = [line for number, step in enumerate(steps, 1)
                for line in textwrap.wrap(f"{number}. {step}", WIDTH, initial_indent=f"{indent}# ",
                                          subsequent_indent=f"{indent}#    ", break_on_hyphens=False)]
    return "\n".join([*kept, *comments, f'{indent}raise NotImplementedError("{node.name}")'])


def narrowed(lines: Sequence[str], prose: bool = False) -> list[str]:
    """Lines of code or of a docstring, none of them longer than WIDTH.

    A signature is broken after a comma. A paragraph with a line that is too long is re-wrapped.
    """
    narrow: list[str] = []
    for _, group in groupby(lines, key=lambda line: (line.strip() in ("", '"""'), indent_of(line))):
        block = list(group)
        if max(map(len, block)) <= WIDTH:
            narrow += block
        elif prose:
            indent = " " * indent_of(block[0])
            narrow += textwrap.wrap(" ".join(line.strip() for line in block), WIDTH, initial_indent=indent,
                                    subsequent_indent=indent, break_on_hyphens=False)
        else:
            for line in block:
                while len(line) > WIDTH:
                    comma = line.rindex(", ", 0, WIDTH) + 1
                    narrow.append(line[:comma])
                    inside = line.index("(") + 1 if "(" in line else indent_of(line)
                    line = " " * inside + line[comma:].lstrip()
                narrow.append(line)
    return narrow


def indent_of(line: str) -> int:
    return len(line) - len(line.lstrip())

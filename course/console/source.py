"""The source code that a step shows."""

import ast
import inspect
import textwrap
from collections.abc import Callable, Sequence
from typing import Any


def codes_of(components: Sequence[Any]) -> str:
    """The code of each; methods of the same name have their class above them."""
    names = [component.__name__ for component in components]
    return "\n\n".join(f"# {component.__qualname__}\n" * (names.count(name) > 1) + code_of(component)
                       for name, component in zip(names, components))


def code_of(thing: Callable) -> str:
    """Source code without the docstring and decorators."""
    lines = textwrap.dedent(inspect.getsource(thing)).splitlines()
    node = ast.parse("\n".join(lines)).body[0]
    assert isinstance(node, ast.FunctionDef | ast.ClassDef)
    has_docstring = ast.get_docstring(node) is not None
    head = lines[node.lineno - 1 : node.body[0].lineno - 1]
    body = lines[node.body[0].end_lineno if has_docstring else node.body[0].lineno - 1 :]
    return textwrap.dedent("\n".join(head + body)).strip("\n")


def broken(line: str, width: int) -> str:
    """A line of code, broken between words if it is longer than `width`."""
    indent = " " * (len(line) - len(line.lstrip()) + 8)
    return "\n".join(textwrap.wrap(line, width, subsequent_indent=indent, break_long_words=False)) or line

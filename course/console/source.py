"""The source code that a step shows: as it was loaded, even if the file has been saved since."""

import ast
import inspect
import linecache
import sys
import textwrap
import tokenize
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

COURSE = Path(__file__).parents[2]
_loaded: dict[str, list[str]] = {}  # file → its lines when it was loaded


def keep(file: str) -> None:
    """Remember the lines of a file that is being loaded."""
    with suppress(OSError, SyntaxError, UnicodeError), tokenize.open(file) as text:
        _loaded[file] = text.readlines()


@contextmanager
def shown_as_loaded() -> Iterator[None]:
    """Inside `with`, Python reads the course's code from memory: as kept at loading, otherwise as it is."""
    script = getattr(sys.modules["__main__"], "__file__", None) or ""
    ours = [file for module in list(sys.modules.values())
            if (file := getattr(module, "__file__", None) or "").endswith(".py")
            and COURSE in Path(file).parents and "-packages" not in file]
    for file in {script, *ours} - {"", *_loaded}:
        keep(file)
    for file, lines in _loaded.items():
        linecache.cache[file] = sum(map(len, lines)), None, lines, file  # without a time it isn't reread
    try:
        yield
    finally:
        for file in _loaded:
            linecache.cache.pop(file, None)
        _loaded.pop(script, None)  # a notebook may run another version of the script


def codes_of(components: Sequence[Any]) -> str:
    """The code of each component; methods with the same name are preceded by the name of their class."""
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

"""Putting parts into a model: the hand-made ones, or the learner's own.

A part is known by its name. Classes replace the lessons' own while the model is built; functions go into the
slots that modules have for them, such as MultiHeadAttention.scaled_dot_product_attention. No other model is
affected. A class may also replace a function that makes modules: lesson 4's attention_to_itself and
attention_to_memory make self-attention and cross-attention, so either can be exchanged without the other.
"""

import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from torch import nn


def build(make: Callable[[], nn.Module], parts: Mapping[str, Any]) -> nn.Module:
    """What make() builds, with these parts in place of the course's parts of the same names.

    ValueError for a class that no lesson has, or a function that no module of the model has a slot for.
    """
    classes = {name: part for name, part in parts.items() if inspect.isclass(part)}
    missing = [name for name in classes if not any(hasattr(module, name) for module in loaded_lessons())]
    with exchanged(classes):
        model = make()
    functions = {name: part for name, part in parts.items() if name not in classes}
    missing += [name for name, part in functions.items() if not fill_slots(model, name, part)]
    if missing:
        raise ValueError(f"nothing in this model is called {', '.join(missing)}")
    return model


def with_a_place(parts: Mapping[str, Any], make: Callable[[], nn.Module]) -> dict[str, Any]:
    """The learner's parts that the model has a place for: classes, and functions in slots."""
    classes = {name: part for name, part in parts.items() if inspect.isclass(part)}
    slots = slots_of(build(make, classes))  # the learner's classes may have no slots
    return {name: part for name, part in parts.items() if name in classes or name in slots}


def found_in(model: nn.Module, parts: Mapping[str, Any]) -> list[str]:
    """The names of a learner's parts that are in the model: classes of its modules, functions in slots."""
    return sorted(name for name, part in parts.items() if any(
        type(module) is part or getattr(module, name, None) is part for module in model.modules()))


def slots_of(model: nn.Module) -> set[str]:
    """The names of the functions that the modules of the model have slots for, inherited ones as well."""
    kinds = {kind for module in model.modules() for kind in type(module).__mro__}
    return {name for kind in kinds for name, value in vars(kind).items() if isinstance(value, staticmethod)}


@contextmanager
def exchanged(classes: Mapping[str, type]) -> Iterator[None]:
    """Inside `with`, the lessons use these classes in place of their own."""
    before = [(module, name, getattr(module, name))
              for module in loaded_lessons() for name in classes if hasattr(module, name)]
    try:
        for module, name, _ in before:
            setattr(module, name, classes[name])
        yield
    finally:
        for module, name, own in before:
            setattr(module, name, own)


def loaded_lessons() -> list[ModuleType]:
    """All lessons that are loaded, including the running script."""
    return [module for name, module in list(sys.modules.items())
            if re.match(r"\d\d_", name) or name == "__main__"]


def fill_slots(model: nn.Module, name: str, function: Callable) -> int:
    """Make every module that has a slot of this name use the function → how many modules do."""
    slots = [module for module in model.modules() if hasattr(type(module), name)]
    for module in slots:
        setattr(module, name, function)
    return len(slots)

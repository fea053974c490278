"""Testing statements: claims, findings, and the mistakes that explain a failure.

A claim is a function of an implementation and of `ours`, the course's own parts as a namespace. Its docstring
is the statement, and it returns the finding:

    def sums_to_one(softmax, ours):
        \"""The weights sum to 1.\"""
        return agree(softmax(scores).sum(-1), torch.ones(2))

A Part holds the claims about one part of a lesson, and common mistakes in it.
"""

import inspect
import re
import sysconfig
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from course.console.records import Finding
from course.console.source import COURSE
from course.grading.differing import difference

OURS = COURSE / "course", COURSE / "checks", COURSE / "common.py"
PYTHON = Path(sysconfig.get_path("stdlib"))
UNWRITTEN = "not written yet"


class Needed(Exception):  # noqa: N818 - not an error of the course's
    """Raised if an implementation lacks what a check needs: Needed(what is missing, what to do)."""


class Mistake(NamedTuple):
    """A part broken on purpose; `caught_by` is the beginning of the statement that it has to fail."""

    hint: str
    implementation: Any
    caught_by: str


class Part(NamedTuple):
    """What must hold for one part; calling it with an implementation returns that implementation's checks.

    `mistakes` builds the mistakes from the course's own parts, never from an attempt; `more` builds further
    mistakes, which the lesson doesn't show but which can explain a failure. `needs` says which names the
    checks set or read, beyond calling the part. `helpers` are methods that a template leaves out, `given` are
    methods that it writes out in full.
    """

    claims: Sequence[Callable[[Any, Any], Finding]]
    mistakes: Callable[[Any], dict[str, Mistake]] = lambda ours: {}
    needs: str = ""
    helpers: Sequence[str] = ()
    given: Sequence[str] = ()
    more: Callable[[Any], dict[str, Mistake]] = lambda ours: {}

    def __call__(self, implementation: Any, ours: Any) -> list["Check"]:
        return [Check(claim, implementation, ours, self) for claim in self.claims]

    def own(self, ours: Any) -> tuple[str, Any]:
        """The name under which a lesson grades this part, and its own version; ("", None) elsewhere."""
        names = [name for name, part in getattr(ours, "GRADED", {}).items() if part is self]
        return (names[0], getattr(ours, names[0])) if names else ("", None)


def statement_of(claim: Callable) -> str:
    return " ".join((inspect.getdoc(claim) or claim.__name__).split()).rstrip(".")


class Check:
    """One claim about one implementation. It is tested when its finding is first read."""

    def __init__(self, claim: Callable[[Any, Any], Finding], implementation: Any, ours: Any, part: Part):
        self.claim, self.implementation, self.ours, self.part = claim, implementation, ours, part
        self.statement = statement_of(claim)
        self.found: Finding | None = None

    @property
    def finding(self) -> Finding:
        if self.found is None:
            self.found = self.run()
        return self.found

    def holds(self) -> bool:
        """Whether the claim holds. A failure isn't explained, because that would try every mistake."""
        if self.found is not None:
            return self.found.holds
        try:
            return tested(self.claim, self.implementation, self.ours)[0].holds
        except Exception:
            return False

    def run(self) -> Finding:
        """Test the claim; an exception also becomes a finding."""
        try:
            finding, seen = tested(self.claim, self.implementation, self.ours)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a learner's code may raise anything, even SystemExit
            return what_happened(error, self.part.needs, *self.part.own(self.ours))
        if finding.holds:
            return finding._replace(diagnosis="")
        hint = self.explanation(seen)
        return finding._replace(diagnosis=hint or finding.diagnosis, known=bool(hint))

    def explanation(self, seen: list[tuple[Tensor, float]]) -> str:
        """The hints of the mistakes that, for this claim, give exactly what the implementation gave.

        If several do, only those that this claim has to catch. Empty if the course's own part also fails:
        the mistakes are built from it, so they would say nothing.
        """
        if not self.ours_hold():
            return ""
        mistakes = [*self.part.mistakes(self.ours).values(), *self.part.more(self.ours).values()]
        alike = [mistake for mistake in mistakes if self.explains(mistake, seen)]
        meant = [mistake for mistake in alike if self.statement.startswith(mistake.caught_by)]
        return "; or: ".join(dict.fromkeys(mistake.hint for mistake in meant or alike))

    def ours_hold(self) -> bool:
        """Whether the course's own part fulfils the claim; True if there is no such part."""
        name, own = self.part.own(self.ours)
        try:
            return not name or tested(self.claim, own, self.ours)[0].holds
        except Exception:
            return False

    def explains(self, mistake: Mistake, seen: list[tuple[Tensor, float]]) -> bool:
        """Whether the mistake fails this claim with the same values, for every input of the claim."""
        try:
            finding, values = tested(self.claim, mistake.implementation, self.ours)
        except Exception:  # the mistake wasn't made for this claim
            return False
        same = len(values) == len(seen) > 0 and all(
            a.shape == b.shape and torch.allclose(a.double(), b.double(), 0, tolerance, equal_nan=True)
            for (a, tolerance), (b, _) in zip(values, seen, strict=True))
        return same and not finding.holds


def tested(claim: Callable, implementation: Any, ours: Any) -> tuple[Finding, list[tuple[Tensor, float]]]:
    """The finding, and every compared value with its tolerance; random numbers start from the same seed."""
    with torch.random.fork_rng(devices=[]), witnessing() as seen:
        torch.default_generator.manual_seed(0)  # torch.manual_seed() also seeds GPUs, which nothing restores
        return claim(implementation, ours), seen


def what_happened(error: BaseException, needs: str = "", name: str = "", own: Any = None) -> Finding:
    """An exception as a finding: what was raised, and in which line of the learner's code.

    `own` is the course's part, called `name`, whose signature tells how the checks call it.
    """
    everything = traceback.extract_tb(error.__traceback__)
    frames = [frame for frame in everything if not is_library(frame.filename)]
    text = f"{type(error).__name__}: {error}".rstrip(": ")
    if isinstance(error, Needed):
        return Finding(False, *error.args)
    if isinstance(error, SyntaxError) and error.text:
        shown = "".join(traceback.format_exception_only(error)[1:-1])  # the line and the caret
        return Finding(False, text, inspect.cleandoc("\n" + shown))
    if frames and is_ours(frames[-1].filename):
        return Finding(False, text, called_by_us(error, needs, name, own))
    theirs = [frame for frame in frames if not is_ours(frame.filename)]
    learners = [frame for frame in theirs if not is_lesson(frame.filename)] or theirs
    if not learners:
        return Finding(False, text, needs)
    if "before Module.__init__" in text:
        return Finding(False, text, "begin __init__ with super().__init__()")
    last, place = learners[-1], f"line {learners[-1].lineno} of {named(learners[-1].filename)}"
    raised = last is everything[-1] and (not last.line or last.line.startswith("raise"))
    if isinstance(error, NotImplementedError) and raised:
        return Finding(False, UNWRITTEN, f"{last.name}, {place}")
    return Finding(False, text, f"it happened in {place}" + (f": {last.line}" if last.line else ""))


def named(file: str) -> str:
    """The name of a file as the learner knows it; “the cell” for a notebook's cell."""
    return "the cell" if re.search(r"[/\\]ipykernel_\d+[/\\]|<ipython-input", file) else Path(file).name


def called_by_us(error: BaseException, needs: str, name: str, own: Any) -> str:
    """The diagnosis for an exception raised by our own check: a wrong call, or a name that is missing."""
    text = str(error)
    if isinstance(error, TypeError) and own is not None and "argument" in text:
        return f"needed: {called(name, own, text)}"
    if not isinstance(error, AttributeError):
        return needs
    missing = "is something None that should have a value: a return missing?" if "'NoneType'" in text else ""
    return " ".join(filter(None, [missing, needs])) or "the check asks for this name"


def called(name: str, own: Any, text: str) -> str:
    """The signature of the course's part, or of its method in the message: softmax(scores, dim=-1)."""
    method = re.search(r"(\w+)\(\)", text)
    if inspect.isclass(own) and method and method[1] != "__init__" and hasattr(own, method[1]):
        name, own = f"{name}.{method[1]}", getattr(own, method[1])
    signature = inspect.signature(own)
    plain = [value.replace(annotation=inspect.Parameter.empty) for value in signature.parameters.values()
             if value.name != "self"]
    empty = inspect.Signature.empty
    return name + str(signature.replace(parameters=plain, return_annotation=empty))


def is_ours(file: str) -> bool:
    """Whether the file belongs to the course's machinery or checks."""
    return any(place in (Path(file), *Path(file).parents) for place in OURS)


def is_lesson(file: str) -> bool:
    """Whether the file is one of the numbered lessons."""
    return Path(file).parent == COURSE and re.match(r"\d\d_", Path(file).name) is not None


def is_library(file: str) -> bool:
    """Whether the file belongs to Python or to an installed package."""
    return "-packages" in file or file.startswith("<frozen") or PYTHON in Path(file).parents


_noted = threading.local()  # one list per thread: an endless check must not write into the next check's list


@contextmanager
def witnessing() -> Iterator[list[tuple[Tensor, float]]]:
    """Inside `with`, collect what agree() compares."""
    before = getattr(_noted, "seen", None)
    _noted.seen = []
    try:
        yield _noted.seen
    finally:
        _noted.seen = before


def claims_of(part: Part, ours: Any) -> list[tuple[str, Mistake, Check]]:
    """(name, mistake, the check that has to catch it) for every mistake of a part."""
    found = []
    for name, mistake in part.mistakes(ours).items():
        checks = part(mistake.implementation, ours)
        found.append((name, mistake, next(c for c in checks if c.statement.startswith(mistake.caught_by))))
    return found


# ------------------------------------------------------------------ what claims are made of


def agree(actual: Any, expected: Tensor, tolerance: float = 1e-10, hint: str = "", axes: str = "") -> Finding:
    """Finding: `actual` equals `expected` everywhere, within `tolerance`.

    The diagnosis is `hint`, or what differs; `axes` are the names of the dimensions: "batch, query, key".
    """
    if not isinstance(actual, Tensor):
        hint = hint or ("a return missing?" if actual is None else "")
        return Finding(False, f"a {type(actual).__name__} came back, not a tensor", hint)
    if getattr(_noted, "seen", None) is not None:
        _noted.seen.append((actual.detach().clone(), tolerance))
    if actual.shape != expected.shape:
        figure = f"shape {tuple(actual.shape)}, expected {tuple(expected.shape)}"
        return Finding(False, figure, hint or (f"the axes should be ({axes})" if axes else ""))
    gap = largest_difference(actual, expected)
    figure = f"largest difference {gap:.0e}" if gap else "identical"
    if gap <= tolerance:  # False for NaN
        return Finding(True, figure, hint, gap)
    return Finding(False, figure, hint or difference(actual, expected, tolerance, axes), gap)


def together(*findings: Finding) -> Finding:
    """The first finding that doesn't hold, otherwise the one with the largest difference."""
    failed = [finding for finding in findings if not finding.holds]
    return failed[0] if failed else max(findings, key=lambda finding: finding.gap or 0.0)


def at(place: str, finding: Finding) -> Finding:
    """The finding; if it fails, its figure says for which of several inputs."""
    return finding if finding.holds else finding._replace(figure=f"{place}: {finding.figure}")


def layers_of(module: nn.Module, names: Sequence[str]) -> list[nn.Linear]:
    """The linear maps with these names; if there are as many but none has these names, all in order."""
    return [getattr(module, name) for name in renamed(module, names) or names]


def renamed(module: nn.Module, names: Sequence[str]) -> list[str]:
    """The module's names for its linear maps, if it has as many as `names` and uses none of these."""
    own = [name for name, part in module.named_children() if isinstance(part, nn.Linear)]
    return own if len(own) == len(names) and not {*own} & {*names} else []


def by_order(finding: Finding, module: nn.Module, names: Sequence[str]) -> Finding:
    """The finding; its figure says which linear maps with other names were matched by their order."""
    if own := renamed(module, names):
        return finding._replace(figure=f"{finding.figure}; {', '.join(own)} taken for {', '.join(names)}")
    return finding


def refused(attempt: Callable, *values: object) -> Finding:
    """Finding: a ValueError was raised, and its message names the values."""
    try:
        attempt()
    except ValueError as error:
        named = all(str(value) in str(error) for value in values)
        return Finding(named, str(error), f"name {' and '.join(map(str, values))} in the message")
    return Finding(False, "nothing was raised", "raise a ValueError")


def largest_difference(actual: Tensor, expected: Tensor) -> float:
    """max |actual − expected|, computed in float64; 0 for empty tensors."""
    gaps = (actual.detach().double() - expected.detach().double()).abs()
    return gaps.max().item() if gaps.numel() else 0.0


def random_tensors(*shapes: tuple[int, ...], seed: int = 0) -> list[Tensor]:
    """Independent standard normal tensors in float64, always the same."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def randomised(module: nn.Module) -> nn.Module:
    """The module in float64 with every parameter random, including biases and gains; always the same."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.double().parameters():
        nn.init.normal_(parameter, std=0.4, generator=generator)
    return module


def gradients(loss: Tensor, inputs: Iterable[Tensor]) -> Tensor:
    """The gradients of `loss` with respect to all inputs, in one flat tensor."""
    found = torch.autograd.grad(loss, list(inputs), allow_unused=True) if loss.requires_grad else [None]
    parts = [part.flatten() for part in found if part is not None]
    if len(parts) < len(found):
        raise Needed("no gradient", "is something cut off, by detach(), .data or NumPy, or is it not used?")
    return torch.cat(parts)


def gradients_agree(ours: nn.Module, theirs: nn.Module, copy: Callable) -> Finding:
    """Finding: after backward() on both, our parameters have the gradients of theirs.

    copy(ours, theirs) copies parameters; here it is given the gradients to copy. `theirs` is overwritten.
    """
    unused = [name for name, parameter in ours.named_parameters() if parameter.grad is None]
    if unused:
        return Finding(False, f"no gradient for {', '.join(unused)}", "does forward() use it?")
    for parameter in theirs.parameters():
        parameter.data = parameter.grad  # type: ignore[assignment]
    found = [parameter.grad.flatten() for parameter in ours.parameters()]
    expected = [parameter.flatten() for parameter in copy(deepcopy(ours), theirs).parameters()]
    return agree(torch.cat(found), torch.cat(expected))

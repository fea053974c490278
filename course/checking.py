"""Statements put to the test: a claim, what came of it, and the mistakes that explain a failure.

A claim is a function of an implementation and of `ours`, the course's own parts as a namespace. Its docstring
is the statement, what it returns the finding:

    def sums_to_one(softmax, ours):
        \"""The weights sum to 1.\"""
        return agree(softmax(scores).sum(-1), torch.ones(2))

A Part holds the claims about one part of a lesson, and the mistakes that people make with it.
"""

import inspect
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

COURSE = Path(__file__).parent.parent
OURS = COURSE / "course", COURSE / "checks", COURSE / "common.py"
PYTHON = Path(sysconfig.get_path("stdlib"))


class Finding(NamedTuple):
    """What came of testing a statement; `diagnosis` says what to look at when it fails."""

    holds: bool
    figure: str = ""
    diagnosis: str = ""
    gap: float | None = None  # the largest difference, where numbers were compared


class Mistake(NamedTuple):
    """A part broken on purpose; `caught_by` is how the statement begins that it has to fail."""

    hint: str
    implementation: Any
    caught_by: str


class Part(NamedTuple):
    """What has to hold of one part; called with an implementation it gives the checks of it.

    `mistakes` makes the mistakes from the course's own parts, never from an attempt. `needs` says which
    names the checks set or read, beyond calling the part.
    """

    claims: Sequence[Callable[[Any, Any], Finding]]
    mistakes: Callable[[Any], dict[str, Mistake]] = lambda ours: {}
    needs: str = ""

    def __call__(self, implementation: Any, ours: Any) -> list["Check"]:
        return [Check(claim, implementation, ours, self) for claim in self.claims]


class Check:
    """One claim about one implementation. It is tested when its finding is first asked for."""

    def __init__(self, claim: Callable[[Any, Any], Finding], implementation: Any, ours: Any, part: Part):
        self.claim, self.implementation, self.ours, self.part = claim, implementation, ours, part
        self.statement = " ".join(inspect.getdoc(claim).split()).rstrip(".")
        self.found: Finding | None = None

    @property
    def finding(self) -> Finding:
        if self.found is None:
            self.found = self.run()
        return self.found

    def run(self) -> Finding:
        """Test the claim; an exception is a finding, too."""
        try:
            finding, seen = tested(self.claim, self.implementation, self.ours)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a learner's code may raise anything, even SystemExit
            return what_happened(error, self.part.needs)
        if finding.holds:
            return finding._replace(diagnosis="")
        return finding._replace(diagnosis=self.explanation(seen) or finding.diagnosis)

    def explanation(self, seen: list[tuple[Tensor, float]]) -> str:
        """The hints of the mistakes that give, for this claim, just what the implementation gave."""
        return "; or: ".join(mistake.hint for mistake in self.part.mistakes(self.ours).values()
                             if self.explains(mistake, seen))

    def explains(self, mistake: Mistake, seen: list[tuple[Tensor, float]]) -> bool:
        """Whether the mistake fails this claim with the same values, for every input of the claim."""
        try:
            finding, values = tested(self.claim, mistake.implementation, self.ours)
        except Exception:  # not made for what this claim asks
            return False
        same = len(values) == len(seen) > 0 and all(
            a.shape == b.shape and torch.allclose(a.double(), b.double(), 0, tolerance, equal_nan=True)
            for (a, tolerance), (b, _) in zip(values, seen, strict=True))
        return same and not finding.holds


def tested(claim: Callable, implementation: Any, ours: Any) -> tuple[Finding, list[tuple[Tensor, float]]]:
    """The finding, and every value that was compared with its tolerance; random numbers start alike."""
    with torch.random.fork_rng(devices=[]), witnessing() as seen:
        torch.default_generator.manual_seed(0)  # torch.manual_seed() reaches the GPUs, which nothing restores
        return claim(implementation, ours), seen


def what_happened(error: BaseException, needs: str = "") -> Finding:
    """An exception as a finding: what, and in which line of the learner's code."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not is_library(frame.filename)]
    theirs = [frame for frame in frames if not is_ours(frame.filename)]
    text = f"{type(error).__name__}: {error}".rstrip(": ")
    if isinstance(error, AttributeError) and frames and is_ours(frames[-1].filename):
        missing = "is there a None where something should be: a return missing, a bias?"
        hints = [missing] if "'NoneType'" in text else []
        hints += [needs] if needs else []
        return Finding(False, text, " ".join(hints) or "the check asks for this name")
    if not theirs:
        return Finding(False, text, needs)
    line, file = theirs[-1].lineno, Path(theirs[-1].filename).name
    return Finding(False, text, f"it happened in line {line} of {file}")


def is_ours(file: str) -> bool:
    """Whether the file belongs to the course's machinery or checks."""
    return any(place in (Path(file), *Path(file).parents) for place in OURS)


def is_library(file: str) -> bool:
    """Whether the file belongs to Python or to an installed package."""
    return "-packages" in file or file.startswith("<frozen") or PYTHON in Path(file).parents


_noted = threading.local()  # one list a thread: a check that never ends must not write into the next one's


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


def agree(actual: Any, expected: Tensor, tolerance: float = 1e-10, hint: str = "") -> Finding:
    """Finding: `actual` differs from `expected` nowhere by more than `tolerance`."""
    if not isinstance(actual, Tensor):
        return Finding(False, f"a {type(actual).__name__} came back, not a tensor", hint)
    if getattr(_noted, "seen", None) is not None:
        _noted.seen.append((actual.detach().clone(), tolerance))
    if actual.shape != expected.shape:
        return Finding(False, f"shape {tuple(actual.shape)}, expected {tuple(expected.shape)}", hint)
    gap = largest_difference(actual, expected)
    figure = f"largest difference {gap:.0e}" if gap else "identical"
    return Finding(gap <= tolerance, figure, hint, gap)  # False for NaN


def together(*findings: Finding) -> Finding:
    """The first finding that doesn't hold, else the one with the largest difference."""
    failed = [finding for finding in findings if not finding.holds]
    return failed[0] if failed else max(findings, key=lambda finding: finding.gap or 0.0)


def refused(attempt: Callable, *values: object) -> Finding:
    """Finding: a ValueError came, and its message names the values."""
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
    """The module in float64 with every parameter random, biases and gains too; always the same."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.double().parameters():
        nn.init.normal_(parameter, std=0.4, generator=generator)
    return module


def gradients(loss: Tensor, inputs: Iterable[Tensor]) -> Tensor:
    """The gradients of `loss` with respect to all inputs, in one flat tensor."""
    return torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(inputs))])


def gradients_agree(ours: nn.Module, theirs: nn.Module, copy: Callable) -> Finding:
    """Finding: after backward() on both, our parameters have the gradients of theirs.

    copy(ours, theirs) copies parameters; here it is given the gradients to copy. `theirs` is used up.
    """
    unused = [name for name, parameter in ours.named_parameters() if parameter.grad is None]
    if unused:
        return Finding(False, f"no gradient for {', '.join(unused)}", "does forward() use it?")
    for parameter in theirs.parameters():
        parameter.data = parameter.grad
    found = [parameter.grad.flatten() for parameter in ours.parameters()]
    expected = [parameter.flatten() for parameter in copy(deepcopy(ours), theirs).parameters()]
    return agree(torch.cat(found), torch.cat(expected))

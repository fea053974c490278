import math
import statistics
import threading
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT
from torch import nn

from course.console.records import Finding
from course.grading.checking import (
    UNWRITTEN,
    Check,
    Mistake,
    Needed,
    Part,
    agree,
    at,
    called,
    claims_of,
    gradients,
    gradients_agree,
    refused,
    together,
    witnessing,
)

# what claims are made of


def test_agree_notices_differences_shapes_types_and_nan():
    zeros = torch.zeros(2, 3)
    assert agree(zeros, zeros) == Finding(True, "identical", "", 0.0)
    assert not agree(zeros + 1e-6, zeros).holds
    assert agree(zeros + 1e-6, zeros, 1e-5).holds
    assert not agree(zeros * float("nan"), zeros).holds
    assert "(3, 2)" in agree(zeros.T, zeros).figure
    assert not agree(zeros[:1], zeros).holds  # no broadcasting
    came = agree(None, zeros, hint="return it")
    assert came == Finding(False, "a NoneType came back, not a tensor", "return it")
    assert agree(zeros - 2, zeros).gap == 2
    assert agree(zeros.float() + 0.1, zeros.double() + 0.1, 1e-15).holds is False  # compared in float64


def test_together_wants_all_and_shows_the_largest_gap():
    small, large, bare = Finding(True, "a", gap=1e-9), Finding(True, "b", gap=1e-7), Finding(True, "c")
    assert together(small, large, bare) == large
    assert together(bare) == bare
    failed, other = Finding(False, "d", "why", gap=1e-12), Finding(False, "e")
    assert together(large, failed, other) == failed


def test_refused_wants_a_value_error_with_the_values():
    def refuse(message, kind=ValueError):
        raise kind(message)

    assert refused(lambda: refuse("30 and 4"), 30, 4).holds
    finding = refused(lambda: refuse("no"), 30, 4)
    assert (finding.holds, finding.diagnosis) == (False, "name 30 and 4 in the message")
    assert not refused(lambda: None).holds
    with pytest.raises(TypeError):  # the check says what happened
        refused(lambda: refuse("30", TypeError), 30)


# checks: what became of a claim


INPUTS = torch.arange(3.0), torch.arange(4.0, 7.0)


def doubles_both(double, ours):
    """It doubles
    both inputs.
    """
    return together(*(agree(double(x), 2 * x) for x in INPUTS))


def doubles_positive_halves(double, ours):
    """It doubles numbers from 0 on, in their own type."""
    doubled = double(INPUTS[1].half())
    kept = Finding(doubled.dtype == torch.float16, "", "keep the type")
    return together(agree(doubled, 2 * INPUTS[1]), kept)


def mistakes_in_doubling(ours):
    return {
        "not at all": Mistake("multiply it", lambda x: ours.double(x) / 2, "It doubles both"),
        "squared": Mistake("doubled, not squared", lambda x: x**2, "It doubles both"),
        "negative lost": Mistake("negative numbers, too", lambda x: ours.double(x.abs()), "It doubles neg"),
        "two inputs": Mistake("give it one input", lambda x, y: x + y, "It doubles both"),
    }


OURS = SimpleNamespace(double=lambda x: 2 * x)
doubling = Part([doubles_both, doubles_positive_halves], mistakes_in_doubling)


def finding_of(implementation, claim=doubles_both, part=doubling):
    return Check(claim, implementation, OURS, part).finding


def test_a_part_makes_a_check_of_every_claim():
    checks = doubling(OURS.double, OURS)
    statements = ["It doubles both inputs", "It doubles numbers from 0 on, in their own type"]
    assert [check.statement for check in checks] == statements
    assert all(check.finding.holds and not check.finding.diagnosis for check in checks)


def test_a_check_is_tested_once_and_only_when_asked():
    calls = []
    (check, _) = doubling(lambda x: calls.append(x) or 2 * x, OURS)
    assert not calls
    assert check.finding is check.finding
    assert len(calls) == 2


def test_the_mistake_that_gives_the_same_outputs_explains_the_failure():
    assert finding_of(lambda x: x * x).diagnosis == "doubled, not squared"
    assert finding_of(lambda x: x.clone()).diagnosis == "multiply it"
    assert finding_of(lambda x: x * x + 1e-12).diagnosis == "doubled, not squared"  # to the claim's tolerance
    assert finding_of(lambda x: x * x).known
    assert finding_of(lambda x: x * x + 1e-3) == Finding(
        False, "largest difference 1e+00", "it differs everywhere", pytest.approx(0.999, abs=1e-4))


@pytest.mark.parametrize("second", [lambda x: 2 * x, lambda x: x + 1, lambda x: x[:2] ** 2])
def test_no_hint_if_an_output_differs_only_on_the_second_input(second):
    finding = finding_of(lambda x: x**2 if x is INPUTS[0] else second(x))
    assert not finding.holds
    assert not finding.known
    assert "squared" not in finding.diagnosis
    assert "differs in 1 of 3 numbers" in finding.diagnosis  # of the first input: that failed


def test_no_hint_if_there_is_an_output_more_or_less():
    def as_often_as_it_likes(double, ours):
        """It doubles the first input, or both."""
        return together(*(agree(doubled, 2 * x) for doubled, x in zip(double(*INPUTS), INPUTS)))

    part = Part([], lambda ours: {"": Mistake("one", lambda x, y: [x**2], "")})
    assert finding_of(lambda x, y: [x**2], as_often_as_it_likes, part).diagnosis == "one"
    assert not finding_of(lambda x, y: [x**2, 2 * y], as_often_as_it_likes, part).known


def test_no_hint_of_a_mistake_that_the_claim_cannot_tell_apart():
    """“negative lost” passes this claim: equal outputs don't make it the reason."""
    finding = finding_of(lambda x: 2 * x.float(), doubles_positive_halves)
    assert (finding.holds, finding.diagnosis) == (False, "keep the type")


def test_no_hint_without_outputs_and_the_claims_own_diagnosis_then():
    def says(double, ours):
        """It says so."""
        return Finding(double is OURS.double, "", "its own words")

    assert finding_of(lambda x: x**2, says).diagnosis == "its own words"


def test_mistakes_that_look_alike_are_all_named():
    part = Part([], lambda ours: {name: Mistake(name, lambda x: x**2, "") for name in ("this", "that")})
    assert finding_of(lambda x: x * x, part=part).diagnosis == "this; or: that"


def test_the_mistake_that_this_claim_has_to_catch_goes_before_others_that_look_alike():
    caught_by = {"this": "It doubles numbers", "that": "It doubles both", "those": "It doubles both"}
    part = Part([], lambda ours: {name: Mistake(name[:4], lambda x: x**2, begin)
                                  for name, begin in caught_by.items()})
    assert finding_of(lambda x: x * x, part=part).diagnosis == "that; or: thos"


def test_mistakes_tell_nothing_if_the_course_s_own_part_fails_the_claim():
    for double, known in ((lambda x: x + x, True), (lambda x: 3 * x, False), (lambda x: x.nothing, False)):
        part = Part([doubles_both], lambda ours: {"": Mistake("squared", lambda x: x**2, "It doubles")})
        ours = SimpleNamespace(double=double, GRADED={"double": part})
        finding = Check(doubles_both, lambda x: x**2, ours, part).finding
        assert (finding.known, "squared" in finding.diagnosis) == (known, known)


def test_mistakes_are_made_of_our_parts_and_only_after_a_failure():
    asked = []
    part = Part([], lambda ours: asked.append(ours) or {})
    finding_of(OURS.double, part=part)
    assert not asked
    finding_of(lambda x: x, part=part)
    assert asked == [OURS]


def test_outputs_are_noted_as_they_were_and_in_their_own_thread():
    with witnessing() as seen:
        tensor = torch.ones(2)
        agree(tensor, tensor)
        tensor.zero_()
        thread = threading.Thread(target=agree, args=(tensor, tensor))
        thread.start()
        thread.join()
        with witnessing() as inner:
            agree(tensor, tensor)
    assert [value.tolist() for value, _ in seen] == [[1.0, 1.0]]
    assert len(inner) == 1


def test_random_numbers_start_alike_and_are_restored():
    drawn = []

    def scaled(double, ours):
        """It doubles random numbers."""
        drawn.append(torch.randn(3))
        return agree(double(drawn[-1]), 2 * drawn[-1])

    torch.manual_seed(7)
    before = torch.get_rng_state()
    assert finding_of(OURS.double, scaled).holds
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    assert finding_of(lambda x: x**2, scaled).diagnosis == "doubled, not squared"
    assert all(torch.equal(numbers, drawn[0]) for numbers in drawn)
    before = torch.get_rng_state()
    finding_of(lambda x: torch.rand(3).nothing, scaled)
    assert torch.equal(torch.get_rng_state(), before)


def test_every_mistake_is_paired_with_the_check_that_has_to_catch_it():
    found = claims_of(Part([doubles_both], lambda ours: {"a": mistakes_in_doubling(ours)["squared"]}), OURS)
    ((name, mistake, check),) = found
    assert (name, mistake.hint, check.statement) == ("a", "doubled, not squared", "It doubles both inputs")
    assert not check.finding.holds


# a claim that raises


def code_in(file, text):
    """The names that the code defines, as if it stood in this file."""
    names = {"agree": agree, "torch": torch, "statistics": statistics, "Finding": Finding}
    exec(compile(text, str(file), "exec"), names)
    return SimpleNamespace(**names)


CHECKS = code_in(ROOT / "checks" / "made_up.py", '''
def calls_it(part, ours):
    """It can be called."""
    return agree(part(torch.ones(2)).sum(), torch.tensor(2.0))
def sets_its_weight(part, ours):
    """Its weight can be set."""
    part.weight.fill_(1.0)
    return Finding(True)
''')
MINE = code_in("/home/me/mine.py", '''
def raises(x):

    raise KeyError("what")
def ends(x):
    raise SystemExit("bye")
def asks_for_nothing(x):
    return x.nothing
def in_the_library(x):
    return statistics.mean([])
def in_torch(x):
    return torch.cat([x, 5])
def returns_nothing(x):
    x + 1
class WithoutWeight(torch.nn.Module):
    pass
def takes_two(x, y):
    return x
''')


@pytest.mark.parametrize(("name", "figure", "line"), [
    ("raises", "KeyError: 'what'", 4), ("ends", "SystemExit: bye", 6),
    ("asks_for_nothing", "AttributeError: 'Tensor' object has no attribute 'nothing'", 8),
    ("in_the_library", "StatisticsError: mean requires at least one data point", 10),
    ("in_torch", "TypeError: expected Tensor", 12),
])
def test_a_claim_that_raises_says_what_and_where_in_the_learners_code(name, figure, line):
    finding = finding_of(getattr(MINE, name), CHECKS.calls_it, Part([], needs="It needs weight."))
    assert not finding.holds
    assert finding.figure.startswith(figure)
    assert finding.diagnosis == f"it happened in line {line} of mine.py"


@pytest.mark.parametrize(("needs", "said"), [
    ("The checks set weight.", "The checks set weight."), ("", "the check asks for this name"),
])
def test_a_name_that_our_check_asks_for_is_told(needs, said):
    finding = finding_of(MINE.WithoutWeight(), CHECKS.sets_its_weight, Part([], needs=needs))
    assert finding.holds is False
    assert finding.diagnosis == said
    assert "weight" in finding.figure


def test_a_missing_return_is_guessed_and_a_wrong_signature_is_shown():
    assert "return" in finding_of(MINE.returns_nothing, CHECKS.calls_it, Part([])).diagnosis
    part = Part([], needs="called with x")
    finding = finding_of(MINE.takes_two, CHECKS.calls_it, part)
    assert "takes_two() missing 1 required" in finding.figure
    assert finding.diagnosis == "called with x"

    def double(x: torch.Tensor, times: int = 2) -> torch.Tensor:
        return times * x

    ours = SimpleNamespace(double=double, GRADED={"double": part})
    finding = Check(CHECKS.calls_it, MINE.takes_two, ours, part).finding
    assert finding.diagnosis == "needed: double(x, times=2)"


@pytest.mark.parametrize(("text", "said"), [
    ("TwoAtOnce.forward() takes 2 positional arguments but 3 were given", "Own.forward(x, mask=None)"),
    ("Own.__init__() got an unexpected keyword argument 'p'", "Own(width)"),
    ("<lambda>() missing 1 required positional argument: 'y'", "Own(width)"),
])
def test_a_wrong_signature_is_told_how_it_is_called(text, said):
    class Own:
        def __init__(self, width: int):
            pass

        def forward(self, x, mask: bool | None = None) -> int:
            pass

    assert called("Own", Own, text) == said


def test_what_is_not_written_yet_is_no_error_and_says_where():
    names = code_in("/home/me/mine.py", """
def later(x):
    raise NotImplementedError("later")
def half(x):
    return 2 * later(x)
class Module(torch.nn.Module):
    pass
""")
    found = [finding_of(part, CHECKS.calls_it, Part([])) for part in (names.later, names.half)]
    assert found == [Finding(False, UNWRITTEN, "later, line 3 of mine.py")] * 2
    assert "forward" in finding_of(names.Module(), CHECKS.calls_it, Part([])).figure  # PyTorch's, not theirs


def test_the_learners_line_is_named_not_the_lessons():
    lessons = code_in(ROOT / "01_attention_mechanism.py", "def deep(x):\n    raise KeyError('deep')")
    mine = code_in(ROOT / "mine.py", "def call(deep):\n\n    return lambda x: deep(x)")
    diagnosis = finding_of(mine.call(lessons.deep), CHECKS.calls_it).diagnosis
    assert diagnosis.startswith("it happened in line 3 of mine.py")
    assert "line 2 of 01_attention" in finding_of(lessons.deep, CHECKS.calls_it).diagnosis  # no other


def test_what_a_check_needs_can_be_said_in_words():
    def needs_more(part, ours):
        """It has all."""
        raise Needed("no bias", "leave it on")

    assert finding_of(None, needs_more) == Finding(False, "no bias", "leave it on")


def test_gradients_that_are_cut_off_are_said():
    x, y = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    assert gradients((x * y).sum(), [x, y]).tolist() == [1.0] * 4
    for loss in ((x * y.detach()).sum(), x.detach().sum()):
        with pytest.raises(Needed, match="no gradient"):
            gradients(loss, [x, y])


# what differs, where no mistake explains it


def changed(*places):
    """(2, 4, 5) of random numbers, and the same with other numbers at these places."""
    torch.manual_seed(0)
    expected = torch.randn(2, 4, 5).double()
    actual = expected.clone()
    for place in places:
        actual[place] += 1 + torch.rand(actual[place].shape)
    return actual, expected


ALL, AXES = slice(None), "batch, query, key"


@pytest.mark.parametrize(("places", "said"), [
    ([(ALL, slice(1, 4), 0), (ALL, slice(1, 4), 2)],
     "it differs for queries 1 to 3 and keys 0 and 2 (all batches)"),
    ([(0, 2, 3)], "it differs for batch 0, query 2 and key 3"),
    ([(ALL, ALL, 1)], "it differs for key 1 (all batches and queries)"),
    ([(ALL, ALL, 0), (ALL, ALL, slice(2, 5))],
     "it differs for keys 0 and 2 to 4 (all batches and queries)"),
    ([(0, 0, 0), (0, 1, 1)],
     "it differs in 2 of 40 numbers, all of batch 0, queries 0 and 1 and keys 0 and 1"),
    ([(ALL, i, i) for i in range(4)] + [(0, 0, 4)],
     "it differs in 9 of 40 numbers, of every batch, query and key"),
    ([ALL], "it differs everywhere"),
])
def test_where_it_differs_is_said_by_the_names_of_the_axes(places, said):
    actual, expected = changed(*places)
    assert agree(actual, expected, axes=AXES).diagnosis == said
    assert agree(actual, expected, axes=AXES, hint="mine").diagnosis == "mine"
    count = int((actual != expected).sum())
    assert agree(actual, expected).diagnosis == ("it differs everywhere" if count == 40
                                                 else f"it differs in {count} of 40 numbers")


@pytest.mark.parametrize(("change", "said"), [
    (lambda x: 8**0.5 * x, "every number is 2.83 times what it should be"),
    (lambda x: -x, "every number has the wrong sign"), (lambda x: 0 * x, "every number is 0"),
    (lambda x: x + 0.5, "every number is 0.5 too large"), (lambda x: x - 2, "every number is 2 too small"),
    (lambda x: x.flip(1), "it differs everywhere; the numbers are the right ones, in other places"),
    (lambda x: x.where(x < x.max(), math.nan), "NaN for batch"), (lambda x: x * math.nan, "NaN everywhere"),
    (lambda x: x.where(x.argmin() != torch.arange(40).view(2, 4, 5), 2 * x), "it differs for batch"),
    (lambda x: x + 1e-4 * x, "it differs everywhere"),  # not: 1 times
    (lambda x: x[:1], "the axes should be (batch, query, key)"),
])
def test_what_happened_to_all_numbers_is_said(change, said):
    _, expected = changed()
    assert agree(change(expected), expected, axes=AXES).diagnosis.startswith(said)
    assert agree(expected, expected, axes=AXES).diagnosis == ""


def test_of_several_inputs_the_one_that_fails_is_named():
    right, wrong = (agree(*changed(*places)) for places in ([], [(0, 0, 0)]))
    finding = together(at("n=1", right), at("n=2", wrong))
    assert finding.figure.startswith("n=2: largest difference")
    assert finding.diagnosis == "it differs in 1 of 40 numbers"
    assert at("n=1", right) == right


def test_names_of_axes_have_to_fit():
    with pytest.raises(ValueError, match="zip"):
        agree(*changed((0, 0, 0)), axes="batch, query")


def test_ctrl_c_is_no_finding():
    def interrupted(x):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finding_of(interrupted)


def test_gradients_of_two_modules_are_compared():
    def copy(ours, theirs):
        ours.load_state_dict(theirs.state_dict())
        return ours

    def after_backward(bend=lambda y: y):
        torch.manual_seed(0)
        modules = nn.Linear(2, 2), nn.Linear(2, 2)
        copy(*modules)
        modules[0](torch.ones(1, 2)).sum().backward()
        bend(modules[1](torch.ones(1, 2))).sum().backward()
        return modules

    assert gradients_agree(*after_backward(), copy).holds
    assert not gradients_agree(*after_backward(lambda y: 1.01 * y), copy).holds
    ours, theirs = after_backward()
    ours.bias.grad = None
    assert gradients_agree(ours, theirs, copy).figure == "no gradient for bias"


def test_whether_it_holds_is_known_without_trying_the_mistakes():
    def doubles(double, ours):
        """It doubles."""
        return agree(double(torch.ones(2)), torch.full((2,), 2.0))

    def mistakes(ours):
        raise AssertionError("an explanation was looked for")

    part = Part([doubles], mistakes)
    for attempt, holds in ((lambda x: 2 * x, True), (lambda x: x, False), (lambda x: 1 / 0, False)):
        (check,) = part(attempt, None)
        assert check.holds() is holds
        assert check.found is None

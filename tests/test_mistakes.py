"""Every mistake of every graded part: the statement that it names catches it, and its hint is given there.

Part.mistakes and Part.more in checks/ are the one catalogue of mistakes; tests of hints name a mistake by its
key there.
"""

import pytest
from conftest import LESSONS, assert_caught, catalogue

from common import lesson

PARTS = [(name, part) for name in LESSONS for part in lesson(name).GRADED]


@pytest.mark.parametrize(("name", "part", "mistake"), [
    (name, part, mistake) for name, part in PARTS for mistake in catalogue(lesson(name), part)])
def test_every_mistake_is_caught_and_explained(name, part, mistake):
    assert_caught(lesson(name), part, mistake)


@pytest.mark.parametrize(("name", "part"), PARTS)
def test_no_two_mistakes_of_a_part_have_one_name(name, part):
    ours = lesson(name)
    assert not ours.GRADED[part].mistakes(ours).keys() & ours.GRADED[part].more(ours).keys()

"""What was shown before: which changes count."""

import pytest
import showing
from walks import evil_walk, written

from common import table


@pytest.mark.parametrize(("old", "new", "behind", "same"), [
    ("word", "word", "", True), ("word", "other", "", False), ("~", "7", "", True),
    ("16,640", "16,641", "", True), ("16,640", "17,640", "", False), ("7", "8", "", False),
    ("0.93", "0.94", "", True), ("0.93", "0.96", "", False), ("2e-04", "3e-04", "", True),
    ("2e-04", "4e-04", "", False), ("6e-17", "0e+00", "", True), ("6e-17", "6e-05", "", False),
    ("12", "14", "% right", True), ("12", "15", "%", False), ("12", "twelve", "", False),
])
def test_numbers_are_alike_where_only_rounding_differs(old, new, behind, same):
    assert showing.alike(old, new, behind) == same


def page_of(tmp_path, first: str, seconds: float):
    """A page whose first step shows a table and two texts."""
    walk = evil_walk()
    grid = table("part", "size", "seconds", rows=[("softmax", first, seconds)])
    walk.records[0] = walk.records[0]._replace(shown=[grid, f"it took {seconds} s\nfor 3"])
    return written(walk, tmp_path)


def test_what_is_shown_is_compared_without_seconds(tmp_path):
    known = showing.shown_by(page_of(tmp_path, "2.5", 0.7))
    assert known["first"][:6] == ["part", "size", "softmax", "2.5", "for", "3"]
    assert not showing.differences(known, showing.shown_by(page_of(tmp_path, "2.5", 9.1)))
    other = showing.shown_by(page_of(tmp_path, "3.5", 0.7))
    assert showing.differences(known, other) == ["first: 3.5 where 2.5 stood"]
    assert showing.shared_by([known, other])["first"][:6] == ["part", "size", "softmax", "~", "for", "3"]
    assert not showing.differences(showing.shared_by([known, other]), other)

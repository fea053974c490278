"""The mistakes of mutate.py fit the code as it is. Whether the tests notice: python tests/mutate.py."""

import re
import sys

import mutate
import pytest
from conftest import ROOT


def test_every_mutation_fits_one_place():
    for file, old, new in mutate.MUTATIONS:
        assert (ROOT / file).read_text(encoding="utf-8").count(old) == 1, f"{file}: {old}"
        assert new != old
        assert all((ROOT / tests).exists() for tests in mutate.tests_of(file))


def test_the_readme_counts_them():
    said = re.search(r"`python tests/mutate.py` puts (\d+) mistakes", (ROOT / "README.md").read_text("utf-8"))
    assert int(said[1]) == len(mutate.MUTATIONS)


def test_every_file_has_mutations():
    files = [path for pattern in ("0*.py", "common.py", "checks/*.py", "course/*.py", "figures/*.py",
                                 "grammar/*.py")
             for path in ROOT.glob(pattern) if path.stem != "__init__"]
    mutated = {file for file, *_ in mutate.MUTATIONS}
    assert not {str(path.relative_to(ROOT).as_posix()) for path in files} - mutated


@pytest.mark.skipif(sys.platform == "win32", reason="it forks")
def test_a_mistake_that_a_test_sees_is_killed_and_another_survives(tmp_path):
    (tmp_path / "part.py").write_text("def double(x):\n    return 2 * x\n")
    (tmp_path / "test_part.py").write_text(
        "from part import double\n\ndef test_double():\n    assert double(1) == 2\n")
    said = []
    for new in "2 * x", "3 * x", "x + x":
        with mutate.mutated(tmp_path, "part.py", "2 * x", new):
            said.append(mutate.outcome(tmp_path, ["test_part.py"], quick=True))
    assert said == ["SURVIVED", "killed", "SURVIVED"]
    assert mutate.outcome(tmp_path, ["no_such.py"], quick=True) == "FAILS"

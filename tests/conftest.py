"""What the tests share: running a lesson as a learner does, and reading what it left."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import pytest
import torch
from hypothesis import HealthCheck, settings

settings.register_profile("course", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("course")  # a busy machine is no reason to fail
torch.set_num_threads(1)  # the tests run in as many processes as there are cores
ROOT = Path(__file__).parent.parent
LESSONS = sorted(path.stem for path in ROOT.glob("0*.py"))


def run_lesson(name: str, *options: str, cwd: Path = ROOT, preexec_fn=None, **environment: str):
    """The finished process of `python name.py options`, on one thread, output captured."""
    return subprocess.run(
        [sys.executable, str(ROOT / f"{name}.py"), *options],
        cwd=cwd,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"} | environment,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=300,
        preexec_fn=preexec_fn,
    )


def pictures_in(folder: Path) -> dict[str, bool]:
    """Name → whether something is drawn on it, for every PNG in the folder; all have to decode."""
    return {
        path.name: bool(matplotlib.image.imread(path).std() > 0.02)
        for path in sorted(folder.glob("*.png"))
    }


def one_line_error(process, code: int) -> str:
    """The error message, after checking the exit code and that there is nothing else."""
    lines = process.stderr.strip().splitlines()
    assert process.returncode == code, process.stderr
    assert len(lines) == 1, process.stderr
    return lines[0]


def holds(proof) -> None:
    """Fail with the figure and the diagnosis of a proof that doesn't hold."""
    finding = proof.finding
    assert finding.holds, f"{proof.statement} {finding.figure} {finding.diagnosis}"


def assert_diagnosed(proofs, diagnosis: str) -> None:
    """Some proof fails and says what is wrong."""
    said = {proof.finding.diagnosis for proof in proofs if not proof.finding.holds}
    assert diagnosis in said, f"said: {said}"


@pytest.fixture(scope="session")
def course(tmp_path_factory):
    """A folder with the scripts alone, as a fresh clone has them, and an empty outputs/."""
    folder = tmp_path_factory.mktemp("course")
    for script in ROOT.glob("*.py"):
        shutil.copy(script, folder)
    return folder


def run_as_documented(name: str, course: Path):
    """The finished walkthrough, run as the QUICKSTART says: all checks hold, all figures are there.

    The figures made are those that the console names, they are committed, and none is blank.
    """
    before = pictures_in(course / "outputs")
    process = subprocess.run(
        [sys.executable, f"{name}.py", "--pause"], cwd=course, input="\n" * 30, capture_output=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"}, encoding="utf-8", timeout=600,
    )
    assert process.returncode == 0, process.stdout[-2000:] + process.stderr
    assert process.stderr == ""
    proved, total = re.search(r"(\d+) of (\d+) checks hold", process.stdout).groups()
    assert proved == total
    named = set(re.findall(r"outputs/([\w-]+\.png)", process.stdout))
    after = pictures_in(course / "outputs")
    assert after.keys() - before.keys() == named
    assert all(after.values()), after
    assert named <= set(pictures_in(ROOT / "outputs"))
    return process

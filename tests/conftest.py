"""What the tests share: running a lesson as a learner does, and reading what it left."""

import os
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import pytest
import torch

torch.set_num_threads(1)  # the tests run in as many processes as there are cores
ROOT = Path(__file__).parent.parent
LESSONS = sorted(path.stem for path in ROOT.glob("0*.py"))


def run_lesson(name: str, *options: str, cwd: Path = ROOT, **environment: str):
    """The finished process of `python name.py options`, on one thread, output captured."""
    return subprocess.run(
        [sys.executable, str(ROOT / f"{name}.py"), *options],
        cwd=cwd,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"} | environment,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=300,
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
def walkthrough(tmp_path_factory):
    """walkthrough(name) runs a whole lesson once: (the process, its output folder)."""
    done = {}
    folder = tmp_path_factory.mktemp("outputs")

    def run(name: str):
        if name not in done:
            done[name] = run_lesson(name, "--outputs", str(folder))
        return done[name], folder

    return run

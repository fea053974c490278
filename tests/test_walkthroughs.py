"""The main job from beginning to end, and of every lesson a walkthrough of its cheap steps."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from cheap_steps import ENDED
from conftest import LESSONS, ROOT, SETTINGS, pictures_in, run_lesson, run_script
from reading import assert_sound
from showing import assert_shown_before

from common import lesson

MAIN = "05_mini_transformer"
SECONDS = "0.7"  # of the processor, for a step


def assert_all_hold(process) -> int:
    """How many checks hold; the script ended well, and none failed."""
    assert process.returncode == 0, process.stdout[-2000:] + process.stderr
    assert process.stderr == ""
    held, total = map(int, re.search(r"(\d+) of (\d+) checks hold", process.stdout).groups())
    assert held == total > 0
    return held


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """The outputs of lesson 5's training, interrupted and resumed."""
    folder = tmp_path_factory.mktemp("trained")
    options = "--step", "training", "--outputs", str(folder)
    with subprocess.Popen(
            [sys.executable, str(ROOT / f"{MAIN}.py"), *options], env=os.environ | SETTINGS,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8") as begun:
        next(line for line in begun.stdout if re.search(r"\d/700", line))
        begun.send_signal(signal.SIGINT)
        _, error = begun.communicate(timeout=900)
    assert (begun.returncode, "--resume" in error) == (130, True), error
    assert list(folder.glob("checkpoint_*.pt.unfinished"))
    assert_all_hold(run_lesson(MAIN, *options, "--resume", timeout=1800))
    assert [path.name for path in folder.glob("checkpoint_*")] == ["checkpoint_reverse.pt"]
    return folder


@pytest.mark.skipif(os.name == "nt", reason="interrupts a script")
def test_the_main_job_is_trained_interrupted_resumed_and_answers(trained):
    assert pictures_in(trained)["training_progress.png"]
    said = run_lesson("06_decoding", "--input", "3 1 4 1 5", "--no-code", "--outputs", str(trained))
    assert said.returncode == 0, said.stderr
    assert "5 1 4 1 3 EOS" in said.stdout


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="a step can't be ended")
@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.exhaustive if name >= "08" else ())
                                  for name in LESSONS])  # the four minutes are for what others build on
def test_the_cheap_steps_hold_and_show_what_they_have_shown(name, trained, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "outputs")
    process = run_script(ROOT / "tests" / "cheap_steps.py", name, SECONDS, "--outputs", str(folder),
                         timeout=900)
    if process.returncode == 0 and "checks hold" not in process.stdout:
        pytest.skip("not one step is cheap on this machine")
    assert_all_hold(process)
    assert_sound(folder / f"{name}.html")
    assert_shown_before(name, folder / f"{name}.html", ENDED)


@pytest.mark.exhaustive
@pytest.mark.parametrize("task", [task for task in lesson(MAIN).TASKS if task != "reverse"])
def test_all_checks_hold_on_every_task(task, tmp_path):
    """The lessons on lesson 5's model, whole: the training is the task's own, and the others load it.

    Lesson 9 trains much by itself, whatever the task: one task besides reverse is enough.
    """
    for name in (MAIN, "06_decoding", *(["09_interpretability"] if task == "copy" else [])):
        process = run_lesson(name, "--task", task, "--no-page", "--outputs", str(tmp_path), timeout=1500)
        assert_all_hold(process)

"""What the tests share: which of them run, running a lesson as a learner does, and reading what it left."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import matplotlib.image
import pytest
import torch
from hypothesis import HealthCheck, settings
from reading import assert_sound
from showing import assert_shown_before
from starting import SERVER, run_forked

import common

# A busy machine is no reason to fail. A failure can be repeated: with CI set the examples are always the
# same, else what failed is printed as a decorator, and tried first the next time.
settings.register_profile("course", deadline=None, suppress_health_check=[HealthCheck.too_slow],
                          print_blob=True, derandomize=bool(os.environ.get("CI")))
settings.load_profile("course")
os.environ["COURSE_PROGRESS"] = "off"  # what tests grade isn't the learner's progress
os.environ["OMP_NUM_THREADS"] = "1"  # the tests run in as many processes as there are cores
torch.set_num_threads(1)
ROOT = Path(__file__).parent.parent
LESSONS = sorted(path.stem for path in ROOT.glob("[0-9][0-9]_*.py"))
SETTINGS = {"OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"}  # of every script that a test starts
PACKAGES = "checks", "course", "figures", "grammar"  # what the lessons import, beside common.py


LEFT_OUT = pytest.StashKey[int]()  # how many tests --all would have added


def pytest_addoption(parser) -> None:
    parser.addoption("--all", action="store_true", help="run the exhaustive tests, too: half an hour")


def pytest_configure(config) -> None:
    config.addinivalue_line("markers", "exhaustive: runs with --all only")
    config.stash[LEFT_OUT] = 0


def exhaustive(item) -> bool:
    """Whether the test runs with --all only: it is marked so, opens a browser or runs a copied course."""
    return bool(item.get_closest_marker("exhaustive") or {"browser", "course"} & {*item.fixturenames})


def pytest_collection_modifyitems(config, items: list) -> None:
    """The longest tests first, so that no process is left with one at the end; the exhaustive ones with
    --all, or called by their names, alone.
    """
    items.sort(key=lambda item: ("walkthrough" not in item.nodeid, "test_08" not in item.nodeid))
    if config.option.all or any("::" in argument for argument in config.args):
        return
    left_out = [item for item in items if exhaustive(item)]
    items[:] = [item for item in items if not exhaustive(item)]
    config.stash[LEFT_OUT] = len(left_out)
    if left_out:
        config.hook.pytest_deselected(items=left_out)


def pytest_sessionfinish(session) -> None:
    """A process of pytest-xdist tells how many it has left out; all leave out the same."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left out"] = session.config.stash[LEFT_OUT]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node) -> None:
    node.config.stash[LEFT_OUT] = getattr(node, "workeroutput", {}).get("left out", 0)


def pytest_terminal_summary(terminalreporter, config) -> None:
    if left_out := config.stash[LEFT_OUT]:
        terminalreporter.write_line(f"{left_out:,} exhaustive tests were left out; pytest --all runs them")


@pytest.fixture(scope="session")
def browser():
    """One for all tests of a process."""
    from browsing import Browser

    browser = Browser()
    yield browser
    browser.driver.quit()


def run_script(script: Path, *options: str, cwd: Path = ROOT, preexec_fn=None, timeout: float = 300,
               **environment: str):
    """The finished process of `python script options`, on one thread, output captured.

    A new interpreter is started only where it has to be another one; otherwise a fork is there sooner.
    """
    together = os.environ | SETTINGS | environment
    if SERVER and not preexec_fn and not environment:
        return run_forked(script, options, cwd, together, timeout)
    return subprocess.run([sys.executable, str(script), *options], cwd=cwd, env=together, capture_output=True,
                          encoding="utf-8", errors="replace", timeout=timeout, preexec_fn=preexec_fn)


def run_lesson(name: str, *options: str, **surroundings):
    """The finished process of `python name.py options`, as run_script() has it."""
    return run_script(ROOT / f"{name}.py", *options, **surroundings)


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


def holds(check) -> None:
    """Fail with the figure and the diagnosis of a check that doesn't hold."""
    finding = check.finding
    assert finding.holds, f"{check.statement} {finding.figure} {finding.diagnosis}"


def assert_diagnosed(checks, hint: str) -> None:
    """Some check fails, and its diagnosis holds the hint."""
    said = {check.finding.diagnosis for check in checks if not check.finding.holds}
    assert hint
    assert any(hint in diagnosis for diagnosis in said), f"said: {said}"


def catalogue(m, part: str) -> dict:
    """Name → mistake, for every mistake of this part of the lesson `m`: one catalogue for all tests."""
    return {**m.GRADED[part].mistakes(m), **m.GRADED[part].more(m)}


def hint_of(m, part: str, words: str) -> str:
    """The hint of the mistake of this name in the catalogue; words that name none are themselves."""
    return catalogue(m, part)[words].hint if words in catalogue(m, part) else words


def assert_caught(m, part_name: str, mistake_name: str) -> None:
    """The mistake fails the statement that it names, and its hint is given there."""
    part, mistake = m.GRADED[part_name], catalogue(m, part_name)[mistake_name]
    assert mistake.hint
    checks = {check.statement: check for check in part(mistake.implementation, m)}
    named = [check for statement, check in checks.items() if statement.startswith(mistake.caught_by)]
    assert named, f"no statement begins with {mistake.caught_by!r}; they are {list(checks)}"
    finding = named[0].finding
    assert not finding.holds, f"{named[0].statement}: it holds"
    assert mistake.hint in finding.diagnosis, f"{named[0].statement}: {finding.figure}; {finding.diagnosis}"


@pytest.fixture
def changed(tmp_path):
    """changed(lesson, old, new) is the lesson as a module, with this text changed in a copy of its file."""
    loaded = []

    def load(name: str, old: str, new: str):
        text = (ROOT / f"{name}.py").read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{text.count(old)} times in {name}: {old}"
        file = tmp_path / f"changed_{len(loaded)}_{name}.py"
        file.write_text(text.replace(old, new), encoding="utf-8")
        spec = importlib.util.spec_from_file_location(file.stem, file)
        module = sys.modules[file.stem] = importlib.util.module_from_spec(spec)
        loaded.append(file.stem)
        spec.loader.exec_module(module)
        return module

    yield load
    for name in loaded:
        del sys.modules[name]


def failures(step, *arguments) -> list[str]:
    """The statements that don't hold in a step, run as the console runs it."""
    tested = common.run_step(step, *arguments).tested
    return [statement for part in tested for statement, finding in part.results if not finding.holds]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A file of four hundred short pairs."""
    from small_pairs import SENTENCES, written

    return written(tmp_path_factory.mktemp("pairs") / "mine.tsv", SENTENCES)


@pytest.fixture
def training(file):
    """Twenty steps on this file."""
    from small_pairs import training_on

    return training_on(file)


@pytest.fixture(scope="session")
def course(tmp_path_factory):
    """A folder with the scripts and what they import alone, as a fresh clone has them, without outputs/."""
    folder = tmp_path_factory.mktemp("course")
    for script in ROOT.glob("*.py"):
        shutil.copy(script, folder)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def run_as_documented(name: str, course: Path, timeout: float = 600):
    """The finished walkthrough, run as the QUICKSTART says: all checks hold, all figures are there.

    The figures made are those that the console names, they are committed, and none is blank.
    """
    before = pictures_in(course / "outputs")
    process = subprocess.run(
        [sys.executable, f"{name}.py", "--pause"], cwd=course, input="\n" * 30, capture_output=True,
        env=os.environ | SETTINGS, encoding="utf-8", timeout=timeout,
    )
    assert process.returncode == 0, process.stdout[-2000:] + process.stderr
    assert process.stderr == ""
    held, total = re.search(r"(\d+) of (\d+) checks hold", process.stdout).groups()
    assert held == total
    named = set(re.findall(r"outputs/([\w-]+\.png)", process.stdout))
    for page in (f"{name}.html", "index.html", "glossary.html"):
        found = assert_sound(course / "outputs" / page)
        assert page != f"{name}.html" or len(found.all("li", class_="fine")) == int(total)
    assert_shown_before(name, course / "outputs" / f"{name}.html")
    assert process.stdout.splitlines()[-1] == (course / "outputs" / f"{name}.html").resolve().as_uri()
    after = pictures_in(course / "outputs")
    assert after.keys() - before.keys() == named
    assert all(after.values()), after
    assert named <= set(pictures_in(ROOT / "outputs"))
    return process


@contextmanager
def torch_dropouts(monkeypatch):
    """Inside `with`, a list of what drops anything: ((“sum” or “weights”, places, width), share) in order."""
    seen = []
    plain, attend = torch.nn.functional.dropout, torch.nn.functional.scaled_dot_product_attention

    def dropout(x, p=0.5, training=True, inplace=False):
        if training and p:
            seen.append((("sum", *x.shape[-2:]), p))
        return plain(x, p, training, inplace)

    def attention(query, key, value, attn_mask=None, dropout_p=0.0, *others, **named):
        if dropout_p:
            seen.append((("weights", query.shape[-2], key.shape[-2]), dropout_p))
        return attend(query, key, value, attn_mask, dropout_p, *others, **named)

    with monkeypatch.context() as patch:
        patch.setattr(torch.nn.functional, "dropout", dropout)
        patch.setattr(torch.nn.functional, "scaled_dot_product_attention", attention)
        yield seen

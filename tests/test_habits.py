"""What the README promises to a fresh clone, and whether CI does it: commands, requirements, workflows."""

import ast
import os
import re
import shutil
import subprocess
import sys
from course.console.startup import REQUIREMENTS

import pytest
import yaml
from conftest import PACKAGES, ROOT
from test_house import FILES, imports_in, place_of, tree_of

WORKFLOWS = {path.name: yaml.safe_load(path.read_text(encoding="utf-8"))
             for path in sorted((ROOT / ".github" / "workflows").glob("*.yml"))}
JOBS = {f"{file}, {name}": job for file, flow in WORKFLOWS.items() for name, job in flow["jobs"].items()}
every_job = pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
MODULE = {"pyyaml": "yaml", "pytest-xdist": "xdist", "performer-pytorch": "performer_pytorch",
          "local-attention": "local_attention"}  # where a package has another name than its module


def text(file):
    return (ROOT / file).read_text(encoding="utf-8")


def blocks(file, language):
    """The code blocks of a Markdown file."""
    return [block.strip() for block in re.findall(rf"```{language}\n(.*?)```", text(file), re.DOTALL)]


def commands(job):
    """What the steps of a workflow's job run."""
    return [step["run"].strip() for step in job["steps"] if "run" in step]


def required(file):
    """Package → its versions, as a line says them; with those of the files that it includes."""
    found = {}
    for line in text(file).splitlines():
        if line.startswith("-r "):
            found |= required(line.removeprefix("-r "))
        else:
            name = re.match(r"[\w-]+", line)[0]
            found[MODULE.get(name, name)] = line.removeprefix(name)
    return found


def packages_in(*places):
    """The packages of others that files in these places import, also with pytest.importorskip()."""
    found = set()
    for file, path in FILES.items():
        if place_of(path) in places:
            tree = tree_of(file)
            found |= {module.partition(".")[0] for module, _ in imports_in(tree) if module[0] != "."}
            found |= {call.args[0].value for call in ast.walk(tree)
                      if isinstance(call, ast.Call) and getattr(call.func, "attr", "") == "importorskip"}
    ours = {path.stem for path in FILES.values()} | {path.parent.name for path in FILES.values()}
    return found - ours - sys.stdlib_module_names - {"tomllib"}  # Python 3.10 has none


SMALL, TRAINS, TESTS = (block for block in blocks("README.md", "sh") if block.startswith("python3 -m venv"))


# ------------------------------------------------------------------ requirements


def test_a_learner_installs_what_the_lessons_import_and_nothing_else():
    rooms = {place_of(path) for path in FILES.values()} - {"benchmarks", "tests"}
    assert packages_in(*rooms) == {*required("requirements.txt")} == {*REQUIREMENTS}


def test_what_the_tests_import_is_required_for_them():
    """xdist is an option of pytest. Tests of browsers and notebooks, and those against other packages' models
    and attentions, are skipped without their packages.
    """
    needed = packages_in("tests") | {"xdist"}
    optional = {"selenium", "pypdf", "ipykernel", "nbclient", "nbformat", "peft", "transformers",
                "performer_pytorch", "local_attention"}
    assert needed - optional <= {*required("requirements-tests.txt")}
    assert {*required("requirements-tests.txt")} <= needed | {*required("requirements.txt")}
    assert needed <= {*required("requirements-dev.txt")}


def test_each_command_of_the_readme_sets_up_all_that_it_runs():
    begin, run = "python3 -m venv .venv && .venv/bin/python -m pip install -r ", " && .venv/bin/python "
    assert f"{begin}requirements.txt{run}05_mini_transformer.py" == TRAINS
    assert f"{begin}requirements-tests.txt{run}-m pytest" == TESTS


def test_the_small_install_brings_a_pytorch_that_the_lessons_take():
    bound = required("requirements.txt")["torch"].partition(",")[2]
    assert f'pip install "torch{bound}" --index-url https://download.pytorch.org/whl/cpu' in SMALL


def test_the_oldest_python_is_the_same_everywhere():
    assert 'requires-python = ">=3.10"' in text("pyproject.toml")
    assert "You need Python 3.10 or newer" in text("README.md")


# ------------------------------------------------------------------ CI


@pytest.mark.skipif(os.name == "nt", reason="needs sh")
def test_ci_takes_its_command_from_the_readme():
    line = re.search(r"^command=.*$", text(".ci/run"), re.MULTILINE)[0]
    found = subprocess.run(["sh", "-c", f'{line}\nprintf %s "$command"'], cwd=ROOT, capture_output=True,
                           encoding="utf-8")
    assert (found.stdout, found.stderr) == (TESTS, "")


def test_ci_lints_then_runs_the_command_then_all_tests():
    script = text(".ci/run")
    places = [script.index(part) for part in ('ruff" check .', 'codespell"', 'mypy"', 'sh -c "$command"',
                                              "requirements-dev.txt", "-m pytest --all")]
    assert places == sorted(places)
    assert os.name == "nt" or os.access(ROOT / ".ci" / "run", os.X_OK)


def test_linux_runs_ci_and_the_other_systems_the_documented_commands():
    jobs = WORKFLOWS["tests.yml"]["jobs"]
    assert ".ci/run" in commands(jobs["linux"])
    assert [run for run in commands(jobs["macos"]) if "venv &&" in run] == [TRAINS, TESTS]
    assert commands(jobs["windows"]) == blocks("QUICKSTART.md", "powershell")[0].splitlines()


def test_the_oldest_and_the_newest_versions_are_tried():
    oldest, newest = WORKFLOWS["tests.yml"]["jobs"]["versions"]["strategy"]["matrix"]["include"]
    above = newest["torch"].split(".")
    assert required("requirements.txt")["torch"] == f">={oldest['torch']},<{above[0]}.{int(above[1]) + 1}"
    assert oldest["python"] == "3.10"


@every_job
def test_a_job_is_whole(job):
    assert job["runs-on"].endswith("-latest")
    assert all(("run" in step) != ("uses" in step) for step in job["steps"])
    flow = next(flow for flow in WORKFLOWS.values() if job in flow["jobs"].values())
    assert job.get("needs", next(iter(flow["jobs"]))) in flow["jobs"]


@every_job
def test_what_a_job_runs_is_there_and_can_be_read(job):
    for run in commands(job):
        named = re.findall(r"(?<![\w/-])(?:[\w.-]+/)*\w[\w-]*\.(?:py|txt)\b", run)
        assert all((ROOT / file).is_file() for file in named), run
        if shutil.which("sh") and not job["runs-on"].startswith("windows"):
            assert subprocess.run(["sh", "-n", "-c", run]).returncode == 0, run


def test_the_site_holds_a_page_of_every_lesson():
    build = commands(WORKFLOWS["pages.yml"]["jobs"]["build"])
    loop = next(run for run in build if "for lesson" in run)
    assert "[0-9][0-9]_*.py" in loop
    assert "--outputs site" in loop
    assert "--no-" not in loop  # pages with their code
    assert next(step["with"]["path"] for step in WORKFLOWS["pages.yml"]["jobs"]["build"]["steps"]
                if "upload-pages-artifact" in step.get("uses", "")) == "site"


# ------------------------------------------------------------------ contributing


def test_contributing_names_files_that_are_there():
    said = text("CONTRIBUTING.md")
    assert "[CONTRIBUTING](CONTRIBUTING.md)" in text("README.md")
    links = [link.partition("#")[0] for link in re.findall(r"\]\((?!http)([^)]+)\)", said)]
    named = re.findall(r"(?<![\w/])(?:[a-z.]+/)*\w[\w-]*\.(?:py|txt|json|toml)\b", said)
    missing = {name for name in [*links, *named] if not (ROOT / name).exists()}
    assert missing == {"NN_name.py", "checks/name.py", "figures/name.py", "course/study/lesson_NN.py"}


def test_contributing_lists_every_folder():
    rows = re.findall(r"^\| `([\w/]+)` \|", text("CONTRIBUTING.md"), re.MULTILINE)
    rooms = [path.parent.name for path in ROOT.glob("course/*/__init__.py")]
    assert sorted(rows) == sorted([*(f"{name}/" for name in (*PACKAGES, "benchmarks", "tests")), *rooms])


def test_mutmut_finds_what_it_needs():
    settings = pytest.importorskip("tomllib").loads(text("pyproject.toml"))["tool"]["mutmut"]
    assert {*settings["also_copy"]} == {"common.py", *PACKAGES}
    for file in settings["source_paths"] + settings["pytest_add_cli_args_test_selection"]:
        assert (ROOT / file).is_file()


# ------------------------------------------------------------------ progress


def test_the_course_says_what_is_done(tmp_path):
    """`python -m course` and `python common.py` say the same."""
    said = [subprocess.run([sys.executable, *script, "--outputs", tmp_path], cwd=ROOT, capture_output=True,
                           encoding="utf-8", env=os.environ | {"PYTHONIOENCODING": "utf-8"})
            for script in (["-m", "course"], ["common.py"])]
    assert [(done.returncode, done.stderr) for done in said] == [(0, "")] * 2
    assert said[0].stdout == said[1].stdout
    assert said[0].stdout.splitlines()[-1] == "Next: python 00_foundations.py"

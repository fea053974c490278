"""Every command that README, QUICKSTART and the lessons' last steps name runs to its end with exit code 0.

They are read out of these texts, so that none can be forgotten: lines of code blocks, code within sentences,
and options that a last step names. What trains for long makes twenty updates here; whole walkthroughs are run
by the tests of the lessons.
"""

import inspect
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
from byte_pieces import write_byte_pieces
from calling import called, parser_of
from conftest import LESSONS, ROOT, SETTINGS
from small_pairs import SENTENCES, written

from checks.published import CONFIGS
from common import lesson
from course.published.loading import write_random
from course.study.lessons import number_of, study_of

PYTHON = re.compile(r"(\.venv[/\\](bin|Scripts)[/\\])?(python3?|py) ")
TORCHRUN = re.compile(r"(\.venv[/\\](bin|Scripts)[/\\])?torchrun ")
SCRIPT = re.compile(r"\d\d_\w+\.py")
SET_UP = "venv", "pip", "pytest"
STANDS_FOR = {"NAME": "1", "N": "2", "DIR": "folder", "FOLDER": "folder", "FILE": "mine.py",
              "FILE.tsv": "my_pairs.tsv", "TEXT": "words"}
ELSEWHERE = {  # what isn't run here, and why
    "--columns": "needs a file with such columns: test_08_pairs.py",
    "--from": "needs a trained model: test_base.py",
    "--valid": "needs files of pairs: test_08_pairs.py",
    "--test": "needs files of pairs: test_08_elsewhere.py",
    "--watch": "ends with Ctrl-C only: test_watching.py",
    "--resume": "needs a training that was interrupted: test_walkthroughs.py",
    "--d-model 512": "minutes for each update without a GPU: it is only parsed",
    "tests/showing.py": "what it writes is the reference of the tests",
}
UPDATES = "20"
SHOWS = {"10_architectures": "reading", "11_efficient_attention": "recall"}  # the step that an option changes
Command = tuple[str, ...]


@cache
def options_of(name: str) -> dict:
    """Option → its argparse action."""
    return {option: action for action in parser_of(name)._actions for option in action.option_strings}


def accepts(name: str, *options: str) -> bool:
    try:
        with redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()):
            parser_of(name).parse_args(options)
    except SystemExit as ended:
        return ended.code == 0  # --help
    return True


def phrases(text: str, name: str) -> Iterator[Command]:
    """Options of the lesson that stand side by side, with their values; any other word ends a phrase."""
    words, phrase = iter([*re.findall(r'"[^"]*"\S*|\S+', text), ""]), []
    for word in words:
        action = options_of(name).get(word.strip("(.,;:)"))
        if action:
            phrase.append(word.strip("(.,;:)"))
            if action.nargs != 0:
                word = "" if word[-1] in ".,;:)" else next(words)
                phrase.append(word.rstrip(".,;:)").strip('"'))
            if phrase[-1] in ("", "with"):  # only named, or “with its name”
                phrase = []
        if phrase and (not action or word[-1:] in (*".,;:)", "")):
            yield tuple(phrase)
            phrase = []


def as_command(line: str) -> Command | None:
    """What follows `python` in a line of a code block or in code within a sentence; otherwise None."""
    line = TORCHRUN.sub("python -m torch.distributed.run ", line.strip())
    if SCRIPT.match(line):
        line = f"python {line}"
    words = shlex.split(line.replace("\\", "/")) if PYTHON.match(line) else []
    return tuple(words[1:]) if words and not {*SET_UP} & {*words} else None


def of_options(line: str) -> Command | None:
    """Options alone belong to the lesson whose file they name, or the first that takes them; else None."""
    words = [STANDS_FOR.get(word, word) for word in line.split()]
    meant = [name for name in LESSONS if study_of(number_of(name)).file in words]
    name = next((name for name in [*meant, *LESSONS] if accepts(name, *words)), None)
    return (f"{name}.py", *words) if name else None


def named_in(path: Path) -> Iterator[Command]:
    """The commands of a Markdown file."""
    text = path.read_text(encoding="utf-8")
    for block in re.findall(r"^```(?:sh|powershell)\n(.*?)^```", text, re.M | re.S):
        yield from filter(None, (as_command(line) for line in re.split(r"\n| && ", block)))
    for code in re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)):
        found = of_options(code) if code.startswith("--") else as_command(code)
        if found and "…" not in code:
            yield found


def named_by(name: str) -> Iterator[Command]:
    """The commands of a lesson's last step: whole ones, and options of its own script."""
    text = " ".join(inspect.getdoc(lesson(name).step_what_next).split())
    place = 0
    for match in [*re.finditer(r"python (\d\d_\w+)\.py", text), None]:
        own = text[place : match.start() if match else len(text)]
        yield from ((f"{name}.py", *phrase) for phrase in phrases(own, name) if accepts(name, *phrase))
        if match:
            place = match.end()
            rest = re.match(r"((?: --?[\w-]+ [\w./=,-]*\w)*)", text[place:])[1]
            yield (f"{match[1]}.py", *rest.split())
            place += len(rest)


def named() -> dict[str, Command]:
    """All commands, in words; whole walkthroughs are left to the tests of the lessons."""
    found = [command for file in ("README.md", "QUICKSTART.md") for command in named_in(ROOT / file)]
    found += [command for name in LESSONS for command in named_by(name)]
    filled = [tuple(STANDS_FOR.get(word, word) for word in command) for command in found]
    return {" ".join(command): command for command in filled
            if not (SCRIPT.match(command[0]) and {*command[1:]} <= {"--pause"})}


NAMED = named()
# The function of the task that the QUICKSTART adds to a file.
TASK = re.search(r"```python\n(def .*?)^TASKS", (ROOT / "QUICKSTART.md").read_text(encoding="utf-8"),
                 re.M | re.S)[1]


def with_company(name: str, words: Command) -> Command:
    """The options, and the one that they go with, as their help says."""
    more = []
    for word in words:
        action = options_of(name).get(word)
        partner = re.match(r"with (--\w+)", action.help or "") if action else None
        if partner and partner[1] not in words:
            more += [partner[1], "mine.py"]
    return (*words, *more)


def small(name: str, words: Command) -> Command:
    """The options, and those that leave a few updates of a training and one step of a walkthrough, if nothing
    else was asked for.
    """
    fewer = ("--steps", UPDATES)
    if "--steps" in words or not accepts(name, *words, *fewer):
        fewer = ()
    if {"--with", "--template", "--grade", "--step", "--list", "--quiz", "--help", "--chat", "--input",
            "--watch", "--hint", "--compare", "--broken", "--export"} & {*words}:
        return (*words, *fewer)
    if "--weights" in words:
        return (*words, *fewer, "--step", "1")  # the only one
    try:
        steps = called(lesson(name), *words).steps
    except SystemExit:  # a task that the text adds to the file
        steps = [step.removeprefix("step_") for step in vars(lesson(name)) if step.startswith("step_")]
    return (*words, *fewer, "--step", "training" if "training" in steps[1:] else SHOWS.get(name, "1"))


def prepare(folder: Path, script: str, words: Command) -> None:
    """The files that the options name: the parts of a lesson as a learner's own, pairs, or random weights."""
    for option, value in pairwise(words):
        if option in ("--grade", "--with"):
            name = next((name for name in LESSONS if study_of(number_of(name)).file == value), script)
            parts = [f"{part} = lesson({name!r}).{part}" for part in lesson(name).GRADED]
            (folder / value).write_text("\n".join(["from common import lesson", *parts]), encoding="utf-8")
        elif option == "--weights":
            write_random(folder / value, CONFIGS["gpt2"])
            write_byte_pieces(folder / value)
        elif option == "--pairs":
            written(folder / value, SENTENCES)
        elif option == "--text":
            (folder / value).write_text("The cat sees the dog.\n" * 200, encoding="utf-8")
        elif option == "--task" and value in TASK:
            file = folder / f"{script}.py"
            text, added = re.subn(r"^(TASKS\b.*?= \{)", rf'{TASK}\1"{value}": {value}, ',
                                  file.read_text(encoding="utf-8"), flags=re.M)
            assert added == 1
            file.write_text(text, encoding="utf-8")


@pytest.mark.exhaustive
@pytest.mark.parametrize("command", NAMED.values(), ids=NAMED)
def test_every_command_named_runs_to_its_end(command, tmp_path, monkeypatch):
    if reason := next((reason for words, reason in ELSEWHERE.items() if words in " ".join(command)), ""):
        pytest.skip(reason)
    folder = shutil.copytree(ROOT, tmp_path / "course", ignore=shutil.ignore_patterns(
        ".*", "__pycache__", "node_modules", "outputs"))
    place = next((number for number, word in enumerate(command) if SCRIPT.fullmatch(word)), None)
    if place is not None:
        name = command[place].removesuffix(".py")
        words = with_company(name, command[place + 1 :])
        prepare(folder, name, words)
        monkeypatch.chdir(folder)
        command = (*command[: place + 1], *small(name, words))
    elif "benchmarks" in " ".join(command):
        command = (*command, *(["--quick"] if "--quick" not in command else []))
    process = subprocess.run([sys.executable, *command], cwd=folder, env=os.environ | SETTINGS, input="",
                             capture_output=True, encoding="utf-8", timeout=1500)
    assert process.returncode == 0, f"{command}: {process.stdout[-2000:]}{process.stderr}"


def test_the_commands_are_found():
    """One of each kind; a text that names others changes this test."""
    for words in ("-m course", "01_attention_mechanism.py --template my_attention.py",
                  "01_attention_mechanism.py --grade my_attention.py", "05_mini_transformer.py --task copy",
                  "-m torch.distributed.run --nproc-per-node 2 05_mini_transformer.py",
                  "00_foundations.py --template my_foundations.py",
                  "02_multi_head_attention.py --grade my_heads.py",
                  "05_mini_transformer.py --norm post --lr 0.01",
                  "05_mini_transformer.py --with my_attention.py --with my_heads.py"):
        assert words in NAMED
    assert not [words for words in NAMED if "pytest" in words or "pip" in words]

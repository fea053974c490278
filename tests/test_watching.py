"""--grade FILE --watch: graded again when the file is saved, a hint on request, and nothing left behind."""

import os
import signal
import subprocess
import sys
import time
from queue import SimpleQueue

import pytest
from conftest import ROOT, one_line_error, run_lesson

from course.grading.watching import state_of, wants_hint
from course.study import progress

BEGUN = "def causal_mask(length, device=None):\n    raise NotImplementedError('causal_mask')\n"
RIGHT = ("import torch\n\n\ndef causal_mask(length, device=None):\n"
         "    return torch.ones(length, length, dtype=torch.bool, device=device).tril()\n")


@pytest.mark.exhaustive
@pytest.mark.skipif(os.name == "nt", reason="processes are counted in /proc or by ps")
def test_saving_grades_again_and_h_gives_a_hint(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(BEGUN, encoding="utf-8")
    command = [sys.executable, ROOT / "01_attention_mechanism.py", "--grade", file, "--watch", "--outputs",
               tmp_path / "out"]
    environment = os.environ | {"PYTHONIOENCODING": "utf-8", "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8", env=environment,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))  # ignored in a job

    def until(word: str) -> str:
        said = []
        for line in process.stdout:
            said.append(line)
            if word in line:
                return "".join(said)
        raise AssertionError(f"no {word!r} in {''.join(said)}")

    try:
        assert "not written yet" in until("Watching:")
        process.stdin.write("h\n")
        process.stdin.flush()
        assert "hint 1 of" in until("Watching:")
        file.write_text(RIGHT, encoding="utf-8")
        again = until("Watching:")
        assert "2 of 2 checks hold" in again
        assert "hint" not in again.partition("Watching")[0]
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.stdout.close()
        process.stdin.close()
    left = subprocess.run(["ps", "-eo", "args"], capture_output=True, encoding="utf-8").stdout
    assert str(file) not in left
    noted = progress.read(tmp_path / "out", print)["01_attention_mechanism"]
    assert noted["graded"] == {"causal_mask": [1, 1]}


def test_watching_needs_something_to_grade():
    assert "--grade" in one_line_error(run_lesson("01_attention_mechanism", "--watch"), 2)


def test_a_file_has_changed_if_its_time_or_its_size_has(tmp_path):
    file = tmp_path / "mine.py"
    assert state_of(file) is None
    states = []
    for text, time_ns in ("a", 10**18), ("ab", 10**18), ("ab", 10**18 + 1000), ("ba", 10**18 + 1000):
        file.write_text(text)
        os.utime(file, ns=(time_ns, time_ns))
        states.append(state_of(file))
    assert states[2] == states[3]
    assert len({*states}) == 3


@pytest.mark.parametrize(("typed", "wanted"), [
    ([], False), (["h"], True), (["", "x"], False), (["h", "x"], True), (["x", "h"], True), (["hh"], False)])
def test_an_h_is_heard_among_other_lines(typed, wanted):
    lines = SimpleQueue()
    for line in typed:
        lines.put(line)
    assert wants_hint(lines) == wanted
    assert lines.empty()

"""Lesson 8's runs: training and resuming, the script's options, and what is asked of a saved model."""

import argparse
import csv
import io
import os
import re
import signal
import subprocess
import sys
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT, run_as_documented, run_lesson
from small_pairs import (
    CPU,
    SENTENCES,
    SMALL,
    five,
    m,
    run_of,
    training_on,
    weights,
    written,
)

from course.console.chat import converse
from course.console.files import unfinished
from course.console.records import EndHere
from course.data import corpus
from course.grading.own import Own
from course.training import threads
from course.training.base import read_base
from course.training.engine import finish, save_run
from course.training.experiment import load_run
from course.training.on_texts import run_name

# the script, in this process


def main(monkeypatch, capsys, *arguments):
    """(exit code, standard output, standard error) of the lesson's main()."""
    monkeypatch.setattr(sys, "argv", ["08_translation.py", *map(str, arguments)])
    monkeypatch.chdir(ROOT)
    code = 0
    try:
        m.main()
    except SystemExit as ended:
        code = ended.code or 0
    return code, *capsys.readouterr()


def options_of(file, folder):
    return ["--pairs", file, "--d-model", "16", "--heads", "2", "--layers", "1", "--steps", "20", "--vocab",
            "60", "--batch-size", "8", "--validate-every", "10", "--warmup", "5", "--outputs", folder]


@pytest.mark.parametrize(("more", "said"), [
    (["--pairs", "missing.tsv"], "No such file or directory: missing.tsv"),
    (["--pairs", "grammar"], "Is a directory: grammar"),
    (["--pairs", "LICENSE"], "LICENSE has no usable pair: 0 pairs; left out"),
    (["--valid", "a.tsv"], "--valid a.tsv goes with --pairs FILE"),
    (["--input", " "], "' ' is empty"),
    (["--d-model", "30"], "d_model 30 does not split into 8 heads"),
    (["--compare", "pairs=a,b"], "pairs=a,b"),
    (["--batch-size", "2", "--accumulate", "3"], "batch_size 2 can't be cut into 3"),
])
def test_bad_options_are_one_line(monkeypatch, capsys, tmp_path, more, said):
    code, output, error = main(monkeypatch, capsys, *more, "--outputs", tmp_path)
    assert (code, output, len(error.splitlines())) == (2, "", 1)
    assert said in error
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def saved(file, tmp_path_factory):
    """The folder of a small trained model."""
    folder = tmp_path_factory.mktemp("saved")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["08_translation.py", *map(str, options_of(file, folder)), "--step",
                                    "training"])
        with pytest.raises(SystemExit) as ended:
            m.main()
    assert ended.value.code == 0
    return folder


@pytest.fixture
def saved_experiment(file, saved):
    """saved_experiment(option=…) is what main() makes of the saved model."""
    def make(**options):
        training = m.TranslationTraining(**m.REAL_PAIRS | {
            "pairs": str(file), "steps": 20, "vocab": 60, "batch_size": 8, "validate_every": 10, "warmup": 5})
        given = SimpleNamespace(device="cpu", outputs=saved, resume=False, threads=1, seed=0, **options)
        return m.TranslationExperiment(replace(SMALL, dropout=0.0), training, given)

    return make


@pytest.fixture
def without_texts(monkeypatch):
    """Nothing may draw sentences or read a file of them."""
    def refuse(*arguments):
        raise AssertionError("the texts were asked for")

    monkeypatch.setattr(corpus, "corpus", refuse)
    monkeypatch.setattr(corpus, "split_files", refuse)


@pytest.mark.parametrize("text", ["The cat sleeps here.", "wug Ottokar", "你好", "🙂👩‍👩‍👧", "a\u0301 \t—",
                                  "the " * 100])
def test_a_sentence_is_answered_from_the_saved_model_alone(monkeypatch, capsys, file, saved, without_texts,
                                                               text, recwarn):
    code, output, error = main(monkeypatch, capsys, *options_of(file, saved), "--input", text)
    assert (code, error) == (0, "")
    assert re.search(r"^\d+ pieces: ", output, re.MULTILINE)
    assert output.count("beam 4") == 4
    assert not recwarn.list  # a character that the font lacks is a box


@pytest.mark.parametrize(("text", "said"), [
    ("the " * 500, r"\d{3,} pieces is too long for a model with max_len 256"),
    ("a\udcff", "half a surrogate pair"),
])
def test_a_sentence_without_answer_is_one_line(monkeypatch, capsys, file, saved, without_texts, text, said):
    code, output, error = main(monkeypatch, capsys, *options_of(file, saved), "--input", text)
    assert code == 2
    assert len(error.splitlines()) == 1
    assert re.search(said, error)
    assert "pieces: " not in output


def test_the_sentence_shown_is_the_decoders_answer(saved_experiment):
    experiment = saved_experiment(input="The cat sleeps here.")
    said, pieces, shown, _ = m.step_your_sentence(experiment)
    assert said.splitlines()[:2] == ["The cat sleeps here.", f"  {shown.texts[0][1]}"]
    assert shown.texts[0][1] == experiment.answers_to(["The cat sleeps here."])[0]
    answers = [row[1] for row in shown.texts[1:]]
    assert answers[0] == experiment.answers_to(["The cat sleeps here."], width=4)[0]
    scores = [float(row[2]) for row in shown.texts[1:]]
    assert scores == sorted(scores, reverse=True)
    assert pieces.replace("|", "").endswith("The cat sleeps here.")


def test_a_longer_answer_than_the_model_has_places_for_is_drawn_cut(file, saved, monkeypatch, capsys):
    """Bytes that are no text become �, which are three bytes each."""
    monkeypatch.setattr(m, "translate", lambda *arguments: ["�" * 256])
    assert main(monkeypatch, capsys, *options_of(file, saved), "--input", "The cat.")[0] == 0


def test_a_pipe_of_lines_is_answered_line_by_line(monkeypatch, capsys, file, saved, without_texts):
    lines = ["The cat sleeps here.", "the " * 500, "你好", "", "never asked"]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(lines)))
    code, output, error = main(monkeypatch, capsys, *options_of(file, saved), "--chat")
    assert (code, error) == (0, "")
    told, *answers = output.split("\n")
    assert told.startswith("Type one or more sentences"), "and no prompt, for nobody types"
    assert len(answers) >= 3
    assert any("too long for a model with max_len 256" in answer for answer in answers[1:])
    assert "never asked" not in output


def chat(monkeypatch, folder, lines, answer):
    monkeypatch.setattr(sys, "stdin", lines if hasattr(lines, "readline") else io.StringIO(lines))
    converse(answer, folder)


def interrupted(line):
    raise KeyboardInterrupt


def lost(line):
    raise BrokenPipeError(32, "Broken pipe")


@pytest.mark.parametrize(("lines", "answer", "code", "said"), [
    ("a\n", interrupted, 130, "interrupted"),
    (io.TextIOWrapper(io.BytesIO(b"a\xff\n"), "utf-8"), str.upper, 1, "the input is not utf-8"),
])
def test_a_conversation_that_fails_ends_in_one_line(monkeypatch, capsys, tmp_path, lines, answer, code, said):
    with pytest.raises(SystemExit) as ended:
        chat(monkeypatch, tmp_path / "new", lines, answer)
    assert ended.value.code == code
    error = capsys.readouterr().err
    assert (len(error.splitlines()), said in error) == (1, True)
    assert (tmp_path / "new").is_dir()  # for a model that is trained first


def test_a_console_without_accents_gets_legible_answers(monkeypatch, tmp_path):
    output = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stdout", output)
    chat(monkeypatch, tmp_path, "a\n", lambda line: "Il rêve… 你")
    said = output.buffer.getvalue().decode("ascii")
    assert "codec" not in said
    assert "Il r" in said


# runs


def experiment_of(training, own=m.NOTHING):
    options = argparse.Namespace(device="cpu", outputs=Path("nowhere"), threads=1)
    return m.TranslationExperiment(SMALL, training, options, own)


def test_a_resumed_run_goes_on_bit_for_bit_from_the_checkpoint_alone(training, tmp_path):
    whole = finish(run_of(training))
    half = run_of(training)
    while len(half.history) < 13:
        half.update()
    save_run(half, tmp_path / "run.pt")
    resumed = load_run(unfinished(tmp_path / "run.pt"), experiment_of(training).remade)
    assert resumed.about == half.about
    finish(resumed)
    assert torch.equal(weights(resumed), weights(whole))
    assert resumed.noted("loss") == whole.noted("loss")
    assert not torch.equal(weights(finish(run_of(replace(training, seed=1)))), weights(whole))


def test_old_pairs_whose_file_has_changed_since_are_not_scored(tmp_path):
    training = training_on(written(tmp_path / "pairs.tsv", SENTENCES))
    save_run(finish(run_of(replace(training, steps=1))), tmp_path / "old.pt")
    base = read_base(tmp_path / "old.pt")
    options = argparse.Namespace(device="cpu", outputs=tmp_path, threads=1, base=base)
    new = m.TranslationExperiment(SMALL, training, options)
    new.run = new.make()
    assert re.search(r"on the old pairs before \d", new.before_and_after(base))
    _ = new.texts.held_out
    Path(training.pairs).write_text("one more\tun de plus\n")
    said = f"on the old pairs unknown: {training.pairs} is gone or changed."
    assert new.before_and_after(base).endswith(said)


def losses(training, steps=4, config=SMALL):
    return finish(run_of(replace(training, steps=steps), config)).noted("loss")


def test_by_hand_and_in_parts_the_first_losses_are_the_same(training):
    config = replace(SMALL, dropout=0.0)
    plain, by_hand, parts = (losses(replace(training, **changes), config=config)
                             for changes in ({}, {"by_hand": True}, {"accumulate": 3}))
    assert by_hand == pytest.approx(plain, abs=1e-4)
    assert by_hand != plain
    assert parts == pytest.approx(plain, abs=1e-4)


def test_bf16_trains_nearly_the_same(training):
    config = replace(SMALL, dropout=0.0)
    plain, coarse = (losses(replace(training, precision=name), config=config) for name in ("fp32", "bf16"))
    assert coarse == pytest.approx(plain, abs=0.05)
    assert coarse != plain


OWN = """
import torch
from torch import nn

def scaled_dot_product_attention(query, key, value, mask=None, dropout=0.0):
    scores = query @ key.mT / query.shape[-1] ** 0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return nn.functional.dropout(torch.softmax(scores, -1).nan_to_num(0.0), dropout) @ value
"""


@pytest.mark.exhaustive
def test_what_a_learner_wrote_is_graded_and_in_the_model(monkeypatch, capsys, tmp_path, file):
    mine = tmp_path / "mine.py"
    mine.write_text(OWN)
    runs, plain = [], m.make_run
    monkeypatch.setattr(m, "make_run", lambda *given: runs.append(plain(*given)) or runs[-1])
    options = [*options_of(file, tmp_path), "--with", mine, "--step", "training"]
    code, output, error = main(monkeypatch, capsys, *options)
    assert (code, error) == (0, "")
    assert "scaled_dot_product_attention" in output
    slots = {module.scaled_dot_product_attention.__module__ for module in runs[-1].model.modules()
             if hasattr(module, "project_query")}
    assert len(slots) == 1
    assert slots != {m.record_attention.__module__, "01_attention_mechanism", "torch.nn.functional"}
    assert runs[-1].finished
    assert len([*tmp_path.glob("checkpoint_*-with-mine-*.pt")]) == 1
    mine.write_text(OWN.replace("** 0.5", "** 1.0"))
    code, output, error = main(monkeypatch, capsys, *options)
    assert code == 1
    assert "divided by d_k" in output
    assert "must pass all its checks before a model can be trained with it" in error


def test_other_parts_than_those_of_a_checkpoint_are_refused(training):
    own = Own({"scaled_dot_product_attention": five.scaled_dot_product_attention}, {"mine.py": "00"})
    run = m.make_run(SMALL, training, CPU, m.Texts(training), own)
    assert experiment_of(training, own).remade(run.about).about == run.about
    with pytest.raises(ValueError, match=r"trained with mine\.py"):
        experiment_of(training).remade(run.about)
    with pytest.raises(ValueError, match="no parts of your own"):
        experiment_of(training, own).remade(run_of(training).about)


def test_a_foreign_checkpoint_and_one_of_other_sizes_are_one_line_and_kept(monkeypatch, capsys, file, saved,
                                                                           tmp_path):
    (there,) = saved.glob("checkpoint_*.pt")
    other = tmp_path / there.name.replace("layers=1", "layers=3")
    for content, said in ((there.read_bytes(), "it holds another run: n_layers is 1"),
                          (b"junk", "not a checkpoint of this lesson")):
        other.write_bytes(content)
        options = [*options_of(file, tmp_path), "--layers", "3", "--input", "a"]
        code, _, error = main(monkeypatch, capsys, *options)
        assert (code, len(error.splitlines())) == (1, 1)
        assert said in error
        assert other.read_bytes() == content


def test_nothing_to_resume_is_one_line(monkeypatch, capsys, file, tmp_path):
    code, output, error = main(monkeypatch, capsys, *options_of(file, tmp_path), "--resume")
    assert (code, output, len(error.splitlines())) == (1, "", 1)
    assert "nothing to resume" in error


@pytest.mark.parametrize(("sizes", "changes", "name"), [
    ({}, {}, "translation"), ({"d_ff": 256}, {}, "translation"),
    ({"d_model": 16}, {}, "translation-d_model=16"),
    ({}, {"seed": 2}, "translation-seed=2"),
    ({}, {"pairs": "a/mine.tsv", **m.REAL_PAIRS}, "translation-pairs=mine.abcdef12"),
    ({"n_layers": 3}, {"pairs": "mine.tsv", **m.REAL_PAIRS}, "translation-pairs=mine.abcdef12-n_layers=3"),
    ({}, {"lr": 0.003}, "translation"), ({}, {"lr": 0.003001}, "translation-lr=0.003001"),
    ({}, {"lr": 0.0030000001}, "translation-lr=0.0030000001"),
])
def test_names_say_what_is_not_the_default(sizes, changes, name):
    texts = m.Texts(m.TranslationTraining(**changes))
    texts.hashes = {"train": "abcdef1234"}
    found = run_name("translation", m.TranslationModel(**sizes), texts.training, texts, m.REAL_PAIRS)
    assert sorted(found.split("-")) == sorted(name.split("-"))


def other_place(file, folder, name="elsewhere.tsv"):
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(file.read_bytes())
    return folder / name


def test_a_run_is_known_by_what_its_file_says(monkeypatch, capsys, file, saved, tmp_path):
    """From another path it is found again; another file of the same name is another run."""
    copy = other_place(file, tmp_path / "a", file.name)
    code, output, error = main(monkeypatch, capsys, *options_of(copy, saved), "--input", "A cat.")
    assert (code, error) == (0, "")
    assert "steps/s" not in output, "nothing was trained"
    other = written(tmp_path / file.name, SENTENCES[:-20])
    names = {m.Texts(training_on(path)).hashes["train"] for path in (file, copy, other)}
    assert len(names) == 2
    assert len({experiment_of(training_on(path)).name for path in (file, copy, other)}) == 2


def test_training_again_keeps_a_finished_run_that_differs(monkeypatch, capsys, file, tmp_path):
    options = [*options_of(file, tmp_path), "--step", "training"]
    assert main(monkeypatch, capsys, *options)[0] == 0
    (path,) = tmp_path.glob("checkpoint_*.pt")
    first = torch.load(path, weights_only=True)["model"]
    code, output, _ = main(monkeypatch, capsys, *options)
    assert (code, len([*tmp_path.glob("checkpoint_*")])) == (0, 1)  # the same weights: nothing is lost
    assert "which is now" not in output
    state = torch.load(path, weights_only=True)
    state["model"]["embedding.weight"] += 1.0
    torch.save(state, path)
    changed = path.read_bytes()
    code, output, _ = main(monkeypatch, capsys, *options)
    aside = path.with_name(path.name + ".1")
    assert (code, aside.read_bytes()) == (0, changed)
    assert "which is now" in output
    assert aside.name in output.replace("\n", "")
    again = torch.load(path, weights_only=True)["model"]
    assert all(torch.equal(first[name], tensor) for name, tensor in again.items())


def test_an_interrupted_model_answers_and_says_so_and_can_still_go_on(monkeypatch, capsys, file, tmp_path,
                                                                       training):
    assert main(monkeypatch, capsys, *options_of(file, tmp_path), "--step", "training")[0] == 0
    (path,) = tmp_path.glob("checkpoint_*.pt")
    state = torch.load(path, weights_only=True)
    state["history"] = state["history"][:12]
    left = unfinished(path)
    torch.save(state, left)
    path.unlink()
    before = left.read_bytes()
    code, output, error = main(monkeypatch, capsys, *options_of(file, tmp_path), "--input", "A cat.")
    assert (code, error) == (0, "")
    assert "This model is unfinished: 12 of 20 steps are done." in " ".join(output.split())
    assert (left.read_bytes(), path.exists()) == (before, False)
    code, output, _ = main(monkeypatch, capsys, *options_of(file, tmp_path), "--resume", "--step", "training")
    assert code == 0
    assert "The interrupted training continues with step 13 of 20." in output
    assert path.exists()


def test_a_run_interrupted_before_its_first_validation_has_no_score(file, tmp_path, monkeypatch):
    """Not “nan%”, which its picture said."""
    options = argparse.Namespace(device="cpu", outputs=tmp_path, threads=1)
    experiment = m.TranslationExperiment(SMALL, training_on(file), options)
    experiment.run, ended = experiment.make(), EndHere("interrupted", 130)
    experiment.run.update()
    monkeypatch.setattr(experiment, "train", lambda: ended)
    assert m.step_training(experiment) is ended


def test_what_is_said_of_pairs_is_true_of_these(monkeypatch, capsys, file, tmp_path):
    code, output, error = main(monkeypatch, capsys, *options_of(file, tmp_path), "--no-page")
    assert (code, error) == (0, "")
    said = " ".join(output.split())
    for wrong in ("next step explains", "second row", "grammar", "300 validation", "Every 250",
                  "less than 10 %"):
        assert wrong not in said, wrong
    assert SENTENCES[0][0].split()[0] in said
    assert "pairs" in said


# --from


def others_of(file, folder):
    """Pairs with other words than those of the first training."""
    return written(folder / "others.tsv", [(source.replace("The", "My"), target.replace("Le", "Mon"))
                                           for source, target in SENTENCES])


def test_a_finished_run_is_trained_on_with_other_pairs_and_kept(monkeypatch, capsys, file, saved, tmp_path):
    (first,) = saved.glob("checkpoint_*.pt")
    before, state = first.read_bytes(), torch.load(first, weights_only=True)
    options = [*options_of(others_of(file, tmp_path), tmp_path), "--from", first]
    begun, plain = [], m.TranslationExperiment.variant
    monkeypatch.setattr(m.TranslationExperiment, "variant",
                        lambda *given: begun.append(weights(run := plain(*given))) or run)
    code, _, error = main(monkeypatch, capsys, *options, "--step", "training")
    assert (code, error) == (0, "")
    assert torch.equal(begun[-1], torch.cat([tensor.flatten() for tensor in state["model"].values()]))
    (second,) = tmp_path.glob("checkpoint_*.pt")
    further = torch.load(second, weights_only=True)
    assert further["about"]["encoding"] == state["about"]["encoding"], "the pieces are those of the model"
    assert {"the", "my"} <= {*further["about"]["met"]["words"].split()}, "both trainings' words were met"
    assert not torch.equal(further["model"]["embedding.weight"], state["model"]["embedding.weight"])
    assert len(further["history"]) == 20
    assert first.read_bytes() == before
    copy = tmp_path / "moved.pt"
    copy.write_bytes(before)
    code, output, error = main(monkeypatch, capsys, *options[:-1], copy, "--input", "My cat.")
    assert (code, error) == (0, "")
    assert "steps/s" not in output, "it is known by what the first checkpoint says, wherever that lies"


@pytest.mark.parametrize(("more", "said"), [
    (["--layers", "2"], "n_layers is 2, but --from"),
    (["--compare", "d_model=16,32"], "d_model is 32, but --from"),
    (["--compare", "vocab=10,20"], "vocab is 10, but --from"),
])
def test_what_a_finished_run_keeps_is_one_line(monkeypatch, capsys, file, saved, tmp_path, more, said):
    (first,) = saved.glob("checkpoint_*.pt")
    code, output, error = main(monkeypatch, capsys, *options_of(file, tmp_path), "--from", first, *more)
    assert (code, output, len(error.splitlines())) == (2, "", 1)
    assert said in error


def test_nothing_is_begun_with_what_is_no_run_on_texts(monkeypatch, capsys, file, saved, tmp_path):
    (first,) = saved.glob("checkpoint_*.pt")
    state = torch.load(first, weights_only=True)
    about = {name: value for name, value in state["about"].items() if name != "encoding"}
    torch.save(state | {"about": about}, tmp_path / "other.pt")
    for path, said in ((tmp_path / "other.pt", "holds no pieces: it wasn't trained on texts"),
                       (ROOT / "LICENSE", "not a checkpoint of this lesson"), ("nowhere.pt", "nowhere.pt")):
        code, output, error = main(monkeypatch, capsys, *options_of(file, tmp_path), "--from", path)
        assert (code, output, len(error.splitlines())) == (2, "", 1)
        assert said in error


def state_of(folder):
    (path,) = folder.glob("*.pt")
    return torch.load(path, weights_only=True)


@pytest.mark.exhaustive
def test_ctrl_c_ends_in_one_line_and_resume_is_as_if_never_interrupted(file, tmp_path):
    """The script in a process of its own, and SIGINT after its first validation."""
    options = [*map(str, options_of(file, tmp_path / "cut")), "--step", "training", "--dropout", "0.1"]
    options[options.index("--steps") + 1] = "200"
    process = subprocess.Popen([sys.executable, str(ROOT / "08_translation.py"), *options], encoding="utf-8",
                               env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
    for line in process.stdout:
        if "validation loss" in line:
            process.send_signal(signal.SIGINT)
            break
    _, error = process.communicate(timeout=300)
    assert process.returncode == 130
    assert len(error.strip().splitlines()) == 1
    assert re.search(r"interrupted after step \d+ of 200; .*--resume", error)
    (left,) = (tmp_path / "cut").glob("*.unfinished")
    assert 0 < len(torch.load(left, weights_only=True)["history"]) < 200
    for folder, more in ((tmp_path / "cut", ["--resume"]), (tmp_path / "whole", [])):
        again = run_lesson("08_translation", *options, "--outputs", str(folder), *more)
        assert again.returncode == 0, again.stderr
    one, other = state_of(tmp_path / "cut"), state_of(tmp_path / "whole")
    assert all(torch.equal(one["model"][name], tensor) for name, tensor in other["model"].items())
    assert [record["loss"] for record in one["history"]] == [record["loss"] for record in other["history"]]
    assert not list((tmp_path / "cut").glob("*.unfinished"))


def test_ctrl_c_while_a_conversation_trains_its_model_is_one_line(monkeypatch, capsys, file, tmp_path):
    monkeypatch.setattr("course.training.engine.interruptible", lambda: nullcontext(lambda: True))
    monkeypatch.setattr(sys, "stdin", io.StringIO("The cat.\n"))
    code, _, error = main(monkeypatch, capsys, *options_of(file, tmp_path / "new"), "--chat")
    assert (code, error) == (130, "08_translation.py: interrupted\n")
    assert [path.suffix for path in (tmp_path / "new").iterdir()] == [".unfinished"]


@pytest.mark.exhaustive
def test_two_processes_train_like_one(file, tmp_path):
    options = [*map(str, options_of(file, tmp_path / "two")), "--step", "training", "--steps", "5"]
    two = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
         str(ROOT / "08_translation.py"), *options, "--dropout", "0"],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, encoding="utf-8", timeout=600,
    )
    assert two.returncode == 0, two.stderr
    assert two.stdout.count("Training\n---") == 1
    state = state_of(tmp_path / "two")
    config, training = (kind(**state["about"][name]) for kind, name in (
        (m.TranslationModel, "config"), (m.TranslationTraining, "training")))
    one = finish(run_of(training, config))
    assert [record["loss"] for record in state["history"]] == pytest.approx(one.noted("loss"), abs=1e-5)
    apart = {name: (tensor - one.model.state_dict()[name]).abs().max().item()
             for name, tensor in state["model"].items()}
    idle = "cross_attention.project_key.bias"  # its gradient is 0 but for rounding, which Adam makes large
    assert {name: most for name, most in apart.items() if most > 1e-5 and idle not in name} == {}


# threads


@pytest.fixture
def started(training):
    """A run after three steps, so that its optimiser has a state."""
    run = run_of(training)
    for _ in range(3):
        run.update()
    return run


def all_of(run):
    states = [value for state in run.optimizer.state.values() for value in state.values()]
    return [*run.model.state_dict().values(), *filter(torch.is_tensor, states)]


@pytest.mark.parametrize("faster", [1, 2])
def test_a_trial_of_threads_leaves_the_run_as_it_was(training, started, monkeypatch, faster):
    before, history = [tensor.clone() for tensor in all_of(started)], [dict(one) for one in started.history]
    clock, used = [0.0], []

    def counted():  # a gradient takes 1 s with the threads that should be chosen, else 2
        return clock[0]

    plain = started.backward

    def backward(step):
        used.append(torch.get_num_threads())
        clock[0] += 1 if torch.get_num_threads() == faster else 2
        return plain(step)

    monkeypatch.setattr(started, "backward", backward)
    monkeypatch.setattr(threads.time, "perf_counter", counted)
    monkeypatch.setattr(threads, "MOST", 2)
    was = torch.get_num_threads()
    with threads.threads_for(started, None) as chosen:
        assert (chosen, torch.get_num_threads()) == (faster, faster)
    assert torch.get_num_threads() == was
    assert {*used} == {1, 2}
    assert all(torch.equal(tensor, old) for tensor, old in zip(all_of(started), before, strict=True))
    assert started.history == history
    assert all(parameter.grad is None for parameter in started.model.parameters())
    monkeypatch.undo()
    finish(started)
    assert torch.equal(weights(started), weights(finish(run_of(training))))


def test_several_threads_are_given_up_after_one_gradient_that_is_far_too_slow(started, monkeypatch):
    clock, used, plain = [0.0], [], started.backward

    def backward(step):
        used.append(torch.get_num_threads())
        clock[0] += 100 if torch.get_num_threads() > 1 else 1
        return plain(step)

    monkeypatch.setattr(started, "backward", backward)
    monkeypatch.setattr(threads.time, "perf_counter", lambda: clock[0])
    was = torch.get_num_threads()
    assert threads.tried(started, 2) == 1
    torch.set_num_threads(was)
    assert used.count(2) == 1


def test_threads_that_were_asked_for_are_taken_and_put_back_whatever_happens(started, monkeypatch):
    monkeypatch.setattr(started, "backward", None)  # nothing is tried
    was = torch.get_num_threads()
    with suppress(KeyError), threads.threads_for(started, 3) as chosen:
        assert (chosen, torch.get_num_threads()) == (3, 3)
        raise KeyError
    assert torch.get_num_threads() == was
    with threads.threads_for(finish(run_of(started.settings)), None) as chosen:
        assert chosen == 1


# the walkthrough


def test_walkthrough_agrees_with_its_checks_and_figures(course):
    """Minutes of one core: no other test runs it."""
    process = run_as_documented("08_translation", course, timeout=1800)
    with (course / "outputs" / "translation_history.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    said = " ".join(process.stdout.split())
    assert f"BLEU, validation {float(rows[-1]['bleu']):.1f} exact match, validation" in said
    assert f"After {len(rows):,} steps {float(rows[-1]['exact_match']):.0%} of the validation" in said
    assert float(rows[-1]["exact_match"]) > 0.88

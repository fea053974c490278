"""Lesson 7's runs: pairs from files, training and resuming, what is asked of a saved model, and its measures."""

import io
import os
import random
import re
import signal
import subprocess
import sys
from collections import Counter
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT, holds, one_line_error, run_as_documented, run_lesson
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from checks.alignment import partners, partners_found, places, word_weights
from common import lesson
from course import threads
from course.chat import converse
from course.console import EndHere
from course.engine import finish, save_run
from course.experiment import load_run
from course.keeping import unfinished
from course.own import Own
from course.pairs import apart_from, by_source, read_pairs
from grammar.sentences import PHENOMENA, Pair

m, five = lesson("07_translation"), lesson("05_mini_transformer")
CPU = torch.device("cpu")
SMALL = m.TranslationModel(d_model=16, n_heads=2, n_layers=1, dropout=0.1)
NOUNS = {"cat": "chat", "dog": "chien", "book": "livre", "tree": "pommier", "king": "roi", "wall": "mur",
         "boat": "bateau", "train": "train"}
VERBS = {"sleeps": "dort", "falls": "tombe", "waits": "attend", "dreams": "rêve", "smiles": "sourit"}
HOWS = {"here": "ici", "now": "maintenant", "often": "souvent", "there": "là", "today": "aujourd'hui",
        "late": "tard", "early": "tôt", "well": "bien", "alone": "seul", "again": "encore"}
SENTENCES = [(f"The {noun} {verb} {how}.", f"Le {NOUNS[noun]} {VERBS[verb]} {HOWS[how]}.")
             for noun in NOUNS for verb in VERBS for how in HOWS]


def written(path, pairs, more="", ending="\n"):
    """The file, with a pair a line."""
    path.write_bytes("".join(f"{source}\t{target}{more}{ending}" for source, target in pairs).encode())
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return written(tmp_path_factory.mktemp("pairs") / "mine.tsv", SENTENCES)


@pytest.fixture
def training(file):
    return m.TranslationTraining(pairs=str(file), steps=20, batch_size=8, warmup=5, vocab=60,
                                 validate_every=10, lr=0.01)


def run_of(training, config=SMALL):
    return m.make_run(config, training, CPU, m.Texts(training))


def weights(run):
    return torch.cat([tensor.flatten() for tensor in run.model.state_dict().values()])


def sources(pairs):
    """Without case and marks."""
    return {"".join(filter(str.isalnum, pair[0].lower())) for pair in pairs}


# pairs from files


def test_an_export_as_tatoebas_is_read(tmp_path):
    """Three columns, BOM, CRLF, curly quotes, a no-break space before the question mark."""
    path = tmp_path / "fra.txt"
    text = ("\ufeffGo.\tVa !\tCC-BY 2.0 (France) Attribution: tatoeba.org #1 (CM) & #2 (sacredceltic)\r\n"
            "Go.\tBouge !\tCC-BY 2.0\r\n"
            "“Is it Tom’s?”\t«\u00a0Est-ce à Tom\u202f?\u00a0»\tCC-BY 2.0\r\n")
    path.write_bytes(text.encode())
    lines = read_pairs(path, 100)
    assert lines.pairs == [("Go.", "Va !"), ("Go.", "Bouge !"),
                           ("“Is it Tom’s?”", "«\u00a0Est-ce à Tom\u202f?\u00a0»")]
    assert lines.account() == "3 pairs"
    encoding = m.BytePairEncoding.learn(["Est-ce"], 5)
    assert encoding.decode(encoding.encode(lines.pairs[2][1])) == lines.pairs[2][1]


def test_unusable_lines_are_counted_and_the_first_named(tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_bytes(b"a\tb\n\nno tab\n\xff\tb\nc\t \n\td\nalso none\n" + b"w " * 101 + b"\tx\ne\tf\n   \n")
    lines = read_pairs(path, 100)
    assert lines.pairs == [("a", "b"), ("e", "f")]
    assert lines.left_out == {"without a tab": [3, 7], "not UTF-8": [4], "with an empty side": [5, 6],
                              "longer than 100 words": [8]}
    assert lines.account() == (
        "2 pairs; left out 2 without a tab (first: line 3); left out 1 not UTF-8 (first: line 4); left out "
        "2 with an empty side (first: line 5); left out 1 longer than 100 words (first: line 8)")
    assert len(read_pairs(path, 101).pairs) == 3
    assert read_pairs(path, 100, most=1) == ([("a", "b")], {})


@pytest.mark.parametrize("content", [b"", b"\n\n", b"one\ntwo\n", "a\tb\n".encode("utf-16"), b"\t\n" * 3])
def test_a_file_without_a_pair_is_one_line(tmp_path, content):
    path = tmp_path / "pairs.tsv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(f"{path} has no usable pair: 0 pairs")) as caught:
        read_pairs(path, 100)
    assert "\n" not in str(caught.value)


VARIANTS = [lambda text: text, str.upper, lambda text: text.replace(".", "!"), lambda text: f"“{text}”",
            lambda text: text.replace("e", "e\u0301")]


@given(st.lists(st.tuples(st.integers(0, 300), st.sampled_from(VARIANTS)), max_size=400))
@settings(max_examples=30)
def test_a_source_is_in_one_split_whatever_its_case_and_marks(drawn):
    pairs = [(variant(f"sentence {number}."), f"translation {line}")
             for line, (number, variant) in enumerate(drawn)]
    splits = by_source(pairs, per_cent=10)
    number_of = {pair: number for pair, (number, _) in zip(pairs, drawn)}
    numbers = {split: [number_of[pair] for pair in found] for split, found in splits.items()}
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        assert not {*numbers[one]} & {*numbers[other]}
    assert {number for found in numbers.values() for number in found} == {number for number, _ in drawn}
    for split in ("validation", "test"):
        assert max(Counter(numbers[split]).values(), default=1) == 1  # asked once
    train = Counter(number for number, _ in drawn if number in {*numbers["train"]})
    assert Counter(numbers["train"]) == train  # every translation is trained


def test_about_so_many_per_cent_are_held_out():
    splits = by_source([(f"sentence {number}", "x") for number in range(20_000)], per_cent=2)
    assert [len(splits[split]) for split in ("validation", "test")] == pytest.approx([400, 400], rel=0.2)


def test_pairs_whose_source_is_held_out_are_left_out_whatever_its_case():
    assert apart_from([("A dog.", "1"), ("a dog", "2"), ("A cat.", "3")], [("a dog!", "x")]) == [("A cat.", "3")]


def test_separate_files_are_taken_and_nothing_of_them_leaks(tmp_path):
    """As Multi30k has them; here a held-out source stands in the training file, in other case, too."""
    long = (" ".join(["word"] * 40), " ".join(["mot"] * 40))
    train = written(tmp_path / "train.tsv", [*SENTENCES, (SENTENCES[0][0].upper(), "x"), long])
    valid = written(tmp_path / "valid.tsv", [*SENTENCES[:30], SENTENCES[0], SENTENCES[40]])
    test = written(tmp_path / "test.tsv", SENTENCES[40:60])
    files = {"pairs": str(train), "valid": str(valid), "test": str(test)}
    texts = m.Texts(m.TranslationTraining(vocab=100, **files))
    splits = {split: [pair[:2] for pair in pairs] for split, pairs in texts.splits.items()}
    assert splits["validation"] == [*SENTENCES[:30], SENTENCES[0]]  # but not what is in the test
    assert splits["test"] == SENTENCES[40:60]
    assert Counter(splits["train"]) == Counter([*SENTENCES[30:40], *SENTENCES[60:], long])
    alone = m.Texts(m.TranslationTraining(vocab=100, pairs=str(train), valid=str(valid))).splits
    found = [sources(alone[split]) for split in ("train", "validation", "test")]
    assert sum(map(len, found)) == len(set().union(*found))
    assert all(found)


def test_max_pairs_takes_training_pairs_alone(training):
    whole, some = (m.Texts(replace(training, max_pairs=most)).splits for most in (0, 50))
    assert some["train"] == whole["train"][:50]
    assert [some[split] for split in ("validation", "test")] == [whole[split] for split in ("validation", "test")]


def test_pairs_of_more_pieces_than_places_are_left_out(tmp_path, training):
    """A language without spaces has few words a sentence, and many characters."""
    letters = "".join(chr(0x4E00 + number) for number in range(300))
    pairs = [(f"{letters[number % 7 :]}{number}", "x") for number in range(5)]
    texts = m.Texts(replace(training, pairs=str(written(tmp_path / "more.tsv", [*SENTENCES, *pairs])), vocab=0))
    assert max(len(pair.source) for pairs in texts.splits.values() for pair in pairs) < 100
    said = " ".join(texts.accounts)
    assert sum(map(int, re.findall(r"left out (\d+) of more than 255 pieces", said))) == 5
    with pytest.raises(ValueError, match="leaves no pair for"):
        _ = m.Texts(replace(training, pairs=str(written(tmp_path / "few.tsv", SENTENCES[:1])))).splits


# the script, in this process


def main(monkeypatch, capsys, *arguments):
    """(exit code, standard output, standard error) of the lesson's main()."""
    monkeypatch.setattr(sys, "argv", ["07_translation.py", *map(str, arguments)])
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as ended:
        m.main()
        sys.exit(0)  # as a script that comes to its end
    return ended.value.code or 0, *capsys.readouterr()


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
        patch.setattr(sys, "argv", ["07_translation.py", *map(str, options_of(file, folder)), "--step",
                                    "training"])
        with pytest.raises(SystemExit) as ended:
            m.main()
    assert ended.value.code == 0
    return folder


@pytest.fixture
def saved_experiment(file, saved):
    """saved_experiment(option=…) is what main() makes of the saved model."""
    def make(**options):
        training = m.TranslationTraining(pairs=str(file), steps=20, vocab=60, batch_size=8, validate_every=10,
                                         warmup=5, label_smoothing=0.1, lr=2e-3)
        given = SimpleNamespace(device="cpu", outputs=saved, resume=False, threads=1, seed=0, **options)
        return m.TranslationExperiment(SMALL, training, given)

    return make


@pytest.fixture
def without_texts(monkeypatch):
    """Nothing may draw sentences or read a file of them."""
    def refuse(*arguments):
        raise AssertionError("the texts were asked for")

    monkeypatch.setattr(m, "corpus", refuse)
    monkeypatch.setattr(m, "read_pairs", refuse)


@pytest.mark.parametrize("text", ["The cat sleeps here.", "wug Ottokar", "你好", "🙂👩‍👩‍👧", "a\u0301 \t—",
                                  "the " * 100])
def test_a_sentence_is_answered_from_the_saved_model_alone(monkeypatch, capsys, file, saved, without_texts,
                                                               text):
    code, output, error = main(monkeypatch, capsys, *options_of(file, saved), "--input", text)
    assert (code, error) == (0, "")
    assert re.search(r"^\d+ pieces: ", output, re.MULTILINE)
    assert output.count("beam 4") == 4


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
    pieces, shown, _ = m.step_your_sentence(experiment)
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
    answers = output.split("> ")[1:]
    assert len(answers) == 4
    assert "too long for a model with max_len 256" in answers[1]
    assert answers[3] == ""


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


def test_a_resumed_run_goes_on_bit_for_bit_from_the_checkpoint_alone(training, tmp_path):
    whole = finish(run_of(training))
    half = run_of(training)
    while len(half.history) < 13:
        half.update()
    save_run(half, tmp_path / "run.pt")
    resumed = load_run(unfinished(tmp_path / "run.pt"), lambda about: m.remake(about, CPU))
    assert resumed.about == half.about
    finish(resumed)
    assert torch.equal(weights(resumed), weights(whole))
    assert resumed.noted("loss") == whole.noted("loss")
    assert not torch.equal(weights(finish(run_of(replace(training, seed=1)))), weights(whole))


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
    plain, coarse = losses(training, config=config), losses(replace(training, precision="bf16"), config=config)
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
    assert "isn't trained with before all of it holds" in error


def test_other_parts_than_those_of_a_checkpoint_are_refused(training):
    own = Own({"scaled_dot_product_attention": five.scaled_dot_product_attention}, {"mine.py": "00"})
    run = m.make_run(SMALL, training, CPU, m.Texts(training), own)
    assert m.remake(run.about, CPU, own).about == run.about
    with pytest.raises(ValueError, match=r"trained with mine\.py"):
        m.remake(run.about, CPU)
    with pytest.raises(ValueError, match="no parts of your own"):
        m.remake(run_of(training).about, CPU, own)


def test_a_foreign_checkpoint_and_one_of_other_sizes_are_one_line_and_kept(monkeypatch, capsys, file, saved,
                                                                           tmp_path):
    (there,) = saved.glob("checkpoint_*.pt")
    other = tmp_path / there.name.replace("layers=1", "layers=2")
    for content, said in ((there.read_bytes(), "it holds another run: n_layers is 1"),
                          (b"junk", "not a checkpoint of this lesson")):
        other.write_bytes(content)
        options = [*options_of(file, tmp_path), "--layers", "2", "--input", "a"]
        code, _, error = main(monkeypatch, capsys, *options)
        assert (code, len(error.splitlines())) == (1, 1)
        assert said in error
        assert other.read_bytes() == content


def test_nothing_to_resume_is_one_line(monkeypatch, capsys, file, tmp_path):
    code, output, error = main(monkeypatch, capsys, *options_of(file, tmp_path), "--resume")
    assert (code, output, len(error.splitlines())) == (1, "", 1)
    assert "nothing to resume" in error


@pytest.mark.parametrize(("sizes", "changes", "name"), [
    ({}, {}, "translation"), ({"d_ff": 512}, {}, "translation"), ({"d_model": 16}, {}, "translation-d_model=16"),
    ({}, {"seed": 2}, "translation-seed=2"),
    (m.FROM_A_FILE[0], m.FROM_A_FILE[1] | {"pairs": "a/mine.tsv"}, "translation-pairs=mine"),
    ({}, {"pairs": "mine.tsv", **m.FROM_A_FILE[1]}, "translation-pairs=mine-dropout=0.0-n_layers=2"),
])
def test_names_say_what_is_not_the_default(sizes, changes, name):
    found = m.run_name(m.TranslationModel(**sizes), m.TranslationTraining(**changes))
    assert sorted(found.split("-")) == sorted(name.split("-"))


def state_of(folder):
    (path,) = folder.glob("*.pt")
    return torch.load(path, weights_only=True)


def test_ctrl_c_ends_in_one_line_and_resume_is_as_if_never_interrupted(file, tmp_path):
    """The script in a process of its own, and SIGINT after its first validation."""
    options = [*map(str, options_of(file, tmp_path / "cut")), "--step", "training", "--dropout", "0.1"]
    options[options.index("--steps") + 1] = "200"
    process = subprocess.Popen([sys.executable, str(ROOT / "07_translation.py"), *options], encoding="utf-8",
                               env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
    for line in process.stdout:
        if "validation loss" in line:
            process.send_signal(signal.SIGINT)
            break
    _, error = process.communicate(timeout=120)
    assert process.returncode == 130
    assert len(error.strip().splitlines()) == 1
    assert re.search(r"interrupted after step \d+ of 200; .*--resume", error)
    (left,) = (tmp_path / "cut").glob("*.unfinished")
    assert 0 < len(torch.load(left, weights_only=True)["history"]) < 200
    for folder, more in ((tmp_path / "cut", ["--resume"]), (tmp_path / "whole", [])):
        again = run_lesson("07_translation", *options, "--outputs", str(folder), *more)
        assert again.returncode == 0, again.stderr
    one, other = state_of(tmp_path / "cut"), state_of(tmp_path / "whole")
    assert all(torch.equal(one["model"][name], tensor) for name, tensor in other["model"].items())
    assert [record["loss"] for record in one["history"]] == [record["loss"] for record in other["history"]]
    assert not list((tmp_path / "cut").glob("*.unfinished"))


def test_ctrl_c_while_a_conversation_trains_its_model_is_one_line(monkeypatch, capsys, file, tmp_path):
    monkeypatch.setattr("course.engine.interruptible", lambda: nullcontext(lambda: True))
    monkeypatch.setattr(sys, "stdin", io.StringIO("The cat.\n"))
    code, _, error = main(monkeypatch, capsys, *options_of(file, tmp_path / "new"), "--chat")
    assert (code, error) == (130, "07_translation.py: interrupted\n")
    assert [path.suffix for path in (tmp_path / "new").iterdir()] == [".unfinished"]


def test_two_processes_train_like_one(file, tmp_path):
    options = [*map(str, options_of(file, tmp_path / "two")), "--step", "training", "--steps", "5"]
    two = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
         str(ROOT / "07_translation.py"), *options, "--dropout", "0"],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, encoding="utf-8", timeout=240,
    )
    assert two.returncode == 0, two.stderr
    assert two.stdout.count("Training\n---") == 1
    state = state_of(tmp_path / "two")
    config, training = (kind(**state["about"][name]) for kind, name in (
        (m.TranslationModel, "config"), (m.TranslationTraining, "training")))
    one = finish(run_of(training, config))
    assert [record["loss"] for record in state["history"]] == pytest.approx(one.noted("loss"), abs=1e-5)
    assert all(torch.allclose(tensor, one.model.state_dict()[name], atol=1e-5)
               for name, tensor in state["model"].items())


# threads


@pytest.fixture
def started(training):
    """A run after three steps, so that its optimiser has a state."""
    run = run_of(training)
    for _ in range(3):
        run.update()
    return run


def all_of(run):
    return [*run.model.state_dict().values(), *(value for state in run.optimizer.state.values()
                                                for value in state.values() if isinstance(value, torch.Tensor))]


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


def test_threads_that_were_asked_for_are_taken_and_put_back_whatever_happens(started, monkeypatch):
    monkeypatch.setattr(started, "backward", None)  # nothing is tried
    was = torch.get_num_threads()
    with pytest.raises(KeyError), threads.threads_for(started, 3) as chosen:
        assert (chosen, torch.get_num_threads()) == (3, 3)
        raise KeyError
    assert torch.get_num_threads() == was
    with threads.threads_for(finish(run_of(started.settings)), None) as chosen:
        assert chosen == 1


# what is measured


def test_validation_is_of_the_whole_set_and_counted_by_hand(training, monkeypatch):
    """Loss as lesson 5's of all pairs in one batch; BLEU and exact match from answers that were put in."""
    texts = m.Texts(replace(training, valid=""))
    texts.splits = {split: [Pair(*pair, (), phenomena, frozenset()) for pair, phenomena in zip(
        SENTENCES, [frozenset(), frozenset({"negation"}), frozenset({"negation", "elision"})] * 80)]
        for split in ("train", "validation")}
    run = m.make_run(SMALL, training, CPU, texts)
    asked = texts.splits["validation"][:300]
    answers = ["Le chat dort ." if row % 4 == 0 else pair.target for row, pair in enumerate(asked)]
    monkeypatch.setattr(m, "translate", lambda model, encoding, sources: answers)
    run.model.train()
    scores = texts.validate(run.model)
    run.model.eval()
    batch = m.make_batch(*texts.encode(asked))
    with torch.no_grad():
        logits = run.model(batch.src, batch.tgt_in)
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), batch.tgt_out.flatten(), ignore_index=0)
    assert scores["validation_loss"] == pytest.approx(loss.item(), abs=1e-5)
    assert scores["validation_loss"] == pytest.approx(five.evaluate(run.model, batch).loss, abs=1e-5)
    right = [answer == pair.target for answer, pair in zip(answers, asked)]
    assert scores["exact_match"] == sum(right) / len(right) == 0.75
    assert scores["bleu"] == m.corpus_bleu(answers, [pair.target for pair in asked]).score
    shares = {name[7:]: score for name, score in scores.items() if name.startswith("right: ")}
    assert shares == {name: share for name, (_, share) in m.by_phenomenon(asked, right).items()}
    assert shares.keys() == {"negation", "elision"}


def test_shares_are_counted_for_each_phenomenon():
    pairs = [Pair("", "", (), frozenset(names), frozenset())
             for names in (["negation"], ["negation", "elision"], [], ["elision"], ["question"])]
    found = m.by_phenomenon(pairs, [True, False, True, False, True])
    assert found == {"negation": (2, 0.5), "elision": (2, 0.0), "question": (1, 1.0)}
    assert [*found] == [name for name in PHENOMENA if name in found]


def test_what_is_held_out_are_300_pairs_by_length_and_answered_without_dropout(training):
    texts = m.Texts(training)
    texts.splits = {"train": [], "validation": [Pair(*pair, (), frozenset(), frozenset()) for pair in SENTENCES]}
    texts.encoding = m.BytePairEncoding.learn([text for pair in SENTENCES for text in pair], 60)
    assert [len(batch.src) for batch in texts.held_out] == [100, 100, 100]
    rows = [texts.encoding.decode(row) for batch in texts.held_out for row in batch.src.tolist()]
    assert Counter(rows) == Counter(source for source, _ in SENTENCES[:300])
    assert [*map(len, rows)] == sorted(map(len, rows))
    for batch in texts.held_out:
        for src, out in zip(batch.src.tolist(), batch.tgt_out.tolist()):
            assert (texts.encoding.decode(src), texts.encoding.decode(out)) in SENTENCES
    config = replace(SMALL, dropout=0.5)
    run = m.make_run(config, training, CPU, texts)
    run.history.append({})
    run.model.train()
    run.validate()
    assert run.model.training
    first = dict(run.scores)
    run.validate()
    assert run.scores == first


# alignment


def test_weights_between_pieces_become_weights_between_words():
    """By hand: “the cat” → “le ch|at”, where the source's “the” is two pieces."""
    pair = Pair("the cat.", "le chat.", ((0, 0), (1, 1), (2, 2)), frozenset(), frozenset())
    source, target = ["th", "e", " cat", "."], ["le", " ch", "at", "."]
    assert places("the cat.", ["the", "cat", "."], source) == [0, 0, 1, 2]
    weights = torch.tensor([[0.1, 0.2, 0.6, 0.1], [0.3, 0.3, 0.4, 0.0], [0.1, 0.1, 0.8, 0.0],
                            [0.0, 0.1, 0.2, 0.7], [9.0, 9.0, 9.0, 9.0]])  # the last is EOS's
    found = word_weights(torch.stack([weights, weights / 2]), pair, source, target)
    wanted = torch.tensor([[0.3, 0.6, 0.1], [0.4, 0.6, 0.0], [0.1, 0.2, 0.7]])
    assert torch.allclose(found, torch.stack([wanted, wanted / 2]))
    assert partners_found(found, pair).tolist() == [2, 2]  # le looks at cat


def test_words_without_a_partner_do_not_count_and_one_of_two_partners_is_enough():
    pair = Pair("I do not sleep.", "je ne dors pas.", ((0, 0), (3, 2), (1, 3), (2, 3), (4, 4)), frozenset(),
                frozenset())
    true = partners(pair)
    assert true.nonzero().tolist() == [[0, 0], [2, 3], [3, 1], [3, 2], [4, 4]]  # ne has none
    weights = torch.eye(5)
    assert partners_found(weights, pair).item() == 2  # je, “.”; dors looks at not, pas at sleep
    weights[3] = torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0])
    assert partners_found(weights, pair).item() == 3


@pytest.mark.parametrize("seed", range(2))
def test_each_row_of_word_weights_still_sums_to_one(seed):
    pair = m.corpus({"train": 1}, seed)["train"][0]
    encoding = m.BytePairEncoding.learn(pair[:2], 5)
    source, target = ([*encoding.texts_of(encoding.encode(text))] for text in pair[:2])
    weights = torch.softmax(torch.randn(3, len(target) + 1, len(source)), -1)
    assert torch.allclose(word_weights(weights, pair, source, target).sum(-1), torch.ones(()), atol=1e-6)


# the walkthrough


def test_walkthrough_agrees_with_its_checks_and_figures(course):
    """Minutes of one core: no other test runs it."""
    process = run_as_documented("07_translation", course)
    assert re.search(r"exact match, validation +9\d\.\d%|exact match, validation +100\.0%", process.stdout)
    assert (course / "outputs" / "history_translation.csv").exists() or [*course.glob("outputs/history*.csv")]

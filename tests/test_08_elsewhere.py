"""Lesson 8's translator outside the course: the exported folder; and scores of scripts without spaces."""

import json
import runpy
import subprocess
import sys
from copy import deepcopy
from dataclasses import asdict, replace

import pytest
import torch
from conftest import SETTINGS
from hypothesis import given
from hypothesis import strategies as st
from small_pairs import CPU, SENTENCES, SMALL, m, training_on, written
from torch import nn

from common import lesson
from course.data.bleu_words import characters, words_for
from course.published import exporting
from course.published.exporting import export, tokenizer
from grammar.sentences import Pair

sacrebleu, tokenizers = pytest.importorskip("sacrebleu"), pytest.importorskip("tokenizers")
WORD, BytePairEncoding = lesson("07_subwords").WORD, lesson("07_subwords").BytePairEncoding


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A small model after some steps, and its texts."""
    training = training_on(written(tmp_path_factory.mktemp("pairs") / "pairs.tsv", SENTENCES))
    texts = m.Texts(training)
    run = m.make_run(replace(SMALL, n_layers=2, activation="relu"), training, CPU, texts)
    for _ in range(training.steps):
        run.update()
    return run.model.eval(), texts.encoding


def exported(folder, trained):
    model, encoding = trained
    return export(folder, model, asdict(model.config), encoding, WORD)


@pytest.mark.parametrize("wild", [pytest.param(False, marks=pytest.mark.exhaustive), True])
def test_the_exported_folder_answers_as_the_lesson_without_the_course(trained, tmp_path, wild):
    """With larger weights each piece depends on all before it."""
    pytest.importorskip("safetensors")
    trained = deepcopy(trained)
    for parameter in trained[0].parameters() if wild else ():
        nn.init.normal_(parameter, std=0.4, generator=torch.Generator().manual_seed(parameter.numel()))
    script = exported(tmp_path / "mine", trained)[-1]
    asked = [source for source, _ in SENTENCES[::40]] + ["Ünknown 猫, twice: the  cat?", "the " * 30, "a", ""]
    found = subprocess.run([sys.executable, "-I", str(script), *asked], cwd=tmp_path, capture_output=True,
                           encoding="utf-8", env=SETTINGS | {"PYTHONUTF8": "1"}, timeout=120)
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout == "".join(f"{answer}\n" for answer in m.translate(*trained, asked))
    found = subprocess.run([sys.executable, "-I", str(script)], capture_output=True, encoding="utf-8",
                           env=SETTINGS | {"PYTHONUTF8": "1"}, timeout=120)
    assert (found.returncode, found.stdout, found.stderr[:21]) == (1, "", "Translate: python loa")
    assert "course" not in script.read_text(encoding="utf-8").replace("of the course", "")


def test_its_numbers_are_those_of_the_model_at_every_place(trained, tmp_path):
    pytest.importorskip("safetensors")
    script = exported(tmp_path, trained)[-1]
    loaded = runpy.run_path(str(script), run_name="load")
    generator = torch.Generator().manual_seed(0)
    src, tgt = (torch.randint(3, len(trained[1]), (1, length), generator=generator) for length in (9, 7))
    with torch.no_grad():
        memory = loaded["stack"]("encoder", src[0].tolist())
        found = loaded["stack"]("decoder", tgt[0].tolist(), memory) @ trained[0].embedding.weight.T
        torch.testing.assert_close(found, trained[0](src, tgt)[0], rtol=0, atol=1e-4)


@given(st.one_of(st.text(), st.text(alphabet="aé ’'_<0x41>pdbos\n\t3²猫")))
def test_the_tokenizers_library_cuts_and_joins_as_lesson_7(text):
    encoding = BytePairEncoding.learn([text for pair in SENTENCES for text in pair], 60)
    read = tokenizers.Tokenizer.from_str(json.dumps(tokenizer(encoding, WORD.pattern)))
    ids = read.encode(text).ids
    assert ids == encoding.encode(text)
    assert read.decode(ids) == text


def test_what_load_does_not_know_and_what_is_somebody_elses_is_refused(trained, tmp_path):
    model, encoding = trained
    with pytest.raises(ValueError, match="supports norm pre, not post"):
        export(tmp_path / "new", model, asdict(replace(model.config, norm="post")), encoding, WORD)
    assert not (tmp_path / "new").exists()
    for name in ("load.py", "model.safetensors", "config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes(b"\xffmine")  # UTF-8 or not
        with pytest.raises(ValueError, match=f"{name} is not from an earlier export"):
            exported(tmp_path, trained)
        assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"\xffmine"]
        (tmp_path / name).unlink()
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")  # doesn't matter
    assert exported(tmp_path, trained) == exported(tmp_path, trained)


def test_an_export_that_was_cut_short_can_be_completed(trained, tmp_path, monkeypatch):
    """By a full disk, say, after the weights."""
    with monkeypatch.context() as patch:
        patch.setattr(exporting, "tokenizer", None)
        with pytest.raises(TypeError):
            exported(tmp_path, trained)
    assert all(path.exists() for path in exported(tmp_path, trained))


JAPANESE = ["猫は寝ている。", "犬は 走る。", "彼は本を読む！", "私は学生です。"]
ANSWERS = ["猫が寝ている。", "犬は走る。", "彼は本を読む！", "学生です。"]


@pytest.mark.parametrize(("references", "cut"), [
    (JAPANESE, "char"), (["แมวนอน", "the"], "char"), (["Le chat dort.", "猫"], "13a"),
    (["고양이가 잔다."], "13a"), (["12 + 3"], "13a"), ([], "13a"),
])
def test_scripts_without_spaces_are_cut_by_character(references, cut):
    assert words_for(references)[0] == cut


def test_bleu_by_character_is_that_of_sacrebleu():
    theirs = sacrebleu.BLEU(tokenize="char")
    found = m.corpus_bleu(ANSWERS, JAPANESE, tokenize=characters)
    assert found.score == pytest.approx(theirs.corpus_score(ANSWERS, [JAPANESE]).score, abs=1e-9)
    pairs = [Pair("", reference, (), frozenset(), frozenset()) for reference in JAPANESE]
    assert m.scored(pairs, ANSWERS) == (0.25, found)
    said, word = m.signature(pairs).split("\n")
    assert str(theirs.get_signature()).startswith(said)
    assert "characters" in word
    assert m.signature([pairs[0]._replace(target="Le chat.")]) == m.SIGNATURE


def test_every_sentence_of_every_test_is_scored_greedily_and_by_a_beam():
    pairs = [Pair(*pair, (), frozenset(), frozenset()) for pair in SENTENCES[:30]]
    tests, asked = {"one": pairs[:20], "two": pairs[20:]}, []

    def answers_to(sources, **options):
        asked.append((len(sources), options))
        return [dict(SENTENCES)[source] if options else "Le chat." for source in sources]

    experiment = type("Experiment", (), {
        "texts": type("Texts", (), {"tests": tests}), "answers_to": staticmethod(answers_to),
        "pairs": staticmethod(lambda: pairs[:20]), "answers": ["Le chat."] * 20})
    shown, signature = m.step_your_score(experiment)
    rows = shown.texts
    assert [(row[0], int(row[1])) for row in rows] == [
        ("one, greedy", 20), ("one, beam 4", 20), ("two, greedy", 10), ("two, beam 4", 10)]
    theirs = sacrebleu.BLEU().corpus_score(["Le chat."] * 20, [[pair.target for pair in tests["one"]]]).score
    assert float(rows[0][3]) == pytest.approx(theirs, abs=0.06)
    assert [float(row[3]) for row in rows[1::2]] == [100, 100]
    assert asked == [(20, {"width": 4}), (10, {}), (10, {"width": 4})]
    assert signature == m.SIGNATURE

"""Lesson 8's --challenge: the set itself, how answers are judged, and what is shown of several runs."""

import re
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from conftest import run_lesson
from small_pairs import SENTENCES, written

from common import lesson
from course.console.records import EndHere
from course.data import challenge
from course.data.challenge import challenges, has_key, in_training, judged, normal
from course.data.splits import gone_or_changed
from course.training import challenge as running
from grammar.sentences import corpus, words_of

m = lesson("08_translation")


def test_there_are_ten_sentences_for_each_of_twenty_phenomena():
    names = [one.phenomenon for one in challenges()]
    assert len({*names}) == 20
    assert all(names.count(name) == 10 for name in names)
    assert len({one.source for one in challenges()}) == 200


@pytest.mark.parametrize("one", challenges(), ids=lambda one: one.source)
def test_good_translations_have_the_key_and_the_typical_mistake_has_not(one):
    for reference in one.references:
        assert has_key(reference, one.keys)
        assert reference[0].isupper()
        assert reference[-1] == one.source[-1]  # . or ?
        assert (" ?" in reference) == ("?" in reference)  # French has a space before it
    assert len({" ".join(normal(reference)) for reference in one.references}) == len(one.references)
    assert not has_key(one.mistake, one.keys)
    assert normal(one.mistake) not in map(normal, one.references)


def test_no_sentence_is_in_the_grammars_training():
    trained = corpus({"train": 60_000, "validation": 300, "test": 1000}, 0)["train"]
    assert not any(in_training(pair.source for pair in trained))
    assert in_training(["A car is green.", challenges()[1].source.upper()]) == [False, True] + [False] * 198


@pytest.mark.parametrize(("key", "has", "lacks"), [
    ("noire", "Une robe noire.", "Une robe noir."),
    ("petite … verte", "La petite voiture est verte.", "La voiture verte est petite."),
    ("petite … verte", "Une petite verte.", "Une petite voiture vert."),
    ("un * noir", "C'est un chien noir.", "Un petit chien noir."),
    ("l'eau", "L’EAU est froide", "la eau"),
    ("n' a pas", "Elle n'a pas faim.", "Elle ne a pas faim."),
    ("dort !est", "Le chat dort.", "Le chat est dort."),
    ("noir !petit noir", "un sac noir", "un petit noir, noir"),
    ("est", "Où est-il ? Il est là.", "Est-ce que tu dors ?"),
    ("est-ce que", "Où est-ce que tu dors ?", "Où est que tu dors ?"),
])
def test_keys(key, has, lacks):
    assert has_key(has, [key])
    assert not has_key(lacks, [key])
    assert has_key(lacks, [key, words_of(lacks)[0]])  # one of several is enough


def test_case_apostrophes_and_full_stops_do_not_count_but_question_marks_do():
    assert normal("L’été  est LÀ !") == normal("l'e\u0301te\u0301 est là.")
    assert normal("Il dort ?") == normal("il dort?") != normal("Il dort.")


def answered(answer_of, met="", words=words_of):
    return judged([answer_of(one) for one in challenges()], met.split(), words)


def test_answers_are_judged():
    best = answered(lambda one: one.references[-1])
    assert all(one.exact and one.key for one in best)
    assert not any(one.exact or one.key for one in answered(lambda one: one.mistake))
    other = answered(lambda one: one.references[0].replace("femme", "dame"))
    assert all(one.key for one in other)  # another noun costs only the exact match
    assert not all(one.exact for one in other)
    assert not any(one.known for one in best)
    known = answered(lambda one: "", "the white door is closed")
    assert [one.known for one in known[:2]] == [True, False]


def some_texts(files, found=None):
    return SimpleNamespace(files=files, found=found, gone_or_changed=partial(gone_or_changed, files))


class Runs:
    """An experiment with three runs, whose `model` is what it answers."""

    default, checkpoint_name = "translation", "checkpoint_translation.pt"

    def __init__(self, folder, monkeypatch):
        self.options, self.checkpoint = SimpleNamespace(outputs=folder), folder / self.checkpoint_name
        self.challenge, self.texts_of = challenge, SimpleNamespace
        self.texts = SimpleNamespace(words_of=words_of, pieces=SimpleNamespace(restored=lambda state: state))
        self.training, self.runs = SimpleNamespace(), {}
        self.add(self.checkpoint_name, lambda one: one.references[0])
        self.add("checkpoint_translation-pairs=mine.1234.pt", lambda one: one.mistake)
        self.add("checkpoint_translation-reverse.pt", lambda one: "", reverse=True)
        self.add("checkpoint_translation-half.pt", lambda one: "", finished=False)
        self.run = self.runs[self.checkpoint_name]
        (folder / "checkpoint_translation-broken.pt").touch()
        monkeypatch.setattr(running, "load_run", self.load)

    def add(self, name, answer_of, finished=True, **training):
        model = torch.nn.Identity()
        model.answer_of = answer_of
        self.runs[name] = SimpleNamespace(model=model, finished=finished, about={
            "encoding": None, "training": training, "met": {"words": challenges()[0].source}})
        (self.options.outputs / name).touch()

    def load(self, path, remake):
        if path.name not in self.runs:
            raise ValueError(f"{path.name} is not a checkpoint")
        return self.runs[path.name]

    def another(self, about):
        raise NotImplementedError

    def translate(self, model, encoding, sources):
        assert sources == [one.source for one in challenges()]
        return [model.answer_of(one) for one in challenges()]


@pytest.fixture
def runs(tmp_path, monkeypatch):
    experiment = Runs(tmp_path, monkeypatch)
    seen = [SimpleNamespace(source=challenges()[5].source)]
    experiment.texts_of = lambda training: some_texts({}, {"train": seen})
    return experiment


def test_runs_are_shown_side_by_side(runs):
    grammar, mine, both, notes = running.step_challenge(runs)
    assert [table.named for table in (grammar, mine)] == ["grammar", "pairs=mine.1234"]
    assert both.header == ("", "grammar", "pairs=mine.1234")
    assert grammar.texts[0] == ["adjective agreement", "", "", "9 of 9", "9 of 9"]  # one was in training
    assert grammar.texts[-1][3:] == ["199 of 199"] * 2
    assert mine.texts[-1][3:] == ["0 of 199"] * 2
    assert "Left out: checkpoint_translation-broken.pt is not a checkpoint" in notes
    assert "grammar: 1 left out that occur in training" in notes


def test_files_that_are_gone_are_said(runs):
    runs.texts_of = lambda training: some_texts({"train": "gone.tsv"})
    grammar, *_, notes = running.step_challenge(runs)
    assert grammar.texts[-1][3:] == ["200 of 200"] * 2
    assert "gone.tsv is gone or changed, so sentences that occur in training can't be left out" in notes


def test_files_that_have_changed_since_are_said(runs, tmp_path):
    (tmp_path / "mine.tsv").write_text("Other sentences.\tD'autres phrases.\n")
    runs.texts_of = lambda training: some_texts({"train": str(tmp_path / "mine.tsv")})
    runs.run.about["files"] = {"train": "the hash of what it was trained on"}
    assert "mine.tsv is gone or changed" in running.step_challenge(runs)[-1]


def test_a_model_that_reads_french_is_not_asked(runs):
    runs.training.reverse = True
    assert running.step_challenge(runs) == EndHere(
        "--challenge asks in English, but a model trained with --reverse reads French", 2)


@pytest.mark.exhaustive
def test_a_run_of_files_and_one_of_the_grammar_answer_together(tmp_path):
    """Each run leaves out the sentences of its own training."""
    known = [(one.source, one.references[0]) for one in challenges()[:7]]
    file = written(tmp_path / "mine.tsv", [*known, *SENTENCES])
    small = ["--d-model", "16", "--heads", "2", "--layers", "1", "--vocab", "50", "--steps", "2",
             "--max-pairs", "300", "--outputs", str(tmp_path)]
    of_files = ["--pairs", str(file), "--columns", "1,2"]
    for options in (of_files, [], of_files):
        process = run_lesson("08_translation", *small, *options, "--challenge", "--no-page")
        said = process.stdout
        assert process.returncode == 0, said + process.stderr
        assert "comparison" in said
        assert "Left out:" not in said
        assert re.search(r"pairs=mine\S+: [1-7] left out that occur in training", said.replace("\n", ""))
    assert "Sentences that have the key" in said

"""Lesson 8 meets what a learner types halfway: sentences, repairs, doubtful words, unsure answers."""

from dataclasses import replace

import pytest
import torch
from small_pairs import SENTENCES, m, run_of, training_on, written

from common import lesson
from course.data.corpus import RARE
from course.training.on_texts import certainties
from course.training.replies import Replies, limit_of, repaired, sentences_in
from grammar.sentences import Pair

MET = {"words": "cat sleeps the dog", "rare": "dog", "untrained": [7], "capital": 1.0, "mark": 1.0,
       "ends": ".?!"}
split_words = lesson("07_subwords").split_words


@pytest.fixture
def training(tmp_path):
    return training_on(written(tmp_path / "pairs.tsv", SENTENCES))


def replies_with(met, limit=0.5):
    """Answers in capitals, not sure of those with a “!”; an X has a piece that no source had."""
    return Replies(str.upper, lambda source, answer: 0.2 if "!" in source else 0.9, split_words,
                   lambda word: [7] if "X" in word else [3], met, limit)


@pytest.mark.parametrize(("line", "wanted"), [
    ("The cat sleeps.", ["THE CAT SLEEPS."]),
    ("The cat sleeps. The cat.", ["THE CAT SLEEPS.", "THE CAT."]),
    ("the  cat", ["THE CAT.", "  (read as “The cat.”)"]),
    ("The wug sleeps.", ["THE WUG SLEEPS.", "  (never met in training: “wug”)"]),
    ("The dog, the Xug and the wug.", ["THE DOG, THE XUG AND THE WUG.", "  (rare in training: “dog”)",
                                       "  (with pieces that no training sentence has: “Xug”)",
                                       "  (never met in training: “and”, “wug”)"]),
    ("The cat!", ["THE CAT!",
                  "  (unsure: 20% per piece on average; nine in ten validation answers have more than 50%)"]),
])
def test_a_reply_says_what_makes_it_doubtful(line, wanted):
    assert replies_with(MET).to(line).split("\n") == wanted


def test_without_anything_met_nothing_is_said_or_repaired():
    assert replies_with({}, 0.0).to("wug !") == "WUG !"


@pytest.mark.parametrize(("line", "wanted"), [
    ("One. Two? Three", ["One.", "Two?", "Three"]), ("Mr. Smith sleeps. He", ["Mr. Smith sleeps.", "He"]),
    ("It is 3.5 high.", ["It is 3.5 high."]), ("One", ["One"]), ("I see Dr. No. ", ["I see Dr. No."]),
    ("i see mr. No. he", ["i see mr. No.", "he"]),
    ("He said “Go!” She went.", ["He said “Go!”", "She went."]),
    ("猫が寝る。犬も。", ["猫が寝る。", "犬も。"]), ("Well... yes", ["Well...", "yes"]), ("", []),
])
def test_sentences_are_split_where_they_end(line, wanted):
    assert sentences_in(line) == wanted


@pytest.mark.parametrize(("sentence", "wanted"), [
    ("the cat", "The cat."), ("The cat?", "The cat?"), ("élan", "Élan."), ("He said “go!”", "He said “go!”"),
    (" a  b ", "A b."), ("cafe\u0301", "Café."), ("Ça va\u202f?", "Ça va\u202f?"),
    ("«\u00a0oui\nnon", "«\u00a0oui non."),
])
def test_a_sentence_gets_what_training_sources_have(sentence, wanted):
    assert repaired(sentence, MET) == wanted
    plain = repaired(sentence, MET | {"capital": 0.5, "mark": 0.5})
    assert plain.casefold() == (wanted if sentence.endswith(("?", "!”")) else wanted[:-1]).casefold()


def test_what_sources_have_in_common_is_counted(training):
    texts = m.Texts(training)
    often = {}
    for pair in texts.splits["train"]:
        for word in split_words(pair.source.lower()):
            often[word.strip()] = often.get(word.strip(), 0) + 1
    used = {id for pair in texts.splits["train"] for id in texts.encoding.encode(pair.source)}
    assert {*texts.met["words"].split()} == {*often}
    assert {*texts.met["rare"].split()} == {word for word, count in often.items() if count <= RARE}
    assert {*texts.met["untrained"]} == {*range(len(texts.encoding))} - used
    assert (texts.met["capital"], texts.met["mark"]) == (1, 1)


def test_what_an_earlier_training_had_counts_as_well(training):
    texts = m.Texts(training)
    after = m.Texts(training, texts.encoding)
    after.splits = {"train": [Pair("the wug cat", "", (), frozenset(), frozenset())]}
    _, *others = {*range(len(texts.encoding))} - {*texts.encoding.encode("the wug cat")}
    after.met_before = {"words": "gnu wug the", "rare": "gnu wug", "untrained": others}
    assert after.met["words"].split() == ["cat", "gnu", "the", "wug"]
    assert after.met["rare"].split() == ["cat", "gnu", "wug"], "“the” was frequent before"
    assert after.met["untrained"] == others


@pytest.mark.parametrize("seed", range(2))
def test_certainty_is_the_mean_probability_per_piece(training, seed):
    run = run_of(replace(training, seed=seed))
    model, encoding = run.model.eval(), m.Texts(training).encoding
    pairs = [("The cat.", "Le chat."), ("The cat sleeps now and then.", "Le chat dort ici et là.")]
    batch = m.make_batch(*([encoding.encode(text) for text in side] for side in zip(*pairs)))
    found = certainties(model, batch)
    for (source, target), sure in zip(pairs, found, strict=True):
        one = m.make_batch([encoding.encode(source)], [encoding.encode(target)])
        with torch.no_grad():
            loss = torch.nn.functional.cross_entropy(model(one.src, one.tgt_in)[0], one.tgt_out[0])
        assert sure == pytest.approx((-loss).exp().item(), abs=1e-6)


def test_a_tenth_lies_below_the_limit():
    values = torch.linspace(0, 1, 300)[torch.randperm(300)].tolist()
    assert sum(value < limit_of(values) for value in values) == 30
    assert limit_of([0.3]) == 0.3


def test_a_validation_notes_the_limit(training):
    run = run_of(training)
    run.update()
    run.validate()
    texts, pairs = m.Texts(training), m.Texts(training).splits["validation"][:300]
    answers = m.translate(run.model.eval(), texts.encoding, [pair.source for pair in pairs])
    with torch.no_grad():
        sure = texts.certainties(run.model, pairs, answers)
    assert run.noted("unsure_below") == [limit_of(sure)]

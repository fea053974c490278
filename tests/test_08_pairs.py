"""Lesson 8's pairs from files, their splits, and what is measured of a model's answers."""

import re
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_pairs import CPU, SENTENCES, SMALL, BytePairEncoding, five, m, written
from torch import nn

from course.data.alignment import (
    found_by_kind,
    is_content,
    is_function,
    partners,
    partners_found,
    places,
    word_weights,
)
from course.data.corpus import files_in, likeness, short_names
from course.data.pairs import LONGEST, read_pairs
from course.data.splits import HELD_OUT, apart_from, by_source, key
from grammar.sentences import PHENOMENA, Pair, by_phenomenon, corpus


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
    encoding = BytePairEncoding.learn(["Est-ce"], 5)
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


@pytest.mark.parametrize("content", [b"", b"\n\n", b"one\ntwo\n", b"\x00\xff" * 99, b"\t\n" * 3])
def test_a_file_without_a_pair_is_one_line(tmp_path, content):
    path = tmp_path / "pairs.tsv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(f"{path} has no usable pair: 0 pairs")) as caught:
        read_pairs(path, 100)
    assert "\n" not in str(caught.value)


SENTENCE = [("Il fait très chaud ici.", "It is very hot here."), ("« L'été », dit-il.", "“Summer,” he said.")]
TWELVE = [(f"{source[:-1]} {word}.", target) for word in ("un", "deux", "trois", "six", "sept", "dix")
          for source, target in SENTENCE]


@pytest.mark.parametrize(("content", "note"), [
    ("\ufeff{}".encode("utf-16-le"), "UTF-16-LE"), ("\ufeff{}".encode("utf-16-be"), "UTF-16-BE"),
    ("{}".encode("utf-16-le"), "UTF-16-LE"), ("{}".encode("utf-16-be"), "UTF-16-BE"),
    ("\ufeff{}".encode("utf-32-le"), "UTF-32-LE"), ("{}".encode("cp1252"), "Latin-1"), (b"{}", None),
])
def test_any_usual_encoding_is_read_and_said(tmp_path, content, note):
    encoding = {"Latin-1": "cp1252", None: "utf-8"}.get(note, note)
    text = "".join(f"{source}\t{target}\n" for source, target in TWELVE)
    path = tmp_path / "pairs.tsv"
    path.write_bytes(content.replace("{}".encode(encoding), text.encode(encoding)))
    lines = read_pairs(path, 100)
    assert lines.pairs == TWELVE
    assert not lines.left_out
    assert (note or "12 pairs") in lines.account()
    assert bool(note) == ("read as" in lines.account())


def pairs_of(tmp_path, text, **options):
    path = tmp_path / "pairs"
    path.write_bytes(text.encode())
    return read_pairs(path, 100, **options)


@pytest.mark.parametrize(("text", "said"), [
    ("A cat.\tUn chat.\rA dog.\tUn chien.\r", ""),  # as old Macs end lines
    ("A cat.\tUn chat.\r\nA dog.\tUn chien.", ""),
    ("English\tFrench\nA cat.\tUn chat.\nA dog.\tUn chien.",
     "left out 1 with the names of the columns (first: line 1)"),
    ('"A cat."\t"Un chat."\n"A dog."\t"Un chien."\n', "quotes removed"),
    ('A cat.,Un chat.\nA dog.,"Un chien."\n', "cut at commas"),
    ("A cat.;Un chat.\nA dog.;Un chien.\n", "cut at semicolons"),
    ('{"en": "A cat.", "fr": "Un chat."}\n{"en": "A dog.", "fr": "Un chien."}', "JSON lines"),
    ('{"translation": {"en": "A cat.", "fr": "Un chat."}}\n'
     '{"translation": {"en": "A dog.", "fr": "Un chien."}}',
     "JSON lines"),
    ('["A cat.", "Un chat."]\n["A dog.", "Un chien."]', "JSON lines"),
    ("1276\tA cat.\t1115\tUn chat.\n1277\tA dog.\t1116\tUn chien.", "columns 2 and 4 of 4"),
    ("A cat.\tUn chat.\nA dog.\tUn chien.\nA\tB.\tUn b.",
     "left out 1 with 3 columns where others have 2: a tab"),
])
def test_files_as_people_have_them_are_read_and_said(tmp_path, text, said):
    lines = pairs_of(tmp_path, text)
    assert lines.pairs == [("A cat.", "Un chat."), ("A dog.", "Un chien.")]
    assert said in lines.account()


def test_a_comma_inside_quotes_cuts_nothing(tmp_path):
    lines = pairs_of(tmp_path, '"Yes, a ""cat"".","Oui, un « chat »."\nA dog.,Un chien.\n')
    assert lines.pairs == [('Yes, a "cat".', "Oui, un « chat »."), ("A dog.", "Un chien.")]


def test_a_quote_that_is_never_closed_takes_lines_with_it_and_each_is_counted(tmp_path):
    """To CSV the lines up to the next quote are one cell."""
    lines = [f"Cat {number}.,Chat {number}." for number in range(40_000)]
    lines[30], lines[50] = '"Dog.,Chien.', 'Cat.,"Chat, chat."'
    said = "left out 21 between quotes that are on different lines (first: line 31)"
    found = pairs_of(tmp_path, "\n".join(lines))
    assert (len(found.pairs), found.account().rpartition("; ")[2]) == (40_000 - 21, said)
    lines[50] = "Cat.,Chat."
    found = pairs_of(tmp_path, "\n".join(lines))
    assert len(found.pairs) == 30
    assert "left out 39,970 between quotes" in found.account()


def test_a_cell_of_excels_with_a_line_end_is_not_half_read(tmp_path):
    lines = pairs_of(tmp_path, '"One\r\ntwo"\t"Un, deux"\r\n"A ""b""."\tC.\r\nD.\tE.\r\n')
    assert lines.pairs == [('A "b".', "C."), ("D.", "E.")]
    assert lines.left_out == {"between quotes that are on different lines": [1, 2]}


def test_semicolons_cut_where_every_sentence_has_a_comma(tmp_path):
    lines = pairs_of(tmp_path, "Yes, a cat.;Oui, un chat.\nNo, a dog.;Non, un chien.\n")
    assert lines.pairs == [("Yes, a cat.", "Oui, un chat."), ("No, a dog.", "Non, un chien.")]


def test_json_without_a_text_or_with_names_in_another_order_is_not_misread(tmp_path):
    lines = pairs_of(tmp_path, '{"en": "A.", "fr": "Un a."}\n{"fr": "Un b.", "en": "B."}\n'
                               '{"en": "C.", "fr": null}\n{"en": "D\\nd.", "fr": "Un d."}\n')
    assert lines.pairs == [("A.", "Un a."), ("B.", "Un b."), ("D d.", "Un d.")]
    assert lines.left_out == {"with an empty side": [3]}


def test_utf_16_that_is_not_recognised_is_not_read_as_text(tmp_path):
    """Chinese without a byte-order mark: few of its bytes are 0."""
    (tmp_path / "pairs.tsv").write_bytes("猫在睡觉\t猫\n".encode("utf-16-le") * 50)
    with pytest.raises(ValueError, match="has no usable pair"):
        read_pairs(tmp_path / "pairs.tsv", 100)


@pytest.mark.parametrize(("text", "pairs"), [
    ('"She said ""yes""."\tElle dit oui.\nA dog.\t"Un, deux."\n',  # Excel: for quotes and commas
     [('She said "yes".', "Elle dit oui."), ("A dog.", "Un, deux.")]),
    ('"A, b."\tC.\nD.\t"E, f."\n"G, h."\tI.\n', [("A, b.", "C."), ("D.", "E, f."), ("G, h.", "I.")]),
    ('"Yes."\t"Oui."\nA, b.\tC.\nD.\tE.\n', [('"Yes."', '"Oui."'), ("A, b.", "C."), ("D.", "E.")]),
    ('"A" is not "B"\tC.\nD.\t"E ""f""."\n', [('"A" is not "B"', "C."), ("D.", '"E ""f""."')]),
])
def test_quotes_of_excel_are_taken_off_and_those_of_the_text_stay(tmp_path, text, pairs):
    lines = pairs_of(tmp_path, text.replace("\n", "\r\n"))
    assert lines.pairs == pairs
    assert ("quotes removed" in lines.account()) == (text.count('"') != str(pairs).count('"'))


@pytest.mark.parametrize(("files", "names"), [
    ("a/one.tsv,b/two.tsv", ["one", "two"]), ("a/T.tsv,b/T.tsv", ["a/T.tsv", "b/T.tsv"]),
    ("/x/a/T.tsv, /x/a/T.csv,", ["T.tsv", "T.csv"]), ("T.tsv,a/T.tsv", ["T.tsv", "a/T.tsv"]),
    ("T.tsv,T.tsv", ["T", "T"]),
])
def test_tests_of_one_name_are_told_apart_and_a_comma_too_many_is_no_file(files, names):
    assert short_names(files_in(files)) == names
    assert files_in(",") == [","]


def test_columns_are_those_that_were_asked_for(tmp_path):
    text = "7\ta\tb\tc\n8\td\te\tf\n"
    assert pairs_of(tmp_path, text).pairs == [("a", "b"), ("d", "e")]
    lines = pairs_of(tmp_path, text, columns=(4, 1))
    assert lines.pairs == [("c", "7"), ("f", "8")]
    assert "column 1 looks like numbers" in lines.account()
    lines = pairs_of(tmp_path, "12 + 3\t15\n1 + 1\t2\n")
    assert lines.pairs[0] == ("12 + 3", "15")  # no other columns are left
    assert "column 2 looks like numbers" in lines.account()


def test_letters_and_their_marks_are_joined(tmp_path):
    lines = pairs_of(tmp_path, "cafe\u0301\tété\nb\tc\n")
    assert lines.pairs[0] == ("café", "été")
    assert "NFC" in lines.account()
    assert pairs_of(tmp_path, "café\tété\n").notes == ()


def test_what_is_too_long_is_said_by_its_unit(tmp_path):
    lines = pairs_of(tmp_path, f"a\tb\n{'x' * (LONGEST + 1)}\tc\n")
    assert lines.left_out == {f"longer than {LONGEST:,} characters": [2]}


def test_what_holds_of_one_side_of_a_line_holds_of_the_other(tmp_path):
    lines = ["a b\tc", "w " * 101 + "\td", "x" * (LONGEST + 1) + "\te", "\tf", "g\th i"]
    swapped = ["\t".join(reversed(line.split("\t"))) for line in lines]
    one, other = (pairs_of(tmp_path, "\n".join(text)) for text in (lines, swapped))
    assert one.left_out == other.left_out
    assert len(one.left_out) == 3
    assert one.pairs == [pair[::-1] for pair in other.pairs] == [("a b", "c"), ("g", "h i")]


@pytest.mark.parametrize("before", ["en\t{}\tfr\t{}", "{}\tA cat {}.\t{}\tUn chat {}."])
def test_names_of_columns_change_nothing_about_what_is_taken(tmp_path, before):
    """Columns that say the language, or a number, in each line."""
    lines = [before.format(*[f"Un {number}."] * 2) if before.startswith("en") else
             before.format(number, number, 2 * number, number) for number in range(30)]
    found = [pairs_of(tmp_path, "\n".join(text)) for text in (
        lines, ["source code\tsource\ttarget code\ttarget", *lines])]
    assert [lines.pairs[-30:] for lines in found] == [found[0].pairs] * 2
    assert all("columns 2 and 4 of 4" in lines.account() for lines in found)


def test_what_makes_two_sources_the_same():
    sums = ["12 + 3", "12 - 3", "1 + 23", "12 * 3", "12 / 3", "1.5 + 2", "15 + 2"]
    assert len({key(text) for text in sums}) == len(sums)
    syllables = [chr(letter) + chr(sign) for letter in range(0x915, 0x933) for sign in range(0x93E, 0x948)]
    assert len({key(text) for text in syllables}) == len(syllables)
    for one, other in (("A dog.", "a dog!"), ("“Été”", "e\u0301te\u0301"), ("Call 12.", "call 12"),
                       ("a  b", "a b")):
        assert key(one) == key(other)
    assert key("...") == "..."


def test_what_takes_seconds_is_said(tmp_path, monkeypatch):
    file, heard = written(tmp_path / "a.tsv", SENTENCES), []
    texts = m.Texts(m.TranslationTraining(pairs=str(file), vocab=9))
    texts.listener = heard.append
    monkeypatch.setattr("course.data.corpus.LARGE", 100)
    _ = texts.splits
    assert [said.split()[0] for said in heard] == ["Reading", "Cutting", "Learning"]
    monkeypatch.undo()
    quiet = m.Texts(texts.training)
    quiet.listener = lambda text: pytest.fail(text)
    _ = quiet.splits


def test_what_is_left_out_is_counted(tmp_path):
    doubled = [*SENTENCES, *((source, target + " bis") for source, target in SENTENCES)]
    file = written(tmp_path / "pairs.tsv", doubled)
    texts = m.Texts(m.TranslationTraining(pairs=str(file), vocab=50))
    splits = texts.splits
    said = re.findall(r"left out: ([\d,]+)", " ".join(texts.accounts))
    left_out = sum(int(number.replace(",", "")) for number in said)
    assert sum(map(len, splits.values())) + left_out == len(doubled)
    assert left_out == len(splits["validation"]) + len(splits["test"]) > 0


def test_all_lines_of_a_test_file_are_asked(tmp_path):
    pairs = [(f"line {number}", f"ligne {number}") for number in range(HELD_OUT + 200)]
    files = {"pairs": str(written(tmp_path / "a.tsv", SENTENCES)),
             "test": str(written(tmp_path / "b.tsv", pairs))}
    assert len(m.Texts(m.TranslationTraining(vocab=50, **files)).splits["test"]) == HELD_OUT + 200


def test_a_test_file_that_is_the_pairs_file_is_refused_in_one_line(tmp_path):
    files = {"pairs": str(written(tmp_path / "a.tsv", SENTENCES)),
             "test": str(written(tmp_path / "b.tsv", SENTENCES))}
    said = r"b\.tsv, for test, is the same as .*a\.tsv, for training"
    with pytest.raises(ValueError, match=said) as caught:
        _ = m.Texts(m.TranslationTraining(vocab=50, **files)).splits
    assert "\n" not in str(caught.value)


def test_rare_characters_of_a_large_alphabet_are_spelled_in_bytes(tmp_path):
    """Chinese, as it were: the list of pieces has about the size that was asked for."""
    signs = [chr(0x4E00 + number) for number in range(3000)]
    pairs = [(f"{signs[number]}{signs[number // 2]} {number}", f"x {number}") for number in range(3000)]
    texts = m.Texts(m.TranslationTraining(pairs=str(written(tmp_path / "a.tsv", pairs)), vocab=2000))
    assert len(texts.encoding) < 259 + 2000 + 1000 + 1
    assert "different characters: the 1,000 most frequent are pieces" in " ".join(texts.accounts)
    ids = {id for source in texts.encoded("train")[0] for id in source}
    assert any(3 <= id < 259 for id in ids)  # so the bytes are trained


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
    pairs = [("A dog.", "1"), ("a dog", "2"), ("A cat.", "3")]
    assert apart_from(pairs, [("a dog!", "x")]) == [("A cat.", "3")]


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
    assert all(some[split] == whole[split] for split in ("validation", "test"))


def test_pairs_of_more_pieces_than_places_are_left_out(tmp_path, training):
    """A language without spaces has few words a sentence, and many characters."""
    letters = "".join(chr(0x4E00 + number) for number in range(300))
    pairs = [(f"{letters[number % 7 :]}{number}", "x") for number in range(5)]
    pairs += [(f"too long an answer {number}", letters) for number in range(3)]
    file, few = written(tmp_path / "more.tsv", [*SENTENCES, *pairs]), written(tmp_path / "few", SENTENCES[:1])
    texts = m.Texts(replace(training, pairs=str(file), vocab=0))
    assert max(len(pair.source) for pairs in texts.splits.values() for pair in pairs) < 100
    said = " ".join(texts.accounts)
    assert sum(map(int, re.findall(r"left out (\d+) with more pieces than", said))) == 8
    with pytest.raises(ValueError, match=r"leaves no pair for .* 300 pairs are needed"):
        _ = m.Texts(replace(training, pairs=str(few))).splits


@pytest.mark.parametrize("longest", [1, 4, 12])
def test_what_fits_is_what_the_model_takes(training, longest):
    """As a source, or as an answer with the mark of its beginning or end."""
    texts, config = m.Texts(training), replace(SMALL, max_len=longest)
    texts.encoding, texts.longest = BytePairEncoding.learn(["x"], 0), longest
    model = m.Transformer(replace(config, vocab_size=len(texts.encoding))).eval()
    for pieces in range(1, longest + 2):
        text = "x" * pieces
        if texts.fits(text):
            batch = texts.batch([Pair(text, text, (), frozenset(), frozenset())])
            assert model(batch.src, batch.tgt_in).isfinite().all()
    assert [texts.fits("x" * pieces) for pieces in (longest - 1, longest)] == [True, False]


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
    assert shares == {name: share for name, (_, share) in by_phenomenon(asked, right).items()}
    assert shares.keys() == {"negation", "elision"}


def test_shares_are_counted_for_each_phenomenon():
    pairs = [Pair("", "", (), frozenset(names), frozenset())
             for names in (["negation"], ["negation", "elision"], [], ["elision"], ["question"])]
    found = by_phenomenon(pairs, [True, False, True, False, True])
    assert found == {"negation": (2, 0.5), "elision": (2, 0.0), "question": (1, 1.0)}
    assert [*found] == [name for name in PHENOMENA if name in found]


def test_what_is_held_out_are_300_pairs_by_length_and_answered_without_dropout(training):
    texts = m.Texts(training)
    pairs = [Pair(*pair, (), frozenset(), frozenset()) for pair in SENTENCES]
    texts.splits = {"train": [], "validation": pairs}
    texts.encoding = BytePairEncoding.learn([text for pair in SENTENCES for text in pair], 60)
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


CONTENT = "Chat chevaux neuve bel dormira Marie venues besoin veux"
FUNCTION = "le L' ne n' pas est sont ai avait aura de au vous leur qui Est-ce où et"


def test_content_words_are_nouns_verbs_adjectives_and_names_in_any_form():
    assert [word for word in CONTENT.split() if not is_content(word) or is_function(word)] == []
    assert [word for word in FUNCTION.split() if is_content(word) or not is_function(word)] == []
    assert not is_content(".")
    assert not is_function(".")


def test_what_is_found_is_counted_for_each_kind_of_words():
    """By hand: “You don't sleep.” → “Tu ne dors pas.”, where don't is ne and pas."""
    pair = Pair("You don't sleep.", "Tu ne dors pas.", ((0, 0), (1, 1), (1, 3), (2, 2), (3, 4)), frozenset(),
                frozenset())
    weights = torch.eye(5)[:, [0, 1, 2, 4]][None, None]  # pas looks nowhere, so at the first word
    found = found_by_kind([weights, weights], [pair, pair])
    assert [(one.words, one.heads.item()) for one in found.values()] == [
        (10, pytest.approx(0.8)), (2, 1.0), (6, pytest.approx(2 / 3)), (2, 1.0)]
    assert [one.first for one in found.values()] == pytest.approx([0.2, 0, 1 / 3, 0])
    # at the same place, 0, 0, 1, 2, 3 of the source: tu and the mark are right
    assert [one.same for one in found.values()] == pytest.approx([0.4, 0, 1 / 3, 0])


def test_fresh_sentences_are_like_those_of_the_test_and_known_but_for_the_sentence():
    texts = m.Texts(m.TranslationTraining(vocab=0, max_pairs=3000))
    asked = [pair for pair in texts.splits["test"] if len(pair.combinations) < 3][:50]
    fresh, trained = texts.fresh_like(asked), texts.splits["train"]
    assert Counter(map(likeness, fresh)) == Counter(map(likeness, asked))
    assert len({pair.source for pair in fresh} | {pair.source for pair in trained}) == 50 + len(trained)
    met = {name for pair in trained for name in pair.combinations}
    assert all(pair.combinations <= met for pair in fresh)
    assert len(texts.fresh_like([replace_combinations(asked[0], 40)])) == 0, "and it ends"


def test_no_sentence_is_fresh_twice(monkeypatch):
    """Even where the grammar draws the same few again and again."""
    few = corpus({"train": 3}, 0)["train"]
    texts = m.Texts(m.TranslationTraining(vocab=0))
    texts.splits = {"train": [pair._replace(source="Another.") for pair in few]}
    monkeypatch.setattr("course.data.corpus.draw_pair", lambda random: random.choice(few))
    fresh = texts.fresh_like(few * 2)
    assert Counter(pair.source for pair in fresh) == Counter(pair.source for pair in few)


def replace_combinations(pair, count):
    return pair._replace(combinations=frozenset(map(str, range(count))))


@pytest.mark.parametrize("seed", range(2))
def test_each_row_of_word_weights_still_sums_to_one(seed):
    pair = corpus({"train": 1}, seed)["train"][0]
    encoding = BytePairEncoding.learn(pair[:2], 5)
    source, target = ([*encoding.texts_of(encoding.encode(text))] for text in pair[:2])
    weights = torch.softmax(torch.randn(3, len(target) + 1, len(source)), -1)
    assert torch.allclose(word_weights(weights, pair, source, target).sum(-1), torch.ones(()), atol=1e-6)


def test_the_loss_of_a_validation_is_the_mean_over_all_tokens(training, monkeypatch):
    """Batches of few tokens count for less."""
    texts = m.Texts(training)
    texts.__dict__["held_out"] = [m.make_batch([[5]], [[5] * length]) for length in (1, 4)]
    told = iter([SimpleNamespace(loss=7.0), SimpleNamespace(loss=0.0)])
    monkeypatch.setattr(m, "evaluate", lambda *_: next(told))
    monkeypatch.setattr(m, "translate", lambda model, encoding, sources: [""] * len(sources))
    texts.certainties = lambda model, pairs, answers: [1.0]
    assert texts.validate(nn.Linear(1, 1))["validation_loss"] == 7.0 * 2 / (2 + 5)  # EOS counts, too

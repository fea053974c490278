"""Lesson 7's pieces, against Hugging Face's tokenizers, which nobody of this course wrote."""

import json
import random
import re
from collections import Counter
from itertools import pairwise

import pytest
from conftest import holds, one_line_error, run_as_documented, run_lesson
from hypothesis import given, settings
from hypothesis import strategies as st

from common import lesson
from course.data.texts import ARTICLE, as_text, docstrings

m = lesson("07_subwords")
tokenizers = pytest.importorskip("tokenizers")

SPECIAL = ["<pad>", "<bos>", "<eos>", *(f"<0x{byte:02X}>" for byte in range(256))]
ANY = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
SOUNDS = st.text("aab é'’-1_ \n", max_size=40)


# the part


@pytest.mark.parametrize("name", m.GRADED)
def test_the_parts_hold(name):
    for check in m.GRADED[name](getattr(m, name), m):
        holds(check)


def theirs(texts, merges):
    """Hugging Face's encoding, learned from the same words."""
    built = tokenizers.Tokenizer(tokenizers.models.BPE(byte_fallback=True))
    built.pre_tokenizer = tokenizers.pre_tokenizers.Split("\x01", "removed")
    alphabet = set("".join(texts))
    built.train_from_iterator(["\x01".join(m.split_words(text)) for text in texts],
                              tokenizers.trainers.BpeTrainer(
        vocab_size=len(SPECIAL) + len(alphabet) + merges, special_tokens=SPECIAL, show_progress=False))
    return built


def their_ids(built, text):
    """Word by word, so that no word can be taken for a special token."""
    model = built.model
    return [token.id for word in m.split_words(text) for token in model.tokenize(word)]


def assert_equal(texts, merges, others=()):
    """The same merges in the same order, the same vocabulary, the same ids for every text."""
    built = theirs(texts, merges)
    said = json.loads(built.to_str())["model"]
    ours = m.BytePairEncoding.learn(texts, merges)
    assert [ours.texts_of(pair) for pair in ours.merges] == [list(pair) for pair in said["merges"]][:merges]
    names = sorted(said["vocab"], key=said["vocab"].get)
    assert ours.texts_of(range(259, len(ours))) == names[259 : len(ours)]
    if len(said["merges"]) == len(ours.merges):  # they count pieces, we count merges
        for text in (*texts, *others):
            assert ours.encode(text) == their_ids(built, text)
    return ours


@pytest.mark.parametrize("seed", range(25))
def test_merges_and_ids_are_those_of_tokenizers(seed):
    draw = random.Random(seed)
    letters = ["ab ", "abcd  ", "étaoin s'", "aab"][seed % 4]

    def texts(count):
        return ["".join(draw.choices(letters, k=draw.randrange(1, 30))) for _ in range(count)]

    assert_equal(texts(40), 60, [*texts(40), "zzz ü 東京 👩 ab"])


@given(st.lists(SOUNDS, min_size=1, max_size=15), st.integers(0, 25), SOUNDS)
@settings(max_examples=60)
def test_merges_and_ids_of_any_texts_are_those_of_tokenizers(texts, merges, other):
    assert_equal(texts, merges, [other])


@given(ANY, st.lists(ANY, max_size=4))
def test_any_text_comes_back(text, texts):
    encoding = m.BytePairEncoding.learn(texts, 10)
    ids = encoding.encode(text)
    assert encoding.decode(ids) == text
    assert encoding.decode([m.BOS, *ids, m.EOS, m.PAD]) == text
    assert "".join(m.split_words(text)) == text
    assert all(0 <= id < len(encoding) for id in ids)


def test_what_is_no_text_is_refused():
    with pytest.raises(ValueError, match="surrogate"):
        m.BytePairEncoding("a", []).encode("a\ud800")
    assert m.BytePairEncoding("a", []).decode([3 + 0xC3]) == "�"


def words_in(chain):
    """The words as they are after the merges so far."""
    for place, before in enumerate(chain.before):
        if before < 0 <= chain.ids[place]:
            word = [place]
            while chain.after[word[-1]] >= 0:
                word.append(chain.after[word[-1]])
            yield [chain.ids[at] for at in word], word


@pytest.mark.parametrize("seed", range(4))
def test_counts_stay_those_of_counting_anew(seed):
    draw = random.Random(seed)
    words = [draw.choices(range(2 + seed), k=draw.randrange(1, 12)) for _ in range(60)]
    times = [draw.randrange(1, 9) for _ in words]
    pairs = m.PairCounts([list(word) for word in words], times)
    for new in range(5, 30):
        anew, where = Counter(), {}
        for word, places in words_in(pairs.chain):
            for pair, place in zip(pairwise(word), places):
                anew[pair] += pairs.times[place]
                where.setdefault(pair, set()).add(place)
        assert +pairs.count == anew
        assert {pair: places for pair, places in pairs.where.items() if places} == where
        pair = pairs.most_frequent()
        assert pair == min(anew, key=lambda pair: (-anew[pair], pair), default=None)
        if pair:
            pairs.merge(pair, new)
            words = [m.merged(word, pair, new) for word in words]
            assert sorted(words) == sorted(word for word, _ in words_in(pairs.chain))


@given(st.lists(st.text("aab é'’-1_ \n", max_size=150), max_size=6), st.integers(0, 25))
@settings(max_examples=60)
def test_fast_learning_is_the_plain_loop(texts, merges):
    plain, fast = m.learn_by_counting(texts, merges), m.BytePairEncoding.learn(texts, merges)
    assert (plain.alphabet, plain.merges, plain.pieces) == (fast.alphabet, fast.merges, fast.pieces)


def test_a_word_of_20000_letters_is_learned_as_by_the_plain_loop():
    word = "".join(random.Random(0).choices("abcd", k=20_000))
    assert m.BytePairEncoding.learn([word], 1000).merges[:5] == m.learn_by_counting([word], 5).merges


@given(st.text("aabbc", max_size=300), st.integers(0, 40))
@settings(max_examples=60)
def test_long_words_are_encoded_as_by_the_plain_replay(word, merges):
    encoding = m.BytePairEncoding.learn([word[::2], word, "abcab"], merges)
    ids = [encoding.id_of[character] for character in word]
    assert encoding.replay_long(ids) == encoding.replay(ids)


@pytest.mark.parametrize("seed", range(20))
def test_long_words_are_encoded_alike_where_two_merges_make_one_piece(seed):
    """“abc” is made of “ab” + “c” and of “a” + “bc”: a pair of a smaller rank can then come up late."""
    draw, first = random.Random(seed), m.SPECIALS + 256
    merges = []
    encoding = m.BytePairEncoding("abc", [])
    for _ in range(12):
        pair = draw.randrange(first, len(encoding)), draw.randrange(first, len(encoding))
        if pair not in merges:
            merges.append(pair)
            encoding.add(pair)
    for _ in range(50):
        ids = draw.choices(range(first, first + 3), k=draw.randrange(1, 40))
        assert encoding.replay_long(ids) == encoding.replay(ids)


@pytest.mark.parametrize("letters", ["a", "ab", "aeinost"])
def test_a_word_of_100000_letters_comes_back(letters):
    word = "".join(random.Random(1).choices(letters, k=100_000))
    encoding = m.BytePairEncoding.learn(["the seat is at the station", "aaaa abab", *letters], 30)
    ids = encoding.encode(word)
    assert len(ids) < len(word)
    assert encoding.decode(ids) == word


def test_rare_characters_are_their_bytes_and_never_merge():
    encoding = m.BytePairEncoding.learn(["aaa bbb aéaéaé 東"], 50, characters=3)
    assert encoding.alphabet == " ab"
    assert [id - m.SPECIALS for id in encoding.encode("é東")] == [*"é東".encode()]
    assert not any(id < m.SPECIALS + 256 for pair in encoding.merges for id in pair)
    assert m.BytePairEncoding.learn(["éa a"], 3, characters=99).alphabet == " aé"


@pytest.mark.parametrize("most", [1, 3, 5, None])
def test_the_alphabet_has_what_stands_most_often_in_the_text(most):
    """However few words have it; of equally frequent characters the first."""
    texts = ["q q q q q q", "abc", "bca", "cab", "dcb"]  # q is in two words, b in four
    counts = Counter("".join(texts))
    alphabet = m.BytePairEncoding.learn(texts, 3, characters=most).alphabet
    ranked = sorted(counts, key=lambda character: (-counts[character], character))
    assert alphabet == "".join(sorted(ranked[:most]))


@given(SOUNDS.filter(bool))
@settings(max_examples=20)
def test_a_merge_counts_for_texts_that_were_encoded_before_it(text):
    learned = m.BytePairEncoding.learn([text * 2], 5)
    grown = m.BytePairEncoding(learned.alphabet, [])
    for number, pair in enumerate(learned.merges):
        grown.encode(text)
        grown.add(pair)
        fresh = m.BytePairEncoding(learned.alphabet, learned.merges[: number + 1])
        assert grown.encode(text) == fresh.encode(text)


def test_saved_and_loaded_it_is_the_same(tmp_path, monkeypatch):
    encoding = m.BytePairEncoding.learn(["l’été \u2028 \\ \" \x00 l’hiver", "l’été"], 9)
    path = tmp_path / "vocabulary.json"
    encoding.save(path)
    loaded, before = m.BytePairEncoding.load(path), path.read_bytes()
    assert (loaded.pieces, loaded.merges) == (encoding.pieces, encoding.merges)
    assert loaded.encode("l’été ü") == encoding.encode("l’été ü")
    monkeypatch.setattr("os.replace", lambda *names: (_ for _ in ()).throw(OSError(28, "full", "disk")))
    with pytest.raises(OSError, match="full"):
        m.BytePairEncoding("ab", []).save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", [
    b"", b"hello", b"\xff\xfe", b"[]", b"3", b"null", b"{}", b"[" * 100_000, b'"text"',
    b'{"alphabet": "ab"}', b'{"alphabet": 5, "merges": []}', b'{"alphabet": ["ab"], "merges": []}',
    b'{"alphabet": "aa", "merges": []}', b'{"alphabet": "\\ud800", "merges": []}',
    b'{"alphabet": "ab", "merges": 3}', b'{"alphabet": "ab", "merges": [[259]]}',
    b'{"alphabet": "ab", "merges": [[259, 261]]}', b'{"alphabet": "ab", "merges": [["a", "b"]]}',
    b'{"alphabet": "ab", "merges": [[3, 4]]}', b'{"alphabet": "ab", "merges": [[259.0, 260.0]]}',
])
def test_a_foreign_file_is_one_line_and_left_alone(tmp_path, content):
    path = tmp_path / "vocabulary.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(f"{path} is not a vocabulary")) as caught:
        m.BytePairEncoding.load(path)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == content




# texts


def test_docstrings_are_all_and_alone(tmp_path):
    path = tmp_path / "some.py"
    path.write_text('"""Of the file."""\nX = "no"\nclass A:\n    """Of A."""\n'
                    '    def f(self):\n        """Of f."""\n')
    assert sorted(filter(None, docstrings(path))) == ["Of A.", "Of f.", "Of the file."]


def test_text_is_utf_8_with_a_mark_or_without():
    assert as_text("\ufeffl'été".encode(), "file") == as_text("l'été".encode(), "file") == "l'été"
    for content, place in ((b"abc\xe9", 3), (b"\xef\xbb\xbfab\xff", 2), ("a".encode("utf-16"), 0)):
        with pytest.raises(ValueError, match=f"file is not UTF-8: byte 0x.. at position {place}") as caught:
            as_text(content, "file")
        assert "\n" not in str(caught.value)


def test_the_article_is_in_five_scripts_and_languages():
    assert [*ARTICLE] == ["English", "French", "German", "Greek", "Chinese"]
    assert all(len(text) > 40 for text in ARTICLE.values())


# the script


@pytest.mark.parametrize(("content", "said"), [
    (None, "No such file or directory"), (b"", "is empty"),
    (b"abc\xff", "is not UTF-8: byte 0xff at position 3")])
def test_a_file_without_text_is_one_line(tmp_path, content, said):
    path = tmp_path / "text.txt"
    if content is not None:
        path.write_bytes(content)
    process = run_lesson("07_subwords", "--text", str(path), "--outputs", str(tmp_path))
    assert said in one_line_error(process, 2)


def test_options_that_need_others_are_one_line():
    process = run_lesson("07_subwords", "--vocab", "5")
    assert "--vocab 5 goes with --text FILE or --input TEXT" in one_line_error(process, 2)
    assert "is not a text" in one_line_error(run_lesson("07_subwords", "--input", ""), 2)


def test_a_wider_model_spends_a_smaller_part_on_logits():
    parts = [m.multiplications(150, 2000, width) for width in (64, 128, 512)]
    logits = [part["logits"] / sum(part.values()) for part in parts]
    assert logits == sorted(logits, reverse=True)
    assert sum(parts[1].values()) == 2 * 2 * 150**2 * 128 + 12 * 2 * 150 * 128**2 + 150 * 128 * 2000


def test_a_text_of_ones_own_is_learned_and_shown(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("der Mond und der Hund und der Mund " * 20, encoding="utf-8")
    process = run_lesson("07_subwords", "--text", str(path), "--vocab", "12", "--input", "der Hund 東",
                         "--outputs", str(tmp_path))
    assert (process.returncode, process.stderr) == (0, "")
    wanted = m.BytePairEncoding.learn([path.read_text(encoding="utf-8")], 12)
    pieces = len(wanted.encode("der Hund 東"))
    assert f"10 characters, {pieces} pieces: {m.cut('der Hund 東', wanted)}" in process.stdout
    assert sum(line.rstrip().endswith(" byte") for line in process.stdout.splitlines()) == 3
    assert "2 of 2 checks hold" in process.stdout


def test_walkthrough(course):
    run_as_documented("07_subwords", course)

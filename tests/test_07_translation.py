"""Lesson 7's parts, against what nobody of this course wrote: Hugging Face's tokenizers and sacreBLEU."""

import json
import random
import re
from collections import Counter
from itertools import pairwise

import pytest
import torch
from conftest import holds
from hypothesis import given, settings
from hypothesis import strategies as st

from common import lesson

m, five, six = lesson("07_translation"), lesson("05_mini_transformer"), lesson("06_decoding")
tokenizers = pytest.importorskip("tokenizers")
sacrebleu = pytest.importorskip("sacrebleu")
BLEU, their_words = sacrebleu.metrics.BLEU, sacrebleu.metrics.BLEU(tokenize="13a").tokenizer

SPECIAL = ["<pad>", "<bos>", "<eos>", *(f"<0x{byte:02X}>" for byte in range(256))]
ANY = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
SOUNDS = st.text("aab é'’-1_ \n", max_size=40)


# subwords


@pytest.mark.parametrize("name", m.GRADED)
def test_the_parts_hold(name):
    for check in m.GRADED[name](getattr(m, name), m):
        holds(check)


@pytest.mark.parametrize(("part", "mistake"), [
    (name, mistake) for name, part in m.GRADED.items() for mistake in part.more(m)])
def test_mistakes_that_the_lesson_does_not_show_are_diagnosed_too(part, mistake):
    made = m.GRADED[part].more(m)[mistake]
    check, = (check for check in m.GRADED[part](made.implementation, m)
              if check.statement.startswith(made.caught_by))
    assert not check.finding.holds
    assert made.hint in check.finding.diagnosis


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


def test_counts_stay_those_of_counting_anew():
    draw = random.Random(0)
    words = [draw.choices(range(5), k=draw.randrange(1, 12)) for _ in range(60)]
    times = [draw.randrange(1, 9) for _ in words]
    pairs = m.PairCounts([list(word) for word in words], times)
    for new in range(5, 30):
        anew = Counter()
        for word, often in zip(pairs.words, times):
            for pair in pairwise(word):
                anew[pair] += often
        assert +pairs.count == anew
        pair = pairs.most_frequent()
        assert pair == min(anew, key=lambda pair: (-anew[pair], pair), default=None)
        if pair:
            pairs.merge(pair, new)


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
    with pytest.raises(ValueError, match=re.escape(f"{path} is no vocabulary")) as caught:
        m.BytePairEncoding.load(path)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == content


# BLEU

WORDS = st.lists(st.sampled_from(["a", "b", "A", "c,", "1.5", "1,000.", "d-e", "3-4", "&quot;", "&amp;",
                                  "x.", "(y)", "<skipped>", "l'eau", "-\n", "\n", "\u00a0", "«", "…"]),
                 max_size=9)
PAIRS = st.lists(st.tuples(WORDS.map(" ".join), WORDS.map(" ".join)), min_size=1, max_size=5)


def assert_bleu_equal(answers, references, smooth):
    ours = m.corpus_bleu(answers, references, smooth)
    score = BLEU(smooth_method=smooth).corpus_score(answers, [references])
    assert ours.score == pytest.approx(score.score, abs=1e-9)
    assert ours.precisions == pytest.approx(score.precisions, abs=1e-9)
    assert (ours.brevity, ours.answer_length, ours.reference_length) == pytest.approx(
        (score.bp, score.sys_len, score.ref_len), abs=1e-12)


@given(PAIRS, st.sampled_from(["exp", "none"]))
@settings(max_examples=300)
def test_bleu_is_that_of_sacrebleu(pairs, smooth):
    assert_bleu_equal(*map(list, zip(*pairs)), smooth)


@pytest.mark.parametrize("smooth", ["exp", "none"])
@pytest.mark.parametrize(("answers", "references"), [
    (["a b c d e"], ["a b c d e"]), ([""], [""]), ([""], ["a b"]), (["a b"], [""]), (["", ""], ["a", "b"]),
    (["a b c x d e f"], ["d e f y a b c"]), (["a c b d"], ["a b c d"]), (["x"], ["y"]), (["a"], ["a"]),
    (["a a a a a a"], ["a a"]), (["a b", "c d e f g"], ["a b c d e f", "c"]), (["A b c d"], ["a b c d"]),
    (["end -\n"], ["end -"]), (["a b c d \u3000"], ["a b c d"]),
])
def test_bleu_of_corner_cases_is_that_of_sacrebleu(answers, references, smooth):
    assert_bleu_equal(answers, references, smooth)


@given(st.one_of(ANY, st.text(" .,-0123abcé'\"&<>;\n/", max_size=40)))
@settings(max_examples=300)
def test_words_are_those_of_13a(text):
    assert m.tokens_13a(text) == their_words(text).split()


def test_wrong_calls_are_named():
    for call in ((["a"], []), (["a"], ["a"], "floor")):
        with pytest.raises(ValueError, match="1 answers"):
            m.corpus_bleu(*call)


# batches


@given(st.integers(1, 70), st.integers(1, 20), st.integers(0, 2**32), st.integers(0, 5))
@settings(max_examples=40)
def test_an_epoch_is_every_pair_once_beside_its_own_target(count, size, seed, epoch):
    draw = random.Random(count)
    sources = [[3 + row] * draw.randrange(1, 9) for row in range(count)]
    targets = [[3 + row] * draw.randrange(1, 9) for row in range(count)]
    batches, seen = m.BatchesByLength(sources, targets, size, seed), []
    for number in range(len(batches)):
        batch = batches(epoch * len(batches) + number)
        for src, tgt_in, tgt_out in zip(*(ids.tolist() for ids in batch)):
            row = src[0] - 3
            plain = [[id for id in ids if id != m.PAD] for ids in (src, tgt_in, tgt_out)]
            assert plain == [sources[row], [m.BOS, *targets[row]], [*targets[row], m.EOS]]
            seen.append(row)
    assert sorted(seen) == list(range(count))


@given(st.integers(1, 70), st.integers(1, 20), st.integers(0, 2**32))
@settings(max_examples=40)
def test_a_batch_holds_neighbours_by_length_the_targets_first(count, size, seed):
    draw = random.Random(seed)
    sources, targets = ([[5] * draw.randrange(1, 9) for _ in range(count)] for _ in range(2))
    batches = m.BatchesByLength(sources, targets, size, seed).order_of(3)
    lengths = sorted(sorted((len(targets[row]), len(sources[row])) for row in rows) for rows in batches)
    assert [pair for batch in lengths for pair in batch] == sorted(zip(map(len, targets), map(len, sources)))


# translation

TEXTS = ["the black cat", "a", "", "the cat sees the other black cat of the small house", "cat cat", "ü",
         "a b", "the " * 12]


@pytest.fixture(scope="module", params=[2, 8])
def translator(request):
    """A random model, in float64 so that neighbours change no choice; and its vocabulary."""
    encoding = m.BytePairEncoding.learn(TEXTS, 20)
    torch.manual_seed(request.param)
    sizes = {"d_model": 16, "n_heads": 2, "vocab_size": len(encoding), "max_len": 64}
    model = five.Transformer(five.TransformerConfig(**sizes)).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)
        model.embedding.weight[m.EOS] *= 1.2
    return model, encoding


@pytest.mark.parametrize("width", [1, 3])
def test_an_answer_does_not_depend_on_its_neighbours(translator, width):
    together = m.translate(*translator, TEXTS, width)
    assert together == [m.translate(*translator, [text], width)[0] for text in TEXTS]
    assert together[::-1] == m.translate(*translator, TEXTS[::-1], width, rows=2)
    assert together[2] == ""
    assert len(set(together)) > 3
    assert m.translate(*translator, [], width) == []


@pytest.mark.parametrize("text", [TEXTS[0], TEXTS[3]])
def test_answers_are_lesson_6s(translator, text):
    model, encoding = translator
    src = torch.tensor([encoding.encode(text)])
    limit = min(64, 2 * -(-src.shape[1] // 10) * 10 + 20)
    greedy = six.greedy_decode(six.CachedDecoding(model, src), limit)[0]
    assert m.translate(model, encoding, [text]) == [encoding.decode(greedy.tolist())]
    for penalty in (0.0, 1.0):
        found = six.beam_search(six.CachedDecoding(model, src), 4, limit, penalty)[0][0]
        assert m.translate(model, encoding, [text], 4, penalty) == [encoding.decode(found.tokens)]


def test_a_sentence_that_is_too_long_is_refused_with_both_numbers(translator):
    assert len(m.translate(*translator, ["ß" * 32])) == 1  # 64 bytes
    with pytest.raises(ValueError, match=r"66 pieces .* 64"):
        m.translate(*translator, ["a", "ß" * 33])

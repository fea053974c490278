"""Lesson 8's parts, against sacreBLEU, which nobody of this course wrote."""

import random

import pytest
import torch
from conftest import holds
from hypothesis import given, settings
from hypothesis import strategies as st

from common import lesson

m, five, six = lesson("08_translation"), lesson("05_mini_transformer"), lesson("06_decoding")
sacrebleu = pytest.importorskip("sacrebleu")
BLEU, their_words = sacrebleu.metrics.BLEU, sacrebleu.metrics.BLEU(tokenize="13a").tokenizer

ANY = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


# the parts


@pytest.mark.parametrize("name", m.GRADED)
def test_the_parts_hold(name):
    for check in m.GRADED[name](getattr(m, name), m):
        holds(check)


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

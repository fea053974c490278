import itertools
import math
from dataclasses import replace
from functools import partial
from random import Random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import one_line_error, run_as_documented, run_lesson
from torch import nn

from common import lesson
from course.data import small_grammar, topics
from course.data.baselines import Counts, bits_of_lzma, yardsticks
from course.data.pictures import handwritten_digits, shuffled
from course.data.reading import Reading, begin_of_held_out
from course.data.topics import TOPICS, Labelled, draw_labels, labelled, words_in
from course.training import architectures as trials
from course.training import few_labels
from course.training.configs import StackConfig, TextTraining
from course.training.parts import build, with_a_place
from course.training.sizing import matched, parameters

m, six = lesson("10_architectures"), lesson("06_decoding")
TINY = StackConfig(d_model=16, n_heads=2, n_layers=2, vocab_size=12, max_len=16)
SMALLEST = ["--d-model", "16", "--heads", "2", "--layers", "1", "--vocab", "0", "--steps", "2"]


def random_model(**changes):
    torch.manual_seed(0)
    model = m.OneStack(replace(TINY, **changes)).double().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    return model


# one stack and its decoding


@pytest.mark.parametrize("changes", [{"positions": "learned"}, {}, {"n_groups": 1, "norm_kind": "rms"}])
@pytest.mark.parametrize("prompt", [0, 1, 4])
def test_all_decoders_run_on_a_prompt_with_and_without_a_cache_alike(prompt, changes):
    model, prompts = random_model(**changes), torch.randint(3, 12, (4, prompt))
    uncached = m.prompt_decoding_checks.mistakes(m)["no cache"].implementation
    cached, whole = (partial(kind, model, prompts) for kind in (m.PromptDecoding, uncached))
    assert torch.equal(six.greedy_decode(cached(), 9), six.greedy_decode(whole(), 9))
    generators = [torch.Generator().manual_seed(1) for _ in "ab"]
    drawn = [six.sample(kind(), 9, generator=own) for kind, own in zip((cached, whole), generators)]
    assert torch.equal(*drawn)
    for search in (six.beam_search, six.fast_beam_search):
        for ours, theirs in zip(search(cached(), 3, 9), search(whole(), 3, 9), strict=True):
            assert [h.tokens for h in ours] == [h.tokens for h in theirs]
            assert [h.score for h in ours] == pytest.approx([h.score for h in theirs], abs=1e-9)
    answer = six.greedy_decode(cached(), 5)
    text = torch.cat([torch.full((4, 1), m.BOS), prompts, answer], dim=1)
    with torch.no_grad():
        log_probs = model(text[:, :-1]).log_softmax(-1)[:, prompt:]
    ended = (answer == m.EOS).cumsum(1) - (answer == m.EOS).long() > 0
    expected = log_probs.gather(2, answer[..., None])[..., 0].masked_fill(ended, 0).sum(1)
    assert torch.allclose(six.log_probability(cached(), answer).double(), expected, atol=1e-5)
    decoding = cached()
    six.greedy_decode(decoding, 3)
    assert decoding.self_caches[0].keys.shape[2] == prompt + decoding.length


@pytest.mark.parametrize("positions", ["learned", "sinusoidal", "rotary"])
def test_a_text_longer_than_max_len_is_refused(positions):
    model = random_model(positions=positions)
    with pytest.raises(ValueError, match="position 16 is past max_len, 16"):
        model(torch.full((1, 17), 5))


def test_what_is_exchanged_is_exchanged_everywhere():
    config = replace(TINY, norm_kind="rms", feed_forward="swiglu", n_groups=1)
    kinds = {type(module).__name__ for module in m.OneStack(config).modules()}
    assert {"RMSNorm", "SwiGLU", "GroupedQueryAttention"} <= kinds
    assert kinds.isdisjoint({"LayerNorm", "FeedForward", "MultiHeadAttention", "RotaryAttention"})
    with pytest.raises(ValueError, match="2 heads do not split into 3 groups"):
        replace(TINY, n_groups=3)


@pytest.mark.parametrize("changes", [{"positions": "learned"}, {}, {"n_groups": 1}])
def test_a_function_of_the_learners_has_a_place_in_every_attention(changes):
    make = partial(m.OneStack, replace(TINY, **changes))

    def attend(query, key, value, mask=None, dropout=0.0):
        return torch.zeros_like(query)

    assert with_a_place({"scaled_dot_product_attention": attend}, make)
    model = build(make, {"scaled_dot_product_attention": attend})
    assert all(block.self_attention.scaled_dot_product_attention is attend for block in model.stack.blocks)


def test_models_are_matched_in_size():
    for wanted in (9_000, 20_000):
        config = matched(m.OneStack, TINY, wanted)
        others = [abs(parameters(m.OneStack(replace(config, d_ff=config.d_ff + step))) - wanted)
                  for step in (-4, 0, 4)]
        assert min(others) == others[1]


# texts


def test_each_piece_is_counted_once_and_with_enough_before_it():
    class Uniform(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.rows = nn.Parameter(torch.zeros(1)), []

        def forward(self, tokens):
            self.rows += tokens.tolist()
            return self.weight.expand(*tokens.shape, 16)

    encoding = SimpleNamespace(encode=lambda text: [3 + int(digit) for digit in text])
    for length in (1, 4, 5, 8, 23):
        model, text = Uniform(), ("0123456789" * 3)[:length]
        assert m.bits_per_character(model, encoding, text, 8) == pytest.approx(4)
        assert max(map(len, model.rows)) <= 8


def test_counts_are_probabilities_and_follow_the_formula():
    counts = Counts("abracadabra", 3)
    for context in ("", "a", "ab", "zz", "ra"):
        total = sum(counts.probability(context, chr(code)) for code in range(256))
        assert total == pytest.approx(1)
    alone = (5 + 5 / 256) / (11 + 5)  # five of eleven are a, and there are five kinds
    assert Counts("abracadabra", 1).probability("b", "a") == pytest.approx(alone)
    after_b = (2 + 1 * Counts("abracadabra", 1).probability("", "r")) / (2 + 1)
    assert Counts("abracadabra", 2).probability("ab", "r") == pytest.approx(after_b)
    assert counts.bits("a", "br") == pytest.approx(-math.log2(counts.probability("br", "a")))
    assert Counts(("a", "b") * 50, 2).bits(("a", "b"), ("b",)) < 0.2


def test_a_compressor_knows_what_it_was_given():
    random = Random(0)
    text = "".join(random.choice("abcdefgh") for _ in range(4000))
    assert bits_of_lzma(text, text[1000:2000]) < 0.5
    assert bits_of_lzma(text, "".join(random.choice("abcdefgh") for _ in range(1000))) > 2.5


def test_a_long_text_has_no_counts(monkeypatch):
    assert [*yardsticks("abc" * 20, "abc")] == [
        "counts of 1 character", "counts of 3 characters", "counts of 5 characters",
        "lzma, given the same text"]
    monkeypatch.setattr("course.data.baselines.LONG", 10)
    assert [*yardsticks("abc" * 20, "abc")] == ["lzma, given the same text"]


def test_the_held_out_part_begins_with_a_line_if_one_is_near():
    assert begin_of_held_out("x" * 100) == 90
    assert begin_of_held_out("x" * 87 + "\n" + "x" * 12) == 88
    assert begin_of_held_out("\n" + "x" * 99) == 90


def test_windows_depend_on_seed_and_step_alone_and_reach_both_ends(tmp_path):
    file = tmp_path / "text.txt"
    file.write_text("".join(chr(97 + n % 26) for n in range(60)), encoding="utf-8")
    pieces = SimpleNamespace(learn=lambda texts, merges, most: SimpleNamespace(
        encode=lambda text: [*range(3, 3 + len(text))]))
    kind = type("Pieces", (Reading,), {"pieces": pieces})
    texts = kind(TextTraining(text=str(file), window=50, batch_size=1))
    assert torch.equal(texts.windows(0, 3), texts.windows(0, 3))
    starts = {texts.windows(seed, step)[0, 0].item() for seed in range(3) for step in range(40)}
    assert starts == {3, 4, 5, 6, 7}  # 54 pieces to train on
    assert texts.windows(0, 0).shape == (1, 50)


@pytest.mark.parametrize(("content", "said"), [
    (b"", "is empty: give a text"),
    (b" \n\n ", "is empty: give a text"),
    (b"a text" + bytes(2000), "is not text: byte 0 at position 6"),
    ("é".encode("latin-1") * 3000, "is not UTF-8: byte 0xe9 at position 0"),
    ("straße ".encode("utf-16") * 500, "is not UTF-8: byte 0xff at position 0"),
    (b"too short", "has 8 characters to train on, fewer than a batch of 16 windows of 64 pieces"),
])
def test_a_text_that_cannot_be_used_ends_in_one_line(content, said, tmp_path):
    file = tmp_path / "mine.txt"
    file.write_bytes(content)
    process = run_lesson("10_architectures", "--text", str(file), "--outputs", str(tmp_path / "out"))
    error = one_line_error(process, 2)
    assert said in error
    assert str(file) in error


def test_a_text_that_is_not_there_ends_in_one_line(tmp_path):
    process = run_lesson("10_architectures", "--text", str(tmp_path / "none.txt"), "--outputs", str(tmp_path))
    assert "No such file" in one_line_error(process, 2)


def test_pieces_fewer_than_a_window_are_refused(tmp_path):
    file = tmp_path / "text.txt"
    file.write_text("a" * 2000, encoding="utf-8")
    texts = m.Texts(TextTraining(text=str(file), window=64, batch_size=16, vocab=1000))
    with pytest.raises(ValueError, match="pieces to train on, fewer than a window of 64"):
        texts.windows(0, 0)


@pytest.fixture(scope="module")
def own_text(tmp_path_factory):
    """A folder with a text, and a model that has read it."""
    folder = tmp_path_factory.mktemp("own")
    file = folder / "mine.txt"
    file.write_text("The quick brown fox jumps over the lazy dog.\n" * 60, encoding="utf-8")
    options = [*SMALLEST, "--text", str(file), "--max-len", "32", "--window", "32", "--outputs", str(folder)]
    process = run_lesson("10_architectures", *options)
    assert process.returncode == 0, process.stdout + process.stderr
    assert "bits per character" in process.stdout
    assert "small grammar" not in process.stdout  # only the steps about the text
    return folder, options


@pytest.mark.exhaustive
def test_an_own_text_is_read_and_continued(own_text):
    folder, options = own_text
    assert len([*folder.glob("checkpoint_text-text=mine.*.pt")]) == 1
    assert len([*folder.glob("architectures_language_model-*.png")]) == 1
    before = {path.name: path.read_bytes() for path in folder.glob("checkpoint*")}
    process = run_lesson("10_architectures", *options, "--input", "The quick", "--no-page")
    assert process.returncode == 0, process.stderr
    assert "The quick" in process.stdout
    assert "2/2" not in process.stdout  # nothing is trained again
    assert {path.name: path.read_bytes() for path in folder.glob("checkpoint*")} == before
    said = [run_lesson("10_architectures", *options, "--input", "The", "--temperature", heat).stdout
            for heat in ("0", "0", "2")]
    assert said[0] == said[1] != said[2]


def test_a_prompt_longer_than_max_len_ends_in_one_line(own_text):
    _, options = own_text
    process = run_lesson("10_architectures", *options, "--input", "fox " * 30, "--no-page")
    assert "the prompt has 119 pieces; with max_len 32 at most 31 fit" in one_line_error(process, 2)
    fits = run_lesson("10_architectures", *options, "--input", "f" * 31, "--no-page")
    assert fits.returncode == 0, fits.stderr


@pytest.mark.exhaustive
@pytest.mark.parametrize("wrong", [["--temperature", "-1"], ["--temperature", "nan"], ["--top-p", "1.5"],
                                   ["--input", " "], ["--task", "other"], ["--max-len", "63"]])
def test_wrong_options_end_in_one_line(wrong, tmp_path):
    error = one_line_error(run_lesson("10_architectures", *wrong, "--outputs", str(tmp_path)), 2)
    assert wrong[1].strip() in error


@pytest.mark.exhaustive
def test_a_conversation_goes_on_with_each_line(own_text, monkeypatch, capsys):
    _, options = own_text
    lines = iter(["The fox", "x" * 40, ""])
    monkeypatch.setattr("builtins.input", lambda prompt="": next(lines))
    monkeypatch.setattr("sys.argv", ["10_architectures.py", *options, "--chat"])
    m.main()
    said = capsys.readouterr().out
    assert "The fox" in said
    assert "the prompt has 40 pieces" in said


# the small grammar


def readings(symbols: tuple[str, ...], longest: int):
    """(words, probability) of all that the symbols can become, of at most so many words."""
    place = next((n for n, symbol in enumerate(symbols) if symbol in small_grammar.RULES), None)
    if len(symbols) > longest:
        return
    if place is None:
        yield symbols, 1.0
        return
    for chance, text in small_grammar.RULES[symbols[place]]:
        for words, rest in readings((*symbols[:place], *text.split(), *symbols[place + 1 :]), longest):
            yield words, chance * rest


def test_every_sentence_can_be_read_in_one_way_and_has_its_probability():
    found = [*readings(("SENTENCE",), 7)]
    assert len({words for words, _ in found}) == len(found) > 1000
    truth = dict(found)
    drawn = small_grammar.sentences(4000, 5)
    short = [one for one in drawn if len(one.words) <= 7]
    assert all(math.exp(one.log_probability) == pytest.approx(truth[one.words]) for one in short)
    assert len(short) / len(drawn) == pytest.approx(sum(truth.values()), abs=0.03)
    assert sum(chance for rules in small_grammar.RULES.values() for chance, _ in rules) == pytest.approx(
        len(small_grammar.RULES))


def test_the_entropy_is_the_mean_of_minus_log_p():
    entropy, length = small_grammar.expected()
    drawn = small_grammar.sentences(20_000, 6)
    assert entropy == pytest.approx(-np.mean([one.log_probability for one in drawn]), rel=0.02)
    assert length == pytest.approx(np.mean([len(one.words) for one in drawn]), rel=0.02)


def test_numbers_of_nouns_are_compared():
    grammar = small_grammar
    rows = [[grammar.ID_OF[word] for word in text.split()]
            for text in ("the old cats see .", "the dog sleeps .")]
    assert grammar.first_nouns(rows).tolist() == [2, 1]
    logits = torch.zeros(2, 40)
    logits[0, grammar.ID_OF["birds"]] = logits[1, grammar.ID_OF["girl"]] = 1.0
    logits[:, grammar.ID_OF["sleeps"]] = 9.0  # no noun
    wanted = torch.tensor([grammar.ID_OF["cats"], grammar.ID_OF["dog"]])
    assert grammar.right_number(logits, wanted) == 1
    assert grammar.right_number(logits, wanted.flip(0)) == 0


# the task as a prompt, pictures


def test_only_the_answer_is_asked_for():
    tokens, targets = m.prompted([[1, 2, 3], [4, 5, 6, 7]])
    assert tokens.tolist() == [[1, 4, 5, 6, 13, 6, 5, 4, 0, 0], [1, 7, 8, 9, 10, 13, 10, 9, 8, 7]]
    assert targets.tolist() == [[0, 0, 0, 0, 6, 5, 4, 2, 0, 0], [0, 0, 0, 0, 0, 10, 9, 8, 7, 2]]
    assert m.prompted([[1, 2, 3]], True).targets.tolist() == [[4, 5, 6, 13, 6, 5, 4, 2]]


def test_the_weight_on_the_next_digit_is_found():
    text = 2 * len(trials.EXAMPLE) + 2
    weights = torch.zeros(2, text, text)
    for written, place in enumerate(range(len(trials.EXAMPLE), 0, -1)):
        weights[1, 1 + len(trials.EXAMPLE) + written, place] = 0.5
    assert trials.on_the_next(weights).tolist() == [0, 0.5]


def test_a_perfect_model_is_scored_as_perfect(monkeypatch):
    def reverse(decoding, length):
        ids = decoding[:, :-1].flip(1)
        return torch.cat([ids, torch.full((len(ids), 1), m.EOS)], dim=1)

    names = "make_batch", "SEPARATOR", "exactly_right"
    ours = SimpleNamespace(**{name: getattr(m, name) for name in names},
                           PromptDecoding=lambda model, prompt: prompt, greedy_decode=reverse)
    sequences = [[1, 2, 3, 4], [5, 6, 7, 8, 9], [1, 1, 2, 2]]
    assert trials.exactly_prompted(ours, None, sequences) == 1
    ours.greedy_decode = lambda decoding, length: reverse(decoding.flip(1), length)
    assert trials.exactly_prompted(ours, None, sequences) == 0


def test_the_digits_are_all_there_and_kept_apart():
    parts = handwritten_digits()
    assert {name: len(part.digits) for name, part in parts.items()} == {
        "train": 1097, "validation": 200, "test": 500}
    digits = torch.cat([part.digits for part in parts.values()])
    assert digits.bincount().tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert all(part.pixels.shape[1:] == (1, 8, 8) for part in parts.values())
    assert all((part.pixels.min(), part.pixels.max()) == (0, 1) for part in parts.values())
    known = {picture.numpy().tobytes() for picture in parts["train"].pixels}
    assert sum(picture.numpy().tobytes() in known for picture in parts["test"].pixels) == 0


def test_shuffled_patches_are_the_same_patches():
    pixels = handwritten_digits()["test"].pixels[:3]
    mixed = shuffled(pixels, 2)
    cut = m.Patches(2, 4).cut
    for before, after in zip(cut(pixels), cut(mixed)):
        assert sorted(before.tolist()) == sorted(after.tolist())
        assert not torch.equal(before, after)


def test_a_picture_stack_without_positions_sees_a_set():
    torch.manual_seed(0)
    pixels = handwritten_digits()["test"].pixels[:5]
    for positions, same in (("none", True), ("learned", False)):
        model = m.PictureStack(replace(trials.VISION, positions=positions), 2, 8).eval()
        gap = (model(pixels) - model(shuffled(pixels, 2))).abs().max()
        assert (gap < 1e-5) == same


# few labels


def test_topics_have_enough_sentences_and_the_test_has_other_words():
    parts = labelled()
    for topic in range(len(TOPICS)):
        counts = [sum(one.topic == topic for one in some) for some in parts.values()]
        assert counts == [24, 20]
    words = [{word for one in some for word in words_in(one.sentence)} for some in parts.values()]
    shared = {word for word in words[0] & words[1] if len(word) > 4}
    assert shared <= {"again", "after", "forty", "house", "notes", "please", "their", "whole"}
    sentences = [one.sentence for some in parts.values() for one in some]
    assert len(set(sentences)) == len(sentences)


def test_labels_are_drawn_from_the_training_sentences():
    few, many, other = draw_labels(4, 0), draw_labels(16, 0), draw_labels(4, 1)
    assert {*few.known} < {*many.known}
    assert few.alike == many.alike
    assert few.known != other.known
    assert {*many.known}.isdisjoint(many.alike)
    assert {*many.known, *many.alike} == {*labelled()["train"]}
    assert [one.topic for one in few.known] == [0] * 4 + [1] * 4 + [2] * 4 + [3] * 4


def test_vectors_that_tell_the_topic_are_read_and_others_guess():
    topic_of = {one.sentence: one.topic for some in labelled().values() for one in some}

    def telling(known):
        return lambda sentences: torch.eye(4)[[topic_of[one] for one in sentences]]

    assert few_labels.linear_map(m, telling, 4, 0) == (1, 1)
    silent = few_labels.linear_map(m, lambda known: lambda sentences: torch.ones(len(sentences), 3), 4, 0)
    assert silent == (0.25, 0.25)


def test_a_bag_of_words_counts_known_words():
    known = [Labelled("The rain, the wind", 0), Labelled("a song", 1)]  # a, rain, song, the, wind
    rows = topics.bag_of_words(known)(["THE the rain", "nothing known"])
    assert rows[0] == pytest.approx(torch.tensor([0, 1, 0, 2, 0]) / math.sqrt(5))
    assert rows[1].tolist() == [0] * 5


def test_a_stack_learns_from_its_labels_and_padding_does_not_count():
    torch.manual_seed(0)
    config = replace(TINY, causal=False)
    reader = few_labels.MeanReader(m.OneStack(config), 5).eval()
    short, padded = torch.tensor([[1, 5, 6]]), torch.tensor([[1, 5, 6, 0, 0]])
    assert torch.allclose(reader(short), reader(padded), atol=1e-6)
    assert few_labels.from_nothing(m, 16, 0).alike > 0.3  # 0.25 by chance


def test_findings_hold_for_good_vectors_and_fail_for_bad_ones(monkeypatch):
    monkeypatch.setattr(few_labels, "DRAWS", range(2))
    monkeypatch.setattr(few_labels, "from_nothing", lambda ours, count, draw: few_labels.Right(0.4, 0.25))
    topic_of = {one.sentence: one.topic for some in labelled().values() for one in some}
    found = {}
    for name, encode in (("none", None), ("bad", lambda sentences: torch.ones(len(sentences), 4)),
                         ("good", lambda sentences: torch.eye(4)[[topic_of[one] for one in sentences]])):
        findings, header, rows = few_labels.shown(m, encode)
        assert all(len(row) == len(header) for row in rows)
        found[name] = len(rows), [holds for _, holds in findings]
    assert found == {"none": (4, [True] * 3), "bad": (6, [True] * 3 + [False]), "good": (6, [True] * 4)}
    monkeypatch.setattr(few_labels, "from_nothing", lambda ours, count, draw: few_labels.Right(0.5, 0.5))
    assert [holds for _, holds in few_labels.shown(m, None)[0]] == [False, False, True]


def test_the_last_norm_gets_a_bias():
    plain, biased = (trials.stack_named(m, {"x": replace(TINY, norm_kind="rms")}, f"x{end}")
                     for end in ("", trials.LAST_BIAS))
    assert parameters(biased) == parameters(plain) + TINY.d_model
    nn.init.ones_(biased.stack.norm.bias)
    x = torch.randn(1, 2, 16)
    assert torch.allclose(biased.stack.norm(x), biased.stack.norm.norm(x) + 1)


# the lesson


def test_every_mistake_is_told_apart_by_its_hint():
    for part in m.GRADED.values():
        hints = [mistake.hint for mistake in part.mistakes(m).values()]
        assert len({*hints}) == len(hints)
    assert len([*itertools.chain(*(part.mistakes(m) for part in m.GRADED.values()))]) > 20


@pytest.mark.exhaustive
@pytest.mark.parametrize("task", ["text", "fill", "prompt", "digits"])
def test_tasks_run_by_themselves(task, tmp_path):
    process = run_lesson("10_architectures", "--task", task, "--seed", "1", "--outputs", str(tmp_path))
    assert process.returncode == 0, process.stdout + process.stderr


@pytest.mark.exhaustive
def test_values_are_compared(tmp_path):
    process = run_lesson("10_architectures", *SMALLEST, "--compare", "norm_kind=layer,rms", "--seeds", "2",
                         "--outputs", str(tmp_path))
    assert process.returncode == 0, process.stdout + process.stderr
    assert len([*tmp_path.glob("architectures_compare_norm_kind*.png")]) == 1


def test_walkthrough_agrees_with_the_quickstart(course):
    run_as_documented("10_architectures", course)

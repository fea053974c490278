"""Parts of course/ and checks/ that only long runs would use: threads, memory, files of pairs, alignment."""

from collections import namedtuple
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common import lesson, mask_rows
from course.console import chat, measuring
from course.console.chat import converse
from course.console.files import write_text
from course.console.measuring import bytes_kept, multiplications_of, shapes_through
from course.data import alignment
from course.data.splits import apart_from, by_source
from course.data.toys import CLASSES, VOCABULARY, made_up_text, same_class
from course.training import memory, stacked, threads
from course.training.beams import largest_first
from grammar.sentences import Pair

# ------------------------------------------------------------------ threads


@pytest.fixture
def trial(monkeypatch):
    """trial(seconds with one thread, with four) → the threads chosen where gradients take so long."""
    set_to, clock = [1], [0.0]

    def choose(one: float, four: float, device: str = "cpu", finished: bool = False) -> int:
        done = []

        def backward(step: int) -> float:
            clock[0] += 100 if not done or done[-1][0] != set_to[0] else one if set_to[0] == 1 else four
            done.append((set_to[0], step))
            return 0.0

        run = SimpleNamespace(backward=backward, device=torch.device(device), finished=finished,
                              optimizer=SimpleNamespace(zero_grad=lambda: done.append("cleared")))
        chosen = threads.tried(run, 4)
        assert not done or done[-1] == "cleared"
        return chosen

    monkeypatch.setattr(torch, "set_num_threads", lambda number: set_to.__setitem__(0, number))
    monkeypatch.setattr(threads.time, "perf_counter", lambda: clock[0])
    return choose


def test_all_threads_are_taken_where_they_are_faster(trial):
    assert trial(1.0, 0.6) == 4
    assert trial(1.0, 5.0) == 1
    assert trial(1.0, 0.99) == 1  # so little may be chance


def test_there_is_no_trial_where_nothing_can_be_chosen(trial):
    assert trial(1.0, 0.1, device="meta") == 1
    assert trial(1.0, 0.1, finished=True) == 1
    assert threads.tried(None, 1) == 1


def test_threads_are_as_they_were_afterwards(monkeypatch):
    before, set_to = torch.get_num_threads(), []
    monkeypatch.setattr(threads, "tried", lambda run, most: 1)
    monkeypatch.setattr(torch, "set_num_threads", set_to.append)
    with threads.threads_for(None, 3):
        assert set_to == [3]  # as asked, without a trial
    with pytest.raises(ZeroDivisionError), threads.threads_for(None, None):
        raise ZeroDivisionError
    assert set_to == [3, before, 1, before]


def watched(monkeypatch, seconds, chosen=1, at_first=4):
    """(threads after each step, what was said) where the steps take so many seconds."""
    set_to, said, trials, after = [at_first], [], [], []
    monkeypatch.setattr(torch, "get_num_threads", lambda: set_to[0])
    monkeypatch.setattr(torch, "set_num_threads", lambda number: set_to.__setitem__(0, number))
    monkeypatch.setattr(threads, "tried", lambda run, most: trials.append(most) or chosen)
    watch = threads.Watch(said.append)
    run = SimpleNamespace(history=[], finished=False)
    for number in seconds:
        run.history.append({"seconds": number})
        watch(run)
        after.append(set_to[0])
    return after, said, trials


def test_several_threads_become_one_where_steps_become_several_times_slower(monkeypatch):
    after, said, trials = watched(monkeypatch, [0.1] * 40 + [1.5] * 40)
    assert after == [4] * 49 + [1] * 31
    assert trials == [4]
    assert said == ["The last steps took 15 times as long as the first: other programs need the cores. "
                    "Training continues with one thread."]


def test_a_single_slow_step_or_long_batches_are_no_neighbours(monkeypatch):
    assert watched(monkeypatch, [0.1] * 20 + [0.1] * 9 + [9.0] + [0.3] * 40)[1:] == ([], [])
    assert watched(monkeypatch, [0.1] * 20 + [9.0] * 80, at_first=1)[1:] == ([], [])


def test_where_one_thread_is_no_faster_it_stays_and_is_asked_less_and_less_often(monkeypatch):
    after, said, trials = watched(monkeypatch, [0.1] * 20 + [1.0] * 110, chosen=4)
    assert (after, said) == ([4] * 130, [])
    assert trials == [4] * 3  # after 30, 50 and 90 steps


def test_fewer_threads_leave_the_numbers_as_they_are():
    """To rounding: the engine's run, with a trial and a change of threads in the middle."""
    five = lesson("05_mini_transformer")
    losses = []
    for changes in False, True:
        before = torch.get_num_threads()
        run = five.make_run(five.TransformerConfig(d_model=32, n_layers=1),
                            five.TrainingConfig(steps=6, batch_size=4), torch.device("cpu"))
        torch.set_num_threads(2)
        try:
            while not run.finished:
                if changes and len(run.history) == 3:
                    threads.tried(run, 2)
                    torch.set_num_threads(1)
                run.update()
        finally:
            torch.set_num_threads(before)
        losses.append(run.noted("loss"))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


# ------------------------------------------------------------------ memory


@pytest.mark.parametrize(("error", "is_memory"), [
    (MemoryError(), True), (RuntimeError("CUDA out of memory. Tried to"), True),
    (RuntimeError("[enforce] DefaultCPUAllocator: Can't allocate memory: you tried"), True),
    (RuntimeError("shapes don't fit"), False), (OverflowError("int too big to convert"), True),
    (ValueError("out of memory"), False),
])
def test_errors_that_say_that_the_memory_is_too_small(error, is_memory):
    assert memory.out_of_memory(error) == is_memory


def test_the_smallest_limit_counts(monkeypatch):
    cpu = torch.device("cpu")
    monkeypatch.setattr(memory.os, "sysconf_names", {"SC_PAGE_SIZE": 0, "SC_PHYS_PAGES": 1}, raising=False)
    here = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 1000}
    monkeypatch.setattr(memory.os, "sysconf", here.get, raising=False)
    monkeypatch.setattr(memory, "resource", None)
    for said, wanted in (("max", 4_096_000), ("3000000", 3_000_000), ("9000000", 4_096_000)):
        monkeypatch.setattr(memory.Path, "read_text", lambda self, said=said: said)
        assert memory.memory_of(cpu) == wanted
    limit = SimpleNamespace(RLIMIT_AS=0, RLIM_INFINITY=-1, getrlimit=lambda which: (2_000_000, -1))
    monkeypatch.setattr(memory, "resource", limit)
    assert memory.memory_of(cpu) == 2_000_000


def test_sizes_in_words():
    assert [memory.gigabytes(size) for size in (3 * 10**8, 12 * 10**12)] == ["0.3 GB", "12,000 GB"]


# ------------------------------------------------------------------ pairs of one's own


def test_a_source_is_in_one_split_however_it_is_written():
    pairs = [(f"sentence {number}", f"phrase {number}") for number in range(3000)]
    splits = by_source([*pairs, *((source.upper() + "!", target + " bis") for source, target in pairs)], 5)
    sources = {split: {source.casefold().strip("!") for source, _ in found}
               for split, found in splits.items()}
    assert sum(map(len, sources.values())) == 3000
    assert not sources["train"] & (sources["validation"] | sources["test"])
    assert not sources["validation"] & sources["test"]
    for split in "validation", "test":
        assert 0.03 < len(sources[split]) / 3000 < 0.07
        assert len(splits[split]) == len(sources[split])  # asked once each
    assert len(splits["train"]) == 2 * len(sources["train"])


def test_what_is_asked_is_not_learned():
    assert apart_from([("a", "b"), ("c", "d"), ("a", "e")], [("a", "x")]) == [("c", "d")]


# ------------------------------------------------------------------ a conversation


@pytest.mark.parametrize("end", [None, "", EOFError, KeyboardInterrupt])
def test_a_conversation_answers_line_by_line_until_its_end(end, tmp_path, monkeypatch, capsys):
    lines = iter([" hello ", "bad", "again", end])

    def typed(prompt: str) -> str:
        line = next(lines)
        if not isinstance(line, str):
            raise line or EOFError
        return line

    def answer(line: str) -> str:
        if line == "bad":
            raise ValueError("what is bad")
        return line.upper()

    monkeypatch.setattr("builtins.input", typed)
    converse(answer, tmp_path)
    assert capsys.readouterr().out.split("\n")[:3] == ["HELLO", "what is bad", "AGAIN"]


# ------------------------------------------------------------------ the alignment of lesson 8


PAIR = Pair("The cat sleeps.", "Le chat dort.", ((0, 0), (1, 1), (2, 2), (3, 3)), frozenset(), frozenset())
SOURCE, TARGET = ["The", " c", "at", " sleeps", "."], ["Le", " chat", " do", "rt."]


def test_pieces_belong_to_the_word_in_which_they_end():
    words = ["The", "cat", "sleeps", "."]
    assert alignment.places(PAIR.source, words, SOURCE) == [0, 1, 1, 2, 3]
    assert alignment.belonging("a a b", ["a", " a", " b"]).tolist() == np.eye(3).tolist()


def test_weights_of_words_are_sums_of_columns_and_means_of_rows():
    weights = torch.zeros(1, 5, 6)
    weights[0, 0, 0] = weights[0, 1, 1] = 1.0
    weights[0, 2] = torch.tensor([0.0, 0.25, 0.25, 0.5, 0.0, 0.0])
    weights[0, 3] = torch.tensor([0.0, 0.0, 0.5, 0.0, 0.5, 0.0])
    weights[0, 4, 5] = 1.0  # EOS: no word
    pair = PAIR._replace(target="Le chat dort", alignment=PAIR.alignment[:3])
    found = alignment.word_weights(weights, pair, SOURCE, ["Le", " chat", " do", "rt"])
    assert torch.allclose(found, torch.tensor([[[1.0, 0, 0, 0], [0, 1.0, 0, 0], [0, 0.5, 0.25, 0.25]]]))


def test_partners_are_counted_where_there_are_any():
    pair = PAIR._replace(alignment=((0, 1), (0, 2), (2, 0)))
    grid = alignment.partners(pair)
    assert grid.nonzero().tolist() == [[0, 2], [1, 0], [2, 0]]
    assert grid.shape == (4, 4)
    weights = torch.zeros(2, 4, 4)
    weights[0, 0, 2] = weights[0, 1, 0] = weights[0, 2, 3] = weights[0, 3, 0] = 1.0  # the third is wrong
    weights[1, 0, 1] = weights[1, 1, 1] = weights[1, 2, 0] = 1.0
    assert alignment.partners_found(weights, pair).tolist() == [2.0, 1.0]


# ------------------------------------------------------------------ toys


def test_neighbours_of_the_same_class_are_counted():
    directions = torch.eye(len(CLASSES))
    sorted_out = torch.cat([directions[[place] * len(words)] * (1 + place)
                            for place, words in enumerate(CLASSES.values())])
    assert same_class(sorted_out + 0.0) == 1.0
    assert same_class(torch.cat([sorted_out, torch.ones(6, len(CLASSES))])) == 1.0  # other words don't count
    apart = torch.cat([torch.eye(6)[: len(words)] for words in CLASSES.values()])  # alike across the classes
    noise = torch.randn(apart.shape, generator=torch.Generator().manual_seed(0))
    assert same_class(apart + 0.01 * noise) == 0.0  # a word isn't its own neighbour


def test_made_up_sentences_are_of_the_vocabulary():
    text = made_up_text(np.random.default_rng(0), 50)
    assert len(text) == 50
    assert {word for sentence in text for word in sentence} <= {*VOCABULARY}
    assert len({*map(tuple, text)}) > 30


Sizes = namedtuple("Sizes", "d_model d_ff n_layers batch_size")


def test_what_the_memory_depends_on_is_named():
    sizes = Sizes(1024, 4096, 2, 32)
    assert memory.sizes_of(sizes, sizes) == "d_model 1,024, d_ff 4,096, n_layers 2, batch_size 32"


# ------------------------------------------------------------------ what a call does


def test_multiplications_are_the_pairs_of_numbers_that_products_multiply():
    a, b = torch.randn(3, 4), torch.randn(4, 5)
    assert multiplications_of(torch.matmul, a, b) == 3 * 4 * 5
    assert multiplications_of(lambda a, b: (a @ b).exp() @ b.mT, a, b) == 2 * 3 * 4 * 5


def test_bytes_kept_are_those_of_results_not_of_inputs():
    x, w = torch.randn(6, 7, requires_grad=True), torch.randn(7, 5, requires_grad=True)
    assert bytes_kept(torch.matmul, x, w) == 0  # it needs its inputs alone
    assert bytes_kept(torch.exp, x) == 4 * 6 * 7  # its own result
    assert bytes_kept(lambda x, w: (x.exp() @ w).exp(), x, w) == 4 * (6 * 7 + 6 * 5)


def test_shapes_are_those_of_the_parts_in_the_order_of_running():
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Sequential(torch.nn.ReLU()))
    assert shapes_through(model, torch.zeros(2, 3)) == [
        ("0", "Linear", "2 × 4"), ("1", "Sequential", "2 × 4")]
    assert shapes_through(model, torch.zeros(5, 3))[0] == ("0", "Linear", "5 × 4")  # and no hook is left


def test_files_are_readable_by_everybody(tmp_path):
    write_text(tmp_path / "x.txt", "x")
    assert (tmp_path / "x.txt").stat().st_mode & 0o777 == 0o644
    assert [*tmp_path.iterdir()] == [tmp_path / "x.txt"]


def test_the_first_call_is_no_measurement(monkeypatch):
    """It takes 100 seconds here, the others 1, 3, 1, 3, …"""
    clock, calls = [0.0], []

    def work(x):
        calls.append(x)
        clock[0] += 100 if len(calls) == 1 else 1 + 2 * (len(calls) % 2)

    monkeypatch.setattr(measuring.time, "perf_counter", lambda: clock[0])
    assert measuring.seconds_of(work, 7, repeats=2) == 2
    assert calls == [7, 7, 7]
    calls.clear()
    assert measuring.seconds_of(work, 7, repeats=1) == 1


@pytest.mark.parametrize("rows", [1, 4, 50])
def test_a_cost_is_that_of_one_answer_however_many_there_are(rows, monkeypatch):
    """Where each token takes 0.01 seconds, and the beginning 0.02 for each answer."""
    clock = [0.0]

    def spend(seconds):
        clock[0] += seconds

    def begin():
        spend(0.02 * rows)
        return SimpleNamespace(step=lambda tokens: spend(0.01 * len(tokens)))

    def decode(decoding):
        for tokens in ([0] * rows, [1] * rows, [2] * 2 * rows):  # the last step has two beams
            decoding.step(tokens)
        return torch.zeros(rows, 3)

    monkeypatch.setattr(measuring.time, "perf_counter", lambda: clock[0])
    answers, tokens, milliseconds = measuring.cost_of(begin, decode)
    assert answers.shape == (rows, 3)
    assert tokens == 4
    assert milliseconds == pytest.approx(20 + 40)


# ------------------------------------------------------------------ toys, models side by side, the largest


def test_three_neighbours_are_asked_for_their_class():
    vectors = torch.randn(len(VOCABULARY), 5, generator=torch.Generator().manual_seed(0))
    kinds = [kind for kind, words in CLASSES.items() for _ in words]
    own = 0
    for word, kind in enumerate(kinds):
        angles = torch.cosine_similarity(vectors[word], vectors[: len(kinds)], dim=-1).tolist()
        nearest = sorted((-angle, other) for other, angle in enumerate(angles) if other != word)[:3]
        own += sum(kinds[other] == kind for _, other in nearest)
    assert same_class(vectors) == pytest.approx(own / (3 * len(kinds)))


def test_each_of_the_models_side_by_side_has_the_gradient_of_its_own_mean_loss(monkeypatch):
    models = [torch.nn.Linear(3, 4) for _ in range(3)]
    x, wanted = torch.randn(3, 5, 3), torch.randint(4, (3, 5))
    seen = []
    monkeypatch.setattr(stacked, "clip_each", lambda weights, _: seen.append([w.grad + 0 for w in weights]))
    stacked.train_stacked(models, lambda: (x, wanted), 1, 0.1)
    for number, model in enumerate(models):
        torch.nn.functional.cross_entropy(model(x[number]), wanted[number]).backward()
        for found, parameter in zip(seen[0], model.parameters()):
            assert torch.allclose(found[number], parameter.grad, atol=1e-6)


@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 9), st.integers(1, 9))
def test_the_largest_are_those_of_a_stable_sort(seed, rows, columns, count):
    values = torch.randint(4, (rows, columns), generator=torch.Generator().manual_seed(seed)).double()
    expected = values.sort(dim=1, descending=True, stable=True)
    for found, sorted_all in zip(largest_first(values, count), expected):
        assert torch.equal(found, sorted_all[:, :count])


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_prompt_is_for_a_terminal(is_terminal, monkeypatch):
    shown = []
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: is_terminal))
    monkeypatch.setattr("builtins.input", lambda prompt: shown.append(prompt) or " line ")
    assert chat.read() == "line"
    assert shown == ["> " if is_terminal else ""]


def test_a_mask_is_shown_with_a_1_where_the_query_may_look():
    assert mask_rows(torch.tensor([[True, False], [True, True]])) == [" 1 ·", " 1 1"]


def test_only_what_is_written_is_spelt_out():
    assert "√2 → 1".encode("ascii", "spell") == b"sqrt2 -> 1"
    with pytest.raises(UnicodeDecodeError):
        b"\xff".decode("ascii", "spell")

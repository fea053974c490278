import csv
import math
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
from conftest import (
    ROOT,
    holds,
    one_line_error,
    pictures_in,
    run_as_documented,
    run_lesson,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from common import lesson
from course.console.files import unfinished
from course.grading.own import Own
from course.training.broken import broken_runs
from course.training.engine import save_run, train
from course.training.experiment import fresh_run, load_run
from course.training.parts import build, found_in
from figures.training import draw_patterns

m = lesson("05_mini_transformer")
CPU = torch.device("cpu")
SMALL = m.TransformerConfig(d_model=16, n_heads=2, n_layers=1)
SHORT = m.TrainingConfig(steps=30, batch_size=8, warmup=5)


def run_of(config=SMALL, training=SHORT):
    return m.make_run(config, training, CPU)


def remake(about, own=m.NOTHING, folder=Path()):
    """The run of which a checkpoint tells, as an experiment with these parts makes it."""
    options = SimpleNamespace(device="cpu", outputs=folder)
    return m.DigitExperiment(SMALL, SHORT, options, own).remade(about)


def loaded(path):
    return load_run(path, remake)


digits = st.lists(st.integers(0, 9), min_size=1, max_size=8)


def trained(run, until=None):
    """The run after its next steps, validated as train() does, without output or checkpoints."""
    while not run.finished and len(run.history) != until:
        run.update()
    return run


# the data


@given(digits)
def test_tasks_do_what_they_are_called(sequence):
    assert m.TASKS["reverse"](sequence) == list(reversed(sequence))
    assert m.TASKS["copy"](sequence) == sequence
    assert m.TASKS["sort"](sequence) == sorted(sequence)
    assert int("".join(map(str, m.TASKS["sum"](sequence)))) == sum(sequence)
    assert [a + b for a, b in zip(m.TASKS["mirror"](sequence), sequence[::-1])] == [9] * len(sequence)


def test_a_model_has_a_row_for_every_token():
    assert m.TransformerConfig().vocab_size == len(m.tokenizer)


def test_splits_never_share_a_sequence():
    drawn = {split: {tuple(s) for s in m.draw_sequences(20_000, split, (0,), (1, 5))}
             for split in ("train", "validation", "test")}
    assert not drawn["train"] & drawn["test"]
    assert not drawn["train"] & drawn["validation"]
    assert not drawn["validation"] & drawn["test"]


@given(st.integers(0, 1000), st.integers(1, 50))
@settings(max_examples=20)
def test_drawn_sequences_are_as_asked_and_repeatable(seed, count):
    drawn = m.draw_sequences(count, "train", (seed,), (2, 4))
    assert drawn == m.draw_sequences(count, "train", (seed,), (2, 4))
    assert len(drawn) == count
    assert all(2 <= len(s) <= 4 and m.split_of(s) == "train" for s in drawn)


@given(st.lists(digits, min_size=1, max_size=5), st.sampled_from(sorted(m.TASKS)))
def test_batches_hold_the_answers_shifted(sequences, task):
    src, tgt_in, tgt_out = m.make_batch(task, sequences)
    for row, sequence in enumerate(sequences):
        answer = [m.ZERO + d for d in m.TASKS[task](sequence)]
        real = len(answer) + 1
        assert src[row].tolist() == [m.ZERO + d for d in sequence] + [0] * (src.shape[1] - len(sequence))
        assert tgt_in[row].tolist() == [m.BOS, *answer] + [0] * (tgt_in.shape[1] - real)
        assert tgt_out[row].tolist() == [*answer, m.EOS] + [0] * (tgt_in.shape[1] - real)


# model, loss, optimiser, schedule


@pytest.mark.parametrize("name", m.GRADED)
def test_our_own_parts_hold(name):
    for check in m.GRADED[name](getattr(m, name), m):
        holds(check)


def test_the_kernel_of_the_loss_holds():
    for check in m.checks.sequence_loss_checks(m.fused_sequence_loss, m):
        holds(check)


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("positions", ["sinusoidal", "learned", "rotary", "none"])
def test_padding_and_batch_mates_are_invisible(positions, norm):
    torch.manual_seed(0)
    model = m.Transformer(replace(SMALL, positions=positions, norm=norm)).double().eval()
    batch = m.make_batch("reverse", [[1, 2, 3, 4, 5, 6], [7, 8]])
    alone = m.make_batch("reverse", [[7, 8]])
    together = model(batch.src, batch.tgt_in)[1, :3]
    assert torch.allclose(together, model(alone.src, alone.tgt_in)[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("positions", ["sinusoidal", "learned"])
def test_tokens_from_start_on_get_their_own_positions(positions):
    model = m.Transformer(replace(SMALL, positions=positions))
    tokens = m.draw_batch("copy", 3, "train", (0,)).src
    assert torch.equal(model.embed(tokens[:, 2:], start=2), model.embed(tokens)[:, 2:])


def test_several_new_tokens_beside_a_cache_see_what_they_may():
    torch.manual_seed(0)
    model, batch = m.Transformer(SMALL).double().eval(), m.draw_batch("copy", 3, "train", (0,))
    whole = model(batch.src, batch.tgt_in)
    six = lesson("06_decoding")
    cached = six.CachedDecoding(model, batch.src)
    with torch.inference_mode(), six.remembering([*cached.self_caches, *cached.cross_caches]):
        parts = [model.decode(tokens, memory, cached.src_mask, start) for tokens, memory, start in (
            (batch.tgt_in[:, :2], cached.memory, 0), (batch.tgt_in[:, 2:], cached.memory[:, :0], 2))]
    assert torch.allclose(torch.cat(parts, dim=1), whole, rtol=0, atol=1e-10)


def test_every_parameter_is_trained_and_the_output_stays_tied():
    torch.manual_seed(0)
    model = m.Transformer(SMALL)
    batch = m.draw_batch("reverse", 8, "train", (0,))
    m.sequence_loss(model(batch.src, batch.tgt_in), batch.tgt_out).backward()
    silent = [name for name, p in model.named_parameters() if not p.grad.abs().sum() > 0]
    assert all("project_key.bias" in name for name in silent)
    other = m.Transformer(SMALL)
    other.load_state_dict(model.state_dict())
    x = torch.randn(1, 16)
    assert torch.equal(other.embedding.logits(x), x @ other.embedding.weight.T)


@given(st.integers(0, 10**6), st.floats(0, 0.9))
@settings(max_examples=30)
def test_the_loss_equals_pytorchs(seed, smoothing):
    torch.manual_seed(seed)
    logits, targets = 3 * torch.randn(3, 5, 7).double(), torch.randint(0, 7, (3, 5))
    expected = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), ignore_index=0, label_smoothing=smoothing, reduction="sum"
    )
    assert m.sequence_loss(logits, targets, smoothing).item() == pytest.approx(expected.item(), abs=1e-9)


def test_our_adam_trains_as_pytorchs_does_for_50_steps():
    batch = m.draw_batch("reverse", 8, "train", (0,))
    models = []
    for make in (m.Adam, torch.optim.Adam):
        torch.manual_seed(0)
        model = m.Transformer(SMALL).double()
        optimizer = make(model.parameters(), lr=3e-3)
        for _ in range(50):
            model.zero_grad()
            m.sequence_loss(model(batch.src, batch.tgt_in), batch.tgt_out).backward()
            optimizer.step()
        models.append(torch.cat([p.flatten() for p in model.parameters()]))
    assert torch.allclose(*models, rtol=0, atol=1e-9)


@given(st.integers(1, 300), st.integers(0, 400))
def test_the_linear_schedule_rises_then_falls(steps, warmup):
    training = m.TrainingConfig(steps=steps, warmup=warmup, lr=1.0)
    rates = [m.learning_rate(step, training, 64) for step in range(steps)]
    assert all(0 < rate <= 1 for rate in rates)
    if 0 < warmup < steps:
        assert rates[warmup - 1] == 1
        assert rates[0] == pytest.approx(1 / warmup)
    if warmup < steps:
        after = rates[warmup:]
        assert after == sorted(after, reverse=True)


def test_the_papers_schedule_is_its_formula():
    training = m.TrainingConfig(schedule="inverse_sqrt", warmup=40)
    for n in (1, 7, 40, 41, 500):
        expected = 512**-0.5 * min(n**-0.5, n * 40**-1.5)
        assert m.learning_rate(n - 1, training, 512) == pytest.approx(expected)


@pytest.mark.parametrize(("config", "changes", "message"), [
    (m.TransformerConfig, {"d_model": 30}, "d_model 30 does not split into 4 heads"),
    (m.TransformerConfig, {"dropout": 1.0}, "dropout is 1.0"),
    (m.TransformerConfig, {"dropout": math.nan}, "dropout is nan"),
    (m.TransformerConfig, {"n_layers": 0}, "n_layers is 0"),
    (m.TransformerConfig, {"positions": "magic"}, "positions is 'magic'"),
    (m.TransformerConfig, {"norm": "both"}, "norm is 'both'"),
    (m.TrainingConfig, {"task": "fly"}, "task is 'fly'"),
    (m.TrainingConfig, {"steps": -1}, "steps is -1"),
    (m.TrainingConfig, {"lr": math.inf}, "lr is inf"),
    (m.TrainingConfig, {"weight_decay": math.nan}, "weight_decay is nan"),
    (m.TrainingConfig, {"batch_size": 2, "accumulate": 3}, "batch_size 2 can't be cut into 3"),
    (m.TrainingConfig, {"label_smoothing": 1.0}, "label_smoothing is 1.0"),
])
def test_nonsense_is_refused_by_name(config, changes, message):
    with pytest.raises(ValueError, match=message):
        config(**changes)


def test_our_adam_keeps_its_state_like_any_optimizer():
    def steps(optimizer, leaf, count):
        for _ in range(count):
            leaf.grad = leaf.detach().cos()
            optimizer.step()

    torch.manual_seed(0)
    leaf, unused = (torch.randn(5, requires_grad=True) for _ in range(2))
    before = unused.detach().clone()
    whole = leaf.detach().clone().requires_grad_()
    steps(m.Adam([whole, unused], lr=0.1, weight_decay=0.1), whole, 8)
    first = m.Adam([leaf, unused], lr=0.1, weight_decay=0.1)
    steps(first, leaf, 3)
    second = m.Adam([leaf, unused], lr=0.7)
    second.load_state_dict(first.state_dict())
    steps(second, leaf, 5)
    assert torch.equal(leaf, whole)
    assert torch.equal(unused, before)  # no gradient, no step


# training


def weights(run):
    return torch.cat([tensor.flatten() for tensor in run.model.state_dict().values()])


def test_two_runs_with_a_seed_are_the_same_bit_for_bit_and_seeds_matter():
    config = replace(SMALL, dropout=0.1)
    first, second, other = (weights(trained(run_of(config, replace(SHORT, seed=seed)))) for seed in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_the_plain_loop_is_what_the_engine_does():
    """With other settings than the step's: clipping, rates and decay, bit for bit."""
    training = replace(SHORT, clip=0.3, weight_decay=0.5, schedule="inverse_sqrt")
    torch.manual_seed(0)
    model = m.Transformer(SMALL)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.5, fused=True)
    batches = (m.training_batch(training, step) for step in range(10))
    losses = m.train_plainly(model, optimizer, batches, training)
    run = trained(run_of(training=training), until=10)
    assert run.noted("loss") == losses
    assert torch.equal(weights(run), torch.cat([t.flatten() for t in model.state_dict().values()]))


def test_by_hand_learns_the_same_and_really_runs_the_hand_made_parts(monkeypatch):
    called = set()

    def noting(name, part):
        def run(*arguments):
            called.add(name)
            return part(*arguments)
        return run

    for name in m.BY_HAND:
        monkeypatch.setitem(m.BY_HAND, name, noting(name, m.BY_HAND[name]))
    monkeypatch.setattr(m, "sequence_loss", noting("sequence_loss", m.sequence_loss))
    by_hand, kernel = (trained(run_of(training=replace(SHORT, by_hand=by_hand)), until=10)
                       for by_hand in (True, False))
    assert called == {"scaled_dot_product_attention", "layer_norm", "gelu", "sequence_loss"}
    assert isinstance(by_hand.optimizer, m.Adam)
    assert not isinstance(kernel.optimizer, m.Adam)
    assert by_hand.noted("loss") == pytest.approx(kernel.noted("loss"), abs=1e-4)
    assert by_hand.noted("loss") != kernel.noted("loss")


def test_hand_made_parts_stand_in_one_model_alone():
    by_hand = build(lambda: m.Transformer(SMALL), m.BY_HAND)
    attention = by_hand.encoder.blocks[0].self_attention
    assert attention.scaled_dot_product_attention is m.scaled_dot_product_attention
    other = m.Transformer(SMALL).encoder.blocks[0].self_attention
    assert other.scaled_dot_product_attention is not m.scaled_dot_product_attention
    assert by_hand.state_dict().keys() == m.Transformer(SMALL).state_dict().keys()


@pytest.mark.parametrize("changes", [{}, {"by_hand": True}])
def test_a_resumed_run_goes_on_bit_for_bit(tmp_path, changes):
    config, training = replace(SMALL, dropout=0.1), replace(SHORT, **changes)
    whole = trained(run_of(config, training))
    half = trained(run_of(config, training), until=13)
    save_run(half, tmp_path / "run.pt")
    torch.manual_seed(99)
    resumed = trained(loaded(unfinished(tmp_path / "run.pt")))
    assert torch.equal(weights(resumed), weights(whole))
    assert resumed.noted("loss") == whole.noted("loss")
    assert resumed.settings == training


@pytest.mark.parametrize(("sizes", "settings", "name"), [
    ({}, {}, "reverse"), ({}, {"task": "copy"}, "copy"), ({"d_ff": 256}, {}, "reverse"),
    ({"d_ff": 32}, {}, "reverse-d_ff=32"), ({"d_model": 16, "d_ff": 64}, {}, "reverse-d_model=16"),
    ({"d_model": 16, "d_ff": 256}, {}, "reverse-d_model=16-d_ff=256"),
    ({}, {"by_hand": True}, "reverse-by_hand=True"), ({}, {"lr": 0.01, "seed": 3}, "reverse-seed=3-lr=0.01"),
])
def test_names_say_what_is_not_the_default(sizes, settings, name):
    assert m.run_name(m.TransformerConfig(**sizes), m.TrainingConfig(**settings)) == name


class Harmful:
    def __reduce__(self):
        return os.system, ("touch /tmp/harm-was-done",)


@pytest.mark.parametrize("content", ["truncated", "text", "empty", "other values", "harmful"])
def test_foreign_checkpoints_are_one_clear_error(tmp_path, content):
    path = tmp_path / "run.pt"
    save_run(trained(run_of(training=replace(SHORT, steps=1))), path)
    if content == "truncated":
        path.write_bytes(path.read_bytes()[:5000])
    elif content in ("text", "empty"):
        path.write_text("hello" if content == "text" else "")
    else:
        torch.save({"model": {}} if content == "other values" else Harmful(), path)
    with pytest.raises(ValueError, match="is not a checkpoint of this lesson") as caught:
        loaded(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("changes", [{"recompute": True}, {"precision": "bf16"}, {"accumulate": 3}])
def test_saving_memory_changes_little(changes):
    plain = trained(run_of(), until=4).noted("loss")
    other = trained(run_of(training=replace(SHORT, **changes)), until=4).noted("loss")
    assert other == pytest.approx(plain, abs=0.05 if "precision" in changes else 1e-4)


def test_whole_answers_are_forced_and_free():
    """By hand on one batch: the causal mask gone, an answer may be right with forcing alone."""
    torch.manual_seed(0)
    model, batch = m.Transformer(SMALL).eval(), m.draw_batch("copy", 6, "test", (0,))
    scores = m.evaluate(model, batch)
    right = model(batch.src, batch.tgt_in).argmax(-1) == batch.tgt_out
    wanted = [all(r for r, token in zip(row, tokens) if token != m.PAD)
              for row, tokens in zip(right.tolist(), batch.tgt_out.tolist())]
    assert scores.forced.tolist() == wanted
    free = m.free_running(model, batch.src, batch.tgt_out.shape[1])
    assert scores.exact.tolist() == m.exactly_right(free, batch.tgt_out).tolist()


def test_broken_runs_differ_from_the_right_one_from_the_first_loss_on():
    held_out = m.draw_batch("reverse", 20, "test", (0,))
    training = replace(SHORT, steps=2)
    losses = {}
    mistakes, make_run = m.checks.transformer_checks.mistakes(m), partial(m.make_run, device=CPU)
    for name, make in broken_runs(make_run, SMALL, training, mistakes, held_out).items():
        losses[name] = tuple(trained(make(0)).noted("loss"))
    assert losses["right"] == tuple(trained(run_of(training=training)).noted("loss"))
    assert len(set(losses.values())) == len(losses)


def test_free_running_is_repeated_argmax_and_stops_at_eos():
    torch.manual_seed(0)
    model = m.Transformer(SMALL).eval()
    src = m.draw_batch("copy", 6, "train", (0,)).src
    answers = m.free_running(model, src, 9)
    for row, answer in enumerate(answers.tolist()):
        tokens = [m.BOS]
        while len(tokens) < 10 and tokens[-1] != m.EOS:
            logits = model(src[row : row + 1], torch.tensor([tokens]))
            tokens.append(int(logits[0, -1].argmax()))
        assert answer[: len(tokens) - 1] == tokens[1:]
        assert not any(answer[len(tokens) - 1 :])


def test_patterns_have_a_column_for_each_attention_and_its_own_tokens():
    names = [f"{stack}.blocks.{block}.{kind}_attention" for stack, kinds in (
        ("encoder", ["self"]), ("decoder", ["self", "cross"])) for block in (0, 1) for kind in kinds]
    figure = draw_patterns({name: torch.full((1, 1, 2, 2), 0.25) for name in names}, "ab", "xy", "yz")
    labels = [[[label.get_text() for label in ticks] for ticks in (axes.get_yticklabels(),
                                                                   axes.get_xticklabels())]
              for axes in figure.axes]
    source, target, turns = ["a", "b"], ["x", "y"], ["x → y", "y → z"]
    assert [axes.get_title() for axes in figure.axes] == [
        f"{title}, block {block}\n0.25" for title in ("encoder", "decoder", "cross") for block in (0, 1)]
    assert labels[::2] == labels[1::2] == [[source, source], [turns, target], [turns, source]]
    assert {axes.images[0].get_clim() for axes in figure.axes} == {(0, 0.25)}


@pytest.mark.exhaustive
def test_post_norm_at_a_high_rate_learns_far_later_without_a_warm_up():
    """As step_what_next says of --norm post --lr 0.01."""
    config = m.TransformerConfig(norm="post")
    runs = [trained(m.make_run(config, m.TrainingConfig(steps=200, lr=0.01, warmup=warmup), CPU))
            for warmup in (0, 100)]
    without, with_one = (sum(run.noted("loss")[-20:]) / 20 for run in runs)
    assert with_one < without / 2


class OneStack(nn.Module):
    """A decoder without a source: lesson 4's EncoderBlocks with a causal mask."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.embedding = m.TokenEmbedding(config.vocab_size, config.d_model)
        self.positions = lesson("03_positional_encoding").SinusoidalPositionalEncoding(
            config.d_model, config.max_len)
        self.stack = m.Encoder(config.n_layers, config.d_model, config.n_heads, config.d_ff)

    def forward(self, tokens):
        x = self.positions(self.embedding(tokens))
        return self.embedding.logits(self.stack(x, m.causal_mask(tokens.shape[1])))


class Lines(NamedTuple):
    tokens: torch.Tensor
    targets: torch.Tensor


@pytest.mark.parametrize("changes", [{}, {"recompute": True}, {"accumulate": 3}, {"by_hand": True}])
def test_a_decoder_alone_trains_on_the_engine(changes):
    """A batch is (input, target): each sequence and again the same, which has to be learned."""
    def batch(step):
        digits = torch.randint(3, 13, (16, 5), generator=torch.Generator().manual_seed(step))
        line = torch.cat([digits, digits], dim=1)
        return Lines(line[:, :-1], line[:, 1:].index_fill(1, torch.arange(4), m.PAD))

    training = replace(SHORT, steps=60, lr=0.01, **changes)
    config = m.TransformerConfig(d_model=32, n_heads=2, n_layers=2)
    run = fresh_run(partial(OneStack, config), lambda model: m.sequence_job(
        model, training, batch, lambda model: {}, model.stack.blocks), config, training, CPU, {}, m.BY_HAND)
    trained(run)
    losses = run.noted("loss")
    assert sum(losses[-5:]) / 5 < losses[0] - 0.3


def test_a_model_is_prepared_between_building_and_training():
    """Frozen weights and an added layer: what --by-hand and --with put in is there already."""
    seen = []

    def prepare(model):
        seen.append(model.encoder.blocks[0].self_attention.scaled_dot_product_attention)
        model.encoder.requires_grad_(False)
        model.added = nn.Linear(16, 16)
        return model

    run = m.make_run(SMALL, replace(SHORT, steps=2, by_hand=True), CPU, prepare=prepare)
    assert seen == [m.scaled_dot_product_attention]
    before = [parameter.clone() for parameter in run.model.encoder.parameters()]
    trained(run)
    assert all(torch.equal(old, new) for old, new in zip(before, run.model.encoder.parameters(), strict=True))
    parts = run.model.embedding, run.model.decoder, run.model.added
    assert len(run.trained) == sum(len([*part.parameters()]) for part in parts)
    assert {"added.weight", "added.bias"} <= run.state()["model"].keys()


# a learner's own parts

OWN_ATTENTION = """
import torch
from torch import nn

def scaled_dot_product_attention(query, key, value, mask=None, dropout=0.0):
    scores = query @ key.mT / query.shape[-1] ** 0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    weights = torch.softmax(scores, -1).nan_to_num(0.0)
    return nn.functional.dropout(weights, dropout) @ value
"""


def test_what_a_learner_wrote_is_graded_and_trained(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(OWN_ATTENTION)
    options = [*TINY[2:], "--steps", "60", "--warmup", "5", "--validate-every", "30",
               "--outputs", str(tmp_path)]
    process = run_lesson("05_mini_transformer", "--with", str(file), *options)
    assert process.returncode == 0, process.stdout + process.stderr
    said = " ".join(process.stdout.split())
    assert "Your parts and the course's" in said
    assert any(name.startswith("training_with_your_parts") for name in pictures_in(tmp_path))
    saved = [path.name for path in tmp_path.glob("checkpoint_*with-mine-*.pt")]
    assert len(saved) == 1, "the checkpoint says whose parts it was trained with"
    file.write_text(OWN_ATTENTION.replace("** 0.5", "** 1.0"))
    process = run_lesson("05_mini_transformer", "--with", str(file), *options)
    assert process.returncode == 1
    assert "divided by d_k" in process.stdout
    assert "must pass all its checks before a model can be trained" in process.stderr


def test_own_classes_may_lack_a_slot_and_hold_a_parameter_without_use():
    class FeedForward(nn.Module):
        def __init__(self, d_model, d_ff, dropout=0.0, activation="gelu"):
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(d_model, d_ff), nn.GELU(), nn.Linear(d_ff, d_model))
            self.idle = nn.Parameter(torch.ones(3))

        def forward(self, x):
            return self.layers(x)

    own = Own({"FeedForward": FeedForward, "gelu": nn.functional.gelu}, {"mine.py": "00"})
    run = m.make_run(SMALL, SHORT, CPU, own=own)
    assert found_in(run.model, own.parts) == ["FeedForward"]
    train(run)
    assert run.finished


def test_other_parts_than_those_of_a_checkpoint_are_refused():
    def attend(query, key, value, mask=None, dropout=0.0):
        return m.scaled_dot_product_attention(query, key, value, mask, dropout)

    own = Own({"scaled_dot_product_attention": attend}, {"mine.py": "00"})
    run = m.make_run(SMALL, SHORT, CPU, own=own)
    slots = {module.scaled_dot_product_attention for module in run.model.modules()
             if hasattr(module, "project_query")}
    assert slots == {attend}
    assert remake(run.about, own).about == run.about
    assert found_in(run.model, own.parts | {"Tokenizer": Own}) == ["scaled_dot_product_attention"]
    assert Own(dict.fromkeys("abc"), {"x" * 300 + ".py": "00"}).name.startswith("with-" + "x" * 40 + "-")
    with pytest.raises(ValueError, match=r"trained with mine\.py"):
        remake(run.about)
    with pytest.raises(ValueError, match="no parts of your own"):
        remake(run_of().about, own)


# the script


@pytest.mark.parametrize(("options", "said"), [
    (["--d-model", "30", "--heads", "4"], "d_model 30 does not split into 4 heads"),
    (["--task", "fly"], "fly"),
    (["--steps", "-3"], "-3"),
    (["--lr", "quick"], "quick"),
    (["--device", "tpu"], "device tpu isn't here"),
    (["--compare", "colour=1,2"], "colour"),
    (["--compare", "n_heads=1,5"], "d_model 64 does not split into 5 heads"),
    (["--seed", "-1"], "-1"),
    (["--d-model", "7", "--heads", "1"], "7 is odd"),
])
def test_bad_options_are_one_line(options, said):
    assert said in one_line_error(run_lesson("05_mini_transformer", *options), 2)


def test_a_run_that_bursts_is_one_line_and_keeps_the_state_before(tmp_path):
    process = run_lesson("05_mini_transformer", *TINY, "--lr", "1e30", "--outputs", str(tmp_path))
    assert "step" in one_line_error(process, 1)
    assert loaded(next(tmp_path.glob("*.unfinished"))).history


def test_a_foreign_checkpoint_is_one_line_and_kept(tmp_path):
    path = tmp_path / "checkpoint_reverse.pt"
    path.write_text("junk")
    for name in ("05_mini_transformer", "06_decoding"):
        process = run_lesson(name, "--step", "two_accuracies" if name < "06" else "greedy",
                             "--outputs", str(tmp_path))
        assert "not a checkpoint of this lesson" in one_line_error(process, 1)
    assert path.read_text() == "junk"


def test_nothing_to_resume_is_one_line(tmp_path):
    process = run_lesson("05_mini_transformer", "--resume", "--step", "training", "--outputs", str(tmp_path))
    assert "nothing to resume" in one_line_error(process, 1)


TINY = ["--step", "training", "--d-model", "16", "--heads", "2", "--layers", "1", "--batch-size", "8"]


LONGER = [*TINY, "--steps", "300", "--dropout", "0.1"]


def state_of(path):
    return torch.load(path, weights_only=True)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The weights at the end of a run that nobody interrupted."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert run_lesson("05_mini_transformer", *LONGER, "--outputs", str(folder)).returncode == 0
    (path,) = folder.glob("*.pt")
    return state_of(path)["model"]


def start(*options):
    """The lesson, begun in a process of its own."""
    return subprocess.Popen(
        [sys.executable, str(ROOT / "05_mini_transformer.py"), *map(str, options)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8",
    )


def wait_for(process, folder, pattern):
    """Until a file of this name is there, while the process runs."""
    deadline = time.monotonic() + 60
    while not list(folder.glob(pattern)):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.0001)


def test_ctrl_c_before_the_first_step_is_one_line_and_can_be_resumed(tmp_path, monkeypatch):
    options = SimpleNamespace(device="cpu", outputs=tmp_path, resume=False, page=False)
    monkeypatch.setattr("course.training.engine.interruptible", lambda: nullcontext(lambda: True))
    ended = m.step_training(m.DigitExperiment(SMALL, SHORT, options))
    assert (ended.code, ended.message.partition(";")[0]) == (130, "interrupted after step 0 of 30")
    assert [path.suffix for path in tmp_path.iterdir()] == [".unfinished"]
    monkeypatch.undo()
    options.resume = True
    resumed = m.DigitExperiment(SMALL, SHORT, options)
    m.step_training(resumed)
    assert torch.equal(weights(resumed.run), weights(trained(run_of())))


@pytest.mark.exhaustive
@pytest.mark.parametrize(("signals", "saving"), [
    ([signal.SIGINT], False), ([signal.SIGINT] * 2, False), ([signal.SIGTERM], False),
    ([signal.SIGKILL], False), ([signal.SIGKILL], True),
])
def test_interrupted_and_resumed_is_as_if_never_interrupted(tmp_path, signals, saving, uninterrupted):
    """Ctrl-C once and twice, SIGTERM, and kill -9: while training and in the middle of saving."""
    options = [*LONGER, "--outputs", str(tmp_path)]
    process = start(*options)
    wait_for(process, tmp_path, "*.unfinished")
    if saving:
        wait_for(process, tmp_path, ".*.tmp")
    for number in signals:
        process.send_signal(number)
    _, error = process.communicate(timeout=60)
    if signal.SIGKILL not in signals:
        assert process.returncode == 130
        assert len(error.strip().splitlines()) == 1
        assert "--resume" in error or len(signals) > 1
    (left,) = tmp_path.glob("*.unfinished")
    assert 0 < len(state_of(left)["history"]) < 300
    again = run_lesson("05_mini_transformer", *options, "--resume")
    assert again.returncode == 0, again.stderr
    (resumed,) = tmp_path.glob("*.pt")
    resumed = state_of(resumed)["model"]
    assert all(torch.equal(resumed[name], tensor) for name, tensor in uninterrupted.items())
    assert not list(tmp_path.glob("*.unfinished"))


@pytest.mark.exhaustive
def test_two_runs_at_once_over_the_same_folder_leave_whole_files(tmp_path, uninterrupted):
    both = [start(*LONGER, "--outputs", tmp_path) for _ in range(2)]
    for process in both:
        _, error = process.communicate(timeout=120)
        assert (process.returncode, error) == (0, "")
    (path,) = tmp_path.glob("*.pt")
    assert all(torch.equal(state_of(path)["model"][name], t) for name, t in uninterrupted.items())
    assert all(pictures_in(tmp_path).values())
    assert not list(tmp_path.glob(".*"))


@pytest.mark.exhaustive
def test_two_processes_train_like_one(tmp_path):
    options = [*TINY, "--steps", "5"]
    one = run_lesson("05_mini_transformer", *options, "--outputs", str(tmp_path / "one"))
    assert one.returncode == 0, one.stderr
    two = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
         str(ROOT / "05_mini_transformer.py"), *options, "--outputs", str(tmp_path / "two")],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, encoding="utf-8", timeout=120,
    )
    assert two.returncode == 0, two.stderr
    assert two.stdout.count("Training\n---") == 1
    states = [state_of(next((tmp_path / name).glob("*.pt"))) for name in ("one", "two")]
    for name, tensor in states[0]["model"].items():
        assert torch.allclose(tensor, states[1]["model"][name], rtol=0, atol=1e-5), name


@pytest.mark.exhaustive
def test_comparing_and_breaking_leave_figures(tmp_path):
    compared = run_lesson("05_mini_transformer", "--compare", "n_heads=1,2", "--seeds", "2", "--steps", "20",
                          "--outputs", str(tmp_path))
    assert compared.returncode == 0, compared.stderr
    broken = run_lesson("05_mini_transformer", "--broken", "--d-model", "16", "--heads", "2", "--layers", "1",
                        "--steps", "20", "--outputs", str(tmp_path))
    assert broken.returncode == 0, broken.stderr
    assert all(name in broken.stdout for name in m.broken_variants(SMALL, SHORT, CPU))
    pictures = pictures_in(tmp_path)
    assert all(pictures.values())
    stems = sorted(name.partition("-")[0] for name in pictures)
    assert stems == ["training_broken", "training_compare_n_heads"]
    assert all("steps=" in name for name in pictures)  # not under the default's names


@pytest.mark.exhaustive
@pytest.mark.parametrize("step", [["--step", "two_accuracies"], ["--compare", "n_heads=1,2"]])
def test_interrupted_while_it_trains_what_it_needs_it_ends(tmp_path, step):
    """A half-trained model is not measured as if it were a finished one."""
    process = start(*TINY[2:], *step, "--steps", "5000", "--validate-every", "10", "--outputs", tmp_path)
    wait_for_words(process, "500/5000")
    process.send_signal(signal.SIGINT)
    said, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error.strip().splitlines() == ["05_mini_transformer.py: interrupted"]
    assert "checks hold" not in said
    assert not list(tmp_path.glob("*.png"))


def wait_for_words(process, words):
    """Until the process has said them."""
    for line in process.stdout:
        if words in line:
            return
    raise AssertionError("it ended before")


def test_comparing_begins_with_the_seed_that_was_asked_for(tmp_path):
    options = [*TINY[2:], "--steps", "6", "--validate-every", "2", "--compare", "n_heads=1"]
    files = []
    for number, seed in enumerate(("0", "0", "1")):
        folder = tmp_path / str(number)
        process = run_lesson("05_mini_transformer", *options, "--seed", seed, "--outputs", str(folder))
        assert process.returncode == 0, process.stderr
        (file,) = folder.glob("training_compare_n_heads*.png")
        files.append(file.read_bytes())
    assert files[0] == files[1] != files[2]


def test_walkthrough_agrees_with_the_quickstart(course):
    process = run_as_documented("05_mini_transformer", course)
    with (course / "outputs" / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert float(rows[-1]["exact_match"]) == 1
    quickstart = " ".join((ROOT / "QUICKSTART.md").read_text(encoding="utf-8").split())
    trains = r"([\d,]+) parameters for (\d+) steps and answers all ([\d,]+) test sequences right"
    parameters, steps, sequences = re.search(trains, quickstart).groups()
    assert len(rows) == int(steps)
    assert re.search(rf"^all +{parameters}$", process.stdout, re.MULTILINE)
    right = f"✓ of the {sequences} test sequences at most 2 get a wrong answer (0 wrong)"
    assert right in " ".join(process.stdout.split())
    assert re.search(r"`(\d+ of \d+ checks hold)`", quickstart)[1] in process.stdout


# first weights


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_only_the_last_gain_begins_small(norm):
    model = m.Transformer(replace(SMALL, norm=norm, n_layers=3))
    gains = {name: value for name, value in model.named_parameters() if name.endswith("gain")}
    last = {"pre": "decoder.norm.gain", "post": "decoder.blocks.2.around_feed_forward.norm.gain"}[norm]
    assert last in gains
    for name, gain in gains.items():
        assert torch.equal(gain, torch.full_like(gain, SMALL.d_model**-0.5 if name == last else 1.0)), name

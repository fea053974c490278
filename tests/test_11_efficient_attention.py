import itertools
import math
import subprocess
import sys
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT, one_line_error, run_as_documented, run_lesson

from common import lesson, run_step
from course.console.counting import FastMemory, LiveBytes, peak_bytes, there_and_back, traffic
from course.console.measuring import multiplications_of
from course.grading.checking import largest_difference, random_tensors
from course.pages.live import data_of
from course.training import long_sequences as measuring
from course.training.attentions import attention_parts, near_attention, refuse_two_attentions
from course.training.engine import finish
from course.training.packing import first_fit, pack_batch, padding, without_separation
from course.training.parts import build
from course.training.recall import IGNORED, latest_task, recall_task

NAME = "11_efficient_attention"
m, one, two, five, six = (lesson(name) for name in (
    NAME, "01_attention_mechanism", "02_multi_head_attention", "05_mini_transformer", "06_decoding"))
ten = lesson("10_architectures")
SMALL = {"d_model": 16, "n_heads": 2, "n_layers": 1}
TINY = ["--d-model", "16", "--heads", "2", "--layers", "1", "--batch-size", "8", "--steps", "5"]
KINDS = torch.float64, torch.float32, torch.bfloat16, torch.float16
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 5e-2, torch.float16: 1e-2}
RULES = {"none": None, "causal": m.causal, "window": m.window(2), "first": m.first(1),
         "both": m.both(m.causal, lambda i, j: i % 2 == j % 2)}


def linear_by_table(query, key, value, mask=None):
    weights = m.elu_plus_one(query) @ m.elu_plus_one(key).mT
    weights = weights if mask is None else weights * mask
    return weights @ value / weights.sum(-1, keepdim=True).clamp(min=1e-30)


# every part takes every type, length and shape


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("lengths", [*itertools.product((0, 1, 5), (0, 1, 3, 5))], ids=str)
def test_tiles_and_linear_attention_take_every_type_length_and_shape(lengths, kind):
    T, S = lengths
    for before in ((), (2, 3)):
        query, key, value = (x.to(kind).requires_grad_() for x in random_tensors(
            (*before, T, 4), (*before, S, 4), (*before, S, 3)))
        exact = [x.detach().double() for x in (query, key, value)]
        for rule in RULES.values():
            mask = None if rule is None else m.table_of(rule, T, S)
            found = m.tiled_attention(query, key, value, rule, tile=2)
            assert found.dtype == kind
            wanted = one.scaled_dot_product_attention(*exact, mask)
            assert largest_difference(found, wanted) <= TOLERANCE[kind]
            if found.numel():
                slopes = torch.autograd.grad(found.float().sum(), (query, key, value))
                assert all(slope.isfinite().all() for slope in slopes)
        for causal in (True, False):
            found = m.linear_attention(query, key, value, causal, chunk=2)
            mask = m.table_of(m.causal, T, S) if causal else None
            assert (found.dtype, found.shape) == (kind, (*before, T, 3))
            assert largest_difference(found, linear_by_table(*exact, mask)) <= TOLERANCE[kind]


def test_keys_and_values_may_be_shared_by_heads():
    query, key, value = random_tensors((2, 3, 4, 6), (2, 1, 5, 6), (2, 1, 5, 2))
    wanted = one.scaled_dot_product_attention(query, key.expand(2, 3, 5, 6), value.expand(2, 3, 5, 2))
    assert largest_difference(m.tiled_attention(query, key, value, tile=2), wanted) < 1e-12


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_features_and_caches_take_every_type(kind):
    (x,) = random_tensors((2, 3, 4, 8))
    w = m.directions(6, 8)
    assert m.positive_features(x.to(kind), w).dtype == torch.promote_types(kind, torch.float32)
    attention = two.MultiHeadAttention(8, 2).to(kind).eval()
    for cache in (m.QuantisedCache(attention), m.WindowCache(attention, 2, 1)):
        out = measuring.one_by_one(attention, cache, x[0].to(kind))
        assert out.dtype == kind
        assert out.isfinite().all()


# rules


def test_rules_are_combined_and_know_their_limits():
    ids = torch.tensor([1, 1, 2, 2, 0])
    rows = {"same": (m.same(ids), "1 1 0 0 0"), "either": (m.either(m.first(1), m.window(1)), "1 1 0 0 0"),
            "both": (m.both(m.first(1), m.same(ids)), "1 0 0 0 0"),
            "blocks": (m.blocks(torch.tensor([[0, 1], [1, 0]]).bool(), 3), "0 0 0 1 1")}
    for name, (rule, row) in rows.items():
        assert m.table_of(rule, 5, 5)[1].int().tolist() == [*map(int, row.split())], name
    for rule in (m.same(ids), m.blocks(torch.ones(1, 1).bool(), 5)):
        with pytest.raises(ValueError, match="position is 5; it must be at least 0 and at most 4"):
            m.table_of(rule, 6, 6)
    with pytest.raises(ValueError, match="position is -2"):  # more queries than keys
        m.table_of(m.same(ids), 5, 3)


def test_a_rule_of_a_batch_keeps_its_sequences_apart():
    ids = torch.tensor([[1, 1, 2], [1, 2, 2]])
    given = random_tensors((2, 3, 4), (2, 3, 4), (2, 3, 4))
    wanted = one.scaled_dot_product_attention(*given, ids[:, :, None] == ids[:, None, :])
    assert largest_difference(m.tiled_attention(*given, m.same(ids), tile=2), wanted) < 1e-12


@pytest.mark.parametrize(("attempt", "message"), [
    (lambda q: m.tiled_attention(q, q, q, tile=0), "tile is 0; it must be at least 1"),
    (lambda q: m.tiled_attention(q, q, q, torch.ones(3, 5).bool()),
     r"a mask \(3, 5\) doesn't fit scores \(5, 5\)"),
    (lambda q: m.window(0), "width is 0; it must be at least 1"),
    (lambda q: m.blocks(torch.ones(1, 1).bool(), 0), "size is 0"),
    (lambda q: m.linear_attention(q, q, q, chunk=-1), "chunk is -1"),
    (lambda q: m.directions(0, 4), "count is 0"),
    (lambda q: m.pack([[1, 2, 3]], 2), "a row of 2 tokens is shorter than the longest sequence, 3"),
    (lambda q: m.QuantisedCache(None, bits=1), "bits is 1; it must be at least 2 and at most 8"),
    (lambda q: m.WindowCache(None, 0), "width is 0"),
    (lambda q: m.WindowCache(None, 1, -1), "sinks is -1"),
    (lambda q: m.LinformerAttention(4, 1, 4, 2)(*[q[None].float()] * 3), "the number of keys is 5"),
    (lambda q: m.LinformerAttention(4, 1, 5, 2)(*[q[None].float()] * 3, one.causal_mask(5)), "can't hide"),
])
def test_what_makes_no_sense_is_one_line_with_the_numbers(attempt, message):
    with pytest.raises(ValueError, match=message) as caught:
        attempt(random_tensors((5, 4))[0])
    assert "\n" not in str(caught.value)


def test_masks_of_numbers_are_refused():
    (x,) = random_tensors((5, 4))
    for mask in (torch.ones(5, 5), lambda i, j: (i + j).float()):
        with pytest.raises(TypeError, match=r"the mask is torch.float32, not boolean"):
            m.tiled_attention(x, x, x, mask)


# counting


def test_live_bytes_are_those_of_the_tensors_alive_and_made_here():
    known = torch.zeros(100)
    with LiveBytes(known) as live:
        a = torch.ones(1000)
        b = a + 1
        view = b[:10]
        del b
        assert live.now == 8000  # the view keeps b's storage
        del a, view
        known.add_(1)
        assert (live.now, live.peak) == (0, 8000)


def test_a_fast_memory_counts_what_does_not_fit():
    x = torch.ones(1000)
    assert traffic(lambda x: x + 1, 10**6, x) == 8000  # read once, written back at the end
    assert traffic(lambda x: (x + 1) + x, 10**6, x) == 8000  # the first sum is gone before it has to leave
    assert traffic(lambda x: (x + 1) + x, 4000, x) == 4000 * 4  # x is read twice, both sums are written
    with FastMemory(100) as memory:
        x.sum()
    assert memory.moved == 4000  # a tensor that never fits passes through


def test_tiles_need_what_the_lesson_says():
    inputs = measuring.one_head(512)
    lines, tiled = (there_and_back(way) for way in (one.scaled_dot_product_attention,
                                                    partial(m.tiled_attention, tile=128)))
    assert peak_bytes(lines, *inputs) > 6 * 4 * 512**2
    assert peak_bytes(tiled, *inputs) < 4 * 512**2
    assert 6 * multiplications_of(tiled, *inputs) == 7 * multiplications_of(lines, *inputs)


# approximations


def test_a_state_is_linear_attention_and_does_not_grow():
    query, key, value = random_tensors((9, 4), (9, 4), (9, 3))
    state = m.LinearState()
    stepped = torch.cat([state.step(*token) for token in zip(*(x.split(1) for x in (query, key, value)))])
    assert largest_difference(stepped, linear_by_table(query, key, value, one.causal_mask(9))) < 1e-12
    assert state.state.shape == (4, 3 + 1)


@pytest.mark.parametrize("mask", [None, "padding", "causal"])
def test_linear_attention_under_the_masks_of_the_model(mask):
    query, key, value = random_tensors((2, 3, 5, 4), (2, 3, 5, 4), (2, 3, 5, 2))
    table = {None: None, "padding": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]).bool()[:, None, None],
             "causal": one.causal_mask(5)}[mask]
    found = m.masked_linear_attention(query, key, value, table)
    assert largest_difference(found, linear_by_table(query, key, value, table)) < 1e-12


def test_near_attention_is_a_window_on_both_sides():
    query, key, value = random_tensors((6, 4), (6, 4), (6, 3))
    band = (torch.arange(6)[:, None] - torch.arange(6)).abs() < 2
    found = near_attention(m.fused_attention, 2)(query, key, value, one.causal_mask(6))
    wanted = one.scaled_dot_product_attention(query, key, value, band & one.causal_mask(6))
    assert largest_difference(found, wanted) < 1e-12
    last = near_attention(m.fused_attention, 2)(query[-1:], key, value)
    assert largest_difference(last, one.scaled_dot_product_attention(query, key, value, band)[-1:]) < 1e-12


def test_directions_are_orthogonal_in_blocks():
    w = m.directions(10, 4, generator=torch.Generator().manual_seed(0))
    products = (w @ w.T).abs()
    products[range(10), range(10)] = 0
    assert products[:4, :4].max() < 1e-5
    assert products[:4, 4:].max() > 0.1
    assert m.directions(3, 4, False).shape == (3, 4)


def test_a_window_cache_keeps_the_first_and_the_latest():
    cache = m.WindowCache(SimpleNamespace(), width=2, sinks=1)
    keys = torch.arange(6.0).view(1, 1, 6, 1)
    kept = []
    for key in keys.split(1, 2):
        cache.append(key, -key)
        kept.append(cache.keys.flatten().tolist())
    assert kept[:4] == [[0], [0, 1], [0, 1, 2], [0, 2, 3]]
    assert cache.keys.flatten().tolist() == [0, 4, 5]
    assert cache.values.flatten().tolist() == [0, -4, -5]
    prompt = m.WindowCache(SimpleNamespace(), width=2, sinks=1)
    prompt.append(keys[:, :, :5], keys[:, :, :5])
    assert prompt.keys.flatten().tolist() == [0, 1, 2, 3, 4]  # a prompt's tokens see all before them
    prompt.append(keys[:, :, 5:], keys[:, :, 5:])
    assert prompt.keys.flatten().tolist() == [0, 4, 5]


def test_recall_asks_for_what_was_shown():
    keys, values, wanted = recall_task(8, 3)
    asked = wanted != IGNORED
    assert asked.sum() == 3 * 8
    for row, place in asked.nonzero().tolist():
        shown = (keys[row, :8] == keys[row, place]).nonzero().item()
        assert values[row, shown] - 1 == wanted[row, place]
        assert values[row, place] == 0
    keys, values, wanted = latest_task(8, 3)
    for row, place in (wanted != IGNORED).nonzero().tolist():
        shown = (keys[row, 0:place:2] == keys[row, place]).nonzero()[-1].item() * 2
        assert place - shown <= 7
        assert values[row, shown] - 1 == wanted[row, place]


# recomputing and packing


def test_recomputing_gives_the_same_gradients_in_less_memory():
    blocks = torch.nn.ModuleList(m.EncoderBlock(16, 2, 64, 0.1) for _ in range(4))
    x = torch.randn(2, 8, 16)
    kept, once, pairs = (measuring.in_segments(blocks, x, size) for size in (0, 1, 2))
    assert torch.equal(kept.gradients, once.gradients)
    assert once.peak < pairs.peak < kept.peak
    assert 3 * once.products == 4 * kept.products
    forgotten = measuring.in_segments(blocks, x, 1, keep_random_state=False)
    assert not torch.equal(kept.gradients, forgotten.gradients)


def test_first_fit_and_padding():
    assert first_fit([2, 5, 3, 1], 6) == [[1, 3], [2, 0]]
    assert first_fit([], 6) == []
    assert padding([1, 3, 2, 2], 2) == pytest.approx(1 - 8 / 10)


@pytest.mark.parametrize("positions", ["sinusoidal", "learned", "rotary"])
def test_packed_rows_have_the_loss_of_padded_ones_and_sequences_stay_apart(positions):
    torch.manual_seed(0)
    sizes = five.TransformerConfig(**SMALL, positions=positions)
    padded = five.draw_batch("reverse", 12, "test", (0,))
    packed = pack_batch(padded, 40)
    assert len(packed.src) < 12
    weights = five.Transformer(sizes).state_dict()
    loss, slopes = measuring.loss_of(five.Transformer(sizes), weights, five.fused_sequence_loss, padded)
    found = {name: measuring.loss_of(m.PackedTransformer(sizes), weights, five.fused_sequence_loss, batch)
             for name, batch in without_separation(packed).items()}
    close = 1e-6 if positions == "rotary" else 1e-10  # lesson 3's rotations are float32
    assert found["packed"][0] == pytest.approx(loss, abs=close)
    assert largest_difference(found["packed"][1], slopes) < close
    broken = [name for name, (wrong, _) in found.items() if abs(wrong - loss) > 1e-4]
    assert broken == ["positions go on", "see each other"][positions == "rotary" :]  # only offsets count
    model = m.PackedTransformer(sizes).eval()
    other = packed._replace(src=torch.where(packed.src_ids == 1, five.ZERO, packed.src))
    with torch.no_grad():
        before, after = (model(*batch[:-1]) for batch in (packed, other))
    assert torch.equal(before[packed.tgt_ids > 1], after[packed.tgt_ids > 1])
    assert not torch.equal(before[packed.tgt_ids == 1], after[packed.tgt_ids == 1])


# --attention


@pytest.mark.parametrize("positions", ["sinusoidal", "rotary"])
@pytest.mark.parametrize("attention", ["tiled", "window", "linear", "grouped"])
def test_every_attention_trains_decodes_and_shows_its_weights(attention, positions):
    more = {"window": {"reach": 2}, "grouped": {"groups": 1}}.get(attention, {})
    sizes = five.TransformerConfig(**SMALL, attention=attention, positions=positions, **more)
    training = five.TrainingConfig(steps=3, batch_size=4)
    run = finish(five.make_run(sizes, training, torch.device("cpu")))
    assert all(math.isfinite(loss) for loss in run.noted("loss"))
    again = five.make_run(five.TransformerConfig(**run.about["config"]), training, torch.device("cpu"))
    again.load(run.state())
    model, batch = run.model.double().eval(), five.draw_batch("copy", 5, "test", (0,))
    decoding = six.CachedDecoding(model, batch.src)
    with torch.no_grad(), two.record_attention(model) as weights:
        wanted = model(batch.src, batch.tgt_in)
    stepped = torch.stack([decoding.step(token) for token in batch.tgt_in.unbind(1)], dim=1)
    assert largest_difference(stepped, wanted) < 1e-6  # lesson 3's rotations are float32
    own = weights["decoder.blocks.0.self_attention"]
    assert largest_difference(own.sum(-1), torch.ones(own.shape[:-1])) < 1e-6
    assert own.triu(1).abs().max() == 0
    if attention == "window":
        assert own.tril(-2).abs().max() == 0
        assert own.tril(-1).max() > 0


def test_tiles_learn_what_the_kernel_learns():
    def losses(attention):
        sizes = five.TransformerConfig(**SMALL, attention=attention)
        training = five.TrainingConfig(steps=5, batch_size=4)
        return finish(five.make_run(sizes, training, torch.device("cpu"))).noted("loss")

    assert losses("tiled") == pytest.approx(losses("kernel"), abs=1e-4)
    assert losses("linear") != pytest.approx(losses("kernel"), abs=1e-4)


def test_groups_have_fewer_weights_and_a_smaller_cache():
    models = [build(partial(five.Transformer, sizes), attention_parts(sizes)) for sizes in (
        five.TransformerConfig(n_heads=4, attention="grouped", groups=groups) for groups in (4, 2))]
    many, few = (sum(p.numel() for p in model.parameters()) for model in models)
    assert many - few == 4 * 2 * (64 + 1) * 32  # keys and values of four self-attentions
    (x,) = random_tensors((1, 9, 64))
    for groups in (4, 2, 1):
        attention = ten.GroupedQueryAttention(64, 4, groups).double()
        stepped = measuring.one_by_one(attention, cache := six.KeyValueCache(attention), x)
        assert largest_difference(stepped, attention(x, x, x, one.causal_mask(9))) < 1e-12
        assert cache.bytes() == 9 * groups * 256


@pytest.mark.parametrize(("options", "message"), [
    (["--attention", "tiled", "--by-hand"], "--by-hand and --attention tiled both replace the attention"),
    (["--attention", "grouped", "--groups", "3"], "4 heads do not split into 3 groups"),
    (["--groups", "2"], "--groups 2 goes with --attention grouped"),
    (["--attention", "linear", "--reach", "4"], "--reach 4 goes with --attention window"),
    (["--attention", "window", "--reach", "0"], "reach is 0; it must be at least 1"),
    (["--attention", "sparse"], "sparse"),
])
def test_what_attentions_cannot_be_combined_with_is_one_line(options, message, tmp_path):
    process = run_lesson("05_mini_transformer", *options, "--outputs", str(tmp_path))
    assert message in one_line_error(process, 2)
    assert not [*tmp_path.glob("*")]


def test_a_learners_attention_is_not_replaced_in_silence():
    sizes = five.TransformerConfig(attention="window")
    with pytest.raises(ValueError, match="--attention window and your MultiHeadAttention both replace"):
        refuse_two_attentions(sizes, five.TrainingConfig(), {"MultiHeadAttention": object})
    with pytest.raises(ValueError, match="--by-hand and --attention window both replace"):
        five.make_run(sizes, five.TrainingConfig(by_hand=True), torch.device("cpu"))
    refuse_two_attentions(sizes, five.TrainingConfig(), {"gelu": object})
    refuse_two_attentions(five.TransformerConfig(), five.TrainingConfig(by_hand=True),
                          {"MultiHeadAttention": object})


@pytest.mark.exhaustive
@pytest.mark.parametrize("attention", ["tiled", "linear"])
def test_a_script_trains_with_it_and_does_not_run_twice(attention, tmp_path):
    """Lesson 11 binds the lesson that is running: a new interpreter, because forks have both loaded."""
    process = subprocess.run(
        [sys.executable, str(ROOT / "05_mini_transformer.py"), *TINY, "--attention", attention, "--step",
         "training", "--no-page", "--outputs", str(tmp_path)], capture_output=True, encoding="utf-8")
    assert (process.returncode, process.stderr) == (0, "")
    assert process.stdout.count("Lesson 5.") <= 1
    assert [path.name for path in tmp_path.glob("*.pt")] == [
        f"checkpoint_reverse-d_model=16-n_heads=2-n_layers=1-attention={attention}-steps=5-batch_size=8.pt"]


def test_a_page_does_not_answer_with_another_attention():
    sizes = five.TransformerConfig(**SMALL, attention="linear")
    model = build(partial(five.Transformer, sizes), attention_parts(sizes))
    batch = five.draw_batch("copy", 2, "test", (0,))
    data = data_of(model, "copy", vars(sizes), five.tokenizer.token_of, batch.src, batch.tgt_in, [])
    assert data["problem"] == "its attention is linear, which the page doesn't have"
    assert "weights" not in data


# oracles


def test_features_equal_performers():
    performer = pytest.importorskip("performer_pytorch", reason="an oracle, if installed").performer_pytorch
    query, key, value = random_tensors((2, 4, 32, 16), (2, 4, 32, 16), (2, 4, 32, 16))
    w = m.directions(64, 16).double()
    found = m.linear_attention(query, key, value, False, partial(m.positive_features, w=w))
    theirs = [performer.softmax_kernel(x, projection_matrix=w, is_query=x is query, eps=0.0)
              for x in (query, key)]
    assert largest_difference(found, performer.linear_attention(*theirs, value)) < 1e-12


def test_a_window_of_theirs_is_one_wider():
    local = pytest.importorskip("local_attention", reason="an oracle, if installed")
    theirs = local.LocalAttention(window_size=8, causal=True, look_backward=1, exact_windowsize=True,
                                  use_rotary_pos_emb=False, autopad=True)
    query, key, value = (x.float() for x in random_tensors((2, 4, 32, 16), (2, 4, 32, 16), (2, 4, 32, 16)))
    wanted = theirs(query, key, value)
    gaps = [largest_difference(m.tiled_attention(query, key, value, m.window(width), tile=8), wanted)
            for width in (8, 9)]
    assert gaps[1] < 1e-5 < 1e-2 < gaps[0]


# the lesson


def test_the_option_is_checked_before_anything_runs(tmp_path):
    for pairs in ("3", "129"):
        process = run_lesson(NAME, "--pairs", pairs, "--outputs", str(tmp_path))
        assert f"pairs is {pairs}; it must be at least 4 and at most 128" in one_line_error(process, 2)


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("step", ["recall", "random_features", "low_rank"])
def test_steps_that_draw_hold_with_other_seeds(tmp_path, step, seed):
    process = run_lesson(NAME, "--step", step, "--seed", str(seed), "--outputs", str(tmp_path))
    assert process.returncode == 0, process.stdout + process.stderr


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", [1])
def test_trained_heads_and_caches_hold_for_other_models(seed):
    model = finish(five.make_run(five.TransformerConfig(), five.TrainingConfig(seed=seed),
                                 torch.device("cpu"))).model.eval()
    experiment = SimpleNamespace(model=model, batch=partial(m.LongExperiment.batch, None))
    for step in (m.step_trained_heads, m.step_smaller_caches, m.step_packing):
        record = run_step(step, experiment, seed=seed)
        failed = [part for tested in record.tested for part in tested.results if not part[1].holds]
        assert not failed


def test_walkthrough_agrees_with_the_quickstart(course):
    run_as_documented(NAME, course)

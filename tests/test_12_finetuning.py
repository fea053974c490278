"""Lesson 12: its parts, the adapters of --rank, the weights of --bits."""

import argparse
from copy import deepcopy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from conftest import one_line_error, run_as_documented, run_lesson
from small_pairs import SENTENCES, SMALL, run_of, training_on, written
from torch import nn

from common import lesson
from course.console.files import Unusable
from course.training import adapters
from course.training.base import read_base
from course.training.channels import with_changed_inputs, with_outlier
from course.training.engine import finish, save_run

m, five = lesson("12_finetuning"), lesson("05_mini_transformer")
CPU = torch.device("cpu")
SIZES = five.TransformerConfig(d_model=16, n_heads=2, n_layers=1)
TINY = ["--d-model", "16", "--heads", "2", "--layers", "1", "--batch-size", "8", "--steps", "4"]
SHORT = five.TrainingConfig(steps=4, batch_size=8, warmup=2, validate_every=2)


def model(seed=0):
    torch.manual_seed(seed)
    return five.Transformer(SIZES).eval()


def logits(model, task="reverse"):
    batch = five.draw_batch(task, 8, "test", (0,))
    with torch.no_grad():
        return model(batch.src, batch.tgt_in)


def learned(model):
    """The model with adapters as if they had learned something."""
    for module in model.modules():
        if hasattr(module, "up"):
            nn.init.normal_(module.up, std=0.1)
    return model


# ------------------------------------------------------------------ the parts


@pytest.mark.parametrize("part", m.GRADED)
def test_all_checks_of_a_part_hold(part):
    found = {check.statement: check.finding for check in m.GRADED[part](getattr(m, part), m)}
    assert found
    assert not [(statement, finding) for statement, finding in found.items() if not finding.holds]


def test_adapters_equal_those_of_peft():
    """With copied weights: logits, gradients, and merged. Three maps of the attentions, α ≠ r."""
    peft = pytest.importorskip("peft", reason="peft isn't installed; it is no requirement of the course")
    names = ["project_query", "project_value", "expand"]
    ours = learned(m.add_adapters(model(), 3, 12.0, names))
    theirs = peft.inject_adapter_in_model(peft.LoraConfig(
        r=3, lora_alpha=12, target_modules=names, lora_dropout=0.0), model())
    named = {name: part for name, part in ours.named_modules() if hasattr(part, "up")}
    for name, part in named.items():
        other = theirs.get_submodule(name)
        other.lora_A["default"].weight.data.copy_(part.down.data)
        other.lora_B["default"].weight.data.copy_(part.up.data)
    assert torch.allclose(logits(ours), logits(theirs), atol=1e-6)
    batch = five.draw_batch("reverse", 8, "train", (0,))
    for one in (ours, theirs):
        five.fused_sequence_loss(one(batch.src, batch.tgt_in), batch.tgt_out).backward()
    for name, part in named.items():
        other = theirs.get_submodule(name)
        assert torch.allclose(part.down.grad, other.lora_A["default"].weight.grad, atol=1e-4)
        assert torch.allclose(part.up.grad, other.lora_B["default"].weight.grad, atol=1e-4)
    for name in named:
        theirs.get_submodule(name).merge()
    assert torch.allclose(logits(m.merge_adapters(ours)), logits(theirs), atol=1e-5)


def test_normal_levels_have_as_many_weights_each():
    codes, _ = m.quantize_to_levels(torch.randn(400, 64), m.normal_levels(4), 64)
    counts = torch.bincount(codes.flatten(), minlength=16) / codes.numel()
    assert counts.sum() == pytest.approx(1)
    assert counts[1:-1].min() > 0.03
    assert counts.max() < 0.12


def test_the_gradient_passes_through_rounding():
    weight = torch.randn(4, 10, requires_grad=True)
    found = m.Rounded(3, 4)(weight)
    assert torch.allclose(found, m.rounded(weight.detach(), 3, 4), atol=1e-6)
    assert not torch.allclose(found, weight, atol=1e-2)
    found.backward(factor := torch.randn(4, 10))
    assert torch.equal(weight.grad, factor)


def test_a_large_channel_leaves_the_function_as_it_is():
    changed = with_outlier(model(), 100.0)
    assert torch.allclose(logits(changed), logits(model()), atol=1e-4)
    weight = changed.encoder.blocks[0].feed_forward.expand.weight
    assert weight[:, 0].abs().max() > 20 * weight[:, 1:].abs().max()


def test_every_map_reads_changed_inputs():
    one, seen = model(), []
    with_changed_inputs(m.linear_maps(one).values(), lambda x: seen.append(x.shape) or 0 * x)
    logits(one)
    assert len(seen) == len(m.linear_maps(one))
    assert {len(shape) for shape in seen} == {2}


@pytest.mark.parametrize(("bits", "group"), [(8, 0), (4, 32), (3, 5), (2, 64)])
def test_bytes_are_those_of_the_tensors(bits, group):
    state = adapters.packed_weights(model(), bits, group)
    assert adapters.bytes_of(model(), bits, group) == state["codes"].nbytes + state["scales"].nbytes


def test_one_pass_counts_what_free_running_gets_right(monkeypatch):
    """Three of eight answers are made right: they become the targets."""
    one, batch = model(), five.draw_batch("reverse", 8, "test", (0,))
    answers = five.free_running(one, batch.src, batch.tgt_out.shape[1])
    wanted = batch.tgt_out.clone()
    wanted[:3, :] = 0
    wanted[:3, : answers.shape[1]] = answers[:3]
    given = torch.cat([batch.tgt_in[:, :1], wanted[:, :-1]], dim=1)
    made = batch._replace(tgt_in=given, tgt_out=wanted)
    monkeypatch.setattr(m, "draw_batch", lambda *_: made)
    assert m.right(one, "reverse", 8) == five.evaluate(one, made).exact_match == 3 / 8


# ------------------------------------------------------------------ --bits


@pytest.mark.parametrize("bits", range(2, 9))
def test_packing_keeps_every_code(bits):
    codes = torch.randint(2**bits, (1001,))
    packed = adapters.pack(codes, bits)
    assert len(packed) == -(-1001 * bits // 8)
    assert torch.equal(adapters.unpack(packed, bits, 1001).long(), codes)


@pytest.mark.parametrize(("bits", "group"), [(8, 0), (4, 32), (3, 5), (2, 64)])
def test_the_answers_come_from_a_small_file(bits, group, tmp_path):
    one, said, path = model(), [], tmp_path / "small.pt"
    adapters.answer_with_bits(one, bits, group, path, said.append)
    assert torch.equal(logits(one), logits(m.quantise(model(), bits, group)))
    assert not torch.equal(logits(one), logits(model()))
    state = torch.load(path, weights_only=True)
    size = state["codes"].nbytes + state["scales"].nbytes
    rest = sum(weight.nbytes for weight in state["rest"].values())
    for number in (bits, size, rest, path.stat().st_size):
        assert f"{number:,}" in said[0]
    assert 0 < path.stat().st_size - size - rest < 25_000
    assert ("A row of 16 ends in a group of 1" in said[0]) == (group == 5)


# ------------------------------------------------------------------ --rank


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A trained model's checkpoint, and that of another."""
    folder = tmp_path_factory.mktemp("base")
    for name, seed in (("one.pt", 0), ("other.pt", 1)):
        save_run(finish(five.make_run(SIZES, replace(SHORT, seed=seed), CPU)), folder / name)
    return folder


def experiment(folder, path, rank=2, matrices="", **more):
    base = replace(read_base(path), adapters=adapters.Adapters(rank, 2.0 * rank, matrices))
    return five.DigitExperiment(SIZES, replace(SHORT, task="mirror"), SimpleNamespace(
        device="cpu", outputs=folder, resume=False, base=base, **more))


def test_a_checkpoint_of_adapters_is_small_and_goes_on(saved, tmp_path):
    one = experiment(tmp_path, saved / "one.pt")
    base = read_base(saved / "one.pt")
    assert one.name == f"mirror-d_model=16-n_heads=2-n_layers=1-steps=4-validate_every=2-warmup=2-" \
        f"batch_size=8-from={base.hash[:8]}-rank=2"
    one.train()
    state = torch.load(one.checkpoint, weights_only=True)
    assert {name.rpartition(".")[2] for name in state["model"]} == {"down", "up"}
    assert state["about"]["from"] == base.hash
    assert state["about"]["adapters"] == {"rank": 2, "alpha": 4.0, "matrices": ""}
    trained = one.run.model.state_dict()
    assert all(torch.equal(trained[name], weight) for name, weight in base.weights.items())
    again = experiment(tmp_path, saved / "one.pt").run  # from its checkpoint
    assert torch.equal(logits(again.model), logits(one.run.model))
    assert not torch.equal(logits(again.model), logits(base.into(model())))


def test_the_live_page_gets_a_model_without_adapters():
    one = learned(m.add_adapters(model(), 2, 6.0))
    merged = adapters.merged_copy(one)
    assert merged.state_dict().keys() == model().state_dict().keys()
    assert torch.allclose(logits(merged), logits(one), atol=1e-4)
    assert any(hasattr(part, "up") for part in one.modules())
    assert adapters.merged_copy(plain := model()) is plain


def test_adapters_for_another_base_are_refused(saved, tmp_path, capsys):
    one = experiment(tmp_path, saved / "one.pt")
    one.train()
    other = experiment(tmp_path, saved / "other.pt")
    one.checkpoint.rename(other.checkpoint)
    with pytest.raises(SystemExit):
        _ = other.run
    assert "its adapters are for the model" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"it holds adapters for the model .*, not a whole model"):
        read_base(other.checkpoint)
    with pytest.raises(Unusable):
        other.base.refuse_adapters_of_others({"from": "elsewhere", "adapters": {}})


def test_names_choose_the_maps(saved, tmp_path):
    run = experiment(tmp_path, saved / "one.pt", matrices="project_value, expand").make()
    names = {name.split(".")[-2] for name in run.weights()}
    assert names == {"project_value", "expand"}


@pytest.mark.exhaustive
@pytest.mark.parametrize(("options", "said"), [
    (["--rank", "4"], "--rank 4 goes with --from CHECKPOINT"),
    (["--alpha", "4", "--from", "{saved}"], "--alpha 4.0 goes with --rank"),
    (["--rank", "0", "--from", "{saved}"], "rank 0 must be from 1 to 16"),
    (["--rank", "17", "--from", "{saved}"], "rank 17 must be from 1 to 16"),
    (["--rank", "2", "--alpha", "0", "--from", "{saved}"], "--alpha is 0.0; it must be above 0"),
    (["--rank", "2", "--matrices", "query", "--from", "{saved}"], "no matrix is called query; there are "),
])
def test_what_adapters_cannot_be_is_one_line(options, said, saved, tmp_path):
    options = [option.format(saved=saved / "one.pt") for option in options]
    process = run_lesson("05_mini_transformer", *options, "--outputs", str(tmp_path / "new"))
    assert said in one_line_error(process, 2)
    assert process.stdout == ""


@pytest.mark.exhaustive
@pytest.mark.parametrize(("name", "options", "said"), [
    ("06_decoding", ["--input", "3141", "--bits", "9"], "'9' is not a whole number of bits from 2 to 8"),
    ("06_decoding", ["--input", "3141", "--bits", "4", "--group", "-1"], "'-1' is not a whole number"),
    ("06_decoding", ["--bits", "4"], "--bits 4 goes with --input or --chat"),
    ("08_translation", ["--bits", "1", "--chat"], "'1' is not a whole number of bits from 2 to 8"),
])
def test_what_bits_cannot_be_is_one_line(name, options, said, tmp_path):
    process = run_lesson(name, *options, "--outputs", str(tmp_path / "new"))
    assert said in one_line_error(process, 2)


@pytest.mark.exhaustive
def test_lesson_5_adapts_its_model_to_any_task(saved, tmp_path):
    options = ["--task", "mirror", "--from", str(saved / "one.pt"), "--rank", "2", *TINY]
    process = run_lesson("05_mini_transformer", *options, "--step", "training", "--outputs", str(tmp_path))
    assert process.returncode == 0, process.stdout + process.stderr
    assert "the checkpoint holds only the adapters" in " ".join(process.stdout.split())
    assert len([*tmp_path.glob("checkpoint_mirror-*-rank=2.pt")]) == 1
    options += ["--step", "two_accuracies", "--outputs", str(tmp_path)]
    again = run_lesson("05_mini_transformer", *options)
    assert (again.returncode, again.stdout.count("4/4")) == (0, 0), again.stdout + again.stderr


@pytest.mark.exhaustive
def test_pairs_adapt_a_translator_and_both_texts_are_scored(tmp_path, capsys):
    old = training_on(written(tmp_path / "old.tsv", SENTENCES[:300]))
    save_run(finish(run_of(old)), tmp_path / "old.pt")
    mine = training_on(written(tmp_path / "new.tsv", [
        (source.replace("The", "My"), target.replace("Le", "Mon")) for source, target in SENTENCES]))
    base = replace(read_base(tmp_path / "old.pt"), adapters=adapters.Adapters(2, 4.0))
    eight = lesson("08_translation")
    options = {"device": "cpu", "outputs": tmp_path, "resume": False, "base": base, "threads": 1}
    new = eight.TranslationExperiment(SMALL, mine, SimpleNamespace(**options))
    assert new.train() is None
    said = " ".join(capsys.readouterr().out.split())
    assert "BLEU of the greedy answers to validation pairs: on the new pairs before " in said
    assert "; on the old pairs before " in said
    assert {name.rpartition(".")[2] for name in torch.load(new.checkpoint, weights_only=True)["model"]} == {
        "down", "up"}
    (tmp_path / "old.tsv").unlink()
    assert "old.tsv is gone or changed" in new.before_and_after(base)
    answering = eight.TranslationExperiment(SMALL, mine, SimpleNamespace(
        **options, input="My cat sleeps.", bits=4, group=0))
    answering.check()
    assert answering.answers_to(["My cat sleeps."])
    assert list(tmp_path.glob("quantised_translation-*-rank=2-bits=4-group=0.pt"))


def test_a_quantised_model_answers_in_lesson_6(tmp_path):
    """Whole numbers in groups that don't divide a row; the answer is that of the file."""
    save_run(finish(five.make_run(five.TransformerConfig(), replace(
        five.TrainingConfig(), steps=2), CPU)), tmp_path / "short.pt")
    options = argparse.Namespace(task="reverse", seed=0, device="cpu", outputs=tmp_path, resume=False,
                                 threads=1, input=[3, 1, 4, 1], bits=3, group=24)
    six = lesson("06_decoding")
    one = six.DecodingExperiment(options)
    (tmp_path / "short.pt").rename(tmp_path / "checkpoint_reverse.pt")
    state = torch.load(one.checkpoint, weights_only=True)
    state["history"] *= 350  # as if all steps were done
    state["history"] = [record | {"step": number} for number, record in enumerate(state["history"], 1)]
    state["about"]["training"]["steps"] = 700
    torch.save(state, one.checkpoint)
    found = logits(one.model)
    base = five.Transformer(five.TransformerConfig()).eval()
    base.load_state_dict(state["model"])
    assert torch.equal(found, logits(m.quantise(deepcopy(base), 3, 24)))


# ------------------------------------------------------------------ the lesson


@pytest.mark.exhaustive
def test_the_walkthrough_holds_with_another_seed(tmp_path):
    """Another base, other data and other first adapters."""
    process = run_lesson("12_finetuning", "--seed", "1", "--outputs", str(tmp_path), timeout=1800)
    assert process.returncode == 0, process.stdout + process.stderr


def test_walkthrough_agrees_with_the_quickstart(course):
    run_as_documented("12_finetuning", course)

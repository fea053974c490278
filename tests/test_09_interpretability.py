import math
from dataclasses import replace

import pytest
import torch
from conftest import pictures_in, run_as_documented, run_lesson

from common import lesson
from course.training.broken import without_paths
from course.training.engine import finish, train

m, five = lesson("09_interpretability"), lesson("05_mini_transformer")
CPU = torch.device("cpu")
SMALL = five.TransformerConfig(d_model=16, n_heads=2, n_layers=1)
SHORT = five.TrainingConfig(steps=30, batch_size=8, warmup=5)
TINY = ["--d-model", "16", "--heads", "2", "--layers", "1", "--batch-size", "8", "--steps", "20"]


def run_of(training=SHORT, **options):
    return five.make_run(SMALL, training, CPU, **options)


@pytest.mark.parametrize("clip", [1e-3, 1e3])
def test_the_gradients_noted_are_those_before_clipping(clip):
    """Where all of them are clipped, and where none is."""
    run = run_of(training=replace(SHORT, steps=1, clip=clip))
    unclipped = run_of()
    unclipped.backward(0)
    train(run, after=m.note_learning)
    for name, part in m.parts_of(unclipped.model).items():
        norm = torch.cat([parameter.grad.flatten() for parameter in part.parameters()]).norm().item()
        assert run.history[0][f"gradient in {name}"] == pytest.approx(norm, rel=1e-3), name


@pytest.mark.parametrize("by_hand", [False, True])
def test_the_moves_noted_are_those_of_the_weights(by_hand):
    run = run_of(training=replace(SHORT, steps=12, weight_decay=0.0, by_hand=by_hand))
    for _ in range(11):
        before = {name: [parameter.clone() for parameter in part.parameters()]
                  for name, part in m.parts_of(run.model).items()}
        run.update()
    for name, part in m.parts_of(run.model).items():
        moved = torch.cat([(new - old).flatten() for new, old in zip(part.parameters(), before[name])])
        rate = five.learning_rate(10, run.settings, SMALL.d_model)
        assert m.last_move(run.optimizer, part) == pytest.approx(
            moved.square().mean().sqrt().item() / rate, rel=1e-2)


def test_first_weights_are_put_back_and_taken_out_again():
    run, fresh = finish(run_of()), run_of(training=replace(SHORT, seed=1))
    batch = five.draw_batch("copy", 5, "test", (0,))
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    assert [*m.with_first_weights(run.model, fresh.model, batch)] == ["embedding", "encoder 0", "decoder 0"]
    assert all(torch.equal(value, before[name]) for name, value in run.model.state_dict().items())


def test_without_an_attention_every_place_gets_its_mean(monkeypatch):
    torch.manual_seed(0)
    model, batch = five.Transformer(SMALL).eval(), five.draw_batch("copy", 5, "test", (0,))
    attention, seen = model.encoder.blocks[0].self_attention, []
    monkeypatch.setattr(m, "evaluate", lambda model, batch: seen.append(model.encode(batch.src)) or
                        five.Scores(0.0, 0.0, 0.5, None, None))
    assert m.right_without(attention, model, batch, (0, 1)) == 0.5
    whole, own = model.encode(batch.src), attention.forward
    attention.forward = lambda *inputs: own(*inputs).mean((0, 1)).expand(*batch.src.shape, -1)
    assert torch.allclose(seen[0], model.encode(batch.src), atol=1e-6)
    assert not torch.allclose(seen[0], whole, atol=1e-3)


def test_repeating_is_the_probability_of_the_token_just_read():
    class Repeats(torch.nn.Module):
        """Logit 3 for the token just read, 0 for all others; where that is PAD, 0 for all."""

        def forward(self, src, tgt_in):
            logits = 3.0 * torch.nn.functional.one_hot(tgt_in, SMALL.vocab_size)
            return logits.masked_fill((tgt_in == m.PAD)[..., None], 0.0)

    loss, again = m.repeats(Repeats(), five.make_batch("copy", [[1, 2], [3], [2, 3, 1]]))
    total = math.exp(3) + SMALL.vocab_size - 1
    assert again == pytest.approx(math.exp(3) / total)
    assert loss == pytest.approx(math.log(total))  # no target repeats its input


def test_without_paths_only_what_a_layer_answers_goes_on():
    torch.manual_seed(0)
    with_paths, without = run_of(), run_of(prepare=without_paths)
    assert all(torch.equal(value, without.model.state_dict()[name])
               for name, value in with_paths.model.state_dict().items())
    block, x = without.model.encoder.blocks[0], torch.randn(2, 3, 16)
    assert torch.equal(block.around_feed_forward.after(x, 2 * x), 2 * x)


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("step", ["last_gain", "what_learns", "scarce_data"])
def test_steps_hold_by_themselves(tmp_path, step, seed):
    """Those that train their own models, whatever the seed of the walkthrough."""
    options = ["--step", step, "--seed", str(seed), "--outputs", str(tmp_path)]
    process = run_lesson("09_interpretability", *options)
    assert process.returncode == 0, process.stdout + process.stderr


@pytest.mark.exhaustive
@pytest.mark.parametrize("task", ["copy", "sort", "sum"])
def test_other_tasks_are_shown_and_said_to_differ(tmp_path, task):
    process = run_lesson("09_interpretability", "--task", task, *TINY, "--outputs", str(tmp_path))
    assert process.returncode == 0, process.stdout + process.stderr
    assert "This one is " + task in " ".join(process.stdout.split())
    assert all(name.startswith(f"interpretability_gradient_flow-{task}") for name in pictures_in(tmp_path))


def test_the_model_is_lesson_5s_from_its_checkpoint(tmp_path):
    options = [*TINY, "--outputs", str(tmp_path), "--step"]
    first = run_lesson("09_interpretability", *options, "first_weights")
    assert (first.returncode, first.stdout.count("20/20")) == (0, 1), first.stderr
    (saved,) = tmp_path.glob("checkpoint_*.pt")
    before = saved.read_bytes()
    again = run_lesson("09_interpretability", *options, "first_weights")
    assert (again.returncode, again.stdout.count("20/20")) == (0, 0), again.stderr
    assert saved.read_bytes() == before
    assert run_lesson("05_mini_transformer", *options, "two_accuracies").stdout.count("20/20") == 0


def test_walkthrough_agrees_with_the_quickstart(course):
    run_as_documented("09_interpretability", course)

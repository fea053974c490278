import ast
import inspect
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
    found = m.with_first_weights(run.model, fresh.model, lambda model: m.right(model, batch))
    assert [*found] == ["embedding", "encoder 0", "decoder 0"]
    assert all(torch.equal(value, before[name]) for name, value in run.model.state_dict().items())


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


# ------------------------------------------------------------------ a model whose circuit is known

TOKENS, PLACES, ANSWER = 0, 13, 23  # where the numbers of a vector begin: token, place, answer
WIDTH, LENGTH = 40, 8


class Known(torch.nn.Module):
    """Reverses sequences of LENGTH digits with weights set by hand.

    The encoder only passes tokens and places on. In the decoder's second block head 0 looks at the mirrored
    place and writes its token into the answer; head 1 looks sharply at the same place and writes nothing.
    """

    class Embedding(torch.nn.Module):
        def forward(self, tokens):
            places = torch.eye(10)[: tokens.shape[1]].expand(len(tokens), -1, -1)
            seen = torch.nn.functional.one_hot(tokens, 13).float()
            return torch.cat([seen, places, torch.zeros(*tokens.shape, WIDTH - ANSWER)], dim=-1)

        def logits(self, x):
            return 9 * x[..., ANSWER : ANSWER + 13]

    class Block(torch.nn.Module):
        def __init__(self, crosses: bool):
            super().__init__()
            self.feed_forward = torch.nn.Linear(WIDTH, WIDTH)
            torch.nn.init.zeros_(self.feed_forward.weight)
            torch.nn.init.zeros_(self.feed_forward.bias)
            if crosses:
                self.cross_attention = m.MultiHeadAttention(WIDTH, 2)
                for parameter in self.cross_attention.parameters():
                    torch.nn.init.zeros_(parameter)

        def forward(self, x, memory=None):
            x = x + self.feed_forward(x)
            return x if memory is None else x + self.cross_attention(x, memory, memory)

    def __init__(self):
        super().__init__()
        self.embedding = Known.Embedding()
        for name, crosses in (("encoder", False), ("decoder", True)):
            stack = torch.nn.Module()
            stack.blocks = torch.nn.ModuleList(Known.Block(crosses) for _ in range(2))
            stack.norm = torch.nn.Identity()
            self.add_module(name, stack)
        circuit, head = self.decoder.blocks[1].cross_attention, WIDTH // 2
        with torch.no_grad():
            for place in range(LENGTH):
                circuit.project_key.weight[place, PLACES + place] = 20
                circuit.project_query.weight[LENGTH - 1 - place, PLACES + place] = 20
                circuit.project_key.weight[head + place, PLACES + place] = 20
                circuit.project_query.weight[head + place, PLACES + place] = 20
            for token in range(13):
                circuit.project_value.weight[token, TOKENS + token] = 1
                circuit.project_output.weight[ANSWER + token, token] = 1

    def forward(self, src, tgt):
        memory, x = self.embedding(src), self.embedding(tgt)
        for block in self.encoder.blocks:
            memory = block(memory)
        for block in self.decoder.blocks:
            x = block(x, memory)
        return self.embedding.logits(x)


def known_batch(count=40, seed=0):
    """Without EOS: the model knows one length."""
    src = torch.randint(3, 13, (count, LENGTH), generator=torch.Generator().manual_seed(seed))
    answer = src.flip(1)
    return five.Batch(src, torch.cat([torch.full((count, 1), five.BOS), answer[:, :-1]], 1), answer)


CIRCUIT = "decoder.blocks.1.cross_attention"


def test_ablating_finds_the_circuit():
    model, batch = Known(), known_batch()
    assert m.right(model, batch) == 1
    for how in ("zero", "mean", "place", "other"):
        assert m.right_without(model, CIRCUIT, batch, how) == 0
        assert m.right_without(model, "decoder.blocks.0.cross_attention", batch, how) == 1
    assert m.right(model, batch) == 1  # nothing is left behind


def test_heads_are_needed_by_what_they_do_not_by_their_weights():
    found = m.heads_of(Known(), known_batch())
    assert found[CIRCUIT, 0] == (pytest.approx(1, abs=1e-3), 0)
    assert found[CIRCUIT, 1] == (pytest.approx(1, abs=1e-3), 1)
    assert found["decoder.blocks.0.cross_attention", 0] == (pytest.approx(1 / LENGTH), 1)
    both = [(CIRCUIT, 1), ("decoder.blocks.0.cross_attention", 0)]
    assert m.without_heads(Known(), both, known_batch()).all()
    assert not m.without_heads(Known(), [(CIRCUIT, 0)], known_batch()).any()


def test_the_lens_finds_the_block_that_writes():
    batch = known_batch()
    logits = m.logit_lens(Known(), "decoder", batch.src, batch.tgt_in)
    assert torch.equal(logits[0], torch.zeros_like(logits[0]))
    assert (logits[1].argmax(-1) == batch.tgt_out).all()


def test_patching_finds_where_the_digit_goes():
    batch = known_batch()
    other = batch.src.clone()
    other[:, m.CHANGED] = (other[:, m.CHANGED] - 3 + 1) % 10 + 3
    donors = batch._replace(src=other, tgt_out=other.flip(1))
    for name in m.layers_of(model := Known()):
        carried = {"encoder.blocks.0": m.CHANGED, "encoder.blocks.1": m.CHANGED,
                   CIRCUIT: LENGTH - 1 - m.CHANGED, "decoder.blocks.1": LENGTH - 1 - m.CHANGED}.get(name)
        wanted = [float(place == carried) for place in range(LENGTH)]
        assert m.carries_the_digit(m.patch, model, name, batch, donors) == wanted, name


def test_patching_finds_where_the_place_is():
    model, batch = Known(), known_batch(200)
    assert m.carries_the_place(m.patch, model, "decoder.blocks.0", batch) == [1.0] * (LENGTH - 1)
    idle = m.carries_the_place(m.patch, model, "decoder.blocks.0.cross_attention", batch)
    assert max(idle) < 0.25  # where two digits are equal by chance


def test_probes_find_what_is_written_and_erasing_what_is_used():
    model, batch = Known(), known_batch(300)
    fresh = Known()
    fresh.embedding.forward = lambda tokens: torch.zeros(*tokens.shape, WIDTH)
    found = m.probed(model, fresh, batch)
    trained, shuffled, untrained, kept = found["encoder: its digit"]
    assert trained == 1
    assert max(shuffled, untrained) < 0.2
    assert kept < 0.3
    trained, shuffled, untrained, kept = found["decoder: digit just read"]
    assert trained == kept == 1
    assert max(shuffled, untrained) < 0.2
    assert found["decoder: digit to write"][0] < 0.4  # it comes one block later
    assert abs(found["encoder: sum odd?"][0] - 0.5) < 0.1


def test_with_other_sources_the_answer_follows_them():
    batch, others = known_batch(), known_batch(seed=1)
    assert m.right_with_length(Known(), "encoder.blocks.0.feed_forward", batch, others.src) == 1
    assert m.right_with_length(Known(), CIRCUIT, batch, others.src) == 0


# ------------------------------------------------------------------ the parts


@pytest.mark.parametrize("part", m.GRADED)
def test_all_checks_of_a_part_hold(part):
    found = {check.statement: check.finding for check in m.GRADED[part](getattr(m, part), m)}
    assert found
    assert not [(statement, finding) for statement, finding in found.items() if not finding.holds]


@pytest.mark.parametrize("part", [*m.GRADED, "replace_part", "replace_head"])
def test_an_instrument_has_at_most_15_lines(part):
    """Of code: docstrings and empty lines don't count."""
    tree = ast.parse(inspect.getsource(getattr(m, part)))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node):
            node.body = node.body[1:]
    assert len(ast.unparse(tree).splitlines()) <= 15


def test_without_classes_no_probe_finds_the_label():
    x, labels = torch.randn(20, 10, 6), torch.randint(-1, 3, (20, 10))
    x[..., 0] += labels
    moved = m.without_classes(x, labels)
    assert torch.equal(moved[labels < 0], x[labels < 0])
    means = [moved[labels == label].mean(0) for label in range(3)]
    assert all(torch.allclose(mean, x[labels >= 0].mean(0), atol=1e-5) for mean in means)


def test_the_lens_reads_a_model_of_one_stack_too():
    ten = lesson("10_architectures")
    model = ten.OneStack(ten.StackConfig(d_model=16, n_heads=2, vocab_size=13)).eval()
    tokens = torch.randint(13, (2, 5))
    assert torch.allclose(m.logit_lens(model, "stack", tokens)[-1], model(tokens))


# ------------------------------------------------------------------ the clinic

HEALTHY = {"leak": 0.0, "repeats": 0.1, "P(PAD)": 0.0, "least move": 0.1, "least spread": 0.1,
           "stride": 0.01, "source": 1.1}
SICK = {"no causal mask": {"leak": 8.0}, "no shift": {"repeats": 0.9, "source": 0.0, "P(PAD)": 0.5},
        "loss on PAD": {"P(PAD)": 1.0}, "frozen part": {"least move": 0.0},
        "dead part": {"least spread": 0.0},
        "rate too high": {"stride": 0.07, "source": 0.0}, "labels shuffled": {"source": 0.0}}


def test_every_sickness_has_its_sign():
    assert m.diagnosis(HEALTHY) == "right"
    assert {name: m.diagnosis(HEALTHY | changes) for name, changes in SICK.items()} == {
        name: name for name in SICK}
    assert SICK.keys() == m.SIGNS.keys() == m.patients(0).keys() - {"right"}


@pytest.mark.parametrize("name", ["no causal mask", "dead part", "frozen part"])
def test_three_are_known_after_four_steps(name, monkeypatch):
    """Those whose sign doesn't come with learning."""
    plain = m.make_run
    monkeypatch.setattr(m, "make_run", lambda config, training, *others, **options: plain(
        config, replace(training, steps=4), *others, **options))
    torch.manual_seed(0)
    readings = m.patients(0)[name]().readings
    reading, is_sign = m.SIGNS[name]
    assert is_sign(readings[reading])
    for other in {"no causal mask", "dead part", "frozen part"} - {name}:
        reading, is_sign = m.SIGNS[other]
        assert not is_sign(readings[reading]), other


# ------------------------------------------------------------------ lesson 8's translator


def test_without_the_translator_the_step_says_how_to_get_it(tmp_path):
    process = run_lesson("09_interpretability", "--step", "rules_of_french", "--outputs", str(tmp_path))
    assert process.returncode == 0, process.stderr
    assert "python 08_translation.py --step training" in process.stdout


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("step", ["last_gain", "what_learns", "scarce_data", "clinic"])
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
    pictures = pictures_in(tmp_path)
    assert len(pictures) == 5
    assert all(f"-{task}" in name for name in pictures)


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

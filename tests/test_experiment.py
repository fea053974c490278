"""A run and its files: what is kept, what goes on, what is said; and what one command line asks for."""

import argparse
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from conftest import one_line_error, run_lesson

from common import lesson
from course.console.files import unfinished
from course.console.options import OneLineParser
from course.training import comparing, side_by_side
from course.training.command_line import steps_asked_for
from course.training.comparing import compare, scores_of
from course.training.engine import finish, save_run, train

five = lesson("05_mini_transformer")
CPU = torch.device("cpu")
SMALL = five.TransformerConfig(d_model=16, n_heads=2, n_layers=1)
SHORT = five.TrainingConfig(steps=6, batch_size=8, validate_every=2)


def experiment(folder, training=SHORT, **options):
    given = {"device": "cpu", "outputs": folder, "resume": False} | options
    return five.DigitExperiment(SMALL, training, SimpleNamespace(**given))


def after(steps: int, wanted):
    """The experiment's run after so many steps."""
    run = wanted.make()
    while len(run.history) < steps:
        run.update()
    return run


def said(capsys) -> str:
    return " ".join(capsys.readouterr().out.split())


# what was trained is never lost


def test_a_finished_run_is_trained_again_and_replaced_only_by_the_same(tmp_path, capsys):
    experiment(tmp_path).train()
    assert "earlier training" not in said(capsys)
    path = experiment(tmp_path).checkpoint
    experiment(tmp_path).train()
    assert "is the result of an earlier training" in said(capsys)
    assert [*tmp_path.glob("*.pt*")] == [path]
    other = finish(experiment(tmp_path, replace(SHORT, lr=0.1)).make())
    path.unlink()
    save_run(other, path)
    before = path.read_bytes()
    experiment(tmp_path).train()
    aside = path.with_name(path.name + ".1")
    assert aside.read_bytes() == before
    assert aside.name in said(capsys).replace(" ", "")


def test_a_foreign_file_in_its_place_is_kept(tmp_path):
    path = experiment(tmp_path).checkpoint
    path.write_text("precious")
    experiment(tmp_path).train()
    assert path.with_name(path.name + ".1").read_text() == "precious"


def test_what_was_interrupted_goes_on_where_the_run_is_needed(tmp_path, capsys):
    wanted = experiment(tmp_path)
    save_run(after(3, wanted), wanted.checkpoint)
    run = wanted.run
    assert run.finished
    assert "continues with step 4 of 6" in said(capsys)
    assert not unfinished(wanted.checkpoint).exists()
    whole = finish(experiment(tmp_path).make()).model.state_dict()
    assert all(torch.equal(value, whole[name]) for name, value in run.model.state_dict().items())


def test_seconds_are_those_of_this_script(tmp_path):
    wanted = experiment(tmp_path, resume=True)
    half = after(3, wanted)
    for record in half.history:
        record["seconds"] = 1000.0
    save_run(half, wanted.checkpoint)
    assert wanted.train() is None
    assert wanted.begun_at == 3
    assert 0 < wanted.own_seconds < 1000


def test_a_finished_run_left_as_unfinished_is_not_resumed(tmp_path, capsys):
    wanted = experiment(tmp_path, resume=True)
    save_run(finish(wanted.make()), wanted.checkpoint)
    wanted.checkpoint.rename(unfinished(wanted.checkpoint))
    with pytest.raises(SystemExit):
        wanted.train()
    error = " ".join(capsys.readouterr().err.split())
    assert "holds 6 of 6 steps, so there is nothing left to train: rename it to checkpoint_" in error


def test_no_advice_destroys_a_model(tmp_path, capsys):
    wanted = experiment(tmp_path)
    save_run(finish(experiment(tmp_path, replace(SHORT, lr=0.1)).make()), wanted.checkpoint)
    with pytest.raises(SystemExit):
        _ = wanted.run
    error = capsys.readouterr().err
    assert "it holds another run: lr is 0.1" in error
    assert "delete" not in error


@pytest.mark.parametrize(("field", "value"), [("lr", 0.003001), ("lr", 3.0000000001e-3), ("beta2", 0.9990001),
                                              ("weight_decay", 1e-12)])
def test_names_of_runs_keep_every_digit(field, value):
    names = {five.run_name(SMALL, replace(SHORT, **{field: number}))
             for number in (value, getattr(SHORT, field))}
    assert len(names) == 2
    assert any(str(value) in name for name in names)


def test_only_a_run_that_is_not_the_default_is_said_to_differ(tmp_path):
    options = SimpleNamespace(device="cpu", outputs=tmp_path)
    default = five.DigitExperiment(five.TransformerConfig(), five.TrainingConfig(), options)
    assert default.differs == ""
    assert "This one is copy:" in five.DigitExperiment(
        five.TransformerConfig(), five.TrainingConfig(task="copy"), options).differs


@pytest.mark.parametrize(("scores", "said"), [
    ([0.5, 1.0, 0.9, 1.0], "first validation without an error: after step 4"), ([0.5, 0.9], None)])
def test_the_facts_are_those_of_the_history(tmp_path, scores, said):
    """A validation after every other step; the gradient is longer than the clip in the first step alone."""
    wanted = experiment(tmp_path)
    wanted.run = wanted.make()
    for step in range(2 * len(scores)):
        wanted.run.history.append({"step": step + 1, "seconds": 2.0, "gradient_norm": 0.0 if step else 9.0})
        wanted.run.history[-1] |= {"exact_match": scores[step // 2]} if step % 2 else {}
    wanted.begun_at = 2
    steps, clipped, *first = wanted.facts().splitlines()
    left = 2 * len(scores) - 2
    assert steps == f"{left} steps on cpu: {2 * left:.1f} s in the steps themselves"
    assert clipped == f"the gradient was clipped in {1 / (left + 2):.0%} of the steps"
    assert first == ([said] if said else [])


# variants side by side


CHANGES = {"as it is": {}, "higher": {"lr": 0.01}, "decayed": {"weight_decay": 1.0}}
VARIANTS = {
    name: lambda seed, changes=changes: five.make_run(SMALL, replace(SHORT, seed=seed, **changes), CPU)
    for name, changes in CHANGES.items()}


def test_side_by_side_is_the_same_bits_as_in_turns(monkeypatch):
    def measure(run):
        return five.evaluate(run.model, five.draw_batch("reverse", 20, "test", (0,))).loss

    monkeypatch.setattr(side_by_side, "idle_cores", lambda: 3)
    beside = compare(VARIANTS, [3, 4], finish, measure)
    monkeypatch.setattr(side_by_side, "idle_cores", lambda: 1)
    in_turns = compare(VARIANTS, [3, 4], finish, measure)
    assert [*beside] == [*in_turns] == [*VARIANTS]
    for name, found in beside.items():
        assert found.measured == in_turns[name].measured
        for one, other, seed in zip(found.runs, in_turns[name].runs, (3, 4), strict=True):
            alone = finish(VARIANTS[name](seed))
            assert one.noted("loss") == other.noted("loss") == alone.noted("loss")
            assert all(torch.equal(value, other.model.state_dict()[key])
                       and torch.equal(value, alone.model.state_dict()[key])
                       for key, value in one.model.state_dict().items())
            assert one.finished


def test_scores_are_those_of_the_finished_run():
    scores = scores_of(VARIANTS, 0, finish)
    run = finish(VARIANTS["higher"](0))
    run.validate()
    assert scores["higher"]["validation_loss"] == run.history[-1]["validation_loss"]


def test_progress_names_variant_and_seed(monkeypatch, capsys):
    monkeypatch.setattr(side_by_side, "idle_cores", lambda: 1)
    compare({"a": VARIANTS["as it is"]}, [0, 1], train, lambda run: 0.0, "--compare x")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("--compare x: 0 of 2 done; a, seed 0: 1/6, loss ")
    assert lines[-1] == "--compare x: 2 of 2 done"
    assert any("1 of 2 done; a, seed 1: 6/6" in line for line in lines)


@pytest.mark.parametrize("cores", [1, 2])
def test_ctrl_c_in_one_variant_ends_all(monkeypatch, cores):
    monkeypatch.setattr(side_by_side, "idle_cores", lambda: cores)
    with pytest.raises(KeyboardInterrupt):
        compare(VARIANTS, [0], lambda run: run, lambda run: 0.0)  # returns before it has finished


def test_a_variant_that_bursts_is_one_line_with_its_name(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        compare({"lr 1e30": lambda seed: five.make_run(SMALL, replace(SHORT, lr=1e30), CPU)}, [0], finish, id)
    assert "lr 1e30: step 2" in capsys.readouterr().err.replace("\n", " ")


def test_a_summary_does_not_depend_on_how_many_seeds_there_are():
    def run(*seconds):
        return SimpleNamespace(noted=lambda name: {"seconds": [*seconds]}[name])

    one, two = run(1.0, 2.0), run(4.0, 5.0)
    found = comparing.summaries({"one": comparing.Compared([one], [0.25]),
                                 "thrice": comparing.Compared([one] * 3, [0.25] * 3),
                                 "both": comparing.Compared([one, two], [0.5, 0.25])})
    assert found["one"] == found["thrice"] == ("3.0", "25.0%")
    assert found["both"] == ("6.0", "25.0% to 50.0%")


def test_the_best_variant_has_the_highest_mean():
    found = {1: comparing.Compared([], [0.2, 0.9]), 2: comparing.Compared([], [0.6, 0.6])}
    assert comparing.best(found) == 2


# the command line


@pytest.mark.parametrize(("options", "said"), [
    (["--compare", "dropout=0.1,2"], "dropout is 2.0; it must be below 1"),
    (["--compare", "lr=0.1,-1"], "lr is -1.0"),
    (["--compare", "d_model=64,10000000"], "d_model 10,000,000"),
    (["--compare", "d_model=64,30"], "d_model 30 does not split into 4 heads"),
])
def test_all_values_are_checked_before_any_training(options, said, tmp_path):
    process = run_lesson("05_mini_transformer", *options, "--outputs", str(tmp_path / "new"))
    assert said in one_line_error(process, 2)
    assert process.stdout == ""
    assert not (tmp_path / "new").exists()


def test_other_defaults_follow_from_the_options(monkeypatch):
    parser = OneLineParser()
    parser.add_argument("--outputs", default="x")
    line = replace(five.COMMAND_LINE, other_defaults=lambda options: {"lr": 0.5} if options.by_hand else {},
                   experiment=lambda *asked: SimpleNamespace(asked=asked, device=CPU, parallel=None,
                                                            check=lambda: None))
    line.add_options(parser)
    for arguments, rate in ([], 3e-3), (["--by-hand"], 0.5), (["--by-hand", "--lr", "0.1"], 0.1):
        monkeypatch.setattr("sys.argv", ["script", *arguments])
        assert line.parsed(parser).asked[1].lr == rate
        parser.set_defaults(lr=3e-3)


def test_the_steps_are_those_of_the_first_further_run_that_is_asked_for(monkeypatch):
    def options(**given):
        return argparse.Namespace(**{"broken": False, "compare": None, "own": []} | given)

    steps, training = ["first", "training", "last"], "training"
    further = {"broken": ["broken"], "compare": ["compare"], "own": ["training", "own"]}
    for given, wanted in ({}, steps), ({"broken": True, "own": ["x"]}, ["broken"]), (
            {"compare": ("x", [1])}, ["compare"]), ({"own": ["x"]}, ["training", "own"]):
        assert steps_asked_for(options(**given), steps, further, training) == wanted
    monkeypatch.setattr("course.training.command_line.PROCESSES", 2)
    for given, wanted in ({}, ["training"]), ({"own": ["x"]}, ["training"]), ({"broken": True}, ["broken"]):
        assert steps_asked_for(options(**given), steps, further, training) == wanted

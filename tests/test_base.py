"""--from CHECKPOINT: a training that begins with the weights of a trained model."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from conftest import one_line_error, run_lesson

from common import lesson
from course.training.base import Base, read_base
from course.training.engine import finish, save_run

five = lesson("05_mini_transformer")
SIZES = five.TransformerConfig(d_model=16, n_heads=2, n_layers=1)
SHORT = five.TrainingConfig(steps=6, batch_size=8, validate_every=3)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A trained model's checkpoint."""
    path = tmp_path_factory.mktemp("base") / "old.pt"
    save_run(finish(five.make_run(SIZES, SHORT, torch.device("cpu"))), path)
    return path


def experiment(folder, base, training=SHORT, sizes=SIZES):
    return five.DigitExperiment(sizes, training, SimpleNamespace(
        device="cpu", outputs=folder, resume=False, base=base))


def test_the_first_weights_are_the_last_of_the_other_training(saved, tmp_path):
    base = read_base(saved)
    new = experiment(tmp_path, base, replace(SHORT, task="copy"))
    first = new.make()
    assert first.history == []
    assert not first.optimizer.state
    state = first.model.state_dict()
    assert state.keys() == base.weights.keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in base.weights.items())
    fresh = experiment(tmp_path, None, replace(SHORT, task="copy")).make().model.state_dict()
    assert not torch.equal(fresh["embedding.weight"], state["embedding.weight"])


def test_a_run_is_known_by_the_weights_that_it_began_with(saved, tmp_path):
    base = read_base(saved)
    moved = {name: tensor + 1 for name, tensor in base.weights.items()}
    other = Base(tmp_path / "elsewhere.pt", base.about, moved)
    same = Base(tmp_path / "elsewhere.pt", base.about, base.weights)
    names = [experiment(tmp_path, one).name for one in (None, base, same, other)]
    assert names[1] == names[2] == f"{names[0]}-from={base.hash[:8]}"
    assert len({*names}) == 3
    run = experiment(tmp_path, base)
    run.train()
    again = experiment(tmp_path, base)
    assert again.run.noted("loss") == run.run.noted("loss")  # loaded
    again.checkpoint.rename(experiment(tmp_path, other).checkpoint)
    with pytest.raises(SystemExit):
        _ = experiment(tmp_path, other).run


def test_weights_of_another_model_are_refused(saved, tmp_path):
    base = read_base(saved)
    with pytest.raises(ValueError, match=r"--from .*old.pt: its weights aren't those of this model"):
        experiment(tmp_path, base, sizes=replace(SIZES, n_layers=2)).check()
    wide = Base(saved, base.about, {name: tensor.double() for name, tensor in base.weights.items()})
    with pytest.raises(ValueError, match=r"isn't .* finite numbers of torch.float32"):
        experiment(tmp_path, wide).check()


@pytest.mark.parametrize(("options", "said"), [
    (["--d-model", "32"], "d_model is 32, but --from {saved} holds a model with 16"),
    (["--compare", "n_layers=1,2"], "n_layers is 2, but --from {saved} holds a model with 1"),
    (["--from", "none.pt"], "there is no such checkpoint: none.pt"),
    (["--from", "LICENSE"], "LICENSE is not a checkpoint of this lesson"),
])
def test_what_cannot_be_begun_with_is_one_line(options, said, saved, tmp_path):
    new = tmp_path / "new"
    process = run_lesson("05_mini_transformer", "--from", str(saved), *options, "--outputs", str(new))
    assert said.format(saved=saved) in one_line_error(process, 2)
    assert process.stdout == ""
    assert not new.exists()

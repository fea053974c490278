"""Every option of every script changes what it says, and nothing else. A new option needs a test here."""

import io
import os
import re
import sys
from contextlib import redirect_stdout
from itertools import chain
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace

import pytest
import torch
from byte_pieces import write_byte_pieces
from calling import Caught, called, parser_of
from conftest import LESSONS, ROOT, torch_dropouts

import common
from checks.published import CONFIGS
from common import lesson, lesson_parser, narrate, shows
from course.data import corpus
from course.grading.own import Own
from course.grading.watching import state_of, wants_hint
from course.pages import walkthrough
from course.published.loading import write_random
from course.study.lessons import study_of
from course.training import processes
from course.training.attentions import attention_parts
from course.training.engine import Run
from course.training.experiment import Experiment
from course.training.parts import build

five, six, eight = lesson("05_mini_transformer"), lesson("06_decoding"), lesson("08_translation")
nine, ten, twelve = lesson("09_interpretability"), lesson("10_architectures"), lesson("12_finetuning")
two = lesson("02_multi_head_attention")


@pytest.mark.parametrize("name", LESSONS)
def test_every_option_has_a_test(name):
    common_options = {action.dest for action in lesson_parser("A lesson.", {"part": None})._actions}
    for action in parser_of(name)._actions:
        if action.dest in common_options:
            wanted = f"test_common_{action.dest}"
        elif action.dest in CHANGES_OF.get(name, ()):
            continue
        else:
            wanted = f"test_{name[:2]}_{action.dest}"
        named = re.compile(rf"{wanted}|test_{name[:2]}_(?:.*_and_)?{action.dest}(?:_and_.*)?")
        assert any(map(named.fullmatch, globals())), f"no test sees {action.option_strings} of {name}"


# the options that all lessons have


def first_part(x):
    """The code of a part."""
    return x


@shows(first_part)
def step_first():
    """The first step

    Its prose.
    """
    common.check("a claim", True)
    return f"drew {torch.rand(()).item():.6f} with {torch.get_num_threads()} threads"


def step_second_one():
    """The second step"""
    part = common.Part([holds_always], lambda ours: {})
    common.check_part(first_part, part, None)
    figure, axes = common.canvas(width=2, height=1)
    axes.plot([0, 1])
    return common.Picture("second.png", figure, "A line")


def holds_always(part, ours):
    """It always holds."""
    return common.Finding(True)


def said(tmp_path, *arguments, graded=None, outputs=True) -> tuple[str, int]:
    """What a script of these two steps says, without its seconds, and its exit code."""
    options = lesson_parser("A lesson.", graded).parse_args(
        [*arguments, *(["--outputs", str(tmp_path)] if outputs else [])])
    before, text = torch.get_num_threads(), io.StringIO()
    try:
        with redirect_stdout(text), pytest.raises(SystemExit) as ended:
            narrate(options, "What the lesson says.", [step_first, step_second_one])
    finally:
        torch.set_num_threads(before)
    return re.sub(r"\d+\.\d s", "… s", text.getvalue()), ended.value.code or 0


def drawn(text: str) -> str:
    return re.search(r"drew (\S+)", text)[1]


@pytest.fixture
def plain(tmp_path):
    text, code = said(tmp_path)
    assert code == 0
    return text


def test_what_is_said_without_options(plain):
    for part in ("What the lesson says.", "The first step", "Its prose.", "def first_part(x)", "a claim",
                 "The second step", "1 check holds", "second.png", "2 of 2 checks hold"):
        assert part in plain.replace("\n", " ") or part in plain.replace("\n", ""), part  # paths may be cut
    assert "always holds" not in plain


def test_common_help(capsys):
    with pytest.raises(SystemExit) as ended:
        lesson_parser("A lesson.\n\nMore.").parse_args(["--help"])
    assert ended.value.code == 0
    assert "A lesson." in capsys.readouterr().out


def test_common_list(tmp_path):
    text, code = said(tmp_path / "none", "--list")
    assert code == 0
    assert re.search(r"1 +first +The first step", text)
    assert re.search(r"2 +second-one +The second step", text)
    assert "claim" not in text
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("name", ["2", "second-one", "second_one", "step_second_one"])
def test_common_step(tmp_path, plain, name):
    text, code = said(tmp_path, "--step", name)
    assert code == 0
    assert "The first step" not in text
    assert "What the lesson says." not in text
    assert "The second step" in text
    assert text.partition("\n(")[0].strip().endswith("1 of 1 checks hold, … s")
    alone, _ = said(tmp_path, "--step", "first")
    assert drawn(alone) == drawn(plain)  # the same seed alone and in the walkthrough


def test_common_pause(tmp_path, plain, monkeypatch):
    asked = []
    monkeypatch.setattr("builtins.input", lambda words: asked.append(words))
    text, _ = said(tmp_path, "--pause")
    assert len(asked) == 1  # between two steps
    assert text == plain
    said(tmp_path)
    assert len(asked) == 1


def test_common_code(tmp_path, plain):
    text, _ = said(tmp_path, "--no-code")
    assert "def first_part" not in text
    assert drawn(text) == drawn(plain)
    left = [line.strip() for line in text.splitlines() if line.strip()]
    assert left == [line.strip() for line in plain.splitlines() if line.strip()
                    and line.strip() not in ("def first_part(x):", '"""The code of a part."""', "return x")]


def test_common_checks(tmp_path, plain):
    text, _ = said(tmp_path, "--checks")
    assert " It always holds" in text
    assert "1 check holds" not in text
    assert drawn(text) == drawn(plain)


def test_common_outputs(tmp_path, monkeypatch):
    monkeypatch.setattr(walkthrough, "OUTPUTS", tmp_path / "usual")
    for place, options in (("usual", []), ("other", ["--outputs", str(tmp_path / "other")])):
        said(tmp_path, *options, outputs=False)
        left = {path.name for path in (tmp_path / place).iterdir()}
        assert left == {"second.png", f"{Path(sys.argv[0]).stem}.html", "index.html", "glossary.html"}
    assert {path.name for path in tmp_path.iterdir()} == {"usual", "other"}


def test_common_page(tmp_path, plain):
    text, code = said(tmp_path / "none", "--no-page")
    assert (code, drawn(text)) == (0, drawn(plain))
    assert [path.name for path in (tmp_path / "none").iterdir()] == ["second.png"]
    assert "file://" in plain
    assert "file://" not in text


def test_common_quiz(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("sys.argv", ["02_multi_head_attention.py"])
    monkeypatch.setattr("builtins.input", lambda prompt: asked.append(prompt) or "")
    text, code = said(tmp_path, "--quiz")
    assert (code, len(asked)) == (0, len(study_of(2).questions))
    for question in study_of(2).questions:
        assert " ".join(question.asked.split()) in " ".join(text.split())
    assert "The first step" not in text


def test_common_seed(tmp_path, plain):
    text, _ = said(tmp_path, "--seed", "1")
    assert drawn(text) != drawn(plain) == drawn(said(tmp_path, "--seed", "0")[0])
    assert text.replace(drawn(text), drawn(plain)).replace("-seed%3D1", "") == plain  # a page of its own


def test_common_threads(tmp_path, plain):
    assert "with 1 threads" in plain
    text, _ = said(tmp_path, "--threads", "2")
    assert text == plain.replace("with 1 threads", "with 2 threads")


@pytest.fixture
def asked(monkeypatch):
    """What the grader and the template were called with."""
    calls = []
    monkeypatch.setattr(walkthrough, "grade", lambda file, parts, narrator, hint: calls.append(
        ("grade", file, parts, narrator.unfolded, hint)) or 3)
    monkeypatch.setattr(walkthrough, "write_template", lambda file, parts, narrator, guided: calls.append(
        ("template", file, parts, guided)) or 4)
    return calls


def test_common_grade(tmp_path, asked):
    graded = {"first_part": None}
    text, code = said(tmp_path, "--grade", "mine.py", graded=graded)
    assert (text, code) == ("", 3)  # nothing else is done, and its exit code is the script's
    said(tmp_path, "--grade", "mine.py", "--checks", graded=graded)
    assert asked == [("grade", Path("mine.py"), graded, unfolded, False) for unfolded in (False, True)]


def test_common_hint(tmp_path, asked):
    said(tmp_path, "--grade", "mine.py", "--hint", graded={"first_part": None})
    assert asked[0][-1] is True
    assert said(tmp_path, "--hint", graded={"first_part": None})[1] == 2


def test_common_watch(tmp_path, asked, monkeypatch):
    seen = []
    monkeypatch.setattr(walkthrough, "watch", lambda options, narrator: seen.append(options.grade) or 5)
    text, code = said(tmp_path, "--grade", "mine.py", "--watch", graded={"first_part": None})
    assert (text, code, seen, asked) == ("", 5, [Path("mine.py")], [])  # graded by watch() alone
    assert said(tmp_path, "--watch", graded={"first_part": None})[1] == 2


def test_watching_sees_that_a_file_was_saved(tmp_path):
    file = tmp_path / "mine.py"
    assert state_of(file) is None
    file.write_text("a")
    before = state_of(file)
    assert state_of(file) == before
    file.write_text("ab")
    os.utime(file, ns=(0, before[0]))
    assert state_of(file) not in (before, None)
    file.write_text("ba")
    os.utime(file, ns=(0, before[0] + 10**9))
    assert state_of(file) not in (before, None)


def test_watching_hears_an_h():
    lines = SimpleQueue()
    assert not wants_hint(lines)
    for line in ("h", "x"):
        lines.put(line)
    assert wants_hint(lines)
    assert not wants_hint(lines)  # once


def test_common_template(tmp_path, asked):
    text, code = said(tmp_path, "--template", "mine.py", graded={"first_part": None})
    assert (text, code) == ("", 4)
    assert asked == [("template", Path("mine.py"), {"first_part": None}, False)]


def test_common_guided(tmp_path, asked):
    said(tmp_path, "--template", "mine.py", "--guided", graded={"first_part": None})
    assert asked[0][-1] is True
    assert said(tmp_path, "--guided", graded={"first_part": None})[1] == 2


# lesson 5's


TINY = ["--d-model", "8", "--heads", "2", "--layers", "1", "--batch-size", "4", "--steps", "6", "--warmup",
        "2"]


def seen_in(run: Run, compiled: list) -> dict[str, object]:
    """What can be seen of a fresh run and of its first update; nothing is read off its settings."""
    model, batch = run.model, run.job.batch(0)
    stacks = [model.stack] if hasattr(model, "stack") else [model.encoder, model.decoder]
    rows = [[token - five.ZERO for token in row if token] for row in batch[0].tolist()]
    digits = rows if {*chain(*rows)} <= {*range(10)} else []  # else they are no digits
    logits = torch.arange(26.0).view(1, 2, 13).sin()
    targets = batch._replace(**{batch._fields[-1]: torch.tensor([[3, 4]])})
    attentions = [module for module in model.modules() if hasattr(module, "project_query")]
    seen = {
        "width": model.embedding.weight.shape[1],
        "heads": {module.n_heads for module in attentions},
        "groups": {module.project_query.out_features / module.project_key.out_features
                   for module in attentions},
        "blocks": tuple(len(stack.blocks) for stack in stacks),
        "inner": {module.expand.out_features for module in model.modules() if hasattr(module, "expand")},
        "layers": {type(module).__name__ for module in model.modules() if hasattr(module, "expand")},
        "norms": [type(stacks[0].norm).__name__, {module.pre for module in model.modules()
                                                      if hasattr(module, "pre")}],
        "positions": [type(model.positions).__name__, *{type(module).__name__ for module in model.modules()
                                                        if "RotaryPosition" in type(module).__name__}],
        "activation": {module.activation for module in model.modules() if hasattr(module, "activation")},
        "first weights": round(model.embedding.weight.double().sum().item(), 9),
        "rows": len(batch[0]),
        "sources": batch[0][0, :4].tolist(),
        "task": [task for task in five.TASKS if digits and
                  torch.equal(five.make_batch(task, digits).tgt_out, batch[-1])],
        "rates": [round(run.job.rate(step), 12) for step in range(4)],
        "decay": {group["weight_decay"] for group in run.optimizer.param_groups},
        "betas": {tuple(group["betas"]) for group in run.optimizer.param_groups},
        "optimizer": type(run.optimizer).__name__,
        "by hand": {getattr(module, name) is part for module in model.modules()
                    for name, part in five.BY_HAND.items() if hasattr(module, name)},
        "loss": round(run.job.loss(lambda *inputs: logits, targets, targets).item(), 5),
        "compiled": len(compiled),
    }
    parts, kinds, blocks = [], [], []
    model.register_forward_pre_hook(lambda module, inputs: parts.append(len(inputs[0])))
    model.register_forward_hook(lambda module, inputs, output: kinds.append(output.dtype))
    stacks[0].blocks[0].self_attention.register_forward_hook(lambda *parts: blocks.append(1))
    with pytest.MonkeyPatch.context() as patch, torch_dropouts(patch) as dropped:
        run.update()
    forwards = len(parts)
    clipped = torch.cat([parameter.grad.flatten() for parameter in model.parameters()]).norm().item()
    seen |= {"parts": forwards, "kinds": {*kinds}, "again": len(blocks) // forwards,
             "dropped": {share for _, share in dropped},
             "clipped": clipped < 0.9 * run.history[0]["gradient_norm"]}
    run.history = []
    due, ends = [], None
    for step in range(1, 60):
        run.history.append({"step": step})
        due += [step] if run.validation_due else []
        run.history[-1] |= {"validation_loss": 1.0} if run.validation_due else {}
        if run.finished:
            ends = step
            break
    return seen | {"validations": due, "ends": ends}


CHANGES = {  # an option's value, and what is then seen otherwise
    "d_model": (16, {"width", "inner", "first weights"}),
    "n_heads": (4, {"heads"}),
    "n_layers": (3, {"blocks"}),
    "d_ff": (24, {"inner"}),
    "dropout": (0.25, {"dropped"}),
    "norm": ("post", {"norms"}),
    "positions": ("rotary", {"positions"}),
    "activation": ("relu", {"activation"}),
    "task": ("sort", {"task"}),
    "steps": (12, {"rates", "validations", "ends"}),
    "clip": (1e-3, {"clipped"}),
    "accumulate": (2, {"parts"}),
    "precision": ("bf16", {"kinds"}),
    "recompute": (True, {"again"}),
    "compile": (True, {"compiled"}),
    "validate_every": (2, {"validations"}),
    "patience": (1, {"ends", "validations"}),
    "batch_size": (5, {"rows", "sources"}),
    "lr": (0.5, {"rates"}),
    "warmup": (4, {"rates"}),
    "schedule": ("inverse_sqrt", {"rates"}),
    "weight_decay": (0.5, {"decay"}),
    "label_smoothing": (0.5, {"loss"}),
    "beta2": (0.5, {"betas"}),
    "by_hand": (True, {"by hand", "optimizer"}),
}
USUAL = ["--validate-every", "2"]  # else a run of six steps would be validated once


def observed(dest: str = "", value=True, defaults=TINY) -> dict[str, object]:
    option = [f"--{dest.replace('_', '-')}", *([] if value is True else [value])] if dest else []
    compiled = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.Module, "compile", lambda self, **options: compiled.append(options))
        run = called(five, *option, defaults=defaults).experiment.make()
        return seen_in(run, compiled)


@pytest.fixture(scope="module")
def usual():
    return {with_patience: observed(defaults=[*TINY, *(USUAL if with_patience else [])])
            for with_patience in (False, True)}


@pytest.mark.parametrize("dest", CHANGES)
def test_05_options_of_model_and_training(dest, usual):
    value, wanted = CHANGES[dest]
    patient = dest == "patience"
    before, after = usual[patient], observed(dest, value, [*TINY, *(USUAL if patient else [])])
    assert {name for name in before if before[name] != after[name]} == wanted


def test_05_options_mean_what_they_say():
    seen = observed(defaults=[*TINY, "--dropout", "0.25", "--validate-every", "4", "--accumulate", "4",
                              "--d-ff", "24", "--layers", "2", "--positions", "rotary", "--precision", "bf16",
                              "--recompute", "--task", "sum", "--norm", "post", "--weight-decay", "0.3"])
    assert seen["dropped"] == {0.25}
    assert seen["validations"] == [4, 6]
    assert seen["parts"] == 4
    assert seen["inner"] == {24}
    assert seen["blocks"] == (2, 2)
    assert seen["positions"] == ["NoneType", "RotaryPositionalEncoding"]
    assert seen["kinds"] == {torch.bfloat16}
    assert seen["again"] == 2
    assert seen["task"] == ["sum"]
    assert seen["norms"] == ["Identity", {False}]
    assert seen["decay"] == {0.3}
    assert observed("positions", "none")["positions"] == ["NoneType"]
    assert observed("positions", "learned")["positions"] == ["LearnedPositionalEncoding"]


def own_and_cross(model) -> tuple[list, list]:
    """The self-attentions and the cross-attentions of a model."""
    found = [(name, module) for name, module in model.named_modules() if hasattr(module, "project_query")]
    return tuple([module for name, module in found if name.endswith(kind)]
                 for kind in ("self_attention", "cross_attention"))


def reach(attention) -> int:
    """How many tokens the first of 20 sees."""
    x = torch.randn(1, 20, attention.project_query.in_features)
    return int((attention.weights(x, x)[0, 0, 0] > 0).sum())


@pytest.mark.parametrize("module", [five, eight, nine, ten])
def test_05_attention_and_groups_and_reach(module):
    """--attention changes how a sequence attends to itself; to the source everything attends as before."""
    sizes = ["--d-model", "16", "--heads", "4", "--layers", "1"]
    models = {}
    for option in ("kernel", "tiled", "linear", "window", "window --reach 3", "grouped",
                   "grouped --groups 2"):
        make = called(module, *sizes, "--attention", *option.split(), **MEMORY).experiment
        config = make.config if module is not eight else make.config.__class__(
            **vars(make.config) | {"vocab_size": 20})
        kind = ten.OneStack if module is ten else five.Transformer
        models[option] = build(lambda kind=kind, config=config: kind(config), attention_parts(config))
    attends = {name: {module.scaled_dot_product_attention for module in chain(*own_and_cross(model))}
               for name, model in models.items()}
    kernel = two.MultiHeadAttention.scaled_dot_product_attention
    assert {name for name in attends if attends[name] != {kernel}} == {"tiled"}
    assert attends["tiled"] == {lesson("11_efficient_attention").tiled_attention}
    assert {name: reach(own_and_cross(model)[0][0]) for name, model in models.items()} == {
        name: {"window": 8, "window --reach 3": 3}.get(name, 20) for name in models}
    widths = {name: {module.project_key.out_features for module in own_and_cross(model)[0]}
              for name, model in models.items()}
    assert widths == {name: {{"grouped": 4, "grouped --groups 2": 8}.get(name, 16)} for name in models}
    for model in models.values():
        assert {type(module) for module in own_and_cross(model)[1]} <= {two.MultiHeadAttention}
    own = own_and_cross(models["linear"])[0][0]
    x = torch.randn(1, 5, 16)
    assert (own.weights(x, x) - own_and_cross(models["kernel"])[0][0].weights(x, x)).abs().max() > 1e-3


# The test above has these lessons, too.
test_08_attention_and_groups_and_reach = test_09_attention_and_groups_and_reach = None
test_10_attention_and_groups_and_reach = None


def test_05_the_seed_decides_about_first_weights_and_data(usual):
    after = observed("seed", 1)
    assert {name for name in after if after[name] != usual[False][name]} == {"first weights", "sources"}


MEMORY = {"course.training.command_line.refuse_beyond_memory": lambda *sizes: None}  # of no such device


def test_05_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for module in (five, six, eight, ten):
        for name, wanted in (("cpu", "cpu"), ("cuda", "cuda"), ("cuda:1", "cuda:1"), ("auto", "cuda")):
            found = called(module, "--device", name, **MEMORY)
            assert found.experiment.device == torch.device(wanted)
        assert called(module, **MEMORY).experiment.device == torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert processes.pick_device() == torch.device("mps")


test_06_device = test_08_device = test_10_device = test_05_device


def test_11_pairs_and_device():
    eleven = lesson("11_efficient_attention")
    assert called(eleven).options.pairs == 32
    found = called(eleven, "--pairs", "8", "--device", "cpu")
    assert found.options.pairs == found.experiment.options.pairs == 8
    assert found.experiment.device == torch.device("cpu")
    asked = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(eleven, "recalls", lambda *parts: asked.append(parts[2]) or {
            name: [0.5] * 3 for name in parts[2]})
        eleven.step_recall(found.experiment)
    assert {pairs for _, _, pairs, _ in asked[0].values()} == {4, 8}


def resumed(module, tmp_path, defaults) -> list[str]:
    """Without and with --resume: which run is trained, the fresh one or the one that was interrupted."""
    trained = []
    for options in [], ["--resume"]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Experiment, "go_on", lambda self: SimpleNamespace(which="resumed", history=[]))
            patch.setattr(Experiment, "fresh", lambda self: SimpleNamespace(which="fresh", history=[]))
            kind = {eight: "TranslationExperiment", ten: "TextExperiment"}.get(module, "DigitExperiment")
            kind = getattr(module, kind)
            patch.setattr(kind, "trained", lambda self, run: (_ for _ in ()).throw(Caught(run.which)))
            found = called(module, *options, "--outputs", tmp_path, defaults=defaults)
            with pytest.raises(Caught) as caught:
                found.experiment.train()
        trained += caught.value.args
        assert found.experiment.name == called(module, defaults=defaults).experiment.name
    return trained


def test_05_resume(tmp_path):
    assert resumed(five, tmp_path, TINY) == ["fresh", "resumed"]


def shared_by(module, monkeypatch, folder, tiny) -> list[str]:
    """By which engine a training is shared, without and with --parallel; file names don't tell."""
    monkeypatch.setenv("RANK", "0")
    found, names = [], []
    for options in [], ["--parallel", "fsdp"]:
        experiment = called(module, "--outputs", folder, "--steps", "1", *options, defaults=tiny).experiment
        names.append(experiment.name)
        found.append(experiment.trained(experiment.make()).parallel)
    assert names[0] == names[1]
    return found


def test_05_parallel(monkeypatch, tmp_path):
    assert shared_by(five, monkeypatch, tmp_path, TINY) == ["data", "fsdp"]


def begun(module, folder, tiny, *other):
    """The run of `module` that --from gives: first trained as `tiny` says, then as `other` does."""
    old = called(module, "--outputs", folder, "--steps", "1", defaults=tiny).experiment
    old.train()
    found = called(module, "--outputs", folder, "--from", old.checkpoint, *other).experiment
    run = found.make()
    assert found.name.endswith(f"-from={run.about['from'][:8]}")
    assert all(torch.equal(tensor, run.model.state_dict()[name])
               for name, tensor in old.run.model.state_dict().items())
    return old.run, run


def test_05_base(tmp_path):
    old, new = begun(five, tmp_path, TINY, "--task", "copy")
    assert old.about["config"] == new.about["config"]  # the sizes need no options
    assert new.settings.task == "copy"


def adapted(module, folder, tiny, attention="cross_attention", blocks=2):
    """The run that --rank, --alpha and --matrices give on a trained model, and what they changed."""
    old = called(module, "--outputs", folder, "--steps", "1", defaults=tiny).experiment
    old.train()
    asked = "--from", old.checkpoint, "--rank", "2", "--alpha", "6", "--matrices", f"expand,{attention}"
    found = called(module, "--outputs", folder, *asked, defaults=tiny).experiment
    run = found.make()
    assert found.name.endswith(f"-rank=2-alpha=6-matrices=expand+{attention}")
    maps = {name: part for name, part in run.model.named_modules() if hasattr(part, "down")}
    assert all(name.endswith("expand") or attention in name for name in maps)
    assert {(len(part.down), part.scale) for part in maps.values()} == {(2, 3.0)}
    assert len(maps) == blocks + 4
    trained = {id(parameter) for parameter in run.trained}
    assert trained == {id(p) for part in maps.values() for p in (part.down, part.up)}
    return found


def test_05_rank_and_alpha_and_matrices(tmp_path):
    adapted(five, tmp_path, TINY)


def test_05_own():
    attend = lambda query, key, value, mask=None, dropout=0.0: value  # noqa: E731
    own = Own({"scaled_dot_product_attention": attend, "causal_mask": attend},
              {"mine.py": "00", "too.py": "01"})
    asked = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("course.training.command_line.own_parts",
                      lambda files, before, narrator: asked.append((files, before)) or own)
        found = called(five, "--with", "mine.py", "--with", "too.py", defaults=TINY)
    assert asked == [([Path("mine.py"), Path("too.py")], 5)]
    assert found.steps == ["training", "with_your_parts"]
    assert "with-mine+too-" in found.experiment.name
    run = found.experiment.make()  # a model has no place for the mask: that is no error
    assert {module.scaled_dot_product_attention for module in run.model.modules()
            if hasattr(module, "project_query")} == {attend}


def test_05_broken_and_compare():
    assert called(five, "--broken").steps == ["all_broken"]
    assert called(five, "--compare", "n_heads=1,2").steps == ["compare"]
    assert len(called(five).steps) > 10


def compared(*options):
    """(names of the variants, seeds, runs made of the first seed) of --compare."""
    found = called(five, *options, defaults=TINY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("course.training.experiment.compare",
                      lambda *parts: (_ for _ in ()).throw(Caught(*parts)))
        with pytest.raises(Caught) as caught:
            five.step_compare(found.experiment)
    variants, seeds, *_ = caught.value.args
    return [*variants], [*seeds], [[make(seed) for seed in seeds] for make in variants.values()]


def test_05_compare():
    names, seeds, runs = compared("--compare", "d_model=8,16")
    assert (names, seeds) == ([8, 16], [0])
    assert [run.model.embedding.weight.shape[1] for (run,) in runs] == [8, 16]
    assert [run.model.encoder.blocks[0].feed_forward.expand.out_features for (run,) in runs] == [32, 64]
    names, _, runs = compared("--compare", "lr=0.5,0.25")
    assert [run.job.rate(1) for (run,) in runs] == [0.5, 0.25]
    assert torch.equal(runs[0][0].job.batch(0).src, runs[1][0].job.batch(0).src)


def test_05_seeds():
    _, seeds, ((first, second),) = compared("--compare", "d_model=8", "--seeds", "2", "--seed", "7")
    assert seeds == [7, 8]
    assert not torch.equal(first.model.embedding.weight, second.model.embedding.weight)
    assert not torch.equal(first.job.batch(0).src, second.job.batch(0).src)


def test_05_runs_that_differ_have_other_names():
    """Else they would share a checkpoint."""
    names = [called(five, defaults=TINY).experiment.name]
    for dest, (value, _) in CHANGES.items():
        option = [f"--{dest.replace('_', '-')}", *([] if value is True else [value])]
        names.append(called(five, *option, defaults=TINY).experiment.name)
    names.append(called(five, "--seed", "1", defaults=TINY).experiment.name)
    assert len({*names}) == len(names)
    stay = [["--outputs", "x"], ["--checks"], ["--no-code"], ["--threads", "2"], ["--device", "cpu"],
            ["--pause"]]
    assert {called(five, *options, defaults=TINY).experiment.name for options in stay} == {names[0]}


# lesson 9's, as far as it has any: lesson 5's choose the model


def test_09_device():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("course.training.processes.pick_device", lambda name: torch.device("meta"))
        assert called(nine, "--device", "cpu").experiment.device.type == "meta"


def test_09_chooses_lesson_5s_run():
    options = "--task", "copy", "--layers", "1", "--lr", "0.01"
    found = called(nine, *options)
    assert found.experiment.name == called(five, *options).experiment.name
    assert len(found.steps) > 4


def test_10_weights(tmp_path):
    """The folder is loaded, with the learner's parts in it, and --input is a text for it."""
    write_random(tmp_path, CONFIGS["gpt2"])
    write_byte_pieces(tmp_path)
    attend = lambda query, key, value, mask=None, dropout=0.0: value  # noqa: E731
    own = Own({"scaled_dot_product_attention": attend}, {"mine.py": "00"})
    ten = lesson("10_architectures")
    found = called(ten, "--weights", tmp_path, "--input", "cat", "--with", "mine.py", **{
        "course.training.command_line.own_parts": lambda *asked: own})
    weights = found.experiment.weights
    assert found.steps == ["published_weights"]
    assert (weights.published.kind, weights.text, weights.names) == ("gpt2", "cat", [*own.parts])
    assert weights.inputs.tolist() == [[*b"cat"]]
    for other in (["--chat"], ["--input", "cat", "--bits", "4"]):
        with pytest.raises(SystemExit):
            called(ten, "--weights", tmp_path, *other)


# lesson 6's


def test_06_task():
    for task in five.TASKS:
        found = called(six, "--task", task)
        assert found.experiment.training.task == task
        assert found.experiment.name == task
        batch = found.experiment.batch(3)
        digits = [[token - five.ZERO for token in row if token] for row in batch.src.tolist()]
        assert torch.equal(batch.tgt_out, five.make_batch(task, digits).tgt_out)
        assert len(found.steps) > 5


def test_06_input():
    found = called(six, "--input", "3 1 4 15")
    assert found.options.input == [3, 1, 4, 1, 5]
    assert found.steps == ["your_input"]
    assert found.experiment.name == called(six).experiment.name


def quantised_as(found) -> tuple[int, int]:
    """What the model of an experiment would be quantised to before it answers."""
    heard = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Experiment, "kept", lambda self: self.make())
        patch.setattr("course.training.experiment.answer_with_bits",
                      lambda model, bits, group, path, say: heard.append((bits, group)))
        _ = found.experiment.run
    return heard[0]


def test_06_bits_and_group():
    assert quantised_as(called(six, "--input", "3141", "--bits", "3", "--group", "5")) == (3, 5)
    assert quantised_as(called(six, "--input", "3141", "--bits", "8")) == (8, 32)


# lesson 12's


def test_12_device():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("course.training.processes.pick_device", lambda name: torch.device("meta"))
        assert called(twelve, "--device", "cpu").experiment.device.type == "meta"


# lesson 7's


def test_07_text_and_vocab_and_input(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("der Mond und der Hund " * 20, encoding="utf-8")
    plain = called(lesson("07_subwords"), "--text", path)
    few = called(lesson("07_subwords"), "--text", path, "--vocab", "3", "--input", "a Hund")
    asked = called(lesson("07_subwords"), "--input", "a Hund")
    assert [found.steps for found in (plain, few, asked)] == [
        ["your_text"], ["your_text", "your_input"], ["your_input"]]
    learned = [lesson("07_subwords").own_encoding(found.options) for found in (plain, few, asked)]
    assert len(learned[0].merges) > len(learned[1].merges) == 3
    assert {*learned[0].alphabet} == {*path.read_text(encoding="utf-8")} < {*learned[2].alphabet}
    assert few.options.input == "a Hund"


# lesson 8's


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> SimpleNamespace:
    """Files of pairs, small ones: in `many` 256 different sources, in the others a few."""
    folder = tmp_path_factory.mktemp("pairs")
    paths = SimpleNamespace(**{name: folder / f"{name}.tsv" for name in ("many", "few", "known")})
    lines = [f"the {a} {b} {number} {c}\tle {a} {b} {number} {c}" for a in ("cat", "dog", "bird", "cow")
             for b in ("sees", "likes", "eats", "calls") for c in ("bread", "soup", "milk", "rice")
             for number in ("one", "two", "three", "four")]
    paths.many.write_text("\n".join(lines), encoding="utf-8")
    paths.few.write_text("a house\tune maison\nthe red house\tla maison rouge\n", encoding="utf-8")
    paths.known.write_text("\n".join([*lines[:2], "he sleeps\til dort"]), encoding="utf-8")
    return paths


SMALL = ["--d-model", "8", "--heads", "2"]


@pytest.fixture(scope="module")
def tiny(files):
    return ["--pairs", str(files.many), *SMALL, "--layers", "1",
            "--batch-size", "4", "--steps", "6", "--warmup", "2", "--vocab", "20", "--dropout", "0",
            "--label-smoothing", "0", "--lr", "0.1"]


CHANGES_OF_8 = {name: change for name, change in CHANGES.items() if name != "task"} | {
    "vocab": (30, {"vocabulary", "first weights", "sources"}),
    "positions": ("learned", {"positions", "first weights"}),
    "norm": ("post", {"norms"}),
}


def observed_of_8(tiny, dest: str = "", value=True, more=()) -> dict[str, object]:
    option = [f"--{dest.replace('_', '-')}", *([] if value is True else [value])] if dest else []
    compiled = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.Module, "compile", lambda self, **options: compiled.append(options))
        run = called(eight, *more, *option, defaults=tiny).experiment.make()
        seen = seen_in(run, compiled)
    return seen | {"vocabulary": len(run.model.embedding.weight)}


@pytest.fixture(scope="module")
def usual_of_8(tiny):
    return {patient: observed_of_8(tiny, more=USUAL * patient) for patient in (False, True)}


@pytest.mark.parametrize("dest", CHANGES_OF_8)
def test_08_options_of_model_and_training(dest, tiny, usual_of_8):
    value, wanted = CHANGES_OF_8[dest]
    before = usual_of_8[dest == "patience"]
    after = observed_of_8(tiny, dest, value, USUAL * (dest == "patience"))
    assert {name for name in before if before[name] != after[name]} == wanted


def test_08_the_seed_decides_about_first_weights_and_order(tiny, usual_of_8):
    after = observed_of_8(tiny, "seed", 1)
    assert {name for name in after if after[name] != usual_of_8[False][name]} == {"first weights", "sources"}


def test_08_what_is_meant_for_a_file_holds_for_one_alone(files):
    plain, own = called(eight, *SMALL), called(eight, *SMALL, "--pairs", files.many)
    changed = lambda of, name: [getattr(found.experiment, of).__dict__[name] for found in (plain, own)]  # noqa: E731
    assert changed("training", "beta2") == [0.98, 0.98]
    for name, value in eight.REAL_PAIRS.items():
        before, after = changed("training", name)
        assert after == value != before
        given = called(eight, *SMALL, "--pairs", files.many, f"--{name.replace('_', '-')}", before)
        assert getattr(given.experiment.training, name) == before  # what is said counts


def test_08_long_runs_on_a_file_are_regularised(files):
    def regularised(*options):
        experiment = called(eight, *SMALL, *options).experiment
        return experiment.config.dropout, experiment.training.label_smoothing

    of_file = "--pairs", files.many
    for options in (of_file, ("--steps", "7000"), (*of_file, "--steps", "6000")):
        assert regularised(*options) == (0, 0)
    assert regularised(*of_file, "--steps", "7000") == (0.1, 0.1)
    assert regularised(*of_file, "--steps", "7000", "--dropout", "0.2") == (0.2, 0.1)
    assert regularised(*of_file, "--steps", "7000", "--label-smoothing", "0") == (0.1, 0)


def test_08_the_warm_up_on_a_file_is_at_most_a_third_of_the_run(files):
    def warmup(*options):
        return called(eight, *SMALL, "--pairs", files.many, *options).experiment.training.warmup

    usual = eight.REAL_PAIRS["warmup"]
    assert [warmup(), warmup("--steps", "7000"), warmup("--steps", "600")] == [usual, usual, 200]
    assert warmup("--steps", "600", "--warmup", "400") == 400


def splits_of(*options) -> dict[str, list[str]]:
    """The sources of each split."""
    splits = called(eight, *SMALL, *options).experiment.texts.splits
    return {split: [pair.source for pair in pairs] for split, pairs in splits.items()}


def test_08_pairs(files):
    drawn = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus, "corpus", lambda sizes, seed: drawn.append((sizes, seed)) or {})
        assert called(eight, *SMALL, "--seed", "3").experiment.texts.splits == {}
        assert drawn == [({"train": 60_000, "validation": 300, "test": 1000}, 3)]
        splits = splits_of("--pairs", files.many)
        assert len(drawn) == 1  # nothing of the grammar's
    sources = [line.partition("\t")[0] for line in files.many.read_text(encoding="utf-8").splitlines()]
    assert sorted(chain(*splits.values())) == sorted(sources)
    assert min(map(len, splits.values())) > 0
    steps = called(eight, *SMALL, "--pairs", files.many).steps
    assert steps[0] == "your_pairs"
    assert called(eight, *SMALL).steps[0] != "your_pairs"


def test_08_valid_and_test(files):
    plain = splits_of("--pairs", files.many)
    for split, other in (("valid", "test"), ("test", "valid")):
        full = {"valid": "validation", "test": "test"}
        splits = splits_of("--pairs", files.many, f"--{split}", files.known)
        given = [line.partition("\t")[0] for line in files.known.read_text(encoding="utf-8").splitlines()]
        assert splits[full[split]] == given
        assert splits[full[other]] == plain[full[other]]
        wanted = set(plain["train"]) | set(plain[full[split]])
        assert set(splits["train"]) == wanted - set(given)  # none of those that will be asked
        with pytest.raises(SystemExit) as ended:
            called(eight, *SMALL, f"--{split}", files.known)
        assert ended.value.code == 2


def test_08_test_takes_several_files(files, tmp_path):
    other = tmp_path / "other.tsv"
    other.write_text("a wug\tun wug\n", encoding="utf-8")
    both = f"{files.known}, {other}"
    texts = called(eight, *SMALL, "--pairs", files.many, "--test", both).experiment.texts
    tests = {name: [pair.source for pair in pairs] for name, pairs in texts.tests.items()}
    given = [line.partition("\t")[0] for line in files.known.read_text(encoding="utf-8").splitlines()]
    assert tests == {Path(files.known).stem: given, "other": ["a wug"]}
    assert not {*given} & {pair.source for pair in texts.splits["train"] + texts.splits["validation"]}
    valid = tmp_path / "valid.tsv"
    valid.write_text("a wug\tun wug\nthe wug\tle wug\n", encoding="utf-8")
    options = "--pairs", files.many, "--test", both, "--valid", str(valid)
    assert splits_of(*options)["validation"] == ["the wug"]


def test_08_reverse(files):
    plain, there = splits_of("--pairs", files.many), splits_of("--pairs", files.many, "--reverse")
    assert not {*chain(*plain.values())} & {*chain(*there.values())}
    assert all(source.startswith("le ") for source in chain(*there.values()))
    found = called(eight, *SMALL, "--reverse", "--max-pairs", "50").experiment
    assert "reverse" in found.name
    splits = found.texts.splits
    sources = [pair.source for pairs in splits.values() for pair in pairs]
    assert len(sources) == len({*sources}) > 50
    plain = called(eight, *SMALL, "--max-pairs", "50").experiment.texts.splits
    assert {pair.target for pair in splits["test"]} <= {pair.source for pair in plain["test"]}


def test_08_export(tiny, tmp_path):
    found = called(eight, "--export", str(tmp_path), defaults=tiny)
    assert found.steps == ["export"]
    assert found.options.export == tmp_path


def test_08_columns(files):
    plain, swapped = splits_of("--pairs", files.many), splits_of("--pairs", files.many, "--columns", "2,1")
    assert not {*chain(*plain.values())} & {*chain(*swapped.values())}
    assert all(source.startswith("le ") for source in chain(*swapped.values()))
    for wrong in ("2", "1,1", "0,1", "a,b", "1,2,3"):
        with pytest.raises(SystemExit) as ended:
            called(eight, *SMALL, "--pairs", files.many, "--columns", wrong)
        assert ended.value.code == 2


def test_08_max_pairs(files):
    plain, cut = splits_of("--pairs", files.many), splits_of("--pairs", files.many, "--max-pairs", "7")
    assert cut == plain | {"train": plain["train"][:7]}
    drawn = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus, "corpus", lambda sizes, seed: drawn.append(sizes["train"]) or {})
        called(eight, *SMALL, "--max-pairs", "7").experiment.texts.splits  # noqa: B018
    assert drawn == [7]


def test_08_challenge(files):
    assert called(eight, *SMALL, "--challenge").steps == ["challenge"]
    assert called(eight, *SMALL, "--pairs", files.many, "--challenge").steps == ["challenge"]


def test_08_input_and_chat():
    found, plain = called(eight, *SMALL, "--input", "the  cat sleeps."), called(eight, *SMALL)
    assert found.steps == ["your_sentence"]
    assert found.options.input == "the  cat sleeps."
    assert found.experiment.name == plain.experiment.name
    assert len(plain.steps) > 10
    heard = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["script", *SMALL, "--chat"])
        patch.setattr(eight, "narrate", lambda *parts: heard.append("steps"))
        patch.setattr(eight, "converse", lambda answer, folder: heard.append(answer("a cat")))
        patch.setattr(eight.TranslationExperiment, "replies", SimpleNamespace(to=lambda line: f"said {line}"))
        eight.main()
    assert heard == ["said a cat"]


def test_08_resume(tmp_path, tiny):
    assert resumed(eight, tmp_path, tiny) == ["fresh", "resumed"]


def test_08_parallel(monkeypatch, tmp_path, tiny):
    assert shared_by(eight, monkeypatch, tmp_path, tiny) == ["data", "fsdp"]


def test_08_base(tmp_path, tiny):
    old, new = begun(eight, tmp_path, tiny, *tiny[:2], "--dropout", "0.2")
    assert old.about["encoding"] == new.about["encoding"]
    assert new.settings.vocab == 20


def test_08_rank_and_alpha_and_matrices(tmp_path, tiny):
    adapted(eight, tmp_path, tiny)


def test_08_bits_and_group(tiny):
    found = called(eight, "--input", "A cat.", "--bits", "3", "--group", "5", defaults=tiny)
    assert quantised_as(found) == (3, 5)
    assert called(eight, "--input", "A cat.", defaults=tiny).experiment.name == found.experiment.name


def test_08_own(tiny):
    attend = lambda query, key, value, mask=None, dropout=0.0: value  # noqa: E731
    own, asked = Own({"scaled_dot_product_attention": attend, "causal_mask": attend}, {"mine.py": "00"}), []
    found = called(eight, "--with", "mine.py", defaults=tiny, **{
        "course.training.command_line.own_parts":
            lambda files, before, narrator: asked.append((files, before)) or own})
    assert asked == [([Path("mine.py")], 5)]
    assert found.experiment.name.endswith(f"-{own.name}")
    run = found.experiment.make()
    assert {module.scaled_dot_product_attention for module in run.model.modules()
            if hasattr(module, "project_query")} == {attend}
    assert run.about["with"] == {"mine.py": "00"}


def compared_in_8(tiny, *options):
    found = called(eight, *options, defaults=tiny)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("course.training.experiment.compare",
                      lambda *parts: (_ for _ in ()).throw(Caught(*parts)))
        with pytest.raises(Caught) as caught:
            eight.step_compare(found.experiment)
    variants, seeds, *_ = caught.value.args
    return found.steps, [*variants], [*seeds], [[make(seed) for seed in seeds] for make in variants.values()]


def test_08_compare(tiny):
    steps, names, seeds, runs = compared_in_8(tiny, "--compare", "d_model=8,16")
    assert (steps, names, seeds) == (["compare"], [8, 16], [0])
    assert [run.model.embedding.weight.shape[1] for (run,) in runs] == [8, 16]
    assert [run.model.encoder.blocks[0].feed_forward.expand.out_features for (run,) in runs] == [16, 32]
    *_, runs = compared_in_8(tiny, "--compare", "vocab=20,30")
    assert len({len(run.model.embedding.weight) for (run,) in runs}) == 2


def test_08_seeds(tiny):
    options = "--compare", "d_model=8", "--seeds", "2", "--seed", "7"
    _, _, seeds, ((first, second),) = compared_in_8(tiny, *options)
    assert seeds == [7, 8]
    assert not torch.equal(first.model.embedding.weight, second.model.embedding.weight)


def test_08_runs_that_differ_have_other_names(tiny, files):
    options = [[], ["--seed", "1"], ["--max-pairs", "100"], ["--valid", files.few], ["--test", files.few],
               *([f"--{dest.replace('_', '-')}", *([] if value is True else [value])]
                 for dest, (value, _) in CHANGES_OF_8.items())]
    names = [called(eight, *some, defaults=tiny).experiment.name for some in options]
    assert len({*names}) == len(names)
    stay = [["--outputs", "x"], ["--checks"], ["--no-code"], ["--threads", "2"], ["--device", "cpu"],
            ["--pause"], ["--no-page"]]
    assert {called(eight, *some, defaults=tiny).experiment.name for some in stay} == {names[0]}


# lesson 10's


TINY_10 = ["--d-model", "8", "--heads", "2", "--vocab", "20", "--steps", "6", "--batch-size", "4", "--window",
           "8", "--warmup", "2", "--text", str(ROOT / "CONTRIBUTING.md")]
CHANGES_OF_10 = {name: change for name, change in CHANGES.items() if name != "task"} | {
    "positions": ("learned", {"positions", "first weights"}),
    "norm_kind": ("rms", {"norms"}),
    "feed_forward": ("swiglu", {"layers", "activation"}),
    "vocab": (30, {"vocabulary", "first weights", "sources"}),
    "batch_size": (5, {"rows"}),
    "window": (9, {"places", "sources"}),
    "max_len": (100, {"longest"}),
}


def observed_of_10(dest: str = "", value=True, more=()) -> dict[str, object]:
    option = [f"--{dest.replace('_', '-')}", *([] if value is True else [value])] if dest else []
    compiled = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.Module, "compile", lambda self, **options: compiled.append(options))
        run = called(ten, *more, *option, defaults=TINY_10).experiment.make()
        seen = seen_in(run, compiled)
    longest = {module.turns.shape[1] for module in run.model.modules() if hasattr(module, "turns")}
    sources = run.job.batch(0)[0]
    return seen | {"vocabulary": len(run.model.embedding.weight), "places": sources.shape[1],
                   "sources": sources[0].tolist(), "longest": longest or {256}}


@pytest.fixture(scope="module")
def usual_of_10():
    return {patient: observed_of_10(more=USUAL * patient) for patient in (False, True)}


@pytest.mark.parametrize("dest", CHANGES_OF_10)
def test_10_options_of_model_and_training(dest, usual_of_10):
    value, wanted = CHANGES_OF_10[dest]
    before, after = usual_of_10[dest == "patience"], observed_of_10(dest, value, USUAL * (dest == "patience"))
    assert {name for name in before if before[name] != after[name]} == wanted


def test_10_text(tmp_path):
    for name in ("one", "two"):
        (tmp_path / f"{name}.txt").write_text(name * 500, encoding="utf-8")
    found = [called(ten, "--text", tmp_path / f"{name}.txt", defaults=TINY_10) for name in ("one", "two")]
    assert [one.experiment.texts.splits["train"][:3] for one in found] == ["one", "two"]
    assert all(one.steps == ["reading", "going_on"] for one in found)
    names = {one.experiment.name.partition("-d_model")[0] for one in found}
    assert len(names) == 2
    assert {name.partition(".")[0] for name in names} == {"text-text=one", "text-text=two"}


def test_10_task():
    found = {task: called(ten, "--task", task).steps for task in ten.TASKS}
    assert found == {"text": ["reading", "going_on", "how_low"], "fill": ["filling_in"],
                     "prompt": ["task_as_prompt"], "digits": ["pictures"]}
    assert {*chain(*found.values())} < {*called(ten).steps}


def test_10_input_and_chat_and_temperature_and_top_p():
    drawn = "--temperature", "0.5", "--top-p", "0.25"
    found = called(ten, *drawn, "--input", "the  cat", defaults=TINY_10)
    assert (found.steps, found.options.input) == (["your_text"], "the  cat")
    asked = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["script", *TINY_10, *drawn, "--chat"])
        patch.setattr(ten, "converse", lambda answer, folder: asked.append(answer("a cat")))
        patch.setattr(ten.TextExperiment, "model", "model")
        patch.setattr(ten.TextExperiment, "encoding", "pieces")
        patch.setattr(ten, "go_on", lambda *parts: asked.append(parts) or " sleeps")
        ten.main()
    assert asked == [("model", "pieces", "a cat", 0.5, 0.25), "a cat sleeps"]


def test_10_resume(tmp_path):
    assert resumed(ten, tmp_path, TINY_10) == ["fresh", "resumed"]


def test_10_parallel(monkeypatch, tmp_path):
    assert shared_by(ten, monkeypatch, tmp_path, TINY_10) == ["data", "fsdp"]


def test_10_base(tmp_path):
    old, new = begun(ten, tmp_path, TINY_10, "--dropout", "0.2")
    assert old.about["encoding"] == new.about["encoding"]


def test_10_rank_and_alpha_and_matrices(tmp_path, capsys):
    adapted(ten, tmp_path, [*TINY_10, "--layers", "1"], "self_attention", blocks=1).train()
    said = " ".join(capsys.readouterr().out.split())
    assert "Bits per character of held-out text: on the new text before" in said


def test_10_bits_and_group():
    found = called(ten, "--input", "cat", "--bits", "3", "--group", "5", defaults=TINY_10)
    assert quantised_as(found) == (3, 5)


def test_10_own():
    attend = lambda query, key, value, mask=None, dropout=0.0: value  # noqa: E731
    own = Own({"scaled_dot_product_attention": attend}, {"mine.py": "00"})
    found = called(ten, "--with", "mine.py", defaults=TINY_10, **{
        "course.training.command_line.own_parts": lambda files, before, narrator: own})
    run = found.experiment.make()
    assert all(block.self_attention.scaled_dot_product_attention is attend
               for block in run.model.stack.blocks)


def test_10_compare_and_seeds():
    found = called(ten, "--compare", "norm_kind=layer,rms", "--seeds", "2", "--seed", "7", defaults=TINY_10)
    assert found.steps == ["compare"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("course.training.experiment.compare",
                      lambda *parts: (_ for _ in ()).throw(Caught(*parts)))
        with pytest.raises(Caught) as caught:
            ten.step_compare(found.experiment)
    variants, seeds, *_ = caught.value.args
    assert ([*variants], [*seeds]) == (["layer", "rms"], [7, 8])
    assert [type(make(7).model.stack.norm).__name__ for make in variants.values()] == ["LayerNorm", "RMSNorm"]


CHANGES_OF = {"05_mini_transformer": CHANGES, "08_translation": CHANGES_OF_8, "09_interpretability": CHANGES,
              "10_architectures": CHANGES_OF_10}

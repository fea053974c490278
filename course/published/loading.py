"""Loading GPT-2, Llama, Mistral without window, BERT or ViT from a folder into the course's own parts.

A folder saved by Hugging Face's `transformers` holds config.json, model.safetensors and tokenizer.json.
Anything that is not understood raises a one-line ValueError that names the file and the key.
"""

import json
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course.console.files import write_text
from course.grading.checking import renamed
from course.published.configs import Reader
from course.published.plans import PLANS, PREFIX, Move, Plan
from course.published.tensor_files import INDEX, WEIGHTS, read_weights, text_of, write_tensors
from course.training.parts import build, fill_slots, found_in, slots_of, with_a_place

CONTINUES = "gpt2", "llama", "mistral"


class Published(NamedTuple):
    """A model built from the course's parts, with the weights of a folder."""

    model: nn.Module
    config: dict[str, Any]
    moves: list[Move]
    left_out: list[str]  # names of tensors that the model has no use for

    @property
    def kind(self) -> str:
        """gpt2, llama, mistral, bert or vit."""
        return self.config["model_type"]

    @property
    def continues(self) -> bool:
        """Whether the model continues a text."""
        return self.kind in CONTINUES


def load(folder: Path, parts: Any, own: Mapping[str, Any] | None = None,
         dtype: torch.dtype = torch.float32) -> Published:
    """A folder's model, built from the lesson's `parts`, in evaluation mode; `own` are the learner's parts.

    A one-line ValueError for anything that can't be read or has no place in the model.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder")
    reader = Reader(folder / "config.json")
    plan = PLANS[reader.kind](reader)
    reader.refuse_the_rest()
    tensors = {plain_name(name, reader.kind): tensor for name, tensor in read_weights(folder).items()}
    file = folder / (INDEX if (folder / INDEX).exists() else WEIGHTS)
    left_out = refuse_misfits(file, tensors, plan)
    with torch.random.fork_rng(devices=[]):  # the initial weights drawn here are overwritten
        model = built(plan, parts, own or {}).to(dtype).eval()
    carry_out(plan.moves, tensors, model)
    return Published(model.requires_grad_(False), reader.config, plan.moves, left_out)


def write_random(folder: Path, config: Mapping[str, Any]) -> None:
    """Write a folder in the same format: this config.json, and random tensors of the shapes it asks for."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "config.json", json.dumps(dict(config), indent=2))
    reader = Reader(folder / "config.json")
    shapes = {name: shape for move in PLANS[reader.kind](reader).moves for name, shape in move.theirs.items()}
    draw = partial(torch.randn, generator=torch.Generator().manual_seed(0))
    write_tensors(folder / WEIGHTS, {
        name: 0.2 * draw(shape) + (len(shape) == 1 and name.endswith("weight"))  # gains lie around 1
        for name, shape in shapes.items()})


def plain_name(name: str, kind: str) -> str:
    """The name without the prefix of models with a head, and in the spelling of newer files."""
    name = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", name.removeprefix(PREFIX[kind]))
    return re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name)


def refuse_misfits(file: Path, tensors: Mapping[str, Tensor], plan: Plan) -> list[str]:
    """The names that the plan leaves out; ValueError for a missing, misshapen or unknown tensor."""
    wanted = {name: shape for move in plan.moves for name, shape in move.theirs.items()}
    for name, shape in wanted.items():
        if name not in tensors:
            raise ValueError(f"{file} has no {name} ({text_of(shape)})")
        if (found := tuple(tensors[name].shape)) != shape:
            raise ValueError(f"{file}: {name} is {text_of(found)}, and config.json asks for {text_of(shape)}")
        if not tensors[name].is_floating_point():
            raise ValueError(f"{file}: {name} holds {str(tensors[name].dtype).removeprefix('torch.')}, "
                             "not floating-point numbers")
    left_out = [name for name in tensors if name not in wanted]
    for name in left_out:
        if not re.fullmatch(plan.left_out, name):
            raise ValueError(f"{file}: {name} ({text_of(tuple(tensors[name].shape))}) is not understood")
    return left_out


def built(plan: Plan, parts: Any, own: Mapping[str, Any]) -> nn.Module:
    """The model, with the learner's parts in it, and with the eps and the GELU that the config asks for."""
    make = partial(plan.make, parts)
    placed = with_a_place(own, make) if own else {}
    model = build(make, placed)
    if own and not found_in(model, placed):
        raise ValueError(f"the model has no place for {', '.join(own)}; functions that it has places for: "
                         f"{', '.join(sorted(slots_of(model)))}")
    for module in model.modules():
        if hasattr(module, "gain"):
            module.eps = plan.eps  # type: ignore[assignment]
    if plan.tanh and not fill_slots(model, "gelu", partial(F.gelu, approximate="tanh")):
        raise ValueError("the model needs another GELU, and its FeedForward has no slot named gelu")
    return model


@torch.no_grad()
def carry_out(moves: list[Move], tensors: Mapping[str, Tensor], model: nn.Module) -> None:
    """Copy every tensor to its parameter; ValueError for a parameter that is missing, or gets no tensor."""
    waiting = dict(model.named_parameters())
    dtype = next(model.parameters()).dtype
    for move in moves:
        value = move.change.make(*(tensors[name].to(dtype) for name in move.theirs))
        for name, piece in zip(move.ours, value.chunk(len(move.ours))):
            if (name := called_here(model, name)) not in waiting:
                raise ValueError(f"the model has no parameter {name} for {', '.join(move.theirs)}")
            if (parameter := waiting.pop(name)).shape != piece.shape:
                raise ValueError(f"{name} is {text_of(tuple(parameter.shape))}, and "
                                 f"{', '.join(move.theirs)} gives {text_of(tuple(piece.shape))}")
            parameter.copy_(piece)
    if waiting:
        raise ValueError(f"nothing in the file goes into {next(iter(waiting))} of the model")


LINEAR_MAPS = ("project_query", "project_key", "project_value", "project_output"), ("expand", "contract")


def called_here(model: nn.Module, name: str) -> str:
    """The parameter's name in the model: a learner's part may name its linear maps differently."""
    owner, _, kind = name.rpartition(".")
    owner, _, part = owner.rpartition(".")
    names = next((names for names in LINEAR_MAPS if part in names), ())
    module = dict(model.named_modules()).get(owner)
    if not names or module is None or not (own := renamed(module, names)):
        return name
    return f"{owner}.{own[names.index(part)]}.{kind}"

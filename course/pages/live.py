"""Pages on which a trained model answers while you type: one file each, without network access.

A page contains weights, vocabulary, styles and scripts; live_parts/ holds what is the same for every model.
The model runs there in JavaScript, with weights rounded to fewer bits. To test this, the page also has a few
logits that PyTorch computed with the same rounded weights. It compares its own logits with these, and reports
any difference.
"""

import base64
import html
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from course.console.files import write_text
from course.console.narrator import Narrator
from course.console.records import Leads
from course.pages.contents import live_name, page_of, write_contents
from course.study import progress
from course.study.lessons import stem_of
from course.training.adapters import finetuning, merged_copy
from course.training.processes import RANK
from course.training.sizing import parameters

PARTS = Path(__file__).parent / "live_parts"
SCRIPTS = {  # the scripts of each page, in order
    "digits": ("weights.js", "model.js", "decoding.js", "views.js", "digits.js"),
    "translator": ("weights.js", "model.js", "decoding.js", "pieces.js", "sentences.js", "views.js",
                   "translator.js"),
}
TITLES = {"digits": "Live: the model that learned “{task}”",
          "translator": "Live: the model that translates"}
LARGEST = 4_000_000  # 16-bit weights at most, which make a page of about 11 MB


# ------------------------------------------------------------------ weights


class Packed(NamedTuple):
    """Weights in the form that a page contains."""

    bits: int
    weights: dict[str, Tensor]  # the weights that the page computes with
    raw: bytes  # all weights as bytes


def rounded(model: nn.Module) -> dict[str, Tensor]:
    """Every learned number, rounded to float16, as float32 on the CPU. ValueError if one is too large."""
    weights = {name: weight.detach().half().float().cpu() for name, weight in model.named_parameters()}
    for name, weight in weights.items():
        if not weight.isfinite().all():
            raise ValueError(f"{name} holds a number that is too large for float16")
    return weights


def in_16_bits(model: nn.Module) -> Packed:
    """Every number as a float16."""
    weights = rounded(model)
    return Packed(16, weights, b"".join(map(halves, weights.values())))


def halves(numbers: Tensor) -> bytes:
    """Each number as a float16, the lower byte first."""
    return numbers.numpy().astype("<f2").tobytes()


def in_8_bits(model: nn.Module) -> Packed:
    """Matrices by lesson 12's quantize(), one scale per row; the scales and all other numbers in float16."""
    lesson, weights, parts = finetuning(), rounded(model), []
    for name, weight in model.named_parameters():
        if weight.dim() == 2:
            codes, scale = lesson.quantize(weight.detach().float().cpu(), 8, weight.shape[1])
            scale = scale.half()
            weights[name] = lesson.dequantize(codes, scale.float(), weight.shape[1])
            parts += [halves(scale), codes.numpy().tobytes()]
        else:
            parts.append(halves(weights[name]))
    return Packed(8, weights, b"".join(parts))


@torch.no_grad()
def reference(model: nn.Module, weights: Mapping[str, Tensor], src: Tensor, tgt: Tensor, pad: int,
              every: int = 1) -> list[dict[str, Any]]:
    """For each row the ids of source and input, and the logits that PyTorch computes with these weights.

    Only the logits of every `every`-th id are kept.
    """
    device, training = next(model.parameters()).device, model.training
    weights = {name: weight.to(device) for name, weight in weights.items()}
    logits = functional_call(model.eval(), weights, (src.to(device), tgt.to(device))).float().cpu()
    model.train(training)
    if not logits.isfinite().all():
        raise ValueError("with rounded weights its logits are not finite")
    return [{"source": source[source != pad].tolist(), "input": given[given != pad].tolist(),
             "logits": [[float(f"{logit:.6g}") for logit in row] for row in found[given != pad].tolist()],
             "every": every}
            for source, given, found in zip(src.cpu(), tgt.cpu(), logits[:, :, ::every], strict=True)]


# ------------------------------------------------------------------ the page


def data_of(model: nn.Module, task: str, config: Mapping[str, Any], tokens: Mapping[int, str], src: Tensor,
            tgt: Tensor, own: list[str], packed: Callable[[nn.Module], Packed] = in_16_bits,
            every: int = 1) -> dict[str, Any]:
    """The page's data on this model: `tokens` is id → token; logits are compared on src (B, S), tgt (B, T).

    For a model that the page can't run, the data has the reason as "problem", and no weights.
    """
    data: dict[str, Any] = {"task": task, "config": dict(config), "own": own,
                            "tokens": [tokens[id] for id in range(len(tokens))],
                            "parameters": parameters(model)}
    if (attention := config.get("attention", "kernel")) not in ("kernel", "tiled"):
        return data | {"problem": f"its attention is {attention}, which the page doesn't have"}
    if data["parameters"] > LARGEST:
        return data | {"problem": f"it has {data['parameters']:,} weights; a page can carry {LARGEST:,}"}
    try:
        bits, weights, raw = packed(model)
        compared = reference(model, weights, src, tgt, data["tokens"].index("PAD"), every)
    except ValueError as error:
        return data | {"problem": str(error)}
    return data | {"shapes": {name: list(weight.shape) for name, weight in weights.items()}, "bits": bits,
                   "weights": base64.b64encode(raw).decode(), "reference": compared}


def filled(part: str, values: Mapping[str, str]) -> str:
    """A part of a page, with the values and parts that it names filled in. Values stay as they are."""
    pieces = (PARTS / f"{part}.html").read_text(encoding="utf-8").split("@@")  # text, name, text, name, …
    for place in range(1, len(pieces), 2):
        name = pieces[place]
        pieces[place] = values[name] if name in values else filled(name, values)
    return "".join(pieces)


def live_page(data: Mapping[str, Any], lesson: str = "index.html", kind: str = "digits") -> str:
    """The page as HTML; no text of the data can become markup. `lesson` is the address of its lesson."""
    plain = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return filled("frame", {
        "TITLE": TITLES[kind].format(task=html.escape(str(data["task"]))),
        "BODY": filled(kind, {"LESSON": html.escape(lesson)}),
        "STYLE": (PARTS / "style.css").read_text(encoding="utf-8"),
        "SCRIPT": "\n".join((PARTS / name).read_text(encoding="utf-8") for name in SCRIPTS[kind]),
        "DATA": plain.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")})


def leave(experiment: Any, number: int, page: Callable[[str], str], good_for: str) -> Leads:
    """Write the index and lesson `number`'s live page, which is page(address of the lesson's own page)."""
    folder = experiment.options.outputs
    file = experiment.file(live_name(number), "html")
    own = page_of(folder, stem_of(number))
    write_text(folder / file, page(own))
    write_contents(folder, progress.read(folder, Narrator(folder).say))
    return Leads(file, good_for)


def write_live(experiment: Any, tokens: Mapping[int, str], batch: Any) -> Leads | None:
    """Write the page of lesson 5's finished run, and the index that names it; None with --no-page."""
    if RANK or not experiment.options.page:
        return None
    data = data_of(merged_copy(experiment.run.model), experiment.training.task, vars(experiment.config),
                   tokens, batch.src, batch.tgt_in, sorted(experiment.own.parts))
    return leave(experiment, 5, lambda lesson: live_page(data, lesson),
                 "type digits, and this model answers in the browser")

"""A page on which the trained model answers while you type: one file, no network.

The page contains weights, vocabulary, styles and scripts; live_parts/ holds what is the same for every model.
The model runs in JavaScript there, with weights rounded to float16. So the page also gets a few logits that
PyTorch computed with the same rounded weights, compares its own with them, and says so if they differ.
"""

import base64
import html
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from course.console.files import write_text
from course.console.narrator import Narrator
from course.console.records import Leads
from course.grading.checking import COURSE
from course.pages.contents import LIVE, page_of, write_contents
from course.study import progress
from course.training.adapters import merged_copy
from course.training.processes import RANK

PARTS = Path(__file__).parent / "live_parts"
SCRIPTS = "model.js", "decoding.js", "page.js"
LARGEST = 4_000_000  # weights; a page of about 11 MB


def rounded(model: nn.Module) -> dict[str, Tensor]:
    """Every learned number, rounded to float16, as float32 on the CPU. ValueError if one is too large."""
    weights = {name: weight.detach().half().float().cpu() for name, weight in model.named_parameters()}
    for name, weight in weights.items():
        if not weight.isfinite().all():
            raise ValueError(f"{name} holds a number that is too large for float16")
    return weights


@torch.no_grad()
def reference(model: nn.Module, weights: Mapping[str, Tensor], src: Tensor, tgt: Tensor,
              pad: int) -> list[dict[str, list]]:
    """What PyTorch computes with these weights, for each row: ids of source and input, and the logits."""
    device, training = next(model.parameters()).device, model.training
    weights = {name: weight.to(device) for name, weight in weights.items()}
    logits = functional_call(model.eval(), weights, (src.to(device), tgt.to(device))).float().cpu()
    model.train(training)
    if not logits.isfinite().all():
        raise ValueError("with weights rounded to float16 its logits are not finite")
    return [{"source": source[source != pad].tolist(), "input": given[given != pad].tolist(),
             "logits": [[float(f"{logit:.6g}") for logit in row] for row in found[given != pad].tolist()]}
            for source, given, found in zip(src.cpu(), tgt.cpu(), logits, strict=True)]


def data_of(model: nn.Module, task: str, config: Mapping[str, Any], tokens: Mapping[int, str], src: Tensor,
            tgt: Tensor, own: list[str]) -> dict[str, Any]:
    """All that is of this model: `tokens` says id → token; src (B, S) and tgt (B, T) are compared on.

    A model that the page can't run leaves the reason, as "problem", and no weights.
    """
    data: dict[str, Any] = {"task": task, "config": dict(config), "own": own,
                            "tokens": [tokens[id] for id in range(len(tokens))],
                            "parameters": sum(weight.numel() for weight in model.parameters())}
    if (attention := config.get("attention", "kernel")) not in ("kernel", "tiled"):
        return data | {"problem": f"its attention is {attention}, which the page doesn't have"}
    if data["parameters"] > LARGEST:
        return data | {"problem": f"it has {data['parameters']:,} weights; a page can carry {LARGEST:,}"}
    try:
        weights = rounded(model)
        pad = data["tokens"].index("PAD")
        compared = reference(model, weights, src, tgt, pad)
    except ValueError as error:
        return data | {"problem": str(error)}
    raw = b"".join(weight.numpy().astype("<f2").tobytes() for weight in weights.values())
    return data | {"shapes": {name: list(weight.shape) for name, weight in weights.items()},
                   "weights": base64.b64encode(raw).decode(), "reference": compared}


def live_page(data: Mapping[str, Any], lesson: str = "index.html") -> str:
    """The page as HTML; no text of the data can become markup. `lesson` is the address of lesson 5."""
    script = "\n".join((PARTS / name).read_text(encoding="utf-8") for name in SCRIPTS)
    plain = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    parts = {"TASK": html.escape(str(data["task"])), "LESSON": html.escape(lesson),
             "STYLE": (PARTS / "style.css").read_text(encoding="utf-8"),
             "SCRIPT": script,
             "DATA": plain.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")}
    page = (PARTS / "page.html").read_text(encoding="utf-8")
    pieces = page.split("@@")  # text, name, text, name, … text: nothing put in is searched again
    return "".join(parts[piece] if number % 2 else piece for number, piece in enumerate(pieces))


def write_live(experiment: Any, tokens: Mapping[int, str], batch: Any) -> Leads | None:
    """Write the page of an experiment's finished run, and the index that names it; None with --no-page."""
    folder = experiment.options.outputs
    if RANK or not experiment.options.page:
        return None
    data = data_of(merged_copy(experiment.run.model), experiment.training.task, vars(experiment.config),
                   tokens, batch.src, batch.tgt_in, sorted(experiment.own.parts))
    file = experiment.file(LIVE, "html")
    write_text(folder / file, live_page(data, page_of(folder, next(COURSE.glob(f"{LIVE[:2]}_*.py")).stem)))
    write_contents(folder, progress.read(folder, Narrator(folder).say))
    return Leads(file, "type digits, and this model answers in the browser")

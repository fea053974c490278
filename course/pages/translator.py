"""Lesson 8's live page: the trained model translates what is typed, with 8-bit weights."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from course.console.records import Leads
from course.pages.live import data_of, in_8_bits, leave, live_page
from course.training.adapters import merged_copy
from course.training.processes import RANK
from course.training.replies import SHORT, USUAL

MOST_BYTES = 4_000_000  # largest size of the page
EXAMPLES, COMPARED = 30, 4  # test sentences on the page; how many have their logits compared
ASKED = 1000  # test sentences translated with both 8-bit and 32-bit weights
LANGUAGES = [{"name": "English", "code": "en"}, {"name": "French", "code": "fr"}]
OTHERS = [{"name": "Source", "code": ""}, {"name": "target", "code": ""}]  # for the user's own pairs
NOTHING_MET = {"words": "", "rare": "", "untrained": [], "capital": 0, "mark": 0, "ends": ""}

Translate = Callable[[nn.Module, Any, list[str]], list[str]]  # (model, encoding, sentences) → answers


@torch.no_grad()
def with_weights(model: nn.Module, weights: dict[str, Tensor]) -> nn.Module:
    """A copy of the model that has these weights."""
    copy = deepcopy(model).eval()
    for name, weight in copy.named_parameters():
        weight.copy_(weights[name])
    return copy


def compared(answers: list[str], others: list[str], references: list[str]) -> dict[str, Any]:
    """How many of the answers differ from the others, and the fractions of both that are right."""
    count = max(1, len(references))
    return {"sentences": len(references),
            "differ": sum(one != other for one, other in zip(answers, others, strict=True)),
            "exact": [sum(one == right for one, right in zip(found, references, strict=True)) / count
                      for found in (answers, others)]}


def translator_data(experiment: Any, translate: Translate) -> dict[str, Any]:
    """The page's data on the experiment's model, its pieces and its texts."""
    model: Any = merged_copy(experiment.model)
    encoding, texts = experiment.encoding, experiment.texts
    special = dict(enumerate(("PAD", "BOS", "EOS")))
    tokens = dict(enumerate(encoding.texts_of(range(len(encoding))))) | special
    pairs = experiment.pairs(ASKED)
    batch = texts.batch(sorted(pairs[:EXAMPLES], key=lambda pair: len(pair.source))[-COMPARED:])
    data = data_of(model, "translation", vars(model.config), tokens, batch.src, batch.tgt_in,
                   sorted(experiment.own.parts), in_8_bits, every=max(1, len(tokens) // 100))
    languages = OTHERS if texts.files else LANGUAGES[::-1] if experiment.training.reverse else LANGUAGES
    replies = experiment.replies
    data |= {"languages": languages, "encoding": encoding.state(), "met": NOTHING_MET | replies.met,
             "titles": SHORT, "usual": USUAL, "unsure": replies.limit}
    if "problem" in data:
        return data
    sources = [pair.source for pair in pairs]
    small = translate(with_weights(model, in_8_bits(model).weights), encoding, sources)
    examples = [{"source": pair.source, "target": pair.target, "answer": answer}
                for pair, answer in zip(pairs[:EXAMPLES], small)]
    return data | {"examples": examples,
                   "compared": compared(small, experiment.answers[:ASKED], [pair.target for pair in pairs])}


def translator_page(data: dict[str, Any], lesson: str = "index.html") -> str:
    """The page as HTML, at most MOST_BYTES long; for a larger model it only says why it can't."""
    page = live_page(data, lesson, "translator")
    if (size := len(page.encode())) <= MOST_BYTES:
        return page
    problem = f"its page would have {size:,} bytes, and {MOST_BYTES:,} is the limit"
    few = {name: data[name] for name in ("task", "config", "own", "parameters", "languages", "unsure")}
    return live_page(few | {"tokens": [], "problem": problem}, lesson, "translator")


def write_translator(experiment: Any, translate: Translate) -> Leads | None:
    """Write the page of lesson 8's finished run, and the index that names it; None with --no-page."""
    if RANK or not experiment.options.page:
        return None
    data = translator_data(experiment, translate)
    told = "type a sentence, and this model translates it in the browser"
    if "compared" in data:
        told += "; weights in 8 bits change {differ:,} of {sentences:,} test answers".format(
            **data["compared"])
    return leave(experiment, 8, lambda lesson: translator_page(data, lesson), told)

"""The runs of a lesson that trains on texts: their names, checkpoints and replies."""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import nn

from course.console.options import changed_options, option
from course.console.records import EndHere
from course.grading.own import NOTHING, Own
from course.training.base import Base
from course.training.engine import Run
from course.training.experiment import ModelExperiment
from course.training.processes import RANK
from course.training.replies import Replies


@dataclass(frozen=True)
class FilesOfPairs:
    """The options that name files of pairs."""

    pairs: str = option("", "a file of your own pairs: source, tab, target, UTF-8 (default: the grammar's)")
    valid: str = option("", "with --pairs: validation pairs (default: some of those in --pairs)")
    test: str = option("", "with --pairs: test pairs, in one file, or in several separated by "
                       "commas (default: some of those in --pairs)")
    reverse: bool = option(False, "from French to English; with --pairs from the second column to the first")
    columns: str = option("", "with --pairs: the two columns to take, such as 2,4 (default: the first two "
                          "that hold sentences)")
    max_pairs: int = option(0, "most training pairs; 0: all, or 60,000 of the grammar's", least=0)

    def refuse_files_without_pairs(self) -> None:
        """ValueError for an option that has no effect without --pairs."""
        for name in ("valid", "test", "columns"):
            if getattr(self, name) and not self.pairs:
                raise ValueError(f"--{name} {getattr(self, name)} goes with --pairs FILE")


class TextsExperiment(ModelExperiment):
    """The experiment of a lesson that trains on generated texts or on texts from files.

    A lesson defines its texts, texts_of(training, encoding, met); the defaults that differ for files; and
    the run on some texts, run_on(config, training, texts). answers_to() and batch_of() are for replies.
    """

    answers = True
    # What --from compares, and on what.
    measure, scored = "BLEU of the greedy answers to validation pairs", "pairs"
    texts_of: Callable[..., Any]
    from_files: Mapping[str, Any]  # the settings whose defaults differ for texts from files
    run_on: Callable[[Any, Any, Any], Run]
    answers_to: Callable[..., list[str]]
    batch_of: Callable[[str, str], Any]  # a sentence and its answer → a batch of one

    def __init__(self, config: Any, training: Any, options: argparse.Namespace, own: Own = NOTHING):
        self.base = getattr(options, "base", None)
        self.texts = self.fresh_texts(training)
        super().__init__(config, training, options, own)

    def named(self, config: Any, training: Any) -> str:
        return run_name(self.default, config, training, self.texts, self.from_files)

    def fresh_texts(self, training: Any) -> Any:
        """The texts of a training run; if --from names a model, they are cut into that model's pieces."""
        texts = self.texts_of(training)
        if self.base is None:
            return texts
        if "encoding" not in self.base.about:
            raise ValueError(f"--from {self.base.path} holds no pieces: it wasn't trained on texts")
        texts = self.texts_of(training, texts.pieces.restored(self.base.about["encoding"]))
        texts.met_before = self.base.about.get("met", {})
        return texts

    def variant(self, config: Any, training: Any) -> Run:
        return self.run_on(config, training,
                           self.texts if training == self.training else self.fresh_texts(training))

    def remade(self, about: dict[str, Any], paths: Mapping[str, str] | None = None) -> Run:
        """A fresh run as a checkpoint describes it; its files may be elsewhere now."""
        self.refuse_other_parts(about)
        training = type(self.training)(**about["training"] | (self.texts.paths if paths is None else paths))
        encoding = self.texts.pieces.restored(about["encoding"])
        texts = self.texts_of(training, encoding, about.get("met", {}))
        return self.run_on(type(self.config)(**about["config"]), training, texts)

    def another(self, about: dict[str, Any]) -> Run:
        """A fresh run as another checkpoint describes it, without reading the files that this names."""
        unread = dict.fromkeys((*self.texts.paths, "columns"), "")
        run = self.remade(about | {"training": about["training"] | unread}, {})
        run.about = about
        return run

    def check(self) -> None:
        """ValueError or OSError for files that can't be used, unless only answers are wanted."""
        if self.texts.files and not self.answers_only:
            _ = self.texts.splits
        super().check()

    def train(self) -> EndHere | None:
        """Train the run; if it started from a trained model, report the scores on old and new texts."""
        ended = super().train()
        if self.base and not ended and not RANK:
            self.say(self.before_and_after(self.base))
        return ended

    def before_and_after(self, base: Base) -> str:
        """The scores of the old and the new model on the new texts and on the old ones."""
        models = {"before": self.make().model.eval(), "after": self.model}
        encoding = self.texts.pieces.restored(base.about["encoding"])
        training = type(self.training)(**base.about["training"])
        old = self.texts_of(training, encoding, base.about.get("met", {}))
        lost, found = old.gone_or_changed(base.about.get("files", {})), []
        for name, texts in (("new", self.texts), ("old", old)):
            scores = ", ".join(f"{when} {self.score(texts, model):.1f}" for when, model in models.items()
                               ) if not (lost and texts is old) else f"unknown: {lost[0]} is gone or changed"
            found.append(f"on the {name} {self.scored} {scores}")
        return f"{self.measure}: {'; '.join(found)}."

    def score(self, texts: Any, model: nn.Module) -> float:
        """The score that --from compares, on some texts."""
        return texts.validate(model)["bleu"]

    def wanted(self, about: dict[str, Any]) -> dict[str, Any]:
        """What a checkpoint should say about its run; its own vocabulary counts, so no texts are drawn."""
        config = about.get("config")
        size = config.get("vocab_size", 0) if isinstance(config, dict) else 0
        told: dict[str, Any] = {
            "name": self.default, "config": asdict(self.config) | {"vocab_size": size},
            "training": asdict(self.training), "encoding": about.get("encoding"), "met": about.get("met")}
        if self.texts.files and about.get("files") == self.texts.hashes:  # wherever the files were then
            told["training"] |= {name: about["training"][name] for name in self.texts.paths}
        told |= {"files": self.texts.hashes} if self.texts.files else {}
        told |= self.base.told if self.base else {}
        return told | ({"with": dict(self.own.files)} if self.own.files else {})

    @property
    def threads(self) -> int | None:
        return self.options.threads  # without --threads a trial decides

    @property
    def is_default(self) -> bool:
        """Whether at most the seed differs from the default run, so that the text on the figures applies."""
        return self.named(self.config, replace(self.training, seed=0)) == self.default and not (
            self.own.parts or self.base)

    @property
    def model(self) -> nn.Module:
        return self.run.model.eval()

    @cached_property
    def encoding(self) -> Any:
        """The model's encoding, from its checkpoint if there is one."""
        return self.texts.pieces.restored(self.run.about["encoding"])

    @property
    def replies(self) -> Replies:
        """The notes that --chat and --input give besides the answer."""
        return Replies(lambda text: self.answers_to([text])[0],
                       lambda text, answer: certainties(self.model, self.batch_of(text, answer))[0],
                       self.texts.words_of, self.encoding.encode, self.run.about.get("met", {}),
                       [0.0, *self.run.noted("unsure_below")][-1])


def run_name(default: str, config: Any, training: Any, texts: Any, from_files: Mapping[str, Any]) -> str:
    """`default`, each file with the beginning of its hash, and every option that differs from its default."""
    usual = replace(type(config)(), d_ff=replace(config, d_ff=0).d_ff), replace(
        type(training)(), **(from_files if texts.labels else {}), **texts.paths)
    files = [f"{name}={label}" for name, label in texts.labels.items()]
    return "-".join([default, *files, *changed_options(config, usual[0]),
                     *changed_options(training, usual[1])])


@torch.no_grad()
def certainties(model: nn.Module, batch: Any, pad: int = 0) -> list[float]:
    """How sure the model is of each answer: e to the mean log-probability of its tokens, 0 to 1."""
    batch = batch.to(next(model.parameters()).device)
    found = torch.log_softmax(model(batch.src, batch.tgt_in), -1).gather(-1, batch.tgt_out[..., None])[..., 0]
    real = batch.tgt_out != pad
    return ((found * real).sum(1) / real.sum(1)).exp().tolist()

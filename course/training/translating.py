"""The sizes and settings of a translator: options of lesson 8, and those that differ for pairs from files."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from course.console.options import option
from course.training.configs import SequenceTraining, TransformerConfig
from course.training.on_texts import FilesOfPairs


@dataclass(frozen=True)
class TranslationModel(TransformerConfig):
    """The sizes of the model; vocab_size follows from the texts."""

    d_model: int = option(128, "width of a token's vector", least=1)
    n_heads: int = option(8, "attention heads; their number must divide d_model", least=1, names=["--heads"])
    d_ff: int = option(0, "width of the feed-forward network; 0 means 2 · d_model", least=0)
    positions: str = option("rotary", "sinusoidal, learned, rotary or none",
                            among=("sinusoidal", "learned", "rotary", "none"))
    max_len: int = option(256, least=1)

    def __post_init__(self):
        object.__setattr__(self, "d_ff", self.d_ff or 2 * self.d_model)
        super().__post_init__()


@dataclass(frozen=True)
class TranslationTraining(SequenceTraining, FilesOfPairs):
    """One training run on sentence pairs. ValueError, with the value, for a setting that makes no sense."""

    vocab: int = option(1500, "merges to learn", least=0)
    steps: int = option(3000, "training steps", least=0, below=10**7)
    batch_size: int = option(32, "pairs per step", least=1)
    beta2: float = option(0.98, "Adam's β₂, as in the paper", least=0, below=1)
    weight_decay: float = option(0.1, "decoupled weight decay (AdamW)", least=0)
    warmup: int = option(300, "steps of warm-up", least=0)
    validate_every: int = option(250, "steps from one validation to the next", least=1)

    def __post_init__(self):
        super().__post_init__()
        self.refuse_files_without_pairs()
        self.refuse_fewer_than_parts(self.batch_size)


# The defaults that differ for pairs from files, whose sentences are harder than the grammar's. In trials at
# equal time a long warm-up cost nothing on one corpus and gained most on the other: there, lr 3e-3 after a
# short one delayed all learning. In longer runs the model sees each pair so often that it overfits, so they
# also have dropout and smoothing, which only delay shorter ones.
REAL_PAIRS: Mapping[str, Any] = {"warmup": 800, "steps": 3800, "vocab": 4000, "validate_every": 1000}
LONG, LONGER = 6000, {"dropout": 0.1, "label_smoothing": 0.1}


def defaults_for(options: argparse.Namespace) -> dict[str, Any]:
    """The defaults that differ for these options: none for the grammar's pairs."""
    if not options.pairs:
        return {}
    warmup = min(REAL_PAIRS["warmup"], options.steps // 3)
    return {**REAL_PAIRS, "warmup": warmup, **(LONGER if options.steps > LONG else {})}


TOLD = ("n_layers", "d_model", "d_ff", "dropout", "vocab", "label_smoothing", "lr", "warmup", "steps",
        "batch_size")


def recipe_line(config: TranslationModel, training: TranslationTraining) -> str:
    """One line: which defaults apply, and the values of the main options."""
    chosen = "pairs from files" if training.pairs else "the grammar's pairs"
    values = {**vars(config), **vars(training)}
    return f"Recipe for {chosen}: " + ", ".join(f"{name} {values[name]:g}" for name in TOLD)

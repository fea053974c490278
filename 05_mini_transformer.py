"""Lesson 5. Does it learn?

The parts become a Transformer that reads a sequence of digits and writes its answer: reversed, copied,
sorted or added up. The encoder reads the source once; the decoder writes one token after the other and,
while learning, is told all tokens before the one it has to guess (teacher forcing):

    loss = −mean log P(y_t | y_1 … y_{t−1}, source)

Token embedding and logits share one matrix, source and target one vocabulary (section 3.4). Where we
depart from the paper: pre-norm, GELU, biases in all projections, small first weights; no dropout and no
label smoothing unless asked for; a learning rate that falls linearly, Adam with PyTorch's β₂ and ε, weight
decay on every parameter, clipped gradients. Lessons 1 to 4 built the parts; lesson 6 decodes in every
other way.
"""

import argparse
import csv
import io
import math
import os
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property, partial
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, distributed, nn
from torch.nn.utils import clip_grad_norm_
from torch.utils.checkpoint import checkpoint

from common import (
    EndHere,
    Finding,
    Picture,
    Proof,
    agree,
    canvas,
    check,
    check_all,
    check_caught,
    gradients,
    gradients_agree,
    heatmap,
    interruptible,
    largest_difference,
    lesson,
    lesson_parser,
    mask_rows,
    narrate,
    parameters,
    pick_device,
    progress,
    prove,
    random_tensors,
    short_path,
    shows,
    stop,
    table,
    write_atomically,
)

causal_mask = lesson("01_attention_mechanism").causal_mask
padding_mask = lesson("01_attention_mechanism").padding_mask
record_attention = lesson("02_multi_head_attention").record_attention
BOS = lesson("03_positional_encoding").BOS
EOS = lesson("03_positional_encoding").EOS
PAD = lesson("03_positional_encoding").PAD
LearnedPositionalEncoding = lesson("03_positional_encoding").LearnedPositionalEncoding
RotaryPositionalEncoding = lesson("03_positional_encoding").RotaryPositionalEncoding
SinusoidalPositionalEncoding = lesson("03_positional_encoding").SinusoidalPositionalEncoding
TokenEmbedding = lesson("03_positional_encoding").TokenEmbedding
Tokenizer = lesson("03_positional_encoding").Tokenizer
Decoder = lesson("04_transformer_block").Decoder
Encoder = lesson("04_transformer_block").Encoder
copy_stack = lesson("04_transformer_block").copy_stack

__all__ = [
    "TASKS",
    "Adam",
    "Batch",
    "Run",
    "TrainingConfig",
    "Transformer",
    "TransformerConfig",
    "draw_batch",
    "draw_sequences",
    "evaluate",
    "exactly_right",
    "free_running",
    "learning_rate",
    "load_or_train",
    "load_run",
    "make_batch",
    "pad",
    "sequence_loss",
    "teacher_forcing",
    "tokenizer",
    "train",
]

SYMBOLS = "0123456789"
LENGTHS = 4, 16
TEST_SIZE = 2000
RANK, PROCESSES = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))  # torchrun's
tokenizer = Tokenizer([SYMBOLS], level="character")
ZERO = tokenizer.encode("0")[0]  # digit d has id ZERO + d


# ------------------------------------------------------------------ the model


def option(default: Any, text: str) -> Any:
    """A field with a default and the help text of its command-line option."""
    return field(default=default, metadata={"help": text})


def at_least(lowest: int, config: Any, name: str) -> None:
    value = getattr(config, name)
    if not lowest <= value < math.inf:
        raise ValueError(f"{name} is {value}; it must be at least {lowest} and finite")


def share(config: Any, name: str) -> None:
    value = getattr(config, name)
    if not 0 <= value < 1:
        raise ValueError(f"{name} is {value}; it must be at least 0 and below 1")


def one_of(known: Iterable[str], config: Any, name: str) -> None:
    value = getattr(config, name)
    if value not in known:
        raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(known)}")


@dataclass(frozen=True)
class TransformerConfig:
    """The sizes of a model. ValueError, with the values, for sizes that don't fit together."""

    d_model: int = option(64, "width of a token's vector")
    n_heads: int = option(4, "attention heads, into which d_model must split")
    n_layers: int = option(2, "layers of the encoder, and of the decoder")
    d_ff: int = option(0, "width of the feed-forward network; 0 means 4 · d_model")
    dropout: float = option(0.0, "share of activations dropped in training")
    norm: str = option("pre", "pre or post")
    positions: str = option("sinusoidal", "sinusoidal, learned, rotary or none")
    activation: str = option("gelu", "gelu or relu")
    max_len: int = 128
    vocab_size: int = len(tokenizer)

    def __post_init__(self):
        for name in ("d_model", "n_heads", "n_layers", "max_len", "vocab_size"):
            at_least(1, self, name)
        at_least(0, self, "d_ff")
        if self.d_model % self.n_heads:
            raise ValueError(f"d_model {self.d_model} does not split into {self.n_heads} heads")
        share(self, "dropout")
        one_of(("pre", "post"), self, "norm")
        one_of(("sinusoidal", "learned", "rotary", "none"), self, "positions")
        one_of(("gelu", "relu"), self, "activation")
        object.__setattr__(self, "d_ff", self.d_ff or 4 * self.d_model)


class Transformer(nn.Module):
    """Encoder and decoder with shared embeddings (figure 1 of the paper).

    Its parts are embedding, encoder and decoder.
    """

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.config = config
        width, max_len = config.d_model, config.max_len
        rotary = None
        self.positions = None
        if config.positions == "sinusoidal":
            self.positions = SinusoidalPositionalEncoding(width, max_len)
        elif config.positions == "learned":
            self.positions = LearnedPositionalEncoding(width, max_len)
        elif config.positions == "rotary":
            rotary = RotaryPositionalEncoding(width // config.n_heads, max_len)
        sizes = (config.n_layers, width, config.n_heads, config.d_ff, config.dropout, config.norm,
                 config.activation, rotary)
        self.embedding = TokenEmbedding(config.vocab_size, width)
        self.encoder = Encoder(*sizes)
        self.decoder = Decoder(*sizes)
        last = self.decoder.norm if config.norm == "pre" else self.decoder.blocks[-1].around_feed_forward.norm
        nn.init.constant_(last.gain, width**-0.5)  # else the tied output begins by repeating its input

    def forward(self, src: Tensor, tgt: Tensor) -> Tensor:
        """src (B, S) and tgt (B, T), which begins with BOS → logits (B, T, V) of the next tokens."""
        return self.decode(tgt, self.encode(src), self.src_mask(src))

    def encode(self, src: Tensor) -> Tensor:
        """src (B, S) → memory (B, S, D)."""
        return self.encoder(self.embed(src), self.src_mask(src))

    def decode(
        self, tgt: Tensor, memory: Tensor, src_mask: Tensor, cache=None
    ) -> Tensor:
        """tgt (B, T), memory (B, S, D), src_mask (B, 1, 1, S) → logits (B, T, V).

        With a cache (lesson 6), tgt is only what the cache hasn't seen yet. Padding at the end of tgt
        needs no mask: the causal mask hides it from all real tokens before it.
        """
        start = 0 if cache is None else cache[0].self_attention.length
        mask = None  # a single new token may see all before it
        if tgt.shape[1] > 1:
            mask = self.tgt_mask(start + tgt.shape[1], tgt.device)[start:]
        x = self.decoder(
            self.embed(tgt, start), memory, mask, src_mask, cache
        )
        return self.embedding.logits(x)

    def embed(self, tokens: Tensor, start: int = 0) -> Tensor:
        """tokens (B, L), the first at position `start` → (B, L, D)."""
        x = self.embedding(tokens)
        if self.positions is not None:
            x = self.positions(x, start)
        return F.dropout(x, self.config.dropout, self.training)

    def src_mask(self, src: Tensor) -> Tensor:
        """src (B, S) → (B, 1, 1, S): the source's padding is hidden from everyone."""
        return padding_mask(src, PAD)

    def tgt_mask(self, length: int, device: torch.device) -> Tensor:
        """(T, T): no token of the answer sees what comes after it."""
        return causal_mask(length, device)


# ------------------------------------------------------------------ the data


def reverse(digits: list[int]) -> list[int]:
    """3 1 4 → 4 1 3."""
    return digits[::-1]


def copy(digits: list[int]) -> list[int]:
    """3 1 4 → 3 1 4."""
    return list(digits)


def digit_sum(digits: list[int]) -> list[int]:
    """9 1 4 → 1 4: the decimal digits of the sum."""
    return [int(digit) for digit in str(sum(digits))]


TASKS: dict[str, Callable[[list[int]], list[int]]] = {
    "reverse": reverse,
    "copy": copy,
    "sort": sorted,
    "sum": digit_sum,
}


def split_of(digits: list[int]) -> str:
    """train, validation or test: a checksum of the digits decides, so no run can mix them up."""
    checksum = zlib.crc32(bytes(digits))
    return {0: "test", 1: "validation"}.get(checksum % 10, "train")


def draw_sequences(
    count: int, split: str, seed: tuple[int, ...], lengths: tuple[int, int] = LENGTHS
) -> list[list[int]]:
    """`count` random digit sequences of one split, lengths uniform; the same for the same seed.

    ValueError for a split that split_of() never says.
    """
    if split not in ("train", "validation", "test"):
        raise ValueError(f"split is {split!r}; it must be train, validation or test")
    random = np.random.default_rng(seed)
    drawn: list[list[int]] = []
    while len(drawn) < count:
        sizes = random.integers(lengths[0], lengths[1] + 1, size=count).tolist()
        digits = random.integers(0, len(SYMBOLS), size=(count, lengths[1])).tolist()
        rows = (row[:size] for row, size in zip(digits, sizes, strict=True))
        drawn += [row for row in rows if split_of(row) == split]
    return drawn[:count]


class Batch(NamedTuple):
    """Padded ids: src (B, S), tgt_in (B, T) = BOS y…, tgt_out (B, T) = y… EOS."""

    src: Tensor
    tgt_in: Tensor
    tgt_out: Tensor

    def to(self, device: torch.device) -> "Batch":
        return Batch(*(tensor.to(device) for tensor in self))

    def rows(self, rows: slice) -> "Batch":
        return Batch(*(tensor[rows] for tensor in self))


def pad(rows: list[list[int]]) -> Tensor:
    """(B, longest), filled up with PAD at the end."""
    width = max(map(len, rows))
    return torch.tensor([row + [PAD] * (width - len(row)) for row in rows])


def teacher_forcing(answers: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Decoder input BOS y_1 … y_n and target y_1 … y_n EOS, both (B, longest + 1) with PAD behind.

    At each place the input holds the tokens up to there and the target the next one.
    """
    tgt_in = pad([[BOS, *answer] for answer in answers])
    tgt_out = pad([[*answer, EOS] for answer in answers])
    return tgt_in, tgt_out


def make_batch(task: str, sequences: list[list[int]]) -> Batch:
    """Source ids of some digit sequences and the task's answers."""
    sources = [[ZERO + digit for digit in digits] for digits in sequences]
    answers = [[ZERO + digit for digit in TASKS[task](digits)] for digits in sequences]
    return Batch(pad(sources), *teacher_forcing(answers))


def draw_batch(task: str, size: int, split: str, seed: tuple[int, ...]) -> Batch:
    """A random batch, the same for the same seed."""
    return make_batch(task, draw_sequences(size, split, seed))


# ------------------------------------------------------------------ loss, optimiser, schedule


def sequence_loss(
    logits: Tensor, targets: Tensor, label_smoothing: float = 0.0
) -> Tensor:
    """Cross-entropy summed over all real tokens: logits (B, T, V), targets (B, T) → scalar.

    PAD counts nothing. With label smoothing ε (section 5.4) the target distribution is 1 − ε on the
    right token plus ε / V on every token. Divide by the number of real tokens for the mean.
    """
    log_probs = logits.log_softmax(dim=-1)  # (B, T, V)
    right = log_probs.gather(-1, targets[..., None])[..., 0]  # (B, T)
    loss = -(1 - label_smoothing) * right - label_smoothing * log_probs.mean(
        dim=-1
    )
    return loss.masked_fill(targets == PAD, 0.0).sum()


class Adam:
    """Adam (Kingma and Ba 2015, algorithm 1), with AdamW's decoupled decay (Loshchilov and Hutter).

    Per parameter a running mean of the gradient and of its square; both start at 0, which the
    division by 1 − βᵗ corrects. The step is learning rate · mean / √square.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ):
        self.parameters = list(parameters)
        self.lr, self.betas, self.eps, self.weight_decay = lr, betas, eps, weight_decay
        self.means = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.squares = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.steps = 0

    @torch.no_grad()
    def step(self) -> None:
        """Move every parameter against its gradient."""
        self.steps += 1
        beta1, beta2 = self.betas
        for parameter, mean, square in zip(
            self.parameters, self.means, self.squares, strict=True
        ):
            gradient = parameter.grad
            mean.mul_(beta1).add_((1 - beta1) * gradient)
            square.mul_(beta2).add_((1 - beta2) * gradient**2)
            unbiased_mean = mean / (1 - beta1**self.steps)
            unbiased_square = square / (1 - beta2**self.steps)
            parameter.mul_(1 - self.lr * self.weight_decay)
            size = unbiased_square.sqrt() + self.eps
            parameter.sub_(self.lr * unbiased_mean / size)


RECIPES = {"sort": (2000, 64), "sum": (2000, 128)}  # steps and batch size; else 700 and 32


@dataclass(frozen=True)
class TrainingConfig:
    """One training run. ValueError, with the value, for what makes no sense."""

    task: str = option("reverse", f"one of {', '.join(TASKS)}")
    steps: int = option(0, "training steps; 0: what the task needs")
    batch_size: int = option(0, "sequences a step; 0: what the task needs")
    lr: float = option(3e-3, "highest learning rate; inverse_sqrt has its own")
    warmup: int = option(50, "steps of warm-up")
    schedule: str = option("linear", "linear, or inverse_sqrt as in the paper")
    weight_decay: float = option(0.2, "decoupled weight decay (AdamW)")
    clip: float = option(1.0, "longest gradient, over all parameters")
    label_smoothing: float = option(0.0, "share of the target spread over all tokens")
    patience: int = option(0, "stop after so many validations without a lower loss (0: never)")
    accumulate: int = option(1, "pieces into which a batch is cut to save memory")
    precision: str = option("fp32", "fp32, or bf16 for matrix products in bfloat16")
    recompute: bool = option(False, "compute activations again in backward, to save memory")
    compile: bool = option(False, "let torch.compile translate the model (needs a C++ compiler)")
    seed: int = 0

    def __post_init__(self):
        one_of(TASKS, self, "task")
        one_of(("linear", "inverse_sqrt"), self, "schedule")
        one_of(("fp32", "bf16"), self, "precision")
        for name in ("steps", "batch_size"):
            at_least(0, self, name)
        steps, batch_size = RECIPES.get(self.task, (700, 32))
        object.__setattr__(self, "steps", self.steps or steps)
        object.__setattr__(self, "batch_size", self.batch_size or batch_size)
        at_least(1, self, "accumulate")
        for name in ("warmup", "patience", "weight_decay", "seed"):
            at_least(0, self, name)
        share(self, "label_smoothing")
        for name in ("lr", "clip"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0 and finite")
        parts = self.accumulate * PROCESSES
        if self.batch_size < parts:
            raise ValueError(f"batch_size {self.batch_size} can't be cut into {parts} parts")


def learning_rate(step: int, training: TrainingConfig, d_model: int) -> float:
    """The rate of step 0, 1, …

    linear: up to training.lr over the warm-up, then down to 0 at the end; a run that is shorter than its
    warm-up ends on the way up. inverse_sqrt, section 5.3: d_model^−½ · min(n^−½, n · warmup^−3/2) with n =
    step + 1; its peak is (d_model · warmup)^−½.
    """
    n, warmup = step + 1, max(1, training.warmup)
    if training.schedule == "inverse_sqrt":
        return d_model**-0.5 * min(n**-0.5, n * warmup**-1.5)
    left = (training.steps - step) / max(1, training.steps - training.warmup)
    return training.lr * min(n / warmup, left, 1.0)


# ------------------------------------------------------------------ how good is it?


class Scores(NamedTuple):
    """Of an evaluation: mean loss, and the two accuracies; `exact` (B,) says which answers are right."""

    loss: float
    token_accuracy: float  # with teacher forcing
    exact_match: float  # free-running, the whole answer right
    exact: Tensor


@torch.no_grad()
def free_running(model: Transformer, src: Tensor, max_length: int) -> Tensor:
    """src (B, S) → the model's own answers (B, ≤ max_length): each token the likeliest, fed back.

    The shortest way to write it, not the fastest: every step runs the whole decoder again. Lesson 6
    does better.
    """
    memory, src_mask = model.encode(src), model.src_mask(src)
    tokens = torch.full((len(src), 1), BOS, device=src.device)
    ended = torch.zeros(len(src), 1, dtype=torch.bool, device=src.device)
    for _ in range(max_length):
        likeliest = model.decode(tokens, memory, src_mask)[:, -1:].argmax(-1)
        tokens = torch.cat([tokens, likeliest.masked_fill(ended, PAD)], dim=1)
        ended = ended | (likeliest == EOS)
        if ended.all():
            break
    return tokens[:, 1:]


def exactly_right(answers: Tensor, wanted: Tensor) -> Tensor:
    """answers (B, ≤ T) and wanted (B, T) → (B,), True where the whole answer is right."""
    answers = F.pad(answers, (0, wanted.shape[1] - answers.shape[1]), value=PAD)
    return (answers == wanted).all(dim=1)


@torch.no_grad()
def evaluate(model: Transformer, batch: Batch, decode: Callable = free_running) -> Scores:
    """Teacher-forced loss and token accuracy, and exact match of what `decode` answers."""
    was_training = model.training
    model.eval()
    logits = model(batch.src, batch.tgt_in)
    real = batch.tgt_out != PAD
    loss = sequence_loss(logits, batch.tgt_out) / real.sum()
    accuracy = (logits.argmax(-1) == batch.tgt_out)[real].float().mean()
    exact = exactly_right(decode(model, batch.src, batch.tgt_out.shape[1]), batch.tgt_out)
    model.train(was_training)
    return Scores(loss.item(), accuracy.item(), exact.float().mean().item(), exact.cpu())


# ------------------------------------------------------------------ training

VALIDATE_EVERY = 50  # steps; after each validation the run is saved, too


class Run:
    """A training in progress: model, optimiser and what was noted, all that a checkpoint holds."""

    def __init__(self, config: TransformerConfig, training: TrainingConfig, device: torch.device):
        torch.manual_seed(training.seed)
        self.config, self.training, self.device = config, training, device
        self.model = self.make_model().to(device)
        if training.recompute:
            recompute_blocks(self.model)
        if training.compile:
            self.model.compile(dynamic=True)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), weight_decay=training.weight_decay, fused=True
        )
        self.history: list[dict[str, float]] = []  # one record a step
        torch.manual_seed(training.seed + RANK)  # of several processes each drops other activations
        self.validation = draw_batch(training.task, 100, "validation", (training.seed,)).to(device)

    def make_model(self) -> Transformer:
        return Transformer(self.config)

    def batch(self, step: int) -> Batch:
        """The batch of a step depends on seed and step alone, so a resumed run sees the same."""
        seed = self.training.seed, step
        return self.spoil(draw_batch(self.training.task, self.training.batch_size, "train", seed))

    def spoil(self, batch: Batch) -> Batch:
        """The batch as it is; a variant broken on purpose changes it."""
        return batch

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        return sequence_loss(logits, targets, self.training.label_smoothing)

    @property
    def finished(self) -> bool:
        """All steps done, or no lower validation loss for `patience` validations."""
        patience = self.training.patience
        if len(self.history) == self.training.steps or not patience:
            return len(self.history) == self.training.steps
        losses = [record["validation_loss"] for record in self.history if "exact_match" in record]
        return len(losses) > patience and min(losses[-patience:]) > min(losses)

    def update(self) -> None:
        """One step of training, noted in the history. FloatingPointError if a number isn't finite."""
        started, step = time.perf_counter(), len(self.history)
        batch = self.batch(step).to(self.device)
        self.optimizer.zero_grad()
        loss = self.backward(batch)
        noted = gradient_norms(self.model) if self.validates_after(step) else {}
        norm = clip_grad_norm_(self.model.parameters(), self.training.clip).item()
        if not math.isfinite(loss + norm):
            numbers = f"the loss is {loss}, the gradient's norm {norm}"
            raise FloatingPointError(f"step {step + 1}: {numbers}")
        rate = learning_rate(step, self.training, self.config.d_model)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        noted |= {"step": step + 1, "loss": loss, "gradient_norm": norm}
        noted |= {"learning_rate": rate, "seconds": time.perf_counter() - started}
        noted["tokens"] = int((batch.tgt_out != PAD).sum())
        self.history.append(noted)

    def backward(self, batch: Batch) -> float:
        """Put the gradient of the mean loss per token into the parameters, and return that loss.

        The batch may come in parts, and the parts lie in several processes: every part's loss is divided
        by the tokens of the whole batch, so the sum of their gradients is the batch's.
        """
        tokens = (batch.tgt_out != PAD).sum()
        total = torch.zeros((), device=self.device)
        for part in own_parts(batch, self.training.accumulate):
            with self.precision():
                logits = self.model(part.src, part.tgt_in)
            loss = self.loss(logits.float(), part.tgt_out) / tokens
            loss.backward()
            total += loss.detach()
        add_over_processes([total, *(p.grad for p in self.model.parameters())])
        return total.item()

    def precision(self):
        """Inside `with`, matrix products run in bfloat16 if the training asks for it."""
        if self.training.precision == "bf16":
            return torch.autocast(self.device.type, torch.bfloat16)
        return nullcontext()

    def validates_after(self, step: int) -> bool:
        """After every 50th step (counted from 0) and the last one."""
        return (step + 1) % VALIDATE_EVERY == 0 or step + 1 == self.training.steps

    def validate(self) -> None:
        """Note the scores on the validation sequences."""
        loss, accuracy, exact, _ = evaluate(self.model, self.validation)
        scores = {"validation_loss": loss, "token_accuracy": accuracy, "exact_match": exact}
        self.history[-1] |= scores

    def state(self) -> dict[str, Any]:
        """Plain values and tensors from which load_run() goes on as if never interrupted."""
        return {
            "config": asdict(self.config),
            "training": asdict(self.training),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "history": self.history,
            "random": torch.get_rng_state(),
        }

    def load(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.history = list(state["history"])
        torch.set_rng_state(state["random"])


def gradient_norms(model: Transformer) -> dict[str, float]:
    """The norm of the gradient in the embedding and in every block of both stacks."""
    parts = {"embedding": model.embedding}
    for name, stack in (
        ("encoder", model.encoder),
        ("decoder", model.decoder),
    ):
        parts |= {
            f"{name} {number}": block
            for number, block in enumerate(stack.blocks)
        }
    return {
        f"gradient in {name}": torch.cat(
            [p.grad.flatten() for p in part.parameters()]
        )
        .norm()
        .item()
        for name, part in parts.items()
    }


def train(run: Run, path: Path | None = None) -> Run:
    """Train until the run is finished, or until Ctrl-C or SIGTERM; then run.finished is False.

    With a path the run is saved there after each validation, and when it ends. FloatingPointError,
    with the run saved as it was one step before, if the loss or the gradient stops being finite.
    """
    training, exact = run.training, "–"
    with progress(training.task, training.steps) as report, \
            interruptible() as interrupted:
        while not run.finished and not any_process(interrupted(), run.device):
            try:
                run.update()
            except FloatingPointError:
                save_run(run, path)
                raise
            done = len(run.history)
            if run.validates_after(done - 1):
                run.validate()
                exact = f"{run.history[-1]['exact_match']:.0%}"
                save_run(run, path)
            recent = run.history[-20:]
            speed = sum(r["tokens"] for r in recent) / sum(r["seconds"] for r in recent)
            report(done, f"{done}/{training.steps}, loss {recent[-1]['loss']:.3f}, "
                         f"exact {exact}, {speed:,.0f} tokens/s")
        save_run(run, path)
    return run


def recompute_blocks(model: Transformer) -> None:
    """Keep only what enters each block, and compute the rest again in backward (Chen et al. 2016)."""
    for block in (*model.encoder.blocks, *model.decoder.blocks):
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)


# ------------------------------------------------------------------ several processes (torchrun)


def own_parts(batch: Batch, accumulate: int) -> Iterator[Batch]:
    """This process's rows of the batch, cut into `accumulate` parts."""
    for part in range(accumulate):
        yield batch.rows(slice(RANK * accumulate + part, None, PROCESSES * accumulate))


def add_over_processes(tensors: list[Tensor]) -> None:
    """Replace each tensor by its sum over all processes."""
    if PROCESSES > 1:
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        distributed.all_reduce(flat)
        for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))


def own_device(name: str) -> torch.device:
    """pick_device(), and under torchrun with CUDA a GPU for every process."""
    device = pick_device(name)
    if PROCESSES > 1 and device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    return device


@contextmanager
def all_processes(device: torch.device) -> Iterator[None]:
    """Inside `with`, the processes that torchrun started work together; only the first one speaks."""
    if PROCESSES == 1:
        yield
        return
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere) if RANK else nullcontext():
        try:
            yield
        finally:
            distributed.destroy_process_group()


def any_process(flag: bool, device: torch.device) -> bool:
    """True if the flag is set in any process: they have to end together."""
    if PROCESSES == 1:
        return flag
    total = torch.tensor(float(flag), device=device)
    distributed.all_reduce(total)
    return total.item() > 0


# ------------------------------------------------------------------ keeping


def run_name(config: TransformerConfig, training: TrainingConfig) -> str:
    """The task and every option that isn't the default: runs that differ never share a file."""
    parts = [training.task]
    for ours, default in ((config, TransformerConfig()), (training, TrainingConfig(training.task))):
        parts += [f"{name}={value}" for name, value in asdict(ours).items()
                  if value != asdict(default)[name] and (name, value) != ("d_ff", 4 * config.d_model)]
    return "-".join(parts)


def save_run(run: Run, path: Path | None) -> None:
    """Write the run to `path`, whole or not at all; of several processes only the first writes.

    An unfinished run goes beside it, to …unfinished, and leaves a finished one at `path` alone.
    """
    if path is None or RANK:
        return
    target = path if run.finished else unfinished(path)
    content = io.BytesIO()
    torch.save(run.state(), content)
    write_atomically(target, lambda file: file.write(content.getvalue()))
    if run.finished:
        unfinished(path).unlink(missing_ok=True)


def unfinished(path: Path) -> Path:
    return path.with_name(path.name + ".unfinished")


def load_run(path: Path, device: torch.device) -> Run:
    """The run saved at `path`. ValueError, in one line, for anything else; no code in it is run."""
    content = io.BytesIO(path.read_bytes())
    try:
        state = torch.load(content, map_location="cpu", weights_only=True)
        run = Run(TransformerConfig(**state["config"]), TrainingConfig(**state["training"]), device)
        run.load(state)
    except Exception as error:  # a foreign file can fail in any way
        reason = str(error).partition("\n")[0][:80]
        message = f"{path} is not a checkpoint of this lesson ({type(error).__name__}: {reason})"
        raise ValueError(message) from error
    return run


def checkpoint_path(outputs: Path, config: TransformerConfig, training: TrainingConfig) -> Path:
    return outputs / f"checkpoint_{run_name(config, training)}.pt"


def load_or_train(task: str, outputs: Path, device: torch.device) -> Run:
    """The finished default run on `task`: from its checkpoint in `outputs`, else trained now."""
    config, training = TransformerConfig(), TrainingConfig(task)
    path = checkpoint_path(outputs, config, training)
    return load_run(path, device) if path.exists() else train(Run(config, training, device), path)


def write_history(history: list[dict[str, float]], path: Path) -> None:
    """The history as CSV, one line a step; scores stand in the lines of the validated steps."""
    columns = dict.fromkeys(name for record in history for name in record)
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    write_atomically(path, lambda file: file.write(text.getvalue().encode()))


# ------------------------------------------------------------------ broken on purpose


class WithoutCausalMask(Transformer):
    """Broken on purpose: the decoder sees the future."""

    def tgt_mask(self, length: int, device: torch.device) -> Tensor:
        return torch.ones_like(causal_mask(length, device))


class PaddingMaskInverted(Transformer):
    """Broken on purpose: the padding may be looked at, the digits may not."""

    def src_mask(self, src: Tensor) -> Tensor:
        return ~super().src_mask(src)


def broken_model(kind: type[Transformer]) -> type[Run]:
    """A run of a model that is broken on purpose."""

    class BrokenRun(Run):
        def make_model(self) -> Transformer:
            return kind(self.config)

    return BrokenRun


class WithoutShift(Run):
    """Broken on purpose: the decoder reads the very tokens that it should say."""

    def spoil(self, batch: Batch) -> Batch:
        return batch._replace(tgt_in=batch.tgt_out)


class LossOnPadding(Run):
    """Broken on purpose: PAD counts like any token."""

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")


class WithoutScaling(Run):
    """Broken on purpose: scores are not divided by √d_k."""

    def make_model(self) -> Transformer:
        model = super().make_model()
        for attention in model.modules():
            if hasattr(attention, "attend"):
                attention.attend = partial(attend_unscaled, attention.attend)
        return model


def attend_unscaled(attend: Callable, queries: Tensor, *others) -> tuple[Tensor, Tensor]:
    return attend(queries * math.sqrt(queries.shape[-1]), *others)


BROKEN: dict[str, tuple[type[Run], dict[str, Any]]] = {
    "right": (Run, {}),
    "no shift": (WithoutShift, {}),
    "no causal mask": (broken_model(WithoutCausalMask), {}),
    "no positions": (Run, {"positions": "none"}),
    "no scaling": (WithoutScaling, {}),
    "padding mask inverted": (broken_model(PaddingMaskInverted), {}),
    "loss on PAD": (LossOnPadding, {}),
    "post-norm, warm-up 100": (Run, {"norm": "post", "lr": 0.01, "warmup": 100}),
    "post-norm, no warm-up": (Run, {"norm": "post", "lr": 0.01, "warmup": 0}),
}


def shifted_the_other_way(answers: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Broken on purpose: the decoder reads what comes after the token it should say."""
    return teacher_forcing(answers)[::-1]


def not_shifted(answers: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Broken on purpose: input and target are the same."""
    return teacher_forcing(answers)[0], teacher_forcing(answers)[0]


def without_eos(answers: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Broken on purpose: the target does not end, so the model never learns to stop."""
    tgt_in, tgt_out = teacher_forcing(answers)
    return tgt_in, tgt_out.masked_fill(tgt_out == EOS, PAD)


def loss_on_padding(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Broken on purpose: PAD counts like any token."""
    return F.cross_entropy(logits.flatten(0, -2), targets.flatten(), reduction="sum",
                           label_smoothing=label_smoothing)


def mean_loss(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Broken on purpose: the mean over the batch's own tokens, where the sum was asked for."""
    return sequence_loss(logits, targets, label_smoothing) / (targets != PAD).sum()


class AdamWithoutCorrection(Adam):
    """Broken on purpose: the averages that start at 0 are not corrected."""

    def step(self) -> None:
        before, self.steps = self.steps, 10**9
        super().step()
        self.steps = before + 1


class AdamWithL2(Adam):
    """Broken on purpose: the decay goes through the gradient, so Adam divides it away again."""

    def step(self) -> None:
        decay, self.weight_decay = self.weight_decay, 0.0
        for parameter in self.parameters:
            parameter.grad = parameter.grad + decay * parameter.detach()
        super().step()
        self.weight_decay = decay


SHIFT_MISTAKES = {
    "input and target are swapped: the input begins with BOS, the target ends in EOS": (
        shifted_the_other_way
    ),
    "nothing is shifted: the target is one token ahead of the input": not_shifted,
    "EOS is missing: the model could never learn to stop": without_eos,
}
LOSS_MISTAKES = {
    "padding counts: leave out what has target PAD": loss_on_padding,
    "this is the mean; the sum was asked for": mean_loss,
}
ADAM_MISTAKES = {
    "the running means start at 0: divide them by 1 − βᵗ": AdamWithoutCorrection,
    "the decay is in the gradient (L2); AdamW shrinks the parameter itself": AdamWithL2,
}


# ------------------------------------------------------------------ the steps


class Experiment:
    """What the command line asked for, and the run that came of it."""

    def __init__(self, config: TransformerConfig, training: TrainingConfig,
                 options: argparse.Namespace):
        self.config, self.training, self.options = config, training, options
        self.device = own_device(options.device)
        self.name = run_name(config, training)
        self.checkpoint = checkpoint_path(options.outputs, config, training)

    def file(self, stem: str, ending: str = "png") -> str:
        """The file name; of any run but the default one it says what was different."""
        return f"{stem}.{ending}" if self.name == "reverse" else f"{stem}-{self.name}.{ending}"

    @cached_property
    def run(self) -> Run:
        """The finished run: just trained, or else from its checkpoint."""
        if self.checkpoint.exists():
            return self.load(self.checkpoint)
        return train(Run(self.config, self.training, self.device), self.checkpoint)

    def load(self, path: Path) -> Run:
        """The run saved there; ends the script in one line if it is none."""
        try:
            return load_run(path, self.device)
        except ValueError as error:
            stop(str(error))

    def fresh_or_resumed(self) -> Run:
        """A fresh run, or with --resume the one that was interrupted."""
        run = Run(self.config, self.training, self.device)
        if self.options.resume:
            left = unfinished(self.checkpoint)
            if not left.exists():
                stop(f"nothing to resume: there is no {short_path(left)}")
            run = self.load(left)
        return run


def text_of(ids: Tensor) -> str:
    """Ids as tokens, the special ones with their names."""
    return " ".join(tokenizer.token_of[id] for id in ids.tolist())


@shows(split_of)
def step_task(experiment: Experiment):
    """The task

    Sequences of 4 to 16 digits, and for each the answer: the digits reversed, copied, sorted, or the digits
    of their sum. All can be generated, so there is always more; and to know that the model learned the rule
    and not the examples, it is tested on sequences that it never saw. A checksum of the digits sends each
    sequence to training, validation or test, once and for all, in every run.
    """
    task = experiment.training.task
    batch = draw_batch(task, 5, "train", (experiment.options.seed,))
    rows = [("source " + str(row), text_of(ids)) for row, ids in enumerate(batch.src[:2])]
    rows += [("answer " + str(row), text_of(ids)) for row, ids in enumerate(batch.tgt_out[:2])]
    drawn = {split: {tuple(digits) for digits in draw_sequences(5000, split, (0, number))}
             for number, split in enumerate(("train", "validation", "test"))}
    apart = not (drawn["train"] & drawn["test"] or drawn["train"] & drawn["validation"]
                 or drawn["validation"] & drawn["test"])
    check("of 5,000 sequences for each split none is in two", apart)
    return table("", f"a batch of “{task}”", rows=rows)


@shows(teacher_forcing)
def step_teacher_forcing(experiment: Experiment):
    """Teacher forcing

    The decoder learns to continue: at each place it sees the right tokens so far and has to say the next
    one. So its input is the answer shifted by one place, with BOS (beginning of sequence) in front, and
    the target ends in EOS (end of sequence). PAD fills the shorter sequences of a batch. All places of
    all sequences are learned at once; the causal mask keeps each from reading its target in the input.
    When the trained model answers, nobody gives it the right tokens: it reads its own.
    """
    batch = make_batch(experiment.training.task, [[3, 1, 4, 1, 5]])
    check_all(prove_teacher_forcing(teacher_forcing))
    rows = [("source", text_of(batch.src[0])), ("decoder reads", text_of(batch.tgt_in[0])),
            ("… and should say", text_of(batch.tgt_out[0]))]
    return table("", "tokens", rows=rows)


@shows(Transformer.src_mask, Transformer.tgt_mask)
def step_masks(experiment: Experiment):
    """The three masks of a batch

    Here is a source of 3 digits in a batch with one of 5. The encoder must not look at the two PADs, and
    neither must cross-attention; the decoder must not look ahead. The PADs behind the decoder's input need
    no mask: they are in the future of every real token, and the loss leaves their own outputs out.
    """
    batch = make_batch(experiment.training.task, [[1, 2, 3, 4, 5], [6, 7, 8]])
    source, target = batch.src.shape[1], batch.tgt_in.shape[1]
    padding = padding_mask(batch.src, PAD)[1, 0]  # (1, S)
    columns = [mask_rows(padding.expand(source, -1)), mask_rows(causal_mask(target)),
               mask_rows(padding.expand(target, -1))]
    rows = zip_longest(*columns, fillvalue="")
    model = Transformer(experiment.config).eval()
    wider = Batch(*(F.pad(tensor, (0, 7), value=PAD) for tensor in batch))
    gap = largest_difference(model(wider.src, wider.tgt_in)[:, :target], model(batch.src, batch.tgt_in))
    check("seven more PADs everywhere change no logit", gap < 1e-5, f"largest difference {gap:.0e}")
    return table("encoder (S × S)", "decoder, itself (T × T)", "decoder, source (T × S)", rows=rows)


@shows(Transformer.forward, Transformer.encode, Transformer.decode, Transformer.embed)
def step_the_model(experiment: Experiment):
    """The whole model

    Two stacks, one embedding for source and target, and the same matrix once more to turn the decoder's
    vectors into a score for every token. With PyTorch's own nn.Transformer between the same embedding and
    the same output it has to give the same logits and gradients. `cache` is None until lesson 6.
    """
    check_all(prove_transformer(Transformer))
    model = Transformer(experiment.config)
    parts = {"embedding, also output": model.embedding, "encoder": model.encoder,
             "decoder": model.decoder, "all": model}
    return table("part", "parameters", rows=[(name, parameters(part)) for name, part in parts.items()])


@shows(sequence_loss)
def step_loss(experiment: Experiment):
    """The loss, before anything is learned

    The loss is −log of the probability given to the right token. A model that knows nothing spreads it
    over all V tokens: ln V. Ours starts a little above, because its first guesses are not quite even. (The
    gain of its last norm starts small. At 1, the shared matrix would make it begin by repeating its input.)
    Padding must count nothing: the loss of a batch is the sum over its sequences, and training divides it
    by the number of real tokens. Label smoothing asks for a little probability everywhere; then even a
    perfect model has a loss, the entropy of its target.
    """
    batch = draw_batch(experiment.training.task, 200, "train", (1,))
    model = Transformer(experiment.config).eval()
    with torch.no_grad():
        logits = model(batch.src, batch.tgt_in)
    loss = (sequence_loss(logits, batch.tgt_out) / (batch.tgt_out != PAD).sum()).item()
    floor = math.log(len(tokenizer))
    check("the untrained loss is near ln V", abs(loss - floor) < 1, f"{loss:.2f}; ln V = {floor:.2f}")
    if experiment.config.norm == "pre":
        nn.init.ones_(model.decoder.norm.gain)
        with torch.no_grad():
            repeating = model(batch.src, batch.tgt_in).argmax(-1) == batch.tgt_in
        share = repeating[batch.tgt_in != PAD].float().mean().item()
        check("with the last gain at 1 it would repeat most of its input", share > 0.5, f"{share:.0%}")
    check_all(prove_sequence_loss(sequence_loss))
    smoothing, size = 0.1, len(tokenizer)
    target = torch.full((size,), smoothing / size)
    target[3] += 1 - smoothing
    best = target.log()[None, None].requires_grad_()  # the logits of a perfect model
    lowest = sequence_loss(best, torch.tensor([[3]]), smoothing)
    entropy = -(target * target.log()).sum().item()
    check("smoothing 0.1: a perfect model's loss is the entropy of the target",
          abs(lowest.item() - entropy) < 1e-5, f"{lowest.item():.4f}")
    check("… and its gradient is 0: it is the lowest", gradients(lowest, [best]).abs().max() < 1e-6)


@shows(Adam.step)
def step_adam(experiment: Experiment):
    """Adam

    Plain gradient descent takes big steps where the gradient is big. Adam divides by the gradient's usual
    size, per number: each moves by about the learning rate, in the direction that the last gradients
    agree on. AdamW also shrinks every weight a little in each step. The training below uses PyTorch's
    own, fused into one kernel; here is ours beside it.
    """
    check_all(prove_adam(Adam))


@shows(learning_rate)
def step_schedule(experiment: Experiment):
    """The learning rate, step by step

    First up: at the start small steps are safer. Pre-norm would learn without (lesson 4); a short warm-up
    costs little, and lets post-norm learn, too. Then down: near the end, large steps would only shake
    what was learned. The paper falls with one over the root of the step number; for a run whose length is
    known, a straight line to 0 does well. (The paper's rate peaks at (d_model · warmup)^−½, far higher
    with so short a warm-up.)
    """
    training = experiment.training
    rates = {}
    for schedule in ("linear", "inverse_sqrt"):
        kind = replace(training, schedule=schedule)
        rates[schedule] = [learning_rate(step, kind, experiment.config.d_model)
                           for step in range(training.steps)]
    check_all(prove_learning_rate(learning_rate))
    return Picture(experiment.file("training_schedule"), draw_schedule(rates))


def step_overfit(experiment: Experiment):
    """One batch by heart

    The first thing to try with any new model: can it learn eight sequences by heart? If not, something is
    wrong that no amount of data will mend. No schedule, no clipping, our own Adam.
    """
    batch = draw_batch(experiment.training.task, 8, "train", (2,))
    model, losses = Transformer(experiment.config), []
    optimizer = Adam(model.parameters(), lr=3e-3)
    for _ in range(150):
        loss = sequence_loss(model(batch.src, batch.tgt_in), batch.tgt_out)
        loss = loss / (batch.tgt_out != PAD).sum()
        model.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    exact = evaluate(model, batch).exact_match
    if experiment.config == TransformerConfig():
        check(
            "after 150 steps it answers all eight",
            exact == 1,
            f"exact match {exact:.0%}",
        )
    rows = [(step, losses[step - 1]) for step in (1, 10, 50, 100, 150)]
    return table("step", "loss", rows=rows)


@shows(Run.update)
def step_training(experiment: Experiment):
    """Training

    The same loop, with new sequences in every step, and with the schedule. If the gradient of all
    parameters together is longer than 1, it is shortened to 1, its direction stays (clipping). Every 50
    steps 100 validation sequences are answered, free-running: the model reads what it wrote itself.
    “exact” is the share of whole answers that are right. All numbers go to a CSV file, too.
    """
    options, device = experiment.options, experiment.device
    run = experiment.fresh_or_resumed()
    before = len(run.history)
    try:
        train(run, experiment.checkpoint)
    except FloatingPointError as error:
        stop(f"{error}; try a smaller --lr or a longer --warmup. "
             f"The state before is in {short_path(unfinished(experiment.checkpoint))}")
    experiment.run = run
    seconds = sum(record["seconds"] for record in run.history)
    write_history(run.history, options.outputs / experiment.file("history", "csv"))
    picture = Picture(experiment.file("training_progress"), draw_training(run))
    if not run.finished:
        script = f"python {Path(__file__).name}"
        return picture, EndHere(f"interrupted after step {len(run.history)} of {run.training.steps}; "
                                f"to go on: the same command with --resume ({script} …)", 130)
    loss = run.history[-1]["loss"]
    check("the loss fell", loss < run.history[0]["loss"], f"{run.history[0]['loss']:.2f} to {loss:.4f}")
    facts = [f"{len(run.history) - before} steps on {device}: {seconds:.1f} s in the steps themselves"]
    first = [r["step"] for r in run.history if r.get("exact_match") == 1]
    if first:
        facts.append(f"first validation without an error: after step {first[0]}")
    return "\n".join(facts), picture


@shows(free_running)
def step_two_accuracies(experiment: Experiment):
    """Two accuracies

    With teacher forcing, single tokens are counted, each after a perfect beginning. Free-running, the model
    goes on from its own tokens, and one wrong token spoils the answer: if each is right with probability
    0.99, independently, of answers with 16 tokens 0.99^16 = 85 % are right. So the second number is the
    one to trust: exact match, free-running, on 2,000 test sequences. The last three rows are longer than
    anything trained.
    """
    run = experiment.run
    model, task = run.model.eval(), run.training.task
    batch = draw_batch(task, TEST_SIZE, "test", (run.training.seed,)).to(run.device)
    scores = evaluate(model, batch)
    with torch.no_grad():
        right = (model(batch.src, batch.tgt_in).argmax(-1) == batch.tgt_out).cpu()
    real, lengths = (batch.tgt_out != PAD).cpu(), (batch.src != PAD).sum(1).cpu()
    rows = []
    for low, high in ((4, 8), (9, 12), (13, 16), LENGTHS):
        part = (lengths >= low) & (lengths <= high)
        tokens, exact = right[part][real[part]], scores.exact[part]
        rows.append((f"{low} to {high}", len(exact), tokens.float().mean(), exact.float().mean()))
    for low, high in ((17, 18), (19, 20), (21, 24)):
        longer = make_batch(task, draw_sequences(200, "test", (low,), (low, high)))
        part = evaluate(model, longer.to(run.device))
        rows.append((f"{low} to {high}", 200, part.token_accuracy, part.exact_match))
    longer = make_batch(task, draw_sequences(200, "test", (17,), (17, 18))).to(run.device)
    with torch.no_grad():
        forced = model(longer.src, longer.tgt_in).argmax(-1)
    forced_right = ((forced == longer.tgt_out) | (longer.tgt_out == PAD)).all(dim=1).cpu()
    alone_right = evaluate(model, longer).exact
    check("17 and 18 digits: an answer is right exactly where every teacher-forced token is",
          torch.equal(forced_right, alone_right), f"{alone_right.sum()} of 200")
    if experiment.name in ("reverse", "copy"):
        check("all 2,000 answers to test sequences are right",
              scores.exact_match == 1, f"exact match {scores.exact_match:.2%}")
    shown = [(name, count, f"{token:.2%}", f"{exact:.2%}") for name, count, token, exact in rows]
    return table("length", "sequences", "tokens, teacher forcing", "exact match, free-running", rows=shown)


PARTNER: dict[str, Callable[[int, int], int]] = {  # where token t of the answer stands in the source
    "reverse": lambda t, length: length - 1 - t,
    "copy": lambda t, length: t,
}


def mass_on_partner(weights: Tensor, task: str) -> Tensor:
    """weights (B, H, T, S) → (H,): the mean weight on the digit that has to be written next."""
    length = weights.shape[-1]
    partners = torch.tensor([PARTNER[task](t, length) for t in range(length)])
    return weights[:, :, torch.arange(length), partners].mean(dim=(0, 2))


@shows(mass_on_partner)
def step_attention_patterns(experiment: Experiment):
    """Where the model looks

    To write the next digit of a reversed sequence, the decoder has to find it from the end of the source:
    in cross-attention that is an anti-diagonal (for copy: a diagonal). Which heads do it, and in which
    block, is up to the training. For these two tasks a table gives the mean weight on exactly that digit,
    over 50 test sequences of 10 digits; a head that looks everywhere alike would put 0.10 there. The figure
    shows what the other heads do.
    """
    run = experiment.run
    run.model.eval()
    task = run.training.task
    batch = make_batch(task, draw_sequences(50, "test", (3,), (10, 10))).to(run.device)
    with torch.no_grad(), record_attention(run.model) as weights:
        run.model(batch.src, batch.tgt_in)
    file = experiment.file("transformer_attention_patterns")
    picture = Picture(file, draw_patterns(weights, batch, run.config))
    if task not in PARTNER:
        return picture
    rows, best = [], 0.0
    for layer in range(run.config.n_layers):
        mass = mass_on_partner(weights[f"decoder.blocks.{layer}.cross_attention"], task)
        best = max(best, mass.max().item())
        rows.append((f"cross-attention, block {layer}", *mass.tolist()))
    if experiment.name == task:
        check("one head puts most of its weight on the digit to write", best > 0.5, f"{best:.2f}")
    return table("", *(f"head {head}" for head in range(run.config.n_heads)), rows=rows), picture


@shows(gradient_norms)
def step_gradient_flow(experiment: Experiment):
    """Does every layer learn?

    The norm of the gradient in each block, before clipping, noted at every validation. With pre-norm and
    residual paths no block is left out: at every moment of the training, all norms are of one order. They
    say who is pushed, not how fast the loss falls: it falls fastest before they peak.
    """
    run = experiment.run
    noted = [record for record in run.history if "exact_match" in record]
    norms = [[norm for name, norm in record.items() if name.startswith("gradient in")] for record in noted]
    ratio = max(max(record) / min(record) for record in norms)
    if experiment.name in ("reverse", "copy"):
        check("at no validation does the largest exceed 20 times the smallest", ratio < 20, f"{ratio:.1f}")
        largest = max(noted, key=lambda record: max(norm for name, norm in record.items()
                                                    if name.startswith("gradient in")))
        gone = 1 - largest["loss"] / run.history[0]["loss"]
        check("when they peak, most of the loss is gone", gone > 0.5, f"{gone:.0%}, step {largest['step']}")
    return Picture(experiment.file("training_gradient_flow"), draw_gradient_flow(noted))


@shows()
def step_broken_on_purpose(experiment: Experiment):
    """Broken on purpose

    Two mistakes that look like success. Without the shift the decoder reads the very token that it should
    say; without the causal mask it reads it one place further on. Both learn to copy their input. With
    teacher forcing they beat the right model, in loss and accuracy; when they have to answer by themselves,
    nothing is there to copy. All three learned reverse for 200 steps:
    """
    training = TrainingConfig("reverse", steps=200)
    results = train_broken(["right", "no causal mask", "no shift"], TransformerConfig(), training,
                           experiment.device)
    right = results["right"]
    for name in ("no causal mask", "no shift"):
        loss, token_accuracy, exact_match, _ = results[name]
        better = loss < right.loss and token_accuracy > right.token_accuracy
        check(f"{name}: better than right with teacher forcing, useless alone",
              better and exact_match < 0.05 < right.exact_match)
    check_caught("WithoutCausalMask", prove_transformer(WithoutCausalMask), "Other tokens to come")
    return broken_table(results)


@shows()
def step_all_broken(experiment: Experiment):
    """Every way to break it

    Each variant is trained for 400 steps (or --steps), with the same data and seed. Compare the two
    accuracies with those of the right run; each bug has its signature:

    No shift, no causal mask: teacher forcing looks perfect, free-running gives nothing. No positions:
    single tokens are guessed above chance, whole answers are not. Padding mask inverted: the loss stays
    near that of guessing, for no digit of the source can be seen. No scaling, loss on PAD: nearly as good
    as right, in this small model; only a proof finds them. Post-norm at a learning rate of 0.01 without a
    warm-up: stuck from the start, and with one it learns.
    """
    training = replace(experiment.training, steps=experiment.options.steps or 400)
    results = train_broken(list(BROKEN), experiment.config, training, experiment.device)
    if experiment.name in ("reverse", "copy"):
        scores = {name: (result.token_accuracy, result.exact_match) for name, result in results.items()}
        for name in ("no shift", "no causal mask"):
            check(f"{name}: perfect with teacher forcing, useless alone",
                  scores[name][0] > 0.99 and scores[name][1] < 0.01)
        for name in ("no positions", "padding mask inverted", "post-norm, no warm-up"):
            check(f"{name}: next to no answer is right", scores[name][1] < 0.1)
        for name in ("right", "no scaling", "loss on PAD", "post-norm, warm-up 100"):
            check(f"{name}: nearly all answers are right", scores[name][1] > 0.95)
    return broken_table(results), Picture("training_broken.png", draw_broken(results))


def train_broken(
    names: list[str], config: TransformerConfig, training: TrainingConfig, device: torch.device
) -> dict[str, Scores]:
    """The scores of each variant on 500 test sequences, after `training`."""
    results = {}
    batch = draw_batch(training.task, 500, "test", (0,)).to(device)
    for name in names:
        kind, changes = BROKEN[name]
        sizes = {key: value for key, value in changes.items() if hasattr(config, key)}
        other = {key: value for key, value in changes.items() if key not in sizes}
        run = kind(replace(config, **sizes), replace(training, **other), device)
        while not run.finished:
            run.update()
        results[name] = evaluate(run.model, run.spoil(batch))
    return results


def broken_table(results: dict[str, Scores]):
    rows = [(name, scores.loss, f"{scores.token_accuracy:.1%}", f"{scores.exact_match:.1%}")
            for name, scores in results.items()]
    return table("", "test loss", "tokens, teacher forcing", "exact match", rows=rows)


@shows()
def step_compare(experiment: Experiment):
    """Compared

    The same data in the same order for every value; with --seeds, several seeds each.
    """
    name, values = experiment.options.compare
    rows, curves = [], {}
    batch = draw_batch(experiment.training.task, 1000, "test", (0,)).to(
        experiment.device
    )
    for value in values:
        exact, seconds = [], []
        for seed in range(experiment.options.seeds):
            config, training = changed(experiment, name, value, seed)
            run = train(Run(config, training, experiment.device))
            exact.append(evaluate(run.model, batch).exact_match)
            seconds.append(sum(record["seconds"] for record in run.history))
            curves.setdefault(value, []).append(run.history)
        spread = (
            f"{min(exact):.1%} to {max(exact):.1%}"
            if len(exact) > 1
            else f"{exact[0]:.1%}"
        )
        rows.append(
            (
                str(value),
                parameters(run.model),
                f"{sum(seconds) / len(seconds):.1f}",
                spread,
            )
        )
    picture = Picture(
        f"training_compare_{name}.png", draw_comparison(name, curves)
    )
    return table(name, "parameters", "seconds", "exact match", rows=rows), picture


def changed(experiment: Experiment, name: str, value: Any, seed: int
            ) -> tuple[TransformerConfig, TrainingConfig]:
    """The experiment's settings with one of them changed; ValueError if that makes no sense."""
    config, training = experiment.config, replace(experiment.training, seed=seed)
    if hasattr(config, name):
        return replace(config, **({"d_ff": 0} if name == "d_model" else {}), **{name: value}), training
    return config, replace(training, **{name: value})


def step_what_next(experiment: Experiment):
    """What now?

    Read: Transformer, then Run.update and train; what surrounds them is bookkeeping.

    Change: (1) --positions none: see what is left of reverse. (2) --norm post --lr 0.01 --warmup 0, then
    with --warmup 100: the first doesn't learn. (3) Add a task: one function from digits to digits, one line
    in TASKS, then --task with its name. Also: --task copy, sort or sum, --broken, and
    --compare n_heads=1,2,4,8.

    Write it yourself: --template my_training.py, then --grade my_training.py.
    Next: python 06_decoding.py, where the model answers in every way there is.
    """


# ------------------------------------------------------------------ the proofs


def prove_teacher_forcing(implementation) -> list[Proof]:
    """What holds for every teacher_forcing(answers) → (tgt_in, tgt_out)."""
    answers = [[7, 8, 9], [5], [6, 6]]
    tgt_in = torch.tensor([[BOS, 7, 8, 9], [BOS, 5, PAD, PAD], [BOS, 6, 6, PAD]])
    tgt_out = torch.tensor([[7, 8, 9, EOS], [5, EOS, PAD, PAD], [6, 6, EOS, PAD]])

    def compare(part: int, expected: Tensor):
        wrong = {text: kind(answers)[part] for text, kind in SHIFT_MISTAKES.items()
                 if agree(implementation(answers)[1 - part], kind(answers)[1 - part]).holds}
        return agree(implementation(answers)[part], expected, 0, wrong)

    def input_begins_with_bos():
        """The input is BOS, then the answer, then PAD."""
        return compare(0, tgt_in)

    def target_ends_in_eos():
        """The target is the answer, then EOS, then PAD: one place ahead of the input."""
        return compare(1, tgt_out)

    return prove(input_begins_with_bos, target_ends_in_eos)


def prove_sequence_loss(implementation) -> list[Proof]:
    """What holds for every sequence_loss(logits, targets, label_smoothing=0.0)."""
    (logits,) = random_tensors((3, 5, 7))
    targets = torch.tensor([[3, 4, 5, 6, EOS], [3, EOS, PAD, PAD, PAD], [5, 5, EOS, PAD, PAD]])

    def expect(smoothing: float):
        expected = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=PAD,
                                   label_smoothing=smoothing, reduction="sum")
        wrong = {text: kind(logits, targets, smoothing) for text, kind in LOSS_MISTAKES.items()}
        return agree(implementation(logits, targets, smoothing), expected, 1e-10, wrong)

    def equals_pytorch():
        """It equals the sum of nn.functional.cross_entropy without PAD."""
        return expect(0.0)

    def smooths_labels():
        """… also with label smoothing."""
        return expect(0.1)

    def is_the_sum_of_the_single_ones():
        """The loss of a padded batch is the sum of the losses of its sequences, unpadded."""
        lengths = (targets != PAD).sum(1).tolist()
        single = [implementation(logits[[i], :n], targets[[i], :n]) for i, n in enumerate(lengths)]
        return agree(implementation(logits, targets), torch.stack(single).sum())

    def ignores_padding():
        """Logits where the target is PAD have gradient 0."""
        leaf = logits.clone().requires_grad_()
        gradient = gradients(implementation(leaf, targets), [leaf]).view_as(leaf)
        hint = "leave out what has target PAD"
        return agree(gradient[targets == PAD], torch.zeros(5, 7), 0)._replace(diagnosis=hint)

    return prove(equals_pytorch, smooths_labels, is_the_sum_of_the_single_ones, ignores_padding)


def prove_adam(implementation) -> list[Proof]:
    """What holds for every Adam(parameters, lr, betas, eps, weight_decay) with step()."""

    def after(steps: int, make_optimizer) -> Tensor:
        """Two parameters after some steps on a bumpy function."""
        leaves = [tensor.requires_grad_() for tensor in random_tensors((4, 3), (5,))]
        optimizer = make_optimizer(leaves)
        for _ in range(steps):
            for leaf in leaves:
                leaf.grad = None
            sum((leaf.sin() + 0.1 * leaf**2).sum() for leaf in leaves).backward()
            optimizer.step()
        return torch.cat([leaf.detach().flatten() for leaf in leaves])

    def expect(steps: int, decay: float):
        expected = after(steps, partial(torch.optim.AdamW, lr=0.05, weight_decay=decay))
        options = {"lr": 0.05, "weight_decay": decay}
        wrong = {text: after(steps, partial(kind, **options)) for text, kind in ADAM_MISTAKES.items()}
        return agree(after(steps, partial(implementation, **options)), expected, 1e-10, wrong)

    def first_step():
        """The first step equals torch.optim.Adam's."""
        return expect(1, 0.0)

    def fifty_steps():
        """… and so does every number after 50 steps."""
        return expect(50, 0.0)

    def honours_betas_and_eps():
        """… and with betas (0.5, 0.8) and eps 0.1."""
        options = {"lr": 0.05, "betas": (0.5, 0.8), "eps": 0.1}
        expected = after(50, partial(torch.optim.Adam, **options))
        return agree(after(50, partial(implementation, **options)), expected)

    def decays():
        """With decoupled weight decay it equals torch.optim.AdamW after 50 steps."""
        return expect(50, 0.3)

    return prove(first_step, fifty_steps, honours_betas_and_eps, decays)


class Reference(nn.Module):
    """nn.Transformer between our embedding and our logits."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.embedding = TokenEmbedding(config.vocab_size, config.d_model)
        self.positions = SinusoidalPositionalEncoding(config.d_model, config.max_len)
        sizes = config.d_model, config.n_heads, config.d_ff, config.dropout, config.activation
        options = {"batch_first": True, "norm_first": config.norm == "pre"}
        # nn.Transformer ends post-norm stacks in one more norm, the paper doesn't: so we give it our own
        norms = [nn.LayerNorm(config.d_model) if config.norm == "pre" else None for _ in range(2)]
        encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(*sizes, **options), config.n_layers,
                                        norms[0], enable_nested_tensor=False)
        decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(*sizes, **options), config.n_layers,
                                        norms[1])
        self.stacks = nn.Transformer(config.d_model, config.n_heads, custom_encoder=encoder,
                                     custom_decoder=decoder, **options)

    def forward(self, src: Tensor, tgt: Tensor) -> Tensor:
        hidden = src == PAD
        x, y = self.positions(self.embedding(src)), self.positions(self.embedding(tgt))
        y = self.stacks(x, y, tgt_mask=~causal_mask(tgt.shape[1], tgt.device),
                        src_key_padding_mask=hidden, memory_key_padding_mask=hidden)
        return self.embedding.logits(y)


def copy_transformer(ours: nn.Module, theirs: Reference) -> nn.Module:
    """`ours` with the weights of the reference."""
    with torch.no_grad():
        ours.embedding.weight.copy_(theirs.embedding.weight)
    copy_stack(ours.encoder, theirs.stacks.encoder)
    copy_stack(ours.decoder, theirs.stacks.decoder)
    return ours


def prove_transformer(implementation) -> list[Proof]:
    """What holds for every Transformer(config) with embedding, encoder and decoder."""
    batch = make_batch("reverse", [[1, 2, 3, 4, 5], [6, 7, 8]])

    def expect(norm: str):
        config = TransformerConfig(d_model=16, n_heads=2, n_layers=2, norm=norm)
        theirs = Reference(config).double()
        ours = copy_transformer(implementation(config).double(), theirs)
        found, expected = (model(batch.src, batch.tgt_in) for model in (ours, theirs))
        finding = agree(found, expected)
        if not finding.holds:
            return finding
        found.sin().sum().backward()
        expected.sin().sum().backward()
        return gradients_agree(ours, theirs, copy_transformer)

    def pre_norm():
        """With the same weights it equals nn.Transformer, logits and gradients (pre-norm)."""
        return expect("pre")

    def post_norm():
        """… and with post-norm, as in the paper: without nn.Transformer's two extra last norms."""
        return expect("post")

    def hides_the_future():
        """Other tokens to come change no logit, bit for bit."""
        model = implementation(TransformerConfig(d_model=16, n_heads=2)).double()
        other = batch.tgt_in.clone()
        other[:, 3:] = ZERO
        return agree(model(batch.src, other)[:, :3], model(batch.src, batch.tgt_in)[:, :3], 0)

    def obeys_positions():
        """Two digits of the source exchanged change the logits, unless positions are “none”."""
        exchanged = batch.src[:, [1, 0, *range(2, batch.src.shape[1])]]
        for positions in ("none", "sinusoidal", "learned", "rotary"):
            torch.manual_seed(0)
            config = TransformerConfig(d_model=16, n_heads=2, positions=positions)
            model = implementation(config).double()
            gap = largest_difference(model(exchanged, batch.tgt_in), model(batch.src, batch.tgt_in))
            if (gap > 1e-10) == (positions == "none"):
                return Finding(False, f"{positions}: {gap:.0e}", "build what config.positions says")
        return Finding(True)

    def begins_near_guessing():
        """Untrained, its loss is within 0.3 of ln V."""
        torch.manual_seed(0)
        fresh = make_batch("copy", draw_sequences(64, "train", (0,)))
        logits = implementation(TransformerConfig())(fresh.src, fresh.tgt_in)
        loss = F.cross_entropy(logits.flatten(0, 1), fresh.tgt_out.flatten(), ignore_index=PAD).item()
        expected = math.log(len(tokenizer))
        return Finding(abs(loss - expected) < 0.3, f"{loss:.2f}, ln V = {expected:.2f}",
                       "start the gain of the last norm at d_model^−½")

    return prove(pre_norm, post_norm, hides_the_future, obeys_positions, begins_near_guessing)


def prove_learning_rate(implementation) -> list[Proof]:
    """What holds for every learning_rate(step, training, d_model)."""

    def rises_and_falls():
        """linear: up to lr in the warm-up, down to lr / (steps − warmup) in the last step."""
        training = TrainingConfig(steps=100, warmup=20, lr=0.5)
        found = torch.tensor([implementation(step, training, 64) for step in range(100)])
        up = [0.5 * (step + 1) / 20 for step in range(20)]
        down = [0.5 * (100 - step) / 80 for step in range(20, 100)]
        late = {"the warm-up is one step late: step 0 has a rate, too": torch.tensor(
            [0.5 * step / 20 for step in range(20)] + down)}
        return agree(found, torch.tensor(up + down), 1e-7, late)

    def follows_the_paper():
        """inverse_sqrt: d_model^−½ · min(n^−½, n · warmup^−3/2), n = 1, 2, …, for d_model 64 and 16."""
        training = TrainingConfig(steps=100, warmup=20, schedule="inverse_sqrt")
        found = torch.tensor([[implementation(step, training, width) for step in range(100)]
                              for width in (64, 16)])
        n = torch.arange(1, 101).double()
        curve = torch.minimum(n**-0.5, n * 20**-1.5)
        return agree(found, torch.stack([curve / 8, curve / 4]), 1e-7)

    return prove(rises_and_falls, follows_the_paper)


GRADED = {
    "Transformer": prove_transformer,
    "teacher_forcing": prove_teacher_forcing,
    "sequence_loss": prove_sequence_loss,
    "Adam": prove_adam,
    "learning_rate": prove_learning_rate,
}


# ------------------------------------------------------------------ the figures


def draw_schedule(rates: dict[str, list[float]]):
    figure, axes = canvas(width=6, height=3)
    for schedule, values in rates.items():
        axes.plot(range(1, len(values) + 1), values, label=schedule)
    axes.set(xlabel="step", ylabel="learning rate", title="Up, then down: in a line, or as in the paper")
    axes.legend()
    return figure


def column(history: list[dict[str, float]], name: str) -> tuple[list[float], list[float]]:
    """(steps, values) of the records that have `name`."""
    records = [record for record in history if name in record]
    return [record["step"] for record in records], [record[name] for record in records]


def draw_training(run: Run):
    figure, axes = canvas(rows=2, columns=2, width=9, height=5.6)
    history, name = run.history, run.training.task
    (loss, accuracy), (rate, norm) = axes
    loss.semilogy(*column(history, "loss"), label="training", alpha=0.7)
    loss.semilogy(*column(history, "validation_loss"), marker="o", markersize=4, label="validation")
    loss.set(title=f"The loss falls to {history[-1]['loss']:.2g}", ylabel="loss per token")
    loss.legend()
    accuracy.plot(*column(history, "token_accuracy"), marker="s", markersize=4,
                  label="tokens, teacher forcing")
    accuracy.plot(*column(history, "exact_match"), marker="o", markersize=4,
                  label="exact match, free-running")
    accuracy.set(ylim=(0, 1.03), title="Single tokens are right long before whole answers")
    accuracy.legend()
    rate.plot(*column(history, "learning_rate"))
    rate.set_title("Learning rate: warm-up, then down")
    norm.semilogy(*column(history, "gradient_norm"), alpha=0.7)
    norm.axhline(run.training.clip, linestyle="--", color="gray", label="clipped above")
    norm.set_title("Norm of the gradient")
    norm.legend(loc="lower left")
    for panel in axes.flat:
        panel.set_xlabel("step")
    figure.suptitle(f"Learning to {name}" if name != "sum" else "Learning to add")
    return figure


def draw_patterns(weights: dict[str, Tensor], batch: Batch, config: TransformerConfig):
    """Every layer a column, every head a row, for the first sequence of the batch."""
    source = text_of(batch.src[0]).split()
    target = text_of(batch.tgt_in[0]).split()
    kinds = {"encoder": ("encoder.blocks.{}.self_attention", source, source),
             "decoder": ("decoder.blocks.{}.self_attention", target, target),
             "cross": ("decoder.blocks.{}.cross_attention", target, source)}
    columns = [(f"{kind}, block {layer}", names[0].format(layer), *names[1:])
               for kind, names in kinds.items() for layer in range(config.n_layers)]
    figure, axes = canvas(rows=config.n_heads, columns=len(columns), width=2.3 * len(columns),
                          height=2.45 * config.n_heads, squeeze=False)
    for number, (title, name, rows, tokens) in enumerate(columns):
        for head in range(config.n_heads):
            panel = axes[head, number]
            heatmap(panel, weights[name][0, head], rows, tokens, title if head == 0 else "")
            panel.tick_params(labelsize=7, rotation=0, pad=-2)
            if number == 0:
                panel.set_ylabel(f"head {head}")
    figure.suptitle("Which token looks where: rows ask, columns answer")
    return figure


def draw_gradient_flow(noted: list[dict[str, float]]):
    figure, axes = canvas(width=7, height=3.6)
    names = [name for name in noted[0] if name.startswith("gradient in")]
    styles = {"embedding": ":", "encoder": "-", "decoder": "--"}
    for name in names:
        part = name.removeprefix("gradient in ")
        axes.semilogy(*column(noted, name), linestyle=styles[part.split()[0]], label=part)
    axes.set(xlabel="step", ylabel="norm of the gradient",
             title="Every block receives a gradient, from the first to the last")
    axes.legend()
    return figure


def draw_broken(results: dict[str, Scores]):
    figure, axes = canvas(width=8, height=4)
    places = np.arange(len(results))
    for offset, attribute, label in ((-0.2, "token_accuracy", "tokens, teacher forcing"),
                                     (0.2, "exact_match", "exact match, free-running")):
        axes.barh(places + offset, [getattr(s, attribute) for s in results.values()], 0.4, label=label)
    axes.set_yticks(places, list(results))
    axes.invert_yaxis()
    axes.set(xlim=(0, 1), title="Teacher forcing hides what free running shows")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, -0.25), ncols=2)
    return figure


def draw_comparison(name: str, curves: dict[Any, list[list[dict[str, float]]]]):
    figure, axes = canvas(columns=2, width=9, height=3.6)
    for number, (value, histories) in enumerate(curves.items()):
        for panel, measure in zip(axes, ("validation_loss", "exact_match"), strict=True):
            for run, history in enumerate(histories):
                panel.plot(*column(history, measure), color=f"C{number}", alpha=0.8,
                           label=f"{name} = {value}" if run == 0 else None)
            panel.set_xlabel("step")
    axes[0].set_yscale("log")
    axes[0].set_title("Validation loss")
    axes[1].set_title("Exact match on validation sequences")
    axes[1].legend()
    return figure


# ------------------------------------------------------------------ the command line


def add_options(parser: argparse.ArgumentParser, config: type) -> None:
    """An option for every field that has a help text."""
    aliases = {"n_heads": ["--heads"], "n_layers": ["--layers"]}
    for setting in fields(config):
        if "help" in setting.metadata:
            names = ["--" + setting.name.replace("_", "-"), *aliases.get(setting.name, ())]
            text = f"{setting.metadata['help']} (default: {setting.default})"
            if isinstance(setting.default, bool):
                parser.add_argument(*names, dest=setting.name, action="store_true",
                                    help=setting.metadata["help"])
            else:
                parser.add_argument(*names, dest=setting.name, type=type(setting.default),
                                    default=setting.default, help=text)


def chosen(config: type, options: argparse.Namespace) -> Any:
    """The dataclass with the values from the command line."""
    names = [setting.name for setting in fields(config) if hasattr(options, setting.name)]
    return config(**{name: getattr(options, name) for name in names})


COMPARABLE = ("n_heads", "n_layers", "d_model", "norm", "positions", "warmup", "label_smoothing",
              "batch_size", "dropout", "lr", "schedule", "weight_decay", "activation")


def comparison(text: str) -> tuple[str, list[Any]]:
    """“n_heads=1,2,4” → ("n_heads", [1, 2, 4])."""
    name, _, values = text.partition("=")
    if name not in COMPARABLE or not values:
        raise argparse.ArgumentTypeError(f"{text!r}: give NAME=VALUE,VALUE,… with one of "
                                         + ", ".join(COMPARABLE))
    kinds = {setting.name: type(setting.default)
             for config in (TransformerConfig, TrainingConfig) for setting in fields(config)}
    try:
        return name, [kinds[name](value) for value in values.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from error


def count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def main():
    parser = lesson_parser(__doc__, GRADED)
    add_options(parser, TransformerConfig)
    add_options(parser, TrainingConfig)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (default: auto)")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted training")
    parser.add_argument("--broken", action="store_true", help="train every broken variant, and end")
    parser.add_argument("--compare", type=comparison, metavar="NAME=VALUE,…",
                        help="train with each value, and end: " + ", ".join(COMPARABLE))
    parser.add_argument("--seeds", type=count, default=1,
                        help="seeds for each value of --compare (default: 1)")
    options = parser.parse_args()
    try:
        config, training = chosen(TransformerConfig, options), chosen(TrainingConfig, options)
        Transformer(config)  # refuses sizes that don't fit together
        experiment = Experiment(config, training, options)
        for value in options.compare[1] if options.compare else ():
            Transformer(changed(experiment, options.compare[0], value, 0)[0])
    except (ValueError, RuntimeError) as error:  # RuntimeError: more memory than there is
        parser.error(str(error).partition("\n")[0])
    steps = [
        step_task,
        step_teacher_forcing,
        step_masks,
        step_the_model,
        step_loss,
        step_adam,
        step_schedule,
        step_overfit,
        step_training,
        step_two_accuracies,
        step_attention_patterns,
        step_gradient_flow,
        step_broken_on_purpose,
        step_what_next,
    ]
    if options.broken:
        steps = [step_all_broken]
    elif options.compare:
        steps = [step_compare]
    elif PROCESSES > 1:
        steps = [step_training]
    with all_processes(experiment.device):
        narrate(options, __doc__, steps, experiment)


if __name__ == "__main__":
    main()

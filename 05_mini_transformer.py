"""Lesson 5. Does it learn?

The parts become a Transformer that reads a sequence of digits and writes its answer: reversed, copied,
sorted or added up. The encoder reads the source once; the decoder writes one token after the other and,
while learning, is told all tokens before the one it has to guess (teacher forcing):

    loss = −mean log P(y_t | y_1 … y_{t−1}, source)

Token embedding and logits share one matrix, source and target one vocabulary (section 3.4). Where we
depart from the paper: pre-norm, GELU, biases in all projections, small first weights, a small last gain
(step 6); no dropout and no label smoothing unless asked for; a learning rate that falls linearly, Adam with
PyTorch's β₂ and ε, weight decay on every parameter, clipped gradients. What PyTorch has as one kernel
(attention, LayerNorm, GELU, cross-entropy, Adam) was or is built by hand and shown equal; the kernel is what
trains, --by-hand trains with the hand-made ones, --with FILE with yours. Lessons 1 to 4 built the parts;
lesson 6 decodes in every other way.
"""

import argparse
import course.console.startup  # noqa: F401 (before torch: it hears what fails in the imports below)
import inspect
import math
import statistics
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from checks.broken import broken_runs, signatures
from checks.training import (
    adam_checks,
    learning_rate_checks,
    sequence_loss_checks,
    teacher_forcing_checks,
    transformer_checks,
)
from common import (
    Picture,
    check,
    check_mistakes,
    check_part,
    lesson,
    lesson_parser,
    mask_rows,
    narrate,
    parameters,
    shows,
    table,
)
from course.console.narrator import Narrator
from course.console.options import (
    add_options,
    changed_options,
    check_limits,
    chosen,
    comparison,
    count,
    option,
)
from course.data.digits import DIGITS, draw_sequences, split_of
from course.grading.checking import gradients, largest_difference
from course.grading.own import Own, own_parts
from course.pages.live import write_live
from course.training.comparing import changed, compare, scores_of, summaries
from course.training.engine import Job, Run, Settings, finish, train
from course.training.experiment import Experiment
from course.training.memory import refuse_beyond_memory, sizes_of
from course.training.parts import build, slots_of
from course.training.processes import PROCESSES, all_processes, own_device
from figures.training import (
    draw_broken,
    draw_comparison,
    draw_learning,
    draw_own,
    draw_patterns,
    draw_schedule,
    draw_training,
)

causal_mask, padding_mask, scaled_dot_product_attention = lesson(
    "01_attention_mechanism", "causal_mask", "padding_mask", "scaled_dot_product_attention")
record_attention = lesson("02_multi_head_attention").record_attention
(
    BOS, EOS, PAD, LearnedPositionalEncoding, RotaryPositionalEncoding, SinusoidalPositionalEncoding,
    TokenEmbedding, Tokenizer,
) = lesson(
    "03_positional_encoding", "BOS", "EOS", "PAD", "LearnedPositionalEncoding",
    "RotaryPositionalEncoding", "SinusoidalPositionalEncoding", "TokenEmbedding", "Tokenizer")
Decoder, Encoder, gelu, layer_norm = lesson(
    "04_transformer_block", "Decoder", "Encoder", "gelu", "layer_norm")

__all__ = ["BY_HAND", "TASKS", "Adam", "Batch", "DigitExperiment", "SequenceTraining", "TrainingConfig",
           "Transformer", "TransformerConfig", "draw_batch", "draw_sequences", "evaluate", "exactly_right",
           "fitting", "found_in", "free_running", "fused_sequence_loss", "learning_rate", "make_batch",
           "make_job", "make_run", "pad", "remake", "run_name", "sequence_job", "sequence_loss",
           "teacher_forcing", "tokenizer"]

LENGTHS = 4, 16
TEST_SIZE = 2000
tokenizer = Tokenizer([DIGITS], level="character")
ZERO = tokenizer.encode("0")[0]  # digit d has id ZERO + d


# ------------------------------------------------------------------ the model


@dataclass(frozen=True)
class TransformerConfig:
    """The sizes of a model. ValueError, with the values, for sizes that don't fit together."""

    d_model: int = option(64, "width of a token's vector", least=1)
    n_heads: int = option(4, "attention heads, into which d_model must split", least=1, names=["--heads"])
    n_layers: int = option(2, "blocks of the encoder, and of the decoder", least=1, names=["--layers"])
    d_ff: int = option(0, "width of the feed-forward network; 0 means 4 · d_model", least=0)
    dropout: float = option(0.0, "share of activations dropped in training", least=0, below=1)
    norm: str = option("pre", "pre or post", among=("pre", "post"))
    positions: str = option("sinusoidal", "sinusoidal, learned, rotary or none",
                            among=("sinusoidal", "learned", "rotary", "none"))
    activation: str = option("gelu", "gelu or relu", among=("gelu", "relu"))
    max_len: int = option(128, least=1)
    vocab_size: int = option(len(tokenizer), least=4)  # PAD, BOS, EOS and something to say

    def __post_init__(self):
        check_limits(self)
        if self.d_model % self.n_heads:
            raise ValueError(f"d_model {self.d_model} does not split into {self.n_heads} heads")
        if self.positions == "sinusoidal" and self.d_model % 2:
            raise ValueError(f"d_model {self.d_model} is odd; each wave of positions needs 2 numbers")
        if self.positions == "rotary" and (d_k := self.d_model // self.n_heads) % 2:
            raise ValueError(f"d_model {self.d_model} over {self.n_heads} heads is {d_k}: odd, not pairs")
        object.__setattr__(self, "d_ff", self.d_ff or 4 * self.d_model)


class Transformer(nn.Module):
    """Encoder and decoder with shared embeddings (figure 1 of the paper).

    Its parts are embedding, encoder and decoder. The gain of the last LayerNorm starts at d_model^−½.
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

    def decode(self, tgt: Tensor, memory: Tensor, src_mask: Tensor | None, start: int = 0) -> Tensor:
        """tgt (B, T), memory (B, S, D), src_mask (B, 1, 1, S) or None → logits (B, T, V).

        The first token of tgt stands at position `start`; lesson 6's cache knows what came before it.
        Padding at the end of tgt needs no mask: the causal mask hides it from all real tokens before it.
        """
        mask = None  # a single new token may see all before it
        if tgt.shape[1] > 1:
            mask = self.tgt_mask(start + tgt.shape[1], tgt.device)[start:]
        x = self.decoder(self.embed(tgt, start), memory, mask, src_mask)
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


class Batch(NamedTuple):
    """Padded ids: src (B, S), tgt_in (B, T) = BOS y…, tgt_out (B, T) = y… EOS."""

    src: Tensor
    tgt_in: Tensor
    tgt_out: Tensor

    def to(self, device: torch.device) -> "Batch":
        return Batch(*(tensor.to(device) for tensor in self))


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


def sequence_loss(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy summed over all real tokens: logits (B, T, V), targets (B, T) → scalar.

    PAD counts nothing. With label smoothing ε (section 5.4) the target distribution is 1 − ε on the
    right token plus ε / V on every token. Divide by the number of real tokens for the mean.
    """
    log_probs = logits.log_softmax(dim=-1)  # (B, T, V)
    loss = -(1 - label_smoothing) * log_probs.gather(-1, targets[..., None])[..., 0]  # (B, T)
    if label_smoothing:  # 0 · −∞ is NaN
        loss = loss - label_smoothing * log_probs.mean(dim=-1)
    return loss.masked_fill(targets == PAD, 0.0).sum()


def fused_sequence_loss(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """sequence_loss() in PyTorch's kernel."""
    return F.cross_entropy(logits.flatten(0, -2), targets.flatten(), ignore_index=PAD,
                           label_smoothing=label_smoothing, reduction="sum")


class Adam(torch.optim.Optimizer):
    """Adam (Kingma and Ba 2015, algorithm 1), with AdamW's decoupled decay (Loshchilov and Hutter).

    Per parameter a running mean of the gradient and of its square; both start at 0, which the
    division by 1 − βᵗ corrects. The step is learning rate · mean / √square. Parameters without a gradient
    stay as they are.
    """

    def __init__(self, parameters, lr: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
                 weight_decay: float = 0.0):
        super().__init__(parameters, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:
        """Move every parameter against its gradient."""
        for group in self.param_groups:
            options = group["lr"], group["betas"], group["eps"], group["weight_decay"]
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self.move(parameter, *options)

    def move(self, parameter: Tensor, lr, betas, eps, weight_decay) -> None:
        """One step of one parameter; its running means are kept in self.state."""
        state, gradient = self.state[parameter], parameter.grad
        if not state:
            state["steps"] = 0
            state["mean"] = torch.zeros_like(parameter)
            state["square"] = torch.zeros_like(parameter)
        state["steps"] += 1
        beta1, beta2 = betas
        state["mean"].mul_(beta1).add_((1 - beta1) * gradient)
        state["square"].mul_(beta2).add_((1 - beta2) * gradient**2)
        mean = self.corrected(state["mean"], beta1, state["steps"])
        square = self.corrected(state["square"], beta2, state["steps"])
        parameter.mul_(1 - lr * weight_decay)
        parameter.sub_(lr * mean / (square.sqrt() + eps))

    def corrected(self, mean: Tensor, beta: float, steps: int) -> Tensor:
        """A running mean that began at 0, without that beginning's share."""
        return mean / (1 - beta**steps)


RECIPES = {"sort": (2000, 64), "sum": (2000, 128)}  # steps and batch size; else 700 and 32


@dataclass(frozen=True)
class SequenceTraining(Settings):
    """How a model is trained to answer sequences, whatever they mean."""

    lr: float = option(3e-3, "highest learning rate; inverse_sqrt has its own", above=0)
    warmup: int = option(50, "steps of warm-up", least=0)
    schedule: str = option("linear", "linear, or inverse_sqrt as in the paper",
                           among=("linear", "inverse_sqrt"))
    beta2: float = option(0.999, "Adam's β₂; 0.98 in the paper", least=0, below=1)
    weight_decay: float = option(0.2, "decoupled weight decay (AdamW)", least=0)
    label_smoothing: float = option(0.0, "share of the target spread over all tokens", least=0, below=1)
    by_hand: bool = option(False, "train with the hand-made parts in place of PyTorch's kernels")


@dataclass(frozen=True)
class TrainingConfig(SequenceTraining):
    """One training run on digits. ValueError, with the value, for what makes no sense."""

    task: str = option("reverse", f"one of {', '.join(TASKS)}", among=TASKS)
    steps: int = option(0, "training steps; 0: what the task needs", least=0, below=10**7)
    batch_size: int = option(0, "sequences a step; 0: what the task needs", least=0)

    def __post_init__(self):
        super().__post_init__()
        steps, batch_size = RECIPES.get(self.task, (700, 32))
        object.__setattr__(self, "steps", self.steps or steps)
        object.__setattr__(self, "batch_size", self.batch_size or batch_size)
        parts = self.accumulate * PROCESSES
        if self.batch_size < parts:
            raise ValueError(f"batch_size {self.batch_size} can't be cut into {parts} parts")


def learning_rate(step: int, training: SequenceTraining, d_model: int) -> float:
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
    """Of an evaluation: loss and accuracies; `forced` and `exact` (B,) say which answers are right."""

    loss: float
    token_accuracy: float  # with teacher forcing
    exact_match: float  # free-running, the whole answer right
    forced: Tensor  # with teacher forcing, every token right
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
    loss = fused_sequence_loss(logits, batch.tgt_out) / real.sum()
    right = logits.argmax(-1) == batch.tgt_out
    exact = exactly_right(decode(model, batch.src, batch.tgt_out.shape[1]), batch.tgt_out)
    model.train(was_training)
    return Scores(loss.item(), right[real].float().mean().item(), exact.float().mean().item(),
                  (right | ~real).all(dim=1).cpu(), exact.cpu())


# ------------------------------------------------------------------ training


def train_plainly(model: nn.Module, training: TrainingConfig, steps: int) -> list[float]:
    """The loop, as short as it gets → the losses. The engine does the same, and more besides."""
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=training.weight_decay, fused=True)
    losses = []
    for step in range(steps):
        batch = training_batch(training, step)
        logits = model(batch.src, batch.tgt_in)
        loss = fused_sequence_loss(logits, batch.tgt_out, training.label_smoothing)
        loss = loss / (batch.tgt_out != PAD).sum()
        optimizer.zero_grad()
        loss.backward()
        clip_grad_norm_(model.parameters(), training.clip)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, training, model.config.d_model)
        optimizer.step()
        losses.append(loss.item())
    return losses


def training_batch(training: TrainingConfig, step: int) -> Batch:
    """The batch of a step depends on seed and step alone, so that a resumed run sees the same."""
    return draw_batch(training.task, training.batch_size, "train", (training.seed, step))


BY_HAND = {  # name → the hand-made part; the kernel of each runs unless --by-hand
    "scaled_dot_product_attention": scaled_dot_product_attention,
    "layer_norm": layer_norm,
    "gelu": gelu,
}


def sequence_job(model: nn.Module, training: SequenceTraining, batch: Callable[[int], Batch],
                 validate: Callable[[nn.Module], dict[str, float]]) -> Job:
    """What the engine needs to know of a training on these batches, whatever their tokens mean."""
    loss_of, adam = fused_sequence_loss, partial(torch.optim.AdamW, fused=True)
    if training.by_hand:
        loss_of, adam = sequence_loss, Adam

    def loss(forward: Callable, part: Batch, whole: Batch) -> Tensor:
        logits = forward(part.src, part.tgt_in).float()
        return loss_of(logits, part.tgt_out, training.label_smoothing) / (whole.tgt_out != PAD).sum()

    return Job(
        batch=batch,
        loss=loss,
        rate=lambda step: learning_rate(step, training, model.config.d_model),
        optimizer=lambda trained: adam(trained, lr=0.0, betas=(0.9, training.beta2),
                                       weight_decay=training.weight_decay),
        validate=validate,
        blocks=[*model.encoder.blocks, *model.decoder.blocks],
    )


def make_job(model: nn.Module, training: TrainingConfig, device: torch.device, held_out: Batch) -> Job:
    """The training on digits; it validates on `held_out`."""
    held_out = held_out.to(device)

    def validate(model: nn.Module) -> dict[str, float]:
        scores = evaluate(model, held_out)
        return {"validation_loss": scores.loss, "token_accuracy": scores.token_accuracy,
                "forced_match": scores.forced.float().mean().item(), "exact_match": scores.exact_match}

    return sequence_job(model, training, partial(training_batch, training), validate)


NOTHING = Own({}, {})  # of a learner's


def make_run(config: TransformerConfig, training: TrainingConfig, device: torch.device,
             transformer: Callable | None = None, held_out: Batch | None = None, own: Own = NOTHING) -> Run:
    """A fresh run; --by-hand puts the hand-made parts into its model, --with a learner's own.

    `transformer` is another class of model; `held_out` is what it validates on, else 100 sequences.
    """
    parts = (BY_HAND if training.by_hand else {}) | fitting(own.parts, config)
    torch.manual_seed(training.seed)
    model = build(lambda: (transformer or Transformer)(config), parts)
    held_out = held_out or draw_batch(training.task, 100, "validation", (training.seed,))
    about = {"name": training.task, "config": asdict(config), "training": asdict(training)}
    about |= {"with": dict(own.files)} if own.files else {}
    return Run(model, make_job(model, training, device, held_out), training, device, about)


def fitting(parts: Mapping[str, Any], config: TransformerConfig) -> dict[str, Any]:
    """Those of a learner's parts that a model has a place for: classes, and functions in slots."""
    classes = {name: part for name, part in parts.items() if inspect.isclass(part)}
    slots = slots_of(build(lambda: Transformer(config), classes))  # the learner's classes may have none
    return {name: part for name, part in parts.items() if name in classes or name in slots}


def found_in(model: nn.Module, parts: Mapping[str, Any]) -> list[str]:
    """The names of a learner's parts that are in the model: classes of its modules, functions in slots."""
    return sorted(name for name, part in parts.items() if any(
        type(module) is part or getattr(module, name, None) is part for module in model.modules()))


def remake(about: dict[str, Any], device: torch.device, own: Own = NOTHING) -> Run:
    """The run that a checkpoint tells of, fresh. ValueError if it was trained with other parts."""
    if about.get("with", {}) != own.files:
        raise ValueError(f"it was trained with {', '.join(about.get('with', {})) or 'no parts of your own'}")
    config, training = TransformerConfig(**about["config"]), TrainingConfig(**about["training"])
    return make_run(config, training, device, own=own)


def run_name(config: TransformerConfig, training: TrainingConfig) -> str:
    """The task and every option that isn't the default: runs that differ never share a file."""
    default = replace(TransformerConfig(), d_ff=4 * config.d_model)  # that follows d_model
    sizes = changed_options(config, default)
    return "-".join([training.task, *sizes, *changed_options(training, TrainingConfig(task=training.task))])


GRADED = {  # the parts that --grade looks for, and what has to hold of each
    "Transformer": transformer_checks,
    "teacher_forcing": teacher_forcing_checks,
    "sequence_loss": sequence_loss_checks,
    "Adam": adam_checks,
    "learning_rate": learning_rate_checks,
}
OURS = sys.modules[__name__]  # of whose parts the checks make the classic mistakes


# ------------------------------------------------------------------ the steps


class DigitExperiment(Experiment):
    """What the command line asked for, and the run that came of it."""

    def __init__(self, config: TransformerConfig, training: TrainingConfig, options: argparse.Namespace,
                 own: Own = NOTHING):
        device = own_device(options.device)
        self.config, self.training, self.own = config, training, own
        name = run_name(config, training) + (f"-{own.name}" if own.parts else "")
        super().__init__(name, "reverse", partial(make_run, config, training, device, own=own),
                         partial(remake, device=device, own=own), options, device, note_learning,
                         sizes_of(config, training))


def text_of(ids: Tensor) -> str:
    """Ids as tokens, the special ones with their names."""
    return " ".join(tokenizer.token_of[id] for id in ids.tolist())


@shows(split_of)
def step_task(experiment: DigitExperiment):
    """The task

    Sequences of 4 to 16 digits, and for each the answer: the digits reversed, copied, sorted, or the digits
    of their sum. All can be generated, so there is always more; and to know that the model doesn't just know
    them by heart, it is tested on sequences that it never saw. A checksum of the digits sends each sequence
    to training, validation or test, once and for all, in every run.
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
def step_teacher_forcing(experiment: DigitExperiment):
    """Teacher forcing

    The decoder learns to continue: at each place it sees the right tokens so far and has to say the next
    one. So its input is the answer shifted by one place, with BOS (beginning of sequence) in front, and
    the target ends in EOS (end of sequence). PAD fills the shorter sequences of a batch. All places of
    all sequences are learned at once; the causal mask keeps each from reading its target in the input.
    When the trained model answers, nobody gives it the right tokens: it reads its own.
    """
    batch = make_batch(experiment.training.task, [[3, 1, 4, 1, 5]])
    check_part(teacher_forcing, teacher_forcing_checks, OURS)
    rows = [("source", text_of(batch.src[0])), ("decoder reads", text_of(batch.tgt_in[0])),
            ("… and should say", text_of(batch.tgt_out[0]))]
    return table("", "tokens", rows=rows)


@shows(Transformer.src_mask, Transformer.tgt_mask)
def step_masks(experiment: DigitExperiment):
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
def step_the_model(experiment: DigitExperiment):
    """The whole model

    Two stacks, one embedding for source and target, and the same matrix once more to turn the decoder's
    vectors into a score for every token. With PyTorch's own nn.Transformer between the same embedding and
    the same output it has to give the same logits and gradients.
    """
    check_part(Transformer, transformer_checks, OURS)
    model = Transformer(experiment.config)
    parts = {"embedding, also output": model.embedding, "encoder": model.encoder,
             "decoder": model.decoder, "all": model}
    return table("part", "parameters", rows=[(name, parameters(part)) for name, part in parts.items()])


@shows(sequence_loss)
def step_loss(experiment: DigitExperiment):
    """The loss, before anything is learned

    The loss is −log of the probability given to the right token. A model that knows nothing spreads it
    over all V tokens: ln V. Ours starts a little above, because its first guesses are not quite even.
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
    check_part(sequence_loss, sequence_loss_checks, OURS)
    check_part(fused_sequence_loss, sequence_loss_checks, OURS)
    smoothing, size = 0.1, len(tokenizer)
    target = torch.full((size,), smoothing / size)
    target[3] += 1 - smoothing
    best = target.log()[None, None].requires_grad_()  # the logits of a perfect model
    lowest = sequence_loss(best, torch.tensor([[3]]), smoothing)
    entropy = -(target * target.log()).sum().item()
    check("smoothing 0.1: a perfect model's loss is the entropy of the target",
          abs(lowest.item() - entropy) < 1e-5, f"{lowest.item():.4f}")
    check("… and its gradient is 0: it is the lowest", gradients(lowest, [best]).abs().max() < 1e-6)


def repeats(model: Transformer, batch: Batch) -> tuple[float, float]:
    """The loss, and the mean probability that the model gives to the token just read."""
    with torch.no_grad():
        logits, real = model(batch.src, batch.tgt_in), batch.tgt_in != PAD
    loss = fused_sequence_loss(logits, batch.tgt_out) / (batch.tgt_out != PAD).sum()
    again = logits.softmax(-1).gather(-1, batch.tgt_in[..., None])[..., 0]
    return loss.item(), again[real].mean().item()


@shows(repeats)
def step_last_gain(experiment: DigitExperiment):
    """A small gain at the end

    One more thing in the model isn't the paper's. The paths past all layers carry the embedding of a token
    on to the end, and there the same matrix asks which token's vector fits best: that of the token itself.
    With a gain of 1 in the last LayerNorm an untrained model is sure that each token repeats, and first has
    to unlearn it. Ours starts with d_model^−½, where its guesses are nearly even and the first loss is near
    ln V. It is a small matter: after 20 steps both are equally far.
    """
    batch = draw_batch(experiment.training.task, 200, "validation", (1,))
    rows = []
    for name, gain in ("d_model^−½", None), ("1", 1.0):
        torch.manual_seed(experiment.options.seed)
        model = Transformer(replace(TransformerConfig(), norm="pre"))
        if gain:
            nn.init.constant_(model.decoder.norm.gain, gain)
        before = repeats(model, batch)
        train_plainly(model, replace(TrainingConfig(), task=experiment.training.task), STEPS_SHOWN)
        rows.append((name, *before, repeats(model, batch)[0]))
    (_, ours, _, ours_later), (_, ones, repeated, later) = rows
    check("with a gain of 1 the untrained model is sure of repeating, at more than twice the loss",
          repeated > 0.8 and ones > 2 * ours, f"probability {repeated:.2f}")
    check(f"… and after {STEPS_SHOWN} steps both losses are within 0.1", abs(later - ours_later) < 0.1,
          f"{later:.2f} and {ours_later:.2f}")
    return table("first gain", "loss", "P(repeats)", f"loss after {STEPS_SHOWN} steps",
                 rows=[(name, loss, f"{share:.0%}", after) for name, loss, share, after in rows])


def descend(optimizer_of: Callable, batches: list[Batch]) -> tuple[list[float], Transformer]:
    """The losses of a fresh default model, a step for each batch."""
    torch.manual_seed(0)
    model = Transformer(TransformerConfig())
    optimizer, losses = optimizer_of(model.parameters()), []
    for batch in batches:
        loss = fused_sequence_loss(model(batch.src, batch.tgt_in), batch.tgt_out)
        loss = loss / (batch.tgt_out != PAD).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, model


@shows(Adam.move, Adam.corrected)
def step_adam(experiment: DigitExperiment):
    """Adam

    Plain gradient descent takes big steps where the gradient is big. Adam divides, number by number, by the
    gradient's usual size: a step is about the learning rate at first, and smaller where the last gradients
    disagree (step 15 measures it). It keeps two running means: of the gradient, over about the last 10 steps
    (β₁ = 0.9), and of its square, over about 1,000 (β₂ = 0.999). ε, 10⁻⁸, keeps the division from 0, and
    leaves alone what has no gradient to speak of. AdamW also shrinks every weight a little in each step. The
    training uses PyTorch's own, fused into one kernel; here is ours. And is it needed? Sixty steps with
    either, 16 sequences each, plain descent at three rates:
    """
    check_part(Adam, adam_checks, OURS)
    task = experiment.training.task
    batches = [draw_batch(task, 16, "train", (3, step)) for step in range(60)]
    makers = {f"plain descent, rate {rate}": partial(torch.optim.SGD, lr=rate)
              for rate in (0.3, 1.0, 3.0)}
    makers["Adam, rate 0.003"] = partial(torch.optim.Adam, lr=3e-3, fused=True)
    ends = {name: statistics.mean(descend(make, batches)[0][-10:]) for name, make in makers.items()}
    *plain, adam = ends.values()
    if task == "reverse":
        check("Adam is ahead of plain descent at every rate",
              all(not loss < adam + 0.1 for loss in plain), f"{adam:.2f}")
    return table("", "loss, mean of the last 10 steps", rows=ends.items())


@shows(learning_rate)
def step_schedule(experiment: DigitExperiment):
    """The learning rate, step by step

    First up: small steps at the start, which post-norm needs at high rates (lesson 4). Then down, to 0 at the
    end of a run whose length is known. The paper falls with one over the root of the step number n: its
    rate is d_model^−½ · min(n^−½, n · warmup^−3/2), highest at the end of the warm-up, (d_model · warmup)^−½.
    For its model of 512 and its 4,000 steps of warm-up that is 0.0007, in the right panel. With our small
    model and short warm-up the same formula peaks 25 times as high, in the left one; so it isn't the default.
    """
    training = experiment.training
    rates = {}
    for schedule in ("linear", "inverse_sqrt"):
        kind = replace(training, schedule=schedule)
        rates[schedule] = [learning_rate(step, kind, experiment.config.d_model)
                           for step in range(training.steps)]
    paper = replace(training, schedule="inverse_sqrt", warmup=4000)
    steps = range(99, 100_000, 100)
    papers = [learning_rate(step, paper, 512) for step in steps]
    check("the paper's rate is highest after 4,000 steps",
          steps[papers.index(max(papers))] == 3999 and abs(max(papers) - (512 * 4000) ** -0.5) < 1e-12,
          f"{max(papers):.5f}")
    check_part(learning_rate, learning_rate_checks, OURS)
    return Picture(experiment.file("training_schedule"), draw_schedule(rates, steps, papers),
                   "The learning rate goes up, then down: here in hundreds of steps, there in thousands")


@shows(descend)
def step_overfit(experiment: DigitExperiment):
    """One batch by heart

    The first thing to try with any new model: can it learn eight sequences by heart? If not, something is
    wrong that no amount of data will mend. No schedule, no clipping, our own Adam.
    """
    batch = draw_batch(experiment.training.task, 8, "train", (2,))
    losses, model = descend(partial(Adam, lr=3e-3), [batch] * 150)
    exact = evaluate(model, batch).exact_match
    check("after 150 steps it answers all eight", exact == 1, f"exact match {exact:.0%}")
    rows = [(step, losses[step - 1]) for step in (1, 10, 50, 100, 150)]
    return table("step", "loss", rows=rows)


CPU = torch.device("cpu")
STEPS_SHOWN = 20


@shows(train_plainly)
def step_the_loop(experiment: DigitExperiment):
    """The training loop

    New sequences in every step; forward, loss, backward; if the gradient of all parameters together is
    longer than 1, it is shortened to 1, its direction stays (clipping); set the rate; step. The training
    below runs in the course's engine (course/training/engine.py), which does the same and, besides, keeps a
    history, validates, saves, resumes, and works in several processes. Twenty steps of the default model,
    with a warm-up of 5 and clipped at 0.1, so that rate and clipping have work to do, done both ways:
    """
    training = TrainingConfig(task=experiment.training.task, steps=STEPS_SHOWN, warmup=5, clip=0.1)
    torch.manual_seed(training.seed)
    plain = Transformer(TransformerConfig())
    losses = train_plainly(plain, training, STEPS_SHOWN)
    run = finish(make_run(TransformerConfig(), training, CPU))
    check(f"the engine's {STEPS_SHOWN} losses are those of the loop, bit for bit",
          losses == run.noted("loss"))
    weights = run.model.state_dict()
    check("… and so is every weight after them",
          all(torch.equal(weight, weights[name]) for name, weight in plain.state_dict().items()))


KERNELS = (
    ("softmax, attention", 1, "F.scaled_dot_product_attention"), ("layer_norm", 4, "F.layer_norm"),
    ("gelu", 4, "F.gelu"), ("sequence_loss", 5, "F.cross_entropy"), ("Adam", 5, "optim.AdamW(fused=True)"),
)


def step_by_hand_or_kernel(experiment: DigitExperiment):
    """By hand, or in one kernel

    These parts were built by hand, line by line as their formulas, and shown equal to what PyTorch has as
    one kernel, gradients included. The training takes the kernels; --by-hand takes ours. The first losses
    are the same to rounding; in hundreds of steps rounding drifts them apart. What the difference costs:
    """
    training = TrainingConfig(task=experiment.training.task, steps=STEPS_SHOWN)
    runs = {name: finish(make_run(TransformerConfig(), replace(training, by_hand=by_hand), CPU))
            for name, by_hand in (("kernels", False), ("by hand", True))}
    gap = max(abs(a - b) for a, b in zip(*(run.noted("loss") for run in runs.values()), strict=True))
    check(f"the first {STEPS_SHOWN} losses are the same to rounding", gap < 2e-6, f"{gap:.0e} apart")
    rows = [(name, run.noted("loss")[-1], f"{1e3 * statistics.median(run.noted('seconds')[5:]):.1f}")
            for name, run in runs.items()]
    return (table("by hand", "in lesson", "PyTorch's kernel", rows=KERNELS),
            table("", f"loss of step {STEPS_SHOWN}", "milliseconds a step", rows=rows))


def step_training(experiment: DigitExperiment):
    """Training

    Every 50 steps 100 validation sequences are answered, free-running: the model reads what it wrote
    itself. “exact match” is the share of whole answers that are right. All numbers go to a CSV file, too.
    """
    ended = experiment.train()
    run = experiment.run
    if not run.history:
        return ended  # before the first step: nothing to draw
    first, last = run.noted("loss")[0], run.noted("loss")[-1]
    name = {"sum": "add"}.get(experiment.training.task, experiment.training.task)
    tokens, answers = (next((step for step, share in enumerate(run.noted(measure)) if share > 0.9), math.inf)
                       for measure in ("token_accuracy", "exact_match"))
    before = ": single tokens are right before whole answers" if tokens < answers else ""
    picture = Picture(experiment.file("training_progress"), draw_training(run.history, run.settings.clip),
                      f"Learning to {name}{before}")
    if ended:
        return picture, ended
    check("the loss fell", last < first, f"{first:.2f} to {last:.4f}")
    if experiment.name in ("reverse", "copy"):
        check("90 % of the tokens are right at an earlier validation than 90 % of the answers",
              tokens < answers)
    facts = [f"{len(run.history) - experiment.begun_at} steps on {experiment.device}: "
             f"{sum(run.noted('seconds')):.1f} s in the steps themselves"]
    clipped = statistics.mean(norm > run.settings.clip for norm in run.noted("gradient_norm"))
    facts.append(f"the gradient was clipped in {clipped:.0%} of the steps")
    right = [record["step"] for record in run.history if record.get("exact_match") == 1]
    if right:
        facts.append(f"first validation without an error: after step {right[0]}")
    page = write_live(experiment, tokenizer.token_of, draw_batch(experiment.training.task, 4, "test", (0,)))
    return "\n".join(facts), picture, page


@shows(free_running)
def step_two_accuracies(experiment: DigitExperiment):
    """Two accuracies

    With teacher forcing, single tokens are counted, each after a perfect beginning. Free-running, the model
    goes on from its own tokens, and the whole answer has to be right: if each token is right with probability
    0.99, independently, of answers with 16 tokens 0.99^16 = 85 % are. So the last column is the one to trust:
    exact match, on 2,000 test sequences.

    The column between counts whole answers with teacher forcing, and it is the same. It has to be: up to the
    first wrong token both read the same tokens. So here the two accuracies differ by what they count, not by
    forcing. Forcing matters for a model that reads what it shouldn't (step 17). The last rows are longer than
    anything trained: the rule was learned for these lengths, no further (lesson 3).
    """
    run = experiment.run
    model, task = run.model.eval(), experiment.training.task
    batch = draw_batch(task, TEST_SIZE, "test", (experiment.training.seed,)).to(run.device)
    lengths, rows, wrong, same = (batch.src != PAD).sum(1), [], [], True
    parts = {f"{low} to {high}": Batch(*(tensor[(lengths >= low) & (lengths <= high)] for tensor in batch))
             for low, high in ((4, 8), (9, 12), (13, 16))}
    trained = [*parts]
    for low, high in ((17, 18), (19, 20), (21, 24)):
        parts[f"{low} to {high}"] = make_batch(
            task, draw_sequences(200, "test", (low,), (low, high))).to(run.device)
    for name, part in parts.items():
        scores = evaluate(model, part)
        same = same and torch.equal(scores.forced, scores.exact)
        shares = scores.token_accuracy, scores.forced.float().mean().item(), scores.exact_match
        rows.append((name, len(part.src), *(f"{share:.2%}" for share in shares)))
        wrong += [name in trained] * int((~scores.exact).sum())
    if experiment.name in ("reverse", "copy"):
        check("of the 2,000 test sequences of trained lengths at most 2 get a wrong answer", sum(wrong) <= 2,
              f"{sum(wrong)} wrong")
    check("an answer is right exactly where all of its teacher-forced tokens are", same)
    return table("length", "sequences", "tokens, forced", "answers, forced", "exact match", rows=rows)


PARTNER: dict[str, Callable[[int, int], int]] = {  # where token t of the answer stands in the source
    "reverse": lambda t, length: length - 1 - t,
    "copy": lambda t, length: t,
}


def mass_on_partner(weights: Tensor, task: str) -> Tensor:
    """weights (B, H, T, S) → (H,): the mean weight on the digit that has to be written next."""
    length = weights.shape[-1]
    partners = torch.tensor([PARTNER[task](t, length) for t in range(length)])
    return weights[:, :, torch.arange(length), partners].mean(dim=(0, 2))


def right_without(attention: nn.Module, model: Transformer, batch: Batch, axes: tuple[int, ...]) -> float:
    """Exact match if the outputs (B, L, D) of this attention are replaced by their mean over these axes."""
    hook = attention.register_forward_hook(
        lambda module, inputs, output: output.mean(axes, keepdim=True).expand_as(output))
    try:
        return evaluate(model, batch).exact_match
    finally:
        hook.remove()


@shows(mass_on_partner, right_without)
def step_attention_patterns(experiment: DigitExperiment):
    """Where the model looks, and what it needs

    To write the next digit of a reversed sequence, the decoder has to find it from the end of the source:
    in cross-attention that is an anti-diagonal (for copy: a diagonal). Which heads do it, and in which
    block, is up to the training. For these two tasks the first table gives the mean weight on exactly that
    digit, over test sequences of 10 digits; a head that looks everywhere alike would put 0.10 there.

    A weight says where it looked, not what for (lesson 2). So the second table takes each attention away and
    counts the answers that are still right. First one mean stands in place of all its outputs. Then each
    place has a mean of its own, over all sequences: what is right again needed the place, not the content.
    Where all sequences have 10 digits, only the last cross-attention needs its content: there the digits come
    in. With 8 and 12 mixed, the first one does, too: where the last digit stands depends on the length.

    In the picture rows ask and columns answer; a decoder's row says which token it reads and which one it
    writes. Every panel has its own scale, from 0 to the number above it. (The decoder's first row can see
    BOS alone; it doesn't count for the scale.)
    """
    run = experiment.run
    model, task = run.model.eval(), experiment.training.task
    batch = make_batch(task, draw_sequences(100, "test", (3,), (10, 10))).to(run.device)
    with torch.no_grad(), record_attention(model) as weights:
        model(batch.src, batch.tgt_in)
    reads, writes = (text_of(ids[0]).split() for ids in (batch.tgt_in, batch.tgt_out))
    figure = draw_patterns(weights, text_of(batch.src[0]).split(), reads, writes)
    file = experiment.file("transformer_attention_patterns")
    attentions = {name: module for name, module in model.named_modules() if name in weights}
    mixed = make_batch(task, [digits for length in (8, 12) for digits in draw_sequences(
        50, "test", (length,), (length, length))]).to(run.device)
    trials = (batch, (0, 1)), (batch, (0,)), (mixed, (0,))
    needed = {name: [right_without(module, model, *trial) for trial in trials]
              for name, module in attentions.items()}
    ablated = table("right without", "one mean", "a mean a place", "8 and 12 digits", rows=[
        (name.replace(".blocks", ""), *(f"{share:.0%}" for share in shares))
        for name, shares in needed.items()])
    if task not in PARTNER:
        return ablated, Picture(file, figure, "Which token looks where: rows ask, columns answer")
    masses = [mass_on_partner(weights[f"decoder.blocks.{block}.cross_attention"], task)
              for block in range(experiment.config.n_layers)]
    best = max(mass.max().item() for mass in masses)
    if experiment.name == task:
        check("one head puts most of its weight on the digit to write", best > 0.5, f"{best:.2f}")
    if experiment.name == "reverse":
        *others, last = (shares for name, shares in needed.items() if name.startswith("decoder"))
        check("one mean: without any of the decoder's attentions less than 80 % are right",
              max(*(one for one, *_ in others), last[0]) < 0.8)
        check("a mean a place, 10 digits: 80 % and more, except without the last cross-attention",
              min(place for _, place, _ in others) > 0.8 and last[1] < 0.1)
        check("… 8 and 12 mixed: less than a fifth without the first cross-attention, too",
              needed["decoder.blocks.0.cross_attention"][2] < 0.2)
    rows = [(f"cross-attention, block {block}", *mass.tolist()) for block, mass in enumerate(masses)]
    picture = Picture(file, figure, f"The surest head of the cross-attention puts {100 * best:.0f} % of its "
                                    "weight on the digit to write (rows ask, columns answer)")
    heads = (f"head {head}" for head in range(experiment.config.n_heads))
    return table("weight on the digit", *heads, rows=rows), ablated, picture


def parts_of(model: Transformer) -> dict[str, nn.Module]:
    """The embedding and every block of both stacks."""
    stacks = ("encoder", model.encoder), ("decoder", model.decoder)
    return {"embedding": model.embedding} | {
        f"{name} {number}": block for name, stack in stacks for number, block in enumerate(stack.blocks)}


def used(part: nn.Module) -> list[nn.Parameter]:
    """Its parameters that have a gradient: a part of the learner's may have one that does nothing."""
    return [parameter for parameter in part.parameters() if parameter.grad is not None]


def last_move(optimizer: torch.optim.Optimizer, part: nn.Module) -> float:
    """By how much Adam's last step moved the weights of a part (RMS), in learning rates."""
    (beta1, beta2), eps = (optimizer.param_groups[0][name] for name in ("betas", "eps"))
    moves = []
    for parameter in used(part):
        steps, mean, square = optimizer.state[parameter].values()
        moves.append((mean / (1 - beta1**steps) / ((square / (1 - beta2**steps)).sqrt() + eps)).flatten())
    return torch.cat(moves).square().mean().sqrt().item()


def note_learning(run: Run) -> None:
    """After every tenth update: each part's gradient before clipping, and Adam's move of it."""
    if len(run.history) % 10 == 1:
        clipped = max(1.0, run.history[-1]["gradient_norm"] / run.settings.clip)
        for name, part in parts_of(run.model).items():
            norm = torch.cat([parameter.grad.flatten() for parameter in used(part)]).norm().item()
            run.history[-1] |= {f"gradient in {name}": clipped * norm,
                                f"move of {name}": last_move(run.optimizer, part)}


def with_first_weights(run: Run, fresh: nn.Module, batch: Batch) -> dict[str, float]:
    """Exact match of the trained model with one part as it was in the fresh one, for every part."""
    found = {}
    for name, part in parts_of(run.model).items():
        trained = {key: value.clone() for key, value in part.state_dict().items()}
        part.load_state_dict(parts_of(fresh)[name].state_dict())
        found[name] = evaluate(run.model, batch).exact_match
        part.load_state_dict(trained)
    return found


@shows(last_move)
def step_what_learns(experiment: DigitExperiment):
    """Does every block learn?

    Left in the picture is the gradient of each block, every tenth step, before clipping. It says how hard
    the loss pushes a block. But Adam divides it by its own usual size, so on the right all blocks move by
    about the same, a few tenths of the learning rate. Below the same for a model whose layers have no path
    around them. So little gets back to the decoder's first block that even Adam, whose ε is 10⁻⁸, hardly
    moves it at first. All others move as much as they should, and yet it learns less. So a curve of this
    kind shows who can't learn, not that something is learned.

    To see what a block has learned, put its first weights back and leave all others trained: of the answers
    that were right, hardly any is left. So the others have come to rely on every block. (A block is more than
    its attention, without which, in step 14, much may still be right.)
    """
    run, task = experiment.run, experiment.training.task
    held_out = draw_batch(task, 100, "validation", (0,))
    variants = broken_runs(OURS, TransformerConfig(), TrainingConfig(task=task, steps=80),
                           experiment.device, held_out)
    control = variants["no residual paths"](experiment.options.seed)
    while not control.finished:
        control.update()
        note_learning(control)
    noted, apart = ([record for record in history if "move of embedding" in record]
                    for history in (run.history, control.history))
    blocks = [name for name in parts_of(run.model) if name != "embedding"]
    moves, other = ([[record[f"move of {name}"] for name in names] for record in records]
                    for names, records in ((blocks, noted[1:]), ([*{*blocks} - {"decoder 0"}], apart[1:])))
    batch = draw_batch(task, 200, "test", (4,)).to(run.device)
    fresh = experiment.make().model
    left = with_first_weights(run, fresh, batch)
    if experiment.name in ("reverse", "copy"):
        ratio = max(max(record) / max(min(record), 1e-12) for record in moves)  # 0: not moved at all
        check("at every noted step the block that moves most moves less than 3 times as much as the one that "
              "moves least", ratio < 3, f"{ratio:.1f}")
        every = [statistics.median(map(statistics.mean, found)) for found in (moves, other)]
        cut = apart[0]["gradient in decoder 0"]
        check("without paths the decoder's first block begins with a gradient below 10⁻⁶ and hardly moves",
              cut < 1e-6 and apart[0]["move of decoder 0"] < 0.1, f"{cut:.0e}")
        check("… the others move at least a third as much as in the model", every[1] > every[0] / 3,
              f"medians {every[1]:.2f} and {every[0]:.2f} rates")
        ours, theirs = (statistics.mean(history.noted("loss")[60:80]) for history in (run, control))
        check("… but it learns less: the loss of steps 61 to 80 is higher by more than 0.2",
              theirs > ours + 0.2, f"{theirs:.2f} and {ours:.2f}; guessing a digit: {math.log(10):.2f}")
        check("with the first weights of any one part less than a tenth of the answers are right",
              max(left.values()) < 0.1)
    figure = draw_learning({"the model": noted, "no residual paths": apart}, list(parts_of(run.model)))
    picture = Picture(experiment.file("training_gradient_flow"), figure,
                      "Adam moves all blocks alike, whatever their gradient, unless hardly any reaches one")
    return table("with the first weights of", "exact match", rows=[
        (name, f"{share:.0%}") for name, share in left.items()]), picture


SCARCE = {"as it is": {}, "weight decay 1": {"weight_decay": 1.0},
          "label smoothing 0.1": {"label_smoothing": 0.1}, "dropout 0.1": {"dropout": 0.1}}


def step_scarce_data(experiment: DigitExperiment):
    """When data is scarce

    All of the above drew new sequences in every step: nothing to know by heart. Now there are 200, of 4 to 8
    digits, again and again for 150 steps of 16. Known sequences are answered more often than new ones: the
    model overfits. What is said to help (section 5.4, and AdamW): dropout, label smoothing, weight decay.
    Here strong weight decay brings most new ones. (And more of the known: it also speeds up so short a
    training.) Label smoothing changes little; dropout costs so much that fewer of the known ones are
    learned. What helps where is a matter of trying.
    """
    task = experiment.training.task
    known = draw_sequences(200, "train", (7,), (4, 8))
    held_out = make_batch(task, draw_sequences(300, "validation", (1,), (4, 8)))
    rows, reached = [], {}
    for name, changes in SCARCE.items():
        config, training = TransformerConfig(), TrainingConfig(task=task, steps=150, weight_decay=0.0)
        for field, value in changes.items():
            config, training = changed((config, training), field, value)
        run = make_run(config, training, CPU, held_out=held_out)
        order = torch.randint(200, (training.steps, 16))
        run.job = replace(run.job, batch=lambda step, order=order: make_batch(
            task, [known[number] for number in order[step].tolist()]))
        finish(run)
        scores = [evaluate(run.model, batch).exact_match for batch in (make_batch(task, known), held_out)]
        reached[name] = scores
        rows.append((name, *(f"{share:.0%}" for share in scores)))
    if task == "reverse":
        (seen, new), (_, decayed), _, (dropped, _) = reached.values()
        check("as it is: known sequences are answered more often than new ones", seen > new + 0.1)
        check("weight decay brings more of the new ones", decayed > new + 0.05, f"{new:.0%} to {decayed:.0%}")
        check("with dropout fewer of the known ones are learned in this time", dropped < seen - 0.05)
    return table("", "known sequences", "new sequences", rows=rows)


def step_broken_on_purpose(experiment: DigitExperiment):
    """Broken on purpose

    Two mistakes that look like success. Without the shift the decoder reads the very token that it should
    say; without the causal mask it reads it one place further on. Both learn to copy their input. With
    teacher forcing they beat the right model, in loss and accuracy; when they have to answer by themselves,
    nothing is there to copy. Here whole answers differ with forcing and without. All three learned reverse,
    whatever --task says, for 150 steps:
    """
    training = TrainingConfig(task="reverse", steps=150)
    held_out = draw_batch("reverse", 500, "test", (0,))
    every = broken_runs(OURS, TransformerConfig(), training, experiment.device, held_out)
    names = "right", "no causal mask", "no shift"
    scores = scores_of({name: every[name] for name in names}, 0, finish)
    right = scores["right"]
    for name in names[1:]:
        better = (scores[name]["validation_loss"] < right["validation_loss"]
                  and scores[name]["token_accuracy"] > right["token_accuracy"])
        check(f"{name}: better than right with teacher forcing, useless alone",
              better and scores[name]["exact_match"] < 0.05 < right["exact_match"])
    return broken_table(scores), check_mistakes(OURS, transformer_checks)


def broken_table(scores: dict[str, dict[str, float]]):
    rows = [(name, score["validation_loss"], *(f"{score[share]:.1%}" for share in (
        "token_accuracy", "forced_match", "exact_match"))) for name, score in scores.items()]
    return table("", "test loss", "tokens, forced", "answers, forced", "exact match", rows=rows)


def step_all_broken(experiment: DigitExperiment):
    """Every way to break it

    Each variant is trained for 400 steps (or --steps), with the same data and seed. Compare the two
    accuracies with those of the right run; each bug has its signature:

    No shift, no causal mask: teacher forcing looks perfect, free-running gives nothing. No residual paths:
    no answer is right. No positions:
    single tokens are guessed above chance, whole answers are not. Padding mask inverted: the loss stays
    near that of guessing, for no digit of the source can be seen. No scaling, loss on PAD: nearly as good
    as right, in this small model; only a check finds them. Post-norm at a learning rate of 0.01 without a
    warm-up: stuck from the start, and with one it learns.
    """
    training = replace(experiment.training, steps=experiment.options.steps or 400)
    held_out = draw_batch(training.task, 500, "test", (0,))
    variants = broken_runs(OURS, experiment.config, training, experiment.device, held_out)
    scores = scores_of(variants, training.seed, train)
    known = experiment.name in ("reverse", "copy") and training.steps == 400
    for statement, holds in signatures(scores) if known else ():
        check(statement, holds)
    note = "" if known else "(These signatures are those of 400 steps of reverse or copy: not checked here.)"
    return broken_table(scores), note, Picture(experiment.file("training_broken"), draw_broken(scores),
                                               "Both accuracies of every variant")


@torch.no_grad()
def surest_head(run: Run, batch: Batch) -> tuple[str, Tensor]:
    """The head of the cross-attention with the largest mean weight: its name, its weights (T, S)."""
    with record_attention(run.model.eval()) as weights:
        run.model(batch.src, batch.tgt_in)
    heads = [(maps[0, head].amax(-1).mean().item(), f"{name.split('.')[2]}, head {head}", maps[0, head])
             for name, maps in weights.items() if "cross" in name for head in range(maps.shape[1])]
    _, name, found = max(heads, key=lambda head: head[0])
    return f"block {name}", found


def step_with_your_parts(experiment: DigitExperiment):
    """Your parts beside the course's

    The same data in the same order, the same engine; in the one model the course's parts, in the other yours.
    First weights are drawn by each in its own way, so the curves differ a little. Exact match is on 1,000
    test sequences; the maps are the surest head of either cross-attention, on one sequence.
    """
    task = experiment.training.task
    course = DigitExperiment(experiment.config, experiment.training, experiment.options)
    runs = {"the course's": course.run, "yours": experiment.run}
    batch = draw_batch(task, 1000, "test", (0,)).to(experiment.device)
    one = make_batch(task, [[3, 1, 4, 1, 5, 9, 2, 6]])
    maps = {name: surest_head(run, one.to(run.device)) for name, run in runs.items()}
    rows = [(name, parameters(run.model), run.noted("loss")[-1],
             f"{evaluate(run.model, batch).exact_match:.1%}", f"{sum(run.noted('seconds')):.1f}")
            for name, run in runs.items()]
    labels = text_of(one.tgt_out[0]).split(), text_of(one.src[0]).split()
    placed = found_in(experiment.run.model, experiment.own.parts)
    unused = sorted({*experiment.own.parts} - {*placed})
    figure = draw_own({name: run.history for name, run in runs.items()}, maps, *labels)
    picture = Picture(experiment.file("training_with_your_parts"), figure,
                      f"Trained with your {', '.join(placed)}, beside the course's")
    note = f"(Graded, but no part of the model: {', '.join(unused)}.)" if unused else ""
    return table("parts", "parameters", "last loss", "exact match", "seconds", rows=rows), note, picture


def step_compare(experiment: DigitExperiment):
    """Compared

    The same data in the same order for every value; with --seeds, several seeds each.
    """
    name, values = experiment.options.compare
    batch = draw_batch(experiment.training.task, 1000, "test", (0,)).to(experiment.device)

    def run_with(value: Any, seed: int) -> Run:
        config, training = changed((experiment.config, experiment.training), name, value)
        return make_run(config, replace(training, seed=seed), experiment.device)

    variants = {value: partial(run_with, value) for value in values}
    first = experiment.training.seed
    compared = compare(variants, range(first, first + experiment.options.seeds), train,
                       lambda run: evaluate(run.model, batch).exact_match)
    rows = [(str(value), parameters(compared[value].runs[0].model), *summary)
            for value, summary in summaries(compared).items()]
    curves = {value: [run.history for run in result.runs] for value, result in compared.items()}
    best = max(compared, key=lambda value: sum(compared[value].measured))
    picture = Picture(experiment.file(f"training_compare_{name}"), draw_comparison(name, curves),
                      f"{name} = {best} answers the largest share of test sequences right")
    return table(name, "parameters", "seconds", "exact match", rows=rows), picture


def step_what_next(experiment: DigitExperiment):
    """What now?

    Read: Transformer, then train_plainly, then Run.update in course/training/engine.py, which is the same in
    parts.

    Change: (1) --positions none: see what is left of reverse. (2) --norm post --lr 0.01 --warmup 0, then
    with --warmup 100: the first learns far later, if at all. (3) Add a task: one function from digits to
    digits, one line in TASKS, then --task with its name. Also: --task copy, sort or sum, --broken, and
    --compare n_heads=1,2,4,8.

    Write it yourself: --template my_training.py, then --grade my_training.py. And train what you wrote in
    lessons 1 to 4: --with my_attention.py --with my_heads.py puts your parts into the model.
    Next: python 06_decoding.py, where the model answers in every way there is.
    """


# ------------------------------------------------------------------ the command line


COMPARABLE = ("n_heads", "n_layers", "d_model", "norm", "positions", "warmup", "label_smoothing",
              "batch_size", "dropout", "lr", "schedule", "weight_decay", "activation")


def main():
    parser = lesson_parser(__doc__, GRADED)
    add_options(parser, TransformerConfig)
    add_options(parser, TrainingConfig)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (default: auto)")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted training")
    parser.add_argument("--with", dest="own", type=Path, action="append", default=[], metavar="FILE",
                        help="train with the parts in FILE, your own, graded first; may be repeated")
    parser.add_argument("--broken", action="store_true", help="train every broken variant, and end")
    comparing = partial(comparison, configs=(TransformerConfig, TrainingConfig), comparable=COMPARABLE)
    parser.add_argument("--compare", type=comparing, metavar="NAME=VALUE,…",
                        help="train with each value, and end: " + ", ".join(COMPARABLE))
    parser.add_argument("--seeds", type=count, default=1,
                        help="seeds for each value of --compare (default: 1)")
    options = parser.parse_args()
    try:
        config, training = chosen(TransformerConfig, options), chosen(TrainingConfig, options)
        own = own_parts(options.own, 5, Narrator(options.outputs)) if options.own else NOTHING
        if options.own and not found_in(make_run(config, training, CPU, own=own).model, own.parts):
            parser.error(f"the model has no place for {', '.join(own.parts)}")
        experiment = DigitExperiment(config, training, options, own)
        name, values = options.compare or ("", [])
        variants = [(config, training), *(changed((config, training), name, value) for value in values)]
        for sizes, settings in variants:
            refuse_beyond_memory(sizes, settings, experiment.device)
        if options.resume:
            experiment.go_on()  # or it ends here, before any step
        if max(sizes.d_model for sizes, _ in variants) >= 256:
            options.threads = options.threads or torch.get_num_threads()
    except (ValueError, RuntimeError) as error:  # RuntimeError: more memory than there is
        parser.error(str(error).partition("\n")[0])
    steps = [
        step_task,
        step_teacher_forcing,
        step_masks,
        step_the_model,
        step_loss,
        step_last_gain,
        step_adam,
        step_schedule,
        step_overfit,
        step_the_loop,
        step_by_hand_or_kernel,
        step_training,
        step_two_accuracies,
        step_attention_patterns,
        step_what_learns,
        step_scarce_data,
        step_broken_on_purpose,
        step_what_next,
    ]
    if options.broken:
        steps = [step_all_broken]
    elif options.compare:
        steps = [step_compare]
    elif PROCESSES > 1:
        steps = [step_training]
    elif options.own:
        steps = [step_training, step_with_your_parts]
    with all_processes(experiment.device):
        narrate(options, __doc__, steps, experiment)


if __name__ == "__main__":
    main()

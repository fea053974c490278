"""Lesson 5. Does it learn?

The parts become a Transformer that reads a sequence of digits and writes its answer: reversed, copied,
sorted or added up. The encoder reads the source once; the decoder writes one token after the other and,
while learning, is told all tokens before the one it has to guess (teacher forcing):

    loss = −mean log P(y_t | y_1 … y_{t−1}, source)

Token embedding and logits share one matrix, source and target one vocabulary (section 3.4). Where we
depart from the paper: pre-norm, GELU, biases in all projections, small first weights; no dropout and no
label smoothing unless asked for; a learning rate that falls linearly, Adam with PyTorch's β₂ and ε, weight
decay on every parameter, clipped gradients. What PyTorch has as one kernel (attention, LayerNorm, GELU,
cross-entropy, Adam) was or is built by hand and shown equal; the kernel is what trains, --by-hand trains
with the hand-made ones. Lessons 1 to 4 built the parts; lesson 6 decodes in every other way.
"""

import argparse
import math
import statistics
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import zip_longest
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
from course.checking import gradients, largest_difference
from course.comparing import changed, compare, scores_of, summaries
from course.digits import DIGITS, draw_sequences, split_of
from course.engine import Job, Run, Settings, finish, train
from course.experiment import Experiment
from course.options import add_options, changed_options, check_limits, chosen, comparison, count, option
from course.parts import build
from course.processes import PROCESSES, all_processes, own_device
from figures.training import (
    draw_broken,
    draw_comparison,
    draw_gradient_flow,
    draw_patterns,
    draw_schedule,
    draw_training,
)

causal_mask = lesson("01_attention_mechanism").causal_mask
padding_mask = lesson("01_attention_mechanism").padding_mask
scaled_dot_product_attention = lesson("01_attention_mechanism").scaled_dot_product_attention
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
gelu = lesson("04_transformer_block").gelu
layer_norm = lesson("04_transformer_block").layer_norm

__all__ = [
    "TASKS",
    "Adam",
    "Batch",
    "DigitExperiment",
    "TrainingConfig",
    "Transformer",
    "TransformerConfig",
    "draw_batch",
    "draw_sequences",
    "evaluate",
    "exactly_right",
    "free_running",
    "fused_sequence_loss",
    "learning_rate",
    "make_batch",
    "make_job",
    "make_run",
    "pad",
    "remake",
    "run_name",
    "sequence_loss",
    "teacher_forcing",
    "tokenizer",
]

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
    vocab_size: int = option(len(tokenizer), least=1)

    def __post_init__(self):
        check_limits(self)
        if self.d_model % self.n_heads:
            raise ValueError(f"d_model {self.d_model} does not split into {self.n_heads} heads")
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


def sequence_loss(
    logits: Tensor, targets: Tensor, label_smoothing: float = 0.0
) -> Tensor:
    """Cross-entropy summed over all real tokens: logits (B, T, V), targets (B, T) → scalar.

    PAD counts nothing. With label smoothing ε (section 5.4) the target distribution is 1 − ε on the
    right token plus ε / V on every token. Divide by the number of real tokens for the mean.
    """
    log_probs = logits.log_softmax(dim=-1)  # (B, T, V)
    right = log_probs.gather(-1, targets[..., None])[..., 0]  # (B, T)
    even = log_probs.mean(dim=-1)
    loss = -(1 - label_smoothing) * right - label_smoothing * even
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
class TrainingConfig(Settings):
    """One training run on digits. ValueError, with the value, for what makes no sense."""

    task: str = option("reverse", f"one of {', '.join(TASKS)}", among=TASKS)
    steps: int = option(0, "training steps; 0: what the task needs", least=0)
    batch_size: int = option(0, "sequences a step; 0: what the task needs", least=0)
    lr: float = option(3e-3, "highest learning rate; inverse_sqrt has its own", above=0)
    warmup: int = option(50, "steps of warm-up", least=0)
    schedule: str = option("linear", "linear, or inverse_sqrt as in the paper",
                           among=("linear", "inverse_sqrt"))
    weight_decay: float = option(0.2, "decoupled weight decay (AdamW)", least=0)
    label_smoothing: float = option(0.0, "share of the target spread over all tokens", least=0, below=1)
    by_hand: bool = option(False, "train with the hand-made parts in place of PyTorch's kernels")

    def __post_init__(self):
        super().__post_init__()
        steps, batch_size = RECIPES.get(self.task, (700, 32))
        object.__setattr__(self, "steps", self.steps or steps)
        object.__setattr__(self, "batch_size", self.batch_size or batch_size)
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
    loss = fused_sequence_loss(logits, batch.tgt_out) / real.sum()
    accuracy = (logits.argmax(-1) == batch.tgt_out)[real].float().mean()
    exact = exactly_right(decode(model, batch.src, batch.tgt_out.shape[1]), batch.tgt_out)
    model.train(was_training)
    return Scores(loss.item(), accuracy.item(), exact.float().mean().item(), exact.cpu())


# ------------------------------------------------------------------ training


def train_plainly(model: nn.Module, training: TrainingConfig, steps: int) -> list[float]:
    """The loop, as short as it gets → the losses. The engine does the same, and more besides."""
    optimizer = torch.optim.AdamW(
        model.parameters(), weight_decay=training.weight_decay, fused=True
    )
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


def make_job(model: nn.Module, training: TrainingConfig, device: torch.device, held_out: Batch) -> Job:
    """What the engine needs to know of a training on digits; it validates on `held_out`."""
    loss_of, adam = fused_sequence_loss, partial(torch.optim.AdamW, fused=True)
    if training.by_hand:
        loss_of, adam = sequence_loss, Adam
    held_out = held_out.to(device)

    def loss(forward: Callable, part: Batch, whole: Batch) -> Tensor:
        logits = forward(part.src, part.tgt_in).float()
        return loss_of(logits, part.tgt_out, training.label_smoothing) / (whole.tgt_out != PAD).sum()

    def validate(model: nn.Module) -> dict[str, float]:
        scores = evaluate(model, held_out)
        return {"validation_loss": scores.loss, "token_accuracy": scores.token_accuracy,
                "exact_match": scores.exact_match}

    return Job(
        batch=partial(training_batch, training),
        loss=loss,
        rate=lambda step: learning_rate(step, training, model.config.d_model),
        optimizer=lambda trained: adam(trained, lr=0.0, weight_decay=training.weight_decay),
        validate=validate,
        blocks=[*model.encoder.blocks, *model.decoder.blocks],
    )


def make_run(config: TransformerConfig, training: TrainingConfig, device: torch.device,
             transformer: Callable | None = None, held_out: Batch | None = None) -> Run:
    """A fresh run; --by-hand puts the hand-made parts into its model.

    `transformer` is another class of model; `held_out` is what it validates on, else 100 sequences.
    """
    torch.manual_seed(training.seed)
    model = build(lambda: (transformer or Transformer)(config), BY_HAND if training.by_hand else {})
    held_out = held_out or draw_batch(training.task, 100, "validation", (training.seed,))
    about = {"name": training.task, "config": asdict(config), "training": asdict(training)}
    return Run(model, make_job(model, training, device, held_out), training, device, about)


def remake(about: dict[str, Any], device: torch.device) -> Run:
    """The run that a checkpoint tells of, fresh."""
    return make_run(TransformerConfig(**about["config"]), TrainingConfig(**about["training"]), device)


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

    def __init__(self, config: TransformerConfig, training: TrainingConfig, options: argparse.Namespace):
        device = own_device(options.device)
        self.config, self.training = config, training
        super().__init__(run_name(config, training), "reverse", lambda: make_run(config, training, device),
                         partial(remake, device=device), options, device, note_gradients)


def text_of(ids: Tensor) -> str:
    """Ids as tokens, the special ones with their names."""
    return " ".join(tokenizer.token_of[id] for id in ids.tolist())


@shows(split_of)
def step_task(experiment: DigitExperiment):
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


@shows(Adam.move, Adam.corrected)
def step_adam(experiment: DigitExperiment):
    """Adam

    Plain gradient descent takes big steps where the gradient is big. Adam divides by the gradient's usual
    size, per number: each moves by about the learning rate, in the direction that the last gradients
    agree on. AdamW also shrinks every weight a little in each step. The training below uses PyTorch's
    own, fused into one kernel; here is ours beside it.
    """
    check_part(Adam, adam_checks, OURS)


@shows(learning_rate)
def step_schedule(experiment: DigitExperiment):
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
    check_part(learning_rate, learning_rate_checks, OURS)
    return Picture(experiment.file("training_schedule"), draw_schedule(rates),
                   "The learning rate goes up, then down: in a line, or as in the paper")


def learn_by_heart(model, batch: Batch, steps: int = 150) -> list[float]:
    """The losses on one batch, again and again."""
    optimizer, losses = Adam(model.parameters(), lr=3e-3), []
    for _ in range(steps):
        loss = sequence_loss(model(batch.src, batch.tgt_in), batch.tgt_out)
        loss = loss / (batch.tgt_out != PAD).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@shows(learn_by_heart)
def step_overfit(experiment: DigitExperiment):
    """One batch by heart

    The first thing to try with any new model: can it learn eight sequences by heart? If not, something is
    wrong that no amount of data will mend. No schedule, no clipping, our own Adam.
    """
    batch = draw_batch(experiment.training.task, 8, "train", (2,))
    model = Transformer(experiment.config)
    losses = learn_by_heart(model, batch)
    exact = evaluate(model, batch).exact_match
    if experiment.config == TransformerConfig():
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
    below runs in the course's engine (course/engine.py), which does the same and, besides, keeps a history,
    validates, saves, resumes, and works in several processes. Twenty steps of the default model, with a
    warm-up of 5 and clipped at 0.1, so that rate and clipping have work to do, done both ways:
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
    right = [record["step"] for record in run.history if record.get("exact_match") == 1]
    if right:
        facts.append(f"first validation without an error: after step {right[0]}")
    return "\n".join(facts), picture


@shows(free_running)
def step_two_accuracies(experiment: DigitExperiment):
    """Two accuracies

    With teacher forcing, single tokens are counted, each after a perfect beginning. Free-running, the model
    goes on from its own tokens, and one wrong token spoils the answer: if each is right with probability
    0.99, independently, of answers with 16 tokens 0.99^16 = 85 % are right. So the second number is the
    one to trust: exact match, free-running, on 2,000 test sequences. The last three rows are longer than
    anything trained.
    """
    run = experiment.run
    model, task = run.model.eval(), experiment.training.task
    batch = draw_batch(task, TEST_SIZE, "test", (experiment.training.seed,)).to(run.device)
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
def step_attention_patterns(experiment: DigitExperiment):
    """Where the model looks

    To write the next digit of a reversed sequence, the decoder has to find it from the end of the source:
    in cross-attention that is an anti-diagonal (for copy: a diagonal). Which heads do it, and in which
    block, is up to the training. For these two tasks a table gives the mean weight on exactly that digit,
    over 50 test sequences of 10 digits; a head that looks everywhere alike would put 0.10 there. The figure
    shows what the other heads do.
    """
    run = experiment.run
    run.model.eval()
    task = experiment.training.task
    batch = make_batch(task, draw_sequences(50, "test", (3,), (10, 10))).to(run.device)
    with torch.no_grad(), record_attention(run.model) as weights:
        run.model(batch.src, batch.tgt_in)
    figure = draw_patterns(weights, text_of(batch.src[0]).split(), text_of(batch.tgt_in[0]).split())
    file = experiment.file("transformer_attention_patterns")
    if task not in PARTNER:
        return Picture(file, figure, "Which token looks where: rows ask, columns answer")
    masses = [mass_on_partner(weights[f"decoder.blocks.{block}.cross_attention"], task)
              for block in range(experiment.config.n_layers)]
    best = max(mass.max().item() for mass in masses)
    if experiment.name == task:
        check("one head puts most of its weight on the digit to write", best > 0.5, f"{best:.2f}")
    rows = [(f"cross-attention, block {block}", *mass.tolist()) for block, mass in enumerate(masses)]
    picture = Picture(file, figure, f"The surest head of the cross-attention puts {100 * best:.0f} % of its "
                                    "weight on the digit to write (rows ask, columns answer)")
    return table("", *(f"head {head}" for head in range(experiment.config.n_heads)), rows=rows), picture


def gradient_norms(model: Transformer) -> dict[str, float]:
    """The norm of the gradient in the embedding and in every block of both stacks."""
    stacks = ("encoder", model.encoder), ("decoder", model.decoder)
    parts = {"embedding": model.embedding} | {
        f"{name} {number}": block for name, stack in stacks for number, block in enumerate(stack.blocks)}
    return {name: torch.cat([p.grad.flatten() for p in part.parameters()]).norm().item()
            for name, part in parts.items()}


def note_gradients(run: Run) -> None:
    """After an update that is validated, note the norms as they were before clipping."""
    if run.validation_due:
        clipped = max(1.0, run.history[-1]["gradient_norm"] / run.settings.clip)
        run.history[-1] |= {f"gradient in {name}": clipped * norm
                            for name, norm in gradient_norms(run.model).items()}


@shows(gradient_norms)
def step_gradient_flow(experiment: DigitExperiment):
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
    return Picture(experiment.file("training_gradient_flow"), draw_gradient_flow(noted),
                   "Every block receives a gradient, from the first to the last")


def step_broken_on_purpose(experiment: DigitExperiment):
    """Broken on purpose

    Two mistakes that look like success. Without the shift the decoder reads the very token that it should
    say; without the causal mask it reads it one place further on. Both learn to copy their input. With
    teacher forcing they beat the right model, in loss and accuracy; when they have to answer by themselves,
    nothing is there to copy. All three learned reverse for 150 steps:
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
    rows = [(name, score["validation_loss"], f"{score['token_accuracy']:.1%}", f"{score['exact_match']:.1%}")
            for name, score in scores.items()]
    return table("", "test loss", "tokens, teacher forcing", "exact match", rows=rows)


def step_all_broken(experiment: DigitExperiment):
    """Every way to break it

    Each variant is trained for 400 steps (or --steps), with the same data and seed. Compare the two
    accuracies with those of the right run; each bug has its signature:

    No shift, no causal mask: teacher forcing looks perfect, free-running gives nothing. No positions:
    single tokens are guessed above chance, whole answers are not. Padding mask inverted: the loss stays
    near that of guessing, for no digit of the source can be seen. No scaling, loss on PAD: nearly as good
    as right, in this small model; only a check finds them. Post-norm at a learning rate of 0.01 without a
    warm-up: stuck from the start, and with one it learns.
    """
    training = replace(experiment.training, steps=experiment.options.steps or 400)
    held_out = draw_batch(training.task, 500, "test", (0,))
    variants = broken_runs(OURS, experiment.config, training, experiment.device, held_out)
    scores = scores_of(variants, training.seed, train)
    if experiment.name in ("reverse", "copy"):
        for statement, holds in signatures(scores):
            check(statement, holds)
    return broken_table(scores), Picture("training_broken.png", draw_broken(scores),
                                         "Teacher forcing hides what free running shows")


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
    picture = Picture(f"training_compare_{name}.png", draw_comparison(name, curves),
                      f"{name} = {best} answers the largest share of test sequences right")
    return table(name, "parameters", "seconds", "exact match", rows=rows), picture


def step_what_next(experiment: DigitExperiment):
    """What now?

    Read: Transformer, then train_plainly, then Run.update in course/engine.py, which is the same in parts.

    Change: (1) --positions none: see what is left of reverse. (2) --norm post --lr 0.01 --warmup 0, then
    with --warmup 100: the first doesn't learn. (3) Add a task: one function from digits to digits, one line
    in TASKS, then --task with its name. Also: --task copy, sort or sum, --broken, and
    --compare n_heads=1,2,4,8.

    Write it yourself: --template my_training.py, then --grade my_training.py.
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
    parser.add_argument("--broken", action="store_true", help="train every broken variant, and end")
    comparing = partial(comparison, configs=(TransformerConfig, TrainingConfig), comparable=COMPARABLE)
    parser.add_argument("--compare", type=comparing, metavar="NAME=VALUE,…",
                        help="train with each value, and end: " + ", ".join(COMPARABLE))
    parser.add_argument("--seeds", type=count, default=1,
                        help="seeds for each value of --compare (default: 1)")
    options = parser.parse_args()
    try:
        config, training = chosen(TransformerConfig, options), chosen(TrainingConfig, options)
        experiment = DigitExperiment(config, training, options)
        name, values = options.compare or ("", [])
        configs = [config, *(changed((config, training), name, value)[0] for value in values)]
        for sizes in configs:
            Transformer(sizes)  # refuses those that don't fit together
        if max(sizes.d_model for sizes in configs) >= 256:
            options.threads = options.threads or torch.get_num_threads()
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
        step_the_loop,
        step_by_hand_or_kernel,
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

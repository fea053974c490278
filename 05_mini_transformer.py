"""Lesson 5. Does it learn?

The parts become a Transformer that reads digits and answers with them reversed, copied, sorted or summed.
The encoder reads the source once; the decoder writes one token after the other and, while learning, is told
all tokens before the one it has to guess (teacher forcing). The loss (cross-entropy) is

    loss = −mean log P(y_t | y_1 … y_{t−1}, source)

You need the parts of lessons 1 to 4; --with FILE puts your own into the model. You will build the
Transformer, its loss, Adam, the learning-rate schedule and the training loop. The lesson runs in about a
minute and takes an hour and a half to read.
"""

import course.console.startup  # noqa: F401 (before torch: it reports what fails in the imports below)
import math
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import zip_longest
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

import checks.training as checks
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
from course.console.options import changed_options, option
from course.data.digits import DIGITS, draw_sequences, split_of
from course.grading.checking import largest_difference
from course.grading.own import NOTHING, Own
from course.pages.live import write_live
from course.training.base import Base
from course.training.broken import ACCURACIES, accuracies, broken_runs, signatures
from course.training.command_line import CommandLine, steps_asked_for
from course.training.comparing import best, histories, scores_of, summaries
from course.training.configs import SequenceTraining, TransformerConfig
from course.training.engine import Job, Run, finish, train
from course.training.experiment import ModelExperiment, Prepare, fresh_run
from course.training.processes import all_processes
from course.training.side_by_side import side_by_side
from figures import training as drawing

causal_mask, padding_mask, scaled_dot_product_attention = lesson(
    "01_attention_mechanism", "causal_mask", "padding_mask", "scaled_dot_product_attention")
record_attention = lesson("02_multi_head_attention").record_attention
BOS, EOS, PAD, TokenEmbedding, Tokenizer, positions_of = lesson(
    "03_positional_encoding", "BOS", "EOS", "PAD", "TokenEmbedding", "Tokenizer", "positions_of")
Decoder, Encoder, gelu, layer_norm = lesson(
    "04_transformer_block", "Decoder", "Encoder", "gelu", "layer_norm")

__all__ = ["BY_HAND", "COMMAND_LINE", "TASKS", "Adam", "Batch", "DigitExperiment", "SequenceTraining",
           "TrainingConfig", "Transformer", "TransformerConfig", "draw_batch", "draw_sequences", "evaluate",
           "exactly_right", "free_running", "fused_sequence_loss", "learning_rate", "make_batch", "make_run",
           "pad", "run_name", "sequence_job", "sequence_loss", "teacher_forcing", "tokenizer",
           "train_plainly", "training_batch"]

LENGTHS = 4, 16
TEST_SIZE = 2000
tokenizer = Tokenizer([DIGITS], level="character")
ZERO = tokenizer.encode("0")[0]  # digit d has id ZERO + d


# ------------------------------------------------------------------ the model


class Transformer(nn.Module):
    """Encoder and decoder (figure 1) with a shared embedding; the last gain starts at d_model^−½."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.config = config
        width = config.d_model
        self.positions, rotary = positions_of(config.positions, width, config.n_heads, config.max_len)
        sizes = (config.n_layers, width, config.n_heads, config.d_ff, config.dropout, config.norm,
                 config.activation, rotary)
        self.embedding = TokenEmbedding(config.vocab_size, width)
        self.encoder = Encoder(*sizes)
        self.decoder = Decoder(*sizes)
        last = self.decoder.norm if config.norm == "pre" else self.decoder.blocks[-1].around_feed_forward.norm
        nn.init.constant_(last.gain, width**-0.5)  # otherwise the tied output begins by repeating its input

    def forward(self, src: Tensor, tgt: Tensor) -> Tensor:
        """src (B, S) and tgt (B, T), which begins with BOS → logits (B, T, V) of the next tokens."""
        return self.decode(tgt, self.encode(src), self.src_mask(src))

    def encode(self, src: Tensor) -> Tensor:
        """src (B, S) → memory (B, S, D)."""
        return self.encoder(self.embed(src), self.src_mask(src))

    def decode(self, tgt: Tensor, memory: Tensor, src_mask: Tensor | None, start: int = 0) -> Tensor:
        """tgt (B, T), memory (B, S, D), src_mask (B, 1, 1, S) or None → logits (B, T, V).

        tgt begins at position `start`; lesson 6's cache knows what came before. Padding at the end of tgt
        needs no mask: the causal mask hides it from all real tokens before it.
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


TASKS: dict[str, Callable[[list[int]], list[int]]] = {  # digits → the digits of the answer
    "reverse": lambda digits: digits[::-1],
    "copy": list,
    "sort": sorted,
    "sum": lambda digits: [int(digit) for digit in str(sum(digits))],
    "mirror": lambda digits: [9 - digit for digit in digits[::-1]],
}


class Batch(NamedTuple):
    """Padded ids: src (B, S), tgt_in (B, T) = BOS y…, tgt_out (B, T) = y… EOS."""

    src: Tensor
    tgt_in: Tensor
    tgt_out: Tensor

    def to(self, device: torch.device) -> "Batch":
        return Batch(*(tensor.to(device) for tensor in self))


def pad(rows: list[list[int]]) -> Tensor:
    """(B, longest), padded with PAD at the end."""
    width = max(map(len, rows))
    return torch.tensor([row + [PAD] * (width - len(row)) for row in rows])


def teacher_forcing(answers: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Decoder input BOS y_1 … y_n and target y_1 … y_n EOS, both (B, longest + 1), PAD at the end.

    At each place the input holds the tokens so far, and the target holds the next one.
    """
    return pad([[BOS, *answer] for answer in answers]), pad([[*answer, EOS] for answer in answers])


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

    PAD does not count. With label smoothing ε (section 5.4) the target distribution is 1 − ε on the right
    token plus ε / V on every token.
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

    Each parameter has running means of its gradient and of the square; both start at 0, which the division
    by 1 − βᵗ corrects. The step is learning rate · mean / √square. No gradient, no step.
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
        """A running mean, corrected for its start at 0."""
        return mean / (1 - beta**steps)


RECIPES = {"sort": (2000, 64), "sum": (2000, 128)}  # steps and batch size; otherwise 700 and 32


@dataclass(frozen=True)
class TrainingConfig(SequenceTraining):
    """One training run on digits. ValueError, with the value, for a setting that makes no sense."""

    task: str = option("reverse", f"one of {', '.join(TASKS)}", among=TASKS)
    steps: int = option(0, "training steps; 0: what the task needs", least=0, below=10**7)
    batch_size: int = option(0, "sequences per step; 0: what the task needs", least=0)

    def __post_init__(self):
        super().__post_init__()
        steps, batch_size = RECIPES.get(self.task, (700, 32))
        object.__setattr__(self, "steps", self.steps or steps)
        object.__setattr__(self, "batch_size", self.batch_size or batch_size)
        self.refuse_fewer_than_parts(self.batch_size)


def learning_rate(step: int, training: SequenceTraining, d_model: int) -> float:
    """The rate of step 0, 1, …

    linear: up to training.lr over the warm-up, then down to 0 at the end; a run that is shorter than its
    warm-up ends on the way up. inverse_sqrt (section 5.3): d_model^−½ · min(n^−½, n · warmup^−3/2) with n =
    step + 1. A warm-up of 0 counts as 1.
    """
    n, warmup = step + 1, max(1, training.warmup)
    if training.schedule == "inverse_sqrt":
        return d_model**-0.5 * min(n**-0.5, n * warmup**-1.5)
    left = (training.steps - step) / max(1, training.steps - training.warmup)
    return training.lr * min(n / warmup, left, 1.0)


# ------------------------------------------------------------------ how good is it?


class Scores(NamedTuple):
    """An evaluation's loss and accuracies; `forced` and `exact` (B,) say which answers are right."""

    loss: float
    token_accuracy: float  # with teacher forcing
    exact_match: float  # free-running, the whole answer right
    forced: Tensor  # with teacher forcing, every token right
    exact: Tensor


@torch.no_grad()
def free_running(model: Transformer, src: Tensor, max_length: int) -> Tensor:
    """src (B, S) → the model's own answers (B, ≤ max_length): the likeliest token at each step, fed back.

    This is the shortest way to write it, not the fastest: each step runs the whole decoder again.
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


def train_plainly(model: nn.Module, optimizer: torch.optim.Optimizer, batches: Iterable[Batch],
                  training: SequenceTraining | None = None) -> list[float]:
    """The loop, as short as it gets → the losses. `training` sets clip and rates; the engine does more."""
    losses = []
    for step, batch in enumerate(batches):
        loss = fused_sequence_loss(model(batch.src, batch.tgt_in), batch.tgt_out)
        loss = loss / (batch.tgt_out != PAD).sum()
        optimizer.zero_grad()
        loss.backward()
        if training:
            clip_grad_norm_(model.parameters(), training.clip)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, training, model.config.d_model)
        optimizer.step()
        losses.append(loss.item())
    return losses


def training_batch(training: TrainingConfig, step: int) -> Batch:
    """The batch depends only on seed and step, so that a resumed run sees the same batches."""
    return draw_batch(training.task, training.batch_size, "train", (training.seed, step))


BY_HAND = {  # name → the hand-made part; the kernel of each runs unless --by-hand
    "scaled_dot_product_attention": scaled_dot_product_attention,
    "layer_norm": layer_norm,
    "gelu": gelu,
}


def sequence_job(model: nn.Module, training: SequenceTraining, batch: Callable[[int], Any],
                 validate: Callable[[nn.Module], dict[str, float]],
                 blocks: Sequence[nn.Module] | None = None) -> Job:
    """What the engine needs to know to train on batches (inputs …, targets), whatever their tokens mean.

    model(inputs …) gives the logits, model.config.d_model its width. --recompute runs `blocks` again; by
    default those of an encoder and a decoder.
    """
    loss_of, adam = fused_sequence_loss, partial(torch.optim.AdamW, fused=True)
    if training.by_hand:
        loss_of, adam = sequence_loss, Adam

    def loss(forward: Callable, part: tuple[Tensor, ...], whole: tuple[Tensor, ...]) -> Tensor:
        logits = forward(*part[:-1]).float()
        return loss_of(logits, part[-1], training.label_smoothing) / (whole[-1] != PAD).sum()

    return Job(
        batch=batch, loss=loss, validate=validate,
        rate=lambda step: learning_rate(step, training, model.config.d_model),
        optimizer=lambda trained: adam(trained, lr=0.0, betas=(0.9, training.beta2),
                                       weight_decay=training.weight_decay),
        blocks=[*model.encoder.blocks, *model.decoder.blocks] if blocks is None else blocks,
    )


def make_run(config: TransformerConfig, training: TrainingConfig, device: torch.device,
             transformer: Callable | None = None, held_out: Batch | None = None, own: Own = NOTHING,
             prepare: Prepare | None = None, base: Base | None = None) -> Run:
    """A fresh run on digits; --by-hand puts the hand-made parts into its model, --with a learner's own.

    `transformer` replaces the model class. `held_out` is the validation batch (default: 100 sequences).
    The model begins with the weights of `base`, and prepare(model) returns the model that is trained.
    """
    held_out = (held_out or draw_batch(training.task, 100, "validation", (training.seed,))).to(device)

    def validate(model: nn.Module) -> dict[str, float]:
        scores = evaluate(model, held_out)
        return {"validation_loss": scores.loss, "token_accuracy": scores.token_accuracy,
                "forced_match": scores.forced.float().mean().item(), "exact_match": scores.exact_match}

    return fresh_run(
        partial(transformer or Transformer, config),
        lambda model: sequence_job(model, training, partial(training_batch, training), validate),
        config, training, device, {"name": training.task}, BY_HAND, own, prepare, base)


def run_name(config: TransformerConfig, training: TrainingConfig) -> str:
    """The task and every option that isn't the default: runs that differ never share a file."""
    sizes = changed_options(config, replace(TransformerConfig(), d_ff=4 * config.d_model))  # it follows
    return "-".join([training.task, *sizes, *changed_options(training, TrainingConfig(task=training.task))])


class DigitExperiment(ModelExperiment):
    """What the command line asked for, and the run that came of it."""

    default, named = "reverse", staticmethod(run_name)

    def variant(self, config: TransformerConfig, training: TrainingConfig) -> Run:
        return make_run(config, training, self.device, own=self.own, base=self.base)


COMMAND_LINE = CommandLine(TransformerConfig, TrainingConfig, Transformer, DigitExperiment, (
    "n_heads", "n_layers", "d_model", "norm", "positions", "warmup", "label_smoothing", "batch_size",
    "dropout", "lr", "schedule", "weight_decay", "activation", "attention"))
GRADED = {  # the parts that --grade looks for, and what must hold for each
    "Transformer": checks.transformer_checks,
    "teacher_forcing": checks.teacher_forcing_checks,
    "sequence_loss": checks.sequence_loss_checks,
    "Adam": checks.adam_checks,
    "learning_rate": checks.learning_rate_checks,
}
OURS = sys.modules[__name__]  # the checks make the classic mistakes from its parts


# ------------------------------------------------------------------ the steps


def text_of(ids: Tensor) -> str:
    """Ids as tokens, the special ones with their names."""
    return " ".join(tokenizer.token_of[id] for id in ids.tolist())


@shows(split_of)
def step_task(experiment: DigitExperiment):
    """The task

    The model reads a sequence of 4 to 16 digits. Its answer is the digits reversed, copied or sorted, the
    digits of their sum, or (mirror) 9 − d for each digit d, reversed. New sequences can always be generated.
    To rule out that the model has memorised its answers, it is tested on sequences that it never saw. A
    checksum of the digits sends each sequence to training, validation or test, always to the same one.
    """
    batch = draw_batch(experiment.training.task, 5, "train", (experiment.options.seed,))
    rows = [(name, text_of(ids)) for pair in zip(batch.src[:2], batch.tgt_out) for name, ids in zip(
        ("source", "answer"), pair)]
    sent = [split_of(digits) for digits in torch.randint(10, (20_000, 8)).tolist()]
    found = [sent.count(split) / len(sent) for split in ("train", "validation", "test")]
    check("of 20,000 random sequences about 80, 10 and 10 % go to training, validation and test",
          max(abs(part - wanted) for part, wanted in zip(found, (0.8, 0.1, 0.1))) < 0.01,
          ", ".join(f"{part:.1%}" for part in found))
    return table("", f"a batch of “{experiment.training.task}”", rows=rows)


@shows(teacher_forcing)
def step_teacher_forcing(experiment: DigitExperiment):
    """Teacher forcing

    The decoder learns to continue: at each place it sees the right tokens so far and has to say the next
    one. So its input is the answer shifted by one place, with BOS (beginning of sequence) in front, and
    the target ends in EOS (end of sequence). PAD fills the shorter sequences of a batch.

    All places of all sequences are learned at once; the causal mask keeps each place from reading its target
    in the input. When the trained model answers, it is not given the right tokens: it reads its own.
    """
    batch = make_batch(experiment.training.task, [[3, 1, 4, 1, 5]])
    check_part(teacher_forcing, checks.teacher_forcing_checks, OURS)
    return table("", "tokens", rows=[
        ("source", text_of(batch.src[0])), ("decoder reads", text_of(batch.tgt_in[0])),
        ("and should say", text_of(batch.tgt_out[0]))])


@shows(Transformer.src_mask, Transformer.tgt_mask)
def step_masks(experiment: DigitExperiment):
    """The three masks of a batch

    A source of 3 digits is in a batch with a source of 5. Encoder and cross-attention must not look at the
    two PADs; the decoder must not look ahead. The PADs at the end of the decoder's input need no mask: they
    come after every real token, and the loss ignores their outputs.
    """
    batch = make_batch(experiment.training.task, [[1, 2, 3, 4, 5], [6, 7, 8]])
    source, target = batch.src.shape[1], batch.tgt_in.shape[1]
    padding = padding_mask(batch.src, PAD)[1, 0]  # (1, S)
    columns = [mask_rows(padding.expand(source, -1)), mask_rows(causal_mask(target)),
               mask_rows(padding.expand(target, -1))]
    model = Transformer(experiment.config).eval()
    wider = Batch(*(F.pad(tensor, (0, 7), value=PAD) for tensor in batch))
    gap = largest_difference(model(wider.src, wider.tgt_in)[:, :target], model(batch.src, batch.tgt_in))
    check("seven more PADs in source and target change no logit", gap < 1e-5, f"largest difference {gap:.0e}")
    return table("encoder (S × S)", "decoder, itself (T × T)", "decoder, source (T × S)",
                 rows=zip_longest(*columns, fillvalue=""))


@shows(Transformer.forward, Transformer.encode, Transformer.decode, Transformer.embed)
def step_the_model(experiment: DigitExperiment):
    """The whole model

    The model has two stacks and one embedding for source and target. The same matrix also turns the decoder's
    vectors into logits, one score per token of the vocabulary (section 3.4). PyTorch's nn.Transformer,
    between the same embedding and output, has to give the same logits and gradients.
    """
    check_part(Transformer, checks.transformer_checks, OURS)
    model = Transformer(experiment.config)
    parts = {"embedding, also output": model.embedding, "encoder": model.encoder,
             "decoder": model.decoder, "all": model}
    return table("part", "parameters", rows=[(name, parameters(part)) for name, part in parts.items()])


@shows(sequence_loss)
def step_loss(experiment: DigitExperiment):
    """The loss, before anything is learned

    The loss is −log of the probability given to the right token. A model that knows nothing gives each of the
    V tokens the probability 1/V, so its loss is ln V. Our model starts a little above ln V, because its first
    guesses are not quite even. Padding must not count: the loss of a batch is the sum over its sequences, and
    training divides this sum by the number of real tokens.

    With label smoothing the target q has a little probability on every token; then even a perfect model's
    loss is the entropy −Σ q·log q, not 0.
    """
    batch = draw_batch(experiment.training.task, 200, "train", (1,))
    loss, floor = evaluate(Transformer(experiment.config), batch).loss, math.log(len(tokenizer))
    check("the untrained loss is near ln V", abs(loss - floor) < 1, f"{loss:.2f}; ln V = {floor:.2f}")
    check_part(sequence_loss, checks.sequence_loss_checks, OURS)
    check_part(fused_sequence_loss, checks.sequence_loss_checks, OURS)


@shows(Adam.move, Adam.corrected)
def step_adam(experiment: DigitExperiment):
    """Adam

    Plain gradient descent takes big steps where the gradient is big. Adam divides each number of the gradient
    by its usual size: a step is about the learning rate at first, and smaller where recent gradients disagree
    (lesson 9 measures this). Adam keeps two running means: one of the gradient, over about the last 10 steps
    (β₁ = 0.9), and one of its square, over about 1,000 (β₂ = 0.999). ε = 10⁻⁸ prevents a division by 0; a
    parameter whose gradient is even smaller hardly moves.

    AdamW also shrinks every weight a little in each step (weight decay). Is Adam needed? The table compares
    Adam with plain descent at three rates, over sixty steps of 16 sequences:
    """
    check_part(Adam, checks.adam_checks, OURS)
    task = experiment.training.task
    batches = [draw_batch(task, 16, "train", (3, step)) for step in range(60)]
    makers = {f"plain descent, rate {rate}": partial(torch.optim.SGD, lr=rate) for rate in (0.3, 1.0, 3.0)}
    makers["Adam, rate 0.003"] = partial(torch.optim.Adam, lr=3e-3, fused=True)

    def descend(optimizer_of: Callable) -> list[float]:
        model = Transformer(TransformerConfig())  # the same initial weights for each
        return train_plainly(model, optimizer_of(model.parameters()), batches)

    losses = side_by_side([partial(descend, make) for make in makers.values()])
    ends = [statistics.mean(found[-10:]) for found in losses]
    if task == "reverse":
        check("plain descent at each rate ends with a loss at least 0.1 above Adam's",
              all(not loss < ends[-1] + 0.1 for loss in ends[:-1]), f"{ends[-1]:.2f}")
    return table("", "loss, mean of the last 10 steps", rows=zip(makers, ends))


@shows(learning_rate)
def step_schedule(experiment: DigitExperiment):
    """The learning rate, step by step

    The rate first rises: at a high rate, post-norm needs small first steps (lesson 4). Then it falls, to 0 at
    the end of a run of known length. The paper's rate falls like 1/√n after n steps. It is highest at the end
    of the warm-up: (d_model · warmup)^−½. For the paper's d_model of 512 and 4,000 steps of warm-up this is
    0.0007 (right). With our small model and short warm-up the same formula peaks 25 times as high (left), so
    it isn't the default.
    """
    training = experiment.training
    kinds = {schedule: replace(training, schedule=schedule) for schedule in ("linear", "inverse_sqrt")}
    rates = {schedule: [learning_rate(step, kind, experiment.config.d_model) for step in range(kind.steps)]
             for schedule, kind in kinds.items()}
    paper, steps = replace(training, schedule="inverse_sqrt", warmup=4000), range(99, 100_000, 100)
    papers = [learning_rate(step, paper, 512) for step in steps]
    check("the paper's rate is highest after 4,000 steps",
          steps[papers.index(max(papers))] == 3999 and abs(max(papers) - (512 * 4000) ** -0.5) < 1e-12,
          f"{max(papers):.5f}")
    check_part(learning_rate, checks.learning_rate_checks, OURS)
    return Picture(experiment.file("training_schedule"), drawing.draw_schedule(rates, steps, papers),
                   "The rate rises, then falls: over hundreds of steps here, over thousands in the paper")


def step_overfit(experiment: DigitExperiment):
    """Overfitting one batch

    The first thing to try with any new model: can it memorise eight sequences? If not, something is wrong
    that no amount of data will fix. This run uses our own Adam, without a schedule or clipping.
    """
    batch = draw_batch(experiment.training.task, 8, "train", (2,))
    model = Transformer(TransformerConfig())
    losses = train_plainly(model, Adam(model.parameters(), lr=3e-3), [batch] * 150)
    exact = evaluate(model, batch).exact_match
    check("after 150 steps all eight sequences are answered right", exact == 1, f"exact match {exact:.0%}")
    return table("step", "loss", rows=[(step, losses[step - 1]) for step in (1, 10, 50, 100, 150)])


CPU = torch.device("cpu")
STEPS_SHOWN = 20


@shows(train_plainly)
def step_the_loop(experiment: DigitExperiment):
    """The training loop

    Each step draws new sequences and computes the loss and gradients. If the gradient of all parameters
    together is longer than 1, it is shortened to length 1 (clipping). Then the rate is set, and the optimiser
    moves the weights. The training below runs in the engine (course/training/engine.py), which does the same
    and also validates, saves, resumes, and works in several processes. Loop and engine run 20 steps here,
    with a warm-up of 5 and clipping at 0.1, so that both settings matter:
    """
    training = TrainingConfig(task=experiment.training.task, steps=STEPS_SHOWN, warmup=5, clip=0.1)
    torch.manual_seed(training.seed)
    plain = Transformer(TransformerConfig())
    optimizer = torch.optim.AdamW(plain.parameters(), weight_decay=training.weight_decay, fused=True)
    batches = map(partial(training_batch, training), range(STEPS_SHOWN))
    losses = train_plainly(plain, optimizer, batches, training)
    run = finish(make_run(TransformerConfig(), training, CPU))
    check(f"engine and loop give the same {STEPS_SHOWN} losses, bit for bit",
          losses == run.noted("loss"))
    weights = run.model.state_dict()
    check(f"after {STEPS_SHOWN} steps engine and loop have the same weights, bit for bit",
          all(torch.equal(weight, weights[name]) for name, weight in plain.state_dict().items()))


def step_by_hand_or_kernel(experiment: DigitExperiment):
    """By hand, or in one kernel

    Attention (lesson 1), LayerNorm and GELU (lesson 4), the loss and Adam were built by hand from their
    formulas and checked against PyTorch's kernels, gradients included. Training uses the kernels; --by-hand
    uses our parts. Early losses agree up to rounding; over hundreds of steps they drift apart.
    """
    training = TrainingConfig(task=experiment.training.task, steps=STEPS_SHOWN)
    runs = {name: finish(make_run(TransformerConfig(), replace(training, by_hand=by_hand), CPU))
            for name, by_hand in (("kernels", False), ("by hand", True))}
    gap = max(abs(a - b) for a, b in zip(*(run.noted("loss") for run in runs.values()), strict=True))
    check(f"kernels and hand-made parts give the same first {STEPS_SHOWN} losses up to rounding", gap < 2e-6,
          f"{gap:.0e} apart")
    rows = [(name, run.noted("loss")[-1], f"{1e3 * statistics.median(run.noted('seconds')[5:]):.1f}")
            for name, run in runs.items()]
    return table("", f"loss of step {STEPS_SHOWN}", "milliseconds per step", rows=rows)


def step_training(experiment: DigitExperiment):
    """Training

    Every 50 steps the model answers 100 validation sequences, free-running: the model reads what it wrote
    itself. “exact match” is the fraction of whole answers that are right. A CSV file keeps all numbers.

    We depart from the paper: pre-norm, GELU, biases in all projections, small initial weights, a small gain
    in the last LayerNorm, a linearly falling rate, AdamW, clipping; no dropout or label smoothing by default.
    """
    ended, run = experiment.train(), experiment.run
    if not run.history:
        return ended  # before the first step: nothing to draw
    name = {"sum": "add"}.get(experiment.training.task, experiment.training.task)
    tokens, answers = (next((step for step, part in enumerate(run.noted(measure)) if part > 0.9), math.inf)
                       for measure in ("token_accuracy", "exact_match"))
    before = ": single tokens are right before whole answers" if tokens < answers else ""
    picture = Picture(experiment.file("training_progress"),
                      drawing.draw_training(run.history, run.settings.clip), f"Learning to {name}{before}")
    if ended:
        return picture, ended
    if len(run.history) >= 100:
        first, *_, last = run.noted("loss")
        check("the loss fell", last < first, f"{first:.2f} to {last:.4f}")
    if experiment.name in ("reverse", "copy"):
        check("the token accuracy exceeds 90 % at an earlier validation than the exact match does",
              tokens < answers)
    page = write_live(experiment, tokenizer.token_of, draw_batch(experiment.training.task, 4, "test", (0,)))
    return experiment.facts(), picture, page


@shows(free_running)
def step_two_accuracies(experiment: DigitExperiment):
    """Two accuracies

    With teacher forcing, single tokens are counted, each after a perfect beginning. Free-running, the model
    goes on from its own tokens, and the whole answer has to be right. If each token is right with probability
    0.99, independently, 0.99^16 = 85 % of the answers with 16 tokens are right. So trust the last column,
    exact match.

    The column “answers, forced” counts whole answers with teacher forcing and equals the last column. It
    must: up to the first wrong token the model reads the same tokens in both cases. The two columns differ
    for a model that reads what it shouldn't (step 14). The sequences of the last rows are longer than in
    training: the model learned the rule only for trained lengths.
    """
    run, task = experiment.run, experiment.training.task
    batch = draw_batch(task, TEST_SIZE, "test", (experiment.training.seed,))
    lengths, rows, wrong, same = (batch.src != PAD).sum(1), [], 0, True
    parts = {(low, high): Batch(*(tensor[(lengths >= low) & (lengths <= high)] for tensor in batch))
             for low, high in ((4, 8), (9, 12), (13, 16))}
    parts |= {longer: make_batch(task, draw_sequences(200, "test", longer[:1], longer))
              for longer in ((17, 18), (19, 20), (21, 24))}
    for (low, high), part in parts.items():
        scores = evaluate(run.model, part.to(run.device))
        same = same and torch.equal(scores.forced, scores.exact)
        found = scores.token_accuracy, scores.forced.float().mean().item(), scores.exact_match
        rows.append((f"{low} to {high}", len(part.src), *(f"{accuracy:.2%}" for accuracy in found)))
        wrong += int((~scores.exact).sum()) if high <= LENGTHS[1] else 0
    if experiment.name in ("reverse", "copy"):
        check("of the 2,000 test sequences at most 2 get a wrong answer", wrong <= 2, f"{wrong} wrong")
    check("an answer is right exactly when all of its teacher-forced tokens are right", same)
    return table("length", "sequences", "tokens, forced", "answers, forced", "exact match",
                 rows=rows), experiment.differs


PARTNER: dict[str, Callable[[int, int], int]] = {  # the place in the source of the answer's token t
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

    To write a reversed sequence, the decoder has to read the source from its end to its beginning: in
    cross-attention this gives an anti-diagonal (for copy: a diagonal). Training decides which heads do this,
    in which block. For these two tasks the table gives the mean weight on the digit to write, over test
    sequences of 10 digits. A head that looks at all digits equally would put 0.10 there.

    In the picture rows are queries and columns keys; a decoder row names the tokens read and written. Each
    panel's scale runs from 0 to its largest weight (printed above), ignoring the decoder's first row.
    """
    run, task = experiment.run, experiment.training.task
    batch = make_batch(task, draw_sequences(100, "test", (3,), (10, 10))).to(run.device)
    with torch.no_grad(), record_attention(run.model.eval()) as weights:
        run.model(batch.src, batch.tgt_in)
    reads, writes = (text_of(ids[0]).split() for ids in (batch.tgt_in, batch.tgt_out))
    figure = drawing.draw_patterns(weights, text_of(batch.src[0]).split(), reads, writes)
    file = experiment.file("transformer_attention_patterns")
    if task not in PARTNER:
        return Picture(file, figure, "Which token looks where: rows are queries, columns are keys")
    masses = [mass_on_partner(weights[f"decoder.blocks.{block}.cross_attention"], task)
              for block in range(experiment.config.n_layers)]
    surest = max(mass.max().item() for mass in masses)
    if experiment.name == task:
        check("one cross-attention head puts over half of its weight on the digit to write",
              surest > 0.5, f"{surest:.2f}")
    heads = (f"head {head}" for head in range(experiment.config.n_heads))
    rows = [(f"cross-attention, block {block}", *mass.tolist()) for block, mass in enumerate(masses)]
    finding = f"The surest cross-attention head puts {100 * surest:.0f} % of its weight on the digit to write"
    return table("weight on the digit to write", *heads, rows=rows), Picture(file, figure, finding)


def broken_variants(config: TransformerConfig, training: TrainingConfig, device: torch.device):
    """Name → what makes a run that is broken on purpose; it validates on 500 test sequences."""
    held_out = draw_batch(training.task, 500, "test", (0,))
    return broken_runs(partial(make_run, device=device), config, training,
                       checks.transformer_checks.mistakes(OURS), held_out)


def step_broken_on_purpose(experiment: DigitExperiment):
    """Broken on purpose

    Two mistakes look like success. Without the shift the decoder reads the very token that it should say;
    without the causal mask it finds that token one place ahead. Both models learn to copy their input. With
    teacher forcing they beat the right model in loss and accuracy. When they have to answer by themselves,
    there is nothing to copy. All three models train on reverse for 150 steps (whatever --task says):
    """
    training = TrainingConfig(task="reverse", steps=150)
    variants = broken_variants(TransformerConfig(), training, experiment.device)
    names = "right", "no causal mask", "no shift"
    scores = scores_of({name: variants[name] for name in names}, 0, finish)
    right, *broken = scores.values()
    for name, score in zip(names[1:], broken):
        better = (score["validation_loss"] < right["validation_loss"]
                  and score["token_accuracy"] > right["token_accuracy"])
        check(f"{name}: the model beats the right one with teacher forcing; under 5 % of its own answers "
              "are right", better and score["exact_match"] < 0.05 < right["exact_match"])
    return table(*ACCURACIES, rows=accuracies(scores)), check_mistakes(OURS, checks.transformer_checks)


def step_what_next(experiment: DigitExperiment):
    """What now?

    Read: Transformer, then train_plainly, then Run.update in course/training/engine.py.

    Change: (1) --positions none: see what is left of reverse. (2) --norm post --lr 0.01, first with --warmup
    0, then with --warmup 100: without a warm-up the model learns far more slowly, if at all. (3) Add a task:
    one function from digits to digits, one line in TASKS, then --task with its name. Also: --task copy, sort
    or sum, --broken, and --compare n_heads=1,2,4,8.

    Write it yourself: --template my_training.py --guided, then --grade my_training.py. And train what you
    wrote in lessons 1 to 4: --with my_attention.py --with my_heads.py puts your parts into the model. Next:
    python 06_decoding.py, where the model decodes in other ways.
    """


# ------------------------------------------------------------------ further runs


def step_all_broken(experiment: DigitExperiment):
    """Every way to break it

    Each variant is trained for 400 steps (or --steps), with the same data and seed. The checks say what each
    bug does to the two accuracies. Without positions single tokens are guessed better than chance. An
    inverted padding mask hides every digit of the source: the loss stays near the loss of guessing. Without
    scaling, or with the loss on PAD, this small model is nearly as good as the right one; only a check finds
    these bugs.
    """
    training = replace(experiment.training, steps=experiment.options.steps or 400)
    variants = broken_variants(experiment.config, training, experiment.device)
    scores = scores_of(variants, training.seed, train, "--broken")
    known = experiment.name in ("reverse", "copy") and training.steps == 400
    for statement, holds in signatures(scores) if known else ():
        check(statement, holds)
    note = "" if known else "(What each bug does is checked only for 400 steps of reverse or copy.)"
    return table(*ACCURACIES, rows=accuracies(scores)), note, Picture(
        experiment.file("training_broken"), drawing.draw_broken(scores), "Both accuracies of every variant")


def step_with_your_parts(experiment: DigitExperiment):
    """Your parts and the course's

    One model has the course's parts, the other has yours; data, order and engine are the same. Each model
    draws its initial weights in its own way, so the curves differ a little. Exact match is measured on 1,000
    test sequences; the maps show the mean over all heads of the last cross-attention, for one sequence.
    """
    task, runs = experiment.training.task, experiment.beside_the_courses()
    batch = draw_batch(task, 1000, "test", (0,)).to(experiment.device)
    one, maps, rows = make_batch(task, [[3, 1, 4, 1, 5, 9, 2, 6]]).to(experiment.device), {}, []
    for name, run in runs.items():
        rows.append((name, parameters(run.model), run.noted("loss")[-1],
                     f"{evaluate(run.model, batch).exact_match:.1%}", f"{sum(run.noted('seconds')):.1f}"))
        with torch.no_grad(), record_attention(run.model) as weights:
            run.model(one.src, one.tgt_in)
        *_, last = (found for attention, found in weights.items() if attention.endswith("cross_attention"))
        maps[name] = last[0].mean(0)
    figure = drawing.draw_own({name: run.history for name, run in runs.items()}, maps,
                              text_of(one.tgt_out[0]).split(), text_of(one.src[0]).split())
    note, finding = experiment.placed()
    return table("parts", "parameters", "last loss", "exact match", "seconds", rows=rows), note, Picture(
        experiment.file("training_with_your_parts"), figure, finding)


def step_compare(experiment: DigitExperiment):
    """Several values compared

    Each value's model sees the same data in the same order; --seeds trains with several seeds.
    """
    name, _ = experiment.options.compare
    batch = draw_batch(experiment.training.task, 1000, "test", (0,)).to(experiment.device)
    found = experiment.compared(lambda run: evaluate(run.model, batch).exact_match)
    rows = [(str(value), parameters(found[value].runs[0].model), *summary)
            for value, summary in summaries(found).items()]
    return table(name, "parameters", "seconds", "exact match", rows=rows), Picture(
        experiment.file(f"training_compare_{name}"), drawing.draw_comparison(name, histories(found)),
        f"{name} = {best(found)} gets the most test sequences right")


# ------------------------------------------------------------------ the command line


def main():
    parser = lesson_parser(__doc__, GRADED)
    COMMAND_LINE.add_options(parser)
    parser.add_argument("--broken", action="store_true", help="train every broken variant, then exit")
    experiment = COMMAND_LINE.parsed(parser)
    steps = [
        step_task, step_teacher_forcing, step_masks, step_the_model, step_loss, step_adam, step_schedule,
        step_overfit, step_the_loop, step_by_hand_or_kernel, step_training, step_two_accuracies,
        step_attention_patterns, step_broken_on_purpose, step_what_next]
    further = {"broken": [step_all_broken], "compare": [step_compare],
               "own": [step_training, step_with_your_parts]}
    with all_processes():
        narrate(experiment.options, __doc__,
                steps_asked_for(experiment.options, steps, further, step_training), experiment)


if __name__ == "__main__":
    main()

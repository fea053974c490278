"""Lesson 6. From probabilities to an answer

The model gives a probability to every next token. An answer has to be made of that: by taking the likeliest
each time (greedy), by keeping several beginnings alive (beam search), or by drawing (sampling, with the
distribution sharpened or cut):

    log P(y | source) = Σ log P(y_t | y_1 … y_{t−1}, source)

All tokens before the new one were computed already; a cache of their keys and values saves doing it again.
Lesson 5 trained the model that is used here.
"""

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from checks.decoding import (
    adjust_logits_checks,
    beam_search_checks,
    cached_decoding_checks,
    greedy_checks,
    sample_checks,
)
from checks.trees import DRAWS, TreeDecoding, chi_square
from common import (
    Picture,
    check,
    check_mistakes,
    check_part,
    lesson,
    lesson_parser,
    narrate,
    shows,
    table,
)
from course.engine import finish
from figures.decoding import (
    draw_cache,
    draw_cross_attention,
    draw_distributions,
    draw_strategies,
    draw_tree,
    tree_order,
)

record_attention = lesson("02_multi_head_attention").record_attention
BOS = lesson("03_positional_encoding").BOS
EOS = lesson("03_positional_encoding").EOS
PAD = lesson("03_positional_encoding").PAD
Tokenizer = lesson("03_positional_encoding").Tokenizer
TASKS = lesson("05_mini_transformer").TASKS
DigitExperiment = lesson("05_mini_transformer").DigitExperiment
TrainingConfig = lesson("05_mini_transformer").TrainingConfig
Transformer = lesson("05_mini_transformer").Transformer
TransformerConfig = lesson("05_mini_transformer").TransformerConfig
draw_sequences = lesson("05_mini_transformer").draw_sequences
exactly_right = lesson("05_mini_transformer").exactly_right
make_batch = lesson("05_mini_transformer").make_batch
make_run = lesson("05_mini_transformer").make_run
pad = lesson("05_mini_transformer").pad
sequence_loss = lesson("05_mini_transformer").sequence_loss
teacher_forcing = lesson("05_mini_transformer").teacher_forcing
tokenizer = lesson("05_mini_transformer").tokenizer

__all__ = [
    "CachedDecoding",
    "Decoding",
    "Hypothesis",
    "KeyValueCache",
    "UncachedDecoding",
    "adjust_logits",
    "beam_search",
    "best_answers",
    "first_tokens",
    "greedy_decode",
    "log_probability",
    "sample",
]


# ------------------------------------------------------------------ one step at a time


class Decoding(Protocol):
    """What every decoder below needs: N answers in progress, all of them as long as each other."""

    rows: int  # N
    device: torch.device

    def step(self, tokens: Tensor) -> Tensor:
        """The newest token of every answer (N,), first BOS → logits of the next ones (N, V)."""

    def reorder(self, rows: Tensor) -> None:
        """Go on with these answers (M,) in place of the N; the same one may come several times."""


class KeyValueCache:
    """The keys and values that one attention has met so far, (B, H, S, K) each.

    Its attend() stands in for the attention's own (lesson 2) while a token is decoded.
    """

    def __init__(self, attention: nn.Module):
        self.attention = attention
        self.keys: Tensor | None = None
        self.values: Tensor | None = None

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """The attention of the queries (B, H, T, K) to all that was kept, and to these behind it."""
        self.append(keys, values)
        return type(self.attention).attend(self.attention, queries, self.keys, self.values, mask)

    def append(self, keys: Tensor, values: Tensor) -> None:
        """Put these behind those kept."""
        if self.keys is None:
            self.keys, self.values = keys.contiguous(), values.contiguous()  # read again in every step
        elif keys.shape[2]:
            self.keys = torch.cat([self.keys, keys], dim=2)
            self.values = torch.cat([self.values, values], dim=2)

    def reorder(self, rows: Tensor) -> None:
        """Keep these rows of the batch."""
        if self.keys is not None:
            self.keys = self.keys.index_select(0, rows)  # self.keys[rows], several times as fast
            self.values = self.values.index_select(0, rows)

    def bytes(self) -> int:
        """Memory of the keys and values kept."""
        return 0 if self.keys is None else self.keys.nbytes + self.values.nbytes


@contextmanager
def remembering(caches: Sequence[KeyValueCache]) -> Iterator[None]:
    """Inside `with`, every attention attends to what its cache has kept, too."""
    for cache in caches:
        cache.attention.attend = cache.attend
    try:
        yield
    finally:
        for cache in caches:
            del cache.attention.attend


class CachedDecoding:
    """Answers of a Transformer to src (B, S): the source is encoded once, each step runs one token."""

    def __init__(self, model: Transformer, src: Tensor):
        with torch.no_grad():
            self.model, self.memory, mask = model, model.encode(src), model.src_mask(src)
        self.src_mask = None if mask.all() else mask  # nothing to hide
        self.rows, self.device = len(src), src.device
        self.sources = torch.arange(self.rows, device=self.device)  # (N,): what each row answers
        self.length = 0  # of the answers so far
        self.self_caches = [KeyValueCache(block.self_attention) for block in model.decoder.blocks]
        self.cross_caches = [KeyValueCache(block.cross_attention) for block in model.decoder.blocks]

    @torch.inference_mode()
    def step(self, tokens: Tensor) -> Tensor:
        """The newest token of every answer (N,) → logits of the next ones (N, V)."""
        with remembering([*self.self_caches, *self.cross_caches]):
            logits = self.model.decode(tokens[:, None], self.memory, self.src_mask, self.length)
        self.length += 1
        self.memory = self.memory[:, :0]  # nothing of it is new any more: its keys and values are kept
        return logits[:, -1]

    def reorder(self, rows: Tensor) -> None:
        """Go on with these answers (M,)."""
        self.rows = len(rows)
        for cache in self.self_caches:
            cache.reorder(rows)
        before, self.sources = self.sources, self.sources[rows]
        if torch.equal(before, self.sources):
            return  # answers to the same source changed places: what they see of it is the same
        self.memory = self.memory[rows]
        self.src_mask = None if self.src_mask is None else self.src_mask[rows]
        for cache in self.cross_caches:
            cache.reorder(rows)


class UncachedDecoding:
    """The same, without a cache: each step runs the decoder over the whole answer so far."""

    def __init__(self, model: Transformer, src: Tensor):
        with torch.no_grad():
            self.model, self.memory, self.src_mask = model, model.encode(src), model.src_mask(src)
        self.rows, self.device = len(src), src.device
        self.tokens = src.new_empty(len(src), 0)

    @torch.inference_mode()
    def step(self, tokens: Tensor) -> Tensor:
        self.tokens = torch.cat([self.tokens, tokens[:, None]], dim=1)
        return self.model.decode(self.tokens, self.memory, self.src_mask)[:, -1]

    def reorder(self, rows: Tensor) -> None:
        self.rows = len(rows)
        self.memory, self.src_mask, self.tokens = (
            tensor[rows] for tensor in (self.memory, self.src_mask, self.tokens)
        )


# ------------------------------------------------------------------ the decoders


def greedy_decode(decoding: Decoding, max_length: int) -> Tensor:
    """The likeliest token each time → tokens (N, ≤ max_length), nothing but PAD after EOS."""
    return generate(decoding, max_length, lambda logits: logits.argmax(dim=-1))


def sample(
    decoding: Decoding,
    max_length: int,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Every token drawn from the adjusted distribution → tokens (N, ≤ max_length), PAD after EOS.

    Temperature, top-k and top-p as in adjust_logits(); the same generator state gives the same answers.
    """

    def draw(logits: Tensor) -> Tensor:
        probabilities = adjust_logits(logits, temperature, top_k, top_p).softmax(dim=-1)
        return torch.multinomial(probabilities, 1, generator=generator)[:, 0]

    return generate(decoding, max_length, draw)


def generate(
    decoding: Decoding, max_length: int, pick: Callable[[Tensor], Tensor]
) -> Tensor:
    """Feed each answer its own tokens, pick(logits (N, V)) → (N,), until all have ended."""
    if max_length < 1:
        raise ValueError(f"max_length is {max_length}; it must be at least 1")
    tokens, answers = first_tokens(decoding), []
    ended = torch.zeros_like(tokens, dtype=torch.bool)
    for _ in range(max_length):
        tokens = pick(usable(decoding.step(tokens))).masked_fill(ended, PAD)
        answers.append(tokens)
        ended = ended | (tokens == EOS)
        if ended.all():
            break
    return torch.stack(answers, dim=1)


def first_tokens(decoding: Decoding) -> Tensor:
    """BOS for every answer (N,)."""
    return torch.full((decoding.rows,), BOS, device=decoding.device)


def usable(logits: Tensor) -> Tensor:
    """The logits as they are; ValueError if a row holds NaN, +∞, or nothing but −∞."""
    largest = logits.amax(dim=-1)
    if not largest.isfinite().all():
        bad = largest[~largest.isfinite()][0].item()
        raise ValueError(f"the largest logit of a row is {bad}; the model gives no probabilities")
    return logits


def log_probability(decoding: Decoding, tokens: Tensor) -> Tensor:
    """tokens (N, T) → (N,): the sum of log P of each answer's tokens up to and with EOS."""
    total = torch.zeros(len(tokens), device=tokens.device)
    previous, ended = first_tokens(decoding), torch.zeros_like(tokens[:, 0], dtype=torch.bool)
    for token in tokens.unbind(dim=1):
        log_probs = usable(decoding.step(previous)).log_softmax(dim=-1)
        total = total + log_probs.gather(1, token[:, None])[:, 0].masked_fill(ended, 0.0)
        ended = ended | (token == EOS)
        previous = token
    return total


def adjust_logits(
    logits: Tensor,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
) -> Tensor:
    """logits (…, V) → adjusted ones, −∞ for tokens that are cut off; in this order:

    temperature divides the logits; 0, or a number too small for their type, leaves the likeliest token
    only (the first of several). top_k keeps the k likeliest and all that tie with the last of them; 0 or
    k ≥ V cuts nothing (Fan et al. 2018). top_p keeps the fewest likeliest tokens whose probabilities
    reach p, up to rounding, at least one (Holtzman et al. 2020). ValueError for a temperature below 0 or
    not finite, k below 0, p outside 0 … 1.
    """
    check_sampling(temperature, top_k, top_p)
    if temperature < torch.finfo(logits.dtype).tiny:
        return keep_likeliest(logits)
    largest = logits.amax(dim=-1, keepdim=True)
    logits = (logits - largest) / temperature  # ≤ 0: never overflows to +∞
    if 0 < top_k < logits.shape[-1]:
        kth = logits.topk(top_k, dim=-1).values[..., -1:]
        logits = logits.masked_fill(logits < kth, -math.inf)
    if top_p < 1:
        probabilities = logits.softmax(dim=-1)
        ranked, order = probabilities.sort(descending=True, stable=True)
        likelier = ranked.cumsum(dim=-1) - ranked  # mass of likelier tokens
        cut = likelier >= top_p - 1e-6  # reached, up to rounding
        cut[..., 0] = False  # at least one stays
        cut = torch.zeros_like(cut).scatter(-1, order, cut)  # in token order
        logits = logits.masked_fill(cut, -math.inf)
    return logits


def check_sampling(temperature: float, top_k: int, top_p: float) -> None:
    """ValueError, with the value, for an option out of range."""
    if not 0 <= temperature < math.inf:
        raise ValueError(f"temperature is {temperature}; it must be at least 0 and finite")
    if top_k < 0:
        raise ValueError(f"top_k is {top_k}; it must be at least 0")
    if not 0 <= top_p <= 1:
        raise ValueError(f"top_p is {top_p}; it must be 0 to 1")


def keep_likeliest(logits: Tensor) -> Tensor:
    """All mass on the likeliest token, the first of several."""
    likeliest = logits.argmax(dim=-1, keepdim=True)
    return torch.full_like(logits, -math.inf).scatter(-1, likeliest, 0.0)


class Hypothesis(NamedTuple):
    """One answer of the beam search; tokens without BOS, with EOS if it is finished."""

    tokens: tuple[int, ...]
    log_prob: float  # the sum over its tokens
    score: float  # log_prob / length^α, what hypotheses are compared by
    finished: bool  # False if max_length cut it off


class Hypotheses(NamedTuple):
    """W places for hypotheses of each source; the score −∞ marks an empty one."""

    tokens: Tensor  # (B, W, T), PAD behind EOS
    log_probs: Tensor  # (B, W)
    scores: Tensor  # (B, W)
    rows: Tensor  # (B, W), the row of the decoding that each of them continues

    @property
    def taken(self) -> Tensor:
        """(B, W): True where there is a hypothesis."""
        return self.scores > -math.inf

    def only(self, wanted: Tensor) -> "Hypotheses":
        """wanted (B, W) → the same places, empty where it is False."""
        return self._replace(scores=self.scores.masked_fill(~wanted, -math.inf))

    def best(self, width: int) -> "Hypotheses":
        """The `width` best of each source, best first, of equal ones the first."""
        order = self.scores.sort(dim=1, descending=True, stable=True).indices[:, :width]
        sources = torch.arange(len(order))[:, None]
        return Hypotheses(*(part[sources, order] for part in self))

    def join(self, longer: "Hypotheses") -> "Hypotheses":
        """Both, side by side, filled up with PAD."""
        missing = longer.tokens.shape[2] - self.tokens.shape[2]
        filled = self._replace(tokens=F.pad(self.tokens, (0, missing), value=PAD))
        return Hypotheses(*(torch.cat(parts, dim=1) for parts in zip(filled, longer)))

    def listed(self) -> list[list[Hypothesis]]:
        """For each source a list, without empty places."""
        columns = (part.tolist() for part in (self.tokens, self.log_probs, self.scores))
        return [[hypothesis(*values) for values in zip(*source) if values[-1] > -math.inf]
                for source in zip(*columns)]


def empty_places(sources: int, width: int) -> Hypotheses:
    """Room for `width` hypotheses of each source, as yet without tokens."""
    tokens = torch.zeros(sources, width, 0, dtype=torch.long)
    log_probs = torch.zeros(sources, width, dtype=torch.double)
    return Hypotheses(tokens, log_probs, log_probs - math.inf, torch.zeros(sources, width, dtype=torch.long))


def hypothesis(tokens: list[int], log_prob: float, score: float) -> Hypothesis:
    """One of them, what stands behind EOS cut off."""
    finished = EOS in tokens
    answer = tokens[: tokens.index(EOS) + 1] if finished else tokens
    return Hypothesis(tuple(answer), log_prob, score, finished)


def beam_search(
    decoding: Decoding,
    width: int,
    max_length: int,
    length_penalty: float = 1.0,
    trace: list[tuple[Hypothesis, str]] | None = None,
) -> list[list[Hypothesis]]:
    """For every source the best hypotheses found, at most `width`, best first.

    The `width` likeliest unfinished beginnings are alive. In each step all their continuations are
    ranked by log-probability, summed in float32 at least; one that ends in EOS and is among the first
    `width` is finished and put aside. Hypotheses are compared by log_prob / length^α, where EOS counts
    and α = length_penalty (α = 1: the mean; Wu et al. 2016 divide by ((5 + length) / 6)^α). A source is
    done when `width` are finished and nothing alive could overtake the last of them, even if only
    certain tokens followed. What max_length cuts off is compared like the rest. `trace` collects every
    candidate and its fate. ValueError for a width or max_length below 1, or an α that isn't finite.
    """
    if width < 1 or max_length < 1:
        raise ValueError(f"width is {width} and max_length {max_length}; both must be at least 1")
    if not math.isfinite(length_penalty):
        raise ValueError(f"length_penalty is {length_penalty}; it must be finite")
    finished, alive = empty_places(decoding.rows, width), empty_places(decoding.rows, 1)
    alive = alive._replace(scores=alive.log_probs)  # one for each source: no token, log P = 0
    tokens = first_tokens(decoding)
    for _ in range(max_length):
        logits = usable(decoding.step(tokens))
        log_probs = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(dim=-1)
        candidates = continuations(alive, log_probs, 2 * width, length_penalty)
        alive, finished = grow(candidates, finished, width)
        alive = alive.only(~decided(alive, finished, max_length, length_penalty)[:, None])
        if trace is not None:
            trace += fates(candidates, alive, finished)
        if not alive.taken.any():
            break
        decoding.reorder(alive.rows[alive.taken].to(decoding.device))
        tokens = alive.tokens[alive.taken][:, -1].to(decoding.device)
    return finished.join(alive).best(width).listed()


def continuations(alive: Hypotheses, log_probs: Tensor, count: int, length_penalty: float) -> Hypotheses:
    """log_probs (N, V) of what follows each of the N alive → each source's `count` likeliest, best first."""
    taken, vocabulary = alive.taken, log_probs.shape[1]
    sums = alive.log_probs[taken].to(log_probs)  # (N,)
    totals = log_probs.new_full((*taken.shape, vocabulary), -math.inf)  # (B, W, V)
    totals[taken.to(totals.device)] = sums[:, None] + log_probs
    ranked, order = totals.flatten(1).sort(dim=1, descending=True, stable=True)  # (B, W · V)
    ranked, order = ranked[:, :count].cpu().double(), order[:, :count].cpu()  # the rest is little work
    sources = torch.arange(len(order))[:, None]  # (B, 1)
    parents, newest = order // vocabulary, order % vocabulary  # (B, count)
    tokens = torch.cat([alive.tokens[sources, parents], newest[:, :, None]], dim=2)  # (B, count, T)
    rows = taken.flatten().cumsum(0).view_as(taken) - 1  # (B, W): 0 … N − 1 where alive
    scores = ranked / tokens.shape[2] ** length_penalty
    return Hypotheses(tokens, ranked, scores, rows[sources, parents])


def grow(candidates: Hypotheses, finished: Hypotheses, width: int) -> tuple[Hypotheses, Hypotheses]:
    """The candidates (B, C), best first → what is alive now, and what is finished."""
    ended = candidates.tokens[:, :, -1] == EOS  # (B, C)
    among_first = torch.arange(ended.shape[1]) < width  # (C,)
    alive = candidates.only(~ended).best(width)
    finished = finished.join(candidates.only(ended & among_first)).best(width)
    return alive, finished


def decided(alive: Hypotheses, finished: Hypotheses, max_length: int, length_penalty: float) -> Tensor:
    """(B,): `width` are finished and nothing alive could still overtake the last of them."""
    lengths = alive.tokens.shape[2] + 1, max_length  # if only certain tokens followed
    within_reach = [alive.log_probs[:, 0] / length**length_penalty for length in lengths]
    return torch.maximum(*within_reach) <= finished.scores[:, -1]


def fates(
    candidates: Hypotheses, alive: Hypotheses, finished: Hypotheses
) -> Iterator[tuple[Hypothesis, str]]:
    """Every candidate, and what became of it: kept, finished or pruned."""
    for mine, kept, done in zip(candidates.listed(), alive.listed(), finished.listed()):
        for candidate in mine:
            fate = "kept" if candidate in kept else "finished" if candidate in done else "pruned"
            yield candidate, fate


def best_answers(found: list[list[Hypothesis]]) -> Tensor:
    """The best hypothesis of every source (B, longest), PAD behind."""
    return pad([list(hypotheses[0].tokens) for hypotheses in found])


GRADED = {  # the parts that --grade looks for, and what has to hold of each
    "greedy_decode": greedy_checks,
    "adjust_logits": adjust_logits_checks,
    "sample": sample_checks,
    "beam_search": beam_search_checks,
    "CachedDecoding": cached_decoding_checks,
}
OURS = sys.modules[__name__]  # of whose parts the checks make the classic mistakes


# ------------------------------------------------------------------ the steps


class DecodingExperiment(DigitExperiment):
    """Lesson 5's default run on the task that the command line asked for, trained now if it must be."""

    def __init__(self, options: argparse.Namespace):
        super().__init__(TransformerConfig(), TrainingConfig(task=options.task), options)

    @property
    def model(self) -> Transformer:
        return self.run.model.eval()

    @cached_property
    def speaker(self) -> Transformer:
        """The small model of step 3."""
        return train_speaker()

    def batch(self, count: int, lengths: tuple[int, int] = (4, 16)):
        sequences = draw_sequences(count, "test", (6, *lengths), lengths)
        return make_batch(self.options.task, sequences).to(self.device)


def text_of(ids: Any) -> str:
    """Ids as tokens, special ones by name, up to EOS."""
    ids = list(ids)
    end = ids.index(EOS) + 1 if EOS in ids else len(ids)
    return " ".join(tokenizer.token_of[int(id)] for id in ids[:end])


@shows(generate, greedy_decode)
def step_greedy(experiment: DecodingExperiment):
    """Greedy: the likeliest token, again and again

    Encode the source, begin with BOS, take the token with the largest logit, feed it back. Every answer of
    the batch ends at its own EOS; from then on it gets PAD, until the last one has ended.
    """
    batch = experiment.batch(5)
    answers = greedy_decode(CachedDecoding(experiment.model, batch.src), 20)
    check_part(greedy_decode, greedy_checks, OURS)
    rows = [(text_of(src[src != PAD]), " ".join(tokenizer.token_of[id] for id in answer))
            for src, answer in zip(batch.src[:3], answers.tolist(), strict=False)]
    return table("source", "answer", rows=rows)


@shows(KeyValueCache.append, CachedDecoding.step)
def step_cache(experiment: DecodingExperiment):
    """The key/value cache

    The new token looks back at all earlier ones, but nothing about those changes: the causal mask never
    let them see it. So their keys and values can be kept. Each step then runs one token instead of the
    whole answer. Cross-attention's keys and values come from the source and are computed once.
    """
    check_part(CachedDecoding, cached_decoding_checks, OURS)
    batch, config = experiment.batch(8), experiment.model.config
    decoding = CachedDecoding(experiment.model, batch.src)
    answers = greedy_decode(decoding, 20)
    measured = sum(cache.bytes() for cache in [*decoding.self_caches, *decoding.cross_caches])
    tokens = batch.src.shape[1] + answers.shape[1]
    formula = 2 * config.n_layers * len(batch.src) * tokens * config.d_model * 4
    check("memory = 2 · blocks · B · (S + T) · D · 4 bytes", measured == formula, f"{measured:,} bytes")
    lengths = [16, 32, 64, 128, 192]
    times = {kind.__name__: seconds_until(kind, lengths) for kind in (CachedDecoding, UncachedDecoding)}
    n = lengths[0]
    work = [positions_computed(kind, n) for kind in (CachedDecoding, UncachedDecoding)]
    check("n tokens take n positions through the decoder with the cache, n · (n + 1) / 2 without",
          work == [n, n * (n + 1) // 2], f"{work[0]} and {work[1]} for n = {n}")
    rows = [(n, *(f"{4 * n / seconds[i]:,.0f}" for seconds in times.values()))
            for i, n in enumerate(lengths)]
    picture = Picture("decoding_cache.png", draw_cache(lengths, times),
                      "With the cache each token costs nearly the same, without one the time runs away")
    return table("length", "tokens/s with the cache", "without", rows=rows), picture


def seconds_until(kind: Callable, lengths: list[int]) -> list[float]:
    """Seconds to decode 4 answers of each length with a fresh model of the default size."""
    torch.manual_seed(0)
    model = Transformer(TransformerConfig(max_len=512)).eval()
    decoding = kind(model, torch.full((4, 16), 5))
    tokens, times, started = torch.full((4,), BOS), [], time.perf_counter()
    for length in range(1, lengths[-1] + 1):
        tokens = decoding.step(tokens).argmax(dim=-1)
        if length in lengths:
            times.append(time.perf_counter() - started)
    return times


def positions_computed(kind: Callable, length: int) -> int:
    """How many positions go through the decoder until an answer of this length is there."""
    model, computed = Transformer(TransformerConfig(d_model=16, n_heads=2)).eval(), []
    model.decoder.register_forward_pre_hook(lambda _, inputs: computed.append(inputs[0].shape[1]))
    decoding = kind(model, torch.full((1, 4), 5))
    for _ in range(length):
        decoding.step(torch.tensor([BOS]))
    return sum(computed)


TRUTH = {  # sentences and their probabilities
    "the dog": 0.14, "the cow": 0.10, "the hen": 0.10, "the fox": 0.08, "the owl": 0.08,
    "a cat": 0.27, "a rat": 0.03, "no one": 0.15, "no man": 0.05,
}
words = Tokenizer(TRUTH)


def train_speaker(steps: int = 250) -> Transformer:
    """A small model that learns to say sentences as often as in TRUTH; its source says nothing."""
    config = TransformerConfig(d_model=32, n_heads=2, n_layers=1, vocab_size=len(words), max_len=8)
    model = Transformer(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, fused=True)
    sentences, chances = [words.encode(text) for text in TRUTH], torch.tensor(list(TRUTH.values()))
    src = torch.full((128, 1), BOS)
    for step in range(steps):
        drawn = torch.multinomial(chances, 128, replacement=True).tolist()
        tgt_in, tgt_out = teacher_forcing([sentences[index] for index in drawn])
        loss = sequence_loss(model(src, tgt_in), tgt_out) / (tgt_out != PAD).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.param_groups[0]["lr"] = 5e-3 * (1 - step / steps)
        optimizer.step()
    return model.eval()


def speak(model: Transformer, rows: int = 1) -> CachedDecoding:
    """`rows` sentences begun."""
    return CachedDecoding(model, torch.full((rows, 1), BOS))


def step_greedy_can_be_wrong(experiment: DecodingExperiment):
    """When greedy is wrong

    Nine sentences with known probabilities. Every second time one begins with “the”, but what follows is
    uncertain, so each is rare; “a” is rarer and nearly always goes on with “cat”. A small model learns to
    speak like this. Greedy takes “the” and can't go back. Beam search (next step) keeps “a” alive and
    finds the likeliest sentence. Sampling says each sentence as often as the model believes in it.
    (Chi-square compares counts with probabilities; p is how often right draws would differ at least as
    much.)
    """
    model = experiment.speaker
    sentences = pad([[*words.encode(text), EOS] for text in TRUTH])
    believed = log_probability(speak(model, len(TRUTH)), sentences).exp().tolist()
    draws = sample(speak(model, DRAWS), 5, generator=torch.Generator().manual_seed(0))
    said = [words.decode(answer) for answer in draws.tolist()]
    greedy = words.decode(greedy_decode(speak(model), 5)[0].tolist())
    likeliest = max(TRUTH, key=TRUTH.get)
    beam = words.decode(beam_search(speak(model), 3, 5, 0.0)[0][0].tokens)
    rows = [(text, f"{true:.3f}", f"{model_says:.3f}", f"{said.count(text) / DRAWS:.3f}",
             "greedy" if text == greedy else "beam" if text == beam else "")
            for (text, true), model_says in zip(TRUTH.items(), believed, strict=True)]
    gap = max(abs(p - q) for p, q in zip(believed, TRUTH.values(), strict=True))
    check("the model's probabilities are near the true ones", gap < 0.06, f"off by at most {gap:.3f}")
    check("greedy misses the likeliest sentence, beam search finds it",
          greedy != likeliest == beam, f"“{greedy}” and “{beam}”")
    counts = [said.count(text) for text in TRUTH]
    p = chi_square(counts, believed)
    check("20,000 draws are as frequent as the model's probabilities say (chi-square)",
          p > 1e-5, f"p = {p:.2g}")
    return table("sentence", "true", "model", "drawn", "found by", rows=rows)


@shows(grow)
def step_beam_search(experiment: DecodingExperiment):
    """Beam search

    Keep the `width` likeliest beginnings. All their continuations compete; those that end are put aside,
    the best others go on. Sums of log-probabilities get smaller with every token, so short answers have an
    advantage; dividing by length^α takes it away (α = 0: no correction). On all answers of a small random
    model, counted out one by one, it has to find the best if it is wide enough. (The figure shows the
    2 · width likeliest continuations of each step, the table leaves out pruned ones of 0.05 or less.)
    """
    check_part(beam_search, beam_search_checks, OURS)
    trace: list[tuple[Hypothesis, str]] = []
    found = beam_search(speak(experiment.speaker), 3, 5, 0.0, trace)[0]
    check("the best hypothesis is the best of the finished ones",
          found[0].finished and found[0].log_prob == max(h.log_prob for h in found if h.finished))
    rows = [("    " * (len(candidate.tokens) - 1) + words.token_of[candidate.tokens[-1]],
             f"{math.exp(candidate.log_prob):.3f}", fate)
            for candidate, fate in sorted(trace, key=lambda part: tree_order(trace, part[0].tokens))
            if fate != "pruned" or candidate.log_prob > math.log(0.05)]
    picture = Picture("decoding_beam_tree.png", draw_tree(trace, words.token_of.get),
                      "Width 3: the likeliest beginning splits up, another one wins (numbers: P so far)")
    return table("width 3, α = 0", "P so far", "fate", rows=rows), picture


def step_wider_beams(experiment: DecodingExperiment):
    """A wider beam: likelier, not always better

    A wider beam finds answers that the model believes in more. That helps as far as the model is right.
    Here answers one that stopped learning after 200 steps: reversed sequences of 12 to 16 digits. A narrow
    beam gets about as many right as greedy, a wide one, with α = 0, fewer: every token costs log P, so this
    unsure model believes more in some wrong answer of three digits than in any of sixteen, and a wide beam
    finds it. With α = 1 the length is divided out, and the long answers come back. (Seen in machine
    translation by Koehn and Knowles 2017.)
    """
    training = TrainingConfig(task="reverse", steps=200)
    unsure = finish(make_run(TransformerConfig(), training, experiment.device))
    model, sequences = unsure.model.eval(), draw_sequences(100, "test", (1,), (12, 16))
    batch, rows = make_batch("reverse", sequences).to(experiment.device), []
    for width in (1, 2, 4, 8, 16):
        plain, divided = (beam_search(CachedDecoding(model, batch.src), width, 24, α) for α in (0.0, 1.0))
        best = [hypotheses[0] for hypotheses in plain]
        mean, length = (sum(values) / len(best) for values in zip(
            *((h.log_prob, len(h.tokens)) for h in best), strict=True))
        hits = [int(right(best_answers(found).to(experiment.device), batch.tgt_out).sum())
                for found in (plain, divided)]
        rows.append((width, mean, f"{length:.1f}", *hits))
    log_probs = [row[1] for row in rows]
    check("α = 0: log P rises with the width", log_probs == sorted(log_probs))
    check("α = 0: width 16 gets fewer answers right than width 4", rows[4][3] < rows[2][3])
    check("… and α = 1 more of them than α = 0", rows[4][4] > rows[4][3])
    header = "width", "α = 0: mean log P", "mean length", "right of 100", "α = 1: right"
    return table(*header, rows=rows)


def right(answers: Tensor, wanted: Tensor) -> Tensor:
    """answers (B, any) and wanted (B, T) → (B,): the whole answer is right, nothing behind it."""
    length = wanted.shape[1]
    return exactly_right(answers[:, :length], wanted) & (answers[:, length:] == PAD).all(dim=1)


@shows(adjust_logits)
def step_sampling(experiment: DecodingExperiment):
    """Temperature, top-k, top-p

    Temperature below 1 sharpens the distribution, above 1 it flattens it. Top-k keeps the k likeliest
    tokens; top-p keeps as many as it takes to reach the probability p, few when the model is sure and many
    when it isn't. Both cut the long tail of unlikely tokens, whose sum is what makes plain sampling go
    astray. What is left is scaled to 1 again.
    """
    check_part(adjust_logits, adjust_logits_checks, OURS)
    check_part(sample, sample_checks, OURS)
    logits = torch.tensor([0.35, 0.25, 0.15, 0.10, 0.06, 0.04, 0.03, 0.02]).log()
    settings = {
        "as it is": {}, "temperature 0.5": {"temperature": 0.5}, "temperature 2": {"temperature": 2.0},
        "top-k 3": {"top_k": 3}, "top-p 0.8": {"top_p": 0.8},
    }
    rows, adjusted = [], {}
    for name, options in settings.items():
        adjusted[name] = adjust_logits(logits, **options).softmax(-1)
        rows.append((name, *(f"{p:.2f}" for p in adjusted[name].tolist())))
        draws = sample(TreeDecoding([logits.expand(DRAWS, 1, -1)]), 1, **options,
                       generator=torch.Generator().manual_seed(0))[:, 0]
        counts = draws.bincount(minlength=8)
        impossible = counts[adjusted[name] == 0].sum().item()
        possible = adjusted[name] > 0
        p = chi_square(counts[possible].tolist(), adjusted[name][possible].tolist())
        check(f"{name}: 20,000 draws fit (chi-square), none is a token that was cut off",
              impossible == 0 and p > 1e-5, f"p = {p:.2g}")
    picture = Picture("decoding_distributions.png", draw_distributions(adjusted),
                      "Temperature bends the distribution, top-k and top-p cut its tail (grey: as it was)")
    return table("", *"ABCDEFGH", rows=rows), picture


def strategies(generator: torch.Generator) -> dict[str, Callable[[Decoding, int], Tensor]]:
    """Every way of this lesson to make an answer."""

    def sampling(**options) -> Callable:
        options["generator"] = generator
        return lambda decoding, limit: sample(decoding, limit, **options)

    def beam(width: int) -> Callable:
        def decode(decoding: Decoding, limit: int) -> Tensor:
            return best_answers(beam_search(decoding, width, limit, 0.0))

        return decode

    return {
        "greedy": greedy_decode,
        "beam, width 4": beam(4),
        "sampling": sampling(),
        "temperature 0.5": sampling(temperature=0.5),
        "temperature 2": sampling(temperature=2.0),
        "temperature 2, top-k 3": sampling(temperature=2.0, top_k=3),
        "temperature 2, top-p 0.9": sampling(temperature=2.0, top_p=0.9),
    }


def step_all_strategies(experiment: DecodingExperiment):
    """All of them, side by side

    100 test sequences, five answers to each. This task has one right answer and the model is sure of it:
    greedy finds it, and beam search does several times the work for the same. Sampling is good for texts
    with many good continuations; here we measure only its cost, wrong answers.
    """
    batch = experiment.batch(100)
    limit, rows = batch.tgt_out.shape[1] + 2, []
    src, wanted = (tensor.repeat(5, 1) for tensor in (batch.src, batch.tgt_out))
    generator = torch.Generator(experiment.device).manual_seed(experiment.options.seed)
    for name, decode in strategies(generator).items():
        times = []
        for _ in range(1 if name.startswith("beam") else 3):
            started = time.perf_counter()
            answers = decode(CachedDecoding(experiment.model, src), limit).to(experiment.device)
            times.append(time.perf_counter() - started)
        seconds = min(times)
        total = log_probability(CachedDecoding(experiment.model, src), answers).mean().item()
        exact = right(answers, wanted)
        different = [len({tuple(answer) for answer in five}) for five in
                     answers.view(5, 100, -1).transpose(0, 1).tolist()]
        speed = (answers != PAD).sum().item() / seconds
        rows.append((name, exact.float().mean().item(), total, sum(different) / 100, speed))
    shown = [(name, f"{exact:.1%}", f"{total:.3f}", f"{different:.2f}", f"{speed:,.0f}")
             for name, exact, total, different, speed in rows]
    by_name = {name: values for name, *values in rows}
    check("no strategy found likelier answers than beam search", max(row[2] for row in rows)
          <= by_name["beam, width 4"][1] + 1e-4, f"mean log P {by_name['beam, width 4'][1]:.4f}")
    check("at temperature 2 the answers differ, and cutting the tail (top-p) mends some",
          by_name["temperature 2"][2] > by_name["temperature 2, top-p 0.9"][2]
          and by_name["temperature 2, top-p 0.9"][0] > by_name["temperature 2"][0])
    picture = Picture(experiment.file("decoding_strategies"), draw_strategies(rows),
                      "One right answer: greedy is enough; heat makes errors, cutting the tail mends some")
    return table("strategy", "exact match", "mean log P", "distinct of 5", "tokens/s", rows=shown), picture


@shows(KeyValueCache.reorder, CachedDecoding.reorder)
def step_broken_on_purpose(experiment: DecodingExperiment):
    """Broken on purpose

    Two mistakes with the cache, both easy to make and silent. If beams change places and the cache doesn't,
    each goes on with another's past. If every new token is told that it stands at position 0, the model
    loses count. Neither crashes.
    """
    batch, longer = experiment.batch(100), experiment.batch(50, (17, 18)).src
    mistakes = cached_decoding_checks.mistakes(OURS)
    stuck = mistakes["position always 0"].implementation
    unordered = mistakes["cache not reordered"].implementation
    greedy, beams = [], []
    for name, kind in (("right", CachedDecoding), ("position always 0", stuck)):
        answers = greedy_decode(kind(experiment.model, batch.src), 20)
        greedy.append((name, f"{right(answers, batch.tgt_out).float().mean():.0%}"))
    for name, kind in (("right", CachedDecoding), ("cache not reordered", unordered)):
        found = beam_search(kind(experiment.model, longer), 4, 24, 0.0)
        answers = best_answers(found).to(experiment.device)
        told = torch.tensor([hypotheses[0].log_prob for hypotheses in found])
        true = log_probability(CachedDecoding(experiment.model, longer), answers).cpu()
        beams.append((name, (told - true).abs().mean().item()))
    if experiment.options.task == "reverse":  # a model that is sure of itself lets no beams cross
        check("cache not reordered: the beam's log P is not that of its answers",
              beams[0][1] < 1e-3 and beams[1][1] > 0.05)
    caught = check_mistakes(OURS, cached_decoding_checks)
    return (table("greedy", "exact match", rows=greedy),
            table("beam, 17 and 18 digits", "its log P, off by", rows=beams), caught)


def step_your_input(experiment: DecodingExperiment):
    """Your own sequence

    Every strategy's answer, and where the cross-attention of the last block looked while it was written.
    """
    digits = experiment.options.input
    model, batch = experiment.model, make_batch(experiment.options.task, [digits]).to(experiment.device)
    limit, rows = batch.tgt_out.shape[1] + 4, []
    generator = torch.Generator(experiment.device).manual_seed(experiment.options.seed)
    for name, decode in strategies(generator).items():
        answer = decode(CachedDecoding(model, batch.src), limit).to(experiment.device)
        chance = log_probability(CachedDecoding(model, batch.src), answer).exp().item()
        rows.append((name, text_of(answer[0].tolist()), f"{chance:.2g}"))
    answer = greedy_decode(CachedDecoding(model, batch.src), limit)
    tgt_in = torch.cat([torch.full_like(answer[:, :1], BOS), answer[:, :-1]], dim=1)
    with torch.no_grad(), record_attention(model) as weights:
        model(batch.src, tgt_in)
    name = f"decoder.blocks.{experiment.model.config.n_layers - 1}.cross_attention"
    figure = draw_cross_attention(weights[name][0], text_of(batch.src[0].tolist()).split(),
                                  text_of(answer[0].tolist()).split())
    picture = Picture(experiment.file("decoding_your_input"), figure,
                      "Where the cross-attention of the last block looked while each token was chosen")
    wanted = text_of(batch.tgt_out[0].tolist())
    return table(f"{experiment.options.task}: {wanted}", "answer", "P", rows=rows), picture


def step_what_next(experiment: DecodingExperiment):
    """What now?

    Read: KeyValueCache and CachedDecoding, then generate and beam_search. Follow one token through them.

    Change: (1) TRUTH: “a cat” 0.13 and “no one” 0.29: another sentence is found. (2) In step_wider_beams
    200 steps to 700: a model that is sure isn't led astray (✗). (3) --input with a sequence of your own;
    --task copy, sort or sum.

    Write it yourself: --template my_decoding.py, then --grade my_decoding.py. This was the last lesson.
    You have built every part of a Transformer, trained it, and made it answer. From here: nanoGPT for a
    decoder alone on text, and the papers named in the docstrings.
    """


# ------------------------------------------------------------------ the command line


def sequence(text: str) -> list[int]:
    """“3 1 4” or “314” → [3, 1, 4]; 4 to 16 digits."""
    digits = text.replace(" ", "")
    wrong = [character for character in digits if character not in "0123456789"]
    if wrong:
        raise argparse.ArgumentTypeError(f"{wrong[0]!r} in {text!r} is not a digit from 0 to 9")
    if not 4 <= len(digits) <= 16:
        raise argparse.ArgumentTypeError(f"{text!r} has {len(digits)} digits; the model knows 4 to 16")
    return [int(digit) for digit in digits]


def main():
    parser = lesson_parser(__doc__, GRADED)
    parser.add_argument("--task", default="reverse", choices=TASKS,
                        help="reverse, copy, sort or sum (default: reverse)")
    parser.add_argument("--input", type=sequence, metavar="DIGITS",
                        help="decode your own sequence with every strategy, and end")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (default: auto)")
    options = parser.parse_args()
    try:
        experiment = DecodingExperiment(options)
    except ValueError as error:
        parser.error(str(error))
    steps = [
        step_greedy,
        step_cache,
        step_greedy_can_be_wrong,
        step_beam_search,
        step_wider_beams,
        step_sampling,
        step_all_strategies,
        step_broken_on_purpose,
        step_what_next,
    ]
    narrate(options, __doc__, [step_your_input] if options.input else steps, experiment)


if __name__ == "__main__":
    main()

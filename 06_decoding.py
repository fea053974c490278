"""Lesson 6. From probabilities to an answer

The model gives a probability to every next token. An answer has to be made of that: by taking the likeliest
each time (greedy), by keeping several beginnings alive (beam search), or by drawing (sampling, with the
distribution sharpened or cut):

    log P(y | source) = Σ log P(y_t | y_1 … y_{t−1}, source)

All tokens before the new one were computed already; a cache of their keys and values saves doing it again.
Lesson 5 trained the model that is used here.
"""

import argparse
import itertools
import math
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from common import (
    Finding,
    Picture,
    Proof,
    agree,
    canvas,
    check,
    check_all,
    check_caught,
    fitted_exponent,
    heatmap,
    lesson,
    lesson_parser,
    narrate,
    pick_device,
    prove,
    random_tensors,
    refused,
    shows,
    stop,
    table,
)

record_attention = lesson("02_multi_head_attention").record_attention
BOS = lesson("03_positional_encoding").BOS
EOS = lesson("03_positional_encoding").EOS
PAD = lesson("03_positional_encoding").PAD
Tokenizer = lesson("03_positional_encoding").Tokenizer
TASKS = lesson("05_mini_transformer").TASKS
Run = lesson("05_mini_transformer").Run
TrainingConfig = lesson("05_mini_transformer").TrainingConfig
Transformer = lesson("05_mini_transformer").Transformer
TransformerConfig = lesson("05_mini_transformer").TransformerConfig
draw_sequences = lesson("05_mini_transformer").draw_sequences
exactly_right = lesson("05_mini_transformer").exactly_right
load_or_train = lesson("05_mini_transformer").load_or_train
make_batch = lesson("05_mini_transformer").make_batch
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
    "greedy_decode",
    "log_probability",
    "sample",
]


DRAWS = 20_000  # for every chi-square test


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
    """The keys and values of one attention, (B, H, S, K) each.

    A growing cache (self-attention) appends those of every new token. The other kind
    (cross-attention) is complete with the first ones: the memory doesn't change.
    """

    def __init__(self, grows: bool):
        self.grows = grows
        self.keys: Tensor | None = None
        self.values: Tensor | None = None

    @property
    def complete(self) -> bool:
        """Whether there is nothing to append any more."""
        return self.keys is not None and not self.grows

    @property
    def length(self) -> int:
        """The number of tokens decoded so far: the position of the next one."""
        return self.keys.shape[2] if self.grows and self.keys is not None else 0

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Put these behind those kept → all of them."""
        if self.keys is not None:
            keys = torch.cat([self.keys, keys], dim=2)
            values = torch.cat([self.values, values], dim=2)
        self.keys, self.values = keys, values
        return keys, values

    def reorder(self, rows: Tensor) -> None:
        """Keep these rows of the batch."""
        if self.keys is not None:
            self.keys, self.values = self.keys[rows], self.values[rows]

    def bytes(self) -> int:
        """Memory of the keys and values kept."""
        return 0 if self.keys is None else self.keys.nbytes + self.values.nbytes


class LayerCache(NamedTuple):
    """What one decoder block keeps."""

    self_attention: KeyValueCache
    cross_attention: KeyValueCache


class CachedDecoding:
    """Answers of a Transformer to src (B, S): the source is encoded once, each step runs one token."""

    def __init__(self, model: Transformer, src: Tensor):
        with torch.no_grad():
            self.model, self.memory, self.src_mask = model, model.encode(src), model.src_mask(src)
        self.rows, self.device = len(src), src.device
        self.caches = [LayerCache(KeyValueCache(grows=True), KeyValueCache(grows=False))
                       for _ in model.decoder.blocks]

    @torch.inference_mode()
    def step(self, tokens: Tensor) -> Tensor:
        """The newest token of every answer (N,) → logits of the next ones (N, V)."""
        logits = self.model.decode(
            tokens[:, None], self.memory, self.src_mask, self.caches
        )
        return logits[:, -1]

    def reorder(self, rows: Tensor) -> None:
        """Go on with these answers (M,)."""
        self.rows = len(rows)
        self.memory, self.src_mask = self.memory[rows], self.src_mask[rows]
        for cache in itertools.chain.from_iterable(self.caches):
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


class Candidate(NamedTuple):
    """One continuation: of the answer in which row, by what, and the log-probability of the whole."""

    log_prob: float
    row: int
    tokens: tuple[int, ...]


class Beam:
    """The hypotheses of one source: at most `width` alive, at most `width` finished."""

    def __init__(self, width: int, max_length: int, length_penalty: float):
        self.width, self.max_length, self.length_penalty = width, max_length, length_penalty
        self.alive = [Hypothesis((), 0.0, 0.0, False)]
        self.finished: list[Hypothesis] = []

    def hypothesis(self, candidate: Candidate, finished: bool) -> Hypothesis:
        score = candidate.log_prob / len(candidate.tokens) ** self.length_penalty
        return Hypothesis(candidate.tokens, candidate.log_prob, score, finished)

    def grow(self, candidates: list[Candidate]) -> list[int]:
        """Put the best continuations (given best first) in place of what was alive → their rows."""
        kept: list[Candidate] = []
        for rank, candidate in enumerate(candidates):
            if candidate.tokens[-1] == EOS and rank < self.width:
                self.finished.append(self.hypothesis(candidate, True))
            elif candidate.tokens[-1] != EOS and len(kept) < self.width:
                kept.append(candidate)
        self.finished = best_first(self.finished)[: self.width]
        if self.decided(kept):
            kept = []
        self.alive = [self.hypothesis(candidate, False) for candidate in kept]
        return [candidate.row for candidate in kept]

    def decided(self, kept: list[Candidate]) -> bool:
        """True if `width` are finished and nothing alive could still overtake the last of them."""
        if len(self.finished) < self.width or not kept:
            return not kept
        lengths = len(kept[0].tokens) + 1, self.max_length  # if only certain tokens followed
        within_reach = max(kept[0].log_prob / n**self.length_penalty for n in lengths)
        return within_reach <= self.finished[-1].score

    def fate(self, candidate: Candidate) -> str:
        """kept, finished or pruned: what grow() made of a candidate."""
        if any(candidate.tokens == hypothesis.tokens for hypothesis in self.alive):
            return "kept"
        ended = any(candidate.tokens == hypothesis.tokens for hypothesis in self.finished)
        return "finished" if ended else "pruned"


def best_first(hypotheses: list[Hypothesis]) -> list[Hypothesis]:
    return sorted(hypotheses, key=lambda hypothesis: -hypothesis.score)


def beam_search(
    decoding: Decoding,
    width: int,
    max_length: int,
    length_penalty: float = 1.0,
    trace: list[tuple[Candidate, str]] | None = None,
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
    beams = [Beam(width, max_length, length_penalty) for _ in range(decoding.rows)]
    tokens = first_tokens(decoding)
    for _ in range(max_length):
        logits = usable(decoding.step(tokens))
        log_probs = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(dim=-1)
        alive = [hypothesis for beam in beams for hypothesis in beam.alive]
        sums = log_probs.new_tensor([hypothesis.log_prob for hypothesis in alive])
        branches = likeliest(sums[:, None] + log_probs, alive, 2 * width)  # at most `width` are EOS
        rows: list[int] = []
        for beam in beams:
            mine = [candidate for _ in beam.alive for candidate in next(branches)]
            mine = sorted(mine, key=lambda candidate: -candidate.log_prob)[: 2 * width]
            rows += beam.grow(mine)
            if trace is not None:
                trace += [(candidate, beam.fate(candidate)) for candidate in mine]
        if not rows:
            break
        decoding.reorder(torch.tensor(rows, device=decoding.device))
        newest = [hypothesis.tokens[-1] for beam in beams for hypothesis in beam.alive]
        tokens = torch.tensor(newest, device=decoding.device)
    return [best_first(beam.finished + beam.alive)[:width] for beam in beams]


def likeliest(totals: Tensor, alive: list[Hypothesis], count: int) -> Iterator[list[Candidate]]:
    """For each row of totals (N, V) its `count` likeliest continuations, impossible ones left out."""
    values, tokens = totals.sort(dim=1, descending=True, stable=True)
    both = zip(values[:, :count].tolist(), tokens[:, :count].tolist())
    for row, (log_probs, choices) in enumerate(both):
        yield [Candidate(log_prob, row, (*alive[row].tokens, token))
               for log_prob, token in zip(log_probs, choices) if log_prob > -math.inf]


def best_answers(found: list[list[Hypothesis]]) -> Tensor:
    """The best hypothesis of every source (B, longest), PAD behind."""
    return pad([list(hypotheses[0].tokens) for hypotheses in found])


# ------------------------------------------------------------------ broken on purpose


class CacheNotReordered(CachedDecoding):
    """Broken on purpose: the beams change places, the cache doesn't."""

    def reorder(self, rows: Tensor) -> None:
        self.rows = len(rows)
        if len(rows) != len(self.memory):  # only when the number changes
            super().reorder(rows)


class AlwaysPositionZero(CachedDecoding):
    """Broken on purpose: every new token is told that it is the first."""

    @torch.inference_mode()
    def step(self, tokens: Tensor) -> Tensor:
        embed = self.model.embed
        self.model.embed = lambda tokens, start=0: embed(tokens, 0)
        try:
            return super().step(tokens)
        finally:
            del self.model.embed


# ------------------------------------------------------------------ the steps


class Experiment:
    """What the command line asked for, and the models that the steps work on."""

    def __init__(self, options: argparse.Namespace):
        self.options = options
        self.device = pick_device(options.device)

    @cached_property
    def run(self) -> Run:
        """Lesson 5's run on the task: its checkpoint, or trained now if there is none."""
        try:
            return load_or_train(self.options.task, self.options.outputs, self.device)
        except ValueError as error:
            stop(f"{error}; delete it, or train again with lesson 5")

    @property
    def model(self) -> Transformer:
        return self.run.model.eval()

    @cached_property
    def speaker(self) -> Transformer:
        """The small model of step 3."""
        return train_speaker()

    def file(self, stem: str) -> str:
        """The file name; of any task but the default one it names the task."""
        return f"{stem}.png" if self.options.task == "reverse" else f"{stem}-{self.options.task}.png"

    def batch(self, count: int, lengths: tuple[int, int] = (4, 16)):
        sequences = draw_sequences(count, "test", (6, *lengths), lengths)
        return make_batch(self.options.task, sequences).to(self.device)


def text_of(ids: Any) -> str:
    """Ids as tokens, special ones by name, up to EOS."""
    ids = list(ids)
    end = ids.index(EOS) + 1 if EOS in ids else len(ids)
    return " ".join(tokenizer.token_of[int(id)] for id in ids[:end])


@shows(generate, greedy_decode)
def step_greedy(experiment: Experiment):
    """Greedy: the likeliest token, again and again

    Encode the source, begin with BOS, take the token with the largest logit, feed it back. Every answer of
    the batch ends at its own EOS; from then on it gets PAD, until the last one has ended.
    """
    batch = experiment.batch(5)
    answers = greedy_decode(CachedDecoding(experiment.model, batch.src), 20)
    check_all(prove_greedy(greedy_decode))
    rows = [(text_of(src[src != PAD]), " ".join(tokenizer.token_of[id] for id in answer))
            for src, answer in zip(batch.src[:3], answers.tolist(), strict=False)]
    return table("source", "answer", rows=rows)


@shows(KeyValueCache.append, CachedDecoding.step)
def step_cache(experiment: Experiment):
    """The key/value cache

    The new token looks back at all earlier ones, but nothing about those changes: the causal mask never
    let them see it. So their keys and values can be kept. Each step then runs one token instead of the
    whole answer. Cross-attention's keys and values come from the source and are computed once.
    """
    check_all(prove_cached_decoding(CachedDecoding))
    batch, config = experiment.batch(8), experiment.run.config
    decoding = CachedDecoding(experiment.model, batch.src)
    answers = greedy_decode(decoding, 20)
    measured = sum(cache.bytes() for layer in decoding.caches for cache in layer)
    tokens = batch.src.shape[1] + answers.shape[1]
    formula = 2 * config.n_layers * len(batch.src) * tokens * config.d_model * 4
    check("memory = 2 · layers · B · (S + T) · D · 4 bytes", measured == formula, f"{measured:,} bytes")
    lengths = [16, 32, 64, 128, 192]
    times = {kind.__name__: seconds_until(kind, lengths) for kind in (CachedDecoding, UncachedDecoding)}
    powers = {name: fitted_exponent(lengths[1:], seconds[1:]) for name, seconds in times.items()}
    check("the total time grows more slowly with the cache",
          powers["CachedDecoding"] < powers["UncachedDecoding"],
          f"n^{powers['CachedDecoding']:.1f} against n^{powers['UncachedDecoding']:.1f}")
    rows = [(n, *(f"{4 * n / seconds[i]:,.0f}" for seconds in times.values()))
            for i, n in enumerate(lengths)]
    picture = Picture("decoding_cache.png", draw_cache(lengths, times))
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


TRUTH = {  # sentences and their probabilities
    "the dog": 0.14, "the cow": 0.10, "the hen": 0.10, "the fox": 0.08, "the owl": 0.08,
    "a cat": 0.27, "a rat": 0.03, "no one": 0.15, "no man": 0.05,
}
words = Tokenizer(TRUTH)


def train_speaker(steps: int = 250) -> Transformer:
    """A small model that learns to say sentences as often as in TRUTH; its source says nothing."""
    config = TransformerConfig(d_model=32, n_heads=2, n_layers=1, vocab_size=len(words), max_len=8)
    model = Transformer(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
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


@shows()
def step_greedy_can_be_wrong(experiment: Experiment):
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


def chi_square(counts: list[int], probabilities: list[float]) -> float:
    """Pearson's test of DRAWS draws, all not counted in one more class → the p-value."""
    counts, probabilities = [*counts, DRAWS - sum(counts)], [*probabilities, 1 - sum(probabilities)]
    expected = [max(DRAWS * p, 1e-9) for p in probabilities]
    if expected[-1] < 5:  # too few for the test: join the last two
        last = expected.pop()
        expected[-1] += last
        counts = [*counts[:-2], counts[-2] + counts[-1]]
    statistic = sum((n - e) ** 2 / e for n, e in zip(counts, expected, strict=True))
    halves = torch.tensor([len(expected) - 1, statistic], dtype=torch.float64) / 2
    return torch.special.gammaincc(*halves).item()


@shows(Beam.grow)
def step_beam_search(experiment: Experiment):
    """Beam search

    Keep the `width` likeliest beginnings. All their continuations compete; those that end are put aside,
    the best others go on. Sums of log-probabilities get smaller with every token, so short answers have an
    advantage; dividing by length^α takes it away (α = 0: no correction). On all answers of a small random
    model, counted out one by one, it has to find the best if it is wide enough. (The tree leaves out pruned
    beginnings below 0.05.)
    """
    check_all(prove_beam_search(beam_search))
    trace: list[tuple[Candidate, str]] = []
    found = beam_search(speak(experiment.speaker), 3, 5, 0.0, trace)[0]
    check("the best hypothesis is the best of the finished ones",
          found[0].finished and found[0].log_prob == max(h.log_prob for h in found if h.finished))
    rows = [("    " * (len(candidate.tokens) - 1) + words.token_of[candidate.tokens[-1]],
             f"{math.exp(candidate.log_prob):.3f}", fate)
            for candidate, fate in sorted(trace, key=lambda part: tree_order(trace, part[0].tokens))
            if fate != "pruned" or candidate.log_prob > math.log(0.05)]
    picture = Picture("decoding_beam_tree.png", draw_tree(trace))
    return table("width 3, α = 0", "P so far", "fate", rows=rows), picture


def tree_order(trace: list[tuple[Candidate, str]], tokens: tuple[int, ...]) -> list[float]:
    """Sorts a tree's nodes: each below the one it continues, the likelier first."""
    log_probs = {candidate.tokens: candidate.log_prob for candidate, _ in trace}
    return [-log_probs[tokens[: n + 1]] for n in range(len(tokens))]


@shows()
def step_wider_beams(experiment: Experiment):
    """A wider beam: likelier, not always better

    A wider beam finds answers that the model believes in more. That helps as far as the model is right.
    Here answers one that stopped learning after 200 steps: reversed sequences of 12 to 16 digits. A narrow
    beam gets about as many right as greedy, a wide one, with α = 0, fewer: every token costs log P, so this
    unsure model believes more in some wrong answer of three digits than in any of sixteen, and a wide beam
    finds it. With α = 1 the length is divided out, and the long answers come back. (Seen in machine
    translation by Koehn and Knowles 2017.)
    """
    unsure = Run(TransformerConfig(), TrainingConfig("reverse", steps=200), experiment.device)
    while not unsure.finished:
        unsure.update()
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
def step_sampling(experiment: Experiment):
    """Temperature, top-k, top-p

    Temperature below 1 sharpens the distribution, above 1 it flattens it. Top-k keeps the k likeliest
    tokens; top-p keeps as many as it takes to reach the probability p, few when the model is sure and many
    when it isn't. Both cut the long tail of unlikely tokens, whose sum is what makes plain sampling go
    astray. What is left is scaled to 1 again.
    """
    check_all(prove_adjust_logits(adjust_logits) + prove_sample(sample))
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
    picture = Picture("decoding_distributions.png", draw_distributions(adjusted))
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


@shows()
def step_all_strategies(experiment: Experiment):
    """All of them, side by side

    200 test sequences, five answers to each. This task has one right answer and the model is sure of it:
    greedy finds it, and beam search does several times the work for the same. Sampling is good for texts
    with many good continuations; here we measure only its cost, wrong answers.
    """
    batch = experiment.batch(200)
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
                     answers.view(5, 200, -1).transpose(0, 1).tolist()]
        speed = (answers != PAD).sum().item() / seconds
        rows.append((name, exact.float().mean().item(), total, sum(different) / 200, speed))
    shown = [(name, f"{exact:.1%}", f"{total:.3f}", f"{different:.2f}", f"{speed:,.0f}")
             for name, exact, total, different, speed in rows]
    by_name = {name: values for name, *values in rows}
    check("no strategy found likelier answers than beam search", max(row[2] for row in rows)
          <= by_name["beam, width 4"][1] + 1e-4, f"mean log P {by_name['beam, width 4'][1]:.4f}")
    check("at temperature 2 the answers differ, and cutting the tail (top-p) mends some",
          by_name["temperature 2"][2] > by_name["temperature 2, top-p 0.9"][2]
          and by_name["temperature 2, top-p 0.9"][0] > by_name["temperature 2"][0])
    picture = Picture(experiment.file("decoding_strategies"), draw_strategies(rows))
    return table("strategy", "exact match", "mean log P", "distinct of 5", "tokens/s", rows=shown), picture


@shows(CacheNotReordered, AlwaysPositionZero)
def step_broken_on_purpose(experiment: Experiment):
    """Broken on purpose

    Two mistakes with the cache, both easy to make and silent. If beams change places and the cache doesn't,
    each goes on with another's past. If every new token is told that it stands at position 0, the model
    loses count. Neither crashes.
    """
    batch, longer = experiment.batch(100), experiment.batch(50, (17, 18)).src
    greedy, beams = [], []
    for name, kind in {"right": CachedDecoding, "position always 0": AlwaysPositionZero}.items():
        answers = greedy_decode(kind(experiment.model, batch.src), 20)
        greedy.append((name, f"{right(answers, batch.tgt_out).float().mean():.0%}"))
    for name, kind in {"right": CachedDecoding, "cache not reordered": CacheNotReordered}.items():
        found = beam_search(kind(experiment.model, longer), 4, 24, 0.0)
        answers = best_answers(found).to(experiment.device)
        told = torch.tensor([hypotheses[0].log_prob for hypotheses in found])
        true = log_probability(CachedDecoding(experiment.model, longer), answers).cpu()
        beams.append((name, (told - true).abs().mean().item()))
    if experiment.options.task == "reverse":  # a model that is sure of itself lets no beams cross
        check("cache not reordered: the beam's log P is not that of its answers",
              beams[0][1] < 1e-3 and beams[1][1] > 0.05)
    check_caught("AlwaysPositionZero", prove_cached_decoding(AlwaysPositionZero), "The logits of every")
    check_caught("CacheNotReordered", prove_cached_decoding(CacheNotReordered), "After reorder")
    return (table("greedy", "exact match", rows=greedy),
            table("beam, 17 and 18 digits", "its log P, off by", rows=beams))


@shows()
def step_your_input(experiment: Experiment):
    """Your own sequence

    Every strategy's answer, and where the cross-attention of the last layer looked while it was written.
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
    name = f"decoder.blocks.{experiment.run.config.n_layers - 1}.cross_attention"
    figure = draw_cross_attention(weights[name][0], batch.src[0], answer[0])
    picture = Picture(experiment.file("decoding_your_input"), figure)
    wanted = text_of(batch.tgt_out[0].tolist())
    return table(f"{experiment.options.task}: {wanted}", "answer", "P", rows=rows), picture


def step_what_next(experiment: Experiment):
    """What now?

    Read: KeyValueCache and CachedDecoding, then generate and beam_search. Follow one token through them.

    Change: (1) TRUTH: “a cat” 0.13 and “no one” 0.29: another sentence is found. (2) In step_wider_beams
    200 steps to 700: a model that is sure isn't led astray (✗). (3) --input
    with a sequence of your own; --task copy, sort or sum.

    Write it yourself: --template my_decoding.py, then --grade my_decoding.py. This was the last lesson.
    You have built every part of a Transformer, trained it, and made it answer. From here: nanoGPT for a
    decoder alone on text, and the papers named in the docstrings.
    """


# ------------------------------------------------------------------ a model that is a table


class TreeDecoding:
    """Stands in for a Transformer: the logits after every possible beginning are in a table.

    levels[t] is (B, Vᵗ, V): for each source the logits after t tokens, the tokens read as digits of a
    number with base V.
    """

    def __init__(self, levels: list[Tensor]):
        self.levels, self.position = levels, 0
        self.rows, self.device = len(levels[0]), levels[0].device
        self.sources = torch.arange(self.rows)
        self.places = torch.zeros(self.rows, dtype=torch.long)

    def step(self, tokens: Tensor) -> Tensor:
        level = self.levels[self.position]
        if self.position:
            self.places = self.places * level.shape[-1] + tokens
        self.position += 1
        return level[self.sources, self.places]

    def reorder(self, rows: Tensor) -> None:
        self.rows, self.sources, self.places = len(rows), self.sources[rows], self.places[rows]


def random_tree(sources: int, depth: int, vocabulary: int = 5, seed: int = 0) -> list[Tensor]:
    """Random logits after every beginning shorter than `depth`."""
    sizes = [(sources, vocabulary**length, vocabulary) for length in range(depth)]
    return [1.5 * level for level in random_tensors(*sizes, seed=seed)]


def enumerated(levels: list[Tensor], source: int, max_length: int) -> dict[tuple[int, ...], float]:
    """Every answer up to max_length and its log-probability, one by one."""
    found, vocabulary = {}, levels[0].shape[-1]
    beginnings = [((), 0, 0.0)]
    for length in range(max_length):
        log_probs = levels[length][source].log_softmax(-1).tolist()
        grown = []
        for tokens, place, total in beginnings:
            for token, log_prob in enumerate(log_probs[place]):
                answer = (*tokens, token), place * vocabulary + token, total + log_prob
                if token == EOS or length + 1 == max_length:
                    found[answer[0]] = answer[2]
                else:
                    grown.append(answer)
        beginnings = grown
    return found


# ------------------------------------------------------------------ the proofs


def prove_greedy(implementation) -> list[Proof]:
    """What holds for every greedy_decode(decoding, max_length)."""
    levels = random_tree(sources=8, depth=5)

    def greedy_by_hand(stop: bool = True) -> Tensor:
        answers = []
        for source in range(8):
            tokens, place = [], 0
            for level in levels:
                tokens.append(int(level[source, place].argmax()))
                place = place * 5 + tokens[-1]
                if stop and tokens[-1] == EOS:
                    break
            answers.append(tokens)
        return pad(answers)

    def takes_the_likeliest():
        """Each token is the likeliest after those before it, with PAD alone after EOS."""
        wrong = {"go on with PAD after EOS, for each answer by itself": greedy_by_hand(stop=False)}
        return agree(implementation(TreeDecoding(levels), 5), greedy_by_hand(), 0, wrong)

    def respects_max_length():
        """Nothing is longer than max_length."""
        found = implementation(TreeDecoding(levels), 2)
        return agree(found, greedy_by_hand()[:, :2], 0)

    def stops_early():
        """It stops when every answer has ended."""
        ending = [level.clone() for level in levels]
        ending[1][..., EOS] = 100.0
        decoding = TreeDecoding(ending)
        implementation(decoding, 5)
        return Finding(decoding.position == 2, f"{decoding.position} steps, expected 2")

    return prove(takes_the_likeliest, respects_max_length, stops_early)


def kept(adjusted: Tensor) -> Tensor:
    """1 where a token may still be drawn."""
    return (adjusted.softmax(-1) > 0).int()


def prove_adjust_logits(implementation) -> list[Proof]:
    """What holds for every adjust_logits(logits, temperature=1.0, top_k=0, top_p=1.0)."""
    logits = torch.tensor([0.5, 0.2, 0.2, 0.06, 0.04], dtype=torch.float64).log()

    def divides_by_temperature():
        """The temperature divides the logits: 0.5 squares the probabilities and renormalises."""
        squared = logits.exp() ** 2 / (logits.exp() ** 2).sum()
        wrong = {"multiplied by the temperature: divide": (0.5 * logits).softmax(-1)}
        return agree(implementation(logits, 0.5).softmax(-1), squared, 1e-12, wrong)

    def zero_is_greedy():
        """Temperature 0 leaves the likeliest token alone."""
        return agree(kept(implementation(logits, 0.0)), torch.tensor([1, 0, 0, 0, 0]), 0)

    def keeps_k():
        """top_k = 2 keeps the two likeliest and, here, the third that ties with the second."""
        wrong = {"ties with the k-th stay": torch.tensor([1, 1, 0, 0, 0])}
        found = kept(implementation(logits, top_k=2))
        return agree(found, torch.tensor([1, 1, 1, 0, 0]), 0, wrong)

    def takes_any_shape():
        """Each row of (N, V) and (B, N, V) is adjusted by itself."""
        rows = torch.stack([logits, logits.flip(0), logits.roll(1)])
        options = {"temperature": 0.7, "top_k": 3, "top_p": 0.8}
        single = torch.stack([implementation(row, **options) for row in rows]).exp()
        together = [implementation(rows.view(*size, 5), **options).view(3, 5).exp()
                    for size in ((3,), (1, 3))]
        return agree(torch.stack(together), single.expand(2, 3, 5), 1e-12)

    def keeps_the_fewest():
        """… also in float32, where sums are rounded: p = 0.85 of .35 .25 .15 .10 .06 … takes four."""
        single = torch.tensor([0.35, 0.25, 0.15, 0.10, 0.06, 0.04, 0.03, 0.02]).log()
        return agree(kept(implementation(single, top_p=0.85)), torch.tensor([1] * 4 + [0] * 4), 0)

    def keeps_p():
        """top_p = 0.6 keeps the fewest tokens whose probabilities reach 0.6: the first two."""
        wrong = {"the token that passes p stays": torch.tensor([1, 0, 0, 0, 0]),
                 "one token too many": torch.tensor([1, 1, 1, 0, 0])}
        return agree(kept(implementation(logits, top_p=0.6)), torch.tensor([1, 1, 0, 0, 0]), 0, wrong)

    def temperature_comes_first():
        """Temperature first, then top-p: at temperature 0.5 one token has 0.74 and is enough."""
        found = kept(implementation(logits, 0.5, top_p=0.6))
        wrong = {"top-p was applied before the temperature": torch.tensor([1, 1, 0, 0, 0])}
        return agree(found, torch.tensor([1, 0, 0, 0, 0]), 0, wrong)

    def always_keeps_one():
        """top_p = 0 still keeps the likeliest."""
        return agree(kept(implementation(logits, top_p=0.0)), torch.tensor([1, 0, 0, 0, 0]), 0)

    def can_change_nothing():
        """top_k at V or above and top_p = 1 change nothing."""
        found = implementation(logits, top_k=7, top_p=1.0).softmax(-1)
        return agree(found, logits.exp(), 1e-12)

    def refuses_nonsense():
        """Temperature −1, infinite or NaN, top_k −1, top_p 1.5: a ValueError that names the value."""
        attempts = [(-1.0, 0, 1.0), (math.inf, 0, 1.0), (math.nan, 0, 1.0), (1.0, -1, 1.0),
                    (1.0, 0, 1.5), (1.0, 0, math.nan)]
        for attempt in attempts:
            bad = next(v for v, fine in zip(attempt, (1.0, 0, 1.0), strict=True) if v != fine)
            finding = refused(lambda attempt=attempt: implementation(logits, *attempt), bad)
            if not finding.holds:
                return finding._replace(figure=f"{attempt}: {finding.figure}")
        return finding

    return prove(divides_by_temperature, zero_is_greedy, keeps_k, keeps_p, keeps_the_fewest,
                 temperature_comes_first, always_keeps_one, can_change_nothing, takes_any_shape,
                 refuses_nonsense)


def prove_sample(implementation) -> list[Proof]:
    """What holds for every sample(decoding, max_length, temperature, top_k, top_p, generator)."""
    levels = random_tree(sources=8, depth=5)

    def zero_is_greedy():
        """Temperature 0 gives greedy's answers."""
        found = implementation(TreeDecoding(levels), 5, temperature=0.0)
        return agree(found, greedy_decode(TreeDecoding(levels), 5), 0)

    def draws_in_proportion():
        """20,000 draws are as frequent as the probabilities (chi-square, p > 0.00001)."""
        probabilities = torch.tensor([0.4, 0.3, 0.15, 0.1, 0.05])
        generator = torch.Generator().manual_seed(0)
        decoding = TreeDecoding([probabilities.log().expand(DRAWS, 1, -1)])
        draws = implementation(decoding, 1, generator=generator)
        p = chi_square(draws[:, 0].bincount(minlength=5).tolist(), probabilities.tolist())
        return Finding(p > 1e-5, f"p = {p:.2g}")

    def cuts_the_tail():
        """With top_k = 2 nothing but the two likeliest is drawn."""
        generator = torch.Generator().manual_seed(0)
        logits = torch.tensor([0.1, 0.4, 0.2, 0.2, 0.1]).log() + torch.tensor([0, 0, 0.1, 0, 0])
        decoding = TreeDecoding([logits.expand(500, 1, -1)])
        draws = implementation(decoding, 1, top_k=2, generator=generator)
        return agree(draws.unique(), torch.tensor([1, 2]), 0)

    def repeats():
        """The same generator state gives the same answers, and another one others."""
        answers = [implementation(TreeDecoding(levels), 5, generator=torch.Generator().manual_seed(seed))
                   for seed in (1, 1, 2)]
        same = agree(answers[0], answers[1], 0)
        differs = not agree(answers[0], answers[2], 0).holds
        return same if not same.holds else Finding(differs, diagnosis="pass the generator on")

    def pads_after_eos():
        """Nothing but PAD follows EOS."""
        found = implementation(TreeDecoding(levels), 5, generator=torch.Generator().manual_seed(3))
        behind = (found == EOS).cumsum(dim=1) - (found == EOS).int() > 0
        return agree(found[behind], torch.zeros_like(found[behind]), 0)

    return prove(zero_is_greedy, draws_in_proportion, cuts_the_tail, repeats, pads_after_eos)


def prove_beam_search(implementation) -> list[Proof]:
    """What holds for every beam_search(decoding, width, max_length, length_penalty).

    It returns for each source a list of (tokens, log_prob, score, finished), best first.
    """
    levels = random_tree(sources=3, depth=4)
    answers = [enumerated(levels, source, 4) for source in range(3)]

    def best_scores(alpha: float, value: Callable = lambda total, n, alpha: total / n**alpha,
                    keep: Callable = lambda tokens: True) -> Tensor:
        """The three best scores of each source, of all answers there are."""
        return torch.tensor([
            sorted((value(total, len(tokens), alpha) for tokens, total in found.items()
                    if keep(tokens)), reverse=True)[:3]
            for found in answers
        ])

    def expect(alpha: float) -> Finding:
        found = implementation(TreeDecoding(levels), 400, 4, alpha)
        scores = torch.tensor([[hypothesis[2] for hypothesis in beams[:3]] for beams in found])
        wrong = {
            "EOS counts in the length": best_scores(
                alpha, lambda total, n, alpha: total / max(1, n - 1) ** alpha),
            "the length is one too long: BOS doesn't count": best_scores(
                alpha, lambda total, n, alpha: total / (n + 1) ** alpha),
            "the sum of log-probabilities was not divided by length^α": best_scores(0.0),
            "what max_length cuts off is a candidate, too": best_scores(
                alpha, keep=lambda tokens: tokens[-1] == EOS),
            "finished hypotheses must be kept and compared": best_scores(
                alpha, keep=lambda tokens: len(tokens) == 4),
        }
        return agree(scores, best_scores(alpha), 1e-5, wrong)

    def finds_the_best():
        """Wide enough, it finds the three best of all answers (α = 0, by enumeration)."""
        return expect(0.0)

    def penalises_length():
        """… and with scores log P / length^α, α = 1."""
        return expect(1.0)

    def width_one_is_greedy():
        """Width 1 with α = 0 equals greedy decoding."""
        found = implementation(TreeDecoding(levels), 1, 4, 0.0)
        return agree(best_answers([[Hypothesis(*beams[0])] for beams in found]),
                     greedy_decode(TreeDecoding(levels), 4), 0)

    def reports_true_scores():
        """The log_prob of every hypothesis of a narrow beam is that of its tokens."""
        found = implementation(TreeDecoding(levels), 3, 4, 0.6)
        pairs = [(hypothesis[1], answers[source][tuple(hypothesis[0])])
                 for source, beams in enumerate(found) for hypothesis in beams]
        hint = "move the decoding along with the beams: decoding.reorder(rows)"
        reported, true = torch.tensor(pairs).T
        return agree(reported, true, 1e-5)._replace(diagnosis=hint)

    def batches():
        """All sources together give what each gives alone."""
        together = implementation(TreeDecoding(levels), 3, 4, 0.6)
        alone = [implementation(TreeDecoding([level[[source]] for level in levels]), 3, 4, 0.6)[0]
                 for source in range(3)]
        same = [[tuple(h[0]) for h in beams] for beams in together] == [
            [tuple(h[0]) for h in beams] for beams in alone]
        return Finding(same, "the same hypotheses" if same else "other hypotheses")

    return prove(finds_the_best, penalises_length, width_one_is_greedy, reports_true_scores, batches)


def prove_cached_decoding(implementation) -> list[Proof]:
    """What holds for every CachedDecoding(model, src): it changes the work, not the logits."""
    batch = make_batch("copy", [[1, 2, 3, 4, 5, 6], [7, 8, 9]])
    _, tokens = batch.src, batch.tgt_in

    def same_logits(positions: str, norm: str) -> Finding:
        torch.manual_seed(0)
        config = TransformerConfig(d_model=16, n_heads=2, positions=positions, norm=norm)
        model = Transformer(config).double().eval()
        decoding = implementation(model, batch.src)
        with torch.no_grad():
            stepped = torch.stack([decoding.step(token) for token in tokens.unbind(1)], dim=1)
            return agree(stepped, model(batch.src, tokens), 1e-12)

    def claim(positions: str) -> Callable:
        def test() -> Finding:
            return min((same_logits(positions, norm) for norm in ("pre", "post")), key=lambda f: f.holds)

        test.__doc__ = f"The logits of every step are those of the whole answer at once ({positions})."
        return test

    def follows_its_rows():
        """After reorder(rows) it goes on with the answers in their new order."""
        torch.manual_seed(0)
        model = Transformer(TransformerConfig(d_model=16, n_heads=2)).double().eval()
        decoding, rows = implementation(model, batch.src), torch.tensor([1, 0])
        for token in tokens[:, :3].unbind(1):
            decoding.step(token)
        decoding.reorder(rows)
        with torch.no_grad():
            expected = model(batch.src[rows], tokens[rows, :4])[:, -1]
        return agree(decoding.step(tokens[rows, 3]), expected, 1e-12)

    return prove(*map(claim, ("sinusoidal", "learned", "rotary")), follows_its_rows)


GRADED = {
    "greedy_decode": prove_greedy,
    "adjust_logits": prove_adjust_logits,
    "sample": prove_sample,
    "beam_search": prove_beam_search,
    "CachedDecoding": prove_cached_decoding,
}


# ------------------------------------------------------------------ the figures


def draw_cache(lengths: list[int], times: dict[str, list[float]]):
    figure, axes = canvas(columns=2, width=9, height=3.6)
    for name, label, marker in (("CachedDecoding", "with the cache", "o"),
                                ("UncachedDecoding", "without", "s")):
        seconds = times[name]
        axes[0].loglog(lengths, seconds, marker=marker, label=label)
        axes[1].semilogx(lengths, [4 * n / t for n, t in zip(lengths, seconds, strict=True)],
                         marker=marker, label=label)
    for panel in axes:
        panel.set_xticks(lengths, lengths)
        panel.minorticks_off()
        panel.set_xlabel("length of the answers")
        panel.legend()
    axes[0].set(ylabel="seconds in all", title="Without a cache the time runs away")
    axes[1].set(ylabel="tokens per second", ylim=0, title="With it, each token costs nearly the same")
    return figure


def draw_tree(trace: list[tuple[Candidate, str]]):
    """Every candidate of the beam search: x the step, y its place in the tree."""
    nodes = {candidate.tokens: candidate for candidate, _ in trace}
    fates = {candidate.tokens: fate for candidate, fate in trace}
    leaves = [tokens for tokens in nodes if not any(other[:-1] == tokens for other in nodes)]
    leaves.sort(key=lambda tokens: tree_order(trace, tokens))
    height = {tokens: -place for place, tokens in enumerate(leaves)}

    def place(tokens: tuple[int, ...]) -> float:
        below = [other for other in nodes if other[:-1] == tokens]
        return height[tokens] if tokens in height else sum(map(place, below)) / len(below)

    figure, axes = canvas(width=8.5, height=0.34 * len(leaves) + 1.2)
    styles = {"kept": ("C0", 1.0), "finished": ("C2", 1.0), "pruned": ("gray", 0.45)}
    roots = [tokens for tokens in nodes if len(tokens) == 1]
    start = sum(map(place, roots)) / len(roots)
    axes.annotate("BOS", (0, start), ha="right", va="center")
    for tokens, candidate in nodes.items():
        colour, alpha = styles[fates[tokens]]
        x, y = len(tokens), place(tokens)
        before = (x - 1, place(tokens[:-1])) if x > 1 else (0, start)
        begin = before[0] + (0.42 if x > 1 else 0.02)
        axes.plot([begin, x - 0.02], [before[1], y], color=colour, alpha=alpha, linewidth=1.5)
        word = words.token_of[tokens[-1]] + (" (finished)" if fates[tokens] == "finished" else "")
        axes.text(x, y, f"{word}  {math.exp(candidate.log_prob):.3f}", color=colour, alpha=max(alpha, 0.7),
                  va="center", fontsize=9, weight="bold" if fates[tokens] != "pruned" else "normal")
    for label, (colour, alpha) in styles.items():
        axes.plot([], [], color=colour, alpha=alpha, label=label)
    axes.set(xlim=(-0.3, max(map(len, nodes)) + 0.8), ylim=(min(height.values()) - 0.7, 0.7))
    axes.axis("off")
    axes.legend(loc="lower left")
    axes.set_title("Beam of width 3: the likeliest beginning splits up, another one wins (numbers: P so far)")
    return figure


def draw_distributions(adjusted: dict[str, Tensor]):
    figure, axes = canvas(columns=len(adjusted), width=12, height=2.8, sharey=True)
    for panel, (name, probabilities) in zip(axes, adjusted.items(), strict=True):
        panel.bar(list("ABCDEFGH"), adjusted["as it is"].tolist(), color="lightgray")
        panel.bar(list("ABCDEFGH"), probabilities.tolist(), color="C0", width=0.5)
        panel.set(title=name, xlabel="token")
    axes[0].set_ylabel("probability")
    figure.suptitle("Temperature bends the distribution, top-k and top-p cut its tail (grey: as it was)")
    return figure


def draw_strategies(rows: list[tuple]):
    figure, axes = canvas(columns=4, width=13, height=3.4, sharey=True)
    names = [row[0] for row in rows]
    titles = ("exact match", 1), ("mean log P", 2), ("distinct answers of 5", 3), ("tokens per second", 4)
    for number, (panel, (title, part)) in enumerate(zip(axes, titles, strict=True)):
        bars = panel.barh(names, [row[part] for row in rows], color=f"C{number}")
        form = {1: "{:.1%}", 2: "{:.2f}", 3: "{:.2f}", 4: "{:,.0f}"}[part]
        panel.bar_label(bars, [form.format(row[part]) for row in rows], padding=3, fontsize=8)
        reach = 1.35 * max((row[part] for row in rows), key=abs)
        panel.set_xlim(*sorted((0, reach)))
        panel.locator_params(axis="x", nbins=3)  # else the numbers touch
        panel.set_xlabel(title)
    axes[0].invert_yaxis()
    figure.suptitle("One right answer: greedy is enough; heat makes errors, cutting the tail mends some")
    return figure


def draw_cross_attention(weights: Tensor, src: Tensor, answer: Tensor):
    rows, columns = text_of(answer.tolist()).split(), text_of(src.tolist()).split()
    figure, axes = canvas(columns=len(weights), width=3 * len(weights), height=3.4, squeeze=False)
    for head, panel in enumerate(axes[0]):
        heatmap(panel, weights[head, : len(rows)], rows, columns, f"head {head}")
        panel.set_xlabel("source")
    axes[0, 0].set_ylabel("token written")
    figure.suptitle("Cross-attention of the last layer while each token was chosen")
    return figure


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
        experiment = Experiment(options)
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

"""Lesson 6. From probabilities to an answer

The model gives every possible next token a probability. We can take the likeliest token each time (greedy),
keep several beginnings alive (beam search), or draw tokens (sampling) from the distribution as it is,
sharpened or cut. An answer's probability is the product of its tokens' probabilities, so its log is a sum:

    log P(y | source) = Σ log P(y_t | y_1 … y_{t−1}, source)

A cache keeps the keys and values of all earlier tokens, so that they are computed only once.

You need lesson 5's model for your --task; if outputs/ has none, it is trained first. You will build greedy
decoding, a cache, beam search and sampling. The lesson runs in seconds and takes an hour to read. (On another
machine one answer in a hundred may differ.)
"""

import argparse
import course.console.startup  # noqa: F401 (before torch: it reports what fails in the imports below)
import math
import statistics
import sys
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from itertools import product
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from checks.beams import beam_search_checks
from checks.caching import UncachedDecoding, cached_decoding_checks, positions_computed
from checks.decoding import adjust_logits_checks, greedy_checks, sample_checks
from common import Picture, check, check_mistakes, check_part, lesson, lesson_parser, narrate, shows, table
from course.console.measuring import cost_of, seconds_of_steps
from course.console.options import check_range, digits
from course.data import tables
from course.training import answers as answering
from course.training.adapters import add_bits
from course.training.beams import check_search, vectorised_beam_search
from course.training.command_line import add_device
from course.training.engine import finish
from course.training.prompts import refuse_training_mode, remembering
from course.training.small import minimise, trained_side_by_side
from figures import decoding as drawing

record_attention = lesson("02_multi_head_attention").record_attention
BOS, EOS, PAD, Tokenizer = lesson("03_positional_encoding", "BOS", "EOS", "PAD", "Tokenizer")
(
    TASKS, DigitExperiment, TrainingConfig, Transformer, TransformerConfig, draw_sequences,
    make_batch, make_run, pad, sequence_loss, teacher_forcing, tokenizer,
) = lesson(
    "05_mini_transformer", "TASKS", "DigitExperiment", "TrainingConfig", "Transformer",
    "TransformerConfig", "draw_sequences", "make_batch", "make_run", "pad", "sequence_loss",
    "teacher_forcing", "tokenizer")

__all__ = ["CachedDecoding", "Decoding", "Hypothesis", "KeyValueCache", "adjust_logits",
           "beam_search", "best_answers", "fast_beam_search", "first_tokens",
           "greedy_decode", "log_probability", "sample"]


# ------------------------------------------------------------------ one step at a time


class Decoding(Protocol):
    """What every decoder below needs: N answers in progress, all of the same length."""

    rows: int  # N
    length: int  # tokens per answer so far
    device: torch.device

    def step(self, tokens: Tensor) -> Tensor:
        """The newest token of every answer (N,), BOS at first → logits of the next tokens (N, V)."""

    def reorder(self, rows: Tensor) -> None:
        """Continue these rows (M,) only; a row may occur several times."""


class KeyValueCache:
    """The keys and values that one attention has received so far, (B, H, S, K) each.

    Its attend() replaces the attention's own (lesson 2) while a token is decoded.
    """

    def __init__(self, attention: nn.Module):
        self.attention = attention
        self.keys: Tensor | None = None
        self.values: Tensor | None = None

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """Append the keys and values, and let the queries (B, H, T, K) attend to all that are kept."""
        self.append(keys, values)
        return type(self.attention).attend(self.attention, queries, self.keys, self.values, mask)

    def append(self, keys: Tensor, values: Tensor) -> None:
        """Add these to the keys and values kept."""
        if self.keys is None:  # contiguous: every step reads them
            self.keys, self.values = keys.contiguous(), values.contiguous()
        elif keys.shape[2]:
            self.keys = torch.cat([self.keys, keys], dim=2)
            self.values = torch.cat([self.values, values], dim=2)

    def reorder(self, rows: Tensor) -> None:
        """Keep these rows of the batch."""
        if self.keys is not None:
            self.keys = self.keys.index_select(0, rows)  # self.keys[rows], faster
            self.values = self.values.index_select(0, rows)

    def bytes(self) -> int:
        """Memory of the keys and values kept."""
        return 0 if self.keys is None else self.keys.nbytes + self.values.nbytes


class CachedDecoding:
    """Answers of a Transformer to src (B, S): the source is encoded once, and each step runs one token.

    ValueError for a model in training mode.
    """

    self_cache = cross_cache = KeyValueCache

    @torch.inference_mode()
    def __init__(self, model: Transformer, src: Tensor):
        refuse_training_mode(model)
        self.model, self.memory, mask = model, model.encode(src), model.src_mask(src)
        self.src_mask = None if mask.all() else mask  # no padding
        self.rows, self.device = len(src), src.device
        self.sources = torch.arange(self.rows, device=self.device)  # (N,): the source of each row
        self.length = 0  # of the answers so far
        self.self_caches = [self.self_cache(block.self_attention) for block in model.decoder.blocks]
        self.cross_caches = [self.cross_cache(block.cross_attention) for block in model.decoder.blocks]

    @torch.inference_mode()
    def step(self, tokens: Tensor) -> Tensor:
        """tokens (N,) → logits (N, V), without gradients."""
        with remembering([*self.self_caches, *self.cross_caches]):
            logits = self.model.decode(tokens[:, None], self.memory, self.src_mask, self.length)
        self.length += 1
        self.memory = self.memory[:, :0]  # its keys and values are kept
        return logits[:, -1]

    def reorder(self, rows: Tensor) -> None:
        """Continue these rows (M,)."""
        self.rows = len(rows)
        for cache in self.self_caches:
            cache.reorder(rows)
        before, self.sources = self.sources, self.sources[rows]
        if torch.equal(before, self.sources):
            return  # each row still has its source
        self.memory = self.memory[rows]
        self.src_mask = None if self.src_mask is None else self.src_mask[rows]
        for cache in self.cross_caches:
            cache.reorder(rows)


# ------------------------------------------------------------------ the decoders


def greedy_decode(decoding: Decoding, max_length: int) -> Tensor:
    """The likeliest token each time → tokens (N, ≤ max_length), only PAD after EOS."""
    return generate(decoding, max_length, lambda logits: logits.argmax(dim=-1))


def sample(decoding: Decoding, max_length: int, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0,
           generator: torch.Generator | None = None) -> Tensor:
    """Every token drawn from the distribution of adjust_logits() → tokens (N, ≤ max_length), PAD after EOS.

    The same generator state gives the same answers.
    """

    def draw(logits: Tensor) -> Tensor:
        probabilities = adjust_logits(logits, temperature, top_k, top_p).softmax(dim=-1)
        return torch.multinomial(probabilities, 1, generator=generator)[:, 0]

    return generate(decoding, max_length, draw)


def generate(decoding: Decoding, max_length: int, pick: Callable[[Tensor], Tensor]) -> Tensor:
    """Feed each answer its own tokens, chosen by pick(logits (N, V)) → (N,), until all end."""
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
    """BOS for every answer (N,); ValueError for a decoding that was used before."""
    if decoding.length:
        raise ValueError(f"this decoding has already taken {decoding.length} steps: make a new one")
    return torch.full((decoding.rows,), BOS, device=decoding.device)


def usable(logits: Tensor) -> Tensor:
    """The logits, in float32 at least; ValueError if a row holds NaN, +∞, or nothing but −∞."""
    largest = logits.amax(dim=-1)
    if not largest.isfinite().all():
        bad = largest[~largest.isfinite()][0].item()
        raise ValueError(f"the largest logit of a row is {bad}; the model gives no probabilities")
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def next_log_probs(decoding: Decoding, tokens: Tensor) -> Tensor:
    """The newest tokens (N,) → log P of each next token (N, V)."""
    return usable(decoding.step(tokens)).log_softmax(dim=-1)


def log_probability(decoding: Decoding, tokens: Tensor) -> Tensor:
    """tokens (N, T) → (N,): the sum of log P of each answer's tokens up to and including EOS."""
    total = torch.zeros(len(tokens), device=tokens.device)
    previous, ended = first_tokens(decoding), torch.zeros_like(tokens[:, 0], dtype=torch.bool)
    for token in tokens.unbind(dim=1):
        log_probs = next_log_probs(decoding, previous)
        total = total + log_probs.gather(1, token[:, None])[:, 0].masked_fill(ended, 0.0)
        ended = ended | (token == EOS)
        previous = token
    return total


def adjust_logits(logits: Tensor, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """logits (…, V) → adjusted ones, −∞ for tokens that are cut off; in this order:

    temperature divides the logits; 0, or a number too small for their type, leaves only the first of the
    likeliest tokens. top_k keeps the k likeliest and all that tie with the last of them; 0 or k ≥ V cuts
    nothing (Fan et al. 2018). top_p keeps the fewest tokens whose probabilities reach p, up to
    rounding, at least one (Holtzman et al. 2020). ValueError for a number out of range.
    """
    check_range("temperature", temperature, 0)
    check_range("top_k", top_k, 0)
    check_range("top_p", top_p, 0, 1)
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
        likelier = ranked.cumsum(dim=-1) - ranked  # probability of all likelier tokens
        cut = likelier >= top_p - 1e-6  # reached, up to rounding
        cut[..., 0] = False  # at least one stays
        cut = torch.zeros_like(cut).scatter(-1, order, cut)  # in token order
        logits = logits.masked_fill(cut, -math.inf)
    return logits


def keep_likeliest(logits: Tensor) -> Tensor:
    """Probability 1 for the likeliest token, the first of equals."""
    likeliest = logits.argmax(dim=-1, keepdim=True)
    return torch.full_like(logits, -math.inf).scatter(-1, likeliest, 0.0)


class Hypothesis(NamedTuple):
    """One answer of the beam search; tokens without BOS, with EOS if it is finished."""

    tokens: tuple[int, ...]
    log_prob: float  # the sum over its tokens
    score: float  # log_prob / length^α
    finished: bool  # False if max_length cut it off


class Beam:
    """The search for one source: at most `width` hypotheses alive, and at most `width` finished."""

    def __init__(self, width: int, max_length: int, length_penalty: float):
        self.width, self.max_length, self.length_penalty = width, max_length, length_penalty
        self.alive = [Hypothesis((), 0.0, 0.0, False)]
        self.finished: list[Hypothesis] = []
        self.candidates: list[tuple[int, Hypothesis]] = []  # of the latest step

    def grow(self, log_probs: Tensor) -> list[int]:
        """log_probs (W, V) of the next token of the W hypotheses alive → the places of those continued."""
        self.candidates, kept = self.continuations(log_probs), []
        for rank, (parent, candidate) in enumerate(self.candidates):
            if candidate.finished and rank < self.width:
                self.finished.append(candidate)
            elif not candidate.finished and len(kept) < self.width:
                kept.append((parent, candidate))
        self.finished = best_first(self.finished)[: self.width]
        if self.decided(kept):
            kept = []
        self.alive = [candidate for _, candidate in kept]
        return [parent for parent, _ in kept]

    def continuations(self, log_probs: Tensor) -> list[tuple[int, Hypothesis]]:
        """The 2 · width likeliest, each with the place of the hypothesis it continues."""
        sums = log_probs.new_tensor([hypothesis.log_prob for hypothesis in self.alive])  # (W,)
        ranked, order = (sums[:, None] + log_probs).flatten().sort(descending=True, stable=True)
        found = []
        for log_prob, place in zip(ranked[: 2 * self.width].tolist(), order.tolist(), strict=False):
            parent, token = divmod(place, log_probs.shape[1])
            tokens = *self.alive[parent].tokens, token
            score = log_prob / len(tokens) ** self.length_penalty
            found.append((parent, Hypothesis(tokens, log_prob, score, token == EOS)))
        return [(parent, candidate) for parent, candidate in found if candidate.log_prob > -math.inf]

    def decided(self, kept: list[tuple[int, Hypothesis]]) -> bool:
        """Whether `width` answers are finished and none of `kept` could still overtake the last of them."""
        if len(self.finished) < self.width or not kept:
            return not kept
        likeliest = kept[0][1]
        lengths = len(likeliest.tokens) + 1, self.max_length  # if each further token had probability 1
        within_reach = max(likeliest.log_prob / length**self.length_penalty for length in lengths)
        return within_reach <= self.finished[-1].score

    def fates(self) -> Iterator[tuple[Hypothesis, str]]:
        """Every candidate of the latest step and its fate: kept, finished or pruned."""
        for _, candidate in self.candidates:
            ended = "finished" if candidate in self.finished else "pruned"
            yield candidate, "kept" if candidate in self.alive else ended


def best_first(hypotheses: list[Hypothesis]) -> list[Hypothesis]:
    """Sorted by score; equal scores keep their order."""
    return sorted(hypotheses, key=lambda hypothesis: -hypothesis.score)


def beam_search(decoding: Decoding, width: int, max_length: int, length_penalty: float = 1.0,
                trace: list[tuple[Hypothesis, str]] | None = None) -> list[list[Hypothesis]]:
    """For every source the best hypotheses found, at most `width`, best first.

    At first a source has one hypothesis alive: no tokens, log P = 0. Each step does this:

    1. rank all continuations by log P, and look at the 2 · width likeliest;
    2. those that end in EOS and are among the first `width` are finished; keep the best `width`;
    3. the first `width` of those that don't end are alive;
    4. stop if `width` are finished and nothing alive could still overtake the last of them.

    At the end rank the finished answers and those that max_length cut off. The score is log P / length^α: EOS
    counts, BOS doesn't, α is length_penalty (after Wu et al. 2016). `trace` collects every candidate and its
    fate. ValueError for a width or max_length below 1, or too large an α.
    """
    check_search(width, max_length, length_penalty)
    beams = [Beam(width, max_length, length_penalty) for _ in range(decoding.rows)]
    tokens = first_tokens(decoding)
    for _ in range(max_length):
        log_probs = next_log_probs(decoding, tokens).cpu()  # (N, V), N alive of all sources
        start, rows = 0, []
        for beam in beams:
            end = start + len(beam.alive)
            rows += [start + place for place in beam.grow(log_probs[start:end])]
            start = end
            if trace is not None:
                trace += beam.fates()
        if not rows:
            break
        decoding.reorder(torch.tensor(rows, device=decoding.device))
        newest = [hypothesis.tokens[-1] for beam in beams for hypothesis in beam.alive]
        tokens = torch.tensor(newest, device=decoding.device)
    return [best_first(beam.finished + beam.alive)[:width] for beam in beams]


def fast_beam_search(decoding: Decoding, width: int, max_length: int,
                     length_penalty: float = 1.0) -> list[list[Hypothesis]]:
    """beam_search() in tensors, all sources at once; step 4 compares the two."""
    step, tokens = partial(next_log_probs, decoding), first_tokens(decoding)
    found = vectorised_beam_search(
        step, decoding.reorder, tokens, width, max_length, length_penalty, EOS, PAD)
    return [[Hypothesis(*answer) for answer in answers] for answers in found]


def best_answers(found: list[list[Hypothesis]]) -> Tensor:
    """The best hypothesis of every source (B, longest), padded with PAD."""
    return pad([list(hypotheses[0].tokens) for hypotheses in found])


GRADED = {
    "greedy_decode": greedy_checks,
    "adjust_logits": adjust_logits_checks,
    "sample": sample_checks,
    "beam_search": beam_search_checks,
    "CachedDecoding": cached_decoding_checks,
}
OURS = sys.modules[__name__]  # the checks make the classic mistakes from its parts


# ------------------------------------------------------------------ the steps


class DecodingExperiment(DigitExperiment):
    """Lesson 5's default run on the task of the command line, trained now if necessary."""

    def __init__(self, options: argparse.Namespace):
        super().__init__(TransformerConfig(), TrainingConfig(task=options.task), options)

    @property
    def model(self) -> Transformer:
        return self.run.model.eval()

    @cached_property
    def small_models(self) -> list[Transformer]:
        """The speaker of step 3 and the unsure model of step 5."""
        return trained_side_by_side(
            (new_speaker, trained_speaker),
            (lambda: Transformer(TransformerConfig()).to(self.device),
             partial(trained_a_little, self.device)))

    @property
    def speaker(self) -> Transformer:
        return self.small_models[0]

    @property
    def unsure(self) -> Transformer:
        return self.small_models[1]

    def batch(self, count: int, task: str = "", lengths: tuple[int, int] = (4, 16)):
        sequences = draw_sequences(count, "test", (6, *lengths), lengths)
        return make_batch(task or self.options.task, sequences).to(self.device)


text_of = partial(answering.text_of, token_of=tokenizer.token_of, eos=EOS)
right = partial(answering.same_answers, pad=PAD)


@shows(generate, greedy_decode)
def step_greedy(experiment: DecodingExperiment):
    """Greedy: the likeliest token, again and again

    Encode the source, begin with BOS, take the token with the largest logit, feed it back, and repeat. Every
    answer of the batch ends at its own EOS; from then on it gets PAD.

    In the code `decoding` is a model with its source: step() takes the newest tokens and gives the logits of
    the next ones. The only thing sampling will change is `pick`, here argmax.
    """
    batch = experiment.batch(5)
    answers = greedy_decode(CachedDecoding(experiment.model, batch.src), 20)
    check_part(greedy_decode, greedy_checks, OURS)
    rows = [(text_of(src[src != PAD]), " ".join(tokenizer.token_of[id] for id in answer))
            for src, answer in zip(batch.src[:3], answers.tolist(), strict=False)]
    return table("source", f"answer ({experiment.options.task})", rows=rows)


@shows(KeyValueCache.append, CachedDecoding.step)
def step_cache(experiment: DecodingExperiment):
    """The key/value cache

    The new token looks back at all earlier tokens. Their keys and values don't change, because the causal
    mask never lets them see the new token. So keys and values can be kept, and each step runs one token
    through the decoder instead of the whole answer. Cross-attention's keys and values come from the source
    and are computed once.

    The left panel shows the time of one step (the fastest of nine). With the cache it hardly grows at these
    lengths. The right panel adds up all steps.
    """
    check_part(CachedDecoding, cached_decoding_checks, OURS)
    batch, config = experiment.batch(8), experiment.model.config
    decoding = CachedDecoding(experiment.model, batch.src)
    answers = greedy_decode(decoding, 20)
    measured = sum(cache.bytes() for cache in [*decoding.self_caches, *decoding.cross_caches])
    tokens = batch.src.shape[1] + answers.shape[1]
    formula = 2 * config.n_layers * len(batch.src) * tokens * config.d_model * 4
    check("the cache needs 2 · blocks · B · (S + T) · D · 4 bytes", measured == formula,
          f"{measured:,} bytes")
    lengths, kinds = [16, 32, 64, 128], (CachedDecoding, UncachedDecoding)
    counted = [positions_computed(kind, 128) for kind in kinds]  # through one block
    work = [[positions[n - 1] for n in lengths] for positions in counted]
    check("for n tokens, n positions go through the decoder with the cache, n · (n + 1) / 2 without it",
          work == [lengths, [n * (n + 1) // 2 for n in lengths]])
    src = torch.full((4, 16), 5, device=experiment.device)
    times = [seconds_of_steps(partial(kind, experiment.model, src), first_tokens, 128) for kind in kinds]
    now = [[1000 * min(steps[n - 9 : n]) for n in lengths] for steps in times]
    check("at length 128 a step without the cache takes more than twice as long as a step with it",
          now[1][-1] > 2 * now[0][-1], f"{now[1][-1] / now[0][-1]:.1f} times")
    rows = [*zip(lengths, *work, *([f"{ms:.1f}" for ms in kind] for kind in now), strict=True)]
    picture = Picture("decoding_cache.png", drawing.draw_cache(lengths, now, times),
                      "With the cache each token takes about the same time; without it, ever longer")
    return table("length", "positions: cache", "no cache", "ms/step: cache", "no cache", rows=rows), picture


TRUTH = {  # sentences and their probabilities
    "the dog": 0.14, "the cow": 0.10, "the hen": 0.10, "the fox": 0.08, "the owl": 0.08,
    "a cat": 0.27, "a rat": 0.03, "no one": 0.15, "no man": 0.05,
}
words = Tokenizer(TRUTH)


def new_speaker() -> Transformer:
    return Transformer(TransformerConfig(d_model=32, n_heads=2, n_layers=1, vocab_size=len(words), max_len=8))


def trained_speaker() -> Transformer:
    """A small model that learns to say each sentence with its probability in TRUTH; every source is BOS."""
    model, chances = new_speaker(), torch.tensor([*TRUTH.values()])
    src, sentences = torch.full((128, 1), BOS), [words.encode(text) for text in TRUTH]

    def loss() -> Tensor:
        drawn = torch.multinomial(chances, 128, replacement=True).tolist()
        tgt_in, tgt_out = teacher_forcing([sentences[index] for index in drawn])
        return sequence_loss(model(src, tgt_in), tgt_out) / (tgt_out != PAD).sum()

    minimise(loss, torch.optim.AdamW(model.parameters(), lr=5e-3, fused=True), 250, decay=True)
    return model


def trained_a_little(device: torch.device) -> Transformer:
    """The unsure model: lesson 5's, trained for a few steps to reverse."""
    training = TrainingConfig(task="reverse", steps=175, seed=0)
    torch.manual_seed(training.seed)
    return finish(make_run(TransformerConfig(), training, device)).model


def speak(model: Transformer, rows: int = 1) -> CachedDecoding:
    """Begin `rows` sentences."""
    return CachedDecoding(model, torch.full((rows, 1), BOS))


def believed(model: Transformer) -> Tensor:
    """(9,): log P of each sentence of TRUTH."""
    return log_probability(speak(model, len(TRUTH)), pad([[*words.encode(text), EOS] for text in TRUTH]))


def step_greedy_can_be_wrong(experiment: DecodingExperiment):
    """When greedy is wrong

    A small model learns nine sentences with known probabilities. “The” is the likeliest first word (½), but
    five words may follow it, so each of these sentences is rare. “A” is rarer, but “cat” nearly always
    follows it.

    Greedy takes “the” and can't go back. Beam search (next step) also keeps “a” and finds the likeliest
    sentence. Sampling draws each token with its probability, and so each sentence with the probability that
    the model gives it. The chi-square test compares counts with probabilities; its p says how often correct
    draws would differ at least as much as these.
    """
    model = experiment.speaker
    learned = believed(model).exp().tolist()
    draws = sample(speak(model, tables.DRAWS), 5, generator=torch.Generator().manual_seed(0))
    said = [words.decode(answer) for answer in draws.tolist()]
    greedy = words.decode(greedy_decode(speak(model), 5)[0].tolist())
    likeliest = max(TRUTH, key=TRUTH.get)
    beam = words.decode(beam_search(speak(model), 3, 5, 0.0)[0][0].tokens)
    counts = [said.count(text) for text in TRUTH]
    rows = [(text, f"{TRUTH[text]:.3f}", f"{chance:.3f}", f"{count / tables.DRAWS:.3f}",
             {beam: "beam", greedy: "greedy"}.get(text, ""))
            for text, chance, count in zip(TRUTH, learned, counts, strict=True)]
    gap = max(abs(p - q) for p, q in zip(learned, TRUTH.values(), strict=True))
    check("the model's probabilities are within 0.06 of the true ones", gap < 0.06, f"at most {gap:.3f}")
    check("greedy misses the likeliest sentence, and beam search finds it", greedy != likeliest == beam)
    p = tables.chi_square(counts, learned)
    check("20,000 drawn sentences occur as often as the model says (chi-square)", p > 1e-5, f"p = {p:.2g}")
    return table("sentence", "true", "model", "drawn", "found by", rows=rows)


@shows(Beam.grow)
def step_beam_search(experiment: DecodingExperiment):
    """Beam search

    Keep the `width` likeliest beginnings. All their continuations compete. We look at the 2 · width
    likeliest, so that `width` can go on even if `width` others end. A continuation that ends in EOS is
    finished if it is among the best `width`. The best `width` of the rest go on (`grow`). The search stops
    when none of these could overtake the `width` finished answers. At the end, finished answers compete with
    those that max_length cut off.

    Every token lowers the sum of log-probabilities, which favours short answers. To reduce this, the score
    divides the sum by length^α; α = 0 corrects nothing. Width 1 is greedy only with α = 0: otherwise a longer
    answer may still score better. Later steps use `fast_beam_search`, the same search in tensors.

    The table and the picture show all candidates with a probability of at least 0.02. “the” is the likeliest
    first word, but only one of its continuations is kept. “a” is ahead from the second word on, and wins.
    """
    check_part(beam_search, beam_search_checks, OURS)
    src = experiment.batch(8, "reverse").src
    agreed = [search(CachedDecoding(experiment.model, src), width, 20, α)
              for width, α in ((1, 0.0), (4, 1.0)) for search in (beam_search, fast_beam_search)]
    check("beam_search and fast_beam_search give equal answers and scores for 8 sources, widths 1 and 4",
          agreed[0] == agreed[1] and agreed[2] == agreed[3])
    trace: list[tuple[Hypothesis, str]] = []
    found = beam_search(speak(experiment.speaker), 3, 5, 0.0, trace)[0]
    best = [[*TRUTH][row] for row in believed(experiment.speaker).topk(3).indices]
    check("width 3 finds the three sentences to which the model gives the highest probabilities",
          [words.decode(h.tokens) for h in found] == best, ", ".join(best))
    trace = [(candidate, fate) for candidate, fate in trace if candidate.log_prob >= math.log(0.02)]
    rows = drawing.tree_rows(trace, words.token_of.get)
    picture = Picture("decoding_beam_tree.png", drawing.draw_tree(trace, words.token_of.get),
                      "Width 3: the likeliest first word loses to another (numbers: probability so far)")
    return table("width 3, α = 0", "P so far", "fate", rows=rows), picture


def step_wider_beams(experiment: DecodingExperiment):
    """A wider beam: likelier answers, not always better ones

    A wider beam finds answers with a higher probability. This helps only as far as the model is right. Here
    the model is unsure: it reverses 12 to 16 digits after only 175 steps of training. With α = 0, width 4 is
    right a little more often than greedy, and width 16 far less often: most of its answers are empty. An
    empty answer's sum has one negative term; in a long answer every unsure token adds one.

    The search isn't to blame: where the wide beam answers nothing, the model gives the empty answer a higher
    probability than the right answer. A narrow beam drops the empty answer; a wide beam keeps it.

    With α = 1 the sum is divided by the length, and no answer is empty. The picture counts answers by length.
    The hill around 15 holds the real answers. The bar at 1 holds the empty ones (only EOS): with
    three other seeds, 56 to 88 of 100.

    Koehn and Knowles 2017 saw translations get worse with wide beams; Stahlberg and Byrne 2019 found that
    for more than half of their sentences the translator's likeliest answer was empty.
    """
    model, batch = experiment.unsure, experiment.batch(100, "reverse", (12, 16))
    nothing, wanted = (log_probability(CachedDecoding(model, batch.src), answers)
                       for answers in (torch.full_like(batch.tgt_out[:, :1], EOS), batch.tgt_out))
    lengths, hits, log_probs = {}, {}, {}
    for width, α in product((1, 4, 16), (0, 1)):
        found = fast_beam_search(CachedDecoding(model, batch.src), width, 24, α)
        lengths[width, α] = [len(beams[0].tokens) for beams in found]
        hits[width, α] = int(right(best_answers(found).to(experiment.device), batch.tgt_out).sum())
        log_probs[width, α] = statistics.fmean(beams[0].log_prob for beams in found)
    empty = {key: found.count(1) for key, found in lengths.items()}
    check("with α = 0 the answers' mean log P rises with the width",
          log_probs[1, 0] <= log_probs[4, 0] <= log_probs[16, 0])
    check("with α = 0 width 4 is right more often than width 1", hits[4, 0] > hits[1, 0])
    check("with α = 0 no answer is empty at width 1; at width 16 most are, and under half as many are right",
          empty[1, 0] == 0 and empty[16, 0] > 50 and hits[16, 0] < hits[1, 0] / 2, f"{empty[16, 0]} empty")
    chose_nothing = torch.tensor(lengths[16, 0], device=experiment.device) == 1
    check("where width 16 answers nothing, the empty answer has a higher probability than the right answer",
          (nothing > wanted)[chose_nothing].all())
    check("with α = 1 no answer is empty at any width, and width 16 is right more often than with α = 0",
          not any(empty[width, 1] for width in (1, 4, 16)) and hits[16, 1] > hits[16, 0])
    rows = [(width, log_probs[width, 0], *(counts[width, α] for α in (0, 1) for counts in (empty, hits)),
             f"{statistics.fmean(lengths[width, 1]):.1f}") for width in (1, 4, 16)]
    header = "width", "α = 0: log P", "empty", "right", "α = 1: empty", "right", "mean length"
    shown = {f"width {width}, α = {α}": lengths[width, α] for width, α in ((1, 0), (16, 0), (16, 1))}
    picture = Picture("decoding_lengths.png", drawing.draw_lengths(shown),
                      "A wide beam finds the empty answer; dividing by the length brings long answers back")
    return table(*header, rows=rows), picture


SURE = [0.90, 0.04, 0.02, 0.01, 0.01, 0.01, 0.005, 0.005]
UNSURE = [0.35, 0.25, 0.15, 0.10, 0.06, 0.04, 0.03, 0.02]


@shows(adjust_logits)
def step_sampling(experiment: DecodingExperiment):
    """Temperature, top-k, top-p

    Sampling may first change the distribution. A temperature divides the logits: below 1 it sharpens the
    distribution; above 1 it flattens it. Top-k keeps the k likeliest tokens. Top-p keeps the likeliest tokens
    that together reach the probability p: few when the model is sure, many when it isn't. Both cut the tail,
    the many tokens that are unlikely one by one but not taken together. The remaining probabilities are
    scaled to sum to 1.

    The picture shows an unsure distribution above and a sure one below. In the table “-” means cut off.
    """
    check_part(adjust_logits, adjust_logits_checks, OURS)
    check_part(sample, sample_checks, OURS)
    settings = {"as it is": {}, "temperature 0.5": {"temperature": 0.5}, "temperature 2": {"temperature": 2},
                "top-k 3": {"top_k": 3}, "top-p 0.8": {"top_p": 0.8}}
    rows, adjusted, fits = [], {}, []
    for kind, probabilities in (("unsure", UNSURE), ("sure", SURE)):
        logits = torch.tensor(probabilities).log()
        for name, options in settings.items():
            wanted = adjusted[kind, name] = adjust_logits(logits, **options).softmax(-1)
            rows.append((f"{kind}, {name}", *(f"{p:.2f}" if p else "-" for p in wanted.tolist())))
            draws = sample(tables.TreeDecoding([logits.expand(tables.DRAWS, 1, -1)]), 1, **options,
                           generator=torch.Generator().manual_seed(0))[:, 0]
            fits.append(tables.fit(draws, wanted))
    check("20,000 draws from each distribution fit its probabilities (chi-square); no cut token is drawn",
          min(fits) > 1e-5, f"smallest p = {min(fits):.2g}")
    kept = [int((adjusted[kind, cut] > 0).sum())
            for cut in ("top-k 3", "top-p 0.8") for kind in ("unsure", "sure")]
    check("top-k keeps three tokens of each distribution; top-p keeps four of the unsure, one of the sure",
          kept == [3, 3, 4, 1])
    picture = Picture("decoding_distributions.png", drawing.draw_distributions(adjusted),
                      "Temperature sharpens or flattens; top-k and top-p cut the tail (grey: before)")
    return table("", *"ABCDEFGH", rows=rows), picture


DRAWN = {  # strategies that draw, and their options
    "sampling": {},
    "temperature 0.5": {"temperature": 0.5},
    "temperature 2": {"temperature": 2},
    "temperature 2, top-k 3": {"temperature": 2, "top_k": 3},
    "temperature 2, top-p 0.9": {"temperature": 2, "top_p": 0.9},
}


def strategies(generator: torch.Generator) -> dict[str, Callable[[Decoding, int], Tensor]]:
    """The decoding strategies of this lesson."""
    return {
        "greedy": greedy_decode,
        "beam, width 4": lambda decoding, max_length: best_answers(
            fast_beam_search(decoding, 4, max_length, 0.0)),
        **{name: partial(sample, generator=generator, **options) for name, options in DRAWN.items()}}


def step_what_sampling_is_good_for(experiment: DecodingExperiment):
    """What sampling is good for

    Where many answers are possible, the likeliest represents them poorly. Take step 3's nine sentences: how
    far are each strategy's answers from the true probabilities? The distance is ½ Σ |frequency −
    probability|, the fraction of sentences that would have to change. Sampling comes nearest. Strong
    sharpening moves away from the true distribution, and greedy always says the same sentence.

    Then take an endless text: each of 17 words is followed by one of four others. The strategies get the true
    probabilities, so no model can be wrong. Greedy still runs in circles: after the same word it always takes
    the same next word. Beam search also runs in circles. “repeated” is the fraction of four-word runs seen
    before; sampling repeats only what the language repeats. (Holtzman et al. 2020 saw such circles in large
    language models.)
    """
    far, again, rows = {}, {}, []
    language = Tokenizer([" ".join(tables.FOLLOWS)])
    chances = tables.true_logits(language.id_of, BOS)
    for name in ("sampling", "temperature 0.5", "beam, width 4", "greedy"):
        seeds = [torch.initial_seed() + run for run in range(3 if name in DRAWN else 1)]
        ways = [strategies(torch.Generator().manual_seed(seed))[name] for seed in seeds]
        said = [[words.decode(answer) for answer in way(speak(experiment.speaker, 2000), 5).tolist()]
                for way in ways]
        texts = [way(tables.ChainDecoding(chances), 60)[0].tolist() for way in ways]
        far[name] = [tables.distance(sentences, TRUTH) for sentences in said]
        again[name] = [tables.repeated(text) for text in texts]
        rows.append((name, f"{statistics.fmean(far[name]):.2f}", f"{statistics.fmean(again[name]):.0%}",
                     language.decode(texts[0][:8]) + " …"))
    check("sampling is nearest to the truth in each of three runs, then temperature 0.5, then the others",
          max(far["sampling"]) < 0.1 and max(far["sampling"]) < min(far["temperature 0.5"])
          and max(far["temperature 0.5"]) < min(far["beam, width 4"] + far["greedy"]))
    check("greedy and beam search repeat over 80 % of their runs of four words; sampling repeats under 40 %",
          min(again["greedy"] + again["beam, width 4"]) > 0.8 and max(again["sampling"]) < 0.4)
    return table("strategy", "distance", "repeated", "the text begins", rows=rows)


def step_all_strategies(experiment: DecodingExperiment):
    """All strategies, side by side

    Each of 100 test sequences has one right answer. Where the model is sure of it, greedy finds it; beam
    search does more than twice the work for the same answers. Sampling (three answers each) only
    does harm here. Greedy's mean log P of about −0.125 (for reversing) means a probability of e^−0.125
    = 0.88. Greedy is still right every time; sampling is wrong about one time in eight.

    In the picture, a high temperature gives wrong, unlikely and varied answers; cutting the tail
    undoes some of this. The last panel counts tokens run through the decoder per answer, PAD included.
    """
    batch = experiment.batch(100)
    limit, found = batch.tgt_out.shape[1] + 2, {}
    generator = torch.Generator(experiment.device).manual_seed(torch.initial_seed())
    for name, decode in strategies(generator).items():
        src, wanted = (part.repeat(3 if name in DRAWN else 1, 1) for part in (batch.src, batch.tgt_out))
        begin = partial(CachedDecoding, experiment.model, src)
        answers, *cost = cost_of(begin, partial(decode, max_length=limit))
        answers = answers.to(experiment.device)
        distinct = len({(row % 100, *answer) for row, answer in enumerate(answers.tolist())}) / 100
        found[name] = (right(answers, wanted).float().mean().item(),
                       log_probability(begin(), answers).mean().item(), distinct, *cost)
    exact, log_probs, different, work, _ = (dict(zip(found, column)) for column in zip(*found.values()))
    chance = log_probability(CachedDecoding(experiment.model, batch.src), batch.tgt_out).exp().mean().item()
    check("beam search found the likeliest answers of all strategies, with over twice greedy's work",
          max(log_probs.values()) <= log_probs["beam, width 4"] + 1e-4
          and work["beam, width 4"] > 2 * work["greedy"])
    check("the fraction that sampling gets right is within 0.06 of the right answers' mean probability",
          abs(exact["sampling"] - chance) < 0.06, f"{exact['sampling']:.1%} and {chance:.1%}")
    check("at temperature 2 cutting the tail (top-p) makes the answers less varied and undoes some errors",
          different["temperature 2"] > different["temperature 2, top-p 0.9"]
          and exact["temperature 2, top-p 0.9"] > exact["temperature 2"])
    rows = [(name, *values) for name, values in found.items()]
    shown = [[*map(format, row, ("", ".1%", ".3f", ".2f", ".1f", ".2f"))] for row in rows]
    picture = Picture(experiment.file("decoding_strategies"), drawing.draw_strategies(rows),
                      "With one right answer, greedy is enough; at temperature 2 cutting the tail helps")
    return table("strategy", "right", "log P", "distinct of 3", "tokens run", "ms each", rows=shown), picture


@shows(KeyValueCache.reorder, CachedDecoding.reorder)
def step_broken_on_purpose(experiment: DecodingExperiment):
    """Broken on purpose

    Two mistakes with the cache raise no error. If every new token gets position 0, the model loses count. If
    beams change places but the cache doesn't follow, each beam continues another beam's past.

    The second mistake can hide: an answer with a probability over ½ never changes places, because each of its
    beginnings is likelier than all others together. So test a cache with an unsure model: step 5's model then
    gives different answers, and the search reports a wrong log P for them.
    """
    batch = experiment.batch(100)
    mistakes = cached_decoding_checks.mistakes(OURS)
    unordered = mistakes["cache not reordered"].implementation
    greedy, beams, hidden = [], [], []
    for name, kind in ("right", CachedDecoding), (lost := "position always 0", mistakes[lost].implementation):
        hits = right(greedy_decode(kind(experiment.model, batch.src), 20), batch.tgt_out)
        greedy.append((name, f"{hits.float().mean():.0%}"))
    for name, model, src in (("trained", experiment.model, batch.src),
                             ("175 steps", experiment.unsure, experiment.batch(100, "reverse").src)):
        good, bad = ([found[0] for found in fast_beam_search(kind(model, src), 4, 24, 0.0)]
                     for kind in (CachedDecoding, unordered))
        answers = pad([list(found.tokens) for found in bad]).to(experiment.device)
        told = torch.tensor([found.log_prob for found in bad])
        off = (told - log_probability(CachedDecoding(model, src), answers).cpu()).abs().mean().item()
        kept = [a.tokens == b.tokens for a, b in zip(good, bad, strict=True)]
        sure = [same for a, same in zip(good, kept, strict=True) if a.log_prob > math.log(0.5)]
        hidden += sure
        beams.append((name, len(sure), kept.count(False), off))
    check("the broken cache changed no answer with probability over ½", all(hidden), f"{len(hidden)} of them")
    check("broken cache, unsure model: answers change and log P is wrong", beams[1][2] and beams[1][3] > 0.05)
    caught = check_mistakes(OURS, cached_decoding_checks)
    broken = table("beams, cache not reordered", "P > ½", "answers changed", "log P off by", rows=beams)
    return table("greedy", "answers right", rows=greedy), broken, caught


def step_your_input(experiment: DecodingExperiment):
    """Your own sequence

    This shows every strategy's answer and, token by token, where greedy's last cross-attention looked.
    """
    model, options = experiment.model, experiment.options
    batch = make_batch(options.task, [options.input]).to(experiment.device)
    limit, rows = batch.tgt_out.shape[1] + 4, []
    generator = torch.Generator(experiment.device).manual_seed(options.seed)
    for name, decode in strategies(generator).items():
        answer = decode(CachedDecoding(model, batch.src), limit).to(experiment.device)
        chance = log_probability(CachedDecoding(model, batch.src), answer).exp().item()
        rows.append((name, text_of(answer[0]), f"{chance:.2g}"))
    answer = greedy_decode(CachedDecoding(model, batch.src), limit)
    tgt_in = torch.cat([torch.full_like(answer[:, :1], BOS), answer[:, :-1]], dim=1)
    with torch.no_grad(), record_attention(model) as weights:
        model(batch.src, tgt_in)
    looked = weights[f"decoder.blocks.{model.config.n_layers - 1}.cross_attention"][0]
    figure = drawing.draw_cross_attention(looked, text_of(batch.src[0]).split(), text_of(answer[0]).split())
    picture = Picture(experiment.file("decoding_your_input"), figure,
                      "Where the last block's cross-attention looked while each token was chosen")
    return table(f"{options.task}: {text_of(batch.tgt_out[0])}", "answer", "P", rows=rows), picture


def step_what_next(experiment: DecodingExperiment):
    """What now?

    Read: KeyValueCache and CachedDecoding, then generate and beam_search.

    Change: (1) In TRUTH give “a cat” 0.13 and “no one” 0.29: the beam of step 4 finds a different sentence.
    (2) In trained_a_little change 175 steps to 700: a wide beam doesn't lead a sure model astray, and the
    broken cache stays hidden (✗ in steps 5 and 9). (3) In UNSURE give every token 0.125: top-p 0.8 now keeps
    seven of eight (✗ in step 6). (4) Try --input with a sequence of your own, and --task copy, sort or sum.

    Write it yourself: --template my_decoding.py --guided, then --grade my_decoding.py.

    Next: python 07_subwords.py, where text becomes tokens.
    """


# ------------------------------------------------------------------ the command line


def main():
    parser = lesson_parser(__doc__, GRADED)
    parser.add_argument("--task", default="reverse", choices=TASKS, help="default: reverse")
    parser.add_argument("--input", type=digits, metavar="DIGITS",
                        help="decode your own sequence with every strategy, then exit")
    add_device(parser)
    add_bits(parser)
    options = parser.parse_args()
    try:
        experiment = DecodingExperiment(options)
    except ValueError as error:
        parser.error(str(error))
    steps = [
        step_greedy, step_cache, step_greedy_can_be_wrong, step_beam_search, step_wider_beams, step_sampling,
        step_what_sampling_is_good_for, step_all_strategies, step_broken_on_purpose, step_what_next]
    narrate(options, __doc__, [step_your_input] if options.input else steps, experiment)


if __name__ == "__main__":
    main()

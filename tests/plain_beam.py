"""Beam search as a plain loop over hypotheses: what the vectorised one of lesson 6 is compared with."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from common import lesson

six = lesson("06_decoding")
EOS, Decoding, Hypothesis = six.EOS, six.Decoding, six.Hypothesis
first_tokens, usable = six.first_tokens, six.usable


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
    """What lesson 6's beam_search() returns, and traces, one hypothesis after the other."""
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

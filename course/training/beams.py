"""Vectorised beam search for many sources at once: faster than lesson 6's loop, with equal results."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Answer = tuple[tuple[int, ...], float, float, bool]  # tokens, log-probability, score, finished


class Hypotheses(NamedTuple):
    """W places for hypotheses of each source; the score −∞ marks an empty one."""

    tokens: Tensor  # (B, W, T), PAD after EOS
    log_probs: Tensor  # (B, W)
    scores: Tensor  # (B, W)
    rows: Tensor  # (B, W), the row of the decoding that each of them continues

    @property
    def taken(self) -> Tensor:
        """(B, W): True where there is a hypothesis."""
        return self.scores > -math.inf

    def only(self, wanted: Tensor) -> "Hypotheses":
        """The same places, but empty where wanted (B, W) is False."""
        return self._replace(scores=self.scores.masked_fill(~wanted, -math.inf))

    def best(self, width: int) -> "Hypotheses":
        """The `width` best of each source, best first; of equally good ones, the first are kept."""
        order = self.scores.sort(dim=1, descending=True, stable=True).indices[:, :width]
        sources = torch.arange(len(order))[:, None]
        return Hypotheses(*(part[sources, order] for part in self))

    def join(self, longer: "Hypotheses", pad: int) -> "Hypotheses":
        """Both, side by side, padded with PAD."""
        missing = longer.tokens.shape[2] - self.tokens.shape[2]
        filled = self._replace(tokens=F.pad(self.tokens, (0, missing), value=pad))
        return Hypotheses(*(torch.cat(parts, dim=1) for parts in zip(filled, longer)))

    def listed(self, eos: int) -> list[list[Answer]]:
        """For each source, a list of answers without empty places, each answer cut off after EOS."""
        columns = (part.tolist() for part in (self.tokens, self.log_probs, self.scores))
        return [[(up_to(eos, tokens), log_prob, score, eos in tokens)
                 for tokens, log_prob, score in zip(*source) if score > -math.inf]
                for source in zip(*columns)]


def up_to(eos: int, tokens: list[int]) -> tuple[int, ...]:
    return tuple(tokens[: tokens.index(eos) + 1] if eos in tokens else tokens)


def empty_places(sources: int, width: int) -> Hypotheses:
    """`width` empty places for hypotheses of each source, without tokens."""
    tokens = torch.zeros(sources, width, 0, dtype=torch.long)
    log_probs = torch.zeros(sources, width, dtype=torch.double)
    return Hypotheses(tokens, log_probs, log_probs - math.inf, torch.zeros(sources, width, dtype=torch.long))


def vectorised_beam_search(
        step: Callable[[Tensor], Tensor], reorder: Callable[[Tensor], None], tokens: Tensor, width: int,
        max_length: int, length_penalty: float, eos: int, pad: int) -> list[list[Answer]]:
    """For every source the best answers found, at most `width`, best first.

    The answers start from tokens (B,). step(newest tokens (N,)) returns the log-probabilities (N, V) of the
    next; reorder(rows (M,)) continues with these answers in place of the N. The search is the one that
    lesson 6's beam_search() describes.
    """
    check_search(width, max_length, length_penalty)
    device, sources = tokens.device, len(tokens)
    finished, alive = empty_places(sources, width), empty_places(sources, 1)
    alive = alive._replace(scores=alive.log_probs)  # one for each source: no token, log P = 0
    for _ in range(max_length):
        candidates = continuations(alive, step(tokens), 2 * width, length_penalty)
        ended = candidates.tokens[:, :, -1] == eos  # (B, C)
        among_first = torch.arange(ended.shape[1]) < width  # (C,)
        alive = candidates.only(~ended).best(width)
        finished = finished.join(candidates.only(ended & among_first), pad).best(width)
        alive = alive.only(~decided(alive, finished, max_length, length_penalty)[:, None])
        if not alive.taken.any():
            break
        reorder(alive.rows[alive.taken].to(device))
        tokens = alive.tokens[alive.taken][:, -1].to(device)
    return finished.join(alive, pad).best(width).listed(eos)


def check_search(width: int, max_length: int, length_penalty: float) -> None:
    """ValueError, with the value, for an option out of range."""
    if width < 1 or max_length < 1:
        raise ValueError(f"width is {width} and max_length {max_length}; both must be at least 1")
    if not abs(length_penalty) * math.log(max_length + 1) < 700:
        raise ValueError(f"length_penalty is {length_penalty}; {max_length} to that power must be finite")


def continuations(alive: Hypotheses, log_probs: Tensor, count: int, length_penalty: float) -> Hypotheses:
    """log_probs (N, V) of the tokens after the N alive → each source's `count` likeliest, best first."""
    taken, vocabulary = alive.taken, log_probs.shape[1]
    sums = alive.log_probs[taken].to(log_probs)  # (N,)
    totals = log_probs.new_full((*taken.shape, vocabulary), -math.inf)  # (B, W, V)
    totals[taken.to(totals.device)] = sums[:, None] + log_probs
    ranked, order = largest_first(totals.flatten(1), count)  # of (B, W · V); of equal ones, the first
    ranked, order = ranked.cpu().double(), order.cpu()  # the rest takes little time
    sources = torch.arange(len(order))[:, None]  # (B, 1)
    parents, newest = order // vocabulary, order % vocabulary  # (B, count)
    tokens = torch.cat([alive.tokens[sources, parents], newest[:, :, None]], dim=2)  # (B, count, T)
    rows = taken.flatten().cumsum(0).view_as(taken) - 1  # (B, W): 0 … N − 1 where alive
    scores = ranked / tokens.shape[2] ** length_penalty
    return Hypotheses(tokens, ranked, scores, rows[sources, parents])


def decided(alive: Hypotheses, finished: Hypotheses, max_length: int, length_penalty: float) -> Tensor:
    """(B,): `width` are finished and nothing alive could still overtake the last of them."""
    lengths = alive.tokens.shape[2] + 1, max_length  # if each further token had probability 1
    within_reach = [alive.log_probs[:, 0] / length**length_penalty for length in lengths]
    return torch.maximum(*within_reach) <= finished.scores[:, -1]


def largest_first(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """values (B, N) → the `count` largest of each row, and their places; of equal values, the first.

    The result is that of a stable sort, cut off after `count`: topk() by itself breaks ties arbitrarily.
    """
    found, places = values.topk(min(count, values.shape[1]), dim=1)
    if torch.count_nonzero(values >= found[:, -1:]) > found.numel():  # some equal values were left out
        found, places = values.sort(dim=1, descending=True, stable=True)
        return found[:, :count], places[:, :count]
    places = places.sort(dim=1).values
    found, order = values.gather(1, places).sort(dim=1, descending=True, stable=True)
    return found, places.gather(1, order)

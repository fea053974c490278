"""Tables and a small model for lesson 6, in place of lesson 5's; what is measured of decoders."""

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from common import lesson
from course.console.records import Finding
from course.grading.checking import random_tensors

BOS, EOS, PAD, Tokenizer = lesson("03_positional_encoding", "BOS", "EOS", "PAD", "Tokenizer")
Transformer, TransformerConfig, pad, sequence_loss, teacher_forcing = lesson(
    "05_mini_transformer", "Transformer", "TransformerConfig", "pad", "sequence_loss", "teacher_forcing")

DRAWS = 20_000  # for every chi-square test
DECODING = (  # what a learner's own parts are given, and give
    "`decoding` has rows = N, device, and step(tokens (N,)) → logits (N, V), which is to be called with "
    "BOS = 1 for each row first, then with the newest tokens. ")
BEAM = DECODING + (
    "decoding.reorder(rows (M,)) goes on with those rows, M in place of the N. For each source a list comes "
    "back, best first, of Hypothesis(tokens, log_prob, score, finished) or such tuples: tokens without BOS, "
    "up to and with EOS; score is log_prob / length^α. `trace` may be left out. "
    "Example: beam_search(decoding, 3, 4, 0.6)[0][0] is the best answer to source 0.")
CACHE = (
    "model.encode(src) gives memory, model.src_mask(src) its mask, model.decode(tokens (N, T), memory, "
    "src_mask, start) the logits (N, T, V), where `start` is the position of the first token. Each of "
    "model.decoder.blocks has self_attention and cross_attention, to whose attend(queries, keys, values, "
    "mask) keys and values come as (B, H, S, K): KeyValueCache(attention).attend, put in its place while a "
    "token is decoded, adds those kept before. The decoders read rows, length and device, too. "
    "Example: decoding = CachedDecoding(model, src), then decoding.step(tokens (N,)) → logits (N, V).")


class TreeDecoding:
    """Stands in for a Transformer: the logits after every possible beginning are in a table.

    levels[t] is (B, Vᵗ, V): for each source the logits after t tokens, the tokens read as digits of a
    number with base V.
    """

    def __init__(self, levels: list[Tensor]):
        self.levels, self.length = levels, 0
        self.rows, self.device = len(levels[0]), levels[0].device
        self.sources = torch.arange(self.rows)
        self.places = torch.zeros(self.rows, dtype=torch.long)

    def step(self, tokens: Tensor) -> Tensor:
        level = self.levels[self.length]
        if self.length:
            self.places = self.places * level.shape[-1] + tokens
        self.length += 1
        return level[self.sources, self.places]

    def reorder(self, rows: Tensor) -> None:
        self.rows, self.sources, self.places = len(rows), self.sources[rows], self.places[rows]


class ChainDecoding:
    """Stands in for a Transformer: the logits (V, V) of the next token depend on the newest alone."""

    def __init__(self, logits: Tensor, rows: int = 1):
        self.logits, self.rows, self.length, self.device = logits, rows, 0, logits.device

    def step(self, tokens: Tensor) -> Tensor:
        self.length += 1
        return self.logits[tokens]

    def reorder(self, rows: Tensor) -> None:
        self.rows = len(rows)


def random_tree(sources: int, depth: int, vocabulary: int = 5, seed: int = 0) -> list[Tensor]:
    """Random logits after every beginning shorter than `depth`."""
    sizes = [(sources, vocabulary**length, vocabulary) for length in range(depth)]
    return [1.5 * level for level in random_tensors(*sizes, seed=seed)]


def greedy_by_hand(levels: list[Tensor], stop: bool = True) -> Tensor:
    """The likeliest token after those before it, source by source."""
    answers = []
    for source in range(len(levels[0])):
        tokens, place = [], 0
        for level in levels:
            tokens.append(int(level[source, place].argmax()))
            place = place * level.shape[-1] + tokens[-1]
            if stop and tokens[-1] == EOS:
                break
        answers.append(tokens)
    return pad(answers)


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


def no_answer(found, answers: list[dict]) -> Finding | None:
    """A finding in words if some hypothesis is none of its source's answers."""
    for source, beams in enumerate(found):
        for hypothesis in beams:
            tokens = [int(token) for token in hypothesis[0]]
            if tuple(tokens) not in answers[source]:
                what = ("tokens follow EOS" if EOS in tokens[:-1]
                        else "it neither ends in EOS nor has max_length tokens")
                return Finding(False, f"{tokens} is no answer: {what}",
                               f"tokens without BOS, up to and with EOS, which is {EOS}")
    return None


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


# ------------------------------------------------------------------ what is measured


FOLLOWS = {  # a language: after each word these, with probabilities 0.4, 0.3, 0.2 and 0.1
    "the": "cat dog boy bird", "a": "mouse dog bone cat", "cat": "sees and hears sleeps",
    "dog": "hears sees and sleeps", "boy": "sees hears and sleeps", "bird": "sleeps sees and hears",
    "mouse": "and sleeps hears sees", "bone": "and while but then", "sees": "the a one every",
    "hears": "a the every one", "sleeps": "and while but then", "one": "boy mouse bird dog",
    "every": "dog cat bird boy", "and": "the a every one", "while": "the one a every",
    "but": "a every the one", "then": "the a one every",
}
language = Tokenizer([" ".join(FOLLOWS)])


def true_logits() -> Tensor:
    """The logits (V, V) of what follows each word; a text begins as if “and” came before."""
    logits = torch.full((len(language), len(language)), -math.inf)
    for word, followers in FOLLOWS.items():
        logits[language.id_of[word], language.encode(followers)] = torch.tensor([0.4, 0.3, 0.2, 0.1]).log()
    logits[BOS] = logits[language.id_of["and"]]
    return logits


def repeated(tokens: Sequence[int], n: int = 4) -> float:
    """The share of runs of n tokens that came before already."""
    runs = [tuple(tokens[start : start + n]) for start in range(len(tokens) - n + 1)]
    return 1 - len(set(runs)) / len(runs)


def distance(said: Sequence[str], truth: Mapping[str, float]) -> float:
    """½ Σ |share said − true probability| over all sentences: the total variation."""
    counts = Counter(said)
    return sum(abs(counts[text] / len(said) - truth.get(text, 0.0)) for text in {*counts, *truth}) / 2


def seconds_of_steps(begin: Callable[[], Any], length: int) -> list[float]:
    """Seconds of each step of answers of this length that never end, after twenty steps to warm up."""
    for steps in (20, length):
        decoding = begin()
        noted, tokens = watched(decoding), torch.full((decoding.rows,), BOS, device=decoding.device)
        for _ in range(steps):
            tokens = decoding.step(tokens).argmax(dim=-1)
    return [seconds for _, seconds in noted]


def watched(decoding: Any) -> list[tuple[int, float]]:
    """From now on (rows, seconds) of every step of the decoding."""
    noted, step = [], decoding.step

    def timed(tokens: Tensor) -> Tensor:
        started = time.perf_counter()
        logits = step(tokens)
        noted.append((len(tokens), time.perf_counter() - started))
        return logits

    decoding.step = timed
    return noted


def fit(draws: Tensor, probabilities: Tensor) -> float:
    """Pearson's test of DRAWS draws (DRAWS,) → the p-value, 0 if something impossible was drawn."""
    counts, possible = draws.bincount(minlength=len(probabilities)), probabilities > 0
    if counts[~possible].any():
        return 0.0
    if possible.sum() == 1:
        return 1.0
    return chi_square(counts[possible].tolist(), probabilities[possible].tolist())


# ------------------------------------------------------------------ a model that speaks nine sentences


def train_speaker(words: Any, truth: Mapping[str, float], steps: int = 250) -> Any:
    """A small model that learns to say sentences as often as `truth` says; its source says nothing."""
    config = TransformerConfig(d_model=32, n_heads=2, n_layers=1, vocab_size=len(words), max_len=8)
    model = Transformer(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, fused=True)
    sentences, chances = [words.encode(text) for text in truth], torch.tensor(list(truth.values()))
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

"""Lesson 7. From digits to language

The model stays, the tokens change. English goes in and French comes out, both cut into pieces that were
learned from the text:

    text → pieces → ids → lesson 5's Transformer → lesson 6's decoders → ids → text

The pairs come from a grammar that was written for this course, in grammar/: nothing has to be fetched, and
of each sentence it is known which rules it needs. It isn't a language: some hundred everyday words, each
said in one way only. What a small model shows here is whether it can put learned rules together in sentences
that it never saw. How well it would translate a newspaper, it doesn't show. For pairs of your own there is
--pairs.
"""

import argparse
import heapq
import json
import math
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from common import lesson
from course.keeping import write_atomically

PAD = lesson("03_positional_encoding").PAD
BOS = lesson("03_positional_encoding").BOS
EOS = lesson("03_positional_encoding").EOS
Batch = lesson("05_mini_transformer").Batch
Transformer = lesson("05_mini_transformer").Transformer
pad = lesson("05_mini_transformer").pad
teacher_forcing = lesson("05_mini_transformer").teacher_forcing
CachedDecoding = lesson("06_decoding").CachedDecoding
beam_search = lesson("06_decoding").beam_search
best_answers = lesson("06_decoding").best_answers
greedy_decode = lesson("06_decoding").greedy_decode

# ------------------------------------------------------------------ subwords

SPECIALS = 3  # PAD, BOS, EOS have the first ids, then come the 256 bytes
WORD = re.compile(r" ?[^\W\d_]+['’]?| ?\d+| ?[^\w\s]+| ?_+|\s+?(?=\s\S)|\s+|.", re.DOTALL)


def split_words(text: str) -> list[str]:
    """The text cut into words that keep the space in front of them: joined, they are the text again.

    Letters hold together, and an apostrophe with those before it: “L'”, “arbre”, “ n'”, “est”, “ pas”.
    """
    return WORD.findall(text)


def merged(ids: list[int], pair: tuple[int, int], new: int) -> list[int]:
    """The ids with `new` in place of each occurrence of the pair, from left to right."""
    result: list[int] = []
    position = 0
    while position < len(ids):
        if tuple(ids[position : position + 2]) == pair:
            result.append(new)
            position += 2
        else:
            result.append(ids[position])
            position += 1
    return result


class BytePairEncoding:
    """Text to the ids of its pieces and back (Sennrich, Haddow and Birch 2016, section 3.2).

    Ids: PAD, BOS, EOS, the 256 bytes, the characters of `alphabet`, then what each merge made, in the order
    of the merges. A character that isn't in the alphabet becomes its UTF-8 bytes, so that no text is unknown.
    ValueError for a merge of something that doesn't exist yet.
    """

    def __init__(self, alphabet: str, merges: Iterable[tuple[int, int]]):
        self.alphabet, self.merges = alphabet, [tuple(pair) for pair in merges]
        self.pieces = [b""] * SPECIALS + [bytes([byte]) for byte in range(256)]
        self.pieces += [character.encode() for character in alphabet]
        self.id_of = {character: SPECIALS + 256 + place for place, character in enumerate(alphabet)}
        made = {self.pieces[id]: id for id in self.id_of.values()}
        self.merge_of: dict[tuple[int, int], tuple[int, int]] = {}  # pair → (rank, id)
        for rank, pair in enumerate(self.merges):
            if not all(SPECIALS + 256 <= id < len(self.pieces) for id in pair):
                raise ValueError(f"merge {rank} joins {pair}, and there are {len(self.pieces)} pieces so far")
            piece = self.pieces[pair[0]] + self.pieces[pair[1]]
            if piece not in made:  # "a" + "bc" and "ab" + "c" are one piece
                made[piece] = len(self.pieces)
                self.pieces.append(piece)
            self.merge_of[pair] = rank, made[piece]
        self.known: dict[str, list[int]] = {}  # words that were encoded before

    def __len__(self) -> int:
        """How many ids there are."""
        return len(self.pieces)

    @classmethod
    def learn(cls, texts: Iterable[str], merges: int) -> "BytePairEncoding":
        """Join the most frequent pair of neighbours, `merges` times; of several such pairs the smallest."""
        counts = Counter(word for text in texts for word in split_words(text))
        alphabet = "".join(sorted(set("".join(counts))))
        encoding = cls(alphabet, [])
        words = [[encoding.id_of[character] for character in word] for word in counts]
        pairs = PairCounts(words, [*counts.values()])
        made = {piece: id for id, piece in enumerate(encoding.pieces) if id >= SPECIALS + 256}
        chosen: list[tuple[int, int]] = []
        while len(chosen) < merges and (pair := pairs.most_frequent()):
            piece = encoding.pieces[pair[0]] + encoding.pieces[pair[1]]
            if piece not in made:
                made[piece] = len(encoding.pieces)
                encoding.pieces.append(piece)
            pairs.merge(pair, made[piece])
            chosen.append(pair)
        return cls(alphabet, chosen)

    def encode(self, text: str) -> list[int]:
        """The ids of the text's pieces; ValueError for half a surrogate pair, which is no text."""
        return [id for word in split_words(text) for id in self.encode_word(word)]

    def encode_word(self, word: str) -> list[int]:
        """Replay the merges in the order in which they were learned."""
        if word not in self.known:
            ids = [id for character in word for id in self.first_ids(character)]
            while pair := min(zip(ids, ids[1:]), key=self.rank, default=None):
                if pair not in self.merge_of:
                    break
                ids = merged(ids, pair, self.merge_of[pair][1])
            self.known[word] = ids
        return self.known[word]

    def rank(self, pair: tuple[int, int]) -> float:
        """When the pair was merged; never: infinity."""
        return self.merge_of.get(pair, (math.inf,))[0]

    def first_ids(self, character: str) -> list[int]:
        """The character, or its bytes."""
        if character in self.id_of:
            return [self.id_of[character]]
        try:
            return [SPECIALS + byte for byte in character.encode()]
        except UnicodeEncodeError:
            raise ValueError(f"{character!r} is half a surrogate pair, not a character") from None

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the ids, special ones left out; bytes that are no UTF-8 become �."""
        return b"".join(self.pieces[id] for id in ids).decode(errors="replace")

    def texts_of(self, ids: Iterable[int]) -> list[str]:
        """Each piece as text."""
        return [self.pieces[id].decode(errors="replace") for id in ids]

    def state(self) -> dict[str, Any]:
        """Plain values, from which restored() makes the same encoding."""
        return {"alphabet": self.alphabet, "merges": [list(pair) for pair in self.merges]}

    @classmethod
    def restored(cls, state: dict[str, Any]) -> "BytePairEncoding":
        return cls(state["alphabet"], [(left, right) for left, right in state["merges"]])

    def save(self, path: Path) -> None:
        """Write the alphabet and the merges as JSON, whole or not at all."""
        text = json.dumps(self.state(), ensure_ascii=False)
        write_atomically(path, lambda file: file.write(text.encode()))

    @classmethod
    def load(cls, path: Path) -> "BytePairEncoding":
        """What save() wrote; ValueError, in one line, for anything else."""
        try:
            return cls.restored(json.loads(path.read_bytes()))
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{path} is no vocabulary ({type(error).__name__}: {error})") from error


class PairCounts:
    """How often each pair of neighbours stands in some words, kept up to date while pairs are merged."""

    def __init__(self, words: list[list[int]], times: list[int]):
        self.words, self.times = words, times
        self.count: Counter[tuple[int, int]] = Counter()
        self.where: dict[tuple[int, int], set[int]] = {}  # the words in which a pair stands, or stood
        self.heap: list[tuple[int, tuple[int, int]]] = []  # (−count, pair), old counts among them
        for number in range(len(words)):
            self.note(number, 1)
        self.push(self.count)

    def note(self, number: int, sign: int) -> set[tuple[int, int]]:
        """Add the pairs of a word to the counts, or with −1 take them away."""
        ids = self.words[number]
        for pair in zip(ids, ids[1:]):
            self.count[pair] += sign * self.times[number]
            self.where.setdefault(pair, set()).add(number)
        return set(zip(ids, ids[1:]))

    def push(self, pairs: Iterable[tuple[int, int]]) -> None:
        for pair in pairs:
            heapq.heappush(self.heap, (-self.count[pair], pair))

    def most_frequent(self) -> tuple[int, int] | None:
        """The pair that stands most often, of several the smallest; None if no pair is left."""
        while self.heap:
            negative, pair = heapq.heappop(self.heap)
            if self.count[pair] == -negative > 0:
                return pair
        return None

    def merge(self, pair: tuple[int, int], new: int) -> None:
        """Let `new` stand in place of the pair in every word."""
        changed: set[tuple[int, int]] = set()
        for number in self.where.pop(pair):
            changed |= self.note(number, -1)
            self.words[number] = merged(self.words[number], pair, new)
            changed |= self.note(number, +1)
        self.push(changed - {pair})


# ------------------------------------------------------------------ batches by length


class BatchesByLength:
    """Batch number `step` of sources and targets (lists of ids): rows of about the same length.

    Each epoch has every pair once. Pairs are shuffled, sorted by length, cut into batches, and the batches
    shuffled: all from seed and epoch alone, so that a resumed run sees the same.
    """

    def __init__(self, sources: Sequence[list[int]], targets: Sequence[list[int]], size: int, seed: int):
        self.sources, self.targets, self.size, self.seed = sources, targets, size, seed
        self.lengths = np.array([len(source) for source in sources]), np.array([len(t) for t in targets])
        self.epoch, self.order = -1, []

    def __len__(self) -> int:
        """Batches of an epoch."""
        return -(-len(self.sources) // self.size)

    def __call__(self, step: int) -> Batch:
        """The batch of a step, counted over all epochs."""
        epoch, number = divmod(step, len(self))
        if epoch != self.epoch:
            self.epoch, self.order = epoch, self.order_of(epoch)
        return self.batch(self.order[number])

    def order_of(self, epoch: int) -> list[np.ndarray]:
        """The rows of every batch of an epoch."""
        random = np.random.default_rng((self.seed, epoch))
        rows = random.permutation(len(self.sources))
        by_length = rows[np.lexsort([lengths[rows] for lengths in self.lengths])]  # the target's first
        batches = np.split(by_length, range(self.size, len(rows), self.size))
        return [batches[place] for place in random.permutation(len(batches))]

    def batch(self, rows: Iterable[int]) -> Batch:
        return make_batch([self.sources[row] for row in rows], [self.targets[row] for row in rows])


def make_batch(sources: list[list[int]], targets: list[list[int]]) -> Batch:
    """Lists of ids → a batch as lesson 5 has it."""
    return Batch(pad(sources), *teacher_forcing(targets))


# ------------------------------------------------------------------ BLEU

SIGNATURE = "nrefs:1|case:mixed|eff:no|tok:13a|smooth:{smooth}"  # as sacreBLEU writes it
RULES_13A = [(re.compile(rule), put) for rule, put in (
    (r"([\{-\~\[-\` -\&\(-\+\:-\@\/])", r" \1 "),  # ASCII marks, without ' , - .
    (r"([^0-9])([.,])", r"\1 \2 "),  # . and , stay only between digits
    (r"([.,])([^0-9])", r" \1 \2"),
    (r"([0-9])(-)", r"\1 \2 "),  # a dash behind a digit
)]


def tokens_13a(text: str) -> list[str]:
    """The words that BLEU counts, cut as by the script mteval-v13a of the translation contests."""
    for old, new in (("<skipped>", ""), ("-\n", ""), ("\n", " "), ("&quot;", '"'), ("&amp;", "&"),
                     ("&lt;", "<"), ("&gt;", ">")):
        text = text.replace(old, new)
    text = f" {text} "
    for rule, put in RULES_13A:
        text = rule.sub(put, text)
    return text.split()


class Bleu(NamedTuple):
    """BLEU from 0 to 100, and what it is made of."""

    score: float
    precisions: list[float]  # in percent, of 1 to 4 words in a row
    brevity: float  # the penalty for answers that are too short, 0 to 1
    answer_length: int
    reference_length: int


def ngrams(tokens: list[str], n: int) -> Counter:
    """How often each n tokens in a row occur."""
    return Counter(zip(*(tokens[start:] for start in range(n))))


def corpus_bleu(answers: Sequence[str], references: Sequence[str], smooth: str = "exp",
                tokenize: Callable[[str], list[str]] = tokens_13a) -> Bleu:
    """BLEU of a whole corpus, one reference for each answer (Papineni et al. 2002, section 2.3).

    Of the answers' n-grams count those that stand in the reference, each at most as often as there (clipped),
    for n = 1 … 4; the geometric mean of the four shares, times exp(1 − r / c) if the c words of the answers
    are fewer than the r of the references. For an order without a match, smooth="exp" takes half of one
    match, then a quarter and so on; "none" takes 0. ValueError for lists of different length.
    """
    if smooth not in ("exp", "none") or len(answers) != len(references):
        raise ValueError(f"{len(answers)} answers, {len(references)} references, smooth {smooth!r}: "
                         "as many of the one as of the other, and exp or none")
    matches, totals, lengths = [0] * 4, [0] * 4, [0, 0]
    for answer, reference in zip(answers, references):
        texts = tokenize(answer.rstrip()), tokenize(reference.rstrip())
        lengths = [length + len(text) for length, text in zip(lengths, texts)]
        for n in range(4):
            said, wanted = (ngrams(text, n + 1) for text in texts)
            matches[n] += (said & wanted).total()  # the smaller count of each
            totals[n] += said.total()
    precisions = smoothed(matches, totals, smooth)
    brevity = min(1.0, math.exp(1 - lengths[1] / lengths[0])) if lengths[0] else float(lengths[1] == 0)
    mean = math.exp(sum(map(math.log, precisions)) / 4) if all(precisions) else 0.0
    return Bleu(brevity * mean, precisions, brevity, *lengths)


def smoothed(matches: list[int], totals: list[int], smooth: str) -> list[float]:
    """matches / totals in percent, those without a match as `smooth` says; all 0 if nothing matches."""
    precisions, halved = [0.0] * 4, 1.0
    for n in range(4 if any(matches) else 0):
        if not matches[n] and smooth == "exp":
            halved /= 2
        share = matches[n] or (halved if smooth == "exp" else 0.0)
        precisions[n] = 100 * share / totals[n] if totals[n] else 0.0
    return precisions


# ------------------------------------------------------------------ translation


def translate(model: Transformer, encoding: BytePairEncoding, sentences: Sequence[str], width: int = 1,
              length_penalty: float = 1.0, rows: int = 100) -> list[str]:
    """The model's answers, greedy or by a beam of `width`, `rows` sentences of similar length at once.

    An answer may be as long as max_len allows, at most twice its source and 20 pieces more. An empty sentence
    has an empty answer. ValueError, with both numbers, for a sentence of more pieces than max_len.
    """
    device = next(model.parameters()).device
    sources = [encoding.encode(sentence) for sentence in sentences]
    order = sorted((row for row, source in enumerate(sources) if source), key=lambda row: len(sources[row]))
    answers = [""] * len(sources)
    for start in range(0, len(order), rows):
        some = order[start : start + rows]
        src = pad([sources[row] for row in some]).to(device)
        limit = min(model.config.max_len, 2 * src.shape[1] + 20)
        decoding = CachedDecoding(model, src)
        if width == 1:
            found = greedy_decode(decoding, limit)
        else:
            found = best_answers(beam_search(decoding, width, limit, length_penalty))
        for row, ids in zip(some, found.tolist()):
            answers[row] = encoding.decode(ids)
    return answers

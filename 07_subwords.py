"""Lesson 7. What is a token?

A Transformer reads numbers: each token is the index of an embedding row. So far the tokens were digits, and
a list of them was given. Text has no such list. This lesson learns one from the text itself:

    text → words → pieces → ids → … → ids → pieces → text

A piece is a word or a part of a word. Frequent words become one piece, rare words become several. Joined, the
pieces give back any text. Lesson 8 translates with such pieces.

You need no trained model. You will build byte-pair encoding, the method of GPT-2. The lesson runs in seconds
and takes three quarters of an hour to read.
"""

import argparse
import course.console.startup  # noqa: F401 (before torch: it reports what fails in the imports below)
import heapq
import json
import math
import re
import sys
import time
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import groupby, pairwise
from pathlib import Path
from random import Random
from typing import Any

from checks.subwords import byte_pair_encoding_checks
from common import Picture, check, check_mistakes, check_part, lesson, lesson_parser, narrate, shows, table
from course.console.files import write_atomically
from course.console.options import count
from course.data.texts import ARTICLE, as_text, lesson_texts
from figures import subwords as drawing

BOS, EOS, PAD = lesson("03_positional_encoding", "BOS", "EOS", "PAD")

__all__ = ["WORD", "BytePairEncoding", "PairCounts", "learn_by_counting", "merged", "split_words"]

SPECIALS = 3  # PAD, BOS, EOS have the first ids, then come the 256 bytes
WORD = re.compile(r" ?[^\W\d_]+['’]?| ?\d+| ?[^\w\s]+| ?_+|\s+?(?=\s\S)|\s+|.", re.DOTALL)
LONG = 100  # a word of more ids is encoded with a heap


def split_words(text: str) -> list[str]:
    """The text cut into words that keep the space in front of them: joined, they are the text again.

    Letters and a following apostrophe stay together: “L'”, “arbre”, “ n'”, “est”, “ pas”.
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
    """Text to the ids of its pieces and back (after Sennrich, Haddow and Birch 2016, section 3.2;
    the space in front and the bytes are as in GPT-2).

    Ids: PAD, BOS, EOS, the 256 bytes, the characters of `alphabet`, then what each merge made, in the order
    of the merges. A character that isn't in the alphabet becomes its UTF-8 bytes, so that every text has ids.
    ValueError for a merge of pieces that don't exist yet.
    """

    def __init__(self, alphabet: str, merges: Iterable[tuple[int, int]]):
        if not isinstance(alphabet, str) or len(set(alphabet)) < len(alphabet):
            raise ValueError(f"the alphabet should be a text of different characters, not {alphabet!r:.40}")
        self.alphabet, self.merges = alphabet, []
        self.pieces = [b""] * SPECIALS + [bytes([byte]) for byte in range(256)]
        self.pieces += [character.encode() for character in alphabet]
        self.id_of = {character: SPECIALS + 256 + place for place, character in enumerate(alphabet)}
        self.made = {self.pieces[id]: id for id in self.id_of.values()}
        self.merge_of: dict[tuple[int, int], tuple[int, int]] = {}  # pair → (rank, id)
        self.known: dict[str, list[int]] = {}  # words that were encoded before
        for pair in merges:
            self.add(tuple(pair))

    def __len__(self) -> int:
        """How many ids there are."""
        return len(self.pieces)

    def add(self, pair: tuple[int, int]) -> int:
        """Append a merge → the id of its piece."""
        if not all(SPECIALS + 256 <= id < len(self.pieces) for id in pair):
            raise ValueError(f"merge {len(self.merges)} joins {pair}, but so far only {SPECIALS + 256} to "
                             f"{len(self.pieces) - 1} can be joined")
        piece = self.pieces[pair[0]] + self.pieces[pair[1]]
        if piece not in self.made:  # "a" + "bc" and "ab" + "c" are one piece
            self.made[piece] = len(self.pieces)
            self.pieces.append(piece)
        self.merge_of[pair] = len(self.merges), self.made[piece]
        self.merges.append(pair)
        self.known.clear()
        return self.made[piece]

    @classmethod
    def learn(cls, texts: Iterable[str], merges: int, characters: int | None = None) -> "BytePairEncoding":
        """Join the most frequent pair of neighbours, `merges` times; of equally frequent pairs the smallest.

        The alphabet is the `characters` most frequent characters, or all. Others become bytes, never merged.
        """
        counts = Counter(word for text in texts for word in split_words(text))
        encoding = cls(alphabet_of(counts, characters), [])
        words, times = [], []
        for word, often in counts.items():
            for known, run in groupby(word, encoding.id_of.__contains__):
                if known:
                    words.append([encoding.id_of[character] for character in run])
                    times.append(often)
        pairs = PairCounts(words, times)
        while len(encoding.merges) < merges and (pair := pairs.most_frequent()):
            pairs.merge(pair, encoding.add(pair))
        return encoding

    def encode(self, text: str) -> list[int]:
        """The ids of the text's pieces; ValueError for half a surrogate pair, which is not a text."""
        return [id for word in split_words(text) for id in self.encode_word(word)]

    def encode_word(self, word: str) -> list[int]:
        """Replay the merges in the order in which they were learned."""
        if word not in self.known:
            ids = [id for character in word for id in self.first_ids(character)]
            self.known[word] = self.replay(ids) if len(ids) <= LONG else self.replay_long(ids)
        return self.known[word]

    def replay(self, ids: list[int]) -> list[int]:
        """Join the neighbours whose merge was learned first, and repeat."""
        while pair := min(pairwise(ids), key=self.rank, default=None):
            if pair not in self.merge_of:
                break
            ids = merged(ids, pair, self.merge_of[pair][1])
        return ids

    def replay_long(self, ids: list[int]) -> list[int]:
        """Like replay(), in n · log n steps for n ids: each place waits in a heap for its turn."""
        chain = Chain([ids])
        heap = [(self.rank(chain.pair(place)), place) for place in range(len(ids))]
        heapq.heapify(heap)
        while heap and heap[0][0] < math.inf:
            rank, joined = heap[0][0], []
            while heap and heap[0][0] == rank:
                _, place = heapq.heappop(heap)
                if self.rank(pair := chain.pair(place)) == rank:  # a place taken meanwhile has no pair
                    chain.join(place, self.merge_of[pair][1])
                    joined.append(place)
            for near in {near for place in joined for near in (place, chain.before[place])}:
                heapq.heappush(heap, (self.rank(chain.pair(near)), near))
        return [id for id in chain.ids if id >= 0]

    def rank(self, pair: tuple[int, int] | None) -> float:
        """The rank of the pair's merge, infinity if the pair was never merged."""
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
        """The text of the ids, special ones left out; bytes that are not UTF-8 become �."""
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
        """Write the alphabet and the merges as JSON, atomically."""
        text = json.dumps(self.state(), ensure_ascii=False)
        write_atomically(path, lambda file: file.write(text.encode()))

    @classmethod
    def load(cls, path: Path) -> "BytePairEncoding":
        """What save() wrote; a one-line ValueError for anything else."""
        try:
            return cls.restored(json.loads(path.read_bytes()))
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise ValueError(f"{path} is not a vocabulary ({type(error).__name__}: {error})") from error


def alphabet_of(counts: Counter[str], most: int | None) -> str:
    """The words' characters, sorted: the `most` most frequent, or all."""
    times: Counter[str] = Counter()
    for word, often in counts.items():
        for character in word:
            times[character] += often
    return "".join(sorted(sorted(times, key=lambda character: (-times[character], character))[:most]))


def learn_by_counting(texts: Iterable[str], merges: int) -> BytePairEncoding:
    """BytePairEncoding.learn() as a plain loop: count all pairs, join the most frequent, repeat."""
    times = Counter(word for text in texts for word in split_words(text))
    encoding = BytePairEncoding(alphabet_of(times, None), [])
    words = {word: [encoding.id_of[character] for character in word] for word in times}
    for _ in range(merges):
        count: Counter[tuple[int, int]] = Counter()
        for word, ids in words.items():
            for pair in pairwise(ids):
                count[pair] += times[word]
        if not count:
            break
        best = min(count, key=lambda pair: (-count[pair], pair))
        new = encoding.add(best)
        words = {word: merged(ids, best, new) for word, ids in words.items()}
    return encoding


class Chain:
    """Words as one list, in which neighbours are joined without moving the rest.

    `before` and `after` hold the places of the neighbours in the same word, −1 where there is none.
    """

    def __init__(self, words: Iterable[Sequence[int]]):
        self.ids: list[int] = []
        self.before: list[int] = []
        self.after: list[int] = []
        for word in words:
            first, end = len(self.ids), len(self.ids) + len(word)
            self.ids += word
            self.before += [-1, *range(first, end - 1)][: len(word)]
            self.after += [*range(first + 1, end), -1][: len(word)]

    def pair(self, place: int) -> tuple[int, int] | None:
        """The pair that begins at the place, if one does."""
        if place < 0 or self.after[place] < 0:
            return None
        return self.ids[place], self.ids[self.after[place]]

    def join(self, place: int, new: int) -> None:
        """Put `new` in place of the pair that begins at the place."""
        taken = self.after[place]
        beyond = self.after[taken]
        self.ids[place], self.after[place] = new, beyond
        self.ids[taken] = self.after[taken] = -1
        if beyond >= 0:
            self.before[beyond] = place


class PairCounts:
    """How often each pair of neighbours occurs in some words, kept up to date while pairs are merged."""

    def __init__(self, words: Sequence[Sequence[int]], times: Sequence[int]):
        self.chain = Chain(words)
        self.times = [often for word, often in zip(words, times, strict=True) for _ in word]
        self.count: Counter[tuple[int, int]] = Counter()
        self.where: dict[tuple[int, int], set[int]] = defaultdict(set)
        self.heap: list[tuple[int, tuple[int, int]]] = []  # (−count, pair), outdated counts included
        self.push({self.note(place, +1) for place in range(len(self.times))})

    def note(self, place: int, sign: int) -> tuple[int, int] | None:
        """Count the pair that begins at the place, or with −1 uncount it → the pair, if there is one."""
        if pair := self.chain.pair(place):
            self.count[pair] += sign * self.times[place]
            (self.where[pair].add if sign > 0 else self.where[pair].discard)(place)
        return pair

    def push(self, pairs: set[tuple[int, int] | None]) -> None:
        for pair in pairs - {None}:
            heapq.heappush(self.heap, (-self.count[pair], pair))

    def most_frequent(self) -> tuple[int, int] | None:
        """The pair that occurs most often, of several the smallest; None if no pair is left."""
        while self.heap:
            negative, pair = heapq.heappop(self.heap)
            if self.count[pair] == -negative > 0:
                return pair
        return None

    def merge(self, pair: tuple[int, int], new: int) -> None:
        """Put `new` in place of the pair everywhere: this changes only the counts of the pairs next to it."""
        changed = set()
        for place in sorted(self.where[pair]):
            if self.chain.pair(place) == pair:  # of “aaa” the first two may just have been joined
                before, taken = self.chain.before[place], self.chain.after[place]
                changed |= {self.note(near, -1) for near in (before, place, taken)}
                self.chain.join(place, new)
                changed |= {self.note(near, +1) for near in (before, place)}
        self.push(changed - {pair})


GRADED = {"BytePairEncoding": byte_pair_encoding_checks}  # the part that --grade looks for
OURS = sys.modules[__name__]  # the checks make the classic mistakes from its parts


# ------------------------------------------------------------------ the steps

MOST = 3000  # merges learned from lessons 1 to 5
USUAL = 2000  # of these, for most steps


@cache
def prose() -> tuple[list[str], list[str]]:
    """What is written in lessons 1 to 5, and in lesson 6."""
    return lesson_texts()


@cache
def all_learned() -> BytePairEncoding:
    return BytePairEncoding.learn(prose()[0], MOST)


@cache
def learned(merges: int = USUAL) -> BytePairEncoding:
    """The pieces of lessons 1 to 5. The first merges don't depend on how many follow."""
    return BytePairEncoding(all_learned().alphabet, all_learned().merges[:merges])


def cut(text: str, encoding: BytePairEncoding) -> str:
    """The pieces of a text, with bars between them."""
    return "|".join(encoding.texts_of(encoding.encode(text)))


def step_why_pieces():
    """Why not words or characters?

    A model needs a finite list of tokens, and text has no such list. So make the list from the text of
    lessons 1 to 5, and then read lesson 6 with it. If tokens are words, some words of lesson 6 have no id. If
    tokens are characters, almost nothing is missing. But then sequences are several times as long as with
    words, and the cost of attention grows with the square of the length.

    Pieces lie in between: frequent words are one piece, rare words are several, and a character that was
    never seen becomes its bytes, which all have an id. The row “pieces” shows a list learned from lessons 1
    to 5 by 2,000 merges (see the next step).
    """
    before, after = prose()
    rows, lengths, missing = [], {}, {}
    for name, tokens_of in {"words": split_words, "characters": list}.items():
        listed = {token for text in before for token in tokens_of(text)}
        tokens = [token for text in after for token in tokens_of(text)]
        lengths[name], missing[name] = len(tokens), sum(token not in listed for token in tokens) / len(tokens)
        rows.append((name, len(listed), len(tokens), f"{missing[name]:.1%}"))
    pieces = [learned().encode(text) for text in after]
    lengths["pieces"] = sum(map(len, pieces))
    rows.insert(1, ("pieces", len(learned()), lengths["pieces"], "0.0%"))
    check("more than one in 50 of lesson 6's words has no id", missing["words"] > 0.02,
          f"{missing['words']:.1%}")
    check("lesson 6's characters outnumber its words by over three to one and its pieces by over two to one",
          lengths["characters"] > max(3 * lengths["words"], 2 * lengths["pieces"]))
    check("cut into pieces and joined again, lesson 6 is unchanged, so every piece has an id",
          [learned().decode(ids) for ids in pieces] == after)
    return table("tokens", "in the list", "in lesson 6", "without an id", rows=rows)


TOY = "the cat sat on the mat. the cats sat on the mats. that is that."


@shows(learn_by_counting, BytePairEncoding.replay)
def step_by_hand():
    """Byte-pair encoding, merge by merge

    Begin with characters. Count how often each pair of neighbours occurs, join the most frequent pair
    everywhere (this is one merge), and repeat until there are enough merges. If two pairs are equally
    frequent, take the pair with the smaller ids. A word keeps the space in front of it, and no piece spans
    two words. So decoding is joining: the pieces already contain the spaces.

    To encode a new text, replay the merges in the order in which they were learned. A character without an id
    becomes its bytes in UTF-8. Lesson 8 learns one list for two languages, so that one embedding can serve
    source, target and output, as in lesson 5.
    """
    check_part(BytePairEncoding, byte_pair_encoding_checks, OURS)
    encoding = learn_by_counting([TOY], 10)
    words = [BytePairEncoding(encoding.alphabet, encoding.merges[:n]).encode(TOY) for n in range(11)]
    rows = []
    for rank, pair in enumerate(encoding.merges):
        left, right = (repr(text) for text in encoding.texts_of(pair))
        before, after = len(words[rank]), len(words[rank + 1])
        rows.append((rank + 1, f"{left} + {right}", before - after, after))
    shown = [(text, "  ".join(map(repr, encoding.texts_of(encoding.encode(text)))))
             for text in ("the hat", "cats eat", "là")]
    return (f"“{TOY}”", table("merge", "joined", "times", "pieces left", rows=rows),
            table("a new text", "its pieces (� is half of à, which is not in the toy text)", rows=shown))


@shows(PairCounts.merge, Chain.join)
def step_learning_fast():
    """Learning the merges fast

    The plain loop counts all pairs again before each merge. But a merge changes only the counts of the pairs
    next to the joined pair. So keep the counts, and for each pair the places where it occurs. A heap has the
    most frequent pair on top. Each place also knows its neighbours, so joining two neighbours moves nothing
    else.

    Both ways learn the same merges. The table compares the work for 300 merges from the lessons' first 60
    docstrings: how many pairs are counted, and the ratio of the seconds.
    """
    texts, merges = prose()[0][:60], 300
    seconds, found = {}, {}
    for name, learn in (("counted again", learn_by_counting), ("kept", BytePairEncoding.learn)):
        started = time.perf_counter()
        found[name] = learn(texts, merges)
        seconds[name] = time.perf_counter() - started
    plain, kept = pairs_counted(texts, found["kept"])
    long = ["".join("abc"[place % 7 % 3] for place in range(20_000))]
    check("both methods learn the same list of merges",
          found["kept"].merges == found["counted again"].merges)
    check("counting again looks at over ten times as many pairs as keeping the counts", kept < plain / 10)
    check("keeping the counts is at least three times as fast as counting again",
          seconds["counted again"] > 3 * seconds["kept"])
    check("merges are learned from a word of 20,000 letters, which comes back unchanged",
          (encoding := BytePairEncoding.learn(long, 50)).decode(encoding.encode(long[0])) == long[0])
    rows = [("counted again", plain, seconds["counted again"] / seconds["kept"]), ("kept", kept, 1.0)]
    return table("counts", "pairs counted", "seconds, ratio", rows=rows)


def pairs_counted(texts: Sequence[str], encoding: BytePairEncoding) -> tuple[int, int]:
    """Pairs counted by each method: all before each merge, or all once and at most five per joined pair."""
    words = {word: [encoding.id_of[character] for character in word]
             for text in texts for word in split_words(text)}
    pairs = PairCounts([*words.values()], [1] * len(words))
    left = sum(len(word) - 1 for word in words.values())
    plain, kept = 0, left
    for pair in encoding.merges:
        plain += left
        places = len(pairs.where[pair])
        pairs.merge(pair, encoding.merge_of[pair][1])
        left, kept = left - places, kept + 5 * places
    return plain, kept


SIZES = 0, 60, 125, 250, 500, 1000, 2000, MOST
CHARACTERS = 500  # of the text whose cost is counted: a paragraph
WIDTH, LAYERS = 128, 2  # of the model whose cost is counted


def multiplications(length: int, vocabulary: int, width: int = WIDTH) -> dict[str, int]:
    """For one pass of a stack of blocks over a sequence: between tokens, in each token, for the logits."""
    return {"between tokens": 2 * LAYERS * length**2 * width,
            "in each token": 12 * LAYERS * length * width**2,
            "logits": length * width * vocabulary}


def step_vocabulary_size():
    """How many pieces?

    More merges make longer pieces, so the same text has fewer of them. Later merges help less: their pairs
    are rarer. And each piece is one more row of the embedding and one more logit per token.

    What does one pass over 500 characters of lesson 6 cost? The table adds up the multiplications of a model
    with 2 blocks, 128 wide: between tokens (attention, which grows with the square of the length), in each
    token (projections and feed-forward), and for the logits. With few merges there are many tokens; with many
    merges there are many logits. For a wider model a longer list is cheapest: the logits are a smaller part
    of its cost.
    """
    text = "\n".join(prose()[1])
    rows, costs, wider, lengths = [], [], [], []
    for merges in SIZES:
        encoding = learned(merges)
        lengths.append(len(encoding.encode(text)) / len(text))
        costs.append(multiplications(round(CHARACTERS * lengths[-1]), len(encoding)))
        wide = multiplications(round(CHARACTERS * lengths[-1]), len(encoding), 4 * WIDTH)
        wider.append(sum(wide.values()))
        rows.append((len(encoding), f"{lengths[-1]:.2f}", len(encoding) * WIDTH,
                     f"{sum(costs[-1].values()) / 1e6:,.0f}"))
    totals = [sum(cost.values()) for cost in costs]
    saved = [before - after for before, after in pairwise(lengths)]
    check("with more merges the text always has fewer pieces", all(gain > 0 for gain in saved))
    check("the last 1,000 merges save fewer pieces than the first 60", saved[-1] < saved[0])
    check("the cheapest vocabulary is neither the smallest nor the largest",
          0 < totals.index(min(totals)) < len(totals) - 1, f"{rows[totals.index(min(totals))][0]:,} pieces")
    check("for a model four times as wide the cheapest vocabulary is larger",
          wider.index(min(wider)) > totals.index(min(totals)), f"{rows[wider.index(min(wider))][0]:,} pieces")
    figure = drawing.draw_vocabulary([len(learned(merges)) for merges in SIZES], lengths, costs)
    picture = Picture("subwords_vocabulary.png", figure,
                      f"One pass is cheapest with {rows[totals.index(min(totals))][0]:,} pieces in the list")
    return table("pieces in the list", "pieces per character", "numbers in the embedding",
                 "million multiplications", rows=rows), picture


YEARS = range(1000, 3000)


def step_what_a_model_sees():
    """What does a model see in a text?

    A model sees one number per piece. The letters inside the piece are not in its input. To count the letters
    of such a word or to write it backwards, a model must have learned its spelling elsewhere. Written
    backwards, the word is cut into different pieces.

    A capital letter or a missing space leads to different pieces. Numbers are cut by frequency, not by
    digits: of the years from 1000 to 2999, a few are one piece, most are three or four.
    """
    encoding = learned()
    words = " attention", "attention", " Attention", " ATTENTION", " noitnetta"
    ids = {word: encoding.encode(word) for word in words}
    rows = [(repr(word), cut(word, encoding), " ".join(map(str, ids[word]))) for word in words]
    ways = Counter(tuple(map(len, encoding.texts_of(encoding.encode(f" {year}")))) for year in YEARS)
    example = {way: next(year for year in YEARS if tuple(map(len, encoding.texts_of(
        encoding.encode(f" {year}")))) == way) for way in ways}
    years = [(cut(f" {example[way]}", encoding), number) for way, number in ways.most_common(5)]
    check("“ attention” is one piece, and the word written backwards doesn't contain this piece",
          len(ids[" attention"]) == 1 and not {*ids[" attention"]} & {*ids[" noitnetta"]})
    check("with a capital, in capitals, or without the space, the word shares no id with “ attention”",
          not {*ids[" attention"]} & {id for word in words[1:] for id in ids[word]})
    check("years from 1000 to 2999 are cut in at least three ways", len(ways) >= 3, f"{len(ways)} ways")
    return (table("text", "pieces", "ids", rows=rows), table("a year is cut like", "how many", rows=years))


def step_other_languages():
    """Other languages

    These pieces were learned from English. Here is the first article of the Universal Declaration of Human
    Rights in five languages. All five say the same thing, and English needs the fewest pieces. French and
    German use the same letters, but different words. Greek letters and Chinese characters hardly ever
    occurred, so most of them become two or three bytes.

    A model pays per piece. So the same sentence costs more in these languages, and a sequence of 512 pieces
    holds less text. A list of pieces serves a language well only if it was learned from that language. The
    last column uses 300 merges learned from these five texts.
    """
    encoding = learned()
    lengths = {name: len(encoding.encode(text)) for name, text in ARTICLE.items()}
    own = BytePairEncoding.learn(ARTICLE.values(), 300)
    rows = [(name, len(text), lengths[name], f"{lengths[name] / len(text):.2f}", len(own.encode(text)))
            for name, text in ARTICLE.items()]
    check("English needs the fewest pieces", min(lengths, key=lengths.get) == "English",
          f"{lengths['English']} pieces")
    check("Greek needs more than four times as many pieces as English",
          lengths["Greek"] > 4 * lengths["English"])
    check("Chinese needs more than two pieces per character",
          lengths["Chinese"] > 2 * len(ARTICLE["Chinese"]))
    check("the texts of all five languages come back unchanged",
          all(encoding.decode(encoding.encode(text)) == text for text in ARTICLE.values()))
    figure = drawing.draw_languages(lengths, {name: len(text) for name, text in ARTICLE.items()})
    picture = Picture("subwords_languages.png", figure, f"The same article has {lengths['English']} pieces "
                      f"in English and {lengths['Greek']} in Greek")
    header = "language", "characters", "pieces", "per character", "pieces, own merges"
    return table(*header, rows=rows), picture


def odd_texts() -> dict[str, str]:
    """Texts that break careless programs."""
    letters = "".join(Random(0).choices("aeinost", k=100_000))
    return {"one emoji made of three": "👩‍👩‍👧", "é, one character (NFC)": "l'été",
            "é, letter and mark (NFD)": unicodedata.normalize("NFD", "l'été"),
            "the name of a special token": "<eos> is no end",
            "whitespace of all kinds": " \t\n\r\n\u00a0\u2009\u3000\x0b",
            "right to left": "שלום", "one word of 100,000 letters": letters}


def step_texts_as_they_are():
    """Odd texts

    Every text comes back unchanged, however odd. An emoji may be several characters of three or four bytes
    each. An é from a keyboard is one character; from some programs it is an e followed by an accent. Both
    look the same but have different ids, so a model sees two words. Lesson 8 first normalises your sentence
    pairs: it joins letter and accent.

    “<eos>” in a text is five characters. The ids 0, 1 and 2 never come from a text; only the program inserts
    them. Bytes that are not UTF-8 are refused before anything is learned from them.
    """
    encoding, texts = learned(), odd_texts()
    ids = {name: encoding.encode(text) for name, text in texts.items()}
    one, two = (ids[name] for name in texts if "NFC" in name or "NFD" in name)
    try:
        refused = as_text("l'été".encode("latin-1"), "a file in Latin-1")
    except ValueError as error:
        refused = str(error)
    check("each of these texts comes back unchanged",
          all(encoding.decode(ids[name]) == text for name, text in texts.items()))
    check("the two forms of é have different ids, but normalising makes them equal",
          one != two and unicodedata.normalize("NFC", texts["é, letter and mark (NFD)"]) == "l'été")
    check("no text has the id of a special token",
          not {PAD, BOS, EOS} & {id for some in ids.values() for id in some})
    check("text in Latin-1 is refused with a one-line error", "not UTF-8" in refused and "\n" not in refused)
    rows = [(name, text if len(text) < 20 and text.isprintable() else "", len(text), len(ids[name]))
            for name, text in texts.items()]
    return table("text", "", "characters", "pieces", rows=rows), refused


def step_broken_on_purpose():
    """Broken on purpose

    If encoding takes the longest piece that fits, or replays the merges in a different order, the text still
    comes back, so nothing seems wrong. But words are now cut differently than in training. If each piece is
    decoded by itself, a character that was cut becomes two or three �. If the program looks for “<eos>” in
    plain text, whoever types “<eos>” ends the sentence, and the word itself is lost.
    """
    wrong = {name: mistake.implementation(learned().alphabet, learned().merges)
             for name, mistake in byte_pair_encoding_checks.mistakes(OURS).items()
             if name in ("longest match", "merges from the last", "decoded piece by piece",
                         "special tokens in text")}
    words = Counter(word for text in prose()[1] for word in split_words(text))
    asked = "La fenêtre, <eos> et là: 東京."
    rows, other = [], {}
    for name, broken in wrong.items():
        other[name] = sum(n for word, n in words.items() if broken.encode(word) != learned().encode(word))
        rows.append((name, f"{other[name] / words.total():.1%}", broken.decode(broken.encode(asked))))
    check("the longest match cuts some words differently from the merges", other["longest match"] > 0)
    check("replaying the last merge first cuts more than a tenth of the words differently",
          other["merges from the last"] > words.total() / 10)
    texts = dict(zip(wrong, (row[2] for row in rows)))
    check("decoded piece by piece, the text contains �", "�" in texts["decoded piece by piece"])
    check("if <eos> is recognised in a text, the word is lost",
          "<eos>" not in texts["special tokens in text"])
    return (table("mistake", "words cut differently", f"“{asked}” comes back as", rows=rows),
            check_mistakes(OURS, byte_pair_encoding_checks))


def step_your_text(options: argparse.Namespace):
    """Your text

    The pieces are learned from your text; the table says how many pieces it then has.
    """
    text, encoding = options.text, own_encoding(options)
    words = split_words(text)
    sizes = sorted({0, *(options.vocab >> halving for halving in range(4))})
    found = {merges: BytePairEncoding(encoding.alphabet, encoding.merges[:merges]) for merges in sizes}
    lengths = {merges: len(one.encode(text)) for merges, one in found.items()}
    check("your text comes back unchanged", encoding.decode(encoding.encode(text)) == text)
    facts = [("characters", len(text)), ("different characters", len(encoding.alphabet)),
             ("words", len(words)), ("different words", len({*words})),
             ("merges learned", len(encoding.merges))]
    rows = [(merges, len(found[merges]), length, f"{length / len(text):.2f}")
            for merges, length in lengths.items()]
    longest = sorted((piece.decode() for piece in encoding.pieces[SPECIALS + 256 :]), key=len)[-8:]
    return (table("", "", rows=facts), table("merges", "in the list", "pieces", "per character", rows=rows),
            "the longest pieces: " + "  ".join(map(repr, longest[::-1])))


def step_your_input(options: argparse.Namespace):
    """Your pieces

    This is how your input is cut. A � is part of a character that has no id.
    """
    encoding, text = own_encoding(options), options.input
    ids = encoding.encode(text)
    check("your input comes back unchanged", encoding.decode(ids) == text)
    rows = [(repr(piece), id, "byte" if id < SPECIALS + 256 else "")
            for piece, id in zip(encoding.texts_of(ids), ids)]
    return (f"{len(text)} characters, {len(ids)} pieces: {cut(text, encoding)}",
            table("piece", "id", "", rows=rows))


def own_encoding(options: argparse.Namespace) -> BytePairEncoding:
    """Learned from --text, or from lessons 1 to 5."""
    return BytePairEncoding.learn([options.text] if options.text else prose()[0], options.vocab)


def step_what_next():
    """What now?

    Read: learn_by_counting, then PairCounts. Both learn the same merges; learn_by_counting is the definition.

    Change: (1) Put \\d in place of \\d+ in WORD: each digit is then its own word. What becomes of the years?
    (2) Leave out the space in front: " ?" in WORD. How many pieces does lesson 6 then have? (3) Let learn()
    take the largest of equally frequent pairs, and see which check fails.

    Your own: --text FILE learns from your text, --vocab N says how many merges, and --input "any text" shows
    how it is cut. Write it yourself: --template my_subwords.py --guided, then --grade my_subwords.py.

    Lesson 8 learns pieces of English and French, and trains lesson 5's Transformer to translate.
    """


# ------------------------------------------------------------------ the command line


def text_of(file: str) -> str:
    """The text in a file, which must be UTF-8 and not empty."""
    try:
        text = as_text(Path(file).read_bytes(), file)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{error.strerror}: {file}") from error
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    if not text:
        raise argparse.ArgumentTypeError(f"{file} is empty")
    return text


def any_text(text: str) -> str:
    """A text that is not empty and has no half of a surrogate pair."""
    if not text or any("\ud800" <= character <= "\udfff" for character in text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a text")
    return text


def main():
    parser = lesson_parser(__doc__, GRADED)
    parser.add_argument("--text", type=text_of, metavar="FILE",
                        help="learn from a text of your own (UTF-8), then exit")
    parser.add_argument("--vocab", type=count,
                        help=f"with --text or --input: merges to learn (default: {USUAL})")
    parser.add_argument("--input", type=any_text, metavar="TEXT", help="show the pieces of a text, then exit")
    options = parser.parse_args()
    if options.vocab and not (options.text or options.input):
        parser.error(f"--vocab {options.vocab} goes with --text FILE or --input TEXT")
    if own := [step for step, given in ((step_your_text, options.text), (step_your_input, options.input))
               if given]:
        options.vocab = options.vocab or USUAL
        narrate(options, __doc__, own, options)
    steps = [
        step_why_pieces,
        step_by_hand,
        step_learning_fast,
        step_vocabulary_size,
        step_what_a_model_sees,
        step_other_languages,
        step_texts_as_they_are,
        step_broken_on_purpose,
        step_what_next,
    ]
    narrate(options, __doc__, steps)


if __name__ == "__main__":
    main()

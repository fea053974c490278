"""What must hold for lesson 7's byte-pair encoding."""

import math
import random
import re
from collections import Counter
from itertools import pairwise

import torch
from torch import Tensor

from common import lesson
from course.console.records import Finding
from course.grading.checking import Mistake, Part, agree, at, together

BOS, EOS, PAD = lesson("03_positional_encoding", "BOS", "EOS", "PAD")

FIRST = 3 + 256  # the id of the first character: before it PAD, BOS, EOS and the bytes
STORY = "the cat sees the black cat and the cat eats the other black hat of the hatter"
FOREIGN = ["", " ", "  a\t b \n\n c\r\n", "naïve Ελλάδα, 東京! 👩‍👩‍👧 \x00", "x_1 = 2.50€; l’été d'hier",
           "cat" * 30]


def nonsense(seed: int) -> list[str]:
    """Some texts of words over three letters, with many pairs of the same frequency."""
    draw = random.Random(seed)
    return [" ".join("".join(draw.choices("abc", k=draw.randint(1, 6))) for _ in range(draw.randint(1, 9)))
            for _ in range(12)]


# ------------------------------------------------------------------ plain loops over strings as the oracle


def joined(word: list[str], left: str, right: str) -> list[str]:
    """The pieces with every `left` `right` made one, from left to right."""
    result: list[str] = []
    for piece in word:
        if result and (result[-1], piece) == (left, right):
            result[-1] = left + right  # longer than `left`: not taken again
        else:
            result.append(piece)
    return result


def learned(texts: list[str], merges: int) -> tuple[list[tuple[str, str]], list[str]]:
    """The pairs that are joined, and all pieces: every pair of every word is counted again each time."""
    words = [list(word) for text in texts for word in re.findall(r" ?\S+", text)]
    pieces = sorted({character for word in words for character in word})
    chosen = []
    for _ in range(merges):
        count = Counter(pair for word in words for pair in pairwise(word))
        if not count:
            break
        left, right = min(count, key=lambda pair: (-count[pair], *map(pieces.index, pair)))
        words = [joined(word, left, right) for word in words]
        chosen.append((left, right))
        pieces += [left + right] if left + right not in pieces else []
    return chosen, pieces


def replayed(word: str, merges: list[tuple[str, str]]) -> list[str]:
    """The pieces of a word: while any neighbours were joined in learning, join the pair joined first."""
    pieces = list(word)
    while known := [merges.index(pair) for pair in pairwise(pieces) if pair in merges]:
        pieces = joined(pieces, *merges[min(known)])
    return pieces


# ------------------------------------------------------------------ how pieces are compared


def codes(pieces: list[str]) -> Tensor:
    """The pieces as numbers, with −1 after each."""
    return torch.tensor([number for piece in pieces for number in (*map(ord, piece), -1)])


def same(found: list[str], expected: list[str], hint: str = "") -> Finding:
    """Finding: the same pieces in the same order; the figure names the first that differs."""
    finding = agree(codes(found), codes(expected), 0.0)
    if finding.holds:
        return Finding(True, f"{len(found)} pieces", gap=0.0)
    place = next((n for n, pair in enumerate(zip(found, expected)) if pair[0] != pair[1]),
                 min(len(found), len(expected)))
    shown = [repr(row[place]) if place < len(row) else "nothing" for row in (found, expected)]
    return Finding(False, f"number {place} is {shown[0]}, expected {shown[1]}", hint, finding.gap)


def pieces_of(built, text: str) -> list[str]:
    """Each piece of the text, decoded by itself; the space in front of a word shows as it is."""
    return [built.decode([id]) for id in built.encode(text)]


def merges_of(built) -> list[str]:
    """Each merge as “left+right”."""
    return [f"{built.decode([left])}+{built.decode([right])}" for left, right in built.merges]


def merges_agree(implementation, texts: list[str], merges: int) -> Finding:
    """Finding: learn() joins the same pairs in the same order as the plain loop."""
    expected = [f"{left}+{right}" for left, right in learned(texts, merges)[0]]
    return same(merges_of(implementation.learn(texts, merges)), expected,
                "count every pair again after each merge, in each word as often as it occurs")


# ------------------------------------------------------------------ BytePairEncoding.learn(texts, merges)


def comes_back_unchanged(implementation, ours):
    """Any text comes back unchanged from encode() and decode(), whatever its script."""
    built = implementation.learn([STORY], 20)
    return together(*(same([built.decode(built.encode(text))], [text], "no part of a text may be lost")
                      for text in [STORY, *FOREIGN]))


def falls_back_to_bytes(implementation, ours):
    """A character that learn() never saw becomes its UTF-8 bytes, byte b with id 3 + b."""
    built = implementation.learn([STORY], 20)
    found = [torch.tensor(built.encode(character)) for character in "xé東👩"]
    expected = [torch.tensor([3 + byte for byte in character.encode()]) for character in "xé東👩"]
    return together(*(agree(ids, wanted, 0.0, "ids 3 to 258 are the bytes 0 to 255")
                      for ids, wanted in zip(found, expected)))


def numbers_its_pieces(implementation, ours):
    """Ids from 259 on are the sorted characters, then the piece of each merge; 0, 1, 2 decode to nothing."""
    built = implementation.learn([STORY], 20)
    expected = learned([STORY], 20)[1]
    found = [built.decode([id]) for id in range(FIRST, len(built))]
    return together(same(found, expected, "sort the characters; append each new piece once"),
                    same([built.decode([1, FIRST + 1, 2, 0])], [expected[1]], "ids 0, 1 and 2 are not text"))


def joins_the_most_frequent(implementation, ours):
    """learn() joins the same pairs as a loop that counts all pairs again before each merge."""
    return together(merges_agree(implementation, [STORY], 30),
                    *(at(f"texts {seed}", merges_agree(implementation, nonsense(seed), 25))
                      for seed in range(6)))


def settles_ties(implementation, ours):
    """Of equally frequent pairs, the pair with the smallest ids is joined first."""
    expected = ["a+b", "a+d", "c+b", "d+c"]
    found = merges_of(implementation.learn(["cb", "dc", "ad", "ab"], 4))
    return same(found, expected, "compare the left ids first, then the right ones")


def counts_words_as_often_as_they_occur(implementation, ours):
    """A word that occurs five times counts five times."""
    texts = ["ab", "ab", "xy", "xyz", "wxy", "ab", "ab", "ab"]
    return same(merges_of(implementation.learn(texts, 2)), ["a+b", "x+y"],
                "count words, not different words")


def joins_from_the_left(implementation, ours):
    """Of three equal letters the first two are joined: “aaa” becomes aa, a."""
    built = implementation.learn(["aa aa"], 1)
    return together(*(same(pieces_of(built, word), expected, "go from left to right") for word, expected in (
        ("aaa", ["aa", "a"]), ("aaaa", ["aa", "aa"]), ("baaaaab", ["b", "aa", "aa", "a", "b"]))))


def replays_the_merges(implementation, ours):
    """encode() replays the merges by their rank; it doesn't look for the longest piece."""
    a, b, c, d = range(FIRST, FIRST + 4)
    built = implementation("abcd", [(c, d), (b, c), (a, b), (FIRST + 6, FIRST + 4)])  # cd, bc, ab, ab+cd
    hand = together(*(same(pieces_of(built, word), expected) for word, expected in (
        ("bcd", ["b", "cd"]), ("abc", ["a", "bc"]), ("abcd", ["abcd"]), ("abbcd", ["ab", "b", "cd"]))))
    findings = []
    for seed in range(4):
        texts, merges = nonsense(seed), learned(nonsense(seed), 25)[0]
        built = implementation.learn(texts, 25)
        words = [word for text in nonsense(seed + 10) for word in text.split()]
        findings.append(same([piece for word in words for piece in pieces_of(built, word)],
                             [piece for word in words for piece in replayed(word, merges)],
                             "join the neighbours whose merge was learned first, and repeat"))
    return together(hand, *findings)


def stays_inside_words(implementation, ours):
    """No piece spans two words, however often they occur together; a space belongs to the word after it."""
    text = "to be to be to be to be"
    built = implementation.learn([text], 20)
    return same(pieces_of(built, text), re.findall(r" ?\S+", text), "cut the text with split_words() first")


def cuts_as_learning_does(implementation, ours):
    """encode() cuts the text into words first, as learn() does."""
    built = implementation.learn(["''", "''", "''", "a'", "a'"], 2)
    return together(same(pieces_of(built, "a''"), ["a'", "'"], "for each word of split_words(text)"),
                    same(pieces_of(built, "''a'"), ["''", "a'"]))


def leaves_special_tokens_alone(implementation, ours):
    """The name of a special token in a text is plain text: no text has the ids 0, 1 or 2."""
    built = implementation.learn([STORY], 20)
    texts = ["<eos>", "<pad> <bos> <eos>", "</s>", "<|endoftext|>", "\x00\x01\x02"]
    special = [id for text in texts for id in built.encode(text) if id < 3]
    return together(is_so(bool(special), f"{len(special)} special ids", "only the program inserts these"),
                    *(same([built.decode(built.encode(text))], [text]) for text in texts))


def decodes_what_is_cut(implementation, ours):
    """Bytes that are not UTF-8 decode to �, and the text around them stays."""
    built = implementation.learn([STORY], 20)
    cat = built.encode(" cat")
    found = []
    for ids in [*cat, 3 + 0xC3], [3 + 0xE6, 3 + 0x9D, *cat], [3 + 0xFF]:
        try:
            found.append(built.decode(ids))
        except UnicodeDecodeError as error:
            found.append(f"UnicodeDecodeError: {error.reason}")
    return same(found, [" cat�", "� cat", "�"], "join all bytes, then decode them with errors=\"replace\"")


def is_so(wrong: bool, figure: str, hint: str) -> Finding:
    """Finding: nothing is wrong. What is compared is noted, so that the same mistake is recognised."""
    return agree(torch.tensor(float(wrong)), torch.tensor(0.0), 0.0, hint)._replace(figure=figure)


def ends_when_nothing_is_left(implementation, ours):
    """learn() stops early when nothing is left to join, and without text it learns no merge."""
    found = [len(implementation.learn(texts, 10).merges) for texts in (["abc ab"], ["a b"], [])]
    return agree(torch.tensor(found), torch.tensor([3, 1, 0]), 0.0, f"{found} merges, expected [3, 1, 0]")


def subwords_mistakes(ours):
    """The classic mistakes, made from the course's own encoding."""

    class LongestMatch(ours.BytePairEncoding):
        """From the left, the longest piece that fits."""

        def encode_word(self, word):
            known = {piece: id for id, piece in enumerate(self.pieces) if id >= FIRST}
            ids = []
            while word:
                ends = [end for end in range(len(word), 0, -1) if word[:end].encode() in known]
                ids += [known[word[: ends[0]].encode()]] if ends else self.first_ids(word[0])
                word = word[ends[0] if ends else 1 :]
            return ids

    class Slow(ours.BytePairEncoding):
        """Learned by counting, with one thing done differently."""

        @classmethod
        def learn(cls, texts, merges):
            words = Counter(word for text in texts for word in ours.split_words(text))
            alphabet = "".join(sorted(set("".join(words))))
            built, chosen = cls(alphabet, []), []
            cut = {word: [built.id_of[character] for character in word] for word in words}
            for _ in range(merges):
                count = cls.counted(cut, words)
                if not count:
                    break
                pair = cls.chosen(count)
                chosen.append(pair)
                built = cls(alphabet, chosen)
                new = built.merge_of[pair][1]
                cut = {word: ours.merged(ids, pair, new) for word, ids in cut.items()}
            return built

        @staticmethod
        def counted(cut, words):
            count = Counter()
            for word, ids in cut.items():
                for pair in pairwise(ids):
                    count[pair] += words[word]
            return count

        @staticmethod
        def chosen(count):
            return min(count, key=lambda pair: (-count[pair], pair))

    class LargestTie(Slow):
        @staticmethod
        def chosen(count):
            return max(count, key=lambda pair: (count[pair], pair))

    class FirstTie(Slow):
        @staticmethod
        def chosen(count):
            return count.most_common(1)[0][0]

    class WordsOnce(Slow):
        @staticmethod
        def counted(cut, words):
            return Counter(pair for ids in cut.values() for pair in pairwise(ids))

    class CountedOnce(ours.BytePairEncoding):
        """All pairs are counted before the first merge, and never again."""

        @classmethod
        def learn(cls, texts, merges):
            words = [word for text in texts for word in ours.split_words(text)]
            built = cls("".join(sorted(set("".join(words)))), [])
            cut = [[built.id_of[character] for character in word] for word in words]
            count = Counter(pair for ids in cut for pair in pairwise(ids))
            return cls(built.alphabet, sorted(count, key=lambda pair: (-count[pair], pair))[:merges])

    class UnknownDropped(ours.BytePairEncoding):
        def first_ids(self, character):
            return [self.id_of[character]] if character in self.id_of else []

    class FromTheLast(ours.BytePairEncoding):
        """The merge that was learned last is replayed first."""

        def rank(self, pair):
            return -self.merge_of[pair][0] if pair in self.merge_of else math.inf

    class PieceByPiece(ours.BytePairEncoding):
        """Each piece is decoded by itself."""

        def decode(self, ids):
            return "".join(self.texts_of(ids))

    class SpecialInText(ours.BytePairEncoding):
        """The names of special tokens are looked for in the text."""

        def encode(self, text):
            names = {"<pad>": PAD, "<bos>": BOS, "<eos>": EOS}
            return [id for part in re.split("(<pad>|<bos>|<eos>)", text)
                    for id in ([names[part]] if part in names else super(SpecialInText, self).encode(part))]

    return {
        "longest match": Mistake(
            "it takes the longest piece that fits: replay the merges in the order they were learned",
            LongestMatch, "encode() replays"),
        "ties to the larger": Mistake("it joins the largest of equally frequent pairs: take the smallest",
                                      LargestTie, "Of equally frequent"),
        "ties to the first": Mistake("it joins the first seen of equally frequent pairs: take the smallest",
                                     FirstTie, "Of equally frequent"),
        "words counted once": Mistake("each different word counts once: count it as often as it occurs",
                                      WordsOnce, "A word that occurs"),
        "counted once": Mistake(
            "pairs were counted only before the first merge: each merge makes new pairs", CountedOnce,
            "learn() joins"),
        "unknown dropped": Mistake("unknown characters are dropped: encode their bytes", UnknownDropped,
                                   "A character that learn()"),
        "merges from the last": Mistake(
            "the merges are replayed in a different order: begin with the first one learned", FromTheLast,
            "encode() replays"),
        "decoded piece by piece": Mistake(
            "each piece is decoded by itself, and may be half a character: join the bytes first",
            PieceByPiece, "Any text"),
        "special tokens in text": Mistake(
            "it looks for the names of special tokens in the text: there they are plain text", SpecialInText,
            "The name of a special token"),
    }


BLANK = "\u02f0"  # a letter, to hide a space from split_words()


def hidden(text: str) -> str:
    return text.replace(" ", BLANK)


def more_subwords_mistakes(ours):
    """Others that the lesson doesn't show."""

    class WholeTexts(ours.BytePairEncoding):
        """A text is one word."""

        @classmethod
        def learn(cls, texts, merges):
            built = ours.BytePairEncoding.learn(map(hidden, texts), merges)
            return cls(built.alphabet.replace(BLANK, " "), built.merges)

        def encode(self, text):
            return self.encode_word(text)

    class WithoutSpaces(ours.BytePairEncoding):
        """Spaces are thrown away."""

        @classmethod
        def learn(cls, texts, merges):
            return super().learn([word for text in texts for word in text.split()], merges)

        def encode(self, text):
            return [id for word in text.split() for id in self.encode_word(word)]

    class Uncut(ours.BytePairEncoding):
        """Learned from words, but a text is encoded as one word."""

        def encode(self, text):
            return self.encode_word(text)

    class Strict(ours.BytePairEncoding):
        """Half a character is an error."""

        def decode(self, ids):
            return b"".join(self.pieces[id] for id in ids).decode()

    class FromTheRight(ours.BytePairEncoding):
        def encode_word(self, word):
            ids = [id for character in word for id in self.first_ids(character)]
            while pair := min(pairwise(ids), key=self.rank, default=None):
                if pair not in self.merge_of:
                    break
                ids = ours.merged(ids[::-1], pair[::-1], self.merge_of[pair][1])[::-1]
            return ids

    class CodePoints(ours.BytePairEncoding):
        """Not the bytes of UTF-8: the number of the character, cut off at 255."""

        def first_ids(self, character):
            return [self.id_of[character]] if character in self.id_of else [3 + min(ord(character), 255)]

    class Appearance(ours.BytePairEncoding):
        """Characters are numbered as they appear."""

        @classmethod
        def learn(cls, texts, merges):
            built = super().learn(texts, merges)
            alphabet = "".join(dict.fromkeys("".join(texts)))
            number = {id: FIRST + alphabet.index(character) for character, id in built.id_of.items()}
            return cls(alphabet, [tuple(number.get(id, id) for id in pair) for pair in built.merges])

    return {
        "whole texts": Mistake("pieces cross words: cut each text with split_words() first", WholeTexts,
                               "No piece spans"),
        "without spaces": Mistake("the spaces are lost: split_words() keeps them with their words",
                                  WithoutSpaces, "Any text"),
        "encoded uncut": Mistake("a text is encoded as one word: cut it with split_words() first", Uncut,
                                 "encode() cuts"),
        "decoded strictly": Mistake("it fails on half a character: decode with errors=\"replace\"", Strict,
                                    "Bytes that are not UTF-8"),
        "from the right": Mistake("joined from the right: of “aaa” take the first two", FromTheRight,
                                  "Of three equal"),
        "code points": Mistake("a byte's id is 3 + byte, and the bytes are character.encode(), not ord()",
                               CodePoints, "A character that learn()"),
        "as they appear": Mistake("the characters are numbered as they appear: sort them", Appearance,
                                  "Ids from 259"),
    }


byte_pair_encoding_checks = Part(
    [comes_back_unchanged, falls_back_to_bytes, numbers_its_pieces, joins_the_most_frequent, settles_ties,
     counts_words_as_often_as_they_occur, joins_from_the_left, replays_the_merges, stays_inside_words,
     cuts_as_learning_does, leaves_special_tokens_alone, decodes_what_is_cut, ends_when_nothing_is_left],
    subwords_mistakes,
    more=more_subwords_mistakes,
    needs="The checks call learn(texts, merges), a class method. Of the object that it returns they call "
          "encode(text), decode(ids) and len(), and they read merges, a list of pairs of ids. Cut texts with "
          "split_words(text).",
    helpers=("add", "encode_word", "replay", "replay_long", "rank", "first_ids", "texts_of", "state",
             "restored", "save", "load"),
)

"""Pairs of an English and a French sentence with their word alignment, and corpora that hold combinations out."""

import re
from collections.abc import Mapping
from functools import lru_cache
from random import Random
from typing import NamedTuple
from zlib import crc32

from grammar import english, french
from grammar.phrases import Draft, Token
from grammar.rules import BOX
from grammar.words import Words, read_words

__all__ = ["PHENOMENA", "WORDS", "Pair", "corpus", "draw_pair", "read_words", "split_of", "words_of"]

PHENOMENA = {
    "adjective in front": "petit, grand, beau, … stand before the noun: le petit chat",
    "adjective behind": "most adjectives stand after the noun: la maison rouge",
    "adjective after is": "an adjective agrees across the verb: les fleurs sont belles",
    "bel, nouvel, vieil": "three adjectives change before a vowel: un vieil arbre",
    "elision": "a vowel is lost before another one: l'arbre, je n'aime",
    "h aspiré": "no elision before some words with h: le hibou",
    "contraction": "à and de melt with le and les: au marché, la porte du jardin",
    "negation": "ne and pas stand around the verb: il ne dort pas",
    "never": "ne and jamais stand around the verb: il ne dort jamais",
    "often, always": "such an adverb follows the conjugated verb: il dort souvent",
    "de after a negation": "un, des, du become de: elle n'a pas de chat",
    "object pronoun": "it stands before the verb: je la vois",
    "lui, leur": "so does the one for à somebody: je lui parle",
    "passé composé with avoir": "English past with a helper: il a mangé",
    "passé composé with être": "with être the participle agrees with the subject: elles sont parties",
    "participle after its object": "it agrees with an object in front: la pomme que j'ai mangée",
    "imparfait": "was doing, used to do, and states: il dormait, elle avait",
    "near future": "is going to: il va dormir",
    "infinitive": "want to, can, must, …: elle veut dormir",
    "reflexive": "English has one word, French two: il se lève",
    "question": "est-ce que in front, and do or does: est-ce que tu dors ?",
    "question word": "où, pourquoi, qui: où est-ce que tu dors ?",
    "possessive": "son, sa, ses follow what is owned: his mother is sa mère",
    "mon before a vowel": "mon, ton, son before a feminine noun with a vowel: mon école",
    "somebody's": "the owner stands behind: le chat de Marie",
    "this, these": "ce, cet, cette, ces: cet arbre",
    "general article": "what one likes has an article: j'aime le fromage",
    "partitive": "some of what isn't counted: du pain, de la soupe, de l'eau",
    "some, des": "the plural of un: des chats",
    "de before an adjective": "des becomes de: de petits chats",
    "qui": "who and that as a subject: le chat qui dort",
    "que": "that as an object: le livre que je lis",
    "verb with à, de, avec": "parler à, avoir besoin de, jouer avec",
    "to somebody": "give something to somebody: donner un livre à Marie",
    "number": "deux, trois: no article",
    "place": "dans le jardin, près de l'école",
    "it by its noun": "it is il, elle, le or la by the noun it stands for: la maison est vieille, mais elle est belle",
    "there is": "il y a, one form for one and for many",
}
LONGEST = 15
WORD = re.compile(r"(?:[ldnjmts]|qu)'(?=\w)|\w+(?:['’-]\w+)*|[^\w\s]", re.IGNORECASE)
WORDS = read_words()
HELD_OUT = 4  # per cent of the combinations for validation, and as many for test


class Pair(NamedTuple):
    """A sentence in both languages."""

    source: str  # English
    target: str  # French
    alignment: tuple[tuple[int, int], ...]  # (i, j): word i of words_of(source) is said by word j of words_of(target)
    phenomena: frozenset[str]  # names out of PHENOMENA
    combinations: frozenset[str]  # adjective+noun, subject+verb, verb+object, in English


def words_of(text: str) -> list[str]:
    """Words and marks: "L'arbre n'est pas là." → ["L'", "arbre", "n'", "est", "pas", "là", "."]."""
    return WORD.findall(text)


# ------------------------------------------------------------------ pairs


def draw_pair(generator: Random, words: Words = WORDS) -> Pair:
    """One pair, by chance; sentences of more than 15 words are drawn again."""
    while True:
        draft = Draft(generator, words)
        rule = draft.one(BOX)
        drawn = rule(draft)
        if drawn and len(drawn[0]) < LONGEST and len(drawn[1]) < LONGEST + 3 and 1 < len(drawn[0]):
            mark = "?" if "question" in draft.phenomena or "question word" in draft.phenomena else "."
            return finished(draft, *drawn, mark)


def finished(draft: Draft, said: list[Token], spoken: list[Token], mark: str) -> Pair:
    """Elision, joining, alignment."""
    end = draft.key()
    said, spoken = [*said, (mark, end)], [*spoken, (mark, end)]
    forms = [word for word, _ in spoken]
    elided = french.elide(forms, draft.words.aspirated)
    phenomena = draft.phenomena
    if elided != forms:
        phenomena.add("elision")
    if not draft.words.aspirated.isdisjoint(forms):
        phenomena.add("h aspiré")
    return Pair(english.sentence([word for word, _ in said]), french.sentence(elided), partners(said, spoken),
                frozenset(phenomena), frozenset(draft.combinations))


def partners(said: list[Token], spoken: list[Token]) -> tuple[tuple[int, int], ...]:
    """The places of words that share a key."""
    saying: dict[int, list[int]] = {}
    for place, (_, keys) in enumerate(spoken):
        while keys:
            key = keys & -keys
            saying.setdefault(key, []).append(place)
            keys ^= key
    pairs = []
    for place, (_, keys) in enumerate(said):
        if keys & (keys - 1):
            pairs += [(place, other) for other, (_, theirs) in enumerate(spoken) if keys & theirs]
        else:
            pairs += [(place, other) for other in saying.get(keys, ())]
    return tuple(pairs)


# ------------------------------------------------------------------ splits


@lru_cache(None)
def held_out(combination: str) -> str:
    place = crc32(combination.encode()) % 100
    return "validation" if place < HELD_OUT else "test" if place < 2 * HELD_OUT else "train"


def split_of(pair: Pair) -> str | None:
    """train, validation or test by the combinations in the pair; None if it mixes held-out ones of both."""
    splits = {held_out(combination) for combination in pair.combinations} - {"train"}
    return splits.pop() if len(splits) == 1 else None if splits else "train"


def corpus(sizes: Mapping[str, int], seed: int, words: Words = WORDS) -> dict[str, list[Pair]]:
    """As many different pairs for each split as `sizes` says. No source is in two splits."""
    generator, seen = Random(seed), set()
    pairs = {split: [] for split in sizes}
    missing = sum(sizes.values())
    while missing:
        pair = draw_pair(generator, words)
        split = split_of(pair)
        if split in pairs and len(pairs[split]) < sizes[split] and pair.source not in seen:
            seen.add(pair.source)
            pairs[split].append(pair)
            missing -= 1
    return pairs

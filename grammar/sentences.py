"""Pairs of English and French sentences with their alignment, and corpora with held-out combinations.

Where one of the languages says less than the other, the corpus always makes the same choice, so that a source
has only one target:

    you                  is tu; with sir or madam at the end it is vous
    his, her             are both son, sa, ses: French agrees with what is owned
    I, you, we, they     are masculine (they: elles if it refers to a feminine noun of the sentence)
    it                   occurs only if it refers to a noun of the same sentence, and takes its gender
    doctor, judge, …     have only the gender given in nouns.tsv
    ate                  is the passé composé; was eating, used to eat, and the past of a state (was, had,
                         liked) are the imparfait
    they put, they read  is the present if past and present are spelled the same

The grammar leaves out the imperative, which puts its pronouns after the verb (donne-le-moi), and comparisons,
because each adjective would have to list its English forms (bigger, more beautiful).
"""

import gc
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from random import Random
from typing import NamedTuple
from zlib import crc32

from grammar import english, french
from grammar.phrases import Draft, Token
from grammar.rules import BOX
from grammar.words import Words, read_words

__all__ = ["PHENOMENA", "WORDS", "Pair", "by_phenomenon", "corpus", "draw_pair", "read_words", "split_of",
           "words_of"]

PHENOMENA = {
    "adjective in front": "petit, grand, beau, … come before the noun: le petit chat",
    "adjective behind": "most adjectives come after the noun: la maison rouge",
    "adjective after is": "an adjective agrees across the verb: les fleurs sont belles",
    "bel, nouvel, vieil": "three adjectives change before a vowel: un vieil arbre",
    "elision": "a vowel is lost before another one: l'arbre, je n'aime",
    "h aspiré": "no elision before some words with h: le hibou",
    "contraction": "à and de merge with le and les: au marché, la porte du jardin",
    "negation": "ne and pas go around the verb: il ne dort pas",
    "never": "ne and jamais go around the verb: il ne dort jamais",
    "often, always": "such an adverb follows the conjugated verb: il dort souvent",
    "de after a negation": "un, des, du become de: elle n'a pas de chat",
    "object pronoun": "an object pronoun comes before the verb: je la vois",
    "lui, leur": "a pronoun in place of à somebody comes before the verb: je lui parle",
    "passé composé with avoir": "English past with a helper: il a mangé",
    "passé composé with être": "after être the participle agrees with the subject: elles sont parties",
    "participle after its object": "a participle agrees with an object before it: la pomme que j'ai mangée",
    "imparfait": "was doing, used to do, and states: il dormait, elle avait",
    "future": "will becomes an ending: il dormira, elle aura",
    "near future": "is going to: il va dormir",
    "infinitive": "want to, can, must, …: elle veut dormir",
    "reflexive": "English has one word, French two: il se lève",
    "vous": "sir and madam are addressed with vous and votre: est-ce que vous dormez, madame ?",
    "question": "est-ce que in front, and do or does: est-ce que tu dors ?",
    "question word": "où, pourquoi, qui: où est-ce que tu dors ?",
    "possessive": "son, sa, ses follow what is owned: his mother is sa mère",
    "mon before a vowel": "mon, ton, son before a feminine noun with a vowel: mon école",
    "somebody's": "the owner comes last: le chat de Marie",
    "this, these": "ce, cet, cette, ces: cet arbre",
    "general article": "what one likes has an article: j'aime le fromage",
    "partitive": "some of a thing that isn't counted: du pain, de la soupe, de l'eau",
    "some, des": "the plural of un: des chats",
    "de before an adjective": "des becomes de: de petits chats",
    "qui": "who and that as a subject: le chat qui dort",
    "que": "that as an object: le livre que je lis",
    "verb with à, de, avec": "parler à, avoir besoin de, jouer avec",
    "to somebody": "give something to somebody: donner un livre à Marie",
    "number": "a number takes the place of the article: deux chats",
    "place": "dans le jardin, près de l'école",
    "it by its noun": "il, elle, le or la, depending on the noun: la maison est vieille et elle est belle",
    "there is": "il y a, one form for one and for many",
}
LONGEST = 15  # most words of the source, counting its mark
ASKING = {"question", "question word"}
WORD = re.compile(r"(?:[ldnjmts]|qu)'(?=\w)|\w+(?:['’-]\w+)*|[^\w\s]", re.IGNORECASE)
WORDS = read_words()
HELD_OUT = 4  # per cent of the combinations for validation, and as many for test


class Pair(NamedTuple):
    """A sentence in both languages."""

    source: str  # English
    target: str  # French
    alignment: tuple[
        tuple[int, int], ...
    ]  # (i, j): word i of words_of(source) is aligned with word j of words_of(target)
    phenomena: frozenset[str]  # names out of PHENOMENA
    combinations: frozenset[str]  # adjective+noun, subject+verb, verb+object, in English


def words_of(text: str) -> list[str]:
    """Words and marks: "L'arbre n'est pas là." → ["L'", "arbre", "n'", "est", "pas", "là", "."]."""
    return WORD.findall(text)


# ------------------------------------------------------------------ pairs


def draw_pair(generator: Random, words: Words = WORDS) -> Pair:
    """One random pair."""
    return finished(*draft_sentence(generator, words))


def draft_sentence(generator: Random, words: Words) -> tuple[Draft, list[Token], list[Token]]:
    """One sentence in English and in French; redrawn if it is too long or uses a noun twice."""
    while True:
        draft = Draft(generator, words)
        drawn = draft.one(BOX)(draft)
        if drawn and len(draft.used) == len(set(draft.used)) and 1 < len(drawn[0]) < LONGEST:
            return draft, *drawn


def finished(draft: Draft, said: list[Token], spoken: list[Token]) -> Pair:
    """The pair, with full stop or question mark, elision and alignment."""
    phenomena = draft.phenomena
    mark = "." if phenomena.isdisjoint(ASKING) else "?"
    end = draft.key()
    english_words, keys = zip(*said, (mark, end))
    french_words, french_keys = zip(*spoken, (mark, end))
    elided = french.elide(french_words, draft.words.aspirated)
    if elided != list(french_words):
        phenomena.add("elision")
    if not draft.words.aspirated.isdisjoint(french_words):
        phenomena.add("h aspiré")
    return Pair(
        english.sentence(english_words),
        french.sentence(elided),
        partners(keys, french_keys),
        frozenset(phenomena),
        frozenset(draft.combinations),
    )


@lru_cache(1 << 16)
def partners(keys: tuple[int, ...], french_keys: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """(i, j) for all words that share a key."""
    return tuple((i, j) for i, key in enumerate(keys) for j, other in enumerate(french_keys) if key & other)


# ------------------------------------------------------------------ splits


@lru_cache(None)
def held_out(combination: str) -> str:
    place = crc32(combination.encode()) % 100
    return "validation" if place < HELD_OUT else "test" if place < 2 * HELD_OUT else "train"


def split_of(pair: Pair | Draft) -> str | None:
    """train, validation or test by the combinations in the pair; None if it mixes held-out ones of both."""
    splits = {held_out(combination) for combination in pair.combinations} - {"train"}
    return splits.pop() if len(splits) == 1 else None if splits else "train"


def by_phenomenon(pairs: Sequence[Pair], right: Sequence[bool]) -> dict[str, tuple[int, float]]:
    """For each phenomenon, how many of the pairs have it, and what fraction of these are right."""
    found = {name: [fine for pair, fine in zip(pairs, right) if name in pair.phenomena] for name in PHENOMENA}
    return {name: (len(rights), sum(rights) / len(rights)) for name, rights in found.items() if rights}


def corpus(sizes: Mapping[str, int], seed: int, words: Words = WORDS) -> dict[str, list[Pair]]:
    """As many different pairs for each split as `sizes` says. No source is in two splits."""
    pairs, collecting = {split: [] for split in sizes}, gc.isenabled()
    gc.disable()  # there are no reference cycles here; looking for them would take a tenth of the time
    try:
        generator, seen, missing = Random(seed), set(), sum(sizes.values())
        while missing:
            drawn = draft_sentence(generator, words)
            split = split_of(drawn[0])
            if split in pairs and len(pairs[split]) < sizes[split]:
                pair = finished(*drawn)
                if pair.source not in seen:
                    seen.add(pair.source)
                    pairs[split].append(pair)
                    missing -= 1
    finally:
        if collecting:
            gc.enable()
    return pairs

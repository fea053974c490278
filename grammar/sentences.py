"""Pairs of an English and a French sentence with their word alignment, and corpora that hold combinations out."""

import re
from collections.abc import Mapping
from functools import lru_cache
from random import Random
from typing import NamedTuple
from zlib import crc32

from grammar import english, french
from grammar.clauses import adjective_of, clause, copula, polarity_for, pronoun_for, tense_for
from grammar.phrases import Draft, Phrase, Token
from grammar.words import Noun, Verb, Words, read_words

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


# ------------------------------------------------------------------ what a sentence can be


def plain(draft: Draft, question: bool = False) -> tuple[list[Token], list[Token]]:
    """Subject, verb, object, place or time."""
    words = draft.words
    verb = words.usable.draw(draft.generator)
    helper = None
    if "state" not in verb.flags and draft.chance() < 0.28:
        helper = draft.one(words.helpers)
    subject = draft.subject(verb)
    if helper and subject.noun and "person" not in subject.noun.classes and helper.infinitive not in ("vouloir", "aller"):
        helper = words.going
    tense = tense_for(draft, helper or verb)
    polarity = polarity_for(draft, tense, helper)
    question = question and tense != "used" and polarity != "not"
    if polarity == "never" and question:
        polarity = ""
    said, spoken = whole(draft, subject, verb, tense, polarity, question, helper)
    flags = verb.flags
    if "needs" in flags or "where" in flags and draft.chance() < 0.4:
        place = draft.place()
        said, spoken = said + place.english, spoken + place.french
    elif "state" not in flags and draft.chance() < 0.25:
        when = "going" if helper is words.going and tense == "present" else tense if not helper else ""
        fitting = words.tenses["when"].get(when)
        if fitting and polarity in ("", "not") or when == "going":
            adverb, key = draft.one(fitting), draft.key()
            said = said + [(word, key) for word in adverb.english.split()]
            spoken = spoken + [(word, key) for word in adverb.french.split()]
    return said, spoken


def whole(draft: Draft, subject: Phrase, verb: Verb, tense: str, polarity: str, question: bool = False,
          helper: Verb | None = None) -> tuple[list[Token], list[Token]]:
    """A clause with the object, noun or pronoun, that its verb takes."""
    key = draft.key()
    pronoun = object = None
    if verb.objects:
        if draft.chance() < 0.22 and not (helper and helper.preposition == "de"):
            pronoun = pronoun_for(draft, verb, subject)
        if not pronoun:
            object = draft.object(verb, subject, polarity in ("not", "never"), key)
    if "to" in verb.flags and draft.chance() < 0.7:
        to = draft.key()
        draft.phenomena.add("to somebody")
        if draft.chance() < 0.3 and subject.person != 5:
            drawn = draft.one([form for form in TO if form[3] != subject.person])
            pronoun = (drawn[0], drawn[2], to, False, False, False)
            draft.phenomena.add("lui, leur")
            said, spoken = clause(draft, subject, verb, tense, polarity, question, helper, object, pronoun, key=key,
                                  late="to")
            return said, spoken
        person = draft.person("à", to)
        object = object._replace(english=object.english + person.english, french=object.french + person.french)
    return clause(draft, subject, verb, tense, polarity, question, helper, object, pronoun, key=key)


TO = (("me", "", "me", 0), ("you", "", "te", 1), ("him", "", "lui", 2), ("her", "", "lui", 2), ("us", "", "nous", 3),
      ("them", "", "leur", 5))


def question(draft: Draft):
    return plain(draft, True)


def noun_with_adjectives(draft: Draft) -> Noun:
    """A noun that some adjective goes with, about equally often each."""
    return draft.words.describable.draw(draft.generator)


def described(draft: Draft):
    """The cat is small."""
    subject = draft.noun_phrase(noun_with_adjectives(draft), adjective=0)
    polarity = "not" if draft.chance() < 0.2 else ""
    asks = draft.chance() < 0.2 and not polarity
    said, spoken = copula(draft, subject, "present" if draft.chance() < 0.7 else "past", polarity, asks)
    word, mot = adjective_of(draft, subject)
    return said + word, spoken + mot


def described_twice(draft: Draft):
    """The house is old, but it is beautiful."""
    subject = draft.noun_phrase(noun_with_adjectives(draft), adjective=0)
    tense = "present" if draft.chance() < 0.6 else "past"
    said, spoken = copula(draft, subject, tense, "not" if draft.chance() < 0.15 else "")
    word, mot = adjective_of(draft, subject)
    again = standing_for(draft, subject)
    key, comma = draft.key(), draft.key()
    said_too, spoken_too = copula(draft, again, tense, "not" if draft.chance() < 0.15 else "")
    for _ in range(5):
        other, autre = adjective_of(draft, subject)
        if other[0][0] != word[0][0]:
            break
    else:
        return None
    return (said + word + [(",", comma), ("but", key)] + said_too + other,
            spoken + mot + [(",", comma), ("mais", key)] + spoken_too + autre)


def standing_for(draft: Draft, phrase: Phrase) -> Phrase:
    """It, he, she or they for a noun phrase that was said."""
    key = draft.key()
    plural = phrase.person > 2
    person = phrase.noun is None or "person" in phrase.noun.classes
    said = "they" if plural else ("she" if phrase.feminine else "he") if person else "it"
    if not person or plural:
        draft.phenomena.add("it by its noun")
    spoken = ("elle" if phrase.feminine else "il") + ("s" if plural else "")
    return Phrase([(said, key)], [(spoken, key)], 5 if plural else 2, phrase.feminine, phrase.noun)


def because(draft: Draft):
    """The cat is sleeping because it is tired."""
    words = draft.words
    verb = draft.one(words.alone)
    noun = words.subjects[verb].draw(draft.generator)
    if not {"person", "animal"} & noun.classes:
        return None
    draft.combinations.add(f"{noun.english[0]}+{verb.english}")
    subject = draft.noun_phrase(noun)
    tense = tense_for(draft, verb)
    said, spoken = clause(draft, subject, verb, tense, "not" if tense != "used" and draft.chance() < 0.25 else "")
    key, again = draft.key(), standing_for(draft, subject)
    past = "present" if tense in ("present", "is-ing") else "past"
    if words.feelings and draft.chance() < 0.35:
        feeling = draft.one(words.feelings)
        draft.combinations.add(f"{noun.english[0]}+{feeling.english}")
        said_too, spoken_too = clause(draft, again, feeling, past)
    else:
        said_too, spoken_too = copula(draft, again, past, "")
        word, mot = adjective_of(draft, subject)
        said_too, spoken_too = said_too + word, spoken_too + mot
    return said + [("because", key)] + said_too, spoken + [("parce", key), ("que", key)] + spoken_too


def and_it(draft: Draft):
    """Marie finds the apple and eats it."""
    words = draft.words
    noun = words.sequels.draw(draft.generator)
    first, second = draft.one(words.first[noun]), draft.one(words.second[noun])
    if first is second:
        return None
    subject = draft.subject(first)
    if subject.noun and (subject.noun not in words.subjects[second].items or subject.noun is noun):
        return None
    if subject.noun:
        draft.combinations.add(f"{subject.noun.english[0]}+{second.english}")
    tense = "past" if draft.chance() < 0.5 else "present"
    key = draft.key()
    object = draft.object(first, subject, False, key, noun, draft.one(("definite", "definite", "this", "possessive",
                                                                         "owner")))
    said, spoken = clause(draft, subject, first, tense, object=object, key=key)
    plural = object.person > 2
    mark, link = draft.key(), draft.key()
    pronoun = ("them" if plural else "it", "les" if plural else "la" if object.feminine else "le", mark,
               object.feminine, plural, True)
    draft.phenomena |= {"it by its noun", "object pronoun"}
    draft.combinations.add(f"{second.english}+{noun.english[0]}")
    silent = Phrase([], [], subject.person, subject.feminine, subject.noun)
    said_too, spoken_too = clause(draft, silent, second, tense, pronoun=pronoun)
    return said + [("and", link)] + said_too, spoken + [("et", link)] + spoken_too


def relative_subject(draft: Draft):
    """The cat that is sleeping in the garden is black."""
    words = draft.words
    verb = words.usable.draw(draft.generator)
    noun = words.subjects[verb].draw(draft.generator)
    if noun not in words.fitting:
        return None
    subject = draft.noun_phrase(noun, "definite", adjective=0)
    draft.combinations.add(f"{noun.english[0]}+{verb.english}")
    tense = tense_for(draft, verb)
    said, spoken = with_qui(draft, subject, verb, tense)
    silent = Phrase([], [], subject.person, subject.feminine, noun)
    said_too, spoken_too = copula(draft, silent, "past" if tense in ("past", "used", "was-ing") else "present",
                                  "not" if draft.chance() < 0.15 else "")
    word, mot = adjective_of(draft, subject)
    return said + said_too + word, spoken + spoken_too + mot


def with_qui(draft: Draft, subject: Phrase, verb: Verb, tense: str) -> tuple[list[Token], list[Token]]:
    """The phrase, who or that, and what it does."""
    draft.phenomena.add("qui")
    key = draft.key()
    who = "who" if "person" in subject.noun.classes else "that"
    relative = Phrase([*subject.english, (who, key)], [*subject.french, ("qui", key)], subject.person,
                      subject.feminine, subject.noun)
    said, spoken = whole(draft, relative, verb, tense, "not" if tense != "used" and draft.chance() < 0.12 else "")
    if "needs" in verb.flags or "where" in verb.flags and draft.chance() < 0.4:
        place = draft.place()
        said, spoken = said + place.english, spoken + place.french
    return said, spoken


def knows_who(draft: Draft):
    """I know the woman who sells the flowers."""
    words = draft.words
    verb = draft.one(words.transitive)
    doing = words.usable.draw(draft.generator)
    noun = draft.one([noun for noun in words.subjects[doing].items])
    if noun not in words.objects[verb].items:
        return None
    subject = draft.subject(verb, 0.5, 0.3)
    if noun is subject.noun:
        return None
    key = draft.key()
    object = draft.object(verb, subject, False, key, noun, draft.one(("definite", "indefinite")), 0.1)
    tense = tense_for(draft, verb)
    said, spoken = clause(draft, subject, verb, tense, object=object, key=key)
    silent = Phrase([], [], object.person, object.feminine, noun)
    draft.combinations.add(f"{noun.english[0]}+{doing.english}")
    time = "present" if tense in ("present", "is-ing") else "past" if "state" in doing.flags else "was-ing"
    said_too, spoken_too = with_qui(draft, silent, doing, time)
    return said + said_too, spoken + spoken_too


def relative_object(draft: Draft):
    """The book that you are reading is interesting."""
    words = draft.words
    verb = draft.one(words.transitive)
    noun = words.objects[verb].draw(draft.generator)
    if verb.preposition or noun not in words.fitting or "needs" in verb.flags:
        return None
    subject = draft.noun_phrase(noun, "definite", adjective=0)
    draft.phenomena.add("que")
    draft.combinations.add(f"{verb.english}+{noun.english[0]}")
    link = draft.key()
    doer = draft.subject(verb, 0.6, 0.2)
    if doer.noun is noun:
        return None
    tense = tense_for(draft, verb)
    said, spoken = clause(draft, doer, verb, tense, gap=subject)
    that = [*subject.english, ("that", link)], [*subject.french, ("que", link)]
    silent = Phrase([], [], subject.person, subject.feminine, noun)
    said_too, spoken_too = copula(draft, silent, "past" if tense in ("past", "used", "was-ing") else "present",
                                  "not" if draft.chance() < 0.15 else "")
    word, mot = adjective_of(draft, subject)
    return that[0] + said + said_too + word, that[1] + spoken + spoken_too + mot


def there_is(draft: Draft):
    """There is a cat under the table."""
    words = draft.words
    noun = draft.one(words.movable)
    negated = draft.chance() < 0.2
    kind = "partitive" if noun.numbers == "mass" else draft.one(("indefinite", "indefinite", "number"))
    plural = noun.numbers == "both" and (kind == "number" or draft.chance() < 0.3)
    if negated and kind == "number":
        kind = "indefinite"
    phrase = draft.noun_phrase(noun, kind, plural, 0.4, negated)
    key = draft.key()
    there = Phrase([("there", key)], [], 5 if plural else 2)
    tense = "present" if draft.chance() < 0.7 else "past"
    asks = not negated and draft.chance() < 0.2
    draft.phenomena.add("there is")
    bit = draft.key()
    said, _ = clause(draft, there, words.be, tense, "not" if negated else "", asks, key=bit)
    neither = next((keys for word, keys in said if word == "not" or word.endswith("n't")), 0) & ~bit
    asked = said[0][1] & ~bit if asks else 0
    spoken = [("est-ce", asked), ("que", asked)] if asks else []
    spoken += [("il", key)] + ([("ne", neither)] if negated else []) + [("y", key)]
    spoken += [("a" if tense == "present" else "avait", bit)] + ([("pas", neither)] if negated else [])
    place = draft.place(noun)
    return said + phrase.english + place.english, spoken + phrase.french + place.french


def where_it_is(draft: Draft):
    """The keys are on the table."""
    noun = draft.one(draft.words.movable)
    kind = draft.one(("definite", "definite", "possessive", "this", "owner"))
    if noun.numbers == "mass":
        kind = "definite"
    subject = draft.noun_phrase(noun, kind, adjective=0.3)
    said, spoken = copula(draft, subject, "present" if draft.chance() < 0.6 else "past",
                          "not" if draft.chance() < 0.2 else "", draft.chance() < 0)
    place = draft.place(noun)
    return said + place.english, spoken + place.french


def question_word(draft: Draft):
    """Where does he sleep? Why is the girl crying? Who is eating the cake?"""
    words = draft.words
    draft.phenomena.add("question word")
    key = draft.key()
    if draft.chance() < 0.4:
        verb = words.usable.draw(draft.generator)
        if "person" not in verb.subjects or "needs" in verb.flags:
            return None
        who = Phrase([("who", key)], [("qui", key)], 2)
        said, spoken = whole(draft, who, verb, tense_for(draft, verb), "")
        return said, spoken
    said, spoken = ("where", "où") if draft.chance() < 0.5 else ("why", "pourquoi")
    verb = draft.one(words.somewhere) if said == "where" else words.usable.draw(draft.generator)
    if "needs" in verb.flags and said == "why":
        return None
    subject = draft.subject(verb, 0.5, 0.2)
    tense = tense_for(draft, verb)
    if tense == "used":
        return None
    asked, demandé = whole(draft, subject, verb, tense, "", True)
    return [(said, key), *asked], [(spoken, key), *demandé]


RULES = ((plain, 40), (question, 12), (described, 6), (described_twice, 6), (because, 6), (and_it, 8),
         (relative_subject, 6), (knows_who, 6), (relative_object, 7), (there_is, 5), (where_it_is, 5),
         (question_word, 8))
BOX = [rule for rule, share in RULES for _ in range(share)]


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
    alignment = tuple((i, j) for i, (_, one) in enumerate(said) for j, (_, other) in enumerate(spoken) if one & other)
    return Pair(english.sentence([word for word, _ in said]), french.sentence(elided), alignment,
                frozenset(phenomena), frozenset(draft.combinations))


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

"""Noun phrases, places and objects, built in both languages at once.

A token is a word with keys for what it says; an English and a French token that share a key are partners.
A key is a bit: keys are combined with |, and 0 means no key.
"""

from random import Random
from typing import NamedTuple

from grammar import english, french
from grammar.words import Adjective, Name, Noun, Verb, Words

Token = tuple[str, int]


class Phrase(NamedTuple):
    english: list[Token]
    french: list[Token]
    person: int = 2  # I, you, he or she, we, vous, they: as verbs are conjugated
    feminine: bool = False
    noun: Noun | None = None
    object_pronoun: bool = False


PRONOUNS = (
    ("I", "je", 0, False),
    ("you", "tu", 1, False),
    ("he", "il", 2, False),
    ("she", "elle", 2, True),
    ("we", "nous", 3, False),
    ("they", "ils", 5, False),
)
OBJECT_PRONOUNS = (
    ("me", "me", "me", 0, False),
    ("you", "te", "te", 1, False),
    ("him", "le", "lui", 2, False),
    ("her", "la", "lui", 2, True),
    ("us", "nous", "nous", 3, False),
    ("them", "les", "leur", 5, False),
    ("them", "les", "leur", 5, False),
)
POLITE = 4  # the person of vous, as addressed to one man or woman
SAME = {0: (0, 3), 1: (1,), 3: (0, 3), POLITE: (1,)}  # subject → object persons that would repeat it
DONE = frozenset({"open", "washed"})  # nobody opens an open door
OWNERS = ("my", "your", "his", "her", "our", "their")


class Draft:
    """A sentence being drawn: the random numbers, the words, and what has been used so far."""

    def __init__(self, generator: Random, words: Words):
        self.generator, self.chance, self.words = generator, generator.random, words
        self.bit = 1
        self.phenomena: set[str] = set()
        self.combinations: set[str] = set()
        self.used: list = []  # nouns and names, so that none is used twice
        self.spoken_to: Name | None = None  # somebody who is addressed as vous, not tu

    def key(self) -> int:
        self.bit <<= 1
        return self.bit

    def one(self, items):
        return items[int(self.chance() * len(items))]

    # ---------------------------------------------------------------- nouns

    def noun_phrase(
        self,
        noun: Noun,
        kind: str = "",
        plural: bool | None = None,
        adjective: float = 0.25,
        negated: bool = False,
        preposition: str = "",
        link: int = 0,
        owned: bool = True,
        without: frozenset[str] = frozenset(),
    ) -> Phrase:
        """Determiner, adjective and noun; `kind` is drawn if it isn't given.

        `preposition` is the French preposition before it (with the key `link`), `negated` whether it is the
        object of a verb with ne … pas; `adjective` is the probability of an adjective, which has none of the
        kinds in `without`.
        """
        if plural is None:
            plural = noun.numbers == "both" and self.chance() < (
                0.3 if noun.classes.isdisjoint(("place", "room")) else 0.06
            )
        self.used.append(noun)
        kind = kind or self.kind_for(noun, plural, owned)
        if (kind in ("possessive", "owner") and "own" not in noun.classes) or (
            kind == "number" and not plural
        ):
            kind = "definite"
        if kind == "this" and "family" in noun.classes:
            kind = "possessive"
        if negated and preposition not in ("", "de") and kind in ("indefinite", "partitive"):
            kind = "definite"  # “not in any town” would be dans aucune ville
        if kind == "owner":
            without |= {"of"}
        if kind == "indefinite" and plural:
            adjective *= 2
        key = self.key()
        said, word = [(noun.english[plural], key)], noun.french[plural]
        spoken, vowel, first = [(word, key)], noun.vowel, False
        if self.chance() < adjective and noun in self.words.fitting:
            drawn = self.words.fitting[noun].draw(self.generator)
            if not drawn.kinds & without:
                said, spoken, vowel, first = self.describe(noun, plural, drawn, said, spoken)
        mark = 0 if kind == "generic" else self.key()
        if kind == "owner":
            return self.owned(noun, plural, said, spoken, vowel, preposition, link)
        said, article = self.determine(noun, plural, kind, said, mark, vowel, first, negated, preposition)
        spoken = self.after(preposition, article, mark, vowel, link) + spoken
        return Phrase(said, spoken, 5 if plural else 2, noun.feminine, noun)

    def kind_for(self, noun: Noun, plural: bool, owned: bool) -> str:
        chance = self.chance()
        if "family" in noun.classes or (noun.vowel and noun.feminine and "own" in noun.classes):
            chance = 0.56 + 0.44 * chance  # “my aunt” is more common than “the aunt”
        if noun.numbers == "mass":
            return "partitive" if chance < 0.6 else "this" if chance < 0.65 else "definite"
        if chance < 0.38:
            return "definite"
        if chance < 0.56:
            return "indefinite"
        if chance < 0.66 and "family" not in noun.classes:
            return "this"
        if "own" in noun.classes and chance < 0.94:
            return "owner" if owned and chance < 0.74 else "possessive"
        return "number" if plural else "definite"

    def describe(
        self, noun: Noun, plural: bool, adjective: Adjective, said: list[Token], spoken: list[Token]
    ):
        key = self.key()
        self.combinations.add(f"{adjective.english}+{noun.english[0]}")
        form = adjective.french[2 * noun.feminine + plural]
        if adjective.first:
            self.phenomena.add("adjective in front")
            if noun.vowel and not noun.feminine and not plural:
                form = adjective.before_vowel
                if form != adjective.french[0]:
                    self.phenomena.add("bel, nouvel, vieil")
            return [(adjective.english, key), *said], [(form, key), *spoken], adjective.vowel, True
        self.phenomena.add("adjective behind")
        return [(adjective.english, key), *said], [*spoken, (form, key)], noun.vowel, False

    def determine(
        self,
        noun: Noun,
        plural: bool,
        kind: str,
        said: list[Token],
        mark: int,
        vowel: bool,
        first: bool,
        negated: bool,
        preposition: str,
    ) -> tuple[list[Token], tuple[str, ...]]:
        """The English phrase with its determiner, and the French determiner.

        After a negation English has “any” and French “de”, pas de livre; after a preposition, d'un livre.
        """
        following = said[0][0]
        if kind == "number":
            number = self.words.numbers.draw(self.generator)
            self.phenomena.add("number")
            return [(number.english, mark), *said], (number.french,)
        if kind in ("indefinite", "partitive"):
            if plural or kind == "partitive":
                self.phenomena.add("partitive" if kind == "partitive" else "some, des")
                some = "any" if negated else "some"
                if plural and first and not negated:
                    self.phenomena.add("de before an adjective")
            else:
                some = english.article(following)
            negated = negated and not preposition
            if negated:
                self.phenomena.add("de after a negation")
            words = [(some, mark), *said]
        elif kind == "possessive":
            kind = self.one(OWNERS)
            words = [(kind, mark), *said]
            self.phenomena.add("possessive")
            kind = "your, polite" if kind == "your" and self.spoken_to else kind
            if noun.feminine and vowel and not plural and kind in french.POSSESSIVES:
                self.phenomena.add("mon before a vowel")
        elif kind == "this":
            self.phenomena.add("this, these")
            words = [("these" if plural else "this", mark), *said]
        elif kind == "generic":
            self.phenomena.add("general article")
            return said, french.determiner("definite", noun.feminine, plural, vowel)
        else:
            words = [("the", mark), *said]
        return words, french.determiner(kind, noun.feminine, plural, vowel, first, negated)

    def after(
        self, preposition: str, article: tuple[str, ...], mark: int, vowel: bool, link: int
    ) -> list[Token]:
        """The French preposition and article, contracted if they must be."""
        if not preposition:
            return [(word, mark) for word in article]
        *front, last = preposition.split()
        words = french.contract(last, article, vowel)
        if len(words) <= len(article):
            if words[0] != last:
                self.phenomena.add("contraction")
            return [*((word, link) for word in front), (words[0], link | mark)]
        return [*((word, link) for word in (*front, words[0])), *((word, mark) for word in words[1:])]

    def owned(
        self,
        noun: Noun,
        plural: bool,
        said: list[Token],
        spoken: list[Token],
        vowel: bool,
        preposition: str,
        link: int,
    ) -> Phrase:
        """Marie's cat, the king's castle: le chat de Marie, le château du roi."""
        self.phenomena.add("somebody's")
        key = self.key()
        if self.chance() < 0.5:
            name = self.named()
            owner, owner_fr = [(name.name + "'s", key)], [("de", key), (name.name, key)]
        else:
            person = self.words.owners.draw(self.generator)
            phrase = self.noun_phrase(
                person, self.one(("definite", "possessive")), False, 0, False, "de", key
            )
            *before, (word, bit) = phrase.english
            owner, owner_fr = [*before, (word + "'s", bit | key)], phrase.french
        article = french.determiner("definite", noun.feminine, plural, vowel)
        spoken = [*self.after(preposition, article, 0, vowel, link), *spoken, *owner_fr]
        return Phrase(owner + said, spoken, 5 if plural else 2, noun.feminine, noun)

    # ---------------------------------------------------------------- subjects, objects, places

    def subject(self, verb: Verb, pronouns: float = 0.35, names: float = 0.15) -> Phrase:
        """A pronoun, a name or a noun phrase that can be the subject of the verb."""
        if "person" in verb.subjects or "child" in verb.subjects:
            chance = self.chance()
            if chance < pronouns:
                return self.pronoun()
            if chance < pronouns + names:
                return self.name()
        noun = self.words.subjects[verb].draw(self.generator)
        self.combinations.add(f"{noun.english[0]}+{verb.english}")
        return self.noun_phrase(noun)

    def pronoun(self) -> Phrase:
        said, spoken, person, feminine = self.one(PRONOUNS)
        if self.spoken_to:
            said, spoken, person, feminine = "you", "vous", POLITE, self.spoken_to.feminine
        key = self.key()
        return Phrase([(said, key)], [(spoken, key)], person, feminine)

    def named(self) -> Name:
        name = self.words.names.draw(self.generator)
        self.used.append(name)
        return name

    def name(self) -> Phrase:
        name, key = self.named(), self.key()
        return Phrase([(name.name, key)], [(name.name, key)], 2, name.feminine)

    def object(
        self,
        verb: Verb,
        subject: Phrase | None,
        negated: bool,
        link: int,
        noun: Noun | None = None,
        kind: str = "",
        adjective: float = 0.25,
        without: frozenset[str] = frozenset(),
    ) -> Phrase:
        """The verb's object, with its prepositions, which comes after the verb in both languages.

        An adjective has none of the kinds in `without`.
        """
        noun = noun or self.words.objects[verb].draw(self.generator)
        self.combinations.add(f"{verb.english}+{noun.english[0]}")
        key = link
        if verb.preposition:
            self.phenomena.add("verb with à, de, avec")
            if verb.english_preposition:
                key = self.key()
        if "person" in noun.classes and verb.preposition != "" and not kind and self.chance() < 0.2:
            name = self.named()
            mark = self.key()
            phrase = Phrase(
                [(name.name, mark)], [(verb.preposition, key), (name.name, mark)], 2, name.feminine
            )
        else:
            plural = None
            if not kind and "generic" in verb.flags and self.chance() < 0.7 and noun.numbers != "singular":
                kind, plural, adjective = "generic", noun.numbers == "both", 0
            elif not kind and "generic" in verb.flags:
                kind = self.one(("definite", "this", "possessive"))
            if "one" in verb.flags:
                kind, plural = self.one(("definite", "definite", "possessive")), False
            if not kind and "the" in verb.flags:
                kind = self.one(("definite", "definite", "possessive", "this", "owner"))
                kind = "definite" if kind == "possessive" and noun.numbers == "mass" else kind
            without |= verb.flags & DONE
            phrase = self.noun_phrase(
                noun, kind, plural, adjective, negated, verb.preposition, key, without=without
            )
        if verb.english_preposition:
            phrase = phrase._replace(english=[(verb.english_preposition, key), *phrase.english])
        return phrase

    def object_pronoun(self, verb: Verb, subject: Phrase) -> tuple[tuple, bool] | None:
        """One of OBJECT_PRONOUNS and whether it is a direct object; None if the verb takes none."""
        person = "person" in verb.objects
        if (
            not verb.objects
            or verb.reflexive
            or not ((person and not verb.preposition) or "lui" in verb.flags)
        ):
            return None
        pronoun = self.one(OBJECT_PRONOUNS)
        if pronoun[3] in SAME.get(subject.person, ()):
            return None
        if pronoun[3] == 1 and self.spoken_to:
            pronoun = ("you", "vous", "vous", 1, self.spoken_to.feminine)
        return pronoun, not verb.preposition

    def place(self, thing: bool = False) -> Phrase:
        """In the garden, under a tree, near the school; for a thing: in the box, on the table."""
        place, key = (self.words.spots if thing else self.words.places).draw(self.generator), self.key()
        self.phenomena.add("place")
        drawn = self.words.where[place].draw(self.generator)
        kind = "definite" if self.chance() < 0.75 else ""
        several = None if kind and self.chance() < 0.1 else False
        phrase = self.noun_phrase(drawn, kind, several, 0.2, False, place.french, key, owned=False)
        said = [*((word, key) for word in place.english.split()), *phrase.english]
        return phrase._replace(english=said)

    def person(self, preposition: str, key: int) -> Phrase:
        """To Marie, to my brother."""
        if self.chance() < 0.4:
            name, mark = self.named(), self.key()
            return Phrase([("to", key), (name.name, mark)], [(preposition, key), (name.name, mark)])
        noun = self.one(self.words.by_class["person"])
        kind = self.one(("definite", "possessive", "this"))
        phrase = self.noun_phrase(noun, kind, None, 0.15, False, preposition, key)
        return phrase._replace(english=[("to", key), *phrase.english])

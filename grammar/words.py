"""The words of the grammar, read from the tables next to this file and checked line by line."""

from bisect import bisect
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from random import Random

from grammar import english, french

TABLES = Path(__file__).parent
PREPOSITIONS = {"to": "à", "of": "de", "about": "de", "with": "avec", "in": "dans", "from": "de"}
PLACES_OF_ADJECTIVES = ("before", "after")
FLAGS = frozenset(
    {
        "être",
        "state",
        "momentary",
        "generic",
        "where",
        "needs",
        "to",
        "lui",
        "the",
        "one",
        "first",
        "then",
        "glad",
        "low",
        "weak",
        "present",
        "event",
        "events",
        "whom",
        "open",
        "washed",
    }
)
IN_FRONT = 3  # how much more often an adjective in front of the noun is drawn
REASONS = {
    "glad": {"glad"},
    "low": {"low"},
    "weak": {"weak"},
    "held": {"low", "held"},
}  # mood → kinds of adjectives
TENSES = frozenset({"present", "is-ing", "past", "was-ing", "used", "going", "future"})


@dataclass(frozen=True, eq=False)
class Noun:
    english: tuple[str, str]  # singular, plural
    french: tuple[str, str]
    vowel: bool  # whether the French word takes l'
    feminine: bool
    classes: frozenset[str]
    numbers: str  # "both", "singular" (no plural) or "mass" (not counted)


@dataclass(frozen=True, eq=False)
class Adjective:
    english: str
    french: tuple[str, str, str, str]  # masculine, plural, feminine, plural
    before_vowel: str  # masculine singular: bel, nouvel, vieil
    first: bool  # in front of the noun
    vowel: bool
    classes: frozenset[str]
    without: frozenset[str]  # classes of nouns that it doesn't go with
    kinds: frozenset[str]
    after_is: tuple[str, str, str, str]  # like `french`, but after être

    def goes_with(self, noun: Noun) -> bool:
        return bool(self.classes & noun.classes) and not self.without & noun.classes


@dataclass(frozen=True, eq=False)
class Verb:
    english: str  # as in the table
    base: str  # its first word, and the past and -ing forms of that word
    past: str
    ing: str
    particles: tuple[str, ...]  # the other words of the English verb, without the preposition below
    english_preposition: str  # aligned to the French one; "" if only French has one
    infinitive: str
    present: tuple[str, ...]
    imperfect: tuple[str, ...]
    future: tuple[str, ...]
    participle: str
    reflexive: bool
    rest: tuple[str, ...]  # besoin, faim
    preposition: str  # before the object
    flags: frozenset[str]
    subjects: frozenset[str]
    objects: frozenset[str]


@dataclass(frozen=True, eq=False)
class Name:
    name: str
    feminine: bool
    french: str


@dataclass(frozen=True, eq=False)
class Other:
    english: str
    french: str
    goes_with: frozenset[str]


class Choice:
    """Items to draw from, each with its weight."""

    def __init__(self, items: Iterable, weights: Sequence[float] | None = None):
        self.items = tuple(items)
        self.weights = list(weights or [1.0] * len(self.items))
        self.sums = list(accumulate(self.weights))
        self.total = self.sums.pop() if self.sums else 0.0

    def draw(self, generator: Random):
        return self.items[bisect(self.sums, generator.random() * self.total)]


class Words:
    """All tables, and for each verb and noun the words that can go with it."""

    def __init__(
        self,
        nouns: Sequence[Noun],
        adjectives: Sequence[Adjective],
        verbs: Sequence[Verb],
        helpers: Sequence[Verb],
        names: Sequence[Name],
        spoken_to: Sequence[Name],
        others: dict[str, list[Other]],
        aspirated: frozenset[str],
        be: Verb,
        have: Verb,
    ):
        self.nouns, self.adjectives, self.verbs, self.helpers = nouns, adjectives, verbs, helpers
        self.names, self.others, self.aspirated, self.be = Choice(names), others, aspirated, be
        self.spoken_to = spoken_to
        self.have, self.middle = have, {word.english: word.french for word in others["middle"]}
        self.numbers = Choice(others["number"])
        self.places, self.spots = Choice(others["place"]), Choice(others["spot"])
        self.tenses = {
            kind: {tense: [word for word in others[kind] if tense in word.goes_with] for tense in TENSES}
            for kind in ("when", "middle")
        }
        self.by_class = {
            name: [noun for noun in nouns if name in noun.classes]
            for name in frozenset().union(*(noun.classes for noun in nouns))
        }
        groups = {("subject", verb): self.nouns_of(verb.subjects) for verb in verbs}
        groups |= {("object", verb): self.nouns_of(verb.objects) for verb in verbs if verb.objects}
        groups |= {("described", one): [noun for noun in nouns if one.goes_with(noun)] for one in adjectives}
        groups |= {
            ("place", place): self.nouns_of(place.goes_with) for place in (*others["place"], *others["spot"])
        }
        balanced = balance(groups)
        self.subjects = {verb: balanced["subject", verb] for verb in verbs}
        self.objects = {verb: balanced["object", verb] for verb in verbs if verb.objects}
        self.described = {adjective: balanced["described", adjective] for adjective in adjectives}
        self.where = {place: balanced["place", place] for place in self.places.items + self.spots.items}
        fitting = {noun: [a for a in adjectives if a.goes_with(noun)] for noun in nouns}
        self.fitting = {noun: found for noun, found in balance(fitting).items() if found.items}
        for noun, choice in self.fitting.items():
            if noun.vowel and not noun.feminine:  # bel, nouvel and vieil would be rare
                more = [4 if a.before_vowel != a.french[0] else 1 for a in choice.items]
                self.fitting[noun] = Choice(choice.items, [a * b for a, b in zip(more, choice.weights)])
        self.usable = Choice(verbs, [2 if verb.flags & {"être", "generic"} else 1 for verb in verbs])
        self.reasons = {
            mood: {noun: [a for a in self.fitting[noun].items if kinds & a.kinds] for noun in self.fitting}
            for mood, kinds in REASONS.items()
        }
        self.going = next(helper for helper in helpers if helper.infinitive == "aller")
        self.describable = balance({"": list(self.fitting)})[""]
        movable = {"person", "animal", "thing", "food"}
        self.alone = [verb for verb in verbs if not verb.objects and verb.flags & {"glad", "low", "weak"}]
        self.feelings = [verb for verb in verbs if not verb.objects and "state" in verb.flags]
        self.transitive = [verb for verb in verbs if verb.objects and not verb.flags & {"needs", "whom"}]
        self.somewhere = [verb for verb in verbs if "where" in verb.flags]
        self.movable = [noun for noun in nouns if noun.classes & movable]
        begin = [verb for verb in self.transitive if "first" in verb.flags]
        direct = [verb for verb in self.transitive if "then" in verb.flags]
        self.first = {noun: [verb for verb in begin if noun in self.objects[verb].items] for noun in nouns}
        self.second = {noun: [verb for verb in direct if noun in self.objects[verb].items] for noun in nouns}
        self.sequels = Choice(
            [
                noun
                for noun in nouns
                if "person" not in noun.classes and self.first[noun] and len(self.second[noun]) > 1
            ]
        )
        self.owners = Choice(self.by_class.get("family", nouns[:1]))

    def nouns_of(self, classes: frozenset[str]) -> list[Noun]:
        return [noun for noun in self.nouns if classes & noun.classes]


def balance(groups: dict) -> dict:
    """A choice from each group, weighted so that all items are drawn about equally often.

    An item with `first`, an adjective before its noun, is drawn more often, because there are few of them.
    """
    weight = dict.fromkeys((item for group in groups.values() for item in group), 1.0)
    for _ in range(10):
        drawn = Counter()
        for group in groups.values():
            total = sum(weight[item] for item in group)
            for item in group:
                drawn[item] += weight[item] / total
        weight = {item: weight[item] / drawn[item] ** 0.5 for item in weight}
    weight = {item: weight[item] * (IN_FRONT if getattr(item, "first", False) else 1) for item in weight}
    return {key: Choice(group, [weight[item] for item in group]) for key, group in groups.items()}


def rows(folder: Path, table: str, width: int) -> Iterator[tuple[list[str], Callable[[str], ValueError]]]:
    """The fields of every line, padded to `width`, and a function that makes an error naming the line."""
    path = Path(folder) / table
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):

        def wrong(message: str, number: int = number) -> ValueError:
            return ValueError(f"{path}, line {number}: {message}")

        if not line.strip() or line.startswith("#"):
            continue
        fields = [field.strip() for field in line.split("\t")]
        if len(fields) > width:
            raise wrong(f"{len(fields)} fields, at most {width}: {line!r}")
        yield fields + [""] * (width - len(fields)), wrong


def one_of(value: str, allowed: Iterable[str], what: str, wrong: Callable[[str], ValueError]) -> str:
    if value not in allowed:
        raise wrong(f"{what} {value!r} is none of {', '.join(sorted(allowed))}")
    return value


def some_of(
    value: str, allowed: Iterable[str], what: str, wrong: Callable[[str], ValueError]
) -> frozenset[str]:
    return frozenset(one_of(part, allowed, what, wrong) for part in value.split())


def filled(wrong: Callable[[str], ValueError], **fields: str) -> None:
    for what, value in fields.items():
        if not value:
            raise wrong(f"{what.replace('_', ' ')} is missing")


def once(seen: set, key: object, wrong: Callable[[str], ValueError]) -> None:
    if key in seen:
        raise wrong(f"{key!r} appears a second time")
    seen.add(key)


def read_nouns(folder: Path, aspirated: set[str]) -> list[Noun]:
    nouns, seen = [], set()
    for (word, translation, gender, classes, plural, plural_fr), wrong in rows(folder, "nouns.tsv", 6):
        filled(wrong, english=word, french=translation, gender=gender, classes=classes)
        one_of(gender, ("m", "f"), "gender", wrong)
        once(seen, word, wrong)
        starred, translation = translation.startswith("*"), translation.lstrip("*")
        mass = "mass" in classes.split()
        forms = translation, plural_fr or french.plural(translation)
        if starred:
            aspirated.update(forms)
        numbers = "mass" if mass else "singular" if plural == "-" else "both"
        nouns.append(
            Noun(
                (word, plural or english.with_s(word)),
                forms,
                french.opens_with_vowel(translation) and not starred,
                gender == "f",
                frozenset([*classes.split(), word]),
                numbers,
            )
        )
    return nouns


def adjective_forms(masculine: str, feminine: str = "") -> tuple[str, str, str, str]:
    """Masculine, its plural, feminine, its plural; the feminine is formed by rule if it isn't given."""
    feminine = feminine or french.feminine(masculine)
    return masculine, french.plural(masculine), feminine, feminine + "s"


def read_adjectives(folder: Path, classes: frozenset[str], aspirated: set[str]) -> list[Adjective]:
    adjectives, seen = [], set()
    for fields, wrong in rows(folder, "adjectives.tsv", 8):
        word, masculine, place, goes_with, kinds, feminine, before_vowel, behind = fields
        filled(wrong, english=word, french=masculine, place=place, classes=goes_with)
        starred, masculine = masculine.startswith("*"), masculine.lstrip("*")
        one_of(place, PLACES_OF_ADJECTIVES, "place", wrong)
        once(seen, word, wrong)
        forms = adjective_forms(masculine, feminine)
        left_out = " ".join(name[1:] for name in goes_with.split() if name[0] == "-")
        goes_with = " ".join(name for name in goes_with.split() if name[0] != "-")
        if starred:
            aspirated.update(forms)
        adjectives.append(
            Adjective(
                word,
                forms,
                before_vowel or masculine,
                place == "before",
                french.opens_with_vowel(masculine) and not starred,
                some_of(goes_with, classes, "class", wrong),
                some_of(left_out, classes, "class", wrong),
                frozenset(kinds.split()) - {"-"},
                adjective_forms(behind) if behind else forms,
            )
        )
    return adjectives


def make_verb(
    word: str,
    translation: str,
    flags: str,
    forms: str,
    irregular: dict,
    wrong: Callable,
    subjects: frozenset[str] = frozenset(),
    objects: frozenset[str] = frozenset(),
) -> Verb:
    filled(wrong, english=word, french=translation)
    base, *particles = word.split()
    past, ing = [*forms.split(), "", ""][:2]
    if len(forms.split()) > 2:
        raise wrong(f"more than past and -ing form: {forms!r}")
    reflexive = translation.startswith(("se ", "s'"))
    infinitive, *rest = translation.removeprefix("se ").removeprefix("s'").split()
    if infinitive not in irregular and infinitive[-2:] not in french.PARTICIPLE_ENDINGS:
        raise wrong(f"{infinitive!r} ends in none of er, ir, re")
    preposition = rest.pop() if rest and rest[-1] in (*PREPOSITIONS.values(), "sur") else ""
    matched = ""
    if preposition and particles and PREPOSITIONS.get(particles[-1]) == preposition and objects:
        matched = particles.pop()
    present, imperfect, future, participle = french.conjugate(infinitive, irregular)
    return Verb(
        word,
        base,
        past or english.past(base),
        ing or english.ing(base),
        tuple(particles),
        matched,
        infinitive,
        present,
        imperfect,
        future,
        participle,
        reflexive,
        tuple(rest),
        preposition,
        some_of(flags, FLAGS, "flag", wrong),
        subjects,
        objects,
    )


def read_irregular(folder: Path) -> dict[str, tuple[tuple[str, ...], str, str]]:
    irregular = {}
    for (infinitive, present, participle, future), wrong in rows(folder, "conjugations.tsv", 4):
        filled(wrong, infinitive=infinitive, present=present, participle=participle)
        if len(present.split()) != 6:
            raise wrong(f"{infinitive!r} has {len(present.split())} forms in the present, not 6")
        irregular[infinitive] = tuple(present.split()), participle, future
    return irregular


def read_verbs(folder: Path, irregular: dict, classes: frozenset[str]) -> list[Verb]:
    verbs, seen = [], set()
    for (word, translation, subjects, objects, flags, forms), wrong in rows(folder, "verbs.tsv", 6):
        filled(wrong, subject_classes=subjects, object_classes=objects)
        once(seen, (word, objects), wrong)
        objects = "" if objects == "-" else objects
        verbs.append(
            make_verb(
                word,
                translation,
                flags,
                forms,
                irregular,
                wrong,
                some_of(subjects, classes, "class", wrong),
                some_of(objects, classes, "class", wrong),
            )
        )
    return verbs


def read_words(folder: Path = TABLES) -> Words:
    """All tables of a folder. ValueError names file, line and value of a line that can't be used."""
    aspirated = set()
    nouns = read_nouns(folder, aspirated)
    classes = frozenset().union(*(noun.classes for noun in nouns))
    irregular = read_irregular(folder)
    verbs = read_verbs(folder, irregular, classes)
    helpers = [make_verb(*fields, irregular, wrong) for fields, wrong in rows(folder, "helpers.tsv", 4)]
    names, others = [], {"number": [], "place": [], "spot": [], "when": [], "middle": []}
    spoken_to: list[Name] = []
    for (kind, word, translation, goes_with), wrong in rows(folder, "others.tsv", 4):
        filled(wrong, english=word, french=translation)
        one_of(kind, ("name", "address", *others), "kind", wrong)
        if kind in ("name", "address"):
            feminine = one_of(goes_with, ("m", "f"), "gender", wrong) == "f"
            (names if kind == "name" else spoken_to).append(Name(word, feminine, translation))
        else:
            allowed = {"place": classes, "spot": classes, "number": ()}.get(kind, TENSES)
            goes_with = some_of(goes_with, allowed, "what it goes with", wrong)
            others[kind].append(Other(word, translation, goes_with))
    be = make_verb("be", "être", "state", "", irregular, ValueError)
    have = make_verb("have", "avoir", "state", "had", irregular, ValueError)
    adjectives = read_adjectives(folder, classes, aspirated)
    return Words(nouns, adjectives, verbs, helpers, names, spoken_to, others, frozenset(aspirated), be, have)

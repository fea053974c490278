"""Clauses: subject, verb and its complements, built in both languages at once."""

from functools import lru_cache

from grammar import english, french
from grammar.phrases import POLITE, Draft, Phrase, Token
from grammar.words import Adjective, Verb

REFLEXIVE = ("me", "te", "se", "nous", "vous", "se")
NEGATIONS = {"not": "pas", "never": "jamais"}
english_verb = lru_cache(None)(english.verb_words)


def tense_for(draft: Draft, verb: Verb, future: float = 0) -> str:
    """present, is-ing, past, was-ing or used, as the verb allows; future with this probability."""
    if future and draft.chance() < future:
        return "future"
    chance = draft.chance()
    if "event" in verb.flags:
        if "momentary" in verb.flags:
            return "past"
        return "is-ing" if chance < 0.4 else "past" if chance < 0.85 else "was-ing"
    if "state" in verb.flags:
        return "present" if chance < 0.7 or "present" in verb.flags else "past"
    if "momentary" in verb.flags:
        return "present" if chance < 0.4 else "past"
    if chance < 0.24:
        return "present"
    if chance < 0.52:
        return "is-ing"
    if chance < 0.82:
        return "past"
    return "was-ing" if chance < 0.94 else "used"


def polarity_for(draft: Draft, tense: str, verb: Verb, helper: Verb | None) -> str:
    """ "" or not, never, often, …, as the tense allows."""
    chance = draft.chance()
    if chance < 0.17:
        return "" if tense == "used" else "not"
    if chance < 0.35 and tense in ("present", "past", "future") and not helper:
        if "state" in verb.flags and ((verb.objects and not verb.preposition) or tense == "past"):
            return ""
        if chance < 0.27:
            return "never"
        return draft.one(draft.words.tenses["middle"][tense]).english
    return ""


def as_read(verb: Verb, tense: str, person: int, helped: bool = False) -> str:
    """The tense in which the English is read: "they put", with no helping verb, is taken for the present."""
    plain_form = verb.past == verb.base and person != 2 and not helped
    return "present" if tense == "past" and plain_form else tense


def conjugated(draft: Draft, verb: Verb, tense: str, person: int) -> tuple[str, str]:
    """The French verb: its conjugated form, and the participle if there is one."""
    if tense in ("present", "is-ing"):
        return verb.present[person], ""
    if tense == "future":
        draft.phenomena.add("future")
        return verb.future[person], ""
    if tense != "past" or "state" in verb.flags:
        draft.phenomena.add("imparfait")
        return verb.imperfect[person], ""
    if "être" in verb.flags or verb.reflexive:
        draft.phenomena.add("passé composé with être")
        return draft.words.be.present[person], verb.participle
    draft.phenomena.add("passé composé with avoir")
    return draft.words.have.present[person], verb.participle


def clause(
    draft: Draft,
    subject: Phrase,
    verb: Verb,
    tense: str,
    polarity: str = "",
    question: bool = False,
    helper: Verb | None = None,
    object: Phrase | None = None,
    pronoun: tuple | None = None,
    gap: Phrase | None = None,
    key: int = 0,
    late: str = "",
) -> tuple[list[Token], list[Token]]:
    """English and French tokens, subject to object.

    `helper` takes the verb in the infinitive; `object` comes after the verb; `pronoun` is (English, French,
    key, feminine, plural, direct) and comes before the French verb; `gap` is the object before "that";
    `late` is the English word before a pronoun that follows the object.
    `key` is the verb's own bit, given if its object's preposition may be aligned with the verb.
    """
    key = key or draft.key()
    tense = as_read(verb, tense, subject.person, helper is not None or polarity == "not" or question)
    head = helper or verb
    head_key = draft.key() if helper else key
    finite, participle = conjugated(draft, head, tense, subject.person)
    bits = {"v": head_key, "a": draft.key() if participle else head_key, "n": 0, "q": 0}
    if polarity:
        bits["n"] = draft.key()
        draft.phenomena.add({"not": "negation", "never": "never"}.get(polarity, "often, always"))
    if question:
        bits["q"] = draft.key()
        draft.phenomena.add("question")
    front, rest = english_verb(
        head.base,
        head.past,
        head.ing,
        tense,
        subject.person,
        polarity,
        question,
        polarity == "not" and draft.chance() < 0.6,
    )
    said = [(word, joined(bits, roles)) for word, roles in front]
    said += subject.english
    said += [(word, joined(bits, roles)) for word, roles in rest]
    said += [(word, head_key) for word in head.particles]
    if helper:
        said.append((verb.base, key))
        said += [(word, key) for word in verb.particles]
    if pronoun and not late:
        if verb.english_preposition:
            said.append((verb.english_preposition, pronoun[2]))
        said.append((pronoun[0], pronoun[2]))

    spoken = [("est-ce", bits["q"]), ("que", bits["q"])] if question else []
    spoken += subject.french
    clitics = [(REFLEXIVE[subject.person], key)] if verb.reflexive else []
    if verb.reflexive:
        draft.phenomena.add("reflexive")
    if pronoun:
        clitics.append((pronoun[1], pronoun[2]))
    negation = NEGATIONS.get(polarity)
    if negation:
        spoken.append(("ne", bits["n"]))
    if not helper:
        spoken += clitics
    spoken.append((finite, bits["a"]))
    if negation:
        spoken.append((negation, bits["n"]))
    elif polarity:
        spoken.append((draft.words.middle[polarity], bits["n"]))
    if participle:
        spoken.append((agreed(draft, head, participle, subject, None if helper else pronoun, gap), head_key))
    if helper:
        draft.phenomena.add("near future" if helper.infinitive == "aller" else "infinitive")
        if helper.preposition:
            spoken.append((helper.preposition, head_key))
        spoken += clitics
        spoken.append((verb.infinitive, key))
    spoken += [(word, key) for word in verb.rest]
    if object:
        said += object.english
        spoken += object.french
    if late:  # gives the book to her: lui donne le livre
        said += [(late, pronoun[2]), (pronoun[0], pronoun[2])]
    return said, spoken


def joined(bits: dict[str, int], roles: str) -> int:
    bit = 0
    for role in roles:
        bit |= bits[role]
    return bit


def agreed(
    draft: Draft, head: Verb, participle: str, subject: Phrase, pronoun: tuple | None, gap: Phrase | None
) -> str:
    """The participle agrees with the subject (être) or with a direct object in front of it (avoir)."""
    if "être" in head.flags or head.reflexive:
        feminine, plural = subject.feminine, subject.person > 2 and subject.person != POLITE
    elif pronoun and pronoun[5]:
        feminine, plural = pronoun[3], pronoun[4]
        draft.phenomena.add("participle after its object")
    elif gap:
        feminine, plural = gap.feminine, gap.person > 2
        draft.phenomena.add("participle after its object")
    else:
        return participle
    return french.agree(participle, feminine, plural)


def pronoun_for(draft: Draft, verb: Verb, subject: Phrase) -> tuple | None:
    """(English, French, bit, feminine, plural, direct): him, le or lui; None if the verb takes none."""
    drawn = draft.object_pronoun(verb, subject)
    if not drawn:
        return None
    (said, direct_form, indirect_form, person, feminine), direct = drawn
    draft.phenomena.add("object pronoun" if direct else "lui, leur")
    return said, direct_form if direct else indirect_form, draft.key(), feminine, person > 2, direct


def copula(
    draft: Draft, subject: Phrase, tense: str, polarity: str, question: bool = False
) -> tuple[list[Token], list[Token]]:
    """The cat is (not) …"""
    return clause(draft, subject, draft.words.be, tense, polarity, question)


def adjective_of(
    draft: Draft, subject: Phrase, drawn: Adjective | None = None
) -> tuple[list[Token], list[Token]]:
    """An adjective after "is", in the gender and number of the noun that it describes."""
    drawn = drawn or draft.words.fitting[subject.noun].draw(draft.generator)
    key = draft.key()
    draft.combinations.add(f"{drawn.english}+{subject.noun.english[0]}")
    draft.phenomena.add("adjective after is")
    return [(drawn.english, key)], [(drawn.after_is[2 * subject.feminine + (subject.person > 2)], key)]

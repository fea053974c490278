"""The kinds of sentences: each rule draws one in both languages, or returns None if nothing fits."""

from grammar.clauses import adjective_of, as_read, clause, copula, polarity_for, pronoun_for, tense_for
from grammar.phrases import DONE, SAME, Draft, Phrase, Token
from grammar.words import Noun, Verb

Both = tuple[list[Token], list[Token]]
FUTURE = 0.08  # probability of the future in sentences and questions that allow it


def plain(draft: Draft, question: bool = False) -> Both:
    """Subject, verb, object, place or time."""
    words = draft.words
    verb = words.usable.draw(draft.generator)
    helper = None
    if "state" not in verb.flags and draft.chance() < 0.28:
        helper = words.going if draft.chance() < 0.25 else draft.one(words.helpers)
    subject = draft.subject(verb)
    if helper and ("momentary" in verb.flags or (subject.noun and "person" not in subject.noun.classes)):
        helper = words.going
    if helper and "event" in verb.flags and "events" not in helper.flags:
        helper = words.going
    tense = tense_for(draft, helper or verb, 0 if helper else FUTURE)
    polarity = polarity_for(draft, tense, verb, helper)
    question = (
        question and (subject.person > 0 or helper is not None) and tense != "used" and polarity != "not"
    )
    if polarity == "never" and question:
        polarity = ""
    tense = as_read(verb, tense, subject.person, helper is not None or polarity == "not" or question)
    said, spoken = whole(draft, subject, verb, tense, polarity, question, helper)
    flags = verb.flags
    if "needs" in flags or ("where" in flags and draft.chance() < 0.4):
        place = draft.place(thing="needs" in flags and bool(verb.objects))
        said, spoken = said + place.english, spoken + place.french
    elif "state" not in flags and draft.chance() < 0.25:
        when = "going" if helper is words.going and tense == "present" else tense if not helper else ""
        fitting = words.tenses["when"].get(when)
        if (fitting and polarity in ("", "not")) or when == "going":
            adverb, key = draft.one(fitting), draft.key()
            said = said + [(word, key) for word in adverb.english.split()]
            spoken = spoken + [(word, key) for word in adverb.french.split()]
    return said, spoken


def whole(
    draft: Draft,
    subject: Phrase,
    verb: Verb,
    tense: str,
    polarity: str,
    question: bool = False,
    helper: Verb | None = None,
) -> Both:
    """A clause with the object, noun or pronoun, that its verb takes."""
    key = draft.key()
    pronoun = object = None
    to_somebody = "to" in verb.flags and ("whom" in verb.flags or draft.chance() < 0.7)
    if verb.objects:
        if draft.chance() < (0.5 if "lui" in verb.flags else 0.22) and not (helper and helper.preposition):
            pronoun = pronoun_for(draft, verb, subject)
        if not pronoun:
            negated = polarity in ("not", "never") and not (helper and "momentary" in helper.flags)
            # “donne le livre cher à Marie” would say that the book is dear to her
            without = frozenset({"of"} if to_somebody else ())
            object = draft.object(verb, subject, negated, key, without=without)
    if to_somebody:
        to = draft.key()
        draft.phenomena.add("to somebody")
        if draft.chance() < 0.4 and subject.person != 5:
            same = {subject.person, *SAME.get(subject.person, ())}
            drawn = draft.one([form for form in TO if form[3] not in same])
            form = "vous" if draft.spoken_to and drawn[3] == 1 else drawn[2]
            pronoun = (drawn[0], form, to, False, False, False)
            draft.phenomena.add("lui, leur")
            said, spoken = clause(
                draft, subject, verb, tense, polarity, question, helper, object, pronoun, key=key, late="to"
            )
            return said, spoken
        person = draft.person("à", to)
        object = object._replace(
            english=object.english + person.english, french=object.french + person.french
        )
    return clause(draft, subject, verb, tense, polarity, question, helper, object, pronoun, key=key)


TO = (
    ("me", "", "me", 0),
    ("you", "", "te", 1),
    ("him", "", "lui", 2),
    ("her", "", "lui", 2),
    ("us", "", "nous", 3),
    ("them", "", "leur", 5),
)


def question(draft: Draft) -> Both | None:
    return plain(draft, True)


def polite(draft: Draft) -> Both | None:
    """Are you sleeping, sir? Paul saw your hat, madam."""
    draft.spoken_to = draft.one(draft.words.spoken_to)
    said, spoken = plain(draft, draft.chance() < 0.5)
    if not {"you", "your"} & {word for word, _ in said}:
        return None  # no word would become vous
    draft.phenomena.add("vous")
    comma, key = draft.key(), draft.key()
    return (
        [*said, (",", comma), (draft.spoken_to.name, key)],
        [*spoken, (",", comma), (draft.spoken_to.french, key)],
    )


def known(draft: Draft, noun: Noun | None = None) -> Phrase:
    """“The”, “this”, “my”, “Marie's” …, and a noun that some adjective goes with."""
    noun = noun or draft.words.describable.draw(draft.generator)
    kind = draft.one(("definite", "definite", "this", "possessive", "owner", "number"))
    return draft.noun_phrase(noun, kind, adjective=0)


def described(draft: Draft) -> Both | None:
    """The cat is small."""
    subject = known(draft)
    polarity = "not" if draft.chance() < 0.2 else ""
    asks = draft.chance() < 0.2 and not polarity
    said, spoken = copula(draft, subject, "present" if draft.chance() < 0.7 else "past", polarity, asks)
    word, mot = adjective_of(draft, subject)
    return said + word, spoken + mot


def described_twice(draft: Draft) -> Both | None:
    """The house is old and it is beautiful. The house is old, but it isn't dark."""
    subject = known(draft)
    tense = "present" if draft.chance() < 0.6 else "past"
    negated, negated_too = draft.chance() < 0.3, draft.chance() < 0.3
    said, spoken = copula(draft, subject, tense, "not" if negated else "")
    fitting = draft.words.fitting[subject.noun]
    one, other = fitting.draw(draft.generator), fitting.draw(draft.generator)
    if one is other or one.kinds & other.kinds:
        return None
    again = standing_for(draft, subject)
    key, comma = draft.key(), draft.key()
    link, lien = [("and", key)], [("et", key)]
    if negated != negated_too:
        link, lien = [(",", comma), ("but", key)], [(",", comma), ("mais", key)]
    said_too, spoken_too = copula(draft, again, tense, "not" if negated_too else "")
    word, mot = adjective_of(draft, subject, one)
    word_too, mot_too = adjective_of(draft, subject, other)
    return said + word + link + said_too + word_too, spoken + mot + lien + spoken_too + mot_too


def standing_for(draft: Draft, phrase: Phrase) -> Phrase:
    """“It”, “he”, “she” or “they” for an earlier noun phrase."""
    key = draft.key()
    plural = phrase.person > 2
    person = phrase.noun is None or "person" in phrase.noun.classes
    said = "they" if plural else ("she" if phrase.feminine else "he") if person else "it"
    if not person or plural:
        draft.phenomena.add("it by its noun")
    spoken = ("elle" if phrase.feminine else "il") + ("s" if plural else "")
    return Phrase([(said, key)], [(spoken, key)], 5 if plural else 2, phrase.feminine, phrase.noun)


def because(draft: Draft) -> Both | None:
    """The cat is sleeping because it is tired."""
    words = draft.words
    verb = draft.one(words.alone)
    noun = words.subjects[verb].draw(draft.generator)
    draft.combinations.add(f"{noun.english[0]}+{verb.english}")
    subject = draft.noun_phrase(noun)
    tense = tense_for(draft, verb)
    negated = tense != "used" and draft.chance() < (0.6 if "glad" in verb.flags else 0)
    mood = "held" if negated else min(verb.flags & {"glad", "low", "weak"})
    reasons = words.reasons[mood].get(noun)
    if not reasons:
        return None
    tense = as_read(verb, tense, subject.person, negated)
    said, spoken = clause(draft, subject, verb, tense, "not" if negated else "")
    key, again = draft.key(), standing_for(draft, subject)
    past = "present" if tense in ("present", "is-ing") else "past"
    if words.feelings and mood in ("low", "held") and draft.chance() < 0.4:
        feeling = draft.one(words.feelings)
        draft.combinations.add(f"{noun.english[0]}+{feeling.english}")
        said_too, spoken_too = clause(draft, again, feeling, past)
    else:
        said_too, spoken_too = copula(draft, again, past, "")
        word, mot = adjective_of(draft, subject, draft.one(reasons))
        said_too, spoken_too = said_too + word, spoken_too + mot
    return [*said, ("because", key), *said_too], [*spoken, ("parce", key), ("que", key), *spoken_too]


def and_it(draft: Draft) -> Both | None:
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
    tense = as_read(second, as_read(first, tense, subject.person), subject.person)
    key = draft.key()
    kind = draft.one(("definite", "definite", "this", "possessive", "owner"))
    object = draft.object(first, subject, False, key, noun, kind, without=second.flags & DONE)
    said, spoken = clause(draft, subject, first, tense, object=object, key=key)
    plural = object.person > 2
    mark, link = draft.key(), draft.key()
    pronoun = (
        "them" if plural else "it",
        "les" if plural else "la" if object.feminine else "le",
        mark,
        object.feminine,
        plural,
        True,
    )
    draft.phenomena |= {"it by its noun", "object pronoun"}
    draft.combinations.add(f"{second.english}+{noun.english[0]}")
    silent = Phrase([], [], subject.person, subject.feminine, subject.noun)
    said_too, spoken_too = clause(draft, silent, second, tense, pronoun=pronoun)
    return [*said, ("and", link), *said_too], [*spoken, ("et", link), *spoken_too]


def relative_subject(draft: Draft) -> Both | None:
    """The cat that is sleeping in the garden is black."""
    words = draft.words
    verb = words.usable.draw(draft.generator)
    noun = words.subjects[verb].draw(draft.generator)
    if noun not in words.fitting:
        return None
    subject = draft.noun_phrase(noun, "definite", adjective=0)
    draft.combinations.add(f"{noun.english[0]}+{verb.english}")
    tense = as_read(verb, tense_for(draft, verb), subject.person)
    said, spoken = with_qui(draft, subject, verb, tense)
    said_too, spoken_too = predicate(draft, subject, noun, tense)
    return said + said_too, spoken + spoken_too


def predicate(draft: Draft, subject: Phrase, noun: Noun, tense: str, done: Verb | None = None) -> Both | None:
    """“is black”: the predicate for the subject after a relative clause of this tense. None if it would only
    repeat what the verb `done` says: “the door that she opened was open”.
    """
    silent = Phrase([], [], subject.person, subject.feminine, noun)
    time = "past" if tense in ("past", "used", "was-ing") else "present"
    said, spoken = copula(draft, silent, time, "not" if draft.chance() < 0.15 else "")
    adjective = draft.words.fitting[noun].draw(draft.generator)
    if done and adjective.kinds & done.flags & DONE:
        return None
    word, mot = adjective_of(draft, subject, adjective)
    return said + word, spoken + mot


def with_qui(draft: Draft, subject: Phrase, verb: Verb, tense: str) -> Both:
    """The phrase, “who” or “that”, and what the phrase does."""
    draft.phenomena.add("qui")
    key = draft.key()
    who = "who" if "person" in subject.noun.classes else "that"
    relative = Phrase(
        [*subject.english, (who, key)],
        [*subject.french, ("qui", key)],
        subject.person,
        subject.feminine,
        subject.noun,
    )
    said, spoken = whole(
        draft, relative, verb, tense, "not" if tense != "used" and draft.chance() < 0.12 else ""
    )
    if "needs" in verb.flags or ("where" in verb.flags and draft.chance() < 0.4):
        place = draft.place(thing="needs" in verb.flags and bool(verb.objects))
        said, spoken = said + place.english, spoken + place.french
    return said, spoken


def knows_who(draft: Draft) -> Both | None:
    """I know the woman who sells the flowers."""
    words = draft.words
    verb = draft.one(words.transitive)
    doing = words.usable.draw(draft.generator)
    noun = draft.one(list(words.subjects[doing].items))
    if noun not in words.objects[verb].items or "family" in noun.classes:
        return None
    subject = draft.subject(verb, 0.5, 0.3)
    if noun is subject.noun:
        return None
    key = draft.key()
    object = draft.object(verb, subject, False, key, noun, draft.one(("definite", "indefinite")), 0.1)
    tense = as_read(verb, tense_for(draft, verb), subject.person)
    said, spoken = clause(draft, subject, verb, tense, object=object, key=key)
    silent = Phrase([], [], object.person, object.feminine, noun)
    draft.combinations.add(f"{noun.english[0]}+{doing.english}")
    now, once = tense in ("present", "is-ing"), "momentary" in doing.flags
    if now and once and "event" in doing.flags:
        return None  # a single event can't be in the present
    time = "past" if once or "state" in doing.flags else "was-ing"
    if now:
        time = "is-ing" if "event" in doing.flags else "present"
    said_too, spoken_too = with_qui(draft, silent, doing, time)
    return said + said_too, spoken + spoken_too


def relative_object(draft: Draft) -> Both | None:
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
    tense = as_read(verb, tense_for(draft, verb), doer.person)
    said, spoken = clause(draft, doer, verb, tense, gap=subject)
    that = [*subject.english, ("that", link)], [*subject.french, ("que", link)]
    described = predicate(draft, subject, noun, tense, verb)
    return described and (that[0] + said + described[0], that[1] + spoken + described[1])


def there_is(draft: Draft) -> Both | None:
    """There is a cat under the table."""
    words = draft.words
    noun = draft.one(words.movable)
    if "family" in noun.classes:
        return None
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
    place = draft.place(thing=not noun.classes & {"person", "animal"})
    return said + phrase.english + place.english, spoken + phrase.french + place.french


def where_it_is(draft: Draft) -> Both | None:
    """The keys are on the table."""
    noun = draft.one(draft.words.movable)
    kind = draft.one(("definite", "definite", "possessive", "this", "owner"))
    if noun.numbers == "mass":
        kind = "definite"
    subject = draft.noun_phrase(noun, kind, adjective=0.3)
    said, spoken = copula(
        draft, subject, "present" if draft.chance() < 0.6 else "past", "not" if draft.chance() < 0.2 else ""
    )
    place = draft.place(thing=not noun.classes & {"person", "animal"})
    return said + place.english, spoken + place.french


def question_word(draft: Draft) -> Both | None:
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
    tense = tense_for(draft, verb, FUTURE)
    if tense == "used":
        return None
    asked, demandé = whole(draft, subject, verb, tense, "", True)
    return [(said, key), *asked], [(spoken, key), *demandé]


RULES = (
    (plain, 46),
    (question, 12),
    (polite, 11),
    (described, 6),
    (described_twice, 4),
    (because, 4),
    (and_it, 5),
    (relative_subject, 6),
    (knows_who, 4),
    (relative_object, 5),
    (there_is, 6),
    (where_it_is, 5),
    (question_word, 8),
)
BOX = [rule for rule, share in RULES for _ in range(share)]

"""English forms as small functions: plural, third person, past, -ing, a or an, and the words of a verb."""

from collections.abc import Sequence

VOWELS = "aeiou"
SPOKEN_WITH_CONSONANT = ("uni", "use", "eu", "one")  # a university, a useful map
SPOKEN_WITH_VOWEL = ("honest", "hour")  # an honest man
BE = {
    "present": ("am", "are", "is", "are", "are", "are"),
    "past": ("was", "were", "was", "were", "were", "were"),
}
CONTRACTIONS = {"can": "can't", "am": "am not"}


def article(following: str) -> str:
    """a or an, by the word that follows."""
    if following.startswith(SPOKEN_WITH_CONSONANT):
        return "a"
    return "an" if following[0] in VOWELS or following.startswith(SPOKEN_WITH_VOWEL) else "a"


def with_s(word: str) -> str:
    """The regular plural of a noun and third person of a verb: cats, boxes, berries, watches."""
    if word.endswith(("s", "x", "z", "ch", "sh")) or word in ("go", "do", "potato", "tomato"):
        return word + "es"
    if word[-1] == "y" and word[-2] not in VOWELS:
        return word[:-1] + "ies"
    return "has" if word == "have" else word + "s"


def doubles(word: str) -> bool:
    """Whether the last consonant is doubled: one syllable, one vowel, one consonant (stopped, running)."""
    return (
        len(word) > 2
        and word[-1] not in VOWELS + "wxy"
        and word[-2] in VOWELS
        and word[-3] not in VOWELS
        and sum(letter in VOWELS for letter in word) == 1
    )


def past(verb: str) -> str:
    """The regular past: walked, danced, stopped, carried."""
    if verb[-1] == "e":
        return verb + "d"
    if verb[-1] == "y" and verb[-2] not in VOWELS:
        return verb[:-1] + "ied"
    return verb + (verb[-1] if doubles(verb) else "") + "ed"


def ing(verb: str) -> str:
    """walking, dancing, running, lying, seeing."""
    if verb.endswith("ie"):
        return verb[:-2] + "ying"
    if verb[-1] == "e" and verb[-2] != "e":
        return verb[:-1] + "ing"
    return verb + (verb[-1] if doubles(verb) else "") + "ing"


def negated(auxiliary: str, short: bool) -> list[str]:
    """["does", "not"], or in one word: ["doesn't"]."""
    if auxiliary == "can":
        return ["can't" if short else "cannot"]
    if auxiliary == "will" and short:
        return ["won't"]
    return [auxiliary + "n't"] if short and auxiliary not in ("am", "must") else [auxiliary, "not"]


def verb_words(
    base: str,
    past_form: str,
    ing_form: str,
    tense: str,
    person: int,
    polarity: str = "",
    question: bool = False,
    short: bool = False,
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """The words before the subject and the words after it, each with its roles.

    Tenses: present, is-ing, past, was-ing, used (to), future. `polarity` is "", "not" or an adverb (never,
    often). `person` 0 to 5: I, you, he, we, you, they. The roles of a word, one letter each: v the verb,
    a the auxiliary of the passé composé, n the negation or adverb, q the question.
    """
    third = person == 2
    adverb = [(polarity, "n")] if polarity not in ("", "not") else []
    negative, asks_twice = polarity == "not", False
    spoken = "v" if tense != "past" else "a"
    if base in ("can", "must") or base == "be" or tense.endswith("-ing") or tense == "future":
        if tense == "future":
            first, rest = "will", [(base, "v")]
        elif base in ("can", "must"):
            first, rest = {"present": base, "past": "could"}[tense], []
        elif tense.endswith("-ing"):
            first, rest = BE["past" if tense.startswith("was") else "present"][person], [(ing_form, "v")]
        else:
            first, rest = BE[tense][person], []
        asks_twice = tense in ("present", "past")
        said = "qv" if question and asks_twice else "q" if question else "v"
        if negative:
            words = negated(first, short)
            words = [
                (words[0], said + ("n" if len(words) == 1 else "")),
                *((word, "n") for word in words[1:]),
            ]
        else:
            words = [(first, said)]
        return (words, adverb + rest) if question else ([], words + adverb + rest)
    if tense == "used":
        return [], [("used", "v"), ("to", "v"), *adverb, (base, "v")]
    if negative or question:
        first = "did" if tense == "past" else "does" if third else "do"
        said = ("a" if tense == "past" else "") + ("q" if question else "")
        if negative:
            words = negated(first, short)
            if len(words) == 1:
                words = [(words[0], said + "n")]
            else:
                words = [(words[0], said or "n"), (words[1], "n")]
        else:
            words = [(first, said)]
        return (words, [*adverb, (base, "v")]) if question else ([], [*words, *adverb, (base, "v")])
    form = past_form if tense == "past" else with_s(base) if third else base
    return [], [*adverb, (form, "v" + spoken.strip("v"))]


def sentence(words: Sequence[str]) -> str:
    """The words joined as they are printed, with an initial capital."""
    text = " ".join(words).replace(" .", ".").replace(" ?", "?").replace(" ,", ",")
    return text[0].upper() + text[1:]

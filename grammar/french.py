"""French spelling and agreement as small functions: elision, contraction, plural, feminine, conjugation."""

from collections.abc import Iterable, Mapping, Sequence

VOWELS = frozenset(
    "aeiouàâäéèêëîïôöùûœhAEIOUÀÂÄÉÈÊËÎÏÔÖÙÛŒH"
)  # h is silent; the words with h aspiré are marked in the tables
ELIDED = {word: word[:-1] + "'" for word in ("le", "la", "de", "ne", "je", "que", "me", "te", "se")}
CONTRACTED = {("de", "le"): "du", ("de", "les"): "des", ("à", "le"): "au", ("à", "les"): "aux"}
PRESENT_ENDINGS = {
    "er": ("e", "es", "e", "ons", "ez", "ent"),
    "ir": ("is", "is", "it", "issons", "issez", "issent"),
    "re": ("s", "s", "", "ons", "ez", "ent"),
}
IMPERFECT_ENDINGS = ("ais", "ais", "ait", "ions", "iez", "aient")
FUTURE_ENDINGS = ("ai", "as", "a", "ons", "ez", "ont")
PARTICIPLE_ENDINGS = {"er": "é", "ir": "i", "re": "u"}
FEMININE_ENDINGS = (
    ("eux", "euse"),
    ("f", "ve"),
    ("er", "ère"),
    ("el", "elle"),
    ("en", "enne"),
    ("on", "onne"),
    ("e", "e"),
)
POSSESSIVES = {"my": "mon", "your": "ton", "his": "son", "her": "son", "its": "son"}
SHARED_POSSESSIVES = {"our": ("notre", "nos"), "your, polite": ("votre", "vos"), "their": ("leur", "leurs")}


def opens_with_vowel(word: str, aspirated: frozenset[str] = frozenset()) -> bool:
    """Whether le, de, je, … elide before `word`: l'arbre, l'homme, but le hibou (in `aspirated`)."""
    return (word[0] in VOWELS and word not in aspirated) or word == "y"


def elide(words: Sequence[str], aspirated: frozenset[str] = frozenset()) -> list[str]:
    """["je", "ne", "aime", "le", "arbre"] → ["je", "n'", "aime", "l'", "arbre"]."""
    return [
        ELIDED[word] if word in ELIDED and opens_with_vowel(following, aspirated) else word
        for word, following in zip(words, (*words[1:], "."))
    ]


def plural(word: str) -> str:
    """The plural of a noun or of a masculine adjective: chats, gâteaux, chevaux, souris."""
    if word[-1] in "sxz":
        return word
    if word.endswith(("eau", "eu")) and word != "bleu":
        return word + "x"
    return word[:-2] + "aux" if word.endswith("al") else word + "s"


def feminine(adjective: str) -> str:
    """The feminine of a masculine singular adjective: petite, rouge, heureuse, légère."""
    for ending, changed in FEMININE_ENDINGS:
        if adjective.endswith(ending):
            return adjective[: -len(ending)] + changed
    return adjective + "e"


def agree(participle: str, is_feminine: bool, is_plural: bool) -> str:
    """allé, allée, allés, allées; mis, mise, mis, mises."""
    word = participle + "e" if is_feminine else participle
    return word + "s" if is_plural and word[-1] != "s" else word


def determiner(
    kind: str,
    is_feminine: bool,
    is_plural: bool,
    vowel: bool,
    adjective_first: bool = False,
    negated: bool = False,
) -> tuple[str, ...]:
    """The words before the noun, not yet elided: definite, indefinite, partitive, this or a possessive.

    `vowel`: the next word begins with one (cet arbre, mon école, de l'eau); `adjective_first`: de petits
    chats; `negated`: after ne … pas, a direct object has de: je n'ai pas de chat.
    """
    if kind == "definite":
        return ("les",) if is_plural else ("la",) if is_feminine else ("le",)
    if kind in ("indefinite", "partitive") and negated:
        return ("de",)
    if kind == "indefinite":
        if is_plural:
            return ("de",) if adjective_first else ("des",)
        return ("une",) if is_feminine else ("un",)
    if kind == "partitive":
        return ("de", "la") if is_feminine or vowel else ("du",)
    if kind == "this":
        return ("ces",) if is_plural else ("cette",) if is_feminine else ("cet",) if vowel else ("ce",)
    if kind in SHARED_POSSESSIVES:
        return (SHARED_POSSESSIVES[kind][is_plural],)
    stem = POSSESSIVES[kind]
    if is_plural:
        return (stem[0] + "es",)
    return (stem[0] + "a",) if is_feminine and not vowel else (stem,)


def contract(preposition: str, article: Sequence[str], vowel: bool) -> tuple[str, ...]:
    """A preposition and the words after it: au, du, des; besoin de (du) pain; à l'arbre stays apart.

    If two words were contracted to one, the result is one word shorter than its parts together.
    """
    first = article[0] if article else ""
    if (preposition, first) in CONTRACTED and not (first == "le" and vowel):
        return (CONTRACTED[preposition, first],)
    if preposition == "de" and first in ("des", "du", "de"):
        return ("de",)
    return (preposition, *article)


def spelled(stem: str, ending: str) -> str:
    """Stem and ending of a verb in -er, as written: mangeons, commençons, achète, nettoie, essaie."""
    silent = ending in ("e", "es", "ent")
    if ending[:1] in ("a", "o"):
        stem = stem[:-1] + "ç" if stem.endswith("c") else stem + "e" if stem.endswith("g") else stem
    elif silent and stem.endswith(("ay", "oy", "uy")):
        stem = stem[:-1] + "i"
    elif silent and stem.endswith(("appel", "jet")):
        stem += stem[-1]
    elif silent and len(stem) > 2 and stem[-2] in "eé" and stem[-1] not in "aeiouyé":
        stem = stem[:-2] + "è" + stem[-1]
    elif silent and stem.endswith(("ég", "éch")):
        place = stem.rindex("é")
        stem = stem[:place] + "è" + stem[place + 1 :]
    return stem + ending


def future_stem(infinitive: str) -> str:
    """The stem of the future: the infinitive, with è or ll if the present has them."""
    stem = infinitive[:-2]
    if infinitive.endswith("er") and "é" not in stem[-3:]:
        return spelled(stem, "e") + "r"
    return infinitive.removesuffix("e")


def conjugate(
    infinitive: str, irregular: Mapping[str, tuple[tuple[str, ...], str, str]]
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...], str]:
    """Present (je, tu, il, nous, vous, ils), imparfait, future and past participle.

    `irregular` has the present, participle and future stem ("" if regular) of the verbs that don't follow the
    pattern of their ending. The imparfait is formed from the present with nous (except for être).
    """
    stem, group = infinitive[:-2], infinitive[-2:]
    of_future = future_stem(infinitive)
    if infinitive in irregular:
        present, participle, irregular_stem = irregular[infinitive]
        of_future = irregular_stem or of_future
    else:
        join = spelled if group == "er" else str.__add__
        present = tuple(join(stem, ending) for ending in PRESENT_ENDINGS[group])
        participle = stem + PARTICIPLE_ENDINGS[group]
    past = "ét" if infinitive == "être" else present[3].removesuffix("ons")
    if group == "er" and infinitive not in irregular:
        imperfect = tuple(spelled(stem, ending) for ending in IMPERFECT_ENDINGS)
    else:
        imperfect = tuple(past + ending for ending in IMPERFECT_ENDINGS)
    return present, imperfect, tuple(of_future + ending for ending in FUTURE_ENDINGS), participle


def sentence(words: Iterable[str]) -> str:
    """The words joined as printed: no space after an apostrophe or before a full stop, initial capital."""
    text = " ".join(words).replace("' ", "'").replace(" .", ".").replace(" ,", ",")
    return text[0].upper() + text[1:]

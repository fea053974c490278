"""Tokenisation for BLEU, as in sacreBLEU: at punctuation and spaces, or into characters."""

import re
from collections.abc import Callable, Iterable

RULES_13A = [(re.compile(rule), put) for rule, put in (
    (r"([\{-\~\[-\` -\&\(-\+\:-\@\/])", r" \1 "),  # ASCII punctuation except ' , - .
    (r"([^0-9])([.,])", r"\1 \2 "),  # . and , stay attached only between digits
    (r"([.,])([^0-9])", r" \1 \2"),
    (r"([0-9])(-)", r"\1 \2 "),  # a dash after a digit
)]
UNSPACED = re.compile(  # scripts that put no space between words
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u0f00-\u0fff"  # Thai, Lao, Burmese, Khmer, Tibetan
    "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")  # kana, Chinese characters


def tokens_13a(text: str) -> list[str]:
    """The words that BLEU counts, tokenised as in the script mteval-v13a of the translation contests."""
    for old, new in (("<skipped>", ""), ("-\n", ""), ("\n", " "), ("&quot;", '"'), ("&amp;", "&"),
                     ("&lt;", "<"), ("&gt;", ">")):
        text = text.replace(old, new)
    text = f" {text} "
    for rule, put in RULES_13A:
        text = rule.sub(put, text)
    return text.split()


def characters(text: str) -> list[str]:
    """Each character but the spaces: sacreBLEU's tokenizer “char”."""
    return [character for character in text if not character.isspace()]


def words_for(references: Iterable[str]) -> tuple[str, Callable[[str], list[str]]]:
    """(name, function) of the tokeniser that suits the references: into characters if most letters belong to
    a script without spaces between words.
    """
    letters = [letter for text in references for letter in text if letter.isalpha()]
    unspaced = sum(bool(UNSPACED.match(letter)) for letter in letters)
    return ("char", characters) if 2 * unspaced > len(letters) > 0 else ("13a", tokens_13a)

"""Spelling out characters that a console may lack."""

import codecs
import sys
import unicodedata

SPELLED = {"√": "sqrt", "·": "*", "×": "x", "→": "->", "←": "<-", "↦": "->", "−": "-", "–": "-"}
SPELLED |= {"—": "--", "≤": "<=", "≥": ">=", "≠": "!=", "≈": "~", "∞": "inf", "∂": "d", "Σ": "sum"}
SPELLED |= {"“": '"', "”": '"', "’": "'", "…": "...", "✓": "ok", "✗": "FAILED", "─": "-", "∈": "in"}
SPELLED |= {"░": ".", "█": "#", "│": "|", "└": "`", "├": "|", "⊤": "^T", "±": "+-", "′": "'"}
SPELLED |= {"‖": "||", "∘": "o", "÷": "/", "°": " degrees", "⁻": "-", "œ": "oe", "Œ": "OE",
            "⌈": "ceil(", "⌉": ")"}


def spell(error: UnicodeError) -> tuple[str, int]:
    """Codec error handler: write a character that the console lacks in ASCII."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(spell_character(character) for character in text), error.end


def spell_character(character: str) -> str:
    if character in SPELLED:
        return SPELLED[character]
    name = unicodedata.name(character, "")
    if name.startswith("GREEK"):
        return name.split()[-1].lower()
    plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return plain or character.encode("ascii", "backslashreplace").decode()


codecs.register_error("spell", spell)


def legible(text: str, stream=None) -> str:
    """`text` with every character that the console's encoding lacks spelt out: √ becomes sqrt."""
    encoding = getattr(stream or sys.stdout, "encoding", None) or "ascii"
    return text.encode(encoding, "spell").decode(encoding)

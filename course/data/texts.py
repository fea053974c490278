"""Small texts that people wrote: the prose of this course's lessons, and one article in five languages."""

import ast
from pathlib import Path

COURSE = Path(__file__).parents[2]
# Article 1 of the Universal Declaration of Human Rights (United Nations, 1948), in its official or common
# translations, which are in the public domain.
ARTICLE = {
    "English": "All human beings are born free and equal in dignity and rights. They are endowed with reason "
               "and conscience and should act towards one another in a spirit of brotherhood.",
    "French": "Tous les êtres humains naissent libres et égaux en dignité et en droits. "
              "Ils sont doués de raison et de conscience et doivent agir les uns envers les autres "
              "dans un esprit de fraternité.",
    "German": "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft und "
              "Gewissen begabt und sollen einander im Geist der Brüderlichkeit begegnen.",
    "Greek": "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα. Είναι "
             "προικισμένοι με λογική και συνείδηση, και οφείλουν να συμπεριφέρονται μεταξύ τους με πνεύμα "
             "αδελφοσύνης.",
    "Chinese": "人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心，并应以兄弟关系的精神相对待。",
}


def docstrings(file: Path) -> list[str]:
    """All docstrings of a Python file: a text written by people, not by a grammar."""
    places = (ast.Module, ast.ClassDef, ast.FunctionDef)
    return [ast.get_docstring(node) or "" for node in ast.walk(ast.parse(file.read_text("utf-8")))
            if isinstance(node, places)]


def lesson_texts() -> tuple[list[str], list[str]]:
    """(the prose of lessons 1 to 5, the prose of lesson 6), one text per docstring."""
    *known, new = sorted(COURSE.glob("0[1-6]_*.py"))
    return [text for file in known for text in docstrings(file)], docstrings(new)


def as_text(content: bytes, name: str) -> str:
    """The bytes decoded as UTF-8, without a byte order mark; a one-line ValueError for other bytes."""
    content = content.removeprefix(b"\xef\xbb\xbf")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is not UTF-8: byte 0x{content[error.start]:02x} at position "
                         f"{error.start:,} ({error.reason})") from None

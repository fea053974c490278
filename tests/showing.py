"""What a walkthrough has shown before: its tables, texts and figures, number by number.

A changed number is no mistake, but somebody has to look at it. What depends on the machine, its seconds, the
versions or the threads isn't compared: shown.json holds what several runs have in common, made by
`python tests/showing.py FOLDER …` from their pages; ~ stands for the rest.
"""

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path

KNOWN = Path(__file__).with_name("shown.json")
VARIES = "~"
TIMED = re.compile(r"\b(s|ms|µs|(milli)?seconds?|times? as|faster|sooner|steps a)\b", re.IGNORECASE)
GAP = re.compile(r"\(?(identical|largest difference [\d.e+-]+)\)?")  # rounding: other processors have others
NUMBER = re.compile(r"(\d+(?:[.,]\d+)*(?:e[-+]?\d+)?)")


class Shown(HTMLParser):
    """Step → the texts of what it returned and of its checks' figures; no columns or lines of seconds."""

    def __init__(self, page: Path):
        super().__init__(convert_charrefs=True)
        self.texts: dict[str, list[str]] = {}
        self.step, self.depth, self.wanted = "", 0, 0  # how deep we are, and where something shown began
        self.text, self.column, self.timed = "", 0, set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list) -> None:
        kind, names = dict(attrs), (dict(attrs).get("class") or "").split()
        if tag in ("img", "br", "input", "hr", "meta", "link"):
            return
        self.depth += 1
        if tag == "section" and "step" in names:
            self.step, self.texts[kind["id"]] = kind["id"], []
        if not self.wanted and self.step and {"shown", "figure-of"} & {*names}:
            self.wanted = self.depth
        if tag == "table":
            self.timed = set()
        if tag == "tr":
            self.column = 0
        if tag in ("td", "th", "pre", "caption", "figcaption", "span"):
            self.text = ""

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_endtag(self, tag: str) -> None:
        if self.wanted and tag in ("td", "th", "pre", "caption", "figcaption", "span"):
            if tag == "th" and TIMED.search(self.text):
                self.timed.add(self.column)
            lines = [line for line in self.text.splitlines() if tag == "th" or not TIMED.search(line)]
            if tag not in ("td", "th") or self.column not in self.timed:
                self.texts[self.step] += lines
            self.column += tag in ("td", "th")
            self.text = ""
        if self.depth == self.wanted:
            self.wanted = 0
        self.depth -= 1


def shown_by(page: Path) -> dict[str, list[str]]:
    """Step → numbers, and the words between them, in the order in which they are shown."""
    return {step: [" ".join(part.split()) for text in texts
                   for part in NUMBER.split(GAP.sub("", text)) if part.strip()]
            for step, texts in Shown(page).texts.items()}


def alike(one: str, other: str, behind: str = "") -> bool:
    """The same word, or about the same number: it differs by a fiftieth, by one in the last decimal place, by
    two if it counts per cent, as `behind` says, or both are rounding.
    """
    if one == other or VARIES in (one, other):
        return True
    if not (NUMBER.fullmatch(one) and NUMBER.fullmatch(other)):
        return False
    a, b = (float(text.replace(",", "")) for text in (one, other))
    digits, _, exponent = one.partition("e")
    places = len(digits.partition(".")[2]) - int(exponent or 0)
    unit = 2.0 if behind.startswith("%") else 10.0**-places if "." in one or exponent else 0.0
    return abs(a - b) <= max(0.02 * max(a, b), 1.01 * unit) or max(a, b) < 1e-6


def next_to(parts: Sequence[str]) -> list[str]:
    """What stands behind each."""
    return [*parts[1:], ""]


def differences(known: Mapping[str, list[str]], shown: Mapping[str, list[str]]) -> list[str]:
    """What is shown otherwise, step by step."""
    found = [f"{step}: in one of both" for step in known.keys() ^ shown.keys()]
    for step in known.keys() & shown.keys():
        if known[step] == [VARIES]:
            continue
        if len(known[step]) != len(shown[step]):
            found.append(f"{step}: {len(shown[step])} words and numbers, not {len(known[step])}")
        found += [f"{step}: {new} where {old} stood"
                  for old, new, behind in zip(known[step], shown[step], next_to(shown[step]))
                  if not alike(old, new, behind)]
    return found


def measured(part: str, behind: str) -> bool:
    """Whether it is a number with decimals, or counts per cent; one that varies makes the others suspect."""
    return bool(NUMBER.fullmatch(part)) and ("." in part or "e" in part or behind.startswith("%"))


def shared_by(runs: Iterable[Mapping[str, list[str]]]) -> dict[str, list[str]]:
    """What the runs have in common."""
    first, *others = runs
    known = {}
    for step, parts in first.items():
        if any(len(other[step]) != len(parts) for other in others):
            known[step] = [VARIES]
        else:
            columns = zip(next_to(parts), parts, *(other[step] for other in others))
            kept = [part if all(alike(part, new, behind) for new in more) else VARIES
                    for behind, part, *more in columns]
            known[step] = [VARIES if VARIES in kept and measured(*pair) else pair[0]
                           for pair in zip(kept, next_to(kept))]
    return known


def assert_shown_before(name: str, page: Path, ended: str = "") -> None:
    """The lesson shows what it has shown before, where that is known: lesson 8 trains for minutes.

    Steps that show nothing but the words `ended` are left out.
    """
    known, shown = json.loads(KNOWN.read_text(encoding="utf-8")), shown_by(page)
    left_out = {step for step, parts in shown.items() if parts[:1] == [ended]}
    known, shown = ({step: parts for step, parts in of.items() if step not in left_out}
                    for of in (known.get(name, shown), shown))
    assert not (found := differences(known, shown)), "\n".join(found)


def main(folders: list[str]) -> None:
    pages: dict[str, list[Path]] = {}
    lessons = [path.stem for path in KNOWN.parent.parent.glob("[0-9][0-9]_*.py")]
    for page in (Path(folder) / f"{lesson}.html" for folder in folders for lesson in lessons):
        if page.exists():
            pages.setdefault(page.stem, []).append(page)
    known = json.loads(KNOWN.read_text(encoding="utf-8")) if KNOWN.exists() else {}
    known |= {name: shared_by(map(shown_by, found)) for name, found in pages.items()}
    lines = [f' "{name}": {{\n' + ",\n".join(f"  {json.dumps(step)}: {json.dumps(parts, ensure_ascii=False)}"
                                             for step, parts in steps.items()) + "\n }"
             for name, steps in sorted(known.items())]
    KNOWN.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])

"""Reading sentence pairs from the files people have: split at tabs or commas, or JSON lines, any encoding."""

import csv
import io
import json
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

LONGEST = 2000  # most characters of a source or target
LOOKED_AT = 1000  # rows from which the format of a file is detected
NAMES = {"source", "target", "src", "tgt", "trg", "sentence", "translation", "text", "input", "output",
         "from", "to", "english", "french", "german", "spanish", "italian", "chinese", "en", "fr", "de",
         "es", "it", "zh",
         "eng", "fra", "deu", "spa", "ita", "cmn", "question", "answer", "original"}  # that columns may have
MARKS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe\x00\x00", "utf-32-le"), (b"\x00\x00\xfe\xff", "utf-32-be"),
         (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))


class Lines(NamedTuple):
    """The usable pairs of a file; reason → the numbers of the lines left out; how the file was read."""

    pairs: list[tuple[str, str]]
    left_out: dict[str, list[int]]
    notes: tuple[str, ...] = ()

    def account(self) -> str:
        """One line: how many pairs, how the file was read, and what was left out and why."""
        reasons = [f"left out {len(numbers):,} {reason} (first: line {numbers[0]:,})"
                   for reason, numbers in self.left_out.items()]
        return "; ".join([f"{len(self.pairs):,} pair{'s' * (len(self.pairs) != 1)}", *self.notes, *reasons])


def read_pairs(path: Path, longest: int, columns: Sequence[int] = ()) -> Lines:
    """The pairs of a file, from the two given columns (counted from 1) or from the first two that hold
    sentences.

    Lines are left out if they aren't text, have other columns or an empty side, or exceed `longest` words or
    LONGEST characters. All text is normalised (NFC). A one-line ValueError if no pair is left; OSError if
    the file can't be read.
    """
    text, notes = decoded(path.read_bytes())
    rows, form = rows_of(text)
    chosen, told = columns_of(rows, columns)
    notes += [*form, *told] if rows else []
    usual = Counter(len(cells) for _, cells in rows[:LOOKED_AT])
    width = max(usual, key=lambda count: (usual[count], count), default=2)
    pairs: list[tuple[str, str]] = []
    left_out: dict[str, list[int]] = {}
    for place, (number, cells) in enumerate(rows):
        found = pair_in(cells, chosen, width, longest)
        if place == 0 and not isinstance(found, str) and {*map(str.casefold, found)} <= NAMES:
            found = "with the names of the columns"
        if isinstance(found, str):
            lines_of_it = 1 + cells[0].count("\n") if cells else 1
            left_out.setdefault(found, []).extend(range(number, number + lines_of_it))
        else:
            pairs.append(found)
    lines = Lines(pairs, left_out, tuple(notes))
    if not pairs:
        raise ValueError(f"{path} has no usable pair: {lines.account()}; lines should be source, tab, target")
    return lines


def two_columns(text: str) -> tuple[int, ...]:
    """“2,4” → (2, 4), no text → (); ValueError for anything else."""
    columns = tuple(int(number) for number in text.split(",") if number.strip().isdecimal())
    if text and (len({*columns}) != 2 or 0 in columns or text.count(",") != 1):
        raise ValueError(f"--columns {text}: give two different columns, counted from 1, such as 2,4")
    return columns


def decoded(content: bytes) -> tuple[str, list[str]]:
    """The text of a file in NFC, with plain line ends, and notes on changes; an undecodable byte is �."""
    notes = []
    encoding = next((name for mark, name in MARKS if content.startswith(mark)), "utf-8")
    content = content.removeprefix(next((mark for mark, _ in MARKS if content.startswith(mark)), b""))
    if encoding == "utf-8" and content[:LOOKED_AT].count(0) > len(content[:LOOKED_AT]) // 4:
        encoding = "utf-16-le" if content[1:2] == b"\0" else "utf-16-be"
    if encoding == "utf-8" and is_latin(content):
        encoding = "cp1252"
    text = content.decode(encoding, errors="replace")
    if encoding != "utf-8":
        notes.append(f"read as {'Latin-1 (Windows-1252)' if encoding == 'cp1252' else encoding.upper()}")
    formed = unicodedata.normalize("NFC", text)
    if formed != text:
        notes.append("letters and separate accents were joined (NFC)")
    return formed.replace("\r\n", "\n").replace("\r", "\n"), notes


def is_latin(content: bytes) -> bool:
    """Whether at least ten lines have letters beyond ASCII, and most of these lines aren't UTF-8."""
    lines = [line for line in content.replace(b"\r", b"\n").split(b"\n") if not line.isascii()]
    return len(lines) >= 10 and sum(map(is_utf8, lines)) < len(lines) / 2


def is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


# ------------------------------------------------------------------ rows and columns

Row = tuple[int, list[str]]  # the number of its line, its cells


def rows_of(text: str) -> tuple[list[Row], list[str]]:
    """The rows that aren't empty, and how they were split: JSON lines, tabs, or commas as in CSV."""
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    some = [line for _, line in lines[:LOOKED_AT]]
    order: dict[str, int] = {}
    if some and all(line.lstrip()[0] in "{[" for line in some[:10]) and cells_of_json(some[0], order):
        return [(number, cells_of_json(line, order)) for number, line in lines], ["JSON lines"]
    if sum("\t" in line for line in some) >= len(some) / 2:
        rows = [(number, [cell.strip() for cell in line.split("\t")]) for number, line in lines]
        if has_csv_quotes([cell for _, row in rows for cell in row]):
            return csv_rows(text, "\t"), ["quotes removed"]
        return rows, []
    for mark, name in ((";", "semicolons"), (",", "commas")):  # sentences have commas, too
        widths = Counter(len(row) for _, row in csv_rows("\n".join(some), mark))
        if widths and (most := widths.most_common(1)[0])[0] >= 2 and most[1] > 0.9 * widths.total():
            return csv_rows(text, mark), [f"cut at {name}"]
    return [(number, [line.strip()]) for number, line in lines], []


def csv_rows(text: str, mark: str) -> list[Row]:
    """The rows of a CSV file; what quotes hold together over several lines is a row of one cell. None if the
    text isn't CSV.
    """
    lines, rows, end = text.split("\n"), [], 0
    csv.field_size_limit(2**31 - 1)  # a quote that is never closed takes the rest of the file
    reader = csv.reader(io.StringIO(text), delimiter=mark)
    try:
        for row in reader:
            begin, end = end, reader.line_num
            if any(row):
                cells = [cell.strip() for cell in row] if end == begin + 1 else ["\n".join(lines[begin:end])]
                rows.append((begin + 1, cells))
    except csv.Error:
        return []
    return rows


def cells_of_json(line: str, order: dict[str, int]) -> list[str]:
    """The texts in a line of JSON, also those of a nested object: {"translation": {"en": …, "fr": …}}. Names
    have the order in which the first line has them.
    """

    def texts(value: Any) -> list[str]:
        if isinstance(value, dict):
            value = [value[name] for name in sorted(value, key=lambda one: order.setdefault(one, len(order)))]
        if isinstance(value, list):
            return [text for one in value for text in texts(one)]
        return ["" if value is None else " ".join(str(value).split("\n")).strip()]

    try:
        return texts(json.loads(line))
    except (ValueError, RecursionError):
        return []


def is_quoted(cell: str) -> bool:
    return len(cell) > 1 and cell[0] == cell[-1] == '"'


def has_csv_quotes(cells: Sequence[str]) -> bool:
    """Whether quotes around cells belong to the file, not to the text: if nearly all cells have them; or, as
    in Excel's text files, if cells with quotes inside have them, with the inner quotes doubled, or if all
    cells with a comma do.
    """
    if sum(map(is_quoted, cells)) > 0.9 * len(cells):
        return True
    inside = [cell[1:-1] for cell in cells if is_quoted(cell)]
    if any('"' in text.replace('""', "") for text in inside):
        return False
    commas = [cell for cell in cells if "," in cell]
    return any('""' in text for text in inside) or (len(commas) >= 3 and all(map(is_quoted, commas)))


def columns_of(rows: Sequence[Row], columns: Sequence[int]) -> tuple[tuple[int, int], list[str]]:
    """(the two columns, from 0; notes on them): those in `columns`, or the first two with sentences.

    Columns that hold numbers, or always the same word, are skipped if two others are left.
    """
    some = [cells for _, cells in rows[:LOOKED_AT]]
    width = Counter(map(len, some)).most_common(1)[0][0] if some else 2
    of = [[cells[place] for cells in some if len(cells) > place] for place in range(width)]
    numbers = [place for place in range(width) if sum(map(str.isdecimal, of[place])) > 0.9 * len(of[place])]
    codes = [place for place in range(width)
             if len(some) >= 20 and len({*of[place][1:]}) == 1 and len(of[place][-1]) <= 5]
    if columns:
        first, second = (place - 1 for place in columns)
    else:
        left = [place for place in range(width) if place not in numbers + codes]
        first, second = left[:2] if len(left) > 1 else (0, 1)
    named = f"columns {first + 1} and {second + 1} of {width}" if (first, second) != (0, 1) or columns else ""
    told = [f"{named} (--columns chooses others)"] if named else []
    told += [f"column {place + 1} looks like numbers" for place in (first, second) if place in numbers]
    return (first, second), told


def pair_in(cells: Sequence[str], columns: tuple[int, int], width: int, longest: int
            ) -> tuple[str, str] | str:
    """The pair in a row, or why there is none; `width` is how many cells the other rows have."""
    if len(cells) == 1 and "\n" in cells[0]:
        return "between quotes that are on different lines"
    if len(cells) < 2:
        return "without a tab"
    if len(cells) <= max(columns):
        return f"without a column {max(columns) + 1}"
    if len(cells) > width:
        return f"with {len(cells)} columns where others have {width}: a tab inside a sentence?"
    source, target = (cells[place] for place in columns)
    if {"\ufffd", "\0"} & {*source, *target}:
        return "not UTF-8"
    if not source or not target:
        return "with an empty side"
    if max(len(source.split()), len(target.split())) > longest:
        return f"longer than {longest} words"
    if max(len(source), len(target)) > LONGEST:
        return f"longer than {LONGEST:,} characters"
    return source, target

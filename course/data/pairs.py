"""Sentence pairs from a file of somebody's own: two columns or more, tabs between, UTF-8."""

import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple
from zlib import crc32


class Lines(NamedTuple):
    """The usable pairs of a file, and of what was left out: reason → the numbers of the lines."""

    pairs: list[tuple[str, str]]
    left_out: dict[str, list[int]]

    def account(self) -> str:
        """One line: how many pairs, and how many were left out and why, the first by its line."""
        reasons = [f"{len(numbers):,} {reason} (first: line {numbers[0]:,})"
                   for reason, numbers in self.left_out.items()]
        return f"{len(self.pairs):,} pairs" + "".join(f"; left out {reason}" for reason in reasons)


def read_pairs(path: Path, longest: int, most: int = 0) -> Lines:
    """The first two columns of each line, further ones (an attribution) ignored; at most `most` pairs.

    Left out are lines that aren't UTF-8, have no tab or an empty side, or more than `longest` words.
    ValueError, in one line, if no pair is left; OSError if the file can't be read.
    """
    pairs: list[tuple[str, str]] = []
    left_out: dict[str, list[int]] = {}
    for number, line in enumerate(path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if most and len(pairs) == most:
            break
        if not line.strip():
            continue
        found = pair_in(line, longest)
        if isinstance(found, str):
            left_out.setdefault(found, []).append(number)
        else:
            pairs.append(found)
    lines = Lines(pairs, left_out)
    if not pairs:
        raise ValueError(f"{path} has no usable pair: {lines.account()}; a line is source, tab, target")
    return lines


def pair_in(line: bytes, longest: int) -> tuple[str, str] | str:
    """The pair in a line, or why there is none."""
    try:
        columns = [column.strip() for column in line.decode().split("\t")]
    except UnicodeDecodeError:
        return "not UTF-8"
    if len(columns) < 2:
        return "without a tab"
    source, target = columns[:2]
    if not source or not target:
        return "with an empty side"
    if max(len(source.split()), len(target.split())) > longest:
        return f"longer than {longest} words"
    return source, target


def by_source(pairs: Iterable[tuple[str, str]], per_cent: int = 2) -> dict[str, list[tuple[str, str]]]:
    """train, validation and test: a checksum of the source decides, so all its translations stay together.

    Sources that differ in case or marks alone go together, too. Held-out sources are asked once each.
    """
    splits: dict[str, list[tuple[str, str]]] = {"train": [], "validation": [], "test": []}
    asked = set()
    for source, target in pairs:
        key = bare(source)
        drawn = crc32(key.encode()) % 100
        split = "train" if drawn >= 2 * per_cent else "test" if drawn >= per_cent else "validation"
        if split == "train" or key not in asked:
            splits[split].append((source, target))
            asked.add(key)
    return splits


def bare(source: str) -> str:
    """Its letters and digits, without case, accents and marks; of marks alone themselves."""
    return "".join(filter(str.isalnum, unicodedata.normalize("NFKD", source.casefold()))) or source


def apart_from(pairs: Iterable[tuple[str, str]], others: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """The pairs whose source isn't among the others', case and marks apart."""
    known = {bare(source) for source, _ in others}
    return [pair for pair in pairs if bare(pair[0]) not in known]

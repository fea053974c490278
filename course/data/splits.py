"""Splitting pairs into training, validation and test, with an account of what was left out."""

import unicodedata
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from zlib import crc32

from course.data.pairs import read_pairs

MARKS = ".,;:!?…\"'“”„‘’«»()[]¿¡。，！？、"  # around words
HELD_OUT = 1000  # most pairs for test and for validation where no file is given for them


def fingerprint(path: str) -> str:
    """The SHA-256 hash of the file's contents; OSError if it can't be read."""
    return sha256(Path(path).read_bytes()).hexdigest()


def gone_or_changed(files: dict[str, str], hashes: dict[str, str]) -> list[str]:
    """The files that aren't there any more, or that now have other contents than those of `hashes`."""
    return [file for name, file in files.items()
            if not Path(file).is_file() or fingerprint(file) != hashes.get(name)]


def key(source: str) -> str:
    """The key on which two sources count as the same: their words without case, accents and marks.

    Symbols are kept, and so are marks between digits: “12 + 3”, “12 - 3” and “1 + 23” are three sources.
    """
    text = unicodedata.normalize("NFKD", source.casefold())
    text = "".join(one for one in text if not "\u0300" <= one <= "\u036f")  # accents; other marks are letters
    figures = any(map(str.isdigit, text))
    kept = "".join(one for one in text if figures or not unicodedata.category(one).startswith("P"))
    words = [word.strip(MARKS) or word for word in kept.split()] if figures else kept.split()
    return " ".join(words) or source


def by_source(pairs: Iterable[tuple[str, str]], per_cent: int = 2) -> dict[str, list[tuple[str, str]]]:
    """train, validation and test: a checksum of the source decides, so all its translations stay together.

    Sources that differ only in case or marks go together. Each held-out source is used once.
    """
    splits: dict[str, list[tuple[str, str]]] = {"train": [], "validation": [], "test": []}
    asked = set()
    for source, target in pairs:
        same = key(source)
        drawn = crc32(same.encode()) % 100
        split = "train" if drawn >= 2 * per_cent else "test" if drawn >= per_cent else "validation"
        if split == "train" or same not in asked:
            splits[split].append((source, target))
            asked.add(same)
    return splits


def known_sources(asked: Sequence[tuple[str, str]], trained: Iterable[tuple[str, str]]) -> float:
    """The fraction of the `asked` pairs whose source also occurs in the training pairs."""
    known = {source for source, _ in trained}
    return sum(source in known for source, _ in asked) / len(asked)


def apart_from(pairs: Iterable[tuple[str, str]], others: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """The pairs whose source isn't among the others' sources, ignoring case and marks."""
    known = {key(source) for source, _ in others}
    return [pair for pair in pairs if key(pair[0]) not in known]


def split_files(files: dict[str, str], longest: int, columns: Sequence[int] = (), most: int = 0,
                reverse: bool = False) -> tuple[dict[str, list[tuple[str, str]]], list[str]]:
    """(train, validation and test of these files; one line for each file and each kind of pair left out).

    `files` has train, and validation or test if they have their own file: all pairs of that file are used,
    and their sources are left out of training. Otherwise at most HELD_OUT pairs are split off. Further names
    are further tests. `most` limits the training pairs; `reverse` makes the second column the source. A
    one-line ValueError for a file without a pair, or for the same file twice.
    """
    same = {split: fingerprint(file) for split, file in files.items()}
    for split in files:
        if split != "train" and same[split] == same["train"]:
            raise ValueError(f"{files[split]}, for {split}, is the same as {files['train']}, for training: "
                             "a model isn't tested on what it was trained on")
    read = {split: read_pairs(Path(file), longest, columns) for split, file in files.items()}
    if reverse:
        read = {split: lines._replace(pairs=[(two, one) for one, two in lines.pairs])
                for split, lines in read.items()}
    accounts = [f"{files[split]}: {lines.account()}" for split, lines in read.items()]
    found = by_source(read["train"].pairs)
    again = len(read["train"].pairs) - sum(map(len, found.values()))
    left_out = {"further pairs of held-out sources, which are used once": again}
    given = {split: lines.pairs for split, lines in read.items() if split != "train"}
    if given:
        known = [pair for pairs in given.values() for pair in pairs]
        found["train"] += [pair for split in given for pair in found.get(split, [])]
        before = sum(len(found[split]) for split in found if split not in given)
        found = {split: apart_from(pairs, known) for split, pairs in found.items()} | given
        left_out["pairs whose source is in the files of validation or test"] = before - sum(
            len(found[split]) for split in found if split not in given)
        before = len(found["validation"])
        tests = [pair for split, pairs in found.items() if split.startswith("test") for pair in pairs]
        found["validation"] = apart_from(found["validation"], tests)
        left_out["validation pairs whose source is in the test"] = before - len(found["validation"])
    for split in ("validation", "test"):
        if split not in given:
            left_out[f"{split} pairs beyond {HELD_OUT:,}"] = len(found[split][HELD_OUT:])
            found[split] = found[split][:HELD_OUT]
    if most:
        left_out[f"training pairs beyond --max-pairs {most:,}"] = len(found["train"][most:])
        found["train"] = found["train"][:most]
    return found, accounts + [f"left out: {count:,} {reason}" for reason, count in left_out.items() if count]

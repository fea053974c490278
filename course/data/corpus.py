"""The pairs of a training: drawn by the grammar, or read from files of somebody's own."""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any

from course.data.splits import HELD_OUT, fingerprint, split_files
from grammar.sentences import Pair, corpus, draw_pair, split_of

LONGEST = 100  # words of a sentence in a file
ENDS = ".?!…。？！"  # of a sentence
LARGE = 2_000_000  # bytes of a file whose reading takes seconds
FILES = {"pairs": "train", "valid": "validation", "test": "test"}  # option → its split


class Corpus:
    """The pairs of each split; nothing is read or drawn before it is asked for.

    `paths` has an option of FILES for each file, and none for the grammar's sentences. `fits` says whether
    the model has places for a text.
    """

    def __init__(self, paths: dict[str, str], columns: Sequence[int], most: int, seed: int,
                 fits: Callable[[str], bool]):
        self.files = {FILES[name]: path for name, path in paths.items() if path}
        self.columns, self.most, self.seed, self.fits = columns, most, seed, fits
        self.accounts: list[str] = []  # what was read, and what was left out
        self.listener: Callable[[str], None] = lambda text: None  # hears what takes seconds

    def say(self, text: str) -> None:
        """Tell the listener what is going on, if the files are large."""
        if sum(Path(path).stat().st_size for path in self.files.values()) > LARGE:
            self.listener(text)

    @cached_property
    def hashes(self) -> dict[str, str]:
        """What the files say, by which a run is known: their paths and names don't count."""
        return {split: fingerprint(path) for split, path in self.files.items()}

    @cached_property
    def found(self) -> dict[str, list[Pair]]:
        """All that the grammar or the files have for train, validation and test."""
        if not self.files:
            sizes = {"train": self.most or 60_000, "validation": 300, "test": HELD_OUT}
            return corpus(sizes, self.seed)
        self.say(f"Reading {', '.join(self.files.values())} …")
        found, self.accounts = split_files(self.files, LONGEST, self.columns, self.most)
        return {split: [Pair(*pair, (), frozenset(), frozenset()) for pair in pairs]
                for split, pairs in found.items()}

    @cached_property
    def splits(self) -> dict[str, list[Pair]]:
        """As found; from files without what is too long for the model. ValueError if a split is empty."""
        splits, found = {}, self.found
        self.say(f"Cutting {sum(map(len, found.values())):,} pairs into pieces …")
        for split, pairs in found.items():
            splits[split] = [pair for pair in pairs if not self.files or all(map(self.fits, pair[:2]))]
            if left_out := len(pairs) - len(splits[split]):
                self.accounts.append(f"{split}: left out {left_out:,} of more pieces than the model takes")
            if not splits[split]:
                raise ValueError(f"{', '.join(self.files.values())} leaves no pair for {split}; "
                                 f"{'; '.join(self.accounts)}. Some 300 pairs are needed, or files for "
                                 "--valid and --test")
        return splits

    def met(self, words_of: Callable[[str], list[str]]) -> dict[str, Any]:
        """What the training sources have in common: their words, how often a capital begins, a mark ends."""
        sources = [pair.source for pair in self.splits["train"]]
        count = max(1, len(sources))
        words = {word.strip().casefold() for source in sources for word in words_of(source)}
        return {"words": " ".join(sorted(words)), "ends": ENDS,
                "capital": sum(source[:1].isupper() for source in sources) / count,
                "mark": sum(source[-1:] in ENDS for source in sources) / count}

    def fresh(self, count: int) -> list[Pair]:
        """New sentences of the grammar, all of whose combinations are for training."""
        known, random = {pair.source for pair in self.splits["train"]}, Random(f"fresh {self.seed}")
        found: dict[str, Pair] = {}
        while len(found) < count:
            pair = draw_pair(random)
            if split_of(pair) == "train" and pair.source not in known:
                found[pair.source] = pair
        return [*found.values()]

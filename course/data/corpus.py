"""The sentence pairs of a training run, from the grammar or from the user's files, and their pieces."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

from course.data.pairs import two_columns
from course.data.splits import HELD_OUT, fingerprint, gone_or_changed, split_files
from grammar.sentences import Pair, corpus, draw_pair, words_of

LONGEST = 100  # most words of a sentence in a file
ENDS = ".?!…。？！"  # marks that end a sentence
RARE = 3  # a rare word occurs at most this often
LARGE = 2_000_000  # bytes from which on reading the files takes seconds
MOST_CHARACTERS = 500  # that become pieces, or half of --vocab if that is more
FILES = {"pairs": "train", "valid": "validation", "test": "test"}  # option → its split


class Corpus:
    """The pairs of each split, and their pieces; nothing is read, drawn or learned until it is needed.

    `training` names the files, as in FILES (without files, the grammar's sentences), and has columns,
    reverse, max_pairs, seed and vocab. A lesson sets what learns the pieces, what splits a text into words,
    and how many pieces its model takes. `encoding` and `met` are given if they come from a checkpoint.
    """

    pieces: Any  # learn(texts, merges, most characters) returns an encoding of texts as ids
    words_of: Callable[[str], list[str]]
    longest: int

    def __init__(self, training: Any, encoding: Any = None, met: dict[str, Any] | None = None):
        self.training, self.columns = training, two_columns(training.columns)
        self.paths = {name: getattr(training, name) for name in FILES}
        self.files = {FILES[name] + (f" {number}" if number > 1 else ""): path
                      for name, paths in self.paths.items() for number, path in enumerate(files_in(paths), 1)}
        self.accounts: list[str] = []  # what was read, and what was left out
        self.met_before: dict[str, Any] = {}  # by the model that training starts from
        self.listener: Callable[[str], None] = lambda text: None  # gets a message before slow work
        if encoding is not None:
            self.encoding = encoding
        if met is not None:
            self.met = met

    def say(self, text: str) -> None:
        """Tell the listener what is going on, if the files are large."""
        if sum(Path(path).stat().st_size for path in self.files.values()) > LARGE:
            self.listener(text)

    @cached_property
    def hashes(self) -> dict[str, str]:
        """Hashes of the files' contents, which identify a run; their paths and names don't count."""
        return {split: fingerprint(path) for split, path in self.files.items()}

    def gone_or_changed(self, hashes: dict[str, str]) -> list[str]:
        """The files that aren't there any more, or whose contents have other hashes now."""
        return gone_or_changed(self.files, hashes)

    @property
    def labels(self) -> dict[str, str]:
        """Option → the name of its file and the beginning of its hash."""
        named = {name: [(path, self.hashes[split]) for split, path in self.files.items()
                        if split.startswith(FILES[name])] for name in FILES}
        return {name: f"{Path(found[0][0]).stem}.{found[0][1][:8]}" if len(found) == 1 else
                f"{len(found)}_files.{sha256(''.join(hash for _, hash in found).encode()).hexdigest()[:8]}"
                for name, found in named.items() if found}

    @property
    def tests(self) -> dict[str, list[Pair]]:
        """Name → the pairs of a test: the only test, or one for each file that --test names."""
        files = files_in(self.paths["test"])
        names = short_names(files) if len(files) > 1 else ["the test"]
        return dict(zip(names, (pairs for split, pairs in self.splits.items() if split.startswith("test"))))

    @property
    def about(self) -> dict[str, Any]:
        """What a checkpoint stores about the texts; entries that are empty are left out."""
        told = {"encoding": self.encoding.state(), "files": self.hashes, "met": self.met}
        return {name: value for name, value in told.items() if value}

    @cached_property
    def found(self) -> dict[str, list[Pair]]:
        """All pairs that the grammar or the files have for train, validation and test."""
        if not self.files:
            sizes = {"train": self.training.max_pairs or 60_000, "validation": 300, "test": HELD_OUT}
            drawn = corpus(sizes, self.training.seed)
            return reversed_pairs(drawn) if self.training.reverse else drawn
        self.say(f"Reading {', '.join(self.files.values())} …")
        found, self.accounts = split_files(self.files, LONGEST, self.columns, self.training.max_pairs,
                                           self.training.reverse)
        return {split: [Pair(*pair, (), frozenset(), frozenset()) for pair in pairs]
                for split, pairs in found.items()}

    @cached_property
    def splits(self) -> dict[str, list[Pair]]:
        """The pairs found, without those from files that are too long. ValueError if a split is empty."""
        splits, found = {}, self.found
        self.say(f"Cutting {sum(map(len, found.values())):,} pairs into pieces …")
        for split, pairs in found.items():
            splits[split] = [pair for pair in pairs if not self.files or all(map(self.fits, pair[:2]))]
            if left_out := len(pairs) - len(splits[split]):
                self.accounts.append(f"{split}: left out {left_out:,} with more pieces than the model takes")
            if not splits[split]:
                raise ValueError(f"{', '.join(self.files.values())} leaves no pair for {split}; "
                                 f"{'; '.join(self.accounts)}. About 300 pairs are needed, or files for "
                                 "--valid and --test")
        return splits

    def fits(self, text: str) -> bool:
        """Whether the model has enough positions for a text and the mark of its beginning or end."""
        return len(self.encoding.encode(text)) < self.longest

    @cached_property
    def encoding(self) -> Any:
        """Learned from the training pairs, both languages together: one vocabulary, one embedding."""
        texts = [text for pair in self.found["train"] for text in pair[:2]]
        vocab = self.training.vocab
        self.say(f"Learning {vocab:,} merges from {len(texts) // 2:,} pairs …")
        characters, most = len(set().union(*texts)), max(MOST_CHARACTERS, vocab // 2)
        if characters > most:
            self.accounts.append(f"{characters:,} different characters: the {most:,} most frequent are "
                                 "pieces, others are spelled in bytes")
        return self.pieces.learn(texts, vocab, most)

    def encode(self, pairs: Iterable[Pair]) -> tuple[list[list[int]], list[list[int]]]:
        """The ids of the sources and of the targets."""
        encode, pairs = self.encoding.encode, list(pairs)
        return [encode(pair.source) for pair in pairs], [encode(pair.target) for pair in pairs]

    def encoded(self, split: str) -> tuple[list[list[int]], list[list[int]]]:
        return self.encode(self.splits[split])

    @cached_property
    def met(self) -> dict[str, Any]:
        """Statistics of the training sources: their words, and which are rare; the pieces that none has;
        how often they begin with a capital and end with a mark. Those of an earlier run count as well.
        """
        sources, before = [pair.source for pair in self.splits["train"]], self.met_before
        counts = Counter(word.strip().casefold() for source in sources for word in self.words_of(source))
        known, rare = ({*before.get(name, "").split()} for name in ("words", "rare"))
        ids = {*range(len(self.encoding))}
        without = ids - {id for source in sources for id in self.encoding.encode(source)}
        scarce = {word for word, often in counts.items() if often <= RARE} - (known - rare)
        return {"words": " ".join(sorted({*counts} | known)),
                "rare": " ".join(sorted(scarce | rare - {*counts})),
                "untrained": sorted(without & {*before["untrained"]} if "untrained" in before else without),
                "ends": ENDS, "capital": share(source[:1].isupper() for source in sources),
                "mark": share(source[-1:] in ENDS for source in sources)}

    def fresh_like(self, pairs: Iterable[Pair]) -> list[Pair]:
        """For each pair, a new sentence of the grammar of the same length, with as many combinations, all of
        which occur in training; fewer sentences if the training set is too small to have them.
        """
        trained, random = self.splits["train"], Random(f"fresh {self.training.seed}")
        known = {pair.source for pair in trained}
        met = {name for pair in trained for name in pair.combinations}
        missing = Counter(map(likeness, pairs))
        found: list[Pair] = []
        for _ in range(200 * missing.total()):
            pair = draw_pair(random)
            if missing[likeness(pair)] and pair.combinations <= met and pair.source not in known:
                missing[likeness(pair)] -= 1
                known.add(pair.source)
                found.append(pair)
            if not missing.total():
                break
        return found


def files_in(paths: str) -> list[str]:
    """The files that an option names: one, or several separated by commas."""
    if not paths or Path(paths).exists():
        return [paths] if paths else []
    return [path.strip() for path in paths.split(",") if path.strip()] or [paths]


def short_names(files: Sequence[str]) -> list[str]:
    """The names of files without extension; if some are the same, with extension and parent folders."""
    names, depth = [Path(file).stem for file in files], 0
    while len({*names}) < len({*files}) and depth < max(len(Path(file).parts) for file in files):
        depth += 1
        names = ["/".join(Path(file).parts[-depth:]) for file in files]
    return names


def reversed_pairs(splits: dict[str, list[Pair]]) -> dict[str, list[Pair]]:
    """The grammar's pairs from French to English. “Son chat” is both his cat and her cat: only the first pair
    of each source is kept, so a source stays in one split.
    """
    seen: set[str] = set()
    found: dict[str, list[Pair]] = {}
    for split in ("test", "validation", "train"):
        found[split] = []
        for pair in splits[split]:
            if pair.target not in seen:
                seen.add(pair.target)
                found[split].append(pair._replace(
                    source=pair.target, target=pair.source,
                    alignment=tuple(sorted((there, here) for here, there in pair.alignment))))
    return {split: found[split] for split in splits}


def share(found: Iterable[bool]) -> float:
    """The fraction that is true; 0 if there are none."""
    found = list(found)
    return sum(found) / max(1, len(found))


def likeness(pair: Pair) -> tuple[int, int]:
    """The number of words of the source, and the number of combinations of the pair."""
    return len(words_of(pair.source)), len(pair.combinations)

"""Counts by grammar rule: when each is learned, and which test words never occur in training."""

from collections import Counter
from collections.abc import Mapping, Sequence

from grammar.sentences import PHENOMENA, Pair, words_of


def over_time(history: Sequence[Mapping[str, float]], pairs: Sequence[Pair], enough: int
              ) -> dict[str, list[float]]:
    """“rule (sentences)” → the fraction right at each validation, for rules that `enough` of these pairs
    need; the rules with the largest mean first.
    """
    asked = Counter(name for pair in pairs for name in pair.phenomena)
    shares = {name: [record[f"right: {name}"] for record in history] for name in PHENOMENA
              if asked[name] >= enough}
    return {f"{name} ({asked[name]})": shares[name]
            for name in sorted(shares, key=lambda name: -sum(shares[name]))}


def never_trained(test: Sequence[Pair], train: Sequence[Pair]) -> tuple[list[str], int]:
    """(the words of the test that no training pair has, in either language; how many words the test has)."""
    known = {word for pair in train for text in pair[:2] for word in words_of(text.lower())}
    asked = [word for pair in test for text in pair[:2] for word in words_of(text.lower())]
    return [word for word in asked if word not in known], len(asked)

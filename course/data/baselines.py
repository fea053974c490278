"""Baselines for a language model: counts, and a compressor that was given the same text."""

import lzma
import math
from collections import Counter, defaultdict
from typing import Generic, TypeVar

BYTES = 256  # a character that was never met counts as one of this many
LONG = 2_000_000  # from this many characters on, counts would take too much time and memory


Text = TypeVar("Text", str, tuple[str, ...])  # characters, or words


class Counts(Generic[Text]):
    """P(the next character | the order − 1 before it) from counts of `text`, mixed over all shorter contexts.

    The mixture is that of Witten and Bell (1991): a context is trusted more if it was met more often, and
    less if more different characters followed it.
    """

    def __init__(self, text: Text, order: int):
        self.order = order
        self.after: list[defaultdict[Text, Counter]] = [defaultdict(Counter) for _ in range(order)]
        for place, character in enumerate(text):
            for length in range(min(order, place + 1)):
                self.after[length][text[place - length : place]][character] += 1
        self.totals: list[dict[Text, int]] = [
            {context: followers.total() for context, followers in table.items()} for table in self.after]

    def probability(self, context: Text, character: str) -> float:
        """P(character | the last characters of context)."""
        found = 1 / BYTES
        for length in range(min(self.order, len(context) + 1)):
            before = context[len(context) - length :]
            followers = self.after[length].get(before)
            if followers is None:
                break
            total, kinds = self.totals[length][before], len(followers)
            found = (followers[character] + kinds * found) / (total + kinds)
        return found

    def bits(self, text: Text, before: Text) -> float:
        """Bits per character of `text`, which follows `before`."""
        whole = before[len(before) - self.order + 1 :] + text
        first = len(whole) - len(text)
        chances = [self.probability(whole[max(0, place - self.order + 1) : place], whole[place])
                   for place in range(first, len(whole))]
        return -sum(map(math.log2, chances)) / len(text)


def bits_of_lzma(known: str, text: str) -> float:
    """Bits per character of `text` that appending it adds to the compressed `known`."""
    before, both = (len(lzma.compress(part.encode(), preset=9 | lzma.PRESET_EXTREME))
                    for part in (known, known + text))
    return 8 * (both - before) / len(text)


def yardsticks(known: str, text: str) -> dict[str, float]:
    """Bits per character of `text`, after `known`, for each baseline; no counts if `known` is long."""
    orders = (1, 3, 5) if len(known) < LONG else ()
    bits = {f"counts of {order} character" + "s" * (order > 1): Counts(known, order).bits(text, known)
            for order in orders}
    return {**bits, "lzma, given the same text": bits_of_lzma(known, text)}

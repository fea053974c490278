"""What must hold for lesson 11's quantised cache and its packed rows."""

import torch
from torch import Tensor, nn

from common import lesson
from course.console.records import Finding
from course.grading.checking import (
    Mistake,
    Part,
    agree,
    largest_difference,
    random_tensors,
    refused,
    together,
)

MultiHeadAttention = lesson("02_multi_head_attention").MultiHeadAttention
KeyValueCache = lesson("06_decoding").KeyValueCache


# ------------------------------------------------------------------ QuantisedCache(attention, bits=8)


class Telling(nn.Module):
    """An “attention” that gives back the keys and the values that it is handed."""

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        return torch.stack([keys, values])


def vectors(length: int = 5, seed: int = 0) -> list[Tensor]:
    """Keys and values (2, 3, L, 16), each vector of another size."""
    sizes, keys, values = random_tensors((2, 3, length, 1), (2, 3, length, 16), (2, 3, length, 16), seed=seed)
    return [keys * sizes.exp(), values * sizes.exp() * 10]


def read(cache, *more: Tensor) -> Tensor:
    """(2, B, H, S, K): what the attention gets after these keys and values were added."""
    keys, values = more or (torch.zeros(2, 3, 0, 16).double(),) * 2
    return cache.attend(torch.zeros(2, 3, 1, 16).double(), keys, values, None)


def rounds_each_vector(cache_of, ours):
    """Each number is kept to within half a step, where a vector's largest number is 127 steps."""
    given = torch.stack(vectors())
    found = read(cache_of(Telling()), *vectors())
    if found.shape != given.shape:
        return agree(found, given)
    step = given.abs().amax(-1, keepdim=True) / 127
    worst = ((found - given).abs() / step).max().item()
    return agree(found / step, given / step, 0.56, f"off by {worst:.2f} steps")._replace(gap=None)


def counts_its_bytes(cache_of, ours):
    """A vector of 16 numbers takes 16 bytes and 2 for its scale, and bytes() counts both."""
    cache = cache_of(Telling())
    read(cache, *vectors())
    return agree(torch.tensor(cache.bytes()), torch.tensor(2 * 2 * 3 * 5 * (16 + 2)), 0)._replace(
        figure=f"{cache.bytes():,} bytes", gap=None)


def later_vectors_change_nothing(cache_of, ours):
    """Vectors that come later, however large, leave the earlier ones as they are, bit for bit."""
    cache = cache_of(Telling())
    before = read(cache, *vectors())
    after = read(cache, *(100 * x[:, :, :1] for x in vectors(seed=1)))
    if after.shape[3] != 6:
        return Finding(False, f"{after.shape[3]} keys, expected 6", "add the new vectors to those kept")
    return agree(after[:, :, :, :5], before, 0)


def keeps_zeros(cache_of, ours):
    """A vector of zeros is kept as zeros."""
    zeros = torch.zeros(2, 3, 1, 16).double()
    return agree(read(cache_of(Telling()), zeros, zeros), torch.zeros(2, 2, 3, 1, 16), 0)


def follows_its_rows(cache_of, ours):
    """After reorder(rows) it has the keys and values of these rows."""
    cache, rows = cache_of(Telling()), torch.tensor([1, 1, 0])
    before = read(cache, *vectors())
    cache.reorder(rows)
    nothing = torch.zeros(3, 3, 0, 16).double()
    return agree(cache.attend(torch.zeros(3, 3, 1, 16).double(), nothing, nothing, None), before[:, rows], 0)


def serves_heads(cache_of, ours):
    """Lesson 2's heads give nearly the same output with this cache as with an exact one."""
    torch.manual_seed(0)
    attention, outputs = MultiHeadAttention(32, 2).double().eval(), []
    (x,) = random_tensors((2, 9, 32))
    for kind in (KeyValueCache, cache_of):
        cache = kind(attention)
        attention.attend = cache.attend
        outputs.append(torch.cat([attention(token, token, token) for token in x.split(1, 1)], 1))
        del attention.attend
    return agree(outputs[1], outputs[0], 0.02)._replace(gap=None)


def knows_fewer_bits(cache_of, ours):
    """With 4 bits a vector has at most 15 different numbers, and its largest is kept."""
    keys, values = random_tensors((2, 3, 1, 16), (2, 3, 1, 16))
    found = read(cache_of(Telling(), bits=4), keys, values)
    most = max(len(vector.unique()) for vector in found.flatten(0, 3))
    largest = agree(found.abs().amax(-1), torch.stack([keys, values]).abs().amax(-1), 0.01)
    coarse = largest_difference(found, torch.stack([keys, values])) > 0.05
    return largest if not largest.holds else Finding(most <= 15 and coarse, f"{most} numbers",
                                                     "2^(bits − 1) − 1 steps on each side of 0")


def refuses_other_bits(cache_of, ours):
    """Fewer than 2 and more than 8 bits are refused with a ValueError that names the number."""
    return together(refused(lambda: cache_of(Telling(), bits=1), 1),
                    refused(lambda: cache_of(Telling(), bits=9), 9))


def cache_mistakes(ours):
    class OneScale(ours.QuantisedCache):
        def quantised(self, x):
            whole, scale = super().quantised(x.flatten(2))
            shape = (*x.shape[:3], 1)
            return whole.view(x.shape), scale[..., None].expand(shape)

    class CutOff(ours.QuantisedCache):
        def quantised(self, x):
            _, scale = super().quantised(x)
            whole = (x / scale.to(x.dtype).clamp(min=1e-8)).trunc().clamp(-self.top, self.top)
            return whole.to(torch.int8), scale

    class DividedByZero(ours.QuantisedCache):
        def quantised(self, x):
            scale = x.abs().amax(-1, keepdim=True) / self.top
            return (x / scale).round(), scale

    class ScalesStay(ours.QuantisedCache):
        def reorder(self, rows):
            before = self.parts
            super().reorder(rows)
            stay = torch.arange(len(rows)) % len(before[1])
            self.parts = [self.parts[0], before[1][stay], self.parts[2], before[3][stay]]

    return {
        "one scale for all": Mistake("each vector needs its own scale: the largest number along K",
                                     OneScale, "Each number is kept"),
        "cut off": Mistake("round to the nearest integer; cutting off moves every number towards 0", CutOff,
                           "Each number is kept"),
        "divided by 0": Mistake("the scale of a vector of zeros is 0: don't divide by it", DividedByZero,
                                "A vector of zeros"),
        "scales stay": Mistake("reorder the scales with their vectors", ScalesStay, "After reorder"),
    }


def more_cache_mistakes(ours):
    class Plain(ours.KeyValueCache):
        def __init__(self, attention, bits=8):
            super().__init__(attention)

    class AlwaysEight(ours.QuantisedCache):
        def __init__(self, attention, bits=8):
            super().__init__(attention)

    return {"not quantised": Mistake("keep integers of 8 bits and the scales, not the numbers", Plain,
                                     "A vector of 16 numbers"),
            "always 8 bits": Mistake("the largest integer is 2^(bits − 1) − 1", AlwaysEight, "With 4 bits")}


quantised_cache_checks = Part(
    [rounds_each_vector, counts_its_bytes, later_vectors_change_nothing, keeps_zeros, follows_its_rows,
     serves_heads, knows_fewer_bits, refuses_other_bits],
    cache_mistakes,
    "Lesson 6's KeyValueCache is the pattern: QuantisedCache(attention).attend(queries, keys, values, mask) "
    "adds keys and values (B, H, S, K), then calls type(attention).attend(attention, queries, keys, values, "
    "mask) with all keys and values kept; it also has reorder(rows) and bytes().",
    helpers=("quantised",), more=more_cache_mistakes)


# ------------------------------------------------------------------ pack(sequences, width)


SEQUENCES = [[5, 6, 7], [8, 9], [4] * 6, [3, 3, 3, 3], [7, 8], [9]]  # 18 tokens: at best 3 rows of 6


def packed(pack, sequences=SEQUENCES, width=6) -> list[Tensor]:
    return [*pack(sequences, width)]


def unpacked(tokens: Tensor, ids: Tensor) -> list[list[int]]:
    """The sequences, sorted: the tokens of each id of each row."""
    return sorted(row[own == number].tolist()
                  for row, own in zip(tokens, ids) for number in own.unique() if number)


def filled(sequences: list[list[int]]) -> Tensor:
    """(N, 18): the sequences followed by zeros."""
    return torch.tensor([sequence + [0] * (18 - len(sequence)) for sequence in sequences])


def holds_each_sequence_once(pack, ours):
    """Every sequence is in one row, whole and only once; ids count from 1, and 0 is padding."""
    tokens, ids, _ = packed(pack)
    numbered = [own[own > 0].unique().tolist() == [*range(1, own.max() + 1)] for own in ids]
    finding = agree(filled(unpacked(tokens, ids)), filled(sorted(SEQUENCES)), 0,
                    "the ids of a row count its sequences from 1")
    return finding if all(numbered) else finding._replace(holds=False)


def rows_have_the_width(pack, ours):
    """Each row has exactly `width` tokens, PAD = 0 where no sequence is left."""
    tokens, ids, positions = packed(pack, width=8)
    sizes = agree(torch.tensor([len(x[0]) for x in (tokens, ids, positions)]), torch.tensor([8, 8, 8]), 0)
    return together(sizes, agree(tokens[ids == 0].sum(), torch.tensor(0), 0))


def positions_begin_again(pack, ours):
    """The positions of each sequence count from 0."""
    _, ids, positions = packed(pack)
    wanted = torch.zeros_like(ids)
    for row, own in enumerate(ids.tolist()):
        for place in range(1, len(own)):
            goes_on = own[place] and own[place] == own[place - 1]
            wanted[row, place] = wanted[row, place - 1] + 1 if goes_on else 0
    return agree(positions * (ids > 0), wanted * (ids > 0), 0, axes="row, token")


def fills_rows(pack, ours):
    """18 tokens go into 3 rows of 6: the longest sequences first, each into the first row with room."""
    return agree(torch.tensor(len(packed(pack)[0])), torch.tensor(3), 0)._replace(gap=None)


def takes_few_sequences(pack, ours):
    """One sequence gives one row; no sequences give no rows."""
    one, none = packed(pack, [[5, 6]], 3), packed(pack, [], 3)
    return together(agree(one[0], torch.tensor([[5, 6, 0]]), 0),
                    agree(torch.tensor(none[0].shape), torch.tensor([0, 3]), 0))


def refuses_short_rows(pack, ours):
    """A row shorter than the longest sequence is refused with a ValueError that names both lengths."""
    return refused(lambda: pack(SEQUENCES, 5), 5, 6)


def pack_mistakes(ours):
    def with_rows(change):
        def pack(sequences, width):
            right = ours.pack(sequences, width)
            return change(right, sequences, width)

        return pack

    def going_on(right, sequences, width):
        return right._replace(positions=torch.arange(width).expand_as(right.tokens))

    def one_id(right, sequences, width):
        return right._replace(ids=(right.ids > 0).long())

    def row_each(right, sequences, width):
        rows = [ours.pack([sequence], width) for sequence in sequences]
        return ours.Packed(*(torch.cat(part) for part in zip(*rows))) if rows else right

    def from_zero(right, sequences, width):
        return right._replace(ids=(right.ids - 1).clamp(min=0))

    return {
        "positions go on": Mistake("positions begin at 0 again with each sequence", with_rows(going_on),
                                   "The positions of each"),
        "one id for a row": Mistake("each sequence of a row needs its own id, otherwise they see each other",
                                    with_rows(one_id), "Every sequence is in one row"),
        "one sequence per row": Mistake("put a sequence into the first row that still has room",
                                        with_rows(row_each), "18 tokens go into"),
        "ids from 0": Mistake("0 is padding: ids begin at 1", with_rows(from_zero), "Every sequence is in"),
    }


def more_pack_mistakes(ours):
    def as_they_come(sequences, width):
        """Next fit: only the last row is looked at."""
        if max(map(len, sequences), default=0) > width:
            return ours.pack(sequences, width)
        rows, free = [], 0
        for sequence in sequences:
            if not rows or len(sequence) > free:
                rows, free = [*rows, []], width
            rows[-1].append(sequence)
            free -= len(sequence)
        if not rows:
            return ours.pack(sequences, width)
        kinds = [torch.zeros(len(rows), width, dtype=torch.long) for _ in range(3)]
        for row, some in enumerate(rows):
            flat = [(token, number, place) for number, sequence in enumerate(some, 1)
                    for place, token in enumerate(sequence)]
            for kind, values in zip(kinds, zip(*flat)):
                kind[row, : len(values)] = torch.tensor(values)
        return ours.Packed(*kinds)

    return {"as they come": Mistake("sort by length first, and look at every row for room", as_they_come,
                                    "18 tokens go into")}


pack_checks = Part(
    [holds_each_sequence_once, rows_have_the_width, positions_begin_again, fills_rows, takes_few_sequences,
     refuses_short_rows],
    pack_mistakes,
    "pack(sequences, width) takes lists of ids and gives three tensors (R, width): tokens, ids, positions. "
    "Example: pack([[5, 6], [7]], 3) gives [[5, 6, 7]], [[1, 1, 2]] and [[0, 1, 0]].",
    more=more_pack_mistakes)

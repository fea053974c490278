"""Lesson 3. How does it know the order?

Attention sees a set: shuffle the words and every answer stays the same. So each token's vector gets a
vector for its position added, a pattern of waves from fast to slow:

    x_p = √d_model · embedding(token_p) + PE(p)
    PE(p, 2i)     = sin(p / 10000^(2i / d_model))
    PE(p, 2i + 1) = cos(p / 10000^(2i / d_model))

(Sections 3.4 and 3.5.) Or queries and keys are rotated by their position (rotary), so that only the offset
counts. Lessons 1 and 2 built the attention used here; lesson 4 puts a block around it.
"""

import math
import sys
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from checks.positions import (
    embedding_checks,
    learned_checks,
    rotary_checks,
    sinusoidal_checks,
    tokenizer_checks,
)
from common import (
    Picture,
    check,
    check_mistakes,
    check_part,
    lesson,
    lesson_parser,
    narrate,
    numbers,
    shape,
    shows,
    table,
)
from course.checking import largest_difference, random_tensors
from figures.positions import draw_distance, draw_longer, draw_wavelengths, draw_waves

attention_weights = lesson("01_attention_mechanism").attention_weights
causal_mask = lesson("01_attention_mechanism").causal_mask
MultiHeadAttention = lesson("02_multi_head_attention").MultiHeadAttention

__all__ = [
    "BOS",
    "EOS",
    "PAD",
    "LearnedPositionalEncoding",
    "RotaryAttention",
    "RotaryPositionalEncoding",
    "SinusoidalPositionalEncoding",
    "TokenEmbedding",
    "Tokenizer",
]

PAD, BOS, EOS = SPECIALS = 0, 1, 2  # filling, begin and end of a sequence; symbols follow from 3 on
SENTENCE = "the cat sat on the mat"


# ------------------------------------------------------------------ the parts


class Tokenizer:
    """Text to ids and back. The tokens are the words (or characters) of the texts it is built on.

    Ids 0, 1 and 2 are PAD, BOS and EOS; the tokens follow from 3 on, in the order of their first
    appearance. Words are what stands between single spaces, so decode(encode(text)) == text.
    """

    def __init__(self, texts: Iterable[str], level: str = "word"):
        if level not in ("word", "character"):
            raise ValueError(f"level is {level!r}; it must be 'word' or 'character'")
        self.separator = " " if level == "word" else ""
        tokens = dict.fromkeys(token for text in texts for token in self.split(text))
        self.id_of = {token: id for id, token in enumerate(tokens, start=len(SPECIALS))}
        self.token_of = dict(zip(SPECIALS, ("PAD", "BOS", "EOS"), strict=True))
        self.token_of |= {id: token for token, id in self.id_of.items()}

    def __len__(self) -> int:
        """V, the number of ids, with the special ones."""
        return len(self.token_of)

    def split(self, text: str) -> list[str]:
        return text.split(self.separator) if self.separator else list(text)

    def encode(self, text: str) -> list[int]:
        """The ids of a text; ValueError for a token that the tokenizer was not built on."""
        unknown = [token for token in self.split(text) if token not in self.id_of]
        if unknown:
            known = ", ".join(list(self.id_of)[:20])
            raise ValueError(f"unknown token {unknown[0]!r}; this tokenizer knows: {known}")
        return [self.id_of[token] for token in self.split(text)]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of some ids; special ids are left out."""
        return self.separator.join(self.token_of[id] for id in ids if id not in SPECIALS)


class TokenEmbedding(nn.Module):
    """One learned vector a token, times √d_model, and the tied output projection (section 3.4)."""

    def __init__(self, vocab_size: int, d_model: int):
        super().__init__()
        self.weight = nn.Parameter(
            torch.randn(vocab_size, d_model) * d_model**-0.5
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens (…, L) → (…, L, D)."""
        scale = math.sqrt(self.weight.shape[1])
        return scale * F.embedding(tokens, self.weight)

    def logits(self, x: Tensor) -> Tensor:
        """x (…, D) → (…, V): how well x matches each token's vector."""
        return x @ self.weight.T


def check_positions(start: int, length: int, max_len: int) -> None:
    """ValueError if positions start … start + length − 1 aren't all among 0 … max_len − 1."""
    if start < 0:
        raise ValueError(f"position {start} is before the beginning, 0")
    if start + length > max_len:
        last = start + length - 1
        raise ValueError(f"position {last} is past max_len, {max_len}")


def angles(max_len: int, width: int) -> Tensor:
    """(max_len, width / 2): position p times frequency 10000^(−2i / width); ValueError if odd."""
    if width % 2:
        raise ValueError(
            f"width {width} is odd; every frequency needs a sine and a cosine"
        )
    frequencies = 10000.0 ** (
        -torch.arange(0, width, 2, dtype=torch.float64) / width
    )
    return torch.arange(max_len, dtype=torch.float64)[:, None] * frequencies


def sinusoids(max_len: int, d_model: int) -> Tensor:
    """PE (max_len, D) in float64: sin(p·f), cos(p·f) side by side for each frequency f."""
    angle = angles(max_len, d_model)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)


class SinusoidalPositionalEncoding(nn.Module):
    """Adds sin and cos of the position at d_model / 2 frequencies, in pairs (section 3.5).

    Nothing is learned. ValueError for an odd d_model, and for positions past max_len.
    """

    def __init__(self, d_model: int, max_len: int = 512):
        super().__init__()
        self.register_buffer("table", sinusoids(max_len, d_model).float(), persistent=False)

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        """x (B, L, D) at positions start, start + 1, … → x + PE."""
        check_positions(start, x.shape[1], len(self.table))
        return x + self.table[start : start + x.shape[1]]


class LearnedPositionalEncoding(nn.Module):
    """Adds one learned vector a position (section 3.5 found it no better than the waves).

    Initialised as large as the waves, std √½. ValueError for positions past max_len.
    """

    def __init__(self, d_model: int, max_len: int = 512):
        super().__init__()
        self.table = nn.Parameter(torch.randn(max_len, d_model) * math.sqrt(0.5))

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        """x (B, L, D) at positions start, start + 1, … → x + PE."""
        check_positions(start, x.shape[1], len(self.table))
        return x + self.table[start : start + x.shape[1]]


class RotaryPositionalEncoding(nn.Module):
    """Rotates each pair of numbers of a query or key by position · frequency (Su et al. 2021, 3.2).

    d_k is one head's width. ValueError for an odd d_k, and for positions past max_len.
    """

    def __init__(self, d_k: int, max_len: int = 512):
        super().__init__()
        angle = angles(max_len, d_k)  # (max_len, K / 2)
        turns = torch.stack([angle.cos(), angle.sin()])
        self.register_buffer("turns", turns.float(), persistent=False)

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        """x (B, H, L, K) at positions start, start + 1, … → x, rotated."""
        length = x.shape[-2]
        check_positions(start, length, self.turns.shape[1])
        cos, sin = self.turns[:, start : start + length]  # (L, K / 2)
        even, odd = x[..., 0::2], x[..., 1::2]
        turned = even * cos - odd * sin, even * sin + odd * cos
        return torch.stack(turned, dim=-1).flatten(-2)


class RotaryAttention(MultiHeadAttention):
    """A sequence's attention to itself in which queries and keys are rotated by their position.

    `rotary` is the rotation, for heads of width d_model / n_heads. Fewer queries than keys are the last of
    the sequence.
    """

    def __init__(self, d_model: int, n_heads: int, dropout: float, rotary: RotaryPositionalEncoding):
        super().__init__(d_model, n_heads, dropout)
        self.rotary = rotary

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        return super().attend(*self.rotated(queries, keys), values, mask)

    def weights(self, query: Tensor, key: Tensor, mask: Tensor | None = None) -> Tensor:
        """query (B, T, D), key (B, S, D) → (B, H, T, S): how much each query looks at each key."""
        queries, keys = self.split(self.project_query(query)), self.split(self.project_key(key))
        return attention_weights(*self.rotated(queries, keys), mask)

    def rotated(self, queries: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        start = keys.shape[2] - queries.shape[2]
        return self.rotary(queries, start), self.rotary(keys)


GRADED = {
    "Tokenizer": tokenizer_checks,
    "TokenEmbedding": embedding_checks,
    "SinusoidalPositionalEncoding": sinusoidal_checks,
    "LearnedPositionalEncoding": learned_checks,
    "RotaryPositionalEncoding": rotary_checks,
}
OURS = sys.modules[__name__]  # of whose parts the checks make the classic mistakes


# ------------------------------------------------------------------ the steps


@shows(TokenEmbedding)
def step_text_to_vectors():
    """From text to vectors

    A tokenizer cuts the text and numbers the pieces. A number alone says nothing (word 6 is not twice word
    3), so each becomes a vector: as one-hot, V numbers, √2 apart from every other word; or as embedding,
    D learned numbers, where words can be near or far (ours are still random). Multiplying a one-hot
    vector with a matrix picks a row, so the embedding is a lookup, and never stores the zeros.
    """
    tokenizer = Tokenizer([SENTENCE])
    ids = torch.tensor([tokenizer.encode(SENTENCE)])  # (1, L)
    one_hot = F.one_hot(ids, len(tokenizer)).float()  # (1, L, V)
    embedding = TokenEmbedding(len(tokenizer), 16)
    vectors = embedding(ids)  # (1, L, D)
    x = SinusoidalPositionalEncoding(16)(vectors)  # (1, L, D)
    looked_up = one_hot @ embedding.weight * math.sqrt(16)
    check("lookup = one-hot · W · √d_model", torch.equal(looked_up, vectors))
    alike, unlike = (torch.pdist(x.double()) for x in (torch.eye(len(tokenizer)), embedding.weight))
    check("one-hot: all words equally far apart, embedding: not",
          alike.std() < 1e-12 and unlike.std() > 0.01,
          f"{alike.min():.2f}; {unlike.min():.2f} to {unlike.max():.2f}")
    check_part(Tokenizer, tokenizer_checks, OURS)
    check_part(TokenEmbedding, embedding_checks, OURS)
    return table("stage", "shape", "the first word", rows=[
        ("tokens", "6", SENTENCE.split()[0]),
        ("ids", shape(ids), ids[0, 0].item()),
        ("one-hot", shape(one_hot), "".join(f"{n:.0f} " for n in one_hot[0, 0])),
        ("embedding · √d_model", shape(vectors), numbers(vectors[0, 0, :5]) + " …"),
        ("+ position", shape(x), numbers(x[0, 0, :5]) + " …"),
    ])


def step_no_order():
    """Without positions there is no order

    Shuffle the words, and self-attention gives every word the very output it had before: “dog bites man”
    is “man bites dog”. A causal decoder is different. Its mask lets a word see those before it, so the
    number of visible words tells it something about its place. One layer sees which words came before, but
    not in which order; a second sees the first one's outputs, which differ from place to place.
    """
    (x,) = random_tensors((1, 6, 16))
    attention = MultiHeadAttention(16, 4).double()
    shuffled = torch.randperm(6)
    before = attention(x, x, x)[:, shuffled]
    after = attention(*[x[:, shuffled]] * 3)
    gap = largest_difference(before, after)
    check(
        "shuffled in, shuffled out",
        gap < 1e-12,
        f"largest difference {gap:.0e}",
    )
    mask = causal_mask(6)
    before = attention(x, x, x, mask)[:, shuffled]
    after = attention(*[x[:, shuffled]] * 3, mask)
    check(
        "with a causal mask the order matters",
        largest_difference(before, after) > 1e-3,
    )
    swapped = x[:, [1, 0, 2, 3, 4, 5]]
    last, same = (attention(v, v, v, mask)[:, -1] for v in (x, swapped))
    check(
        "… but not the order of the words before",
        largest_difference(last, same) < 1e-12,
    )
    first, second = (attention(v, v, v, mask) for v in (x, swapped))
    last, other = (
        attention(v, v, v, mask)[:, -1] for v in (first, second)
    )
    gap = largest_difference(last, other)
    check("… unless a second layer follows", gap > 1e-4, f"difference {gap:.0e}")


@shows(angles, sinusoids)
def step_the_formula():
    """The formula: clocks at many speeds

    Position p could be one number, but 500 would drown every other. It could be binary digits: the last
    flips at every step, the one before at every second, … The waves are a smooth version of that. Pair i
    turns with frequency 10000^(−2i/d_model), like the hands of a clock: sine and cosine together say where
    the hand stands. Fast hands repeat and slow ones hardly move; together, no two positions look alike.
    `start` in the checks is the position of the first token, for when a text is written on.
    """
    table_of_waves = sinusoids(512, 64)
    frequencies = angles(2, 64)[1]
    wavelengths = 2 * math.pi / frequencies
    apart = torch.pdist(table_of_waves).min().item()
    shortest = wavelengths[0].item()
    check("the first wavelength is 2π", abs(shortest - 2 * math.pi) < 1e-9)
    limit = 10000 * 2 * math.pi
    wider = [2 * math.pi / angles(2, width)[1, -1].item() / limit for width in (64, 256, 1024)]
    check("the last nears 10000 · 2π as d_model grows: 64, 256, 1024",
          wider == sorted(wider) and 0.97 < wider[-1] < 1, numbers(wider))
    check("all 512 positions differ", apart > 0.5, f"closest pair {apart:.2f} apart")
    check_part(SinusoidalPositionalEncoding, sinusoidal_checks, OURS)
    return [
        Picture("positional_encoding_heatmap.png", draw_waves(table_of_waves[:50]),
                "Each position has its own pattern: fast waves on the left, slow on the right"),
        Picture("positional_encoding_wavelengths.png", draw_wavelengths(wavelengths, table_of_waves[:100]),
                "From pair to pair the waves get longer, from 2π towards 10000 · 2π positions"),
    ]


def rotation(offset: int, d_model: int) -> Tensor:
    """R_k (D, D): one 2 × 2 block a frequency, which turns (sin, cos) on by offset · frequency."""
    blocks = []
    for angle in angles(offset + 1, d_model)[offset]:
        cos, sin = angle.cos(), angle.sin()
        blocks.append(
            torch.stack([torch.stack([cos, sin]), torch.stack([-sin, cos])])
        )
    return torch.block_diag(*blocks)


@shows(rotation)
def step_relative_position():
    """k words further is a rotation

    sin(a + b) and cos(a + b) are mixtures of sin a and cos a, and the mixture depends on b alone. So
    PE(p + k) = R_k · PE(p), with one matrix for all p: a linear layer can learn “k words back”. It also
    follows that PE(p) · PE(p + k) depends on k alone: largest at k = 0, and the same to both sides.
    """
    waves = sinusoids(200, 64)
    for k in (1, 7, 100):
        gap = largest_difference(waves[:100] @ rotation(k, 64).T, waves[k : k + 100])
        check(f"PE(p + {k}) = R_{k} · PE(p) for p = 0 … 99", gap < 1e-12, f"{gap:.0e}")
    products = waves @ waves.T
    along = max(products.diagonal(k).std().item() for k in range(100))
    check("PE(p) · PE(p + k) depends on k alone", along < 1e-12, f"{along:.0e}")
    around = products[100]  # k = −100 … 99
    check("… largest at k = 0", around.argmax() == 100)
    check("… the same to both sides", largest_difference(around[1:100], around[101:].flip(0)) < 1e-12)
    return Picture("positional_encoding_distance.png", draw_distance(around),
                   "PE(p) · PE(p + k) peaks at k = 0 and is the same to both sides")


INITIALISATIONS = {
    "PyTorch, N(0, 1)": lambda v, d: torch.randn(v, d),
    "Xavier": lambda v, d: nn.init.xavier_uniform_(torch.empty(v, d)),
    "ours, N(0, 1/D)": lambda v, d: TokenEmbedding(v, d).weight.detach(),
}


def read_off(weight: Tensor, scale: float, what: str, steps: int = 100) -> float:
    """How often a linear layer, after a few steps, reads the token or the position off their sum."""
    vocab_size, d_model = weight.shape
    waves = sinusoids(16, d_model).float()
    readout = nn.Linear(d_model, vocab_size if what == "token" else 16)
    optimizer = torch.optim.Adam(readout.parameters(), lr=3e-3, fused=True)

    def answers(batch: int) -> tuple[Tensor, Tensor]:
        tokens = torch.randint(vocab_size, (batch, 16))
        logits = readout(scale * F.embedding(tokens, weight) + waves)
        return logits, tokens if what == "token" else torch.arange(16).expand(batch, 16)

    for _ in range(steps):
        logits, wanted = answers(32)
        loss = F.cross_entropy(logits.transpose(1, 2), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    logits, wanted = answers(500)
    return (logits.argmax(-1) == wanted).float().mean().item()


def step_how_big():
    """How big? Why × √d_model

    The embedding's matrix is used twice. At the end of the model its rows are multiplied with x, and the
    products (logits) say how well each token fits. There, numbers of size 1 are far too large: logits with
    a spread of √d_model, and a first loss far above ln V, the loss of guessing. Rows of length 1 (std
    d_model^−0.5) start near ln V; but going in, they are much smaller than the waves. The factor √d_model
    brings both to one size, so that both count in the first products of queries and keys.

    Measured for V = 200, d_model = 64: the size of the token's vector over that of the position's; how
    often a linear layer, trained for 100 steps on these fixed vectors, reads token or position off their
    sum; the first loss. What is far smaller is learned late: the token without the factor, the position
    beside PyTorch's default times the factor.
    """
    waves = sinusoids(16, 64).pow(2).mean().sqrt().item()
    rows, facts = [], {}
    for name, make in INITIALISATIONS.items():
        weight = make(200, 64)
        logits = F.layer_norm(torch.randn(500, 64), (64,)) @ weight.T
        loss = F.cross_entropy(logits, torch.randint(200, (500,))).item()
        for factor, scale in (("1", 1.0), ("√D", 8.0)):
            ratio = scale * weight.pow(2).mean().sqrt().item() / waves
            token, position = (read_off(weight, scale, what) for what in ("token", "position"))
            rows.append((name, factor, ratio, f"{token:.0%}", f"{position:.0%}", loss))
            facts[name, factor] = ratio, token, position, loss
    default, _, ours = INITIALISATIONS
    plain, scaled = facts[ours, "1"], facts[ours, "√D"]
    check("ours: only × √D are token and position within a factor 2",
          plain[0] < 0.5 < scaled[0] < 2, f"{plain[0]:.2f} and {scaled[0]:.2f}")
    small = [fact for fact in facts.values() if fact[0] < 0.5]
    large = [fact for fact in facts.values() if fact[0] > 0.5]
    check("tokens far smaller than the waves are read less often than all others",
          max(fact[1] for fact in small) < 0.9 < min(fact[1] for fact in large))
    check("… and beside them the position is read more often",
          min(fact[2] for fact in small) > max(fact[2] for fact in large))
    check("the default × √D drowns the position", facts[default, "√D"][2] < 0.5 * scaled[2])
    check("the default starts far above ln V, ours within 1 of it",
          facts[default, "1"][3] > 2 * math.log(200) and abs(plain[3] - math.log(200)) < 1,
          f"ln V = {math.log(200):.2f}")
    header = "initialisation", "×", "token / position", "token read", "position read", "loss"
    return table(*header, rows=rows)


@shows(LearnedPositionalEncoding.forward, check_positions)
def step_learned_positions():
    """Learned positions, and where they end

    Instead of waves, one trained vector a position, as in BERT and GPT-2. The paper found both nearly equal.
    A table has an end, though: position 512 of a table of 512 doesn't exist, and an error that says so
    is better than a wrong vector. Ours says the same for the waves' table.
    """
    check_part(LearnedPositionalEncoding, learned_checks, OURS)
    lines = []
    for kind in (LearnedPositionalEncoding, SinusoidalPositionalEncoding):
        try:
            kind(16, max_len=512)(torch.zeros(1, 600, 16))
        except ValueError as error:
            lines.append(f"{kind.__name__}: {error}")
    return "\n".join(lines)


@shows(RotaryPositionalEncoding.forward)
def step_rotary():
    """Rotary positions: only the offset counts

    Adding a position mixes it with the token before anyone asks. Rotary encoding leaves the tokens alone
    and turns queries and keys instead: pair i by p times its frequency. Turning both by the same angle
    changes no product, so the score of query p and key s depends on p − s alone. It is the rotation of
    step 4 (turning the other way), inside the attention. LLaMA and Gemma use it.
    """
    query, key = torch.randn(2, 1, 1, 1, 16)
    rotary, added = RotaryPositionalEncoding(16), SinusoidalPositionalEncoding(16)
    rows = []
    for p, s in (5, 3), (105, 103), (405, 403), (5, 1), (105, 101):
        turned = (rotary(query, p) * rotary(key, s)).sum().item()
        summed = (added(query[0], p) * added(key[0], s)).sum().item()
        rows.append((p, s, p - s, turned, summed))
    gap = max(abs(row[3] - rows[0][3]) for row in rows[:3])
    check("rotary: offset 2 gives one score everywhere", gap < 1e-4, f"{gap:.0e}")
    check("added: it does not", abs(rows[0][4] - rows[1][4]) > 0.01)
    check_part(RotaryPositionalEncoding, rotary_checks, OURS)
    return table("query at", "key at", "offset", "rotary score", "added: score", rows=rows)


class OneLayer(nn.Module):
    """Embedding, positions of some kind, one causal attention with a residual path, logits."""

    def __init__(self, scheme: str, vocab_size: int = 13, d_model: int = 64, n_heads: int = 4):
        super().__init__()
        added = {"sinusoidal": SinusoidalPositionalEncoding, "learned": LearnedPositionalEncoding}
        self.embedding = TokenEmbedding(vocab_size, d_model)
        self.positions = added[scheme](d_model) if scheme in added else nn.Identity()
        if scheme == "rotary":
            rotary = RotaryPositionalEncoding(d_model // n_heads)
            self.attention = RotaryAttention(d_model, n_heads, 0.0, rotary)
        else:
            self.attention = MultiHeadAttention(d_model, n_heads)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.positions(self.embedding(tokens))
        x = x + self.attention(x, x, x, causal_mask(tokens.shape[1]))
        return self.embedding.logits(x)


TRAINED_LENGTH = 16
SCHEMES = ("none", "sinusoidal", "learned", "rotary")


def two_back(batch: int, length: int) -> tuple[Tensor, Tensor]:
    """Random tokens, and for each the token two places before it."""
    tokens = torch.randint(3, 13, (batch, length))
    return tokens, tokens.roll(2, 1)


def train_two_back(scheme: str, steps: int = 500) -> list[float]:
    """Train on lengths 4 to 16; the accuracy at each of 64 positions on sequences of length 64."""
    model = OneLayer(scheme)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3, fused=True)
    for _ in range(steps):
        tokens, wanted = two_back(64, int(torch.randint(4, TRAINED_LENGTH + 1, ())))
        loss = F.cross_entropy(model(tokens)[:, 2:].flatten(0, 1), wanted[:, 2:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        tokens, wanted = two_back(500, 64)
        return (model(tokens).argmax(-1) == wanted).float().mean(0).tolist()


@shows(OneLayer.forward)
def step_longer_than_seen():
    """Longer than seen

    One attention layer learns to name the token two places back, on lengths up to 16. Then it reads 64.
    How often it is right, for positions it was trained on and for those beyond. Random guessing gives 10 %.

    Learned vectors past 16 were never trained. Waves exist there, but the layer has not met these sums.
    Rotary scores know only offsets, and hold out longest; but offsets past 15 were never trained either.
    The fastest pair turns once every 6.3 places, so offsets 21 and 40 look to it like 2: where they first
    occur, the curve drops. What the field does: train on longer texts; penalise distance (ALiBi, Press et
    al. 2022); slow the rotation down (position interpolation, Chen et al. 2023).
    """
    curves = {scheme: train_two_back(scheme) for scheme in SCHEMES}
    end = TRAINED_LENGTH
    parts = [(2, end), (end, end + 8), (end + 8, end + 16), (end + 16, 64)]
    rows = [(scheme, *(f"{sum(c[a:b]) / (b - a):.0%}" for a, b in parts))
            for scheme, c in curves.items()]
    seen = {scheme: sum(c[2:end]) / (end - 2) for scheme, c in curves.items()}
    check("without positions it fails even where it was trained", seen["none"] < 0.6)
    check("with any of the three it solves the trained lengths",
          min(seen[scheme] for scheme in SCHEMES[1:]) > 0.95)
    beyond = {scheme: sum(c[end:]) for scheme, c in curves.items()}
    check("beyond them rotary is best", max(beyond, key=beyond.get) == "rotary")
    figure = Picture("positional_encoding_longer.png", draw_longer(curves, TRAINED_LENGTH),
                     "Past the trained lengths all get worse; on the whole rotary stays best")
    return table("positions", *(f"{a + 1} to {b}" for a, b in parts), rows=rows), figure


def step_compared():
    """Absolute and relative, side by side

    What was measured in this lesson, and what follows from the construction:
    """
    sizes = {name: sum(p.numel() for p in kind(64).parameters()) for name, kind in (
        ("sinusoidal", SinusoidalPositionalEncoding),
        ("learned", LearnedPositionalEncoding),
        ("rotary", RotaryPositionalEncoding),
    )}
    check("only the learned encoding has parameters: 512 · 64 here",
          list(sizes.values()) == [0, 512 * 64, 0])
    return table("", "acts on", "score depends on", "parameters", "used in", rows=[
        ("sinusoidal", "the input, once", "both positions", sizes["sinusoidal"], "Transformer"),
        ("learned", "the input, once", "both positions", sizes["learned"], "BERT, GPT-2"),
        ("rotary", "Q, K of self-attention", "the offset", sizes["rotary"], "LLaMA, Gemma"),
    ])


BROKEN = {name: mistake.implementation for name, mistake in sinusoidal_checks.mistakes(OURS).items()}


@shows(BROKEN["cosine's own exponent"], BROKEN["start ignored"])
def step_broken_on_purpose():
    """Broken on purpose

    A cosine with its own exponent still draws pretty waves, but sine and cosine no longer turn together:
    the vectors change their length from place to place, and no rotation does that. A decoder that forgets
    where it is gives every new token position 0. In training, where all positions come at once, nothing
    is wrong; token by token, everything is.
    """
    for name, kind in (("right", SinusoidalPositionalEncoding), ("broken", BROKEN["cosine's own exponent"])):
        lengths = kind(64, 200).table.norm(dim=1)
        spread = (lengths.max() - lengths.min()).item()
        check(f"{name}: the vectors of 200 positions are {'equally' if name == 'right' else 'not equally'} "
              "long", (spread < 1e-4) == (name == "right"), f"spread {spread:.1e}")
    x = torch.randn(1, 6, 16)
    rows = []
    for name, kind in (("right", SinusoidalPositionalEncoding), ("start ignored", BROKEN["start ignored"])):
        encoding = kind(16)
        whole = largest_difference(encoding(x), SinusoidalPositionalEncoding(16)(x))
        single = torch.cat([encoding(x[:, [p]], start=p) for p in range(6)], dim=1)
        rows.append((name, whole, largest_difference(single, SinusoidalPositionalEncoding(16)(x))))
    check("start ignored: right at once, wrong token by token", rows[1][1] == 0 and rows[1][2] > 1)
    errors = table("error of the positions", "all at once", "token by token", rows=rows)
    parts = sinusoidal_checks, rotary_checks, embedding_checks
    return errors, check_mistakes(OURS, *parts)


def step_what_next():
    """What now?

    Read: sinusoids and RotaryPositionalEncoding.forward, side by side: the same angles, once added, once
    turned.

    Change: (1) the base 10000.0 in angles to 1.0: all hands turn alike, and step 3 finds positions that
    nearly coincide (✗). (2) TRAINED_LENGTH to 32: rotary positions then hold nearly to the end, learned
    ones again only as far as they were trained. (3) In OneLayer drop the causal mask: step 8 gets harder
    (✗), for rotary positions most.

    Write it yourself: --template my_positions.py, then --grade my_positions.py.
    Next: python 04_transformer_block.py.
    """


def main():
    steps = [
        step_text_to_vectors,
        step_no_order,
        step_the_formula,
        step_relative_position,
        step_how_big,
        step_learned_positions,
        step_rotary,
        step_longer_than_seen,
        step_compared,
        step_broken_on_purpose,
        step_what_next,
    ]
    narrate(lesson_parser(__doc__, GRADED).parse_args(), __doc__, steps)


if __name__ == "__main__":
    main()

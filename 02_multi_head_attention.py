"""Lesson 2. Why several small looks instead of one?

One softmax gives one weighted mean. Several heads look at once, each through its own small queries,
keys and values, and a last projection mixes what they brought:

    head_h = Attention(Q·W_h^Q, K·W_h^K, V·W_h^V)
    MultiHead(Q, K, V) = Concat(head_1, …, head_H)·W^O          section 3.2.2

The paper's projections have no bias; ours have one, as in PyTorch. Lesson 1 built the attention inside;
lesson 3 tells it about order.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from itertools import permutations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common import (
    Finding,
    Picture,
    Proof,
    agree,
    canvas,
    check,
    check_all,
    check_caught,
    gradients,
    gradients_agree,
    heatmap,
    largest_difference,
    lesson,
    lesson_parser,
    narrate,
    numbers,
    parameters,
    prove,
    random_tensors,
    refused,
    shows,
    table,
)

scaled_dot_product_attention = lesson("01_attention_mechanism").scaled_dot_product_attention
causal_mask = lesson("01_attention_mechanism").causal_mask
padding_mask = lesson("01_attention_mechanism").padding_mask

__all__ = ["MultiHeadAttention", "copy_attention", "record_attention"]

SENTENCE = ["the", "cat", "sat", "on", "the", "mat"]


# ------------------------------------------------------------------ the components


class MultiHeadAttention(nn.Module):
    """H attentions side by side (section 3.2.2), each of width d_k = d_model / n_heads.

    Four linear maps: project_query, project_key, project_value, project_output. `dropout` is the share
    of attention weights set to 0 in training. `rotary` turns queries and keys by their position
    (lesson 3). Raises ValueError if d_model does not split into n_heads.
    """

    def __init__(
        self, d_model: int, n_heads: int, dropout: float = 0.0, rotary: nn.Module | None = None
    ):
        super().__init__()
        if n_heads < 1 or d_model % n_heads:
            raise ValueError(f"d_model {d_model} does not split into {n_heads} heads")
        self.n_heads = n_heads
        self.dropout = dropout
        self.rotary = rotary
        self.project_query = nn.Linear(d_model, d_model)
        self.project_key = nn.Linear(d_model, d_model)
        self.project_value = nn.Linear(d_model, d_model)
        self.project_output = nn.Linear(d_model, d_model)
        for projection in self.children():
            if isinstance(projection, nn.Linear):  # small, so that training starts near x + 0
                nn.init.xavier_uniform_(projection.weight, gain=0.5)
                nn.init.zeros_(projection.bias)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None = None,
        cache=None,
    ) -> tuple[Tensor, Tensor]:
        """query (B, T, D), key and value (B, S, D) → output (B, T, D), weights (B, H, T, S).

        mask is boolean, broadcastable to (B, H, T, S), True = may attend. `cache` holds the keys and
        values of earlier calls (lesson 6).
        """
        start = 0 if cache is None else cache.length
        queries = self.split(self.project_query(query))  # (B, H, T, K)
        queries = self.rotate(queries, start)
        if cache is not None and cache.complete:
            keys, values = cache.keys, cache.values
        else:
            keys = self.split(self.project_key(key))  # (B, H, S, K)
            keys = self.rotate(keys, start)
            values = self.split(self.project_value(value))
            if cache is not None:
                keys, values = cache.append(keys, values)
        heads, weights = self.attend(queries, keys, values, mask)
        return self.project_output(self.merge(heads)), weights

    def split(self, x: Tensor) -> Tensor:
        """(B, L, D) → (B, H, L, K): cut every token into H parts, then bring the heads forward."""
        batch, length, d_model = x.shape
        d_k = d_model // self.n_heads
        return x.view(batch, length, self.n_heads, d_k).transpose(1, 2)

    def merge(self, x: Tensor) -> Tensor:
        """(B, H, L, K) → (B, L, D): the reverse of split."""
        return x.transpose(1, 2).flatten(2)

    def rotate(self, x: Tensor, start: int) -> Tensor:
        """x, turned by position from `start` on if this attention is rotary."""
        return x if self.rotary is None else self.rotary(x, start)

    def attend(self, queries, keys, values, mask) -> tuple[Tensor, Tensor]:
        """Lesson 1's attention, in all heads at once; dropout only while training."""
        dropout = self.dropout if self.training else 0.0
        return scaled_dot_product_attention(queries, keys, values, mask, dropout)


@contextmanager
def record_attention(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Inside `with`, collect the weights of every attention in `model`: module name → (B, H, T, S).

    A module called several times leaves the weights of its last call.
    """
    recorded: dict[str, Tensor] = {}

    def keep(name: str) -> Callable:
        def hook(module, inputs, result):
            recorded[name] = result[1].detach()

        return hook

    hooks = []
    for name, module in model.named_modules():
        if isinstance(module, MultiHeadAttention):
            hooks.append(module.register_forward_hook(keep(name)))
    try:
        yield recorded
    finally:
        for hook in hooks:
            hook.remove()


# ------------------------------------------------------------------ broken on purpose


class WithoutTranspose(MultiHeadAttention):
    """Broken on purpose: `view` straight to (B, H, L, K)."""

    def split(self, x: Tensor) -> Tensor:
        batch, length, d_model = x.shape
        return x.view(batch, self.n_heads, length, d_model // self.n_heads)


class MergedWithoutTranspose(MultiHeadAttention):
    """Broken on purpose: the heads are flattened without being moved back behind the tokens."""

    def merge(self, x: Tensor) -> Tensor:
        batch, heads, length, d_k = x.shape
        return x.reshape(batch, length, heads * d_k)


class ScaledByModelWidth(MultiHeadAttention):
    """Broken on purpose: the scores are divided by √d_model instead of √d_k."""

    def attend(self, queries, keys, values, mask):
        return super().attend(queries / math.sqrt(self.n_heads), keys, values, mask)


class WithoutScaling(MultiHeadAttention):
    """Broken on purpose: the scores are not divided at all."""

    def attend(self, queries, keys, values, mask):
        return super().attend(queries * math.sqrt(queries.shape[-1]), keys, values, mask)


class WithoutOutputProjection(MultiHeadAttention):
    """Broken on purpose: the heads are only joined."""

    def forward(self, query, key, value, mask=None):
        projected = self.project_query(query), self.project_key(key), self.project_value(value)
        heads, weights = self.attend(*map(self.split, projected), mask)
        return self.merge(heads), weights


class WithReversedMask(MultiHeadAttention):
    """Broken on purpose: True hides a key."""

    def attend(self, queries, keys, values, mask):
        return super().attend(queries, keys, values, None if mask is None else ~mask)


MISTAKES = {
    "view() alone mixes tokens: view to (B, L, H, K), then transpose(1, 2)": WithoutTranspose,
    "merged without transpose: transpose(1, 2) back before joining": MergedWithoutTranspose,
    "divided by √d_model: one head's width is d_k = d_model / n_heads": ScaledByModelWidth,
    "not divided by √d_k: the scores grow with it": WithoutScaling,
    "the output projection is missing": WithoutOutputProjection,
    "the mask is reversed: True means may attend": WithReversedMask,
}


# ------------------------------------------------------------------ the steps


ITEMS, CONTENT, WIDTH = 6, 8, 32


def fetching_task(batch: int) -> tuple[Tensor, Tensor, Tensor]:
    """A query that names two of six items, the items, and the answer: the contents of both.

    query (B, 1, 32) holds two one-hot positions, items (B, 6, 32) a random content of 8 numbers and
    a one-hot position, the answer is (B, 16).
    """
    content = torch.randn(batch, ITEMS, CONTENT)
    places = torch.eye(ITEMS).expand(batch, -1, -1)
    items = widen(torch.cat([content, places], dim=-1), WIDTH)
    wanted = torch.rand(batch, ITEMS).argsort(-1)[:, :2]  # two different
    query = naming(wanted)
    answer = content.gather(1, wanted[..., None].expand(-1, -1, CONTENT))
    return query, items, answer.flatten(1)


def naming(wanted: Tensor) -> Tensor:
    """wanted (B, 2), two positions → a query (B, 1, 32) that names them as one-hot vectors."""
    return widen(F.one_hot(wanted, ITEMS).flatten(1).float(), WIDTH)[:, None]


def widen(x: Tensor, width: int) -> Tensor:
    """x (…, n) with zeros behind → (…, width)."""
    return F.pad(x, (0, width - x.shape[-1]))


def train_to_fetch(n_heads: int, seed: int, steps: int = 300) -> tuple[MultiHeadAttention, float]:
    """The trained attention and its mean squared error on new items."""
    torch.manual_seed(seed)
    attention = MultiHeadAttention(WIDTH, n_heads)
    optimizer = torch.optim.Adam(attention.parameters(), lr=0.02)
    for _ in range(steps):
        query, items, answer = fetching_task(128)
        loss = F.mse_loss(attention(query, items, items)[0][:, 0, : 2 * CONTENT], answer)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    query, items, answer = fetching_task(2000)
    with torch.no_grad():
        output, _ = attention(query, items, items)
    return attention, F.mse_loss(output[:, 0, : 2 * CONTENT], answer).item()


@shows(fetching_task)
def step_one_average():
    """One softmax gives one average

    A token has to fetch two things: a query names two of six items, and the answer is the content of the
    first, then of the second. The contents are random numbers of variance 1, independent of each other. One
    head takes one mean of the items, and both contents have to be read from it. Two heads can look at one
    each. The same width, the same number of parameters, three seeds, mean squared error on new items:

    With weights that depend on the positions alone, one head can't come below 0.5: if a and b are the two
    wanted items and w the weights, the best guess of a from the mean leaves the error 1 − w_a² / Σw², that
    of b 1 − w_b² / Σw², and the two sum to at least 1. The contents are no help: they are random.
    """
    rows = []
    for seed in range(3):
        one, error_of_one = train_to_fetch(1, seed)
        two, error_of_two = train_to_fetch(2, seed)
        rows.append((seed, error_of_one, error_of_two))
        check(f"seed {seed}: one head stays near the bound, two heads pass far below",
              error_of_one > 0.48 and error_of_two < 0.05)
    figure = Picture("multi_head_one_or_two.png", draw_fetching(one, two))
    check("both have the same number of parameters", parameters(one) == parameters(two),
          f"{parameters(one):,}")
    return table("seed", "one head: error", "two heads: error", rows=rows), figure


@shows(MultiHeadAttention.split, MultiHeadAttention.merge)
def step_split():
    """Splitting: view, then transpose

    Each token's vector is cut into H parts: that is view(B, L, H, K), which only renames the places in
    memory. Attention multiplies the last two axes, so the heads must stand before the tokens:
    transpose(1, 2). Below, 3 tokens with 2 heads of width 2; “t1h0” is a number of token 1 for head 0.

    Broken on purpose: view(B, H, L, K) at once has the right shape, and gives head 0 the first half of
    all numbers: token 0 whole and half of token 1. Nothing fails; step 9 catches it.
    """
    names = [[f"t{t}h{h}" for h in (0, 0, 1, 1)] for t in range(3)]
    places = torch.arange(12).view(1, 3, 4)
    right = MultiHeadAttention(4, 2).split(places)[0]
    wrong = WithoutTranspose(4, 2).split(places)[0]
    flat = [name for row in names for name in row]
    rows = [(f"head {head}, row {row}", *(" ".join(flat[i] for i in x[head, row]) for x in (right, wrong)))
            for head in range(2) for row in range(3)]
    check("after view and transpose every head has its part of all tokens",
          all(flat[i].endswith(f"h{h}") for h in range(2) for i in right[h].flatten()))
    check("after view alone head 0 holds numbers of head 1",
          any(flat[i].endswith("h1") for i in wrong[0].flatten()))
    figure = Picture("multi_head_split.png", draw_split(places[0], right, wrong))
    return table("", "view, transpose", "view alone", rows=rows), figure


def step_one_big_projection():
    """One big projection is H small ones

    The paper gives every head matrices of its own, D × K. One D × D matrix holds them all, side by side.
    (nn.Linear stores the transpose: rows h·K to (h + 1)·K − 1 of its weight belong to head h.) One large
    product instead of H small ones, with the same result.
    """
    (x,) = random_tensors((2, 5, 12))
    big = nn.Linear(12, 12).double()
    together = MultiHeadAttention(12, 3).split(big(x))  # (B, H, L, K)
    parts = zip(big.weight.chunk(3), big.bias.chunk(3))
    for head, (weight, bias) in enumerate(parts):
        gap = largest_difference(together[:, head], x @ weight.mT + bias)
        check(f"head {head} of the big projection is its own small one",
              gap < 1e-12, f"difference {gap:.0e}")


def step_parameters_do_not_depend_on_heads():
    """More heads cost no parameters

    More heads are narrower heads. Four maps of D × D with a bias of D each: 4·(D² + D), for any H.
    """
    rows = []
    for n_heads in (1, 2, 4, 8, 16):
        counted = parameters(MultiHeadAttention(64, n_heads))
        rows.append((n_heads, 64 // n_heads, 4 * (64 * 64 + 64), counted))
    agreed = all(row[2] == row[3] for row in rows)
    check("formula and count agree for every H", agreed)
    return table("H", "d_k", "4·(D² + D)", "counted", rows=rows)


@shows()
def step_dropout():
    """Dropout on the weights

    In training, each weight is set to 0 with probability p and the others are divided by 1 − p. (The
    paper's section 5.4 drops parts of a layer's output; dropping weights came with later code.) A row then
    sums to 1 only on average, so plots are made in eval mode, where nothing drops.
    """
    attention = MultiHeadAttention(32, 4, dropout=0.2)
    x = torch.randn(1, 6, 32)
    draws = torch.cat([attention(x, x, x)[1] for _ in range(2000)]).detach()
    sums = draws.sum(-1)
    attention.eval()
    weights = attention(x, x, x)[1].detach()
    gap = largest_difference(draws.mean(0), weights[0])
    low, high = sums.min().item(), sums.max().item()
    check("in training, rows sum to less and more than 1", low < 0.9 and high > 1.1,
          f"{low:.2f} to {high:.2f}")
    check("their mean over 2,000 draws is the weight", gap < 0.02, f"off by {gap:.3f}")
    gap = largest_difference(weights.sum(-1), torch.ones(1, 4, 6))
    check("in eval mode rows sum to 1", gap < 1e-6, f"off by {gap:.0e}")


@shows(MultiHeadAttention.forward)
def step_equals_pytorch():
    """The same as nn.MultiheadAttention

    With copied weights, in float64: outputs, weights, gradients, without and with masks. These are the
    proofs that `--grade FILE` runs on a MultiHeadAttention of your own. `rotate` and `start` belong to
    lesson 3, `cache` to lesson 6: until then, read past them.
    """
    check_all(prove_multi_head_attention(MultiHeadAttention))


WORDS, RELATIONS = len(SENTENCE), ("previous word", "next word", "first word", "last word")


def relations_task(batch: int) -> tuple[Tensor, Tensor]:
    """Sentences of six random words (B, 6, 64), and for every word the four contents to fetch."""
    content = torch.randn(batch, WORDS, CONTENT)
    sentences = widen(torch.cat([content, torch.eye(WORDS).expand(batch, -1, -1)], dim=-1), 64)
    ends = content[:, :1].expand_as(content), content[:, -1:].expand_as(content)
    return sentences, torch.cat([content.roll(1, 1), content.roll(-1, 1), *ends], -1)


def train_relations(seed: int, steps: int = 500) -> tuple[MultiHeadAttention, float]:
    """Four heads trained to bring every word the four contents, and their error on new sentences."""
    torch.manual_seed(seed)
    attention = MultiHeadAttention(64, 4)
    optimizer = torch.optim.Adam(attention.parameters(), lr=0.02)
    for step in range(steps):
        sentences, wanted = relations_task(64)
        loss = F.mse_loss(attention(sentences, sentences, sentences)[0][..., : 4 * CONTENT], wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.param_groups[0]["lr"] = 0.02 * (1 - step / steps)
        optimizer.step()
    return attention, loss.item()


def relation_patterns() -> Tensor:
    """(4, T, S): the weights that fetch the previous, next, first and last word, one each."""
    own = torch.eye(WORDS)
    first, last = (own[[place]].expand(WORDS, -1) for place in (0, -1))
    return torch.stack([own.roll(-1, 1), own.roll(1, 1), first, last])


@shows()
def step_what_heads_learn():
    """What heads learn

    Four heads, and for every word four words to fetch: the previous, the next (around the end, as in a
    circle), the first and the last. Every word carries its place as a one-hot vector; lesson 3 does it
    better. Nobody tells a head what to fetch. The table says how much of each head's weight lies on each
    relation, for two trainings that differ in the seed alone. The relations overlap (the second word's
    previous is the first), so a row may sum to more than 1.
    """
    rows, drawn = [], []
    for seed in (0, 1):
        attention, error = train_relations(seed)
        sentence, _ = relations_task(1)
        weights = attention(sentence, sentence, sentence)[1][0].detach()  # (H, T, S)
        mass = (weights[:, None] * relation_patterns()).sum(-1).mean(-1)  # (H, 4)
        rows += [(seed, head, *shares) for head, shares in enumerate(mass.tolist())]
        drawn.append((seed, error, weights, mass))
        check(f"seed {seed}: solved", error < 1e-3, f"squared error {error:.0e}")
    first, second = (mass for _, _, _, mass in drawn)
    gap = min(largest_difference(first, second[list(order)]) for order in permutations(range(4)))
    check("the heads of the two share the work differently, in whatever order", gap > 0.1, f"{gap:.2f}")
    figure = Picture("multi_head_attention.png", draw_heads(drawn))
    return table("seed", "head", *RELATIONS, rows=rows), figure


def step_where_not_why():
    """Where it looked, not why

    Attention weights say where a head looked. They do not say why the answer came out. Take a trained
    layer of step 7 and a sentence in which words 0 and 4 are the very same vector. Moving any amount of
    weight from one to the other changes the picture and nothing else.
    """
    attention, _ = train_relations(seed=0)
    sentence, _ = relations_task(1)
    sentence[:, 4] = sentence[:, 0]
    values = attention.split(attention.project_value(sentence))
    output, weights = attention(sentence, sentence, sentence)
    moved = weights.clone()
    moved[..., 0], moved[..., 4] = 0.0, weights[..., 0] + weights[..., 4]
    same = attention.project_output(attention.merge(moved @ values))
    apart, gap = (
        largest_difference(weights, moved),
        largest_difference(output, same),
    )
    check("two patterns that differ", apart > 0.4, f"by up to {apart:.2f}")
    check("… give the same output", gap < 1e-5, f"largest difference {gap:.0e}")


@shows()
def step_broken_on_purpose():
    """Broken on purpose

    Six mistakes that raise no error and return the right shapes. Each gets the weights of one and the same
    nn.MultiheadAttention; the table shows the first numbers of its output under a causal mask. The
    statement that it fails is what to test first in your own.
    """
    (x,) = random_tensors((1, 4, 12))
    theirs = nn.MultiheadAttention(12, 3, batch_first=True).double()
    rows = []
    for text, kind in {"right": MultiHeadAttention, **MISTAKES}.items():
        output, _ = copy_attention(kind(12, 3).double(), theirs)(x, x, x, causal_mask(4))
        rows.append((text.partition(":")[0], numbers(output[0, 3, :4].tolist())))
    for kind in MISTAKES.values():
        statement = "… and with a causal" if kind is WithReversedMask else "With the same weights"
        check_caught(kind.__name__, prove_multi_head_attention(kind), statement)
    return table("mistake", "output of the last token", rows=rows)


def step_what_next():
    """What now?

    Read: MultiHeadAttention from top to bottom; `rotary` belongs to lesson 3 and `cache` to lesson 6.

    Change: (1) CONTENT to 12: two heads of 16 still fetch both contents in step 1. (2) In step_one_average
    train_to_fetch(1, seed, 3000) for one head: ten times the steps, and it stays near 0.5. (3) In forward,
    return self.merge(heads) without the last projection: ✗, and the proofs say what is missing.

    Write it yourself: --template my_heads.py, then --grade my_heads.py.
    Next: python 03_positional_encoding.py.
    """


# ------------------------------------------------------------------ the proofs


def copy_attention(ours: nn.Module, theirs: nn.MultiheadAttention) -> nn.Module:
    """`ours` with the weights of `theirs`."""
    weights, biases = theirs.in_proj_weight.chunk(3), theirs.in_proj_bias.chunk(3)
    projections = ours.project_query, ours.project_key, ours.project_value
    with torch.no_grad():
        for projection, weight, bias in zip(projections, weights, biases, strict=True):
            projection.weight.copy_(weight)
            projection.bias.copy_(bias)
    ours.project_output.load_state_dict(theirs.out_proj.state_dict())
    return ours


def prove_multi_head_attention(implementation) -> list[Proof]:
    """What holds for every MultiHeadAttention(d_model, n_heads) with the four projections' names."""
    query, memory = random_tensors((2, 5, 12), (2, 7, 12))
    tokens = torch.tensor([[3, 4, 5, 6, 7, 8, 9], [3, 4, 5, 6, 0, 0, 0]])
    padding = padding_mask(tokens)
    causal = causal_mask(5)
    both = causal & padding[..., :5]
    torch.manual_seed(0)
    theirs = nn.MultiheadAttention(12, 3, batch_first=True).double()
    nn.init.normal_(theirs.in_proj_bias)
    nn.init.normal_(theirs.out_proj.bias)

    def build(kind):
        return copy_attention(kind(12, 3).double(), theirs)

    def run_theirs(key, mask, theirs=theirs):
        """PyTorch's output and weights. Its masks mean the reverse, and it wants (B·H, T, S)."""
        if mask is not None:
            mask = ~mask.expand(2, 3, 5, key.shape[1]).flatten(0, 1)
        return theirs(query, key, key, attn_mask=mask, average_attn_weights=False)

    def compare(key, mask, part=0):
        """Output (part 0) or weights (part 1) against PyTorch's, known mistakes diagnosed."""
        expected = run_theirs(key, mask)[part]
        wrong = {text: build(kind)(query, key, key, mask)[part] for text, kind in MISTAKES.items()}
        return agree(build(implementation)(query, key, key, mask)[part], expected, 1e-10, wrong)

    def self_attention():
        """With the same weights it equals nn.MultiheadAttention in self-attention."""
        return compare(query, None)

    def cross_attention():
        """… and in cross-attention, with a padding mask."""
        return compare(memory, padding)

    def causal_attention():
        """… and with a causal and a padding mask together."""
        return compare(query, both)

    def weights():
        """The weights of every head equal PyTorch's, (B, H, T, S)."""
        return compare(query, both, part=1)

    def all_gradients():
        """The gradients of every parameter equal PyTorch's."""
        ours, reference = build(implementation), deepcopy(theirs)
        ours(query, query, query, both)[0].sin().sum().backward()
        run_theirs(query, both, reference)[0].sin().sum().backward()
        return gradients_agree(ours, reference, copy_attention)

    def input_gradient():
        """The gradient of the input equals PyTorch's."""
        ours, x = build(implementation), query.clone().requires_grad_()
        found = gradients(ours(x, x, x, both)[0].sin().sum(), [x])
        mask = ~both.expand(2, 3, 5, 5).flatten(0, 1)
        return agree(found, gradients(theirs(x, x, x, attn_mask=mask)[0].sin().sum(), [x]))

    def drops_weights_in_training():
        """dropout=0.5 sets about half of the weights to 0 in training, and none in eval mode."""
        attention, (x,) = implementation(12, 3, dropout=0.5), random_tensors((4, 9, 12))
        attention = attention.double()
        shares = [(attention.train(mode)(x, x, x)[1] == 0).double().mean().item() for mode in (True, False)]
        return Finding(0.4 < shares[0] < 0.6 and shares[1] == 0, f"{shares[0]:.0%} and {shares[1]:.0%}",
                       "pass `dropout` on to lesson 1's attention only while self.training")

    def refuses_uneven_heads():
        """A d_model that does not split into the heads is refused with a ValueError."""
        return refused(lambda: implementation(30, 4), 30, 4)

    return prove(
        self_attention,
        cross_attention,
        causal_attention,
        weights,
        all_gradients,
        input_gradient,
        drops_weights_in_training,
        refuses_uneven_heads,
    )


GRADED = {"MultiHeadAttention": prove_multi_head_attention}


# ------------------------------------------------------------------ the figures


def draw_fetching(one: MultiHeadAttention, two: MultiHeadAttention):
    """The weights of both layers, for queries that want items 0 and 1, 1 and 2, … 5 and 0."""
    first = torch.arange(ITEMS)
    query = naming(torch.stack([first, (first + 1) % ITEMS], dim=1))
    items = fetching_task(ITEMS)[1]
    panels = [one(query, items, items)[1][:, 0, 0]]
    panels += two(query, items, items)[1][:, :, 0].unbind(1)
    names = [f"{i} and {(i + 1) % ITEMS}" for i in range(ITEMS)]
    titles = "One head: torn between both", "Two heads, the first", "Two heads, the second"
    figure, axes = canvas(columns=3, width=11, height=4)
    for panel, weights, title in zip(axes, panels, titles):
        heatmap(panel, weights, names, range(ITEMS), title, numbers=True)
        panel.set_xlabel("item looked at")
    axes[0].set_ylabel("items wanted")
    return figure


def draw_split(tokens: Tensor, right: Tensor, wrong: Tensor):
    """Every number as a cell in the colour of its token, labelled with token and head."""
    import seaborn

    figure, axes = canvas(columns=3, width=10, height=3.2)
    layouts = tokens, right.flatten(0, 1), wrong.flatten(0, 1)
    titles = "x: one row a token", "view, transpose: each head sees all", "view alone: tokens mixed"
    for panel, places, title in zip(axes, layouts, titles, strict=True):
        token, head = places // 4, places % 4 // 2
        text = [[f"t{t}h{h}" for t, h in zip(*row)] for row in zip(token.tolist(), head.tolist())]
        seaborn.heatmap(token, annot=text, fmt="", cmap=seaborn.color_palette("colorblind", 3),
                        cbar=False, ax=panel, linewidths=1, xticklabels=False)
        labels = [f"head {row // 3}" for row in range(6)] if len(places) == 6 else range(3)
        panel.set_yticks([row + 0.5 for row in range(len(places))], labels, rotation=0)
        panel.set_title(title)
    axes[0].set_ylabel("token")
    return figure


def draw_heads(drawn):
    figure, axes = canvas(rows=2, columns=4, width=12, height=6.8)
    for line, (seed, _, weights, mass) in zip(axes, drawn, strict=True):
        for head, panel in enumerate(line):
            share, relation = mass[head].max(0)
            title = f"seed {seed}, head {head}: {share:.0%} {RELATIONS[relation]}"
            heatmap(panel, weights[head], SENTENCE, SENTENCE, title)
    figure.suptitle("Two trainings solve the same task, and share the work between the heads differently")
    return figure


def main():
    steps = [
        step_one_average,
        step_split,
        step_one_big_projection,
        step_parameters_do_not_depend_on_heads,
        step_dropout,
        step_equals_pytorch,
        step_what_heads_learn,
        step_where_not_why,
        step_broken_on_purpose,
        step_what_next,
    ]
    narrate(lesson_parser(__doc__, GRADED).parse_args(), __doc__, steps)


if __name__ == "__main__":
    main()

"""Lesson 2. Why several small attentions instead of one?

One softmax gives one weighted mean. Several small attentions work at the same time, each with its own
queries, keys and values, and a last projection mixes their results:

    head_h = Attention(Q·W_h^Q, K·W_h^K, V·W_h^V)
    MultiHead(Q, K, V) = Concat(head_1, …, head_H)·W^O          section 3.2.2

Each of these attentions is called a head. A projection is a linear map, x·W + b; the paper's projections have
no bias b, but ours do, as in PyTorch. D (d_model) is the width of a token's vector, H the number of heads,
and K (d_k) = D / H the width of one head.

You need lesson 1, which built the attention function. You will build MultiHeadAttention. The lesson runs in
seconds and takes about half an hour to read.
"""

import course.console.startup  # noqa: F401 (before torch: it reports what fails in the imports below)
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from checks.heads import copy_attention, heads_checks
from common import (
    Picture,
    check,
    check_mistakes,
    check_part,
    lesson,
    lesson_parser,
    narrate,
    numbers,
    parameters,
    shows,
    table,
)
from course.grading.checking import largest_difference, random_tensors
from course.training.side_by_side import side_by_side
from course.training.small import minimise
from figures.heads import draw_fetching, draw_flow, draw_heads, draw_split

attention_weights, fused_attention, causal_mask = lesson(
    "01_attention_mechanism", "attention_weights", "fused_attention", "causal_mask")

__all__ = ["MultiHeadAttention", "record_attention"]


# ------------------------------------------------------------------ the parts


class MultiHeadAttention(nn.Module):
    """H attentions side by side (section 3.2.2), each of width d_k = d_model / n_heads.

    Four linear maps: project_query, project_key, project_value, project_output. `dropout` is the
    fraction of attention weights set to 0 in training. Raises ValueError, with both numbers, if d_model
    does not split into n_heads.
    """

    scaled_dot_product_attention = staticmethod(fused_attention)  # a slot: --by-hand swaps the function

    def __init__(self, d_model: int, n_heads: int, dropout: float = 0.0):
        super().__init__()
        if n_heads < 1 or d_model % n_heads:
            raise ValueError(f"d_model {d_model} does not split into {n_heads} heads")
        self.n_heads = n_heads
        self.d_k = d_model // n_heads
        self.dropout = dropout
        self.project_query = nn.Linear(d_model, d_model)
        self.project_key = nn.Linear(d_model, d_model)
        self.project_value = nn.Linear(d_model, d_model)
        self.project_output = nn.Linear(d_model, d_model)
        for projection in self.children():  # small: lesson 4's x + … starts near x
            nn.init.xavier_uniform_(projection.weight, gain=0.5)
            nn.init.zeros_(projection.bias)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        """query (B, T, D), key and value (B, S, D) → output (B, T, D).

        mask is boolean, broadcastable to (B, H, T, S), True = may attend.
        """
        queries = self.split(self.project_query(query))  # (B, H, T, K)
        keys = self.split(self.project_key(key))  # (B, H, S, K)
        values = self.split(self.project_value(value))
        heads = self.attend(queries, keys, values, mask)  # (B, H, T, K)
        return self.project_output(self.merge(heads))

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """Lesson 1's attention in every head: queries (B, H, T, K), the others (B, H, S, K)."""
        dropout = self.dropout if self.training else 0.0
        return self.scaled_dot_product_attention(queries, keys, values, mask, dropout)

    def weights(self, query: Tensor, key: Tensor, mask: Tensor | None = None) -> Tensor:
        """query (B, T, D), key (B, S, D) → (B, H, T, S): how much each query looks at each key."""
        queries, keys = self.split(self.project_query(query)), self.split(self.project_key(key))
        return attention_weights(queries, keys, mask)

    def split(self, x: Tensor) -> Tensor:
        """(B, L, D) → (B, H, L, K): cut every token into parts of d_k, then bring the heads forward."""
        batch, length, width = x.shape
        return x.view(batch, length, width // self.d_k, self.d_k).transpose(1, 2)

    def merge(self, x: Tensor) -> Tensor:
        """(B, H, L, K) → (B, L, D): the reverse of split."""
        return x.transpose(1, 2).flatten(2)


@contextmanager
def record_attention(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Inside `with`, collect the weights of every attention in `model`: module name → (B, H, T, S).

    The weights are computed next to each call; if a module is called several times, the last call counts.
    Works for every attention that has project_query and the method weights(query, key, mask). Raises
    ValueError while lesson 6's cache holds the earlier keys, which the weights would miss.
    """
    recorded: dict[str, Tensor] = {}

    def note(name: str) -> Callable:
        def look(attention, query, key, value, mask=None) -> None:
            if "attend" in vars(attention):
                raise ValueError(f"{name} runs with a cache; record it over the whole answer")
            with torch.no_grad():
                recorded[name] = attention.weights(query, key, mask)

        return lambda attention, inputs, named: look(attention, *inputs, **named)

    hooks = [module.register_forward_pre_hook(note(name), with_kwargs=True)
             for name, module in model.named_modules() if hasattr(module, "project_query")]
    try:
        yield recorded
    finally:
        for hook in hooks:
            hook.remove()


GRADED = {"MultiHeadAttention": heads_checks}
OURS = sys.modules[__name__]  # the checks make the classic mistakes from its parts


# ------------------------------------------------------------------ the steps


ITEMS, CONTENT, WIDTH = 6, 8, 32


def fetching_task(batch: int) -> tuple[Tensor, Tensor, Tensor]:
    """A query that names two of six items, the items, and the answer: the contents of both.

    query (B, 1, 32) holds two one-hot positions. items (B, 6, 32) hold a random content of 8 numbers and
    a one-hot position each. The answer is (B, 16).
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
    """x (…, n), padded with zeros → (…, width)."""
    return F.pad(x, (0, width - x.shape[-1]))


def train_to_fetch(n_heads: int, seed: int, steps: int = 200) -> tuple[MultiHeadAttention, float]:
    """The trained attention and its mean squared error on new items."""
    torch.manual_seed(seed)
    attention = MultiHeadAttention(WIDTH, n_heads)
    optimizer = torch.optim.Adam(attention.parameters(), lr=0.02, fused=True)

    def loss_on(batch: int) -> Tensor:
        query, items, answer = fetching_task(batch)
        return F.mse_loss(attention(query, items, items)[:, 0, : 2 * CONTENT], answer)

    minimise(partial(loss_on, 64), optimizer, steps)
    with torch.no_grad():
        return attention, loss_on(20_000).item()


@torch.no_grad()
def looked_at(attention: MultiHeadAttention, items: Tensor) -> Tensor:
    """(H, 6, 6): the weights of each head for queries that want items 0 and 1, 1 and 2, … 5 and 0."""
    first = torch.arange(ITEMS)
    query = naming(torch.stack([first, (first + 1) % ITEMS], dim=1))
    return attention.weights(query, items)[:, :, 0].transpose(0, 1)


def fetched(n_heads: int, seed: int) -> tuple[float, Tensor]:
    """The error of a training run, and where its heads look (H, 6, 6)."""
    attention, error = train_to_fetch(n_heads, seed)
    return error, looked_at(attention, fetching_task(ITEMS)[1])


@shows(fetching_task)
def step_one_average():
    """One softmax gives one average

    A token has to fetch two things. Its query names two of six items. The answer is the content of the first
    item, followed by the content of the second. The contents are independent random numbers of variance 1.
    One head takes one weighted mean of the items, and both contents have to be read from that mean. Two heads
    can look at one item each. The width and the number of parameters stay the same. The table shows the mean
    squared error on new items.

    The head is 32 numbers wide and each content only 8. Why can't the head hold both? One weight multiplies
    the whole value. So the head can't take some numbers from item a and others from item b; it can only add a
    fraction of all of a to a fraction of all of b.

    How small can the error be? Suppose that the weights w depend only on the places, and that items a and b
    are wanted. The best guess of a is a multiple of the mean, with the error 1 − w_a² / Σw². For b the error
    is 1 − w_b² / Σw². Together they are at least 1, so on average at least 0.5, however the weight is
    divided. Weights that also depend on the contents could do better, but training found none.

    In the picture each row is a pair of wanted items. On the left, one head looks at both items; how it
    divides its weight between them makes no difference to the error. On the right, each head takes one item.
    """
    seeds = eight_seeds()[:3]
    jobs = [partial(fetched, n_heads, seed) for seed in seeds for n_heads in (1, 2)]
    errors, looks = zip(*side_by_side(jobs))
    rows = [(seed, *errors[2 * i : 2 * i + 2]) for i, seed in enumerate(seeds)]
    for seed, error_of_one, error_of_two in rows:
        check(f"seed {seed}: the error of one head stays near 0.5, the error of two heads is far below",
              0.495 < error_of_one < 0.55 and error_of_two < 0.05)
    figure = Picture("multi_head_one_or_two.png", draw_fetching(*looks[-2:]),
                     "One head divides its weight between two wanted items; two heads take one item each")
    one, two = (parameters(MultiHeadAttention(WIDTH, n_heads)) for n_heads in (1, 2))
    check("one head and two heads have the same number of parameters", one == two, f"{one:,}")
    return table("seed", "one head: error", "two heads: error", rows=rows), figure


@shows(MultiHeadAttention.split, MultiHeadAttention.merge)
def step_split():
    """Splitting: view, then transpose

    view(B, L, H, K) cuts each token's vector into H parts without moving a number in memory. Attention
    multiplies matrices of the last two axes, so the heads must come before the tokens: transpose(1, 2). The
    table shows 3 tokens with 2 heads of width 2; “t1h0” is a number of token 1 for head 0.

    Broken on purpose: view(B, H, L, K) alone gives the right shape, but head 0 gets the first half of all
    numbers: all of token 0 and half of token 1. No error is raised; step 9 catches the mistake. In the
    picture each colour stands for a token. In the middle, each head has a part of all three tokens; on the
    right, no head has.
    """
    names = [[f"t{t}h{h}" for h in (0, 0, 1, 1)] for t in range(3)]
    places = torch.arange(12).view(1, 3, 4)
    view_alone = heads_checks.mistakes(OURS)["view() alone"].implementation
    right, wrong = (kind(4, 2).split(places)[0] for kind in (MultiHeadAttention, view_alone))
    flat = [name for row in names for name in row]
    rows = [(f"head {head}, row {row}", *(" ".join(flat[i] for i in x[head, row]) for x in (right, wrong)))
            for head in range(2) for row in range(3)]
    check("after view and transpose every head has its part of every token",
          all(flat[i].endswith(f"h{h}") for h in range(2) for i in right[h].flatten()))
    check("after view alone head 0 holds numbers that belong to head 1",
          any(flat[i].endswith("h1") for i in wrong[0].flatten()))
    figure = Picture("multi_head_split.png", draw_split(places[0], right, wrong),
                     "With view alone the shape is right, but head 0 gets token 0 and half of token 1")
    return table("", "view, transpose", "view alone", rows=rows), figure


def one_big_and_small_ones(x: Tensor, big: nn.Linear, n_heads: int):
    """The heads' queries (B, H, L, K) from one big projection of x, and from a small one per head."""
    together = MultiHeadAttention(x.shape[-1], n_heads).split(big(x))
    parts = zip(big.weight.chunk(n_heads), big.bias.chunk(n_heads))
    apart = [x @ weight.mT + bias for weight, bias in parts]
    return together, torch.stack(apart, dim=1)


def head_by_head(attention: MultiHeadAttention, x: Tensor) -> Tensor:
    """The output (B, L, D) of self-attention, with lesson 1's function called for one head at a time."""
    queries = attention.split(attention.project_query(x))
    keys = attention.split(attention.project_key(x))
    values = attention.split(attention.project_value(x))
    heads = [attention_weights(q, k) @ v for q, k, v in zip(*(t.unbind(1) for t in (queries, keys, values)))]
    return attention.project_output(torch.cat(heads, dim=-1))


@shows(MultiHeadAttention.forward, MultiHeadAttention.attend)
def step_the_way_through():
    """The whole layer in five lines

    Project and split the queries, keys and values, let every head attend, join the heads and project once
    more. Lesson 1's function takes any leading dimensions, so all heads run in one call.

    The picture follows 4 tokens of width 8 with 2 heads through an untrained layer: the left half of the
    queries, keys and values belongs to head 0, the right half to head 1. Each head computes its own table of
    weights and uses it to average its half of the values. Only the last projection mixes the two heads.
    """
    attention, (x,) = MultiHeadAttention(8, 2).double(), random_tensors((1, 4, 8))
    gap = largest_difference(attention(x, x, x), head_by_head(attention, x))
    check("all heads in one call give the same output as one head after another", gap < 1e-12, f"{gap:.0e}")
    for parameter in attention.parameters():
        nn.init.normal_(parameter, std=0.6)  # larger than at the start, so that more is seen
    queries, keys, values = attention.project_query(x), attention.project_key(x), attention.project_value(x)
    weights = attention.weights(x, x)
    joined = attention.merge(weights @ attention.split(values))
    stages = {"x": x, "queries": queries, "keys": keys, "values": values, "heads, joined": joined,
              "output": attention(x, x, x)}
    drawing = draw_flow({name: stage[0].detach() for name, stage in stages.items()}, weights[0].detach())
    return Picture("multi_head_data_flow.png", drawing,
                   "Every head weighs the tokens in its own way; the last projection mixes the results")


@shows(one_big_and_small_ones)
def step_one_big_projection():
    """One big projection is H small ones

    The paper gives every head its own D × K matrices. One D × D matrix holds the matrices of all heads side
    by side, so one large product replaces H small products, with the same result. nn.Linear stores the
    transposed matrix: rows h·K to (h + 1)·K − 1 of its weight belong to head h.
    """
    (x,) = random_tensors((2, 5, 12))
    together, apart = one_big_and_small_ones(x, nn.Linear(12, 12).double(), 3)
    for head in range(3):
        gap = largest_difference(together[:, head], apart[:, head])
        check(f"head {head} of the big projection equals its own small projection",
              gap < 1e-12, f"difference {gap:.0e}")


def step_parameters_do_not_depend_on_heads():
    """More heads cost no extra parameters

    With more heads, each head is narrower. There are four D × D maps, each with a bias of D numbers. That is
    4·(D² + D) parameters for any H.
    """
    rows = []
    for n_heads in (1, 2, 4, 8, 16):
        counted = parameters(MultiHeadAttention(64, n_heads))
        rows.append((n_heads, 64 // n_heads, 4 * (64 * 64 + 64), counted))
    agreed = all(row[2] == row[3] for row in rows)
    check("for every H there are 4·(D² + D) parameters", agreed)
    return table("H", "d_k", "4·(D² + D)", "counted", rows=rows)


def dropped_weights(attention: MultiHeadAttention, x: Tensor) -> Tensor:
    """The weights (B, H, L, L) that a training step would use, made visible by one-hot values."""
    queries = attention.split(attention.project_query(x))
    keys = attention.split(attention.project_key(x))
    one_hot = torch.eye(x.shape[1]).expand(len(x), attention.n_heads, -1, -1)
    return attention.attend(queries, keys, one_hot, None)


@shows(dropped_weights)
def step_dropout():
    """Dropout on the weights

    In training, each weight is set to 0 with probability p and the others are divided by 1 − p. A row then
    sums to 1 only on average, so plots are made in eval mode, which drops nothing. (The paper's section 5.4
    drops numbers of a layer's output; its authors' code also drops weights.)

    The kernel drops weights internally and returns only the means of the values. If value i is a 1 at place i
    and 0 elsewhere (one-hot), these means are the weights:
    """
    attention = MultiHeadAttention(32, 4, dropout=0.2)
    x = torch.randn(1, 6, 32)
    draws = dropped_weights(attention, x.expand(2000, -1, -1))
    sums, weights = draws.sum(-1), attention.weights(x, x)
    gap = largest_difference(draws.mean(0), weights[0])
    low, high = sums.min().item(), sums.max().item()
    check("in training, some rows sum to less than 1 and some to more", low < 0.9 and high > 1.1,
          f"{low:.2f} to {high:.2f}")
    check("the mean weight of 2,000 draws is the weight without dropout", gap < 0.02, f"off by {gap:.3f}")
    gap = largest_difference(weights.sum(-1), torch.ones(1, 4, 6))
    check("in eval mode every row sums to 1", gap < 1e-6, f"off by {gap:.0e}")


def step_equals_pytorch():
    """The same as nn.MultiheadAttention

    With PyTorch's parameters copied, outputs, attention weights and gradients equal PyTorch's, with and
    without masks. `--grade FILE` runs these checks on your own MultiHeadAttention. The kernel doesn't return
    the attention weights; for pictures, the method weights(query, key, mask) computes them.
    """
    check_part(MultiHeadAttention, heads_checks, OURS)


WORDS, PART, RELATIONS = 6, 8, ("previous word", "next word", "first word", "last word")


def relations_task(batch: int) -> tuple[Tensor, Tensor]:
    """Sentences of six random words (B, 6, 64), and for every word the four contents to fetch."""
    content = torch.randn(batch, WORDS, PART)
    sentences = widen(torch.cat([content, torch.eye(WORDS).expand(batch, -1, -1)], dim=-1), 64)
    ends = content[:, :1].expand_as(content), content[:, -1:].expand_as(content)
    return sentences, torch.cat([content.roll(1, 1), content.roll(-1, 1), *ends], -1)


def train_relations(seed: int) -> tuple[MultiHeadAttention, float]:
    """Four heads trained to fetch the four contents for every word, and the last error."""
    torch.manual_seed(seed)
    attention = MultiHeadAttention(64, 4)
    optimizer = torch.optim.Adam(attention.parameters(), lr=0.02, fused=True)

    def loss() -> Tensor:
        sentences, wanted = relations_task(32)
        return F.mse_loss(attention(sentences, sentences, sentences)[..., : 4 * PART], wanted)

    return attention, minimise(loss, optimizer, 500, decay=True)


def relation_patterns() -> Tensor:
    """(4, T, S): the weights that fetch the previous, next, first and last word, one each."""
    own = torch.eye(WORDS)
    first, last = (own[[place]].expand(WORDS, -1) for place in (0, -1))
    return torch.stack([own.roll(-1, 1), own.roll(1, 1), first, last])


def eight_seeds() -> range:
    """The seeds of eight training runs: the step's seed and the next seven."""
    return range(torch.initial_seed(), torch.initial_seed() + 8)


@torch.no_grad()
def shares_of_heads(attention: MultiHeadAttention) -> tuple[Tensor, Tensor]:
    """The mean weights (H, T, S) over 200 sentences, and how much of them lies on each relation (H, 4)."""
    sentences, _ = relations_task(200)
    weights = attention.weights(sentences, sentences).mean(0)
    return weights, (weights[:, None] * relation_patterns()).sum(-1).mean(-1)


def learned_heads(seed: int) -> tuple[float, Tensor, Tensor]:
    """The last error of a training run, and shares_of_heads() of what it learned."""
    attention, error = train_relations(seed)
    return error, *shares_of_heads(attention)


@shows(relations_task)
def step_what_heads_learn():
    """What heads learn

    For every word, four heads have to fetch four related words: the previous, the next (the sentence is a
    circle), the first and the last. A word is random numbers plus its place as a one-hot vector. Nothing
    tells a head what to fetch. Does each head take one relation?

    Eight runs of 500 steps differ only in the seed. The table shows, for each relation, the weight that it
    gets from the head that looks at it most. “One each” means that all four numbers are above 0.75. Nearly
    all runs solve the task, but only some have one head for each relation. In the others a head divides its
    weight between two relations. (Longer training makes this rarer.) The picture shows one run of each kind.

    A weight says where a head looked. It does not say why, or what effect that had.
    """
    rows, facts, seeds = [], [], eight_seeds()
    trained = side_by_side([partial(learned_heads, seed) for seed in seeds])
    for seed, (error, weights, mass) in zip(seeds, trained, strict=True):
        devoted = mass.max(0).values
        facts.append((devoted.min().item(), seed, weights, mass, error))
        rows.append((seed, *devoted.tolist(), "yes" if devoted.min() > 0.75 else "no", f"{error:.0e}"))
    solved = sum(fact[-1] < 5e-3 for fact in facts)
    check("at least seven of the eight runs solve the task", solved >= 7, f"{solved} do")
    clean = sum(fact[0] > 0.75 for fact in facts)
    check("some of the runs have a head for each relation, others don't",
          0 < clean < 8, f"{clean} of 8 have")
    drawn = [fact[1:4] for fact in (max(facts)[:4], min(facts)[:4])]
    figure = Picture("multi_head_attention.png", draw_heads(drawn, RELATIONS),
                     "Two runs solve the same task: only one has a head for each relation")
    return table("seed", *RELATIONS, "one each", "error", rows=rows), figure


def step_broken_on_purpose():
    """Broken on purpose

    These mistakes raise no error and return the right shapes. Each version gets the parameters of the same
    nn.MultiheadAttention. The first table shows a few numbers of each output under a causal mask. The second
    shows which check each mistake fails.
    """
    (x,) = random_tensors((1, 4, 12))
    theirs = nn.MultiheadAttention(12, 3, batch_first=True).double()
    mistakes = {name: mistake.implementation for name, mistake in heads_checks.mistakes(OURS).items()}
    rows = []
    for name, kind in {"right": MultiHeadAttention, **mistakes}.items():
        output = copy_attention(kind(12, 3).double(), theirs)(x, x, x, causal_mask(4))
        rows.append((name, numbers(output[0, 3, :4].tolist())))
    outputs = table("mistake", "output of the last token", rows=rows)
    return outputs, check_mistakes(OURS, heads_checks)


def step_what_next():
    """What now?

    Read: MultiHeadAttention from top to bottom, then checks/heads.py, which lists what must hold for it.

    Change: (1) CONTENT to 12: two heads of 16 still fetch both contents in step 1. (2) In fetched, call
    train_to_fetch(n_heads, seed, 2000): after ten times as many steps, the error of one head is still near
    0.5. (3) In forward, return self.merge(heads), without the last projection: two heads no longer solve step
    1, and checks of steps 3 and 7 fail.

    Write it yourself: --template my_heads.py, then --grade my_heads.py.
    Next: python 03_positional_encoding.py.
    """


def main():
    steps = [
        step_one_average,
        step_split,
        step_the_way_through,
        step_one_big_projection,
        step_parameters_do_not_depend_on_heads,
        step_dropout,
        step_equals_pytorch,
        step_what_heads_learn,
        step_broken_on_purpose,
        step_what_next,
    ]
    narrate(lesson_parser(__doc__, GRADED).parse_args(), __doc__, steps)


if __name__ == "__main__":
    main()

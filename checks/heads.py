"""What must hold for lesson 2's part: the heads side by side."""

import math

import torch
from torch import Tensor, nn

from course.console.records import Finding
from course.grading.checking import (
    Mistake,
    Needed,
    Part,
    agree,
    at,
    by_order,
    gradients,
    gradients_agree,
    layers_of,
    random_tensors,
    refused,
    together,
)

QUERY, MEMORY, CONTENT = random_tensors((2, 5, 12), (2, 7, 12), (2, 7, 12))  # query, key, value
LENGTHS = torch.tensor([6, 4])  # of two sources; padding after both, so that a reversed mask blinds no query
PADDING = (torch.arange(7) < LENGTHS[:, None])[:, None, None]  # (B, 1, 1, S)
BOTH = torch.ones(5, 5, dtype=torch.bool).tril() & PADDING[..., :5]  # (B, 1, T, T)


# ------------------------------------------------------------------ PyTorch's attention as the oracle


PROJECTIONS = "project_query", "project_key", "project_value", "project_output"


def copy_attention(ours: nn.Module, theirs: nn.MultiheadAttention) -> nn.Module:
    """`ours` with the weights of `theirs`."""
    weights, biases = theirs.in_proj_weight.chunk(3), theirs.in_proj_bias.chunk(3)
    *projections, output = layers_of(ours, PROJECTIONS)
    if any(projection.bias is None for projection in (*projections, output)):
        raise Needed("a projection without bias",
                     "The paper's projections have no bias, but PyTorch's do, and the checks copy PyTorch's "
                     "weights and biases: leave bias=True.")
    with torch.no_grad():
        for projection, weight, bias in zip(projections, weights, biases, strict=True):
            projection.weight.copy_(weight)
            projection.bias.copy_(bias)
    output.load_state_dict(theirs.out_proj.state_dict())
    return ours


def reference(d_model: int = 12, n_heads: int = 3) -> nn.MultiheadAttention:
    """PyTorch's attention in float64, biases random too; always the same."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        theirs = nn.MultiheadAttention(d_model, n_heads, batch_first=True).double()
        nn.init.normal_(theirs.in_proj_bias)
        nn.init.normal_(theirs.out_proj.bias)
    return theirs


def run(theirs: nn.MultiheadAttention, query: Tensor, key: Tensor, value: Tensor,
        mask: Tensor | None) -> list[Tensor]:
    """PyTorch's output and weights (B, H, T, S). Its masks are reversed, and of shape (B·H, T, S)."""
    if mask is not None:
        shape = len(query), theirs.num_heads, query.shape[1], key.shape[1]
        mask = ~mask.expand(shape).flatten(0, 1)
    return list(theirs(query, key, value, attn_mask=mask, average_attn_weights=False))


def compare(implementation, key: Tensor, value: Tensor, mask: Tensor | None) -> Finding:
    """Finding: with PyTorch's weights the output is PyTorch's."""
    theirs = reference()
    attention = copy_attention(implementation(12, 3).double(), theirs)
    return agree(attention(QUERY, key, value, mask), run(theirs, QUERY, key, value, mask)[0],
                 axes="batch, query, number")


# ------------------------------------------------------------------ MultiHeadAttention(d_model, n_heads)


def attends_to_itself(implementation, ours):
    """With the same weights it equals nn.MultiheadAttention in self-attention."""
    return by_order(compare(implementation, QUERY, QUERY, None), implementation(12, 3), PROJECTIONS)


def attends_to_another(implementation, ours):
    """It equals nn.MultiheadAttention in cross-attention, with values other than the keys, masked or not."""
    return together(compare(implementation, MEMORY, CONTENT, None),
                    compare(implementation, MEMORY, CONTENT, PADDING))


def takes_both_masks(implementation, ours):
    """It equals nn.MultiheadAttention with causal and padding masks together, per head and for all heads."""
    causal, values = BOTH[0, 0], QUERY.flip(0)
    each_head = torch.stack([causal, causal.flip(0), torch.ones_like(causal)]).expand(2, 3, 5, 5)
    each_head = each_head | torch.eye(5, dtype=torch.bool)  # nobody is blind, for PyTorch's sake
    return together(*(at(f"mask {tuple(mask.shape)}", compare(implementation, QUERY, values, mask))
                      for mask in (BOTH, causal, each_head)))


def tells_its_weights(implementation, ours):
    """weights() returns (B, H, T, S) and equals PyTorch's weights in every head, with and without a mask."""
    theirs = reference()
    attention = copy_attention(implementation(12, 3).double(), theirs)
    problems = (QUERY, BOTH), (MEMORY, PADDING), (MEMORY, None)
    return together(*(agree(attention.weights(QUERY, key, mask), run(theirs, QUERY, key, key, mask)[1],
                            axes="batch, head, query, key") for key, mask in problems))


def fits_other_sizes(implementation, ours):
    """It equals nn.MultiheadAttention for other widths, numbers of heads and batch sizes."""
    query, key, value = random_tensors((3, 4, 10), (3, 6, 10), (3, 6, 10), seed=1)
    findings = []
    for n_heads in (2, 1, 10):
        theirs = reference(10, n_heads)
        attention = copy_attention(implementation(10, n_heads).double(), theirs)
        expected, weights = run(theirs, query, key, value, None)
        found = (agree(attention(query, key, value), expected, axes="batch, query, number"),
                 agree(attention.weights(query, key), weights, axes="batch, head, query, key"))
        findings += [at(f"d_model 10, n_heads {n_heads}", finding) for finding in found]
    return together(*findings)


def learns_like_pytorch(implementation, ours):
    """The gradients of every parameter equal PyTorch's."""
    theirs = reference()
    attention = copy_attention(implementation(12, 3).double(), theirs)
    attention(QUERY, QUERY, QUERY, BOTH).sin().sum().backward()
    run(theirs, QUERY, QUERY, QUERY, BOTH)[0].sin().sum().backward()
    return gradients_agree(attention, theirs, copy_attention)


def passes_gradients_on(implementation, ours):
    """The gradient of the input equals PyTorch's."""
    theirs, x = reference(), QUERY.clone().requires_grad_()
    attention = copy_attention(implementation(12, 3).double(), theirs)
    found = gradients(attention(x, x, x, BOTH).sin().sum(), [x])
    return agree(found, gradients(run(theirs, x, x, x, BOTH)[0].sin().sum(), [x]))


def shown_weights(attention: nn.Module) -> Tensor:
    """(B, T, H, K): the weights of 500 queries for the only key, as the output shows them.

    The key has the value 1 throughout and the last two maps change nothing, so that each of a head's K
    numbers is the weight: 1, and 0 or 2 where half of the weights are dropped.
    """
    for projection in layers_of(attention, PROJECTIONS)[2:]:
        nn.init.eye_(projection.weight)
        nn.init.zeros_(projection.bias)
    query, key = random_tensors((2, 500, 12), (2, 1, 12))
    return attention(query, key, torch.ones_like(key)).unflatten(-1, (3, 4))


def drops_weights_in_training(implementation, ours):
    """dropout=0.5 sets about half of the weights to 0 in training, and none in eval mode."""
    attention = implementation(12, 3, dropout=0.5).double()
    dropped = shown_weights(attention.train()) == 0
    missing = (shown_weights(attention.eval()) == 0).double().mean().item()
    if not torch.equal(dropped, dropped[..., :1].expand_as(dropped)):
        return Finding(False, "part of a value is 0",
                       "drop weights, not numbers of a value, so that a query misses the whole value")
    shares = dropped.double().mean((1, 3))  # (B, H): for every key and head some queries miss it
    holds = shares.min() > 0.4 and shares.max() < 0.6 and missing == 0
    return Finding(bool(holds), f"{shares.mean():.0%} and {missing:.0%}",
                   "pass `dropout` on to lesson 1's attention only while self.training")


def refuses_uneven_heads(implementation, ours):
    """A d_model that does not split into the heads is refused with a ValueError."""
    return refused(lambda: implementation(30, 4), 30, 4)


def heads_mistakes(ours):
    """The classic mistakes, made from the course's own heads."""

    class ViewAlone(ours.MultiHeadAttention):
        """`view` straight to (B, H, L, K)."""

        def split(self, x):
            batch, length, d_model = x.shape
            return x.view(batch, self.n_heads, length, d_model // self.n_heads)

    class MergedAsTheyStand(ours.MultiHeadAttention):
        """The heads are flattened without being moved back behind the tokens."""

        def merge(self, x):
            batch, heads, length, d_k = x.shape
            return x.reshape(batch, length, heads * d_k)

    class TimesFactor(ours.MultiHeadAttention):
        """The scores are multiplied by a factor."""

        def attend(self, queries, keys, values, mask):
            return super().attend(queries * self.factor, keys, values, mask)

        def weights(self, query, key, mask=None):
            queries, keys = self.split(self.project_query(query)), self.split(self.project_key(key))
            return ours.attention_weights(queries * self.factor, keys, mask)

    class DividedByModelWidth(TimesFactor):
        @property
        def factor(self):
            return 1 / math.sqrt(self.n_heads)  # √d_k / √d_model

    class NotDivided(TimesFactor):
        @property
        def factor(self):
            return math.sqrt(self.project_query.out_features / self.n_heads)  # √d_k

    class OnlyJoined(ours.MultiHeadAttention):
        """The last projection is missing."""

        def forward(self, query, key, value, mask=None):
            projected = self.project_query(query), self.project_key(key), self.project_value(value)
            return self.merge(self.attend(*map(self.split, projected), mask))

    class MaskReversed(ours.MultiHeadAttention):
        """True hides a key."""

        def forward(self, query, key, value, mask=None):
            return super().forward(query, key, value, None if mask is None else ~mask)

        def weights(self, query, key, mask=None):
            return super().weights(query, key, None if mask is None else ~mask)

    same = "With the same weights"
    return {
        "view() alone": Mistake("view() alone mixes tokens: view to (B, L, H, K), then transpose(1, 2)",
                                ViewAlone, same),
        "merged without transpose": Mistake(
            "merged without transpose: undo transpose(1, 2) before joining heads", MergedAsTheyStand, same),
        "divided by √d_model": Mistake("divided by √d_model: one head's width is d_k = d_model / n_heads",
                                       DividedByModelWidth, same),
        "not divided": Mistake("not divided by √d_k: the scores grow with d_k", NotDivided, same),
        "no output projection": Mistake("the output projection is missing", OnlyJoined, same),
        "mask reversed": Mistake("the mask is reversed: True means may attend", MaskReversed,
                                 "It equals nn.MultiheadAttention in cross-attention"),
    }


def more_heads_mistakes(ours):
    """Others that the lesson doesn't show."""

    class Interleaved(ours.MultiHeadAttention):
        """Head h takes the numbers h, h + H, h + 2H, …"""

        def split(self, x):
            return x.unflatten(-1, (-1, self.n_heads)).permute(0, 3, 1, 2)

    class InterleavedAndBack(Interleaved):
        def merge(self, x):
            return x.permute(0, 2, 3, 1).flatten(2)

    class ValuesFromKeys(ours.MultiHeadAttention):
        def forward(self, query, key, value, mask=None):
            return super().forward(query, key, key, mask)

    class MaskIgnored(ours.MultiHeadAttention):
        def forward(self, query, key, value, mask=None):
            return super().forward(query, key, value)

        def weights(self, query, key, mask=None):
            return super().weights(query, key)

    same = "With the same weights"
    interleaved = "interleaved heads: head h takes d_k neighbours; view to (B, L, H, K), not (B, L, K, H)"
    return {
        "interleaved heads": Mistake(interleaved, Interleaved, same),
        "interleaved and back": Mistake(interleaved, InterleavedAndBack, same),
        "mask ignored": Mistake("the output is right without a mask: is the mask passed on to the "
                                "attention?", MaskIgnored,
                                "It equals nn.MultiheadAttention in cross-attention"),
        "values from keys": Mistake("the values are projected from `key`: project_value(value)",
                                    ValuesFromKeys, "It equals nn.MultiheadAttention in cross-attention"),
    }


heads_checks = Part(
    [attends_to_itself, attends_to_another, takes_both_masks, tells_its_weights, fits_other_sizes,
     learns_like_pytorch, passes_gradients_on, drops_weights_in_training, refuses_uneven_heads],
    heads_mistakes,
    more=more_heads_mistakes,
    needs="The checks use weights() and four nn.Linear: project_query, project_key, project_value and "
          "project_output, or other names in this order.",
    helpers=("split", "merge", "rotate", "attend"),
)

"""What must hold for lesson 6's greedy decoding and sampling."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from checks.trees import DECODING, greedy_by_hand
from common import lesson
from course.console.records import Finding
from course.data.tables import DRAWS, TreeDecoding, chi_square, random_tree
from course.grading.checking import Mistake, Part, agree, refused

BOS, EOS = lesson("03_positional_encoding", "BOS", "EOS")


# ------------------------------------------------------------------ greedy_decode(decoding, max_length)


LEVELS = random_tree(sources=8, depth=5)


def begins_with_bos(found) -> str:
    """A hint if all answers begin with BOS."""
    first = found[:, :1] if isinstance(found, Tensor) and found.dim() == 2 else torch.zeros(0)
    return "BOS begins the answer but isn't part of it" if first.numel() and (first == BOS).all() else ""


def takes_the_likeliest(greedy_decode, ours):
    """Each token is the likeliest after the tokens before it, and only PAD follows EOS."""
    found = greedy_decode(TreeDecoding(LEVELS), 5)
    return agree(found, greedy_by_hand(LEVELS), 0, begins_with_bos(found))


def respects_max_length(greedy_decode, ours):
    """No answer is longer than max_length."""
    return agree(greedy_decode(TreeDecoding(LEVELS), 2), greedy_by_hand(LEVELS)[:, :2], 0)


def stops_early(greedy_decode, ours):
    """Decoding stops when every answer has ended."""
    ending = [level.clone() for level in LEVELS]
    ending[1][..., EOS] = 100.0
    decoding = TreeDecoding(ending)
    greedy_decode(decoding, 5)
    return Finding(decoding.length == 2, f"{decoding.length} steps, expected 2")


def greedy_mistakes(ours):
    def never_ends(decoding, max_length):
        tokens, answers = torch.full((decoding.rows,), BOS), []
        for _ in range(max_length):
            tokens = decoding.step(tokens).argmax(-1)
            answers.append(tokens)
        return torch.stack(answers, 1)

    def with_bos(decoding, max_length):
        answers = ours.greedy_decode(decoding, max_length)
        return torch.cat([torch.full_like(answers[:, :1], BOS), answers], dim=1)

    likeliest = "Each token is the likeliest"
    return {"goes on": Mistake("after EOS, continue that answer with PAD", never_ends, likeliest),
            "BOS returned": Mistake("BOS begins the answer but isn't part of it", with_bos, likeliest)}


greedy_checks = Part(
    [takes_the_likeliest, respects_max_length, stops_early], greedy_mistakes,
    needs=DECODING + "Stop when all rows have ended. Example: greedy_decode(decoding, 5) → (N, ≤ 5).")


# ------------------------------------------------------------------ adjust_logits(logits, …)


PROBABILITIES = torch.tensor([0.5, 0.2, 0.2, 0.06, 0.04], dtype=torch.float64)
SKEWED = PROBABILITIES.log()


def kept(adjusted: Tensor) -> Tensor:
    """1 where a token may still be drawn."""
    return (adjusted.softmax(-1) > 0).int()


def divides_by_temperature(adjust_logits, ours):
    """The temperature divides the logits: 0.5 squares the probabilities and renormalises them."""
    squared = PROBABILITIES**2 / (PROBABILITIES**2).sum()
    return agree(adjust_logits(SKEWED, 0.5).softmax(-1), squared, 1e-12)


def zero_is_greedy(adjust_logits, ours):
    """Temperature 0 leaves only the likeliest token."""
    return agree(kept(adjust_logits(SKEWED, 0.0)), torch.tensor([1, 0, 0, 0, 0]), 0)


def keeps_k(adjust_logits, ours):
    """top_k = 2 keeps the two likeliest tokens and a third that ties with the second."""
    return agree(kept(adjust_logits(SKEWED, top_k=2)), torch.tensor([1, 1, 1, 0, 0]), 0)


def keeps_p(adjust_logits, ours):
    """top_p keeps the fewest tokens whose probabilities together reach it: of .5 .2 .2 .06 .04, it keeps
    two for 0.6, one for 0.45, three for 0.8 and four for 0.92.
    """
    found = [kept(adjust_logits(SKEWED, top_p=p)) for p in (0.6, 0.45, 0.8, 0.92)]
    return agree(torch.stack(found), torch.ones(5, 5).tril()[[1, 0, 2, 3]].int(), 0)


def keeps_the_fewest(adjust_logits, ours):
    """top_p keeps the fewest tokens in float32 as well, where sums are rounded: of .35 .25 .15 .10 .06 …, it
    keeps four for 0.85.
    """
    single = torch.tensor([0.35, 0.25, 0.15, 0.10, 0.06, 0.04, 0.03, 0.02]).log()
    return agree(kept(adjust_logits(single, top_p=0.85)), torch.tensor([1] * 4 + [0] * 4), 0)


def temperature_comes_first(adjust_logits, ours):
    """Temperature comes first, then top-p: at temperature 0.5 one token has probability 0.74, enough for
    0.6, and three tokens reach 0.9; at temperature 2 four tokens reach 0.8.
    """
    settings = (0.5, 0.6, 1), (0.5, 0.9, 3), (2.0, 0.8, 4)
    found = [adjust_logits(SKEWED, heat, top_p=p).softmax(-1) for heat, p, _ in settings]
    first = [(SKEWED[:count] / heat).softmax(-1) for heat, _, count in settings]
    return agree(torch.stack(found), torch.stack([F.pad(part, (0, 5 - len(part))) for part in first]), 1e-12)


def always_keeps_one(adjust_logits, ours):
    """top_p = 0 still keeps the likeliest token."""
    return agree(kept(adjust_logits(SKEWED, top_p=0.0)), torch.tensor([1, 0, 0, 0, 0]), 0)


def can_change_nothing(adjust_logits, ours):
    """top_k ≥ V and top_p = 1 change nothing."""
    return agree(adjust_logits(SKEWED, top_k=7, top_p=1.0).softmax(-1), PROBABILITIES, 1e-12)


def takes_any_shape(adjust_logits, ours):
    """Each row of (N, V) and (B, N, V) is adjusted by itself."""
    rows = torch.stack([SKEWED, SKEWED.flip(0), SKEWED.roll(1)])
    options = {"temperature": 0.7, "top_k": 3, "top_p": 0.8}
    single = torch.stack([adjust_logits(row, **options) for row in rows]).exp()
    together = [adjust_logits(rows.view(*size, 5), **options).view(3, 5).exp() for size in ((3,), (1, 3))]
    return agree(torch.stack(together), single.expand(2, 3, 5), 1e-12)


def refuses_nonsense(adjust_logits, ours):
    """A temperature of −1, ∞ or NaN, a top_k of −1 and a top_p of 1.5 raise a ValueError naming the value."""
    attempts = [(-1.0, 0, 1.0), (math.inf, 0, 1.0), (math.nan, 0, 1.0), (1.0, -1, 1.0),
                (1.0, 0, 1.5), (1.0, 0, math.nan)]
    for attempt in attempts:
        bad = next(v for v, fine in zip(attempt, (1.0, 0, 1.0), strict=True) if v != fine)
        finding = refused(lambda attempt=attempt: adjust_logits(SKEWED, *attempt), bad)
        if not finding.holds:
            return finding._replace(figure=f"{attempt}: {finding.figure}")
    return finding


def adjusting_mistakes(ours):
    adjust = ours.adjust_logits

    def multiplied(logits, temperature=1.0, top_k=0, top_p=1.0):
        return adjust(logits, 1 / temperature if temperature else 0.0, top_k, top_p)

    def ties_cut(logits, temperature=1.0, top_k=0, top_p=1.0):
        logits = adjust(logits, temperature)
        if 0 < top_k < logits.shape[-1]:
            places = logits.topk(top_k, dim=-1).indices
            logits = torch.full_like(logits, -math.inf).scatter(-1, places, logits.gather(-1, places))
        return adjust(logits, top_p=top_p)

    def last_cut(logits, temperature=1.0, top_k=0, top_p=1.0):
        return cut_where(adjust(logits, temperature, top_k), lambda ranked, reached: reached > top_p, top_p)

    def one_too_many(logits, temperature=1.0, top_k=0, top_p=1.0):
        return cut_where(adjust(logits, temperature, top_k),
                         lambda ranked, reached: F.pad((reached - ranked)[..., :-1], (1, 0)) >= top_p, top_p)

    def cut_where(logits, beyond, top_p):
        ranked, order = logits.softmax(-1).sort(descending=True, stable=True)
        cut = beyond(ranked, ranked.cumsum(-1)) if top_p < 1 else torch.zeros_like(ranked).bool()
        cut[..., 0] = False
        return logits.masked_fill(torch.zeros_like(cut).scatter(-1, order, cut), -math.inf)

    def top_p_first(logits, temperature=1.0, top_k=0, top_p=1.0):
        return adjust(adjust(logits, top_p=top_p), temperature, top_k)

    fewest = "top_p keeps the fewest tokens"
    return {
        "multiplied": Mistake("multiplied by the temperature: divide instead", multiplied,
                              "The temperature divides"),
        "ties cut": Mistake("tokens that tie with the k-th likeliest stay", ties_cut, "top_k = 2 keeps"),
        "last cut": Mistake("the token with which the sum reaches p stays", last_cut, fewest),
        "one too many": Mistake("one token too many was kept", one_too_many, fewest),
        "top-p first": Mistake("top-p was applied before the temperature", top_p_first,
                               "Temperature comes first"),
    }


adjust_logits_checks = Part(
    [divides_by_temperature, zero_is_greedy, keeps_k, keeps_p, keeps_the_fewest, temperature_comes_first,
     always_keeps_one, can_change_nothing, takes_any_shape, refuses_nonsense], adjusting_mistakes,
    needs="Tokens cut off get the logit −∞. Example: adjust_logits(logits, 0.7, top_k=3, top_p=0.9).")


# ------------------------------------------------------------------ sample(decoding, max_length, …)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sample_zero_is_greedy(sample, ours):
    """Temperature 0 gives greedy's answers."""
    found = sample(TreeDecoding(LEVELS), 5, temperature=0.0)
    return agree(found, greedy_by_hand(LEVELS), 0, begins_with_bos(found))


def draws_in_proportion(sample, ours):
    """In 20,000 draws each token is as frequent as its probability says (chi-square, p > 0.00001)."""
    probabilities = torch.tensor([0.4, 0.3, 0.15, 0.1, 0.05])
    decoding = TreeDecoding([probabilities.log().expand(DRAWS, 1, -1)])
    draws = sample(decoding, 1, generator=seeded(0))
    p = chi_square(draws[:, 0].bincount(minlength=5).tolist(), probabilities.tolist())
    return Finding(p > 1e-5, f"p = {p:.2g}")


def cuts_the_tail(sample, ours):
    """With top_k = 2 only the two likeliest tokens are drawn."""
    logits = torch.tensor([0.1, 0.4, 0.2, 0.2, 0.1]).log() + torch.tensor([0, 0, 0.1, 0, 0])
    decoding = TreeDecoding([logits.expand(500, 1, -1)])
    return agree(sample(decoding, 1, top_k=2, generator=seeded(0)).unique(), torch.tensor([1, 2]), 0)


def repeats(sample, ours):
    """The same generator state gives the same answers, and a different state gives different answers."""
    answers = [sample(TreeDecoding(LEVELS), 5, generator=seeded(seed)) for seed in (1, 1, 2)]
    same = agree(answers[0], answers[1], 0)
    differs = answers[0].shape != answers[2].shape or not torch.equal(answers[0], answers[2])
    return same if not same.holds else Finding(differs, diagnosis="pass the generator on")


def pads_after_eos(sample, ours):
    """Only PAD follows EOS."""
    found = sample(TreeDecoding(LEVELS), 5, generator=seeded(3))
    behind = (found == EOS).cumsum(dim=1) - (found == EOS).int() > 0
    return agree(found[behind], torch.zeros_like(found[behind]), 0)


sample_checks = Part(
    [sample_zero_is_greedy, draws_in_proportion, cuts_the_tail, repeats, pads_after_eos],
    needs=DECODING + "Example: sample(decoding, 5, top_k=2, generator=torch.Generator().manual_seed(0)).")

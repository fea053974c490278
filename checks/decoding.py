"""What has to hold of lesson 6's parts: greedy, sampling, beam search, the cache."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from checks.trees import (
    BEAM,
    CACHE,
    DECODING,
    DRAWS,
    TreeDecoding,
    chi_square,
    enumerated,
    greedy_by_hand,
    no_answer,
    random_tree,
)
from common import lesson
from course.console.records import Finding
from course.grading.checking import Mistake, Part, agree, refused, together

BOS, EOS, PAD = lesson("03_positional_encoding", "BOS", "EOS", "PAD")
Transformer, TransformerConfig, make_batch, pad = lesson(
    "05_mini_transformer", "Transformer", "TransformerConfig", "make_batch", "pad")


# ------------------------------------------------------------------ greedy_decode(decoding, max_length)


LEVELS = random_tree(sources=8, depth=5)


def takes_the_likeliest(greedy_decode, ours):
    """Each token is the likeliest after those before it, with PAD alone after EOS."""
    return agree(greedy_decode(TreeDecoding(LEVELS), 5), greedy_by_hand(LEVELS), 0)


def respects_max_length(greedy_decode, ours):
    """Nothing is longer than max_length."""
    return agree(greedy_decode(TreeDecoding(LEVELS), 2), greedy_by_hand(LEVELS)[:, :2], 0)


def stops_early(greedy_decode, ours):
    """It stops when every answer has ended."""
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

    return {"goes on": Mistake("go on with PAD after EOS, for each answer by itself", never_ends,
                               "Each token is the likeliest")}


greedy_checks = Part(
    [takes_the_likeliest, respects_max_length, stops_early], greedy_mistakes,
    needs=DECODING + "It stops when all rows have ended. Example: greedy_decode(decoding, 5) → (N, ≤ 5).")


# ------------------------------------------------------------------ adjust_logits(logits, …)


PROBABILITIES = torch.tensor([0.5, 0.2, 0.2, 0.06, 0.04], dtype=torch.float64)
SKEWED = PROBABILITIES.log()


def kept(adjusted: Tensor) -> Tensor:
    """1 where a token may still be drawn."""
    return (adjusted.softmax(-1) > 0).int()


def divides_by_temperature(adjust_logits, ours):
    """The temperature divides the logits: 0.5 squares the probabilities and renormalises."""
    squared = PROBABILITIES**2 / (PROBABILITIES**2).sum()
    return agree(adjust_logits(SKEWED, 0.5).softmax(-1), squared, 1e-12)


def zero_is_greedy(adjust_logits, ours):
    """Temperature 0 leaves the likeliest token alone."""
    return agree(kept(adjust_logits(SKEWED, 0.0)), torch.tensor([1, 0, 0, 0, 0]), 0)


def keeps_k(adjust_logits, ours):
    """top_k = 2 keeps the two likeliest and, here, the third that ties with the second."""
    return agree(kept(adjust_logits(SKEWED, top_k=2)), torch.tensor([1, 1, 1, 0, 0]), 0)


def keeps_p(adjust_logits, ours):
    """top_p keeps the fewest tokens whose probabilities reach it: of .5 .2 .2 .06 .04 two for 0.6, one
    for 0.45, three for 0.8, four for 0.92.
    """
    found = [kept(adjust_logits(SKEWED, top_p=p)) for p in (0.6, 0.45, 0.8, 0.92)]
    return agree(torch.stack(found), torch.ones(5, 5).tril()[[1, 0, 2, 3]].int(), 0)


def keeps_the_fewest(adjust_logits, ours):
    """… also in float32, where sums are rounded: p = 0.85 of .35 .25 .15 .10 .06 … takes four."""
    single = torch.tensor([0.35, 0.25, 0.15, 0.10, 0.06, 0.04, 0.03, 0.02]).log()
    return agree(kept(adjust_logits(single, top_p=0.85)), torch.tensor([1] * 4 + [0] * 4), 0)


def temperature_comes_first(adjust_logits, ours):
    """Temperature first, then top-p: at temperature 0.5 one token has 0.74 and is enough for 0.6, three
    reach 0.9, at temperature 2 four reach 0.8.
    """
    settings = (0.5, 0.6, 1), (0.5, 0.9, 3), (2.0, 0.8, 4)
    found = [adjust_logits(SKEWED, heat, top_p=p).softmax(-1) for heat, p, _ in settings]
    first = [(SKEWED[:count] / heat).softmax(-1) for heat, _, count in settings]
    return agree(torch.stack(found), torch.stack([F.pad(part, (0, 5 - len(part))) for part in first]), 1e-12)


def always_keeps_one(adjust_logits, ours):
    """top_p = 0 still keeps the likeliest."""
    return agree(kept(adjust_logits(SKEWED, top_p=0.0)), torch.tensor([1, 0, 0, 0, 0]), 0)


def can_change_nothing(adjust_logits, ours):
    """top_k at V or above and top_p = 1 change nothing."""
    return agree(adjust_logits(SKEWED, top_k=7, top_p=1.0).softmax(-1), PROBABILITIES, 1e-12)


def takes_any_shape(adjust_logits, ours):
    """Each row of (N, V) and (B, N, V) is adjusted by itself."""
    rows = torch.stack([SKEWED, SKEWED.flip(0), SKEWED.roll(1)])
    options = {"temperature": 0.7, "top_k": 3, "top_p": 0.8}
    single = torch.stack([adjust_logits(row, **options) for row in rows]).exp()
    together = [adjust_logits(rows.view(*size, 5), **options).view(3, 5).exp() for size in ((3,), (1, 3))]
    return agree(torch.stack(together), single.expand(2, 3, 5), 1e-12)


def refuses_nonsense(adjust_logits, ours):
    """Temperature −1, infinite or NaN, top_k −1, top_p 1.5: a ValueError that names the value."""
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

    fewest = "top_p keeps the fewest"
    return {
        "multiplied": Mistake("multiplied by the temperature: divide", multiplied, "The temperature divides"),
        "ties cut": Mistake("ties with the k-th stay", ties_cut, "top_k = 2 keeps"),
        "last cut": Mistake("the token that passes p stays", last_cut, fewest),
        "one too many": Mistake("one token too many", one_too_many, fewest),
        "top-p first": Mistake("top-p was applied before the temperature", top_p_first, "Temperature first"),
    }


adjust_logits_checks = Part(
    [divides_by_temperature, zero_is_greedy, keeps_k, keeps_p, keeps_the_fewest, temperature_comes_first,
     always_keeps_one, can_change_nothing, takes_any_shape, refuses_nonsense], adjusting_mistakes,
    needs="What is cut off gets the logit −∞. Example: adjust_logits(logits, 0.7, top_k=3, top_p=0.9).")


# ------------------------------------------------------------------ sample(decoding, max_length, …)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sample_zero_is_greedy(sample, ours):
    """Temperature 0 gives greedy's answers."""
    return agree(sample(TreeDecoding(LEVELS), 5, temperature=0.0), greedy_by_hand(LEVELS), 0)


def draws_in_proportion(sample, ours):
    """20,000 draws are as frequent as the probabilities (chi-square, p > 0.00001)."""
    probabilities = torch.tensor([0.4, 0.3, 0.15, 0.1, 0.05])
    decoding = TreeDecoding([probabilities.log().expand(DRAWS, 1, -1)])
    draws = sample(decoding, 1, generator=seeded(0))
    p = chi_square(draws[:, 0].bincount(minlength=5).tolist(), probabilities.tolist())
    return Finding(p > 1e-5, f"p = {p:.2g}")


def cuts_the_tail(sample, ours):
    """With top_k = 2 nothing but the two likeliest is drawn."""
    logits = torch.tensor([0.1, 0.4, 0.2, 0.2, 0.1]).log() + torch.tensor([0, 0, 0.1, 0, 0])
    decoding = TreeDecoding([logits.expand(500, 1, -1)])
    return agree(sample(decoding, 1, top_k=2, generator=seeded(0)).unique(), torch.tensor([1, 2]), 0)


def repeats(sample, ours):
    """The same generator state gives the same answers, and another one others."""
    answers = [sample(TreeDecoding(LEVELS), 5, generator=seeded(seed)) for seed in (1, 1, 2)]
    same = agree(answers[0], answers[1], 0)
    differs = answers[0].shape != answers[2].shape or not torch.equal(answers[0], answers[2])
    return same if not same.holds else Finding(differs, diagnosis="pass the generator on")


def pads_after_eos(sample, ours):
    """Nothing but PAD follows EOS."""
    found = sample(TreeDecoding(LEVELS), 5, generator=seeded(3))
    behind = (found == EOS).cumsum(dim=1) - (found == EOS).int() > 0
    return agree(found[behind], torch.zeros_like(found[behind]), 0)


sample_checks = Part(
    [sample_zero_is_greedy, draws_in_proportion, cuts_the_tail, repeats, pads_after_eos],
    needs=DECODING + "Example: sample(decoding, 5, top_k=2, generator=torch.Generator().manual_seed(0)).")


# ------------------------------------------------------------------ beam_search(decoding, width, …)


SMALL_LEVELS = random_tree(sources=3, depth=4)
EVERY_ANSWER = [enumerated(SMALL_LEVELS, source, 4) for source in range(3)]


def best_scores(alpha: float) -> Tensor:
    """The three best scores of each source, of all answers there are."""
    return torch.tensor([sorted((total / len(tokens) ** alpha for tokens, total in found.items()),
                                reverse=True)[:3] for found in EVERY_ANSWER])


def wide_beam_agrees(beam_search, alpha: float) -> Finding:
    found = beam_search(TreeDecoding(SMALL_LEVELS), 400, 4, alpha)
    return agree(torch.tensor([[hypothesis[2] for hypothesis in beams[:3]] for beams in found]),
                 best_scores(alpha), 1e-5)


def finds_the_best(beam_search, ours):
    """Wide enough, it finds the three best of all answers (α = 0, by enumeration)."""
    return wide_beam_agrees(beam_search, 0.0)


def penalises_length(beam_search, ours):
    """… and with scores log P / length^α, α = 1."""
    return wide_beam_agrees(beam_search, 1.0)


def width_one_is_greedy(beam_search, ours):
    """Width 1 with α = 0 equals greedy decoding."""
    found = beam_search(TreeDecoding(SMALL_LEVELS), 1, 4, 0.0)
    best = [list(beams[0][0]) for beams in found]
    return no_answer(found, EVERY_ANSWER) or agree(pad(best), greedy_by_hand(SMALL_LEVELS), 0)


def reports_true_scores(beam_search, ours):
    """The log_prob of every hypothesis of a narrow beam is that of its tokens."""
    found = beam_search(TreeDecoding(SMALL_LEVELS), 3, 4, 0.6)
    pairs = [(hypothesis[1], EVERY_ANSWER[source].get(tuple(hypothesis[0]), math.nan))
             for source, beams in enumerate(found) for hypothesis in beams]
    return no_answer(found, EVERY_ANSWER) or agree(*torch.tensor(pairs).T, 1e-5)


def batches(beam_search, ours):
    """All sources together give what each gives alone."""
    together = beam_search(TreeDecoding(SMALL_LEVELS), 3, 4, 0.6)
    alone = [beam_search(TreeDecoding([level[[source]] for level in SMALL_LEVELS]), 3, 4, 0.6)[0]
             for source in range(3)]
    same = [[tuple(h[0]) for h in beams] for beams in together] == [
        [tuple(h[0]) for h in beams] for beams in alone]
    return Finding(same, "the same hypotheses" if same else "other hypotheses")


def beam_mistakes(ours):
    search, everything = ours.beam_search, 10_000

    def rescored(score: Callable):
        """The right search with other scores: all its hypotheses, sorted anew."""

        def beam_search(decoding, width, max_length, length_penalty=1.0):
            found = search(decoding, width, max_length, length_penalty)
            return [sorted((h._replace(score=score(h, length_penalty)) for h in beams),
                           key=lambda h: -h.score) for beams in found]

        return beam_search

    def only(keep: Callable):
        def beam_search(decoding, width, max_length, length_penalty=1.0):
            return [[h for h in beams if keep(h, max_length)][:width]
                    for beams in search(decoding, everything, max_length, length_penalty)]

        return beam_search

    class Stuck(TreeDecoding):
        def reorder(self, rows):
            self.rows, self.sources = len(rows), self.sources[rows]
            self.places = self.places[torch.arange(len(rows)) % len(self.places)]

    def not_reordered(decoding, width, max_length, length_penalty=1.0):
        return search(Stuck(decoding.levels), width, max_length, length_penalty)

    best, penalty = "Wide enough, it finds", "… and with scores log P"
    return {
        "EOS not counted": Mistake("EOS counts in the length", rescored(
            lambda h, alpha: h.log_prob / max(1, len(h.tokens) - 1) ** alpha), penalty),
        "BOS counted": Mistake("the length is one too long: BOS doesn't count", rescored(
            lambda h, alpha: h.log_prob / (len(h.tokens) + 1) ** alpha), penalty),
        "not divided": Mistake("the sum of log-probabilities was not divided by length^α", rescored(
            lambda h, alpha: h.log_prob), penalty),
        "cut off forgotten": Mistake("what max_length cuts off is a candidate, too", only(
            lambda h, max_length: h.finished), best),
        "finished forgotten": Mistake("finished hypotheses must be kept and compared", only(
            lambda h, max_length: len(h.tokens) == max_length), best),
        "not reordered": Mistake("move the decoding along with the beams: decoding.reorder(rows)",
                                 not_reordered, "The log_prob of every"),
    }


beam_search_checks = Part(
    [finds_the_best, penalises_length, width_one_is_greedy, reports_true_scores, batches],
    beam_mistakes, BEAM)

# ------------------------------------------------------------------ CachedDecoding(model, src)


BATCH = make_batch("copy", [[1, 2, 3, 4, 5, 6], [7, 8, 9]])


def small_model(**changes):
    torch.manual_seed(0)
    return Transformer(TransformerConfig(d_model=16, n_heads=2, **changes)).double().eval()


def cached_logits_agree(decoding_of, positions: str) -> Finding:
    findings = []
    for norm in ("pre", "post"):
        model = small_model(positions=positions, norm=norm)
        decoding = decoding_of(model, BATCH.src)
        with torch.no_grad():
            stepped = torch.stack([decoding.step(token) for token in BATCH.tgt_in.unbind(1)], dim=1)
            findings.append(agree(stepped, model(BATCH.src, BATCH.tgt_in), 1e-12))
    return together(*findings)


def same_logits_sinusoidal(decoding_of, ours):
    """The logits of every step are those of the whole answer at once (sinusoidal)."""
    return cached_logits_agree(decoding_of, "sinusoidal")


def same_logits_learned(decoding_of, ours):
    """The logits of every step are those of the whole answer at once (learned)."""
    return cached_logits_agree(decoding_of, "learned")


def same_logits_rotary(decoding_of, ours):
    """The logits of every step are those of the whole answer at once (rotary)."""
    return cached_logits_agree(decoding_of, "rotary")


def positions_computed(decoding_of, length: int, rows: int = 1) -> int:
    """How many positions go through the first decoder block until answers of this length are there."""
    model, computed = small_model(), []
    model.decoder.blocks[0].self_attention.project_query.register_forward_hook(
        lambda _, inputs, output: computed.append(inputs[0].shape[1]))
    decoding = decoding_of(model, torch.full((rows, 4), 5))
    for _ in range(length):
        decoding.step(torch.full((rows,), BOS))
    return sum(computed)


def runs_each_token_once(decoding_of, ours):
    """16 tokens take 16 positions through the decoder, not 1 + 2 + … + 16."""
    computed = positions_computed(decoding_of, 16)
    finding = agree(torch.tensor(computed), torch.tensor(16), 0)
    return finding._replace(figure=f"{computed} positions", gap=None)


def follows_its_rows(decoding_of, ours):
    """After reorder(rows) it goes on with the answers in their new order."""
    model, rows, tokens = small_model(), torch.tensor([1, 0]), BATCH.tgt_in
    decoding = decoding_of(model, BATCH.src)
    for token in tokens[:, :3].unbind(1):
        decoding.step(token)
    decoding.reorder(rows)
    with torch.no_grad():
        expected = model(BATCH.src[rows], tokens[rows, :4])[:, -1]
    return agree(decoding.step(tokens[rows, 3]), expected, 1e-12)


def cache_mistakes(ours):
    class NotReordered(ours.CachedDecoding):
        def reorder(self, rows):
            self.rows = len(rows)
            if len(rows) != len(self.memory):  # only when the number changes
                super().reorder(rows)

    class AlwaysPositionZero(ours.CachedDecoding):
        def step(self, tokens):
            embed = self.model.embed
            self.model.embed = lambda tokens, start=0: embed(tokens, 0)
            try:
                return super().step(tokens)
            finally:
                del self.model.embed

    once = "run the newest token alone, and keep the keys and values of those before"
    return {
        "no cache": Mistake(once, ours.UncachedDecoding, "16 tokens take 16 positions"),
        "cache not reordered": Mistake("the beams change places: the cache has to follow, reorder(rows)",
                                       NotReordered, "After reorder"),
        "position always 0": Mistake("every new token is told that it is the first: count the cached ones",
                                     AlwaysPositionZero, "The logits of every step"),
    }


cached_decoding_checks = Part(
    [same_logits_sinusoidal, same_logits_learned, same_logits_rotary, runs_each_token_once, follows_its_rows],
    cache_mistakes, CACHE)

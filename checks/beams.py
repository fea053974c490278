"""What must hold for lesson 6's beam search."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from checks.trees import DECODING, EOS, enumerated, greedy_by_hand, no_answer
from common import lesson, numbers
from course.console.records import Finding
from course.data.tables import TreeDecoding, random_tree
from course.grading.checking import Mistake, Needed, Part, agree, at
from course.training.beams import vectorised_beam_search
from course.training.parts import exchanged

BOS, PAD = lesson("03_positional_encoding", "BOS", "PAD")
pad = lesson("05_mini_transformer").pad

BEAM = DECODING + (
    "decoding.reorder(rows (M,)) continues these M rows only. Return, for each source, a list of "
    "Hypothesis(tokens, log_prob, score, finished) or of such tuples, best first: tokens without BOS, up to "
    "and including EOS; score is log_prob / length^α. `trace` may be left out. "
    "Example: beam_search(decoding, 3, 4, 0.6)[0][0] is the best answer to source 0.")

class Watchful(TreeDecoding):
    """A decoding that raises Needed if the beams have changed without a reorder()."""

    def step(self, tokens):
        if len(tokens) != self.rows:
            raise Needed(f"step() got {len(tokens)} tokens, but the decoding has {self.rows} rows", REORDER)
        return super().step(tokens)


REORDER = "move the decoding along with the beams: decoding.reorder(rows), before the next step()"
SMALL_LEVELS = random_tree(sources=3, depth=4)
EVERY_ANSWER = [enumerated(SMALL_LEVELS, source, 4) for source in range(3)]


def best_scores(alpha: float) -> Tensor:
    """The three best scores of each source among all possible answers."""
    return torch.tensor([sorted((total / len(tokens) ** alpha for tokens, total in found.items()),
                                reverse=True)[:3] for found in EVERY_ANSWER])


def wide_beam_agrees(beam_search, alpha: float) -> Finding:
    """The three best scores of a beam that drops nothing; the diagnosis shows those of one source."""
    found, best = beam_search(Watchful(SMALL_LEVELS), 400, 4, alpha), best_scores(alpha)
    scores = torch.tensor([[hypothesis[2] for hypothesis in beams[:3]] for beams in found])
    finding = agree(scores, best, 1e-5)
    if finding.holds or scores.shape != best.shape:
        return finding
    source = int((scores - best).abs().amax(dim=1).argmax())
    return finding._replace(diagnosis=f"the three best scores of source {source} are "
                                      f"{numbers(scores[source])}, and should be {numbers(best[source])}")


def finds_the_best(beam_search, ours):
    """A wide enough beam finds the three likeliest of all enumerated answers (α = 0)."""
    return wide_beam_agrees(beam_search, 0.0)


def penalises_length(beam_search, ours):
    """A wide enough beam also finds the three answers with the best log P / length^α (α = 1)."""
    return wide_beam_agrees(beam_search, 1.0)


def width_one_is_greedy(beam_search, ours):
    """Width 1 with α = 0 equals greedy decoding."""
    found = beam_search(Watchful(SMALL_LEVELS), 1, 4, 0.0)
    best = [list(beams[0][0]) for beams in found]
    return no_answer(found, EVERY_ANSWER) or agree(pad(best), greedy_by_hand(SMALL_LEVELS), 0)


def reports_true_scores(beam_search, ours):
    """The log_prob of every hypothesis of a narrow beam is the log-probability of its tokens."""
    found = beam_search(Watchful(SMALL_LEVELS), 3, 4, 0.6)
    pairs = [(hypothesis[1], EVERY_ANSWER[source].get(tuple(hypothesis[0]), math.nan))
             for source, beams in enumerate(found) for hypothesis in beams]
    return no_answer(found, EVERY_ANSWER) or agree(*torch.tensor(pairs).T, 1e-5)


NARROW = random_tree(sources=24, depth=6, vocabulary=4, seed=1)
for level in NARROW[1:]:
    level[::2, :, EOS] += 1.0  # half of the sources end early


def narrow_beams_agree(beam_search, alpha: float) -> Finding:
    """Compare the scores (24, width) of narrow beams with ours; −1000 where they find fewer answers."""
    finding = Finding(True)
    for width in (2, 3):
        found = beam_search(Watchful(NARROW), width, 6, alpha)
        decoding = TreeDecoding(NARROW)
        expected = vectorised_beam_search(
            lambda tokens, decoding=decoding: decoding.step(tokens).log_softmax(-1), decoding.reorder,
            torch.full((24,), BOS), width, 6, alpha, EOS, PAD)
        scores = [torch.tensor([[*(float(hypothesis[2]) for hypothesis in beams), *[-1000.0] * width][:width]
                                for beams in answers], dtype=torch.float64) for answers in (found, expected)]
        finding = at(f"width {width}", agree(*scores, 1e-5))
        if not finding.holds:
            break
    return finding


def keeps_the_beam_full(beam_search, ours):
    """An answer that ends takes no place from answers that go on: 2 · width candidates are ranked."""
    return narrow_beams_agree(beam_search, 0.0)


def stops_when_decided(beam_search, ours):
    """The search goes on until nothing alive could overtake the `width` finished answers (α = 1)."""
    return narrow_beams_agree(beam_search, 1.0)


def batches(beam_search, ours):
    """Sources searched together give the same hypotheses as each source searched by itself."""
    together = beam_search(Watchful(SMALL_LEVELS), 3, 4, 0.6)
    alone = [beam_search(Watchful([level[[source]] for level in SMALL_LEVELS]), 3, 4, 0.6)[0]
             for source in range(3)]
    same = [[tuple(h[0]) for h in beams] for beams in together] == [
        [tuple(h[0]) for h in beams] for beams in alone]
    return Finding(same, "the same hypotheses" if same else "different hypotheses")


def beam_mistakes(ours):
    search, everything = ours.beam_search, 10_000

    def rescored(score: Callable):
        """The right search with other scores: all its hypotheses, sorted again."""

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

    def with_beam(changed: type):
        """The right search, with another class for the beam of one source."""

        def beam_search(decoding, width, max_length, length_penalty=1.0):
            with exchanged({"Beam": changed}):
                return search(decoding, width, max_length, length_penalty)

        return beam_search

    class StopsEarly(ours.Beam):
        def decided(self, kept):
            return not kept or len(self.finished) == self.width

    class PresentLength(ours.Beam):
        def decided(self, kept):
            full = len(self.finished) == self.width
            return not kept or (full and kept[0][1].score <= self.finished[-1].score)

    class TooFew(ours.Beam):
        def continuations(self, log_probs):
            return super().continuations(log_probs)[: self.width]

    class EndsAnywhere(ours.Beam):
        def continuations(self, log_probs):
            return sorted(super().continuations(log_probs), key=lambda part: not part[1].finished)

    def raw_logits(decoding, width, max_length, length_penalty=1.0):
        with exchanged({"next_log_probs": lambda decoding, tokens: decoding.step(tokens)}):
            return search(decoding, width, max_length, length_penalty)

    best, penalty = "A wide enough beam finds", "A wide enough beam also finds"
    full, decided = "An answer that ends takes no place", "The search goes on until nothing alive"
    return {
        "EOS not counted": Mistake("EOS counts in the length", rescored(
            lambda h, alpha: h.log_prob / max(1, len(h.tokens) - 1) ** alpha), penalty),
        "BOS counted": Mistake("the length is one too long: BOS doesn't count", rescored(
            lambda h, alpha: h.log_prob / (len(h.tokens) + 1) ** alpha), penalty),
        "not divided": Mistake("the sum of log-probabilities was not divided by length^α", rescored(
            lambda h, alpha: h.log_prob), penalty),
        "cut off forgotten": Mistake("answers that max_length cuts off also compete", only(
            lambda h, max_length: h.finished), best),
        "finished forgotten": Mistake("finished hypotheses must be kept and compared", only(
            lambda h, max_length: len(h.tokens) == max_length), best),
        "not reordered": Mistake(REORDER, not_reordered, "The log_prob of every"),
        "no log_softmax": Mistake("sum log-probabilities, not logits: log_softmax() comes first",
                                  raw_logits, best),
        "width candidates": Mistake("rank 2 · width candidates: up to `width` of them may end",
                                    with_beam(TooFew), full),
        "ends anywhere": Mistake("an answer ends only if its EOS is among the `width` best candidates",
                                 with_beam(EndsAnywhere), full),
        "stops early": Mistake("`width` finished answers aren't the end: those alive may still overtake them",
                               with_beam(StopsEarly), decided),
        "present length": Mistake("answers alive may still grow: bound scores by the length they can reach",
                                  with_beam(PresentLength), decided),
    }


beam_search_checks = Part(
    [finds_the_best, penalises_length, width_one_is_greedy, reports_true_scores, keeps_the_beam_full,
     stops_when_decided, batches],
    beam_mistakes, BEAM)

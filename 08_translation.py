"""Lesson 8. From digits to language

The model stays the same; only the tokens change. A sentence goes in and its translation comes out, both cut
into lesson 7's pieces, learned from pairs of sentences:

    text → pieces → ids → lesson 5's Transformer → lesson 6's decoders → ids → text

The pairs come from a grammar of English and French that was written for this course (grammar/). It has some
350 everyday words, and one translation for each sentence. So this lesson shows whether a small model can
combine learned rules in new sentences, not how well it would translate a newspaper.

You need lessons 5 to 7. You will build batches by length and the BLEU score, and train a translator. The
lesson runs in two to three minutes and takes an hour and a half to read. --pairs trains on your own pairs.
"""

import course.console.startup  # noqa: F401 (before torch: it reports what fails in the imports below)
import math
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from checks.batches import batches_by_length_checks
from checks.bleu import corpus_bleu_checks
from common import (
    Picture,
    check,
    check_mistakes,
    check_part,
    lesson,
    lesson_parser,
    narrate,
    parameters,
    shows,
    table,
)
from course.console.chat import converse
from course.console.files import short_path
from course.console.options import sentence
from course.console.records import EndHere
from course.data import challenge
from course.data.alignment import found_by_kind, partners, slips_in, word_weights
from course.data.bleu_words import tokens_13a, words_for
from course.data.corpus import Corpus
from course.data.lengths import similar_length, tens
from course.data.phenomena import never_trained, over_time
from course.data.slips import harder, la_for_l, renamed, uncapped, unmarked
from course.data.splits import by_source, known_sources
from course.grading.own import NOTHING, Own
from course.pages.translator import write_translator
from course.published.exporting import export
from course.training.base import Base
from course.training.challenge import step_challenge
from course.training.command_line import CommandLine, steps_asked_for
from course.training.comparing import best, histories, summaries
from course.training.engine import Run
from course.training.experiment import fresh_run
from course.training.on_texts import TextsExperiment, certainties
from course.training.processes import all_processes
from course.training.replies import limit_of, sentences_in
from course.training.translating import (
    REAL_PAIRS,
    TranslationModel,
    TranslationTraining,
    defaults_for,
    recipe_line,
)
from figures import translation as drawing
from figures.training import draw_comparison
from grammar.sentences import PHENOMENA, Pair, by_phenomenon, words_of

record_attention = lesson("02_multi_head_attention").record_attention
PAD, BOS, EOS = lesson("03_positional_encoding", "PAD", "BOS", "EOS")
(
    BY_HAND, Batch, Transformer, evaluate, pad, sequence_job, teacher_forcing,
) = lesson(
    "05_mini_transformer", "BY_HAND", "Batch", "Transformer", "evaluate", "pad", "sequence_job",
    "teacher_forcing")
CachedDecoding, best_answers, fast_beam_search, greedy_decode = lesson(
    "06_decoding", "CachedDecoding", "best_answers", "fast_beam_search", "greedy_decode")
WORD, BytePairEncoding, split_words = lesson("07_subwords", "WORD", "BytePairEncoding", "split_words")

__all__ = ["SIGNATURE", "BatchesByLength", "Bleu", "Texts", "TranslationExperiment",
           "TranslationModel", "TranslationTraining", "corpus_bleu", "make_run", "ngrams",
           "tokens_13a", "translate"]

# ------------------------------------------------------------------ batches by length


class BatchesByLength:
    """Batch number `step` of sources and targets (lists of ids): rows of about the same length.

    Each epoch has every pair once. The order follows from seed and epoch, even in a resumed run.
    """

    def __init__(self, sources: Sequence[list[int]], targets: Sequence[list[int]], size: int, seed: int):
        self.sources, self.targets, self.size, self.seed = sources, targets, size, seed
        self.lengths = np.array([len(source) for source in sources]), np.array([len(t) for t in targets])
        self.epoch, self.order = -1, []

    def __len__(self) -> int:
        """Batches of an epoch."""
        return -(-len(self.sources) // self.size)

    def __call__(self, step: int) -> Batch:
        """The batch of a step, counted over all epochs."""
        epoch, number = divmod(step, len(self))
        if epoch != self.epoch:
            self.epoch, self.order = epoch, self.order_of(epoch)
        return self.batch(self.order[number])

    def order_of(self, epoch: int) -> list[np.ndarray]:
        """The rows of every batch of an epoch."""
        random = np.random.default_rng((self.seed, epoch))
        rows = random.permutation(len(self.sources))
        by_length = rows[np.lexsort([lengths[rows] for lengths in self.lengths])]
        batches = np.split(by_length, range(self.size, len(rows), self.size))
        return [batches[place] for place in random.permutation(len(batches))]

    def batch(self, rows: Iterable[int]) -> Batch:
        return make_batch([self.sources[row] for row in rows], [self.targets[row] for row in rows])


def make_batch(sources: list[list[int]], targets: list[list[int]]) -> Batch:
    """Lists of ids → a batch as in lesson 5."""
    return Batch(pad(sources), *teacher_forcing(targets))


# ------------------------------------------------------------------ BLEU

SIGNATURE = "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp"  # as sacreBLEU writes it, without its version
ORDERS = "p₁", "p₂", "p₃", "p₄"


class Bleu(NamedTuple):
    """BLEU from 0 to 100, and what it is made of."""

    score: float
    precisions: list[float]  # in percent, of 1 to 4 words in a row
    brevity: float  # the penalty for answers that are too short, 0 to 1
    answer_length: int
    reference_length: int


def ngrams(tokens: list[str], n: int) -> Counter:
    """How often each run of n tokens occurs."""
    return Counter(zip(*(tokens[start:] for start in range(n))))


def corpus_bleu(answers: Sequence[str], references: Sequence[str], smooth: str = "exp",
                tokenize: Callable[[str], list[str]] = tokens_13a) -> Bleu:
    """BLEU of a whole corpus, one reference for each answer (Papineni et al. 2002, section 2.3).

    For n = 1 … 4, p_n is the fraction of the answers' n-grams that occur in the reference, each at most as
    often as the reference has it (clipped). BLEU is the geometric mean of the four, times the brevity
    penalty. For an n without a match, smooth="exp" takes half of one match, then a quarter and so on; "none"
    takes 0. ValueError for lists of different length.
    """
    if smooth not in ("exp", "none") or len(answers) != len(references):
        raise ValueError(f"{len(answers)} answers, {len(references)} references, smooth {smooth!r}: "
                         "the numbers must be equal, and smooth exp or none")
    matches, totals, lengths = [0] * 4, [0] * 4, [0, 0]
    for answer, reference in zip(answers, references):
        texts = tokenize(answer.rstrip()), tokenize(reference.rstrip())
        lengths = [length + len(text) for length, text in zip(lengths, texts)]
        for n in range(4):
            said, wanted = (ngrams(text, n + 1) for text in texts)
            matches[n] += (said & wanted).total()  # the smaller count of each
            totals[n] += said.total()
    precisions = smoothed(matches, totals, smooth)
    brevity = min(1.0, math.exp(1 - lengths[1] / lengths[0])) if lengths[0] else float(lengths[1] == 0)
    mean = math.exp(sum(map(math.log, precisions)) / 4) if all(precisions) else 0.0
    return Bleu(brevity * mean, precisions, brevity, *lengths)


def smoothed(matches: list[int], totals: list[int], smooth: str) -> list[float]:
    """matches / totals in percent, those without a match as `smooth` says; all 0 if nothing matches."""
    precisions, halved = [0.0] * 4, 1.0
    for n in range(4 if any(matches) else 0):
        if not matches[n] and smooth == "exp":
            halved /= 2
        share = matches[n] or (halved if smooth == "exp" else 0.0)
        precisions[n] = 100 * share / totals[n] if totals[n] else 0.0
    return precisions


def scored(pairs: Sequence[Pair], answers: Sequence[str]) -> tuple[float, Bleu]:
    """(the fraction right letter by letter, BLEU); BLEU of characters if a script has no spaces."""
    references = [pair.target for pair in pairs]
    right = sum(answer == reference for answer, reference in zip(answers, references))
    return right / len(pairs), corpus_bleu(answers, references, tokenize=words_for(references)[1])


def signature(pairs: Sequence[Pair]) -> str:
    """The signature of scored(), and a note if BLEU counts characters."""
    cut, _ = words_for(pair.target for pair in pairs)
    said = "" if cut == "13a" else ("\nThese references have no spaces between words: BLEU counts runs of "
                                    "characters here, and isn't comparable with BLEU of words.")
    return SIGNATURE.replace("13a", cut) + said


# ------------------------------------------------------------------ translation


def answer_limit(model: Transformer, source: Sequence[int]) -> int:
    """Pieces that an answer may have: twice the source's, rounded up to tens, plus 20; max_len at most."""
    return min(model.config.max_len, 20 * tens(source) + 20)


def translate(model: Transformer, encoding: BytePairEncoding, sentences: Sequence[str], width: int = 1,
              length_penalty: float = 1.0, rows: int = 100) -> list[str]:
    """The model's answers, greedy or by a beam of `width`, `rows` sentences of similar length at once.

    Only sentences with the same answer_limit() are translated together, so no answer depends on others. An
    empty sentence has an empty answer. ValueError for more pieces than max_len.
    """
    device = next(model.parameters()).device
    sources = [encoding.encode(sentence) for sentence in sentences]
    longest, max_len = max(map(len, sources), default=0), model.config.max_len
    if longest > max_len:
        raise ValueError(f"a sentence of {longest} pieces is too long for a model with max_len {max_len}")
    answers = [""] * len(sources)
    for some in similar_length(sources, rows):
        src = pad([sources[row] for row in some]).to(device)
        limit, decoding = answer_limit(model, sources[some[0]]), CachedDecoding(model, src)
        if width == 1:
            found = greedy_decode(decoding, limit)
        else:
            found = best_answers(fast_beam_search(decoding, width, limit, length_penalty))
        for row, ids in zip(some, found.tolist()):
            answers[row] = encoding.decode(ids)
    return answers


# ------------------------------------------------------------------ texts and runs


class Texts(Corpus):
    """The pairs of a training run, and what a model needs of them."""

    pieces, words_of, longest = BytePairEncoding, staticmethod(split_words), TranslationModel.max_len

    @cached_property
    def batches(self) -> BatchesByLength:
        return BatchesByLength(*self.encoded("train"), self.training.batch_size, self.training.seed)

    @cached_property
    def held_out(self) -> list[Batch]:
        """Up to 300 validation pairs, in batches of 100."""
        pairs = sorted(self.splits["validation"][:300], key=lambda pair: len(pair.source))
        return [self.batch(pairs[start : start + 100]) for start in range(0, len(pairs), 100)]

    def batch(self, pairs: Iterable[Pair]) -> Batch:
        return make_batch(*self.encode(pairs))

    def validate(self, model: Transformer) -> dict[str, float]:
        """Loss, fractions right for each phenomenon, BLEU and exact match."""
        pairs = self.splits["validation"][:300]
        device = next(model.parameters()).device
        losses = [(evaluate(model, batch.to(device), lambda model, src, length: src[:, :0]).loss,
                   (batch.tgt_out != PAD).sum().item()) for batch in self.held_out]
        answers = translate(model, self.encoding, [pair.source for pair in pairs])
        right = [answer == pair.target for answer, pair in zip(answers, pairs)]
        shares = {f"right: {name}": share for name, (_, share) in by_phenomenon(pairs, right).items()}
        loss = sum(loss * count for loss, count in losses) / sum(count for _, count in losses)
        exact, bleu = scored(pairs, answers)
        return {"validation_loss": loss, **shares, "bleu": bleu.score,
                "unsure_below": limit_of(self.certainties(model, pairs, answers)), "exact_match": exact}

    def certainties(self, model: Transformer, pairs: Sequence[Pair], answers: Sequence[str]) -> list[float]:
        """How sure the model is of each answer, as in replies."""
        most, found = model.config.max_len - 1, []
        for start in range(0, len(pairs), 100):
            sources, _ = self.encode(pairs[start : start + 100])
            ids = [self.encoding.encode(answer)[:most] for answer in answers[start : start + 100]]
            found += certainties(model, make_batch(sources, ids))
        return found


def make_run(config: TranslationModel, training: TranslationTraining, device: torch.device, texts: Texts,
             own: Own = NOTHING, base: Base | None = None) -> Run:
    """A fresh run: lesson 5's model and loss with these batches."""
    config = replace(config, vocab_size=len(texts.encoding))
    return fresh_run(
        partial(Transformer, config),
        lambda model: sequence_job(model, training, lambda step: texts.batches(step), texts.validate),
        config, training, device, {"name": "translation", **texts.about}, BY_HAND, own, base=base)


GRADED = {"BatchesByLength": batches_by_length_checks, "corpus_bleu": corpus_bleu_checks}
OURS = sys.modules[__name__]  # the checks make the classic mistakes from its parts


# ------------------------------------------------------------------ the steps


class TranslationExperiment(TextsExperiment):
    """What the command line asked for, and its run."""

    history, default = "translation_history", "translation"
    texts_of, from_files = Texts, REAL_PAIRS
    challenge, translate = challenge, staticmethod(translate)

    def run_on(self, config: TranslationModel, training: TranslationTraining, texts: Texts) -> Run:
        return make_run(config, training, self.device, texts, self.own, self.base)

    def pairs(self, count: int | None = None) -> list[Pair]:
        """All test pairs, or the first `count`."""
        return self.texts.splits["test"][:count]

    def answers_to(self, sources: Sequence[str], **options: Any) -> list[str]:
        return translate(self.model, self.encoding, sources, **options)

    def batch_of(self, source: str, answer: str) -> Batch:
        """A batch of one pair; the answer is cut to the model's length."""
        encode, most = self.encoding.encode, self.model.config.max_len - 1
        return make_batch([encode(source)], [encode(answer)[:most]])

    @cached_property
    def answers(self) -> list[str]:
        """Greedy answers to the test."""
        return self.answers_to([pair.source for pair in self.pairs()])

    @cached_property
    def right(self) -> list[bool]:
        return [answer == pair.target for answer, pair in zip(self.answers, self.pairs())]


def step_the_corpus(experiment: TranslationExperiment):
    """The corpus

    English has one “the”, French has le, la, l' and les. Most adjectives come after their noun and take its
    gender and number; “not” becomes two words around the verb; an object pronoun goes before the verb. The
    grammar generates such sentences in both languages at once. Where English is ambiguous, the grammar
    decides: “you” is tu, or vous if “sir” or “madam” follows.

    Combinations of words are held out, not lines: an adjective with a noun, or a subject or object with a
    verb. Every test sentence has a combination that no training sentence has, so the model can't have
    memorised it. But the words themselves occur in training.
    """
    splits = experiment.texts.splits
    known = {name for pair in splits["train"] for name in pair.combinations}
    sources = {split: {pair.source for pair in pairs} for split, pairs in splits.items()}
    new, asked = never_trained(splits["test"], splits["train"])
    check("no source sentence is in two splits",
          sum(map(len, sources.values())) == len(set().union(*sources.values())))
    check("each test sentence has a combination that no training sentence has",
          all(pair.combinations - known for pair in splits["test"]))
    if experiment.is_default:
        check("fewer than 2 in 1,000 words of the test have a form that never occurs in training",
              len(new) < asked / 500, f"{len(new)} of {asked:,}")
    shown = [f"{pair.source}\n  {pair.target}" for pair in splits["test"][:4]]
    last = table("rules of the last pair", "", rows=[(name, PHENOMENA[name])
                                                     for name in sorted(splits["test"][3].phenomena)])
    rows = [(split, len(pairs), *(sum(len(words_of(pair[side])) for pair in pairs) / len(pairs)
                                  for side in (0, 1))) for split, pairs in splits.items()]
    return table("", "pairs", "words per sentence: English", "French", rows=rows), "\n".join(shown), last


def step_your_pairs(experiment: TranslationExperiment):
    """Your pairs

    A checksum of the source decides whether a pair is for training, validation or test, so all translations
    of one source stay together; case and punctuation don't count. All pairs of --valid and --test are taken,
    and their sources are left out of training.

    Are these really sentences and their translations? If not, use --columns.
    """
    splits = experiment.texts.splits
    sources = {split: {pair.source for pair in pairs} for split, pairs in splits.items()}
    check("no source is both in training and held out", not sources["train"] & set().union(
        *(found for split, found in sources.items() if split != "train")))
    rows = [(split, len(pairs), len(sources[split])) for split, pairs in splits.items()]
    two = "\n".join(f"{pair.source}\n  {pair.target}" for pair in splits["train"][:2])
    return two, table("", "pairs", "sources", rows=rows), "\n".join(experiment.texts.accounts)


def padding(batches: Iterable[Batch]) -> float:
    """The fraction of PAD in sources and decoder inputs."""
    tensors = [tensor for batch in batches for tensor in batch[:2]]
    return sum((tensor == PAD).sum().item() for tensor in tensors) / sum(tensor.numel() for tensor in tensors)


@shows(BatchesByLength.order_of)
def step_batches(experiment: TranslationExperiment):
    """Batches by length

    A batch is as wide as its longest sentence. The others are padded with PAD, which wastes computation.
    So pairs are shuffled, sorted by length and cut into batches, and the batches are shuffled. Pairs of equal
    length keep their shuffled order, so each epoch has different batches.
    """
    check_part(BatchesByLength, batches_by_length_checks, OURS)
    batches = experiment.texts.batches
    rows = np.random.default_rng(0).permutation(len(batches.sources))
    anyhow = np.split(rows, range(batches.size, len(rows), batches.size))[:100]
    shares = [padding(map(batches.batch, anyhow)), padding(batches(step) for step in range(len(anyhow)))]
    if not experiment.texts.files:
        check("batches by length have less than 10 % padding; random batches have over three times as much",
              shares[1] < min(0.1, shares[0] / 3))
    (pair,), encoding = experiment.pairs(1), experiment.texts.encoding
    rows = [(side, "|".join(encoding.texts_of(encoding.encode(text))))
            for side, text in zip(("source", "target"), pair)]
    compared = [("random", f"{shares[0]:.1%}"), ("by length", f"{shares[1]:.1%}")]
    return (table("batches", "padding", rows=compared),
            table("", f"pieces, of {len(encoding):,} in all", rows=rows, title=pair.source))


def step_training(experiment: TranslationExperiment):
    """Training

    The engine, the loss, Adam and the model are lesson 5's. Here the model is wider and has rotary positions,
    more heads, and an embedding row for each piece. Its feed-forward network is only 2 · d_model wide. Each
    validation translates at most 300 sentences greedily. “Exact match” is the fraction that is right letter
    by letter. BLEU measures how close the answers are to the references; its maximum is 100.
    """
    experiment.say(recipe_line(experiment.config, experiment.training))
    ended = experiment.train()
    run = experiment.run
    if not run.noted("bleu"):
        return ended  # nothing to draw
    bleu, exact = (run.noted(name)[-1] for name in ("bleu", "exact_match"))
    picture = Picture(experiment.file("translation_progress"), drawing.draw_progress(run.history),
                      f"After {len(run.history):,} steps {exact:.0%} of the validation sentences are right")
    if ended:
        return picture, ended
    if experiment.is_default:
        first, last = run.noted("validation_loss")[0], run.noted("validation_loss")[-1]
        check("the loss at the last validation is less than a tenth of that at the first", last < first / 10)
    facts = [("parameters", f"{parameters(run.model):,}"),
             ("of these in the embedding", f"{parameters(run.model.embedding):,}"),
             ("steps", f"{len(run.history) - experiment.begun_at:,}"),
             ("seconds of training steps", f"{sum(run.noted('seconds')[experiment.begun_at :]):.0f}"),
             ("BLEU, validation", f"{bleu:.1f}"), ("exact match, validation", f"{exact:.1%}")]
    return table("", "", rows=facts), picture, write_translator(experiment, translate)


@shows(ngrams, corpus_bleu)
def step_bleu(experiment: TranslationExperiment):
    """BLEU: how close is an answer to its reference?

    Exact match is strict: one wrong letter makes a sentence wrong. BLEU counts how many runs of 1, 2, 3 and 4
    words from the answer also occur in the reference. A run counts at most as often as the reference has it;
    otherwise all of “le le le le” would count. Over the corpus, p₁ … p₄ are the fractions of runs that count:

        BLEU = 100 · brevity · (p₁ · p₂ · p₃ · p₄)^¼        brevity = min(1, exp(1 − r / c))

    where c and r are the numbers of words in the answers and references. The brevity penalty punishes leaving
    out the hard parts. The mean of the sentences' BLEU is a different number (last column).

    BLEU can't see which words matter. Each row of the table makes one kind of slip and scores the references
    that this changes. A reader still understands la in place of l', but la costs more BLEU than a wrong name.
    Much of the cost is the additional word: BLEU's usual tokeniser, 13a, doesn't cut at the apostrophe, so
    la' (no space) costs less.

    So read some sentences as well (step 7), and publish the signature (last line) with the score. It says:
    one reference, capitals count, 13a cuts words, and a run length without matches gets half a match (exp).
    """
    check_part(corpus_bleu, corpus_bleu_checks, OURS)
    references = [pair.target for pair in experiment.pairs()]
    slips = {"la for l'": la_for_l, "la' for l'": partial(la_for_l, space=""),
             "another name": partial(renamed, name="Julie"), "lower case": str.lower}
    rows, scores = [], {}
    for name, slip in slips.items():
        hit = [text for text in references if slip(text) != text]
        bleu = corpus_bleu([slip(text) for text in hit], hit)
        singles = [corpus_bleu([slip(text)], [text]).score for text in hit]
        scores[name] = bleu.score
        rows.append((name, len(hit), bleu.score, *(f"{share:.0f}" for share in bleu.precisions),
                     bleu.brevity, sum(singles) / len(singles)))
    check("naming somebody else costs less BLEU than writing la for l'",
          scores["another name"] > scores["la for l'"] + 5)
    check("writing la' costs less than 85 % of the BLEU that la as a separate word costs",
          100 - scores["la' for l'"] < 0.85 * (100 - scores["la for l'"]))
    return table("slip", "sentences", "BLEU", *ORDERS, "brevity", "mean BLEU", rows=rows), SIGNATURE


def scores_table(found: dict[str, tuple[float, Bleu]], pairs: Sequence[Pair], counts: Iterable[int]):
    """A row for each set of sentences; the signature."""
    rows = [(name, count, f"{exact:.1%}", *(f"{share:.1f}" for share in (bleu.score, *bleu.precisions)),
             f"{bleu.brevity:.3f}") for (name, (exact, bleu)), count in zip(found.items(), counts)]
    return table("", "sentences", "exact", "BLEU", *ORDERS, "brevity", rows=rows), signature(pairs)


def step_how_good(experiment: TranslationExperiment):
    """How good is the translator?

    The first row is the test, answered greedily. The second row has other new sentences: each has as
    many words and combinations as a test sentence, but all its combinations occur in training. Some
    rules also differ in frequency, so the combinations may not be the only cause of the difference.
    """
    test, known = experiment.pairs(), experiment.texts.fresh_like(experiment.pairs())
    found = {"the test": scored(test, experiment.answers)}
    if known:
        found["known combinations"] = scored(known, experiment.answers_to([pair.source for pair in known]))
    if experiment.is_default:
        (exact, bleu), (known_exact, _) = found.values()
        check("more than 90 % of the test sentences are entirely right, and BLEU is above 96",
              exact > 0.9 and bleu.score > 96, f"{exact:.1%}, {bleu.score:.1f}")
        check("with known combinations more than 95 % of the sentences are right, and more than in the test",
              known_exact > max(0.95, exact))
    return scores_table(found, test, (len(test), len(known)))


def step_your_score(experiment: TranslationExperiment):
    """How good is the translator?

    Every sentence of each test is answered greedily and by a beam of 4 with length penalty 1. The reference
    is only one of many good translations, so a good answer may be counted as wrong.
    """
    found, tests = {}, experiment.texts.tests
    for name, pairs in tests.items():
        sources = [pair.source for pair in pairs]
        greedy = experiment.answers if pairs == experiment.pairs() else experiment.answers_to(sources)
        found[f"{name}, greedy"] = scored(pairs, greedy)
        found[f"{name}, beam 4"] = scored(pairs, experiment.answers_to(sources, width=4))
    return scores_table(found, experiment.pairs(), [len(pairs) for pairs in tests.values() for _ in range(2)])


ENOUGH = 30  # sentences that a fraction needs


def step_phenomena(experiment: TranslationExperiment):
    """Which rules are learned, and when

    The grammar knows which rules a sentence needs. The picture has a row for each rule that at least 30 of
    the 300 validation sentences need (in brackets: how many). It shows the fraction of these sentences
    entirely right at each validation. Rules are sorted by their mean over all validations.

    A sentence is wrong if any of its rules fails. So a row also reflects rules that often occur with its own.
    The table has the ten rules with the lowest fractions in the test, and how many sentences need them.
    """
    history = [record for record in experiment.run.history if "exact_match" in record]
    shares = over_time(history, experiment.texts.splits["validation"], ENOUGH)
    names = [name.rpartition(" (")[0] for name in shares]
    figure = drawing.draw_phenomena([record["step"] for record in history], shares)
    common = Counter(name for pair in experiment.texts.splits["train"] for name in pair.phenomena)
    found = by_phenomenon(experiment.pairs(), experiment.right)
    often = {name: pair for name, pair in found.items() if pair[0] >= ENOUGH}
    hardest = sorted(often, key=lambda name: found[name][1])[:10]
    rows = [(name, PHENOMENA[name].rpartition(": ")[2], f"{common[name]:,}", found[name][0],
             f"{found[name][1]:.0%}") for name in hardest]
    if experiment.is_default:
        check("if at least 30 test sentences need a rule, more than 60 % of these sentences are right",
              found[hardest[0]][1] > 0.6, f"{hardest[0]}: {found[hardest[0]][1]:.0%}")
    return (table("rule", "example", "training", "test", "right", rows=rows),
            Picture(experiment.file("translation_phenomena"), figure,
                    f"Right most often over all validations: “{names[0]}”; least often: “{names[-1]}”"))


def step_ten_sentences(experiment: TranslationExperiment):
    """Ten sentences

    Here are the first five test sentences, and the next five with wrong answers. Below a wrong answer
    are the reference and the words that differ, as answer → reference.
    """
    every = list(zip(experiment.pairs(), experiment.answers, experiment.right))
    wrong = [one for one in every if not one[2]]
    blocks = []
    for pair, answer, right in every[:5] + [one for one in every[5:] if not one[2]][:5]:
        told = [pair.source, f"  {answer}"]
        told += ["  right"] if right else [f"  {pair.target}", f"  {slips_in(answer, pair.target)}"]
        blocks.append("\n".join(told))
    slips = Counter(slips_in(answer, pair.target) for pair, answer, _ in wrong)
    often = "; ".join(f"{slip} ({count})" for slip, count in slips.most_common(3))
    return "\n".join(blocks), f"{len(wrong)} of {len(every):,} answers are wrong. Frequent slips: {often}"


@torch.no_grad()
def attended(experiment: TranslationExperiment, source: str, answer: str) -> Tensor:
    """(blocks, heads, target pieces and EOS, source pieces): cross-attention while the answer is written."""
    batch = experiment.batch_of(source, answer).to(experiment.run.device)
    with record_attention(experiment.model) as recorded:
        experiment.model(batch.src, batch.tgt_in)
    return torch.stack([weights[0].cpu() for name, weights in recorded.items()
                        if name.endswith("cross_attention")])


def cross_weights(experiment: TranslationExperiment, pair: Pair) -> Tensor:
    """(blocks, heads, target words, source words) while the right translation is written."""
    encoding = experiment.encoding
    source, target = (encoding.texts_of(encoding.encode(text)) for text in pair[:2])
    return word_weights(attended(experiment, *pair[:2]), pair, source, target)


@shows(word_weights)
def step_alignment(experiment: TranslationExperiment):
    """Where the model looks while it writes

    The grammar knows which English word each French word comes from (its partner). Does cross-attention look
    there, in 200 test sentences? Pieces are joined into words. A word counts as found if a head's largest
    weight is on a partner. The table compares the head that finds the most words with two rules: the word at
    the same place, and the first word. Nouns, verbs, adjectives and names are content words. The head finds a
    smaller fraction of the others (function words).

    The picture shows that head on a sentence in which the adjective moves. A weight says where a head looked,
    not whether the answer depends on that word.
    """
    pairs = experiment.pairs(200)
    weights = [cross_weights(experiment, pair) for pair in pairs]
    found = found_by_kind(weights, pairs)
    shares = next(iter(found.values())).heads
    block, head = divmod(int(shares.argmax()), shares.shape[1])
    surest = {name: kind.heads[block, head].item() for name, kind in found.items()}
    if experiment.is_default:
        content, function, _ = [*surest.values()][1:]
        check("the best head finds a partner for far more content words than the “same place” rule",
              content > found["content words"].same + 0.2, f"{content:.0%}")
        check("the best head finds a smaller fraction of function words than of content words",
              function < content - 0.1, f"{function:.0%}")
    moved = next((pair for pair, right in zip(pairs, experiment.right) if right and len(pair.source) < 50
                  and "adjective behind" in pair.phenomena), pairs[0])
    figure = drawing.draw_alignment(cross_weights(experiment, moved)[block, head], words_of(moved.source),
                                    words_of(moved.target), partners(moved),
                                    [f"block {number}" for number in range(len(shares))], shares)
    picture = Picture(experiment.file("translation_alignment"), figure,
                      f"Block {block}, head {head} finds a partner for {shares.max():.0%} of the words")
    rows = [(name, kind.words, *(f"{share:.0%}" for share in (surest[name], kind.same, kind.first)))
            for name, kind in found.items()]
    return table("French words", "count", f"block {block}, head {head}", "same place", "first word",
                 rows=rows), picture


def step_decoders(experiment: TranslationExperiment):
    """Greedy and beam search

    Lesson 6's greedy and beam search work unchanged, here on 60 test sentences. α is the length
    penalty: α = 0 compares sums of log-probabilities.
    """
    pairs = experiment.pairs(60)
    sources = [pair.source for pair in pairs]
    ways = {"greedy": {}} | {f"beam {width}, α = 1": {"width": width} for width in (2, 4, 8, 16)}
    ways["beam 4, α = 0"] = {"width": 4, "length_penalty": 0.0}
    rows, found = [], {}
    experiment.answers_to(sources)  # warm-up, not timed
    for name, options in ways.items():
        started = time.perf_counter()
        found[name] = answers = experiment.answers_to(sources, **options)
        seconds = time.perf_counter() - started
        right, bleu = scored(pairs, answers)
        length = sum(len(words_of(answer)) for answer in answers) / len(pairs)
        rows.append((name, bleu.score, f"{right:.0%}", length, f"{len(pairs) / seconds:.0f}"))
    if experiment.is_default:
        others = max(sum(one != two for one, two in zip(answers, found["greedy"]))
                     for answers in found.values())
        check("no strategy answers more than 5 % of the sentences differently from greedy",
              others <= len(pairs) / 20, f"{others} at most")
    return table("", "BLEU", "exact", "words per answer", "sentences per second", rows=rows), signature(pairs)


def step_limits(experiment: TranslationExperiment):
    """The model's limits

    The model was trained on single, complete sentences. The answer to two sentences is nearly always one
    sentence, and seldom the translation of the first. Without the punctuation mark at the end fewer answers
    are right; without the capital, very few. The comparison ignores both.

    “Simon” replaces a trained name. All pieces of “Simon” are known and need only be copied, yet hardly any
    sentence with it is right. The X of “Xavier” isn't in the grammar, so it becomes a byte that never occurs
    in training. --input adds a missing capital or mark, and lists unknown words.
    """
    pairs = experiment.pairs(200)
    cases = harder(pairs, experiment.pairs())
    compared = {"no mark": unmarked, "no capital": uncapped}
    shares, rows, answers = {}, [], {}
    for name, texts in cases.items():
        answers[name] = experiment.answers_to([source for source, _ in texts])
        same = compared.get(name, str)
        shares[name] = sum(same(answer) == same(target) for answer, (_, target) in zip(
            answers[name], texts)) / max(1, len(texts))
        rows.append((name, len(texts), f"{shares[name]:.0%}", answers[name][0] if texts else ""))
    encode = experiment.encoding.encode
    met = {id for pair in experiment.texts.splits["train"] for id in encode(pair.source)}
    if experiment.is_default:
        ends = sum(len(re.findall(r"[.?]", answer)) == 1 for answer in answers["two in a row"])
        first = sum(answer == one.target for answer, one in zip(answers["two in a row"], pairs[::2]))
        check("more than nine in ten answers to two sentences have only one full stop or question mark",
              ends > 0.9 * len(pairs) / 2, f"{ends} of {len(pairs) // 2}")
        check("fewer than a quarter of the answers to two sentences translate the first one",
              first < len(pairs) / 8, f"{first}")
        check("without the mark fewer are right; without the capital under half of those and under a quarter",
              shares["one sentence"] > shares["no mark"] > 2 * shares["no capital"]
              and shares["no capital"] < 0.25)
        check("Simon's pieces occur in training, but under a tenth of the sentences with Simon are right",
              {*encode("Simon"), *encode(" Simon")} <= met and shares["with Simon"] < 0.1)
        check("Xavier needs an id that never occurs in training, and no sentence with Xavier is right",
              bool({*encode("Xavier")} - met) and shares["with Xavier"] == 0)
    return table("", "count", "right", "the first answer", rows=rows)


def step_unsure(experiment: TranslationExperiment):
    """When is the model unsure?

    The certainty of an answer is the geometric mean of the probabilities of its pieces. The limit is
    chosen so that nine in ten answers to validation sentences are more certain. --input and --chat mark
    answers below the limit as unsure. The table compares them with the other test answers.
    """
    pairs, noted = experiment.pairs(), experiment.run.noted("unsure_below")
    limit = (noted or [experiment.texts.validate(experiment.model)["unsure_below"]])[-1]
    sure = experiment.texts.certainties(experiment.model, pairs, experiment.answers)
    rows, exact = [], {}
    for name, marked in (("unsure", True), ("not marked", False)):
        some = [(pair, answer) for pair, answer, one in zip(pairs, experiment.answers, sure)
                if (one < limit) == marked]
        if some:
            exact[name], bleu = scored(*zip(*some))
            rows.append((name, len(some), f"{1 - exact[name]:.1%}", bleu.score))
    if experiment.is_default:
        check("unsure answers are wrong more than ten times as often as the others",
              1 - exact["unsure"] > 10 * (1 - exact["not marked"]))
    return table(f"unsure below {limit:.0%}", "count", "wrong", "BLEU", rows=rows)


def step_broken_on_purpose(experiment: TranslationExperiment):
    """Broken on purpose

    Files of pairs often have several translations of one source. Here each source of the test gets a second
    line. If lines are split at random, most held-out sources also occur in training. Lower-casing answer and
    reference raises BLEU, and treating l' as a separate word raises it again. Without a mask on the padding,
    answers depend on the rest of the batch.
    """
    pairs = experiment.pairs()
    lines = [(pair.source, f"{pair.target}{mark}") for pair in pairs for mark in ("", " !")]
    order = np.random.default_rng(experiment.options.seed).permutation(len(lines))
    shuffled, by_lines = [lines[row] for row in order], by_source(lines, per_cent=10)
    leaked = known_sources(shuffled[:200], shuffled[200:])
    kept = known_sources(by_lines["test"], by_lines["train"])
    references = [pair.target for pair in pairs]
    slipped = [la_for_l(text).lower() for text in references]
    lowered = [text.lower() for text in references]
    bleu = {"BLEU, la for l' and no capitals": corpus_bleu(slipped, references),
            "the same, both texts lower-cased": corpus_bleu(slipped, lowered),
            "the same, with l' as a separate word": corpus_bleu(slipped, lowered, tokenize=words_of)}
    plain, both, finer = (one.score for one in bleu.values())
    check("lower-casing answer and reference raises BLEU by over 5; l' as a separate word by over 1 more",
          both > plain + 5 and finer > both + 1)
    check("if lines are split at random, more than half of the held-out sources are in training",
          leaked > 0.5, f"{leaked:.0%}")
    check("if lines are split by source, no source of the test is in training", kept == 0)
    rows = [("lines split at random: test sources known", f"{leaked:.0%}"),
            ("lines split by source: the same", f"{kept:.0%}")]
    rows += [(name, f"{score.score:.1f}") for name, score in bleu.items()]
    rows += [(f"exact match, padding {how}", f"{share:.1%}") for how, share in unmasked(experiment).items()]
    return table("", "", rows=rows), check_mistakes(OURS, *GRADED.values())


def unmasked(experiment: TranslationExperiment) -> dict[str, float]:
    """Exact match on 200 test sentences in one batch, the source's padding masked or not."""
    model, pairs = experiment.model, experiment.pairs(200)
    batch = experiment.texts.batch(pairs).to(experiment.run.device)
    found = {}
    for how, mask in (("masked", Transformer.src_mask), ("not masked", lambda model, src: torch.ones_like(
            Transformer.src_mask(model, src)))):
        model.src_mask = partial(mask, model)
        try:
            ids = greedy_decode(CachedDecoding(model, batch.src), 60)
        finally:
            del model.src_mask
        answers = [experiment.encoding.decode(row) for row in ids.tolist()]
        found[how], _ = scored(pairs, answers)
    check("without a mask on the padding, fewer of 200 sentences are right than with one",
          found["not masked"] < found["masked"] - 0.02)
    return found


def step_your_sentence(experiment: TranslationExperiment):
    """Your sentence

    Each sentence is translated by itself. Below are the pieces of the first, and the beam's answers. The
    score is the mean log-probability per piece.
    """
    model, encoding, asked = experiment.model, experiment.encoding, sentences_in(experiment.options.input)
    try:
        replies = [experiment.replies.of(text) for text in asked]
    except ValueError as error:  # too long, or no text
        return EndHere(str(error), 2)
    text, answer, _ = replies[0]
    src = pad([encoding.encode(text)]).to(experiment.run.device)
    found = fast_beam_search(CachedDecoding(model, src), 4, answer_limit(model, src[0]))[0]
    rows = [("greedy", answer, "")]
    rows += [("beam 4", encoding.decode(one.tokens), f"{one.score:.3f}") for one in found]
    last = attended(experiment, text, answer)[-1]
    names = [*encoding.texts_of(encoding.encode(answer)[: model.config.max_len - 1]), "EOS"]
    figure = drawing.draw_own_sentence(last.mean(0), encoding.texts_of(src[0].tolist()), names)
    picture = Picture(experiment.file("translation_your_sentence"), figure,
                      "The mean of all heads of the last cross-attention, for each piece written")
    pieces = "|".join(encoding.texts_of(src[0].tolist()))
    said = "\n".join("\n".join([text, f"  {reply.answer}", *(f"  ({note})" for note in reply.notes)])
                     for text, reply in zip(asked, replies))
    return said, f"{len(src[0])} pieces: {pieces}", table("", "answer", "score", rows=rows), picture


def step_export(experiment: TranslationExperiment):
    """Your translator in a folder

    load.py needs nothing from this course, only the packages torch, safetensors and tokenizers. It translates
    each text as it is, without the repairs of --input.
    """
    folder = experiment.options.export
    try:
        files = export(folder, experiment.model, asdict(experiment.model.config), experiment.encoding, WORD)
    except ValueError as error:
        return EndHere(str(error), 2)
    return (table("file", "bytes", rows=[(short_path(path), path.stat().st_size) for path in files]),
            f'python "{short_path(files[-1])}" "The cat sleeps."')


def step_compare(experiment: TranslationExperiment):
    """Several values compared

    The runs differ in one option only. BLEU is measured on at most 300 validation sentences.
    """
    name, _ = experiment.options.compare
    found = experiment.compared(lambda run: run.noted("exact_match")[-1])
    rows = [(str(value), parameters(found[value].runs[0].model),
             " ".join(f"{run.noted('bleu')[-1]:.1f}" for run in found[value].runs), *summary)
            for value, summary in summaries(found).items()]
    figure = draw_comparison(name, histories(found), "bleu", "BLEU on validation sentences")
    picture = Picture(experiment.file(f"translation_compare_{name}"), figure,
                      f"{name} = {best(found)} gets the largest fraction of validation sentences right")
    return table(name, "parameters", "BLEU", "seconds", "exact match", rows=rows), picture


def step_what_next(experiment: TranslationExperiment):
    """What now?

    Read: corpus_bleu, then translate, then make_run.

    Change: (1) --positions none: what still works? (2) --vocab 100 makes short pieces. (3) Add a
    line to grammar/nouns.tsv, train again, and try it with --input. (4) --reverse translates into English.
    (5) --compare max_pairs=6000,30000,60000: how much data is needed?

    Write it yourself: --template my_translation.py, then --grade my_translation.py. Real pairs, such as
    Tatoeba's: --pairs FILE. Train further: --from CHECKPOINT. Without the course: --export FOLDER.
    """


# ------------------------------------------------------------------ the command line

ANY_PAIRS = __doc__.partition("The pairs come from a grammar")[0]  # true of other pairs as well
COMMAND_LINE = CommandLine(
    TranslationModel, TranslationTraining, Transformer, TranslationExperiment,
    ("max_pairs", "vocab", "d_model", "n_heads", "n_layers", "positions", "norm", "lr", "warmup", "dropout",
     "label_smoothing", "weight_decay", "batch_size", "attention"),
    defaults_for)


def main():
    parser = lesson_parser(__doc__, GRADED)
    COMMAND_LINE.add_options(parser)
    parser.add_argument("--input", type=sentence, metavar="SENTENCE", help="translate a sentence, then exit")
    parser.add_argument("--chat", action="store_true", help="translate line after line, then exit")
    parser.add_argument("--challenge", action="store_true", help="try 200 hand-written sentences, then exit")
    parser.add_argument("--export", type=Path, metavar="FOLDER",
                        help="write weights, pieces and a script needing nothing from this course, then exit")
    experiment = COMMAND_LINE.parsed(parser)
    options = experiment.options
    steps = [
        step_the_corpus,
        step_batches,
        step_training,
        step_bleu,
        step_how_good,
        step_phenomena,
        step_ten_sentences,
        step_alignment,
        step_decoders,
        step_limits,
        step_unsure,
        step_broken_on_purpose,
        step_what_next,
    ]
    of_pairs = [step_batches, step_training, step_your_score, step_ten_sentences, step_decoders,
                step_unsure]
    further = {"challenge": [step_challenge], "input": [step_your_sentence], "export": [step_export],
               "compare": [step_compare], "pairs": [step_your_pairs, *of_pairs], "reverse": of_pairs}
    if options.chat:
        experiment.say("Type one or more sentences; an empty line ends.")
        torch.set_num_threads(options.threads or 1)
        converse(lambda line: experiment.replies.to(line), options.outputs)
        return
    with all_processes():
        narrate(options, ANY_PAIRS if options.pairs or options.input or options.reverse else __doc__,
                steps_asked_for(options, steps, further, step_training), experiment)


if __name__ == "__main__":
    main()

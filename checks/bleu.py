"""What must hold for lesson 8's BLEU."""

import math
import random
from statistics import mean

import torch

from course.console.records import Finding
from course.grading.checking import Mistake, Part, agree, at, refused, together

CAT = "the cat sits on the small mat"
OTHER = "a dog sleeps in the sun today"


def corpora(seed: int) -> tuple[list[str], list[str]]:
    """Answers and references of four kinds of words, which repeat themselves; each n has a match."""
    draw = random.Random(seed)
    references = [" ".join(draw.choices("abcd", k=draw.randint(3, 15))) for _ in range(8)]
    answers = [" ".join(draw.choices("abcd", k=draw.randint(1, 15))) for _ in range(8)]
    return [*answers, CAT], [*references, f"{CAT} now"]


# ------------------------------------------------------------------ the formula, written with lists only


def plain_bleu(answers: list[list[str]], references: list[list[str]]) -> list[float]:
    """[score, the four precisions in percent, brevity penalty] of texts that are cut already, unsmoothed."""
    precisions = []
    for n in (1, 2, 3, 4):
        matches = total = 0
        for answer, reference in zip(answers, references):
            left = [reference[i : i + n] for i in range(len(reference) - n + 1)]
            for i in range(len(answer) - n + 1):
                total += 1
                if answer[i : i + n] in left:
                    left.remove(answer[i : i + n])  # each place of the reference counts once
                    matches += 1
        precisions.append(matches / total if total else 0.0)
    said, wanted = sum(map(len, answers)), sum(map(len, references))
    brevity = 1.0 if said >= wanted else math.exp(1 - wanted / said) if said else 0.0
    score = brevity * math.prod(precisions) ** (1 / 4)
    return [100 * score, *(100 * share for share in precisions), brevity]


def numbers_of(bleu) -> torch.Tensor:
    return torch.tensor([bleu.score, *bleu.precisions, bleu.brevity], dtype=torch.float64)


def compare(implementation, answers: list[str], references: list[str], hint: str = "") -> Finding:
    """Finding: score, precisions and brevity are those of the formula, for texts that spaces cut."""
    expected = plain_bleu([text.split() for text in answers], [text.split() for text in references])
    return numbers_agree(implementation(answers, references, "none"), expected, hint)


def numbers_agree(bleu, expected: list[float], hint: str) -> Finding:
    """Finding: the numbers are these; the figure names the first that differs."""
    found = numbers_of(bleu)
    finding = agree(found, torch.tensor(expected, dtype=torch.float64), 1e-9, hint)
    if finding.holds or len(found) != len(expected):
        return finding
    precisions = ("words", *(f"{n} words in a row" for n in (2, 3, 4)))
    names = ("BLEU", *(f"the precision of {what}" for what in precisions), "the brevity penalty")
    wrong = [row for row in zip(names[1:] + names[:1], found.tolist()[1:] + found.tolist()[:1],
                                expected[1:] + expected[:1]) if not abs(row[1] - row[2]) <= 1e-9]
    name, is_now, should = wrong[0]
    return finding._replace(figure=f"{name} is {is_now:.4g}, expected {should:.4g}")


def score_is(bleu, expected: float, hint: str) -> Finding:
    finding = agree(torch.tensor(bleu.score, dtype=torch.float64),
                    torch.tensor(expected, dtype=torch.float64), 1e-9, hint)
    return finding if finding.holds else finding._replace(figure=f"{bleu.score:.4g}, expected {expected:.4g}")


# ------------------------------------------------------------------ corpus_bleu(answers, references, smooth)


def is_100_for_equal_texts(implementation, ours):
    """Answers that equal their references get a score of 100."""
    return score_is(implementation([CAT, OTHER], [CAT, OTHER]), 100.0, "every precision is 100, brevity 1")


def equals_the_formula(implementation, ours):
    """Score, precisions and brevity equal the formula's on random corpora."""
    return together(*(at(f"corpus {seed}", compare(implementation, *corpora(seed))) for seed in range(8)))


def clips_its_counts(implementation, ours):
    """A word counts at most as often as the reference has it."""
    return compare(implementation, ["the the the the the the the", OTHER], ["the cat sits on the mat", OTHER],
                   "take the smaller of the two counts")


def compares_the_lengths_of_the_corpora(implementation, ours):
    """Brevity compares the number of words in all answers with the number in all references."""
    first, second = "on the small mat", f"{OTHER} and again"
    findings = [compare(implementation, *texts, "sum the words of all sentences, then compare")
                for texts in (([first, OTHER], [CAT, OTHER]), ([first, second], [CAT, OTHER]))]
    return together(*findings)


def sums_over_the_corpus(implementation, ours):
    """Matches are summed over all sentences before anything is divided; the score isn't a mean of scores."""
    return compare(implementation, ["the cat sits on a mat today", OTHER, "the cat sits here now"],
                   [CAT, OTHER, "the cat sits here too"], "sum matches and totals over the sentences first")


def smooths_orders_without_a_match(implementation, ours):
    """An order (n words in a row) without a match counts as half a match, the next such order as a quarter;
    with smooth="none" the score is 0.
    """
    answers, references = ["the cat sits here and a dog"], ["the cat runs with a fast dog"]  # 4, 1, 0, 0
    expected = 100 * (4 / 7 * 1 / 6 * (1 / 2) / 5 * (1 / 4) / 4) ** (1 / 4)
    plain = score_is(implementation(answers, references, "none"), 0.0, "none: a precision of 0 makes BLEU 0")
    hint = "exp: half a match for the first order without one, a quarter for the second"
    return together(score_is(implementation(answers, references), expected, hint), plain)


def is_0_without_any_match(implementation, ours):
    """The score is 0 if no word is right, and for empty answers."""
    return together(*(score_is(implementation(*texts), 0.0, "no match at all gives 0") for texts in (
        (["x y z x y"], [CAT]), (["", ""], [CAT, OTHER]), (["x y z x y"], [""]))))


def takes_empty_answers(implementation, ours):
    """An empty answer among others adds no match, and its missing words count for brevity."""
    return compare(implementation, ["", OTHER, "so"], [CAT, OTHER, "so it is"],
                   "an empty answer counts for brevity")


def minds_the_case(implementation, ours):
    """Capitals matter."""
    return compare(implementation, [CAT.title(), OTHER], [CAT, OTHER], "leave the case as it is")


def cuts_at_marks(implementation, ours):
    """Words are cut as 13a cuts them: each mark is a word, except . and , between digits."""
    cut = "Non , merci ! ( Il a 1,000.5 euros ; ou 3 - 4 . ) l'eau"
    written = "Non, merci! (Il a 1,000.5 euros; ou 3-4.) l'eau"
    hint = "cut both texts with tokenize()"
    numbers = compare(implementation, ["it costs 1 , 5 now and here"], ["it costs 1,5 now and here"], hint)
    return together(score_is(implementation([written], [cut]), 100.0, hint), numbers)


def takes_another_tokenizer(implementation, ours):
    """With tokenize=list BLEU counts runs of characters, and almost any word has a run of four."""
    answers, references = ["les chats noirs", "il dort"], ["les chiens noirs", "elle dort"]
    expected = plain_bleu([*map(list, answers)], [*map(list, references)])
    return numbers_agree(implementation(answers, references, "none", tokenize=list), expected,
                         "cut answers and references with the function that is passed")


def refuses_lists_of_different_length(implementation, ours):
    """More answers than references are refused with a ValueError that names both numbers."""
    return refused(lambda: implementation([CAT] * 12, [CAT] * 11), 12, 11)


def bleu_mistakes(ours):
    """The classic mistakes, made from the course's own BLEU."""
    bleu = ours.corpus_bleu

    def remade(found, precisions=None, brevity=None):
        """The same with other precisions or brevity."""
        precisions = found.precisions if precisions is None else precisions
        brevity = found.brevity if brevity is None else brevity
        score = brevity * math.prod(precisions) ** (1 / 4)
        return found._replace(score=score, precisions=precisions, brevity=brevity)

    def unclipped(answers, references, smooth="exp", tokenize=ours.tokens_13a):
        matches, totals = [0] * 4, [0] * 4
        for answer, reference in zip(answers, references):
            for n in range(4):
                said = ours.ngrams(tokenize(answer), n + 1)
                wanted = ours.ngrams(tokenize(reference), n + 1)
                matches[n] += sum(times for words, times in said.items() if words in wanted)
                totals[n] += said.total()
        return remade(bleu(answers, references, smooth, tokenize), ours.smoothed(matches, totals, smooth))

    def mean_of_sentences(answers, references, *options, **named):
        each = [bleu([answer], [reference], *options, **named)
                for answer, reference in zip(answers, references)]
        precisions = [mean(one.precisions[n] for one in each) for n in range(4)]
        return each[0]._replace(score=mean(one.score for one in each), precisions=precisions,
                                brevity=mean(one.brevity for one in each))

    def without_brevity(*texts, **named):
        return remade(bleu(*texts, **named), brevity=1.0)

    def brevity_by_sentence(answers, references, *options, **named):
        each = [bleu([answer], [reference], *options, **named).brevity
                for answer, reference in zip(answers, references)]
        return remade(bleu(answers, references, *options, **named), brevity=mean(each))

    def lowercased(answers, references, *options, **named):
        return bleu([text.lower() for text in answers], [text.lower() for text in references],
                    *options, **named)

    def split_at_spaces(answers, references, smooth="exp", tokenize=str.split):
        return bleu(answers, references, smooth, tokenize)

    def arithmetic_mean(*texts, **named):
        found = bleu(*texts, **named)
        return found._replace(score=found.brevity * mean(found.precisions))

    brevity = "Brevity compares"
    return {
        "not clipped": Mistake("not clipped: a word counts at most as often as the reference has it",
                               unclipped, "A word counts"),
        "mean of sentences": Mistake(
            "the mean of the sentences' scores: sum the counts of all sentences first", mean_of_sentences,
            "Matches are summed"),
        "no brevity": Mistake("the brevity penalty is missing: exp(1 − r / c) for answers that are too short",
                              without_brevity, brevity),
        "brevity by sentence": Mistake(
            "a brevity penalty for each sentence, averaged: compare the sums of words", brevity_by_sentence,
            brevity),
        "lowercased": Mistake("the texts are lower-cased: BLEU is then too high, and not comparable",
                              lowercased, "Capitals"),
        "split at spaces": Mistake("cut at spaces only: “merci.” is then a different word from “merci”",
                                   split_at_spaces, "Words are cut"),
        "arithmetic mean": Mistake("the arithmetic mean of the precisions: it should be the geometric one",
                                   arithmetic_mean, "Score, precisions"),
    }


def more_bleu_mistakes(ours):
    """Others that the lesson doesn't show."""
    bleu = ours.corpus_bleu

    def never_smoothed(answers, references, smooth="exp", *options, **named):
        return bleu(answers, references, "none", *options, **named)

    def always_smoothed(answers, references, smooth="exp", *options, **named):
        return bleu(answers, references, "exp", *options, **named)

    def exchanged(answers, references, *options, **named):
        return bleu(references, answers, *options, **named)

    def share_of_one(*texts, **named):
        found = bleu(*texts, **named)
        return found._replace(score=found.score / 100)

    def three_orders(*texts, **named):
        found = bleu(*texts, **named)
        score = found.brevity * math.prod(found.precisions[:3]) ** (1 / 3)
        return found._replace(score=score)

    def tokenizer_ignored(answers, references, smooth="exp", tokenize=None):
        return bleu(answers, references, smooth)

    smoothing = "An order (n words"
    return {
        "never smoothed": Mistake("nothing is smoothed: with smooth=\"exp\" half a match, then a quarter",
                                  never_smoothed, smoothing),
        "always smoothed": Mistake("the precisions are smoothed although smooth is \"none\"",
                                   always_smoothed, smoothing),
        "exchanged": Mistake("answers and references are exchanged: divide by the answers' n-grams",
                             exchanged, "Score, precisions"),
        "share of one": Mistake("BLEU goes from 0 to 100: multiply by 100", share_of_one,
                                "Answers that equal"),
        "three orders": Mistake("up to three words in a row: it should be four", three_orders,
                                "Score, precisions"),
        "tokenizer ignored": Mistake("`tokenize` is ignored: cut the texts with it", tokenizer_ignored,
                                     "With tokenize"),
    }


corpus_bleu_checks = Part(
    [is_100_for_equal_texts, equals_the_formula, clips_its_counts, compares_the_lengths_of_the_corpora,
     sums_over_the_corpus, smooths_orders_without_a_match, is_0_without_any_match, takes_empty_answers,
     minds_the_case, cuts_at_marks, takes_another_tokenizer, refuses_lists_of_different_length],
    bleu_mistakes,
    more=more_bleu_mistakes,
    needs="The checks read score, precisions and brevity of the Bleu returned; tokens_13a(text) cuts a text.",
)

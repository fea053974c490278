"""How fast lesson 8 trains and translates, as ratios measured in one run: python -m benchmarks.translation

The sides of a comparison take turns. nn.Transformer is put between the same embedding and the same logits
(Reference of checks/stack.py) and gets the same batches. Hugging Face's Marian has the same size and, like
our model, random weights and answers of one length. Its tokenizers get the words of split_words, cut
beforehand, and as many threads as they like. --quick takes fewer pairs, steps and turns.
"""

import argparse
import importlib.util
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import nn

from benchmarks.decoding import Endless, marian_like
from benchmarks.pairing import benchmark_parser, measure_all, paired
from benchmarks.training import Torch, three_steps
from checks.caching import UncachedDecoding
from common import lesson, parameters, table
from course.training.engine import Run, finish

five, six = lesson("05_mini_transformer"), lesson("06_decoding")
seven, eight = lesson("07_subwords"), lesson("08_translation")

LENGTH, WIDTH = 20, 4  # pieces per answer, beam width


def texts_for(options: argparse.Namespace, **settings) -> eight.Texts:
    """The grammar's sentences, fewer for --quick."""
    quick = {"max_pairs": 5000, "steps": 150} if options.quick else {"steps": 1500}
    return eight.Texts(eight.TranslationTraining(**quick | settings))


def run_of(kind: Callable[..., nn.Module], texts: eight.Texts, device: torch.device, **changes) -> Run:
    """A training run of this class of model, with sinusoidal positions, which all models support."""
    training = replace(texts.training, **changes)
    config = replace(eight.TranslationModel(positions="sinusoidal"), vocab_size=len(texts.encoding))
    torch.manual_seed(training.seed)
    model = kind(config)
    return Run(model, five.sequence_job(model, training, texts.batches, None), training, device)


def greedy_answers(run: Run, texts: eight.Texts, decoding: Callable) -> list[str]:
    """Answers to the validation sentences, as from the lesson's translate(), but with any decoding."""
    sources, _ = texts.encoded("validation")
    answers = [""] * len(sources)
    for rows in eight.similar_length(sources, 100):
        src = eight.pad([sources[row] for row in rows]).to(run.device)
        found = six.greedy_decode(decoding(run.model.eval(), src), 20 * eight.tens(sources[rows[0]]) + 20)
        for row, ids in zip(rows, found.tolist()):
            answers[row] = texts.encoding.decode(ids)
    return answers


def against_nn_transformer(device: torch.device, options: argparse.Namespace):
    """Time per step, and validation BLEU after equally many steps, against nn.Transformer."""
    kinds = {"ours": (five.Transformer, six.CachedDecoding), "nn.Transformer": (Torch, UncachedDecoding)}
    bleu, losses = ({name: [] for name in kinds} for _ in range(2))
    for seed in reversed(range(1 if options.quick else 3)):
        texts = texts_for(options, seed=seed)
        references = [pair.target for pair in texts.splits["validation"]]
        for name, (kind, decoding) in kinds.items():
            run = finish(run_of(kind, texts, device))
            answers = greedy_answers(run, texts, decoding)
            losses[name].append(f"{sum(run.noted('loss')[-50:]) / 50:.3f}")
            bleu[name].append(f"{eight.corpus_bleu(answers, references).score:.1f}")
    timed = [run_of(kind, texts, device, steps=10_000) for kind, _ in kinds.values()]
    found = paired(*map(three_steps, timed), turns=5 if options.quick else 15)
    rows = [(name, parameters(run.model), 1e3 * seconds, " ".join(losses[name]), " ".join(bleu[name]))
            for name, run, seconds in zip(kinds, timed, found)]
    steps = texts.training.steps
    return table("", "parameters", "ms per step", "loss, last 50 steps", "BLEU", rows=rows,
                 title=f"ours is {found.ratio:.2f} times as fast; loss and BLEU after {steps:,} steps")


def shares_of_a_training(device: torch.device, options: argparse.Namespace):
    """How the time of a training run is spent, and the fraction of padding."""
    texts, seconds = texts_for(options), {}

    def timed(name: str, call: Callable, *arguments):
        started = time.perf_counter()
        result = call(*arguments)
        seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - started
        return result

    timed("drawing the sentences", lambda: texts.splits)
    timed("learning the pieces", lambda: texts.encoding)
    timed("encoding", lambda: texts.batches)
    config = replace(eight.TranslationModel(), vocab_size=len(texts.encoding))
    run = eight.make_run(config, texts.training, device, texts)
    run.job = replace(run.job, batch=partial(timed, "batching", run.job.batch))
    every = texts.training.validate_every if not options.quick else texts.training.steps
    while not run.finished:
        timed("steps", run.update)
        if len(run.history) % every == 0:
            timed("validation", run.validate)
    seconds["steps"] -= seconds["batching"]
    whole = sum(seconds.values())
    rows = [(name, f"{spent:.1f}", f"{spent / whole:.1%}") for name, spent in seconds.items()]
    some = [texts.batches(step) for step in range(min(200, len(texts.batches)))]
    pieces = sum(part.ne(eight.PAD).sum().item() for batch in some for part in batch[:2]) / len(some)
    speed = pieces * len(run.history) / seconds["steps"]
    return table("", "seconds", "share", rows=rows,
                 title=f"padding {eight.padding(some):.1%}; {speed:,.0f} pieces per second in the steps")


def against_marian(device: torch.device, options: argparse.Namespace):
    """Translating 1,000 sentences (--quick: 100) to 20 pieces each, against Marian of the same size."""
    if not importlib.util.find_spec("transformers"):
        return "transformers isn't installed"
    texts = texts_for(options)
    config = replace(eight.TranslationModel(), vocab_size=len(texts.encoding))
    torch.manual_seed(0)
    ours, marian = five.Transformer(config).to(device).eval(), marian_like(config).to(device)
    sources = texts.encoded("test")[0][: 100 if options.quick else 1000]
    batches = [eight.pad([sources[row] for row in rows]).to(device)
               for rows in eight.similar_length(sources, 100)]

    def run_ours(width: int) -> None:
        for src in batches:
            if width == 1:
                six.greedy_decode(Endless(ours, src), LENGTH)
            else:
                six.fast_beam_search(Endless(ours, src), width, LENGTH)

    def run_marian(width: int) -> None:
        for src in batches:
            marian.generate(src, attention_mask=src.ne(eight.PAD).long(), num_beams=width, do_sample=False,
                            min_new_tokens=LENGTH, max_new_tokens=LENGTH)

    rows = []
    for width in (1, WIDTH):
        found = paired(partial(run_ours, width), partial(run_marian, width), turns=2 if options.quick else 5)
        rows.append((f"beam {width}" if width > 1 else "greedy", f"{len(sources) / found.first:,.0f}",
                     f"{len(sources) / found.second:,.0f}", f"{found.ratio:.2f}"))
    return table("", "ours, sentences/s", "Marian, sentences/s", "ours times as fast", rows=rows)


def against_tokenizers(device: torch.device, options: argparse.Namespace):
    """Learning and encoding pieces, against tokenizers."""
    if not importlib.util.find_spec("tokenizers"):
        return "tokenizers isn't installed"
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    merges = 500 if options.quick else 4000
    texts = [text for pair in texts_for(options).splits["train"] for text in pair[:2]]
    words = ["\x01".join(seven.split_words(text)) for text in texts]
    alphabet = len(set("".join(texts)))

    def learn_theirs() -> Tokenizer:
        built = Tokenizer(models.BPE())
        built.pre_tokenizer = pre_tokenizers.Split("\x01", "removed")
        trainer = trainers.BpeTrainer(vocab_size=alphabet + merges, show_progress=False)
        built.train_from_iterator(words, trainer)
        return built

    ours, theirs = seven.BytePairEncoding.learn(texts, merges), learn_theirs()

    def encode_ours() -> None:
        fresh = seven.BytePairEncoding(ours.alphabet, ours.merges)  # without cached words
        for text in texts:
            fresh.encode(text)

    turns = 2 if options.quick else 5
    rows = []
    for name, mine, other in (
        (f"learning {merges:,} merges", lambda: seven.BytePairEncoding.learn(texts, merges), learn_theirs),
        (f"encoding {len(texts):,} sentences", encode_ours, lambda: theirs.encode_batch(words)),
    ):
        found = paired(mine, other, turns=turns)
        rows.append((name, f"{found.first:.2f}", f"{found.second:.2f}", f"{found.ratio:.2f}"))
    return table("", "ours, s", "tokenizers, s", "ours times as fast", rows=rows)


def main() -> None:
    measure_all(benchmark_parser(__doc__), against_nn_transformer, shares_of_a_training, against_marian,
                against_tokenizers)


if __name__ == "__main__":
    main()

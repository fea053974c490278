"""Lesson 10's small training runs. `ours` is the lesson's module, which provides the parts.

Each function trains one model with one seed, and returns plain values and tensors, as side_by_side() needs.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from statistics import mean
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course.training.configs import SequenceTraining, StackConfig, TransformerConfig
from course.training.engine import Run, finish
from course.training.side_by_side import side_by_side
from course.training.sizing import Convolutions, LinearMap, matched, parameters

CPU = torch.device("cpu")
SEEDS = 0, 1, 2


def trained(ours: Any, make: Callable[[], nn.Module], batch: Callable[[int], Any], training: SequenceTraining
            ) -> nn.Module:
    """The model that make() returns, trained by lesson 5's job; batch(step) is (inputs …, targets)."""
    torch.manual_seed(training.seed)
    model = make()
    job = ours.sequence_job(model, training, batch, lambda model: {}, blocks=())
    return finish(Run(model, job, training, CPU)).model.eval()


def by_seed(train: Callable[[Any, str, int], Any], ours: Any, names: Sequence[str]) -> dict[str, list[Any]]:
    """What train(ours, name, seed) returns, side by side: name → a list over SEEDS."""
    found = side_by_side([partial(train, ours, name, seed) for name in names for seed in SEEDS])
    return {name: found[len(SEEDS) * number :][: len(SEEDS)] for number, name in enumerate(names)}


# ------------------------------------------------------------------ sentences of the small grammar


GRAMMAR = SequenceTraining(steps=300, warmup=30, weight_decay=0.1)


def small_stack(ours: Any, causal: bool) -> nn.Module:
    """A model whose vocabulary is the words of the small grammar, followed by MASK."""
    size = 3 + len(ours.small_grammar.VOCABULARY) + 1
    return ours.OneStack(StackConfig(d_model=64, n_heads=4, positions="learned", max_len=64, vocab_size=size,
                                     causal=causal))


def rows_of(ours: Any, seed: int, step: int) -> list[list[int]]:
    """The 32 sentences of a step, as ids."""
    return ours.small_grammar.ids_of(ours.small_grammar.sentences(32, seed, step))


def causal_on_grammar(ours: Any, seed: int) -> tuple[float, float]:
    """A causal stack: its loss per word on new sentences, and how often first nouns get the right number."""
    model = trained(ours, partial(small_stack, ours, True),
                    lambda step: ours.next_tokens(rows_of(ours, seed, step)), replace(GRAMMAR, seed=seed))
    grammar = ours.small_grammar
    rows = grammar.ids_of(grammar.sentences(1000, 1))
    tokens, targets = ours.next_tokens(rows)
    with torch.no_grad():
        logits = model(tokens)
    places, every = grammar.first_nouns(rows), torch.arange(len(rows))
    loss = ours.fused_sequence_loss(logits, targets) / (targets != ours.PAD).sum()
    return loss.item(), grammar.right_number(logits[every, places], targets[every, places])


def filled_on_grammar(ours: Any, seed: int) -> tuple[float, float]:
    """Like causal_on_grammar(), for a bidirectional stack; its loss counts only the selected places."""
    grammar = ours.small_grammar
    mask_id = 3 + len(grammar.VOCABULARY)

    def batch(step: int) -> Any:
        generator = torch.Generator().manual_seed(seed * GRAMMAR.steps + step)
        return ours.Guesses(*ours.mask_tokens(ours.pad(rows_of(ours, seed, step)), mask_id,
                                              generator=generator))

    model = trained(ours, partial(small_stack, ours, False), batch, replace(GRAMMAR, seed=seed))
    rows = grammar.ids_of(grammar.sentences(1000, 1))
    tokens, places, every = ours.pad(rows), grammar.first_nouns(rows), torch.arange(len(rows))
    given, targets = ours.mask_tokens(tokens, mask_id, generator=torch.Generator().manual_seed(0))
    gap = tokens.clone()
    gap[every, places] = mask_id
    with torch.no_grad():
        loss = ours.fused_sequence_loss(model(given), targets) / (targets != ours.PAD).sum()
        return loss.item(), grammar.right_number(model(gap)[every, places], tokens[every, places])


# ------------------------------------------------------------------ reversing, as a prompt


PROMPTED = {  # name → the settings of the training run
    "two stacks, 300 steps": SequenceTraining(steps=300),
    "one stack, 300 steps": SequenceTraining(steps=300),
    "one stack, 200 steps": SequenceTraining(steps=200),
    "one stack, 200 steps, loss on all": SequenceTraining(steps=200),
}
LENGTHS = 4, 8
TWO_STACKS = TransformerConfig(positions="learned")
EXAMPLE = [3, 1, 4, 1, 5, 9, 2, 6]


def one_stack_config(ours: Any) -> StackConfig:
    """Four blocks, with as nearly as possible the encoder-decoder's number of parameters."""
    config = StackConfig(d_model=TWO_STACKS.d_model, n_layers=4, positions="learned",
                         max_len=TWO_STACKS.max_len, vocab_size=ours.SEPARATOR + 1)
    return matched(ours.OneStack, config, parameters(ours.Transformer(TWO_STACKS)))


def exactly_prompted(ours: Any, model: nn.Module, sequences: Sequence[list[int]]) -> float:
    """The fraction of sequences that the model reverses, decoded greedily, one length at a time."""
    right = 0.0
    for length in sorted({len(digits) for digits in sequences}):
        batch = ours.make_batch("reverse", [digits for digits in sequences if len(digits) == length])
        prompt = F.pad(batch.src, (0, 1), value=ours.SEPARATOR)
        answers = ours.greedy_decode(ours.PromptDecoding(model, prompt), length + 1)
        right += ours.exactly_right(answers, batch.tgt_out).sum().item()
    return right / len(sequences)


def reversing(ours: Any, kind: str, seed: int) -> tuple[float, Tensor]:
    """The fraction of new sequences reversed correctly; for one stack, also all heads' weights on EXAMPLE."""
    training = replace(PROMPTED[kind], seed=seed)
    test = ours.draw_sequences(300, "test", (9,), LENGTHS)

    def drawn(step: int) -> list[list[int]]:
        return ours.draw_sequences(32, "train", (seed, step), LENGTHS)

    if kind.startswith("two stacks"):
        model = trained(ours, partial(ours.Transformer, TWO_STACKS),
                        lambda step: ours.make_batch("reverse", drawn(step)), training)
        return ours.evaluate(model, ours.make_batch("reverse", test)).exact_match, torch.zeros(0)
    whole = kind.endswith("loss on all")
    model = trained(ours, partial(ours.OneStack, one_stack_config(ours)),
                    lambda step: ours.prompted(drawn(step), whole), training)
    with ours.record_attention(model) as recorded:
        model(ours.prompted([EXAMPLE]).tokens)
    return exactly_prompted(ours, model, test), torch.cat([weights[0] for weights in recorded.values()])


def on_the_next(weights: Tensor) -> Tensor:
    """Weights (H, T, T) for EXAMPLE → (H,): the mean weight on the digit that has to be written next."""
    length = len(EXAMPLE)
    return torch.stack([weights[:, 1 + length + n, length - n] for n in range(length)]).mean(0)


# ------------------------------------------------------------------ pictures of digits


SIZE = 2  # side of a patch in pixels
ZERO = 3  # the symbol of digit 0
VISION = StackConfig(d_model=48, n_heads=4, d_ff=96, positions="learned", causal=False, vocab_size=13)
READERS: dict[str, tuple[Callable[[Any], nn.Module], dict[str, Any]]] = {
    "linear map": (lambda ours: LinearMap(VISION, 64), {"lr": 0.1, "weight_decay": 0.0}),
    "convolutions": (lambda ours: Convolutions(VISION), {"steps": 200}),
    "patches, positions": (lambda ours: ours.PictureStack(VISION, SIZE, 8), {}),
    "patches, no positions": (lambda ours: ours.PictureStack(replace(VISION, positions="none"), SIZE, 8), {}),
}


class Recognised(NamedTuple):
    """The results of one reader: accuracies, seconds of training, and its answers on the test pictures."""

    validation: float
    test: float
    shuffled: float
    seconds: float
    said: list[Tensor]  # for the pictures as they are, and shuffled


def recognise(ours: Any, name: str, seed: int) -> Recognised:
    """Train a reader on pictures of digits, and test it."""
    make, changes = READERS[name]
    parts, started = ours.handwritten_digits(), time.process_time()
    known = parts["train"]

    def batch(step: int) -> Any:
        rows = torch.from_numpy(np.random.default_rng((seed, step)).integers(0, len(known.digits), 64))
        return type(known)(known.pixels[rows], known.digits[rows] + ZERO)

    training = SequenceTraining(seed=seed, **{"steps": 300, "beta2": 0.98, **changes})
    model = trained(ours, partial(make, ours), batch, training)
    seconds, test = time.process_time() - started, parts["test"]
    with torch.no_grad():
        validation = model(parts["validation"].pixels).argmax(-1) - ZERO
        said = [model(pixels).argmax(-1) - ZERO for pixels in (test.pixels, ours.shuffled(test.pixels, SIZE))]
    right, mixed = ((digits == test.digits).float().mean().item() for digits in said)
    held_out = (validation == parts["validation"].digits).float().mean().item()
    return Recognised(held_out, right, mixed, seconds, said)


def means_of_readers(ours: Any, by_name: Mapping[str, Sequence[Recognised]]) -> list[tuple]:
    """Reader, parameters, and the means of accuracies and seconds over the seeds, as text."""
    rows = []
    for name, ones in by_name.items():
        rights = [mean(getattr(one, place) for one in ones) for place in ("validation", "test", "shuffled")]
        rows.append((name, parameters(READERS[name][0](ours)), *(f"{right:.1%}" for right in rights),
                     f"{mean(one.seconds for one in ones):.1f}"))
    return rows


# ------------------------------------------------------------------ from GPT-2 to Llama


def with_changes(ours: Any, config: StackConfig, changes: Mapping[str, Mapping[str, Any]]
                 ) -> dict[str, StackConfig]:
    """Name → the config with these changes and all before them; all models are of the same size."""
    wanted = parameters(ours.OneStack(config))
    configs: dict[str, StackConfig] = {}
    for name, change in changes.items():
        config = replace(config, **change)
        configs[name] = matched(ours.OneStack, config, wanted)
    return configs


LAST_BIAS = ", last norm with a bias"  # appended to the name of a config


class Biased(nn.Module):
    """A norm, and a bias that is added to its output."""

    def __init__(self, norm: nn.Module, width: int):
        super().__init__()
        self.norm, self.bias = norm, nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x) + self.bias


def stack_named(ours: Any, configs: Mapping[str, StackConfig], name: str) -> nn.Module:
    """The stack of a config; if LAST_BIAS is appended to the name, its last norm gets a bias."""
    model = ours.OneStack(configs[name.removesuffix(LAST_BIAS)])
    if name.endswith(LAST_BIAS):
        model.stack.norm = Biased(model.stack.norm, model.config.d_model)
    return model


def read_with(texts: Any, configs: Mapping[str, StackConfig], ours: Any, name: str, seed: int
              ) -> tuple[float, int]:
    """(bits per character of held-out text after training, bytes of the cache after 60 tokens)."""
    training = replace(texts.training, seed=seed)
    model = trained(ours, partial(stack_named, ours, configs, name), partial(ours.text_batch, texts, seed),
                    training)
    decoding = ours.PromptDecoding(model, torch.zeros(1, 0, dtype=torch.long))
    for _ in range(60):
        decoding.step(torch.full((1,), ours.BOS))
    return (ours.bits_per_character(model, texts.encoding, texts.splits["test"], training.window),
            sum(cache.bytes() for cache in decoding.self_caches))

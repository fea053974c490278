"""How fast lesson 5 trains, as ratios measured in one run: python -m benchmarks.training

Every comparison alternates a few steps of one model with a few of the other, so that a busy machine slows
both equally. The other models are PyTorch's nn.Transformer between the same embedding and the same logits
(Reference of checks/training.py) and, if it is installed, x-transformers; data, loss, optimiser, schedule and
engine are the same. --quick takes fewer turns and one seed; --sizes 64,16,2 measures only these (d_model,
length, layers).
"""

import argparse
import importlib.util
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.pairing import benchmark_parser, measure_all, paired
from checks.training import Reference
from common import lesson, table
from course.training.engine import Run, finish
from course.training.threads import MOST

five = lesson("05_mini_transformer")
causal_mask = lesson("01_attention_mechanism").causal_mask
PAD = lesson("03_positional_encoding").PAD

SIZES = (64, 16, 2), (64, 60, 2), (128, 16, 2), (256, 16, 2), (256, 60, 4)


class Torch(Reference):
    """nn.Transformer with the methods that lesson 5's evaluation calls."""

    src_mask = five.Transformer.src_mask

    def __init__(self, config):
        super().__init__(config)
        self.config = config
        self.encoder, self.decoder = nn.Module(), nn.Module()
        self.encoder.blocks = self.decoder.blocks = ()

    def encode(self, src: Tensor) -> Tensor:
        return self.stacks.encoder(self.positions(self.embedding(src)), src_key_padding_mask=src == PAD)

    def decode(self, tgt: Tensor, memory: Tensor, src_mask: Tensor) -> Tensor:
        y = self.positions(self.embedding(tgt))
        mask = ~causal_mask(tgt.shape[1], tgt.device)
        hidden = ~src_mask[:, 0, 0]
        y = self.stacks.decoder(y, memory, tgt_mask=mask, memory_key_padding_mask=hidden)
        return self.embedding.logits(y)


class XTransformer(nn.Module):
    """x-transformers' encoder-decoder of the same size, with its fast options left at their defaults."""

    def __init__(self, config):
        super().__init__()
        from x_transformers import Decoder, Encoder, TransformerWrapper

        self.config = config
        sizes = {"dim": config.d_model, "depth": config.n_layers, "heads": config.n_heads,
                 "attn_dim_head": config.d_model // config.n_heads}
        tokens = {"num_tokens": config.vocab_size, "max_seq_len": config.max_len}
        self.encoder = TransformerWrapper(**tokens, attn_layers=Encoder(**sizes))
        self.decoder = TransformerWrapper(**tokens, attn_layers=Decoder(**sizes, cross_attend=True))
        self.encoder.blocks = self.decoder.blocks = ()

    def forward(self, src: Tensor, tgt: Tensor) -> Tensor:
        return self.decode(tgt, self.encode(src), self.src_mask(src))

    def src_mask(self, src: Tensor) -> Tensor:
        return src != PAD

    def encode(self, src: Tensor) -> Tensor:
        return self.encoder(src, mask=src != PAD, return_embeddings=True)

    def decode(self, tgt: Tensor, memory: Tensor, src_mask: Tensor) -> Tensor:
        return self.decoder(tgt, context=memory, context_mask=src_mask)


def models() -> dict[str, Callable]:
    """Name → model class, ours first; what isn't installed is left out."""
    kinds = {"ours": five.Transformer, "nn.Transformer": Torch}
    if importlib.util.find_spec("x_transformers"):
        kinds["x-transformers"] = XTransformer
    return kinds


def of_length(run: Run, length: int) -> Run:
    """The run with batches of sequences of one length."""

    def batch(step: int) -> five.Batch:
        sequences = five.draw_sequences(run.settings.batch_size, "train", (step,), (length, length))
        return five.make_batch(run.settings.task, sequences)

    run.job = replace(run.job, batch=batch)
    return run


def three_steps(run: Run) -> Callable[[], float]:
    """A turn of three updates → the seconds of the fastest one."""

    def turn() -> float:
        for _ in range(3):
            run.update()
        return min(run.noted("seconds")[-3:])

    return turn


def time_per_step(device: torch.device, options: argparse.Namespace):
    """Milliseconds per step at several sizes, and the median of the paired ratios."""
    rows = []
    for d_model, length, layers in options.sizes:
        config = five.TransformerConfig(d_model=d_model, n_layers=layers)
        training = five.TrainingConfig(steps=10_000)
        for name, kind in list(models().items())[1:]:
            runs = [of_length(five.make_run(config, training, device, model), length)
                    for model in (five.Transformer, kind)]
            found = paired(*map(three_steps, runs), turns=3 if options.quick else 15)
            rows.append((d_model, layers, length, 1e3 * found.first, name, 1e3 * found.second,
                         f"{found.ratio:.2f}"))
    return table("d_model", "layers", "length", "ours, ms", "the other", "its ms", "times as fast", rows=rows)


def seconds_to_perfect(device: torch.device, options: argparse.Namespace):
    """Seconds of training until 500 validation sequences are answered without an error."""
    seeds = range(1 if options.quick else 3)
    found = [perfect_in_turns(device, seed) for seed in seeds]
    return table("", *(f"seed {seed}: seconds" for seed in seeds), rows=zip(models(), *found))


def perfect_in_turns(device: torch.device, seed: int) -> list[str]:
    """Train until each model is perfect, 25 steps in turns, so that a busy machine slows all equally."""
    held_out = five.draw_batch("reverse", 500, "validation", (seed,))
    runs = [five.make_run(five.TransformerConfig(), five.TrainingConfig(seed=seed), device, kind, held_out)
            for kind in models().values()]
    waiting, turn = [*runs], 0
    while waiting:
        for run in waiting[:: -1 if turn % 2 else 1]:
            for _ in range(25):
                run.update()
            run.validate()
        waiting = [run for run in waiting if not run.finished and run.scores["exact_match"] < 1]
        turn += 1
    return [f"{sum(run.noted('seconds')):.1f} ({len(run.history)} steps)" if run.scores["exact_match"] == 1
            else f"not in {len(run.history)} steps" for run in runs]


def by_hand(device: torch.device, options: argparse.Namespace):
    """A step with PyTorch's kernels against one with the hand-made parts."""
    config, training = five.TransformerConfig(), five.TrainingConfig(steps=10_000)
    runs = [five.make_run(config, replace(training, by_hand=by_hand), device) for by_hand in (False, True)]
    found = paired(*map(three_steps, runs), turns=3 if options.quick else 15)
    return table("kernels, ms", "by hand, ms", "times as fast", rows=[
        (1e3 * found.first, 1e3 * found.second, f"{found.ratio:.2f}")])


@contextmanager
def neighbours(count: int) -> Iterator[None]:
    """Inside `with`, `count` other processes each keep a core busy."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def one_or_all_threads(device: torch.device, options: argparse.Namespace):
    """A step on all threads (or OMP_NUM_THREADS) against one on a single thread, next to busy processes."""

    def on(threads: int, turn: Callable[[], float]) -> float:
        torch.set_num_threads(threads)
        return turn()

    rows, endless = [], five.TrainingConfig(steps=10_000)
    for d_model, length, layers in options.sizes:
        config = five.TransformerConfig(d_model=d_model, n_layers=layers)
        runs = [of_length(five.make_run(config, endless, device), length) for _ in range(2)]
        every, one = (partial(on, threads, three_steps(run)) for threads, run in zip((MOST, 1), runs))
        for count in sorted({0, 1, MOST}):
            with neighbours(count):
                found = paired(every, one, turns=3 if options.quick else 15)
            rows.append((d_model, layers, length, count, 1e3 * found.first, 1e3 * found.second,
                         f"{found.ratio:.2f}"))
    torch.set_num_threads(MOST)
    header = "d_model", "layers", "length", "neighbours", f"{MOST} threads, ms", "one, ms", "times as fast"
    return table(*header, rows=rows)


def share_of_the_machine(device: torch.device, options: argparse.Namespace):
    """A step's arithmetic per second against the fastest matrix product of this machine."""
    a, b = torch.randn(2, 1024, 1024, device=device)
    best = 0.0
    for _ in range(10):
        started = time.perf_counter()
        (a @ b).sum().item()
        best = max(best, 2 * 1024**3 / (time.perf_counter() - started))
    rows = []
    for d_model in (64, 256):
        training = five.TrainingConfig(steps=12)
        run = of_length(five.make_run(five.TransformerConfig(d_model=d_model), training, device), 16)
        seconds = statistics.median(finish(run).noted("seconds")[4:])
        blocks = [stack.blocks for stack in (run.model.encoder, run.model.decoder)]
        weights = [sum(p.numel() for p in part.parameters()) for part in blocks]
        rows_each = training.batch_size
        source, target = rows_each * 16, rows_each * 17
        operations = 6 * (weights[0] * source + weights[1] * target)
        operations += 12 * d_model * rows_each * 2 * (16 * 16 + 17 * 17 + 17 * 16)  # scores and averages
        rows.append((d_model, f"{operations / seconds / 1e9:.1f}", f"{best / 1e9:.1f}",
                     f"{operations / seconds / best:.0%}"))
    return table("d_model", "step, GFLOP/s", "matrix product, GFLOP/s", "share", rows=rows)


def sizes(text: str) -> tuple[int, int, int]:
    """“64,16,2” → (64, 16, 2)."""
    parts = text.split(",")
    if len(parts) != 3 or not all(part.isdecimal() and int(part) for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r}: give D_MODEL,LENGTH,LAYERS")
    return tuple(map(int, parts))


def main() -> None:
    parser = benchmark_parser(__doc__)
    parser.add_argument("--sizes", type=sizes, nargs="+", default=SIZES, metavar="D,LENGTH,LAYERS",
                        help="measure the time per step only at these sizes")
    measure_all(parser, time_per_step, seconds_to_perfect, by_hand, one_or_all_threads,
                share_of_the_machine)


if __name__ == "__main__":
    main()

"""How fast lesson 5 trains, as ratios measured in one run: python -m benchmarks.training

Every comparison takes turns, a few steps of one, a few of the other, so that a busy machine slows both
alike. The other model is Reference of lesson 5: PyTorch's nn.Transformer between the same embedding and
the same logits, with the same data, loss, optimiser and schedule. With x-transformers installed, its
encoder-decoder is timed to 100 %, too.
"""

import importlib.util
import statistics
import time
from dataclasses import replace

import torch
from torch import Tensor, nn

from common import lesson, make_console, pick_device, table

five = lesson("05_mini_transformer")
PAD, BOS = five.PAD, five.BOS


class Torch(five.Reference):
    """nn.Transformer with the methods that lesson 5's evaluation calls."""

    src_mask = five.Transformer.src_mask

    def encode(self, src: Tensor) -> Tensor:
        return self.stacks.encoder(self.positions(self.embedding(src)), src_key_padding_mask=src == PAD)

    def decode(self, tgt: Tensor, memory: Tensor, src_mask: Tensor) -> Tensor:
        y = self.positions(self.embedding(tgt))
        mask = ~five.causal_mask(tgt.shape[1], tgt.device)
        hidden = ~src_mask[:, 0, 0]
        y = self.stacks.decoder(y, memory, tgt_mask=mask, memory_key_padding_mask=hidden)
        return self.embedding.logits(y)


class TorchRun(five.Run):
    """Lesson 5's run of nn.Transformer."""

    def make_model(self) -> nn.Module:
        return Torch(self.config)


class XTransformer(nn.Module):
    """x-transformers' encoder-decoder of the same size, with its fast options left at their defaults."""

    def __init__(self, config):
        super().__init__()
        from x_transformers import Decoder, Encoder, TransformerWrapper

        sizes = {"dim": config.d_model, "depth": config.n_layers, "heads": config.n_heads,
                 "attn_dim_head": config.d_model // config.n_heads}
        tokens = {"num_tokens": config.vocab_size, "max_seq_len": config.max_len}
        self.encoder = TransformerWrapper(**tokens, attn_layers=Encoder(**sizes))
        self.decoder = TransformerWrapper(**tokens, attn_layers=Decoder(**sizes, cross_attend=True))

    def forward(self, src: Tensor, tgt: Tensor) -> Tensor:
        return self.decode(tgt, self.encode(src), self.src_mask(src))

    def src_mask(self, src: Tensor) -> Tensor:
        return src != PAD

    def encode(self, src: Tensor) -> Tensor:
        return self.encoder(src, mask=src != PAD, return_embeddings=True)

    def decode(self, tgt: Tensor, memory: Tensor, src_mask: Tensor) -> Tensor:
        return self.decoder(tgt, context=memory, context_mask=src_mask)


class XRun(five.Run):
    """Lesson 5's run of x-transformers."""

    def make_model(self) -> nn.Module:
        return XTransformer(self.config)


def fixed_batches(run: five.Run, length: int) -> five.Run:
    """The run with batches of sequences of one length."""

    def batch(step: int) -> five.Batch:
        sequences = five.draw_sequences(run.training.batch_size, "train", (step,), (length, length))
        return five.make_batch(run.training.task, sequences)

    run.batch = batch
    return without_notes(run)


def without_notes(run: five.Run) -> five.Run:
    """The run without the gradient norms that lesson 5 notes now and then."""
    run.validates_after = lambda step: False
    return run


def time_per_step(device: torch.device, repeats: int = 9):
    """Milliseconds a step of both models at several sizes, and the median of the paired ratios."""
    rows = []
    for d_model, length, layers in ((64, 16, 2), (64, 60, 2), (128, 16, 2), (256, 16, 2), (256, 60, 4)):
        config = five.TransformerConfig(d_model=d_model, n_layers=layers)
        training = replace(five.TrainingConfig(), steps=10_000)
        runs = [fixed_batches(kind(config, training, device), length) for kind in (five.Run, TorchRun)]
        pairs = []
        for turn in range(repeats + 2):
            pair = []
            for run in runs:
                for _ in range(3):
                    run.update()
                pair.append(min(record["seconds"] for record in run.history[-3:]))
            if turn >= 2:
                pairs.append(pair)
        ours, theirs = (1e3 * statistics.median(times) for times in zip(*pairs))
        ratio = statistics.median(theirs / ours for ours, theirs in pairs)
        rows.append((d_model, layers, length, ours, theirs, f"{ratio:.2f}"))
    return table("d_model", "layers", "length", "ours, ms", "nn.Transformer, ms", "times as fast", rows=rows)


def seconds_to_perfect(device: torch.device, seeds: int = 3):
    """Seconds of training until 500 validation sequences are answered without an error."""
    kinds = {"ours": five.Run, "nn.Transformer": TorchRun}
    if importlib.util.find_spec("x_transformers"):
        kinds["x-transformers"] = XRun
    rows = []
    for name, kind in kinds.items():
        found = []
        for seed in range(seeds):
            run = without_notes(kind(five.TransformerConfig(), five.TrainingConfig(seed=seed), device))
            held_out = five.draw_batch(run.training.task, 500, "validation", (seed,)).to(device)
            while not run.finished:
                run.update()
                due = len(run.history) % 25 == 0
                if due and five.evaluate(run.model, held_out).exact_match == 1:
                    break
            perfect = five.evaluate(run.model, held_out).exact_match == 1
            seconds = sum(record["seconds"] for record in run.history)
            found.append(f"{seconds:.1f} ({len(run.history)} steps)" if perfect else "not in 700 steps")
        rows.append((name, *found))
    return table("", *(f"seed {seed}: seconds" for seed in range(seeds)), rows=rows)


def share_of_the_machine(device: torch.device):
    """The step's arithmetic a second against the fastest matrix product of this machine."""
    a, b = torch.randn(2, 1024, 1024, device=device)
    best = 0.0
    for _ in range(10):
        started = time.perf_counter()
        (a @ b).sum().item()
        best = max(best, 2 * 1024**3 / (time.perf_counter() - started))
    rows = []
    for d_model in (64, 256):
        training = replace(five.TrainingConfig(), steps=10_000)
        run = fixed_batches(five.Run(five.TransformerConfig(d_model=d_model), training, device), 16)
        while len(run.history) < 12:
            run.update()
        seconds = statistics.median(record["seconds"] for record in run.history[4:])
        blocks = [stack.blocks for stack in (run.model.encoder, run.model.decoder)]
        weights = [sum(p.numel() for p in part.parameters()) for part in blocks]
        source, target = 32 * 16, 32 * 17
        operations = 6 * (weights[0] * source + weights[1] * target)
        operations += 12 * d_model * 32 * 2 * (16 * 16 + 17 * 17 + 17 * 16)  # scores and averages
        rows.append((d_model, f"{operations / seconds / 1e9:.1f}", f"{best / 1e9:.1f}",
                     f"{operations / seconds / best:.0%}"))
    return table("d_model", "step, GFLOP/s", "matrix product, GFLOP/s", "share", rows=rows)


def main() -> None:
    device, console = pick_device("auto"), make_console()
    for measure in (time_per_step, seconds_to_perfect, share_of_the_machine):
        console.print(f"\n{measure.__doc__.splitlines()[0]}")
        console.print(measure(device))


if __name__ == "__main__":
    main()

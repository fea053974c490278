"""How fast lesson 6 decodes, as ratios measured in one run: python -m benchmarks.decoding

Every comparison takes turns and gives the median of the paired ratios. With transformers installed, batched
greedy decoding is timed against its Marian model of the same size, both with random weights.
"""

import importlib.util
import statistics
import time
from collections.abc import Callable

import torch

from common import lesson, make_console, pick_device, table

five, six = lesson("05_mini_transformer"), lesson("06_decoding")


def paired(first: Callable, second: Callable, turns: int = 5) -> tuple[float, float, float]:
    """Median seconds of both, and the median of second / first, taking turns after one to warm up."""
    pairs = []
    for turn in range(turns + 1):
        pair = []
        for run in (first, second):
            started = time.perf_counter()
            run()
            pair.append(time.perf_counter() - started)
        if turn:
            pairs.append(pair)
    times = [statistics.median(column) for column in zip(*pairs)]
    return *times, statistics.median(b / a for a, b in pairs)


def decode(kind: Callable, model, src: torch.Tensor, length: int) -> Callable[[], None]:
    """A run of `length` greedy steps that no EOS ends."""

    def run() -> None:
        decoding = kind(model, src)
        tokens = six.first_tokens(decoding)
        for _ in range(length):
            tokens = decoding.step(tokens).argmax(dim=-1)

    return run


def cached_or_not(device: torch.device):
    """The cache, 8 answers, default model."""
    torch.manual_seed(0)
    model = five.Transformer(five.TransformerConfig(max_len=512)).to(device).eval()
    src, rows = torch.full((8, 16), 5, device=device), []
    for length in (16, 32, 64, 128, 256):
        runs = [decode(kind, model, src, length) for kind in (six.CachedDecoding, six.UncachedDecoding)]
        cached, uncached, ratio = paired(*runs, turns=3)
        rows.append((length, f"{8 * length / cached:,.0f}", f"{8 * length / uncached:,.0f}", f"{ratio:.2f}"))
    return table("length", "tokens/s with the cache", "without", "times as fast", rows=rows)


def against_marian(device: torch.device):
    """Batched greedy decoding, 32 answers of 64 tokens, against transformers' Marian."""
    if not importlib.util.find_spec("transformers"):
        return "transformers isn't installed"
    from transformers import MarianConfig, MarianMTModel

    config = five.TransformerConfig(max_len=512)
    torch.manual_seed(0)
    ours = five.Transformer(config).to(device).eval()
    marian = MarianMTModel(MarianConfig(
        vocab_size=config.vocab_size, d_model=config.d_model, encoder_layers=config.n_layers,
        decoder_layers=config.n_layers, encoder_attention_heads=config.n_heads,
        decoder_attention_heads=config.n_heads, encoder_ffn_dim=config.d_ff,
        decoder_ffn_dim=config.d_ff, max_position_embeddings=512, pad_token_id=0, eos_token_id=2,
        decoder_start_token_id=1, bos_token_id=1, forced_eos_token_id=None,
    )).to(device).eval()
    src = torch.randint(3, 13, (32, 16), device=device)

    def run_marian() -> None:
        marian.generate(src, attention_mask=torch.ones_like(src), num_beams=1, do_sample=False,
                        min_new_tokens=64, max_new_tokens=64)

    mine, theirs, ratio = paired(decode(six.CachedDecoding, ours, src, 64), run_marian)
    rows = [("ours", f"{1e3 * mine / 64:.2f}", f"{32 * 64 / mine:,.0f}", ""),
            ("Marian", f"{1e3 * theirs / 64:.2f}", f"{32 * 64 / theirs:,.0f}", f"{ratio:.2f}")]
    return table("", "ms a step", "tokens/s", "ours times as fast", rows=rows)


def main() -> None:
    device, console = pick_device("auto"), make_console()
    for measure in (cached_or_not, against_marian):
        console.print(f"\n{measure.__doc__.splitlines()[0]}")
        console.print(measure(device))


if __name__ == "__main__":
    main()

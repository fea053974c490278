"""How fast lesson 6 decodes, as ratios measured in one run: python -m benchmarks.decoding

The sides of a comparison take turns; the result is the median of the paired ratios. If transformers is
installed, batched greedy decoding and beam search are timed against its Marian model of the same size, all
with random weights. --quick takes fewer turns; --sizes 16 64 measures the cache only at these lengths.
"""

import argparse
import importlib.util
from collections.abc import Callable

import torch

from benchmarks.pairing import benchmark_parser, measure_all, paired
from checks.caching import UncachedDecoding
from common import lesson, table
from course.console.options import count

five, six = lesson("05_mini_transformer"), lesson("06_decoding")
EOS = lesson("03_positional_encoding").EOS

ANSWERS, STEPS, WIDTH = 32, 64, 4


def decode(kind: Callable, model, src: torch.Tensor, length: int) -> Callable[[], None]:
    """A function that runs `length` greedy steps, without stopping at EOS."""

    def run() -> None:
        decoding = kind(model, src)
        tokens = six.first_tokens(decoding)
        for _ in range(length):
            tokens = decoding.step(tokens).argmax(dim=-1)

    return run


class Endless(six.CachedDecoding):
    """Answers that never end: EOS has probability 0."""

    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        return super().step(tokens).index_fill(-1, torch.tensor(EOS, device=tokens.device), -float("inf"))


def cached_or_not(device: torch.device, options: argparse.Namespace):
    """The cache, 8 answers, default model."""
    torch.manual_seed(0)
    model = five.Transformer(five.TransformerConfig(max_len=max(options.sizes))).to(device).eval()
    src, rows = torch.full((8, 16), 5, device=device), []
    for length in options.sizes:
        runs = [decode(kind, model, src, length) for kind in (six.CachedDecoding, UncachedDecoding)]
        found = paired(*runs, turns=1 if options.quick else 3)
        rows.append((length, f"{8 * length / found.first:,.0f}", f"{8 * length / found.second:,.0f}",
                     f"{found.ratio:.2f}"))
    return table("length", "tokens/s with the cache", "without", "times as fast", rows=rows)


def beams_against_greedy(device: torch.device, options: argparse.Namespace):
    """Beam search of width 4 against greedy decoding, 32 answers of 64 tokens."""
    torch.manual_seed(0)
    model = five.Transformer(five.TransformerConfig(max_len=512)).to(device).eval()
    src = torch.randint(3, 13, (ANSWERS, 16), device=device)
    found = paired(lambda: six.greedy_decode(Endless(model, src), STEPS),
                   lambda: six.fast_beam_search(Endless(model, src), WIDTH, STEPS),
                   turns=2 if options.quick else 7)
    return table("greedy, s", "beam, s", "beam, times as long", rows=[
        (found.first, found.second, f"{found.ratio:.2f}")])


def marian_like(config):
    """Hugging Face's Marian of the same size, with random weights."""
    from transformers import MarianConfig, MarianMTModel

    return MarianMTModel(MarianConfig(
        vocab_size=config.vocab_size, d_model=config.d_model, encoder_layers=config.n_layers,
        decoder_layers=config.n_layers, encoder_attention_heads=config.n_heads,
        decoder_attention_heads=config.n_heads, encoder_ffn_dim=config.d_ff,
        decoder_ffn_dim=config.d_ff, max_position_embeddings=config.max_len, pad_token_id=0, eos_token_id=2,
        decoder_start_token_id=1, bos_token_id=1, forced_eos_token_id=None,
    )).eval()


def against_marian(device: torch.device, options: argparse.Namespace):
    """Greedy and beam search (width 4) against transformers' Marian, 32 answers of 64 tokens."""
    if not importlib.util.find_spec("transformers"):
        return "transformers isn't installed"
    config = five.TransformerConfig(max_len=512)
    torch.manual_seed(0)
    ours, marian = five.Transformer(config).to(device).eval(), marian_like(config).to(device)
    src = torch.randint(3, 13, (ANSWERS, 16), device=device)

    def run_marian(beams: int) -> None:
        marian.generate(src, attention_mask=torch.ones_like(src), num_beams=beams, do_sample=False,
                        min_new_tokens=STEPS, max_new_tokens=STEPS)

    pairs = (("greedy", lambda: six.greedy_decode(Endless(ours, src), STEPS), lambda: run_marian(1)),
             (f"beam, width {WIDTH}", lambda: six.fast_beam_search(Endless(ours, src), WIDTH, STEPS),
              lambda: run_marian(WIDTH)))
    rows = []
    for name, mine, theirs in pairs:
        found = paired(mine, theirs, turns=2 if options.quick else 7)
        rows.append((name, f"{1e3 * found.first / STEPS:.2f}", f"{1e3 * found.second / STEPS:.2f}",
                     f"{found.ratio:.2f}"))
    return table("", "ours, ms per step", "Marian, ms per step", "ours times as fast", rows=rows)


def main() -> None:
    parser = benchmark_parser(__doc__)
    parser.add_argument("--sizes", type=count, nargs="+", default=(16, 32, 64, 128, 256), metavar="LENGTH",
                        help="measure the cache only at these lengths")
    measure_all(parser, cached_or_not, beams_against_greedy, against_marian)


if __name__ == "__main__":
    main()

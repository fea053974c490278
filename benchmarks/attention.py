"""Time and memory of lesson 11's attentions, compared with PyTorch's kernel: python -m benchmarks.attention

One head of width 64, one thread. Each attention takes turns with the kernel; its time is the median of the
paired ratios. Its memory is the most bytes alive at once, divided by the kernel's. --quick takes fewer turns;
--sizes 256 1024 measures only these lengths.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.pairing import benchmark_parser, measure_all, paired
from common import lesson, table
from course.console.counting import peak_bytes, there_and_back
from course.console.options import count

one, eleven = lesson("01_attention_mechanism"), lesson("11_efficient_attention")
WINDOW = 128


def window_in_blocks(query: Tensor, key: Tensor, value: Tensor, width: int = WINDOW) -> Tensor:
    """A causal window for lengths that `width` divides: each block of queries sees its own keys and those of
    the block before, in one call of the kernel.
    """
    blocks = [x.unflatten(-2, (-1, width)) for x in (query, key, value)]
    before = [torch.cat([F.pad(x, (0, 0, 0, 0, 1, 0))[..., :-1, :, :], x], -2) for x in blocks[1:]]
    i = torch.arange(width, 2 * width, device=query.device)[:, None]
    mask = eleven.window(width)(i, torch.arange(2 * width, device=query.device)[None])
    mask = mask.repeat(blocks[0].shape[-3], 1, 1)
    mask[0, :, :width] = False  # nothing is before the first block
    return F.scaled_dot_product_attention(blocks[0], *before, attn_mask=mask).flatten(-3, -2)


def causal_lines(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return one.scaled_dot_product_attention(query, key, value, one.causal_mask(query.shape[-2], query.device))


def causal_kernel(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(query, key, value, is_causal=True)


WAYS: dict[str, Callable[..., Tensor]] = {
    "lesson 1's code": causal_lines,
    "tiles of 256": partial(eleven.tiled_attention, mask=eleven.causal),
    f"tiles, window {WINDOW}": partial(eleven.tiled_attention, mask=eleven.window(WINDOW), tile=WINDOW),
    f"window {WINDOW} in blocks": window_in_blocks,
    "linear, chunks of 64": eleven.linear_attention,
}


def run_of(way: Callable, inputs: list[Tensor]) -> Callable[[], float]:
    """A call that returns its seconds: processor time, which other programs don't change; on a GPU, the time
    until it has ended.
    """
    on_gpu = inputs[0].is_cuda
    clock = time.perf_counter if on_gpu else time.process_time

    def run() -> float:
        started = clock()
        way(*inputs)
        if on_gpu:
            torch.cuda.synchronize(inputs[0].device)
        return clock() - started

    return run


def beside_the_kernel(device: torch.device, options: argparse.Namespace, backward: bool):
    torch.manual_seed(0)
    torch.set_num_threads(1)
    rows: list[tuple[str, ...]] = []
    change = there_and_back if backward else lambda way: way
    for name, way in WAYS.items():
        cells = []
        for n in options.sizes:
            inputs = [*torch.randn(3, 1, 1, n, 64, device=device).unbind()]
            kernel, other = change(causal_kernel), change(way)
            turns = 3 if options.quick else 9
            ratio = paired(run_of(kernel, inputs), run_of(other, inputs), turns).ratio
            memory = peak_bytes(other, *inputs) / peak_bytes(kernel, *inputs)
            cells.append(f"{ratio:.2g}; {memory:.2g}")
        rows.append((name, *cells))
    return table("", *(f"n = {n:,}" for n in options.sizes), rows=rows)


def forward(device: torch.device, options: argparse.Namespace):
    """Forward, causal: time; peak bytes, as multiples of the kernel's."""
    return beside_the_kernel(device, options, backward=False)


def forward_and_backward(device: torch.device, options: argparse.Namespace):
    """Forward and backward, causal: time; peak bytes, as multiples of the kernel's."""
    return beside_the_kernel(device, options, backward=True)


def multiple_of_the_window(text: str) -> int:
    """A length that the window in blocks can take."""
    number = count(text)
    if number % WINDOW:
        raise argparse.ArgumentTypeError(f"{number} is not a multiple of {WINDOW}")
    return number


def main() -> None:
    parser = benchmark_parser(__doc__)
    parser.add_argument("--sizes", type=multiple_of_the_window, nargs="+", metavar="LENGTH",
                        default=(256, 512, 1024, 2048, 4096), help="measure only these lengths")
    measure_all(parser, forward, forward_and_backward)


if __name__ == "__main__":
    main()

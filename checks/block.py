"""What must hold for lesson 4's blocks: EncoderBlock and DecoderBlock."""

from collections.abc import Callable
from contextlib import suppress

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from checks.heads import PROJECTIONS, copy_attention
from checks.layers import MAPS, blamed, copy_feed_forward, copy_norm, same_numbers
from checks.paths import more_path_mistakes, path_mistakes
from common import lesson
from course.console.records import Finding
from course.grading.checking import (
    Mistake,
    Part,
    agree,
    gradients_agree,
    layers_of,
    random_tensors,
    randomised,
    together,
)

causal_mask, padding_mask = lesson("01_attention_mechanism", "causal_mask", "padding_mask")
RotaryAttention, RotaryPositionalEncoding = lesson(
    "03_positional_encoding", "RotaryAttention", "RotaryPositionalEncoding")


# ------------------------------------------------------------------ PyTorch's layers as the oracles


D_MODEL, HEADS, D_FF = 12, 3, 24
SOURCE_PADDING = padding_mask(torch.tensor([[3, 4, 5, 6, 7], [3, 4, 5, 0, 0]]))
CAUSAL = causal_mask(4)
SOURCE, TARGET = random_tensors((2, 5, D_MODEL), (2, 4, D_MODEL))


def pytorch_layer(kind: type, norm: str) -> nn.Module:
    """nn.TransformerEncoderLayer or …DecoderLayer with random weights, in float64."""
    layer = kind(D_MODEL, HEADS, D_FF, 0.0, "gelu", batch_first=True, norm_first=norm == "pre")
    return randomised(layer)


def norms_of(module: nn.Module) -> list[nn.Module]:
    """The normalisations of a block or stack, in the order in which they were made."""
    return [part for part in module.modules() if type(part).__name__ == "LayerNorm"]


def copy_block(ours: nn.Module, theirs: nn.Module) -> nn.Module:
    """`ours`, an encoder or decoder block, with the weights of PyTorch's layer."""
    copy_attention(ours.self_attention, theirs.self_attn)
    if hasattr(theirs, "multihead_attn"):
        copy_attention(ours.cross_attention, theirs.multihead_attn)
    copy_feed_forward(ours.feed_forward, theirs.linear1, theirs.linear2)
    for norm, reference in zip(norms_of(ours), norms_of(theirs), strict=True):
        copy_norm(norm, reference)
    return ours


OTHER = {"pre": "post", "post": "pre"}


def compare_norms(run: Callable[[str], tuple], norm: str) -> Finding:
    """Finding: the block gives what PyTorch's layer does. run(norm) → both, and how to call either.

    Where it gives what the other norm should, that other norm is also looked at: this tells exchanged norms
    from one norm for both.
    """
    block, theirs, call, reference = run(norm)
    found = call(block)
    finding = agree(found, reference(theirs))
    if finding.holds:
        return finding
    with suppress(Exception):
        other, others, *_ = run(OTHER[norm])
        if same_numbers(found, reference(others)):
            agree(call(other), reference(others))
            return finding
    return blamed(finding, parts_of_blocks(block, theirs))


def parts_of_blocks(block: nn.Module, theirs: nn.Module) -> list[tuple[str, nn.Module, Callable, Callable]]:
    """(name, part, what it gives, what PyTorch's gives) for every part of a block."""
    parts = [("LayerNorm", norm, lambda norm=norm: norm(SOURCE),
              lambda reference=reference: reference(SOURCE))
             for norm, reference in zip(norms_of(block), norms_of(theirs), strict=True)]
    inputs = TARGET, SOURCE, SOURCE
    for name, reference in ("self_attention", "self_attn"), ("cross_attention", "multihead_attn"):
        if hasattr(theirs, reference):
            parts.append((name, getattr(block, name),
                          lambda name=name: getattr(block, name)(*inputs, SOURCE_PADDING),
                          lambda reference=reference: getattr(theirs, reference)(
                              *inputs, ~SOURCE_PADDING[:, 0, 0])[0]))
    parts.append(("feed_forward", block.feed_forward, lambda: block.feed_forward(SOURCE),
                  lambda: theirs.linear2(F.gelu(theirs.linear1(SOURCE)))))
    return parts


def drops_half_of_each_layer(block: nn.Module, share: float, *inputs: Tensor) -> Finding:
    """Whether `share` of the numbers leave a block with dropout 0.5 unchanged; none in eval mode."""
    shares = [(block.train(training)(*inputs) == inputs[0]).double().mean().item()
              for training in (True, False)]
    holds = abs(shares[0] - share) < 0.06 and shares[1] == 0
    return Finding(holds, f"{shares[0]:.0%}, in eval mode {shares[1]:.0%}", "" if holds else (
        "drop parts of every layer's output, only in training" if path_is_free(block, *inputs) else
        "x doesn't bypass the layers, whatever is dropped: with pre-norm x + layer(norm(x))"))


def path_is_free(block: nn.Module, *inputs: Tensor) -> bool:
    """Whether x comes out as it came where every layer answers 0: the last map of each is set to that."""
    for name, names in (("self_attention", PROJECTIONS), ("cross_attention", PROJECTIONS),
                        ("feed_forward", MAPS)):
        if hasattr(block, name):
            for parameter in layers_of(getattr(block, name), names)[-1].parameters():
                nn.init.zeros_(parameter)
    return torch.equal(block.eval()(*inputs), inputs[0])


# ------------------------------------------------------------------ EncoderBlock(d_model, n_heads, d_ff, …)


def encoder_layers(implementation, norm: str) -> tuple[nn.Module, nn.Module]:
    """PyTorch's layer, and the implementation with its weights."""
    theirs = pytorch_layer(nn.TransformerEncoderLayer, norm)
    return theirs, copy_block(implementation(D_MODEL, HEADS, D_FF, 0.0, norm).double(), theirs)


def compare_encoder_block(implementation, norm: str, mask: Tensor | None) -> Finding:
    hidden = None if mask is None else ~mask[:, 0, 0]

    def run(norm):
        theirs, block = encoder_layers(implementation, norm)
        return (block, theirs, lambda ours: ours(SOURCE, mask),
                lambda theirs: theirs(SOURCE, src_key_padding_mask=hidden))

    return compare_norms(run, norm)


def encoder_pre_norm(implementation, ours):
    """Pre-norm: the block equals nn.TransformerEncoderLayer with norm_first=True."""
    return compare_encoder_block(implementation, "pre", None)


def encoder_pre_norm_masked(implementation, ours):
    """With a padding mask the pre-norm block also equals nn.TransformerEncoderLayer."""
    return compare_encoder_block(implementation, "pre", SOURCE_PADDING)


def encoder_post_norm(implementation, ours):
    """Post-norm: the block equals nn.TransformerEncoderLayer with norm_first=False."""
    return compare_encoder_block(implementation, "post", None)


def encoder_post_norm_masked(implementation, ours):
    """With a padding mask the post-norm block also equals nn.TransformerEncoderLayer."""
    return compare_encoder_block(implementation, "post", SOURCE_PADDING)


def encoder_has_right_gradients(implementation, ours):
    """The gradients of all parameters equal PyTorch's, with pre-norm and post-norm."""
    findings = []
    for norm in ("pre", "post"):
        theirs, block = encoder_layers(implementation, norm)
        block(SOURCE, SOURCE_PADDING).sin().sum().backward()
        theirs(SOURCE, src_key_padding_mask=~SOURCE_PADDING[:, 0, 0]).sin().sum().backward()
        findings.append(gradients_agree(block, theirs, copy_block))
    return together(*findings)


def encoder_hides_padding(implementation, ours):
    """Other content in the padding leaves every real token the same, bit for bit."""
    block, other = encoder_layers(implementation, "pre")[1], SOURCE.clone()
    other[1, 3:] = 7.0
    padded = block(SOURCE, SOURCE_PADDING)[1, 3:]
    agree(padded, padded)  # noted only: it tells a mask on the queries from none, which explains a failure
    return agree(block(other, SOURCE_PADDING)[1, :3], block(SOURCE, SOURCE_PADDING)[1, :3], 0)


def encoder_drops_layers(implementation, ours):
    """With dropout 0.5, in training, a quarter of the numbers pass both layers unchanged."""
    (x,) = random_tensors((20, 5, D_MODEL))
    return drops_half_of_each_layer(implementation(D_MODEL, HEADS, D_FF, 0.5).double(), 1 / 4, x)


def rotated(theirs: nn.Module, x: Tensor, mask: Tensor, rotary: nn.Module) -> Tensor:
    """x after PyTorch's pre-norm self-attention layer, with rotary positions."""
    attention = copy_attention(RotaryAttention(D_MODEL, HEADS, 0.0, rotary).double(), theirs.self_attn)
    h = theirs.norm1(x)
    return x + attention(h, h, h, mask)


def encoder_rotates(implementation, ours):
    """With a rotation given as `rotary`, the self-attention rotates queries and keys by their positions."""
    theirs = pytorch_layer(nn.TransformerEncoderLayer, "pre")
    rotary = RotaryPositionalEncoding(D_MODEL // HEADS).double()
    block = copy_block(implementation(D_MODEL, HEADS, D_FF, 0.0, rotary=rotary).double(), theirs)
    x = rotated(theirs, SOURCE, SOURCE_PADDING, rotary)
    expected = x + theirs.linear2(F.gelu(theirs.linear1(theirs.norm2(x))))
    return agree(block(SOURCE, SOURCE_PADDING), expected)


def rotary_ignored(block: type) -> Mistake:
    class RotaryIgnored(block):
        def __init__(self, *sizes, rotary=None, **options):
            super().__init__(*sizes, **options)

    return Mistake("`rotary` is ignored: where it is given, the self-attention is "
                   "RotaryAttention(d_model, n_heads, dropout, rotary)", RotaryIgnored,
                   "With a rotation given")


def encoder_block_mistakes(ours):
    class MaskOnQueries(ours.EncoderBlock):
        def forward(self, x, mask=None):
            return super().forward(x, None if mask is None else mask.mT)

    on_queries = Mistake("the mask is on the query axis; it should hide keys: (B, 1, 1, S)", MaskOnQueries,
                         "Other content in the padding")
    return {**path_mistakes(ours, "EncoderBlock"), "mask on queries": on_queries}


def more_encoder_block_mistakes(ours):
    class MaskIgnored(ours.EncoderBlock):
        def forward(self, x, mask=None):
            return super().forward(x)

    class MaskInverted(ours.EncoderBlock):
        def forward(self, x, mask=None):
            return super().forward(x, None if mask is None else ~mask)

    class OnlyQueriesNormalised(ours.EncoderBlock):
        def forward(self, x, mask=None):
            y = self.self_attention(self.around_attention.before(x), x, x, mask)
            x = self.around_attention.after(x, y)
            y = self.feed_forward(self.around_feed_forward.before(x))
            return self.around_feed_forward.after(x, y)

    masked = "With a padding mask the pre-norm block"
    return {**more_path_mistakes(ours, "EncoderBlock"),
            "rotary ignored": rotary_ignored(ours.EncoderBlock),
            "mask ignored": Mistake("right without a mask: is it passed on to the attention?", MaskIgnored,
                                    masked),
            "mask inverted": Mistake("the mask is inverted: True means may attend", MaskInverted, masked),
            "only queries normalised": Mistake(
                "keys and values are x itself; queries, keys and values should all be norm(x)",
                OnlyQueriesNormalised, "Pre-norm")}


encoder_block_checks = Part(
    [encoder_pre_norm, encoder_pre_norm_masked, encoder_post_norm, encoder_post_norm_masked,
     encoder_has_right_gradients, encoder_hides_padding, encoder_drops_layers, encoder_rotates],
    encoder_block_mistakes,
    more=more_encoder_block_mistakes,
    needs="The checks copy weights into self_attention (project_query, project_key, project_value, "
          "project_output), feed_forward (expand, contract) and two parts of a class called LayerNorm, "
          "made in the order of their use.",
)


# ------------------------------------------------------------------ DecoderBlock(d_model, n_heads, d_ff, …)


def decoder_layers(implementation, norm: str) -> tuple[nn.Module, nn.Module]:
    """PyTorch's layer, and the implementation with its weights."""
    theirs = pytorch_layer(nn.TransformerDecoderLayer, norm)
    return theirs, copy_block(implementation(D_MODEL, HEADS, D_FF, 0.0, norm).double(), theirs)


def run_decoder(theirs: nn.Module) -> Tensor:
    """What PyTorch's decoder layer, or a stack of them, gives under both masks."""
    hidden = ~SOURCE_PADDING[:, 0, 0]
    return theirs(TARGET, SOURCE, tgt_mask=~CAUSAL, memory_key_padding_mask=hidden)


def compare_decoder_block(implementation, norm: str) -> Finding:
    def run(norm):
        theirs, block = decoder_layers(implementation, norm)
        return block, theirs, lambda ours: ours(TARGET, SOURCE, CAUSAL, SOURCE_PADDING), run_decoder

    return compare_norms(run, norm)


def decoder_pre_norm(implementation, ours):
    """Pre-norm with both masks: the block equals nn.TransformerDecoderLayer with norm_first=True."""
    return compare_decoder_block(implementation, "pre")


def decoder_post_norm(implementation, ours):
    """Post-norm with both masks: the block equals nn.TransformerDecoderLayer with norm_first=False."""
    return compare_decoder_block(implementation, "post")


def decoder_has_right_gradients(implementation, ours):
    """The gradients of all parameters equal PyTorch's, with pre-norm and post-norm."""
    findings = []
    for norm in ("pre", "post"):
        theirs, block = decoder_layers(implementation, norm)
        block(TARGET, SOURCE, CAUSAL, SOURCE_PADDING).sin().sum().backward()
        run_decoder(theirs).sin().sum().backward()
        findings.append(gradients_agree(block, theirs, copy_block))
    return together(*findings)


def decoder_hides_the_future(implementation, ours):
    """Other tokens in the future leave all earlier outputs the same, bit for bit."""
    block, other = decoder_layers(implementation, "pre")[1], TARGET.clone()
    other[:, 2:] = 7.0
    after, before = (block(x, SOURCE, CAUSAL, SOURCE_PADDING)[:, :2] for x in (other, TARGET))
    return agree(after, before, 0)


def decoder_hides_source_padding(implementation, ours):
    """Other content in the source's padding leaves the output the same, bit for bit."""
    block, other = decoder_layers(implementation, "pre")[1], SOURCE.clone()
    other[1, 3:] = 7.0
    after, before = (block(TARGET, source, CAUSAL, SOURCE_PADDING) for source in (other, SOURCE))
    return agree(after, before, 0)


def decoder_drops_layers(implementation, ours):
    """With dropout 0.5, in training, an eighth of the numbers pass all three layers unchanged."""
    x, memory = random_tensors((20, 4, D_MODEL), (20, 5, D_MODEL))
    return drops_half_of_each_layer(implementation(D_MODEL, HEADS, D_FF, 0.5).double(), 1 / 8, x, memory)


def decoder_rotates(implementation, ours):
    """With a rotation given as `rotary`, only the self-attention rotates its queries and keys."""
    theirs = pytorch_layer(nn.TransformerDecoderLayer, "pre")
    rotary = RotaryPositionalEncoding(D_MODEL // HEADS).double()
    block = copy_block(implementation(D_MODEL, HEADS, D_FF, 0.0, rotary=rotary).double(), theirs)
    x = rotated(theirs, TARGET, CAUSAL, rotary)
    hidden = ~SOURCE_PADDING[:, 0, 0]
    x = x + theirs.multihead_attn(theirs.norm2(x), SOURCE, SOURCE, key_padding_mask=hidden)[0]
    expected = x + theirs.linear2(F.gelu(theirs.linear1(theirs.norm3(x))))
    return agree(block(TARGET, SOURCE, CAUSAL, SOURCE_PADDING), expected)


def decoder_block_mistakes(ours):
    class CrossWithoutMask(ours.DecoderBlock):
        def forward(self, x, memory, mask=None, memory_mask=None):
            return super().forward(x, memory, mask, None)

    class SelfWithoutMask(ours.DecoderBlock):
        def forward(self, x, memory, mask=None, memory_mask=None):
            return super().forward(x, memory, None, memory_mask)

    return {
        **path_mistakes(ours, "DecoderBlock"),
        "source padding seen": Mistake("cross-attention ignores memory_mask, the source's padding",
                                       CrossWithoutMask, "Other content in the source"),
        "future seen": Mistake("self-attention ignores the causal mask", SelfWithoutMask,
                               "Other tokens in the future"),
    }


def more_decoder_block_mistakes(ours):
    class Other(ours.DecoderBlock):
        """Its cross-attention gets other queries, keys and values."""

        def cross(self, x, memory, memory_mask):
            return self.cross_attention(self.around_cross.before(x), memory, memory, memory_mask)

        def forward(self, x, memory, mask=None, memory_mask=None):
            h = self.around_self.before(x)
            x = self.around_self.after(x, self.self_attention(h, h, h, mask))
            x = self.around_cross.after(x, self.cross(x, memory, memory_mask))
            return self.around_feed_forward.after(x, self.feed_forward(self.around_feed_forward.before(x)))

    class LooksAtItself(Other):
        def cross(self, x, memory, memory_mask):
            h = self.around_cross.before(x)
            return self.cross_attention(h, h, h)

    class MemoryNormalised(Other):
        def cross(self, x, memory, memory_mask):
            before = self.around_cross.before
            return self.cross_attention(before(x), before(memory), before(memory), memory_mask)

    class NoMasks(ours.DecoderBlock):
        def forward(self, x, memory, mask=None, memory_mask=None):
            return super().forward(x, memory)

    return {**more_path_mistakes(ours, "DecoderBlock"),
            "rotary ignored": rotary_ignored(ours.DecoderBlock),
            "cross looks at itself": Mistake(
                "cross-attention looks at x; its keys and values should be the memory",
                LooksAtItself, "Pre-norm"),
            "memory normalised": Mistake(
                "the memory is already normalised; this norm is only for the queries",
                MemoryNormalised, "Pre-norm"),
            "no masks": Mistake("both masks are ignored", NoMasks, "Other tokens in the future")}


decoder_block_checks = Part(
    [decoder_pre_norm, decoder_post_norm, decoder_has_right_gradients, decoder_hides_the_future,
     decoder_hides_source_padding, decoder_drops_layers, decoder_rotates],
    decoder_block_mistakes,
    more=more_decoder_block_mistakes,
    needs="The checks copy weights into self_attention and cross_attention (project_query, project_key, "
          "project_value, project_output), feed_forward (expand, contract) and three parts of a class called "
          "LayerNorm, made in the order of their use.",
)

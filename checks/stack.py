"""What has to hold of lesson 4's stacks: Encoder and Decoder."""

from collections.abc import Callable

from torch import Tensor, nn

from checks.block import (
    CAUSAL,
    D_FF,
    D_MODEL,
    HEADS,
    SOURCE,
    SOURCE_PADDING,
    TARGET,
    copy_block,
    norms_of,
    pytorch_layer,
    run_decoder,
)
from checks.layers import blamed, copy_norm
from course.checking import Finding, Mistake, Part, agree, randomised

NEEDS = ("The checks copy weights into `blocks`, a list of lesson 4's blocks, and with pre-norm into `norm`, "
         "of a class called LayerNorm.")


def copy_stack(ours: nn.Module, theirs: nn.Module) -> nn.Module:
    """`ours`, an Encoder or Decoder, with the weights of PyTorch's stack."""
    for block, layer in zip(ours.blocks, theirs.layers, strict=True):
        copy_block(block, layer)
    if theirs.norm is not None and norms_of(ours.norm):
        copy_norm(ours.norm, theirs.norm)
    return ours


def final_norm(norm: str) -> nn.Module | None:
    """What ends PyTorch's stack."""
    return nn.LayerNorm(D_MODEL) if norm == "pre" else None


def without_norm(stack_class: type) -> type:
    """The stack without a LayerNorm after the last block."""

    class WithoutNorm(stack_class):
        def __init__(self, *sizes, **options):
            super().__init__(*sizes, **options)
            self.norm = nn.Identity()

    return WithoutNorm


def norm_missing(stack_class: type) -> Mistake:
    return Mistake("with pre-norm the stack ends in one more LayerNorm", without_norm(stack_class),
                   "Three pre-norm layers")


def compared(found: Tensor, expected: Tensor, ours: nn.Module, theirs: nn.Module, call: Callable,
             reference: Callable) -> Finding:
    """Finding: the same; else its diagnosis names a block, or the last norm, that is wrong by itself."""
    finding = agree(found, expected)
    parts = [(f"block {i}", lambda block=block: call(block), lambda layer=layer: reference(layer))
             for i, (block, layer) in enumerate(zip(ours.blocks, theirs.layers, strict=True))]
    if theirs.norm is not None and norms_of(ours.norm):
        parts.append(("last norm", lambda: ours.norm(SOURCE), lambda: theirs.norm(SOURCE)))
    return finding if finding.holds else blamed(finding, parts)


def more_mistakes(stack_class: type) -> dict[str, Mistake]:
    """Others that the lesson doesn't show."""

    class NormAlways(stack_class):
        def __init__(self, n_layers, d_model, *others, **options):
            super().__init__(n_layers, d_model, *others, **options)
            self.norm = nn.LayerNorm(d_model)

    class OneBlock(stack_class):
        def __init__(self, *sizes, **options):
            super().__init__(*sizes, **options)
            self.blocks = nn.ModuleList([self.blocks[0]] * len(self.blocks))

    def running(which: slice) -> type:
        class Running(stack_class):
            """Only these blocks run, or in this order."""

            def forward(self, *inputs):
                blocks, self.blocks = self.blocks, self.blocks[which]
                out = super().forward(*inputs)
                self.blocks = blocks
                return out

        return Running

    class WithoutMask(stack_class):
        def forward(self, *inputs):
            without = inputs[:1] if len(inputs) == 2 else (*inputs[:2], None, *inputs[3:])
            return super().forward(*without)

    pre, post = "Three pre-norm layers", "Three post-norm layers"
    return {
        "norm always": Mistake("with post-norm nothing follows the last block, which ends in a norm already",
                               NormAlways, post),
        "one block": Mistake("all blocks are one and the same: make a new one for each layer", OneBlock, pre),
        "first block alone": Mistake("the output is that of one block: hand x on, x = block(x, …)",
                                     running(slice(1)), pre),
        "last block alone": Mistake("the output is that of the last block, given the stack's input: hand x "
                                    "on, x = block(x, …)", running(slice(-1, None)), pre),
        "mask lost": Mistake("mask doesn't reach the blocks", WithoutMask, pre),
        "reversed": Mistake("the blocks run in reverse", running(slice(None, None, -1)), pre),
    }


# ------------------------------------------------------------------ Encoder(n_layers, d_model, …)


def compare_encoder(implementation, norm: str) -> Finding:
    """Finding: with PyTorch's weights the output is PyTorch's."""
    layer = pytorch_layer(nn.TransformerEncoderLayer, norm)
    theirs = randomised(nn.TransformerEncoder(layer, 3, final_norm(norm), enable_nested_tensor=False))
    encoder = copy_stack(implementation(3, D_MODEL, HEADS, D_FF, norm=norm).double(), theirs)

    def reference(layer):
        return layer(SOURCE, src_key_padding_mask=~SOURCE_PADDING[:, 0, 0])

    def call(block):
        return block(SOURCE, SOURCE_PADDING)

    return compared(call(encoder), reference(theirs), encoder, theirs, call, reference)


def encoder_pre_norm(implementation, ours):
    """Three pre-norm layers and a final norm: it equals nn.TransformerEncoder."""
    return compare_encoder(implementation, "pre")


def encoder_post_norm(implementation, ours):
    """Three post-norm layers, no final norm: it equals nn.TransformerEncoder."""
    return compare_encoder(implementation, "post")


def encoder_mistakes(ours):
    return {"norm missing": norm_missing(ours.Encoder)}


encoder_checks = Part([encoder_pre_norm, encoder_post_norm], encoder_mistakes, NEEDS,
                      more=lambda ours: more_mistakes(ours.Encoder))


# ------------------------------------------------------------------ Decoder(n_layers, d_model, …)


def compare_decoder(implementation, norm: str) -> Finding:
    """Finding: with PyTorch's weights the output is PyTorch's."""
    layer = pytorch_layer(nn.TransformerDecoderLayer, norm)
    theirs = randomised(nn.TransformerDecoder(layer, 3, final_norm(norm)))
    decoder = copy_stack(implementation(3, D_MODEL, HEADS, D_FF, norm=norm).double(), theirs)

    def call(block):
        return block(TARGET, SOURCE, CAUSAL, SOURCE_PADDING)

    return compared(call(decoder), run_decoder(theirs), decoder, theirs, call, run_decoder)


def decoder_pre_norm(implementation, ours):
    """Three pre-norm layers and a final norm: it equals nn.TransformerDecoder."""
    return compare_decoder(implementation, "pre")


def decoder_post_norm(implementation, ours):
    """Three post-norm layers, no final norm: it equals nn.TransformerDecoder."""
    return compare_decoder(implementation, "post")


def decoder_mistakes(ours):
    class WithoutMemoryMask(ours.Decoder):
        def forward(self, x, memory, mask=None, memory_mask=None):
            return super().forward(x, memory, mask, None)

    lost = Mistake("memory_mask doesn't reach the blocks", WithoutMemoryMask, "Three pre-norm layers")
    return {"norm missing": norm_missing(ours.Decoder), "memory_mask lost": lost}


decoder_checks = Part([decoder_pre_norm, decoder_post_norm], decoder_mistakes, NEEDS,
                      more=lambda ours: more_mistakes(ours.Decoder))

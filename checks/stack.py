"""What must hold for lesson 4's stacks, Encoder and Decoder, and for lesson 5's Transformer, made of both."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
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
from checks.layers import blamed, copy_norm, same_numbers
from common import lesson
from course.console.records import Finding
from course.grading.checking import (
    Mistake,
    Part,
    agree,
    at,
    gradients_agree,
    largest_difference,
    randomised,
    together,
)

causal_mask, padding_mask = lesson("01_attention_mechanism", "causal_mask", "padding_mask")
BOS, PAD, SinusoidalPositionalEncoding, TokenEmbedding = lesson(
    "03_positional_encoding", "BOS", "PAD", "SinusoidalPositionalEncoding", "TokenEmbedding")

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
                   "Three pre-norm blocks")


def compared(found: Tensor, expected: Tensor, ours: nn.Module, theirs: nn.Module, call: Callable,
             reference: Callable) -> Finding:
    """Finding: the same; otherwise its diagnosis names a block, or the last norm, that is wrong by itself."""
    finding = agree(found, expected)
    parts = [(f"block {i}", block, lambda block=block: call(block), lambda layer=layer: reference(layer))
             for i, (block, layer) in enumerate(zip(ours.blocks, theirs.layers, strict=True))]
    if theirs.norm is not None and norms_of(ours.norm):
        parts.append(("last norm", ours.norm, lambda: ours.norm(SOURCE), lambda: theirs.norm(SOURCE)))
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

    pre, post = "Three pre-norm blocks", "Three post-norm blocks"
    return {
        "norm always": Mistake("with post-norm nothing follows the last block, which ends in a norm already",
                               NormAlways, post),
        "one block": Mistake("all blocks are one object: make n_layers separate blocks", OneBlock, pre),
        "first block alone": Mistake("only one block runs: pass x on, x = block(x, …)",
                                     running(slice(1)), pre),
        "last block alone": Mistake("the last block gets the stack's input: pass x on, x = block(x, …)",
                                    running(slice(-1, None)), pre),
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
    """Three pre-norm blocks and a final norm equal nn.TransformerEncoder."""
    return compare_encoder(implementation, "pre")


def encoder_post_norm(implementation, ours):
    """Three post-norm blocks without a final norm equal nn.TransformerEncoder."""
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
    """Three pre-norm blocks and a final norm equal nn.TransformerDecoder."""
    return compare_decoder(implementation, "pre")


def decoder_post_norm(implementation, ours):
    """Three post-norm blocks without a final norm equal nn.TransformerDecoder."""
    return compare_decoder(implementation, "post")


def decoder_mistakes(ours):
    class WithoutMemoryMask(ours.Decoder):
        def forward(self, x, memory, mask=None, memory_mask=None):
            return super().forward(x, memory, mask, None)

    lost = Mistake("memory_mask doesn't reach the blocks", WithoutMemoryMask, "Three pre-norm blocks")
    return {"norm missing": norm_missing(ours.Decoder), "memory_mask lost": lost}


decoder_checks = Part([decoder_pre_norm, decoder_post_norm], decoder_mistakes, NEEDS,
                      more=lambda ours: more_mistakes(ours.Decoder))


# ------------------------------------------------------------------ PyTorch's model as the oracle of lesson 5


class Reference(nn.Module):
    """nn.Transformer between our embedding and our logits."""

    def __init__(self, config):
        super().__init__()
        self.embedding = TokenEmbedding(config.vocab_size, config.d_model)
        self.positions = SinusoidalPositionalEncoding(config.d_model, config.max_len)
        sizes = config.d_model, config.n_heads, config.d_ff, config.dropout, config.activation
        options = {"batch_first": True, "norm_first": config.norm == "pre"}
        # nn.Transformer ends post-norm stacks in one more norm, the paper doesn't: so we give it our own
        norms = [nn.LayerNorm(config.d_model) if config.norm == "pre" else None for _ in range(2)]
        encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(*sizes, **options), config.n_layers,
                                        norms[0], enable_nested_tensor=False)
        decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(*sizes, **options), config.n_layers,
                                        norms[1])
        self.stacks = nn.Transformer(config.d_model, config.n_heads, custom_encoder=encoder,
                                     custom_decoder=decoder, **options)

    def forward(self, src: Tensor, tgt: Tensor) -> Tensor:
        hidden = src == PAD
        x, y = self.positions(self.embedding(src)), self.positions(self.embedding(tgt))
        y = self.stacks(x, y, tgt_mask=~causal_mask(tgt.shape[1], tgt.device),
                        src_key_padding_mask=hidden, memory_key_padding_mask=hidden)
        return self.embedding.logits(y)


def copy_transformer(ours: nn.Module, theirs: Reference) -> nn.Module:
    """`ours` with the weights of the reference."""
    with torch.no_grad():
        ours.embedding.weight.copy_(theirs.embedding.weight)
    copy_stack(ours.encoder, theirs.stacks.encoder)
    copy_stack(ours.decoder, theirs.stacks.decoder)
    return ours


@contextmanager
def remembering(decoder: nn.Module) -> Iterator[None]:
    """Inside `with`, what comes into each self-attention of the decoder is kept, and seen from then on."""
    hooks = [block.self_attention.register_forward_pre_hook(keeper()) for block in decoder.blocks]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def keeper() -> Callable:
    """Appends keys and values (B, T, D) to those of earlier calls."""
    kept: list[list[Tensor]] = [[], []]

    def keep(attention, inputs):
        query, *new = inputs[:3]
        for before, tensor in zip(kept, new, strict=True):
            before.append(tensor)
        return query, *(torch.cat(tensors, dim=1) for tensors in kept), *inputs[3:]

    return keep


# ------------------------------------------------------------------ Transformer(config)


SRC = torch.tensor([[4, 5, 6, 7, 8], [9, 10, 11, PAD, PAD]])
TGT = torch.tensor([[BOS, 8, 7, 6, 5, 4], [BOS, 11, 10, 9, PAD, PAD]])


def transformer_agrees(transformer, ours, norm: str) -> Finding:
    config = ours.TransformerConfig(d_model=16, n_heads=2, n_layers=2, norm=norm)
    torch.manual_seed(0)
    theirs = Reference(config).double()
    model = copy_transformer(transformer(config).double(), theirs)
    found, expected = model(SRC, TGT), theirs(SRC, TGT)
    untied = [name for name, parameter in model.named_parameters()
              if name != "embedding.weight" and parameter.shape == theirs.embedding.weight.shape]
    hint = "{} is not the embedding's matrix, which the output shares: embedding.logits(x)"
    logits = agree(found, expected, hint=hint.format(untied[0]) if untied else "")
    if not logits.holds:  # the gradients of other logits say nothing more
        return logits
    found.sin().sum().backward()
    expected.sin().sum().backward()
    return gradients_agree(model, theirs, copy_transformer)


def pre_norm(transformer, ours):
    """With the same weights the pre-norm model equals nn.Transformer in logits and gradients."""
    return transformer_agrees(transformer, ours, "pre")


def post_norm(transformer, ours):
    """With post-norm, as in the paper, the model equals nn.Transformer without its two extra last norms."""
    return transformer_agrees(transformer, ours, "post")


def hides_the_future(transformer, ours):
    """Changing later tokens leaves all earlier logits the same, bit for bit."""
    model, other = transformer(ours.TransformerConfig(d_model=16, n_heads=2)).double(), TGT.clone()
    other[:, 3:] = 3
    return agree(model(SRC, other)[:, :3], model(SRC, TGT)[:, :3], 0)


def obeys_positions(transformer, ours):
    """Exchanging two digits of the source changes the logits, unless positions are “none”."""
    exchanged = SRC[:, [1, 0, 2, 3, 4]]
    for positions in ("none", "sinusoidal", "learned", "rotary"):
        torch.manual_seed(0)
        config = ours.TransformerConfig(d_model=16, n_heads=2, positions=positions)
        model = transformer(config).double()
        before = model(SRC, TGT)
        gap = largest_difference(model(exchanged, TGT), before)
        if (gap > 1e-10) == (positions == "none"):
            seen = positions == "none" or not torch.equal(model(SRC.where(SRC != 4, 12), TGT), before)
            return Finding(False, f"{positions}: {gap:.0e}", "build what config.positions says" if seen else
                           "other digits in the source also change nothing: does a mask hide them all?")
    return Finding(True)


def counts_from_start(transformer, ours):
    """Tokens that are decoded one by one get their own positions from decode(…, start)."""
    findings = []
    for positions in ("none", "sinusoidal", "learned", "rotary"):
        torch.manual_seed(0)
        config = ours.TransformerConfig(d_model=16, n_heads=2, positions=positions)
        model = transformer(config).double().eval()
        given = model.encode(SRC), padding_mask(SRC, PAD)
        whole = model.decode(TGT, *given)
        found, ignored = (one_by_one(model, *given, counted) for counted in (True, False))
        hint = ("start is ignored: the first token of tgt is at position `start`"
                if positions != "none" and same_numbers(found, ignored)
                and not same_numbers(found, whole) else "")
        findings.append(at(positions, agree(found, whole, hint=hint, axes="batch, place, logit")))
    return together(*findings)


def one_by_one(model: nn.Module, memory: Tensor, src_mask: Tensor, counted: bool) -> Tensor:
    """The logits of TGT, token by token, the earlier ones kept; not `counted`: each with start 0."""
    with remembering(model.decoder):
        return torch.cat([model.decode(TGT[:, [place]], memory, src_mask, place if counted else 0)
                          for place in range(TGT.shape[1])], dim=1)


def begins_near_guessing(transformer, ours):
    """The untrained model's loss is within 0.3 of ln V."""
    torch.manual_seed(0)
    config = ours.TransformerConfig()
    tokens = torch.randint(3, config.vocab_size, (64, 12))
    logits = transformer(config)(tokens, F.pad(tokens, (1, 0), value=BOS))[:, :-1]
    loss = F.cross_entropy(logits.flatten(0, 1), tokens.flatten()).item()
    expected = math.log(config.vocab_size)
    return Finding(abs(loss - expected) < 0.3, f"{loss:.2f}, ln V = {expected:.2f}",
                   "start the gain of the last norm at d_model^−½")


def drops_embeddings(transformer, ours):
    """In training, dropout sets its fraction of embedding + position to 0; in evaluation it sets none."""
    torch.manual_seed(0)
    model = transformer(ours.TransformerConfig(d_model=64, n_heads=2, n_layers=1, dropout=0.25))
    entering: list[Tensor] = []
    for stack in (model.encoder, model.decoder):
        stack.register_forward_pre_hook(lambda module, inputs: entering.append(inputs[0]))
    for training in (True, False):
        model.train(training)
        model(SRC.repeat(8, 1), TGT.repeat(8, 1))
    zero = [(x == 0).double().mean().item() for x in entering]
    return Finding(all(abs(part - 0.25) < 0.05 for part in zero[:2]) and not any(zero[2:]),
                   ", ".join(f"{part:.0%}" for part in zero[:2]),
                   "dropout comes after the positions are added (section 5.4), in training only")


def transformer_mistakes(ours):
    class WithoutCausalMask(ours.Transformer):
        def tgt_mask(self, length, device):
            return torch.ones_like(causal_mask(length, device))

    class PaddingMaskInverted(ours.Transformer):
        def src_mask(self, src):
            return ~super().src_mask(src)

    class PaddingSeen(ours.Transformer):
        def src_mask(self, src):
            return torch.ones_like(super().src_mask(src))

    return {
        "no causal mask": Mistake("the decoder sees the future: a causal mask hides it", WithoutCausalMask,
                                  "With the same weights"),
        "padding mask inverted": Mistake("the padding mask is inverted: True means may attend",
                                         PaddingMaskInverted, "With the same weights"),
        "padding seen": Mistake("the source's padding is visible: hide it from encoder and decoder",
                                PaddingSeen, "With the same weights"),
    }


def more_transformer_mistakes(ours):
    """Others that the lesson doesn't show."""

    def masked(encoder=lambda mask: mask, decoder=lambda mask: mask):
        class Masked(ours.Transformer):
            def encode(self, src):
                return self.encoder(self.embed(src), encoder(self.src_mask(src)))

            def decode(self, tgt, memory, src_mask, start=0):
                return super().decode(tgt, memory, decoder(src_mask), start)

        return Masked

    class WithoutPositions(ours.Transformer):
        def embed(self, tokens, start=0):
            return self.embedding(tokens)

    class NoDropout(ours.Transformer):
        def embed(self, tokens, start=0):
            x = self.embedding(tokens)
            return x if self.positions is None else self.positions(x, start)

    def seen(mask):
        return torch.ones_like(mask)

    same = "With the same weights"
    inverted = "the padding mask of the {} is inverted: True means may attend"
    hidden = "the source's padding is hidden only from the {}: pass the mask to the {} as well"
    return {
        "encoder's mask inverted": Mistake(inverted.format("encoder"),
                                           masked(encoder=torch.logical_not), same),
        "decoder's mask inverted": Mistake(inverted.format("decoder's attention to the memory"),
                                           masked(decoder=torch.logical_not), same),
        "encoder sees padding": Mistake(hidden.format("decoder", "encoder"), masked(encoder=seen), same),
        "decoder sees padding": Mistake(hidden.format("encoder", "decoder"), masked(decoder=seen), same),
        "no positions": Mistake("the positions are missing: add them to the embedding of src and tgt",
                                WithoutPositions, same),
        "no dropout": Mistake("dropout comes after the positions are added (section 5.4), in training only",
                              NoDropout, "In training, dropout"),
    }


transformer_checks = Part(
    [pre_norm, post_norm, hides_the_future, obeys_positions, counts_from_start, begins_near_guessing,
     drops_embeddings],
    transformer_mistakes,
    more=more_transformer_mistakes,
    needs="The checks copy weights into embedding.weight, encoder and decoder (lesson 4's names inside). The "
          "config has the fields d_model, n_heads, n_layers, d_ff, dropout, norm ('pre', 'post'), positions "
          "('sinusoidal', 'learned', 'rotary', 'none'), activation ('gelu', 'relu'), max_len, vocab_size. "
          "They call model = Transformer(TransformerConfig(d_model=16, n_heads=2)); model(src, tgt), with "
          "ids (B, S) and (B, T); memory = model.encode(src); model.decode(tgt, memory, src_mask, start=0).")

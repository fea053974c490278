"""Mapping the tensors of published files to the parameters of the course's parts.

A plan says how to build the model and lists the moves. The names are those of Hugging Face's `transformers`,
without the prefix of models with a head.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor, nn

from course.published.configs import ACTIVATIONS, Reader
from course.published.models import causal_stack, picture_encoder, text_encoder

Shape = tuple[int, ...]


class Change(NamedTuple):
    """How tensors of a file are converted so that they fit, in words and as a function."""

    said: str
    make: Callable[..., Tensor]


class Move(NamedTuple):
    """Tensors of a file, with their shapes; the conversion; the parameters of equal size it is split into."""

    theirs: Mapping[str, Shape]
    ours: tuple[str, ...]
    change: Change


class Plan(NamedTuple):
    """What a config asks for: how to build the model, the moves, and which tensors are ignored."""

    make: Callable[[Any], nn.Module]  # builds it from the lesson's parts
    moves: list[Move]
    left_out: str  # a pattern: buffers, and heads that the model doesn't have here
    eps: float
    tanh: bool = False  # the GELU is the tanh approximation


AS_IT_IS = Change("", lambda x: x)


def divided(factor: float) -> Change:
    """Divide, because the course's embedding multiplies by √d_model."""
    return Change("÷ √d", lambda x: x / factor)


def times(factor: float) -> Change:
    """Multiply, because the tied output uses the divided embedding."""
    return Change("· √d", lambda x: x * factor)


def in_pairs(heads: int) -> Change:
    """Reorder each head's rows from (first halves, second halves) to pairs: lesson 3 rotates neighbours."""

    def make(weight: Tensor) -> Tensor:
        halves = weight.unflatten(0, (heads, 2, -1))  # (H, 2, K / 2, D)
        return halves.transpose(1, 2).reshape(weight.shape)

    return Change("halves to pairs", make)


def linear(theirs: str, ours: str, out: int, inputs: int) -> list[Move]:
    """Weight and bias of a linear map."""
    return [Move({f"{theirs}.weight": (out, inputs)}, (f"{ours}.weight",), AS_IT_IS),
            Move({f"{theirs}.bias": (out,)}, (f"{ours}.bias",), AS_IT_IS)]


def norm(theirs: str, ours: str, width: int) -> list[Move]:
    """Gain and bias of a LayerNorm."""
    return [Move({f"{theirs}.weight": (width,)}, (f"{ours}.gain",), AS_IT_IS),
            Move({f"{theirs}.bias": (width,)}, (f"{ours}.bias",), AS_IT_IS)]


def ends(table: str, last: Mapping[str, str], vocab: int, width: int, tied: bool) -> list[Move]:
    """The moves of the embedding, the last norm's vectors and the output.

    If embedding and output are tied, the last norm compensates for the embedding's ÷ √d.
    """
    root, shape = math.sqrt(width), (vocab, width)
    after = [Move({theirs: (width,)}, (ours,), times(root) if tied else AS_IT_IS)
             for theirs, ours in last.items()]
    if tied:
        return [Move({table: shape}, ("embedding.weight",), divided(root)), *after]
    return [Move({table: shape}, ("embedding.tokens.weight",), divided(root)), *after,
            Move({"lm_head.weight": shape}, ("embedding.output.weight",), AS_IT_IS)]


def gpt2(reader: Reader) -> Plan:
    """GPT-2 (Radford et al. 2019): lesson 4's pre-norm blocks, causal; the linear maps are transposed."""
    layers, width, heads = (reader.size(key) for key in ("n_layer", "n_embd", "n_head"))
    inner, length = reader.size("n_inner", 4 * width), reader.size("n_positions")
    vocab, eps = reader.size("vocab_size"), reader.number("layer_norm_epsilon", 1e-5)
    tied = reader.among("tie_word_embeddings", {True: True, False: False}, True)
    activation, tanh = reader.among("activation_function", ACTIVATIONS)
    reader.split("n_embd", "n_head")
    moves = [Move({"wpe.weight": (length, width)}, ("positions.table",), AS_IT_IS)]
    for layer in range(layers):
        theirs, ours = f"h.{layer}", f"stack.blocks.{layer}"
        moves += norm(f"{theirs}.ln_1", f"{ours}.around_attention.norm", width)
        moves += turned(f"{theirs}.attn.c_attn", projections(ours), 3 * width, width)
        moves += turned(f"{theirs}.attn.c_proj", [f"{ours}.self_attention.project_output"], width, width)
        moves += norm(f"{theirs}.ln_2", f"{ours}.around_feed_forward.norm", width)
        moves += turned(f"{theirs}.mlp.c_fc", [f"{ours}.feed_forward.expand"], inner, width)
        moves += turned(f"{theirs}.mlp.c_proj", [f"{ours}.feed_forward.contract"], width, inner)
    moves += ends("wte.weight", {"ln_f.weight": "stack.norm.gain", "ln_f.bias": "stack.norm.bias"},
                  vocab, width, tied)
    make = partial(causal_stack, tied=tied, base=None, d_model=width, n_heads=heads, n_layers=layers,
                   d_ff=inner, vocab_size=vocab, max_len=length, positions="learned", activation=activation)
    buffers = r"h\.\d+\.attn\.(bias|masked_bias)"
    return Plan(make, moves, f"{buffers}|lm_head.weight" if tied else buffers, eps, tanh)


def llama(reader: Reader) -> Plan:
    """Llama (Touvron et al. 2023) and Mistral: RMSNorm, SwiGLU, rotary positions, grouped queries."""
    layers, width, heads = (
        reader.size(key) for key in ("num_hidden_layers", "hidden_size", "num_attention_heads"))
    groups, inner = reader.size("num_key_value_heads", heads), reader.size("intermediate_size")
    vocab, length = reader.size("vocab_size"), reader.size("max_position_embeddings")
    eps, base, d_k = reader.number("rms_norm_eps", 1e-6), reader.rotary_base(), width // heads
    tied = reader.among("tie_word_embeddings", {True: True, False: False}, False)
    reader.split("hidden_size", "num_attention_heads")
    if heads % groups:
        raise ValueError(f"{reader.path}: {heads} heads do not split into num_key_value_heads {groups}")
    if reader.size("head_dim", d_k) != d_k:
        raise ValueError(f"{reader.path}: head_dim is {reader.size('head_dim')}; only hidden_size / "
                         f"num_attention_heads, {d_k}, is supported")
    moves = []
    for layer in range(layers):
        theirs, ours = f"layers.{layer}", f"stack.blocks.{layer}"
        attention, feed_forward = f"{ours}.self_attention.project_", f"{ours}.feed_forward."
        for name, part, change, shape in (
            ("input_layernorm", f"{ours}.around_attention.norm.gain", AS_IT_IS, (width,)),
            ("self_attn.q_proj", f"{attention}query.weight", in_pairs(heads), (width, width)),
            ("self_attn.k_proj", f"{attention}key.weight", in_pairs(groups), (groups * d_k, width)),
            ("self_attn.v_proj", f"{attention}value.weight", AS_IT_IS, (groups * d_k, width)),
            ("self_attn.o_proj", f"{attention}output.weight", AS_IT_IS, (width, width)),
            ("post_attention_layernorm", f"{ours}.around_feed_forward.norm.gain", AS_IT_IS, (width,)),
            ("mlp.gate_proj", f"{feed_forward}gate.weight", AS_IT_IS, (inner, width)),
            ("mlp.up_proj", f"{feed_forward}expand.weight", AS_IT_IS, (inner, width)),
            ("mlp.down_proj", f"{feed_forward}contract.weight", AS_IT_IS, (width, inner)),
        ):
            moves.append(Move({f"{theirs}.{name}.weight": shape}, (part,), change))
    moves += ends("embed_tokens.weight", {"norm.weight": "stack.norm.gain"}, vocab, width, tied)
    make = partial(causal_stack, tied=tied, base=base, d_model=width, n_heads=heads, n_layers=layers,
                   d_ff=inner, vocab_size=vocab, max_len=length, positions="rotary", norm_kind="rms",
                   feed_forward="swiglu", n_groups=groups)
    buffers = r"layers\.\d+\.self_attn\.rotary_emb\.inv_freq"
    return Plan(make, moves, f"{buffers}|lm_head.weight" if tied else buffers, eps)


def bert(reader: Reader) -> Plan:
    """BERT (Devlin et al. 2019): lesson 4's post-norm encoder, with a LayerNorm after the embeddings.

    Every token counts as part of the first text, so the vector of token type 0 is added to every position.
    """
    layers, width, heads, inner = sizes(reader)
    vocab, length = reader.size("vocab_size"), reader.size("max_position_embeddings")
    types, eps = reader.size("type_vocab_size", 2), reader.number("layer_norm_eps", 1e-12)
    activation, tanh = reader.among("hidden_act", ACTIVATIONS)
    first = "embeddings"
    moves = [
        Move({f"{first}.word_embeddings.weight": (vocab, width)}, ("embedding.weight",),
             divided(math.sqrt(width))),
        Move({f"{first}.position_embeddings.weight": (length, width),
              f"{first}.token_type_embeddings.weight": (types, width)}, ("positions.places.table",),
             Change("sum with token type 0", lambda places, kinds: places + kinds[0])),
        *norm(f"{first}.LayerNorm", "positions.norm", width)]
    for layer in range(layers):
        theirs, ours = f"encoder.layer.{layer}", f"stack.blocks.{layer}"
        moves += attention(theirs, ours, width)
        moves += norm(f"{theirs}.attention.output.LayerNorm", f"{ours}.around_attention.norm", width)
        moves += linear(f"{theirs}.intermediate.dense", f"{ours}.feed_forward.expand", inner, width)
        moves += linear(f"{theirs}.output.dense", f"{ours}.feed_forward.contract", width, inner)
        moves += norm(f"{theirs}.output.LayerNorm", f"{ours}.around_feed_forward.norm", width)
    make = partial(text_encoder, d_model=width, n_heads=heads, n_layers=layers, d_ff=inner,
                   vocab_size=vocab, max_len=length, activation=activation)
    return Plan(make, moves, r"embeddings\.position_ids|pooler\..*|cls\..*", eps, tanh)


def vit(reader: Reader) -> Plan:
    """ViT (Dosovitskiy et al. 2021): patches, one learned vector in front, lesson 4's pre-norm encoder."""
    layers, width, heads, inner = sizes(reader)
    size, patch, channels = (reader.size(key) for key in ("image_size", "patch_size", "num_channels"))
    reader.split("image_size", "patch_size")
    eps, (activation, tanh) = reader.number("layer_norm_eps", 1e-12), reader.among("hidden_act", ACTIVATIONS)
    places, first = (size // patch) ** 2 + 1, "embeddings"
    moves = [
        Move({f"{first}.cls_token": (1, 1, width)}, ("first",), AS_IT_IS),
        Move({f"{first}.position_embeddings": (1, places, width)}, ("positions.table",),
             Change("without the batch axis", lambda x: x[0])),
        Move({f"{first}.patch_embeddings.projection.weight": (width, channels, patch, patch)},
             ("patches.project.weight",), Change("flattened", lambda x: x.flatten(1))),
        Move({f"{first}.patch_embeddings.projection.bias": (width,)}, ("patches.project.bias",), AS_IT_IS)]
    for layer in range(layers):
        theirs, ours = f"encoder.layer.{layer}", f"stack.blocks.{layer}"
        moves += attention(theirs, ours, width, "attention.attention")
        moves += norm(f"{theirs}.layernorm_before", f"{ours}.around_attention.norm", width)
        moves += linear(f"{theirs}.intermediate.dense", f"{ours}.feed_forward.expand", inner, width)
        moves += linear(f"{theirs}.output.dense", f"{ours}.feed_forward.contract", width, inner)
        moves += norm(f"{theirs}.layernorm_after", f"{ours}.around_feed_forward.norm", width)
    moves += norm("layernorm", "stack.norm", width)
    make = partial(picture_encoder, patch=patch, pixels=size, channels=channels, d_model=width,
                   n_heads=heads, n_layers=layers, d_ff=inner, activation=activation)
    return Plan(make, moves, r"pooler\..*|classifier\..*", eps, tanh)


def sizes(reader: Reader) -> tuple[int, ...]:
    """Layers, width, heads and inner width, as BERT and ViT name them."""
    reader.split("hidden_size", "num_attention_heads")
    return tuple(reader.size(key) for key in (
        "num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size"))


def projections(block: str) -> list[str]:
    """The linear maps to queries, keys and values."""
    return [f"{block}.self_attention.project_{name}" for name in ("query", "key", "value")]


def attention(theirs: str, ours: str, width: int, inside: str = "attention.self") -> list[Move]:
    """The four linear maps of BERT's and ViT's attention."""
    names = [f"{theirs}.{inside}.{name}" for name in ("query", "key", "value")]
    pairs = [*zip(names, projections(ours)),
             (f"{theirs}.attention.output.dense", f"{ours}.self_attention.project_output")]
    return [move for name, part in pairs for move in linear(name, part, width, width)]


def turned(theirs: str, ours: list[str], out: int, inputs: int) -> list[Move]:
    """GPT-2 stores weights as (inputs, outputs), nn.Linear as (outputs, inputs), several maps in one."""
    cut = f", in {len(ours)}" if len(ours) > 1 else ""
    return [Move({f"{theirs}.weight": (inputs, out)}, tuple(f"{name}.weight" for name in ours),
                 Change(f"transposed{cut}", lambda weight: weight.T)),
            Move({f"{theirs}.bias": (out,)}, tuple(f"{name}.bias" for name in ours),
                 Change(cut.removeprefix(", "), lambda bias: bias))]


PLANS: dict[str, Callable[[Reader], Plan]] = {
    "gpt2": gpt2, "llama": llama, "mistral": llama, "bert": bert, "vit": vit}
PREFIX = {"gpt2": "transformer.", "llama": "model.", "mistral": "model.", "bert": "bert.", "vit": "vit."}

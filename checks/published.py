"""What lesson 10 checks loaded weights against: the same models, written with the names in the file.

Nothing here uses the course's parts: a tensor's name leads to a product, a norm or an activation of
PyTorch's. The classic mistakes are made in a model that is already loaded.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course.grading.checking import largest_difference
from course.published.loading import load, write_random
from course.published.tensor_files import read_weights
from course.published.weights import MOVED, moves_shown, output_of


def gpt2_logits(weights: Mapping[str, Tensor], config: Mapping[str, Any], ids: Tensor) -> Tensor:
    """GPT-2's logits (B, L, V) of ids (B, L)."""
    width, eps = config["n_embd"], config["layer_norm_epsilon"]

    def norm(name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, (width,), weights[f"{name}.weight"], weights[f"{name}.bias"], eps)

    def turned(name: str, x: Tensor) -> Tensor:
        return x @ weights[f"{name}.weight"] + weights[f"{name}.bias"]

    x = weights["wte.weight"][ids] + weights["wpe.weight"][: ids.shape[1]]
    for layer in range(config["n_layer"]):
        h = f"h.{layer}"
        queries_keys_values = turned(f"{h}.attn.c_attn", norm(f"{h}.ln_1", x)).split(width, dim=-1)
        heads = attended(*(in_heads(part, config["n_head"]) for part in queries_keys_values))
        x = x + turned(f"{h}.attn.c_proj", heads)
        x = x + turned(f"{h}.mlp.c_proj", gelu_tanh(turned(f"{h}.mlp.c_fc", norm(f"{h}.ln_2", x))))
    return norm("ln_f", x) @ weights["wte.weight"].T


def llama_logits(weights: Mapping[str, Tensor], config: Mapping[str, Any], ids: Tensor) -> Tensor:
    """Llama's logits (B, L, V) of ids (B, L)."""
    heads, groups, eps = (
        config[key] for key in ("num_attention_heads", "num_key_value_heads", "rms_norm_eps"))

    def norm(name: str, x: Tensor) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], weights[f"{name}.weight"], eps)

    x = weights["embed_tokens.weight"][ids]
    for layer in range(config["num_hidden_layers"]):
        h = f"layers.{layer}"
        query, key, value, out = (weights[f"{h}.self_attn.{name}_proj.weight"].T for name in "qkvo")
        gate, up, down = (weights[f"{h}.mlp.{name}_proj.weight"].T for name in ("gate", "up", "down"))
        y = norm(f"{h}.input_layernorm", x)
        queries, keys = (halves_turned(in_heads(y @ part, count), config["rope_theta"])
                         for part, count in ((query, heads), (key, groups)))
        shared = (part.repeat_interleave(heads // groups, 1) for part in (keys, in_heads(y @ value, groups)))
        x = x + attended(queries, *shared) @ out
        y = norm(f"{h}.post_attention_layernorm", x)
        x = x + (F.silu(y @ gate) * (y @ up)) @ down
    return norm("norm", x) @ weights["lm_head.weight"].T


def bert_vectors(weights: Mapping[str, Tensor], config: Mapping[str, Any], ids: Tensor) -> Tensor:
    """BERT's vectors (B, L, D) of ids (B, L); id 0 is padding, which no token sees."""
    places, kinds = (weights[f"embeddings.{name}_embeddings.weight"] for name in ("position", "token_type"))
    x = weights["embeddings.word_embeddings.weight"][ids] + places[: ids.shape[1]] + kinds[0]
    x, hidden = layer_norm(weights, config, "embeddings.LayerNorm", x), (ids == 0)[:, None, None]
    for layer in range(config["num_hidden_layers"]):
        h = f"encoder.layer.{layer}"
        heads = attended(*three_projections(weights, config, f"{h}.attention.self", x), hidden)
        x = x + times(weights, f"{h}.attention.output.dense", heads)
        x = layer_norm(weights, config, f"{h}.attention.output.LayerNorm", x)
        y = F.gelu(times(weights, f"{h}.intermediate.dense", x))
        x = layer_norm(weights, config, f"{h}.output.LayerNorm", x + times(weights, f"{h}.output.dense", y))
    return x


def vit_vectors(weights: Mapping[str, Tensor], config: Mapping[str, Any], pictures: Tensor) -> Tensor:
    """ViT's vectors (B, 1 + N, D) of pictures (B, C, height, width), cut by a strided convolution."""
    kernel, bias = (weights[f"embeddings.patch_embeddings.projection.{name}"] for name in ("weight", "bias"))
    patches = F.conv2d(pictures, kernel, bias, stride=config["patch_size"]).flatten(2).mT
    x = torch.cat([weights["embeddings.cls_token"].expand(len(pictures), -1, -1), patches], dim=1)
    x, nobody = x + weights["embeddings.position_embeddings"], torch.zeros(1, dtype=torch.bool)
    for layer in range(config["num_hidden_layers"]):
        h = f"encoder.layer.{layer}"
        y = layer_norm(weights, config, f"{h}.layernorm_before", x)
        heads = attended(*three_projections(weights, config, f"{h}.attention.attention", y), nobody)
        x = x + times(weights, f"{h}.attention.output.dense", heads)
        y = times(weights, f"{h}.intermediate.dense", layer_norm(weights, config, f"{h}.layernorm_after", x))
        x = x + times(weights, f"{h}.output.dense", F.gelu(y))
    return layer_norm(weights, config, "layernorm", x)


def times(weights: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    """A linear map whose weight has nn.Linear's layout."""
    return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])


def layer_norm(weights: Mapping[str, Tensor], config: Mapping[str, Any], name: str, x: Tensor) -> Tensor:
    gain, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
    return F.layer_norm(x, gain.shape, gain, bias, config["layer_norm_eps"])


def three_projections(weights: Mapping[str, Tensor], config: Mapping[str, Any], name: str, x: Tensor
                      ) -> list[Tensor]:
    """Queries, keys and values, (B, H, L, K) each."""
    return [in_heads(times(weights, f"{name}.{part}", x), config["num_attention_heads"])
            for part in ("query", "key", "value")]


def in_heads(x: Tensor, heads: int) -> Tensor:
    """(B, L, H · K) → (B, H, L, K)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def attended(queries: Tensor, keys: Tensor, values: Tensor, hidden: Tensor | None = None) -> Tensor:
    """Attention of all heads, side by side: (B, L, H · K). It hides the keys in `hidden`, or the future."""
    scores = queries @ keys.mT / math.sqrt(queries.shape[-1])
    future = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    weights = scores.masked_fill(future if hidden is None else hidden, -math.inf).softmax(-1)
    return (weights @ values).transpose(1, 2).flatten(2)


def gelu_tanh(x: Tensor) -> Tensor:
    """GPT-2's approximation of the GELU (Hendrycks and Gimpel 2016, section 2)."""
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def halves_turned(x: Tensor, base: float) -> Tensor:
    """Rotary positions of x (B, H, L, K) as Llama's files have them: number i turns with number i + K / 2."""
    half = x.shape[-1] // 2
    angle = torch.arange(x.shape[-2])[:, None] * base ** (-torch.arange(half, dtype=x.dtype) / half)
    cos, sin, (first, second) = angle.cos(), angle.sin(), x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)


# ------------------------------------------------------------------ a detail left out


def untransposed(model: nn.Module) -> None:
    """The last map of each attention as in the file, inputs before outputs; it is square, so it fits."""
    for block in model.stack.blocks:
        weight = block.self_attention.project_output.weight
        weight.data = weight.data.T.contiguous()


def exact_gelu(model: nn.Module) -> None:
    for block in model.stack.blocks:
        block.feed_forward.gelu = F.gelu


def embedding_multiplied(model: nn.Module) -> None:
    """The embedding keeps its factor √d_model, and nothing makes up for it."""
    embedding = getattr(model.embedding, "tokens", model.embedding)
    root = math.sqrt(embedding.weight.shape[1])
    embedding.weight.data *= root
    if embedding is model.embedding:  # tied
        for vector in model.stack.norm.parameters():
            vector.data /= root


def halves_kept(model: nn.Module) -> None:
    """Queries and keys in the order of the file: the halves of a head, not pairs."""
    for block in model.stack.blocks:
        attention = block.self_attention
        for projection in (attention.project_query, attention.project_key):
            pairs = projection.weight.data.unflatten(0, (-1, attention.d_k // 2, 2))
            projection.weight.data = pairs.transpose(1, 2).reshape(projection.weight.shape)


def no_first_norm(model: nn.Module) -> None:
    """BERT's blocks get the sum of embedding and position as it is."""
    model.positions = model.positions.places


def channels_last(model: nn.Module) -> None:
    """A patch's numbers pixel by pixel, not channel by channel."""
    linear, pixels = model.patches.project, model.patches.size**2
    weight = linear.weight.data.unflatten(1, (-1, pixels))
    linear.weight.data = weight.transpose(1, 2).flatten(1)


FORMULAS: dict[str, Callable[[Mapping[str, Tensor], Mapping[str, Any], Tensor], Tensor]] = {
    "gpt2": gpt2_logits, "llama": llama_logits, "bert": bert_vectors, "vit": vit_vectors}
LEFT_OUT: dict[str, dict[str, Callable[[nn.Module], None]]] = {
    "gpt2": {"linear maps not transposed": untransposed, "exact GELU": exact_gelu,
             "× √d kept": embedding_multiplied},
    "llama": {"rotary order as in the file": halves_kept, "× √d kept": embedding_multiplied},
    "bert": {"no norm after the embeddings": no_first_norm},
    "vit": {"channels last in a patch": channels_last},
}


# ------------------------------------------------------------------ small models

SIZES = {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2, "intermediate_size": 64}
CONFIGS: dict[str, dict[str, Any]] = {  # config.json of small models
    "gpt2": {"model_type": "gpt2", "n_embd": 32, "n_head": 4, "n_layer": 2, "n_positions": 64,
             "vocab_size": 257, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5,
             "eos_token_id": 256, "tie_word_embeddings": True},
    "llama": {"model_type": "llama", **SIZES, "num_key_value_heads": 2, "max_position_embeddings": 64,
              "vocab_size": 257, "hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
              "eos_token_id": 256, "tie_word_embeddings": False},
    "bert": {"model_type": "bert", **SIZES, "max_position_embeddings": 64, "vocab_size": 257,
             "hidden_act": "gelu", "layer_norm_eps": 1e-12, "type_vocab_size": 2},
    "vit": {"model_type": "vit", **SIZES, "image_size": 16, "patch_size": 4, "num_channels": 3,
            "hidden_act": "gelu", "layer_norm_eps": 1e-12},
}


def small_models(parts: Any) -> tuple[list[tuple[str, bool, str]], list[tuple[Sequence[str], list]]]:
    """Statements on small random folders, loaded on the lesson's parts in float64, and tables (header, rows).

    Each is compared with its formula, as it is and with each mistake.
    """
    findings, rows, moves = [], [], {}
    with TemporaryDirectory() as name:
        for kind, formula in FORMULAS.items():
            folder = Path(name) / kind
            write_random(folder, CONFIGS[kind])
            weights = {name: tensor.double() for name, tensor in read_weights(folder).items()}
            inputs = torch.randn(2, 3, 16, 16).double() if kind == "vit" else torch.randint(1, 256, (2, 20))
            expected = formula(weights, CONFIGS[kind], inputs)
            for mistake, spoil in {"": None, **LEFT_OUT[kind]}.items():
                published = load(folder, parts, dtype=torch.float64)
                if spoil:
                    spoil(published.model)
                moves[kind], gap = published.moves, largest_difference(output_of(published, inputs), expected)
                rows.append((kind, mistake or "none", f"{gap:.0e}"))
                findings.append((f"{kind}: with the mistake “{mistake}” the output isn't the formula's",
                                 gap > 3e-4, rows[-1][2]) if mistake else
                                (f"{kind}: the model's output equals the formula's", gap < 1e-5, rows[-1][2]))
    return findings, [(MOVED, moves_shown(moves["gpt2"])), (("model", "mistake", "largest difference"), rows)]

"""Reading a published model's config.json: every key is understood, ignored as without effect, or refused."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from course.published.tensor_files import read_json

KINDS = "gpt2", "llama", "mistral", "bert", "vit"
ANYTHING = object()
EFFECTLESS = dict.fromkeys((
    "architectures", "_name_or_path", "name_or_path", "transformers_version", "dtype", "torch_dtype",
    "use_cache", "initializer_range", "bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id",
    "cls_token_id", "task_specific_params", "gradient_checkpointing", "id2label", "label2id",
    "problem_type", "classifier_dropout", "attention_dropout", "attention_probs_dropout_prob",
    "hidden_dropout_prob", "resid_pdrop", "embd_pdrop", "attn_pdrop", "n_ctx", "pretraining_tp",
    "summary_type", "summary_use_proj", "summary_activation", "summary_proj_to_labels",
    "summary_first_dropout", "pooler_act", "pooler_output_size", "pooler_fc_size", "pooler_type",
    "pooler_num_attention_heads", "pooler_num_fc_layers", "pooler_size_per_head", "directionality",
    "encoder_stride", "_num_labels", "num_labels", "finetuning_task", "_attn_implementation_autoset"),
    (ANYTHING,))
DECODER_ALONE = {"add_cross_attention": (False,), "is_decoder": (False,), "is_encoder_decoder": (False,)}
FIXED: dict[str, dict[str, tuple[Any, ...]]] = {  # values that keys other than sizes may have
    "gpt2": {"scale_attn_weights": (True,), "scale_attn_by_inverse_layer_idx": (False,),
             "reorder_and_upcast_attn": (False,)},
    "llama": {"attention_bias": (False,), "mlp_bias": (False,), "hidden_act": ("silu",),
              "rope_scaling": (None,), "rope_interleaved": (False,), "is_llama_config": (True,)},
    "mistral": {"sliding_window": (None,), "hidden_act": ("silu",), "rope_scaling": (None,)},
    "bert": {"position_embedding_type": ("absolute",), "pad_token_id": (0,),
             "tie_word_embeddings": (ANYTHING,)},
    "vit": {"qkv_bias": (True,)},
}
ACTIVATIONS = {"gelu": ("gelu", False), "gelu_new": ("gelu", True), "gelu_pytorch_tanh": ("gelu", True),
               "relu": ("relu", False)}


class Reader:
    """Reads config.json key by key; keys that were not asked for by the end count as not understood."""

    def __init__(self, path: Path):
        self.path, self.config = path, read_json(path)
        kind = self.config.get("model_type")
        if kind not in KINDS:
            raise ValueError(f"{path}: model_type is {kind!r}; supported: {', '.join(KINDS)}")
        self.kind: str = kind
        self.asked = {"model_type"}

    def value(self, key: str, default: Any = ANYTHING) -> Any:
        """The key's value, or the default in transformers; ValueError if there is neither."""
        self.asked.add(key)
        value = self.config.get(key, default)
        if value is ANYTHING:
            raise ValueError(f"{self.path} has no {key}")
        return value

    def size(self, key: str, default: Any = ANYTHING) -> int:
        """A whole number above 0; null means the default."""
        value = self.value(key, default)
        value = default if value is None else value
        if type(value) is not int or value < 1:
            raise ValueError(f"{self.path}: {key} is {value!r}; it must be a whole number above 0")
        return value

    def number(self, key: str, default: float) -> float:
        """A number above 0."""
        value = self.value(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise ValueError(f"{self.path}: {key} is {value!r}; it must be a number above 0")
        return float(value)

    def among(self, key: str, values: Mapping[Any, Any], default: Any = ANYTHING) -> Any:
        """The mapping's entry for the key's value."""
        value = self.value(key, default)
        if value not in list(values):
            raise ValueError(f"{self.path}: {key} is {value!r}; supported: "
                             f"{', '.join(map(str, values))}")
        return values[value]

    def split(self, whole: str, parts: str) -> None:
        """ValueError if the number of the key `whole` is not divisible by that of the key `parts`."""
        if self.size(whole) % self.size(parts):
            raise ValueError(f"{self.path}: {whole} {self.size(whole)} does not split into {parts} "
                             f"{self.size(parts)}")

    def rotary_base(self) -> float:
        """The base of the rotary frequencies, by default 10000; ValueError if the frequencies are scaled."""
        rope = self.value("rope_parameters", None)
        if rope is None:
            return self.number("rope_theta", 10000.0)
        if not isinstance(rope, dict) or rope.get("rope_type", "default") != "default" or (
                rope.keys() - {"rope_theta", "rope_type"}):
            raise ValueError(f"{self.path}: rope_parameters is {rope!r}; only a rope_theta of rope_type "
                             "default is supported")
        self.config["rope_theta"] = rope.get("rope_theta", 10000.0)
        return self.number("rope_theta", 10000.0)

    def refuse_the_rest(self) -> None:
        """ValueError for the first key that was not asked for and whose effect is not known."""
        known = EFFECTLESS | DECODER_ALONE | FIXED[self.kind]
        for key in sorted(self.config.keys() - (self.asked - FIXED[self.kind].keys())):
            value = self.config[key]
            if key not in known:
                raise ValueError(f"{self.path}: the key {key} ({value!r:.60}) is not understood")
            if not any(wanted is ANYTHING or (type(wanted) is type(value) and wanted == value)
                       for wanted in known[key]):
                raise ValueError(f"{self.path}: {key} is {value!r:.60}; only "
                                 f"{', '.join(map(repr, known[key]))} is supported")

"""The sizes of a Transformer and the settings of its training: options of every lesson that trains one."""

from dataclasses import dataclass

from course.console.options import check_limits, option
from course.training.engine import Settings


@dataclass(frozen=True)
class TransformerConfig:
    """The sizes of a model. ValueError, with the values, for sizes that don't fit together."""

    d_model: int = option(64, "width of a token's vector", least=1)
    n_heads: int = option(4, "attention heads; their number must divide d_model", least=1, names=["--heads"])
    n_layers: int = option(2, "blocks of the encoder, and of the decoder", least=1, names=["--layers"])
    d_ff: int = option(0, "width of the feed-forward network; 0 means 4 · d_model", least=0)
    dropout: float = option(0.0, "fraction of activations dropped in training", least=0, below=1)
    norm: str = option("pre", "pre or post", among=("pre", "post"))
    positions: str = option("sinusoidal", "sinusoidal, learned, rotary or none",
                            among=("sinusoidal", "learned", "rotary", "none"))
    activation: str = option("gelu", "gelu or relu", among=("gelu", "relu"))
    attention: str = option("kernel", "kernel, or lesson 11's tiled, grouped, window or linear",
                            among=("kernel", "tiled", "grouped", "window", "linear"))
    groups: int = option(1, "with --attention grouped: number of key and value heads", least=1)
    reach: int = option(8, "with --attention window: tokens seen on each side, itself included", least=1)
    max_len: int = option(128, least=1)
    vocab_size: int = option(13, least=4)  # PAD, BOS, EOS and ten digits

    def __post_init__(self):
        check_limits(self)
        if self.n_heads % self.groups:
            raise ValueError(f"{self.n_heads} heads do not split into {self.groups} groups")
        for name, of, usual in (("groups", "grouped", 1), ("reach", "window", 8)):
            if getattr(self, name) != usual and self.attention != of:
                raise ValueError(f"--{name} {getattr(self, name)} goes with --attention {of}")
        if self.d_model % self.n_heads:
            raise ValueError(f"d_model {self.d_model} does not split into {self.n_heads} heads")
        if self.positions == "sinusoidal" and self.d_model % 2:
            raise ValueError(f"d_model {self.d_model} is odd; each wave of positions needs 2 numbers")
        if self.positions == "rotary" and (d_k := self.d_model // self.n_heads) % 2:
            raise ValueError(f"d_model {self.d_model} over {self.n_heads} heads is {d_k}, which is odd; "
                             "rotary positions need pairs")
        object.__setattr__(self, "d_ff", self.d_ff or 4 * self.d_model)


@dataclass(frozen=True)
class StackConfig(TransformerConfig):
    """The sizes of a one-stack model. A causal model continues texts, any other reads whole texts."""

    d_model: int = option(128, "width of a token's vector", least=1)
    n_layers: int = option(2, "blocks of the stack", least=1, names=["--layers"])
    positions: str = option("rotary", "sinusoidal, learned, rotary or none",
                            among=("sinusoidal", "learned", "rotary", "none"))
    max_len: int = option(256, "most tokens in a text", least=1)
    causal: bool = True  # no token sees later tokens
    norm_kind: str = option("layer", "layer or rms, for LayerNorm or RMSNorm", among=("layer", "rms"))
    feed_forward: str = option("plain", "plain or swiglu", among=("plain", "swiglu"))
    n_groups: int = option(0, least=0)  # heads of keys and values, without biases; 0: lesson 2's attention

    def __post_init__(self):
        super().__post_init__()
        if self.n_groups and self.n_heads % self.n_groups:
            raise ValueError(f"{self.n_heads} heads do not split into {self.n_groups} groups")


@dataclass(frozen=True)
class SequenceTraining(Settings):
    """How a model is trained to answer sequences, whatever they mean."""

    lr: float = option(3e-3, "peak learning rate; inverse_sqrt uses its own", above=0)
    warmup: int = option(50, "steps of warm-up", least=0)
    schedule: str = option("linear", "linear, or inverse_sqrt as in the paper",
                           among=("linear", "inverse_sqrt"))
    beta2: float = option(0.999, "Adam's β₂; 0.98 in the paper", least=0, below=1)
    weight_decay: float = option(0.2, "decoupled weight decay (AdamW)", least=0)
    label_smoothing: float = option(0.0, "probability spread over all tokens", least=0, below=1)
    by_hand: bool = option(False, "train with the hand-made parts instead of PyTorch's kernels")

    def refuse_fewer_than_parts(self, batch_size: int) -> None:
        """ValueError if a batch has fewer sequences than the parts it is split into."""
        if batch_size < self.accumulate:
            raise ValueError(f"batch_size {batch_size} can't be cut into {self.accumulate} parts")


@dataclass(frozen=True)
class TextTraining(SequenceTraining):
    """One training run on a text. ValueError, with the value, for a setting that makes no sense."""

    text: str = option("", "a file of your own text, UTF-8 (default: the prose of these lessons)")
    vocab: int = option(1000, "merges to learn", least=0)
    window: int = option(64, "pieces that the model reads at once", least=2)
    steps: int = option(500, "training steps", least=0, below=10**7)
    batch_size: int = option(16, "windows per step", least=1)
    beta2: float = option(0.98, "Adam's β₂", least=0, below=1)
    weight_decay: float = option(0.1, "decoupled weight decay (AdamW)", least=0)
    validate_every: int = option(100, "steps from one validation to the next", least=1)

    def __post_init__(self):
        super().__post_init__()
        self.refuse_fewer_than_parts(self.batch_size)

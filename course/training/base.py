"""--from CHECKPOINT: starting a training run from the weights of a trained model."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from course.console.files import Unusable, load_checkpoint, short_path
from course.training.adapters import Adapters
from course.training.engine import check_weights

FREE = {"dropout", "max_len", "vocab_size"}  # sizes that may differ, or that follow from the texts


@dataclass(frozen=True)
class Base:
    """The weights in a checkpoint of a finished or unfinished run, and what it says about that run.

    With `adapters`, training leaves these weights unchanged and updates only the adapters.
    """

    path: Path
    about: Mapping[str, Any]
    weights: Mapping[str, Tensor]
    adapters: Adapters | None = None

    @cached_property
    def hash(self) -> str:
        """The SHA-256 hash of the weights; the path and name of the file don't count."""
        found = hashlib.sha256()
        for name, tensor in self.weights.items():
            found.update(name.encode() + tensor.detach().contiguous().numpy().tobytes())
        return found.hexdigest()

    def into(self, model: nn.Module) -> nn.Module:
        """The model with these weights. A one-line ValueError if they belong to another model."""
        try:
            check_weights(self.weights, model.state_dict())
        except Unusable as error:
            raise ValueError(f"--from {short_path(self.path)}: {error}") from error
        model.load_state_dict(self.weights)
        return model

    def adapted(self, model: nn.Module) -> nn.Module:
        """The model to train: with the adapters that are asked for, or unchanged."""
        return self.adapters.into(model) if self.adapters else model

    @property
    def name(self) -> str:
        """What a run that starts from these weights adds to its file names."""
        return f"from={self.hash[:8]}" + (f"-{self.adapters.name}" if self.adapters else "")

    @property
    def told(self) -> dict[str, Any]:
        """What the checkpoint of such a run says about its start."""
        return {"from": self.hash} | ({"adapters": self.adapters.told} if self.adapters else {})

    def refuse_adapters_of_others(self, about: Any) -> None:
        """Raise Unusable if a checkpoint holds adapters that were trained for other weights."""
        base = about.get("from") if isinstance(about, dict) and "adapters" in about else self.hash
        if self.adapters and base != self.hash:
            raise Unusable(f"its adapters are for the model {str(base)[:8]}, and "
                           f"{short_path(self.path)} is {self.hash[:8]}")

    @property
    def defaults(self) -> dict[str, Any]:
        """Options whose defaults come from the checkpoint: the sizes, and the number of pieces."""
        told = {name: value for name, value in self.about["config"].items() if name not in FREE}
        vocab = self.about["training"].get("vocab")
        return told if vocab is None else told | {"vocab": vocab}

    def refuse_others(self, *configs: Any) -> None:
        """ValueError, with both values, for a size in the dataclasses that differs from the checkpoint's."""
        for name, value in self.defaults.items():
            asked = next((asdict(config)[name] for config in configs if name in asdict(config)), value)
            if asked != value:
                raise ValueError(f"{name} is {asked}, but --from {short_path(self.path)} holds a model "
                                 f"with {value}")


def read_base(path: Path) -> Base:
    """What a checkpoint holds. A one-line ValueError or OSError if it isn't one; no code in it is run."""

    def restore(state: dict[str, Any]) -> Base:
        about, weights = state["about"], state["model"]
        if "adapters" in about:
            raise Unusable(f"it holds adapters for the model {str(about.get('from'))[:8]}, not a whole model")
        if not all(isinstance(about[part], dict) for part in ("config", "training")):
            raise Unusable("it has no sizes and settings")
        if not all(isinstance(tensor, Tensor) for tensor in weights.values()):
            raise Unusable("its weights are not tensors")
        return Base(path, about, weights)

    if not path.exists():
        raise FileNotFoundError(None, "there is no such checkpoint", str(path))
    return load_checkpoint(path, restore)

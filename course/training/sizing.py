"""Models for comparisons: with the same number of parameters, and simple baselines."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import nn


def parameters(model: nn.Module) -> int:
    """The number of numbers that the model learns."""
    return sum(parameter.numel() for parameter in model.parameters())


def matched(make: Callable[[Any], nn.Module], config: Any, wanted: int) -> Any:
    """The config with the d_ff, a multiple of 4, that brings its model closest to `wanted` parameters."""
    least, more = (parameters(make(replace(config, d_ff=d_ff))) for d_ff in (4, 8))
    return replace(config, d_ff=4 + 4 * max(0, round((wanted - least) / (more - least))))


class LinearMap(nn.Sequential):
    """Logistic regression: one linear map of all pixels."""

    def __init__(self, config: Any, pixels: int):
        super().__init__(nn.Flatten(), nn.Linear(pixels, config.vocab_size))
        self.config = config


class Convolutions(nn.Sequential):
    """Three convolutions of 3 × 3 and a linear map, for pictures of one channel."""

    def __init__(self, config: Any):
        super().__init__(
            nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(),
            nn.MaxPool2d(2), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2),
            nn.Flatten(), nn.Linear(256, config.vocab_size))
        self.config = config

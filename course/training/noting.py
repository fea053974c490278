"""Recording what training does to each part of an encoder-decoder model: gradients, Adam's moves."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from course.training.engine import Run


def parts_of(model: Any) -> dict[str, nn.Module]:
    """The embedding and every block of both stacks."""
    stacks = ("encoder", model.encoder), ("decoder", model.decoder)
    return {"embedding": model.embedding} | {
        f"{name} {number}": block for name, stack in stacks for number, block in enumerate(stack.blocks)}


def last_move(optimizer: torch.optim.Optimizer, part: nn.Module) -> float:
    """By how much Adam's last step moved the weights of a part (RMS), in units of the learning rate."""
    (beta1, beta2), eps = (optimizer.param_groups[0][name] for name in ("betas", "eps"))
    moves = []
    for parameter in part.parameters():
        steps, mean, square = optimizer.state[parameter].values()
        moves.append((mean / (1 - beta1**steps) / ((square / (1 - beta2**steps)).sqrt() + eps)).flatten())
    return torch.cat(moves).square().mean().sqrt().item()


def note_learning(run: Run) -> None:
    """Record, after an update, each part's gradient norm before clipping, and how far Adam moved the part."""
    clipped = max(1.0, run.history[-1]["gradient_norm"] / run.settings.clip)
    for name, part in parts_of(run.model).items():
        norm = torch.cat([parameter.grad.flatten() for parameter in part.parameters()]).norm().item()
        run.history[-1] |= {f"gradient in {name}": clipped * norm,
                            f"move of {name}": last_move(run.optimizer, part)}


def with_first_weights(model: nn.Module, fresh: nn.Module, measure: Callable[[nn.Module], float]
                       ) -> dict[str, float]:
    """Part → the measurement of the trained model with that part's weights from the fresh model."""
    found = {}
    for name, part in parts_of(model).items():
        trained = {key: value.clone() for key, value in part.state_dict().items()}
        part.load_state_dict(parts_of(fresh)[name].state_dict())
        found[name] = measure(model)
        part.load_state_dict(trained)
    return found

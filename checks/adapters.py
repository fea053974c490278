"""What must hold for lesson 12's adapters, and for the functions that add and merge them."""

import math
from copy import deepcopy
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course.console.records import Finding
from course.grading.checking import Mistake, Part, agree, at, gradients, random_tensors, refused, together

X, DOWN, UP = random_tensors((3, 5, 6), (2, 6), (4, 2))  # input, A and B of rank 2
RANK, ALPHA = 2, 6.0  # α ≠ r, so that a forgotten α/r shows


def base(bias: bool = True) -> nn.Linear:
    """A linear map from 6 to 4 numbers in float64, always the same."""
    return filled(nn.Linear(6, 4, bias))


def filled(module: nn.Module) -> nn.Module:
    """The module in float64 with random parameters, always the same."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.double().parameters():
        nn.init.normal_(parameter, generator=generator)
    return module


def trained(module: nn.Module) -> Tensor:
    """How many parameters of the module are trained."""
    return torch.tensor(float(sum(p.numel() for p in module.parameters() if p.requires_grad)))


# ------------------------------------------------------------------ LoRALinear(linear, rank, alpha)


def learned(implementation, bias: bool = True):
    """The adapter as if it had learned: A and B are random."""
    adapter = implementation(base(bias), RANK, ALPHA).double()
    with torch.no_grad():
        adapter.down.copy_(DOWN)
        adapter.up.copy_(UP)
    return adapter


def starts_as_the_base(implementation, ours):
    """A fresh adapter gives exactly the output of its linear map."""
    return agree(implementation(base(), RANK, ALPHA).double()(X), base()(X), tolerance=0.0)


def begins_to_learn(implementation, ours):
    """At the start A is not 0, and B has a gradient that is not 0."""
    adapter = implementation(base(), RANK, ALPHA).double()
    found = gradients(adapter(X).sin().sum(), [adapter.up])
    alive = [float(tensor.abs().max() > 0) for tensor in (adapter.down, found)]
    return agree(torch.tensor(alive), torch.ones(2))


def adds_the_update(implementation, ours):
    """The output is x·Wᵀ + b + α/r · (x·Aᵀ)·Bᵀ, with and without a bias."""
    return together(*(at(f"bias {bias}", agree(
        learned(implementation, bias)(X),
        base(bias)(X) + ALPHA / RANK * X @ DOWN.T @ UP.T, axes="batch, token, number"))
        for bias in (True, False)))


def tells_its_update(implementation, ours):
    """update() is α/r · B·A, a matrix (out, in)."""
    return agree(learned(implementation).update(), ALPHA / RANK * UP @ DOWN, axes="out, in")


def merges(implementation, ours):
    """merged() is a plain nn.Linear with the same output as the adapter."""
    findings = []
    for bias in (True, False):
        found = learned(implementation, bias).merged()
        if type(found) is not nn.Linear:
            return Finding(False, f"a {type(found).__name__}", "return a new nn.Linear")
        expected = F.linear(X, base().weight + ALPHA / RANK * UP @ DOWN, base(bias).bias)
        findings.append(at(f"bias {bias}", agree(found.double()(X), expected, axes="batch, token, number")))
    return together(*findings)


def trains_only_the_path(implementation, ours):
    """Only A and B are trained, r · (in + out) numbers; weight and bias of the linear map are frozen."""
    return agree(trained(implementation(base(), RANK, ALPHA)), torch.tensor(RANK * (6.0 + 4.0)))


def refuses_ranks(implementation, ours):
    """A rank of 0, or above the smaller side of the matrix, is refused with a ValueError."""
    return together(*(at(f"rank {rank}", refused(partial(implementation, base(), rank, ALPHA), rank))
                      for rank in (0, 5)))


def lora_mistakes(ours):
    """The classic mistakes, made from the course's own adapter."""

    class BothZero(ours.LoRALinear):
        """A and B are both 0."""

        def __init__(self, linear, rank, alpha):
            super().__init__(linear, rank, alpha)
            nn.init.zeros_(self.down)

    class NeitherZero(ours.LoRALinear):
        """A and B are both random."""

        def __init__(self, linear, rank, alpha):
            super().__init__(linear, rank, alpha)
            nn.init.kaiming_uniform_(self.up, a=math.sqrt(5))

    class MergedWithoutScale(ours.LoRALinear):
        """W + B·A."""

        def merged(self):
            self.scale, scale = 1.0, self.scale
            try:
                return super().merged()
            finally:
                self.scale = scale

    class NotFrozen(ours.LoRALinear):
        """The linear map is still trained."""

        def __init__(self, linear, rank, alpha):
            super().__init__(linear, rank, alpha)
            self.requires_grad_()

    return {
        "A = B = 0": Mistake("A = B = 0: each gets its gradient through the other, so neither ever moves; "
                             "draw A at random", BothZero, "At the start A is not 0"),
        "B not 0": Mistake("B isn't 0 at the start: the fresh adapter already changes the answers",
                           NeitherZero, "A fresh adapter gives"),
        "merged without α/r": Mistake("merged without α/r: W + α/r · B·A", MergedWithoutScale,
                                      "merged() is a plain"),
        "base not frozen": Mistake("the base isn't frozen: requires_grad_(False) for its weight and bias",
                                   NotFrozen, "Only A and B are trained"),
    }


def more_lora_mistakes(ours):
    """Another that the lesson doesn't show."""

    class NeverScaled(ours.LoRALinear):
        """α is ignored."""

        def __init__(self, linear, rank, alpha):
            super().__init__(linear, rank, rank)

    return {"α ignored": Mistake("α/r is missing: the update is α/r · B·A", NeverScaled,
                                 "The output is x·Wᵀ")}


lora_checks = Part(
    [starts_as_the_base, begins_to_learn, adds_the_update, tells_its_update, merges, trains_only_the_path,
     refuses_ranks],
    lora_mistakes,
    more=more_lora_mistakes,
    needs="The checks set the parameters down (A, rank × in) and up (B, out × rank), and call update() and "
          "merged().",
)


# ------------------------------------------------------------------ add_adapters, merge_adapters


class Block(nn.Module):
    """Three linear maps and a norm, from 6 numbers to 8."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(6, 8)
        self.inner = nn.Sequential()
        self.inner.add_module("expand", nn.Linear(8, 12))
        self.inner.add_module("contract", nn.Linear(12, 8))
        self.norm = nn.LayerNorm(8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.norm(x + self.inner(x).sin())


SIDES = {"first": 6 + 8, "expand": 8 + 12, "contract": 12 + 8}  # in + out of each linear map


def leaves_the_answers(implementation, ours):
    """Fresh adapters change no output of the model."""
    before = filled(Block())(X)
    return agree(implementation(filled(Block()), RANK, ALPHA).double()(X), before, tolerance=0.0)


def adapts_every_map(implementation, ours):
    """All linear maps get an adapter, and nothing else is trained: r · (in + out) numbers per map."""
    return agree(trained(implementation(filled(Block()), RANK, ALPHA)),
                 torch.tensor(float(RANK * sum(SIDES.values()))))


def adapts_named_maps(implementation, ours):
    """With names, only the linear maps with one of these names in their path get an adapter."""
    cases = {("expand",): ["expand"], ("inner",): ["expand", "contract"], ("first", "contract"): [
        "first", "contract"]}
    return together(*(at(", ".join(names), agree(
        trained(implementation(filled(Block()), RANK, ALPHA, names)),
        torch.tensor(float(RANK * sum(SIDES[name] for name in wanted))))) for names, wanted in cases.items()))


def refuses_other_names(implementation, ours):
    """A name that no linear map has is refused with a ValueError that lists the existing names."""
    return refused(lambda: implementation(filled(Block()), RANK, ALPHA, ("query",)), "query", "expand",
                   "contract", "first")


def add_adapters_mistakes(ours):
    """The classic mistake."""

    def only_maps_frozen(model, rank, alpha, matrices=()):
        """Norms, and maps without an adapter, are still trained."""
        learned = [p for p in model.parameters() if p.requires_grad]
        chosen = ours.linear_maps(model, matrices)
        frozen = {id(p) for linear in chosen.values() for p in linear.parameters()}
        ours.add_adapters(model, rank, alpha, matrices)
        for parameter in learned:
            parameter.requires_grad_(id(parameter) not in frozen)
        return model

    return {"the rest not frozen": Mistake(
        "also freeze what has no adapter: norms, embeddings and the other maps", only_maps_frozen,
        "All linear maps get an adapter")}


def more_add_adapters_mistakes(ours):
    """Another that the lesson doesn't show."""

    def random_start(model, rank, alpha, matrices=()):
        """B is drawn at random."""
        for module in ours.add_adapters(model, rank, alpha, matrices).modules():
            if hasattr(module, "up"):
                nn.init.ones_(module.up)
        return model

    return {"B not 0": Mistake("the adapters don't begin with B = 0", random_start,
                               "Fresh adapters change no output")}


add_adapters_checks = Part(
    [leaves_the_answers, adapts_every_map, adapts_named_maps, refuses_other_names],
    add_adapters_mistakes,
    more=more_add_adapters_mistakes,
    needs="add_adapters(model, rank, alpha, matrices=()) returns the model.",
)


def adapted(ours) -> nn.Module:
    """A model whose adapters have learned something."""
    model = ours.add_adapters(filled(Block()), RANK, ALPHA).double()
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.3, generator=generator)
    return model


LEFT = "put adapter.merged() in place of each adapter"


def gives_the_same_answers(implementation, ours):
    """The merged model gives the answers of the model with adapters."""
    model = adapted(ours)
    return agree(implementation(deepcopy(model)).double()(X), model(X), axes="batch, token, number")


def leaves_plain_maps(implementation, ours):
    """The merged model has the parameters that it had before the adapters, by name and shape."""
    found = {name: tuple(p.shape) for name, p in implementation(adapted(ours)).named_parameters()}
    expected = {name: tuple(p.shape) for name, p in Block().named_parameters()}
    more = ", ".join(sorted({*found} - {*expected})[:3])
    missing = ", ".join(sorted({*expected} - {*found})[:3])
    return Finding(found == expected, f"{len(found)} parameters",
                   f"{more or missing or 'a shape'} {'is left' if more else 'differs'}: {LEFT}")


def merge_mistakes(ours):
    """The classic mistakes."""

    def without_scale(model):
        """W + B·A."""
        for module in model.modules():
            if hasattr(module, "merged"):
                module.scale = 1.0
        return ours.merge_adapters(model)

    def dropped(model):
        """The adapters are removed, not merged."""
        for module in model.modules():
            if hasattr(module, "merged"):
                nn.init.zeros_(module.up)
        return ours.merge_adapters(model)

    same = "The merged model gives the answers"
    return {"merged without α/r": Mistake("merged without α/r: W + α/r · B·A", without_scale, same),
            "removed": Mistake("the adapters are removed, not merged: their update is lost", dropped,
                                 same)}


def more_merge_mistakes(ours):
    """Another that the lesson doesn't show."""
    return {"left in place": Mistake(LEFT, lambda model: model, "The merged model has the parameters")}


merge_adapters_checks = Part(
    [gives_the_same_answers, leaves_plain_maps],
    merge_mistakes,
    more=more_merge_mistakes,
    needs="The checks pass a model with the course's adapters, which have a method merged().",
)

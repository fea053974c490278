"""What must hold for lesson 13's loss scaler."""

from copy import deepcopy

import torch
from torch import Tensor, nn

from course.console.records import Finding
from course.grading.checking import Mistake, Part, agree, at, random_tensors, together

SCALE, GROWTH, BACKOFF, INTERVAL = 1024.0, 4.0, 0.25, 3  # the two factors don't undo each other by half
OUTCOMES = [bool(int(digit)) for digit in "1110111011110011101111"]  # finite or not, step by step
LONG = 20
OVERFLOWS = 4, 9  # of these steps

(GRADIENTS,) = random_tensors((3, 4))


def parameters_with(*gradients: Tensor | None) -> list[nn.Parameter]:
    """A parameter for each gradient; None is no gradient."""
    found = [nn.Parameter(torch.zeros(4, dtype=torch.double)) for _ in gradients]
    for parameter, gradient in zip(found, gradients, strict=True):
        parameter.grad = None if gradient is None else gradient.clone()
    return found


def multiplies(implementation, ours):
    """scaled(loss) is the loss times the scale, and backward() from it gives gradients times the scale."""
    x = GRADIENTS.clone().requires_grad_()
    loss = implementation(SCALE).scaled(x.square().sum())
    expected = SCALE * GRADIENTS.square().sum()
    finding = agree(loss, expected)
    if finding.holds:
        finding = agree(torch.autograd.grad(loss, [x])[0], 2 * SCALE * GRADIENTS)
    return finding


def divides(implementation, ours):
    """unscale() divides every gradient by the scale, skips parameters without one, and returns True."""
    parameters = parameters_with(SCALE * GRADIENTS[0], None, SCALE * GRADIENTS[2])
    finite = implementation(SCALE).unscale(parameters)
    if finite is not True and not (isinstance(finite, Tensor) and bool(finite)):
        return Finding(False, f"{finite!r} came back", "all gradients are finite: return True")
    found = torch.stack([parameters[0].grad, parameters[2].grad])
    return agree(found, GRADIENTS[[0, 2]], axes="gradient, number")


def notices(implementation, ours):
    """unscale() returns False if a number of any gradient is infinite or NaN."""
    findings = []
    for place in range(3):
        for bad in (torch.inf, -torch.inf, torch.nan):
            gradients = GRADIENTS.clone()
            gradients[place, 1] = bad
            finite = implementation(SCALE).unscale(parameters_with(*gradients))
            findings.append(at(f"{bad} in gradient {place}", agree(
                torch.tensor(float(finite)), torch.tensor(0.0))))
    return together(*findings)


def follows_the_rule(implementation, ours):
    """update(False) multiplies the scale by `backoff`, and `interval` finite steps in a row by `growth`."""
    scaler, scale, in_a_row = implementation(SCALE, GROWTH, BACKOFF, INTERVAL), SCALE, 0
    found, expected = [], []
    for finite in OUTCOMES:
        scaler.update(finite)
        found.append(float(scaler.scale))
        in_a_row = in_a_row + 1 if finite else 0
        scale = scale * BACKOFF if not finite else scale * GROWTH if in_a_row == INTERVAL else scale
        in_a_row %= INTERVAL
        expected.append(scale)
    return agree(torch.tensor(found).log2(), torch.tensor(expected).log2(), axes="step")


def equals_pytorch(implementation, ours):
    """20 AdamW steps with two overflows give the weights and scales of torch.amp.GradScaler, bit for bit."""
    one = nn.Linear(4, 4)
    other = deepcopy(one)
    own, theirs = (torch.optim.AdamW(model.parameters(), 0.01) for model in (one, other))
    scaler = implementation(SCALE, 2.0, 0.5, INTERVAL)
    pytorch = torch.amp.GradScaler("cpu", SCALE, 2.0, 0.5, INTERVAL)
    found, expected = [], []
    for step in range(LONG):
        x = torch.randn(8, 4) * (torch.inf if step in OVERFLOWS else 1)
        for model, optimizer in ((one, own), (other, theirs)):
            optimizer.zero_grad()
            loss = model(x).square().mean()
            (scaler.scaled(loss) if model is one else pytorch.scale(loss)).backward()
        finite = scaler.unscale([*one.parameters()])
        if finite:
            own.step()
        scaler.update(finite)
        pytorch.step(theirs)
        pytorch.update()
        found.append(torch.cat([one.weight.detach().flatten(), torch.tensor([float(scaler.scale)])]))
        expected.append(torch.cat([other.weight.detach().flatten(), torch.tensor([pytorch.get_scale()])]))
    return agree(torch.stack(found), torch.stack(expected), tolerance=0.0, axes="step, number")


def scaler_mistakes(ours):
    """The classic mistakes, made from the course's own scaler."""

    class NeverSmaller(ours.LossScaler):
        """An overflow leaves the scale as it is."""

        def update(self, finite):
            if finite:
                super().update(finite)

    class NotUnscaled(ours.LossScaler):
        """The gradients keep the scale."""

        def unscale(self, parameters):
            return all(bool(p.grad.isfinite().all()) for p in parameters if p.grad is not None)

    class OnlyNaN(ours.LossScaler):
        """Infinite gradients count as finite."""

        def unscale(self, parameters):
            super().unscale(parameters)
            return not any(bool(p.grad.isnan().any()) for p in parameters if p.grad is not None)

    rule = "update(False) multiplies"
    return {
        "scale never smaller": Mistake("an overflow has to make the scale smaller, or it happens again",
                                       NeverSmaller, rule),
        "not divided": Mistake("the gradients keep the scale: divide each by it before clipping and before "
                               "the step", NotUnscaled, "unscale() divides"),
        "only NaN noticed": Mistake("∞ counts as well: use isfinite(), not isnan()", OnlyNaN,
                                    "unscale() returns False"),
    }


def more_scaler_mistakes(ours):
    """Others that the lesson doesn't show."""

    class GoesOnCounting(ours.LossScaler):
        """Finite steps count, in a row or not."""

        def update(self, finite):
            good = self.good
            super().update(finite)
            if not finite:
                self.good = good

    class LastOnly(ours.LossScaler):
        """The last gradient decides."""

        def unscale(self, parameters):
            parameters = [*parameters]
            super().unscale(parameters)
            return bool(parameters[-1].grad is None or parameters[-1].grad.isfinite().all())

    return {
        "counts on after an overflow": Mistake("an overflow starts the count of finite steps again from 0",
                                               GoesOnCounting, "update(False) multiplies"),
        "last gradient only": Mistake("one gradient that isn't finite is enough, whichever it is", LastOnly,
                                      "unscale() returns False"),
    }


scaler_checks = Part(
    [multiplies, divides, notices, follows_the_rule, equals_pytorch],
    scaler_mistakes,
    more=more_scaler_mistakes,
    needs="The checks read scale, and call scaled(loss), unscale(parameters) and update(finite).",
)

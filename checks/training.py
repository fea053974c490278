"""What must hold for lesson 5's parts: teacher forcing, loss, Adam, learning rate, Transformer."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from checks.stack import Reference as Reference  # the lesson takes all its checks from here
from checks.stack import transformer_checks as transformer_checks
from common import lesson
from course.console.records import Finding
from course.grading.checking import Mistake, Part, agree, at, gradients, random_tensors, together

BOS, EOS, PAD = lesson("03_positional_encoding", "BOS", "EOS", "PAD")


# ------------------------------------------------------------------ teacher_forcing(answers)


ANSWERS = [[7, 8, 9], [5], [6, 6]]


def input_begins_with_bos(teacher_forcing, ours):
    """The input is BOS, then the answer, then PAD."""
    expected = torch.tensor([[BOS, 7, 8, 9], [BOS, 5, PAD, PAD], [BOS, 6, 6, PAD]])
    return agree(teacher_forcing(ANSWERS)[0], expected, 0, axes="answer, place")


def target_ends_in_eos(teacher_forcing, ours):
    """The target is the answer, then EOS, then PAD: one place ahead of the input."""
    expected = torch.tensor([[7, 8, 9, EOS], [5, EOS, PAD, PAD], [6, 6, EOS, PAD]])
    return agree(teacher_forcing(ANSWERS)[1], expected, 0, axes="answer, place")


def shift_mistakes(ours):
    def swapped(answers):
        return ours.teacher_forcing(answers)[::-1]

    def not_shifted(answers):
        return ours.teacher_forcing(answers)[0], ours.teacher_forcing(answers)[0]

    def without_eos(answers):
        tgt_in, tgt_out = ours.teacher_forcing(answers)
        return tgt_in, tgt_out.masked_fill(tgt_out == EOS, PAD)

    return {
        "swapped": Mistake("input and target are swapped: the input begins with BOS, the target ends in EOS",
                           swapped, "The input is BOS"),
        "not shifted": Mistake("nothing is shifted: the target should be one token ahead of the input",
                               not_shifted, "The target is the answer"),
        "no EOS": Mistake("EOS is missing: the model could never learn to stop", without_eos,
                          "The target is the answer"),
    }


def more_shift_mistakes(ours):
    """Others that the lesson doesn't show: what else is in the input or in the target."""

    def padded(before: list[int], after: list[int]) -> Tensor:
        rows = [[*before, *answer, *after] for answer in ANSWERS]
        return torch.tensor([row + [PAD] * (max(map(len, rows)) - len(row)) for row in rows])

    whole, neither = padded([BOS], [EOS]), padded([], [])

    def gives(tgt_in: Tensor, tgt_out: Tensor):
        return lambda answers: (tgt_in, tgt_out)

    given, wanted = "The input is BOS", "The target is the answer"
    both = "BOS and EOS are on both sides: "
    return {
        "both in the input": Mistake(both + "the input ends before EOS, it is BOS y_1 … y_n", gives(
            whole, whole), given),
        "both in the target": Mistake(both + "the target begins after BOS, it is y_1 … y_n EOS", gives(
            whole, whole), wanted),
        "cut after the padding": Mistake(
            "EOS is left in the input of shorter answers: [:, :-1] cuts off PAD there; put BOS y_1 … y_n "
            "together before padding", gives(whole[:, :-1], whole[:, 1:]), given),
        "no BOS": Mistake("BOS is missing: the first token also has to be guessed from something", gives(
            neither, neither), given),
        "EOS for BOS": Mistake("the input ends in EOS; it begins with BOS", gives(
            padded([], [EOS]), neither), given),
        "neither": Mistake("EOS is missing: the model could never learn to stop", gives(
            neither, neither), wanted),
    }


teacher_forcing_checks = Part([input_begins_with_bos, target_ends_in_eos], shift_mistakes,
                              more=more_shift_mistakes)


# ------------------------------------------------------------------ sequence_loss(logits, targets, …)


(LOGITS,) = random_tensors((3, 5, 7))
TARGETS = torch.tensor([[3, 4, 5, 6, EOS], [3, EOS, PAD, PAD, PAD], [5, 5, EOS, PAD, PAD]])


def expected_loss(logits: Tensor, smoothing: float) -> Tensor:
    return F.cross_entropy(logits.flatten(0, 1), TARGETS.flatten(), ignore_index=PAD,
                           label_smoothing=smoothing, reduction="sum")


def loss_equals_pytorch(sequence_loss, ours):
    """The loss equals the sum of nn.functional.cross_entropy without PAD."""
    return agree(sequence_loss(LOGITS, TARGETS), expected_loss(LOGITS, 0.0))


def smooths_labels(sequence_loss, ours):
    """With label smoothing 0.1 the loss also equals cross_entropy."""
    return agree(sequence_loss(LOGITS, TARGETS, 0.1), expected_loss(LOGITS, 0.1))


def loss_gradients_equal_pytorch(sequence_loss, ours):
    """The gradient equals cross_entropy's, with and without label smoothing."""
    findings = []
    for smoothing in (0.0, 0.1):
        leaf = LOGITS.clone().requires_grad_()
        found = gradients(sequence_loss(leaf, TARGETS, smoothing), [leaf])
        findings.append(agree(found, gradients(expected_loss(leaf, smoothing), [leaf])))
    return together(*findings)


def is_the_sum_of_the_single_ones(sequence_loss, ours):
    """The loss of a padded batch is the sum of the losses of its sequences, unpadded."""
    lengths = (TARGETS != PAD).sum(1).tolist()
    single = [sequence_loss(LOGITS[[i], :n], TARGETS[[i], :n]) for i, n in enumerate(lengths)]
    return agree(sequence_loss(LOGITS, TARGETS), torch.stack(single).sum())


def ignores_padding(sequence_loss, ours):
    """Logits where the target is PAD have gradient 0."""
    leaf = LOGITS.clone().requires_grad_()
    gradient = gradients(sequence_loss(leaf, TARGETS), [leaf]).view_as(leaf)
    return agree(gradient[TARGETS == PAD], torch.zeros(5, 7), 0)


def lowest_is_the_entropy(sequence_loss, ours):
    """With label smoothing 0.1 a perfect model's loss is the entropy of the target, and its gradient is 0."""
    target = torch.full((7,), 0.1 / 7, dtype=torch.float64)
    target[3] += 0.9
    best = target.log()[None, None].requires_grad_()  # the logits of a perfect model
    loss = sequence_loss(best, torch.tensor([[3]]), 0.1)
    return together(agree(loss.detach(), -(target * target.log()).sum()),
                    agree(gradients(loss, [best]), torch.zeros(7)))


def loss_mistakes(ours):
    def padding_counts(logits, targets, label_smoothing=0.0):
        return F.cross_entropy(logits.flatten(0, -2), targets.flatten(), reduction="sum",
                               label_smoothing=label_smoothing)

    def mean(logits, targets, label_smoothing=0.0):
        return ours.sequence_loss(logits, targets, label_smoothing) / (targets != PAD).sum()

    return {
        "padding counts": Mistake("padding counts: leave out places whose target is PAD", padding_counts,
                                  "Logits where the target is PAD"),
        "mean": Mistake("this is the mean; the sum was asked for", mean, "The loss equals the sum"),
    }


def more_loss_mistakes(ours):
    """Others that the lesson doesn't show."""

    def scaled(factor, **counted):
        def loss(logits, targets, label_smoothing=0.0):
            options = {"ignore_index": PAD, "label_smoothing": label_smoothing, "reduction": "sum"} | counted
            total = F.cross_entropy(logits.flatten(0, -2), targets.flatten(), **options)
            return total * factor(logits, targets)

        return loss

    def smoothed_padding(logits, targets, label_smoothing=0.0):
        even = -label_smoothing * logits.log_softmax(-1).mean(-1)
        return ours.sequence_loss(logits, targets, label_smoothing) + even[targets == PAD].sum()

    def others_share(logits, targets, label_smoothing=0.0):
        size = logits.shape[-1]
        return ours.sequence_loss(logits, targets, label_smoothing * size / (size - 1))

    def softmax_twice(logits, targets, label_smoothing=0.0):
        return ours.sequence_loss(logits.softmax(-1), targets, label_smoothing)

    def without_softmax(logits, targets, label_smoothing=0.0):
        normal = logits.exp().sum(-1).log()
        return ours.sequence_loss(logits, targets, label_smoothing) - normal[targets != PAD].sum()

    everything = {"ignore_index": -100}
    mean, equals = "this is the mean over {}; the sum was asked for", "The loss equals the sum"
    smoothed = "With label smoothing 0.1 the loss"
    return {
        "mean over places": Mistake(mean.format("all places, PAD included"), scaled(
            lambda logits, targets: 1 / targets.numel()), equals),
        "mean over sequences": Mistake(mean.format("the sequences"), scaled(
            lambda logits, targets: 1 / len(targets)), equals),
        "mean and padding": Mistake("two things: PAD counts, and this is the mean; the sum over all but PAD "
                                    "was asked for", scaled(
            lambda logits, targets: 1 / targets.numel(), **everything), equals),
        "wrong sign": Mistake("the sign is wrong: −log P is never negative", scaled(
            lambda logits, targets: -1), equals),
        "no smoothing": Mistake("label_smoothing is ignored", scaled(
            lambda logits, targets: 1, label_smoothing=0.0), smoothed),
        "smoothed padding": Mistake("with smoothing PAD counts: leave it out of the even part as well",
                                    smoothed_padding, smoothed),
        "others share": Mistake("ε is spread over all V tokens, the right one included: ε / V each",
                                others_share, smoothed),
        "softmax twice": Mistake("one softmax too many: cross_entropy and log_softmax take logits",
                                 softmax_twice, equals),
        "no softmax": Mistake("these are logits: log_softmax turns them into log P", without_softmax, equals),
    }


sequence_loss_checks = Part(
    [loss_equals_pytorch, smooths_labels, loss_gradients_equal_pytorch, is_the_sum_of_the_single_ones,
     ignores_padding, lowest_is_the_entropy], loss_mistakes, more=more_loss_mistakes)


# ------------------------------------------------------------------ Adam(parameters, lr, …)


def after(steps: int, make_optimizer) -> Tensor:
    """Two parameters after some steps on a bumpy function."""
    leaves = [tensor.requires_grad_() for tensor in random_tensors((4, 3), (5,))]
    optimizer = make_optimizer(leaves)
    for _ in range(steps):
        for leaf in leaves:
            leaf.grad = None
        sum((leaf.sin() + 0.1 * leaf**2).sum() for leaf in leaves).backward()
        optimizer.step()
    return torch.cat([leaf.detach().flatten() for leaf in leaves])


def adam_agrees(adam, steps: int, **options) -> Finding:
    kernel = partial(torch.optim.AdamW, fused=True)  # the one that trains
    expected = after(steps, partial(kernel, **{"lr": 0.05, "weight_decay": 0.0} | options))
    return agree(after(steps, partial(adam, **{"lr": 0.05} | options)), expected)


def first_step(adam, ours):
    """The first step equals torch.optim.Adam's."""
    return adam_agrees(adam, 1)


def fifty_steps(adam, ours):
    """After 50 steps every number equals torch.optim.Adam's."""
    return adam_agrees(adam, 50)


def honours_betas_and_eps(adam, ours):
    """With betas (0.5, 0.8) and eps 0.1 every number equals torch.optim.Adam's after 50 steps."""
    return adam_agrees(adam, 50, betas=(0.5, 0.8), eps=0.1)


def decays(adam, ours):
    """With decoupled weight decay every number equals torch.optim.AdamW's after 50 steps."""
    return adam_agrees(adam, 50, weight_decay=0.3)


def adam_mistakes(ours):
    class WithoutCorrection(ours.Adam):
        def corrected(self, mean, beta, steps):
            return mean

    class WithL2(ours.Adam):
        def step(self):
            for group in self.param_groups:
                decay, group["weight_decay"] = group["weight_decay"], 0.0
                for parameter in group["params"]:
                    parameter.grad = parameter.grad + decay * parameter.detach()
            super().step()
            for group in self.param_groups:
                group["weight_decay"] = decay

    return {
        "no correction": Mistake("the running means start at 0: divide them by 1 − βᵗ", WithoutCorrection,
                                 "The first step equals"),
        "L2": Mistake("the decay is in the gradient (L2); AdamW shrinks the parameter itself", WithL2,
                      "With decoupled weight decay"),
    }


def more_adam_mistakes(ours):
    """Others that the lesson doesn't show."""

    def adam(first=True, second=True, step=None, decay=lambda lr, weight_decay: 1 - lr * weight_decay,
             root=lambda square, eps: square.sqrt() + eps, after=False):
        class Other(ours.Adam):
            def move(self, parameter, lr, betas, eps, weight_decay):
                state, gradient = self.state[parameter], parameter.grad
                if not state:
                    state |= {"steps": 0, "mean": 0 * parameter, "square": 0 * parameter}
                state["steps"] += 1
                for name, beta, new in zip(("mean", "square"), betas, (gradient, gradient**2), strict=True):
                    state[name] = beta * state[name] + (1 - beta) * new
                counted = state["steps"] if step is None else state["steps"] + step
                mean, square = (
                    self.corrected(state[name], beta, counted) if wanted else state[name]
                    for name, beta, wanted in zip(("mean", "square"), betas, (first, second), strict=True))
                parameter.mul_(1 if after else decay(lr, weight_decay))
                parameter.sub_(lr * mean / root(square, eps))
                parameter.mul_(decay(lr, weight_decay) if after else 1)

        return Other

    class BetasExchanged(ours.Adam):
        def move(self, parameter, lr, betas, eps, weight_decay):
            super().move(parameter, lr, betas[::-1], eps, weight_decay)

    class Fixed(ours.Adam):
        def move(self, parameter, lr, betas, eps, weight_decay):
            super().move(parameter, lr, (0.9, 0.999), 1e-8, weight_decay)

    first, decayed = "The first step equals", "With decoupled weight decay"
    return {
        "mean not corrected": Mistake("the mean of the gradient isn't corrected: divide it by 1 − β₁ᵗ",
                                      adam(first=False), first),
        "square not corrected": Mistake("the mean of the squares isn't corrected: divide it by 1 − β₂ᵗ",
                                        adam(second=False), first),
        "a step late": Mistake("count the steps from 1: β¹ corrects the first", adam(step=1), first),
        "counted from 0": Mistake("count the steps from 1: 1 − β⁰ is 0, and a division by it is NaN",
                                  adam(step=-1), first),
        "eps inside the root": Mistake("eps belongs outside the root: √square + eps",
                                       adam(root=lambda square, eps: (square + eps).sqrt()), first),
        "no eps": Mistake("eps is missing: √square + eps", adam(root=lambda square, eps: square.sqrt()),
                          first),
        "no root": Mistake("divided by the mean of the squares: take its root",
                           adam(root=lambda square, eps: square + eps), first),
        "betas exchanged": Mistake("the betas are exchanged: β₁ is for the mean, β₂ for the squares",
                                   BetasExchanged, "After 50 steps every number"),
        "betas and eps fixed": Mistake("betas and eps are written into the code: use the arguments", Fixed,
                                       "With betas"),
        "no decay": Mistake("weight_decay is ignored", adam(decay=lambda lr, weight_decay: 1), decayed),
        "decay without rate": Mistake("multiply the decay by the learning rate: 1 − lr · weight_decay",
                                      adam(decay=lambda lr, weight_decay: 1 - weight_decay), decayed),
        "decay last": Mistake("shrink the parameter before the step, not after it", adam(after=True),
                              decayed),
    }


adam_checks = Part([first_step, fifty_steps, honours_betas_and_eps, decays], adam_mistakes,
                   more=more_adam_mistakes)


# ------------------------------------------------------------------ learning_rate(step, training, d_model)


def rises_and_falls(learning_rate, ours):
    """linear: the rate rises to lr in the warm-up and falls to lr / (steps − warmup) in the last step."""
    training = ours.TrainingConfig(steps=100, warmup=20, lr=0.5)
    found = torch.tensor([learning_rate(step, training, 64) for step in range(100)])
    up = [0.5 * (step + 1) / 20 for step in range(20)]
    down = [0.5 * (100 - step) / 80 for step in range(20, 100)]
    return agree(found, torch.tensor(up + down), 1e-7, axes="step")


def follows_the_paper(learning_rate, ours):
    """inverse_sqrt: the rate is d_model^−½ · min(n^−½, n · warmup^−3/2) with n = step + 1, for two widths."""
    training = ours.TrainingConfig(steps=100, warmup=20, schedule="inverse_sqrt")
    found = torch.tensor([[learning_rate(step, training, width) for step in range(100)]
                          for width in (64, 16)])
    n = torch.arange(1, 101).double()
    curve = torch.minimum(n**-0.5, n * 20**-1.5)
    return agree(found, torch.stack([curve / 8, curve / 4]), 1e-7, axes="width, step")


def survives_any_warm_up(learning_rate, ours):
    """Without a warm-up the first rate is the highest; a run shorter than its warm-up ends on the way up."""
    cases = [(4, 0, [1.0, 0.75, 0.5, 0.25]), (3, 10, [0.1, 0.2, 0.3]), (4, 4, [0.25, 0.5, 0.75, 1.0])]
    findings = []
    for steps, warmup, wanted in cases:
        training = ours.TrainingConfig(steps=steps, warmup=warmup, lr=0.5)
        found = torch.tensor([learning_rate(step, training, 64) for step in range(steps)])
        finding = agree(found, 0.5 * torch.tensor(wanted), 1e-7)
        findings.append(at(f"{steps} steps, warm-up {warmup}", finding))
    paper = ours.TrainingConfig(steps=4, warmup=0, schedule="inverse_sqrt")
    found = torch.tensor([learning_rate(step, paper, 64) for step in range(4)])
    falling = torch.arange(1, 5) ** -0.5 / 8
    return together(*findings, at("inverse_sqrt, warm-up 0", agree(found, falling, 1e-7)))


def rate_mistakes(ours):
    def late(step, training, d_model):
        warm = step < training.warmup and training.schedule == "linear"
        return training.lr * step / training.warmup if warm else ours.learning_rate(step, training, d_model)

    return {"late": Mistake("the warm-up is one step late: step 0 also has a rate", late,
                            "linear: the rate rises")}


def more_rate_mistakes(ours):
    """Others that the lesson doesn't show."""

    def linear(up, down):
        def rate(step, training, d_model):
            if training.schedule != "linear":
                return ours.learning_rate(step, training, d_model)
            return training.lr * (up if step < training.warmup else down)(step, training)

        return rate

    def up(step, training):
        return (step + 1) / training.warmup

    def down(step, training):
        return (training.steps - step) / (training.steps - training.warmup)

    def paper(curve):
        def rate(step, training, d_model):
            if training.schedule == "linear":
                return ours.learning_rate(step, training, d_model)
            return curve(step + 1, training.warmup, d_model)

        return rate

    def noam(n, warmup, d_model):
        return d_model**-0.5 * min(n**-0.5, n * warmup**-1.5)

    def unguarded(step, training, d_model):
        left = (training.steps - step) / ((training.steps - training.warmup) or 1)
        return training.lr * min((step + 1) / max(1, training.warmup), left, 1.0)

    late, early = lambda step, training: step / training.warmup, lambda step, t: down(step + 1, t)
    rises, follows = "linear: the rate rises", "inverse_sqrt"
    zero = "the fall is one step early: the last step also has a rate, and 0 comes only after it"
    return {
        "early": Mistake(zero, linear(up, early), rises),
        "late and early": Mistake("the warm-up is one step late, the fall one early: step 0 and the last "
                                  "step also have a rate", linear(late, early), rises),
        "all late": Mistake("everything is one step late: step 0 also has a rate",
                            linear(late, lambda step, t: min(1, down(step - 1, t))), rises),
        "no fall": Mistake("after the warm-up the rate has to fall, to 0 at the end",
                           linear(up, lambda *_: 1), rises),
        "from the start": Mistake("the fall begins after the warm-up, from lr: (steps − step) / "
                                  "(steps − warmup)", linear(up, lambda step, t: 1 - step / t.steps), rises),
        "late paper": Mistake("one step late: n = step + 1",
                              paper(lambda n, *sizes: noam(max(1, n - 1), *sizes)), follows),
        "later paper": Mistake("one step late: n = step + 1",
                               paper(lambda n, *sizes: noam(n - 1, *sizes) if n > 1 else 0.0), follows),
        "shorter than its warm-up": Mistake(
            "where steps < warmup the fall's divisor is negative: use max(1, steps − warmup)", unguarded,
            "Without a warm-up"),
        "no width": Mistake("the factor d_model^−½ is missing", paper(
            lambda n, warmup, width: noam(n, warmup, 1)), follows),
    }


learning_rate_checks = Part([rises_and_falls, follows_the_paper, survives_any_warm_up], rate_mistakes,
                            more=more_rate_mistakes)

"""What has to hold of lesson 5's parts: teacher forcing, loss, Adam, learning rate, Transformer."""

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from checks.stack import copy_stack
from common import lesson
from course.checking import (
    Finding,
    Mistake,
    Part,
    agree,
    gradients,
    gradients_agree,
    largest_difference,
    random_tensors,
    together,
)

causal_mask = lesson("01_attention_mechanism").causal_mask
BOS = lesson("03_positional_encoding").BOS
EOS = lesson("03_positional_encoding").EOS
PAD = lesson("03_positional_encoding").PAD
SinusoidalPositionalEncoding = lesson("03_positional_encoding").SinusoidalPositionalEncoding
TokenEmbedding = lesson("03_positional_encoding").TokenEmbedding


# ------------------------------------------------------------------ teacher_forcing(answers)


ANSWERS = [[7, 8, 9], [5], [6, 6]]


def input_begins_with_bos(teacher_forcing, ours):
    """The input is BOS, then the answer, then PAD."""
    expected = torch.tensor([[BOS, 7, 8, 9], [BOS, 5, PAD, PAD], [BOS, 6, 6, PAD]])
    return agree(teacher_forcing(ANSWERS)[0], expected, 0)


def target_ends_in_eos(teacher_forcing, ours):
    """The target is the answer, then EOS, then PAD: one place ahead of the input."""
    expected = torch.tensor([[7, 8, 9, EOS], [5, EOS, PAD, PAD], [6, 6, EOS, PAD]])
    return agree(teacher_forcing(ANSWERS)[1], expected, 0)


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
        "not shifted": Mistake("nothing is shifted: the target is one token ahead of the input",
                               not_shifted, "The target is the answer"),
        "no EOS": Mistake("EOS is missing: the model could never learn to stop", without_eos,
                          "The target is the answer"),
    }


teacher_forcing_checks = Part([input_begins_with_bos, target_ends_in_eos], shift_mistakes)


# ------------------------------------------------------------------ sequence_loss(logits, targets, …)


(LOGITS,) = random_tensors((3, 5, 7))
TARGETS = torch.tensor([[3, 4, 5, 6, EOS], [3, EOS, PAD, PAD, PAD], [5, 5, EOS, PAD, PAD]])


def expected_loss(logits: Tensor, smoothing: float) -> Tensor:
    return F.cross_entropy(logits.flatten(0, 1), TARGETS.flatten(), ignore_index=PAD,
                           label_smoothing=smoothing, reduction="sum")


def loss_equals_pytorch(sequence_loss, ours):
    """It equals the sum of nn.functional.cross_entropy without PAD."""
    return agree(sequence_loss(LOGITS, TARGETS), expected_loss(LOGITS, 0.0))


def smooths_labels(sequence_loss, ours):
    """… also with label smoothing."""
    return agree(sequence_loss(LOGITS, TARGETS, 0.1), expected_loss(LOGITS, 0.1))


def loss_gradients_equal_pytorch(sequence_loss, ours):
    """… and so does its gradient, with and without."""
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


def loss_mistakes(ours):
    def padding_counts(logits, targets, label_smoothing=0.0):
        return F.cross_entropy(logits.flatten(0, -2), targets.flatten(), reduction="sum",
                               label_smoothing=label_smoothing)

    def mean(logits, targets, label_smoothing=0.0):
        return ours.sequence_loss(logits, targets, label_smoothing) / (targets != PAD).sum()

    return {
        "padding counts": Mistake("padding counts: leave out what has target PAD", padding_counts,
                                  "Logits where the target is PAD"),
        "mean": Mistake("this is the mean; the sum was asked for", mean, "It equals the sum"),
    }


sequence_loss_checks = Part(
    [loss_equals_pytorch, smooths_labels, loss_gradients_equal_pytorch, is_the_sum_of_the_single_ones,
     ignores_padding], loss_mistakes)


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
    """… and so does every number after 50 steps."""
    return adam_agrees(adam, 50)


def honours_betas_and_eps(adam, ours):
    """… and with betas (0.5, 0.8) and eps 0.1."""
    return adam_agrees(adam, 50, betas=(0.5, 0.8), eps=0.1)


def decays(adam, ours):
    """With decoupled weight decay it equals torch.optim.AdamW after 50 steps."""
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


adam_checks = Part([first_step, fifty_steps, honours_betas_and_eps, decays], adam_mistakes)


# ------------------------------------------------------------------ learning_rate(step, training, d_model)


def rises_and_falls(learning_rate, ours):
    """linear: up to lr in the warm-up, down to lr / (steps − warmup) in the last step."""
    training = ours.TrainingConfig(steps=100, warmup=20, lr=0.5)
    found = torch.tensor([learning_rate(step, training, 64) for step in range(100)])
    up = [0.5 * (step + 1) / 20 for step in range(20)]
    return agree(found, torch.tensor(up + [0.5 * (100 - step) / 80 for step in range(20, 100)]), 1e-7)


def follows_the_paper(learning_rate, ours):
    """inverse_sqrt: d_model^−½ · min(n^−½, n · warmup^−3/2), n = 1, 2, …, for d_model 64 and 16."""
    training = ours.TrainingConfig(steps=100, warmup=20, schedule="inverse_sqrt")
    found = torch.tensor([[learning_rate(step, training, width) for step in range(100)]
                          for width in (64, 16)])
    n = torch.arange(1, 101).double()
    curve = torch.minimum(n**-0.5, n * 20**-1.5)
    return agree(found, torch.stack([curve / 8, curve / 4]), 1e-7)


def rate_mistakes(ours):
    def late(step, training, d_model):
        warm = step < training.warmup and training.schedule == "linear"
        return training.lr * step / training.warmup if warm else ours.learning_rate(step, training, d_model)

    return {"late": Mistake("the warm-up is one step late: step 0 has a rate, too", late, "linear: up to lr")}


learning_rate_checks = Part([rises_and_falls, follows_the_paper], rate_mistakes)


# ------------------------------------------------------------------ Transformer(config)


class Reference(nn.Module):
    """nn.Transformer between our embedding and our logits."""

    def __init__(self, config):
        super().__init__()
        self.embedding = TokenEmbedding(config.vocab_size, config.d_model)
        self.positions = SinusoidalPositionalEncoding(config.d_model, config.max_len)
        sizes = config.d_model, config.n_heads, config.d_ff, config.dropout, config.activation
        options = {"batch_first": True, "norm_first": config.norm == "pre"}
        # nn.Transformer ends post-norm stacks in one more norm, the paper doesn't: so we give it our own
        norms = [nn.LayerNorm(config.d_model) if config.norm == "pre" else None for _ in range(2)]
        encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(*sizes, **options), config.n_layers,
                                        norms[0], enable_nested_tensor=False)
        decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(*sizes, **options), config.n_layers,
                                        norms[1])
        self.stacks = nn.Transformer(config.d_model, config.n_heads, custom_encoder=encoder,
                                     custom_decoder=decoder, **options)

    def forward(self, src: Tensor, tgt: Tensor) -> Tensor:
        hidden = src == PAD
        x, y = self.positions(self.embedding(src)), self.positions(self.embedding(tgt))
        y = self.stacks(x, y, tgt_mask=~causal_mask(tgt.shape[1], tgt.device),
                        src_key_padding_mask=hidden, memory_key_padding_mask=hidden)
        return self.embedding.logits(y)


def copy_transformer(ours: nn.Module, theirs: Reference) -> nn.Module:
    """`ours` with the weights of the reference."""
    with torch.no_grad():
        ours.embedding.weight.copy_(theirs.embedding.weight)
    copy_stack(ours.encoder, theirs.stacks.encoder)
    copy_stack(ours.decoder, theirs.stacks.decoder)
    return ours


SRC = torch.tensor([[4, 5, 6, 7, 8], [9, 10, 11, PAD, PAD]])
TGT = torch.tensor([[BOS, 8, 7, 6, 5, 4], [BOS, 11, 10, 9, PAD, PAD]])


def transformer_agrees(transformer, ours, norm: str) -> Finding:
    config = ours.TransformerConfig(d_model=16, n_heads=2, n_layers=2, norm=norm)
    torch.manual_seed(0)
    theirs = Reference(config).double()
    model = copy_transformer(transformer(config).double(), theirs)
    found, expected = model(SRC, TGT), theirs(SRC, TGT)
    logits = agree(found, expected)
    if not logits.holds:  # the gradients of other logits say nothing more
        return logits
    found.sin().sum().backward()
    expected.sin().sum().backward()
    return gradients_agree(model, theirs, copy_transformer)


def pre_norm(transformer, ours):
    """With the same weights it equals nn.Transformer, logits and gradients (pre-norm)."""
    return transformer_agrees(transformer, ours, "pre")


def post_norm(transformer, ours):
    """… and with post-norm, as in the paper: without nn.Transformer's two extra last norms."""
    return transformer_agrees(transformer, ours, "post")


def hides_the_future(transformer, ours):
    """Other tokens to come change no logit, bit for bit."""
    model, other = transformer(ours.TransformerConfig(d_model=16, n_heads=2)).double(), TGT.clone()
    other[:, 3:] = 3
    return agree(model(SRC, other)[:, :3], model(SRC, TGT)[:, :3], 0)


def obeys_positions(transformer, ours):
    """Two digits of the source exchanged change the logits, unless positions are “none”."""
    exchanged = SRC[:, [1, 0, 2, 3, 4]]
    for positions in ("none", "sinusoidal", "learned", "rotary"):
        torch.manual_seed(0)
        config = ours.TransformerConfig(d_model=16, n_heads=2, positions=positions)
        model = transformer(config).double()
        gap = largest_difference(model(exchanged, TGT), model(SRC, TGT))
        if (gap > 1e-10) == (positions == "none"):
            return Finding(False, f"{positions}: {gap:.0e}", "build what config.positions says")
    return Finding(True)


def begins_near_guessing(transformer, ours):
    """Untrained, its loss is within 0.3 of ln V."""
    torch.manual_seed(0)
    config = ours.TransformerConfig()
    tokens = torch.randint(3, config.vocab_size, (64, 12))
    logits = transformer(config)(tokens, F.pad(tokens, (1, 0), value=BOS))[:, :-1]
    loss = F.cross_entropy(logits.flatten(0, 1), tokens.flatten()).item()
    expected = math.log(config.vocab_size)
    return Finding(abs(loss - expected) < 0.3, f"{loss:.2f}, ln V = {expected:.2f}",
                   "start the gain of the last norm at d_model^−½")


def transformer_mistakes(ours):
    class WithoutCausalMask(ours.Transformer):
        def tgt_mask(self, length, device):
            return torch.ones_like(causal_mask(length, device))

    class PaddingMaskInverted(ours.Transformer):
        def src_mask(self, src):
            return ~super().src_mask(src)

    class PaddingSeen(ours.Transformer):
        def src_mask(self, src):
            return torch.ones_like(super().src_mask(src))

    return {
        "no causal mask": Mistake("the decoder sees the future: a causal mask hides it", WithoutCausalMask,
                                  "With the same weights"),
        "padding mask inverted": Mistake("the padding mask is inverted: True means may attend",
                                         PaddingMaskInverted, "With the same weights"),
        "padding seen": Mistake("the source's padding may be looked at: hide it from encoder and decoder",
                                PaddingSeen, "With the same weights"),
    }


transformer_checks = Part(
    [pre_norm, post_norm, hides_the_future, obeys_positions, begins_near_guessing], transformer_mistakes,
    needs="The checks copy weights into embedding.weight, encoder and decoder (lesson 4's names inside).")

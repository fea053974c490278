"""What must hold for lesson 10's models: one stack, its decoding, BERT's gaps, ViT's patches."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from checks.block import pytorch_layer
from checks.stack import copy_stack
from common import lesson
from course.console.records import Finding
from course.grading.checking import (
    Mistake,
    Part,
    agree,
    at,
    gradients_agree,
    random_tensors,
    randomised,
    refused,
    together,
)
from course.training.configs import StackConfig

causal_mask = lesson("01_attention_mechanism").causal_mask
BOS, EOS, PAD = lesson("03_positional_encoding", "BOS", "EOS", "PAD")

D_MODEL, HEADS, D_FF, VOCABULARY = 12, 3, 24, 11  # those of pytorch_layer()
TOKENS = torch.tensor([[4, 7, 3, 8, 5], [6, 3, 9, 4, 7]])
PADDED = torch.tensor([[4, 7, 3, 8, 5], [6, 3, 9, PAD, PAD]])


# ------------------------------------------------------------------ OneStack(config)


def config_of(**changes) -> StackConfig:
    sizes = {"d_model": D_MODEL, "n_heads": HEADS, "n_layers": 2, "d_ff": D_FF, "vocab_size": VOCABULARY,
             "positions": "learned", "max_len": 9}
    return StackConfig(**{**sizes, **changes})


def pytorch_stack(norm: str) -> nn.TransformerEncoder:
    """PyTorch's encoder with random weights, in float64."""
    last = nn.LayerNorm(D_MODEL) if norm == "pre" else None
    return randomised(nn.TransformerEncoder(pytorch_layer(nn.TransformerEncoderLayer, norm), 2, last,
                                            enable_nested_tensor=False))


def compare_stack(implementation, causal: bool, norm: str, tokens: Tensor) -> Finding:
    """Finding: with PyTorch's weights its logits are those of embedding, PyTorch's encoder, embedding."""
    theirs = pytorch_stack(norm)
    model = randomised(implementation(config_of(causal=causal, norm=norm)))
    copy_stack(model.stack, theirs)
    x = D_MODEL**0.5 * model.embedding.weight[tokens] + model.positions.table[: tokens.shape[1]]
    hidden = theirs(x, mask=~causal_mask(tokens.shape[1])) if causal else theirs(
        x, src_key_padding_mask=tokens == PAD)
    real = tokens != PAD
    return agree(model(tokens)[real], (hidden @ model.embedding.weight.T)[real], 1e-10, axes="token, symbol")


def causal_equals_pytorch(implementation, ours):
    """With causal=True it equals PyTorch's encoder with a causal mask, between embedding and tied logits."""
    return together(*(at(norm, compare_stack(implementation, True, norm, TOKENS))
                      for norm in ("pre", "post")))


def whole_equals_pytorch(implementation, ours):
    """With causal=False it equals PyTorch's encoder that sees all but the padding."""
    return together(*(at(norm, compare_stack(implementation, False, norm, PADDED))
                      for norm in ("pre", "post")))


def hides_the_future(implementation, ours):
    """With causal=True a later token changes no bit of the logits before it."""
    other, findings = TOKENS.clone(), []
    other[:, 3] = 10
    for positions in ("learned", "rotary", "none"):
        model = randomised(implementation(config_of(positions=positions, d_model=12, n_heads=3)))
        findings.append(at(positions, agree(model(other)[:, :3], model(TOKENS)[:, :3], 0)))
    return together(*findings)


def sees_both_sides(implementation, ours):
    """With causal=False a later token changes the logits before it."""
    model, other = randomised(implementation(config_of(causal=False))), TOKENS.clone()
    other[:, 3] = 10
    moved = (model(other) - model(TOKENS))[:, :3].abs().amax(-1).min().item()
    return Finding(moved > 1e-6, f"moved by {moved:.0e}", "causal=False: no token is hidden from another")


def starts_anywhere(implementation, ours):
    """A single token at position `start` gets the vector of that position."""
    model = randomised(implementation(config_of(n_layers=1)))
    found = [model(TOKENS[:, :1], start) for start in range(3)]
    table = model.positions.table
    expected = []
    for start in range(3):
        x = D_MODEL**0.5 * model.embedding.weight[TOKENS[:, :1]] + table[start]
        expected.append(model.embedding.logits(model.stack(x, None)))
    return agree(torch.cat(found), torch.cat(expected))


def starts_small(implementation, ours):
    """An untrained model guesses nearly evenly: the loss is within 0.3 of ln V."""
    torch.manual_seed(0)
    model, tokens = implementation(config_of(d_model=48, vocab_size=200)), torch.randint(3, 200, (8, 9))
    loss = F.cross_entropy(model(tokens).flatten(0, 1), tokens.roll(-1, 1).flatten())
    even = torch.tensor(200.0).log()
    finding = agree(loss, even, 0.3, "the gain of the last norm starts at d_model^−½")
    return finding._replace(figure=f"{loss:.2f}, ln V is {even:.2f}", gap=None)


def stack_mistakes(ours):
    class NoMask(ours.OneStack):
        def mask(self, tokens, start):
            return None if self.config.causal else super().mask(tokens, start)

    class AlwaysCausal(ours.OneStack):
        def mask(self, tokens, start):
            return causal_mask(start + tokens.shape[1])[start:]

    class Restarted(ours.OneStack):
        def hidden(self, tokens, start=0):
            return super().hidden(tokens, 0)

    class LastGainOne(ours.OneStack):
        def __init__(self, config):
            super().__init__(config)
            if config.norm == "pre":
                nn.init.ones_(self.stack.norm.gain)

    return {
        "no causal mask": Mistake("a token sees later tokens: pass the causal mask to the stack", NoMask,
                                  "With causal=True a later token"),
        "always causal": Mistake("the mask is causal although config.causal is False", AlwaysCausal,
                                 "With causal=False it equals"),
        "start ignored": Mistake("every call begins at position 0: pass `start` to the positions", Restarted,
                                 "A single token at position"),
        "last gain 1": Mistake("the last gain is 1: begin with d_model^−½", LastGainOne,
                               "An untrained model"),
    }


one_stack_checks = Part(
    [causal_equals_pytorch, whole_equals_pytorch, hides_the_future, sees_both_sides, starts_anywhere,
     starts_small],
    stack_mistakes,
    needs="The checks use embedding (lesson 3's TokenEmbedding), positions (with its table, if learned) and "
          "stack (lesson 4's Encoder).",
    helpers=("mask",))


# ------------------------------------------------------------------ PromptDecoding(model, prompt)


def decoding_model(ours, **changes) -> nn.Module:
    return randomised(ours.OneStack(config_of(max_len=20, **changes))).eval()


PROMPT = TOKENS[:, :3]
ANSWER = torch.tensor([[BOS, 5, 8, 3], [BOS, 9, 4, 6]])  # what the steps read


def whole_text(prompt: Tensor, answer: Tensor) -> Tensor:
    """BOS, the prompt, then the answer."""
    return torch.cat([answer[:, :1], prompt, answer[:, 1:]], dim=1)


def cached_equals_whole(decoding_of, ours):
    """The logits of every step equal those of one pass over the whole text: BOS, prompt, answer."""
    findings = []
    for changes in {"positions": "learned"}, {"positions": "rotary"}, {"positions": "rotary", "n_groups": 1}:
        model = decoding_model(ours, **changes)
        decoding = decoding_of(model, PROMPT)
        with torch.no_grad():
            stepped = torch.stack([decoding.step(tokens) for tokens in ANSWER.unbind(1)], dim=1)
            expected = model(whole_text(PROMPT, ANSWER))[:, PROMPT.shape[1] :]
        findings.append(at(str(changes), agree(stepped, expected, 1e-10, axes="row, step, symbol")))
    return together(*findings)


def goes_on_without_a_prompt(decoding_of, ours):
    """With an empty prompt only BOS comes before the answer."""
    model = decoding_model(ours)
    decoding = decoding_of(model, PROMPT[:, :0])
    with torch.no_grad():
        stepped = torch.stack([decoding.step(tokens) for tokens in ANSWER.unbind(1)], dim=1)
        return agree(stepped, model(ANSWER))


def each_token_once(decoding_of, ours):
    """A prompt of 3 tokens and 4 steps run 7 positions through the stack: each token once."""
    model, computed = decoding_model(ours), []
    model.stack.blocks[0].self_attention.project_query.register_forward_hook(
        lambda _, inputs, output: computed.append(inputs[0].shape[1]))
    decoding = decoding_of(model, PROMPT)
    for tokens in ANSWER.unbind(1):
        decoding.step(tokens)
    finding = agree(torch.tensor(sum(computed)), torch.tensor(7), 0)
    return finding._replace(figure=f"{sum(computed)} positions", gap=None)


def follows_its_rows(decoding_of, ours):
    """After reorder(rows) it continues the texts in their new order."""
    model, rows = decoding_model(ours), torch.tensor([1, 0])
    decoding = decoding_of(model, PROMPT)
    for tokens in ANSWER[:, :3].unbind(1):
        decoding.step(tokens)
    decoding.reorder(rows)
    with torch.no_grad():
        expected = model(whole_text(PROMPT, ANSWER)[rows])[:, -1]
    return agree(decoding.step(ANSWER[rows, 3]), expected, 1e-10)


def refuses_training_mode(decoding_of, ours):
    """A model in training mode is refused with a ValueError."""
    return refused(lambda: decoding_of(decoding_model(ours).train(), PROMPT), "training")


def prompt_mistakes(ours):
    class Restarted(ours.PromptDecoding):
        """The answer begins at position 0 again."""

        def step(self, tokens):
            first = not self.length
            logits = super().step(tokens)
            if first:
                self.position = 1
            return logits

    class PromptLost(ours.PromptDecoding):
        def __init__(self, model, prompt):
            super().__init__(model, prompt[:, :0])

    class PromptFirst(ours.PromptDecoding):
        """The prompt, then BOS."""

        def step(self, tokens):
            if not self.length:
                self.length += 1
                return self.run(torch.cat([self.prompt, tokens[:, None]], dim=1))
            return super().step(tokens)

    class Uncached(ours.PromptDecoding):
        """Runs the whole text again in each step."""

        def step(self, tokens):
            before = self.texts if self.length else tokens.new_empty(len(tokens), 0)
            new = tokens[:, None] if self.length else torch.cat([tokens[:, None], self.prompt], dim=1)
            self.texts, self.length = torch.cat([before, new], dim=1), self.length + 1
            with torch.no_grad():
                return self.model(self.texts)[:, -1]

        def reorder(self, rows):
            self.rows, self.texts = len(rows), self.texts[rows]

    class NotReordered(ours.PromptDecoding):
        def reorder(self, rows):
            self.rows = len(rows)

    every = "The logits of every step"
    return {
        "position restarted": Mistake("the answer starts at position 1 again: continue after the prompt",
                                      Restarted, every),
        "prompt lost": Mistake("the model never reads the prompt", PromptLost, every),
        "BOS after the prompt": Mistake("BOS comes before the prompt: the text begins with it", PromptFirst,
                                         every),
        "no cache": Mistake("run only the new tokens; the caches keep the earlier ones", Uncached,
                            "A prompt of 3 tokens"),
        "cache not reordered": Mistake("reorder(rows) has to reorder the caches as well", NotReordered,
                                       "After reorder"),
    }


prompt_decoding_checks = Part(
    [cached_equals_whole, goes_on_without_a_prompt, each_token_once, follows_its_rows, refuses_training_mode],
    prompt_mistakes,
    needs="model(tokens (N, T), start) gives the logits (N, T, V), and each of model.stack.blocks has a "
          "self_attention. The base class has run(tokens (N, T)): it runs the model over these tokens, after "
          "all earlier ones, and gives the last logits.")


# ------------------------------------------------------------------ mask_tokens(tokens, mask_id, …)


MASK = 40
LARGE = torch.randint(3, MASK, (200, 500), generator=torch.Generator().manual_seed(1))


def masked(mask_tokens, tokens: Tensor, fraction: float = 0.15, seed: int = 0) -> tuple[Tensor, Tensor]:
    return mask_tokens(tokens.clone(), MASK, fraction, torch.Generator().manual_seed(seed))


def near(found: Tensor, wanted: float, hint: str) -> Finding:
    """Finding: the mean of `found`, of 100,000 tokens, is `wanted` to within 0.01."""
    finding = agree(found.double().mean(), torch.tensor(wanted).double(), 0.01, hint)
    return finding._replace(figure=f"{found.double().mean():.1%}, expected {wanted:.0%}", gap=None)


def asks_a_fraction(mask_tokens, ours):
    """About the given fraction of the symbols is selected, for 15 % and for 50 %."""
    return together(*(near(masked(mask_tokens, LARGE, fraction)[1] != PAD, fraction,
                           "select each symbol with this probability") for fraction in (0.15, 0.5)))


def targets_what_was_there(mask_tokens, ours):
    """The target of a selected symbol is the symbol itself; all others stay, with PAD as their target."""
    given, targets = masked(mask_tokens, LARGE)
    asked = targets != PAD
    return together(agree(targets[asked], LARGE[asked], 0), agree(given[~asked], LARGE[~asked], 0))


def hides_most(mask_tokens, ours):
    """Of the selected symbols 80 % become MASK."""
    given, targets = masked(mask_tokens, LARGE, 0.5)
    return near(given[targets != PAD] == MASK, 0.8, "80 % become mask_id")


def changes_some(mask_tokens, ours):
    """Of the selected symbols about 10 % become random ones, from 3 to mask_id − 1."""
    given, targets = masked(mask_tokens, LARGE, 0.5)
    given, targets = given[targets != PAD], targets[targets != PAD]
    changed = (given != targets) & (given != MASK)
    finding = near(changed, 0.1 * (1 - 1 / (MASK - 3)), "10 % become a random symbol")
    drawn = given[changed].unique()
    return finding if not finding.holds else agree(drawn, torch.arange(3, MASK), 0,
                                                   "draw from all symbols, 3 to mask_id − 1")


def leaves_specials(mask_tokens, ours):
    """PAD, BOS and EOS are never selected or changed, not even with a fraction of 1."""
    tokens = torch.tensor([[BOS, 5, 6, EOS, PAD, PAD]]).repeat(50, 1)
    given, targets = masked(mask_tokens, tokens, 1.0)
    special = tokens < 3
    return together(agree(given[special], tokens[special], 0),
                    agree(targets[special], torch.full_like(tokens[special], PAD), 0))


def leaves_its_input(mask_tokens, ours):
    """The given tokens stay as they are, and the same generator selects the same symbols."""
    tokens = LARGE.clone()
    found, again = (mask_tokens(given, MASK, 0.15, torch.Generator().manual_seed(0))[0]
                    for given in (tokens, LARGE.clone()))
    return together(agree(tokens, LARGE, 0, "work on a copy"),
                    agree(found, again, 0, "draw from `generator`"))


def mask_mistakes(ours):
    def all_targets(tokens, mask_id, fraction=0.15, generator=None):
        return ours.mask_tokens(tokens, mask_id, fraction, generator)[0], tokens

    def always_mask(tokens, mask_id, fraction=0.15, generator=None):
        given, targets = ours.mask_tokens(tokens, mask_id, fraction, generator)
        return torch.where(targets != PAD, mask_id, given), targets

    def specials_asked(tokens, mask_id, fraction=0.15, generator=None):
        given, targets = ours.mask_tokens(tokens + 3, mask_id + 3, fraction, generator)
        return given - 3, torch.where(targets != PAD, targets - 3, PAD)

    def in_place(tokens, mask_id, fraction=0.15, generator=None):
        given, targets = ours.mask_tokens(tokens, mask_id, fraction, generator)
        tokens.copy_(given)
        return tokens, targets

    return {
        "everything is a target": Mistake("the target of symbols that aren't selected is PAD, otherwise the "
                                          "model learns to copy", all_targets,
                                          "About the given fraction"),
        "always MASK": Mistake("every selected symbol becomes MASK: let 10 % become another, and 10 % stay",
                               always_mask, "Of the selected symbols 80 %"),
        "specials selected": Mistake("only symbols, from id 3 on, are selected", specials_asked,
                                  "PAD, BOS and EOS"),
        "in place": Mistake("the caller's tokens are changed: work on a copy", in_place, "The given tokens"),
    }


mask_tokens_checks = Part([asks_a_fraction, targets_what_was_there, hides_most, changes_some, leaves_specials,
                           leaves_its_input], mask_mistakes)


# ------------------------------------------------------------------ Patches(size, d_model, channels=1)


def compare_patches(implementation, size: int, channels: int, shape: tuple[int, int]):
    """(our patches, PyTorch's as a strided convolution with the same weights, both modules)."""
    theirs = randomised(nn.Conv2d(channels, 6, size, stride=size))
    ours = copy_convolution(implementation(size, 6, channels).double(), theirs)
    (pictures,) = random_tensors((2, channels, *shape))
    return ours(pictures), theirs(pictures).flatten(2).mT, ours, theirs


def copy_convolution(ours: nn.Module, theirs: nn.Conv2d) -> nn.Module:
    with torch.no_grad():
        ours.project.weight.copy_(theirs.weight.flatten(1))
        ours.project.bias.copy_(theirs.bias)
    return ours


def patches_are_a_convolution(implementation, ours):
    """It equals a convolution whose stride is its width, with the same weights."""
    findings = []
    for size, channels, shape in ((2, 1, (8, 8)), (4, 1, (8, 8)), (2, 1, (4, 6)), (2, 3, (4, 4))):
        found, expected, *_ = compare_patches(implementation, size, channels, shape)
        findings.append(at(f"size {size}, channels {channels}, {shape[0]} × {shape[1]} pixels",
                           agree(found, expected, 1e-12, axes="picture, patch, number")))
    return together(*findings)


def patches_learn_like_one(implementation, ours):
    """The gradients of its weights equal those of the convolution."""
    found, expected, module, theirs = compare_patches(implementation, 2, 3, (4, 6))
    found.sin().sum().backward()
    expected.sin().sum().backward()
    return gradients_agree(module, theirs, copy_convolution)


def refuses_uneven_pictures(implementation, ours):
    """A picture that does not split into patches is refused with a ValueError."""
    return refused(lambda: implementation(3, 6)(torch.zeros(1, 1, 9, 8)), 9, 8, 3)


def patches_mistakes(ours):
    class ViewAlone(ours.Patches):
        """`view` straight to (B, N, C · size²)."""

        def cut(self, pictures):
            return pictures.reshape(len(pictures), -1, pictures.shape[1] * self.size**2)

    class ColumnByColumn(ours.Patches):
        def cut(self, pictures):
            return super().cut(pictures.mT)

    return {
        "view() alone": Mistake("view() alone takes pixels of one row: cut rows and columns, then permute",
                                ViewAlone, "It equals a convolution"),
        "transposed": Mistake("patches go row by row, and so do the pixels inside", ColumnByColumn,
                              "It equals a convolution"),
    }


patches_checks = Part([patches_are_a_convolution, patches_learn_like_one, refuses_uneven_pictures],
                      patches_mistakes, needs="The checks copy weights into project, an nn.Linear.",
                      helpers=("cut",))

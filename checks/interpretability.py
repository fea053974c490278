"""What must hold for lesson 9's instruments: recording, ablating, patching, logit lens, probe."""

from collections.abc import Callable
from contextlib import contextmanager, suppress
from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common import lesson
from course.console.records import Finding
from course.grading.checking import Mistake, Part, agree, at, random_tensors, randomised, together

TokenEmbedding = lesson("03_positional_encoding").TokenEmbedding


class Mixer(nn.Module):
    """tokens (B, L) → (B, L, 4): in both layers each place also reads the places before it."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.inner = nn.ModuleDict({"first": nn.Linear(4, 4)})
        self.second = nn.Linear(4, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        return self.onwards(x, self.inner["first"](x))

    def onwards(self, x: Tensor, first: Tensor) -> Tensor:
        """The rest of the model, given what the first layer passes on."""
        x = x + first.sin().cumsum(1)
        return x + self.second(x).sin().cumsum(1)


class Twice(nn.Module):
    """One layer that is called twice."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.layer(x))


TOKENS = torch.tensor([[1, 2, 3, 4, 5], [6, 5, 4, 3, 2], [2, 2, 6, 1, 0]])
DONORS = torch.tensor([[5, 4, 3, 2, 1], [1, 1, 2, 6, 3], [0, 3, 3, 5, 6]])
FIRST = "inner.first"
X, = random_tensors((2, 5, 4))
PLACES = "sequence, place, number"


# ------------------------------------------------------------------ record(model, names)


def collects_outputs(record, ours):
    """Each name leads to the output of the part with this name, and nothing else is collected."""
    model = randomised(Mixer())
    x = model.embedding(TOKENS)
    with record(model, [FIRST, "second"]) as found:
        model(TOKENS)
    if {*found} != {FIRST, "second"}:
        return Finding(False, f"collected: {', '.join(map(str, found)) or 'nothing'}",
                       f"wanted: {FIRST}, second")
    wanted = model.inner["first"](x), model.second(x + model.inner["first"](x).sin().cumsum(1))
    return together(*(at(name, agree(found[name], expected, axes=PLACES))
                      for name, expected in zip((FIRST, "second"), wanted)))


def last_call_counts(record, ours):
    """If a part is called twice, its last output counts."""
    model = randomised(Twice())
    with record(model, ["layer"]) as found:
        wanted = model(X)
    return agree(found["layer"], wanted, axes=PLACES)


def ends_with_the_block(record, ours):
    """After the with block nothing more is collected, even if the block ended with an error."""
    model = randomised(Mixer())
    with suppress(KeyError), record(model, ["second"]) as found:
        model(TOKENS)
        raise KeyError
    before = found["second"].clone()
    model(DONORS)
    return agree(found["second"], before, 0.0, hint="remove every hook in finally:")


def record_mistakes(ours):
    """The classic mistakes."""

    def hooked(before: bool = False, first: bool = False, stay: bool = False):
        @contextmanager
        def record(model, names):
            found = {}

            def note(name: str) -> Callable:
                def hook(module, inputs, output=None):
                    if not (first and name in found):
                        found[name] = inputs[0] if before else output

                return hook

            parts = {name: model.get_submodule(name) for name in names}
            hooks = [part.register_forward_pre_hook(note(name)) if before
                     else part.register_forward_hook(note(name)) for name, part in parts.items()]
            try:
                yield found
            finally:
                for hook in hooks if not stay else ():
                    hook.remove()

        return record

    return {
        "inputs": Mistake("this is what the part reads; collect what it passes on", hooked(before=True),
                          "Each name leads"),
        "hooks stay": Mistake("remove every hook in finally:", hooked(stay=True), "After the with block"),
        "first call": Mistake("here the first call counts: let each call replace what was there",
                              hooked(first=True), "If a part is called twice"),
    }


record_checks = Part(
    [collects_outputs, last_call_counts, ends_with_the_block], record_mistakes,
    needs="record(model, names) is used in a with statement and gives a dictionary: @contextmanager.")


# ------------------------------------------------------------------ ablated(output, how, real)


OUTPUT, = random_tensors((3, 4, 2), seed=1)
REAL = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 0, 0]]).bool()


def zero_is_zero(ablated, ours):
    """zero gives 0 everywhere."""
    return agree(ablated(OUTPUT, "zero"), torch.zeros(3, 4, 2).double(), 0.0, axes=PLACES)


def one_mean(ablated, ours):
    """mean gives every token the same vector: the mean of all tokens that count."""
    wanted = {"all": OUTPUT.flatten(0, 1).mean(0), "those that are real": OUTPUT[REAL].mean(0)}
    return together(*(at(name, agree(ablated(OUTPUT, "mean", real), vector.expand(3, 4, 2), axes=PLACES))
                      for real, (name, vector) in zip((None, REAL), wanted.items())))


def mean_of_each_place(ablated, ours):
    """place gives each place its own mean, over the sequences whose token there counts."""
    wanted = torch.stack([OUTPUT[REAL[:, place], place].mean(0) for place in range(3)])
    every, found = ablated(OUTPUT, "place"), ablated(OUTPUT, "place", REAL)
    return together(at("all count", agree(every, OUTPUT.mean(0).expand(3, 4, 2), axes=PLACES)),
                    agree(found[:, :3], wanted.expand(3, 3, 2), axes=PLACES))


def no_nan_where_none_counts(ablated, ours):
    """A place where no token counts gets a finite vector."""
    found = ablated(OUTPUT, "place", REAL)
    return agree(found.isnan().sum().double(), torch.zeros(()).double(), 0.0)


def takes_the_other(ablated, ours):
    """other gives each sequence the output for the sequence before it; the first gets the last one's."""
    return agree(ablated(OUTPUT, "other"), OUTPUT[[2, 0, 1]], 0.0, axes=PLACES)


def ablated_mistakes(ours):
    """The classic mistakes."""

    def of_each_sequence(output, how, real=None):
        if how not in ("mean", "place"):
            return ours.ablated(output, how, real)
        return output.mean(1, keepdim=True).expand_as(output)

    def divided_by_none(output, how, real=None):
        found = ours.ablated(output, how, real)
        return found / real.any(0)[:, None] if how == "place" and real is not None else found

    return {
        "padding counted": Mistake("padding is in the mean: only tokens with real = True count",
                                   lambda output, how, real=None: ours.ablated(output, how),
                                   "mean gives every token"),
        "mean of each sequence": Mistake("each sequence has its own mean: average over the sequences as well",
                                         of_each_sequence, "place gives each place"),
        "divided by none": Mistake("a sum of no tokens is divided by 0: divide by at least 1",
                                   divided_by_none, "A place where no token counts"),
        "itself": Mistake("each sequence keeps its own output: roll the batch by one",
                          lambda output, how, real=None: output if how == "other" else ours.ablated(
                              output, how, real), "other gives each"),
    }


ablated_checks = Part(
    [zero_is_zero, one_mean, mean_of_each_place, no_nan_where_none_counts, takes_the_other],
    ablated_mistakes)


# ------------------------------------------------------------------ patch(model, name, inputs, donors, …)


def patched(model, places, sources) -> Tensor:
    """What the Mixer passes on if its first layer is patched, computed step by step."""
    x, rows = model.embedding(TOKENS), torch.arange(3)
    first, donated = model.inner["first"](x), model.inner["first"](model.embedding(DONORS))
    first = first.clone()
    first[rows, places] = donated[rows, sources]
    return model.onwards(x, first)


def patches_one_place(patch, ours):
    """In each sequence one place gets the donor's output, and the model goes on from there."""
    model, places = randomised(Mixer()), torch.tensor([0, 3, 1])
    found = patch(model, FIRST, [TOKENS], [DONORS], places)
    return agree(found, patched(model, places, places), axes=PLACES)


def patches_from_another_place(patch, ours):
    """With `sources` the donor's output comes from a different place than the one it goes to."""
    model, places, sources = randomised(Mixer()), torch.tensor([0, 3, 1]), torch.tensor([4, 2, 1])
    return agree(patch(model, FIRST, [TOKENS], [DONORS], places, sources), patched(model, places, sources),
                 axes=PLACES)


def own_output_changes_nothing(patch, ours):
    """Patching from the same inputs changes nothing, and a patch leaves the model unchanged."""
    model, places = randomised(Mixer()), torch.tensor([2, 2, 2])
    before = deepcopy(model)(TOKENS)
    found = patch(model, FIRST, [TOKENS], [TOKENS], places)
    patch(model, FIRST, [TOKENS], [DONORS], places)
    return together(agree(found, before, axes=PLACES),
                    at("afterwards", agree(model(TOKENS), before, axes=PLACES)))


def patch_mistakes(ours):
    """The classic mistakes."""

    def everywhere(model, name, inputs, donors, places, sources=None):
        with ours.record(model, [name]) as found:
            model(*donors)
        with ours.replace_part(model, name, lambda output: found[name]):
            return model(*inputs)

    def reversed_roles(model, name, inputs, donors, places, sources=None):
        return ours.patch(model, name, donors, inputs, places, sources)

    def from_places(model, name, inputs, donors, places, sources=None):
        return ours.patch(model, name, inputs, donors, places)

    return {
        "all places": Mistake("every place is replaced: choose rows and places, output[rows, places]",
                              everywhere, "In each sequence one place"),
        "roles swapped": Mistake("an output of the inputs is patched into the donors: swap the two",
                                 reversed_roles, "In each sequence one place"),
        "sources ignored": Mistake("the donor's output comes from the place it goes to: `sources` says where "
                                   "to take it from", from_places, "With `sources`"),
    }


patch_checks = Part(
    [patches_one_place, patches_from_another_place, own_output_changes_nothing], patch_mistakes,
    needs="You may use record(…) and replace_part(…). inputs and donors are what the model is called with.")


# ------------------------------------------------------------------ logit_lens(model, stack, *inputs)


class Deep(nn.Module):
    """Embedding, a stack called `tower` of three blocks with a norm at its end, logits."""

    def __init__(self):
        super().__init__()
        self.embedding = TokenEmbedding(7, 4)
        self.tower = nn.Module()
        self.tower.blocks = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
        self.tower.norm = nn.LayerNorm(4)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.embedding.logits(self.tower.norm(self.after(tokens, 3)))

    def after(self, tokens: Tensor, count: int) -> Tensor:
        """What so many blocks make of the tokens."""
        x = self.embedding(tokens)
        for block in self.tower.blocks[:count]:
            x = block(x.sin())
        return x


LENS_AXES = "block, sequence, place, token"


def ends_with_the_logits(logit_lens, ours):
    """After the last block the lens reads the model's own logits."""
    model = randomised(Deep())
    return agree(logit_lens(model, "tower", TOKENS)[-1], model(TOKENS), axes=PLACES)


def reads_each_block(logit_lens, ours):
    """For each block the last norm and the embedding read what this block passes on."""
    model = randomised(Deep())
    wanted = [model.embedding.logits(model.tower.norm(model.after(TOKENS, count))) for count in (1, 2, 3)]
    return agree(logit_lens(model, "tower", TOKENS), torch.stack(wanted), axes=LENS_AXES)


def lens_mistakes(ours):
    """The classic mistakes."""

    def without_norm(model, stack, *inputs):
        whole = deepcopy(model)
        whole.get_submodule(stack).norm = nn.Identity()
        return ours.logit_lens(whole, stack, *inputs)

    def too_early(model, stack, *inputs):
        found = ours.logit_lens(model, stack, *inputs)
        return torch.cat([found[:1], found[:-1]])

    return {
        "without the norm": Mistake("the stack's last norm is missing: the logits are read after it",
                                    without_norm, "After the last block"),
        "a block too early": Mistake("this is what a block reads; take what it passes on", too_early,
                                     "For each block"),
    }


logit_lens_checks = Part(
    [ends_with_the_logits, reads_each_block], lens_mistakes,
    needs="model.get_submodule(stack) has blocks and norm; model.embedding.logits(x) gives the logits.")


# ------------------------------------------------------------------ Probe(x, labels)


CENTRES, NOISE = random_tensors((3, 5), (240, 5), seed=2)
LABELS = torch.arange(240) % 3
VECTORS = 3 * CENTRES[LABELS] + 0.3 * NOISE + 5  # far from 0
GAP = 1e-6


def is_ridge_regression(probe, ours):
    """The scores are those of ridge regression with a bias that is not penalised."""
    x = torch.cat([VECTORS, torch.ones(240, 1)], dim=1)
    penalty = 0.1 * 240 * torch.eye(6).double()
    penalty[5, 5] = 0
    weights = torch.linalg.solve(x.T @ x + penalty, x.T @ F.one_hot(LABELS).double())
    return agree(probe(VECTORS, LABELS, ridge=0.1)(VECTORS), x @ weights, GAP, axes="vector, class")


def finds_what_is_there(probe, ours):
    """The probe tells distinct classes apart in vectors that it has not seen."""
    found = probe(VECTORS[:120], LABELS[:120]).accuracy(VECTORS[120:], LABELS[120:])
    return Finding(found > 0.99, f"{found:.0%} right")


def needs_no_centre(probe, ours):
    """The same number added to all vectors changes no score."""
    return agree(probe(VECTORS + 100, LABELS)(VECTORS + 100), probe(VECTORS, LABELS)(VECTORS), 1e-5,
                 axes="vector, class")


def probe_mistakes(ours):
    """The classic mistake."""

    class Uncentred(ours.Probe):
        """No bias."""

        def __init__(self, x, labels, ridge=1e-3):
            wanted = F.one_hot(labels).to(x)
            square = x.T @ x + ridge * len(x) * torch.eye(x.shape[1]).to(x)
            self.centre, self.usual = x.new_zeros(x.shape[1]), x.new_zeros(wanted.shape[1])
            self.weight = torch.linalg.solve(square, x.T @ wanted)

    class Unscaled(ours.Probe):
        """The penalty doesn't grow with the number of vectors."""

        def __init__(self, x, labels, ridge=1e-3):
            super().__init__(x, labels, ridge / len(x))

    return {
        "no bias": Mistake("there is no bias: subtract the mean of the vectors, and of the one-hot labels",
                           Uncentred, "The same number added"),
        "penalty without N": Mistake("the penalty is `ridge` times the number of vectors", Unscaled,
                                     "The scores are those"),
    }


probe_checks = Part(
    [is_ridge_regression, finds_what_is_there, needs_no_centre], probe_mistakes,
    needs="A probe is called with vectors (N, D), and has accuracy(x, labels).")


# ------------------------------------------------------------------ probe_and_controls(x, untrained, labels)


def random_vectors(width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Vectors of 300 examples that reveal their label, others that don't, and the labels."""
    told, other = random_tensors((300, width), (300, width), seed=3)
    generator = torch.Generator().manual_seed(4)
    labels = torch.randint(3, (300,), generator=generator)
    told[:, :3] += 6 * F.one_hot(labels, 3)
    return told, other, labels


NEAR = 0.2  # how far an accuracy of 150 guesses may be from chance


def tells_the_three_apart(probe_and_controls, ours):
    """Where only the trained vectors reveal the label, both controls stay near chance."""
    found = torch.tensor(probe_and_controls(*random_vectors(6)))
    return agree(found, torch.tensor([1, 1 / 3, 1 / 3]), NEAR, axes="probe")


def tests_on_others(probe_and_controls, ours):
    """Each probe is tested on examples that it was not fitted on: extra dimensions improve no control."""
    found = torch.tensor(probe_and_controls(*random_vectors(150)))
    return agree(found[1:], torch.tensor([1 / 3, 1 / 3]), NEAR, axes="control")


def looks_at_both(probe_and_controls, ours):
    """The third number is about the untrained vectors: it is high if they reveal the label."""
    told, other, labels = random_vectors(6)
    found = torch.tensor(probe_and_controls(other, told, labels))
    return agree(found, torch.tensor([1 / 3, 1 / 3, 1]), NEAR, axes="probe")


def control_mistakes(ours):
    """The classic mistakes."""

    def on_the_same(x, untrained, labels):
        twice = [torch.cat([tensor[: len(x) // 2]] * 2) for tensor in (x, untrained, labels)]
        shuffled = labels[: len(x) // 2].roll(1)
        real, _, fresh = ours.probe_and_controls(*twice)
        probe = ours.Probe(twice[0][: len(x) // 2], shuffled)
        return real, probe.accuracy(twice[0][: len(x) // 2], shuffled), fresh

    def not_shuffled(x, untrained, labels):
        real, _, fresh = ours.probe_and_controls(x, untrained, labels)
        return real, real, fresh

    return {
        "tested on what it was fitted on": Mistake(
            "the probes are tested on what they were fitted on", on_the_same, "Each probe is tested"),
        "not shuffled": Mistake("the labels of the first control aren't shuffled", not_shuffled,
                                "Where only the trained"),
    }


probe_and_controls_checks = Part(
    [tells_the_three_apart, tests_on_others, looks_at_both], control_mistakes,
    needs="Probe(…) may be used.")

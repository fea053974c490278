"""What must hold for lesson 6's decoding with a cache."""

import torch
from torch import Tensor

from common import lesson
from course.console.records import Finding
from course.grading.checking import Mistake, Part, agree, refused, together
from course.training.prompts import refuse_training_mode

BOS = lesson("03_positional_encoding").BOS
Transformer, TransformerConfig, make_batch = lesson(
    "05_mini_transformer", "Transformer", "TransformerConfig", "make_batch")

CACHE = (
    "model.encode(src) gives the memory, model.src_mask(src) gives its mask, and model.decode(tokens (N, T), "
    "memory, src_mask, start) gives the logits (N, T, V), where `start` is the position of the first token. "
    "Each of model.decoder.blocks has self_attention and cross_attention. Their attend(queries, keys, "
    "values, mask) gets keys and values as (B, H, S, K). KeyValueCache(attention).attend takes its place "
    "while a token is decoded, and adds the keys and values kept before. The decoders also read rows, length "
    "and device. "
    "Example: decoding = CachedDecoding(model, src), then decoding.step(tokens (N,)) → logits (N, V).")

class UncachedDecoding:
    """CachedDecoding without a cache: each step runs the decoder over the whole answer so far."""

    @torch.inference_mode()
    def __init__(self, model: Transformer, src: Tensor):
        refuse_training_mode(model)
        self.model, self.memory, self.src_mask = model, model.encode(src), model.src_mask(src)
        self.rows, self.length, self.device = len(src), 0, src.device
        self.tokens = src.new_empty(len(src), 0)

    @torch.inference_mode()
    def step(self, tokens: Tensor) -> Tensor:
        self.tokens = torch.cat([self.tokens, tokens[:, None]], dim=1)
        self.length += 1
        return self.model.decode(self.tokens, self.memory, self.src_mask)[:, -1]

    def reorder(self, rows: Tensor) -> None:
        self.rows = len(rows)
        self.memory, self.src_mask, self.tokens = self.memory[rows], self.src_mask[rows], self.tokens[rows]


BATCH = make_batch("copy", [[1, 2, 3, 4, 5, 6], [7, 8, 9]])


def small_model(**changes):
    torch.manual_seed(0)
    return Transformer(TransformerConfig(d_model=16, n_heads=2, **changes)).double().eval()


def cached_logits_agree(decoding_of, positions: str) -> Finding:
    findings = []
    for norm in ("pre", "post"):
        model = small_model(positions=positions, norm=norm)
        decoding = decoding_of(model, BATCH.src)
        with torch.no_grad():
            stepped = torch.stack([decoding.step(token) for token in BATCH.tgt_in.unbind(1)], dim=1)
            findings.append(agree(stepped, model(BATCH.src, BATCH.tgt_in), 1e-12))
    return together(*findings)


def same_logits_sinusoidal(decoding_of, ours):
    """The logits of every step equal those of one pass over the whole answer (sinusoidal positions)."""
    return cached_logits_agree(decoding_of, "sinusoidal")


def same_logits_learned(decoding_of, ours):
    """The logits of every step equal those of one pass over the whole answer (learned positions)."""
    return cached_logits_agree(decoding_of, "learned")


def same_logits_rotary(decoding_of, ours):
    """The logits of every step equal those of one pass over the whole answer (rotary positions)."""
    return cached_logits_agree(decoding_of, "rotary")


def positions_computed(decoding_of, length: int, rows: int = 1) -> list[int]:
    """How many positions have gone through the first decoder block when answers have 1, 2, … tokens."""
    model, computed = small_model(), []
    model.decoder.blocks[0].self_attention.project_query.register_forward_hook(
        lambda _, inputs, output: computed.append(inputs[0].shape[1]))
    decoding = decoding_of(model, torch.full((rows, 4), 5))
    found = []
    for _ in range(length):
        decoding.step(torch.full((rows,), BOS))
        found.append(sum(computed))
    return found


def runs_each_token_once(decoding_of, ours):
    """For 16 tokens, 16 positions go through the decoder, not 1 + 2 + … + 16."""
    computed = positions_computed(decoding_of, 16)[-1]
    finding = agree(torch.tensor(computed), torch.tensor(16), 0)
    return finding._replace(figure=f"{computed} positions", gap=None)


def follows_its_rows(decoding_of, ours):
    """After reorder(rows) the decoding continues the answers in their new order."""
    model, rows, tokens = small_model(), torch.tensor([1, 0]), BATCH.tgt_in
    decoding = decoding_of(model, BATCH.src)
    for token in tokens[:, :3].unbind(1):
        decoding.step(token)
    decoding.reorder(rows)
    with torch.no_grad():
        expected = model(BATCH.src[rows], tokens[rows, :4])[:, -1]
    return agree(decoding.step(tokens[rows, 3]), expected, 1e-12)


def refuses_training_mode(decoding_of, ours):
    """A model in training mode is refused with a ValueError, and stays in training mode."""
    model = small_model().train()
    finding = refused(lambda: decoding_of(model, BATCH.src), "training")
    if not finding.holds and not model.training:
        return Finding(False, "the model is in evaluation mode now", MODE)
    return finding


def keeps_no_gradients(decoding_of, ours):
    """The decoding's logits require no gradient, so nothing is kept for a backward pass."""
    decoding = decoding_of(small_model(), BATCH.src)
    needed = [decoding.step(token).requires_grad for token in BATCH.tgt_in[:, :2].unbind(1)]
    finding = agree(torch.tensor(needed).int(), torch.zeros(2).int(), 0)
    return finding if finding.holds else finding._replace(figure="logits.requires_grad is True")


MODE = "the caller chooses the mode: raise a ValueError, and don't call model.eval()"


def cache_mistakes(ours):
    class NotReordered(ours.CachedDecoding):
        def reorder(self, rows):
            self.rows = len(rows)
            if len(rows) != len(self.memory):  # only when the number changes
                super().reorder(rows)

    class SourceNotReordered(ours.CachedDecoding):
        def reorder(self, rows):
            self.rows = len(rows)
            for cache in self.self_caches:
                cache.reorder(rows)

    class ChangesTheMode(ours.CachedDecoding):
        def __init__(self, model, src):
            super().__init__(model.eval(), src)

    class KeepsGradients(ours.CachedDecoding):
        __init__ = ours.CachedDecoding.__init__.__wrapped__  # without inference_mode()
        step = ours.CachedDecoding.step.__wrapped__

    class AlwaysPositionZero(ours.CachedDecoding):
        def step(self, tokens):
            embed = self.model.embed
            self.model.embed = lambda tokens, start=0: embed(tokens, 0)
            try:
                return super().step(tokens)
            finally:
                del self.model.embed

    once = "run only the newest token, and keep the keys and values of the tokens before it"
    return {
        "no cache": Mistake(once, UncachedDecoding, "For 16 tokens, 16 positions"),
        "cache not reordered": Mistake("the beams change places, so the cache must follow: reorder(rows)",
                                       NotReordered, "After reorder"),
        "source not reordered": Mistake(
            "the source must follow as well: memory, its mask, and cross-attention's cache",
            SourceNotReordered, "After reorder"),
        "changes the mode": Mistake(MODE, ChangesTheMode, "A model in training mode"),
        "keeps gradients": Mistake("decode under torch.no_grad() or torch.inference_mode()", KeepsGradients,
                                   "The decoding's logits require no gradient"),
        "position always 0": Mistake("every new token gets position 0: count the cached tokens",
                                     AlwaysPositionZero, "The logits of every step"),
    }


cached_decoding_checks = Part(
    [same_logits_sinusoidal, same_logits_learned, same_logits_rotary, runs_each_token_once, follows_its_rows,
     refuses_training_mode, keeps_no_gradients],
    cache_mistakes, CACHE)

"""What must hold for lesson 3's tokenizer and embedding."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course.console.records import Finding
from course.grading.checking import (
    Mistake,
    Part,
    agree,
    at,
    gradients,
    random_tensors,
    refused,
    together,
)

# ------------------------------------------------------------------ Tokenizer(texts, level="word")


SENTENCE = "the cat sat on the mat"
TEXTS = [SENTENCE, "a  cat, twice", ""]


def round_trip(built, texts: list[str]) -> Finding:
    """Finding: decode(encode(text)) is the text, for all of them."""
    came = {text: built.decode(built.encode(text)) for text in texts}
    wrong = [text for text in texts if came[text] != text]
    said = f"{wrong[0]!r} came back as {came[wrong[0]]!r}" if wrong else ""
    lost = "; spaces are lost: split at single spaces" if wrong and came[wrong[0]] == " ".join(
        wrong[0].split()) else ""
    return Finding(not wrong, f"{len(texts) - len(wrong)} of {len(texts)} texts", said + lost)


def round_trips_words(tokenizer, ours):
    """With words, decode(encode(text)) returns the text, double spaces included."""
    return round_trip(tokenizer(TEXTS), TEXTS)


def round_trips_characters(tokenizer, ours):
    """With characters, decode(encode(text)) returns any text of known characters."""
    built = tokenizer(["abc", " "], "character")
    found = [*built.encode("cab a"), len(built)]
    ids = Finding(found == [5, 3, 4, 6, 3, 7], f"ids of “cab a” {found[:-1]}, {found[-1]} in all",
                  "each character is a token: 3, 4, … in the order of appearance")
    return together(ids, round_trip(tokenizer(TEXTS, "character"), TEXTS))


def ids_start_after_the_specials(tokenizer, ours):
    """Ids are 3, 4, … in the order of appearance in all texts; 0, 1, 2 stay free and decode to nothing."""
    built = tokenizer([SENTENCE, "a mat"])
    found = [*built.encode("the cat sat on mat a the"), len(built)]
    if found != [3, 4, 5, 6, 7, 8, 3, 9]:
        return Finding(False, f"ids {found[:-1]}, {found[-1]} in all",
                       "expected 3, 4, 5, 6, 7, 8, 3, and 9 in all")
    texts = [built.decode([1, 3, 2, 0]), built.decode([3, 2, 0, 4])]
    return Finding(texts == ["the", "the cat"], f"decoded {texts}",
                   "leave out the ids 0, 1 and 2 wherever they occur")


def refuses_unknown_tokens(tokenizer, ours):
    """An unknown word raises a ValueError that names it."""
    return together(refused(lambda: tokenizer([SENTENCE]).encode("the dog"), "dog"),
                    refused(lambda: tokenizer(["abc"], "character").encode("ax"), "x"))


tokenizer_checks = Part(
    [round_trips_words, round_trips_characters, ids_start_after_the_specials, refuses_unknown_tokens],
    needs="The checks call encode(text), decode(ids) and len().",
)


# ------------------------------------------------------------------ TokenEmbedding(vocab_size, d_model)


TOKENS = torch.tensor([[3, 1, 4], [1, 4, 3]])
(WEIGHT,) = random_tensors((7, 16))
(NARROW,) = random_tensors((5, 9), seed=2)
VECTORS = "batch, token, number"


def with_weight(embedding, weight: Tensor = WEIGHT) -> nn.Module:
    """An embedding whose vectors are `weight`."""
    built = embedding(*weight.shape).double()
    with torch.no_grad():
        built.weight.copy_(weight)
    return built


def is_a_scaled_lookup(embedding, ours):
    """The embedding equals one-hot · weight · √d_model, for every size."""
    return together(*(at(f"d_model {weight.shape[1]}", agree(
        with_weight(embedding, weight)(TOKENS),
        F.one_hot(TOKENS, len(weight)).double() @ weight * weight.shape[1] ** 0.5, 1e-12, axes=VECTORS))
        for weight in (WEIGHT, NARROW)))


def has_tied_logits(embedding, ours):
    """logits(x) equals x · weightᵀ, with the same parameter."""
    x, narrow = random_tensors((2, 3, 16), (2, 9), seed=1)
    return together(agree(with_weight(embedding).logits(x), x @ WEIGHT.T, 1e-12, axes=VECTORS),
                    agree(with_weight(embedding, NARROW).logits(narrow), narrow @ NARROW.T, 1e-12))


def starts_at_the_right_size(embedding, ours):
    """The weight starts with standard deviation d_model^−0.5."""
    found = [(embedding(16000 // d_model * 16, d_model).weight.std().item(), d_model**-0.5)
             for d_model in (64, 16)]
    return together(*(Finding(abs(std / wanted - 1) < 0.02, f"{std:.4f}, expected {wanted:.4f}",
                              f"every vector is {std / wanted:.2g} times what it should be")
                      for std, wanted in found))


def embedding_learns(embedding, ours):
    """The gradients of the weight, from lookup and logits, equal those of PyTorch's functions."""
    built, weight = with_weight(embedding), WEIGHT.clone().requires_grad_()
    (x,) = random_tensors((2, 3, 16), seed=1)
    expected = gradients((F.embedding(TOKENS, weight) * 4).sin().sum(), [weight])
    tied = gradients(F.linear(x, weight).sin().sum(), [weight])
    lookup = agree(gradients(built(TOKENS).sin().sum(), [built.weight]), expected)
    return together(lookup, agree(gradients(built.logits(x).sin().sum(), [built.weight]), tied))


def embedding_mistakes(ours):
    class NotScaled(ours.TokenEmbedding):
        def forward(self, tokens):
            return F.embedding(tokens, self.weight)

    hint = "the vectors aren't multiplied by √d_model"
    return {"not scaled": Mistake(hint, NotScaled, "The embedding equals one-hot")}


def more_embedding_mistakes(ours):
    """Others that the lesson doesn't show."""

    class Divided(ours.TokenEmbedding):
        def forward(self, tokens):
            return F.embedding(tokens, self.weight) / self.weight.shape[1] ** 0.5

    class ByVocabulary(ours.TokenEmbedding):
        def forward(self, tokens):
            return F.embedding(tokens, self.weight) * len(self.weight) ** 0.5

    class LogitsScaled(ours.TokenEmbedding):
        def logits(self, x):
            return super().logits(x) * self.weight.shape[1] ** 0.5

    lookup = "The embedding equals one-hot"
    return {
        "divided": Mistake("the vectors are divided by √d_model: multiply", Divided, lookup),
        "by √V": Mistake("multiplied by √vocab_size: it should be √d_model", ByVocabulary, lookup),
        "logits scaled": Mistake("the logits are also multiplied by √d_model; multiply only the vectors",
                                 LogitsScaled, "logits(x)"),
    }


embedding_checks = Part(
    [is_a_scaled_lookup, has_tied_logits, starts_at_the_right_size, embedding_learns],
    embedding_mistakes,
    more=more_embedding_mistakes,
    needs="The checks set `weight`, an nn.Parameter (vocab_size, d_model), and call logits(x).",
)

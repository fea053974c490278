"""The words of the glossary, each with the sentence of a lesson that explains it.

A test holds that the sentence stands in that step, so the glossary says what the lesson says.
"""

from typing import NamedTuple


class Term(NamedTuple):
    """A term, where it is explained, and the words that do; step "" is a lesson's beginning."""

    name: str
    lesson: int
    step: str
    explained: str
    also: tuple[str, ...] = ()  # other forms of the word
    only_there: bool = False  # whether other lessons use the word in other senses, too


TERMS = (
    Term("loss", 0, "",
         "a number that says how wrong the answer was (the loss)", ("losses",)),
    Term("gradient", 0, "",
         "the gradient: for each weight, by how much the loss moves when the weight does.", ("gradients",)),
    Term("broadcasting", 0, "broadcasting",
         "Write the shapes one below the other, aligned right; where one is shorter, it counts as 1; a size "
         "of 1 is stretched to the other."),
    Term("bias", 0, "linear-layer",
         "A layer takes a row of numbers x to x·W + b: one matrix, one row b (the bias), broadcast over the "
         "batch.", ("biases",)),
    Term("chain rule", 0, "derivatives",
         "The chain rule: for one function inside another, their derivatives multiply."),
    Term("hidden state", 0, "cells",
         "A recurrent network reads one token after the other, and carries all that it knows in one vector, "
         "the hidden state.", ("hidden states", "recurrent")),
    Term("gate", 0, "cells",
         "A gate is a factor from 0 to 1 for each number of the memory", ("gates",)),
    Term("LSTM", 0, "cells",
         "LSTM beside it a memory and three gates: let in, keep, show"),
    Term("convolution", 0, "convolution",
         "A convolution looks at a few neighbours at once, here a token and the two before it, everywhere "
         "with the same weights.", ("convolutions",)),
    Term("token", 1, "",
         "The text is cut into tokens, here words, and each token becomes a vector, a list of numbers.",
         ("tokens",)),
    Term("encoder", 1, "",
         "The encoder reads the source."),
    Term("decoder", 1, "",
         "The decoder writes the target, one token after the other: it reads what is written so far, "
         "looks into the memory, and names the next."),
    Term("memory", 1, "",
         "In it every token's vector takes in what it needs from the others (which cat? who loves it?), "
         "and what comes out, a vector a token, is the memory.", only_there=True),
    Term("attention", 1, "",
         "A token asks with its query, every token answers with its key; the better they match, the more"
         " of that token's value is taken in"),
    Term("score", 1, "soft-dictionary",
         "A product says how well each one matches (its score), softmax turns the scores into weights "
         "that sum to 1", ("scores",), only_there=True),
    Term("softmax", 1, "soft-dictionary",
         "softmax turns the scores into weights that sum to 1"),
    Term("d_k", 1, "by-hand",
         "Divide by √d_k, where d_k is the length of a key"),
    Term("query", 1, "it-is-the-cat",
         "the query   what the word seeks", ("queries",)),
    Term("key", 1, "it-is-the-cat",
         "the key     what the word is found as", ("keys",)),
    Term("value", 1, "it-is-the-cat",
         "the value   what the word hands over", ("values",), only_there=True),
    Term("batch", 1, "in-pytorch",
         "PyTorch runs many sequences at once, a batch.", ("batches",)),
    Term("self-attention", 1, "who-asks-whom",
         "In self-attention a sequence asks itself, as in step 3: T = S."),
    Term("cross-attention", 1, "who-asks-whom",
         "In cross-attention one sequence asks another: the decoder's tokens ask the memory."),
    Term("causal mask", 1, "masks",
         "The decoder has to name the next token, so it must not see it: the causal mask hides what "
         "comes later.", ("causal masks",)),
    Term("padding mask", 1, "masks",
         "And the sequences of a batch are filled up to one length with PAD: the padding mask hides the "
         "filling.", ("padding masks",)),
    Term("evenness", 1, "why-the-root",
         "“Evenness” says it below: 1 for even weights, 0 for one key that takes all."),
    Term("kernel", 1, "what-it-costs",
         "PyTorch has the whole function as one kernel, one program for the processor."),
    Term("blind query", 1, "blind-row",
         "In this course such a query, a blind one, gets 0, and finite gradients.", ("blind queries",)),
    Term("head", 2, "",
         "Each of these looks is called a head.", ("heads",)),
    Term("projection", 2, "",
         "A projection is a linear map, x·W + b; the paper's have no bias b, ours have one, as in "
         "PyTorch.", ("projections",)),
    Term("d_model", 2, "",
         "D (d_model) is the width of a token's vector, H the number of heads, and K (d_k) = D / H the "
         "width of one head."),
    Term("dropout", 2, "dropout",
         "In training, each weight is set to 0 with probability p and the others are divided by 1 − p."),
    Term("one-hot", 3, "text-to-vectors",
         "as one-hot, V numbers, √2 apart from every other word"),
    Term("embedding", 3, "text-to-vectors",
         "as embedding, D learned numbers, where words can be near or far", ("embeddings",)),
    Term("vocabulary", 3, "text-to-vectors",
         "V is the number of different tokens, the vocabulary."),
    Term("logits", 3, "how-big",
         "At the end of the model its rows are multiplied with x, and the products (logits) say how well"
         " each token fits.", ("logit",)),
    Term("rotary", 3, "rotary",
         "Rotary encoding leaves the tokens alone and turns queries and keys instead: each pair of "
         "numbers as by hand, pair i by p times its frequency."),
    Term("layer", 4, "",
         "A layer is attention, or a small network that works on each token by itself, with a path past "
         "it (residual) and a normalisation.", ("layers",)),
    Term("block", 4, "",
         "A block is two such layers, in the decoder three; a stack is several blocks", ("blocks",)),
    Term("stack", 4, "",
         "A block is two such layers, in the decoder three; a stack is several blocks", ("stacks",)),
    Term("residual path", 4, "residual-paths",
         "The derivative of x + layer(x) is 1 + that of the layer: a gradient gets past in any case.",
         ("residual paths",)),
    Term("layer normalisation", 4, "layer-norm",
         "Each token's vector gets mean 0 and variance 1, then a learned gain and bias.", ("LayerNorm",)),
    Term("feed-forward network", 4, "feed-forward",
         "The feed-forward network computes with one token at a time: a matrix makes its vector four "
         "times as wide, an activation bends each number, a second matrix makes it narrow again.",
         ("feed-forward",)),
    Term("GELU", 4, "feed-forward",
         "GELU is its smooth relative: x times the probability that a standard normal number is smaller "
         "than x."),
    Term("pre-norm", 4, "pre-or-post",
         "Pre-norm normalises what goes into a layer, x = x + layer(LayerNorm(x)), and leaves the path "
         "free."),
    Term("post-norm", 4, "pre-or-post",
         "Post-norm, the paper's text, normalises after adding: x = LayerNorm(x + layer(x))."),
    Term("warm-up", 4, "pre-or-post",
         "A warm-up begins with smaller steps (section 5.3), here the first 80."),
    Term("teacher forcing", 5, "",
         "the decoder writes one token after the other and, while learning, is told all tokens before "
         "the one it has to guess (teacher forcing)"),
    Term("BOS", 5, "teacher-forcing",
         "So its input is the answer shifted by one place, with BOS (beginning of sequence) in front, "
         "and the target ends in EOS (end of sequence)."),
    Term("EOS", 5, "teacher-forcing",
         "So its input is the answer shifted by one place, with BOS (beginning of sequence) in front, "
         "and the target ends in EOS (end of sequence)."),
    Term("label smoothing", 5, "loss",
         "Label smoothing asks for a little probability everywhere; then even a perfect model has a "
         "loss, the entropy of its target."),
    Term("Adam", 5, "adam",
         "Adam divides, number by number, by the gradient's usual size: a step is about the learning "
         "rate at first, and smaller where the last gradients disagree"),
    Term("clipping", 5, "the-loop",
         "if the gradient of all parameters together is longer than 1, it is shortened to 1, its "
         "direction stays (clipping)"),
    Term("exact match", 5, "training",
         "“exact match” is the share of whole answers that are right."),
    Term("free-running", 5, "training",
         "free-running: the model reads what it wrote itself."),
    Term("overfits", 5, "scarce-data",
         "Known sequences are answered more often than new ones: the model overfits.",
         ("overfitting", "overfit")),
    Term("greedy", 6, "greedy",
         "Encode the source, begin with BOS, take the token with the largest logit, feed it back."),
    Term("cache", 6, "",
         "All tokens before the new one were computed already; a cache of their keys and values saves "
         "doing it again."),
    Term("beam search", 6, "beam-search",
         "Keep the `width` likeliest beginnings. All their continuations compete."),
    Term("sampling", 6, "greedy-can-be-wrong",
         "Sampling, which draws each token with its probability, says each sentence as often as the "
         "model believes in it."),
    Term("temperature", 6, "sampling",
         "Temperature below 1 sharpens it, above 1 flattens it."),
    Term("top-k", 6, "sampling",
         "Top-k keeps the k likeliest tokens."),
    Term("top-p", 6, "sampling",
         "Top-p keeps as many as it takes to reach the probability p: few when the model is sure, many "
         "when it isn't."),
    Term("pieces", 7, "why-pieces",
         "Pieces lie between: frequent words are one piece, rare ones several, and a character that was "
         "never seen falls apart into bytes", ("piece",), only_there=True),
    Term("byte-pair encoding", 7, "by-hand",
         "Count how often each two stand side by side, join the most frequent two everywhere, and begin "
         "again, as often as there are merges wanted"),
    Term("BLEU", 7, "bleu",
         "BLEU counts which 1, 2, 3 and 4 words in a row of the answer stand in the reference, too, each at "
         "most as often as there"),
    Term("brevity penalty", 7, "bleu",
         "where c is the number of words in the answers and r in the references: leaving out what is hard "
         "costs.", ("brevity",)),
)

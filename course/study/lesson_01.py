"""What is said about lesson 1: questions, glossary terms, exercises with their guided steps and hints."""

from course.study.saying import Answer, Exercise, Question, Term

FILE = "my_attention.py"  # a learner's own, of --template

QUESTIONS = (
    Question("two-vectors", "it-is-the-cat", "“it” looks for something living and finds the cat. Could the "
             "cat use one vector for both looking and being found?", (
        Answer("No: a product of two vectors is the same both ways, so the cat would look at “it” just "
               "as much.",
               "With one vector for both, q·k is symmetric. Query and key are two maps, because "
               "looking for something and being found are different roles."),
        Answer("Yes: training makes query and key nearly equal anyway.",
               "Here the cat looks for nothing, but is found as something living: its two vectors are "
               "very different."),
        Answer("Yes, if the value is a different vector.",
               "The value decides what is handed over, not who looks at whom.")), 0,
             "“cat” doesn't look back"),
    Question("value-of-the-cat", "it-is-the-cat", "You change the value of “cat”, and nothing else. "
             "What changes?", (
        Answer("The weights that “it” gives to each word.",
               "Weights depend only on queries and keys, not on values."),
        Answer("The output of “it”, and no weight.",
               "The weights say how much of each value is taken in. They are the same as before; what "
               "they fetch has changed."),
        Answer("Both.",
               "The weights would change only if a query or a key did.")), 1,
             "if the cat has another value"),
    Question("future", "masks-hide", "Under a causal mask the words after position 2 are replaced by "
             "others. What happens to the outputs 0 to 2?", (
        Answer("They change a little: a masked score is very small, but not zero.",
               "The masked score is −∞, and e^−∞ is exactly 0."),
        Answer("They change, because the sum in the softmax runs over all words.",
               "The hidden words add exactly 0 to that sum."),
        Answer("They stay the same, to the last bit.",
               "A hidden key has a weight of exactly 0, so it adds nothing to any sum.")), 2,
             "with another future, outputs 0 to 2"),
    Question("why-divide", "why-the-root", "The scores of a wide head are not divided by √d_k. What "
             "goes wrong?", (
        Answer("exp() overflows.",
               "The softmax subtracts the largest score first; nothing overflows."),
        Answer("Nearly all weight lies on one key, and for most queries hardly any gradient comes back.",
               "q·k adds up d_k products, so its spread grows like √d_k. The softmax of scores that far "
               "apart hardly reacts to small changes in them."),
        Answer("The weights no longer sum to 1.",
               "They always do: the softmax divides by the sum."),
        Answer("The scores get a mean far from 0.",
               "Their mean stays 0; it is the spread that grows. And the softmax ignores a mean.")), 1,
             "undivided, more than half of the queries starve"),
)

TERMS = (
    Term("token", "",
         "The text is cut into tokens, here words, and each token becomes a vector, a list of numbers.",
         ("tokens",)),
    Term("encoder", "",
         "The encoder reads the source."),
    Term("decoder", "",
         "The decoder writes the target, one token after another: it reads what it has written so far, "
         "looks into the memory, and names the next token."),
    Term("memory", "",
         "Every token's vector takes in what it needs from the others (which cat? who loves it?), "
         "and the result, one vector per token, is the memory.", only_there=True),
    Term("attention", "",
         "A token asks with its query, and every token answers with its key. The better they match, the more"
         " of that token's value is taken in"),
    Term("score", "soft-dictionary",
         "The dot product of query and key says how well they match (the score)", ("scores",),
         only_there=True),
    Term("softmax", "soft-dictionary",
         "Softmax turns the scores into weights that sum to 1"),
    Term("d_k", "by-hand",
         "Divide by √d_k, where a key has d_k numbers"),
    Term("query", "it-is-the-cat",
         "the query   what the word looks for", ("queries",)),
    Term("key", "it-is-the-cat",
         "the key     what the word is found as", ("keys",)),
    Term("value", "it-is-the-cat",
         "the value   what the word hands over", ("values",), only_there=True),
    Term("batch", "in-pytorch",
         "PyTorch runs many sequences at once, a batch.", ("batches",)),
    Term("self-attention", "who-asks-whom",
         "In self-attention a sequence asks itself, as in step 3: T = S."),
    Term("cross-attention", "who-asks-whom",
         "In cross-attention one sequence asks another: the decoder's tokens ask the memory."),
    Term("causal mask", "masks",
         "The decoder has to name the next token, so it must not see that token: the causal mask hides what "
         "comes later.", ("causal masks",)),
    Term("padding mask", "masks",
         "And the sequences of a batch are padded with PAD to the same length: the padding mask hides "
         "this padding.", ("padding masks",)),
    Term("evenness", "why-the-root",
         "The evenness is 1 for even weights and 0 if one key gets all weight."),
    Term("kernel", "what-it-costs",
         "PyTorch has the whole function as one kernel, one program for the processor."),
    Term("blind query", "blind-row",
         "A blind query has a mask row without any True", ("blind queries",)),
)

EXERCISES = {
    "softmax": Exercise(1, 10,
        guide={"": ["the largest score along dim, kept as an axis of size 1; finite, even in a row of −∞",
                    "subtract it and take exp()",
                    "divide by the sum along dim; it is at least 1, except in a row of −∞"]},
        hints={
            "sums_to_one": (
                "Divide every exponential by a sum. The sum runs along the dimension `dim`.",
                "softmax(x)_i = exp(x_i) / Σ_j exp(x_j)",
                "exponentials / exponentials.sum(___, keepdim=True)"),
            "softmax_equals_pytorch": (
                "Take maximum and sum along the same dimension, and keep it in both, so that shapes fit.",
                "softmax(x)_i = exp(x_i − max x) / Σ_j exp(x_j − max x)",
                "largest = scores.amax(___, keepdim=___)"),
            "survives_large_scores": (
                "exp() of a large number is inf. A constant may be subtracted from all scores of a row first.",
                "exp(x_i − c) / Σ_j exp(x_j − c) is the same for every c: take the row's largest score",
                "torch.exp(scores - ___)"),
            "survives_hidden_rows": (
                "In a row that is all −∞ the largest score is −∞, and −∞ − (−∞) is NaN.",
                "0 / 0 = NaN, 0 / 1 = 0: keep the largest score finite, and the sum at least 1",
                "….clamp(min=___) for the largest score, ….clamp(min=___) for the sum"),
            "softmax_passes_gradients": (
                "The scores come from learned weights, so gradients must flow through the softmax.",
                "∂w_i/∂x_j = w_i·(1[i = j] − w_j)",
                "no .detach(), .data, .item() or NumPy around ___"),
        }),
    "attention_weights": Exercise(1, 15,
        guide={"": ["the scores: each query times each key, (…, T, S)", "divide by the root of d_k",
                    "if there is a mask: −∞ where it is False", "softmax over the keys, the last axis"]},
        hints={
            "weights_follow_the_formula": (
                "A query matches a key by their dot product; the softmax turns a query's scores into weights.",
                "softmax(Q·Kᵀ / √d_k), d_k the width of a query, the softmax over the keys",
                "scores = query @ key.transpose(___, ___) / math.sqrt(___)"),
            "hidden_keys_get_zero": (
                "Where the mask is False the score must not count: exp(−∞) is 0.",
                "score = −∞ where the mask is False, then the softmax",
                "scores.masked_fill(___, -math.inf)"),
            "masks_of_every_shape": (
                "Leave the mask as it is: PyTorch repeats axes of size 1, and missing ones in front.",
                "(S,), (T, S), (B, 1, 1, S), (B, 1, T, S) and (B, H, T, S) all broadcast to (B, H, T, S)",
                "scores.masked_fill(~mask, ___), without view or [None] for the mask"),
            "blind_query_has_no_weights": (
                "In a plain softmax a row that is all −∞ gives 0/0. This lesson's softmax gives 0 there.",
                "0 where a query may attend to nothing, otherwise the softmax",
                "return softmax(___), this lesson's own"),
            "weights_survive_large_scores": (
                "exp() of a large score is inf; lesson 1's softmax subtracts the largest score first.",
                "softmax(x − max x) = softmax(x)",
                "return softmax(___), this lesson's own"),
        }),
    "scaled_dot_product_attention": Exercise(1, 10,
        guide={"": ["the weights, (…, T, S)", "F.dropout sets some of them to 0", "weights times values"]},
        hints={
            "equals_numpy": (
                "Every query gets a mean of the values, weighted by how much it looks at their keys.",
                "softmax(Q·Kᵀ / √d_k) · V",
                "return attention_weights(___) @ ___"),
            "any_leading_dimensions": (
                "Only the last two axes take part; all axes before them stay as they are.",
                "Kᵀ swaps the last two axes: (…, S, K) → (…, K, S)",
                "key.transpose(___, ___) with negative numbers"),
            "masks_like_pytorch": (
                "The mask only goes to the weights; leave its shape to broadcasting.",
                "score = −∞ where the mask is False",
                "attention_weights(query, key, ___)"),
            "hidden_keys_do_not_matter": (
                "With a weight of exactly 0, a hidden value adds nothing.",
                "exp(−∞) = 0, and 0 · value = 0",
                "mask the ___ before the softmax, not the weights after it"),
            "blind_query_gets_zero": (
                "Its weights are all 0, so its output is 0.",
                "0 · V = 0; NaN · V = NaN: look at what the softmax gives for a row of −∞",
                "weights = attention_weights(___), which gives 0 there"),
            "gradients_equal_pytorch": (
                "Everything between inputs and output has to be computed in PyTorch, and to stay finite.",
                "a NaN that is replaced afterwards still has the gradient NaN",
                "softmax(scores) with a sum of at least ___"),
            "survives_half_precision": (
                "float16 ends at 65,504. Every constant in your code has to fit, and −∞ always does.",
                "exp(−∞) = 0 in every type",
                "masked_fill(~mask, -math.___)"),
            "drops_weights": (
                "Dropout sets some of the weights to 0, so that a query ignores some keys.",
                "nn.functional.dropout(x, p) sets a fraction p to 0 and divides the others by 1 − p",
                "weights = F.dropout(attention_weights(___), ___)"),
            "leaves_inputs_alone": (
                "The caller may still need query, key and value.",
                "x = x / 2 makes a new tensor, x /= 2 writes into the given one",
                "scores = scores / ___ rather than scores /= ___ for what the caller passed in"),
        }),
    "causal_mask": Exercise(1, 5,
        guide={"": ["a square of True, (L, L)", "keep it on and below the diagonal"]},
        hints={
            "looks_back_only": (
                "Row i is the query at position i: it may look at itself and back, not ahead.",
                "mask[i, j] = (j ≤ i): a triangle of True, the diagonal included",
                "torch.ones(length, length, dtype=___).___()"),
        }),
    "padding_mask": Exercise(1, 5,
        guide={"": ["True where a token isn't pad_id, (B, S)", "two axes of size 1, for heads and queries"]},
        hints={
            "hides_padding": (
                "Compare every token with pad_id, then add axes for heads and queries.",
                "mask[b, 1, 1, s] = (tokens[b, s] ≠ pad_id)",
                "(tokens != ___)[:, ___, ___, :]"),
            "honours_pad_id": (
                "The padding's id is an argument: use it, wherever in the row it occurs.",
                "tokens ≠ pad_id, for each token by itself",
                "tokens != ___"),
        }),
}

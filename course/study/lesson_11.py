"""What is said about lesson 11: questions, glossary terms, exercises with their guided steps and hints."""

from course.study.saying import Answer, Exercise, Question, Term

FILE = "my_tiles.py"  # a learner's own, of --template

QUESTIONS = (
    Question("twice-the-length", "six-tables", "A sequence becomes twice as long. How much memory does "
             "lesson 1's attention code need now, forward and backward?", (
        Answer("Twice as much.", "Queries, keys and values need twice as much, but each query also has twice as "
               "many scores."),
        Answer("Four times as much.", "There are n × n scores, and several such tables are in memory at once."),
        Answer("As much as before.", "Only the state of linear attention keeps its size.")), 1,
             "the peak memory of lesson 1's code grows with n²"),
    Question("products-of-tiles", "one-number-per-row", "Attention in tiles keeps no weights for the backward "
             "pass. What does it do instead?", (
        Answer("It computes the scores again, and the weights from one number per query.",
               "This takes one more product, seven instead of six, but no table of n × n."),
        Answer("It keeps the weights in 8 bits.", "They would still be n × n numbers."),
        Answer("It runs the whole forward pass again, so the products double.",
               "Only the scores are computed again: 7/6 of the products.")), 0,
             "tiles take exactly 7/6 of the products"),
    Question("larger-tiles", "bytes-moved", "Larger tiles read keys and values less often. Are larger tiles "
             "always better?", (
        Answer("Yes: the formula's value falls as the tile grows.",
               "The formula assumes that all of a tile fits into the fast memory."),
        Answer("No: larger tiles compute more products.", "All sizes compute the same products."),
        Answer("No: a tile that doesn't fit into the fast memory moves more bytes.",
               "Its scores and exponentials leave the fast memory and come back.")), 2,
             "tiles of 128 move more than twice"),
    Question("which-head-survives", "trained-heads", "The attention of trained heads is replaced by a feature "
             "map, without any training. Which heads still work?", (
        Answer("Heads whose scores have a small spread.",
               "Their weights are nearly equal: exactly equal weights on all keys also suffice."),
        Answer("Heads whose scores have a large spread.",
               "Their weights pick one key among many, which takes far more features."),
        Answer("None: the weights were trained for softmax.",
               "The encoder's heads keep nearly all answers.")), 0,
             "encoder: over 95 %"),
    Question("segments", "recompute", "A stack of 16 blocks recomputes its activations. How many blocks "
             "per segment need the least memory?", (
        Answer("4, the square root of 16.",
               "That would be best if a block kept as much as its input. It keeps far more."),
        Answer("1.", "Most of the memory is what a segment keeps while it is computed again."),
        Answer("16.", "Then everything is in memory at once again.")), 1,
             "memory peaks are within 2 % of the formula's"),
    Question("packed-rows", "packing", "Three sequences are packed into one row. What do they need so that "
             "the loss is the same as in three rows?", (
        Answer("A mask that lets each sequence see only itself.",
               "If positions continue across sequences, the loss is far larger."),
        Answer("Positions that begin at 0 in each sequence.",
               "If the sequences see each other, the loss is far larger."),
        Answer("Both.", "If one of the two is missing, the loss is over 10 times as large.")), 2,
             "without separate positions or masks the loss"),
)

TERMS = (
    Term("FlashAttention", "tiles",
         "For each tile of queries, join all tiles of keys: FlashAttention (Dao et al. 2022)."),
    Term("log-sum-exp", "one-number-per-row",
         "The tiles keep one number per query, the logarithm of the sum of e^score over its row (log-sum-exp), "
         "and compute each weight again as e^(score − log-sum-exp)."),
    Term("linear attention", "linear-is-an-rnn",
         "Replace e^(q·k) by φ(q)·φ(k), with positive features φ"),
    Term("random features", "random-features",
         "Averaged over random directions, dot products of Performer's features (Choromanski et al. 2021) "
         "are "
         "e^(q·k/√d_k).", only_there=True),
    Term("recomputing", "recompute",
         "Keep only what enters each segment of s blocks; compute each segment again in the backward pass",
         only_there=True),
    Term("sinks", "smaller-caches",
         "Another cache holds only the latest keys; adding the first ones, called sinks, helps (Xiao et "
         "al. 2024).",
         ("sink",), only_there=True),
)

EXERCISES = {
    "tiled_attention": Exercise(3, 90,
        guide={"": ["ValueError for a tile below 1; with dropout: lesson 1's function",
                    "a torch.autograd.Function of your own: its forward() gets queries, keys, values, a mask "
                    "and the size of the tiles",
                    "forward: for each tile of queries keep the largest score, the sum of the exponentials and "
                    "the weighted sum of the values; run over the tiles of keys",
                    "when the largest score grows, multiply both sums by e^(old − new)",
                    "at the end of the row divide by the sum; keep the output, and largest + log(sum)",
                    "backward: compute each tile's scores again; the weights are e^(score − log-sum-exp)",
                    "add up the gradients of queries, keys and values, tile by tile (lesson 1, appendix)"]},
        hints={
            "equals_pytorch_in_tiles": (
                "A softmax can be found piece by piece; step 2 shows how two pieces are joined.",
                "largest = max(old, new), total = total · e^(old − largest) + Σ e^(score − largest)",
                "total = total * torch.exp(before - ___) + torch.exp(scores - ___).sum(-1, keepdim=True)"),
            "last_tile_may_be_shorter": (
                "12 keys in tiles of 5 are tiles of 5, 5 and 2.",
                "columns start … min(start + tile, S)",
                "for start in range(0, ___, tile): columns = slice(start, start + ___)"),
            "takes_masks": (
                "Take the part of the mask that belongs to the tile. It may have to be expanded first.",
                "mask (…, T, S) → mask[…, rows, columns]",
                "scores.masked_fill(~mask[..., rows, columns], ___)"),
            "takes_rules": (
                "A rule is called with the positions of the tile's queries and keys.",
                "visible = rule(i[rows], j[columns]), i a column, j a row",
                "visible = mask(i[rows], j[:, ___]) if callable(mask) else ___"),
            "fewer_queries_are_the_last": (
                "T queries with S keys are at the last T positions.",
                "positions S − T … S − 1",
                "i = torch.arange(___, S)[:, None]"),
            "blind_query_gets_zero": (
                "If all keys are hidden, the largest score must not be −∞, and the sum must not be divided by 0.",
                "begin with the lowest finite number; divide by max(total, 1)",
                "torch.finfo(query.dtype).min, and total.clamp(min=___)"),
            "survives_large_scores": (
                "Subtract the largest score of all tiles so far before the exponential, not only this tile's.",
                "e^(score − max(old, new))",
                "largest = torch.maximum(before, scores.amax(-1, keepdim=True))"),
            "gradients_equal_pytorch": (
                "The softmax's gradient needs each weight, and for each query one mean of all its weights.",
                "dS = A ∘ (dA − Σ output ∘ dOutput) / √d_k, A = e^(S − log-sum-exp)",
                "weights = torch.exp(scores - ___); grad_scores = weights * (grad_weights - ___) / root"),
            "skips_hidden_tiles": (
                "Ask the rule before the scores are computed.",
                "no cell visible → continue",
                "if not visible.___(): continue"),
            "keeps_no_table": (
                "What autograd records of a loop over tiles is the whole table. Write forward and backward "
                "yourself.",
                "kept: query, key, value, output, and one number per query",
                "class Tiled(torch.autograd.Function): ctx.save_for_backward(query, key, value, ___, ___)"),
            "halves_are_accumulated_in_float32": (
                "Convert the inputs before the loop, and the output after it.",
                "float16 → float32 → float16",
                "kind = torch.promote_types(query.dtype, torch.float32)"),
            "short_sequences": (
                "Without keys the loop over tiles doesn't run at all, and the sums stay 0.",
                "range(0, 0, tile) is empty",
                "for start in range(0, key.shape[-2], tile): ___"),
            "drops_weights_as_lesson_1": (
                "With dropout, call lesson 1's function; tiles would have to draw the same numbers again in "
                "backward.",
                "dropout > 0 → scaled_dot_product_attention(…, mask, dropout)",
                "if dropout: return scaled_dot_product_attention(query, key, value, ___, ___)"),
            "refuses_empty_tiles": (
                "A loop over tiles of 0 tokens would never end.",
                "tile ≥ 1; the mask broadcasts to (…, T, S)",
                'if tile < 1: raise ValueError(f"tile is {___}")'),
        }),
    "window": Exercise(1, 10,
        guide={"": ["ValueError for a width below 1", "a function of i and j: j ≤ i, and i − j < width"]},
        hints={
            "sees_the_latest": (
                "w keys are at distances 0, 1, … w − 1 from the query.",
                "0 ≤ i − j < w",
                "lambda i, j: (j <= ___) & (i - j < ___)"),
            "knows_positions": (
                "i is a column of positions, j a row; the comparison broadcasts.",
                "(T, 1) − (1, S) → (T, S)",
                "lambda i, j: ___"),
            "refuses_empty_windows": (
                "A window holds at least the query's own key.",
                "width ≥ 1",
                'if width < 1: raise ValueError(f"width is {___}")'),
        }),
    "linear_attention": Exercise(3, 60,
        guide={"": ["ValueError for a chunk below 1; convert float16 to float32",
                    "features of queries and keys; append a 1 to each value, so that a weighted sum also has "
                    "the sum of the weights",
                    "not causal: φ(Q) (φ(K)ᵀ V), then divide",
                    "causal: for each chunk, what the state holds plus the table of the chunk (tril), then add "
                    "the chunk's φ(K)ᵀ V to the state",
                    "T queries with S keys are at the last T positions"]},
        hints={
            "equals_the_table": (
                "Multiply keys and values first: that table doesn't grow with the length.",
                "φ(Q) (φ(K)ᵀ V) / φ(Q) (φ(K)ᵀ 1)",
                "queries @ (keys.mT @ ___) / (queries @ keys.sum(-2)[..., None])"),
            "causal_equals_the_table": (
                "A chunk's queries see all chunks before, through the state, and a part of their own chunk.",
                "q·state + tril(q·kᵀ)·v",
                "q @ state + (q @ k.mT).___() @ v"),
            "fewer_queries_are_the_last": (
                "The first S − T keys are before all queries: put them into the state first.",
                "query t is at position S − T + t",
                "F.pad(queries, (0, 0, ___, 0)), and cut the output again"),
            "uses_the_features": (
                "Call the feature map that was passed, for queries and keys. It may change the width.",
                "φ(q), φ(k) (…, L, any)",
                "queries, keys = feature(___), feature(___)"),
            "gradients_of_the_table": (
                "Nothing is detached, and no tensor is changed in place.",
                "autograd goes through the chunks",
                "state = state + k.mT @ v, not state += ___"),
            "grows_with_n": (
                "Never multiply all queries with all keys.",
                "n · chunk · d + n · d²",
                "for start in range(0, S, ___): ___"),
            "halves_are_computed_in_float32": (
                "Convert the inputs before the sums, and the output after them.",
                "float16 → float32 → float16",
                "kind = torch.promote_types(query.dtype, torch.float32)"),
            "short_sequences": (
                "A query without keys gets 0: divide by at least a tiny number.",
                "0 / max(0, tiny) = 0",
                "weighted / total.clamp(min=___)"),
            "refuses_empty_chunks": (
                "A loop over chunks of 0 tokens would never end.",
                "chunk ≥ 1",
                'if chunk < 1: raise ValueError(f"chunk is {___}")'),
        }),
    "positive_features": Exercise(2, 15,
        guide={"": ["convert float16 to float32", "divide x by d_k^¼", "e^(w·x − |x|²/2), divided by √m"]},
        hints={
            "follow_the_formula": (
                "Divide x first; the squared length is that of the divided x.",
                "e^(w·x′ − |x′|²/2) / √m, x′ = x / d_k^¼",
                "torch.exp(x @ w.mT - x.square().sum(-1, keepdim=True) / ___) / math.sqrt(___)"),
            "estimate_the_exponential": (
                "The mean of e^(w·(x + y)) over w is e^(|x + y|²/2); the squared lengths leave e^(x·y).",
                "E φ(x)·φ(y) = e^(x·y)",
                "x = x / x.shape[-1] ** ___"),
            "are_positive": (
                "Take the exponential of the whole exponent; subtract nothing afterwards.",
                "e^z > 0",
                "torch.exp(___)"),
            "do_not_depend_on_others": (
                "Use nothing of other tokens: no mean and no maximum over them.",
                "a row of x → a row of features",
                "x.square().sum(-1, keepdim=True)"),
            "have_range": (
                "float16 ends at 65,504.",
                "float16 → float32",
                "x = x.to(torch.promote_types(x.dtype, torch.float32))"),
        }),
    "QuantisedCache": Exercise(3, 45,
        guide={"__init__": ["ValueError unless 2 ≤ bits ≤ 8; KeyValueCache's __init__",
                            "the largest integer, 2^(bits − 1) − 1"],
               "append": ["a scale for each vector: its largest number / the largest integer, in half precision",
                          "integers: round(x / scale)", "append integers and scales to those kept"],
               "attend": ["append, then multiply all integers by their scales",
                          "type(self.attention).attend(self.attention, queries, keys, values, mask)"],
               "reorder": ["keep these rows of integers and scales"],
               "bytes": ["the bytes of integers and scales"]},
        hints={
            "rounds_each_vector": (
                "The scale belongs to one vector, so that its largest number becomes 127.",
                "scale = max |x| / 127, along the last axis; round(x / scale)",
                "scale = x.abs().amax(___, keepdim=True) / self.top"),
            "counts_its_bytes": (
                "Keep torch.int8 and torch.float16, and nothing else.",
                "K + 2 bytes per vector",
                "(x / scale).round().to(torch.___)"),
            "later_vectors_change_nothing": (
                "What was kept stays; append new vectors with their own scales.",
                "[old, new] along the third axis",
                "torch.cat([old, new], dim=___)"),
            "keeps_zeros": (
                "The scale of a vector of zeros is 0.",
                "x / max(scale, tiny)",
                "x / scale.clamp(min=___)"),
            "follows_its_rows": (
                "Integers and scales are reordered together.",
                "part[rows] for every part",
                "[part.index_select(0, rows) for part in ___]"),
            "serves_heads": (
                "The attention gets all keys and values that are kept, as numbers.",
                "integers · scales",
                "keys = whole_keys * ___"),
            "knows_fewer_bits": (
                "The largest integer depends on the bits.",
                "2^(bits − 1) − 1",
                "self.top = 2 ** (bits - 1) - 1"),
            "refuses_other_bits": (
                "int8 holds at most 8 bits.",
                "2 ≤ bits ≤ 8",
                'if not 2 <= bits <= 8: raise ValueError(f"bits is {___}")'),
        }),
    "pack": Exercise(2, 30,
        guide={"": ["ValueError if a row is shorter than the longest sequence",
                    "the longest sequences first: each goes into the first row that has room",
                    "lay each row out: tokens, ids 1, 2, …, positions from 0; the rest is 0"]},
        hints={
            "holds_each_sequence_once": (
                "Every sequence is whole, and has its own number in its row.",
                "ids 1, 2, … in each row; 0 is padding",
                "for number, sequence in enumerate(row, ___)"),
            "rows_have_the_width": (
                "Begin with zeros of the final shape.",
                "(R, width)",
                "torch.zeros(len(rows), ___, dtype=torch.long)"),
            "positions_begin_again": (
                "The positions start at 0 again in each sequence.",
                "0 … length − 1",
                "torch.arange(len(sequence))"),
            "fills_rows": (
                "Sort by length, the longest first, and look at all rows for room.",
                "first-fit decreasing",
                "sorted(sequences, key=len, reverse=___)"),
            "takes_few_sequences": (
                "Without sequences there are no rows.",
                "(0, width)",
                "max(map(len, sequences), default=___)"),
            "refuses_short_rows": (
                "A sequence is never cut.",
                "width ≥ the longest",
                'raise ValueError(f"a row of {___} tokens is shorter than {___}")'),
        }),
}

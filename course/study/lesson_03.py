"""What is said about lesson 3: questions, glossary terms, exercises with their guided steps and hints."""

from course.study.saying import Answer, Exercise, Question, Term

FILE = "my_positions.py"  # a learner's own, of --template

QUESTIONS = (
    Question("without-positions", "no-order", "One attention layer without positions and without a mask "
             "reads “dog bites man”, then “man bites dog”. What is its output for “bites”?", (
        Answer("The same output both times.",
               "Attention adds up the values of all words, and a sum has no order."),
        Answer("A different output: the words are in other places.",
               "Nothing in their vectors says where they are."),
        Answer("The same output, but only if all words are equal.",
               "It is the same for any words: in either order they are the same set.")), 0,
             "without a mask, shuffling the words only shuffles the outputs"),
    Question("offset", "relative-position", "What does PE(p) · PE(p + k), the dot product of the "
             "vectors of two positions, depend on?", (
        Answer("On both positions.",
               "sin a · sin b + cos a · cos b = cos(a − b): each pair of waves depends only on the "
               "difference."),
        Answer("Only on the distance k, in either direction.",
               "Each pair gives the cosine of its frequency times k. So the product is the same k "
               "words before and k words after."),
        Answer("On k, and also on whether the other word comes before or after.",
               "A cosine is the same for k and −k.")), 1,
             "PE(p) · PE(p + k) depends only on k"),
    Question("rotated", "rotary", "Rotary positions turn query and key by angles that grow with their "
             "positions. The same two vectors move to other positions, equally far apart. How does the "
             "score change?", (
        Answer("It stays the same.",
               "Turning both by the same angle changes no dot product. What counts is how much further "
               "one is turned: the offset."),
        Answer("It changes, because both are turned further.",
               "Both are turned further by the same angle, so their dot product stays the same."),
        Answer("It stays the same only for neighbours.",
               "The same holds for every offset; neighbours have offset 1.")), 0,
             "rotary: offset 2 gives the same score everywhere"),
    Question("beyond", "longer-than-seen", "A layer was trained on sequences of 16. Sinusoidal positions "
             "are defined for every length. Does the layer find the token two places back at position 30?", (
        Answer("Yes: the same rotation leads two places back at every position.",
               "That rotation exists, but training hasn't found it."),
        Answer("Less often than with rotary positions, which show it only offsets.",
               "The layer never saw the sums of token and wave past 16. With rotary positions the "
               "score depends only on the offset, and offset 2 was trained."),
        Answer("As well as with rotary positions.",
               "Rotary positions are right more often there, for every seed.")), 1,
             "at positions 17 to 32 rotary is best"),
)

TERMS = (
    Term("one-hot", "text-to-vectors",
         "A one-hot vector has a 1 at the place of its token and V − 1 zeros."),
    Term("embedding", "text-to-vectors",
         "An embedding has D learned numbers, so words can be close together or far apart", ("embeddings",)),
    Term("vocabulary", "text-to-vectors",
         "The different tokens are the vocabulary, and V is their number."),
    Term("logits", "how-big",
         "At the end of the model the dot products of its output x with all tokens' vectors (logits) say "
         "how well each token fits.", ("logit",)),
    Term("rotary", "rotary",
         "Rotary encoding leaves the tokens unchanged and turns queries and keys instead: at "
         "position p, pair i of their numbers turns by p times its frequency, as in step 8."),
)

FORWARD_STEPS = ["ValueError if a position from start on is past max_len",
                 "the rows start, start + 1, … of the table", "x plus these rows, as a new tensor"]

EXERCISES = {
    "Tokenizer": Exercise(1, 15,
        guide={"__init__": ["split every text, at single spaces or into characters",
                            "number the different tokens from 3 on, in the order of their appearance",
                            "keep a dictionary for each direction"],
               "__len__": ["the tokens, and the three special ids"],
               "encode": ["ValueError for the first unknown token", "the id of each token"],
               "decode": ["leave out 0, 1 and 2", "join the tokens as they were split"]},
        hints={
            "round_trips_words": (
                "Two spaces in a row have an empty word between them; treat it like any other token.",
                "decode(encode(text)) = text",
                'text.split("___") and "___".join(…), with the space written out'),
            "round_trips_characters": (
                "Each token is a single character, the space included; join them without a separator.",
                'level = "character": list(text), "".join(tokens)',
                "list(text) if level == ___ else …"),
            "ids_start_after_the_specials": (
                "Three ids are taken: padding, beginning and end of a sequence. Words are numbered as they appear.",
                "id = 3 + the number of different tokens before it",
                "for token in …: ids.setdefault(token, ___ + len(ids))"),
            "refuses_unknown_tokens": (
                "A word that was never seen has no id; the error should name it.",
                "token not in the dictionary → ValueError",
                'raise ValueError(f"unknown token {___!r}")'),
        }),
    "TokenEmbedding": Exercise(1, 10,
        guide={"__init__": ["random numbers, (vocab_size, d_model), of standard deviation d_model^−0.5",
                            "as an nn.Parameter called weight"],
               "forward": ["the rows of the tokens, times √d_model"],
               "logits": ["x times every row, without √d_model"]},
        hints={
            "is_a_scaled_lookup": (
                "An embedding is a table: token n picks row n. The paper makes the rows larger.",
                "√d_model · weight[token]",
                "math.sqrt(___) * F.embedding(tokens, ___)"),
            "has_tied_logits": (
                "The same table, read the other way: how well does x match each row?",
                "logits = x · weightᵀ, without √d_model",
                "return x @ ___"),
            "starts_at_the_right_size": (
                "After the factor √d_model the numbers should be about 1, so they have to start smaller.",
                "std = 1 / √d_model",
                "nn.Parameter(torch.randn(vocab_size, d_model) * ___)"),
            "embedding_learns": (
                "Lookup and logits use one parameter, so both give it gradients.",
                "∂/∂weight of both, with nothing detached",
                "self.weight = nn.Parameter(___), used in forward() and in logits()"),
        }),
    "SinusoidalPositionalEncoding": Exercise(2, 30,
        guide={"__init__": ["ValueError for an odd d_model",
                            "the frequencies 10000^(−2i / d_model), d_model / 2 of them",
                            "the angles: every position times every frequency",
                            "sine and cosine side by side, a buffer"],
               "forward": FORWARD_STEPS},
        hints={
            "follows_the_formula": (
                "Two neighbours share a frequency: one is its sine, the other its cosine. The first position is 0.",
                "PE(p, 2i) = sin(p / 10000^(2i/d_model)), PE(p, 2i + 1) = cos(p / 10000^(2i/d_model))",
                "frequencies = 10000.0 ** (-torch.arange(0, d_model, ___) / ___)"),
            "waves_honour_start": (
                "While decoding, one new token comes at a time; start says how many came before it.",
                "row p of the result is PE(start + p)",
                "self.table[___ : ___ + x.shape[1]]"),
            "is_added": (
                "The vector of the position is added to the vector of the token, in every row of the batch.",
                "x_p + PE(p)",
                "return x + ___"),
            "refuses_positions_past_the_end": (
                "A table has an end. Slicing past it gives too few rows and no error, so check first.",
                "the last position is start + length − 1; it must be below max_len",
                'if start + ___ > ___: raise ValueError(f"position {___} is past max_len, {___}")'),
            "refuses_odd_widths": (
                "Numbers come in pairs, so their count must be even.",
                "d_model mod 2 = 0",
                'if d_model % ___: raise ValueError(f"… {___} …")'),
            "waves_are_not_learned": (
                "The waves are given by a formula: nothing about them is learned.",
                "no nn.Parameter; a buffer moves with the module and is not trained",
                'self.register_buffer("table", ___, persistent=False)'),
        }),
    "LearnedPositionalEncoding": Exercise(1, 15,
        guide={"__init__": ["a table of random numbers, (max_len, d_model), an nn.Parameter"],
               "forward": FORWARD_STEPS},
        hints={
            "adds_one_vector_a_position": (
                "Use a table with one row per position; the numbers in x don't matter.",
                "x_p + table[start + p]",
                "return x + self.table[___ : ___ + x.shape[1]]"),
            "tells_positions_apart": (
                "Rows that start equal get equal gradients and stay equal.",
                "independent random numbers",
                "nn.Parameter(torch.randn(___, ___) * …)"),
            "is_a_parameter": (
                "The table has to be an nn.Parameter, otherwise no optimiser trains it.",
                "a table (max_len, d_model)",
                "self.table = nn.Parameter(___)"),
            "refuses_positions_past_the_end": (
                "A table has an end. Slicing past it gives too few rows and no error, so check first.",
                "the last position is start + length − 1; it must be below max_len",
                'if start + ___ > ___: raise ValueError(f"position {___} is past max_len, {___}")'),
        }),
    "RotaryPositionalEncoding": Exercise(3, 40,
        guide={"__init__": ["ValueError for an odd d_k", "the frequencies 10000^(−2j / d_k), d_k / 2 of them",
                            "sine and cosine of every position times every frequency, buffers"],
               "forward": ["ValueError if a position from start on is past max_len",
                           "the sines and cosines of these positions",
                           "split x into the numbers at even and at odd places",
                           "turn every pair, and put them side by side again"]},
        hints={
            "turns_pairs": (
                "Each pair of neighbours is an arrow in the plane; position p turns it by p times its frequency.",
                "(a, b) → (a·cos − b·sin, a·sin + b·cos), the angle p · 10000^(−2j / d_k)",
                "even * ___ - odd * ___, even * ___ + odd * ___"),
            "keeps_the_length": (
                "Turning an arrow doesn't make it longer.",
                "cos² + sin² = 1: both numbers of a pair take the same angle",
                "even * cos - odd * ___, even * ___ + odd * cos"),
            "sees_offsets_only": (
                "If query and key turn by the same angle, the angle between them stays the same.",
                "(R_p q)·(R_s k) = q·(R_(s − p) k)",
                "the angle is position · frequency, and the position is start + ___"),
            "rotation_honours_start": (
                "While decoding, one new token comes at a time; start says how many came before it.",
                "the first row is turned by start · frequency",
                "self.turns[:, ___ : ___ + length]"),
            "rotary_refuses_positions_past_the_end": (
                "A table has an end. Slicing past it gives too few rows, so check first.",
                "the last position is start + length − 1; it must be below max_len",
                'if start + ___ > ___: raise ValueError(f"position {___} is past max_len, {___}")'),
            "refuses_odd_heads": (
                "Numbers are turned in pairs, so their count must be even.",
                "d_k mod 2 = 0",
                'if d_k % ___: raise ValueError(f"… {___} …")'),
        }),
}

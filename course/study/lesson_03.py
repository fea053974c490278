"""What is said about lesson 3: questions, glossary terms, exercises with their guided steps and hints."""

from course.study.saying import Answer, Exercise, Question, Term

FILE = "my_positions.py"  # a learner's own, of --template

QUESTIONS = (
    Question("without-positions", "no-order", "One attention layer without positions and without a mask "
             "reads “dog bites man”, then “man bites dog”. What does “bites” get?", (
        Answer("The same both times.",
               "Attention adds up what all words hand over, and a sum has no order."),
        Answer("Something else: the words stand in other places.",
               "Nothing in their vectors says where they stand."),
        Answer("The same, but only if all words are equal.",
               "Any words do: they are the same set, in whatever order.")), 0,
             "shuffled in, shuffled out"),
    Question("offset", "relative-position", "PE(p) · PE(p + k), the product of the vectors of two "
             "positions: what does it depend on?", (
        Answer("On both positions.",
               "sin a · sin b + cos a · cos b = cos(a − b): each pair of waves knows only the "
               "difference."),
        Answer("On the distance k alone, to either side.",
               "Each pair gives the cosine of its frequency times k. So the product is the same for k "
               "words before and behind."),
        Answer("On k, and it says whether the other word stands before or behind.",
               "A cosine is the same for k and −k.")), 1,
             "PE(p) · PE(p + k) depends only on k"),
    Question("rotated", "rotary", "Rotary positions turn query and key by angles that grow with their "
             "positions. Two equal pairs of vectors stand elsewhere, as far apart. What becomes of the "
             "score?", (
        Answer("It is the same.",
               "Turning both by the same angle changes no product. What counts is by how much one is "
               "turned more: the offset."),
        Answer("It changes, for both are turned further.",
               "Both are turned further by the same angle, and a product doesn't notice that."),
        Answer("It is the same only for neighbours.",
               "Any offset will do; neighbours are those with offset 1.")), 0,
             "rotary: offset 2 gives one score everywhere"),
    Question("beyond", "longer-than-seen", "A layer learned on sequences of 16. Sinusoidal positions "
             "are defined for every length. Does it find the token two places back at position 30?", (
        Answer("Yes: the same rotation leads two places back everywhere.",
               "That matrix exists, but training hasn't found it."),
        Answer("Less often than with rotary positions, which show it only offsets.",
               "The layer never met the sums of token and wave beyond 16. With rotary positions the "
               "score knows the offset alone, and that one was trained."),
        Answer("As well as with rotary positions.",
               "Rotary positions are ahead there, in every seed.")), 1,
             "at 17 to 32 rotary is best"),
)

TERMS = (
    Term("one-hot", "text-to-vectors",
         "as one-hot, V numbers, √2 apart from every other word"),
    Term("embedding", "text-to-vectors",
         "as embedding, D learned numbers, where words can be near or far", ("embeddings",)),
    Term("vocabulary", "text-to-vectors",
         "V is the number of different tokens, the vocabulary."),
    Term("logits", "how-big",
         "At the end of the model its rows are multiplied with x, and the products (logits) say how well"
         " each token fits.", ("logit",)),
    Term("rotary", "rotary",
         "Rotary encoding leaves the tokens alone and turns queries and keys instead: each pair of "
         "numbers as by hand, pair i by p times its frequency."),
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
                "Two spaces in a row hold an empty word between them; it is a token like others.",
                "decode(encode(text)) = text",
                'text.split("___") and "___".join(…), with the space named'),
            "round_trips_characters": (
                "A token is then a single character, the space too, and nothing stands between two.",
                'level = "character": list(text), "".join(tokens)',
                "list(text) if level == ___ else …"),
            "ids_start_after_the_specials": (
                "Three ids are taken: filling, begin and end of a sequence. Words are numbered as they appear.",
                "id = 3 + the number of different tokens before it",
                "for token in …: ids.setdefault(token, ___ + len(ids))"),
            "refuses_unknown_tokens": (
                "A word that was never seen has no number; say which it is.",
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
                "Times √d_model the numbers should be about 1; so they have to start smaller.",
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
                "Two neighbours share a frequency: one is its sine, the other its cosine. Positions count from 0.",
                "PE(p, 2i) = sin(p / 10000^(2i/d_model)), PE(p, 2i + 1) = cos(p / 10000^(2i/d_model))",
                "frequencies = 10000.0 ** (-torch.arange(0, d_model, ___) / ___)"),
            "waves_honour_start": (
                "While decoding, one new token comes at a time: start says how many stand before it.",
                "row p of the result is PE(start + p)",
                "self.table[___ : ___ + x.shape[1]]"),
            "is_added": (
                "The vector of the position is added to the vector of the token, in every row of the batch.",
                "x_p + PE(p)",
                "return x + ___"),
            "refuses_positions_past_the_end": (
                "A table has an end. Slicing past it gives too few rows and no error: look first.",
                "the last position is start + length − 1; it must be below max_len",
                'if start + ___ > ___: raise ValueError(f"position {___} is past max_len, {___}")'),
            "refuses_odd_widths": (
                "Numbers come in pairs, so their count must be even.",
                "d_model mod 2 = 0",
                'if d_model % ___: raise ValueError(f"… {___} …")'),
            "waves_are_not_learned": (
                "The waves are given by a formula: nothing about them is to be learned.",
                "no nn.Parameter; a buffer moves with the module and is not trained",
                'self.register_buffer("table", ___, persistent=False)'),
        }),
    "LearnedPositionalEncoding": Exercise(1, 15,
        guide={"__init__": ["a table of random numbers, (max_len, d_model), an nn.Parameter"],
               "forward": FORWARD_STEPS},
        hints={
            "adds_one_vector_a_position": (
                "A table with a row for each position; what stands in x doesn't matter.",
                "x_p + table[start + p]",
                "return x + self.table[___ : ___ + x.shape[1]]"),
            "tells_positions_apart": (
                "Rows that start alike are trained alike.",
                "independent random numbers",
                "nn.Parameter(torch.randn(___, ___) * …)"),
            "is_a_parameter": (
                "What is learned has to be an nn.Parameter, or no optimiser sees it.",
                "a table (max_len, d_model)",
                "self.table = nn.Parameter(___)"),
            "refuses_positions_past_the_end": (
                "A table has an end. Slicing past it gives too few rows and no error: look first.",
                "the last position is start + length − 1; it must be below max_len",
                'if start + ___ > ___: raise ValueError(f"position {___} is past max_len, {___}")'),
        }),
    "RotaryPositionalEncoding": Exercise(3, 40,
        guide={"__init__": ["ValueError for an odd d_k", "the frequencies 10000^(−2j / d_k), d_k / 2 of them",
                            "sine and cosine of every position times every frequency, buffers"],
               "forward": ["ValueError if a position from start on is past max_len",
                           "the sines and cosines of these positions",
                           "split x into its even and its odd numbers",
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
                "Turn query and key by the same angle more: the angle between them stays.",
                "(R_p q)·(R_s k) = q·(R_(s − p) k)",
                "the angle is position · frequency, and the position is start + ___"),
            "rotation_honours_start": (
                "While decoding, one new token comes at a time: start says how many stand before it.",
                "the first row is turned by start · frequency",
                "self.turns[:, ___ : ___ + length]"),
            "rotary_refuses_positions_past_the_end": (
                "A table has an end. Slicing past it gives too few rows: look first.",
                "the last position is start + length − 1; it must be below max_len",
                'if start + ___ > ___: raise ValueError(f"position {___} is past max_len, {___}")'),
            "refuses_odd_heads": (
                "Numbers are turned in pairs, so their count must be even.",
                "d_k mod 2 = 0",
                'if d_k % ___: raise ValueError(f"… {___} …")'),
        }),
}

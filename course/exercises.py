"""How hard it is to write each graded part oneself, from 1 to 3, and about how many minutes it takes.

Both are a guess for somebody who has read the lesson, and only there to choose what comes next.
"""

EXERCISES: dict[int, dict[str, tuple[int, int]]] = {
    0: {"broadcast_shapes": (1, 15), "Value": (3, 90), "two_layer_backward": (2, 30), "RNNCell": (1, 10),
        "LSTMCell": (2, 20), "GRUCell": (2, 20)},
    1: {"softmax": (1, 10), "attention_weights": (1, 15), "scaled_dot_product_attention": (1, 10),
        "causal_mask": (1, 5), "padding_mask": (1, 5)},
    2: {"MultiHeadAttention": (2, 40)},
    3: {"Tokenizer": (1, 15), "TokenEmbedding": (1, 10), "SinusoidalPositionalEncoding": (2, 30),
        "LearnedPositionalEncoding": (1, 15), "RotaryPositionalEncoding": (3, 40)},
    4: {"layer_norm": (1, 10), "LayerNorm": (1, 10), "gelu": (1, 5), "FeedForward": (1, 15),
        "EncoderBlock": (2, 25), "DecoderBlock": (2, 25), "Encoder": (2, 20), "Decoder": (2, 20)},
    5: {"Transformer": (3, 60), "teacher_forcing": (1, 10), "sequence_loss": (2, 20), "Adam": (2, 30),
        "learning_rate": (1, 15)},
    6: {"greedy_decode": (2, 25), "adjust_logits": (2, 30), "sample": (1, 15), "beam_search": (3, 60),
        "CachedDecoding": (3, 60)},
    7: {"BytePairEncoding": (3, 60), "BatchesByLength": (2, 25), "corpus_bleu": (2, 40)},
}
FILES = {0: "my_foundations.py", 1: "my_attention.py", 2: "my_heads.py", 3: "my_positions.py",
         4: "my_block.py", 5: "my_training.py", 6: "my_decoding.py", 7: "my_translation.py"}
DIFFICULTY = {1: "easy", 2: "some thought", 3: "hard"}

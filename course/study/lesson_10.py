"""What is said about lesson 10: questions, glossary terms, exercises with their guided steps and hints."""

from course.study.saying import Answer, Exercise, Question, Term

FILE = "my_architectures.py"  # a learner's own, of --template

QUESTIONS = (
    Question("no-source", "one-stack", "A model has no source to look at. Which of lesson 4's blocks does it "
             "need?", (
        Answer("A new one: a decoder block without cross-attention doesn't exist yet.",
               "It does: without cross-attention, a decoder block has the layers of an encoder block. Only the "
               "mask differs."),
        Answer("The encoder block, with a causal mask.",
               "Without cross-attention a decoder block has the layers of an encoder block. The causal mask is "
               "an argument."),
        Answer("The decoder block, with an empty source.",
               "It would work, but cross-attention would only cost time and parameters.")), 1,
             "an encoder block with a causal mask equals"),
    Question("perfect-model", "how-low", "A model knows the true probability of every next word. What is its "
             "loss?", (
        Answer("0.", "Only if each next word were certain."),
        Answer("The entropy of the text, per word.",
               "That is the mean of −log P with the true P. No model gets below it, and a trained one comes "
               "close."),
        Answer("ln V, for V words.", "That is the loss of a model that knows nothing.")), 1,
             "loss is at most 5 % above the floor"),
    Question("loss-on-digits", "task-as-prompt", "Random digits are the prompt, and the same digits reversed "
             "are the answer. Should the loss also count the digits of the prompt?", (
        Answer("Yes: more places to learn from.",
               "Nobody can guess random digits. These positions teach nothing about the answer."),
        Answer("No: nobody can guess them, and the model learns the answer more slowly.",
               "If the loss also counts the prompt, fewer answers are right after 200 steps, on average over the "
               "seeds."),
        Answer("It makes no difference.", "It does here, on average over the seeds.")), 1,
             "after 200 steps, a loss that also counts the prompt"),
    Question("shuffled-patches", "pictures", "The patches of all pictures are shuffled in the same way. The model "
             "was trained without positions. How many of its answers change?", (
        Answer("Nearly all.", "That holds with positions."),
        Answer("About half.", "Attention without positions sees a set: the order of the patches doesn't matter."),
        Answer("Hardly any.",
               "Without positions the patches are a set. Shuffling changes nothing but rounding.")), 2,
             "without positions, shuffling the patches"),
    Question("groups", "to-llama", "Four heads of queries share two heads of keys and values. What does that "
             "save?", (
        Answer("Half of the cache, at nearly the same loss.",
               "The cache holds keys and values, and there are half as many of them."),
        Answer("Half of the multiplications of queries with keys.",
               "Each of the four query heads still meets every key."),
        Answer("Nothing: the keys are repeated.", "They are repeated after the cache.")), 0,
             "grouped queries halve the cache"),
)

TERMS = (
    Term("GPT", "one-stack", "With a causal mask it is a GPT, without one it is a BERT.", ("BERT",)),
    Term("held out", "reading", "The last tenth of each lesson is held out."),
    Term("floor", "how-low",
         "The floor is the mean of −log P over 1,000 new sentences, per word.", only_there=True),
    Term("patches", "pictures",
         "The vision transformer (ViT) cuts a picture into patches and maps each to a vector; this is a "
         "convolution whose windows don't overlap.", only_there=True),
    Term("RMSNorm", "to-llama", "RMSNorm is LayerNorm without the mean and the bias."),
    Term("SwiGLU", "to-llama",
         "SwiGLU multiplies the expanded vector by a gate, which a second matrix computes."),
    Term("grouped queries", "to-llama",
         "With grouped queries several heads share keys and values, so the cache keeps fewer of them."),
)

EXERCISES = {
    "OneStack": Exercise(3, 45,
        guide={"__init__": ["positions as config.positions says: added to the embedding, or a rotation in the stack",
                            "lesson 3's TokenEmbedding, lesson 4's Encoder",
                            "the gain of the last norm starts at d_model^−½"],
               "forward": ["run hidden(), then multiply by the embedding"],
               "hidden": ["embed the tokens", "add positions from `start` on, unless they are rotary or none",
                          "dropout, only while training", "the stack, with its mask"]},
        hints={
            "causal_equals_pytorch": (
                "Embed, add positions, run the stack with a causal mask, multiply by the embedding.",
                "logits = stack(√d · E[tokens] + positions, mask)·Eᵀ",
                "self.embedding.logits(self.stack(___, ___))"),
            "whole_equals_pytorch": (
                "Not causal: every token sees every other, except padding.",
                "mask = tokens ≠ PAD, (B, 1, 1, L)", "padding_mask(tokens, ___)"),
            "hides_the_future": (
                "A token may see itself and those before it.", "mask (L, L) is lower triangular",
                "causal_mask(___)"),
            "sees_both_sides": (
                "config.causal decides which mask the stack gets.", "causal: lower triangular; otherwise all",
                "if self.config.causal: ___ else: ___"),
            "starts_anywhere": (
                "While decoding, a call gets only the newest token: its position is `start`.",
                "x_p = √d · E[token] + table[start]", "self.positions(x, ___)"),
            "starts_small": (
                "With a last gain of 1 the untrained model is confident, and wrong.",
                "gain = d_model^−½", "nn.init.constant_(self.stack.norm.gain, ___)"),
        }),
    "PromptDecoding": Exercise(2, 25,
        guide={"__init__": ["self_cache is lesson 6's KeyValueCache", "the base class makes the caches with it"],
               "step": ["in the first step the prompt follows BOS", "count the step",
                        "run the model over the new tokens"]},
        hints={
            "cached_equals_whole": (
                "In the first step the model reads BOS and then the prompt, later one token.",
                "first step: (N, 1 + P) tokens; then (N, 1)", "torch.cat([___, ___], dim=1)"),
            "goes_on_without_a_prompt": (
                "A prompt of length 0 is allowed.", "(N, 1 + 0) tokens", "torch.cat works with (N, 0)"),
            "each_token_once": (
                "The caches keep the keys and values: no token is computed again.", "P + steps positions in all",
                "self.run(___)"),
            "follows_its_rows": (
                "Every cache has to be reordered like the rows.", "keys[rows], values[rows]", "cache.reorder(___)"),
            "refuses_training_mode": (
                "Dropout would make answers random.", "model.training must be False",
                "super().__init__(model, ___)"),
        }),
    "mask_tokens": Exercise(2, 25,
        guide={"": ["select symbols at random; never PAD, BOS or EOS", "draw what becomes of each: 80, 10 and 10 %",
                    "put mask_id or another symbol there", "the targets: the selected tokens, otherwise PAD"]},
        hints={
            "asks_a_fraction": ("Each symbol is selected independently, with this probability.", "u < fraction",
                                "torch.rand(tokens.shape, generator=___) < ___"),
            "targets_what_was_there": ("The target is the token before it was changed.",
                                       "target = token if selected, PAD otherwise",
                                       "torch.where(selected, ___, PAD)"),
            "hides_most": ("For the selected symbols, draw again: what do they become?", "u < 0.8: MASK",
                           "torch.where(fate < ___, mask_id, ___)"),
            "changes_some": ("From 0.8 to 0.9: a random symbol.", "3 ≤ symbol < mask_id",
                             "torch.randint(___, ___, tokens.shape, generator=generator)"),
            "leaves_specials": ("Symbols begin with id 3.", "selected and tokens ≥ 3", "selected & (tokens >= ___)"),
            "leaves_its_input": ("torch.where makes a new tensor.", "no [...] = on tokens",
                                 "return torch.where(selected, ___, tokens), ___"),
        }),
    "Patches": Exercise(2, 25,
        guide={"__init__": ["one nn.Linear from channels · size² numbers to d_model"],
               "forward": ["refuse what doesn't split", "cut rows and columns into patches",
                           "bring each patch's numbers together", "the linear map"]},
        hints={
            "patches_are_a_convolution": (
                "Cut both axes: rows into rows of patches, columns into columns of patches.",
                "(B, C, h, p, w, p) → (B, h, w, C, p, p)", "x.permute(0, ___, ___, 1, ___, ___)"),
            "patches_learn_like_one": (
                "Use PyTorch operations only, so that gradients pass.", "the gradient flows through project", "no .detach() around ___"),
            "refuses_uneven_pictures": (
                "Height and width have to be multiples of the patch size.", "height mod size = width mod size = 0",
                'raise ValueError(f"a picture of {___} × {___} does not split into patches of {___}")'),
        }),
    "RMSNorm": Exercise(1, 10,
        guide={"__init__": ["a gain of ones, (D,)"],
               "forward": ["the mean of the squares over the last axis", "divide by its root, with eps inside",
                           "times the gain"]},
        hints={
            "norm_equals_pytorch": ("LayerNorm without the mean and the bias.",
                                    "gain · x / √(mean(x²) + eps)", "x.square().mean(___, keepdim=True)"),
            "norm_honours_eps": ("eps is added before the root.", "√(mean(x²) + eps)", "torch.rsqrt(___ + ___)"),
            "norm_starts_neutral": ("The gain starts at 1.", "gain = 1", "nn.Parameter(torch.ones(___))"),
            "norm_learns_like_pytorch": ("The gain is a parameter.", "∂L/∂gain", "nn.Parameter(___)"),
        }),
    "SwiGLU": Exercise(1, 10,
        guide={"__init__": ["gate and expand, d_model to d_ff, and contract, d_ff to d_model; no biases"],
               "forward": ["silu of the gate, times expand", "dropout, only while training", "contract"]},
        hints={
            "swiglu_equals_the_formula": ("One branch goes through silu, the other stays linear.",
                                          "contract(silu(gate(x)) ∘ expand(x))",
                                          "F.silu(self.___(x)) * self.___(x)"),
            "swiglu_has_no_biases": ("No map has a bias.", "3 · d_model · d_ff", "nn.Linear(___, ___, bias=False)"),
            "swiglu_learns_like_the_formula": ("Use PyTorch operations only, so that gradients pass.", "all three maps have gradients",
                                               "no .detach() around ___"),
            "swiglu_drops_in_training": ("Dropout comes before contract.", "p while self.training, otherwise 0",
                                         "F.dropout(___, self.dropout, self.training)"),
        }),
    "GroupedQueryAttention": Exercise(2, 30,
        guide={"__init__": ["ValueError if the heads don't split into the groups",
                            "queries and output as in lesson 2; keys and values n_groups · d_k wide"],
               "attend": ["rotate queries and keys, if there is a rotation",
                          "repeat keys and values for the heads that share them", "lesson 2's attend"],
               "weights": ["project and split", "the same rotation and repetition",
                           "lesson 1's attention_weights"]},
        hints={
            "groups_equal_pytorch": ("Neighbouring heads share a group.", "head h uses group h · G // H",
                                     "x.repeat_interleave(___, dim=1)"),
            "groups_take_a_mask": ("The mask goes on to lesson 2's attend.", "(T, S) broadcasts to (B, H, T, S)",
                                   "super().attend(___, ___, ___, mask)"),
            "groups_are_repeated_weights": ("Rotate before repeating; weights() does the same.",
                                            "rotary(queries, S − T), rotary(keys)",
                                            "self.rotary(queries, ___), self.rotary(___)"),
            "keeps_groups_in_the_cache": ("attend() gets n_groups heads of keys and values.",
                                          "(B, G, S, K) → attend → (B, H, S, K)",
                                          "repeat inside attend, not before it"),
            "refuses_uneven_groups": ("6 heads split into 2 groups, not into 4.", "n_heads mod n_groups = 0",
                                      'raise ValueError(f"{___} heads do not split into {___} groups")'),
        }),
}

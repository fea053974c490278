"""What is said about lesson 5: questions, glossary terms, exercises with their guided steps and hints."""

from course.study.saying import Answer, Exercise, Question, Term

FILE = "my_training.py"  # a learner's own, of --template

QUESTIONS = (
    Question("start-of-loss", "loss", "A model that has learned nothing chooses among V tokens. How "
             "large is its loss, −log of the probability of the right token?", (
        Answer("About ln V.",
               "With even guesses each token has probability 1/V, and −log(1/V) = ln V. If the first loss "
               "is far above ln V, something is wrong."),
        Answer("About 1.",
               "Then the right token would have a probability of e^−1 = 0.37, and that isn't guessing."),
        Answer("Any number: it depends on the initial weights.",
               "Ours are chosen so that the first guesses are nearly even.")), 0,
             "the untrained loss is near ln V"),
    Question("count-of-wholes", "two-accuracies", "With teacher forcing 99 % of all tokens are right. "
             "Now the trained model answers by itself. Are more whole answers right than with "
             "teacher forcing?", (
        Answer("Yes: it can correct itself.",
               "It can't take anything back, and one wrong token makes the answer wrong."),
        Answer("No: exactly those whose tokens are all right with teacher forcing.",
               "Up to the first wrong token it reads the same tokens in both. So a whole answer is "
               "right in both cases or in neither; and 99 % right tokens make far fewer right answers."),
        Answer("No, fewer: its mistakes add up.",
               "After the first mistake the answer is wrong already; later ones don't count.")), 1,
             "an answer is right exactly when"),
    Question("cheating", "broken-on-purpose", "A model without the causal mask has a better loss and "
             "more right tokens than the right model. Is it better?", (
        Answer("Yes: it sees more and so learns more.",
               "It sees the very tokens that it has to guess."),
        Answer("Only a test on new sequences can tell.",
               "New sequences don't help while they are measured with teacher forcing: the answer is "
               "still in the input."),
        Answer("No: with teacher forcing it copies what it should guess; when it answers by itself, there is "
               "nothing to copy.",
               "In training the answer is in its input. When it has to answer, its input holds only "
               "what it wrote itself.")), 2,
             "the model beats the right one with teacher forcing"),
)

TERMS = (
    Term("teacher forcing", "",
         "the decoder writes one token after the other and, while learning, is told all tokens before "
         "the one it has to guess (teacher forcing)"),
    Term("BOS", "teacher-forcing",
         "So its input is the answer shifted by one place, with BOS (beginning of sequence) in front, "
         "and the target ends in EOS (end of sequence)."),
    Term("EOS", "teacher-forcing",
         "So its input is the answer shifted by one place, with BOS (beginning of sequence) in front, "
         "and the target ends in EOS (end of sequence)."),
    Term("label smoothing", "loss",
         "With label smoothing the target q has a little probability on every token; then even a "
         "perfect model's loss is the entropy −Σ q·log q, not 0."),
    Term("Adam", "adam",
         "Adam divides each number of the gradient by its usual size: a step is about the learning "
         "rate at first, and smaller where recent gradients disagree"),
    Term("clipping", "the-loop",
         "If the gradient of all parameters together is longer than 1, it is shortened to length 1 "
         "(clipping)."),
    Term("exact match", "training",
         "“exact match” is the fraction of whole answers that are right."),
    Term("free-running", "training",
         "free-running: the model reads what it wrote itself."),
)

EXERCISES = {
    "Transformer": Exercise(3, 60,
        guide={
            "__init__": ["one TokenEmbedding, for source, target and output", "positions as the config says",
                         "an Encoder and a Decoder of the config's sizes",
                         "the gain of the last LayerNorm starts at d_model^−½"],
            "encode": ["embed the source", "run the encoder with the source's padding mask"],
            "decode": ["the causal mask of the target, from `start` on", "embed the target from `start` on",
                       "run the decoder on it and the memory", "logits with the embedding's matrix"],
            "embed": ["look up the tokens", "add the positions, from `start` on", "dropout, in training only"],
        },
        hints={
            "pre_norm": (
                "The model is lesson 4's two stacks between one embedding and its transpose; only the masks are new.",
                "logits = decoder(embed(tgt), encoder(embed(src), src_mask), causal, src_mask) · Eᵀ",
                "return self.embedding.logits(self.decoder(___, memory, ___, src_mask))"),
            "post_norm": (
                "With post-norm every block ends in a norm, so the stacks have none after their last block.",
                "norm goes to Encoder and Decoder as it is",
                "Encoder(n_layers, width, n_heads, d_ff, dropout, ___, activation, rotary)"),
            "hides_the_future": (
                "The logits at a place may depend on the tokens up to that place, but not on later ones.",
                "mask[i, j] = (j ≤ i), for the decoder's attention to itself",
                "causal_mask(___, tgt.device)[start:]"),
            "obeys_positions": (
                "Without positions attention can't tell two orders apart, so each kind has to be built.",
                "sinusoidal and learned are added to the embedding; rotary goes into the attentions",
                "rotary = RotaryPositionalEncoding(width // ___, max_len)"),
            "counts_from_start": (
                "Lesson 6 gives one new token at a time; its position is `start`, not 0.",
                "token number i of tgt has position start + i",
                "self.embed(tgt, ___) and causal_mask(start + tgt.shape[1], …)[___:]"),
            "begins_near_guessing": (
                "The residual paths carry a token's own embedding to the output, which then repeats the token.",
                "gain = d_model^−½ in the last LayerNorm: even guesses have the loss ln V",
                "nn.init.constant_(___.gain, width ** ___)"),
            "drops_embeddings": (
                "Section 5.4: dropout is also applied to embedding + position, in both stacks.",
                "x = dropout(embedding + position), only where self.training",
                "F.dropout(x, self.config.dropout, ___)"),
        }),
    "teacher_forcing": Exercise(1, 10,
        guide={"": ["the input: BOS in front of each answer", "the target: EOS after each answer",
                    "pad both at the end to the longest"]},
        hints={
            "input_begins_with_bos": (
                "The first token has to be guessed from something: from BOS.",
                "input = BOS y_1 … y_n, then PAD",
                "pad([[___, *answer] for answer in answers])"),
            "target_ends_in_eos": (
                "At each place the target is the token after the input token; the last target is EOS.",
                "target = y_1 … y_n EOS, then PAD",
                "pad([[*answer, ___] for answer in answers])"),
        }),
    "sequence_loss": Exercise(2, 20,
        guide={"": ["log-probabilities of all tokens, (B, T, V)", "the right token's, (B, T)",
                    "smoothing adds a part of the mean over all tokens", "0 where the target is PAD; add up"]},
        hints={
            "loss_equals_pytorch": (
                "Each real token costs −log of the right token's probability. Add these up; don't take the mean.",
                "loss = −Σ log softmax(logits)[target], over all places whose target isn't PAD",
                "log_probs.gather(-1, targets[..., ___])[..., 0], then masked_fill(targets == PAD, ___)"),
            "smooths_labels": (
                "The target spreads ε evenly over all V tokens and gives 1 − ε more to the right one.",
                "(1 − ε) · (−log P(right)) + ε · (mean over V of −log P)",
                "loss - label_smoothing * log_probs.___(dim=-1)"),
            "loss_gradients_equal_pytorch": (
                "Everything between logits and loss has to stay in PyTorch.",
                "∂loss/∂logits = softmax(logits) − target",
                "no .detach(), .item() or NumPy around ___"),
            "is_the_sum_of_the_single_ones": (
                "The other sequences of a batch must not change the loss of a sequence.",
                "loss(batch) = Σ loss(sequence)",
                "….sum(), and no division by ___"),
            "ignores_padding": (
                "A place whose target is PAD does not count, so its logits have gradient 0.",
                "factor 0 where target = PAD",
                "loss.masked_fill(targets == ___, 0.0)"),
            "lowest_is_the_entropy": (
                "The loss is lowest where softmax(logits) is the target itself.",
                "then loss = −Σ q · log q, with q = ε/V, and 1 − ε + ε/V on the right token",
                "the even part is over all V tokens, the right one ___"),
        }),
    "Adam": Exercise(2, 30,
        guide={"step": ["for each parameter that has a gradient:", "update the mean of the gradient",
                        "update the mean of its square", "divide each by 1 − βᵗ, t counted from 1",
                        "shrink the parameter by lr · weight_decay",
                        "subtract lr · mean / (√square + eps)"]},
        hints={
            "first_step": (
                "Both means start at 0, so in the first step they are too small by a known factor.",
                "mean = (1 − β₁) · g; corrected: mean / (1 − β₁¹) = g; the step is lr · g / (|g| + ε)",
                "mean / (1 - beta1 ** ___), with the steps counted from 1"),
            "fifty_steps": (
                "The running means continue from step to step, so keep them for each parameter.",
                "mean ← β₁ · mean + (1 − β₁) · g; square ← β₂ · square + (1 − β₂) · g²",
                "self.state[parameter] holds steps, ___ and ___"),
            "honours_betas_and_eps": (
                "β₁, β₂ and ε are arguments: use them everywhere.",
                "√square + ε, with ε outside the root",
                "beta1, beta2 = group[___]"),
            "decays": (
                "AdamW shrinks the weights themselves; the decay never enters the gradient.",
                "θ ← θ · (1 − lr · λ), then the step",
                "parameter.mul_(1 - lr * ___) before parameter.sub_(…)"),
        }),
    "learning_rate": Exercise(1, 15,
        guide={"": ["n = step + 1", "inverse_sqrt: the formula of section 5.3",
                    "linear: n / warmup on the way up", "then down to 0 at `steps`",
                    "the smaller of the two, and never a division by 0"]},
        hints={
            "rises_and_falls": (
                "The rate follows two straight lines; at each step the lower one counts.",
                "lr · min((step + 1) / warmup, (steps − step) / (steps − warmup), 1)",
                "training.lr * min(n / ___, ___ / (training.steps - training.warmup), 1.0)"),
            "follows_the_paper": (
                "Section 5.3, with steps counted from 1.",
                "d_model^−½ · min(n^−½, n · warmup^−3/2)",
                "d_model ** -0.5 * min(n ** ___, n * warmup ** ___)"),
            "survives_any_warm_up": (
                "warmup may be 0, and steps may be fewer than warmup: neither divisor may be 0 or negative.",
                "max(1, warmup) and max(1, steps − warmup)",
                "warmup = max(1, training.___)"),
        }),
}

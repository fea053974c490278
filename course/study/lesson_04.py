"""What is said about lesson 4: questions, glossary terms, exercises with their guided steps and hints."""

from course.study.saying import Answer, Exercise, Question, Term

FILE = "my_block.py"  # a learner's own, of --template

QUESTIONS = (
    Question("bare", "residual-paths", "Twelve bare blocks have the usual initial weights, but neither "
             "paths nor norms. What becomes of the gradient on its way back?", (
        Answer("It gets through: each layer is trained for that.",
               "These are new layers; each multiplies the gradient, and here by less than 1."),
        Answer("It shrinks block after block, to almost nothing.",
               "Each layer multiplies it: by less than 1 with the usual weights, by more with doubled ones. "
               "A path adds 1 to the derivative, so that something always gets past."),
        Answer("It grows block after block: it explodes.",
               "That happens with doubled weights.")), 1,
             "without path or norm the gradient vanishes"),
    Question("batch-or-layer", "layer-norm", "LayerNorm normalises over the numbers of one token, BatchNorm "
             "over all tokens of a batch. In training, a sentence gets another neighbour in its batch, or "
             "other padding. Which norm's output at real tokens changes?", (
        Answer("Both change: each divides by a measured spread.",
               "LayerNorm measures it over the numbers of the token itself."),
        Answer("LayerNorm's.",
               "It uses only the token's own numbers."),
        Answer("BatchNorm's.",
               "It takes mean and variance over all tokens of the batch, neighbours and padding "
               "included.")), 2,
             "BatchNorm: another neighbour and other padding both change"),
    Question("thinking-apart", "feed-forward", "The feed-forward network gets all positions of a "
             "sentence at once, then one after the other. Are the outputs the same?", (
        Answer("No: at once it can compare the tokens.",
               "Nothing in it mixes positions; that is what attention is for."),
        Answer("Yes: it works on each token by itself.",
               "It is one function, applied at each position separately. Only attention moves "
               "information between tokens."),
        Answer("Only for sentences of equal length.",
               "The length plays no part: each position is computed separately.")), 1,
             "the network gives the same output for all positions at once"),
    Question("warm-up", "pre-or-post", "Two blocks are trained at a high rate, 0.02, without a warm-up. "
             "Do they learn with pre-norm or with post-norm?", (
        Answer("Pre-norm.",
               "It leaves the path free, and learns with and without a warm-up. Post-norm needs smaller "
               "first steps here. (The next step can't settle why.)"),
        Answer("Both: the norms keep everything in bounds.",
               "With post-norm the path itself passes through every norm, and at this rate "
               "training fails."),
        Answer("Post-norm, the paper's.",
               "It learns at low rates; at this rate it needs at least a warm-up.")), 0,
             "at 0.02 pre-norm learns with and without"),
)

TERMS = (
    Term("layer", "",
         "A layer is attention, or a small network that works on each token by itself, with a path past "
         "it (residual) and a normalisation.", ("layers",)),
    Term("block", "",
         "A block is two such layers, or three in the decoder; a stack is several blocks", ("blocks",)),
    Term("stack", "",
         "A block is two such layers, or three in the decoder; a stack is several blocks", ("stacks",)),
    Term("residual path", "residual-paths",
         "The derivative of x + layer(x) is 1 + the derivative of layer(x): the 1 passes the gradient on "
         "unchanged.",
         ("residual paths",)),
    Term("layer normalisation", "layer-norm",
         "Each token's vector gets mean 0 and variance 1, then a learned gain and bias.", ("LayerNorm",)),
    Term("feed-forward network", "feed-forward",
         "The feed-forward network computes with one token at a time: a matrix makes its vector four "
         "times as wide, a nonlinear activation changes each number, and a second matrix narrows the "
         "vector again.",
         ("feed-forward",)),
    Term("GELU", "feed-forward",
         "GELU is a smooth relative of ReLU: x times the probability that a standard normal number is "
         "smaller than x."),
    Term("pre-norm", "pre-or-post",
         "Pre-norm normalises what goes into a layer, x = x + layer(LayerNorm(x)), and leaves the path "
         "free."),
    Term("post-norm", "pre-or-post",
         "Post-norm, as in the paper's text, normalises after adding: x = LayerNorm(x + layer(x))."),
    Term("warm-up", "pre-or-post",
         "With a warm-up the first steps, here 80, are smaller (section 5.3)."),
)

BLOCK_HINTS = {
    "drops_layers": (
        "Dropout comes last in a layer: some numbers of its answer are set to 0 before x is added.",
        "x + dropout(layer(norm(x))), dropout only in training",
        "x = x + F.dropout(y, ___, self.training)"),
    "has_right_gradients": (
        "Every parameter must be used once, and gradients must flow from output to input.",
        "∂L/∂x = ∂L/∂y · (1 + ∂layer/∂x): the 1 is the path",
        "no .detach(), .data or in-place x += ___"),
    "rotates": (
        "Rotary positions belong in the attention. Lesson 3 has an attention that takes the rotation.",
        "self-attention: RotaryAttention if there is a rotation, otherwise MultiHeadAttention",
        "MultiHeadAttention(d_model, n_heads, dropout) if rotary is None else RotaryAttention(___, rotary)"),
}

EXERCISES = {
    "layer_norm": Exercise(1, 10,
        guide={"": ["the mean of the last axis, kept as an axis of size 1",
                    "the variance: the mean of the squared differences from it",
                    "subtract the mean, divide by the root of variance + eps", "times gain, plus bias"]},
        hints={
            "formula_equals_pytorch": (
                "Every token is brought to mean 0 and variance 1 by itself, from its own numbers only.",
                "gain · (x − mean) / √(variance + eps) + bias, the variance divided by D",
                "variance = (x - mean).square().mean(dim=___, keepdim=___)"),
            "formula_handles_small_variance": (
                "Where the variance is tiny, eps decides; so its place matters.",
                "√(variance + eps), not √variance + eps",
                "torch.sqrt(variance + ___)"),
            "formula_honours_eps": (
                "eps is an argument: the caller chooses it.",
                "√(variance + eps)",
                "use the name eps, not the number ___"),
            "formula_has_right_gradients": (
                "Mean and variance depend on x as well, and gradients flow through both.",
                "∂L/∂x has three parts: through x, through the mean, through the variance",
                "no .detach(), .item() or torch.no_grad() around ___"),
        }),
    "LayerNorm": Exercise(1, 10,
        guide={"__init__": ["two nn.Parameter of d_model numbers: the gain of ones, then the bias of zeros",
                            "keep eps"],
               "forward": ["your layer_norm, with gain, bias and eps"]},
        hints={
            "norm_equals_pytorch": (
                "The class keeps gain and bias; the formula is layer_norm.",
                "gain · (x − mean) / √(variance + eps) + bias",
                "return layer_norm(x, self.___, self.___, self.___)"),
            "norm_handles_small_variance": (
                "Where the variance is tiny, eps decides; so its place matters.",
                "√(variance + eps), not √variance + eps",
                "torch.sqrt(variance + ___)"),
            "norm_honours_eps": (
                "The eps given when the module is made has to reach the formula.",
                "√(variance + eps)",
                "self.eps = ___, and in forward() … self.eps"),
            "norm_starts_neutral": (
                "At first gain and bias should change nothing.",
                "gain = 1, bias = 0",
                "nn.Parameter(torch.___(d_model)), nn.Parameter(torch.___(d_model))"),
            "norm_has_right_gradients": (
                "Gain and bias are learned: both are parameters, and both are used.",
                "∂L/∂gain = Σ ∂L/∂y · normalised x, ∂L/∂bias = Σ ∂L/∂y",
                "self.gain = nn.___(torch.ones(d_model))"),
        }),
    "gelu": Exercise(1, 5,
        guide={"": ["Φ(x), the probability that a standard normal number is smaller than x, by torch.erf",
                    "x times Φ(x)"]},
        hints={
            "gelu_equals_pytorch": (
                "Multiply each number by the probability that a normal number is smaller.",
                "x · Φ(x), Φ(x) = (1 + erf(x / √2)) / 2",
                "x * 0.5 * (1 + torch.erf(x / ___))"),
            "gelu_has_right_gradient": (
                "erf has a gradient in PyTorch; math.erf and NumPy have none.",
                "d/dx x·Φ(x) = Φ(x) + x·φ(x)",
                "torch.___(x / math.sqrt(2))"),
        }),
    "FeedForward": Exercise(1, 15,
        guide={"__init__": ["nn.Linear from d_model to d_ff, called expand",
                            "nn.Linear from d_ff to d_model, called contract", "keep dropout and activation"],
               "forward": ["expand", "the activation: GELU or ReLU", "dropout, only in training", "contract"]},
        hints={
            "feed_forward_equals_pytorch": (
                "A wider layer, an activation, and back to the old width.",
                "W_2·gelu(W_1·x + b_1) + b_2",
                "self.contract(F.gelu(self.___(x)))"),
            "knows_relu": (
                "The paper's activation is ReLU; the argument decides.",
                "max(0, x) where activation is \"relu\"",
                "F.relu if self.activation == ___ else F.gelu"),
            "drops_activations": (
                "Dropout acts on the numbers of the wide layer, before the second matrix.",
                "W_2·dropout(activation(…)) + b_2: with dropout 1.0 only b_2 is left",
                "self.contract(F.dropout(___, self.dropout, self.training))"),
            "works_by_position": (
                "nn.Linear works on the last axis, so tokens don't mix.",
                "(…, L, D) → (…, L, d_ff) → (…, L, D)",
                "no mean, softmax or transpose over ___"),
        }),
    "EncoderBlock": Exercise(2, 25,
        guide={"__init__": ["self_attention: lesson 2's, or lesson 3's RotaryAttention if rotary is given",
                            "a LayerNorm", "feed_forward", "a second LayerNorm"],
               "forward": ["pre-norm: x + dropout(self_attention(h, h, h, mask)), h = norm(x)",
                           "post-norm: norm(x + dropout(self_attention(x, x, x, mask)))",
                           "the same around feed_forward"]},
        hints={
            "encoder_pre_norm": (
                "Two layers, each with a path past it: attention, then feed-forward. The norm comes first.",
                "x = x + attention(norm_1(x)); x = x + feed_forward(norm_2(x))",
                "h = self.___(x); x = x + self.self_attention(h, h, h, mask)"),
            "encoder_pre_norm_masked": (
                "The mask goes to the attention as it is: it hides keys, True means may attend.",
                "attention(h, h, h, mask), mask (B, 1, 1, S)",
                "self.self_attention(h, h, h, ___)"),
            "encoder_post_norm": (
                "With post-norm the sum is normalised, so the path passes through the norm.",
                "x = norm_1(x + attention(x)); x = norm_2(x + feed_forward(x))",
                "x = self.___(x + self.self_attention(x, x, x, mask))"),
            "encoder_post_norm_masked": (
                "The mask is the same for pre-norm and post-norm.",
                "attention(x, x, x, mask)",
                "self.self_attention(x, x, x, ___)"),
            "encoder_has_right_gradients": BLOCK_HINTS["has_right_gradients"],
            "encoder_hides_padding": (
                "Keys of the padding get the weight 0 from every query.",
                "mask (B, 1, 1, S): the last axis belongs to the keys",
                "pass the mask on without transposing it: ___"),
            "encoder_drops_layers": BLOCK_HINTS["drops_layers"],
            "encoder_rotates": BLOCK_HINTS["rotates"],
        }),
    "DecoderBlock": Exercise(2, 25,
        guide={"__init__": ["self_attention: lesson 2's, or lesson 3's RotaryAttention if rotary is given",
                            "a LayerNorm", "cross_attention", "a LayerNorm", "feed_forward", "a LayerNorm"],
               "forward": ["self-attention of x, with mask, inside its path and norm",
                           "cross-attention: queries from x, keys and values the memory, with memory_mask",
                           "feed_forward inside its path and norm"]},
        hints={
            "decoder_pre_norm": (
                "Three layers with three norms: look back, look at the source, think.",
                "x + self(n_1(x)); x + cross(n_2(x), memory, memory); x + feed_forward(n_3(x))",
                "self.cross_attention(h, ___, ___, memory_mask)"),
            "decoder_post_norm": (
                "The same three layers; each sum is normalised, and the layers get x itself.",
                "x = norm(x + layer(x, …)), three times",
                "x = self.___(x + self.cross_attention(x, memory, memory, ___))"),
            "decoder_has_right_gradients": BLOCK_HINTS["has_right_gradients"],
            "decoder_hides_the_future": (
                "The causal mask belongs to the self-attention: a token must not see what comes later.",
                "self-attention(h, h, h, mask), mask (T, T)",
                "self.self_attention(h, h, h, ___)"),
            "decoder_hides_source_padding": (
                "The source has its own padding mask, for the cross-attention.",
                "cross-attention(h, memory, memory, memory_mask), memory_mask (B, 1, 1, S)",
                "self.cross_attention(h, memory, memory, ___)"),
            "decoder_drops_layers": BLOCK_HINTS["drops_layers"],
            "decoder_rotates": BLOCK_HINTS["rotates"],
        }),
    "Encoder": Exercise(2, 20,
        guide={"__init__": ["n_layers blocks in an nn.ModuleList called blocks, each made separately",
                            "norm: a LayerNorm with pre-norm, nn.Identity() with post-norm"],
               "forward": ["x through one block after the other, with the mask", "the norm"]},
        hints={
            "encoder_pre_norm": (
                "Each block gets the output of the block before; with pre-norm the last sum is not yet normalised.",
                "x = block(x, mask) for every block, then norm(x)",
                "nn.ModuleList(EncoderBlock(___) for _ in range(n_layers))"),
            "encoder_post_norm": (
                "A post-norm block ends in a norm already.",
                "x = block(x, mask) for every block, and nothing more",
                "self.norm = LayerNorm(d_model) if norm == ___ else nn.Identity()"),
        }),
    "Decoder": Exercise(2, 20,
        guide={"__init__": ["n_layers blocks in an nn.ModuleList called blocks, each made separately",
                            "norm: a LayerNorm with pre-norm, nn.Identity() with post-norm"],
               "forward": ["x through one block after the other, with memory and both masks", "the norm"]},
        hints={
            "decoder_pre_norm": (
                "Every block looks at the same memory; only x is passed on.",
                "x = block(x, memory, mask, memory_mask) for every block, then norm(x)",
                "x = block(x, ___, ___, ___)"),
            "decoder_post_norm": (
                "A post-norm block ends in a norm already.",
                "x = block(x, memory, mask, memory_mask) for every block, and nothing more",
                "self.norm = LayerNorm(d_model) if norm == ___ else nn.Identity()"),
        }),
}

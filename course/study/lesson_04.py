"""What is said about lesson 4: questions, glossary terms, exercises with their guided steps and hints."""

from course.study.saying import Answer, Exercise, Question, Term

FILE = "my_block.py"  # a learner's own, of --template

QUESTIONS = (
    Question("bare", "residual-paths", "Eight bare layers with the usual first weights, without paths "
             "and without norms. What becomes of the gradient on its way back?", (
        Answer("It gets through: each layer is trained for that.",
               "These are new layers; each multiplies the gradient, and here by less than 1."),
        Answer("It shrinks or grows block after block: to nothing, or by thousands.",
               "Each layer multiplies it, by less than 1 or by more, as the first weights happen to be. "
               "A path adds 1 to the derivative, so that something always gets past."),
        Answer("It always shrinks.",
               "With doubled weights it explodes.")), 1,
             "without path and norm the gradient dies"),
    Question("batch-or-layer", "layer-norm", "A sentence stands in a batch with another, and PADs are "
             "added. Whose output for a real token changes: that of LayerNorm, or of BatchNorm in "
             "training?", (
        Answer("Both: each divides by a measured spread.",
               "LayerNorm measures it over the numbers of the token itself."),
        Answer("That of LayerNorm.",
               "It uses nothing but the token's own numbers."),
        Answer("That of BatchNorm.",
               "It takes mean and variance over all tokens of the batch, neighbours and padding "
               "included.")), 2,
             "BatchNorm: both do"),
    Question("thinking-apart", "feed-forward", "The feed-forward network is given all positions of a "
             "sentence at once, then one after the other. Are the outputs the same?", (
        Answer("No: at once it can compare the tokens.",
               "Nothing in it mixes positions; that is what attention is for."),
        Answer("Yes: it works on each token by itself.",
               "It is one function, used at each position alone. Only attention moves information "
               "between tokens."),
        Answer("Only for sentences of one length.",
               "The length never enters: each position is computed alone.")), 1,
             "all positions at once = one by one"),
    Question("warm-up", "pre-or-post", "Two blocks are trained at a high rate, 0.02, without a warm-up. "
             "Which of the two learns: pre-norm or post-norm?", (
        Answer("Pre-norm.",
               "It leaves the path free, and learns with and without a warm-up. Post-norm needs smaller "
               "first steps here. (Why, the next step can't settle.)"),
        Answer("Both: the norms keep everything in bounds.",
               "With post-norm the path itself passes through every norm, and at this rate that "
               "training fails."),
        Answer("Post-norm, the paper's.",
               "It learns at low rates; at this one it needs a warm-up at least.")), 0,
             "at 0.02 pre-norm learns with and without"),
)

TERMS = (
    Term("layer", "",
         "A layer is attention, or a small network that works on each token by itself, with a path past "
         "it (residual) and a normalisation.", ("layers",)),
    Term("block", "",
         "A block is two such layers, in the decoder three; a stack is several blocks", ("blocks",)),
    Term("stack", "",
         "A block is two such layers, in the decoder three; a stack is several blocks", ("stacks",)),
    Term("residual path", "residual-paths",
         "The derivative of x + layer(x) is 1 + that of the layer: a gradient gets past in any case.",
         ("residual paths",)),
    Term("layer normalisation", "layer-norm",
         "Each token's vector gets mean 0 and variance 1, then a learned gain and bias.", ("LayerNorm",)),
    Term("feed-forward network", "feed-forward",
         "The feed-forward network computes with one token at a time: a matrix makes its vector four "
         "times as wide, an activation bends each number, a second matrix makes it narrow again.",
         ("feed-forward",)),
    Term("GELU", "feed-forward",
         "GELU is its smooth relative: x times the probability that a standard normal number is smaller "
         "than x."),
    Term("pre-norm", "pre-or-post",
         "Pre-norm normalises what goes into a layer, x = x + layer(LayerNorm(x)), and leaves the path "
         "free."),
    Term("post-norm", "pre-or-post",
         "Post-norm, the paper's text, normalises after adding: x = LayerNorm(x + layer(x))."),
    Term("warm-up", "pre-or-post",
         "A warm-up begins with smaller steps (section 5.3), here the first 80."),
)

EXERCISES = {
    "layer_norm": Exercise(1, 10),
    "LayerNorm": Exercise(1, 10),
    "gelu": Exercise(1, 5),
    "FeedForward": Exercise(1, 15),
    "EncoderBlock": Exercise(2, 25),
    "DecoderBlock": Exercise(2, 25),
    "Encoder": Exercise(2, 20),
    "Decoder": Exercise(2, 20),
}

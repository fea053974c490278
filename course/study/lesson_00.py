"""What is said about lesson 0: questions, glossary terms, exercises with their guided steps and hints."""

from course.study.saying import Answer, Exercise, Question, Term

FILE = "my_foundations.py"  # a learner's own, of --template

QUESTIONS = (
    Question("n-by-n", "broadcasting", "A network's predictions have the shape (N,), the targets "
             "(N, 1). You subtract them and train on the mean of the squares. What happens?", (
        Answer("An error: the shapes differ.",
               "Aligned right, (N,) counts as (1, N), and a size of 1 is stretched. No shape is wrong."),
        Answer("The same as with two shapes (N,).",
               "That would be N differences. Here there are N × N."),
        Answer("It trains without an error, and learns almost nothing about x.",
               "Every prediction is compared with every value. So for each x the best prediction is the "
               "mean of all values.")), 2,
             "with (N,) − (N, 1) the slope is 0, and no error is raised"),
    Question("used-twice", "chain-rule", "A value is used in two places of a computation. Two gradients "
             "come back to it. What is its gradient?", (
        Answer("The later one: it replaces the earlier one.",
               "Then one of its two effects on the loss would be lost."),
        Answer("Their sum.",
               "If the value moves, the loss moves through both uses, and for small moves the effects add up."),
        Answer("Their mean.",
               "Each use has its own effect, and both count in full.")), 1,
             "the sum over both uses"),
    Question("two-without-tanh", "two-layers", "You stack two linear layers with nothing between them. "
             "What can they do that one can't?", (
        Answer("Nothing: two matrices in a row are one matrix.",
               "(x·A)·B = x·(A·B). Two layers can do more than one only if a function between them "
               "bends the numbers."),
        Answer("Separate points that no straight line separates.",
               "Two linear maps in a row are still linear; nothing bends the line."),
        Answer("The same as with a tanh between them, but they learn more slowly.",
               "Training doesn't help: whatever the two matrices are, their product is one matrix.")), 0,
             "without tanh two layers equal one"),
    Question("neighbours-gone", "embeddings", "Vectors of words are learned by guessing each word's "
             "neighbours. You shuffle all words of the text. Do words of one class still get "
             "similar vectors?", (
        Answer("Yes: every word occurs in the text as often as before.",
               "How often a word occurs says little about its class; its neighbours say more."),
        Answer("No: only their neighbours made them alike.",
               "In random order all words have the same neighbours, so nothing tells the classes apart."),
        Answer("Yes, if you train for longer.",
               "Training can't find what is no longer in the text.")), 1,
             "shuffled words: less than"),
    Question("it-learns", "broken-on-purpose", "A network trains. The loss falls, and new points get the "
             "right class. Is the gradient right?", (
        Answer("Yes: a wrong gradient wouldn't lead downhill.",
               "A gradient that points roughly downhill is enough for that."),
        Answer("Yes, if the points are new.",
               "New points show that the network is useful, not that its gradient was right."),
        Answer("Not necessarily: a network can also learn from a wrong gradient.",
               "With most of the mistakes below, nearly all points still come out right. So compare "
               "gradients with numbers that are known to be right.")), 2,
             "95 % of new points still get the right class"),
)

TERMS = (
    Term("loss", "",
         "a number that says how wrong the answer was (the loss)", ("losses",)),
    Term("gradient", "",
         "the gradient: for each weight, by how much the loss moves when the weight does.", ("gradients",)),
    Term("broadcasting", "broadcasting",
         "Write the shapes one below the other, aligned right. Where a shape is shorter, a missing size "
         "counts as 1, and a size of 1 is stretched to the other."),
    Term("bias", "linear-layer",
         "A layer turns a row of numbers x into x·W + b: one matrix, one row b (the bias), broadcast over a "
         "batch of rows.", ("biases",)),
    Term("chain rule", "derivatives",
         "The chain rule: if one function is inside another, their derivatives multiply."),
    Term("hidden state", "cells",
         "A recurrent network reads one token, such as a word, after another, and carries all that it knows in "
         "one vector, the hidden state.", ("hidden states", "recurrent")),
    Term("gate", "cells",
         "A gate is a factor from 0 to 1 for each number of the memory", ("gates",)),
    Term("LSTM", "cells",
         "LSTM adds a memory and three gates: input (let in), forget (keep), output (show)"),
    Term("convolution", "convolution",
         "A convolution looks at a few neighbours at once, here a token and the two before it, with the same "
         "weights everywhere.", ("convolutions",)),
)

EXERCISES = {
    "broadcast_shapes": Exercise(1, 15,
        guide={"": ["put 1s in front of the shorter shapes", "column by column, the sizes other than 1",
                    "none left: 1; one left: that size; several: ValueError with the shapes"]}),
    "Value": Exercise(3, 60,
        guide={"__init__": ["data as a float64 array, grad as zeros of its shape", "keep the last two arguments"],
               "__mul__": ["lift() makes a Value of a number or an array", "a new Value with both as its parents",
                           "each parent's gradient: the incoming gradient times the other's data"],
               "backward": ["refuse more than one number", "sort: each value after those it was computed from",
                            "set the inner gradients to 0, this number's to 1",
                            "from this value back: each passes a gradient to each parent, which adds it, summed "
                            "over stretched axes"]}),
    "two_layer_backward": Exercise(2, 30,
        guide={"": ["forward: hidden, logits, softmax (subtract each row's largest logit first), loss",
                    "d_logits: softmax − 1 at the label, divided by the number of rows",
                    "w2 gets hiddenᵀ·d_logits, b2 the sum over the rows",
                    "d_hidden = d_logits·w2ᵀ; through tanh: times 1 − hidden²",
                    "w1 gets xᵀ times that, b1 the sum over the rows"]}),
    "RNNCell": Exercise(1, 10,
        guide={"__init__": ["super().__init__(n_inputs, n_hidden, blocks=1) makes the weights"],
               "forward": ["zeros if there is no state", "both products, each with its bias", "tanh of the sum"]}),
    "LSTMCell": Exercise(2, 20,
        guide={"__init__": ["super().__init__(n_inputs, n_hidden, blocks=4) makes the weights"],
               "forward": ["zeros if there is no state", "both products, each with its bias, added",
                           "cut into four blocks: input gate, forget gate, content, output gate",
                           "memory: forget gate · memory + input gate · tanh(content)",
                           "hidden: output gate · tanh(memory)"]}),
    "GRUCell": Exercise(2, 20,
        guide={"__init__": ["super().__init__(n_inputs, n_hidden, blocks=3) makes the weights"],
               "forward": ["zeros if there is no state",
                           "both products, each with its bias, each cut into three blocks",
                           "reset and update gate: σ of the sum of their blocks",
                           "content: tanh(its block of x + reset · its block of h)",
                           "update · hidden + (1 − update) · content"]}),
}

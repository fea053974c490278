"""What is said about lesson 5: questions, glossary terms, exercises with their guided steps and hints."""

from course.study.saying import Answer, Exercise, Question, Term

FILE = "my_training.py"  # a learner's own, of --template

QUESTIONS = (
    Question("start-of-loss", "loss", "A model that has learned nothing chooses among V tokens. How "
             "large is its loss, −log of the probability of the right one?", (
        Answer("About ln V.",
               "Spread evenly, each token has a probability of 1/V, and −log(1/V) = ln V. A first loss "
               "far above says that something is wrong."),
        Answer("About 1.",
               "Then the right token would have a probability of e^−1 = 0.37, which isn't guessing."),
        Answer("Any number: it depends on the first weights.",
               "Ours are chosen so that the first guesses are nearly even.")), 0,
             "the untrained loss is near ln V"),
    Question("count-of-wholes", "two-accuracies", "Of all tokens 99 % are right with teacher forcing, "
             "each after a perfect beginning. The trained model then answers by itself. Where is a "
             "whole answer right?", (
        Answer("In more places: it can correct itself.",
               "It can't take anything back, and one wrong token makes the answer wrong."),
        Answer("Exactly where all of its tokens are right with teacher forcing.",
               "Up to the first wrong token it reads the same tokens in both. So a whole answer is "
               "right for both or for none; 99 % of the tokens are far fewer answers."),
        Answer("In fewer places: its mistakes add up.",
               "After the first mistake the answer is wrong already; later ones don't count.")), 1,
             "an answer is right exactly where"),
    Question("what-is-needed", "attention-patterns", "Sequences of 10 digits, to be reversed. Each of "
             "the decoder's attentions is replaced by what it gives on average at each place. Which one "
             "can't be spared?", (
        Answer("All of them.",
               "All but one can: what they bring depends on the place alone, and a mean for each place "
               "has that."),
        Answer("The last cross-attention: there the digits come in.",
               "Which digit stands there differs from sequence to sequence; no mean can know it."),
        Answer("The self-attentions of the decoder, which know what is written.",
               "To reverse 10 digits it is enough to know the place.")), 1,
             "a mean a place, 10 digits"),
    Question("cheating", "broken-on-purpose", "A model without the causal mask has a better loss and "
             "more right tokens than the right model. Is it better?", (
        Answer("Yes: it sees more and so learns more.",
               "It sees the very tokens that it has to guess."),
        Answer("That can't be told before it is tested on new sequences.",
               "New sequences don't help while they are measured with teacher forcing: the answer still "
               "stands in the input."),
        Answer("No: with teacher forcing it copies what it should guess, and alone it has nothing to "
               "copy.",
               "In training the answer stands in its input. When it has to answer, only what it wrote "
               "itself is there.")), 2,
             ": better than right with teacher forcing"),
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
         "Label smoothing asks for a little probability everywhere; then even a perfect model has a "
         "loss, the entropy of its target."),
    Term("Adam", "adam",
         "Adam divides, number by number, by the gradient's usual size: a step is about the learning "
         "rate at first, and smaller where the last gradients disagree"),
    Term("clipping", "the-loop",
         "if the gradient of all parameters together is longer than 1, it is shortened to 1, its "
         "direction stays (clipping)"),
    Term("exact match", "training",
         "“exact match” is the share of whole answers that are right."),
    Term("free-running", "training",
         "free-running: the model reads what it wrote itself."),
    Term("overfits", "scarce-data",
         "Known sequences are answered more often than new ones: the model overfits.",
         ("overfitting", "overfit")),
)

EXERCISES = {
    "Transformer": Exercise(3, 60),
    "teacher_forcing": Exercise(1, 10),
    "sequence_loss": Exercise(2, 20),
    "Adam": Exercise(2, 30),
    "learning_rate": Exercise(1, 15),
}

"""What is said about lesson 9: questions, glossary terms."""

from course.study.saying import Answer, Exercise, Question, Term

FILE = "my_interpretability.py"  # a learner's own, of --template

QUESTIONS = (
    Question("weight-and-effect", "where-not-why", "A head puts much weight on a word. Does that word have "
             "an effect on the answer?", (
        Answer("The weight doesn't say: another head may remove it again.",
               "Replace the word, and the answer hardly moves, although this head by itself would move it. "
               "The weight says where a head looked, not what came of it."),
        Answer("Yes: what is looked at comes into the answer.",
               "What one head lets in, another can remove again."),
        Answer("No: weights are only for pictures.",
               "The output is computed with them.")), 0,
             "some layers have such looks"),
    Question("what-is-needed", "what-is-needed", "Sequences of 10 digits, to be reversed. Each of "
             "the decoder's attentions is replaced by what it gives on average at each place. Without "
             "which one is hardly any answer right?", (
        Answer("All of them.",
               "All but one can be replaced: their output depends only on the place, and a mean for "
               "each place has that."),
        Answer("The last cross-attention: there the digits come in.",
               "Which digit is at a place differs from sequence to sequence; a mean can't tell."),
        Answer("The self-attentions of the decoder, which know what is written.",
               "To reverse 10 digits it is enough to know the place.")), 1,
             "a mean per place, 10 digits"),
    Question("small-gradients", "what-learns", "The gradient of one block is a hundred times smaller than "
             "that of another. Adam trains both. How far does the first block move?", (
        Answer("A hundred times less far.",
               "That is true of plain gradient descent. Adam divides each gradient by its usual size."),
        Answer("About as far as the other.",
               "Adam divides by the usual size of the gradient, so a constant factor in it cancels."),
        Answer("Not at all.",
               "That happens only where the gradient is near ε, 10⁻⁸.")), 1,
             "the block that moves most moves less than 3 times"),
    Question("few-sequences", "scarce-data", "A model sees the same 200 sequences again and again, for 150 "
             "steps. What gets more new sequences right?", (
        Answer("Dropout 0.1.",
               "In so short a run even fewer of the known sequences are learned with dropout."),
        Answer("Label smoothing 0.1.", "It changes little here."),
        Answer("Weight decay 1.",
               "It gets the most new sequences right here, and in so short a run also more of the known ones.")), 2,
             "weight decay gets more of the new sequences right"),
)

TERMS = (
    Term("ablation", "what-is-needed",
         "So the table takes each attention away (ablation) and counts the answers that are still right."),
    Term("overfits", "scarce-data",
         "More of the known sequences than of the new ones are answered right: the model overfits.",
         ("overfitting", "overfit")),
)

EXERCISES: dict[str, Exercise] = {}

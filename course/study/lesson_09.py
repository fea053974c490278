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
               "What one head brings in, another can remove again."),
        Answer("No: weights are only for pictures.",
               "The output is computed with them.")), 0,
             "some layers have such looks"),
    Question("what-is-needed", "what-is-needed", "Sequences of 10 digits, to be reversed. Each of "
             "the decoder's attentions is replaced by what it gives on average at each place. Which one "
             "can't be spared?", (
        Answer("All of them.",
               "All but one can: what they bring depends on the place alone, and a mean for each place "
               "has that."),
        Answer("The last cross-attention: there the digits come in.",
               "Which digit stands there differs from sequence to sequence; no mean can know it."),
        Answer("The self-attentions of the decoder, which know what is written.",
               "To reverse 10 digits it is enough to know the place.")), 1,
             "a mean per place, 10 digits"),
    Question("small-gradients", "what-learns", "The gradient of one block is a hundred times smaller than "
             "that of another. Adam trains both. How far does the first block move?", (
        Answer("A hundred times less far.",
               "So it is with plain gradient descent. Adam divides each gradient by its usual size."),
        Answer("About as far as the other.",
               "Adam divides by the usual size of the gradient, so a constant factor in it cancels."),
        Answer("Not at all.",
               "That happens only where the gradient is near ε, 10⁻⁸.")), 1,
             "the block that moves most moves less than 3 times"),
    Question("few-sequences", "scarce-data", "A model sees the same 200 sequences again and again, for 150 "
             "steps. What gets more new sequences right?", (
        Answer("Dropout 0.1.",
               "In so short a training it costs so much that fewer of the known ones are learned, too."),
        Answer("Label smoothing 0.1.", "It changes little here."),
        Answer("Weight decay 1.",
               "It brings the most new ones here, and in so short a run more of the known ones.")), 2,
             "weight decay brings more of the new ones"),
)

TERMS = (
    Term("ablation", "what-is-needed",
         "So the table takes each attention away (ablation) and counts the answers that are still right."),
    Term("overfits", "scarce-data",
         "Known sequences are answered more often than new ones: the model overfits.",
         ("overfitting", "overfit")),
)

EXERCISES: dict[str, Exercise] = {}

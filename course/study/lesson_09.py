"""What is said about lesson 9: questions, glossary terms, exercises with their guided steps and hints."""

from course.study.saying import Answer, Exercise, Question, Term

FILE = "my_interpretability.py"  # a learner's own, of --template

QUESTIONS = (
    Question("small-gradients", "what-learns", "The gradient of one block is a hundred times smaller than "
             "that of another. Adam trains both. How far does the first block move?", (
        Answer("A hundred times less far.",
               "That is true of plain gradient descent. Adam divides each gradient by its usual size."),
        Answer("About as far as the other.",
               "Adam divides by the usual size of the gradient, so a constant factor in it cancels."),
        Answer("Not at all.",
               "That happens only where the gradient is near ε, 10⁻⁸.")), 1,
             "the block that moves most moves less than 3 times"),
    Question("what-is-needed", "what-is-needed", "Sequences of 10 digits, to be reversed. Each of "
             "the decoder's attentions is replaced by what it gives on average at each place. Without "
             "which one is hardly any answer right?", (
        Answer("All of them.",
               "All but one can be replaced: their output depends mostly on the place, and a mean for "
               "each place has that."),
        Answer("The last cross-attention: there the digits come in.",
               "Which digit is at a place differs from sequence to sequence; a mean can't tell."),
        Answer("The self-attentions of the decoder, which know what is written.",
               "To reverse 10 digits it is nearly enough to know the place.")), 1,
             "with a mean per place for the last cross-attention"),
    Question("zero-or-mean", "what-is-needed", "With 0 in place of an attention's output hardly any answer is "
             "right. What do you know?", (
        Answer("The answer needs what this attention looks at.",
               "Perhaps, but 0 also takes away what is the same for every input."),
        Answer("The attention can be left out.", "The answers became wrong."),
        Answer("Not yet whether its content is needed: try its mean.",
               "The mean keeps what is the same for every input. For one attention here it is enough.")), 2,
             "one mean for the encoder's first attention leaves"),
    Question("all-harmless-heads", "which-head-can-go", "Several heads can go, one at a time, and the answers "
             "stay right. All of these heads go at once. What happens?", (
        Answer("The answers stay right.", "That holds if no head does the work of another."),
        Answer("Most answers become wrong.",
               "Each can be spared as long as the others are there; all of them can't."),
        Answer("The answers become better.", "Nothing was learned after the heads were taken away.")), 1,
             "without all removable heads at once less than half"),
    Question("read-and-unused", "what-is-written", "A probe finds in a part, in 100 of 100 cases, which digit "
             "the decoder has just read. Does the rest of the model use it there?", (
        Answer("Yes: what a probe can read is used.",
               "The probe finds it on an untrained model, too: the residual path carries the embedding."),
        Answer("The probe doesn't say: take it away, and count the right answers.",
               "Here most digits are right without it."),
        Answer("No: a probe finds only what is unused.", "The encoder's digit is found as well, and needed.")),
             1, "without the digit just read over 70 %"),
    Question("perfect-and-useless", "clinic", "A training has a very low loss with teacher forcing, but no "
             "answer of its own is right. If the last token of the decoder's input is exchanged, earlier "
             "logits move. What is wrong?", (
        Answer("The inputs aren't shifted.", "Then the model repeats what it reads, and earlier logits stay."),
        Answer("The causal mask is missing.",
               "Earlier places see later tokens, so they see the one that they should say."),
        Answer("The labels are shuffled.", "Then the loss would stay high.")), 1,
             "the instruments name each of the seven sicknesses"),
    Question("no-spread", "clinic", "A training goes well, but slower than usual. The output of one layer is "
             "the same for all tokens, although its weights have moved. What is wrong?", (
        Answer("The layer is frozen.", "Then its weights would not have moved."),
        Answer("The rate is too high.", "Then the steps would be large relative to the weights."),
        Answer("The layer is dead: its hidden numbers are 0, and only its last bias learns.",
               "A constant is all that it can still pass on.")), 2,
             "the instruments name each of the seven sicknesses"),
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
         "An ablation takes the content of a part's output away.", ("ablations",)),
    Term("logit lens", "where-decided",
         "So the last norm and the embedding can read logits off the path after any block, as if the model "
         "ended there: the logit lens."),
    Term("patch", "where-it-is",
         "A patch shows where information is: one part passes on, at one place, what it passed on in another "
         "run.", ("patched", "patching"), only_there=True),
    Term("probe", "what-is-written",
         "A probe is a linear map, fitted to read something off a part's output, and tested on other sequences.",
         ("probes",)),
    Term("overfits", "scarce-data",
         "More of the known sequences than of the new ones are answered right: the model overfits.",
         ("overfitting", "overfit")),
)

EXERCISES = {
    "record": Exercise(1, 15,
        guide={"": ["a dictionary", "for each name a forward hook on model.get_submodule(name): it notes the "
                    "output", "yield the dictionary, in try:", "take every hook out, in finally:"]},
        hints={
            "collects_outputs": (
                "A forward hook gets the module, its inputs and its output.",
                "recorded[name] = output",
                "module.register_forward_hook(lambda module, inputs, output: ___)"),
            "last_call_counts": (
                "Each call may write over what was noted before.",
                "no “if name not in recorded”",
                "recorded[name] = ___"),
            "ends_with_the_block": (
                "A hook stays in the model until it is taken out.",
                "try: yield … finally: remove()",
                "for hook in hooks: hook.___()"),
        }),
    "ablated": Exercise(2, 15,
        guide={"": ["zero: zeros of the same shape", "other: roll the batch by one",
                    "mean: the sum over sequences and places of the tokens that count, divided by their number",
                    "place: the same over the sequences only", "expand to the shape of the output"]},
        hints={
            "zero_is_zero": ("Nothing of the output is left.", "0", "torch.zeros_like(___)"),
            "one_mean": (
                "Average over sequences and places, padding left out.",
                "Σ real · output / Σ real",
                "(output * counted).sum((0, 1), keepdim=True) / counted.sum(___, keepdim=True)"),
            "mean_of_each_place": (
                "The same, but each place has a mean of its own.",
                "average over axis 0 only",
                "(output * counted).sum(___, keepdim=True)"),
            "no_nan_where_none_counts": (
                "Don't divide by 0 where every sequence has padding.",
                "at least 1 in the denominator",
                "counted.sum(axes, keepdim=True).clamp(min=___)"),
            "takes_the_other": (
                "Row b gets what row b − 1 had.", "roll by 1 along the batch", "output.roll(___, 0)"),
        }),
    "patch": Exercise(2, 25,
        guide={"": ["record what the part passes on for the donors",
                    "a function that copies an output and exchanges output[rows, places]",
                    "run the model on the inputs, with this function at the part"]},
        hints={
            "patches_one_place": (
                "Each row has its own place.", "output[b, places[b]] = donated[b, places[b]]",
                "output[rows, places] = recorded[name][rows, ___]"),
            "patches_from_another_place": (
                "Where it comes from needn't be where it goes.", "output[b, places[b]] = donated[b, sources[b]]",
                "places if sources is None else ___"),
            "own_output_changes_nothing": (
                "Change a copy, and leave no hook behind.", "clone, then assign",
                "with replace_part(model, name, ___): return model(*inputs)"),
        }),
    "logit_lens": Exercise(2, 15,
        guide={"": ["the names of the stack's blocks", "record what they pass on while the model runs",
                    "for each block: the stack's norm, then model.embedding.logits", "stack the results"]},
        hints={
            "ends_with_the_logits": (
                "The last block is followed by the stack's norm and the embedding.",
                "logits(norm(x))", "model.embedding.logits(norm(___))"),
            "reads_each_block": (
                "Do for every block what the model does for its last.",
                "one entry for each block, in their order", "torch.stack([___ for block in blocks])"),
        }),
    "Probe": Exercise(3, 30,
        guide={"__init__": ["one-hot labels", "subtract the means of vectors and labels",
                            "solve (xᵀx + ridge · N · I) · W = xᵀ · labels"],
               "__call__": ["subtract the mean of the vectors, times W, add the mean of the labels"],
               "accuracy": ["the class with the highest score, compared with the labels"]},
        hints={
            "is_ridge_regression": (
                "The normal equations, with a penalty on the diagonal.",
                "W = (xᵀx + λ·N·I)⁻¹ xᵀy, of centred x and y",
                "torch.linalg.solve(x.T @ x + ridge * len(x) * ___, x.T @ wanted)"),
            "finds_what_is_there": (
                "The class with the highest score is the answer.", "argmax over the classes",
                "(self(x).argmax(___) == labels).float().mean().item()"),
            "needs_no_centre": (
                "Centring is a bias without penalty.", "x − mean(x), y − mean(y)",
                "self.centre = x.mean(___)"),
        }),
    "probe_and_controls": Exercise(2, 20,
        guide={"": ["half of the examples to fit, half to test", "shuffle the labels for the first control",
                    "three probes: for the labels, for the shuffled ones, and on the untrained vectors",
                    "the accuracy of each on the second half"]},
        hints={
            "tells_the_three_apart": (
                "The first control keeps the vectors and shuffles the labels.",
                "labels[randperm(N)]", "shuffled = labels[torch.randperm(___)]"),
            "tests_on_others": (
                "With as many dimensions as examples a probe fits anything.",
                "fit on x[:half], test on x[half:]",
                "Probe(x[:half], labels[:half]).accuracy(___, ___)"),
            "looks_at_both": (
                "The second control keeps the labels and takes the vectors of the untrained model.",
                "(x, labels), (x, shuffled), (untrained, labels)",
                "Probe(untrained[:half], labels[:half]).accuracy(___, ___)"),
        }),
}

"""What is said about lesson 9: questions, glossary terms, exercises with their guided steps and hints."""

from course.study.saying import Answer, Exercise, Question, Term

FILE = "my_interpretability.py"  # a learner's own, of --template

QUESTIONS = (
    Question("small-gradients", "what-learns", "The gradient of one block is a hundred times smaller than "
             "the gradient of another. Adam trains both. How far does the first block move?", (
        Answer("A hundredth as far.",
               "That is true of plain gradient descent. Adam divides each gradient by its usual size."),
        Answer("About as far as the other.",
               "Adam divides by the usual size of the gradient, so a constant factor in it cancels."),
        Answer("Not at all.",
               "That happens only where the gradient is near ε, 10⁻⁸.")), 1,
             "the block that moves most moves less than 3 times"),
    Question("what-is-needed", "what-is-needed", "A model reverses sequences of 10 digits. One at a time, "
             "each of the decoder's attentions is replaced by its mean at each place. Without "
             "which one is hardly any answer right?", (
        Answer("All of them.",
               "All but one can be replaced: their output depends mostly on the place, and a mean "
               "per place keeps it."),
        Answer("The last cross-attention: this is where the digits come in.",
               "Which digit is at a place differs from sequence to sequence; a mean can't tell which."),
        Answer("The self-attentions of the decoder, which know what has been written.",
               "To reverse 10 digits it is nearly enough to know the place.")), 1,
             "with a mean per place for the last cross-attention"),
    Question("zero-or-mean", "what-is-needed", "With 0 in place of an attention's output hardly any answer is "
             "right. Is this attention needed?", (
        Answer("Yes: the answer needs what this attention looks at.",
               "Perhaps, but 0 also takes away what is the same for every input."),
        Answer("No: the attention can be left out.", "Without it the answers became wrong."),
        Answer("Not yet known: try its mean, which shows whether its content is needed.",
               "The mean keeps what is the same for every input. For one attention here the mean is enough.")), 2,
             "one mean for the encoder's first attention leaves"),
    Question("all-harmless-heads", "which-head-can-go", "Several heads can go, one at a time, and the answers "
             "stay right. Now all of these heads go at once. What happens?", (
        Answer("The answers stay right.", "That holds if no head does the work of another."),
        Answer("Most answers become wrong.",
               "Each can be spared as long as the others are there; all of them together can't."),
        Answer("The answers become better.", "Nothing was learned after the heads were taken away.")), 1,
             "without all removable heads at once under half"),
    Question("read-and-unused", "what-is-written", "In 100 of 100 cases a probe finds in a part's output "
             "which digit the decoder has just read. Does the rest of the model use this information?", (
        Answer("Yes: what a probe can read is used.",
               "It also finds the digit on an untrained model: the residual path carries the embedding."),
        Answer("The probe doesn't say: take the digit away, and count the right answers.",
               "Here most digits stay right without it."),
        Answer("No: a probe finds only what is unused.", "A probe also finds the encoder's digit, which is needed.")),
             1, "without the digit just read over 70 %"),
    Question("perfect-and-useless", "clinic", "A model reaches a very low loss with teacher forcing, but none "
             "of its own answers is right. If you replace the last token of the decoder's input, earlier "
             "logits change. What is wrong?", (
        Answer("The inputs aren't shifted.", "Then the model repeats what it reads, and earlier logits don't move."),
        Answer("The causal mask is missing.",
               "Earlier places see later tokens, so they see the token that they should predict."),
        Answer("The labels are shuffled.", "Then the loss would stay high.")), 1,
             "the instruments name each of the seven sicknesses"),
    Question("no-spread", "clinic", "A training run goes well, but more slowly than usual. The output of one layer is "
             "the same for all tokens, although its weights have moved. What is wrong?", (
        Answer("The layer is frozen.", "Then its weights would not have moved."),
        Answer("The rate is too high.", "Then the steps would be large relative to the weights."),
        Answer("The layer is dead: its hidden numbers are 0, and only its last bias learns.",
               "A constant is all that it can still pass on.")), 2,
             "the instruments name each of the seven sicknesses"),
    Question("few-sequences", "scarce-data", "A model sees the same 200 sequences again and again, for 150 "
             "steps. Which of these gets the most new sequences right?", (
        Answer("Dropout 0.1.",
               "In a run this short, the model with dropout learns fewer even of the known sequences."),
        Answer("Label smoothing 0.1.", "It changes little here."),
        Answer("Weight decay 1.",
               "It gets the most new sequences right here, and in a run this short also more of the known ones.")), 2,
             "weight decay gets more known sequences right"),
)

TERMS = (
    Term("ablation", "what-is-needed",
         "An ablation removes the content of a part's output.", ("ablations",)),
    Term("logit lens", "where-decided",
         "So the last norm and the embedding can read logits off the path after any block, as if the model "
         "ended there: the logit lens."),
    Term("patch", "where-it-is",
         "A patch shows where information is: at one place, one part passes on what it passed on in another "
         "run.", ("patched", "patching"), only_there=True),
    Term("probe", "what-is-written",
         "A probe is a linear map, fitted to read something off a part's output, and tested on other sequences.",
         ("probes",)),
    Term("overfits", "scarce-data",
         "The model answers more of the known sequences right than of the new ones: it overfits.",
         ("overfitting", "overfit")),
)

EXERCISES = {
    "record": Exercise(1, 15,
        guide={"": ["a dictionary", "for each name a forward hook on model.get_submodule(name): it notes the "
                    "output", "yield the dictionary, in try:", "remove every hook, in finally:"]},
        hints={
            "collects_outputs": (
                "A forward hook gets the module, its inputs and its output.",
                "recorded[name] = output",
                "module.register_forward_hook(lambda module, inputs, output: ___)"),
            "last_call_counts": (
                "Each call may overwrite what was noted before.",
                "no “if name not in recorded”",
                "recorded[name] = ___"),
            "ends_with_the_block": (
                "A hook stays in the model until it is removed.",
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
                "Average over sequences and places, leaving padding out.",
                "Σ real · output / Σ real",
                "(output * counted).sum((0, 1), keepdim=True) / counted.sum(___, keepdim=True)"),
            "mean_of_each_place": (
                "The same, but each place has its own mean.",
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
                    "a function that copies an output and replaces output[rows, places]",
                    "run the model on the inputs, with this function at the part"]},
        hints={
            "patches_one_place": (
                "Each row has its own place.", "output[b, places[b]] = donated[b, places[b]]",
                "output[rows, places] = recorded[name][rows, ___]"),
            "patches_from_another_place": (
                "The donors' place may differ from the patched one.", "output[b, places[b]] = donated[b, sources[b]]",
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
                "Do after every block what the model does after its last.",
                "one entry per block, in order", "torch.stack([___ for block in blocks])"),
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
                "Centring acts as an unpenalised bias.", "x − mean(x), y − mean(y)",
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

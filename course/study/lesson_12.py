"""What is said about lesson 12: questions, glossary terms, exercises with their guided steps and hints."""

from course.study.saying import Answer, Exercise, Question, Term

FILE = "my_finetuning.py"  # a learner's own, of --template

QUESTIONS = (
    Question("fresh-adapter", "narrow-path", "A fresh adapter is put next to a trained matrix: A is random, "
             "B is 0. How do the model's answers change?", (
        Answer("They are a little different, because A is random.",
               "What A makes of the input is multiplied by B, which is 0."),
        Answer("They stay the same, bit for bit.",
               "B·A is 0 for every A, so exactly 0 is added."),
        Answer("They are useless until the adapter has learned.",
               "The frozen matrix still does all of the work.")), 1,
             "fresh adapters at all linear maps leave the model's logits unchanged"),
    Question("how-few", "new-task", "A model that reverses digits has to learn to write 9 − d in place "
             "of each d. How many of its parameters have to be trained to get 90 % of the answers right?", (
        Answer("All of them.", "Training all weights works, but it isn't needed."),
        Answer("About half of them.", "Far fewer are enough."),
        Answer("Less than 5 %, in adapters of rank 2.",
               "The base already reverses the order; only the digits that it writes are new.")), 2,
             "adapters of rank 2, with less than 5 % of the parameters"),
    Question("low-rank", "low-rank", "All weights were trained on the new task. Now the update of each "
             "matrix is cut to rank 2. Adapters trained with rank 2 solve the task. Does the cut update solve it as well?", (
        Answer("Yes: both updates have rank 2.",
               "The cut update is what is left of an update that didn't have low rank."),
        Answer("No: less than half of the answers are right.",
               "Training with rank 2 finds another update, one that works with this rank.")), 1,
             "mirror: adapters trained with rank 2 get more than 90 % right"),
    Question("three-bits", "finer-scales", "With 3 bits per weight many answers are wrong. What helps, "
             "without training?", (
        Answer("One scale for the whole model.", "The largest weight of all would then set every matrix's scale."),
        Answer("A scale for each group of 32 weights.",
               "A large weight then spoils only the codes of its own group."),
        Answer("Nothing: 3 bits give only seven codes.",
               "Seven codes with a scale that fits are better than seven with one that is too large.")), 1,
             "3 bits: a scale per row gets at least 5"),
    Question("one-channel", "one-channel", "One column of a matrix is over 100 times as large as any other. The "
             "matrix is quantised to 8 bits with one scale. What happens?", (
        Answer("Only the large column loses precision.",
               "It keeps its precision: its largest value has the code 127."),
        Answer("All other weights get codes near 0.",
               "The large column sets the scale, and the others are at most a few steps from 0."),
        Answer("Nothing: 8 bits are enough for everything.", "They are enough if one scale fits all.")), 1,
             "8 bits: one scale per matrix gets less than half right"),
    Question("through-rounding", "through-rounding", "Rounding has a derivative of 0. How can weights "
             "that are rounded in the forward pass be trained?", (
        Answer("They can't: no gradient comes through.",
               "The straight-through estimator lets it through."),
        Answer("The gradient of the rounded weight is given to the exact weight behind it.",
               "The exact weight moves, and from time to time its rounded value changes."),
        Answer("By trying codes at random.", "There are far too many of them.")), 1,
             "after 60 training steps through rounding, 2 bits"),
)

TERMS = (
    Term("LoRA", "narrow-path",
         "An adapter (LoRA) leaves W as it is and adds a second path from input to output: A turns the I "
         "inputs into r numbers, and B turns these into O outputs."),
    Term("adapter", "narrow-path",
         "An adapter (LoRA) leaves W as it is and adds a second path from input to output", ("adapters",)),
    Term("rank", "narrow-path",
         "The product B·A has as many entries as W, but its rank is at most r, and only r · (I + O) numbers "
         "are trained.", (), True),
    Term("quantisation", "eight-bits",
         "Quantised to 8 bits, a weight is an integer from −127 to 127 (its code), and all weights of a "
         "matrix share one scale: the largest absolute value divided by 127.", ("quantised", "quantising")),
    Term("NF4", "normal-levels",
         "NormalFloat (NF4) rounds to 16 numbers (levels) that are closer together near 0.", ("NormalFloat",)),
    Term("straight-through estimator", "through-rounding",
         "The straight-through estimator rounds in the forward pass, and in the backward pass acts as if it "
         "had not: the gradient of the rounded weight goes to the exact weight, which the optimiser changes."),
    Term("QLoRA", "quantised-base",
         "QLoRA (Dettmers et al. 2023) quantises the frozen base to NF4, and trains adapters (here in "
         "32 bits) next to it."),
)

EXERCISES = {
    "LoRALinear": Exercise(2, 30,
        guide={"__init__": ["ValueError for a rank below 1 or above the smaller side of the matrix",
                            "keep weight and bias of the linear map, and freeze them",
                            "scale = alpha / rank", "down: (rank, in), random; up: (out, rank), zeros"],
               "forward": ["the frozen map's output", "x through down, then through up",
                           "add it, times the scale"],
               "update": ["scale · up @ down"],
               "merged": ["a new nn.Linear of the same size, with a bias if there is one",
                          "its weight: weight + update()"]},
        hints={
            "starts_as_the_base": (
                "If one of the two narrow matrices is 0, their product is 0.",
                "B = 0, so B·A = 0",
                "self.up = nn.Parameter(torch.zeros(___, ___))"),
            "begins_to_learn": (
                "Each narrow matrix gets its gradient through the other: only one of them may be 0.",
                "∂L/∂B contains A·x, ∂L/∂A contains Bᵀ",
                "nn.init.kaiming_uniform_(self.down, a=___)"),
            "adds_the_update": (
                "Go down to r numbers and up to the output, multiply by the scale, add the frozen map's output.",
                "x·Wᵀ + b + α/r · (x·Aᵀ)·Bᵀ",
                "F.linear(x, self.weight, self.bias) + F.linear(self.scale * ___, self.up)"),
            "tells_its_update": (
                "It is the matrix that would have to be added to W.",
                "α/r · B·A, (O, r) times (r, I)",
                "return self.scale * ___ @ ___"),
            "merges": (
                "One plain linear map whose weight is the frozen one plus the update.",
                "W + α/r · B·A, and the same b",
                "linear = nn.Linear(___, ___, bias=self.bias is not None)"),
            "trains_only_the_path": (
                "Weight and bias of the linear map must not require gradients.",
                "trained: r · I + O · r numbers",
                "for parameter in linear.parameters(): parameter.requires_grad_(___)"),
            "refuses_ranks": (
                "The rank of a product can't be larger than the matrix's smaller side.",
                "1 ≤ r ≤ min(I, O)",
                'if not 1 <= rank <= min(___, ___): raise ValueError(f"rank {rank} …")'),
        }),
    "add_adapters": Exercise(2, 20,
        guide={"": ["find all linear maps with their names", "refuse a name that is in no path",
                    "freeze every parameter of the model", "put an adapter in place of each chosen map",
                    "return the model"]},
        hints={
            "leaves_the_answers": (
                "Each linear map is replaced by an adapter around the same map.",
                "adapter(x) = linear(x) at the start",
                "setattr(parent, child, LoRALinear(___, rank, alpha))"),
            "adapts_every_map": (
                "Freeze the whole model first; the adapters that you add afterwards are trained.",
                "Σ r · (I + O) over all linear maps",
                "model.requires_grad_(___)"),
            "adapts_named_maps": (
                "A name counts wherever it is in the path: “inner” chooses both maps inside it.",
                "inner.expand has the parts inner and expand",
                '{*matrices} & {*name.split("___")}'),
            "refuses_other_names": (
                "List the existing names in the message.",
                "names = all parts of all paths",
                'raise ValueError(f"no matrix is called {___}; there are {___}")'),
        }),
    "merge_adapters": Exercise(1, 10,
        guide={"": ["every module with merged() is an adapter", "put what merged() gives in its place",
                    "return the model"]},
        hints={
            "gives_the_same_answers": (
                "Let every adapter merge itself.",
                "W + α/r · B·A",
                "setattr(parent, child, module.merged())"),
            "leaves_plain_maps": (
                "Afterwards no module of the model has an A or a B.",
                "the parameters of the model before it had adapters",
                'if hasattr(module, "merged"): ___'),
        }),
    "quantize": Exercise(2, 25,
        guide={"": ["refuse fewer than 2 or more than 8 bits", "cut each row into groups",
                    "scale: the largest absolute value of a group, divided by top = 2^(bits − 1) − 1",
                    "codes: weight / scale, rounded", "codes as int8 (out, in), scales (out, groups)"]},
        hints={
            "codes_are_right": (
                "The largest weight gets the largest code.",
                "scale = max |W| / (2^(bits − 1) − 1), code = round(W / scale)",
                "(weight / scale).___()"),
            "groups_have_their_scales": (
                "Neighbours in a row share a scale; the last group of a row may be shorter.",
                "a row of 10 in groups of 4: 4, 4 and 2",
                "F.pad(weight, (0, -weight.shape[1] % ___)).unflatten(1, (-1, ___))"),
            "errs_by_half_a_step": (
                "Rounding moves a number by at most half a step.",
                "|W − scale · code| ≤ scale / 2",
                "round, not trunc or floor"),
            "zeros_stay": (
                "A group of zeros would be divided by 0.",
                "scale = 1 where the largest value is 0",
                "largest.masked_fill(largest == 0, ___)"),
            "refuses_bits": (
                "With 1 bit, top would be 0; codes of more than 8 bits don't fit into int8.",
                "2 ≤ bits ≤ 8",
                'if not 2 <= bits <= 8: raise ValueError(f"bits is {bits} …")'),
        }),
    "dequantize": Exercise(1, 10,
        guide={"": ["cut the codes into the same groups", "multiply each group by its scale"]},
        hints={
            "multiplies_back": (
                "Every code is multiplied by the scale of its group.",
                "W ≈ scale · code",
                "scale.repeat_interleave(___, 1)[:, : codes.shape[1]]"),
            "comes_near": (
                "quantize() divided by the scale; multiply by it.",
                "|W − scale · code| ≤ scale / 2",
                "codes * ___"),
        }),
    "normal_levels": Exercise(3, 30,
        guide={"": ["the outermost probability: 1 − (1 / (n − 1) + 1 / n) / 4, for n = 2^bits levels",
                    "n / 2 levels above 0: quantiles of probabilities evenly spaced from there down to "
                    "0.5, without 0.5",
                    "n / 2 − 1 levels below 0, in the same way", "0 between them",
                    "divide by the largest"]},
        hints={
            "equals_the_published": (
                "Take quantiles of the normal distribution, one more above 0 than below.",
                "Φ⁻¹ of evenly spaced probabilities, divided by the largest",
                "torch.special.ndtri(torch.linspace(outermost, 0.5, ___)[:-1])"),
            "has_the_ends": (
                "The levels include −1, 1 and exactly 0.",
                "−1 = level 0 < … < 0 < … < level n − 1 = 1",
                "torch.cat([-below, torch.zeros(1), above.flip(0)]) / ___"),
        }),
}

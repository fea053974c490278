"""What is said about lesson 13: questions, glossary terms, exercises with their guided steps and hints."""

from course.study.saying import Answer, Exercise, Question, Term

FILE = "my_parallelism.py"  # a learner's own, of --template

QUESTIONS = (
    Question("add-small", "formats", "0.001 is added 20,000 times to a number in bfloat16 that starts at 0. "
             "What is the sum?", (
        Answer("About 20.", "That is what float32 gives."),
        Answer("0.5: from there on the sum stays the same.",
               "At 0.5 the distance to the next number is 0.004, and 0.001 is less than half of it."),
        Answer("Infinity.", "bfloat16 has the range of float32; its numbers are just farther apart.")), 1,
             "20,000 additions of 0.001 give 20 within 1 % in float32"),
    Question("which-scale", "loss-scaling", "The loss is multiplied by a scale that makes some gradients "
             "infinite. What does the scaler do?", (
        Answer("It sets the infinite gradients to 0 and goes on.",
               "The step would then go in the wrong direction, with part of the gradient missing."),
        Answer("It stops the training.", "A single step isn't worth that."),
        Answer("It skips the step, and halves the scale.",
               "The next step tries a smaller scale; after some good steps the scale grows again.")), 2,
             "with an initial scale of 2³⁰ at least 3 steps are skipped"),
    Question("still", "stalled-weights", "Weights are kept in bfloat16, and the learning rate falls to 0. What "
             "do most weights do in the last steps?", (
        Answer("They stand still.",
               "Their updates are smaller than half the distance to the next number of the format."),
        Answer("They move a little less than in float32.",
               "A bfloat16 number can't move a little: it moves to a neighbour, or not at all."),
        Answer("They become infinite.", "bfloat16 has the range of float32.")), 0,
             "in the last 10 steps more than half of the bfloat16 weights stand still"),
    Question("ring-bytes", "ring", "8 ranks add up their tensors of 4,000 bytes in a ring. About how many bytes does "
             "each rank send?", (
        Answer("28,000: its tensor to each of the 7 others.", "That is what happens without a ring."),
        Answer("7,000: 14 pieces of 500 bytes.", "7 steps for the sums, and 7 to pass them on."),
        Answer("500: one piece.", "Each rank sends a piece in every step.")), 1,
             "with 8 ranks a rank sends less than two copies"),
    Question("means", "one-mean", "Each of 4 ranks computes the gradient of the mean over its own tokens, and "
             "the four gradients are averaged. Is that the gradient of the whole batch?", (
        Answer("Yes: a mean of means is the mean.", "Only if all ranks have equally many tokens."),
        Answer("No: tokens of a rank with few tokens count too much.",
               "Divide by the number of tokens of all ranks, and add up."),
        Answer("Yes, but only without Adam.", "The gradient is computed before Adam sees it.")), 1,
             "4 ranks: averaging the ranks' own means"),
    Question("bubble", "pipeline", "What does 1F1B save, compared with GPipe, for the same number of stages and "
             "micro-batches?", (
        Answer("Waiting.", "Both wait in (P − 1) / (M + P − 1) of the slots."),
        Answer("Memory: a stage keeps fewer activations.", "Stage s keeps those of at most P − s micro-batches."),
        Answer("Bytes sent.", "Each micro-batch goes through all stages either way.")), 1,
             "in this run each stage kept the activations of M micro-batches"),
)

TERMS = (
    Term("ranks", "", "Each rank is a device with its own memory.", (), True),
    Term("bfloat16", "formats",
         "bfloat16 has the range of float32, but only 8 significant bits: the next number after 1 is "
         "1.0078."),
    Term("loss scaling", "loss-scaling",
         "The scaler tries out scales: a step with an infinite gradient is skipped, and the scale is "
         "halved."),
    Term("master weights", "stalled-weights",
         "The remedy is to keep the weights in float32 (master weights), and to round a copy for the products."),
    Term("all-reduce", "ring",
         "In a ring each rank sends only to its right neighbour, one piece of n / P numbers at a time.",
         ("ring",)),
    Term("data parallelism", "one-mean",
         "Each rank has the whole model and some rows of the batch.", ("data parallel",)),
    Term("tensor parallelism", "columns-then-rows",
         "The first matrix of a feed-forward network is cut by its outputs: each rank computes some of the "
         "inner numbers, and GELU needs no others.",
         ("tensor parallel",)),
    Term("ZeRO", "sharded-states",
         "With ZeRO (Rajbhandari et al. 2020) each rank keeps only the states of one piece of the weights.",
         ("FSDP",)),
    Term("pipeline", "pipeline",
         "Each rank, called a stage, has some of the blocks, and passes on activations.", ("stage",), True),
    Term("bubble", "pipeline",
         "Some waiting is left at both ends: the bubble, (P − 1) / (M + P − 1) of all slots."),
    Term("micro-batch", "pipeline", "So the batch is cut into M micro-batches.", ("micro-batches",)),
)

EXERCISES = {
    "LossScaler": Exercise(1, 20,
        guide={"__init__": ["keep scale, growth, backoff and interval", "count good steps in a row, from 0"],
               "scaled": ["loss times scale"],
               "unscale": ["divide each gradient by the scale, in place; skip parameters without one",
                           "return whether all numbers of all gradients are finite"],
               "update": ["not finite: scale times backoff, and the count starts again",
                          "finite: count; at `interval` scale times growth, and the count starts again"]},
        hints={
            "multiplies": (
                "The gradients get the factor by themselves, by the chain rule.",
                "loss · scale",
                "return loss * self.___"),
            "divides": (
                "Change the gradients in place: the optimiser reads them afterwards.",
                "gradient / scale",
                "parameter.grad.mul_(1 / self.___)"),
            "notices": (
                "∞ and NaN both count, in any gradient.",
                "all numbers of all gradients are finite",
                "all(bool(gradient.___().all()) for gradient in gradients)"),
            "follows_the_rule": (
                "Only finite steps in a row count; an overflow starts the count again.",
                "not finite: scale · backoff; `interval` in a row: scale · growth",
                "self.good = self.good + 1 if finite else ___"),
            "equals_pytorch": (
                "Compare step by step: which differ first, the weights or the scale?",
                "scaled, backward, unscale, step if finite, update",
                "gradient.mul_(1 / self.scale)"),
        }),
    "ring_all_reduce": Exercise(3, 45,
        guide={"": ["cut x into P flat pieces, padded with zeros, and clone them",
                    "P − 1 steps: send a piece to the right, add what comes from the left to another",
                    "now piece number rank is finished",
                    "P − 1 steps: send a finished piece to the right, keep what comes from the left",
                    "join the pieces, cut off the padding, and restore the shape"]},
        hints={
            "sums": (
                "Follow one piece: it starts at one rank, and collects a summand at each of the others.",
                "step t: send piece rank − t − 1, add to piece rank − t − 2 (modulo P)",
                "pieces[add] += group.exchange(pieces[send], (rank + 1) % size, (rank - 1) % size)"),
            "same_bits": (
                "Each piece is added up on one rank only; the other ranks get a copy.",
                "second round: replace, don't add",
                "pieces[place] = group.exchange(pieces[send], ___, ___)"),
            "sends_little": (
                "In each step a rank sends one piece, not the whole tensor.",
                "2 · (P − 1) · ⌈n / P⌉ numbers",
                "F.pad(x.flatten(), (0, -x.numel() % ___)).chunk(___)"),
            "leaves_the_inputs": (
                "chunk() gives views of the tensor.",
                "clone before +=",
                "[piece.___() for piece in pieces]"),
        }),
    "ToAll": Exercise(2, 15,
        guide={"forward": ["keep the group in ctx", "return x as it is"],
               "backward": ["sum the gradient over all ranks", "return it, and None for the group"]},
        hints={
            "passes": (
                "Nothing happens on the way forward.",
                "y = x",
                "return x.view_as(___)"),
            "sums_backward": (
                "All ranks read the same x, so its gradient is the sum of what each of them sends back.",
                "∂L/∂x = Σ over ranks",
                "return ring_all_reduce(gradient, ctx.___), None"),
        }),
    "FromAll": Exercise(1, 10,
        guide={"forward": ["sum x over all ranks"], "backward": ["return the gradient, and None"]},
        hints={
            "sums_forward": (
                "Every rank has a part of a sum.",
                "y = Σ over ranks of x",
                "return ring_all_reduce(___, group)"),
            "passes_backward": (
                "A sum passes its gradient to each summand.",
                "∂L/∂x = ∂L/∂y",
                "return ___, None"),
        }),
    "ColumnLinear": Exercise(2, 25,
        guide={"__init__": ["refuse outputs that don't split evenly over the ranks",
                            "this rank's rows of weight (O, I) and its piece of the bias, as parameters",
                            "keep the group"],
               "forward": ["x through ToAll", "the linear map of this rank's piece"]},
        hints={
            "gives_pieces": (
                "nn.Linear keeps W as (out, in): a piece of the outputs is a piece of its rows.",
                "W.chunk(P, 0)[rank]",
                "nn.Parameter(whole.weight.detach().chunk(group.size, ___)[group.rank].clone())"),
            "has_the_whole_input_gradient": (
                "Each rank knows only what its own outputs send back.",
                "ToAll sums backward",
                "F.linear(ToAll.apply(x, ___), self.weight, self.bias)"),
            "has_pieces_of_gradients": (
                "The pieces are parameters of their own.",
                "∂L/∂W is cut like W",
                "self.weight = nn.Parameter(___)"),
            "keeps_a_piece": (
                "Cut the weights, not the output.",
                "O · I / P + O / P numbers",
                "nn.Module.__init__(self), not super().__init__(I, O)"),
            "refuses_a_rest": (
                "A remainder would belong to no rank.",
                "O modulo P must be 0",
                'raise ValueError(f"{___} outputs do not split over {___} ranks")'),
        }),
    "RowLinear": Exercise(2, 20,
        guide={"__init__": ["refuse inputs that don't split evenly over the ranks",
                            "this rank's columns of weight (O, I), and the whole bias, as parameters"],
               "forward": ["the product without the bias", "through FromAll", "add the bias"]},
        hints={
            "gives_the_whole_output": (
                "Add up the products first, then the bias once.",
                "Σ over ranks of x_r·W_rᵀ, + b",
                "FromAll.apply(F.linear(x, self.weight), self.group) + ___"),
            "has_its_piece_of_the_input_gradient": (
                "After the sum every rank computes the same thing, so the gradient is whole already.",
                "FromAll passes it as it is",
                "FromAll.apply, not a sum in both directions"),
            "has_gradients": (
                "Weight and bias are parameters of their own.",
                "∂L/∂W is cut like W; ∂L/∂b is whole",
                "self.bias = nn.Parameter(whole.bias.detach().clone())"),
            "keeps_columns": (
                "A piece of the inputs is a piece of W's columns.",
                "W.chunk(P, 1)[rank]",
                "whole.weight.detach().chunk(group.size, ___)[group.rank]"),
            "refuses_a_rest_of_columns": (
                "A remainder would belong to no rank.",
                "I modulo P must be 0",
                'raise ValueError(f"{___} inputs do not split over {___} ranks")'),
        }),
    "one_f_one_b": Exercise(2, 20,
        guide={"": ["P − 1 − s forwards first, or M if that is fewer",
                    "then for each micro-batch: the next forward if one is left, and its backward"]},
        hints={
            "each_once": (
                "Count forward and backward passes separately; both go from 0 to M − 1.",
                "F0 F1 F2 B0 F3 B1 …",
                'order.append(("B", number))'),
            "keeps_few": (
                "The last stage can go backward at once; each stage before it is one further ahead.",
                "warm-up: min(P − 1 − s, M)",
                "ahead = min(stages - 1 - ___, micro)"),
            "takes_no_longer": (
                "In the middle a forward comes before each backward: the next stage waits for it.",
                "(M + P − 1) · (forward + backward) slots",
                'if ahead + number < micro: order.append(("F", ___))'),
        }),
    "timeline": Exercise(3, 45,
        guide={"": ["ask for the order of every stage",
                    "again and again: does the first piece of work in a stage's order have what it needs?",
                    "if so: append None until what it needs is done, then append the work, once per slot",
                    "note the slot in which it ends",
                    "at the end pad all rows with None to the same length"]},
        hints={
            "equals_the_drawing": (
                "Draw it: stage 1 can begin when stage 0 has finished the first micro-batch.",
                "F needs F of stage s − 1; B needs B of stage s + 1",
                'before = stage - 1 if kind == "F" else ___'),
            "waits_for_what_it_needs": (
                "Work begins when its stage is free and what it needs is done, whichever is later.",
                "start = max(end of the last work here, end of what it needs)",
                "row += [None] * (done[___] - len(row))"),
            "takes_several_slots": (
                "A row has one entry per slot.",
                "work · forward or work · backward times",
                'row += [work] * (forward if kind == "F" else ___)'),
        }),
}

"""Lesson 9. What has it learned, and where?

A trained model answers, but its weights don't say how. So this lesson examines lesson 5's model. Which parts
learn at all? Which attentions does an answer need? What happens if data is scarce? The lesson measures
gradients and the optimiser's moves, replaces outputs by their mean, and puts first weights back:

    trained model → one part replaced → how many answers are still right

The model is the one that lesson 5 trained; without its checkpoint it is trained now, which takes half a
minute. Lesson 5's options choose another model: --task copy, --layers 3.
"""

import course.console.startup  # noqa: F401 (before torch: it hears what fails in the imports below)
import math
import statistics
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from common import Picture, check, lesson, lesson_parser, narrate, shows, table
from course.training.broken import without_paths
from course.training.comparing import changed
from course.training.engine import Run, finish
from course.training.processes import all_processes
from course.training.side_by_side import side_by_side
from figures import interpretability as drawing

(
    PART, RELATIONS, WORDS, MultiHeadAttention, eight_seeds, relation_patterns, relations_task,
    shares_of_heads, train_relations,
) = lesson(
    "02_multi_head_attention", "PART", "RELATIONS", "WORDS", "MultiHeadAttention", "eight_seeds",
    "relation_patterns", "relations_task", "shares_of_heads", "train_relations")
PAD = lesson("03_positional_encoding").PAD
(
    COMMAND_LINE, Batch, DigitExperiment, TrainingConfig, Transformer, TransformerConfig, draw_batch,
    draw_sequences, evaluate, fused_sequence_loss, make_batch, make_run, train_plainly, training_batch,
) = lesson(
    "05_mini_transformer", "COMMAND_LINE", "Batch", "DigitExperiment", "TrainingConfig", "Transformer",
    "TransformerConfig", "draw_batch", "draw_sequences", "evaluate", "fused_sequence_loss", "make_batch",
    "make_run", "train_plainly", "training_batch")

__all__ = ["answers_of_heads", "errors_without", "last_move", "moved_by", "note_learning", "parts_of",
           "repeats", "right_without", "with_first_weights"]


# ------------------------------------------------------------------ the instruments


def repeats(model: nn.Module, batch: Batch) -> tuple[float, float]:
    """The loss, and the mean probability that the model gives to the token just read."""
    with torch.no_grad():
        logits, real = model(batch.src, batch.tgt_in), batch.tgt_in != PAD
    loss = fused_sequence_loss(logits, batch.tgt_out) / (batch.tgt_out != PAD).sum()
    again = logits.softmax(-1).gather(-1, batch.tgt_in[..., None])[..., 0]
    return loss.item(), again[real].mean().item()


def parts_of(model: nn.Module) -> dict[str, nn.Module]:
    """The embedding and every block of both stacks."""
    stacks = ("encoder", model.encoder), ("decoder", model.decoder)
    return {"embedding": model.embedding} | {
        f"{name} {number}": block for name, stack in stacks for number, block in enumerate(stack.blocks)}


def last_move(optimizer: torch.optim.Optimizer, part: nn.Module) -> float:
    """By how much Adam's last step moved the weights of a part (RMS), in learning rates."""
    (beta1, beta2), eps = (optimizer.param_groups[0][name] for name in ("betas", "eps"))
    moves = []
    for parameter in part.parameters():
        steps, mean, square = optimizer.state[parameter].values()
        moves.append((mean / (1 - beta1**steps) / ((square / (1 - beta2**steps)).sqrt() + eps)).flatten())
    return torch.cat(moves).square().mean().sqrt().item()


def note_learning(run: Run) -> None:
    """Note, after an update, each part's gradient before clipping, and Adam's move of the part."""
    clipped = max(1.0, run.history[-1]["gradient_norm"] / run.settings.clip)
    for name, part in parts_of(run.model).items():
        norm = torch.cat([parameter.grad.flatten() for parameter in part.parameters()]).norm().item()
        run.history[-1] |= {f"gradient in {name}": clipped * norm,
                            f"move of {name}": last_move(run.optimizer, part)}


def with_first_weights(model: nn.Module, fresh: nn.Module, batch: Batch) -> dict[str, float]:
    """Exact match of the trained model with one part as it was in the fresh one, for every part."""
    found = {}
    for name, part in parts_of(model).items():
        trained = {key: value.clone() for key, value in part.state_dict().items()}
        part.load_state_dict(parts_of(fresh)[name].state_dict())
        found[name] = evaluate(model, batch).exact_match
        part.load_state_dict(trained)
    return found


def right_without(attention: nn.Module, model: nn.Module, batch: Batch, axes: tuple[int, ...]) -> float:
    """Exact match if the outputs (B, L, D) of this attention are replaced by their mean over these axes."""
    hook = attention.register_forward_hook(
        lambda module, inputs, output: output.mean(axes, keepdim=True).expand_as(output))
    try:
        return evaluate(model, batch).exact_match
    finally:
        hook.remove()


@torch.no_grad()
def moved_by(attention: MultiHeadAttention, word: int) -> tuple[Tensor, Tensor]:
    """By how much each answer moves (RMS) when a word is replaced: by each head, and by all of them.

    (H, T, 4) and (T, 4): for every head, word that looks and relation that it answers.
    """
    before, _ = relations_task(100)
    after = before.clone()
    after[:, word, :PART] = torch.randn(100, PART)
    moves = answers_of_heads(attention, after) - answers_of_heads(attention, before)  # (B, H, T, 4, 8)
    return moves.pow(2).mean((0, -1)).sqrt(), moves.sum(1).pow(2).mean((0, -1)).sqrt()


def answers_of_heads(attention: MultiHeadAttention, x: Tensor) -> Tensor:
    """(B, H, T, 4, 8): what each head adds to the four answers of each word."""
    heads = attention.weights(x, x) @ attention.split(attention.project_value(x))
    shares = attention.project_output.weight.T.unflatten(0, (attention.n_heads, -1))  # (H, K, D)
    return (heads @ shares)[..., : 4 * PART].unflatten(-1, (4, PART))


@torch.no_grad()
def errors_without(attention: MultiHeadAttention, head: int) -> tuple[Tensor, Tensor]:
    """The errors (T, 4) of every answer (RMS): with all heads, and with this one replaced by its mean."""
    x, wanted = relations_task(500)
    answers = answers_of_heads(attention, x)
    without = answers.clone()
    without[:, head] = answers[:, head].mean(0)
    bias = attention.project_output.bias[: 4 * PART].unflatten(0, (4, PART))
    wanted = wanted.unflatten(-1, (4, PART))
    return tuple((found.sum(1) + bias - wanted).pow(2).mean((0, -1)).sqrt() for found in (answers, without))


def strangest_look(attention: MultiHeadAttention) -> tuple:
    """Where one head lets most of a word into an answer that is neither its own nor about that word.

    (head, looking word, relation, word, weight, moved by this head, moved by all heads).
    """
    weights, mass = shares_of_heads(attention)
    asked = relation_patterns().permute(1, 0, 2)  # (T, 4, S)
    found = []
    for word in range(WORDS):
        alone, together = moved_by(attention, word)
        alone = alone.masked_fill(asked[..., word] == 1, 0.0)
        alone[mass.argmax(0), :, range(4)] = 0.0  # the heads that give these answers
        head, looking, relation = (int(i) for i in torch.unravel_index(alone.argmax(), alone.shape))
        found.append((alone.max().item(), head, looking, relation, word, together[looking, relation].item()))
    alone, head, looking, relation, word, together = max(found)
    return head, looking, relation, word, weights[head, looking, word].item(), alone, together


def look_of(seed: int) -> tuple[int, int, int, int, list[float]]:
    """The strangest look of a trained layer: head, looking word, relation, word, and five numbers.

    The weight, by how much the answer moves by this head and by all, its error with the head and without.
    """
    attention, _ = train_relations(seed)
    head, looking, relation, word, *look = strangest_look(attention)
    errors = (float(found[looking, relation]) for found in errors_without(attention, head))
    return head, looking, relation, word, [*look, *errors]


GRADED = {}  # no part of this lesson is graded yet
OURS = sys.modules[__name__]


# ------------------------------------------------------------------ the steps


CPU = torch.device("cpu")
STEPS_SHOWN = 20


@shows(repeats)
def step_last_gain(experiment: DigitExperiment):
    """A small gain at the end

    Lesson 5's model starts its last LayerNorm with a gain of d_model^−½, where the paper has 1. The residual
    paths carry the embedding of a token past all layers to the end. There the same matrix compares the result
    with every token's vector, and the token itself fits best.

    So with a gain of 1 an untrained model is sure that each token repeats, and first has to unlearn this.
    With a gain of d_model^−½ the guesses are nearly even, and the first loss is near ln V. The difference
    doesn't last: after 20 steps both losses are about equal.
    """
    task = experiment.training.task
    batch, training = draw_batch(task, 200, "validation", (1,)), TrainingConfig(task=task)

    def begun_with(gain: float) -> tuple[float, float, float]:
        model = Transformer(TransformerConfig())
        nn.init.constant_(model.decoder.norm.gain, gain)
        before = repeats(model, batch)
        optimizer = torch.optim.AdamW(model.parameters(), weight_decay=training.weight_decay, fused=True)
        batches = (training_batch(training, step) for step in range(STEPS_SHOWN))
        train_plainly(model, optimizer, batches, training)
        return *before, repeats(model, batch)[0]

    gains = {"d_model^−½": TransformerConfig().d_model ** -0.5, "1": 1.0}
    found = side_by_side([partial(begun_with, gain) for gain in gains.values()])
    if task == "reverse":
        (ours, _, ours_later), (ones, repeated, later) = found
        check("with a gain of 1 the untrained model gives the token just read a probability over 0.8, and "
              "the loss is more than twice that with a gain of d_model^−½",
              repeated > 0.8 and ones > 2 * ours, f"probability {repeated:.2f}")
        check(f"after {STEPS_SHOWN} steps the losses of both gains differ by less than 0.1",
              abs(later - ours_later) < 0.1,
              f"{later:.2f} and {ours_later:.2f}")
    return table("first gain", "loss", "P(repeats)", f"loss after {STEPS_SHOWN} steps", rows=[
        (name, loss, f"{again:.0%}", after) for name, (loss, again, after) in zip(gains, found)])


@shows(errors_without)
def step_where_not_why(experiment: DigitExperiment):
    """Where it looked, not why

    A weight says where a head looked, not what effect this had. In some of lesson 2's layers a head divides
    its weight between the previous word and the next. Its answer for “previous word” is right nevertheless,
    because another head, which looks at the next word only, removes what the first head let in.

    The table lists such cases. A head looks at a word that has nothing to do with the answer. If that word is
    replaced, this head by itself would change the answer (“one head”), but all heads together hardly do (“all
    heads”). So the word has no effect. But if the head is replaced by its mean over all sentences, the answer
    becomes wrong (“error” and “without”). So the look has an effect: it corrects another head. The weight
    shows neither.
    """
    seeds, rows, looks = eight_seeds(), [], []
    found = side_by_side([partial(look_of, seed) for seed in seeds])
    for seed, (head, looking, relation, word, look) in zip(seeds, found):
        if look[1] > 0.2:
            looks.append(look)
            shown = (f"{value:.2g}" for value in look)
            rows.append((seed, head, looking, RELATIONS[relation].split()[0], word, *shown))
    check("some layers have such looks: replacing the word moves the answer by less than a tenth of what the "
          "head by itself would", looks and all(together < alone / 10 for _, alone, together, *_ in looks))
    check("without the head the error of that answer is more than five times as large as with it",
          all(without > 5 * error for *_, error, without in looks))
    return table("seed", "head", "word", "answer", "looks at", "weight", "one head", "all heads", "error",
                 "without", rows=rows)


@shows(right_without)
def step_what_is_needed(experiment: DigitExperiment):
    """Which attention does an answer need?

    A weight says where an attention looked, not what for. So the table takes each attention away
    (ablation) and counts the answers that are still right. First one mean replaces all its outputs. Then each
    place gets its own mean, over all sequences: an answer that is right again needed only the place, not the
    content.

    If all sequences have 10 digits, only the last cross-attention needs its content: there the digits come
    in. In the last column sequences of 8 and of 12 digits are mixed. Now the place of the last digit depends
    on the length, so a mean per place is right for neither length. Without the first cross-attention hardly
    any answer is right. Without the encoder's last attention, or any of the decoder's others, fewer answers
    are right than with 10 digits.
    """
    task, run = experiment.training.task, experiment.run
    batch = make_batch(task, draw_sequences(100, "test", (3,), (10, 10))).to(run.device)
    mixed = make_batch(task, [digits for length in (8, 12) for digits in draw_sequences(
        50, "test", (length,), (length, length))]).to(run.device)
    attentions = {name: module for name, module in run.model.named_modules()
                  if hasattr(module, "project_query")}
    trials = (batch, (0, 1)), (batch, (0,)), (mixed, (0,))
    needed = {name: [right_without(module, run.model, *trial) for trial in trials]
              for name, module in attentions.items()}
    if experiment.name == "reverse":
        *others, last = (found for name, found in needed.items() if name.startswith("decoder"))
        check("one mean for any one of the decoder's attentions: less than 80 % of the answers are right",
              max(*(one for one, *_ in others), last[0]) < 0.8)
        check("a mean per place, 10 digits: more than 80 % of the answers are right, but less than 10 % "
              "without the last cross-attention",
              min(place for _, place, _ in others) > 0.8 and last[1] < 0.1)
        check("8 and 12 digits mixed: less than a fifth are right without the first cross-attention",
              needed["decoder.blocks.0.cross_attention"][2] < 0.2)
        less = [needed["encoder.blocks.1.self_attention"], *others]
        check("8 and 12 digits mixed: without the encoder's last attention, or any of the decoder's first "
              "three, fewer answers are right than with 10 digits",
              all(length < place for _, place, length in less))
    rows = [(name.replace(".blocks", ""), *(f"{right:.0%}" for right in found))
            for name, found in needed.items()]
    return table("right without", "one mean", "a mean per place", "8 and 12 digits",
                 rows=rows), experiment.differs


STEPS_NOTED = 150


@shows(last_move)
def step_what_learns(experiment: DigitExperiment):
    """Does every block learn?

    The left panels show the gradient of each block, before clipping, in a training of 150 steps. The gradient
    says how hard the loss pushes a block. But Adam divides the gradient by its usual size, so in the right
    panels all blocks move about equally: by about one learning rate at first, and by a third of a learning
    rate after 150 steps, because the gradients of different batches disagree.

    The lower panels show a model whose layers have no residual path around them. So little gradient gets back
    to the decoder's first block that even Adam, whose ε is 10⁻⁸, hardly moves this block at first. All other
    blocks move as much as they should, and yet this model learns less. So such a curve shows which block
    can't learn. It doesn't show that a block learns anything.
    """
    training = TrainingConfig(task=experiment.training.task, steps=STEPS_NOTED)

    def trained(prepare: Callable | None) -> list[dict[str, float]]:
        run = make_run(TransformerConfig(), training, CPU, prepare=prepare)
        while not run.finished:
            run.update()
            if len(run.history) % 10 == 1:
                note_learning(run)
        return run.history

    histories = side_by_side([partial(trained, None), partial(trained, without_paths)])
    noted, apart = ([record for record in history if "move of embedding" in record] for history in histories)
    names = [*parts_of(Transformer(TransformerConfig()))]
    blocks = [name for name in names if name != "embedding"]
    moves = [[record[f"move of {name}"] for name in blocks] for record in noted]
    if training.task == "reverse":
        ratio = max(max(record) / min(record) for record in moves)
        check("at every noted step the block that moves most moves less than 3 times as much as the one that "
              "moves least", ratio < 3, f"{ratio:.1f}")
        first, last = (statistics.mean(moves[step]) for step in (0, -1))
        check("the first move is about one learning rate, the last less than half of that",
              abs(first - 1) < 0.1 and last < first / 2, f"{first:.2f} and {last:.2f}")
        cut = apart[0]["gradient in decoder 0"]
        check("without paths the decoder's first block begins with a gradient below 10⁻⁶ and hardly moves",
              cut < 1e-6 and apart[0]["move of decoder 0"] < 0.1, f"{cut:.0e}")
        others = [statistics.median(record[f"move of {name}"] for record in records for name in blocks
                                    if name != "decoder 0") for records in (noted, apart)]
        check("without paths the other blocks move at least a third as much as with them",
              others[1] > others[0] / 3, f"medians {others[1]:.2f} and {others[0]:.2f} rates")
        ours, theirs = (statistics.mean(record["loss"] for record in history[60:80]) for history in histories)
        check("without paths the loss of steps 61 to 80 is higher by more than 0.2", theirs > ours + 0.2,
              f"{theirs:.2f} and {ours:.2f}; guessing a digit: {math.log(10):.2f}")
    figure = drawing.draw_learning({"with residual paths": noted, "without": apart}, names)
    return Picture(experiment.file("interpretability_gradient_flow"), figure,
                   "Adam moves all blocks about equally, unless hardly any gradient reaches one")


@shows(with_first_weights)
def step_first_weights(experiment: DigitExperiment):
    """What has a block learned?

    If one part gets its first weights back and all others stay trained, hardly any answer is still right. So
    the others have come to rely on every block. A block is more than its attention: without the attention
    alone (step 3) many answers may still be right.
    """
    run = experiment.run
    batch = draw_batch(experiment.training.task, 200, "test", (4,)).to(run.device)
    found = with_first_weights(run.model, experiment.make().model, batch)
    if experiment.name in ("reverse", "copy"):
        check("with the first weights of any one part less than a tenth of the answers are right",
              max(found.values()) < 0.1)
    return table("with the first weights of", "exact match", rows=[
        (name, f"{right:.0%}") for name, right in found.items()]), experiment.differs


SCARCE = {"as it is": {}, "weight decay 1": {"weight_decay": 1.0},
          "label smoothing 0.1": {"label_smoothing": 0.1}, "dropout 0.1": {"dropout": 0.1}}


def step_scarce_data(experiment: DigitExperiment):
    """When data is scarce

    Lesson 5 drew new sequences in every step, so there was nothing to memorise. Now the model sees the same
    200 sequences of 4 to 8 digits again and again, for 150 steps of 16 sequences. More of the known sequences
    than of the new ones are answered right: the model overfits.

    Three remedies are usual: dropout, label smoothing (both in section 5.4) and weight decay (AdamW). Here
    strong weight decay gets the most new sequences right, and more of the known ones: in so short a run it
    also speeds up training. Label smoothing changes little; with dropout the model learns fewer of the known
    sequences. Which of these helps in your case has to be tried.
    """
    task = experiment.training.task
    known = draw_sequences(200, "train", (7,), (4, 8))
    batches = make_batch(task, known), make_batch(task, draw_sequences(300, "validation", (1,), (4, 8)))

    def trained(changes: dict[str, Any]) -> list[float]:
        config, training = TransformerConfig(), TrainingConfig(task=task, steps=150, weight_decay=0.0)
        for field, value in changes.items():
            config, training = changed((config, training), field, value)
        run = make_run(config, training, CPU)
        order = torch.randint(200, (training.steps, 16))
        run.job = replace(run.job, batch=lambda step: make_batch(
            task, [known[number] for number in order[step].tolist()]))
        finish(run)
        return [evaluate(run.model, batch).exact_match for batch in batches]

    found = side_by_side([partial(trained, changes) for changes in SCARCE.values()])
    if task == "reverse":
        (seen, new), (_, decayed), _, (dropped, _) = found
        check("as it is: more of the known sequences than of the new ones are answered right",
              seen > new + 0.1)
        check("weight decay gets more of the new sequences right", decayed > new + 0.05,
              f"{new:.0%} to {decayed:.0%}")
        check("with dropout fewer of the known sequences are answered right", dropped < seen - 0.05)
    return table("", "known sequences", "new sequences", rows=[
        (name, *(f"{right:.0%}" for right in pair)) for name, pair in zip(SCARCE, found)])


def step_what_next(experiment: DigitExperiment):
    """What now?

    Read: right_without and with_first_weights. The first sets a hook, the second exchanges weights; then both
    run lesson 5's evaluate.

    Change: (1) --layers 1: which attentions are needed if there is only one block? (2) --task copy: does the
    first cross-attention still need its content with 8 and 12 digits mixed? (3) In SCARCE add "dropout 0.3",
    and train longer: steps=600.
    """


# ------------------------------------------------------------------ the command line


def main():
    parser = lesson_parser(__doc__, GRADED)
    COMMAND_LINE.add_options(parser, trains=False)
    experiment = COMMAND_LINE.parsed(parser)
    steps = [
        step_last_gain,
        step_where_not_why,
        step_what_is_needed,
        step_what_learns,
        step_first_weights,
        step_scarce_data,
        step_what_next,
    ]
    with all_processes(experiment.device):
        narrate(experiment.options, __doc__, steps, experiment)


if __name__ == "__main__":
    main()

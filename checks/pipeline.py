"""What must hold for lesson 13's pipelines: the order of a stage's work, and the slots of all stages."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from course.console.records import Finding
from course.grading.checking import Mistake, Part, agree, at, together

Work = tuple[str, int]  # ("F", 3): forward of micro-batch 3; ("B", 3): backward
SIZES = (1, 3), (2, 1), (2, 2), (2, 5), (3, 6), (4, 2), (4, 4), (4, 8)  # stages, micro-batches


def all_forward_first(stage: int, stages: int, micro: int) -> list[Work]:
    return [(kind, number) for kind in "FB" for number in range(micro)]


def late_warm_up(stage: int, stages: int, micro: int) -> list[Work]:
    """One forward more before the first backward than 1F1B needs: another order for the timeline."""
    ahead = min(stages - stage + 1, micro)
    order = [("F", number) for number in range(ahead)]
    for number in range(micro):
        order += [("B", number)] + [("F", ahead + number)] * (ahead + number < micro)
    return order


def expected_slots(schedule: Callable, stages: int, micro: int, forward: int, backward: int) -> Tensor:
    """(stages, slots): m + 1 for forward of micro-batch m, −(m + 1) for backward, 0 for waiting.

    Ends are raised again and again until no stage begins before what it needs has ended.
    """
    orders = [schedule(stage, stages, micro) for stage in range(stages)]
    length = {"F": forward, "B": backward}
    ends = {(stage, *work): 0 for stage, order in enumerate(orders) for work in order}
    for _ in range(2 * stages * micro * stages):
        for stage, order in enumerate(orders):
            free = 0
            for kind, number in order:
                before = (stage - 1, "F", number) if kind == "F" else (stage + 1, "B", number)
                needed = [free, ends.get(before, 0)]
                if kind == "B":
                    needed.append(ends[stage, "F", number])
                free = ends[stage, kind, number] = max(needed) + length[kind]
    slots = torch.zeros(stages, max(ends.values()), dtype=torch.long)
    for (stage, kind, number), end in ends.items():
        slots[stage, end - length[kind] : end] = number + 1 if kind == "F" else -number - 1
    return slots


def coded(rows: Sequence[Sequence[Work | None]]) -> Tensor:
    """Rows of slots as numbers, as in expected_slots()."""
    return torch.tensor([[0 if slot is None else (slot[1] + 1) * (1 if slot[0] == "F" else -1)
                          for slot in row] for row in rows])


# ------------------------------------------------------------------ one_f_one_b(stage, stages, micro)


def each_once(implementation, ours):
    """Every micro-batch goes forward once and backward once, each in the order 0 … M − 1."""
    findings = []
    for stages, micro in SIZES:
        for stage in range(stages):
            order = implementation(stage, stages, micro)
            found = [[number for kind, number in order if kind == wanted] for wanted in "FB"]
            holds = found == [[*range(micro)]] * 2 and len(order) == 2 * micro
            findings.append(Finding(holds, f"stage {stage} of {stages}, {micro} micro-batches: "
                                    + " ".join(f"{kind}{number}" for kind, number in order)))
    return together(*findings)


def keeps_few(implementation, ours):
    """Stage s of P keeps the activations of at most min(P − s, M) micro-batches."""
    findings = []
    for stages, micro in SIZES:
        found = [most_kept(implementation(stage, stages, micro)) for stage in range(stages)]
        expected = [min(stages - stage, micro) for stage in range(stages)]
        findings.append(at(f"{stages} stages, {micro} micro-batches", agree(
            torch.tensor(found), torch.tensor(expected), axes="stage")))
    return together(*findings)


def most_kept(order: Sequence[Work]) -> int:
    """The most micro-batches that have gone forward and not yet backward."""
    kept, most = 0, 0
    for kind, _ in order:
        kept += 1 if kind == "F" else -1
        most = max(most, kept)
    return most


def takes_no_longer(implementation, ours):
    """All stages together need (M + P − 1) · (forward + backward) slots, as many as with GPipe."""
    findings = []
    for stages, micro in SIZES:
        for forward, backward in ((1, 1), (1, 2)):
            slots = expected_slots(implementation, stages, micro, forward, backward)
            findings.append(at(f"{stages} stages, {micro} micro-batches, slots", agree(
                torch.tensor(slots.shape[1]), torch.tensor((micro + stages - 1) * (forward + backward)))))
    return together(*findings)


def one_f_one_b_mistakes(ours):
    """The classic mistakes."""

    def no_warm_up(stage, stages, micro):
        return [(kind, number) for number in range(micro) for kind in "FB"]

    return {
        "all forward first": Mistake("all micro-batches go forward before the first goes backward: that is "
                                     "GPipe, which keeps M activations", all_forward_first, "Stage s of P"),
        "no warm-up": Mistake("without a warm-up of P − 1 − s forwards a stage waits for each micro-batch to "
                              "come back", no_warm_up, "All stages together"),
    }


def more_one_f_one_b_mistakes(ours):
    """Others that the lesson doesn't show."""

    def same_warm_up(stage, stages, micro):
        return ours.one_f_one_b(0, stages, micro)

    return {"same warm-up on all stages": Mistake("the last stage needs no warm-up; stage s needs P − 1 − s",
                                                  same_warm_up, "Stage s of P")}


one_f_one_b_checks = Part(
    [each_once, keeps_few, takes_no_longer],
    one_f_one_b_mistakes,
    more=more_one_f_one_b_mistakes,
    needs='It returns a list of ("F", number) and ("B", number).',
)


# ------------------------------------------------------------------ timeline(schedule, stages, micro, …)


BY_HAND = torch.tensor([[1, 2, 0, 0, -1, -2], [0, 1, 2, -1, -2, 0]])  # 2 stages, 2 micro-batches, GPipe


def equals_the_drawing(implementation, ours):
    """Two stages and two micro-batches with GPipe give the six slots drawn by hand."""
    return agree(coded(implementation(all_forward_first, 2, 2, 1, 1)), BY_HAND, axes="stage, slot")


def waits_for_what_it_needs(implementation, ours):
    """Each piece of work starts as soon as its stage is free and what it needs is done, for any schedule."""
    findings = []
    for stages, micro in SIZES:
        for schedule in (all_forward_first, late_warm_up):
            found = coded(implementation(schedule, stages, micro, 1, 1))
            findings.append(at(f"{stages} stages, {micro} micro-batches", agree(
                found, expected_slots(schedule, stages, micro, 1, 1), axes="stage, slot")))
    return together(*findings)


def takes_several_slots(implementation, ours):
    """A forward pass takes `forward` slots, and a backward pass `backward` slots."""
    return together(*(at(f"{forward} and {backward} slots", agree(
        coded(implementation(late_warm_up, 3, 4, forward, backward)),
        expected_slots(late_warm_up, 3, 4, forward, backward), axes="stage, slot"))
        for forward, backward in ((1, 2), (2, 1), (2, 3))))


def timeline_mistakes(ours):
    """The classic mistakes, made from the course's own part."""

    def one_slot_each(schedule, stages, micro, forward=1, backward=2):
        return ours.timeline(schedule, stages, micro, 1, 1)

    def backward_first_stage_first(schedule, stages, micro, forward=1, backward=2):
        """Gradients run in the direction of the activations."""
        rows = ours.timeline(schedule, stages, micro, forward, backward)
        turned = ours.timeline(schedule, stages, micro, forward, backward)[::-1]
        return [[slot if slot is None or slot[0] == "F" else other for slot, other in zip(row, back)]
                for row, back in zip(rows, turned)]

    def never_waits(schedule, stages, micro, forward=1, backward=2):
        """Every stage works through its list."""
        lengths = {"F": forward, "B": backward}
        return [[work for work in schedule(stage, stages, micro) for _ in range(lengths[work[0]])]
                for stage in range(stages)]

    return {
        "never waits": Mistake("no stage waits: forward needs the forward of the stage before, and backward "
                               "needs the backward of the stage after", never_waits, "Two stages and two"),
        "one slot each": Mistake("forward and backward take `forward` and `backward` slots", one_slot_each,
                                 "A forward pass takes"),
        "gradients run forward": Mistake("gradients come from the last stage back to the first",
                                         backward_first_stage_first, "Two stages and two"),
    }


timeline_checks = Part(
    [equals_the_drawing, waits_for_what_it_needs, takes_several_slots],
    timeline_mistakes,
    needs="It returns for each stage a list of slots, all equally long: the work done there, or None.",
)

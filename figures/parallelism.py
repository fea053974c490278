"""How lesson 13's pictures are drawn."""

from collections.abc import Mapping, Sequence

from common import canvas

PARTS = "weights", "gradients", "optimiser"
NAMES = {"F": "forward", "B": "backward"}


def draw_stalled(found: Mapping[str, Sequence[float]]):
    """For each way of keeping the weights, the fraction of them that a step leaves unchanged, by step."""
    figure, axes = canvas(width=7, height=3.6)
    for name, fractions in found.items():
        axes.plot(range(1, len(fractions) + 1), fractions, label=f"kept {name}")
    axes.set(xlabel="step", ylabel="weights that stand still", ylim=(-0.03, 1.03))
    axes.legend(fontsize=8)
    return figure


def draw_slots(slots: Mapping[str, Sequence[Sequence[tuple[str, int] | None]]],
               keeps: Mapping[str, Sequence[int]]):
    """For each schedule, what its stages do in each slot, and how many inputs each stage keeps at most."""
    longest = max(len(row) for rows in slots.values() for row in rows)
    figure, axes = canvas(len(slots), 1, 11, 2.1 * len(slots) + 0.6, sharex=True, squeeze=False)
    for panel, (name, rows) in zip(axes[:, 0], slots.items()):
        for stage, row in enumerate(rows):
            for kind, number, first, last in stretches(row):
                panel.barh(stage, last - first, left=first, height=0.84, edgecolor="white",
                           color="C0" if kind == "F" else "C1",
                           label=NAMES[kind] if stage == number == 0 else None)
                panel.text((first + last) / 2, stage, str(number), ha="center", va="center", fontsize=8,
                           color="black" if kind == "B" else "white")
            panel.text(longest + 0.4, stage, f"keeps {keeps[name][stage]}", va="center", fontsize=9)
        panel.set(title=name, ylabel="stage", xlim=(0, longest + 3.4), yticks=range(len(rows)))
        panel.invert_yaxis()
        panel.grid(False)
    axes[-1, 0].set_xlabel("slot (the number is the micro-batch)")
    axes[0, 0].legend(loc="upper center", bbox_to_anchor=(0.5, 1.32), ncols=2, fontsize=8)
    return figure


def stretches(row: Sequence[tuple[str, int] | None]) -> list[tuple[str, int, int, int]]:
    """(kind, micro-batch, first slot, slot after the last) for each piece of work of a stage."""
    found: list[tuple[str, int, int, int]] = []
    for slot, work in enumerate(row):
        if work and found and found[-1][:2] == work:
            found[-1] = *work, found[-1][2], slot + 1
        elif work:
            found.append((*work, slot, slot + 1))
    return found


def draw_bytes(models: Mapping[str, Mapping[str, Sequence[float]]]):
    """A bar for each model and way of splitting it: weights, gradients and optimiser states on a rank."""
    figure, axes = canvas(columns=len(models), width=10, height=3.6, squeeze=False)
    for panel, (name, ways) in zip(axes[0], models.items()):
        bottom = [0.0] * len(ways)
        for number, part in enumerate(PARTS):
            heights = [sizes[number] for sizes in ways.values()]
            panel.bar(list(ways), heights, bottom=bottom, label=part)
            bottom = [below + height for below, height in zip(bottom, heights)]
        for place, total in enumerate(bottom):
            panel.text(place, total, f"{total:.3g}", ha="center", va="bottom", fontsize=9)
        panel.set(title=name, ylim=(0, 1.12 * max(bottom)))
        panel.grid(axis="x", visible=False)
    axes[0, 0].set_ylabel("kept by each rank")
    axes[0, 0].legend(fontsize=8)
    return figure

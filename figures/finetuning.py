"""How lesson 12's pictures are drawn."""

from collections.abc import Mapping, Sequence

from common import canvas


def draw_low_rank(cut: Mapping[str, Mapping[int, Sequence[float]]],
                  trained: Mapping[str, Mapping[int, Sequence[float]]]):
    """For each task, exact match of several seeds by rank: updates cut afterwards, and adapters trained."""
    figure, axes = canvas(columns=len(cut), width=9, height=3.6, sharey=True)
    for panel, (task, by_rank) in zip(axes, cut.items()):
        for name, found, marker in (("all weights trained, update cut", by_rank, "o"),
                                    ("adapters of this rank trained", trained[task], "s")):
            ranks = sorted(found)
            line, = panel.plot(ranks, [sum(found[rank]) / len(found[rank]) for rank in ranks],
                               marker=marker, label=name, linestyle="-" if len(ranks) > 1 else "none")
            for rank in ranks:
                panel.plot([rank] * len(found[rank]), found[rank], marker=".", linestyle="none",
                           color=line.get_color(), alpha=0.6)
        panel.set(title=task, xscale="log", xlabel="rank of the update", ylim=(-0.03, 1.05))
        panel.set_xticks(sorted(by_rank), [str(rank) for rank in sorted(by_rank)], minor=False)
        panel.set_xticks([], minor=True)
    axes[0].set_ylabel("exact match, new task")
    axes[0].legend(loc="lower right", fontsize=8)
    return figure


def draw_bits(found: Mapping[str, Mapping[int, float]]):
    """For each kind of scales, exact match by bits."""
    figure, axes = canvas(width=6, height=3.6)
    for marker, (name, by_bits) in zip("os^", found.items()):
        axes.plot(list(by_bits), list(by_bits.values()), marker=marker, label=f"one scale per {name}")
    axes.set(xlabel="bits per weight", ylabel="exact match", ylim=(-0.03, 1.05))
    axes.set_xticks(sorted({bits for by_bits in found.values() for bits in by_bits}))
    axes.invert_xaxis()
    axes.legend(fontsize=8)
    return figure


def draw_outlier(weight, codes: Mapping[str, Sequence], right: Mapping[str, float]):
    """The absolute weights of a matrix with one large column, and how many different codes the rest gets."""
    figure, axes = canvas(columns=1 + len(codes), width=12, height=3.7)
    axes[0].imshow(weight.abs().log10().clamp(min=-3).numpy(), cmap="Blues", aspect="auto")
    axes[0].set(title="|weights|,\nlogarithmic", xlabel="channel read", ylabel="channel written")
    axes[0].grid(False)
    for panel, (name, values) in zip(axes[1:], codes.items()):
        panel.hist(values, bins=range(-127, 129, 3))
        panel.set(title=f"{name}:\n{right[name]:.1%} right", xlabel="code", yscale="log",
                  ylim=(0.7, 1.5 * weight.numel()))
    axes[1].set_ylabel("weights outside the channel")
    return figure

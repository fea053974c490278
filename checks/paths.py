"""The mistakes with the residual paths of lesson 4's blocks."""

from collections.abc import Iterable

import torch.nn.functional as F

from course.grading.checking import Mistake
from course.training.parts import build


def path_mistakes(ours, block: str) -> dict[str, Mistake]:
    """The mistakes with the residual path, around the layers of the block of this name."""

    class Swapped(ours.Residual):
        def __init__(self, *sizes):
            super().__init__(*sizes)
            self.pre = not self.pre

    def around(path):
        def make(*sizes, **options):
            return build(lambda: getattr(ours, block)(*sizes, **options), {"Residual": path})

        return make

    everywhere = with_paths(ours, block, no_path(ours), PATHS[block])
    return {
        "path after the norm": Mistake(
            "the path starts after the norm: x + layer(norm(x)), not norm(x) + …",
            around(behind_the_norm(ours)), "Pre-norm"),
        "no path": Mistake("the path around the layers is missing: x + layer(…)", everywhere, "Pre-norm"),
        "norms swapped": Mistake("norm='pre' and norm='post' are swapped", around(Swapped), "Pre-norm"),
    }


PATHS = {"EncoderBlock": {"around_attention": "attention", "around_feed_forward": "feed-forward network"},
         "DecoderBlock": {"around_self": "self-attention", "around_cross": "cross-attention",
                          "around_feed_forward": "feed-forward network"}}


def no_path(ours) -> type:
    """What is around a layer that has no path past it."""

    class NoPath(ours.Residual):
        def after(self, x, y):
            y = F.dropout(y, self.dropout, self.training)
            return y if self.pre else self.norm(y)

    return NoPath


def behind_the_norm(ours) -> type:
    """A path that starts after the norm where the norm comes first."""

    class BehindTheNorm(ours.Residual):
        def after(self, x, y):
            return super().after(self.norm(x) if self.pre else x, y)

    return BehindTheNorm


def with_paths(ours, block: str, path: type, names: Iterable[str]) -> type:
    """The block of this name with another path around some of its layers."""

    class Changed(getattr(ours, block)):
        def __init__(self, d_model, n_heads, d_ff, dropout=0.0, norm="pre", *others, **options):
            super().__init__(d_model, n_heads, d_ff, dropout, norm, *others, **options)
            for name in names:
                setattr(self, name, path(d_model, dropout, norm))

    return Changed


def more_path_mistakes(ours, block: str) -> dict[str, Mistake]:
    """Others with the path, that the lesson doesn't show."""

    class AlwaysPost(ours.Residual):
        def __init__(self, d_model, dropout, norm):
            super().__init__(d_model, dropout, "post")

    class AlwaysPre(ours.Residual):
        def __init__(self, d_model, dropout, norm):
            super().__init__(d_model, dropout, "pre")

    class NoNorm(ours.Residual):
        def before(self, x):
            return x

    class NormOnThePath(ours.Residual):
        def before(self, x):
            return x

        def after(self, x, y):
            return self.norm(x) + F.dropout(y, self.dropout, self.training)

    names = PATHS[block]
    without = {f"no path around the {layer}": Mistake(
        f"the path around the {layer} is missing: x + layer(…)",
        with_paths(ours, block, no_path(ours), [name]), "Pre-norm") for name, layer in names.items()}
    alone = {f"no path but around the {layer}": Mistake(
        f"only the {layer} has a path around it: x + layer(…) for every layer",
        with_paths(ours, block, no_path(ours), {*names} - {name}), "Pre-norm")
        for name, layer in names.items() if len(names) > 2}
    return without | alone | {
        "always post": Mistake("this is post-norm, whatever `norm` says; pre-norm is x + layer(norm(x))",
                               with_paths(ours, block, AlwaysPost, names), "Pre-norm"),
        "always pre": Mistake("this is pre-norm, whatever `norm` says; post-norm is norm(x + layer(x))",
                              with_paths(ours, block, AlwaysPre, names), "Post-norm"),
        "no norm": Mistake("with pre-norm the layers get norm(x), not x", with_paths(
            ours, block, NoNorm, names), "Pre-norm"),
        "norm on the path": Mistake(
            "this is norm(x) + layer(x): pre-norm is x + layer(norm(x)), post-norm is norm(x + layer(x))",
            with_paths(ours, block, NormOnThePath, names), "Pre-norm"),
    } | {
        f"path after the norm around the {layer}": Mistake(
            f"around the {layer} the path starts after the norm: x + layer(norm(x)), not norm(x) + …",
            with_paths(ours, block, behind_the_norm(ours), [name]), "Pre-norm")
        for name, layer in names.items()
    }

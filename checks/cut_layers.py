"""What must hold for lesson 13's linear maps that are cut over the ranks, and for their entrance and exit."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course.grading.checking import Mistake, Part, agree, at, random_tensors, randomised, refused, together
from course.training.ranks import in_threads

# ------------------------------------------------------------------ ToAll, FromAll


RANKS = 3
XS, FACTORS = random_tensors((RANKS, 4, 6), (RANKS, 4, 6))


def there_and_back(function: type) -> tuple[Tensor, Tensor]:
    """Outputs and input gradients of all ranks; the gradient that comes back differs from rank to rank."""

    def program(group):
        x = XS[group.rank].clone().requires_grad_()
        y = function.apply(x, group)
        (y * FACTORS[group.rank]).sum().backward()
        return y.detach(), x.grad

    outputs, gradients = zip(*in_threads(program, RANKS))
    return torch.stack(outputs), torch.stack(gradients)


def passes(implementation, ours):
    """ToAll gives each rank its input as it is."""
    return agree(there_and_back(implementation)[0], XS, axes="rank, token, number")


def sums_backward(implementation, ours):
    """In the backward pass ToAll gives each rank the sum of the gradients of all ranks."""
    return agree(there_and_back(implementation)[1], FACTORS.sum(0).expand_as(XS), axes="rank, token, number")


def to_all_mistakes(ours):
    """The classic mistake."""

    class NoSum(ours.ToAll):
        """Each rank keeps its own gradient."""

        @staticmethod
        def backward(ctx, gradient):
            return gradient, None

    return {"no sum backward at the entrance": Mistake(
        "each rank has the gradient of its own piece only: backward has to add up those of all ranks", NoSum,
        "In the backward pass ToAll")}


def more_to_all_mistakes(ours):
    """Another that the lesson doesn't show."""

    class SumForward(ours.ToAll):
        """It sums forward as well."""

        @staticmethod
        def forward(ctx, x, group):
            ctx.group = group
            return ours.ring_all_reduce(x, group)

    return {"sums forward": Mistake("at the entrance all ranks have the same input already: nothing is "
                                    "summed forward", SumForward, "ToAll gives each rank")}


to_all_checks = Part([passes, sums_backward], to_all_mistakes, more=more_to_all_mistakes,
                     needs="The checks call ToAll.apply(x, group).")


def sums_forward(implementation, ours):
    """FromAll gives each rank the sum of the inputs of all ranks."""
    return agree(there_and_back(implementation)[0], XS.sum(0).expand_as(XS), axes="rank, token, number")


def passes_backward(implementation, ours):
    """In the backward pass FromAll gives each rank its gradient as it is."""
    return agree(there_and_back(implementation)[1], FACTORS, axes="rank, token, number")


def from_all_mistakes(ours):
    """The classic mistake."""

    class SumBackward(ours.FromAll):
        """It sums backward as well."""

        @staticmethod
        def forward(ctx, x, group):
            ctx.group = group
            return ours.ring_all_reduce(x, group)

        @staticmethod
        def backward(ctx, gradient):
            return ours.ring_all_reduce(gradient, ctx.group), None

    return {"sum backward at the exit as well": Mistake(
        "after the exit all ranks compute the same thing, so each has the whole gradient already: a sum "
        "makes it P times too large", SumBackward, "In the backward pass FromAll")}


def more_from_all_mistakes(ours):
    """Another that the lesson doesn't show."""

    class Mean(ours.FromAll):
        """The mean in place of the sum."""

        @staticmethod
        def forward(ctx, x, group):
            return ours.ring_all_reduce(x, group) / group.size

    return {"mean": Mistake("the pieces of a product are added up, not averaged", Mean,
                            "FromAll gives each rank")}


from_all_checks = Part([sums_forward, passes_backward], from_all_mistakes, more=more_from_all_mistakes,
                       needs="The checks call FromAll.apply(x, group).")


# ------------------------------------------------------------------ ColumnLinear, RowLinear


X, FACTOR = random_tensors((2, 5, 6), (2, 5, 12), seed=1)


def whole_map(bias: bool = True, wide: bool = True) -> nn.Linear:
    """From 6 to 12 numbers, or from 12 to 6, always the same."""
    return randomised(nn.Linear(6, 12, bias) if wide else nn.Linear(12, 6, bias))


def gradients_of_whole(linear: nn.Linear, x: Tensor, factor: Tensor
                       ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Output, input gradient, and gradients of weight and bias."""
    x = x.clone().requires_grad_()
    y = linear(x)
    (y.sin() * factor).sum().backward()
    return y.detach(), x.grad, {name: p.grad for name, p in linear.named_parameters()}


def columns_on_each(implementation: type, bias: bool = True, ranks: int = RANKS) -> list[tuple]:
    """Of each rank's piece: output, input gradient, gradients of weight and bias by name, and how many
    numbers it learns."""

    def program(group):
        part = implementation(whole_map(bias), group)
        return (*gradients_of_whole(part, X, FACTOR.chunk(ranks, -1)[group.rank]), learned(part))

    return in_threads(program, ranks)


def rows_on_each(implementation: type, bias: bool = True, ranks: int = RANKS) -> list[tuple]:
    """The same for a map whose input is in pieces; the wide tensor is its input."""

    def program(group):
        part = implementation(whole_map(bias, wide=False), group)
        return (*gradients_of_whole(part, FACTOR.chunk(ranks, -1)[group.rank], X), learned(part))

    return in_threads(program, ranks)


def learned(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def gives_pieces(implementation, ours):
    """ColumnLinear gives each rank its piece of the output, with and without a bias, for 2, 3 and 4 ranks."""
    return together(*(at(f"{ranks} ranks, bias {bias}", agree(
        torch.cat([found[0] for found in columns_on_each(implementation, bias, ranks)], -1),
        whole_map(bias)(X), axes="batch, token, number")) for ranks in (2, 3, 4) for bias in (True, False)))


def has_the_whole_input_gradient(implementation, ours):
    """Each rank of a ColumnLinear gets the input gradient of the whole map."""
    _, expected, _ = gradients_of_whole(whole_map(), X, FACTOR)
    found = torch.stack([found[1] for found in columns_on_each(implementation)])
    return agree(found, expected.expand_as(found), axes="rank, batch, token, number")


def has_pieces_of_gradients(implementation, ours):
    """Weight and bias of a rank's ColumnLinear have that rank's piece of the whole map's gradients."""
    _, _, expected = gradients_of_whole(whole_map(), X, FACTOR)
    found = columns_on_each(implementation)
    return together(*(at(name, agree(torch.cat([one[2][name] for one in found]), expected[name]))
                      for name in expected))


def keeps_a_piece(implementation, ours):
    """Each rank of a ColumnLinear learns 1/P of the numbers of the whole map."""
    return agree(torch.tensor([found[3] for found in columns_on_each(implementation)]),
                 torch.tensor([learned(whole_map()) // RANKS] * RANKS), axes="rank")


def refuses_a_rest(implementation, ours):
    """ColumnLinear refuses outputs that don't split evenly, with a ValueError that names both numbers."""
    return refused(lambda: in_threads(partial(implementation, whole_map()), 5), 12, 5)


def column_mistakes(ours):
    """The classic mistakes, made from the course's own parts."""

    class NoEntrance(ours.ColumnLinear):
        """The input is read without ToAll."""

        def forward(self, x):
            return F.linear(x, self.weight, self.bias)

    class FirstPiece(ours.ColumnLinear):
        """Every rank takes the first piece."""

        def __init__(self, whole, group):
            super().__init__(whole, group)
            with torch.no_grad():
                for name, parameter in self.named_parameters():
                    parameter.copy_(getattr(whole, name)[: len(parameter)])

    return {
        "input read without ToAll": Mistake(
            "the outputs are right, but each rank has only its own part of the input's gradient: x goes "
            "through ToAll first", NoEntrance, "Each rank of a ColumnLinear gets"),
        "all ranks take the first piece": Mistake("every rank takes the first piece, not number group.rank",
                                                  FirstPiece, "ColumnLinear gives"),
    }


def more_column_mistakes(ours):
    """Another that the lesson doesn't show."""

    class Everything(nn.Linear):
        """The whole map on every rank; only the output is cut."""

        def __init__(self, whole, group):
            nn.Module.__init__(self)
            self.weight, self.bias, self.group = whole.weight, whole.bias, group

        def forward(self, x):
            whole = F.linear(ours.ToAll.apply(x, self.group), self.weight, self.bias)
            return whole.chunk(self.group.size, -1)[self.group.rank]

    return {"whole weights": Mistake("every rank keeps and trains the whole matrix: cut the weights, not the "
                                     "output", Everything, "Each rank of a ColumnLinear learns")}


column_checks = Part(
    [gives_pieces, has_the_whole_input_gradient, has_pieces_of_gradients, keeps_a_piece, refuses_a_rest],
    column_mistakes,
    more=more_column_mistakes,
    needs="The parameters are weight (O / P, I) and bias (O / P, or None), as in nn.Linear.",
)


def gives_the_whole_output(implementation, ours):
    """RowLinear gives every rank the whole output, with and without a bias, for 2, 3 and 4 ranks."""
    findings = []
    for ranks in (2, 3, 4):
        for bias in (True, False):
            found = torch.stack([one[0] for one in rows_on_each(implementation, bias, ranks)])
            expected = whole_map(bias, wide=False)(FACTOR).expand_as(found)
            findings.append(at(f"{ranks} ranks, bias {bias}",
                               agree(found, expected, axes="rank, batch, token, number")))
    return together(*findings)


def has_its_piece_of_the_input_gradient(implementation, ours):
    """Each rank of a RowLinear gets its piece of the whole map's input gradient."""
    _, expected, _ = gradients_of_whole(whole_map(wide=False), FACTOR, X)
    found = torch.cat([one[1] for one in rows_on_each(implementation)], -1)
    return agree(found, expected, axes="batch, token, number")


def has_gradients(implementation, ours):
    """The weight of a rank's RowLinear has that rank's piece of the gradient, the bias has all of it."""
    _, _, expected = gradients_of_whole(whole_map(wide=False), FACTOR, X)
    found = rows_on_each(implementation)
    biases = torch.stack([one[2]["bias"] for one in found])
    weights = torch.cat([one[2]["weight"] for one in found], -1)
    return together(at("weight", agree(weights, expected["weight"], axes="out, in")),
                    at("bias", agree(biases, expected["bias"].expand_as(biases), axes="rank, number")))


def keeps_columns(implementation, ours):
    """Each rank of a RowLinear learns 1/P of the weights, and the whole bias."""
    whole = whole_map(wide=False)
    return agree(torch.tensor([found[3] for found in rows_on_each(implementation)]),
                 torch.tensor([whole.weight.numel() // RANKS + 6] * RANKS), axes="rank")


def refuses_a_rest_of_columns(implementation, ours):
    """RowLinear refuses inputs that don't split evenly, with a ValueError that names both numbers."""
    return refused(lambda: in_threads(partial(implementation, whole_map(wide=False)), 5), 12, 5)


def row_mistakes(ours):
    """The classic mistakes, made from the course's own parts."""

    class EveryBias(ours.RowLinear):
        """Each rank adds the bias before the sum."""

        def forward(self, x):
            return ours.FromAll.apply(F.linear(x, self.weight, self.bias), self.group)

    class NoSum(ours.RowLinear):
        """The products of the pieces are not added up."""

        def forward(self, x):
            return F.linear(x, self.weight, self.bias)

    class SumBackward(ours.RowLinear):
        """The sum is summed again on the way back."""

        def forward(self, x):
            product = sum_both_ways(ours).apply(F.linear(x, self.weight), self.group)
            return product if self.bias is None else product + self.bias

    whole = "RowLinear gives"
    return {
        "bias on every rank": Mistake("every rank adds the bias before the sum, so it counts P times: add it "
                                      "once, after the sum", EveryBias, whole),
        "products not added up": Mistake("each rank has the product of its own columns: FromAll adds up "
                                         "the products",
                                         NoSum, whole),
        "gradient summed at the exit": Mistake(
            "backward at the exit must not sum: every rank has the whole gradient already", SumBackward,
            "Each rank of a RowLinear gets"),
    }


def sum_both_ways(ours) -> type:
    """FromAll with the sum backward as well."""
    return from_all_mistakes(ours)["sum backward at the exit as well"].implementation


row_checks = Part(
    [gives_the_whole_output, has_its_piece_of_the_input_gradient, has_gradients, keeps_columns,
     refuses_a_rest_of_columns],
    row_mistakes,
    needs="The parameters are weight (O, I / P) and bias (O, or None), as in nn.Linear.",
)

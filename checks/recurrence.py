"""What must hold for lesson 0's cells: RNNCell, LSTMCell and GRUCell(n_inputs, n_hidden)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from course.console.records import Finding
from course.grading.checking import (
    Mistake,
    Needed,
    Part,
    agree,
    gradients,
    gradients_agree,
    random_tensors,
    randomised,
    together,
)

INPUTS, HIDDEN = 3, 4
X, H, C = random_tensors((2, 5, INPUTS), (2, HIDDEN), (2, HIDDEN))  # 2 sequences of 5 steps, a state
NAMES = "weight_ih", "weight_hh", "bias_ih", "bias_hh"
AXES = "batch, number"


def copy_cell(ours: nn.Module, theirs: nn.Module) -> nn.Module:
    """`ours`, a cell, with the weights of PyTorch's network of one layer."""
    with torch.no_grad():
        for name in NAMES:
            mine, wanted = getattr(ours, name, None), getattr(theirs, f"{name}_l0")
            if mine is None or mine.shape != wanted.shape:
                found = "missing" if mine is None else f"of shape {tuple(mine.shape)}"
                raise Needed(f"{name} is {found}",
                             f"an nn.Parameter of shape {tuple(wanted.shape)} for {INPUTS} inputs and "
                             f"{HIDDEN} hidden units, as in PyTorch's cell")
            mine.copy_(wanted)
    return ours


def pair(kind: type, implementation: Callable) -> tuple[nn.Module, nn.Module]:
    """The implementation's cell and PyTorch's network, with the same weights, in float64."""
    theirs = randomised(kind(INPUTS, HIDDEN, batch_first=True))
    return copy_cell(implementation(INPUTS, HIDDEN).double(), theirs), theirs


def hidden_of(state) -> Tensor:
    """Only the hidden state: an LSTM's state is (hidden, memory)."""
    return state[0] if isinstance(state, tuple) else state


def steps_in_a_row(cell: nn.Module, x: Tensor, state=None) -> Tensor:
    """x (B, L, inputs) → (B, L, hidden)."""
    states = []
    for step in x.unbind(1):
        state = cell(step) if state is None else cell(step, state)
        states.append(hidden_of(state))
    return torch.stack(states, 1)


def given_state(kind: type) -> tuple[Tensor, ...] | Tensor:
    return (H, C) if kind is nn.LSTM else H


def for_pytorch(state):
    """The state as PyTorch's network wants it: an axis of layers in front."""
    return tuple(part[None] for part in state) if isinstance(state, tuple) else state[None]


def cell_claims(kind: type) -> list[Callable]:
    """The claims about a cell whose oracle is nn.RNN, nn.LSTM or nn.GRU."""
    name = kind.__name__

    def one_step(implementation, ours):
        cell, theirs = pair(kind, implementation)
        state = given_state(kind)
        found = cell(X[:, 0], state)
        expected, last = theirs(X[:, :1], for_pytorch(state))
        if kind is nn.LSTM:
            if not isinstance(found, tuple):
                return Finding(False, f"a {type(found).__name__} came back", "return hidden, memory")
            return together(agree(found[1], last[1][0], axes=AXES),
                            agree(found[0], expected[:, 0], axes=AXES))
        return agree(found, expected[:, 0], axes=AXES)

    def from_zeros(implementation, ours):
        cell, theirs = pair(kind, implementation)
        return agree(hidden_of(cell(X[:, 0])), theirs(X[:, :1])[0][:, 0], axes=AXES)

    def in_a_row(implementation, ours):
        cell, theirs = pair(kind, implementation)
        return agree(steps_in_a_row(cell, X), theirs(X)[0], axes="batch, step, number")

    def learns(implementation, ours):
        cell, theirs = pair(kind, implementation)
        steps_in_a_row(cell, X).sin().sum().backward()
        theirs(X)[0].sin().sum().backward()
        return gradients_agree(cell, theirs, copy_cell)

    def passes_on(implementation, ours):
        cell, theirs = pair(kind, implementation)
        state = given_state(kind)
        parts = [X, *(state if isinstance(state, tuple) else [H])]
        leaves = [part.clone().requires_grad_() for part in parts]
        first = tuple(leaves[1:]) if kind is nn.LSTM else leaves[1]
        found = gradients(steps_in_a_row(cell, leaves[0], first).sin().sum(), leaves)
        return agree(found, gradients(theirs(leaves[0], for_pytorch(first))[0].sin().sum(), leaves))

    one_step.__doc__ = f"One step from a given state equals nn.{name}'s."
    from_zeros.__doc__ = "Without a state the cell starts from zeros."
    in_a_row.__doc__ = f"Five steps in a row equal nn.{name}'s."
    learns.__doc__ = "The gradients of all four parameters equal PyTorch's, through five steps."
    passes_on.__doc__ = "The gradients of the inputs and of the initial state equal PyTorch's."
    return [one_step, from_zeros, in_a_row, learns, passes_on]


STEP = "One step"


def rnn_mistakes(ours):
    class NoTanh(ours.RNNCell):
        def forward(self, x, hidden=None):
            return self.from_input(x) + self.from_hidden(self.zeros(x) if hidden is None else hidden)

    class Forgetful(ours.RNNCell):
        def forward(self, x, hidden=None):
            return super().forward(x)

    class StateDetached(ours.RNNCell):
        def forward(self, x, hidden=None):
            return super().forward(x, None if hidden is None else hidden.detach())

    class OneBias(ours.RNNCell):
        def from_hidden(self, hidden):
            return hidden @ self.weight_hh.mT + 0.0 * self.bias_hh

    return {
        "tanh left out": Mistake("the tanh around the sum is missing", NoTanh, STEP),
        "state not used": Mistake("the given state has no effect: add W_hh·h", Forgetful, STEP),
        "state detached": Mistake("the state is detached: no gradient gets to earlier steps", StateDetached,
                                  "The gradients of all"),
        "one bias": Mistake("PyTorch's cells have two biases: b_ih and b_hh", OneBias, STEP),
    }


def lstm_mistakes(ours):
    class Reordered(ours.LSTMCell):
        """The blocks of rows are taken in another order."""

        order: tuple[int, ...]

        def forward(self, x, state=None):
            hidden, memory = (self.zeros(x), self.zeros(x)) if state is None else state
            blocks = (self.from_input(x) + self.from_hidden(hidden)).chunk(4, dim=-1)
            let_in, keep, content, show = (blocks[place] for place in self.order)
            memory = torch.sigmoid(keep) * memory + torch.sigmoid(let_in) * torch.tanh(content)
            return torch.sigmoid(show) * torch.tanh(memory), memory

    class InputAndForget(Reordered):
        order = 1, 0, 2, 3

    class ContentAndOutput(Reordered):
        order = 0, 1, 3, 2

    class OutputBeforeContent(Reordered):
        order = 1, 0, 3, 2

    class ShownRaw(ours.LSTMCell):
        def forward(self, x, state=None):
            hidden, memory = super().forward(x, state)
            return hidden / torch.tanh(memory) * memory, memory

    class Handed(ours.LSTMCell):
        def forward(self, x, state=None):
            return super().forward(x, state)[::-1]

    order = "PyTorch's blocks are input, forget, content, output"
    return {
        "input and forget gate swapped": Mistake(f"input and forget gates are swapped: {order}",
                                                 InputAndForget, STEP),
        "content and output gate swapped": Mistake(f"content and output gate are swapped: {order}",
                                                   ContentAndOutput, STEP),
        "two pairs swapped": Mistake(f"yours are forget, input, output, content: {order}",
                                       OutputBeforeContent, STEP),
        "memory shown without tanh": Mistake("the memory is shown without its tanh: show · tanh(memory)",
                                             ShownRaw, STEP),
        "memory first": Mistake("(memory, hidden) came back: the hidden state comes first", Handed, STEP),
    }


def gru_mistakes(ours):
    class ResetBefore(ours.GRUCell):
        """The reset gate multiplies the state before the matrix, as in the paper."""

        def forward(self, x, hidden=None):
            hidden = self.zeros(x) if hidden is None else hidden
            reset_x, update_x, content_x = self.from_input(x).chunk(3, dim=-1)
            reset_h, update_h, _ = self.from_hidden(hidden).chunk(3, dim=-1)
            reset, update = torch.sigmoid(reset_x + reset_h), torch.sigmoid(update_x + update_h)
            content = torch.tanh(content_x + self.from_hidden(reset * hidden).chunk(3, dim=-1)[2])
            return update * hidden + (1 - update) * content

    class Rearranged(ours.GRUCell):
        swap_gates = turn_update = False

        def forward(self, x, hidden=None):
            hidden = self.zeros(x) if hidden is None else hidden
            of_x, of_h = self.from_input(x).chunk(3, dim=-1), self.from_hidden(hidden).chunk(3, dim=-1)
            first, second = torch.sigmoid(of_x[0] + of_h[0]), torch.sigmoid(of_x[1] + of_h[1])
            reset, update = (second, first) if self.swap_gates else (first, second)
            content = torch.tanh(of_x[2] + reset * of_h[2])
            kept, taken = (content, hidden) if self.turn_update else (hidden, content)
            return update * kept + (1 - update) * taken

    class UpdateTurned(Rearranged):
        turn_update = True

    class GatesSwapped(Rearranged):
        swap_gates = True

    return {
        "reset in the other place": Mistake(
            "the reset gate multiplies the state before the matrix, as in the paper; PyTorch multiplies "
            "W_hh·h + b_hh", ResetBefore, STEP),
        "update gate turned round": Mistake("the update gate is reversed: it should say how much of the old "
                                            "state is kept", UpdateTurned, STEP),
        "gates swapped": Mistake("reset and update gates are swapped: PyTorch's blocks are reset, update, "
                                 "content", GatesSwapped, STEP),
    }


def needs(rows: str, state: str) -> str:
    return (f"The checks copy PyTorch's weights into weight_ih ({rows}, inputs), weight_hh ({rows}, hidden), "
            f"bias_ih and bias_hh ({rows},), and call cell(x, {state}) and cell(x).")


rnn_checks = Part(
    cell_claims(nn.RNN), rnn_mistakes, needs=needs("hidden", "hidden"),
)
lstm_checks = Part(
    cell_claims(nn.LSTM), lstm_mistakes, needs=needs("4·hidden", "(hidden, memory)"),
)
gru_checks = Part(
    cell_claims(nn.GRU), gru_mistakes, needs=needs("3·hidden", "hidden"),
)

"""The figures that tools have for recurrent layers: so much for each step of a sequence, not all of it products.

A tool's figure is taken apart by its own convention: its elementwise work, its biases, the steps that it counts and a
sequence does not have, and what it takes a projected hidden state for. What is left are the products.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from flopcuda.tools.kinds import BIAS, NO_STEPS, PROJECTIONS, RECURRENT_ELEMENTWISE

Recurrent = nn.RNNBase | nn.RNNCellBase
Input = Tensor | PackedSequence


def real_steps(module: Recurrent, input: Input) -> int:
    """How often each cell of a layer runs: the steps of all sequences."""
    if isinstance(input, PackedSequence):
        return len(input.data)
    return input.shape[:-1].numel()


def steps_of_a_batch(module: Recurrent, input: Tensor) -> int:
    """How often it is taken to run by a tool that takes an input for a batch, also where it is a single sequence."""
    return input.shape[: 2 if isinstance(module, nn.RNNBase) else 1].numel()


def real_products(module: Recurrent) -> int:
    """The multiply-accumulates of one step: one for each weight, with those of projections."""
    return sum(weight.numel() for name, weight in module.named_parameters() if name.startswith("weight"))


@dataclass(frozen=True)
class Convention:
    """What a tool counts for one step, and how many steps it takes an input for.

    Attributes:
        elementwise: operations for each element of the hidden state, by the number of the cell's gates.
        steps: from a module and its input; of what really runs by default, as the next.
        products: from a module, of one step.
    """

    elementwise: Mapping[int, int]
    steps: Callable[[Recurrent, Any], int] = real_steps
    products: Callable[[Recurrent], int] = real_products

    def parts(self, module: Recurrent, input: Input) -> Mapping[str, int]:
        """All of the tool's figure for one call but the products that the call makes, by kind."""
        counted, real = self.steps(module, input), real_steps(module, input)
        units = cells(module) * module.hidden_size
        return {
            RECURRENT_ELEMENTWISE: counted * units * self.elementwise[gates(module)],
            BIAS: counted * units * 2 * gates(module) if module.bias else 0,
            NO_STEPS: (counted - real) * self.products(module),
            PROJECTIONS: real * (self.products(module) - real_products(module)),
        }


def cells(module: Recurrent) -> int:
    """A cell for each layer and direction."""
    return module.num_layers * (2 if module.bidirectional else 1) if isinstance(module, nn.RNNBase) else 1


def gates(module: Recurrent) -> int:
    """How many vectors of the hidden size a cell computes from input and state, the candidate state among them."""
    if isinstance(module, nn.LSTM | nn.LSTMCell):
        return 4
    return 3 if isinstance(module, nn.GRU | nn.GRUCell) else 1

"""torch.utils.flop_counter: a dispatch mode with a formula for each matrix product and convolution."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from flopcuda.tools.kinds import MULTIPLY_ACCUMULATE
from flopcuda.tools.tool import Figure, Observation, Tool, child_names, first_names


def observe(model: nn.Module, inputs: tuple[Any, ...]) -> Observation:
    """Run the model under ``FlopCounterMode`` and read its figures by module."""
    with FlopCounterMode(display=False) as mode:
        model(*inputs)
    names = first_names(model)
    root = type(model).__name__
    # It calls the model by its class and the rest by their path below that.
    by_module = {
        place.removeprefix(root).removeprefix("."): sum(operators.values())
        for place, operators in mode.get_flop_counts().items()
        if place != "Global"
    }
    own = dict(by_module)
    # A module's figure includes those of the modules in it.
    for parent, child in child_names(list(by_module)):
        own[parent] = own.get(parent, 0) - by_module[child]
    figures = tuple(Figure(names[place], MULTIPLY_ACCUMULATE, amount) for place, amount in own.items())
    return Observation(mode.get_total_flops(), figures)


TOOL = Tool(
    name="torch FlopCounterMode",
    package="torch",
    distributions=("torch",),
    unit="FLOPs = 2 x MACs",
    convention="2 FLOPs a MAC of every convolution and matrix product, without a bias, and nothing else",
    per_mac=2,
    counts_bias=False,
    observe=observe,
)

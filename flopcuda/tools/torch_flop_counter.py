"""torch.utils.flop_counter: a dispatch mode with a formula for each matrix product and convolution."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from flopcuda.tools.kinds import MULTIPLY_ACCUMULATE
from flopcuda.tools.running import running_modules
from flopcuda.tools.tool import Figure, Observation, Tool
from flopcuda.tools.unseen import FusedAttention


def observe(model: nn.Module, inputs: tuple[Any, ...]) -> Observation:
    """Run the model under ``FlopCounterMode``; what its total grows by belongs to the module that runs."""
    figures: list[Figure] = []
    total = 0

    def charge(module: str) -> None:
        nonlocal total
        grown = mode.get_total_flops() - total
        figures.append(Figure(module, MULTIPLY_ACCUMULATE, grown))
        total += grown

    with (
        running_modules(model, before_change=charge) as running,
        FusedAttention(running, flop_registry) as attention,
        FlopCounterMode(display=False) as mode,
    ):
        model(*inputs)
    return Observation(mode.get_total_flops(), tuple(figures), tuple(attention.unseen))


TOOL = Tool(
    name="torch FlopCounterMode",
    package="torch",
    distributions=("torch",),
    unit="FLOPs = 2 x MACs",
    convention="2 FLOPs a MAC of every convolution and matrix product, without a bias, and nothing else",
    per_mac=2,
    observe=observe,
)

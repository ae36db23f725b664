"""torch.utils.flop_counter: a dispatch mode with a formula for each matrix product and convolution."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from flopcuda.tools.kinds import MULTIPLY_ACCUMULATE
from flopcuda.tools.running import running_modules
from flopcuda.tools.tool import Figure, Observation, Tool
from flopcuda.tools.unseen import FusedAttention


class Charges:
    """Figures by module: what a mode's total grows by belongs to the module that runs.

    Call it with the module's name before another one runs.
    """

    def __init__(self, mode: FlopCounterMode) -> None:
        self._mode = mode
        self._charged = 0
        self.figures: list[Figure] = []

    def __call__(self, module: str) -> None:
        total = self._mode.get_total_flops()
        self.figures.append(Figure(module, MULTIPLY_ACCUMULATE, total - self._charged))
        self._charged = total


def observe(model: nn.Module, inputs: tuple[Any, ...]) -> Observation:
    """Run the model under ``FlopCounterMode``."""
    mode = FlopCounterMode(display=False)
    charges = Charges(mode)
    with (
        running_modules(model, before_change=charges) as running,
        FusedAttention(running, flop_registry) as attention,
        mode,
    ):
        model(*inputs)
    return Observation(mode.get_total_flops(), tuple(charges.figures), tuple(attention.unseen))


TOOL = Tool(
    name="torch FlopCounterMode",
    package="torch",
    distributions=("torch",),
    unit="FLOPs = 2 x MACs",
    convention="2 FLOPs a MAC of every convolution and matrix product, without a bias, and nothing else",
    per_mac=2,
    observe=observe,
)

"""fvcore: traces the model with torch.jit and adds up a formula for each operator of the trace."""

from __future__ import annotations

import importlib
from typing import Any

from torch import nn

from flopcuda.tools import kinds
from flopcuda.tools.tool import Figure, Observation, Tool, whole

_KIND_OF_OPERATOR = {
    "conv": kinds.MULTIPLY_ACCUMULATE,
    "linear": kinds.MULTIPLY_ACCUMULATE,
    "addmm": kinds.MULTIPLY_ACCUMULATE,
    "mm": kinds.MULTIPLY_ACCUMULATE,
    "bmm": kinds.MULTIPLY_ACCUMULATE,
    "matmul": kinds.MULTIPLY_ACCUMULATE,
    "einsum": kinds.MULTIPLY_ACCUMULATE,
    "batch_norm": kinds.BATCH_NORM,
    "layer_norm": kinds.LAYER_NORM,
    "group_norm": kinds.GROUP_NORM,
    "instance_norm": kinds.INSTANCE_NORM,
    "adaptive_avg_pool2d": kinds.AVERAGE_POOL,
    "upsample_nearest2d": kinds.UPSAMPLE,
    "upsample_bilinear2d": kinds.UPSAMPLE,
    "grid_sampler": kinds.GRID_SAMPLE,
}


def observe(model: nn.Module, inputs: tuple[Any, ...]) -> Observation:
    """Run ``FlopCountAnalysis`` and read its figures by module and operator."""
    analysis = importlib.import_module(TOOL.package).FlopCountAnalysis(model, inputs)
    by_module = analysis.by_module_and_operator()
    own = {name: dict(operators) for name, operators in by_module.items()}
    # A module's figures include those of the modules in it.
    for name, operators in by_module.items():
        parent = name.rpartition(".")[0]
        for operator, amount in operators.items() if name else ():
            own[parent][operator] -= amount
    figures = tuple(
        Figure(name, _KIND_OF_OPERATOR.get(operator), whole(amount))
        for name, operators in own.items()
        for operator, amount in operators.items()
    )
    return Observation(whole(analysis.total()), figures)


TOOL = Tool(
    name="fvcore",
    package="fvcore.nn",
    distributions=("fvcore",),
    unit="MACs",
    convention=(
        "one flop is one MAC: convolution and matrix products without a bias, batch norm at 2 per element in eval mode "
        "and 5 in train mode (1 and 4 without affine parameters), adaptive average pool at 1 per input; in the model's "
        "own mode, activations and max pool unseen"
    ),
    per_mac=1,
    counts_bias=False,
    observe=observe,
)

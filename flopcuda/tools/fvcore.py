"""fvcore: traces the model with torch.jit and adds up a formula for each operator of the trace."""

from __future__ import annotations

import importlib
from math import prod
from typing import Any

from torch import nn

from flopcuda.tools import kinds
from flopcuda.tools.running import running_modules
from flopcuda.tools.tool import Figure, Observation, Tool, Unseen, whole
from flopcuda.tools.unseen import FusedAttention

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
    own = _own_figures(analysis)
    figures = [
        Figure(name, _KIND_OF_OPERATOR.get(operator), whole(amount))
        for name, operators in own.items()
        for operator, amount in operators.items()
    ]
    if any("einsum" in operators for operators in own.values()):
        exact = importlib.import_module(TOOL.package).FlopCountAnalysis(model, inputs)
        exact.set_op_handle("aten::einsum", _einsum)
        for name, operators in _own_figures(exact).items():
            digits = whole(own[name]["einsum"] - operators["einsum"]) if "einsum" in operators else 0
            figures += [
                Figure(name, kinds.EINSUM_DIGITS, digits),
                Figure(name, kinds.MULTIPLY_ACCUMULATE, -digits),
            ]
    return Observation(whole(analysis.total()), tuple(figures), tuple(_unseen(analysis, model, inputs)))


def _own_figures(analysis: Any) -> dict[str, dict[str, float]]:
    """By module and operator; without those of the modules inside, which fvcore includes."""
    by_module = analysis.by_module_and_operator()
    own = {name: dict(operators) for name, operators in by_module.items()}
    for name, operators in by_module.items():
        parent = name.rpartition(".")[0]
        for operator, amount in operators.items() if name else ():
            own[parent][operator] -= amount
    return own


def _einsum(inputs: list[Any], outputs: list[Any]) -> int:
    """What fvcore's rule comes to before numpy rounds it: the product of the sizes of all indices."""
    factors = inputs[0].toIValue().replace(" ", "").partition("->")[0].split(",")
    shapes = [value.type().sizes() for value in inputs[1].node().inputs()]
    pairs = (pair for letters, shape in zip(factors, shapes, strict=True) for pair in zip(letters, shape, strict=True))
    return prod(dict(pairs).values())


def _unseen(analysis: Any, model: nn.Module, inputs: tuple[Any, ...]) -> list[Unseen]:
    """Fused attention, if the trace had any; in a pass of its own, because a dispatch mode would change the trace."""
    if "aten::scaled_dot_product_attention" not in analysis.unsupported_ops():
        return []
    with running_modules(model) as running, FusedAttention(running, known=()) as attention:
        model(*inputs)
    return list(attention.unseen)


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
    observe=observe,
)

"""The article's headline of 2021: what thop printed then for ResNet-50 at batch 4, accounted for today."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod
from typing import Any

from torch import Tensor, nn

from flopcuda.tools.kinds import AVERAGE_POOL, BATCH_NORM
from flopcuda.tools.ledger import COUNTED
from flopcuda.tools.report import CountedLayer, Term, ToolReport
from flopcuda.tools.sandbox import NotCopyableError, copy_of, quiet

# "FLOPs = 16.446058496G", "Params = 25.557032M", printed for a batch of four 3x224x224 images.
REPORTED = 16_446_058_496
PARAMETERS = 25_557_032
INPUT_SHAPE = (4, 3, 224, 224)

_ADAPTIVE_POOLS = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)


def article_2021(model: nn.Module, inputs: tuple[Any, ...], counted: Mapping[str, CountedLayer]) -> ToolReport | None:
    """Account for the number that the article gives for ResNet-50.

    The thop of that time gave 2 per element for batch norm, and for an adaptive average pool one addition an element of
    the window and one division per output. The elements are observed in one forward pass of a copy of the model.

    Args:
        model: the model itself, not instrumented.
        inputs: its positional arguments.
        counted: what was counted on the device for the same inputs, by the layer's name.

    Returns:
        The report, with an error instead of a ledger when the model cannot be copied; None when the model and the input
        are not the article's, judged by the number of parameters and the input's shape.
    """
    if not _is_the_articles(model, inputs):
        return None
    report = ToolReport(
        name="thop (the article)",
        version="2021",
        unit="MACs",
        convention=(
            "MACs of convolution and linear layers, batch norm at 2 per element, adaptive average pool at its "
            'window + 1 per output; printed as "FLOPs = 16.446058496G"'
        ),
        reported=REPORTED,
        ledger=(),
        unexplained=None,
        error=None,
    )
    try:
        observed = _observe(model, inputs)
    except NotCopyableError as error:
        return replace(report, reported=None, error=str(error))
    terms = (
        Term(COUNTED, sum(layer.mul for layer in counted.values())),
        Term(f"{BATCH_NORM} (2 per element)", observed[BATCH_NORM]),
        Term(f"{AVERAGE_POOL} (window + 1 per output)", observed[AVERAGE_POOL]),
    )
    return replace(report, ledger=terms, unexplained=REPORTED - sum(term.amount for term in terms))


def _is_the_articles(model: nn.Module, inputs: tuple[Any, ...]) -> bool:
    return (
        len(inputs) == 1
        and isinstance(inputs[0], Tensor)
        and tuple(inputs[0].shape) == INPUT_SHAPE
        and sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS
    )


def _observe(model: nn.Module, inputs: tuple[Any, ...]) -> dict[str, int]:
    """The operations of batch norm and average pool in one forward pass, by the rules of thop in 2021."""
    operations = {BATCH_NORM: 0, AVERAGE_POOL: 0}

    def batch_norm(_: nn.Module, arguments: tuple[Tensor, ...], __: Tensor) -> None:
        operations[BATCH_NORM] += 2 * arguments[0].numel()

    def average_pool(_: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        window = prod(size // out for size, out in zip(arguments[0].shape[2:], output.shape[2:], strict=True))
        operations[AVERAGE_POOL] += (window + 1) * output.numel()

    with quiet(model):
        spoilable, arguments = copy_of(model, inputs)
        for module in spoilable.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.register_forward_hook(batch_norm)
            elif isinstance(module, _ADAPTIVE_POOLS):
                module.register_forward_hook(average_pool)
        spoilable(*arguments)
    return operations

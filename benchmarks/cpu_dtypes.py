"""Counted layers of other dtypes than float32 on the CPU beside torch's own operators."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.counting_cost import LAYERS
from benchmarks.side_by_side import paired_ratios, repeat, repetitions
from flopcuda import ops
from tests.cpu_kernels.oracle import ConvCase, LinearCase

DTYPES = (torch.float64, torch.bfloat16, torch.float16)
LEAST_SECONDS = 0.01  # of a timing of torch's, which takes a hundred times as long as ours in some of these


def dtype_times(rounds: int) -> list[dict[str, Any]]:
    """For each dtype and each of :data:`counting_cost.LAYERS`, the median of paired ratios to torch's time."""
    with torch.no_grad():
        return [
            {"dtype": str(dtype).removeprefix("torch."), "layer": name, "ratio": _ratio(case, dtype, rounds)}
            for dtype in DTYPES
            for name, case in LAYERS.items()
        ]


def _ratio(case: ConvCase | LinearCase, dtype: torch.dtype, rounds: int) -> float:
    counted, original = layer_in(case, dtype)
    times = repetitions(original, LEAST_SECONDS)
    return statistics.median(paired_ratios(repeat(counted, times), repeat(original, times), rounds))


def layer_in(case: ConvCase | LinearCase, dtype: torch.dtype) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
    """The counted operator and torch's, on operands of a dtype."""
    input, weight, bias = (None if operand is None else operand.to(dtype) for operand in case.tensors())
    assert input is not None
    assert weight is not None
    if isinstance(case, LinearCase):
        return lambda: ops.linear(input, weight, bias)[0], lambda: functional.linear(input, weight, bias)
    geometry = (case.stride, case.torch_padding, case.dilation, case.groups)
    before = case.pad_before  # both sides of an axis are alike in these layers
    return (
        lambda: ops.conv2d(input, weight, bias, *geometry)[0],
        lambda: functional.conv2d(input, weight, bias, case.stride, before, case.dilation, case.groups),
    )

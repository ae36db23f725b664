"""Large dense products and convolutions on one thread: the rate that the counted kernels reach."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from flopcuda import ops


def dense_rates(rounds: int) -> list[dict[str, Any]]:
    """FLOPS of each, by the median of so many runs after one of warm-up."""
    square = torch.randn(2048, 2048)
    images, pointwise = torch.randn(1, 256, 56, 56), torch.randn(256, 256, 1, 1)
    padded = torch.randn(256, 256, 3, 3)
    runs: dict[str, Callable[[], tuple[torch.Tensor, torch.Tensor]]] = {
        "linear 2048x2048x2048": lambda: ops.linear(square, square),
        "conv 1x1, 256 to 256 channels, 56x56": lambda: ops.conv2d(images, pointwise),
        "conv 3x3, 256 to 256 channels, 56x56": lambda: ops.conv2d(images, padded, padding=(1, 1, 1, 1)),
    }
    return [{"what": what, "flops": _rate(run, rounds)} for what, run in runs.items()]


def _rate(run: Callable[[], tuple[torch.Tensor, torch.Tensor]], rounds: int) -> float:
    durations = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        _, counters = run()
        durations.append(time.perf_counter() - start)
    flops = int(counters[:2].sum())  # mul + add
    return flops / statistics.median(durations[1:])

"""Large dense products and convolutions on one thread: what the counted kernels reach of the machine's peak.

The peak is measured anew beside every run: other programs that share the core's units slow both. What measures it is a
program that reads far more than the caches hold, and a run that is not timed puts them back.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.machine_peak import measure_peak
from flopcuda import ops


def dense_rates(rounds: int) -> list[dict[str, Any]]:
    """FLOPS of each and its share of the peak, both by the median of so many runs."""
    square = torch.randn(2048, 2048)
    images, pointwise = torch.randn(1, 256, 56, 56), torch.randn(256, 256, 1, 1)
    padded = torch.randn(256, 256, 3, 3)
    runs: dict[str, Callable[[], tuple[torch.Tensor, torch.Tensor]]] = {
        "linear 2048x2048x2048": lambda: ops.linear(square, square),
        "conv 1x1, 256 to 256 channels, 56x56": lambda: ops.conv2d(images, pointwise),
        "conv 3x3, 256 to 256 channels, 56x56": lambda: ops.conv2d(images, padded, padding=(1, 1, 1, 1)),
    }
    return [{"what": what, **_rate(run, rounds)} for what, run in runs.items()]


def _rate(run: Callable[[], tuple[torch.Tensor, torch.Tensor]], rounds: int) -> dict[str, float]:
    rates, shares = [], []
    for _ in range(rounds):
        peak = measure_peak(threads=1, rounds=1).flops
        run()
        start = time.thread_time()  # as the peak's: another program on this core takes nothing from the rate
        _, counters = run()
        seconds = time.thread_time() - start
        rates.append(int(counters[:2].sum()) / seconds)  # mul + add
        shares.append(rates[-1] / peak)
    return {"flops": statistics.median(rates), "share": statistics.median(shares)}

"""What the benchmarks share: two things timed in turn, and the name of the processor."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from pathlib import Path


def paired_ratios(first: Callable[[], object], second: Callable[[], object], rounds: int) -> list[float]:
    """Duration of ``first`` over that of ``second``, run in turn, once for each round after one of warm-up."""
    ratios = []
    for _ in range(rounds + 1):
        durations = []
        for run in (first, second):
            start = time.perf_counter()
            run()
            durations.append(time.perf_counter() - start)
        ratios.append(durations[0] / durations[1])
    return ratios[1:]


def cpu_name() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.processor())

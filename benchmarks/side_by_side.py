"""What the benchmarks share: two things timed in turn, memory that stays, and the name of the processor."""

from __future__ import annotations

import ctypes
import platform
import time
from collections.abc import Callable
from pathlib import Path

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def paired_times(
    first: Callable[[], object],
    second: Callable[[], object],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[list[float], list[float]]:
    """Durations by a clock in seconds of both, run in turn, once for each round after one of warm-up."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds + 1):
        for run, durations in zip((first, second), times, strict=True):
            start = clock()
            run()
            durations.append(clock() - start)
    return times[0][1:], times[1][1:]


def paired_ratios(
    first: Callable[[], object],
    second: Callable[[], object],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> list[float]:
    """Duration of ``first`` over that of ``second``, as :func:`paired_times` has them."""
    return [mine / other for mine, other in zip(*paired_times(first, second, rounds, clock), strict=True)]


def repetitions(run: Callable[[], object], least_seconds: float) -> int:
    """How often to run something that is too short to time, by one run of it."""
    start = time.perf_counter()
    run()
    return max(1, round(least_seconds / (time.perf_counter() - start)))


def repeat(run: Callable[[], object], times: int) -> Callable[[], None]:
    """What runs it so many times."""

    def repeated() -> None:
        for _ in range(times):
            run()

    return repeated


def keep_memory() -> None:
    """Have malloc give none back to the system, where it is glibc's.

    Otherwise one of two pays for new pages as chance has it. In some processes, either of two densenet121 gets 30,000
    of them at every call, which is a third of its time, and in others none.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def cpu_name() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.processor())

"""What counting costs the CPU kernels: they are built twice, as they are and without counters, and timed in turn.

``python -m benchmarks.counting_cost [--rounds N]`` prints, for layers of the benchmarked models on one thread, the
time with counters over the time without. The build without leaves out every increment and what only counting needs of
the packing; it exists here alone.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from benchmarks.side_by_side import paired_ratios, repeat, repetitions
from tests.cpu_kernels import Counters, Kernels, build_kernels
from tests.cpu_kernels.oracle import ConvCase, LinearCase, Tensors
from tests.patches import Patch

WITHOUT_COUNTERS = (
    Patch("tally.h", "total_ += number;", "static_cast<void>(number);"),
    Patch("taps.h", "if (!slices.contains(z) ||", "return Padding::kNone;\n    if (!slices.contains(z) ||"),
)
SAME = (1, 1, 1, 1)  # padding that keeps the size of an image under a kernel of 3 x 3

LAYERS: dict[str, ConvCase | LinearCase] = {
    "first convolution, 7 x 7": ConvCase(1, 3, (224, 224), 64, (7, 7), (2, 2), (3, 3, 3, 3)),
    "convolution, 3 x 3, 64 channels": ConvCase(1, 64, (56, 56), 64, padding=SAME),
    "convolution, 3 x 3, 512 channels": ConvCase(1, 512, (7, 7), 512, padding=SAME),
    "convolution, 3 x 3, stride 2": ConvCase(1, 128, (56, 56), 128, stride=(2, 2), padding=SAME),
    "pointwise, 256 to 64 channels": ConvCase(1, 256, (56, 56), 64, (1, 1)),
    "pointwise, 512 to 2048 channels": ConvCase(1, 512, (7, 7), 2048, (1, 1)),
    "depthwise, 3 x 3": ConvCase(1, 144, (56, 56), 144, padding=SAME, groups=144),
    "depthwise, 7 x 7": ConvCase(1, 384, (14, 14), 384, (7, 7), padding=(3, 3, 3, 3), groups=384),
    "linear, 197 rows": LinearCase(197, 768, 3072, bias=True),
    "linear, 1 row": LinearCase(1, 2048, 1000, bias=True),
}
LEAST_SECONDS = 0.03  # of a timing: a short layer is repeated


def counting_cost(rounds: int) -> list[dict[str, Any]]:
    """For each of :data:`LAYERS`, the median and all paired ratios of its time with counters over that without.

    Raises:
        RuntimeError: the compiler, ``$CXX`` or c++, fails.
        ValueError: the sources no longer hold what the build without counters leaves out.
    """
    builds = build_kernels(), build_kernels(WITHOUT_COUNTERS)
    for kernels in builds:
        kernels.set_num_threads(1)
    return [_cost(name, case, builds, rounds) for name, case in LAYERS.items()]


def _cost(name: str, case: ConvCase | LinearCase, builds: Sequence[Kernels], rounds: int) -> dict[str, Any]:
    operands = case.tensors()  # the same for both builds: where they lie in memory matters too
    runs = [layer_run(kernels, case, operands) for kernels in builds]
    times = repetitions(runs[0], LEAST_SECONDS)
    ratios = paired_ratios(*(repeat(run, times) for run in runs), rounds, time.thread_time)
    return {"layer": name, "median": statistics.median(ratios), "ratios": ratios}


def layer_run(
    kernels: Kernels, case: ConvCase | LinearCase, operands: Tensors, count_zero: bool = False
) -> Callable[[], tuple[torch.Tensor, Counters]]:
    """Computes a layer by the kernels of a build."""
    run, problem = kernels.conv if isinstance(case, ConvCase) else kernels.linear, case.problem
    return lambda: run(problem, *operands, count_zero=count_zero)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=21)
    rows = counting_cost(parser.parse_args().rounds)
    for row in rows:
        print(f"{row['layer']:34} {row['median']:.3f}")
    print(f"{'median':34} {statistics.median(row['median'] for row in rows):.3f}")


if __name__ == "__main__":
    main()

"""Speed of the PTX machine on the counted CUDA kernels: lane-instructions a second, and what its checks cost.

Prints tables and writes JSON. A launch is planned as for a GPU. ``python -m benchmarks.ptxvm [--output FILE]``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torchvision
from rich.console import Console
from rich.table import Table

import flopcuda
from benchmarks.side_by_side import cpu_name, paired_ratios
from flopcuda import _C, _ptxvm, ptx
from flopcuda.kernels.observation import problem_for
from flopcuda.ptx_backend import MachineBackend, PlannedLaunch, plan

KERNEL = "flopcuda_linear_f32_128x128x16"
MODELS = {"resnet18": 64, "resnet50": 224}  # images of so many pixels a side


def rates(launch: Callable[[], ptx.LaunchResult], rounds: int) -> dict[str, float]:
    """Millions of lane-instructions a second of wall time, and of processor time, which other programs don't take."""
    per_second, per_processor_second = [], []
    for _ in range(rounds + 1):
        start, processor_start = time.perf_counter(), time.process_time()
        executed = launch().lane_instructions / 1e6
        per_second.append(executed / (time.perf_counter() - start))
        per_processor_second.append(executed / (time.process_time() - processor_start))
    return {
        "min": min(per_second[1:]),
        "median": statistics.median(per_second[1:]),
        "max": max(per_second[1:]),
        "median_per_processor_second": statistics.median(per_processor_second[1:]),
    }


def plan_product(size: int) -> PlannedLaunch:
    """The product of two square matrices, counted."""
    return plan("linear", torch.randn(size, size), torch.randn(size, size), None, False, kernel=KERNEL)


def launcher(planned: PlannedLaunch, threads: int, checks: bool = True) -> Callable[[], ptx.LaunchResult]:
    backend = MachineBackend(ptx.Machine(threads=threads, checks=checks))
    return lambda: backend.launch(planned)


def time_settings(size: int, thread_counts: list[int], rounds: int) -> list[dict[str, object]]:
    planned = plan_product(size)
    return [
        {"threads": threads, "checks": checks, **rates(launcher(planned, threads, checks), rounds)}
        for threads in thread_counts
        for checks in (True, False)
    ]


def time_checks(size: int, threads: int, rounds: int) -> list[float]:
    """Durations with all checks over durations without any."""
    planned = plan_product(size)
    return paired_ratios(launcher(planned, threads, True), launcher(planned, threads, False), rounds)


def time_kernels(threads: int, rounds: int) -> list[dict[str, object]]:
    results = []
    for kernel in _C.cuda_kernels():
        problem = problem_for(kernel["operation"], getattr(torch, kernel["dtype"]), kernel["tile"])
        planned = plan(problem.op, *problem.arguments, kernel=kernel["name"])
        launch = launcher(planned, threads)
        results.append({"kernel": kernel["name"], "problem": problem.text, **rates(launch, rounds)})
    return results


def time_models(rounds: int) -> list[dict[str, object]]:
    """Seconds of a model whose layers all run on the machine."""
    results = []
    for name, size in MODELS.items():
        model = torchvision.models.get_model(name, weights=None).eval()
        images = torch.randn(1, 3, size, size)
        seconds = []
        with torch.no_grad(), flopcuda.instrument(model, backend="ptxvm") as session:
            for _ in range(rounds + 1):
                start = time.perf_counter()
                model(images)
                seconds.append(time.perf_counter() - start)
        macs = session.report().total.macs // (rounds + 1)
        results.append({"model": name, "size": size, "macs": macs, "median_seconds": statistics.median(seconds[1:])})
    return results


def table_of(title: str, rows: list[dict[str, object]]) -> Table:
    table = Table(title=title, title_justify="left")
    for name, value in rows[0].items():
        table.add_column(name.replace("_", " "), justify="left" if isinstance(value, str) else "right", overflow="fold")
    for row in rows:
        table.add_row(*(f"{value:,.2f}" if isinstance(value, float) else str(value) for value in row.values()))
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/ptxvm.json"))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--size", type=int, default=1024, help="rows, columns and depth of the product")
    arguments = parser.parse_args()
    threads = os.cpu_count() or 1
    rounds = arguments.rounds
    load = os.getloadavg()[0]  # other programs' share of the cores, before this one takes its own
    checks = time_checks(arguments.size, threads, rounds)
    result = {
        "machine": f"{cpu_name()}, {threads} threads, {_ptxvm.lane_instruction_set()}",
        "load_average": load,
        "product": {"kernel": KERNEL, "size": arguments.size, "rounds": rounds},
        "settings": time_settings(arguments.size, sorted({1, threads}), rounds),
        "checks": {"min": min(checks), "median": statistics.median(checks), "max": max(checks)},
        "kernels": time_kernels(threads, rounds),
        "models": time_models(min(rounds, 3)),
    }
    arguments.output.write_text(json.dumps(result, indent=2) + "\n")
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(f"Millions of lane-instructions a second ({result['machine']}; load average before: {load:.2f})")
    console.print(table_of(f"\n{KERNEL}, {arguments.size}^3", result["settings"]))
    console.print(table_of("\ntime with all checks / without any", [result["checks"]]))
    console.print(table_of("\nevery kernel, all checks on", result["kernels"]))
    console.print(table_of('\nmodels with backend="ptxvm", batch 1', result["models"]))


if __name__ == "__main__":
    main()

"""Counted models and layers on the CPU beside torch's own, side by side in one run.

Prints tables, writes benchmarks/cpu.json and a plot, cpu.png; ratios are the claim, not the seconds. Wants a machine
that does nothing else: ``python -m benchmarks.cpu [--output FILE] [--rounds N] [--threads N ...]``.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks import cpu_models
from benchmarks.counting_cost import counting_cost
from benchmarks.cpu_dtypes import dtype_times
from benchmarks.cpu_layers import layer_times
from benchmarks.cpu_plot import plot
from benchmarks.dense import dense_rates
from benchmarks.machine_peak import measure_peak
from benchmarks.side_by_side import cpu_name, keep_memory
from flopcuda import _C

SLOWEST = 15


def measure(rounds: int, thread_counts: list[int]) -> dict[str, Any]:
    """Everything that benchmarks/cpu.json holds."""
    keep_memory()
    measured: dict[str, Any] = {
        "machine": f"{cpu_name()}, {os.cpu_count()} cores, {_C.cpu_isa()}, torch {torch.__version__}",
        "load_average": os.getloadavg()[0],
        "rounds": rounds,
        "peaks": {str(threads): asdict(measure_peak(threads)) for threads in thread_counts},
        "models": [],
        "training": [],
    }
    for threads in thread_counts:
        torch.set_num_threads(threads)
        measured["models"] += [{"threads": threads, **row} for row in cpu_models.inference(rounds)]
        measured["training"].append({"threads": threads, **cpu_models.training_step(rounds)})
    torch.set_num_threads(1)
    measured["layers"] = [row for item in cpu_models.MODELS.items() for row in layer_times(*item, rounds)]
    measured["dtypes"] = dtype_times(rounds)
    measured["dense"] = dense_rates(rounds)
    measured["counting_cost"] = counting_cost(3 * rounds)
    torch.set_num_threads(max(thread_counts))
    measured["zero"] = [cpu_models.zero_counting(name, 1, rounds) for name in cpu_models.MODELS]
    measured["scaling"] = cpu_models.scaling(3)
    measured["memory"] = cpu_models.memory()
    return measured


def print_tables(measured: dict[str, Any]) -> None:
    """All but the single layers, of which it shows the slowest."""
    console = Console()
    console.print(measured["machine"], "load", round(measured["load_average"], 1))
    for title, rows in (("instrumented / original", measured["models"]), ("a training step", measured["training"])):
        console.print(_table(title, rows, ("threads", "model", "batch", "median", "min", "max")))
    slowest = sorted(measured["layers"], key=lambda row: -row["ratio"])[:SLOWEST]
    console.print(_table("slowest layers", slowest, ("model", "module", "description", "launches", "ratio")))
    console.print(_table("other dtypes, one thread", measured["dtypes"], ("dtype", "layer", "ratio")))
    console.print(_table("share of the FMA peak, one thread", measured["dense"], ("what", "share")))
    costs = [{"layer": row["layer"], "percent": 100 * (row["median"] - 1)} for row in measured["counting_cost"]]
    console.print(_table("what counting costs, one thread", costs, ("layer", "percent")))
    console.print(_table("zero counting", measured["zero"], ("model", "batch", "median", "min", "max")))
    scaling = [
        {**row, "picoseconds a MAC": row["seconds_per_mac"] * 1e12, "original's": row["original"] * 1e12}
        for row in measured["scaling"]
    ]
    console.print(_table("scaling", scaling, ("model", "batch", "size", "picoseconds a MAC", "original's")))
    console.print(f"peak resident memory at batch {measured['memory']['batch']}: {measured['memory']['ratio']:.2f}")


def _table(title: str, rows: Iterable[dict[str, Any]], columns: tuple[str, ...]) -> Table:
    table = Table(*columns, title=title)
    for row in rows:
        table.add_row(*(f"{row[key]:.2f}" if isinstance(row[key], float) else str(row[key]) for key in columns))
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/cpu.json"))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, os.cpu_count() or 1])
    arguments = parser.parse_args()
    measured = measure(arguments.rounds, sorted({1, *arguments.threads}))
    arguments.output.write_text(json.dumps(measured, indent=1) + "\n")
    plot(measured, arguments.output.with_suffix(".png"))
    print_tables(measured)


if __name__ == "__main__":
    main()

"""Time of an instrumented model over the time of the original one on the CPU, side by side in one run.

Prints a table and writes JSON; the ratio is the claim, not the seconds. ``python benchmarks/cpu.py [--output FILE]``.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

import torch
import torchvision
from rich.console import Console
from rich.table import Table
from side_by_side import cpu_name, paired_ratios

import flopcuda
from flopcuda import _C

MODELS = {"resnet50": 4, "vgg16": 2, "mobilenet_v2": 4, "densenet121": 2}


def time_model(name: str, batch: int, rounds: int) -> list[float]:
    original = torchvision.models.get_model(name, weights=None).eval()
    counted = torchvision.models.get_model(name, weights=None).eval()
    images = torch.randn(batch, 3, 224, 224)
    with torch.no_grad(), flopcuda.instrument(counted):
        return paired_ratios(lambda: counted(images), lambda: original(images), rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/cpu.json"))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    machine = f"{cpu_name()}, {arguments.threads} threads, {_C.cpu_isa()}, torch {torch.__version__}"
    table = Table(title=f"instrumented / original, median of {arguments.rounds} ({machine})")
    for column in ("model", "batch", "min", "median", "max"):
        table.add_column(column, justify="left" if column == "model" else "right")
    results = []
    for name, batch in MODELS.items():
        ratios = time_model(name, batch, arguments.rounds)
        summary = {"min": min(ratios), "median": statistics.median(ratios), "max": max(ratios)}
        results.append({"model": name, "batch": batch, "ratios": ratios, **summary})
        table.add_row(name, str(batch), *(f"{value:.2f}" for value in summary.values()))
    arguments.output.write_text(json.dumps({"machine": machine, "results": results}, indent=2) + "\n")
    Console().print(table)


if __name__ == "__main__":
    main()

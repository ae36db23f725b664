"""The plot of benchmarks/cpu.json: each layer's time ratio, and its rate under the machine's roofline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.machine_peak import Peak


def plot(measured: dict[str, Any], path: Path) -> None:
    """Write an image of two panels over all layers; one thread's, as the roofline is."""
    figure = Figure(figsize=(14, 5), layout="constrained")
    ratios, roofline = figure.subplots(1, 2)
    models = list(dict.fromkeys(row["model"] for row in measured["layers"]))
    for model in models:
        rows = [row for row in measured["layers"] if row["model"] == model]
        ratios.plot(sorted(row["ratio"] for row in rows), marker=".", label=model)
        intensity = [row["flops"] / row["byte_count"] for row in rows]
        roofline.scatter(intensity, [row["flops"] / row["seconds"] / 1e9 for row in rows], s=12, label=model)
    ratios.axhline(1.0, color="black", linewidth=0.8)
    ratios.set(xlabel="kinds of layer, fastest first", ylabel="counted time / torch's time", yscale="log")
    ratios.legend()
    peak = Peak(**measured["peaks"]["1"])
    limits = [0.5, peak.flops / peak.bytes_per_second, 2000.0]
    roof = [peak.attainable(limit, 1.0) / 1e9 for limit in limits]
    roofline.plot(limits, roof, color="black", linewidth=0.8)
    roofline.set(xlabel="FLOPs / byte of operands and output", ylabel="GFLOPS", xscale="log", yscale="log")
    figure.suptitle(measured["machine"])
    figure.savefig(path, dpi=110)

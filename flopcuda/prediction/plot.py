"""The roofline plot of a prediction, with matplotlib where it is installed.

Source of the plot: Williams, Waterman and Patterson, "Roofline: an insightful visual performance model for multicore
architectures", Communications of the ACM 52(4), 2009.
"""

from __future__ import annotations

from pathlib import Path

from flopcuda.prediction.layers import Prediction


def plot_roofline(prediction: Prediction, file: Path) -> None:
    """Each launch's FLOPS over its FLOPs a byte of memory, below the roofs of the GPU; the file's suffix is its format.

    Raises:
        RuntimeError: matplotlib is not installed.
        ValueError: the suffix names no format that matplotlib writes.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise RuntimeError("the roofline plot needs matplotlib: pip install flopcuda[plot]") from None
    gpu = prediction.gpu
    layers = [layer for layer in prediction.layers if layer.time.blocks]
    intensities = [2 * layer.work.multiply_adds / layer.work.bytes for layer in layers]
    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.add_subplot(xscale="log", yscale="log", title=f"{prediction.model} on {gpu.name}, predicted")
    axes.set_xlabel("FLOPs a byte, each tensor moved once")
    axes.set_ylabel("TFLOPS")
    edges = [min(intensities) / 2, max(max(intensities) * 2, 1000)]
    for unit in dict.fromkeys(layer.unit for layer in layers):
        peak = 2 * gpu.multiply_adds_per_second(unit)
        corner = min(max(peak / gpu.bandwidth, edges[0]), edges[1])
        ends = [edges[0], corner, edges[1]]
        roof = [min(peak, gpu.bandwidth * end) / 1e12 for end in ends]
        axes.plot(ends, roof, label=f"{unit}: {peak / 1e12:,.1f} TFLOPS, {gpu.bandwidth / 1e9:,.0f} GB/s")
    for bound in dict.fromkeys(layer.bound_by for layer in layers):
        chosen = [index for index, layer in enumerate(layers) if layer.bound_by == bound]
        speeds = [2 * layers[index].work.multiply_adds / layers[index].seconds / 1e12 for index in chosen]
        axes.scatter([intensities[index] for index in chosen], speeds, label=f"bound by {bound}", s=18)
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(file)

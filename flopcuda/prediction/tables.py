"""A prediction as a rich table."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from flopcuda.prediction.layers import LayerPrediction, Prediction
from flopcuda.prediction.model import BANDWIDTH_SHARE, LAUNCH_SECONDS

# Kernels' names without what all have in common.
_PREFIX = "flopcuda_"


def prediction_table(prediction: Prediction) -> RenderableType:
    """A row for each launch, the total, and what was assumed."""
    gpu = prediction.gpu
    table = Table(title=f"{prediction.model} on {gpu.name}, predicted", title_justify="left")
    table.add_column("layer", no_wrap=True)
    table.add_column("output <- input")
    table.add_column("kernel", overflow="fold")
    for name in ("blocks", "waves", "us", "TFLOPS", "GB/s", "of roofline"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("bound by", no_wrap=True)
    for layer in prediction.layers:
        table.add_row(*_cells(layer))
    table.add_section()
    seconds = prediction.seconds
    bound = sum(layer.roofline for layer in prediction.layers)
    total = [
        f"{1e6 * seconds:,.1f}",
        f"{2 * prediction.multiply_adds / seconds / 1e12:.1f}",
        "",
        f"{bound / seconds:.0%}",
    ]
    table.add_row("total", "", "", "", "", *total, "")
    left_out = [
        Text(f"Not predicted: {entry.operator} in {entry.module or 'the model'}, {entry.calls} times")
        for entry in prediction.not_predicted
    ]
    return Group(table, *left_out, _assumptions(prediction))


def _cells(layer: LayerPrediction) -> list[str]:
    time, seconds = layer.time, layer.seconds or float("inf")
    return [
        layer.module or "(the model)",
        f"{'x'.join(map(str, layer.output_shape))} <- {'x'.join(map(str, layer.input_shape))}",
        layer.kernel.removeprefix(_PREFIX),
        f"{time.blocks // layer.splits:,}" + (f" x {layer.splits}" if layer.splits > 1 else ""),
        f"{time.wave_efficiency:.0%}",
        f"{1e6 * layer.seconds:,.1f}",
        f"{2 * layer.work.multiply_adds / seconds / 1e12:.2f}",
        f"{time.bytes / seconds / 1e9:,.0f}",
        f"{layer.roofline / seconds:.0%}",
        layer.bound_by,
    ]


def _assumptions(prediction: Prediction) -> Text:
    gpu = prediction.gpu
    return Text(
        f"{gpu.multiprocessors} multiprocessors at the boost clock of {gpu.hertz / 1e6:,.0f} MHz, "
        f"{BANDWIDTH_SHARE:.0%} of {gpu.bandwidth / 1e9:,.0f} GB/s, {1e6 * LAUNCH_SECONDS:.1f} us a launch. "
        "Layers without products (norms, activations, pools) are not in it."
    )

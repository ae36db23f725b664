"""Validation results and build facts as rich tables; rich itself falls back to plain text when not on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from flopcuda.tools import ToolReport
from flopcuda.validation import LayerValidation, TrainingStep, Validation


def validation_table(validation: Validation) -> RenderableType:
    """Parameters, layers, tools and the verdict."""
    return Group(
        _parameters(validation),
        _layers(validation),
        _over_count(validation),
        *_executed(validation),
        *_not_counted(validation),
        *(_tool(report) for report in validation.tools),
        *_training_step(validation.training_step),
        _verdict(validation),
    )


def info_table(facts: Mapping[str, str]) -> RenderableType:
    """Two columns, a fact a row."""
    table = Table(show_header=False, box=None)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name, value)
    return table


def _training_step(step: TrainingStep | None) -> list[RenderableType]:
    """What the training step adds, if one was taken."""
    if step is None:
        return []
    phases = ", ".join(f"{name} {counters.macs:,}" for name, counters in step.phases.items())
    return [
        Text("\nTraining step", style="bold"),
        _layers(step),
        Text(f"MACs by phase: {phases}"),
        *_executed(step),
        *_not_counted(step),
        *(_tool(report) for report in step.tools),
    ]


def _parameters(validation: Validation) -> RenderableType:
    params = validation.params
    where = "CUDA kernels on the PTX machine" if validation.backend == "ptxvm" else validation.device
    return Text(
        f"{validation.model}, batch {validation.batch}, {where}\n"
        f"Params: {params.total:,} total, {params.trainable:,} trainable, {params.non_trainable:,} non-trainable"
    )


def _layers(validation: Validation | TrainingStep) -> Table:
    names = list(dict.fromkeys(name for layer in validation.layers for name in layer.formulas))
    table = Table(title="Counted on the device, and what the formulas say (FLOPs, MACs)", title_justify="left")
    table.add_column("layer", no_wrap=True)
    table.add_column("output <- input")
    for name in ("mul", "add", "pad"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    on_cuda = any(layer.wave_efficiency is not None for layer in validation.layers)
    if on_cuda:
        table.add_column("waves", justify="right", no_wrap=True)
    table.add_column("exact?", justify="center")
    for layer in validation.layers:
        cells = [
            *_layer_cells(layer, names),
            *([_percent(layer.wave_efficiency)] if on_cuda else []),
            _mark(layer.match),
        ]
        table.add_row(*cells, style=None if layer.match else "bold red")
    table.add_section()
    total = validation.counted
    sums = [f"{sum(layer.formulas.get(name, 0) for layer in validation.layers):,}" for name in names]
    table.add_row(
        "total", "", f"{total.mul:,}", f"{total.add:,}", f"{total.pad:,}", *sums, *[""] * on_cuda, _mark(validation.ok)
    )
    return table


def _over_count(validation: Validation) -> Text:
    """By how much the published formula that is not exact misses what was executed."""
    nvidia = sum(layer.formulas["nvidia"] for layer in validation.layers)
    difference = nvidia - validation.counted.flops
    share = difference / validation.counted.flops if validation.counted.flops else 0.0
    return Text(f"The NVIDIA formula gives {difference:+,} FLOPs ({share:+.4%}) against what was executed.")


def _executed(validation: Validation | TrainingStep) -> list[RenderableType]:
    """What the PTX machine saw beside what the kernels counted, if they ran there."""
    seen = [layer.executed_macs for layer in validation.layers if layer.executed_macs is not None]
    if not seen:
        return []
    lanes = validation.counted.lane
    return [Text(f"Multiply lanes: {lanes:,} counted by the kernels, {sum(seen):,} executed by the PTX machine.")]


def _not_counted(validation: Validation | TrainingStep) -> list[RenderableType]:
    return [
        Text(
            f"Not counted: {entry.operator} in {entry.module or 'the model'} ({entry.module_type}), {entry.calls} times"
        )
        for entry in validation.not_counted
    ]


def _layer_cells(layer: LayerValidation, names: Iterable[str]) -> list[RenderableType]:
    counted = layer.counted
    shapes = f"{_shape(layer.output_shape)} <- {_shape(layer.input_shape)}"
    formulas = [f"{layer.formulas[name]:,}" if name in layer.formulas else "" for name in names]
    counts = [f"{counted.mul:,}", f"{counted.add:,}", f"{counted.pad:,}"]
    return [layer.name or "(the model)", shapes, *counts, *formulas]


def _tool(report: ToolReport) -> RenderableType:
    name = f"\n{report.name} {report.version or ''}".rstrip()
    if report.error:
        return Text(f"{name}: {report.error}")
    table = Table(show_header=False, box=None)
    table.add_column()
    table.add_column(justify="right")
    for term in report.ledger:
        table.add_row(term.term, f"{term.amount:+,}")
    table.add_row("unexplained", f"{report.unexplained:+,}", style=None if report.unexplained == 0 else "bold red")
    table.add_row(f"= reported ({report.unit})", f"{report.reported:,}", style="bold")
    heading = Text.assemble((name, "bold"), f": {report.convention}")
    return Group(heading, table, *(Text(f"  {sentence}", style="red") for sentence in report.disagreements))


def _verdict(validation: Validation) -> Text:
    counted = validation.counted
    speed = validation.flops_per_second
    timing = f" in {validation.seconds:.3f} s: {speed / 1e9:,.1f} GFLOPS in the counted kernels" if speed else ""
    checked = [*validation.layers, *(validation.training_step.layers if validation.training_step else ())]
    wrong = dict.fromkeys(layer.name for layer in checked if not layer.match)
    if wrong:
        return Text(f"\nFAILED: counted and exact formula differ in {', '.join(wrong)}", style="bold red")
    in_step = ", in the training step too" if validation.training_step else ""
    return Text(
        f"\n{counted.macs:,} MACs, {counted.flops:,} FLOPs{timing}\n"
        f"ok: all {len(validation.layers)} layers execute exactly what the formula says{in_step}",
        style="bold green",
    )


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.0%}"


def _shape(sizes: Iterable[int]) -> str:
    return "x".join(str(size) for size in sizes)


def _mark(match: bool) -> Text:
    return Text("✓", style="green") if match else Text("✗", style="bold red")

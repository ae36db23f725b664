"""Validation: counts against the exact formulas, layer by layer, and against the other tools, term by term."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from flopcuda import ptx, virtual_cuda
from flopcuda.arguments import as_arguments
from flopcuda.geometry import exact_counts, formula_values, skipped_products
from flopcuda.params import Params, count_params
from flopcuda.report import Counters, NotCounted, Report, Summary
from flopcuda.session import instrument
from flopcuda.state import preserved
from flopcuda.tools import (
    ALL,
    CountedLayer,
    ToolReport,
    article_2021,
    compare,
    take_step,
    trainable_copy,
)
from flopcuda.tools import training_step as explain_step


@dataclass(frozen=True)
class LayerValidation:
    """One layer: what the device counted and what each formula says, summed over its launches.

    Attributes:
        name: dotted name in the model, "" for the model itself.
        type: class name.
        input_shape, weight_shape, output_shape: of its first launch.
        counted: sum of its launches' counters.
        formulas: name of a formula -> its value for this layer, in the formula's own unit.
        executed_macs: multiply-accumulate lanes that the PTX machine saw; None where nothing but the kernel counts.
        wave_efficiency: predicted, of its launches on a CUDA device; None elsewhere.
        match: whether counted ``mul``, ``add`` and ``pad`` are what the exact formulas say, each of them, and ``lane``
            what the PTX machine saw if it ran there.
    """

    name: str
    type: str
    input_shape: tuple[int, ...]
    weight_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    counted: Counters
    formulas: dict[str, int]
    executed_macs: int | None
    wave_efficiency: float | None
    match: bool

    def to_dict(self) -> dict[str, Any]:
        """As in the command line's JSON."""
        return {
            "name": self.name,
            "type": self.type,
            "input_shape": list(self.input_shape),
            "weight_shape": list(self.weight_shape),
            "output_shape": list(self.output_shape),
            "counted": self.counted.to_dict(),
            "formulas": self.formulas,
            "match": self.match,
            "executed_macs": self.executed_macs,
            "wave_efficiency": self.wave_efficiency,
        }


@dataclass(frozen=True)
class TrainingStep:
    """A forward pass, and the backward pass of the sum of all its outputs that have a gradient.

    Attributes:
        counted: sum over all layers.
        phases: the same by phase: "forward", "backward_input", "backward_weight", "backward".
        layers: one entry a counted layer, over all phases, in the order of first use.
        tools: what torch's FlopCounterMode reported, which alone of the tools counts a backward pass.
        not_counted: what multiplied and accumulated besides, and has no counted kernel.
        ok: whether every layer's count and exact formula agree.
    """

    counted: Counters
    phases: dict[str, Counters]
    layers: tuple[LayerValidation, ...]
    tools: tuple[ToolReport, ...]
    not_counted: tuple[NotCounted, ...]
    ok: bool

    def to_dict(self) -> dict[str, Any]:
        """As in the command line's JSON."""
        return {
            "counted": self.counted.to_dict(),
            "phases": {name: counters.to_dict() for name, counters in self.phases.items()},
            "layers": [layer.to_dict() for layer in self.layers],
            "tools": [report.to_dict() for report in self.tools],
            "not_counted": [asdict(entry) for entry in self.not_counted],
            "ok": self.ok,
        }


@dataclass(frozen=True)
class Validation:
    """What :func:`validate` found.

    Attributes:
        model: the model's name.
        batch: size of the first dimension of the first input; of a list of images, how many there are.
        device: where the model was.
        backend: "native", or "ptxvm" for the CUDA kernels on the PTX machine.
        params: the model's parameters.
        counted: sum over all layers.
        layers: one entry a counted layer, in the order of first use.
        tools: what each other tool reported, with a ledger from the counted number to the tool's.
        seconds: time spent in the counted kernels; None where it could not be measured.
        not_counted: what multiplied and accumulated besides, and has no counted kernel.
        training_step: the same of a training step; None when it was not asked for.
        ok: whether every layer's count and exact formula agree, in the training step too. What a tool says never
            decides it.
    """

    model: str
    batch: int
    device: str
    backend: str
    params: Params
    counted: Counters
    layers: tuple[LayerValidation, ...]
    tools: tuple[ToolReport, ...]
    seconds: float | None
    not_counted: tuple[NotCounted, ...]
    training_step: TrainingStep | None
    ok: bool

    @property
    def flops_per_second(self) -> float | None:
        """Achieved FLOPS in the counted kernels; None where they were not timed."""
        return self.counted.flops / self.seconds if self.seconds else None

    def to_dict(self) -> dict[str, Any]:
        """The command line's JSON."""
        return {
            "model": self.model,
            "batch": self.batch,
            "device": self.device,
            "params": {
                "total": self.params.total,
                "trainable": self.params.trainable,
                "non_trainable": self.params.non_trainable,
            },
            "counted": self.counted.to_dict(),
            "layers": [layer.to_dict() for layer in self.layers],
            "tools": [report.to_dict() for report in self.tools],
            "seconds": self.seconds,
            "flops_per_second": self.flops_per_second,
            "ok": self.ok,
            "backend": self.backend,
            "not_counted": [asdict(entry) for entry in self.not_counted],
            "training_step": self.training_step and self.training_step.to_dict(),
        }


def validate(
    model: nn.Module,
    inputs: Tensor | Sequence[Any],
    *,
    name: str | None = None,
    backend: str | ptx.Machine = "native",
    tools: Sequence[str] = ALL,
    training_step: bool = False,
    on_step: Callable[[str], None] = lambda _: None,
) -> Validation:
    """Count one forward pass and hold it against the exact formulas and the other tools.

    Runs without gradients, in the mode (train or eval) that the model is in; its buffers and torch's random state are
    put back.

    Args:
        model: the model; must not be instrumented.
        inputs: its positional arguments; a single tensor stands for itself.
        name: what to call the model; its class name by default.
        backend: where to count, as for :func:`flopcuda.instrument`.
        tools: names of the tools to compare with; one that is not installed is reported as missing.
        training_step: count and validate a training step, too; a copy of the model takes it.
        on_step: is told what is done next, for a progress bar.

    Returns:
        The verdict on each layer and each tool's ledger.

    Raises:
        RuntimeError, TypeError, ValueError: as :func:`flopcuda.instrument`, as a counted layer or the model itself.
        RuntimeError: a training step was asked for, and the model cannot be copied.
        ValueError: the model ran no layer that is counted, or none of its outputs has a gradient for the step.
    """
    arguments = as_arguments(inputs)
    first = next((leaf for leaf in tree_leaves(arguments) if isinstance(leaf, Tensor)), None)
    if first is None:
        raise TypeError("validate needs at least one tensor among the model's inputs")
    params = count_params(model)
    on_step("counting")
    report = _count(model, arguments, backend)
    layers = _validate_layers(report)
    if not layers:
        raise ValueError(f"{type(model).__name__} ran nothing that is counted, so there is nothing to validate")
    reports = _compare(model, arguments, report, tools, on_step)
    step = _validate_step(model, arguments, backend, on_step) if training_step else None
    return Validation(
        model=name or type(model).__name__,
        batch=_batch(arguments[0]),
        device=virtual_cuda.label(first.device),
        backend=report.launches[0].backend,
        params=params,
        counted=report.total.counters,
        layers=layers,
        tools=tuple(reports),
        seconds=report.total.seconds,
        not_counted=report.not_counted,
        training_step=step,
        ok=all(layer.match for layer in layers) and (step is None or step.ok),
    )


def _batch(argument: Any) -> int:
    if isinstance(argument, list | tuple):
        return len(argument)
    return int(argument.shape[0]) if isinstance(argument, Tensor) and argument.dim() else 1


def _count(model: nn.Module, arguments: tuple[Any, ...], backend: str | ptx.Machine) -> Report:
    with preserved(model), torch.no_grad(), instrument(model, backend=backend) as session:
        model(*arguments)
        return session.report()


def _validate_step(
    model: nn.Module, arguments: tuple[Any, ...], backend: str | ptx.Machine, on_step: Callable[[str], None]
) -> TrainingStep:
    on_step("training step")
    with (
        trainable_copy(model, arguments) as (copied, inputs),
        instrument(copied, backend=backend) as session,
    ):
        take_step(copied, inputs)
        report = session.report()
    layers = _validate_layers(report)
    return TrainingStep(
        counted=report.total.counters,
        phases={
            phase: Counters.sum(launch.counters for launch in report.launches if launch.phase == phase)
            for phase in dict.fromkeys(launch.phase for launch in report.launches)
        },
        layers=layers,
        tools=(explain_step(model, arguments, report.launches),),
        not_counted=report.not_counted,
        ok=all(layer.match for layer in layers),
    )


def _validate_layers(report: Report) -> tuple[LayerValidation, ...]:
    return tuple(_validate_layer(summary) for summary in report.by_module().values())


def _validate_layer(summary: Summary) -> LayerValidation:
    first = summary.launches[0]
    values = [formula_values(launch) for launch in summary.launches]
    exact = [exact_counts(launch) for launch in summary.launches]
    expected = tuple(sum(column) for column in zip(*exact, strict=True))
    return LayerValidation(
        name=summary.name,
        type=first.module_type,
        input_shape=first.input_shape,
        weight_shape=first.weight_shape,
        output_shape=first.output_shape,
        counted=summary.counters,
        formulas={name: sum(value[name] for value in values) for name in values[0]},
        executed_macs=summary.executed_macs,
        wave_efficiency=summary.wave_efficiency,
        match=expected == (summary.mul, summary.add, summary.pad) and summary.executed_macs in (None, summary.lane),
    )


def _compare(
    model: nn.Module,
    arguments: tuple[Any, ...],
    report: Report,
    tools: Sequence[str],
    on_step: Callable[[str], None],
) -> list[ToolReport]:
    counted = {name: _counted_layer(summary) for name, summary in report.by_module().items()}
    reports = compare(model, arguments, counted, tools, on_step)
    headline = article_2021(model, arguments, counted)
    return reports if headline is None else [*reports, headline]


def _counted_layer(summary: Summary) -> CountedLayer:
    skipped = sum(skipped_products(launch) for launch in summary.launches)
    return CountedLayer(summary.name, summary.launches[0].module_type, summary.mul, summary.pad, skipped)

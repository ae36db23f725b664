"""What a session keeps of its launches, whose counters may be in a device's memory still."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from flopcuda import virtual_cuda
from flopcuda.backends import Execution, Operands
from flopcuda.ops import COUNTER_FIELDS
from flopcuda.report import Counters, Launch, Place
from flopcuda.timing import Duration, in_seconds


class _Entry(NamedTuple):
    module: str
    module_type: str
    phase: str
    op: str
    input_shape: tuple[int, ...]
    weight_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    has_bias: bool
    options: tuple[tuple[str, Any], ...]
    dtype: torch.dtype
    device: torch.device
    counters: Tensor | tuple[int, ...]  # those of Execution, from here on
    kernel: str
    seconds: Duration
    executed_macs: int | None
    wave_efficiency: float | None
    splits: int


class LaunchLog:
    """The launches of a session, in their order. What takes time is left to the report.

    Args:
        backend: the name of the one that made them.
        counts_zero: whether their zeros were counted.
    """

    def __init__(self, backend: str, *, counts_zero: bool) -> None:
        self._backend, self._counts_zero = backend, counts_zero
        # Those of _Entry, in plain tuples of names, numbers and such tuples: the garbage collector soon drops them from
        # its lists, and would else go through ever more of them.
        self._entries: list[tuple[Any, ...]] = []

    def add(
        self,
        place: Place,
        phase: str,
        op: str,
        operands: Operands,
        output: Tensor,
        options: Mapping[str, Any],
        execution: Execution,
    ) -> None:
        """One more; none, if no kernel ran."""
        if execution.counters is None:
            return
        input, weight, bias = operands
        shapes = tuple(input.shape), tuple(weight.shape), tuple(output.shape)
        details = bias is not None, tuple(options.items()), input.dtype, input.device
        self._entries.append((place.module, place.module_type, phase, op, *shapes, *details, *execution))

    def clear(self) -> None:
        """Forget all of them."""
        self._entries.clear()

    def launches(self) -> tuple[Launch, ...]:
        """All so far, with their counters read; waits for kernels that still run."""
        entries = [_Entry(*entry) for entry in self._entries]
        counters = _read_counters([entry.counters for entry in entries])
        return tuple(self._launch(entry, values) for entry, values in zip(entries, counters, strict=True))

    def _launch(self, entry: _Entry, counters: tuple[int, ...]) -> Launch:
        return Launch(
            module=entry.module,
            module_type=entry.module_type,
            phase=entry.phase,
            op=entry.op,
            input_shape=entry.input_shape,
            weight_shape=entry.weight_shape,
            output_shape=entry.output_shape,
            options={"bias": entry.has_bias, **dict(entry.options)},
            dtype=str(entry.dtype).removeprefix("torch."),
            device=virtual_cuda.label(entry.device),
            backend=self._backend,
            kernel=entry.kernel,
            counters=self._counters(counters),
            seconds=in_seconds(entry.seconds),
            executed_macs=entry.executed_macs,
            wave_efficiency=entry.wave_efficiency,
            splits=entry.splits,
        )

    def _counters(self, values: tuple[int, ...]) -> Counters:
        fields = dict(zip(COUNTER_FIELDS, values, strict=True))
        zero = fields.pop("zero")
        return Counters(**fields, zero=zero if self._counts_zero else None)


def _read_counters(records: list[Tensor | tuple[int, ...]]) -> list[tuple[int, ...]]:
    """The records' values in their order, with one copy from each device."""
    values = [record if isinstance(record, tuple) else () for record in records]
    by_device: dict[torch.device, dict[int, Tensor]] = {}
    for index, record in enumerate(records):
        if isinstance(record, Tensor):
            by_device.setdefault(record.device, {})[index] = record
    for device, tensors in by_device.items():
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # some may be written on other streams than the current one
        for index, row in zip(tensors, torch.stack(list(tensors.values())).tolist(), strict=True):
            values[index] = tuple(row)
    return values

"""Where a session's operators run: on the device that holds their tensors, or on the PTX machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from flopcuda import _C
from flopcuda.ops import OPERATORS, allows_tf32, check_operands
from flopcuda.timing import Duration, Stopwatch

Operands = tuple[Tensor, Tensor, Tensor | None]  # input, weight, bias

# By operator, what runs it and tells how: output, then what Execution has of it.
LAUNCHES: dict[str, Callable[..., Any]] = {op: getattr(_C, f"launch_{op}") for op in OPERATORS}


class Execution(NamedTuple):
    """How one counted operator was computed.

    Attributes:
        counters: of :data:`flopcuda.ops.COUNTER_FIELDS`; a tensor while a device holds them, None if no kernel ran.
        kernel: the kernel that ran.
        seconds: its duration; None where none was measured.
        executed_macs: multiply-accumulate lanes that the PTX machine saw; None elsewhere.
        wave_efficiency: as in :class:`flopcuda.ops.KernelChoice`; None where no CUDA device runs the kernel.
        splits: likewise; 1 on the CPU.
    """

    counters: Tensor | tuple[int, ...] | None
    kernel: str
    seconds: Duration
    executed_macs: int | None = None
    wave_efficiency: float | None = None
    splits: int = 1


class Backend(Protocol):
    """Runs counted operators."""

    name: str

    def takes(self, tensor: Tensor) -> bool:
        """Whether there is anything to compute of a tensor that is not empty."""

    def run(
        self, op: str, operands: Operands, options: Mapping[str, Any], count_zero: bool
    ) -> tuple[Tensor, Execution]:
        """Run one operator; gives its output, too.

        Raises:
            RuntimeError, TypeError: as :data:`flopcuda.ops.OPERATORS`.
        """


class NativeBackend:
    """The kernels of the device that holds the tensors."""

    name = "native"

    def takes(self, tensor: Tensor) -> bool:
        """Meta and fake tensors give shapes only."""
        return holds_data(tensor)

    def run(
        self, op: str, operands: Operands, options: Mapping[str, Any], count_zero: bool
    ) -> tuple[Tensor, Execution]:
        """Run one operator and time it."""
        input = operands[0]
        stopwatch = Stopwatch(input.device) if input.is_cuda else None
        try:
            output, counters, kernel, seconds, splits, wave_efficiency = LAUNCHES[op](
                *operands, **options, count_zero=count_zero, allow_tf32=allows_tf32(op, input)
            )
        except (RuntimeError, TypeError):
            check_operands(op, *operands)  # has a better reason than torch, of what no kernel takes
            raise
        if stopwatch is not None:
            seconds = stopwatch.stop()
        if not isinstance(counters, tuple):
            counters = fetched(counters)
        if counters is None:  # shapes do not tell whether all operands have no data
            check_operands(op, *operands)
        return output, Execution(counters, kernel, seconds, None, wave_efficiency, splits)


def fetched(counters: Tensor) -> Tensor | tuple[int, ...] | None:
    """The values of counters, or the tensor of a device or a transform; None if it has no data, for no kernel ran.

    Tensors that are kept for each launch would lie between those that a model frees, whose memory could then not be
    joined for the next ones of its size: a training step would get new pages from the system again and again.
    """
    if not holds_data(counters):
        return None
    return tuple(counters.tolist()) if _C.has_plain_values(counters) else counters


def holds_data(tensor: Tensor) -> bool:
    """Whether a tensor has values; meta and fake tensors have shapes only."""
    return not tensor.is_meta and not isinstance(tensor, torch._subclasses.FakeTensor)

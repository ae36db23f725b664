"""What the PTX machine sees of each kernel on a problem of the kind that its tile is made for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from flopcuda import ptx
from flopcuda.ptx_backend import MachineBackend, plan


@dataclass(frozen=True)
class Problem:
    """An operator's arguments, and in words."""

    op: str
    text: str
    arguments: tuple[Any, ...] = field(repr=False)


@dataclass(frozen=True)
class Observation:
    """One launch on the machine."""

    problem: str
    lane_instructions: int  #: of the PTX
    multiply_add_lanes: int
    global_memory: ptx.MemoryUse
    shared_memory: ptx.MemoryUse

    @property
    def multiply_add_share(self) -> float:
        return self.multiply_add_lanes / self.lane_instructions


def observe(
    backend: MachineBackend, kernel: str, operation: str, dtype: str, tile: tuple[int, int, int]
) -> Observation:
    """Run a kernel of :func:`flopcuda._C.cuda_kernels`.

    Raises:
        RuntimeError: a check of the machine found a defect in it.
    """
    problem = problem_for(operation, torch.float32 if dtype == "tf32" else getattr(torch, dtype), tile)
    result = backend.launch(plan(problem.op, *problem.arguments, kernel=kernel))
    return Observation(
        problem.text,
        result.lane_instructions,
        sum(result.fma_lanes.values()),
        result.global_memory,
        result.shared_memory,
    )


def problem_for(operation: str, dtype: torch.dtype, tile: tuple[int, int, int]) -> Problem:
    """A problem that a kernel of this tile is made for."""
    return {"conv": _conv_problem, "linear": _linear_problem}[operation](dtype, tile)


def _conv_problem(dtype: torch.dtype, tile: tuple[int, int, int]) -> Problem:
    """A 3x3 convolution with as many output channels in a group as the tile has rows; depthwise if that is one."""
    rows = tile[0]
    groups = 32 if rows == 1 else 1
    channels = 32
    images, weights = _random(dtype, 1, channels, 28, 28), _random(dtype, groups * rows, channels // groups, 3, 3)
    text = f"{channels}x28x28, 3x3 to {groups * rows} channels" + (", depthwise" if groups > 1 else "")
    return Problem("conv2d", text, (images, weights, None, (1, 1), (1, 1, 1, 1), (1, 1), groups, False))


def _linear_problem(dtype: torch.dtype, tile: tuple[int, int, int]) -> Problem:
    """Two by four whole tiles."""
    samples, inputs, outputs = 2 * tile[0], 256, 4 * tile[1]
    operands = _random(dtype, samples, inputs), _random(dtype, outputs, inputs), _random(dtype, outputs)
    return Problem("linear", f"{samples}x{inputs} to {outputs} features", (*operands, False))


def _random(dtype: torch.dtype, *sizes: int) -> torch.Tensor:
    return torch.randn(sizes, generator=torch.Generator().manual_seed(0), dtype=dtype)

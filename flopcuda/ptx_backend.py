"""The CUDA kernels for CPU tensors: launches planned by the C++ code that plans them for a GPU, executed as PTX.

Nothing here knows how a kernel is launched. An operator's ``_plan`` twin gives kernel, grid, block and parameter bytes,
and the machine runs them over the tensors' own memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import resources
from typing import Any

import torch
from torch import Tensor
from torch._prims_common import suggest_memory_format
from torch.utils._python_dispatch import TorchDispatchMode

from flopcuda import _C, ptx
from flopcuda.backends import Execution, Operands, fetched, holds_data
from flopcuda.gradients import in_order
from flopcuda.info import ptx_files
from flopcuda.ops import OPERATORS


@dataclass(frozen=True)
class PlannedLaunch:
    """One launch of a CUDA kernel over CPU tensors, not yet run.

    Attributes:
        output: of the dtype that the kernel computes in; the launch fills it.
        counters: int64 of :data:`flopcuda.ops.COUNTER_FIELDS`; the launch adds to it.
        operands: the other tensors that the parameters point to, and the launch reads.
        workspace: those that it writes for itself.
        kernel: the PTX entry.
        grid, block: extents in x, y, z; a grid of no blocks is nothing to launch.
        shared_bytes: dynamic shared memory of a block.
        parameters: uint8, the kernel's one parameter, a structure.
    """

    output: Tensor
    counters: Tensor
    operands: Sequence[Tensor]
    workspace: Sequence[Tensor]
    kernel: str
    grid: Sequence[int]
    block: Sequence[int]
    shared_bytes: int
    parameters: Tensor


def plan(
    op: str,
    *arguments: Any,
    kernel: str | None = None,
    splits: int | None = None,
    gathers_width: bool | None = None,
) -> PlannedLaunch:
    """Plan an operator of :mod:`flopcuda.ops`.

    Args:
        op: "conv2d", "conv3d" or "linear".
        arguments: the operator's, in the order of its schema, with tensors on the CPU.
        kernel: one of ``_C.cuda_kernels()``; the one that suits the shapes by default.
        splits: into how many parts that kernel is to split the reduction; as many as suit the shapes by default.
        gathers_width: whether that kernel is to take the taps of a convolution's width as channels; as suits the shapes
            by default.

    Raises:
        RuntimeError, TypeError, ValueError: arguments that do not fit together, or that no kernel can compute.
    """
    wish = {"kernel": kernel, "splits": splits, "gathers_width": gathers_width}
    return PlannedLaunch(*getattr(torch.ops.flopcuda, f"{op}_plan")(*arguments, **wish))


@cache
def kernel_texts() -> Mapping[str, str]:
    """The PTX that the build left in the package: by a kernel's name, the text it stands in.

    Raises:
        RuntimeError: the package was built without nvcc and has none.
    """
    folder = resources.files("flopcuda") / "kernel_ptx"
    texts = [(folder / name).read_text() for name in ptx_files()]
    names = [str(kernel["name"]) for kernel in _C.cuda_kernels()]
    found = {name: text for text in texts for name in names if f".entry {name}(" in text}
    if not found:
        raise RuntimeError("backend 'ptxvm' runs the CUDA kernels' PTX, but flopcuda was built without nvcc")
    return found


class MachineBackend:
    """The CUDA kernels on the PTX machine. Takes tensors on the CPU.

    Args:
        machine: its seed, threads, checks and budget hold for every launch.
        texts: PTX by kernel name, as :func:`kernel_texts` has it.

    Raises:
        RuntimeError: the package has no PTX.
    """

    name = "ptxvm"

    def __init__(self, machine: ptx.Machine, texts: Mapping[str, str] | None = None) -> None:
        self._machine = machine
        self._texts = kernel_texts() if texts is None else texts
        self._modules: dict[str, ptx.Module] = {}

    def takes(self, tensor: Tensor) -> bool:
        """Meta and fake tensors give shapes only."""
        return holds_data(tensor)

    def run(
        self, op: str, operands: Operands, options: Mapping[str, Any], count_zero: bool
    ) -> tuple[Tensor, Execution]:
        """Run one operator. Its duration on the machine says nothing of a GPU's, so there is none.

        Raises:
            RuntimeError: a check of the machine found the kernel doing something wrong.
        """
        operands, options = in_order(operands, options)
        with _LaunchesOnMachine(self) as launches:
            output, counters = OPERATORS[op](*operands, **options, count_zero=count_zero)
        return output, Execution(
            fetched(counters), launches.kernel, None, launches.executed_macs, splits=launches.splits
        )

    def launch(self, planned: PlannedLaunch) -> ptx.LaunchResult:
        """Run a planned launch of at least one block.

        Raises:
            RuntimeError: a check found the kernel doing something wrong.
        """
        result = self._module(planned.kernel).launch(
            planned.kernel,
            planned.grid,
            planned.block,
            [planned.parameters.numpy().tobytes()],
            planned.shared_bytes,
            memory=[planned.output, planned.counters, *planned.workspace, *map(_read_only, planned.operands)],
        )
        if result.findings:
            raise RuntimeError(f"the PTX machine found a defect in a kernel: {result.findings[0]}")
        return result

    def _module(self, kernel: str) -> ptx.Module:
        text = self._texts[kernel]
        if text not in self._modules:
            self._modules[text] = _load(text).on(self._machine)
        return self._modules[text]


@lru_cache(maxsize=8)
def _load(text: str) -> ptx.Module:
    """Read once for all backends, which takes up to a second: the kernels have no variables that a launch could change.

    As many are kept as the package has texts, and two more.
    """
    return ptx.Machine().load(text)


class _LaunchesOnMachine(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Takes the place of the CPU kernels of the counted operators, below autograd."""

    def __init__(self, backend: MachineBackend) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._backend = backend
        self.kernel = "none"
        self.splits = 1
        self.executed_macs = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func.namespace != "flopcuda" or not holds_data(args[0]):
            return func(*args, **kwargs or {})
        planned = plan(func._opname, *args, **kwargs or {})
        self.kernel, self.splits = planned.kernel, planned.grid[2]
        if planned.grid[0] > 0:
            self.executed_macs = sum(self._backend.launch(planned).fma_lanes.values())
        return _in_layout_of(args[:2], planned.output).to(args[0].dtype), planned.counters


def _in_layout_of(operands: Sequence[Tensor], output: Tensor) -> Tensor:
    """The output in channels_last if an operand is, as torch and the other kernels give it."""
    formats = {suggest_memory_format(operand) for operand in operands} - {torch.contiguous_format}
    return output.contiguous(memory_format=formats.pop() if formats else torch.contiguous_format)


def _read_only(tensor: Tensor) -> Any:
    array = tensor.detach().reshape(-1).view(torch.uint8).numpy()  # numpy knows no bfloat16
    array.flags.writeable = False
    return array

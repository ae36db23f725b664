"""The CUDA launch planner through ctypes: host code, compiled by itself, so that no CUDA is needed to test it."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = [*sorted((ROOT / "csrc/cuda").glob("*.cpp")), Path(__file__).parent / "c_api.cpp"]


class PlanError(ValueError):
    """What the planner says of a problem that it refuses."""


@dataclass(frozen=True)
class Conv2d:
    """A ConvProblem of two axes."""

    batch: int = 1
    in_channels: int = 1
    in_height: int = 8
    in_width: int = 8
    out_channels: int = 1
    out_height: int = 8
    out_width: int = 8
    kernel_height: int = 1
    kernel_width: int = 1
    stride_height: int = 1
    stride_width: int = 1
    pad_top: int = 0
    pad_left: int = 0
    dilation_height: int = 1
    dilation_width: int = 1
    groups: int = 1

    def fields(self) -> list[int]:
        """Those of ConvProblem, in its order."""
        height = [self.in_height, self.out_height, self.kernel_height, self.stride_height]
        width = [self.in_width, self.out_width, self.kernel_width, self.stride_width]
        return [
            *(self.batch, self.in_channels, self.out_channels, self.groups),
            *(1, 1, 1, 1, 0, 1),
            *(*height, self.pad_top, self.dilation_height),
            *(*width, self.pad_left, self.dilation_width),
        ]


@dataclass(frozen=True)
class Linear:
    """The fields of LinearProblem, in its order."""

    rows: int = 1
    in_features: int = 1
    out_features: int = 1
    batch: int = 1
    triangle: int = 0  # above the diagonal, 1: no output is wanted; 2: the input is 0; below it, 3: likewise

    def fields(self) -> list[int]:
        return list(vars(self).values())


@dataclass(frozen=True)
class Kernel:
    """A row of the planner's list."""

    index: int
    name: str
    is_conv: bool
    is_float64: bool
    counts_zero: bool
    is_direct: bool
    is_split: bool
    max_taps: int
    block_m: int
    block_n: int
    block_k: int
    threads: int


@dataclass(frozen=True)
class Plan:
    """A launch plan, and those of its parameters that tests look at."""

    kernel: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    shared_bytes: int
    parameter_bytes: int
    parameters: dict[str, int]


@dataclass(frozen=True)
class Addresses:
    """Where the tensors are. Nothing is read there: any number will do."""

    input: int = 0x1000
    weight: int = 0x2000
    bias: int = 0
    output: int = 0x3000
    counters: int = 0x4000
    sums: int = 0x5000
    tickets: int = 0x6000


CONV_PARAMETERS = ["row_tiles", "column_tiles", "columns", "rows", "reduction", "output_aligned"]
LINEAR_PARAMETERS = ["row_tiles", "column_tiles", "output_aligned"]


class Planner:
    """The planner's C interface."""

    def __init__(self, library: Path) -> None:
        self.library = ctypes.CDLL(str(library))
        for name in ("flopcuda_kernel_name", "flopcuda_last_error", "flopcuda_plan_kernel"):
            getattr(self.library, name).restype = ctypes.c_char_p
        self.library.flopcuda_divide_by_kernel_width.restype = ctypes.c_uint32
        self.library.flopcuda_divide_by_kernel_width.argtypes = [ctypes.c_uint32]

    def kernels(self) -> list[Kernel]:
        return [self._kernel(index) for index in range(self.library.flopcuda_kernel_count())]

    def plan(
        self,
        problem: Conv2d | Linear,
        kernel: Kernel | None = None,
        count_zero: bool = False,
        addresses: Addresses | None = None,
        is_float64: bool = False,
        splits: int = 1,
    ) -> Plan:
        """Plan with a kernel and so many parts of the reduction, or with those that the planner chooses.

        Raises:
            PlanError: the planner refuses.
        """
        operation = "conv" if isinstance(problem, Conv2d) else "linear"
        function = getattr(self.library, f"flopcuda_plan_{operation}")
        places = (ctypes.c_uint64 * 7)(*vars(addresses or Addresses()).values())
        index = -1 if kernel is None else kernel.index
        if function(integers(problem.fields()), places, index, splits, is_float64, count_zero):
            raise PlanError(self.library.flopcuda_last_error().decode())
        launch = self._read("flopcuda_plan_launch", 8)
        names = CONV_PARAMETERS if operation == "conv" else LINEAR_PARAMETERS
        return Plan(
            kernel=self.library.flopcuda_plan_kernel().decode(),
            grid=(launch[0], launch[1], launch[2]),
            block=(launch[3], launch[4], launch[5]),
            shared_bytes=launch[6],
            parameter_bytes=launch[7],
            parameters=dict(zip(names, self._read(f"flopcuda_plan_{operation}_params", len(names)), strict=True)),
        )

    def divide_by_kernel_width(self, n: int) -> int:
        """``n`` divided as the kernels do it, by the kernel width of the last planned convolution."""
        return int(self.library.flopcuda_divide_by_kernel_width(n))

    def _kernel(self, index: int) -> Kernel:
        fields = self._read("flopcuda_kernel_info", 10, index)
        name = self.library.flopcuda_kernel_name(index).decode()
        return Kernel(index, name, *map(bool, fields[:5]), *fields[5:])

    def _read(self, function: str, count: int, *arguments: int) -> list[int]:
        fields = integers([0] * count)
        getattr(self.library, function)(*arguments, fields)
        return list(fields)


def integers(values: Sequence[int]) -> ctypes.Array[ctypes.c_int64]:
    return (ctypes.c_int64 * len(values))(*values)


def build_planner(folder: Path) -> Planner:
    """Compile the planner into a folder and load it."""
    library = folder / "plan.so"
    flags = ["-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", f"-I{ROOT / 'csrc'}"]
    subprocess.run(["c++", *flags, *map(str, SOURCES), "-o", str(library)], check=True)
    return Planner(library)

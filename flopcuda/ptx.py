"""Run CUDA kernels without a GPU: a virtual machine for NVIDIA PTX that checks and counts what it executes.

    >>> machine = flopcuda.ptx.Machine()
    >>> module = machine.load(open("saxpy.ptx").read())
    >>> result = module.launch("saxpy", grid=4, block=256, args=[1000, 2.0, x, y])
    >>> result.findings
    []
    >>> result.fma_lanes
    {'f32': 1000}

Arrays and CPU tensors are used where they are, without a copy; a kernel's global pointers are host addresses. Numbers
count *lane-instructions*: one instruction executed by one thread. They are those of the PTX text, before an assembler
has turned it into machine code.
"""

from __future__ import annotations

import ctypes
import enum
import numbers
import struct
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from flopcuda import _ptxvm

__all__ = ["CHECKS", "Finding", "Kernel", "LaunchResult", "Machine", "Module", "Parameter", "PtxError", "Row"]

PtxError = _ptxvm.PtxError

#: Names of the checks, as `Machine(checks=...)` takes them and `Finding.kind` gives them.
CHECKS: tuple[str, ...] = tuple(_ptxvm.check_names)

Extent = int | Sequence[int]


@dataclass(frozen=True)
class Parameter:
    """A kernel's parameter: its place in the parameter block in bytes, and its PTX type ("u64", "f32", "b8")."""

    name: str
    offset: int
    size: int
    type: str
    is_struct: bool


@dataclass(frozen=True)
class Kernel:
    """What a module says of one of its kernels."""

    name: str
    parameters: tuple[Parameter, ...]
    shared_bytes: int  #: static shared memory of a block
    local_bytes: int  #: local memory of a thread, of the kernel itself
    registers: int  #: virtual registers that the PTX names; the hardware's are decided by ptxas
    max_threads: int  #: of a block, from `.maxntid`; 0 if it does not say


@dataclass(frozen=True)
class Finding:
    """A defect that a check saw: where it was seen first, and how often."""

    kind: str  #: one of CHECKS
    kernel: str
    function: str  #: the kernel, or the function it called
    line: int  #: in the PTX text
    text: str  #: of that line
    source_file: str  #: from `nvcc -lineinfo`; empty without
    source_line: int
    block: tuple[int, int, int]
    thread: tuple[int, int, int]
    address: int
    message: str
    count: int  #: times it was seen at this instruction

    def __str__(self) -> str:
        source = f" ({self.source_file}:{self.source_line})" if self.source_file else ""
        return (
            f"{self.kind}: {self.kernel}, line {self.line}{source}, block {self.block}, thread {self.thread} "
            f"{self.message} [{self.text}; {self.count} times]"
        )


class Row(NamedTuple):
    """One instruction of the text, over the whole launch; one for each state space that a generic access led to."""

    name: str  #: with its modifiers: "fma.rn.f32"
    lanes: int  #: lane-instructions executed
    space: str  #: state space of a memory access: "global", "shared", "local", "param" or ""
    requests: int  #: warps that issued it, of a memory instruction
    units: int  #: global: sectors of 32 bytes touched; shared: wavefronts
    ideal: int  #: global: sectors that the bytes would fill side by side; shared: wavefronts without bank conflicts
    fma_type: str  #: operand type if it multiplies and adds, else ""
    macs_per_lane: int
    line: int  #: in the PTX text
    source_file: str
    source_line: int
    function: str


class _MemoryKind(enum.Enum):
    GLOBAL = "global"
    SHARED = "shared"


@dataclass(frozen=True)
class MemoryUse:
    """How warps used one kind of memory."""

    requests: int  #: instructions issued by warps
    units: int  #: global: sectors of 32 bytes; shared: wavefronts
    ideal: int  #: units that the bytes would need at the best of places

    @property
    def conflicts(self) -> int:
        """Units beyond the ideal: wavefronts that bank conflicts added, sectors that scattered lanes touched."""
        return self.units - self.ideal

    @property
    def per_request(self) -> float:
        """Sectors or wavefronts a request needed on average; 0 without any request."""
        return self.units / self.requests if self.requests else 0.0


@dataclass(frozen=True)
class LaunchResult:
    """What a launch did."""

    findings: list[Finding]
    rows: list[Row]  #: every instruction that was executed, in the order of the text
    branches: int  #: conditional branches issued by warps
    diverged_branches: int  #: of these, those whose lanes went different ways
    barriers: int  #: barriers completed by blocks
    warp_instructions: int  #: instructions issued, each for as many lanes as stand there together
    output: str  #: what the kernel printed
    stopped: bool  #: a trap, a failed assertion or a budget ended the launch early
    seconds: float  #: wall time of the machine, which says nothing of a GPU's

    @cached_property
    def counts(self) -> Counter[str]:
        """Lane-instructions by full opcode."""
        counts: Counter[str] = Counter()
        for row in self.rows:
            counts[row.name] += row.lanes
        return counts

    @property
    def lane_instructions(self) -> int:
        return sum(row.lanes for row in self.rows)

    @property
    def fma_lanes(self) -> dict[str, int]:
        """Multiply-adds (MACs) by operand type: one for each lane of fma and mad, m n k for each mma of a warp."""
        lanes: Counter[str] = Counter()
        for row in self.rows:
            if row.fma_type:
                lanes[row.fma_type] += row.lanes * row.macs_per_lane
        return dict(lanes)

    @property
    def global_memory(self) -> MemoryUse:
        return self._memory(_MemoryKind.GLOBAL)

    @property
    def shared_memory(self) -> MemoryUse:
        return self._memory(_MemoryKind.SHARED)

    def _memory(self, kind: _MemoryKind) -> MemoryUse:
        rows = [row for row in self.rows if row.space == kind.value]
        return MemoryUse(
            sum(row.requests for row in rows), sum(row.units for row in rows), sum(row.ideal for row in rows)
        )

    def to_dict(self) -> dict[str, Any]:
        """All of it, sums included, for JSON."""
        return {
            **vars(self),
            "counts": self.counts,
            "findings": [asdict(finding) for finding in self.findings],
            "rows": [row._asdict() for row in self.rows],
            "lane_instructions": self.lane_instructions,
            "fma_lanes": self.fma_lanes,
            "global_memory": asdict(self.global_memory),
            "shared_memory": asdict(self.shared_memory),
        }

    def by_source_line(self) -> dict[tuple[str, int], Counter[str]]:
        """Lane-instructions by opcode for each (file, line) of the CUDA source, if it was compiled with -lineinfo."""
        lines: dict[tuple[str, int], Counter[str]] = {}
        for row in self.rows:
            if row.source_line:
                lines.setdefault((row.source_file, row.source_line), Counter())[row.name] += row.lanes
        return lines


@dataclass(frozen=True)
class _Allocation:
    address: int
    size: int
    writable: bool
    name: str
    owner: object  # kept alive

    def as_tuple(self) -> tuple[int, int, bool, str]:
        return self.address, self.size, self.writable, self.name


class Module:
    """Loaded PTX. Its `__device__` and `__constant__` variables live, and keep their values, as long as it does."""

    def __init__(self, machine: Machine, module: _ptxvm.Module) -> None:
        self._machine = machine
        self._module = module
        self.kernels: dict[str, Kernel] = {k["name"]: _kernel(k) for k in self._module.kernels}
        self.version: str = self._module.version  #: of the PTX ISA
        self.target: str = self._module.target  #: "sm_80"

    def on(self, machine: Machine) -> Module:
        """The same module, variables included, with another machine's settings; its text is not read again."""
        return Module(machine, self._module)

    def variable(self, name: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """The bytes of a `__device__` or `__constant__` variable, where they are.

        Raises:
            KeyError: the module has no such variable.
        """
        for known, _, address, size in self._module.variables:
            if known == name:
                buffer = (ctypes.c_uint8 * size).from_address(address)
                vars(buffer)["module"] = self._module  # whose memory it is
                return np.ctypeslib.as_array(buffer)
        raise KeyError(name)

    def launch(
        self,
        name: str,
        grid: Extent,
        block: Extent,
        args: Sequence[Any] = (),
        shared_bytes: int = 0,
        memory: Sequence[Any] = (),
        cooperative: bool = False,
    ) -> LaunchResult:
        """Run a kernel to its end.

        Args:
            name: the kernel's (mangled) name; may be left short if only one kernel's name contains it.
            grid: blocks in x, y, z.
            block: threads of a block in x, y, z; at most 1024.
            args: one for each parameter. A numpy array or CPU tensor passes its address; an int, float or bool is
                converted to the parameter's type; bytes, a ctypes structure or a numpy scalar is passed as it is; None
                is a null pointer.
            shared_bytes: dynamic shared memory of a block.
            memory: arrays and CPU tensors that the kernel may touch besides, through a pointer inside a structure. A
                numpy array that is not writeable is the kernel's to read only.
            cooperative: all blocks, at most 1024, run at a time, so that they may wait for each other (`grid.sync()` of
                cooperative groups). Otherwise a block runs to its end before its host thread begins the next, and may
                wait only for blocks that have begun. Warps of a block and lanes of a warp take turns in any case.

        Raises:
            PtxError: unknown kernel, extents out of range, or arguments that do not fit the parameters. What a kernel
                does wrong is no exception but a finding.
        """
        kernel = self.find(name)
        allocations = list(self._machine._registered)
        allocations += [_allocation(array, f"memory {index}", True) for index, array in enumerate(memory)]
        parameters = _pack(kernel, args, allocations)
        raw = self._module.launch(
            name=kernel.name,
            parameters=parameters,
            allocations=[a.as_tuple() for a in allocations],
            grid=_extent(grid, "grid", kernel.name),
            block=_extent(block, "block", kernel.name),
            shared_bytes=shared_bytes,
            threads=self._machine.threads or 0,
            seed=self._machine.seed,
            checks=self._machine._check_bits,
            budget=self._machine.budget,
            cooperative=cooperative,
        )
        return LaunchResult(
            findings=[Finding(**finding) for finding in raw["findings"]],
            rows=list(map(Row._make, raw["rows"])),
            branches=raw["branches"],
            diverged_branches=raw["diverged_branches"],
            barriers=raw["barriers"],
            warp_instructions=raw["warp_instructions"],
            output=raw["output"].decode("utf-8", "replace"),
            stopped=raw["stopped"],
            seconds=raw["seconds"],
        )

    def find(self, name: str) -> Kernel:
        """The kernel of this name, or the only one whose name contains it.

        Raises:
            PtxError: there is none, or there are several.
        """
        if name in self.kernels:
            return self.kernels[name]
        close = [kernel for known, kernel in self.kernels.items() if name in known]
        if len(close) == 1:
            return close[0]
        known = ", ".join(self.kernels) or "none"
        what = f"{len(close)} kernels are called" if close else "no kernel is called"
        raise PtxError(f"{what} {name!r}: the module has {known}")


class Machine:
    """Settings of launches, and memory that kernels may touch besides their arguments.

    Args:
        threads: host threads that execute blocks; one for each core by default. With 1, blocks run in order and
            floating-point atomics give the same sum every time.
        seed: shuffles the order of blocks and warps, to show what depends on it; ascending without.
        checks: names from CHECKS, or True for all, or False for none. A bad access is left out in any case.
        budget: instructions that one warp may execute before the launch is stopped as a runaway.
    """

    def __init__(
        self,
        threads: int | None = None,
        seed: int | None = None,
        checks: bool | Iterable[str] = True,
        budget: int = 100_000_000,
    ) -> None:
        if threads is not None and threads < 1:
            raise ValueError(f"threads must be at least 1, not {threads}")
        if budget < 1:
            raise ValueError(f"budget must be at least 1, not {budget}")
        self.threads = threads
        self.seed = None if seed is None else seed & (2**64 - 1)
        self.budget = budget
        self.checks = _check_names(checks)
        self._check_bits = sum(1 << CHECKS.index(name) for name in self.checks)
        self._registered: list[_Allocation] = []

    def load(self, text: str | bytes) -> Module:
        """Parse and decode PTX text.

        Raises:
            PtxError: the text is not PTX that the machine knows; names the kernel, the line and its text (attributes
                `kernel`, `line`, `text`).
        """
        return Module(self, _ptxvm.Module(text.decode("utf-8", "replace") if isinstance(text, bytes) else text))

    def register(self, array: Any, name: str = "", writable: bool = True) -> int:
        """Let kernels of later launches touch an array or CPU tensor that is not an argument itself.

        Returns:
            Its address.
        """
        allocation = _allocation(array, name or f"array {len(self._registered)}", writable)
        self._registered.append(allocation)
        return allocation.address

    def unregister(self, array: Any) -> None:
        """Forget what `register` was told.

        Raises:
            KeyError: the array is not registered.
        """
        address = _allocation(array, "", True).address
        kept = [a for a in self._registered if a.address != address]
        if len(kept) == len(self._registered):
            raise KeyError("the array is not registered")
        self._registered = kept


def _check_names(checks: bool | Iterable[str]) -> tuple[str, ...]:
    if isinstance(checks, bool):
        return CHECKS if checks else ()
    names = tuple(checks)
    for name in names:
        if name not in CHECKS:
            raise ValueError(f"no check {name!r}; there are {', '.join(CHECKS)}")
    return names


def _kernel(raw: Mapping[str, Any]) -> Kernel:
    parameters = tuple(Parameter(**parameter) for parameter in raw["parameters"])
    return Kernel(**{**raw, "parameters": parameters})


def _extent(extent: Extent, what: str, kernel: str) -> tuple[int, int, int]:
    values = [extent] if isinstance(extent, int) else list(extent)
    if not 1 <= len(values) <= 3 or any(not 0 <= int(value) < 2**31 for value in values):
        raise PtxError(f"{kernel}, {what} must be one to three numbers from 1 to 2^31 - 1, not {extent!r}")
    x, y, z = [int(value) for value in values] + [1] * (3 - len(values))
    return x, y, z


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray) or (hasattr(value, "data_ptr") and hasattr(value, "untyped_storage"))


def _allocation(value: Any, name: str, writable: bool) -> _Allocation:
    """Where an array or tensor lies; a strided one from its first to its last byte."""
    if isinstance(value, np.ndarray):
        low, size = _bounds(value.ctypes.data, value.shape, value.strides, value.itemsize)
        return _Allocation(low, size, writable and value.flags.writeable, name, value)
    if not _is_array(value):
        raise TypeError(f"expected a numpy array or a CPU tensor, not {type(value).__name__}")
    if value.device.type != "cpu":
        raise ValueError(f"the machine runs on the CPU; the tensor is on {value.device}")
    itemsize = value.element_size()
    low, size = _bounds(value.data_ptr(), value.shape, [stride * itemsize for stride in value.stride()], itemsize)
    return _Allocation(low, size, writable, name, value)


def _bounds(address: int, shape: Sequence[int], strides: Sequence[int], itemsize: int) -> tuple[int, int]:
    """The lowest address of an array's elements and the bytes from there to its end; strides in bytes."""
    if 0 in shape:
        return address, 0
    reaches = [(extent - 1) * stride for extent, stride in zip(shape, strides, strict=True)]
    low = sum(reach for reach in reaches if reach < 0)
    high = sum(reach for reach in reaches if reach > 0)
    return address + low, high - low + itemsize


def _pack(kernel: Kernel, args: Sequence[Any], allocations: list[_Allocation]) -> bytes:
    """The parameter block; arrays among the arguments are added to the allocations."""
    if len(args) != len(kernel.parameters):
        raise PtxError(f"{kernel.name}, {len(kernel.parameters)} arguments are needed, not {len(args)}")
    size = max((p.offset + p.size for p in kernel.parameters), default=0)
    block = bytearray(size)
    for index, (parameter, value) in enumerate(zip(kernel.parameters, args, strict=True)):
        try:
            if _is_array(value):
                allocation = _allocation(value, f"argument {index}", True)
                allocations.append(allocation)
                value = allocation.address
            data = _encode(parameter, value)
        except (TypeError, ValueError, OverflowError, struct.error) as error:
            raise PtxError(f"{kernel.name}, argument {index} ({parameter.type}): {error}") from None
        if len(data) != parameter.size:
            raise PtxError(f"{kernel.name}, argument {index} has {len(data)} bytes, not {parameter.size}")
        block[parameter.offset : parameter.offset + parameter.size] = data
    return bytes(block)


def _encode(parameter: Parameter, value: Any) -> bytes:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, (ctypes.Structure, ctypes.Array, ctypes._SimpleCData)):
        return bytes(value)
    if isinstance(value, np.generic):
        return value.tobytes()
    if value is None:
        return bytes(parameter.size)
    if parameter.is_struct:
        raise TypeError(f"a structure of {parameter.size} bytes is needed, not {type(value).__name__}")
    if parameter.type in ("f32", "f64") or (isinstance(value, float) and parameter.type in ("b32", "b64")):
        return struct.pack("<f" if parameter.size == 4 else "<d", value)
    if not isinstance(value, numbers.Integral):
        raise TypeError(f"a number is needed, not {type(value).__name__}")
    number = int(value)
    bits = 8 * parameter.size
    if not -(1 << (bits - 1)) <= number < 1 << bits:
        raise OverflowError(f"{number} does not fit in {bits} bits")
    return (number & ((1 << bits) - 1)).to_bytes(parameter.size, "little")

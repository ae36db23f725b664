"""All that is known of the CUDA kernels without a GPU: the build, the machine code, a run on the PTX machine."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flopcuda import _C, ptx
from flopcuda.kernels.build import Target, Usage, built_usage
from flopcuda.kernels.observation import Observation, observe
from flopcuda.kernels.occupancy import Occupancy, occupancy
from flopcuda.kernels.sass import MainLoop, NoDisassemblerError, main_loops
from flopcuda.ptx_backend import MachineBackend

__all__ = ["Build", "Catalogue", "Kernel", "MainLoop", "Observation", "Occupancy", "Usage", "catalogue"]


@dataclass(frozen=True)
class Build:
    """A kernel on one architecture."""

    architecture: str
    usage: Usage
    occupancy: Occupancy | None  #: None if the architecture's limits are not known
    main_loop: MainLoop | None  #: None without a disassembler, or if the kernel has no loop


@dataclass(frozen=True)
class Kernel:
    """One counted kernel.

    Attributes:
        name: the PTX entry.
        operation: "conv" or "linear".
        dtype: of operands and outputs: "float64", "float16", "tf32".
        counts_zero: whether it fills the zero counter.
        is_split: whether several blocks share a tile, a part of the reduction each.
        part_unit: what such parts have whole ones of: "slice", "slice_of_taps" (of the channels of each
            tap) or "tap".
        tile: outputs of a block, rows by columns, and products between two barriers.
        threads: of a block.
        unit: what multiplies, as :func:`flopcuda._C.device_rates` lists units: "fma_f32", "mma_f16".
        multiply_share: of multiply-adds in the instructions of its main loop on sm_80, as the planner knows it.
        fixed_slices: of the main loop, as long as what a block does besides; 0 where the planner leaves that out.
        observation: a run on the machine; None without PTX.
        builds: one for each architecture.
    """

    name: str
    operation: str
    dtype: str
    counts_zero: bool
    is_split: bool
    part_unit: str
    tile: tuple[int, int, int]
    threads: int
    unit: str
    multiply_share: float
    fixed_slices: int
    observation: Observation | None
    builds: tuple[Build, ...]


@dataclass(frozen=True)
class Catalogue:
    """The kernels, and a sentence for each kind of fact that is missing."""

    kernels: tuple[Kernel, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def catalogue(
    architectures: Sequence[str] = (), on_step: Callable[[str], None] = lambda description: None
) -> Catalogue:
    """Gather what is known of every kernel.

    Args:
        architectures: of those built, "sm_80"; all by default.
        on_step: told what is looked at next, once for each architecture and kernel.

    Raises:
        ValueError: the kernels were not built for an architecture.
        RuntimeError: a check of the machine found a defect in a kernel.
    """
    notes: list[str] = []
    usage = built_usage()
    selected = _select(architectures, usage)
    loops = _read_main_loops(selected, notes, on_step)
    backend = _machine(notes)
    kernels = []
    for entry in _C.cuda_kernels():
        name = entry["name"]
        if backend:
            on_step(name)
        observation = observe(backend, name, entry["operation"], entry["dtype"], entry["tile"]) if backend else None
        targets = [(name, architecture) for architecture in selected]
        builds = [_build(target, entry["threads"], usage, loops) for target in targets if target in usage]
        kernels.append(Kernel(**entry, observation=observation, builds=tuple(builds)))
    return Catalogue(tuple(kernels), tuple(notes))


def built_architectures() -> list[str]:
    """Those that the kernels were built for; none without nvcc."""
    architectures = {architecture for _, architecture in built_usage()}
    return sorted(architectures, key=lambda name: (int(re.sub(r"\D", "", name)), name))


def _select(architectures: Sequence[str], usage: Mapping[Target, Usage]) -> list[str]:
    built = built_architectures()
    for architecture in architectures:
        if architecture not in built:
            raise ValueError(f"no kernel was built for {architecture}; there are {', '.join(built) or 'none'}")
    return list(dict.fromkeys(architectures)) or built


def _read_main_loops(
    architectures: Sequence[str], notes: list[str], on_step: Callable[[str], None]
) -> dict[Target, MainLoop]:
    """By kernel and architecture, as far as the library can be disassembled."""
    if not architectures:
        notes.append("Registers, occupancy and main loops are unknown: the package was built without nvcc.")
    loops: dict[Target, MainLoop] = {}
    for architecture in architectures:
        on_step(architecture)
        try:
            found = main_loops(Path(_C.__file__), architecture)
        except NoDisassemblerError as error:
            notes.append(f"Main loops are unknown: {error}.")
            break
        loops.update({(name, architecture): loop for name, loop in found.items()})
    return loops


def _machine(notes: list[str]) -> MachineBackend | None:
    try:
        return MachineBackend(ptx.Machine())
    except RuntimeError as error:
        notes.append(f"Nothing was run on the PTX machine: {error}.")
        return None


def _build(target: Target, threads: int, usage: Mapping[Target, Usage], loops: dict[Target, MainLoop]) -> Build:
    used = usage[target]
    try:
        held = occupancy(target[1], threads, used.registers, used.shared_bytes)
    except ValueError:
        held = None
    return Build(target[1], used, held, loops.get(target))

"""Runs whole CUDA programs on the machine, and says what the memory system must have seen of their addresses."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from flopcuda import ptx
from tests.ptxvm import harness

LANES = 32
SEEDS = (1, 2)


@dataclass(frozen=True)
class Build:
    """A way of compiling a source."""

    name: str
    flags: tuple[str, ...] = ("-O3",)
    architecture: str = "compute_80"

    def __str__(self) -> str:
        return self.name

    def load(self, source: str, *flags: str) -> Program:
        return Program(
            harness.compile_cuda(harness.source(source), *self.flags, *flags, architecture=self.architecture)
        )


OPTIMISED = Build("O3")
DEBUG = Build("G", ("-G",))
UNUSUAL = (
    Build("O0", ("-Xcicc", "-O0")),
    Build("O1", ("-Xcicc", "-O1")),
    Build("lineinfo", ("-O3", "-lineinfo")),
    Build("sm_75", architecture="compute_75"),
    Build("sm_90", architecture="compute_90"),
    Build("sm_120", architecture="compute_120"),
)


def builds(function: Callable[..., None]) -> Callable[..., None]:
    """Test a source at -O3 and -G, and, among the slow tests, in unusual ways."""
    values = [OPTIMISED, DEBUG, *(pytest.param(build, marks=pytest.mark.slow) for build in UNUSUAL)]
    return harness.needs_nvcc(pytest.mark.parametrize("build", values, ids=str)(function))


@dataclass(frozen=True)
class Program:
    """PTX that a test runs."""

    text: str

    def run(
        self,
        kernel: str,
        grid: ptx.Extent,
        block: ptx.Extent,
        args: Sequence[Any],
        *,
        shared_bytes: int = 0,
        cooperative: bool = False,
        memory: Sequence[np.ndarray[Any, Any]] = (),
        without: Sequence[str] = (),
    ) -> ptx.LaunchResult:
        """Launch with all checks: on one host thread in order, then with blocks and warps shuffled on all.

        Every order must leave the same in the arrays and no finding; what is returned is of the first.

        Args:
            kernel: its name.
            grid: blocks.
            block: threads.
            args: of the kernel; arrays are written to.
            shared_bytes: dynamic shared memory.
            cooperative: blocks wait for each other.
            memory: arrays that pointers among the arguments lead to.
            without: checks to leave out.
        """
        arrays = [value for value in (*args, *memory) if isinstance(value, np.ndarray)]
        before = [array.copy() for array in arrays]
        checks = [name for name in ptx.CHECKS if name not in without]
        results, after = [], []
        for seed in (None, *SEEDS):
            for array, values in zip(arrays, before, strict=True):
                array[...] = values
            machine = ptx.Machine(seed=seed, threads=1 if seed is None else None, checks=checks)
            result = machine.load(self.text).launch(
                kernel, grid, block, args, shared_bytes=shared_bytes, memory=memory, cooperative=cooperative
            )
            assert not result.findings, "\n".join(map(str, result.findings))
            results.append(result)
            after.append([array.copy() for array in arrays])
        for other in after[1:]:
            for first, later in zip(after[0], other, strict=True):
                np.testing.assert_array_equal(first.view(np.uint8), later.view(np.uint8))
        return results[0]


def lanes(result: ptx.LaunchResult, *words: str) -> int:
    """Lane-instructions whose opcode has all these words between its dots."""
    return sum(count for name, count in result.counts.items() if set(words) <= set(name.split(".")))


def memory_rows(result: ptx.LaunchResult, space: str, opcode: str) -> list[ptx.Row]:
    return [row for row in result.rows if row.space == space and row.name.split(".")[0] == opcode]


@dataclass(frozen=True)
class Traffic:
    """Requests of warps, the sectors or wavefronts they needed, and the fewest they could have needed."""

    requests: int
    units: int
    ideal: int


def traffic(result: ptx.LaunchResult, space: str, opcode: str) -> Traffic:
    """What the machine saw."""
    rows = memory_rows(result, space, opcode)
    return Traffic(sum(r.requests for r in rows), sum(r.units for r in rows), sum(r.ideal for r in rows))


def access_bytes(result: ptx.LaunchResult, space: str, opcode: str) -> int:
    """What a lane moves at a time: nvcc may move a structure whole or in pieces, all of one size."""
    sizes = set()
    for row in memory_rows(result, space, opcode):
        *_, vector, type_name = row.name.split(".")
        sizes.add(int(type_name[1:]) // 8 * (int(vector[1:]) if vector[0] == "v" else 1))
    (size,) = sizes
    return size


# A warp's access: for each active lane its number and the address of its first byte.
Access = Sequence[tuple[int, int]]


def by_warp(addresses: Iterable[tuple[int, int]]) -> Iterator[Access]:
    """Accesses of a block's threads (thread, address) at one instruction, warp by warp."""
    warps: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for thread, address in addresses:
        warps[thread // LANES].append((thread % LANES, address))
    yield from warps.values()


def sectors(accesses: Iterable[Access], size: int) -> Traffic:
    """Sectors of 32 bytes that accesses of `size` bytes a lane touch, by listing the bytes of every lane."""
    requests = units = ideal = 0
    for access in accesses:
        touched = {byte for _, address in access for byte in range(address, address + size)}
        requests += 1
        units += len({byte // 32 for byte in touched})
        ideal += -(-len(touched) // 32)
    return Traffic(requests, units, ideal)


def wavefronts(accesses: Iterable[Access], size: int) -> Traffic:
    """Wavefronts of shared memory: 32 banks of 4 bytes, each delivering one word at a time to any number of lanes.

    A warp goes as a whole for up to 4 bytes a lane, in halves for 8, in quarters for 16.
    """
    requests = units = ideal = 0
    group = LANES // max(1, size // 4)
    for access in accesses:
        requests += 1
        for first in range(0, LANES, group):
            banks: dict[int, set[int]] = defaultdict(set)
            for lane, address in access:
                if first <= lane < first + group:
                    for byte in range(address, address + size):
                        banks[byte // 4 % LANES].add(byte // 4)
            needed = max((len(words) for words in banks.values()), default=0)
            units += needed
            ideal += min(needed, 1)
    return Traffic(requests, units, ideal)

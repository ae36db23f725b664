"""How many blocks of a kernel fit on one multiprocessor at a time, and what keeps more of them out.

Limits are those of the table "Technical Specifications per Compute Capability" in NVIDIA's CUDA C++ Programming Guide;
the units in which registers and shared memory are handed out are those of its occupancy calculator.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

WARP_SIZE = 32
MAX_THREADS = 1024  # of a block
MAX_REGISTERS = 255  # of a thread
REGISTERS = 65_536  # of a multiprocessor and of a block
REGISTER_UNIT = 256  # handed out to a warp
PARTITIONS = 4  # of a multiprocessor, each with its share of warps and registers


@dataclass(frozen=True)
class Multiprocessor:
    """What differs from one compute capability to another."""

    warps: int
    blocks: int
    shared_kib: int  #: shared memory of all its blocks
    shared_unit: int = 128  #: in bytes, handed out to a block
    reserved_bytes: int = 1024  #: of a block's shared memory, for the system

    @property
    def shared_bytes(self) -> int:
        return 1024 * self.shared_kib


MULTIPROCESSORS: dict[str, Multiprocessor] = {
    "sm_75": Multiprocessor(warps=32, blocks=16, shared_kib=64, shared_unit=256, reserved_bytes=0),
    "sm_80": Multiprocessor(warps=64, blocks=32, shared_kib=164),
    "sm_86": Multiprocessor(warps=48, blocks=16, shared_kib=100),
    "sm_87": Multiprocessor(warps=48, blocks=16, shared_kib=164),
    "sm_89": Multiprocessor(warps=48, blocks=24, shared_kib=100),
    "sm_90": Multiprocessor(warps=64, blocks=32, shared_kib=228),
    "sm_100": Multiprocessor(warps=64, blocks=32, shared_kib=228),
    "sm_103": Multiprocessor(warps=64, blocks=32, shared_kib=228),
    "sm_110": Multiprocessor(warps=48, blocks=24, shared_kib=228),
    "sm_120": Multiprocessor(warps=48, blocks=24, shared_kib=100),
    "sm_121": Multiprocessor(warps=48, blocks=24, shared_kib=100),
}


@dataclass(frozen=True)
class Occupancy:
    """Blocks and warps that a multiprocessor holds at a time.

    Attributes:
        blocks: 0 if not even one fits.
        warps: of these blocks.
        share: of the warps that a multiprocessor can hold.
        limited_by: "warps", "blocks", "registers" or "shared memory".
    """

    blocks: int
    warps: int
    share: float
    limited_by: str


def occupancy(architecture: str, threads: int, registers: int, shared_bytes: int) -> Occupancy:
    """Occupancy of a kernel.

    Args:
        architecture: "sm_80"; a suffix as in "sm_90a" makes no difference.
        threads: of a block.
        registers: of a thread.
        shared_bytes: of a block, static and dynamic.

    Raises:
        ValueError: the limits of this architecture are not known.
    """
    limits = MULTIPROCESSORS.get(re.sub(r"[af]$", "", architecture))
    if limits is None:
        raise ValueError(f"the limits of {architecture} are not known; those of {', '.join(MULTIPROCESSORS)} are")
    warps = _divide_up(threads, WARP_SIZE)
    allowed = {
        "warps": limits.warps // warps if threads <= MAX_THREADS else 0,
        "blocks": limits.blocks,
        "registers": _limit_by_registers(warps, registers),
        "shared memory": _limit_by_shared_memory(limits, shared_bytes),
    }
    limited_by = min(allowed, key=lambda resource: allowed[resource])
    blocks = allowed[limited_by]
    return Occupancy(blocks, blocks * warps, blocks * warps / limits.warps, limited_by)


def _limit_by_registers(warps: int, registers: int) -> int:
    """Warps are spread over the partitions; a block's registers are reckoned as if they filled them evenly."""
    of_warp = _round_up(registers * WARP_SIZE, REGISTER_UNIT)
    if registers > MAX_REGISTERS or of_warp * _round_up(warps, PARTITIONS) > REGISTERS:
        return 0
    return REGISTERS // PARTITIONS // of_warp * PARTITIONS // warps


def _limit_by_shared_memory(limits: Multiprocessor, shared_bytes: int) -> int:
    of_block = _round_up(shared_bytes + limits.reserved_bytes, limits.shared_unit)
    return limits.shared_bytes // of_block if of_block else limits.blocks


def _divide_up(dividend: int, divisor: int) -> int:
    return -(-dividend // divisor)


def _round_up(number: int, unit: int) -> int:
    return _divide_up(number, unit) * unit

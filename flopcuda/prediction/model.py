"""The time of one launch from its tiles: issue slots, rates of the units, waves of blocks, and bytes of memory.

A multiprocessor executes the slices of its blocks' main loops. A slice of one block takes as many cycles as the unit
needs for its multiply-adds, or the four schedulers for all its instructions, whichever is more. Blocks that are
resident together share the multiprocessor; one alone also waits for its own barriers and copies. All multiprocessors
take their blocks in waves. Memory and arithmetic overlap: the longer of them, with the launch before it, is the time.
Where blocks share a reduction, they write their sums, and the last of each tile reads them all.

Left out: the bandwidths of L2 and of shared memory, bank conflicts, most kernels' instructions outside the main loop,
and power limits, which lower the clock of long products in tensor cores. docs/prediction.md holds the model against
published times.
"""

from __future__ import annotations

from dataclasses import dataclass

from flopcuda import _C
from flopcuda.formulas import TriangleSizes, triangle_exact_mul
from flopcuda.prediction.gpus import GPU, UNITS

# The planner's, whose sources csrc/cuda/device.h has.
SCHEDULERS, SLICE_LATENCY, FILL_LATENCY = _C.SCHEDULERS, _C.SLICE_LATENCY, _C.FILL_LATENCY
SPLIT_BYTES, SPLIT_LATENCY = _C.SPLIT_BYTES, _C.SPLIT_LATENCY
LAUNCH_SECONDS, BANDWIDTH_SHARE = _C.LAUNCH_SECONDS, _C.BANDWIDTH_SHARE


@dataclass(frozen=True)
class Tiling:
    """A kernel as the model sees it.

    Attributes:
        name: of the kernel.
        tile: outputs of a block, rows by columns, and products of a slice.
        unit: what multiplies, one of :data:`flopcuda.prediction.gpus.UNITS`.
        multiply_share: of multiply-adds in the instructions of the main loop.
        resident: blocks that a multiprocessor holds at a time.
        rate_share: of the unit's rate in :attr:`GPU.rates`, what its instructions reach.
        part_unit: what a block has whole ones of where blocks share a reduction, as :func:`flopcuda._C.cuda_kernels`
            says it; of taps, and of their slices, no slice has products of two.
        fixed_slices: as long as what a block does outside its main loop.
    """

    name: str
    tile: tuple[int, int, int]
    unit: str
    multiply_share: float
    resident: int
    rate_share: float = 1.0
    part_unit: str = "slice"
    fixed_slices: int = 0


@dataclass(frozen=True)
class Work:
    """So many groups of products, ``[rows, reduction]`` by ``[reduction, columns]``.

    Attributes:
        groups, rows, columns, reduction: sizes.
        row_bytes, column_bytes, output_bytes: of the two operands and the outputs, of all groups.
        rows_first: whether blocks vary along the rows first.
        taps: of a convolution, each of as many products of the reduction; or 1. On tensor cores, those that are no
            channels.
        stored_bytes: of the rows' operand as the kernel takes it, beyond the tensor's own.
        triangle: of which no more is multiplied, as :func:`flopcuda.ops.matmul` takes it; the rows are the first
            factor's then.
    """

    groups: int
    rows: int
    columns: int
    reduction: int
    row_bytes: int
    column_bytes: int
    output_bytes: int
    rows_first: bool
    taps: int = 1
    stored_bytes: int = 0
    triangle: str | None = None

    @property
    def multiply_adds(self) -> int:
        if self.triangle is not None:
            return triangle_exact_mul(
                TriangleSizes(
                    triangle=self.triangle,
                    rows=self.rows,
                    depth=self.reduction,
                    columns=self.columns,
                    batch=self.groups,
                )
            )
        return self.groups * self.rows * self.columns * self.reduction

    @property
    def bytes(self) -> int:
        """Each tensor once: what no layer can avoid, unless caches hold it from before."""
        return self.row_bytes + self.column_bytes + self.output_bytes


@dataclass(frozen=True)
class Time:
    """Of one launch.

    Attributes:
        launch: seconds before it starts.
        ideal: seconds that its blocks would take, spread evenly over all multiprocessors without waiting.
        compute: seconds that they take in waves, and to combine the parts of a reduction.
        memory: seconds for the bytes that go to or come from memory.
        blocks, wave_efficiency: of the blocks that multiply.
        bytes: to or from memory.
    """

    launch: float
    ideal: float
    compute: float
    memory: float
    blocks: int
    wave_efficiency: float
    bytes: int

    @property
    def seconds(self) -> float:
        return self.launch + max(self.compute, self.memory)

    @property
    def bound_by(self) -> str:
        """The largest part: "launch", "memory", or of arithmetic "compute" or "waves", what is lost besides."""
        if self.memory > self.compute:
            parts = {"launch": self.launch, "memory": self.memory}
        else:
            parts = {"launch": self.launch, "compute": self.ideal, "waves": self.compute - self.ideal}
        return max(parts, key=lambda name: parts[name])


def roofline(work: Work, unit: str, gpu: GPU) -> float:
    """Seconds that no kernel of this unit can beat: all its lanes busy, or each byte moved once at the peak."""
    return max(work.multiply_adds / gpu.multiply_adds_per_second(unit), work.bytes / gpu.bandwidth)


def divide_up(dividend: int, divisor: int) -> int:
    return -(-dividend // divisor)


def count_tiles(work: Work, kernel: Tiling) -> int:
    return work.groups * -(-work.rows // kernel.tile[0]) * -(-work.columns // kernel.tile[1])


def count_slices(work: Work, kernel: Tiling, splits: int) -> int:
    """Of a block that multiplies all products, or the largest of so many parts of them."""
    taps, channels, depth = work.taps, work.reduction // work.taps, kernel.tile[2]
    match kernel.part_unit:
        case "tap":
            return divide_up(taps, splits) * divide_up(channels, depth)
        case "slice_of_taps":
            return taps * divide_up(divide_up(channels, depth), splits)
        case _:
            return divide_up(divide_up(work.reduction, depth), splits)


@dataclass(frozen=True)
class Load:
    """What the blocks of a launch multiply; those beyond a diagonal, and empty parts of a sum, are not among them.

    Attributes:
        blocks: how many multiply.
        slices: of all of them, those that stand for what is outside a main loop included.
        longest: slices of one of them, at most.
    """

    blocks: int
    slices: int
    longest: int


def load_of(work: Work, kernel: Tiling, splits: int = 1) -> Load:
    """Of a launch; of a triangle, row of tiles by row."""
    if work.triangle is None:
        blocks, slices = count_tiles(work, kernel) * splits, kernel.fixed_slices + count_slices(work, kernel, splits)
        return Load(blocks, blocks * slices, slices)
    block_m, block_n, block_k = kernel.tile
    load = Load(0, 0, 0)
    for first in range(0, work.rows, block_m):
        end = min(first + block_m, work.rows)
        columns = min(work.columns, end) if work.triangle == "output" else work.columns
        products = {"input": min(work.reduction, end), "upper_input": max(work.reduction - first, 0)}
        slices = divide_up(products.get(work.triangle, work.reduction), block_k)
        tiles = work.groups * divide_up(columns, block_n)
        load = Load(
            load.blocks + tiles * min(splits, slices),
            load.slices + tiles * slices,
            max(load.longest, divide_up(slices, splits)),
        )
    return load


def slice_cycles(kernel: Tiling, gpu: GPU) -> float:
    """Cycles that a multiprocessor is busy with one slice of one block."""
    rows, columns, products = kernel.tile
    multiply_adds = rows * columns * products
    of_instruction = _C.INSTRUCTION_MACS[UNITS.index(kernel.unit)]
    issue = multiply_adds / of_instruction / kernel.multiply_share / SCHEDULERS
    return max(issue, multiply_adds / (gpu.rates[kernel.unit] * kernel.rate_share))


def wave_cycles(slices: float, kernel: Tiling, gpu: GPU, resident: int) -> float:
    """Cycles that a multiprocessor takes for so many blocks, all resident, with as many slices each."""
    if not resident:
        return 0.0
    busy = slice_cycles(kernel, gpu)
    return FILL_LATENCY + slices * max(resident * busy, busy + SLICE_LATENCY)


def tile_bytes(kernel: Tiling) -> int:
    """Of the sums of a tile before they are rounded."""
    return kernel.tile[0] * kernel.tile[1] * (8 if kernel.unit.endswith("f64") else 4)


def combination_cycles(tiles: int, kernel: Tiling, gpu: GPU, splits: int) -> float:
    """Cycles in which the busiest multiprocessor writes the sums of its blocks and reads those of its tiles."""
    if splits == 1:
        return 0.0
    moved = -(-tiles * splits // gpu.multiprocessors) + -(-tiles // gpu.multiprocessors) * splits
    return SPLIT_LATENCY + moved * tile_bytes(kernel) / SPLIT_BYTES


def memory_bytes(work: Work, kernel: Tiling, gpu: GPU, splits: int = 1) -> int:
    """Bytes to or from memory.

    Each tensor once, as the kernel takes it; but the operand along which blocks vary first is read anew in each wave,
    or each time that they begin again if that is less often, where it does not fit in L2. The sums of the parts of a
    reduction are written, and read where L2 does not hold them.
    """
    sums = count_tiles(work, kernel) * splits * tile_bytes(kernel) if splits > 1 else 0
    moved = work.bytes + work.stored_bytes + (sums if sums <= gpu.l2_bytes else 2 * sums)
    again = work.row_bytes if work.rows_first else work.column_bytes
    if again <= gpu.l2_bytes:
        return moved
    waves = -(-count_tiles(work, kernel) // (gpu.multiprocessors * kernel.resident * work.groups))
    sweeps = -(-work.columns // kernel.tile[1]) if work.rows_first else -(-work.rows // kernel.tile[0])
    return moved + again * (max(min(sweeps, waves), 1) - 1)


def predict_time(work: Work, kernel: Tiling, gpu: GPU, splits: int = 1) -> Time:
    """The time of one launch, without one if there is nothing to compute.

    Args:
        work: what is multiplied.
        kernel: that multiplies it.
        gpu: where.
        splits: parts of the reduction, each a block's; 1 if it is not split.

    Raises:
        ValueError: the GPU has no such unit, or cannot hold a block of this kernel.
    """
    if not gpu.rates[kernel.unit]:
        raise ValueError(f"{kernel.name}: {gpu.name} has no unit {kernel.unit}")
    if kernel.resident < 1:
        raise ValueError(f"{kernel.name}: a multiprocessor of {gpu.name} cannot hold a block")
    tiles = count_tiles(work, kernel)
    if not tiles:
        return Time(0.0, 0.0, 0.0, 0.0, 0, 0.0, 0)
    load = load_of(work, kernel, splits)
    full, rest = divmod(load.blocks, gpu.multiprocessors * kernel.resident)
    tail = -(-rest // gpu.multiprocessors)
    # Whole waves hold short blocks and long ones, and the next come as these end; the last wave ends with its longest.
    cycles = full * wave_cycles(load.slices / load.blocks, kernel, gpu, kernel.resident)
    cycles += wave_cycles(load.longest, kernel, gpu, tail)
    cycles += combination_cycles(tiles, kernel, gpu, splits)
    ideal = load.slices / gpu.multiprocessors * slice_cycles(kernel, gpu)
    moved = memory_bytes(work, kernel, gpu, splits)
    clock = gpu.clock(kernel.unit)
    return Time(
        launch=LAUNCH_SECONDS,
        ideal=ideal / clock,
        compute=cycles / clock,
        memory=moved / (gpu.bandwidth * BANDWIDTH_SHARE),
        blocks=load.blocks,
        wave_efficiency=load.blocks / (gpu.multiprocessors * -(-load.blocks // gpu.multiprocessors)),
        bytes=moved,
    )

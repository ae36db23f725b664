"""Parallel algorithms in CUDA, compiled by nvcc: what they compute, and what the machine counts of them."""

from __future__ import annotations

import ctypes
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from tests.ptxvm.programs import (
    OPTIMISED,
    Access,
    Build,
    Program,
    access_bytes,
    builds,
    by_warp,
    lanes,
    sectors,
    traffic,
    wavefronts,
)

Array = np.ndarray[Any, Any]


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def integers(count: int, seed: int = 0, low: int = -(2**31), high: int = 2**31) -> Array:
    return np.random.default_rng(seed).integers(low, high, count, dtype=np.int64).astype(np.int32)


# ---- reduction ----


@builds
@pytest.mark.parametrize(("n", "block"), [(1, 32), (255, 64), (256, 256), (1000, 128)])
def test_tree_sum(build: Build, n: int, block: int) -> None:
    """Bit for bit what numpy gives for the same tree; one barrier a level; n - 1 additions for n leaves."""
    values = np.random.default_rng(n).standard_normal(n).astype(np.float32)
    blocks = ceil_div(n, block)
    partial = np.zeros(blocks, np.float32)
    result = build.load("reduction.cu").run("tree_sum", blocks, block, [values, partial, n], shared_bytes=4 * block)
    tree = np.zeros((blocks, block), np.float32)
    tree.flat[:n] = values
    while tree.shape[1] > 1:
        half = tree.shape[1] // 2
        tree = tree[:, :half] + tree[:, half:]
    np.testing.assert_array_equal(partial, tree[:, 0])
    assert result.barriers == blocks * (1 + int(math.log2(block)))
    assert lanes(result, "add", "f32") == blocks * (block - 1)


@builds
@pytest.mark.parametrize(("n", "grid", "block"), [(1, 1, 32), (31, 2, 64), (5000, 3, 160), (4096, 2, 1024)])
def test_shuffle_sum(build: Build, n: int, grid: int, block: int) -> None:
    values = np.random.default_rng(n).standard_normal(n).astype(np.float32)
    partial = np.zeros(grid, np.float32)
    result = build.load("reduction.cu").run("shuffle_sum", grid, block, [values, partial, n])
    # Rounding errors: at most one of each addition on the way, each of at most half a unit of the sum of magnitudes.
    depth = ceil_div(n, grid * block) + 10
    exact = float(values.astype(np.float64).sum())
    assert abs(float(partial.astype(np.float64).sum()) - exact) <= depth * 2**-24 * np.abs(values).sum()
    # Five exchanges in every warp, and five more in the first one of each block.
    assert lanes(result, "shfl") == grid * (block + 32) * 5
    assert result.barriers == grid


class Totals(ctypes.Structure):
    _fields_ = [
        ("sum", ctypes.c_uint64),
        ("least", ctypes.c_int32),
        ("most", ctypes.c_int32),
        ("all", ctypes.c_uint32),
        ("any", ctypes.c_uint32),
        ("odd", ctypes.c_uint32),
        ("count", ctypes.c_uint32),
    ]


TOTALS = np.dtype(Totals)


def expected_totals(values: Array) -> tuple[int, ...]:
    bits = values.view(np.uint32)
    return (
        int(values.astype(np.int64).sum()) % 2**64,
        int(values.min()),
        int(values.max()),
        int(np.bitwise_and.reduce(bits)),
        int(np.bitwise_or.reduce(bits)),
        int(np.bitwise_xor.reduce(bits)),
        len(values),
    )


@builds
@pytest.mark.parametrize(("n", "grid", "block"), [(1, 1, 1), (777, 3, 96), (1024, 2, 50)])
def test_atomic_totals(build: Build, n: int, grid: int, block: int) -> None:
    values = integers(n, seed=n)
    totals = np.array([(0, 2**31 - 1, -(2**31), 2**32 - 1, 0, 0, 0)], TOTALS)
    result = build.load("reduction.cu").run("atomic_totals", grid, block, [values, totals, n])
    assert totals[0].item() == expected_totals(values)
    assert lanes(result, "red") + lanes(result, "atom") == 7 * n


@builds
@pytest.mark.parametrize("n", [1, 300])
def test_swap_sum(build: Build, n: int) -> None:
    """Whole numbers, so that the order of the additions does not matter."""
    values = integers(n, low=-1000, high=1000).astype(np.float32)
    total = np.zeros(1, np.float32)
    result = build.load("reduction.cu").run("swap_sum", ceil_div(n, 64), 64, [values, total, n])
    assert total[0] == values.sum()
    assert lanes(result, "atom", "cas") >= n


@builds
@pytest.mark.parametrize("n", [1, 32, 100, 1000])
def test_redux_totals(build: Build, n: int) -> None:
    if build.architecture == "compute_75":
        pytest.skip("redux.sync needs sm_80")
    values = integers(n, seed=n)
    totals = np.zeros(ceil_div(n, 32), TOTALS)
    result = build.load("reduction.cu").run("redux_totals", ceil_div(n, 96), 96, [values, totals, n])
    for warp, total in enumerate(totals):
        mine = values[32 * warp : 32 * (warp + 1)]
        total_sum, *rest = expected_totals(mine)
        wrapped = int(np.array(total_sum % 2**32, np.uint32).view(np.int32))  # redux adds 32 bits
        assert total.item() == (wrapped % 2**64, *rest)
    assert lanes(result, "redux") == 6 * n


@builds
@pytest.mark.parametrize(("n", "block"), [(1, 64), (1000, 64), (4096, 128)])
def test_last_block_sum(build: Build, n: int, block: int) -> None:
    values = integers(n, low=-1000, high=1000)
    blocks = ceil_div(n, block)
    partial, total = np.zeros(blocks, np.int32), np.zeros(1, np.int32)
    result = build.load("reduction.cu").run("last_block_sum", blocks, block, [values, partial, total, n])
    assert total[0] == values.sum()
    assert partial.sum() == values.sum()
    assert result.barriers == 3 * blocks + 1


# ---- scan ----


@builds
@pytest.mark.parametrize(("n", "block"), [(1, 16), (63, 32), (500, 256)])
def test_blelloch_scan(build: Build, n: int, block: int) -> None:
    values = integers(n, low=-100, high=100)
    out = np.zeros(n, np.int32)
    result = build.load("scan.cu").run("blelloch_scan", 1, block, [values, out, n], shared_bytes=8 * block)
    np.testing.assert_array_equal(out, np.cumsum(values) - values)
    size, levels = 2 * block, int(math.log2(2 * block))
    assert result.barriers == 2 * levels + 1
    # The tree's accesses, listed level by level: reads of both children, writes of one or both.
    loads, stores = [], []
    up = [(2**level, size // 2 ** (level + 1)) for level in range(levels)]
    for offset, nodes in up:
        left = [(t, 4 * (offset * (2 * t + 1) - 1)) for t in range(nodes)]
        right = [(t, 4 * (offset * (2 * t + 2) - 1)) for t in range(nodes)]
        loads += [*by_warp(left), *by_warp(right)] * 2  # on the way up and on the way down
        stores += [*by_warp(right)] * 2 + [*by_warp(left)]
    flat = [*by_warp((t, 4 * t) for t in range(block)), *by_warp((t, 4 * (t + block)) for t in range(block))]
    root = [[(0, 4 * (size - 1))]]
    read_back = [access for i in (0, block) for access in by_warp((t, 4 * (t + i)) for t in range(block) if t + i < n)]
    assert traffic(result, "shared", "st") == wavefronts(stores + flat + root, 4)
    assert traffic(result, "shared", "ld") == wavefronts(loads + read_back, 4)


@builds
@pytest.mark.parametrize("n", [1, 33, 200])
def test_warp_scan(build: Build, n: int) -> None:
    values = integers(n).view(np.uint32)
    out = np.zeros(n, np.uint32)
    build.load("scan.cu").run("warp_scan", ceil_div(n, 64), 64, [values, out, n])
    for first in range(0, n, 32):
        np.testing.assert_array_equal(out[first : first + 32], np.cumsum(values[first : first + 32], dtype=np.uint32))


@builds
@pytest.mark.parametrize("kernel", ["scan_by_volatile_flags", "scan_by_release_acquire"])
@pytest.mark.parametrize(("n", "block"), [(1, 32), (5000, 64), (4096, 128)])
def test_single_pass_scan(build: Build, kernel: str, n: int, block: int) -> None:
    """Blocks wait for the blocks before them, of which more than a warp can look at in one go."""
    values = integers(n).view(np.uint32)
    out = np.zeros(n, np.uint32)
    tiles = ceil_div(n, block)
    arrays = [np.zeros(1, np.uint32), *(np.zeros(tiles, np.uint32) for _ in range(3))]
    pointers = np.array([array.ctypes.data for array in arrays], np.uint64).tobytes()
    build.load("scan.cu").run(kernel, tiles, block, [values, out, pointers, n], memory=arrays)
    np.testing.assert_array_equal(out, np.cumsum(values, dtype=np.uint32))


# ---- histogram ----


@builds
@pytest.mark.parametrize(("n", "grid", "block"), [(1, 1, 32), (1000, 3, 96), (5001, 2, 256)])
@pytest.mark.parametrize("spread", [1, 7, 256])
def test_histograms(build: Build, n: int, grid: int, block: int, spread: int) -> None:
    """From all lanes at one bin to bins at random."""
    values = np.random.default_rng(n).integers(0, spread, n).astype(np.uint8)
    program = build.load("histogram.cu")
    expected = np.bincount(values, minlength=256)
    out = np.zeros(256, np.uint32)
    result = program.run("block_histogram", grid, block, [values, out, n])
    np.testing.assert_array_equal(out, expected)
    assert lanes(result, "atom") + lanes(result, "red") == n + sum(
        len(np.unique(values[np.arange(n) // block % grid == b])) for b in range(grid)
    )
    out[:] = 0
    result = program.run("warp_histogram", grid, block, [values, out, n], shared_bytes=1024 * (block // 32))
    np.testing.assert_array_equal(out, expected)
    assert lanes(result, "match") == n


# ---- transpose ----

_TRANSPOSES = [
    ("float", "f4", 0, False),
    ("float_padded", "f4", 1, False),
    ("float_swizzled", "f4", 0, True),
    ("short", "i2", 0, False),
    ("short_padded", "i2", 2, False),
    ("double", "f8", 0, False),
    ("double_padded", "f8", 1, False),
    ("complex", "c16", 0, False),
    ("complex_padded", "c16", 1, False),
]


def tile_accesses(rows: int, columns: int, offset_of: Callable[[int, int], int]) -> Iterator[tuple[Access, Access]]:
    """Each warp's store to and load from its block's tile, from the definition of the algorithm."""
    for y0, x0, step in itertools.product(range(0, rows, 32), range(0, columns, 32), range(0, 32, 8)):
        for j in range(step, step + 8):
            stores = [(i, offset_of(j, i)) for i in range(32) if x0 + i < columns and y0 + j < rows]
            loads = [(i, offset_of(i, j)) for i in range(32) if y0 + i < rows and x0 + j < columns]
            yield stores, loads


@builds
@pytest.mark.parametrize(("name", "dtype", "pad", "swizzle"), _TRANSPOSES, ids=[t[0] for t in _TRANSPOSES])
@pytest.mark.parametrize(("rows", "columns"), [(32, 32), (1, 70), (45, 33)])
def test_transposes(build: Build, name: str, dtype: str, pad: int, swizzle: bool, rows: int, columns: int) -> None:
    values = np.random.default_rng(rows).integers(-1000, 1000, (rows, columns)).astype(dtype)
    out = np.zeros((columns, rows), dtype)
    grid = (ceil_div(columns, 32), ceil_div(rows, 32))
    result = build.load("transpose.cu").run(f"transpose_{name}", grid, (32, 8), [values, out, rows, columns])
    np.testing.assert_array_equal(out, values.T)

    def offset(row: int, column: int) -> int:
        return values.itemsize * (row * (32 + pad) + (column ^ row if swizzle else column))

    for opcode, accesses in zip(("st", "ld"), zip(*tile_accesses(rows, columns, offset), strict=True), strict=True):
        size = access_bytes(result, "shared", opcode)
        pieces = range(0, values.itemsize, size)
        seen = [[(lane, address + at) for lane, address in access] for access in accesses if access for at in pieces]
        assert traffic(result, "shared", opcode) == wavefronts(seen, size)
    assert result.barriers == grid[0] * grid[1]


@builds
@pytest.mark.parametrize(("rows", "columns"), [(64, 64), (3, 50)])
def test_naive_transpose(build: Build, rows: int, columns: int) -> None:
    values = np.arange(rows * columns, dtype=np.float32).reshape(rows, columns)
    out = np.zeros((columns, rows), np.float32)
    grid = (ceil_div(columns, 32), ceil_div(rows, 8))
    result = build.load("transpose.cu").run("transpose_naive", grid, (32, 8), [values, out, rows, columns])
    np.testing.assert_array_equal(out, values.T)
    warps = [[(x, y) for x in range(x0, min(x0 + 32, columns))] for y in range(rows) for x0 in range(0, columns, 32)]
    reads = [[(x % 32, values.ctypes.data + 4 * (y * columns + x)) for x, y in warp] for warp in warps]
    writes = [[(x % 32, out.ctypes.data + 4 * (x * rows + y)) for x, y in warp] for warp in warps]
    assert traffic(result, "global", "ld") == sectors(reads, 4)
    assert traffic(result, "global", "st") == sectors(writes, 4)


@builds
@pytest.mark.parametrize("stride", [1, 2, 3, 8, 33])
@pytest.mark.parametrize("offset", [0, 5])
def test_strided_copy(build: Build, stride: int, offset: int) -> None:
    n = 100
    values = np.arange(n * stride + offset, dtype=np.float32)
    out = np.zeros(n, np.float32)
    result = build.load("transpose.cu").run("copy_strided", 2, 64, [values, out, n, stride, offset])
    np.testing.assert_array_equal(out, values[offset::stride][:n])
    reads = [*by_warp((i, values.ctypes.data + 4 * (offset + i * stride)) for i in range(n))]
    writes = [*by_warp((i, out.ctypes.data + 4 * i) for i in range(n))]
    assert traffic(result, "global", "ld") == sectors(reads, 4)
    assert traffic(result, "global", "st") == sectors(writes, 4)


# ---- softmax ----


@builds
@pytest.mark.parametrize(("rows", "columns", "block"), [(2, 1, 32), (3, 31, 32), (2, 100, 64), (1, 1000, 256)])
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_softmax(build: Build, rows: int, columns: int, block: int, scale: float) -> None:
    values = (np.random.default_rng(columns).standard_normal((rows, columns)) * scale).astype(np.float32)
    out = np.zeros_like(values)
    build.load("softmax.cu").run("softmax", rows, block, [values, out, columns])
    exact = values.astype(np.float64)
    exact = np.exp(exact - exact.max(axis=1, keepdims=True))
    exact /= exact.sum(axis=1, keepdims=True)
    # expf errs by up to 2 units in the last place, and the exponent of each merge by half a unit of its own; both sums
    # and products pass through one merge for each element of a thread and five for each level of shuffles.
    merges = ceil_div(columns, block) + 11
    np.testing.assert_allclose(out, exact, rtol=merges * 4 * 2**-24, atol=1e-37)


# ---- stencil ----


@builds
@pytest.mark.parametrize(("nx", "ny"), [(32, 8), (1, 1), (70, 19)])
def test_stencil_2d(build: Build, nx: int, ny: int) -> None:
    """Whole numbers: exact in any order."""
    rng = np.random.default_rng(nx)
    values = rng.integers(-100, 100, (ny, nx)).astype(np.float32)
    weights = rng.integers(-9, 9, (3, 3)).astype(np.float32)
    out = np.zeros_like(values)
    grid = (ceil_div(nx, 32), ceil_div(ny, 8))
    result = build.load("stencil.cu").run("stencil_2d", grid, (32, 8), [values, out, weights, nx, ny])
    padded = np.pad(values, 1)
    expected = sum(weights[dy, dx] * padded[dy : dy + ny, dx : dx + nx] for dy in range(3) for dx in range(3))
    np.testing.assert_array_equal(out, expected)
    assert result.fma_lanes["f32"] == 9 * nx * ny
    assert result.barriers == grid[0] * grid[1]


@builds
@pytest.mark.parametrize(("nx", "ny", "nz"), [(32, 8, 1), (5, 3, 4), (40, 9, 3)])
def test_stencil_3d(build: Build, nx: int, ny: int, nz: int) -> None:
    values = np.random.default_rng(nx).integers(-100, 100, (nz, ny, nx)).astype(np.float32)
    weights = np.array([-6, 1], np.float32)
    out = np.zeros_like(values)
    grid = (ceil_div(nx, 32), ceil_div(ny, 8))
    result = build.load("stencil.cu").run("stencil_3d", grid, (32, 8), [values, out, weights, nx, ny, nz])
    padded = np.pad(values, 1)
    middle = slice(1, -1)
    neighbours = sum(
        padded[tuple(slice(1 + step, padded.shape[a] - 1 + step) if a == axis else middle for a in range(3))]
        for axis in range(3)
        for step in (-1, 1)
    )
    np.testing.assert_array_equal(out, -6 * values + neighbours)
    assert result.fma_lanes["f32"] == 6 * nx * ny * nz
    assert result.barriers == 2 * nz * grid[0] * grid[1]


# ---- sort ----


def bitonic_sort(program: Program, keys: Array, block: int) -> Array:
    """Sort any number of keys, as a host program would: the largest value fills them up to a power of two."""
    share = 2 * block
    size = max(share, 1 << (len(keys) - 1).bit_length())
    padded = np.full(size, 2**32 - 1, np.uint32)
    padded[: len(keys)] = keys
    result = program.run("sort_block", size // share, block, [padded], shared_bytes=4 * share)
    levels = int(math.log2(share))
    assert result.barriers == size // share * (levels * (levels + 1) // 2 + 1)
    length = 2 * share
    while length <= size:
        stride = length // 2
        while stride:
            result = program.run("sort_step", size // share, block, [padded, length, stride])
            pairs = [(t, 2 * t - (t & (stride - 1))) for t in range(size // 2)]
            low, high = ([*by_warp((t, padded.ctypes.data + 4 * (p + o)) for t, p in pairs)] for o in (0, stride))
            assert traffic(result, "global", "ld") == sectors(low + high, 4)
            stride //= 2
        length *= 2
    return padded[: len(keys)]


@builds
@pytest.mark.parametrize(("n", "block"), [(1, 32), (64, 32), (100, 64), (700, 64)])
def test_bitonic_sort(build: Build, n: int, block: int) -> None:
    keys = integers(n, seed=n).view(np.uint32)
    keys[n // 2 :] = keys[: n - n // 2]  # duplicates
    np.testing.assert_array_equal(bitonic_sort(build.load("sort.cu"), keys, block), np.sort(keys))


# ---- sgemm ----


@builds
@pytest.mark.parametrize(("m", "n", "k"), [(32, 32, 16), (1, 1, 1), (33, 65, 17), (50, 7, 40)])
def test_sgemm(build: Build, m: int, n: int, k: int) -> None:
    rng = np.random.default_rng(m)
    a, b = rng.standard_normal((m, k)).astype(np.float32), rng.standard_normal((k, n)).astype(np.float32)
    c = np.zeros((m, n), np.float32)
    grid = (ceil_div(n, 32), ceil_div(m, 32))
    result = build.load("sgemm.cu").run("sgemm", grid, 256, [a, b, c, m, n, k])
    # The order of the sum is the order of k, in fused multiply-adds: exact float32 arithmetic can repeat it.
    expected = np.zeros((m, n))
    for depth in range(k):
        product = a[:, depth, None].astype(np.float64) * b[None, depth].astype(np.float64)  # exact in 53 bits
        expected = fused_sum(expected, product)
    np.testing.assert_array_equal(c, expected.astype(np.float32))
    steps = ceil_div(k, 16)
    assert result.fma_lanes["f32"] == 32 * 32 * 16 * grid[0] * grid[1] * steps
    assert result.barriers == 2 * grid[0] * grid[1] * steps


def fused_sum(sums: Array, products: Array) -> Array:
    """Sums of float32 and exact products, rounded once to float32 (held in float64)."""
    total = sums + products
    # Rounding twice, to float64 and then to float32, errs only when the first lands on a tie of the second: rounding
    # the first to odd makes the second right.
    error = np.where(np.abs(sums) > np.abs(products), products - (total - sums), sums - (total - products))
    bits = total.view(np.int64)
    towards = np.where((error > 0) == (total > 0), 1, -1)
    odd = np.where((error != 0) & (bits % 2 == 0), bits + np.where(towards > 0, 1, -1), bits)
    return odd.view(np.float64).astype(np.float32).astype(np.float64)


@pytest.mark.usefixtures("lane_instruction_set")
def test_instruction_sets_agree() -> None:
    test_sgemm(OPTIMISED, 33, 65, 17)

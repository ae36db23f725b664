"""Tensor cores and halves in CUDA: gemms by mma.sync and by wmma, and the arithmetic of cuda_fp16.h and cuda_bf16.h."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from tests.ptxvm import reference as ref
from tests.ptxvm.programs import Access, Build, Traffic, builds, lanes, sectors, traffic, wavefronts

Array = np.ndarray[Any, Any]
WARP = range(32)


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def needs(build: Build, architecture: int) -> None:
    if int(build.architecture.removeprefix("compute_")) < architecture:
        pytest.skip(f"needs sm_{architecture}")


# ---- mma.sync, ldmatrix and cp.async ----


def place(width: int, swizzle: bool, row: int, chunk: int) -> int:
    """Byte offset of a chunk of 16 bytes in a tile whose rows have `width` of them."""
    turn = row // 2 % 4 if width == 4 else row % 8
    return 16 * (row * width + (chunk ^ turn if swizzle else chunk))


def matrix_loads(swizzle: bool) -> list[Access]:
    """What the four warps of a block load by ldmatrix in one step, at 16 rows (or columns) by 16."""
    accesses: list[Access] = []
    for warp, depth in itertools.product(range(4), (0, 16)):
        for half in (0, 16):
            rows = [(lane, warp // 2 * 32 + half + lane % 16, depth // 8 + lane // 16) for lane in WARP]
            accesses.append([(lane, place(4, swizzle, row, chunk)) for lane, row, chunk in rows])
            columns = [(lane, depth + lane % 16, warp % 2 * 4 + half // 8 + lane // 16) for lane in WARP]
            accesses.append([(lane, place(8, swizzle, row, chunk)) for lane, row, chunk in columns])
    return accesses


def copies(swizzle: bool) -> list[tuple[str, list[tuple[int, int, int]]]]:
    """What a block copies in one step: for each warp's cp.async the matrix, and lane, row and chunk of 8 halves."""
    return [
        (matrix, [(lane, (first + lane) // width, (first + lane) % width) for lane in WARP])
        for matrix, width in (("a", 4), ("b", 8))
        for first in range(0, 256, 32)
    ]


def global_copies(a: Array, b: Array, m: int, n: int, k: int) -> list[Access]:
    """The source addresses of all copies: those lanes that have something to read."""
    accesses = []
    for row0, column0, step in itertools.product(range(0, m, 64), range(0, n, 64), range(0, k, 32)):
        for matrix, where in copies(False):
            access = []
            for lane, row, chunk in where:
                if matrix == "a" and row0 + row < m and step + 8 * chunk < k:
                    access.append((lane, a.ctypes.data + 2 * ((row0 + row) * k + step + 8 * chunk)))
                if matrix == "b" and step + row < k and column0 + 8 * chunk < n:
                    access.append((lane, b.ctypes.data + 2 * ((step + row) * n + column0 + 8 * chunk)))
            if access:
                accesses.append(access)
    return accesses


def aligned(values: Array) -> Array:
    """A copy that begins at a multiple of 16 bytes, as cp.async needs it."""
    memory = np.zeros(values.size + 8, values.dtype)
    start = -memory.ctypes.data % 16 // values.itemsize
    copy = memory[start : start + values.size].reshape(values.shape)
    copy[...] = values
    return copy


def times(accesses: list[Access], count: int) -> Traffic:
    once = wavefronts(accesses, 16)
    return Traffic(once.requests * count, once.units * count, once.ideal * count)


@builds
@pytest.mark.parametrize("swizzle", [False, True])
@pytest.mark.parametrize(("m", "n", "k"), [(64, 64, 32), (1, 8, 8), (70, 72, 40), (33, 136, 112)])
def test_pipelined_gemm(build: Build, swizzle: bool, m: int, n: int, k: int) -> None:
    """Whole numbers, which tensor cores multiply and add exactly; every access is derived from the algorithm."""
    needs(build, 80)
    rng = np.random.default_rng(m)
    a = aligned(rng.integers(-8, 9, (m, k)).astype(np.float16))
    b = aligned(rng.integers(-8, 9, (k, n)).astype(np.float16))
    c = np.zeros((m, n), np.float32)
    grid = (ceil_div(n, 64), ceil_div(m, 64))
    kernel = "gemm_swizzled" if swizzle else "gemm_plain"
    result = build.load("gemm_mma.cu").run(kernel, grid, 128, [a, b, c, m, n, k])
    np.testing.assert_array_equal(c, a.astype(np.float64) @ b.astype(np.float64))
    steps = grid[0] * grid[1] * ceil_div(k, 32)
    assert result.fma_lanes == {"f16": 64 * 64 * 32 * steps}
    assert result.barriers == steps
    loads = times(matrix_loads(swizzle), steps)
    assert traffic(result, "shared", "ldmatrix") == loads
    assert (loads.units == loads.ideal) == swizzle
    stores: list[Access] = [
        [(lane, place(4 if matrix == "a" else 8, swizzle, row, chunk)) for lane, row, chunk in where]
        for matrix, where in copies(swizzle)
    ]
    assert traffic(result, "shared", "cp") == times(stores, steps)
    assert traffic(result, "global", "cp") == sectors(global_copies(a, b, m, n, k), 16)


# ---- wmma ----


def to_bfloat(values: Array) -> Array:
    """The bits of whole numbers that bfloat16 holds exactly."""
    return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


_WMMA: dict[str, tuple[int, int, int, Any, str, bool, int, str]] = {
    # name: m, n, k of a tile, type of the operands and of the sum, b by rows, architecture, type counted
    "half_to_float": (16, 16, 16, np.float16, "f4", True, 70, "f16"),
    "half_to_half": (16, 16, 16, np.float16, "f2", False, 70, "f16"),
    "half_tall": (32, 8, 16, np.float16, "f4", False, 70, "f16"),
    "half_wide": (8, 32, 16, np.float16, "f4", True, 70, "f16"),
    "byte_to_int": (16, 16, 16, np.int8, "i4", False, 72, "s8"),
    "unsigned_byte_to_int": (32, 8, 16, np.uint8, "i4", True, 72, "u8"),
    "bfloat_to_float": (16, 16, 16, to_bfloat, "f4", True, 80, "bf16"),
    "tf32_to_float": (16, 16, 8, np.float32, "f4", False, 80, "tf32"),
    "double_to_double": (8, 8, 4, np.float64, "f8", True, 80, "f64"),
}


@builds
@pytest.mark.parametrize("kernel", _WMMA)
@pytest.mark.parametrize(("rows", "columns", "depths"), [(1, 1, 1), (2, 3, 3)])
def test_wmma_gemm(build: Build, kernel: str, rows: int, columns: int, depths: int) -> None:
    tile_m, tile_n, tile_k, dtype, sum_type, b_by_rows, architecture, counted = _WMMA[kernel]
    needs(build, architecture)
    m, n, k = rows * tile_m, columns * tile_n, depths * tile_k
    rng = np.random.default_rng(k)
    a, b = rng.integers(0, 9, (m, k)), rng.integers(0, 9, (k, n))
    if dtype is not np.uint8:
        a, b = a - 4, b - 4

    def convert(values: Array) -> Array:
        return to_bfloat(values) if dtype is to_bfloat else values.astype(dtype)

    c = np.zeros((m, n), sum_type)
    stored_b = np.ascontiguousarray(convert(b if b_by_rows else b.T))
    result = build.load("gemm_wmma.cu").run(kernel, (columns, rows), 32, [convert(a), stored_b, c, m, n, k])
    np.testing.assert_array_equal(c, 2 * (a @ b))
    assert result.fma_lanes == {counted: m * n * k}


# ---- halves ----

Unary = Callable[[ref.Format, int], int]


def truth(fmt: ref.Format, value: bool) -> int:
    return fmt.round(Fraction(int(value)))


def compare(fmt: ref.Format, a: int, b: int, holds: Callable[[Any, Any], bool], unordered: bool) -> int:
    if fmt.is_nan(a) or fmt.is_nan(b):
        return truth(fmt, unordered)
    return truth(fmt, holds(fmt.value(a), fmt.value(b)))


def integral(fmt: ref.Format, a: int, mode: str) -> int:
    value = fmt.value(a)
    if isinstance(value, float):
        return a
    return fmt.round(Fraction(ref.round_fraction(value, mode)), negative_zero=bool(a & fmt.sign))


def saturated(fmt: ref.Format, a: int) -> int:
    value = fmt.value(a)
    if fmt.is_nan(a) or value <= 0:
        return 0
    return truth(fmt, True) if value >= 1 else a


# By result: from the bits of a, b, c of one half of the pair.
EXACT: list[Callable[[ref.Format, int, int, int], int]] = [
    lambda f, a, b, c: ref.add(f, a, b),
    lambda f, a, b, c: ref.add(f, a, b ^ f.sign),
    lambda f, a, b, c: ref.multiply(f, a, b),
    lambda f, a, b, c: ref.fma_like(f, a, b, c, "rn"),
    lambda f, a, b, c: a ^ f.sign,
    lambda f, a, b, c: a & ~f.sign,
    lambda f, a, b, c: ref.minimum(f, a, b),
    lambda f, a, b, c: ref.minimum(f, a, b, largest=True),
    lambda f, a, b, c: compare(f, a, b, lambda x, y: x == y, False),
    lambda f, a, b, c: compare(f, a, b, lambda x, y: x != y, False),
    lambda f, a, b, c: compare(f, a, b, lambda x, y: x < y, False),
    lambda f, a, b, c: compare(f, a, b, lambda x, y: x <= y, False),
    lambda f, a, b, c: compare(f, a, b, lambda x, y: x > y, True),
    lambda f, a, b, c: compare(f, a, b, lambda x, y: x >= y, True),
    lambda f, a, b, c: truth(f, f.is_nan(a)),
    lambda f, a, b, c: integral(f, a, "rm"),
    lambda f, a, b, c: integral(f, a, "rp"),
    lambda f, a, b, c: integral(f, a, "rz"),
    lambda f, a, b, c: integral(f, a, "rn"),
]
SPECIAL: list[Callable[[ref.Format, int, int, int], int]] = [
    lambda f, a, b, c: saturated(f, ref.add(f, a, b)),
    lambda f, a, b, c: saturated(f, ref.multiply(f, a, b)),
    lambda f, a, b, c: saturated(f, ref.fma_like(f, a, b, c, "rn")),
    lambda f, a, b, c: ref.divide(f, a, b),
]


def operands(fmt: ref.Format, count: int) -> Array:
    """Bits of all kinds: edges in many combinations, and numbers near enough to one another to round."""
    rng = np.random.default_rng(1)
    one = fmt.bias << fmt.mantissa_bits
    positive = [0, 1, (1 << fmt.mantissa_bits) - 1, 1 << fmt.mantissa_bits, one - 1, one, one + 1, one * 3 // 2]
    edges = np.array([*positive, fmt.largest, fmt.infinity, fmt.nan], np.uint16)
    values = rng.integers(one - (4 << fmt.mantissa_bits), one + (4 << fmt.mantissa_bits), (3, count)).astype(np.uint16)
    chosen = rng.random((3, count)) < 0.4
    values[chosen] = rng.choice(edges, chosen.sum())
    return values | (rng.integers(0, 2, (3, count)) * fmt.sign).astype(np.uint16)


def assert_same(fmt: ref.Format, got: Array, want: list[int], what: object) -> None:
    """Bit for bit, but any NaN is as good as another."""
    for index, (g, w) in enumerate(zip(got.tolist(), want, strict=True)):
        assert g == w or (fmt.is_nan(g) and fmt.is_nan(w)), (what, index, hex(g), hex(w))


FORMATS = {"half": ref.F16, "bfloat": ref.BF16}


@builds
@pytest.mark.parametrize("name", FORMATS)
def test_pair_arithmetic(build: Build, name: str) -> None:
    """Each result bit for bit as exact arithmetic rounded once; an odd number of pairs."""
    needs(build, 80 if name == "bfloat" else 70)
    fmt, pairs = FORMATS[name], 501
    x, y, z = operands(fmt, 2 * pairs)
    out = np.zeros((len(EXACT) + 1, 2 * pairs), np.uint16)
    build.load("half.cu").run(f"{name}_exact", ceil_div(pairs, 64), 64, [x, y, z, out, pairs])
    swapped, results = out[15], np.delete(out, 15, axis=0)
    np.testing.assert_array_equal(swapped.reshape(-1, 2), x.reshape(-1, 2)[:, ::-1])
    for r, expected in enumerate(EXACT):
        assert_same(fmt, results[r], [expected(fmt, *map(int, bits)) for bits in zip(x, y, z, strict=True)], r)


@builds
def test_half_saturation_and_division(build: Build) -> None:
    pairs = 333
    x, y, z = operands(ref.F16, 2 * pairs)
    out = np.zeros((len(SPECIAL), 2 * pairs), np.uint16)
    build.load("half.cu").run("half_special", ceil_div(pairs, 96), 96, [x, y, z, out, pairs])
    for r, expected in enumerate(SPECIAL):
        assert_same(ref.F16, out[r], [expected(ref.F16, *map(int, bits)) for bits in zip(x, y, z, strict=True)], r)


@builds
@pytest.mark.parametrize("name", FORMATS)
def test_pair_functions(build: Build, name: str) -> None:
    """Within one unit in the last place of the format."""
    functions: list[Callable[[float], float]] = [
        math.sqrt, lambda v: 1 / math.sqrt(v), lambda v: 1 / v, math.exp, lambda v: 2.0**v, math.log, math.log2,
        math.sin, math.cos,
    ]  # fmt: skip
    needs(build, 80 if name == "bfloat" else 70)
    fmt, pairs = FORMATS[name], 200
    rng = np.random.default_rng(3)
    x = np.array([fmt.round(Fraction(float(v))) for v in np.exp2(rng.uniform(-6, 3, 2 * pairs))], np.uint16)
    out = np.zeros((len(functions), 2 * pairs), np.uint16)
    build.load("half.cu").run(f"{name}_rounded", ceil_div(pairs, 64), 64, [x, out, pairs])
    for r, function in enumerate(functions):
        for argument, got in zip(x.tolist(), out[r].tolist(), strict=True):
            exact = function(float(fmt.value(argument)))
            exponent = max(math.frexp(exact)[1] - 1, 1 - fmt.bias) if exact else 1 - fmt.bias
            assert abs(float(fmt.value(got)) - exact) <= 2.0 ** (exponent - fmt.mantissa_bits), (r, hex(argument))


@builds
def test_half_conversions(build: Build) -> None:
    record = np.dtype(
        [(mode, "u2") for mode in ("rn", "rz", "rm", "rp", "bfloat_rn", "bfloat_rz")]
        + [("back", "u4"), ("whole_long", "i8"), ("whole", "i4"), ("whole_down", "i4")]
    )
    h = operands(ref.F16, 700)[0]
    bits = np.random.default_rng(4).integers(0, 2**32, 700, dtype=np.uint64).astype(np.uint32)
    bits[::2] = [ref.F32.round(ref.F16.value(int(v))) ^ (i % 3) for i, v in enumerate(h[::2])]  # on and near halves
    out = np.zeros(700, record)
    build.load("half.cu").run("conversions", 6, 128, [bits.view(np.float32), h, out, 700])
    for i, (single, half) in enumerate(zip(map(int, bits), map(int, h), strict=True)):
        value, negative = ref.F32.value(single), bool(single >> 31)
        for mode in ("rn", "rz", "rm", "rp"):
            assert_same(ref.F16, out[mode][i : i + 1], [ref.F16.round(value, mode, negative)], (mode, hex(single)))
        for mode in ("rn", "rz"):
            got = out[f"bfloat_{mode}"][i : i + 1]
            assert_same(ref.BF16, got, [ref.BF16.round(value, mode, negative)], (mode, hex(single)))
        exact = ref.F16.value(half)
        if not ref.F16.is_nan(half):
            wide = float(exact)
            for name, mode, width in (("whole", "rn", 32), ("whole_down", "rm", 32), ("whole_long", "rz", 64)):
                whole = (
                    ref.round_fraction(Fraction(wide), mode) if math.isfinite(wide) else int(math.copysign(2**70, wide))
                )
                assert out[name][i] == ref.clamp(whole, width, True)
        assert_same(ref.F32, out["back"][i : i + 1], [ref.F32.round(exact, negative_zero=bool(half >> 15))], hex(half))


@builds
@pytest.mark.parametrize(("n", "block"), [(1, 32), (200, 64), (1000, 96)])
def test_half_dot_product(build: Build, n: int, block: int) -> None:
    """Whole numbers that halves hold; two multiply-adds for each lane's pair."""
    rng = np.random.default_rng(n)
    x, y = (rng.integers(-3, 4, (n, 2)).astype(np.float16) for _ in range(2))
    of_warp = np.zeros((block // 32, 2), np.float16)
    result = build.load("half.cu").run("half_dot", 1, block, [x, y, of_warp, n])
    np.testing.assert_array_equal(of_warp.sum(axis=0), (x.astype(np.float64) * y).sum(axis=0))
    assert lanes(result, "fma", "f16x2") == n
    assert sum(result.fma_lanes.values()) == 2 * n


@builds
def test_half_atomics(build: Build) -> None:
    n = 500
    rng = np.random.default_rng(0)
    x, to = rng.integers(-3, 4, (n, 2)).astype(np.float16), rng.integers(0, 7, n).astype(np.int32)
    out = np.zeros((7, 2), np.float16)
    build.load("half.cu").run("half_scatter", 4, 128, [x, to, out, n])
    np.testing.assert_array_equal(out, [x[to == place].sum(axis=0) for place in range(7)])

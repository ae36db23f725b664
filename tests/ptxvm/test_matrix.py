"""Tensor-core instructions: ldmatrix, stmatrix, movmatrix, mma, wmma.

Which lane holds which element is written down here once more, as the PTX ISA has it. Products are compared with exact
fractions. Of floating-point mma the ISA says that products and sums have at least the accumulator's precision, and
leaves open the order of the sum, its rounding, and whether subnormal inputs count; of f64 that every step is an fma.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
import pytest

from flopcuda import ptx
from tests.ptxvm import reference as ref
from tests.ptxvm.harness import compile_cuda, kernel, needs_nvcc, run_instruction

LANES = 32
WARPS = 3


# ---- elements ----


@dataclasses.dataclass(frozen=True)
class Element:
    """A type of matrix elements: its width, and the numbers that its bits stand for."""

    bits: int
    format: ref.Format | None = None
    signed: bool = False

    def decode(self, bits: np.ndarray) -> np.ndarray:
        """Exact values: integers, fractions, or floats where they are not finite."""

        def number(word: int) -> Fraction | float | int:
            if self.format:
                return self.format.value(int(word) >> self.unused)
            return ref.signed(int(word), self.bits) if self.signed else int(word)

        return np.frompyfunc(number, 1, 1)(bits)

    def encode(self, values: Sequence[float] | np.ndarray) -> np.ndarray:
        if self.format:
            encoded = [self.format.round(v) << self.unused for v in np.asarray(values, object).ravel().tolist()]
        else:
            encoded = [int(v) & ((1 << self.bits) - 1) for v in np.asarray(values).ravel().tolist()]
        return np.array(encoded, np.uint64).reshape(np.shape(values))

    @property
    def unused(self) -> int:
        """Low bits of the register that do not belong to the number: tf32 lies where f32 would."""
        return self.bits - self.format.width if self.format else 0

    def random(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """Finite numbers of moderate size, or any integers."""
        if not self.format:
            return rng.integers(0, 2**self.bits, shape, dtype=np.uint64)
        if self.bits == 8:
            magnitude = rng.integers(0, 0x50, shape, dtype=np.uint64)
            return magnitude | rng.integers(0, 2, shape, dtype=np.uint64) << np.uint64(7)
        return self.encode(np.ldexp(rng.standard_normal(shape), rng.integers(-3, 4, shape)))


ELEMENTS = {
    "f16": Element(16, ref.F16),
    "bf16": Element(16, ref.BF16),
    "tf32": Element(32, ref.TF32),
    "f32": Element(32, ref.F32),
    "f64": Element(64, ref.F64),
    "e4m3": Element(8, ref.E4M3),
    "e5m2": Element(8, ref.E5M2),
    "s8": Element(8, signed=True),
    "u8": Element(8),
    "s4": Element(4, signed=True),
    "u4": Element(4),
    "b1": Element(1),
    "s32": Element(32, signed=True),
}

# ---- the fragments of mma, as the ISA describes them: group = lane / 4, thread = lane % 4, element i of the lane ----

Place = Callable[[int, int, int], tuple[int, int]]


@dataclasses.dataclass(frozen=True)
class Fragments:
    m: int
    n: int
    k: int
    a: Place
    b: Place

    def c(self, group: int, thread: int, i: int) -> tuple[int, int]:
        return (group if i < 2 else group + 8), thread * 2 + i % 2


FRAGMENTS: dict[tuple[str, int], Fragments] = {
    # (shape, bits of an element of a and b)
    ("m16n8k8", 16): Fragments(
        16, 8, 8,
        lambda g, t, i: (g if i < 2 else g + 8, t * 2 + i % 2),
        lambda g, t, i: (t * 2 + i, g),
    ),
    ("m16n8k16", 16): Fragments(
        16, 8, 16,
        lambda g, t, i: (g if i in (0, 1, 4, 5) else g + 8, t * 2 + i % 2 + (0 if i < 4 else 8)),
        lambda g, t, i: (t * 2 + i % 2 + (0 if i < 2 else 8), g),
    ),
    ("m16n8k4", 32): Fragments(
        16, 8, 4,
        lambda g, t, i: (g if i == 0 else g + 8, t),
        lambda g, t, i: (t, g),
    ),
    ("m16n8k8", 32): Fragments(
        16, 8, 8,
        lambda g, t, i: (g if i in (0, 2) else g + 8, t if i in (0, 1) else t + 4),
        lambda g, t, i: (t if i == 0 else t + 4, g),
    ),
    ("m8n8k4", 64): Fragments(
        8, 8, 4,
        lambda g, t, i: (g, t),
        lambda g, t, i: (t, g),
    ),
    ("m16n8k4", 64): Fragments(
        16, 8, 4,
        lambda g, t, i: (g if i == 0 else g + 8, t),
        lambda g, t, i: (t, g),
    ),
    ("m16n8k8", 64): Fragments(
        16, 8, 8,
        lambda g, t, i: (g if i in (0, 2) else g + 8, t if i in (0, 1) else t + 4),
        lambda g, t, i: (t if i == 0 else t + 4, g),
    ),
    ("m16n8k16", 64): Fragments(
        16, 8, 16,
        lambda g, t, i: (g if i % 2 == 0 else g + 8, i * 2 + t if i % 2 == 0 else i * 2 - 2 + t),
        lambda g, t, i: (t + i * 4, g),
    ),
    ("m8n8k16", 8): Fragments(
        8, 8, 16,
        lambda g, t, i: (g, t * 4 + i),
        lambda g, t, i: (t * 4 + i, g),
    ),
    ("m16n8k16", 8): Fragments(
        16, 8, 16,
        lambda g, t, i: (g if i < 4 else g + 8, t * 4 + i % 4),
        lambda g, t, i: (t * 4 + i, g),
    ),
    ("m16n8k32", 8): Fragments(
        16, 8, 32,
        lambda g, t, i: (g if i < 4 or 8 <= i < 12 else g + 8, t * 4 + i % 4 + (0 if i < 8 else 16)),
        lambda g, t, i: (t * 4 + i % 4 + (0 if i < 4 else 16), g),
    ),
    ("m8n8k32", 4): Fragments(
        8, 8, 32,
        lambda g, t, i: (g, t * 8 + i),
        lambda g, t, i: (t * 8 + i, g),
    ),
    ("m16n8k32", 4): Fragments(
        16, 8, 32,
        lambda g, t, i: (g if i < 8 else g + 8, t * 8 + i % 8),
        lambda g, t, i: (t * 8 + i, g),
    ),
    ("m16n8k64", 4): Fragments(
        16, 8, 64,
        lambda g, t, i: (g if i < 8 or 16 <= i < 24 else g + 8, t * 8 + i % 8 + (0 if i < 16 else 32)),
        lambda g, t, i: (t * 8 + i % 8 + (0 if i < 8 else 32), g),
    ),
    ("m8n8k128", 1): Fragments(
        8, 8, 128,
        lambda g, t, i: (g, t * 32 + i),
        lambda g, t, i: (t * 32 + i, g),
    ),
    ("m16n8k128", 1): Fragments(
        16, 8, 128,
        lambda g, t, i: (g if i < 32 else g + 8, t * 32 + i % 32),
        lambda g, t, i: (t * 32 + i, g),
    ),
    ("m16n8k256", 1): Fragments(
        16, 8, 256,
        lambda g, t, i: (g if i < 32 or 64 <= i < 96 else g + 8, t * 32 + i % 32 + (0 if i < 64 else 128)),
        lambda g, t, i: (t * 32 + i % 32 + (0 if i < 32 else 128), g),
    ),
}  # fmt: skip


def index_of(place: Place, elements: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of every element, by lane."""
    table = np.array([[place(lane // 4, lane % 4, i) for i in range(elements)] for lane in range(LANES)])
    return table[..., 0], table[..., 1]


def to_registers(matrices: np.ndarray, place: Place, bits: int) -> np.ndarray:
    """The words of each thread, first element in the lowest bits; matrices are (warps, rows, columns)."""
    count = matrices[0].size // LANES
    rows, columns = index_of(place, count)
    elements = matrices[:, rows, columns].reshape(len(matrices) * LANES, count)
    width = max(bits, 32)
    packed = elements.reshape(len(elements), -1, width // bits) << (
        np.arange(width // bits, dtype=np.uint64) * np.uint64(bits)
    )
    return np.bitwise_or.reduce(packed, axis=2).astype(np.uint64 if bits == 64 else np.uint32)


def from_registers(words: np.ndarray, place: Place, bits: int, rows: int, columns: int) -> np.ndarray:
    parts = max(bits, 32) // bits
    elements = words.astype(np.uint64)[..., None] >> (np.arange(parts, dtype=np.uint64) * np.uint64(bits))
    elements = (elements & np.uint64((1 << bits) - 1)).reshape(len(words) // LANES, LANES, -1)
    result = np.zeros((len(elements), rows, columns), np.uint64)
    result[(slice(None), *index_of(place, elements.shape[2]))] = elements
    return result


def run_with_registers(
    instruction: str, sources: list[np.ndarray], results: int, result_type: type
) -> tuple[np.ndarray, ptx.LaunchResult]:
    """Execute with {0}, {1}, ... being the vectors of the sources' registers and {d} that of the results."""
    threads = len(sources[0])
    out = np.zeros((threads, results), result_type)
    lines = [".reg .b64 %base, %at; .reg .b32 %thread; mov.u32 %thread, %tid.x;"]

    def declare(name: str, array: np.ndarray) -> str:
        bits, count = 8 * array.itemsize, array.shape[1]
        lines.append(f".reg .b{bits} %{name}_<{count}>; ld.param.u64 %base, [{name}];")
        lines.append(f"mad.wide.u32 %at, %thread, {count * array.itemsize}, %base;")
        return "{" + ", ".join(f"%{name}_{k}" for k in range(count)) + "}"

    def move(name: str, array: np.ndarray, text: str) -> None:
        for k in range(array.shape[1]):
            place, register = f"[%at+{k * array.itemsize}]", f"%{name}_{k}"
            lines.append(text.format(bits=8 * array.itemsize, place=place, register=register))

    vectors = []
    for k, source in enumerate(sources):
        vectors.append(declare(f"s{k}", source))
        move(f"s{k}", source, "ld.global.b{bits} {register}, {place};")
    d = declare("d", out)
    lines.append(instruction.format(*vectors, d=d))
    move("d", out, "st.global.b{bits} {place}, {register};")
    parameters = ", ".join(f".param .u64 {name}" for name in [f"s{k}" for k in range(len(sources))] + ["d"])
    result = (
        ptx.Machine(threads=1)
        .load(kernel("\n".join([*lines, "ret;"]), parameters))
        .launch("k", 1, threads, [*sources, out])
    )
    assert not result.findings, result.findings
    return out, result


# ---- mma ----


@dataclasses.dataclass(frozen=True)
class Multiply:
    shape: str
    d: str
    a: str
    b: str
    c: str
    suffix: str = ""
    prefix: str = ""

    def __str__(self) -> str:
        return f"mma.sync.aligned.{self.shape}.row.col{self.prefix}.{self.d}.{self.a}.{self.b}.{self.c}{self.suffix}"

    @property
    def fragments(self) -> Fragments:
        return FRAGMENTS[self.shape, ELEMENTS[self.a].bits]

    def run(self, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, ptx.LaunchResult]:
        """The bits of d, for bits of matrices of several warps."""
        f, bits = self.fragments, {name: ELEMENTS[name].bits for name in (self.d, self.a, self.b, self.c)}
        registers = f.m * f.n // LANES * bits[self.d] // max(bits[self.d], 32)
        words, result = run_with_registers(
            f"{self} {{d}}, {{0}}, {{1}}, {{2}};",
            [
                to_registers(a, f.a, bits[self.a]),
                to_registers(b, f.b, bits[self.b]),
                to_registers(c, f.c, bits[self.c]),
            ],
            registers,
            np.uint64 if bits[self.d] == 64 else np.uint32,
        )
        return from_registers(words, f.c, bits[self.d], f.m, f.n), result

    def random(self, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rng, f = np.random.default_rng(seed), self.fragments
        a = ELEMENTS[self.a].random(rng, (WARPS, f.m, f.k))
        b = ELEMENTS[self.b].random(rng, (WARPS, f.k, f.n))
        return a, b, ELEMENTS[self.c].random(rng, (WARPS, f.m, f.n))


FLOATS = [
    Multiply(shape, acc, a, b, acc)
    for pairs, shapes, accumulators in [
        ([("f16", "f16")], ["m16n8k8", "m16n8k16"], ["f16", "f32"]),
        ([("bf16", "bf16")], ["m16n8k8", "m16n8k16"], ["f32"]),
        ([("tf32", "tf32")], ["m16n8k4", "m16n8k8"], ["f32"]),
        ([("f64", "f64")], ["m8n8k4", "m16n8k4", "m16n8k8", "m16n8k16"], ["f64"]),
        ([(x, y) for x in ("e4m3", "e5m2") for y in ("e4m3", "e5m2")], ["m16n8k16", "m16n8k32"], ["f16", "f32"]),
    ]
    for a, b in pairs
    for shape in shapes
    for acc in accumulators
]
FLOATS.append(Multiply("m16n8k4", "f64", "f64", "f64", "f64", suffix=".rn"))
INTEGERS = [
    Multiply(shape, "s32", a, b, "s32", prefix=prefix)
    for kinds_of, shapes in [
        (("s8", "u8"), ["m8n8k16", "m16n8k16", "m16n8k32"]),
        (("s4", "u4"), ["m8n8k32", "m16n8k32", "m16n8k64"]),
    ]
    for a in kinds_of
    for b in kinds_of
    for shape in shapes
    for prefix in ("", ".satfinite")
]
BITS = [
    Multiply(shape, "s32", "b1", "b1", "s32", suffix=suffix)
    for shape in ("m8n8k128", "m16n8k128", "m16n8k256")
    for suffix in (".xor.popc", ".and.popc")
]


@pytest.mark.parametrize("mma", FLOATS, ids=str)
def test_products_of_floats(mma: Multiply) -> None:
    """Within what any order of additions, each of the accumulator's precision, can give."""
    bits = mma.random(1)
    a, b, c = (ELEMENTS[name].decode(x) for name, x in zip((mma.a, mma.b, mma.c), bits, strict=True))
    d, result = mma.run(*bits)
    exact = a @ b + c
    size = abs(a) @ abs(b) + abs(c)
    accumulator = ELEMENTS[mma.d].format
    assert accumulator
    unit = Fraction(1, 2**accumulator.mantissa_bits) / (2 if mma.d == "f64" else 1)
    least = Fraction(2) ** (1 - accumulator.bias - accumulator.mantissa_bits)
    error = abs(ELEMENTS[mma.d].decode(d) - exact)
    assert (error <= (mma.fragments.k + 1) * (unit * size + least)).all()
    f = mma.fragments
    assert result.fma_lanes == {mma.a: WARPS * f.m * f.n * f.k}
    assert result.counts[str(mma)] == WARPS * LANES


@pytest.mark.parametrize("mma", FLOATS, ids=str)
def test_products_of_small_whole_numbers(mma: Multiply) -> None:
    """Every partial sum is exact, so the result is."""
    rng, f = np.random.default_rng(2), mma.fragments
    a, b, c = (rng.integers(-3, 4, (WARPS, *shape)) for shape in ((f.m, f.k), (f.k, f.n), (f.m, f.n)))
    d, _ = mma.run(*(ELEMENTS[name].encode(x) for name, x in zip((mma.a, mma.b, mma.c), (a, b, c), strict=True)))
    assert (d == ELEMENTS[mma.d].encode(a @ b + c)).all()


def sum_of(terms: list[float]) -> float:
    """IEEE's sum of terms that need not be finite; finite ones count as nothing."""
    return math.nan if any(map(math.isnan, terms)) else sum(t for t in terms if math.isinf(t))


@pytest.mark.parametrize("mma", [m for m in FLOATS if "m16n8k16" in m.shape or m.a == "tf32"], ids=str)
def test_products_of_infinities_and_nan(mma: Multiply) -> None:
    rng, f = np.random.default_rng(3), mma.fragments
    names = (mma.a, mma.b, mma.c)
    matrices = []
    for name, shape in zip(names, ((f.m, f.k), (f.k, f.n), (f.m, f.n)), strict=True):
        infinite = math.inf if name != "e4m3" else math.nan
        values = [0.0, 1.0, -2.0, infinite, -infinite, math.nan]
        matrices.append(rng.choice(values, (WARPS, *shape), p=[0.2, 0.6, 0.17, 0.01, 0.01, 0.01]))
    d, _ = mma.run(*(ELEMENTS[name].encode(x) for name, x in zip(names, matrices, strict=True)))
    got = ELEMENTS[mma.d].decode(d)
    a, b, c = (x.tolist() for x in matrices)
    seen = set()
    for w, i, j in np.ndindex(WARPS, f.m, f.n):
        want = sum_of([a[w][i][k] * b[w][k][j] for k in range(f.k)] + [c[w][i][j]])
        value = got[w, i, j]
        if want == 0:
            assert isinstance(value, Fraction)
        else:
            assert value == want or (math.isnan(value) and math.isnan(want))
        seen.add(str(want))
    assert {"nan", "0"} <= seen


@pytest.mark.parametrize("mma", [m for m in FLOATS if m.d == "f32"], ids=str)
def test_products_of_subnormal_numbers(mma: Multiply) -> None:
    """The ISA leaves open whether they count; here they do, exactly."""
    rng, f = np.random.default_rng(4), mma.fragments
    element = ELEMENTS[mma.a].format
    assert element
    mantissas = rng.integers(0, 1 << element.mantissa_bits, (WARPS, f.m, f.k)).astype(np.uint64)
    a = mantissas << np.uint64(ELEMENTS[mma.a].unused)
    b = ELEMENTS[mma.b].encode(np.where(np.arange(f.k)[:, None] == np.arange(f.n), 2.0, 0.0)[None].repeat(WARPS, 0))
    d, _ = mma.run(a, b, np.zeros((WARPS, f.m, f.n), np.uint64))
    columns = min(f.k, f.n)
    assert (ELEMENTS[mma.d].decode(d)[..., :columns] == 2 * ELEMENTS[mma.a].decode(a)[..., :columns]).all()


@pytest.mark.parametrize("mma", [m for m in FLOATS if m.d == "f16"], ids=str)
def test_half_accumulators_overflow(mma: Multiply) -> None:
    f, element = mma.fragments, ELEMENTS[mma.c]
    a = ELEMENTS[mma.a].encode(np.full((WARPS, f.m, f.k), 64.0))
    b = ELEMENTS[mma.b].encode(np.tile(np.array([64.0, -64.0]), f.n // 2)[None, None].repeat(f.k, 1).repeat(WARPS, 0))
    c = element.encode(np.tile(np.array([60000.0, -60000.0]), f.n // 2)[None, None].repeat(f.m, 1).repeat(WARPS, 0))
    d, _ = mma.run(a, b, c)
    assert (element.decode(d) == np.tile(np.array([math.inf, -math.inf]), f.n // 2)).all()


@pytest.mark.parametrize("mma", INTEGERS + BITS, ids=str)
def test_products_of_integers(mma: Multiply) -> None:
    """Exactly, modulo 2^32 or, with .satfinite, at the nearest number that fits."""
    bits = mma.random(5)
    bits[2][:, ::3] = 0x7FFFFFFF
    bits[2][:, 1::3] = 0x80000000
    d, result = mma.run(*bits)
    a, b, c = (ELEMENTS[name].decode(x) for name, x in zip((mma.a, mma.b, mma.c), bits, strict=True))
    exact = a @ (1 - b) + (1 - a) @ b + c if mma.suffix == ".xor.popc" else a @ b + c
    if mma.prefix:
        exact = np.clip(exact, -(2**31), 2**31 - 1)
    assert (d == ELEMENTS["s32"].encode(exact)).all()
    f = mma.fragments
    assert result.fma_lanes == {mma.a: WARPS * f.m * f.n * f.k}


def test_results_may_replace_operands() -> None:
    """d is c, or a: the whole warp's operands are read before any result is written."""
    mma = Multiply("m16n8k16", "f32", "f16", "f16", "f32")
    a, b, c = mma.random(6)
    want, _ = mma.run(a, b, c)
    f = mma.fragments
    sources = [to_registers(a, f.a, 16), to_registers(b, f.b, 16), to_registers(c, f.c, 32)]
    for k, operand in ((0, "{0}"), (2, "{2}")):
        move = " ".join(f"mov.b32 %d_{r}, %s{k}_{r};" for r in range(4))
        words, _ = run_with_registers(f"{mma} {operand}, {{0}}, {{1}}, {{2}}; {move}", sources, 4, np.uint32)
        assert (from_registers(words, f.c, 32, f.m, f.n) == want).all()


def test_predicated_product() -> None:
    """By whole warps: others keep their registers, and count no products."""
    mma = Multiply("m16n8k8", "f32", "f16", "f16", "f32")
    a, b, c = mma.random(7)
    product, _ = mma.run(a, b, c)
    f = mma.fragments
    sources = [to_registers(a, f.a, 16), to_registers(b, f.b, 16), to_registers(c, f.c, 32)]
    text = (
        ".reg .pred %p; .reg .b32 %w; shr.u32 %w, %thread, 5; setp.ne.u32 %p, %w, 1;"
        + " ".join(f"mov.b32 %d_{r}, {r};" for r in range(4))
        + f"@%p {mma} {{d}}, {{0}}, {{1}}, {{2}};"
    )
    words, result = run_with_registers(text, sources, 4, np.uint32)
    got = from_registers(words, f.c, 32, f.m, f.n)
    assert (got[[0, 2]] == product[[0, 2]]).all()
    assert (words[LANES : 2 * LANES] == np.arange(4)).all()
    assert result.fma_lanes == {"f16": 2 * f.m * f.n * f.k}


# ---- ldmatrix, stmatrix, movmatrix ----

#: Shared memory whose 16-bit elements are numbered.
FILL = """
    .shared .align 128 .b8 s[4096]; .reg .b64 %u, %v; .reg .b32 %t<4>; .reg .pred %q; mov.u32 %t0, %thread;
    FILL: mov.u32 %t1, s; mad.lo.u32 %t1, %t0, 4, %t1; mad.lo.u32 %t2, %t0, 0x20002, 0x10000; st.shared.u32 [%t1], %t2;
    add.u32 %t0, %t0, 32; setp.lt.u32 %q, %t0, 1024; @%q bra FILL; bar.sync 0;"""

#: How the address of a row, of which %s0_0 is the place in shared memory, may be given.
ADDRESSES = {
    "32 bits": ("mov.u32 %t0, s; add.u32 %t0, %t0, %s0_0;", ".shared", "%t0"),
    "64 bits": ("mov.u64 %u, s; cvt.u64.u32 %v, %s0_0; add.s64 %u, %u, %v;", ".shared::cta", "%u"),
    "generic": ("mov.u64 %u, s; cvta.shared.u64 %u, %u; cvt.u64.u32 %v, %s0_0; add.s64 %u, %u, %v;", "", "%u"),
    "offset": ("mov.u32 %t0, s; add.u32 %t0, %t0, %s0_0; sub.u32 %t0, %t0, 48;", ".shared", "%t0+48"),
}

MOVES = [(count, trans, address) for count in (1, 2, 4) for trans in ("", ".trans") for address in ADDRESSES]


def rows_of_matrices(count: int) -> np.ndarray:
    """Places of 8 rows for each matrix, anywhere in shared memory; of lanes that give none, nonsense."""
    rng = np.random.default_rng(7)
    rows = rng.permutation(256)[:LANES] * 16
    rows[8 * count :] = rng.integers(0, 2**31, LANES - 8 * count)
    return rows.astype(np.uint32)[:, None]


def elements_of(words: np.ndarray) -> np.ndarray:
    """8 x 8 matrices by register: two elements of row lane / 4 in each lane."""
    return words.T.copy().view(np.uint16).reshape(-1, 8, 8)


@pytest.mark.parametrize(("count", "trans", "address"), MOVES)
def test_load_matrices(count: int, trans: str, address: str) -> None:
    prepare, space, operand = ADDRESSES[address]
    rows = rows_of_matrices(count)
    text = f"{FILL} {prepare} ldmatrix.sync.aligned.m8n8.x{count}{trans}{space}.b16 {{d}}, [{operand}];"
    words, result = run_with_registers(text, [rows], count, np.uint32)
    want = (rows[: 8 * count] // 2 + np.arange(8)).reshape(count, 8, 8)
    assert (elements_of(words) == (want.swapaxes(1, 2) if trans else want)).all()
    assert [row.space for row in result.rows if row.name.startswith("ldmatrix")] == ["shared"]


@pytest.mark.parametrize(("count", "trans", "address"), MOVES)
def test_store_matrices(count: int, trans: str, address: str) -> None:
    prepare, space, operand = ADDRESSES[address]
    rows, words = rows_of_matrices(count), np.random.default_rng(8).integers(0, 2**32, (LANES, count), dtype=np.uint32)
    read = "mov.u32 %t1, s; mad.lo.u32 %t1, %thread, 128, %t1;" + "".join(
        f"ld.shared.b32 %d_{k}, [%t1+{4 * k}];" for k in range(32)
    )
    text = (
        f"{FILL} {prepare} stmatrix.sync.aligned.m8n8.x{count}{trans}{space}.b16 [{operand}], {{1}}; bar.sync 0; {read}"
    )
    memory, _ = run_with_registers(text, [rows, words], 32, np.uint32)
    want = np.arange(2048, dtype=np.uint16)
    matrices = elements_of(words)
    want[rows[: 8 * count] // 2 + np.arange(8)] = (matrices.swapaxes(1, 2) if trans else matrices).reshape(-1, 8)
    assert (memory.ravel().view(np.uint16) == want).all()


def test_transpose_a_matrix() -> None:
    words = np.random.default_rng(9).integers(0, 2**32, LANES, dtype=np.uint32)
    got = run_instruction("movmatrix.sync.aligned.m8n8.trans.b16 %y, %x0;", [words])
    assert (elements_of(got[:, None]) == elements_of(words[:, None]).swapaxes(1, 2)).all()


@pytest.mark.parametrize(
    ("address", "space", "kind"),
    [
        ("add.s64 %u, %u, 8;", ".shared", "alignment"),
        ("add.s64 %u, %u, 4096;", ".shared", "bounds"),
        ("ld.param.u64 %u, [p];", "", "bounds"),  # a generic address of global memory
    ],
)
def test_rows_in_wrong_places(machine: ptx.Machine, address: str, space: str, kind: str) -> None:
    body = f"""
        .shared .align 128 .b8 s[4096]; .reg .b64 %u; .reg .b32 %d; mov.u64 %u, s; {address}
        stmatrix.sync.aligned.m8n8.x1{space}.b16 [%u], {{%d}};
        ldmatrix.sync.aligned.m8n8.x1{space}.b16 {{%d}}, [%u]; ret;"""
    memory = np.zeros(64, np.uint64)
    result = machine.load(kernel(body, ".param .u64 p")).launch("k", 1, LANES, [memory])
    assert [(f.kind, f.count) for f in result.findings] == [(kind, 8), (kind, 8)]
    assert not memory.any()


# ---- what is refused ----

_C = "{%f0, %f1, %f2, %f3}"
_HALF = f"{_C}, {{%r0, %r1}}, {{%r2}}, {_C};"
_BYTE = "{%r0, %r1}, {%r2}, {%r3}, {%r0, %r1};"
_EIGHT = "{%r0, %r1, %r2, %r3, %r4, %r5, %r6, %r7}"


@pytest.mark.parametrize(
    "text",
    [
        f"mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f16 {_C}, {{%r0, %r1}}, {{%r2}}, {{%r3, %r4}};",
        f"mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {{%f0, %f1, %f2}}, {{%r0, %r1}}, {{%r2}}, {_C};",
        f"mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {_C}, {{%r0}}, {{%r2}}, {_C};",
        f"mma.sync.aligned.m16n8k8.row.col.f32.f16.bf16.f32 {_HALF}",
        f"mma.sync.aligned.m16n8k8.row.row.f32.f16.f16.f32 {_HALF}",
        f"mma.sync.aligned.m16n8k8.row.col.satfinite.f32.f16.f16.f32 {_HALF}",
        f"mma.sync.aligned.m16n8k32.row.col.f32.f16.f16.f32 {_HALF}",
        f"mma.sync.aligned.m8n8k4.row.col.f32.f16.f16.f32 {_HALF}",
        f"mma.sync.aligned.m16n8k8.row.col.rn.f32.f16.f16.f32 {_HALF}",
        f"mma.sync.aligned.m16n8k8.row.col.f32.f16.f16 {_HALF}",
        f"mma.sync.aligned.row.col.f32.f16.f16.f32 {_HALF}",
        f"mma.aligned.m16n8k8.row.col.f32.f16.f16.f32 {_HALF}",
        f"mma.sync.m16n8k8.row.col.f32.f16.f16.f32 {_HALF}",
        f"mma.sync.aligned.m8n8k16.row.col.s32.s8.s4.s32 {_BYTE}",
        f"mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32.and.popc {_BYTE}",
        f"mma.sync.aligned.m8n8k16.row.col.xor.s32.s8.s8.s32 {_BYTE}",
        f"mma.sync.aligned.m8n8k128.row.col.s32.b1.b1.s32 {_BYTE}",
        f"mma.sync.aligned.m8n8k128.row.col.s32.b1.b1.s32.xor.and.popc {_BYTE}",
        "ldmatrix.sync.aligned.m8n8.x3.shared.b16 {%r0, %r1, %r2}, [%r3];",
        "ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%r0}, [%r3];",
        "ldmatrix.sync.aligned.m8n8.x1.global.b16 {%r0}, [%r3];",
        "ldmatrix.sync.aligned.m8n8.x1.shared.b8 {%r0}, [%r3];",
        "ldmatrix.sync.aligned.m16n16.x1.trans.shared.b8 {%r0, %r1}, [%r3];",
        "ldmatrix.aligned.m8n8.x1.shared.b16 {%r0}, [%r3];",
        "stmatrix.sync.m8n8.x1.shared.b16 [%r3], {%r0};",
        "movmatrix.sync.aligned.m8n8.b16 %r0, %r1;",
        "movmatrix.m8n8.trans.b16 %r0, %r1;",
        f"wmma.load.a.sync.aligned.row.m16n16k8.f16 {_EIGHT}, [%d];",
        f"wmma.load.d.sync.aligned.row.m16n16k16.s32 {_EIGHT}, [%d];",
        f"wmma.load.a.sync.aligned.m16n16k16.f16 {_EIGHT}, [%d];",
        f"wmma.load.a.sync.aligned.row.m16n16k16.relu.f16 {_EIGHT}, [%d];",
        f"wmma.load.a.sync.aligned.row.m16n16k16.local.f16 {_EIGHT}, [%d];",
        f"wmma.load.a.aligned.row.m16n16k16.f16 {_EIGHT}, [%d];",
        "mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64.rz {%d, %d}, {%d}, {%d}, {%d, %d};",
        "wmma.mma.sync.aligned.row.col.m8n8k4.rz.f64.f64.f64.f64 {%d, %d}, {%d}, {%d}, {%d, %d};",
    ],
)
def test_what_is_not_known_is_refused(text: str) -> None:
    declarations = ".reg .b32 %r<8>; .reg .f32 %f<8>; .reg .b64 %d;"
    with pytest.raises(ptx.PtxError):
        run_instruction(f"{text} mov.b32 %y, 0;", [np.zeros(1, np.uint32)], declarations=declarations)


# ---- wmma: its fragments are opaque, so it is judged by what goes through memory ----


@dataclasses.dataclass(frozen=True)
class Wmma:
    m: int
    n: int
    k: int
    a: str
    d: str
    a_layout: str = "row"
    b_layout: str = "col"
    d_layout: str = "row"
    saturate: bool = False

    def __str__(self) -> str:
        return f"m{self.m}n{self.n}k{self.k}_{self.a}_{self.d}_{self.a_layout}_{self.b_layout}_{self.d_layout}" + (
            "_sat" if self.saturate else ""
        )


_CUDA_TYPES = {
    "f16": ("__half", "__half"),  # in memory, and the fragment's
    "bf16": ("__nv_bfloat16", "__nv_bfloat16"),
    "tf32": ("float", "wmma::precision::tf32"),
    "f32": ("float", "float"),
    "f64": ("double", "double"),
    "s8": ("signed char", "signed char"),
    "u8": ("unsigned char", "unsigned char"),
    "s32": ("int", "int"),
}

WMMAS = [
    Wmma(*shape, a, d, *layouts)
    for shape in ((16, 16, 16), (8, 32, 16), (32, 8, 16))
    for a, d, *layouts in [
        ("f16", "f32", "row", "row", "row"),
        ("f16", "f32", "col", "row", "col"),
        ("f16", "f16", "row", "col", "row"),
        ("f16", "f16", "col", "col", "col"),
        ("bf16", "f32", "row", "row", "col"),
        ("bf16", "f32", "col", "col", "row"),
        ("s8", "s32", "row", "col", "row"),
        ("u8", "s32", "col", "row", "col"),
    ]
] + [
    Wmma(16, 16, 16, "s8", "s32", saturate=True),
    Wmma(16, 16, 8, "tf32", "f32", "row", "row", "row"),
    Wmma(16, 16, 8, "tf32", "f32", "col", "col", "col"),
    Wmma(8, 8, 4, "f64", "f64", "row", "row", "row"),
    Wmma(8, 8, 4, "f64", "f64", "col", "col", "col"),
]

#: d = a b + 2 c, with room of `pad` elements behind every row (or column) of the matrices.
CUDA = """
#include <cuda_bf16.h>
#include <mma.h>
using namespace nvcuda;

template <int M, int N, int K, class Memory, class Element, class Accumulator, class LayoutA, class LayoutB>
__device__ void multiply(const Memory* a, const Memory* b, const Accumulator* c, Accumulator* d, int pad,
                         wmma::layout_t layout, bool saturate) {
  constexpr bool row_a = std::is_same_v<LayoutA, wmma::row_major>, row_b = std::is_same_v<LayoutB, wmma::row_major>;
  const int lead = (layout == wmma::mem_row_major ? N : M) + pad;
  wmma::fragment<wmma::matrix_a, M, N, K, Element, LayoutA> x;
  wmma::fragment<wmma::matrix_b, M, N, K, Element, LayoutB> y;
  wmma::fragment<wmma::accumulator, M, N, K, Accumulator> z;
  wmma::load_matrix_sync(x, a, (row_a ? K : M) + pad);
  wmma::load_matrix_sync(y, b, (row_b ? N : K) + pad);
  wmma::load_matrix_sync(z, c, lead, layout);
  for (int i = 0; i < z.num_elements; ++i) z.x[i] = z.x[i] + z.x[i];
  if constexpr (std::is_same_v<Accumulator, int>) {
    wmma::mma_sync(z, x, y, z, saturate);
  } else {
    wmma::mma_sync(z, x, y, z);
  }
  wmma::store_matrix_sync(d, z, lead, layout);
}
""" + "".join(
    f"""
extern "C" __global__ void {w}(const {_CUDA_TYPES[w.a][0]}* a, const {_CUDA_TYPES[w.a][0]}* b,
                               const {_CUDA_TYPES[w.d][0]}* c, {_CUDA_TYPES[w.d][0]}* d, int pad) {{
  multiply<{w.m}, {w.n}, {w.k}, {_CUDA_TYPES[w.a][0]}, {_CUDA_TYPES[w.a][1]}, {_CUDA_TYPES[w.d][0]},
           wmma::{w.a_layout}_major, wmma::{w.b_layout}_major>(a, b, c, d, pad, wmma::mem_{w.d_layout}_major,
                                                               {str(w.saturate).lower()});
}}
"""
    for w in WMMAS
)


def lay_out(matrix: np.ndarray, layout: str, pad: int, dtype: type) -> np.ndarray:
    """In memory, with `pad` elements behind each row or column."""
    rows = matrix if layout == "row" else matrix.T
    return np.ascontiguousarray(np.pad(rows, ((0, 0), (0, pad))), dtype)


@needs_nvcc
@pytest.mark.parametrize("pad", [0, 16])
@pytest.mark.parametrize("wmma", WMMAS, ids=str)
def test_wmma(machine: ptx.Machine, wmma: Wmma, pad: int) -> None:
    """Of whole numbers, whose sums are exact."""
    rng = np.random.default_rng(10)
    dtypes = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
    element, accumulator = ELEMENTS[wmma.a], ELEMENTS[wmma.d]
    low, high = {"s8": (-128, 128), "u8": (0, 256)}.get(wmma.a, (-3, 4))
    a, b = rng.integers(low, high, (wmma.m, wmma.k)), rng.integers(low, high, (wmma.k, wmma.n))
    c = rng.integers(-100, 100, (wmma.m, wmma.n))
    if wmma.saturate:
        c[::2], c[1::2] = 2**30 - 1, -(2**30)  # twice that is nearly too large
    memory = dtypes[element.bits // 8], dtypes[accumulator.bits // 8]
    out = lay_out(np.full((wmma.m, wmma.n), 7), wmma.d_layout, pad, memory[1])
    result = machine.load(compile_cuda(CUDA, "-O3")).launch(
        str(wmma),
        1,
        LANES,
        [
            lay_out(element.encode(a), wmma.a_layout, pad, memory[0]),
            lay_out(element.encode(b), wmma.b_layout, pad, memory[0]),
            lay_out(accumulator.encode(c), wmma.d_layout, pad, memory[1]),
            out,
            pad,
        ],
    )
    assert not result.findings, result.findings
    exact = a @ b + 2 * c
    want = accumulator.encode(np.clip(exact, -(2**31), 2**31 - 1) if wmma.saturate else exact)
    assert (out == lay_out(want, wmma.d_layout, pad, memory[1])).all()
    assert result.fma_lanes[wmma.a] == wmma.m * wmma.n * wmma.k


def test_wmma_in_named_state_spaces(machine: ptx.Machine) -> None:
    """From shared to global memory, transposed; address and stride are last used where the results come."""
    registers = "{%f0, %f1, %f2, %f3, %f4, %f5, %f6, %f7}"
    body = f"""
        .shared .align 128 .b8 s[4096]; .reg .b64 %a<3>; .reg .b32 %t, %n, %s, %step; .reg .f32 %f<8>; .reg .pred %p;
        mov.u32 %t, %tid.x; ld.param.u64 %a0, [in]; ld.param.u64 %a1, [out]; mov.u32 %s, s; mad.lo.u32 %s, %t, 4, %s;
        mul.wide.u32 %a2, %t, 4; add.s64 %a0, %a0, %a2;
        LOOP: ld.global.f32 %f0, [%a0]; st.shared.f32 [%s], %f0; add.s64 %a0, %a0, 128; add.u32 %s, %s, 128;
        add.u32 %t, %t, 32; setp.lt.u32 %p, %t, 1024; @%p bra LOOP; bar.sync 0;
        ld.param.u32 %n, [stride]; mov.u64 %a2, s; add.u32 %step, %n, 4;
        wmma.load.c.sync.aligned.col.m16n16k16.shared.f32 {registers}, [%a2], %n;
        wmma.store.d.sync.aligned.row.m16n16k16.global.f32 [%a1], {registers}, %step; ret;"""
    given = np.random.default_rng(11).standard_normal(1024).astype(np.float32)
    out = np.zeros((16, 24), np.float32)
    text = kernel(body, ".param .u64 in, .param .u64 out, .param .u32 stride")
    result = machine.load(text).launch("k", 1, LANES, [given, out, 20])
    assert not result.findings, result.findings
    assert (out[:, :16] == given[: 16 * 20].reshape(16, 20)[:, :16].T).all()
    assert not out[:, 16:].any()


# ---- mma and ldmatrix in CUDA: a tile as kernels multiply it ----

TILE = """
#include <cstdint>

__device__ uint32_t shared_address(const void* p) { return static_cast<uint32_t>(__cvta_generic_to_shared(p)); }

// One warp: d (16 x 8) = a (16 x 64) b (64 x 8), row-major halves.
extern "C" __global__ void tile(const uint16_t* a, const uint16_t* b, float* d) {
  __shared__ __align__(16) uint16_t x[16][72], y[64][8];
  for (int i = threadIdx.x; i < 16 * 64; i += 32) x[i / 64][i % 64] = a[i];
  for (int i = threadIdx.x; i < 64 * 8; i += 32) y[i / 8][i % 8] = b[i];
  __syncthreads();
  float c[4] = {0, 0, 0, 0};
  const int lane = threadIdx.x;
  for (int k = 0; k < 64; k += 16) {
    uint32_t p[4], q[2];
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(p[0]), "=r"(p[1]), "=r"(p[2]), "=r"(p[3])
                 : "r"(shared_address(&x[lane % 16][k + lane / 16 * 8])));
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                 : "=r"(q[0]), "=r"(q[1]) : "r"(shared_address(&y[k + lane % 16][0])));
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(p[0]), "r"(p[1]), "r"(p[2]), "r"(p[3]), "r"(q[0]), "r"(q[1]));
  }
  for (int i = 0; i < 4; ++i) d[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = c[i];
}
"""


@needs_nvcc
@pytest.mark.parametrize("flags", [("-O3",), ("-G",)])
def test_tile_of_cuda(machine: ptx.Machine, flags: tuple[str, ...]) -> None:
    rng = np.random.default_rng(12)
    a, b = rng.integers(-8, 9, (16, 64)).astype(np.float16), rng.integers(-8, 9, (64, 8)).astype(np.float16)
    d = np.zeros((16, 8), np.float32)
    result = machine.load(compile_cuda(TILE, *flags)).launch("tile", 1, LANES, [a, b, d])
    assert not result.findings, result.findings
    assert (d == a.astype(np.float64) @ b.astype(np.float64)).all()
    assert result.fma_lanes == {"f16": 16 * 8 * 64}

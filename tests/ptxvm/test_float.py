"""Floating-point instructions, bit for bit against exact fractions rounded once; .approx within the ISA's bounds."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest

from tests.ptxvm import reference as ref
from tests.ptxvm.harness import run_instruction
from tests.ptxvm.reference import FORMATS, Format

_DTYPE = {16: np.uint16, 32: np.uint32, 64: np.uint64}
ROUNDINGS = ["rn", "rz", "rm", "rp"]


def edges(fmt: Format) -> list[int]:
    one = fmt.bias << fmt.mantissa_bits
    least_normal = 1 << fmt.mantissa_bits
    positive = [
        0,
        1,
        2,
        3,
        least_normal - 1,
        least_normal,
        least_normal + 1,
        one - 1,
        one,
        one + 1,
        one + 2,
        one | 1 << (fmt.mantissa_bits - 1),
        fmt.round(Fraction(1, 3)),
        fmt.round(Fraction(10)),
        fmt.largest - 1,
        fmt.largest,
        fmt.infinity,
        fmt.nan,
        fmt.infinity | 1,
    ]
    return positive + [bits | fmt.sign for bits in positive]


def operands(fmt: Format, count: int, seed: int = 1) -> list[np.ndarray]:
    """Edge values in all pairs, random bits, and values near each other so that sums cancel and round."""
    rng = np.random.default_rng(seed)
    pool = edges(fmt)
    rows: list[tuple[int, ...]] = list(itertools.product(pool, repeat=count)) if count <= 2 else []
    for _ in range(300):
        rows.append(tuple(pool[i] for i in rng.integers(0, len(pool), count)))
        rows.append(tuple(int(v) >> (64 - fmt.width) for v in rng.integers(0, 2**64, count, dtype=np.uint64)))
        near = int(rng.integers(fmt.infinity // 3, fmt.infinity * 2 // 3))
        spread = 4 << fmt.mantissa_bits
        rows.append(
            tuple(
                min(max(near + int(rng.integers(-spread, spread)), 0), fmt.largest)
                | (int(rng.integers(0, 2)) * fmt.sign)
                for _ in range(count)
            )
        )
    return [np.array([row[k] for row in rows], _DTYPE[fmt.width]) for k in range(count)]


def check(text: str, fmt: Format, count: int, expected: Callable[..., int], width: int | None = None) -> None:
    inputs = operands(fmt, count)
    width = width or fmt.width
    got = run_instruction(text, inputs, width // 8)
    wrong = []
    for row, result in zip(zip(*(a.tolist() for a in inputs), strict=True), got.tolist(), strict=True):
        want = expected(*row)
        # Double NaNs keep their payload on hardware; which one is not part of the ISA.
        same = fmt.is_nan(result) and fmt.is_nan(want) if fmt is ref.F64 and width == 64 else False
        if result != want and not same:
            wrong.append(([hex(v) for v in row], hex(result), hex(want)))
    assert not wrong, (text, len(wrong), wrong[:4])


@pytest.mark.parametrize("mode", ROUNDINGS)
@pytest.mark.parametrize("name", ["f32", "f64"])
@pytest.mark.usefixtures("lane_instruction_set")
def test_basic(name: str, mode: str) -> None:
    fmt = FORMATS[name]
    check(f"add.{mode}.{name} %y, %x0, %x1;", fmt, 2, lambda a, b: ref.add(fmt, a, b, mode))
    check(
        f"sub.{mode}.{name} %y, %x0, %x1;",
        fmt,
        2,
        lambda a, b: ref.add(fmt, a, b if fmt.is_nan(b) else b ^ fmt.sign, mode),
    )
    check(f"mul.{mode}.{name} %y, %x0, %x1;", fmt, 2, lambda a, b: ref.multiply(fmt, a, b, mode))
    check(f"fma.{mode}.{name} %y, %x0, %x1, %x2;", fmt, 3, lambda a, b, c: ref.fma_like(fmt, a, b, c, mode))


@pytest.mark.parametrize("mode", ROUNDINGS)
@pytest.mark.parametrize("name", ["f32", "f64"])
def test_division_and_roots(name: str, mode: str) -> None:
    fmt = FORMATS[name]
    one = fmt.bias << fmt.mantissa_bits
    check(f"div.{mode}.{name} %y, %x0, %x1;", fmt, 2, lambda a, b: ref.divide(fmt, a, b, mode))
    check(f"rcp.{mode}.{name} %y, %x0;", fmt, 1, lambda a: ref.divide(fmt, one, a, mode))
    check(f"sqrt.{mode}.{name} %y, %x0;", fmt, 1, lambda a: ref.square_root(fmt, a, mode))


@pytest.mark.usefixtures("lane_instruction_set")
def test_flush_and_saturate() -> None:
    fmt = ref.F32
    flush = fmt.flush

    def saturate(bits: int) -> int:
        value = fmt.value(bits)
        if (isinstance(value, float) and math.isnan(value)) or value <= 0:
            return 0
        return 0x3F800000 if value > 1 else bits

    for mode in ("rn", "rz"):
        check(
            f"add.{mode}.ftz.f32 %y, %x0, %x1;", fmt, 2, lambda a, b, m=mode: flush(ref.add(fmt, flush(a), flush(b), m))
        )
        check(
            f"mul.{mode}.ftz.f32 %y, %x0, %x1;",
            fmt,
            2,
            lambda a, b, m=mode: flush(ref.multiply(fmt, flush(a), flush(b), m)),
        )
        check(
            f"fma.{mode}.ftz.f32 %y, %x0, %x1, %x2;",
            fmt,
            3,
            lambda a, b, c, m=mode: flush(ref.fma_like(fmt, flush(a), flush(b), flush(c), m)),
        )
        check(
            f"fma.{mode}.sat.f32 %y, %x0, %x1, %x2;",
            fmt,
            3,
            lambda a, b, c, m=mode: saturate(ref.fma_like(fmt, a, b, c, m)),
        )
        check(
            f"add.{mode}.ftz.sat.f32 %y, %x0, %x1;",
            fmt,
            2,
            lambda a, b, m=mode: saturate(flush(ref.add(fmt, flush(a), flush(b), m))),
        )
    check("mul.sat.f32 %y, %x0, %x1;", fmt, 2, lambda a, b: saturate(ref.multiply(fmt, a, b)))
    check("div.rn.ftz.f32 %y, %x0, %x1;", fmt, 2, lambda a, b: flush(ref.divide(fmt, flush(a), flush(b))))
    check("sqrt.rn.ftz.f32 %y, %x0;", fmt, 1, lambda a: flush(ref.square_root(fmt, flush(a))))


@pytest.mark.parametrize("name", ["f32", "f64", "f16", "bf16"])
@pytest.mark.usefixtures("lane_instruction_set")
def test_sign_and_order(name: str) -> None:
    fmt = FORMATS[name]

    def keep_nan(bits: int, result: int) -> int:
        return fmt.nan if fmt.is_nan(bits) and name in ("f32", "f64") else result

    check(f"abs.{name} %y, %x0;", fmt, 1, lambda a: keep_nan(a, a & ~fmt.sign))
    check(f"neg.{name} %y, %x0;", fmt, 1, lambda a: keep_nan(a, a ^ fmt.sign))
    check(f"min.{name} %y, %x0, %x1;", fmt, 2, lambda a, b: ref.minimum(fmt, a, b))
    check(f"max.{name} %y, %x0, %x1;", fmt, 2, lambda a, b: ref.minimum(fmt, a, b, largest=True))
    if name == "f64":
        check("copysign.f64 %y, %x0, %x1;", fmt, 2, lambda a, b: b & ~fmt.sign | a & fmt.sign)
        return
    check(f"min.NaN.{name} %y, %x0, %x1;", fmt, 2, lambda a, b: ref.minimum(fmt, a, b, nan=True))
    check(f"max.NaN.{name} %y, %x0, %x1;", fmt, 2, lambda a, b: ref.minimum(fmt, a, b, nan=True, largest=True))

    def xorsign(a: int, b: int, largest: bool) -> int:
        result = ref.minimum(fmt, a & ~fmt.sign, b & ~fmt.sign, largest=largest)
        return result if fmt.is_nan(result) else result & ~fmt.sign | (a ^ b) & fmt.sign

    check(f"min.xorsign.abs.{name} %y, %x0, %x1;", fmt, 2, lambda a, b: xorsign(a, b, False))
    check(f"max.xorsign.abs.{name} %y, %x0, %x1;", fmt, 2, lambda a, b: xorsign(a, b, True))


_ORDERED: dict[str, Callable[[Fraction | float, Fraction | float], bool]] = {
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
}


@pytest.mark.parametrize("name", ["f32", "f64", "f16", "bf16"])
@pytest.mark.usefixtures("lane_instruction_set")
def test_comparison(name: str) -> None:
    fmt = FORMATS[name]

    def compare(which: str, a: int, b: int) -> int:
        unordered = fmt.is_nan(a) or fmt.is_nan(b)
        if which in ("num", "nan"):
            return int(unordered == (which == "nan"))
        if unordered:
            return int(which.endswith("u"))
        return int(_ORDERED[which[:2]](fmt.value(a), fmt.value(b)))

    for which in [*_ORDERED, *(w + "u" for w in _ORDERED), "num", "nan"]:
        check(
            f"setp.{which}.{name} %p1, %x0, %x1; selp.u32 %y, 1, 0, %p1;",
            fmt,
            2,
            lambda a, b, w=which: compare(w, a, b),
            width=32,
        )
    if name == "f32":
        check(
            "setp.lt.ftz.f32 %p1, %x0, %x1; selp.u32 %y, 1, 0, %p1;",
            fmt,
            2,
            lambda a, b: compare("lt", fmt.flush(a), fmt.flush(b)),
            width=32,
        )
        check("set.ltu.u32.f32 %y, %x0, %x1;", fmt, 2, lambda a, b: 0xFFFFFFFF * compare("ltu", a, b), width=32)
        check("set.gt.f32.f32 %y, %x0, %x1;", fmt, 2, lambda a, b: 0x3F800000 * compare("gt", a, b), width=32)
    if name == "f16":
        check("set.le.f16.f16 %y, %x0, %x1;", fmt, 2, lambda a, b: 0x3C00 * compare("le", a, b), width=16)


@pytest.mark.parametrize("name", ["f32", "f64"])
def test_testp(name: str) -> None:
    fmt = FORMATS[name]
    properties: dict[str, Callable[[int], bool]] = {
        "finite": lambda a: not fmt.is_nan(a) and not fmt.is_infinite(a),
        "infinite": fmt.is_infinite,
        "number": lambda a: not fmt.is_nan(a),
        "notanumber": fmt.is_nan,
        "normal": lambda a: (
            not fmt.is_nan(a) and not fmt.is_infinite(a) and (not fmt.is_subnormal(a) or fmt.value(a) == 0)
        ),
        "subnormal": lambda a: fmt.is_subnormal(a) and fmt.value(a) != 0,
    }
    for which, holds in properties.items():
        check(f"testp.{which}.{name} %p1, %x0; selp.u32 %y, 1, 0, %p1;", fmt, 1, lambda a, h=holds: int(h(a)), width=32)


@pytest.mark.parametrize("name", ["f16", "bf16"])
def test_halves(name: str) -> None:
    fmt = FORMATS[name]
    check(f"add.rn.{name} %y, %x0, %x1;", fmt, 2, lambda a, b: ref.add(fmt, a, b))
    check(f"sub.{name} %y, %x0, %x1;", fmt, 2, lambda a, b: ref.add(fmt, a, b if fmt.is_nan(b) else b ^ fmt.sign))
    check(f"mul.{name} %y, %x0, %x1;", fmt, 2, lambda a, b: ref.multiply(fmt, a, b))
    check(f"fma.rn.{name} %y, %x0, %x1, %x2;", fmt, 3, lambda a, b, c: ref.fma_like(fmt, a, b, c, "rn"))

    def relu(bits: int) -> int:
        return 0 if bits & fmt.sign and not fmt.is_nan(bits) else bits

    check(f"fma.rn.relu.{name} %y, %x0, %x1, %x2;", fmt, 3, lambda a, b, c: relu(ref.fma_like(fmt, a, b, c, "rn")))
    if name == "f16":
        flush = fmt.flush
        check(
            "fma.rn.ftz.f16 %y, %x0, %x1, %x2;",
            fmt,
            3,
            lambda a, b, c: flush(ref.fma_like(fmt, flush(a), flush(b), flush(c), "rn")),
        )


@pytest.mark.parametrize("name", ["f16", "bf16"])
def test_pairs_of_halves(name: str) -> None:
    fmt = FORMATS[name]
    low, high = operands(fmt, 3, seed=2), operands(fmt, 3, seed=3)
    pairs = [x.astype(np.uint32) | y.astype(np.uint32) << 16 for x, y in zip(low, high, strict=True)]
    for text, f, count in (
        (f"add.{name}x2 %y, %x0, %x1;", lambda a, b: ref.add(fmt, a, b), 2),
        (f"mul.{name}x2 %y, %x0, %x1;", lambda a, b: ref.multiply(fmt, a, b), 2),
        (f"fma.rn.{name}x2 %y, %x0, %x1, %x2;", lambda a, b, c: ref.fma_like(fmt, a, b, c, "rn"), 3),
        (f"max.{name}x2 %y, %x0, %x1;", lambda a, b: ref.minimum(fmt, a, b, largest=True), 2),
    ):
        got = run_instruction(text, pairs[:count]).tolist()
        for i, result in enumerate(got):
            want = f(*(int(v[i]) for v in low[:count])) | f(*(int(v[i]) for v in high[:count])) << 16
            assert result == want, (text, i, hex(result), hex(want))


def test_pairs_of_floats() -> None:
    fmt = ref.F32
    low, high = operands(fmt, 3, seed=2), operands(fmt, 3, seed=3)
    pairs = [x.astype(np.uint64) | y.astype(np.uint64) << np.uint64(32) for x, y in zip(low, high, strict=True)]
    got = run_instruction("fma.rn.f32x2 %y, %x0, %x1, %x2;", pairs, 8).tolist()
    for i, result in enumerate(got):
        parts = [ref.fma_like(fmt, *(int(v[i]) for v in part), "rn") for part in (low, high)]
        assert result == parts[0] | parts[1] << 32


# Largest errors of the .approx functions in the ISA: ulp, or absolute.
_APPROXIMATE: dict[str, tuple[Callable[[float], float], float, float, tuple[float, float]]] = {
    "rcp.approx.f32": (lambda x: 1 / x, 1.0, 0.0, (1e-30, 1e30)),
    "sqrt.approx.f32": (math.sqrt, 2.0, 0.0, (0.0, 1e30)),
    "rsqrt.approx.f32": (lambda x: 1 / math.sqrt(x), 2.0, 0.0, (1e-30, 1e30)),
    "ex2.approx.f32": (lambda x: 2.0**x, 2.0, 0.0, (-120.0, 120.0)),
    "lg2.approx.f32": (math.log2, 2.0, 2.0**-22, (1e-30, 1e30)),
    "sin.approx.f32": (math.sin, 0.0, 2.0**-20.5, (-6.2, 6.2)),
    "cos.approx.f32": (math.cos, 0.0, 2.0**-20.5, (-6.2, 6.2)),
    "tanh.approx.f32": (math.tanh, 2.0**13, 0.0, (-9.0, 9.0)),
}


@pytest.mark.parametrize("name", _APPROXIMATE)
def test_approximate(name: str) -> None:
    function, ulp, absolute, (low, high) = _APPROXIMATE[name]
    x = np.random.default_rng(0).uniform(low, high, 2000).astype(np.float32)
    got = run_instruction(f"{name} %y, %x0;", [x.view(np.uint32)]).view(np.float32)
    want = np.array([function(float(v)) for v in x])
    bound = np.maximum(ulp * np.spacing(np.abs(want).astype(np.float32)), absolute)
    assert (np.abs(got - want) <= bound + 1e-45).all()


def test_approximate_limits() -> None:
    def one(text: str, *values: float) -> float:
        inputs = [np.array([v], np.float32).view(np.uint32) for v in values]
        return float(run_instruction(text, inputs).view(np.float32)[0])

    assert one("rcp.approx.f32 %y, %x0;", 0.0) == math.inf
    assert one("rcp.approx.f32 %y, %x0;", -math.inf) == 0.0
    assert math.isnan(one("rsqrt.approx.f32 %y, %x0;", -1.0))
    assert one("rsqrt.approx.f32 %y, %x0;", 0.0) == math.inf
    assert one("lg2.approx.f32 %y, %x0;", 0.0) == -math.inf
    assert one("ex2.approx.f32 %y, %x0;", math.inf) == math.inf
    assert one("ex2.approx.ftz.f32 %y, %x0;", -130.0) == 0.0
    assert math.isnan(one("sin.approx.f32 %y, %x0;", math.inf))
    # The reciprocal of such a divisor is subnormal: .approx gives zero, .full scales.
    assert one("div.approx.f32 %y, %x0, %x1;", 1e38, 1.5e38) == 0.0
    assert one("div.full.f32 %y, %x0, %x1;", 1e38, 1.5e38) == pytest.approx(2 / 3)


def test_double_approximations() -> None:
    x = np.random.default_rng(0).uniform(1e-3, 1e3, 500)
    got = run_instruction("rcp.approx.ftz.f64 %y, %x0;", [x.view(np.uint64)], 8)
    assert not (got & np.uint64(0xFFFFFFFF)).any()
    np.testing.assert_allclose(got.view(np.float64), 1 / x, rtol=2.0**-19)
    root = run_instruction("rsqrt.approx.ftz.f64 %y, %x0;", [x.view(np.uint64)], 8)
    np.testing.assert_allclose(root.view(np.float64), 1 / np.sqrt(x), rtol=2.0**-19)

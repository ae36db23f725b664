"""cvt between all types in all roundings, against exact fractions."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from flopcuda import ptx
from tests.ptxvm import reference as ref
from tests.ptxvm.harness import run_instruction
from tests.ptxvm.reference import FORMATS, Format
from tests.ptxvm.test_float import edges as float_edges
from tests.ptxvm.test_integer import edges as integer_edges

_DTYPE = {16: np.uint16, 32: np.uint32, 64: np.uint64}
ROUNDINGS = ["rn", "rz", "rm", "rp"]
INTEGERS = ["u8", "s8", "u16", "s16", "u32", "s32", "u64", "s64"]


def width_of(name: str) -> int:
    return int("".join(c for c in name if c.isdigit()))


def register_width(name: str) -> int:
    return max(width_of(name), 16)


def float_inputs(fmt: Format) -> np.ndarray:
    """Edge values, random bits, and numbers around the ranges of the integer types with ties between them."""
    rng = np.random.default_rng(7)
    values = float_edges(fmt) + [int(v) >> (64 - fmt.width) for v in rng.integers(0, 2**64, 600, dtype=np.uint64)]
    for power in (0, 1, 7, 8, 15, 16, 31, 32, 53, 63, 64):
        for offset in (-2, -1, -0.5, -0.25, 0, 0.25, 0.5, 1, 1.5, 2):
            for sign in (1, -1):
                values.append(fmt.round(sign * (Fraction(2) ** power + Fraction(offset)), "rz"))
    return np.array(values, _DTYPE[fmt.width])


def integer_inputs(name: str) -> np.ndarray:
    width = width_of(name)
    rng = np.random.default_rng(8)
    values = integer_edges(max(width, 16)) + [
        int(v) >> int(s)
        for v, s in zip(rng.integers(0, 2**64, 500, dtype=np.uint64), rng.integers(0, 64, 500), strict=True)
    ]
    for power in range(8, width):
        values += [(1 << power) + d for d in (-1, 0, 1)] + [(1 << power) + (1 << max(power - 25, 0)), (3 << power) >> 1]
    mask = (1 << register_width(name)) - 1
    return np.array([v & mask for v in values], _DTYPE[register_width(name)])


def compare(text: str, inputs: np.ndarray, result_width: int, expected, is_nan=None) -> None:
    got = run_instruction(text, [inputs], result_width // 8).tolist()
    wrong = []
    for value, result in zip(inputs.tolist(), got, strict=True):
        want = expected(value) & ((1 << result_width) - 1)
        if result != want and not (is_nan and is_nan(result) and is_nan(want)):
            wrong.append((hex(value), hex(result), hex(want)))
    assert not wrong, (text, len(wrong), wrong[:5])


def as_integer(bits: int, name: str) -> int:
    low = bits & ((1 << width_of(name)) - 1)
    return ref.signed(low, width_of(name)) if name[0] == "s" else low


def value_range(name: str) -> tuple[int, int]:
    values = 1 << width_of(name)
    return (-values // 2, values // 2 - 1) if name[0] == "s" else (0, values - 1)


@pytest.mark.parametrize("source", INTEGERS)
def test_integer_to_integer(source: str) -> None:
    inputs = integer_inputs(source)
    for target in INTEGERS:
        compare(
            f"cvt.{target}.{source} %y, %x0;",
            inputs,
            register_width(target),
            lambda v, t=target: as_integer(as_integer(v, source), t),
        )
        saturated = f"cvt.sat.{target}.{source} %y, %x0;"
        low, high = value_range(source)
        least, most = value_range(target)
        if least <= low and high <= most:
            with pytest.raises(ptx.PtxError, match="sat changes nothing"):
                run_instruction(saturated, [inputs], register_width(target) // 8)
            continue
        compare(
            saturated,
            inputs,
            register_width(target),
            lambda v, t=target: ref.clamp(as_integer(v, source), width_of(t), t[0] == "s"),
        )


@pytest.mark.parametrize("mode", ROUNDINGS)
@pytest.mark.parametrize("source", INTEGERS)
@pytest.mark.usefixtures("lane_instruction_set")
def test_integer_to_float(source: str, mode: str) -> None:
    inputs = integer_inputs(source)
    for target in ("f32", "f64", "f16", "bf16"):
        fmt = FORMATS[target]
        compare(
            f"cvt.{mode}.{target}.{source} %y, %x0;",
            inputs,
            fmt.width,
            lambda v, f=fmt: f.round(Fraction(as_integer(v, source)), mode),
        )


@pytest.mark.parametrize("mode", ROUNDINGS)
@pytest.mark.parametrize("source", ["f32", "f64", "f16"])
def test_float_to_integer(source: str, mode: str) -> None:
    fmt = FORMATS[source]
    inputs = float_inputs(fmt)

    def expected(bits: int, target: str) -> int:
        value = fmt.value(bits)
        with_sign, width = target[0] == "s", width_of(target)
        if isinstance(value, float):
            if math.isnan(value):
                highest = 1 << (width - 1) if source == "f64" or width == 64 else 0
                return -highest if with_sign else highest
            return ref.clamp((1 << 70) * (1 if value > 0 else -1), width, with_sign)
        return ref.clamp(ref.round_fraction(value, mode), width, with_sign)

    for target in INTEGERS:
        compare(
            f"cvt.{mode}i.{target}.{source} %y, %x0;",
            inputs,
            register_width(target),
            lambda v, t=target: expected(v, t),
        )


@pytest.mark.parametrize("source", ["f32", "f64", "f16", "bf16"])
def test_float_to_float(source: str) -> None:
    fmt = FORMATS[source]
    inputs = float_inputs(fmt)
    for target in ("f32", "f64", "f16", "bf16"):
        to = FORMATS[target]
        if target == source:
            continue
        narrows = to.width < fmt.width or (to.width == 16 and fmt.width == 16)
        for mode in ROUNDINGS if narrows else [""]:
            dotted = f".{mode}" if mode else ""
            compare(
                f"cvt{dotted}.{target}.{source} %y, %x0;",
                inputs,
                to.width,
                lambda v, m=mode, t=to: t.round(fmt.value(v), m or "rn", negative_zero=bool(v & fmt.sign)),
                to.is_nan,
            )


@pytest.mark.parametrize("mode", ROUNDINGS)
@pytest.mark.parametrize("name", ["f32", "f64", "f16"])
def test_to_integral(name: str, mode: str) -> None:
    fmt = FORMATS[name]

    def expected(bits: int) -> int:
        value = fmt.value(bits)
        if isinstance(value, float):
            return fmt.round(value)
        return fmt.round(Fraction(ref.round_fraction(value, mode)), negative_zero=bool(bits & fmt.sign))

    compare(f"cvt.{mode}i.{name}.{name} %y, %x0;", float_inputs(fmt), fmt.width, expected, fmt.is_nan)


def test_saturation_and_flushing() -> None:
    f32 = ref.F32

    def saturate(bits: int) -> int:
        value = f32.value(bits)
        if (isinstance(value, float) and math.isnan(value)) or value <= 0:
            return 0
        return 0x3F800000 if value > 1 else bits

    inputs = float_inputs(f32)
    compare("cvt.sat.f32.f32 %y, %x0;", inputs, 32, saturate)
    compare(
        "cvt.ftz.f64.f32 %y, %x0;",
        inputs,
        64,
        lambda v: ref.F64.round(f32.value(f32.flush(v)), negative_zero=bool(v & f32.sign)),
        ref.F64.is_nan,
    )
    compare(
        "cvt.rn.ftz.f32.f64 %y, %x0;",
        float_inputs(ref.F64),
        32,
        lambda v: f32.flush(f32.round(ref.F64.value(v), negative_zero=bool(v & ref.F64.sign))),
    )


@pytest.mark.parametrize("mode", ["rn", "rna", "rz"])
def test_tf32(mode: str) -> None:
    def expected(bits: int) -> int:
        if ref.F32.is_nan(bits):
            return 0x7FFFFFFF
        return ref.TF32.round(ref.F32.value(bits), mode, negative_zero=bool(bits & ref.F32.sign)) << 13

    compare(f"cvt.{mode}.tf32.f32 %y, %x0;", float_inputs(ref.F32), 32, expected)


@pytest.mark.parametrize(
    ("name", "fmt", "modifier"),
    [
        ("f16x2", ref.F16, ""),
        ("bf16x2", ref.BF16, ""),
        ("f16x2", ref.F16, ".relu"),
        ("e4m3x2", ref.E4M3, ".satfinite"),
        ("e5m2x2", ref.E5M2, ".satfinite"),
    ],
)
def test_pairs(name: str, fmt: Format, modifier: str) -> None:
    high = float_inputs(ref.F32)
    low = np.roll(high, 11)
    order = f".rn{modifier}"
    got = run_instruction(f"cvt{order}.{name}.f32 %y, %x0, %x1;", [high, low], fmt.width // 4).tolist()

    def one(bits: int) -> int:
        value = ref.F32.value(bits)
        if modifier == ".relu" and not (isinstance(value, float) and math.isnan(value)) and value <= 0:
            return 0
        return fmt.round(value, negative_zero=bool(bits & ref.F32.sign), finite=modifier == ".satfinite")

    for h, v, result in zip(high.tolist(), low.tolist(), got, strict=True):
        assert result == one(h) << fmt.width | one(v), (hex(h), hex(v), hex(result))


def test_eight_bits_to_halves() -> None:
    codes = np.arange(256, dtype=np.uint16)
    pairs = codes | codes[::-1] << 8
    for name, fmt in (("e4m3x2", ref.E4M3), ("e5m2x2", ref.E5M2)):
        got = run_instruction(f"cvt.rn.f16x2.{name} %y, %x0;", [pairs]).tolist()
        for pair, result in zip(pairs.tolist(), got, strict=True):
            want = [ref.F16.round(fmt.value(code), negative_zero=bool(code & 128)) for code in (pair & 255, pair >> 8)]
            assert result == want[0] | want[1] << 16, (name, hex(pair), hex(result))

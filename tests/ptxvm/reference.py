"""What instructions should give, by Python integers and exact fractions: shares nothing with the machine."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class Format:
    """A binary floating-point format of IEEE kind; e4m3 has no infinity."""

    exponent_bits: int
    mantissa_bits: int
    nan: int
    has_infinity: bool = True

    @property
    def bias(self) -> int:
        return (1 << (self.exponent_bits - 1)) - 1

    @property
    def width(self) -> int:
        return 1 + self.exponent_bits + self.mantissa_bits

    @property
    def sign(self) -> int:
        return 1 << (self.width - 1)

    @property
    def infinity(self) -> int:
        return ((1 << self.exponent_bits) - 1) << self.mantissa_bits

    @property
    def largest(self) -> int:
        return self.infinity - 1 if self.has_infinity else self.nan - 1

    def is_nan(self, bits: int) -> bool:
        magnitude = bits & (self.sign - 1)
        return magnitude > self.infinity if self.has_infinity else magnitude == self.nan

    def is_infinite(self, bits: int) -> bool:
        return self.has_infinity and bits & (self.sign - 1) == self.infinity

    def is_subnormal(self, bits: int) -> bool:
        return bits & self.infinity == 0

    def fraction(self, bits: int) -> Fraction:
        """The exact value of a finite number."""
        exponent = (bits & (self.sign - 1)) >> self.mantissa_bits
        mantissa = bits & ((1 << self.mantissa_bits) - 1)
        if exponent:
            mantissa |= 1 << self.mantissa_bits
        power = max(exponent, 1) - self.bias - self.mantissa_bits
        magnitude = Fraction(mantissa) * Fraction(2) ** power
        return -magnitude if bits & self.sign else magnitude

    def value(self, bits: int) -> Fraction | float:
        if self.is_nan(bits):
            return math.nan
        if self.is_infinite(bits):
            return -math.inf if bits & self.sign else math.inf
        return self.fraction(bits)

    def round(
        self, value: Fraction | float, mode: str = "rn", negative_zero: bool = False, finite: bool = False
    ) -> int:
        """The bits of the value rounded once; `negative_zero` is the sign of an exact zero."""
        if isinstance(value, float):
            if math.isnan(value):
                return self.nan
            if math.isinf(value):
                top = self.infinity if self.has_infinity and not finite else self.largest
                return top | (self.sign if value < 0 else 0)
        if value == 0:
            return self.sign if negative_zero else 0
        negative = value < 0
        exact = abs(Fraction(value))
        exponent = max(_floor_log2(exact), 1 - self.bias)
        quantum = Fraction(2) ** (exponent - self.mantissa_bits)
        units = round_fraction(exact / quantum, {"rm": "rp", "rp": "rm"}.get(mode, mode) if negative else mode)
        if exponent == 1 - self.bias and units < 1 << self.mantissa_bits:
            bits = units
        else:
            bits = ((exponent + self.bias - 1) << self.mantissa_bits) + units
        if bits > self.largest:
            inward = mode == "rz" or (mode == "rm" and not negative) or (mode == "rp" and negative)
            bits = self.largest if inward or finite or not self.has_infinity else self.infinity
        return bits | (self.sign if negative else 0)

    def flush(self, bits: int) -> int:
        return bits & self.sign if self.is_subnormal(bits) else bits


F16 = Format(5, 10, 0x7FFF)
BF16 = Format(8, 7, 0x7FFF)
F32 = Format(8, 23, 0x7FFFFFFF)
F64 = Format(11, 52, 0x7FF8000000000000)
TF32 = Format(8, 10, 0x3FFFF)
E4M3 = Format(4, 3, 0x7F, has_infinity=False)
E5M2 = Format(5, 2, 0x7F)

FORMATS = {"f16": F16, "bf16": BF16, "f32": F32, "f64": F64}


def _floor_log2(value: Fraction) -> int:
    guess = value.numerator.bit_length() - value.denominator.bit_length()
    return guess if Fraction(2) ** guess <= value else guess - 1


def round_fraction(value: Fraction, mode: str) -> int:
    """To an integer: rn to nearest even, rna ties away, rz, rm down, rp up."""
    low = value.numerator // value.denominator
    rest = value - low
    if mode == "rm" or rest == 0:
        return low
    if mode == "rp":
        return low + 1
    if mode == "rz":
        return low + 1 if value < 0 else low
    if mode == "rna":
        return low + (rest >= Fraction(1, 2) if value >= 0 else rest > Fraction(1, 2))
    return low + (rest > Fraction(1, 2) or (rest == Fraction(1, 2) and low % 2 == 1))


def _sum_sign(values: list[tuple[bool, bool]], mode: str) -> bool:
    """Whether an exact zero sum is negative, of terms that are (zero, negative)."""
    if all(zero for zero, _ in values):
        signs = {negative for _, negative in values}
        if len(signs) == 1:
            return signs.pop()
    return mode == "rm"


@functools.cache
def add(fmt: Format, a: int, b: int, mode: str = "rn") -> int:
    return fma_like(fmt, None, a, b, mode)


@functools.cache
def fma_like(fmt: Format, factor: int | None, a: int, c: int, mode: str) -> int:
    """factor * a + c, or a + c without a factor."""
    values = [fmt.value(bits) for bits in ((factor,) if factor is not None else ()) + (a, c)]
    if any(isinstance(v, float) and math.isnan(v) for v in values):
        return fmt.nan
    product_negative = bool(a & fmt.sign) ^ (factor is not None and bool(factor & fmt.sign))
    c_negative = bool(c & fmt.sign)
    factors = values[:-1]
    if any(isinstance(v, float) for v in factors):
        if any(v == 0 for v in factors):
            return fmt.nan
        if isinstance(values[-1], float) and c_negative != product_negative:
            return fmt.nan
        return fmt.round(-math.inf if product_negative else math.inf)
    if isinstance(values[-1], float):
        return fmt.round(values[-1])
    product = math.prod(factors, start=Fraction(1))
    total = product + values[-1]
    zeros = [(product == 0, product_negative), (values[-1] == 0, c_negative)]
    return fmt.round(total, mode, negative_zero=_sum_sign(zeros, mode))


@functools.cache
def multiply(fmt: Format, a: int, b: int, mode: str = "rn") -> int:
    x, y = fmt.value(a), fmt.value(b)
    negative = bool((a ^ b) & fmt.sign)
    if any(isinstance(v, float) for v in (x, y)):
        if any(isinstance(v, float) and math.isnan(v) for v in (x, y)) or x == 0 or y == 0:
            return fmt.nan
        return fmt.round(-math.inf if negative else math.inf)
    return fmt.round(x * y, mode, negative_zero=negative)


@functools.cache
def divide(fmt: Format, a: int, b: int, mode: str = "rn") -> int:
    x, y = fmt.value(a), fmt.value(b)
    negative = bool((a ^ b) & fmt.sign)
    if any(isinstance(v, float) and math.isnan(v) for v in (x, y)):
        return fmt.nan
    infinite = [isinstance(v, float) for v in (x, y)]
    if all(infinite) or (x == 0 and y == 0):
        return fmt.nan
    if infinite[0] or y == 0:
        return fmt.round(-math.inf if negative else math.inf)
    if infinite[1]:
        return fmt.sign if negative else 0
    return fmt.round(x / y, mode, negative_zero=negative)


@functools.cache
def square_root(fmt: Format, a: int, mode: str = "rn") -> int:
    x = fmt.value(a)
    if isinstance(x, float) and math.isnan(x):
        return fmt.nan
    if x == 0:
        return a
    if a & fmt.sign:
        return fmt.nan
    if isinstance(x, float):
        return fmt.infinity
    # Many more bits than any format keeps, also of the least subnormal, with a sticky one below.
    scale = 700
    shifted = x * Fraction(4) ** scale
    root = math.isqrt(shifted.numerator // shifted.denominator)
    exact = root * root == shifted
    return fmt.round((Fraction(root) + (0 if exact else Fraction(1, 2))) / Fraction(2) ** scale, mode)


@functools.cache
def minimum(fmt: Format, a: int, b: int, nan: bool = False, largest: bool = False) -> int:
    if fmt.is_nan(a) or fmt.is_nan(b):
        if nan or (fmt.is_nan(a) and fmt.is_nan(b)):
            return fmt.nan
        return b if fmt.is_nan(a) else a

    def key(bits: int) -> tuple[Fraction | float, bool]:
        return fmt.value(bits), not bits & fmt.sign

    return max(a, b, key=key) if largest else min(a, b, key=key)


def signed(bits: int, width: int) -> int:
    bits &= (1 << width) - 1
    return bits - (1 << width) if bits >> (width - 1) else bits


def clamp(value: int, width: int, with_sign: bool) -> int:
    low, high = (-(1 << (width - 1)), (1 << (width - 1)) - 1) if with_sign else (0, (1 << width) - 1)
    return max(low, min(high, value))

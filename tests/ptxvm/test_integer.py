"""Integer, logic and bit instructions against Python's integers, on edge values and random ones."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from tests.ptxvm.harness import run_instruction
from tests.ptxvm.reference import clamp, signed

_DTYPE = {16: np.uint16, 32: np.uint32, 64: np.uint64}


def edges(width: int) -> list[int]:
    top = 1 << (width - 1)
    mask = (1 << width) - 1
    values = [0, 1, 2, 3, 7, 31, 32, 33, 63, 64, 65, 255, 256, top - 1, top, top + 1, mask - 1, mask, 0x5555 & mask]
    rng = np.random.default_rng(width)
    return values + [int(v) & mask for v in rng.integers(0, 2**63, 9)]


def grid(widths: list[int]) -> list[np.ndarray]:
    """All combinations of edge values for up to two operands, random triples and more beyond."""
    if len(widths) <= 2:
        rows = list(itertools.product(*(edges(w) for w in widths)))
    else:
        rng = np.random.default_rng(5)
        pools = [edges(w) for w in widths]
        rows = [
            tuple(pool[i] for pool, i in zip(pools, rng.integers(0, 28, len(widths)), strict=True)) for _ in range(2000)
        ]
    return [np.array([row[k] for row in rows], _DTYPE[w]) for k, w in enumerate(widths)]


def check(text: str, widths: list[int], result_width: int, expected: Callable[..., int]) -> None:
    inputs = grid(widths)
    got = run_instruction(text, inputs, result_width // 8)
    want = np.array(
        [expected(*(int(v) for v in row)) & ((1 << result_width) - 1) for row in zip(*inputs, strict=True)],
        _DTYPE[result_width],
    )
    wrong = np.nonzero(got != want)[0]
    assert not len(wrong), [(text, [hex(a[i]) for a in inputs], hex(got[i]), hex(want[i])) for i in wrong[:5]]


def interpret(value: int, width: int, kind: str) -> int:
    return signed(value, width) if kind == "s" else value


BINARY: dict[str, Callable[[int, int, int], int]] = {
    "add": lambda a, b, w: a + b,
    "sub": lambda a, b, w: a - b,
    "mul.lo": lambda a, b, w: a * b,
    "mul.hi": lambda a, b, w: (a * b) >> w,
    "min": lambda a, b, w: min(a, b),
    "max": lambda a, b, w: max(a, b),
    # C's division; by zero all ones and the dividend.
    "div": lambda a, b, w: -1 if b == 0 else abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1),
    "rem": lambda a, b, w: a if b == 0 else abs(a) % abs(b) * (-1 if a < 0 else 1),
}


@pytest.mark.parametrize("width", [16, 32, 64])
@pytest.mark.parametrize("kind", ["u", "s"])
@pytest.mark.parametrize("name", BINARY)
@pytest.mark.usefixtures("lane_instruction_set")
def test_binary(name: str, kind: str, width: int) -> None:
    check(
        f"{name}.{kind}{width} %y, %x0, %x1;",
        [width, width],
        width,
        lambda a, b: BINARY[name](interpret(a, width, kind), interpret(b, width, kind), width),
    )


@pytest.mark.parametrize("width", [16, 32])
@pytest.mark.parametrize("kind", ["u", "s"])
@pytest.mark.usefixtures("lane_instruction_set")
def test_wide(kind: str, width: int) -> None:
    check(
        f"mul.wide.{kind}{width} %y, %x0, %x1;",
        [width, width],
        2 * width,
        lambda a, b: interpret(a, width, kind) * interpret(b, width, kind),
    )
    check(
        f"mad.wide.{kind}{width} %y, %x0, %x1, %x2;",
        [width, width, 2 * width],
        2 * width,
        lambda a, b, c: interpret(a, width, kind) * interpret(b, width, kind) + c,
    )


@pytest.mark.parametrize("width", [16, 32, 64])
@pytest.mark.parametrize("kind", ["u", "s"])
@pytest.mark.usefixtures("lane_instruction_set")
def test_mad_and_sad(kind: str, width: int) -> None:
    def value(v: int) -> int:
        return interpret(v, width, kind)

    check(f"mad.lo.{kind}{width} %y, %x0, %x1, %x2;", [width] * 3, width, lambda a, b, c: a * b + c)
    check(
        f"mad.hi.{kind}{width} %y, %x0, %x1, %x2;",
        [width] * 3,
        width,
        lambda a, b, c: ((value(a) * value(b)) >> width) + c,
    )
    check(f"sad.{kind}{width} %y, %x0, %x1, %x2;", [width] * 3, width, lambda a, b, c: abs(value(a) - value(b)) + c)


@pytest.mark.usefixtures("lane_instruction_set")
def test_saturated() -> None:
    def value(v: int) -> int:
        return signed(v, 32)

    check("add.sat.s32 %y, %x0, %x1;", [32, 32], 32, lambda a, b: clamp(value(a) + value(b), 32, True))
    check("sub.sat.s32 %y, %x0, %x1;", [32, 32], 32, lambda a, b: clamp(value(a) - value(b), 32, True))
    check(
        "mad.hi.sat.s32 %y, %x0, %x1, %x2;",
        [32] * 3,
        32,
        lambda a, b, c: clamp(((value(a) * value(b)) >> 32) + value(c), 32, True),
    )


@pytest.mark.parametrize("kind", ["u", "s"])
@pytest.mark.usefixtures("lane_instruction_set")
def test_24_bits(kind: str) -> None:
    def value(v: int) -> int:
        return interpret(v & 0xFFFFFF, 24, kind)

    check(f"mul24.lo.{kind}32 %y, %x0, %x1;", [32, 32], 32, lambda a, b: value(a) * value(b))
    check(f"mul24.hi.{kind}32 %y, %x0, %x1;", [32, 32], 32, lambda a, b: (value(a) * value(b)) >> 16)
    check(f"mad24.lo.{kind}32 %y, %x0, %x1, %x2;", [32] * 3, 32, lambda a, b, c: value(a) * value(b) + c)
    check(f"mad24.hi.{kind}32 %y, %x0, %x1, %x2;", [32] * 3, 32, lambda a, b, c: ((value(a) * value(b)) >> 16) + c)
    if kind == "s":
        check(
            "mad24.hi.sat.s32 %y, %x0, %x1, %x2;",
            [32] * 3,
            32,
            lambda a, b, c: clamp(((value(a) * value(b)) >> 16) + signed(c, 32), 32, True),
        )


@pytest.mark.parametrize("width", [16, 32, 64])
@pytest.mark.usefixtures("lane_instruction_set")
def test_unary_signed(width: int) -> None:
    check(f"abs.s{width} %y, %x0;", [width], width, lambda a: abs(signed(a, width)))
    check(f"neg.s{width} %y, %x0;", [width], width, lambda a: -a)
    check(f"not.b{width} %y, %x0;", [width], width, lambda a: ~a)
    check(f"cnot.b{width} %y, %x0;", [width], width, lambda a: int(a == 0))


@pytest.mark.parametrize("width", [16, 32, 64])
@pytest.mark.usefixtures("lane_instruction_set")
def test_logic_and_shifts(width: int) -> None:
    check(f"and.b{width} %y, %x0, %x1;", [width] * 2, width, lambda a, b: a & b)
    check(f"or.b{width} %y, %x0, %x1;", [width] * 2, width, lambda a, b: a | b)
    check(f"xor.b{width} %y, %x0, %x1;", [width] * 2, width, lambda a, b: a ^ b)
    check(f"shl.b{width} %y, %x0, %x1;", [width, 32], width, lambda a, b: a << b if b < width else 0)
    check(f"shr.u{width} %y, %x0, %x1;", [width, 32], width, lambda a, b: a >> b if b < width else 0)
    check(f"shr.b{width} %y, %x0, %x1;", [width, 32], width, lambda a, b: a >> b if b < width else 0)
    check(f"shr.s{width} %y, %x0, %x1;", [width, 32], width, lambda a, b: signed(a, width) >> min(b, width - 1))


@pytest.mark.parametrize("table", [0x00, 0xFF, 0x80, 0xFE, 0x96, 0xE8, 0xCA, 0x1B, 0x78])
@pytest.mark.usefixtures("lane_instruction_set")
def test_lop3(table: int) -> None:
    def expected(a: int, b: int, c: int) -> int:
        return sum((table >> ((a >> i & 1) * 4 + (b >> i & 1) * 2 + (c >> i & 1)) & 1) << i for i in range(32))

    check(f"lop3.b32 %y, %x0, %x1, %x2, {table};", [32] * 3, 32, expected)
    check(
        f"setp.gt.u32 %p1, %x0, 7; lop3.or.b32 %t0|%p2, %x0, %x1, %x2, {table}, %p1; selp.u32 %y, 1, 0, %p2;",
        [32] * 3,
        32,
        lambda a, b, c: int(expected(a, b, c) != 0 or a > 7),
    )


@pytest.mark.parametrize("width", [32, 64])
@pytest.mark.usefixtures("lane_instruction_set")
def test_bits(width: int) -> None:
    check(f"popc.b{width} %y, %x0;", [width], 32, lambda a: a.bit_count())
    check(f"clz.b{width} %y, %x0;", [width], 32, lambda a: width - a.bit_length())
    check(f"brev.b{width} %y, %x0;", [width], width, lambda a: int(f"{a:0{width}b}"[::-1], 2))
    check(f"bfind.u{width} %y, %x0;", [width], 32, lambda a: a.bit_length() - 1)

    def highest(a: int) -> int:
        value = signed(a, width)
        return (~value if value < 0 else value).bit_length() - 1

    check(f"bfind.s{width} %y, %x0;", [width], 32, highest)
    check(f"bfind.shiftamt.s{width} %y, %x0;", [width], 32, lambda a: -1 if highest(a) < 0 else width - 1 - highest(a))
    check(f"bfind.shiftamt.u{width} %y, %x0;", [width], 32, lambda a: -1 if a == 0 else width - a.bit_length())


@pytest.mark.parametrize("width", [32, 64])
@pytest.mark.usefixtures("lane_instruction_set")
def test_fields(width: int) -> None:
    def extract(a: int, b: int, c: int, with_sign: bool) -> int:
        """The ISA's own loop."""
        position, length, top = b & 255, c & 255, width - 1
        sign = 0 if not with_sign or length == 0 else a >> min(position + length - 1, top) & 1
        result = 0
        for i in range(width):
            inside = i < length and position + i <= top
            result |= (a >> (position + i) & 1 if inside else sign) << i
        return result

    def insert(a: int, b: int, c: int, d: int) -> int:
        position, length = c & 255, d & 255
        for i in range(length):
            if position + i < width and i < width:
                b = b & ~(1 << (position + i)) | (a >> i & 1) << (position + i)
        return b

    check(f"bfe.u{width} %y, %x0, %x1, %x2;", [width, 32, 32], width, lambda a, b, c: extract(a, b, c, False))
    check(f"bfe.s{width} %y, %x0, %x1, %x2;", [width, 32, 32], width, lambda a, b, c: extract(a, b, c, True))
    check(f"bfi.b{width} %y, %x0, %x1, %x2, %x3;", [width, width, 32, 32], width, insert)


def test_szext_bmsk_fns() -> None:
    def extend(a: int, n: int, with_sign: bool) -> int:
        if n == 0:
            return 0
        low = a & ((1 << n) - 1) if n < 32 else a
        return signed(low, n) if with_sign and n < 32 else low

    for kind in "us":
        check(f"szext.wrap.{kind}32 %y, %x0, %x1;", [32, 32], 32, lambda a, b, k=kind: extend(a, b & 31, k == "s"))
        check(f"szext.clamp.{kind}32 %y, %x0, %x1;", [32, 32], 32, lambda a, b, k=kind: extend(a, min(b, 32), k == "s"))
    check("bmsk.wrap.b32 %y, %x0, %x1;", [32, 32], 32, lambda a, b: ((1 << (b & 31)) - 1) << (a & 31))
    check("bmsk.clamp.b32 %y, %x0, %x1;", [32, 32], 32, lambda a, b: ((1 << min(b, 32)) - 1) << min(a, 32))

    def find(mask: int, base: int, offset: int) -> int:
        offset = signed(offset, 32)
        if base > 31:
            return -1
        if offset == 0:
            return base if mask >> base & 1 else -1
        span = range(base, 32) if offset > 0 else range(base, -1, -1)
        found = [i for i in span if mask >> i & 1]
        return found[abs(offset) - 1] if abs(offset) <= len(found) else -1

    check("and.b32 %t0, %x1, 31; fns.b32 %y, %x0, %t0, %x2;", [32] * 3, 32, lambda a, b, c: find(a, b & 31, c))


@pytest.mark.usefixtures("lane_instruction_set")
def test_funnel_shift() -> None:
    def shift(a: int, b: int, n: int, left: bool) -> int:
        both = b << 32 | a
        return (both << n) >> 32 if left else both >> n

    check("shf.l.wrap.b32 %y, %x0, %x1, %x2;", [32] * 3, 32, lambda a, b, c: shift(a, b, c & 31, True))
    check("shf.r.wrap.b32 %y, %x0, %x1, %x2;", [32] * 3, 32, lambda a, b, c: shift(a, b, c & 31, False))
    check("shf.l.clamp.b32 %y, %x0, %x1, %x2;", [32] * 3, 32, lambda a, b, c: shift(a, b, min(c, 32), True))
    check("shf.r.clamp.b32 %y, %x0, %x1, %x2;", [32] * 3, 32, lambda a, b, c: shift(a, b, min(c, 32), False))


_PRMT = {  # the ISA's table: source bytes of the result, highest first, by the lowest two bits of c
    "f4e": ["3210", "4321", "5432", "6543"],
    "b4e": ["5670", "6701", "7012", "0123"],
    "rc8": ["0000", "1111", "2222", "3333"],
    "ecl": ["3210", "3211", "3222", "3333"],
    "ecr": ["0000", "1110", "2210", "3210"],
    "rc16": ["1010", "3232", "1010", "3232"],
}


@pytest.mark.usefixtures("lane_instruction_set")
def test_prmt() -> None:
    def permute(a: int, b: int, selectors: list[int]) -> int:
        data = (b << 32 | a).to_bytes(8, "little")
        out = []
        for selector in selectors:
            byte = data[selector & 7]
            out.append((255 if byte & 128 else 0) if selector & 8 else byte)
        return int.from_bytes(bytes(out), "little")

    check(
        "prmt.b32 %y, %x0, %x1, %x2;",
        [32] * 3,
        32,
        lambda a, b, c: permute(a, b, [c >> (4 * i) & 15 for i in range(4)]),
    )
    for mode, rows in _PRMT.items():
        check(
            f"prmt.b32.{mode} %y, %x0, %x1, %x2;",
            [32] * 3,
            32,
            lambda a, b, c, rows=rows: permute(a, b, [int(d) for d in reversed(rows[c & 3])]),
        )


@pytest.mark.parametrize("parts", [2, 4])
@pytest.mark.usefixtures("lane_instruction_set")
def test_absolute_differences_of_parts(parts: int) -> None:
    width = 32 // parts
    ones = (1 << width) - 1

    def differences(a: int, b: int, ka: str, kb: str) -> list[int]:
        x, y = ([interpret(v >> (width * i) & ones, width, k) for i in range(parts)] for v, k in ((a, ka), (b, kb)))
        return [abs(p - q) for p, q in zip(x, y, strict=True)]

    def joined(values: list[int]) -> int:
        return sum((value & ones) << (width * i) for i, value in enumerate(values))

    for kd, ka, kb in itertools.product("us", repeat=3):
        most = ones >> (kd == "s")
        results: dict[str, Callable[[list[int], int], int]] = {
            "": lambda d, c: joined(d),
            ".sat": lambda d, c, most=most: joined([min(value, most) for value in d]),
            ".add": lambda d, c: sum(d) + c,
        }
        for suffix, result in results.items():
            check(
                f"vabsdiff{parts}.{kd}32.{ka}32.{kb}32{suffix} %y, %x0, %x1, %x2;",
                [32] * 3,
                32,
                lambda a, b, c, ka=ka, kb=kb, result=result: result(differences(a, b, ka, kb), c),
            )


@pytest.mark.usefixtures("lane_instruction_set")
def test_dot_products() -> None:
    def part(v: int, i: int, width: int, kind: str) -> int:
        return interpret(v >> (width * i) & ((1 << width) - 1), width, kind)

    for ka, kb in itertools.product("us", "us"):
        check(
            f"dp4a.{ka}32.{kb}32 %y, %x0, %x1, %x2;",
            [32] * 3,
            32,
            lambda a, b, c, ka=ka, kb=kb: c + sum(part(a, i, 8, ka) * part(b, i, 8, kb) for i in range(4)),
        )
        for half, first in (("lo", 0), ("hi", 2)):
            check(
                f"dp2a.{half}.{ka}32.{kb}32 %y, %x0, %x1, %x2;",
                [32] * 3,
                32,
                lambda a, b, c, ka=ka, kb=kb, f=first: (
                    c + sum(part(a, i, 16, ka) * part(b, i + f, 8, kb) for i in range(2))
                ),
            )


@pytest.mark.parametrize("width", [32, 64])
def test_carries(width: int) -> None:
    w = width
    mask = (1 << w) - 1
    check(
        f"add.cc.u{w} {_pair(w)[0]}, %x0, %x1; addc.u{w} %y, %x2, %x3;",
        [w] * 4,
        w,
        lambda a, b, c, d: c + d + ((a + b) >> w),
    )
    check(
        f"sub.cc.u{w} {_pair(w)[0]}, %x0, %x1; subc.cc.u{w} {_pair(w)[1]}, %x2, %x3; subc.u{w} %y, 0, 0;",
        [w] * 4,
        w,
        lambda a, b, c, d: ((b << 0 | d << w) > (a | c << w)) * -1,
    )
    check(
        f"mad.lo.cc.u{w} {_pair(w)[0]}, %x0, %x1, %x2; madc.hi.u{w} %y, %x0, %x1, %x3;",
        [w] * 4,
        w,
        lambda a, b, c, d: ((a * b) >> w) + d + (((a * b & mask) + c) >> w),
    )


def _pair(width: int) -> tuple[str, str]:
    return ("%t0", "%t1") if width == 32 else ("%u0", "%u1")


@pytest.mark.parametrize("width", [16, 32, 64])
@pytest.mark.usefixtures("lane_instruction_set")
def test_selection(width: int) -> None:
    check(f"setp.lt.u{width} %p1, %x0, %x1; selp.b{width} %y, %x0, %x1, %p1;", [width] * 2, width, min)
    check(f"setp.lt.u{width} %p1, %x0, %x1; selp.b{width} %y, %x0, %x1, !%p1;", [width] * 2, width, max)
    check(
        f"slct.b{width}.s32 %y, %x0, %x1, %x2;",
        [width, width, 32],
        width,
        lambda a, b, c: a if signed(c, 32) >= 0 else b,
    )


_COMPARE: dict[str, Callable[[int, int], bool]] = {
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
}


@pytest.mark.parametrize("width", [16, 32, 64])
@pytest.mark.parametrize("kind", ["u", "s"])
@pytest.mark.parametrize("compare", _COMPARE)
@pytest.mark.usefixtures("lane_instruction_set")
def test_comparison(compare: str, kind: str, width: int) -> None:
    def holds(a: int, b: int) -> bool:
        return _COMPARE[compare](interpret(a, width, kind), interpret(b, width, kind))

    t = f"{kind}{width}"
    check(f"setp.{compare}.{t} %p1, %x0, %x1; selp.u32 %y, 1, 0, %p1;", [width] * 2, 32, lambda a, b: int(holds(a, b)))
    check(f"set.{compare}.u32.{t} %y, %x0, %x1;", [width] * 2, 32, lambda a, b: -int(holds(a, b)))
    check(f"set.{compare}.f32.{t} %y, %x0, %x1;", [width] * 2, 32, lambda a, b: 0x3F800000 * holds(a, b))


@pytest.mark.parametrize("combination", ["and", "or", "xor"])
def test_combined_comparison(combination: str) -> None:
    combine = {"and": lambda p, q: p and q, "or": lambda p, q: p or q, "xor": lambda p, q: p != q}[combination]
    text = (
        f"setp.gt.u32 %p0, %x2, 100; setp.lt.{combination}.u32 %p1|%p2, %x0, %x1, !%p0;"
        "selp.u32 %t0, 1, 0, %p1; selp.u32 %t1, 2, 0, %p2; or.b32 %y, %t0, %t1;"
    )
    check(text, [32] * 3, 32, lambda a, b, c: combine(a < b, not c > 100) + 2 * combine(not a < b, not c > 100))


def test_predicate_logic() -> None:
    setup = "setp.ne.u32 %p1, %x0, 0; setp.gt.u32 %p2, %x1, 31;"
    for name, f in (("and", lambda p, q: p & q), ("or", lambda p, q: p | q), ("xor", lambda p, q: p ^ q)):
        check(
            f"{setup} {name}.pred %p3, %p1, %p2; selp.u32 %y, 1, 0, %p3;",
            [32] * 2,
            32,
            lambda a, b, f=f: f(int(a != 0), int(b > 31)),
        )
    check(
        f"{setup} not.pred %p3, %p1; mov.pred %p4, %p3; selp.u32 %y, 1, 0, %p4;", [32] * 2, 32, lambda a, b: int(a == 0)
    )
    check("mov.pred %p3, -1; selp.u32 %y, 1, 0, %p3;", [32], 32, lambda a: 1)


def test_packing() -> None:
    check("mov.b32 %y, {%x0, %x1};", [16, 16], 32, lambda a, b: a | b << 16)
    check("mov.b64 %y, {%x0, %x1};", [32, 32], 64, lambda a, b: a | b << 32)
    check("mov.b64 %y, {%x0, %x1, %x2, %x3};", [16] * 4, 64, lambda a, b, c, d: a | b << 16 | c << 32 | d << 48)
    check("mov.b32 {%h0, %y}, %x0;", [32], 16, lambda a: a >> 16)
    check("mov.b64 {%y, _}, %x0;", [64], 32, lambda a: a)
    check("mov.b64 {%h0, %h1, %y, %h2}, %x0;", [64], 16, lambda a: a >> 32)


def test_pairs_of_16_bits() -> None:
    def halves(f: Callable[[int, int], int]) -> Callable[[int, int], int]:
        return lambda a, b: (f(a & 0xFFFF, b & 0xFFFF) & 0xFFFF) | (f(a >> 16, b >> 16) & 0xFFFF) << 16

    check("add.u16x2 %y, %x0, %x1;", [32] * 2, 32, halves(lambda a, b: a + b))
    check("min.u16x2 %y, %x0, %x1;", [32] * 2, 32, halves(min))
    check("max.s16x2 %y, %x0, %x1;", [32] * 2, 32, halves(lambda a, b: max(signed(a, 16), signed(b, 16))))
    for name, f in (("min", min), ("max", max)):
        check(
            f"{name}.s16x2.relu %y, %x0, %x1;",
            [32] * 2,
            32,
            halves(lambda a, b, f=f: max(f(signed(a, 16), signed(b, 16)), 0)),
        )
        check(
            f"{name}.s32.relu %y, %x0, %x1;",
            [32] * 2,
            32,
            lambda a, b, f=f: max(f(signed(a, 32), signed(b, 32)), 0),
        )


def test_special_registers() -> None:
    lanes = run_instruction("mov.u32 %y, %laneid;", [np.zeros(70, np.uint32)])
    assert lanes.tolist() == [i % 32 for i in range(70)]
    for name, f in (
        ("eq", lambda i: 1 << i),
        ("lt", lambda i: (1 << i) - 1),
        ("le", lambda i: (2 << i) - 1),
        ("ge", lambda i: ~((1 << i) - 1)),
        ("gt", lambda i: ~((2 << i) - 1)),
    ):
        masks = run_instruction(f"mov.u32 %y, %lanemask_{name};", [np.zeros(40, np.uint32)])
        assert masks.tolist() == [f(i % 32) & 0xFFFFFFFF for i in range(40)]
    warps = run_instruction("mov.u32 %y, %warpid;", [np.zeros(128, np.uint32)])
    assert warps.tolist() == [i // 32 for i in range(128)]
    assert set(run_instruction("mov.u32 %y, WARP_SZ;", [np.zeros(4, np.uint32)])) == {32}

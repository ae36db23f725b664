"""Forms of instructions that the tests by family do not come to, each against Python.

test_audit.py asks for one of each kind.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from tests.ptxvm import reference as ref
from tests.ptxvm.harness import kernel, observe_instruction
from tests.ptxvm.reference import BF16, E5M2, F16, F32, Format, clamp, signed
from tests.ptxvm.test_float import operands
from tests.ptxvm.test_integer import grid

Words = list[np.ndarray[Any, Any]]
_DTYPE = {16: np.uint16, 32: np.uint32, 64: np.uint64}


@dataclass(frozen=True)
class Form:
    """`text` leaves in %y what `expected` gives of its inputs; %address is where the last of them lies.

    An input is the width of an integer, or a format; two of a format in one register are a pair (Format, Format).
    """

    text: str
    inputs: tuple[int | Format | tuple[Format, Format], ...]
    width: int  #: of the result
    expected: Callable[..., int]
    memory: Callable[..., int] | None = None  #: what the last input's place holds afterwards, if something else
    module: str = ""

    def __str__(self) -> str:
        return self.text


def values_of(form: Form) -> Words:
    """Edge values and random ones, of as many elements as the longest input has."""
    columns: Words = []
    for number, kind in enumerate(form.inputs):
        if isinstance(kind, int):
            columns.append(grid([kind, kind, kind])[number % 3])
        elif isinstance(kind, Format):
            columns.append(operands(kind, 3, seed=4)[number])
        else:
            low, high = (operands(fmt, 3, seed=seed)[number] for fmt, seed in zip(kind, (5, 6), strict=True))
            double = _DTYPE[2 * kind[0].width]
            columns.append(low.astype(double) | high.astype(double) << double(kind[0].width))
    count = min(len(column) for column in columns)
    return [column[:count].copy() for column in columns]


def same(fmt: Format, function: Callable[..., int]) -> Callable[..., int]:
    """The function for both halves of a pair."""
    mask = (1 << fmt.width) - 1
    return lambda *pairs: function(*(p & mask for p in pairs)) | function(*(p >> fmt.width for p in pairs)) << fmt.width


def canonical(fmt: Format, bits: int, result: int) -> int:
    return fmt.nan if fmt.is_nan(bits) else result


def relu(fmt: Format, bits: int) -> int:
    return 0 if bits & fmt.sign and not fmt.is_nan(bits) else bits


def less(fmt: Format, a: int, b: int) -> bool:
    return not (fmt.is_nan(a) or fmt.is_nan(b)) and fmt.value(a) < fmt.value(b)


def least(a: int, b: int) -> int:
    """min.ftz.NaN.xorsign.abs.f32"""
    a, b = F32.flush(a), F32.flush(b)
    result = ref.minimum(F32, a & ~F32.sign, b & ~F32.sign, nan=True)
    return canonical(F32, result, result & ~F32.sign | (a ^ b) & F32.sign)


def nearest_integer(bits: int) -> int:
    """cvt.rni.ftz.u64.f32"""
    value = F32.value(F32.flush(bits))
    if isinstance(value, float):
        return 1 << 63 if math.isnan(value) else (1 << 64) - 1 if value > 0 else 0
    return clamp(ref.round_fraction(value, "rn"), 64, with_sign=False)


def three_words(a: int, b: int, c: int) -> int:
    """The top word of (c, b, a) + (1, 1, 1) with carries, each of 64 bits."""
    return (((c << 128 | b << 64 | a) + (1 << 128 | 1 << 64 | 1)) >> 128) & (1 << 64) - 1


def to_e5m2(bits: int) -> int:
    return E5M2.round(F16.value(bits), negative_zero=bool(bits & F16.sign), finite=True)


def to_e5m2x2(pair: int) -> int:
    return to_e5m2(pair & 0xFFFF) | to_e5m2(pair >> 16) << 8


def to_bf16(bits: int) -> int:
    return relu(BF16, BF16.round(F32.value(bits), negative_zero=bool(bits & F32.sign)))


SELECT = "selp.u32 %y, 1, 0, %p1;"
BOTH = "selp.u32 %y, 1, 0, %p1; selp.u32 %t0, 2, 0, %p2; or.b32 %y, %y, %t0;"
SLOT = "mov.u32 %t0, %tid.x; mov.u32 %t1, slots; mad.lo.u32 %t0, %t0, 8, %t1;"
SLOTS = ".shared .align 8 .b8 slots[1024];"
BIT_2, BIT_3 = (f"and.b64 %u3, %address, {bit}; setp.eq.u64 %p0, %u3, 0;" for bit in (4, 8))
LANE = "{{ .local .align 8 .b64 place; st.local.b64 [place], %x0; {} }}"

FORMS = [
    # integers
    Form(
        "add.cc.u64 %u0, %x0, 1; addc.cc.u64 %u1, %x1, 1; addc.u64 %y, %x2, 1;", (64, 64, 64), 64, three_words
    ),
    Form(
        "setp.gt.u32 %p0, %x0, 7; lop3.and.b32 %t0|%p1, %x0, %x1, %x2, 0xE8, %p0;" + SELECT,
        (32, 32, 32),
        32,
        lambda a, b, c: int((a & b | a & c | b & c) != 0 and a > 7),
    ),
    Form("setp.lo.u32 %p1, %x0, %x1;" + SELECT, (32, 32), 32, lambda a, b: int(a < b)),
    Form("slct.u32.s32 %y, %x0, %x1, %x2;", (32, 32, 32), 32, lambda a, b, c: a if signed(c, 32) >= 0 else b),
    # floating point
    Form("abs.ftz.f32 %y, %x0;", (F32,), 32, lambda a: canonical(F32, a, F32.flush(a) & ~F32.sign)),
    Form("copysign.f32 %y, %x0, %x1;", (F32, F32), 32, lambda a, b: b & ~F32.sign | a & F32.sign),
    Form("mad.rn.f32 %y, %x0, %x1, %x2;", (F32, F32, F32), 32, lambda a, b, c: ref.fma_like(F32, a, b, c, "rn")),
    Form("min.ftz.NaN.xorsign.abs.f32 %y, %x0, %x1;", (F32, F32), 32, least),
    Form("neg.bf16x2 %y, %x0;", ((BF16, BF16),), 32, same(BF16, lambda a: a ^ BF16.sign)),
    Form(
        "add.rn.f32x2 %y, %x0, %x1;", ((F32, F32), (F32, F32)), 64, same(F32, lambda a, b: ref.add(F32, a, b))
    ),
    Form(
        "fma.rn.relu.f16x2 %y, %x0, %x1, %x2;",
        ((F16, F16),) * 3,
        32,
        same(F16, lambda a, b, c: relu(F16, ref.fma_like(F16, a, b, c, "rn"))),
    ),
    Form(
        "slct.ftz.f32.f32 %y, %x0, %x1, %x2;",
        (F32, F32, F32),
        32,
        lambda a, b, c: a if not F32.is_nan(c) and F32.value(F32.flush(c)) >= 0 else b,
    ),
    # comparisons
    Form(
        "set.eq.u32.f32 %y, %x0, %x1;",
        (F32, F32),
        32,
        lambda a, b: 0xFFFFFFFF * (not F32.is_nan(a) and not F32.is_nan(b) and F32.value(a) == F32.value(b)),
    ),
    Form(
        "setp.gt.u32 %p0, %x2, 7; set.lt.and.f32.s32 %y, %x0, %x1, %p0;",
        (32, 32, 32),
        32,
        lambda a, b, c: 0x3F800000 * (signed(a, 32) < signed(b, 32) and c > 7),
    ),
    Form(
        "set.lt.f16x2.f16x2 %y, %x0, %x1;",
        ((F16, F16), (F16, F16)),
        32,
        same(F16, lambda a, b: 0x3C00 * less(F16, a, b)),
    ),
    Form(
        "setp.gtu.ftz.f32 %p1, %x0, %x1;" + SELECT,
        (F32, F32),
        32,
        lambda a, b: int(
            F32.is_nan(a) or F32.is_nan(b) or F32.value(F32.flush(a)) > F32.value(F32.flush(b))
        ),
    ),
    Form(
        "setp.gt.u32 %p3, %x2, 7; setp.lt.and.f32 %p1|%p2, %x0, %x1, %p3;" + BOTH,
        (F32, F32, 32),
        32,
        lambda a, b, c: (less(F32, a, b) and c > 7) + 2 * (not less(F32, a, b) and c > 7),
    ),
    *(
        Form(
            f"setp.lt.{name} %p1|%p2, %x0, %x1;" + BOTH,
            ((fmt, fmt), (fmt, fmt)),
            32,
            lambda a, b, fmt=fmt: less(fmt, a & 0xFFFF, b & 0xFFFF) + 2 * less(fmt, a >> 16, b >> 16),
        )
        for name, fmt in (("f16x2", F16), ("bf16x2", BF16))
    ),
    # conversions
    Form("cvt.rn.relu.bf16.f32 %y, %x0;", (F32,), 16, to_bf16),
    Form("cvt.rn.satfinite.e5m2x2.f16x2 %y, %x0;", ((F16, F16),), 16, to_e5m2x2),
    Form("cvt.rni.ftz.u64.f32 %y, %x0;", (F32,), 64, nearest_integer),
    # memory: what is loaded from, or stored to, the place of the last input
    *(
        Form(f"ld.{kind} %y, [%address];", (width,), width, lambda a: a)
        for kind, width in (("acquire.sys.global.b64", 64), ("b32", 32))
    ),
    Form("ld.global.ca.s8 %y, [%address];", (32,), 32, lambda a: signed(a, 8)),
    Form("ldu.global.u32 %y, [%address];", (32,), 32, lambda a: a),
    *(
        Form(
            f"and.b64 %u0, %address, -16; ld.global.{kind} {{{registers}}}, [%u0]; {pick}",
            (32,),
            32,
            lambda a: a,
        )
        for kind, registers, pick in (
            (
                "nc.L1::no_allocate.L2::128B.v2.b64",
                "%u1, %u2",
                f"{BIT_3} selp.b64 %u1, %u1, %u2, %p0; mov.b64 {{%t0, %t1}}, %u1; {BIT_2} selp.b32 %y, %t0, %t1, %p0;",
            ),
            (
                "v4.f32",
                "%t0, %t1, %t2, %t3",
                f"{BIT_2} selp.b32 %t0, %t0, %t1, %p0; selp.b32 %t2, %t2, %t3, %p0;"
                f"{BIT_3} selp.b32 %y, %t0, %t2, %p0;",
            ),
        )
    ),
    Form("ld.const.b32 %y, [table+4];", (32,), 32, lambda a: 22, module=".const .u32 table[2] = {11, 22};"),
    Form(LANE.format("ld.local.b32 %y, [place+4];"), (64,), 32, lambda a: a >> 32),
    Form(SLOT + "st.shared.b8 [%t0], %x0; ld.shared.u8 %y, [%t0];", (32,), 32, lambda a: a & 255, module=SLOTS),
    Form(SLOT + "st.shared.b32 [%t0], %x0; ld.shared.b16 %y, [%t0+2];", (32,), 16, lambda a: a >> 16, module=SLOTS),
    Form(
        SLOT + "st.volatile.shared.b32 [%t0], %x0; ld.volatile.shared.b32 %y, [%t0];",
        (32,),
        32,
        lambda a: a,
        module=SLOTS,
    ),
    *(
        Form(f"mov.b32 %y, %x1; st.{kind} [%address], %x0;", (32, 32), 32, lambda a, b: b, lambda a, b: a)
        for kind in ("global.cs.f32", "release.gpu.global.b32")
    ),
    # atomics, each with a place of its own
    *(
        Form(f"{opcode} %y, [%address], %x0;", (width, width), width, lambda a, b: b, change)
        for opcode, width, change in (
            ("atom.acq_rel.sys.global.and.b32", 32, lambda a, b: a & b),
            ("atom.relaxed.gpu.global.max.s64", 64, lambda a, b: max(a, b, key=lambda v: signed(v, 64))),
        )
    ),
    Form(
        "atom.add.f32 %y, [%address], %x0;", (F32, F32), 32, lambda a, b: b,
        lambda a, b: F32.flush(ref.add(F32, F32.flush(b), F32.flush(a))),
    ),
    Form(
        "mov.b32 %y, 0; red.relaxed.gpu.global.add.noftz.bf16x2 [%address], %x0;",
        ((BF16, BF16), (BF16, BF16)), 32, lambda a, b: 0, same(BF16, lambda a, b: ref.add(BF16, b, a)),
    ),
    Form(
        SLOT + "st.shared.b32 [%t0], %x0; atom.shared.cas.b32 %t2, [%t0], %x1, %x2; ld.shared.b32 %y, [%t0];",
        (32, 32, 32), 32, lambda a, b, c: c if a == b else a, module=SLOTS,
    ),
    Form(
        SLOT + "st.shared.b32 [%t0], %x0; red.shared.or.b32 [%t0], %x1; ld.shared.b32 %y, [%t0];",
        (32, 32), 32, lambda a, b: a | b, module=SLOTS,
    ),
    # calls
    Form(
        "{ .param .b32 to; .param .b32 r; st.param.b32 [to], %x0; call.uni (r), f, (to); ld.param.b32 %y, [r]; }",
        (32,),
        32,
        lambda a: a + 1,
        module=".func (.param .b32 r) f(.param .b32 x)"
        "{ .reg .b32 %a; ld.param.b32 %a, [x]; add.u32 %a, %a, 1; st.param.b32 [r], %a; ret.uni; }",
    ),
]  # fmt: skip


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_form(form: Form) -> None:
    inputs = values_of(form)
    rows = list(zip(*(column.tolist() for column in inputs), strict=True))
    got, _ = observe_instruction(form.text, inputs, form.width // 8, module=form.module)
    mask = (1 << form.width) - 1
    wrong = [(row, hex(y), hex(form.expected(*row) & mask)) for row, y in zip(rows, got.tolist(), strict=True)
             if y != form.expected(*row) & mask]  # fmt: skip
    assert not wrong, (len(wrong), wrong[:4])
    after = [form.memory(*row) if form.memory else row[-1] for row in rows]
    assert inputs[-1].tolist() == after


#: Advice, and events for a profiler or debugger: of no consequence.
WITHOUT_EFFECT = [
    "pmevent 3;",
    "pmevent.mask 3;",
    "prefetch.L1 [%address];",
    "prefetch.global.L2 [%address];",
    "prefetchu.L1 [%address];",
    "griddepcontrol.wait;",
    "griddepcontrol.launch_dependents;",
    "setmaxnreg.inc.sync.aligned.u32 64;",
    "setmaxnreg.dec.sync.aligned.u32 64;",
    "fence.sc.cta;",
    "membar.proxy.alias;",
]


@pytest.mark.parametrize("text", WITHOUT_EFFECT)
def test_without_effect(text: str) -> None:
    inputs = [np.arange(96, dtype=np.uint32)]
    got, result = observe_instruction(f"mov.b32 %y, %x0; {text}", inputs)
    assert (got == np.arange(96)).all()
    assert (inputs[0] == np.arange(96)).all()
    assert result.counts[text.split()[0].rstrip(";")] == 96


# ---- .approx: within the bounds of the ISA ----


@dataclass(frozen=True)
class Approximation:
    text: str
    function: Callable[..., float]
    fmt: Format
    low: float
    high: float
    operands: int = 1
    relative: float = 0.0
    absolute: float = 0.0

    def __str__(self) -> str:
        return self.text


APPROXIMATIONS = [
    Approximation("cos.approx.ftz.f32", math.cos, F32, -6.2, 6.2, absolute=2**-20.5),
    Approximation("rcp.approx.ftz.f32", lambda x: 1 / x, F32, 1e-3, 1e3, relative=2**-23),
    Approximation("div.full.ftz.f32", lambda x, y: x / y, F32, 1e-3, 1e3, operands=2, relative=2 * 2**-23),
    Approximation("rsqrt.approx.f64", lambda x: x**-0.5, ref.F64, 1e-3, 1e3, relative=2**-22.9),
    Approximation("ex2.approx.f16x2", lambda x: 2.0**x, F16, -10, 10, relative=2**-9.9),
    Approximation("ex2.approx.ftz.bf16", lambda x: 2.0**x, BF16, -10, 10, relative=2**-7),
    Approximation("tanh.approx.f16", math.tanh, F16, -4, 4, absolute=2**-10.987),
]


@pytest.mark.parametrize("case", APPROXIMATIONS, ids=str)
def test_approximation(case: Approximation) -> None:
    paired = case.text.endswith("x2")
    width = case.fmt.width * (2 if paired else 1)
    rng = np.random.default_rng(3)
    inputs = [
        np.array([case.fmt.round(float(x).as_integer_ratio()[0] / ref.Fraction(float(x).as_integer_ratio()[1]))
                  for x in rng.uniform(case.low, case.high, 800)], _DTYPE[case.fmt.width])
        for _ in range(case.operands)
    ]  # fmt: skip
    names = ", ".join(f"%x{k}" for k in range(case.operands))
    given = [column.view(_DTYPE[width]) for column in inputs]
    got = observe_instruction(f"{case.text} %y, {names};", given, width // 8)[0].view(_DTYPE[case.fmt.width])
    for *row, result in zip(*(column.tolist() for column in inputs), got.tolist(), strict=True):
        want = case.function(*(float(case.fmt.fraction(bits)) for bits in row))
        assert abs(float(case.fmt.fraction(result)) - want) <= max(case.relative * abs(want), case.absolute), row


# ---- barriers, copies and vectors, which need more than one thread's registers ----

REGISTERS = """.reg .b64 %a<4>; .reg .b32 %r<8>; .reg .pred %p<4>; .shared .align 16 .b8 s[4096];
    mov.u32 %r0, %tid.x; ld.param.u64 %a0, [out]; mul.wide.u32 %a1, %r0, 16; add.s64 %a1, %a0, %a1;
    mov.u32 %r1, s; mad.lo.u32 %r2, %r0, 16, %r1;"""


def run(body: str, machine: Any, memory: np.ndarray[Any, Any], threads: int = 64) -> None:
    text = kernel(f"{REGISTERS} {body} ret;", ".param .u64 out")
    result = machine.load(text).launch("k", 1, threads, [memory])
    assert not result.findings, result.findings


def test_arrival(machine: Any) -> None:
    """The first warp announces its words, for which the second waits, and goes on."""
    memory = np.zeros((64, 4), np.uint32)
    run(
        """setp.ge.u32 %p0, %r0, 32; @%p0 bra WAIT;
        st.shared.u32 [%r2], %r0; barrier.cta.arrive 1, 64; bra END;
        WAIT: barrier.cta.sync 1, 64; ld.shared.u32 %r3, [%r2+-512]; st.global.u32 [%a1], %r3;
        END:""",
        machine,
        memory,
    )
    assert memory[:, 0].tolist() == [0] * 32 + list(range(32))


@pytest.mark.parametrize("limit", [0, 40, 64])
def test_reduction_by_or(machine: Any, limit: int) -> None:
    memory = np.zeros((64, 4), np.uint32)
    run(
        f"""setp.gt.u32 %p0, %r0, {limit}; barrier.cta.red.or.pred %p1, 0, %p0;
        selp.u32 %r3, 1, 2, %p1; st.global.u32 [%a1], %r3;""",
        machine,
        memory,
    )
    assert set(memory[:, 0].tolist()) == {1 if limit < 63 else 2}


def test_copy_with_fewer_source_bytes(machine: Any) -> None:
    """Four of eight bytes come from the source, the others are zero."""
    memory = np.random.default_rng(0).integers(1, 2**32, (64, 4), np.uint32)
    before = memory.copy()
    run(
        """cp.async.ca.shared.global.L2::128B [%r2], [%a1], 8, 4; cp.async.wait_all;
        ld.shared.u32 %r3, [%r2]; ld.shared.u32 %r4, [%r2+4];
        st.global.u32 [%a1+8], %r3; st.global.u32 [%a1+12], %r4;""",
        machine,
        memory,
    )
    assert (memory[:, 2] == before[:, 0]).all()
    assert not memory[:, 3].any()


def test_pair_of_doubles(machine: Any) -> None:
    memory = np.zeros((64, 2), np.float64)
    run(
        """.reg .f64 %d<2>; cvt.rn.f64.u32 %d0, %r0; neg.f64 %d1, %d0; st.global.v2.f64 [%a1], {%d1, %d0};""",
        machine,
        memory,
    )
    assert (memory == np.arange(64)[:, None] * [-1.0, 1.0]).all()

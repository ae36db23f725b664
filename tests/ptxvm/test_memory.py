"""Loads, stores, state spaces, parameters, variables and atomics."""

from __future__ import annotations

import ctypes
import itertools
import struct

import numpy as np
import pytest

from flopcuda import ptx
from tests.ptxvm import reference as ref
from tests.ptxvm.harness import kernel, run_instruction

_DTYPE = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
INDEX = "mov.u32 %i, %tid.x;"


def launch(
    machine: ptx.Machine,
    body: str,
    parameters: str,
    args: list,
    block: int = 32,
    grid: int = 1,
    module: str = "",
    shared: int = 0,
) -> ptx.LaunchResult:
    return machine.load(kernel(body, parameters, module=module)).launch("k", grid, block, args, shared_bytes=shared)


@pytest.mark.parametrize("size", [1, 2, 4, 8])
@pytest.mark.parametrize("space", ["global", ""])
@pytest.mark.usefixtures("lane_instruction_set")
def test_widths(machine: ptx.Machine, size: int, space: str) -> None:
    """Every width into every register that holds it, zero- and sign-extended, and back."""
    dot = f".{space}" if space else ""
    rng = np.random.default_rng(size)
    source = rng.integers(0, 256, 64 * size, dtype=np.uint8).view(_DTYPE[size])
    for kind, register in itertools.product("us", (2, 4, 8)):
        if register < size:
            continue
        out = np.zeros(64, _DTYPE[register])
        back = np.zeros(64, _DTYPE[size])
        body = f"""
            .reg .b64 %a<5>; .reg .b32 %i; .reg .b{8 * register} %v;
            {INDEX}
            ld.param.u64 %a0, [src]; ld.param.u64 %a1, [dst]; ld.param.u64 %a2, [back];
            mul.wide.u32 %a3, %i, {size}; add.s64 %a0, %a0, %a3; add.s64 %a2, %a2, %a3;
            mul.wide.u32 %a3, %i, {register}; add.s64 %a1, %a1, %a3;
            ld{dot}.{kind}{8 * size} %v, [%a0];
            st{dot}.b{8 * register} [%a1], %v;
            st{dot}.b{8 * size} [%a2], %v;
            ret;"""
        result = launch(
            machine, body, ".param .u64 src, .param .u64 dst, .param .u64 back", [source, out, back], block=64
        )
        assert not result.findings
        want = source.view(f"i{size}").astype(f"i{register}").view(_DTYPE[register]) if kind == "s" else source
        assert (out == want).all()
        assert (back == source).all()


@pytest.mark.parametrize(("count", "size"), [(2, 1), (4, 1), (2, 2), (4, 2), (2, 4), (4, 4), (2, 8), (4, 8), (8, 4)])
@pytest.mark.parametrize("space", ["global", "shared"])
@pytest.mark.usefixtures("lane_instruction_set")
def test_vectors(machine: ptx.Machine, count: int, size: int, space: str) -> None:
    """Vectors, whole and of odd lanes only, with a permutation of the lanes on the way out."""
    register = max(size, 2)
    values = ", ".join(f"%v{k}" for k in range(count))
    back = ", ".join(f"%v{k}" for k in reversed(range(count)))
    bits = 8 * size
    through = (
        ""
        if space == "global"
        else f"""
        mov.u32 %s, buffer; mad.lo.u32 %s, %i, {count * size}, %s;
        st.shared.v{count}.b{bits} [%s], {{{values}}};
        bar.sync 0;
        ld.shared.v{count}.b{bits} {{{values}}}, [%s];"""
    )
    body = f"""
        .reg .b64 %a<4>; .reg .b32 %i, %j, %s; .reg .b{8 * register} %v<{count}>; .reg .pred %p;
        {INDEX}
        ld.param.u64 %a0, [src]; ld.param.u64 %a1, [dst];
        mul.wide.u32 %a2, %i, {size * count}; add.s64 %a0, %a0, %a2;
        xor.b32 %j, %i, 5; mul.wide.u32 %a2, %j, {size * count}; add.s64 %a1, %a1, %a2;
        ld.global.v{count}.b{bits} {{{values}}}, [%a0];
        {through}
        and.b32 %j, %i, 1; setp.eq.u32 %p, %j, 1;
        @%p st.global.v{count}.b{bits} [%a1], {{{back}}};
        @!%p st.global.v{count}.b{bits} [%a1], {{{values}}};
        ret;"""
    module = f".shared .align 32 .b8 buffer[{64 * count * size}];"
    source = np.random.default_rng(1).integers(0, 256, (64, count * size), dtype=np.uint8)
    out = np.zeros_like(source)
    memory = np.zeros(source.nbytes * 2 + 64, np.uint8)  # 32-byte vectors need 32-byte alignment
    start = -memory.ctypes.data % 32
    aligned = memory[start : start + source.nbytes]
    aligned[:] = source.ravel()
    target = memory[start + source.nbytes : start + 2 * source.nbytes]
    result = launch(machine, body, ".param .u64 src, .param .u64 dst", [aligned, target], block=64, module=module)
    assert not result.findings, result.findings
    out = target.reshape(64, count, size)
    want = source.reshape(64, count, size)
    for i in range(64):
        expected = want[i][::-1] if i % 2 else want[i]
        assert (out[i ^ 5] == expected).all()


def test_sinks_in_vectors(machine: ptx.Machine) -> None:
    body = """
        .reg .b64 %a<3>; .reg .b32 %v<2>;
        ld.param.u64 %a0, [src]; ld.param.u64 %a1, [dst];
        ld.global.v4.u32 {_, %v0, _, %v1}, [%a0];
        st.global.v2.u32 [%a1], {%v0, %v1};
        ret;"""
    source = np.array([1, 2, 3, 4] * 2, np.uint32)
    start = (-source.ctypes.data % 16) // 4
    out = np.zeros(2, np.uint32)
    assert not launch(machine, body, ".param .u64 src, .param .u64 dst", [source[start:], out], block=1).findings
    assert out.tolist() == [source[start + 1], source[start + 3]]


def test_parameters_of_every_kind(machine: ptx.Machine) -> None:
    """Scalars, and a structure by value that is read at constant and at computed offsets, plainly and generically."""
    body = """
        .reg .b64 %a<8>; .reg .b32 %r<8>; .reg .f32 %f; .reg .f64 %d; .reg .b16 %h;
        ld.param.u64 %a0, [out];
        ld.param.u8 %h, [byte]; cvt.u32.u16 %r0, %h; st.global.u32 [%a0], %r0;
        ld.param.s16 %r1, [word]; st.global.s32 [%a0+4], %r1;
        ld.param.f32 %f, [single]; st.global.f32 [%a0+8], %f;
        ld.param.f64 %d, [double]; st.global.f64 [%a0+16], %d;
        ld.param.v2.u32 {%r2, %r3}, [record+8]; add.u32 %r2, %r2, %r3; st.global.u32 [%a0+12], %r2;
        mov.b64 %a1, record;
        mov.u32 %r4, %tid.x; mul.wide.u32 %a2, %r4, 4; add.s64 %a3, %a1, %a2;
        ld.param.u32 %r5, [%a3+16]; add.s64 %a4, %a0, %a2; st.global.u32 [%a4+32], %r5;
        cvta.param.u64 %a5, %a1; add.s64 %a6, %a5, %a2;
        ld.u32 %r6, [%a6+16]; st.global.u32 [%a4+64], %r6;
        ret;"""
    parameters = (
        ".param .u64 out, .param .u8 byte, .param .s16 word, .param .f32 single, .param .f64 double, "
        ".param .align 16 .b8 record[48]"
    )
    record = bytes(range(48))
    out = np.zeros(128, np.uint8)
    result = launch(machine, body, parameters, [out, 200, -3, 1.5, -2.25, record], block=8)
    assert not result.findings
    words = np.frombuffer(record, np.uint32)
    assert out.view(np.uint32)[0] == 200
    assert out.view(np.int32)[1] == -3
    assert out.view(np.float32)[2] == 1.5
    assert out.view(np.float64)[2] == -2.25
    assert out.view(np.uint32)[3] == (int(words[2]) + int(words[3])) & 0xFFFFFFFF
    assert (out.view(np.uint32)[8:16] == words[4:12]).all()
    assert (out.view(np.uint32)[16:24] == words[4:12]).all()


def test_ctypes_structure_and_numpy_scalars(machine: ptx.Machine) -> None:
    class Pair(ctypes.Structure):
        _fields_ = [("first", ctypes.c_int32), ("second", ctypes.c_double)]

    body = """
        .reg .b64 %a; .reg .f64 %d<2>; .reg .b32 %r; .reg .f32 %f;
        ld.param.u64 %a, [out]; ld.param.s32 %r, [pair]; ld.param.f64 %d0, [pair+8]; ld.param.f32 %f, [x];
        cvt.rn.f64.s32 %d1, %r; add.f64 %d0, %d0, %d1; cvt.f64.f32 %d1, %f; add.f64 %d0, %d0, %d1;
        st.global.f64 [%a], %d0; ret;"""
    out = np.zeros(1)
    launch(
        machine,
        body,
        ".param .u64 out, .param .align 8 .b8 pair[16], .param .f32 x",
        [out, Pair(3, 0.5), np.float32(8)],
        block=1,
    )
    assert out[0] == 11.5


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "arguments are needed"),
        ([1, 2, 3], "arguments are needed"),
        ([1 << 40, b"12345678"], "does not fit"),
        ([1.5, b"12345678"], "needed"),
        ([1, b"123"], "has 3 bytes"),
        (["x", b"12345678"], "number is needed"),
        ([1, 7], "structure of 8 bytes"),
    ],
)
def test_arguments_that_do_not_fit(machine: ptx.Machine, args: list, message: str) -> None:
    module = machine.load(kernel("ret;", ".param .u32 a, .param .align 4 .b8 b[8]"))
    with pytest.raises(ptx.PtxError, match=message):
        module.launch("k", 1, 1, args)


@pytest.mark.parametrize(
    ("grid", "block", "shared", "message"),
    [
        (0, 1, 0, "grid"),
        (1, 0, 0, "block"),
        (1, 1025, 0, "1024"),
        (1, (32, 32, 2), 0, "1024"),
        ((1, 1, 1, 1), 1, 0, "grid"),
        (1, 1, 1 << 20, "228"),
        (1, 1, -1, "negative"),
        (2**31, 1, 0, "grid"),
    ],
)
def test_launches_out_of_range(machine: ptx.Machine, grid: object, block: object, shared: int, message: str) -> None:
    module = machine.load(kernel("ret;"))
    with pytest.raises(ptx.PtxError, match=message):
        module.launch("k", grid, block, shared_bytes=shared)  # type: ignore[arg-type]


VARIABLES = """
.const .align 4 .f32 table[4] = {0f3F800000, 2.0, -0.5, 1.0};
.global .align 4 .u32 counters[3] = {10, 0x14};
.global .align 8 .u64 pointer = generic(counters)+4;
.global .align 1 .b8 text[4] = {65, 66, 67};
.global .align 8 .u64 code = helper;
.func helper() { ret; }
"""


def test_module_variables(machine: ptx.Machine) -> None:
    body = """
        .reg .b64 %a<5>; .reg .b32 %r<6>; .reg .f32 %f<2>;
        ld.param.u64 %a0, [out];
        mov.u64 %a1, table; ld.const.f32 %f0, [%a1+4]; st.global.f32 [%a0], %f0;
        ld.const.f32 %f1, [table+8]; st.global.f32 [%a0+4], %f1;
        ld.global.u64 %a2, [pointer]; ld.u32 %r0, [%a2]; st.global.u32 [%a0+8], %r0;
        ld.global.u8 %r1, [text+2]; st.global.u32 [%a0+12], %r1;
        atom.global.add.u32 %r2, [counters+8], 7;
        ret;"""
    module = machine.load(kernel(body, ".param .u64 out", module=VARIABLES))
    out = np.zeros(4, np.uint32)
    for _ in range(2):
        assert not module.launch("k", 1, 1, [out]).findings
    assert out.view(np.float32)[:2].tolist() == [2.0, -0.5]
    assert out[2:].tolist() == [20, 67]
    # Variables keep their values from launch to launch and are open to the caller.
    assert module.variable("counters").view(np.uint32).tolist() == [10, 20, 14]
    module.variable("text")[2] = 90
    module.launch("k", 1, 1, [out])
    assert out[3] == 90
    with pytest.raises(KeyError):
        module.variable("nothing")


def test_constant_memory_is_read_only(machine: ptx.Machine) -> None:
    result = launch(
        machine,
        ".reg .b64 %a; mov.u64 %a, table; cvta.const.u64 %a, %a; st.u32 [%a], 1; ret;",
        "",
        [],
        block=1,
        module=VARIABLES,
    )
    assert [f.kind for f in result.findings] == ["bounds"]
    assert "read-only" in result.findings[0].message


def test_generic_addresses_of_all_spaces(machine: ptx.Machine) -> None:
    """One generic load whose lanes point to global, shared, local and parameter memory."""
    body = """
        .local .align 4 .b8 frame[8]; .shared .align 4 .b8 common[64];
        .reg .b64 %a<10>; .reg .b32 %r<8>; .reg .pred %p<8>;
        mov.u32 %r0, %tid.x; and.b32 %r1, %r0, 3;
        ld.param.u64 %a0, [out]; ld.param.u64 %a1, [src];
        mov.u64 %a2, frame; cvta.local.u64 %a3, %a2; st.u32 [%a3], 300;
        mov.u32 %r2, common; cvt.u64.u32 %a4, %r2; cvta.shared.u64 %a5, %a4;
        setp.eq.u32 %p0, %r0, 0; @%p0 st.shared.u32 [common], 200; bar.sync 0;
        mov.b64 %a6, src; cvta.param.u64 %a7, %a6;
        setp.eq.u32 %p1, %r1, 1; selp.b64 %a8, %a5, %a1, %p1;
        setp.eq.u32 %p2, %r1, 2; selp.b64 %a8, %a3, %a8, %p2;
        setp.eq.u32 %p3, %r1, 3; selp.b64 %a8, %a7, %a8, %p3;
        ld.u32 %r3, [%a8];
        isspacep.shared %p4, %a8; isspacep.local %p5, %a8; isspacep.global %p6, %a8;
        selp.u32 %r4, 1000, 0, %p4; add.u32 %r3, %r3, %r4;
        selp.u32 %r4, 2000, 0, %p5; add.u32 %r3, %r3, %r4;
        selp.u32 %r4, 4000, 0, %p6; add.u32 %r3, %r3, %r4;
        mul.wide.u32 %a9, %r0, 4; add.s64 %a9, %a0, %a9; st.u32 [%a9], %r3;
        ret;"""
    out, source = np.zeros(32, np.uint32), np.array([100], np.uint32)
    result = launch(machine, body, ".param .u64 out, .param .u64 src", [out, source])
    assert not result.findings
    low = source.ctypes.data & 0xFFFFFFFF
    assert out.tolist() == [4100, 1200, 2300, low] * 8


def test_dynamic_shared_memory_follows_static(machine: ptx.Machine) -> None:
    body = """
        .shared .align 4 .b8 own[12];
        .reg .b64 %a; .reg .b32 %r<4>;
        ld.param.u64 %a, [out]; mov.u32 %r0, dynamic; mov.u32 %r1, own;
        st.global.u32 [%a], %r0; st.global.u32 [%a+4], %r1;
        mov.u32 %r2, %dynamic_smem_size; st.global.u32 [%a+8], %r2;
        st.shared.u32 [%r0+60], 5; ld.shared.u32 %r3, [dynamic+60]; st.global.u32 [%a+12], %r3;
        ret;"""
    out = np.zeros(4, np.uint32)
    module = ".extern .shared .align 16 .b8 dynamic[];"
    assert not launch(machine, body, ".param .u64 out", [out], block=1, module=module, shared=64).findings
    assert out.tolist() == [16, 0, 64, 5]


@pytest.mark.parametrize(
    ("written", "read", "defined"),
    [
        ("u32 [own]", "u32 {a}, [own]", True),
        ("u8 [own+2]", "u32 {a}, [own]", True),  # a structure's member among padding
        ("u32 [own+4]", "u32 {a}, [own]", False),
        ("v2.u32 [own]", "v2.u32 {{{a}, {b}}}, [own]", True),
        ("u32 [own]", "v2.u32 {{{a}, {b}}}, [own]", False),
        ("u8 [own+7]", "v4.u16 {{{c}, {c}, {c}, {c}}}, [own]", False),
    ],
)
def test_local_memory_that_was_not_written(machine: ptx.Machine, written: str, read: str, defined: bool) -> None:
    value = "{%a, %a}" if "v2" in written else "%c" if "u8" in written else "%a"
    body = f"""
        .local .align 16 .b8 own[16]; .reg .b32 %a, %b; .reg .b16 %c;
        mov.b32 %a, 7; mov.b16 %c, 7;
        st.local.{written}, {value};
        ld.local.{read.format(a="%a", b="%b", c="%c")};
        ret;"""
    result = launch(machine, body, "", [], block=3)
    assert [(f.kind, f.count) for f in result.findings] == ([] if defined else [("uninitialised", 3)])


@pytest.mark.parametrize("dynamic", [0, 40])
def test_reserved_shared_memory(machine: ptx.Machine, dynamic: int) -> None:
    """It lies beyond the kernel's own, whole, and holds what is put into it."""
    names = ["begin", "0", "1", "end", "cap"]
    offsets = "".join(
        f"mov.u32 %r, %reserved_smem_offset_{n}; st.global.u32 [%a+{4 * k}], %r;" for k, n in enumerate(names)
    )
    body = f"""
        .shared .align 4 .b8 own[52];
        .reg .b64 %a; .reg .b32 %r, %begin, %end;
        ld.param.u64 %a, [out]; {offsets}
        mov.u32 %r, %total_smem_size; st.global.u32 [%a+20], %r;
        mov.u32 %begin, %reserved_smem_offset_begin; mov.u32 %end, %reserved_smem_offset_end;
        st.shared.u32 [%begin], 17; st.shared.u32 [%end+-4], 18; st.shared.u32 [own+48], 19;
        ld.shared.u32 %r, [%begin]; st.global.u32 [%a+24], %r;
        ld.shared.u32 %r, [%end+-4]; st.global.u32 [%a+28], %r;
        ret;"""
    out = np.zeros(8, np.uint32)
    module = ".extern .shared .align 4 .b8 more[];"
    result = launch(machine, body, ".param .u64 out", [out], block=1, module=module, shared=dynamic)
    assert not result.findings, result.findings
    begin, first, second, end, size, total, low, high = out.tolist()
    assert 52 + dynamic <= total < 52 + dynamic + 16  # which may be aligned
    assert total <= begin <= first < second < end == begin + size
    assert (low, high) == (17, 18)


def test_local_memory_is_each_threads_own(machine: ptx.Machine) -> None:
    body = """
        .local .align 8 .b8 frame[64];
        .reg .b64 %a<4>; .reg .b32 %r<6>; .reg .pred %p;
        mov.u32 %r0, %tid.x; mov.u64 %a0, frame; mov.u32 %r1, 0;
        LOOP: mul.wide.u32 %a1, %r1, 4; add.s64 %a1, %a0, %a1; mad.lo.u32 %r2, %r0, 100, %r1; st.local.u32 [%a1], %r2;
        add.u32 %r1, %r1, 1; setp.lt.u32 %p, %r1, 16; @%p bra LOOP;
        and.b32 %r3, %r0, 15; mul.wide.u32 %a1, %r3, 4; add.s64 %a1, %a0, %a1; ld.local.u32 %r4, [%a1];
        ld.param.u64 %a2, [out]; mul.wide.u32 %a3, %r0, 4; add.s64 %a2, %a2, %a3; st.global.u32 [%a2], %r4; ret;"""
    out = np.zeros(96, np.uint32)
    assert not launch(machine, body, ".param .u64 out", [out], block=96).findings
    assert out.tolist() == [100 * i + i % 16 for i in range(96)]


# ---- atomics ----

_ATOMIC = {
    "add": lambda old, b, w, s: old + b,
    "min": lambda old, b, w, s: min(old, b),
    "max": lambda old, b, w, s: max(old, b),
    "and": lambda old, b, w, s: old & b,
    "or": lambda old, b, w, s: old | b,
    "xor": lambda old, b, w, s: old ^ b,
    "exch": lambda old, b, w, s: b,
    "inc": lambda old, b, w, s: 0 if old >= b else old + 1,
    "dec": lambda old, b, w, s: b if old == 0 or old > b else old - 1,
}
_ATOMIC_TYPES = [
    (name, t)
    for name, types in {
        "add": ["u32", "s32", "u64"],
        "min": ["u32", "s32", "u64", "s64"],
        "max": ["u32", "s32", "u64", "s64"],
        "and": ["b32", "b64"],
        "or": ["b32", "b64"],
        "xor": ["b32", "b64"],
        "exch": ["b32", "b64"],
        "inc": ["u32"],
        "dec": ["u32"],
    }.items()
    for t in types
]


def atomic_body(instruction: str, size: int) -> str:
    """Thread 0 to 31 in turn apply their operand to one place and keep what was there."""
    bits = 8 * size
    return f"""
        .reg .b64 %a<5>; .reg .b32 %i; .reg .b{bits} %b, %c, %d;
        {INDEX} ld.param.u64 %a0, [place]; ld.param.u64 %a1, [operand]; ld.param.u64 %a2, [old];
        mul.wide.u32 %a3, %i, {size}; add.s64 %a1, %a1, %a3; add.s64 %a2, %a2, %a3;
        ld.global.b{bits} %b, [%a1]; mov.b{bits} %c, %b;
        {instruction}
        st.global.b{bits} [%a2], %d; ret;"""


ATOMIC_PARAMETERS = ".param .u64 place, .param .u64 operand, .param .u64 old"


@pytest.mark.parametrize(("name", "type_name"), _ATOMIC_TYPES)
@pytest.mark.parametrize("space", ["global", ""])
def test_integer_atomics(machine: ptx.Machine, name: str, type_name: str, space: str) -> None:
    size = int(type_name[1:]) // 8
    width, with_sign = 8 * size, type_name[0] == "s"
    rng = np.random.default_rng(3)
    operands = rng.integers(0, 2**64, 32, dtype=np.uint64).astype(_DTYPE[size])
    if name in ("inc", "dec"):
        operands = rng.integers(0, 6, 32).astype(np.uint32)
    place, old = np.array([4], _DTYPE[size]), np.zeros(32, _DTYPE[size])
    dot = f".{space}" if space else ""
    body = atomic_body(f"atom{dot}.{name}.{type_name} %d, [%a0], %b;", size)
    assert not launch(machine, body, ATOMIC_PARAMETERS, [place, operands, old]).findings
    value = 4
    for i, operand in enumerate(operands.tolist()):
        assert old[i] == value & ((1 << width) - 1)
        interpret = (lambda v: ref.signed(v, width)) if with_sign else (lambda v: v)
        value = _ATOMIC[name](interpret(value), interpret(operand), width, with_sign) & ((1 << width) - 1)
    assert place[0] == value


@pytest.mark.parametrize("size", [2, 4, 8])
def test_compare_and_swap(machine: ptx.Machine, size: int) -> None:
    body = atomic_body(f"add.u{8 * size} %c, %b, 1; atom.global.cas.b{8 * size} %d, [%a0], %b, %c;", size)
    place, operands, old = np.zeros(1, _DTYPE[size]), np.arange(32, dtype=_DTYPE[size]), np.zeros(32, _DTYPE[size])
    assert not launch(machine, body, ATOMIC_PARAMETERS, [place, operands, old]).findings
    assert place[0] == 32  # every thread finds its own number
    assert (old == operands).all()


@pytest.mark.parametrize(
    ("type_name", "fmt", "size"),
    [
        ("f32", ref.F32, 4),
        ("f64", ref.F64, 8),
        ("noftz.f16", ref.F16, 2),
        ("noftz.bf16", ref.BF16, 2),
        ("noftz.f16x2", ref.F16, 4),
        ("noftz.bf16x2", ref.BF16, 4),
    ],
)
def test_float_atomics(machine: ptx.Machine, type_name: str, fmt: ref.Format, size: int) -> None:
    rng = np.random.default_rng(4)
    operands = np.array([fmt.round(ref.Fraction(int(v), 97)) for v in rng.integers(-500, 500, 32)], np.uint64)
    pair = type_name.endswith("x2")
    operands = (operands | operands[::-1] << np.uint64(16) if pair else operands).astype(_DTYPE[size])
    place, old = np.zeros(1, _DTYPE[size]), np.zeros(32, _DTYPE[size])
    body = atomic_body(f"atom.global.add.{type_name} %d, [%a0], %b;", size)
    assert not launch(machine, body, ATOMIC_PARAMETERS, [place, operands, old]).findings
    value = 0
    for i, operand in enumerate(operands.tolist()):
        assert old[i] == value
        if pair:
            value = ref.add(fmt, value & 0xFFFF, operand & 0xFFFF) | ref.add(fmt, value >> 16, operand >> 16) << 16
        else:
            value = ref.add(fmt, value, operand)
    assert place[0] == value


@pytest.mark.parametrize("opcode", ["atom.global", "atom.relaxed.gpu.global", "atom", "red.global"])
@pytest.mark.parametrize(
    ("type_name", "fmt", "size", "count"),
    [
        ("v2.f32", ref.F32, 4, 2),
        ("v4.f32", ref.F32, 4, 4),
        ("noftz.v8.f16", ref.F16, 2, 8),
        ("noftz.v2.bf16", ref.BF16, 2, 2),
        ("noftz.v4.f16x2", ref.F16, 4, 4),
    ],
)
def test_vector_atomics(
    machine: ptx.Machine, opcode: str, type_name: str, fmt: ref.Format, size: int, count: int
) -> None:
    """Lane after lane adds a vector to one place; 5 of the lanes to another, which is out of bounds."""
    halves = count * size * 8 // fmt.width
    rng = np.random.default_rng(4)
    operands = np.array([fmt.round(ref.Fraction(int(v), 97)) for v in rng.integers(-500, 500, 32 * halves)])
    operands = operands.reshape(32, halves).astype(_DTYPE[fmt.width // 8])
    memory = np.zeros((4, halves), operands.dtype)
    place = memory[-memory.ctypes.data % 16 // memory[0].nbytes :][:1]  # vectors lie on multiples of their size
    old = np.full_like(operands, 1)
    source = operands.view(_DTYPE[size])
    b = ", ".join(f"%b{k}" for k in range(count))
    d = ", ".join(f"%d{k}" for k in range(count))
    result_operand = "" if opcode.startswith("red") else f"{{{d}}}, "
    copy = [f"ld.global.b{8 * size} %b{k}, [%a1+{size * k}];" for k in range(count)]
    keep = [f"st.global.b{8 * size} [%a2+{size * k}], %d{k};" for k in range(count)] if result_operand else []
    body = f"""
        .reg .b64 %a<5>; .reg .b32 %i; .reg .b{8 * size} %b<8>, %d<8>; .reg .pred %p;
        {INDEX} ld.param.u64 %a0, [place]; ld.param.u64 %a1, [operand]; ld.param.u64 %a2, [old];
        mul.wide.u32 %a3, %i, {size * count}; add.s64 %a1, %a1, %a3; add.s64 %a2, %a2, %a3;
        setp.ge.u32 %p, %i, 27; @%p add.s64 %a0, %a0, {1 << 20};
        {" ".join(copy)}
        {opcode}.add.{type_name} {result_operand}[%a0], {{{b}}};
        {" ".join(keep)}
        ret;"""
    result = launch(machine, body, ATOMIC_PARAMETERS, [place, source, old])
    assert [(f.kind, f.count) for f in result.findings] == [("bounds", 5)]
    value = [0] * halves
    for i, operand in enumerate(operands.tolist()):
        if keep:
            assert old[i].tolist() == (value if i < 27 else [0] * halves)
        if i < 27:
            value = [ref.add(fmt, x, y) for x, y in zip(value, operand, strict=True)]
    assert place[0].tolist() == value


@pytest.mark.parametrize(
    "text",
    [
        "atom.shared.add.v2.f32 {%f, %f}, [%a], {%f, %f};",
        "red.global.add.v8.f32 [%a], {%f, %f, %f, %f, %f, %f, %f, %f};",
        "atom.global.exch.v2.b32 {%f, %f}, [%a], {%f, %f};",
        "atom.global.add.v2.f32 %f, [%a], {%f, %f};",
        "red.global.add.v4.f32 [%a], {%f, %f};",
    ],
)
def test_vector_atomics_that_are_none(machine: ptx.Machine, text: str) -> None:
    with pytest.raises(ptx.PtxError):
        machine.load(kernel(f".reg .f32 %f; .reg .b64 %a; {text} ret;"))


def test_float_atomics_flush_in_global_memory_only(machine: ptx.Machine) -> None:
    tiny = np.array([3], np.uint32)
    body = """
        .shared .align 4 .b8 s[4]; .reg .b64 %a; .reg .f32 %f<2>;
        ld.param.u64 %a, [place]; ld.global.f32 %f0, [%a]; st.shared.f32 [s], %f0;
        atom.shared.add.f32 %f1, [s], %f0; ld.shared.f32 %f1, [s]; st.global.f32 [%a+4], %f1;
        red.global.add.f32 [%a], %f0; ret;"""
    place = np.concatenate([tiny, tiny])
    launch(machine, body, ".param .u64 place", [place], block=1)
    assert place.tolist() == [0, 6]


def test_atomics_across_blocks() -> None:
    """Integer sums do not depend on the blocks' order, whatever the number of host threads."""
    body = """
        .reg .b64 %a<2>; .reg .b32 %r<4>;
        ld.param.u64 %a0, [total]; mov.u32 %r0, %tid.x; mov.u32 %r1, %ctaid.x; mad.lo.u32 %r2, %r1, 64, %r0;
        cvt.u64.u32 %a1, %r2; red.global.add.u64 [%a0], %a1; ret;"""
    for threads in (1, 2, 4):
        total = np.zeros(1, np.uint64)
        machine = ptx.Machine(threads=threads, seed=threads)
        assert not launch(machine, body, ".param .u64 total", [total], block=64, grid=500).findings
        assert total[0] == sum(range(64 * 500))


def test_shared_atomics(machine: ptx.Machine) -> None:
    body = """
        .shared .align 4 .b8 s[4]; .reg .b64 %a; .reg .b32 %r<3>; .reg .pred %p;
        mov.u32 %r0, %tid.x; setp.eq.u32 %p, %r0, 0; @%p st.shared.u32 [s], 0; bar.sync 0;
        red.shared.add.u32 [s], %r0; bar.sync 0;
        ld.param.u64 %a, [out]; ld.shared.u32 %r1, [s]; @%p st.global.u32 [%a], %r1; ret;"""
    out = np.zeros(1, np.uint32)
    assert not launch(machine, body, ".param .u64 out", [out], block=256).findings
    assert out[0] == sum(range(256))


def test_generic_accesses_are_counted_by_where_they_lead(machine: ptx.Machine) -> None:
    """A third of the lanes each in shared, global and local memory, at one instruction."""
    body = """
        .shared .align 8 .b8 words[256]; .local .align 8 .b8 own[8];
        .reg .b64 %a<4>; .reg .b32 %i, %r, %s; .reg .pred %p;
        mov.u32 %i, %tid.x;
        ld.param.u64 %a0, [data]; mul.wide.u32 %a1, %i, 8; add.s64 %a0, %a0, %a1;
        mov.u64 %a2, words; cvta.shared.u64 %a2, %a2; add.s64 %a2, %a2, %a1;
        mov.u64 %a3, own; cvta.local.u64 %a3, %a3;
        rem.u32 %r, %i, 3;
        setp.eq.u32 %p, %r, 0; selp.b64 %a1, %a0, %a2, %p;
        setp.eq.u32 %p, %r, 1; selp.b64 %a1, %a3, %a1, %p;
        st.u32 [%a1], %i;
        ret;"""
    data = np.zeros((32, 2), np.uint32)
    result = launch(machine, body, ".param .u64 data", [data])
    assert not result.findings, result.findings
    lanes = [[lane for lane in range(32) if lane % 3 == k] for k in range(3)]
    sectors = {(data.ctypes.data + 8 * lane) // 32 for lane in lanes[0]}
    banks = [2 * lane % 32 for lane in lanes[2]]
    wavefronts = max(banks.count(bank) for bank in banks)
    seen = {row.space: (row.lanes, row.requests, row.units, row.ideal) for row in result.rows if row.name == "st.u32"}
    assert seen == {
        "global": (len(lanes[0]), 1, len(sectors), -(-4 * len(lanes[0]) // 32)),
        "shared": (len(lanes[2]), 1, wavefronts, 1),
        "": (len(lanes[1]), 0, 0, 0),
    }
    assert result.counts["st.u32"] == 32
    assert result.global_memory.units == len(sectors)


# ---- cp.async ----


@pytest.mark.parametrize("stride", [4, 8, 128])
def test_cp_async_is_counted_at_both_ends(machine: ptx.Machine, stride: int) -> None:
    body = f"""
        .shared .align 16 .b8 words[4096];
        .reg .b64 %a<2>; .reg .b32 %i, %s;
        mov.u32 %i, %tid.x;
        ld.param.u64 %a0, [data]; mul.wide.u32 %a1, %i, 4; add.s64 %a0, %a0, %a1;
        mov.u32 %s, words; mad.lo.u32 %s, %i, {stride}, %s;
        cp.async.ca.shared.global [%s], [%a0], 4;
        cp.async.wait_all;
        ret;"""
    data = np.zeros(32, np.uint32)
    result = launch(machine, body, ".param .u64 data", [data])
    assert not result.findings
    ways = stride // 4
    assert result.global_memory.units == len({(data.ctypes.data + 4 * lane) // 32 for lane in range(32)})
    assert (result.shared_memory.units, result.shared_memory.conflicts) == (ways, ways - 1)
    assert result.counts["cp.async.ca.shared.global"] == 32


@pytest.mark.parametrize(("size", "modifier"), [(4, "ca"), (8, "ca"), (16, "ca"), (16, "cg.shared.global.L2::128B")])
def test_cp_async(machine: ptx.Machine, size: int, modifier: str) -> None:
    """Groups land in order; a short source is filled with zeros."""
    name = modifier if "." in modifier else f"{modifier}.shared.global"
    body = f"""
        .shared .align 16 .b8 s[{32 * size * 2}]; .reg .b64 %a<4>; .reg .b32 %r<8>; .reg .pred %p;
        {INDEX.replace("%i", "%r0")} ld.param.u64 %a0, [src]; ld.param.u64 %a1, [dst];
        mul.wide.u32 %a2, %r0, {size}; add.s64 %a0, %a0, %a2; add.s64 %a1, %a1, %a2;
        mov.u32 %r1, s; mad.lo.u32 %r1, %r0, {size}, %r1;
        cp.async.{name} [%r1], [%a0], {size};
        cp.async.commit_group;
        and.b32 %r2, %r0, 1; setp.eq.u32 %p, %r2, 0; selp.u32 %r3, {size}, 0, %p;
        cp.async.{name} [%r1+{32 * size}], [%a0], {size}, %r3;
        cp.async.commit_group;
        cp.async.wait_group 1;
        ld.shared.u32 %r4, [%r1]; st.global.u32 [%a1], %r4;
        cp.async.wait_all;
        ld.shared.u32 %r5, [%r1+{32 * size}]; st.global.u32 [%a1+{32 * size}], %r5;
        ret;"""
    memory = np.zeros(32 * size + 16, np.uint8)
    start = -memory.ctypes.data % 16
    source = memory[start : start + 32 * size]
    source[:] = np.random.default_rng(0).integers(0, 256, 32 * size)
    out = np.zeros(64 * size, np.uint8)
    result = launch(machine, body, ".param .u64 src, .param .u64 dst", [source, out])
    assert not result.findings, result.findings
    words = out.view(np.uint32)[:: size // 4]
    want = source.view(np.uint32)[:: size // 4]
    assert (words[:32] == want).all()
    assert (words[32:] == np.where(np.arange(32) % 2 == 0, want, 0)).all()


def copy(machine: ptx.Machine, text: str) -> tuple[np.ndarray, np.ndarray, ptx.LaunchResult]:
    """Source and output of a kernel that copies by way of shared memory, 64 bytes for each of 32 threads.

    In `text` %a0 is a thread's place in the source, %s in shared memory, %a1 in the output; %r0 is its number.
    """
    memory = np.zeros(32 * 64 + 16, np.uint8)
    source = memory[-memory.ctypes.data % 16 :][: 32 * 64].reshape(32, 64)
    source[:] = np.random.default_rng(1).integers(1, 256, source.shape)
    out = np.zeros((32, 64), np.uint8)
    body = f"""
        .shared .align 16 .b8 s[2048]; .reg .b64 %a<4>; .reg .b32 %r<8>, %s; .reg .pred %p<4>;
        mov.u32 %r0, %tid.x; mov.u32 %s, s; mad.lo.u32 %s, %r0, 64, %s;
        ld.param.u64 %a0, [src]; mad.wide.u32 %a0, %r0, 64, %a0;
        ld.param.u64 %a1, [dst]; mad.wide.u32 %a1, %r0, 64, %a1;
        {text} ret;"""
    return source, out, launch(machine, body, ".param .u64 src, .param .u64 dst", [source, out])


def take_out(words: range, guard: str = "") -> str:
    return "".join(f"{guard} ld.shared.u32 %r6, [%s+{4 * k}]; {guard} st.global.u32 [%a1+{4 * k}], %r6;" for k in words)


GROUPS = "".join(
    f"cp.async.ca.shared.global [%s+{16 * k}], [%a0+{16 * k}], 16; cp.async.commit_group;" for k in range(4)
) + ("and.b32 %r2, %r0, 1; setp.ne.u32 %p0, %r2, 0; @%p0 cp.async.commit_group;")


@pytest.mark.parametrize("pending", range(6))
def test_groups_of_cp_async(machine: ptx.Machine, pending: int) -> None:
    """All of a thread's groups but the last `pending` have landed; odd threads have an empty one behind the four."""
    even, odd = (max(0, min(4, groups - pending)) for groups in (4, 5))
    reads = take_out(range(4 * even)) + take_out(range(4 * even, 4 * odd), "@%p0")
    source, out, result = copy(machine, f"{GROUPS} cp.async.wait_group {pending}; {reads} cp.async.wait_all;")
    assert not result.findings, result.findings
    for slots, parity in ((even, 0), (odd, 1)):
        assert (out[parity::2, : 16 * slots] == source[parity::2, : 16 * slots]).all()


@pytest.mark.parametrize("pending", range(1, 5))
def test_groups_of_cp_async_that_nobody_waited_for(machine: ptx.Machine, pending: int) -> None:
    first = 4 * (4 - pending)
    _, _, result = copy(machine, f"{GROUPS} cp.async.wait_group {pending}; {take_out(range(first, first + 1))}")
    races = [finding for finding in result.findings if finding.kind == "race"]
    assert races
    assert all(finding.thread[0] % 2 == 0 for finding in races)  # for odd threads this group has landed


@pytest.mark.parametrize(("size", "cache"), [(4, "ca"), (8, "ca"), (16, "ca"), (16, "cg")])
@pytest.mark.parametrize("short", ["%r1", "%p0", "!%p0"])
def test_zeros_of_cp_async(machine: ptx.Machine, size: int, cache: str, short: str) -> None:
    """Behind a shorter source, whose size is the thread's own, or in place of an ignored one."""
    text = f"""
        rem.u32 %r1, %r0, {size + 1}; and.b32 %r2, %r0, 1; setp.ne.u32 %p0, %r2, 0;
        cp.async.{cache}.shared.global [%s], [%a0], {size}, {short}; cp.async.wait_all; {take_out(range(size // 4))}"""
    source, out, result = copy(machine, text)
    assert not result.findings, result.findings
    for thread in range(32):
        kept = {"%r1": thread % (size + 1), "%p0": size * (thread % 2 == 0), "!%p0": size * (thread % 2)}[short]
        assert out[thread, :size].tolist() == [*source[thread, :kept], *[0] * (size - kept)]


def test_tensors_without_a_copy(machine: ptx.Machine) -> None:
    torch = pytest.importorskip("torch")
    x = torch.arange(12, dtype=torch.int32).reshape(3, 4)[:, 1:3]
    body = """
        .reg .b64 %a; .reg .b32 %r;
        ld.param.u64 %a, [x]; ld.global.u32 %r, [%a+16]; add.u32 %r, %r, 100; st.global.u32 [%a+16], %r; ret;"""
    assert not launch(machine, body, ".param .u64 x", [x], block=1).findings
    assert x[1, 0] == 105


def test_registered_memory(machine: ptx.Machine) -> None:
    inner = np.array([7], np.uint32)
    body = ".reg .b64 %a; .reg .b32 %r; ld.param.u64 %a, [s+8]; atom.global.add.u32 %r, [%a], 1; ret;"
    argument = struct.pack("<QQ", 0, machine.register(inner, "inner"))
    parameters = ".param .align 8 .b8 s[16]"
    assert not launch(machine, body, parameters, [argument], block=32).findings
    assert inner[0] == 39
    machine.unregister(inner)
    assert launch(machine, body, parameters, [argument], block=32).findings
    with pytest.raises(KeyError):
        machine.unregister(inner)
    with pytest.raises(TypeError):
        machine.register([1, 2])


def test_clock_goes_forward() -> None:
    zero = [np.zeros(32, np.uint32)]
    ticks = run_instruction("mov.u64 %u0, %clock64; mov.u64 %u1, %globaltimer; sub.u64 %y, %u1, %u0;", zero, 8)
    assert (ticks > 0).all()

"""Each check fires on a kernel with its defect planted, says where exactly, and is silent on the sound twin."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from flopcuda import ptx
from tests.ptxvm.defects import Expected, build, check_findings, in_every_order, run
from tests.ptxvm.harness import compile_cuda, kernel, kinds, needs_nvcc

# ---- global memory out of bounds: the address comes from outside; good ones make the sound twin ----

#: What a thread does to %d1; the bytes it touches.
GLOBAL_ACCESSES = {
    "ld.global.u8 %r1, [%d1];": 1,
    "ld.global.v4.u32 {%r1, %r2, %r3, %r4}, [%d1];": 16,
    "ld.u32 %r1, [%d1];": 4,
    "ld.volatile.global.u64 %d2, [%d1];": 8,
    "st.global.u32 [%d1], %tid;": 4,
    "st.global.v2.u64 [%d1], {%i4, %i4};": 16,
    "st.u16 [%d1], %h0;": 2,
    "atom.global.add.u32 %r1, [%d1], 1;": 4,
    "atom.exch.b64 %d2, [%d1], %i4;": 8,
    "red.global.max.u32 [%d1], 5;": 4,
}
GUARDED_BY = 37  # the thread of the block that goes wrong


class Arena:
    """Two arrays with a gap between them, and bytes around them that nobody may touch."""

    def __init__(self) -> None:
        self.memory = np.full(1024, 0xA5, np.uint8)
        start = -self.memory.ctypes.data % 64 + 128
        self.first = self.memory[start : start + 128]
        self.second = self.memory[start + 192 : start + 320]
        self.args = [self.first, self.second]
        self.untouched = np.ones(1024, bool)
        for begin in (start, start + 192):
            self.untouched[begin : begin + 128] = False

    def address(self, place: str, size: int) -> int:
        begin = self.first.ctypes.data
        return {
            "past the end": begin + 128,
            "before the beginning": begin - size,
            "between two allocations": begin + 144,
            "null": 0,
            "far away": 1 << 47,
            "non-canonical": (1 << 64) - size,
            "last element": begin + 128 - size,
            "first element": begin,
        }[place]

    def assert_intact(self) -> None:
        assert (self.memory[self.untouched] == 0xA5).all()


def global_kernel(access: str) -> str:
    return build(
        f"""
        ld.param.u64 %d0, [x]; ld.param.u64 %d1, [place]; setp.eq.u32 %p0, %tid, {GUARDED_BY};
        and.b32 %r20, %tid, 7; mul.wide.u32 %d3, %r20, 16; add.s64 %d3, %d0, %d3;
        mov.b16 %h0, 3; selp.b64 %d1, %d1, %d3, %p0;
        {access} // access
        ret;""",
        ".param .u64 x, .param .u64 y, .param .u64 place",
    )


@pytest.mark.parametrize("access", GLOBAL_ACCESSES)
@pytest.mark.parametrize(
    "place", ["past the end", "before the beginning", "between two allocations", "null", "far away", "non-canonical"]
)
def test_global_out_of_bounds(access: str, place: str) -> None:
    arena, size = Arena(), GLOBAL_ACCESSES[access]
    address = arena.address(place, size)
    text = global_kernel(access)
    verb = "reads" if access.startswith("ld") else "writes" if access.startswith("st") else "updates"
    expected = Expected("bounds", "access", 2, GUARDED_BY, address, message=f"{verb} {size} bytes at {address:#x}, ")
    check_findings(text, [expected], [*arena.args, address], grid=2)
    arena.assert_intact()


@pytest.mark.parametrize("access", GLOBAL_ACCESSES)
@pytest.mark.parametrize("place", ["first element", "last element"])
def test_global_in_bounds(access: str, place: str) -> None:
    arena = Arena()
    check_findings(
        global_kernel(access), [], [*arena.args, arena.address(place, GLOBAL_ACCESSES[access])], grid=2, block=64
    )
    arena.assert_intact()


def test_an_access_that_straddles_the_end() -> None:
    """Half of it is inside; it is left out whole."""
    arena = Arena()
    address = arena.first.ctypes.data + 112 + 8
    short = [arena.first[:120], arena.second, address - 8]
    text = global_kernel("st.global.v4.u32 [%d1], {%tid, %tid, %tid, %tid};")
    arena.first[:] = 0
    check_findings(
        text.replace("and.b32 %r20, %tid, 7;", "and.b32 %r20, %tid, 3;"),
        [Expected("bounds", "access", 1, GUARDED_BY, address - 8, message="at the end of argument 0 (120 bytes)")],
        short,
    )
    assert not arena.first[112:].any()


def test_messages_say_how_far_off() -> None:
    arena = Arena()
    text = global_kernel("ld.global.u32 %r1, [%d1];")
    begin = arena.first.ctypes.data
    for address, where in [
        (begin + 128, "0 bytes after argument 0 (128 bytes)"),
        (begin - 4, "4 bytes before argument 0 (128 bytes)"),
        (begin + 188, "4 bytes before argument 1 (128 bytes)"),
    ]:
        [finding] = run(text, [*arena.args, address]).findings
        assert finding.message == f"reads 4 bytes at {address:#x}, {where}"
    machine = ptx.Machine()
    nothing = build("mov.u64 %d1, 64; st.global.u32 [%d1], 1; ret;")
    [finding] = machine.load(nothing).launch("k", 1, 1).findings
    assert finding.message == "writes 4 bytes at 0x40, no allocation is registered"


def test_a_bad_load_gives_zero_and_the_other_lanes_their_value() -> None:
    x, out = np.arange(1, 65, dtype=np.uint32), np.full(64, 99, np.uint32)
    text = build(
        """
        ld.param.u64 %d0, [x]; ld.param.u64 %d1, [out]; add.s64 %d1, %d1, %i4;
        add.s64 %d0, %d0, %i4; add.s64 %d0, %d0, 32; mov.u32 %r1, 7;
        ld.global.u32 %r1, [%d0]; // load
        st.global.u32 [%d1], %r1; ret;""",
        ".param .u64 x, .param .u64 out",
    )
    expected = Expected("bounds", "load", 8, 56, x.ctypes.data + 256)
    check_findings(text, [expected], [x, out])
    assert out.tolist() == [*range(9, 65), *[0] * 8]


def test_unregistered_memory() -> None:
    array = np.zeros(4, np.uint32)
    text = build("ld.param.u64 %d0, [place];\nst.global.u32 [%d0], %tid; // store\nret;", ".param .u64 place")
    machine = ptx.Machine(threads=1)
    module, address = machine.load(text), machine.register(array, "array")
    assert not module.launch("k", 1, 1, [address]).findings
    machine.unregister(array)
    array[:] = 5
    [finding] = module.launch("k", 1, 32, [address]).findings
    Expected("bounds", "store", 32, 0, address).check(finding, text)
    assert array.tolist() == [5] * 4


# ---- read-only memory ----

CONSTANTS = ".const .align 4 .u32 table[4] = {1, 2, 3, 4};"


@pytest.mark.parametrize("access", ["st.u32 [%d0], 9;", "atom.add.u32 %r1, [%d0], 1;", "red.or.b32 [%d0], 8;"])
def test_constant_memory_is_read_only(access: str) -> None:
    body = "cvta.const.u64 %d0, table;\n{access} // access\nret;"
    text = build(body.format(access=access), module=CONSTANTS)
    module = ptx.Machine(threads=1).load(text)
    before = bytes(module.variable("table"))
    [finding] = module.launch("k", 1, 64).findings
    address = module.variable("table").ctypes.data
    Expected("bounds", "access", 64, 0, address, message="in read-only memory of table").check(finding, text)
    assert bytes(module.variable("table")) == before == struct.pack("<4I", 1, 2, 3, 4)
    check_findings(build(body.format(access="ld.u32 %r1, [%d0];"), module=CONSTANTS), [])


@pytest.mark.parametrize("access", ["st.global.u32 [%d0], 9;", "atom.global.add.u32 %r1, [%d0], 1;"])
def test_arrays_that_are_not_writeable(access: str) -> None:
    text = build(f"ld.param.u64 %d0, [x];\n{access} // access\nret;", ".param .u64 x")
    array = np.zeros(4, np.uint32)
    check_findings(text, [], [array])
    array[:] = 7
    array.flags.writeable = False
    expected = Expected("bounds", "access", 64, 0, array.ctypes.data, message="in read-only memory of argument 0")
    check_findings(text, [expected], [array])
    assert array.tolist() == [7] * 4
    # The same memory may also be known as writeable, as part of another array.
    whole = np.zeros(8, np.uint32)
    part = whole[2:6]
    part.flags.writeable = False
    check_findings(text, [], [part], register=[whole])


# ---- one address of 64 threads is bad, in the other state spaces; and misaligned ones ----


@dataclass(frozen=True)
class Twins:
    """A kernel whose one thread uses an offset that is bad in one twin, good in the other."""

    access: str  #: at %r1 or %d1, which are the space's base and the offset
    bad: int
    good: int
    kind: str
    base: str = "mov.u32 %r2, s;"
    module: str = ".shared .align 16 .b8 s[64];"
    shared_bytes: int = 0
    size: int = 4
    more: dict[str, Any] = field(default_factory=dict)

    def text(self, offset: int) -> str:
        return build(
            f"""
            .local .align 16 .b8 frame[32]; .reg .b64 %zero;
            mov.u64 %zero, 0; st.local.v2.u64 [frame], {{%zero, %zero}}; st.local.v2.u64 [frame+16], {{%zero, %zero}};
            mov.u32 %r1, s; mov.u32 %r3, 0;
            setp.lt.u32 %p1, %tid, 16; mad.lo.u32 %r4, %tid, 4, %r1; @%p1 st.shared.u32 [%r4], %r3; bar.sync 0;
            setp.eq.u32 %p0, %tid, {GUARDED_BY}; selp.u32 %r5, {offset & 0xFFFFFFFF}, 0, %p0; cvt.s64.s32 %d5, %r5;
            {self.base}
            {self.access} // access
            ret;""",
            ".param .align 8 .b8 parameters[16]",
            self.module,
        )


NARROW = "mov.u32 %r1, s; add.u32 %r1, %r1, %r5;"
GENERIC_SHARED = "mov.u32 %r1, s; cvt.u64.u32 %d1, %r1; cvta.shared.u64 %d1, %d1; add.s64 %d1, %d1, %d5;"
LOCAL = "mov.u64 %d1, frame; add.s64 %d1, %d1, %d5;"
GENERIC_LOCAL = "cvta.local.u64 %d1, frame; add.s64 %d1, %d1, %d5;"
PARAMETER = "mov.b64 %d1, parameters; add.s64 %d1, %d1, %d5;"
GENERIC_PARAMETER = "mov.b64 %d1, parameters; cvta.param.u64 %d1, %d1; add.s64 %d1, %d1, %d5;"

SPACES = {
    "shared read past the end": Twins("ld.shared.u32 %r6, [%r1];", 64, 60, "bounds", NARROW),
    "shared read before the beginning": Twins("ld.shared.u32 %r6, [%r1];", -4, 0, "bounds", NARROW),
    "shared vector past the end": Twins("ld.shared.v2.u32 {%r6, %r7}, [%r1];", 64, 56, "bounds", NARROW),
    "shared write": Twins("st.shared.u8 [%r1], %r5;", 64, 63, "bounds", NARROW),
    "shared atomic": Twins("atom.shared.add.u32 %r6, [%r1], 1;", 64, 60, "bounds", NARROW),
    "generic shared read": Twins("ld.u32 %r6, [%d1];", 64, 60, "bounds", GENERIC_SHARED),
    "generic shared write": Twins("st.u16 [%d1], %h1;", 64, 62, "bounds", GENERIC_SHARED),
    "local read past the end": Twins("ld.local.u32 %r6, [%d1];", 32, 28, "bounds", LOCAL),
    "local write before the beginning": Twins("st.local.u64 [%d1], %d5;", -8, 0, "bounds", LOCAL),
    "generic local write": Twins("st.v4.u32 [%d1], {%r5, %r5, %r5, %r5};", 32, 16, "bounds", GENERIC_LOCAL),
    "parameter past the end": Twins("ld.param.u32 %r6, [%d1];", 16, 12, "bounds", PARAMETER),
    "generic parameter": Twins("ld.u64 %d6, [%d1];", 16, 8, "bounds", GENERIC_PARAMETER),
    "shared u16": Twins("ld.shared.u16 %h1, [%r1];", 3, 2, "alignment", NARROW),
    "shared u32": Twins("st.shared.u32 [%r1], %r5;", 2, 4, "alignment", NARROW),
    "shared u64": Twins("ld.shared.u64 %d6, [%r1];", 4, 8, "alignment", NARROW),
    "shared v2": Twins("ld.shared.v2.u16 {%h1, %h2}, [%r1];", 2, 4, "alignment", NARROW),
    "shared v4": Twins("st.shared.v4.u32 [%r1], {%r5, %r5, %r5, %r5};", 8, 16, "alignment", NARROW),
    "shared atomic u64": Twins("atom.shared.add.u64 %d6, [%r1], %d5;", 4, 8, "alignment", NARROW),
    "generic shared": Twins("ld.u32 %r6, [%d1];", 1, 4, "alignment", GENERIC_SHARED),
    "local u32": Twins("ld.local.u32 %r6, [%d1];", 2, 4, "alignment", LOCAL),
    "local v2": Twins("st.local.v2.u64 [%d1], {%d5, %d5};", 8, 16, "alignment", LOCAL),
    "parameter u64": Twins("ld.param.u64 %d6, [%d1];", 4, 8, "alignment", PARAMETER),
    "generic parameter u16": Twins("ld.u16 %h1, [%d1];", 1, 2, "alignment", GENERIC_PARAMETER),
}


@pytest.mark.parametrize("name", SPACES)
def test_state_spaces(name: str) -> None:
    """Out of bounds and misaligned in shared, local and parameter memory, with plain and with generic addresses."""
    twins = SPACES[name]
    races_aside = [check for check in ptx.CHECKS if check != "race"]  # all threads but one use the same address
    args = [bytes(16)]
    check_findings(twins.text(twins.good), [], args, checks=races_aside)
    address = twins.bad & (0xFFFFFFFF if twins.base == NARROW else 2**64 - 1)
    expected = Expected(twins.kind, "access", 1, GUARDED_BY, address)
    check_findings(twins.text(twins.bad), [expected], args, checks=races_aside)


def test_global_misaligned() -> None:
    """In global and constant memory: plain, vector, atomic, and what cp.async copies."""
    x = np.zeros(64, np.uint64)
    begin = x.ctypes.data + 256 - x.ctypes.data % 16
    for access, size in [*GLOBAL_ACCESSES.items(), ("ld.global.nc.f64 %d2, [%d1];", 8)]:
        text = global_kernel(access)
        check_findings(text, [], [x, x, begin])
        for offset in {1, size // 2} - {0}:
            expected = Expected("alignment", "access", 1, GUARDED_BY, begin + offset, message="which is misaligned")
            check_findings(text, [expected] if offset % size else [], [x, x, begin + offset])
    module = ".const .align 8 .b8 table[32];"
    text = build("mov.u64 %d1, table;\nld.const.u64 %d2, [%d1+4]; // access\nret;", module=module)
    machine = ptx.Machine(threads=1).load(text)
    [finding] = machine.launch("k", 1, 32).findings
    Expected("alignment", "access", 32, 0, machine.variable("table").ctypes.data + 4).check(finding, text)


def test_constant_memory_past_the_end() -> None:
    text = build("\nld.const.u32 %r1, [table+16]; // access\nret;", module=CONSTANTS)
    module = ptx.Machine(threads=1).load(text)
    [finding] = module.launch("k", 1, 32).findings
    Expected("bounds", "access", 32, 0, module.variable("table").ctypes.data + 16).check(finding, text)
    check_findings(text.replace("table+16", "table+12"), [])


@pytest.mark.parametrize(
    ("offset", "kind"), [(4, "alignment"), (12, "bounds"), (16, "bounds"), (1 << 40, "bounds"), (-8, "bounds"), (8, "")]
)
def test_parameters_by_name(offset: int, kind: str) -> None:
    """Kernel parameters at a constant offset go another way in the machine than those at a computed one."""
    text = build(f"ld.param.u64 %d1, [p+{offset}]; // access\nret;", ".param .align 8 .b8 p[16]")
    expected = [Expected(kind, "access", 64, 0, offset & (2**64 - 1))] if kind else []
    check_findings(text, expected, [bytes(16)])


@pytest.mark.parametrize(
    ("source", "target", "kind", "bad_source"),
    [(4, 0, "alignment", True), (0, 8, "alignment", False), (512, 0, "bounds", True), (0, 512, "bounds", False)],
)
def test_asynchronous_copies(source: int, target: int, kind: str, bad_source: bool) -> None:
    text = build(
        """
        .shared .align 16 .b8 s[512]; ld.param.u64 %d0, [x]; mov.u32 %r1, s;
        ld.param.u32 %r2, [from]; ld.param.u32 %r3, [to]; setp.eq.u32 %p0, %tid, 7;
        selp.u32 %r2, %r2, 0, %p0; selp.u32 %r3, %r3, 0, %p0;
        mad.lo.u32 %r1, %tid, 16, %r1; add.u32 %r1, %r1, %r3;
        mul.wide.u32 %d1, %tid, 16; add.s64 %d0, %d0, %d1; cvt.u64.u32 %d2, %r2; add.s64 %d0, %d0, %d2;
        cp.async.cg.shared.global [%r1], [%d0], 16; // copy
        cp.async.wait_all; ret;""",
        ".param .u64 x, .param .u32 from, .param .u32 to",
    )
    memory = np.zeros(528, np.uint8)
    x = memory[-memory.ctypes.data % 16 :][:512]
    check_findings(text, [], [x, 0, 0], block=32)
    address = x.ctypes.data + 112 + source if bad_source else 112 + target
    check_findings(text, [Expected(kind, "copy", 1, 7, address)], [x, source, target], block=32)


def test_matrix_rows() -> None:
    """ldmatrix: one row out of bounds; the others are loaded."""
    text = build(
        """
        .shared .align 16 .b8 s[512]; mov.u32 %r1, s; mad.lo.u32 %r1, %tid, 16, %r1;
        st.shared.v4.u32 [%r1], {%tid, %tid, %tid, %tid}; bar.warp.sync -1; ld.param.u32 %r2, [offset];
        setp.eq.u32 %p0, %tid, 9; @%p0 add.u32 %r1, %r1, %r2;
        ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r4, %r5, %r6, %r7}, [%r1]; // load
        ld.param.u64 %d0, [out]; add.s64 %d0, %d0, %i4; st.global.u32 [%d0], %r5; ret;""",
        ".param .u64 out, .param .u32 offset",
    )
    out = np.full(32, 99, np.uint32)
    check_findings(text, [], [out, 0], block=32)
    assert out.reshape(8, 4)[:, 0].tolist() == list(range(8, 16))
    for offset, kind in [(512, "bounds"), (8, "alignment")]:
        check_findings(text, [Expected(kind, "load", 1, 9, 144 + offset)], [out, offset], block=32)
        assert out.reshape(8, 4)[:, 0].tolist() == [8, 0, *range(10, 16)]


# ---- memory that nobody wrote ----

UNWRITTEN = {
    "whole word": ("", "ld.shared.u32 %r1, [s];", 0),
    "another word": ("st.shared.u32 [s], 1;", "ld.shared.u32 %r1, [s+4];", 4),
    "half of a vector": ("st.shared.u32 [s], 1;", "ld.shared.v2.u32 {%r1, %r2}, [s];", 4),
    "second half": ("st.shared.u16 [s], 1;", "ld.shared.v2.u16 {%h1, %h2}, [s];", 2),
    "hole in a vector": (
        "st.shared.v2.u32 [s], {1, 1}; st.shared.u32 [s+12], 1;",
        "ld.shared.v4.u32 {%r1, %r2, %r3, %r4}, [s];",
        8,
    ),
    "atomic": ("", "atom.shared.add.u32 %r1, [s], 1;", 0),
    "reduction": ("", "red.shared.or.b32 [s+4], 1;", 4),
    "generic": ("", "mov.u32 %r5, s; cvt.u64.u32 %d1, %r5; cvta.shared.u64 %d1, %d1; ld.u32 %r1, [%d1];", 0),
    "strong": ("", "ld.relaxed.cta.shared.u32 %r1, [s];", 0),
}


@pytest.mark.parametrize("name", UNWRITTEN)
def test_uninitialised_shared_memory(name: str) -> None:
    write, read, address = UNWRITTEN[name]

    def text(more: str) -> str:
        return build(
            f"""
            .shared .align 16 .b8 s[16]; setp.eq.u32 %p0, %tid, 0; @!%p0 bra READ;
            {more} {write}
            READ: bar.sync 0;
            {read} // read
            ret;"""
        )

    expected = Expected("uninitialised", "read", 64, 0, address, message=f"at {address:#x} that nobody wrote")
    check_findings(text(""), [expected])
    check_findings(text("st.shared.v4.u32 [s], {0, 0, 0, 0};"), [])


def test_what_an_atomic_leaves_behind() -> None:
    """Adding to nothing gives nothing; exchanging gives a value."""
    body = ".shared .align 4 .b8 s[4];\n{0} // first\nbar.sync 0;\nld.shared.u32 %r2, [s]; // second\nret;"
    first, second = (Expected("uninitialised", mark, 64) for mark in ("first", "second"))
    check_findings(build(body.format("red.shared.add.u32 [s], 1;")), [first, second])
    [finding] = run(build(body.format("atom.shared.exch.b32 %r1, [s], 1;"))).findings
    assert finding.kind == "uninitialised"
    assert "// first" in finding.text


def test_copies_initialise_when_they_land() -> None:
    body = """
        .shared .align 4 .b8 s[256]; ld.param.u64 %d0, [x]; add.s64 %d0, %d0, %i4;
        mov.u32 %r1, s; mad.lo.u32 %r1, %tid, 4, %r1;
        cp.async.ca.shared.global [%r1], [%d0], 4;
        cp.async.wait_all;
        ld.shared.u32 %r2, [%r1]; ret;"""
    x = np.zeros(64, np.uint32)
    check_findings(build(body, ".param .u64 x"), [], [x])


LOCAL_UNWRITTEN = {
    "whole word": ("", "ld.local.u32 %r1, [frame];", 0),
    "half of a vector": ("st.local.u64 [frame], %i4;", "ld.local.v2.u64 {%d1, %d2}, [frame];", 8),
    "one byte": ("st.local.v2.u32 [frame], {1, 1};", "ld.local.u64 %d1, [frame+8];", 8),
    "generic": ("", "cvta.local.u64 %d1, frame; ld.u32 %r1, [%d1];", 0),
}


@pytest.mark.parametrize("name", LOCAL_UNWRITTEN)
def test_uninitialised_local_memory(name: str) -> None:
    write, read, address = LOCAL_UNWRITTEN[name]

    def text(more: str) -> str:
        return build(
            f"""
            .local .align 16 .b8 frame[16]; setp.ge.u32 %p0, %tid, 8; @%p0 bra READ;
            st.local.v4.u32 [frame], {{0, 0, 0, 0}};
            READ: {more} {write}
            {read} // read
            ret;"""
        )

    expected = Expected("uninitialised", "read", 56, 8, address, message="that it did not write")
    check_findings(text(""), [expected])
    check_findings(text("st.local.v4.u32 [frame], {0, 0, 0, 0};"), [])


def test_local_memory_of_a_call_starts_unwritten() -> None:
    """A second call finds no trace of the first one's variables."""
    callee = """
    .func touch(.param .u32 write) {
        .local .align 4 .b8 own[4]; .reg .b32 %r<3>; .reg .pred %p;
        ld.param.u32 %r0, [write]; setp.ne.u32 %p, %r0, 0; @%p st.local.u32 [own], %r0;
        ld.local.u32 %r1, [own]; // read
        ret; }"""
    call = "{{ .param .u32 a; st.param.u32 [a], {0}; call touch, (a); }}\n"
    check_findings(build(call.format(1) + call.format(2) + "ret;", module=callee), [])
    text = build(call.format(1) + call.format(0) + "ret;", module=callee)
    [finding] = in_every_order(text)
    assert (finding.kind, finding.kernel, finding.function) == ("uninitialised", "k", "touch")
    assert (finding.count, finding.thread, finding.text.endswith("// read")) == (64, (0, 0, 0), True)


# ---- barriers of the block ----

NOT_THERE = "is not at the barrier that other lanes of its warp execute"
EXITED = "exited without coming to a barrier of the whole block"
COUNTS = "at a barrier where others give another"
WARPS_APART = "setp.eq.u32 %p0, %warp, 0; @%p0 bra A; {0} bra DONE; A: {1} DONE: ret;"

BARRIERS = {
    "half a warp": (
        "setp.lt.u32 %p0, %lane, 16;\n@%p0 bar.sync 0; // bar\nmov.u32 %r1, 0; ret;",
        [Expected("barrier", "bar", 32, 16, message=EXITED)],
    ),
    "two barriers in one warp": (
        "setp.lt.u32 %p0, %lane, 16; @%p0 bra A;\nbar.sync 0; // else\nbra DONE; A:\nbar.sync 0; // then\nDONE: ret;",
        [Expected("barrier", "else", 32, 0, message=NOT_THERE), Expected("barrier", "then", 32, 16, message=NOT_THERE)],
    ),
    "a whole warp": (
        "setp.eq.u32 %p0, %warp, 0;\n@%p0 bar.sync 0; // bar\nret;",
        [Expected("barrier", "bar", 32, 32, message=EXITED)],
    ),
    "an early return": (
        "setp.ge.u32 %p0, %tid, 48; @%p0 exit;\nbar.sync 0; // bar\nret;",
        [Expected("barrier", "bar", 16, 48, message=EXITED)],
    ),
    "an iteration that some skip": (
        """mov.u32 %r1, 0; L: add.u32 %r1, %r1, 1; setp.lt.u32 %p0, %r1, 4; setp.lt.or.u32 %p0, %tid, 40, %p0;
        @%p0 bar.sync 0; // bar
        setp.lt.u32 %p1, %r1, 4; @%p1 bra L; ret;""",
        [Expected("barrier", "bar", 24, 40, message=EXITED)],
    ),
    "two counts": (
        WARPS_APART.format("\nbar.sync 3, 96; // more\n", "\nbar.sync 3, 64; // all\n"),
        [Expected("barrier", "more", 32, 32, message=COUNTS), Expected("barrier", "all", 32, 0, message=COUNTS)],
    ),
    "no such barrier": (
        "mov.u32 %r1, 16;\nbar.sync %r1; // bar\nret;",
        [Expected("barrier", "bar", 64, address=16, message="over 15")],
    ),
    "a count that is no warp's": (
        "mov.u32 %r1, 48;\nbar.sync 1, %r1; // bar\nret;",
        [Expected("barrier", "bar", 64, address=1, message="multiple of the warp size")],
    ),
    "lanes that name different barriers": (
        "bar.sync %lane; // bar\nret;",
        [Expected("barrier", "bar", 64, message="different barrier numbers")],
    ),
}
SOUND_BARRIERS = {
    "all threads": "bar.sync 0; bar.sync 0; ret;",
    "whole warps at two places": WARPS_APART.format("bar.sync 0;", "bar.sync 0;"),
    "a count of all threads, and none": WARPS_APART.format("bar.sync 0, 64;", "bar.sync 0;"),
    "producer and consumer": WARPS_APART.format("bar.arrive 1, 64;", "bar.sync 1, 64;"),
    "named, of one warp each": "bar.sync %warp, 32; add.u32 %r1, %warp, 4; bar.sync %r1, 32; ret;",
    "exit before a barrier that is not aligned": "setp.ge.u32 %p0, %tid, 48; @%p0 exit; barrier.sync 0; ret;",
    "a loop": "mov.u32 %r1, 0; L: bar.sync 0; add.u32 %r1, %r1, 1; setp.lt.u32 %p0, %r1, 5; @%p0 bra L; ret;",
}


@pytest.mark.parametrize("name", BARRIERS)
def test_barriers(name: str) -> None:
    body, expected = BARRIERS[name]
    check_findings(build(body), expected)


@pytest.mark.parametrize("name", SOUND_BARRIERS)
def test_sound_barriers(name: str) -> None:
    check_findings(build(SOUND_BARRIERS[name]), [])


# ---- lanes that a mask names ----

EXCHANGES = {
    "shfl": "shfl.sync.bfly.b32 %r1, %tid, 1, 31, {mask};",
    "vote": "vote.sync.any.pred %p1, %p0, {mask};",
    "ballot": "vote.sync.ballot.b32 %r1, %p0, {mask};",
    "match": "match.any.sync.b32 %r1, %tid, {mask};",
    "redux": "redux.sync.add.u32 %r1, %tid, {mask};",
    "elect": "elect.sync %r1|%p1, {mask};",
    "bar.warp": "bar.warp.sync {mask};",
}
MISSING = "does not come to an instruction whose mask names it"


@pytest.mark.parametrize("name", EXCHANGES)
def test_lanes_missing_from_an_exchange(name: str) -> None:
    """Lanes 8 to 15 come; the mask names more, or just them."""
    body = f"""
        sub.u32 %r2, %lane, 8; setp.lt.u32 %p0, %r2, 8; @!%p0 bra ELSEWHERE;
        {EXCHANGES[name]} // exchange
        ELSEWHERE: barrier.sync 0; ret;"""
    check_findings(build(body.format(mask="0xff00")), [])
    for mask, lowest, missing in [("0xff03", 0, 2), ("-1", 0, 24), ("0x8000ff00", 31, 1)]:
        check_findings(
            build(body.format(mask=mask)), [Expected("sync_mask", "exchange", 2 * missing, lowest, message=MISSING)]
        )


@pytest.mark.parametrize("name", EXCHANGES)
def test_lanes_outside_their_own_mask(name: str) -> None:
    """All lanes come, but the mask leaves out the last four."""
    body = f"{EXCHANGES[name]} // exchange\nret;"
    expected = Expected("sync_mask", "exchange", 8, 28, message="is not named by its own mask")
    check_findings(build(body.format(mask="0x0fffffff")), [expected])
    check_findings(build(body.format(mask="-1")), [])


@pytest.mark.parametrize("name", EXCHANGES)
def test_lanes_that_have_exited_need_not_come(name: str) -> None:
    body = f"setp.lt.u32 %p0, %lane, 8; @%p0 exit;\n{EXCHANGES[name]} ret;"
    check_findings(build(body.format(mask="-1")), [])


def test_groups_of_a_warp_with_masks_of_their_own() -> None:
    body = """
        and.b32 %r2, %lane, 24; shl.b32 %r3, 255, %r2; shfl.sync.idx.b32 %r1, %tid, 3, 0x181f, %r3;
        setp.lt.u32 %p0, %lane, 16; @%p0 bra LOW; bar.warp.sync 0xffff0000; bra DONE;
        LOW: bar.warp.sync 0x0000ffff; DONE: ret;"""
    check_findings(build(body.replace("shl.b32 %r3, 255", "mov.u32 %r4, 255; shl.b32 %r3, %r4")), [])


# ---- threads that wait for ever, or run for ever ----

WAITS = "waits for threads of its block that never come"

DEADLOCKS = {
    "barriers crossed": (
        """setp.eq.u32 %p0, %warp, 0; @%p0 bra A;
        bar.sync 1, 64; // first
        bar.sync 2, 64; bra DONE;
        A: bar.sync 2, 64; // second
        bar.sync 1, 64; DONE: ret;""",
        [Expected("deadlock", "first", 32, 32, message=WAITS), Expected("deadlock", "second", 32, 0, message=WAITS)],
    ),
    "a count that never comes": (
        "setp.eq.u32 %p0, %warp, 0; @!%p0 exit;\nbar.sync 1, 64; // bar\nret;",
        [Expected("deadlock", "bar", 32, message=WAITS)],
    ),
    "more threads than the block has": (
        "bar.sync 1, 96; // bar\nret;",
        [Expected("deadlock", "bar", 64, message=WAITS)],
    ),
    "lanes of one warp at two barriers": (
        """setp.lt.u32 %p0, %lane, 16; @%p0 bra A;
        barrier.sync 1; // high
        bra DONE;
        A: barrier.sync 2; // low
        DONE: ret;""",
        [Expected("deadlock", "high", 32, 16, message=WAITS), Expected("deadlock", "low", 32, message=WAITS)],
    ),
}


@pytest.mark.parametrize("name", DEADLOCKS)
def test_deadlocks(name: str) -> None:
    body, expected = DEADLOCKS[name]
    check_findings(build(body), expected)


def test_barriers_in_order_do_not_deadlock() -> None:
    check_findings(build("bar.sync 1, 64; bar.sync 2, 64; bar.sync 1, 64; ret;"), [])


RUNAWAYS = {
    "a loop without an end": (
        "L: add.u32 %r1, %r1, 1;\nbra L; // loop",
        [Expected("runaway", "loop", 64, message="over its budget of 2000 instructions")],
    ),
    "a flag that nobody sets": (
        """.shared .align 4 .b8 s[4]; setp.eq.u32 %p0, %tid, 0; @%p0 st.shared.u32 [s], 0; bar.sync 0;
        L: ld.shared.u32 %r1, [s]; setp.eq.u32 %p1, %r1, 0;
        @%p1 bra L; // spin
        ret;""",
        [Expected("runaway", "spin", 64)],
    ),
    "one warp of two": (
        "setp.eq.u32 %p0, %warp, 0; @%p0 exit;\nL: add.u32 %r1, %r1, 1;\nbra L; // loop",
        [Expected("runaway", "loop", 32, 32)],
    ),
}


@pytest.mark.parametrize("name", RUNAWAYS)
def test_runaways(name: str) -> None:
    body, expected = RUNAWAYS[name]
    check_findings(build(body), expected, budget=2000)
    assert run(build(body), budget=2000).stopped


def test_a_loop_within_its_budget() -> None:
    body = "mov.u32 %r1, 0; L: add.u32 %r1, %r1, 1; setp.lt.u32 %p0, %r1, 600; @%p0 bra L; ret;"
    check_findings(build(body), [], budget=2000)
    assert kinds(run(build(body), budget=1000)) == {"runaway"}


def test_a_flag_that_another_warp_sets() -> None:
    """Warps take turns, so that one that spins does not keep the other from ending its wait."""
    body = """
        .shared .align 4 .b8 s[4]; setp.eq.u32 %p0, %tid, 0; @%p0 st.shared.u32 [s], 0; bar.sync 0;
        setp.eq.u32 %p1, %warp, 1; @%p1 bra SET;
        L: ld.relaxed.cta.shared.u32 %r1, [s]; setp.eq.u32 %p2, %r1, 0; @%p2 bra L; ret;
        SET: st.relaxed.cta.shared.u32 [s], 1; ret;"""
    for text in (build(body), build(body.replace("%warp, 1", "%warp, 0"))):
        for seed in range(5):
            assert not run(text, budget=3_000_000, settings=(1, seed)).findings


# ---- traps and calls ----


def test_trap() -> None:
    body = "setp.eq.u32 %p0, %lane, {0};\n@%p0 trap; // trap\nbar.sync 0; ret;"
    check_findings(build(body.format(5)), [Expected("trap", "trap", 2, 5, message="trap")])
    assert run(build(body.format(5))).stopped
    check_findings(build(body.format(32)), [])


def test_a_trap_ends_the_launch_after_the_blocks_before_it() -> None:
    """Blocks that come later do not count, whatever ran at the same time."""
    text = build(
        """
        ld.param.u32 %r1, [block]; ld.param.u64 %d0, [x]; cvt.u64.u32 %d1, %i; add.s64 %d0, %d0, %d1;
        ld.global.u8 %r2, [%d0]; // load
        setp.ge.u32 %p0, %cta, %r1;
        @%p0 trap; // trap
        ret;""",
        ".param .u32 block, .param .u64 x",
    )
    x = np.zeros(0, np.uint8)
    for threads in (1, 2, 4):
        result = run(text, [5, x], grid=100, settings=(threads, None))
        assert [(f.kind, f.block, f.count) for f in result.findings] == [
            ("bounds", (0, 0, 0), 6 * 64),
            ("trap", (5, 0, 0), 64),
        ]


FUNCTIONS = """
.func good(.param .u32 x) { ret; }
.func other(.param .u64 x) { ret; }
.global .align 8 .u64 table[2] = {good, other};
.func forever(.param .u32 x) {
    .local .align 4 .b8 own[64]; .reg .b32 %r<2>;
    ld.param.u32 %r0, [x]; st.local.u32 [own], %r0;
    { .param .u32 a; st.param.u32 [a], %r0;
    call forever, (a); // recursion
    }
    ret; }
"""
INDIRECT = """
    shape: .callprototype _ (.param .u32 _);
    {{ .param .u32 a; st.param.u32 [a], %tid; {0}
    call %d1, (a), shape; // call
    }} ret;"""


def test_calls_through_pointers() -> None:
    check_findings(build(INDIRECT.format("ld.global.u64 %d1, [table];"), module=FUNCTIONS), [])
    for load, address, message in [
        ("mov.u64 %d1, 12345;", 12345, "call through a pointer to no function"),
        ("mov.u64 %d1, 0;", 0, "call through a pointer to no function"),
        ("mov.u64 %d1, table;", None, "call through a pointer to no function"),
        ("ld.global.u64 %d1, [table+8];", None, "other parameters than its prototype"),
    ]:
        text = build(INDIRECT.format(load), module=FUNCTIONS)
        [finding] = run(text).findings
        wanted = finding.address if address is None else address
        Expected("call", "call", 64, 0, wanted, message=message).check(finding, text)


def test_recursion_exhausts_the_stack() -> None:
    text = build("{ .param .u32 a; st.param.u32 [a], %tid; call forever, (a); } ret;", module=FUNCTIONS)
    [finding] = in_every_order(text)
    assert (finding.kind, finding.function, finding.count) == ("call", "forever", 64)
    assert finding.text.endswith("// recursion")
    assert finding.message == "the stack is exhausted by recursion"


def test_indexed_branches() -> None:
    body = "and.b32 %r1, %lane, {0}; ways: .branchtargets A, B, A;\nbrx.idx %r1, ways; // branch\nA: ret; B: ret;"
    check_findings(build(body.format(2)), [])
    expected = Expected("call", "branch", 16, 3, 3, message="beyond its list of targets")
    check_findings(build(body.format(3)), [expected])


def test_device_memory_that_was_freed() -> None:
    """What a kernel allocates lives on from launch to launch until one frees it; then it may not be touched."""
    natives = """
    .extern .func (.param .b64 place) malloc (.param .b64 bytes);
    .extern .func free (.param .b64 place);"""
    allocate = build(
        """
        ld.param.u64 %d0, [out]; { .param .b64 b; .param .b64 p; st.param.b64 [b], 16; call (p), malloc, (b);
        ld.param.b64 %d1, [p]; } st.global.u64 [%d0], %d1; ret;""",
        ".param .u64 out",
        natives,
    )
    use = """
        ld.param.u64 %d1, [place];
        st.u32 [%d1+12], 5; // before
        { .param .b64 p; st.param.b64 [p], %d1;
        call free, (p); // free
        }
        st.u32 [%d1+12], 6; // after
        ret;"""
    text = allocate + build(use, ".param .u64 place").partition("64\n")[2].replace("entry k(", "entry use(")
    text = text.replace(".visible .entry use", ".visible .entry use", 1)
    module = ptx.Machine(threads=1).load(text)
    out = np.zeros(1, np.uint64)
    assert not module.launch("k", 1, 1, [out]).findings
    place = int(out[0])
    first = module.launch("use", 1, 1, [place]).findings
    assert [(f.kind, f.text.rpartition("// ")[2], f.address) for f in first] == [("bounds", "after", place + 12)]
    again = module.launch("use", 1, 1, [place]).findings
    assert [(f.kind, f.text.rpartition("// ")[2]) for f in again] == [
        ("bounds", "before"),
        ("bounds", "free"),
        ("bounds", "after"),
    ]


# ---- checks that are switched off ----

#: One kernel for each check that shows its defect and no other.
PLANTED: dict[str, str] = {
    "bounds": "mov.u64 %d0, 8; ld.global.u32 %r1, [%d0]; ret;",
    "alignment": ".local .align 8 .b8 f[16]; st.local.u32 [f+2], %tid; ret;",
    "uninitialised": ".shared .align 4 .b8 s[4]; ld.shared.u32 %r1, [s]; ret;",
    "race": ".shared .align 4 .b8 s[4]; st.shared.u32 [s], %tid; ret;",
    "barrier": "setp.eq.u32 %p0, %warp, 0; @%p0 bar.sync 0; ret;",
    "sync_mask": "bar.warp.sync 0x7fffffff; ret;",
    "deadlock": "bar.sync 1, 96; ret;",
    "runaway": "L: bra L;",
    "trap": "trap;",
    "call": "mov.u64 %d1, 16; shape: .callprototype _ (); call %d1, shape; ret;",
}


@pytest.mark.parametrize("check", ptx.CHECKS)
def test_checks_can_be_switched_off(check: str) -> None:
    text = build(PLANTED[check])
    assert kinds(run(text)) == {check}
    assert kinds(run(text, checks=[check])) == {check}
    assert not run(text, checks=[other for other in ptx.CHECKS if other != check]).findings
    assert not run(text, checks=False).findings


def test_bad_accesses_are_left_out_unchecked_too() -> None:
    arena = Arena()
    for access, size in GLOBAL_ACCESSES.items():
        run(global_kernel(access), [*arena.args, arena.address("past the end", size)], checks=False)
    arena.assert_intact()


# ---- CUDA: the source file and line ----

PLANTED_CUDA = r"""
#include <cassert>
__shared__ int tile[64];
__global__ void past_the_end(int* x, int n) {
    x[threadIdx.x + 1] = 1;                       // BAD bounds
}
__global__ void stray_pointer(int* const* x) {
    **x = threadIdx.x;                            // BAD bounds
}
__global__ void misaligned(char* x) {
    *reinterpret_cast<int*>(x + 1) = 1;           // BAD alignment
}
__global__ void unwritten(int* out) {
    if (threadIdx.x < 32) tile[threadIdx.x] = 1;
    __syncthreads();
    out[threadIdx.x] = tile[threadIdx.x];         // BAD uninitialised
}
__global__ void no_barrier(int* out) {
    tile[threadIdx.x] = threadIdx.x;              // BAD race
    out[threadIdx.x] = tile[threadIdx.x ^ 32];    // BAD race
}
__global__ void divergent(int n) {
    if (threadIdx.x < 16) __syncthreads();        // BAD barrier
    tile[threadIdx.x] = n;
}
__global__ void half_mask(int* out) {
    asm volatile("bar.warp.sync 0xffff;");        // BAD sync_mask
    out[threadIdx.x] = 1;
}
__global__ void endless(volatile int* x) {
    while (*x == 0) continue;                     // BAD runaway
}
__global__ void asserting(int* x) {
    assert(x[threadIdx.x] != 0);                  // BAD trap
}
__global__ void stop(int* x) {
    if (x[threadIdx.x] == 0) __trap();            // BAD trap
}
"""
PLANTED_KERNELS = [line.split("(")[0].split()[-1] for line in PLANTED_CUDA.splitlines() if "__global__" in line]


@needs_nvcc
@pytest.mark.parametrize("name", PLANTED_KERNELS)
def test_cuda_source_lines(name: str) -> None:
    module = ptx.Machine(threads=1, budget=20_000).load(compile_cuda(PLANTED_CUDA, "-lineinfo"))
    lines = PLANTED_CUDA.splitlines()
    begin = next(i for i, line in enumerate(lines) if f" {name}(" in line)
    end = next(i for i in range(begin, len(lines)) if lines[i] == "}")
    wanted = {(lines[i].rpartition("BAD ")[2], i + 1) for i in range(begin, end) if "BAD" in lines[i]}
    x = np.zeros(64, np.int32)
    arguments = {"past_the_end": [x, 64], "divergent": [1]}.get(name, [x])
    result = module.launch(name, 1, 64, arguments)
    assert {(f.kind, f.source_line) for f in result.findings} == wanted
    assert all(f.source_file.endswith("kernel.cu") for f in result.findings)
    if name == "asserting":
        assert result.findings[0].message.startswith("assertion failed: x[threadIdx.x] != 0 (")
        assert result.findings[0].count == 64


SOUND_CUDA = r"""
__shared__ int tile[64];
__global__ void reverse(int* x, int n) {
    const int i = threadIdx.x;
    tile[i] = i < n ? x[i] : 0;
    __syncthreads();
    int sum = tile[63 - i];
    for (int step = 16; step; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
    __syncthreads();
    if (i % 32 == 0) tile[i / 32] = sum;
    __syncthreads();
    if (i < n) x[i] = tile[0] + tile[1];
}
"""


@needs_nvcc
@pytest.mark.parametrize("flags", [(), ("-G",)])
def test_sound_cuda(flags: tuple[str, ...]) -> None:
    module = ptx.Machine(threads=1).load(compile_cuda(SOUND_CUDA, "-lineinfo", *flags))
    x = np.arange(40, dtype=np.int32)
    assert not module.launch("reverse", 1, 64, [x, 40]).findings
    assert x.tolist() == [sum(range(40))] * 40


def test_findings_name_blocks_and_threads_of_three_dimensions() -> None:
    text = kernel(
        """
        .reg .b32 %r<8>; .reg .pred %p<8>; .reg .b64 %d;
        mov.u32 %r0, %tid.x; mov.u32 %r1, %tid.y; mov.u32 %r2, %tid.z;
        mov.u32 %r3, %ctaid.x; mov.u32 %r4, %ctaid.y; mov.u32 %r5, %ctaid.z;
        setp.ge.u32 %p0, %r0, 2; setp.ge.and.u32 %p0, %r1, 1, %p0; setp.ge.and.u32 %p0, %r2, 3, %p0;
        setp.ge.and.u32 %p0, %r3, 1, %p0; setp.ge.and.u32 %p0, %r4, 2, %p0; setp.ge.and.u32 %p0, %r5, 1, %p0;
        mov.u64 %d, 64; @%p0 ld.global.u32 %r6, [%d]; ret;""",
    )
    for threads, seed in ((1, None), (2, 5)):
        machine = ptx.Machine(threads=threads, seed=seed)
        [finding] = machine.load(text).launch("k", (2, 4, 3), (3, 5, 4)).findings
        assert (finding.block, finding.thread) == ((1, 2, 1), (2, 1, 3))
        assert finding.count == (1 * 2 * 2) * (1 * 4 * 1)

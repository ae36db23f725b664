"""What the loader refuses and how it says so; forms of directives and constants that it takes.

Each malformed text is refused with one sentence that names the kernel, the line and its text.
"""

from __future__ import annotations

import math
import struct

import numpy as np
import pytest

from flopcuda import ptx
from tests.ptxvm.harness import HEADER, kernel, run_instruction


def refusal(text: str) -> ptx.PtxError:
    with pytest.raises(ptx.PtxError) as error:
        ptx.Machine().load(text)
    return error.value


def check_refusal(text: str, bad: str, kernel_name: str, message: str) -> None:
    """The error of `text`, in which the line `bad` stands once."""
    lines = [line.strip() for line in text.splitlines()]
    assert lines.count(bad) == 1
    error = refusal(text)
    assert (error.kernel, error.line, error.text) == (kernel_name, lines.index(bad) + 1, bad)
    assert message in str(error)
    assert str(error).startswith(f"{kernel_name}, line " if kernel_name else "line ")
    assert str(error).endswith(bad)
    assert "\n" not in str(error)


# ---- the header ----

REST = ".visible .entry k() { ret; }"


@pytest.mark.parametrize(
    ("header", "bad", "message"),
    [
        (".target sm_80\n.address_size 64", ".target sm_80", "a PTX module begins with .version"),
        (".version 8\n.target sm_80\n.address_size 64", ".version 8", "expected a version like 8.0"),
        (".version sm_80", ".version sm_80", "expected a version like 8.0"),
        (".version 5.0", ".version 5.0", "PTX ISA version 5.0 is not supported"),
        (".version 10.0", ".version 10.0", "PTX ISA version 10.0 is not supported"),
        (".version 8.0\n.address_size 64", ".address_size 64", "expected .target after .version"),
        (".version 8.0\n.target gfx90", ".target gfx90", "unknown target 'gfx90'"),
        (".version 8.0\n.target sm_8", ".target sm_8", "unknown target 'sm_8'"),
        (".version 8.0\n.target sm_80x", ".target sm_80x", "unknown target 'sm_80x'"),
        (".version 8.0\n.target debug", ".target debug", "unknown target 'debug'"),
        (".version 8.0\n.target sm_80, fast", ".target sm_80, fast", "unknown target 'fast'"),
        (".version 8.0\n.target sm_80\n.address_size 32", ".address_size 32", "an address size other than 64"),
    ],
)
def test_headers_refused(header: str, bad: str, message: str) -> None:
    check_refusal(f"{header}\n{REST}\n", bad, "", message)


@pytest.mark.parametrize("text", ["", "\n\n", "// nothing\n", "/* nothing */"])
def test_an_empty_text_is_refused(text: str) -> None:
    assert "a PTX module begins with .version" in str(refusal(text))


@pytest.mark.parametrize("version", ["6.0", "7.0", "7.8", "8.0", "8.8", "9.0", "9.9"])
@pytest.mark.parametrize("target", ["sm_75", "sm_80", "sm_90a", "sm_100f", "sm_120a", "compute_90", "sm_80, debug"])
def test_versions_and_targets(version: str, target: str) -> None:
    module = ptx.Machine().load(f".version {version}\n.target {target}\n.address_size 64\n{REST}")
    assert (module.version, module.target) == (version, target.split(",")[0])


# ---- modules ----

MODULE_LEVEL = [
    ("exit;", "", "expected a directive, found 'exit'"),
    (".tex .u32 t;", "", "unknown directive '.tex'"),
    (".local .u32 t;", "", "unknown directive '.local'"),
    (".common .shared .u32 t;", "", ".common variables are .global"),
    (".visible 3;", "", "expected a declaration, found '3'"),
    (".global t;", "", "variable without a type"),
    (".global .u31 t;", "", "unknown attribute or type '.u31' of a variable"),
    (".global .pred t;", "", "unknown attribute or type '.pred' of a variable"),
    (".global .align 3 .u32 t;", "", "alignment is not a power of two"),
    (".global .align 0 .u32 t;", "", "alignment out of range"),
    (".global .v4 .u64 t;", "", "vector over 128 bits"),
    (".global .u32 t[0];", "", "array extent out of range"),
    (".global .u32 t[-1];", "", "array extent out of range"),
    (".global .u32 t[3][];", "", "only the first extent of an array may be left open"),
    (".global .u32 t[];", "", "array without a size"),
    (".global .u32 t[1073741824];", "", "variable larger than 1 GiB"),
    (".global .u32 t[65536][65536][65536];", "", "variable larger than 1 GiB"),
    (".global .u32 t[2] = {1, 2, 3};", "", "more initial values than elements"),
    (".global .u32 t[2] = 1;", "", "expected '{', found '1'"),
    (".global .u32 t = {1};", "", "expected a constant, found '{'"),
    (".global .u32 t = 1.5;", "", "the initial value is of another type"),
    (".global .f32 t = 1;", "", "the initial value is of another type"),
    (".global .u32 t = k;", "", "an address needs 8 bytes"),
    (".global .u64 t = nowhere;", "", "initial value names 'nowhere', which is not defined"),
    (".global .f64 t = k;", "", "the initial value is of another type"),
    (".global .b8 t[1] = {0xFFF(k)};", "", "a masked address is one byte"),
    (".global .u32 t = 1 / 0;", "", "a constant expression divides by zero"),
    (".global .u32 t = 1 % 0;", "", "a constant expression divides by zero"),
    (".global .u32 t = 1 + 1.0;", "", "mixes integers and floating point"),
    (".global .f64 t = 1.0 % 2.0;", "", "applies to integers only"),
    (".global .f64 t = ~1.0;", "", "applies to integers only"),
    (".global .f32 t = -0f3F800000;", "", "no operator applies to a constant written in bits"),
    (".global .u32 t = " + "(" * 65 + "1" + ")" * 65 + ";", "", "constant expression nested too deeply"),
    (".global .u64 t = 18446744073709551616;", "", "integer over 64 bits"),
    (".global .u32 t = 0x;", "", "number without digits"),
    (".global .u32 t = 12ab;", "", "malformed number '12ab'"),
    (".global .f32 t = 1.5.2;", "", "malformed number '1.5.2'"),
    (".global .u32 t = 089;", "", "malformed number '089'"),
    (".extern .global .u32 t;", "", "external variable 't' is not defined"),
    (".extern .global .u32 t = 1;", "", "an .extern variable has no initial value"),
    (".shared .u32 t = 1;", "", "only .global and .const variables have initial values"),
    (".global .attribute(.lazy) .u32 t;", "", "expected .managed or .unified, found 'lazy'"),
    (".file -1 \"a.cu\"", "", ".file index out of range"),
    (".file 1 a", "", "expected a string, found 'a'"),
    (".pragma 1;", "", "expected a string, found '1'"),
    (".section .debug_str { .b8 1", "", "section without an end"),
    ("/* no end", "", "comment without an end"),
    (".pragma \"no end", "", "string without an end"),
    (".global .u32 a\x07;", "", "unexpected byte 7"),
    (".global .u32 a#;", "", "unexpected character '#'"),
    (".extern .func f() { ret; }", "f", "an .extern function has a body"),
    (".func f() { ret;", "f", "function without an end"),
    (".func f(.reg .u32 x) { ret; }", "f", "parameters in registers (.reg) are not supported"),
    (".func f(.u32 x) { ret; }", "f", "expected .param or .reg"),
    (".func f(.param .v2 .u32 x) { ret; }", "f", "a parameter cannot be a vector"),
    (".func f(.param .b8 x[40000]) { ret; }", "f", "more than 32764 bytes of parameters"),
    (".func f(.param .u32 x, .param .u32 x) { ret; }", "f", "'x' is defined twice"),
    (".func f() .maxntid 32 { ret; }", "f", "directive '.maxntid' is not supported here"),
    (".entry e() .noreturn { ret; }", "e", "directive '.noreturn' is not supported here"),
    (".entry e() .maxntid 1025 { ret; }", "e", "an extent of the block is out of range"),
    (".entry e() .maxntid 1, 1, 1, 1 { ret; }", "e", "more than three extents"),
    (".entry e() .maxntid 32 .reqntid 32 { ret; }", "e", ".maxntid and .reqntid exclude each other"),
    (".entry e() .reqnctapercluster 2 { ret; }", "e", "clusters of more than one block are not supported"),
    (".entry e() .maxnreg -1 { ret; }", "e", "a value of a directive is out of range"),
    (".func k() { ret; }", "k", "function is declared with other parameters in line"),
    (".entry k() { exit; }", "k", "function is defined twice"),
    (".global .u32 k;", "", "'k' is a function too"),
]  # fmt: skip


def around(line: str, where: str) -> str:
    """The line at module level, behind the kernel `k`, or in the kernel."""
    if where == "body":
        registers = ".reg .pred %p<4>;\n.reg .b16 %h<4>;\n.reg .b32 %r<9>;\n.reg .f32 %f<9>;\n.reg .b64 %d<9>;"
        return kernel(f"{registers}\n{line}\nret;")
    return kernel("ret;") + line + "\n"


@pytest.mark.parametrize(("line", "kernel_name", "message"), MODULE_LEVEL)
def test_modules_refused(line: str, kernel_name: str, message: str) -> None:
    check_refusal(around(line, "module"), line, kernel_name, message)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (".global .u32 t;", ".global .u32 t = 1;", "'t' is defined twice"),
        (".global .u32 t;", ".const .u32 t;", "'t' is in another state space in line"),
        (".func f(.param .u32 x);", ".func f(.param .u64 x) { ret; }", "function is declared with other parameters"),
        (".global .u32 f;", ".func f() { ret; }", "'f' is a function too"),
        (".shared .u32 s;", ".global .u64 t = s;", "initial value names 's', which is not .global or .const"),
    ],
)
def test_declarations_that_disagree(first: str, second: str, message: str) -> None:
    error = refusal(f"{HEADER}{first}\n{second}\n")
    assert message in str(error)
    assert error.text in (first, second)


# ---- bodies ----

BODIES = [
    ("add.u32 %r0, %r1;", "too few operands"),
    ("add.u32 %r0, %r1, %r2, %r3;", "too many operands"),
    ("frob.u32 %r0, %r1;", "unknown instruction 'frob'"),
    ("add.foo.u32 %r0, %r1, %r2;", "'.foo'"),
    ("add.rn.u32 %r0, %r1, %r2;", "this instruction does not round"),
    ("add.rn.rz.f32 %f0, %f1, %f2;", "modifier '.rz' repeats or contradicts another"),
    ("shl.wide.b32 %r0, %r1, %r2;", "modifier '.wide' does not apply to this instruction"),
    ("bra.f32 HERE; HERE:", "modifier '.f32' does not apply to this instruction"),
    ("add.u32 %r0, %r1, %r99;", "'%r99' is not declared"),
    ("add.u32 %r0, %r1, x;", "'x' is not declared"),
    ("add.u32 %r0, %r1, %d0;", "register '%d0' has 64 bits, .u32 needs 32"),
    ("add.u32 %r0, %r1, %f0;", "register '%f0' is .f32, not .u32"),
    ("add.u32 %r0, %r1, %p0;", "predicate '%p0' where a value is expected"),
    ("add.u32 %p0, %r1, %r2;", "register '%p0' cannot hold a .u32"),
    ("add.u32 _, %r1, %r2;", "the result cannot be discarded here"),
    ("add.u32 5, %r1, %r2;", "expected a register"),
    ("add.u32 %r0, %r1, 1.5;", "a floating-point constant where a .u32 is expected"),
    ("add.f32 %f0, %f1, 1;", "an integer constant where a .f32 is expected"),
    ("add.u32 %r0, %r1, [%d0];", "expected a register or a constant"),
    ("add.u32 %r0, %tid.x, 1;", "special register %tid.x is read by mov and cvt only"),
    ("mov.u64 %d0, %tid.x;", "special register %tid.x is .u32"),
    ("mov.u32 %r0, %clock64;", "this clock has another type"),
    ("setp.eq.u32 %r0, %r1, %r2;", "register '%r0' is not a predicate"),
    ("@%r0 mov.u32 %r1, 0;", "register '%r0' is not a predicate"),
    ("@%q mov.u32 %r1, 0;", "'%q' is not declared"),
    ("ld.global.u32 %r0, %d0;", "expected an address in brackets"),
    ("ld.global.u32 %r0, [%h0];", "an address needs an integer register of 32 or 64 bits"),
    ("ld.global.u32 %r0, [%f0];", "an address needs an integer register of 32 or 64 bits"),
    ("ld.global.u32 %r0, [16];", "only .local memory has constant addresses"),
    ("ld.global.u32 %r0, [nowhere];", "'nowhere' is not declared"),
    ("ld.texture.u32 %r0, [%d0];", "'.texture'"),
    ("ld.global.v3.u32 {%r0,%r1,%r2}, [%d0];", "'.v3'"),
    ("st.const.u32 [%d0], %r0;", "this state space does not apply here"),
    ("bra NOWHERE;", "label 'NOWHERE' is not defined"),
    ("brx.idx %r0, LIST;", "branch targets 'LIST' are not defined"),
    ("HERE: HERE: ret;", "'HERE' is defined twice"),
    (".reg .u32 %r<9>;", "'%r' is defined twice"),
    (".reg .u8 %b;", "registers of type .u8 are not supported"),
    (".reg .v2 .u32 %v;", "vector registers are not supported"),
    (".reg %v;", "expected the type of a register"),
    (".reg .u32 %many<1048577>;", "register count out of range"),
    (".local .b8 big[524289];", "more than 512 KiB of local memory"),
    (".shared .b8 big[233473];", "more than 228 KiB of shared memory"),
    (".extern .global .u32 t;", "only .shared variables are .extern in a function"),
    (".unknown 1;", "unknown directive '.unknown'"),
    (".loc 1 2;", "expected an integer"),
    (".loc 1 2 3, somewhere;", "unknown word 'somewhere' of .loc"),
    ("mov.u32 %r0, 1", "expected ';', found 'ret'"),
    ("mov.u32 %r0, ;", "expected an operand, found ';'"),
    ("1: ret;", "expected an instruction, found '1'"),
    ("mov.b64 %d0, {{{{{{%r0}}}}}};", "operand nested too deeply"),
    ("bar.sync 16;", "barriers are numbered from 0 to 15"),
    ("bar.sync 1, 33;", "the number of threads at a barrier is a multiple of the warp's"),
    ("bar.arrive 1;", "wrong number of operands"),
    ("call nobody;", "function 'nobody' is not declared"),
    ("lop3.b32 %r0, %r1, %r2, %r3, 256;", "the truth table has 8 bits"),
    ("shfl.bfly.b32 %r0, %r1, 1, 31;", "only the form with .sync is supported"),
    (
        "mma.sync.aligned.m16n8k99.row.col.f32.f16.f16.f32 {%f0,%f1,%f2,%f3}, {%r0}, {%r1}, {%f4,%f5,%f6,%f7};",
        "this type does not come in this shape",
    ),
    ("cvt.f32.u32 %f0, %r0;", "expected a rounding mode"),
    ("cvt.rn.u32.u64 %r0, %d0;", "integers do not round"),
    ("{" * 64, "scopes nested too deeply"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "message"), BODIES)
def test_bodies_refused(line: str, message: str) -> None:
    check_refusal(around(line, "body"), line, "k", message)


def test_text_beyond_ascii_is_quoted_whole() -> None:
    """Long lines are cut, never within a character."""
    for fill in range(4):
        bad = f"frob; // {'x' * fill}{'é€😀' * 50}"
        error = refusal(around(bad, "body"))
        assert bad.startswith(error.text)
        assert len(bad.encode()) > len(error.text.encode()) > 196


# ---- what is taken ----


def initialised(declaration: str) -> bytes:
    """The bytes of the variable `t` after loading."""
    return ptx.Machine().load(f"{HEADER}{declaration}\n{REST}").variable("t").tobytes()


def unsigned(text: str) -> int:
    return int.from_bytes(initialised(f".global .u64 t = {text};"), "little")


MASK = 2**64 - 1
INTEGERS = {
    "1 + 2 * 3": 7,
    "(1 + 2) * 3": 9,
    "7 - 2 - 1": 4,
    "100 / 7 / 2": 7,
    "-7 / 2": -3,
    "-7 % 3": -1,
    "7 % -3": 1,
    "-8 >> 1": -4,
    "-8 >> 70": -1,
    "(.u64) -8 >> 1": (MASK - 7) >> 1,
    "(.u64) 1 << 63 >> 70": 0,
    "1 << 64": 0,
    "-9223372036854775807 - 1 / -1": -(2**63) + 2,
    "(-9223372036854775807 - 1) / -1": -(2**63),
    "(-9223372036854775807 - 1) % -1": 0,
    "-1 / 2U": MASK // 2,
    "0xFFFFFFFFFFFFFFFF / 2": MASK // 2,
    "-1 < 1": 1,
    "-1 < 1U": 0,
    "1 << 4 < 1 << 5": 1,
    "3 == 3 != 0": 1,
    "2 >= 3": 0,
    "3 <= 3": 1,
    "6 & 3 ^ 1 | 8": 11,
    "1 | 6 & 4": 5,
    "1 && 0 || 1": 1,
    "0 && 1 || 0": 0,
    "!5": 0,
    "!0 + 1": 2,
    "~0": MASK,
    "-~5": 6,
    "+7": 7,
    "1 ? 2 : 3": 2,
    "0 ? 2 : 1 ? 4 : 5": 4,
    "2 > 1 ? 10 : 20": 10,
    "0x1F": 31,
    "0b101": 5,
    "017": 15,
    "0": 0,
    "18446744073709551615U": MASK,
}


@pytest.mark.parametrize("text", INTEGERS)
def test_integer_expressions(text: str) -> None:
    assert unsigned(text) == INTEGERS[text] & MASK
    operand = run_instruction(f"mov.u64 %y, {text};", [np.zeros(1, np.uint32)], result_size=8)
    assert operand[0] == INTEGERS[text] & MASK


FLOATS = {
    "1.5": 1.5,
    "-1.5": -1.5,
    "- -1.5": 1.5,
    "1.5 + 2.25 * 2.0": 6.0,
    "(1.5 + 2.25) / 4.0": 0.9375,
    "1e3": 1000.0,
    "2.5E-3": 2.5e-3,
    "1.0 / 3.0": 1.0 / 3.0,
    "1.0 / 0.0": math.inf,
    "-1.0 / 0.0": -math.inf,
    "0d3FF8000000000000": 1.5,
    "0D7FF0000000000000": math.inf,
    "-0.0": -0.0,
    "1 ? 2.0 : 3.0": 2.0,
    "4.9406564584124654e-324": 5e-324,
}


@pytest.mark.parametrize("text", FLOATS)
def test_floating_point_expressions(text: str) -> None:
    assert initialised(f".global .f64 t = {text};") == struct.pack("<d", FLOATS[text])
    assert initialised(f".global .f32 t = {text};") == np.float32(FLOATS[text]).tobytes()


@pytest.mark.parametrize("digits", ["3FC00000", "7f800000", "FF800000", "7FC00001", "00000001", "80000000"])
def test_floating_point_bits(digits: str) -> None:
    bits = int(digits, 16)
    assert initialised(f".global .f32 t = 0f{digits};") == bits.to_bytes(4, "little")
    assert run_instruction(f"mov.b32 %y, 0F{digits};", [np.zeros(1, np.uint32)])[0] == bits
    if bits & 0x7F800000 != 0x7F800000:  # a NaN's payload is nobody's business
        widened = struct.unpack("<f", bits.to_bytes(4, "little"))[0]
        assert initialised(f".global .f64 t = 0f{digits};") == struct.pack("<d", widened)


def words(*values: int, size: int = 4) -> bytes:
    return b"".join((value % 256**size).to_bytes(size, "little") for value in values)


@pytest.mark.parametrize(
    ("declaration", "expected"),
    [
        (".global .u32 t;", words(0)),
        (".const .s16 t[3] = {-1, 2};", words(-1, 2, 0, size=2)),
        (".global .u32 t[] = {1, 2, 3};", words(1, 2, 3)),
        (".global .u32 t[2][3] = {{1, 2}, {3}};", words(1, 2, 0, 3, 0, 0)),
        (".global .u32 t[][2] = {{1, 2}, {3, 4}, {5}};", words(1, 2, 3, 4, 5, 0)),
        (".global .v2 .u32 t = {1, 2};", words(1, 2)),
        (".global .v4 .u8 t[2] = {{1, 2, 3, 4}, {5}};", bytes([1, 2, 3, 4, 5, 0, 0, 0])),
        (".global .b8 t[3] = {0x1FF, -1, 2};", bytes([255, 255, 2])),
        (".visible .global .align 16 .u32 t = 7;", words(7)),
        (".weak .global .u32 t = 7;", words(7)),
        (".common .global .u32 t;", words(0)),
        (".global .attribute(.managed) .u32 t = 7;", words(7)),
        (".global .attribute(.unified(1, 2), .managed) .u32 t = 7;", words(7)),
        (".extern .global .u32 t; .global .u32 t = 7;", words(7)),
        (".global .u32 t = 7; .extern .global .u32 t;", words(7)),
        (".global .u32 u = 1, t = 2;", words(2)),
    ],
)
def test_variables(declaration: str, expected: bytes) -> None:
    assert initialised(declaration) == expected


def address(data: bytes) -> int:
    return int.from_bytes(data, "little")


def test_addresses_as_initial_values() -> None:
    """`&data`, with an offset, generic, and cut into bytes as nvcc writes packed structures."""
    text = f"""{HEADER}
        .global .align 8 .b8 data[8];
        .global .u64 t[4] = {{data, data+5, generic(data)+2, 0}};
        .global .b8 cut[8] = {{0xFF(data), 0xFF00(data), 0xFF0000(data), 0xFF000000(data), 0xFF00000000(data),
                               0xFF0000000000(data), 0xFF000000000000(data), 0xFF00000000000000(data)}};
        .visible .entry k() {{ ret; }}"""
    module = ptx.Machine().load(text)
    place = module.variable("data").ctypes.data
    assert module.variable("t").view(np.uint64).tolist() == [place, place + 5, place + 2, 0]
    assert address(module.variable("cut").tobytes()) == place


@pytest.mark.parametrize(
    "directives",
    [
        ".maxntid 64",
        ".maxntid 8, 8",
        ".reqntid 4, 4, 4",
        ".maxntid 64, 1, 1 .minnctapersm 2 .maxnreg 40",
        ".maxntid 64 .pragma \"nounroll\";",
        ".maxntid 64 .maxclusterrank 8 .explicitcluster .reqnctapercluster 1, 1, 1",
        ".maxntid 64 .maxnctapersm 1 .blocksareclusters",
    ],
)  # fmt: skip
def test_performance_directives(directives: str) -> None:
    loaded = ptx.Machine().load(f"{HEADER}.visible .entry k() {directives} {{ ret; }}")
    assert loaded.kernels["k"].max_threads == 64
    with pytest.raises(ptx.PtxError, match="65 threads"):
        loaded.launch("k", 1, 65)


def test_what_has_no_meaning_is_passed_over() -> None:
    text = f"""{HEADER}
        .file 1 "a.cu", 123, 456
        .file 3 "b.cu"
        .pragma "one", "two";
        .section .debug_info {{ .b8 1, 2 .b32 label .b64 x+4 }}
        .extern .func nobody(.param .u32 x);
        .visible .entry k(.param .u64 .ptr .global .align 16 p)
        {{
          .pragma "nounroll";
          .loc 1 2 3
          .loc 3 4 5, function_name $name + 7, inlined_at 1 2 3
          ret; /* a comment
          over lines */
        }}"""
    loaded = ptx.Machine().load(text)
    assert [(p.name, p.offset, p.size, p.type) for p in loaded.kernels["k"].parameters] == [("p", 0, 8, "u64")]


@pytest.mark.parametrize("which", [0, 1])
def test_calls_through_a_list_of_targets(which: int) -> None:
    """`.calltargets` names the functions that a pointer may lead to."""
    functions = """
        .func (.param .b32 r) twice(.param .b32 x)
        { .reg .b32 %a; ld.param.b32 %a, [x]; add.u32 %a, %a, %a; st.param.b32 [r], %a; ret; }
        .func (.param .b32 r) next(.param .b32 x)
        { .reg .b32 %a; ld.param.b32 %a, [x]; add.u32 %a, %a, 1; st.param.b32 [r], %a; ret; }"""
    text = f"""
        {{ .param .b32 from; .param .b32 to;
          LIST: .calltargets twice, next;
          mov.u64 %u0, {("twice", "next")[which]};
          st.param.b32 [to], %x0;
          call (from), %u0, (to), LIST;
          ld.param.b32 %y, [from]; }}"""
    x = np.array([0, 1, 5, 2**31, 2**32 - 1], np.uint32)
    expected = (x + x, x + np.uint32(1))[which]
    assert run_instruction(text, [x], module=functions).tolist() == expected.tolist()

"""Nothing that a kernel or a launch does ends the process of the host: it is a finding, or one clear PtxError.

All of it runs in one process of its own, which a crash, or a case of more than a minute, would end early.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field

import pytest

from tests.ptxvm.harness import kernel

CHILD = """
import json, signal, sys
import numpy as np
from flopcuda import ptx

array = np.zeros(256, np.uint32)
values = {"array": array, "text": "text", "float": 1.5, "bytes": b"12345678", "huge": 2**70}
for line in sys.stdin:
    text, options, machine = json.loads(line)
    options["args"] = [values.get(value, value) for value in options.get("args", [])]
    signal.alarm(60)
    try:
        result = ptx.Machine(**machine).load(text).launch("k", **options)
        outcome = sorted({finding.kind for finding in result.findings})
    except ptx.PtxError as error:
        outcome = str(error)
    print(json.dumps(outcome), flush=True)
"""

Outcome = list[str] | str


@dataclass(frozen=True)
class Case:
    """A launch of the kernel `k`, and the kinds of its findings or its error's sentence."""

    name: str
    text: str
    expected: Outcome
    options: dict[str, object] = field(default_factory=dict)
    machine: dict[str, object] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name


# ---- wild addresses ----

WILD = [0, 1, 4096, 2**31, 2**47 - 8, 2**47, 2**60 - 8, 2**60 + 2**40, 2**61 + 2**40, 3 << 60, 2**62, 2**63, 2**64 - 8]
ACCESSES = {
    "load": "ld.{space}u32 %r0, [%a];",
    "store": "st.{space}u32 [%a], 1;",
    "vector": "ld.{space}v4.u32 {{%r0, %r1, %r2, %r3}}, [%a];",
    "atomic": "atom.{space}add.u32 %r0, [%a], 1;",
    "offset": "ld.{space}u32 %r0, [%a+-9223372036854775808];",
}
SPACES = {
    "": ACCESSES.keys(),
    "global.": ACCESSES.keys(),
    "shared.": ACCESSES.keys(),
    "local.": ACCESSES.keys() - {"atomic"},
    "const.": {"load", "vector", "offset"},
    "param.": {"load", "vector", "offset"},
}


def wild_addresses(space: str) -> str:
    """Every access to every address; one lane is elsewhere than its warp."""
    return kernel(
        ".reg .b64 %a; .reg .b32 %r<4>; .reg .pred %p; mov.u32 %r0, %tid.x; setp.eq.u32 %p, %r0, 7;"
        + "\n".join(
            f"mov.b64 %a, {address}; @%p add.s64 %a, %a, 1099511627776; {ACCESSES[name].format(space=space)}"
            for address in WILD
            for name in sorted(SPACES[space])
        )
        + "ret;"
    )


def of_a_warp(text: str, address: int) -> str:
    return kernel(f""".reg .b64 %a; .reg .b32 %r<9>; .shared .align 16 .b8 s[64];
        mov.b64 %a, {address}; cvt.u32.u64 %r0, %a; {text} ret;""")


COLLECTIVES = [
    "cp.async.ca.shared.global [%r0], [%a], 16; cp.async.wait_all;",
    "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r1, %r2, %r3, %r4}, [%r0];",
    "stmatrix.sync.aligned.m8n8.x2.shared.b16 [%r0], {%r1, %r2};",
    "wmma.load.a.sync.aligned.row.m16n16k16.f16 {%r1,%r2,%r3,%r4,%r5,%r6,%r7,%r8}, [%a], %r0;",
    "wmma.store.d.sync.aligned.row.m16n16k16.s32 [%a], {%r1,%r2,%r3,%r4,%r5,%r6,%r7,%r8}, %r0;",
]


def wild_strings(address: int) -> str:
    """The text that vprintf and __assertfail read is where the kernel says."""
    return kernel(
        f""".reg .b64 %a; {{ .param .b64 f; .param .b64 v; .param .b32 r;
        mov.b64 %a, {address}; st.param.b64 [f], %a; st.param.b64 [v], %a; call (r), vprintf, (f, v); }}
        {{ .param .b64 m; .param .b64 f; .param .b32 l; .param .b64 n; .param .b64 s; st.param.b64 [m], %a;
        st.param.b64 [f], %a; st.param.b32 [l], 1; st.param.b64 [n], %a; st.param.b64 [s], %a;
        call __assertfail, (m, f, l, n, s); }} ret;""",
        module=""".extern .func (.param .b32 r) vprintf(.param .b64 f, .param .b64 v);
        .extern .func __assertfail(.param .b64 m, .param .b64 f, .param .b32 l, .param .b64 n, .param .b64 s);""",
    )


WILD_CASES = [
    *(
        Case(f"{space or 'generic.'} {checks}", text, ["bounds"] * checks, {"block": 40}, {"checks": checks})
        for space, text in ((space, wild_addresses(space)) for space in SPACES)
        for checks in (True, False)
    ),
    *(
        Case(f"{text.split()[0]} {address:#x}", of_a_warp(text, address), ["bounds"])
        for text in COLLECTIVES
        for address in (2**31 - 16, 2**32 - 16, 2**64 - 16)
    ),
    *(Case(f"strings {address}", wild_strings(address), ["trap"]) for address in (-1, 0, 2**31)),
]  # fmt: skip

# ---- depth and size ----


def recursive(frame: int) -> str:
    return kernel(
        "{ .param .b64 x; st.param.b64 [x], 0; call f, (x); } ret;",
        module=f""".func f(.param .b64 x) {{ .reg .b64 %a; .local .align 8 .b8 frame[{frame}];
        {{ .param .b64 y; ld.param.b64 %a, [x]; st.param.b64 [y], %a; call f, (y); }} ret; }}""",
    )


#: Each call leaves a lane behind, so that frames of many paths are there at a time.
DIVERGENT_RECURSION = kernel(
    "{ .param .b32 x; st.param.b32 [x], 0; call f, (x); } ret;",
    module=""".func f(.param .b32 x) { .reg .b32 %r<3>; .reg .pred %p; ld.param.b32 %r0, [x]; mov.u32 %r1, %laneid;
        and.b32 %r2, %r0, 31; setp.eq.u32 %p, %r1, %r2; @%p bra ODD; add.u32 %r0, %r0, 1; ODD: add.u32 %r0, %r0, 1;
        { .param .b32 y; st.param.b32 [y], %r0; call f, (y); } ret; }""",
)
LARGE_LOCAL = kernel(".local .b8 l[524288]; .reg .b64 %a; mov.u64 %a, l; st.local.u8 [%a+524287], 1; ret;")
#: Prints, and takes memory of the heap, for ever.
ENDLESS = kernel(
    """.reg .b64 %a; AGAIN: { .param .b64 n; .param .b64 r; st.param.b64 [n], 1048576; call (r), malloc, (n); }
        { .param .b64 f; .param .b64 w; .param .b32 r; mov.u64 %a, text; st.param.b64 [f], %a; st.param.b64 [w], 0;
        call (r), vprintf, (f, w); } bra AGAIN;""",
    module=""".extern .func (.param .b32 r) vprintf(.param .b64 f, .param .b64 v);
        .extern .func (.param .b64 r) malloc(.param .b64 n); .global .b8 text[4] = {97, 98, 10, 0};""",
)
SIZE_CASES = [
    *(
        Case(f"recursion {frame} {block}", recursive(frame), ["call"], {"grid": 2, "block": block})
        for frame in (8, 4096, 400_000)
        for block in (1, 128)
    ),
    Case("divergent recursion", DIVERGENT_RECURSION, ["call"], {"block": 64}),
    Case("local memory", LARGE_LOCAL, [], {"grid": 4, "block": 64}, {"threads": 16}),
    Case(
        "local memory of a cooperative grid",
        LARGE_LOCAL,
        "k, the blocks of the cooperative grid need more than 4 GiB",
        {"grid": 64, "block": 1024, "cooperative": True},
    ),
    Case("threads of the host", kernel("ret;"), [], {"grid": 10_000}, {"threads": 1_000_000}),
    Case("largest grid", kernel("trap;"), ["trap"], {"grid": [2**31 - 1, 2**9, 1], "block": 1}),
    Case("endless", ENDLESS, ["runaway"], {"grid": 2, "block": 64}, {"budget": 20_000}),
]

# ---- launches that cannot be ----

EXTENTS = "k, grid must be one to three numbers from 1 to 2^31 - 1, not "
REFUSED = [
    ({"grid": 0}, "k, a grid extent is 0"),
    ({"grid": [2**31 - 1] * 3}, "k, the grid has more than 2^40 blocks"),
    ({"grid": 2**31}, f"{EXTENTS}2147483648"),
    ({"grid": -1}, f"{EXTENTS}-1"),
    ({"grid": [1, 1, 1, 1]}, f"{EXTENTS}[1, 1, 1, 1]"),
    ({"grid": []}, f"{EXTENTS}[]"),
    ({"block": 0}, "k, a block extent is 0"),
    ({"block": 1025}, "k, a block has more than 1024 threads"),
    ({"block": [32, 32, 2]}, "k, a block has more than 1024 threads"),
    ({"block": [2**31 - 1] * 3}, "k, a block has more than 1024 threads"),
    ({"shared_bytes": -1}, "k, the size of dynamic shared memory is negative"),
    ({"shared_bytes": 228 * 1024 + 1}, "k, more than 228 KiB of shared memory"),
    ({"shared_bytes": 2**62}, "k, more than 228 KiB of shared memory"),
    ({"grid": 1025, "cooperative": True}, "k, a cooperative grid has more than 1024 blocks"),
    ({"args": []}, "k, 2 arguments are needed, not 0"),
    ({"args": [1, 2, 3]}, "k, 2 arguments are needed, not 3"),
    ({"args": ["huge", 1]}, f"k, argument 0 (u64): {2**70} does not fit in 64 bits"),
    ({"args": [0, 2**32]}, "k, argument 1 (u32): 4294967296 does not fit in 32 bits"),
    ({"args": ["text", 1]}, "k, argument 0 (u64): a number is needed, not str"),
    ({"args": [0, "float"]}, "k, argument 1 (u32): a number is needed, not float"),
    ({"args": [0, "bytes"]}, "k, argument 1 has 8 bytes, not 4"),
]
TWO_PARAMETERS = kernel("ret;", ".param .u64 p, .param .u32 n")
LAUNCH_CASES = [
    Case(str(options), TWO_PARAMETERS, sentence, {"args": [0, 1], **options}) for options, sentence in REFUSED
]

SOUND = kernel(".reg .b64 %a; ld.param.u64 %a, [p]; st.global.u32 [%a], 1; ret;", ".param .u64 p")
CASES = [*WILD_CASES, *SIZE_CASES, *LAUNCH_CASES, Case("sound", SOUND, [], {"args": ["array"]})]


@pytest.fixture(scope="module")
def outcomes() -> dict[str, Outcome]:
    """By case; those behind one that ended the process are missing."""
    lines = [json.dumps([case.text, {"grid": 1, "block": 32, **case.options}, case.machine]) for case in CASES]
    command = [sys.executable, "-c", CHILD]
    done = subprocess.run(command, input="\n".join(lines), capture_output=True, text=True, timeout=600)
    print(done.stderr[-4000:])
    return {case.name: json.loads(line) for case, line in zip(CASES, done.stdout.splitlines(), strict=False)}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_case(outcomes: dict[str, Outcome], case: Case) -> None:
    assert outcomes[case.name] == case.expected

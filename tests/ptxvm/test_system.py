"""What a kernel knows of its launch, and what it asks the system for: printf, assert, trap, malloc and free."""

from __future__ import annotations

import itertools
import re
from typing import Any

import numpy as np
import pytest

from flopcuda import ptx
from tests.ptxvm.harness import HEADER, compile_cuda, kernel, kinds, needs_nvcc

# ---- special registers ----

_AXES = ("x", "y", "z")
REGISTERS = [
    *(f"%{name}.{axis}" for name in ("tid", "ntid", "ctaid", "nctaid") for axis in _AXES),
    *(f"%{name}.{axis}" for name in ("clusterid", "nclusterid", "cluster_ctaid", "cluster_nctaid") for axis in _AXES),
    *("%laneid", "%warpid", "%lanemask_eq", "%lanemask_le", "%lanemask_lt", "%lanemask_ge", "%lanemask_gt"),
    *("%cluster_ctarank", "%cluster_nctarank", "%dynamic_smem_size", "WARP_SZ"),
]


@pytest.mark.parametrize("grid", [(1, 1, 1), (3, 2, 4), 7])
@pytest.mark.parametrize("block", [(5, 3, 3), (64, 1, 2), 33])
def test_special_registers(machine: ptx.Machine, grid: Any, block: Any) -> None:
    """Every thread writes down all of them, at a place that it computes from them."""
    record = 4 * len(REGISTERS)
    place = "".join(
        f"mov.u32 %n, %n{kind}id.{axis}; mov.u32 %i, %{kind}id.{axis}; mad.lo.u32 %at, %at, %n, %i;"
        for kind in ("cta", "t")
        for axis in reversed(_AXES)
    )
    writes = "".join(f"mov.u32 %i, {name}; st.global.u32 [%out+{4 * k}], %i;" for k, name in enumerate(REGISTERS))
    body = f"""
        .reg .b64 %out; .reg .b32 %at, %n, %i;
        mov.u32 %at, 0; {place} ld.param.u64 %out, [out]; mad.wide.u32 %out, %at, {record}, %out; {writes} ret;"""
    grids, blocks = (([*e] if isinstance(e, tuple) else [e, 1, 1]) for e in (grid, block))
    threads = int(np.prod(blocks))
    out = np.zeros((int(np.prod(grids)) * threads, len(REGISTERS)), np.uint32)
    text = kernel(body, ".param .u64 out")
    assert not machine.load(text).launch("k", grid, block, [out], shared_bytes=48).findings
    index = itertools.count()
    for cta in itertools.product(*map(range, reversed(grids))):
        for linear, thread in enumerate(itertools.product(*map(range, reversed(blocks)))):
            lane = linear % 32
            one, every = 1 << lane, 2**32 - 1
            block_id, thread_id = list(reversed(cta)), list(reversed(thread))
            assert out[next(index)].tolist() == [
                *(*thread_id, *blocks, *block_id, *grids),
                *(*block_id, *grids, 0, 0, 0, 1, 1, 1),  # a cluster is one block
                *(lane, linear // 32, one, 2 * one - 1, one - 1, every - (one - 1), every - (2 * one - 1)),
                *(0, 1, 48, 32),
            ]


def test_special_registers_of_the_device(machine: ptx.Machine) -> None:
    """Whatever these are, they are so for all threads, and below the numbers of which they are."""
    body = """
        .reg .b64 %out; .reg .b32 %r<6>;
        mov.u32 %r0, %tid.x; ld.param.u64 %out, [out]; mad.wide.u32 %out, %r0, 16, %out;
        mov.u32 %r1, %smid; mov.u32 %r2, %nsmid; mov.u32 %r3, %warpid; mov.u32 %r4, %nwarpid;
        st.global.v2.u32 [%out], {%r1, %r2}; st.global.v2.u32 [%out+8], {%r3, %r4}; ret;"""
    out = np.zeros((100, 4), np.uint32)
    assert not machine.load(kernel(body, ".param .u64 out")).launch("k", 1, 100, [out]).findings
    assert (out[:, 0] < out[:, 1]).all()
    assert (out[:, 2] < out[:, 3]).all()
    assert (out[:, [0, 1, 3]] == out[0, [0, 1, 3]]).all()


# ---- printf ----

#: Formats that C and Python read alike but for lengths, with their arguments as CUDA expressions and as Python values.
FORMATS: list[tuple[str, list[tuple[str, Any]]]] = [
    ("plain", []),
    ("100%% of %s|", [('"it"', "it")]),
    ("%d %i %u|", [("-5", -5), ("2147483647", 2147483647), ("4000000000u", 4000000000)]),
    ("%5d|%-5d|%05d|%+d|% d|", [("42", 42), ("42", 42), ("42", 42), ("42", 42), ("42", 42)]),
    ("%.3d|%8.3d|", [("7", 7), ("-7", -7)]),
    ("%x %X %#x %o|", [("255u", 255), ("255u", 255), ("255u", 255), ("8u", 8)]),
    ("%lld %llu %ld|", [("-1ll << 40", -(1 << 40)), ("~0ull", 2**64 - 1), ("1l << 50", 1 << 50)]),
    ("%zu|%d|", [("sizeof(int)", 4), ("3", 3)]),
    ("%c%c|%3c|", [("'a'", "a"), ("'%'", "%"), ("'z'", "z")]),
    ("%s %10s|%-10s|%.2s|", [('"x"', "x"), ('"right"', "right"), ('"left"', "left"), ('"cut"', "cut")]),
    ("%f %e %g|", [("1.5f", 1.5), ("12345.678", 12345.678), ("1e-10", 1e-10)]),
    ("%8.3f|%-8.1f|%+.0f|%G|%E|", [("3.14159", 3.14159), ("2.25", 2.25), ("1.0", 1.0), ("1e20", 1e20), ("0.0", 0.0)]),
    ("%*d|%-*d|%.*f|", [("6", 6), ("1", 1), ("6", 6), ("2", 2), ("3", 3), ("2.0", 2.0)]),
    ("%d %f %d %s %lld|", [("1", 1), ("2.5", 2.5), ("3", 3), ('"four"', "four"), ("5ll", 5)]),
    ('\\t\\\\ \\"quoted\\" \\x01|', []),
]


def as_python(text: str) -> str:
    """Python writes no lengths."""
    return re.sub("%(ll|l|z)", "%", text.encode().decode("unicode_escape"))


@needs_nvcc
@pytest.mark.parametrize("flags", [("-O3",), ("-G",)])
def test_printf(machine: ptx.Machine, flags: tuple[str, ...]) -> None:
    lines = [
        f'if (threadIdx.x == {k}) out[{k}] = printf("{text}\\n"{"".join(", " + code for code, _ in arguments)});'
        for k, (text, arguments) in enumerate(FORMATS)
    ]
    source = f'#include <cstdio>\nextern "C" __global__ void say(int* out) {{ {" ".join(lines)} }}'
    out = np.zeros(len(FORMATS), np.int32)
    result = machine.load(compile_cuda(source, *flags)).launch("say", 1, len(FORMATS), [out])
    assert not result.findings, result.findings
    want = [as_python(text) % tuple(value for _, value in arguments) for text, arguments in FORMATS]
    assert result.output.split("\n") == [*want, ""]
    # It returns how many arguments it took.
    assert out.tolist() == [len(arguments) for _, arguments in FORMATS]


@needs_nvcc
def test_printf_beyond_python(machine: ptx.Machine) -> None:
    source = """
        #include <cstdio>
        extern "C" __global__ void say(const char* null) {
          printf("%hd %hu %hhd %hhu|", 70000, 70000, 300, 300);
          printf("%a|%.60f|%p|", 1.5, 0.1, reinterpret_cast<void*>(0xabcd));
          printf("%600d|", 1);
        }"""
    output = machine.load(compile_cuda(source)).launch("say", 1, 1, [None]).output
    hexadecimal, digits, pointer, wide = output.split("|")[1:5]
    assert output.startswith("4464 4464 44 44|")
    assert float.fromhex(hexadecimal) == 1.5
    assert float(digits) == 0.1
    assert len(digits) == 62
    assert int(pointer, 16) == 0xABCD
    assert wide.strip() == "1"


def test_vprintf_by_hand(machine: ptx.Machine) -> None:
    """In the order of lanes and blocks; arguments lie in local memory, each aligned to its size."""
    text = f"""{HEADER}
        .extern .func (.param .b32 returned) vprintf (.param .b64 format, .param .b64 arguments);
        .global .align 1 .b8 text[12] = {{37, 100, 32, 37, 103, 32, 37, 108, 108, 120, 10, 0}};
        .visible .entry k(.param .u64 out)
        {{
          .local .align 8 .b8 frame[24]; .reg .b64 %a<4>; .reg .b32 %r<4>; .reg .f64 %f; .reg .pred %p;
          mov.u32 %r0, %tid.x; mov.u32 %r1, %ctaid.x; and.b32 %r2, %r0, 1; setp.eq.u32 %p, %r2, 0;
          cvt.rn.f64.u32 %f, %r0; mul.f64 %f, %f, 0d3FE0000000000000; mov.u64 %a0, 0xabc000000000;
          st.local.u32 [frame], %r1; st.local.f64 [frame+8], %f; st.local.u64 [frame+16], %a0;
          mov.u64 %a1, text; cvta.global.u64 %a1, %a1; mov.u64 %a2, frame; cvta.local.u64 %a2, %a2;
          {{ .param .b64 format; .param .b64 arguments; .param .b32 back; st.param.b64 [format], %a1;
            st.param.b64 [arguments], %a2; st.param.b32 [back], -7;
            @%p call.uni (back), vprintf, (format, arguments); ld.param.b32 %r3, [back]; }}
          ld.param.u64 %a3, [out]; mad.wide.u32 %a3, %r0, 4, %a3; st.global.u32 [%a3], %r3; ret;
        }}"""
    out = np.zeros(40, np.int32)
    result = machine.load(text).launch("k", 2, 40, [out])
    assert not result.findings, result.findings
    assert result.output == "".join(f"{b} {t / 2:g} abc000000000\n" for b in range(2) for t in range(0, 40, 2))
    assert out.tolist() == [3, -7] * 20


# ---- assert and trap ----

ASSERTION = """#include <cassert>
extern "C" __global__ void check(const int* x, int* out) {
  const int v = x[blockIdx.x * blockDim.x + threadIdx.x];
  assert(v != 13 && "unlucky");
  out[blockIdx.x * blockDim.x + threadIdx.x] = v;
}
"""


@needs_nvcc
@pytest.mark.parametrize("flags", [("-O3",), ("-G",)])
def test_assertion(machine: ptx.Machine, flags: tuple[str, ...]) -> None:
    module = machine.load(compile_cuda(ASSERTION, *flags))
    x, out = np.arange(20, 148, dtype=np.int32), np.zeros(128, np.int32)
    result = module.launch("check", 2, 64, [x, out])
    assert not result.findings
    assert not result.stopped
    assert (out == x).all()
    x[100] = 13
    result = module.launch("check", 2, 64, [x, out])
    assert result.stopped
    (finding,) = result.findings
    assert (finding.kind, finding.block, finding.thread) == ("trap", (1, 0, 0), (36, 0, 0))
    assert 'v != 13 && "unlucky"' in finding.message
    assert ".cu:4" in finding.message


@pytest.mark.parametrize("instruction", ["trap", "brkpt"])
def test_trap(machine: ptx.Machine, instruction: str) -> None:
    """Only of lanes that come to it; it ends the launch, so that later blocks do not run."""
    body = f"""
        .reg .b64 %a; .reg .b32 %r<4>; .reg .pred %p;
        mov.u32 %r0, %tid.x; mov.u32 %r1, %ctaid.x; ld.param.u64 %a, [out]; mad.lo.u32 %r2, %r1, 64, %r0;
        ld.param.u32 %r3, [bad]; setp.eq.u32 %p, %r2, %r3; @%p {instruction};
        mad.wide.u32 %a, %r2, 4, %a; st.global.u32 [%a], 1; ret;"""
    module = machine.load(kernel(body, ".param .u64 out, .param .u32 bad"))
    out = np.zeros(4 * 64, np.uint32)
    assert not module.launch("k", 4, 64, [out, 1000]).findings
    assert out.all()
    out[:] = 0
    result = module.launch("k", 4, 64, [out, 64 + 40])
    assert result.stopped
    (finding,) = result.findings
    assert (finding.kind, finding.block, finding.thread) == ("trap", (1, 0, 0), (40, 0, 0))
    assert instruction in finding.text
    assert out[:64].all()
    assert not out[64 + 40]
    assert not out[128:].any()


# ---- malloc and free ----

HEAP = """
struct Node { int value; Node* next; };

extern "C" __global__ void lists(int* out) {
  const int i = threadIdx.x;
  Node* head = nullptr;
  for (int k = 0; k <= i; ++k) head = new Node{k * i, head};
  int sum = 0;
  while (head) {
    sum = sum * 3 + head->value;
    Node* next = head->next;
    delete head;
    head = next;
  }
  out[i] = sum;
}

__device__ int* kept[64];

extern "C" __global__ void keep() {
  kept[threadIdx.x] = static_cast<int*>(malloc(16));
  for (int k = 0; k < 4; ++k) kept[threadIdx.x][k] = threadIdx.x * 10 + k;
}
extern "C" __global__ void use(int* out) {
  out[threadIdx.x] = kept[threadIdx.x][threadIdx.x % 4];
  free(kept[threadIdx.x]);
}

extern "C" __global__ void misuse(int which, int* out) {
  char* p = static_cast<char*>(malloc(24));
  *p = 1;
  if (which == 0) free(p + 1);
  if (which == 1) { free(p); free(p); }
  if (which == 2) { free(p); out[0] = *static_cast<volatile char*>(p); }
  if (which == 3) out[0] = *static_cast<volatile char*>(p + 24);
  if (which == 4) free(out);
  if (which == 5) { free(nullptr); out[0] = malloc(1ull << 40) == nullptr; free(p); }
}
"""


@needs_nvcc
@pytest.mark.parametrize("seed", [None, 1])
def test_lists_on_the_heap(seed: int | None) -> None:
    out = np.zeros(64, np.int32)
    result = ptx.Machine(seed=seed).load(compile_cuda(HEAP)).launch("lists", 1, 64, [out])
    assert not result.findings, result.findings
    for i in range(64):
        want = 0
        for k in range(i, -1, -1):
            want = want * 3 + k * i
        assert out[i] == (want + 2**31) % 2**32 - 2**31


@needs_nvcc
def test_the_heap_outlives_a_launch(machine: ptx.Machine) -> None:
    module = machine.load(compile_cuda(HEAP))
    out = np.zeros(64, np.int32)
    assert not module.launch("keep", 1, 64).findings
    assert not module.launch("use", 1, 64, [out]).findings
    assert out.tolist() == [i * 10 + i % 4 for i in range(64)]
    again = module.launch("use", 1, 64, [out])  # what has been freed
    assert kinds(again) == {"bounds"}


@needs_nvcc
@pytest.mark.parametrize("which", range(6))
def test_misuse_of_the_heap(machine: ptx.Machine, which: int) -> None:
    out = np.zeros(1, np.int32)
    result = machine.load(compile_cuda(HEAP)).launch("misuse", 1, 1, [which, out])
    assert kinds(result) == (set() if which == 5 else {"bounds"})
    assert out[0] == (which == 5)

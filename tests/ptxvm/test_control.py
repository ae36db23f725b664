"""Branches, predicates, loops, calls: where the lanes of a warp go, what they compute there, and how it is counted."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from flopcuda import ptx
from tests.ptxvm import structured
from tests.ptxvm.harness import (
    compile_cuda,
    kernel,
    kinds,
    needs_nvcc,
    observe_instruction,
    run_instruction,
)
from tests.ptxvm.reference import signed

MASK = 0xFFFFFFFF
BLOCK = 128


def words(seed: int, count: int = BLOCK) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**32, count, dtype=np.uint32)


# ---- predicates ----

Instruction = tuple[str, Callable[[np.ndarray], np.ndarray]]

UNTOUCHED = 0xABCDEF01

#: Instructions of every kind over %x0 and the thread's number %i, {p} being the guard; and what %y then is.
PREDICATED: dict[str, Instruction] = {
    "mov": ("{p} mov.b32 %y, %x0;", lambda x: x),
    "add": ("{p} add.u32 %y, %x0, 7;", lambda x: x + np.uint32(7)),
    "mad": ("{p} mad.lo.u32 %y, %x0, %x0, 1;", lambda x: x * x + np.uint32(1)),
    "shl": ("{p} shl.b32 %y, %x0, 3;", lambda x: x << np.uint32(3)),
    "lop3": ("{p} lop3.b32 %y, %x0, 0xff, 0, 0x3c;", lambda x: x ^ np.uint32(0xFF)),
    "prmt": ("{p} prmt.b32 %y, %x0, 0, 0x0123;", lambda x: x.byteswap()),
    "selp": ("setp.ne.u32 %p4, 0, 1; {p} selp.b32 %y, %x0, 0, %p4;", lambda x: x),
    "set": ("{p} set.lt.u32.u32 %y, %x0, 0x80000000;", lambda x: np.where(x < 1 << 31, MASK, 0)),
    "setp": (
        "setp.eq.u32 %p4, 0, 1; {p} setp.ge.u32 %p4, %x0, 0; @%p4 mov.u32 %y, 5;",
        lambda x: np.full_like(x, 5),
    ),
    "logic of predicates": (
        "setp.eq.u32 %p4, 0, 1; setp.ge.u32 %p5, %x0, 0; {p} or.pred %p4, %p4, %p5; @%p4 mov.u32 %y, 5;",
        lambda x: np.full_like(x, 5),
    ),
    "cvt": ("{p} cvt.u32.u16 %y, %h0;", lambda x: x & np.uint32(0xFFFF)),
    "wide": ("cvt.u64.u32 %u1, %y; {p} mul.wide.u32 %u1, %x0, 1; cvt.u32.u64 %y, %u1;", lambda x: x),
    "16 bits": (
        "mov.b32 {{%h1, %h2}}, %y; {p} add.u16 %h1, %h0, 0; {p} mov.u16 %h2, 0; mov.b32 %y, {{%h1, %h2}};",
        lambda x: x & np.uint32(0xFFFF),
    ),
    "fma": ("cvt.rn.f32.u16 %t1, %h0; {p} fma.rn.f32 %y, %t1, 0f3F800000, 0f00000000;", lambda x: single(x & 0xFFFF)),
    "special register": ("{p} mov.u32 %y, %tid.x;", lambda x: np.arange(BLOCK, dtype=np.uint32)),
    "pack": ("{p} mov.b32 %y, {{%h0, %h0}};", lambda x: (x & 0xFFFF) * np.uint32(0x10001)),
    "unpack": (
        "{p} mov.b32 {{%h0, %h1}}, 0x12345678; cvt.u32.u16 %t0, %h0; {p} mov.u32 %y, %t0;",
        lambda x: const(0x5678),
    ),
    "address": ("mov.u32 %t0, 0; {p} mov.u32 %t0, s; {p} add.u32 %y, %t0, 1;", lambda x: const(1)),
    "ld.shared": ("st.shared.u32 [%t2], %x0; {p} ld.shared.u32 %y, [%t2];", lambda x: x),
    "ld.shared.v2": ("st.shared.v2.u32 [%t2], {{%x0, 1}}; {p} ld.shared.v2.u32 {{%y, %t3}}, [%t2];", lambda x: x),
    "st.shared": ("st.shared.u32 [%t2], %y; {p} st.shared.u32 [%t2], %x0; ld.shared.u32 %y, [%t2];", lambda x: x),
    "ld.local": ("st.local.u32 [l], %x0; {p} ld.local.u32 %y, [l];", lambda x: x),
    "st.local": ("st.local.u32 [l], %y; {p} st.local.u32 [l], %x0; ld.local.u32 %y, [l];", lambda x: x),
    "ld.param": ("{p} ld.param.u32 %y, [in0];", lambda x: const(x.ctypes.data & MASK)),
    "ld.const": ("{p} ld.const.u32 %y, [c];", lambda x: const(99)),
    "ld.global": ("{p} ld.global.u32 %y, [g];", lambda x: const(77)),
    "atom": ("st.shared.u32 [%t2], %x0; {p} atom.shared.add.u32 %y, [%t2], 1;", lambda x: x),
    "red": (
        "st.shared.u32 [%t2], %y; {p} red.shared.xor.b32 [%t2], -1; ld.shared.u32 %y, [%t2]; {p} mov.b32 %y, %x0;",
        lambda x: x,
    ),
    "cp.async": (
        "st.shared.u32 [%t2], %y; mov.u64 %u1, g; {p} cp.async.ca.shared.global [%t2], [%u1], 4; cp.async.wait_all;"
        " ld.shared.u32 %y, [%t2];",
        lambda x: const(77),
    ),
    "prefetch": ("mov.u64 %u1, g; {p} prefetch.global.L2 [%u1]; {p} mov.b32 %y, %x0;", lambda x: x),
    "isspacep": ("setp.eq.u32 %p4, 0, 1; {p} isspacep.shared %p4, 0; {p} mov.b32 %y, %x0;", lambda x: x),
    "elect": ("{p} elect.sync %t0|%p4, %t1; {p} and.b32 %y, %t0, 0;", lambda x: const(0)),
    "redux": ("{p} redux.sync.or.b32 %t0, %x0, %t1; {p} and.b32 %y, %t0, 0;", lambda x: const(0)),
    "activemask": ("{p} activemask.b32 %t0; {p} and.b32 %y, %t0, 0;", lambda x: const(0)),
    "match": ("{p} match.any.sync.b32 %t0, 1, %t1; {p} and.b32 %y, %t0, 0;", lambda x: const(0)),
    "vote": ("{p} vote.sync.ballot.b32 %t0, %p2, %t1; {p} sub.u32 %y, %t0, %t1;", lambda x: const(0)),
    "shfl": ("mov.u32 %t0, %laneid; {p} shfl.sync.idx.b32 %y, %x0, %t0, 31, %t1;", lambda x: x),
    "bar.warp": ("{p} bar.warp.sync %t1; {p} mov.b32 %y, %x0;", lambda x: x),
    "fence": ("{p} membar.cta; {p} mov.b32 %y, %x0;", lambda x: x),
    "nanosleep": ("{p} nanosleep.u32 10; {p} mov.b32 %y, %x0;", lambda x: x),
    "call": (
        "{{ .param .b32 to; .param .b32 from; st.param.b32 [to], %x0; st.param.b32 [from], %y;"
        " {p} call (from), negated, (to); {p} ld.param.b32 %y, [from]; }}",
        lambda x: ~x,
    ),
    "bra": ("{p} bra THERE; bra HERE; THERE: mov.b32 %y, %x0; HERE:", lambda x: x),
    "brx.idx": (
        "WAYS: .branchtargets AWAY, THERE; {p} brx.idx 1, WAYS; bra AWAY; THERE: mov.b32 %y, %x0; AWAY:",
        lambda x: x,
    ),
}

VARIABLES = """
.const .u32 c = 99; .global .u32 g = 77;
.func (.param .b32 out) negated(.param .b32 x) {
  .reg .b32 %r; ld.param.u32 %r, [x]; not.b32 %r, %r; st.param.b32 [out], %r; ret;
}
"""


def const(value: int) -> np.ndarray:
    return np.full(BLOCK, value, np.uint32)


def single(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float32).view(np.uint32)


@pytest.mark.parametrize("guard", ["@%p3", "@!%p3"])
@pytest.mark.parametrize("name", PREDICATED)
def test_predicated(name: str, guard: str) -> None:
    """Lanes that do not pass the guard keep what they had, and are not counted."""
    text, expected = PREDICATED[name]
    setup = f"""
        mov.b32 %y, {UNTOUCHED}; mov.b32 {{%h0, %h1}}, %x0; mov.u32 %t2, s; mad.lo.u32 %t2, %i, 8, %t2;
        setp.ne.u32 %p3, %x1, 0; setp.ne.u32 %p2, %x2, 0; vote.sync.ballot.b32 %t1, %p2, -1;"""

    def run(chosen: np.ndarray) -> tuple[np.ndarray, Counter[str]]:
        got, result = observe_instruction(
            setup + text.format(p=guard),
            [x, (chosen == (guard == "@%p3")).astype(np.uint32), chosen.astype(np.uint32)],
            declarations=f".shared .align 8 .b8 s[{8 * BLOCK}]; .local .align 4 .b8 l[4];",
            module=VARIABLES,
        )
        return got, result.counts

    x, chosen = words(1), np.random.default_rng(2).random(BLOCK) < 0.5
    chosen[:32], chosen[32:64] = False, True
    got, counts = run(chosen)
    assert (got == np.where(chosen, expected(x), UNTOUCHED)).all()
    idle, without = run(np.zeros(BLOCK, bool))
    assert (idle == UNTOUCHED).all()
    guarded = Counter(part.split()[0].rstrip(";") for part in text.split("{p} ")[1:])
    del guarded["bra"]  # every lane that comes to a conditional branch executes it
    for opcode, times in guarded.items():
        assert counts[opcode] - without[opcode] == times * chosen.sum(), opcode


# ---- structured programs ----


def check_structured(program: list[structured.Block], seed: int) -> None:
    given_words = words(seed, 4 * 45).reshape(45, 4)
    out = np.zeros_like(given_words)
    text = structured.write(program)
    result = ptx.Machine(threads=1).load(text).launch("k", 1, 45, [given_words, out])
    want, counts = structured.simulate(program, given_words)
    assert not result.findings, (text, result.findings)
    # Lanes that wait very long for others go ahead without them; below that, they always meet where they can.
    assume(result.warp_instructions < 20_000)
    assert (out == want).all(), text
    assert (result.branches, result.diverged_branches) == (counts["branches"], counts["diverged branches"]), text
    for opcode in [*structured.OPERATIONS, *structured.REDUCTIONS, "mul.wide.u32", "setp.lt.u32", "call"]:
        # The kernel's own prologue has one wide product.
        own = counts[opcode] + (len(out) if opcode == "mul.wide.u32" else 0)
        assert result.counts[opcode] == own, (text, opcode)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(structured.programs, st.integers(0, 2**32))
def test_structured_programs(program: list[structured.Block], seed: int) -> None:
    check_structured(program, seed)


@pytest.mark.slow
@settings(max_examples=3000, deadline=None, suppress_health_check=list(HealthCheck))
@given(structured.programs, st.integers(0, 2**32))
def test_many_structured_programs(program: list[structured.Block], seed: int) -> None:
    check_structured(program, seed)


# ---- flow of any kind ----


class Graph:
    """A random flow graph, reducible or not: each block mixes a word, and spends one of a thread's steps."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.blocks = int(rng.integers(2, 10))
        self.factors = (rng.integers(0, 2**31, self.blocks) | 1).tolist()
        self.kinds = rng.choice(["goto", "branch", "switch", "return"], self.blocks, p=[0.2, 0.5, 0.2, 0.1]).tolist()
        self.kinds[0] = "switch"
        self.targets = rng.integers(0, self.blocks, (self.blocks, 4)).tolist()

    def write(self) -> str:
        lines = []
        for k, (factor, kind, targets) in enumerate(zip(self.factors, self.kinds, self.targets, strict=True)):
            lines.append(f"B{k}: mad.lo.u32 %x0, %x0, {factor}, {k}; sub.u32 %x1, %x1, 1;")
            lines.append("setp.eq.u32 %p0, %x1, 0; @%p0 bra DONE; shr.u32 %t0, %x0, 13;")
            a, b, *_ = targets
            if kind == "goto":
                lines.append(f"bra B{a};")
            elif kind == "return":
                lines.append("bra DONE;")
            elif kind == "branch":
                lines.append(f"and.b32 %t0, %t0, 1; setp.ne.u32 %p1, %t0, 0; @%p1 bra B{a}; bra B{b};")
            else:
                lines.append(f"T{k}: .branchtargets {', '.join(f'B{t}' for t in targets)};")
                lines.append(f"and.b32 %t0, %t0, 3; brx.idx %t0, T{k};")
        return "\n".join([*lines, "DONE: mov.u32 %y, %x0;"])

    def run(self, word: int, steps: int) -> tuple[int, int]:
        """What a thread gives, and the blocks it visits."""
        block, visits = 0, 0
        while True:
            word = (word * self.factors[block] + block) & MASK
            visits += 1
            bits = word >> 13
            kind, targets = self.kinds[block], self.targets[block]
            if visits == steps or kind == "return":
                return word, visits
            way = {"goto": 0, "branch": 1 - bits % 2, "switch": bits % 4}[kind]
            block = targets[way]


@pytest.mark.parametrize("seed", range(40))
def test_any_flow(seed: int) -> None:
    graph = Graph(seed)
    x, steps = words(seed), np.random.default_rng(seed).integers(1, 40, BLOCK).astype(np.uint32)
    got, result = observe_instruction(graph.write(), [x, steps])
    want = [graph.run(int(word), int(count)) for word, count in zip(x, steps, strict=True)]
    assert got.tolist() == [word for word, _ in want]
    setup = BLOCK  # one mad.lo for the thread's number
    assert result.counts["mad.lo.u32"] == setup + sum(visits for _, visits in want)


def test_lanes_meet_in_a_loop_with_two_entries() -> None:
    """Odd lanes enter in the middle and need ten rounds from there, as the even ones from the top; all go together."""
    text = """
        mov.u32 %t0, 0; setp.ne.u32 %p0, %x0, 0; @%p0 bra MIDDLE;
        TOP: add.u32 %t0, %t0, 1;
        MIDDLE: add.u32 %t0, %t0, 100; setp.lt.u32 %p1, %t0, 1000; @%p1 bra TOP;
        activemask.b32 %y;"""
    active, result = observe_instruction(text, [np.arange(32, dtype=np.uint32) % 2])
    assert (active == MASK).all()
    assert result.branches in (1 + 10, 1 + 11)  # by which entry the loop's head is; apart they would be 1 + 20


@pytest.mark.parametrize("end", ["", "ret;", "exit;"])
def test_the_end_of_the_text_is_an_end(machine: ptx.Machine, end: str) -> None:
    """Of a kernel and, but for exit, of a function; branches may go there."""
    function = """
        .func (.param .b32 out) half(.param .b32 x) {
          .reg .b32 %r; .reg .pred %p; ld.param.b32 %r, [x]; st.param.b32 [out], %r; setp.lt.u32 %p, %r, 10;
          @%p bra END; shr.u32 %r, %r, 1; st.param.b32 [out], %r; END: }"""
    body = f"""
        .reg .b64 %a; .reg .b32 %r<3>; .reg .pred %p; mov.u32 %r0, %tid.x;
        ld.param.u64 %a, [out]; mad.wide.u32 %a, %r0, 4, %a;
        {{ .param .b32 to; .param .b32 from;
          st.param.b32 [to], %r0; call (from), half, (to); ld.param.b32 %r1, [from]; }}
        st.global.u32 [%a], %r1; setp.gt.u32 %p, %r0, 20; @%p bra LAST;
        st.global.u32 [%a], 1; LAST: {end}"""
    out = np.zeros(40, np.uint32)
    assert not machine.load(kernel(body, ".param .u64 out", module=function)).launch("k", 1, 40, [out]).findings
    assert out.tolist() == [1] * 21 + [thread // 2 for thread in range(21, 40)]


# ---- what is counted ----


def test_counts_of_divergence(machine: ptx.Machine) -> None:
    """A loop in which lane l makes l % 4 rounds, and a branch around nothing."""
    body = """
        .reg .b32 %r<4>; .reg .pred %p<3>;
        mov.u32 %r0, %laneid; and.b32 %r1, %r0, 3; mov.u32 %r2, 0;
        TEST: setp.lt.u32 %p0, %r2, %r1; @!%p0 bra END;
        add.u32 %r2, %r2, 1; bra TEST;
        END: setp.lt.u32 %p1, %r0, 16; @%p1 bra NEXT;
        NEXT: not.b32 %r3, %r2; ret;"""
    result = machine.load(kernel(body)).launch("k", 5, 64)
    warps = 5 * 2
    assert not result.findings
    assert result.counts["add.u32"] == warps * 8 * (0 + 1 + 2 + 3)
    assert result.counts["setp.lt.u32"] == warps * (8 * (1 + 2 + 3 + 4) + 32)
    assert result.counts["bra"] == result.counts["setp.lt.u32"] + result.counts["add.u32"]
    # Four tests of the loop, of which each lets some lanes go and, but for the last, others stay.
    assert result.branches == warps * (4 + 1)
    assert result.diverged_branches == warps * 3
    assert result.warp_instructions == warps * (3 + 4 * 2 + 3 * 2 + 2 + 2)
    assert result.lane_instructions == sum(result.counts.values())


def test_instructions_of_warps(machine: ptx.Machine) -> None:
    """Both sides of a branch are issued, a side without lanes is not; what no lane's guard passes is issued."""
    body = """
        .reg .b32 %r<4>; .reg .pred %p<3>;
        mov.u32 %r0, %laneid; mov.u32 %r1, %ctaid.x; setp.lt.u32 %p0, %r0, %r1; setp.gt.u32 %p1, %r0, 99;
        @%p0 bra SIDE;
        add.u32 %r2, %r0, 1; add.u32 %r2, %r2, 1; bra END;
        SIDE: sub.u32 %r2, %r0, 1;
        END: @%p1 mul.lo.u32 %r3, %r2, %r2; @%p1 ret;
        nanosleep.u32 5; bar.sync 0; vote.sync.ballot.b32 %r3, %p0, -1; ret;"""
    module = machine.load(kernel(body))
    alone = module.launch("k", 1, 32)
    assert alone.warp_instructions == 5 + 3 + 2 + 4
    three = module.launch("k", 3, 32)
    assert three.warp_instructions == 3 * (5 + 3 + 2 + 4) + 2 * 1
    assert three.diverged_branches == 2


# ---- brx.idx ----


def test_branch_targets_beyond_the_list(machine: ptx.Machine) -> None:
    body = """
        .reg .b32 %r; mov.u32 %r, %laneid;
        T: .branchtargets A, B; brx.idx %r, T; A: B: ret;"""
    result = machine.load(kernel(body)).launch("k", 1, 32)
    assert kinds(result) == {"call"}
    assert result.stopped


# ---- calls ----

_SCALARS = {"b8": 1, "u8": 1, "s16": 2, "b16": 2, "u32": 4, "f32": 4, "b64": 8, "f64": 8}
_parameter = st.tuples(st.sampled_from(list(_SCALARS)), st.just(0), st.just(0)) | st.tuples(
    st.just("struct"), st.integers(1, 40), st.sampled_from([1, 2, 4, 8, 16])
)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(_parameter, min_size=1, max_size=8))
def test_parameters_of_functions(parameters: list[tuple[str, int, int]]) -> None:
    """A function of all kinds of parameters gives all their bytes back in one structure."""
    total = sum(size or _SCALARS[name] for name, size, _ in parameters)
    declared, passed, copied = [], [], []
    at = 0
    for k, (name, size, align) in enumerate(parameters):
        scalar = name != "struct"
        size = _SCALARS[name] if scalar else size
        declared.append(f".param .{name} p{k}" if scalar else f".param .align {align} .b8 p{k}[{size}]")
        passed += [f"ld.global.b8 %h, [%a+{at + b}]; st.param.b8 [p{k}+{b}], %h;" for b in range(size)]
        step = size if scalar else 1
        register = {1: "%h", 2: "%h", 4: "%r", 8: "%d"}[step]
        for byte in range(0, size, step):
            copied.append(f"ld.param.b{8 * step} {register}, [p{k}+{byte}];")
            if scalar and at % step:  # no place for the whole value
                copied.append(f"st.local.b{8 * step} [spill], {register};")
                copied += [f"ld.local.b8 %h, [spill+{b}]; st.param.b8 [all+{at + b}], %h;" for b in range(step)]
            else:
                copied.append(f"st.param.b{8 * step} [all+{at + byte}], {register};")
        at += size
    registers = ".reg .b16 %h; .reg .b32 %r; .reg .b64 %d, %a, %o;"
    function = f"""
        .func (.param .align 8 .b8 all[{total}]) f({", ".join(declared)})
        {{ {registers} .local .align 8 .b8 spill[8]; {" ".join(copied)} ret; }}"""
    body = f"""
        {registers} .reg .b32 %t;
        mov.u32 %t, %tid.x; mul.wide.u32 %d, %t, {total};
        ld.param.u64 %a, [in]; add.s64 %a, %a, %d; ld.param.u64 %o, [out]; add.s64 %o, %o, %d;
        {{ {" ".join(f"{d};" for d in declared)} .param .align 8 .b8 back[{total}];
        {" ".join(passed)}
        call.uni (back), f, ({", ".join(f"p{k}" for k in range(len(parameters)))});
        {" ".join(f"ld.param.b8 %h, [back+{b}]; st.global.b8 [%o+{b}], %h;" for b in range(total))} }}
        ret;"""
    given_bytes = np.random.default_rng(total).integers(0, 256, 45 * total, dtype=np.uint8)
    out = np.zeros_like(given_bytes)
    text = kernel(body, ".param .u64 in, .param .u64 out", module=function)
    result = ptx.Machine(threads=1).load(text).launch("k", 1, 45, [given_bytes, out])
    assert not result.findings, (text, result.findings)
    assert (out == given_bytes).all(), text


FIBONACCI = """
.func (.param .b32 out) fib(.param .b32 n)
{
  .reg .b32 %r<5>; .reg .pred %p;
  ld.param.u32 %r0, [n]; setp.lt.u32 %p, %r0, 2; @%p st.param.b32 [out], %r0; @%p ret;
  sub.u32 %r1, %r0, 1;
  { .param .b32 to; .param .b32 from; st.param.b32 [to], %r1; call (from), fib, (to); ld.param.b32 %r2, [from]; }
  sub.u32 %r1, %r0, 2;
  { .param .b32 to; .param .b32 from; st.param.b32 [to], %r1; call (from), fib, (to); ld.param.b32 %r3, [from]; }
  add.u32 %r4, %r2, %r3; st.param.b32 [out], %r4; ret;
}
"""

CALL_FIBONACCI = (
    "{ .param .b32 to; .param .b32 from; st.param.b32 [to], %x0; call (from), fib, (to); ld.param.b32 %y, [from]; }"
)


@functools.cache
def fibonacci(n: int) -> tuple[int, int]:
    """The number, and the calls that compute it."""
    if n < 2:
        return n, 1
    (a, x), (b, y) = fibonacci(n - 1), fibonacci(n - 2)
    return a + b, x + y + 1


def test_divergent_recursion() -> None:
    n = np.random.default_rng(3).integers(0, 10, BLOCK).astype(np.uint32)
    got, result = observe_instruction(CALL_FIBONACCI, [n], module=FIBONACCI)
    assert got.tolist() == [fibonacci(int(v))[0] for v in n]
    assert result.counts["call"] == sum(fibonacci(int(v))[1] for v in n)


def test_recursion_without_end(machine: ptx.Machine) -> None:
    function = ".func f() { .local .b32 frame; st.local.b32 [frame], 1; call f; ret; }"
    result = machine.load(kernel("call f; ret;", module=function)).launch("k", 1, 32)
    assert kinds(result) == {"call"}
    assert result.stopped


POINTERS = (
    "".join(
        f".func (.param .b32 out) f{k}(.param .b32 x) {{ .reg .b32 %r; ld.param.b32 %r, [x]; {operation} "
        "st.param.b32 [out], %r; ret; }\n"
        for k, operation in enumerate(["add.u32 %r, %r, 5;", "mul.lo.u32 %r, %r, 3;", "not.b32 %r, %r;", ""])
    )
    + ".func g(.param .b64 x) { ret; }\n"
    + ".func (.param .b64 out) h(.param .b32 x) { st.param.b64 [out], 1; ret; }\n"
    + ".global .u64 table[5] = {f0, f1, f2, f3, h};\n"
)

CALL_POINTER = """
    {{ .param .b32 to; .param .b32 from; st.param.b32 [to], %x0;
    P: .callprototype (.param .b32 _) _ (.param .b32 _);
    {guard} call (from), {pointer}, (to), P; ld.param.b32 %y, [from]; }}"""


def test_calls_by_pointer() -> None:
    """Lanes call different functions of a table, and one by its name."""
    x, which = words(4), np.random.default_rng(5).integers(0, 5, BLOCK).astype(np.uint32)
    text = f"""
        setp.eq.u32 %p0, %x1, 4; mov.u64 %u0, table; mul.wide.u32 %u1, %x1, 8; add.s64 %u0, %u0, %u1;
        ld.global.u64 %u2, [%u0]; mov.u64 %u3, f1; selp.b64 %u2, %u3, %u2, %p0;
        {CALL_POINTER.format(guard="", pointer="%u2")}"""
    got, result = observe_instruction(text, [x, which], module=POINTERS)
    want = [x + np.uint32(5), x * np.uint32(3), ~x, x, x * np.uint32(3)]
    assert (got == np.choose(which, want)).all()
    assert result.counts["call"] == BLOCK
    assert result.counts["not.b32"] == (which == 2).sum()


BAD_POINTERS = {
    "null": "mov.u64 %u, 0;",
    "a number": "mov.u64 %u, 1234;",
    "data": "mov.u64 %u, table;",
    "fewer parameters": "mov.u64 %u, g;",
    "a wider result": "mov.u64 %u, h;",
}


@pytest.mark.parametrize("pointer", BAD_POINTERS)
def test_calls_through_bad_pointers(machine: ptx.Machine, pointer: str) -> None:
    call = CALL_POINTER.format(guard="", pointer="%u")
    body = f".reg .b64 %u; .reg .b32 %x0, %y; mov.u32 %x0, 1; {BAD_POINTERS[pointer]} {call} ret;"
    result = machine.load(kernel(body, module=POINTERS)).launch("k", 1, 32)
    assert kinds(result) == {"call"}
    assert result.stopped


def test_exit_in_a_function() -> None:
    """The thread ends, whatever called it; the others come back."""
    function = """
        .func leave(.param .b32 x) {
          .reg .b32 %r; .reg .pred %p; ld.param.b32 %r, [x]; setp.lt.u32 %p, %r, 0x80000000; @%p exit; ret; }"""
    x = words(6)
    text = "{ .param .b32 to; st.param.b32 [to], %x0; call leave, (to); } mov.u32 %y, 1;"
    assert (run_instruction(text, [x], module=function) == (x >= 1 << 31)).all()


@pytest.mark.parametrize(
    "text",
    [
        "bra NOWHERE;",
        "bra.sat HERE; HERE:",
        "bra %t0;",
        "@%t0 bra HERE; HERE:",
        "@%p9 bra HERE; HERE:",
        "HERE: HERE: mov.b32 %y, 0;",
        "brx.idx %t0, NOWHERE;",
        "brx %t0, NOWHERE;",
        "T: .branchtargets NOWHERE; brx.idx %t0, T;",
        "T: .branchtargets HERE; brx.idx.sat %t0, T; HERE:",
        "T: .branchtargets HERE; brx.idx %u0, T; HERE:",
        "ret 1;",
        "exit.sat;",
        "call nobody;",
        "call k;",
        "call %u0;",
        "call %u0, (), P;",
        "call fib;",
        "{ .param .b64 to; .param .b32 from; call (from), fib, (to); }",
        "{ .param .b32 to; .param .b32 from; call (from), fib, (%t0); }",
        "call.sat fib;",
    ],
)
def test_what_is_not_ptx_is_refused(text: str) -> None:
    with pytest.raises(ptx.PtxError) as error:
        run_instruction(f"{text} mov.b32 %y, 0;", [words(0, 1)], module=FIBONACCI)
    assert error.value.kernel == "k"
    assert error.value.line


# ---- the same from CUDA ----

CUDA = """
struct Small { char tag; double value; };
struct Large { int words[11]; Small small; short tail; };

__device__ __noinline__ Large rotate(Large x, int by, Small extra) {
  Large result;
  for (int k = 0; k < 11; ++k) result.words[k] = x.words[(k + by) % 11];
  result.small = by % 2 ? extra : x.small;
  result.tail = static_cast<short>(x.tail - by);
  return result;
}

__device__ __noinline__ unsigned ackermann(unsigned m, unsigned n) {
  if (m == 0) return n + 1;
  return n == 0 ? ackermann(m - 1, 1) : ackermann(m - 1, ackermann(m, n - 1));
}

__device__ __noinline__ int plus(int x) { return x + 1; }
__device__ __noinline__ int times(int x) { return x * 3; }
__device__ int (*const functions[2])(int) = {plus, times};

struct Shape {
  __device__ virtual int area() const { return 1; }
};
struct Square : Shape {
  int side;
  __device__ explicit Square(int side) : side(side) {}
  __device__ int area() const override { return side * side; }
};

__device__ __noinline__ int area(const Shape& shape) { return shape.area(); }

__device__ __noinline__ int collatz(unsigned x) {
  int steps = 0;
  for (;;) {
    if (x == 1) break;
    if (++steps > 200) return -1;
    if (x % 2) {
      x = 3 * x + 1;
      continue;
    }
    x /= 2;
  }
  return steps;
}

extern "C" __global__ void control(const int* x, int* out) {
  const int i = threadIdx.x, v = x[i];
  int* o = out + 8 * i;
  Large large;
  for (int k = 0; k < 11; ++k) large.words[k] = v + k;
  large.small = {'a', 0.5};
  large.tail = 7;
  const Large turned = rotate(large, i, {'b', 2.5});
  o[0] = turned.words[2];
  o[1] = turned.small.tag * 1000 + static_cast<int>(turned.small.value * 10) + turned.tail * 100000;
  o[2] = ackermann(v % 3, v % 5);
  o[3] = functions[v % 2](v);
  const Square square(v);
  const Shape shape;
  o[4] = v % 3 ? area(square) : area(shape);
  o[5] = collatz(v);
  switch (v % 7) {
    case 0: o[6] = 10; break;
    case 1: o[6] = 11;
    case 2: o[6] = v * 5; break;
    case 3: o[6] = -v; break;
    case 4: o[6] = v ^ 77; break;
    case 5: if (v > 20) { o[6] = 1; break; }
    default: o[6] = -99;
  }
  int spins = v;
again:
  if (spins > 10) {
    spins -= 7;
    if (spins % 5 == 0) goto out;
    goto again;
  }
  spins = -spins;
out:
  o[7] = spins;
}
"""


def control(i: int, v: int) -> list[int]:
    """What thread i of CUDA gives."""
    tag, value = (ord("b"), 25) if i % 2 else (ord("a"), 5)
    ackermann = {0: lambda n: n + 1, 1: lambda n: n + 2, 2: lambda n: 2 * n + 3}[v % 3](v % 5)
    x, steps = v, 0
    while x != 1:
        steps += 1
        x = 3 * x + 1 if x % 2 else x // 2
    cases = [10, v * 5, v * 5, -v, v ^ 77, 1 if v > 20 else -99, -99]
    spins = v
    while spins > 10:
        spins -= 7
        if spins % 5 == 0:
            break
    else:
        spins = -spins
    return [
        v + (2 + i) % 11,
        tag * 1000 + value + (7 - i) * 100000,
        ackermann,
        v * 3 if v % 2 else v + 1,
        v * v if v % 3 else 1,
        steps,
        cases[v % 7],
        spins,
    ]


@needs_nvcc
@pytest.mark.parametrize("flags", [("-O3",), ("-G",)])
def test_control_flow_of_cuda(machine: ptx.Machine, flags: tuple[str, ...]) -> None:
    x = np.random.default_rng(7).integers(1, 40, 70).astype(np.int32)
    out = np.zeros((70, 8), np.int32)
    result = machine.load(compile_cuda(CUDA, *flags)).launch("control", 1, 70, [x, out])
    # Padding is copied with a structure, though nobody writes it.
    assert kinds(result) <= {"uninitialised"}, result.findings
    for i in range(70):
        want = control(i, int(x[i]))
        assert out[i].tolist() == [signed(value, 32) for value in want], i

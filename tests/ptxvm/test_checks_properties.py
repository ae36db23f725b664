"""Random little programs of accesses and barriers: the checks find just what a model in Python finds by brute force.

The model knows the happens-before order from vector clocks of single threads, and compares all accesses in pairs.
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from flopcuda import ptx
from tests.ptxvm.harness import kernel

LANES = 32
SHARED_BYTES = 256
LOCAL_BYTES = 32
SETTINGS = ((1, None), (1, 1), (2, 2))  #: threads of the host, seed of the order


@dataclass(frozen=True)
class Access:
    """One instruction: where each thread goes; nowhere, if that is None."""

    opcode: str  #: "ld", "st" or "atom"
    size: int
    addresses: tuple[int | None, ...]

    def text(self, space: str) -> str:
        kind = f"{space}.b{8 * self.size}"
        if self.opcode == "ld":
            return f"@%p0 ld.{kind} %v{self.size}, [%r1];"
        if self.opcode == "st":
            return f"@%p0 st.{kind} [%r1], %v{self.size};"
        return f"@%p0 atom.shared.add.u{8 * self.size} %v{self.size}, [%r1], 1;"


@dataclass(frozen=True)
class Barrier:
    """Threads that wait for each other; those of one group do not wait for those of another."""

    text: str
    groups: tuple[tuple[int, ...], ...]


Step = Access | Barrier


# ---- the model ----


@dataclass(frozen=True)
class Done:
    """A thread's part of an access, and until which step it then knew every thread's doings."""

    step: int
    thread: int
    low: int
    high: int
    opcode: str
    known: tuple[int, ...]

    def overlaps(self, other: Done) -> bool:
        return self.low < other.high and other.low < self.high

    def comes_before(self, other: Done) -> bool:
        """In every order in which the threads may run."""
        if self.thread == other.thread:
            return self.step < other.step
        return self.step <= other.known[self.thread]

    def races_with(self, other: Done) -> bool:
        writes = {self.opcode, other.opcode} != {"ld"}
        both_atomic = self.opcode == other.opcode == "atom"
        ordered = self.comes_before(other) or other.comes_before(self)
        return self.thread != other.thread and writes and not both_atomic and not ordered and self.overlaps(other)


def expected(steps: list[Step], threads: int, size: int) -> Counter[tuple[str, int]]:
    """How many threads each check finds, by its name and the step."""
    found: Counter[tuple[str, int]] = Counter()
    known = [[-1] * threads for _ in range(threads)]
    done: list[Done] = []
    for number, step in enumerate(steps):
        if isinstance(step, Barrier):
            for group in step.groups:
                merged = [max(known[t][other] for t in group) for other in range(threads)]
                for thread in group:
                    merged[thread] = number
                for thread in group:
                    known[thread] = list(merged)
            continue
        for thread, address in enumerate(step.addresses):
            if address is None:
                continue
            if not 0 <= address <= size - step.size:
                found["bounds", number] += 1
            elif address % step.size:
                found["alignment", number] += 1
            else:
                done.append(Done(number, thread, address, address + step.size, step.opcode, tuple(known[thread])))
    racing = {a for a, b in itertools.product(done, done) if a.races_with(b)}
    for access in done:
        if access in racing:
            found["race", access.step] += 1
        elif access.opcode != "st":
            written = any(w.opcode == "st" and w.overlaps(access) and w.comes_before(access) for w in done)
            found["uninitialised", access.step] += not written
    return +found


# ---- the machine ----


def found_by_machine(
    steps: list[Step], threads: int, space: str, setting: tuple[int, int | None]
) -> Counter[tuple[str, int]]:
    variable = f".{space} .align 16 .b8 s[{SHARED_BYTES if space == 'shared' else LOCAL_BYTES}];"
    lines = [
        variable,
        ".reg .b64 %a<3>; .reg .b32 %r<3>, %v4; .reg .b16 %v1, %v2; .reg .b64 %v8; .reg .pred %p0;",
        "ld.param.u64 %a0, [table]; mov.u32 %r0, %tid.x; mul.wide.u32 %a1, %r0, 4; add.s64 %a0, %a0, %a1;",
        "mov.b16 %v1, 1; mov.b16 %v2, 2; mov.b32 %v4, 4; mov.b64 %v8, 8; mov.u32 %r2, s;",
    ]
    table = np.full((len(steps), threads), -(2**31), np.int32)
    line_of: dict[str, int] = {}
    for number, step in enumerate(steps):
        if isinstance(step, Access):
            table[number] = [-(2**31) if address is None else address for address in step.addresses]
            place = f"[%a0+{4 * threads * number}]"
            lines.append(f"ld.global.s32 %r1, {place}; setp.ne.s32 %p0, %r1, -2147483648; add.s32 %r1, %r1, %r2;")
            lines.append(f"{step.text(space)} // step {number}")
            line_of[lines[-1]] = number
        else:
            lines.append(step.text)
    host_threads, seed = setting
    machine = ptx.Machine(threads=host_threads, seed=seed)
    module = machine.load(kernel("\n".join([*lines, "ret;"]), ".param .u64 table"))
    result = module.launch("k", 1, threads, [table])
    return Counter({(finding.kind, line_of[finding.text]): finding.count for finding in result.findings})


# ---- programs ----


def barriers(threads: int) -> st.SearchStrategy[Barrier]:
    everyone = tuple(range(threads))
    warps = [everyone[first : first + LANES] for first in range(0, threads, LANES)]
    halves = tuple(warp[first : first + 16] for warp in warps for first in (0, 16) if warp[first : first + 16])
    in_halves = "shr.u32 %r1, %r0, 4; and.b32 %r1, %r1, 1; mul.lo.u32 %r1, %r1, 0xFFFF0000;"
    in_halves += "setp.eq.u32 %p0, %r1, 0; selp.b32 %r1, 0xFFFF, %r1, %p0; bar.warp.sync %r1;"
    known = [
        Barrier("bar.sync 0;", (everyone,)),
        Barrier("bar.warp.sync -1;", tuple(warps)),
        Barrier(in_halves, halves),
    ]
    if len(warps) > 2:  # two of the warps meet, the others go on
        text = f"setp.lt.u32 %p0, %r0, {2 * LANES}; @%p0 barrier.sync 1, {2 * LANES};"
        known.append(Barrier(text, (everyone[: 2 * LANES],)))
    return st.sampled_from(known)


@st.composite
def accesses(draw: st.DrawFn, threads: int, bytes_: int, opcodes: tuple[str, ...]) -> Access:
    """Threads in a row, at one place, or anywhere; all of them or some; seldom out of bounds or misaligned."""
    opcode = draw(st.sampled_from(opcodes))
    size = draw(st.sampled_from((4, 8) if opcode == "atom" else (1, 2, 4, 8)))
    pattern = draw(st.sampled_from(("row", "row", "place", "anywhere")))
    base = size * draw(st.integers(0, bytes_ // size - 1))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    if pattern == "row":
        stride = draw(st.sampled_from((size, -size, 2 * size)))
        places = [(base + stride * thread) % (bytes_ - bytes_ % size) for thread in range(threads)]
    else:
        places = (
            [base] * threads
            if pattern == "place"
            else [int(v) * size for v in rng.integers(0, bytes_ // size, threads)]
        )
    if draw(st.integers(0, 9)) == 0:
        off = draw(st.sampled_from((1, -bytes_, bytes_, 4 * bytes_)))
        places = [place + off * int(late) for place, late in zip(places, rng.integers(0, 2, threads), strict=True)]
    only = draw(st.sampled_from(("all", "one", "warp", "some", "some")))
    chosen = draw(st.integers(0, threads - 1))
    active = {
        "all": [True] * threads,
        "one": [thread == chosen for thread in range(threads)],
        "warp": [thread // LANES == chosen // LANES for thread in range(threads)],
        "some": (rng.integers(0, 4, threads) == 0).tolist(),
    }[only]
    return Access(opcode, size, tuple(place if on else None for place, on in zip(places, active, strict=True)))


@st.composite
def shared_programs(draw: st.DrawFn) -> tuple[int, list[Step]]:
    threads = draw(st.sampled_from((5, 32, 45, 64, 96)))
    access = accesses(threads, SHARED_BYTES, ("ld", "st", "st", "atom"))
    return threads, draw(st.lists(access | access | barriers(threads), min_size=1, max_size=8))


@given(program=shared_programs())
@settings(max_examples=60, deadline=None)
def test_shared_memory(program: tuple[int, list[Step]]) -> None:
    threads, steps = program
    want = expected(steps, threads, SHARED_BYTES)
    for setting in SETTINGS:
        assert found_by_machine(steps, threads, "shared", setting) == want


@given(steps=st.lists(accesses(40, LOCAL_BYTES, ("ld", "st")), min_size=1, max_size=8))
@settings(max_examples=40, deadline=None)
def test_local_memory(steps: list[Step]) -> None:
    """Every thread has its own: no races."""
    want: Counter[tuple[str, int]] = Counter()
    for thread in range(40):
        own = [Access(step.opcode, step.size, (step.addresses[thread],)) for step in steps if isinstance(step, Access)]
        want += expected(list(own), 1, LOCAL_BYTES)
    for setting in SETTINGS:
        assert found_by_machine(steps, 40, "local", setting) == want

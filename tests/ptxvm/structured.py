"""Random structured programs: as PTX, and as a simulation by lane masks that shares nothing with the machine.

A program is a list of functions over REGISTERS words. The first is the kernel; a function calls only later ones. Each
kind of statement is one class that knows how it is written in PTX and what it does to the lanes of a warp.
"""

from __future__ import annotations

import dataclasses
import itertools
import operator
from collections import Counter
from collections.abc import Callable
from typing import Protocol

import numpy as np
from hypothesis import strategies as st

from tests.ptxvm.harness import HEADER

LANES = 32
REGISTERS = 4
FLAGS = 2
BYTES = 4 * REGISTERS

OPERATIONS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "add.u32": operator.add,
    "sub.u32": operator.sub,
    "mul.lo.u32": operator.mul,
    "xor.b32": operator.xor,
    "or.b32": operator.or_,
    "min.u32": np.minimum,
}

REDUCTIONS: dict[str, np.ufunc] = {
    "redux.sync.add.u32": np.add,
    "redux.sync.max.u32": np.maximum,
    "redux.sync.xor.b32": np.bitwise_xor,
}


class Statement(Protocol):
    def write(self, out: Writer) -> None: ...

    def run(self, warp: Warp, mask: np.ndarray) -> np.ndarray:
        """Those of the lanes that go on behind the statement."""


Block = tuple[Statement, ...]


class Writer:
    """The lines of one function."""

    def __init__(self, is_kernel: bool) -> None:
        self.lines: list[str] = []
        self.is_kernel = is_kernel
        self.loops: list[tuple[str, str]] = []  # where break and continue go
        self._numbers = itertools.count()

    def name(self, prefix: str) -> str:
        return f"{prefix}{next(self._numbers)}"

    def __call__(self, text: str) -> None:
        self.lines.append(text)

    def block(self, statements: Block) -> None:
        for statement in statements:
            statement.write(self)

    def leave(self, guard: str = "") -> None:
        """Hand over the registers and return, for the lanes that pass the guard."""
        store, base = ("st.global.b32", "%out") if self.is_kernel else ("st.param.b32", "result")
        for k in range(REGISTERS):
            self(f"{guard} {store} [{base}+{4 * k}], %v{k};")
        self(f"{guard} ret;")


class Warp:
    """A function called by a warp, in simulation."""

    def __init__(self, program: list[Block], registers: np.ndarray, counts: Counter[str]) -> None:
        self.program = program
        self.registers = registers  # by number and lane
        self.flags = np.zeros((FLAGS, LANES), bool)
        self.counts = counts  # lanes by opcode, and branches
        self.loops: list[dict[str, np.ndarray]] = []  # the lanes that have left each loop, or its round

    def block(self, statements: Block, mask: np.ndarray) -> np.ndarray:
        for statement in statements:
            if not mask.any():
                break
            mask = statement.run(self, mask)
        return mask

    def count(self, opcode: str, mask: np.ndarray) -> None:
        self.counts[opcode] += int(mask.sum())

    def branch(self, *ways: np.ndarray) -> None:
        self.counts["branches"] += 1
        self.counts["diverged branches"] += sum(bool(way.any()) for way in ways) > 1


@dataclasses.dataclass(frozen=True)
class Condition:
    """Three bits of a register are less than a bound."""

    register: int
    shift: int
    bound: int

    def write(self, out: Writer) -> None:
        out(f"bfe.u32 %t, %v{self.register}, {self.shift}, 3; setp.lt.u32 %p, %t, {self.bound};")

    def choose(self, warp: Warp, mask: np.ndarray) -> np.ndarray:
        warp.count("setp.lt.u32", mask)
        return mask & ((warp.registers[self.register] >> np.uint32(self.shift)) % 8 < self.bound)


@dataclasses.dataclass(frozen=True)
class Flag:
    """A predicate that was set long ago, or its complement."""

    number: int
    wanted: bool

    def write(self, out: Writer) -> None:
        out(f"{'mov' if self.wanted else 'not'}.pred %p, %q{self.number};")

    def choose(self, warp: Warp, mask: np.ndarray) -> np.ndarray:
        return mask & (warp.flags[self.number] == self.wanted)


@dataclasses.dataclass(frozen=True)
class SetFlag:
    number: int
    condition: Condition

    def write(self, out: Writer) -> None:
        self.condition.write(out)
        out(f"mov.pred %q{self.number}, %p;")

    def run(self, warp: Warp, mask: np.ndarray) -> np.ndarray:
        chosen = self.condition.choose(warp, mask)
        warp.flags[self.number] = np.where(mask, chosen, warp.flags[self.number])
        return mask


@dataclasses.dataclass(frozen=True)
class Assign:
    operation: str
    target: int
    source: int  # register; a constant from REGISTERS on

    def write(self, out: Writer) -> None:
        source = f"%v{self.source}" if self.source < REGISTERS else self.source
        out(f"{self.operation} %v{self.target}, %v{self.target}, {source};")

    def run(self, warp: Warp, mask: np.ndarray) -> np.ndarray:
        warp.count(self.operation, mask)
        target = warp.registers[self.target]
        source = warp.registers[self.source] if self.source < REGISTERS else np.uint32(self.source)
        target[:] = np.where(mask, OPERATIONS[self.operation](target, source), target)
        return mask


@dataclasses.dataclass(frozen=True)
class Middle:
    """The middle bits of a product of 64 bits."""

    target: int
    source: int

    def write(self, out: Writer) -> None:
        out(f"mul.wide.u32 %w, %v{self.target}, %v{self.source}; shr.u64 %w, %w, 16; cvt.u32.u64 %v{self.target}, %w;")

    def run(self, warp: Warp, mask: np.ndarray) -> np.ndarray:
        warp.count("mul.wide.u32", mask)
        target = warp.registers[self.target]
        product = target.astype(np.uint64) * warp.registers[self.source]
        target[:] = np.where(mask, (product >> np.uint64(16)).astype(np.uint32), target)
        return mask


@dataclasses.dataclass(frozen=True)
class Reduce:
    """Over the lanes that are here together."""

    operation: str
    target: int
    source: int

    def write(self, out: Writer) -> None:
        out(f"activemask.b32 %t; {self.operation} %v{self.target}, %v{self.source}, %t;")

    def run(self, warp: Warp, mask: np.ndarray) -> np.ndarray:
        warp.count(self.operation, mask)
        total = REDUCTIONS[self.operation].reduce(warp.registers[self.source][mask], dtype=np.uint32)
        warp.registers[self.target][mask] = total
        return mask


@dataclasses.dataclass(frozen=True)
class If:
    condition: Condition | Flag
    then: Block
    otherwise: Block

    def write(self, out: Writer) -> None:
        end, then = out.name("END"), out.name("THEN")
        self.condition.write(out)
        if self.otherwise:
            out(f"@%p bra {then};")
            out.block(self.otherwise)
            out(f"bra.uni {end}; {then}:")
        else:
            out(f"@!%p bra {end};")
        out.block(self.then)
        out(f"{end}:")

    def run(self, warp: Warp, mask: np.ndarray) -> np.ndarray:
        chosen = self.condition.choose(warp, mask)
        warp.branch(chosen, mask & ~chosen)
        return warp.block(self.then, chosen) | warp.block(self.otherwise, mask & ~chosen)


@dataclasses.dataclass(frozen=True)
class Switch:
    """A jump by two bits of a register. Two values may share a case, and a case may fall through into the next."""

    register: int
    cases: tuple[Block, ...]
    targets: tuple[int, ...]  # case of each value
    falls_through: tuple[bool, ...]

    def write(self, out: Writer) -> None:
        end, table = out.name("END"), out.name("TABLE")
        labels = [out.name("CASE") for _ in self.cases]
        out(f"{table}: .branchtargets {', '.join(labels[case] for case in self.targets)};")
        out(f"and.b32 %t, %v{self.register}, 3; brx.idx %t, {table};")
        for label, case, falls in zip(labels, self.cases, self.falls_through, strict=True):
            out(f"{label}:")
            out.block(case)
            if not falls:
                out(f"bra {end};")
        out(f"{end}:")

    def run(self, warp: Warp, mask: np.ndarray) -> np.ndarray:
        chosen = np.array(self.targets)[warp.registers[self.register] & 3]
        ways = [mask & (chosen == case) for case in range(len(self.cases))]
        warp.branch(*ways)
        done = falling = np.zeros_like(mask)
        for way, case, falls in zip(ways, self.cases, self.falls_through, strict=True):
            through = warp.block(case, way | falling)
            falling = through & falls
            done = done | (through & (not falls))
        return done | falling


@dataclasses.dataclass(frozen=True)
class Repeat:
    """A loop of up to three rounds, as each lane has it, tested before or behind its body."""

    register: int
    test_first: bool
    body: Block

    def write(self, out: Writer) -> None:
        head, end, step = out.name("HEAD"), out.name("END"), out.name("STEP")
        count, limit = out.name("%count"), out.name("%limit")
        test = f"setp.lt.u32 %p, {count}, {limit};"
        out(f".reg .b32 {count}, {limit}; mov.u32 {count}, 0; and.b32 {limit}, %v{self.register}, 3;")
        out(f"{head}:")
        if self.test_first:
            out(f"{test} @!%p bra {end};")
        out.loops.append((end, step))
        out.block(self.body)
        out.loops.pop()
        out(f"{step}: add.u32 {count}, {count}, 1;")
        out(f"bra {head};" if self.test_first else f"{test} @%p bra {head};")
        out(f"{end}:")

    def run(self, warp: Warp, mask: np.ndarray) -> np.ndarray:
        rounds, limit = np.zeros(LANES, np.uint32), warp.registers[self.register] & 3
        out = np.zeros_like(mask)

        def test() -> np.ndarray:
            warp.count("setp.lt.u32", mask)
            stays = mask & (rounds < limit)
            warp.branch(stays, mask & ~stays)
            return stays

        left = {"break": out, "continue": out}
        warp.loops.append(left)
        while mask.any():
            if self.test_first:
                stays = test()
                out, mask = out | (mask & ~stays), stays
            left["continue"] = np.zeros_like(mask)
            mask = warp.block(self.body, mask) | left["continue"]
            warp.count("add.u32", mask)
            rounds += mask
            if not self.test_first and mask.any():
                stays = test()
                out, mask = out | (mask & ~stays), stays
        return out | warp.loops.pop()["break"]


@dataclasses.dataclass(frozen=True)
class Leave:
    """A conditional break, continue or return."""

    kind: str
    condition: Condition | Flag

    def write(self, out: Writer) -> None:
        self.condition.write(out)
        if self.kind == "return":
            out.leave("@%p")
        else:
            # The other lanes do something before they come to the same place: the branch diverges.
            out(f"@%p bra {out.loops[-1][self.kind == 'continue']}; mov.b32 %t, 0;")

    def run(self, warp: Warp, mask: np.ndarray) -> np.ndarray:
        chosen = self.condition.choose(warp, mask)
        if self.kind != "return":
            warp.branch(chosen, mask & ~chosen)
            warp.loops[-1][self.kind] = warp.loops[-1][self.kind] | chosen
        return mask & ~chosen


@dataclasses.dataclass(frozen=True)
class Call:
    function: int

    def write(self, out: Writer) -> None:
        out(f"{{ .param .align 4 .b8 to[{BYTES}]; .param .align 4 .b8 from[{BYTES}];")
        out(" ".join(f"st.param.b32 [to+{4 * k}], %v{k};" for k in range(REGISTERS)))
        out(f"call (from), f{self.function}, (to);")
        out(" ".join(f"ld.param.b32 %v{k}, [from+{4 * k}];" for k in range(REGISTERS)) + " }")

    def run(self, warp: Warp, mask: np.ndarray) -> np.ndarray:
        warp.count("call", mask)
        callee = Warp(warp.program, warp.registers.copy(), warp.counts)
        callee.block(warp.program[self.function], mask)
        warp.registers[:] = np.where(mask, callee.registers, warp.registers)
        return mask


# ---- whole programs ----

_KERNEL = """
.reg .b64 %in, %out, %offset; .reg .b32 %thread;
mov.u32 %thread, %tid.x; mul.wide.u32 %offset, %thread, {bytes};
ld.param.u64 %in, [in]; add.s64 %in, %in, %offset; ld.param.u64 %out, [out]; add.s64 %out, %out, %offset;
ld.global.v4.u32 {{%v0, %v1, %v2, %v3}}, [%in];"""


def write(program: list[Block]) -> str:
    """PTX of the kernel k(in, out), whose threads have REGISTERS words each."""
    texts = []
    for index, block in reversed(list(enumerate(program))):
        out = Writer(is_kernel=index == 0)
        out(f".reg .b32 %v<{REGISTERS}>, %t; .reg .b64 %w; .reg .pred %p, %q<{FLAGS}>;")
        out(" ".join(f"mov.pred %q{k}, 0;" for k in range(FLAGS)))
        if index == 0:
            head = ".visible .entry k(.param .u64 in, .param .u64 out)"
            out(_KERNEL.format(bytes=BYTES))
        else:
            head = f".func (.param .align 4 .b8 result[{BYTES}]) f{index}(.param .align 4 .b8 given[{BYTES}])"
            for k in range(REGISTERS):
                out(f"ld.param.b32 %v{k}, [given+{4 * k}];")
        out.block(block)
        out.leave()
        texts.append(head + "\n{\n" + "\n".join(out.lines) + "\n}\n")
    return HEADER + "".join(texts)


def simulate(program: list[Block], words: np.ndarray) -> tuple[np.ndarray, Counter[str]]:
    """What each thread gives, and the counts of lanes by opcode and of branches."""
    counts: Counter[str] = Counter()
    results = []
    for start in range(0, len(words), LANES):
        registers = np.zeros((REGISTERS, LANES), np.uint32)
        given = words[start : start + LANES].T
        registers[:, : given.shape[1]] = given
        warp = Warp(program, registers, counts)
        warp.block(program[0], np.arange(LANES) < given.shape[1])
        results.append(warp.registers.T[: given.shape[1]])
    return np.concatenate(results), counts


# ---- at random ----

_register = st.integers(0, REGISTERS - 1)
_flag = st.integers(0, FLAGS - 1)
_comparison = st.builds(Condition, _register, st.integers(0, 8), st.integers(1, 7))
_condition = _comparison | st.builds(Flag, _flag, st.booleans())
_simple: list[st.SearchStrategy[Statement]] = [
    st.builds(Assign, st.sampled_from(list(OPERATIONS)), _register, _register | st.integers(REGISTERS, 2**31 - 1)),
    st.builds(SetFlag, _flag, _comparison),
    st.builds(Middle, _register, _register),
    st.builds(Reduce, st.sampled_from(list(REDUCTIONS)), _register, _register),
]


def _statements(depth: int, in_loop: bool, callees: tuple[int, ...]) -> st.SearchStrategy[Statement]:
    leaves = ["return", "break", "continue"] if in_loop else ["return"]
    kinds = [*_simple, st.builds(Leave, st.sampled_from(leaves), _condition)]
    if callees:
        kinds.append(st.builds(Call, st.sampled_from(callees)))
    if depth:
        inner = _blocks(depth - 1, in_loop, callees)
        kinds.append(st.builds(If, _condition, inner, st.just(()) | inner))
        kinds.append(st.builds(Repeat, _register, st.booleans(), _blocks(depth - 1, True, callees)))
        kinds.append(
            st.integers(1, 4).flatmap(
                lambda n: st.builds(
                    Switch,
                    _register,
                    st.tuples(*[inner] * n),
                    st.tuples(*[st.integers(0, n - 1)] * 4),
                    st.tuples(*[st.booleans()] * n),
                )
            )
        )
    return st.one_of(kinds)


def _blocks(depth: int, in_loop: bool, callees: tuple[int, ...]) -> st.SearchStrategy[Block]:
    return st.lists(_statements(depth, in_loop, callees), min_size=1, max_size=4).map(tuple)


programs: st.SearchStrategy[list[Block]] = st.tuples(
    _blocks(3, False, (1, 2)), _blocks(2, False, (2,)), _blocks(2, False, ())
).map(list)

"""Kernels with a defect planted, and how a machine reports them whatever the order in which it runs them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from flopcuda import ptx
from tests.ptxvm.harness import kernel

Extent3 = tuple[int, int, int]

#: Threads of the host, seed of the order of blocks and warps.
SETTINGS: tuple[tuple[int, int | None], ...] = ((1, None), (1, 7), (2, 1), (3, 2))

REGISTERS = """
    .reg .pred %p<8>; .reg .b16 %h<8>; .reg .b32 %r<24>; .reg .f32 %f<8>; .reg .b64 %d<24>;
    .reg .b32 %tid, %cta, %i, %lane, %warp; .reg .b64 %i4;
    mov.u32 %tid, %tid.x; mov.u32 %cta, %ctaid.x; mov.u32 %r0, %ntid.x; mad.lo.u32 %i, %cta, %r0, %tid;
    mul.wide.u32 %i4, %i, 4; and.b32 %lane, %tid, 31; shr.u32 %warp, %tid, 5;
"""


@dataclass(frozen=True)
class Expected:
    """A finding, at the line of the kernel that ends with the comment `// mark`."""

    kind: str
    mark: str
    count: int
    thread: int = 0
    address: int = 0
    block: int = 0
    message: str = ""  #: a part of it

    def check(self, finding: ptx.Finding, text: str, name: str = "k") -> None:
        line = line_of(text, self.mark)
        want = (self.kind, name, name, line, text.splitlines()[line - 1].strip(), (self.block, 0, 0))
        got = (finding.kind, finding.kernel, finding.function, finding.line, finding.text, finding.block)
        assert got == want
        assert (finding.thread, finding.address, finding.count) == ((self.thread, 0, 0), self.address, self.count)
        assert self.message in finding.message
        assert (finding.source_file, finding.source_line) == ("", 0)


def line_of(text: str, mark: str) -> int:
    lines = [number for number, line in enumerate(text.splitlines(), 1) if line.rstrip().endswith(f"// {mark}")]
    assert len(lines) == 1, (mark, lines)
    return lines[0]


def build(body: str, parameters: str = "", module: str = "") -> str:
    """A module of one kernel `k` with %tid, %cta, %lane, %warp; %i is the number in the grid, %i4 four times that."""
    return kernel(REGISTERS + body, parameters, module=module)


def run(
    text: str,
    args: Sequence[Any] = (),
    *,
    grid: int = 1,
    block: int = 64,
    shared_bytes: int = 0,
    checks: bool | Iterable[str] = True,
    budget: int = 100_000,
    settings: tuple[int, int | None] = (1, None),
    register: Sequence[Any] = (),
) -> ptx.LaunchResult:
    threads, seed = settings
    machine = ptx.Machine(threads=threads, seed=seed, checks=checks, budget=budget)
    for array in register:
        machine.register(array)
    return machine.load(text).launch("k", grid, block, args, shared_bytes)


def in_every_order(text: str, args: Sequence[Any] = (), **options: Any) -> list[ptx.Finding]:
    """The findings, the same for all SETTINGS."""
    first, *others = [run(text, args, settings=settings, **options).findings for settings in SETTINGS]
    for other in others:
        assert other == first
    return first


def check_findings(text: str, expected: Sequence[Expected], args: Sequence[Any] = (), **options: Any) -> None:
    """Exactly these findings, in the order of the text, in every order of execution."""
    findings = in_every_order(text, args, **options)
    assert len(findings) == len(expected), [str(finding) for finding in findings]
    order = sorted(expected, key=lambda e: line_of(text, e.mark))
    for finding, want in zip(findings, order, strict=True):
        want.check(finding, text)

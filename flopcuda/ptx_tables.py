"""What the PTX virtual machine saw, as rich tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from flopcuda.ptx import Kernel, LaunchResult, Module, Parameter, Row

# Opcodes that the instruction mix shows one by one.
_SHOWN_OPCODES = 24


def module_table(module: Module) -> RenderableType:
    """Kernels with their parameters."""
    table = Table(title=f"PTX {module.version} for {module.target}", title_justify="left")
    table.add_column("kernel", overflow="fold")
    table.add_column("parameters", overflow="fold")
    for name in ("static shared", "local", "max threads"):
        table.add_column(name, justify="right")
    for kernel in module.kernels.values():
        parameters = "\n".join(f"{i}: {_type(p)}" for i, p in enumerate(kernel.parameters)) or "none"
        table.add_row(
            kernel.name,
            parameters,
            f"{kernel.shared_bytes:,}",
            f"{kernel.local_bytes:,}",
            str(kernel.max_threads or "any"),
        )
    return table


def launch_table(
    kernel: Kernel, grid: Sequence[int], block: Sequence[int], shared_bytes: int, result: LaunchResult
) -> RenderableType:
    """What was launched and executed: summary, instruction mix and memory."""
    summary = Table(show_header=False, box=None)
    summary.add_column(style="bold")
    summary.add_column(overflow="fold")
    facts = {
        "kernel": kernel.name,
        "launch": f"grid {_extent(grid)}, block {_extent(block)}, "
        f"{kernel.shared_bytes + shared_bytes:,} bytes of shared memory a block",
        "executed": f"{result.lane_instructions:,} lane-instructions, {result.warp_instructions:,} warp instructions"
        f" in {result.seconds:.3f} s of the machine" + (", stopped early" if result.stopped else ""),
        "multiply-adds": ", ".join(f"{lanes:,} {name}" for name, lanes in result.fma_lanes.items()) or "none",
        "branches": f"{result.branches:,} conditional, {result.diverged_branches:,} diverged",
        "barriers": f"{result.barriers:,}",
    }
    for name, value in facts.items():
        summary.add_row(name, value)
    parts: list[RenderableType] = [summary, _instruction_mix(result)]
    memory = [row for row in result.rows if row.requests]
    if memory:
        parts.append(_memory(memory))
    if result.output:
        parts.append(Text.assemble(("\nPrinted by the kernel\n", "bold"), result.output.rstrip("\n")))
    return Group(*parts)


def source_table(result: LaunchResult) -> RenderableType:
    """A row for each line of the source, in the order of the file."""
    lines: dict[tuple[str, int], list[Row]] = {}
    for row in result.rows:
        if row.source_line:
            lines.setdefault((row.source_file, row.source_line), []).append(row)
    if not lines:
        return Text("\nNo source lines: the PTX was compiled without nvcc -lineinfo.")
    table = Table(title="\nBy source line", title_justify="left")
    table.add_column("line", overflow="fold")
    table.add_column("source", no_wrap=True, max_width=60)
    for name in ("lanes", "share", "multiply-adds", "sectors / request", "wavefronts / request"):
        table.add_column(name, justify="right")
    for (file, line), rows in sorted(lines.items()):
        lanes = sum(row.lanes for row in rows)
        multiply_adds = sum(row.lanes * row.macs_per_lane for row in rows if row.fma_type)
        table.add_row(
            f"{Path(file).name}:{line}",
            Text(_source_text(file, line)),
            f"{lanes:,}",
            _share(lanes, result.lane_instructions),
            f"{multiply_adds:,}" if multiply_adds else "",
            _per_request(row for row in rows if row.space == "global"),
            _per_request(row for row in rows if row.space == "shared"),
        )
    return table


def findings_table(result: LaunchResult) -> RenderableType:
    """The verdict, with a paragraph for each defect."""
    if not result.findings:
        return Text("\nok: no finding", style="bold green")
    lines = [Text(f"\n{finding}", style="red") for finding in result.findings]
    return Group(*lines, Text(f"\nFAILED: {len(lines)} finding{'s' * (len(lines) > 1)}", style="bold red"))


def _instruction_mix(result: LaunchResult) -> Table:
    table = Table(title="\nInstructions", title_justify="left")
    table.add_column("opcode")
    table.add_column("lanes", justify="right")
    table.add_column("share", justify="right")
    common = result.counts.most_common()
    for name, lanes in common[:_SHOWN_OPCODES]:
        table.add_row(name, f"{lanes:,}", _share(lanes, result.lane_instructions))
    rest = common[_SHOWN_OPCODES:]
    if rest:
        lanes = sum(count for _, count in rest)
        table.add_row(f"{len(rest)} other opcodes", f"{lanes:,}", _share(lanes, result.lane_instructions))
    return table


def _memory(rows: Iterable[Row]) -> Table:
    """By state space and opcode. Sectors of global memory and wavefronts of shared memory are what a request costs."""
    table = Table(title="\nMemory (global: sectors of 32 bytes, shared: wavefronts)", title_justify="left")
    for name in ("space", "opcode"):
        table.add_column(name)
    for name in ("requests", "units", "a request", "ideal", "excess"):
        table.add_column(name, justify="right")
    groups: dict[tuple[str, str], Counter[str]] = {}
    for row in rows:
        group = groups.setdefault((row.space or "generic", row.name), Counter())
        group.update(requests=row.requests, units=row.units, ideal=row.ideal)
    for (space, name), sums in sorted(groups.items()):
        requests, units, ideal = sums["requests"], sums["units"], sums["ideal"]
        excess = units - ideal
        table.add_row(
            space,
            name,
            f"{requests:,}",
            f"{units:,}",
            f"{units / requests:.2f}",
            f"{ideal / requests:.2f}",
            f"{excess:,} ({_share(excess, units)})" if excess else "0",
            style="yellow" if excess else None,
        )
    return table


def _per_request(rows: Iterable[Row]) -> str:
    """Units a request, and the ideal where it is another."""
    sums: Counter[str] = Counter()
    for row in rows:
        sums.update(requests=row.requests, units=row.units, ideal=row.ideal)
    if not sums["requests"]:
        return ""
    actual, ideal = (sums[name] / sums["requests"] for name in ("units", "ideal"))
    return f"{actual:.2f}" if actual == ideal else f"{actual:.2f} (ideal {ideal:.2f})"


def _source_text(file: str, line: int) -> str:
    """Of a file that is still where the compiler read it; else empty."""
    try:
        return Path(file).read_text(errors="replace").splitlines()[line - 1].strip()
    except (OSError, IndexError):
        return ""


def _type(parameter: Parameter) -> str:
    return f"structure of {parameter.size} bytes" if parameter.is_struct else parameter.type


def _extent(sizes: Sequence[int]) -> str:
    return "x".join(str(size) for size in sizes)


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else ""

"""What is known of the CUDA kernels, as rich tables."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from flopcuda.kernels import Build, Catalogue, Kernel
from flopcuda.ptx import MemoryUse


def catalogue_table(catalogue: Catalogue) -> RenderableType:
    """A table of the machine's observations, one of the builds, and what is missing."""
    parts: list[RenderableType] = [_observations(catalogue)]
    if any(kernel.builds for kernel in catalogue.kernels):
        parts.append(_builds(catalogue))
    return Group(*parts, *(Text(f"\n{note}", style="yellow") for note in catalogue.notes))


def _observations(catalogue: Catalogue) -> Table:
    table = Table(title="CUDA kernels, run as PTX on the machine", title_justify="left")
    table.add_column("kernel", overflow="fold")
    table.add_column("tile", no_wrap=True)
    table.add_column("threads", justify="right")
    table.add_column("problem")
    table.add_column("multiply-adds", justify="right")
    table.add_column("sectors / global request", justify="right")
    table.add_column("wavefronts / shared request", justify="right")
    for kernel in catalogue.kernels:
        table.add_row(kernel.name, "x".join(map(str, kernel.tile)), str(kernel.threads), *_observation(kernel))
    return table


def _observation(kernel: Kernel) -> list[str]:
    seen = kernel.observation
    if seen is None:
        return []
    return [seen.problem, f"{seen.multiply_add_share:.0%}", _memory(seen.global_memory), _memory(seen.shared_memory)]


def _memory(use: MemoryUse) -> str:
    """Units a request, beside the fewest that the same bytes would need."""
    if not use.requests:
        return "none"
    return f"{use.per_request:.2f} (ideal {use.ideal / use.requests:.2f})"


def _builds(catalogue: Catalogue) -> Table:
    table = Table(title="\nAs built: registers, occupancy, and the main loop in machine code", title_justify="left")
    table.add_column("kernel", overflow="fold")
    table.add_column("architecture", no_wrap=True)
    for name in ("registers", "shared bytes", "spilled bytes", "blocks / SM", "occupancy"):
        table.add_column(name, justify="right")
    table.add_column("limited by", no_wrap=True)
    table.add_column("multiply-adds in main loop", justify="right")
    for kernel in catalogue.kernels:
        for index, build in enumerate(kernel.builds):
            name = "" if index else kernel.name
            style = "bold red" if _spilled(build) else None
            table.add_row(name, *_build(build), style=style, end_section=index == len(kernel.builds) - 1)
    return table


def _spilled(build: Build) -> int:
    return build.usage.spill_store_bytes + build.usage.spill_load_bytes


def _build(build: Build) -> list[str]:
    usage, held, loop = build.usage, build.occupancy, build.main_loop
    occupancy = [str(held.blocks), f"{held.share:.1%}", held.limited_by] if held else [""] * 3
    main_loop = f"{loop.multiply_adds} of {loop.instructions} ({loop.multiply_add_share:.2f})" if loop else ""
    return [
        build.architecture,
        str(usage.registers),
        f"{usage.shared_bytes:,}",
        str(_spilled(build)),
        *occupancy,
        main_loop,
    ]

"""``flopcuda ptx list FILE`` and ``flopcuda ptx run FILE``: anybody's kernels on the virtual machine."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np

from flopcuda import ptx, ptx_tables
from flopcuda.cli.terminal import console, one_sentence_errors, progress
from flopcuda.ptx_arguments import Arguments, parse_arguments

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def _extent(context: click.Context, parameter: click.Parameter, value: str) -> tuple[int, ...]:
    """``X[,Y[,Z]]`` as a tuple."""
    if not re.fullmatch(r"[1-9]\d*(,[1-9]\d*){0,2}", value):
        raise click.BadParameter(f"{value!r} is no extent; it looks like 128 or 16,16 or 4,4,4", context, parameter)
    return tuple(int(size) for size in value.split(","))


def _saves(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, Path]:
    """``INDEX=FILE`` of each argument to keep."""
    saves = {}
    for value in values:
        match = re.fullmatch(r"(\d+(?:\.\d+)*)=(.+)", value)
        if not match:
            raise click.BadParameter(f"{value!r} does not look like INDEX=FILE.npy", context, parameter)
        saves[match[1]] = Path(match[2])
    return saves


@click.group("ptx")
def ptx_group() -> None:
    """Run kernels in PTX, anybody's, on a virtual machine that checks and counts; no GPU is needed."""


@ptx_group.command("list")
@click.argument("file", type=_FILE)
def list_command(file: Path) -> None:
    """Kernels of FILE and their parameters."""
    with one_sentence_errors():
        module = ptx.Machine().load(file.read_bytes())
    console().print(ptx_tables.module_table(module))


@ptx_group.command("run")
@click.argument("file", type=_FILE)
@click.argument("kernel", required=False)
@click.option("--grid", callback=_extent, metavar="X[,Y,Z]", default="1", show_default=True, help="Blocks.")
@click.option("--block", callback=_extent, metavar="X[,Y,Z]", required=True, help="Threads of a block.")
@click.option("--shared-bytes", type=click.IntRange(min=0), default=0, help="Dynamic shared memory of a block.")
@click.option(
    "--arg",
    "texts",
    multiple=True,
    metavar="ARGUMENT",
    help="For each parameter in turn: a number (5, i32:5, f32:1.5), null, zeros:f32:1024, ones:, arange:, random: "
    "(shapes: 32x32), a .npy file, or struct:FIELD,FIELD for a structure by value.",
)
@click.option(
    "--save",
    "saves",
    multiple=True,
    callback=_saves,
    metavar="INDEX=FILE.npy",
    help="Keep an array after the run; INDEX is the argument's, from 0, or 0.3 for field 3 of a structure.",
)
@click.option("--threads", type=click.IntRange(min=1), help="Host threads; one for each core by default.")
@click.option("--seed", type=int, help="Shuffle the order of blocks and warps; ascending without.")
@click.option("--check", "checks", multiple=True, type=click.Choice(ptx.CHECKS), help="Only these; all by default.")
@click.option("--no-checks", is_flag=True, help="Count only.")
@click.option(
    "--budget", type=click.IntRange(min=1), default=100_000_000, show_default=True, help="Instructions a warp."
)
@click.option("--by-line", is_flag=True, help="A table by source line, for PTX compiled with nvcc -lineinfo.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write everything here too.")
def run_command(
    file: Path,
    kernel: str | None,
    grid: tuple[int, ...],
    block: tuple[int, ...],
    shared_bytes: int,
    texts: tuple[str, ...],
    saves: dict[str, Path],
    threads: int | None,
    seed: int | None,
    checks: tuple[str, ...],
    no_checks: bool,
    budget: int,
    by_line: bool,
    json_file: Path | None,
) -> None:
    """Run KERNEL of FILE, which may be left out if there is only one, and say what it did.

    The exit status is 1 when a check found a defect, and 2 when the kernel could not be run.
    """
    if checks and no_checks:
        raise click.UsageError("--check and --no-checks exclude each other")
    with one_sentence_errors():
        machine = ptx.Machine(threads, seed, checks or not no_checks, budget)
        module = machine.load(file.read_bytes())
        chosen = module.find(kernel or "")
        arguments = parse_arguments(texts)
        _require_arrays(saves, arguments)
        for place, array in arguments.arrays.items():
            machine.register(array, f"argument {place}")
        with progress(1) as on_step:
            on_step(f"running {chosen.name}")
            result = module.launch(chosen.name, grid, block, arguments.values, shared_bytes)
        for place, path in saves.items():
            np.save(path, arguments.arrays[place])
        if json_file:
            launch = {"file": str(file), "kernel": chosen.name, "grid": grid, "block": block}
            _write_json(json_file, {**launch, "shared_bytes": shared_bytes, **result.to_dict()})
    console().print(ptx_tables.launch_table(chosen, grid, block, shared_bytes, result))
    if by_line:
        console().print(ptx_tables.source_table(result))
    console().print(ptx_tables.findings_table(result))
    sys.exit(1 if result.findings else 0)


def _require_arrays(saves: dict[str, Path], arguments: Arguments) -> None:
    """Told before the run, which may be long."""
    for place in saves:
        if place not in arguments.arrays:
            known = ", ".join(arguments.arrays) or "none"
            raise ValueError(f"--save {place}: argument {place} is no array; the arrays are {known}")


def _write_json(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n")

"""``python -m flopcuda.virtual_cuda``: run a script, module or command with the virtual device."""

from __future__ import annotations

import re
import subprocess
from typing import NoReturn

import click

from flopcuda.virtual_cuda import launch
from flopcuda.virtual_cuda.launch import UnavailableError

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}


def _architecture(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """``sm_80``, ``8.0`` or ``80`` as the last."""
    match = re.fullmatch(r"(?:sm_)?(\d+)\.?(\d)", value) if value else None
    if value and not match:
        raise click.BadParameter(f"{value!r} is no architecture; it looks like sm_80", context, parameter)
    return match and match[1] + match[2]


def _bytes(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """``8G`` as a number."""
    match = re.fullmatch(r"(\d+)([KMG]?)", value.upper()) if value else None
    if value and not match:
        raise click.BadParameter(f"{value!r} is no size; it looks like 8G or 512M", context, parameter)
    return match and str(int(match[1]) * _UNITS[match[2]])


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--arch", callback=_architecture, metavar="sm_NN", help="The devices' architecture; sm_80.")
@click.option("--memory", callback=_bytes, metavar="SIZE", help="Memory of each device; 8G.")
@click.option("--devices", type=click.IntRange(min=0), help="How many devices there are; 1.")
@click.option(
    "--checks", metavar="NAMES", help="Checks of kernels: all, none, or names as in flopcuda.ptx.CHECKS; all."
)
@click.option("--seed", type=int, help="Shuffle the order of blocks and warps; none.")
@click.option("--threads", type=click.IntRange(min=1), help="Host threads that execute blocks; one for each core.")
@click.option(
    "--allocator",
    type=click.Choice(["exact", "torch"]),
    default="exact",
    show_default=True,
    help="One allocation for each tensor, or torch's caching allocator.",
)
@click.argument(
    "command", nargs=-1, type=click.UNPROCESSED, required=True, metavar="(SCRIPT | -m MODULE | -c CODE) ..."
)
def main(command: tuple[str, ...], allocator: str, **settings: object) -> NoReturn:
    """Run a Python program with a virtual CUDA device in the place of a GPU.

    When the checks found a defect in a kernel, it is printed at exit and the exit status is 1.
    """
    variables = {f"FLOPCUDA_VCUDA_{name.upper()}": str(value) for name, value in settings.items() if value is not None}
    if allocator == "torch":
        variables |= dict.fromkeys(launch.ALLOCATOR_VARIABLES, "backend:native")
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    try:
        launch.restart([*flags, *command], variables)
    except UnavailableError as error:
        raise click.ClickException(str(error)) from None


if __name__ == "__main__":
    main(prog_name="python -m flopcuda.virtual_cuda")

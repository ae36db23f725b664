"""The command line: ``flopcuda validate``, ``predict``, ``kernels``, ``ptx`` and ``info``."""

from __future__ import annotations

import click

from flopcuda import tables
from flopcuda.cli.kernels import kernels_command
from flopcuda.cli.predict import predict_command
from flopcuda.cli.ptx import ptx_group
from flopcuda.cli.terminal import console, virtual_cuda_option
from flopcuda.cli.validate import validate_command
from flopcuda.info import info


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="flopcuda")
def main() -> None:
    """Count the multiply-accumulates that a PyTorch model really executes."""


@main.command("info")
@virtual_cuda_option
def info_command() -> None:
    """Versions, build, devices and the CPU's instruction set."""
    console().print(tables.info_table(info()))


main.add_command(validate_command)
main.add_command(predict_command)
main.add_command(kernels_command)
main.add_command(ptx_group)

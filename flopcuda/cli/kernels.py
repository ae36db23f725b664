"""``flopcuda kernels``: the project's own CUDA kernels."""

from __future__ import annotations

import json
from pathlib import Path

import click

from flopcuda import _C, kernel_tables, kernels
from flopcuda.cli.terminal import console, one_sentence_errors, progress


@click.command("kernels")
@click.option("--arch", "architectures", multiple=True, metavar="sm_80", help="Only these; all that were built.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the result here too.")
def kernels_command(architectures: tuple[str, ...], json_file: Path | None) -> None:
    """Tiles, registers, occupancy, main loops and memory access of the counted CUDA kernels; no GPU is needed."""
    with one_sentence_errors():
        steps = len(_C.cuda_kernels()) + len(architectures or kernels.built_architectures())
        with progress(steps) as on_step:
            catalogue = kernels.catalogue(architectures, on_step)
        if json_file:
            json_file.write_text(json.dumps(catalogue.to_dict(), indent=2) + "\n")
    console().print(kernel_tables.catalogue_table(catalogue))

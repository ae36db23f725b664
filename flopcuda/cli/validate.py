"""``flopcuda validate MODEL``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click
import torch

from flopcuda import tables
from flopcuda.cli.inputs import batch_option, input_size_option
from flopcuda.cli.terminal import console, one_sentence_errors, progress, virtual_cuda_option
from flopcuda.models import load_model
from flopcuda.tools import ALL
from flopcuda.validation import validate


@click.command("validate")
@click.argument("model")
@batch_option
@input_size_option
@click.option("--device", default="cpu", show_default=True, help="Where to count: cpu, cuda or cuda:N.")
@click.option(
    "--backend",
    type=click.Choice(["native", "ptxvm"]),
    default="native",
    show_default=True,
    help="The device's own kernels, or the CUDA kernels on the PTX machine, which needs no GPU.",
)
@virtual_cuda_option
@click.option("--training-step", is_flag=True, help="Validate a forward and backward pass, too.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the result here too.")
@click.option("--seed", type=int, default=0, show_default=True, help="For the random weights and input.")
def validate_command(
    model: str,
    batch: int,
    input_size: tuple[int, ...],
    device: str,
    backend: str,
    training_step: bool,
    json_file: Path | None,
    seed: int,
) -> None:
    """Hold MODEL's counted operations against the formulas and the other tools.

    MODEL is a torchvision name, or package.module:factory. The exit status is 1 when a layer's count and its exact
    formula differ, in the training step too if there is one, and 2 when nothing could be validated.
    """
    with one_sentence_errors():
        torch.manual_seed(seed)
        target = _device(device)
        network = load_model(model).to(target)
        inputs = torch.randn(batch, *input_size, device=target)
        with progress(len(ALL) + 1 + training_step) as on_step:
            result = validate(
                network, inputs, name=model, backend=backend, training_step=training_step, on_step=on_step
            )
        if json_file:
            json_file.write_text(json.dumps(result.to_dict(), indent=2) + "\n")
    console().print(tables.validation_table(result))
    sys.exit(0 if result.ok else 1)


def _device(name: str) -> torch.device:
    device = torch.device(name)
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device {name!r}: there are counted kernels for cpu and cuda only")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {name!r}: torch sees no CUDA device on this machine")
    return device

"""The command line: ``flopcuda validate MODEL`` and ``flopcuda info``."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from flopcuda import tables
from flopcuda.info import info
from flopcuda.models import load_model
from flopcuda.tools import ALL
from flopcuda.validation import validate

# Wide enough for a whole table when the output goes to a file or a pipe.
PLAIN_WIDTH = 200


def _sizes(context: click.Context, parameter: click.Parameter, value: str) -> tuple[int, ...]:
    """``CxHxW``, or any other number of positive sizes, as a tuple."""
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", value):
        raise click.BadParameter(f"{value!r} is no input size; it looks like 3x224x224", context, parameter)
    return tuple(int(size) for size in value.split("x"))


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="flopcuda")
def main() -> None:
    """Count the multiply-accumulates that a PyTorch model really executes."""


@main.command("info")
def info_command() -> None:
    """Versions, build, devices and the CPU's instruction set."""
    _console().print(tables.info_table(info()))


@main.command("validate")
@click.argument("model")
@click.option("--batch", type=click.IntRange(min=1), default=1, show_default=True, help="Samples in the input.")
@click.option(
    "--input-size", callback=_sizes, metavar="CxHxW", default="3x224x224", show_default=True, help="One sample's shape."
)
@click.option("--device", default="cpu", show_default=True, help="Where to count: cpu, cuda or cuda:N.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the result here too.")
@click.option("--seed", type=int, default=0, show_default=True, help="For the random weights and input.")
def validate_command(
    model: str, batch: int, input_size: tuple[int, ...], device: str, json_file: Path | None, seed: int
) -> None:
    """Hold MODEL's counted operations against the formulas and the other tools.

    MODEL is a torchvision name, or package.module:factory. The exit status is 1 when a layer's count and its exact
    formula differ, and 2 when nothing could be validated.
    """
    with _one_sentence_errors():
        torch.manual_seed(seed)
        target = _device(device)
        network = load_model(model).to(target)
        inputs = torch.randn(batch, *input_size, device=target)
        with _progress(len(ALL) + 1) as on_step:
            result = validate(network, inputs, name=model, on_step=on_step)
        if json_file:
            json_file.write_text(json.dumps(result.to_dict(), indent=2) + "\n")
    _console().print(tables.validation_table(result))
    sys.exit(0 if result.ok else 1)


def _device(name: str) -> torch.device:
    device = torch.device(name)
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device {name!r}: there are counted kernels for cpu and cuda only")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {name!r}: torch sees no CUDA device on this machine")
    return device


class NothingValidated(click.ClickException):
    """Told apart by its exit status from a mismatch, which is 1."""

    exit_code = 2


@contextmanager
def _one_sentence_errors() -> Iterator[None]:
    """What the user can mend comes as one sentence and exit status 2; anything else is a bug, with its traceback."""
    try:
        yield
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        raise NothingValidated(" ".join(str(error).split())) from error


@contextmanager
def _progress(steps: int) -> Iterator[Callable[[str], None]]:
    """A bar on standard error while work goes on; nothing when that is no terminal."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=steps)

        def on_step(description: str) -> None:
            done = progress.tasks[0].description != ""
            progress.update(task, description=description, advance=1 if done else 0)

        yield on_step


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH)

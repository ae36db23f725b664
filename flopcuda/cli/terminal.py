"""What all commands share: errors in one sentence, progress, and where the output goes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from flopcuda.virtual_cuda import launch

# Wide enough for a whole table when the output goes to a file or a pipe.
PLAIN_WIDTH = 200


class CouldNotRun(click.ClickException):
    """Told apart by its exit status from a defect that was found, which is 1."""

    exit_code = 2


@contextmanager
def one_sentence_errors() -> Iterator[None]:
    """What the user can mend comes as one sentence and exit status 2; anything else is a bug, with its traceback."""
    try:
        yield
    except (MemoryError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise CouldNotRun(" ".join(str(error).split())) from error


@contextmanager
def progress(steps: int) -> Iterator[Callable[[str], None]]:
    """A bar on standard error while work goes on; nothing when that is no terminal."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=steps)

        def on_step(description: str) -> None:
            done = bar.tasks[0].description != ""
            bar.update(task, description=description, advance=1 if done else 0)

        yield on_step


def _use_virtual_cuda(context: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        with one_sentence_errors():
            launch.ensure()


#: For commands that may run on a GPU. Starts the command line anew.
virtual_cuda_option = click.option(
    "--virtual-cuda",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_use_virtual_cuda,
    help="Bring a virtual CUDA device, which runs kernels from their PTX on the CPU.",
)


def console() -> Console:
    """Standard output."""
    return Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH)

"""The options that say what a model is run on."""

from __future__ import annotations

import re

import click


def _sizes(context: click.Context, parameter: click.Parameter, value: str) -> tuple[int, ...]:
    """``CxHxW``, or any other number of positive sizes, as a tuple."""
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", value):
        raise click.BadParameter(f"{value!r} is no input size; it looks like 3x224x224", context, parameter)
    return tuple(int(size) for size in value.split("x"))


batch_option = click.option(
    "--batch", type=click.IntRange(min=1), default=1, show_default=True, help="Samples in the input."
)
input_size_option = click.option(
    "--input-size", callback=_sizes, metavar="CxHxW", default="3x224x224", show_default=True, help="One sample's shape."
)

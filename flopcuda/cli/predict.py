"""``flopcuda predict MODEL --gpu a100``."""

from __future__ import annotations

import json
from pathlib import Path

import click
import torch

from flopcuda.cli.inputs import batch_option, input_size_option
from flopcuda.cli.terminal import console, one_sentence_errors
from flopcuda.models import load_model
from flopcuda.ops import DTYPES
from flopcuda.prediction import GPUS, predict
from flopcuda.prediction.plot import plot_roofline
from flopcuda.prediction.tables import prediction_table

_DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in DTYPES}
_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command("predict")
@click.argument("model")
@click.option("--gpu", "gpu_name", type=click.Choice(list(GPUS)), required=True, help="The GPU.")
@batch_option
@input_size_option
@click.option("--dtype", type=click.Choice(list(_DTYPES)), default="float32", show_default=True, help="Of the model.")
@click.option(
    "--float32-matmul-precision",
    "precision",
    type=click.Choice(["highest", "high"]),
    default="highest",
    show_default=True,
    help="torch's setting: with high, matrix products are TF32, as convolutions are by torch's default.",
)
@click.option("--json", "json_file", type=_FILE, help="Write the result here too.")
@click.option("--plot", "plot_file", type=_FILE, help="Draw the roofline plot here; needs matplotlib.")
def predict_command(
    model: str,
    gpu_name: str,
    batch: int,
    input_size: tuple[int, ...],
    dtype: str,
    precision: str,
    json_file: Path | None,
    plot_file: Path | None,
) -> None:
    """Predict the time of each of MODEL's counted layers on a GPU, which need not be there.

    MODEL is a torchvision name, or package.module:factory. docs/prediction.md says how, and how far off it is.
    """
    with one_sentence_errors():
        network = load_model(model).to(_DTYPES[dtype])
        inputs = torch.empty(batch, *input_size, dtype=_DTYPES[dtype], device="meta")
        torch.set_float32_matmul_precision(precision)
        prediction = predict(network, inputs, GPUS[gpu_name], name=model)
        if json_file:
            json_file.write_text(json.dumps(prediction.to_dict(), indent=2) + "\n")
        if plot_file:
            plot_roofline(prediction, plot_file)
    console().print(prediction_table(prediction))

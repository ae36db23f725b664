"""``flopcuda predict``: what it prints and writes, and how it refuses."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from torch import nn

from flopcuda.cli import main
from flopcuda.prediction import GPUS, predict
from flopcuda.prediction.plot import plot_roofline


def make_model() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 6 * 6, 10))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["predict", f"{__name__}:make_model", "--input-size", "3x8x8", *arguments])


def test_the_table_and_the_json_are_of_the_same_prediction(tmp_path: Path) -> None:
    file = tmp_path / "prediction.json"
    result = run("--gpu", "l4", "--batch", "4", "--json", str(file))
    assert result.exit_code == 0, result.output
    written = json.loads(file.read_text())
    expected = predict(make_model(), torch.empty(4, 3, 8, 8), GPUS["l4"])
    assert written["seconds"] == pytest.approx(expected.seconds)
    assert [layer["kernel"] for layer in written["layers"]] == [layer.kernel for layer in expected.layers]
    assert [layer["output_shape"] for layer in written["layers"]] == [[4, 8, 6, 6], [4, 10]]
    assert written["gpu"]["name"] == "L4"
    for layer in expected.layers:
        assert f"{1e6 * layer.seconds:,.1f}" in result.output
    assert f"{1e6 * expected.seconds:,.1f}" in result.output


def test_the_dtype_is_the_models() -> None:
    result = run("--gpu", "h100", "--dtype", "float64")
    assert result.exit_code == 0, result.output
    assert "conv_f64_" in result.output


def test_products_are_tf32_where_that_is_asked_for() -> None:
    try:
        result = run("--gpu", "a100", "--batch", "64", "--float32-matmul-precision", "high")
    finally:
        torch.set_float32_matmul_precision("highest")
    assert result.exit_code == 0, result.output
    assert "linear_tf32_" in result.output


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--gpu", "b200"), "'b200' is not one of 'a100', 'h100', 'l4', 'rtx4090'"),
        ((), "Missing option '--gpu'"),
        (("--gpu", "l4", "--input-size", "3x9x9"), "3 (Linear): a and b must have same reduction dim"),
    ],
)
def test_what_cannot_be_predicted_is_refused(arguments: tuple[str, ...], sentence: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert sentence in result.output


def test_a_plot_without_matplotlib_is_refused_in_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    result = run("--gpu", "l4", "--plot", str(tmp_path / "roofline.png"))
    assert result.exit_code == 2
    assert result.output == "Error: the roofline plot needs matplotlib: pip install flopcuda[plot]\n"


def test_the_plot_has_each_launch_below_its_roof(tmp_path: Path) -> None:
    figure_module = pytest.importorskip("matplotlib.figure")
    seen = []
    original = figure_module.Figure.savefig

    def keep(figure: object, *arguments: object, **options: object) -> None:
        seen.append(figure)
        original(figure, *arguments, **options)

    figure_module.Figure.savefig = keep
    try:
        prediction = predict(make_model(), torch.empty(4, 3, 8, 8), GPUS["a100"])
        plot_roofline(prediction, tmp_path / "roofline.png")
    finally:
        figure_module.Figure.savefig = original
    assert (tmp_path / "roofline.png").read_bytes().startswith(b"\x89PNG")
    (axes,) = seen[0].axes
    points = [point for collection in axes.collections for point in collection.get_offsets()]
    assert len(points) == len(prediction.layers) == 2
    for intensity, teraflops in points:
        assert teraflops * 1e12 <= min(19.5e12, intensity * 2.039e12)

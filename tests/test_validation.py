"""Validation end to end: what it returns, what it prints, and that it can fail."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from torch import Tensor, nn

import flopcuda
from flopcuda.cli import main
from tests.conftest import SmallNet
from tests.replaced_operators import replace_operator
from tests.test_session import assert_unchanged, fingerprint


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments), catch_exceptions=False)


def test_a_model_that_counts_right(model: SmallNet, images: Tensor) -> None:
    model.eval()
    before = fingerprint(model)
    result = flopcuda.validate(model, images)
    assert_unchanged(model, before)
    assert result.ok
    assert [layer.name for layer in result.layers] == ["stem", "shared", "head"]
    assert all(layer.match for layer in result.layers)
    assert result.params.total == sum(parameter.numel() for parameter in model.parameters())
    assert result.counted.macs == sum(layer.counted.macs for layer in result.layers)
    assert {report.unexplained for report in result.tools if not report.error} == {0}
    exact = sum(layer.formulas["exact"] for layer in result.layers)
    assert result.counted.flops == exact


def test_training_mode_leaves_the_running_statistics_alone(model: SmallNet, images: Tensor) -> None:
    before = fingerprint(model.train())
    state = torch.get_rng_state()
    assert flopcuda.validate(model, images, tools=[]).ok
    assert_unchanged(model, before)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("counter", ["mul", "add", "pad"])
def test_a_count_that_is_off_by_one_fails(
    counter: str, model: SmallNet, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flopcuda import ops

    true_conv2d = ops.OPERATORS["conv2d"]

    def off_by_one(*arguments: object, **options: object) -> tuple[Tensor, Tensor]:
        output, counters = true_conv2d(*arguments, **options)
        counters[ops.COUNTER_FIELDS.index(counter)] += 1
        return output, counters

    replace_operator(monkeypatch, "conv2d", off_by_one)
    result = flopcuda.validate(model.eval(), images, tools=[])
    assert not result.ok
    assert [layer.match for layer in result.layers] == [False, False, True]


def test_a_model_without_counted_layers_is_one_clear_error() -> None:
    with pytest.raises(ValueError, match="ReLU ran nothing that is counted"):
        flopcuda.validate(nn.ReLU(), torch.randn(2, 3))


def test_inputs_that_are_no_tensors_are_one_clear_error(model: SmallNet) -> None:
    with pytest.raises(TypeError, match="at least one tensor"):
        flopcuda.validate(model, ())
    with pytest.raises(TypeError, match="got dict"):
        flopcuda.validate(model, {"x": torch.randn(2, 3, 9, 9)})  # type: ignore[arg-type]


def test_measure_divides_counted_flops_by_the_original_models_time(model: SmallNet, images: Tensor) -> None:
    before = fingerprint(model.train())
    measurement = flopcuda.measure(model, images, min_seconds=0.05)
    assert_unchanged(model, before)
    assert measurement.counted == flopcuda.validate(model, images, tools=[]).counted
    assert measurement.flops_per_second == measurement.counted.flops / measurement.seconds
    assert measurement.runs >= 1


def small_net() -> SmallNet:
    return SmallNet()


def test_the_command_line_prints_and_writes_the_result(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    outcome = run(
        "validate", "tests.test_validation:small_net", "--batch", "2", "--input-size", "3x17x15", "--json", str(file)
    )
    assert outcome.exit_code == 0, outcome.output
    result = json.loads(file.read_text())
    assert list(result)[:4] == ["model", "batch", "device", "params"]
    assert list(result)[3:] == [
        *("params", "counted", "layers", "tools", "seconds", "flops_per_second", "ok", "backend", "not_counted"),
        "training_step",
    ]
    assert set(result["params"]) == {"total", "trainable", "non_trainable"}
    assert set(result["counted"]) == {"mul", "add", "pad", "lane", "macs", "flops"}
    assert {"name", "type", "counted", "formulas", "match"} <= set(result["layers"][0])
    assert {"name", "version", "reported", "unit", "ledger", "unexplained"} <= set(result["tools"][0])
    assert result["ok"]
    assert result["training_step"] is None
    total = f"{result['counted']['mul']:,}"
    for text in ("stem", "shared", "head", "thop", "fvcore", "ptflops", "FlopCounterMode", total):
        assert text in outcome.output


def test_a_mismatch_is_exit_status_1(monkeypatch: pytest.MonkeyPatch) -> None:
    from flopcuda import ops

    true_linear = ops.OPERATORS["linear"]

    def doubled(*arguments: object, **options: object) -> tuple[Tensor, Tensor]:
        output, counters = true_linear(*arguments, **options)
        return output, 2 * counters

    replace_operator(monkeypatch, "linear", doubled)
    outcome = run("validate", "tests.test_validation:small_net", "--input-size", "3x9x9")
    assert outcome.exit_code == 1
    assert "FAILED: counted and exact formula differ in head" in outcome.output


SMALL_STEP = ("validate", "tests.test_validation:small_net", "--input-size", "3x9x9", "--training-step")


def wrong_in_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    """A convolution that counts one too many, when it is part of a backward pass."""
    from flopcuda import ops

    true_conv2d = ops.OPERATORS["conv2d"]

    def off_by_one(*arguments: object, **options: object) -> tuple[Tensor, Tensor]:
        output, counters = true_conv2d(*arguments, **options)
        return output, counters if torch._C._current_autograd_node() is None else counters + 1

    replace_operator(monkeypatch, "conv2d", off_by_one)


def test_a_training_step_that_counts_right(model: SmallNet, images: Tensor) -> None:
    before = fingerprint(model.train())
    result = flopcuda.validate(model, images, training_step=True)
    assert_unchanged(model, before)
    assert all(parameter.grad is None for parameter in model.parameters())
    step = result.training_step
    assert step is not None
    assert (result.ok, step.ok) == (True, True)
    assert step.phases["forward"].macs == step.phases["backward_weight"].macs == result.counted.macs
    # The gradient of the images is not asked for, and all others are.
    stem = result.layers[0].counted.macs
    assert step.phases["backward_input"].macs == result.counted.macs - stem
    assert sum(counters.macs for counters in step.phases.values()) == step.counted.macs
    (report,) = step.tools
    assert (report.name, report.unexplained) == ("torch FlopCounterMode", 0)
    assert sum(term.amount for term in report.ledger) == report.reported


def test_a_training_step_that_counts_wrong_fails(
    model: SmallNet, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong_in_gradients(monkeypatch)
    result = flopcuda.validate(model, images, tools=[], training_step=True)
    assert result.training_step is not None
    assert [layer.match for layer in result.layers] == [True] * 3
    assert [layer.match for layer in result.training_step.layers] == [False, False, True]
    assert (result.ok, result.training_step.ok) == (False, False)
    assert result.training_step.tools[0].unexplained != 0
    assert flopcuda.validate(model, images, tools=[]).ok


def test_a_step_without_a_gradient_is_one_clear_error(model: SmallNet, images: Tensor) -> None:
    with pytest.raises(ValueError, match="no output of SmallNet has a gradient"):
        flopcuda.validate(model.requires_grad_(False), images, tools=[], training_step=True)


def test_the_command_line_prints_and_writes_the_training_step(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    outcome = run(*SMALL_STEP, "--json", str(file))
    assert outcome.exit_code == 0, outcome.output
    step = json.loads(file.read_text())["training_step"]
    assert list(step) == ["counted", "phases", "layers", "tools", "not_counted", "ok"]
    assert list(step["phases"]) == ["forward", "backward_input", "backward_weight"]
    assert step["ok"]
    for text in ("Training step", "backward_weight", "in the training step too", f"{step['counted']['mul']:,}"):
        assert text in outcome.output


def test_a_mismatch_in_the_training_step_is_exit_status_1(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong_in_gradients(monkeypatch)
    outcome = run(*SMALL_STEP)
    assert outcome.exit_code == 1
    assert "FAILED: counted and exact formula differ in stem, shared" in " ".join(outcome.output.split())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["resnet5"], "no such model; did you mean resnet50"),
        (["nosuch.module:factory"], "can't import nosuch.module"),
        (["tests.test_validation:nothing"], "has no 'nothing'"),
        (["tests.test_validation:Path"], "not a torch.nn.Module"),
        (["resnet18", "--input-size", "4x64x64"], "conv1 (Conv2d): conv2d: input has 4 channels"),
        (["resnet18", "--device", "nonsense"], "nonsense"),
        (["resnet18", "--device", "meta"], "for cpu and cuda only"),
        (["resnet18", "--input-size", "3x0x3"], "is no input size"),
        (["resnet18", "--batch", "0"], "batch"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_status_2(arguments: list[str], sentence: str) -> None:
    outcome = run("validate", *arguments)
    assert outcome.exit_code == 2
    assert sentence in outcome.output
    assert "Traceback" not in outcome.output


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_without_a_device_is_one_sentence() -> None:
    outcome = run("validate", "resnet18", "--device", "cuda")
    assert outcome.exit_code == 2
    assert "no CUDA device" in outcome.output


def test_info_names_what_was_built() -> None:
    outcome = run("info")
    assert outcome.exit_code == 0
    for text in ("flopcuda", torch.__version__, "CPU kernels", "built with CUDA", "GPUs"):
        assert text in outcome.output


def test_the_command_runs_as_a_process() -> None:
    command = [sys.executable, "-m", "flopcuda", "--version"]
    assert "flopcuda" in subprocess.run(command, capture_output=True, text=True, check=True).stdout


MODELS = ["resnet18", "resnet50", "vgg16", "mobilenet_v2", "densenet121"]


@pytest.mark.parametrize("name", MODELS)
def test_torchvision_models_are_explained_to_the_last_unit(name: str) -> None:
    from flopcuda.models import load_model

    result = flopcuda.validate(load_model(name), torch.randn(2, 3, 64, 64), name=name)
    assert result.ok
    assert {report.name: report.unexplained for report in result.tools} == dict.fromkeys(
        (report.name for report in result.tools), 0
    )


def test_the_headline_figures_of_resnet50() -> None:
    from flopcuda.models import load_model

    result = flopcuda.validate(load_model("resnet50"), torch.randn(4, 3, 224, 224))
    assert result.ok
    assert (result.params.total, result.params.trainable, result.params.non_trainable) == (25557032, 25557032, 0)
    assert result.counted.macs == 16_356_737_024
    reported = {report.name: report.reported for report in result.tools}
    assert reported["thop"] == 16_534_970_368
    assert reported["fvcore"] == 16_446_050_304
    assert 32_713_474_048 in reported.values()
    assert 16_446_058_496 in reported.values()
    assert {report.unexplained for report in result.tools} == {0}

"""The ledgers from counted MACs to other tools' numbers.

What was counted is worked out here from the shapes that hooks see, so that neither the counted kernels nor the
package's formulas take part.
"""

from __future__ import annotations

import copy
import dataclasses
import importlib
import importlib.util
import json
import logging
import threading
import warnings
from collections.abc import Callable, Iterator
from importlib import metadata
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flopcuda.tools import ALL, CountedLayer, ToolReport, article_2021, compare, comparison, installed, ledger, sandbox

pytest.importorskip("thop")
pytest.importorskip("fvcore")
pytest.importorskip("ptflops")
models = pytest.importorskip("torchvision.models")

ARCHITECTURES = ["resnet18", "resnet50", "vgg16", "mobilenet_v2", "densenet121"]

Inputs = tuple[Any, ...]


def count(model: nn.Module, inputs: Inputs) -> dict[str, CountedLayer]:
    """The true counts of every convolution and linear layer, from its weight and the outputs of each of its calls."""
    model = copy.deepcopy(model)
    counted: dict[str, CountedLayer] = {}
    names = {module: name for name, module in model.named_modules()}

    def note(module: nn.Module, arguments: Inputs, output: Tensor) -> None:
        assert isinstance(module, nn.Conv2d | nn.Linear)
        name, products = names[module], output.numel() * module.weight[0].numel()
        before = counted.get(name) or CountedLayer(name, type(module).__name__, mul=0, pad=0)
        padded = products - inside(module, arguments[0]) if isinstance(module, nn.Conv2d) else 0
        counted[name] = dataclasses.replace(before, mul=before.mul + products, pad=before.pad + padded)

    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(note)
    with torch.no_grad():
        model(*inputs)
    return counted


def inside(conv: nn.Conv2d, images: Tensor) -> int:
    """The products that are not with padding: those of ones with ones, which padding makes zeros."""
    pixels, taps = torch.ones(1, 1, *images.shape[2:]), torch.ones(1, 1, *conv.kernel_size)
    ones = nn.functional.conv2d(pixels, taps, None, conv.stride, conv.padding, conv.dilation)
    return int(ones.sum()) * len(images) * conv.weight.shape[:2].numel()


def explained(report: ToolReport) -> int:
    return sum(term.amount for term in report.ledger)


def terms(report: ToolReport) -> dict[str, int]:
    return {term.term: term.amount for term in report.ledger}


def assert_fully_explained(model: nn.Module, inputs: Inputs) -> None:
    counted = count(model, inputs)
    for report in compare(model, inputs, counted):
        assert report.error is None
        assert report.ledger[0].term == ledger.COUNTED
        assert report.ledger[0].amount == sum(layer.mul for layer in counted.values())
        assert report.reported == explained(report)
        assert report.unexplained == 0
        assert report.disagreements == ()


class Tiny(nn.Module):
    """Every kind of layer that matters here, small: bias and none, groups, norm, pooling, a functional call."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.grouped = nn.Conv2d(8, 8, (3, 1), groups=4)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.stem(x)))
        x = nn.functional.max_pool2d(self.grouped(x), 2)
        return self.head(self.pool(x).flatten(1))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Many small operators: on a busy machine threads mostly wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def tiny() -> Tiny:
    return Tiny().eval()


@pytest.fixture
def inputs() -> Inputs:
    return (torch.randn(3, 3, 9, 8),)


# --- every difference is explained ---


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_nothing_is_unexplained(architecture: str) -> None:
    assert_fully_explained(getattr(models, architecture)().eval(), (torch.randn(4, 3, 64, 64),))


@pytest.mark.slow
@pytest.mark.parametrize(("batch", "size"), [(1, 64), (1, 224), (4, 224)])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_nothing_is_unexplained_at_other_sizes(architecture: str, batch: int, size: int) -> None:
    assert_fully_explained(getattr(models, architecture)().eval(), (torch.randn(batch, 3, size, size),))


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_nothing_is_unexplained_at_any_batch(tiny: Tiny, batch: int) -> None:
    assert_fully_explained(tiny, (torch.randn(batch, 3, 9, 8),))


def test_nothing_is_unexplained_in_train_mode() -> None:
    assert_fully_explained(models.mobilenet_v2().train(), (torch.randn(4, 3, 64, 64),))


def test_resnet50_has_the_published_numbers() -> None:
    model, inputs = models.resnet50().eval(), (torch.randn(4, 3, 224, 224),)
    counted = count(model, inputs)
    assert sum(layer.mul for layer in counted.values()) == 16_356_737_024
    reports = {report.name: report for report in compare(model, inputs, counted)}
    assert {name: report.reported for name, report in reports.items()} == {
        "thop": 16_534_970_368,
        "fvcore": 16_446_050_304,
        "ptflops": 4_163_972_584,
        "ptflops (aten)": 16_356_741_024,
        "torch FlopCounterMode": 32_713_474_048,
    }
    assert {report.unexplained for report in reports.values()} == {0}
    # 22,227,968 an image at 2 per element, and (7 x 7 + 1) x 2048 for the pool.
    assert terms(reports["thop"])["batch norm"] == 2 * 4 * 22_227_968
    assert terms(reports["thop"])["average pool"] == 4 * 102_400
    assert terms(reports["fvcore"])["batch norm"] == 4 * 22_227_968
    assert terms(reports["ptflops (aten)"])["bias"] == 4 * 1000

    headline = article_2021(model, inputs, counted)
    assert headline is not None
    assert headline.reported == 16_446_058_496
    assert [term.amount for term in headline.ledger] == [16_356_737_024, 4 * 22_227_968, 4 * 102_400]
    assert headline.unexplained == 0
    # The headline is the article's; what is counted wrongly is not explained away.
    counted["fc"] = dataclasses.replace(counted["fc"], mul=counted["fc"].mul - 1)
    wrong = article_2021(model, inputs, counted)
    assert wrong is not None
    assert wrong.unexplained == 1

    model.lock = threading.Lock()
    uncopied = article_2021(model, inputs, counted)
    assert uncopied is not None
    assert (uncopied.reported, uncopied.unexplained, uncopied.ledger) == (None, None, ())
    assert uncopied.error == "the model cannot be copied: TypeError: cannot pickle '_thread.lock' object"


def test_the_article_has_no_number_for_anything_else(tiny: Tiny, inputs: Inputs) -> None:
    assert article_2021(tiny, inputs, count(tiny, inputs)) is None
    assert article_2021(tiny, (torch.randn(4, 3, 224, 224),), {}) is None


@pytest.mark.parametrize(
    ("model", "inputs"),
    [
        pytest.param(nn.Conv2d(4, 6, 3, groups=2), (torch.randn(2, 4, 8, 8),), id="a convolution is the model"),
        pytest.param(nn.Linear(5, 7), (torch.randn(2, 3, 5),), id="a linear layer is the model"),
        pytest.param(nn.Sequential(nn.Linear(5, 7, bias=False), nn.GELU()), (torch.randn(2, 5),), id="without bias"),
        pytest.param(
            nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, affine=False), nn.LayerNorm(4), nn.Softmax(1)).eval(),
            (torch.randn(2, 4),),
            id="norms",
        ),
        pytest.param(
            nn.Sequential(nn.Conv2d(4, 4, 1), nn.GroupNorm(2, 4), nn.AvgPool2d(2), nn.Upsample(scale_factor=2)),
            (torch.randn(2, 4, 4, 4),),
            id="average pool and upsample",
        ),
    ],
)
def test_nothing_is_unexplained_in_other_models(model: nn.Module, inputs: Inputs) -> None:
    assert_fully_explained(model, inputs)


class SharesModules(nn.Module):
    """One convolution and one block in several places, all of them called."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(4, 4, 3, padding=1)
        self.b = self.a
        self.block = nn.Sequential(self.a, nn.ReLU(), self.a, nn.Conv2d(4, 4, 1))
        self.again = nn.Sequential(self.block, nn.BatchNorm2d(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.again(self.block(self.b(self.a(x))))


def test_tools_that_count_shared_modules_again_are_explained() -> None:
    model, inputs = SharesModules().eval(), (torch.randn(2, 4, 8, 8),)
    assert_fully_explained(model, inputs)
    reports = {report.name: terms(report) for report in compare(model, inputs, count(model, inputs))}
    assert {name for name, ledger in reports.items() if "shared modules counted again" in ledger} == {"thop", "ptflops"}


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.linear(x) + y


def test_models_with_several_inputs() -> None:
    assert_fully_explained(TwoInputs(), (torch.randn(2, 4), torch.randn(2, 4)))


class OwnLinear(nn.Linear):
    """thop and ptflops look at the exact type, so they do not see this."""


def test_a_layer_that_a_tool_does_not_see_is_named() -> None:
    model, inputs = nn.Sequential(OwnLinear(4, 5), nn.Linear(5, 3)), (torch.randn(2, 4),)
    assert_fully_explained(model, inputs)
    reports = {report.name: terms(report) for report in compare(model, inputs, count(model, inputs))}
    unseen = {name: ledger.get("not seen: 0 (OwnLinear)") for name, ledger in reports.items()}
    assert unseen == {
        "thop": -40, "fvcore": None, "ptflops": -40, "ptflops (aten)": None, "torch FlopCounterMode": None
    }  # fmt: skip


def test_terms_are_what_hooks_observe() -> None:
    model, inputs = models.densenet121().eval(), (torch.randn(2, 3, 64, 64),)
    elements = 0

    def observe(_: nn.Module, arguments: Inputs, __: Tensor) -> None:
        nonlocal elements
        elements += arguments[0].numel()

    reports = {report.name: terms(report) for report in compare(model, inputs, count(model, inputs))}
    hooks = [m.register_forward_hook(observe) for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.no_grad():
        model(*inputs)
    assert len(hooks) == 121
    assert reports["thop"]["batch norm"] == 4 * elements
    assert reports["fvcore"]["batch norm"] == 2 * elements
    assert reports["ptflops"]["batch norm"] == 2 * elements
    assert reports["ptflops"]["bias"] == 2 * 1000


# --- what is wrong stays unexplained ---


@pytest.mark.parametrize("tool", ALL)
@pytest.mark.parametrize("layer", ["stem", "grouped", "head"])
@pytest.mark.parametrize("error", [-1, 1])
def test_a_layer_that_is_wrong_by_one_is_unexplained(
    tiny: Tiny, inputs: Inputs, tool: str, layer: str, error: int
) -> None:
    counted = count(tiny, inputs)
    counted[layer] = dataclasses.replace(counted[layer], mul=counted[layer].mul + error)
    (report,) = compare(tiny, inputs, counted, [tool])
    assert report.reported is not None
    assert report.unexplained == report.reported - explained(report) != 0
    # The factor 2 is a convention of torch's for every layer, so that one MAC too few leaves two FLOPs.
    assert report.unexplained == -error * (2 if tool.startswith("torch") else 1)
    assert [sentence.split(":")[0] for sentence in report.disagreements] == [layer]


@pytest.mark.parametrize("tool", ALL)
@pytest.mark.parametrize("layer", ["stem", "grouped", "head"])
def test_a_layer_that_was_not_counted_is_unexplained(tiny: Tiny, inputs: Inputs, tool: str, layer: str) -> None:
    counted = count(tiny, inputs)
    missing = counted.pop(layer)
    (report,) = compare(tiny, inputs, counted, [tool])
    assert report.unexplained is not None
    assert report.unexplained >= missing.mul
    assert [sentence.split(":")[0] for sentence in report.disagreements] == [layer]


@pytest.mark.parametrize("tool", ALL)
def test_a_layer_that_does_not_exist_is_unexplained(tiny: Tiny, inputs: Inputs, tool: str) -> None:
    counted = {**count(tiny, inputs), "ghost": CountedLayer("ghost", "Linear", mul=7, pad=0)}
    (report,) = compare(tiny, inputs, counted, [tool])
    assert report.unexplained == -7
    assert "ghost" in report.disagreements[0]


@pytest.mark.parametrize("tool", ALL)
def test_errors_that_cancel_out_are_disagreements(tiny: Tiny, inputs: Inputs, tool: str) -> None:
    counted = count(tiny, inputs)
    for name, error in (("stem", 1), ("head", -1)):
        counted[name] = dataclasses.replace(counted[name], mul=counted[name].mul + error)
    (report,) = compare(tiny, inputs, counted, [tool])
    assert report.unexplained == 0
    assert [sentence.split(":")[0] for sentence in report.disagreements] == ["stem", "head"]


@pytest.mark.parametrize("tool", ALL)
@pytest.mark.parametrize("architecture", [Tiny, models.resnet18])
def test_a_total_that_is_wrong_is_unexplained(
    monkeypatch: pytest.MonkeyPatch, tool: str, architecture: Callable[[], nn.Module]
) -> None:
    original = comparison.TOOLS[tool]

    def observe(model: nn.Module, inputs: Inputs) -> Any:
        observation = original.observe(model, inputs)
        return dataclasses.replace(observation, reported=observation.reported + 1)

    monkeypatch.setattr(comparison, "TOOLS", {tool: dataclasses.replace(original, observe=observe)})
    model, inputs = architecture().eval(), (torch.randn(2, 3, 32, 32),)
    (report,) = compare(model, inputs, count(model, inputs), [tool])
    assert report.unexplained == 1


def test_thops_own_total_is_not_believed_either(monkeypatch: pytest.MonkeyPatch, tiny: Tiny, inputs: Inputs) -> None:
    thop = importlib.import_module("thop")
    profile = thop.profile

    def perturbed(*arguments: Any, **options: Any) -> Any:
        total, *rest = profile(*arguments, **options)
        return total + 1, *rest

    monkeypatch.setattr(thop, "profile", perturbed)
    (report,) = compare(tiny, inputs, count(tiny, inputs), ["thop"])
    assert report.unexplained == 1


@pytest.mark.parametrize("tool", ALL)
def test_products_outside_counted_layers_are_unexplained(tool: str) -> None:
    class Attends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.linear(x)
            return torch.bmm(x, x.transpose(1, 2))

    model, inputs = Attends(), (torch.randn(2, 3, 4),)
    (report,) = compare(model, inputs, count(model, inputs), [tool])
    products = 2 * 3 * 3 * 4
    expected = {"thop": 0, "torch FlopCounterMode": 2 * products}
    assert report.unexplained == expected.get(tool, products)


# --- tools that are missing or fail ---


@pytest.mark.parametrize("package", ["thop", "fvcore", "ptflops"])
def test_a_tool_that_is_not_installed_is_named(
    monkeypatch: pytest.MonkeyPatch, tiny: Tiny, inputs: Inputs, package: str
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find_spec(name))
    reports = compare(tiny, inputs, count(tiny, inputs))
    assert [report.name for report in reports] == list(ALL)
    for report in reports:
        if report.name.startswith(package):
            assert report.error == f"not installed: pip install {package}"
            assert (report.version, report.reported, report.unexplained, report.ledger) == (None, None, None, ())
        else:
            assert report.unexplained == 0


def test_a_tool_that_cannot_be_imported_says_so(monkeypatch: pytest.MonkeyPatch, tiny: Tiny, inputs: Inputs) -> None:
    import_module = importlib.import_module

    def fails(name: str, package: str | None = None) -> Any:
        if name == "thop":
            raise ModuleNotFoundError("No module named 'distutils'")
        return import_module(name, package)

    monkeypatch.setattr(importlib, "import_module", fails)
    (report,) = compare(tiny, inputs, {}, ["thop"])
    assert report.error == (
        "thop is installed but cannot be imported: ModuleNotFoundError: No module named 'distutils'"
    )
    assert report.version == metadata.version("thop")


@pytest.mark.parametrize(
    ("versions", "stated", "expected"),
    [
        ({"thop": "0.1.1-2209072238"}, "0.1.1", ("thop", "0.1.1-2209072238")),
        ({"ultralytics-thop": "2.2.3"}, "2.2.3", ("ultralytics-thop", "2.2.3")),
        ({"thop": "0.1.1-2209072238", "ultralytics-thop": "2.2.3"}, "2.2.3", ("ultralytics-thop", "2.2.3")),
        ({"thop": "0.1.1-2209072238", "ultralytics-thop": "2.2.3"}, "0.1.1", ("thop", "0.1.1-2209072238")),
        ({}, "0.1.1", ("thop", "unknown")),
    ],
)
def test_the_distribution_behind_thop_is_named(
    monkeypatch: pytest.MonkeyPatch, versions: dict[str, str], stated: str, expected: tuple[str, str]
) -> None:
    monkeypatch.setattr(installed, "_version", versions.get)
    monkeypatch.setattr(importlib.import_module("thop"), "__version__", stated)
    tool = comparison.TOOLS["thop"]
    assert (installed.provider(tool), installed.version(tool)) == expected


class Fails(nn.Module):
    """Runs one layer and raises."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.error = error

    def forward(self, x: Tensor) -> Tensor:
        self.linear(nn.functional.relu(x))
        raise self.error


@pytest.mark.parametrize("tool", ALL)
def test_a_tool_that_crashes_yields_one_sentence(tool: str) -> None:
    (report,) = compare(Fails(ValueError("no\n such luck.")), (torch.randn(2, 4),), {}, [tool])
    assert report.error == f"{tool} failed on this model: ValueError: no such luck"
    assert (report.reported, report.unexplained, report.ledger) == (None, None, ())
    assert report.version is not None


def test_a_model_that_cannot_be_copied_is_not_run(tiny: Tiny, inputs: Inputs) -> None:
    tiny.lock = threading.Lock()
    for report in compare(tiny, inputs, {}):
        assert report.error == (
            f"{report.name} was not run: the model cannot be copied: TypeError: cannot pickle '_thread.lock' object"
        )
        assert report.reported is None


def test_unknown_tools_are_an_error(tiny: Tiny, inputs: Inputs) -> None:
    with pytest.raises(ValueError, match="no such tool: calflops; there are thop, fvcore"):
        compare(tiny, inputs, {}, ["thop", "calflops"])


# --- no trace ---


def trace(model: nn.Module) -> list[Any]:
    """All that a tool could leave on a model: attributes, hooks, buffers, modes, and the values of its tensors."""
    state = [(name, tensor.clone()) for name, tensor in model.state_dict().items()]
    return [
        [(name, tensor.tolist()) for name, tensor in state],
        [(name, sorted(vars(module)), module.training) for name, module in model.named_modules()],
        [
            (name, attribute, list(value))
            for name, module in model.named_modules()
            for attribute, value in vars(module).items()
            if isinstance(value, dict)
        ],
        [parameter.grad for parameter in model.parameters()],
    ]


def process_state() -> list[Any]:
    """All that a tool could leave in the process."""
    ptflops_rules = importlib.import_module("ptflops.pytorch_ops")
    aten_rules = importlib.import_module("ptflops.aten_ops")
    return [
        dict(vars(torch.nn.functional)),
        dict(vars(torch.Tensor)),
        [getattr(torch, name) for name in ("matmul", "mm", "bmm", "addmm", "baddbmm", "mul", "add")],
        dict(ptflops_rules.MODULES_MAPPING),
        dict(ptflops_rules.FUNCTIONAL_MAPPING),
        dict(ptflops_rules.TENSOR_OPS_MAPPING),
        dict(aten_rules.ATEN_OPS_MAPPING),
        dict(torch.nn.modules.module._global_forward_hooks),
        dict(torch.nn.modules.module._global_forward_pre_hooks),
        torch.get_rng_state().tolist(),
        torch.is_grad_enabled(),
        torch._C._get_tracing_state(),
        logging.root.manager.disable,
        list(warnings.filters),
    ]


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("tool", ALL)
def test_tools_leave_no_trace(inputs: Inputs, tool: str, mode: bool) -> None:
    model = nn.Sequential(Tiny(), nn.Dropout(0.5)).train(mode)
    model[0].norm.eval()  # a mode of its own, which a tool's eval() and train() would lose
    counted = count(model, inputs)
    before, process, image = trace(model), process_state(), inputs[0].clone()
    (report,) = compare(model, inputs, counted, [tool])
    assert report.unexplained == 0
    assert trace(model) == before
    assert process_state() == process
    assert torch.equal(inputs[0], image)


def test_a_model_that_writes_to_its_input_does_not_reach_the_callers() -> None:
    model, images = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 4)), torch.randn(5, 4)
    before = images.clone()
    reports = compare(model, (images,), count(model, (images.clone(),)))
    assert {report.unexplained for report in reports} == {0}
    assert torch.equal(images, before)


@pytest.mark.parametrize("tool", ALL)
def test_tools_leave_no_trace_when_the_model_fails(tool: str) -> None:
    model = Fails(ValueError("no"))
    before, process = trace(model), process_state()
    compare(model, (torch.randn(2, 4, generator=torch.Generator()),), {}, [tool])
    assert trace(model) == before
    assert process_state() == process


@pytest.mark.parametrize("tool", ALL)
def test_tools_leave_no_trace_when_interrupted(tool: str) -> None:
    model = Fails(KeyboardInterrupt())
    inputs = (torch.randn(2, 4),)
    before, process = trace(model), process_state()
    with pytest.raises(KeyboardInterrupt):
        compare(model, inputs, {}, [tool])
    assert trace(model) == before
    assert process_state() == process


def test_tools_are_silent(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, tiny: Tiny, inputs: Inputs
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compare(tiny, inputs, count(tiny, inputs))
        compare(Fails(ValueError("no")), (torch.randn(2, 4),), {})
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_inputs_with_a_history_are_taken(tiny: Tiny, inputs: Inputs) -> None:
    images = inputs[0].requires_grad_() * 2
    assert {report.unexplained for report in compare(tiny, (images,), count(tiny, inputs))} == {0}


def test_the_copy_is_refused_in_one_sentence() -> None:
    with pytest.raises(sandbox.NotCopyableError, match="the model cannot be copied: TypeError"):
        sandbox.copy_of(nn.ReLU(), (threading.Lock(),))


# --- the report ---


def test_reports_go_to_json(tiny: Tiny, inputs: Inputs) -> None:
    for report in compare(tiny, inputs, count(tiny, inputs)):
        data = json.loads(json.dumps(report.to_dict()))
        assert list(data) == [
            "name", "version", "unit", "convention", "reported", "ledger", "unexplained", "error"
        ]  # fmt: skip
        assert sum(line["amount"] for line in data["ledger"]) + data["unexplained"] == data["reported"]
        assert all(isinstance(line["amount"], int) for line in data["ledger"])
        assert data["unit"].startswith("FLOPs" if data["name"].startswith("torch") else "MACs")
        assert data["convention"]

"""backend="ptxvm": a CPU model through the CUDA kernels on the PTX machine, from module to report."""

from __future__ import annotations

import copy
import re

import pytest
import torch
import torchvision
from click.testing import CliRunner
from torch import Tensor, nn

import flopcuda
from flopcuda import ptx, ptx_backend
from flopcuda.cli import main
from tests.conftest import SmallNet
from tests.cuda_kernels import needs_kernels

pytestmark = needs_kernels


def count(model: nn.Module, images: Tensor, **options: object) -> tuple[Tensor, flopcuda.Report]:
    with flopcuda.instrument(model, **options) as session, torch.no_grad():  # type: ignore[arg-type]
        return model(images), session.report()


@pytest.mark.parametrize("count_zero", [False, True])
def test_counts_and_computes_as_the_cpu_kernels_do(model: SmallNet, images: Tensor, count_zero: bool) -> None:
    images = images.relu()
    native_output, native = count(model, images, count_zero=count_zero)
    output, report = count(model, images, count_zero=count_zero, backend="ptxvm")
    torch.testing.assert_close(output, native_output)
    for ours, theirs in zip(report.launches, native.launches, strict=True):
        assert (ours.module, ours.output_shape, ours.options) == (theirs.module, theirs.output_shape, theirs.options)
        for name in ("mul", "add", "pad", "zero"):
            assert getattr(ours.counters, name) == getattr(theirs.counters, name)


def test_a_launch_says_where_it_ran_and_what_the_machine_saw(model: SmallNet, images: Tensor) -> None:
    _, report = count(model, images, backend="ptxvm")
    for launch in report.launches:
        assert launch.backend == "ptxvm"
        assert launch.kernel.startswith(f"flopcuda_{launch.op.removesuffix('2d')}_f32_")
        assert launch.executed_macs == launch.counters.lane >= launch.counters.mul > 0
        assert launch.seconds is None
    assert report.total.executed_macs == report.total.lane
    _, native = count(model, images)
    assert {(launch.backend, launch.executed_macs) for launch in native.launches} == {("native", None)}
    assert native.total.executed_macs is None


def test_gradients_flow(model: SmallNet, images: Tensor) -> None:
    original = copy.deepcopy(model)
    original(images).square().sum().backward()
    with flopcuda.instrument(model, backend="ptxvm"):
        model(images).square().sum().backward()
    for ours, theirs in zip(model.parameters(), original.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_channels_last_stays_channels_last(images: Tensor) -> None:
    conv = nn.Conv2d(3, 8, 3)
    output, _ = count(conv, images.to(memory_format=torch.channels_last), backend="ptxvm")
    assert output.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(output, conv(images))


@pytest.mark.parametrize("shape", [(0, 3, 8, 8), (3, 8, 8)])
def test_empty_batches_and_single_images(shape: tuple[int, ...]) -> None:
    conv, images = nn.Conv2d(3, 8, 3), torch.randn(shape)
    output, report = count(conv, images, backend="ptxvm")
    torch.testing.assert_close(output, conv(images))
    assert report.total.mul == output.numel() * 27
    assert report.total.executed_macs == report.total.lane


def test_a_machine_of_ones_own(model: SmallNet, images: Tensor) -> None:
    in_order, _ = count(model, images, backend="ptxvm")
    shuffled, report = count(model, images, backend=ptx.Machine(seed=1, threads=1))
    assert torch.equal(shuffled, in_order)
    assert report.launches[0].backend == "ptxvm"


def test_meta_tensors_give_shapes_only() -> None:
    output, report = count(nn.Linear(4, 5, device="meta"), torch.empty(2, 4, device="meta"), backend="ptxvm")
    assert output.shape == (2, 5)
    assert report.launches == ()


def test_a_defect_in_a_kernel_is_named_with_the_module(
    model: SmallNet, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine with a tiny budget takes every kernel for a run-away loop."""
    with pytest.raises(RuntimeError, match=r"^stem \(Conv2d\): the PTX machine found a defect .*runaway.*line \d+"):
        count(model, images, backend=ptx.Machine(budget=10))
    assert type(model.stem) is nn.Conv2d


def test_a_kernel_may_not_write_its_operands(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ptx_backend.kernel_texts()
    reached = {text for name, text in texts.items() if "_linear_f32" in name}
    stores = {text: _store_to_inputs(text) for text in reached}
    monkeypatch.setattr(ptx_backend, "kernel_texts", lambda: {name: stores.get(text) for name, text in texts.items()})
    with pytest.raises(RuntimeError, match=r"Linear.*bounds.*read"):
        count(nn.Linear(8, 8), torch.randn(2, 8), backend="ptxvm")


def _store_to_inputs(text: str) -> str:
    """Each scalar load from global memory also stores what it has read."""
    load = re.compile(r"^(\s*)ld\.global\.(\w+)\s+(\S+), (\[.*\]);", re.MULTILINE)
    return load.sub(r"\g<0>\n\1st.global.\2 \4, \3;", text.replace("ld.global.nc", "ld.global"))


def test_without_ptx_it_says_so(model: SmallNet, monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setattr(ptx_backend.resources, "files", lambda _: tmp_path)
    ptx_backend.kernel_texts.cache_clear()
    try:
        with pytest.raises(RuntimeError, match="built without nvcc"):
            flopcuda.instrument(model, backend="ptxvm")
    finally:
        ptx_backend.kernel_texts.cache_clear()
    assert type(model.stem) is nn.Conv2d


def test_an_unknown_backend_is_refused(model: SmallNet) -> None:
    with pytest.raises(ValueError, match=r"backend must be 'native', 'ptxvm' or .*Machine, not 'cuda'"):
        flopcuda.instrument(model, backend="cuda")


@pytest.mark.gpu
def test_a_model_on_a_gpu_is_refused(model: SmallNet, images: Tensor) -> None:
    with pytest.raises(RuntimeError, match=r"stem \(Conv2d\): the PTX virtual machine takes tensors on the CPU"):
        count(model.cuda(), images.cuda(), backend="ptxvm")


def test_resnet18_validates() -> None:
    model = torchvision.models.resnet18().eval()
    result = flopcuda.validate(model, torch.randn(1, 3, 64, 64), backend="ptxvm", tools=["torch FlopCounterMode"])
    assert result.ok
    assert result.backend == "ptxvm"
    assert result.seconds is None
    assert len(result.layers) == 21
    assert all(layer.executed_macs == layer.counted.lane for layer in result.layers)
    assert result.counted.macs == 148_557_824
    assert result.tools[0].unexplained == 0


def test_the_command_line() -> None:
    arguments = ["validate", "squeezenet1_1", "--input-size", "3x32x32", "--backend", "ptxvm"]
    outcome = CliRunner().invoke(main, arguments)
    assert outcome.exit_code == 0, outcome.output
    assert "CUDA kernels on the PTX machine" in outcome.output
    assert "executed by the PTX machine" in outcome.output

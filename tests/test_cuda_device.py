"""What only CUDA devices have: streams, events, graphs, memory of their own that runs out, and several of them."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import flopcuda
from flopcuda import _C, virtual_cuda
from flopcuda.info import info
from flopcuda.prediction.gpus import UNITS
from flopcuda.report import Report
from flopcuda.timing import Stopwatch, in_seconds
from tests.conftest import SmallNet
from tests.cuda_graphs import captured
from tests.test_session import assert_unchanged, fingerprint

pytestmark = pytest.mark.gpu
needs_two_devices = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")


@pytest.fixture
def model() -> SmallNet:
    return SmallNet().cuda().eval()


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, 17, 15, device="cuda")


def counters(report: Report) -> list[flopcuda.Counters]:
    return [launch.counters for launch in report.launches]


def assert_says_what_it_is(device: str, flops_per_second: float | None) -> None:
    """A report of a virtual device says so and gives no FLOPS; a GPU's gives them."""
    assert ("virtual" in device) == virtual_cuda.is_active()
    if virtual_cuda.is_active():
        assert flops_per_second is None
    else:
        assert flops_per_second is not None
        assert flops_per_second > 0


def test_a_report_says_what_kind_of_device_counted(model: SmallNet, images: Tensor) -> None:
    with flopcuda.instrument(model) as session:
        model(images)
    report = session.report()
    for launch in report.launches:
        assert launch.device.startswith("cuda:0")
        assert_says_what_it_is(launch.device, launch.flops_per_second)
    assert_says_what_it_is(report.launches[0].device, report.total.flops_per_second)


def test_validation_matches_in_every_layer(model: SmallNet, images: Tensor) -> None:
    result = flopcuda.validate(model, images)
    assert result.ok
    assert all(layer.match for layer in result.layers)
    assert {report.unexplained for report in result.tools if not report.error} == {0}
    assert_says_what_it_is(result.device, result.flops_per_second)


def test_measure_counts_and_times_a_gpu_only(model: SmallNet, images: Tensor) -> None:
    measurement = flopcuda.measure(model, images, min_seconds=0.05)
    with flopcuda.instrument(model) as session:
        model(images)
    assert measurement.counted == session.report().total.counters
    assert (measurement.seconds is None) == virtual_cuda.is_active()
    assert_says_what_it_is(measurement.device, measurement.flops_per_second)


def test_the_waves_of_a_triangle_are_of_the_blocks_that_multiply() -> None:
    """None beyond the diagonal, though the grid has them; they are dealt out to the multiprocessors one by one."""
    multiprocessors = torch.cuda.get_device_properties(0).multi_processor_count
    tiles = {entry["name"]: entry["tile"] for entry in _C.cuda_kernels()}
    for tokens in (64, 100, 128, 192, 256, 320):
        heads = torch.randn(1, 1, tokens, 16, device="cuda")
        with flopcuda.count() as session:
            nn.functional.scaled_dot_product_attention(heads, heads, heads, is_causal=True)
        scores = session.report().launches[0]
        assert scores.options["triangle"] == "output"
        height, width, _ = tiles[scores.kernel]
        blocks = sum(
            min(top + height, tokens) > left for top in range(0, tokens, height) for left in range(0, tokens, width)
        )
        blocks *= scores.splits
        busiest = -(-blocks // multiprocessors)
        assert scores.wave_efficiency == pytest.approx(blocks / multiprocessors / busiest), (tokens, scores.kernel)


def test_info_names_the_device() -> None:
    assert torch.cuda.get_device_name(0) in info()["GPUs"]
    assert ("virtual" in info()["GPUs"]) == virtual_cuda.is_active()


def test_the_stopwatch_reads_events_of_the_current_stream() -> None:
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        stopwatch = Stopwatch(torch.device("cuda"))
        torch.ones(1000, device="cuda").sum()
        seconds = in_seconds(stopwatch.stop())
    if virtual_cuda.is_active():
        assert seconds is None
    else:
        assert seconds is not None
        assert seconds > 0


def test_counters_of_another_stream_are_waited_for(model: SmallNet, images: Tensor) -> None:
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with flopcuda.instrument(model) as session:
        model(images)
        expected = session.report().total.counters
        session.reset()
        with torch.cuda.stream(stream):
            model(images)
    assert session.report().total.counters == expected


def test_a_captured_model_counts_at_each_replay(model: SmallNet, images: Tensor) -> None:
    inputs = [images * scale for scale in (1, 0, -2)]
    twin = copy.deepcopy(model)
    with torch.no_grad(), flopcuda.instrument(model, count_zero=True) as session:
        eager = []
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # also warms up, as torch wants it before a capture
            for input in inputs:
                model(input)
                eager.append(session.report())
                session.reset()
        torch.cuda.current_stream().wait_stream(stream)
        with captured() as graph:
            output = model(images)
        macs = 0
        for input, expected in zip(inputs, eager, strict=True):
            images.copy_(input)
            graph.replay()
            torch.testing.assert_close(output, twin(input), rtol=1e-4, atol=1e-5)
            report = session.report()
            assert counters(report) == counters(expected)
            assert [launch.seconds for launch in report.launches] == [None] * 4
            macs += report.total.macs
    assert macs == len(inputs) * eager[0].total.macs
    assert eager[0].total.zero < eager[1].total.zero


def test_running_out_of_memory_in_mid_forward_leaves_model_and_device_usable(images: Tensor) -> None:
    model = nn.Sequential(nn.Linear(4, 1), nn.Linear(1, 1 << 20)).cuda()  # an output of 4 TiB
    before = fingerprint(model)
    with (
        flopcuda.instrument(model) as session,
        pytest.raises(torch.OutOfMemoryError, match=r"^1 \(Linear\): .*out of memory"),
    ):
        model(torch.randn(1 << 20, 4, device="cuda"))
    assert_unchanged(model, before)
    assert [launch.module for launch in session.report().launches] == ["0"]
    assert session.report().total.mul == 4 << 20
    assert images.abs().sum().item() > 0


def test_an_exception_in_the_model_keeps_what_was_counted(model: SmallNet, images: Tensor) -> None:
    before = fingerprint(model)

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    handle = model.head.register_forward_pre_hook(fail)
    with pytest.raises(ZeroDivisionError), flopcuda.instrument(model) as session:
        model(images)
    handle.remove()
    assert_unchanged(model, before)
    assert [launch.module for launch in session.report().launches] == ["stem", "shared", "shared"]


def test_operands_of_cpu_and_gpu_are_one_clear_error(model: SmallNet, images: Tensor) -> None:
    with flopcuda.instrument(model):
        with pytest.raises(RuntimeError, match=r"^stem \(Conv2d\): conv2d: weight is on cuda:0, but input is on cpu$"):
            model(images.cpu())
        model.head.cpu()
        with pytest.raises(RuntimeError, match=r"^head \(Linear\): linear: weight is on cpu, but input is on cuda:0$"):
            model(images)


def test_autocast_computes_and_counts_in_half_precision(model: SmallNet, images: Tensor) -> None:
    twin = copy.deepcopy(model)
    with torch.no_grad(), torch.autocast("cuda", dtype=torch.float16), flopcuda.instrument(model) as session:
        output = model(images)
        torch.testing.assert_close(output, twin(images), rtol=1e-2, atol=1e-2)
    assert output.dtype == torch.float16
    assert {launch.dtype for launch in session.report().launches} == {"float16"}
    with torch.no_grad(), flopcuda.instrument(model) as in_full:
        model(images)
    assert session.report().total.mul == in_full.report().total.mul


def test_a_training_step_is_counted_as_on_the_cpu(model: SmallNet, images: Tensor) -> None:
    def step(model: SmallNet, images: Tensor) -> Report:
        with flopcuda.instrument(model) as session:
            model(images).square().sum().backward()
        return session.report()

    twin = copy.deepcopy(model).cpu()
    on_gpu, on_cpu = step(model, images), step(twin, images.cpu())

    def records(report: Report) -> list[tuple[str, str, int, int, int]]:
        return sorted((x.module, x.phase, x.counters.mul, x.counters.add, x.counters.pad) for x in report.launches)

    assert records(on_gpu) == records(on_cpu)
    assert {launch.phase for launch in on_gpu.launches} > {"forward"}
    for (name, parameter), expected in zip(model.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad.cpu(), expected.grad, rtol=1e-3, atol=1e-4, msg=name)


@needs_two_devices
def test_a_model_on_another_than_the_current_device(model: SmallNet, images: Tensor) -> None:
    with flopcuda.instrument(model) as session:
        model(images)
        expected = counters(session.report())
        session.reset()
        output = model.to("cuda:1")(images.to("cuda:1"))
    assert output.device == torch.device("cuda:1")
    assert counters(session.report()) == expected
    assert {launch.device.split()[0] for launch in session.report().launches} == {"cuda:1"}
    assert torch.cuda.current_device() == 0


@needs_two_devices
def test_one_model_on_two_devices(model: SmallNet, images: Tensor) -> None:
    model.head.to("cuda:1")
    handle = model.head.register_forward_pre_hook(lambda _, inputs: inputs[0].to("cuda:1"))
    with flopcuda.instrument(model) as session:
        assert model(images).device == torch.device("cuda:1")
        assert [launch.device.split()[0] for launch in session.report().launches] == ["cuda:0"] * 3 + ["cuda:1"]
        handle.remove()
        with pytest.raises(
            RuntimeError, match=r"^head \(Linear\): linear: weight is on cuda:1, but input is on cuda:0$"
        ):
            model(images)


@pytest.mark.parametrize("features", [64, 60])
@pytest.mark.parametrize(("dtype", "name"), [(torch.float16, "f16"), (torch.bfloat16, "bf16")])
def test_narrow_linear_layers_run_on_tensor_cores(dtype: torch.dtype, name: str, features: int) -> None:
    """Whether copies of 16 bytes divide their rows or not; and so do their gradients."""
    layer = nn.Linear(features, 40).to("cuda", dtype)
    twin = copy.deepcopy(layer)
    samples = torch.randn(50, features, device="cuda", dtype=dtype, requires_grad=True)
    with flopcuda.instrument(layer) as session:
        output = layer(samples)
        (of_samples, of_weight) = torch.autograd.grad(output.float().square().sum(), (samples, layer.weight))
    expected = twin(samples)
    tolerance = 4 * torch.finfo(dtype).eps
    torch.testing.assert_close(output, expected, rtol=tolerance, atol=tolerance)
    grads = torch.autograd.grad(expected.float().square().sum(), (samples, twin.weight))
    torch.testing.assert_close((of_samples, of_weight), grads, rtol=0.1, atol=0.1)
    launches = session.report().launches
    assert {launch.kernel.split("_")[2] for launch in launches} == {name}
    assert (launches[0].counters.mul, launches[0].counters.add) == (50 * 40 * features, 50 * 40 * features)
    assert {launch.counters.mul for launch in launches} == {50 * 40 * features}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_convolutions_and_their_gradients_run_on_tensor_cores(dtype: torch.dtype) -> None:
    """Those of float32 as TF32, where torch allows it."""
    torch._C._set_cudnn_allow_tf32(True)
    layer = nn.Conv2d(32, 48, 3, padding=1).to("cuda", dtype)
    images = torch.randn(2, 32, 9, 8, device="cuda", dtype=dtype, requires_grad=True)
    with flopcuda.instrument(layer) as session:
        output = layer(images)
        (of_images,) = torch.autograd.grad(output.float().sum(), images)
    twin, samples = copy.deepcopy(layer).double(), images.detach().double().requires_grad_()
    expected = twin(samples)
    (expected_gradient,) = torch.autograd.grad(expected.sum(), samples)
    torch.testing.assert_close(output.double(), expected, rtol=0.02, atol=0.02)
    torch.testing.assert_close(of_images.double(), expected_gradient, rtol=0.02, atol=0.02)
    name = {torch.float16: "f16", torch.bfloat16: "bf16", torch.float32: "tf32"}[dtype]
    launches = session.report().launches
    kernels = {launch.kernel.split("_")[2] for launch in launches}
    is_certain = virtual_cuda.is_active() and dtype != torch.float32
    assert kernels <= ({name} if is_certain else {name, "f32"})  # a device may multiply sooner than convert
    assert {launch.phase for launch in launches} == {"forward", "backward_input"}
    in_image = int(nn.functional.conv2d(torch.ones(1, 1, 9, 8), torch.ones(1, 1, 3, 3), padding=1).sum())
    products = 2 * 32 * 48 * 9 * 8 * 9
    assert (launches[0].counters.mul, launches[0].counters.pad) == (products, products - 2 * 32 * 48 * in_image)


def test_gradients_of_weights_run_on_tensor_cores() -> None:
    layer = nn.Conv2d(16, 24, 3, padding=1).to("cuda", torch.float16)
    images = torch.randn(64, 16, 17, 16, device="cuda", dtype=torch.float16)
    with flopcuda.instrument(layer) as session:
        output = layer(images)
        (gradient,) = torch.autograd.grad(output, layer.weight, torch.ones_like(output))
    expected = nn.grad.conv2d_weight(images.double(), layer.weight.shape, torch.ones_like(output).double(), padding=1)
    torch.testing.assert_close(gradient.double(), expected, rtol=2e-3, atol=0.1)
    (launch,) = [launch for launch in session.report().launches if launch.phase == "backward_weight"]
    assert launch.kernel.startswith("flopcuda_conv_f16_")
    assert "_many_taps" in launch.kernel
    assert launch.counters.mul == 64 * 16 * 24 * 17 * 16 * 9


def test_float32_is_tf32_only_where_torch_allows_it() -> None:
    """cuDNN's setting is for convolutions, cuBLAS's for products, those that the kernels see as convolutions too.

    Enough images for the device at hand; where tensor cores are not much faster, they are not worth the copies of a
    convolution's images.
    """
    device = torch.cuda.get_device_properties(0)
    rates = dict(zip(UNITS, _C.device_rates(10 * device.major + device.minor, device.name), strict=True))
    convolution = "tf32" if rates["mma_tf32"] >= 4 * rates["fma_f32"] else "f32"
    layer = nn.Conv2d(64, 64, 3).cuda()
    images = torch.randn(max(device.multi_processor_count // 2, 1), 64, 16, 16, device="cuda")
    a, b = torch.randn(2, 70, 64, device="cuda"), torch.randn(2, 64, 70, device="cuda")

    def kernels() -> list[str]:
        with torch.no_grad(), flopcuda.count() as session:
            layer(images), a @ b, nn.functional.linear(a, a[0])
        return [launch.kernel.split("_")[2] for launch in session.report().launches]

    assert kernels() == ["f32", "f32", "f32"]
    torch._C._set_cudnn_allow_tf32(True)
    assert kernels() == [convolution, "f32", "f32"]
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        assert kernels() == [convolution, "tf32", "tf32"]
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False


def test_zeros_of_narrow_layers_are_counted() -> None:
    layer = nn.Linear(16, 8, bias=False).to("cuda", torch.float16)
    samples = torch.zeros(3, 16, device="cuda", dtype=torch.float16)
    with torch.no_grad(), flopcuda.instrument(layer, count_zero=True) as session:
        layer(samples)
    (launch,) = session.report().launches
    assert launch.counters.zero == launch.counters.mul == 3 * 16 * 8


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16], ids=str)
def test_a_split_reduction_is_counted_at_each_replay(dtype: torch.dtype) -> None:
    """Its blocks' tickets are 0 when a replay begins; the parts are added up in their order, so that no bit differs."""
    layer = nn.Linear(4100, 40).to("cuda", dtype)
    samples = torch.randn(3, 4100, device="cuda", dtype=dtype)
    inputs = [samples * scale for scale in (1, -2)]
    with torch.no_grad(), flopcuda.instrument(layer) as session:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # also warms up
            eager = [layer(input) for input in inputs]
        torch.cuda.current_stream().wait_stream(stream)
        assert {launch.splits > 1 for launch in session.report().launches} == {True}
        session.reset()
        with captured() as graph:
            output = layer(samples)
        for input, expected in zip(inputs, eager, strict=True):
            samples.copy_(input)
            graph.replay()
            (launch,) = session.report().launches
            assert torch.equal(output, expected)
            assert (launch.counters.mul, launch.counters.add) == (3 * 40 * 4100, 3 * 40 * 4100)
    twin = copy.deepcopy(layer).double()
    tolerance = 8 * torch.finfo(dtype).eps
    torch.testing.assert_close(eager[1].double(), twin(inputs[1].double()), rtol=tolerance, atol=64 * tolerance)

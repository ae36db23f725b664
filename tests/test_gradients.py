"""Gradients through counted kernels: values against torch, counts against brute force, over any geometry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

import flopcuda
from flopcuda import ops
from flopcuda.geometry import exact_counts
from tests.cpu_kernels.oracle import ConvCase
from tests.cuda_kernels import needs_kernels
from tests.geometries import conv_cases

property_settings = settings(max_examples=100, deadline=None)


def layer_of(case: ConvCase, weight: Tensor, bias: Tensor | None) -> nn.Conv2d | nn.Conv3d:
    """A layer with the case's padding at the top and to the left on both sides of each axis."""
    layer = (nn.Conv3d if case.axes == 3 else nn.Conv2d)(
        case.in_channels,
        case.out_channels,
        case.kernel,
        case.stride,
        case.pad_before,
        case.dilation,
        case.groups,
        bias is not None,
    )
    layer.weight = nn.Parameter(weight)
    if bias is not None:
        layer.bias = nn.Parameter(bias)
    return layer


def symmetric(case: ConvCase) -> ConvCase:
    """The same with equal padding on both sides, as a layer has it."""
    return replace(case, padding=case.pad_before * 2)


def has_outputs(case: ConvCase) -> bool:
    return min(case.out_size) > 0 and case.batch > 0


def by_phase(session: flopcuda.Session) -> dict[str, flopcuda.Counters]:
    launches = session.report().launches
    for launch in launches:
        counters = launch.counters
        assert (counters.mul, counters.add, counters.pad) == exact_counts(launch)
    return summed_by_phase(launches)


def summed_by_phase(launches: Sequence[flopcuda.Launch]) -> dict[str, flopcuda.Counters]:
    return {
        phase: flopcuda.Counters.sum(launch.counters for launch in launches if launch.phase == phase)
        for phase in {launch.phase for launch in launches}
    }


def assert_close(result: Tensor, expected: Tensor, magnitude: float) -> None:
    """Within the dtype's error for sums whose terms add up to about this much."""
    assert result.shape == expected.shape
    tolerance = 16 * torch.finfo(result.dtype).eps  # 2e-6 in float32
    assert float((result.double() - expected.double()).abs().max()) <= tolerance * (1 + magnitude)


any_layer = st.sampled_from([2, 2, 3]).flatmap(conv_cases).map(symmetric).filter(has_outputs)


@property_settings
@given(case=any_layer, seed=st.integers(0, 99), dtype=st.sampled_from([torch.float32, torch.float64]))
def test_any_convolution(case: ConvCase, seed: int, dtype: torch.dtype) -> None:
    """All products that meet an input meet it again in both gradients."""
    input, weight, bias = case.tensors(seed, dtype)
    layer = layer_of(case, weight, bias)
    input.requires_grad_()
    exact_operands = [tensor.detach().double().requires_grad_() for tensor in (input, weight)]
    exact = case.convolve(*exact_operands, bias)
    grad = torch.randn(exact.shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    exact_gradients = torch.autograd.grad(exact, exact_operands, grad.double())
    with flopcuda.instrument(layer) as session:
        gradients = torch.autograd.grad(layer(input), (input, layer.weight), grad)
    scale = float(grad.abs().sum() * max(input.abs().max(), weight.abs().max()))
    for gradient, expected in zip(gradients, exact_gradients, strict=True):
        assert_close(gradient, expected, scale)
    phases = by_phase(session)
    meeting_inputs = phases["forward"].mul - phases["forward"].pad
    for phase in ("backward_input", "backward_weight"):
        counters = phases.get(phase, flopcuda.Counters())
        assert counters.mul - counters.pad == meeting_inputs, phase


@st.composite
def transposed_layers(draw: st.DrawFn) -> tuple[nn.Module, Tensor]:
    """A transposed convolution in one to three dimensions and an input for it."""
    dimensions = draw(st.sampled_from([1, 2, 2, 3]))
    groups = draw(st.sampled_from([1, 1, 2, 3]))

    def sizes(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw(st.integers(low, high)) for _ in range(dimensions))

    most = 3 if dimensions == 3 else 5
    kernel, stride, dilation, image = sizes(1, most), sizes(1, 4), sizes(1, 3), sizes(1, most)
    padding = tuple(draw(st.integers(0, dilation[i] * (kernel[i] - 1) // 2)) for i in range(dimensions))
    ends = tuple(draw(st.integers(0, max(stride[i], dilation[i]) - 1)) for i in range(dimensions))
    channels = groups * draw(st.integers(1, 3)), groups * draw(st.integers(1, 3))
    kind = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}[dimensions]
    layer = kind(*channels, kernel, stride, padding, ends, groups, draw(st.booleans()), dilation)
    return layer, torch.randn(draw(st.integers(1, 2)), channels[0], *image)


def test_a_bias_alone_is_not_written_into() -> None:
    """One output, which a stride of 2 begins as its bias."""
    layer = nn.ConvTranspose2d(3, 4, 1, stride=2)
    bias = layer.bias.detach().clone()
    expected = layer(torch.ones(1, 3, 1, 1))
    with flopcuda.instrument(layer), torch.no_grad():
        output = layer(torch.ones(1, 3, 1, 1))
    torch.testing.assert_close(output, expected)
    assert torch.equal(layer.bias, bias)


@property_settings
@given(drawn=transposed_layers())
def test_any_transposed_convolution(drawn: tuple[nn.Module, Tensor]) -> None:
    layer, input = drawn
    input.requires_grad_()
    expected = layer(input)
    grad = torch.randn(expected.shape)
    operands = [input, *layer.parameters()]
    expected_gradients = torch.autograd.grad(expected, operands, grad)
    with flopcuda.count() as session:
        output = layer(input)
        gradients = torch.autograd.grad(output, operands, grad)
    torch.testing.assert_close(output, expected, atol=1e-4, rtol=1e-4)
    for gradient, reference in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, reference, atol=1e-3, rtol=1e-3)
    phases = by_phase(session)
    transposed = {3: functional.conv_transpose1d, 4: functional.conv_transpose2d, 5: functional.conv_transpose3d}
    products = transposed[input.dim()](
        torch.ones_like(input, dtype=torch.float64),
        torch.ones_like(layer.weight, dtype=torch.float64),
        None, layer.stride, layer.padding, layer.output_padding, layer.groups, layer.dilation,
    )  # fmt: skip
    for phase in ("forward", "backward_input", "backward_weight"):
        counters = phases.get(phase, flopcuda.Counters())
        assert counters.mul - counters.pad == int(products.sum()), phase
    assert session.report().not_counted == ()


@property_settings
@given(rows=st.integers(1, 9), inputs=st.integers(1, 40), outputs=st.integers(1, 30), bias=st.booleans())
def test_any_linear_layer(rows: int, inputs: int, outputs: int, bias: bool) -> None:
    layer, input = nn.Linear(inputs, outputs, bias=bias), torch.randn(2, rows, inputs, requires_grad=True)
    grad = torch.randn(2, rows, outputs)
    expected = torch.autograd.grad(layer(input), [input, *layer.parameters()], grad)
    with flopcuda.instrument(layer) as session:
        gradients = torch.autograd.grad(layer(input), [input, *layer.parameters()], grad)
    for gradient, reference in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, reference, atol=1e-4, rtol=1e-4)
    phases = by_phase(session)
    assert {phase: counters.mul for phase, counters in phases.items()} == dict.fromkeys(
        ("forward", "backward_input", "backward_weight"), 2 * rows * inputs * outputs
    )


@pytest.mark.parametrize(
    ("op", "shapes", "options"),
    [
        ("conv2d", [(2, 4, 5, 6), (6, 2, 3, 2), (6,)], ((2, 1), (1, 0, 2, 1), (1, 2), 2)),
        ("conv3d", [(2, 2, 3, 4, 5), (4, 1, 2, 3, 2), (4,)], ((1, 2, 1), (1, 0, 0, 1, 1, 1), (1, 1, 2), 2)),
        ("linear", [(3, 4, 5), (6, 5), (6,)], ()),
    ],
)
def test_gradcheck(op: str, shapes: list[tuple[int, ...]], options: tuple[object, ...]) -> None:
    """Gradients of the bare operators, once and twice, against differences of their outputs in float64."""
    operands = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]

    def operator(*operands: Tensor) -> Tensor:
        return ops.OPERATORS[op](*operands, *options)[0]

    assert torch.autograd.gradcheck(operator, operands, fast_mode=True)
    assert torch.autograd.gradgradcheck(operator, operands, fast_mode=True)


def test_what_is_frozen_is_not_computed() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.Flatten(), nn.Linear(5 * 4 * 4, 2))
    model[2].requires_grad_(False)
    with flopcuda.instrument(model) as session:
        model(torch.randn(1, 3, 8, 8)).sum().backward()
    phases = {(launch.module, launch.phase) for launch in session.report().launches if launch.phase != "forward"}
    assert phases == {
        ("0", "backward_weight"),
        ("2", "backward_input"),
        ("4", "backward_weight"),
        ("4", "backward_input"),
    }


@pytest.mark.parametrize("bias", [True, False])
def test_what_nobody_asks_for_is_not_computed(bias: bool) -> None:
    """Everything could have a gradient; the backward pass is for one of them."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=bias), nn.Flatten(), nn.Linear(144, 2, bias=bias))
    x = torch.randn(1, 3, 8, 8, requires_grad=True)
    weight = model[0].weight
    for wanted, expected in (
        ([x], {("0", "backward_input"), ("2", "backward_input")}),
        ([weight], {("0", "backward_weight"), ("2", "backward_input")}),
        ([x, weight], {("0", "backward_input"), ("0", "backward_weight"), ("2", "backward_input")}),
    ):
        gradients = torch.autograd.grad(model(x).sum(), wanted)
        with flopcuda.instrument(model) as session:
            counted = torch.autograd.grad(model(x).sum(), wanted)
            model(x).sum().backward(inputs=wanted)
        torch.testing.assert_close(counted, gradients, atol=1e-4, rtol=1e-4)
        phases = [(entry.module, entry.phase) for entry in session.report().launches if entry.phase != "forward"]
        assert set(phases) == expected
        assert len(phases) == 2 * len(expected)


@pytest.mark.parametrize("backend", ["native", pytest.param("ptxvm", marks=needs_kernels)])
def test_double_backward(backend: str) -> None:
    """The penalty on a gradient, as in a Wasserstein GAN."""
    model = nn.Sequential(nn.Conv2d(2, 3, 3, stride=2, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(3 * 4 * 4, 2))
    x = torch.randn(2, 2, 8, 8, requires_grad=True)

    def penalty() -> Tensor:
        (gradient,) = torch.autograd.grad(model(x).square().sum(), x, create_graph=True)
        return gradient.square().sum()

    expected = torch.autograd.grad(penalty(), list(model.parameters()))
    with flopcuda.instrument(model, backend=backend) as session:
        gradients = torch.autograd.grad(penalty(), list(model.parameters()))
    for gradient, reference in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, reference, atol=1e-4, rtol=1e-3)
    by_phase(session)
    assert session.report().not_counted == ()


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(7, 4), (3, 7)),
        (nn.Conv1d(5, 4, 3, padding=1), (2, 5, 7)),
        (nn.Conv2d(5, 4, 3, padding=1), (2, 5, 7, 9)),
        (nn.Conv2d(6, 4, 3, stride=2, dilation=2, groups=2), (2, 6, 7, 9)),
        (nn.Conv3d(2, 4, 3, padding=1), (2, 2, 5, 4, 3)),
    ],
    ids=repr,
)
def test_a_batch_of_gradients_is_that_of_the_original_layer(layer: nn.Module, shape: tuple[int, ...]) -> None:
    input = torch.randn(shape, requires_grad=True)
    wanted = [input, *layer.parameters()]
    grads = torch.randn(5, *layer(input).shape)
    expected = torch.autograd.grad(layer(input), wanted, grads, is_grads_batched=True)
    with flopcuda.instrument(layer) as session:
        batch = torch.autograd.grad(layer(input), wanted, grads, is_grads_batched=True)
        of_all = summed_by_phase(session.report().launches)
        session.reset()
        torch.autograd.grad(layer(input), wanted, grads[0])
    torch.testing.assert_close(batch, expected, atol=1e-4, rtol=1e-4)
    for phase, of_one in by_phase(session).items():
        times = 1 if phase == "forward" else len(grads)
        assert of_all.pop(phase) == flopcuda.Counters.sum([of_one] * times)
    assert of_all == {}

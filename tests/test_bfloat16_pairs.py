"""Pairs of bfloat16, which some CPUs multiply at once: the kernels on any CPU, and the operators on those."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import flopcuda
from flopcuda import _C, ops
from tests.cpu_kernels import Kernels
from tests.cpu_kernels.oracle import (
    ELEMENT_TOLERANCE,
    ConvCase,
    LinearCase,
    Tensors,
    backward_error,
    counts_of,
    magnitudes,
)
from tests.geometries import conv_cases, linear_cases

any_conv_case = st.sampled_from([2, 2, 3]).flatmap(conv_cases)
pair_settings = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def of_bfloat16(tensors: Tensors) -> Tensors:
    input, weight, bias = tensors
    return input.bfloat16(), weight.bfloat16(), bias


@pair_settings
@given(case=any_conv_case, seed=st.integers(0, 2**32 - 1))
def test_any_convolution(kernels: Kernels, case: ConvCase, seed: int) -> None:
    tensors = of_bfloat16(case.tensors(seed))
    output, counters = kernels.conv_of_pairs(case.problem, *tensors)
    assert counts_of(counters) == case.expected_counts(*tensors[:2], count_zero=False)
    assert counters.lane >= counters.mul
    reference, magnitude = case.convolve(*tensors), case.convolve(*magnitudes(tensors))
    assert backward_error(output, reference, magnitude) <= ELEMENT_TOLERANCE


@pair_settings
@given(case=linear_cases, seed=st.integers(0, 2**32 - 1))
def test_any_linear_layer(kernels: Kernels, case: LinearCase, seed: int) -> None:
    tensors = of_bfloat16(case.tensors(seed))
    output, counters = kernels.linear_of_pairs(case.problem, *tensors)
    assert counts_of(counters) == case.expected_counts(*tensors[:2], count_zero=False)
    reference, magnitude = case.multiply(*tensors), case.multiply(*magnitudes(tensors))
    assert backward_error(output, reference, magnitude) <= ELEMENT_TOLERANCE


def test_a_pair_that_looks_like_no_float_is_two_numbers(kernels: Kernels) -> None:
    """Of infinity and 1, the bits are those of a signalling NaN."""
    case = ConvCase(1, 2, (5, 20), 30)
    input, weight = torch.ones(case.input_shape).bfloat16(), torch.ones(case.weight_shape).bfloat16()
    weight[3, 1], weight[4, 0] = torch.inf, -torch.inf
    input[0, 0, 0, 0] = 0  # with the infinite weights of its channel, no number
    output, _ = kernels.conv_of_pairs(case.problem, input, weight)
    torch.testing.assert_close(output.double(), case.convolve(input, weight), equal_nan=True)


# --- the operators, where the CPU has the instruction ---


def multiplies_pairs() -> bool:
    rows, weight = torch.ones(64, 2).bfloat16(), torch.ones(1, 2).bfloat16()
    kernel: str = _C.launch_linear(rows, weight, None, count_zero=False, allow_tf32=False)[2]
    return "bf16" in kernel


needs_pairs = pytest.mark.skipif(not multiplies_pairs(), reason="this CPU does not multiply bfloat16")

LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "dense": Tensor.contiguous,
    "channels last": lambda images: images.contiguous(memory_format=torch.channels_last),
    "strided": lambda images: images.repeat_interleave(2, -1)[..., ::2],
    "at an odd offset": lambda images: torch.cat((images.new_zeros(1), images.flatten()))[1:].view(images.shape),
}


@needs_pairs
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
@pytest.mark.parametrize("kernel_size", [1, 3])
@pytest.mark.parametrize(("channels", "groups"), [(12, 1), (12, 3), (13, 1), (15, 3)])
def test_images_in_any_layout(layout: Callable[[Tensor], Tensor], kernel_size: int, channels: int, groups: int) -> None:
    layer = nn.Conv2d(channels, 9, kernel_size, padding=1, groups=groups).bfloat16()
    images = torch.randn(2, channels, 7, 5).bfloat16()
    with torch.no_grad(), flopcuda.instrument(layer) as session:
        output = layer(layout(images))
    with torch.no_grad():
        expected = layer.double()(images.double())
    torch.testing.assert_close(output.double(), expected, atol=2e-2, rtol=1e-2)
    (launch,) = session.report().launches
    assert launch.kernel == "conv2d_bf16_avx512"
    assert launch.counters.mul == output.numel() * channels // groups * kernel_size**2


@needs_pairs
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("features", [6, 7])
def test_linear_layers_and_products_at_any_offset(offset: int, features: int) -> None:
    numbers = torch.randn(40 * features + 1).bfloat16()
    rows = numbers[offset : offset + 40 * features].view(40, features)
    weight = torch.randn(5, features).bfloat16()
    output, counters = ops.linear(rows, weight)
    torch.testing.assert_close(output.double(), rows.double() @ weight.double().T, atol=2e-2, rtol=1e-2)
    assert counters.tolist()[:3] == [40 * 5 * features, 40 * 5 * (features - 1), 0]
    product, counters = ops.matmul(rows.view(2, 20, features), weight.T.expand(2, features, 5))
    torch.testing.assert_close(product.double(), output.double().view(2, 20, 5), atol=2e-2, rtol=1e-2)
    assert counters.tolist()[:3] == [40 * 5 * features, 40 * 5 * (features - 1), 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_batch_of_no_products(dtype: torch.dtype) -> None:
    output, counters = ops.matmul(torch.ones(0, 4, 6, dtype=dtype), torch.ones(0, 6, 3, dtype=dtype))
    assert output.shape == (0, 4, 3)
    assert counters.tolist() == [0] * 5


@needs_pairs
def test_single_channels_and_zeros_are_of_floats() -> None:
    images, weight = torch.randn(1, 3, 5, 5).bfloat16(), torch.randn(4, 3, 1, 1).bfloat16()
    geometry = {"stride": (1, 1), "padding": (0, 0, 0, 0), "dilation": (1, 1), "groups": 1}
    for channels, count_zero, kernel in ((1, False, "f32"), (3, True, "f32"), (2, False, "bf16"), (3, False, "bf16")):
        operands = images[:, :channels], weight[:, :channels], None
        launch = _C.launch_conv2d(*operands, **geometry, count_zero=count_zero, allow_tf32=False)
        assert launch[2] == f"conv2d_{kernel}_avx512"

"""The CUDA kernels on tensor cores, of float16, bfloat16, TF32 and float64, on the PTX machine with all its checks on.

Outputs are held against float64, where a TF32 is a float32 without the last 13 bits of its significand; counters
against brute force and the instructions that were executed.
"""

from __future__ import annotations

import math
import re

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flopcuda import ptx
from flopcuda.ptx_backend import MachineBackend
from tests.cpu_kernels.oracle import ConvCase, LinearCase
from tests.cuda_kernels import (
    DTYPES,
    MAX_TABULATED_TAPS,
    NVCC_FLAGS,
    ONE_TILE,
    TENSOR_KERNELS,
    Case,
    can_compute,
    check_case,
    counts,
    layouts,
    needs_kernels,
    patched_units,
    plan_case,
    rotated,
    tensors_of,
)
from tests.geometries import CONV3D_CASES, CONV_CASES, conv_cases, cube
from tests.ptxvm.harness import compile_cuda, needs_nvcc

pytestmark = needs_kernels

LINEAR_KERNELS, CONV_KERNELS = (
    [name for name in TENSOR_KERNELS if name.startswith(f"flopcuda_{operation}")] for operation in ("linear", "conv")
)
# Tile edges and slices: 64 or 128 rows and columns, 8 or 16 products of an instruction, 8 to 32 of a slice; rows that
# copies of 16 bytes divide, and others.
LINEAR_CASES = [
    LinearCase(0, 8, 3, bias=True),
    LinearCase(1, 1, 1),
    LinearCase(1, 16, 1000, bias=True),
    LinearCase(5, 2048, 100, bias=True),
    LinearCase(128, 96, 128),
    LinearCase(130, 24, 257),
    LinearCase(133, 37, 141, bias=True),
    LinearCase(257, 58, 130, bias=True),
]
# Channels of several slices, and of a part of one; three axes.
ALL_CONV_CASES = {
    **CONV_CASES,
    **CONV3D_CASES,
    "channels of three slices": ConvCase(2, 70, (7, 6), 131, (3, 2), (1, 1), (1, 0, 1, 1), bias=True),
    "groups of whole slices": ConvCase(1, 128, (5, 5), 24, (3, 3), (2, 1), (1, 1, 1, 1), groups=2),
    # Every input belongs to one tap of one output: taps that lie beside one another, and outputs that do.
    "patches that leave a rest": ConvCase(2, 3, (33, 38), 70, (4, 6), (4, 6), bias=True),
    "patches in groups": ConvCase(3, 6, (12, 15), 10, (3, 5), (3, 5), groups=2),
    "patches along the width": ConvCase(2, 5, (9, 16), 12, (3, 4), (1, 4), (1, 0, 1, 0), bias=True),
    "patches that reach into padding": ConvCase(2, 3, (7, 8), 8, (4, 4), (4, 4), (0, 0, 1, 0)),
    "patches of three axes": cube(2, 3, (4, 6, 7), 5, (2, 3, 2), (2, 3, 2), bias=True),
    "gradient of patches": ConvCase(5, 3, (13, 15), 9, (3, 5), dilation=(4, 3)),
    "gradient of the last patches": ConvCase(5, 3, (12, 15), 9, (3, 5), dilation=(4, 3)),
    "gradient of patches in groups": ConvCase(2, 6, (12, 8), 4, (3, 1), dilation=(4, 1), groups=2),
    "strided, of one output": ConvCase(2, 3, (6, 5), 20, (5, 5), (2, 3)),
    # Taps of a width that become channels: windows overlap, meet padding, or both.
    "first layer, 3 x 3": ConvCase(2, 3, (14, 15), 32, padding=(1, 1, 1, 1), bias=True),
    "first layer, 3 x 3, stride 2": ConvCase(2, 3, (14, 15), 24, (3, 3), (2, 2), (1, 1, 1, 1)),
    "first layer, one row": ConvCase(3, 1, (1, 103), 40, (1, 10), (1, 5), bias=True),
    "few channels of two slices": ConvCase(2, 6, (6, 11), 70, (2, 7), (1, 2), (1, 3, 0, 3), bias=True),
    "few channels, dilated, with a rest": ConvCase(2, 5, (9, 24), 20, (3, 4), (1, 3), (1, 2, 0, 1), (2, 2), bias=True),
    "few channels in groups": ConvCase(3, 6, (8, 13), 10, (3, 5), (2, 1), (1, 4, 1, 0), groups=2, bias=True),
    "few channels, padding wider than the width": ConvCase(2, 3, (5, 2), 9, (2, 3), padding=(0, 4, 1, 5)),
    "few channels, inputs that no window reaches": ConvCase(2, 2, (7, 16), 9, (3, 3), (1, 5), (1, 0, 1, 0)),
    "few channels, patches along the height": ConvCase(2, 3, (12, 17), 9, (4, 5), (4, 2), (0, 2, 0, 1)),
    "few channels of three axes": cube(2, 2, (4, 6, 9), 5, (2, 3, 4), (1, 2, 2), (1, 1, 2, 0, 1, 1), bias=True),
    # As gradients of weights are: few outputs of a kernel as large as an image.
    "large kernel": ConvCase(5, 8, (16, 18), 12, (16, 18), padding=(1, 1, 1, 1)),
    "large kernel, slices of a tap": ConvCase(3, 42, (21, 9), 70, (20, 9), padding=(0, 1, 2, 1)),
    "large kernel, dilated, in groups": ConvCase(
        4, 6, (33, 17), 10, (16, 14), (1, 2), (1, 13, 0, 12), (2, 3), groups=2
    ),
    "row of as many taps as there are bits": ConvCase(2, 5, (3, 50), 10, (1, 29), padding=(0, 3, 0, 4)),
    "row of one tap more": ConvCase(2, 5, (3, 50), 10, (1, 30), padding=(0, 3, 0, 4)),
    "large kernel of three axes": cube(2, 3, (9, 20, 7), 5, (9, 17, 5), padding=(1, 1, 1, 1, 0, 2), dilation=(1, 1, 2)),
}
MAX_TABULATED_SIDES = 31

property_settings = settings(
    max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.fixture(scope="module")
def backend() -> MachineBackend:
    return MachineBackend(ptx.Machine())


def can_tabulate(kernel: str, case: ConvCase) -> bool:
    """Whether so many taps, and coordinates of them; those of a patch that is all of an image are channels."""
    if case.kernel == case.image and not any(case.padding):
        return True
    sides = sum(case.kernel) + 3 - case.axes  # depth, height and width together
    return can_compute(kernel, case) and sides <= MAX_TABULATED_SIDES


ONE_OF_EACH_KIND = "_f16_128x128x32$|_tf32_64x64x16$|_f64_mma_64x64x8$|_bf16_64x64x32_many"


@pytest.mark.parametrize(("kernel", "case"), rotated(LINEAR_KERNELS, LINEAR_CASES, thoroughly=""), ids=str)
def test_named_linear_layer(backend: MachineBackend, kernel: str, case: LinearCase) -> None:
    check_case(backend, case, kernel)


@pytest.mark.parametrize(("kernel", "name"), rotated(CONV_KERNELS, [*ALL_CONV_CASES], ONE_OF_EACH_KIND))
def test_named_convolution(backend: MachineBackend, kernel: str, name: str) -> None:
    case = ALL_CONV_CASES[name]
    if "_many_taps" in kernel or can_tabulate(kernel, case):
        for gathers_width in layouts(kernel, case):
            check_case(backend, case, kernel, gathers_width=gathers_width)
    else:
        limits = f"{MAX_TABULATED_TAPS} taps|depth, height and width of up to {MAX_TABULATED_SIDES} together"
        sentence = f"{kernel} takes kernels of (up to {limits})"
        with pytest.raises((RuntimeError, ValueError), match=sentence):
            plan_case(case, tensors_of(case, kernel), kernel)


@pytest.mark.parametrize("kernel", LINEAR_KERNELS)
@property_settings
@given(
    case=st.builds(LinearCase, st.integers(1, 300), st.integers(1, 500), st.integers(1, 300), st.booleans()),
    seed=st.integers(0, 99),
)
def test_any_linear_layer(backend: MachineBackend, kernel: str, case: LinearCase, seed: int) -> None:
    check_case(backend, case, kernel, seed)


@pytest.mark.parametrize("kernel", CONV_KERNELS)
@property_settings
@given(case=st.one_of(conv_cases(), conv_cases(axes=3)), seed=st.integers(0, 99))
def test_any_convolution(backend: MachineBackend, kernel: str, case: ConvCase, seed: int) -> None:
    for gathers_width in layouts(kernel, case):
        check_case(backend, case, kernel, seed, gathers_width=gathers_width)


def some_case(kernel: str) -> Case:
    """Several tiles of every kernel, edges among them."""
    if kernel in LINEAR_KERNELS:
        return LinearCase(133, 72, 141, bias=True)
    return ConvCase(2, 12, (13, 11), 142, padding=(1, 1, 0, 1), bias=True)


@pytest.mark.parametrize("kernel", TENSOR_KERNELS)
def test_the_order_of_blocks_and_warps_does_not_matter(backend: MachineBackend, kernel: str) -> None:
    case = some_case(kernel)
    in_order = check_case(backend, case, kernel)
    shuffled = MachineBackend(ptx.Machine(seed=1))
    assert torch.equal(check_case(shuffled, case, kernel), in_order)


@needs_nvcc
@pytest.mark.parametrize("suffix", ["", "_count_zero"])
def test_hopper_multiplies_doubles_by_an_instruction_of_its_own(suffix: str) -> None:
    """The only code of these kernels that compute_80, which the other tests execute, does not have."""
    kernel = f"flopcuda_linear_f64_mma_64x64x8{suffix}"
    text = compile_cuda(patched_units(ONE_TILE)["linear_tensor.cu"], *NVCC_FLAGS, architecture="compute_90")
    assert "mma.sync.aligned.m16n8k8.row.col.f64.f64.f64.f64" in text
    for case in LINEAR_CASES:
        check_case(MachineBackend(ptx.Machine(), {kernel: text}), case, kernel)


@pytest.mark.parametrize("kernel", TENSOR_KERNELS)
def test_operands_need_no_alignment(backend: MachineBackend, kernel: str) -> None:
    case: Case = LinearCase(5, 16, 8) if kernel in LINEAR_KERNELS else ConvCase(1, 16, (4, 4), 8, (2, 2))
    input, weight, _ = tensors_of(case, kernel)
    shifted = torch.empty(weight.numel() + 1, dtype=weight.dtype)[1:].view(weight.shape).copy_(weight)
    check_case(backend, case, kernel, tensors=(input, shifted, None))


@pytest.mark.parametrize("kernel", CONV_KERNELS)
def test_patches_waste_no_more_lanes_than_a_linear_layer(backend: MachineBackend, kernel: str) -> None:
    """As slices of one tap each, 3 channels would fill 3 of 8 or 16 products that are multiplied at once."""
    layer = LinearCase(2 * 3 * 4, 3 * 8 * 8, 40)
    same = kernel.replace("conv", "linear").replace("_many_taps", "")
    lanes = []
    for case, name in ((ConvCase(2, 3, (24, 32), 40, (8, 8), (8, 8)), kernel), (layer, same)):
        planned = plan_case(case, tensors_of(case, name), name)
        backend.launch(planned)
        lanes.append(counts(planned.counters)["lane"])
    assert lanes[0] == lanes[1]


@pytest.mark.parametrize("kernel", [kernel for kernel in CONV_KERNELS if not re.search("_many_taps|_split", kernel)])
@pytest.mark.parametrize(
    "layer",
    [
        ConvCase(2, 3, (20, 32), 40, (7, 7), (2, 2), (3, 3, 3, 3)),
        ConvCase(2, 3, (5, 8), 40, (5, 5), (1, 1), (2, 2, 2, 2)),
    ],
    ids=["7 x 7, stride 2", "5 x 5"],
)
def test_few_channels_waste_no_more_lanes_than_a_linear_layer_of_a_row(
    backend: MachineBackend, kernel: str, layer: ConvCase
) -> None:
    """Each row of the kernel fills as many lanes as a linear layer of its taps and channels."""
    height, width = layer.kernel
    row = LinearCase(2 * math.prod(layer.image) // math.prod(layer.stride), 3 * width, 40)
    lanes = []
    for case, name in ((layer, kernel), (row, kernel.replace("conv", "linear"))):
        planned = plan_case(case, tensors_of(case, name), name, gathers_width=case is layer)
        backend.launch(planned)
        lanes.append(counts(planned.counters)["lane"])
    assert lanes[0] == height * lanes[1]


@pytest.mark.parametrize("kernel", CONV_KERNELS)
def test_channels_last_images_are_not_copied(kernel: str) -> None:
    case = ConvCase(2, 32, (5, 6), 8)
    input, weight, _ = tensors_of(case, kernel)
    images = input.contiguous(memory_format=torch.channels_last)
    planned = plan_case(case, (images, weight, None), kernel)
    assert planned.operands[0].data_ptr() == images.data_ptr()
    assert planned.output.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("kernel", [kernel for kernel in TENSOR_KERNELS if kernel.endswith("_count_zero")])
def test_negative_zero_is_zero_and_nan_is_not(backend: MachineBackend, kernel: str) -> None:
    dtype = DTYPES[kernel]
    tiny = torch.finfo(dtype).smallest_normal / 4
    values = torch.tensor([-0.0, 0.0, torch.nan, torch.inf, tiny, 2.0], dtype=dtype)
    ones = torch.ones(6, dtype=dtype)
    if kernel in LINEAR_KERNELS:
        planned = plan_case(LinearCase(1, 6, 1), (values.reshape(1, 6), ones.reshape(1, 6), None), kernel)
    else:
        operands = values.reshape(1, 6, 1, 1), ones.reshape(1, 6, 1, 1), None
        planned = plan_case(ConvCase(1, 6, (1, 1), 1, (1, 1)), operands, kernel)
    backend.launch(planned)
    assert counts(planned.counters)["zero"] == 2


@pytest.mark.parametrize("kernel", CONV_KERNELS)
def test_infinite_weights_meet_no_padding_of_channels(backend: MachineBackend, kernel: str) -> None:
    """Zeros behind the channels of a tap meet zeros, and not the next tap's weights, which might be infinite."""
    case = ConvCase(1, 8, (3, 3), 8, (1, 2))
    input, weight, _ = tensors_of(case, kernel)
    weight[:, :, :, 1] = torch.inf
    images = torch.ones_like(input)
    planned = plan_case(case, (images, weight, None), kernel)
    backend.launch(planned)
    assert planned.output.isposinf().all()

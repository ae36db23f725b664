"""Every CUDA kernel on the PTX machine: its outputs and its counters, with all of the machine's checks on.

Outputs are held against float64; counters against the CPU kernels', the formulas, brute force and the instructions that
were executed. A finding of a check fails the launch.
"""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flopcuda import ptx
from flopcuda.ptx_backend import MachineBackend, plan
from tests.cpu_kernels.oracle import FLOAT64_TOLERANCE, NORM_TOLERANCE, ConvCase, LinearCase, Tensors, relative_error
from tests.cuda_kernels import (
    CONV_KERNELS,
    DTYPES,
    LINEAR_KERNELS,
    Case,
    check_case,
    counts,
    needs_kernels,
    plan_case,
    reference,
    rotated,
)
from tests.geometries import CONV3D_CASES, CONV_CASES, LINEAR_CASES, conv_cases, cube, linear_cases

pytestmark = needs_kernels
ALL_KERNELS = CONV_KERNELS + LINEAR_KERNELS
ALL_CONV_CASES = {
    **CONV_CASES,
    **CONV3D_CASES,
    # As gradients of weights are. A block's tables have 64 or 128 taps of an axis, by its columns.
    "rows as long as a table": ConvCase(2, 3, (3, 130), 5, (2, 128), padding=(1, 3, 0, 4)),
    "rows longer than a table": ConvCase(1, 2, (4, 140), 5, (2, 129), padding=(1, 5, 0, 2), groups=1, bias=True),
    "columns longer than a table": ConvCase(2, 2, (300, 4), 6, (135, 3), (1, 2), (7, 1, 9, 0), (2, 1), groups=2),
    "depth longer than a table": cube(1, 2, (140, 2, 3), 3, (131, 2, 2), padding=(3, 0, 1, 4, 1, 0)),
}

property_settings = settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.fixture(scope="module")
def backend() -> MachineBackend:
    return MachineBackend(ptx.Machine())


def some_case(kernel: str) -> ConvCase | LinearCase:
    """Several tiles of every kernel, edges among them; an addition onto each kind of accumulator."""
    if kernel in LINEAR_KERNELS:
        return LinearCase(133, 37, 141, bias=True)
    channels = 6 if "few_outputs" in kernel else 142  # whose tiles have one row
    return ConvCase(2, 6, (13, 11), channels, padding=(1, 1, 0, 1), groups=1, bias=True)


def check_named_case(backend: MachineBackend, case: Case, kernel: str) -> None:
    output = check_case(backend, case, kernel)
    tolerance = FLOAT64_TOLERANCE if output.dtype == torch.float64 else NORM_TOLERANCE
    assert relative_error(output, reference(case, case.tensors(dtype=output.dtype))) < tolerance


FLOAT32_WITHOUT_ZEROS = "_f32_(?!.*_count_zero)"


@pytest.mark.parametrize(("kernel", "name"), rotated(CONV_KERNELS, [*ALL_CONV_CASES], FLOAT32_WITHOUT_ZEROS))
def test_named_convolution(backend: MachineBackend, kernel: str, name: str) -> None:
    check_named_case(backend, ALL_CONV_CASES[name], kernel)


@pytest.mark.parametrize("kernel", LINEAR_KERNELS)
@pytest.mark.parametrize("case", LINEAR_CASES, ids=str)
def test_named_linear_layer(backend: MachineBackend, case: LinearCase, kernel: str) -> None:
    check_named_case(backend, case, kernel)


@pytest.mark.parametrize("kernel", CONV_KERNELS)
@property_settings
@given(case=st.one_of(conv_cases(), conv_cases(axes=3)), seed=st.integers(0, 99))
def test_any_convolution(backend: MachineBackend, kernel: str, case: ConvCase, seed: int) -> None:
    check_case(backend, case, kernel, seed)


@pytest.mark.parametrize("kernel", LINEAR_KERNELS)
@property_settings
@given(case=linear_cases, seed=st.integers(0, 99))
def test_any_linear_layer(backend: MachineBackend, kernel: str, case: LinearCase, seed: int) -> None:
    check_case(backend, case, kernel, seed)


@pytest.mark.slow
@pytest.mark.parametrize("kernel", CONV_KERNELS)
@settings(property_settings, max_examples=400)
@given(case=st.one_of(conv_cases(), conv_cases(axes=3)), seed=st.integers(0, 99))
def test_very_many_convolutions(backend: MachineBackend, kernel: str, case: ConvCase, seed: int) -> None:
    check_case(backend, case, kernel, seed)


@pytest.mark.parametrize("kernel", ALL_KERNELS)
def test_the_order_of_blocks_and_warps_does_not_matter(backend: MachineBackend, kernel: str) -> None:
    case = some_case(kernel)
    in_order = check_case(backend, case, kernel)
    for seed in range(3):
        shuffled = MachineBackend(ptx.Machine(seed=seed))
        assert torch.equal(check_case(shuffled, case, kernel), in_order)


def shifted(tensors: Tensors) -> Tensors:
    """The same values one element after an address that vectors could be read from."""

    def shift(tensor: torch.Tensor) -> torch.Tensor:
        storage = torch.empty(tensor.numel() + 1, dtype=tensor.dtype)
        return storage[1:].view(tensor.shape).copy_(tensor)

    input, weight, bias = tensors
    return shift(input), shift(weight), None if bias is None else shift(bias)


@pytest.mark.parametrize("kernel", ALL_KERNELS)
def test_operands_need_no_alignment(backend: MachineBackend, kernel: str) -> None:
    case = LinearCase(40, 64, 64) if kernel in LINEAR_KERNELS else ConvCase(1, 4, (8, 8), 64, (2, 2))
    check_case(backend, case, kernel, tensors=shifted(case.tensors(dtype=DTYPES[kernel])))


def test_copies_beyond_the_only_channel_of_a_large_image_are_of_nothing(backend: MachineBackend) -> None:
    """Offsets of channels that there are not come to 2**32 here, and would begin in the image again."""
    image = torch.zeros(1, 1, 11776, 11776)
    image[..., 5887::5888, 5887::5888] = 2.0  # those that windows read
    weight = torch.arange(64.0).reshape(64, 1, 1, 1)
    expected = torch.nn.functional.pad(2 * weight.expand(64, 1, 2, 2), (1, 0, 1, 0)).reshape(1, 64, 3, 3)
    problem = ("conv2d", image, weight, None, (5888, 5888), (1, 1, 1, 1), (1, 1), 1, False)
    for kernel in [None, *(name for name in CONV_KERNELS if re.search(FLOAT32_WITHOUT_ZEROS, name))]:
        planned = plan(*problem, kernel=kernel)
        backend.launch(planned)
        count = counts(planned.counters)
        assert (count["mul"], count["pad"]) == (64 * 9, 64 * 5), kernel
        assert torch.equal(planned.output, expected), kernel


@pytest.mark.parametrize("kernel", ALL_KERNELS)
def test_counters_are_added_to(backend: MachineBackend, kernel: str) -> None:
    case = some_case(kernel)
    planned = plan_case(case, case.tensors(dtype=DTYPES[kernel]), kernel)
    backend.launch(planned)
    once = counts(planned.counters)
    backend.launch(planned)
    assert counts(planned.counters) == {name: 2 * count for name, count in once.items()}
    assert once["mul"] > 0


@pytest.mark.parametrize("kernel", [kernel for kernel in ALL_KERNELS if kernel.endswith("_count_zero")])
def test_negative_zero_is_zero_and_nan_is_not(backend: MachineBackend, kernel: str) -> None:
    dtype = DTYPES[kernel]
    values = torch.tensor([-0.0, 0.0, torch.nan, torch.inf, 1e-45, 2.0], dtype=dtype)
    if kernel in LINEAR_KERNELS:
        case: ConvCase | LinearCase = LinearCase(1, 6, 1)
        tensors: Tensors = (values.reshape(1, 6), torch.ones(1, 6, dtype=dtype), None)
    else:
        case = ConvCase(1, 6, (1, 1), 1, (1, 1))
        tensors = (values.reshape(1, 6, 1, 1), torch.ones(1, 6, 1, 1, dtype=dtype), None)
    planned = plan_case(case, tensors, kernel)
    backend.launch(planned)
    assert counts(planned.counters)["zero"] == 2

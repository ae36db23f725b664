"""The counted CPU kernels against float64 torch, the exact formulas and brute force, on every instruction set."""

from __future__ import annotations

import itertools
import platform
import shutil
import subprocess

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.cpu_kernels import Counters, Kernels, compile_objects
from tests.cpu_kernels.oracle import (
    ELEMENT_TOLERANCE,
    FLOAT64_TOLERANCE,
    NORM_TOLERANCE,
    ConvCase,
    LinearCase,
    backward_error,
    counts_of,
    magnitudes,
    relative_error,
)
from tests.geometries import CONV3D_CASES, CONV_CASES, LINEAR_CASES, conv_cases, cube, linear_cases

DTYPES = [torch.float32, torch.float64]


def tolerance(dtype: torch.dtype, of_float32: float) -> float:
    return of_float32 if dtype == torch.float32 else FLOAT64_TOLERANCE


def check_conv(
    kernels: Kernels, case: ConvCase, count_zero: bool, seed: int = 0, dtype: torch.dtype = torch.float32
) -> float:
    """Asserts the counters and every element of the output; returns the output's relative error."""
    tensors = case.tensors(seed, dtype)
    output, counters = kernels.conv(case.problem, *tensors, count_zero)
    reference = case.convolve(*tensors)
    assert output.dtype == dtype
    assert counts_of(counters) == case.expected_counts(*tensors[:2], count_zero)
    assert counters.lane >= counters.mul
    error = backward_error(output, reference, case.convolve(*magnitudes(tensors)))
    assert error < tolerance(dtype, ELEMENT_TOLERANCE)
    return relative_error(output, reference)


def check_linear(
    kernels: Kernels, case: LinearCase, count_zero: bool, seed: int = 0, dtype: torch.dtype = torch.float32
) -> float:
    """Asserts the counters and every element of the output; returns the output's relative error."""
    tensors = case.tensors(seed, dtype)
    output, counters = kernels.linear(case.problem, *tensors, count_zero)
    reference = case.multiply(*tensors)
    assert output.dtype == dtype
    assert counts_of(counters) == case.expected_counts(*tensors[:2], count_zero)
    assert counters.lane >= counters.mul
    error = backward_error(output, reference, case.multiply(*magnitudes(tensors)))
    assert error < tolerance(dtype, ELEMENT_TOLERANCE)
    return relative_error(output, reference)


property_settings = settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


dtypes, seeds, thread_counts = st.sampled_from(DTYPES), st.integers(0, 99), st.integers(1, 3)
any_conv_case = st.sampled_from([2, 2, 3]).flatmap(conv_cases)


@property_settings
@given(case=any_conv_case, count_zero=st.booleans(), threads=thread_counts, seed=seeds, dtype=dtypes)
def test_any_convolution(
    kernels: Kernels, case: ConvCase, count_zero: bool, threads: int, seed: int, dtype: torch.dtype
) -> None:
    kernels.set_num_threads(threads)
    check_conv(kernels, case, count_zero, seed, dtype)


@pytest.mark.slow
@settings(property_settings, max_examples=1500)
@given(case=any_conv_case, count_zero=st.booleans(), threads=thread_counts, seed=seeds, dtype=dtypes)
def test_very_many_convolutions(
    kernels: Kernels, case: ConvCase, count_zero: bool, threads: int, seed: int, dtype: torch.dtype
) -> None:
    kernels.set_num_threads(threads)
    check_conv(kernels, case, count_zero, seed, dtype)


@property_settings
@given(case=linear_cases, count_zero=st.booleans(), threads=thread_counts, seed=seeds, dtype=dtypes)
def test_any_linear_layer(
    kernels: Kernels, case: LinearCase, count_zero: bool, threads: int, seed: int, dtype: torch.dtype
) -> None:
    kernels.set_num_threads(threads)
    check_linear(kernels, case, count_zero, seed, dtype)


every_mode = pytest.mark.parametrize(
    ("count_zero", "dtype"), [(False, torch.float32), (True, torch.float32), (True, torch.float64)]
)
NAMED_CASES = {**CONV_CASES, **{f"with depth: {name}": case for name, case in CONV3D_CASES.items()}}


@every_mode
@pytest.mark.parametrize("case", NAMED_CASES.values(), ids=NAMED_CASES.keys())
def test_named_convolution(kernels: Kernels, case: ConvCase, count_zero: bool, dtype: torch.dtype) -> None:
    assert check_conv(kernels, case, count_zero, dtype=dtype) < tolerance(dtype, NORM_TOLERANCE)


@every_mode
@pytest.mark.parametrize("case", LINEAR_CASES, ids=str)
def test_named_linear_layer(kernels: Kernels, case: LinearCase, count_zero: bool, dtype: torch.dtype) -> None:
    assert check_linear(kernels, case, count_zero, dtype=dtype) < tolerance(dtype, NORM_TOLERANCE)


@pytest.mark.parametrize("width", [33_000, 34_000])  # 2^21 - 1 products of a column of seven rows are tallied at most
def test_long_rows_of_a_depthwise_convolution(kernels: Kernels, width: int) -> None:
    check_conv(kernels, ConvCase(1, 1, (8, width), 1, padding=(1, 1, 1, 1)), count_zero=True)


def test_an_infinite_input_is_in_those_of_few_outputs_alone_that_it_is_a_tap_of(kernels: Kernels) -> None:
    case = ConvCase(1, 1, (5, 12), 1, (5, 5), dilation=(1, 2))
    input, weight, bias = case.tensors()
    input[..., 11] = torch.inf  # behind the last taps of the other odd column in a line's vector
    output, _ = kernels.conv(case.problem, input, weight, bias, False)
    assert output.isfinite().flatten().tolist() == [True, True, True, False]


@pytest.mark.parametrize(
    "case",
    [
        ConvCase(1, 2, (65, 1), 2, (64, 1), dilation=(1, 10**9), groups=2),
        ConvCase(1, 4, (65, 1), 2, (64, 1), dilation=(1, 10**9), groups=2),
        ConvCase(1, 2, (9, 3), 2, (3, 3), stride=(1, 10**9), groups=2),
    ],
    ids=["few outputs of planes", "few outputs of several", "depthwise"],
)
def test_a_step_that_is_never_taken_costs_no_memory(kernels: Kernels, case: ConvCase) -> None:
    check_conv(kernels, case, count_zero=False)


def test_threads_change_neither_results_nor_counts(kernels: Kernels) -> None:
    case = ConvCase(1, 512, (7, 7), 130, padding=(1, 1, 1, 1), bias=True)
    tensors = case.tensors()
    runs = []
    for threads in (1, 2, 5):
        kernels.set_num_threads(threads)
        output, counters = kernels.conv(case.problem, *tensors, count_zero=True)
        runs.append((output, counts_of(counters)))
    assert all(torch.equal(output, runs[0][0]) and counts == runs[0][1] for output, counts in runs)


def test_counters_are_added_to(kernels: Kernels) -> None:
    case = ConvCase(padding=(1, 1, 1, 1))
    tensors = case.tensors()
    _, once = kernels.conv(case.problem, *tensors, count_zero=True)
    _, twice = kernels.conv(
        case.problem,
        *tensors,
        count_zero=True,
        counters=Counters(once.mul, once.add, once.pad, once.zero, once.lane),
    )
    for name in ("mul", "add", "pad", "zero", "lane"):
        assert getattr(twice, name) == 2 * getattr(once, name) > 0


def test_negative_zero_is_zero_and_nan_is_not(kernels: Kernels) -> None:
    values = torch.tensor([[-0.0, 0.0, float("nan"), float("inf"), 1e-45, 2.0]])
    _, counters = kernels.linear(LinearCase(1, 6, 1).problem, values, torch.ones(1, 6), count_zero=True)
    assert counters.zero == 2


def test_full_tiles_waste_no_lane(kernels: Kernels) -> None:
    case = ConvCase(1, 8, (16, 32), 84, (1, 1))  # 84 = 6 * 14 = 14 * 6 = 21 * 4 rows, and full vectors of columns
    _, counters = kernels.conv(case.problem, *case.tensors())
    assert counters.lane == counters.mul


def test_unknown_instruction_set_is_refused(built_kernels: Kernels) -> None:
    selected = built_kernels.selected_isa
    with pytest.raises(ValueError, match="avx10"):
        built_kernels.select_isa("avx10")
    assert built_kernels.selected_isa == selected


@pytest.mark.skipif(shutil.which("nm") is None, reason="needs binutils' nm")
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="about x86's instruction sets")
def test_files_of_one_instruction_set_share_no_inline_code() -> None:
    """A weak symbol compiled with AVX-512 could be the copy that the linker keeps for every CPU."""
    files = [path for path in compile_objects() if "_kernel_avx" in path.name]
    assert len(files) == 5
    for path in files:
        symbols = subprocess.run(["nm", "-P", path], capture_output=True, text=True, check=True).stdout.splitlines()
        names_and_types = [line.split()[:2] for line in symbols]
        exported = [name for name, kind in names_and_types if kind in "WwVvuBDRT"]
        assert len(exported) == 1, f"{path.name} exports more than its table: {exported}"
        assert exported[0].endswith(("MicroKernelsE", "DotKernelsE", "PairTilesE"))


CONV_ORACLE_CASES = [
    ConvCase(2, 4, (3, 4), 4, (2, 3), (2, 1), (1, 2, 0, 1), (1, 2), groups=2, bias=True),
    ConvCase(1, 2, (1, 5), 3, (3, 3), (1, 2), (2, 0, 1, 3)),
    cube(1, 2, (3, 2, 4), 2, (2, 1, 3), (1, 1, 2), (1, 0, 1, 0, 1, 2), (2, 1, 1), bias=True),
]


@pytest.mark.parametrize("case", CONV_ORACLE_CASES, ids=str)
def test_oracle_counts_what_plain_loops_count(case: ConvCase) -> None:
    input, weight, _ = case.tensors()
    group_inputs, group_outputs = weight.shape[1], case.out_channels // case.groups
    counts = dict.fromkeys(("mul", "add", "pad", "zero"), 0)
    for n, o, *output in itertools.product(*map(range, (case.batch, case.out_channels, *case.out_size))):
        holds_a_value = case.bias
        for i, *tap in itertools.product(*map(range, weight.shape[1:])):
            position = [
                output[axis] * case.stride[axis] - case.pad_before[axis] + tap[axis] * case.dilation[axis]
                for axis in range(case.axes)
            ]
            counts["mul"] += 1
            counts["add"] += holds_a_value
            holds_a_value = True
            if not all(0 <= position[axis] < case.image[axis] for axis in range(case.axes)):
                counts["pad"] += 1
                continue
            channel = o // group_outputs * group_inputs + i
            counts["zero"] += bool(input[(n, channel, *position)] == 0 or weight[(o, i, *tap)] == 0)
    assert case.expected_counts(input, weight, count_zero=True) == counts

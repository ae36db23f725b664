"""The CUDA kernels of float16 and bfloat16, which tensor cores multiply, on the PTX machine with all its checks on."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from flopcuda import ptx
from flopcuda.ptx_backend import MachineBackend
from tests.cpu_kernels.oracle import LinearCase, backward_error, magnitudes
from tests.cuda_kernels import DTYPES, TENSOR_KERNELS, counts, executed_macs, needs_kernels, plan_case

pytestmark = needs_kernels

# Tile edges and slices: 128 rows and columns, 16 products of an instruction, 32 of a slice.
CASES = [
    LinearCase(0, 8, 3, bias=True),
    LinearCase(1, 8, 1),
    LinearCase(1, 16, 1000, bias=True),
    LinearCase(5, 2048, 100, bias=True),
    LinearCase(128, 96, 128),
    LinearCase(130, 24, 257),
    LinearCase(133, 40, 141, bias=True),
    LinearCase(257, 56, 130, bias=True),
]
SUM_ERROR = 1e-6  # of float32 sums, relative to the sum of the products' magnitudes


@pytest.fixture(scope="module")
def backend() -> MachineBackend:
    return MachineBackend(ptx.Machine())


def check_case(backend: MachineBackend, case: LinearCase, kernel: str, seed: int = 0) -> Tensor:
    """Asserts outputs, all counters and what the machine saw; returns the output."""
    dtype = DTYPES[kernel]
    input, weight, bias = case.tensors(seed)
    tensors = input.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
    planned = plan_case(case, tensors, kernel)
    result = backend.launch(planned) if planned.grid[0] else None
    counted = counts(planned.counters)
    assert counted == {**case.expected_counts(*tensors[:2], count_zero=False), "lane": counted["lane"]}
    assert counted["lane"] == executed_macs(result, dtype)
    expected = case.multiply(*tensors)
    assert planned.output.shape == expected.shape
    rounding = torch.finfo(dtype).eps / 2
    assert backward_error(planned.output, expected, case.multiply(*magnitudes(tensors))) < rounding + SUM_ERROR
    return planned.output


@pytest.mark.parametrize("kernel", TENSOR_KERNELS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_named_layer(backend: MachineBackend, case: LinearCase, kernel: str) -> None:
    check_case(backend, case, kernel)


@pytest.mark.parametrize("kernel", TENSOR_KERNELS)
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    case=st.builds(
        LinearCase, st.integers(1, 300), st.integers(1, 60).map(lambda n: 8 * n), st.integers(1, 300), st.booleans()
    ),
    seed=st.integers(0, 99),
)
def test_any_layer(backend: MachineBackend, kernel: str, case: LinearCase, seed: int) -> None:
    check_case(backend, case, kernel, seed)


@pytest.mark.parametrize("kernel", TENSOR_KERNELS)
def test_the_order_of_blocks_and_warps_does_not_matter(backend: MachineBackend, kernel: str) -> None:
    case = LinearCase(133, 72, 141, bias=True)
    in_order = check_case(backend, case, kernel)
    for seed in range(2):
        assert torch.equal(check_case(MachineBackend(ptx.Machine(seed=seed)), case, kernel), in_order)


@pytest.mark.parametrize("kernel", TENSOR_KERNELS)
def test_whole_tiles_touch_no_more_memory_than_there_is(backend: MachineBackend, kernel: str) -> None:
    """No bank conflict anywhere; of global memory, more sectors than needed for the counters only."""
    case = LinearCase(128, 256, 128)
    input, weight, _ = case.tensors()
    dtype = DTYPES[kernel]
    result = backend.launch(plan_case(case, (input.to(dtype), weight.to(dtype), None), kernel))
    assert result.shared_memory.conflicts == 0
    wasteful = {row.name for row in result.rows if row.space == "global" and row.units > row.ideal}
    assert wasteful <= {"atom.global.add.u64", "red.global.add.u64"}


@pytest.mark.parametrize("kernel", TENSOR_KERNELS)
def test_operands_need_no_alignment(backend: MachineBackend, kernel: str) -> None:
    case, dtype = LinearCase(5, 16, 8), DTYPES[kernel]
    input, weight, _ = (None if operand is None else operand.to(dtype) for operand in case.tensors())
    assert input is not None
    assert weight is not None
    shifted = torch.empty(weight.numel() + 1, dtype=dtype)[1:].view(weight.shape).copy_(weight)
    planned = plan_case(case, (input, shifted, None), kernel)
    backend.launch(planned)
    torch.testing.assert_close(planned.output, case.multiply(input, weight).to(dtype))


@pytest.mark.parametrize("kernel", TENSOR_KERNELS)
def test_rows_that_copies_do_not_divide_are_refused(kernel: str) -> None:
    case = LinearCase(3, 12, 5)
    input, weight, _ = case.tensors()
    with pytest.raises((RuntimeError, ValueError), match=f"{kernel} takes rows of a multiple of 8 numbers, not of 12"):
        plan_case(case, (input.to(DTYPES[kernel]), weight.to(DTYPES[kernel]), None), kernel)

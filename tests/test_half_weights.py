"""The CPU's linear layers of few rows multiply weights of 16 bits as they lie in memory, widened by their own code."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from flopcuda import _C, ops

HALVES = [torch.float16, torch.bfloat16]
FEATURES = 37  # whole vectors of every instruction set, and a part of one


@pytest.fixture(params=["portable", "avx2", "avx512"])
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    before = _C.cpu_isa()
    try:
        _C.select_cpu_isa(request.param)
    except ValueError:
        pytest.skip(f"this CPU lacks {request.param}")
    yield request.param
    _C.select_cpu_isa(before)


@pytest.mark.parametrize("dtype", HALVES)
def test_every_number_of_16_bits_is_widened_exactly(dtype: torch.dtype, isa: str) -> None:
    numbers = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16).view(dtype)
    weight = torch.zeros(len(numbers), FEATURES, dtype=dtype)
    weight[torch.arange(len(numbers)), torch.arange(len(numbers)) % FEATURES] = numbers
    output, _ = ops.linear(torch.ones(1, FEATURES, dtype=dtype), weight)
    # A sum with zeros leaves any number as it is, but for the sign of a zero.
    torch.testing.assert_close(output[0], numbers, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("rows", [1, 3, 4, 16])
@pytest.mark.parametrize("count_zero", [False, True])
@pytest.mark.parametrize("dtype", HALVES)
def test_values_and_counts_are_those_of_the_same_numbers_in_float32(
    dtype: torch.dtype, count_zero: bool, rows: int, isa: str
) -> None:
    def random(*shape: int) -> torch.Tensor:
        numbers = torch.randn(shape).to(dtype)
        return numbers.masked_fill(torch.rand(shape) < 0.2, 0.0).masked_fill(torch.rand(shape) < 0.1, -0.0)

    operands = random(rows, FEATURES), random(10, FEATURES), random(10)
    output, counters = ops.linear(*operands, count_zero=count_zero)
    wide_output, wide_counters = ops.linear(*(operand.float() for operand in operands), count_zero=count_zero)
    assert torch.equal(output, wide_output.to(dtype))
    assert torch.equal(counters, wide_counters)
    assert int(counters[0]) == rows * FEATURES * 10


def test_a_subnormal_float16_is_none_in_float32_and_not_flushed(isa: str) -> None:
    if not torch.set_flush_denormal(True):
        pytest.skip("this CPU flushes nothing")
    try:
        least = torch.ones(1, dtype=torch.int16).view(torch.float16).expand(1, FEATURES).contiguous()
        output, _ = ops.linear(torch.full((1, FEATURES), 1024.0, dtype=torch.float16), least)
    finally:
        torch.set_flush_denormal(False)
    assert output.item() == FEATURES * 1024 * 2**-24

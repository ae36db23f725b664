"""An extension that knows nothing of flopcuda, compiled by torch's own tools with its kernels as PTX."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from flopcuda import virtual_cuda
from flopcuda.virtual_cuda import records
from tests.ptxvm.harness import needs_nvcc
from tests.virtual_cuda import extension

pytestmark = [pytest.mark.gpu, pytest.mark.slow, needs_nvcc]


@pytest.fixture(scope="module")
def ops() -> Any:
    return extension.load()


def operands(dtype: torch.dtype, shape: tuple[int, ...] = (37, 11)) -> list[Tensor]:
    return [torch.randn(shape, dtype=dtype, device="cuda", requires_grad=True) for _ in range(2)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_and_gradients_are_those_of_the_formula(ops: Any, dtype: torch.dtype) -> None:
    a, b = operands(dtype)
    result = ops.leaky_gate(a, b, 0.1)
    expected = a * torch.nn.functional.leaky_relu(b, 0.1)
    torch.testing.assert_close(result, expected)
    upstream = torch.randn_like(expected)
    torch.testing.assert_close(
        torch.autograd.grad(result, [a, b], upstream), torch.autograd.grad(expected, [a, b], upstream)
    )


def test_a_strided_operand_and_another_stream(ops: Any) -> None:
    a, b = operands(torch.float32)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        result = ops.leaky_gate(a.t(), b.t(), 0.5)
    stream.synchronize()
    torch.testing.assert_close(result, (a * torch.nn.functional.leaky_relu(b, 0.5)).t())


def test_opcheck(ops: Any) -> None:
    torch.library.opcheck(ops.leaky_gate, (*operands(torch.float32), 0.1))
    torch.library.opcheck(ops.leaky_gate, (*operands(torch.float32, (0, 3)), 0.1))


def test_gradcheck(ops: Any) -> None:
    assert torch.autograd.gradcheck(lambda a, b: ops.leaky_gate(a, b, 0.1), operands(torch.float64, (3, 2)))


@pytest.mark.skipif(not virtual_cuda.is_active(), reason="only a virtual device records its launches")
def test_its_kernels_were_executed(ops: Any) -> None:
    a, b = operands(torch.float32)
    ops.leaky_gate(a, b, 0.1).sum().backward()
    forward, backward = records.launches()
    assert "forward_kernel" in forward.kernel
    assert "backward_kernel" in backward.kernel
    assert forward.grid == (-(-37 * 11 // 256), 1, 1)

"""Batches of matrix products, and triangles of them, in the linear kernels on the PTX machine and on the CPU.

Outputs are held against float64, counts against brute force over rows, lanes against the instructions executed.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from flopcuda import _C, ops, ptx
from flopcuda.ptx_backend import MachineBackend, plan
from tests.cuda_kernels import DTYPES, counts, executed_macs, multiplied_lanes, needs_kernels

KERNELS = [str(kernel["name"]) for kernel in _C.cuda_kernels() if "_linear_" in str(kernel["name"])]
TRIANGLE_KERNELS = [kernel for kernel in KERNELS if not kernel.endswith(("_count_zero", "_split"))]
SPLIT_KERNELS = [kernel for kernel in KERNELS if kernel.endswith("_split")]
# Batch, rows, depth, columns: several tiles and their edges; more columns than rows, and fewer.
SHAPES = [(3, 133, 37, 141), (2, 70, 140, 50), (1, 200, 5, 3), (2, 3, 100, 200)]
TRIANGLES = ["output", "input", "upper_input"]
TOLERANCES = {torch.float64: 1e-13, torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}


@pytest.fixture(scope="module")
def backend() -> MachineBackend:
    return MachineBackend(ptx.Machine())


def factors(shape: tuple[int, int, int, int], triangle: str | None, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    batch, rows, depth, columns = shape
    generator = torch.Generator().manual_seed(0)
    input = torch.randn(batch, rows, depth, generator=generator).to(dtype)
    weight = torch.randn(batch, depth, columns, generator=generator).to(dtype)
    cut = {"input": Tensor.tril, "upper_input": Tensor.triu}.get(triangle or "", Tensor.clone)
    return cut(input), weight


def expected_product(input: Tensor, weight: Tensor, triangle: str | None) -> Tensor:
    product = input.double() @ weight.double()
    return product.tril() if triangle == "output" else product


def expected_counts(shape: tuple[int, int, int, int], triangle: str | None) -> tuple[int, int]:
    """Multiplications and additions, row by row."""
    batch, rows, depth, columns = shape
    mul = outputs = 0
    for row in range(rows):
        used_columns = min(row + 1, columns) if triangle == "output" else columns
        used_depth = {"input": min(row + 1, depth), "upper_input": max(depth - row, 0)}.get(triangle or "", depth)
        mul += batch * used_columns * used_depth
        outputs += batch * used_columns * (used_depth > 0)
    return mul, mul - outputs


def check_product(
    backend: MachineBackend,
    kernel: str,
    shape: tuple[int, int, int, int],
    triangle: str | None,
    splits: int | None = None,
) -> dict[str, int]:
    input, weight = factors(shape, triangle, DTYPES[kernel])
    planned = plan("matmul", input, weight, triangle, kernel.endswith("_count_zero"), kernel=kernel, splits=splits)
    planned.output.fill_(torch.nan)
    if planned.workspace:
        planned.workspace[0].fill_(0xFF)  # NaN, too
    result = backend.launch(planned)
    counted = counts(planned.counters)
    assert (counted["mul"], counted["add"]) == expected_counts(shape, triangle)
    assert (counted["zero"], counted["pad"]) == (0, 0)
    assert multiplied_lanes(kernel, counted["lane"]) == executed_macs(result, kernel)
    tolerance = 1e-3 if "tf32" in kernel else TOLERANCES[input.dtype]
    difference = (planned.output.double() - expected_product(input, weight, triangle)).abs()
    assert bool((difference <= 2 * tolerance * (input.abs().double() @ weight.abs().double()) + 1e-30).all())
    return counted


@needs_kernels
@pytest.mark.parametrize("shape", SHAPES[:2], ids=str)
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_batch_of_products(backend: MachineBackend, kernel: str, shape: tuple[int, int, int, int]) -> None:
    check_product(backend, kernel, shape, None)


@needs_kernels
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("triangle", TRIANGLES)
@pytest.mark.parametrize("kernel", TRIANGLE_KERNELS)
def test_a_triangle(backend: MachineBackend, kernel: str, triangle: str, shape: tuple[int, int, int, int]) -> None:
    check_product(backend, kernel, shape, triangle)


@needs_kernels
@pytest.mark.parametrize("shape", [(2, 150, 140, 70), (1, 70, 150, 133), (1, 200, 75, 40)], ids=str)
@pytest.mark.parametrize("triangle", TRIANGLES)
@pytest.mark.parametrize("kernel", SPLIT_KERNELS)
def test_a_triangle_in_parts(
    backend: MachineBackend, kernel: str, triangle: str, shape: tuple[int, int, int, int]
) -> None:
    """Rows of tiles whose reductions differ, short ones in fewer parts than there are: lanes are those of one part."""
    whole = check_product(backend, kernel.removesuffix("_split"), shape, triangle)
    _, _, depth = next(entry["tile"] for entry in _C.cuda_kernels() if entry["name"] == kernel)
    most = -(-shape[2] // depth)
    for splits in sorted({1, 2, 3, most - 1, most}):
        assert check_product(backend, kernel, shape, triangle, splits) == whole


@needs_kernels
@pytest.mark.parametrize("triangle", TRIANGLES)
@pytest.mark.parametrize("kernel", TRIANGLE_KERNELS)
def test_tiles_above_the_diagonal_are_skipped(backend: MachineBackend, kernel: str, triangle: str) -> None:
    """Whole tiles, and slices of the reduction: the lanes are those of the tiles that touch the triangle."""
    entry = next(kernel_ for kernel_ in _C.cuda_kernels() if kernel_["name"] == kernel)
    block_m, block_n, _ = (int(size) for size in entry["tile"])
    size, other = 384, 16
    shape = (1, size, other, size) if triangle == "output" else (1, size, size, block_n)
    lanes = 0
    for first_row in range(0, size, block_m):
        if triangle == "output":
            tiles = sum(first_column < first_row + block_m for first_column in range(0, size, block_n))
            steps = other
        else:
            tiles, steps = 1, min(first_row + block_m, size) if triangle == "input" else size - first_row
        lanes += tiles * steps * block_m * block_n
    assert check_product(backend, kernel, shape, triangle)["lane"] == lanes


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("triangle", TRIANGLES)
def test_a_triangle_on_the_cpu(triangle: str, shape: tuple[int, int, int, int], dtype: torch.dtype) -> None:
    input, weight = factors(shape, triangle, dtype)
    output, counters = ops.matmul(input, weight, triangle=triangle)
    assert tuple(counters.tolist()[:2]) == expected_counts(shape, triangle)
    expected = expected_product(input, weight, triangle)
    torch.testing.assert_close(output.double(), expected, rtol=0, atol=1e-4 if dtype == torch.float32 else 1e-12)


@pytest.mark.parametrize("triangle", TRIANGLES)
def test_where_zeros_are_counted_all_of_a_triangle_is_multiplied(triangle: str) -> None:
    input, weight = factors((2, 9, 7, 8), triangle, torch.float64)
    output, counters = ops.matmul(input, weight, triangle=triangle, count_zero=True)
    assert counts(counters)["mul"] == 2 * 9 * 7 * 8
    assert counts(counters)["zero"] == 8 * int((input == 0).sum())
    torch.testing.assert_close(output, expected_product(input, weight, triangle))


@pytest.mark.parametrize("triangle", TRIANGLES)
def test_gradients_of_a_triangle(triangle: str) -> None:
    """Of the function of the triangle, and gradients of those: beyond it, the first factor is not read."""
    input, weight = (factor.requires_grad_() for factor in factors((2, 5, 6, 4), None, torch.float64))

    def multiply(input: Tensor, weight: Tensor) -> Tensor:
        first = {"input": input.tril(), "upper_input": input.triu()}.get(triangle, input)
        return torch.ops.flopcuda.matmul(first, weight, triangle)[0]

    assert torch.autograd.gradcheck(multiply, (input, weight))
    assert torch.autograd.gradgradcheck(multiply, (input, weight))


def test_what_is_no_triangle_gets_one_sentence() -> None:
    with pytest.raises(ValueError, match='triangle is "output", "input" or "upper_input", not "upper"'):
        ops.matmul(torch.randn(1, 2, 3), torch.randn(1, 3, 4), triangle="upper")

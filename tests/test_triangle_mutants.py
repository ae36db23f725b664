"""Do the counters show a triangle with a tile, a slice or a row too many, or too few? As test_cuda_mutants.py and
test_cpu_mutants.py ask of whole products.

In CUDA, a tile that multiplies in vain feeds no output: it shows in the lanes, which are held against brute force.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
import torch

from flopcuda import _C, ptx
from flopcuda.ptx_backend import MachineBackend, plan
from tests.cpu_kernels import Kernels, LinearProblem, build_kernels
from tests.cuda_kernels import DTYPES, counts, kernel_texts
from tests.patches import Patch, sampled
from tests.ptxvm.harness import needs_nvcc
from tests.test_cuda_products import TRIANGLES, expected_counts, factors

# Batch, rows, depth, columns: several tiles and slices, with edges; more columns, or products, than rows, and fewer.
SHAPES = [(2, 133, 48, 300), (2, 140, 80, 70), (2, 200, 48, 67)]
# Products of an output that a kernel multiplies at once. A defect in a template is one in every tile.
STEPS = {"flopcuda_linear_f32_64x64x16": 1, "flopcuda_linear_f16_128x128x32": 16}

CUDA_MUTANTS = {
    "a tile that the diagonal does not reach is multiplied": Patch(
        "triangle.cuh", "columns + rows <= 1 ? 0", "columns + rows <= -40 ? 0"
    ),
    "tiles on the diagonal are skipped": Patch("triangle.cuh", "columns + rows <= 1 ? 0", "columns <= 1 ? 0"),
    "all tiles are multiplied": Patch("triangle.cuh", "columns + rows <= 1 ? 0", "false ? 0"),
    "the last row's products are left out": Patch("triangle.cuh", "products + rows - 1)", "products + rows - 17)"),
    "a slice too many is multiplied": Patch("triangle.cuh", "products + rows - 1)", "products + rows + 31)"),
    "all products are multiplied": Patch(
        "triangle.cuh", "min(length - first_product, products + rows - 1)", "length - first_product"
    ),
    "products above the diagonal are counted": Patch(
        "triangle.cuh", "min(static_cast<int>(issued), products + row)", "static_cast<int>(issued)"
    ),
    "products below the diagonal of an upper triangle are counted": Patch("triangle.cuh", "max(unused + row, 0)", "0"),
    "each row's first product of an upper triangle is not counted": Patch(
        "triangle.cuh", "max(unused + row, 0)", "max(unused + row + 1, 0)"
    ),
    "outputs without products are counted": Patch("triangle.cuh", "row_products > 0 ? ", "true ? "),
    "an upper triangle's slices below the diagonal are multiplied": Patch(
        "triangle.cuh", "used.first_product = static_cast<int>(first_row);", "used.first_product = 0;"
    ),
    "an upper triangle's reduction starts late": Patch(
        "triangle.cuh", "static_cast<int>(first_row);", "static_cast<int>(first_row) + 8;"
    ),
    "an upper triangle's empty tiles are multiplied": Patch("triangle.cuh", "used.columns = -UsedPart::ALL;", ""),
    "outputs above the diagonal are counted": Patch(
        "triangle.cuh", "count_columns(used.columns + row(i))", "count_columns(used.columns + rows)"
    ),
    "rows that do not exist are counted": Patch("triangle.cuh", "    if (row(i) >= rows) continue;\n", ""),
    "the first column's products are taken for the second's": Patch(
        "triangle.cuh", "first_row - first_column + 1, ALL", "first_row - first_column, ALL"
    ),
    "a part counts from the first product of all": Patch(
        "linear.cu", "block.used.from(block.part.first)", "block.used.from(0)"
    ),
    "on tensor cores, a part counts from the first product of all": Patch(
        "linear_tensor.cu", "used.from(locate_part<Tile>(length, Tile::BLOCK_K).first)", "used.from(0)"
    ),
    "a part is counted as added to rows that have nothing before it": Patch(
        "split_sums.cuh", "seam.products - seam.outputs", "seam.outputs"
    ),
    "additions of parts are not counted": Patch("split_sums.cuh", "seam.products - seam.outputs", "0"),
    "empty parts are counted as added": Patch("split_sums.cuh", "  if (part.products == 0) return 0;\n", ""),
    "what a part adds is looked for a product too late": Patch("split_sums.cuh", "part.first - 1)", "part.first)"),
}

CPU_MUTANTS = {
    "an element too many of each row": Patch("triangular.cpp", "std::min(row + 1, width)", "std::min(row + 2, width)"),
    "an element too few of each row": Patch("triangular.cpp", "std::min(row + 1, width)", "std::min(row, width)"),
    "all of each row": Patch("triangular.cpp", "std::min(row + 1, width)", "width"),
    "an element too few of an upper row": Patch("triangular.cpp", "std::min(row, width)", "std::min(row + 1, width)"),
    "all of an upper row": Patch("triangular.cpp", "Range{std::min(row, width), width}", "Range{0, width}"),
    "what rows have in common only": Patch("triangular.cpp", "if (rest.length() > 0)", "if (false)"),
    "all of a row again": Patch("triangular.cpp", "multiply({row, row + 1}, rest,", "multiply({row, row + 1}, all,"),
    "the last row's part for all": Patch(
        "triangular.cpp", "intersect(used(rows.begin), used(rows.end - 1))", "used(rows.end - 1)"
    ),
    "a group of rows is skipped": Patch("triangular.cpp", "group < problem.batch * groups;", "group < groups;"),
    "columns are skipped": Patch("triangular.cpp", "column += kMaxDotColumns)", "column += 2 * kMaxDotColumns)"),
    "sums from before are not added": Patch("triangular.cpp", "are_first ? nullptr : output", "nullptr"),
}


def expected_lanes(kernel: str, shape: tuple[int, int, int, int], triangle: str) -> int:
    """Of every tile that has an element of the triangle, and of the products that its last row uses, by brute force."""
    entry = next(entry for entry in _C.cuda_kernels() if entry["name"] == kernel)
    block_m, block_n, _ = (int(size) for size in entry["tile"])
    step = STEPS[kernel]
    batch, rows, depth, columns = shape
    lanes = 0
    for first_row in range(0, rows, block_m):
        last_row = min(first_row + block_m, rows) - 1
        for first_column in range(0, columns, block_n):
            if triangle == "output" and first_column > last_row:
                continue
            products = {"input": min(depth, last_row + 1), "upper_input": max(depth - first_row, 0)}.get(
                triangle, depth
            )
            lanes += batch * block_m * block_n * -(-products // step) * step
    return lanes


def linear_texts(patches: Sequence[Patch] = ()) -> dict[str, str]:
    """PTX of the kernels that multiply triangles."""
    return kernel_texts(patches, twins=("_split",), units=("linear.cu", "linear_tensor.cu"))


def wrong_in_cuda(texts: dict[str, str]) -> list[str]:
    """Triangles whose products, additions or lanes are not those of brute force."""
    backend = MachineBackend(ptx.Machine(checks=False), texts)
    wrong = []
    for kernel in STEPS.keys() & texts.keys():
        for shape, triangle, splits in itertools.product(SHAPES, TRIANGLES, (1, 2)):
            name = kernel + ("_split" if splits > 1 else "")
            operands = factors(shape, triangle, DTYPES[kernel])
            planned = plan("matmul", *operands, triangle, False, kernel=name, splits=splits)
            backend.launch(planned)
            counted = counts(planned.counters)
            expected = (*expected_counts(shape, triangle), expected_lanes(kernel, shape, triangle))
            if (counted["mul"], counted["add"], counted["lane"]) != expected:
                wrong.append(f"{name}: {triangle} of {shape}")
    return wrong


def wrong_on_the_cpu(kernels: Kernels) -> list[str]:
    """Triangles whose products or additions are not those of brute force."""
    wrong = []
    for batch, rows, depth, columns in SHAPES:
        for code, triangle in enumerate(TRIANGLES, start=1):
            shape = (batch, rows, depth, columns)
            input, weight = factors(shape, triangle, torch.float32)
            problem = LinearProblem(rows, depth, columns, batch, code)
            _, counted = kernels.triangular(problem, input, weight.mT.contiguous())
            if (counted.mul, counted.add) != expected_counts(shape, triangle):
                wrong.append(f"{triangle} of {shape}")
    return wrong


@needs_nvcc
def test_the_cuda_kernels_as_they_are_count_right() -> None:
    assert wrong_in_cuda(linear_texts()) == []


@pytest.mark.parametrize("patch", sampled(CUDA_MUTANTS))
def test_cuda_counters_show_the_defect(patch: Patch) -> None:
    assert wrong_in_cuda(linear_texts([patch])) != []


def test_the_cpu_kernel_as_it_is_counts_right() -> None:
    assert wrong_on_the_cpu(build_kernels(portable_only=True)) == []


@pytest.mark.parametrize("patch", sampled(CPU_MUTANTS))
def test_cpu_counters_show_the_defect(patch: Patch) -> None:
    assert wrong_on_the_cpu(build_kernels([patch], portable_only=True)) != []

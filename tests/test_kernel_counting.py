"""What counting costs: the main loops in machine code, with their counters and with what counts taken out."""

from __future__ import annotations

import pytest

from flopcuda.kernels import sass
from tests.cuda_kernels import NVCC_FLAGS, only_kernels, patched_units, without_twins
from tests.patches import Patch
from tests.ptxvm.harness import compile_cubin, needs_nvcc

pytestmark = [
    needs_nvcc,
    pytest.mark.skipif(not sass.find_tool("cuobjdump"), reason="needs cuobjdump"),
]

COUNTS = [
    Patch("counting.cuh", "    ++steps_;\n", ""),
    Patch("counting.cuh", "{ padding_ += marks; }", "{}"),
    Patch("tensor_main_loop.cuh", "    ++steps_;\n    products_ += real_products;\n", ""),
]
LARGEST_TILE = only_kernels(*["f32_128x128x16, 0.5, F32_128x128x16"] * 2)


def main_loop(unit: str, kernel: str, patches: list[Patch]) -> sass.MainLoop:
    text = patched_units([*LARGEST_TILE, *without_twins(), *patches])[unit]
    return sass.main_loops(compile_cubin(text, *NVCC_FLAGS), "sm_80")[kernel]


@pytest.mark.parametrize(
    ("unit", "kernel", "multiply_adds"),
    [
        ("linear.cu", "flopcuda_linear_f32_128x128x16", 1024),
        ("conv.cu", "flopcuda_conv_f32_128x128x16", 1024),
        ("linear_tensor.cu", "flopcuda_linear_f16_128x128x32", 64),
        ("linear_tensor.cu", "flopcuda_linear_f64_mma_64x64x8", 32),
        ("conv_tensor.cu", "flopcuda_conv_f16_128x128x32", 64),
    ],
)
def test_counting_takes_two_instructions_an_iteration_at_most(unit: str, kernel: str, multiply_adds: int) -> None:
    counted, uncounted = main_loop(unit, kernel, []), main_loop(unit, kernel, COUNTS)
    assert counted.multiply_adds == uncounted.multiply_adds == multiply_adds
    assert counted.instructions <= uncounted.instructions + 2

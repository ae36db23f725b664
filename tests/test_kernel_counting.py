"""What counting costs: the main loops in machine code, with their counters and with what counts taken out."""

from __future__ import annotations

import re

import pytest

from flopcuda.kernels import sass
from tests.cuda_kernels import CUDA_SOURCES, LISTS, NVCC_FLAGS, only_kernel
from tests.patches import Patch
from tests.ptxvm.harness import compile_cubin, needs_nvcc

pytestmark = [
    needs_nvcc,
    pytest.mark.skipif(not sass.find_tool("cuobjdump"), reason="needs cuobjdump"),
]

COUNTS = [
    Patch("counting.cuh", "    ++steps_;\n", ""),
    Patch("tensor_main_loop.cuh", "    ++steps_;\n    products_ += real_products;\n", ""),
    Patch("conv_direct.cu", "      ++taps_;\n", ""),
    Patch("conv_direct.cu", "    inputs_ += __popc(inside);\n", ""),
    Patch("conv_direct.cu", "    inputs_ -= __popc(inside);\n", ""),
    Patch("conv_few_outputs.cu", "    counts.issue(tap);\n", ""),
]

# By default, one of each template; the others are the same with other tiles.
ONE_OF_EACH_TEMPLATE = re.compile(
    "_(linear|conv)_f(32_128x128x16|16_128x128x32)$|_linear_f64_mma_64x64x8$|_conv_f32_(direct|few_outputs_9)$"
)


def listed_kernels() -> list[tuple[str, str]]:
    """Of tiles.h: the list, and the arguments of an entry, whose first is the kernel."""
    text = (CUDA_SOURCES / "tiles.h").read_text()
    lists = re.findall(r"^#define (FLOPCUDA_\w+_KERNELS)\(X\)((?:.*\\\n)+.*)$", text, re.MULTILINE)
    return [(name, entry) for name, entries in lists if name in LISTS for entry in re.findall(r"X\((.+?)\)", entries)]


def main_loop(kernels: str, entry: str, patches: list[Patch]) -> sass.MainLoop:
    """Of a kernel that is compiled alone."""
    kernel, text = only_kernel(kernels, entry, patches)
    return sass.main_loops(compile_cubin(text, *NVCC_FLAGS), "sm_80")[kernel]


@pytest.mark.parametrize(
    ("kernels", "entry"),
    [
        pytest.param(*kernel, id=name, marks=[] if ONE_OF_EACH_TEMPLATE.search(name) else pytest.mark.slow)
        for kernel in listed_kernels()
        for name in (kernel[1].split(",")[0],)
    ],
)
def test_counting_takes_two_instructions_an_iteration_at_most(kernels: str, entry: str) -> None:
    counted, uncounted = main_loop(kernels, entry, []), main_loop(kernels, entry, COUNTS)
    assert counted.multiply_adds == uncounted.multiply_adds > 0
    assert counted.instructions <= uncounted.instructions + 2


def test_each_of_these_lists_is_read() -> None:
    assert {kernels for kernels, _ in listed_kernels()} == set(LISTS)

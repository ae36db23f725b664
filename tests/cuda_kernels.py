"""CUDA kernels on the PTX machine: as built, with everything about a launch checked, and with seeded defects."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from flopcuda import _C, info, ops, ptx
from flopcuda.ptx_backend import MachineBackend, PlannedLaunch, plan
from tests.cpu_kernels.oracle import ELEMENT_TOLERANCE, ConvCase, LinearCase, Tensors, backward_error, magnitudes
from tests.patches import Patch, apply_patches
from tests.ptxvm.harness import compile_cuda

CUDA_SOURCES = Path(__file__).resolve().parents[1] / "csrc" / "cuda"
KERNEL_UNITS = ("conv2d.cu", "conv2d_direct.cu", "linear.cu")
NVCC_FLAGS = ("-O3", "--expt-relaxed-constexpr", f"-I{CUDA_SOURCES.parent}")
# A defect in a template is one in every tile, and a build with one of them takes half the time.
ONE_TILE = Patch(
    "tiles.h",
    "#define FLOPCUDA_GEMM_TILES(X)",
    "#define FLOPCUDA_GEMM_TILES(X) X(64x64x8, 0.5, 0.5, 64, 64, 8, 32, 32, 4, 8)\n#define FLOPCUDA_OTHER_TILES(X)",
)

needs_kernels = pytest.mark.skipif(not info.ptx_files(), reason="needs the CUDA kernels' PTX, which nvcc makes")

CONV2D_KERNELS, LINEAR_KERNELS = (
    [str(kernel["name"]) for kernel in _C.cuda_kernels() if kernel["operation"] == operation]
    for operation in ("conv2d", "linear")
)

Case = ConvCase | LinearCase


def operator_arguments(case: Case, tensors: Tensors) -> tuple[str, tuple[Any, ...]]:
    """The operator and its arguments, up to count_zero."""
    if isinstance(case, LinearCase):
        return "linear", tensors
    return f"conv{case.axes}d", (*tensors, case.stride, case.torch_padding, case.dilation, case.groups)


def reference(case: Case, tensors: Tensors) -> Tensor:
    """What torch computes in float64."""
    return case.multiply(*tensors) if isinstance(case, LinearCase) else case.convolve(*tensors)


def plan_case(case: Case, tensors: Tensors, kernel: str) -> PlannedLaunch:
    op, arguments = operator_arguments(case, tensors)
    planned = plan(op, *arguments, kernel.endswith("_count_zero"), kernel=kernel)
    planned.output.fill_(torch.nan)  # what the kernel leaves out is seen
    return planned


def counts(counters: Tensor) -> dict[str, int]:
    return dict(zip(ops.COUNTER_FIELDS, counters.tolist(), strict=True))


def check_case(
    backend: MachineBackend, case: Case, kernel: str, seed: int = 0, tensors: Tensors | None = None
) -> Tensor:
    """Asserts outputs, all counters and what the machine saw; returns the output."""
    tensors = tensors or case.tensors(seed)
    planned = plan_case(case, tensors, kernel)
    result = backend.launch(planned) if planned.grid[0] else None
    counted = counts(planned.counters)
    op, arguments = operator_arguments(case, tensors)
    _, native = ops.OPERATORS[op](*arguments, count_zero=kernel.endswith("_count_zero"))
    assert counted == {**counts(native), "lane": counted["lane"]}
    assert {**case.expected_counts(*tensors[:2], kernel.endswith("_count_zero")), "lane": counted["lane"]} == counted
    assert counted["lane"] == executed_macs(result)
    expected = reference(case, tensors)
    assert planned.output.shape == expected.shape
    assert backward_error(planned.output, expected, reference(case, magnitudes(tensors))) < ELEMENT_TOLERANCE
    return planned.output


def executed_macs(result: ptx.LaunchResult | None) -> int:
    """The multiply-accumulates that the machine executed, which must all be of float32."""
    lanes = result.fma_lanes if result else {}
    assert set(lanes) <= {"f32"}
    return lanes.get("f32", 0)


def kernel_texts(patches: Sequence[Patch] = ()) -> dict[str, str]:
    """PTX by kernel name of csrc/cuda with patches applied: every kernel that they may reach, of one tile.

    Raises:
        ValueError: a patch does not fit the sources.
    """
    sources = {path.name: path.read_text() for path in CUDA_SOURCES.iterdir() if path.suffix in (".cu", ".cuh", ".h")}
    patched = apply_patches(sources, [ONE_TILE, *patches])
    units = [unit for unit in KERNEL_UNITS if inlined(unit, sources) != inlined(unit, patched) or not patches]
    with ThreadPoolExecutor(len(KERNEL_UNITS)) as pool:
        texts = list(pool.map(lambda unit: compile_cuda(inlined(unit, patched), *NVCC_FLAGS), units))
    return {kernel: text for text in texts for kernel in re.findall(r"\.entry (\w+)\(", text)}


def inlined(unit: str, sources: Mapping[str, str]) -> str:
    """A source file with the headers of its folder in place of their includes, each once."""
    seen: set[str] = set()

    def text_of(name: str) -> str:
        if name in seen:
            return ""
        seen.add(name)
        text = sources[name].replace("#pragma once\n", "")
        return re.sub(r'#include "cuda/(.+)"', lambda include: text_of(include[1]), text)

    return text_of(unit)

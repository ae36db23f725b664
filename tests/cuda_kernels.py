"""CUDA kernels on the PTX machine: as built, with everything about a launch checked, and with seeded defects."""

from __future__ import annotations

import math
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
from tests.cpu_kernels.oracle import (
    ELEMENT_TOLERANCE,
    FLOAT64_TOLERANCE,
    ConvCase,
    LinearCase,
    Tensors,
    backward_error,
    magnitudes,
)
from tests.patches import Patch, apply_patches
from tests.ptxvm.harness import compile_cuda

CUDA_SOURCES = Path(__file__).resolve().parents[1] / "csrc" / "cuda"
# Of tiles.h, and the compilation unit of its kernels.
LISTS = {
    "FLOPCUDA_CONV_KERNELS": "conv.cu",
    "FLOPCUDA_DIRECT_KERNELS": "conv_direct.cu",
    "FLOPCUDA_FEW_OUTPUTS_KERNELS": "conv_few_outputs.cu",
    "FLOPCUDA_CONV_TENSOR_KERNELS": "conv_tensor.cu",
    "FLOPCUDA_LINEAR_KERNELS": "linear.cu",
    "FLOPCUDA_LINEAR_TENSOR_KERNELS": "linear_tensor.cu",
}
KERNEL_UNITS = tuple(LISTS.values())
NVCC_FLAGS = ("-O3", "--expt-relaxed-constexpr", f"-I{CUDA_SOURCES.parent}", "-DLEFT_OUT(...)=")


def only_entries(kernels: str, arguments: str) -> Patch:
    """Of a list of tiles.h, leaves these entries: the arguments of one, or of several with ``) X(`` between them."""
    return Patch(
        "tiles.h", f"#define {kernels}(X)", f"#define {kernels}(X) X({arguments})\n#define {kernels}_LEFT_OUT(X)"
    )


def only_kernels(convolution: str, linear: str) -> list[Patch]:
    """Leaves out all kernels but these, float32's of few outputs or one channel, and four on tensor cores."""
    return [
        only_entries(kernels, arguments)
        for kernels, arguments in (
            ("FLOPCUDA_CONV_KERNELS", f"flopcuda_conv_{convolution}"),
            ("FLOPCUDA_DIRECT_KERNELS", "flopcuda_conv_f32_direct, 0.5, float"),
            (
                "FLOPCUDA_FEW_OUTPUTS_KERNELS",
                "flopcuda_conv_f32_few_outputs_9, 0.5, F32_FEW_OUTPUTS_9) "
                "X(flopcuda_conv_f32_few_outputs_25, 0.5, F32_FEW_OUTPUTS_25",
            ),
            ("FLOPCUDA_LINEAR_KERNELS", f"flopcuda_linear_{linear}"),
            (
                "FLOPCUDA_CONV_TENSOR_KERNELS",
                "flopcuda_conv_f16_128x128x32, 0.5, F16_128x128x32, table) "
                "X(flopcuda_conv_f16_64x64x32_many_taps, 0.5, F16_64x64x32, decoder",
            ),
            (
                "FLOPCUDA_LINEAR_TENSOR_KERNELS",
                "flopcuda_linear_f16_128x128x32, 0.5, F16_128x128x32) "
                "X(flopcuda_linear_f64_mma_64x64x8, 0.5, F64_MMA_64x64x8",
            ),
        )
    ]


TWINS = ("_count_zero", "_split")


def without_twins(twins: Sequence[str] = TWINS) -> list[Patch]:
    """Leaves out these twins of kernels, whose main loops, their own, take most of the compiler's time."""
    return [
        Patch(unit, f"FLOPCUDA_DEFINE_KERNEL(kernel##{twin},", f"LEFT_OUT(kernel##{twin},")
        for unit in ("conv.cu", "conv_tensor.cu", "linear.cu", "linear_tensor.cu")
        for twin in twins
    ]


# A defect in a template is one in every tile.
ONE_TILE = only_kernels(*["f32_64x64x16, 0.5, F32_64x64x16"] * 2)

needs_kernels = pytest.mark.skipif(not info.ptx_files(), reason="needs the CUDA kernels' PTX, which nvcc makes")

TYPES = {str(kernel["name"]): str(kernel["dtype"]) for kernel in _C.cuda_kernels()}
UNITS = {str(kernel["name"]): str(kernel["unit"]) for kernel in _C.cuda_kernels()}
# Of the tensors: a TF32 is a float32 in memory.
DTYPES = {name: torch.float32 if dtype == "tf32" else getattr(torch, dtype) for name, dtype in TYPES.items()}
TENSOR_KERNELS = [name for name, unit in UNITS.items() if unit.startswith("mma")]  # on tensor cores
CONV_KERNELS, LINEAR_KERNELS = (
    [name for name in DTYPES if name.startswith(f"flopcuda_{operation}") and name not in TENSOR_KERNELS]
    for operation in ("conv", "linear")
)
# Taps of a convolution that a kernel can tabulate.
MAX_TABULATED_TAPS = 64

# By default, a kernel runs over one named convolution of so many.
THOROUGH_SHARE, FAST_SHARE = 3, 7

# Of backward_error, where sums are not rounded to a narrower type.
SUM_TOLERANCES = {torch.float64: FLOAT64_TOLERANCE, torch.float32: ELEMENT_TOLERANCE}

Case = ConvCase | LinearCase


def operator_arguments(case: Case, tensors: Tensors) -> tuple[str, tuple[Any, ...]]:
    """The operator and its arguments, up to count_zero."""
    if isinstance(case, LinearCase):
        return "linear", tensors
    return f"conv{case.axes}d", (*tensors, case.stride, case.torch_padding, case.dilation, case.groups)


def reference(case: Case, tensors: Tensors) -> Tensor:
    """What torch computes in float64."""
    return case.multiply(*tensors) if isinstance(case, LinearCase) else case.convolve(*tensors)


def plan_case(
    case: Case, tensors: Tensors, kernel: str, splits: int | None = None, gathers_width: bool | None = None
) -> PlannedLaunch:
    op, arguments = operator_arguments(case, tensors)
    wish = {"kernel": kernel, "splits": splits, "gathers_width": gathers_width}
    planned = plan(op, *arguments, kernel.endswith("_count_zero"), **wish)
    planned.output.fill_(torch.nan)  # what the kernel leaves out is seen
    if planned.workspace:
        planned.workspace[0].fill_(0xFF)  # NaN, too
    return planned


def counts(counters: Tensor) -> dict[str, int]:
    return dict(zip(ops.COUNTER_FIELDS, counters.tolist(), strict=True))


def tensors_of(case: Case, kernel: str, seed: int = 0) -> Tensors:
    """In the type of number that the kernel takes."""
    dtype = DTYPES[kernel]
    if dtype in (torch.float32, torch.float64):
        return case.tensors(seed, dtype)
    input, weight, bias = case.tensors(seed)
    return input.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)


def factors(kernel: str, tensors: Tensors) -> Tensors:
    """What the kernel multiplies and adds."""
    if TYPES[kernel] != "tf32":
        return tensors
    input, weight = ((operand.view(torch.int32) & ~0x1FFF).view(torch.float32) for operand in tensors[:2])
    return input, weight, tensors[2]


def layouts(kernel: str, case: Case) -> list[bool]:
    """Whether the width's taps are channels: not, and, where the kernel can take them so, they are."""
    try:
        plan_case(case, tensors_of(case, kernel), kernel, gathers_width=True)
    except ValueError:
        return [False]
    return [False, True]


def check_case(
    backend: MachineBackend,
    case: Case,
    kernel: str,
    seed: int = 0,
    tensors: Tensors | None = None,
    splits: int | None = None,
    gathers_width: bool | None = None,
) -> Tensor:
    """Asserts outputs, all counters and what the machine saw; returns the output."""
    tensors = tensors or tensors_of(case, kernel, seed)
    counts_zero = kernel.endswith("_count_zero")
    planned = plan_case(case, tensors, kernel, splits, gathers_width)
    result = backend.launch(planned) if planned.grid[0] else None
    counted = counts(planned.counters)
    op, arguments = operator_arguments(case, tensors)
    _, native = getattr(torch.ops.flopcuda, op)(*arguments, count_zero=counts_zero)
    assert counted == {**counts(native), "lane": counted["lane"]}
    assert counted == {**case.expected_counts(*tensors[:2], counts_zero), "lane": counted["lane"]}
    assert multiplied_lanes(kernel, counted["lane"]) == executed_macs(result, kernel)
    check_output(planned.output, case, factors(kernel, tensors))
    return planned.output


def check_output(output: Tensor, case: Case, multiplied: Tensors) -> None:
    """Asserts that elements are as near to float64's as their type lets them be, for the size of their products."""
    expected, magnitude = reference(case, multiplied), reference(case, magnitudes(multiplied))
    assert output.shape == expected.shape
    if output.dtype in SUM_TOLERANCES:
        assert backward_error(output, expected, magnitude) < SUM_TOLERANCES[output.dtype]
        return
    # Summed in float32, and rounded.
    format = torch.finfo(output.dtype)
    allowed = (format.eps / 2 + ELEMENT_TOLERANCE) * magnitude + format.smallest_normal * format.eps / 2
    assert ((output.double() - expected).abs() <= allowed).all()


def rotated(kernels: Sequence[str], cases: Sequence[Any], thoroughly: str) -> list[Any]:
    """The parameters (kernel, case) of a test that runs every kernel over every case, most of them slow tests.

    By default a kernel runs over one case of so many, and the next kernel over those that follow: each kernel meets
    cases of every kind, since such as are alike stand together, and each case several kernels. Kernels whose names
    match the pattern ``thoroughly`` run over more; the others are instances of the same templates.
    """
    return [
        pytest.param(kernel, case, marks=[] if (first + index) % share == 0 else pytest.mark.slow)
        for first, kernel in enumerate(kernels)
        for share in (THOROUGH_SHARE if re.search(thoroughly, kernel) else FAST_SHARE,)
        for index, case in enumerate(cases)
    ]


def executed_macs(result: ptx.LaunchResult | None, kernel: str) -> int:
    """The multiply-accumulates that the machine executed, which must all be of the kernel's type."""
    lanes = result.fma_lanes if result else {}
    name = TYPES[kernel].replace("float", "f")
    assert set(lanes) <= {name}
    return lanes.get(name, 0)


def multiplied_lanes(kernel: str, lanes: int) -> int:
    """Lanes that a kernel executes for so many counted ones.

    Where zeros are counted, tensor cores also multiply which operands are none; but of float64, adders count these.
    """
    marks = kernel.endswith("_count_zero") and UNITS[kernel] in ("mma_f16", "mma_tf32")
    return lanes * (1 + marks)


def can_compute(kernel: str, case: Case) -> bool:
    """Whether a kernel takes so many taps: some of those on tensor cores do not."""
    if isinstance(case, LinearCase) or not UNITS[kernel].startswith("mma_") or "_many_taps" in kernel:
        return True
    return math.prod(case.kernel) <= MAX_TABULATED_TAPS


def patched_units(patches: Sequence[Patch]) -> dict[str, str]:
    """The compilation units of csrc/cuda with patches applied, those that they reach, each as one text.

    Raises:
        ValueError: a patch does not fit the sources.
    """
    sources = {path.name: path.read_text() for path in CUDA_SOURCES.iterdir() if path.suffix in (".cu", ".cuh", ".h")}
    patched = apply_patches(sources, patches)
    return {unit: inlined(unit, patched) for unit in KERNEL_UNITS if inlined(unit, sources) != inlined(unit, patched)}


def kernel_texts(
    patches: Sequence[Patch] = (),
    twins: Sequence[str] = TWINS,
    units: Sequence[str] = KERNEL_UNITS,
    architecture: str = "compute_80",
) -> dict[str, str]:
    """PTX by kernel name of csrc/cuda with patches applied: every kernel that they may reach, of one tile.

    Of these compilation units; of the large kernels, only these twins.

    Raises:
        ValueError: a patch does not fit the sources.
    """
    reached = patched_units(patches) if patches else units
    few_kernels = [*ONE_TILE, *without_twins([twin for twin in TWINS if twin not in twins])]
    sources = [
        text for unit, text in patched_units([*few_kernels, *patches]).items() if unit in reached and unit in units
    ]
    with ThreadPoolExecutor(len(KERNEL_UNITS)) as pool:
        texts = list(pool.map(lambda source: compile_cuda(source, *NVCC_FLAGS, architecture=architecture), sources))
    return {kernel: text for text in texts for kernel in re.findall(r"\.entry (\w+)\(", text)}


def only_kernel(kernels: str, entry: str, patches: Sequence[Patch] = ()) -> tuple[str, str]:
    """A kernel without its twins, of an entry in a list of tiles.h: its name, and the text of its unit."""
    text = patched_units([only_entries(kernels, entry), *without_twins(), *patches])[LISTS[kernels]]
    return entry.split(",")[0], text


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

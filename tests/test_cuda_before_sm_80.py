"""The CUDA kernels for GPUs before sm_80, which lack cp.async: values on their way to shared memory wait in registers.

As compiled for such a GPU, they are executed on the PTX machine with all checks; in machine code, loads come before a
slice is multiplied, and stores behind it.
"""

from __future__ import annotations

import pytest
import torch

from flopcuda import ptx
from flopcuda.kernels import sass
from flopcuda.ptx_backend import MachineBackend
from tests.cpu_kernels.oracle import ConvCase, LinearCase
from tests.cuda_kernels import DTYPES, NVCC_FLAGS, check_case, kernel_texts, only_kernel
from tests.ptxvm.harness import compile_cubin, compile_cuda, needs_nvcc
from tests.test_cuda_mutants import CASES, TWINS

pytestmark = needs_nvcc

UNITS = ("conv.cu", "conv_direct.cu", "conv_few_outputs.cu", "linear.cu", "linear_tensor.cu")


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    return kernel_texts(units=UNITS, architecture="compute_75")


@pytest.mark.parametrize("tile", [kernel for kernel in CASES if DTYPES[kernel] == torch.float32])
def test_every_kernel_counts_and_computes(texts: dict[str, str], tile: str) -> None:
    backend = MachineBackend(ptx.Machine(), texts)
    for suffix, splits in TWINS.items():
        if tile + suffix not in texts:
            assert (suffix, "direct" in tile) == ("_split", True)
            continue
        for case in CASES[tile]:
            check_case(backend, case, tile + suffix, splits=splits)


@pytest.mark.parametrize(
    ("kernels", "entry", "case"),
    [
        ("FLOPCUDA_CONV_KERNELS", "flopcuda_conv_f64_64x64x8, 0.7, F64_64x64x8", ConvCase(2, 5, (9, 7), 67)),
        ("FLOPCUDA_LINEAR_KERNELS", "flopcuda_linear_f64_32x128x8, 0.7, F64_32x128x8", LinearCase(67, 37, 35)),
    ],
)
def test_doubles_wait_in_registers_too(kernels: str, entry: str, case: ConvCase | LinearCase) -> None:
    kernel, source = only_kernel(kernels, entry)
    text = compile_cuda(source, *NVCC_FLAGS, architecture="compute_75")
    check_case(MachineBackend(ptx.Machine(), {kernel: text}), case, kernel)


def test_no_copy_is_asynchronous(texts: dict[str, str]) -> None:
    assert texts
    assert not any("cp.async" in text for text in texts.values())


def test_a_kernel_on_tensor_cores_traps(texts: dict[str, str]) -> None:
    """The planner chooses none there."""
    text = texts["flopcuda_linear_f16_128x128x32"]
    assert "trap;" in text
    assert "mma.sync" not in text


@pytest.mark.skipif(not sass.find_tool("cuobjdump"), reason="needs cuobjdump")
@pytest.mark.parametrize(
    ("kernels", "entry", "share"),
    [
        ("FLOPCUDA_CONV_KERNELS", "flopcuda_conv_f32_64x64x16, 0.8, F32_64x64x16", 0.78),
        ("FLOPCUDA_LINEAR_KERNELS", "flopcuda_linear_f32_64x64x16, 0.8, F32_64x64x16", 0.79),
    ],
)
def test_values_are_loaded_before_a_slice_is_multiplied_and_written_behind_it(
    kernels: str, entry: str, share: float
) -> None:
    kernel, text = only_kernel(kernels, entry)
    binary = compile_cubin(text, *NVCC_FLAGS, architecture="sm_75")
    code = sass.parse(sass.disassemble(binary, "sm_75"))[kernel]
    loop = sass.find_main_loop(code)
    assert loop is not None
    body = [instruction for instruction in code if loop.first <= instruction.address <= loop.last]
    multiplies = [i for i, instruction in enumerate(body) if instruction.multiplies_and_adds]
    loads, stores = ([i for i, other in enumerate(body) if other.mnemonic == name] for name in ("LDG", "STS"))
    half = multiplies[len(multiplies) // 2]
    assert len(loads) == len(stores) == 16
    assert max(loads) < half < min(stores)
    assert loop.multiply_add_share > share
    assert not any(instruction.mnemonic in ("LDL", "STL") for instruction in code)

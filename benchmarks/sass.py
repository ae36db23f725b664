"""The main loops of the counted CUDA kernels in machine code, beside those of CUTLASS.

``python -m benchmarks.sass`` prints a table and writes JSON; CUTLASS's kernels are compiled from the headers that the
PyPI package nvidia-cutlass brings, where it is installed. ``--check`` writes nothing and fails if a figure of ours is
worse than in the JSON, or if one of them has a kernel that the other lacks.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from rich.console import Console
from rich.table import Table

from flopcuda import _C
from flopcuda.kernels import sass
from flopcuda.kernels.build import Usage, built_usage, parse_log
from flopcuda.kernels.occupancy import occupancy

ARCHITECTURES = ("sm_80", "sm_90", "sm_120")
RESULTS = Path(__file__).with_suffix(".json")


@dataclass(frozen=True)
class CutlassKernel:
    """A kernel template of CUTLASS, as C++ includes and the type ``Instance``, to be held beside one of ours."""

    name: str
    threads: int
    header: str
    instance: str


def _product(scalar: str, unit: str, block: str, warp: str, instruction: str, vector: int, stages: int = 4) -> str:
    total = "double" if scalar == "double" else "float"
    return f"""cutlass::gemm::device::Gemm<{scalar}, cutlass::layout::RowMajor, {scalar}, cutlass::layout::ColumnMajor,
        {scalar}, cutlass::layout::RowMajor, {total}, cutlass::arch::{unit},
        cutlass::arch::Sm80, cutlass::gemm::GemmShape<{block}>, cutlass::gemm::GemmShape<{warp}>,
        cutlass::gemm::GemmShape<{instruction}>, cutlass::epilogue::thread::LinearCombination<{scalar}, {vector},
        {total}, {total}>,
        cutlass::gemm::threadblock::GemmIdentityThreadblockSwizzle<>, {stages}>::GemmKernel"""


def _convolution(scalar: str, unit: str, block: str, warp: str, instruction: str, vector: int) -> str:
    image = f"{scalar}, cutlass::layout::TensorNHWC"
    return f"""cutlass::conv::kernel::DefaultConv2dFprop<{image}, {image}, {image}, float, cutlass::arch::{unit},
        cutlass::arch::Sm80, cutlass::gemm::GemmShape<{block}>, cutlass::gemm::GemmShape<{warp}>,
        cutlass::gemm::GemmShape<{instruction}>, cutlass::epilogue::thread::LinearCombination<{scalar}, {vector},
        float, float>, cutlass::gemm::threadblock::GemmIdentityThreadblockSwizzle<>, 4, cutlass::arch::OpMultiplyAdd,
        cutlass::conv::IteratorAlgorithm::kOptimized>::Kernel"""


_GEMM = "cutlass/gemm/device/gemm.h"
_FPROP = "cutlass/conv/kernel/default_conv2d_fprop.h"
#: Scalar, unit, block, warp and instruction tile, vector of the epilogue.
_SIMT = "float", "OpClassSimt", "128, 128, 8", "32, 64, 8", "1, 1, 1", 1
_F16 = "cutlass::half_t", "OpClassTensorOp", "128, 128, 32", "64, 64, 32", "16, 8, 16", 8
_TF32 = "float", "OpClassTensorOp", "128, 128, 16", "64, 64, 16", "16, 8, 8", 4
_F64 = "double", "OpClassTensorOp", "128, 128, 16", "32, 64, 16", "8, 8, 4", 2, 3  # its default on sm_80

CUTLASS_KERNELS = (
    CutlassKernel("CUTLASS float32 product 128x128x8", 256, _GEMM, _product(*_SIMT)),
    CutlassKernel("CUTLASS float32 convolution 128x128x8", 256, _FPROP, _convolution(*_SIMT)),
    CutlassKernel(
        "CUTLASS float64 product 64x64x8",
        128,
        _GEMM,
        _product("double", "OpClassSimt", "64, 64, 8", "32, 32, 8", "1, 1, 1", 1),
    ),
    CutlassKernel("CUTLASS float64 product 128x128x16, tensor cores", 256, _GEMM, _product(*_F64)),
    CutlassKernel("CUTLASS float16 product 128x128x32, tensor cores", 128, _GEMM, _product(*_F16)),
    CutlassKernel("CUTLASS float16 convolution 128x128x32, tensor cores", 128, _FPROP, _convolution(*_F16)),
    CutlassKernel("CUTLASS TF32 product 128x128x16, tensor cores", 128, _GEMM, _product(*_TF32)),
    CutlassKernel("CUTLASS TF32 convolution 128x128x16, tensor cores", 128, _FPROP, _convolution(*_TF32)),
)


@dataclass(frozen=True)
class Figures:
    """What is measured of one kernel on one architecture."""

    kernel: str
    architecture: str
    multiply_adds: int  #: in the main loop
    instructions: int
    share: float  #: of the multiply-adds
    mix: dict[str, int]  #: instructions of the main loop by mnemonic
    registers: int
    shared_bytes: int
    spilled_bytes: int
    blocks: int  #: on a multiprocessor
    occupancy: float


def measure(kernel: str, architecture: str, code: list[sass.Instruction], usage: Usage, threads: int) -> Figures | None:
    """Of a kernel in machine code; None without a loop that multiplies."""
    loop = sass.find_main_loop(code)
    if loop is None:
        return None
    body = [instruction for instruction in code if loop.first <= instruction.address <= loop.last]
    held = occupancy(architecture, threads, usage.registers, usage.shared_bytes)
    return Figures(
        kernel,
        architecture,
        loop.multiply_adds,
        loop.instructions,
        round(loop.multiply_add_share, 4),
        dict(Counter(instruction.mnemonic for instruction in body).most_common()),
        usage.registers,
        usage.shared_bytes,
        usage.spill_store_bytes + usage.spill_load_bytes,
        held.blocks,
        held.share,
    )


def measure_ours(architectures: tuple[str, ...] = ARCHITECTURES) -> list[Figures]:
    """Of the kernels as built, those that count no zeros, on the architectures that they were built for."""
    usage = built_usage()
    figures = []
    for architecture in architectures:
        if not any(target[1] == architecture for target in usage):
            continue
        codes = sass.parse(sass.disassemble(Path(_C.__file__), architecture))
        for kernel in _C.cuda_kernels():
            name = kernel["name"]
            if not kernel["counts_zero"]:
                found = measure(name, architecture, codes[name], usage[name, architecture], kernel["threads"])
                figures += [found] if found else []
    return figures


def measure_cutlass(include: Path) -> list[Figures]:
    """Of CUTLASS's kernels, compiled with the nvcc on PATH."""
    figures = []
    for kernel in CUTLASS_KERNELS:
        for architecture in ARCHITECTURES:
            code, usage = compile_cutlass(kernel, architecture, include)
            found = measure(kernel.name, architecture, code, usage, kernel.threads)
            figures += [found] if found else []
    return figures


def compile_cutlass(kernel: CutlassKernel, architecture: str, include: Path) -> tuple[list[sass.Instruction], Usage]:
    """Machine code and usage. Its shared memory is dynamic: the size is that of an array in the PTX.

    Raises:
        subprocess.CalledProcessError: nvcc refuses it.
    """
    source = f"""#include "cutlass/device_kernel.h"
        #include "{kernel.header}"
        using Instance = {kernel.instance};
        template __global__ void cutlass::Kernel<Instance>(Instance::Params);
        extern "C" __device__ char shared_storage[sizeof(Instance::SharedStorage)] = {{}};"""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "kernel.cu").write_text(source)
        flags = ["-std=c++17", "-O3", "-w", "--expt-relaxed-constexpr", f"-I{include}", "-Xptxas=-v", "-keep"]
        command = ["nvcc", *flags, "-cubin", f"-arch={architecture}", "kernel.cu", "-o", "kernel.cubin"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
        (usage,) = parse_log(done.stdout + done.stderr).values()
        (size,) = (
            int(line.split("[")[1].split("]")[0])
            for line in (folder / "kernel.ptx").read_text().splitlines()
            if "shared_storage[" in line
        )
        (code,) = sass.parse(sass.disassemble(folder / "kernel.cubin", architecture)).values()
    return code, Usage(**{**asdict(usage), "shared_bytes": usage.shared_bytes + size})


def find_cutlass() -> Path | None:
    """The headers that nvidia-cutlass brings."""
    spec = importlib.util.find_spec("cutlass_library")
    folders = spec.submodule_search_locations if spec else None
    include = Path(next(iter(folders))) / "source" / "include" if folders else None
    return include if include and include.is_dir() else None


def worse_figures(ours: list[Figures], recorded: list[Figures]) -> list[str]:
    """A sentence for each figure of ours that is worse than what was recorded, and each kernel that one lacks."""
    before = {(row.kernel, row.architecture): row for row in recorded if not row.kernel.startswith("CUTLASS")}
    measured = {(row.kernel, row.architecture) for row in ours}
    architectures = {row.architecture for row in ours}
    vanished = sorted(place for place in before.keys() - measured if place[1] in architectures)
    sentences = [f"{kernel} on {architecture} has vanished" for kernel, architecture in vanished]
    new = sorted(measured - before.keys())
    sentences += [f"{kernel} on {architecture} is not recorded" for kernel, architecture in new]
    for now in ours:
        then = before.get((now.kernel, now.architecture))
        if then is None:
            continue
        place = f"{now.kernel} on {now.architecture}"
        if now.share < then.share:
            sentences.append(f"{place}: multiply-adds are {now.share:.4f} of the main loop, and were {then.share:.4f}")
        for what in ("registers", "shared_bytes", "spilled_bytes"):
            if getattr(now, what) > getattr(then, what):
                name = what.replace("_", " ")
                sentences.append(f"{place}: {getattr(now, what)} {name}, and were {getattr(then, what)}")
        if now.blocks < then.blocks:
            sentences.append(f"{place}: {now.blocks} blocks on a multiprocessor, and were {then.blocks}")
    return sentences


def load_results(path: Path = RESULTS) -> tuple[str, list[Figures]]:
    """The CUDA version that was measured, and the figures."""
    results = json.loads(path.read_text())
    return results["cuda"], [Figures(**row) for row in results["figures"]]


def table_of(figures: list[Figures]) -> Table:
    table = Table(title=f"Main loops in machine code, CUDA {_C.cuda_version}", title_justify="left")
    for column in (
        "kernel",
        "architecture",
        "multiply-adds",
        "share",
        "registers",
        "shared bytes",
        "blocks / SM",
        "mix",
    ):
        table.add_column(column, justify="left" if column in ("kernel", "architecture", "mix") else "right")
    for row in figures:
        mix = ", ".join(f"{count} {name}" for name, count in list(row.mix.items())[:6])
        counts = f"{row.multiply_adds} of {row.instructions}", f"{row.share:.3f}", str(row.registers)
        table.add_row(row.kernel, row.architecture, *counts, f"{row.shared_bytes:,}", str(row.blocks), mix)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare with the JSON and write nothing")
    arguments = parser.parse_args()
    ours = measure_ours()
    if arguments.check:
        cuda, recorded = load_results()
        if cuda != _C.cuda_version:
            sys.exit(f"recorded with CUDA {cuda}, built with {_C.cuda_version}: figures cannot be compared")
        sys.exit("\n".join(worse_figures(ours, recorded)) or 0)
    include = find_cutlass()
    recorded = load_results()[1] if RESULTS.exists() else []
    theirs = measure_cutlass(include) if include else [row for row in recorded if row.kernel.startswith("CUTLASS")]
    version = metadata.version("nvidia-cutlass") if include else json.loads(RESULTS.read_text())["cutlass"]
    results = {"cuda": _C.cuda_version, "cutlass": version, "figures": [asdict(row) for row in ours + theirs]}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    Console(width=200).print(table_of(ours + theirs))


if __name__ == "__main__":
    main()

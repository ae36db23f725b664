"""Damaged PTX is refused with an error, or loads and runs to an end. No crash, no hang.

A few hundred mutants meet the machine as it is installed; the many of the slow test meet one that is compiled with
AddressSanitizer and UndefinedBehaviorSanitizer.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flopcuda import _ptxvm, ptx
from tests.ptxvm.fuzz.build import build
from tests.ptxvm.harness import compile_cuda, nvcc

SEEDS = sorted((Path(__file__).parent / "fuzz/seeds").glob("*.ptx"))
KERNELS = Path(ptx.__file__).parent / "kernel_ptx"
_SUMMARY = re.compile(r"(\d+) mutants: (\d+) refused, (\d+) loaded, (\d+) launches")

CUDA = """
struct Point { float x, y; };
__device__ int total;
__constant__ float weights[8];
__noinline__ __device__ float norm(Point p) { return sqrtf(p.x * p.x + p.y * p.y); }
__global__ void points(float* out, Point shift, int n) {
    __shared__ float tile[128];
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    tile[threadIdx.x] = i < n ? out[i] : 0.0f;
    __syncthreads();
    for (int k = 0; k < 8; ++k) shift.x += weights[k] * tile[(threadIdx.x + k) % blockDim.x];
    if (i >= n) return;
    atomicAdd(&total, __popc(__ballot_sync(__activemask(), shift.x > 0.0f)));
    switch (i % 5) {
        case 0: out[i] = norm(shift); break;
        case 1: out[i] = __shfl_xor_sync(__activemask(), shift.x, 1); break;
        case 2: printf("%d %f\\n", i, shift.y); break;
        default: out[i] = __expf(shift.y) / shift.x;
    }
}
"""


needs_compiler = pytest.mark.skipif(shutil.which("c++") is None, reason="needs c++")


def corpus(folder: Path) -> list[Path]:
    """The seeds, and what nvcc makes of CUDA: the project's own kernels one by one, and a small one with calls."""
    files = list(SEEDS)
    if nvcc():
        files.append(folder / "points.ptx")
        files[-1].write_text(compile_cuda("#include <cstdio>\n" + CUDA, "-lineinfo"))
    for module in KERNELS.glob("*_direct.ptx"):
        head, *entries = re.split(r"(?=^\.visible \.entry)", module.read_text(), flags=re.MULTILINE)
        for number, entry in enumerate(entries):
            files.append(folder / f"{module.stem}_{number}.ptx")
            files[-1].write_text(head + entry)
    return files


def check_summaries(count: int, outputs: list[str]) -> None:
    """All mutants were tried. Damage is worth something only if much of it gets past the loader, and not all of it."""
    numbers = [tuple(map(int, summary)) for output in outputs for summary in _SUMMARY.findall(output)]
    mutants, refused, loaded, launches = map(sum, zip(*numbers, strict=True))
    assert mutants == count == refused + loaded
    assert min(refused, loaded, launches) > count // 10


def test_seeds_know_every_instruction() -> None:
    words = {word for file in SEEDS for word in re.findall(r"[a-z]\w+", re.sub("//.*", "", file.read_text()))}
    assert set(_ptxvm.opcodes) <= words


@needs_compiler
def test_damaged_texts() -> None:
    count = 500
    mutants = subprocess.run([build("mutants"), "0", str(count), *SEEDS], capture_output=True, check=True).stdout
    command = [sys.executable, "-m", "tests.ptxvm.fuzz.load"]
    done = subprocess.run(command, input=mutants, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr.decode()[-4000:]
    check_summaries(count, [done.stdout.decode()])


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("count", [2_500, 12_000])
def test_damaged_texts_under_sanitizers(tmp_path: Path, count: int) -> None:
    """All cores share the mutants."""
    driver, files = build("fuzz"), corpus(tmp_path)
    shares = os.cpu_count() or 1
    bounds = [count * share // shares for share in range(shares + 1)]
    running = [
        subprocess.Popen(
            [driver, "--first", str(first), "--count", str(end - first), *files],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for first, end in itertools.pairwise(bounds)
    ]
    outputs = [process.communicate() for process in running]
    assert not any(process.returncode for process in running), "\n".join(error[-4000:] for _, error in outputs)
    check_summaries(count, [output for output, _ in outputs])

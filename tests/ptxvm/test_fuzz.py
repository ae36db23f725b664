"""Damaged PTX under the sanitizers: it is refused with an error, or loads and runs to an end. No crash, no hang."""

from __future__ import annotations

import re
import shutil
import subprocess
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


@pytest.fixture(scope="module")
def fuzzer() -> Path:
    if not shutil.which("c++"):
        pytest.skip("needs c++")
    return build()


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


def fuzz(driver: Path, count: int, files: list[Path]) -> None:
    done = subprocess.run([driver, "--count", str(count), *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    summary = _SUMMARY.search(done.stdout)
    assert summary
    mutants, refused, loaded, launches = map(int, summary.groups())
    assert mutants == count == refused + loaded
    # Damage is worth something only if much of it gets past the loader, and not all of it.
    assert min(refused, loaded, launches) > count // 10


def test_seeds_know_every_instruction() -> None:
    words = {word for file in SEEDS for word in re.findall(r"[a-z]\w+", re.sub("//.*", "", file.read_text()))}
    assert set(_ptxvm.opcodes) <= words


@pytest.mark.slow
def test_damaged_texts(fuzzer: Path) -> None:
    fuzz(fuzzer, 500, SEEDS)


@pytest.mark.slow
def test_many_damaged_texts(fuzzer: Path, tmp_path: Path) -> None:
    fuzz(fuzzer, 20_000, corpus(tmp_path))

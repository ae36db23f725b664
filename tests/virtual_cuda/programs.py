"""Compiles CUDA programs against the shared runtime and runs them on the virtual device's libraries."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest

import flopcuda
from tests.ptxvm import harness

LIBRARIES = Path(flopcuda.__file__).parent / "virtual_cuda" / "lib"
RUNTIME = LIBRARIES / "libcudart.so.13"
DRIVER = LIBRARIES / "libcuda.so.1"

needs_libraries = pytest.mark.skipif(
    not RUNTIME.exists(), reason="needs the virtual device, built with a CUDA 13 toolkit"
)

#: In front of every program: check() ends it with the error's name.
PRELUDE = r"""
#include <cuda_runtime.h>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

static void check(cudaError_t status, const char* what, int line) {
  if (status == cudaSuccess) return;
  std::printf("line %d: %s: %s\n", line, what, cudaGetErrorName(status));
  std::exit(1);
}
#define CHECK(call) check(call, #call, __LINE__)
#define NAME(call) cudaGetErrorName(call)
#line 1
"""


def compile_program(source: str, *flags: str, architecture: str = "compute_80") -> Path:
    """The executable of CUDA source text with PTX and no machine code in it, from a cache by content."""
    options = ["-std=c++17", "-cudart", "shared", f"-gencode=arch={architecture},code={architecture}", *flags]
    return Path(_build(PRELUDE + source, options))


def _build(source: str, options: list[str]) -> str:
    compiler = harness.nvcc()
    if compiler is None:
        pytest.skip("needs nvcc")
    key = hashlib.sha256("\0".join([source, *options, compiler]).encode()).hexdigest()[:24]
    folder = Path(tempfile.gettempdir()) / "flopcuda-program-cache"
    folder.mkdir(exist_ok=True)
    output = folder / key
    if not output.exists():
        with tempfile.TemporaryDirectory() as work:
            file = Path(work) / "program.cu"
            file.write_text(source)
            built = Path(work) / "program"
            done = subprocess.run([compiler, *options, str(file), "-o", str(built)], capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr
            shutil.move(built, output)
    return str(output)


def run_program(program: Path, settings: Mapping[str, object] | None = None) -> subprocess.CompletedProcess[str]:
    """Run an executable on the virtual device, with FLOPCUDA_VCUDA_<name> of `settings` in its environment."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FLOPCUDA_VCUDA_")}
    environment["LD_LIBRARY_PATH"] = str(LIBRARIES)
    environment.update({f"FLOPCUDA_VCUDA_{name}": str(value) for name, value in (settings or {}).items()})
    return subprocess.run([program], env=environment, capture_output=True, text=True, timeout=120)


def lines_of(source: str, *flags: str, settings: Mapping[str, object] | None = None) -> list[str]:
    """What a program prints, line by line; it must end well."""
    done = run_program(compile_program(source, *flags), settings)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()

"""Compiles CUDA programs against the shared runtime and runs them on the virtual device's libraries.

A program in programs/ has several scenarios, so that nvcc runs once for all of them; each runs in a process of its own.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import pytest

from flopcuda.virtual_cuda.launch import LIBRARIES
from tests.ptxvm import harness

RUNTIME = LIBRARIES / "libcudart.so.13"
DRIVER = LIBRARIES / "libcuda.so.1"
SOURCES = Path(__file__).parent / "programs"

needs_libraries = pytest.mark.skipif(
    not RUNTIME.exists(), reason="needs the virtual device, built with a CUDA 13 toolkit"
)
PTX_ONLY = ("-gencode=arch=compute_80,code=compute_80",)


def nvidias_runtime() -> Path:
    """The CUDA runtime that torch's wheel brings."""
    library = Path(sysconfig.get_path("purelib")) / "nvidia/cu13/lib" / RUNTIME.name
    if not library.exists():
        pytest.skip("needs the CUDA runtime that torch brings")
    return library


@cache
def compile_program(name: str, flags: Sequence[str] = PTX_ONLY) -> Path:
    """The executable of programs/<name>.cu, from a cache by content."""
    compiler = harness.nvcc()
    if compiler is None:
        pytest.skip("needs nvcc")
    source = SOURCES / f"{name}.cu"
    options = ["-std=c++17", "-cudart", "shared", f"-I{SOURCES}", *flags]
    headers = sorted(SOURCES.glob("*.h"))
    texts = [*(path.read_text() for path in (source, *headers)), *options, compiler]
    folder = Path(tempfile.gettempdir()) / "flopcuda-program-cache"
    folder.mkdir(exist_ok=True)
    output = folder / hashlib.sha256("\0".join(texts).encode()).hexdigest()[:24]
    if not output.exists():
        with tempfile.TemporaryDirectory() as work:
            built = Path(work) / "program"
            done = subprocess.run([compiler, *options, str(source), "-o", str(built)], capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr
            shutil.move(built, output)
    return output


def run(
    program: Path, *arguments: str, settings: Mapping[str, object] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run an executable on the virtual device, with FLOPCUDA_VCUDA_<name> of `settings` in its environment."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FLOPCUDA_VCUDA_")}
    environment["LD_LIBRARY_PATH"] = str(LIBRARIES)
    environment.update({f"FLOPCUDA_VCUDA_{name}": str(value) for name, value in (settings or {}).items()})
    return subprocess.run([program, *arguments], env=environment, capture_output=True, text=True, timeout=120)


def scenario(
    program: str, name: str, settings: Mapping[str, object] | None = None, flags: Sequence[str] = PTX_ONLY
) -> list[str]:
    """What a scenario prints, line by line. It checks its own expectations; one that fails ends it badly."""
    done = run(compile_program(program, flags), name, settings=settings)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def scenarios(program: str) -> list[str]:
    """The names of a program's scenarios."""
    lines = (SOURCES / f"{program}.cu").read_text().splitlines()
    return [line.split("(")[1].split(")")[0] for line in lines if line.startswith("SCENARIO(")]

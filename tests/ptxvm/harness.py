"""Runs one instruction over arrays of bits, and compiles CUDA for the machine."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flopcuda import ptx

SOURCES = Path(__file__).parent / "sources"
HEADER = ".version 9.0\n.target sm_120\n.address_size 64\n"
_UNSIGNED = {2: np.uint16, 4: np.uint32, 8: np.uint64}


def kernel(body: str, parameters: str = "", name: str = "k", module: str = "", header: str = HEADER) -> str:
    """A module with one entry."""
    return f"{header}{module}\n.visible .entry {name}({parameters})\n{{\n{body}\n}}\n"


def run_instruction(*arguments: Any, **named: Any) -> np.ndarray[Any, Any]:
    """The result of `observe_instruction` for every element."""
    return observe_instruction(*arguments, **named)[0]


def observe_instruction(
    text: str,
    inputs: Sequence[np.ndarray[Any, Any]],
    result_size: int = 4,
    declarations: str = "",
    machine: ptx.Machine | None = None,
    module: str = "",
) -> tuple[np.ndarray[Any, Any], ptx.LaunchResult]:
    """Execute `text` for every element: sources are %x0, %x1, ... of their arrays' widths, the result is %y.

    Args:
        text: the instruction or instructions; predicates %p<8> are declared, and %t0 to %t3, %u0 to %u3, %h0 to %h3 of
            32, 64 and 16 bits.
        inputs: unsigned arrays of one length.
        result_size: bytes of %y.
        declarations: of more registers and variables.
        machine: to run on; one with a single thread and all checks by default.
        module: text before the kernel.
    """
    count = len(inputs[0])
    lines = [
        ".reg .b64 %base, %address;",
        ".reg .b64 %index8, %u<4>;",
        ".reg .b32 %i, %n, %bid, %t<4>;",
        ".reg .b16 %h<4>;",
        ".reg .pred %p<8>, %inside;",
        f".reg .b{8 * result_size} %y;",
        declarations,
        "mov.u32 %i, %tid.x; mov.u32 %n, %ntid.x; mov.u32 %bid, %ctaid.x; mad.lo.u32 %i, %bid, %n, %i;",
        f"setp.ge.u32 %inside, %i, {count}; @%inside ret;",
    ]
    names = [".param .u64 out"]
    for k, values in enumerate(inputs):
        size = values.dtype.itemsize
        names.append(f".param .u64 in{k}")
        lines += [
            f".reg .b{8 * size} %x{k};",
            f"ld.param.u64 %base, [in{k}]; mul.wide.u32 %index8, %i, {size}; add.s64 %address, %base, %index8;",
            f"ld.global.b{8 * size} %x{k}, [%address];",
        ]
    lines += [
        text,
        f"ld.param.u64 %base, [out]; mul.wide.u32 %index8, %i, {result_size}; add.s64 %address, %base, %index8;",
        f"st.global.b{8 * result_size} [%address], %y;",
        "ret;",
    ]
    out = np.zeros(count, _UNSIGNED[result_size])
    program = kernel("\n".join(lines), ", ".join(names), module=module)
    loaded = (machine or ptx.Machine(threads=1)).load(program)
    result = loaded.launch("k", (count + 127) // 128, 128, [out, *inputs])
    assert not result.findings, result.findings
    return out, result


def nvcc() -> str | None:
    home = os.environ.get("CUDA_HOME")
    if home and (Path(home) / "bin/nvcc").is_file():
        return str(Path(home) / "bin/nvcc")
    return shutil.which("nvcc")


needs_nvcc = pytest.mark.skipif(nvcc() is None, reason="needs nvcc")


def compile_cuda(source: str, *flags: str, architecture: str = "compute_80") -> str:
    """PTX of CUDA source text, from a cache by content."""
    return _compiled(source, ".ptx", ["-ptx", f"-arch={architecture}", *flags]).read_text()


def compile_cubin(source: str, *flags: str, architecture: str = "sm_80") -> Path:
    """Machine code of CUDA source text; cached likewise."""
    return _compiled(source, ".cubin", ["-cubin", f"-arch={architecture}", *flags])


def compile_cuda_library(source: str, *flags: str, architecture: str = "compute_80") -> Path:
    """A shared library of CUDA source text that holds PTX only and needs the shared CUDA runtime; cached likewise."""
    target = f"-gencode=arch={architecture},code={architecture}"
    return _compiled(source, ".so", ["-shared", "-Xcompiler=-fPIC", "-cudart=shared", target, *flags])


def _compiled(source: str, suffix: str, options: list[str]) -> Path:
    """What nvcc makes of CUDA source text. Its own version is part of the cache's key."""
    compiler = nvcc()
    if compiler is None:
        pytest.skip("needs nvcc")
    options = ["-std=c++17", *options]
    key = hashlib.sha256("\0".join([source, *options, _version(compiler)]).encode()).hexdigest()[:24]
    folder = Path(tempfile.gettempdir()) / "flopcuda-ptx-cache"
    folder.mkdir(exist_ok=True)
    output = folder / f"{key}{suffix}"
    if not output.exists():
        with tempfile.TemporaryDirectory() as work:
            file = Path(work) / "kernel.cu"
            file.write_text(source)
            built = Path(work) / f"kernel{suffix}"
            done = subprocess.run([compiler, *options, str(file), "-o", str(built)], capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            shutil.move(built, output)
    return output


_versions: dict[str, str] = {}


def _version(compiler: str) -> str:
    if compiler not in _versions:
        _versions[compiler] = subprocess.run([compiler, "--version"], capture_output=True, text=True).stdout
    return _versions[compiler]


def source(name: str) -> str:
    return (SOURCES / name).read_text()


def kinds(result: ptx.LaunchResult) -> set[str]:
    return {finding.kind for finding in result.findings}

"""What nvcc makes of the CUDA kernels: all planned ones are there, and none spills registers. Skips without nvcc."""

from __future__ import annotations

import hashlib
import re
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from flopcuda.kernels.build import Usage, parse_log
from tests.cuda_plan import ROOT, build_planner
from tests.ptxvm.harness import nvcc

SOURCES = sorted((ROOT / "csrc/cuda").glob("*.cu"))
HEADERS = sorted([*(ROOT / "csrc/cuda").glob("*.cuh"), *(ROOT / "csrc/cuda").glob("*.h")])
ARCHITECTURES = ["sm_80", "sm_90"]
FLAGS = ["-O3", "-std=c++17", "--expt-relaxed-constexpr", "-lineinfo", f"-I{ROOT / 'csrc'}"]
BUILD_JOBS = 2
# 65,536 registers of a multiprocessor: 384 threads and more have room.
MAX_REGISTERS = 168


@dataclass(frozen=True)
class Build:
    """Usage by (kernel, architecture), and PTX by source file."""

    usage: dict[tuple[str, str], Usage]
    ptx: dict[str, str]


def cached_output(folder: Path, name: str, command: list[str]) -> str:
    """What a command says; kept in a folder whose name is a hash of everything that goes into it."""
    log = folder / f"{name}.log"
    if not log.exists():
        outcome = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        assert outcome.returncode == 0, outcome.stdout
        log.write_text(outcome.stdout)
    return log.read_text()


def content_hash(compiler: str) -> str:
    digest = hashlib.sha256(subprocess.run([compiler, "--version"], capture_output=True, check=True).stdout)
    for path in [*SOURCES, *HEADERS, *sorted((ROOT / "csrc/common").glob("*.h"))]:
        digest.update(path.name.encode() + path.read_bytes())
    digest.update(repr((FLAGS, ARCHITECTURES)).encode())
    return digest.hexdigest()[:16]


@pytest.fixture(scope="module")
def build() -> Build:
    compiler = nvcc()
    if compiler is None:
        pytest.skip("needs nvcc")
    folder = Path(tempfile.gettempdir()) / f"flopcuda-cuda-build-{content_hash(compiler)}"
    folder.mkdir(exist_ok=True)
    gencode = [f"-gencode=arch={name.replace('sm', 'compute')},code={name}" for name in ARCHITECTURES]

    def compile_source(source: Path) -> str:
        output = folder / f"{source.stem}.o"
        command = [compiler, *FLAGS, *gencode, "-Xptxas", "-v", "-c", str(source), "-o", str(output)]
        return cached_output(folder, source.stem, command)

    def translate_source(source: Path) -> str:
        ptx = folder / f"{source.stem}.ptx"
        command = [compiler, *FLAGS, "-ptx", "-arch=compute_80", str(source), "-o", str(ptx)]
        cached_output(folder, f"{source.stem}.ptx", command)
        return ptx.read_text()

    with ThreadPoolExecutor(BUILD_JOBS) as pool:
        logs = pool.map(compile_source, SOURCES)
        texts = pool.map(translate_source, SOURCES)
        usage = {key: value for log in logs for key, value in parse_log(log).items()}
        return Build(usage, {source.name: text for source, text in zip(SOURCES, texts, strict=True)})


@pytest.fixture(scope="module")
def planned_kernels(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    return {kernel.name for kernel in build_planner(tmp_path_factory.mktemp("plan")).kernels()}


@pytest.mark.slow
def test_every_planned_kernel_is_compiled_and_no_other(build: Build, planned_kernels: set[str]) -> None:
    assert planned_kernels
    assert set(build.usage) == {(kernel, name) for kernel in planned_kernels for name in ARCHITECTURES}


@pytest.mark.slow
def test_every_planned_kernel_is_an_entry_of_the_ptx(build: Build, planned_kernels: set[str]) -> None:
    entries = [entry for text in build.ptx.values() for entry in re.findall(r"^\.visible \.entry (\w+)\(", text, re.M)]
    assert sorted(entries) == sorted(planned_kernels)


@pytest.mark.slow
def test_a_kernel_takes_one_parameter_by_value(build: Build) -> None:
    parameters = [text for ptx in build.ptx.values() for text in re.findall(r"\.entry \w+\((.*?)\)", ptx, re.S)]
    assert {re.sub(r"\w+_param_", "param_", text).strip() for text in parameters} == {
        ".param .align 8 .b8 param_0[304]",
        ".param .align 8 .b8 param_0[104]",
    }


@pytest.mark.slow
def test_no_kernel_spills_registers_or_has_a_stack(build: Build) -> None:
    for key, usage in build.usage.items():
        assert (usage.stack_bytes, usage.spill_store_bytes, usage.spill_load_bytes) == (0, 0, 0), (key, usage)


@pytest.mark.slow
def test_kernels_leave_room_for_each_other(build: Build) -> None:
    for (kernel, architecture), usage in build.usage.items():
        limit = MAX_REGISTERS if re.search("_f64_|_count_zero", kernel) else 128
        limit = 255 if re.search("_b?f16_|_tf32_|_mma_", kernel) else limit  # on tensor cores
        assert usage.registers <= limit, (kernel, architecture, usage)
        assert usage.shared_bytes <= 48 * 1024, (kernel, architecture, usage)


def entries_of(ptx: str) -> dict[str, str]:
    """The text of each kernel."""
    pieces = re.split(r"^\.visible \.entry (\w+)\(", ptx, flags=re.MULTILINE)
    return dict(zip(pieces[1::2], pieces[2::2], strict=True))


@pytest.mark.slow
def test_products_are_fused_multiply_adds_only(build: Build) -> None:
    """The lane counter stands for fma.rn: no other instruction does floating-point arithmetic.

    But for the additions of sums that the blocks of a split kernel share, or the threads of one for few outputs.
    """
    kernels = {name: body for text in build.ptx.values() for name, body in entries_of(text).items()}
    for name, body in kernels.items():
        arithmetic = set(re.findall(r"^\s*(?:@!?%p\d+ )?((?:fma|mul|mad|add|sub|div)\.[\w.]*f(?:32|64))\b", body, re.M))
        shares_sums = name.endswith("_split") or "_few_outputs" in name
        additions = {"add.f32", "add.f64"} if shares_sums else set()
        assert arithmetic <= {"fma.rn.f32", "fma.rn.f64"} | additions, name
    assert sum(text.count("fma.rn.f32") for text in build.ptx.values()) > 0


@pytest.mark.parametrize("path", [*SOURCES, *HEADERS], ids=lambda path: path.name)
def test_no_torch_header_is_included(path: Path) -> None:
    assert not re.search(r"#include\s*[<\"](torch|ATen|c10)\b", path.read_text())

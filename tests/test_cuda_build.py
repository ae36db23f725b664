"""What nvcc made of the CUDA kernels: all planned ones are there, and none spills registers. Skips without CUDA."""

from __future__ import annotations

import re
from importlib import resources

import pytest

from flopcuda import _C
from flopcuda.info import ptx_files
from flopcuda.kernels.build import built_usage

pytestmark = pytest.mark.skipif(not _C.cuda_version, reason="flopcuda was built without CUDA")

# 65,536 registers of a multiprocessor: 384 threads and more have room.
MAX_REGISTERS = 168


@pytest.fixture(scope="module")
def ptx() -> str:
    """Of all files."""
    folder = resources.files("flopcuda") / "kernel_ptx"
    return "".join((folder / name).read_text() for name in ptx_files())


def planned_kernels() -> set[str]:
    return {str(kernel["name"]) for kernel in _C.cuda_kernels()}


def architectures() -> set[str]:
    """As the build names them: sm_80 is 8.0 of TORCH_CUDA_ARCH_LIST."""
    entries = re.findall(r"(\d+)\.(\d+)([af]?)", _C.cuda_architectures)
    return {"sm_" + "".join(entry) for entry in entries}


def test_every_planned_kernel_is_compiled_and_no_other() -> None:
    assert planned_kernels()
    assert set(built_usage()) == {(kernel, name) for kernel in planned_kernels() for name in architectures()}


def test_every_planned_kernel_is_an_entry_of_the_ptx(ptx: str) -> None:
    assert sorted(re.findall(r"^\.visible \.entry (\w+)\(", ptx, re.M)) == sorted(planned_kernels())


def test_a_kernel_takes_one_parameter_by_value(ptx: str) -> None:
    parameters = re.findall(r"\.entry \w+\((.*?)\)", ptx, re.S)
    assert {re.sub(r"\w+_param_", "param_", text).strip() for text in parameters} == {
        ".param .align 8 .b8 param_0[800]",
        ".param .align 8 .b8 param_0[104]",
    }


def test_no_kernel_spills_registers_or_has_a_stack() -> None:
    for key, usage in built_usage().items():
        assert (usage.stack_bytes, usage.spill_store_bytes, usage.spill_load_bytes) == (0, 0, 0), (key, usage)


def test_the_compiler_warned_of_nothing() -> None:
    log = (resources.files("flopcuda") / "kernel_ptx" / "ptxas.log").read_text()
    assert "ptxas info" in log
    assert "warning" not in log


def test_kernels_leave_room_for_each_other() -> None:
    for (kernel, architecture), usage in built_usage().items():
        limit = MAX_REGISTERS if re.search("_f64_|_count_zero", kernel) else 128
        limit = 255 if re.search("_b?f16_|_tf32_|_mma_", kernel) else limit  # on tensor cores
        assert usage.registers <= limit, (kernel, architecture, usage)
        assert usage.shared_bytes <= 48 * 1024, (kernel, architecture, usage)


def entries_of(ptx: str) -> dict[str, str]:
    """The text of each kernel."""
    pieces = re.split(r"^\.visible \.entry (\w+)\(", ptx, flags=re.MULTILINE)
    return dict(zip(pieces[1::2], pieces[2::2], strict=True))


def test_products_are_fused_multiply_adds_only(ptx: str) -> None:
    """The lane counter stands for fma.rn: no other instruction does floating-point arithmetic.

    But for the additions of sums that the blocks of a split kernel share, or the threads of one for few outputs.
    """
    for name, body in entries_of(ptx).items():
        arithmetic = set(re.findall(r"^\s*(?:@!?%p\d+ )?((?:fma|mul|mad|add|sub|div)\.[\w.]*f(?:32|64))\b", body, re.M))
        shares_sums = name.endswith("_split") or "_few_outputs" in name
        additions = {"add.f32", "add.f64"} if shares_sums else set()
        assert arithmetic <= {"fma.rn.f32", "fma.rn.f64"} | additions, name
    assert "fma.rn.f32" in ptx

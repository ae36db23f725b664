"""``flopcuda kernels``: facts from ptxas, the machine and the disassembler, and what it says where one is missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from flopcuda import _C, info, kernel_tables, kernels, ptx_backend
from flopcuda.cli import main
from flopcuda.kernels import Catalogue, Usage, catalogue, sass
from flopcuda.kernels.build import built_usage, parse_log
from tests.cuda_kernels import multiplied_lanes

# What ptxas of CUDA 13.0 and of CUDA 12.4 prints, shortened.
LOG = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'first' for 'sm_80'
ptxas info    : Function properties for first
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 117 registers, used 1 barriers, 15560 bytes smem, 520 bytes cmem[0]
ptxas info    : Compile time = 259.676 ms
ptxas info    : Compiling entry function 'second' for 'sm_90a'
ptxas info    : Function properties for second
    64 bytes stack frame, 48 bytes spill stores, 52 bytes spill loads
ptxas info    : Used 32 registers, used 0 barriers, 64 bytes cumulative stack size, 380 bytes cmem[0]
ptxas info    : Compiling entry function 'first' for 'sm_90a'
ptxas info    : Function properties for first
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 40 registers, 380 bytes cmem[0]
"""

needs_kernels = pytest.mark.skipif(not info.ptx_files(), reason="needs CUDA kernels, which nvcc makes")


def plain(content: object) -> str:
    console = Console(width=250)
    with console.capture() as capture:
        console.print(content)
    return capture.get()


def test_ptxas_words_are_read() -> None:
    assert parse_log(LOG) == {
        ("first", "sm_80"): Usage(117, 15560, 0, 0, 0),
        ("second", "sm_90a"): Usage(32, 0, 64, 48, 52),
        ("first", "sm_90a"): Usage(40, 0, 0, 0, 0),
    }


@pytest.fixture(scope="module")
def built() -> Catalogue:
    if not info.ptx_files():
        pytest.skip("needs CUDA kernels, which nvcc makes")
    return catalogue(kernels.built_architectures()[:1])


@pytest.fixture
def unobserved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing runs on the machine, which takes half a minute: what tests say of the rest needs one run."""

    def no_texts() -> None:
        raise RuntimeError("built without nvcc")

    monkeypatch.setattr(ptx_backend, "kernel_texts", no_texts)


def test_every_kernel_was_built_for_every_architecture() -> None:
    names = {entry["name"] for entry in _C.cuda_kernels()}
    expected = {(name, arch) for name in names for arch in kernels.built_architectures()} if info.ptx_files() else set()
    assert set(built_usage()) == expected


def test_the_catalogue_has_every_kernel(built: Catalogue) -> None:
    assert [kernel.name for kernel in built.kernels] == [entry["name"] for entry in _C.cuda_kernels()]
    for kernel in built.kernels:
        (build,) = kernel.builds
        assert build.occupancy is not None
        assert build.occupancy.warps == build.occupancy.blocks * -(-kernel.threads // 32)
        assert build.occupancy.blocks > 0


def test_the_machine_sees_the_products_of_the_problem(built: Catalogue) -> None:
    """Whole tiles of a linear layer: samples times inputs times outputs, and not one lane more.

    Tensor cores that count zeros multiply as many marks of what is no zero besides.
    """
    observed = [kernel for kernel in built.kernels if kernel.operation == "linear"]
    assert observed
    for kernel in observed:
        rows, columns, _ = kernel.tile
        assert kernel.observation is not None
        assert kernel.observation.problem == f"{2 * rows}x256 to {4 * columns} features"
        lanes = multiplied_lanes(kernel.name, 2 * rows * 256 * 4 * columns)
        assert kernel.observation.multiply_add_lanes == lanes


def test_a_tile_reads_as_few_sectors_as_there_can_be(built: Catalogue) -> None:
    """A linear layer's operands and outputs are whole rows of vectors; what is not ideal is a few of them."""
    for kernel in built.kernels:
        assert kernel.observation is not None
        memory, shared = kernel.observation.global_memory, kernel.observation.shared_memory
        assert 0 < memory.ideal <= memory.units
        assert 0 < shared.ideal <= shared.units
        if kernel.operation == "linear":
            assert memory.conflicts < 0.05 * memory.units


@pytest.mark.usefixtures("unobserved")
def test_where_nvcc_was_missing_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "built_usage", dict)
    result = catalogue()
    assert [kernel.name for kernel in result.kernels] == [entry["name"] for entry in _C.cuda_kernels()]
    assert all(kernel.observation is None and kernel.builds == () for kernel in result.kernels)
    text = plain(kernel_tables.catalogue_table(result))
    assert "Registers, occupancy and main loops are unknown" in text
    assert "Nothing was run on the PTX machine: built without nvcc" in text


@needs_kernels
@pytest.mark.usefixtures("unobserved")
def test_where_the_disassembler_is_missing_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sass, "find_tool", lambda name: None)
    result = catalogue()
    assert all(build.main_loop is None for kernel in result.kernels for build in kernel.builds)
    assert "Main loops are unknown: no cuobjdump" in plain(kernel_tables.catalogue_table(result))


@pytest.mark.usefixtures("unobserved")
def test_an_architecture_without_known_limits_has_no_occupancy(monkeypatch: pytest.MonkeyPatch) -> None:
    name = _C.cuda_kernels()[0]["name"]
    usage = {
        (name, "sm_999"): Usage(registers=64, shared_bytes=0, stack_bytes=0, spill_store_bytes=8, spill_load_bytes=4)
    }
    monkeypatch.setattr(kernels, "built_usage", lambda: usage)
    monkeypatch.setattr(kernels, "main_loops", lambda binary, architecture: {})
    result = catalogue()
    (build,) = result.kernels[0].builds
    assert (build.architecture, build.occupancy, build.main_loop) == ("sm_999", None, None)
    row = next(line for line in plain(kernel_tables.catalogue_table(result)).splitlines() if "sm_999" in line)
    assert [cell.strip() for cell in row.split("│")][3:6] == ["64", "0", "12"]


@needs_kernels
def test_the_command_prints_and_writes(built: Catalogue, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What the machine and the disassembler say of each kernel is what they said before."""
    architecture = kernels.built_architectures()[0]
    known = {kernel.name: kernel for kernel in built.kernels}
    loops = {name: kernel.builds[0].main_loop for name, kernel in known.items()}
    monkeypatch.setattr(kernels, "observe", lambda backend, name, *rest: known[name].observation)
    monkeypatch.setattr(kernels, "main_loops", lambda binary, architecture: loops)
    path = tmp_path / "kernels.json"
    result = CliRunner().invoke(main, ["kernels", "--arch", architecture, "--json", str(path)])
    assert result.exit_code == 0, result.output
    written = json.loads(path.read_text())
    assert [kernel["name"] for kernel in written["kernels"]] == [entry["name"] for entry in _C.cuda_kernels()]
    for kernel in written["kernels"]:
        assert kernel["name"] in result.output
        assert [build["architecture"] for build in kernel["builds"]] == [architecture]
        registers = kernel["builds"][0]["usage"]["registers"]
        assert registers == built_usage()[kernel["name"], architecture].registers


def test_an_architecture_that_was_not_built_is_one_sentence() -> None:
    result = CliRunner().invoke(main, ["kernels", "--arch", "sm_13"])
    assert result.exit_code == 2
    assert result.output.startswith("Error: no kernel was built for sm_13; there are ")

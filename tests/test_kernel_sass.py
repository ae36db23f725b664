"""The main loop in machine code: small texts, and what cuobjdump says of the built kernels, where it is installed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from flopcuda import _C, info
from flopcuda.kernels import sass

HEADER = """
Fatbin elf code:
================
arch = sm_80
\tcode for sm_80
\t\tFunction : {name}
\t.headerflags\t@"EF_CUDA_64BIT_ADDRESS EF_CUDA_SM80"
"""
ENCODING = "                                                                   /* 0x000fe40000000f00 */"


def listing(name: str, *instructions: str) -> str:
    """As cuobjdump prints it: an address, the instruction and its encoding in two lines."""
    lines = [
        f"        /*{16 * i:04x}*/  {text} ;   {ENCODING.strip()}\n{ENCODING}" for i, text in enumerate(instructions)
    ]
    return HEADER.format(name=name) + "\n".join(lines) + "\n"


FMA = "FFMA R1, R2, R3, R1"
NESTED = listing(
    "nested",
    "MOV R1, c[0x0][0x28]",
    "IADD3 R9, R9, 0x1, RZ",  # 0x10: head of the outer loop
    FMA,
    "LDS.128 R4, [R8]",  # 0x30: head of the inner loop
    "FFMA.FTZ R1, R4, R5, R1",
    FMA,
    "FFMA R7, -RZ, RZ, 1",  # moves a constant
    "HFMA2.MMA R6, -RZ, RZ, 0, 0",  # likewise
    "ISETP.GE.AND P0, PT, R8, R9, PT",
    "@!P0 BRA 0x30",
    "@P1 BRA 0x10",
    "BRA.U !UP0, 0x80",  # into the middle of the inner loop, from below
    "EXIT",
    "BRA 0xd0",
)


def test_the_innermost_loop_with_multiply_adds_is_the_main_loop() -> None:
    loop = sass.find_main_loop(sass.parse(NESTED)["nested"])
    assert loop == sass.MainLoop(first=0x30, last=0x90, instructions=7, multiply_adds=2)
    assert loop.multiply_add_share == pytest.approx(2 / 7)


def test_a_loop_goes_to_its_last_branch_back() -> None:
    code = sass.parse(listing("continued", FMA, "@P0 BRA 0x0", FMA, FMA, "@P1 BRA 0x0", "EXIT"))["continued"]
    assert sass.find_main_loop(code) == sass.MainLoop(0, 0x40, 5, 3)


def test_of_several_loops_the_one_with_most_multiply_adds() -> None:
    code = sass.parse(listing("two", FMA, "BRA 0x0", FMA, FMA, "BRA 0x20", "MOV R1, R2", "@P0 BRA 0x50"))["two"]
    assert sass.find_main_loop(code) == sass.MainLoop(0x20, 0x40, 3, 2)


def test_without_multiply_adds_in_a_loop_there_is_no_main_loop() -> None:
    code = sass.parse(listing("none", FMA, "MOV R1, R2", "BRA 0x10", "BRA 0x40", "EXIT"))["none"]
    assert sass.find_main_loop(code) is None


def test_functions_are_told_apart() -> None:
    functions = sass.parse(listing("first", FMA) + listing("second", "MOV R1, R2", "EXIT"))
    assert [instruction.opcode for instruction in functions["second"]] == ["MOV", "EXIT"]
    assert functions["first"] == [sass.Instruction(0, "FFMA", ("R1", "R2", "R3", "R1"))]


def test_without_a_disassembler_it_says_where_it_looked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sass, "find_tool", lambda name: None)
    with pytest.raises(sass.NoDisassemblerError, match="no cuobjdump in CUDA_HOME, on PATH"):
        sass.main_loops(tmp_path, "sm_80")


def test_the_tool_in_cuda_home_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    tool = tmp_path / "bin" / "cuobjdump"
    tool.touch()
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    assert sass.find_tool("cuobjdump") == tool


needs_disassembler = pytest.mark.skipif(
    not (info.ptx_files() and sass.find_tool("cuobjdump")), reason="needs CUDA kernels and cuobjdump"
)


@needs_disassembler
def test_a_file_without_kernels_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "nothing.so"
    path.write_bytes(b"nothing")
    with pytest.raises(RuntimeError, match=r"cuobjdump cannot read nothing\.so for sm_80"):
        sass.main_loops(path, "sm_80")


@pytest.fixture(scope="module")
def loops() -> dict[str, sass.MainLoop]:
    """Of the kernels as built for sm_80; to disassemble them takes long."""
    if "8.0" not in _C.cuda_architectures:
        pytest.skip("not built for sm_80")
    return sass.main_loops(Path(_C.__file__), "sm_80")


@needs_disassembler
def test_the_planner_compares_kernels_by_the_shares_in_the_code(loops: dict[str, sass.MainLoop]) -> None:
    """tiles.h says, for each kernel, the share of multiply-adds in its main loop on sm_80.

    Its split twin's is no smaller.
    """
    tiles_h = (Path(__file__).parents[1] / "csrc/cuda/tiles.h").read_text()
    claims = re.findall(r"^ *X\((\w+), ([\d.]+),", tiles_h, re.MULTILINE)
    kernels = {str(kernel["name"]): kernel for kernel in _C.cuda_kernels()}
    assert {name for name, _ in claims} == {name for name in kernels if not name.endswith(("_count_zero", "_split"))}
    # Of a lane in one instruction: 16 x 8 x 16 / 32, and less of larger types.
    products = {"mma_f16": 64, "mma_tf32": 32, "mma_f64": 8}
    for name, share in claims:
        assert loops[name].multiply_add_share == pytest.approx(float(share), abs=0.006), name
        split = loops.get(f"{name}_split", loops[name])
        assert split.multiply_add_share > float(share) - 0.006, name
        rows, columns, depth = kernels[name]["tile"]
        if rows > 1:  # a step of the loop multiplies a slice of one thread tile
            lanes = loops[name].multiply_adds * products.get(kernels[name]["unit"], 1)
            assert lanes == rows * columns * depth // kernels[name]["threads"]


@needs_disassembler
def test_float32_main_loops_are_as_lean_as_cutlass(loops: dict[str, sass.MainLoop]) -> None:
    """CUTLASS's SIMT 128x128x8 has 512 multiply-adds of 630 instructions (0.813) on sm_80: benchmarks/sass.json."""
    product, convolution = (loops[f"flopcuda_{op}_f32_128x128x16"].multiply_add_share for op in ("linear", "conv"))
    assert product >= 0.88
    assert convolution >= 0.85
    assert product - convolution <= 0.05


@needs_disassembler
def test_tensor_core_main_loops_are_as_lean_as_cutlass(loops: dict[str, sass.MainLoop]) -> None:
    """CUTLASS's 128x128x32 with 4 stages has 64 HMMA of 162 instructions (0.395) on sm_80: benchmarks/sass.json.

    A convolution's main loop is that of the slices of one tap: the step to the next tap lies outside of it.
    """
    for tile, share in (("f16_128x128x32", 0.5), ("bf16_128x128x32", 0.5), ("tf32_128x128x16", 0.47)):
        product, convolution = loops[f"flopcuda_linear_{tile}"], loops[f"flopcuda_conv_{tile}"]
        assert product.multiply_adds == convolution.multiply_adds == 64
        assert product.multiply_add_share >= share
        assert convolution.multiply_add_share >= 0.5

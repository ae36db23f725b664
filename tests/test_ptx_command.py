"""``flopcuda ptx``: what it prints, writes and refuses, with hand-written kernels whose results numpy knows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from flopcuda.cli import main
from tests.ptxvm.harness import compile_cuda, kernel, needs_nvcc

# y[i] = a x[i] + y[i] for i < n; and a kernel whose threads write words of shared memory on one bank, 128 bytes apart,
# and then read the first of them with no barrier between.
MODULE = """\
.version 8.0
.target sm_80
.address_size 64
.visible .entry saxpy(.param .u32 n, .param .f32 a, .param .u64 x, .param .u64 y)
{
  .reg .pred %p; .reg .b32 %r<5>; .reg .f32 %f<4>; .reg .b64 %d<4>;
  mov.u32 %r0, %ctaid.x; mov.u32 %r1, %ntid.x; mov.u32 %r2, %tid.x;
  mad.lo.u32 %r3, %r0, %r1, %r2;
  ld.param.u32 %r4, [n];
  setp.ge.u32 %p, %r3, %r4;
  @%p bra done;
  ld.param.u64 %d0, [x]; ld.param.u64 %d1, [y]; ld.param.f32 %f0, [a];
  mul.wide.u32 %d2, %r3, 4;
  add.u64 %d0, %d0, %d2; add.u64 %d1, %d1, %d2;
  ld.global.f32 %f1, [%d0];
  ld.global.f32 %f2, [%d1];
  fma.rn.f32 %f3, %f0, %f1, %f2;
  st.global.f32 [%d1], %f3;
done:
  ret;
}
.visible .entry conflict(.param .u64 out)
{
  .reg .b32 %r<4>; .reg .b64 %d<3>;
  .shared .align 4 .b8 words[8192];
  mov.u32 %r0, %tid.x;
  mov.u32 %r1, words;
  mad.lo.u32 %r2, %r0, 128, %r1;
  st.shared.u32 [%r2], %r0;
  ld.param.u64 %d0, [out];
  ld.shared.u32 %r3, [words];
  mul.wide.u32 %d1, %r0, 4; add.u64 %d2, %d0, %d1;
  st.global.u32 [%d2], %r3;
  ret;
}
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "module.ptx"
    path.write_text(MODULE)
    return str(path)


def flopcuda(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def run_saxpy(file: str, *options: object) -> Result:
    arrays = ["--arg", "100", "--arg", "f32:2", "--arg", "arange:f32:100", "--arg", "ones:f32:100"]
    return flopcuda("ptx", "run", file, "saxpy", "--grid", "4", "--block", "32", *arrays, *options)


def cells(output: str, first: str) -> list[str]:
    """The cells of the table row whose first cell starts with these words."""
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in output.splitlines() if "│" in line]
    return next(row for row in rows if row[0].startswith(first))


def test_list_names_kernels_and_parameters(file: str) -> None:
    result = flopcuda("ptx", "list", file)
    assert result.exit_code == 0
    assert "PTX 8.0 for sm_80" in result.output
    assert cells(result.output, "saxpy")[:2] == ["saxpy", "0: u32"]
    assert all(text in result.output for text in ("1: f32", "2: u64", "3: u64"))
    assert cells(result.output, "conflict")[2] == "8,192"


def test_a_run_computes_and_saves(file: str, tmp_path: Path) -> None:
    saved = tmp_path / "y.npy"
    result = run_saxpy(file, "--save", f"3={saved}")
    assert result.exit_code == 0
    np.testing.assert_array_equal(np.load(saved), 2 * np.arange(100, dtype=np.float32) + 1)


def test_a_run_says_what_was_executed(file: str) -> None:
    """Four warps; the last has 4 of its 32 lanes inside, which diverge from the others."""
    output = run_saxpy(file).output
    assert "grid 4, block 32" in output
    assert "100 f32" in output
    assert "4 conditional, 1 diverged" in output
    assert cells(output, "fma.rn.f32")[1] == "100"
    assert cells(output, "setp.ge.u32")[1] == "128"
    # 400 bytes in 13 sectors; the second array is read too.
    loads = next(line for line in output.splitlines() if "ld.global.f32" in line and "global │" in line)
    assert [cell.strip() for cell in loads.split("│")][3:5] == ["8", "26"]
    assert "ok: no finding" in output


def test_the_only_kernel_needs_no_name(file: str, tmp_path: Path) -> None:
    single = tmp_path / "single.ptx"
    single.write_text(MODULE.split(".visible .entry conflict")[0])
    arguments = ["--arg", "1", "--arg", "1", "--arg", "ones:f32:1", "--arg", "ones:f32:1"]
    assert flopcuda("ptx", "run", single, "--block", "1", *arguments).exit_code == 0
    result = flopcuda("ptx", "run", file, "--block", "1", *arguments)
    assert result.exit_code == 2
    assert "saxpy, conflict" in result.output


def test_conflicts_and_findings_are_shown(file: str) -> None:
    result = flopcuda("ptx", "run", file, "conflict", "--block", "64", "--arg", "zeros:u32:64")
    assert result.exit_code == 1
    assert "FAILED: 2 findings" in result.output  # both ends of the race
    assert "race: conflict" in result.output
    # Each warp's store takes 32 wavefronts where one would do.
    stores = next(line for line in result.output.splitlines() if "st.shared.u32" in line and "shared │" in line)
    assert [cell.strip() for cell in stores.split("│")][3:8] == ["2", "64", "32.00", "1.00", "62 (96.9%)"]


def test_checks_can_be_chosen(file: str) -> None:
    options = ["ptx", "run", file, "conflict", "--block", "64", "--arg", "zeros:u32:64"]
    assert flopcuda(*options, "--no-checks").exit_code == 0
    assert flopcuda(*options, "--check", "bounds").exit_code == 0
    assert flopcuda(*options, "--check", "bounds", "--check", "race").exit_code == 1
    assert flopcuda(*options, "--check", "race", "--no-checks").exit_code == 2


def test_json_holds_everything(file: str, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    assert run_saxpy(file, "--json", path).exit_code == 0
    written = json.loads(path.read_text())
    assert (written["kernel"], written["grid"], written["block"]) == ("saxpy", [4], [32])
    assert written["counts"]["fma.rn.f32"] == 100
    assert written["fma_lanes"] == {"f32": 100}
    assert written["global_memory"] == {"requests": 12, "units": 39, "ideal": 39}
    assert written["lane_instructions"] == sum(row["lanes"] for row in written["rows"])
    assert written["findings"] == []


def test_an_access_out_of_bounds_names_the_argument(file: str) -> None:
    arrays = ["--arg", "100", "--arg", "f32:2", "--arg", "arange:f32:96", "--arg", "ones:f32:100"]
    result = flopcuda("ptx", "run", file, "saxpy", "--grid", "4", "--block", "32", *arrays)
    assert result.exit_code == 1
    assert "bounds: saxpy" in result.output
    assert "argument 2" in result.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--block", "32"], "4 arguments are needed, not 0"),
        (["--block", "32", "--arg", "five"], "is no number"),
        (["--block", "2048", *["--arg", "1"] * 4], "block"),
        (["--block", "32", *["--arg", "f64:1"] * 4], "argument 0 has 8 bytes, not 4"),
        (["--block", "32", *["--arg", "1"] * 4, "--save", "0=x.npy"], "argument 0 is no array; the arrays are none"),
        (["--block", "32", *["--arg", "1"] * 4, "--save", "x.npy"], "INDEX=FILE.npy"),
        (["--block", "0"], "is no extent"),
        (["--block", "1,2,3,4"], "is no extent"),
        (["--block", "32", "--check", "spelling"], "race"),
        (["--grid", "1"], "Missing option '--block'"),
    ],
)
def test_what_cannot_run_is_one_sentence_and_exit_status_2(file: str, arguments: list[str], words: str) -> None:
    result = flopcuda("ptx", "run", file, "saxpy", *arguments)
    assert result.exit_code == 2
    assert words in result.output
    assert "Traceback" not in result.output


def test_a_wrong_kernel_name_lists_those_that_exist(file: str) -> None:
    result = flopcuda("ptx", "run", file, "daxpy", "--block", "32")
    assert result.exit_code == 2
    assert result.output.strip() == "Error: no kernel is called 'daxpy': the module has saxpy, conflict"


@pytest.mark.parametrize("command", [["list"], ["run", "--block", "1"]])
def test_a_file_that_is_no_ptx_names_the_line(tmp_path: Path, command: list[str]) -> None:
    path = tmp_path / "broken.ptx"
    path.write_text(MODULE.replace("fma.rn.f32", "fuse.rn.f32"))
    result = flopcuda("ptx", *command, path)
    assert result.exit_code == 2
    assert "fuse.rn.f32" in result.output
    assert "saxpy" in result.output
    assert len(result.output.strip().splitlines()) == 1
    assert flopcuda("ptx", *command, tmp_path / "missing.ptx").exit_code == 2


def test_a_runaway_is_stopped_by_the_budget(tmp_path: Path) -> None:
    path = tmp_path / "spin.ptx"
    path.write_text(kernel("again: bra again;", name="spin"))
    result = flopcuda("ptx", "run", path, "--block", "1", "--budget", "1000")
    assert result.exit_code == 1
    assert "runaway: spin" in result.output
    assert "stopped early" in result.output


def test_the_seed_changes_the_order_of_blocks(tmp_path: Path) -> None:
    """Each block takes a ticket."""
    body = """
      .reg .b32 %r<3>; .reg .b64 %d<4>;
      ld.param.u64 %d0, [tickets]; ld.param.u64 %d1, [counter]; mov.u32 %r0, %ctaid.x;
      atom.global.add.u32 %r1, [%d1], 1;
      mul.wide.u32 %d2, %r0, 4; add.u64 %d3, %d0, %d2; st.global.u32 [%d3], %r1; ret;
    """
    path, saved = tmp_path / "tickets.ptx", tmp_path / "tickets.npy"
    path.write_text(kernel(body, ".param .u64 tickets, .param .u64 counter"))
    run = ["ptx", "run", path, "--block", "1", "--grid", "64", "--threads", "1", "--save", f"0={saved}"]
    arrays = ["--arg", "zeros:u32:64", "--arg", "zeros:u32:1"]
    orders = []
    for seed in ([], ["--seed", "1"], ["--seed", "2"], ["--seed", "1"]):
        assert flopcuda(*run, *arrays, *seed).exit_code == 0
        orders.append(np.load(saved).tolist())
    assert orders[0] == list(range(64))
    assert all(sorted(order) == orders[0] for order in orders)
    assert orders[1] == orders[3]
    assert len({tuple(order) for order in orders}) == 3


@needs_nvcc
def test_source_lines_and_printed_text(tmp_path: Path) -> None:
    source = """\
#include <cstdio>
__global__ void scale(float* x) {
  if (threadIdx.x == 1) printf("lane %d\\n", threadIdx.x);
  x[threadIdx.x * 2] = x[threadIdx.x * 2] * 2.0f + 1.0f;
}
"""
    path = tmp_path / "scale.ptx"
    path.write_text(compile_cuda(source, "-lineinfo"))
    result = flopcuda("ptx", "run", path, "--block", "32", "--arg", "ones:f32:64", "--by-line")
    assert result.exit_code == 0, result.output
    assert "Printed by the kernel\nlane 1\n" in result.output
    assert cells(result.output, "kernel.cu:4")[4:6] == ["32", "8.00 (ideal 4.00)"]


def test_without_line_information_it_says_so(file: str) -> None:
    assert "without nvcc -lineinfo" in run_saxpy(file, "--by-line").output

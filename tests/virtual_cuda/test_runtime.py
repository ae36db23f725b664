"""CUDA programs on the virtual device.

What a scenario expects of CUDA stands in the program itself; here is what the settings change, and what is printed.
"""

from __future__ import annotations

import ctypes
import json
import re

import pytest

from tests.ptxvm.harness import needs_nvcc
from tests.virtual_cuda.programs import (
    PTX_ONLY,
    compile_program,
    needs_libraries,
    nvidias_runtime,
    run,
    scenario,
    scenarios,
)

pytestmark = [needs_nvcc, needs_libraries]

SETTINGS: dict[str, dict[str, object]] = {
    "the_end_of_memory": {"MEMORY": 1 << 20},
    "endless_loop": {"BUDGET": 100_000},
}
TESTED_BY_ITS_OUTPUT = {"output_of_a_kernel", "names_and_sentences"}
SCENARIOS = [
    (program, name)
    for program in ("kernels", "memory", "streams", "captures", "graphs", "errors", "driver")
    for name in scenarios(program)
    if name not in TESTED_BY_ITS_OUTPUT
]


@pytest.mark.parametrize(("program", "name"), SCENARIOS)
def test_scenario(program: str, name: str) -> None:
    scenario(program, name, SETTINGS.get(name))


@pytest.mark.parametrize("name", scenarios("devices"))
def test_scenario_of_two_devices(name: str) -> None:
    scenario("devices", name, {"DEVICES": 2})


@pytest.mark.parametrize("threads", [1, 3])
def test_a_cooperative_grid_does_not_depend_on_the_number_of_threads(threads: int) -> None:
    scenario("kernels", "cooperative_grid", {"THREADS": threads, "SEED": 7})


def test_output_of_a_kernel_stands_between_the_hosts_own() -> None:
    lines = scenario("kernels", "output_of_a_kernel")
    assert lines == ["before", "thread 0 of it:  0.75", "thread 1 of it:  0.75", "after"]


COMPRESSIONS = {
    "zstd": ["--compress-mode=size"],
    "LZ4": ["--compress-mode=speed"],
    "none": ["--no-compress"],
}


@pytest.mark.parametrize("mode", COMPRESSIONS)
def test_ptx_is_found_in_a_fat_binary(mode: str) -> None:
    program = compile_program("kernels", (*PTX_ONLY, *COMPRESSIONS[mode]))
    assert run(program, "arguments_of_every_size").returncode == 0


def test_the_ptx_that_fits_the_device_best_is_taken() -> None:
    flags = [f"-gencode=arch=compute_{number},code=compute_{number}" for number in (75, 80, 90)]
    program = compile_program("architecture", tuple(flags))
    for device, ptx in ((75, 75), (80, 80), (86, 80), (90, 90), (120, 90)):
        assert run(program, "of_the_ptx", settings={"ARCH": device}).stdout == f"{ptx}\n"


def test_ptx_beyond_the_device_is_taken_if_there_is_no_other() -> None:
    program = compile_program("architecture", ("-gencode=arch=compute_90,code=compute_90",))
    assert run(program, "of_the_ptx", settings={"ARCH": 80}).stdout == "90\n"


def test_machine_code_alone_can_not_be_run() -> None:
    program = compile_program("architecture", ("-gencode=arch=compute_80,code=sm_80",))
    assert run(program, "of_the_ptx").stdout == "cudaErrorNoKernelImageForDevice\n"


# ---- errors ----


def test_a_fault_is_explained_on_standard_error() -> None:
    done = run(compile_program("errors"), "out_of_bounds")
    assert re.search(
        r"write_at.*block \(0, 0, 0\), thread \(0, 0, 0\): writes 4 bytes at 0x\w+, 0 bytes after device "
        r"memory \(8 bytes\)",
        done.stderr,
    )


def test_errors_have_the_names_and_sentences_of_cudas_own_library() -> None:
    library = ctypes.CDLL(str(nvidias_runtime()))
    library.cudaGetErrorName.restype = library.cudaGetErrorString.restype = ctypes.c_char_p
    for line in scenario("errors", "names_and_sentences"):
        code, text = line.split(" ", 1)
        name, sentence = library.cudaGetErrorName(int(code)), library.cudaGetErrorString(int(code))
        assert text == f"{name.decode()}|{sentence.decode()}"


@pytest.mark.parametrize(
    ("name", "value"), [("ARCH", "81"), ("MEMORY", "8G"), ("CHECKS", "bounds,nonsense"), ("DEVICES", "-1")]
)
def test_a_setting_that_can_not_be_is_one_sentence(name: str, value: str) -> None:
    done = run(compile_program("kernels"), "occupancy", settings={name: value})
    assert done.returncode == 1
    assert re.fullmatch(rf"flopcuda virtual CUDA: FLOPCUDA_VCUDA_{name} must be .*, not '{value}'\n", done.stderr)


def test_without_a_device() -> None:
    done = run(compile_program("errors"), "null_pointer", settings={"DEVICES": 0})
    assert done.stdout.endswith("cudaErrorNoDevice\n")


# ---- records ----


def test_launches_are_recorded() -> None:
    record = json.loads("".join(scenario("records", "launches")))
    first, second = record["launches"]
    assert record["total"] == 2
    assert first["kernel"] == second["kernel"] == "_Z5fusedPfi"
    assert (first["grid"], first["block"]) == ([2, 1, 1], [64, 1, 1])
    assert first["fma_lanes"] == {"f32": 100}
    assert second["fma_lanes"] == {"f32": 32}
    assert first["global_requests"] == 2 * 4  # a load and a store by each of the warps that hold some of 100 lanes
    assert first["findings"] == 0
    assert first["lane_instructions"] > second["lane_instructions"] > 32


def test_findings_are_recorded() -> None:
    findings = json.loads("".join(scenario("records", "findings")))
    by_kernel = {kernel: {f["kind"] for f in findings if kernel in f["kernel"]} for kernel in ("race", "fused")}
    assert "race" in by_kernel["race"]
    assert by_kernel["fused"] == {"bounds"}
    bounds = next(finding for finding in findings if finding["kind"] == "bounds")
    assert bounds["address"] < 128
    assert bounds["count"] == 32
    assert "ld.global" in bounds["text"] or "st.global" in bounds["text"]


def test_checks_can_be_left_out() -> None:
    findings = json.loads("".join(scenario("records", "findings", {"CHECKS": "none"})))
    assert {finding["kind"] for finding in findings} == {"bounds"}  # which hardware notices, too


def test_functions_that_are_not_there_are_recorded() -> None:
    before, after = map(json.loads, scenario("records", "unsupported"))
    assert before == ["cudaMallocArray"]
    assert after == []

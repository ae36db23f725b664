"""Occupancy: published examples, and NVIDIA's own calculator (cuda_occupancy.h, where it is installed)."""

from __future__ import annotations

import ctypes
import subprocess
import sysconfig
from pathlib import Path

import numpy as np
import pytest

from flopcuda.kernels.occupancy import MULTIPROCESSORS, occupancy

# As devices of these compute capabilities report them: threads and bytes of shared memory of a multiprocessor, of a
# block at most, and reserved for the system in a block.
DEVICES = {
    "sm_75": (1024, 65_536, 65_536, 0),
    "sm_80": (2048, 167_936, 166_912, 1024),
    "sm_86": (1536, 102_400, 101_376, 1024),
    "sm_87": (1536, 167_936, 166_912, 1024),
    "sm_89": (1536, 102_400, 101_376, 1024),
    "sm_90": (2048, 233_472, 232_448, 1024),
    "sm_100": (2048, 233_472, 232_448, 1024),
    "sm_103": (2048, 233_472, 232_448, 1024),
    "sm_110": (1536, 233_472, 232_448, 1024),
    "sm_120": (1536, 102_400, 101_376, 1024),
    "sm_121": (1536, 102_400, 101_376, 1024),
}

CALCULATOR = """
#include <cuda_occupancy.h>
extern "C" int blocks(int capability, int sm_threads, int sm_shared, int block_shared, int reserved, int threads,
                      int registers, int shared, unsigned* limits) {
  cudaOccDeviceProp device;
  device.computeMajor = capability / 10;
  device.computeMinor = capability % 10;
  device.maxThreadsPerBlock = 1024;
  device.maxThreadsPerMultiprocessor = sm_threads;
  device.regsPerBlock = device.regsPerMultiprocessor = 65536;
  device.warpSize = 32;
  device.sharedMemPerBlock = 49152;
  device.sharedMemPerMultiprocessor = sm_shared;
  device.sharedMemPerBlockOptin = block_shared;
  device.reservedSharedMemPerBlock = reserved;
  device.numSms = 1;
  cudaOccFuncAttributes kernel;
  kernel.maxThreadsPerBlock = 1024;
  kernel.numRegs = registers;
  kernel.sharedSizeBytes = 0;
  kernel.partitionedGCConfig = PARTITIONED_GC_OFF;
  kernel.shmemLimitConfig = FUNC_SHMEM_LIMIT_OPTIN;
  kernel.maxDynamicSharedSizeBytes = shared;
  kernel.numBlockBarriers = 1;
  cudaOccDeviceState state;
  cudaOccResult result;
  if (cudaOccMaxActiveBlocksPerMultiprocessor(&result, &device, &kernel, &state, threads, shared)) return -1;
  *limits = result.limitingFactors;
  return result.activeBlocksPerMultiprocessor;
}
"""
LIMITS = {"warps": 1, "registers": 2, "shared memory": 4, "blocks": 8}


@pytest.mark.parametrize(
    ("threads", "blocks", "share", "limited_by"),
    [(128, 12, 0.75, "registers"), (320, 4, 0.625, "registers")],
)
def test_example_of_the_best_practices_guide(threads: int, blocks: int, share: float, limited_by: str) -> None:
    """37 registers a thread: "75% occupancy with 12 active 128-thread blocks", "only four 320-thread blocks", 63%.

    The guide speaks of compute capability 7.0, whose warps, blocks and registers are those of 8.0.
    """
    result = occupancy("sm_80", threads, 37, 0)
    assert (result.blocks, result.share, result.limited_by) == (blocks, share, limited_by)


@pytest.mark.parametrize(
    ("architecture", "arguments", "blocks", "limited_by"),
    [
        ("sm_80", (1024, 32, 0), 2, "warps"),
        ("sm_80", (32, 16, 0), 32, "blocks"),
        ("sm_86", (32, 16, 0), 16, "blocks"),
        ("sm_86", (1024, 32, 0), 1, "warps"),
        ("sm_80", (256, 64, 0), 4, "registers"),
        ("sm_80", (64, 32, 163 * 1024), 1, "shared memory"),
        ("sm_80", (64, 32, 163 * 1024 + 1), 0, "shared memory"),
        ("sm_90", (64, 32, 227 * 1024), 1, "shared memory"),
        ("sm_90a", (128, 168, 0), 3, "registers"),
        ("sm_75", (64, 32, 48 * 1024), 1, "shared memory"),
        ("sm_80", (1025, 16, 0), 0, "warps"),
        ("sm_80", (64, 256, 0), 0, "registers"),
    ],
)
def test_each_limit(architecture: str, arguments: tuple[int, int, int], blocks: int, limited_by: str) -> None:
    result = occupancy(architecture, *arguments)
    assert (result.blocks, result.limited_by) == (blocks, limited_by)


def test_an_unknown_architecture_is_refused() -> None:
    with pytest.raises(ValueError, match="limits of sm_42 are not known"):
        occupancy("sm_42", 128, 32, 0)


def find_header() -> Path | None:
    packages = Path(sysconfig.get_path("purelib"))
    folders = [
        *sorted(packages.glob("nvidia/*/include")),
        packages / "triton/backends/nvidia/include",
        *sorted(Path("/usr/local").glob("cuda*/include")),
    ]
    return next((folder for folder in folders if (folder / "cuda_occupancy.h").is_file()), None)


@pytest.fixture(scope="module")
def calculator(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    include = find_header()
    if include is None:
        pytest.skip("needs cuda_occupancy.h")
    folder = tmp_path_factory.mktemp("occupancy")
    source, library = folder / "calculator.cpp", folder / "calculator.so"
    source.write_text(CALCULATOR)
    subprocess.run(["c++", "-w", "-shared", "-fPIC", f"-I{include}", str(source), "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))


def test_devices_are_those_that_the_table_has() -> None:
    assert set(DEVICES) == set(MULTIPROCESSORS)


@pytest.mark.parametrize("architecture", MULTIPROCESSORS)
def test_nvidias_calculator_agrees(calculator: ctypes.CDLL, architecture: str) -> None:
    generator = np.random.default_rng(0)
    capability, device = int(architecture[3:]), DEVICES[architecture]
    seen = set()
    for _ in range(3000):
        threads = int(generator.integers(1, 1025))
        registers = int(generator.integers(1, 256))
        shared = int(generator.integers(0, device[2] // int(generator.integers(1, 40)) + 1))
        limits = ctypes.c_uint()
        expected = calculator.blocks(capability, *device, threads, registers, shared, ctypes.byref(limits))
        assert expected >= 0
        result = occupancy(architecture, threads, registers, shared)
        assert result.blocks == expected, (threads, registers, shared)
        assert LIMITS[result.limited_by] & limits.value, (threads, registers, shared)
        seen.add(result.limited_by)
    assert seen == set(LIMITS)

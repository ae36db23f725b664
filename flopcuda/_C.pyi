# Types of the extension module that csrc/torch/module.cpp defines.
from typing import Any

cuda_version: str
cuda_architectures: str

def cpu_isa() -> str: ...
def select_cpu_isa(name: str) -> None: ...
def kept_weight_bytes() -> int: ...
def last_launch() -> tuple[str, int, float | None]: ...
def cuda_kernels() -> list[dict[str, Any]]: ...
def device_rates(capability: int, name: str = "") -> list[float]: ...
def device_properties(
    name: str, capability: int, multiprocessors: int, hertz: float, bandwidth: float
) -> dict[str, Any]: ...

class WeightsAreKept: ...

# What the planner knows of devices (csrc/cuda/device.h), by unit in the order of UNITS.
UNITS: list[str]
INSTRUCTION_MACS: list[int]
SCHEDULERS: int
SLICE_LATENCY: float
FILL_LATENCY: float
LAUNCH_SECONDS: float
BANDWIDTH_SHARE: float
SPLIT_BYTES: float
SPLIT_LATENCY: float
RESIDENT_THREADS: int

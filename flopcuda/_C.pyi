# Types of the extension module that csrc/torch/module.cpp defines.
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

cuda_version: str
cuda_architectures: str

def cpu_isa() -> str: ...
def select_cpu_isa(name: str) -> None: ...
def kept_weight_bytes() -> int: ...
def cuda_kernels() -> list[dict[str, Any]]: ...
def device_rates(capability: int, name: str = "") -> list[float]: ...
def device_properties(
    name: str, capability: int, multiprocessors: int, hertz: float, bandwidth: float
) -> dict[str, Any]: ...

class WeightsAreKept: ...

class UnseenModules:
    def __init__(self, mode: TorchDispatchMode, methods: dict[type[nn.Module], dict[str, Any]]) -> None: ...
    def see_again(self) -> None: ...

def module_call(original: Callable[..., Any]) -> Callable[..., Any]: ...
def watch_calls(watched: Callable[..., Any] | None, unseen: UnseenModules | None) -> None: ...

# The switches of oneDNN and cuDNN (csrc/torch/libraries.h).
def take_libraries() -> None: ...
def give_back_libraries() -> None: ...
def allow_libraries(allowed: bool) -> None: ...
def let_libraries_compute() -> None: ...
def keep_libraries_out() -> None: ...

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

# Of flopcuda.ops's operators, with their arguments, none left out but a triangle, and allow_tf32. Output, counters,
# kernel, seconds, splits, wave efficiency: flopcuda.backends.Execution says what they are.
_Launch = Callable[..., tuple[Tensor, Tensor | tuple[int, ...], str, float, int, float | None]]
launch_conv2d: _Launch
launch_conv3d: _Launch
launch_linear: _Launch
launch_matmul: _Launch

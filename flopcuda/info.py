"""What is installed, what was built and what runs here."""

from __future__ import annotations

import importlib.metadata
import platform
from importlib import resources

import torch

from flopcuda import _C


def info() -> dict[str, str]:
    """Versions, build, devices and the CPU's instruction set, as printed by ``flopcuda info``."""
    return {
        "flopcuda": importlib.metadata.version("flopcuda"),
        "Python": platform.python_version(),
        "torch": torch.__version__,
        "torch's CUDA": torch.version.cuda or "none (a CPU build)",
        "built with CUDA": _C.cuda_version or "no: CPU kernels only (nvcc was not found, or FLOPCUDA_CUDA=0)",
        "built for": _C.cuda_architectures or "the CPU only",
        "PTX files": ", ".join(ptx_files()) or "none",
        "CPU kernels": f"{_C.cpu_isa()}, {torch.get_num_threads()} threads",
        "GPUs": ", ".join(_gpus()) or "none",
    }


def ptx_files() -> list[str]:
    """Names of the kernels' PTX files that the build left in the package."""
    folder = resources.files("flopcuda") / "kernel_ptx"
    names = [file.name for file in folder.iterdir()] if folder.is_dir() else []
    return sorted(name for name in names if name.endswith(".ptx"))


def _gpus() -> list[str]:
    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]

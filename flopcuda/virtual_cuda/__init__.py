"""A CUDA device without a GPU: any program runs with ``device="cuda"`` on a device that executes PTX on the CPU.

    python -m flopcuda.virtual_cuda script.py ...     # or -m MODULE, or -c CODE
    flopcuda validate resnet18 --device cuda --virtual-cuda
    pytest --virtual-cuda

Each starts the interpreter anew with replacements for NVIDIA's libraries loaded first, so that torch and its extensions
find one device, or as many as wanted. Kernels that come as PTX are executed and checked; torch's own operators, which
come as machine code only, run on the CPU over the same memory (see :mod:`flopcuda.virtual_cuda.operators`).
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["is_active", "is_virtual", "label"]


@cache
def is_active() -> bool:
    """Whether this process was started under the virtual device: its CUDA devices are none of hardware."""
    return hasattr(ctypes.CDLL(None), "flopcuda_vcuda_version")


def is_virtual(device: torch.device) -> bool:
    """Whether a device is a virtual one, whose times say nothing of a GPU."""
    return device.type == "cuda" and is_active()


def label(device: torch.device) -> str:
    """A device as reports name it: ``cuda:0``, or ``cuda:0 (virtual)``."""
    return f"{device} (virtual)" if is_virtual(device) else str(device)

"""CUDA graph capture on a virtual device: what runs on the host is recorded as a host function of the graph."""

from __future__ import annotations

import ctypes
import traceback
from collections.abc import Callable

import torch

# Never emptied: nothing tells when the last graph that may call a function is gone.
_recorded: list[Callable[[], None]] = []


_ASSERTION_FAILED = 710  # cudaErrorAssert

_HostFunction = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


@_HostFunction  # type: ignore[untyped-decorator]
def _run_recorded(index: int | None) -> None:
    """What fails in a replay fails as a device-side assertion: the device is lost, and the reason printed."""
    try:
        _recorded[index or 0]()
    except Exception:
        traceback.print_exc()
        ctypes.CDLL(None).flopcuda_vcuda_fail(_ASSERTION_FAILED)


def record(function: Callable[[], None], stream: torch.cuda.Stream) -> None:
    """Let the graph that the stream is captured into call a function at each replay."""
    _recorded.append(function)
    launch = ctypes.CDLL(None).cudaLaunchHostFunc
    launch.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
    torch.cuda.check_error(launch(stream.cuda_stream, _run_recorded, len(_recorded) - 1))

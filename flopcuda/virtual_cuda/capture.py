"""CUDA graph capture on a virtual device: what runs on the host is recorded as a host function of the graph."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import torch

# Never emptied: nothing tells when the last graph that may call a function is gone.
_recorded: list[Callable[[], None]] = []


_HostFunction = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_run_recorded = _HostFunction(lambda index: _recorded[index or 0]())


def record(function: Callable[[], None], stream: torch.cuda.Stream) -> None:
    """Let the graph that the stream is captured into call a function at each replay."""
    _recorded.append(function)
    launch = ctypes.CDLL(None).cudaLaunchHostFunc
    launch.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
    torch.cuda.check_error(launch(stream.cuda_stream, _run_recorded, len(_recorded) - 1))

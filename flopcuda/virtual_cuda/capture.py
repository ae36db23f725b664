"""CUDA graph capture on a virtual device: what runs on the host is recorded as a host function of the graph."""

from __future__ import annotations

import ctypes
import itertools
import traceback
from collections.abc import Callable
from functools import cache

import torch

_numbers = itertools.count(1)
_recorded: dict[int, Callable[[], None]] = {}  #: by number; those of graphs that are alive

_ASSERTION_FAILED = 710  # cudaErrorAssert
_NO_DESTRUCTOR_SYNC = 1  # cudaUserObjectNoDestructorSync, the only flag there is
_MOVE = 1  # cudaGraphUserObjectMove

_HostFunction = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


@_HostFunction  # type: ignore[untyped-decorator]
def _run_recorded(number: int) -> None:
    """What fails in a replay fails as a device-side assertion: the device is lost, and the reason printed."""
    try:
        _recorded[number]()
    except Exception:
        traceback.print_exc()
        _runtime().flopcuda_vcuda_fail(_ASSERTION_FAILED)


@_HostFunction  # type: ignore[untyped-decorator]
def _forget_recorded(number: int) -> None:
    del _recorded[number]


def record(function: Callable[[], None], stream: torch.cuda.Stream) -> None:
    """Let the graph that the stream is captured into call a function at each replay, and keep it that long."""
    number = next(_numbers)
    _recorded[number] = function
    _check(_runtime().cudaLaunchHostFunc(stream.cuda_stream, _run_recorded, number))
    status, graph, owner = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_void_p()
    _check(
        _runtime().cudaStreamGetCaptureInfo(
            stream.cuda_stream, ctypes.byref(status), None, ctypes.byref(graph), None, None, None
        )
    )
    _check(_runtime().cudaUserObjectCreate(ctypes.byref(owner), number, _forget_recorded, 1, _NO_DESTRUCTOR_SYNC))
    _check(_runtime().cudaGraphRetainUserObject(graph, owner, 1, _MOVE))


@cache
def _runtime() -> ctypes.CDLL:
    runtime = ctypes.CDLL(None)
    pointer, number = ctypes.c_void_p, ctypes.c_uint
    runtime.cudaLaunchHostFunc.argtypes = (pointer, _HostFunction, pointer)
    runtime.cudaStreamGetCaptureInfo.argtypes = (pointer,) * 7
    runtime.cudaUserObjectCreate.argtypes = (pointer, pointer, _HostFunction, number, number)
    runtime.cudaGraphRetainUserObject.argtypes = (pointer, pointer, number, number)
    return runtime


def _check(status: int) -> None:
    torch.cuda.check_error(status)

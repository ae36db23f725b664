"""The kernels of kernels.cu as Python functions on torch's current stream."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from tests.ptxvm.harness import compile_cuda_library

SOURCE = Path(__file__).with_name("kernels.cu")


@cache
def library() -> ctypes.CDLL:
    return ctypes.CDLL(str(compile_cuda_library(SOURCE.read_text(), "-lineinfo")))


def scale(values: Tensor, factor: float, count: int | None = None) -> None:
    """Multiply the first elements in place; all of them by default."""
    library().launch_scale(
        ctypes.c_void_p(values.data_ptr()),
        values.numel() if count is None else count,
        ctypes.c_float(factor),
        _stream(),
    )


def shift(values: Tensor) -> None:
    """Rotate 64 elements, with a race."""
    library().launch_shift(ctypes.c_void_p(values.data_ptr()), _stream())


def _stream() -> ctypes.c_void_p:
    return ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)

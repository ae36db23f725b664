"""The short cuts of attention and of recurrent layers, in which a dispatch mode sees none of their products.

Attention has fused kernels and a fast path; oneDNN and cuDNN compute recurrent layers as a whole. None is taken while a
model is captured. What has no products, as an activation, the two libraries compute even then. All of their switches
are the process's, and so is what is known of them here.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from flopcuda import _C


class _Switches:
    """How they were when the first of the captures that are at work now began."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.captures = 0
        self.restored = ExitStack()

    def off(self) -> None:
        _C.take_libraries()
        self.restored.callback(_C.give_back_libraries)
        self.restored.callback(torch.backends.mha.set_fastpath_enabled, torch.backends.mha.get_fastpath_enabled())
        torch.backends.mha.set_fastpath_enabled(False)
        self.restored.enter_context(sdpa_kernel(SDPBackend.MATH))

    def count(self, change: int) -> None:
        """Of two captures, one could have products while the other one has none."""
        self.captures += change
        _C.allow_libraries(self.captures == 1)


_switches = _Switches()


@contextmanager
def avoided() -> Iterator[None]:
    """Inside, none is taken."""
    with _switches.lock:
        if _switches.captures == 0:
            _switches.off()
        _switches.count(+1)
        _C.keep_libraries_out()
    try:
        yield
    finally:
        with _switches.lock:
            _switches.count(-1)
            if _switches.captures == 0:
                _switches.restored.close()

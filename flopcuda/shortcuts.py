"""The short cuts of attention and of recurrent layers, in which a dispatch mode sees none of their products.

Attention has fused kernels and a fast path; oneDNN and cuDNN compute recurrent layers as a whole. None is taken while a
model is captured. What has no products, as an activation, the two libraries compute even then. All of their switches
are the process's, and so is what is known of them here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


class _Switches:
    """How they were when the first of the captures that are at work now began."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.captures = 0
        self.libraries: list[Callable[[bool], None]] = []  # each library's that was enabled
        self.restored = ExitStack()

    def off(self) -> None:
        # The setters of torch.backends refuse once a program has frozen the flags, as torch's own tests do.
        states: list[tuple[bool, Callable[[bool], None]]] = [
            (torch._C._get_mkldnn_enabled(), torch._C._set_mkldnn_enabled),
            (torch._C._get_cudnn_enabled(), torch._C._set_cudnn_enabled),
        ]
        self.libraries = [set_enabled for is_enabled, set_enabled in states if is_enabled]
        self.restored.callback(self.enable, True)
        self.restored.callback(torch.backends.mha.set_fastpath_enabled, torch.backends.mha.get_fastpath_enabled())
        torch.backends.mha.set_fastpath_enabled(False)
        self.restored.enter_context(sdpa_kernel(SDPBackend.MATH))

    def enable(self, enabled: bool) -> None:
        for set_enabled in self.libraries:
            set_enabled(enabled)


_switches = _Switches()


@contextmanager
def avoided() -> Iterator[None]:
    """Inside, none is taken."""
    with _switches.lock:
        if _switches.captures == 0:
            _switches.off()
        _switches.captures += 1
        _switches.enable(False)
    try:
        yield
    finally:
        with _switches.lock:
            _switches.captures -= 1
            if _switches.captures == 0:
                _switches.restored.close()
                _switches.libraries = []


def let_libraries_compute() -> None:
    """Until :func:`keep_libraries_out`; but of two captures, one could have products while the other one has none."""
    if _switches.captures == 1:
        _switches.enable(True)


def keep_libraries_out() -> None:
    """As before :func:`let_libraries_compute`."""
    _switches.enable(False)

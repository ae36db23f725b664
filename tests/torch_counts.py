"""torch's FlopCounterMode where it sees everything, as an oracle."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


@contextlib.contextmanager
def torchs_own_count() -> Iterator[FlopCounterMode]:
    """FlopCounterMode with attention and recurrent layers as products: no fast path, no fused kernels."""
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    # Not by assignment, which torch refuses once a program has frozen its flags.
    without_onednn = torch.backends.mkldnn.flags(enabled=False)
    try:
        with without_onednn, sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as mode:
            yield mode
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)

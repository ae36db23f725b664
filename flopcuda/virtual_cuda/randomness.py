"""Random operators of a virtual device: a CUDA generator's seed and offset choose the numbers, as on a real one."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# What a kernel's share of the Philox sequence must be a multiple of.
_OFFSET_STEP = 4


def stand_in(generator: torch.Generator) -> torch.Generator:
    """A CPU generator for one call, which depends on the CUDA generator's state alone and moves that state on.

    Raises:
        RuntimeError: the generator is another device's.
    """
    if generator.device.type != "cuda":
        raise RuntimeError(f"Expected a 'cuda' device type for generator but found '{generator.device.type}'")
    seed, offset = generator.initial_seed(), generator.get_offset()
    generator.set_offset(offset + _OFFSET_STEP)
    digest = hashlib.blake2b(struct.pack("<QQ", seed & (2**64 - 1), offset), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little", signed=True))


@contextmanager
def as_default(generator: torch.Generator) -> Iterator[None]:
    """Let the CPU's operators draw from a generator that they can't be given."""
    state = torch.default_generator.get_state()
    torch.default_generator.set_state(generator.get_state())
    try:
        yield
    finally:
        torch.default_generator.set_state(state)

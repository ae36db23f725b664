"""Sectors of global memory that a warp touches and needs at least, by brute force over the bytes it accesses."""

from __future__ import annotations

import math

import numpy as np
import pytest

from flopcuda import ptx
from tests.ptxvm.harness import kernel

BYTES = {"b8": 1, "b16": 2, "b32": 4, "b64": 8, "v2.b64": 16}
BODY = """
.reg .b64 %base, %offsets, %at; .reg .b32 %lane, %offset; .reg .pred %off; .reg .b64 %x<2>;
ld.param.u64 %base, [base]; ld.param.u64 %offsets, [offsets];
mov.u32 %lane, %laneid; mul.wide.u32 %at, %lane, 4; add.u64 %at, %at, %offsets;
ld.global.b32 %offset, [%at];
setp.eq.u32 %off, %offset, 0xffffffff; @%off ret;
cvt.u64.u32 %at, %offset; add.u64 %at, %at, %base;
ld.volatile.global.{type} {target}, [%at];
ret;
"""


def observed(type_name: str, offsets: np.ndarray) -> ptx.Row:
    """The row of a load by one warp; a lane with the offset -1 takes no part."""
    target = "{%x0, %x1}" if type_name.startswith("v2") else "%x0"
    module = ptx.Machine(threads=1).load(
        kernel(BODY.format(type=type_name, target=target), ".param .u64 base, .param .u64 offsets")
    )
    memory = np.zeros(1 << 17, np.uint8)
    data = memory[-memory.ctypes.data % 256 :][: 1 << 16]
    result = module.launch("k", 1, 32, [data, offsets.astype(np.int32)])
    assert not result.findings
    return next(row for row in result.rows if row.name == f"ld.volatile.global.{type_name}")


@pytest.mark.parametrize("type_name", BYTES)
@pytest.mark.parametrize("spread", [1, 40, 4000])
def test_sectors(type_name: str, spread: int) -> None:
    size = BYTES[type_name]
    generator = np.random.default_rng([size, spread])
    for _ in range(20):
        offsets = generator.integers(0, spread, 32) * size
        offsets[generator.random(32) < 0.2] = -1
        accessed = {int(offset) + byte for offset in offsets if offset >= 0 for byte in range(size)}
        row = observed(type_name, offsets)
        assert row.requests == 1
        assert row.units == len({byte // 32 for byte in accessed})
        assert row.ideal == math.ceil(len(accessed) / 32)


def test_neighbours_need_no_more_than_the_ideal() -> None:
    row = observed("b32", 4 * np.arange(32))
    assert (row.units, row.ideal) == (4, 4)
    assert observed("b32", 4 * np.arange(32) + 4).units == 5
    assert observed("b32", np.zeros(32)).ideal == 1

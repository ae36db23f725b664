"""Fixtures of the machine's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from flopcuda import _ptxvm, ptx

_INSTRUCTION_SETS = ("avx512", "avx2", "portable")


@pytest.fixture(params=_INSTRUCTION_SETS)
def lane_instruction_set(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each instruction set for which the hot handlers are compiled and which this processor has."""
    usual = _ptxvm.lane_instruction_set()
    if not _ptxvm.set_lane_instruction_set(request.param):
        pytest.skip(f"no {request.param} here")
    yield request.param
    _ptxvm.set_lane_instruction_set(usual)


@pytest.fixture
def machine() -> ptx.Machine:
    """All checks, blocks in order."""
    return ptx.Machine(threads=1)

"""Fixtures of the machine's tests, and a record of what the conformance tests execute for test_audit.py."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from flopcuda import _ptxvm, ptx

_INSTRUCTION_SETS = ("avx512", "avx2", "portable")

#: Test files that compare single instructions with what Python computes.
CONFORMANCE = {
    "test_barrier",
    "test_control",
    "test_convert",
    "test_exchange",
    "test_float",
    "test_integer",
    "test_matrix",
    "test_memory",
    "test_system",
    "test_variants",
}
executed: set[str] = set()  #: names with all modifiers
left_out: set[str] = set()  #: conformance tests that the command line deselected


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


@pytest.fixture(scope="module", autouse=True)
def record_executed(request: pytest.FixtureRequest) -> Iterator[None]:
    """Adds the instructions of a conformance test's launches to `executed`."""
    launch = ptx.Module.launch

    def recorded(module: ptx.Module, *arguments: Any, **named: Any) -> ptx.LaunchResult:
        result = launch(module, *arguments, **named)
        executed.update(row.name for row in result.rows if row.lanes)
        return result

    with pytest.MonkeyPatch.context() as patch:
        if request.path.stem in CONFORMANCE:
            patch.setattr(ptx.Module, "launch", recorded)
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The audit comes last."""
    items.sort(key=lambda item: item.path.stem == "test_audit")


def pytest_deselected(items: list[pytest.Item]) -> None:
    left_out.update(i.nodeid for i in items if i.path.stem in CONFORMANCE and not i.get_closest_marker("slow"))

"""Nothing is only loaded: the conformance tests execute every opcode, and each of its kinds in instructions.py."""

from __future__ import annotations

import pytest

from flopcuda import _ptxvm
from tests.ptxvm.conftest import CONFORMANCE, executed, left_out
from tests.ptxvm.harness import needs_nvcc
from tests.ptxvm.instructions import INSTRUCTIONS


def kind(name: str) -> frozenset[str]:
    """An opcode and its modifiers, in whichever order; opcodes have a mark, for `min` is a modifier too."""
    opcode, *modifiers = name.split(".")
    return frozenset([f"{opcode} ", *modifiers])


@needs_nvcc  # some are in CUDA's headers only
def test_everything_was_executed(request: pytest.FixtureRequest) -> None:
    collected = {item.path.stem for item in request.session.items}
    if left_out or not collected >= CONFORMANCE:
        pytest.skip("needs all of the conformance tests in front of it")
    assert {name.split(".")[0] for name in executed} >= set(_ptxvm.opcodes)
    kinds = {kind(name) for name in executed}
    names = [text.split(" ", 1)[1] if text.startswith("@") else text for text in INSTRUCTIONS]
    missing = [name for name in names if kind(name.split(" ")[0].rstrip(";")) not in kinds]
    assert not missing, missing

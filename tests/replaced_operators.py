"""Operators of a test's own in place of the counted ones that sessions launch on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch import Tensor

from flopcuda import backends


def replace_operator(
    monkeypatch: pytest.MonkeyPatch, name: str, operator: Callable[..., tuple[Tensor, Tensor]]
) -> None:
    """Until the test ends, ``operator`` gives output and counters, from what :mod:`flopcuda.ops` has of that name."""

    def launch(*operands: Tensor | None, allow_tf32: bool, **options: Any) -> tuple[Any, ...]:
        output, counters = operator(*operands, **options)
        return output, tuple(counters.tolist()), "replaced", 0.0, 1, None

    monkeypatch.setitem(backends.LAUNCHES, name, launch)

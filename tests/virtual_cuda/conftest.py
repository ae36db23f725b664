"""These tests are of the virtual device itself; some start it, some need to run on it."""

from __future__ import annotations

import pytest

from flopcuda import virtual_cuda


@pytest.fixture
def _on_the_virtual_device() -> None:
    if not virtual_cuda.is_active():
        pytest.skip("runs with pytest --virtual-cuda")

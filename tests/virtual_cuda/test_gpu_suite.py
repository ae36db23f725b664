"""Everything marked `gpu`, on two virtual devices: what will run on real ones has run on these."""

from __future__ import annotations

import re

import pytest

from tests.virtual_cuda.programs import needs_libraries
from tests.virtual_cuda.test_launch import run


@needs_libraries
@pytest.mark.parametrize(
    ("marked", "least"), [("gpu and not slow", 100), pytest.param("gpu and slow", 1000, marks=pytest.mark.slow)]
)
def test_the_gpu_tests_pass_on_the_virtual_device(marked: str, least: int) -> None:
    command = ["-m", "pytest", "--virtual-cuda", "-q", "-p", "no:cacheprovider", "-m", marked, "tests"]
    outcome = run(*command, FLOPCUDA_VCUDA_DEVICES="2")
    assert outcome.returncode == 0, outcome.stdout[-5000:] + outcome.stderr[-2000:]
    assert int(re.search(r"(\d+) passed", outcome.stdout)[1]) > least

"""Every seeded defect fits the sources and reaches a kernel; most tests that build one are slow."""

from __future__ import annotations

import pytest

from tests import test_cpu_mutants, test_cuda_few_outputs, test_cuda_mutants, test_cuda_splits, test_triangle_mutants
from tests.cpu_kernels import patched_sources
from tests.cuda_kernels import patched_units
from tests.patches import Patch

IN_CUDA = (
    test_cuda_mutants.MUTANTS,
    test_cuda_few_outputs.MUTANTS,
    test_cuda_splits.MUTANTS,
    test_triangle_mutants.CUDA_MUTANTS,
)
ON_THE_CPU = (test_cpu_mutants.MUTANTS, test_cpu_mutants.PAIR_MUTANTS, test_triangle_mutants.CPU_MUTANTS)


def named(*groups: dict[str, Patch]) -> list[object]:
    return [pytest.param(patch, id=name) for mutants in groups for name, patch in mutants.items()]


@pytest.mark.parametrize("patch", named(*IN_CUDA))
def test_a_patch_of_a_cuda_kernel_reaches_one(patch: Patch) -> None:
    assert patched_units([patch])


@pytest.mark.parametrize("patch", named(*ON_THE_CPU))
def test_a_patch_of_a_cpu_kernel_fits(patch: Patch) -> None:
    assert patched_sources([patch]) != patched_sources([])

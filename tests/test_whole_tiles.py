"""What whole tiles of the CUDA kernels ask of memory, as the PTX machine observes it."""

from __future__ import annotations

import pytest

from flopcuda import ptx
from flopcuda.ptx_backend import MachineBackend
from tests.cpu_kernels.oracle import ConvCase, LinearCase
from tests.cuda_kernels import DTYPES, needs_kernels, plan_case, tensors_of

pytestmark = needs_kernels


@pytest.fixture(scope="module")
def backend() -> MachineBackend:
    return MachineBackend(ptx.Machine())


@pytest.mark.parametrize("kernel", [kernel for kernel in DTYPES if "_few_outputs_" not in kernel])
def test_whole_tiles_touch_no_more_memory_than_there_is(backend: MachineBackend, kernel: str) -> None:
    """No bank conflict anywhere; of global memory, more sectors than needed for the counters only."""
    is_linear = kernel.startswith("flopcuda_linear")
    case = LinearCase(128, 256, 128) if is_linear else ConvCase(2, 64, (8, 8), 128, (1, 1))
    result = backend.launch(plan_case(case, tensors_of(case, kernel), kernel))
    assert result.shared_memory.conflicts == 0
    wasteful = {row.name for row in result.rows if row.space == "global" and row.units > row.ideal}
    assert wasteful <= {"atom.global.add.u64", "red.global.add.u64"}

"""Kernels that come as PTX: executed on torch's tensors, recorded, checked."""

from __future__ import annotations

import pytest
import torch

from flopcuda.virtual_cuda import records
from tests.cuda_graphs import captured
from tests.ptxvm.harness import needs_nvcc
from tests.virtual_cuda.library import scale, shift

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("_on_the_virtual_device"), needs_nvcc]


def test_a_kernel_computes_on_torchs_memory_and_stream() -> None:
    x = torch.arange(1000.0, device="cuda")
    view = x[100:300]
    with torch.cuda.stream(torch.cuda.Stream()):
        scale(view, 3)
    expected = torch.arange(1000.0)
    expected[100:300] *= 3
    torch.testing.assert_close(x.cpu(), expected)


def test_a_launch_is_recorded() -> None:
    scale(torch.ones(200, device="cuda"), 2)
    (launch,) = records.launches()
    assert "scale" in launch.kernel
    assert (launch.grid, launch.block, launch.shared_bytes, launch.device) == ((2, 1, 1), (128, 1, 1), 0, 0)
    assert launch.warp_instructions >= 200 // 32
    assert launch.global_requests == 2 * 7  # 7 of 8 warps have an element to load and to store
    assert launch.findings == 0


def test_a_kernel_in_a_graph_runs_at_each_replay() -> None:
    x = torch.ones(10, device="cuda")
    with captured() as graph:
        scale(x, 2)
        y = x + 1
    assert records.launches() == []
    assert x.tolist() == [1] * 10
    graph.replay()
    graph.replay()
    assert len(records.launches()) == 2
    assert x.tolist() == [4] * 10
    assert y.tolist() == [5] * 10


def test_a_defect_that_hardware_does_not_notice_is_found() -> None:
    shift(torch.arange(64.0, device="cuda"))
    findings = records.findings()
    records.clear()
    assert "race" in {finding.kind for finding in findings}
    assert all("shift" in finding.kernel and finding.source_file.endswith("kernel.cu") for finding in findings)
    assert records.findings() == []

"""What goes wrong in a replay of a CUDA graph is reported, and ends its device alone."""

from __future__ import annotations

from tests.ptxvm.harness import needs_nvcc
from tests.virtual_cuda.programs import needs_libraries
from tests.virtual_cuda.test_launch import run_virtually

SCRIPT = """
import torch
from tests.virtual_cuda.library import scale

def outcome(function):
    try:
        return function()
    except torch.AcceleratorError as error:
        return str(error).splitlines()[0]

def captured(function):
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=torch.cuda.Stream()):
        function()
    return graph

with torch.cuda.device(1):
    y = torch.ones(4, device="cuda")
    doubling = captured(lambda: scale(y, 2))
    doubling.replay()
    print(y.tolist())
with torch.cuda.device(0):
    x, index = torch.arange(4.0, device="cuda"), torch.tensor([3, 1], device="cuda")
    out = torch.empty(2, device="cuda")
    selection = captured(lambda: torch.index_select(x, 0, index, out=out))
    selection.replay()
    print(out.tolist())
    index.fill_(9)
    print(outcome(selection.replay))
    print(outcome(x.cpu))
with torch.cuda.device(1):
    doubling.replay()
    print(y.tolist())
    del y
    print(outcome(doubling.replay))
    print(outcome(torch.cuda.synchronize))
"""


@needs_libraries
@needs_nvcc
def test_an_operator_and_a_kernel_that_fail_in_a_replay() -> None:
    """An index that has become too large, and memory that was freed since the capture."""
    done = run_virtually("--devices", "2", "-c", SCRIPT)
    assert done.stdout.splitlines() == [
        "[2.0, 2.0, 2.0, 2.0]",
        "[3.0, 1.0]",
        *["CUDA error: device-side assert triggered"] * 2,
        "[4.0, 4.0, 4.0, 4.0]",
        *["CUDA error: an illegal memory access was encountered"] * 2,
    ], done.stderr
    assert "IndexError: index out of range" in done.stderr
    assert "2 defects were found in kernels\n  bounds: " in done.stderr
    assert done.returncode == 1

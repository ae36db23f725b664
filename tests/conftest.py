"""Fixtures that several test files share, and the rule that tests for a GPU skip without one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from tests.cpu_kernels import Kernels, build_kernels


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA device")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(scope="session")
def built_kernels() -> Kernels:
    """The CPU kernels as they are."""
    return build_kernels()


@pytest.fixture(params=["portable", "avx2", "avx512"])
def kernels(request: pytest.FixtureRequest, built_kernels: Kernels) -> Iterator[Kernels]:
    """The CPU kernels on each instruction set in turn."""
    if request.param not in built_kernels.available_isas:
        pytest.skip(f"this CPU or build lacks {request.param}")
    selected = built_kernels.selected_isa
    built_kernels.select_isa(request.param)
    built_kernels.set_num_threads(2)
    yield built_kernels
    built_kernels.select_isa(selected)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Processes share the tests file by file, but for the PTX machine's: one of them asks what the others executed."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            folder, _, _ = nodeid.partition("::")[0].rpartition("/")
            return folder if folder.endswith("ptxvm") else str(super()._split_scope(nodeid))

    return Scheduling(config, log)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _whole_float32() -> Iterator[None]:
    """No TF32 in convolutions in CUDA, which torch allows by default: results are held against float32 and float64.

    By torch's inner setter: the public one refuses once torch.testing's internals are imported.
    """
    allowed = torch._C._get_cudnn_allow_tf32()
    torch._C._set_cudnn_allow_tf32(False)
    yield
    torch._C._set_cudnn_allow_tf32(allowed)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    """Each device there are kernels for; the GPU's turn skips without one."""
    return str(request.param)


class SmallNet(nn.Module):
    """Two convolutions, one of them used twice, batch norm, and a head: all that swapping has to cope with, small."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.shared = nn.Conv2d(8, 8, 3, padding="same", groups=2)
        self.alias = self.shared
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = self.alias(self.shared(x))
        return self.head(x.mean((2, 3)))


@pytest.fixture
def model() -> SmallNet:
    return SmallNet()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(2, 3, 17, 15)

"""torchvision's own CUDA kernels, from the wheel that pip installs: they come as PTX, too."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from flopcuda.virtual_cuda import records

ops = pytest.importorskip("torchvision.ops")

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("_on_the_virtual_device")]


def boxes(count: int) -> Tensor:
    corners = torch.rand(count, 2, 2, dtype=torch.float64) * 12
    return torch.cat([corners.min(1).values, corners.max(1).values + 1], 1)


def test_non_maximum_suppression_keeps_the_same_boxes() -> None:
    candidates, scores = boxes(150), torch.rand(150, dtype=torch.float64)
    kept = ops.nms(candidates.cuda(), scores.cuda(), 0.3)
    assert kept.tolist() == ops.nms(candidates, scores, 0.3).tolist()
    assert 1 < len(kept) < 150
    assert any("nms_kernel" in launch.kernel for launch in records.launches())
    # In torchvision 0.29, a thread may write what others still read from the round before.
    assert {(finding.kind, "gather_keep" in finding.kernel) for finding in records.findings()} <= {("race", True)}
    records.clear()


def images() -> Tensor:
    return torch.randn(2, 8, 14, 13, dtype=torch.float64)


def regions() -> Tensor:
    return torch.cat([torch.tensor([[0.0], [1.0], [1.0]]), boxes(3)], 1)


SAMPLERS: dict[str, tuple[Callable[..., Tensor], tuple[Callable[[], Tensor], ...], str]] = {
    "roi_align": (lambda x, r: ops.roi_align(x, r, 2, sampling_ratio=2), (images, regions), "roi_align"),
    "roi_pool": (lambda x, r: ops.roi_pool(x, r, 2), (images, regions), "roi_pool"),
    "ps_roi_align": (lambda x, r: ops.ps_roi_align(x, r, 2, sampling_ratio=2), (images, regions), "ps_roi_align"),
    "deform_conv2d": (
        lambda x, offset, weight: ops.deform_conv2d(x, offset, weight),
        (
            images,
            lambda: torch.randn(2, 2 * 9, 12, 11, dtype=torch.float64),
            lambda: torch.randn(4, 8, 3, 3, dtype=torch.float64),
        ),
        "deformable_im2col",
    ),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_values_and_gradients_are_the_cpus(name: str) -> None:
    function, makers, kernel = SAMPLERS[name]
    on_cpu = [make() for make in makers]
    on_device = [tensor.cuda() for tensor in on_cpu]
    differentiable = [i for i, make in enumerate(makers) if make is not regions]
    for operands in (on_cpu, on_device):
        for i in differentiable:
            operands[i].requires_grad_()
    expected, result = function(*on_cpu), function(*on_device)
    torch.testing.assert_close(result.cpu(), expected)
    assert any(kernel in launch.kernel for launch in records.launches())
    upstream = torch.randn_like(expected)
    expected_gradients = torch.autograd.grad(expected, [on_cpu[i] for i in differentiable], upstream)
    gradients = torch.autograd.grad(result, [on_device[i] for i in differentiable], upstream.cuda())
    for gradient, expected_gradient in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient.cpu(), expected_gradient)

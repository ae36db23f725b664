"""Weights that are views: the CPU kernels multiply them where they lie, or as a dense copy, with the same outputs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from flopcuda import ops

# A weight of [out_channels, channels of a group, height, width], of a dense one.
VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "channels in the other order": lambda weight: weight.transpose(0, 1).contiguous().transpose(0, 1),
    "every second channel": lambda weight: weight.repeat_interleave(2, 1)[:, ::2],
    "some channels of more": lambda weight: torch.nn.functional.pad(weight, (0, 0, 0, 0, 1, 2, 3, 0))[3:, 1:-2],
    "one for all channels": lambda weight: weight[:1].expand_as(weight),
    "one for all channels of a group": lambda weight: weight[:, :1].expand_as(weight),
    "channels last": lambda weight: weight.contiguous(memory_format=torch.channels_last),
    "taps in the other order": lambda weight: weight.mT.contiguous().mT,
}
SHAPES = {  # of the weight, and the groups
    "3 x 3": ((70, 33, 3, 3), 1),
    "1 x 1": ((70, 33, 1, 1), 1),
    "as large as the image": ((20, 9, 12, 13), 1),
    "sums of many products": ((9, 300, 3, 2), 1),
    "groups": ((18, 7, 3, 3), 3),
    "depthwise": ((12, 1, 3, 3), 12),
    "few rows": ((2, 33, 3, 3), 1),
}

CLOSE = {
    torch.float32: {"rtol": 1e-4, "atol": 1e-4},
    torch.float64: {"rtol": 1e-10, "atol": 1e-10},
    torch.bfloat16: {"rtol": 1e-2, "atol": 1e-2},
}


@pytest.mark.parametrize("count_zero", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(("shape", "groups"), SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS.keys())
def test_a_view_is_multiplied_as_its_copy_is(
    view: Callable[[Tensor], Tensor], shape: tuple[int, ...], groups: int, dtype: torch.dtype, count_zero: bool
) -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(2, shape[1] * groups, 12, 13, generator=generator).relu().to(dtype)
    weight = view(torch.randn(shape, generator=generator).relu().to(dtype))
    output, counters = ops.conv2d(image, weight, groups=groups, count_zero=count_zero)
    expected, expected_counters = ops.conv2d(image, weight.contiguous(), groups=groups, count_zero=count_zero)
    assert torch.equal(output, expected)
    assert torch.equal(counters, expected_counters)
    torch.testing.assert_close(
        output.double(), torch.nn.functional.conv2d(image.double(), weight.double(), groups=groups), **CLOSE[dtype]
    )

"""Weights that are views: the CPU kernels multiply them where they lie, or as a dense copy, with the same outputs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from flopcuda import _C, ops

# A weight of [out_channels, channels of a group, height, width], of a dense one.
VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "channels in the other order": lambda weight: weight.transpose(0, 1).contiguous().transpose(0, 1),
    "every second channel": lambda weight: weight.repeat_interleave(2, 1)[:, ::2],
    "some channels of more": lambda weight: torch.nn.functional.pad(weight, (0, 0, 0, 0, 1, 2, 3, 0))[3:, 1:-2],
    "one for all channels": lambda weight: weight[:1].expand_as(weight),
    "one for all channels of a group": lambda weight: weight[:, :1].expand_as(weight),
    "channels last": lambda weight: weight.contiguous(memory_format=torch.channels_last),
    "taps in the other order": lambda weight: weight.mT.contiguous().mT,
    "every second tap": lambda weight: weight.repeat_interleave(2, 2).repeat_interleave(2, 3)[:, :, 1::2, ::2],
}
SHAPES = {  # of the weight, and the groups
    "3 x 3": ((70, 33, 3, 3), 1),
    "1 x 1": ((70, 33, 1, 1), 1),
    "as large as the image": ((20, 9, 12, 13), 1),
    "sums of many products": ((9, 300, 3, 2), 1),
    "groups": ((18, 7, 3, 3), 3),
    "depthwise": ((12, 1, 3, 3), 12),
    "few rows": ((2, 33, 3, 3), 1),
    "few outputs": ((2, 5, 11, 12), 1),
}
# Of image, weight and bias, by the number of axes.
SIZES = {2: ((2, 4, 9, 8), (6, 2, 3, 2), (6,)), 3: ((2, 4, 5, 9, 8), (6, 2, 2, 3, 2), (6,))}


CLOSE = {
    torch.float32: {"rtol": 1e-4, "atol": 1e-4},
    torch.float64: {"rtol": 1e-10, "atol": 1e-10},
    torch.bfloat16: {"rtol": 1e-2, "atol": 1e-2},
}


@pytest.mark.parametrize("count_zero", [False, True])
@pytest.mark.parametrize("flipped", [False, True], ids=["", "flipped"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(("shape", "groups"), SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS.keys())
def test_a_view_is_multiplied_as_its_copy_is(
    view: Callable[[Tensor], Tensor],
    shape: tuple[int, ...],
    groups: int,
    dtype: torch.dtype,
    flipped: bool,
    count_zero: bool,
) -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(2, shape[1] * groups, 12, 13, generator=generator).relu().to(dtype)
    weight = view(torch.randn(shape, generator=generator).relu().to(dtype))
    output, counters = ops.conv2d(image, weight, groups=groups, count_zero=count_zero, flipped=flipped)
    copy = weight.flip(2, 3) if flipped else weight.contiguous()
    expected, expected_counters = ops.conv2d(image, copy, groups=groups, count_zero=count_zero)
    assert torch.equal(output, expected)
    assert torch.equal(counters, expected_counters)
    torch.testing.assert_close(
        output.double(), torch.nn.functional.conv2d(image.double(), copy.double(), groups=groups), **CLOSE[dtype]
    )


@pytest.mark.parametrize("axes", [2, 3])
def test_gradients_of_flipped_taps(axes: int) -> None:
    torch.manual_seed(0)
    image, weight, bias = (torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in SIZES[axes])
    counted = ops.conv2d if axes == 2 else ops.conv3d
    convolve = torch.nn.functional.conv2d if axes == 2 else torch.nn.functional.conv3d
    output, _ = counted(image, weight, bias, [2] * axes, [1] * 2 * axes, [1] * axes, 2, flipped=True)
    expected = convolve(image, weight.flip(tuple(range(2, 2 + axes))), bias, stride=2, padding=1, groups=2)
    torch.testing.assert_close(output, expected)
    weights = torch.randn_like(output)
    gradients = torch.autograd.grad((output * weights).sum(), (image, weight, bias))
    for gradient, right in zip(
        gradients, torch.autograd.grad((expected * weights).sum(), (image, weight, bias)), strict=True
    ):
        torch.testing.assert_close(gradient, right)


def test_kept_panels_are_not_those_of_flipped_taps() -> None:
    image, weight = torch.randn(1, 32, 4, 4), torch.randn(64, 32, 3, 3)
    options = {"stride": (1, 1), "padding": (1,) * 4, "dilation": (1, 1), "groups": 1}
    expected = [ops.conv2d(image, taps, padding=(1,) * 4)[0] for taps in (weight, weight.flip(2, 3))]
    keeps = _C.WeightsAreKept()
    for _ in range(3):
        for flipped, output in enumerate(expected):
            launch = _C.launch_conv2d(
                image, weight, None, **options, flipped=bool(flipped), count_zero=False, allow_tf32=False
            )
            assert torch.equal(launch[0], output)
    assert _C.kept_weight_bytes() > 0
    del keeps

"""Ledgers of transposed convolutions: over random geometries, every tool's number follows from the count.

So does FlopCounterMode's for a training step.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from flopcuda.tools import ALL, ToolReport
from tests.ledgers import assert_explained, assert_step_explained, reports

pytest.importorskip("thop")
pytest.importorskip("fvcore")
pytest.importorskip("ptflops")

LAYERS: dict[int, Any] = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


@st.composite
def transposed(draw: st.DrawFn) -> tuple[nn.Module, Tensor]:
    """Any transposed convolution that has an output, and an input for it."""
    axes = draw(st.integers(1, 3))

    def sizes(first: int, last: int) -> tuple[int, ...]:
        return tuple(draw(st.integers(first, last)) for _ in range(axes))

    kernel, stride, dilation, images = sizes(1, 3), sizes(1, 3), sizes(1, 3), sizes(1, 4)
    extra = tuple(draw(st.integers(0, max(*pair) - 1)) for pair in zip(stride, dilation, strict=True))
    ends = zip(images, kernel, stride, dilation, extra, strict=True)
    full = [(image - 1) * step + apart * (taps - 1) + more + 1 for image, taps, step, apart, more in ends]
    groups = draw(st.integers(1, 2))
    layer = LAYERS[axes](
        groups * draw(st.integers(1, 3)),
        groups * draw(st.integers(1, 3)),
        kernel,
        stride,
        tuple(draw(st.integers(0, min(3, (size - 1) // 2))) for size in full),
        extra,
        groups,
        draw(st.booleans()),
        dilation,
    )
    return layer, torch.randn(draw(st.integers(1, 3)), layer.in_channels, *images)


def check(case: tuple[nn.Module, Tensor]) -> None:
    layer, images = case
    assert_explained(layer, (images,))
    assert_step_explained(layer, (images.requires_grad_(),))


@given(transposed())
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
def test_nothing_is_unexplained(case: tuple[nn.Module, Tensor]) -> None:
    check(case)


@pytest.mark.slow
@given(transposed())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_nothing_is_unexplained_in_many(case: tuple[nn.Module, Tensor]) -> None:
    check(case)


def terms(report: ToolReport) -> dict[str, int]:
    return {term.term: term.amount for term in report.ledger}


def test_the_terms_by_hand() -> None:
    """Three pixels, three taps, stride 2: seven positions, of which padding crops the first and the last.

    Of nine products, pixel 0's first and pixel 2's last tap are cropped. The outputs at positions 1 to 5 meet 1, 2, 1,
    2 and 1 pixels, so that nothing is executed on padding; 5 x 3 taps less those 7 are with zeros.
    """
    layer = nn.ConvTranspose1d(2, 5, 3, stride=2, padding=1)
    found = assert_explained(layer, (torch.randn(1, 2, 3),))
    channels = 2 * 5
    assert found["thop"].reported == channels * 15
    assert terms(found["thop"]) == {
        "counted MACs": channels * 7,
        "zeros that transposed convolutions insert": channels * 8,
    }
    assert found["fvcore"].reported == channels * 9
    cropped = {"counted MACs": channels * 7, "taps of transposed convolutions that are cropped": channels * 2}
    assert terms(found["fvcore"]) == cropped
    assert terms(found["ptflops (aten)"]) == {**cropped, "bias": 5 * 5}
    assert terms(found["torch FlopCounterMode"]) == {**cropped, "2 FLOPs a MAC": channels * 9}


def test_padding_that_is_executed_by_hand() -> None:
    """Two pixels, three taps: four outputs meet three positions each, and six of these lie beside the pixels."""
    found = assert_explained(nn.ConvTranspose1d(1, 1, 3), (torch.randn(1, 1, 2),))
    assert terms(found["fvcore"]) == {"counted MACs": 12, "padding that transposed convolutions execute": -6}
    assert terms(found["thop"]) == {
        "counted MACs": 12,
        "padding that transposed convolutions execute": -6,
        "zeros that transposed convolutions insert": 6,
    }


@pytest.mark.parametrize("error", [-1, 1])
@pytest.mark.parametrize("counter", ["mul", "pad"])
def test_a_count_that_is_off_by_one_is_unexplained(counter: str, error: int) -> None:
    layer = nn.ConvTranspose2d(4, 6, 3, 2, 1, 1, groups=2)
    found = reports(layer, (torch.randn(2, 4, 5, 4),), **{counter: error})
    amount = error if counter == "pad" else -error
    assert {name: report.unexplained for name, report in found.items()} == {
        tool: 2 * amount if tool.startswith("torch") else amount for tool in ALL
    }


def test_a_layer_whose_taps_are_all_cropped_is_explained() -> None:
    """One pixel, which goes to a position that padding crops: nothing is executed, and the tools count it."""
    found = assert_explained(
        nn.Sequential(nn.ConvTranspose1d(2, 2, 1, 3, padding=1, output_padding=2), nn.Conv1d(2, 1, 1)),
        (torch.randn(1, 2, 1),),
    )
    assert terms(found["fvcore"])["taps of transposed convolutions that are cropped"] == 4


class Decodes(nn.Module):
    """Convolutions of both kinds in one module, by their functions."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Parameter(torch.randn(4, 3, 3, 3)), nn.Parameter(torch.randn(4, 2, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = functional.conv2d(x, self.down, padding=1, stride=2)
        return functional.conv_transpose2d(x, self.up, padding=1, stride=2)


def test_functions_in_one_module_are_explained() -> None:
    assert_explained(nn.Sequential(Decodes(), nn.Conv2d(2, 2, 1)), (torch.randn(2, 3, 7, 6),))

"""Validation catches kernels with a seeded defect: each mutant of the CPU kernels, run under a whole model."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

import flopcuda
from flopcuda import ops
from tests.cpu_kernels import ConvProblem, Kernels, LinearProblem, build_kernels
from tests.patches import Patch, sampled
from tests.replaced_operators import replace_operator
from tests.test_cpu_mutants import MUTANTS

# Validation does not count products of zero, so a defect in that count alone is not its to find; test_cpu_mutants does.
ONLY_IN_ZERO = {
    "counts padding as products of zero",
    "sees no zeros among the weights",
    "sees no zeros among the inputs",
    "packs rows once and keeps them for every group",
    "few rows see no zeros in the rows",
    "few rows see no zeros in the columns",
    "windows see zeros of the columns before",
    "windows see zeros behind a row, not at the beginning of the next",
    "compares one value of a vector",
    "depthwise counts padding as products of zero",
    "depthwise sees no zeros among the weights",
    "depthwise sees zeros in waste columns",
    "few outputs count padding as products of zero",
    "few outputs see no zeros in the lines",
    "few outputs see no zeros in the columns",
}


class EveryPath(nn.Module):
    """Layers that together take every path through the CPU kernels, side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.im2col = nn.Conv2d(30, 41, (3, 3), padding=1, bias=False)
        self.grouped = nn.Conv2d(20, 82, (4, 3), (3, 2), padding=1, groups=2)
        self.pointwise = nn.Conv2d(300, 5, 1)
        self.windows = nn.Conv2d(70, 8, 3, padding=1)
        self.channel_vectors = nn.Conv2d(60, 31, 3, padding=1)
        self.channel_windows = nn.Conv2d(120, 8, 5, padding=2)
        self.large_kernel = nn.Conv2d(1, 6, (18, 17), padding=2)
        self.one_pixel = nn.Conv2d(60, 31, 3, padding=1)
        self.split_rows = nn.Conv2d(240, 64, 3, padding=1, bias=False)
        self.small_pointwise = nn.Conv2d(300, 31, 1)
        self.depthwise = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.strided_depthwise = nn.Conv2d(6, 6, 3, stride=2, padding=1, groups=6, bias=False)
        self.few_outputs = nn.Conv2d(8, 4, (8, 9), padding=1, groups=2)
        self.depth_ranges = nn.Conv2d(200, 4, 5, padding=2)
        self.deep = nn.Conv3d(20, 41, 3, padding=1)
        self.deep_depthwise = nn.Conv3d(3, 3, 3, padding=1, groups=3)
        self.linear = nn.Linear(300, 35, bias=False)
        self.biased_linear = nn.Linear(520, 41)
        self.few_rows = nn.Linear(301, 35)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [
            self.im2col(x[:, :30, :3, :3].contiguous()),
            self.grouped(x[:, :20, :4, :3].contiguous()),
            self.pointwise(x[:2, :300, :5, :7].contiguous()),
            self.windows(x[:2, :70]),
            self.channel_vectors(x[:3, :60, :7, :4].contiguous()),
            self.channel_windows(x[:2, :120, :3, :3].contiguous()),
            self.large_kernel(x[:2, :1]),
            self.one_pixel(x[:2, :60, :1, :1].contiguous()),
            self.split_rows(x[:2, :240, :3, :8].contiguous()),
            self.small_pointwise(x[:2, :300, :3, :3].contiguous()),
            self.depthwise(x[:2, :6, :9, :11]),
            self.strided_depthwise(x[:2, :6, :9, :11]),
            self.few_outputs(x[:2, :8, :9, :10].contiguous()),
            self.depth_ranges(x[:1, :200, :3, :4].contiguous()),
            self.deep(x[:2, :240, :4, :3].reshape(2, 20, 12, 4, 3)[:, :, :3]),
            self.deep_depthwise(x[:2, :12, :9, :11].reshape(2, 3, 4, 9, 11)),
            self.linear(x[:1, 0, :20, 0:1].expand(1, 20, 300)),
            self.biased_linear(x[:1, 0, :20, 0:1].expand(1, 20, 520)),
            self.few_rows(x[:1, 0, :5, 0:1].expand(1, 5, 301)),
        ]


def operators_of(kernels: Kernels) -> dict[str, object]:
    """flopcuda's operators, computed by a build of the CPU kernels of the test's own."""

    def convolution(
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
        groups: int,
        count_zero: bool,
    ) -> tuple[Tensor, Tensor]:
        convolve = torch.nn.functional.conv3d if input.dim() == 5 else torch.nn.functional.conv2d
        padded = torch.nn.functional.pad(input.to("meta"), padding)
        out = convolve(padded, weight.to("meta"), None, stride, 0, dilation, groups).shape
        before = padding[-2::-2]
        problem = ConvProblem.of(input.shape, weight.shape, out, stride, before, dilation, groups)
        output, counters = kernels.conv(problem, input.contiguous(), weight.detach(), bias, count_zero)
        return output, record(counters)

    def linear(input: Tensor, weight: Tensor, bias: Tensor | None, count_zero: bool) -> tuple[Tensor, Tensor]:
        rows = input.reshape(-1, input.shape[-1]).contiguous()
        problem = LinearProblem(rows.shape[0], rows.shape[1], weight.shape[0])
        output, counters = kernels.linear(problem, rows, weight.detach(), bias, count_zero)
        return output.reshape(*input.shape[:-1], -1), record(counters)

    def record(counters: object) -> Tensor:
        return torch.tensor([getattr(counters, field) for field in ops.COUNTER_FIELDS])

    return {"conv2d": convolution, "conv3d": convolution, "linear": linear}


def validate_with(kernels: Kernels, monkeypatch: pytest.MonkeyPatch) -> flopcuda.Validation:
    kernels.set_num_threads(2)
    for name, operator in operators_of(kernels).items():
        replace_operator(monkeypatch, name, operator)
    return flopcuda.validate(EveryPath().eval(), torch.randn(4, 300, 20, 20), tools=[])


def test_the_kernels_as_they_are_pass_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    assert validate_with(build_kernels(portable_only=True), monkeypatch).ok


@pytest.mark.parametrize("patch", [mutant for mutant in sampled(MUTANTS) if mutant.id not in ONLY_IN_ZERO])
def test_validation_catches_the_mutant(patch: Patch, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not validate_with(build_kernels([patch], portable_only=True), monkeypatch).ok

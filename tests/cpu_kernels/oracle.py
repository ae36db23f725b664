"""What a convolution and a linear layer must compute and count, from torch in float64: no code shared with the kernels.

A padded convolution of ones by ones counts the taps inside the image, and one of "is not 0" by "is not 0" the products
of two non-zero operands.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as functional

from . import ConvProblem, Counters, LinearProblem

NORM_TOLERANCE = 1e-5  # of relative_error, in float32
ELEMENT_TOLERANCE = 1e-6  # of backward_error, in float32
FLOAT64_TOLERANCE = 2e-15  # of both, in float64: torch's own error included

Counts = dict[str, int]
Tensors = tuple[torch.Tensor, torch.Tensor, "torch.Tensor | None"]  # input, weight, bias


@dataclass(frozen=True)
class ConvCase:
    """A convolution of images with two or three axes, by its usual parameters; padding is that before the axes, as in
    (top, left), and then that behind them.
    """

    batch: int = 2
    in_channels: int = 3
    image: tuple[int, ...] = (8, 9)
    out_channels: int = 5
    kernel: tuple[int, ...] = (3, 3)
    stride: tuple[int, ...] = (1, 1)
    padding: tuple[int, ...] = (0, 0, 0, 0)
    dilation: tuple[int, ...] = (1, 1)
    groups: int = 1
    bias: bool = False

    @property
    def axes(self) -> int:
        return len(self.image)

    @property
    def pad_before(self) -> tuple[int, ...]:
        return self.padding[: self.axes]

    @property
    def torch_padding(self) -> tuple[int, ...]:
        """As ``torch.nn.functional.pad`` takes it: before and behind each axis, the last first."""
        pairs = list(zip(self.pad_before, self.padding[self.axes :], strict=True))
        return tuple(itertools.chain(*reversed(pairs)))

    @property
    def out_size(self) -> tuple[int, ...]:
        """Of the output's axes."""
        padded = [
            size + before + behind
            for size, before, behind in zip(self.image, self.pad_before, self.padding[self.axes :], strict=True)
        ]
        return tuple(
            (padded[i] - self.dilation[i] * (self.kernel[i] - 1) - 1) // self.stride[i] + 1 for i in range(self.axes)
        )

    @property
    def input_shape(self) -> torch.Size:
        return torch.Size((self.batch, self.in_channels, *self.image))

    @property
    def weight_shape(self) -> torch.Size:
        return torch.Size((self.out_channels, self.in_channels // self.groups, *self.kernel))

    @property
    def problem(self) -> ConvProblem:
        output = torch.Size((self.batch, self.out_channels, *self.out_size))
        geometry = (self.stride, self.pad_before, self.dilation, self.groups)
        return ConvProblem.of(self.input_shape, self.weight_shape, output, *geometry)

    def tensors(self, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensors:
        """Input, weight and bias; about a fifth of the input and weight values are zeros of either sign."""
        generator = torch.Generator().manual_seed(seed)

        def sprinkle_zeros(values: torch.Tensor) -> torch.Tensor:
            chance = torch.rand(values.shape, generator=generator)
            return values.masked_fill(chance < 0.1, 0.0).masked_fill(chance > 0.9, -0.0)

        input = sprinkle_zeros(torch.randn(self.input_shape, generator=generator, dtype=dtype))
        weight = sprinkle_zeros(torch.randn(self.weight_shape, generator=generator, dtype=dtype))
        bias = torch.randn(self.out_channels, generator=generator, dtype=dtype) if self.bias else None
        return input, weight, bias

    def convolve(self, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """The result of torch in float64."""
        convolve = functional.conv3d if self.axes == 3 else functional.conv2d
        padded = functional.pad(input.double(), self.torch_padding)
        float64_bias = None if bias is None else bias.double()
        return convolve(padded, weight.double(), float64_bias, self.stride, 0, self.dilation, self.groups)

    def expected_counts(self, input: torch.Tensor, weight: torch.Tensor, count_zero: bool) -> Counts:
        """Every counter but ``lane``."""
        products = weight[0].numel()
        outputs = self.batch * self.out_channels * math.prod(self.out_size)
        in_image = int(self.convolve(torch.ones_like(input), torch.ones_like(weight)).sum())
        nonzero = int(self.convolve(input != 0, weight != 0).sum())
        return {
            "mul": outputs * products,
            "add": outputs * (products if self.bias else products - 1),
            "pad": outputs * products - in_image,
            "zero": in_image - nonzero if count_zero else 0,
        }


@dataclass(frozen=True)
class LinearCase:
    """A linear layer by its sizes."""

    rows: int
    in_features: int
    out_features: int
    bias: bool = False

    @property
    def problem(self) -> LinearProblem:
        return LinearProblem(self.rows, self.in_features, self.out_features, 1, 0)

    def tensors(self, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensors:
        """Input, weight and bias with zeros among them: those of a 1 x 1 convolution."""
        pointwise = ConvCase(self.rows, self.in_features, (1, 1), self.out_features, (1, 1), bias=self.bias)
        input, weight, bias = pointwise.tensors(seed, dtype)
        return input.flatten(1), weight.flatten(1), bias

    def multiply(self, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """The result of torch in float64."""
        return functional.linear(input.double(), weight.double(), None if bias is None else bias.double())

    def expected_counts(self, input: torch.Tensor, weight: torch.Tensor, count_zero: bool) -> Counts:
        """Every counter but ``lane``."""
        outputs = self.rows * self.out_features
        nonzero = int(self.multiply(input != 0, weight != 0).sum())
        return {
            "mul": outputs * self.in_features,
            "add": outputs * (self.in_features if self.bias else self.in_features - 1),
            "pad": 0,
            "zero": outputs * self.in_features - nonzero if count_zero else 0,
        }


def counts_of(counters: Counters) -> Counts:
    """Every counter but ``lane``, which depends on the tiles."""
    return {name: getattr(counters, name) for name in ("mul", "add", "pad", "zero")}


def magnitudes(tensors: Tensors) -> Tensors:
    """The tensors of absolute values, whose layer gives the sums of its products' magnitudes."""
    input, weight, bias = tensors
    return input.abs(), weight.abs(), None if bias is None else bias.abs()


def relative_error(output: torch.Tensor, reference: torch.Tensor) -> float:
    """Norm of the difference over the norm of the float64 reference; NaN if an element was not written."""
    norm = float(reference.norm())
    difference = float((output.double() - reference).norm())
    return difference / norm if norm > 0 else difference


def backward_error(output: torch.Tensor, reference: torch.Tensor, magnitude: torch.Tensor) -> float:
    """The largest error of an element, relative to the sum of its products' magnitudes; NaN if one was not written.

    Unlike the error relative to the result it does not grow without bound where the products happen to cancel, so it
    can be asked of every element.
    """
    errors = (output.double() - reference).abs() / magnitude.clamp(min=torch.finfo(torch.float64).tiny)
    return float(errors.max()) if errors.numel() else 0.0

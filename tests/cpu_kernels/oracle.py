"""What a convolution and a linear layer must compute and count, from torch in float64: no code shared with the kernels.

A padded convolution of ones by ones counts the taps inside the image, and one of "is not 0" by "is not 0" the products
of two non-zero operands.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as functional

from . import Conv2dProblem, Counters, LinearProblem

NORM_TOLERANCE = 1e-5  # of relative_error, in float32
ELEMENT_TOLERANCE = 1e-6  # of backward_error, in float32

Counts = dict[str, int]
Tensors = tuple[torch.Tensor, torch.Tensor, "torch.Tensor | None"]  # input, weight, bias


@dataclass(frozen=True)
class Conv2dCase:
    """A convolution by its usual parameters; padding is (top, left, bottom, right)."""

    batch: int = 2
    in_channels: int = 3
    image: tuple[int, int] = (8, 9)
    out_channels: int = 5
    kernel: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    bias: bool = False

    @property
    def out_size(self) -> tuple[int, int]:
        """Output height and width."""
        top, left, bottom, right = self.padding
        padded = (self.image[0] + top + bottom, self.image[1] + left + right)
        height, width = (
            (padded[i] - self.dilation[i] * (self.kernel[i] - 1) - 1) // self.stride[i] + 1 for i in range(2)
        )
        return height, width

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        return (self.out_channels, self.in_channels // self.groups, *self.kernel)

    @property
    def problem(self) -> Conv2dProblem:
        return Conv2dProblem(
            self.batch,
            self.in_channels,
            *self.image,
            self.out_channels,
            *self.out_size,
            *self.kernel,
            *self.stride,
            *self.padding[:2],
            *self.dilation,
            self.groups,
        )

    def tensors(self, seed: int = 0) -> Tensors:
        """Float32 input, weight and bias; about a fifth of the input and weight values are zeros of either sign."""
        generator = torch.Generator().manual_seed(seed)

        def sprinkle_zeros(values: torch.Tensor) -> torch.Tensor:
            chance = torch.rand(values.shape, generator=generator)
            return values.masked_fill(chance < 0.1, 0.0).masked_fill(chance > 0.9, -0.0)

        input_shape = (self.batch, self.in_channels, *self.image)
        input = sprinkle_zeros(torch.randn(input_shape, generator=generator))
        weight = sprinkle_zeros(torch.randn(self.weight_shape, generator=generator))
        bias = torch.randn(self.out_channels, generator=generator) if self.bias else None
        return input, weight, bias

    def convolve(self, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """The result of torch in float64."""
        top, left, bottom, right = self.padding
        padded = functional.pad(input.double(), (left, right, top, bottom))
        float64_bias = None if bias is None else bias.double()
        return functional.conv2d(padded, weight.double(), float64_bias, self.stride, 0, self.dilation, self.groups)

    def expected_counts(self, input: torch.Tensor, weight: torch.Tensor, count_zero: bool) -> Counts:
        """Every counter but ``lane``."""
        products = weight[0].numel()
        height, width = self.out_size
        outputs = self.batch * self.out_channels * height * width
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
        return LinearProblem(self.rows, self.in_features, self.out_features)

    def tensors(self, seed: int = 0) -> Tensors:
        """Float32 input, weight and bias with zeros among them: those of a 1 x 1 convolution."""
        pointwise = Conv2dCase(self.rows, self.in_features, (1, 1), self.out_features, (1, 1), bias=self.bias)
        input, weight, bias = pointwise.tensors(seed)
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

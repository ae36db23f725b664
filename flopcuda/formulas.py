"""The published formulas for the work of a layer, next to which the counted numbers are held.

FLOPs are floating-point operations. A MAC, multiply-accumulate, is ``a <- a + b * c``: two floating-point operations.
A layer computes P outputs (``outputs``), each of them a sum of R products (``products``); activations are not counted.
Every formula takes a layer's sizes and returns an exact int for the whole batch:

==================  ==========================  ==========================  ===========================================
formula             convolution                 linear                      source
==================  ==========================  ==========================  ===========================================
exact               (2 Ci K^2 - 1) H W Co       (2 I - 1) O                 the article on FLOPs and Params; a bias adds
                                                                            one addition an output
NVIDIA              2 H W (Ci K^2 + 1) Co       (2 I - 1) O                 Molchanov et al., "Pruning Convolutional
                                                                            Neural Networks for Resource Efficient
                                                                            Inference", ICLR 2017, appendix
MACs                Ci K^2 H W Co               I O                         thop, fvcore; ptflops adds one an output for
                                                                            a bias
2 x MACs            2 Ci K^2 H W Co             2 I O                       torch.utils.flop_counter.FlopCounterMode
==================  ==========================  ==========================  ===========================================

Ci and Co are input and output channels, K the kernel size, H and W *output* height and width, I and O input and output
features. With groups, Ci becomes Ci / groups.

Of matrix products of which a triangle is wanted, as of causal attention, "exact" is what lies within it
(:class:`TriangleSizes`). The others are what is published, and that is of dense products.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from types import MappingProxyType
from typing import Any, Generic, TypeVar

from flopcuda.triangles import MULTIPLIED

ARTICLE = "the article on FLOPs and Params: R multiplications and R - 1 additions an output, and one more for a bias"
MOLCHANOV = (
    "Molchanov et al., Pruning Convolutional Neural Networks for Resource Efficient Inference, ICLR 2017, appendix"
)
THOP_AND_FVCORE = "the convention of thop 0.1.1 and fvcore 0.1.5: a bias is not counted"
PTFLOPS = "the convention of ptflops 0.7: a bias counts one an output"
TORCH = "torch.utils.flop_counter.FlopCounterMode: two FLOPs a MAC, a bias is not counted"


@dataclass(frozen=True, kw_only=True)
class ConvSizes:
    """Sizes of a convolution in any number of dimensions.

    Attributes:
        in_channels, out_channels: Ci and Co, of all groups together.
        kernel_size: of each axis, as in (height, width); K stands for (K, K).
        output_size: of each axis of the *output*; one number stands for both of an image.
        groups: must divide both numbers of channels.
        bias: whether one is added to each output.
        batch: images; the published formulas are for one, so they are multiplied by this.

    Raises:
        ValueError: a size is not a positive int, kernel and output differ in their number of axes, or ``groups`` does
            not divide the channels.
    """

    in_channels: int
    out_channels: int
    kernel_size: int | tuple[int, ...]
    output_size: int | tuple[int, ...]
    groups: int = 1
    bias: bool = False
    batch: int = 1

    def __post_init__(self) -> None:
        for name in ("in_channels", "out_channels", "groups", "batch"):
            _require_positive(name, getattr(self, name))
        for name in ("kernel_size", "output_size"):
            for size in _each_axis(getattr(self, name)):
                _require_positive(name, size)
        if len(_each_axis(self.kernel_size)) != len(_each_axis(self.output_size)):
            raise ValueError(f"kernel_size = {self.kernel_size} and output_size = {self.output_size} differ in axes")
        for name in ("in_channels", "out_channels"):
            if getattr(self, name) % self.groups:
                raise ValueError(f"{name} = {getattr(self, name)} is not divisible by groups = {self.groups}")

    @property
    def outputs(self) -> int:
        """P: output elements of the whole batch."""
        return self.batch * self.out_channels * prod(_each_axis(self.output_size))

    @property
    def products(self) -> int:
        """R: products that are summed into one output, those with zero padding included."""
        return self.in_channels // self.groups * prod(_each_axis(self.kernel_size))


@dataclass(frozen=True, kw_only=True)
class LinearSizes:
    """Sizes of a linear layer.

    Attributes:
        in_features, out_features: I and O, input and output neurons.
        bias: whether one is added to each output.
        rows: vectors it is applied to: the batch times all other leading dimensions of the input.

    Raises:
        ValueError: a size is not a positive int.
    """

    in_features: int
    out_features: int
    bias: bool = False
    rows: int = 1

    def __post_init__(self) -> None:
        for name in ("in_features", "out_features", "rows"):
            _require_positive(name, getattr(self, name))

    @property
    def outputs(self) -> int:
        """P: output elements of all rows."""
        return self.rows * self.out_features

    @property
    def products(self) -> int:
        """R: products that are summed into one output."""
        return self.in_features


@dataclass(frozen=True, kw_only=True)
class TriangleSizes:
    """Sizes of a batch of matrix products of which a triangle is wanted.

    Attributes:
        triangle: "output" if row r of a product has columns 0 to r only, "input" if row r of its first factor has;
            "upper_input" if that has columns r and up only.
        rows, depth, columns: of ``[rows, depth] @ [depth, columns]``.
        batch: products.

    Raises:
        ValueError: a size is not a positive int, or ``triangle`` is none of those.
    """

    triangle: str
    rows: int
    depth: int
    columns: int
    batch: int = 1

    def __post_init__(self) -> None:
        for name in ("rows", "depth", "columns", "batch"):
            _require_positive(name, getattr(self, name))
        if self.triangle not in MULTIPLIED:
            raise ValueError(f"triangle = {self.triangle!r} must be one of {', '.join(MULTIPLIED)}")

    @property
    def outputs(self) -> int:
        """Output elements that are computed, of the whole batch: rows of an upper triangle may have no product."""
        if self.triangle == "output":
            return self.batch * self.elements
        rows = min(self.rows, self.depth) if self.triangle == "upper_input" else self.rows
        return self.batch * rows * self.columns

    @property
    def elements(self) -> int:
        """Of one triangle: row r has r + 1, within the matrix; an upper one is the transpose of such a one."""
        rows, width = self.rows, self.columns if self.triangle == "output" else self.depth
        if self.triangle == "upper_input":
            rows, width = width, rows
        sloping = min(rows, width)
        return sloping * (sloping + 1) // 2 + (rows - sloping) * width


def triangle_exact_mul(product: TriangleSizes) -> int:
    """Multiplications of a triangle: for each of its elements, as many as the side that is no triangle's."""
    return product.batch * product.elements * (product.depth if product.triangle == "output" else product.columns)


def triangle_exact_add(product: TriangleSizes) -> int:
    """Additions of a triangle: one less than the multiplications for each output that is computed."""
    return triangle_exact_mul(product) - product.outputs


def triangle_skipped_mul(product: TriangleSizes) -> int:
    """Multiplications that the dense product has besides: those of the elements beyond the diagonal."""
    return product.batch * product.rows * product.depth * product.columns - triangle_exact_mul(product)


def conv_exact_mul(layer: ConvSizes) -> int:
    """Multiplications that a convolution executes, P R = Ci K^2 H W Co. Source: the article."""
    return _mul(layer)


def conv_exact_add(layer: ConvSizes) -> int:
    """Additions that a convolution executes, P (R - 1), or P R with a bias. Source: the article."""
    return _add(layer)


def conv_exact_flops(layer: ConvSizes) -> int:
    """FLOPs that a convolution executes, (2 Ci K^2 - 1) H W Co, or 2 Ci K^2 H W Co with a bias. Source: the article."""
    return _mul(layer) + _add(layer)


def conv_nvidia_flops(layer: ConvSizes) -> int:
    """FLOPs of a convolution as 2 H W (Ci K^2 + 1) Co, whether or not there is a bias.

    More than the exact number by 3 an output without a bias, and by 2 with one. Source: Molchanov et al., "Pruning
    Convolutional Neural Networks for Resource Efficient Inference", ICLR 2017, appendix.
    """
    return 2 * layer.outputs * (layer.products + 1)


def conv_macs(layer: ConvSizes) -> int:
    """MACs of a convolution, Ci K^2 H W Co, a bias left out. Source: the convention of thop and fvcore."""
    return _mul(layer)


def conv_macs_with_bias(layer: ConvSizes) -> int:
    """MACs of a convolution, and one an output where there is a bias. Source: the convention of ptflops."""
    return _mul(layer) + _bias(layer)


def conv_torch_flops(layer: ConvSizes) -> int:
    """FLOPs of a convolution as 2 x MACs, a bias left out. Source: torch.utils.flop_counter.FlopCounterMode."""
    return 2 * _mul(layer)


def linear_exact_mul(layer: LinearSizes) -> int:
    """Multiplications that a linear layer executes, P R = I O a row. Source: the article."""
    return _mul(layer)


def linear_exact_add(layer: LinearSizes) -> int:
    """Additions that a linear layer executes, P (R - 1), or P R with a bias. Source: the article."""
    return _add(layer)


def linear_exact_flops(layer: LinearSizes) -> int:
    """FLOPs that a linear layer executes, (2 I - 1) O, or 2 I O with a bias, a row. Source: the article."""
    return _mul(layer) + _add(layer)


def linear_nvidia_flops(layer: LinearSizes) -> int:
    """FLOPs of a linear layer as (2 I - 1) O a row, whether or not there is a bias.

    Source: Molchanov et al., "Pruning Convolutional Neural Networks for Resource Efficient Inference", ICLR 2017,
    appendix.
    """
    return layer.outputs * (2 * layer.products - 1)


def linear_macs(layer: LinearSizes) -> int:
    """MACs of a linear layer, I O a row, a bias left out. Source: the convention of thop and fvcore."""
    return _mul(layer)


def linear_macs_with_bias(layer: LinearSizes) -> int:
    """MACs of a linear layer, and one an output where there is a bias. Source: the convention of ptflops."""
    return _mul(layer) + _bias(layer)


def linear_torch_flops(layer: LinearSizes) -> int:
    """FLOPs of a linear layer as 2 x MACs, a bias left out. Source: torch.utils.flop_counter.FlopCounterMode."""
    return 2 * _mul(layer)


Sizes = TypeVar("Sizes", bound="ConvSizes | LinearSizes")


@dataclass(frozen=True)
class Formula(Generic[Sizes]):
    """One row of the table for one operator.

    Attributes:
        function: from the layer's sizes to an int.
        unit: "FLOPs" or "MACs".
        source: who published it.
    """

    function: Callable[[Sizes], int]
    unit: str
    source: str


CONV: Mapping[str, Formula[ConvSizes]] = MappingProxyType(
    {
        "exact": Formula(conv_exact_flops, "FLOPs", ARTICLE),
        "nvidia": Formula(conv_nvidia_flops, "FLOPs", MOLCHANOV),
        "macs": Formula(conv_macs, "MACs", THOP_AND_FVCORE),
        "macs_with_bias": Formula(conv_macs_with_bias, "MACs", PTFLOPS),
        "torch": Formula(conv_torch_flops, "FLOPs", TORCH),
    }
)

LINEAR: Mapping[str, Formula[LinearSizes]] = MappingProxyType(
    {
        "exact": Formula(linear_exact_flops, "FLOPs", ARTICLE),
        "nvidia": Formula(linear_nvidia_flops, "FLOPs", MOLCHANOV),
        "macs": Formula(linear_macs, "MACs", THOP_AND_FVCORE),
        "macs_with_bias": Formula(linear_macs_with_bias, "MACs", PTFLOPS),
        "torch": Formula(linear_torch_flops, "FLOPs", TORCH),
    }
)

# Operator -> name of a formula -> the formula; the names are the same for every operator.
# A matrix product is a linear layer without a bias.
FORMULAS: Mapping[str, Mapping[str, Formula[Any]]] = MappingProxyType(
    {"conv2d": CONV, "conv3d": CONV, "linear": LINEAR, "matmul": LINEAR}
)


def _mul(layer: ConvSizes | LinearSizes) -> int:
    return layer.outputs * layer.products


def _add(layer: ConvSizes | LinearSizes) -> int:
    return layer.outputs * (layer.products - 1) + _bias(layer)


def _bias(layer: ConvSizes | LinearSizes) -> int:
    return layer.outputs if layer.bias else 0


def _each_axis(size: int | tuple[int, ...]) -> tuple[int, ...]:
    return (size, size) if isinstance(size, int) else size


def _require_positive(name: str, size: int) -> None:
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ValueError(f"{name} = {size!r} must be a positive int")

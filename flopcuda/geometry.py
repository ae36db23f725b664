"""From a launch's shapes to what the formulas say of it."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING

from flopcuda.formulas import (
    FORMULAS,
    ConvSizes,
    LinearSizes,
    TriangleSizes,
    conv_exact_add,
    conv_exact_mul,
    linear_exact_add,
    linear_exact_mul,
    triangle_exact_add,
    triangle_exact_mul,
    triangle_skipped_mul,
)
from flopcuda.gradients import befores

if TYPE_CHECKING:
    from flopcuda.report import Launch


def formula_values(launch: Launch) -> dict[str, int]:
    """Name of a formula -> its value for this launch, in the formula's own unit; 0 for one without output elements."""
    formulas = FORMULAS[launch.op]
    if _is_empty(launch):
        return dict.fromkeys(formulas, 0)
    sizes = _conv_sizes(launch) if launch.op.startswith("conv") else _linear_sizes(launch)
    values = {name: formula.function(sizes) for name, formula in formulas.items()}
    triangle = _triangle_sizes(launch)
    return values | {"exact": triangle_exact_mul(triangle) + triangle_exact_add(triangle)} if triangle else values


def exact_counts(launch: Launch) -> tuple[int, int, int]:
    """The ``mul``, ``add`` and ``pad`` that a correct kernel executes for this launch."""
    if _is_empty(launch):
        return (0, 0, 0)
    if launch.op.startswith("conv"):
        conv = _conv_sizes(launch)
        return (conv_exact_mul(conv), conv_exact_add(conv), _padded_products(launch, conv))
    triangle = _triangle_sizes(launch)
    if triangle:
        return (triangle_exact_mul(triangle), triangle_exact_add(triangle), 0)
    linear = _linear_sizes(launch)
    return (linear_exact_mul(linear), linear_exact_add(linear), 0)


def skipped_products(launch: Launch) -> int:
    """Those beyond the diagonal that a dense product has and this launch, of a triangle, has not."""
    triangle = None if _is_empty(launch) else _triangle_sizes(launch)
    return triangle_skipped_mul(triangle) if triangle else 0


def _is_empty(launch: Launch) -> bool:
    return prod(launch.output_shape) == 0


def _conv_sizes(launch: Launch) -> ConvSizes:
    out_channels, _, *kernel = launch.weight_shape
    axes = len(kernel)
    batch = prod(launch.output_shape[: -axes - 1])  # 1 for an input without a batch dimension
    return ConvSizes(
        in_channels=launch.input_shape[-axes - 1],
        out_channels=out_channels,
        kernel_size=tuple(kernel),
        output_size=tuple(launch.output_shape[-axes:]),
        groups=launch.options["groups"],
        bias=launch.options["bias"],
        batch=batch,
    )


def _linear_sizes(launch: Launch) -> LinearSizes:
    """A batch of matrix products is a linear layer of all its rows."""
    if launch.op == "matmul":
        in_features, out_features = launch.weight_shape[-2:]
    else:
        out_features, in_features = launch.weight_shape
    return LinearSizes(
        in_features=in_features,
        out_features=out_features,
        bias=launch.options["bias"],
        rows=prod(launch.output_shape[:-1]),
    )


def _triangle_sizes(launch: Launch) -> TriangleSizes | None:
    """Of a product of which a triangle is wanted; None of any other launch."""
    if launch.options.get("triangle") is None:
        return None
    batch, rows, depth = launch.input_shape
    return TriangleSizes(
        triangle=launch.options["triangle"], rows=rows, depth=depth, columns=launch.weight_shape[-1], batch=batch
    )


def _padded_products(launch: Launch, conv: ConvSizes) -> int:
    """Products whose tap lies in the zero padding: all of them, less those inside the image in each axis."""
    before = befores(launch.options["padding"])
    inside = taps_inside(
        launch.input_shape[-len(before) :],
        launch.output_shape[-len(before) :],
        launch.weight_shape[-len(before) :],
        launch.options["stride"],
        launch.options["dilation"],
        before,
    )
    images_and_channels = conv.batch * conv.out_channels * (conv.in_channels // conv.groups)
    return conv_exact_mul(conv) - images_and_channels * inside


def taps_inside(
    sizes: Sequence[int],
    outs: Sequence[int],
    kernels: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    before: Sequence[int],
) -> int:
    """Pairs of an output position and a kernel tap that fall on the image; each argument has a value for each axis."""
    axes = zip(sizes, outs, kernels, strides, dilations, before, strict=True)
    return prod(_taps_inside(*axis) for axis in axes)


def _taps_inside(size: int, out: int, kernel: int, stride: int, dilation: int, before: int) -> int:
    """Those along one axis."""
    return sum(0 <= o * stride + k * dilation - before < size for o in range(out) for k in range(kernel))

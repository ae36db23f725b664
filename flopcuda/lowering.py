"""What torch's own matrix products and convolutions are in terms of the counted operators.

A lowering takes ``run``, which executes one counted operator and keeps its record, and the arguments of an ATen
operator; it gives what that operator would. :mod:`flopcuda.registry` says which operator has which.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from flopcuda.gradients import (
    Run,
    bias_gradient,
    conv2d,
    conv2d_weight,
    transposed_conv2d,
    transposed_conv2d_input,
)

Lowering = Callable[..., Any]


def mm(run: Run, a: Tensor, b: Tensor) -> Tensor:
    """``a @ b``; a transposed view of a contiguous matrix, as ``F.linear`` makes of its weight, needs no copy."""
    if b.t().is_contiguous():
        return run("linear", a, b.t())
    return run("matmul", a.unsqueeze(0), b.unsqueeze(0)).squeeze(0)


def addmm(run: Run, addend: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """A bias that fits ``F.linear`` is added by the kernel, and counted; any other sum is torch's."""
    if addend.shape == b.shape[1:] and b.t().is_contiguous() and (beta, alpha) == (1, 1):
        return run("linear", a, b.t(), addend)
    return scaled_sum(addend, beta, mm(run, a, b), alpha)


def bmm(run: Run, a: Tensor, b: Tensor) -> Tensor:
    return run("matmul", a, b)


def baddbmm(run: Run, addend: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    return scaled_sum(addend, beta, bmm(run, a, b), alpha)


def addbmm(run: Run, addend: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """The products of all batches go into one sum: one product with all of them side by side."""
    product = mm(run, a.transpose(0, 1).flatten(1), b.flatten(0, 1))
    return scaled_sum(addend, beta, product, alpha)


def mv(run: Run, a: Tensor, x: Tensor) -> Tensor:
    return run("linear", x.unsqueeze(0), a).squeeze(0)


def addmv(run: Run, addend: Tensor, a: Tensor, x: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    return scaled_sum(addend, beta, mv(run, a, x), alpha)


def dot(run: Run, x: Tensor, y: Tensor) -> Tensor:
    return run("linear", x.unsqueeze(0), y.unsqueeze(0)).reshape(())


def linear(run: Run, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return run("linear", input, weight, bias)


def convolution(
    run: Run,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    *_: Any,
) -> Any:
    """One or two dimensions, transposed or not; three are not counted yet."""
    if input.dim() > 4:
        return NotImplemented
    geometry, flat = _geometry(stride, padding, dilation, groups), input.dim() == 3
    images, filters = _in_two_dimensions(input), _in_two_dimensions(weight)
    if transposed:
        ends = output_padding if len(output_padding) == 2 else (0, *output_padding)
        size = [_transposed_size(axis, images, filters, geometry, ends) for axis in range(2)]
        output = transposed_conv2d(run, images, filters, bias, size, phase="", **geometry)
    else:
        output = run("conv2d", images, filters, bias, **geometry)
    return output.squeeze(2) if flat else output


def convolution_backward(
    run: Run,
    grad: Tensor,
    input: Tensor,
    weight: Tensor,
    bias_sizes: Sequence[int] | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    output_mask: Sequence[bool],
) -> Any:
    """Gradients of input, weight and bias, those that are asked for."""
    if input.dim() > 4:
        return NotImplemented
    geometry = _geometry(stride, padding, dilation, groups)
    grads, images, filters = (_in_two_dimensions(tensor) for tensor in (grad, input, weight))
    if transposed:
        size = images.shape[-2:]
        of_input = transposed_conv2d_input(run, grads, filters, size, **geometry) if output_mask[0] else None
        of_weight = conv2d_weight(run, images, grads, filters.shape[-2:], **geometry) if output_mask[1] else None
    else:
        of_input, of_weight = conv2d(run, grads, images, filters, output_mask, **geometry)
    of_bias = bias_gradient("conv2d", grad) if output_mask[2] else None
    return (
        None if of_input is None else of_input.view(input.shape),
        None if of_weight is None else of_weight.reshape(weight.shape),
        of_bias,
    )


def _in_two_dimensions(tensor: Tensor) -> Tensor:
    """A line is an image of one row."""
    return tensor.unsqueeze(2) if tensor.dim() == 3 else tensor


def _geometry(stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int], groups: int) -> dict[str, Any]:
    """The options of a counted convolution, from torch's for one or two dimensions."""
    if len(stride) == 1:
        stride, padding, dilation = (1, *stride), (0, *padding), (1, *dilation)
    rows, columns = padding
    sides = (columns, columns, rows, rows)
    return {"stride": tuple(stride), "padding": sides, "dilation": tuple(dilation), "groups": groups}


def _transposed_size(
    axis: int, images: Tensor, filters: Tensor, geometry: Mapping[str, Any], ends: Sequence[int]
) -> int:
    """Output rows or columns of a transposed convolution. Source: torch.nn.ConvTranspose2d."""
    stride, dilation = geometry["stride"][axis], geometry["dilation"][axis]
    padding = geometry["padding"][2 - 2 * axis]
    return int(
        (images.shape[axis - 2] - 1) * stride - 2 * padding + dilation * (filters.shape[axis - 2] - 1) + ends[axis] + 1
    )


def scaled_sum(addend: Tensor, beta: float, product: Tensor, alpha: float) -> Tensor:
    """``beta * addend + alpha * product``; as in torch, a beta of 0 leaves the addend out, whatever it holds."""
    scaled = product if alpha == 1 else alpha * product
    return scaled if beta == 0 else scaled.add(addend, alpha=beta)

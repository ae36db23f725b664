"""What torch's own matrix products and convolutions are in terms of the counted operators.

A lowering takes ``run``, which executes one counted operator and keeps its record, and the arguments of an ATen
operator; it gives what that operator would. :mod:`flopcuda.registry` says which operator has which.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from flopcuda import gradients, triangles
from flopcuda.gradients import (
    Run,
    befores,
    bias_gradient,
    convolution_weight,
    operator_of,
    sides_of,
    transposed_convolution,
    transposed_convolution_input,
)

Lowering = Callable[..., Any]


def mm(run: Run, a: Tensor, b: Tensor, *, triangle: str | None = None) -> Tensor:
    """``a @ b``; a transposed view of a contiguous matrix, as ``F.linear`` makes of its weight, needs no copy."""
    if b.t().is_contiguous() and triangle is None:
        return run("linear", a, b.t())
    return bmm(run, a.unsqueeze(0), b.unsqueeze(0), triangle=triangle).squeeze(0)


def addmm(run: Run, addend: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """A bias that fits ``F.linear`` is added by the kernel, and counted; any other sum is torch's."""
    if addend.shape == b.shape[1:] and b.t().is_contiguous() and (beta, alpha) == (1, 1):
        return run("linear", a, b.t(), addend)
    return scaled_sum(addend, beta, mm(run, a, b), alpha)


def bmm(run: Run, a: Tensor, b: Tensor, *, triangle: str | None = None) -> Tensor:
    return triangles.multiply(run, a, b, triangle)


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
    """In one, two or three dimensions, transposed or not; a line is an image of one row."""
    geometry = _geometry(stride, padding, dilation, groups)
    images, filters = _with_rows(input), _with_rows(weight)
    if transposed:
        ends = output_padding if len(output_padding) > 1 else (0, *output_padding)
        size = _transposed_size(images, filters, ends, geometry)
        output = transposed_convolution(run, images, filters, bias, size, phase="", **geometry)
    else:
        output = run(operator_of(images), images, filters, bias, **geometry)
    return output.squeeze(2) if input.dim() == 3 else output


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
    geometry = _geometry(stride, padding, dilation, groups)
    grads, images, filters = (_with_rows(tensor) for tensor in (grad, input, weight))
    if transposed:
        size, kernel_size = images.shape[2:], filters.shape[2:]
        of_input = transposed_convolution_input(run, grads, filters, size, **geometry) if output_mask[0] else None
        of_weight = convolution_weight(run, images, grads, kernel_size, **geometry) if output_mask[1] else None
    else:
        of_input, of_weight = gradients.convolution(run, grads, images, filters, output_mask, **geometry)
    of_bias = bias_gradient("convolution", grad) if output_mask[2] else None
    return (
        None if of_input is None else of_input.view(input.shape),
        None if of_weight is None else of_weight.reshape(weight.shape),
        of_bias,
    )


def _with_rows(tensor: Tensor) -> Tensor:
    """A line as an image of one row."""
    return tensor.unsqueeze(2) if tensor.dim() == 3 else tensor


def _geometry(stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int], groups: int) -> dict[str, Any]:
    """The options of a counted convolution, from torch's."""
    if len(stride) == 1:
        stride, padding, dilation = (1, *stride), (0, *padding), (1, *dilation)
    sides = sides_of(padding, padding)
    return {"stride": tuple(stride), "padding": sides, "dilation": tuple(dilation), "groups": groups}


def _transposed_size(
    images: Tensor, filters: Tensor, output_padding: Sequence[int], geometry: Mapping[str, Any]
) -> list[int]:
    """Of each axis of a transposed convolution's output. Source: torch.nn.ConvTranspose2d."""
    axes = zip(
        images.shape[2:],
        filters.shape[2:],
        output_padding,
        geometry["stride"],
        geometry["dilation"],
        befores(geometry["padding"]),
        strict=True,
    )
    return [
        (size - 1) * stride - 2 * padding + dilation * (kernel - 1) + more + 1
        for size, kernel, more, stride, dilation, padding in axes
    ]


def scaled_sum(addend: Tensor, beta: float, product: Tensor, alpha: float) -> Tensor:
    """``beta * addend + alpha * product``; as in torch, a beta of 0 leaves the addend out, whatever it holds."""
    scaled = product if alpha == 1 else alpha * product
    return scaled if beta == 0 else scaled.add(addend, alpha=beta)

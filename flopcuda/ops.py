"""The counted operators as torch sees them: loading, fake kernels, autograd, and checks no C++ kernel gets to make.

``conv2d`` and ``linear`` return ``(output, counters)``; counters is an int64 tensor of [mul, add, pad, zero, lane] on
the device that computed the output.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from flopcuda import _C  # noqa: F401  (loading it registers torch.ops.flopcuda)

COUNTER_FIELDS = ("mul", "add", "pad", "zero", "lane")


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0, 0, 0),
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
    *,
    count_zero: bool = False,
) -> tuple[Tensor, Tensor]:
    """A counted 2-D convolution.

    Args:
        input: float32 ``[batch, in_channels, height, width]``, or without the batch dimension.
        weight: float32 ``[out_channels, in_channels / groups, kernel_height, kernel_width]``.
        bias: float32 ``[out_channels]`` or None.
        stride: rows, columns.
        padding: zeros at the left, right, top and bottom, in the order of ``torch.nn.functional.pad``.
        dilation: rows, columns.
        groups: number of blocked connections from input to output channels.
        count_zero: also count the products that have an operand equal to 0.

    Returns:
        The output, ``[batch, out_channels, out_height, out_width]``, and the counters, int64 ``[5]``.

    Raises:
        RuntimeError: shapes or devices that do not fit together.
        TypeError: a dtype, layout or kind of tensor that the counted kernels do not take.
    """
    check_kind("conv2d", input=input, weight=weight, bias=bias)
    if input.dim() == 3:
        output, counters = conv2d(
            input.unsqueeze(0), weight, bias, stride, padding, dilation, groups, count_zero=count_zero
        )
        return output.squeeze(0), counters
    result: tuple[Tensor, Tensor] = torch.ops.flopcuda.conv2d(
        input, weight, bias, list(stride), list(padding), list(dilation), groups, count_zero
    )
    return result


def linear(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, *, count_zero: bool = False
) -> tuple[Tensor, Tensor]:
    """A counted linear layer.

    Args:
        input: float32 ``[..., in_features]``.
        weight: float32 ``[out_features, in_features]``.
        bias: float32 ``[out_features]`` or None.
        count_zero: also count the products that have an operand equal to 0.

    Returns:
        The output, ``[..., out_features]``, and the counters, int64 ``[5]``.

    Raises:
        RuntimeError: shapes or devices that do not fit together.
        TypeError: a dtype, layout or kind of tensor that the counted kernels do not take.
    """
    check_kind("linear", input=input, weight=weight, bias=bias)
    result: tuple[Tensor, Tensor] = torch.ops.flopcuda.linear(input, weight, bias, count_zero)
    return result


def kernel_name(
    op: str, input: Tensor, weight: Tensor, bias: Tensor | None, *, count_zero: bool, **options: Any
) -> str:
    """The kernel that ``op`` launches for these arguments, as the code that launches it names it."""
    if op == "linear":
        return str(torch.ops.flopcuda.linear_kernel(input, weight, bias, count_zero))
    images = input.unsqueeze(0) if input.dim() == 3 else input
    return str(torch.ops.flopcuda.conv2d_kernel(images, weight, bias, count_zero=count_zero, **options))


def check_kind(op: str, **operands: Tensor | None) -> None:
    """Refuse the tensors for which the dispatcher would answer with a page about its backends, or not notice.

    Raises:
        RuntimeError: the operands are not all on one device.
        TypeError: an operand is nested, sparse, quantised, complex or on a device without counted kernels, or autocast
            is about to change its dtype.
    """
    tensors = {name: operand for name, operand in operands.items() if operand is not None}
    device = tensors["input"].device
    for name, operand in tensors.items():
        if operand.device != device:
            raise RuntimeError(f"{op}: {name} is on {operand.device}, but input is on {device}")
        reason = unsupported_kind(operand)
        if reason:
            raise TypeError(f"{op}: {name} is {reason}; the counted kernels take dense float32 tensors on cpu or cuda")
        kind = operand.device.type
        if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
            dtype = torch.get_autocast_dtype(kind)
            raise TypeError(f"{op}: autocast to {dtype} is on, but the counted kernels take float32 only")


def unsupported_kind(tensor: Tensor) -> str | None:
    """What keeps a tensor from the counted kernels, in a word or two; None when nothing does."""
    if tensor.is_nested:
        return "a nested tensor"
    if tensor.layout != torch.strided:
        return f"of layout {tensor.layout}"
    if tensor.is_quantized:
        return "quantised"
    if tensor.is_complex():
        return f"complex ({tensor.dtype})"
    if tensor.device.type not in ("cpu", "cuda", "meta"):
        return f"on device {tensor.device}"
    return None


OPERATORS: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {"conv2d": conv2d, "linear": linear}


@torch.library.register_fake("flopcuda::conv2d")  # type: ignore[untyped-decorator]
def _conv2d_fake(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    count_zero: bool = False,
) -> tuple[Tensor, Tensor]:
    left, right, top, bottom = padding
    padded = torch.nn.functional.pad(input, (left, right, top, bottom))
    output = torch.nn.functional.conv2d(padded, weight, bias, tuple(stride), 0, tuple(dilation), groups)
    return output, _fake_counters(input)


@torch.library.register_fake("flopcuda::linear")  # type: ignore[untyped-decorator]
def _linear_fake(input: Tensor, weight: Tensor, bias: Tensor | None, count_zero: bool = False) -> tuple[Tensor, Tensor]:
    output = input.new_empty((*input.shape[:-1], weight.shape[0]))
    torch.nn.functional.linear(input, weight, bias)  # for torch's own shape errors
    return output, _fake_counters(input)


def _fake_counters(input: Tensor) -> Tensor:
    return input.new_empty((len(COUNTER_FIELDS),), dtype=torch.int64)


# The gradients are torch's own, and are not counted: training goes on undisturbed while the forward pass is counted.


def _conv2d_setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    input, weight, bias, stride, padding, dilation, groups, _ = inputs
    ctx.save_for_backward(input, weight)
    ctx.bias_sizes = None if bias is None else list(bias.shape)
    ctx.stride, ctx.padding, ctx.dilation, ctx.groups = stride, padding, dilation, groups
    ctx.mark_non_differentiable(output[1])


def _conv2d_backward(ctx: Any, grad_output: Tensor, _grad_counters: Tensor) -> tuple[Tensor | None, ...]:
    input, weight = ctx.saved_tensors
    left, right, top, bottom = ctx.padding
    padded = torch.nn.functional.pad(input, (left, right, top, bottom))
    grad_padded, grad_weight, grad_bias = torch.ops.aten.convolution_backward(
        grad_output,
        padded,
        weight,
        ctx.bias_sizes,
        ctx.stride,
        [0, 0],
        ctx.dilation,
        False,
        [0, 0],
        ctx.groups,
        [ctx.needs_input_grad[0], ctx.needs_input_grad[1], ctx.bias_sizes is not None and ctx.needs_input_grad[2]],
    )
    grad_input = None
    if grad_padded is not None:
        height, width = input.shape[-2:]
        grad_input = grad_padded[..., top : top + height, left : left + width]
    return grad_input, grad_weight, grad_bias, None, None, None, None, None


def _linear_setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    input, weight, _, _ = inputs
    ctx.save_for_backward(input, weight)
    ctx.mark_non_differentiable(output[1])


def _linear_backward(ctx: Any, grad_output: Tensor, _grad_counters: Tensor) -> tuple[Tensor | None, ...]:
    input, weight = ctx.saved_tensors
    rows = grad_output.reshape(-1, weight.shape[0])
    grad_input = grad_output @ weight if ctx.needs_input_grad[0] else None
    grad_weight = rows.t() @ input.reshape(-1, weight.shape[1]) if ctx.needs_input_grad[1] else None
    grad_bias = rows.sum(0) if ctx.needs_input_grad[2] else None
    return grad_input, grad_weight, grad_bias, None


torch.library.register_autograd("flopcuda::conv2d", _conv2d_backward, setup_context=_conv2d_setup_context)
torch.library.register_autograd("flopcuda::linear", _linear_backward, setup_context=_linear_setup_context)

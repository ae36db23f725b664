"""The counted operators as torch sees them: loading, fake kernels, autograd, and checks no C++ kernel gets to make.

``conv2d``, ``conv3d`` and ``linear`` return ``(output, counters)``; counters is an int64 tensor of [mul, add, pad,
zero, lane] on the device that computed the output.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from flopcuda import _C  # noqa: F401  (loading it registers torch.ops.flopcuda)
from flopcuda.gradients import FORWARD, axes_of_taps, bias_gradient, gradients

# Sums are in float32 or, of float64, in float64, and rounded once. Tensor cores multiply float16 and bfloat16 as they
# are, and so do CPUs with AVX512_BF16 the latter; any other kernel has them widened to float32.
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
DTYPE_NAMES = "float32, float64, float16 or bfloat16"
DEVICE_TYPES = ("cpu", "cuda", "meta")
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
    flipped: bool = False,
) -> tuple[Tensor, Tensor]:
    """A counted 2-D convolution.

    Args:
        input: ``[batch, in_channels, height, width]``, or without the batch dimension; of a dtype in :data:`DTYPES`.
        weight: ``[out_channels, in_channels / groups, kernel_height, kernel_width]``, of the same dtype.
        bias: ``[out_channels]`` or None, of the same dtype.
        stride: rows, columns.
        padding: zeros at the left, right, top and bottom, in the order of ``torch.nn.functional.pad``.
        dilation: rows, columns.
        groups: number of blocked connections from input to output channels.
        count_zero: also count the products that have an operand equal to 0.
        flipped: read the last tap of every axis first, as a mathematician's convolution and a gradient do.

    Returns:
        The output, ``[batch, out_channels, out_height, out_width]``, summed in float32 or, of float64, in float64; and
        the counters, int64 ``[5]``. In CUDA, float32 is multiplied as TF32 where :func:`allows_tf32`.

    Raises:
        RuntimeError: shapes or devices that do not fit together.
        TypeError: a dtype, layout or kind of tensor that the counted kernels do not take.
    """
    geometry = (stride, padding, dilation, groups)
    return _convolution(2, (input, weight, bias), geometry, count_zero, allows_tf32("conv2d", input), flipped)


def conv3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sequence[int] = (1, 1, 1),
    padding: Sequence[int] = (0, 0, 0, 0, 0, 0),
    dilation: Sequence[int] = (1, 1, 1),
    groups: int = 1,
    *,
    count_zero: bool = False,
    flipped: bool = False,
) -> tuple[Tensor, Tensor]:
    """A counted 3-D convolution: :func:`conv2d` with a depth before the height, in shapes and options.

    Padding is at the left, right, top, bottom, front and back, in the order of ``torch.nn.functional.pad``.
    """
    geometry = (stride, padding, dilation, groups)
    return _convolution(3, (input, weight, bias), geometry, count_zero, allows_tf32("conv3d", input), flipped)


def _convolution(
    axes: int,
    operands: tuple[Tensor, Tensor, Tensor | None],
    geometry: tuple[Sequence[int], Sequence[int], Sequence[int], int],
    count_zero: bool,
    allow_tf32: bool,
    flipped: bool,
) -> tuple[Tensor, Tensor]:
    """Of images with so many axes, or of one without the batch dimension."""
    op = f"conv{axes}d"
    input, weight, bias = operands
    is_single = input.dim() == axes + 1
    images = input.unsqueeze(0) if is_single else input
    check_operands(op, images, weight, bias)
    stride, padding, dilation, groups = geometry
    output, counters = _CONVOLUTIONS[op](
        images, weight, bias, stride, padding, dilation, groups, count_zero, allow_tf32, flipped
    )
    return (output.squeeze(0) if is_single else output), counters


def linear(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, *, count_zero: bool = False
) -> tuple[Tensor, Tensor]:
    """A counted linear layer.

    Args:
        input: ``[..., in_features]``, of a dtype in :data:`DTYPES`.
        weight: ``[out_features, in_features]``, of the same dtype.
        bias: ``[out_features]`` or None, of the same dtype.
        count_zero: also count the products that have an operand equal to 0.

    Returns:
        The output, ``[..., out_features]``, summed as by :func:`conv2d`; and the counters, int64 ``[5]``.

    Raises:
        RuntimeError: shapes or devices that do not fit together.
        TypeError: a dtype, layout or kind of tensor that the counted kernels do not take.
    """
    check_operands("linear", input, weight, bias)
    output, counters = torch.ops.flopcuda.linear(input, weight, bias, count_zero, allows_tf32("linear", input))
    return output, counters


def matmul(
    input: Tensor, weight: Tensor, bias: None = None, *, triangle: str | None = None, count_zero: bool = False
) -> tuple[Tensor, Tensor]:
    """Counted matrix products.

    In CUDA, and for a triangle on the CPU, a linear layer's kernel computes them, from the transpose of ``weight``,
    which is copied unless it is contiguous. Otherwise they are a pointwise convolution with a group for each of them.

    Args:
        input: ``[batch, rows, depth]``, of a dtype in :data:`DTYPES`.
        weight: ``[batch, depth, columns]``, of the same dtype.
        bias: None, to be called like the other operators.
        triangle: "output" for the products' lower triangles, in which row r has columns 0 to r, and 0 above them;
            "input" if ``input`` is such triangles, "upper_input" if it is upper ones, in which row r has columns r and
            up. What lies beyond the diagonal is not multiplied, or counts as a lane only. Where zeros are counted, all
            of it is multiplied and counted.
        count_zero: also count the products that have an operand equal to 0.

    Returns:
        The output, ``[batch, rows, columns]``, summed as by :func:`conv2d`; and the counters, int64 ``[5]``.

    Raises:
        RuntimeError: shapes or devices that do not fit together.
        TypeError: a dtype, layout or kind of tensor that the counted kernels do not take.
        ValueError: ``triangle`` is none of those.
    """
    check_operands("matmul", input, weight, bias)
    multiplied = None if count_zero else triangle
    output, counters = torch.ops.flopcuda.matmul(input, weight, multiplied, count_zero, allows_tf32("matmul", input))
    return (output.tril() if triangle == "output" and count_zero else output), counters


@dataclass(frozen=True)
class Device:
    """A CUDA device by its description, for a launch that nobody makes.

    Attributes:
        multiprocessors: how many it has.
        rates: multiply-adds a cycle of one of them, by unit, in the order of :func:`flopcuda._C.device_rates`.
        resident_blocks: how many blocks of each kernel of :func:`flopcuda._C.cuda_kernels` one of them holds at a time.
        memory_bytes: that memory moves in a cycle, for each of them; by default, nothing waits for it.
        launch_cycles: between a kernel and the one before it.
    """

    multiprocessors: int
    rates: Sequence[float]
    resident_blocks: Sequence[int]
    memory_bytes: float = float("inf")
    launch_cycles: float = 0.0


@dataclass(frozen=True)
class KernelChoice:
    """What an operator would launch on a device.

    Attributes:
        name: the kernel's.
        splits: parts of the reduction, each a block's; 1 if it is not split.
        blocks: of its grid, those that multiply: none beyond the diagonal of a triangle; 0 if there is nothing to do.
        wave_efficiency: blocks of the average multiprocessor over those of the busiest; 0 without blocks.
        segments: equal parts of the reduction, of which no slice has products of two: a convolution's taps on tensor
            cores, but for those that become channels there, as those of patches do, and of the width where there are
            few channels.
        stored_inputs: numbers of the input as the kernel takes it: with zeros behind its rows, and once for each window
            of a width whose taps are channels.
        padded_inputs: numbers of a copy in between, in which zeros surround that width; 0 if there is none.
        gathers_width: whether the taps of the width have become channels.
    """

    name: str
    splits: int
    blocks: int
    wave_efficiency: float
    segments: int = 1
    stored_inputs: int = 0
    padded_inputs: int = 0
    gathers_width: bool = False


def choose_kernel(
    op: str,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    device: Device,
    count_zero: bool = False,
    allow_tf32: bool = False,
    kernel: str | None = None,
    splits: int | None = None,
    gathers_width: bool | None = None,
    **options: Any,
) -> KernelChoice:
    """The kernel that ``op`` would launch on a device, chosen by the code that chooses it there.

    Args:
        op: "conv2d", "conv3d", "linear" or "matmul".
        input: the operator's; only its shape and dtype are looked at, so that it may be on the meta device.
        weight: the operator's.
        bias: the operator's.
        device: to choose for.
        count_zero: the operator's.
        allow_tf32: whether float32 may be multiplied as TF32.
        kernel: one of ``_C.cuda_kernels()``, to be told how its grid would fill the device.
        splits: into how many parts that kernel is to split the reduction; as many as suit the device by default.
        gathers_width: whether that kernel is to take the taps of the width as channels; as suits the device by default.
        options: the operator's other arguments.

    Raises:
        RuntimeError, TypeError, ValueError: arguments that do not fit together, or that no kernel, or not this one, can
            compute.
    """
    images = input.unsqueeze(0) if op.startswith("conv") and input.dim() == weight.dim() - 1 else input
    operands = [
        None if operand is None else torch.empty(operand.shape, dtype=operand.dtype, device="meta")
        for operand in ((images, weight) if op == "matmul" else (images, weight, bias))
    ]
    axes = weight.dim() - 2
    unit = {"stride": (1,) * axes, "padding": (0,) * (2 * axes), "dilation": (1,) * axes, "groups": 1}
    arguments = {**unit, **options} if op.startswith("conv") else options
    if count_zero:
        arguments.pop("triangle", None)  # as matmul does
    choose = getattr(torch.ops.flopcuda, f"{op}_choice")
    switches = {"count_zero": count_zero, "allow_tf32": allow_tf32}
    wish = {"kernel": kernel, "splits": splits, "gathers_width": gathers_width}
    return KernelChoice(*choose(*operands, **switches, **arguments, **vars(device), **wish))


def allows_tf32(op: str, input: Tensor) -> bool:
    """Whether an operator may multiply its operands as TF32: in CUDA, where torch is set to."""
    return input.is_cuda and is_set_to_tf32(op)


def is_set_to_tf32(op: str) -> bool:
    """Whether torch lets tensor cores multiply the first ten bits of a float32's significand only.

    By default it does in convolutions and not in matrix products. Source: "TensorFloat-32 (TF32) on Ampere (and later)
    devices", https://docs.pytorch.org/docs/stable/notes/cuda.html.
    """
    backend, operation = (torch.backends.cudnn, "conv") if op.startswith("conv") else (torch.backends.cuda, "matmul")
    return bool(getattr(backend, operation).fp32_precision == "tf32")


def check_operands(op: str, input: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    """Refuse what the kernels do not take, with ``op`` in front.

    Raises:
        RuntimeError: the operands are not all on one device, or not all of one dtype.
        TypeError: an operand is nested, sparse, quantised, of another dtype or on a device without counted kernels.
    """
    if _are_alike(input, weight) and (bias is None or _are_alike(input, bias)) and unsupported_kind(input) is None:
        return  # the shortest way for what is as it should be
    operands = {"input": input, "weight": weight, "bias": bias}
    for name, operand in operands.items():
        if operand is None:
            continue
        if operand.device != input.device:
            raise RuntimeError(f"{op}: {name} is on {operand.device}, but input is on {input.device}")
        reason = unsupported_kind(operand)
        if reason:
            raise TypeError(f"{op}: {name} is {reason}; the counted kernels take dense tensors of {DTYPE_NAMES}")
        if operand.dtype != input.dtype:
            raise RuntimeError(f"{op}: {name} is of {operand.dtype}, but input is of {input.dtype}")


def _are_alike(a: Tensor, b: Tensor) -> bool:
    """Whether what holds of one tensor's dtype, device and layout holds of another's."""
    return (
        a.dtype is b.dtype
        and a.device == b.device
        and a.layout is b.layout
        and a.is_nested == b.is_nested
        and a.is_quantized == b.is_quantized
    )


def is_autocast() -> bool:
    """Whether autocast is on for any device."""
    return torch._C._is_any_autocast_enabled()


def autocast(operand: Tensor) -> Tensor:
    """The operand in the dtype that autocast gives to matrix products and convolutions, where it is on."""
    kind = operand.device.type
    if not (operand.is_floating_point() and torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)):
        return operand
    return operand.to(torch.get_autocast_dtype(kind))


def unsupported_kind(tensor: Tensor) -> str | None:
    """What keeps a tensor from the counted kernels, in a word or two; None when nothing does."""
    if tensor.is_nested:
        return "a nested tensor"
    if tensor.layout != torch.strided:
        return f"of layout {tensor.layout}"
    if tensor.is_quantized:
        return "quantised"
    if tensor.dtype not in DTYPES:
        return f"of {tensor.dtype}"
    if tensor.device.type not in DEVICE_TYPES:
        return f"on device {tensor.device}"
    return None


_CONVOLUTIONS = {op: getattr(torch.ops.flopcuda, op).default for op in ("conv2d", "conv3d")}

OPERATORS: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
    "conv2d": conv2d,
    "conv3d": conv3d,
    "linear": linear,
    "matmul": matmul,
}


@torch.library.register_fake("flopcuda::conv2d")  # type: ignore[untyped-decorator]
@torch.library.register_fake("flopcuda::conv3d")  # type: ignore[untyped-decorator]
def _convolution_fake(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    count_zero: bool = False,
    allow_tf32: bool = False,
    flipped: bool = False,
) -> tuple[Tensor, Tensor]:
    convolve = torch.nn.functional.conv3d if weight.dim() == 5 else torch.nn.functional.conv2d
    padded = torch.nn.functional.pad(input, tuple(padding))
    output = convolve(padded, weight, bias, tuple(stride), 0, tuple(dilation), groups)
    return output, _fake_counters(input)


@torch.library.register_fake("flopcuda::linear")  # type: ignore[untyped-decorator]
def _linear_fake(
    input: Tensor, weight: Tensor, bias: Tensor | None, count_zero: bool = False, allow_tf32: bool = False
) -> tuple[Tensor, Tensor]:
    output = input.new_empty((*input.shape[:-1], weight.shape[0]))
    torch.nn.functional.linear(input, weight, bias)  # for torch's own shape errors
    return output, _fake_counters(input)


@torch.library.register_fake("flopcuda::matmul")  # type: ignore[untyped-decorator]
def _matmul_fake(
    input: Tensor, weight: Tensor, triangle: str | None = None, count_zero: bool = False, allow_tf32: bool = False
) -> tuple[Tensor, Tensor]:
    return input.bmm(weight), _fake_counters(input)


# FlopCounterMode counts an instrumented model as it counts the original one: 2 FLOPs a MAC.


@register_flop_formula([torch.ops.flopcuda.conv2d, torch.ops.flopcuda.conv3d])
def _convolution_flops(input: Sequence[int], weight: Sequence[int], *_: Any, out_shape: Any, **__: Any) -> int:
    return int(2 * prod(out_shape[0]) * prod(weight[1:]))


@register_flop_formula(torch.ops.flopcuda.linear)
def _linear_flops(input: Sequence[int], weight: Sequence[int], *_: Any, out_shape: Any, **__: Any) -> int:
    return int(2 * prod(out_shape[0]) * weight[1])


@register_flop_formula(torch.ops.flopcuda.matmul)
def _matmul_flops(input: Sequence[int], weight: Sequence[int], *_: Any, out_shape: Any, **__: Any) -> int:
    return int(2 * prod(input) * weight[2])


def _fake_counters(input: Tensor) -> Tensor:
    return input.new_empty((len(COUNTER_FIELDS),), dtype=torch.int64)


# Gradients of the bare operators, for callers that keep no record; a session's are in flopcuda.autograd.


def _run(
    op: str, input: Tensor, weight: Tensor, bias: Tensor | None = None, *, phase: str = FORWARD, **options: Any
) -> Tensor:
    return OPERATORS[op](input, weight, bias, **options)[0]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    input, weight, *ctx.rest = inputs
    ctx.save_for_backward(input, weight)
    ctx.mark_non_differentiable(output[1])


def _backward(op: str, options: Sequence[str]) -> Callable[..., tuple[Tensor | None, ...]]:
    """Of an operator that takes these after input and weight, and then how it is to be computed."""

    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        input, weight = ctx.saved_tensors
        arguments = dict(zip(options, ctx.rest, strict=False))
        for name in ("bias", "count_zero", "allow_tf32"):
            arguments.pop(name, None)
        flipped = arguments.pop("flipped", False)
        taps = weight.flip(axes_of_taps(weight)) if flipped else weight
        of_input, of_weight = gradients(op, _run, grad, input, taps, ctx.needs_input_grad, **arguments)
        if flipped and of_weight is not None:
            of_weight = of_weight.flip(axes_of_taps(weight))
        of_rest: list[Tensor | None] = [None for _ in ctx.rest]
        if "bias" in options and ctx.needs_input_grad[2]:
            of_rest[0] = bias_gradient(op, grad)
        return of_input, of_weight, *of_rest

    return backward


_CONVOLUTION = ("bias", "stride", "padding", "dilation", "groups", "count_zero", "allow_tf32", "flipped")
for _op, _options in (
    ("conv2d", _CONVOLUTION),
    ("conv3d", _CONVOLUTION),
    ("linear", ("bias",)),
    ("matmul", ("triangle",)),
):
    torch.library.register_autograd(f"flopcuda::{_op}", _backward(_op, _options), setup_context=_setup_context)

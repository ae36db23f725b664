"""The gradients of the counted operators, as counted operators of their own.

``run`` computes an operator and keeps its record: ``run(op, input, weight, bias, phase=..., **options)``. Everything
else here moves data. A gradient that nobody needs is not computed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, wraps
from itertools import chain, product
from typing import Any, Protocol, TypeVar, cast

import torch
from torch import Tensor

from flopcuda import _C, triangles

# What a product adds up to. BACKWARD stands where torch's own formula does not say to which of the two gradients.
FORWARD, BACKWARD, BACKWARD_INPUT, BACKWARD_WEIGHT = "forward", "backward", "backward_input", "backward_weight"
_Function = TypeVar("_Function", bound=Callable[..., Any])
Sides = tuple[int, ...]  # zeros before and behind each axis, the last first: left, right, top, bottom


class Run(Protocol):
    """Executes one of :data:`flopcuda.ops.OPERATORS` for input, weight and bias, and gives its output.

    Of a convolution, ``flipped=True`` has the last tap of every axis read first.
    """

    def __call__(
        self,
        op: str,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        *,
        phase: str = ...,
        **options: Any,
    ) -> Tensor: ...


Gradients = tuple[Tensor | None, Tensor | None]  # of input and weight


def in_order(
    operands: tuple[Tensor, Tensor, Tensor | None], options: Mapping[str, Any]
) -> tuple[tuple[Tensor, Tensor, Tensor | None], Mapping[str, Any]]:
    """What an operator is given by a :class:`Run`, for one who reads taps in their order only."""
    if not options.get("flipped", False):
        return operands, options
    input, weight, bias = operands
    others = {name: value for name, value in options.items() if name != "flipped"}
    return (input, weight.flip(axes_of_taps(weight)), bias), others


def axes_of_taps(weight: Tensor) -> tuple[int, ...]:
    """All but those of channels."""
    return tuple(range(2, weight.dim()))


def linear(run: Run, grad: Tensor, input: Tensor, weight: Tensor, needs: Sequence[bool]) -> Gradients:
    """Of ``input @ weight.T``: ``grad @ weight`` and ``grad.T @ input``, over all rows."""
    rows, inputs = grad.reshape(1, -1, weight.shape[0]), input.reshape(1, -1, weight.shape[1])
    of_input = run("matmul", rows, weight.unsqueeze(0), phase=BACKWARD_INPUT).view(input.shape) if needs[0] else None
    of_weight = run("matmul", rows.transpose(1, 2), inputs, phase=BACKWARD_WEIGHT).squeeze(0) if needs[1] else None
    return of_input, of_weight


def matmul(
    run: Run, grad: Tensor, input: Tensor, weight: Tensor, needs: Sequence[bool], *, triangle: str | None = None
) -> Gradients:
    """Of batches of ``input @ weight``; of a triangle, both are products of triangles, too.

    Args:
        run: executes a counted operator.
        grad: ``[batch, rows, columns]``.
        input: ``[batch, rows, depth]``.
        weight: ``[batch, depth, columns]``.
        needs: as :func:`gradients` takes it.
        triangle: as :func:`flopcuda.ops.matmul` takes it.
    """
    first, second = triangles.OF_GRADIENTS[triangle] if triangle else (None, None)
    grad = grad.tril() if triangle == "output" else grad
    of_input = of_weight = None
    if needs[0]:
        of_input = triangles.multiply(run, grad, weight.transpose(1, 2), first, phase=BACKWARD_INPUT)
    if needs[1]:
        of_weight = triangles.multiply(run, input.transpose(1, 2), grad, second, phase=BACKWARD_WEIGHT)
    return of_input, of_weight


def convolution(
    run: Run,
    grad: Tensor,
    input: Tensor,
    weight: Tensor,
    needs: Sequence[bool],
    *,
    stride: Sequence[int],
    padding: Sides,
    dilation: Sequence[int],
    groups: int,
) -> Gradients:
    """Of a convolution of ``[batch, channels, (depth,) height, width]``."""
    geometry: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    of_input = None
    if needs[0]:
        of_input = transposed_convolution(run, grad, weight, None, input.shape[2:], phase=BACKWARD_INPUT, **geometry)
    of_weight = convolution_weight(run, grad, input, weight.shape[2:], **geometry) if needs[1] else None
    return of_input, of_weight


def bias_gradient(op: str, grad: Tensor) -> Tensor:
    """The sum over all but channels or features: additions without a product, which no counter counts."""
    of_outputs = 1 if op.startswith("conv") else grad.dim() - 1
    summed = [axis for axis in range(grad.dim()) if axis != of_outputs]
    return grad.sum(summed) if summed else grad.clone()


_GRADIENTS: Mapping[str, Callable[..., Gradients]] = {
    "linear": linear,
    "matmul": matmul,
    "conv2d": convolution,
    "conv3d": convolution,
}


def gradients(
    op: str, run: Run, grad: Tensor, input: Tensor, weight: Tensor, needs: Sequence[bool], **options: Any
) -> Gradients:
    """Of an operator's input and weight, from its output's; None for what is not needed.

    Args:
        op: "conv2d", "conv3d", "linear" or "matmul".
        run: executes a counted operator.
        grad: of the output.
        input: the operator's.
        weight: the operator's.
        needs: whether the gradient of input and of weight is needed.
        options: the operator's.
    """
    if grad.numel():
        return _GRADIENTS[op](run, grad, input, weight, needs, **options)
    return torch.zeros_like(input) if needs[0] else None, torch.zeros_like(weight) if needs[1] else None


def dense(tensor: Tensor) -> Tensor:
    """``tensor.contiguous()``; where no gradient is asked for, of transposed ones in less time than torch takes."""
    return tensor.contiguous() if torch.is_grad_enabled() else _C.dense(tensor)


def operator_of(images: Tensor) -> str:
    """The counted convolution of so many axes."""
    return f"conv{images.dim() - 2}d"


def convolution_weight(
    run: Run,
    grad: Tensor,
    input: Tensor,
    kernel_size: Sequence[int],
    *,
    stride: Sequence[int],
    padding: Sides,
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """The weight's gradient: the input convolved with ``grad``, images taking the place of channels.

    A tap of the one is an output of the other, so that stride and dilation change places. Same products, and the same
    ones of them in the padding, as forward. Kernels read outputs that are neighbours on the last axis, where channels
    are packed, too, those of a tap before the next one's; unless its taps are further apart than its inputs. More
    channels than such taps are an axis of their own, in 2-D.
    """
    out_channels, channels = grad.shape[1], input.shape[1] // groups
    images = _channels_first(input, groups)
    filters = grad.transpose(0, 1)  # [out_channels, batch, ...]
    images, sides = _fit(images, kernel_size, grad.shape[2:], dilation, padding, stride)
    if not images.numel():  # every tap of every output lies in the padding
        return grad.new_zeros(out_channels, channels, *kernel_size)
    options: dict[str, Any]
    if len(kernel_size) == 2 and dilation[-1] > 1 and channels > kernel_size[-1]:
        options = {"stride": (*dilation, 1), "padding": (0, 0, *sides), "dilation": (*stride, 1), "groups": groups}
        images, filters = images.movedim(0, -1).unsqueeze(0), filters.unsqueeze(-1)
        return run("conv3d", images, filters, phase=BACKWARD_WEIGHT, **options).squeeze(0).movedim(-1, 1)
    packed = channels if dilation[-1] == 1 else 1
    images = dense(images.view(-1, packed, *images.shape[1:]).movedim(1, -1)).flatten(-2)
    options = {
        "stride": tuple(dilation),
        "padding": (packed * sides[0], packed * sides[1], *sides[2:]),
        "dilation": (*stride[:-1], packed * stride[-1]),
        "groups": groups,
    }
    gradient = run(operator_of(images), images, filters, phase=BACKWARD_WEIGHT, **options)
    taps = gradient.view(*gradient.shape[:-1], -1, packed).movedim(-1, 1)
    return taps.reshape(channels, out_channels, *kernel_size).transpose(0, 1)


def transposed_convolution_input(
    run: Run,
    grad: Tensor,
    weight: Tensor,
    input_size: Sequence[int],
    *,
    stride: Sequence[int],
    padding: Sides,
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """The input's gradient of a transposed convolution: a convolution, with as many outputs as it had inputs."""
    images, sides = _fit(grad, input_size, weight.shape[2:], stride, padding, dilation)
    if not images.numel():  # every tap of every output lies in the padding
        return grad.new_zeros(grad.shape[0], weight.shape[0], *input_size)
    options: dict[str, Any] = {"stride": tuple(stride), "padding": sides, "dilation": tuple(dilation)}
    return run(operator_of(images), images, weight, phase=BACKWARD_INPUT, groups=groups, **options)


def transposed_convolution(
    run: Run,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    output_size: Sequence[int],
    *,
    phase: str,
    stride: Sequence[int],
    padding: Sides,
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """A transposed convolution, which is also the gradient of a convolution's input.

    Outputs whose positions agree modulo the stride meet the same taps, and are a convolution with those, of stride 1:
    one launch for each such phase, in which no product is with an inserted zero.

    Args:
        run: executes a counted operator.
        input: ``[batch, in_channels, (depth,) height, width]``.
        weight: ``[in_channels, out_channels / groups, (depth,) height, width]``.
        bias: ``[out_channels]`` or None.
        output_size: of the output's axes.
        phase: for the records; "" for that of the operator which this is part of.
        stride: of the convolution that this is the transpose of, for each axis.
        padding: of that convolution.
        dilation: of that convolution.
        groups: of that convolution.
    """
    shape = (input.shape[0], weight.shape[1] * groups, *output_size)
    sizes = tuple(output_size), input.shape[2:], weight.shape[2:], tuple(stride), befores(padding), tuple(dilation)
    phases, is_reached = _phases(*sizes)
    if is_reached and max(stride) == 1:  # nothing to put together
        return _phase_outputs(run, input, weight, bias, phases[0], shape, phase, groups)
    output = input.new_empty(shape) if is_reached else _without_products(input, bias, shape)
    for outputs in phases:
        part = output
        for i, axis in enumerate(outputs, start=2):
            part = part[(slice(None),) * i + (slice(axis.first, None, stride[i - 2]),)]
        part.copy_(_phase_outputs(run, input, weight, bias, outputs, part.shape, phase, groups))
    return output


def _remembered(function: _Function) -> _Function:
    """What only depends on sizes is the same for each step of a training, and takes a part of a small layer's time."""
    cached = lru_cache(maxsize=4096)(function)

    @wraps(function)
    def call(*arguments: Any) -> Any:
        try:
            return cached(*arguments)
        except TypeError:  # sizes that are symbols, as torch.compile has them, have no hash
            return function(*arguments)

    return cast(_Function, call)


@dataclass(frozen=True)
class _Axis:
    """One axis of a phase: its first output, its taps in the order of the positions they read, and the padding that
    these need.
    """

    first: int
    taps: tuple[int, ...]
    before: int
    after: int
    dilation: int

    @property
    def tap_slice(self) -> slice:
        """The taps, the last one read first: they are equally far apart."""
        return slice(self.taps[-1], self.taps[0] + 1, self.taps[0] - self.taps[1] if len(self.taps) > 1 else 1)


def _phase_axis(
    first: int, out_size: int, in_size: int, kernel: int, stride: int, padding: int, dilation: int
) -> _Axis | None:
    """The axis for outputs ``first``, ``first + stride``, ...; None if there are none, or no tap reaches them.

    Output ``first + q * stride`` reads, for tap t, position ``q + (first + padding - t * dilation) / stride`` of the
    input, where that division leaves no rest.
    """
    outputs = len(range(first, out_size, stride))
    taps = tuple(tap for tap in reversed(range(kernel)) if (first + padding - tap * dilation) % stride == 0)
    if not outputs or not taps:
        return None
    offsets = [(first + padding - tap * dilation) // stride for tap in taps]
    step = offsets[1] - offsets[0] if len(offsets) > 1 else 1
    return _Axis(first, taps, -offsets[0], outputs + offsets[-1] - in_size, step)


@_remembered
def _phases(
    output_size: Sequence[int],
    input_size: Sequence[int],
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> tuple[list[tuple[_Axis, ...]], bool]:
    """Those of a transposed convolution that have outputs and taps, and whether all have."""
    sizes = zip(output_size, input_size, kernel_size, stride, padding, dilation, strict=True)
    axes = [[_phase_axis(first, *size) for first in range(size[3])] for size in sizes]
    reached = [tuple(phase) for phase in product(*axes) if all(phase)]
    return cast("list[tuple[_Axis, ...]]", reached), all(chain.from_iterable(axes))


def _phase_outputs(
    run: Run,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    axes: Sequence[_Axis],
    shape: Sequence[int],
    phase: str,
    groups: int,
) -> Tensor:
    images, sides = _crop(input, sides_of([axis.before for axis in axes], [axis.after for axis in axes]))
    if not images.numel():
        return _without_products(input, bias, shape)
    filters = _out_channels_first(_taps(weight, axes), groups)
    options: dict[str, Any] = {
        "stride": (1,) * len(axes),
        "padding": sides,
        "dilation": tuple([axis.dilation for axis in axes]),
    }
    if any(len(axis.taps) > 1 for axis in axes):
        if torch.is_grad_enabled():
            filters = filters.flip(axes_of_taps(filters))
        else:  # as it reads them, which takes no copy
            options["flipped"] = True
    return run(operator_of(images), images, filters, bias, phase=phase, groups=groups, **options)


def _without_products(input: Tensor, bias: Tensor | None, shape: Sequence[int]) -> Tensor:
    """Outputs that no input reaches."""
    if bias is None:
        return input.new_zeros(shape)
    return bias.view(-1, *[1] * (len(shape) - 2)).expand(shape).clone(memory_format=torch.contiguous_format)


def _taps(weight: Tensor, axes: Sequence[_Axis]) -> Tensor:
    """Those of a phase, in the order of the weight."""
    for i, axis in enumerate(axes, start=2):
        if len(axis.taps) < weight.shape[i]:
            weight = weight[(slice(None),) * i + (axis.tap_slice,)]
    return weight


def _fit(
    images: Tensor,
    out_size: Sequence[int],
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sides,
    dilation: Sequence[int],
) -> tuple[Tensor, Sides]:
    """Images and padding at their ends with which a convolution has exactly so many outputs."""
    sizes = images.shape[2:], tuple(out_size), tuple(kernel_size), tuple(stride), befores(padding), tuple(dilation)
    return _crop(images, _fitting_sides(*sizes))


@_remembered
def _fitting_sides(
    in_size: Sequence[int],
    out_size: Sequence[int],
    kernel_size: Sequence[int],
    stride: Sequence[int],
    before: Sequence[int],
    dilation: Sequence[int],
) -> Sides:
    sizes = zip(in_size, out_size, kernel_size, stride, before, dilation, strict=True)
    behind = [
        dilation * (kernel - 1) + stride * (outputs - 1) + 1 - inputs - before
        for inputs, outputs, kernel, stride, before, dilation in sizes
    ]
    return sides_of(before, behind)


def befores(sides: Sides) -> tuple[int, ...]:
    """The zeros before each axis, the first axis first."""
    return sides[-2::-2]


def sides_of(before: Sequence[int], behind: Sequence[int]) -> Sides:
    """The zeros before and behind each axis, given the first axis first."""
    return tuple(chain.from_iterable(reversed(list(zip(before, behind, strict=True)))))


def _split(tensor: Tensor, axis: int, groups: int) -> Tensor:
    """An axis of channels as two, groups first."""
    return tensor.reshape(*tensor.shape[:axis], groups, -1, *tensor.shape[axis + 1 :])


def _out_channels_first(weight: Tensor, groups: int) -> Tensor:
    """[out_channels, in_channels / groups, ...] of [in_channels, out_channels / groups, ...]."""
    if groups == 1:  # what the other way comes to, in one step
        return weight.transpose(0, 1)
    return _split(weight, 0, groups).transpose(1, 2).flatten(0, 1)


def _channels_first(images: Tensor, groups: int) -> Tensor:
    """[channels / groups, groups * batch, ...] of [batch, channels, ...]."""
    if groups == 1:
        return images.transpose(0, 1)
    return _split(images, 1, groups).transpose(0, 2).flatten(1, 2)


def _crop(images: Tensor, sides: Sides) -> tuple[Tensor, Sides]:
    """Images without the rows and columns that negative padding takes away, and the padding that is left."""
    crops, left = _crops(images.shape, sides)
    for axis, first, length in crops:
        images = images.narrow(axis, first, length)
    return images, left


@_remembered
def _crops(shape: Sequence[int], sides: Sides) -> tuple[list[tuple[int, int, int]], Sides]:
    """Axes with the first and the number of the rows that stay on them, and the padding that is left."""
    crops = []
    for axis, (before, behind) in enumerate(zip(sides[::2], sides[1::2], strict=True), start=1):
        if before < 0 or behind < 0:
            first = min(max(-before, 0), shape[-axis])
            crops.append((-axis, first, max(shape[-axis] - first - max(-behind, 0), 0)))
    return crops, tuple([max(side, 0) for side in sides])

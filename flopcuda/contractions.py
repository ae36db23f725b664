"""Operators of torch that hide several products behind another name, as those products."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor
from torch.nn import functional

from flopcuda.gradients import Run
from flopcuda.lowering import addmm, convolution, scaled_sum


def addr(run: Run, addend: Tensor, x: Tensor, y: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """An outer product is a matrix product over an inner size of 1."""
    return scaled_sum(addend, beta, run("matmul", x.view(1, -1, 1), y.view(1, 1, -1)).squeeze(0), alpha)


def addmm_activation(
    run: Run, addend: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1, use_gelu: bool = False
) -> Tensor:
    """A sum with a product, then ReLU or GELU: the exact one on the CPU, tanh's in CUDA."""
    total = addmm(run, addend, a, b, beta=beta, alpha=alpha)
    if not use_gelu:
        return functional.relu(total)
    return functional.gelu(total, approximate="tanh" if total.is_cuda else "none")


def conv_tbc(run: Run, input: Tensor, weight: Tensor, bias: Tensor, pad: int = 0) -> Tensor:
    """A convolution in one dimension of ``[time, batch, channels]`` with ``[kernel, in_channels, out_channels]``."""
    output = convolution(run, input.permute(1, 2, 0), weight.permute(2, 1, 0), bias, (1,), (pad,), (1,), False, (0,), 1)
    return Tensor.permute(output, 2, 0, 1)


def euclidean_dist(run: Run, x: Tensor, y: Tensor) -> Tensor:
    """Distances by one product, as in torch: ``|x - y|^2`` is ``(-2 x, |x|^2, 1)`` times ``(y, 1, |y|^2)``.

    Of points ``[.., P, M]`` and ``[.., R, M]``; the norms are sums of squares that no kernel of ours computes.
    """
    x_norm, y_norm = (points.square().sum(-1, keepdim=True) for points in (x, y))
    left = torch.cat((-2 * x, x_norm, torch.ones_like(x_norm)), -1)
    right = torch.cat((y, torch.ones_like(y_norm), y_norm), -1)
    batch = torch.broadcast_shapes(left.shape[:-2], right.shape[:-2])  # type: ignore[no-untyped-call]
    left, right = (points.expand(*batch, -1, -1).reshape(-1, *points.shape[-2:]) for points in (left, right))
    squares = run("matmul", left, right.mT)
    return squares.view(*batch, x.shape[-2], y.shape[-2]).clamp_min(0).sqrt()


def trilinear(
    run: Run,
    first: Tensor,
    second: Tensor,
    third: Tensor,
    expand1: Sequence[int],
    expand2: Sequence[int],
    expand3: Sequence[int],
    sumdim: Sequence[int],
    unroll_dim: int = 1,
) -> Tensor:
    """What ``nn.Bilinear`` and its gradients are: a sum over ``sumdim`` of products of three factors.

    The factors lack the axes in ``expand1`` to ``expand3``. The first two are multiplied and summed over what the third
    lacks, then the third follows. torch does so once for each index of ``unroll_dim``, here all are one product.
    """
    for axis in expand1:
        first = first.unsqueeze(axis)
    for axis in expand2:
        second = second.unsqueeze(axis)
    for axis in expand3:
        third = third.unsqueeze(axis)
    early = [axis for axis in sumdim if axis in expand3]
    result = _contract(run, first, second, early)
    late = [axis for axis in sumdim if axis not in expand3]
    return _contract(run, result, third, late).squeeze(tuple(sumdim))


def _contract(run: Run, a: Tensor, b: Tensor, summed: Sequence[int]) -> Tensor:
    """``(a * b).sum(summed, keepdim=True)`` of two tensors that broadcast, as batches of matrix products."""
    for axis in summed:  # what one of them lacks can be summed before
        if a.shape[axis] != b.shape[axis]:
            a, b = (factor.sum(axis, keepdim=True) for factor in (a, b))
    kept = [axis for axis in range(a.dim()) if axis not in summed]
    batch = [axis for axis in kept if a.shape[axis] == b.shape[axis]]
    rows = [axis for axis in kept if axis not in batch and b.shape[axis] == 1]
    columns = [axis for axis in kept if axis not in batch and a.shape[axis] == 1]
    sizes = [a.shape[axis] for axis in batch + rows] + [b.shape[axis] for axis in columns]
    count, depth = prod(a.shape[axis] for axis in batch), prod(a.shape[axis] for axis in summed)
    left = a.permute(*batch, *rows, *columns, *summed).reshape(count, -1, depth)
    right = b.permute(*batch, *rows, *summed, *columns).reshape(count, depth, -1)
    product = run("matmul", left, right).view(*sizes, *(1 for _ in summed))
    order = [*batch, *rows, *columns, *summed]
    return product.permute([order.index(axis) for axis in range(a.dim())])

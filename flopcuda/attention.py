"""Attention, recognised where it is called: causal attention's two products are computed as triangles.

torch takes ``scaled_dot_product_attention`` apart above the level on which operators are seen. A kernel for it at a
dispatch key above autograd and autocast is told of every call in a thread that asks for it, by whomever it is made, and
leaves all to torch. But meanwhile the products below it are known: of the scores, ``query @ key^T``, those above the
diagonal are thrown away, and the weights, which are multiplied by ``value``, are 0 there. And the softmax between them
is told whether a mask can have left a row without keys.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.library import Library

from flopcuda.autograd import is_transformed

# torch's key for modes that it has no use for itself: what has no kernel for it passes through.
_KEY = "TESTING_ONLY_GenericMode"
_DISPATCH_KEY: Any = torch._C._parse_dispatch_key(_KEY)
_KEYS_BELOW = torch._C._dispatch_keyset_full_after(_DISPATCH_KEY)
_ATTENTION = torch.ops.aten.scaled_dot_product_attention.default
_SOFTMAX = torch.ops.aten.softmax.int
_SAFE_SOFTMAX = torch.ops.aten._safe_softmax.default

Matrix = tuple[int, int]  # rows and columns


class _Call:
    """A call of causal attention: its products in the order in which torch makes them.

    Several modes may see each of them, one above the other.
    """

    def __init__(self, query: Tensor, key: Tensor, value: Tensor) -> None:
        (queries, width), keys = query.shape[-2:], key.shape[-2]
        self._products: tuple[tuple[str, Matrix, Matrix], ...] = (
            ("output", (queries, width), (width, keys)),
            ("input", (queries, keys), (keys, value.shape[-1])),
        )
        self._seen = Counter[int]()

    def triangle(self, observer: object, first: Tensor, second: Tensor) -> str | None:
        """Of the product that an observer sees, if it is the next one."""
        seen = self._seen[id(observer)]
        shapes = tuple(first.shape[-2:]), tuple(second.shape[-2:])
        if seen == len(self._products) or shapes != self._products[seen][1:]:
            return None
        self._seen[id(observer)] += 1
        return self._products[seen][0]


class _Running(threading.local):
    """The call that a thread is in: its triangles, if it is causal, and whether it has no mask but the causal one."""

    call: _Call | None = None
    is_unmasked: bool = False


_running = _Running()


def triangle_of(observer: object, first: Tensor, second: Tensor) -> str | None:
    """Which part of a product is needed, in the words of :func:`flopcuda.ops.matmul`; None if that is all of it.

    Args:
        observer: who sees the product; to be told of each.
        first: ``[.., rows, depth]``.
        second: ``[.., depth, columns]``.
    """
    return None if _running.call is None else _running.call.triangle(observer, first, second)


def may_search(operator: Any) -> bool:
    """Whether :func:`without_searches` ever gives another operator for this one."""
    return operator is _SAFE_SOFTMAX


def without_searches(operator: Any) -> Any:
    """The operator, but for the softmax of attention without a mask, which need not look for rows that are all masked.

    Source: ``_safe_softmax`` of torch, which takes three passes over the scores to replace such rows by 0.
    """
    return _SOFTMAX if may_search(operator) and _running.is_unmasked else operator


@contextmanager
def recognised() -> Iterator[None]:
    """Inside, and in this thread, :func:`triangle_of` and :func:`without_searches` know the calls of attention."""
    with torch._C._IncludeDispatchKeyGuard(_DISPATCH_KEY):
        yield


def _attend(
    keys: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **options: Any,
) -> Tensor:
    outer = _running.call, _running.is_unmasked
    _running.is_unmasked = attn_mask is None
    _running.call = _Call(query, key, value) if is_causal and _has_plain_products(query, key, value) else None
    try:
        result: Tensor = _ATTENTION.redispatch(
            keys & _KEYS_BELOW, query, key, value, attn_mask, dropout_p, is_causal, **options
        )
        return result
    finally:
        _running.call, _running.is_unmasked = outer


def _has_plain_products(*tensors: Tensor) -> bool:
    """Whether torch makes one product of matrices, or of batches of them, of each of attention's two."""
    dimensions = {tensor.dim() for tensor in tensors}
    return (min(dimensions) >= 3 or dimensions == {2}) and not is_transformed()


# Kept, for what they register lives as long as they do.
_pass_through = Library("_", "IMPL")  # type: ignore[no-untyped-call]
_pass_through.fallback(torch.library.fallthrough_kernel, _KEY)  # type: ignore[no-untyped-call]
_kernel = Library("aten", "IMPL")  # type: ignore[no-untyped-call]
_kernel.impl("scaled_dot_product_attention", _attend, _KEY, with_keyset=True)  # type: ignore[no-untyped-call]

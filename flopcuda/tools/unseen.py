"""Calls of a model for which a tool has no rule, seen where the tool looks: among operators, or among functions."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from flopcuda.tools.tool import Unseen


class FusedAttention(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the calls of torch's fused attention operators. Enter it before the tool's own mode.

    Args:
        running: names of the running modules, innermost last.
        known: the operators for which the tool has a rule.
    """

    def __init__(self, running: Sequence[str], known: Collection[Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._running, self._known = running, known
        self.unseen: list[Unseen] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        packet = func.overloadpacket
        if is_fused_attention(packet) and packet not in self._known:
            self.unseen.append(Unseen(self._running[-1], str(packet), attention_macs(*args[:3])))
        return func(*args, **kwargs or {})


@contextmanager
def unpatched_calls(running: Sequence[str], hooked: Collection[str]) -> Iterator[list[Unseen]]:
    """Note calls of the functions that multiply matrices, and that ptflops does not patch.

    They are patched as ptflops patches others: a torch function mode would have ptflops see some of them twice.

    Args:
        running: names of the running modules, innermost last.
        hooked: names of the modules that the tool has a rule for, which includes what they call.
    """
    unseen: list[Unseen] = []

    def noting(name: str, function: Callable[..., Tensor], rule: Rule) -> Callable[..., Tensor]:
        def noted(*arguments: Any, **options: Any) -> Tensor:
            result = function(*arguments, **options)
            if running[-1] not in hooked:
                unseen.append(Unseen(running[-1], name, rule(result, *arguments, **options)))
            return result

        return noted

    with ExitStack() as patches:
        for owner, name, rule in _RULES:
            patches.enter_context(patch.object(owner, name, noting(name, getattr(owner, name), rule)))
        yield unseen


def is_fused_attention(packet: Any) -> bool:
    """Whether an operator is one of torch's that compute all of an attention, or its gradients."""
    return str(packet).startswith("aten._scaled_dot_product")


def attention_macs(query: Tensor, key: Tensor, value: Tensor) -> int:
    """Of scores and weighted values: ``[.., L, E]``, ``[.., S, E]`` and ``[.., S, V]``."""
    return query.shape[:-1].numel() * key.shape[-2] * (query.shape[-1] + value.shape[-1])


def _attention(result: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    return attention_macs(query, key, value)


def _linear(result: Tensor, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> int:
    return result.numel() * input.shape[-1]


def _matmul(result: Tensor, left: Tensor, right: Tensor) -> int:
    return result.numel() * left.shape[-1]


def _convolution(result: Tensor, input: Tensor, weight: Tensor, *_: Any, **__: Any) -> int:
    return result.numel() * weight.shape[1:].numel()


# From a function's result and arguments: its multiply-accumulates.
Rule = Callable[..., int]

_RULES: tuple[tuple[Any, str, Rule], ...] = (
    (nn.functional, "linear", _linear),
    (nn.functional, "conv1d", _convolution),
    (nn.functional, "conv2d", _convolution),
    (nn.functional, "conv3d", _convolution),
    (nn.functional, "scaled_dot_product_attention", _attention),
    (torch.Tensor, "__matmul__", _matmul),
)

"""Counted operators that are differentiable, in which the backward pass is counted as the forward pass is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch._prims_common import suggest_memory_format
from torch.autograd import forward_ad

from flopcuda.gradients import FORWARD, Run, bias_gradient, dense, gradients

# Computes one counted operator without a gradient and keeps its record: phase, op, operands, options.
Execute = Callable[[str, str, tuple[Tensor, Tensor, Tensor | None], Mapping[str, Any]], Tensor]
# Gives a context in which the capture sees no operators, where it is the innermost mode.
Aside = Callable[[], AbstractContextManager[Any]]


def differentiable(execute: Execute, aside: Aside) -> Run:
    """``run`` of :mod:`flopcuda.gradients` from what only computes: gradients of any order run through it again.

    What only moves data for them is nobody's business, and done aside.
    """

    def run(
        op: str, input: Tensor, weight: Tensor, bias: Tensor | None = None, *, phase: str = FORWARD, **options: Any
    ) -> Tensor:
        if torch.is_grad_enabled() and any(
            tensor is not None and tensor.requires_grad for tensor in (input, weight, bias)
        ):
            result: Tensor = _CountedOperator.apply(run, execute, aside, phase, op, options, input, weight, bias)
            return result
        return execute(phase, op, (input, weight, bias), options)

    return run


def is_transformed() -> bool:
    """Whether ``torch.func`` transforms, or forward-mode differentiation, are at work in this thread."""
    return torch._C._functorch.peek_interpreter_stack() is not None or forward_ad._current_level >= 0


def _is_needed(node: torch.autograd.graph.Node | None) -> bool:
    """Whether this backward pass asks for the gradient that goes to a node."""
    if node is None:
        return False
    try:
        return bool(torch._C._will_engine_execute_node(node))
    except RuntimeError:  # torch won't say of a leaf, once it has found that torch.autograd.grad was called with it
        return True


def _needed(ctx: Any) -> list[bool]:
    """Of input, weight and bias; torch has a node for each of them that is a tensor."""
    nodes = iter([node for node, _ in ctx.next_functions])
    return [is_tensor and _is_needed(next(nodes)) for is_tensor in (True, True, ctx.bias_is_summed)]


def _laid_out_like(weight: Tensor, gradient: Tensor | None) -> Tensor | None:
    """As torch keeps a parameter's gradient; it would copy any other for that, where a capture sees it do so."""
    if gradient is None or torch.is_grad_enabled() or gradient.stride() == weight.stride():
        return gradient
    if weight.is_contiguous():
        return dense(gradient)
    return gradient.contiguous(memory_format=suggest_memory_format(weight))


class _CountedOperator(torch.autograd.Function):
    # No setup_context: with one, the arguments' signature is looked up at every call. Transforms don't call forward.
    @staticmethod
    def forward(
        ctx: Any,
        run: Run,
        execute: Execute,
        aside: Aside,
        phase: str,
        op: str,
        options: Mapping[str, Any],
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None,
    ) -> Tensor:
        ctx.run, ctx.aside, ctx.op, ctx.options = run, aside, op, options
        ctx.save_for_backward(input, weight)
        ctx.bias_is_summed = bias is not None
        return execute(phase, op, (input, weight, bias), options)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        (grad,) = grads
        input, weight = ctx.saved_tensors
        needs = _needed(ctx)
        with ctx.aside():
            of_input, of_weight = gradients(ctx.op, ctx.run, grad, input, weight, needs, **ctx.options)
            of_weight = _laid_out_like(weight, of_weight)
            of_bias = bias_gradient(ctx.op, grad) if needs[2] else None
        return (None,) * 6 + (of_input, of_weight, of_bias)

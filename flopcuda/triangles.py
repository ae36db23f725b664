"""Triangles among a product's matrices: what they make of its gradients, and which of them the kernels multiply.

Of a product ``input @ weight``, one matrix may be a triangle: of a factor, what lies beyond its diagonal is 0; of the
output, it is wanted by nobody. A lower triangle, as causal attention has them, is named by its matrix: row r has
columns 0 to r. The transpose of one is ``upper_``: row r has columns r and up.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from flopcuda.gradients import Run

# Those that flopcuda.ops.matmul takes.
MULTIPLIED = ("output", "input", "upper_input")

# Of the transposed product, ``weight.T @ input.T``.
TRANSPOSED: Mapping[str, str] = MappingProxyType(
    {
        "output": "upper_output",
        "upper_output": "output",
        "input": "upper_weight",
        "upper_weight": "input",
        "upper_input": "weight",
        "weight": "upper_input",
    }
)

# Of the gradients of a product's two factors, ``grad @ weight.T`` and ``input.T @ grad``, where ``grad`` is 0 beyond
# the diagonal of a triangular output, and nobody wants what the gradient of a triangular factor is there.
OF_GRADIENTS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "output": ("input", "weight"),
        "upper_output": ("upper_input", "upper_weight"),
        "input": ("output", "upper_input"),
        "upper_input": ("upper_output", "input"),
        "weight": ("upper_weight", "output"),
        "upper_weight": ("weight", "upper_output"),
    }
)


def multiply(run: Run, a: Tensor, b: Tensor, triangle: str | None, *, phase: str | None = None) -> Tensor:
    """``a @ b``, or the transpose of ``b.T @ a.T`` where that is what the kernels multiply.

    Args:
        run: executes a counted operator.
        a: ``[batch, rows, depth]``.
        b: ``[batch, depth, columns]``.
        triangle: one of :data:`TRANSPOSED`, or None.
        phase: for the record; None for that of the operator which this is part of.
    """
    options: dict[str, Any] = {} if phase is None else {"phase": phase}
    if triangle is None:
        return run("matmul", a, b, **options)
    if triangle in MULTIPLIED:
        return run("matmul", a, b, triangle=triangle, **options)
    return run("matmul", b.transpose(1, 2), a.transpose(1, 2), triangle=TRANSPOSED[triangle], **options).transpose(1, 2)

"""What a product of the backward pass adds up to: the gradient of its operator's first or of its second factor.

torch computes the gradients of a bare operator in one node, and says of none of its products which they are for. But
the gradient of a factor is made of all the other factors, which the node has saved: the factor that is *not* among the
operands is the one. Where that does not tell, the phase is ``backward``:

- both factors share memory, as in ``x @ x.T``;
- the saved tensors are packed away, as by activation checkpointing, and both gradients are needed: a packed tensor can
  be had once, and torch needs it itself;
- the operator is none of those below: a gradient of a gradient of a convolution, or a user's own function.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from flopcuda.gradients import BACKWARD, BACKWARD_INPUT, BACKWARD_WEIGHT

# A node of autograd -> the names under which it saves its factors, and what their gradients are called.
FACTORS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "MmBackward0": {"self": BACKWARD_INPUT, "mat2": BACKWARD_WEIGHT},
        "AddmmBackward0": {"mat1": BACKWARD_INPUT, "mat2": BACKWARD_WEIGHT},
        "BmmBackward0": {"self": BACKWARD_INPUT, "mat2": BACKWARD_WEIGHT},
        "BaddbmmBackward0": {"batch1": BACKWARD_INPUT, "batch2": BACKWARD_WEIGHT},
        "AddbmmBackward0": {"batch1": BACKWARD_INPUT, "batch2": BACKWARD_WEIGHT},
        "MvBackward0": {"self": BACKWARD_INPUT, "vec": BACKWARD_WEIGHT},
        "AddmvBackward0": {"mat": BACKWARD_INPUT, "vec": BACKWARD_WEIGHT},
        "AddrBackward0": {"vec1": BACKWARD_INPUT, "vec2": BACKWARD_WEIGHT},
        "EuclideanDistBackward0": {"x1": BACKWARD_INPUT, "x2": BACKWARD_WEIGHT},
        "TrilinearBackward0": {"i1": BACKWARD_INPUT, "i2": BACKWARD_WEIGHT, "i3": BACKWARD_INPUT},
    }
)


def phase_in(node: Any, operands: Iterable[Tensor]) -> str:
    """The phase of a product with these operands in a node of the backward pass."""
    factors = FACTORS.get(node.name(), {})
    memory = {operand.untyped_storage().data_ptr() for operand in operands}
    missing = [phase for name, phase in factors.items() if _is_missing(getattr(node, f"_raw_saved_{name}"), memory)]
    return missing[0] if len(missing) == 1 else BACKWARD


def is_transposed(node: Any, phase: str, operands: Iterable[Tensor]) -> bool | None:
    """Whether a product in a node is its gradient's transpose, as torch computes those of column-major factors.

    Args:
        node: of the backward pass of a product of two matrices, ``input @ weight``.
        phase: of the product, as :func:`phase_in` says: ``backward_input`` if it is ``grad @ weight.T``, or else
            ``input.T @ grad``.
        operands: the product's two.

    Returns:
        None if it is not known which of the operands is the factor that the node has saved.
    """
    factors = FACTORS.get(node.name(), {})
    saved = {_memory_of(getattr(node, f"_raw_saved_{name}")) for name, of in factors.items() if of != phase}
    is_factor = [operand.untyped_storage().data_ptr() in saved for operand in operands]
    return None if sum(is_factor) != 1 else is_factor[0] != (phase == BACKWARD_WEIGHT)


def _is_missing(saved: Any, memory: set[int]) -> bool:
    """Whether a saved tensor is surely not in this memory. One that no gradient needs is not saved at all."""
    if getattr(saved, "data", saved) is None:
        return True
    address = _memory_of(saved)
    return address is not None and address not in memory


def _memory_of(saved: Any) -> int | None:
    """Where a saved tensor is; None if it is none, or is packed away."""
    tensor = getattr(saved, "data", saved)
    if not isinstance(tensor, Tensor):
        return None
    while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return tensor.untyped_storage().data_ptr()

"""A model's positional arguments, from what a caller gave."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor


def as_arguments(inputs: Tensor | Sequence[Any]) -> tuple[Any, ...]:
    """The arguments for ``model(*arguments)``; a single tensor stands for itself.

    Raises:
        TypeError: ``inputs`` is neither a tensor nor a list or tuple of arguments.
    """
    if isinstance(inputs, Tensor):
        return (inputs,)
    if isinstance(inputs, (list, tuple)):
        return tuple(inputs)
    raise TypeError(f"inputs must be a tensor or a tuple of the model's arguments, got {type(inputs).__name__}")

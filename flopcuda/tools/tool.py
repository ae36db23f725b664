"""What a tool's module provides: how to run it, what it then says of each module, and what it is known to count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn

from flopcuda.tools.kinds import MULTIPLY_ACCUMULATE
from flopcuda.tools.report import Term


@dataclass(frozen=True)
class Figure:
    """One of a tool's own figures.

    Attributes:
        module: dotted name of the one module it belongs to, not of those around it; "" for the model itself.
        kind: one of :mod:`flopcuda.tools.kinds`; None for work that no term of a ledger stands for.
        amount: in the tool's unit, for the whole batch.
    """

    module: str
    kind: str | None
    amount: int


def products_by_module(figures: Iterable[Figure]) -> Counter[str]:
    """What a tool says of each module's multiply-accumulates."""
    products: Counter[str] = Counter()
    for figure in figures:
        if figure.kind == MULTIPLY_ACCUMULATE:
            products[figure.module] += figure.amount
    return products


@dataclass(frozen=True)
class Unseen:
    """Products that a model computes by a call for which a tool has no rule.

    Attributes:
        module: dotted name of the module that makes the call.
        call: what it calls.
        macs: multiply-accumulates.
    """

    module: str
    call: str
    macs: int


@dataclass(frozen=True)
class Observation:
    """What a tool said of one forward pass.

    Attributes:
        reported: its total.
        figures: its own figures; they need not add up to ``reported``.
        unseen: calls without a rule; those in a module of which the tool sees nothing at all need not be here.
        adjustments: what it does to the sum of its figures on the way to its total, as far as its own state tells.
        transposed_by_output: whether it takes a transposed convolution to multiply each tap for each of its outputs,
            as if it were one over an input with the stride's zeros between; else for each of its inputs.
    """

    reported: int
    figures: tuple[Figure, ...]
    unseen: tuple[Unseen, ...] = ()
    adjustments: tuple[Term, ...] = ()
    transposed_by_output: bool = False


@dataclass(frozen=True)
class Tool:
    """A tool and its convention for the layers that are counted.

    Attributes:
        name: to select it by, and what reports call it.
        package: the module to import.
        distributions: names on the package index that provide it.
        unit, convention: as in :class:`flopcuda.tools.report.ToolReport`.
        per_mac: what it adds for one MAC.
        observe: runs it on a model, which it may spoil, and the model's positional arguments.
    """

    name: str
    package: str
    distributions: tuple[str, ...]
    unit: str
    convention: str
    per_mac: int
    observe: Callable[[nn.Module, tuple[Any, ...]], Observation]


def whole(amount: float) -> int:
    """A tool's number as an int.

    Raises:
        ValueError: it is not a whole number.
    """
    if amount != int(amount):
        raise ValueError(f"it gave {amount}, which is not a whole number")
    return int(amount)

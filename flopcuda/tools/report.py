"""What goes into a comparison with another tool, and what comes out of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class CountedLayer:
    """One module as the device counted it, over all that it computed in one forward pass of the model.

    Attributes:
        name: dotted name in the model, the first one where a module has several; "" for the model itself.
        type: class name.
        mul: multiplications, the layer's MACs.
        pad: those of them that are with padding.
        skipped: products beyond the diagonal of causal attention, which were not made.
    """

    name: str
    type: str
    mul: int
    pad: int
    skipped: int = 0


@dataclass(frozen=True)
class Term:
    """One line of a ledger: a name, and an amount in the tool's unit."""

    term: str
    amount: int


@dataclass(frozen=True)
class ToolReport:
    """What a tool said of a model, and how that follows from what was counted.

    Attributes:
        name: the tool; for ``import thop`` the distribution that provides it.
        version: as installed; None when it is not.
        unit: what it counts.
        convention: how it counts, in one sentence.
        reported: its number for the model; None when there is none.
        ledger: the counted MACs first, then the terms that lead to ``reported``.
        unexplained: what no term explains, so that ``sum of ledger + unexplained == reported``; None without a number.
        error: why there is no number, in one sentence; None when there is one.
        disagreements: a sentence on each layer where the tool's own figure and the counted one are not reconciled by
            any convention. Errors that cancel out in ``unexplained`` still show here.
    """

    name: str
    version: str | None
    unit: str
    convention: str
    reported: int | None
    ledger: tuple[Term, ...]
    unexplained: int | None
    error: str | None
    disagreements: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As in the command line's JSON."""
        return {
            "name": self.name,
            "version": self.version,
            "unit": self.unit,
            "convention": self.convention,
            "reported": self.reported,
            "ledger": [asdict(term) for term in self.ledger],
            "unexplained": self.unexplained,
            "error": self.error,
        }

"""The way from the counted MACs to a tool's number, term by term.

A term is what the tool itself gives for modules or operators of a kind that is not counted, or a convention that is
known without looking at the tool's number: a bias counts one an output, a MAC counts two. No term is a difference; what
the terms leave over stands as unexplained.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from flopcuda.tools.kinds import BIAS, MULTIPLY_ACCUMULATE
from flopcuda.tools.report import CountedLayer, Term
from flopcuda.tools.tool import Observation, Tool, Unseen

COUNTED = "counted MACs"


@dataclass(frozen=True)
class Ledger:
    """Terms, counted MACs first, that with ``unexplained`` add up to what the tool reported.

    ``disagreements`` has a sentence on each layer that contributes to ``unexplained``.
    """

    terms: tuple[Term, ...]
    unexplained: int
    disagreements: tuple[str, ...]


def ledger(tool: Tool, observation: Observation, model: nn.Module, counted: Mapping[str, CountedLayer]) -> Ledger:
    """Account for what a tool reported.

    Args:
        tool: its convention.
        observation: its figures and its total.
        model: to know which layers exist.
        counted: by name, the layers that were counted.
    """
    figures: Counter[str] = Counter()
    amounts: Counter[str] = Counter({COUNTED: sum(layer.mul for layer in counted.values())})
    for figure in observation.figures:
        if figure.kind == MULTIPLY_ACCUMULATE:
            figures[figure.module] += figure.amount
    existing = {name for name, _ in model.named_modules()}
    disagreements = []
    for name, layer in counted.items():
        if name not in existing:
            disagreements.append(f"{name}: {layer.mul:,} MACs were counted, and the model has no such module")
            continue
        unseen = [call for call in observation.unseen if call.module == name]
        terms = list(_terms_of(layer, figures[name], unseen, tool))
        for term in terms:
            amounts[term.term] += term.amount
        expected = layer.mul + sum(term.amount for term in terms)
        if figures[name] != expected:
            disagreements.append(
                f"{name or '(the model)'}: {tool.name} says {figures[name]:,}, {expected:,} follows from the count"
            )
    for name, amount in figures.items():
        if amount and name not in counted:
            disagreements.append(f"{name or '(the model)'}: {tool.name} says {amount:,}, and nothing was counted")
    for figure in observation.figures:
        if figure.kind not in (MULTIPLY_ACCUMULATE, None):
            amounts[str(figure.kind)] += figure.amount
    for term in observation.adjustments:
        amounts[term.term] += term.amount
    listed = tuple(Term(name, amount) for name, amount in amounts.items() if amount or name == COUNTED)
    return Ledger(listed, observation.reported - sum(term.amount for term in listed), tuple(disagreements))


def _terms_of(layer: CountedLayer, figure: int, unseen: Sequence[Unseen], tool: Tool) -> Iterator[Term]:
    """The conventions that lead from a layer's counted MACs to the tool's figure for it."""
    if not figure:
        yield Term(f"not seen: {layer.name or '(the model)'} ({layer.type})", -layer.mul)
        return
    for call in unseen:
        yield Term(f"not seen: calls of {call.call}", -call.macs)
    seen = layer.mul - sum(call.macs for call in unseen)
    if tool.per_mac != 1:
        yield Term(f"{tool.per_mac} FLOPs a MAC", (tool.per_mac - 1) * seen)
    if layer.bias and tool.counts_bias and figure != tool.per_mac * seen:
        yield Term(BIAS, layer.outputs - sum(call.biased for call in unseen))

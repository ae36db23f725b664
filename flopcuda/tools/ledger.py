"""The way from the counted MACs to a tool's number, term by term.

A term is what the tool itself gives for modules or operators of a kind that is not counted, or a convention that is
known without looking at the tool's number: a MAC counts two, a transposed convolution counts what it crops, causal
attention what its mask throws away. No term is a difference; what the terms leave over stands as unexplained.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from flopcuda.tools.convolutions import Convolution, Convolutions, terms_of_transposed
from flopcuda.tools.kinds import MULTIPLY_ACCUMULATE, SKIPPED
from flopcuda.tools.report import CountedLayer, Term
from flopcuda.tools.tool import Observation, Tool, Unseen, products_by_module

COUNTED = "counted MACs"


@dataclass(frozen=True)
class Ledger:
    """Terms, counted MACs first, that with ``unexplained`` add up to what the tool reported.

    ``disagreements`` has a sentence on each layer that contributes to ``unexplained``.
    """

    terms: tuple[Term, ...]
    unexplained: int
    disagreements: tuple[str, ...]


def ledger(
    tool: Tool,
    observation: Observation,
    model: nn.Module,
    counted: Mapping[str, CountedLayer],
    convolutions: Convolutions,
) -> Ledger:
    """Account for what a tool reported.

    Args:
        tool: its convention.
        observation: its figures and its total.
        model: to know which layers exist.
        counted: by name, the layers that were counted.
        convolutions: those of the same forward pass.
    """
    figures = products_by_module(observation.figures)
    modules = dict(model.named_modules())
    terms = [Term(COUNTED, sum(layer.mul for layer in counted.values()))]
    disagreements = []
    for name in dict.fromkeys((*counted, *figures)):
        if name not in modules:
            disagreements.append(f"{name}: {counted[name].mul:,} MACs were counted, and the model has no such module")
            continue
        layer = counted.get(name) or CountedLayer(name, type(modules[name]).__name__, mul=0, pad=0)
        unseen = [call for call in observation.unseen if call.module == name]
        own = list(_terms_of(layer, figures[name], unseen, convolutions.get(name, ()), tool, observation))
        terms += own
        expected = layer.mul + sum(term.amount for term in own)
        if figures[name] != expected:
            disagreements.append(
                f"{name or '(the model)'}: {tool.name} says {figures[name]:,}, {expected:,} follows from the count"
            )
    others = (figure for figure in observation.figures if figure.kind not in (MULTIPLY_ACCUMULATE, None))
    terms += (Term(str(figure.kind), figure.amount) for figure in others)
    terms += observation.adjustments
    unexplained = observation.reported - sum(term.amount for term in terms)
    return Ledger(added_up(terms), unexplained, tuple(disagreements))


def added_up(terms: Iterable[Term]) -> tuple[Term, ...]:
    """Those of a name as one, without those that come to nothing; what was counted stays."""
    amounts: Counter[str] = Counter()
    for term in terms:
        amounts[term.term] += term.amount
    return tuple(Term(name, amount) for name, amount in amounts.items() if amount or name == COUNTED)


def not_seen(module: str, module_type: str, macs: int) -> Term:
    """All that was counted in a module in which the tool sees nothing."""
    return Term(f"not seen: {module or '(the model)'} ({module_type})", -macs)


def _terms_of(
    layer: CountedLayer,
    figure: int,
    unseen: Sequence[Unseen],
    convolutions: Sequence[Convolution],
    tool: Tool,
    observation: Observation,
) -> Iterator[Term]:
    """The conventions that lead from a layer's counted MACs to the tool's figure for it."""
    if not figure:
        yield not_seen(layer.name, layer.type, layer.mul)
        return
    by_mac = [Term(SKIPPED, layer.skipped)]
    by_mac += [Term(f"not seen: calls of {call.call}", -call.macs) for call in unseen]
    by_mac += terms_of_transposed(layer.pad, convolutions, by_output=observation.transposed_by_output)
    yield from by_mac
    if tool.per_mac != 1:
        seen = layer.mul + sum(term.amount for term in by_mac)
        yield Term(f"{tool.per_mac} FLOPs a MAC", (tool.per_mac - 1) * seen)

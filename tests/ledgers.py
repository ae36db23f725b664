"""What tests of ledgers share: counting a model, and what the tools' reports on it then say."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any

import torch
from torch import nn

import flopcuda
from flopcuda import validation
from flopcuda.tools import ToolReport, compare, take_step, training_step

Inputs = tuple[Any, ...]


def reports(model: nn.Module, inputs: Inputs, module: str = "", mul: int = 0, pad: int = 0) -> dict[str, ToolReport]:
    """Each tool's ledger, from what is counted; with the counters of a module changed by so much."""
    with flopcuda.instrument(model) as session, torch.no_grad():
        model(*inputs)
    counted = {name: validation._counted_layer(summary) for name, summary in session.report().by_module().items()}
    if mul or pad:
        layer = counted[module]
        counted[module] = dataclasses.replace(layer, mul=layer.mul + mul, pad=layer.pad + pad)
    return {report.name: report for report in compare(model, inputs, counted)}


def assert_explained(model: nn.Module, inputs: Inputs, failing: Collection[str] = ()) -> dict[str, ToolReport]:
    """Nothing is unexplained in any tool's number; only the tools named give none."""
    found = reports(model, inputs)
    assert {name for name, report in found.items() if report.error} == set(failing)
    for name in found.keys() - set(failing):
        report = found[name]
        assert (report.unexplained, report.disagreements) == (0, ()), name
        assert sum(term.amount for term in report.ledger) == report.reported
    return found


def count_step(model: nn.Module, inputs: Inputs) -> tuple[flopcuda.Launch, ...]:
    """What is counted of a training step."""
    with flopcuda.instrument(model) as session:
        take_step(model, inputs)
    assert session.report().not_counted == ()
    return session.report().launches


def assert_step_explained(model: nn.Module, inputs: Inputs) -> ToolReport:
    """Nothing is unexplained in FlopCounterMode's number for a training step."""
    report = training_step(model, inputs, count_step(model, inputs))
    assert sum(term.amount for term in report.ledger) == report.reported
    assert report.unexplained == 0
    return report

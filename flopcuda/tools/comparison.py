"""Runs the other tools on a model and accounts for what they report."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Any

from torch import nn

from flopcuda.tools import fvcore, ptflops, thop, torch_flop_counter
from flopcuda.tools.convolutions import Convolutions, convolutions_of
from flopcuda.tools.installed import provider, version
from flopcuda.tools.ledger import ledger
from flopcuda.tools.report import CountedLayer, ToolReport
from flopcuda.tools.sandbox import NotCopyableError, copy_of, one_line, quiet
from flopcuda.tools.tool import Observation, Tool

TOOLS: Mapping[str, Tool] = MappingProxyType(
    {
        tool.name: tool
        for tool in (
            thop.TOOL,
            fvcore.TOOL,
            ptflops.PYTORCH_BACKEND,
            ptflops.ATEN_BACKEND,
            torch_flop_counter.TOOL,
        )
    }
)

ALL: tuple[str, ...] = tuple(TOOLS)


class NoNumberError(RuntimeError):
    """A tool gave no number for a model; says why in one sentence."""


def compare(
    model: nn.Module,
    inputs: tuple[Any, ...],
    counted: Mapping[str, CountedLayer],
    tools: Sequence[str] = ALL,
    on_step: Callable[[str], None] = lambda _: None,
) -> list[ToolReport]:
    """Ask other tools for the model's operations, and explain how their numbers follow from the counted one.

    Each tool runs on a deep copy of the model, in the mode the model is in; thop and ptflops switch that to eval mode
    themselves. The model, its inputs, torch's random state and what the tools patch are left as they were.

    Args:
        model: the model itself, not instrumented.
        inputs: its positional arguments.
        counted: what was counted on the device for the same inputs, by the layer's name.
        tools: names out of ``ALL``.
        on_step: is told the name of each tool before it runs.

    Returns:
        A report for each tool, also for one that is not installed or that fails on this model.

    Raises:
        ValueError: a name is not a tool's.
    """
    unknown = [name for name in tools if name not in TOOLS]
    if unknown:
        raise ValueError(f"no such tool: {', '.join(unknown)}; there are {', '.join(ALL)}")

    @cache
    def convolutions() -> Convolutions:
        with quiet(model):
            return convolutions_of(*copy_of(model, inputs))

    reports = []
    for name in tools:
        on_step(name)
        reports.append(_report(TOOLS[name], model, inputs, counted, convolutions))
    return reports


def _report(
    tool: Tool,
    model: nn.Module,
    inputs: tuple[Any, ...],
    counted: Mapping[str, CountedLayer],
    convolutions: Callable[[], Convolutions],
) -> ToolReport:
    try:
        with quiet(model):
            observation = _observe(tool, model, inputs)
    except NoNumberError as error:
        return _without_number(tool, str(error))
    account = ledger(tool, observation, model, counted, convolutions())
    return ToolReport(
        name=_name(tool),
        version=version(tool),
        unit=tool.unit,
        convention=tool.convention,
        reported=observation.reported,
        ledger=account.terms,
        unexplained=account.unexplained,
        error=None,
        disagreements=account.disagreements,
    )


def _observe(tool: Tool, model: nn.Module, inputs: tuple[Any, ...]) -> Observation:
    if provider(tool) is None:
        raise NoNumberError(f"not installed: pip install {tool.distributions[0]}")
    try:
        importlib.import_module(tool.package)
    except Exception as error:
        raise NoNumberError(f"{tool.name} is installed but cannot be imported: {one_line(error)}") from error
    try:
        spoilable, arguments = copy_of(model, inputs)
    except NotCopyableError as error:
        raise NoNumberError(f"{tool.name} was not run: {error}") from error
    try:
        return tool.observe(spoilable, arguments)
    except Exception as error:
        raise NoNumberError(f"{tool.name} failed on this model: {one_line(error)}") from error


def _without_number(tool: Tool, error: str) -> ToolReport:
    return ToolReport(
        name=_name(tool),
        version=version(tool),
        unit=tool.unit,
        convention=tool.convention,
        reported=None,
        ledger=(),
        unexplained=None,
        error=error,
    )


def _name(tool: Tool) -> str:
    """The tool's name, or that of the fork that provides it."""
    source = provider(tool)
    return tool.name if source in (None, tool.distributions[0]) else str(source)

"""flopcuda counts the multiply-accumulates a PyTorch model really executes, on the device, per launch."""

from flopcuda import formulas, tools
from flopcuda.params import Params, count_params
from flopcuda.report import Counters, Launch, Report, Summary
from flopcuda.session import Session, instrument

__all__ = [
    "Counters",
    "Launch",
    "Params",
    "Report",
    "Session",
    "Summary",
    "count_params",
    "formulas",
    "instrument",
    "tools",
]

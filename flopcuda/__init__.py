"""flopcuda counts the multiply-accumulates a PyTorch model really executes, on the device, per launch."""

from flopcuda.report import Counters, Launch, Report, Summary
from flopcuda.session import Session, instrument

__all__ = [
    "Counters",
    "Launch",
    "Report",
    "Session",
    "Summary",
    "instrument",
]

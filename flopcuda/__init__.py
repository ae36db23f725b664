"""flopcuda counts the multiply-accumulates a PyTorch model really executes, on the device, per launch."""

from flopcuda import formulas
from flopcuda.measurement import Measurement, measure
from flopcuda.params import Params, count_params
from flopcuda.report import Counters, Launch, NotCounted, Report, Summary
from flopcuda.session import Session, count, instrument
from flopcuda.validation import LayerValidation, Validation, validate

__all__ = [
    "Counters",
    "Launch",
    "LayerValidation",
    "Measurement",
    "NotCounted",
    "Params",
    "Report",
    "Session",
    "Summary",
    "Validation",
    "count",
    "count_params",
    "formulas",
    "instrument",
    "measure",
    "validate",
]

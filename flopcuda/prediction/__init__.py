"""Predicted times of a model's layers on a GPU that is not there: ``flopcuda predict``, and docs/prediction.md."""

from __future__ import annotations

from flopcuda.prediction.gpus import GPU, GPUS
from flopcuda.prediction.layers import LayerPrediction, Prediction, predict
from flopcuda.prediction.model import Tiling, Time, Work, predict_time

__all__ = ["GPU", "GPUS", "LayerPrediction", "Prediction", "Tiling", "Time", "Work", "predict", "predict_time"]

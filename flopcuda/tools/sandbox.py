"""Runs a tool on a copy of the model, silently, and puts back what the process would notice of it."""

from __future__ import annotations

import copy
import io
import itertools
import logging
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

import torch
from torch import nn


class NotCopyableError(RuntimeError):
    """The model or its inputs cannot be copied, so no tool may have them."""


def copy_of(model: nn.Module, inputs: tuple[Any, ...]) -> tuple[nn.Module, tuple[Any, ...]]:
    """A deep copy of a model in the same mode, and of its inputs without their gradients' history.

    Raises:
        NotCopyableError: with the reason in one sentence.
    """
    try:
        return copy.deepcopy(model), tuple(_copy_of_input(value) for value in inputs)
    except Exception as error:
        raise NotCopyableError(f"the model cannot be copied: {one_line(error)}") from error


@contextmanager
def quiet(model: nn.Module) -> Iterator[None]:
    """Without prints, warnings and log records; without gradients; the random generators end as they began."""
    log_level = logging.root.manager.disable
    random_state = random.getstate()
    with (
        redirect_stdout(io.StringIO()),
        redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
        torch.random.fork_rng(devices=_cuda_devices(model)),
        torch.no_grad(),
    ):
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(log_level)
            random.setstate(random_state)


def one_line(error: Exception) -> str:
    """An exception as ``Type: message`` with its white space folded."""
    return " ".join(f"{type(error).__name__}: {error}".split()).rstrip(".: ")


def _cuda_devices(model: nn.Module) -> list[torch.device]:
    tensors = itertools.chain(model.parameters(), model.buffers())
    return list({tensor.device for tensor in tensors if tensor.device.type == "cuda"})


def _copy_of_input(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, torch.Tensor) else copy.deepcopy(value)

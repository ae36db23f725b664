"""The FLOPS a user actually gets: counted FLOPs over the time of the original model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from flopcuda.arguments import as_arguments
from flopcuda.report import Counters
from flopcuda.session import instrument
from flopcuda.state import preserved


@dataclass(frozen=True)
class Measurement:
    """A model's counted work and the time that the original model takes for it.

    Attributes:
        counted: what one forward pass executes in counted layers.
        seconds: median duration of one forward pass of the original model.
        runs: timed forward passes.
        threads: CPU threads that torch was allowed.
    """

    counted: Counters
    seconds: float
    runs: int
    threads: int

    @property
    def flops_per_second(self) -> float:
        """Achieved FLOPS: counted FLOPs (``mul + add``) over ``seconds``."""
        return self.counted.flops / self.seconds


def measure(model: nn.Module, inputs: Tensor | Sequence[Any], *, min_seconds: float = 1.0) -> Measurement:
    """Count one forward pass, then time the original model on the same inputs.

    Runs without gradients, in the mode (train or eval) that the model is in; its buffers and torch's random state are
    put back.

    Args:
        model: the model; must not be instrumented.
        inputs: its positional arguments; a single tensor stands for itself.
        min_seconds: time for at least this long, in seconds.

    Returns:
        The counts, the median time of a pass and the FLOPS.

    Raises:
        RuntimeError, TypeError, ValueError: as :func:`flopcuda.instrument`, or as a counted layer or the model itself.
    """
    from torch.utils.benchmark import Timer  # here: its import looks for a compiler, and complains without a GPU

    arguments = as_arguments(inputs)
    threads = torch.get_num_threads()
    with preserved(model), torch.no_grad():
        with instrument(model) as session:
            model(*arguments)
        counted = session.report().total.counters
        timer = Timer("model(*arguments)", globals={"model": model, "arguments": arguments}, num_threads=threads)
        timing = timer.blocked_autorange(min_run_time=min_seconds)
    return Measurement(counted, timing.median, len(timing.times) * timing.number_per_run, threads)

"""The FLOPS a user actually gets: counted FLOPs over the time of the original model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from flopcuda import virtual_cuda
from flopcuda.arguments import as_arguments
from flopcuda.report import Counters
from flopcuda.session import instrument
from flopcuda.state import preserved


@dataclass(frozen=True)
class Measurement:
    """A model's counted work and the time that the original model takes for it.

    Attributes:
        counted: what one forward pass executes in counted layers.
        device: where the model and its inputs are, named as in a launch's record.
        seconds: median duration of one forward pass of the original model; None on a virtual device.
        runs: timed forward passes.
        threads: CPU threads that torch was allowed.
    """

    counted: Counters
    device: str
    seconds: float | None
    runs: int
    threads: int

    @property
    def flops_per_second(self) -> float | None:
        """Achieved FLOPS: counted FLOPs (``mul + add``) over ``seconds``; None where it was not timed."""
        return self.counted.flops / self.seconds if self.seconds else None


def measure(model: nn.Module, inputs: Tensor | Sequence[Any], *, min_seconds: float = 1.0) -> Measurement:
    """Count one forward pass, then time the original model on the same inputs.

    Runs without gradients, in the mode (train or eval) that the model is in; its buffers and torch's random state are
    put back.

    Args:
        model: the model; must not be instrumented.
        inputs: its positional arguments; a single tensor stands for itself.
        min_seconds: time for at least this long, in seconds.

    Returns:
        The counts, the median time of a pass and the FLOPS; a virtual CUDA device is not timed.

    Raises:
        RuntimeError, TypeError, ValueError: as :func:`flopcuda.instrument`, or as a counted layer or the model itself.
    """
    from torch.utils.benchmark import Timer  # here: its import looks for a compiler, and complains without a GPU

    arguments = as_arguments(inputs)
    threads = torch.get_num_threads()
    devices = _devices(model, arguments)
    device = ", ".join(map(virtual_cuda.label, devices))
    with preserved(model), torch.no_grad():
        with instrument(model) as session:
            model(*arguments)
        counted = session.report().total.counters
        if any(map(virtual_cuda.is_virtual, devices)):
            return Measurement(counted, device, None, 0, threads)
        timer = Timer("model(*arguments)", globals={"model": model, "arguments": arguments}, num_threads=threads)
        timing = timer.blocked_autorange(min_run_time=min_seconds)
    return Measurement(counted, device, timing.median, len(timing.times) * timing.number_per_run, threads)


def _devices(model: nn.Module, arguments: Sequence[Any]) -> list[torch.device]:
    tensors = [*model.parameters(), *(argument for argument in arguments if isinstance(argument, Tensor))]
    return list(dict.fromkeys(tensor.device for tensor in tensors))

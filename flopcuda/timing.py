"""Durations of launches: the steady clock on a CPU, events on the stream of a GPU."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from flopcuda import virtual_cuda

# Seconds, or what gives them when asked for; None where no time is measured.
Duration = float | Callable[[], float | None] | None


def in_seconds(duration: Duration) -> float | None:
    """On a GPU, waits until what was measured is over."""
    return duration() if callable(duration) else duration


class Stopwatch:
    """Starts when made; :meth:`stop` gives the duration.

    On a GPU nothing waits until it is asked for. Inside a CUDA graph capture no time passes, and a virtual device's
    time says nothing of a GPU's, so it is None.
    """

    def __init__(self, device: torch.device) -> None:
        self._is_timed, self._stream, self._start_event = True, None, None
        if device.type == "cuda":
            self._is_timed = not torch.cuda.is_current_stream_capturing()
            self._stream = torch.cuda.current_stream(device) if self._is_timed else None
            self._start_event = self._record_event()
        self._start = time.perf_counter()

    def stop(self) -> Duration:
        """End the measurement here, on the CPU's clock or in the GPU's stream."""
        if not self._is_timed:
            return None
        if self._stream is None:
            return time.perf_counter() - self._start
        start, end = self._start_event, self._record_event()
        assert start is not None
        assert end is not None
        return lambda: _seconds_between(start, end)

    def _record_event(self) -> torch.cuda.Event | None:
        if self._stream is None:
            return None
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(self._stream)
        return event


def _seconds_between(start: torch.cuda.Event, end: torch.cuda.Event) -> float | None:
    end.synchronize()
    milliseconds = float(start.elapsed_time(end))
    return None if virtual_cuda.is_active() else milliseconds / 1e3

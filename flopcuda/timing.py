"""Durations of launches: those of a CPU come with them, those of a GPU from events on its stream."""

from __future__ import annotations

from collections.abc import Callable

import torch

from flopcuda import virtual_cuda

# Seconds, or what gives them when asked for; None where no time is measured.
Duration = float | Callable[[], float | None] | None


def in_seconds(duration: Duration) -> float | None:
    """On a GPU, waits until what was measured is over."""
    return duration() if callable(duration) else duration


class Stopwatch:
    """Of a GPU: starts when made; :meth:`stop` gives the duration.

    Nothing waits until it is asked for. Inside a CUDA graph capture no time passes, and a virtual device's time says
    nothing of a GPU's, so it is None.
    """

    def __init__(self, device: torch.device) -> None:
        is_timed = not torch.cuda.is_current_stream_capturing()
        self._stream = torch.cuda.current_stream(device) if is_timed else None
        self._start = self._record_event()

    def stop(self) -> Duration:
        """End the measurement here, in the stream."""
        start, end = self._start, self._record_event()
        return None if start is None or end is None else lambda: _seconds_between(start, end)

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

"""Counting a model: swap its layers, collect a record a launch, give the layers back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from types import TracebackType
from typing import Any

from torch import Tensor, nn

from flopcuda import _C, ptx, swapping
from flopcuda.autograd import Aside, differentiable, is_transformed
from flopcuda.backends import Backend, NativeBackend, Operands
from flopcuda.capture import Capture
from flopcuda.eager import eagerly
from flopcuda.gradients import Run
from flopcuda.launch_log import LaunchLog
from flopcuda.ops import autocast, is_autocast
from flopcuda.ptx_backend import MachineBackend
from flopcuda.report import NotCounted, Place, Report


def instrument(
    model: nn.Module, *, count_zero: bool = False, backend: str | ptx.Machine = "native", capture: str = "ops"
) -> Session:
    """Swap every Conv2d and Linear of a model, in place, for one that counts, and capture what else multiplies.

    Parameters, buffers, hooks, ``state_dict`` keys, training mode, shared modules and ``isinstance`` stay as they are.
    Use it as a context manager, or call :meth:`Session.restore`.

    Args:
        model: any module; its own class may itself be a layer that is counted.
        count_zero: also count the products that have an operand equal to 0.
        backend: "native" computes where the tensors are. "ptxvm" runs the CUDA kernels for a model on the CPU, without
            a GPU, on a virtual machine that checks and counts what they execute; a :class:`flopcuda.ptx.Machine` is
            that machine with settings of your own.
        capture: "ops" also counts matrix products and convolutions that are no module's (functional calls, attention,
            ``@``) while the model's forward runs, and lists what multiplies and accumulates but can't be counted.
            "modules" counts the swapped layers only; it costs nothing between them and lets torch.compile compile.

    Returns:
        The session that collects the records.

    Raises:
        RuntimeError: the model, or a part of it, is instrumented already; or flopcuda was built without the CUDA
            kernels that the backend needs.
        TypeError: ``model`` is no module, or holds a scripted module, whose code can't be swapped.
        ValueError: a lazy module has not seen an input yet, or there is no such backend or capture.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"instrument takes a torch.nn.Module, got {type(model).__name__}")
    if capture not in ("ops", "modules"):
        raise ValueError(f"capture must be 'ops' or 'modules', not {capture!r}")
    return Session(model, count_zero=count_zero, backend=_backend(backend), capture_ops=capture == "ops")


def count(*, count_zero: bool = False, backend: str | ptx.Machine = "native") -> Session:
    """Count the matrix products and convolutions of any code: ``with flopcuda.count() as session: ...``.

    Sees what torch's own FlopCounterMode sees, the backward pass among it. Modules that run are named by the class of
    the outermost one and the path from there: "ResNet.layer1.0.conv1".

    Args:
        count_zero: also count the products that have an operand equal to 0.
        backend: as for :func:`instrument`.

    Returns:
        The session that collects the records.

    Raises:
        RuntimeError, ValueError: as :func:`instrument`, of the backend.
    """
    return Session(None, count_zero=count_zero, backend=_backend(backend), capture_ops=True)


def _backend(choice: str | ptx.Machine) -> Backend:
    if isinstance(choice, ptx.Machine):
        return MachineBackend(choice)
    if choice == "ptxvm":
        return MachineBackend(ptx.Machine())
    if choice == "native":
        return NativeBackend()
    raise ValueError(f"backend must be 'native', 'ptxvm' or a flopcuda.ptx.Machine, not {choice!r}")


class Session:
    """Counts from :func:`instrument` or :func:`count` on until it is restored; its report can be had afterwards too.

    While a session is open, the CPU kernels keep the weights of small layers as they pack them, from the second call
    with the same values on; never more bytes than the weights themselves take, in float32 or float64 and rounded up to
    whole tiles. Changes are noticed by a tensor's version, and those behind autograd's back (``.data``, numpy views) by
    one element of each output channel.
    """

    def __init__(self, model: nn.Module | None, *, count_zero: bool, backend: Backend, capture_ops: bool) -> None:
        self.model = model
        self.count_zero = count_zero
        self._backend = backend
        self._log = LaunchLog(backend.name, counts_zero=count_zero)
        self._skipped: Counter[tuple[Place, str]] = Counter()
        self._capture = (
            Capture(model, self._execute, self._skip, backend.takes, triangles=not count_zero) if capture_ops else None
        )
        # Inside, the capture sees nothing, where it is the innermost mode.
        self._aside: Aside = self._capture.aside if self._capture else nullcontext
        self._swapped = [] if model is None else swapping.swap(model, self)
        self._weights_are_kept: _C.WeightsAreKept | None = _C.WeightsAreKept()
        if self._capture:
            self._capture.start(swapping.counted_methods(self._swapped))

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.restore()

    def restore(self) -> None:
        """Give the model its own layers back, leaving no trace. Does nothing the second time."""
        if self._capture:
            self._capture.stop()
        swapping.restore(self._swapped)
        self._swapped = []
        self._weights_are_kept = None

    def reset(self) -> None:
        """Forget what was counted so far."""
        self._log.clear()
        self._skipped.clear()
        if self._capture:
            self._capture.forget()

    def report(self) -> Report:
        """Read the counters of all launches so far from their devices; waits for kernels that still run.

        Returns:
            The launches and their sums, and what was seen but not counted.
        """
        not_counted = (
            NotCounted(place.module, place.module_type, operator, calls)
            for (place, operator), calls in self._skipped.items()
        )
        return Report(self._log.launches(), tuple(not_counted))

    def operators_at(self, place: Place) -> Run:
        """What runs counted operators for a place, their gradients too when they are asked for."""
        return differentiable(partial(self._execute, place), self._aside)

    @eagerly
    def run(
        self,
        layer: swapping.CountedLayer,
        original: Callable[[Tensor, Tensor, Tensor | None], Tensor],
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None,
    ) -> Tensor:
        """Run a layer by counted operators; returns the output.

        Below ``torch.func`` transforms or forward-mode differentiation, the layer's own operators are seen and counted:
        the counted ones have no rules for them, but they resolve torch's own into ones without a transform.

        Args:
            layer: the layer.
            original: torch's own code for it.
            input: of both.
            weight: of both.
            bias: of both, or None.

        Raises:
            RuntimeError, TypeError: what an operator raised, with the place before it.
            RuntimeError: a transform is at work, and only modules are captured.
        """
        if not isinstance(input, Tensor):
            raise TypeError(f"{layer.counted_place}: input must be a Tensor, not {type(input).__name__}")
        if is_transformed():
            if self._capture is None:
                raise RuntimeError(
                    f'{layer.counted_place}: torch.func transforms and forward-mode gradients need capture="ops"'
                )
            return original(input, weight, bias)
        if is_autocast():
            input, weight, bias = autocast(input), autocast(weight), None if bias is None else autocast(bias)
        return layer.counted_output(layer.counted_run, input, weight, bias)

    def _execute(self, place: Place, phase: str, op: str, operands: Operands, options: Mapping[str, Any]) -> Tensor:
        """Run one counted operator and keep its record."""
        try:
            with self._aside():
                output, execution = self._backend.run(op, operands, options, self.count_zero)
        except (RuntimeError, TypeError) as error:
            raise type(error)(f"{place}: {error}") from error
        self._log.add(place, phase, op, operands, output, options, execution)
        return output

    def _skip(self, place: Place, operator: str) -> None:
        self._skipped[place, operator] += 1

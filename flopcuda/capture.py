"""Capture of the multiply-accumulates that are no counted layer's: functional calls, attention, bare operators.

A dispatch mode sees every operator below autograd and autocast. It has those of :mod:`flopcuda.registry` computed by
the counted kernels, and names the others that multiply and accumulate, so that nothing is left out in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import _get_sequence_nr  # type: ignore[attr-defined]
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules import module as module_hooks
from torch.utils._python_dispatch import (
    TorchDispatchMode,
    _get_current_dispatch_mode_stack,
    _pop_mode,
    _push_mode,
)

from flopcuda.backends import Operands, holds_data
from flopcuda.gradients import BACKWARD, FORWARD
from flopcuda.lowering import Lowering
from flopcuda.ops import unsupported_kind
from flopcuda.registry import FREE_NAMESPACES, FREE_OPERATORS, LOWERINGS, NOT_COUNTED
from flopcuda.report import Place

# Computes a counted operator for a place and a phase, from its name, operands and options, and keeps the record.
Count = Callable[[Place, str, str, Operands, Mapping[str, Any]], Tensor]
# Is told of an operator that multiplies and accumulates, and is not counted.
Skip = Callable[[Place, str], None]


class ModuleStack:
    """The modules whose forward is running, innermost last.

    Args:
        model: gives the names; without one, the first module to run gives its class name to those in it.
    """

    def __init__(self, model: nn.Module | None) -> None:
        self._is_closed = model is not None
        self._names = {} if model is None else {module: name for name, module in model.named_modules()}
        self._running: list[nn.Module] = []

    @property
    def is_running(self) -> bool:
        return bool(self._running)

    @property
    def place(self) -> Place:
        """That of the innermost module with a name."""
        module = next((module for module in reversed(self._running) if module in self._names), None)
        return Place("", "") if module is None else Place(self._names[module], type(module).__name__)

    def push(self, module: nn.Module) -> None:
        """A module's forward begins; one that is not the model's is passed over."""
        if not self._running and module not in self._names:
            if self._is_closed:
                return
            root = type(module).__name__
            self._names |= {child: f"{root}.{name}".rstrip(".") for name, child in module.named_modules()}
        self._running.append(module)

    def pop(self, module: nn.Module) -> None:
        """It ends, and with it what an exception has left running inside it."""
        while module in self._running and self._running.pop() is not module:
            pass


class Capture:
    """Sees the operators of a model and of its backward pass, or of everything, between :meth:`start` and :meth:`stop`.

    The backward pass is seen in the thread that called :meth:`start`, and where torch runs it for that thread; a
    forward pass of the model in any thread.

    Args:
        model: capture what belongs to this module; None to capture everything.
        count, skip: what becomes of the operators it sees.
    """

    def __init__(self, model: nn.Module | None, count: Count, skip: Skip) -> None:
        self._model = model
        self._stack = ModuleStack(model)
        self._mode = _CountingMode(self._stack, model is None, count, skip)
        self._hooks: list[Any] = []
        self._visible = ExitStack()

    def start(self) -> None:
        """From now on."""
        self._hooks = [
            module_hooks.register_module_forward_pre_hook(self._enter),
            module_hooks.register_module_forward_hook(self._leave, always_call=True),
        ]
        _push_mode(self._mode)
        if self._model is None:
            self._visible.enter_context(_in_products())

    def stop(self) -> None:
        """Leave no trace. Does nothing the second time."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        self._visible.close()
        _remove_mode(self._mode)

    def forget(self) -> None:
        """The way from later backward passes to the modules of earlier forward ones."""
        self._mode.place_of_node.clear()

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _enter(self, module: nn.Module, inputs: Any) -> None:
        was_running = self._stack.is_running
        self._stack.push(module)
        if self._model is None or was_running or not self._stack.is_running:
            return
        self._visible.enter_context(_in_products())
        if self._mode not in _get_current_dispatch_mode_stack():
            self._visible.enter_context(self._mode)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _leave(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self._stack.pop(module)
        if self._model is not None and not self._stack.is_running:
            self._visible.close()


@contextmanager
def _in_products() -> Iterator[None]:
    """Inside, attention and recurrent layers take none of the short cuts that hide their products from a dispatch mode.

    Those of recurrent layers are oneDNN's and cuDNN's.
    """
    fast_path = torch.backends.mha.get_fastpath_enabled()
    backends: tuple[Any, ...] = (torch.backends.mkldnn, torch.backends.cudnn)
    fused = [(backend, backend.enabled) for backend in backends]
    torch.backends.mha.set_fastpath_enabled(False)
    for backend, _ in fused:
        backend.enabled = False
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        for backend, was_enabled in fused:
            backend.enabled = was_enabled
        torch.backends.mha.set_fastpath_enabled(fast_path)


def _remove_mode(mode: TorchDispatchMode) -> None:
    """Take a mode off this thread's stack, also from below modes that were entered later and are still there."""
    above: list[TorchDispatchMode] = []
    while mode in _get_current_dispatch_mode_stack():
        above.append(_pop_mode())
    for later in reversed(above):
        if later is not mode:
            _push_mode(later)


class _CountingMode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Lowers what it can and reports what it can't. Autograd's sequence numbers lead from a backward operator to the
    forward one that it is the gradient of, and so to a module.
    """

    def __init__(self, stack: ModuleStack, everything: bool, count: Count, skip: Skip) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._stack, self._everything, self._count, self._skip = stack, everything, count, skip
        self.place_of_node: dict[int, Place] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        lowering = LOWERINGS.get(func.overloadpacket)
        multiplies = lowering is not None or _multiplies(func)
        place = self._place() if multiplies and _does_work(args) else None
        if place is None:
            return func(*args, **kwargs or {})
        if lowering is not None and _has_kernel(args):
            result = self._lower(place, lowering, func.overloadpacket, args, dict(kwargs or {}))
            if result is not NotImplemented:
                return result
        self._skip(place, str(func.overloadpacket))
        return func(*args, **kwargs or {})

    def _place(self) -> Place | None:
        """Where the operator belongs; None if that is nowhere in the model."""
        node = torch._C._current_autograd_node()
        if node is not None and not self._stack.is_running:
            return self.place_of_node.get(node._sequence_nr(), Place("", "") if self._everything else None)
        if not (self._everything or self._stack.is_running):
            return None
        if torch.is_grad_enabled():
            # The node of this operator, if it has one, is the last that was made.
            self.place_of_node[_get_sequence_nr() - 1] = self._stack.place
        return self._stack.place

    def _lower(
        self, place: Place, lowering: Lowering, packet: Any, args: tuple[Any, ...], options: dict[str, Any]
    ) -> Any:
        target = args[0] if packet.__name__.endswith("_") else options.pop("out", None)
        default_phase = FORWARD if torch._C._current_autograd_node() is None else BACKWARD

        def run(
            op: str, input: Tensor, weight: Tensor, bias: Tensor | None = None, *, phase: str = "", **options: Any
        ) -> Tensor:
            return self._count(place, phase or default_phase, op, (input, weight, bias), options)

        result = lowering(run, *args, **options)
        return result if target is None or result is NotImplemented else _write(target, result)


def _has_kernel(args: tuple[Any, ...]) -> bool:
    """Whether the counted kernels take the operands."""
    tensors = _tensors(args)
    return all(unsupported_kind(tensor) is None and tensor.dtype == tensors[0].dtype for tensor in tensors)


def _does_work(args: tuple[Any, ...]) -> bool:
    """Whether there is anything to multiply: empty, meta and fake tensors give shapes only."""
    return all(tensor.numel() > 0 and holds_data(tensor) for tensor in _tensors(args))


def _tensors(args: tuple[Any, ...]) -> list[Tensor]:
    return [argument for argument in args if isinstance(argument, Tensor)]


def _multiplies(func: Any) -> bool:
    """Whether an operator without a lowering may do multiply-accumulates."""
    if func.namespace in FREE_NAMESPACES:
        return func.overloadpacket in NOT_COUNTED
    return func.name().split(".")[0] not in FREE_OPERATORS


def _write(target: Tensor, result: Tensor) -> Tensor:
    if target.shape != result.shape:
        target.resize_(result.shape)
    return target.copy_(result)

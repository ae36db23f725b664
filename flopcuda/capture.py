"""Capture of the multiply-accumulates that are no counted layer's: functional calls, attention, bare operators.

A dispatch mode sees every operator below autograd and autocast. It has those of :mod:`flopcuda.registry` computed by
the counted kernels, and names the others that multiply and accumulate, so that nothing is left out in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import cache
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import (
    TorchDispatchMode,
    _get_current_dispatch_mode_stack,
    _pop_mode,
    _push_mode,
)

from flopcuda import _C, module_calls, shortcuts
from flopcuda.attention import may_search, recognised, triangle_of, without_searches
from flopcuda.backends import Operands
from flopcuda.eager import eagerly
from flopcuda.gradients import BACKWARD_INPUT, BACKWARD_WEIGHT, FORWARD
from flopcuda.lowering import Lowering
from flopcuda.ops import unsupported_kind
from flopcuda.phases import is_transposed, phase_in
from flopcuda.places import ModuleStack, Origins
from flopcuda.registry import (
    FREE_NAMESPACES,
    FREE_OPERATORS,
    LOWERINGS,
    NOT_COUNTED,
    PRODUCTS,
    USUAL_WITHOUT_PRODUCTS,
    WITHOUT_PRODUCTS,
)
from flopcuda.report import Place
from flopcuda.triangles import OF_GRADIENTS, TRANSPOSED

# Computes a counted operator for a place and a phase, from its name, operands and options, and keeps the record.
Count = Callable[[Place, str, str, Operands, Mapping[str, Any]], Tensor]
# Is told of an operator that multiplies and accumulates, and is not counted.
Skip = Callable[[Place, str], None]

_CALL_IMPL = nn.Module._call_impl  # what torch.nn.Module.__call__ calls


class Capture:
    """Sees the operators of a model and of its backward pass, or of everything, between :meth:`start` and :meth:`stop`.

    The backward pass is seen in the thread that called :meth:`start`, and where torch runs it for that thread; a
    forward pass of the model in any thread, in one at a time.

    The mode that sees operators stays on the thread's stack all the time. To take it off where it has nothing to see,
    between two passes, would undo the state of torch that ``torch.inference_mode`` and compiled code put back.

    Args:
        model: capture what belongs to this module; None to capture everything.
        count, skip: what becomes of the operators it sees.
        takes: whether there is anything to multiply in a tensor; operators without are passed by.
        triangles: whether of causal attention's products a triangle is computed, and not all.
    """

    def __init__(
        self, model: nn.Module | None, count: Count, skip: Skip, takes: Callable[[Tensor], bool], *, triangles: bool
    ) -> None:
        self._model = model
        self._triangles = triangles
        self._stack = ModuleStack(model)
        self._origins = Origins()
        self._mode = _CountingMode(self._stack, self._origins, model is None, count, skip, takes)
        self._visible = ExitStack()
        self._passed: _C.PassedOperators | None = None  # while the mode is on the stack
        self.unseen: _C.UnseenModules | None = None  # while it is at work, for the garbage collector sees none of it

    def start(self, counted: Mapping[type[nn.Module], dict[str, Any]] = MappingProxyType({})) -> None:
        """From now on; ``counted`` has the layers whose products are counted as it is, and the methods they run."""
        without_products = {kind: {"forward": forward} for kind, forward in WITHOUT_PRODUCTS.items()}
        methods = {kind: {**own, "_call_impl": _CALL_IMPL} for kind, own in (without_products | dict(counted)).items()}
        self.unseen = _C.UnseenModules(self._mode, methods)
        module_calls.watch(self)
        self._passed = _C.PassedOperators(self._mode, self._origins.progress, _passed_operators())
        _push_mode(self._mode)
        if self._model is None:
            self._make_visible()

    def stop(self) -> None:
        """Leave no trace. Does nothing the second time."""
        if self.unseen is not None:  # from within a module that passes, where a signal is handled
            self.unseen.see_again()
        module_calls.unwatch(self)
        self.unseen = None
        self._visible.close()
        _remove_mode(self._mode)
        self._passed = None

    def forget(self) -> None:
        """The way from later backward passes to the modules of earlier forward ones."""
        self._origins.forget()

    def aside(self) -> AbstractContextManager[Any]:
        """Inside, a counted layer's own operators pass this by, where no later mode stands before it."""
        return _Aside() if self._is_innermost() else nullcontext()

    @eagerly
    def enter(self, module: nn.Module) -> None:
        """As a :class:`flopcuda.module_calls.Watcher`: a module's forward begins."""
        was_running = self._stack.is_running
        self._stack.push(module)
        self._origins.progress.module_changes()
        if self._model is None or was_running or not self._stack.is_running:
            return
        self._make_visible()
        if self._mode not in _get_current_dispatch_mode_stack():
            self._visible.enter_context(self._mode)

    @eagerly
    def leave(self, module: nn.Module) -> None:
        """It ends."""
        self._stack.pop(module)
        self._origins.progress.module_changes()
        if self._model is not None and not self._stack.is_running:
            self._visible.close()

    def _is_innermost(self) -> bool:
        """Whether no later mode stands before this one."""
        modes = torch._C._len_torch_dispatch_stack()
        return modes > 0 and torch._C._get_dispatch_stack_at(modes - 1) is self._mode

    def _make_visible(self) -> None:
        self._visible.enter_context(shortcuts.avoided())
        if self._triangles:
            self._visible.enter_context(recognised())


class _Aside:
    """Inside, the innermost mode sees nothing.

    torch's own context for that is a generator, which takes a part of every small layer's time.
    """

    def __enter__(self) -> None:
        self._mode = torch._C._pop_torch_dispatch_stack(None)

    def __exit__(self, *exception: object) -> None:
        torch._C._push_on_torch_dispatch_stack(self._mode)


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

    def __init__(
        self,
        stack: ModuleStack,
        origins: Origins,
        everything: bool,
        count: Count,
        skip: Skip,
        takes: Callable[[Tensor], bool],
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._stack, self._origins = stack, origins
        self._everything, self._count, self._skip, self._takes = everything, count, skip, takes

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Not by torch's own wrapper: :func:`eagerly` does."""
        return False

    @eagerly
    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if _has_no_products(func) or self._is_idle():  # the shortest way, for most operators
            return self._origins.progress.pass_on(func, args, kwargs)
        func = without_searches(func)
        if _hides_others(func) and _is_inference(args):
            with self:
                return func.decompose(*args, **(kwargs or {}))
        self._origins.progress.operator_begins()
        try:
            return self._run(torch._C._current_autograd_node(), func, args, kwargs or {})
        finally:
            self._origins.progress.operator_ends()

    def _is_idle(self) -> bool:
        """Whether what runs belongs to nothing that is captured: to no forward pass of it, and to no backward pass."""
        return not self._is_captured_forward() and torch._C._current_autograd_node() is None

    def _is_captured_forward(self) -> bool:
        """Whether an operator of a forward pass, if that is what runs, is captured."""
        return self._everything or self._stack.is_running

    def _run(self, node: Any, func: Any, args: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
        triangle = triangle_of(self, *args[:2]) if func.overloadpacket in PRODUCTS else None
        place = self._place(node) if _multiplies(func) and self._does_work(args) else None
        if place is None:
            return self._origins.progress.pass_on(func, args, options)
        lowering = LOWERINGS.get(func.overloadpacket) if _has_kernel(args) else None
        phase = FORWARD if lowering is None or self._stack.is_forward(node) else phase_in(node, _tensors(args))
        if phase in (BACKWARD_INPUT, BACKWARD_WEIGHT):
            triangle = self._triangle_of_gradient(node, phase, args)
        if torch.is_grad_enabled():
            self._origins.note(place, triangle)
        if lowering is not None:
            more = {} if triangle is None else {"triangle": triangle}
            result = self._lower(place, phase, lowering, func.overloadpacket, args, {**options, **more})
            if result is not NotImplemented:
                return result
        self._skip(place, str(func.overloadpacket))
        return func(*args, **options)

    def _triangle_of_gradient(self, node: Any, phase: str, args: tuple[Any, ...]) -> str | None:
        """Of a product that is the gradient of one of which a triangle was computed."""
        of_product = self._origins.triangle_of(node)
        transposed = is_transposed(node, phase, _tensors(args)) if of_product else None
        if transposed is None:
            return None
        triangle = OF_GRADIENTS[of_product][phase == BACKWARD_WEIGHT]
        return TRANSPOSED[triangle] if transposed else triangle

    def _does_work(self, args: tuple[Any, ...]) -> bool:
        """Whether there is anything to multiply."""
        return all(tensor.numel() > 0 and self._takes(tensor) for tensor in _tensors(args))

    def _place(self, node: Any) -> Place | None:
        """Where the operator belongs; None if that is nowhere in the model."""
        origin = None if self._stack.is_forward(node) else self._origins.of(node)
        return origin or (self._stack.place if self._is_captured_forward() else None)

    def _lower(
        self,
        place: Place,
        default_phase: str,
        lowering: Lowering,
        packet: Any,
        args: tuple[Any, ...],
        options: dict[str, Any],
    ) -> Any:
        target = args[0] if packet.__name__.endswith("_") else options.pop("out", None)

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


def _tensors(args: tuple[Any, ...]) -> list[Tensor]:
    return [argument for argument in args if isinstance(argument, Tensor)]


@cache
def _multiplies(func: Any) -> bool:
    """Whether an operator may do multiply-accumulates."""
    if func.overloadpacket in LOWERINGS:
        return True
    if func.namespace in FREE_NAMESPACES:
        return func.overloadpacket in NOT_COUNTED
    return func.name().split(".")[0] not in FREE_OPERATORS


@cache
def _hides_others(func: Any) -> bool:
    """Whether an operator is made of others, and none of the counted ones.

    The dispatcher knows none of those that are asked for the sizes of nested tensors, nor any of prim's.
    """
    if func.overloadpacket in LOWERINGS or not torch._C._dispatch_has_kernel(func.name()):
        return False
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"))


# Operators, which live as long as torch does, by id: to hash one, as a cache has to, runs code in Python.
_known: dict[int, tuple[Any, bool]] = {}


def _has_no_products(func: Any) -> bool:
    """Whether an operator is to be passed by at once."""
    known = _known.get(id(func))
    if known is None:
        known = _known[id(func)] = func, not (_hides_others(func) or _multiplies(func) or may_search(func))
    return known[1]


@cache
def _passed_operators() -> list[str]:
    """The names of operators that need not be shown to the mode. The dispatcher knows none of TorchScript's."""
    packets = [getattr(torch.ops.aten, name) for name in USUAL_WITHOUT_PRODUCTS]
    overloads = [getattr(packet, overload) for packet in packets for overload in packet.overloads()]
    known = [overload for overload in overloads if torch._C._dispatch_has_kernel(overload.name())]
    return [overload.name() for overload in known if _has_no_products(overload)]


def _is_inference(args: tuple[Any, ...]) -> bool:
    """Whether torch has not taken an operator apart that is made of others, for it has left autograd out."""
    return torch.is_inference_mode_enabled() or any(tensor.is_inference() for tensor in _tensors(args))


def _write(target: Tensor, result: Tensor) -> Tensor:
    if target.shape != result.shape:
        target.resize_(result.shape)
    return target.copy_(result)

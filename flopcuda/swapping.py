"""Swapping a model's layers for counted ones, and back.

A layer is swapped by giving the module object another class, a subclass of its own: parameters, buffers, hooks, names,
training mode and every reference to the module stay what they are, and putting the class back undoes all of it. The
session stands in that class, not in the module, so that a module's ``__dict__`` never changes.

A counted layer stands between a user's subclass and the torch class it derives from. ``class Scaled(nn.Linear)`` whose
``forward`` calls ``super().forward()`` is therefore counted where torch's own code would have run.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from torch import Tensor, nn

from flopcuda.gradients import Run, sides_of
from flopcuda.ops import autocast
from flopcuda.report import Place

if TYPE_CHECKING:
    from flopcuda.session import Session


class CountedLayer(nn.Module):
    """What every counted layer has: its place in the model, its own class, the session that counts it, and what runs
    operators for it there.
    """

    counted_place: ClassVar[Place]
    counted_session: ClassVar[Session]
    counted_run: ClassVar[Run]
    original_class: ClassVar[type[nn.Module]]

    def counted_output(self, run: Run, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """What the layer computes, by counted operators."""
        raise NotImplementedError

    def __reduce_ex__(self, protocol: Any) -> Any:
        """A copy or pickle of a counted layer is the original layer: it outlives the session, or leaves the process."""
        reduced = cast(tuple[Any, ...], super().__reduce_ex__(protocol))
        return (_blank, (self.original_class,), *reduced[2:])


def _blank(layer: type[nn.Module]) -> nn.Module:
    return layer.__new__(layer)


def _convolve(
    layer: CountedConv2d | CountedConv3d, run: Run, input: Tensor, weight: Tensor, bias: Tensor | None
) -> Tensor:
    """A layer's convolution of images, or of one without the batch dimension."""
    padding = _padding_sides(
        layer.padding if isinstance(layer.padding, str) else tuple(layer.padding),
        tuple(layer.kernel_size),
        tuple(layer.dilation),
    )
    if layer.padding_mode != "zeros":
        input = autocast(nn.functional.pad(input, padding, mode=layer.padding_mode))  # which may be in float32
        padding = (0,) * len(padding)
    is_single = input.dim() == len(layer.kernel_size) + 1
    output = run(
        layer.counted_operator,
        input.unsqueeze(0) if is_single else input,
        weight,
        bias,
        stride=layer.stride,
        padding=padding,
        dilation=layer.dilation,
        groups=layer.groups,
    )
    return output.squeeze(0) if is_single else output


class CountedConv2d(CountedLayer, nn.Conv2d):
    """``torch.nn.Conv2d`` through the counted kernels."""

    counted_operator = "conv2d"
    counted_output = _convolve

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return self.counted_session.run(self, super()._conv_forward, input, weight, bias)


class CountedConv3d(CountedLayer, nn.Conv3d):
    """``torch.nn.Conv3d`` through the counted kernels."""

    counted_operator = "conv3d"
    counted_output = _convolve

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return self.counted_session.run(self, super()._conv_forward, input, weight, bias)


class CountedLinear(CountedLayer, nn.Linear):
    """``torch.nn.Linear`` through the counted kernels."""

    def counted_output(self, run: Run, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return run("linear", input, weight, bias)

    def forward(self, input: Tensor) -> Tensor:
        return self.counted_session.run(self, nn.functional.linear, input, self.weight, self.bias)


COUNTED_LAYERS: dict[type[nn.Module], type[CountedLayer]] = {
    nn.Conv2d: CountedConv2d,
    nn.Conv3d: CountedConv3d,
    nn.Linear: CountedLinear,
}


@cache
def _padding_sides(
    padding: str | tuple[int, ...], kernel_size: tuple[int, ...], dilation: tuple[int, ...]
) -> tuple[int, ...]:
    """Zeros before and behind each axis, the last first; "same" puts the odd one behind, as torch does."""
    if padding == "valid":
        return (0,) * (2 * len(kernel_size))
    if padding == "same":
        total = [step * (size - 1) for step, size in zip(dilation, kernel_size, strict=True)]
        return sides_of([zeros // 2 for zeros in total], [zeros - zeros // 2 for zeros in total])
    sides = cast("tuple[int, ...]", padding)
    return sides_of(sides, sides)


def swap(model: nn.Module, session: Session) -> list[CountedLayer]:
    """Swap all layers that can be counted, or none.

    Returns:
        The modules that now count, for :func:`restore`.

    Raises:
        RuntimeError: a module is instrumented already.
        TypeError: ``model`` holds a scripted module.
        ValueError: a module is lazy and not yet materialised.
    """
    named = dict(model.named_modules())
    for name, module in named.items():
        _check_swappable(name or "the model", module)
    swapped: list[CountedLayer] = []
    for name, module in named.items():
        layer = _counted_layer_for(module)
        if layer is not None:
            module.__class__ = _counted_class(type(module), layer, name, session)
            swapped.append(cast(CountedLayer, module))
    return swapped


def restore(layers: Iterable[CountedLayer]) -> None:
    """Give each layer its own class back."""
    for layer in layers:
        layer.__class__ = layer.original_class  # type: ignore[assignment]


def counted_methods(layers: Iterable[CountedLayer]) -> dict[type[nn.Module], dict[str, Any]]:
    """Of layers that are torch's own, by their class now, the methods that are all code to run: counted, or torch's."""
    return {
        type(layer): {name: getattr(type(layer), name) for name in ("forward", "_conv_forward") if hasattr(layer, name)}
        for layer in layers
        if layer.original_class in COUNTED_LAYERS
    }


def _check_swappable(name: str, module: nn.Module) -> None:
    if isinstance(module, CountedLayer):
        raise RuntimeError(f"{name} ({module.original_class.__name__}) is instrumented already; restore it first")
    if isinstance(module, torch.jit.ScriptModule):
        raise TypeError(f"{name} is a scripted module, whose layers can't be swapped; instrument the original model")
    if isinstance(module, nn.modules.lazy.LazyModuleMixin) and module.has_uninitialized_params():
        raise ValueError(f"{name} ({type(module).__name__}) is lazy; run the model once before instrumenting it")


def _counted_layer_for(module: nn.Module) -> type[CountedLayer] | None:
    return next((counted for base, counted in COUNTED_LAYERS.items() if isinstance(module, base)), None)


def _counted_class(
    original: type[nn.Module], layer: type[CountedLayer], name: str, session: Session
) -> type[CountedLayer]:
    # After the user's class and before torch's: the method resolution order puts the counted layer's base behind it.
    bases = (layer,) if original in COUNTED_LAYERS else (original, layer)
    place = Place(name, original.__name__)
    namespace = {
        "counted_place": place,
        "counted_session": session,
        "counted_run": staticmethod(session.operators_at(place)),
        "original_class": original,
        "__module__": original.__module__,
        "__qualname__": original.__qualname__,
        "__doc__": original.__doc__,
    }
    return type(original.__name__, bases, namespace)

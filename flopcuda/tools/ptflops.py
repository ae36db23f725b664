"""ptflops with its two backends.

"pytorch" (the default) hooks the module types it knows and also patches functions and tensor methods for the length of
the pass. What the hooks added up is then divided by the batch, what the functions added up is not, and an ``nn.ReLU``
or a pooling module shows in both. "aten" is a dispatch mode with a formula for each matrix product and convolution.

Neither backend keeps figures of single layers, so its own rules are wrapped to note what each of them returns.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import nn

from flopcuda.tools import kinds
from flopcuda.tools.ptflops_modules import parts_of_module
from flopcuda.tools.report import Term
from flopcuda.tools.running import running_modules
from flopcuda.tools.tool import Figure, Observation, Tool, whole
from flopcuda.tools.unseen import FusedAttention, unpatched_calls

_KIND_OF_FUNCTION = {
    "matmul": kinds.MULTIPLY_ACCUMULATE,
    "mm": kinds.MULTIPLY_ACCUMULATE,
    "bmm": kinds.MULTIPLY_ACCUMULATE,
    "addmm": kinds.MULTIPLY_ACCUMULATE,
    "baddbmm": kinds.MULTIPLY_ACCUMULATE,
    "relu": kinds.ACTIVATION,
    "prelu": kinds.ACTIVATION,
    "elu": kinds.ACTIVATION,
    "relu6": kinds.ACTIVATION,
    "gelu": kinds.ACTIVATION,
    "silu": kinds.ACTIVATION,
    "softmax": kinds.SOFTMAX,
    "avg_pool1d": kinds.AVERAGE_POOL,
    "avg_pool2d": kinds.AVERAGE_POOL,
    "avg_pool3d": kinds.AVERAGE_POOL,
    "adaptive_avg_pool1d": kinds.AVERAGE_POOL,
    "adaptive_avg_pool2d": kinds.AVERAGE_POOL,
    "adaptive_avg_pool3d": kinds.AVERAGE_POOL,
    "max_pool1d": kinds.MAX_POOL,
    "max_pool2d": kinds.MAX_POOL,
    "max_pool3d": kinds.MAX_POOL,
    "adaptive_max_pool1d": kinds.MAX_POOL,
    "adaptive_max_pool2d": kinds.MAX_POOL,
    "adaptive_max_pool3d": kinds.MAX_POOL,
    "upsample": kinds.UPSAMPLE,
    "interpolate": kinds.UPSAMPLE,
    "mul": kinds.ELEMENTWISE,
    "add": kinds.ELEMENTWISE,
}

# Operators to whose figure one an output is added for a bias, and where it is among their arguments.
_BIAS_ARGUMENTS = {torch.ops.aten.addmm: 0, torch.ops.aten.convolution: 2, torch.ops.aten._convolution: 2}


def observe_pytorch(model: nn.Module, inputs: tuple[Any, ...]) -> Observation:
    """Run the default backend on the whole batch."""
    names = {module: name for name, module in model.named_modules()}
    operations = importlib.import_module("ptflops.pytorch_ops")
    known = tuple(operations.MODULES_MAPPING)
    of_modules: list[Figure] = []
    of_functions: list[Figure] = []

    def noting_module(rule: Callable[..., None]) -> Callable[..., None]:
        def noted(module: nn.Module, *arguments: Any) -> None:
            before = int(module.__flops__)  # type: ignore[arg-type]
            rule(module, *arguments)
            amount = int(module.__flops__) - before  # type: ignore[arg-type]
            of_modules.extend(_parts(module, names[module], amount, *arguments))

        return noted

    def noting_function(running: list[str], name: str, rule: Callable[..., float]) -> Callable[..., float]:
        def noted(*arguments: Any, **options: Any) -> float:
            amount = rule(*arguments, **options)
            bias = _bias_of_function(name, *arguments, **options)
            of_functions.append(Figure(running[-1], _kind_of_call(name), whole(amount) - bias))
            of_functions.append(Figure(running[-1], kinds.BIAS, bias))
            return amount

        return noted

    hooked = {name for module, name in names.items() if type(module) in known}
    modules = {module: noting_module(rule) for module, rule in operations.MODULES_MAPPING.items()}
    with running_modules(model) as running, unpatched_calls(running, hooked) as unseen:
        functions, methods = (
            {function: noting_function(running, _public_name(function), rule) for function, rule in rules.items()}
            for rules in (operations.FUNCTIONAL_MAPPING, operations.TENSOR_OPS_MAPPING)
        )
        with (
            patch.dict(operations.MODULES_MAPPING, modules),
            patch.dict(operations.FUNCTIONAL_MAPPING, functions),
            patch.dict(operations.TENSOR_OPS_MAPPING, methods),
        ):
            reported = _run(model, inputs, backend="pytorch")
            of_modules += _by_place(model, of_modules, known)
    per_image = _per_image(of_modules, batch=int(model.__batch_counter__))  # type: ignore[arg-type]
    return Observation(reported, (*of_modules, *of_functions), tuple(unseen), per_image)


def observe_aten(model: nn.Module, inputs: tuple[Any, ...]) -> Observation:
    """Run the dispatch backend on the whole batch."""
    rules = importlib.import_module("ptflops.aten_ops").ATEN_OPS_MAPPING
    figures: list[Figure] = []

    with running_modules(model) as running, FusedAttention(running, rules) as attention:

        def noting(operator: Any, rule: Callable[..., float]) -> Callable[..., float]:
            def noted(arguments: Any, results: Any) -> float:
                amount = rule(arguments, results)
                has_bias = operator in _BIAS_ARGUMENTS and arguments[_BIAS_ARGUMENTS[operator]] is not None
                bias = results[0].numel() if has_bias else 0
                figures.append(Figure(running[-1], kinds.MULTIPLY_ACCUMULATE, whole(amount) - bias))
                figures.append(Figure(running[-1], kinds.BIAS, bias))
                return amount

            return noted

        with patch.dict(rules, {operator: noting(operator, rule) for operator, rule in rules.items()}):
            reported = _run(model, inputs, backend="aten")
    return Observation(reported, tuple(figures), tuple(attention.unseen))


def _run(model: nn.Module, inputs: tuple[Any, ...], *, backend: str) -> int:
    """``get_model_complexity_info``, which prints an exception of the model and swallows it; here it is raised."""
    arguments = _as_arguments(model, inputs)
    failures = _failures_of(model)
    with _restored(torch), _restored(nn.functional), _restored(torch.Tensor):
        macs, _ = importlib.import_module("ptflops").get_model_complexity_info(
            model,
            (1,),  # only the constructor sees it
            input_constructor=lambda _: arguments,
            print_per_layer_stat=False,
            as_strings=False,
            backend=backend,
        )
    if macs is None:
        raise failures[0] if failures else RuntimeError("it gave no number")
    return whole(macs)


def _failures_of(model: nn.Module) -> list[Exception]:
    """A list that receives what a call of the model raises, in its forward pass or in the hook of ptflops."""
    failures: list[Exception] = []
    call: Callable[..., Any] = model._call_impl

    def noted(*arguments: Any, **options: Any) -> Any:
        try:
            return call(*arguments, **options)
        except Exception as error:
            failures.append(error)
            raise

    model._call_impl = noted  # type: ignore[method-assign]
    return failures


def _as_arguments(model: nn.Module, inputs: tuple[Any, ...]) -> Any:
    """One input as it is, several by name: ptflops calls a model with one positional or with keyword arguments."""
    if len(inputs) == 1:
        return inputs[0]
    return dict(inspect.signature(model.forward).bind(*inputs).arguments)


def _per_image(figures: list[Figure], *, batch: int) -> tuple[Term, ...]:
    total = sum(figure.amount for figure in figures)
    return (Term(f"modules' figures divided by the batch of {batch}", total // batch - total),)


def _parts(module: nn.Module, name: str, amount: int, inputs: tuple[Any, ...], output: Any) -> list[Figure]:
    """A module's figure by kind."""
    parts = parts_of_module(module, inputs, output)
    rest = Figure(name, kinds.kind_of_module(module), amount - sum(parts.values()))
    return [rest, *(Figure(name, kind, part) for kind, part in parts.items())]


def _by_place(model: nn.Module, figures: list[Figure], known: tuple[type, ...]) -> list[Figure]:
    """What it means for the figures that ptflops adds up by place, not by module, and not below a module it knows.

    A shared module counts once more for each further place; a module with no place of its own does not count.
    """
    places: dict[str, int] = {}
    names = {module: name for name, module in model.named_modules()}

    def visit(module: nn.Module) -> None:
        places[names[module]] = places.get(names[module], 0) + 1
        if type(module) not in known:
            for child in module.children():
                visit(child)

    visit(model)
    again = ((figure, places.get(figure.module, 0) - 1) for figure in figures)
    return [
        Figure(figure.module, kinds.SHARED_AGAIN if times > 0 else kinds.LEFT_OUT, times * figure.amount)
        for figure, times in again
        if times
    ]


def _bias_of_function(name: str, *arguments: Any, beta: float = 1, **_: Any) -> int:
    """What is added to a matrix product counts one for each of its elements."""
    return int(arguments[0].numel()) if name in ("addmm", "baddbmm") and beta != 0 else 0


def _kind_of_call(function: str) -> str | None:
    kind = _KIND_OF_FUNCTION.get(function)
    return kind if kind in (None, kinds.MULTIPLY_ACCUMULATE) else f"{kind} (function calls)"


def _public_name(function: Any) -> str:
    """The name a function goes by; poolings are generated and all called ``fn``."""
    named = (name for name, value in vars(nn.functional).items() if value is function and not name.startswith("_"))
    return next(named, function.__name__)


@contextmanager
def _restored(owner: Any) -> Iterator[None]:
    """Puts back the attributes that ptflops replaces.

    ptflops does so itself unless it is interrupted, except that it leaves what ``torch.Tensor`` inherits behind as
    attributes of its own.
    """
    before = dict(vars(owner))
    try:
        yield
    finally:
        for name, value in dict(vars(owner)).items():
            if name in before and value is not before[name]:
                setattr(owner, name, before[name])
            elif name not in before and isinstance(owner, type):
                delattr(owner, name)


PYTORCH_BACKEND = Tool(
    name="ptflops",
    package="ptflops",
    distributions=("ptflops",),
    unit="MACs",
    convention=(
        "MACs of convolution, linear and recurrent modules and 1 an output for their bias, the elementwise work of "
        "recurrent ones, batch norm at 2, activation and "
        "pooling modules at 1 per element, all divided by the batch; and functional calls, those inside modules "
        "included, for the whole batch; always in eval mode"
    ),
    per_mac=1,
    observe=observe_pytorch,
)

ATEN_BACKEND = Tool(
    name="ptflops (aten)",
    package="ptflops",
    distributions=("ptflops",),
    unit="MACs",
    convention=(
        "MACs of every convolution and matrix product, and 1 an output for a bias, for the whole batch; always in eval "
        "mode"
    ),
    per_mac=1,
    observe=observe_aten,
)

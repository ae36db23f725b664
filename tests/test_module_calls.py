"""Calls of modules: who is told of them, what passes unseen, and that torch's own call is left as it was."""

from __future__ import annotations

import gc
import inspect
import weakref
from contextlib import ExitStack
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import flopcuda
from flopcuda import _C, module_calls


class Recorder:
    """A watcher that notes what it is told."""

    def __init__(self) -> None:
        self.unseen: _C.UnseenModules | None = None
        self.told: list[str] = []

    def enter(self, module: nn.Module) -> None:
        self.told.append(f"enter {type(module).__name__}")

    def leave(self, module: nn.Module) -> None:
        self.told.append(f"leave {type(module).__name__}")


class Fails(nn.Module):
    def forward(self, input: Tensor, *, scale: float = 1.0) -> Tensor:
        raise KeyboardInterrupt if scale == 2 else ValueError(scale)


@pytest.fixture
def call() -> Any:
    before = nn.Module.__call__
    yield before
    assert nn.Module.__call__ is before


def test_a_watcher_is_told_of_every_call_and_its_end(call: Any) -> None:
    recorder = Recorder()
    module_calls.watch(recorder)
    try:
        nn.Sequential(nn.ReLU())(torch.ones(1))
        for scale, error in ((1.5, ValueError), (2, KeyboardInterrupt)):
            with pytest.raises(error):
                Fails()(torch.ones(1), scale=scale)
    finally:
        module_calls.unwatch(recorder)
    nn.ReLU()(torch.ones(1))
    relu = ["enter Sequential", "enter ReLU", "leave ReLU", "leave Sequential"]
    assert recorder.told == relu + 2 * ["enter Fails", "leave Fails"]


def test_watchers_may_leave_in_any_order(call: Any) -> None:
    recorders = [Recorder() for _ in range(3)]
    for recorder in recorders:
        module_calls.watch(recorder)
    for left in (1, 0, 2):
        nn.ReLU()(torch.ones(1))
        module_calls.unwatch(recorders[left])
        module_calls.unwatch(recorders[left])
    assert [len(recorder.told) for recorder in recorders] == [4, 2, 6]


def test_a_call_that_another_has_replaced_since_is_left_to_it(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder()
    module_calls.watch(recorder)
    watched = nn.Module.__call__
    calls = []

    def traced(self: nn.Module, *args: Any) -> Any:  # as torch.fx puts one there
        calls.append(self)
        return watched(self, *args)

    with monkeypatch.context() as patches:
        patches.setattr(nn.Module, "__call__", traced)
        nn.ReLU()(torch.ones(1))
        module_calls.unwatch(recorder)
        nn.ReLU()(torch.ones(1))
        assert len(calls) == 2
    assert len(recorder.told) == 2
    module_calls.watch(recorder)  # behind what the other one has put back
    nn.ReLU()(torch.ones(1))
    module_calls.unwatch(recorder)
    assert len(recorder.told) == 4


def test_a_call_that_another_has_put_around_ours_stays_and_ours_tells_once(monkeypatch: pytest.MonkeyPatch) -> None:
    before, recorder = nn.Module.__call__, Recorder()
    module_calls.watch(recorder)
    watched = nn.Module.__call__

    def around(self: nn.Module, *args: Any) -> Any:
        return watched(self, *args)

    monkeypatch.setattr(nn.Module, "__call__", around)
    module_calls.unwatch(recorder)
    for told in (2, 4):
        module_calls.watch(recorder)  # around it, which is around an earlier one
        nn.ReLU()(torch.ones(1))
        assert len(recorder.told) == told
        module_calls.unwatch(recorder)
        assert nn.Module.__call__ is around
        nn.ReLU()(torch.ones(1))
    monkeypatch.setattr(nn.Module, "__call__", before)


def test_the_call_has_the_signature_of_torchs_own() -> None:
    before = inspect.signature(nn.ReLU())
    with flopcuda.count():
        assert inspect.signature(nn.ReLU()) == before
        with pytest.raises(TypeError, match="needs a module"):
            nn.Module.__call__()  # type: ignore[call-arg]


@pytest.mark.parametrize("open_session", [flopcuda.instrument, flopcuda.count, None], ids=["model", "all", "failed"])
def test_a_session_and_its_model_are_freed(open_session: Any) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    if open_session is None:
        with flopcuda.instrument(model[0]), pytest.raises(RuntimeError, match="instrumented already"):
            flopcuda.instrument(model)
        references = [weakref.ref(model)]
    else:
        arguments = [model] if open_session is flopcuda.instrument else []
        with open_session(*arguments) as session:
            model(torch.ones(2, 3))
        references = [weakref.ref(model), weakref.ref(session)]
        del session, arguments
    del model
    gc.collect()
    assert [reference() for reference in references] == [None] * len(references)


@pytest.mark.parametrize("layer", [nn.ReLU(), nn.Linear(5, 5)], ids=["relu", "linear"])
@pytest.mark.parametrize("attribute", ["_call_impl", "_compiled_call_impl"])
def test_what_replaces_a_modules_call_is_counted(
    layer: nn.Module, attribute: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layer, attribute, multiply, raising=False)
    with flopcuda.instrument(nn.Sequential(layer)) as session:
        session.model(torch.randn(7, 5))  # type: ignore[misc]
    assert session.report().total.macs == 7 * 5 * 5


def test_a_traced_model_is_the_same_within_a_session(call: Any) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    expected = [(node.op, node.target) for node in torch.fx.symbolic_trace(model).graph.nodes]
    with flopcuda.count():
        graph = torch.fx.symbolic_trace(model).graph
    assert [(node.op, node.target) for node in graph.nodes] == expected


def multiply(input: Tensor) -> Tensor:
    return input @ torch.ones(input.shape[-1], input.shape[-1])


@pytest.mark.parametrize("method", ["forward", "_conv_forward"])
def test_what_replaces_a_method_of_a_counted_layer_is_counted(method: str) -> None:
    layer = nn.Conv2d(2, 2, 1)
    setattr(layer, method, lambda input, *_: multiply(input))
    with flopcuda.instrument(nn.Sequential(layer)) as session:
        session.model(torch.randn(1, 2, 3, 5))  # type: ignore[misc]
    assert session.report().total.macs == 2 * 3 * 5 * 5


@pytest.mark.parametrize("of_all", [False, True])
@pytest.mark.parametrize("is_before", [False, True])
def test_products_in_hooks_of_a_counted_layer_are_counted(is_before: bool, of_all: bool) -> None:
    layer = nn.Linear(5, 5)
    kind = "forward_pre_hook" if is_before else "forward_hook"
    hooks = nn.modules.module if of_all else layer
    register = getattr(hooks, f"register_module_{kind}" if of_all else f"register_{kind}")

    def hook(module: nn.Module, inputs: tuple[Tensor], *output: Tensor) -> Tensor | None:
        return multiply((output or inputs)[0]) if isinstance(module, nn.Linear) else None

    with ExitStack() as stack, flopcuda.instrument(nn.Sequential(layer)) as session:
        stack.callback(register(hook).remove)
        session.model(torch.randn(7, 5))  # type: ignore[misc]
    assert session.report().total.macs == 2 * 7 * 5 * 5


def test_the_products_of_a_layer_are_counted_once_where_two_sessions_see_them() -> None:
    model, other = nn.Sequential(nn.Linear(5, 5)), nn.Sequential(nn.Linear(5, 5))
    with flopcuda.instrument(model) as session, flopcuda.count() as everything:
        other(model(torch.randn(7, 5)))
    assert session.report().total.macs == 7 * 5 * 5
    assert everything.report().total.macs == 7 * 5 * 5

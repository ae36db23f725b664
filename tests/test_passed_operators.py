"""Operators that pass a capture by without its being called: everybody else sees them as ever."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils.flop_counter import flop_registry

import flopcuda
from flopcuda.capture import _CountingMode, _passed_operators
from flopcuda.registry import USUAL_WITHOUT_PRODUCTS

OPERATOR = "aten::add.Tensor"


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the operators that captures are shown."""
    names: list[str] = []
    original = _CountingMode.__torch_dispatch__

    def dispatch(self: Any, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        names.append(func.name())
        return original(self, func, types, args, kwargs)

    monkeypatch.setattr(_CountingMode, "__torch_dispatch__", dispatch)
    return names


class Recorder(TorchDispatchMode):
    """The names of the operators that it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.name())
        return func(*args, **(kwargs or {}))


class Subclass(Tensor):
    """A tensor that notes what is done with it."""

    names: ClassVar[list[str]] = []

    @staticmethod
    def __new__(cls, data: Tensor) -> Subclass:
        return Tensor._make_wrapper_subclass(cls, data.shape, dtype=data.dtype)

    def __init__(self, data: Tensor) -> None:
        self.data_inside = data

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        cls.names.append(func.name())
        plain = [argument.data_inside if isinstance(argument, Subclass) else argument for argument in args]
        return func(*plain, **(kwargs or {}))


def has_kernel() -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(OPERATOR, "Python")


def test_none_of_them_multiplies() -> None:
    packets = {getattr(torch.ops.aten, name) for name in USUAL_WITHOUT_PRODUCTS}
    assert not packets & set(flop_registry)
    assert OPERATOR in _passed_operators()


def test_a_training_step_shows_few_operators_and_counts_the_same(shown: list[str]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    images = torch.randn(2, 3, 8, 8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    with flopcuda.instrument(model) as session:
        loss = nn.functional.cross_entropy(model(images), torch.tensor([0, 1]))
        loss.backward()
        (images @ torch.randn(8, 8)).sum()
        optimizer.step()
    assert not {name for name in shown if name != "aten::detach"} & set(_passed_operators())
    macs = {(launch.module, launch.phase): launch.counters.macs for launch in session.report().launches}
    convolution, linear = 2 * 4 * 36 * 27, 2 * 144 * 2
    assert macs == {
        ("0", "forward"): convolution,
        ("0", "backward_weight"): convolution,
        ("4", "forward"): linear,
        ("4", "backward_input"): linear,
        ("4", "backward_weight"): linear,
    }


def test_products_between_them_are_shown(shown: list[str]) -> None:
    with flopcuda.count() as session:
        a = torch.randn(3, 4, requires_grad=True)
        ((a + 1) @ (a.detach().t() * 2)).relu().sum().backward()
    assert session.report().total.macs == 3 * 4 * 3 * 2
    assert shown.count("aten::mm") == 2


def test_other_modes_are_shown_them() -> None:
    a = torch.ones(2)
    with flopcuda.count(), Recorder() as inner:
        below = a + 1
    with Recorder() as outer, flopcuda.count():
        above = a + 1
    assert inner.names == outer.names == [OPERATOR]
    assert below.tolist() == above.tolist() == [2, 2]
    with flopcuda.count(), FakeTensorMode():
        assert isinstance(torch.empty(2) + 1, torch._subclasses.FakeTensor)


def test_subclasses_are_shown_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Subclass, "names", [])
    a = Subclass(torch.ones(2))
    with flopcuda.count():
        assert torch.equal(a + 1, torch.full((2,), 2.0))
        assert torch.equal(torch.cat([torch.zeros(2), torch.ones(2)]), torch.tensor([0.0, 0, 1, 1]))
    assert Subclass.names == [OPERATOR]


def test_subclasses_are_shown_them_where_no_mode_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session of one model's modules does not see this thread, but the kernels are the process's."""
    monkeypatch.setattr(Subclass, "names", [])
    session = flopcuda.count()
    try:
        with _disable_current_modes():
            assert torch.equal(Subclass(torch.ones(2)) + 1, torch.full((2,), 2.0))
    finally:
        session.restore()
    assert Subclass.names == [OPERATOR]


def test_operators_run_where_the_modes_key_is_left_but_no_mode() -> None:
    """As where a kernel switches modes off and goes on with the keys that it was given."""
    a = torch.ones(2)
    with flopcuda.count(), _disable_current_modes(), torch._C._IncludeDispatchKeyGuard(torch._C.DispatchKey.Python):
        result = a + 1
    assert result.tolist() == [2, 2]


def test_errors_pass_too(shown: list[str]) -> None:
    with flopcuda.count() as session:
        with pytest.raises(RuntimeError, match="must match the size"):
            torch.ones(2) + torch.ones(3)
        torch.ones(2, 2) @ torch.ones(2, 2)
    assert session.report().total.macs == 8


def test_no_kernel_stays_behind() -> None:
    assert not has_kernel()
    first, second = flopcuda.count(), flopcuda.count()
    assert has_kernel()
    second.restore()
    assert has_kernel()
    first.restore()
    assert not has_kernel()

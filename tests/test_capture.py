"""capture="ops": matrix products and convolutions that are no module's, their gradients, and what can't be counted."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules import module as module_hooks
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

import flopcuda
from flopcuda.geometry import exact_counts
from flopcuda.registry import FREE_NAMESPACES, LOWERINGS, NAMED, NOT_COUNTED, WITHOUT_PRODUCTS
from tests.cuda_kernels import needs_kernels
from tests.recorder import Recorder
from tests.torch_counts import torchs_own_count

attend = functional.scaled_dot_product_attention


def randn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


a, b, square = randn(5, 7), randn(7, 6), randn(7, 7)
batch_a, batch_b = randn(3, 5, 7), randn(3, 7, 6)
images, lines = randn(2, 4, 9, 8), randn(2, 4, 9)

# A call and its MACs: outputs times products of each.
CALLS: dict[str, tuple[Callable[[], Tensor], int]] = {
    "mm": (lambda: torch.mm(a, b), 5 * 6 * 7),
    "mm of a transposed matrix": (lambda: a @ square.t(), 5 * 7 * 7),
    "mm of strided matrices": (lambda: a[:, ::2] @ b[::2], 5 * 6 * 4),
    "mm of an expanded matrix": (lambda: a @ randn(7, 1).expand(7, 4), 5 * 4 * 7),
    "@ with leading dimensions": (lambda: randn(2, 3, 5, 7) @ b, 30 * 6 * 7),
    "@ of a vector": (lambda: a @ randn(7), 5 * 7),
    "vector @ matrices": (lambda: randn(5) @ batch_a, 3 * 7 * 5),
    "matrices @ vector": (lambda: batch_a @ randn(7), 15 * 7),
    "@ that broadcasts": (lambda: randn(2, 1, 5, 7) @ batch_b, 6 * 5 * 6 * 7),
    "mv": (lambda: torch.mv(a, randn(7)), 5 * 7),
    "dot": (lambda: torch.dot(randn(9), randn(9)), 9),
    "addmm": (lambda: torch.addmm(randn(6), a, b), 5 * 6 * 7),
    "addmm, scaled": (lambda: torch.addmm(randn(5, 6), a, b, beta=0.5, alpha=2.0), 5 * 6 * 7),
    "addmm without its addend": (lambda: torch.addmm(torch.full((5, 6), torch.nan), a, b, beta=0), 5 * 6 * 7),
    "addmm and ReLU": (lambda: torch._addmm_activation(randn(6), a, b), 5 * 6 * 7),
    "addmm and GELU": (lambda: torch._addmm_activation(randn(6), a, b, use_gelu=True), 5 * 6 * 7),
    "addr": (lambda: torch.addr(randn(5, 6), randn(5), randn(6), beta=2, alpha=3), 5 * 6),
    "addr in place": (lambda: randn(5, 6).addr_(randn(5), randn(6)), 5 * 6),
    "inner": (lambda: torch.inner(batch_a, randn(4, 7)), 15 * 4 * 7),
    "tensordot": (lambda: torch.tensordot(batch_a, randn(5, 7, 2), 2), 3 * 2 * 35),
    "multi_dot in its best order": (lambda: torch.linalg.multi_dot([a, b, randn(6, 2)]), 7 * 6 * 2 + 5 * 7 * 2),
    "addmv": (lambda: torch.addmv(randn(5), a, randn(7), beta=3), 5 * 7),
    "bmm": (lambda: torch.bmm(batch_a, batch_b), 3 * 5 * 6 * 7),
    "bmm of transposed matrices": (lambda: torch.bmm(batch_a, randn(3, 4, 7).transpose(1, 2)), 3 * 5 * 4 * 7),
    "baddbmm": (lambda: torch.baddbmm(randn(3, 5, 6), batch_a, batch_b, alpha=0.5), 3 * 5 * 6 * 7),
    "addbmm": (lambda: torch.addbmm(randn(5, 6), batch_a, batch_b, beta=2), 5 * 6 * 21),
    "out=": (lambda: torch.mm(a, b, out=torch.empty(0)), 5 * 6 * 7),
    "in place": (lambda: randn(5, 6).addmm_(a, b), 5 * 6 * 7),
    "einsum": (lambda: torch.einsum("bij,bjk->bik", batch_a, batch_b), 3 * 5 * 6 * 7),
    "einsum over two axes": (lambda: torch.einsum("bij,bkj->ik", batch_a, randn(3, 6, 7)), 5 * 6 * 21),
    "F.linear": (lambda: functional.linear(batch_a, randn(4, 7), randn(4)), 15 * 4 * 7),
    "F.linear of a vector": (lambda: functional.linear(randn(7), randn(4, 7)), 4 * 7),
    "F.conv2d": (
        lambda: functional.conv2d(images, randn(6, 2, 3, 3), randn(6), stride=2, padding=1, groups=2),
        2 * 6 * 5 * 4 * 18,
    ),
    "F.conv2d of one image": (lambda: functional.conv2d(images[0], randn(6, 4, 3, 3)), 6 * 7 * 6 * 36),
    "F.conv1d": (lambda: functional.conv1d(lines, randn(6, 4, 3), randn(6), padding=2, dilation=2), 2 * 6 * 9 * 12),
    "attention": (lambda: attend(randn(2, 4, 6, 8), randn(2, 4, 5, 8), randn(2, 4, 5, 3)), 8 * 6 * 5 * (8 + 3)),
    "causal attention": (
        lambda: attend(randn(2, 4, 6, 8), randn(2, 4, 6, 8), randn(2, 4, 6, 8), is_causal=True),
        8 * (6 * 7 // 2) * 16,
    ),
    "grouped-query attention": (
        lambda: attend(randn(2, 4, 6, 8), randn(2, 2, 6, 8), randn(2, 2, 6, 8), enable_gqa=True),
        8 * 6 * 6 * 16,
    ),
}


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.inference_mode])
@pytest.mark.parametrize(("call", "macs"), CALLS.values(), ids=CALLS.keys())
def test_a_call_computes_as_always_and_is_counted(
    call: Callable[[], Tensor], macs: int, mode: Callable[[], AbstractContextManager[None]]
) -> None:
    expected = call()
    with flopcuda.count() as session, mode():
        result = call()
    torch.testing.assert_close(result, expected)
    report = session.report()
    assert report.total.macs == macs
    assert report.not_counted == ()
    for launch in report.launches:
        counters = launch.counters
        assert (counters.mul, counters.add, counters.pad) == exact_counts(launch)
        assert (launch.module, launch.module_type, launch.phase) == ("", "", "forward")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", ["mm", "bmm", "F.linear", "F.conv2d", "attention"])
def test_other_dtypes(name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    call, macs = CALLS[name]
    for variable in ("a", "b", "batch_a", "batch_b", "images"):
        monkeypatch.setitem(globals(), variable, globals()[variable].to(dtype))
    monkeypatch.setitem(globals(), "randn", lambda *shape, make=randn: make(*shape).to(dtype))
    expected = call()
    with flopcuda.count() as session:
        result = call()
    assert result.dtype == dtype
    tolerance = 1e-13 if dtype == torch.float64 else 2e-2
    torch.testing.assert_close(result, expected, atol=tolerance, rtol=tolerance)
    assert session.report().total.macs == macs


class Mixed(nn.Module):
    """Counted layers, attention, and calls of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 4, stride=4)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 5)
        self.mixing = nn.Parameter(torch.randn(8, 8))

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.conv(x).flatten(2).transpose(1, 2) @ self.mixing
        attended, _ = self.attention(tokens, tokens, tokens)
        return self.head(attended.mean(1))


# Of modules that have to be told something, and the axes of their input, if not four.
ARGUMENTS: dict[type[nn.Module], tuple[Any, ...]] = {
    **dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d), (4,)),
    **dict.fromkeys((nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d), (4,)),
    **dict.fromkeys((nn.LayerNorm, nn.RMSNorm), (4,)),
    **dict.fromkeys((nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d), (2,)),
    **dict.fromkeys((nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d), (2,)),
    **dict.fromkeys((nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d), (2,)),
    **dict.fromkeys((nn.Softmax, nn.Softmin, nn.LogSoftmax), (-1,)),
    nn.GroupNorm: (2, 4),
}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind", sorted(WITHOUT_PRODUCTS, key=lambda kind: kind.__name__))
def test_modules_that_pass_unseen_have_no_products(kind: type[nn.Module], training: bool) -> None:
    axes = {"1d": 3, "3d": 5}.get(kind.__name__[-2:], 4)
    with Recorder() as recorder:
        kind(*ARGUMENTS.get(kind, ())).train(training)(randn(2, *[4] * (axes - 1)))
    packets = {operator.overloadpacket for operator in recorder.operators}
    assert not packets & {*LOWERINGS, *NOT_COUNTED}
    assert {operator.namespace for operator in recorder.operators} <= FREE_NAMESPACES


@pytest.mark.parametrize("enabled", [True, False])
def test_what_has_no_products_is_computed_by_the_libraries_of_the_original(enabled: bool) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.activation = nn.GELU()

        def forward(self, input: Tensor) -> Tensor:
            return functional.silu(self.activation(input @ square))

    model = Model()
    with torch.backends.mkldnn.flags(enabled=enabled), Recorder() as recorder, flopcuda.instrument(model):
        model(randn(5, 7))
        assert torch._C._get_mkldnn_enabled() == enabled
    used = {operator.overloadpacket: is_enabled for operator, is_enabled in recorder.operators.items()}
    assert used[torch.ops.aten.gelu] == used[torch.ops.aten.silu] == enabled


def test_products_in_hooks_of_modules_without_any_are_counted() -> None:
    model = nn.Sequential(nn.ReLU(), nn.Identity())
    model[0].register_forward_pre_hook(lambda module, inputs: (inputs[0] @ square,))
    model[1].register_forward_hook(lambda module, inputs, output: output @ square)
    x = randn(5, 7)
    with flopcuda.instrument(model) as session:
        output = model(x)
    assert torch.allclose(output, (x @ square).relu() @ square, rtol=1e-5)
    assert session.report().total.counters.macs == 2 * 5 * 7 * 7


def test_what_replaces_the_forward_of_a_module_without_products_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(nn.ReLU())
    monkeypatch.setattr(model[0], "forward", lambda input: input @ square)
    with flopcuda.instrument(model) as session:
        model(randn(5, 7))
    assert session.report().total.counters.macs == 5 * 7 * 7


def test_what_a_function_mode_makes_of_a_module_without_products_is_counted() -> None:
    class Multiplies(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return args[0] @ square if func is functional.relu else func(*args, **(kwargs or {}))

    model = nn.Sequential(nn.ReLU())
    with flopcuda.instrument(model) as session, Multiplies():
        model(randn(5, 7))
    assert session.report().total.counters.macs == 5 * 7 * 7


def multiply_behind(module: nn.Module, inputs: Any, output: Tensor) -> Tensor | None:
    return output @ square if type(module) is nn.ReLU else None


def multiply_before(module: nn.Module, inputs: Any) -> tuple[Tensor] | None:
    return (inputs[0] @ square,) if type(module) is nn.ReLU else None


def test_products_in_hooks_of_all_modules_are_counted() -> None:
    model = nn.Sequential(nn.ReLU())
    with ExitStack() as hooks:
        hooks.callback(module_hooks.register_module_forward_hook(multiply_behind).remove)
        with flopcuda.instrument(model) as session:
            hooks.callback(module_hooks.register_module_forward_pre_hook(multiply_before).remove)
            model(randn(5, 7))
    assert session.report().total.counters.macs == 2 * 5 * 7 * 7


def test_products_in_hooks_of_saved_tensors_are_counted() -> None:
    model = nn.Sequential(nn.GELU())
    hooks = torch.autograd.graph.saved_tensors_hooks(lambda saved: saved @ square, lambda packed: packed)
    with flopcuda.instrument(model) as session, hooks:
        model(randn(5, 7).requires_grad_())
    assert session.report().total.counters.macs == 5 * 7 * 7


def test_another_forward_of_a_class_without_products_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nn.ReLU, "forward", lambda self, input: input @ square)
    model = nn.Sequential(nn.ReLU())
    with flopcuda.instrument(model) as session:
        model(randn(5, 7))
    assert session.report().total.counters.macs == 5 * 7 * 7


class Activated(nn.Module):
    """A product, and a module without any."""

    def __init__(self) -> None:
        super().__init__()
        self.activation = nn.ReLU()

    def forward(self, input: Tensor) -> Tensor:
        return self.activation(input @ square)


def interrupt(model: nn.Module) -> None:
    """As by Ctrl-C, while its ReLU runs."""

    def raise_interrupt(*args: Any, **kwargs: Any) -> Tensor:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(functional, "relu", raise_interrupt)
        with pytest.raises(KeyboardInterrupt):
            model(randn(5, 7))


def test_counts_go_on_after_a_module_without_products_was_interrupted() -> None:
    model = Activated()
    with flopcuda.instrument(model) as session:
        interrupt(model)
        session.reset()
        model(randn(5, 7))
    assert session.report().total.counters.macs == 5 * 7 * 7


@pytest.mark.parametrize("open_session", [flopcuda.instrument, lambda model: flopcuda.count()])
def test_an_interrupted_module_leaves_nothing_behind(open_session: Any) -> None:
    model = Activated()
    with open_session(model):
        interrupt(model)
    assert not _get_current_dispatch_mode_stack()
    assert torch._C._get_mkldnn_enabled()
    assert torch.empty(3).shape == (3,)


def test_threads_with_sessions_of_their_own_leave_each_other_their_products() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell, self.activation = nn.LSTM(8, 8, batch_first=True), nn.GELU()

        def forward(self, input: Tensor) -> Tensor:
            return self.activation(functional.gelu(self.cell(input)[0]))

    def counted_macs(_: int) -> tuple[int, int]:
        model = Recurrent()
        with torch.no_grad(), flopcuda.instrument(model) as session:
            for _ in range(20):
                model(randn(2, 6, 8))
        return session.report().total.counters.macs, len(session.report().not_counted)

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(counted_macs, range(2))) == [(20 * 2 * 6 * 4 * 8 * 16, 0)] * 2
    assert torch._C._get_mkldnn_enabled()


@pytest.mark.parametrize("backend", ["native", pytest.param("ptxvm", marks=needs_kernels)])
def test_products_belong_to_the_module_that_makes_them(backend: str) -> None:
    model, x = Mixed().eval(), torch.randn(2, 3, 16, 12)
    tokens = 12
    with flopcuda.instrument(model, backend=backend) as session, torch.no_grad():
        output = model(x)
    torch.testing.assert_close(output, model(x))
    modules = {name: (s.launches[0].module_type, s.macs) for name, s in session.report().by_module().items()}
    assert modules == {
        "conv": ("Conv2d", 2 * tokens * 8 * 48),
        "": ("Mixed", 2 * tokens * 8 * 8),
        "attention": ("MultiheadAttention", 2 * tokens * 8 * (24 + 8) + 2 * 2 * tokens * tokens * 4 * 2),
        "head": ("Linear", 2 * 5 * 8),
    }
    assert session.report().not_counted == ()


def test_only_modules_when_asked_for() -> None:
    model, x = Mixed().eval(), torch.randn(2, 3, 16, 12)
    with flopcuda.instrument(model, capture="modules") as session, torch.no_grad():
        model(x)
    assert set(session.report().by_module()) == {"conv", "head"}


def test_what_is_not_the_models_is_not_counted() -> None:
    model, x = Mixed(), torch.randn(2, 3, 16, 12)
    other = nn.Linear(5, 5)
    with flopcuda.instrument(model) as session:
        model(other(model(x)).sum() * x).sum().backward()
        torch.mm(a, b)
    with flopcuda.instrument(model) as alone:
        model((model(x)).sum() * x).sum().backward()
    assert session.report().total.macs == alone.report().total.macs


def test_a_training_step_is_counted_as_torch_counts_it() -> None:
    """Without padding, and with strides that divide the images, every tap meets an input in both ways to count."""
    model, x = Mixed(), torch.randn(2, 3, 16, 12)
    with torchs_own_count() as theirs:
        model(x).sum().backward()
    gradients = [parameter.grad for parameter in model.parameters()]
    model.zero_grad()
    with flopcuda.instrument(model) as session:
        model(x).sum().backward()
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, atol=1e-4, rtol=1e-4)
    report = session.report()
    assert report.total.macs == theirs.get_total_flops() // 2
    assert report.not_counted == ()
    phases = {(launch.module, launch.phase) for launch in report.launches}
    assert {("conv", "forward"), ("conv", "backward_weight"), ("head", "backward_input")} <= phases
    assert ("conv", "backward_input") not in phases, "the images need no gradient"
    for name in ("attention", ""):
        assert {(name, "backward_input"), (name, "backward_weight")} <= phases
    assert "backward" not in {phase for _, phase in phases}


def test_gradients_in_a_counted_block_belong_to_their_modules() -> None:
    model, x = Mixed(), torch.randn(2, 3, 16, 12)
    with flopcuda.instrument(model) as session:
        model(x).sum().backward()
    with flopcuda.count() as block:
        model(x).sum().backward()
    by_module = {name: summary.macs for name, summary in session.report().by_module().items()}
    named = {name.removeprefix("Mixed").lstrip("."): s.macs for name, s in block.report().by_module().items()}
    assert named == by_module


class _Scaled(torch.autograd.Function):
    """Has a product only in its backward pass."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        return input * weight.diagonal()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0] @ ctx.saved_tensors[0], None


class _ScaledTwice(_Scaled):
    """Has one only in the backward pass of its backward pass."""

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return _Scaled.apply(grads[0], ctx.saved_tensors[0]), None


class _Multiplied(nn.Module):
    def __init__(self, by: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.weight, self.by = nn.Parameter(randn(4, 4)), by

    def forward(self, input: Tensor) -> Tensor:
        return self.by(input, self.weight)


def test_a_node_made_in_a_backward_pass_is_not_the_next_modules() -> None:
    model = nn.Sequential(_Multiplied(torch.matmul), _Multiplied(_ScaledTwice.apply), nn.Linear(4, 4), nn.Tanh())
    input = randn(3, 4).requires_grad_()
    with flopcuda.instrument(model) as session:
        (gradient,) = torch.autograd.grad(model(input).sum(), input, create_graph=True)
        gradient.square().sum().backward()
    phases = {launch.phase for launch in session.report().launches if launch.module == "0"}
    assert phases == {"forward", "backward_input", "backward_weight"}  # as its own products have, not just "backward"


class _Nested(torch.autograd.Function):
    """Has a backward pass within its backward pass, and so on; torch goes on in another thread 60 levels down."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, levels: int) -> Tensor:
        ctx.save_for_backward(input, weight)
        ctx.levels = levels
        return input.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        input, weight = ctx.saved_tensors
        input = input.detach()
        with torch.enable_grad():
            nested = input.requires_grad_()
            if ctx.levels:
                nested = _Nested.apply(nested, weight, ctx.levels - 1)
            output = nested @ weight
        return torch.autograd.grad(output, input, grads)[0], None, None


@pytest.mark.parametrize("levels", [3, 64])
def test_backward_passes_that_are_deeply_nested_are_counted_in_any_thread(levels: int) -> None:
    model = nn.Sequential(
        nn.Linear(4, 4), _Multiplied(lambda input, weight: _Nested.apply(input, weight, levels) @ weight)
    )
    with flopcuda.instrument(model) as session:
        model(randn(3, 4)).sum().backward()
    products = [launch for launch in session.report().launches if launch.module == "1"]
    # The outermost one and those within, with the gradient of each one's input, and that of the outermost's weight.
    assert len(products) == 2 * (levels + 2) + 1


def test_checkpointed_layers_count_again_when_they_are_computed_again() -> None:
    model, x = Mixed(), torch.randn(2, 3, 16, 12, requires_grad=True)
    with flopcuda.instrument(model) as plain:
        model(x).sum().backward()
    with flopcuda.instrument(model) as session:
        checkpoint(model, x, use_reentrant=False).sum().backward()
    forward = sum(launch.counters.mul for launch in plain.report().launches if launch.phase == "forward")
    again = session.report().total.macs - plain.report().total.macs
    assert 0 < again <= forward  # what no gradient needs is not computed again


def test_autocast_counts_in_its_own_dtype() -> None:
    model, x = Mixed().eval(), torch.randn(2, 3, 16, 12)
    with torch.autocast("cpu", torch.bfloat16):
        expected = model(x)
        with flopcuda.instrument(model) as session:
            output = model(x)
    assert output.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(output, expected, atol=3e-2, rtol=3e-2)
    with flopcuda.instrument(model) as plain:
        model(x)
    assert session.report().total.macs == plain.report().total.macs


def test_training_under_autocast() -> None:
    model, x = Mixed(), torch.randn(2, 3, 16, 12)
    with flopcuda.instrument(model), torch.autocast("cpu", torch.bfloat16):
        model(x).float().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.dtype == torch.float32 for parameter in model.parameters())


def test_what_is_not_counted_is_named() -> None:
    class Uncounted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bag = nn.EmbeddingBag(5, 3, mode="sum")

        def forward(self, x: Tensor) -> Tensor:
            bags = self.bag(torch.tensor([[0, 2], [1, 4]]), per_sample_weights=torch.randn(2, 2))
            spectrum = torch.fft.rfft(torch.linalg.inv(x) @ x).abs()
            return bags.sum() + spectrum.sum() + (x.long() @ x.long()).sum() + torch.cdist(x, x).sum()

    with flopcuda.instrument(Uncounted()) as session, torch.no_grad():
        session.model(torch.randn(4, 4))
    seen = [(entry.module, entry.module_type, entry.operator, entry.calls) for entry in session.report().not_counted]
    assert seen == [
        ("bag", "EmbeddingBag", "aten._embedding_bag", 1),
        ("", "Uncounted", "aten.linalg_inv_ex", 1),
        ("", "Uncounted", "aten._fft_r2c", 1),
        ("", "Uncounted", "aten.mm", 1),
        ("", "Uncounted", "aten._cdist_forward", 1),
    ]
    assert session.report().total.macs == 4 * 4 * 4


@pytest.mark.skipif(not torch.__version__.startswith("2.14"), reason="the names are those of torch 2.14")
def test_every_name_of_what_is_not_counted_is_an_operators() -> None:
    names = [name for operators in NAMED.values() for name in operators]
    assert len(set(names)) == len(names)
    assert [name for name in names if not hasattr(torch.ops.aten, name)] == []
    assert not {getattr(torch.ops.aten, name) for name in names} & set(LOWERINGS)


def test_a_third_partys_operator_is_named() -> None:
    @torch.library.custom_op("flopcuda_tests::mystery", mutates_args=())
    def mystery(x: Tensor) -> Tensor:
        return x @ x

    with flopcuda.count() as session:
        mystery(square)
    assert [entry.operator for entry in session.report().not_counted] == ["flopcuda_tests.mystery"]


def test_empty_and_meta_tensors_are_no_work() -> None:
    with flopcuda.count() as session:
        assert torch.mm(torch.randn(0, 3), torch.randn(3, 4)).shape == (0, 4)
        assert torch.mm(torch.randn(2, 0), torch.randn(0, 4)).eq(0).all()
        assert torch.mm(torch.empty(2, 3, device="meta"), torch.empty(3, 4, device="meta")).shape == (2, 4)
    report = session.report()
    assert (report.launches, report.not_counted) == ((), ())


def test_nothing_is_left_behind() -> None:
    model, x = Mixed().eval(), torch.randn(2, 3, 16, 12)
    session = flopcuda.instrument(model)
    with FlopCounterMode(display=False) as later:
        model(x)
        session.restore()
        model(x)
    assert later.get_total_flops() > 0
    counted = session.report().total.macs
    model(x)
    assert session.report().total.macs == counted
    assert torch.utils._python_dispatch._get_current_dispatch_mode_stack() == []
    assert nn.Module.__call__ is nn.Module._wrapped_call_impl
    assert torch.backends.mha.get_fastpath_enabled()


def test_an_exception_in_the_model_leaves_nothing_behind() -> None:
    model = Mixed().eval()
    with flopcuda.instrument(model) as session:
        with pytest.raises(RuntimeError, match=r"^conv \(Conv2d\)"):
            model(torch.randn(1, 4, 16, 12))
        model(torch.randn(1, 3, 16, 12))
    assert {name for name, _ in session.report().by_module().items()} == {"conv", "", "attention", "head"}
    assert torch.utils._python_dispatch._get_current_dispatch_mode_stack() == []


@pytest.mark.parametrize("capture", ["ops", "modules"])
def test_torchs_counter_sees_an_instrumented_model_as_the_original(capture: str) -> None:
    model, x = Mixed().eval(), torch.randn(2, 3, 16, 12)
    with torchs_own_count() as theirs:
        model(x)
    with torchs_own_count() as outside, flopcuda.instrument(model, capture=capture):
        model(x)
    assert outside.get_total_flops() == theirs.get_total_flops()
    with flopcuda.instrument(model, capture=capture), torchs_own_count() as inside:
        model(x)
    assert inside.get_total_flops() == theirs.get_total_flops()


def test_an_exported_model_has_the_counted_operators() -> None:
    model, x = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 2)).eval(), torch.randn(1, 3, 8, 8)
    with flopcuda.instrument(model) as session:
        exported = torch.export.export(model, (x,))
    targets = [str(node.target) for node in exported.graph.nodes]
    assert [name for name in targets if "flopcuda" in name] == ["flopcuda.conv2d.default", "flopcuda.linear.default"]
    torch.testing.assert_close(exported.module()(x), model(x))
    assert session.report().launches == ()


def test_an_unknown_capture_is_refused() -> None:
    with pytest.raises(ValueError, match="capture must be 'ops' or 'modules', not 'all'"):
        flopcuda.instrument(Mixed(), capture="all")


def test_the_vision_transformers_truth() -> None:
    """Figures of today's tools for it are between 11,271 and 17,606 million."""
    model = torchvision.models.vit_b_16().eval()
    with flopcuda.instrument(model) as session, torch.no_grad():
        model(torch.randn(1, 3, 224, 224))
    assert session.report().total.macs == 17_563_828_224
    assert session.report().not_counted == ()


def test_products_of_jagged_tensors_are_named() -> None:
    layer = nn.Linear(4, 5)
    jagged = torch.nested.nested_tensor([torch.randn(2, 4), torch.randn(3, 4)], layout=torch.jagged)
    with flopcuda.count() as session:
        output = layer(jagged)
    assert torch.equal(output.values(), layer(jagged.values()))
    assert [(entry.module, entry.operator) for entry in session.report().not_counted] == [("Linear", "aten.linear")]

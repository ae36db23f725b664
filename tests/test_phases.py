"""The phases of products in the backward pass: which factor's gradient each of them is, or that nobody can tell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import flopcuda

# Of two factors, and whatever else; all with sizes that tell the gradients of the factors apart.
Operator = Callable[..., Tensor]
OPERATORS: dict[str, tuple[Operator, tuple[int, ...], tuple[int, ...]]] = {
    "mm": (torch.mm, (2, 3), (3, 5)),
    "mm of columns": (lambda x, y: torch.mm(x.T, y), (3, 2), (3, 5)),
    "mm with columns": (lambda x, y: torch.mm(x, y.T), (2, 3), (5, 3)),
    "addmm": (lambda x, y: torch.addmm(torch.zeros(2, 5), x, y), (2, 3), (3, 5)),
    "bmm": (torch.bmm, (4, 2, 3), (4, 3, 5)),
    "baddbmm": (lambda x, y: torch.baddbmm(torch.zeros(4, 2, 5), x, y), (4, 2, 3), (4, 3, 5)),
    "addbmm": (lambda x, y: torch.addbmm(torch.zeros(2, 5), x, y), (4, 2, 3), (4, 3, 5)),
    "addr": (lambda x, y: torch.addr(torch.zeros(2, 5), x, y), (2,), (5,)),
    "F.linear": (nn.functional.linear, (7, 2, 3), (5, 3)),
    "F.conv1d": (nn.functional.conv1d, (2, 3, 7), (5, 3, 3)),
    "matmul": (torch.matmul, (6, 1, 2, 3), (4, 3, 5)),
    "einsum": (lambda x, y: torch.einsum("bqhd,bkhd->bhqk", x, y), (2, 3, 4, 5), (2, 7, 4, 5)),
}


def phases(session: flopcuda.Session) -> Counter[str]:
    """MACs by phase."""
    macs: Counter[str] = Counter()
    for launch in session.report().launches:
        macs[launch.phase] += launch.counters.mul
    return macs


def counted(operator: Operator, first: Tensor, second: Tensor) -> Counter[str]:
    with flopcuda.count() as session:
        operator(first, second).square().sum().backward()
    return phases(session)


@pytest.mark.parametrize(("operator", "first", "second"), OPERATORS.values(), ids=OPERATORS.keys())
def test_each_gradient_has_its_phase(operator: Operator, first: tuple[int, ...], second: tuple[int, ...]) -> None:
    """With only one factor that needs a gradient, torch computes no other; with both, both."""
    x, y = torch.randn(first), torch.randn(second)
    of_first = counted(operator, x.clone().requires_grad_(), y)
    of_second = counted(operator, x, y.clone().requires_grad_())
    assert set(of_first) == {"forward", "backward_input"}
    assert set(of_second) == {"forward", "backward_weight"}
    both = counted(operator, x.clone().requires_grad_(), y.clone().requires_grad_())
    assert both == of_first | of_second


def test_distances_have_both_gradients() -> None:
    """torch computes them together, whichever is needed."""
    x, y = torch.randn(30, 3, requires_grad=True), torch.randn(40, 3)
    assert counted(torch.cdist, x, y) == {
        "forward": 30 * 40 * 5, "backward_input": 30 * 40 * 3, "backward_weight": 30 * 40 * 3
    }  # fmt: skip


@pytest.mark.parametrize("operator", [torch.mv, lambda m, v: torch.addmv(torch.zeros(3), m, v)])
def test_the_gradient_of_a_matrix_by_a_vector_has_no_sums(operator: Operator) -> None:
    """It is an outer product, elementwise for torch."""
    assert set(counted(operator, torch.randn(3, 4, requires_grad=True), torch.randn(4))) == {"forward"}
    assert counted(operator, torch.randn(3, 4), torch.randn(4, requires_grad=True))["backward_weight"] == 12


def test_square_attention_is_told_apart_by_memory() -> None:
    """Query and key, product and gradient all have one shape."""
    query, key, value = (torch.randn(2, 5, 5, requires_grad=True) for _ in range(3))
    with flopcuda.count() as session:
        nn.functional.scaled_dot_product_attention(query, key, value).square().sum().backward()
    assert phases(session) == {"forward": 500, "backward_input": 500, "backward_weight": 500}


def test_factors_that_share_memory_are_not_told_apart() -> None:
    x = torch.randn(4, 3, requires_grad=True)
    with flopcuda.count() as session:
        (x @ x.T).square().sum().backward()
    assert phases(session) == {"forward": 48, "backward": 96}


class Net(nn.Module):
    """A layer and a bare product."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 6)
        self.mixing = nn.Parameter(torch.randn(6, 5))

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.layer(x)) @ self.mixing


class Bare(nn.Module):
    """Products that are no layer's."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Parameter(torch.randn(4, 6)), nn.Parameter(torch.randn(6, 5))

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x @ self.first) @ self.second


@pytest.mark.parametrize("reentrant", [True, False])
def test_what_a_checkpoint_computes_again_is_forward(reentrant: bool) -> None:
    model, x = Net(), torch.randn(3, 4, requires_grad=True)
    layer, product = 3 * 4 * 6, 3 * 6 * 5
    with flopcuda.instrument(model) as session:
        checkpoint(model, x, use_reentrant=reentrant).sum().backward()
    macs = phases(session)
    # The second kind stops when it has what the gradients need: the last product is not among that.
    assert macs["forward"] == (2 * (layer + product) if reentrant else 2 * layer + product)
    assert sum(macs.values()) - macs["forward"] == 2 * (layer + product)
    # A packed tensor can't be looked at, so that only a reentrant one tells the gradients of the bare product apart.
    assert macs["backward"] == (0 if reentrant else 2 * product)
    assert {entry.module for entry in session.report().launches} == {"", "layer"}


def test_a_frozen_factor_is_told_apart_under_a_checkpoint() -> None:
    model, x = Net(), torch.randn(3, 4, requires_grad=True)
    model.requires_grad_(False)
    with flopcuda.instrument(model) as session:
        checkpoint(model, x, use_reentrant=False).sum().backward()
    assert phases(session)["backward_input"] == 3 * 4 * 6 + 3 * 6 * 5
    assert set(phases(session)) == {"forward", "backward_input"}


class Penalised(nn.Module):
    """Takes a gradient in its own forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Bare()

    def forward(self, x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(self.net(x).sum(), x, create_graph=True)
        return gradient.square().sum()


def test_gradients_inside_a_forward_pass_are_none_of_it() -> None:
    model, x = Penalised(), torch.randn(3, 4)
    expected = torch.autograd.grad(model(x), list(model.parameters()))
    with flopcuda.instrument(model) as session:
        gradients = torch.autograd.grad(model(x), list(model.parameters()))
    torch.testing.assert_close(gradients, expected, atol=1e-5, rtol=1e-4)
    first, second = 3 * 4 * 6, 3 * 6 * 5
    assert phases(session) == {
        "forward": first + second,
        # dx = s A' with s = tanh' (1 B'), for the factors A and B of x; then the gradient of s in that product.
        "backward_input": first + second + first,
        # Of A' in that product, of B' in the other, and of A in the forward one, which tanh' has read.
        "backward_weight": first + second + first,
    }
    assert set(session.report().by_module()) == {"net"}


def test_double_backward_of_bare_products() -> None:
    """Gradients of gradients are attributed to the module that the first product was of, and nothing else is."""
    model, other, x = Bare(), nn.Linear(5, 5), torch.randn(3, 4, requires_grad=True)

    def step() -> tuple[Tensor, ...]:
        (gradient,) = torch.autograd.grad(other(model(x)).square().sum(), x, create_graph=True)
        return torch.autograd.grad(gradient.square().sum(), list(model.parameters()))

    expected = step()
    with flopcuda.instrument(model) as session:
        torch.testing.assert_close(step(), expected, atol=1e-4, rtol=1e-4)
    with flopcuda.count() as everything:
        step()
    theirs = everything.report().by_module()
    assert set(theirs) == {"Bare", "Linear"}
    assert session.report().total.macs == theirs["Bare"].macs
    assert session.report().not_counted == ()


# --- torch.func ---

SMALL = nn.Sequential(nn.Conv2d(4, 5, 3), nn.Flatten(), nn.Linear(80, 2))
IMAGES = torch.randn(3, 4, 6, 6)
CONV, LINEAR = 5 * 16 * 36, 80 * 2


def loss(parameters: dict[str, Tensor], image: Tensor) -> Tensor:
    return torch.func.functional_call(SMALL, parameters, (image.unsqueeze(0),)).square().sum()


def parameters() -> dict[str, Tensor]:
    return dict(SMALL.named_parameters())


TRANSFORMS: dict[str, tuple[Callable[[], Any], int]] = {
    "vmap": (lambda: torch.func.vmap(SMALL)(IMAGES.unsqueeze(1)), 3 * (CONV + LINEAR)),
    # Of both weights, and of the linear layer's input.
    "grad": (lambda: torch.func.grad(loss)(parameters(), IMAGES[0]), 2 * CONV + 3 * LINEAR),
    "gradients of samples": (
        lambda: torch.func.vmap(torch.func.grad(loss), (None, 0))(parameters(), IMAGES),
        3 * (2 * CONV + 3 * LINEAR),
    ),
}


@pytest.mark.parametrize(("transformed", "macs"), TRANSFORMS.values(), ids=TRANSFORMS.keys())
def test_function_transforms(transformed: Callable[[], Any], macs: int) -> None:
    expected = transformed()
    with flopcuda.instrument(SMALL) as session:
        result = transformed()
    torch.testing.assert_close(result, expected, atol=1e-4, rtol=1e-4)
    report = session.report()
    assert report.not_counted == ()
    assert report.total.macs == macs
    assert set(report.by_module()) == {"0", "2"}


@pytest.mark.parametrize("jacobian", [torch.func.jacrev, torch.func.jacfwd])
def test_jacobians(jacobian: Callable[..., Any]) -> None:
    weight, x = torch.randn(5, 4), torch.randn(4)
    with flopcuda.count() as session:
        result = jacobian(lambda x: nn.functional.linear(x, weight))(x)
    torch.testing.assert_close(result, weight)
    # Forward, and five gradients; or four tangents, and x by the zeros that are the weight's.
    assert session.report().total.macs == 20 + (5 * 20 if jacobian is torch.func.jacrev else 4 * 20 + 20)


def test_hessian_of_an_instrumented_model() -> None:
    model, x = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1)), torch.randn(4)
    expected = torch.func.hessian(lambda x: model(x).sum())(x)
    with flopcuda.instrument(model) as session:
        result = torch.func.hessian(lambda x: model(x).sum())(x)
    with flopcuda.count() as everything:
        torch.func.hessian(lambda x: model(x).sum())(x)
    torch.testing.assert_close(result, expected)
    assert session.report().total.macs == everything.report().total.macs
    assert set(session.report().by_module()) == {"0", "2"}


def test_forward_mode_gradients() -> None:
    layer, x, tangent = nn.Linear(4, 5), torch.randn(3, 4), torch.randn(3, 4)
    with flopcuda.instrument(layer) as session, torch.autograd.forward_ad.dual_level():
        dual = layer(torch.autograd.forward_ad.make_dual(x, tangent))
        result = torch.autograd.forward_ad.unpack_dual(dual).tangent
    torch.testing.assert_close(result, tangent @ layer.weight.T)
    assert session.report().total.macs == 3 * 20 * 3  # a product of the tangent with W, and one of x with its zeros


@pytest.mark.parametrize(("transformed", "macs"), TRANSFORMS.values(), ids=TRANSFORMS.keys())
def test_function_transforms_need_the_operators(transformed: Callable[[], Any], macs: int) -> None:
    sentence = r'^0 \(Conv2d\): torch.func transforms and forward-mode gradients need capture="ops"$'
    with flopcuda.instrument(SMALL, capture="modules"), pytest.raises(RuntimeError, match=sentence):
        transformed()


# --- torch.compile ---


@pytest.mark.parametrize("capture", ["ops", "modules"])
def test_a_compiled_model_counts_as_an_eager_one(capture: str) -> None:
    """At every call, the first and the compiled ones, its gradients too."""
    model, x = Net(), torch.randn(3, 4)
    with flopcuda.instrument(model, capture=capture) as eager:
        model(x).sum().backward()
    with flopcuda.instrument(model, capture=capture) as session:
        compiled = torch.compile(model, backend="aot_eager")
        for calls in (1, 2):
            compiled(x).sum().backward()
            assert phases(session) == {phase: calls * macs for phase, macs in phases(eager).items()}

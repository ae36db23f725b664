"""Products with a zero, against brute force: the same operator on ones where an operand is not zero."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import prune

import flopcuda
from flopcuda.ops import DTYPES

Product = Callable[[Tensor, Tensor], Tensor]

PRODUCTS: dict[str, tuple[Product, tuple[int, ...], tuple[int, ...]]] = {
    "mm": (torch.mm, (5, 7), (7, 6)),
    "mm of a transposed matrix": (lambda x, y: x @ y.T, (5, 7), (6, 7)),
    "mm of strided matrices": (lambda x, y: x[:, ::2] @ y[::2], (5, 8), (8, 6)),
    "addmm": (lambda x, y: torch.addmm(x.new_zeros(6), x, y), (5, 7), (7, 6)),
    "bmm": (torch.bmm, (3, 5, 7), (3, 7, 6)),
    "baddbmm": (lambda x, y: torch.baddbmm(x.new_zeros(5, 6), x, y), (3, 5, 7), (3, 7, 6)),
    "addbmm": (lambda x, y: torch.addbmm(x.new_zeros(5, 6), x, y), (3, 5, 7), (3, 7, 6)),
    "mv": (torch.mv, (5, 7), (7,)),
    "dot": (torch.dot, (9,), (9,)),
    "addr": (lambda x, y: torch.addr(x.new_zeros(4, 5), x, y), (4,), (5,)),
    "einsum": (lambda x, y: torch.einsum("bqhd,bkhd->bhqk", x, y), (2, 3, 4, 5), (2, 6, 4, 5)),
    "F.linear": (functional.linear, (2, 3, 7), (4, 7)),
    "F.conv1d": (lambda x, y: functional.conv1d(x, y, stride=2, padding=1), (2, 4, 9), (6, 4, 3)),
    "F.conv2d": (
        lambda x, y: functional.conv2d(x, y, stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2),
        (2, 4, 9, 8),
        (6, 2, 3, 3),
    ),
    "depthwise F.conv2d": (lambda x, y: functional.conv2d(x, y, padding=1, groups=4), (2, 4, 6, 5), (4, 1, 3, 3)),
    "F.conv_transpose2d": (
        lambda x, y: functional.conv_transpose2d(x, y, stride=2, padding=1, output_padding=1, groups=2),
        (2, 4, 5, 4),
        (4, 3, 3, 3),
    ),
    "F.conv_transpose1d": (lambda x, y: functional.conv_transpose1d(x, y, stride=3), (2, 4, 5), (4, 3, 4)),
}


def sparse(shape: tuple[int, ...], dtype: torch.dtype, share: float) -> Tensor:
    """About this share of zeros, some of them negative."""
    generator = torch.Generator().manual_seed(sum(shape))
    values = torch.randn(shape, generator=generator)
    return (values * (torch.rand(shape, generator=generator) > share)).to(dtype)


def indicator(tensor: Tensor) -> Tensor:
    return (tensor.detach() != 0).double()


def effective(session: flopcuda.Session, *phases: str) -> int:
    launches = [launch for launch in session.report().launches if launch.phase in phases]
    total = flopcuda.Counters.sum(launch.counters for launch in launches)
    assert total.effective_macs == total.mul - total.pad - (total.zero or 0)
    return total.effective_macs or 0


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("product", "first", "second"), PRODUCTS.values(), ids=PRODUCTS.keys())
def test_zeros_of_any_product(
    product: Product, first: tuple[int, ...], second: tuple[int, ...], dtype: torch.dtype
) -> None:
    x, y = sparse(first, dtype, 0.4), sparse(second, dtype, 0.7)
    with flopcuda.count(count_zero=True) as session:
        product(x, y)
    assert effective(session, "forward") == int(product(indicator(x), indicator(y)).sum())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ["mm", "bmm", "F.linear", "F.conv2d", "F.conv_transpose2d"])
def test_zeros_of_gradients(name: str, dtype: torch.dtype) -> None:
    """A gradient after a ReLU is as sparse as its output."""
    product, first, second = PRODUCTS[name]
    x, y = sparse(first, dtype, 0.4).requires_grad_(), sparse(second, dtype, 0.7).requires_grad_()
    with flopcuda.count(count_zero=True) as session:
        output = product(x, y)
        grad = sparse(tuple(output.shape), dtype, 0.5)
        output.backward(grad)
    ones = [indicator(operand).requires_grad_() for operand in (x, y)]
    of_input, of_weight = torch.autograd.grad(product(*ones), ones, indicator(grad))
    assert effective(session, "backward_input") == int(of_input.sum())
    assert effective(session, "backward_weight") == int(of_weight.sum())


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=2)
        self.head = nn.Linear(8 * 4 * 4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.second(torch.relu(self.first(x)))).flatten(1))


@pytest.mark.parametrize("capture", ["ops", "modules"])
def test_pruned_weights_and_relu_activations_by_layer(capture: str) -> None:
    model, inputs = Net(), {}
    prune.random_unstructured(model.first, "weight", amount=0.5)
    prune.ln_structured(model.second, "weight", amount=0.25, n=2, dim=0)
    prune.l1_unstructured(model.head, "weight", amount=0.9)
    for name, module in model.named_children():
        module.register_forward_hook(lambda _, arguments, __, name=name: inputs.update({name: arguments[0]}))
    x = torch.randn(2, 3, 8, 8)
    with flopcuda.instrument(model, count_zero=True, capture=capture) as session, torch.no_grad():
        model(x)
    layers = session.report().by_module()
    ones = {name: (indicator(inputs[name]), indicator(getattr(model, name).weight)) for name in layers}
    expected = {
        "first": functional.conv2d(*ones["first"], padding=1).sum(),
        "second": functional.conv2d(*ones["second"], stride=2, padding=1, groups=2).sum(),
        "head": functional.linear(*ones["head"]).sum(),
    }
    assert {name: summary.effective_macs for name, summary in layers.items()} == {
        name: int(products) for name, products in expected.items()
    }
    total = session.report().total
    assert total.effective_macs == int(sum(expected.values())) < total.macs == total.dense_macs


def test_effective_macs_need_a_count_of_zeros() -> None:
    with flopcuda.count() as session:
        torch.mm(torch.zeros(2, 3), torch.ones(3, 4))
    total = session.report().total
    assert (total.zero, total.effective_macs) == (None, None)
    assert "effective_macs" not in total.counters.to_dict()
    with flopcuda.count(count_zero=True) as session:
        torch.mm(torch.zeros(2, 3), torch.ones(3, 4))
    assert session.report().total.counters.to_dict()["effective_macs"] == 0


@pytest.mark.parametrize("mask", ["causal", "boolean"])
def test_masked_attention_is_executed_in_full(mask: str) -> None:
    """Which is what a dense formula says; that weights of 0 change nothing shows in ``zero``."""
    heads, length, depth, width = 6, 9, 4, 5
    query, key, value = (torch.rand(2, 3, length, size) + 0.1 for size in (depth, depth, width))
    allowed = (
        torch.ones(length, length).tril()
        if mask == "causal"
        else torch.eye(length) + torch.ones(length, length).triu(3)
    )
    options = {"is_causal": True} if mask == "causal" else {"attn_mask": allowed.bool()}
    with flopcuda.count(count_zero=True) as session:
        functional.scaled_dot_product_attention(query, key, value, **options)
    scores, weighted = session.report().launches
    assert scores.counters.mul == scores.dense_macs == heads * length * length * depth
    assert weighted.counters.mul == weighted.dense_macs == heads * length * length * width
    assert scores.counters.effective_macs == scores.dense_macs
    assert weighted.counters.effective_macs == heads * int(allowed.sum()) * width
    assert session.report().total.dense_macs == session.report().total.macs

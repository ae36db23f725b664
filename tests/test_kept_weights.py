"""Weights that stay packed while a session is open: what is computed, when they are dropped, what is never kept."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import flopcuda
from flopcuda import _C
from flopcuda.ops import OPERATORS

SEEN_OFTEN_ENOUGH = 3  # the first call sees a weight, the second one packs it, the third one finds it

CONVOLUTIONS: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "3 x 3": ((1, 40, 14, 14), (70, 40, 3, 3), {"padding": [1, 1, 1, 1]}),
    "3 x 3, few pixels": ((2, 64, 5, 3), (61, 64, 3, 3), {"padding": [1, 1, 1, 1]}),
    "strided, with groups": ((1, 96, 15, 13), (120, 32, 3, 3), {"stride": [2, 2], "groups": 3}),
    "pointwise, several blocks of products": ((1, 1030, 7, 7), (50, 1030, 1, 1), {}),
    "pointwise, odd channels": ((3, 130, 9, 11), (131, 130, 1, 1), {}),
    "dilated": ((1, 20, 30, 30), (99, 20, 3, 3), {"dilation": [2, 2]}),
}
LINEAR: dict[str, tuple[tuple[int, int], tuple[int, int]]] = {
    "more rows than are multiplied unpacked": ((17, 300), (200, 300)),
    "several blocks of products": ((50, 1100), (77, 1100)),
    "odd features": ((1024, 129), (131, 129)),
}


@pytest.fixture
def weights_are_kept() -> Iterator[None]:
    keeper = _C.WeightsAreKept()
    yield
    del keeper


def run_conv(input: Tensor, weight: Tensor, options: dict[str, Any], **more: Any) -> tuple[Tensor, Tensor]:
    defaults = {"stride": [1, 1], "padding": [0, 0, 0, 0], "dilation": [1, 1], "groups": 1}
    return OPERATORS["conv2d"](input, weight, None, **(defaults | options), **more)  # type: ignore[return-value]


def assert_same_when_kept(run: Callable[[], tuple[Tensor, Tensor]]) -> None:
    """Every call computes and counts the same, to the last bit, and at last the weight is kept."""
    assert _C.kept_weight_bytes() == 0
    first, first_counters = run()
    for _ in range(SEEN_OFTEN_ENOUGH - 1):
        output, counters = run()
        assert torch.equal(output, first)
        assert torch.equal(counters, first_counters)
    assert _C.kept_weight_bytes() > 0


@pytest.mark.usefixtures("weights_are_kept")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_convolution_of_a_kept_weight(name: str, dtype: torch.dtype, threads: int) -> None:
    input_shape, weight_shape, options = CONVOLUTIONS[name]
    input, weight = torch.randn(input_shape, dtype=dtype), torch.randn(weight_shape, dtype=dtype)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert_same_when_kept(lambda: run_conv(input, weight, options))
    finally:
        torch.set_num_threads(before)


@pytest.mark.usefixtures("weights_are_kept")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", LINEAR)
def test_a_linear_layer_of_a_kept_weight(name: str, dtype: torch.dtype) -> None:
    input_shape, weight_shape = LINEAR[name]
    input, weight = torch.randn(input_shape, dtype=dtype), torch.randn(weight_shape, dtype=dtype)
    bias = torch.randn(weight_shape[0], dtype=dtype)
    assert_same_when_kept(lambda: OPERATORS["linear"](input, weight, bias))  # type: ignore[arg-type, return-value]


@pytest.mark.usefixtures("weights_are_kept")
def test_another_image_size_replaces_the_panels() -> None:
    weight = torch.randn(128, 64, 3, 3)
    sizes: list[int] = []
    for side in (7, 30, 7, 30, 16):
        input = torch.randn(1, 64, side, side)
        for _ in range(SEEN_OFTEN_ENOUGH):
            output, _ = run_conv(input, weight, {"padding": [1, 1, 1, 1]})
            torch.testing.assert_close(output, functional.conv2d(input, weight, padding=1), rtol=1e-4, atol=1e-3)
        sizes.append(_C.kept_weight_bytes())
    assert max(sizes) < 1.2 * weight.nbytes


def model() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.Flatten(2), nn.Linear(100, 200)).eval()


def halve(weight: nn.Parameter) -> None:
    with torch.no_grad():
        weight.mul_(0.5)


def halve_data(weight: nn.Parameter) -> None:
    weight.data.mul_(0.5)


def replace_data(weight: nn.Parameter) -> None:
    weight.data = weight.data * 0.5


def zero_a_channel_of_an_array(weight: nn.Parameter) -> None:
    weight.detach().numpy()[5] = 0


def step_against_itself(weight: nn.Parameter) -> None:
    weight.grad = weight.detach().clone()
    torch.optim.SGD([weight], lr=0.5).step()
    weight.grad = None


CHANGES = [halve, halve_data, replace_data, zero_a_channel_of_an_array, step_against_itself]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("inference_mode", [False, True])
def test_a_changed_weight_is_used_at_once(change: Callable[[nn.Parameter], None], inference_mode: bool) -> None:
    layers = model()
    input = torch.randn(1, 32, 10, 10)
    with flopcuda.instrument(layers), torch.inference_mode(inference_mode), torch.no_grad():
        for _ in range(SEEN_OFTEN_ENOUGH):
            layers(input)
        assert _C.kept_weight_bytes() > 0
        with torch.inference_mode(False):
            for parameter in (layers[0].weight, layers[3].weight):
                change(parameter)  # type: ignore[arg-type]
        counted = [layers(input) for _ in range(SEEN_OFTEN_ENOUGH)]
    with torch.no_grad():
        original = layers(input)
    for output in counted:
        torch.testing.assert_close(output, original, rtol=1e-4, atol=1e-4)


def test_nothing_is_kept_without_a_session_or_after_the_last_one() -> None:
    layers = model()
    input = torch.randn(1, 32, 10, 10)
    with torch.no_grad():
        for _ in range(SEEN_OFTEN_ENOUGH):
            OPERATORS["linear"](input.reshape(32, 100), layers[3].weight, None)  # type: ignore[arg-type]
        assert _C.kept_weight_bytes() == 0
        outer = flopcuda.count()
        with flopcuda.instrument(layers):
            for _ in range(SEEN_OFTEN_ENOUGH):
                layers(input)
        assert _C.kept_weight_bytes() > 0
        outer.restore()
        outer.restore()
    assert _C.kept_weight_bytes() == 0


def test_a_session_without_a_context_keeps_nothing_once_it_is_restored() -> None:
    session = flopcuda.instrument(model())
    layers = session.model
    assert layers is not None
    with torch.no_grad():
        for _ in range(SEEN_OFTEN_ENOUGH):
            layers(torch.randn(1, 32, 10, 10))
    assert _C.kept_weight_bytes() > 0
    session.restore()
    assert _C.kept_weight_bytes() == 0


@pytest.mark.usefixtures("weights_are_kept")
def test_weights_made_for_one_call_are_not_kept() -> None:
    input = torch.randn(32, 200)
    for _ in range(200):
        OPERATORS["linear"](input, torch.randn(100, 200), None)  # type: ignore[arg-type]
    assert _C.kept_weight_bytes() == 0


@pytest.mark.usefixtures("weights_are_kept")
def test_weights_of_models_that_are_gone_are_forgotten() -> None:
    input = torch.randn(32, 200)
    for _ in range(100):
        weight = torch.randn(100, 200)
        for _ in range(SEEN_OFTEN_ENOUGH):
            OPERATORS["linear"](input, weight, None)  # type: ignore[arg-type]
    del weight
    gc.collect()
    assert _C.kept_weight_bytes() < 100 * 100 * 200 * 4 * 0.7


@pytest.mark.usefixtures("weights_are_kept")
@pytest.mark.parametrize(
    ("input_shape", "weight_shape", "count_zero"),
    [((32, 200), (100, 200), True), ((8, 200), (100, 200), False), ((32, 100), (100, 100), False)],
    ids=["zeros are counted", "few rows are multiplied unpacked", "small"],
)
def test_what_is_not_worth_keeping(
    input_shape: tuple[int, int], weight_shape: tuple[int, int], count_zero: bool
) -> None:
    input, weight = torch.randn(input_shape), torch.randn(weight_shape)
    for _ in range(SEEN_OFTEN_ENOUGH):
        OPERATORS["linear"](input, weight, None, count_zero=count_zero)  # type: ignore[arg-type]
    assert _C.kept_weight_bytes() == 0


@pytest.mark.usefixtures("weights_are_kept")
def test_weights_of_large_images_are_not_kept() -> None:
    input, weight = torch.randn(1, 32, 40, 40), torch.randn(64, 32, 3, 3)
    for _ in range(SEEN_OFTEN_ENOUGH):
        run_conv(input, weight, {"padding": [1, 1, 1, 1]})
    assert _C.kept_weight_bytes() == 0

"""Numbers of parameters, against torchvision's published one and sums done by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from flopcuda.params import Params, count_params


def test_resnet50_has_the_articles_number() -> None:
    models = pytest.importorskip("torchvision.models")
    with torch.device("meta"):
        model = models.resnet50()
    assert count_params(model) == Params(total=25_557_032, trainable=25_557_032, non_trainable=0, bytes=4 * 25_557_032)


def test_frozen_parameters_are_not_trainable_and_buffers_are_no_parameters() -> None:
    model = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 2, bias=False))
    model[0].requires_grad_(False)
    assert count_params(model) == Params(total=40, trainable=20, non_trainable=20, bytes=160)


def test_bytes_follow_the_dtype() -> None:
    model = nn.Sequential(nn.Linear(4, 4, bias=False).half(), nn.Linear(4, 4, bias=False).double())
    assert count_params(model).bytes == 16 * 2 + 16 * 8


def test_tied_parameters_count_once() -> None:
    model = nn.Sequential(nn.Embedding(7, 3), nn.Linear(3, 7, bias=False), nn.Linear(3, 7, bias=False))
    model[1].weight = model[0].weight
    assert count_params(model).total == 2 * 21


def test_shared_modules_count_once() -> None:
    layer = nn.Linear(3, 3)
    assert count_params(nn.ModuleList([layer, layer, nn.ModuleList([layer])])).total == 12


def test_a_model_without_parameters_has_none() -> None:
    assert count_params(nn.ReLU()) == Params(0, 0, 0, 0)


@pytest.mark.parametrize(
    ("model", "named"),
    [
        (nn.Sequential(nn.ReLU(), nn.Sequential(nn.LazyLinear(4))), "'1.0' (LazyLinear)"),
        (nn.LazyConv2d(4, 3), "'(the model)' (LazyConv2d)"),
    ],
)
@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_uninitialised_parameters_are_one_clear_error(model: nn.Module, named: str) -> None:
    with pytest.raises(ValueError, match="is not initialised: run one forward pass") as caught:
        count_params(model)
    assert named in str(caught.value)

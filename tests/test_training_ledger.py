"""FlopCounterMode's number for a training step follows from the count, term by term."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import nn

from flopcuda.tools import ToolReport, training_step
from tests.ledgers import Inputs, assert_step_explained, count_step

models = pytest.importorskip("torchvision.models")


def terms(report: ToolReport) -> dict[str, int]:
    return {term.term: term.amount for term in report.ledger}


SMALL: dict[str, tuple[Callable[[], nn.Module], Inputs]] = {
    "padding and strides": (
        lambda: nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 4, (5, 3), (2, 3), (2, 1))),
        (torch.randn(2, 3, 9, 8),),
    ),
    "dilation and groups": (
        lambda: nn.Sequential(nn.Conv2d(4, 6, 3, groups=2), nn.Conv2d(6, 6, 3, padding=2, dilation=2, groups=6)),
        (torch.randn(2, 4, 9, 8),),
    ),
    "one and three axes": (
        lambda: nn.Sequential(nn.Conv3d(2, 3, 3, padding=1), nn.Flatten(2), nn.Conv1d(3, 4, 5, 2, padding=2)),
        (torch.randn(2, 2, 4, 5, 3, requires_grad=True),),
    ),
    "padding to the same size": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, (2, 3), padding="same", dilation=3),
            nn.Conv2d(4, 5, 4, padding="same"),
            nn.Flatten(2),
            nn.Conv1d(5, 4, 4, padding="same"),
        ),
        (torch.randn(2, 3, 5, 6, requires_grad=True),),
    ),
    "padding only": (
        lambda: nn.Conv2d(3, 4, 1, stride=3, padding=1),
        (torch.randn(2, 3, 1, 1, requires_grad=True),),
    ),
    "transposed": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.ConvTranspose2d(4, 6, 3, 2, 1, 1, groups=2), nn.ConvTranspose2d(6, 2, 1)
        ),
        (torch.randn(2, 3, 5, 4),),
    ),
    "attention": (
        lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True),
        (torch.randn(3, 6, 8, requires_grad=True),),
    ),
    "transformer": (
        lambda: nn.Transformer(16, 2, 1, 1, 32, batch_first=True),
        (torch.randn(2, 5, 16), torch.randn(2, 4, 16)),
    ),
}


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize(("make", "inputs"), SMALL.values(), ids=SMALL.keys())
def test_nothing_is_unexplained(make: Callable[[], nn.Module], inputs: Inputs) -> None:
    assert_step_explained(make(), inputs)


def test_the_terms_of_convolutions_by_hand() -> None:
    """Three taps around each of four pixels: of 12 products, the outer two meet padding; the kernels crop them too."""
    model, x = nn.Conv1d(2, 2, 3, padding=1, groups=2, bias=False), torch.randn(1, 2, 4, requires_grad=True)
    report = terms(assert_step_explained(model, (x,)))
    assert report["taps of input gradients that are cropped"] == 2 * 2
    assert report["weight gradients between channels of different groups"] == 2 * 12
    # The gradient is a correlation with four outputs: its own padding has as many products as are cropped.
    assert report["padding that input gradients execute"] == -2 * 2


def test_fused_attention_has_no_formula() -> None:
    make, inputs = SMALL["attention"]
    report = terms(assert_step_explained(make(), inputs))
    assert report["not seen: fused attention and its gradients"] == -3 * (3 * 2 * 6 * 6 * (4 + 4))


@pytest.mark.parametrize("name", ["padding and strides", "transposed", "attention"])
@pytest.mark.parametrize("field", ["mul", "pad"])
def test_a_wrong_count_is_unexplained(name: str, field: str) -> None:
    make, inputs = SMALL[name]
    model = make()
    launches = list(count_step(model, inputs))
    for index, launch in enumerate(launches):
        if launch.phase != "backward_input":
            continue
        counters = dataclasses.replace(launch.counters, **{field: getattr(launch.counters, field) + 1})
        wrong = [*launches[:index], dataclasses.replace(launch, counters=counters), *launches[index + 1 :]]
        assert training_step(model, inputs, wrong).unexplained == (-2 if field == "mul" else 2)


@pytest.mark.parametrize(
    "model",
    [
        nn.RNN(4, 6, 2, bidirectional=True),
        nn.GRU(4, 6),
        nn.LSTM(4, 6, proj_size=2),
        nn.LSTMCell(4, 6),
        nn.GRUCell(4, 6),
    ],
    ids=lambda model: type(model).__name__,
)
def test_recurrent_layers_are_explained(model: nn.Module) -> None:
    assert_step_explained(model, (torch.randn(5, 4, requires_grad=True),))


@pytest.mark.parametrize("model", [nn.LSTM(4, 6, 2, bidirectional=True), nn.Bilinear(4, 4, 3)])
def test_layers_without_a_formula_are_named(model: nn.Module) -> None:
    x = torch.randn(5, 4, requires_grad=True)
    report = assert_step_explained(model, (x, x) if isinstance(model, nn.Bilinear) else (x,))
    assert report.reported == 0
    assert list(terms(report)) == ["counted MACs", f"not seen: (the model) ({type(model).__name__})"]


FAMILIES = {
    **dict.fromkeys(
        ["resnet18", "mobilenet_v3_small", "convnext_tiny", "swin_t", "lraspp_mobilenet_v3_large"], (2, 3, 64, 64)
    ),
    "vit_b_32": (1, 3, 224, 224),
    "r3d_18": (1, 3, 8, 64, 64),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_nothing_is_unexplained_in_torchvisions_families(name: str) -> None:
    options = {"weights_backbone": None} if name.startswith("lraspp") else {}
    assert_step_explained(models.get_model(name, weights=None, **options), (torch.randn(FAMILIES[name]),))

"""Ledgers of recurrent layers and their cells: the tools' numbers follow from the count, in all forms they have."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence

from tests.ledgers import Inputs, assert_explained, reports

pytest.importorskip("thop")
pytest.importorskip("fvcore")
pytest.importorskip("ptflops")

LAYERS: tuple[Any, ...] = (nn.RNN, nn.LSTM, nn.GRU)
CELLS: tuple[Any, ...] = (nn.RNNCell, nn.LSTMCell, nn.GRUCell)


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layer", LAYERS)
def test_nothing_is_unexplained(layer: Any, layers: int, bidirectional: bool) -> None:
    module = layer(4, 6, layers, bidirectional=bidirectional, bias=layers == 1, batch_first=bidirectional)
    assert_explained(module.eval(), (torch.randn(3, 5, 4),))


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_projections_are_explained(layers: int, bidirectional: bool) -> None:
    assert_explained(nn.LSTM(4, 6, layers, bidirectional=bidirectional, proj_size=2).eval(), (torch.randn(3, 5, 4),))


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bias", [True, False])
def test_cells_are_explained(cell: Any, bias: bool) -> None:
    assert_explained(cell(4, 6, bias), (torch.randn(5, 4),))


@pytest.mark.parametrize(
    ("module", "x", "failing"),
    [
        *((layer(4, 6, 2).eval(), torch.randn(5, 4), ()) for layer in LAYERS),
        *((cell(4, 6), torch.randn(4), ("ptflops",)) for cell in CELLS),
    ],
    ids=lambda value: type(value).__name__,
)
def test_inputs_without_a_batch_are_explained(module: nn.Module, x: Tensor, failing: tuple[str, ...]) -> None:
    found = assert_explained(module, (x,), failing)
    for name in failing:
        assert found[name].error == f"{name} failed on this model: IndexError: tuple index out of range"


@pytest.mark.parametrize("layer", LAYERS)
def test_packed_sequences_are_explained(layer: Any) -> None:
    sequences = pack_sequence([torch.randn(length, 4) for length in (7, 5, 2)])
    found = assert_explained(layer(4, 6, 2).eval(), (sequences,), failing=("fvcore", "ptflops"))
    amounts = {term.term: term.amount for term in found["thop"].ledger}
    # Three sequences as long as the first have 21 steps, of which 14 are there.
    gates = {nn.RNN: 1, nn.LSTM: 4, nn.GRU: 3}[layer]
    assert amounts["steps that unbatched or packed sequences do not have"] == 7 * gates * 6 * ((4 + 6) + (6 + 6))


def test_the_terms_by_hand() -> None:
    """An LSTM of two units and three inputs, six steps: four gates of two biases each, and what joins the gates."""
    found = assert_explained(nn.LSTM(3, 2), (torch.randn(3, 2, 3),))
    terms = {name: {term.term: term.amount for term in report.ledger} for name, report in found.items()}
    products = 6 * 4 * 2 * (3 + 2)
    assert terms["thop"] == {
        "counted MACs": products,
        "elementwise work of recurrent layers": 6 * 2 * 8,
        "bias": 6 * 4 * 2 * 2,
    }
    assert terms["ptflops"]["elementwise work of recurrent layers"] == 6 * 2 * 10
    assert terms["fvcore"] == {"counted MACs": products, "not seen: (the model) (LSTM)": -products}


class Tagger(nn.Module):
    """A recurrent layer that runs twice, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent, self.head = nn.GRU(4, 4, bidirectional=False), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.recurrent(self.recurrent(x)[0])[0])


def test_a_layer_inside_a_model_is_explained() -> None:
    assert_explained(Tagger().eval(), (torch.randn(3, 5, 4),))


@pytest.mark.parametrize("error", [-1, 1])
def test_a_count_that_is_off_by_one_is_unexplained(error: int) -> None:
    inputs: Inputs = (torch.randn(3, 5, 4),)
    found = reports(Tagger().eval(), inputs, module="recurrent", mul=error)
    # fvcore has nothing for a GRU to compare with.
    assert {name: report.unexplained for name, report in found.items()} == {
        "thop": -error,
        "fvcore": 0,
        "ptflops": -error,
        "ptflops (aten)": -error,
        "torch FlopCounterMode": -2 * error,
    }

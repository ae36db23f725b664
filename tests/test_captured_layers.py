"""Layers of torch.nn that are made of products: values and gradients against torch, counts against brute force."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, parametrize
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import flopcuda
from flopcuda.geometry import exact_counts
from tests.torch_counts import torchs_own_count

attend = functional.scaled_dot_product_attention


def flat(result: Any) -> list[Tensor]:
    """The tensors of a result, whatever it is made of."""
    if isinstance(result, Tensor):
        return [result]
    if isinstance(result, PackedSequence):
        return [result.data]
    return [] if result is None else [tensor for part in result for tensor in flat(part)]


def train(model: nn.Module, arguments: tuple[Any, ...], **options: Any) -> list[Tensor]:
    """Outputs and gradients of all that has one, of a sum that weighs each output differently."""
    leaves = [*model.parameters(), *(tensor for tensor in flat(arguments) if tensor.is_leaf and tensor.requires_grad)]
    for leaf in leaves:
        leaf.grad = None
    torch.manual_seed(0)  # dropout
    outputs = flat(model(*arguments, **options))
    loss = sum((output * torch.linspace(0.5, 1, output.numel()).view_as(output)).sum() for output in outputs)
    loss.backward()
    return [*outputs, *(leaf.grad for leaf in leaves if leaf.grad is not None)]


def assert_trains_as_always(model: nn.Module, *arguments: Any, **options: Any) -> flopcuda.Report:
    """A training step has the results that it always has, and as many products as torch's formulas say."""
    expected = train(model, arguments, **options)
    with flopcuda.instrument(model) as session:
        results = train(model, arguments, **options)
    with torchs_own_count() as theirs:
        train(model, arguments, **options)
    for result, reference in zip(results, expected, strict=True):
        torch.testing.assert_close(result, reference, atol=1e-4, rtol=1e-4)
    report = session.report()
    assert report.not_counted == ()
    assert report.total.macs == theirs.get_total_flops() // 2
    for launch in report.launches:
        counters = launch.counters
        assert (counters.mul, counters.add, counters.pad) == exact_counts(launch)
    return report


def forward_macs(report: flopcuda.Report) -> int:
    return sum(launch.counters.mul for launch in report.launches if launch.phase == "forward")


# --- recurrent layers ---

GATES = {nn.RNN: 1, nn.GRU: 3, nn.LSTM: 4, nn.RNNCell: 1, nn.GRUCell: 3, nn.LSTMCell: 4}


def recurrent_macs(layer: nn.RNNBase, steps: int) -> int:
    """Products of so many steps, those of all sequences together: each step's gates read input and last output."""
    directions, out = 1 + layer.bidirectional, layer.proj_size or layer.hidden_size
    macs = 0
    for depth, _ in itertools.product(range(layer.num_layers), range(directions)):
        inputs = layer.input_size if depth == 0 else directions * out
        macs += steps * GATES[type(layer)] * layer.hidden_size * (inputs + out)
        macs += steps * layer.hidden_size * layer.proj_size
    return macs


@pytest.mark.parametrize("lengths", [(6, 6, 6), (6, 3, 1), None], ids=["padded", "packed", "one sequence"])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (nn.RNN, {}),
        (nn.RNN, {"nonlinearity": "relu", "num_layers": 2, "bias": False}),
        (nn.GRU, {"num_layers": 2, "bidirectional": True}),
        (nn.GRU, {"num_layers": 3, "dropout": 0.4}),
        (nn.LSTM, {}),
        (nn.LSTM, {"num_layers": 2, "bidirectional": True, "dropout": 0.3}),
        (nn.LSTM, {"num_layers": 2, "proj_size": 3, "bidirectional": True}),
        (nn.LSTM, {"batch_first": True, "bias": False}),
    ],
)
def test_recurrent_layers(kind: type[nn.RNNBase], options: dict[str, Any], lengths: tuple[int, ...] | None) -> None:
    layer = kind(4, 5, **options)
    x = torch.randn(3, 6, 4) if layer.batch_first else torch.randn(6, 3, 4)
    sequences: Any = x[:, 0] if lengths is None else x.requires_grad_()
    if lengths and len(set(lengths)) > 1:
        sequences = pack_padded_sequence(x.detach(), list(lengths), layer.batch_first)
        sequences.data.requires_grad_()
    report = assert_trains_as_always(layer, sequences)
    steps = len(sequences) if lengths is None else sum(lengths)
    assert forward_macs(report) == recurrent_macs(layer, steps)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_recurrent_layers_without_gradients(kind: type[nn.RNNBase]) -> None:
    """oneDNN has fused code for this, which hides the products."""
    layer, x = kind(4, 5, 2).eval(), torch.randn(6, 3, 4)
    with flopcuda.instrument(layer) as session, torch.no_grad():
        output, _ = layer(x)
    torch.testing.assert_close(output, layer(x)[0])
    assert session.report().total.macs == recurrent_macs(layer, 18)
    assert session.report().not_counted == ()
    assert torch.backends.mkldnn.enabled


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", [nn.RNNCell, nn.GRUCell, nn.LSTMCell])
def test_recurrent_cells(kind: type[nn.RNNCellBase], bias: bool) -> None:
    cell = kind(4, 5, bias=bias)
    report = assert_trains_as_always(cell, torch.randn(3, 4, requires_grad=True))
    assert forward_macs(report) == 3 * GATES[kind] * 5 * (4 + 5)


# --- attention ---


def attention_macs(attention: nn.MultiheadAttention, batch: int, queries: int, keys: int) -> int:
    """Four projections and two products for each pair of query and key, over keys that a bias or zeros prolong."""
    width = attention.embed_dim
    projections = queries * width * width * 2 + keys * width * ((attention.kdim or width) + (attention.vdim or width))
    all_keys = keys + (attention.bias_k is not None) + attention.add_zero_attn
    return batch * (projections + 2 * queries * all_keys * width)


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bias": False, "batch_first": True},
        {"kdim": 6, "vdim": 10},
        {"kdim": 8, "vdim": 10, "add_bias_kv": True},
        {"add_bias_kv": True, "add_zero_attn": True},
        {"dropout": 0.4},
    ],
)
def test_multi_head_attention(options: dict[str, Any], need_weights: bool) -> None:
    layer = nn.MultiheadAttention(8, 2, **options)
    sizes = (5, 8), (7, layer.kdim), (7, layer.vdim)
    query, key, value = (
        torch.randn(*((3, length) if layer.batch_first else (length, 3)), width, requires_grad=True)
        for length, width in sizes
    )
    report = assert_trains_as_always(layer, query, key, value, need_weights=need_weights)
    assert forward_macs(report) == attention_macs(layer, 3, 5, 7)


def test_self_attention_has_one_packed_projection() -> None:
    layer, x = nn.MultiheadAttention(8, 2), torch.randn(6, 3, 8)
    report = assert_trains_as_always(layer, x, x, x)
    assert forward_macs(report) == attention_macs(layer, 3, 6, 6)


@pytest.mark.parametrize("masked", ["key_padding_mask", "attn_mask"])
def test_masked_attention_makes_all_products(masked: str) -> None:
    """Masks act on the scores: what they throw away was computed. test_causal_attention.py has the exception."""
    layer, x = nn.MultiheadAttention(8, 2, batch_first=True), torch.randn(3, 6, 8)
    causal = nn.Transformer.generate_square_subsequent_mask(6)
    options = {
        "key_padding_mask": {"key_padding_mask": torch.arange(6).expand(3, 6) > 3},
        "attn_mask": {"attn_mask": causal},
    }
    report = assert_trains_as_always(layer, x, x, x, **options[masked])
    assert forward_macs(report) == attention_macs(layer, 3, 6, 6)


@pytest.mark.parametrize("training", [True, False])
def test_an_encoder_layer_has_no_fast_path_while_it_is_counted(training: bool) -> None:
    layer, x = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).train(training), torch.randn(3, 6, 8)
    torch.manual_seed(1)
    with flopcuda.instrument(layer) as session, torch.no_grad():
        output = layer(x)
    torch.manual_seed(1)
    with torch.no_grad():
        torch.testing.assert_close(output, layer(x), atol=1e-5, rtol=1e-4)
    assert session.report().total.macs == attention_macs(layer.self_attn, 3, 6, 6) + 2 * 3 * 6 * 8 * 16
    assert session.report().not_counted == ()


class Attends(nn.Module):
    """A functional call with options of its own."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = options

    def forward(self, *tensors: Tensor) -> Tensor:
        return attend(*tensors, **self.options)


@pytest.mark.parametrize(
    ("options", "shapes"),
    [
        ({}, [(2, 4, 6, 8), (2, 4, 5, 8), (2, 4, 5, 3)]),
        ({"attn_mask": torch.rand(6, 5) > 0.3}, [(2, 4, 6, 8), (2, 4, 5, 8), (2, 4, 5, 3)]),
        ({"attn_mask": torch.randn(2, 1, 6, 5), "scale": 0.3}, [(2, 4, 6, 8), (2, 4, 5, 8), (2, 4, 5, 8)]),
        ({"dropout_p": 0.5}, [(4, 6, 8), (4, 5, 8), (4, 5, 8)]),
        ({"enable_gqa": True}, [(2, 4, 6, 8), (2, 2, 6, 8), (2, 2, 6, 8)]),
        ({}, [(6, 8), (5, 8), (5, 3)]),
    ],
)
def test_scaled_dot_product_attention(options: dict[str, Any], shapes: list[tuple[int, ...]]) -> None:
    query, key, value = (torch.randn(*shape, requires_grad=True) for shape in shapes)
    report = assert_trains_as_always(Attends(**options), query, key, value)
    heads = query.shape[:-2].numel()
    assert forward_macs(report) == heads * query.shape[-2] * key.shape[-2] * (query.shape[-1] + value.shape[-1])


# --- operators that hide products ---


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("leading", [(), (7,), (2, 3)])
def test_bilinear(leading: tuple[int, ...], bias: bool) -> None:
    """``y[n, o] = sum_i,j x1[n, i] W[o, i, j] x2[n, j]``: a product with W, and one with what that gives."""
    layer = nn.Bilinear(3, 4, 5, bias)
    left, right = torch.randn(*leading, 3, requires_grad=True), torch.randn(*leading, 4, requires_grad=True)
    expected = train(layer, (left, right))
    with flopcuda.instrument(layer) as session:
        results = train(layer, (left, right))
    for result, reference in zip(results, expected, strict=True):
        torch.testing.assert_close(result, reference, atol=1e-5, rtol=1e-5)
    report, rows = session.report(), left.shape[:-1].numel()
    assert report.not_counted == ()
    assert forward_macs(report) == rows * (5 * 3 * 4 + 5 * 4)
    backward = report.total.macs - forward_macs(report)
    of_left = 5 * 3 * 4 + 3 * 4  # g W, then with x2
    of_right = 5 * 3 * 4 + 5 * 4  # x1 W, then with g
    of_weight = 5 * 3 + 5 * 3 * 4  # x1 g, then with x2 over all rows
    assert backward == rows * (of_left + of_right + of_weight)


@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (1, 3, 4, 5), (2, 1, 4, 1), (6, 2, 1, 3)])
def test_bilinear_where_axes_have_one_element(sizes: tuple[int, ...]) -> None:
    rows, inputs, others, outputs = sizes
    layer = nn.Bilinear(inputs, others, outputs)
    arguments = torch.randn(rows, inputs), torch.randn(rows, others)
    with flopcuda.instrument(layer) as session:
        output = layer(*arguments)
    torch.testing.assert_close(output, layer(*arguments))
    assert session.report().total.macs == rows * (inputs * others * outputs + others * outputs)


def test_distances_by_a_product() -> None:
    """torch takes the product for many points; the few that it compares one by one are named."""
    x, y = torch.randn(2, 30, 4, requires_grad=True), torch.randn(40, 4, requires_grad=True)
    expected = torch.cdist(x, y)
    gradients = torch.autograd.grad(expected.sum(), (x, y))
    with flopcuda.count() as session:
        distances = torch.cdist(x, y)
        counted = torch.autograd.grad(distances.sum(), (x, y))
        torch.cdist(x[:, :3], y[:3])
    torch.testing.assert_close(distances, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(counted, gradients, atol=1e-3, rtol=1e-3)
    report = session.report()
    assert forward_macs(report) == 2 * 30 * 40 * (4 + 2)
    assert [entry.operator for entry in report.not_counted] == ["aten._cdist_forward"]


@pytest.mark.parametrize("pad", [0, 2])
def test_convolution_of_time_batch_channels(pad: int) -> None:
    x, weight, bias = torch.randn(7, 2, 3), torch.randn(3, 3, 4), torch.randn(4)
    with flopcuda.count() as session:
        output = torch.conv_tbc(x, weight, bias, pad)
    torch.testing.assert_close(output, torch.conv_tbc(x, weight, bias, pad))
    total = session.report().total
    assert total.mul == output.numel() * 9
    ones = functional.conv1d(torch.ones(2, 3, 7), torch.ones(4, 3, 3), padding=pad)
    assert total.mul - total.pad == int(ones.sum())


# --- layers in other clothes ---


class Scaled(nn.Linear):
    """A subclass that calls its parent."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class Symmetric(nn.Module):
    """A user's parametrization, with a product of its own."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight @ weight.T


def parametrized(layer: nn.Module) -> nn.Module:
    parametrize.register_parametrization(layer, "weight", Symmetric())
    return layer


@pytest.mark.parametrize(
    ("make", "shape", "macs"),
    [
        pytest.param(lambda: nn.LazyConv2d(4, 3), (2, 3, 8, 8), 2 * 4 * 36 * 27, id="lazy convolution"),
        pytest.param(lambda: nn.LazyLinear(4), (2, 5), 2 * 4 * 5, id="lazy linear layer"),
        pytest.param(lambda: parametrizations.weight_norm(nn.Linear(5, 4)), (2, 5), 2 * 4 * 5, id="weight_norm"),
        pytest.param(lambda: nn.utils.weight_norm(nn.Conv1d(3, 4, 3)), (2, 3, 8), 2 * 4 * 6 * 9, id="by a hook"),
        pytest.param(lambda: parametrized(nn.Linear(5, 5)), (2, 5), 2 * 25 + 125, id="own parametrization"),
        pytest.param(lambda: Scaled(5, 4), (2, 5), 2 * 4 * 5, id="subclass"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated:FutureWarning")
def test_layers_in_other_clothes(make: Any, shape: tuple[int, ...], macs: int) -> None:
    model, x = make(), torch.randn(*shape)
    model(x)  # materialises a lazy one
    expected = train(model, (x,))
    with flopcuda.instrument(model) as session:
        results = train(model, (x,))
    for result, reference in zip(results, expected, strict=True):
        torch.testing.assert_close(result, reference, atol=1e-5, rtol=1e-5)
    report = session.report()
    assert report.not_counted == ()
    assert forward_macs(report) == macs


def test_spectral_norm_counts_its_power_iteration() -> None:
    model, x = parametrizations.spectral_norm(nn.Linear(5, 4)), torch.randn(2, 5)
    iteration, norm = 2 * 4 * 5, 4 * 5 + 4  # W v and W' u; u' (W v)
    with flopcuda.instrument(model) as session:
        model(x)
    assert session.report().total.macs == 2 * 4 * 5 + iteration + norm
    model.eval()
    with flopcuda.instrument(model) as session:
        model(x)
    assert session.report().total.macs == 2 * 4 * 5 + norm


def test_reused_modules_and_tied_weights() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.decoder = nn.Linear(6, 6), nn.Linear(6, 6)
            self.decoder.weight = self.encoder.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.decoder(self.encoder(self.encoder(x)))

    report = assert_trains_as_always(Tied(), torch.randn(3, 6))
    forward = {
        name: sum(launch.counters.mul for launch in summary.launches if launch.phase == "forward")
        for name, summary in report.by_module().items()
    }
    assert forward == {"encoder": 2 * 3 * 36, "decoder": 3 * 36}


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("kind", [nn.Conv1d, nn.Conv2d])
def test_padding_modes(kind: type[nn.Module], mode: str) -> None:
    layer = kind(2, 3, 3, padding=2, padding_mode=mode)
    x = torch.randn(2, 2, *(7,) * (2 if kind is nn.Conv2d else 1))
    expected = train(layer, (x,))
    with flopcuda.instrument(layer) as session:
        results = train(layer, (x,))
    for result, reference in zip(results, expected, strict=True):
        torch.testing.assert_close(result, reference, atol=1e-4, rtol=1e-4)
    outputs = expected[0].numel()
    assert forward_macs(session.report()) == outputs * layer.weight[0].numel()
    padded = sum(launch.counters.pad for launch in session.report().launches if launch.phase == "forward")
    assert (padded == 0) == (mode != "zeros")

"""The formulas, against loops that do the arithmetic one operation at a time, and against torch's own counter."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from flopcuda import formulas
from flopcuda.formulas import CONV, FORMULAS, LINEAR, ConvSizes, LinearSizes

# ResNet-50's first convolution on one 224x224 image, with every row of the table worked out by hand.
STEM = {"in_channels": 3, "out_channels": 64, "kernel_size": 7, "output_size": 112}

small = st.integers(1, 3)


@st.composite
def conv2d_sizes(draw: st.DrawFn) -> ConvSizes:
    groups = draw(small)
    return ConvSizes(
        in_channels=groups * draw(small),
        out_channels=groups * draw(small),
        kernel_size=(draw(small), draw(small)),
        output_size=(draw(small), draw(small)),
        groups=groups,
        bias=draw(st.booleans()),
        batch=draw(small),
    )


linear_sizes = st.builds(
    LinearSizes, in_features=st.integers(1, 9), out_features=st.integers(1, 9), bias=st.booleans(), rows=small
)


def executed_by_conv2d(layer: ConvSizes) -> tuple[int, int]:
    """Multiplications and additions of a convolution written as loops over every output and every tap."""
    assert isinstance(layer.kernel_size, tuple)
    assert isinstance(layer.output_size, tuple)
    mul = add = 0
    channels_of_group = [c for c in range(layer.in_channels) if c * layer.groups // layer.in_channels == 0]
    outputs = itertools.product(range(layer.batch), range(layer.out_channels), *map(range, layer.output_size))
    for _ in outputs:
        accumulator_is_empty = True
        for _ in itertools.product(channels_of_group, *map(range, layer.kernel_size)):
            mul += 1
            add += not accumulator_is_empty
            accumulator_is_empty = False
        add += layer.bias
    return mul, add


@given(conv2d_sizes())
def test_exact_conv2d_is_what_loops_execute(layer: ConvSizes) -> None:
    mul, add = executed_by_conv2d(layer)
    assert formulas.conv_exact_mul(layer) == mul
    assert formulas.conv_exact_add(layer) == add
    assert formulas.conv_exact_flops(layer) == mul + add
    assert formulas.conv_macs(layer) == mul


@given(linear_sizes)
def test_a_linear_layer_is_a_1x1_convolution_except_for_nvidia(layer: LinearSizes) -> None:
    convolution = ConvSizes(
        in_channels=layer.in_features,
        out_channels=layer.out_features,
        kernel_size=1,
        output_size=1,
        bias=layer.bias,
        batch=layer.rows,
    )
    mul, add = executed_by_conv2d(
        ConvSizes(
            in_channels=layer.in_features,
            out_channels=layer.out_features,
            kernel_size=(1, 1),
            output_size=(1, 1),
            bias=layer.bias,
            batch=layer.rows,
        )
    )
    assert (formulas.linear_exact_mul(layer), formulas.linear_exact_add(layer)) == (mul, add)
    for name in ("exact", "macs", "macs_with_bias", "torch"):
        assert LINEAR[name].function(layer) == CONV[name].function(convolution)
    over_count = CONV["nvidia"].function(convolution) - LINEAR["nvidia"].function(layer)
    assert over_count == 3 * layer.rows * layer.out_features


@given(conv2d_sizes())
def test_torch_row_is_what_torch_reports_for_conv2d(layer: ConvSizes) -> None:
    assert isinstance(layer.kernel_size, tuple)
    assert isinstance(layer.output_size, tuple)
    image = [out + kernel - 1 for out, kernel in zip(layer.output_size, layer.kernel_size, strict=True)]
    x = torch.zeros(layer.batch, layer.in_channels, *image)
    weight = torch.zeros(layer.out_channels, layer.in_channels // layer.groups, *layer.kernel_size)
    bias = torch.zeros(layer.out_channels) if layer.bias else None
    with FlopCounterMode(display=False) as mode:
        y = F.conv2d(x, weight, bias, groups=layer.groups)
    assert y.numel() == layer.outputs
    assert formulas.conv_torch_flops(layer) == mode.get_total_flops()


@given(linear_sizes)
def test_torch_row_is_what_torch_reports_for_linear(layer: LinearSizes) -> None:
    bias = torch.zeros(layer.out_features) if layer.bias else None
    with FlopCounterMode(display=False) as mode:
        F.linear(torch.zeros(layer.rows, layer.in_features), torch.zeros(layer.out_features, layer.in_features), bias)
    assert formulas.linear_torch_flops(layer) == mode.get_total_flops()


@pytest.mark.parametrize(
    ("bias", "expected"),
    [
        # 3 x 7 x 7 = 147 products for each of 112 x 112 x 64 = 802,816 outputs.
        (False, {"exact": 293 * 802_816, "macs_with_bias": 147 * 802_816}),
        (True, {"exact": 294 * 802_816, "macs_with_bias": 148 * 802_816}),
    ],
)
@pytest.mark.parametrize("batch", [1, 4])
def test_every_row_of_the_table_for_a_convolution(bias: bool, expected: dict[str, int], batch: int) -> None:
    layer = ConvSizes(**STEM, bias=bias, batch=batch)
    rows = {"nvidia": 296 * 802_816, "macs": 147 * 802_816, "torch": 294 * 802_816, **expected}
    values = {name: formula.function(layer) for name, formula in CONV.items()}
    assert values == {name: batch * value for name, value in rows.items()}


@pytest.mark.parametrize(
    ("bias", "expected"),
    [
        (False, {"exact": 4_095_000, "macs_with_bias": 2_048_000}),
        (True, {"exact": 4_096_000, "macs_with_bias": 2_049_000}),
    ],
)
def test_every_row_of_the_table_for_a_linear_layer(bias: bool, expected: dict[str, int]) -> None:
    layer = LinearSizes(in_features=2048, out_features=1000, bias=bias)
    values = {name: formula.function(layer) for name, formula in LINEAR.items()}
    assert values == {"nvidia": 4_095_000, "macs": 2_048_000, "torch": 4_096_000, **expected}


def test_groups_divide_the_input_channels() -> None:
    depthwise = ConvSizes(in_channels=32, out_channels=32, kernel_size=3, output_size=112, groups=32)
    assert formulas.conv_macs(depthwise) == 9 * 32 * 112 * 112


def test_every_formula_names_its_source_and_unit() -> None:
    assert FORMULAS["conv2d"].keys() == FORMULAS["linear"].keys()
    for rows in FORMULAS.values():
        for formula in rows.values():
            assert formula.source
            assert formula.unit in ("FLOPs", "MACs")
            assert "Source: " in (formula.function.__doc__ or "")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"in_channels": 0}, "in_channels = 0 must be a positive int"),
        ({"out_channels": -1}, "out_channels = -1 must be a positive int"),
        ({"kernel_size": (3, 0)}, "kernel_size = 0 must be a positive int"),
        ({"kernel_size": (3, 3, 3)}, "differ in axes"),
        ({"output_size": (0, 4)}, "output_size = 0 must be a positive int"),
        ({"batch": 0}, "batch = 0 must be a positive int"),
        ({"batch": 1.0}, "batch = 1.0 must be a positive int"),
        ({"groups": 2}, "in_channels = 3 is not divisible by groups = 2"),
        ({"groups": 3}, "out_channels = 64 is not divisible by groups = 3"),
    ],
)
def test_sizes_of_no_convolution_are_errors(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ConvSizes(**{**STEM, **change})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["in_features", "out_features", "rows"])
def test_sizes_of_no_linear_layer_are_errors(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} = 0 must be a positive int"):
        LinearSizes(**{"in_features": 3, "out_features": 4, "rows": 5, name: 0})

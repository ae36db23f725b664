"""The torch operators: right as torch understands right, and clear when refused."""

from __future__ import annotations

from math import prod

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

import flopcuda.ops as ops

CONV_CALLS = {
    "plain": ((2, 3, 9, 8), (4, 3, 3, 3), True, (1, 1), (0, 0, 0, 0), (1, 1), 1),
    "strided, uneven padding": ((1, 4, 7, 10), (6, 2, 2, 3), False, (2, 3), (1, 2, 0, 3), (2, 1), 2),
    "depthwise": ((2, 5, 6, 6), (5, 1, 3, 3), True, (1, 1), (1, 1, 1, 1), (1, 1), 5),
    "with depth": ((2, 4, 4, 5, 6), (6, 2, 2, 3, 3), True, (1, 2, 1), (1, 0, 0, 1, 2, 1), (2, 1, 1), 2),
    "empty batch": ((0, 3, 5, 5), (4, 3, 3, 3), True, (1, 1), (1, 1, 1, 1), (1, 1), 1),
}


def conv_arguments(name: str, device: str, requires_grad: bool = False) -> tuple[object, ...]:
    input, weight, bias, stride, padding, dilation, groups = CONV_CALLS[name]
    options = {"device": device, "requires_grad": requires_grad}
    return (
        torch.randn(input, **options),
        torch.randn(weight, **options),
        torch.randn(weight[0], **options) if bias else None,
        list(stride),
        list(padding),
        list(dilation),
        groups,
    )


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("name", CONV_CALLS)
def test_convolution_passes_opcheck(name: str, requires_grad: bool, device: str) -> None:
    arguments = conv_arguments(name, device, requires_grad)
    operator = torch.ops.flopcuda.conv3d if len(arguments[3]) == 3 else torch.ops.flopcuda.conv2d
    torch.library.opcheck(operator, arguments)


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("shape", [(7,), (3, 7), (2, 3, 7), (0, 7)])
def test_linear_passes_opcheck(shape: tuple[int, ...], requires_grad: bool, device: str) -> None:
    options = {"device": device, "requires_grad": requires_grad}
    arguments = (torch.randn(shape, **options), torch.randn(5, 7, **options), torch.randn(5, **options))
    torch.library.opcheck(torch.ops.flopcuda.linear, arguments)


@pytest.mark.parametrize("name", CONV_CALLS)
def test_convolution_agrees_with_torch_in_value_and_gradient(name: str, device: str) -> None:
    input, weight, bias, stride, padding, dilation, groups = conv_arguments(name, device, requires_grad=True)
    op = f"conv{len(stride)}d"
    output, _ = ops.OPERATORS[op](input, weight, bias, stride, padding, dilation, groups)
    padded = torch.nn.functional.pad(input, padding)
    expected = getattr(torch.nn.functional, op)(padded, weight, bias, stride, 0, dilation, groups)
    torch.testing.assert_close(output, expected)
    leaves = [leaf for leaf in (input, weight, bias) if leaf is not None]
    upstream = torch.randn_like(expected)
    torch.testing.assert_close(
        torch.autograd.grad(output, leaves, upstream), torch.autograd.grad(expected, leaves, upstream)
    )


def test_linear_agrees_with_torch_in_value_and_gradient(device: str) -> None:
    leaves = [torch.randn(shape, device=device, requires_grad=True) for shape in [(2, 3, 7), (5, 7), (5,)]]
    output, _ = ops.linear(*leaves)
    expected = torch.nn.functional.linear(*leaves)
    torch.testing.assert_close(output, expected)
    upstream = torch.randn_like(expected)
    torch.testing.assert_close(
        torch.autograd.grad(output, leaves, upstream), torch.autograd.grad(expected, leaves, upstream)
    )


@pytest.mark.parametrize(
    ("op", "memory_format"),
    [
        ("conv2d", torch.contiguous_format),
        ("conv2d", torch.channels_last),
        ("conv3d", torch.contiguous_format),
        ("conv3d", torch.channels_last_3d),
    ],
)
def test_convolution_keeps_the_memory_format_that_torch_keeps(
    op: str, memory_format: torch.memory_format, device: str
) -> None:
    axes = (4, 6, 5)[: int(op[4])]
    input = torch.randn(2, 4, *axes, device=device).to(memory_format=memory_format)
    weight = torch.randn(3, 4, *(3 for _ in axes), device=device)
    output, _ = ops.OPERATORS[op](input, weight)
    expected = getattr(torch.nn.functional, op)(input, weight)
    torch.testing.assert_close(output, expected)
    assert output.stride() == expected.stride()


def test_operands_may_have_any_strides(device: str) -> None:
    input = torch.randn(9, 8, 3, 2, device=device).permute(3, 2, 0, 1)[:, :, ::2, 1:]
    weight = torch.randn(1, 3, 3, 3, device=device).expand(4, 3, 3, 3)
    output, counters = ops.conv2d(input, weight)
    torch.testing.assert_close(output, torch.nn.functional.conv2d(input, weight))
    assert counters.tolist()[0] == output.numel() * 27


@settings(deadline=None, max_examples=200)
@given(
    sizes=st.lists(st.sampled_from([1, 2, 3, 5, 16, 67]), min_size=4, max_size=4).filter(
        lambda sizes: prod(sizes) < 1e5
    ),
    order=st.permutations(range(4)),
    cropped=st.lists(st.booleans(), min_size=4, max_size=4),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    threads=st.integers(1, 3),
)
def test_images_may_lie_in_any_order(
    sizes: list[int], order: list[int], cropped: list[bool], dtype: torch.dtype, threads: int
) -> None:
    stored = torch.randn([size + crop for size, crop in zip(sizes, cropped, strict=True)], dtype=dtype)
    images = stored[tuple(slice(int(crop), None) for crop in cropped)].permute(order)
    identity = torch.eye(images.shape[1], dtype=dtype)[..., None, None]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert torch.equal(ops.conv2d(images, identity)[0], images)
    finally:
        torch.set_num_threads(before)


def test_input_without_a_batch(device: str) -> None:
    input, weight = torch.randn(3, 6, 6, device=device), torch.randn(4, 3, 3, 3, device=device)
    output, _ = ops.conv2d(input, weight)
    torch.testing.assert_close(output, torch.nn.functional.conv2d(input, weight))


@pytest.mark.parametrize("mode", ["meta", "fake"])
def test_meta_and_fake_tensors_give_shapes(mode: str) -> None:
    with FakeTensorMode() if mode == "fake" else torch.device("meta"):
        output, counters = ops.conv2d(torch.randn(2, 3, 9, 9), torch.randn(4, 3, 3, 3), padding=(1, 1, 0, 0))
    assert output.shape == (2, 4, 7, 9)
    assert counters.shape == (5,)


def refused_operands() -> dict[str, tuple[tuple[Tensor, Tensor, Tensor | None], dict[str, object], str]]:
    """Name -> operands, options and what the sentence must say."""
    input, weight = torch.randn(2, 4, 6, 6), torch.randn(6, 4, 3, 3)
    nested = torch.nested.nested_tensor([torch.randn(4, 6, 6), torch.randn(4, 5, 5)])
    quantised = torch.quantize_per_tensor(input, 0.1, 0, torch.quint8)
    return {
        "mixed dtypes": ((input, weight.half(), None), {}, "weight is of torch.float16, but input is of torch.float32"),
        "integers": ((input.long(), weight.long(), None), {}, "input is of torch.int64"),
        "complex": ((input.to(torch.complex64), weight, None), {}, "input is of torch.complex64"),
        "quantised": ((quantised, weight, None), {}, "quantised"),
        "sparse": ((input.to_sparse(), weight, None), {}, "sparse"),
        "mkldnn": ((input.to_mkldnn(), weight, None), {}, "mkldnn"),
        "nested": ((nested, weight, None), {}, "nested"),
        "bias of another size": ((input, weight, torch.randn(5)), {}, "bias has shape"),
        "too few dimensions": ((torch.randn(6, 6), weight, None), {}, "must be"),
        "weight of another rank": ((input, weight[0], None), {}, "weight must be"),
        "channels": ((input[:, :3], weight, None), {}, "3 channels"),
        "groups": ((input, weight[:, :2], None), {"groups": 4}, "groups 4"),
        "output channels and groups": ((input, weight[:5, :2], None), {"groups": 2}, "do not divide"),
        "window larger than the image": ((input[..., :2], weight, None), {}, "smaller than the dilated kernel"),
        "zero-sized channels": ((input[:, :0], weight[:, :0], None), {}, "zero-sized"),
        "zero-sized image": ((input[..., :0], weight, None), {"padding": (2, 2, 2, 2)}, "zero-sized"),
        "stride 0": ((input, weight, None), {"stride": (0, 1)}, "stride must be positive"),
        "negative padding": ((input, weight, None), {"padding": (-1, 0, 0, 0)}, "padding must not be negative"),
        "dilation 0": ((input, weight, None), {"dilation": (1, 0)}, "dilation must be positive"),
        "two devices": ((input, weight.to("meta"), None), {}, "is on meta, but input is on cpu"),
    }


@pytest.mark.parametrize("case", refused_operands())
def test_what_conv2d_refuses_gets_one_sentence(case: str) -> None:
    operands, options, sentence = refused_operands()[case]
    with pytest.raises((RuntimeError, TypeError), match=sentence) as error:
        ops.conv2d(*operands, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("input", "weight", "sentence"),
    [
        (torch.randn(2, 6), torch.randn(5, 7), "last dimension is 6"),
        (torch.randn(2, 7).long(), torch.randn(5, 7), "input is of torch.int64"),
        (torch.tensor(1.0), torch.randn(5, 1), "at least one dimension"),
        (torch.randn(2, 0), torch.randn(5, 0), "zero-sized"),
        (torch.randn(2, 7), torch.randn(7), "weight must be"),
    ],
)
def test_what_linear_refuses_gets_one_sentence(input: Tensor, weight: Tensor, sentence: str) -> None:
    with pytest.raises((RuntimeError, TypeError), match=sentence) as error:
        ops.linear(input, weight)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("input", "weight"),
    [((2, 3, 4), (3, 4, 5)), ((2, 3, 4), (2, 5, 4)), ((3, 4), (4, 5)), ((2, 3, 4), (4, 5))],
)
def test_what_matmul_refuses_gets_one_sentence(input: tuple[int, ...], weight: tuple[int, ...]) -> None:
    with pytest.raises(RuntimeError, match="do not fit together"):
        ops.matmul(torch.randn(input), torch.randn(weight))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_dtypes_are_summed_in_float32_and_rounded_once(dtype: torch.dtype) -> None:
    input, weight, bias = (torch.randn(shape).to(dtype) for shape in ((7, 300), (5, 300), (5,)))
    output, counters = ops.linear(input, weight, bias)
    exact = torch.nn.functional.linear(input.double(), weight.double(), bias.double())
    assert output.dtype == dtype
    # float32's own error is far below half a unit in the last place of the narrow type, but for exact ties.
    assert ((output.double() - exact).abs() <= (exact.to(dtype).double() - exact).abs() + 1e-4).all()
    assert counters.tolist()[:2] == [7 * 5 * 300, 7 * 5 * 300]


def test_matmul_agrees_with_torch() -> None:
    a, b = torch.randn(3, 5, 7), torch.randn(3, 7, 11)
    output, counters = ops.matmul(a, b)
    torch.testing.assert_close(output, a @ b)
    assert counters.tolist()[:2] == [3 * 5 * 11 * 7, 3 * 5 * 11 * 6]

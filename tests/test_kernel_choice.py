"""The choice of a kernel for a device that is described, not there: its waves, and that it heeds what it is told."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from fractions import Fraction

import pytest
import torch

import flopcuda
from flopcuda import _C
from flopcuda.ops import Device, KernelChoice, choose_kernel

A100 = Device(108, _C.device_rates(80), [])


def choose_linear(rows: int, inputs: int, outputs: int, device: Device = A100, **more: object) -> KernelChoice:
    operands = torch.empty(rows, inputs, device="meta"), torch.empty(outputs, inputs, device="meta")
    return choose_kernel("linear", *operands, None, device=device, **more)


def busiest_by_dealing(blocks: int, multiprocessors: int) -> int:
    """Blocks of the multiprocessor that has most when each block goes to the one that has fewest."""
    held = [0] * multiprocessors
    for _ in range(blocks):
        held[held.index(min(held))] += 1
    return max(held)


def test_wave_efficiency_is_that_of_blocks_dealt_out_one_by_one() -> None:
    generator = random.Random(0)
    for _ in range(40):
        device = Device(generator.randint(1, 40), A100.rates, [])
        choice = choose_linear(generator.randint(1, 600), 8, generator.randint(1, 600), device)
        busiest = busiest_by_dealing(choice.blocks, device.multiprocessors)
        expected = Fraction(choice.blocks, busiest * device.multiprocessors)
        assert choice.wave_efficiency == pytest.approx(float(expected), rel=1e-12)


def test_the_tile_depends_on_how_many_multiprocessors_there_are() -> None:
    """Sixteen tiles of 128 x 128 keep 16 multiprocessors busy, and leave 92 of 108 idle."""
    assert choose_linear(512, 128, 512, Device(16, A100.rates, [])).name == "flopcuda_linear_f32_128x128x16"
    assert choose_linear(512, 128, 512).name == "flopcuda_linear_f32_64x64x16"


def test_the_tile_depends_on_how_fast_the_device_issues() -> None:
    """Small tiles waste fewer lanes here, but issue more of other instructions.

    These cost nothing where a multiply-add occupies its unit for two cycles.
    """
    two_cycles, one_cycle = (Device(108, _C.device_rates(capability), []) for capability in (80, 86))
    assert choose_linear(684, 128, 3840, two_cycles).name == "flopcuda_linear_f32_64x64x16"
    assert choose_linear(684, 128, 3840, one_cycle).name == "flopcuda_linear_f32_128x128x16"


def test_a_long_reduction_of_few_outputs_is_split_to_fill_the_device() -> None:
    """One row of 1000 outputs is 8 tiles; a weight's gradient of 64 x 64 is one."""
    for problem in ((1, 4096, 1000), (64, 100_000, 64), (256, 2048, 1000)):
        choice = choose_linear(*problem)
        assert choice.name.endswith("_split")
        assert choice.wave_efficiency > 0.5
        plain = choose_linear(*problem, kernel=choice.name.removesuffix("_split"))
        assert (plain.splits, plain.blocks * choice.splits) == (1, choice.blocks)


@pytest.mark.parametrize("dtype", [torch.float32, torch.half, torch.float64], ids=str)
@pytest.mark.parametrize(
    ("images", "filters", "padding"),
    [
        # Layers of ResNet-50's last stage, of one image.
        ((1, 512, 7, 7), (512, 512, 3, 3), 1),
        ((1, 2048, 7, 7), (512, 2048, 1, 1), 0),
        # The gradient of a weight of its first stage: images are channels, outputs taps.
        ((64, 32, 58, 58), (64, 32, 56, 56), 0),
    ],
)
def test_convolutions_of_few_outputs_are_split(
    images: tuple[int, ...], filters: tuple[int, ...], padding: int, dtype: torch.dtype
) -> None:
    operands = [torch.empty(shape, device="meta", dtype=dtype) for shape in (images, filters)]
    options = {"device": A100, "padding": (padding,) * 4}
    choice = choose_kernel("conv2d", *operands, None, **options)
    assert choice.name.endswith("_split")
    assert choice.splits > 1
    plain = choose_kernel("conv2d", *operands, None, kernel=choice.name.removesuffix("_split"), **options)
    assert plain.blocks * choice.splits == choice.blocks
    assert choice.wave_efficiency > 2 * plain.wave_efficiency


def test_convolutions_of_many_outputs_or_few_products_are_not_split() -> None:
    for images, filters in (((32, 256, 56, 56), (256, 256, 3, 3)), ((1, 4, 9, 9), (8, 4, 1, 1))):
        operands = torch.empty(images, device="meta"), torch.empty(filters, device="meta")
        assert choose_kernel("conv2d", *operands, None, device=A100).splits == 1


def test_what_fills_the_device_or_is_short_is_not_split() -> None:
    for problem in ((4096, 4096, 4096), (1, 16, 1000), (0, 4096, 8)):
        choice = choose_linear(*problem)
        assert (choice.name.endswith("_split"), choice.splits) == (False, 1)


def test_what_counts_zeros_is_not_split() -> None:
    operands = torch.empty(1, 64, 9000, device="meta"), torch.empty(1, 9000, 64, device="meta")
    assert choose_kernel("matmul", *operands, None, device=A100).splits > 1
    assert choose_kernel("matmul", *operands, None, device=A100, count_zero=True).splits == 1


@pytest.mark.parametrize("triangle", ["output", "input", "upper_input"])
def test_the_reduction_of_a_triangle_is_split_where_it_is_long(triangle: str) -> None:
    def splits(rows: int, depth: int) -> int:
        operands = torch.empty(1, rows, depth, device="meta"), torch.empty(1, depth, 64, device="meta")
        return choose_kernel("matmul", *operands, None, device=A100, triangle=triangle).splits

    assert splits(2048, 2048) > 1
    # Of a lower triangle, no row has more products than there are rows.
    assert (splits(64, 9000) > 4) == (triangle != "input")
    assert splits(8192, 16) == 1


@pytest.mark.parametrize("splits", [1, 3, 8])
def test_blocks_of_a_triangle_are_those_that_multiply(splits: int) -> None:
    uses = {
        "output": lambda row, column, product: column <= row,
        "input": lambda row, column, product: product <= row,
        "upper_input": lambda row, column, product: product >= row,
    }
    sizes = batch, rows, depth, columns = 3, 300, 130, 200
    operands = torch.empty(batch, rows, depth, device="meta"), torch.empty(batch, depth, columns, device="meta")
    kernel = "flopcuda_linear_f32_64x64x16" + ("_split" if splits > 1 else "")
    for triangle, is_used in uses.items():
        options = {"kernel": kernel, "triangle": triangle, "splits": splits}
        choice = choose_kernel("matmul", *operands, None, device=A100, **options)
        places = itertools.product(*map(range, sizes[1:]))
        used = {
            (row // 64, column // 64, product // 16) for row, product, column in places if is_used(row, column, product)
        }
        slices = Counter((row, column) for row, column, _ in used)
        assert choice.blocks == batch * sum(min(count, splits) for count in slices.values())


def test_sums_that_memory_would_move_for_nothing_are_not_split() -> None:
    """Where all wait for memory anyway, nothing is gained by more blocks."""
    slow_memory = Device(108, A100.rates, [], memory_bytes=0.1)
    assert choose_linear(256, 2048, 1000, slow_memory).splits == 1
    with pytest.raises(ValueError, match="a device's memory moves some bytes in a cycle, not 0"):
        choose_linear(256, 2048, 1000, Device(108, A100.rates, [], memory_bytes=0.0))
    with pytest.raises(ValueError, match="a launch takes some cycles or none, not -1"):
        choose_linear(256, 2048, 1000, Device(108, A100.rates, [], launch_cycles=-1.0))


@pytest.mark.parametrize(("capability", "has_tensor_cores"), [(80, True), (86, False), (89, False), (90, True)])
def test_tensor_cores_multiply_float64_where_there_are_such(capability: int, has_tensor_cores: bool) -> None:
    device = Device(108, _C.device_rates(capability), [])
    operands = [torch.empty(1024, 1024, device="meta", dtype=torch.float64) for _ in range(2)]
    assert ("_mma_" in choose_kernel("linear", *operands, None, device=device).name) == has_tensor_cores


@pytest.mark.parametrize("side", [3, 56])
def test_tensor_cores_take_large_kernels_too(side: int) -> None:
    """The gradient of a weight is a convolution with as many taps as the layer has outputs in an image."""
    images = torch.empty(64, 32, side + 2, side + 2, device="meta", dtype=torch.half)
    filters = torch.empty(64, 32, side, side, device="meta", dtype=torch.half)
    kernel = choose_kernel("conv2d", images, filters, None, device=A100).name
    assert kernel.startswith("flopcuda_conv_f16_")
    assert ("_many_taps" in kernel) == (side == 56)


@pytest.mark.parametrize(
    ("channels", "kernel", "stride", "image", "segments"),
    [
        (3, 16, 16, 224, 1),  # as much as 24 slices of 32 products
        (3, 7, 2, 224, 49),  # windows overlap
        (64, 2, 2, 56, 4),  # taps fill slices as they are
        (48, 2, 2, 56, 1),
        (3, 4, 4, 57, 1),  # a rest that no window reaches
        (512, 7, 1, 7, 49),
        (20, 7, 1, 7, 1),
    ],
)
def test_taps_of_patches_are_channels_where_these_fill_no_slice(
    channels: int, kernel: int, stride: int, image: int, segments: int
) -> None:
    images = torch.empty(32, channels, image, image, device="meta", dtype=torch.half)
    filters = torch.empty(256, channels, kernel, kernel, device="meta", dtype=torch.half)
    options = {"device": A100, "stride": (stride, stride)}
    on_tensor_cores = {"kernel": "flopcuda_conv_f16_128x128x32_many_taps", **options}
    assert choose_kernel("conv2d", images, filters, None, **on_tensor_cores).segments == segments
    on_others = {"kernel": "flopcuda_conv_f32_64x64x16", **options}
    assert choose_kernel("conv2d", images, filters, None, **on_others).segments == 1


@pytest.mark.parametrize(
    ("channels", "kernel", "stride", "outputs", "is_worth_it"),
    [
        (3, 7, 2, 64, True),  # the first layers of ResNet,
        (3, 3, 1, 64, True),  # VGG,
        (3, 3, 2, 32, True),  # and MobileNet
        (16, 3, 1, 16, False),  # a third of the slices is not worth three times the images
        (16, 3, 1, 512, True),  # unless there are many outputs
        (32, 3, 1, 512, False),  # taps fill slices as they are
    ],
)
def test_taps_of_the_width_are_channels_where_that_saves_time(
    channels: int, kernel: int, stride: int, outputs: int, is_worth_it: bool
) -> None:
    images = torch.empty(32, channels, 64, 64, device="meta", dtype=torch.half)
    filters = torch.empty(outputs, channels, kernel, kernel, device="meta", dtype=torch.half)
    device = Device(108, A100.rates, [], memory_bytes=2039 / 1.41 / 108, launch_cycles=1269)
    options = {"device": device, "stride": (stride, stride), "padding": (kernel // 2,) * 4}
    name, side = "flopcuda_conv_f16_64x64x32", 64 // stride
    assert choose_kernel("conv2d", images, filters, None, kernel=name, **options).gathers_width == is_worth_it
    apart, gathered = (
        choose_kernel("conv2d", images, filters, None, kernel=name, gathers_width=gathers, **options)
        for gathers in (False, True)
    )
    assert (apart.segments, gathered.segments) == (kernel**2, kernel)
    assert (apart.stored_inputs, apart.padded_inputs) == (32 * 64 * 64 * -(-channels // 8) * 8, 0)
    assert gathered.stored_inputs == 32 * 64 * side * -(-channels * kernel // 8) * 8
    assert gathered.padded_inputs == 32 * channels * 64 * ((side - 1) * stride + kernel)


@pytest.mark.parametrize(
    ("kernel", "side"),
    [("f16_64x64x32_many_taps", 3), ("f16_64x64x32_split", 3), ("f32_64x64x16", 3), ("f16_64x64x32", 1)],
)
def test_taps_that_no_kernel_can_take_as_channels_are_refused(kernel: str, side: int) -> None:
    """Only kernels that know taps by bits count the padding of such a width, and only of whole sums."""
    images, filters = (torch.empty(8, 3, size, size, device="meta", dtype=torch.half) for size in (9, side))
    named = {"kernel": f"flopcuda_conv_{kernel}", "device": A100, "padding": (1, 1, 1, 1)}
    assert not choose_kernel("conv2d", images, filters, None, **named).gathers_width
    with pytest.raises(ValueError, match=f"{kernel} does not take the taps of this width as channels"):
        choose_kernel("conv2d", images, filters, None, gathers_width=True, **named)


def test_a_copy_into_another_type_or_layout_is_a_part_of_the_choice() -> None:
    """A convolution of float32 is multiplied as TF32 where that saves more than copies of its tensors cost."""
    operands = torch.empty(8, 64, 16, 16, device="meta"), torch.empty(64, 64, 3, 3, device="meta")
    for launch_cycles, dtype in ((0, "tf32"), (100_000, "f32")):
        device = Device(108, A100.rates, [], launch_cycles=launch_cycles)
        choice = choose_kernel("conv2d", *operands, None, device=device, allow_tf32=True)
        assert choice.name.startswith(f"flopcuda_conv_{dtype}_")


def test_a_named_kernel_is_described_and_must_fit() -> None:
    choice = choose_linear(256, 64, 256, kernel="flopcuda_linear_f32_128x128x16")
    assert choice == KernelChoice("flopcuda_linear_f32_128x128x16", 1, 4, 4 / 108, stored_inputs=256 * 64)
    split = choose_linear(256, 64, 256, kernel="flopcuda_linear_f32_128x128x16_split", splits=3)
    assert split == KernelChoice("flopcuda_linear_f32_128x128x16_split", 3, 12, 12 / 108, stored_inputs=256 * 64)
    with pytest.raises(ValueError, match="is a kernel of another operation"):
        choose_linear(256, 64, 256, kernel="flopcuda_conv_f32_direct")
    with pytest.raises(RuntimeError, match="no CUDA kernel named nothing"):
        choose_linear(256, 64, 256, kernel="nothing")
    with pytest.raises(ValueError, match="a launch is as one kernel can make it, but none is named"):
        choose_linear(256, 64, 256, splits=2)
    with pytest.raises(ValueError, match="128x128x16 has no taps"):
        choose_linear(256, 64, 256, kernel="flopcuda_linear_f32_128x128x16", gathers_width=True)


@pytest.mark.parametrize(("kernel", "most"), [("64x64x16", 1), ("64x64x16_split", 4)])
@pytest.mark.parametrize("splits", [-1, 0, 5, 2**40])
def test_a_reduction_has_as_many_parts_as_slices_at_most(kernel: str, most: int, splits: int) -> None:
    with pytest.raises(ValueError, match=f"{kernel} splits this reduction into 1 to {most} parts, not"):
        choose_linear(8, 64, 8, kernel=f"flopcuda_linear_f32_{kernel}", splits=splits)


def test_a_device_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="a device has 1 to 2147483647 multiprocessors and 5 rates, not 8 and 1"):
        choose_linear(8, 8, 8, Device(8, [64.0], []))


def test_rates_of_an_unknown_capability_are_those_of_the_last_known_one() -> None:
    assert _C.device_rates(88) == _C.device_rates(87)
    assert _C.device_rates(130) == _C.device_rates(120)


def test_a_window_that_begins_too_far_before_its_image_is_left_to_the_direct_kernel() -> None:
    """The others count from its first input in 32 bits."""
    images, filters = torch.empty(1, 1, 2, 2**16, device="meta"), torch.empty(1, 1, 1, 1, device="meta")
    options = {"stride": (2**16, 2**16), "padding": (0, 0, 2**16, 0), "device": A100}
    assert choose_kernel("conv2d", images, filters, None, **options).name == "flopcuda_conv_f32_direct"
    with pytest.raises(ValueError, match=f"64x64x16 would need offsets of up to {2**32} elements"):
        choose_kernel("conv2d", images, filters, None, kernel="flopcuda_conv_f32_64x64x16", **options)


def test_before_8_0_no_kernel_is_for_tensor_cores() -> None:
    device = Device(40, _C.device_rates(75), [])
    halves = [torch.empty(1024, 1024, device="meta", dtype=torch.half) for _ in range(2)]
    assert choose_kernel("linear", *halves, None, device=device).name.startswith("flopcuda_linear_f32_")
    with pytest.raises(ValueError, match=r"f16_128x128x32 needs the tensor cores of GPUs from 8\.0 on"):
        choose_kernel("linear", *halves, None, device=device, kernel="flopcuda_linear_f16_128x128x32")


def test_a_launch_on_the_cpu_has_no_waves() -> None:
    with flopcuda.instrument(torch.nn.Linear(8, 8)) as session:
        session.model(torch.ones(2, 8))
    report = session.report()
    assert report.launches[0].wave_efficiency is None
    assert report.total.wave_efficiency is None

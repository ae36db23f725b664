"""The cost model: against published peaks, exact arithmetic, a simulation, and all kernels that could be chosen."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from math import prod
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import flopcuda
from benchmarks.attention import Attention
from flopcuda import _C
from flopcuda.ops import KernelChoice, choose_kernel
from flopcuda.prediction import GPU, GPUS, Tiling, Work, predict, predict_time
from flopcuda.prediction.layers import conversion_seconds, device_of, tiling_of, work_of
from flopcuda.prediction.model import (
    BANDWIDTH_SHARE,
    FILL_LATENCY,
    LAUNCH_SECONDS,
    SLICE_LATENCY,
    Load,
    load_of,
    memory_bytes,
    roofline,
)

# As NVIDIA's data sheets and whitepapers print them, dense, in TFLOPS.
PEAKS = {
    ("a100", "fma_f32"): 19.5,
    ("a100", "fma_f64"): 9.7,
    ("a100", "mma_f16"): 312,
    ("a100", "mma_tf32"): 156,
    ("a100", "mma_f64"): 19.5,
    ("h100", "fma_f32"): 66.9,
    ("h100", "fma_f64"): 33.5,
    ("h100", "mma_f16"): 989.4 * 0.63,  # what mma.sync reaches
    ("h100", "mma_f64"): 66.9,
    ("l4", "fma_f32"): 30.3,
    ("l4", "mma_f16"): 121,
    ("l4", "mma_tf32"): 60,
    ("rtx4090", "fma_f32"): 82.6,
    ("rtx4090", "mma_f16"): 165.2,
    ("rtx4090", "mma_tf32"): 82.6,
}

TOY = GPU("toy", "sm_80", 2, 1.0, 1.0, 1000.0, 10_000)
KERNEL = Tiling("toy", (64, 64, 16), "fma_f32", 0.25, 2)
SIZES = st.integers(1, 2000)


def work(rows: int, columns: int, reduction: int, groups: int = 1, rows_first: bool = False) -> Work:
    """A product in float32."""
    row_bytes, column_bytes, output_bytes = (
        4 * groups * size for size in (rows * reduction, columns * reduction, rows * columns)
    )
    return Work(groups, rows, columns, reduction, row_bytes, column_bytes, output_bytes, rows_first)


@pytest.mark.parametrize(("name", "unit"), PEAKS)
def test_peaks_are_the_published_ones(name: str, unit: str) -> None:
    assert 2 * GPUS[name].multiply_adds_per_second(unit) / 1e12 == pytest.approx(PEAKS[name, unit], rel=0.01)


def test_a_time_worked_by_hand() -> None:
    """Two multiprocessors, 5 tiles of 64 x 64 over 100 products: a wave of 4 blocks and one alone.

    A slice has 64 * 64 * 16 = 65,536 multiply-adds: 1,024 cycles of a unit of 64, but 2,048 FFMA of a warp in 8,192
    instructions, which take four schedulers 2,048 cycles. There are 7 slices.
    """
    time = predict_time(work(64, 300, 100), KERNEL, TOY)
    pair = FILL_LATENCY + 7 * 2 * 2048
    alone = FILL_LATENCY + 7 * (2048 + SLICE_LATENCY)
    assert time.blocks == 5
    assert time.compute == pair + alone
    assert time.ideal == Fraction(5, 2) * 7 * 2048
    assert time.wave_efficiency == pytest.approx(Fraction(5, 6))
    assert time.bytes == 4 * (6400 + 30_000 + 19_200) + 2 * 0  # one row of tiles: nothing is read anew
    assert time.memory == pytest.approx(time.bytes / (1000 * BANDWIDTH_SHARE))
    assert time.seconds == pytest.approx(LAUNCH_SECONDS + pair + alone)
    assert time.bound_by == "compute"


def test_a_split_reduction_worked_by_hand() -> None:
    """7 slices in 3 parts are 3, 2 and 2. Two tiles of 16,384 bytes are 6 blocks: a pair on each multiprocessor,
    and two more.

    Each multiprocessor writes the sums of 3 blocks, and then reads the three parts of its tile.
    """
    time = predict_time(work(64, 128, 100), KERNEL, TOY, splits=3)
    pair, alone = FILL_LATENCY + 3 * 2 * 2048, FILL_LATENCY + 3 * (2048 + SLICE_LATENCY)
    combining = 3 * 270 + 6 * 16_384 / (5120 / 108)
    assert time.blocks == 6
    assert time.compute == pytest.approx(pair + alone + combining)
    assert time.wave_efficiency == 1
    sums = 6 * 16_384  # more than L2 holds
    assert time.bytes == work(64, 128, 100).bytes + 2 * sums
    assert memory_bytes(work(64, 128, 100), KERNEL, replace(TOY, l2_bytes=sums), 3) == work(64, 128, 100).bytes + sums


@pytest.mark.parametrize(
    ("part_unit", "slices"),
    [
        ("slice", [12, 6, 4, 3, 3, 2]),
        ("slice_of_taps", [18, 9, 9, 9, 9, 9]),
        ("tap", [18, 10, 6, 6, 4, 4]),
    ],
)
def test_slices_of_the_largest_part(part_unit: str, slices: list[int]) -> None:
    """Nine taps of 20 channels are 9 * 2 slices of 16 products where no slice has products of two; else, 12.

    Of so many parts, the largest has so many slices, slices of each tap, or taps: of four, 3, 1 and 3.
    """
    kernel, nine_taps = replace(KERNEL, part_unit=part_unit), replace(work(64, 64, 180), taps=9)
    assert [load_of(nine_taps, kernel, splits).longest for splits in range(1, 7)] == slices


@pytest.mark.parametrize("triangle", ["output", "input", "upper_input"])
@pytest.mark.parametrize("shape", [(512, 512, 512), (130, 300, 70), (300, 70, 130), (1, 200, 200)], ids=str)
@pytest.mark.parametrize("splits", [1, 3, 20])
def test_blocks_and_slices_above_the_diagonal_take_no_time(
    triangle: str, shape: tuple[int, int, int], splits: int
) -> None:
    """Against a loop over all tiles and slices that asks of each whether any of its products is used."""
    rows, columns, reduction = shape
    block_m, block_n, block_k = KERNEL.tile
    slices = []
    for row, column in itertools.product(range(0, rows, block_m), range(0, columns, block_n)):
        last = min(row + block_m, rows) - 1
        firsts = range(0, reduction, block_k)
        used = {
            "output": [column <= last for _ in firsts],
            "input": [first <= last for first in firsts],
            # Slices are counted from the block's first row on.
            "upper_input": [True for _ in range(row, reduction, block_k)],
        }
        slices.append(sum(used[triangle]))
    load = load_of(replace(work(rows, columns, reduction, groups=3), triangle=triangle), KERNEL, splits)
    parts = [len(range(count)[part::splits]) for count in slices for part in range(splits)]
    assert load == Load(3 * sum(length > 0 for length in parts), 3 * sum(slices), max(parts))


def test_a_triangle_takes_half_the_time_of_many_blocks() -> None:
    dense = work(4096, 4096, 4096)
    whole = predict_time(dense, KERNEL, TOY)
    for triangle in ("output", "input", "upper_input"):
        half = predict_time(replace(dense, triangle=triangle), KERNEL, TOY)
        assert half.blocks == (64 * 65 / 2 if triangle == "output" else whole.blocks)
        assert half.compute / whole.compute == pytest.approx(65 / 128, rel=0.01)


def test_an_operand_that_l2_does_not_hold_is_read_in_each_wave() -> None:
    """5 x 2 blocks in waves of 4: the operand of the columns, 12,800 bytes, is read three times."""
    problem = work(320, 100, 32)
    assert memory_bytes(problem, KERNEL, TOY) == problem.bytes + 2 * 12_800
    assert memory_bytes(problem, KERNEL, replace(TOY, l2_bytes=12_800)) == problem.bytes
    # Along the rows first, 40,960 bytes are read once for each of two columns of tiles, fewer than waves.
    rows_first = replace(problem, rows_first=True)
    assert memory_bytes(rows_first, KERNEL, TOY) == problem.bytes + 40_960


@pytest.mark.parametrize(
    ("change", "bound"),
    [
        ({"hertz": 1e15, "bandwidth": 1e15}, "launch"),
        ({"hertz": 1e15}, "memory"),
        ({"multiprocessors": 100}, "waves"),
        ({}, "compute"),
    ],
)
def test_what_bounds_a_launch(change: dict[str, Any], bound: str) -> None:
    assert predict_time(work(64, 300, 100), KERNEL, replace(TOY, **change)).bound_by == bound


def cycles_by_simulation(blocks: int, multiprocessors: int, resident: int, slices: int, busy: float) -> float:
    """Wave after wave, each dealt out block by block; a wave ends with its slowest multiprocessor."""
    total = 0.0
    while blocks:
        held = [0] * multiprocessors
        for place in range(min(blocks, multiprocessors * resident)):
            held[place % multiprocessors] += 1
        blocks -= sum(held)
        times = []
        for count in filter(None, held):
            time = float(FILL_LATENCY)
            for _ in range(slices):
                time += busy + SLICE_LATENCY if busy + SLICE_LATENCY > count * busy else count * busy
            times.append(time)
        total += max(times)
    return total


@given(st.integers(1, 300), st.integers(1, 12), st.integers(1, 5), st.integers(1, 9))
@settings(max_examples=200, deadline=None)
def test_the_staircase_of_waves_is_a_simulations(blocks: int, multiprocessors: int, resident: int, slices: int) -> None:
    gpu = replace(TOY, multiprocessors=multiprocessors)
    kernel = replace(KERNEL, resident=resident, multiply_share=1.0)
    time = predict_time(work(64, 64 * blocks, 16 * slices), kernel, gpu)
    assert time.compute == pytest.approx(cycles_by_simulation(blocks, multiprocessors, resident, slices, 1024.0))


@given(SIZES, SIZES, SIZES, st.sampled_from(sorted(GPUS)), st.integers(0, 2), st.integers(1, 500), st.booleans())
@settings(max_examples=300, deadline=None)
def test_more_work_takes_no_less_time_and_none_beats_the_roofline(
    rows: int, columns: int, reduction: int, name: str, axis: int, more: int, rows_first: bool
) -> None:
    gpu, kernel = GPUS[name], replace(KERNEL, multiply_share=0.9)
    sizes = [rows, columns, reduction]
    before = work(rows, columns, reduction, rows_first=rows_first)
    sizes[axis] += more
    after = work(*sizes, rows_first=rows_first)
    assert predict_time(before, kernel, gpu).seconds <= predict_time(after, kernel, gpu).seconds
    assert predict_time(before, kernel, gpu).seconds >= roofline(before, kernel.unit, gpu)


def test_nothing_to_compute_takes_no_time() -> None:
    assert predict_time(work(0, 8, 8), KERNEL, TOY).seconds == 0


def test_what_a_gpu_cannot_run_is_refused() -> None:
    with pytest.raises(ValueError, match="toy: L4 has no unit mma_f64"):
        predict_time(work(8, 8, 8), replace(KERNEL, unit="mma_f64"), GPUS["l4"])
    with pytest.raises(ValueError, match="toy: a multiprocessor of L4 cannot hold a block"):
        predict_time(work(8, 8, 8), replace(KERNEL, resident=0), GPUS["l4"])


class Mixed(nn.Module):
    """A grouped convolution, a depthwise one, a product of matrices, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.grouped = nn.Conv2d(6, 8, 3, padding=1, groups=2)
        self.depthwise = nn.Conv2d(8, 8, 3, groups=8)
        self.head = nn.Linear(8, 5)
        self.twin = self.head

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.depthwise(self.grouped(images)).flatten(2).transpose(1, 2)
        return self.twin(features @ (features.transpose(1, 2) @ features))


class Causal(nn.Module):
    """Attention to what came before."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.scaled_dot_product_attention(x, x, x[:, :7, :3], is_causal=True)


@pytest.mark.parametrize(
    ("model", "images"), [(Mixed(), torch.randn(3, 6, 9, 7)), (Causal(), torch.randn(2, 7, 5))], ids=["mixed", "causal"]
)
def test_what_is_predicted_is_what_would_be_counted(model: nn.Module, images: torch.Tensor) -> None:
    before = {name: (tensor.device, tensor.clone()) for name, tensor in model.state_dict().items()}
    prediction = predict(model, images, GPUS["a100"])
    with flopcuda.instrument(model) as session:
        model(images)
    counted = session.report().launches
    for layer, launch in zip(prediction.layers, counted, strict=True):
        assert (layer.module, layer.op, layer.output_shape) == (launch.module, launch.op, launch.output_shape)
        assert layer.work.multiply_adds == launch.counters.mul
        numbers = [prod(shape) for shape in (launch.input_shape, launch.weight_shape, launch.output_shape)]
        if launch.input_shape == (2, 7, 7):  # weights of causal attention, of which the triangle is read
            numbers[0] = 2 * (1 + 2 + 3 + 4 + 5 + 6 + 7)
        assert layer.work.bytes == 4 * sum(numbers)
    assert prediction.multiply_adds == session.report().total.macs
    for name, tensor in model.state_dict().items():
        assert before[name][0] == tensor.device
        assert torch.equal(before[name][1], tensor)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", GPUS)
def test_blocks_are_those_of_the_planner(name: str, dtype: torch.dtype) -> None:
    images = torch.empty(3, 6, 9, 7, device="meta", dtype=dtype)
    for layer in predict(Mixed().to(dtype), images, GPUS[name]).layers:
        shapes = layer.input_shape, layer.weight_shape
        input, weight = (torch.empty(shape, device="meta", dtype=dtype) for shape in shapes)
        options = {"padding": (1, 1, 1, 1), "groups": 2} if layer.module == "grouped" else {}
        options = {"groups": 8} if layer.module == "depthwise" else options
        choice = choose_kernel(layer.op, input, weight, None, device=device_of(GPUS[name]), **options)
        assert (choice.name, choice.blocks) == (layer.kernel, layer.time.blocks)
        assert choice.wave_efficiency == pytest.approx(layer.time.wave_efficiency)


def test_a_model_without_counted_layers_is_refused() -> None:
    with pytest.raises(ValueError, match="ReLU ran no layer whose time could be predicted"):
        predict(nn.ReLU(), torch.ones(2), GPUS["l4"])


def test_tensors_that_the_kernel_takes_otherwise_are_converted() -> None:
    """On tensor cores, all but the bias get their channels last; elsewhere, 16 bits become 32."""
    images = torch.empty(2, 32, 5, 5, device="meta", dtype=torch.half)
    (narrow,) = predict(nn.Conv2d(32, 16, 3, dtype=torch.half), images, GPUS["a100"]).layers
    numbers = [2 * 32 * 5 * 5, 16 * 32 * 3 * 3, 2 * 16 * 3 * 3]
    if narrow.unit == "fma_f32":
        expected = 4 * LAUNCH_SECONDS + (sum(numbers) + 16) * (2 + 4) / 2.039e12
    else:
        expected = 3 * LAUNCH_SECONDS + sum(numbers) * (2 + 2) / 2.039e12
    assert narrow.conversion == pytest.approx(expected)
    assert narrow.seconds == narrow.time.seconds + narrow.conversion
    assert predict(nn.Conv2d(32, 16, 3), images.float(), GPUS["a100"]).layers[0].conversion == 0


def test_taps_that_become_channels_are_copied_and_read() -> None:
    """ResNet's first layer: zeros surround the width, and each of its windows is stored, 7 taps of 3 channels."""
    images = torch.empty(2, 3, 224, 224, device="meta", dtype=torch.half)
    (layer,) = predict(nn.Conv2d(3, 64, 7, 2, 3, bias=False, dtype=torch.half), images, GPUS["a100"]).layers
    assert layer.unit == "mma_f16"
    padded, stored = 2 * 3 * 224 * (111 * 2 + 7), 2 * 224 * 112 * 24
    copies = images.numel() + padded, padded + stored, 2 * 64 * 3 * 7 * 7, 2 * 2 * 64 * 112 * 112
    assert layer.conversion == pytest.approx(4 * LAUNCH_SECONDS + 2 * sum(copies) / 2.039e12)
    assert layer.time.bytes == layer.work.bytes + 2 * (stored - images.numel())
    assert layer.work.bytes == 2 * (images.numel() + 64 * 3 * 7 * 7 + 2 * 64 * 112 * 112)


def test_float32_is_tf32_where_torch_is_set_to() -> None:
    """cuDNN's setting is for convolutions, cuBLAS's for products; bytes stay those of float32."""
    model = nn.Sequential(nn.Conv2d(64, 64, 3), nn.Flatten(), nn.Linear(64 * 14 * 14, 32))
    images = torch.empty(64, 64, 16, 16, device="meta")

    def types() -> list[str]:
        return [layer.kernel.split("_")[2] for layer in predict(model, images, GPUS["a100"]).layers]

    assert types() == ["f32", "f32"]
    torch._C._set_cudnn_allow_tf32(True)
    assert types() == ["tf32", "f32"]
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        assert types() == ["tf32", "tf32"]
        narrow = predict(model, images, GPUS["a100"]).layers[1]
    finally:
        torch.set_float32_matmul_precision(precision)
    assert narrow.work.bytes == 4 * (64 * 64 * 14 * 14 + 32 * 64 * 14 * 14 + 64 * 32)


Problem = tuple[str, nn.Module, torch.Tensor, dict[str, Any]]


def make_linear(rows: int, inputs: int, outputs: int, dtype: torch.dtype) -> Problem:
    layer = nn.Linear(inputs, outputs, bias=False, device="meta", dtype=dtype)
    return "linear", layer, torch.empty(rows, inputs, device="meta", dtype=dtype), {}


def make_convolution(
    batch: int, inputs: int, side: int, outputs: int, kernel: int, stride: int, groups: int, dtype: torch.dtype
) -> Problem:
    """With the padding that keeps the size of an image."""
    pad = kernel // 2
    layer = nn.Conv2d(inputs, outputs, kernel, stride, pad, 1, groups, bias=False, device="meta", dtype=dtype)
    images = torch.empty(batch, inputs, side, side, device="meta", dtype=dtype)
    return "conv2d", layer, images, {"stride": (stride, stride), "padding": (pad,) * 4, "groups": groups}


def random_problem(generator: random.Random, dtype: torch.dtype) -> Problem:
    def size(bits: int) -> int:
        return int(2 ** generator.uniform(0, bits))

    if generator.random() < 0.5:
        return make_linear(size(13), size(13), size(13), dtype)
    groups = generator.choice([1, 1, 2, 4, 32])
    batch, kernel, stride = generator.choice([1, 2, 8, 32]), generator.choice([1, 3, 5, 7]), generator.choice([1, 2])
    return make_convolution(batch, groups * size(8), 8 * size(4), groups * size(8), kernel, stride, groups, dtype)


def resnet_problems(dtype: torch.dtype) -> list[Problem]:
    shapes = [(3, 224, 64, 7, 2, 1), (64, 56, 64, 3, 1, 1), (64, 56, 256, 1, 1, 1), (256, 28, 512, 1, 2, 1)]
    shapes += [(512, 7, 512, 3, 1, 1), (2048, 7, 512, 1, 1, 1), (128, 28, 128, 3, 1, 32), (144, 56, 144, 3, 1, 144)]
    return [make_convolution(batch, *shape, dtype) for batch in (1, 8, 32) for shape in shapes]


def ways_to_compute(problem: Problem, kernel: str, gpu: GPU) -> Iterator[KernelChoice]:
    """Split in every way; and with every tap on its own, or those of the width as channels."""
    op, layer, images, options = problem
    for gathers_width in (False, True):
        for splits in range(2, 65) if kernel.endswith("_split") else [1]:
            named = {"kernel": kernel, "splits": splits, "gathers_width": gathers_width}
            try:
                yield choose_kernel(op, images, layer.weight, None, device=device_of(gpu), **named, **options)
            except ValueError:
                break  # not for this problem, nor in more parts


def loss_of_choice(problem: Problem, dtypes: Sequence[str], gpu: GPU) -> float:
    """Predicted seconds of what is chosen over those of the best kernel of these types, conversions included."""
    op, layer, images, options = problem
    output, groups = layer(images), options.get("groups", 1)
    (chosen,) = predict(layer, images, gpu).layers
    seconds = []
    for entry in _C.cuda_kernels():
        is_usable = entry["operation"] in op and entry["dtype"] in dtypes and gpu.rates[entry["unit"]]
        if not is_usable or entry["counts_zero"]:
            continue
        tiling = tiling_of(entry["name"], gpu)
        for choice in ways_to_compute(problem, entry["name"], gpu):
            work = work_of(op, (images, layer.weight, None), output, groups, entry, choice)
            time = predict_time(work, tiling, gpu, choice.splits)
            conversion = conversion_seconds(op, (images, layer.weight, output), entry, choice, gpu)
            seconds.append(time.seconds + conversion)
    assert len(seconds) > 1
    return chosen.seconds / min(seconds)


# By the dtype of operands, with TF32 allowed or not: the types that kernels may compute in.
TYPES = {
    (torch.float64, False): ["float64"],
    (torch.float32, False): ["float32"],
    (torch.float32, True): ["float32", "tf32"],
    (torch.float16, False): ["float16", "float32"],
    (torch.bfloat16, False): ["bfloat16", "float32"],
}


def losses_over_a_tenth(problems: Sequence[Problem], dtypes: Sequence[str], gpu: GPU) -> dict[str, float]:
    losses = {
        f"{problem[1]} of {tuple(problem[2].shape)}": loss_of_choice(problem, dtypes, gpu) for problem in problems
    }
    return {problem: loss for problem, loss in losses.items() if loss > 1.1}


@pytest.mark.parametrize(("dtype", "tf32"), TYPES, ids=str)
@pytest.mark.parametrize("name", GPUS)
def test_what_is_chosen_is_within_a_tenth_of_the_best(name: str, dtype: torch.dtype, tf32: bool) -> None:
    torch._C._set_cudnn_allow_tf32(tf32)
    generator = random.Random(0)
    problems = [*resnet_problems(dtype), *(random_problem(generator, dtype) for _ in range(100))]
    products = [problem for problem in problems if problem[0] == "linear"]
    convolutions = [problem for problem in problems if problem[0] != "linear"]
    assert losses_over_a_tenth(products, TYPES[dtype, False], GPUS[name]) == {}
    assert losses_over_a_tenth(convolutions, TYPES[dtype, tf32], GPUS[name]) == {}


FIRST_LAYERS = {
    "ResNet": (3, 224, 64, 7, 2),
    "VGG": (3, 224, 64, 3, 1),
    "MobileNet": (3, 224, 32, 3, 2),
    "ResNet of small images": (3, 32, 64, 3, 1),
    "one channel": (1, 224, 64, 5, 1),
    "sixteen channels": (16, 112, 64, 3, 1),
    "eight channels of small images": (8, 32, 16, 3, 1),
}


@pytest.mark.parametrize(("dtype", "tf32"), [(torch.float16, False), (torch.float32, True)], ids=str)
@pytest.mark.parametrize("name", GPUS)
def test_so_are_the_layers_that_have_few_channels(name: str, dtype: torch.dtype, tf32: bool) -> None:
    """Whose images are stored with each tap on its own, or with those of the width as channels, as suits the GPU."""
    torch._C._set_cudnn_allow_tf32(tf32)
    generator = random.Random(0)
    shapes = [(batch, *layer) for batch in (1, 8, 64) for layer in FIRST_LAYERS.values()]
    choices = [(1, 2, 8, 64), range(1, 20), (16, 32, 64, 112, 224), (8, 16, 32, 64, 128, 256), (2, 3, 5, 7), (1, 2)]
    shapes += [tuple(generator.choice(sizes) for sizes in choices) for _ in range(30)]
    problems = [make_convolution(*shape, 1, dtype) for shape in shapes]
    assert losses_over_a_tenth(problems, TYPES[dtype, tf32], GPUS[name]) == {}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize("name", GPUS)
def test_so_are_gradients_of_the_weights_of_depthwise_layers(name: str, dtype: torch.dtype) -> None:
    """Convolutions of a few outputs a channel, by kernels that share the products of each among a block's threads."""
    torch._C._set_cudnn_allow_tf32(False)
    generator = random.Random(0)
    choices = [(1, 2, 8, 32), range(1, 1000), (3, 5, 7, 14, 28, 56, 112), (3, 5, 7), (1, 2)]
    shapes = [(32, 144, 56, 3, 1), (32, 960, 7, 3, 1), (1, 144, 56, 3, 1), (8, 96, 56, 7, 1), (32, 96, 112, 3, 2)]
    shapes += [tuple(generator.choice(sizes) for sizes in choices) for _ in range(15)]
    problems = [gradient_of_depthwise_weight(*shape, dtype) for shape in shapes]
    assert losses_over_a_tenth(problems, TYPES[dtype, False], GPUS[name]) == {}
    (largest,) = predict(problems[0][1], problems[0][2], GPUS[name]).layers
    assert "_few_outputs" in largest.kernel
    assert largest.time.seconds < 1.5 * largest.roofline


def gradient_of_depthwise_weight(
    batch: int, channels: int, side: int, kernel: int, stride: int, dtype: torch.dtype
) -> Problem:
    """Images are its channels, outputs its taps, and the stride their distance; zeros of the padding are given."""
    outputs = -(-side // stride)
    padded = (outputs - 1) * stride + kernel
    layer = nn.Conv2d(
        batch * channels, channels, outputs, dilation=stride, groups=channels, bias=False, device="meta", dtype=dtype
    )
    images = torch.empty(1, batch * channels, padded, padded, device="meta", dtype=dtype)
    return "conv2d", layer, images, {"dilation": (stride, stride), "groups": channels}


def test_gpus_store_images_of_few_channels_otherwise() -> None:
    """Where memory is slow beside the tensor cores, as on an L4, it takes more slices to be worth it."""
    gathering = {"ResNet": {"a100", "h100", "l4", "rtx4090"}, "VGG": {"a100", "h100", "rtx4090"}, "MobileNet": {"a100"}}
    for layer, names in gathering.items():
        _, module, images, _ = make_convolution(8, *FIRST_LAYERS[layer], 1, torch.half)
        gathers = {name: predict(module, images, gpu).layers[0].gathers_width for name, gpu in GPUS.items()}
        assert {name for name in names if not gathers[name]} == set()
        assert gathers["l4"] == (layer == "ResNet")


def loss_of_triangle(sizes: Sequence[int], triangle: str, gpu: GPU) -> float:
    """Predicted seconds of the kernel that is chosen over those of the best, for a batch of causal products."""
    batch, rows, depth, columns = sizes
    first, second = torch.empty(batch, rows, depth, device="meta"), torch.empty(batch, depth, columns, device="meta")
    options = {"device": device_of(gpu), "triangle": triangle}
    chosen = choose_kernel("matmul", first, second, None, **options)
    times = {}
    for entry in _C.cuda_kernels():
        if entry["operation"] != "linear" or entry["counts_zero"] or entry["dtype"] != "float32":
            continue
        work = work_of("matmul", (first, second, None), first @ second, 1, entry, triangle=triangle)
        most = min(-(-depth // entry["tile"][2]), 64) if entry["is_split"] else 1
        for splits in range(1, most + 1):
            choice = choose_kernel("matmul", first, second, None, kernel=entry["name"], splits=splits, **options)
            time = predict_time(work, tiling_of(entry["name"], gpu), gpu, splits)
            assert (choice.blocks, choice.wave_efficiency) == (time.blocks, pytest.approx(time.wave_efficiency))
            times[entry["name"], splits] = time.seconds
    assert len(times) > 1
    return times[chosen.name, chosen.splits] / min(times.values())


@pytest.mark.parametrize("triangle", ["output", "input", "upper_input"])
@pytest.mark.parametrize("name", GPUS)
def test_the_kernel_chosen_for_a_triangle_is_within_a_tenth_of_the_best(name: str, triangle: str) -> None:
    generator = random.Random(0)
    problems = [[2 ** generator.randint(0, limit) for limit in (6, 12, 12, 12)] for _ in range(60)]
    losses = {str(sizes): loss_of_triangle(sizes, triangle, GPUS[name]) for sizes in problems}
    assert {sizes: loss for sizes, loss in losses.items() if loss > 1.1} == {}


@pytest.mark.parametrize("name", GPUS)
def test_causal_attention_takes_no_longer_than_dense(name: str) -> None:
    """Of any length: where tiles are few, a triangle's reduction is split as a dense product's is."""
    slower = {}
    for heads, length in itertools.product((1, 8, 64), (100, 128, 256, 384, 512, 768, 1024, 2048, 4096)):
        factors = [torch.empty(1, heads, length, 64, device="meta") for _ in range(3)]
        causal, dense = (predict(Attention(is_causal), factors, GPUS[name]).seconds for is_causal in (True, False))
        if causal > dense:
            slower[heads, length] = causal / dense
    assert slower == {}

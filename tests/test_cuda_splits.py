"""Reductions that several blocks share, on the PTX machine with all its checks on: outputs, counters, additions.

Outputs are held against float64; counters against brute force and the instructions that were executed.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import flopcuda
from flopcuda import _C, ptx
from flopcuda.ops import Device, choose_kernel
from flopcuda.ptx_backend import MachineBackend, PlannedLaunch, plan
from tests.cpu_kernels.oracle import ConvCase, LinearCase
from tests.cuda_kernels import (
    DTYPES,
    TENSOR_KERNELS,
    Case,
    can_compute,
    check_case,
    counts,
    kernel_texts,
    needs_kernels,
    operator_arguments,
    plan_case,
    reference,
)
from tests.geometries import conv_cases
from tests.patches import Patch, sampled
from tests.ptxvm.harness import needs_nvcc

pytestmark = needs_kernels

ENTRIES = {str(kernel["name"]): kernel for kernel in _C.cuda_kernels() if kernel["is_split"]}
LINEAR_KERNELS = [name for name in ENTRIES if "_linear_" in name]
CONV_KERNELS = [name for name in ENTRIES if "_conv_" in name]
MAX_SPLITS = 64
A_DEVICE = Device(108, _C.device_rates(80), [])

property_settings = settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.fixture(scope="module")
def backend() -> MachineBackend:
    return MachineBackend(ptx.Machine())


def slice_of(kernel: str) -> int:
    """Products of an output between two barriers."""
    return int(ENTRIES[kernel]["tile"][2])


def is_of_few_outputs(kernel: str) -> bool:
    """Whether the threads of a block share the products of its outputs."""
    return int(ENTRIES[kernel]["tile"][0]) == 1


def case_of_units(kernel: str, units: int) -> Case:
    """Several tiles, edges among them, padding, and a reduction of so many units, the last of them no whole slice."""
    products = units * slice_of(kernel) - 3
    if kernel in LINEAR_KERNELS:
        return LinearCase(70, products, 133, bias=True)
    padding = (1, 1, 0, 1)
    if is_of_few_outputs(kernel):
        channels = units * slice_of(kernel) // 4 - 1
        return ConvCase(2, 2 * channels, (9, 8), 6, (2, 2), padding=padding, groups=2, bias=True)
    match ENTRIES[kernel]["part_unit"]:
        case "slice":
            channels = units * slice_of(kernel) // 4 - 1
            return ConvCase(2, 2 * channels, (9, 8), 140, (2, 2), padding=padding, groups=2, bias=True)
        case "tap":
            return ConvCase(2, 10, (9, units // 2 + 7), 140, (2, units // 2), padding=padding, groups=2, bias=True)
        case _:
            return ConvCase(2, 2 * products, (9, 8), 140, (2, 3), padding=padding, groups=2, bias=True)


UNITS = 6


def some_case(kernel: str) -> Case:
    return case_of_units(kernel, UNITS)


def most_parts(kernel: str, case: Case) -> int:
    """Of the case's reduction: slices, or what a convolution has of slices of its channels, or taps."""
    if isinstance(case, LinearCase):
        return min(-(-case.in_features // slice_of(kernel)), MAX_SPLITS)
    taps, products = math.prod(case.kernel), case.in_channels // case.groups * math.prod(case.kernel)
    if kernel in TENSOR_KERNELS:
        taps = merged_taps(kernel, case)
    units = {
        "slice": -(-products // slice_of(kernel)),
        "slice_of_taps": -(-(products // taps) // slice_of(kernel)),
        "tap": taps,
    }
    return min(units[str(ENTRIES[kernel]["part_unit"])], MAX_SPLITS)


def merged_taps(kernel: str, case: ConvCase) -> int:
    """Those that patches leave, whose taps may be channels."""
    op, (input, weight, bias, *geometry) = operator_arguments(case, case.tensors(dtype=DTYPES[kernel]))
    options = dict(zip(("stride", "padding", "dilation", "groups"), geometry, strict=True))
    return choose_kernel(op, input, weight, bias, device=A_DEVICE, kernel=kernel, splits=1, **options).segments


@pytest.mark.parametrize("splits", range(1, UNITS + 1))
@pytest.mark.parametrize("kernel", ENTRIES)
def test_so_many_parts(backend: MachineBackend, kernel: str, splits: int) -> None:
    """Equal parts, parts that differ, and as many as there are units."""
    check_case(backend, some_case(kernel), kernel, splits=splits)


@pytest.mark.parametrize("kernel", ENTRIES)
def test_more_parts_than_there_can_be_are_refused(kernel: str) -> None:
    case = some_case(kernel)
    assert most_parts(kernel, case) == UNITS
    sentence = f"{kernel} splits this reduction into 1 to {UNITS} parts, not {UNITS + 1}"
    with pytest.raises((RuntimeError, ValueError), match=sentence):
        plan_case(case, case.tensors(dtype=DTYPES[kernel]), kernel, UNITS + 1)


@pytest.mark.parametrize("kernel", ENTRIES)
def test_as_many_parts_as_there_can_be(backend: MachineBackend, kernel: str) -> None:
    large = case_of_units(kernel, MAX_SPLITS + 10)
    case: Case
    if isinstance(large, LinearCase):
        case = LinearCase(3, large.in_features, 5)
    else:
        case = replace(large, image=(2, large.image[1]), out_channels=6)
    assert most_parts(kernel, case) == MAX_SPLITS
    check_case(backend, case, kernel, splits=MAX_SPLITS)
    with pytest.raises((RuntimeError, ValueError), match=f"{kernel} splits this reduction into 1 to {MAX_SPLITS} part"):
        plan_case(case, case.tensors(dtype=DTYPES[kernel]), kernel, MAX_SPLITS + 1)


@pytest.mark.parametrize("kernel", LINEAR_KERNELS)
@property_settings
@given(
    case=st.builds(LinearCase, st.integers(1, 200), st.integers(1, 600), st.integers(1, 200), st.booleans()),
    splits=st.integers(1, 12),
    seed=st.integers(0, 99),
)
def test_any_linear_layer(backend: MachineBackend, kernel: str, case: LinearCase, splits: int, seed: int) -> None:
    check_case(backend, case, kernel, seed, splits=min(splits, most_parts(kernel, case)))


@pytest.mark.parametrize("kernel", CONV_KERNELS)
@property_settings
@given(case=st.one_of(conv_cases(), conv_cases(axes=3)), splits=st.integers(1, 12), seed=st.integers(0, 99))
def test_any_convolution(backend: MachineBackend, kernel: str, case: ConvCase, splits: int, seed: int) -> None:
    if can_compute(kernel, case):
        check_case(backend, case, kernel, seed, splits=min(splits, most_parts(kernel, case)))


@pytest.mark.parametrize(("channels", "kernel"), [(8, "_few_outputs_9_split"), (48, "_64x64x16_split")])
def test_the_gradient_of_a_weight_is_split(channels: int, kernel: str) -> None:
    """A convolution of few outputs, whose kernel is as large as the images."""
    layer = torch.nn.Conv2d(channels, channels, 3, padding=1)
    images = torch.randn(4, channels, 20, 20)
    with flopcuda.instrument(layer, backend="ptxvm") as session:
        layer(images).square().sum().backward()
    (launch,) = (launch for launch in session.report().launches if launch.phase == "backward_weight")
    assert launch.kernel.endswith(kernel)
    assert launch.splits > 1
    outputs, products = layer.weight.numel(), 4 * 20 * 20
    assert (launch.counters.mul, launch.counters.add) == (outputs * products, outputs * (products - 1))
    assert launch.executed_macs == launch.counters.lane
    twin = torch.nn.Conv2d(channels, channels, 3, padding=1).double()
    twin.load_state_dict(layer.state_dict())
    twin(images.double()).square().sum().backward()
    torch.testing.assert_close(layer.weight.grad.double(), twin.weight.grad, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("kernel", LINEAR_KERNELS)
def test_a_batch_of_products(backend: MachineBackend, kernel: str) -> None:
    """Each product has tiles of its own, of several blocks each."""
    batch, rows, depth, columns = 3, 70, 3 * slice_of(kernel) + 5, 65
    input, weight = (torch.randn(batch, *size).to(DTYPES[kernel]) for size in ((rows, depth), (depth, columns)))
    planned = plan("matmul", input, weight, None, False, kernel=kernel, splits=3)
    planned.output.fill_(torch.nan)
    backend.launch(planned)
    outputs = batch * rows * columns
    counted = counts(planned.counters)
    assert (counted["mul"], counted["add"]) == (outputs * depth, outputs * (depth - 1))
    error = 1e-3 if "tf32" in kernel else torch.finfo(DTYPES[kernel]).eps
    allowed = 4 * error * (input.double().abs() @ weight.double().abs())
    assert ((planned.output.double() - input.double() @ weight.double()).abs() <= allowed).all()


@pytest.mark.parametrize("splits", [1, 4])
@pytest.mark.parametrize("kernel", ENTRIES)
def test_whole_tiles_are_added_up_once_for_each_part_but_the_first(
    backend: MachineBackend, kernel: str, splits: int
) -> None:
    """No other instruction adds floating-point numbers; edges of tiles are added up, too, and not counted.

    Of few outputs, so are the sums of threads: of a warp's in five steps, in which others may add in vain, and edges,
    too; and then of warps.
    """
    planned = plan_case(some_case(kernel), some_case(kernel).tensors(dtype=DTYPES[kernel]), kernel, splits)
    executed = backend.launch(planned).counts
    additions = sum(lanes for name, lanes in executed.items() if name in ("add.f32", "add.f64"))
    rows, columns, _ = ENTRIES[kernel]["tile"]
    assert planned.grid[1:] == [1, splits]
    if is_of_few_outputs(kernel):
        threads, outputs = ENTRIES[kernel]["threads"], planned.output.numel()
        others = (threads // 32 - 1) * outputs * splits + (splits - 1) * outputs
        most = 5 * threads * planned.grid[0] * columns * splits
        assert threads // 32 * 31 * outputs * splits <= additions - others <= most
    else:
        assert additions == planned.grid[0] * rows * columns * (splits - 1)


@pytest.mark.parametrize("kernel", ENTRIES)
def test_whichever_block_is_last_the_outputs_are_the_same(kernel: str) -> None:
    """In any order of blocks and warps, and on several threads, to the last bit."""
    case = some_case(kernel)
    in_order = check_case(MachineBackend(ptx.Machine(threads=1)), case, kernel, splits=4)
    for seed in range(4):
        shuffled = MachineBackend(ptx.Machine(threads=2, seed=seed))
        assert torch.equal(check_case(shuffled, case, kernel, splits=4), in_order)


@pytest.mark.parametrize("kernel", ENTRIES)
def test_tickets_are_0_again_after_a_launch(backend: MachineBackend, kernel: str) -> None:
    case = some_case(kernel)
    planned = plan_case(case, case.tensors(dtype=DTYPES[kernel]), kernel, 3)
    sums, tickets = planned.workspace
    assert 4 * planned.grid[0] <= tickets.nbytes <= 4 * (planned.grid[0] + 1)
    rows, columns, _ = ENTRIES[kernel]["tile"]
    assert sums.nbytes == planned.grid[0] * 3 * rows * columns * (8 if "_f64_" in kernel else 4)
    outputs = []
    for _ in range(2):
        planned.output.fill_(torch.nan)
        backend.launch(planned)
        assert not tickets.any()
        outputs.append(planned.output.clone())
    assert torch.equal(*outputs)
    expected = case.expected_counts(*case.tensors()[:2], count_zero=False)
    assert counts(planned.counters)["mul"] == 2 * expected["mul"]


# Defects that counters cannot show, since all that is counted is done: outputs must. The others are in
# test_cuda_mutants.py.
MUTANTS = {
    "the last block but one adds the parts up": Patch("split_sums.cuh", "last) == last);", "last) == last - 1);"),
    "tickets are left as they are": Patch(
        "split_sums.cuh",
        "atomicInc(workspace.tickets + blockIdx.x, last)",
        "atomicAdd(workspace.tickets + blockIdx.x, 1)",
    ),
    "the first part is added up in place of all": Patch(
        "split_sums.cuh", "Memory(workspace, part).add_to(all);", "Memory(workspace, 0).add_to(all);"
    ),
    "a part overwrites another one's sums": Patch(
        "split_sums.cuh", "Memory(workspace, part_index()).write(", "Memory(workspace, part_index() / 2).write("
    ),
    "all tiles share their sums": Patch("split_sums.cuh", "(part) * gridDim.x + blockIdx.x)", "(part) * gridDim.x)"),
    "a part starts where the first one does": Patch(
        "linear.cu", "block.part.first + block.used.first_product", "block.used.first_product"
    ),
    "a part of a convolution has the weights of the first": Patch(
        "conv.cu", "static_cast<const Scalar*>(params.weight) + part.first,", "params.weight,"
    ),
    "a part of a convolution has the inputs of the first": Patch("taps.cuh", "part.first + in_part", "in_part"),
    "on tensor cores, a part of a convolution has the weights of the first channels": Patch(
        "conv_tensor.cu",
        "part.taps.first * stored_channels + part.channels.first,",
        "part.taps.first * stored_channels,",
    ),
    "on tensor cores, a part of a convolution has the weights of the first taps": Patch(
        "conv_tensor.cu", "part.taps.first * stored_channels + part.channels.first,", "part.channels.first,"
    ),
    "on tensor cores, a part of the channels has those of the first": Patch(
        "window_chunk_loader.cuh", " + part.channels.first + first_product<Tile>()", " + first_product<Tile>()"
    ),
    "on tensor cores, a part of the taps has the inputs of the first": Patch(
        "window_chunk_loader.cuh",
        "(static_cast<uint32_t>(window.offset(params)) + taps_.first_offset())",
        "static_cast<uint32_t>(window.offset(params))",
    ),
    "of few outputs, a part has the taps of the first": Patch(
        "conv_few_outputs.cu",
        "multiply_run(weight, first, min(first + RUN, end))",
        "multiply_run(weight + part.first, 0, part.products)",
    ),
    "of few outputs, a part has the weights of the first": Patch(
        "conv_few_outputs.cu", "multiply_run(weight, first,", "multiply_run(weight - part.first, first,"
    ),
    "of few outputs, the first part is added up in place of all": Patch(
        "conv_few_outputs.cu", "Memory(params_.workspace, part).add_to(", "Memory(params_.workspace, 0).add_to("
    ),
    "of few outputs, a part overwrites another one's sums": Patch(
        "conv_few_outputs.cu", "part_index()).write(", "part_index() / 2).write("
    ),
    "of few outputs, a lane is added up in place of the next": Patch(
        "conv_few_outputs.cu",
        "__shfl_down_sync(ALL_LANES, sums_[i], distance)",
        "__shfl_down_sync(ALL_LANES, sums_[i], 1)",
    ),
}


def is_right(planned: PlannedLaunch, case: Case, tensors: tuple[Tensor, Tensor, Tensor | None]) -> bool:
    expected = reference(case, tensors)
    tolerance = 1e-3 * expected.abs().max() if planned.output.dtype == torch.half else 1e-3
    return bool(((planned.output.double() - expected).abs() <= tolerance).all())


def outputs_are_right(texts: dict[str, str]) -> bool:
    """Of the split kernels that work differently, and that a defect may reach."""
    kernels = (
        "flopcuda_linear_f32_64x64x16_split",
        "flopcuda_conv_f32_64x64x16_split",
        "flopcuda_conv_f32_few_outputs_9_split",
        "flopcuda_conv_f16_128x128x32_split",
        "flopcuda_conv_f16_64x64x32_many_taps_split",
    )
    return all(outputs_of_kernel_are_right(texts, kernel) for kernel in kernels if kernel in texts)


def outputs_of_kernel_are_right(texts: dict[str, str], kernel: str) -> bool:
    """Of two launches of a plan, with blocks in several orders."""
    case = some_case(kernel)
    tensors = case.tensors(dtype=DTYPES[kernel])
    for seed in (None, 0, 1):
        backend = MachineBackend(ptx.Machine(threads=1, seed=seed, checks=False), texts)
        planned = plan_case(case, tensors, kernel, 3)
        for _ in range(2):
            planned.output.fill_(torch.nan)
            backend.launch(planned)
            if not is_right(planned, case, tensors):
                return False
    return True


@needs_nvcc
def test_the_outputs_are_right_without_a_defect() -> None:
    assert outputs_are_right(kernel_texts(twins=["_split"]))


@pytest.mark.parametrize("patch", sampled(MUTANTS))
def test_outputs_show_the_defect(patch: Patch) -> None:
    assert not outputs_are_right(kernel_texts([patch], twins=["_split"]))

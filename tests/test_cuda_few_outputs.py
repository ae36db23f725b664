"""The CUDA kernels of few outputs: gradients of depthwise layers' weights, what the planner knows, and seeded defects.

Outputs are held against float64; counters against the exact formula. test_cuda_kernels.py and test_cuda_splits.py run
these kernels as all others.
"""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

import flopcuda
from flopcuda import _C, ptx
from flopcuda.ops import Device, choose_kernel
from flopcuda.ptx_backend import MachineBackend
from flopcuda.report import Launch
from tests.cpu_kernels.oracle import ConvCase
from tests.cuda_kernels import DTYPES, kernel_texts, needs_kernels, plan_case
from tests.patches import Patch, sampled
from tests.ptxvm.harness import needs_nvcc
from tests.test_cuda_mutants import wrongly_counted_cases

KERNELS = {str(entry["name"]): entry for entry in _C.cuda_kernels() if "_few_outputs" in entry["name"]}
A_DEVICE = Device(108, _C.device_rates(80), [])

# Defects in what they do, or in what they count, that counters show.
MUTANTS = {
    "of few outputs, the last tap is skipped": Patch("conv_few_outputs.cu", "tap < end;", "tap < end - 1;"),
    "of few outputs, a thread has no taps": Patch(
        "conv_few_outputs.cu",
        "      multiply_tap(factor,",
        "      if (threadIdx.x == 77) continue;\n      multiply_tap(factor,",
    ),
    "of few outputs, a thread multiplies its taps twice": Patch(
        "conv_few_outputs.cu",
        "      multiply_tap(factor,",
        "      if (threadIdx.x == 77) multiply_tap(factor, Tap(params_, inside_at_, tap), counts);\n"
        "      multiply_tap(factor,",
    ),
    "of few outputs, taps of one run are counted": Patch(
        "conv_few_outputs.cu", "taps_ += counts.taps();", "taps_ = counts.taps();"
    ),
    "of few outputs, inputs of one run are counted": Patch(
        "conv_few_outputs.cu", "inputs_ += counts.inputs();", "inputs_ = counts.inputs();"
    ),
    "of few outputs, the last image is skipped": Patch(
        "conv_few_outputs.cu",
        "min(params.columns - first_column,",
        "min(params.columns - params.output_pixels - first_column,",
    ),
    "of few outputs, a channel is skipped": Patch(
        "conv_few_outputs.cu",
        "  table.fill(params);\n",
        "  table.fill(params);\n  if (table.block.channel == 1) return;\n",
    ),
    "of few outputs, the bias is dropped": Patch("conv_few_outputs.cu", "return params_.bias &&", "return false &&"),
    "of few outputs, every thread adds to the bias": Patch(
        "conv_few_outputs.cu", "params_.bias && threadIdx.x == 0 &&", "params_.bias &&"
    ),
    "of few outputs, those that do not exist are counted": Patch(
        "conv_few_outputs.cu", "(taps_) * valid_outputs_;", "(taps_) * OUTPUTS;"
    ),
    "of few outputs, an addition is counted for the first product": Patch(
        "conv_few_outputs.cu", "held_bias() || taps_ == 0 ? counts.mul", "true ? counts.mul"
    ),
    "of few outputs, no addition is counted for a product": Patch(
        "conv_few_outputs.cu", "taps_ == 0 ? counts.mul : counts.mul - valid_outputs_;", "taps_ == 0 ? 0 : 0;"
    ),
    "of few outputs, the padding count is dropped": Patch(
        "conv_few_outputs.cu", "counts.pad = counts.mul - inputs_;", "counts.pad = 0;"
    ),
    "of few outputs, there are marks of sixteen": Patch(
        "tiles.h", "(OUTPUTS > 16), uint32_t", "(OUTPUTS > 32), uint32_t"
    ),
    "of few outputs, windows have no rows in the padding": Patch(
        "conv_few_outputs.cu", "inside_at[step.column] & inside_rows[step.row] &", "inside_at[step.column] &"
    ),
    "of few outputs, those that do not exist have windows": Patch(
        "conv_few_outputs.cu", "output < block.columns ? Position", "true ? Position"
    ),
    "of few outputs, no zeros are seen among the weights": Patch(
        "conv_few_outputs.cu", "(inputs[i] != Scalar(0)) & (weight != Scalar(0))", "inputs[i] != Scalar(0)"
    ),
    "of few outputs, padding is counted as products of zero": Patch(
        "conv_few_outputs.cu", "inputs_ - nonzero_ : 0", "counts.mul - nonzero_ : 0"
    ),
    "of few outputs, half of each warp is left out of the sums": Patch(
        "conv_few_outputs.cu",
        "int distance = WARP_SIZE / 2; distance > 0",
        "int distance = WARP_SIZE / 4; distance > 0",
    ),
    "of few outputs, additions of lanes are not counted": Patch(
        "conv_few_outputs.cu", "      if (is_added) additions_ += valid_outputs_;\n", ""
    ),
    "of few outputs, sums of lanes that have none are added": Patch(
        "conv_few_outputs.cu", "lane < distance && !other_is_empty", "lane < distance"
    ),
    "of few outputs, a warp is left out of the sums": Patch(
        "conv_few_outputs.cu", "other < Config::WARPS &&", "other < Config::WARPS - 1 &&"
    ),
    "of few outputs, additions of warps are not counted": Patch(
        "conv_few_outputs.cu",
        "      sum += scratch.sums[other][output];\n      ++additions_;\n",
        "      sum += scratch.sums[other][output];\n",
    ),
    "of few outputs, sums of warps that have none are added": Patch(
        "conv_few_outputs.cu", " && !scratch.are_empty[other]", ""
    ),
    "of few outputs, a part is left out of the sums": Patch(
        "conv_few_outputs.cu", "uint32_t part = 1; part <", "uint32_t part = 2; part <"
    ),
    "of few outputs, additions of parts are not counted": Patch(
        "conv_few_outputs.cu", "add_to(sums);\n        ++additions_;\n", "add_to(sums);\n"
    ),
    "of few outputs, every block of a tile adds the parts up": Patch(
        "conv_few_outputs.cu",
        "if (!takes_last_ticket(params_.workspace)) return false;",
        "takes_last_ticket(params_.workspace);",
    ),
}


@needs_nvcc
@pytest.mark.parametrize("patch", sampled(MUTANTS))
def test_counters_show_the_defect(patch: Patch) -> None:
    assert wrongly_counted_cases(kernel_texts([patch])) != []


LAYERS = {
    "3x3": (nn.Conv2d(24, 24, 3, padding=1, groups=24), (4, 24, 20, 19)),
    "3x3, of one image": (nn.Conv2d(40, 40, 3, groups=40, bias=False), (1, 40, 31, 30)),
    "5x5, of stride 2": (nn.Conv2d(12, 12, 5, stride=2, padding=2, groups=12), (3, 12, 29, 31)),
    "5x5": (nn.Conv2d(24, 24, 5, padding=2, groups=24, bias=False), (2, 24, 21, 20)),
    "7x7": (nn.Conv2d(24, 24, 7, padding=3, groups=24), (2, 24, 21, 20)),
    "3x2, dilated": (nn.Conv2d(12, 12, (3, 2), padding=(2, 1), dilation=(2, 3), groups=12), (3, 12, 20, 21)),
    "two outputs a channel": (nn.Conv2d(12, 24, 3, padding=1, groups=12), (3, 12, 18, 18)),
    "two channels in a group": (nn.Conv2d(12, 12, 3, padding=1, groups=6), (3, 12, 18, 18)),
    "1-D": (nn.Conv1d(16, 16, 4, padding=3, groups=16), (3, 16, 150)),
    "3-D": (nn.Conv3d(8, 8, (3, 2, 3), padding=1, groups=8), (2, 8, 7, 9, 8)),
}


def weight_launch(layer: nn.Module, images: Tensor, backend: str = "native") -> Launch:
    """Of the gradient of a weight, which is held against float64's."""
    layer.zero_grad()
    with flopcuda.instrument(layer, backend=backend) as session:
        output = layer(images)
        grad = torch.randn(output.shape, generator=torch.Generator().manual_seed(0)).to(output)
        output.backward(grad)
    (launch,) = (launch for launch in session.report().launches if launch.phase == "backward_weight")
    twin = copy.deepcopy(layer).cpu().double()
    twin.zero_grad()
    twin(images.cpu().double()).backward(grad.cpu().double())
    tolerance = 64 * torch.finfo(layer.weight.dtype).eps
    scale = float(twin.weight.grad.abs().max())
    torch.testing.assert_close(layer.weight.grad.cpu().double(), twin.weight.grad, rtol=0, atol=tolerance * scale)
    return launch


def assert_counts_are_exact(launch: Launch, layer: nn.Module) -> None:
    """Every output is the sum of as many products as the layer has outputs of a channel, in all images."""
    outputs, products = layer.weight.numel(), math.prod(launch.weight_shape[1:])
    assert (launch.counters.mul, launch.counters.add) == (outputs * products, outputs * (products - 1))
    assert launch.counters.lane >= launch.counters.mul


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", LAYERS)
def test_the_gradient_of_a_depthwise_weight(name: str, dtype: torch.dtype) -> None:
    layer, shape = LAYERS[name]
    layer = copy.deepcopy(layer).to(dtype)
    launch = weight_launch(layer, torch.randn(shape, dtype=dtype), "ptxvm")
    assert launch.kernel.removesuffix("_split") in KERNELS
    assert_counts_are_exact(launch, layer)
    assert launch.executed_macs == launch.counters.lane


@pytest.mark.parametrize(("kernel", "outputs"), [(3, 9), (5, 25), (7, 25)])
def test_a_block_has_as_many_outputs_as_suit_the_filter(kernel: int, outputs: int) -> None:
    """A tap is decoded once for all outputs of a tile: a filter of 7 x 7 has two tiles of 25, not six of nine."""
    side = 56 + kernel - 1
    images, grads = (torch.empty(*sizes, device="meta") for sizes in ((1, 8 * 96, side, side), (96, 8, 56, 56)))
    choice = choose_kernel("conv2d", images, grads, None, device=A_DEVICE, groups=96)
    assert choice.name.removesuffix("_split").endswith(f"_few_outputs_{outputs}")


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16], ids=str)
@pytest.mark.parametrize("name", LAYERS)
def test_so_it_is_on_a_device(name: str, dtype: torch.dtype) -> None:
    layer, shape = LAYERS[name]
    layer = copy.deepcopy(layer).to("cuda", dtype)
    assert_counts_are_exact(weight_launch(layer, torch.randn(shape, device="cuda").to(dtype)), layer)


@pytest.mark.parametrize("kernel", KERNELS)
def test_sides_that_no_table_holds_are_refused(kernel: str) -> None:
    images, filters = (torch.empty(1, 2, 1, size, device="meta", dtype=DTYPES[kernel]) for size in (2049, 2047))
    with pytest.raises(ValueError, match=f"{kernel} takes kernels of depth, height and width of up to 2048 together"):
        choose_kernel("conv2d", images, filters, None, device=A_DEVICE, kernel=kernel)
    assert choose_kernel("conv2d", images, filters[..., 1:], None, device=A_DEVICE, kernel=kernel).name == kernel


@needs_kernels
@pytest.mark.parametrize("kernel", [kernel for kernel, entry in KERNELS.items() if not entry["counts_zero"]])
def test_the_planner_knows_what_a_block_does_besides(kernel: str) -> None:
    """Instructions of a thread that are executed outside the main loop, over those of a slice in machine code."""
    _, outputs, _ = KERNELS[kernel]["tile"]
    side = math.isqrt(outputs)

    def instructions(slices: int) -> float:
        case = ConvCase(1, 2 * slices, (side + 7, side + 7), 8, (8, 8))
        planned = plan_case(case, case.tensors(dtype=DTYPES[kernel]), kernel, 1)
        return MachineBackend(ptx.Machine()).launch(planned).lane_instructions / (128 * planned.grid[0])

    one, nine = instructions(1), instructions(9)
    outside = one - (nine - one) / 8
    slice_instructions = outputs / KERNELS[kernel]["multiply_share"]
    assert outside / slice_instructions == pytest.approx(KERNELS[kernel]["fixed_slices"], abs=0.75)

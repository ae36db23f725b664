"""Are the CUDA kernels' counts counted? Each defect below changes what they do or count, and the counters must show it.

As test_cpu_mutants.py does for the CPU: the kernels are compiled with the defect and run on the PTX machine, and their
counters must disagree with the exact formula or with brute force. Neither outputs nor the machine's own counts are
looked at.
"""

from __future__ import annotations

import dataclasses

import pytest
import torch

from flopcuda import ptx
from flopcuda.ptx_backend import MachineBackend, PlannedLaunch
from tests.cpu_kernels.oracle import ConvCase, LinearCase
from tests.cuda_kernels import DTYPES, counts, kernel_texts, plan_case, tensors_of
from tests.patches import Patch, sampled
from tests.ptxvm.harness import needs_nvcc

pytestmark = needs_nvcc

MUTANTS = {
    # Work that is left out.
    "skips the last step of every whole slice": Patch(
        "gemm_main_loop.cuh", "step < Tile::BLOCK_K; ++step) tile", "step < Tile::BLOCK_K - 1; ++step) tile"
    ),
    "skips every 16th product": Patch(
        "gemm_main_loop.cuh",
        "    Scalar a[Tile::THREAD_M];\n",
        "    if (step == 4) return;\n    Scalar a[Tile::THREAD_M];\n",
    ),
    "forgets the last, partial slice": Patch(
        "gemm_main_loop.cuh", "step < reduction % Tile::BLOCK_K", "step < 0 * reduction"
    ),
    "skips every other slice": Patch("gemm_main_loop.cuh", "--prepared) {", "prepared -= 2) {"),
    "the threads of a warp's last rows leave early": Patch(
        "gemm_main_loop.cuh",
        "    Scalar a[Tile::THREAD_M];\n",
        "    if (threadIdx.x % WARP_SIZE >= 24) return;\n    Scalar a[Tile::THREAD_M];\n",
    ),
    "a convolution skips the last image": Patch(
        "conv.cu",
        "min(params.columns - first_column, static_cast<int64_t>(Tile::BLOCK_N))",
        "min(params.columns - params.output_pixels - first_column, static_cast<int64_t>(Tile::BLOCK_N))",
    ),
    "a convolution skips a group": Patch(
        "conv.cu",
        "  multiply_reduction(part.products,",
        "  if (block.group == 1) return;\n  multiply_reduction(part.products,",
    ),
    "a convolution skips the channels of a partial tile": Patch(
        "conv.cu",
        "min(params.group_out_channels - first_row, Tile::BLOCK_M)",
        "(params.group_out_channels - first_row) / Tile::BLOCK_M * Tile::BLOCK_M",
    ),
    "a convolution skips a kernel row": Patch(
        "conv.cu",
        "  multiply_reduction(part.products,",
        "  multiply_reduction(part.products - params.width.kernel_size.divisor,",
    ),
    "linear skips the features of a partial tile": Patch(
        "linear_tiles.cuh",
        "min(params.out_features - first_column, static_cast<int64_t>(Tile::BLOCK_N))",
        "(params.out_features - first_column) / Tile::BLOCK_N * Tile::BLOCK_N",
    ),
    "linear skips a row": Patch("linear_tiles.cuh", "min(params.rows - first_row,", "min(params.rows - 1 - first_row,"),
    "the direct kernel skips the last image": Patch(
        "conv_direct.cu",
        "min(params.columns - first_column,",
        "min(params.columns - params.output_pixels - first_column,",
    ),
    "the direct kernel skips a tap": Patch(
        "conv_direct.cu",
        "      const Scalar factor = __ldg(weight + tap);\n",
        "      if (tap == 1) { inside >>= OUTPUTS; offset += params_.width.dilation; continue; }\n"
        "      const Scalar factor = __ldg(weight + tap);\n",
    ),
    "the direct kernel skips a channel": Patch(
        "conv_direct.cu",
        "for (int channel = 0; channel < params_.group_in_channels; ++channel)",
        "for (int channel = 1; channel < params_.group_in_channels; ++channel)",
    ),
    "the direct kernel skips the columns behind the first eight": Patch(
        "conv_direct.cu", "first_column < kernel_width;", "first_column < 1;"
    ),
    "the direct kernel computes three of four outputs": Patch(
        "conv_direct.cu", "const bool exists = block_column(i) < block.columns;", "const bool exists = i < 3;"
    ),
    "a convolution drops the bias": Patch("conv.cu", "return params.bias != nullptr &&", "return false &&"),
    "linear drops the bias": Patch("linear.cu", "has_bias = params.bias != nullptr", "has_bias = false"),
    "the direct kernel drops the bias": Patch("conv_direct.cu", "return params_.bias != nullptr;", "return false;"),
    # Work that is done twice.
    "multiplies every whole slice twice": Patch(
        "gemm_main_loop.cuh",
        "step < Tile::BLOCK_K; ++step) tile.multiply_step(stages[stage], step,",
        "step < 2 * Tile::BLOCK_K; ++step) tile.multiply_step(stages[stage], step % Tile::BLOCK_K,",
    ),
    "multiplies the first step twice": Patch(
        "gemm_main_loop.cuh",
        "    free_stage = stage;",
        "    tile.multiply_step(stages[stage], 0, position, tally);\n    free_stage = stage;",
    ),
    "the direct kernel multiplies the taps of a row twice": Patch(
        "conv_direct.cu",
        "          multiply_row(weight,",
        "          if (row == 1) multiply_row(weight, 0, columns, 0);\n          multiply_row(weight,",
    ),
    # Work that is done but counted wrongly.
    "counts products twice": Patch("counting.cuh", "    ++steps_;", "    steps_ += 2;"),
    "counts waste lanes as products": Patch(
        "counting.cuh", "outputs = valid.rows * valid.columns", "outputs = Tile::THREAD_M * Tile::THREAD_N"
    ),
    "counts the steps beyond the reduction": Patch(
        "gemm_main_loop.cuh", "step < reduction % Tile::BLOCK_K", "step < Tile::BLOCK_K"
    ),
    "counts an addition for the first product": Patch(
        "counting.cuh", "accumulators_held_bias || steps_ == 0 ? counts.mul : counts.mul - used.outputs", "counts.mul"
    ),
    "counts no addition onto a bias": Patch(
        "counting.cuh",
        "accumulators_held_bias || steps_ == 0 ? counts.mul : counts.mul - used.outputs",
        "counts.mul - used.outputs",
    ),
    "drops the padding count": Patch("counting.cuh", "counts.pad = padded;", "counts.pad = 0;"),
    "counts padding for rows that do not exist": Patch(
        "conv.cu", "input.padded()) * block.rows", "input.padded()) * Tile::BLOCK_M"
    ),
    "counts padding of columns that do not exist": Patch(
        "taps.cuh", "missing & shared_.windows.existing(word)", "missing"
    ),
    "counts padding of the first row of the kernel only": Patch("taps.cuh", "window.row, step.row,", "window.row, 0,"),
    "counts padding beyond the reduction": Patch("taps.cuh", "if (in_part < part.products)", "if (true)"),
    "counts padding of half the steps": Patch(
        "taps.cuh", "if (in_part < part.products)", "if (in_part % 2 == 0 && in_part < part.products)"
    ),
    "counts padding of the first steps that a warp looks up": Patch(
        "taps.cuh", "shared_.padded[threadIdx.x] +=", "if (batches_ == 1) shared_.padded[threadIdx.x] +="
    ),
    "counts padding of half the columns": Patch(
        "taps.cuh",
        "word < WORDS; ++word) {\n      uint32_t missing",
        "word < 1; ++word) {\n      uint32_t missing",
    ),
    "of a long kernel, counts the padding of the first lane's step for all": Patch(
        "taps.cuh", "__shfl_sync(0xffffffffu, tap, other)", "__shfl_sync(0xffffffffu, tap, 0)"
    ),
    "of a long kernel, counts no padding": Patch(
        "taps.cuh", "    uint32_t own = 0;", "    uint32_t own = ~0u;\n    if (true) return own;"
    ),
    "counts padding as products of zero": Patch("counting.cuh", "- padded - nonzero_", "- nonzero_"),
    "sees no zeros among the rows": Patch("counting.cuh", "count_nonzero(a, valid_.rows) *", "valid_.rows *"),
    "counts what is not zero in rows that do not exist": Patch(
        "counting.cuh", "count_nonzero(a, valid_.rows) *", "count_nonzero(a, Tile::THREAD_M) *"
    ),
    "loses the counts of half of each warp": Patch(
        "counting.cuh", "int distance = WARP_SIZE / 2; distance > 0", "int distance = WARP_SIZE / 4; distance > 0"
    ),
    "loses the counts of all warps but one": Patch(
        "counting.cuh", "warp < CountScratch<THREADS>::WARPS; ++warp)", "warp < 1; ++warp)"
    ),
    # On tensor cores.
    "tensor cores skip every other step": Patch(
        "tensor_main_loop.cuh",
        "step < Tile::BLOCK_K / Tile::MMA_K; ++step)",
        "step < Tile::BLOCK_K / Tile::MMA_K; step += 2)",
    ),
    "tensor cores skip every other slice": Patch("tensor_main_loop.cuh", "slices -= run;", "slices -= 2 * run;"),
    "tensor cores forget what is left of a segment": Patch(
        "tensor_main_loop.cuh", "const int left = reduction.length % Tile::BLOCK_K;", "const int left = 0;"
    ),
    "tensor cores skip a tap": Patch("tensor_main_loop.cuh", "segments > 0; --segments)", "segments > 1; --segments)"),
    "tensor cores skip a tap of whole slices": Patch(
        "tensor_main_loop.cuh", "(is_one ? reduction.segments : 1)", "(is_one ? max(reduction.segments - 1, 1) : 1)"
    ),
    "tensor cores count the products beyond a segment": Patch(
        "tensor_main_loop.cuh", "min(left, Tile::MMA_K)", "Tile::MMA_K"
    ),
    "tensor cores count outputs that do not exist": Patch(
        "tensor_main_loop.cuh", "rows += row_offset(i / 2, i % 2 * 2) < rows_left_;", "++rows;"
    ),
    "tensor cores drop the bias of a linear layer": Patch(
        "linear_tensor.cu", "has_bias = params.bias != nullptr", "has_bias = false"
    ),
    "tensor cores drop the bias of a convolution": Patch(
        "conv_tensor.cu", "return params.bias != nullptr &&", "return false &&"
    ),
    "tensor cores count an addition for the first product": Patch(
        "tensor_main_loop.cuh",
        "accumulators_held_bias || products_ == 0 ? counts.mul : counts.mul - used.outputs",
        "counts.mul",
    ),
    "tensor cores skip a group": Patch(
        "conv_tensor.cu", "  const Reduction reduction{", "  if (group == 1) return;\n  const Reduction reduction{"
    ),
    "tensor cores skip the last image": Patch(
        "conv_tensor.cu", "min(params.columns - first_row,", "min(params.columns - params.output_pixels - first_row,"
    ),
    "tensor cores drop the padding count": Patch("tensor_main_loop.cuh", "counts.pad = padded;", "counts.pad = 0;"),
    "tensor cores count the padding of one tap for all": Patch(
        "window_chunk_loader.cuh", "{ padded_ += taps_", "{ if (padded_ == 0) padded_ += taps_"
    ),
    "tensor cores count rows that do not exist as padding": Patch(
        "tap_windows.cuh", "existing_ |= static_cast<uint32_t>(exists) << i;", "existing_ |= 1u << i;"
    ),
    "of a width whose taps are channels, tensor cores count no padding": Patch(
        "tap_windows.cuh",
        "__popc(inside_[i] & (0u - params_.tap_walk.gathered_first))",
        "gathered_taps.divisor",
    ),
    "of a width whose taps are channels, tensor cores count the padding of one window for all": Patch(
        "tap_windows.cuh", "window.column * gathered.stride", "0 * gathered.stride"
    ),
    "of a width whose taps are channels, tensor cores count all products as one tap's": Patch(
        "tap_windows.cuh", "taps * gathered_taps.divide(products)", "taps * products"
    ),
    "of many taps, tensor cores take the last row's for the first's": Patch(
        "tap_windows.cuh", "      tap_.row += params_.height.dilation;\n", ""
    ),
    "tensor cores count padding once for each copy of a row": Patch(
        "window_chunk_loader.cuh", "return Chunks::chunk() == 0 ? padded_ : 0;", "return padded_;"
    ),
    "tensor cores see the numbers of rows that do not exist": Patch(
        "tensor_main_loop.cuh", "(COUNT_ZERO && Chunks::row(i) >= rows_) << i", "0"
    ),
    "tensor cores see no zeros among the weights": Patch(
        "tensor_core.cuh",
        "marks_b[2] = {mark_nonzero<TYPE>(b[n / 2][n % 2 * 2]),",
        "marks_b[2] = {0x40004000,",
    ),
    "tensor cores take negative zero for a number": Patch("tensor_core.cuh", "? 0x7fff7fff :", "? 0xffffffff :"),
    "tensor cores see no zeros in rows of doubles": Patch("tensor_core.cuh", "+= a[m][i] != 0.0;", "+= 1;"),
    "tensor cores see the doubles of half of the columns": Patch(
        "tensor_core.cuh", "int distance = 4; distance < WARP_SIZE", "int distance = 8; distance < WARP_SIZE"
    ),
    # Where several blocks share a reduction.
    "a part is left out of the sums": Patch("split_sums.cuh", "uint32_t part = 1; part <", "uint32_t part = 2; part <"),
    "a part is added up twice": Patch(
        "split_sums.cuh",
        "      count_additions(part);\n",
        "      count_additions(part);\n      Memory(workspace, part).add_to(all);\n      count_additions(part);\n",
    ),
    "additions of parts are not counted": Patch("split_sums.cuh", "      count_additions(part);\n", ""),
    "every block of a tile adds the parts up": Patch(
        "split_sums.cuh", "if (!takes_last_ticket(workspace)) return false;", "takes_last_ticket(workspace);"
    ),
    "no block of a tile adds the parts up": Patch("split_sums.cuh", "    if (!takes_last_ticket(workspace))", "   "),
    "a part is multiplied twice": Patch(
        "split_sums.cuh", "first_unit(units, part, gridDim.z)", "first_unit(units, part - part % 2, gridDim.z)"
    ),
    "a part is not multiplied": Patch(
        "split_sums.cuh",
        "  return {first, max(end - first, 0)};",
        "  return {first, part == 1 ? 0 : max(end - first, 0)};",
    ),
    "a part has the padding of those behind it": Patch(
        "taps.cuh", "in_part < part.products", "in_part < params.reduction - part.first"
    ),
    "every part has the padding of the first": Patch("taps.cuh", "part.first + in_part", "in_part"),
    "on tensor cores, every part of the taps has the padding of the first": Patch(
        "conv_tensor.cu", "params, group, part, locate_column", "params, group, {{0, 0}, part.channels}, locate_column"
    ),
    "of many taps, the padding of a part's is that of the first column's": Patch(
        "tap_windows.cuh", "    column_ = first.column;\n", "    column_ = 0;\n"
    ),
    "of many taps, the padding of a part's is that of the first row's": Patch(
        "tap_windows.cuh", "static_cast<int32_t>(first.row)", "0"
    ),
    "tensor cores multiply all channels in every part": Patch(
        "conv_tensor.cu", "part.channels.products, copied_channels,", "params.group_in_channels, stored_channels,"
    ),
    "tensor cores multiply all taps in every part": Patch(
        "conv_tensor.cu", "reduction{part.taps.products,", "reduction{params.taps,"
    ),
    "a part of the taps is of one less": Patch(
        "conv_tensor.cu", "reduction{part.taps.products,", "reduction{part.taps.products - Tile::IS_SPLIT,"
    ),
    "every part is added to the bias": Patch("split_sums.cuh", "!Tile::IS_SPLIT || part_index() == 0", "true"),
    "no part is added to the bias": Patch("split_sums.cuh", "!Tile::IS_SPLIT || part_index() == 0", "!Tile::IS_SPLIT"),
    "the direct kernel counts outputs that do not exist": Patch(
        "conv_direct.cu", "counts.mul = static_cast<int64_t>(taps_) * valid_outputs_;", "counts.mul = taps_ * OUTPUTS;"
    ),
    "the direct kernel counts an addition for the first product": Patch(
        "conv_direct.cu", "has_bias() || taps_ == 0 ? counts.mul : counts.mul - valid_outputs_", "counts.mul"
    ),
    "the direct kernel counts a tap twice": Patch("conv_direct.cu", "      ++taps_;\n", "      taps_ += 2;\n"),
    "the direct kernel drops the padding count": Patch(
        "conv_direct.cu", "counts.pad = counts.mul - inputs_;", "counts.pad = 0;"
    ),
    "the direct kernel counts padding as products of zero": Patch(
        "conv_direct.cu", "inputs_ - nonzero_", "counts.mul - nonzero_"
    ),
    "the direct kernel sees outputs that do not exist as padding": Patch(
        "conv_direct.cu", "counts.mul - inputs_", "counts.lane - inputs_"
    ),
    "the direct kernel sees no zeros among the weights": Patch(
        "conv_direct.cu", "(input != Scalar(0)) & (factor != Scalar(0))", "input != Scalar(0)"
    ),
}

# A kernel and its twins, by what their names end in; and into how many parts they split a reduction.
TWINS = {"": 1, "_count_zero": 1, "_split": 2}

# Several tiles, slices and images, partial ones among them; operands with zeros. Split kernels have two parts of each.
CASES: dict[str, list[ConvCase | LinearCase]] = {
    "flopcuda_conv_f32_64x64x16": [
        ConvCase(2, 5, (9, 7), 67, padding=(2, 0, 1, 0)),  # not the same of a tap and its opposite
        ConvCase(2, 6, (6, 7), 10, (2, 3), (2, 1), (2, 1, 0, 1), groups=2, bias=True),
        ConvCase(1, 2, (3, 150), 3, (2, 140), padding=(1, 5, 0, 3)),
    ],
    "flopcuda_conv_f32_direct": [
        ConvCase(2, 3, (20, 30), 3, padding=(1, 1, 1, 1), groups=3),
        ConvCase(2, 4, (9, 7), 6, padding=(1, 0, 0, 1), groups=2, bias=True),
        ConvCase(1, 2, (5, 14), 2, (2, 11), padding=(1, 5, 0, 5), groups=2),
    ],
    "flopcuda_conv_f32_few_outputs_9": [
        ConvCase(1, 6, (12, 14), 3, (12, 14), padding=(1, 1, 1, 1), groups=3),
        ConvCase(2, 8, (9, 8), 4, (7, 6), (1, 2), (2, 0, 0, 1), groups=2, bias=True),
        ConvCase(1, 1, (190, 182), 1, (190, 181), padding=(0, 1, 0, 0)),  # more taps than a thread counts in one number
    ],
    "flopcuda_conv_f32_few_outputs_25": [
        ConvCase(1, 6, (12, 14), 3, (8, 10), padding=(1, 1, 1, 1), groups=3),
        ConvCase(2, 12, (9, 8), 4, (5, 6), (1, 2), (2, 0, 0, 1), groups=2, bias=True),
    ],
    "flopcuda_linear_f32_64x64x16": [LinearCase(67, 37, 35), LinearCase(5, 40, 70, bias=True)],
    "flopcuda_conv_f16_128x128x32": [
        ConvCase(2, 70, (9, 7), 67, (2, 2), padding=(1, 1, 1, 1)),
        ConvCase(2, 70, (6, 7), 10, (2, 3), (2, 1), (2, 1, 0, 1), groups=2, bias=True),
        ConvCase(1, 64, (5, 4), 10, (2, 2)),
    ],
    "flopcuda_conv_f16_64x64x32_many_taps": [
        ConvCase(2, 40, (9, 7), 67, (5, 5), padding=(2, 0, 1, 0)),
        ConvCase(2, 6, (6, 7), 10, (2, 3), (2, 1), (2, 1, 0, 1), groups=2, bias=True),
    ],
    "flopcuda_linear_f16_128x128x32": [LinearCase(67, 85, 35), LinearCase(5, 40, 70, bias=True)],
    "flopcuda_linear_f64_mma_64x64x8": [LinearCase(67, 13, 35), LinearCase(5, 40, 70, bias=True)],
}

# Where taps of the width become channels; of one slice, which has no parts.
FEW_CHANNELS = {
    "flopcuda_conv_f16_128x128x32": [
        ConvCase(2, 6, (6, 7), 10, (2, 3), (2, 1), (2, 1, 0, 1), groups=2, bias=True),
        ConvCase(2, 3, (6, 9), 10, (2, 5), (1, 2), (0, 2, 1, 2)),
    ]
}


def wrongly_counted_cases(texts: dict[str, str]) -> list[str]:
    """The cases whose counters disagree with the formula or with brute force."""
    backend = MachineBackend(ptx.Machine(checks=False), texts)
    wrong = []
    for tile_kernel, cases in CASES.items():
        for suffix, splits in TWINS.items():
            kernel = tile_kernel + suffix
            gathered = FEW_CHANNELS.get(tile_kernel, []) if splits == 1 else []
            wrong += [
                f"{kernel}: {case}"
                for case in [*cases, *gathered]
                if kernel in texts and not counts_right(backend, case, kernel, splits, case in gathered)
            ]
    return wrong


def counts_right(
    backend: MachineBackend, case: ConvCase | LinearCase, kernel: str, splits: int, gathers_width: bool
) -> bool:
    tensors = tensors_of(case, kernel)
    planned = plan_case(case, tensors, kernel, splits, gathers_width)
    backend.launch(planned)
    return is_right(planned, case.expected_counts(*tensors[:2], count_zero=kernel.endswith("_count_zero")))


def is_right(planned: PlannedLaunch, expected: dict[str, int]) -> bool:
    counted = counts(planned.counters)
    return {name: counted[name] for name in expected} == expected


def test_the_kernels_as_they_are_count_right() -> None:
    texts = kernel_texts()
    assert set(texts) == {kernel + suffix for kernel in CASES for suffix in TWINS} & set(DTYPES)
    assert wrongly_counted_cases(texts) == []


@pytest.mark.parametrize("patch", sampled(MUTANTS))
def test_counters_show_the_defect(patch: Patch) -> None:
    assert wrongly_counted_cases(kernel_texts([patch])) != []


@pytest.mark.parametrize("kernel", [kernel for kernel in CASES if DTYPES[kernel] == torch.float32])
def test_counters_show_a_block_that_was_not_launched(kernel: str) -> None:
    case = CASES[kernel][0]
    tensors = case.tensors()
    planned = plan_case(case, tensors, kernel)
    assert planned.grid[0] > 1
    MachineBackend(ptx.Machine()).launch(dataclasses.replace(planned, grid=[planned.grid[0] - 1, 1, 1]))
    assert not is_right(planned, case.expected_counts(*tensors[:2], count_zero=False))

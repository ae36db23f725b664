"""Are the CPU kernels' counts counted? Each defect below changes what they do or count, and the counters must show it.

A count computed from the shapes would not notice that a kernel skips a tile. Here every such kernel is built, and its
counters must disagree with the exact formula or with brute force; the same harness must find nothing wrong with the
kernels as they are. The outputs are not looked at.
"""

from __future__ import annotations

import dataclasses

import pytest

from tests.cpu_kernels import Kernels, build_kernels
from tests.cpu_kernels.oracle import ConvCase, LinearCase, counts_of
from tests.geometries import cube
from tests.patches import Patch, sampled

MUTANTS = {
    # Work that is left out.
    "skips the last update of every tile": Patch(
        "tile_kernel.h", "for (; k < last; ++k) update", "for (; k < last - 1; ++k) update"
    ),
    "skips every other tile of several": Patch(
        "tile_kernel.h", "index < tiles.count; ++index", "index < tiles.count; index += 2"
    ),
    "skips every 9th update, a tap of a 3 x 3 kernel": Patch(
        "tile_kernel.h",
        "const auto update = [&](int64_t k, int64_t count) {",
        "const auto update = [&](int64_t k, int64_t count) {\n    if (k % 9 == 4) return;",
    ),
    "forgets the last, partial depth block": Patch(
        "gemm.cpp",
        "first_depth < task.last_depth; first_depth += depth_block)",
        "first_depth + depth_block <= task.last_depth; first_depth += depth_block)",
    ),
    "skips every other depth block": Patch(
        "gemm.cpp", "first_depth += depth_block)", "first_depth += 2 * depth_block)"
    ),
    "skips the first row panel": Patch(
        "gemm.cpp", "for (int64_t row_panel = first_panel;", "for (int64_t row_panel = first_panel + 1;"
    ),
    "skips the last column panel of a block": Patch(
        "gemm.cpp", "column_panel < column_panels; ++column_panel", "column_panel < column_panels - 1; ++column_panel"
    ),
    "skips a group": Patch(
        "gemm.cpp",
        "const int64_t first_panel = row_ranges.begin(row_range);",
        "if (group == 1) continue;\n    const int64_t first_panel = row_ranges.begin(row_range);",
    ),
    "skips a block of columns": Patch(
        "gemm.cpp",
        "const int64_t tasks = columns.block_count() * rows",
        "const int64_t tasks = (columns.block_count() - 1) * rows",
    ),
    "leaves a range of depth out of the sum": Patch(
        "gemm.cpp", "int64_t range = 1; range < ranges", "int64_t range = 2; range < ranges"
    ),
    "skips the last block of every range of depth": Patch(
        "gemm.cpp", "depth_ranges.length(depth_range) * columns", "(depth_ranges.length(depth_range) - 1) * columns"
    ),
    "im2col skips the last image": Patch(
        "im2col.cpp",
        "return ceil_div(problem.batch * output_size",
        "return ceil_div((problem.batch - (problem.batch > 1)) * output_size",
    ),
    "windows skip the last image": Patch(
        "shifted_windows.cpp",
        "slices_{problem.batch * problem",
        "slices_{std::max<int64_t>(1, problem.batch - 1) * problem",
    ),
    "windows skip the last half of the slices": Patch(
        "shifted_windows.cpp",
        "slices_{problem.batch * problem.depth.out_size,",
        "slices_{problem.batch * ((problem.depth.out_size + 1) / 2),",
    ),
    "windows skip the last image of a block": Patch(
        "shifted_windows.cpp",
        "slice < slice_count(block_index); ++slice",
        "slice + 1 < slice_count(block_index); ++slice",
    ),
    "windows skip the end of a row where vectors lie along channels": Patch(
        "shifted_windows.cpp", "part < parts.parts; ++part", "part + 1 < parts.parts; ++part"
    ),
    "skips the last channels where vectors lie along them": Patch(
        "row_panels.cpp", "steps{ceil_div(rows, width.step), ", "steps{rows / width.step, "
    ),
    "im2col takes slices outside the image for padding of nothing": Patch(
        "im2col.cpp", "slices_inside_[tap.z].contains(run.z) && ", ""
    ),
    "windows count no padding of slices": Patch("shifted_windows.cpp", "slices.contains(run.z) && ", ""),
    "strips skip a tap": Patch(
        "tile_kernel.h",
        "const auto update = [&](int64_t k, int64_t count) {",
        "const auto update = [&](int64_t k, int64_t count) {\n    if (kRows == 1 && k == 4) return;",
    ),
    "strips skip the last row of a panel": Patch(
        "shifted_windows.cpp",
        "row * column_pitch_ < panel.end; ++row)",
        "(row + 1) * column_pitch_ < panel.end; ++row)",
    ),
    "depthwise skips the last plane": Patch("planes.h", "plane < planes; ++plane", "plane < planes - 1; ++plane"),
    "depthwise skips the last rows": Patch(
        "depthwise.cpp", "y < axis.out_size; y += rows", "y + 1 < axis.out_size; y += rows"
    ),
    "depthwise skips the last columns": Patch(
        "plane_kernel.h", "(tile.columns - 1) / Simd::kLanes;", "tile.columns / Simd::kLanes - 1;"
    ),
    "depthwise skips a column of taps": Patch("plane_kernel.h", "int64_t tap_x = 0;", "int64_t tap_x = 1;"),
    "depthwise skips the topmost tap": Patch("plane_kernel.h", "tap_y < 0 ||", "tap_y < 1 ||"),
    "depthwise drops the bias": Patch(
        "depthwise.cpp", "operands_.bias ? operands_.bias + channel", "false ? operands_.bias + channel"
    ),
    "few outputs skip the last line": Patch("line_kernel.h", "i < tile.line_count;", "i + 1 < tile.line_count;"),
    "few outputs skip the ends of lines": Patch("line_kernel.h", "if (rest > 0) {", "if (rest > kLanes) {"),
    "few outputs drop the bias": Patch("line_kernel.h", "if (tile.bias) sum", "if (false) sum"),
    "few outputs leave a lane out of the sum": Patch(
        "line_kernel.h", "int64_t k = 1; k < holding", "int64_t k = 2; k < holding"
    ),
    "linear skips the features of a partial panel": Patch(
        "transposed_columns.cpp",
        "return ceil_div(problem.out_features, width.max);",
        "return problem.out_features / width.max;",
    ),
    "convolution drops the bias": Patch("conv.cpp", "!operands.bias ? Start::kNothing", "true ? Start::kNothing"),
    "linear drops the bias": Patch("linear.cpp", "operands.bias ? Start::kColumnBias : ", ""),
    "few rows skip the last columns": Patch(
        "linear.cpp",
        "column < problem.out_features; column += kMaxDotColumns",
        "column < problem.out_features - 3; column += kMaxDotColumns",
    ),
    "few rows skip the last elements": Patch("dot_kernel.h", "rest = tile.depth - k; rest > 0", "rest = 0; rest > 0"),
    "few rows drop the bias": Patch("dot_kernel.h", "if (tile.bias) sum", "if (false) sum"),
    "few rows leave a lane out of the sum": Patch(
        "dot_kernel.h", "int64_t k = 1; k < holding", "int64_t k = 2; k < holding"
    ),
    # Work that is done twice.
    "multiplies every tile twice": Patch(
        "gemm.cpp",
        "  family.function(vectors",
        "  for (int repeat = 0; repeat < 2; ++repeat) family.function(vectors",
    ),
    "adds the bias in every range of depth": Patch(
        "gemm.cpp",
        "return ProductOutput<Scalar>{Start::kNothing, nullptr,",
        "return ProductOutput<Scalar>{output.start, output.bias,",
    ),
    # Work that is done but counted wrongly.
    "counts an addition of partial sums that is not done": Patch(
        "tile_kernel.h",
        "    if (tiles.start == Start::kOutput) {",
        "    counts += PackedTally::pack(0, outputs, 0);\n    if (tiles.start == Start::kOutput) {",
    ),
    "few rows count waste lanes as products": Patch(
        "dot_kernel.h", "mul += kOutputs * count;", "mul += kOutputs * kLanes;"
    ),
    "few rows count an addition for the first product": Patch(
        "dot_kernel.h", "add += holding < count ? kOutputs * holding : ", "add += "
    ),
    "few rows see no zeros in the rows": Patch(
        "dot_kernel.h", "lanes -= minus_rows & ", "lanes -= (Mask{} - kRows) & "
    ),
    "few rows see no zeros in the columns": Patch(
        "dot_kernel.h",
        "minus_rows & this->minus_nonzero(load(tile.columns + j * tile.column_stride + k));",
        "minus_rows;",
    ),
    "few outputs count waste lanes as products": Patch(
        "line_kernel.h", "mul += kColumns * count;", "mul += kColumns * kLanes;"
    ),
    "few outputs count an addition for the first product": Patch(
        "line_kernel.h", "(holding < count ? holding : count)", "count"
    ),
    "few outputs count no padding beside a line": Patch(
        "few_outputs.cpp", "is_inside ? padding_[i] : ", "is_inside ? 0 : "
    ),
    "few outputs count no padding above and below": Patch(
        "few_outputs.cpp", "is_inside ? padding_[i] : problem_.width.kernel_size", "padding_[i]"
    ),
    "few outputs count padding as products of zero": Patch("line_kernel.h", "zero += mul - pad - ", "zero += mul - "),
    "few outputs see no zeros in the lines": Patch(
        "line_kernel.h", "LaneCounts<Simd>::minus_nonzero(row_vector) & ", ""
    ),
    "few outputs see no zeros in the columns": Patch("line_kernel.h", " & LaneCounts<Simd>::minus_nonzero(column)", ""),
    "packs rows once and keeps them for every group": Patch("row_panels.cpp", "block.group == group && ", ""),
    "depthwise counts waste columns as products": Patch(
        "plane_kernel.h", "count_products(tile.columns - x)", "count_products(Simd::kLanes)"
    ),
    "depthwise counts an addition for the first product": Patch(
        "plane_kernel.h", "empty_rows = tile.bias ? 0 : kRows;", "empty_rows = 0;"
    ),
    "depthwise counts no padding beside a row": Patch("plane_kernel.h", "pad += padding_inside + ", "pad += "),
    "depthwise counts a column of taps twice": Patch("plane_kernel.h", "pack(0, 0, 1)", "pack(0, 0, 2)"),
    "depthwise sees the topmost tap's rows only": Patch(
        "depthwise.cpp", "{first, first + problem_.height.kernel_size}", "{first, first + 1}"
    ),
    "depthwise counts no padding above and below": Patch("plane_kernel.h", " + (multiplied - inside) * products;", ";"),
    "depthwise counts padding as products of zero": Patch(
        "plane_kernel.h", "inside * products - padding_inside - ", "multiplied * products - "
    ),
    "depthwise sees no zeros among the weights": Patch(
        "plane_kernel.h", "nonzero_weights += weight[tap_y * kernel_width] != 0;", "nonzero_weights += 1;"
    ),
    "depthwise sees zeros in waste columns": Patch(
        "plane_kernel.h", "nonzero.sum(products)", "nonzero.sum(Simd::kLanes)"
    ),
    "counts products twice": Patch(
        "tile_kernel.h", "pack(products, products, kProducts", "pack(2 * products, products, kProducts"
    ),
    "keeps what is counted already": Patch("tally.h", "    tally_ = {};\n", ""),
    "counts waste columns as products": Patch("tile_kernel.h", "kRows * tiles.valid_columns;  ", "kLanes;  "),
    "counts an addition for the first product": Patch(
        "tile_kernel.h", "starts_empty ? products - outputs : products", "products"
    ),
    "counts no addition onto a bias": Patch(
        "tile_kernel.h", "starts_empty ? products - outputs : products", "products - outputs"
    ),
    "counts no addition onto an earlier depth block": Patch(
        "tile_kernel.h", "    counts += PackedTally::pack(0, outputs, 0);\n", ""
    ),
    "drops the padding count": Patch("tile_kernel.h", "updates += static_cast<int64_t>(where);", ""),
    "counts padding of one channel": Patch(
        "gemm.cpp", "products_per_input = row_panel.rows;", "products_per_input = 1;"
    ),
    "counts padding of waste channels": Patch(
        "gemm.cpp", "products_per_input = row_panel.rows;", "products_per_input = row_panel.packed_rows;"
    ),
    "counts waste channels as products": Patch(
        "gemm.cpp", "transposed ? row_panel.rows : panel.valid", "transposed ? row_panel.packed_rows : panel.valid"
    ),
    "sees no padding of the height": Patch("taps.h", " || !rows.contains(y)", ""),
    "sees no padding of the width": Patch(
        "taps.h", "? Padding::kNone : Padding::kBesideRows", "? Padding::kNone : Padding::kNone"
    ),
    "panels have the padding of others in other rows": Patch(
        "column_source.cpp", "|| (a.y == b.y && a.z == b.z)", "|| a.z == b.z"
    ),
    "panels have the padding of others in other slices": Patch(
        "column_source.cpp", "|| (a.y == b.y && a.z == b.z)", "|| a.y == b.y"
    ),
    "panels have the padding of others in the midst of a row": Patch("column_source.cpp", "&& a.x == b.x", ""),
    "shared padding is counted for every panel": Patch(
        "shifted_windows.cpp",
        "if (panel.update_list != list) continue;  // none of its own, or another one's",
        "if (panel.update_list == 0) continue;\n    list = panel.update_list;",
    ),
    "sees no padding beyond the first tap": Patch(
        "taps.h",
        "intersect(outputs_inside(axis, 0), outputs_inside(axis, axis.kernel_size - 1))",
        "outputs_inside(axis, 0)",
    ),
    "im2col counts no padding to the left": Patch(
        "im2col.cpp", "return before.length() + after.length();", "return after.length();"
    ),
    "im2col counts no padding to the right": Patch(
        "im2col.cpp", "return before.length() + after.length();", "return before.length();"
    ),
    "windows see zeros behind a row, not at the beginning of the next": Patch(
        "shifted_windows.cpp", "value_of(panel.begin + width_.step) - first_value", "width_.step"
    ),
    "strips count no padding beside a row": Patch(
        "shifted_windows.cpp",
        "row_is_inside ? run.length - inside : run.length",
        "row_is_inside ? 0 : run.length",
    ),
    "counts padding as products of zero": Patch(
        "tile_kernel.h", "counters.mul - counters.pad - inside_before", "counters.mul - inside_before"
    ),
    "sees no zeros among the weights": Patch(
        "tile_kernel.h", "int64_t{tiles.nonzero_rows[index * depth + k]}", "int64_t{kRows}"
    ),
    "sees no zeros among the inputs": Patch("tile_kernel.h", "* tiles.nonzero_columns[k];", "* tiles.valid_columns;"),
    "windows see zeros of the columns before": Patch(
        "shifted_windows.cpp",
        "+ length] - first[block.value_offsets[k]]",
        "+ length - 1] - first[block.value_offsets[k] - 1]",
    ),
    "compares one value of a vector": Patch(
        "copy.h", "lane < kLanes; ++lane) nonzero -=", "lane < 1; ++lane) nonzero -="
    ),
}

# Of pairs of bfloat16 alone.
PAIR_MUTANTS = {
    "counts one product of a pair": Patch("tile_kernel.h", "kProducts * outputs;", "outputs;"),
    "counts no addition within a first pair": Patch(
        "tile_kernel.h", "starts_empty ? products - outputs : products", "starts_empty ? 0 : products"
    ),
    "counts padding of one number of a pair": Patch(
        "tile_kernel.h", "padding_of(updates) * kProducts", "padding_of(updates)"
    ),
    "counts the zero behind an odd number": Patch("tile_kernel.h", "is_single ? count - of_second : count", "count"),
    "counts the padding of a zero behind an odd number": Patch("tile_kernel.h", " - padding_of(singles)", ""),
    "counts pairs as single numbers": Patch("tile_kernel.h", "k >= tiles.whole_pairs", "true"),
}

# On 4 x 8 tiles of the portable kernels these have several row panels and depth blocks, partial ones among them.
CASES: dict[str, ConvCase | LinearCase] = {
    "im2col": ConvCase(4, 30, (3, 3), 41, padding=(1, 1, 1, 1)),
    "im2col with groups": ConvCase(4, 20, (4, 3), 82, (3, 2), (2, 1), (2, 1, 0, 1), groups=2, bias=True),
    "pointwise": ConvCase(2, 300, (5, 7), 5, (1, 1), bias=True),
    "shifted windows": ConvCase(2, 70, (20, 20), 8, padding=(1, 1, 1, 1)),
    "vectors along channels": ConvCase(1, 60, (5, 5), 127, padding=(1, 1, 1, 1), bias=True),
    "rows of vectors along channels": ConvCase(2, 20, (8, 7), 8, (7, 7), padding=(3, 3, 3, 3)),
    "pointwise, vectors along channels": ConvCase(2, 520, (3, 3), 31, (1, 1), bias=True),
    "depthwise": ConvCase(2, 6, (9, 11), 6, padding=(1, 1, 1, 1), groups=6),
    "depthwise, stride 2": ConvCase(2, 6, (9, 11), 6, stride=(2, 2), padding=(1, 1, 0, 1), groups=6, bias=True),
    "more taps than are summed at a time": ConvCase(2, 1, (24, 26), 6, (24, 23), padding=(2, 2, 2, 2)),
    "few outputs of many products": ConvCase(1, 460, (3, 4), 3, padding=(1, 1, 1, 1), bias=True),
    "few outputs of many taps": ConvCase(1, 3, (41, 42), 5, (40, 40), padding=(1, 1, 1, 1)),
    "few outputs of planes": ConvCase(2, 8, (9, 10), 4, (8, 9), padding=(1, 1, 1, 1), groups=2, bias=True),
    "few outputs of planes, dilated": ConvCase(
        1, 4, (13, 15), 2, (6, 7), padding=(1, 1, 1, 1), dilation=(2, 2), groups=2
    ),
    "strips": ConvCase(2, 6, (9, 11), 6, padding=(1, 1, 1, 1), dilation=(2, 1), groups=6),
    "im2col with depth": cube(2, 20, (3, 4, 3), 41, (3, 3, 3), padding=(1, 1, 1, 1, 1, 1)),
    "shifted windows with depth": cube(2, 3, (4, 9, 11), 3, (3, 3, 3), padding=(1, 1, 1, 1, 1, 1), groups=3),
    "linear": LinearCase(23, 300, 35),
    "linear with bias": LinearCase(21, 520, 41, bias=True),
    "few rows": LinearCase(7, 301, 35),
    "few rows with bias": LinearCase(5, 3, 41, bias=True),
}


def counts_of_pairs(kernels: Kernels, case: ConvCase | LinearCase) -> dict[str, int]:
    input, weight, bias = case.tensors()
    multiply = kernels.conv_of_pairs if isinstance(case, ConvCase) else kernels.linear_of_pairs
    return counts_of(multiply(case.problem, input.bfloat16(), weight.bfloat16(), bias)[1])  # type: ignore[arg-type]


def wrongly_counted_cases(kernels: Kernels) -> list[str]:
    """Names of the cases whose counters disagree with the formula or with brute force."""
    kernels.set_num_threads(2)
    wrong = []
    for name, case in CASES.items():
        tensors = case.tensors()
        if isinstance(case, ConvCase):
            _, counters = kernels.conv(case.problem, *tensors, count_zero=True)
        else:
            _, counters = kernels.linear(case.problem, *tensors, count_zero=True)
        if counts_of(counters) != case.expected_counts(*tensors[:2], count_zero=True):
            wrong.append(name)
        elif counts_of_pairs(kernels, case) != case.expected_counts(*tensors[:2], False):
            wrong.append(f"{name}, of pairs")
    return wrong


def test_the_kernels_as_they_are_count_right() -> None:
    assert wrongly_counted_cases(build_kernels(portable_only=True)) == []


@pytest.mark.parametrize("patch", sampled(MUTANTS | PAIR_MUTANTS))
def test_counters_show_the_defect(patch: Patch) -> None:
    assert wrongly_counted_cases(build_kernels([patch], portable_only=True)) != []


@pytest.mark.parametrize("text", ["mul += no_such_thing;", "accumulators"])
def test_a_patch_must_fit_exactly_once(text: str) -> None:
    with pytest.raises(ValueError, match="not once"):
        build_kernels([dataclasses.replace(MUTANTS["counts products twice"], original=text)])

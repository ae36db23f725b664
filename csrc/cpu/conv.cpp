// The counted convolution: rows of weights times the columns of the input, group by group. Chooses how the columns are
// packed (im2col or shifted windows), along which side of the product the vectors lie, and the family of tiles.
#include <omp.h>

#include <algorithm>
#include <memory>

#include "depthwise.h"
#include "few_outputs.h"
#include "gemm.h"
#include "im2col.h"
#include "kernels.h"
#include "pairs.h"
#include "shifted_windows.h"

namespace flopcuda::cpu {
namespace {

// Measured: copying one element takes about as long as this many multiply-adds of a whole vector, and so does saying
// for an update of a panel where its columns are; less where it is said for the same part of every row.
constexpr double kCopyCost = 1, kUpdateCost = 3, kSharedUpdateCost = 1;

// Measured, with AVX-512 and AVX2: transposing one element of the output takes about as long as this many of its
// multiply-adds.
template <class Scalar>
double transpose_cost(const TileFamily<Scalar>& family) {
  return family.lanes * sizeof(Scalar) == 64 ? 8 : 28;
}

// Tiles of fewer broadcast columns wait for the latency of their multiply-adds.
constexpr int64_t kMinBroadcasts = 4;

// With fewer output channels in a group than this, strips are faster than blocks.
constexpr int64_t kMinBlockRows = 4;

// Of weights that are packed as a whole: more than layers have, less than factors of large matrix products.
constexpr int64_t kMaxPackedBytes = 64 * 1024 * 1024;

bool is_pointwise(const Axis& axis) {
  return axis.kernel_size == 1 && axis.stride == 1 && axis.pad == 0 && axis.in_size == axis.out_size;
}

// A pointwise convolution sees no rows: an image is one long row, so that runs are as long as they can be.
ConvProblem fold_pointwise(ConvProblem problem) {
  if (!is_pointwise(problem.depth) || !is_pointwise(problem.height) || !is_pointwise(problem.width)) return problem;
  problem.width.in_size = problem.width.out_size = output_size(problem);
  problem.depth = problem.height = kFlatAxis;
  return problem;
}

// One way to compute a convolution.
struct Way {
  Vectors vectors;
  bool windows;  // or else im2col
};

// Columns that are multiplied, waste included.
template <class Scalar>
int64_t multiplied_columns(const ConvProblem& problem, const TileFamily<Scalar>& family, const Way& way) {
  const PanelWidth width = column_width(family, way.vectors);
  const int64_t slices = problem.batch * problem.depth.out_size;
  if (!way.windows) return width.rounded(problem.batch * output_size(problem));
  if (way.vectors == Vectors::kColumns) {
    return slices * width.rounded(ShiftedWindows<Scalar>::columns_per_slice(problem, width));
  }
  const int64_t row_panels = ceil_div(problem.width.out_size, width.max);  // each within a row of the output
  return slices * problem.height.out_size * std::max(problem.width.out_size, row_panels * kMinBroadcasts);
}

// Multiply-adds of one update, and what costs time beside them. Im2col copies an element per column and tap, of narrow
// panels as fast as whole ones; shifted windows copy each element of the padded image once, but multiply waste columns
// too. Vectors along the columns waste lanes at the end of an image, those along the rows in the last channels, and
// their tiles are transposed.
template <class Scalar>
double cost(const ConvProblem& problem, const TileFamily<Scalar>& family, const Way& way) {
  const int64_t taps = problem.height.kernel_size * problem.width.kernel_size;
  const double rows = row_width(family, way.vectors).rounded(problem.out_channels / problem.groups);
  const double depth = reduction_length(problem);
  const double columns = column_width(family, way.vectors).max;
  const double copies =
      way.windows ? double(std::min(phase_count(problem), taps)) / taps : family.max_columns() / columns;
  const double transposing = way.vectors == Vectors::kRows ? rows * transpose_cost(family) / depth : 0;
  const double updating = way.windows && way.vectors == Vectors::kRows ? kSharedUpdateCost : kUpdateCost;
  const double packing = (copies * kCopyCost + updating / columns) * family.lanes;
  return multiplied_columns(problem, family, way) * (rows + transposing + packing);
}

template <class Scalar>
Way cheapest_way(const ConvProblem& problem, const TileFamily<Scalar>& family) {
  // Windows are no gain where every tap has a phase of its own.
  const bool taps_share_phases = phase_count(problem) < problem.height.kernel_size * problem.width.kernel_size;
  Way best{Vectors::kColumns, false};
  for (const Way& way : {Way{Vectors::kColumns, true}, Way{Vectors::kRows, false}, Way{Vectors::kRows, true}}) {
    if (way.windows &&
        !(taps_share_phases && ShiftedWindows<Scalar>::fit(problem, column_width(family, way.vectors)))) {
      continue;
    }
    if (cost(problem, family, way) < cost(problem, family, best)) best = way;
  }
  return best;
}

bool has_no_outputs(const ConvProblem& problem) {
  return problem.batch == 0 || problem.out_channels == 0 || output_size(problem) == 0;
}

// Tiles: block, of many rows, and strip, of one. products: of each output element.
template <class Scalar, class Tiles>
void convolve(const ConvProblem& problem, int64_t products, const Operands<Scalar>& operands, const Tiles& tiles,
              bool count_zero, Counters& counters) {
  const int64_t out_size = output_size(problem);
  const int64_t group_rows = problem.out_channels / problem.groups;
  const int64_t depth = reduction_length(problem), outputs = problem.batch * problem.out_channels * out_size;
  const int threads = omp_get_max_threads();
  const TileFamily<Scalar>& family = group_rows < kMinBlockRows ? tiles.strip : tiles.block;
  const Way way = cheapest_way(problem, family);
  const PanelWidth rows_width = row_width(family, way.vectors), columns_width = column_width(family, way.vectors);
  const std::optional<WeightLayout>& weight = operands.layout;
  const MatrixLayout layout =
      weight ? MatrixLayout{weight->out_channel, kernel_size(problem), weight->in_channel, weight->taps}
             : MatrixLayout::dense(depth);
  RowPanels<Scalar> rows(operands.weight, layout, problem.groups, group_rows, depth, rows_width);

  std::unique_ptr<ColumnSource<Scalar>> columns;
  TaskGrid grid;
  if (way.windows) {
    // Few blocks where the threads can share panels of rows instead: each lays its columns out and reads the weights.
    const bool rows_are_enough = threads == 1 || problem.groups * rows.panel_count() >= 2 * threads;
    const int64_t blocks_wanted = rows_are_enough ? 1 : 4 * threads;
    columns = std::make_unique<ShiftedWindows<Scalar>>(problem, operands.input, columns_width, blocks_wanted, threads);
    const ProductShape shape{problem.groups, rows.panel_count(),    columns->block_count(), outputs,
                             depth,          columns->depth_block()};
    grid = plan_tasks(shape, 1, kSharedPackingCost, threads);
  } else {
    const ProductShape shape{problem.groups,
                             rows.panel_count(),
                             Im2col<Scalar>::panel_count(problem, columns_width),
                             outputs,
                             depth,
                             max_depth_block(columns_width)};
    grid = plan_tasks(shape, max_block_panels(columns_width, sizeof(Scalar)), kPackingCost, threads);
    columns = std::make_unique<Im2col<Scalar>>(problem, operands.input, columns_width, grid.column_blocks);
  }
  if (operands.kept) {
    rows.keep(*operands.kept, columns->depth_block());
  } else if (columns->block_count() > 1 && rows.bytes() <= kMaxPackedBytes && !count_zero) {
    // Where zeros are counted, rows are looked at for them as they are packed.
    rows.pack_all(columns->depth_block());
  }
  const bool wide = way.vectors == Vectors::kRows;
  const AlignedArray<Scalar> wide_bias = widen_bias(wide ? operands.bias : nullptr, problem.out_channels);
  const Start start = !operands.bias ? Start::kNothing : wide ? Start::kColumnBias : Start::kRowBias;
  const ProductOutput<Scalar> output{
      start, wide ? wide_bias.data() : operands.bias, operands.output, out_size, outputs, products};
  multiply(family, way.vectors, rows, *columns, grid, output, count_zero, counters);
}

}  // namespace

bool takes_weight_layout(const ConvProblem& problem) { return !is_depthwise(problem); }

bool takes_tap_layout(const ConvProblem& problem) { return !is_depthwise(problem) && !has_few_outputs(problem); }

bool is_worth_keeping(const ConvProblem& problem) {
  return !is_depthwise(problem) && !has_few_outputs(problem) &&
         is_worth_keeping(problem.out_channels * reduction_length(problem), problem.batch * output_size(problem));
}

template <class Scalar>
void conv(const ConvProblem& original_problem, const Operands<Scalar>& operands, bool count_zero, Counters& counters) {
  const ConvProblem problem = fold_pointwise(original_problem);
  if (has_no_outputs(problem)) return;
  if (is_depthwise(problem)) return depthwise(problem, operands, count_zero, counters);
  if (has_few_outputs(problem)) return few_outputs(problem, operands, count_zero, counters);
  convolve(problem, reduction_length(problem), operands, selected_tiles<Scalar>(), count_zero, counters);
}

void conv_of_pairs(const ConvProblem& original_problem, const Operands<float>& operands, Counters& counters) {
  const ConvProblem of_numbers = fold_pointwise(original_problem);
  if (has_no_outputs(of_numbers)) return;
  ConvProblem of_pairs = of_numbers;
  of_pairs.in_channels = of_numbers.groups * pair_count(of_numbers.in_channels / of_numbers.groups);
  convolve(of_pairs, reduction_length(of_numbers), operands, selected_pair_tiles(), false, counters);
}

template void conv(const ConvProblem&, const Operands<float>&, bool, Counters&);
template void conv(const ConvProblem&, const Operands<double>&, bool, Counters&);

}  // namespace flopcuda::cpu

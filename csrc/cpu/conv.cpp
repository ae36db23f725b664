// The counted convolution: rows of weights times the columns of the input, group by group. Chooses how the columns are
// packed (im2col or shifted windows) and the family of tiles.
#include <omp.h>

#include <algorithm>
#include <memory>

#include "depthwise.h"
#include "gemm.h"
#include "im2col.h"
#include "kernels.h"
#include "shifted_windows.h"

namespace flopcuda::cpu {
namespace {

constexpr int64_t kMaxBlockPanels = 8;  // of 32 KiB: a block, its rows and its outputs share L2

// Measured: copying one element takes about as long as this many multiply-adds of a whole vector.
constexpr int64_t kCopyCost = 1;

// With fewer output channels in a group than this, strips are faster than blocks.
constexpr int64_t kMinBlockRows = 4;

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

// Im2col copies an element per column and tap; shifted windows copy each element of the padded image once but multiply
// waste columns too. Compares the two, per update.
template <class Scalar>
bool windows_are_cheaper(const ConvProblem& problem, const TileFamily<Scalar>& family) {
  const int64_t rows = problem.out_channels / problem.groups;
  const int64_t taps = problem.height.kernel_size * problem.width.kernel_size;
  const int64_t im2col_columns = Im2col<Scalar>::panel_count(problem, family) * family.max_columns();
  const int64_t window_columns = problem.batch * problem.depth.out_size *
                                 ceil_div(ShiftedWindows<Scalar>::columns_per_slice(problem), family.lanes) *
                                 family.lanes;
  const int64_t copy_cost = kCopyCost * family.lanes;
  return window_columns * (rows + copy_cost * std::min(phase_count(problem), taps) / taps) <
         im2col_columns * (rows + copy_cost);
}

}  // namespace

template <class Scalar>
void conv(const ConvProblem& original_problem, const Operands<Scalar>& operands, bool count_zero, Counters& counters) {
  const ConvProblem problem = fold_pointwise(original_problem);
  const int64_t out_size = output_size(problem);
  if (problem.batch == 0 || problem.out_channels == 0 || out_size == 0) return;
  if (is_depthwise(problem)) return depthwise(problem, operands, count_zero, counters);

  const int64_t group_rows = problem.out_channels / problem.groups;
  const int64_t depth = problem.in_channels / problem.groups * kernel_size(problem);
  const int threads = omp_get_max_threads();
  const TileFamilies<Scalar>& tiles = selected_tiles<Scalar>();
  const TileFamily<Scalar>& family = group_rows < kMinBlockRows ? tiles.strip : tiles.block;
  const int64_t row_panels = ceil_div(group_rows, family.max_rows);

  std::unique_ptr<ColumnSource<Scalar>> columns;
  TaskGrid grid;
  if (windows_are_cheaper(problem, family)) {
    columns = std::make_unique<ShiftedWindows<Scalar>>(problem, operands.input, family, threads);
    grid = plan_tasks(problem.groups, row_panels, columns->block_count(), 1, threads);
  } else {
    const int64_t panels = Im2col<Scalar>::panel_count(problem, family);
    grid = plan_tasks(problem.groups, row_panels, panels, kMaxBlockPanels, threads);
    columns = std::make_unique<Im2col<Scalar>>(problem, operands.input, family, grid.column_blocks);
  }
  const RowPanels<Scalar> rows(operands.weight, problem.groups, group_rows, depth, family.max_rows);
  const ProductOutput<Scalar> output{operands.bias ? Start::kRowBias : Start::kNothing, operands.bias, operands.output,
                                     out_size};
  multiply(family, rows, *columns, grid.row_ranges, output, count_zero, counters);
}

template void conv(const ConvProblem&, const Operands<float>&, bool, Counters&);
template void conv(const ConvProblem&, const Operands<double>&, bool, Counters&);

}  // namespace flopcuda::cpu

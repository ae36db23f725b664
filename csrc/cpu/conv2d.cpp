// The counted convolution: rows of weights times the columns of the input, group by group. Chooses how the columns are
// packed (im2col or shifted windows) and the family of tiles.
#include <omp.h>

#include <algorithm>
#include <memory>

#include "gemm.h"
#include "im2col.h"
#include "kernels.h"
#include "shifted_windows.h"

namespace flopcuda::cpu {
namespace {

constexpr int64_t kMaxBlockPanels = 16;  // 16 panels x 32 columns x 256 updates: 512 KiB of L2

// Measured: copying one float takes as long as this many multiply-adds of a whole vector.
constexpr int64_t kCopyCost = 4;

// With fewer output channels in a group than this, strips are faster than blocks.
constexpr int64_t kMinBlockRows = 4;

// A pointwise convolution sees no rows: an image is one long row, so that runs are as long as they can be.
Conv2dProblem fold_pointwise(Conv2dProblem problem) {
  const bool pointwise = problem.kernel_height == 1 && problem.kernel_width == 1 && problem.stride_height == 1 &&
                         problem.stride_width == 1 && problem.pad_top == 0 && problem.pad_left == 0 &&
                         problem.out_height == problem.in_height && problem.out_width == problem.in_width;
  if (!pointwise) return problem;
  problem.in_width *= problem.in_height;
  problem.out_width *= problem.out_height;
  problem.in_height = problem.out_height = 1;
  return problem;
}

// Im2col copies a float per column and tap; shifted windows copy each float of the padded image once but multiply waste
// columns too. Compares the two, per update.
bool windows_are_cheaper(const Conv2dProblem& problem, const TileFamily& family) {
  const int64_t rows = problem.out_channels / problem.groups;
  const int64_t taps = problem.kernel_height * problem.kernel_width;
  const int64_t phases = problem.stride_height * problem.stride_width;
  const int64_t im2col_columns = Im2col::panel_count(problem, family) * family.max_columns();
  const int64_t window_columns =
      problem.batch * ceil_div(ShiftedWindows::columns_per_image(problem), family.lanes) * family.lanes;
  const int64_t copy_cost = kCopyCost * family.lanes;
  return window_columns * (rows + copy_cost * std::min(phases, taps) / taps) < im2col_columns * (rows + copy_cost);
}

}  // namespace

void conv2d(const Conv2dProblem& original_problem, const float* input, const float* weight, const float* bias,
            float* output, bool count_zero, Counters& counters) {
  const Conv2dProblem problem = fold_pointwise(original_problem);
  const int64_t out_size = problem.out_height * problem.out_width;
  if (problem.batch == 0 || problem.out_channels == 0 || out_size == 0) return;

  const int64_t group_rows = problem.out_channels / problem.groups;
  const int64_t depth = problem.in_channels / problem.groups * problem.kernel_height * problem.kernel_width;
  const int threads = omp_get_max_threads();
  const MicroKernels& kernels = selected_micro_kernels();
  const TileFamily& family = group_rows < kMinBlockRows ? kernels.strip : kernels.block;
  const int64_t row_panels = ceil_div(group_rows, family.max_rows);

  std::unique_ptr<ColumnSource> columns;
  TaskGrid grid;
  if (windows_are_cheaper(problem, family)) {
    columns = std::make_unique<ShiftedWindows>(problem, input, family, threads);
    grid = plan_tasks(problem.groups, row_panels, columns->block_count(), 1, threads);
  } else {
    grid = plan_tasks(problem.groups, row_panels, Im2col::panel_count(problem, family), kMaxBlockPanels, threads);
    columns = std::make_unique<Im2col>(problem, input, family, grid.column_blocks);
  }
  const RowPanels rows(weight, problem.groups, group_rows, depth, family.max_rows, columns->depth_block(), count_zero);
  multiply(family, rows, *columns, grid.row_ranges, {bias ? Start::kRowBias : Start::kNothing, bias, output, out_size},
           count_zero, counters);
}

}  // namespace flopcuda::cpu

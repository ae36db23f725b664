// The counted linear layer: rows of the input times columns that are rows of the weight.
#include <omp.h>

#include <algorithm>

#include "gemm.h"
#include "kernels.h"
#include "transposed_columns.h"

namespace flopcuda::cpu {
namespace {

constexpr int64_t kMaxBlockPanels = 8;  // 8 panels x 32 columns x 256 updates: 256 KiB of L2

// A tile reads its bias up to its full width.
AlignedArray<float> widen_bias(const float* bias, int64_t size) {
  AlignedArray<float> wide(size + kMaxTileColumns);
  std::copy(bias, bias + size, wide.data());
  std::fill(wide.data() + size, wide.data() + size + kMaxTileColumns, 0.0f);
  return wide;
}

}  // namespace

void linear(const LinearProblem& problem, const float* input, const float* weight, const float* bias, float* output,
            bool count_zero, Counters& counters) {
  if (problem.rows == 0 || problem.out_features == 0) return;
  const TileFamily& family = selected_micro_kernels().block;
  const TaskGrid grid =
      plan_tasks(1, ceil_div(problem.rows, family.max_rows), TransposedColumns::panel_count(problem, family),
                 kMaxBlockPanels, omp_get_max_threads());
  const TransposedColumns columns(problem, weight, family, grid.column_blocks);
  const RowPanels rows(input, 1, problem.rows, problem.in_features, family.max_rows, columns.depth_block(), count_zero);
  const AlignedArray<float> wide_bias = bias ? widen_bias(bias, problem.out_features) : AlignedArray<float>();
  const ProductOutput product_output{bias ? Start::kColumnBias : Start::kNothing, wide_bias.data(), output,
                                     problem.out_features};
  multiply(family, rows, columns, grid.row_ranges, product_output, count_zero, counters);
}

}  // namespace flopcuda::cpu

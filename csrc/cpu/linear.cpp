// The counted linear layer: rows of the input times columns that are rows of the weight; a few rows as dot products.
#include <omp.h>

#include <algorithm>

#include "gemm.h"
#include "kernels.h"
#include "pairs.h"
#include "transposed_columns.h"

namespace flopcuda::cpu {
namespace {

// So few rows that packing the weight would take longer than multiplying it.
constexpr int64_t kMaxUnpackedRows = 16;

#pragma omp declare reduction(+ : Counters : omp_out += omp_in)

template <class Scalar>
void multiply_blocks(const LinearProblem& problem, int64_t products, const Operands<Scalar>& operands,
                     const TileFamily<Scalar>& family, bool count_zero, Counters& counters) {
  const PanelWidth row_panels = row_width(family, Vectors::kColumns);
  const PanelWidth column_panels = column_width(family, Vectors::kColumns);
  const int64_t outputs = problem.rows * problem.out_features;
  const ProductShape shape{1,
                           ceil_div(problem.rows, row_panels.max),
                           TransposedColumns<Scalar>::panel_count(problem, column_panels),
                           outputs,
                           problem.in_features,
                           max_depth_block(column_panels)};
  const TaskGrid grid =
      plan_tasks(shape, max_block_panels(column_panels, sizeof(Scalar)), kPackingCost, omp_get_max_threads());
  const TransposedColumns<Scalar> columns(problem, operands.weight, column_panels, grid.column_blocks, operands.kept);
  const RowPanels<Scalar> rows(operands.input, MatrixLayout::dense(problem.in_features), 1, problem.rows,
                               problem.in_features, row_panels);
  const AlignedArray<Scalar> wide_bias = widen_bias(operands.bias, problem.out_features);
  const ProductOutput<Scalar> output{operands.bias ? Start::kColumnBias : Start::kNothing,
                                     wide_bias.data(),
                                     operands.output,
                                     problem.out_features,
                                     outputs,
                                     products};
  multiply(family, Vectors::kColumns, rows, columns, grid, output, count_zero, counters);
}

}  // namespace

bool has_few_rows(const LinearProblem& problem) { return problem.rows <= kMaxUnpackedRows; }

bool is_worth_keeping(const LinearProblem& problem) {
  return problem.triangle == Triangle::none && !has_few_rows(problem) &&
         is_worth_keeping(problem.out_features * problem.in_features, problem.rows);
}

// Dot products of the operands as they are, the output features shared among threads.
template <class Scalar, class Weight>
void linear_of_few_rows(const LinearProblem& problem, const Operands<Scalar, Weight>& operands, bool count_zero,
                        Counters& counters) {
  const DotFamily<Scalar, Weight>& dots = selected_dots<Scalar, Weight>();
  const int64_t depth = problem.in_features;
  Counters total;
#pragma omp parallel for schedule(static) reduction(+ : total)
  for (int64_t column = 0; column < problem.out_features; column += kMaxDotColumns) {
    const int64_t columns = std::min<int64_t>(kMaxDotColumns, problem.out_features - column);
    for (int64_t row = 0; row < problem.rows; row += kMaxDotRows) {
      const int64_t rows = std::min<int64_t>(kMaxDotRows, problem.rows - row);
      const DotTile<Scalar, Weight> tile{depth,
                                         operands.input + row * depth,
                                         depth,
                                         operands.weight + column * depth,
                                         depth,
                                         operands.bias ? operands.bias + column : nullptr,
                                         operands.output + row * problem.out_features + column,
                                         problem.out_features};
      dots.functions[count_zero][rows - 1][columns - 1](tile, total);
    }
  }
  counters += total;
}

template <class Scalar>
void linear(const LinearProblem& problem, const Operands<Scalar>& operands, bool count_zero, Counters& counters) {
  if (problem.rows == 0 || problem.out_features == 0) return;
  if (has_few_rows(problem)) return linear_of_few_rows(problem, operands, count_zero, counters);
  multiply_blocks(problem, problem.in_features, operands, selected_tiles<Scalar>().block, count_zero, counters);
}

void linear_of_pairs(const LinearProblem& of_numbers, const Operands<float>& operands, Counters& counters) {
  if (of_numbers.rows == 0 || of_numbers.out_features == 0) return;
  LinearProblem of_pairs = of_numbers;
  of_pairs.in_features = pair_count(of_numbers.in_features);
  multiply_blocks(of_pairs, of_numbers.in_features, operands, selected_pair_tiles().block, false, counters);
}

template void linear_of_few_rows(const LinearProblem&, const Operands<float, BFloat16>&, bool, Counters&);
template void linear_of_few_rows(const LinearProblem&, const Operands<float, Float16>&, bool, Counters&);
template void linear(const LinearProblem&, const Operands<float>&, bool, Counters&);
template void linear(const LinearProblem&, const Operands<double>&, bool, Counters&);

}  // namespace flopcuda::cpu

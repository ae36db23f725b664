// Matrix products of which a triangle is wanted: of each row as many columns, or products, as it uses, as dot products.
//
// Rows next to each other differ in one output or product. Each is multiplied by itself, so that nothing beyond the
// diagonal is; nothing is packed.
#include <omp.h>

#include <algorithm>

#include "kernels.h"
#include "micro_kernel.h"

namespace flopcuda::cpu {
namespace {

#pragma omp declare reduction(+ : Counters : omp_out += omp_in)

// row: of the whole batch, one product after another.
template <class Scalar>
void multiply_row(const LinearProblem& problem, const Operands<Scalar>& operands, int64_t row, Counters& counters) {
  const DotFamily<Scalar>& dots = selected_dots<Scalar, Scalar>();
  const int64_t used = row % problem.rows + 1;
  const bool is_output = problem.triangle == Triangle::output;
  const int64_t columns = is_output ? std::min(used, problem.out_features) : problem.out_features;
  const int64_t depth = is_output ? problem.in_features : std::min(used, problem.in_features);
  const Scalar* const weight = operands.weight + row / problem.rows * problem.out_features * problem.in_features;
  Scalar* const output = operands.output + row * problem.out_features;
  for (int64_t column = 0; column < columns; column += kMaxDotColumns) {
    const DotTile<Scalar> tile{depth,
                               operands.input + row * problem.in_features,
                               problem.in_features,
                               weight + column * problem.in_features,
                               problem.in_features,
                               nullptr,
                               output + column,
                               problem.out_features};
    dots.functions[false][0][std::min<int64_t>(kMaxDotColumns, columns - column) - 1](tile, counters);
  }
  std::fill(output + columns, output + problem.out_features, Scalar{0});
}

}  // namespace

template <class Scalar>
void triangular(const LinearProblem& problem, const Operands<Scalar>& operands, Counters& counters) {
  Counters total;
#pragma omp parallel for schedule(dynamic, 16) reduction(+ : total)
  for (int64_t row = 0; row < problem.batch * problem.rows; ++row) multiply_row(problem, operands, row, total);
  counters += total;
}

template void triangular(const LinearProblem&, const Operands<float>&, Counters&);
template void triangular(const LinearProblem&, const Operands<double>&, Counters&);

}  // namespace flopcuda::cpu

// Matrix products of which a triangle is wanted: of each row the columns, or products, that it uses, as dot products.
//
// Rows next to each other differ in one output or product. What some rows have in common is multiplied together, and
// what some of them use besides row by row, so that nothing beyond the diagonal is; nothing is packed.
#include <omp.h>

#include <algorithm>

#include "kernels.h"
#include "micro_kernel.h"
#include "taps.h"

namespace flopcuda::cpu {
namespace {

#pragma omp declare reduction(+ : Counters : omp_out += omp_in)

// Some products of the outputs in some rows and columns; onto those in the output, if they are not the first ones.
template <class Scalar>
void multiply_part(const LinearProblem& problem, const Operands<Scalar>& product, Range rows, Range columns,
                   Range products, bool are_first, Counters& counters) {
  const auto& functions = selected_dots<Scalar, Scalar>().functions[false][rows.length() - 1];
  const int64_t depth = problem.in_features;
  for (int64_t column = columns.begin; column < columns.end; column += kMaxDotColumns) {
    Scalar* const output = product.output + rows.begin * problem.out_features + column;
    const DotTile<Scalar> tile{products.length(),
                               product.input + rows.begin * depth + products.begin,
                               depth,
                               product.weight + column * depth + products.begin,
                               depth,
                               are_first ? nullptr : output,
                               output,
                               problem.out_features};
    functions[std::min<int64_t>(kMaxDotColumns, columns.end - column) - 1](tile, counters);
  }
}

template <class Scalar>
void multiply_rows(const LinearProblem& problem, const Operands<Scalar>& product, Range rows, Counters& counters) {
  const bool is_output = problem.triangle == Triangle::output;
  const int64_t width = is_output ? problem.out_features : problem.in_features;
  const Range outputs{0, problem.out_features}, products{0, problem.in_features};
  const auto used = [&](int64_t row) {
    return problem.triangle == Triangle::upper_input ? Range{std::min(row, width), width}
                                                     : Range{0, std::min(row + 1, width)};
  };
  const auto multiply = [&](Range rows, Range used, bool are_first) {
    multiply_part(problem, product, rows, is_output ? used : outputs, is_output ? products : used, are_first, counters);
  };
  const Range common = intersect(used(rows.begin), used(rows.end - 1));
  const bool is_shared = common.length() > 0;
  if (is_shared) multiply(rows, common, true);
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    const Range all = used(row);
    const Range rest = all.begin < common.begin ? Range{all.begin, common.begin} : Range{common.end, all.end};
    if (rest.length() > 0) multiply({row, row + 1}, rest, is_output || !is_shared);
    Scalar* const output = product.output + row * problem.out_features;
    if (is_output || all.length() == 0) {
      std::fill(output + (is_output ? all.end : 0), output + problem.out_features, Scalar{0});
    }
  }
}

}  // namespace

template <class Scalar>
void triangular(const LinearProblem& problem, const Operands<Scalar>& operands, Counters& counters) {
  const int64_t groups = ceil_div(problem.rows, kMaxDotRows);
  Counters total;
#pragma omp parallel for schedule(dynamic, 4) reduction(+ : total)
  for (int64_t group = 0; group < problem.batch * groups; ++group) {
    const int64_t batch = group / groups, first = group % groups * kMaxDotRows;
    const Operands<Scalar> product{operands.input + batch * problem.rows * problem.in_features,
                                   operands.weight + batch * problem.out_features * problem.in_features, nullptr,
                                   operands.output + batch * problem.rows * problem.out_features};
    multiply_rows(problem, product, {first, std::min(first + kMaxDotRows, problem.rows)}, total);
  }
  counters += total;
}

template void triangular(const LinearProblem&, const Operands<float>&, Counters&);
template void triangular(const LinearProblem&, const Operands<double>&, Counters&);

}  // namespace flopcuda::cpu

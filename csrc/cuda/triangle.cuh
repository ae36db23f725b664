// The part of a block's outputs and products that lies on or below the diagonal of a triangular matrix. A block that
// uses nothing multiplies nothing; another one multiplies whole tiles and steps, and counts what is used of them.
#pragma once

#include <cstdint>

#include "common/problem.h"
#include "cuda/tiles.h"

namespace flopcuda::cuda {

// What a block's first row uses, from the block's first column on and from the first product on; each row after it
// uses one more. May be negative.
struct UsedPart {
  static constexpr int ALL = 1 << 30;

  int columns = ALL;
  int products = ALL;

  // The products of an output that some of so many rows uses, of all that it has.
  __device__ int reduction(int rows, int length) const {
    return columns + rows <= 1 ? 0 : min(length, products + rows - 1);
  }

  __device__ bool uses(int row, int column) const { return column < columns + row; }
};

// first_row, first_column: the block's, in the matrices.
__device__ inline UsedPart locate_used(Triangle triangle, int64_t first_row, int64_t first_column) {
  constexpr int64_t ALL = UsedPart::ALL;
  UsedPart used;
  if (triangle == Triangle::output) used.columns = static_cast<int>(max(min(first_row - first_column + 1, ALL), -ALL));
  if (triangle == Triangle::input) used.products = static_cast<int>(min(first_row + 1, ALL));
  return used;
}

// Of what a thread has issued.
struct UsedCounts {
  int64_t outputs = 0;
  int64_t products = 0;
};

// products: issued of each output. row(i): one of the thread's ROWS, in the block, which has so many rows.
// count_columns(limit): of the thread's, how many lie before a column of the block.
template <int ROWS, class Row, class CountColumns>
__device__ inline UsedCounts count_used(const UsedPart& used, uint32_t products, int rows, const Row& row,
                                        const CountColumns& count_columns) {
  UsedCounts counts;
#pragma unroll
  for (int i = 0; i < ROWS; ++i) {
    if (row(i) >= rows) continue;
    const int64_t outputs = count_columns(used.columns + row(i));
    counts.outputs += outputs;
    counts.products += outputs * min(products, static_cast<uint32_t>(used.products + row(i)));
  }
  return counts;
}

}  // namespace flopcuda::cuda

// The part of a block's outputs and products that a triangular matrix uses: what lies on or below its diagonal, or, of
// an upper one, on or above it. A block that uses nothing multiplies nothing; another one multiplies whole tiles and
// steps, and counts what is used of them.
#pragma once

#include <cstdint>

#include "common/problem.h"
#include "cuda/tiles.h"

namespace flopcuda::cuda {

// What a block's first row uses, from the block's first column on and from its first product on. The limits of each row
// after it are one further on. May be negative.
struct UsedPart {
  static constexpr int ALL = 1 << 30;

  // Without values of their own: blocks keep this in shared memory, which nothing initializes.
  int first_product;  // of those of an output: some row uses none before it
  int columns;        // those before
  int products;       // likewise
  int unused;         // of those, the products before

  // The products of an output that some of so many rows uses, from the first on, of all that it has.
  __device__ int reduction(int rows, int length) const {
    return columns + rows <= 1 ? 0 : min(length - first_product, products + rows - 1);
  }

  // Of so many products from the first on, those that a row uses.
  __device__ int count_products(int row, uint32_t issued) const {
    return max(min(static_cast<int>(issued), products + row) - max(unused + row, 0), 0);
  }

  __device__ bool uses(int row, int column) const { return column < columns + row; }

  // The same, as a block sees it whose first product is one further on.
  __device__ UsedPart from(int product) const {
    return {first_product + product, columns, products - product, unused - product};
  }
};

// first_row, first_column: the block's, in the matrices. length: products of an output.
__device__ inline UsedPart locate_used(Triangle triangle, int64_t first_row, int64_t first_column, int length) {
  constexpr int64_t ALL = UsedPart::ALL;
  UsedPart used{0, UsedPart::ALL, UsedPart::ALL, -UsedPart::ALL};
  if (triangle == Triangle::output) used.columns = static_cast<int>(max(min(first_row - first_column + 1, ALL), -ALL));
  if (triangle == Triangle::input) used.products = static_cast<int>(min(first_row + 1, ALL));
  if (triangle == Triangle::upper_input) {
    if (first_row < length) {
      used.first_product = static_cast<int>(first_row);
      used.unused = 0;
    } else {
      used.columns = -UsedPart::ALL;  // these rows are empty
    }
  }
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
    const int row_products = used.count_products(row(i), products);
    const int64_t outputs = row_products > 0 ? count_columns(used.columns + row(i)) : 0;
    counts.outputs += outputs;
    counts.products += outputs * row_products;
  }
  return counts;
}

}  // namespace flopcuda::cuda

// Transposes the matrices by blocks, which threads share.
#include "dense_copy.h"

#include <algorithm>

#include "partition.h"
#include "transpose.h"

namespace flopcuda::cpu {
namespace {

constexpr int64_t kBlockRows = 64, kBlockColumns = 64;  // of a matrix; both sides of a block stay in L1

// The same axes without those of one element, and as one those that follow each other in memory as in the copy.
std::vector<StridedAxis> joined(const std::vector<StridedAxis>& axes) {
  std::vector<StridedAxis> result;
  for (const StridedAxis& axis : axes) {
    if (axis.size == 1) continue;
    if (!result.empty() && result.back().stride == axis.size * axis.stride) {
      result.back() = {result.back().size * axis.size, axis.stride};
    } else {
      result.push_back(axis);
    }
  }
  return result;
}

}  // namespace

template <class Scalar>
bool copy_transposed(const Scalar* source, const std::vector<StridedAxis>& original_axes, Scalar* target) {
  std::vector<StridedAxis> axes = joined(original_axes);
  if (axes.size() < 2) return false;
  const StridedAxis columns = axes.back(), rows = axes[axes.size() - 2];
  if (rows.stride != 1 || columns.stride < rows.size) return false;
  axes.resize(axes.size() - 2);

  int64_t matrices = 1;
  for (const StridedAxis& axis : axes) matrices *= axis.size;
  const int64_t row_blocks = ceil_div(rows.size, kBlockRows), column_blocks = ceil_div(columns.size, kBlockColumns);
#pragma omp parallel for collapse(3)
  for (int64_t matrix = 0; matrix < matrices; ++matrix) {
    for (int64_t row_block = 0; row_block < row_blocks; ++row_block) {
      for (int64_t column_block = 0; column_block < column_blocks; ++column_block) {
        int64_t offset = 0, index = matrix;
        for (auto axis = axes.rbegin(); axis != axes.rend(); index /= axis->size, ++axis) {
          offset += index % axis->size * axis->stride;
        }
        const int64_t row = row_block * kBlockRows, column = column_block * kBlockColumns;
        transpose_from_memory(source + offset + column * columns.stride + row, columns.stride,
                              std::min(kBlockColumns, columns.size - column), std::min(kBlockRows, rows.size - row),
                              target + (matrix * rows.size + row) * columns.size + column, columns.size);
      }
    }
  }
  return true;
}

template bool copy_transposed(const float*, const std::vector<StridedAxis>&, float*);
template bool copy_transposed(const double*, const std::vector<StridedAxis>&, double*);

}  // namespace flopcuda::cpu

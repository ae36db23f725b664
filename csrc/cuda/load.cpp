// See load.h.
#include "cuda/load.h"

#include <algorithm>

namespace flopcuda::cuda {
namespace {

// On tensor cores, no slice has products of two segments.
int64_t count_slices(const KernelInfo& kernel, const GemmShape& shape) {
  if (!is_for_tensor_cores(kernel)) return divide_up(shape.segments * shape.length, kernel.block_k);
  return shape.segments * divide_up(shape.length, kernel.block_k);
}

// Of a row of tiles, where its rows end.
int64_t end_of(const KernelInfo& kernel, const GemmShape& shape, int64_t first_row) {
  return std::min(first_row + kernel.block_m, shape.rows);
}

// Those of them that reach the diagonal.
int64_t count_used_tiles(const KernelInfo& kernel, const GemmShape& shape, int64_t first_row) {
  const int64_t tiles = divide_up(shape.columns, kernel.block_n);
  if (shape.triangle != Triangle::output) return tiles;
  return std::min(tiles, divide_up(end_of(kernel, shape, first_row), kernel.block_n));
}

// Of each of these tiles.
int64_t count_used_products(const KernelInfo& kernel, const GemmShape& shape, int64_t first_row) {
  switch (shape.triangle) {
    case Triangle::input:
      return std::min(shape.length, end_of(kernel, shape, first_row));
    case Triangle::upper_input:
      return std::max<int64_t>(shape.length - first_row, 0);
    default:
      return shape.length;
  }
}

}  // namespace

Load load_of(const KernelInfo& kernel, const GemmShape& shape, int32_t splits) {
  if (shape.triangle == Triangle::none) {
    const int64_t blocks = count_tiles(kernel, shape) * splits;
    const int64_t slices = kernel.fixed_slices + count_slices(kernel, largest_part(kernel, shape, splits));
    return {blocks, static_cast<double>(blocks) * static_cast<double>(slices), slices};
  }
  Load load{};
  for (int64_t first_row = 0; first_row < shape.rows; first_row += kernel.block_m) {
    const int64_t slices = divide_up(count_used_products(kernel, shape, first_row), kernel.block_k);
    if (slices == 0) break;  // those below have none either
    const int64_t tiles = shape.groups * count_used_tiles(kernel, shape, first_row);
    load.blocks += tiles * std::min<int64_t>(splits, slices);
    load.slices += static_cast<double>(tiles) * static_cast<double>(slices);
    load.longest = std::max(load.longest, divide_up(slices, splits));
  }
  return load;
}

}  // namespace flopcuda::cuda

// Counted linear layer, forward, on tensor cores: out[row, o] = sum over i of in[row, i] * weight[o, i].
//
// Output features are the columns, so that a lane writes neighbouring outputs. tensor_main_loop.cuh says which
// bottlenecks the loop removes.
#include "cuda/kernel_entry.cuh"
#include "cuda/params.h"
#include "cuda/tensor_main_loop.cuh"

namespace flopcuda::cuda {
namespace {

template <class Tile, bool COUNT_ZERO>
__device__ void linear_tensor(const LinearParams& params) {
  using Scalar = TensorScalar<Tile::TYPE>;
  __shared__ TensorShared<Tile> shared;
  const int64_t first_row = static_cast<int64_t>(blockIdx.x / params.column_tiles) * Tile::BLOCK_M;
  const int64_t first_column = static_cast<int64_t>(blockIdx.x % params.column_tiles) * Tile::BLOCK_N;
  const int rows = static_cast<int>(min(params.rows - first_row, static_cast<int64_t>(Tile::BLOCK_M)));
  const int columns = static_cast<int>(min(params.out_features - first_column, static_cast<int64_t>(Tile::BLOCK_N)));

  RowChunkLoader<Tile, Tile::BLOCK_M, A_SWAP, COUNT_ZERO> input(params.input, first_row, rows, params.row_stride,
                                                                params.scalar_bytes, shared.stages[0].a);
  RowChunkLoader<Tile, Tile::BLOCK_N, B_SWAP<Tile>, COUNT_ZERO> weight(
      params.weight, first_column, columns, params.row_stride, params.scalar_bytes, shared.stages[0].b);
  const bool has_bias = params.bias != nullptr;
  WarpTile<Tile, COUNT_ZERO> tile(rows, columns);
  tile.set(has_bias ? static_cast<const Scalar*>(params.bias) + first_column : nullptr);

  const Reduction reduction{1, params.in_features, static_cast<int>(params.row_stride)};
  multiply_segments<Tile>(reduction, input, weight, shared.stages, tile, [](uint32_t) {});

  tile.store(static_cast<Scalar*>(params.output) + first_row * params.out_features + first_column, params.out_features,
             params.output_is_aligned);
  add_block_counts<Tile::THREADS>(tile.counts(has_bias, 0), params.counters, shared.counts);
}

}  // namespace

#define FLOPCUDA_DEFINE_TENSOR(kernel, share, Tile)                                         \
  FLOPCUDA_DEFINE_KERNEL(kernel, LinearParams, (Tile::THREADS), linear_tensor<Tile, false>) \
  FLOPCUDA_DEFINE_KERNEL(kernel##_count_zero, LinearParams, (Tile::THREADS), linear_tensor<Tile, true>)

FLOPCUDA_LINEAR_TENSOR_KERNELS(FLOPCUDA_DEFINE_TENSOR)

}  // namespace flopcuda::cuda

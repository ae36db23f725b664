// Counted linear layer, forward, on tensor cores: out[row, o] = sum over i of in[row, i] * weight[o, i]; or a batch of
// such products, of which a triangle may be all that is wanted.
//
// Output features are the columns, so that a lane writes neighbouring outputs. tensor_main_loop.cuh says which
// bottlenecks the loop removes.
#include "cuda/kernel_entry.cuh"
#include "cuda/linear_tiles.cuh"
#include "cuda/params.h"
#include "cuda/tensor_main_loop.cuh"

namespace flopcuda::cuda {
namespace {

template <class Tile, bool COUNT_ZERO>
__device__ void linear_tensor(const LinearParams& params) {
  using Scalar = TensorScalar<Tile::TYPE>;
  __shared__ TensorShared<Tile> shared;
  const TilePosition block = locate_tile<Tile>(params, blockIdx.x);
  // Of the whole batch, one product after another.
  const int64_t first_row = block.batch * params.rows + block.first_row;
  const int64_t first_weight_row = block.batch * params.out_features + block.first_column;

  RowChunkLoader<Tile, Tile::BLOCK_M, A_SWAP<Tile>, COUNT_ZERO> input(
      params.input, first_row, block.rows, params.row_stride, params.scalar_bytes, shared.stages[0].a);
  RowChunkLoader<Tile, Tile::BLOCK_N, B_SWAP<Tile>, COUNT_ZERO> weight(
      params.weight, first_weight_row, block.columns, params.row_stride, params.scalar_bytes, shared.stages[0].b);
  const bool has_bias = params.bias != nullptr;
  WarpTile<Tile, COUNT_ZERO> tile(block.rows, block.columns);
  tile.set(has_bias ? static_cast<const Scalar*>(params.bias) + block.first_column : nullptr);

  const int length = block.used.reduction(block.rows, params.in_features);
  const Reduction reduction{1, length, length};  // copies may go on to the end of their 16 bytes
  multiply_segments<Tile>(reduction, input, weight, shared.stages, tile, [](uint32_t) {});

  // Found out anew: no register holds it in the main loop.
  const UsedPart used = locate_tile<Tile>(params, block_index_again()).used;
  if (used.columns < Tile::BLOCK_N) tile.clear_unused(used);
  tile.store(static_cast<Scalar*>(params.output) + first_row * params.out_features + block.first_column,
             params.out_features, params.output_is_aligned);
  add_block_counts<Tile::THREADS>(tile.counts(has_bias, used), params.counters, shared.counts);
}

}  // namespace

#define FLOPCUDA_DEFINE_TENSOR(kernel, share, Tile)                                         \
  FLOPCUDA_DEFINE_KERNEL(kernel, LinearParams, (Tile::THREADS), linear_tensor<Tile, false>) \
  FLOPCUDA_DEFINE_KERNEL(kernel##_count_zero, LinearParams, (Tile::THREADS), linear_tensor<Tile, true>)

FLOPCUDA_LINEAR_TENSOR_KERNELS(FLOPCUDA_DEFINE_TENSOR)

}  // namespace flopcuda::cuda

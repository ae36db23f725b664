// Counted linear layer, forward, on tensor cores: out[row, o] = sum over i of in[row, i] * weight[o, i]; or a batch of
// such products, of which a triangle may be all that is wanted.
//
// Output features are the columns, so that a lane writes neighbouring outputs. tensor_main_loop.cuh says which
// bottlenecks the loop removes.
#include "cuda/kernel_entry.cuh"
#include "cuda/linear_tiles.cuh"
#include "cuda/params.h"
#include "cuda/split_sums.cuh"
#include "cuda/tensor_main_loop.cuh"

namespace flopcuda::cuda {
namespace {

template <class Tile, bool COUNT_ZERO>
__device__ void linear_tensor(const LinearParams& params) {
  if (!HAS_TENSOR_KERNELS) return __trap();
  using Scalar = TensorScalar<Tile::TYPE>;
  __shared__ TensorShared<Tile> shared;
  const TilePosition block = locate_tile<Tile>(params, blockIdx.x);
  // Of the whole batch, one product after another.
  const int64_t first_row = block.batch * params.rows + block.first_row;
  const int64_t first_weight_row = block.batch * params.out_features + block.first_column;

  // A part's first product, and a tile's first row, is a multiple of what is copied at once.
  const ReductionPart part = locate_part<Tile>(block.used.reduction(block.rows, params.in_features), Tile::BLOCK_K);
  const int first_product = part.first + block.used.first_product;
  RowChunkLoader<Tile, Tile::BLOCK_M, A_SWAP<Tile>, COUNT_ZERO> input(
      static_cast<const Scalar*>(params.input) + first_product, first_row, block.rows, params.row_stride,
      params.scalar_bytes, shared.stages[0].a);
  RowChunkLoader<Tile, Tile::BLOCK_N, B_SWAP<Tile>, COUNT_ZERO> weight(
      static_cast<const Scalar*>(params.weight) + first_product, first_weight_row, block.columns, params.row_stride,
      params.scalar_bytes, shared.stages[0].b);
  const bool has_bias = params.bias != nullptr && has_first_part<Tile>();
  WarpTile<Tile, COUNT_ZERO> tile(block.rows, block.columns);
  tile.set(has_bias ? static_cast<const Scalar*>(params.bias) + block.first_column : nullptr);

  const Reduction reduction{1, part.products, part.products, part.products};
  multiply_segments<Tile>(reduction, input, weight, shared.stages, tile);

  // Found out anew: no register holds it in the main loop.
  const TilePosition again = locate_tile<Tile>(params, block_index_again());
  const UsedPart& used = again.used;
  const int length = used.reduction(again.rows, params.in_features);
  const auto count_additions = [&](uint32_t other) {
    return count_joined(used, locate_part(length, Tile::BLOCK_K, other),
                        [&](const UsedPart& seen, uint32_t products) { return tile.count_of(seen, products); });
  };
  if (tile.combine_parts(params.workspace, count_additions)) {
    if (used.columns < Tile::BLOCK_N) tile.clear_unused(used);
    tile.store(static_cast<Scalar*>(params.output) + first_row * params.out_features + block.first_column,
               params.out_features, params.output_is_aligned);
  }
  add_block_counts<Tile::THREADS>(tile.counts(has_bias, used.from(locate_part<Tile>(length, Tile::BLOCK_K).first)),
                                  params.counters, shared.counts);
}

}  // namespace

#define FLOPCUDA_DEFINE_TENSOR(kernel, share, Tile)                                                     \
  FLOPCUDA_DEFINE_KERNEL(kernel, LinearParams, (Tile::THREADS), linear_tensor<Tile, false>)             \
  FLOPCUDA_DEFINE_KERNEL(kernel##_count_zero, LinearParams, (Tile::THREADS), linear_tensor<Tile, true>) \
  FLOPCUDA_DEFINE_KERNEL(kernel##_split, LinearParams, (Tile::THREADS), linear_tensor<SplitTile<Tile>, false>)

FLOPCUDA_LINEAR_TENSOR_KERNELS(FLOPCUDA_DEFINE_TENSOR)

}  // namespace flopcuda::cuda

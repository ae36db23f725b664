// Counted linear layer, forward: out[row, o] = sum over i of in[row, i] * weight[o, i]; or a batch of such products, of
// which a triangle may be all that is wanted.
//
// Both operands are row-major along the reduction. Output features are the columns, so that neighbouring lanes write
// neighbouring outputs. gemm_main_loop.cuh says which bottlenecks the loop removes.
#include "cuda/gemm_main_loop.cuh"
#include "cuda/kernel_entry.cuh"
#include "cuda/linear_tiles.cuh"
#include "cuda/params.h"
#include "cuda/row_major_loader.cuh"
#include "cuda/split_sums.cuh"

namespace flopcuda::cuda {
namespace {

// The outputs of one block. Kept in shared memory: registers are needed for the main loop that lies between its uses.
struct BlockOutputs {
  int64_t first_row;         // of the rows of the whole batch, one product after another
  int64_t first_weight_row;  // likewise
  int64_t first_column;
  int rows;     // from the first on, at most BLOCK_M
  int columns;  // from the first on, at most BLOCK_N
  UsedPart used;
  int reduction;       // the products that some row uses
  ReductionPart part;  // of those, the block's
};

template <class Tile>
__device__ BlockOutputs locate_block(const LinearParams& params) {
  const TilePosition tile = locate_tile<Tile>(params, blockIdx.x);
  const int reduction = tile.used.reduction(tile.rows, params.in_features);
  return {tile.batch * params.rows + tile.first_row,
          tile.batch * params.out_features + tile.first_column,
          tile.first_column,
          tile.rows,
          tile.columns,
          tile.used,
          reduction,
          locate_part<Tile>(reduction, Tile::BLOCK_K)};
}

template <class Tile>
__device__ void clear_unused(const UsedPart& used, const ThreadPosition<Tile>& position, ThreadTile<Tile>& tile) {
#pragma unroll
  for (int i = 0; i < Tile::THREAD_M; ++i) {
#pragma unroll
    for (int j = 0; j < Tile::THREAD_N; ++j) {
      const int row = position.first_row() + position.row_offset(i);
      if (!used.uses(row, position.first_column() + position.column_offset(j))) tile.accumulators[i][j] = 0;
    }
  }
}

template <class Tile, bool COUNT_ZERO>
__device__ void linear_tile(const LinearParams& params) {
  using Scalar = typename Tile::Scalar;
  __shared__ GemmStage<Tile> stages[Tile::STAGES];
  __shared__ BlockOutputs block;
  if (threadIdx.x == 0) block = locate_block<Tile>(params);
  __syncthreads();

  const int first_product = block.part.first + block.used.first_product;
  RowMajorLoader<Tile, Tile::BLOCK_M> input(static_cast<const Scalar*>(params.input) + first_product, block.first_row,
                                            block.rows, params.in_features, block.part.products, params.scalar_bytes,
                                            stages[0].a);
  RowMajorLoader<Tile, Tile::BLOCK_N> weight(static_cast<const Scalar*>(params.weight) + first_product,
                                             block.first_weight_row, block.columns, params.in_features,
                                             block.part.products, params.scalar_bytes, stages[0].b);
  const ThreadPosition<Tile> position;
  const bool has_bias = params.bias != nullptr && has_first_part<Tile>();
  const Scalar* const bias = static_cast<const Scalar*>(params.bias) + block.first_column + position.first_column();
  const auto count_valid = [&] {
    return ValidOutputs{position.count_rows(block.rows), position.count_columns(block.columns)};
  };
  GemmTally<Tile, COUNT_ZERO> tally(count_valid());
  ThreadTile<Tile> tile;
#pragma unroll
  for (int j = 0; j < Tile::THREAD_N; ++j) {
    const bool is_needed = has_bias && position.column_offset(j) < block.columns - position.first_column();
    const Scalar initial = is_needed ? bias[position.column_offset(j)] : Scalar(0);
#pragma unroll
    for (int i = 0; i < Tile::THREAD_M; ++i) tile.accumulators[i][j] = initial;
  }

  multiply_reduction(block.part.products, input, weight, stages, tile, tally);

  const auto count_of = [&](const UsedPart& used, uint32_t products) {
    return count_used<Tile::THREAD_M>(
        used, products, block.rows, [&](int i) { return position.first_row() + position.row_offset(i); },
        [&](int limit) { return position.count_columns(min(block.columns, limit)); });
  };
  const auto count_additions = [&](uint32_t part) {
    tally.issue_additions(count_joined(block.used, locate_part(block.reduction, Tile::BLOCK_K, part), count_of));
  };
  if (combine_parts<Tile>(params.workspace, tile.accumulators, count_additions)) {
    if (block.used.columns < block.columns) clear_unused(block.used, position, tile);
    Scalar* const first_output =
        static_cast<Scalar*>(params.output) + block.first_row * params.out_features + block.first_column;
    store_outputs(tile, position, block.rows, block.columns, params.out_features, params.output_is_aligned,
                  [&](int column) { return first_output + column; });
  }
  const UsedCounts used = count_of(block.used.from(block.part.first), tally.products());
  add_block_counts<Tile::THREADS>(tally.counts(has_bias, used), params.counters);
}

}  // namespace

#define FLOPCUDA_DEFINE_LINEAR(kernel, share, Tile)                                                                \
  FLOPCUDA_DEFINE_KERNEL(kernel, LinearParams, (Tile::THREADS, Tile::min_blocks(false)), linear_tile<Tile, false>) \
  FLOPCUDA_DEFINE_KERNEL(kernel##_count_zero, LinearParams, (Tile::THREADS, Tile::min_blocks(true)),               \
                         linear_tile<Tile, true>)                                                                  \
  FLOPCUDA_DEFINE_KERNEL(kernel##_split, LinearParams, (Tile::THREADS, Tile::min_blocks(false)),                   \
                         linear_tile<SplitTile<Tile>, false>)

FLOPCUDA_LINEAR_KERNELS(FLOPCUDA_DEFINE_LINEAR)

}  // namespace flopcuda::cuda

// Counted linear layer, forward: out[row, o] = sum over i of in[row, i] * weight[o, i].
//
// Both operands are row-major along the reduction. Output features are the columns, so that neighbouring lanes write
// neighbouring outputs. gemm_main_loop.cuh says which bottlenecks the loop removes.
#include "cuda/gemm_main_loop.cuh"
#include "cuda/kernel_entry.cuh"
#include "cuda/params.h"
#include "cuda/row_major_loader.cuh"

namespace flopcuda::cuda {
namespace {

// The outputs of one block. Kept in shared memory: registers are needed for the main loop that lies between its uses.
struct BlockOutputs {
  int64_t first_row;
  int64_t first_column;
  int rows;     // from the first on, at most BLOCK_M
  int columns;  // from the first on, at most BLOCK_N
};

template <class Tile>
__device__ BlockOutputs locate_block(const LinearParams& params) {
  const int64_t first_row = static_cast<int64_t>(blockIdx.x / params.column_tiles) * Tile::BLOCK_M;
  const int64_t first_column = static_cast<int64_t>(blockIdx.x % params.column_tiles) * Tile::BLOCK_N;
  return {first_row, first_column, static_cast<int>(min(params.rows - first_row, static_cast<int64_t>(Tile::BLOCK_M))),
          static_cast<int>(min(params.out_features - first_column, static_cast<int64_t>(Tile::BLOCK_N)))};
}

template <class Tile, bool COUNT_ZERO>
__device__ void linear_tile(const LinearParams& params) {
  using Scalar = typename Tile::Scalar;
  __shared__ GemmStage<Tile> stages[Tile::STAGES];
  __shared__ BlockOutputs block;
  if (threadIdx.x == 0) block = locate_block<Tile>(params);
  __syncthreads();

  RowMajorLoader<Tile, Tile::BLOCK_M> input(params.input, block.first_row, block.rows, params.in_features,
                                            params.scalar_bytes, stages[0].a);
  RowMajorLoader<Tile, Tile::BLOCK_N> weight(params.weight, block.first_column, block.columns, params.in_features,
                                             params.scalar_bytes, stages[0].b);
  const ThreadPosition<Tile> position;
  const bool has_bias = params.bias != nullptr;
  const Scalar* const bias = static_cast<const Scalar*>(params.bias) + block.first_column + position.first_column();
  const auto count_valid = [&] {
    return ValidOutputs{position.count_rows(block.rows), position.count_columns(block.columns), block.rows};
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

  multiply_reduction(params.in_features, input, weight, stages, tile, tally);

  Scalar* const first_output =
      static_cast<Scalar*>(params.output) + block.first_row * params.out_features + block.first_column;
  store_outputs(tile, position, block.rows, block.columns, params.out_features, params.output_is_aligned,
                [&](int column) { return first_output + column; });
  add_block_counts<Tile::THREADS>(tally.counts(count_valid(), has_bias), params.counters);
}

}  // namespace

#define FLOPCUDA_DEFINE_LINEAR(kernel, share, Tile)                                                                \
  FLOPCUDA_DEFINE_KERNEL(kernel, LinearParams, (Tile::THREADS, Tile::min_blocks(false)), linear_tile<Tile, false>) \
  FLOPCUDA_DEFINE_KERNEL(kernel##_count_zero, LinearParams, (Tile::THREADS, Tile::min_blocks(true)),               \
                         linear_tile<Tile, true>)

FLOPCUDA_LINEAR_KERNELS(FLOPCUDA_DEFINE_LINEAR)

}  // namespace flopcuda::cuda

// Counted linear layer, forward, float32: out[row, o] = sum over i of in[row, i] * weight[o, i].
//
// Both operands are row-major along the reduction. Output features are the columns, so that neighbouring lanes write
// neighbouring outputs. gemm_main_loop.cuh says which bottlenecks the loop removes.
#include "cuda/gemm_main_loop.cuh"
#include "cuda/params.h"
#include "cuda/row_major_loader.cuh"

namespace flopcuda::cuda {
namespace {

template <class Tile, bool COUNT_ZERO>
__device__ void linear_tile(const LinearParams& params) {
  __shared__ GemmShared<Tile> shared;

  const int64_t first_row = static_cast<int64_t>(blockIdx.x / params.column_tiles) * Tile::BLOCK_M;
  const int64_t first_column = static_cast<int64_t>(blockIdx.x % params.column_tiles) * Tile::BLOCK_N;
  const int rows = static_cast<int>(min(params.rows - first_row, static_cast<int64_t>(Tile::BLOCK_M)));
  const int columns = static_cast<int>(min(params.out_features - first_column, static_cast<int64_t>(Tile::BLOCK_N)));

  const ThreadPosition<Tile> position;
  ThreadTile<Tile> tile;
#pragma unroll
  for (int j = 0; j < Tile::THREAD_N; ++j) {
    const int column = position.column(j);
    const float initial = params.bias && column < columns ? params.bias[first_column + column] : 0.0f;
#pragma unroll
    for (int i = 0; i < Tile::THREAD_M; ++i) tile.accumulators[i][j] = initial;
  }

  RowMajorLoader<Tile, Tile::BLOCK_M> input(params.input, first_row, params.rows, params.in_features,
                                            params.input_is_aligned, shared.a);
  RowMajorLoader<Tile, Tile::BLOCK_N> weight(params.weight, first_column, params.out_features, params.in_features,
                                             params.weight_is_aligned, shared.b);
  GemmTally<Tile, COUNT_ZERO> tally(position.count_rows_below(rows), position.count_columns_below(columns),
                                    params.bias != nullptr);
  multiply_slices(params.in_features, input, weight, shared, position, tile, tally);

  float* const first_output = params.output + first_row * params.out_features + first_column;
  store_outputs(tile, position, rows, columns, params.out_features, params.output_is_aligned,
                [&](int column) { return first_output + column; });
  add_block_counts<Tile::THREADS>(tally.counts(), params.counters);
}

}  // namespace

#define FLOPCUDA_DEFINE_LINEAR(name, conv2d_share, linear_share, ...)                                                                           \
  extern "C" __global__ void __launch_bounds__(TileConfig<__VA_ARGS__>::THREADS, TileConfig<__VA_ARGS__>::MIN_BLOCKS) \
      FLOPCUDA_LINEAR(name)(const __grid_constant__ LinearParams params) {                                          \
    linear_tile<TileConfig<__VA_ARGS__>, false>(params);                                                            \
  }                                                                                                                 \
  extern "C" __global__ void __launch_bounds__(TileConfig<__VA_ARGS__>::THREADS, TileConfig<__VA_ARGS__>::MIN_BLOCKS) \
      FLOPCUDA_LINEAR_COUNT_ZERO(name)(const __grid_constant__ LinearParams params) {                               \
    linear_tile<TileConfig<__VA_ARGS__>, true>(params);                                                             \
  }

FLOPCUDA_GEMM_TILES(FLOPCUDA_DEFINE_LINEAR)

}  // namespace flopcuda::cuda

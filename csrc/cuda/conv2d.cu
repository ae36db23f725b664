// Counted 2-D convolution, forward, float32, as an implicit GEMM: out[channel, pixel] = W[channel, :] * im2col[:, pixel].
//
// Output channels are the rows and pixels of all images the columns, so that neighbouring lanes write neighbouring pixels
// of an NCHW tensor. gemm_main_loop.cuh says which bottlenecks the loop removes, im2col_loader.cuh those of its operand.
#include "cuda/gemm_main_loop.cuh"
#include "cuda/im2col_loader.cuh"
#include "cuda/params.h"
#include "cuda/row_major_loader.cuh"

namespace flopcuda::cuda {
namespace {

template <class Tile, bool COUNT_ZERO>
__device__ void conv2d_tile(const Conv2dParams& params) {
  __shared__ GemmShared<Tile> shared;
  __shared__ Im2colShared<Tile> im2col_shared;

  const uint32_t row_tile = blockIdx.x % params.row_tiles;
  const uint32_t column_tile = blockIdx.x / params.row_tiles % params.column_tiles;
  const int group = blockIdx.x / params.row_tiles / params.column_tiles;
  const int first_row = row_tile * Tile::BLOCK_M;
  const int64_t first_column = static_cast<int64_t>(column_tile) * Tile::BLOCK_N;
  const int64_t first_channel = static_cast<int64_t>(group) * params.group_out_channels + first_row;
  const int rows = min(params.group_out_channels - first_row, Tile::BLOCK_M);
  const int columns = static_cast<int>(min(params.columns - first_column, static_cast<int64_t>(Tile::BLOCK_N)));

  const ThreadPosition<Tile> position;
  ThreadTile<Tile> tile;
#pragma unroll
  for (int i = 0; i < Tile::THREAD_M; ++i) {
    const int row = position.row(i);
    const float initial = params.bias && row < rows ? params.bias[first_channel + row] : 0.0f;
#pragma unroll
    for (int j = 0; j < Tile::THREAD_N; ++j) tile.accumulators[i][j] = initial;
  }

  RowMajorLoader<Tile, Tile::BLOCK_M> weight(params.weight, first_channel, first_channel + rows, params.reduction,
                                             params.weight_is_aligned, shared.a);
  Im2colLoader<Tile> input(params, group, first_column, shared.b, im2col_shared);
  GemmTally<Tile, COUNT_ZERO> tally(position.count_rows_below(rows), position.count_columns_below(columns),
                                    params.bias != nullptr);
  multiply_slices(params.reduction, weight, input, shared, position, tile, tally);

  float* const first_output = params.output + first_channel * params.output_plane;
  store_outputs(tile, position, rows, columns, params.output_plane, params.output_is_aligned, [&](int column) {
    const int64_t image = (first_column + column) / params.output_plane;
    const int64_t pixel = (first_column + column) % params.output_plane;
    return first_output + image * params.output_image_stride + pixel;
  });
  add_block_counts<Tile::THREADS>(tally.counts(), params.counters);
}

}  // namespace

#define FLOPCUDA_DEFINE_CONV2D(name, ...)                                                                           \
  extern "C" __global__ void __launch_bounds__(TileConfig<__VA_ARGS__>::THREADS, TileConfig<__VA_ARGS__>::MIN_BLOCKS) \
      FLOPCUDA_CONV2D(name)(const __grid_constant__ Conv2dParams params) {                                          \
    conv2d_tile<TileConfig<__VA_ARGS__>, false>(params);                                                            \
  }                                                                                                                 \
  extern "C" __global__ void __launch_bounds__(TileConfig<__VA_ARGS__>::THREADS, TileConfig<__VA_ARGS__>::MIN_BLOCKS) \
      FLOPCUDA_CONV2D_COUNT_ZERO(name)(const __grid_constant__ Conv2dParams params) {                               \
    conv2d_tile<TileConfig<__VA_ARGS__>, true>(params);                                                             \
  }

FLOPCUDA_GEMM_TILES(FLOPCUDA_DEFINE_CONV2D)

}  // namespace flopcuda::cuda

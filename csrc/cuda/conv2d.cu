// Counted 2-D convolution, forward, float32, as an implicit GEMM of each group: out[channel, pixel] is the sum over the
// reduction of weight[channel, k] * im2col[k, pixel].
//
// Output channels are the rows and pixels of all images the columns, so that neighbouring lanes write neighbouring
// pixels of an NCHW tensor. gemm_main_loop.cuh says which bottlenecks the loop removes, im2col_loader.cuh those of its
// operand.
#include "cuda/conv2d_window.cuh"
#include "cuda/gemm_main_loop.cuh"
#include "cuda/im2col_loader.cuh"
#include "cuda/params.h"
#include "cuda/row_major_loader.cuh"

namespace flopcuda::cuda {
namespace {

// The outputs of one block. Kept in shared memory: registers are needed for the main loop that lies between its uses.
struct BlockOutputs {
  int64_t first_channel;
  int rows;  // output channels of the group from the first on, at most BLOCK_M
  int group;
  Pixel first_pixel;
  int columns;  // pixels from the first on, at most BLOCK_N
};

template <class Tile>
__device__ BlockOutputs locate_block(const Conv2dParams& params) {
  const uint32_t row_tile = blockIdx.x % params.row_tiles;
  const uint32_t column_tile = blockIdx.x / params.row_tiles % params.column_tiles;
  const int group = blockIdx.x / params.row_tiles / params.column_tiles;
  const int first_row = row_tile * Tile::BLOCK_M;
  const int64_t first_column = static_cast<int64_t>(column_tile) * Tile::BLOCK_N;
  return {static_cast<int64_t>(group) * params.group_out_channels + first_row,
          min(params.group_out_channels - first_row, Tile::BLOCK_M), group,
          locate_column(first_column, params.output_plane),
          static_cast<int>(min(params.columns - first_column, static_cast<int64_t>(Tile::BLOCK_N)))};
}

template <class Tile, bool COUNT_ZERO>
__device__ void conv2d_tile(const Conv2dParams& params) {
  __shared__ GemmShared<Tile> shared;
  __shared__ GemmTallyShared<Tile> tally_shared;
  __shared__ RowMajorShared<Tile, Tile::BLOCK_M> weight_shared;
  __shared__ Im2colShared<Tile> im2col_shared;
  __shared__ BlockOutputs block;
  if (threadIdx.x == 0) block = locate_block<Tile>(params);
  __syncthreads();

  RowMajorLoader<Tile, Tile::BLOCK_M> weight(params.weight, block.first_channel, block.rows, params.reduction,
                                             params.weight_is_aligned, shared.a, weight_shared);
  Im2colLoader<Tile> input(params, block.group, block.first_pixel, block.columns, shared.b, im2col_shared);
  const ThreadPosition<Tile> position;
  const float* const bias = params.bias ? params.bias + block.first_channel + position.first_row() : nullptr;
  GemmTally<Tile, COUNT_ZERO> tally(position.count_rows(block.rows), position.count_columns(block.columns),
                                    bias != nullptr, tally_shared);
  ThreadTile<Tile> tile;
#pragma unroll
  for (int i = 0; i < Tile::THREAD_M; ++i) {
    const bool is_needed = bias && position.row_offset(i) < block.rows - position.first_row();
    const float initial = is_needed ? bias[position.row_offset(i)] : 0.0f;
#pragma unroll
    for (int j = 0; j < Tile::THREAD_N; ++j) tile.accumulators[i][j] = initial;
  }

  multiply_slices(params.reduction, weight, input, shared, position, tile, tally);

  store_outputs(tile, position, block.rows, block.columns, params.output_plane, params.output_is_aligned,
                [&](int column) {
                  const Pixel pixel = block.first_pixel.advance(column, params.output_plane);
                  return params.output + pixel.image * params.output_image_stride +
                         block.first_channel * params.output_plane + pixel.index;
                });
  add_block_counts<Tile::THREADS>(tally.counts(), params.counters);
}

}  // namespace

#define FLOPCUDA_DEFINE_CONV2D(name, conv2d_share, linear_share, ...)                                                 \
  extern "C" __global__ void __launch_bounds__(TileConfig<__VA_ARGS__>::THREADS, TileConfig<__VA_ARGS__>::MIN_BLOCKS) \
      FLOPCUDA_CONV2D(name)(const __grid_constant__ Conv2dParams params) {                                            \
    conv2d_tile<TileConfig<__VA_ARGS__>, false>(params);                                                              \
  }                                                                                                                   \
  extern "C" __global__ void __launch_bounds__(TileConfig<__VA_ARGS__>::THREADS,                                      \
                                               TileConfig<__VA_ARGS__>::MIN_BLOCKS_COUNT_ZERO)                        \
      FLOPCUDA_CONV2D_COUNT_ZERO(name)(const __grid_constant__ Conv2dParams params) {                                 \
    conv2d_tile<TileConfig<__VA_ARGS__>, true>(params);                                                               \
  }

FLOPCUDA_GEMM_TILES(FLOPCUDA_DEFINE_CONV2D)

}  // namespace flopcuda::cuda

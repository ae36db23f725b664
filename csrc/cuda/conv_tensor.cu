// Counted convolution, forward, on tensor cores, as an implicit GEMM of each group: out[pixel, channel] is the sum over
// taps and channels of im2col[pixel, k] * weight[channel, k].
//
// Images are channels-last, as tensor cores like them: pixels of all images are the rows and output channels the
// columns, so that a lane writes neighbouring channels of a pixel. tensor_main_loop.cuh says which bottlenecks the loop
// removes, window_chunk_loader.cuh those of its operand.
#include <type_traits>

#include "cuda/conv_window.cuh"
#include "cuda/kernel_entry.cuh"
#include "cuda/params.h"
#include "cuda/split_sums.cuh"
#include "cuda/tensor_main_loop.cuh"
#include "cuda/window_chunk_loader.cuh"

namespace flopcuda::cuda {
namespace {

template <class Tile>
constexpr int COPIED_PIXELS = CopiedChunks<Tile, Tile::BLOCK_M, A_SWAP<Tile>>::ROWS;  // of a slice, by one thread

template <class Tile, TapSource TAPS>
using WindowTaps =
    std::conditional_t<TAPS == TapSource::table, TapBits<COPIED_PIXELS<Tile>>, TapCoordinates<COPIED_PIXELS<Tile>>>;

// The block's part of the reduction: slices of each tap's channels, or, of many taps, whole ones.
template <class Tile, TapSource TAPS>
__device__ TapsPart locate_taps_part(const ConvParams& params) {
  if constexpr (TAPS == TapSource::table) {
    return {{0, params.taps}, locate_part<Tile>(params.group_in_channels, Tile::BLOCK_K)};
  } else {
    return {locate_part<Tile>(params.taps, 1), {0, params.group_in_channels}};
  }
}

template <class Tile, TapSource TAPS, bool COUNT_ZERO>
__device__ void conv_tensor(const ConvParams& params) {
  if (!HAS_TENSOR_KERNELS) return __trap();
  using Scalar = TensorScalar<Tile::TYPE>;
  __shared__ TensorShared<Tile> shared;
  const uint32_t tile_of_all = blockIdx.x / params.column_tiles;
  const int group = tile_of_all / params.row_tiles;
  const int64_t first_row = static_cast<int64_t>(tile_of_all % params.row_tiles) * Tile::BLOCK_M;
  const int first_column = blockIdx.x % params.column_tiles * Tile::BLOCK_N;
  const int64_t first_channel = static_cast<int64_t>(group) * params.group_out_channels + first_column;
  const int rows = static_cast<int>(min(params.columns - first_row, static_cast<int64_t>(Tile::BLOCK_M)));
  const int columns = min(params.group_out_channels - first_column, Tile::BLOCK_N);
  const int stored_channels = static_cast<int>(params.group_input_extent);
  const TapsPart part = locate_taps_part<Tile, TAPS>(params);

  WindowChunkLoader<Tile, WindowTaps<Tile, TAPS>> input(
      params, group, part, locate_column(first_row, params.output_pixels), rows, shared.stages[0].a);
  RowChunkLoader<Tile, Tile::BLOCK_N, B_SWAP<Tile>, COUNT_ZERO> weight(
      static_cast<const Scalar*>(params.weight) + part.taps.first * stored_channels + part.channels.first,
      first_channel, columns, params.taps * stored_channels, params.scalar_bytes, shared.stages[0].b);
  // Found out twice: no register holds it in the main loop.
  const auto has_bias = [&] { return params.bias != nullptr && has_first_part<Tile>(); };
  WarpTile<Tile, COUNT_ZERO> tile(rows, columns);
  tile.set(has_bias() ? static_cast<const Scalar*>(params.bias) + first_channel : nullptr);

  // Of the whole reduction, as far as a tap is long: one number fewer to hold, and some kernels have no register for
  // it.
  const int copied_channels = Tile::IS_SPLIT ? part.channels.products : stored_channels;
  const Reduction reduction{part.taps.products, part.channels.products, copied_channels, stored_channels};
  multiply_segments<Tile>(reduction, input, weight, shared.stages, tile);

  const int64_t pixel_stride = params.output_image_stride / params.output_pixels;
  if (tile.combine_parts(params.workspace, [&](uint32_t) { return tile.count_outputs(); })) {
    tile.store(static_cast<Scalar*>(params.output) + first_row * pixel_stride + first_channel, pixel_stride,
               params.output_is_aligned);
  }
  const int64_t padded = static_cast<int64_t>(input.padded()) * columns;
  add_block_counts<Tile::THREADS>(tile.counts(has_bias(), padded), params.counters, shared.counts);
}

}  // namespace

#define FLOPCUDA_DEFINE_CONV_TENSOR(kernel, share, Tile, taps)                                                       \
  FLOPCUDA_DEFINE_KERNEL(kernel, ConvParams, (Tile::THREADS), conv_tensor<Tile, TapSource::taps, false>)             \
  FLOPCUDA_DEFINE_KERNEL(kernel##_count_zero, ConvParams, (Tile::THREADS), conv_tensor<Tile, TapSource::taps, true>) \
  FLOPCUDA_DEFINE_KERNEL(kernel##_split, ConvParams, (Tile::THREADS),                                                \
                         conv_tensor<SplitTile<Tile>, TapSource::taps, false>)

FLOPCUDA_CONV_TENSOR_KERNELS(FLOPCUDA_DEFINE_CONV_TENSOR)

}  // namespace flopcuda::cuda
